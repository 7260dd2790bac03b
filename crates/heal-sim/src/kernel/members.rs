//! Who is bound to an array: taking legs back, adding them, unbinding them, and the number of
//! slots.
//!
//! ```text
//!   --re-add   superblock ours, slot free, event count within the bitmap  ─► bound, its slot kept
//!   --add      large enough                                               ─► bound, a new superblock
//!   remove     no slot                                                    ─► unbound
//! ```
//!
//! What is bound gets a slot from MD's own thread a moment later (`super::md`), and not always the
//! one it was meant for.

use std::time::Duration;

use heal_types::{Level, MdDeviceId, MdRole, NamespaceId, Outcome, RetryWhy};

use super::disk::{Recovery, Versions};
use super::fabric::{Handle, refused_state};
use super::md::{Parted, Rdev, THREAD};
use super::{FakeKernel, KernelSignal};

impl FakeKernel {
    /// `mdadm --re-add`: `attempt_re_add` in mdadm, `super_1_validate` in the kernel.
    ///
    /// # Errors
    /// Why the leg cannot be taken back.
    pub(crate) fn re_add(&mut self, array: usize, handle: Handle) -> Result<(), String> {
        let md = &self.arrays[array];
        let disk = &self.disks[self.devices[handle].disk.0];
        let Some(sb) = disk.superblock.clone().filter(|_| disk.foreign.is_none()) else {
            return Err("no superblock on it".into());
        };
        if sb.array != md.id {
            return Err(format!("it belongs to array {}", sb.array));
        }
        if md.rdevs.iter().any(|r| r.uuid == sb.device) {
            return Err("not possible: the old member is still bound".into());
        }
        let slot = match sb.role {
            MdRole::Active(slot) => slot,
            MdRole::Spare | MdRole::Faulty | MdRole::Journal => {
                return Err("not possible: its superblock has no slot".into());
            }
        };
        if disk.recovery == Recovery::Full {
            return Err("not possible: it was never complete".into());
        }
        if slot >= md.raid_disks || md.rdevs.iter().any(|r| r.slot == Some(slot)) {
            return Err(format!("not possible: slot {slot} is taken"));
        }
        let fresh_enough =
            if md.bitmap { sb.events >= md.events_cleared } else { sb.events + 1 >= md.events };
        if !fresh_enough {
            return Err(format!(
                "not possible: event count {} is older than what the bitmap covers ({})",
                sb.events, md.events_cleared
            ));
        }
        self.bind(array, handle, sb.device, Some(slot));
        Ok(())
    }

    /// `mdadm --add`, as a person does it: tries a re-add first.
    ///
    /// # Errors
    /// As [`Self::add_spare`].
    pub(crate) fn add(&mut self, array: usize, handle: Handle) -> Result<(), String> {
        self.re_add(array, handle).or_else(|_| self.add_spare(array, handle))
    }

    /// `mdadm --add-spare`, as the agent does it: without a word, writes a new superblock over
    /// whatever stands on the device, so that it is filled from the beginning to the end.
    ///
    /// # Errors
    /// What `mdadm` checks: the size, and nothing of the content.
    pub(crate) fn add_spare(&mut self, array: usize, handle: Handle) -> Result<(), String> {
        let disk_id = self.devices[handle].disk;
        let size = self.disks[disk_id.0].size;
        let md = &self.arrays[array];
        if size.0 < md.component.0 + md.data_offset.0 {
            return Err("not large enough to join array".into());
        }
        if self.disks[disk_id.0].read_only {
            return Err("read-only".into());
        }
        self.md_uuids += 1;
        let uuid = md_device_uuid(self.md_uuids);
        let disk = &mut self.disks[disk_id.0];
        disk.foreign = None;
        disk.written = true;
        disk.given_up = false;
        disk.copy = false;
        disk.bad = None;
        self.bind(array, handle, uuid, None);
        self.update_superblocks(array);
        Ok(())
    }

    /// `bind_rdev_to_array` and `add_bound_rdev`: bound without a slot; MD's thread gives it one.
    fn bind(&mut self, array: usize, handle: Handle, uuid: MdDeviceId, saved_slot: Option<u16>) {
        let at = self.now.after(THREAD);
        let name = self.devices[handle].name.clone();
        // The list is on the disk; what it could not take is found again at the first read.
        let bad_blocks = self.disks[self.devices[handle].disk.0].bad.is_some();
        let md = &mut self.arrays[array];
        md.rdevs.push(Rdev {
            handle,
            name,
            uuid,
            slot: None,
            saved_slot,
            faulty: false,
            by_hand: false,
            in_sync: false,
            write_error: false,
            want_replacement: false,
            replacement: false,
            bad_blocks,
            stubborn: false,
            recovered: 0,
            by_bitmap: saved_slot.is_some(),
        });
        md.thread_at = Some(at);
        self.signals.push(KernelSignal::Md);
    }

    /// `state_store` "remove": only what holds no slot.
    pub(crate) fn unbind(&mut self, array: usize, index: usize) -> bool {
        if self.arrays[array].rdevs[index].slot.is_some() {
            return false;
        }
        self.arrays[array].rdevs.remove(index);
        self.arrays[array].events += 1;
        self.update_superblocks(array);
        self.signals.push(KernelSignal::Md);
        true
    }

    /// `mdadm --grow`, `update_raid_disks` and `raid1_reshape`: busy while anything is being
    /// filled; shrinking needs free slots and numbers the rest anew.
    pub(crate) fn set_raid_disks(&mut self, array: usize, wanted: u16) -> Result<(), Outcome> {
        let at = self.now.after(THREAD);
        let md = &mut self.arrays[array];
        if md.level != Level::Raid1 || wanted == 0 {
            return Err(refused_state("only RAID1 changes its number of slots here".into()));
        }
        let used = md.rdevs.iter().filter(|r| r.slot.is_some() && !r.replacement).count();
        if md.sync.is_some() || used > usize::from(wanted) {
            return Err(Outcome::Retry { after: Duration::from_secs(1), why: RetryWhy::Busy });
        }
        // mdadm makes no slot for which there is no spare (`Grow_reshape`, without `--force`).
        let idle = md.rdevs.iter().filter(|r| r.slot.is_none() && !r.faulty).count();
        if usize::from(wanted.saturating_sub(md.raid_disks)) > idle {
            return Err(Outcome::Retry {
                after: Duration::from_secs(5),
                why: RetryWhy::ToolFailed {
                    exit: Some(1),
                    detail: "mdadm: too few spares to avoid a degraded array".into(),
                },
            });
        }
        if wanted < md.raid_disks {
            let mut next = 0;
            for slot in 0..md.raid_disks {
                let mut any = false;
                for rdev in md.rdevs.iter_mut().filter(|r| r.slot == Some(slot)) {
                    rdev.slot = Some(next);
                    any = true;
                }
                next += u16::from(any);
            }
        }
        md.raid_disks = wanted;
        md.events += 1;
        md.thread_at = Some(at);
        self.update_superblocks(array);
        self.signals.push(KernelSignal::Md);
        Ok(())
    }

    pub(crate) fn stop(&mut self, array: usize) {
        self.arrays[array].events += 1;
        self.update_superblocks(array);
        let md = &mut self.arrays[array];
        let good = md.rdevs.iter().filter(|rdev| rdev.in_sync && !rdev.faulty);
        md.good_at_stop = good.map(|rdev| rdev.uuid).collect();
        md.running = false;
        md.sync = None;
        md.thread_at = None;
        md.rdevs.clear();
        md.broken = false;
        md.broken_by = None;
        // `MD_RECOVERY_FROZEN` and `ro` are of this assembly.
        md.frozen = false;
        md.forced_state = None;
        md.flight = None;
        md.superblocks_behind = false;
        let device = md.device.clone();
        self.uevent("remove", "block", device.as_str());
        self.signals.push(KernelSignal::Md);
    }

    /// `mdadm --assemble`: the freshest superblocks win; what lags behind stays outside.
    pub(crate) fn assemble(&mut self, array: usize) {
        let id = self.arrays[array].id;
        let mut found = Vec::new();
        for (handle, device) in self.devices.iter().enumerate() {
            let disk = &self.disks[device.disk.0];
            let own = disk.superblock.as_ref().filter(|sb| sb.array == id);
            // Of two with one UUID a person names the one that is meant.
            if let Some(sb) = own.filter(|_| !disk.copy && self.io_moves(handle)) {
                found.push((handle, sb.clone(), disk.recovery));
            }
        }
        // The superblock of the freshest leg names those that were good: no other one is let in,
        // and nobody forces an array together without any of them.
        found.retain(|(_, sb, _)| self.arrays[array].good_at_stop.contains(&sb.device));
        let Some(newest) = found.iter().map(|(_, sb, _)| sb.events).max() else {
            return;
        };
        // `raid10_run`: "not enough operational mirrors".
        let md = &self.arrays[array];
        let complete = found.iter().filter(|(_, _, recovery)| *recovery == Recovery::Complete);
        let good: Vec<u16> = complete.filter_map(|(_, sb, _)| active_slot(sb.role)).collect();
        let has = |slot: u16| good.iter().any(|other| md.may_stand_in(Some(*other), Some(slot)));
        if !(0..md.raid_disks).all(has) {
            return;
        }
        for (handle, sb, recovery) in found {
            let Some(slot) = active_slot(sb.role) else {
                continue;
            };
            if recovery == Recovery::Complete {
                self.bind(array, handle, sb.device, None);
                if let Some(rdev) = self.arrays[array].rdevs.last_mut() {
                    rdev.slot = Some(slot);
                    rdev.in_sync = true;
                    rdev.by_bitmap = false;
                }
            }
        }
        let md = &mut self.arrays[array];
        md.running = true;
        // `--force`: who is chosen counts as many events as whoever counted most.
        md.events = newest.max(md.events) + 1;
        let device = md.device.clone();
        self.update_superblocks(array);
        self.uevent("add", "block", device.as_str());
        self.uevent("change", "block", device.as_str());
    }

    /// `mdadm-last-resort`: one leg is there in time, and its superblock knows of no loss. If it
    /// had been lost, its bitmap is the one of that time, and from now on there are two of the
    /// array. Answers whether the array runs.
    pub(crate) fn start_alone(&mut self, array: usize, leg: &NamespaceId) -> bool {
        let (id, level) = (self.arrays[array].id, self.arrays[array].level);
        let there = self.devices.iter().position(|device| {
            device.present && device.fabric.as_ref().is_some_and(|head| head.ids.contains(leg))
        });
        let Some(handle) = there.filter(|handle| self.io_moves(*handle)) else { return false };
        let disk = &self.disks[self.devices[handle].disk.0];
        let complete = disk.recovery == Recovery::Complete && disk.foreign.is_none();
        let own = disk.superblock.as_ref().filter(|sb| sb.array == id && complete);
        let Some(sb) = own.filter(|_| level == Level::Raid1).cloned() else { return false };
        let Some(slot) = active_slot(sb.role) else { return false };
        let blocks = disk.blocks;
        let parted = self.arrays[array].parted.as_ref();
        if parted.is_some_and(|parted| parted.good.contains(&sb.device)) {
            self.decide_for_the_good(array); // The boot did.
        }
        let md = &mut self.arrays[array];
        if let Some(parted) = md.parted.as_mut() {
            let behind = md.newest.iter().filter(|(block, newest)| blocks.get(*block) < *newest);
            behind.for_each(|(block, _)| parted.lacks.insert(block));
        } else if !md.good_at_stop.contains(&sb.device) {
            let behind = md.newest.iter().filter(|(block, newest)| blocks.get(*block) < *newest);
            let good = md.good_at_stop.clone();
            let kept = self.disks.iter().filter(|disk| !disk.given_up).filter(|disk| {
                let own = disk.superblock.as_ref().filter(|sb| sb.array == id);
                own.is_some_and(|sb| good.contains(&sb.device))
            });
            let kept: Vec<_> = kept.map(|disk| disk.blocks).collect();
            let left = md.newest.iter().filter(|(block, newest)| {
                blocks.get(*block) == *newest && kept.iter().all(|own| own.get(*block) < *newest)
            });
            let left_to_it = left.map(|(block, _)| block).collect();
            md.parted = Some(Box::new(Parted {
                good,
                left_to_it,
                newest: md.newest,
                dirty: md.dirty,
                events_cleared: md.events_cleared,
                lacks: behind.map(|(block, _)| block).collect(),
            }));
            // Its own bitmap is that of the time when it was lost: what was missing then is marked
            // in it.
            if md.events_cleared > sb.events {
                md.dirty.clear();
                md.events_cleared = sb.events;
            }
        }
        self.bind(array, handle, sb.device, None);
        if let Some(rdev) = self.arrays[array].rdevs.last_mut() {
            rdev.slot = Some(slot);
            rdev.in_sync = true;
        }
        let md = &mut self.arrays[array];
        md.running = true;
        md.events = sb.events + 1;
        let device = md.device.clone();
        self.update_superblocks(array);
        self.uevent("add", "block", device.as_str());
        self.uevent("change", "block", device.as_str());
        true
    }

    /// A person decides between two of one array: for the side that had gone on. What the other
    /// side was told since is given up, and what stands there counts for nothing.
    pub(crate) fn decide_for_the_good(&mut self, array: usize) {
        let Some(parted) = self.arrays[array].parted.take() else { return };
        let id = self.arrays[array].id;
        let of_it = |r: &Rdev| !r.faulty && r.slot.is_some() && parted.good.contains(&r.uuid);
        let one_again = self.arrays[array].rdevs.iter().any(of_it);
        let there = self.disks.iter().filter(|disk| !disk.given_up);
        let mut disks = there.filter_map(|disk| disk.superblock.as_ref());
        let left = disks.any(|sb| sb.array == id && parted.good.contains(&sb.device));
        if one_again {
            return; // Nothing is left to decide.
        }
        if !left {
            self.arrays[array].parted = Some(parted);
            return self.decide_for_the_running(array);
        }
        if self.arrays[array].running {
            self.stop(array);
        }
        self.give_up(array, &parted.newest, |uuid| !parted.good.contains(&uuid));
        let mut newest = parted.newest;
        for (block, version) in parted.newest.iter().filter(|(b, _)| parted.left_to_it.contains(*b))
        {
            let own = self
                .disks
                .iter()
                .filter(|disk| !disk.given_up)
                .filter(|disk| disk.superblock.as_ref().is_some_and(|sb| sb.array == id));
            let held = own.map(|disk| disk.blocks.get(block)).max();
            newest.set(block, version.min(held.unwrap_or(version)));
        }
        let md = &mut self.arrays[array];
        md.newest = newest;
        md.dirty = parted.dirty;
        md.events_cleared = parted.events_cleared;
        md.good_at_stop = parted.good;
    }

    /// A person who lets a healer go on decides for the side that runs: what that lacks is given
    /// up.
    pub(crate) fn decide_for_the_running(&mut self, array: usize) {
        let Some(parted) = self.arrays[array].parted.take() else { return };
        let md = &self.arrays[array];
        let lead = md.rdevs.iter().find(|rdev| rdev.in_sync && !rdev.faulty);
        let running = lead.map(|lead| &self.disks[self.devices[lead.handle].disk.0]);
        // Or ran last.
        let ran = self.disks.iter().filter(|disk| !disk.given_up).find(|disk| {
            let own = disk.superblock.as_ref().filter(|sb| sb.array == md.id);
            own.is_some_and(|sb| md.good_at_stop.contains(&sb.device))
        });
        let Some(has) = running.or(ran).map(|disk| disk.blocks) else { return };
        let mut newest = md.newest;
        for (block, version) in md.newest.iter() {
            if parted.lacks.contains(block) {
                newest.set(block, version.min(has.get(block)));
            }
        }
        self.arrays[array].newest = newest;
        self.give_up(array, &newest, |uuid| parted.good.contains(&uuid));
    }

    /// What stands on the disks of one side counts for nothing where it is another's by now.
    fn give_up(&mut self, array: usize, newest: &Versions, of: impl Fn(MdDeviceId) -> bool) {
        let id = self.arrays[array].id;
        for disk in &mut self.disks {
            if !disk.superblock.as_ref().is_some_and(|sb| sb.array == id && of(sb.device)) {
                continue;
            }
            for (block, newest) in newest.iter() {
                if disk.blocks.get(block) > newest {
                    disk.blocks.set(block, 0);
                }
            }
        }
    }

    /// `mdadm --create --assume-clean` on fresh devices.
    pub(crate) fn create(&mut self, array: usize, legs: &[Handle]) {
        for (slot, handle) in legs.iter().enumerate() {
            self.md_uuids += 1;
            let uuid = md_device_uuid(self.md_uuids);
            self.bind(array, *handle, uuid, None);
            if let Some(rdev) = self.arrays[array].rdevs.last_mut() {
                rdev.slot = u16::try_from(slot).ok();
                rdev.in_sync = true;
            }
        }
        self.arrays[array].thread_at = None;
        self.update_superblocks(array);
        self.signals.clear();
    }
}

fn active_slot(role: MdRole) -> Option<u16> {
    match role {
        MdRole::Active(slot) => Some(slot),
        MdRole::Spare | MdRole::Faulty | MdRole::Journal => None,
    }
}

fn md_device_uuid(number: u64) -> MdDeviceId {
    let mut bytes = [0x1e; 16];
    bytes[8..].copy_from_slice(&number.to_be_bytes());
    MdDeviceId::from_bytes(bytes)
}
