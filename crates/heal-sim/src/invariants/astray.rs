//! What is armed, and leads to no leg of ours any more.

use std::collections::BTreeSet;

use heal_core::ArrayMachine;
use heal_types::{FastIoFail, Nqn};

use super::Checked;
use crate::World;

/// At the end, where every array is ours to act on: a controller that leads to no leg is set as the
/// kernel sets it. Whatever comes to lead somewhere through it is nobody's to fail fast.
///
/// An earlier life may have armed it and have ended right after it put the leg away, or its record
/// may be torn: then nobody can know.
///
/// # Errors
/// The controller that is armed.
pub fn what_leads_to_no_leg_is_not_armed(world: &World) -> Checked {
    let mut planned = world.arrays.iter().filter(|plan| plan.volume.is_some());
    if planned.any(|plan| !world.machine(plan.id).is_some_and(ArrayMachine::heals)) {
        return Ok(());
    }
    let known = |serial: u64| !world.checker.orphans.contains(&serial);
    let mut astray = world.kernel.armed_without_a_leg().filter(|it| known(it.serial));
    astray.next().map_or(Ok(()), |controller| {
        Err(format!("{} leads to no leg, and its I/O would fail fast", controller.name))
    })
}

impl World {
    /// A life begins: what is armed and stands in no record that can be read may lose its leg
    /// before it is known whose it is.
    pub(crate) fn note_orphans(&mut self) {
        let records = self.arrays.iter().filter_map(|plan| self.record(plan.id));
        let named: BTreeSet<&Nqn> = records
            .flat_map(|record| {
                let lost =
                    record.repairs.iter().flat_map(|it| it.lost.iter().chain(&it.also_retire));
                record.members.iter().map(|(_, member)| member).chain(lost)
            })
            .filter_map(|member| member.nqn.as_ref())
            .collect();
        let armed = self.kernel.controllers.iter().filter(|it| it.fast_io_fail != FastIoFail::Off);
        let orphans = armed.filter(|it| !named.contains(&it.nqn));
        self.checker.orphans = orphans.map(|controller| controller.serial).collect();
    }
}
