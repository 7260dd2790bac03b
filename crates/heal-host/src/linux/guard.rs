//! The guards that keep data from being lost, once more, on the snapshot of this very moment.

use heal_types::{
    ArraySnapshot, Backing, DeviceName, FastIoFail, HostSnapshot, LegSnapshot, Level,
    NamespaceSnapshot, Nqn, Observed, Outcome, Slot, SyncAction, UnknownWhy,
};

use super::{Step, guarded};

/// MD counts the last leg's failure by breaking the array *before* it refuses (`raid1_error`,
/// `MD_BROKEN`), so this cannot be left to the kernel.
pub(super) fn survives_without(array: &ArraySnapshot, leg: &LegSnapshot) -> Step<()> {
    others_hold(array, leg, "with a usable path", carries)
}

/// The same, with I/O that waits on those others instead of failing, however long they are away.
pub(super) fn queues_without(array: &ArraySnapshot, leg: &LegSnapshot) -> Step<()> {
    others_hold(array, leg, "with a usable path and queueing I/O", |other| {
        carries(other) && queues(other)
    })
}

/// Enough other legs hold every block that `leg` holds, and are `good`.
pub(super) fn others_hold(
    array: &ArraySnapshot,
    leg: &LegSnapshot,
    told: &str,
    good: impl Fn(&LegSnapshot) -> bool,
) -> Step<()> {
    let Some(slot) = leg.slot else {
        // A spare carries nothing.
        return Ok(());
    };
    if !array.sync_action.is_known_and(|action| *action != SyncAction::Resync) {
        return Err(guarded(
            "while legs are made equal, or nobody knows whether they are, none is complete",
        ));
    }
    let healthy = |slot: &Slot| {
        let others = array.legs.iter().filter(|other| other.device != leg.device);
        others
            .filter(|other| other.slot == Some(*slot))
            .any(|other| other.is_in_sync() && good(other))
    };
    let slots = mirrors_of(array, slot)?;
    let found = slots.iter().filter(|slot| healthy(slot)).count();
    let needed = match array.level {
        Level::Raid10 { .. } if !is_near(array) => slots.len().saturating_sub(1),
        Level::Raid1 | Level::Raid10 { .. } | Level::Other => 1,
    };
    if found < needed.max(1) {
        return Err(guarded(format!(
            "{found} other in-sync legs {told} hold what slot {slot} holds, {} are needed",
            needed.max(1)
        )));
    }
    Ok(())
}

/// Every slot but this leg's has a leg that is good now: the volume may do with one copy less.
pub(super) fn every_other_slot_is_good(array: &ArraySnapshot, leg: &LegSnapshot) -> Step<()> {
    let others = (0..array.raid_disks).map(Slot).filter(|slot| Some(*slot) != leg.slot);
    let lacking = others.into_iter().find(|slot| {
        !array
            .legs
            .iter()
            .any(|other| other.slot == Some(*slot) && other.is_in_sync() && carries(other))
    });
    match (lacking, array.raid_disks) {
        (None, 2..) => Ok(()),
        (None, _) => Err(guarded("it is the only slot")),
        (Some(slot), _) => Err(guarded(format!("slot {slot} has no good leg"))),
    }
}

fn carries(leg: &LegSnapshot) -> bool {
    match &leg.backing {
        Backing::Namespace(namespace) => namespace.has_usable_path(),
        Backing::Local => true,
        Backing::Gone | Backing::Unreadable => false,
    }
}

/// Whether the kernel keeps I/O to it for as long as it takes.
fn queues(leg: &LegSnapshot) -> bool {
    match &leg.backing {
        Backing::Namespace(namespace) => namespace
            .paths
            .iter()
            .all(|path| path.fast_io_fail.is_known_and(|value| *value == FastIoFail::Off)),
        Backing::Local => true,
        Backing::Gone | Backing::Unreadable => false,
    }
}

/// The slots that may hold the same blocks as `slot`, itself included: a replacement shares it.
fn mirrors_of(array: &ArraySnapshot, slot: Slot) -> Step<Vec<Slot>> {
    let all = || (0..array.raid_disks).map(Slot).collect();
    match array.level {
        Level::Raid1 => Ok(all()),
        Level::Raid10 { layout } if is_near(array) => {
            let copies = u16::try_from(layout & 0xff).unwrap_or(u16::MAX);
            let first = slot.0 / copies * copies;
            Ok((first..first.saturating_add(copies)).map(Slot).collect())
        }
        // Copies overlap: only all others together are surely enough.
        Level::Raid10 { .. } => Ok(all()),
        Level::Other => Err(guarded("only mirrors are healed")),
    }
}

/// Whether a RAID10's mirror sets are plain groups of neighbours.
fn is_near(array: &ArraySnapshot) -> bool {
    let Level::Raid10 { layout } = array.level else {
        return false;
    };
    let near = layout & 0xff;
    near > 1 && layout >> 8 == 1 && u32::from(array.raid_disks) % near == 0
}

/// Nothing uses the device, and it can be written to.
pub(super) fn free(namespace: &NamespaceSnapshot) -> Step<()> {
    free_but_for(None, namespace)
}

/// The same, but that the array may hold it that will let go of it first.
pub(super) fn free_but_for(holder: Option<&DeviceName>, namespace: &NamespaceSnapshot) -> Step<()> {
    unused_but_by(holder, namespace)?;
    if !namespace.read_only.is_known_and(|read_only| !read_only) {
        return Err(guarded(format!("read-only: {}", namespace.read_only)));
    }
    Ok(())
}

/// What `mdadm --add` would not ask: is the device free, large enough, of fitting blocks.
pub(super) fn fits(array: &ArraySnapshot, namespace: &NamespaceSnapshot) -> Step<()> {
    free(namespace)?;
    if !namespace.partitions.is_known_and(|count| *count == 0) {
        return Err(guarded(format!("partitions: {}", namespace.partitions)));
    }
    let large_enough = namespace
        .size
        .is_known_and(|size| array.component_size.is_known_and(|needed| size >= needed));
    if !large_enough {
        return Err(guarded(format!(
            "its size is {}, needed are {}",
            namespace.size, array.component_size
        )));
    }
    let fine_enough = namespace
        .logical_block
        .is_known_and(|block| array.logical_block.is_known_and(|most| block <= most));
    if !fine_enough {
        return Err(guarded(format!(
            "its logical block is {} bytes, the array's is {}",
            namespace.logical_block, array.logical_block
        )));
    }
    Ok(())
}

/// Nothing is stacked on it, nothing of it is mounted.
fn unused_but_by(holder: Option<&DeviceName>, namespace: &NamespaceSnapshot) -> Step<()> {
    match &namespace.holders {
        Observed::Known(holders) if holders.iter().all(|held_by| Some(held_by) == holder) => {}
        Observed::Known(holders) => {
            return Err(guarded(format!("{} is held by {}", namespace.device, names(holders))));
        }
        Observed::Unknown(why) => {
            return Err(guarded(format!("holders of {}: {why}", namespace.device)));
        }
    }
    if !namespace.in_use.is_known_and(|in_use| !in_use) {
        return Err(guarded(format!("{} is in use: {}", namespace.device, namespace.in_use)));
    }
    Ok(())
}

/// Nothing on this host needs the subsystem.
pub(super) fn subsystem_unused(snapshot: &HostSnapshot, nqn: &Nqn) -> Step<()> {
    if !snapshot.unreadable.is_empty() {
        return Err(guarded(format!(
            "arrays that could not be read may hold it: {}",
            names(&snapshot.unreadable)
        )));
    }
    for namespace in &snapshot.namespaces {
        match &namespace.nqn {
            Observed::Known(other) if other != nqn => continue,
            Observed::Known(_) => {}
            // What is no NQN is not this one.
            Observed::Unknown(UnknownWhy::Malformed) => continue,
            Observed::Unknown(why) => return Err(Outcome::Unknown(*why)),
        }
        unused_but_by(None, namespace)?;
        for array in &snapshot.arrays {
            if array.legs.iter().any(|leg| stands_on(leg, namespace)) {
                return Err(guarded(format!("{} is a leg of {}", namespace.device, array.device)));
            }
        }
    }
    Ok(())
}

/// By name as well: MD may hold the device although its link does not say so yet.
fn stands_on(leg: &LegSnapshot, namespace: &NamespaceSnapshot) -> bool {
    match &leg.backing {
        Backing::Namespace(held) => held.dev == namespace.dev,
        Backing::Unreadable => leg.device == namespace.device,
        Backing::Local | Backing::Gone => false,
    }
}

fn names(devices: &[DeviceName]) -> String {
    let names: Vec<&str> = devices.iter().map(DeviceName::as_str).collect();
    names.join(", ")
}
