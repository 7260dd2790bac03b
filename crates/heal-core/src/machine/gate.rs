//! Between wanting and doing: deadlines, holds, the host's budget, the guards.

use std::collections::BTreeMap;

use heal_types::{
    ArrayState, HostAction, LegSnapshot, Moment, Now, Nqn, ProvisionerCall, Slot, SyncProgress,
};

use crate::audit::{AuditKind, Severity};
use crate::effect::Effect;
use crate::guards::{Footing, GuardWhy};
use crate::ids::EffectId;
use crate::phase::{Phase, PhaseKind, Repair, TurnState};
use crate::policy::Mode;
use crate::record::Intent;
use crate::restart;
use crate::signal::Signal;
use crate::view::leg_of;
use crate::why::HeldWhy;

use super::want::{Want, leg_ref};
use super::{ArrayMachine, Permit, Standing, due_at};

/// After so many failures of one step the host's leave is given back until the next try.
const PATIENCE: u32 = 3;

impl ArrayMachine {
    /// Moves a repair whose step is due.
    pub(super) fn drive(&mut self, now: Now, slot: Slot) {
        let Some(repair) = self.repairs.get(&slot).filter(|_| !self.blind) else { return };
        let due = repair.phase.turn().and_then(due_at).is_some_and(|due| due <= now.mono);
        let kind = repair.phase.kind();
        if !due {
            // A request that only waits for its time gives way at once, and is seen to.
            if let Some(why) = self.gives_way(repair) {
                self.hold_repair(now, slot, why, None, None);
            }
            return;
        }
        match self.want(now, repair) {
            None => {}
            Some(Want::Signal(signal)) => {
                if signal == Signal::Settled {
                    self.settle(now, slot);
                }
                self.signal(now, slot, signal);
            }
            Some(Want::Hold(why)) => {
                let again = now.mono.after(self.policy.refused_retry);
                self.hold_repair(now, slot, why, Some(again), None);
            }
            Some(Want::Wait(at_most)) => {
                self.set_turn(slot, TurnState::NextLook(now.mono.after(at_most)));
                self.want_look();
            }
            Some(Want::Rest(at_most)) => {
                self.set_turn(slot, TurnState::NextLook(now.mono.after(at_most)));
            }
            Some(Want::Act(action)) => self.let_act(now, slot, kind, action),
            Some(Want::Call(call)) => self.let_call(now, slot, kind, call),
        }
    }

    fn gives_way(&self, repair: &Repair) -> Option<HeldWhy> {
        let Phase::Requesting { turn, .. } = &repair.phase else { return None };
        if turn.failures > 0 || matches!(turn.state, TurnState::UnderWay(_)) {
            return None;
        }
        let barred = self.barred(repair.slot, PhaseKind::Requesting);
        barred.filter(|why| matches!(why, HeldWhy::OneAtATime { .. }))
    }

    pub(super) fn set_turn(&mut self, slot: Slot, state: TurnState) {
        if let Some(turn) = self.repairs.get_mut(&slot).and_then(|r| r.phase.turn_mut()) {
            turn.state = state;
        }
    }

    /// Reasons not to do anything for this repair now, whatever it wants.
    fn barred(&self, slot: Slot, kind: PhaseKind) -> Option<HeldWhy> {
        if let Some(hold) = &self.hold {
            return Some(HeldWhy::Operator { reason: hold.reason.clone() });
        }
        match &self.standing {
            Standing::Managed | Standing::Unprovisioned => {}
            // An earlier life began this on a managed array, and the provisioner is away.
            Standing::Undecided if self.volume.known().is_some() => {}
            Standing::Undecided => {
                let detail = "G4: whether the array is managed is not known".to_owned();
                return Some(HeldWhy::Guard { detail });
            }
            Standing::NotOurs(why) => {
                return Some(HeldWhy::Guard { detail: format!("G4: not ours: {why}") });
            }
        }
        if kind.is_replacing() {
            // A person's, who stops it and starts it again: MD takes no leg into it.
            if self.is_broken() {
                return Some(HeldWhy::ArrayState(ArrayState::Broken));
            }
            if !self.policy.provisioned {
                return Some(HeldWhy::NoProvisioner);
            }
            let moves = self.repairs.get(&slot).is_some_and(|repair| !repair.cause.is_loss());
            let first = self.repairs.values().filter(|other| other.slot != slot).find(|other| {
                // A move waits for every loss: MD would give its new leg the empty slot.
                goes_first(other, slot) || (moves && is_open_loss(other))
            });
            if let Some(first) = first {
                return Some(HeldWhy::OneAtATime { slot: first.slot });
            }
        }
        None
    }

    /// Whether the mode lets this through.
    fn observes(&self, kind: PhaseKind, action: Option<&HostAction>) -> bool {
        let returning = match action {
            Some(HostAction::RemoveLeg { .. } | HostAction::ReAddLeg { .. }) => {
                kind == PhaseKind::Returning
            }
            Some(
                HostAction::Connect { .. }
                | HostAction::FailLeg { .. }
                | HostAction::Examine { .. }
                | HostAction::AddLeg { .. }
                | HostAction::ReplaceLeg { .. }
                | HostAction::ClearWantReplacement { .. }
                | HostAction::SetRaidDisks { .. }
                | HostAction::SetFastIoFail { .. }
                | HostAction::IsolateLeg { .. }
                | HostAction::CutPath { .. }
                | HostAction::DeleteController { .. }
                | HostAction::Reconnect { .. }
                | HostAction::Disconnect { .. },
            )
            | None => false,
        };
        match self.standing {
            // Nobody manages this array: whatever the mode, at most a returned leg is taken back.
            Standing::Unprovisioned => !(returning && self.policy.re_add),
            Standing::Undecided | Standing::Managed | Standing::NotOurs(_) => {
                self.policy.mode == Mode::Observe
            }
        }
    }

    fn passes(
        &mut self,
        now: Now,
        slot: Slot,
        kind: PhaseKind,
        what: &str,
        action: Option<&HostAction>,
    ) -> bool {
        if let Some(why) = self.barred(slot, kind) {
            self.hold_repair(now, slot, why, None, None);
            return false;
        }
        if self.observes(kind, action) {
            self.tell_withheld(now, slot, what);
            self.hold_repair(now, slot, HeldWhy::Observing, None, None);
            return false;
        }
        let needs_permit = matches!(kind, PhaseKind::Requesting | PhaseKind::Connecting);
        match self.permit {
            Permit::Given => true,
            Permit::None | Permit::Asked if !needs_permit => true,
            Permit::None => {
                // Leave usually comes at once; only if it does not is this worth a word.
                self.permit = Permit::Asked;
                self.out.effects.push(Effect::AskPermit);
                self.set_turn(slot, TurnState::Due(now.mono.after(self.policy.retry_min)));
                false
            }
            Permit::Asked => {
                self.hold_repair(now, slot, HeldWhy::Budget, None, None);
                false
            }
        }
    }

    fn let_act(&mut self, now: Now, slot: Slot, kind: PhaseKind, action: HostAction) {
        if !self.passes(now, slot, kind, action.verb(), Some(&action)) {
            return;
        }
        let footing = self.footing();
        match footing.permits_on(&action, self.snapshot(), &self.namespaces) {
            Ok(()) => {}
            Err(why) => return self.guarded(now, slot, kind, action, &why),
        }
        self.keep_params(now, &action);
        let id = self.effect_id();
        let intent = self.intent(now, id, Some(slot), &action);
        self.intents.insert(id, intent);
        // What is urgent goes before the record does, whatever becomes of that.
        if !action.is_urgent() {
            self.unwritten.push(id);
        }
        self.set_turn(slot, TurnState::UnderWay(id));
        self.tell_begun(now, slot, id, &action);
        self.out.effects.push(Effect::Act { id, action, footing: Box::new(footing) });
    }

    fn let_call(&mut self, now: Now, slot: Slot, kind: PhaseKind, call: ProvisionerCall) {
        if !self.passes(now, slot, kind, call.verb(), None) {
            return;
        }
        let id = self.effect_id();
        let turn = self.repairs.get(&slot).and_then(|repair| repair.phase.turn());
        if turn.is_none_or(|turn| turn.failures == 0) {
            let text = format!("{}: {} for slot {slot}", self.name(), call.verb());
            self.tell_effect(now, AuditKind::ActBegun, Severity::Info, text, slot, id);
        }
        self.set_turn(slot, TurnState::UnderWay(id));
        self.out.effects.push(Effect::Call { id, call });
    }

    /// A guard stands in the way: what that means depends on which one.
    fn guarded(
        &mut self,
        now: Now,
        slot: Slot,
        kind: PhaseKind,
        action: HostAction,
        why: &GuardWhy,
    ) {
        match why {
            GuardWhy::Candidate(why) if kind == PhaseKind::Adding => {
                self.signal(now, slot, Signal::Rejected(why.clone()));
            }
            // MD has it as a spare, so it has not left: only its paths do not work.
            GuardWhy::NotThatDevice { .. }
                if kind == PhaseKind::Adding && self.is_bound_already(slot) =>
            {
                self.set_turn(slot, TurnState::NextLook(now.mono.after(self.policy.retry_max)));
            }
            GuardWhy::NotThatDevice { .. }
                if matches!(
                    kind,
                    PhaseKind::Returning | PhaseKind::Verifying | PhaseKind::Adding
                ) =>
            {
                self.signal(now, slot, Signal::LegLeft);
            }
            GuardWhy::NotKnown { .. } => {
                self.set_turn(slot, TurnState::NextLook(now.mono.after(self.policy.retry_min)));
                self.want_look();
            }
            GuardWhy::StillUsed { .. } if kind == PhaseKind::Retiring => {
                // Somebody uses the subsystem: it is theirs from now on.
                if let HostAction::Disconnect { nqn, .. } = &action {
                    self.connected.remove(nqn);
                    self.dirty = true;
                }
            }
            GuardWhy::Candidate(_)
            | GuardWhy::NotThatDevice { .. }
            | GuardWhy::StillUsed { .. }
            | GuardWhy::NoOtherGoodLeg { .. }
            | GuardWhy::LegState { .. }
            | GuardWhy::ArrayState(_)
            | GuardWhy::ArrayBusy
            | GuardWhy::NotOurs { .. } => {
                let wants = Some(Box::new(action));
                self.hold_repair(now, slot, why.held(), None, wants);
            }
        }
    }

    /// Whether the replica that is on its way into the slot is a spare of the array.
    fn is_bound_already(&self, slot: Slot) -> bool {
        let incoming = self.repairs.get(&slot).and_then(|repair| repair.incoming.as_ref());
        let id = incoming.map(|incoming| incoming.target.namespace);
        let bound = self.snapshot().zip(id).and_then(|(array, id)| leg_of(array, &id));
        bound.is_some_and(LegSnapshot::is_spare)
    }

    pub(super) fn footing(&self) -> Footing {
        Footing { array: self.id, volume: self.volume.known().cloned() }
    }

    /// Doubts that lasted and graces that ended.
    pub(super) fn pass_deadlines(&mut self, now: Now) {
        if self.blind || self.snapshot().is_none() {
            return; // An array that nobody has seen yet has not lost anything for good.
        }
        let passed: Vec<Slot> = self
            .repairs
            .values()
            .filter(|repair| match &repair.phase {
                Phase::Suspect { decide_at, .. } => decide_at.is_some_and(|at| at <= now.mono),
                Phase::Grace => {
                    let over = self.grace_end(repair).is_some_and(|at| at <= now.mono);
                    over && !self.waits_for_full_copy(repair)
                }
                Phase::Isolating { .. }
                | Phase::Reporting
                | Phase::Returning { .. }
                | Phase::Requesting { .. }
                | Phase::Connecting { .. }
                | Phase::Verifying { .. }
                | Phase::Adding { .. }
                | Phase::Rebuilding { .. }
                | Phase::Retiring { .. }
                | Phase::Held { .. }
                | Phase::Quarantined { .. } => false,
            })
            .map(|repair| repair.slot)
            .collect();
        for slot in passed {
            if self.may_begin(now, slot) {
                self.signal(now, slot, Signal::DeadlinePassed);
            }
        }
    }

    /// Whether what comes after a doubt can be begun. If not, it is held, and nobody reads that the
    /// application is freed from a leg while it is not.
    fn may_begin(&mut self, now: Now, slot: Slot) -> bool {
        let (Some(repair), Some(array)) = (self.repairs.get(&slot), self.snapshot()) else {
            return true;
        };
        if !matches!(repair.phase, Phase::Suspect { .. }) {
            return true;
        }
        let kind = PhaseKind::Isolating;
        match self.want_isolated(now, array, repair, now.mono) {
            Want::Hold(why) => {
                let again = now.mono.after(self.policy.refused_retry);
                self.hold_repair(now, slot, why, Some(again), None);
                false
            }
            Want::Act(action) => {
                if !self.passes(now, slot, kind, action.verb(), Some(&action)) {
                    return false;
                }
                let footing = self.footing();
                match footing.permits_on(&action, self.snapshot(), &self.namespaces) {
                    // What is not known is looked at again before anything is begun.
                    Ok(()) | Err(GuardWhy::NotKnown { .. }) => true,
                    Err(why) => {
                        self.guarded(now, slot, kind, action, &why);
                        false
                    }
                }
            }
            // The kernel is at it. Whether anything would be done if it does not help is known now.
            Want::Wait(_) | Want::Rest(_) => {
                let Some(action) = self.isolation_of(array, repair) else { return true };
                if !self.passes(now, slot, kind, action.verb(), Some(&action)) {
                    return false;
                }
                match self.footing().permits_on(&action, self.snapshot(), &self.namespaces) {
                    Err(why @ GuardWhy::NoOtherGoodLeg { .. }) => {
                        self.guarded(now, slot, kind, action, &why);
                        false
                    }
                    Ok(()) | Err(_) => true,
                }
            }
            Want::Call(_) | Want::Signal(_) => true,
        }
    }

    /// Ends every hold whose reason is gone.
    pub(super) fn end_holds(&mut self, now: Now) {
        if self.blind || self.snapshot().is_none() {
            return; // Whose turn it is shows only where steps are taken.
        }
        let slots: Vec<Slot> = self.repairs.keys().copied().collect();
        for slot in slots {
            if self.is_hold_over(now, slot) {
                self.signal(now, slot, Signal::HoldEnded);
            } else if let Some(why) = self.waits_for_another(slot) {
                self.hold_repair(now, slot, why, None, None);
            }
        }
    }

    /// Whom a repair waits for that waited for another one so far.
    fn waits_for_another(&self, slot: Slot) -> Option<HeldWhy> {
        let repair = self.repairs.get(&slot)?;
        let Phase::Held { why: held @ HeldWhy::OneAtATime { .. }, then, .. } = &repair.phase else {
            return None;
        };
        let why = self.barred(slot, restart::resume(then).kind())?;
        (matches!(why, HeldWhy::OneAtATime { .. }) && why != *held).then_some(why)
    }

    fn is_hold_over(&self, now: Now, slot: Slot) -> bool {
        let Some(repair) = self.repairs.get(&slot) else {
            return false;
        };
        let Phase::Held { why, then, until, wants } = &repair.phase else {
            return false;
        };
        if until.is_some_and(|until| until <= now.mono) {
            return true;
        }
        let next = restart::resume(then).kind();
        match why {
            HeldWhy::Operator { .. } => self.hold.is_none(),
            HeldWhy::Observing => {
                self.policy.mode == Mode::Heal && self.standing != Standing::Unprovisioned
            }
            HeldWhy::NoProvisioner => self.policy.provisioned,
            HeldWhy::OneAtATime { .. } => {
                !matches!(self.barred(slot, next), Some(HeldWhy::OneAtATime { .. }))
            }
            HeldWhy::Budget => self.permit == Permit::Given,
            HeldWhy::ArrayState(_) | HeldWhy::ArrayBusy | HeldWhy::Guard { .. } => match wants {
                Some(action) => self.would_pass(action),
                None => until.is_none() && self.barred(slot, next).is_none(),
            },
            HeldWhy::HostCutOff { .. } => self.cut_off.is_none(),
            HeldWhy::Refused { .. }
            | HeldWhy::Rejected { .. }
            | HeldWhy::StepFailed { .. }
            | HeldWhy::Flapping { .. }
            | HeldWhy::NotDurable { .. } => false,
        }
    }

    /// Whether the guards let an action through now, or what it named is not there any more and the
    /// repair has to look for itself again.
    fn would_pass(&self, action: &HostAction) -> bool {
        let mut action = action.clone();
        if let HostAction::ReAddLeg { device, faulty, .. } = &mut action {
            // What is left of it may be bound in another way by now.
            let own = self.snapshot().and_then(|array| leg_of(array, &device.namespace));
            *faulty = own.filter(|leg| leg.is_faulty()).map(|leg| leg_ref(leg, None));
        }
        match self.footing().permits_on(&action, self.snapshot(), &self.namespaces) {
            Ok(()) | Err(GuardWhy::NotThatDevice { .. }) => true,
            Err(
                GuardWhy::NoOtherGoodLeg { .. }
                | GuardWhy::LegState { .. }
                | GuardWhy::ArrayState(_)
                | GuardWhy::ArrayBusy
                | GuardWhy::NotOurs { .. }
                | GuardWhy::StillUsed { .. }
                | GuardWhy::NotKnown { .. }
                | GuardWhy::Candidate(_),
            ) => false,
        }
    }

    /// Gives the host's leave back when no repair needs it, or those that do get nowhere.
    pub(super) fn tend_permit(&mut self) {
        self.note_waits();
        // An array that MD gave up is a person's, whatever was being filled.
        let stands_still = self.quarantine.is_some()
            || self.is_broken()
            || matches!(self.standing, Standing::NotOurs(_));
        let needed = !stands_still
            && self.repairs.values().any(|repair| {
                (repair.phase.kind().is_replacing() && !self.gets_nowhere(repair))
                    || matches!(
                        repair.phase,
                        Phase::Held { why: HeldWhy::Budget | HeldWhy::OneAtATime { .. }, .. }
                    )
            });
        if !needed && self.permit != Permit::None {
            self.permit = Permit::None;
            self.out.effects.push(Effect::ReturnPermit);
        }
    }

    /// Since when replacements wait for what is under way.
    fn note_waits(&mut self) {
        let replacing = self.repairs.values().filter(|repair| repair.phase.kind().is_replacing());
        let under_way: Vec<EffectId> = replacing.filter_map(effect_under_way).collect();
        self.waits.retain(|id, _| under_way.contains(id));
        for id in under_way {
            self.waits.entry(id).or_insert(self.now.mono);
        }
        let filling = self.repairs.values().filter_map(|repair| {
            let Phase::Rebuilding { progress } = &repair.phase else { return None };
            Some((repair.slot, *progress))
        });
        let filling: BTreeMap<Slot, Option<SyncProgress>> = filling.collect();
        self.fills.retain(|slot, (progress, _)| filling.get(slot) == Some(progress));
        for (slot, progress) in filling {
            self.fills.entry(slot).or_insert((progress, self.now.mono));
        }
        // How far it is shows in a look only.
        let due = |(_, since): &(_, Moment)| self.stalls_at(*since) <= self.now.mono;
        if self.permit == Permit::Given && !self.sees_now && self.fills.values().any(due) {
            self.want_look();
        }
    }

    fn stalls_at(&self, since: Moment) -> Moment {
        since.after(self.policy.retry_max * 2)
    }

    /// A step that the kernel does not let return, or that failed again and again and is waited
    /// with, or a rebuild that stands still: the others do not wait for it as well.
    fn gets_nowhere(&self, repair: &Repair) -> bool {
        if matches!(repair.phase, Phase::Rebuilding { .. }) {
            let since = self.fills.get(&repair.slot).map(|(_, since)| *since);
            return self.sees_now
                && since.is_some_and(|since| self.stalls_at(since) <= self.now.mono);
        }
        let Some(turn) = repair.phase.turn() else { return false };
        match turn.state {
            TurnState::UnderWay(id) => {
                let begun = self.waits.get(&id);
                begun.is_some_and(|begun| begun.after(self.policy.retry_max) <= self.now.mono)
            }
            TurnState::Due(at) => {
                self.permit == Permit::Given && turn.failures >= PATIENCE && at > self.now.mono
            }
            TurnState::NextLook(_) => false,
        }
    }

    /// When a step under way is overdue, or a rebuild stalls, if that is still to come.
    pub(super) fn permit_due(&self) -> Option<Moment> {
        if self.permit != Permit::Given {
            return None;
        }
        let steps = self.waits.values().map(|begun| begun.after(self.policy.retry_max));
        let ends = steps.chain(self.fills.values().map(|(_, since)| self.stalls_at(*since)));
        ends.filter(|end| *end > self.now.mono).min()
    }
}

fn effect_under_way(repair: &Repair) -> Option<EffectId> {
    match repair.phase.turn()?.state {
        TurnState::UnderWay(id) => Some(id),
        TurnState::Due(_) | TurnState::NextLook(_) => None,
    }
}

/// Whether `other` replaces a leg and the repair of `slot` has to wait for it: it has begun, or it
/// is the lower slot, which MD fills first.
fn goes_first(other: &Repair, slot: Slot) -> bool {
    let begun = has_asked(other) || !matches!(other.phase, Phase::Requesting { .. });
    other.phase.kind().is_replacing() && (begun || other.slot < slot)
}

/// Whether a request has gone out that was not answered.
pub(super) fn has_asked(other: &Repair) -> bool {
    match &other.phase {
        Phase::Requesting { turn, .. } => {
            turn.failures > 0 || matches!(turn.state, TurnState::UnderWay(_))
        }
        Phase::Suspect { .. }
        | Phase::Isolating { .. }
        | Phase::Reporting
        | Phase::Grace
        | Phase::Returning { .. }
        | Phase::Connecting { .. }
        | Phase::Verifying { .. }
        | Phase::Adding { .. }
        | Phase::Rebuilding { .. }
        | Phase::Retiring { .. }
        | Phase::Held { .. }
        | Phase::Quarantined { .. } => false,
    }
}

/// Whether a slot is without its leg, and nothing has been put in its place.
pub(super) fn is_open_loss(other: &Repair) -> bool {
    other.cause.is_loss()
        && match other.phase.kind() {
            PhaseKind::Reporting
            | PhaseKind::Grace
            | PhaseKind::Returning
            | PhaseKind::Requesting
            | PhaseKind::Connecting
            | PhaseKind::Verifying
            | PhaseKind::Adding
            | PhaseKind::Rebuilding
            | PhaseKind::Held => true,
            PhaseKind::Whole
            | PhaseKind::Suspect
            | PhaseKind::Isolating
            | PhaseKind::Retiring
            | PhaseKind::Quarantined => false,
        }
}

impl ArrayMachine {
    /// What is durable of `action` before it is begun.
    pub(super) fn intent(
        &self,
        now: Now,
        id: EffectId,
        slot: Option<Slot>,
        action: &HostAction,
    ) -> Intent {
        let (mut connects, mut disconnects) = (None, None);
        match action {
            HostAction::Connect { target, .. } => connects = Some(target.nqn.clone()),
            HostAction::Disconnect { nqn, .. } => disconnects = Some(nqn.clone()),
            HostAction::Examine { .. }
            | HostAction::FailLeg { .. }
            | HostAction::RemoveLeg { .. }
            | HostAction::ReAddLeg { .. }
            | HostAction::AddLeg { .. }
            | HostAction::ReplaceLeg { .. }
            | HostAction::ClearWantReplacement { .. }
            | HostAction::SetRaidDisks { .. }
            | HostAction::SetFastIoFail { .. }
            | HostAction::IsolateLeg { .. }
            | HostAction::CutPath { .. }
            | HostAction::DeleteController { .. }
            | HostAction::Reconnect { .. } => {}
        }
        let first = connects.as_ref().is_some_and(|nqn| self.is_unconnected(nqn));
        let verb = action.verb().to_owned();
        Intent { id, verb, slot, disconnects, connects, first, at: now.wall }
    }

    /// Whether nobody is seen to have connected this subsystem. A namespace or a controller that
    /// cannot be told may be one of its own, and a controller may lead to no namespace yet.
    fn is_unconnected(&self, nqn: &Nqn) -> bool {
        let namespaces = self.namespaces.iter().map(|namespace| &namespace.nqn);
        namespaces.chain(&self.subsystems).all(|seen| seen.is_known_and(|known| known != nqn))
    }
}
