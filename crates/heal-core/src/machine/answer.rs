//! What became of a step: answers of the host and of the provisioner.

use std::time::Duration;

use heal_types::{
    Content, FaultClass, HostAnswer, LegSnapshot, Now, Nqn, Outcome, ProvisionerAnswer,
    ProvisionerFault, RefusedWhy, Replacement, Replica, RetryWhy, Slot,
};

use crate::audit::{AuditKind, Severity};
use crate::ids::EffectId;
use crate::phase::{Phase, Repair, Turn, TurnState};
use crate::record::{Intent, Member};
use crate::signal::Signal;
use crate::view::leg_of;
use crate::why::{Cause, QuarantinedWhy, RejectedWhy};

use super::ArrayMachine;
use super::gate::is_open_loss;

/// When to try again to free I/O from a leg.
const SOON: Duration = Duration::from_millis(200);

impl ArrayMachine {
    pub(super) fn acted(&mut self, now: Now, id: EffectId, answer: &HostAnswer) {
        let Some(intent) = self.intents.remove(&id) else {
            return;
        };
        self.dirty = true;
        self.tell_ended(now, &intent, &answer.outcome);
        self.note_connections(&intent, &answer.outcome);
        self.want_look();
        if self.duty_ended(now, &intent, &answer.outcome) {
            return;
        }
        let Some(slot) = self.under_way(id) else {
            return;
        };
        let settle = TurnState::NextLook(now.mono.after(self.policy.retry_max));
        match answer.outcome.clone() {
            Outcome::Changed | Outcome::AlreadySo => {
                if let Some(turn) = self.repairs.get_mut(&slot).and_then(|r| r.phase.turn_mut()) {
                    turn.failures = 0;
                    turn.state = settle;
                }
                self.step_done(now, slot, &intent, answer);
            }
            Outcome::Retry { after, why } => {
                let pause = self.count_failure(slot).map(|failures| {
                    self.policy.backoff(failures).max(after.min(self.policy.retry_max))
                });
                if why == RetryWhy::Undecided {
                    // A copy is not given up because nobody could tell what it is.
                    return self.later(now, slot, pause);
                }
                self.again(now, slot, &intent, why.to_string(), pause);
            }
            Outcome::Refused(why) => self.step_refused(now, slot, &intent, &why),
            Outcome::Unknown(why) => {
                let pause = self.count_failure(slot).map(|failures| self.policy.backoff(failures));
                self.again(now, slot, &intent, why.to_string(), pause);
            }
        }
    }

    /// What we connected is ours to disconnect, whatever became of the repair meanwhile, and what
    /// was connected already is not. It is no longer ours once it is gone, or once the host
    /// refused: then somebody else has a part in it.
    fn note_connections(&mut self, intent: &Intent, outcome: &Outcome) {
        match outcome {
            Outcome::Changed => self.note_connected(intent.connects.as_ref()),
            Outcome::Unknown(_) => self.note_unheard(intent),
            Outcome::AlreadySo | Outcome::Refused(_) | Outcome::Retry { .. } => {}
        }
        let over = match outcome {
            Outcome::Changed | Outcome::AlreadySo | Outcome::Refused(_) => true,
            Outcome::Retry { .. } | Outcome::Unknown(_) => false,
        };
        if let (Some(nqn), true) = (&intent.disconnects, over) {
            self.connected.remove(nqn);
        }
    }

    /// A connect whose end nobody heard of may have made a controller, and it is as good as certain
    /// that it is ours if there was none before. One that was not made costs nothing to put away.
    pub(super) fn note_unheard(&mut self, intent: &Intent) {
        self.note_connected(intent.connects.as_ref().filter(|_| intent.first));
    }

    fn note_connected(&mut self, nqn: Option<&Nqn>) {
        if let Some(nqn) = nqn {
            self.connected.entry(nqn.clone()).or_default();
        }
    }

    fn under_way(&self, id: EffectId) -> Option<Slot> {
        self.repairs
            .values()
            .find(|repair| {
                repair.phase.turn().is_some_and(|turn| turn.state == TurnState::UnderWay(id))
            })
            .map(|repair| repair.slot)
    }

    fn count_failure(&mut self, slot: Slot) -> Option<u32> {
        let turn = self.repairs.get_mut(&slot)?.phase.turn_mut()?;
        turn.failures += 1;
        Some(turn.failures)
    }

    /// Another try after a pause, or none when it failed too often.
    fn again(
        &mut self,
        now: Now,
        slot: Slot,
        intent: &Intent,
        detail: String,
        pause: Option<std::time::Duration>,
    ) {
        let failures = self
            .repairs
            .get(&slot)
            .and_then(|repair| repair.phase.turn())
            .map_or(0, |turn| turn.failures);
        let retiring = matches!(
            self.repairs.get(&slot).map(|repair| &repair.phase),
            Some(Phase::Retiring { .. })
        );
        if failures >= self.policy.attempts && !retiring {
            let verb = intent.verb.clone();
            return self.signal(now, slot, Signal::StepRefused { verb, detail });
        }
        self.later(now, slot, pause);
    }

    fn later(&mut self, now: Now, slot: Slot, pause: Option<std::time::Duration>) {
        self.set_turn(slot, TurnState::Due(now.mono.after(pause.unwrap_or_default())));
        self.signal(now, slot, Signal::StepAgain);
    }

    fn step_refused(&mut self, now: Now, slot: Slot, intent: &Intent, why: &RefusedWhy) {
        match why {
            // Two histories of one array: only a person can say which one is wanted.
            RefusedWhy::NewerCopy { detail } => {
                self.quarantine(now, QuarantinedWhy::NewerCopy { detail: detail.clone() });
            }
            RefusedWhy::ReAddNotPossible { .. } | RefusedWhy::NotPossibleHere { .. } => {
                let pause = self.count_failure(slot).map(|failures| self.policy.backoff(failures));
                // Only Retiring stays where it is; its next step is due then.
                self.set_turn(slot, TurnState::Due(now.mono.after(pause.unwrap_or_default())));
                let (verb, detail) = (intent.verb.clone(), why.to_string());
                self.signal(now, slot, Signal::StepRefused { verb, detail });
            }
            // The facts changed between the look and the act: the next look says how.
            RefusedWhy::NotThatDevice { .. }
            | RefusedWhy::NotThatArray
            | RefusedWhy::NotInThatState { .. }
            | RefusedWhy::Guard { .. }
            | RefusedWhy::NoDurableIntent => {
                let failures = self.count_failure(slot);
                let other = matches!(why, RefusedWhy::NotThatDevice { .. });
                if other && intent.verb == "remove_leg" {
                    self.forget_member_uuid(slot);
                }
                // What stood in the way of freeing an application's I/O may be gone in a moment.
                let pause = if intent.verb == "isolate_leg" {
                    Some(SOON)
                } else {
                    failures.map(|failures| self.policy.backoff(failures))
                };
                self.again(now, slot, intent, why.to_string(), pause);
            }
        }
    }

    /// Another hand took a leg out and added it again: it is a member of another UUID by now, and
    /// goes by its name until that is read.
    fn forget_member_uuid(&mut self, slot: Slot) {
        let Some(repair) = self.repairs.get_mut(&slot) else { return };
        for member in repair.lost.iter_mut().chain(&mut repair.also_retire) {
            member.md_device = None;
        }
        self.dirty = true;
    }

    fn step_done(&mut self, now: Now, slot: Slot, intent: &Intent, answer: &HostAnswer) {
        let Some(repair) = self.repairs.get_mut(&slot) else {
            return;
        };
        let examined = intent.verb == "examine";
        match &mut repair.phase {
            Phase::Connecting { connected_at, .. } => {
                *connected_at = Some(now.mono);
                self.signal(now, slot, Signal::StepDone);
            }
            Phase::Verifying { .. } if examined => {
                let signal = match answer.content.as_ref() {
                    Some(Content::Blank) => Signal::StepDone,
                    Some(Content::MdMember(sb)) if sb.array == self.id => Signal::StepDone,
                    Some(Content::MdMember(sb)) => {
                        Signal::Rejected(RejectedWhy::OtherArray { array: sb.array.to_string() })
                    }
                    Some(Content::Foreign(kind)) => {
                        Signal::Rejected(RejectedWhy::ForeignContent { detail: kind.to_string() })
                    }
                    None => Signal::StepAgain,
                };
                self.signal(now, slot, signal);
            }
            Phase::Suspect { .. }
            | Phase::Isolating { .. }
            | Phase::Reporting
            | Phase::Grace
            | Phase::Returning { .. }
            | Phase::Requesting { .. }
            | Phase::Verifying { .. }
            | Phase::Adding { .. }
            | Phase::Rebuilding { .. }
            | Phase::Retiring { .. }
            | Phase::Held { .. }
            | Phase::Quarantined { .. } => self.signal(now, slot, Signal::StepDone),
        }
    }

    pub(super) fn answered(
        &mut self,
        now: Now,
        id: EffectId,
        answer: Result<ProvisionerAnswer, ProvisionerFault>,
    ) {
        if self.volume.turn.state == TurnState::UnderWay(id) {
            match answer {
                Ok(ProvisionerAnswer::Volume(volume)) => self.volume_answered(now, volume),
                Ok(ProvisionerAnswer::Noted | ProvisionerAnswer::Replacement(_)) => {
                    self.volume_faulted(now, out_of_turn());
                }
                Err(fault) => self.volume_faulted(now, fault),
            }
            return;
        }
        let noted = match &answer {
            Ok(ProvisionerAnswer::Noted) => Ok(()),
            Ok(ProvisionerAnswer::Volume(_) | ProvisionerAnswer::Replacement(_)) => {
                Err(out_of_turn())
            }
            Err(fault) => Err(fault.clone()),
        };
        if self.owed_answered(now, id, noted) {
            return;
        }
        if let Some(slot) = self.under_way(id) {
            self.request_answered(now, slot, answer);
        }
    }

    fn request_answered(
        &mut self,
        now: Now,
        slot: Slot,
        answer: Result<ProvisionerAnswer, ProvisionerFault>,
    ) {
        match answer {
            Ok(ProvisionerAnswer::Replacement(Replacement::Granted(replica))) => {
                self.granted(now, slot, replica);
            }
            Ok(ProvisionerAnswer::Replacement(Replacement::Pending { after })) => {
                let pause = after.clamp(self.policy.retry_min, self.policy.retry_max);
                self.set_turn(slot, TurnState::Due(now.mono.after(pause)));
                self.signal(now, slot, Signal::StepAgain);
            }
            Ok(ProvisionerAnswer::Noted | ProvisionerAnswer::Volume(_)) => {
                self.request_failed(now, slot, out_of_turn());
            }
            Err(fault) => match fault.class {
                // It has taken back whom we ask to replace: then it is another one that we are
                // without.
                FaultClass::NotFound if self.asks_for_who_is_missing(slot) => {
                    self.ask_anew(now, slot);
                }
                FaultClass::Refused | FaultClass::NotFound | FaultClass::Unsupported => {
                    self.signal(now, slot, Signal::Refused(fault.detail));
                }
                FaultClass::Unreachable | FaultClass::Unauthorized | FaultClass::Invalid => {
                    self.request_failed(now, slot, fault);
                }
            },
        }
    }

    fn request_failed(&mut self, now: Now, slot: Slot, fault: ProvisionerFault) {
        let pause = self.count_failure(slot).map(|failures| self.policy.backoff(failures));
        self.set_turn(slot, TurnState::Due(now.mono.after(pause.unwrap_or_default())));
        self.signal(now, slot, Signal::StepAgain);
        self.note_fault(now, fault);
    }

    /// A grant is an offer: it must not be something the array has, had, or is losing.
    fn granted(&mut self, now: Now, slot: Slot, replica: Replica) {
        if self.trade_losses(slot, &replica) || self.was_made_good(slot, &replica) {
            return self.ask_anew(now, slot);
        }
        self.take_from_a_leg_that_serves(now, slot, &replica);
        let contradiction = self.contradiction(slot, &replica);
        let lost = self.repairs.get(&slot).and_then(Repair::asks_to_replace);
        self.volume.granted_for(&replica, lost);
        if let Some(repair) = self.repairs.get_mut(&slot) {
            repair.incoming = Some(replica.clone());
            repair.request = None;
        }
        match contradiction {
            Some(detail) => {
                self.signal(now, slot, Signal::Rejected(RejectedWhy::BadGrant { detail }));
                // It is no replacement of anything: it may be a good leg of this very array.
                if let Some(repair) = self.repairs.get_mut(&slot) {
                    repair.incoming = None;
                }
            }
            None => {
                let text =
                    format!("{}: replica {} is granted for slot {slot}", self.name(), replica.id);
                self.tell_slot(now, AuditKind::ActEnded, Severity::Info, text, slot);
                self.signal(now, slot, Signal::Granted(Box::new(replica)));
            }
        }
    }

    /// What was granted for this slot's loss may be on its way into another slot, which took it
    /// when the volume showed it. Then the two trade their losses: the provisioner counts the one
    /// it named as replaced, and the other one is still to be asked for.
    fn trade_losses(&mut self, slot: Slot, replica: &Replica) -> bool {
        let taker = self.repairs.values().find(|other| {
            let incoming = other.incoming.as_ref().is_some_and(|own| own.id == replica.id);
            incoming && other.slot != slot && other.cause == Cause::LegLost && other.lost.is_some()
        });
        let Some(taker) = taker.map(|other| other.slot) else { return false };
        if self.repairs.get(&slot).is_some_and(|repair| repair.asks_for.is_some()) {
            return self.asks_on_behalf_of(slot, taker);
        }
        let own = self.repairs.get(&slot).filter(|repair| repair.cause == Cause::LegLost);
        let Some(lost) = own.and_then(|repair| repair.lost.clone()) else { return false };
        let Some(theirs) = self.repairs.get_mut(&taker).and_then(|other| other.lost.replace(lost))
        else {
            return false;
        };
        if let Some(repair) = self.repairs.get_mut(&slot) {
            repair.lost = Some(theirs);
        }
        self.dirty = true;
        true
    }

    /// The request was answered, and another one takes its place.
    fn ask_anew(&mut self, now: Now, slot: Slot) {
        let key = self.key(now, "request");
        if let Some(repair) = self.repairs.get_mut(&slot) {
            repair.request = Some(key.clone());
            // Whoever names what is taken is not asked again at once.
            let turn = Turn::at(now.mono.after(self.policy.retry_max / 4));
            repair.phase = Phase::Requesting { key, turn };
        }
        self.signal(now, slot, Signal::StepAgain);
    }

    /// What was granted for a loss may have been taken, when the volume showed it, for a leg that
    /// has to go. That one still serves, and waits for the next one.
    fn take_from_a_leg_that_serves(&mut self, now: Now, slot: Slot, replica: &Replica) {
        let id = &replica.target.namespace;
        let bound = self.snapshot().is_none_or(|array| leg_of(array, id).is_some());
        let lost = self.repairs.get(&slot).is_some_and(|own| own.cause == Cause::LegLost);
        let taker = self.repairs.values().find(|other| {
            let incoming = other.incoming.as_ref().is_some_and(|own| own.id == replica.id);
            let turn = other.phase.turn();
            let under_way = turn.is_some_and(|turn| matches!(turn.state, TurnState::UnderWay(_)));
            incoming && other.slot != slot && other.cause.moves_leg() && !under_way
        });
        if let Some(taker) = taker.map(|other| other.slot).filter(|_| lost && !bound) {
            self.signal(now, taker, Signal::ReplicaWithdrawn);
        }
    }

    fn contradiction(&self, slot: Slot, replica: &Replica) -> Option<String> {
        let repair = self.repairs.get(&slot)?;
        let array = self.snapshot()?;
        // Unless it was asked for another one's successor, and is that: then it was lost on its way
        // in.
        let own = repair.lost.as_ref().filter(|lost| lost.replica.as_ref() == Some(&replica.id));
        if own.is_some() && repair.asks_to_replace() == Some(&replica.id) {
            return Some("it is the replica that was lost".to_owned());
        }
        // An earlier life, or another hand, has begun with it already.
        let begun = |leg: &&LegSnapshot| {
            !leg.is_in_sync() && !leg.is_faulty() && leg.slot.is_none_or(|own| own == slot)
        };
        // One that failed on its way may be tried again, unless another slot has it still.
        let leg = leg_of(array, &replica.target.namespace);
        let is_it = |member: &Member| member.replica.as_ref() == Some(&replica.id);
        let elsewhere = self.repairs.values().filter(|other| other.slot != slot).any(|other| {
            let incoming = other.incoming.as_ref().is_some_and(|own| own.id == replica.id);
            incoming || other.lost.iter().chain(&other.also_retire).any(is_it)
        });
        let again = |leg: &&LegSnapshot| leg.is_faulty() && !elsewhere;
        if let Some(leg) = leg.filter(|leg| !begun(leg) && !again(leg)) {
            return Some(format!("it is {}, a leg of this array already", leg.device));
        }
        let mut others = self.repairs.values().filter(|other| other.slot != slot);
        let brings = |other: &&Repair| {
            other.incoming.as_ref().is_some_and(|incoming| incoming.id == replica.id)
        };
        if let Some(other) = others.find(brings) {
            return Some(format!("it is on its way into slot {} already", other.slot));
        }
        let lost = self.repairs.values().filter(|other| other.slot != slot && is_open_loss(other));
        let lost = lost.filter_map(|other| other.lost.as_ref());
        let lost = lost.chain(repair.lost.iter().filter(|_| own.is_none()));
        // Whoever was remembered in a slot that lost its leg serves no more.
        let serves = |other: &Slot| *other != slot || repair.cause.moves_leg();
        let members = self.members.iter().filter(|(other, _)| serves(other));
        let known = members.map(|(_, member)| member).chain(lost);
        if known.into_iter().any(|member| member.namespace == Some(replica.target.namespace)) {
            return Some("its namespace is one that the array has or lost".to_owned());
        }
        None
    }
}

fn out_of_turn() -> ProvisionerFault {
    ProvisionerFault::new(FaultClass::Invalid, "an answer to another question")
}
