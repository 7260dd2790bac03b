//! MD RAID1 and RAID10 (near 2), as `drivers/md/{md,raid1,raid10}.c` behave.
//!
//! ```text
//!            error ─► faulty, slot kept ─► slot vacated ─► removed by hand ─► gone
//!              ▲        (raid1_error)   (remove_and_add_spares)   (state_store "remove")
//!   in_sync ───┘                                                     │
//!      ▲                                                             ▼
//!      └── recovering ◄── slot given ◄── spare ◄────────────── bound (--add, --re-add)
//!         (md_do_sync)   (raid1_add_disk)
//! ```
//!
//! What is modelled is what a healer can trip over: who holds a slot, whether a leg can be taken
//! back by bitmap, what a spare turns into, and that an error on the last leg breaks the array for
//! good. What is not: request queues, barriers, and the time a superblock write takes.

use std::collections::BTreeSet;
use std::time::Duration;

use heal_types::{
    Alias, ArrayId, ArrayState, DevT, DeviceName, LegFlag, Level, MdDeviceId, MdRole, MdSuperblock,
    Moment, SectorCount, SyncAction, SyncProgress,
};

use super::controller::Controller;
use super::disk::{BLOCKS, BlockSet, Recovery, Version, Versions};
use super::fabric::{Gone, Handle};
use super::io::{Flight, Io};
use super::{FakeKernel, KernelSignal};

/// How soon MD's own thread gets to a wish (`md_wakeup_thread`).
pub(super) const THREAD: Duration = Duration::from_millis(2);
/// How long the sync thread waits before it tries a source that queues again.
const SYNC_RETRY: Duration = Duration::from_millis(100);

/// A member bound to an array (`struct md_rdev`).
#[derive(Debug, Clone)]
pub(crate) struct Rdev {
    pub(crate) handle: Handle,
    pub(crate) name: DeviceName,
    pub(crate) uuid: MdDeviceId,
    pub(crate) slot: Option<u16>,
    /// The slot it may have back without a full copy (`saved_raid_disk`).
    pub(crate) saved_slot: Option<u16>,
    pub(crate) faulty: bool,
    /// A person failed it.
    pub(crate) by_hand: bool,
    pub(crate) in_sync: bool,
    pub(crate) write_error: bool,
    pub(crate) want_replacement: bool,
    pub(crate) replacement: bool,
    pub(crate) bad_blocks: bool,
    /// Its bad blocks stay bad, whatever is written to them.
    pub(crate) stubborn: bool,
    /// Blocks below this one are filled, while it is not in sync.
    pub(crate) recovered: u16,
    pub(crate) by_bitmap: bool,
}

impl Rdev {
    pub(crate) fn flags(&self) -> Vec<LegFlag> {
        let spare = !self.faulty && !self.in_sync;
        [
            (self.faulty, LegFlag::Faulty),
            (self.in_sync, LegFlag::InSync),
            (spare, LegFlag::Spare),
            (self.write_error, LegFlag::WriteError),
            (self.want_replacement, LegFlag::WantReplacement),
            (self.replacement, LegFlag::Replacement),
        ]
        .into_iter()
        .filter_map(|(set, flag)| set.then_some(flag))
        .collect()
    }

    fn is_recovering(&self) -> bool {
        self.slot.is_some() && !self.faulty && !self.in_sync
    }
}

/// What made I/O to a last leg fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LastError {
    /// `fast_io_fail_tmo` of its controllers ran out.
    FastIoFail,
    /// The leg was isolated, or lost its connection, when it was not the last one, and the others'
    /// devices have gone since, or a person has failed them.
    Isolated,
    /// Its device went.
    DeviceGone(Gone),
    /// Somebody marked it faulty.
    ByHand,
}

/// An array (`struct mddev`), running or stopped.
#[derive(Debug, Clone)]
pub(crate) struct MdArray {
    pub(crate) id: ArrayId,
    pub(crate) device: DeviceName,
    pub(crate) dev: DevT,
    pub(crate) alias: Option<Alias>,
    pub(crate) level: Level,
    pub(crate) raid_disks: u16,
    pub(crate) component: SectorCount,
    pub(crate) data_offset: SectorCount,
    pub(crate) bitmap: bool,
    pub(crate) running: bool,
    /// A state somebody put it in, such as `readonly`.
    pub(crate) forced_state: Option<ArrayState>,
    pub(crate) frozen: bool,
    /// `MD_BROKEN`.
    pub(crate) broken: bool,
    /// What took the last leg.
    pub(crate) broken_by: Option<LastError>,
    pub(crate) events: u64,
    pub(crate) events_cleared: u64,
    /// Write-intent bits, one a block.
    pub(crate) dirty: BlockSet,
    /// The newest acknowledged version of every block.
    pub(crate) newest: Versions,
    pub(crate) next_version: Version,
    pub(crate) failed_writes: u64,
    /// The application's write under way.
    pub(crate) flight: Option<Flight>,
    pub(crate) longest_write: Duration,
    /// Superblocks that could not be written yet, because a leg's I/O waits.
    pub(crate) superblocks_behind: bool,
    pub(crate) rdevs: Vec<Rdev>,
    /// Members that were good when the array was stopped.
    pub(crate) good_at_stop: BTreeSet<MdDeviceId>,
    /// It was started from a leg that had been lost.
    pub(crate) parted: Option<Box<Parted>>,
    /// Where the sync thread stands, and when it copies the next block.
    pub(crate) sync: Option<(u16, Moment)>,
    pub(crate) thread_at: Option<Moment>,
    /// How long a full rebuild takes.
    pub(crate) rebuild: Duration,
}

/// What an array was before it was started from a leg that had been lost: there are two of it then.
#[derive(Debug, Clone)]
pub(crate) struct Parted {
    /// The legs that had gone on.
    pub(crate) good: BTreeSet<MdDeviceId>,
    /// What they hold.
    pub(crate) newest: Versions,
    pub(crate) dirty: BlockSet,
    pub(crate) events_cleared: u64,
    /// Blocks that the stale leg lacks. That is the boot's doing, and nobody else's.
    pub(crate) lacks: BlockSet,
    /// Blocks that bad media had left to the stale leg alone: what its side writes over is lost to
    /// the others, and nobody's doing.
    pub(crate) left_to_it: BlockSet,
}

impl MdArray {
    /// Whether a leg lacks this block because the array was started from a stale one, and from that
    /// one only: beside a leg of the other side it is a loss.
    fn is_known_to_lack(&self, block: u16) -> bool {
        self.parted.as_ref().is_some_and(|parted| {
            let other = |r: &&Rdev| r.in_sync && !r.faulty && parted.good.contains(&r.uuid);
            parted.lacks.contains(block) && !self.rdevs.iter().any(|r| other(&r))
        })
    }

    /// The blocks of a slot: RAID10 near 2 gives every second block to each pair.
    pub(crate) fn holds(&self, slot: u16, block: u16) -> bool {
        match self.level {
            Level::Raid10 { .. } => {
                let sets = (self.raid_disks / 2).max(1);
                block % sets == slot / 2
            }
            Level::Raid1 | Level::Other => true,
        }
    }

    /// The block of a slot that can go bad: another one for each.
    pub(crate) fn may_go_bad(&self, slot: u16) -> u16 {
        let sets = match self.level {
            Level::Raid10 { .. } => (self.raid_disks / 2).max(1),
            Level::Raid1 | Level::Other => 1,
        };
        ((8 + slot) * sets + slot / 2) % BLOCKS
    }

    fn same_set(&self, a: u16, b: u16) -> bool {
        match self.level {
            Level::Raid10 { .. } => a / 2 == b / 2,
            Level::Raid1 | Level::Other => true,
        }
    }

    /// Whether the leg in `other` holds what the one in `slot` holds.
    pub(crate) fn may_stand_in(&self, other: Option<u16>, slot: Option<u16>) -> bool {
        match (other, slot) {
            (Some(other), Some(slot)) => self.same_set(other, slot),
            (None, _) | (_, None) => false,
        }
    }

    /// `mddev->degraded`.
    pub(crate) fn degraded(&self) -> u16 {
        let whole = (0..self.raid_disks).filter(|slot| {
            (self.rdevs.iter()).any(|r| r.slot == Some(*slot) && r.in_sync && !r.faulty)
        });
        self.raid_disks - u16::try_from(whole.count()).unwrap_or(self.raid_disks)
    }

    pub(crate) fn sync_action(&self) -> SyncAction {
        if self.frozen {
            SyncAction::Frozen
        } else if self.sync.is_some() {
            SyncAction::Recover
        } else {
            SyncAction::Idle
        }
    }

    pub(crate) fn progress(&self) -> Option<SyncProgress> {
        let (next, _) = self.sync?;
        let per_block = self.component.0 / u64::from(BLOCKS);
        Some(SyncProgress { done: SectorCount(per_block * u64::from(next)), total: self.component })
    }

    /// `array_state_show`: `broken` only where it would otherwise be `clean`.
    pub(crate) fn state(&self) -> ArrayState {
        match self.forced_state {
            Some(state) => state,
            None if self.broken => ArrayState::Broken,
            None if self.flight.is_some() => ArrayState::Active,
            None => ArrayState::Clean,
        }
    }

    fn block_time(&self) -> Duration {
        self.rebuild / u32::from(BLOCKS)
    }

    /// Legs other than `index`, and those that were.
    fn others(&self, index: usize) -> impl Iterator<Item = &Rdev> {
        let others = self.rdevs.iter().enumerate().filter(move |(i, _)| *i != index);
        others.map(|(_, other)| other).filter(|o| o.saved_slot.is_some() || o.slot.is_some())
    }

    /// Whether a leg other than `index` holds every block that it holds.
    pub(crate) fn has_another(&self, index: usize) -> bool {
        let Some(slot) = self.rdevs[index].slot else {
            return true;
        };
        self.rdevs.iter().enumerate().any(|(i, other)| {
            i != index
                && other.in_sync
                && !other.faulty
                && other.slot.is_some_and(|s| self.same_set(s, slot))
        })
    }
}

impl FakeKernel {
    /// `md_error` and `raid1_error`: a leg failed. On the last good leg it is *not* marked faulty:
    /// `MD_BROKEN` is set first and every write fails until the array is stopped and assembled.
    pub(crate) fn md_error(&mut self, array: usize, index: usize) {
        let now = self.now;
        let device = &self.devices[self.arrays[array].rdevs[index].handle];
        let error = match (device.gone, self.io(self.arrays[array].rdevs[index].handle)) {
            // Nothing may be behind it while the other one was there: MD's thread is stuck
            // elsewhere.
            (Some(Gone::Deleted), _) if self.is_partner_taken(array, index) => LastError::Isolated,
            (Some(why), _) => LastError::DeviceGone(why),
            (None, Io::Fails) if self.is_left_isolated(array, index) => LastError::Isolated,
            (None, Io::Fails) => LastError::FastIoFail,
            (None, Io::Moves | Io::Waits) => LastError::ByHand,
        };
        let md = &mut self.arrays[array];
        if md.rdevs[index].faulty {
            return;
        }
        if md.rdevs[index].in_sync && !md.has_another(index) {
            if !std::mem::replace(&mut md.broken, true) {
                md.broken_by = Some(error);
                self.signals.push(KernelSignal::Md); // md_new_event, whatever the personality did.
            }
            return;
        }
        let rdev = &mut md.rdevs[index];
        // A leg that fails while it is filled from the beginning has no slot to have back.
        rdev.saved_slot = rdev.slot.filter(|_| rdev.in_sync || rdev.by_bitmap);
        rdev.in_sync = false;
        rdev.faulty = true;
        md.sync = None; // MD_RECOVERY_INTR
        md.thread_at = Some(now.after(THREAD));
        md.events += 1;
        self.update_superblocks(array);
        self.signals.push(KernelSignal::Md);
    }

    /// Whether the leg was isolated, or lost its connection, while another leg queued, and that
    /// one, which was to survive it, has no device any more, or was failed by a person, who may
    /// have added it again since.
    fn is_left_isolated(&self, array: usize, index: usize) -> bool {
        let md = &self.arrays[array];
        let rdev = &md.rdevs[index];
        let head = self.devices[rdev.handle].fabric.as_ref();
        let own = |c: &&Controller| head.is_some_and(|h| h.target == c.leads.target);
        let paths: Vec<&Controller> = self.controllers.iter().filter(own).collect();
        // Unbound meanwhile: then it was taken before, or nobody could have heard that it is.
        let unbound =
            md.others(index).next().is_none() && paths.iter().all(|c| c.covered && !c.isolated);
        paths.iter().all(|c| c.isolated || c.covered)
            && (unbound || self.is_partner_taken(array, index))
    }

    /// Whether a leg that was to survive this one has no device any more, or was failed by a
    /// person.
    fn is_partner_taken(&self, array: usize, index: usize) -> bool {
        let taken = |other: &Rdev| {
            other.by_hand || other.is_recovering() || !self.devices[other.handle].present
        };
        self.arrays[array].others(index).any(taken)
    }

    /// `raid1_end_write_request`: a failed write also makes MD wish for a replacement of the leg.
    pub(crate) fn write_failed(&mut self, array: usize, index: usize) {
        let rdev = &mut self.arrays[array].rdevs[index];
        rdev.write_error = true;
        rdev.want_replacement = true;
        self.md_error(array, index);
    }

    /// `md_update_sb`: every leg that is not faulty and can be written learns the event count and
    /// its role. A lost leg keeps what it had, which is how it is told apart later.
    pub(crate) fn update_superblocks(&mut self, array: usize) {
        let md = &self.arrays[array];
        let mut writes = Vec::new();
        let mut failed = Vec::new();
        let mut behind = false;
        for rdev in md.rdevs.iter().filter(|r| !r.faulty) {
            match self.io(rdev.handle) {
                Io::Moves => writes.push((rdev.handle, rdev.clone())),
                Io::Waits => behind = true,
                Io::Fails => failed.push(rdev.uuid),
            }
        }
        self.arrays[array].superblocks_behind = behind;
        let members = self.arrays[array].rdevs.iter();
        let active: Vec<u32> =
            members.filter(|r| !r.faulty && r.slot.is_some()).map(|r| number_of(r.uuid)).collect();
        for (handle, rdev) in writes {
            let md = &self.arrays[array];
            let disk = self.devices[handle].disk;
            let superblock = MdSuperblock {
                array: md.id,
                device: rdev.uuid,
                role: rdev.slot.map_or(MdRole::Spare, MdRole::Active),
                events: md.events,
                data_offset: md.data_offset,
                data_size: SectorCount(
                    (self.disks[disk.0].size.0).saturating_sub(md.data_offset.0),
                ),
                bad_blocks: rdev.bad_blocks,
                filling: rdev.slot.is_some() && !rdev.in_sync && !rdev.by_bitmap,
                number: number_of(rdev.uuid),
                active: active.clone(),
            };
            let recovery = match (rdev.in_sync, rdev.by_bitmap) {
                (true, _) => Recovery::Complete,
                (false, true) => Recovery::ByBitmap,
                (false, false) => Recovery::Full,
            };
            self.disks[disk.0].write_superblock(superblock, recovery);
        }
        // `super_written`: an error there is a leg's failure like any other.
        for uuid in failed {
            if let Some(index) = self.arrays[array].rdevs.iter().position(|r| r.uuid == uuid) {
                self.md_error(array, index);
            }
        }
    }

    /// One application write, which may take its time. An application that waits for one writes no
    /// other.
    pub(crate) fn md_write(&mut self, array: usize, block: u16) {
        let md = &self.arrays[array];
        if md.flight.is_some() {
            return;
        }
        if !md.running || md.broken || !md.state().is_running() {
            self.arrays[array].failed_writes += 1;
            return;
        }
        let legs: Vec<MdDeviceId> = (md.rdevs.iter())
            .filter(|r| !r.faulty && r.slot.is_some_and(|s| md.holds(s, block)))
            .map(|r| r.uuid)
            .collect();
        let version = md.next_version;
        let began = self.now;
        let md = &mut self.arrays[array];
        md.next_version += 1;
        // `bitmap_startwrite`: whatever becomes of it, this block may differ from now on.
        md.dirty.insert(block);
        let (has, filled) = (Vec::new(), Vec::new());
        md.flight = Some(Flight { block, version, began, waits: legs, has, filled });
        self.go_on(array);
    }

    /// Every leg's part of a write has ended.
    pub(crate) fn write_ended(&mut self, array: usize, flight: &Flight) {
        let took = self.now.since(flight.began);
        let md = &mut self.arrays[array];
        md.longest_write = md.longest_write.max(took);
        let kept = |r: &Rdev| r.in_sync && !r.faulty && flight.has.contains(&r.uuid);
        if !md.rdevs.iter().any(kept) {
            md.failed_writes += 1;
            return;
        }
        md.newest.set(flight.block, flight.version);
        // `bitmap_endwrite`: bits are cleared, and `events_cleared` moves, only while nothing is
        // missing. So as long as the array stays degraded a lost leg can be taken back.
        if md.degraded() == 0 {
            md.dirty.clear();
            md.events_cleared = md.events;
        }
    }

    /// Whether a write to this leg is queued: then `remove_and_add_spares` leaves the leg its slot,
    /// because `nr_pending` does not drain.
    fn has_pending(&self, array: usize, index: usize) -> bool {
        let md = &self.arrays[array];
        md.flight.as_ref().is_some_and(|flight| flight.waits.contains(&md.rdevs[index].uuid))
    }

    pub(crate) fn md_due(&self) -> Option<Moment> {
        self.arrays
            .iter()
            .filter(|array| array.running)
            .flat_map(|array| [array.thread_at, array.sync.map(|(_, at)| at)])
            .flatten()
            .min()
    }

    pub(crate) fn run_md(&mut self) {
        let now = self.now;
        for array in 0..self.arrays.len() {
            if self.arrays[array].running && self.arrays[array].thread_at.is_some_and(|t| t <= now)
            {
                self.arrays[array].thread_at = None;
                self.check_recovery(array);
            }
            if self.arrays[array].running
                && self.arrays[array].sync.is_some_and(|(_, at)| at <= now)
            {
                self.sync_one_block(array);
            }
        }
    }

    /// `md_check_recovery`: vacate the slots of faulty legs, give free slots to spares, and start
    /// to fill whatever has a slot and is not full.
    pub(crate) fn check_recovery(&mut self, array: usize) {
        let md = &self.arrays[array];
        if md.sync.is_some() || md.frozen || !md.state().is_running() && !md.broken {
            return;
        }
        if md.superblocks_behind {
            // `md_update_sb` comes first, and waits for every leg (`md_super_wait`).
            self.arrays[array].thread_at = Some(self.now.after(SYNC_RETRY));
            return;
        }
        let mut changed = self.vacate_slots(array);
        if !self.arrays[array].broken {
            for index in 0..self.arrays[array].rdevs.len() {
                changed |= self.add_disk(array, index);
            }
            changed |= self.start_recovery(array);
        }
        if changed {
            self.arrays[array].events += 1;
            self.update_superblocks(array);
            self.signals.push(KernelSignal::Md);
        }
    }

    /// `raid1_remove_disk` through `remove_and_add_spares`. A replacement whose original is gone
    /// moves into its place and goes on as a plain rebuild.
    fn vacate_slots(&mut self, array: usize) -> bool {
        let mut changed = false;
        for index in 0..self.arrays[array].rdevs.len() {
            let rdev = &self.arrays[array].rdevs[index];
            let Some(slot) = rdev.slot.filter(|_| rdev.faulty) else {
                continue;
            };
            if self.has_pending(array, index) {
                self.arrays[array].thread_at = Some(self.now.after(SYNC_RETRY));
                continue;
            }
            let md = &mut self.arrays[array];
            let was_replacement = md.rdevs[index].replacement;
            md.rdevs[index].slot = None;
            md.rdevs[index].replacement = false;
            if !was_replacement
                && let Some(heir) =
                    md.rdevs.iter_mut().find(|r| r.slot == Some(slot) && r.replacement)
            {
                heir.replacement = false;
            }
            changed = true;
        }
        changed
    }

    /// `raid1_add_disk`: the first slot that is empty *or* whose leg wishes for a replacement. A
    /// leg that comes back looks at its own old slot first.
    fn add_disk(&mut self, array: usize, index: usize) -> bool {
        let md = &mut self.arrays[array];
        let rdev = &md.rdevs[index];
        if rdev.slot.is_some() || rdev.faulty {
            return false;
        }
        let taken = |slot: u16| md.rdevs.iter().any(|r| r.slot == Some(slot) && !r.replacement);
        let mut choice = rdev
            .saved_slot
            .filter(|slot| *slot < md.raid_disks && !taken(*slot))
            .map(|slot| (slot, false));
        for slot in 0..md.raid_disks {
            if choice.is_some() {
                break;
            }
            if !taken(slot) {
                choice = Some((slot, false));
            } else if md
                .rdevs
                .iter()
                .any(|r| r.slot == Some(slot) && r.want_replacement && !r.faulty)
                && !md.rdevs.iter().any(|r| r.slot == Some(slot) && r.replacement)
            {
                choice = Some((slot, true));
            }
        }
        let Some((slot, replacement)) = choice else {
            return false;
        };
        let rdev = &mut md.rdevs[index];
        rdev.by_bitmap = rdev.saved_slot == Some(slot) && !replacement;
        rdev.slot = Some(slot);
        rdev.replacement = replacement;
        rdev.recovered = 0;
        true
    }

    fn start_recovery(&mut self, array: usize) -> bool {
        let now = self.now;
        let md = &mut self.arrays[array];
        if !md.rdevs.iter().any(Rdev::is_recovering) {
            return false;
        }
        let from = md.rdevs.iter().filter(|r| r.is_recovering()).map(|r| r.recovered).min();
        md.sync = Some((from.unwrap_or(0), now.after(md.block_time())));
        true
    }

    /// `md_do_sync`, one block of it. Blocks that no leg needs are passed over without a copy.
    fn sync_one_block(&mut self, array: usize) {
        let Some((block, _)) = self.arrays[array].sync else {
            return;
        };
        let md = &self.arrays[array];
        let needy: Vec<usize> = (md.rdevs.iter().enumerate())
            .filter(|(_, r)| r.is_recovering() && r.recovered <= block)
            .filter(|(_, r)| !r.by_bitmap || md.dirty.contains(block))
            .filter(|(_, r)| r.slot.is_some_and(|s| md.holds(s, block)))
            .map(|(i, _)| i)
            .collect();
        if !needy.is_empty() {
            let Some(version) = self.read_for_sync(array, block) else {
                return;
            };
            for index in needy {
                let Some(version) = version else {
                    // No leg in sync can read it: `raid1_sync_request` marks it bad on the targets.
                    self.cannot_read(array, index, block);
                    continue;
                };
                let handle = self.arrays[array].rdevs[index].handle;
                if self.io_waits(handle) {
                    self.retry_sync(array);
                    return;
                }
                if !self.io_moves(handle) {
                    self.write_failed(array, index);
                    return;
                }
                let disk = self.devices[handle].disk;
                // Never written by the application: whatever stands there is copied as well.
                self.disks[disk.0].write(block, version);
                if self.is_bad(&self.arrays[array].rdevs[index], block) {
                    self.can_read(array, index); // R1BIO_MadeGood
                }
            }
        }
        self.after_block(array, block);
    }

    /// Reads one block from a good leg; `None` when it has to wait or nothing can be read,
    /// `Some(None)` where every leg in sync has it in its list of bad blocks.
    fn read_for_sync(&mut self, array: usize, block: u16) -> Option<Option<Version>> {
        let md = &self.arrays[array];
        let sources: Vec<usize> = (md.rdevs.iter().enumerate())
            .filter(|(_, r)| r.in_sync && !r.faulty)
            .filter(|(_, r)| r.slot.is_some_and(|s| md.holds(s, block)))
            .map(|(i, _)| i)
            .collect();
        let bad = |index: &usize| self.is_bad(&md.rdevs[*index], block);
        let (lacking, sources): (Vec<_>, Vec<_>) = sources.into_iter().partition(bad);
        if sources.is_empty() && !lacking.is_empty() {
            return Some(None);
        }
        for index in &sources {
            let handle = self.arrays[array].rdevs[*index].handle;
            if self.io_moves(handle) {
                let disk = self.devices[handle].disk;
                return Some(Some(self.disks[disk.0].blocks.get(block)));
            }
        }
        if sources.iter().any(|i| self.io_waits(self.arrays[array].rdevs[*i].handle)) {
            self.retry_sync(array);
        } else if let Some(last) = sources.first() {
            self.md_error(array, *last);
            self.arrays[array].sync = None;
        }
        None
    }

    fn retry_sync(&mut self, array: usize) {
        let at = self.now.after(SYNC_RETRY);
        if let Some((_, next)) = &mut self.arrays[array].sync {
            *next = at;
        }
    }

    fn after_block(&mut self, array: usize, block: u16) {
        let now = self.now;
        let md = &mut self.arrays[array];
        for rdev in md.rdevs.iter_mut().filter(|r| r.is_recovering() && r.recovered <= block) {
            rdev.recovered = block + 1;
        }
        let mut next = block + 1;
        // `md_do_sync` skips what every recovering leg can do without.
        while next < BLOCKS
            && !md
                .rdevs
                .iter()
                .any(|r| r.is_recovering() && (!r.by_bitmap || md.dirty.contains(next)))
        {
            next += 1;
        }
        if next >= BLOCKS {
            md.sync = None;
            self.spare_active(array);
            return;
        }
        md.sync = Some((next, now.after(md.block_time())));
        // A checkpoint every sixteenth of the array (`sync_completed`).
        if block / (BLOCKS / 16) != next / (BLOCKS / 16) {
            self.signals.push(KernelSignal::Md);
        }
    }

    /// `raid1_spare_active`: what was filled is in sync; a leg whose replacement is complete is
    /// marked faulty.
    fn spare_active(&mut self, array: usize) {
        let now = self.now;
        let md = &mut self.arrays[array];
        let mut replaced = Vec::new();
        for rdev in md.rdevs.iter_mut().filter(|r| r.is_recovering()) {
            if let Some(flight) = md.flight.as_mut().filter(|f| f.filled.contains(&rdev.uuid)) {
                flight.has.push(rdev.uuid);
            }
            rdev.in_sync = true;
            rdev.by_bitmap = false;
            rdev.saved_slot = None;
            if rdev.replacement {
                replaced.extend(rdev.slot);
            }
        }
        for rdev in md.rdevs.iter_mut().filter(|r| !r.replacement && !r.faulty) {
            if rdev.slot.is_some_and(|slot| replaced.contains(&slot)) {
                rdev.in_sync = false;
                rdev.faulty = true;
                rdev.saved_slot = None;
            }
        }
        md.events += 1;
        md.thread_at = Some(now.after(THREAD));
        if md.degraded() == 0 {
            md.dirty.clear();
            md.events_cleared = md.events;
        }
        self.update_superblocks(array);
        self.signals.push(KernelSignal::Md);
    }

    /// Every block that a leg in sync should hold and does not, as text.
    pub(crate) fn lost_blocks(&self, md: &MdArray) -> impl Iterator<Item = String> {
        let good = md.rdevs.iter().filter(|r| r.in_sync && !r.faulty);
        let disk = |rdev: &Rdev| &self.disks[self.devices[rdev.handle].disk.0];
        // Mostly there is nothing to look for.
        let good = good.filter(move |rdev| disk(rdev).blocks != md.newest);
        good.flat_map(move |rdev| {
            let disk = disk(rdev);
            // What was not acknowledged may be there all the same.
            let behind =
                md.newest.iter().filter(|(block, version)| disk.blocks.get(*block) < *version);
            let held = behind.filter(|(block, _)| {
                rdev.slot.is_some_and(|s| md.holds(s, *block))
                    && !md.is_known_to_lack(*block)
                    && !self.is_bad(rdev, *block)
            });
            held.map(|(block, version)| {
                let has = disk.blocks.get(block);
                format!(
                    "{}: block {block} of {} is version {has}, acknowledged was {version}",
                    md.device, rdev.name
                )
            })
        })
    }
}

/// A member's number: here as good as its UUID, which it is made from.
pub(super) fn number_of(uuid: MdDeviceId) -> u32 {
    let words = uuid.as_bytes().chunks_exact(4);
    words.fold(0, |number: u32, word| {
        let word = word.iter().fold(0, |word: u32, byte| word << 8 | u32::from(*byte));
        number.rotate_left(7) ^ word
    })
}
