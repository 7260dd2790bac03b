//! What an act is done to is what was meant, and MD lets it be changed.
//!
//! The kernel refuses much of this by itself, the real one and the fake. A guard that leans on that
//! is no guard, so these rules ask before the kernel does.

use heal_types::{DeviceIdentity, HostAction, Observed};

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
        | HostAction::RewriteBadBlocks { .. }
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
        | HostAction::RewriteBadBlocks { .. }
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
