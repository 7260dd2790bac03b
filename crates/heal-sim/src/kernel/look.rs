//! What a reader of sysfs would see.

use heal_types::{
    ArraySnapshot, Bitmap, HostSnapshot, LegFlags, LegSnapshot, Metadata, Observed, Slot,
    UnknownWhy,
};

use super::FakeKernel;
use super::md::{MdArray, Rdev};

impl FakeKernel {
    /// One look at everything.
    #[must_use]
    pub fn snapshot(&self) -> HostSnapshot {
        HostSnapshot {
            arrays: (self.arrays.iter())
                .filter(|array| array.running)
                .map(|array| self.array_snapshot(array))
                .collect(),
            namespaces: (0..self.devices.len())
                .filter_map(|handle| self.namespace_snapshot(handle))
                .collect(),
            unreadable: Vec::new(),
        }
    }

    fn array_snapshot(&self, array: &MdArray) -> ArraySnapshot {
        ArraySnapshot {
            id: array.id,
            device: array.device.clone(),
            dev: array.dev,
            alias: array.alias.clone(),
            level: array.level,
            metadata: Metadata::V1,
            state: Observed::Known(array.state()),
            raid_disks: array.raid_disks,
            degraded: Observed::Known(array.degraded()),
            sync_action: Observed::Known(array.sync_action()),
            sync_progress: array.progress(),
            reshaping: false,
            component_size: Observed::Known(array.component),
            logical_block: Observed::Known(512),
            bitmap: Observed::Known(if array.bitmap { Bitmap::Present } else { Bitmap::Absent }),
            legs: array.rdevs.iter().map(|rdev| self.leg_snapshot(array, rdev)).collect(),
        }
    }

    fn leg_snapshot(&self, array: &MdArray, rdev: &Rdev) -> LegSnapshot {
        let present = self.devices[rdev.handle].present;
        LegSnapshot {
            device: rdev.name.clone(),
            slot: rdev.slot.map(Slot),
            flags: LegFlags::of(&rdev.flags()),
            // udev forgets a device that is gone.
            md_device: if present {
                Observed::Known(rdev.uuid)
            } else {
                Observed::Unknown(UnknownWhy::Vanished)
            },
            data_offset: Observed::Known(array.data_offset),
            bad_blocks: Observed::Known(rdev.bad_blocks),
            backing: self.backing(rdev.handle),
        }
    }
}
