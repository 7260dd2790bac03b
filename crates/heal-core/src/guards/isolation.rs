//! The guards of everything that takes I/O away from a leg that MD still counts in sync.
//!
//! These acts make the kernel fail what it would otherwise keep for the leg. Done to the wrong leg,
//! or to the last one, they are the loss they should have prevented: an error on the last leg sets
//! `MD_BROKEN`, and every write fails until the array is stopped. So they need more than the
//! others: a witness that nothing gets through, a survivor that is named and proven, and nobody
//! else behind the same controller.

use heal_types::{
    ArraySnapshot, Backing, Bitmap, ControllerRef, ControllerState, LegRef, LegSnapshot,
    NamespaceSnapshot, Observed, PathHealth, PathSnapshot, Slot, SyncAction,
};

use super::{GuardWhy, Guarded, a_good_leg_other_than, changeable, unknown};
use crate::view::leg_health;

/// The member that `leg` names, in its slot and in sync.
pub(super) fn bound<'a>(
    array: &'a ArraySnapshot,
    leg: &LegRef,
) -> Result<&'a LegSnapshot, GuardWhy> {
    let Some(bound) = array.legs.iter().find(|bound| bound.device == leg.device) else {
        return Err(GuardWhy::NotThatDevice { detail: format!("{} is not bound", leg.device) });
    };
    if bound.slot.is_none() || bound.slot != leg.slot || !bound.is_in_sync() {
        return Err(GuardWhy::LegState { detail: bound.flags.to_string() });
    }
    Ok(bound)
}

/// Every controller that leads to a leg.
pub(crate) fn paths_of(leg: &LegSnapshot) -> Result<Vec<ControllerRef>, GuardWhy> {
    let Backing::Namespace(namespace) = &leg.backing else {
        return Err(GuardWhy::LegState { detail: format!("{} has no device", leg.device) });
    };
    let nqn = namespace.nqn.known().ok_or_else(|| unknown("the leg's subsystem"))?;
    let paths = namespace.paths.iter().map(|path| path.controller_ref(nqn));
    paths.collect::<Option<Vec<_>>>().ok_or_else(|| unknown("where a path of the leg leads"))
}

/// Every controller that leads to a leg in sync other than the one in `slot`.
pub(crate) fn survivors_of(
    array: &ArraySnapshot,
    slot: Slot,
) -> Result<Vec<ControllerRef>, GuardWhy> {
    let mut survivors = Vec::new();
    for leg in array.in_sync().filter(|leg| leg.slot != Some(slot)) {
        match &leg.backing {
            Backing::Namespace(_) => survivors.extend(paths_of(leg)?),
            Backing::Local => {}
            Backing::Gone | Backing::Unreadable => return Err(unknown("a surviving leg's device")),
        }
    }
    Ok(survivors)
}

pub(super) fn same_controllers(a: &[ControllerRef], b: &[ControllerRef]) -> bool {
    a.len() == b.len() && a.iter().all(|controller| b.contains(controller))
}

/// What must hold before the application's I/O is freed from a leg: nothing gets through to it, it
/// is nobody else's path, another leg holds every block and its path is up, and the leg that stays
/// is the one that was meant to stay.
pub(super) fn free_from(
    array: &ArraySnapshot,
    namespaces: &[NamespaceSnapshot],
    leg: &LegRef,
    survivors: &[ControllerRef],
) -> Guarded {
    changeable(array)?;
    match array.sync_action {
        // Before a resync is through, "in sync" does not mean equal.
        Observed::Known(SyncAction::Resync) => {
            return Err(GuardWhy::ArrayBusy);
        }
        Observed::Known(
            SyncAction::Idle
            | SyncAction::Recover
            | SyncAction::Check
            | SyncAction::Repair
            | SyncAction::Reshape
            | SyncAction::Frozen,
        )
        | Observed::Unknown(_) => {}
    }
    match array.bitmap {
        Observed::Known(Bitmap::Present) => {}
        Observed::Known(Bitmap::Absent) => {
            return Err(GuardWhy::LegState { detail: "there is no bitmap to return by".into() });
        }
        Observed::Unknown(_) => return Err(unknown("whether there is a bitmap")),
    }
    let bound = bound(array, leg)?;
    let slot = bound.slot.ok_or_else(|| GuardWhy::LegState { detail: "no slot".to_owned() })?;
    let Backing::Namespace(namespace) = &bound.backing else {
        return Err(GuardWhy::LegState { detail: "it has no device".to_owned() });
    };
    if leg.identity.as_ref().is_some_and(|identity| identity.dev != namespace.dev) {
        return Err(GuardWhy::NotThatDevice { detail: format!("{} is another disk", leg.device) });
    }
    match leg_health(namespace) {
        Some(PathHealth::Dead(_)) => {}
        Some(health @ (PathHealth::Up | PathHealth::Suspect(_))) => {
            return Err(GuardWhy::LegState { detail: format!("its path is {health}") });
        }
        None => return Err(unknown("the state of a path of the leg")),
    }
    carries_nothing_else(namespaces, namespace)?;
    a_good_leg_other_than(array, Some(slot))?;
    if same_controllers(&survivors_of(array, slot)?, survivors) {
        Ok(())
    } else {
        Err(GuardWhy::NotThatDevice { detail: "other legs are in sync by now".to_owned() })
    }
}

/// A controller can carry several namespaces, and all of them lose it together.
fn carries_nothing_else(namespaces: &[NamespaceSnapshot], leg: &NamespaceSnapshot) -> Guarded {
    let own = |path: &PathSnapshot| leg.paths.iter().any(|p| p.controller == path.controller);
    match namespaces.iter().find(|other| other.dev != leg.dev && other.paths.iter().any(own)) {
        Some(other) => Err(GuardWhy::StillUsed {
            detail: format!("{} is behind the same controller", other.device),
        }),
        None => Ok(()),
    }
}

/// A controller is deleted only while it is connecting and I/O waits for it: deleting one that says
/// `live` waits for the I/O that it should free.
pub(super) fn given_up(array: &ArraySnapshot, leg: &LegRef, controller: &ControllerRef) -> Guarded {
    let own = bound(array, leg)?.backing.namespace();
    let path = own.and_then(|own| own.paths.iter().find(|p| p.controller == controller.name));
    match path.map(|path| &path.state) {
        Some(Observed::Known(ControllerState::Connecting)) => {}
        Some(Observed::Known(state)) => {
            return Err(GuardWhy::LegState { detail: format!("{controller} is {state}") });
        }
        Some(Observed::Unknown(_)) => return Err(unknown("the controller's state")),
        None => return Err(GuardWhy::NotThatDevice { detail: format!("{controller} is gone") }),
    }
    match array.in_flight {
        Observed::Known(0) => {
            Err(GuardWhy::LegState { detail: "no I/O waits for the leg".to_owned() })
        }
        Observed::Known(_) => Ok(()),
        Observed::Unknown(_) => Err(unknown("whether I/O waits")),
    }
}
