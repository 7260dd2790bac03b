//! Duties: acts that no slot's repair wants, but the array as a whole.
//!
//! | duty | from | until |
//! |---|---|---|
//! | connect again | a controller was deleted by us, or given up by the kernel | it is back, or its subsystem is no replica's any more |
//! | call | the array was assembled without a replica of its volume that nobody had connected | it was connected, or is no replica any more |
//! | put out | the device of a leg without a slot is gone | it is out |
//! | put away | the array was stopped, and we had connected something for it | it is disconnected, or somebody uses it |
//!
//! They are driven like a repair's steps: derived from the look, let through by the same guards,
//! one at a time, each with a durable intent. What is owed to a controller survives a crash in the
//! record.

use std::collections::BTreeSet;

use heal_types::{
    Backing, ConnectParams, ControllerState, HostAction, NamespaceId, NamespaceIds, Now, Nqn,
    Observed, Outcome, Replica, ReplicaId,
};

use crate::arming::LostLeg;
use crate::effect::Effect;
use crate::guards::GuardWhy;
use crate::phase::{Phase, Repair, Turn, TurnState};
use crate::policy::Mode;
use crate::record::{Intent, Lapsed, Member};
use crate::why::Cause;

use super::{ArrayMachine, Standing, due_at};

/// The verb of connecting again.
const RECONNECT: &str = "reconnect";
/// The verb of giving a controller up.
const DELETE: &str = "delete_controller";

impl ArrayMachine {
    /// Whatever the array as a whole is owed, one act at a time.
    pub(super) fn tend_duties(&mut self, now: Now) {
        self.forget_reconnected(now);
        self.forget_called();
        self.note_bad_blocks(now);
        if self.duty_due().is_none_or(|due| due > now.mono) {
            return;
        }
        if let Some(action) = self.wanted_duty() {
            self.begin_duty(now, action);
        }
    }

    /// When the next duty is due, if anything is owed.
    pub(super) fn duty_due(&self) -> Option<heal_types::Moment> {
        let held = self.hold.is_some() || self.quarantine.is_some() || self.blind;
        let ours = self.standing == Standing::Managed || self.leaves_something();
        if held || self.policy.mode == Mode::Observe || !ours {
            return None;
        }
        self.wanted_duty()?;
        due_at(&self.duty)
    }

    /// The array is gone: what is owed to it from now on is to leave nothing behind, once whoever
    /// stopped it has put the rest away.
    pub(super) fn begin_leaving(&mut self, now: Now) {
        if let Some(after) = self.policy.put_away_after {
            self.duty = Turn::at(now.mono.after(after));
        }
    }

    /// Whether something is still connected that was connected for an array which is gone. It was
    /// ours when we connected it; whether it still is, nobody can be asked any more.
    pub(super) fn leaves_something(&self) -> bool {
        let healed = match self.standing {
            Standing::Managed | Standing::Undecided => self.policy.mode == Mode::Heal,
            Standing::Unprovisioned | Standing::NotOurs(_) => false,
        };
        let gone = healed && self.was_there_in_this_boot() && self.is_gone();
        gone && self.policy.put_away_after.is_some() && !self.connected.is_empty()
    }

    /// A replica that the volume lists and the array was assembled without, because nobody had
    /// connected it: whoever attached the volume had an older list. One that was a leg here and
    /// went is waited for.
    fn never_connected(&self) -> Option<&Replica> {
        let volume = self.volume.known().filter(|_| self.standing == Standing::Managed)?;
        let waits = |repair: &&Repair| {
            matches!(repair.phase, Phase::Grace) && repair.cause == Cause::LegLost
        };
        let lost = self.repairs.values().filter(waits).filter_map(|repair| repair.lost.as_ref());
        let mut lost = lost.filter(|member| member.device.is_none()).peekable();
        lost.peek()?; // Mostly nobody is waited for, and this is asked often.
        // A namespace that nobody can tell yet may be the one.
        let ids = self.namespaces.iter().map(|namespace| namespace.ids.known());
        let there: Vec<NamespaceId> = ids
            .collect::<Option<Vec<_>>>()?
            .into_iter()
            .flat_map(NamespaceIds::iter)
            .copied()
            .collect();
        lost.filter_map(|member| volume.replica(member.replica.as_ref()?))
            .filter(|replica| !replica.state.is_leaving() && !replica.target.portals.is_empty())
            .filter(|replica| !there.contains(&replica.target.namespace))
            .find(|replica| !self.called.contains(&replica.id))
    }

    /// A leg that has no slot, faulty or not, and whose device is gone: it may be anybody's, and
    /// what waits until somebody is out waits for it. As long as a repair may be about it, that one
    /// sees to it.
    fn gone_spare(&self) -> Option<HostAction> {
        let retiring = |repair: &Repair| matches!(repair.phase, Phase::Retiring { .. });
        let ours = self.standing == Standing::Managed && self.repairs.values().all(retiring);
        let array = self.snapshot().filter(|_| ours)?;
        let mut idle = array.legs.iter().filter(|leg| leg.slot.is_none());
        let gone =
            idle.find(|leg| leg.backing == Backing::Gone && (leg.is_faulty() || leg.is_spare()))?;
        Some(self.remove(gone, None))
    }

    fn wanted_duty(&self) -> Option<HostAction> {
        if self.leaves_something() {
            let (nqn, controllers) = self.connected.first_key_value()?;
            let controllers = controllers.iter().cloned().collect();
            return Some(HostAction::Disconnect { nqn: nqn.clone(), controllers });
        }
        // What is being deleted is still there, and cannot be connected a second time.
        let deleting = self.intents.values().any(|intent| intent.verb == DELETE);
        let reconnect = self
            .lapsed
            .iter()
            .find(|lapsed| !deleting && !self.stays(&lapsed.params))
            .map(|lapsed| HostAction::Reconnect { params: Box::new(lapsed.params.clone()) });
        let call = || {
            let replica = self.never_connected().filter(|_| self.tries_again())?;
            let (target, options) = (replica.target.clone(), self.policy.connect.clone());
            Some(HostAction::Connect { target, options })
        };
        reconnect.or_else(call).or_else(|| self.gone_spare())
    }

    /// Tried as often as any step; after that it is a person's, or the provisioner's.
    fn tries_again(&self) -> bool {
        self.duty.failures < self.policy.attempts
    }

    fn begin_duty(&mut self, now: Now, action: HostAction) {
        let footing = self.footing();
        match (footing.permits_on(&action, self.snapshot(), &self.namespaces), &action) {
            (Ok(()), _) => {}
            // Somebody uses the subsystem: it is theirs from now on.
            (Err(GuardWhy::StillUsed { .. }), HostAction::Disconnect { nqn, .. }) => {
                self.connected.remove(nqn);
                self.dirty = true;
                return;
            }
            (Err(_), _) => {
                let again = now.mono.after(self.policy.retry_max);
                self.duty.state = TurnState::NextLook(again);
                return;
            }
        }
        self.open_incident(now);
        let id = self.effect_id();
        if let HostAction::Connect { .. } = &action {
            self.calling = self.never_connected().map(|replica| (id, replica.id.clone()));
        }
        let intent = self.intent(now, id, None, &action);
        self.intents.insert(id, intent);
        self.unwritten.push(id);
        self.duty.state = TurnState::UnderWay(id);
        if self.duty.failures == 0 {
            self.tell_duty(now, id, &action);
        }
        self.out.effects.push(Effect::Act { id, action, footing: Box::new(footing) });
    }

    /// Whether `id` is the duty under way; if so, when the next one is due.
    pub(super) fn duty_ended(&mut self, now: Now, intent: &Intent, outcome: &Outcome) -> bool {
        if self.duty.state != TurnState::UnderWay(intent.id) {
            return false;
        }
        let first = self.lapsed.first().filter(|_| intent.verb == RECONNECT);
        if *outcome == Outcome::AlreadySo && first.is_some_and(|first| self.stays(&first.params)) {
            // It was not deleted after all, and the kernel connects it: nothing is owed to it.
            self.lapsed.remove(0);
            self.dirty = true;
        }
        let calling = self.calling.take_if(|(of, _)| *of == intent.id);
        if let Some((_, replica)) = calling.filter(|_| is_over(outcome)) {
            // Whether it comes now is the repair's to see, like that of any other lost leg.
            self.called.insert(replica);
        }
        self.duty.state = match outcome {
            Outcome::Changed | Outcome::AlreadySo => {
                self.duty.failures = 0;
                TurnState::NextLook(now.mono.after(self.policy.retry_min))
            }
            Outcome::Retry { .. } | Outcome::Refused(_) | Outcome::Unknown(_) => {
                self.duty.failures += 1;
                // One that cannot be reached must not keep the others waiting.
                if intent.verb == RECONNECT && !self.lapsed.is_empty() {
                    self.lapsed.rotate_left(1);
                }
                TurnState::Due(now.mono.after(self.policy.backoff(self.duty.failures)))
            }
        };
        true
    }

    /// The kernel connects a lost controller anew for a while (`ctrl_loss_tmo`), and then for good
    /// no more. One that was seen in that state, and is gone without having come back, is connected
    /// again by us for as long as its subsystem is a replica's: whoever put it away for a reason
    /// takes the replica away as well.
    pub(super) fn note_given_up(&mut self, now: Now) {
        let mut there = BTreeSet::new();
        for namespace in &self.namespaces {
            let Some(nqn) = namespace.nqn.known() else { continue };
            for path in &namespace.paths {
                // A name alone may be another controller's by now.
                let who = (path.controller.clone(), nqn.clone());
                match path.state {
                    Observed::Known(ControllerState::Connecting | ControllerState::Resetting) => {
                        if let Some(params) = path.params.known() {
                            self.trying.insert(who.clone(), (**params).clone());
                        }
                    }
                    Observed::Known(ControllerState::New | ControllerState::Live) => {
                        self.trying.remove(&who);
                    }
                    // On its way out, by whoever's hand: what it was before decides.
                    Observed::Known(
                        ControllerState::Deleting
                        | ControllerState::DeletingNoIo
                        | ControllerState::Dead,
                    )
                    | Observed::Unknown(_) => {}
                }
                there.insert(who);
            }
        }
        let gone = self.trying.keys().filter(|who| !there.contains(*who));
        for who in gone.cloned().collect::<Vec<_>>() {
            let Some(mut params) = self.trying.remove(&who) else { continue };
            params.digests = self.policy.connect.digests;
            if self.waits_for(&params.nqn) && !self.stays(&params) {
                self.owe_connection(now, params);
            }
        }
    }

    /// Whether a leg of this array is behind this subsystem, or one that was lost and may return.
    fn waits_for(&self, nqn: &Nqn) -> bool {
        let putting_away = |repair: &&Repair| matches!(repair.phase, Phase::Retiring { .. });
        let behind = |member: &Member| member.nqn.as_ref() == Some(nqn);
        let lost = |repair: &Repair| repair.lost.as_ref().is_some_and(behind);
        if self.repairs.values().filter(putting_away).any(lost) {
            return false;
        }
        self.members.values().any(behind) || self.repairs.values().any(lost)
    }

    /// Whether a leg is behind this subsystem, or a lost one that the provisioner never named.
    fn rests_on(&self, nqn: &Nqn) -> bool {
        let behind = |member: &&Member| member.nqn.as_ref() == Some(nqn);
        let mut lost = self.repairs.values().filter_map(|repair| repair.lost.as_ref());
        let unnamed = lost.any(|member| behind(&member) && member.replica.is_none());
        unnamed || self.members.values().any(|member| behind(&member))
    }

    /// The legs that it lost and has not put away, and those that were lost when this life began,
    /// as far as they are known.
    #[must_use]
    pub fn lost_legs(&self) -> Vec<LostLeg> {
        let lost = self.repairs.values().flat_map(|it| it.lost.iter().chain(&it.also_retire));
        let named = |member: &Member| {
            Some(LostLeg { nqn: member.nqn.clone()?, namespace: member.namespace? })
        };
        let mut legs = self.left.clone();
        for leg in lost.filter_map(named) {
            if !legs.contains(&leg) {
                legs.push(leg);
            }
        }
        legs
    }

    /// From now on it is ours to connect it again, until the provisioner says, asked anew, that it
    /// is no replica's.
    pub(super) fn owe_connection(&mut self, now: Now, params: ConnectParams) {
        // In its place, if it is owed already: the first of them may be under way.
        match self.lapsed.iter_mut().find(|lapsed| lapsed.params == params) {
            Some(lapsed) => lapsed.since = now.wall,
            None => self.lapsed.push(Lapsed { params, since: now.wall }),
        }
        self.volume.ask_again(now.mono);
        self.dirty = true;
    }

    /// A controller that is back is owed nothing.
    fn forget_reconnected(&mut self, now: Now) {
        let there = |lapsed: &Lapsed| self.is_connected(&lapsed.params);
        let over = self.lapsed.iter().map(there).collect();
        self.forget_lapsed(now, over);
    }

    /// The provisioner has answered what it was asked after the debts were made: one to a
    /// subsystem that is no replica's is none. One to a leg that is not lost yet is, and one to a
    /// leg that no answer ever named: the answer may be older than that leg.
    pub(super) fn forget_withdrawn(&mut self, now: Now) {
        let Some(volume) = self.volume.known() else { return };
        let withdrawn = |lapsed: &Lapsed| {
            let nqn = &lapsed.params.nqn;
            let published = volume.replicas.iter().any(|replica| replica.target.nqn == *nqn);
            !(published || self.rests_on(nqn))
        };
        let over = self.lapsed.iter().map(withdrawn).collect();
        self.forget_lapsed(now, over);
    }

    fn forget_lapsed(&mut self, now: Now, over: Vec<bool>) {
        if over.contains(&true) {
            let mut over = over.into_iter();
            self.lapsed.retain(|_| !over.next().unwrap_or(false));
            self.duty = Turn::at(now.mono);
            self.dirty = true;
        }
    }

    /// A replica whose loss is over may be lost another time.
    fn forget_called(&mut self) {
        let lost = |id: &ReplicaId| {
            let of = |repair: &Repair| repair.lost.as_ref()?.replica.clone();
            self.repairs.values().filter_map(of).any(|lost| lost == *id)
        };
        let over: Vec<ReplicaId> = self.called.iter().filter(|id| !lost(id)).cloned().collect();
        for id in over {
            self.called.remove(&id);
        }
    }
}

/// Whether it is done, or will not be.
fn is_over(outcome: &Outcome) -> bool {
    match outcome {
        Outcome::Changed | Outcome::AlreadySo | Outcome::Refused(_) => true,
        Outcome::Retry { .. } | Outcome::Unknown(_) => false,
    }
}
