//! Thaws an array that an `mdadm` of ours left frozen.
//!
//! `mdadm` freezes an array while it adds a member, so that MD begins nothing meanwhile, and thaws
//! it at its end (`Manage_subdevs`, `sysfs_freeze_array`). One that was killed at its deadline has
//! no end: the array stays frozen, MD fills no leg any more, and whoever sees it frozen takes it
//! for another tool's.
//!
//! ```text
//!   mdadm ── freezes ── waits ──► killed ──► gone ──► a look shows `frozen` ──► idle is written
//! ```
//!
//! The price: nobody but us remembers which arrays these are. A daemon that dies between the kill
//! and the thaw leaves the array frozen, and says so.

use heal_types::{ArraySnapshot, Observed, SyncAction};

use super::LinuxHost;
use crate::exec::argv;
use crate::scan::Seen;

impl LinuxHost {
    /// Whether anything was thawed, so that `seen` is old.
    pub(super) fn thaw(&self, seen: &Seen) -> bool {
        let mut thawed = false;
        for id in self.runner.breaker().cut_short() {
            let Some(array) = seen.snapshot.arrays.iter().find(|array| array.id == id) else {
                continue; // Stopped, or not readable now.
            };
            match is_frozen(array) {
                Some(true) => {}
                Some(false) => {
                    self.runner.breaker().is_well(id);
                    continue;
                }
                None => continue,
            }
            let ended = self.run(&argv::thaw(id, &array.device));
            if ended.is_success() {
                tracing::warn!(array = %array.device, "thawed what a killed mdadm left frozen");
                self.runner.breaker().is_well(id);
                thawed = true;
            } else {
                tracing::warn!(array = %array.device, said = ended.said(), "it stays frozen");
            }
        }
        thawed
    }
}

fn is_frozen(array: &ArraySnapshot) -> Option<bool> {
    match array.sync_action {
        Observed::Known(SyncAction::Frozen) => Some(true),
        Observed::Known(
            SyncAction::Idle
            | SyncAction::Resync
            | SyncAction::Recover
            | SyncAction::Check
            | SyncAction::Repair
            | SyncAction::Reshape,
        ) => Some(false),
        Observed::Unknown(_) => None,
    }
}
