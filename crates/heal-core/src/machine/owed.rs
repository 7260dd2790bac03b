//! What the provisioner must be told: kept until it has taken it, in order, for ever.

use heal_types::{
    Condition, FaultClass, Moment, Now, Observed, ProvisionerCall, ProvisionerFault, ReplicaId,
    Slot,
};

use crate::audit::{AuditKind, Severity};
use crate::effect::Effect;
use crate::ids::EffectId;
use crate::phase::{Phase, Turn, TurnState};
use crate::policy::Mode;
use crate::record::{Member, Owed, OwedMessage};
use crate::view::{leg_of, member_of, member_of_replica};
use crate::why::Cause;

use super::{ArrayMachine, due_at};

impl ArrayMachine {
    /// Owes the provisioner a word on `member`. Nothing is owed where there is nobody to tell, or
    /// where only observing is allowed.
    pub(super) fn owe(&mut self, now: Now, member: Option<&Member>, message: OwedMessage) {
        let replica = member.and_then(|member| member.replica.clone());
        let volume = self.volume.known().map(|volume| volume.id.clone());
        let (Some(replica), Some(volume)) = (replica, volume) else {
            return;
        };
        if self.policy.mode == Mode::Observe || !self.policy.provisioned {
            return;
        }
        let last = self.owed.iter().rev().find(|owed| owed.replica == replica);
        if last.is_some_and(|owed| owed.message == message) {
            return;
        }
        if message == OwedMessage::Report(Condition::Available) {
            self.claim_successors(now, &replica);
        }
        // A leg that flaps while the provisioner is away must not fill the disk: of each kind of
        // word on a replica only the newest is kept, so both the loss and the return are told. Good
        // news of what is lost by now is no news: who believes it takes back what was given for it.
        let under_way = matches!(self.owing.state, TurnState::UnderWay(_));
        let mut index = 0;
        self.owed.retain(|owed| {
            let first = index == 0 && under_way;
            index += 1;
            let other = owed.message.word() != message.word() && !message.belies(&owed.message);
            first || owed.replica != replica || other
        });
        let key = self.key(now, message.word());
        self.owed.push_back(Owed { key, volume, replica, message, since: now.wall });
        self.dirty = true;
    }

    /// Who hears that a replica is good again may take back what was given for it, and MD may be
    /// filling another slot with that: it is said to be in use first.
    fn claim_successors(&mut self, now: Now, good: &ReplicaId) {
        let filled = self.repairs.values().filter(|repair| {
            matches!(repair.phase, Phase::Adding { .. } | Phase::Rebuilding { .. })
        });
        let incoming = filled.filter_map(|repair| repair.incoming.as_ref());
        let others: Vec<Member> =
            incoming.filter(|replica| replica.id != *good).map(member_of_replica).collect();
        for member in others {
            self.owe(now, Some(&member), OwedMessage::Report(Condition::Synchronizing));
        }
    }

    /// The end of a repair: what was put away may be deleted, if it is certain that it is out.
    pub(super) fn settle(&mut self, now: Now, slot: Slot) {
        let Some(repair) = self.repairs.get(&slot).cloned() else {
            return;
        };
        let lost = repair.lost.as_ref().filter(|_| repair.cause == Cause::LegLost);
        if let Some(lost) = lost.filter(|lost| repair.incoming.is_none() && self.is_untold(lost)) {
            self.owe(now, Some(lost), OwedMessage::Report(Condition::Missing));
        }
        // MD may have put another one into its place since it was told to be good.
        let newcomer = repair.incoming.as_ref().map(member_of_replica);
        if let Some(newcomer) = newcomer.filter(|newcomer| self.is_untold(newcomer)) {
            self.owe(now, Some(&newcomer), OwedMessage::Report(Condition::Missing));
        }
        let unwanted = repair.cause == Cause::FewerCopies;
        for member in self.leaving(&repair) {
            let leaving = !unwanted || self.is_leaving(&member);
            if leaving && self.is_provably_out(slot, &member) {
                self.owe(now, Some(&member), OwedMessage::Removed);
            }
        }
    }

    /// Whether the provisioner counts on a replica that is no leg: while it was only observed,
    /// nothing was said of its loss.
    pub(super) fn is_untold(&self, lost: &Member) -> bool {
        let listed = lost.replica.as_ref().and_then(|id| self.volume.known()?.replica(id));
        let bound = lost.namespace.zip(self.snapshot()).and_then(|(id, array)| leg_of(array, &id));
        let counted = listed.filter(|replica| replica.state.is_offered());
        bound.is_none() && counted.is_some_and(|replica| !self.may_be_in_use(&replica.id))
    }

    /// Legs that were good when last looked at, and of which another namespace has the slot now
    /// though no repair is about either: another hand's, or what MD took for a leg's successor.
    pub(super) fn replaced_unseen(&self, seen: &[(Slot, Member)]) -> Vec<Member> {
        let same = |one: &Member, other: &Member| one.namespace == other.namespace;
        let named = |known: &Member| {
            self.repairs.values().any(|repair| {
                let coming = repair.incoming.as_ref().map(|incoming| incoming.target.namespace);
                let mut going = repair.lost.iter().chain(&repair.also_retire);
                coming == known.namespace || going.any(|member| same(member, known))
            })
        };
        let told = seen.iter().filter(|(_, member)| member.namespace.is_some());
        told.filter(|(slot, _)| !self.repairs.contains_key(slot))
            .filter_map(|(slot, _)| self.members.get(slot))
            .filter(|known| known.namespace.is_some() && !named(known))
            .filter(|known| !seen.iter().any(|(_, member)| same(member, known)))
            // Slots may have got other numbers, and a leg have no name at this moment.
            .filter(|known| {
                let is_another = |member: &Member| !same(member, known);
                !self.snapshot().is_some_and(|array| self.may_be_hidden(array, is_another))
            })
            .cloned()
            .collect()
    }

    pub(super) fn owed_due(&self) -> Option<Moment> {
        if self.owed.is_empty() || self.hold.is_some() || self.policy.mode == Mode::Observe {
            return None;
        }
        due_at(&self.owing)
    }

    /// Sends the oldest word that is owed.
    pub(super) fn tell_owed(&mut self, now: Now) {
        if self.owed_due().is_none_or(|due| due > now.mono) {
            return;
        }
        self.take_back_removals(now);
        let Some(owed) = self.owed.front() else {
            return;
        };
        // It is given up for good: what was out at the last look may have been added again since.
        let certain = self.sees_now && !self.may_be_in_use(&owed.replica);
        if owed.message == OwedMessage::Removed && !certain {
            let at_most = match &self.array {
                Observed::Known(None) => self.policy.retry_max,
                Observed::Known(Some(_)) | Observed::Unknown(_) => self.policy.retry_min,
            };
            self.owing.state = TurnState::NextLook(now.mono.after(at_most));
            return self.want_look();
        }
        let (volume, replica) = (owed.volume.clone(), owed.replica.clone());
        let key = owed.key.clone();
        let call = match &owed.message {
            OwedMessage::Report(condition) => ProvisionerCall::Report {
                volume,
                replica,
                condition: condition.clone(),
                since: owed.since,
                key,
            },
            OwedMessage::Removed => ProvisionerCall::ConfirmRemoved { volume, replica, key },
        };
        let id = self.effect_id();
        self.owing.state = TurnState::UnderWay(id);
        self.out.effects.push(Effect::Call { id, call });
    }

    /// A replica that was put away may be in the array again by the time somebody listens: another
    /// hand took it back. Then it is not told to be unused, and whatever becomes of it is told
    /// anew.
    fn take_back_removals(&mut self, now: Now) {
        while let Some(owed) = self.owed.front().filter(|owed| owed.message == OwedMessage::Removed)
        {
            if !self.is_in_use_again(&owed.replica) {
                return;
            }
            let owed = owed.clone();
            self.drop_owed();
            let text = format!(
                "{}: replica {} is in the array again: its removal is not confirmed",
                self.name(),
                owed.replica
            );
            self.tell_key(now, AuditKind::ReportRejected, Severity::Warning, text, &owed);
        }
    }

    /// Whether the replica may be a leg for all that is known: the last look saw nothing, or a leg
    /// that nobody can name, or this life has not seen the array, and who knows what another hand
    /// did to it before it was stopped.
    fn may_be_in_use(&self, replica: &ReplicaId) -> bool {
        let array = match &self.array {
            Observed::Known(Some(array)) if !self.blind => array,
            Observed::Known(None) => return !self.ran,
            Observed::Known(Some(_)) | Observed::Unknown(_) => return true,
        };
        let listed = self.volume.known().and_then(|volume| volume.replica(replica));
        let is_another = |known: &Member| match (&known.replica, known.namespace, listed) {
            (Some(own), _, _) => own != replica,
            // The provisioner has forgotten which replica that one is.
            (None, Some(own), Some(listed)) => own != listed.target.namespace,
            (None, None, _) | (None, Some(_), None) => false,
        };
        self.may_be_hidden(array, is_another)
    }

    /// Whether a leg of the array is this replica, in sync or not.
    fn is_in_use_again(&self, replica: &ReplicaId) -> bool {
        let Some(array) = self.snapshot() else { return false };
        let volume = self.volume.known();
        array.legs.iter().any(|leg| member_of(leg, volume).replica.as_ref() == Some(replica))
    }

    /// Whether `id` is the word under way; if so, what became of it is dealt with.
    pub(super) fn owed_answered(
        &mut self,
        now: Now,
        id: EffectId,
        answer: Result<(), ProvisionerFault>,
    ) -> bool {
        if self.owing.state != TurnState::UnderWay(id) {
            return false;
        }
        let Some(owed) = self.owed.front().cloned() else {
            self.owing = Turn::now();
            return true;
        };
        let what = match &owed.message {
            OwedMessage::Report(condition) => {
                format!("replica {} is {}", owed.replica, condition.word())
            }
            OwedMessage::Removed => format!("replica {} is no longer used", owed.replica),
        };
        match answer {
            Ok(()) => {
                self.drop_owed();
                let text = format!("{}: the provisioner knows that {what}", self.name());
                self.tell_key(now, AuditKind::ReportDelivered, Severity::Notice, text, &owed);
                // What it makes of the news shows in its next answer.
                self.volume.ask_again(now.mono);
            }
            Err(fault) => match fault.class {
                FaultClass::NotFound | FaultClass::Refused | FaultClass::Unsupported => {
                    self.drop_owed();
                    let text = format!(
                        "{}: the provisioner will not hear that {what}: {fault}",
                        self.name()
                    );
                    self.tell_key(now, AuditKind::ReportRejected, Severity::Warning, text, &owed);
                }
                FaultClass::Unreachable | FaultClass::Unauthorized | FaultClass::Invalid => {
                    self.owing.failures += 1;
                    let pause = self.policy.backoff(self.owing.failures);
                    self.owing.state = TurnState::Due(now.mono.after(pause));
                    self.note_fault(now, fault);
                }
            },
        }
        true
    }

    fn drop_owed(&mut self) {
        self.owed.pop_front();
        self.owing = Turn::now();
        self.dirty = true;
    }
}
