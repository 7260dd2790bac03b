//! A kernel that exists only in memory: MD, NVMe over fabrics, and the two tools that change them.
//!
//! The rules are the real kernel's, one by one, each named in the code by the function it comes
//! from (`raid1_error`, `remove_and_add_spares`, `super_1_validate`, `nvme_alloc_ns_head`, …). It
//! is as unhelpful as the real one: it says nothing when a path dies or a leg fails except to
//! whoever polls MD, it reuses names, it overwrites a file system without a word, and it breaks an
//! array for good when its last leg fails.
//!
//! ```text
//!   far away            this host                                       what a healer sees
//!   FarTarget ── Link ─► Controller ─► BlockDevice ◄─ held by ─ MdArray ──► look(): HostSnapshot
//!      │                                    │                      │
//!      └─────────────── Disk ◄──────────────┴── reads, writes ─────┘      signals: md, uevents, link,
//!                                                                                  log
//! ```
//!
//! **Time** is an argument: [`FakeKernel::advance_to`] lets recoveries copy, workloads write and
//! lost controllers give up, in order, up to a moment, and stops where something is signalled.
//! **Content** is versions: [`FakeKernel::verify_data`] names every block that a leg in sync should
//! hold and does not.
//!
//! **I/O** moves, waits or fails, by what becomes of the controllers (`controller.rs`): a write
//! waits for every leg, and [`FakeKernel::longest_write`] says for how long.
//!
//! The price: what is not modelled cannot go wrong here. Queue depths, writes that a target
//! executes late, udev and `blkid` are the laboratory's business.

mod controller;
pub(crate) mod disk;
pub(crate) mod fabric;
mod hands;
mod io;
mod isolate;
mod links;
mod look;
pub(crate) mod md;
mod members;
mod state;
mod tools;

use std::collections::BTreeSet;
use std::time::Duration;

use heal_types::{
    Alias, ArrayId, ArrayState, ControllerName, ControllerState, DeviceName, FastIoFail,
    HostAction, HostAnswer, HostPort, HostSnapshot, IfIndex, MdSuperblock, Moment, NamespaceId,
    Nqn, Outcome,
};

use controller::Controller;
use disk::{BLOCKS, Disk, DiskId, Versions};
pub use fabric::Gone;
use fabric::{BlockDevice, FarTarget, Head};
use links::Link;
pub use look::Blur;
pub use md::LastError;
use md::MdArray;
pub use tools::ToolFault;

/// What the kernel lets a listener know. Anything else has to be looked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KernelSignal {
    /// `/proc/mdstat` or an attribute of an array woke its poller (`md_new_event`,
    /// `sysfs_notify_dirent_safe`).
    Md,
    /// A uevent of the kernel group.
    Uevent {
        /// `ACTION SUBSYSTEM/DEVICE`.
        what: String,
    },
    /// rtnetlink: a link lost or got its carrier.
    Link {
        /// Which interface.
        index: IfIndex,
        /// Whether it has carrier.
        up: bool,
    },
    /// The kernel's log speaks of a controller: error recovery begins.
    Log {
        /// Which.
        controller: ControllerName,
    },
    /// The kernel's log speaks of a namespace: no path is usable, and its I/O is queued.
    NoPath,
}

/// An application that writes to every array, one block at a time.
#[derive(Debug, Clone)]
pub(crate) struct Workload {
    pub(crate) every: Duration,
    pub(crate) next: Moment,
    pub(crate) writes: u64,
}

/// An application comes back to each block after so many writes.
const COMES_ROUND: u64 = 256;

/// Most writes go to a few blocks, as applications do, and every eighth one anywhere.
fn next_block(writes: u64) -> u16 {
    let hot = u64::from(BLOCKS / 16);
    let block = if writes % 8 == 0 { writes / 8 % u64::from(BLOCKS) } else { writes % hot };
    u16::try_from(block).unwrap_or(0)
}

/// The kernel. See the module's head.
#[derive(Debug, Clone)]
pub struct FakeKernel {
    pub(crate) now: Moment,
    pub(crate) links: Vec<Link>,
    pub(crate) targets: Vec<FarTarget>,
    pub(crate) disks: Vec<Disk>,
    pub(crate) controllers: Vec<Controller>,
    pub(crate) devices: Vec<BlockDevice>,
    pub(crate) arrays: Vec<MdArray>,
    pub(crate) signals: Vec<KernelSignal>,
    pub(crate) diskseq: u64,
    pub(crate) md_uuids: u64,
    pub(crate) workload: Option<Workload>,
    tool_faults: Vec<(&'static str, ToolFault)>,
    pub(crate) blurs: Vec<Blur>,
    /// How long a controller's queues drain.
    pub(crate) drain: Duration,
    /// No line of the log before this moment says that a path is missing (`printk_ratelimit`).
    pub(crate) quiet_until: Moment,
    /// Counts controllers.
    pub(crate) serials: u64,
    /// Controllers of which a reader of sysfs knows how they were connected.
    pub(crate) remembered: BTreeSet<u64>,
}

impl FakeKernel {
    /// A host without disks, at `now`.
    #[must_use]
    pub fn new(now: Moment) -> Self {
        Self {
            now,
            links: Vec::new(),
            targets: Vec::new(),
            disks: Vec::new(),
            controllers: Vec::new(),
            devices: Vec::new(),
            arrays: Vec::new(),
            signals: Vec::new(),
            diskseq: 0,
            md_uuids: 0,
            workload: None,
            tool_faults: Vec::new(),
            blurs: Vec::new(),
            drain: controller::DRAIN,
            quiet_until: now,
            serials: 0,
            remembered: BTreeSet::new(),
        }
    }

    pub(crate) fn new_disk(&mut self, disk: Disk) -> DiskId {
        self.disks.push(disk);
        DiskId(self.disks.len() - 1)
    }

    /// When something happens by itself next, if at all.
    #[must_use]
    pub fn next_due(&self) -> Option<Moment> {
        [self.fabric_due(), self.md_due(), self.workload.as_ref().map(|w| w.next)]
            .into_iter()
            .flatten()
            .min()
    }

    /// Lets time pass up to `to`, or up to the first moment at which something is signalled.
    /// Answers with the moment reached.
    pub fn advance_to(&mut self, to: Moment) -> Moment {
        while self.signals.is_empty() {
            match self.next_due().filter(|due| *due <= to) {
                Some(due) => {
                    self.now = self.now.max(due);
                    self.run_due();
                }
                None => {
                    self.now = self.now.max(to);
                    break;
                }
            }
        }
        self.now
    }

    fn run_due(&mut self) {
        self.run_fabric();
        self.run_md();
        self.run_workload();
    }

    fn run_workload(&mut self) {
        let now = self.now;
        let Some(workload) = self.workload.as_mut().filter(|w| w.next <= now) else {
            return;
        };
        workload.next = now.after(workload.every);
        workload.writes += 1;
        let block = next_block(workload.writes);
        let comes_round = workload.writes % COMES_ROUND == 0;
        for array in 0..self.arrays.len() {
            if !self.arrays[array].running {
                continue;
            }
            self.md_write(array, block);
            if comes_round {
                self.write_over_bad_blocks(array);
            }
        }
        self.watch_io();
    }

    /// Lets an application write one block to every array now and then, or stop.
    pub fn set_workload(&mut self, every: Option<Duration>) {
        self.workload =
            every.map(|every| Workload { every, next: self.now.after(every), writes: 0 });
    }

    /// What was signalled since the last call.
    pub fn take_signals(&mut self) -> Vec<KernelSignal> {
        std::mem::take(&mut self.signals)
    }

    /// Every block that a leg in sync should hold and does not; empty when no data is lost.
    #[must_use]
    pub fn verify_data(&self) -> Vec<String> {
        self.lost().collect()
    }

    pub(crate) fn lost(&self) -> impl Iterator<Item = String> {
        self.arrays.iter().filter(|md| md.running).flat_map(|md| self.lost_blocks(md))
    }

    /// Writes that an application was told had failed.
    #[must_use]
    pub fn failed_writes(&self) -> u64 {
        self.arrays.iter().map(|array| array.failed_writes).sum()
    }

    /// Whether anything was ever written to that subsystem's namespace through this host.
    #[must_use]
    pub fn was_written_to(&self, nqn: &Nqn) -> bool {
        self.target(nqn).is_some_and(|target| self.disks[target.disk.0].written)
    }

    /// Whether this host has a controller of that subsystem, in whatever state.
    #[must_use]
    pub fn has_controllers(&self, nqn: &Nqn) -> bool {
        self.controllers.iter().any(|controller| controller.nqn == *nqn)
    }

    /// The array as `/proc/mdstat` draws it: `[UU_]`. `None` while it is not there.
    #[must_use]
    pub fn picture(&self, array: ArrayId) -> Option<String> {
        let index = self.array_index(array)?;
        let md = &self.arrays[index];
        // A leg and its complete replacement share a slot for a moment: either will do.
        let leg = |slot| {
            let good = |r: &md::Rdev| r.slot == Some(slot) && r.in_sync && !r.faulty;
            if md.rdevs.iter().any(good) { 'U' } else { '_' }
        };
        let legs: String = (0..md.raid_disks).map(leg).collect();
        Some(format!("[{legs}]"))
    }

    /// Rebuild progress in percent, while one runs.
    #[must_use]
    pub fn rebuild_percent(&self, array: ArrayId) -> Option<u8> {
        let index = self.array_index(array)?;
        self.arrays[index].progress().map(heal_types::SyncProgress::percent)
    }

    /// Whether a leg of the array has blocks that MD must not read.
    #[must_use]
    pub fn has_bad_blocks(&self, array: ArrayId) -> bool {
        let arrays = self.arrays.iter().filter(|md| md.id == array);
        arrays.flat_map(|md| &md.rdevs).any(|rdev| rdev.bad_blocks)
    }

    /// Whether an error hit the array's last leg.
    #[must_use]
    pub fn is_broken(&self, array: ArrayId) -> bool {
        self.arrays.iter().any(|md| md.id == array && md.broken)
    }

    /// What hit the array's last leg.
    #[must_use]
    pub fn broken_by(&self, array: ArrayId) -> Option<LastError> {
        self.arrays.iter().find(|md| md.id == array).and_then(|md| md.broken_by)
    }

    pub(crate) fn array_index(&self, id: ArrayId) -> Option<usize> {
        self.arrays.iter().position(|array| array.id == id && array.running)
    }

    /// The array member that stands on the namespace `id`, and whether it is in sync.
    #[must_use]
    pub fn leg_of(&self, id: &NamespaceId) -> Option<LegTruth> {
        self.leg_where(|head| head.ids.contains(id))
    }

    /// The same for a replica: a leg that only goes by the same id, a clone, is not it.
    #[must_use]
    pub fn leg_of_replica(&self, id: &NamespaceId, nqn: &Nqn) -> Option<LegTruth> {
        self.leg_where(|head| head.ids.contains(id) && head.nqn == *nqn)
    }

    fn leg_where(&self, is_it: impl Fn(&Head) -> bool) -> Option<LegTruth> {
        let running = self.arrays.iter().filter(|md| md.running);
        let all = running.flat_map(|md| md.rdevs.iter().map(move |rdev| (md.id, rdev)));
        let on_it = all.filter(|(_, rdev)| {
            let head = self.devices[rdev.handle].fabric.as_ref();
            head.is_some_and(&is_it)
        });
        // A member that failed may still be bound beside the one that took its place.
        let (array, rdev) = on_it.min_by_key(|(_, rdev)| rdev.faulty)?;
        Some(LegTruth {
            array,
            device: rdev.name.clone(),
            in_sync: rdev.in_sync && !rdev.faulty,
            faulty: rdev.faulty,
        })
    }

    /// How many legs other than the one bound as `leg` hold every block it holds (RAID10: those of
    /// its mirror set), with nothing to be seen against their paths: a black hole or a frozen
    /// target cannot be. A leg without a slot holds nothing that could be missed.
    #[must_use]
    pub fn good_legs_beside(&self, array: ArrayId, leg: Option<&DeviceName>) -> usize {
        let Some(index) = self.array_index(array) else {
            return 0;
        };
        let md = &self.arrays[index];
        let slot = md.rdevs.iter().find(|r| Some(&r.name) == leg).and_then(|r| r.slot);
        md.rdevs
            .iter()
            .filter(|r| r.in_sync && !r.faulty && Some(&r.name) != leg)
            .filter(|r| slot.is_none() || md.may_stand_in(r.slot, slot))
            .filter(|r| self.looks_good(r.handle))
            .count()
    }

    /// Whether a leg beside the one in `slot` has every block of it, and answers.
    pub(crate) fn is_full_beside(&self, array: ArrayId, slot: u16) -> bool {
        self.array_index(array).is_some_and(|index| {
            let md = &self.arrays[index];
            let full = |r: &&md::Rdev| r.in_sync && !r.faulty && !r.bad_blocks;
            let mut beside = md.rdevs.iter().filter(full).filter(|r| r.slot != Some(slot));
            beside.any(|r| {
                md.may_stand_in(r.slot, Some(slot))
                    && self.looks_good(r.handle)
                    && self.io_moves(r.handle)
            })
        })
    }

    /// Whether nothing is to be seen against any slot of the array.
    #[must_use]
    pub fn every_leg_is_good(&self, array: ArrayId) -> bool {
        self.array_index(array).is_some_and(|index| {
            let md = &self.arrays[index];
            md.degraded() == 0
                && md.rdevs.iter().all(|r| {
                    !r.faulty
                        && !r.bad_blocks
                        && self.looks_good(r.handle)
                        && self.io_moves(r.handle)
                })
        })
    }

    /// Whether the attributes of the device of that name and id can be read; one that is not there
    /// cannot be read wrongly.
    pub(crate) fn is_filled_in(&self, device: &DeviceName, id: &NamespaceId) -> bool {
        let mut found = self.devices.iter().filter(|d| d.present && d.name == *device);
        found.all(|d| {
            let is_it = d.fabric.as_ref().is_some_and(|head| head.ids.contains(id));
            !is_it || d.filled_at <= self.now
        })
    }

    /// Devices whose attributes cannot be read now.
    pub(crate) fn unfilled(&self) -> Vec<DeviceName> {
        let unfilled = self.devices.iter().filter(|d| d.present && d.filled_at > self.now);
        unfilled.map(|d| d.name.clone()).collect()
    }

    /// Whether the ids of everything that is bound to the array can be read, and none of it is
    /// among those whose ids could not be.
    pub(crate) fn every_leg_has_a_name(&self, array: ArrayId, nameless: &[DeviceName]) -> bool {
        let mut legs = self.arrays.iter().filter(|md| md.id == array).flat_map(|md| &md.rdevs);
        legs.all(|rdev| {
            self.devices[rdev.handle].filled_at <= self.now && !nameless.contains(&rdev.name)
        })
    }

    /// A block of which no disk holds the newest acknowledged version any more. What the
    /// provisioner was let delete counts only where `may_count` says so of the array.
    pub(crate) fn copyless_block(&self, may_count: impl Fn(ArrayId) -> bool) -> Option<String> {
        self.arrays.iter().find_map(|md| {
            let own = |disk: &&Disk| {
                let there = !disk.copy && (!disk.given_up || may_count(md.id));
                there && disk.superblock.as_ref().is_some_and(|sb| sb.array == md.id)
            };
            let (block, version) = md.newest.iter().find(|(block, version)| {
                let mut own = self.disks.iter().filter(own);
                *version > 0 && !own.any(|disk| disk.blocks.get(*block) >= *version)
            })?;
            Some(format!("{}: no disk holds version {version} of block {block}", md.device))
        })
    }

    fn looks_good(&self, handle: usize) -> bool {
        let device = &self.devices[handle];
        let Some(head) = device.fabric.as_ref() else { return device.present };
        let mut paths = self.controllers.iter().filter(|c| c.leads.target == head.target);
        device.present
            && paths.any(|path| {
                path.state == ControllerState::Live
                    && self.ana_usable(path)
                    && self.links[path.leads.link].carrier
            })
    }

    /// Whether the device of the leg bound as `leg` is not there any more.
    pub(crate) fn is_gone(&self, array: ArrayId, leg: &DeviceName) -> bool {
        self.array_index(array).is_some_and(|index| {
            let mut rdevs = self.arrays[index].rdevs.iter();
            rdevs.any(|rdev| rdev.name == *leg && !self.devices[rdev.handle].present)
        })
    }

    /// How many legs other than the one bound as `leg` MD counts in sync in its mirror set.
    #[must_use]
    pub fn in_sync_beside(&self, array: ArrayId, leg: &DeviceName) -> usize {
        let Some(index) = self.array_index(array) else {
            return 0;
        };
        let md = &self.arrays[index];
        // One that MD took out of its slot already is still the leg of that slot.
        let slot = md.rdevs.iter().find(|r| r.name == *leg).and_then(|r| r.slot.or(r.saved_slot));
        md.rdevs
            .iter()
            .filter(|r| r.in_sync && !r.faulty && r.name != *leg && md.may_stand_in(r.slot, slot))
            .count()
    }

    /// Whether one leg holds what the other one holds.
    #[must_use]
    pub fn stands_beside(&self, array: ArrayId, leg: &DeviceName, other: &DeviceName) -> bool {
        let Some(index) = self.array_index(array) else { return false };
        let md = &self.arrays[index];
        let slot = |name: &DeviceName| {
            let rdev = md.rdevs.iter().find(|rdev| rdev.name == *name)?;
            rdev.slot.or(rdev.saved_slot)
        };
        md.may_stand_in(slot(other), slot(leg))
    }

    /// Whether a member is bound under that name.
    #[must_use]
    pub fn is_bound_as(&self, array: ArrayId, leg: &DeviceName) -> bool {
        self.array_index(array)
            .is_some_and(|index| self.arrays[index].rdevs.iter().any(|rdev| rdev.name == *leg))
    }

    /// Whether MD has failed that leg.
    #[must_use]
    pub fn is_faulty(&self, array: ArrayId, leg: &DeviceName) -> bool {
        self.array_index(array).is_some_and(|index| {
            self.arrays[index].rdevs.iter().any(|r| r.name == *leg && r.faulty)
        })
    }

    /// What really stands on a device of that name now.
    #[must_use]
    pub fn content_of(&self, device: &DeviceName) -> Option<heal_types::Content> {
        let found = self.devices.iter().find(|d| d.present && d.name == *device)?;
        Some(self.disks[found.disk.0].content())
    }

    /// Puts an array into a state, such as `readonly`, or back.
    pub fn force_state(&mut self, array: ArrayId, state: Option<ArrayState>) {
        if let Some(index) = self.array_index(array) {
            self.arrays[index].forced_state = state;
            self.arrays[index].thread_at = Some(self.now);
            self.signals.push(KernelSignal::Md);
        }
    }

    /// What udev has found of the array's name; nobody hears of that.
    pub fn set_alias(&mut self, array: ArrayId, alias: Option<Alias>) {
        if let Some(index) = self.array_index(array) {
            self.arrays[index].alias = alias;
        }
    }

    /// Another tool freezes the array's sync thread, or lets it go on.
    pub fn freeze(&mut self, array: ArrayId, frozen: bool) {
        if let Some(index) = self.array_index(array) {
            self.arrays[index].frozen = frozen;
            self.arrays[index].thread_at = Some(self.now);
            self.signals.push(KernelSignal::Md);
        }
    }

    /// What could not be written can be, and the application writes it.
    pub fn mend_blocks(&mut self, array: ArrayId) {
        if let Some(index) = self.array_index(array) {
            self.arrays[index].rdevs.iter_mut().for_each(|rdev| rdev.stubborn = false);
            self.write_over_bad_blocks(index);
        }
    }

    /// Stops an array, as `mdadm --stop` does.
    pub fn stop_array(&mut self, array: ArrayId) {
        if let Some(index) = self.array_index(array) {
            self.stop(index);
        }
    }

    /// Assembles a stopped array from what is present.
    pub fn assemble_array(&mut self, array: ArrayId) {
        let stopped = self.arrays.iter().position(|md| md.id == array && !md.running);
        if let Some(index) = stopped {
            self.assemble(index);
        }
    }

    /// Starts a stopped array from one leg, whatever others may know: at a boot they came too late.
    /// Answers whether it runs.
    pub fn start_array_from(&mut self, array: ArrayId, leg: &NamespaceId) -> bool {
        let stopped = self.arrays.iter().position(|md| md.id == array && !md.running);
        stopped.is_some_and(|index| self.start_alone(index, leg))
    }

    /// Whether the array was started from a leg that had been lost, so that there are two of it.
    #[must_use]
    pub fn is_parted(&self, array: ArrayId) -> bool {
        self.arrays.iter().any(|md| md.id == array && md.parted.is_some())
    }

    /// A person stops an array of which there are two, and takes the side that had gone on.
    pub fn decide_for_the_good_side(&mut self, array: ArrayId) {
        if let Some(index) = self.arrays.iter().position(|md| md.id == array) {
            self.decide_for_the_good(index);
        }
    }

    /// A person lets a healer go on with an array of which there are two.
    pub fn decide_for_the_running_side(&mut self, array: ArrayId) {
        if let Some(index) = self.array_index(array) {
            self.decide_for_the_running(index);
        }
    }

    /// Whether somebody stands outside whom no leg in sync can vouch for: all that were there when
    /// it left have been replaced since, or are lost.
    #[must_use]
    pub fn has_a_stranger_of_its_own(&self, array: ArrayId) -> bool {
        let Some(index) = self.array_index(array) else { return false };
        let md = &self.arrays[index];
        let on = |handle: usize| self.disks[self.devices[handle].disk.0].superblock.as_ref();
        let good = md.rdevs.iter().filter(|rdev| rdev.in_sync && !rdev.faulty);
        let numbers: Vec<u32> = good.filter_map(|rdev| Some(on(rdev.handle)?.number)).collect();
        let own = |sb: &&MdSuperblock| sb.array == array && !numbers.contains(&sb.number);
        let kept = self.disks.iter().filter(|disk| !disk.given_up);
        let outside = kept.filter_map(|disk| disk.superblock.as_ref()).filter(own);
        let mut strange = outside.filter(|sb| !numbers.iter().any(|own| sb.active.contains(own)));
        strange.next().is_some()
    }

    /// The provisioner deletes what stands behind that subsystem.
    pub fn deleted(&mut self, nqn: &Nqn) {
        let disk = self.target(nqn).map(|target| target.disk);
        if let Some(disk) = disk {
            self.disks[disk.0].given_up = true;
            self.remove_namespace(nqn);
        }
    }

    /// The target stops exporting its namespace: an asynchronous event makes the host drop it.
    pub fn remove_namespace(&mut self, nqn: &Nqn) {
        if let Some(target) = self.target_mut(nqn) {
            target.exported = false;
        }
        self.remove_heads(nqn, Gone::Unexported);
        self.io_moved();
    }

    /// The target exports its namespace again.
    pub fn restore_namespace(&mut self, nqn: &Nqn) {
        if self.target(nqn).is_some_and(|target| self.disks[target.disk.0].given_up) {
            return; // What was deleted does not come back.
        }
        if let Some(target) = self.target_mut(nqn) {
            target.exported = true;
        }
        self.scan_namespaces(nqn);
        self.io_moved();
    }

    /// The cables to a target are pulled: their links lose carrier, and I/O to it waits.
    pub fn lose_path(&mut self, nqn: &Nqn) {
        for link in self.links_of(nqn) {
            self.set_carrier(&link, false);
        }
    }

    /// A target dies with everything on it; the host's own links stay up, and nobody is told.
    pub fn target_vanishes(&mut self, nqn: &Nqn) {
        if let Some(target) = self.target_mut(nqn) {
            target.reachable = false;
        }
        self.reached_differently();
    }

    /// The target answers again, by every cable.
    pub fn restore_path(&mut self, nqn: &Nqn) {
        if let Some(target) = self.target_mut(nqn) {
            target.reachable = true;
            target.frozen = false;
        }
        self.set_ana(nqn, true);
        for link in self.links_of(nqn) {
            self.set_black_hole(&link, false);
            self.set_carrier(&link, true);
        }
        self.reached_differently();
    }

    /// The host boots: every controller is connected anew, with what it is connected with by
    /// default.
    pub fn reconnect_by_default(&mut self) {
        for controller in &mut self.controllers {
            controller.fast_io_fail = FastIoFail::Off;
        }
    }

    /// Whoever reads sysfs is another process now, and does not know how what is not live was
    /// connected.
    pub fn forget_readings(&mut self) {
        self.remembered.clear();
    }

    /// A passing write error on a leg: MD keeps the leg and wishes for a replacement of it.
    pub fn hiccup(&mut self, id: &NamespaceId) {
        for md in self.arrays.iter_mut().filter(|md| md.running) {
            for rdev in &mut md.rdevs {
                let head = self.devices[rdev.handle].fabric.as_ref();
                if head.is_some_and(|head| head.ids.contains(id)) {
                    rdev.write_error = true;
                    rdev.want_replacement = true;
                }
            }
        }
        self.signals.push(KernelSignal::Md);
    }

    /// A medium silently returns old content: what a check of the data must find.
    pub fn corrupt(&mut self, id: &NamespaceId) {
        let disks: Vec<DiskId> =
            self.targets.iter().filter(|t| t.ids.contains(id)).map(|t| t.disk).collect();
        for disk in disks {
            self.disks[disk.0].blocks = Versions::none();
        }
    }

    /// The last leg of an array on local disks fails.
    pub fn fail_local_leg(&mut self, array: ArrayId) {
        if let Some(index) = self.array_index(array)
            && let Some(last) = self.arrays[index].rdevs.len().checked_sub(1)
        {
            self.md_error(index, last);
        }
    }

    /// The next action of that verb goes wrong in this way.
    pub fn spoil_next(&mut self, verb: &'static str, fault: ToolFault) {
        self.tool_faults.push((verb, fault));
    }

    /// Every tool works again.
    pub fn mend_tools(&mut self) {
        self.tool_faults.clear();
    }
}

/// Where a namespace stands in an array, as the kernel really has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LegTruth {
    /// The array.
    pub array: ArrayId,
    /// The name it is bound under.
    pub device: DeviceName,
    /// Whether MD counts it as holding every block.
    pub in_sync: bool,
    /// Whether MD gave it up.
    pub faulty: bool,
}

impl HostPort for FakeKernel {
    fn look(&mut self) -> HostSnapshot {
        let live = self.controllers.iter().filter(|c| c.state == ControllerState::Live);
        let live: Vec<u64> = live.map(|c| c.serial).collect();
        self.remembered.extend(live);
        self.snapshot()
    }

    /// The array alone; what shares something with it is not told apart from the rest.
    fn glance(&mut self, array: ArrayId) -> HostSnapshot {
        let mut snapshot = self.snapshot();
        snapshot.arrays.retain(|found| found.id == array);
        snapshot
    }

    fn act(&mut self, action: &HostAction) -> HostAnswer {
        let verb = action.verb();
        let spoiled = self.tool_faults.iter().position(|(v, _)| *v == verb);
        match spoiled.map(|at| self.tool_faults.remove(at).1) {
            None => self.carry_out(action),
            Some(fault) => {
                if fault.happens_anyway() {
                    let _ = self.carry_out(action);
                }
                fault.outcome().into()
            }
        }
    }
}

pub(crate) fn changed_if(changed: bool) -> Outcome {
    if changed { Outcome::Changed } else { Outcome::AlreadySo }
}
