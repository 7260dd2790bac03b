//! Legs with blocks that MD must not read: they look whole and are not.
//!
//! A write that failed for a moment leaves an entry in a leg's bad-block list. The leg stays in
//! sync, MD reads those blocks from elsewhere, and nothing in `/proc/mdstat` shows that one copy of
//! them is missing. Two things make it whole again:
//!
//! ```text
//!                    ┌── the application writes there, and MD clears the entry ──► whole, nothing asked
//!   found ──► grace ─┤
//!                    └── nobody does ──► ask for a replacement ──► copy beside the old leg ──► it goes
//! ```
//!
//! The copy is MD's own replacement (`--replace`): the old leg serves until its successor is
//! complete, so redundancy is never less than it is now, and MD reads what the old one lacks from
//! another leg (`raid1_sync_request`). MD's `repair` is *not* a cure. It writes to such blocks from
//! pages that nobody has filled and then clears the list (`process_checks`; shown by the lab's
//! `lab-repair`).
//!
//! The price: a leg beside which no full copy stands is left as it is (G1), and what was replaced
//! is not given up while neither its successor nor another leg is known to hold every block. Both
//! wait for a person or for a write.

use heal_types::{ArraySnapshot, LegFlag, LegSnapshot, Now, Observed, Slot};

use crate::audit::{AuditKind, Severity};
use crate::guards;
use crate::phase::Repair;
use crate::signal::Signal;
use crate::view::{SlotView, leg_of, slot_view};
use crate::why::Cause;

use super::{ArrayMachine, Standing};

impl ArrayMachine {
    /// Says once of each leg that it is no full copy, and once that it is one again.
    pub(super) fn note_bad_blocks(&mut self, now: Now) {
        let ours = match self.standing {
            Standing::Managed | Standing::Unprovisioned => true,
            Standing::Undecided | Standing::NotOurs(_) => false,
        };
        let Some(array) = self.snapshot().filter(|_| ours) else { return };
        let bad: Vec<(Slot, String, bool)> = array
            .legs
            .iter()
            .filter(|leg| has_bad_blocks(leg))
            .filter_map(|leg| Some((leg.slot?, leg.device.to_string())))
            .map(|(slot, device)| (slot, device, guards::is_held_elsewhere(array, slot)))
            .collect();
        let good = |slot: Slot| {
            let mut legs = array.legs.iter().filter(|leg| leg.slot == Some(slot));
            legs.any(|leg| leg.is_in_sync() && leg.bad_blocks == Observed::Known(false))
        };
        let still = |slot: Slot| bad.iter().any(|(other, ..)| *other == slot);
        let healed = self.bad_slots.iter().copied().filter(|slot| good(*slot) && !still(*slot));
        for slot in healed.collect::<Vec<_>>() {
            self.bad_slots.remove(&slot);
            let text = format!("{}: slot {slot}: every block is readable again", self.name());
            self.tell_slot(now, AuditKind::BadBlocksHealed, Severity::Notice, text, slot);
        }
        for (slot, device, held_elsewhere) in bad {
            if self.bad_slots.insert(slot) {
                let (severity, beside) = if held_elsewhere {
                    (Severity::Warning, "")
                } else {
                    (Severity::Critical, ", and no other leg is known to hold every block")
                };
                let text = format!(
                    "{}: slot {slot}: {device} has blocks that MD must not read{beside}: it is no full \
                     copy until they are written or it is replaced. Start no repair of the array, which \
                     would fill them with anything",
                    self.name()
                );
                self.tell_slot(now, AuditKind::BadBlocksFound, severity, text, slot);
            }
        }
    }

    /// Legs that are no full copies, beside one that is.
    pub(super) fn begin_bad_blocks(&mut self, now: Now) {
        let Some(array) = self.snapshot().filter(|_| !self.blind) else { return };
        if self.has_unseen_loss(array) {
            return; // That goes first.
        }
        let lacking: Vec<Slot> = (0..array.raid_disks)
            .map(Slot)
            .filter(|slot| !self.repairs.contains_key(slot))
            .filter(|slot| {
                let SlotView::Good(leg) = slot_view(array, *slot) else { return false };
                let who = self.members.get(slot).and_then(|member| member.replica.as_ref());
                has_bad_blocks(leg) && who.is_some()
            })
            .filter(|slot| guards::is_held_elsewhere(array, *slot))
            .collect();
        for slot in lacking {
            self.signal(now, slot, Signal::BadBlocks);
        }
    }

    /// Whether nobody is known to have what a leg that is to be replaced lacks. Then it stays, and
    /// no successor is asked for.
    pub(super) fn waits_for_full_copy(&self, repair: &Repair) -> bool {
        let held = |array| guards::is_held_elsewhere(array, repair.slot);
        repair.cause == Cause::BadBlocks && !self.snapshot().is_some_and(held)
    }

    /// Whether what a slot's new leg replaced may hold the only copy of some block.
    pub(super) fn lacks_blocks(&self, array: &ArraySnapshot, slot: Slot) -> bool {
        let mut legs = array.legs.iter().filter(|leg| leg.slot == Some(slot) && !leg.is_faulty());
        let lacking = legs.any(|leg| leg.bad_blocks != Observed::Known(false));
        lacking && !guards::is_held_elsewhere(array, slot)
    }
}

/// Every block of the leg that was to be replaced was written meanwhile: nothing is asked for. A
/// spare, or what MD fills beside a leg, may be a successor that came to nothing or is about to
/// take the place all the same: that takes the whole way.
pub(super) fn blocks_are_back(array: &ArraySnapshot, repair: &Repair) -> Option<Signal> {
    let leg = leg_of(array, &repair.lost.as_ref()?.namespace?)?;
    let is_successor = |leg: &LegSnapshot| {
        leg.is_spare() || (leg.flags.has(LegFlag::Replacement) && !leg.is_faulty())
    };
    let back = leg.is_in_sync()
        && leg.bad_blocks == Observed::Known(false)
        && !array.legs.iter().any(is_successor);
    (repair.cause == Cause::BadBlocks && back).then_some(Signal::NoLongerNeeded)
}

/// Every block of the leg that was to be replaced was written before MD had anything of its
/// successor: that one is put away like the offer for a leg that came back.
pub(super) fn stays_after_all(array: &ArraySnapshot, repair: &Repair) -> bool {
    let own = repair.lost.as_ref().and_then(|lost| lost.namespace);
    let in_its_slot = array.leg_in(repair.slot).zip(own);
    let stands = in_its_slot.is_some_and(|(leg, id)| leg.is_namespace(&id));
    let bound = array.legs.iter().filter(|leg| leg.slot == Some(repair.slot)).count() > 1;
    stands && !bound && blocks_are_back(array, repair).is_some()
}

fn has_bad_blocks(leg: &LegSnapshot) -> bool {
    leg.is_in_sync() && leg.bad_blocks == Observed::Known(true)
}
