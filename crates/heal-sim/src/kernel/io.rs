//! What becomes of I/O: it moves, it waits, or it fails; and the application's writes under way.
//!
//! ```text
//!   write ──► every leg that holds the block ──► moves: written
//!                                            ──► fails: raid1_error
//!                                            ──► waits: the write is under way until it does not
//! ```
//!
//! A write is acknowledged when every leg's part of it has ended, and not before (`r1_bio`'s
//! `remaining`): marking a leg faulty does not end what was sent to it. So one leg that neither
//! works nor fails stops the application, and that is all that isolation is about.

use std::time::Duration;

use heal_types::{ArrayId, ControllerState, MdDeviceId, Moment};

use super::disk::Version;
use super::fabric::Handle;
use super::links::Reach;
use super::{FakeKernel, KernelSignal};

/// The log repeats itself no more often than this.
const LOG_PAUSE: Duration = Duration::from_secs(5);

/// What becomes of I/O to a device now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Io {
    /// It ends well.
    Moves,
    /// It neither ends nor fails.
    Waits,
    /// It ends with an error.
    Fails,
}

/// A write of the application that has not ended.
#[derive(Debug, Clone)]
pub(crate) struct Flight {
    pub(crate) block: u16,
    pub(crate) version: Version,
    pub(crate) began: Moment,
    /// Legs whose part of it has not ended.
    pub(crate) waits: Vec<MdDeviceId>,
    /// Legs in sync that have it.
    pub(crate) has: Vec<MdDeviceId>,
    /// Legs that have it and were being filled.
    pub(crate) filled: Vec<MdDeviceId>,
}

impl FakeKernel {
    pub(crate) fn io(&self, handle: Handle) -> Io {
        let device = &self.devices[handle];
        if !device.present {
            return Io::Fails;
        }
        let Some(head) = &device.fabric else { return Io::Moves };
        if let Some(path) = self.chosen_path(head.target) {
            return match self.reach(path) {
                Reach::Answers => Io::Moves,
                Reach::Frozen | Reach::Nothing => Io::Waits,
            };
        }
        // `nvme_available_path`: one that is live, or may be again, makes the head queue.
        let mut paths = self.controllers.iter().filter(|c| c.leads.target == head.target);
        let may_return = paths.any(|c| {
            match c.state {
                ControllerState::Live | ControllerState::Resetting => true,
                ControllerState::Connecting => !c.expired,
                // A delete that hangs has not failed anything yet.
                ControllerState::Deleting => true,
                ControllerState::New | ControllerState::DeletingNoIo | ControllerState::Dead => {
                    false
                }
            }
        });
        if may_return { Io::Waits } else { Io::Fails }
    }

    /// Whether I/O to the device moves now.
    pub(crate) fn io_moves(&self, handle: Handle) -> bool {
        self.io(handle) == Io::Moves
    }

    /// Whether I/O to the device waits.
    pub(crate) fn io_waits(&self, handle: Handle) -> bool {
        self.io(handle) == Io::Waits
    }

    /// Whether anybody waits for I/O to the device: an application's write, or a recovery.
    pub(crate) fn is_waited_for(&self, handle: Handle) -> bool {
        self.io_waits(handle)
            && self.arrays.iter().filter(|md| md.running).any(|md| {
                md.rdevs.iter().any(|rdev| {
                    let written = md.flight.as_ref().is_some_and(|f| f.waits.contains(&rdev.uuid));
                    rdev.handle == handle && (written || md.sync.is_some())
                })
            })
    }

    /// Something about paths changed: writes under way end where they can.
    pub(crate) fn io_moved(&mut self) {
        for array in 0..self.arrays.len() {
            if self.arrays[array].running {
                self.go_on(array);
                if self.arrays[array].superblocks_behind {
                    self.update_superblocks(array);
                }
            }
        }
        self.watch_io();
    }

    /// Ends what can be ended of an array's write under way.
    pub(crate) fn go_on(&mut self, array: usize) {
        let Some(mut flight) = self.arrays[array].flight.take() else { return };
        let waits = std::mem::take(&mut flight.waits);
        for uuid in waits {
            let Some(index) = self.arrays[array].rdevs.iter().position(|r| r.uuid == uuid) else {
                continue; // Unbound: its part was ended with an error.
            };
            self.send(array, index, &mut flight);
        }
        if !flight.waits.is_empty() {
            self.arrays[array].flight = Some(flight);
            return;
        }
        self.write_ended(array, &flight);
    }

    /// Sends a write's part to one leg.
    pub(crate) fn send(&mut self, array: usize, index: usize, flight: &mut Flight) {
        let rdev = &self.arrays[array].rdevs[index];
        let (handle, uuid, in_sync) = (rdev.handle, rdev.uuid, rdev.in_sync);
        match self.io(handle) {
            // A block that could not be written is not tried again (`raid1_write_request`), while
            // another leg takes it.
            Io::Moves if rdev.stubborn && self.is_bad(rdev, flight.block) => {
                if self.arrays[array].has_another(index) {
                    return;
                }
                self.can_read(array, index);
                self.send(array, index, flight);
            }
            Io::Moves => {
                if self.is_bad(rdev, flight.block) {
                    self.can_read(array, index);
                }
                let disk = self.devices[handle].disk;
                self.disks[disk.0].write(flight.block, flight.version);
                self.count_completed(handle);
                let who = if in_sync { &mut flight.has } else { &mut flight.filled };
                who.push(uuid);
            }
            Io::Fails => self.write_failed(array, index),
            Io::Waits => {
                self.log_no_path(handle);
                flight.waits.push(uuid);
            }
        }
    }

    /// "no usable path - requeuing I/O" (`nvme_ns_head_submit_bio`), if that is so.
    fn log_no_path(&mut self, handle: Handle) {
        let head = self.devices[handle].fabric.as_ref();
        let chosen = head.and_then(|head| self.chosen_path(head.target)).is_some();
        if !chosen && self.now >= self.quiet_until {
            self.quiet_until = self.now.after(LOG_PAUSE);
            self.signals.push(KernelSignal::NoPath);
        }
    }

    fn count_completed(&mut self, handle: Handle) {
        let head = self.devices[handle].fabric.as_ref();
        let serial = head.and_then(|head| self.chosen_path(head.target)).map(|path| path.serial);
        if let Some(path) = self.controllers.iter_mut().find(|c| Some(c.serial) == serial) {
            path.completed += 1;
        }
    }

    /// Writes that the application waits for now: nobody but it is counted here.
    #[must_use]
    pub fn in_flight(&self, array: ArrayId) -> u64 {
        let index = self.array_index(array);
        index.map_or(0, |index| u64::from(self.arrays[index].flight.is_some()))
    }

    /// How long the application's longest write took so far, the one under way included.
    #[must_use]
    pub fn longest_write(&self, array: ArrayId) -> Duration {
        let Some(md) = self.arrays.iter().find(|md| md.id == array) else {
            return Duration::ZERO;
        };
        let open = md.flight.as_ref().map(|flight| self.now.since(flight.began));
        md.longest_write.max(open.unwrap_or_default())
    }

    /// Forgets how long writes took so far.
    pub fn forget_stalls(&mut self) {
        for md in &mut self.arrays {
            md.longest_write = Duration::ZERO;
        }
    }
}
