//! What a reader of sysfs would see, and what it fails to see.
//!
//! A reader is never quicker than what it reads: an attribute vanishes between two reads, an array
//! is half torn down, a link is not there yet. [`Blur`] is the list of what can be seen wrongly
//! while the kernel itself is fine; nothing may be concluded from any of it.

use heal_types::{
    ArrayId, ArraySnapshot, ArrayState, Backing, Bitmap, HostSnapshot, LegFlags, LegSnapshot,
    Metadata, NamespaceId, NamespaceSnapshot, Observed, Slot, UnknownWhy,
};

use super::FakeKernel;
use super::fabric::Handle;
use super::md::{MdArray, Rdev};

/// Something that readers of sysfs do not see as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blur {
    /// The array is there and cannot be read.
    Array(ArrayId),
    /// The array shows itself as in the middle of a stop: inactive, and nobody holds a slot.
    HalfStopped(ArrayId),
    /// Whether the device of the leg on this namespace is there cannot be read.
    Leg(NamespaceId),
    /// The device of the leg on this namespace looks gone, as right after it was bound.
    LegGone(NamespaceId),
    /// Who holds this namespace cannot be read.
    Holders(NamespaceId),
}

impl FakeKernel {
    /// Readers of sysfs see this wrongly from now on.
    pub fn blur(&mut self, blur: Blur) {
        self.blurs.push(blur);
    }

    /// Readers of sysfs see everything as it is again.
    pub fn unblur(&mut self) {
        self.blurs.clear();
    }

    fn is_blurred(&self, blur: Blur) -> bool {
        self.blurs.contains(&blur)
    }

    /// One look at everything.
    #[must_use]
    pub fn snapshot(&self) -> HostSnapshot {
        HostSnapshot {
            arrays: (self.arrays.iter())
                .filter(|array| array.running && !self.is_blurred(Blur::Array(array.id)))
                .map(|array| self.array_snapshot(array))
                .collect(),
            namespaces: (0..self.devices.len())
                .filter_map(|handle| self.namespace_snapshot(handle))
                .map(|namespace| self.as_read(namespace))
                .collect(),
            unreadable: (self.arrays.iter())
                .filter(|array| self.is_blurred(Blur::Array(array.id)))
                .map(|array| array.device.clone())
                .collect(),
            controllers: self.controllers.iter().map(Self::controller_snapshot).collect(),
        }
    }

    fn as_read(&self, mut namespace: NamespaceSnapshot) -> NamespaceSnapshot {
        let hidden = |blur: &Blur| match blur {
            Blur::Holders(id) => namespace.goes_by(id),
            Blur::Array(_) | Blur::HalfStopped(_) | Blur::Leg(_) | Blur::LegGone(_) => false,
        };
        if self.blurs.iter().any(hidden) {
            namespace.holders = Observed::Unknown(UnknownWhy::ReadFailed);
        }
        namespace
    }

    fn backing_as_read(&self, handle: Handle) -> Backing {
        let head = self.devices[handle].fabric.as_ref();
        let is_it = |id: &NamespaceId| head.is_some_and(|head| head.ids.contains(id));
        let seen = self.blurs.iter().find_map(|blur| match blur {
            Blur::Leg(id) => is_it(id).then_some(Backing::Unreadable),
            Blur::LegGone(id) => is_it(id).then_some(Backing::Gone),
            Blur::Array(_) | Blur::HalfStopped(_) | Blur::Holders(_) => None,
        });
        seen.unwrap_or_else(|| self.backing(handle))
    }

    fn array_snapshot(&self, array: &MdArray) -> ArraySnapshot {
        let half_stopped = self.is_blurred(Blur::HalfStopped(array.id));
        ArraySnapshot {
            id: array.id,
            device: array.device.clone(),
            dev: array.dev,
            alias: array.alias.clone(),
            level: array.level,
            metadata: Metadata::V1,
            state: Observed::Known(if half_stopped { ArrayState::Inactive } else { array.state() }),
            raid_disks: array.raid_disks,
            degraded: Observed::Known(array.degraded()),
            sync_action: Observed::Known(array.sync_action()),
            sync_progress: array.progress(),
            reshaping: false,
            component_size: Observed::Known(array.component),
            logical_block: Observed::Known(512),
            bitmap: Observed::Known(if array.bitmap { Bitmap::Present } else { Bitmap::Absent }),
            in_flight: Observed::Known(u64::from(array.flight.is_some())),
            legs: array.rdevs.iter().map(|rdev| self.leg_snapshot(array, rdev)).collect(),
        }
    }

    fn leg_snapshot(&self, array: &MdArray, rdev: &Rdev) -> LegSnapshot {
        let present = self.devices[rdev.handle].present;
        let half_stopped = self.is_blurred(Blur::HalfStopped(array.id));
        LegSnapshot {
            device: rdev.name.clone(),
            slot: rdev.slot.map(Slot).filter(|_| !half_stopped),
            flags: LegFlags::of(&rdev.flags()),
            // udev forgets a device that is gone.
            md_device: if present {
                Observed::Known(rdev.uuid)
            } else {
                Observed::Unknown(UnknownWhy::Vanished)
            },
            data_offset: Observed::Known(array.data_offset),
            bad_blocks: Observed::Known(rdev.bad_blocks),
            backing: self.backing_as_read(rdev.handle),
        }
    }
}
