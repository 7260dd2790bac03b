//! What people and other tools do to an array behind a healer's back.
//!
//! They use the same tools and meet the same rules, but nobody asked a guard before.

use std::time::Duration;

use heal_types::{ArrayId, NamespaceId, Nqn};

use super::fabric::Handle;
use super::md::Rdev;
use super::{FakeKernel, KernelSignal};

impl FakeKernel {
    /// `mdadm --fail`.
    pub fn fail_by_hand(&mut self, id: &NamespaceId) {
        if let Some((array, index)) = self.member_on(id, false) {
            // Before what follows from it, which may be the end of the leg that is left.
            self.arrays[array].rdevs[index].by_hand = true;
            self.md_error(array, index);
            let rdev = &mut self.arrays[array].rdevs[index];
            rdev.by_hand = rdev.faulty;
        }
    }

    /// `mdadm --remove`. Answers whether the member is unbound.
    pub fn remove_by_hand(&mut self, id: &NamespaceId) -> bool {
        self.member_on(id, true).is_some_and(|(array, index)| self.unbind(array, index))
    }

    /// `mdadm --add`. Answers whether the device is bound.
    pub fn add_by_hand(&mut self, array: ArrayId, id: &NamespaceId) -> bool {
        let (Some(array), Some(handle)) = (self.array_index(array), self.present_on(id)) else {
            return false;
        };
        // mdadm makes no spare of what says that it is an active leg, while the array still counts
        // it as one.
        let own = self.disks[self.devices[handle].disk.0].superblock.as_ref().map(|sb| sb.device);
        let serves = |r: &Rdev| Some(r.uuid) == own && r.in_sync && !r.faulty;
        if self.arrays[array].rdevs.iter().any(serves) {
            return false;
        }
        // `bd_claim`: what is held, by this array too, is busy.
        self.holders(handle).is_empty() && self.add_with_care(array, handle)
    }

    /// Whoever adds an old copy, superblock and all, or a leg that went on without the array, must
    /// not let `mdadm --add` take it for the leg.
    fn add_with_care(&mut self, array: usize, handle: Handle) -> bool {
        let is_copy = self.disks[self.devices[handle].disk.0].copy;
        if is_copy || self.is_of_one_history(array, handle).is_err() {
            self.add_spare(array, handle).is_ok()
        } else {
            self.add(array, handle).is_ok()
        }
    }

    /// `mdadm --add` of whatever namespace that subsystem has.
    pub fn add_subsystem_by_hand(&mut self, array: ArrayId, nqn: &Nqn) -> bool {
        let handle = self.devices.iter().position(|device| {
            device.present && device.fabric.as_ref().is_some_and(|head| head.nqn == *nqn)
        });
        let (Some(array), Some(handle)) = (self.array_index(array), handle) else {
            return false;
        };
        self.holders(handle).is_empty() && self.add_with_care(array, handle)
    }

    /// The attributes of a namespace's block device stay empty for so long.
    pub fn fill_later(&mut self, id: &NamespaceId, time: Duration) {
        if let Some(handle) = self.present_on(id) {
            self.devices[handle].filled_at = self.now.after(time);
        }
    }

    /// MD learns of a block on the leg that it must not read, and that another leg has.
    pub fn find_bad_block(&mut self, id: &NamespaceId) {
        let Some((array, index)) = self.member_on(id, false) else { return };
        let md = &self.arrays[array];
        let Some(slot) = md.rdevs[index].slot.filter(|_| !md.rdevs[index].bad_blocks) else {
            return;
        };
        let block = md.may_go_bad(slot);
        if md.flight.as_ref().is_some_and(|flight| flight.block == block) {
            return; // What is being written there is nobody's yet.
        }
        let has = |(other, rdev): (usize, &Rdev)| {
            let disk = &self.disks[self.devices[rdev.handle].disk.0];
            let holds = rdev.slot.is_some_and(|own| md.holds(own, block));
            let whole = disk.blocks.get(block) >= md.newest.get(block);
            other != index && rdev.in_sync && !rdev.faulty && holds && whole
        };
        if md.rdevs.iter().enumerate().any(has) {
            let disk = self.devices[md.rdevs[index].handle].disk;
            self.disks[disk.0].blocks.set(block, 0);
            self.cannot_read(array, index, block);
        }
    }

    /// `rdev_set_badblocks`: it is listed, and whatever stands there stays.
    pub(crate) fn cannot_read(&mut self, array: usize, index: usize, block: u16) {
        let rdev = &mut self.arrays[array].rdevs[index];
        rdev.bad_blocks = true;
        let disk = self.devices[rdev.handle].disk;
        self.disks[disk.0].bad = Some(block);
        self.signals.push(KernelSignal::Md); // It notifies `state`.
    }

    /// `rdev_clear_badblocks`: the block was written.
    pub(crate) fn can_read(&mut self, array: usize, index: usize) {
        let rdev = &mut self.arrays[array].rdevs[index];
        rdev.bad_blocks = false;
        rdev.stubborn = false;
        let disk = self.devices[rdev.handle].disk;
        self.disks[disk.0].bad = None;
        self.signals.push(KernelSignal::Md);
    }

    /// Whether MD must not read this block of a leg.
    pub(crate) fn is_bad(&self, rdev: &Rdev, block: u16) -> bool {
        rdev.bad_blocks && self.disks[self.devices[rdev.handle].disk.0].bad == Some(block)
    }

    /// The application writes the blocks that MD must not read, and MD takes them off the list,
    /// unless its last write there failed (`raid1_end_write_request`, `drivers/md/raid1.c`).
    pub(crate) fn write_over_bad_blocks(&mut self, array: usize) {
        for index in 0..self.arrays[array].rdevs.len() {
            let rdev = &self.arrays[array].rdevs[index];
            let disk = self.devices[rdev.handle].disk;
            let heals = rdev.bad_blocks && rdev.in_sync && !rdev.faulty && !rdev.stubborn;
            // A write that is under way there left this leg out, and is the newest when it ends.
            let flight = self.arrays[array].flight.as_ref().map(|flight| flight.block);
            let bad = self.disks[disk.0].bad.filter(|block| heals && flight != Some(*block));
            if let Some(block) = bad {
                let newest = self.arrays[array].newest.get(block);
                self.disks[disk.0].write(block, newest);
                self.can_read(array, index);
            }
        }
    }

    /// The same, and writing to it does not help.
    pub fn find_stubborn_bad_block(&mut self, id: &NamespaceId) {
        self.find_bad_block(id);
        if let Some((array, index)) = self.member_on(id, false) {
            let rdev = &mut self.arrays[array].rdevs[index];
            rdev.stubborn = rdev.bad_blocks;
        }
    }

    /// A member on that namespace, of several the one that is, or is not, faulty.
    fn member_on(&self, id: &NamespaceId, faulty: bool) -> Option<(usize, usize)> {
        let stands_on = |handle: Handle| {
            let head = self.devices[handle].fabric.as_ref();
            head.is_some_and(|head| head.ids.contains(id))
        };
        self.arrays.iter().enumerate().filter(|(_, md)| md.running).find_map(|(array, md)| {
            let on_it = md.rdevs.iter().enumerate().filter(|(_, rdev)| stands_on(rdev.handle));
            let (index, _) = on_it.min_by_key(|(_, rdev)| rdev.faulty != faulty)?;
            Some((array, index))
        })
    }

    fn present_on(&self, id: &NamespaceId) -> Option<Handle> {
        self.devices.iter().position(|device| {
            device.present && device.fabric.as_ref().is_some_and(|head| head.ids.contains(id))
        })
    }
}
