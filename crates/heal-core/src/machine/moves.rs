//! The one place where a repair changes its phase.
//!
//! A signal is looked up in the table; if the table says "go", the phase it names is built from the
//! signal and from what the repair knows. If the two disagree, or the table calls the signal
//! impossible, the array is quarantined: a machine that is not what its table says must not act.

use std::time::Duration;

use heal_types::{
    ArraySnapshot, Bitmap, Condition, Deadline, DeviceIdentity, DeviceName, GracePolicy,
    LegSnapshot, Now, Observed, Replica, ReplicaId, ReplicaState, Slot,
};

use crate::audit::{AuditKind, Severity};
use crate::phase::{Phase, PhaseKind, Repair, Turn, TurnState};
use crate::policy::IsolateAfter;
use crate::record::{Member, OwedMessage, Step};
use crate::restart;
use crate::signal::Signal;
use crate::transitions::{Verdict, verdict};
use crate::view::{is_nameless, leg_of, member_of, member_of_replica, namespace_of};
use crate::why::{Cause, DoubtWhy, HeldWhy, QuarantinedWhy, RejectedWhy};

use super::bad_blocks::stays_after_all;
use super::gate::has_asked;
use super::{ArrayMachine, HostActionBox, after_keep_alive};

impl ArrayMachine {
    /// Applies one signal to the repair of `slot`, opening it if there is none.
    pub(super) fn signal(&mut self, now: Now, slot: Slot, signal: Signal) {
        let from = self.repairs.get(&slot).map_or(PhaseKind::Whole, |r| r.phase.kind());
        match verdict(from, signal.kind()) {
            Verdict::Stay(_) => self.stay(now, slot, &signal),
            Verdict::Go(to) => self.go(now, slot, from, to, signal),
            Verdict::Resume => self.resume(now, slot, from),
            Verdict::Illegal => {
                let detail = format!("{} in phase {from} of slot {slot}", signal.kind());
                self.quarantine(now, QuarantinedWhy::Impossible { detail });
            }
        }
    }

    /// A signal that moves nothing may still be news within the phase.
    fn stay(&mut self, now: Now, slot: Slot, signal: &Signal) {
        let decide =
            if let Signal::LegDoubtful(seen) = signal { self.decide(now, *seen) } else { None };
        let Some(repair) = self.repairs.get_mut(&slot) else {
            return;
        };
        match (&mut repair.phase, signal) {
            (Phase::Rebuilding { progress }, Signal::LegRecovering(seen)) => *progress = *seen,
            (Phase::Suspect { why, decide_at }, Signal::LegDoubtful(seen)) => {
                *why = *seen;
                // The first moment to decide stays, unless there is no reason to any more.
                *decide_at = decide.map(|fresh| decide_at.unwrap_or(fresh));
            }
            (_, _) => {}
        }
    }

    fn go(&mut self, now: Now, slot: Slot, from: PhaseKind, to: PhaseKind, signal: Signal) {
        let told = signal.clone();
        if from == PhaseKind::Whole {
            self.open_repair(now, slot, &signal);
        }
        self.carry(now, slot, from, to, &signal);
        if to == PhaseKind::Whole {
            self.tell_move(now, slot, from, to, &told);
            self.repairs.remove(&slot);
            self.dirty = true;
            self.recheck = true;
            return;
        }
        let phase = self.build(now, slot, to, signal);
        let Some(repair) = self.repairs.get_mut(&slot) else {
            return;
        };
        match phase {
            Some(phase) if phase.kind() == to => {
                repair.phase = phase;
                repair.since = now.wall;
                self.dirty = true;
                // What the new phase waits for may stand in the last look already.
                self.recheck |= to == PhaseKind::Grace;
                self.tell_move(now, slot, from, to, &told);
            }
            Some(_) | None => {
                let detail = format!("{} cannot lead from {from} to {to}", told.kind());
                self.quarantine(now, QuarantinedWhy::Impossible { detail });
            }
        }
    }

    fn resume(&mut self, now: Now, slot: Slot, from: PhaseKind) {
        let Some(repair) = self.repairs.get_mut(&slot) else {
            return;
        };
        let then = match &repair.phase {
            Phase::Held { then, .. } | Phase::Quarantined { then, .. } => then.clone(),
            Phase::Suspect { .. }
            | Phase::Isolating { .. }
            | Phase::Reporting
            | Phase::Grace
            | Phase::Returning { .. }
            | Phase::Requesting { .. }
            | Phase::Connecting { .. }
            | Phase::Verifying { .. }
            | Phase::Adding { .. }
            | Phase::Rebuilding { .. }
            | Phase::Retiring { .. } => return,
        };
        repair.phase = restart::resume(&then);
        repair.since = now.wall;
        let to = repair.phase.kind();
        self.dirty = true;
        // It may all look different by now.
        self.recheck = true;
        self.want_look();
        self.tell_move(now, slot, from, to, &Signal::HoldEnded);
    }

    pub(super) fn open_repair(&mut self, now: Now, slot: Slot, signal: &Signal) {
        self.open_incident(now);
        let cause = if matches!(signal, Signal::ReplicaTerminating) {
            Cause::ReplicaTerminating
        } else if matches!(signal, Signal::BadBlocks) {
            Cause::BadBlocks
        } else if matches!(signal, Signal::MoreCopies(_)) {
            Cause::MoreCopies
        } else if matches!(signal, Signal::FewerCopies) {
            Cause::FewerCopies
        } else {
            Cause::LegLost
        };
        let lost = match cause {
            Cause::MoreCopies => None,
            Cause::LegLost | Cause::ReplicaTerminating | Cause::BadBlocks | Cause::FewerCopies => {
                self.who_lost(slot)
                    .or_else(|| self.seen_in(slot))
                    .or_else(|| self.missing_replica())
            }
        };
        let repair = Repair {
            slot,
            cause,
            began: now.wall,
            lost,
            incoming: None,
            also_retire: Vec::new(),
            asks_for: None,
            grace: None,
            return_after: None,
            request: None,
            rejected: Vec::new(),
            bound: None,
            not_again: None,
            since: now.wall,
            phase: Phase::Reporting,
        };
        self.repairs.insert(slot, repair);
    }

    /// Who held the slot when last it was good. One that serves in another slot now is not lost:
    /// whoever held that one is.
    fn who_lost(&self, slot: Slot) -> Option<Member> {
        let mut held = self.members.get(&slot)?;
        for _ in 0..self.members.len() {
            let leg = held.namespace.and_then(|id| leg_of(self.snapshot()?, &id));
            let serves = leg.filter(|leg| leg.is_in_sync()).and_then(|leg| leg.slot);
            let Some(other) = serves.filter(|other| *other != slot) else { break };
            match self.members.get(&other) {
                Some(next) if next.namespace != held.namespace => held = next,
                Some(_) | None => return None,
            }
        }
        Some(held.clone())
    }

    /// Whose slot it is, where its leg is still in it and can be told.
    fn seen_in(&self, slot: Slot) -> Option<Member> {
        let leg = self.snapshot()?.leg_in(slot);
        let leg = leg.filter(|leg| leg.is_in_sync() || leg.is_faulty())?;
        Some(member_of(leg, self.volume.known())).filter(|member| member.namespace.is_some())
    }

    /// Who is missing, when nobody remembers who held the slot: a replica of the volume that is
    /// neither a leg nor spoken for, if there are no more of them than slots that nobody remembers
    /// of. One that was told to be missing, or is on its way out, is likely an earlier loss, and
    /// one that is still being brought in was granted for the one that is missing: each is meant
    /// only when there is no other. Of several that are lost by the provisioner's own word any will
    /// do: one that is here, because it can be taken back, or else the one that was listed last,
    /// which replaced the others.
    pub(super) fn missing_replica(&self) -> Option<Member> {
        let volume = self.volume.known()?;
        let array = self.snapshot()?;
        // A leg that MD counts good and whose device cannot be seen may be any of them.
        let faceless = |leg: &LegSnapshot| !leg.is_faulty() && is_nameless(leg);
        if array.legs.iter().any(faceless) {
            return None;
        }
        let missing = volume.replicas.iter().filter(|replica| {
            let named = |m: &Member| m.replica.as_ref() == Some(&replica.id);
            let good = leg_of(array, &replica.target.namespace).is_some_and(|leg| !leg.is_faulty());
            let spoken_for = self.members.values().any(named)
                || self
                    .repairs
                    .values()
                    .any(|repair| repair.lost.iter().chain(&repair.also_retire).any(named));
            // One that was put away is missed by nobody, though the provisioner has not heard it
            // yet.
            !good && !spoken_for && !self.is_given_up(&replica.id)
        });
        let (coming, were): (Vec<_>, Vec<_>) =
            missing.partition(|replica| replica.state == ReplicaState::Synchronizing);
        let (leaving, were): (Vec<_>, Vec<_>) =
            were.into_iter().partition(|replica| replica.state.is_leaving());
        let (missing, thought_good): (Vec<_>, Vec<_>) =
            were.into_iter().partition(|replica| replica.state == ReplicaState::Missing);
        let given_up = [missing, leaving].into_iter().find(|list| !list.is_empty());
        let slots = self.nameless_slots(array);
        let told = if thought_good.is_empty() { given_up.unwrap_or(coming) } else { thought_good };
        let lost = |replica: &&Replica| {
            replica.state == ReplicaState::Missing || replica.state.is_leaving()
        };
        if told.len() <= slots {
            told.first().map(|replica| member_of_replica(replica))
        } else if told.iter().all(lost) {
            let here = |replica: &&&Replica| {
                let target = &replica.target;
                self.idle_namespace(&target.namespace, Some(&target.nqn)).is_some()
            };
            let here = told.iter().rev().filter(|replica| !replica.state.is_leaving()).find(here);
            here.or(told.last()).map(|replica| member_of_replica(replica))
        } else {
            None
        }
    }

    /// Whether the provisioner has still to hear that a replica is not used here any more.
    fn is_given_up(&self, replica: &ReplicaId) -> bool {
        self.owed.iter().filter(|owed| owed.replica == *replica).any(|owed| match &owed.message {
            OwedMessage::Removed | OwedMessage::Report(Condition::Unusable { .. }) => true,
            OwedMessage::Report(
                Condition::Missing | Condition::Synchronizing | Condition::Available,
            ) => false,
        })
    }

    /// How many empty slots there are of which nobody remembers who held them.
    fn nameless_slots(&self, array: &ArraySnapshot) -> usize {
        let nameless = |slot: &Slot| {
            let held = array.leg_in(*slot).is_some_and(|leg| !leg.is_faulty());
            let named = self.members.contains_key(slot)
                || self.repairs.get(slot).is_some_and(|repair| repair.lost.is_some());
            !held && !named
        };
        (0..array.raid_disks).map(Slot).filter(nameless).count()
    }

    /// What a move takes along besides the phase itself.
    fn carry(&mut self, now: Now, slot: Slot, from: PhaseKind, to: PhaseKind, signal: &Signal) {
        match to {
            PhaseKind::Suspect => self.carry_doubt(slot),
            PhaseKind::Reporting => self.carry_loss(now, slot, from),
            PhaseKind::Grace => self.carry_grace(now, slot, signal),
            PhaseKind::Requesting => {
                if let Some(repair) = self.repairs.get_mut(&slot) {
                    repair.incoming = None;
                }
            }
            PhaseKind::Connecting => {
                if let (
                    Some(repair),
                    Signal::Granted(replica)
                    | Signal::ReplicaReplaced(replica)
                    | Signal::MoreCopies(replica),
                ) = (self.repairs.get_mut(&slot), signal)
                {
                    repair.incoming = Some((**replica).clone());
                    repair.request = None;
                    repair
                        .also_retire
                        .retain(|member| member.replica.as_ref() != Some(&replica.id));
                    self.volume.add(replica);
                    self.keep_after_all(&replica.id);
                }
            }
            PhaseKind::Rebuilding => {
                let bound = self.incoming_leg(slot);
                if let Some(repair) = self.repairs.get_mut(&slot) {
                    // MD took the lost leg back, so what was granted meanwhile is not needed.
                    if from == PhaseKind::Returning {
                        put_offer_aside(repair);
                    }
                    repair.bound = bound;
                }
            }
            PhaseKind::Retiring if *signal == Signal::LegInSync => self.carry_in_sync(now, slot),
            PhaseKind::Held => {
                if let Signal::Rejected(why) = signal {
                    self.carry_rejected(now, slot, why);
                }
            }
            PhaseKind::Whole if *signal == Signal::NoLongerNeeded => self.carry_wanted(now, slot),
            PhaseKind::Whole
            | PhaseKind::Isolating
            | PhaseKind::Returning
            | PhaseKind::Verifying
            | PhaseKind::Adding
            | PhaseKind::Retiring
            | PhaseKind::Quarantined => {}
        }
    }

    /// A leg that had to go is in doubt before anything took its place: from now on it is a leg
    /// like any other. If it comes back, whatever it had to go for begins anew.
    fn carry_doubt(&mut self, slot: Slot) {
        if let Some(repair) = self.repairs.get_mut(&slot).filter(|r| r.cause.moves_leg()) {
            repair.cause = Cause::LegLost;
            repair.incoming = None;
            repair.grace = None;
        }
    }

    /// A leg that had to go is wanted after all. Whoever was asked to replace it takes it for lost.
    fn carry_wanted(&mut self, now: Now, slot: Slot) {
        let Some(repair) = self.repairs.get(&slot) else { return };
        let asked = repair.request.is_some() || repair.incoming.is_some();
        let lost = repair.lost.clone().filter(|_| repair.cause.moves_leg() && asked);
        let id = lost.as_ref().and_then(|lost| lost.namespace);
        let good = self.snapshot().zip(id).and_then(|(array, id)| leg_of(array, &id));
        if good.is_some_and(LegSnapshot::is_in_sync) {
            self.owe(now, lost.as_ref(), OwedMessage::Report(Condition::Available));
        }
        // Successors that failed on the way, and whom one of them replaced elsewhere, are not
        // needed.
        let others = self.repairs.get(&slot).filter(|repair| repair.cause.moves_leg());
        let others = others.map(|repair| {
            let own = repair.lost.as_ref().and_then(|lost| lost.namespace);
            let mut unused = self.leaving(repair);
            unused.retain(|member| member.namespace != own);
            unused
        });
        for member in others.unwrap_or_default() {
            if self.is_provably_out(slot, &member) {
                self.owe(now, Some(&member), OwedMessage::Removed);
            }
        }
    }

    /// A replica that was put away and takes a place again is not given up any more.
    fn keep_after_all(&mut self, replica: &ReplicaId) {
        // What is being told stays first in line until it is answered.
        let mut under_way = matches!(self.owing.state, TurnState::UnderWay(_));
        self.owed.retain(|owed| {
            let first = std::mem::take(&mut under_way);
            first || owed.replica != *replica || owed.message != OwedMessage::Removed
        });
    }

    /// The name that the incoming replica is bound under.
    fn incoming_leg(&self, slot: Slot) -> Option<DeviceName> {
        let id = self.repairs.get(&slot)?.incoming.as_ref()?.target.namespace;
        leg_of(self.snapshot()?, &id).map(|leg| leg.device.clone())
    }

    /// How long a leg that is lost now stays out at the least: until no writes of its old
    /// connection can be carried out any more.
    fn hold_down(&self, slot: Slot) -> Duration {
        let lost = self.repairs.get(&slot).and_then(|repair| repair.lost.as_ref());
        let namespace = lost
            .and_then(|lost| namespace_of(&self.namespaces, &lost.namespace?, lost.nqn.as_ref()));
        let lost_paths = namespace.into_iter().flat_map(|namespace| &namespace.paths);
        let keep_alive = lost_paths
            .filter(|path| !path.is_usable())
            .filter_map(|path| path.params.known()?.keep_alive)
            .max();
        let expired = keep_alive.map_or(Duration::ZERO, after_keep_alive);
        self.policy.return_hold_down.max(expired).min(self.policy.longest_grace)
    }

    /// A loss: who, until when to wait, and what is owed to the provisioner.
    pub(super) fn carry_loss(&mut self, now: Now, slot: Slot, from: PhaseKind) {
        let held_retiring = self
            .repairs
            .get(&slot)
            .is_some_and(|repair| matches!(&repair.phase, Phase::Held { then: Step::Retire, .. }));
        // MD fails the leg that has to go in the moment in which its successor is complete.
        let was_complete = held_retiring || matches!(from, PhaseKind::Retiring);
        let replacement_failed =
            was_complete || matches!(from, PhaseKind::Adding | PhaseKind::Rebuilding);
        let grace = self.grace_from(now);
        let back = Deadline::new(now, &self.boot, self.hold_down(slot));
        let held = self.who_lost(slot);
        let Some(repair) = self.repairs.get_mut(&slot) else {
            return;
        };
        // A leg that somebody else put in place is the one that is lost now.
        let newest = held.filter(|member| {
            let other = repair.lost.as_ref().is_none_or(|lost| lost.namespace != member.namespace);
            repair.incoming.is_none() && other && member.namespace.is_some()
        });
        if let Some(newest) = newest {
            repair.also_retire.extend(repair.lost.replace(newest));
            repair.asks_for = None;
        }
        let mut reported = repair.lost.clone();
        if replacement_failed {
            if let Some(incoming) = repair.incoming.take() {
                let mut failed = member_of_replica(&incoming);
                failed.device = repair.bound.take();
                reported = Some(failed.clone());
                if repair.cause.moves_leg() && !was_complete {
                    // The leg that has to go is still good; only its replacement failed.
                    repair.also_retire.push(failed);
                } else {
                    repair.also_retire.extend(repair.lost.replace(failed));
                    repair.asks_for = None;
                    repair.cause = Cause::LegLost;
                }
            }
        }
        repair.grace = grace;
        repair.return_after = Some(back);
        let gone = reported.as_ref().and_then(|member| member.namespace);
        if let Some(namespace) = gone.filter(|_| repair.cause.is_loss()) {
            self.flaps.lost(namespace, now.wall, &self.policy.flapping);
        }
        // A leg that has to go is still there when only its successor failed.
        if !repair.cause.moves_leg() {
            self.members.remove(&slot);
        }
        // Another hand gave it another slot, where it serves: who is missing shows there.
        let elsewhere = self.snapshot().zip(gone).and_then(|(array, id)| leg_of(array, &id));
        if elsewhere.is_some_and(|leg| leg.is_in_sync() || leg.is_recovering()) {
            if let Some(repair) = self.repairs.get_mut(&slot) {
                repair.lost = repair.lost.take().filter(|lost| lost.namespace != gone);
            }
            return;
        }
        self.owe(now, reported.as_ref(), OwedMessage::Report(Condition::Missing));
    }

    fn carry_grace(&mut self, now: Now, slot: Slot, signal: &Signal) {
        let grace = self.grace_from(now);
        let Some(repair) = self.repairs.get_mut(&slot) else {
            return;
        };
        match (signal, &repair.phase) {
            (Signal::ReplicaTerminating | Signal::BadBlocks, _) => repair.grace = grace,
            (Signal::StepRefused { .. }, Phase::Returning { device, .. }) => {
                repair.not_again = Some(device.clone());
            }
            (_, _) => {}
        }
    }

    /// The slot is good again: remember who holds it, and owe the good news.
    fn carry_in_sync(&mut self, now: Now, slot: Slot) {
        self.carry_stays(slot);
        let Some(repair) = self.repairs.get(&slot) else {
            return;
        };
        let expected = match (&repair.incoming, &repair.lost) {
            (Some(incoming), _) => Some(incoming.target.namespace),
            (None, lost) => lost.as_ref().and_then(|lost| lost.namespace),
        };
        let Some(array) = self.snapshot() else { return };
        let leg = expected
            .and_then(|id| leg_of(array, &id))
            .filter(|leg| leg.is_in_sync())
            .or_else(|| array.leg_in(slot).filter(|leg| leg.is_in_sync()));
        let member = leg.map(|leg| (leg.slot.unwrap_or(slot), member_of(leg, self.volume.known())));
        let one_too_many = repair.cause == Cause::FewerCopies;
        if let (Some((held, member)), false) = (member, one_too_many) {
            self.carry_filled_by_others(now, slot, &member);
            self.owe(now, Some(&member), OwedMessage::Report(Condition::Available));
            self.members.insert(held, member);
        }
    }

    /// A leg that is a full copy again is like one that came back: what was granted for it is not
    /// needed.
    fn carry_stays(&mut self, slot: Slot) {
        let stays = |(array, repair): (&ArraySnapshot, &Repair)| stays_after_all(array, repair);
        if self.snapshot().zip(self.repairs.get(&slot)).is_some_and(stays) {
            if let Some(repair) = self.repairs.get_mut(&slot) {
                repair.cause = Cause::LegLost;
            }
        }
    }

    /// Somebody else may have filled the slot. Then the replica that was on its way into it is not
    /// needed, a leg that had to go has gone, and a loss that nobody saw is told now. Who was lost
    /// is not given up for it: it may be the very one that is back.
    fn carry_filled_by_others(&mut self, now: Now, slot: Slot, filled_by: &Member) {
        let (Some(repair), Some(id)) = (self.repairs.get_mut(&slot), filled_by.namespace) else {
            return;
        };
        let other = repair.incoming.as_ref().is_some_and(|own| own.target.namespace != id);
        if repair.cause.fills_empty_slot() && other {
            put_offer_aside(repair);
        }
        self.trade_with_whom_it_left(slot, filled_by);
        let Some(repair) = self.repairs.get(&slot) else { return };
        let lost = repair.lost.clone().filter(|lost| lost.namespace.is_some_and(|own| own != id));
        let Some(lost) = lost.filter(|_| repair.incoming.is_none()) else { return };
        let (cause, unreported) = (repair.cause, repair.return_after.is_none());
        let untold = unreported || self.is_untold(&lost);
        match cause {
            Cause::ReplicaTerminating => {
                if let Some(repair) = self.repairs.get_mut(&slot) {
                    repair.also_retire.push(lost);
                }
            }
            // Whoever took it out did not ask the provisioner to give it up.
            Cause::LegLost | Cause::BadBlocks if untold => {
                self.owe(now, Some(&lost), OwedMessage::Report(Condition::Missing));
            }
            Cause::LegLost | Cause::BadBlocks | Cause::MoreCopies | Cause::FewerCopies => {}
        }
    }

    /// The leg that fills this slot may be the one that another slot is without: then this slot's
    /// loss is that one's, and a successor is asked for it and no more for the leg that is good
    /// again.
    fn trade_with_whom_it_left(&mut self, slot: Slot, filled_by: &Member) {
        let is_it =
            |member: &Member| member.namespace.is_some() && member.namespace == filled_by.namespace;
        let lost = |repair: &Repair| repair.lost.as_ref().is_some_and(is_it);
        let own = self.repairs.get(&slot).filter(|own| own.cause == Cause::LegLost && !lost(own));
        let Some(own) = own.filter(|own| own.incoming.is_none()) else { return };
        let waits = |other: &Repair| other.incoming.is_none() && !has_asked(other);
        let other = self.repairs.values().find(|other| {
            other.slot != slot && lost(other) && other.cause == Cause::LegLost && waits(other)
        });
        let (Some(other), Some(owns)) = (other.map(|other| other.slot), own.lost.clone()) else {
            return;
        };
        let Some(other) = self.repairs.get_mut(&other) else { return };
        other.request = None;
        other.asks_for = None;
        let theirs = other.lost.replace(owns);
        if let Some(repair) = self.repairs.get_mut(&slot) {
            repair.lost = theirs;
        }
        self.dirty = true;
    }

    fn carry_rejected(&mut self, now: Now, slot: Slot, why: &RejectedWhy) {
        if matches!(why, RejectedWhy::BadGrant { .. }) {
            return; // The grant is wrong, not the replica: it may be a good leg of this very array.
        }
        let incoming = self.repairs.get(&slot).and_then(|repair| repair.incoming.clone());
        if let Some(incoming) = incoming {
            let member = member_of_replica(&incoming);
            let condition = Condition::Unusable { why: why.to_string() };
            self.owe(now, Some(&member), OwedMessage::Report(condition));
            if let Some(repair) = self.repairs.get_mut(&slot) {
                repair.rejected.retain(|(replica, _)| *replica != incoming.id);
                repair.rejected.push((incoming.id, why.clone()));
            }
        }
    }

    /// Builds the phase `to` for the repair of `slot`.
    fn build(&mut self, now: Now, slot: Slot, to: PhaseKind, signal: Signal) -> Option<Phase> {
        let phase = match to {
            PhaseKind::Whole => return None,
            PhaseKind::Suspect => {
                let Signal::LegDoubtful(why) = signal else { return None };
                Phase::Suspect { why, decide_at: self.decide(now, why) }
            }
            PhaseKind::Isolating => Phase::Isolating { since: now.mono, turn: Turn::now() },
            PhaseKind::Reporting => Phase::Reporting,
            PhaseKind::Grace => Phase::Grace,
            PhaseKind::Returning => {
                let Signal::LegReturned(device) = signal else { return None };
                self.build_returning(now, slot, device)?
            }
            PhaseKind::Requesting => {
                self.asks_no_more_for_who_is_back(slot);
                let unanswered = self.repairs.get(&slot).and_then(|repair| repair.request.clone());
                let key = unanswered.unwrap_or_else(|| self.key(now, "request"));
                if let Some(repair) = self.repairs.get_mut(&slot) {
                    repair.request = Some(key.clone());
                }
                // Who gives a replica and takes it back is not asked again at once.
                let turn = if matches!(signal, Signal::ReplicaWithdrawn) {
                    Turn::at(now.mono.after(self.policy.retry_max / 4))
                } else {
                    Turn::now()
                };
                Phase::Requesting { key, turn }
            }
            PhaseKind::Connecting => Phase::Connecting { connected_at: None, turn: Turn::now() },
            PhaseKind::Verifying => {
                let Signal::NamespaceFound(device) = signal else { return None };
                Phase::Verifying { device, turn: Turn::now() }
            }
            PhaseKind::Adding => {
                let Phase::Verifying { device, .. } = &self.repairs.get(&slot)?.phase else {
                    return None;
                };
                Phase::Adding { device: device.clone(), turn: Turn::now() }
            }
            PhaseKind::Rebuilding => {
                let Signal::LegRecovering(progress) = signal else { return None };
                Phase::Rebuilding { progress }
            }
            PhaseKind::Retiring => Phase::Retiring { turn: Turn::now() },
            PhaseKind::Held => self.build_held(now, slot, signal)?,
            PhaseKind::Quarantined => {
                let Signal::Contradiction(why) = signal else { return None };
                Phase::Quarantined { why, then: self.step_after(slot)? }
            }
        };
        Some(phase)
    }

    fn build_returning(&self, now: Now, slot: Slot, device: DeviceIdentity) -> Option<Phase> {
        let repair = self.repairs.get(&slot)?;
        let earliest = repair
            .return_after
            .as_ref()
            .map(|deadline| deadline.moment(now, &self.boot, self.policy.longest_grace));
        let turn = earliest.map_or_else(Turn::now, Turn::at);
        Some(Phase::Returning { device, turn })
    }

    fn build_held(&mut self, now: Now, slot: Slot, signal: Signal) -> Option<Phase> {
        let mut then = self.step_after(slot)?;
        let retry = Some(now.mono.after(self.policy.refused_retry));
        let (why, until) = if let Signal::HoldBegan(why) = signal {
            (why, None)
        } else if let Signal::Refused(detail) = signal {
            // The key was answered: the next request is another one.
            let key = self.key(now, "request");
            if let Some(repair) = self.repairs.get_mut(&slot) {
                repair.request = Some(key.clone());
            }
            then = Step::Request { key };
            (HeldWhy::Refused { detail }, retry)
        } else if let Signal::Rejected(why) = signal {
            if matches!(then, Step::Request { .. }) {
                let key = self.key(now, "request");
                if let Some(repair) = self.repairs.get_mut(&slot) {
                    repair.request = Some(key.clone());
                }
                then = Step::Request { key };
            }
            let replica = self.repairs.get(&slot)?.incoming.as_ref()?.id.clone();
            // A namespace that is not there yet, or is in use, may be fine later.
            let passing = matches!(
                why,
                RejectedWhy::NamespaceNotFound { .. }
                    | RejectedWhy::BadGrant { .. }
                    | RejectedWhy::InUse { .. }
                    | RejectedWhy::ReadOnly
            );
            (HeldWhy::Rejected { replica, why }, retry.filter(|_| passing))
        } else if let Signal::StepRefused { verb, detail } = signal {
            (HeldWhy::StepFailed { verb, detail }, retry)
        } else {
            return None;
        };
        Some(Phase::Held { why, then, until, wants: None })
    }

    fn step_after(&self, slot: Slot) -> Option<Step> {
        let phase = &self.repairs.get(&slot)?.phase;
        if let Phase::Held { then, .. } = phase {
            return Some(then.clone());
        }
        Some(restart::step_of(phase))
    }

    /// Puts a hold on a repair, unless MD has the work in hand or it is held for that very reason.
    pub(super) fn hold_repair(
        &mut self,
        now: Now,
        slot: Slot,
        why: HeldWhy,
        until: Option<heal_types::Moment>,
        wants: HostActionBox,
    ) {
        let held_so = self.repairs.get(&slot).is_some_and(
            |repair| matches!(&repair.phase, Phase::Held { why: held, .. } if *held == why),
        );
        if !held_so {
            self.signal(now, slot, Signal::HoldBegan(why));
        }
        if let Some(Repair { phase: Phase::Held { until: u, wants: w, .. }, .. }) =
            self.repairs.get_mut(&slot)
        {
            *u = until;
            *w = wants;
        }
    }

    fn decide(&self, now: Now, why: DoubtWhy) -> Option<heal_types::Moment> {
        match why {
            DoubtWhy::DeviceGone => Some(now.mono.after(self.policy.gone_confirm)),
            DoubtWhy::PathSuspect(_) => None,
            DoubtWhy::PathDead(_) => self.may_isolate().ok().map(|after| now.mono.after(after)),
        }
    }

    /// How long nothing must have got through to a leg before it is isolated, or why none of this
    /// array's legs is.
    pub(super) fn may_isolate(&self) -> Result<Duration, String> {
        if let Some(why) = &self.policy.isolation_off {
            return Err(why.clone());
        }
        let IsolateAfter::After(after) = self.policy.isolate_after else {
            return Err("the policy says never".to_owned());
        };
        match self.snapshot().map(|array| array.bitmap) {
            Some(Observed::Known(Bitmap::Present)) => Ok(after),
            Some(Observed::Known(Bitmap::Absent)) => {
                Err("the array has no bitmap: its return would be a full copy".to_owned())
            }
            Some(Observed::Unknown(why)) => Err(format!("its bitmap is not known: {why}")),
            None => Err("the array is not there".to_owned()),
        }
    }

    /// The deadline of a grace that begins now; `None` for one that never ends.
    pub(super) fn grace_from(&self, now: Now) -> Option<Deadline> {
        let own = self.volume.known().and_then(|volume| volume.grace);
        match own.unwrap_or(self.policy.grace) {
            GracePolicy::After(grace) => {
                Some(Deadline::new(now, &self.boot, grace.min(self.policy.longest_grace)))
            }
            GracePolicy::Never => None,
        }
    }

    /// The end of a repair's grace on this boot's clock.
    pub(super) fn grace_end(&self, repair: &Repair) -> Option<heal_types::Moment> {
        // Both clocks are needed only across a reboot, which `taken_up` has already folded in.
        repair.grace.as_ref().map(|deadline| deadline.mono)
    }

    /// Says what the audit says of a hold that is only noted, for lack of a phase of its own.
    pub(super) fn tell_withheld(&mut self, now: Now, slot: Slot, what: &str) {
        let text = format!("{}: would now {what} for slot {slot}, but only observes", self.name());
        self.tell_slot(now, AuditKind::WouldAct, Severity::Notice, text, slot);
    }
}

/// What was granted is not needed, and is put away at the end. What was rejected may be anything:
/// it was said to be unusable, and is left alone.
fn put_offer_aside(repair: &mut Repair) {
    let Some(unused) = repair.incoming.take() else { return };
    if repair.rejected.iter().all(|(replica, _)| *replica != unused.id) {
        let mut unused = member_of_replica(&unused);
        unused.device = repair.bound.take();
        repair.also_retire.push(unused);
    }
}
