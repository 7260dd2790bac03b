//! NVMe over fabrics as a host sees it: targets far away, controllers and namespaces here.
//!
//! ```text
//!   FarTarget             Controller (here)      BlockDevice (here)
//!     nqn, portals  ◄────   one a portal    ──►    nvme1n1: a name, a number, a sequence number
//!     namespace ─► Disk                            held by MD, it outlives its last path
//! ```
//!
//! A name is given to the first free number (`nvme_alloc_ns_head`: `ida_alloc_min` in the
//! subsystem), and a head that somebody still holds keeps its number. So a namespace that returns
//! while MD holds its dead predecessor comes as `nvme1n2`, and one that returns later gets the old
//! name back, on a new disk.

use std::time::Duration;

use heal_types::{
    Backing, ControllerName, ControllerSnapshot, ControllerState, DevT, DeviceName, DiskSeq,
    Moment, NamespaceIds, NamespaceSnapshot, Nqn, Observed, Outcome, PathHealth, PathSnapshot,
    Portal, RefusedWhy, UnknownWhy,
};

use super::controller::Controller;
use super::disk::DiskId;
use super::{FakeKernel, KernelSignal};

/// How long after a block device appeared its attributes may still be empty.
const FILL: Duration = Duration::from_millis(5);

/// A place in the list of targets, which never shrinks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct TargetId(pub(crate) usize);

/// A subsystem with one namespace, somewhere in the network.
#[derive(Debug, Clone)]
pub(crate) struct FarTarget {
    pub(crate) nqn: Nqn,
    pub(crate) portals: Vec<FarPortal>,
    pub(crate) reachable: bool,
    /// Its TCP lives and answers keep-alives, its I/O does not end.
    pub(crate) frozen: bool,
    pub(crate) ids: NamespaceIds,
    pub(crate) exported: bool,
    pub(crate) disk: DiskId,
}

/// One address of a subsystem.
#[derive(Debug, Clone)]
pub(crate) struct FarPortal {
    pub(crate) portal: Portal,
    /// The link of this host that leads there.
    pub(crate) link: usize,
    pub(crate) ana_usable: bool,
}

/// A block device on this host, present or only held.
#[derive(Debug, Clone)]
pub(crate) struct BlockDevice {
    pub(crate) name: DeviceName,
    pub(crate) dev: DevT,
    pub(crate) diskseq: DiskSeq,
    /// The subsystem and its instance and head numbers; `None` for a local disk.
    pub(crate) fabric: Option<Head>,
    pub(crate) disk: DiskId,
    pub(crate) present: bool,
    /// Why it is not present.
    pub(crate) gone: Option<Gone>,
    pub(crate) filled_at: Moment,
}

/// Why a block device went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gone {
    /// Its target does not export it any more.
    Unexported,
    /// The kernel or another tool gave its last controller up.
    GivenUp,
    /// The healer deleted its last controller.
    Deleted,
}

/// Where a namespace's block device belongs.
#[derive(Debug, Clone)]
pub(crate) struct Head {
    pub(crate) nqn: Nqn,
    pub(crate) target: TargetId,
    pub(crate) ids: NamespaceIds,
    pub(crate) subsystem: u32,
    pub(crate) number: u32,
}

/// A place in the list of block devices, which never shrinks: a handle stays what it was.
pub(crate) type Handle = usize;

/// Makes one of the kernel's names.
pub(crate) fn name<T>(text: String) -> T
where
    T: TryFrom<String>,
    T::Error: std::fmt::Debug,
{
    T::try_from(text).expect("the names made here are letters and digits")
}

pub(crate) fn first_free(taken: impl Fn(u32) -> bool, from: u32) -> u32 {
    (from..).find(|n| !taken(*n)).expect("there are more numbers than devices")
}

impl FakeKernel {
    pub(crate) fn target_id(&self, nqn: &Nqn) -> Option<TargetId> {
        self.targets.iter().position(|target| target.nqn == *nqn).map(TargetId)
    }

    pub(crate) fn target(&self, nqn: &Nqn) -> Option<&FarTarget> {
        self.targets.iter().find(|target| target.nqn == *nqn)
    }

    pub(crate) fn target_mut(&mut self, nqn: &Nqn) -> Option<&mut FarTarget> {
        self.targets.iter_mut().find(|target| target.nqn == *nqn)
    }

    pub(crate) fn holders(&self, handle: Handle) -> Vec<DeviceName> {
        self.arrays
            .iter()
            .filter(|array| array.running && array.rdevs.iter().any(|r| r.handle == handle))
            .map(|array| array.device.clone())
            .collect()
    }

    fn is_alive(&self, handle: Handle) -> bool {
        self.devices[handle].present || !self.holders(handle).is_empty()
    }

    pub(crate) fn living(&self) -> impl Iterator<Item = &BlockDevice> {
        (0..self.devices.len())
            .filter(|handle| self.is_alive(*handle))
            .map(|handle| &self.devices[handle])
    }

    /// Makes a local disk appear, such as a loop device.
    pub(crate) fn new_local_device(&mut self, disk: DiskId) -> Handle {
        let taken = |n: u32| self.living().any(|d| d.dev == DevT { major: 7, minor: n });
        let minor = first_free(taken, 0);
        self.push_device(name(format!("loop{minor}")), DevT { major: 7, minor }, None, disk)
    }

    fn push_device(
        &mut self,
        name: DeviceName,
        dev: DevT,
        fabric: Option<Head>,
        disk: DiskId,
    ) -> Handle {
        self.diskseq += 1;
        self.devices.push(BlockDevice {
            name,
            dev,
            diskseq: DiskSeq(self.diskseq),
            fabric,
            disk,
            present: true,
            gone: None,
            filled_at: self.now.after(FILL),
        });
        self.devices.len() - 1
    }

    /// `nvme_scan_ns`: makes the head of a namespace that its target exports and this host lacks.
    pub(crate) fn scan_namespaces(&mut self, nqn: &Nqn) {
        let Some(id) = self.target_id(nqn) else {
            return;
        };
        let target = &self.targets[id.0];
        let (exported, ids, disk) = (target.exported, target.ids.clone(), target.disk);
        let live = self
            .controllers
            .iter()
            .filter(|c| c.leads.target == id)
            .any(|c| c.state == ControllerState::Live && c.scan_at.is_none());
        let present = self
            .devices
            .iter()
            .any(|d| d.present && d.fabric.as_ref().is_some_and(|h| h.target == id));
        if !live || !exported || present {
            return;
        }
        let subsystem = self.subsystem_instance(nqn);
        let number = {
            let taken = |n: u32| {
                self.living()
                    .filter_map(|d| d.fabric.as_ref())
                    .any(|h| h.subsystem == subsystem && h.number == n)
            };
            first_free(taken, 1)
        };
        let minor = {
            let taken = |n: u32| self.living().any(|d| d.dev == DevT { major: 259, minor: n });
            first_free(taken, 0)
        };
        let head = Head { nqn: nqn.clone(), target: id, ids, subsystem, number };
        let device: DeviceName = name(format!("nvme{subsystem}n{number}"));
        self.push_device(device.clone(), DevT { major: 259, minor }, Some(head), disk);
        self.uevent("add", "block", device.as_str());
    }

    /// A subsystem takes the number of its first controller and keeps it while a head lives.
    fn subsystem_instance(&self, nqn: &Nqn) -> u32 {
        let of_head = self
            .living()
            .filter_map(|d| d.fabric.as_ref())
            .find(|h| h.nqn == *nqn)
            .map(|h| h.subsystem);
        let of_controller = || {
            let own = self.controllers.iter().filter(|c| c.nqn == *nqn);
            own.map(|c| c.instance).min()
        };
        of_head.or_else(of_controller).unwrap_or(0)
    }

    /// `nvme_ns_remove`: the last path is gone, so the disk goes. MD is told nothing; it learns it
    /// from its next I/O.
    pub(crate) fn remove_heads(&mut self, nqn: &Nqn, why: Gone) {
        let mut gone = Vec::new();
        self.note_who_is_covered();
        for device in &mut self.devices {
            if device.present && device.fabric.as_ref().is_some_and(|h| h.nqn == *nqn) {
                device.present = false;
                device.gone = Some(why);
                gone.push(device.name.clone());
            }
        }
        for device in gone {
            self.uevent("remove", "block", device.as_str());
        }
    }

    pub(crate) fn uevent(&mut self, action: &str, subsystem: &str, device: &str) {
        self.signals.push(KernelSignal::Uevent { what: format!("{action} {subsystem}/{device}") });
    }

    /// `nvme disconnect` of these controllers, if they are all there are and nothing uses them.
    pub(crate) fn disconnect(&mut self, nqn: &Nqn, expected: &[ControllerName]) -> Outcome {
        let own = self.controllers.iter().filter(|c| c.nqn == *nqn);
        let own: Vec<ControllerName> = own.map(|c| c.name.clone()).collect();
        if own.is_empty() {
            return Outcome::AlreadySo;
        }
        if let Some(other) = own.iter().find(|c| !expected.contains(c)) {
            return guarded(format!("{other} was not there before"));
        }
        let used = (0..self.devices.len()).find(|handle| {
            let device = &self.devices[*handle];
            device.present
                && device.fabric.as_ref().is_some_and(|h| h.nqn == *nqn)
                && (self.disks[device.disk.0].in_use || !self.holders(*handle).is_empty())
        });
        if let Some(used) = used {
            return guarded(format!("{} is in use", self.devices[used].name));
        }
        self.delete_controllers(nqn, Gone::Deleted);
        Outcome::Changed
    }

    pub(crate) fn namespace_snapshot(&self, handle: Handle) -> Option<NamespaceSnapshot> {
        let device = &self.devices[handle];
        let head = device.fabric.as_ref().filter(|_| device.present)?;
        let disk = &self.disks[device.disk.0];
        let ids = if self.now < device.filled_at {
            Observed::Unknown(UnknownWhy::NotFilledYet)
        } else {
            Observed::Known(head.ids.clone())
        };
        let paths = (self.controllers.iter())
            .filter(|c| c.leads.target == head.target)
            .map(|c| self.path_snapshot(c))
            .collect();
        Some(NamespaceSnapshot {
            device: device.name.clone(),
            dev: device.dev,
            diskseq: Observed::Known(device.diskseq),
            ids,
            nqn: Observed::Known(head.nqn.clone()),
            size: Observed::Known(disk.size),
            logical_block: Observed::Known(disk.logical_block),
            read_only: Observed::Known(disk.read_only),
            holders: Observed::Known(self.holders(handle)),
            in_use: Observed::Known(disk.in_use),
            partitions: Observed::Known(disk.partitions),
            paths,
        })
    }

    /// Where a controller leads is told of every one, live or not (`nvme_class_uevent`).
    pub(super) fn controller_snapshot(controller: &Controller) -> ControllerSnapshot {
        ControllerSnapshot {
            name: controller.name.clone(),
            nqn: Observed::Known(controller.nqn.clone()),
            portal: Observed::Known(controller.portal.clone()),
            fast_io_fail: Observed::Known(controller.fast_io_fail),
        }
    }

    /// How it was connected is read while it is live, and remembered by whoever reads.
    fn path_snapshot(&self, controller: &Controller) -> PathSnapshot {
        let is_live = controller.state == ControllerState::Live;
        let known = is_live || self.remembered.contains(&controller.serial);
        PathSnapshot {
            controller: controller.name.clone(),
            state: Observed::Known(controller.state),
            portal: Observed::Known(controller.portal.clone()),
            ana_usable: Observed::Known(self.ana_usable(controller)),
            health: PathHealth::Up,
            fast_io_fail: Observed::Known(controller.fast_io_fail),
            params: if known {
                Observed::Known(Box::new(controller.params.clone()))
            } else {
                Observed::Unknown(UnknownWhy::WouldBlock)
            },
        }
    }

    pub(crate) fn backing(&self, handle: Handle) -> Backing {
        let device = &self.devices[handle];
        if !device.present {
            Backing::Gone
        } else if let Some(namespace) = self.namespace_snapshot(handle) {
            Backing::Namespace(Box::new(namespace))
        } else {
            Backing::Local
        }
    }
}

pub(crate) fn guarded(detail: String) -> Outcome {
    Outcome::Refused(RefusedWhy::Guard { detail })
}

pub(crate) fn refused_state(detail: String) -> Outcome {
    Outcome::Refused(RefusedWhy::NotInThatState { detail })
}
