//! Whose slot it is, and whose loss: MD, other hands and earlier lives put legs where they like.
//!
//! ```text
//!   the provisioner's book                      the array
//!
//!   A ──► D   granted for A, which has to go    slot 0   A, still good: who replaces it now?
//!   B         lost                              slot 1   D: MD filled the empty slot with it
//!
//!   asked for: A's successor?  it is D, for ever.   B's successor? E ─► slot 0.  Then A and B are given up.
//! ```
//!
//! The provisioner counts by replicas: one lost replica has one successor until its removal is
//! confirmed. MD counts by slots, and fills the first empty one. Where the two have parted, nothing
//! is undone: the repair that is left without what was granted for it asks for the successor of the
//! one whose place was taken ([`Repair::asks_for`]), and keeps that one listed until it is done
//! itself.
//!
//! The price: a replica that is long out of the array is given up later than it could be.

use heal_types::{
    ArraySnapshot, Condition, LegFlag, LegSnapshot, NamespaceId, Now, Replica, ReplicaState, Slot,
};

use crate::phase::{Phase, PhaseKind, Repair};
use crate::record::{Member, OwedMessage, Step};
use crate::signal::Signal;
use crate::view::{is_nameless, leg_of};
use crate::why::{Cause, HeldWhy};

use super::ArrayMachine;

impl ArrayMachine {
    /// Losses of which nobody could tell whose they were: the array, or the volume, may show it by
    /// now.
    pub(super) fn name_losses(&mut self, now: Now) {
        let unnamed = |repair: &&Repair| {
            let waits = match &repair.phase {
                Phase::Grace => true,
                Phase::Held { then, .. } => matches!(then, Step::Grace | Step::Request { .. }),
                Phase::Suspect { .. }
                | Phase::Isolating { .. }
                | Phase::Reporting
                | Phase::Returning { .. }
                | Phase::Requesting { .. }
                | Phase::Connecting { .. }
                | Phase::Verifying { .. }
                | Phase::Adding { .. }
                | Phase::Rebuilding { .. }
                | Phase::Retiring { .. }
                | Phase::Quarantined { .. } => false,
            };
            waits && repair.cause == Cause::LegLost && repair.lost.is_none()
        };
        let slots: Vec<Slot> =
            self.repairs.values().filter(unnamed).map(|repair| repair.slot).collect();
        for slot in slots {
            // One that is only offered is not who was lost.
            let offered = |member: &Member| {
                let listed =
                    member.replica.as_ref().and_then(|id| self.volume.known()?.replica(id));
                listed.is_none_or(|replica| replica.state == ReplicaState::Synchronizing)
            };
            let Some(missing) = self.missing_replica().filter(|member| !offered(member)) else {
                return;
            };
            self.owe(now, Some(&missing), OwedMessage::Report(Condition::Missing));
            let Some(repair) = self.repairs.get_mut(&slot) else { return };
            repair.lost = Some(missing);
            self.dirty = true;
            if let Phase::Held { why: HeldWhy::Guard { .. }, wants: None, .. } = &repair.phase {
                self.signal(now, slot, Signal::HoldEnded);
            }
        }
    }

    /// MD gives a new leg the first empty slot, whichever repair it was meant for: the repair
    /// follows its leg, and trades slots with the one that was waiting there.
    pub(super) fn follow_slots(&mut self, now: Now, array: &ArraySnapshot) {
        let moved: Vec<(Slot, Slot)> = self
            .repairs
            .values()
            .filter_map(|repair| {
                let id = on_its_way(repair)?;
                let leg = leg_of(array, &id).filter(|leg| !leg.is_faulty())?;
                // For a wish that an error left there MD copies a leg which is still in its slot.
                let copies = leg.flags.has(LegFlag::Replacement) && repair.cause == Cause::LegLost;
                let slot = leg.slot.filter(|_| !copies)?;
                (slot != repair.slot).then_some((repair.slot, slot))
            })
            .collect();
        for (from, to) in moved {
            self.take_up_unseen_loss(now, array, to);
            self.trade_slots(array, from, to);
            self.dirty = true;
        }
    }

    /// A slot that another's leg was put into may have lost its own behind everybody's back.
    fn take_up_unseen_loss(&mut self, now: Now, array: &ArraySnapshot, slot: Slot) {
        let held = self.members.get(&slot).and_then(|member| member.namespace);
        let serves = |leg: &LegSnapshot| leg.is_in_sync() || leg.is_recovering();
        let lost = held.is_some_and(|id| !leg_of(array, &id).is_some_and(serves));
        // One that serves and cannot be named may be it.
        let hidden = array.legs.iter().any(|leg| !leg.is_faulty() && is_nameless(leg));
        if !lost || hidden || self.repairs.contains_key(&slot) {
            return;
        }
        self.open_repair(now, slot, &Signal::LegFailed);
        self.carry_loss(now, slot, PhaseKind::Whole);
    }

    fn trade_slots(&mut self, array: &ArraySnapshot, from: Slot, to: Slot) {
        let Some(mut repair) = self.repairs.remove(&from) else { return };
        let Some(mut waiting) = self.repairs.remove(&to) else {
            repair.slot = to;
            self.repairs.insert(to, repair);
            return;
        };
        let own = on_its_way(&waiting).and_then(|id| leg_of(array, &id));
        let filled = own.is_some_and(|leg| !leg.is_faulty());
        std::mem::swap(&mut repair.slot, &mut waiting.slot);
        if repair.cause != waiting.cause {
            if matches!(waiting.phase, Phase::Rebuilding { .. }) && !filled {
                // What MD fills had no name yet, and is the other one's: nothing is on its way here.
                waiting.phase = Phase::Grace;
            }
            // Only the replacement changes sides: what each slot lost, or has to give up, stays.
            std::mem::swap(&mut repair.cause, &mut waiting.cause);
            std::mem::swap(&mut repair.lost, &mut waiting.lost);
            std::mem::swap(&mut repair.began, &mut waiting.began);
            std::mem::swap(&mut repair.grace, &mut waiting.grace);
            std::mem::swap(&mut repair.return_after, &mut waiting.return_after);
            let fills = repair.lost.clone().filter(|lost| lost.replica.is_some());
            if let Some(filled) = fills.filter(|_| waiting.cause.moves_leg()) {
                // For the provisioner it replaces the leg that had to go, and nothing replaces this
                // loss.
                repair.asks_for = None;
                ask_instead(&mut waiting, filled);
            }
        }
        self.repairs.insert(repair.slot, repair);
        self.repairs.insert(waiting.slot, waiting);
    }

    /// What was granted for this slot's loss may be a good leg in another slot: MD, or another
    /// hand, put it there, or an earlier life did and nobody remembers. Then that loss was made
    /// good, and it is another one that is still to be replaced: whom that leg replaced, or else
    /// who is missing.
    pub(super) fn was_made_good(&mut self, slot: Slot, replica: &Replica) -> bool {
        let leg = self.snapshot().and_then(|array| leg_of(array, &replica.target.namespace));
        let held = leg.filter(|leg| leg.is_in_sync()).and_then(|leg| leg.slot);
        let Some(held) = held.filter(|held| *held != slot) else { return false };
        if self.goes_by_another_name(replica) {
            return false;
        }
        if self.asks_on_behalf_of(slot, held) {
            return true;
        }
        let Some(other) = self.missing_replica() else { return false };
        let Some(repair) = self.repairs.get_mut(&slot) else { return false };
        let guessed = repair.lost.as_ref().is_some_and(|lost| lost.device.is_none());
        if repair.cause == Cause::LegLost && guessed && repair.asks_for.is_none() {
            repair.also_retire.extend(repair.lost.replace(other));
        } else {
            // A leg that was seen in this slot is the one that it lost, whatever was granted for
            // it.
            ask_instead(repair, other);
        }
        self.dirty = true;
        true
    }

    /// An answer that gives a leg's namespace to another replica tells nothing about that leg.
    fn goes_by_another_name(&self, replica: &Replica) -> bool {
        let another = |member: &Member| {
            member.namespace == Some(replica.target.namespace)
                && member.replica.as_ref().is_some_and(|id| *id != replica.id)
        };
        let lost = |repair: &Repair| repair.lost.iter().any(another);
        self.members.values().any(another) || self.repairs.values().any(lost)
    }

    /// Asks for whom another slot lost, where what was granted for this one took that place.
    pub(super) fn asks_on_behalf_of(&mut self, slot: Slot, other: Slot) -> bool {
        let theirs = self.repairs.get(&other).filter(|repair| repair.cause == Cause::LegLost);
        let filled = theirs.and_then(|repair| repair.lost.clone());
        let (Some(filled), Some(repair)) = (filled, self.repairs.get_mut(&slot)) else {
            return false;
        };
        if filled.replica.is_none() || filled.replica.as_ref() == repair.asks_to_replace() {
            return false;
        }
        ask_instead(repair, filled);
        self.dirty = true;
        true
    }

    /// The provisioner does not know whom it is asked to replace: then it is the one whom that one
    /// was to replace, or another one that is missing.
    pub(super) fn asks_for_who_is_missing(&mut self, slot: Slot) -> bool {
        if let Some(before) = self.whom_it_replaced(slot) {
            let Some(repair) = self.repairs.get_mut(&slot) else { return false };
            repair.asks_for = Some(before);
            self.dirty = true;
            return true;
        }
        let Some(other) = self.missing_replica() else { return false };
        let Some(repair) = self.repairs.get_mut(&slot) else { return false };
        ask_instead(repair, other);
        self.dirty = true;
        true
    }

    /// Whose successor this slot asks for may be a good leg again: then it asks for its own.
    pub(super) fn asks_no_more_for_who_is_back(&mut self, slot: Slot) {
        let asked = self.repairs.get(&slot).and_then(|repair| repair.asks_for.as_ref()?.namespace);
        let leg = asked.zip(self.snapshot()).and_then(|(id, array)| leg_of(array, &id));
        let back = leg.is_some_and(LegSnapshot::is_in_sync);
        if let Some(repair) = self.repairs.get_mut(&slot).filter(|_| back) {
            repair.asks_for = None;
            repair.request = None;
            self.dirty = true;
        }
    }

    /// One that this slot lost earlier, and that the provisioner still lists and counts as lost, or
    /// as one that has to go.
    fn whom_it_replaced(&self, slot: Slot) -> Option<Member> {
        let repair = self.repairs.get(&slot)?;
        let volume = self.volume.known()?;
        let wants_another = |member: &&Member| {
            let listed = member.replica.as_ref().and_then(|id| volume.replica(id));
            let lost = listed.is_some_and(|replica| !replica.state.is_offered());
            lost && member.replica.as_ref() != repair.asks_to_replace()
        };
        repair.also_retire.iter().rev().find(wants_another).cloned()
    }
}

/// From now on `repair` asks for the successor of `filled`, another slot's loss, and puts that one
/// away with its own: the provisioner replaces no one whose removal was confirmed.
fn ask_instead(repair: &mut Repair, filled: Member) {
    repair.also_retire.push(filled.clone());
    repair.asks_for = Some(filled);
}

/// The namespace that a repair is bringing into its slot, or back into it. A leg that returns goes
/// to the slot it had, which may be another repair's by now; what was granted meanwhile stays
/// behind.
fn on_its_way(repair: &Repair) -> Option<NamespaceId> {
    let incoming = repair.incoming.as_ref().map(|incoming| incoming.target.namespace);
    match &repair.phase {
        Phase::Returning { device, .. } => Some(device.namespace),
        Phase::Rebuilding { .. } => incoming.or_else(|| repair.lost.as_ref()?.namespace),
        Phase::Suspect { .. }
        | Phase::Isolating { .. }
        | Phase::Reporting
        | Phase::Grace
        | Phase::Requesting { .. }
        | Phase::Connecting { .. }
        | Phase::Verifying { .. }
        | Phase::Adding { .. }
        | Phase::Retiring { .. }
        | Phase::Held { .. }
        | Phase::Quarantined { .. } => incoming,
    }
}
