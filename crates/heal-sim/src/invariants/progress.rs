//! One array in trouble is one array in trouble.

use heal_types::status::Health;

use super::{Checked, Violation};
use crate::World;

/// While every other array of the host stays as it is, with its faults, this one is whole, or stands
/// still for a reason of its own.
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
        Health::Held | Health::Healing => Err(format!("{name}: {}", status.summary)),
    }
}

/// At least one disk of the array, wherever it is, holds the newest acknowledged version of each
/// block: whatever else is lost, a person can still find it.
///
/// # Errors
/// The block of which there is no copy left.
pub fn a_copy_of_every_block_exists(world: &World) -> Checked {
    world.kernel.copyless_block().map_or(Ok(()), Err)
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
