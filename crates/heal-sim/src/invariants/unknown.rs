//! What a machine could not see must not move it.
//!
//! A check has what no machine has: it knows which part of the last look was wrong. So it can say
//! whether an act still stands when the wrong part is taken away.

use heal_types::{ArrayId, HostAction, NamespaceId};

use super::Checked;
use crate::World;
use crate::kernel::Blur;

/// Nothing is begun on what the last look could not read. What it could read, and nobody can any
/// more, is for [`no_act_on_unknown`]: the guards ask again on a fresh look.
///
/// # Errors
/// What it could not read.
pub fn no_decision_from_unknown(world: &World, array: ArrayId, action: &HostAction) -> Checked {
    nothing_rests_on(world, &world.blurred, array, action)?;
    match subject(action) {
        Some((device, id)) if world.nameless.contains(device) => {
            nameless(world, action, device, id)
        }
        Some(_) | None => Ok(()),
    }
}

/// Nothing is done, on a fresh look, to what cannot be read at that moment.
///
/// # Errors
/// What cannot be read.
pub fn no_act_on_unknown(world: &World, array: ArrayId, action: &HostAction) -> Checked {
    nothing_rests_on(world, &world.kernel.blurs, array, action)?;
    match subject(action) {
        Some((device, id)) => nameless(world, action, device, id),
        None => Ok(()),
    }
}

fn nameless(
    world: &World,
    action: &HostAction,
    device: &heal_types::DeviceName,
    id: &NamespaceId,
) -> Checked {
    if world.kernel.is_filled_in(device, id) {
        return Ok(());
    }
    Err(format!("{} of {device}, whose ids are not known", action.verb()))
}

fn nothing_rests_on(world: &World, blurs: &[Blur], array: ArrayId, action: &HostAction) -> Checked {
    for blur in blurs {
        match blur {
            Blur::Array(id) if *id == array => {
                return Err(format!("{} on an array that could not be read", action.verb()));
            }
            Blur::Holders(id) if takes(action, id) => {
                return Err(format!("{} of {id}, whose holders are not known", action.verb()));
            }
            Blur::Leg(id) => unreadable_leg(world, array, action, id)?,
            // These lie instead of failing; what follows from them is in the other rules.
            Blur::Array(_) | Blur::Holders(_) | Blur::HalfStopped(_) | Blur::LegGone(_) => {}
        }
    }
    Ok(())
}

/// A leg of which nobody knows whether its device is there is no survivor, and is not failed for
/// it.
fn unreadable_leg(world: &World, array: ArrayId, action: &HostAction, id: &NamespaceId) -> Checked {
    let Some(truth) = world.kernel.leg_of(id).filter(|leg| leg.array == array) else {
        return Ok(());
    };
    let leg = match action {
        HostAction::FailLeg { leg, .. }
        | HostAction::IsolateLeg { leg, .. }
        | HostAction::DeleteController { leg, .. } => leg,
        HostAction::Connect { .. }
        | HostAction::Examine { .. }
        | HostAction::RemoveLeg { .. }
        | HostAction::ReAddLeg { .. }
        | HostAction::AddLeg { .. }
        | HostAction::ReplaceLeg { .. }
        | HostAction::ClearWantReplacement { .. }
        | HostAction::SetRaidDisks { .. }
        | HostAction::SetFastIoFail { .. }
        | HostAction::CutPath { .. }
        | HostAction::Reconnect { .. }
        | HostAction::Disconnect { .. } => return Ok(()),
    };
    // MD fails none twice: what has failed already is not changed.
    let fails = matches!(action, HostAction::FailLeg { .. });
    if fails && world.kernel.is_faulty(array, &leg.device) {
        return Ok(());
    }
    if leg.device == truth.device && !truth.faulty {
        return Err(format!("{} of {}, which could not be read", action.verb(), leg.device));
    }
    let others = world.kernel.in_sync_beside(array, &leg.device);
    let beside = world.kernel.stands_beside(array, &leg.device, &truth.device);
    let counted = usize::from(truth.in_sync && beside);
    if others > counted || others == 0 {
        Ok(()) // Without a survivor at all it is another rule's business.
    } else {
        Err(format!("{} rests on {}, which could not be read", action.verb(), truth.device))
    }
}

/// The device that an action gives to an array.
fn subject(action: &HostAction) -> Option<(&heal_types::DeviceName, &NamespaceId)> {
    match action {
        HostAction::AddLeg { device, .. }
        | HostAction::ReAddLeg { device, .. }
        | HostAction::ReplaceLeg { to: device, .. }
        | HostAction::Examine { device } => Some((&device.device, &device.namespace)),
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

/// Whether the action makes a leg of that namespace.
fn takes(action: &HostAction, id: &NamespaceId) -> bool {
    match action {
        HostAction::AddLeg { device, .. } | HostAction::ReAddLeg { device, .. } => {
            device.namespace == *id
        }
        HostAction::Connect { .. }
        | HostAction::Examine { .. }
        | HostAction::FailLeg { .. }
        | HostAction::RemoveLeg { .. }
        | HostAction::ReplaceLeg { .. }
        | HostAction::ClearWantReplacement { .. }
        | HostAction::SetRaidDisks { .. }
        | HostAction::SetFastIoFail { .. }
        | HostAction::IsolateLeg { .. }
        | HostAction::CutPath { .. }
        | HostAction::DeleteController { .. }
        | HostAction::Reconnect { .. }
        | HostAction::Disconnect { .. } => false,
    }
}
