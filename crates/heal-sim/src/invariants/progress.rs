//! One array in trouble is one array in trouble.

use std::time::Duration;

use heal_core::record::{RepairRecord, Step};
use heal_core::why::Cause;
use heal_types::status::Health;
use heal_types::{ArrayId, Moment};

use super::explained::Trouble;
use super::{Checked, Checker, Violation};
use crate::World;
use crate::world::setup::ArrayPlan;

/// While every other array of the host stays as it is, with its faults, this one is whole, or
/// stands still for a reason of its own.
///
/// # Errors
/// What it waits for.
pub fn other_arrays_progress(world: &World, name: &str) -> Checked {
    let Some(plan) = world.arrays.iter().find(|plan| plan.name == name) else { return Ok(()) };
    let Some(machine) = world.machine(plan.id) else { return Ok(()) };
    let status = machine.status(world.now());
    match status.health {
        Health::Optimal | Health::Observed | Health::Quarantined => Ok(()),
        Health::Held if !world.waits_for_others(plan.id) => Ok(()),
        // Its replica serves another volume: as long as it does, it is not given up.
        Health::Healing if world.checker.had(Trouble::Contract) && serves_another(world, plan) => {
            Ok(())
        }
        Health::Held | Health::Healing => Err(format!("{name}: {}", status.summary)),
    }
}

/// Whether a replica of that array is a leg of another one.
fn serves_another(world: &World, plan: &ArrayPlan) -> bool {
    plan.replicas.iter().any(|replica| {
        let leg = world.kernel.leg_of_replica(&replica.namespace, &replica.nqn);
        leg.is_some_and(|leg| leg.array != plan.id)
    })
}

/// So many moves the repairs of an array may make within [`MOVES_PER`].
const MOVES: u32 = 200;
const MOVES_PER: Duration = Duration::from_secs(60);

/// How long it may take until a path that is back is known to be good: its controller connects
/// anew, every ten seconds.
const FOUND_GOOD: Duration = Duration::from_secs(15);

/// How late a machine may be for the end of a grace period.
const LATE: Duration = Duration::from_secs(1);

/// Whoever waits for a moment wakes at that moment, and does not rely on being disturbed. A machine
/// whose last look showed nothing, or a leg of which nobody could tell which it is, is waiting for
/// the next one.
///
/// # Errors
/// Which slot was slept through.
pub fn no_grace_is_slept_through(world: &World, array: ArrayId) -> Checked {
    let named = world.kernel.every_leg_has_a_name(array, &world.nameless);
    let seen = world.blurred.is_empty() && named && world.kernel.picture(array).is_some();
    let record = world.newest_record(array).filter(|record| record.quarantine.is_none());
    let Some(record) = record.filter(|_| seen && world.machine(array).is_some()) else {
        return Ok(());
    };
    let now = world.now().mono;
    let slept = record.repairs.iter().filter(|repair| matches!(repair.step, Step::Grace));
    // One that lacks blocks waits for a leg that has them, however long that takes, and that there
    // is one now has to be heard, and its path to be found good.
    let found_out = world.checker.hurt_at.is_none_or(|at| now.since(at) > FOUND_GOOD);
    let may_go = |repair: &RepairRecord| {
        let is_full = world.kernel.is_full_beside(array, repair.slot.0);
        let heard_of = !world.feed.is_deaf() && found_out && is_full;
        repair.cause != Cause::BadBlocks || heard_of
    };
    let mut slept = slept.filter(|repair| may_go(repair)).filter(|repair| {
        let grace = repair.grace.as_ref().filter(|grace| grace.boot == world.boot);
        grace.is_some_and(|grace| now.since(grace.mono) > LATE)
    });
    // A leg that is being taken back stands in the record as one that is waited for.
    let waits = |slot: u16| {
        let status = world.machine(array).map(|machine| machine.status(world.now()));
        let repairs = status.map(|status| status.repairs).unwrap_or_default();
        repairs.iter().any(|repair| repair.slot == slot && repair.phase == "grace")
    };
    match slept.find(|repair| waits(repair.slot.0)) {
        Some(repair) => Err(format!("slot {}: its grace is over for a while", repair.slot)),
        None => Ok(()),
    }
}

/// At least one disk of the array, wherever it is, holds the newest acknowledged version of each
/// block: whatever else is lost, a person can still find it. What the provisioner was let delete
/// holds nothing any more, unless nobody could have known that the array ran from the wrong leg.
///
/// # Errors
/// The block of which there is no copy left.
pub fn a_copy_of_every_block_exists(world: &World) -> Checked {
    let unknowing = |array| world.checker.unknowing.contains(&array);
    world.kernel.copyless_block(unknowing).map_or(Ok(()), Err)
}

impl Checker {
    /// A repair of that array moved: an array makes no more than so many moves in a minute,
    /// whatever is done to it, or somebody goes round in a circle and fills the journal.
    pub(super) fn moved(&mut self, array: ArrayId, now: Moment) -> Checked {
        let (since, count) = self.moves.entry(array).or_insert((now, 0));
        if now.since(*since) >= MOVES_PER {
            (*since, *count) = (now, 0);
        }
        *count += 1;
        // Said once a minute.
        if *count == MOVES + 1 {
            Err(format!("more than {MOVES} moves in a minute"))
        } else {
            Ok(())
        }
    }
}

impl World {
    /// After an event was carried out.
    pub(crate) fn check_event(&mut self) {
        if self.violations().iter().any(|v: &Violation| v.name == "a_copy_of_every_block_exists") {
            return;
        }
        let copy = a_copy_of_every_block_exists(self);
        self.expect("a_copy_of_every_block_exists", copy);
    }
}
