//! What an act is done to is what was meant, and MD lets it be changed.
//!
//! The kernel refuses much of this by itself, the real one and the fake. A guard that leans on that
//! is no guard, so these rules ask before the kernel does.

use heal_types::{Content, DeviceIdentity, HostAction, Observed, Replica};

use super::Checked;
use crate::World;

/// The device that is given to an array is, at this moment, the one that was meant: by number,
/// sequence number, subsystem and namespace.
///
/// # Errors
/// What is there instead.
pub fn never_acts_on_another_device(world: &World, action: &HostAction) -> Checked {
    match given(action) {
        Some(meant) => world.kernel.is_that_device(meant),
        None => Ok(()),
    }
}

/// An array that is frozen, read-only or broken is not changed.
///
/// # Errors
/// How it is.
pub fn changes_only_what_md_lets_change(world: &World, action: &HostAction) -> Checked {
    let array = match action {
        HostAction::FailLeg { array, .. }
        | HostAction::RemoveLeg { array, .. }
        | HostAction::ReAddLeg { array, .. }
        | HostAction::AddLeg { array, .. }
        | HostAction::ReplaceLeg { array, .. }
        | HostAction::IsolateLeg { array, .. }
        | HostAction::DeleteController { array, .. }
        | HostAction::SetRaidDisks { array, .. } => array,
        HostAction::Connect { .. }
        | HostAction::Examine { .. }
        | HostAction::ClearWantReplacement { .. }
        | HostAction::SetFastIoFail { .. }
        | HostAction::CutPath { .. }
        | HostAction::Reconnect { .. }
        | HostAction::Disconnect { .. } => return Ok(()),
    };
    match world.kernel.forbids_change(*array) {
        Some(why) => Err(format!("{} while the array is {why}", action.verb())),
        None => Ok(()),
    }
}

fn given(action: &HostAction) -> Option<&DeviceIdentity> {
    match action {
        HostAction::AddLeg { device, .. }
        | HostAction::ReAddLeg { device, .. }
        | HostAction::ReplaceLeg { to: device, .. }
        | HostAction::Examine { device } => Some(device),
        HostAction::Connect { .. }
        | HostAction::FailLeg { .. }
        | HostAction::RemoveLeg { .. }
        | HostAction::ClearWantReplacement { .. }
        | HostAction::SetRaidDisks { .. }
        | HostAction::SetFastIoFail { .. }
        | HostAction::IsolateLeg { .. }
        | HostAction::CutPath { .. }
        | HostAction::DeleteController { .. }
        | HostAction::Reconnect { .. }
        | HostAction::Disconnect { .. } => None,
    }
}

impl crate::FakeKernel {
    fn is_that_device(&self, meant: &DeviceIdentity) -> Checked {
        let found = self.devices.iter().find(|d| d.present && d.name == meant.device);
        let Some(found) = found else { return Err(format!("{} is gone", meant.device)) };
        let same = found.dev == meant.dev
            && Observed::Known(found.diskseq) == meant.diskseq
            && found
                .fabric
                .as_ref()
                .is_some_and(|head| head.nqn == meant.nqn && head.ids.contains(&meant.namespace));
        if same { Ok(()) } else { Err(format!("{} is another disk", meant.device)) }
    }

    fn forbids_change(&self, array: heal_types::ArrayId) -> Option<String> {
        let md = &self.arrays[self.array_index(array)?];
        if md.frozen {
            Some("frozen".to_owned())
        } else if md.broken || !md.state().is_running() {
            Some(md.state().to_string())
        } else {
            None
        }
    }
}

/// The leg an action takes something from must not be the last one that holds every block.
///
/// # Errors
/// What would be left.
pub fn never_acts_on_last_in_sync_leg(world: &World, action: &HostAction) -> Checked {
    let (array, leg) = match action {
        HostAction::FailLeg { array, leg, .. }
        | HostAction::RemoveLeg { array, leg }
        | HostAction::IsolateLeg { array, leg, .. }
        | HostAction::DeleteController { array, leg, .. }
        | HostAction::ReplaceLeg { array, from: leg, .. } => (*array, Some(&leg.device)),
        HostAction::SetRaidDisks { array, .. } => (*array, None),
        HostAction::Connect { .. }
        | HostAction::Examine { .. }
        | HostAction::ReAddLeg { .. }
        | HostAction::AddLeg { .. }
        | HostAction::ClearWantReplacement { .. }
        | HostAction::SetFastIoFail { .. }
        | HostAction::CutPath { .. }
        | HostAction::Reconnect { .. }
        | HostAction::Disconnect { .. } => return Ok(()),
    };
    // A leg that is not bound any more is not taken.
    if leg.is_some_and(|leg| !world.kernel.is_bound_as(array, leg)) {
        return Ok(());
    }
    // MD fails none twice: whoever heard late of that failure changes nothing.
    if let HostAction::FailLeg { leg, .. } = action
        && world.kernel.is_faulty(array, &leg.device)
    {
        return Ok(());
    }
    let copies_first = match action {
        HostAction::ReplaceLeg { .. } => true,
        // Who survives is not failed by this: it queues, whatever becomes of it.
        HostAction::IsolateLeg { leg, .. } | HostAction::DeleteController { leg, .. } => {
            world.kernel.in_sync_beside(array, &leg.device) > 0
        }
        // MD reads nothing from a device that is gone, and fails it at the next write: that the
        // others do not answer may be what nobody could hear of.
        HostAction::FailLeg { leg, .. } if world.kernel.is_gone(array, &leg.device) => {
            world.kernel.in_sync_beside(array, &leg.device) > 0
        }
        // MD has failed it already and reads it no more: unbound, it holds what it held, and
        // whether anybody reaches the others at this moment is nothing to it.
        HostAction::RemoveLeg { leg, .. } if world.kernel.is_faulty(array, &leg.device) => {
            leg.slot.is_none() || world.kernel.in_sync_beside(array, &leg.device) > 0
        }
        HostAction::Connect { .. }
        | HostAction::Examine { .. }
        | HostAction::FailLeg { .. }
        | HostAction::RemoveLeg { .. }
        | HostAction::ReAddLeg { .. }
        | HostAction::AddLeg { .. }
        | HostAction::ClearWantReplacement { .. }
        | HostAction::SetRaidDisks { .. }
        | HostAction::SetFastIoFail { .. }
        | HostAction::CutPath { .. }
        | HostAction::Reconnect { .. }
        | HostAction::Disconnect { .. } => false,
    };
    if copies_first || world.kernel.good_legs_beside(array, leg) > 0 {
        Ok(())
    } else {
        Err(format!("{} with no other good leg", action.verb()))
    }
}

/// A device is added only after its content was read, and only if nothing foreign stands on it.
/// Taking back reads what stands there by itself, and takes nothing foreign: the port's contract.
///
/// # Errors
/// What stands on it, or whose it is.
pub fn never_adds_unverified_device(world: &World, action: &HostAction) -> Checked {
    let (HostAction::AddLeg { array, device } | HostAction::ReAddLeg { array, device, .. }) =
        action
    else {
        return Ok(());
    };
    if let HostAction::AddLeg { .. } = action {
        has_nothing_foreign(world, *array, device)?;
    }
    let promised = world.arrays.iter().filter(|plan| plan.id == *array).any(|plan| {
        plan.replicas.iter().any(|r| r.namespace == device.namespace && r.nqn == device.nqn)
    });
    // A spare of another volume, granted for this one, is blank and nobody's, and only the
    // provisioner could know better.
    let granted = world.newest_record(*array).is_some_and(|record| {
        record.repairs.iter().any(|repair| {
            let rejected = |id| repair.rejected.iter().any(|(rejected, _)| rejected == id);
            let incoming = repair.incoming.as_ref().filter(|incoming| !rejected(&incoming.id));
            incoming.is_some_and(|Replica { target, .. }| {
                target.namespace == device.namespace && target.nqn == device.nqn
            })
        })
    });
    if promised || granted { Ok(()) } else { Err(format!("{device} is no replica of that volume")) }
}

fn has_nothing_foreign(
    world: &World,
    array: heal_types::ArrayId,
    device: &DeviceIdentity,
) -> Checked {
    if !world.checker.examined.contains(device) {
        return Err(format!("{device} was never examined"));
    }
    match world.kernel.content_of(&device.device) {
        Some(Content::Blank) | None => Ok(()),
        Some(Content::MdMember(superblock)) if superblock.array == array => Ok(()),
        Some(Content::MdMember(superblock)) => {
            Err(format!("{device} is a leg of {}", superblock.array))
        }
        Some(Content::Foreign(kind)) => Err(format!("{device} has {kind}")),
    }
}
