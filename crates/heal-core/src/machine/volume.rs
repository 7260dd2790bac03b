//! What the provisioner says of the volume, and what follows from it.
//!
//! "The provisioner did not answer" keeps the last known answer and its age, and never means "not
//! managed". A replica that is not in an answer is taken for withdrawn only if the question was
//! asked after it had been granted: an answer that was on its way then may be an old one.

use std::collections::{BTreeMap, BTreeSet};

use heal_types::{
    ArraySnapshot, Condition, FaultClass, Level, Metadata, Moment, Now, Observed, ProvisionerCall,
    ProvisionerFault, Replica, ReplicaId, ReplicaState, Slot, Volume, VolumeQuery,
};
use uuid::Uuid;

use crate::audit::{AuditKind, Severity};
use crate::effect::Effect;
use crate::ids::{EffectId, IncidentId};
use crate::phase::{Phase, PhaseKind, Repair, Turn, TurnState};
use crate::record::{Member, OwedMessage, Step};
use crate::signal::Signal;
use crate::view::{SlotView, is_nameless, leg_of, member_of_replica, slot_view};
use crate::why::{Cause, HeldWhy, RejectedWhy};

use super::gate::{has_asked, is_open_loss};
use super::{ArrayMachine, Standing};

/// The last word of the provisioner, and when to ask again.
#[derive(Debug, Clone)]
pub(super) struct VolumeView {
    /// The last answer: `Some(None)` is the clear word that there is no volume.
    answer: Option<Option<Volume>>,
    /// When it came, in this life.
    pub(super) at: Option<Moment>,
    /// The failure since then.
    pub(super) fault: Option<ProvisionerFault>,
    /// Replicas that some answer of this life has shown, or should have.
    seen: BTreeSet<ReplicaId>,
    /// Replicas that were granted since the last question was asked.
    granted: BTreeSet<ReplicaId>,
    /// Those that had been granted when it was: the answer to it shows them, or they are taken
    /// back.
    expected: BTreeSet<ReplicaId>,
    /// For whom what was granted in this life was asked for.
    granted_for: BTreeMap<ReplicaId, ReplicaId>,
    /// Those of whom it believes the wrong thing, and was told better.
    spoken_for: BTreeSet<ReplicaId>,
    /// It answered, and the next look shows whom it has to be told better of.
    to_compare: bool,
    /// The next question.
    pub(super) turn: Turn,
    /// Somebody wants to know anew what is being asked.
    again: bool,
}

impl VolumeView {
    pub(super) fn new() -> Self {
        Self {
            answer: None,
            at: None,
            fault: None,
            seen: BTreeSet::new(),
            granted: BTreeSet::new(),
            expected: BTreeSet::new(),
            granted_for: BTreeMap::new(),
            spoken_for: BTreeSet::new(),
            to_compare: false,
            turn: Turn::now(),
            again: false,
        }
    }

    /// What an earlier life knew. No answer of this life is older than what was granted in that
    /// one.
    pub(super) fn remember(&mut self, volume: Option<Volume>, granted: Vec<ReplicaId>) {
        self.answer = volume.map(Some);
        self.seen.extend(granted);
    }

    /// The volume, as far as it was ever known.
    pub(super) fn known(&self) -> Option<&Volume> {
        self.answer.as_ref().and_then(Option::as_ref)
    }

    /// Whatever was answered so far, or is being answered, may be older than what it is asked for
    /// now: nobody is told better of it.
    pub(super) fn ask_again(&mut self, now: Moment) {
        self.to_compare = false;
        if matches!(self.turn.state, TurnState::UnderWay(_)) {
            self.again = true;
        } else {
            self.turn.state = TurnState::Due(now);
        }
    }

    /// The question was dropped with the record it rested on.
    pub(super) fn dropped(&mut self, again: Moment) {
        self.turn.state = TurnState::Due(again);
    }

    /// A replica was granted for that one.
    pub(super) fn granted_for(&mut self, replica: &Replica, lost: Option<&ReplicaId>) {
        self.granted_for.extend(lost.map(|lost| (replica.id.clone(), lost.clone())));
    }

    /// Whether a replica was granted after the question that was last answered.
    pub(super) fn is_newer_than_the_answer(&self, replica: &ReplicaId) -> bool {
        self.granted.contains(replica) || self.expected.contains(replica)
    }

    /// A replica that was granted is part of the volume from then on.
    pub(super) fn add(&mut self, replica: &Replica) {
        self.granted.insert(replica.id.clone());
        if let Some(Some(volume)) = &mut self.answer {
            if volume.replica(&replica.id).is_none() {
                volume.replicas.push(replica.clone());
            }
        }
    }
}

impl ArrayMachine {
    pub(super) fn has_fabric_leg(&self) -> bool {
        let bound = self.snapshot().is_some_and(|array| {
            array.legs.iter().any(|leg| matches!(leg.backing, heal_types::Backing::Namespace(_)))
        });
        bound || self.members.values().any(|member| member.namespace.is_some())
    }

    fn standing_now(&self) -> Standing {
        let Some(array) = self.snapshot() else {
            return self.standing.clone();
        };
        if !self.has_fabric_leg() {
            return Standing::NotOurs("no leg is an NVMe-oF namespace");
        }
        match array.level {
            Level::Raid1 | Level::Raid10 { .. } => {}
            Level::Other => return Standing::NotOurs("its RAID level is not healed"),
        }
        match array.metadata {
            Metadata::V1 => {}
            Metadata::V090 => return Standing::NotOurs("its metadata is of version 0.90"),
            Metadata::External => return Standing::NotOurs("another program keeps its metadata"),
            Metadata::None => return Standing::NotOurs("it has no metadata"),
            Metadata::Clustered => return Standing::NotOurs("it is clustered"),
        }
        if !self.policy.provisioned {
            return Standing::Unprovisioned;
        }
        match &self.volume.answer {
            None => Standing::Undecided,
            Some(None) => Standing::NotOurs("the provisioner knows no volume for it"),
            Some(Some(volume)) if self.is_replicated_by(volume) => Standing::Managed,
            Some(Some(_)) => Standing::NotOurs("no leg is a replica of its volume"),
        }
    }

    fn is_replicated_by(&self, volume: &Volume) -> bool {
        volume.replicas.iter().any(|replica| {
            let id = &replica.target.namespace;
            let bound = self
                .snapshot()
                .is_some_and(|array| array.legs.iter().any(|leg| leg.is_namespace(id)));
            // One that is waited for is a leg all the same.
            let awaited = self.repairs.values().filter_map(|repair| repair.lost.as_ref());
            bound || self.members.values().chain(awaited).any(|m| m.namespace == Some(*id))
        })
    }

    pub(super) fn decide_standing(&mut self, now: Now) {
        let standing = self.standing_now();
        if standing == self.standing {
            return;
        }
        self.standing = standing;
        let name = self.name();
        match self.standing.clone() {
            Standing::Managed => {
                let volume = self.volume.known().map(|v| v.id.to_string()).unwrap_or_default();
                let text = format!("{name}: managed: it is volume {volume}");
                self.tell(now, AuditKind::ArrayManaged, Severity::Info, text);
                self.look_at_slots(now);
                self.volume_signals(now);
            }
            Standing::Unprovisioned => {
                let text = format!("{name}: observed: no provisioner is configured");
                self.tell(now, AuditKind::ArrayObserved, Severity::Info, text);
                self.look_at_slots(now);
            }
            Standing::NotOurs(why) => {
                let text = format!("{name}: observed, never touched: {why}");
                self.tell(now, AuditKind::ArrayObserved, Severity::Info, text);
            }
            Standing::Undecided => {}
        }
    }

    fn asks(&self) -> bool {
        self.policy.provisioned && self.snapshot().is_some() && self.has_fabric_leg()
    }

    pub(super) fn volume_due(&self) -> Option<Moment> {
        if self.asks() { super::due_at(&self.volume.turn) } else { None }
    }

    pub(super) fn ask_volume(&mut self, now: Now) {
        if self.volume_due().is_none_or(|due| due > now.mono) {
            return;
        }
        let Some(array) = self.snapshot() else { return };
        let query = VolumeQuery { array: self.id, alias: array.alias.clone() };
        self.lookups += 1;
        let id = EffectId { incident: IncidentId(Uuid::nil()), number: self.lookups };
        self.volume.turn.state = TurnState::UnderWay(id);
        self.volume.expected.append(&mut self.volume.granted);
        self.out.effects.push(Effect::Call { id, call: ProvisionerCall::FindVolume(query) });
    }

    /// The provisioner said which volume this array is, or that it is none.
    pub(super) fn volume_answered(&mut self, now: Now, answer: Option<Volume>) {
        if self.volume.fault.take().is_some() {
            let text = format!("{}: the provisioner answers again", self.name());
            self.tell(now, AuditKind::ProvisionerRecovered, Severity::Notice, text);
            // What waited for it need not wait out its pause.
            if !matches!(self.owing.state, TurnState::UnderWay(_)) {
                self.owing.state = TurnState::Due(now.mono);
            }
            self.due_now(now, |phase| matches!(phase, Phase::Requesting { .. }));
        }
        let pause = if self.repairs.is_empty() && self.owed.is_empty() {
            self.policy.refresh_when_whole
        } else {
            self.policy.refresh_in_repair
        };
        // A question that was asked while this answer was on its way is asked again at once.
        let again = std::mem::take(&mut self.volume.again);
        self.volume.turn = Turn::at(if again { now.mono } else { now.mono.after(pause) });
        self.volume.at = Some(now.mono);
        if self.volume.answer.as_ref() != Some(&answer) {
            // A change of state words alone is no reason to write a record.
            let known = |v: Option<&Volume>| {
                v.map(|v| v.replicas.iter().map(|r| (r.id.clone(), r.state)).collect::<Vec<_>>())
            };
            if known(self.volume.known()) != known(answer.as_ref()) {
                self.dirty = true;
                // What it would not hear of one replica may have hung on another.
                self.volume.spoken_for.clear();
            }
            self.volume.answer = Some(answer);
        }
        self.adopt_replica_names();
        self.volume.seen.append(&mut self.volume.expected);
        self.decide_standing(now);
        self.volume_signals(now);
        self.volume.to_compare = !again;
        if !again {
            self.forget_withdrawn(now);
        }
        let wrong = || !self.wronged_legs().is_empty() || !self.counted_on_in_vain().is_empty();
        if self.volume.to_compare && wrong() {
            self.want_look(); // The last one may be older than what the provisioner says.
        }
        let shown: Vec<ReplicaId> = self
            .volume
            .known()
            .map(|volume| volume.replicas.iter().map(|replica| replica.id.clone()).collect())
            .unwrap_or_default();
        self.volume.seen.extend(shown);
    }

    /// A good leg that the provisioner calls missing, because who asked to replace it, or an
    /// earlier life, has said so and did not live to take it back; and the other way round a
    /// replica that it counts on and that is no leg of an array that is whole: another hand's
    /// exchange, told by nobody. Told on a look that is newer than the answer, and once as long as
    /// the answers are the same.
    pub(super) fn set_the_book_right(&mut self, now: Now) {
        if self.blind || !std::mem::take(&mut self.volume.to_compare) {
            return;
        }
        let wronged = self.wronged_legs().into_iter().map(|leg| (leg, Condition::Available));
        let counted = self.counted_on_in_vain().into_iter().map(|idle| (idle, Condition::Missing));
        let wrong: Vec<(Member, Condition)> = wronged.chain(counted).collect();
        let ids = wrong.iter().filter_map(|(member, _)| member.replica.clone()).collect();
        let told = std::mem::replace(&mut self.volume.spoken_for, ids);
        for (member, condition) in wrong {
            if member.replica.as_ref().is_some_and(|id| !told.contains(id)) {
                self.owe(now, Some(&member), OwedMessage::Report(condition));
            }
        }
    }

    /// Whether the book may be compared with what the last look showed.
    fn comparable(&self) -> Option<(&Volume, &ArraySnapshot)> {
        let usable = self.heals() && self.quarantine.is_none() && !self.blind && self.witnessed;
        self.volume.known().zip(self.snapshot()).filter(|_| usable)
    }

    /// Good legs that the provisioner calls missing.
    fn wronged_legs(&self) -> Vec<Member> {
        let Some((volume, array)) = self.comparable() else { return Vec::new() };
        let whole = (0..array.raid_disks).map(Slot).filter(|slot| !self.repairs.contains_key(slot));
        let good = whole.filter(|slot| matches!(slot_view(array, *slot), SlotView::Good(_)));
        let members = good.filter_map(|slot| self.members.get(&slot));
        let called = |member: &&Member| {
            let state = member.replica.as_ref().and_then(|id| volume.replica(id));
            state.is_some_and(|replica| replica.state == ReplicaState::Missing)
        };
        members.filter(called).cloned().collect()
    }

    /// Replicas that the provisioner calls available though every slot has another one's leg and
    /// nothing is under way: it would count them as copies.
    fn counted_on_in_vain(&self) -> Vec<Member> {
        let Some((volume, array)) = self.comparable() else { return Vec::new() };
        let named = |slot: Slot| match slot_view(array, slot) {
            SlotView::Good(leg) => !is_nameless(leg),
            SlotView::Doubtful(_)
            | SlotView::Recovering
            | SlotView::Failed
            | SlotView::Vacant
            | SlotView::Unclear => false,
        };
        let settled = self.repairs.is_empty() && (0..array.raid_disks).map(Slot).all(named);
        if !settled || volume.copies > array.raid_disks {
            return Vec::new(); // It is about to become a leg, or may be.
        }
        let in_vain = |replica: &&Replica| {
            let id = &replica.target.namespace;
            let serves = array.legs.iter().any(|leg| leg.is_namespace(id) && !leg.is_spare());
            replica.state == ReplicaState::Available
                && !serves
                && !self.volume.is_newer_than_the_answer(&replica.id)
                && !self.owed.iter().any(|owed| owed.replica == replica.id)
        };
        volume.replicas.iter().filter(in_vain).map(member_of_replica).collect()
    }

    /// The provisioner did not say.
    pub(super) fn volume_faulted(&mut self, now: Now, fault: ProvisionerFault) {
        self.volume.turn.failures += 1;
        let pause = self.policy.backoff(self.volume.turn.failures);
        self.volume.turn.state = TurnState::Due(now.mono.after(pause));
        self.note_fault(now, fault);
    }

    /// Says once that the provisioner is in trouble, and again when the trouble changes.
    pub(super) fn note_fault(&mut self, now: Now, fault: ProvisionerFault) {
        let new = self.volume.fault.as_ref().is_none_or(|known| known.class != fault.class);
        if new {
            let severity = match fault.class {
                FaultClass::Unauthorized | FaultClass::Invalid => Severity::Error,
                FaultClass::Unreachable
                | FaultClass::NotFound
                | FaultClass::Refused
                | FaultClass::Unsupported => Severity::Warning,
            };
            let text = format!("{}: the provisioner does not help: {fault}", self.name());
            self.tell(now, AuditKind::ProvisionerFaulted, severity, text);
        }
        self.volume.fault = Some(fault);
    }

    /// Members that were first seen before the provisioner answered learn which replica they are.
    fn adopt_replica_names(&mut self) {
        let Some(volume) = self.volume.known().cloned() else {
            return;
        };
        for incoming in self.repairs.values_mut().filter_map(|repair| repair.incoming.as_mut()) {
            // Portals and size may be known better by now; who it is does not change.
            let listed = volume.replica(&incoming.id).filter(|listed| {
                listed.target.namespace == incoming.target.namespace
                    && listed.target.nqn == incoming.target.nqn
            });
            if let Some(listed) = listed {
                incoming.target = listed.target.clone();
            }
        }
        // A clone says that it is one of them, and is another subsystem's.
        let name_of = |member: &Member| {
            let is_it = |replica: &&Replica| {
                Some(replica.target.namespace) == member.namespace
                    && member.nqn.as_ref().is_none_or(|nqn| *nqn == replica.target.nqn)
            };
            volume.replicas.iter().find(is_it).map(|replica| replica.id.clone())
        };
        let lost = self
            .repairs
            .values_mut()
            .flat_map(|repair| repair.lost.iter_mut().chain(&mut repair.also_retire));
        for member in self.members.values_mut().chain(lost) {
            if member.replica.is_none() {
                member.replica = name_of(member);
                self.dirty |= member.replica.is_some();
            }
        }
    }

    pub(super) fn volume_signals(&mut self, now: Now) {
        let judged = self.standing == Standing::Managed && self.witnessed;
        if !judged || self.quarantine.is_some() {
            return;
        }
        let slots: Vec<Slot> = self.repairs.keys().copied().collect();
        for slot in slots {
            if let Some(signal) = self.volume_signal(slot) {
                self.signal(now, slot, signal);
            }
        }
        self.begin_terminating(now);
        self.begin_resize(now);
        self.begin_bad_blocks(now);
    }

    pub(super) fn volume_signal(&self, slot: Slot) -> Option<Signal> {
        let volume = self.volume.known()?;
        let repair = self.repairs.get(&slot)?;
        match repair.phase.kind() {
            // Nothing was lost, so nothing is waited for: the volume offers another copy when it
            // has one.
            PhaseKind::Grace if repair.cause == Cause::MoreCopies => Some(Signal::NoLongerNeeded),
            PhaseKind::Grace | PhaseKind::Requesting => {
                self.still_terminating(repair, volume).or_else(|| self.replaced(repair, volume))
            }
            PhaseKind::Held if self.is_wanted_again(repair, volume) => Some(Signal::NoLongerNeeded),
            PhaseKind::Held if takes_offers(repair) => self
                .still_terminating(repair, volume)
                .or_else(|| self.replaced(repair, volume))
                .or_else(|| self.withdrawn(repair, volume)),
            PhaseKind::Held if self.waits_to_add(repair) => self.withdrawn(repair, volume),
            PhaseKind::Connecting | PhaseKind::Verifying => self.withdrawn(repair, volume),
            PhaseKind::Whole
            | PhaseKind::Suspect
            | PhaseKind::Isolating
            | PhaseKind::Reporting
            | PhaseKind::Returning
            | PhaseKind::Adding
            | PhaseKind::Rebuilding
            | PhaseKind::Retiring
            | PhaseKind::Held
            | PhaseKind::Quarantined => None,
        }
    }

    /// Whether a replica is on its way in and MD has nothing of it yet, and something bars the way.
    fn waits_to_add(&self, repair: &Repair) -> bool {
        let Phase::Held { why, then: Step::Connect, .. } = &repair.phase else { return false };
        let barred = match why {
            HeldWhy::Guard { .. }
            | HeldWhy::StepFailed { .. }
            | HeldWhy::ArrayState(_)
            | HeldWhy::ArrayBusy
            | HeldWhy::Budget
            | HeldWhy::OneAtATime { .. } => true,
            HeldWhy::Refused { .. }
            | HeldWhy::Rejected { .. }
            | HeldWhy::Flapping { .. }
            | HeldWhy::Operator { .. }
            | HeldWhy::Observing
            | HeldWhy::NoProvisioner
            | HeldWhy::HostCutOff { .. }
            | HeldWhy::NotDurable { .. } => false,
        };
        let id = repair.incoming.as_ref().map(|incoming| incoming.target.namespace);
        let bound = self.snapshot().zip(id).and_then(|(array, id)| leg_of(array, &id));
        barred && bound.is_none()
    }

    /// Whether a copy that was one too many is wanted after all, and is still good.
    fn is_wanted_again(&self, repair: &Repair, volume: &Volume) -> bool {
        let (Some(array), Some(lost)) = (self.snapshot(), &repair.lost) else { return false };
        let good =
            lost.namespace.and_then(|id| leg_of(array, &id)).is_some_and(|leg| !leg.is_faulty());
        repair.cause == Cause::FewerCopies
            && good
            && (volume.copies >= array.raid_disks || !self.is_leaving(lost))
    }

    /// Whether the provisioner has taken the incoming replica back.
    fn withdrawn(&self, repair: &Repair, volume: &Volume) -> Option<Signal> {
        if let Phase::Held {
            why: HeldWhy::Rejected { why: RejectedWhy::BadGrant { .. }, .. },
            ..
        } = &repair.phase
        {
            return None; // It was never ours to take back.
        }
        let incoming = repair.incoming.as_ref()?;
        let withdrawn = match volume.replica(&incoming.id).map(|replica| replica.state) {
            Some(state) => state.is_leaving(),
            None => self.volume.seen.contains(&incoming.id),
        };
        if !withdrawn {
            return None;
        }
        Some(match repair.cause {
            // Nothing was lost: the volume offers another one when it has one.
            Cause::MoreCopies => Signal::NoLongerNeeded,
            Cause::LegLost | Cause::ReplicaTerminating | Cause::BadBlocks | Cause::FewerCopies => {
                Signal::ReplicaWithdrawn
            }
        })
    }

    fn still_terminating(&self, repair: &Repair, volume: &Volume) -> Option<Signal> {
        if repair.cause != Cause::ReplicaTerminating {
            return None;
        }
        let lost = repair.lost.as_ref()?.replica.as_ref()?;
        match volume.replica(lost).map(|replica| replica.state) {
            Some(ReplicaState::Available | ReplicaState::Synchronizing) => {
                Some(Signal::NoLongerNeeded)
            }
            Some(
                ReplicaState::Terminating
                | ReplicaState::Bad
                | ReplicaState::Missing
                | ReplicaState::Unknown,
            )
            | None => None,
        }
    }

    /// Whether the provisioner has put another replica in the lost one's place by itself.
    fn replaced(&self, repair: &Repair, volume: &Volume) -> Option<Signal> {
        let lost = repair.lost.as_ref().and_then(|lost| lost.replica.as_ref());
        // A replica that the volume no longer lists is given up as well.
        let given_up = match lost {
            Some(id) => volume.replica(id).is_none_or(|replica| !replica.state.is_offered()),
            // Nobody remembers who was lost; somebody was.
            None => repair.cause == Cause::LegLost,
        };
        if !given_up || self.is_meant_for_another(repair) {
            return None;
        }
        let newcomer =
            self.newcomer(volume).filter(|new| !self.was_granted_for_another(repair, new));
        newcomer.map(|replica| Signal::ReplicaReplaced(Box::new(replica)))
    }

    /// Whether a new replica of the volume is likely another repair's: one that was asked for and
    /// not heard of yet, or, where nothing is lost, one for a slot that is without its leg.
    fn is_meant_for_another(&self, repair: &Repair) -> bool {
        let mut others = self.repairs.values().filter(|other| other.slot != repair.slot);
        others.any(|other| {
            let empty = is_open_loss(other) && other.incoming.is_none();
            has_asked(other) || (!repair.cause.is_loss() && empty)
        })
    }

    /// Whether a replica was granted for the loss of another slot, which is still without its leg:
    /// the provisioner never counts as good whom it gave a successor for, so it is that one's or
    /// nobody's.
    fn was_granted_for_another(&self, repair: &Repair, replica: &Replica) -> bool {
        let Some(lost) = self.volume.granted_for.get(&replica.id) else { return false };
        let mut others = self.repairs.values().filter(|other| other.slot != repair.slot);
        others.any(|other| {
            let theirs = other.lost.as_ref().and_then(|member| member.replica.as_ref());
            is_open_loss(other) && theirs == Some(lost)
        })
    }

    /// A replica of the volume that is meant to be used and that nobody here has yet. One of which
    /// the provisioner has still to hear that it is lost or put away is none, and neither is one
    /// that may be a leg already and only cannot be told by this look.
    fn newcomer(&self, volume: &Volume) -> Option<Replica> {
        let taken = |replica: &Replica| {
            let id = &replica.target.namespace;
            let is_another = |known: &Member| known.namespace.is_some_and(|own| own != *id);
            let bound = self.snapshot().is_some_and(|array| {
                array.legs.iter().any(|leg| leg.is_namespace(id))
                    || self.may_be_hidden(array, is_another)
            });
            let member = self.members.values().any(|m| m.replica.as_ref() == Some(&replica.id));
            let in_repair = self.repairs.values().any(|repair| {
                let named = |m: &Member| m.replica.as_ref() == Some(&replica.id);
                repair.incoming.as_ref().is_some_and(|incoming| incoming.id == replica.id)
                    || repair.rejected.iter().any(|(rejected, _)| *rejected == replica.id)
                    || repair.lost.as_ref().is_some_and(named)
                    || repair.also_retire.iter().any(named)
            });
            let given_up = self.owed.iter().any(|owed| {
                owed.replica == replica.id
                    && match &owed.message {
                        OwedMessage::Report(Condition::Missing | Condition::Unusable { .. })
                        | OwedMessage::Removed => true,
                        OwedMessage::Report(Condition::Synchronizing | Condition::Available) => {
                            false
                        }
                    }
            });
            bound || member || in_repair || given_up
        };
        volume.replicas.iter().find(|r| r.state.is_offered() && !taken(r)).cloned()
    }

    /// Good legs whose replicas the provisioner wants out.
    fn begin_terminating(&mut self, now: Now) {
        let (Some(volume), Some(array)) = (self.volume.known(), self.snapshot()) else {
            return;
        };
        if volume.copies < array.raid_disks {
            return; // Fewer copies are wanted: begin_resize.
        }
        if self.has_unseen_loss(array) {
            self.recheck = true; // A loss that nobody has taken up yet goes first.
            return;
        }
        let leaving: Vec<Slot> = (0..array.raid_disks)
            .map(Slot)
            .filter(|slot| !self.repairs.contains_key(slot))
            .filter(|slot| matches!(slot_view(array, *slot), SlotView::Good(_)))
            .filter(|slot| {
                let replica = self.members.get(slot).and_then(|member| member.replica.as_ref());
                replica
                    .and_then(|id| volume.replica(id))
                    .is_some_and(|replica| replica.state == ReplicaState::Terminating)
            })
            .collect();
        for slot in leaving {
            self.signal(now, slot, Signal::ReplicaTerminating);
            // The provisioner may have named the new replica in the same answer.
            if let Some(signal) = self.volume_signal(slot) {
                self.signal(now, slot, signal);
            }
        }
    }

    /// Whether a slot is without its leg and nobody has taken that up yet.
    pub(super) fn has_unseen_loss(&self, array: &ArraySnapshot) -> bool {
        (0..array.raid_disks).map(Slot).any(|slot| {
            let empty = matches!(slot_view(array, slot), SlotView::Failed | SlotView::Vacant);
            empty && !self.repairs.contains_key(&slot)
        })
    }

    /// More or fewer copies, only ever begun on an array that is whole.
    fn begin_resize(&mut self, now: Now) {
        let (Some(volume), Some(array)) = (self.volume.known(), self.snapshot()) else {
            return;
        };
        let whole = self.repairs.is_empty()
            && (0..array.raid_disks)
                .all(|slot| matches!(slot_view(array, Slot(slot)), SlotView::Good(_)));
        if !whole || array.level != Level::Raid1 {
            return;
        }
        if volume.copies > array.raid_disks {
            if let Some(replica) = self.newcomer(volume) {
                let slot = Slot(array.raid_disks);
                self.signal(now, slot, Signal::MoreCopies(Box::new(replica)));
            }
        } else if volume.copies < array.raid_disks {
            let surplus = (0..array.raid_disks).map(Slot).rev().find(|slot| {
                let member = self.members.get(slot).filter(|member| member.replica.is_some());
                member.is_some_and(|member| self.is_leaving(member))
            });
            if let Some(slot) = surplus {
                self.signal(now, slot, Signal::FewerCopies);
            }
        }
    }

    /// Whether the lost replica may be taken back: not if the last known word on it is bad.
    pub(super) fn may_return(&self, repair: &Repair) -> bool {
        match &self.standing {
            Standing::Unprovisioned => self.policy.re_add,
            Standing::Undecided | Standing::NotOurs(_) => false,
            Standing::Managed => {
                let Some(volume) = self.volume.known() else {
                    return false;
                };
                let replica = repair.lost.as_ref().and_then(|lost| lost.replica.as_ref());
                let listed = replica.and_then(|id| volume.replica(id));
                listed.is_some_and(|replica| !replica.state.is_leaving())
            }
        }
    }

    /// The array's presence, as far as it is known.
    pub(super) fn is_gone(&self) -> bool {
        matches!(self.array, Observed::Known(None))
    }
}

/// Whether a held repair goes on when the provisioner offers a replica by itself.
fn takes_offers(repair: &Repair) -> bool {
    let Phase::Held { why, then, .. } = &repair.phase else {
        return false;
    };
    match why {
        HeldWhy::Refused { .. } | HeldWhy::Rejected { .. } => true,
        HeldWhy::StepFailed { .. }
        | HeldWhy::OneAtATime { .. }
        | HeldWhy::Budget
        | HeldWhy::Flapping { .. } => {
            matches!(then, Step::Request { .. } | Step::Grace)
        }
        HeldWhy::Operator { .. }
        | HeldWhy::Observing
        | HeldWhy::NoProvisioner
        | HeldWhy::ArrayState(_)
        | HeldWhy::ArrayBusy
        | HeldWhy::Guard { .. }
        | HeldWhy::HostCutOff { .. }
        | HeldWhy::NotDurable { .. } => false,
    }
}
