//! One look at everything: sysfs in, [`HostSnapshot`] out.
//!
//! ```text
//!   /sys/class/nvme/nvme*  ─► controllers ─┐
//!   /proc/{mounts, swaps}  ─► usage ───────┼─► namespaces ──┐
//!   /sys/block/nvme*n*  ───────────────────┘                ├─► arrays, legs ─► HostSnapshot
//!   /sys/block/md*/md, /run/udev/data  ─────────────────────┘
//! ```
//!
//! The look is bottom-up, so that each thing is read once: controllers before namespaces,
//! namespaces before legs. It is linear in what the host has.
//!
//! What could not be read is never left out in silence. A single fact becomes `Unknown`; an array
//! of which a fact is missing that every conclusion needs is listed as unreadable. If `/sys/block`
//! itself cannot be read, every array that was seen before is unreadable: an empty snapshot would
//! say that they are gone.
//!
//! Two things deserve suspicion, because the names under `/sys` do not say who somebody is:
//!
//! - **A leg's `block` link** is written as a path at each reading. When the device is gone and
//!   another one took its name, the link leads to the stranger. Who is held by an array says so
//!   himself: his `holders` directory names it.
//! - **A controller's name** goes to the next controller. What is remembered of one is kept under
//!   the inode of its directory, which the kernel does not give out twice.
//!
//! A `glance` is the look's small sister: one array of the last look, with only those facts read
//! again that change while nobody plugs anything.
//!
//! The price: a snapshot is no instant. The kernel goes on while it is read, so whoever acts on it
//! checks again, right before the act.

mod array;
mod controller;
mod glance;
mod kept;
mod namespace;
mod opened;
mod params;
mod udevdb;
mod usage;

use std::collections::BTreeMap;
use std::sync::Arc;

use heal_types::{ControllerName, DeviceName, HostSnapshot, Nqn, Observed, Portal, UnknownWhy};

use crate::sysfs::Root;
use array::ArrayRead;
use params::Fixed;

pub(crate) use controller::path_device;
pub(crate) use glance::glance;
pub(crate) use kept::Kept;
pub(crate) use namespace::Hung;
pub(crate) use opened::{FAST_IO_FAIL, Opened};

/// What one look leaves to the next.
#[derive(Debug, Default)]
pub struct PortalCache {
    portals: BTreeMap<ControllerName, Arc<Remembered>>,
    /// Arrays of the last look that could list them.
    arrays: Vec<DeviceName>,
}

/// What cannot change in a controller's life.
#[derive(Debug, Clone)]
pub(crate) struct Remembered {
    pub(crate) inode: u64,
    pub(crate) nqn: Nqn,
    pub(crate) portal: Portal,
    pub(crate) fixed: Observed<Fixed>,
    /// Whether the controller was live when it was read.
    pub(crate) read_live: bool,
}

impl PortalCache {
    /// A cache that knows nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn recall(&self, name: &ControllerName, inode: u64, nqn: &Nqn) -> Option<&Arc<Remembered>> {
        self.portals.get(name).filter(|known| known.inode == inode && known.nqn == *nqn)
    }

    fn remember(&mut self, name: &ControllerName, known: Arc<Remembered>) {
        self.portals.insert(name.clone(), known);
    }

    fn keep_only(&mut self, present: impl Fn(&ControllerName) -> bool) {
        self.portals.retain(|name, _| present(name));
    }
}

/// A look, and what it takes to look at a part of it again.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// What was seen.
    pub(crate) snapshot: HostSnapshot,
    /// Every controller, with the inode of its directory.
    pub(crate) inodes: BTreeMap<ControllerName, u64>,
    /// Every controller of which it is known where it leads.
    pub(crate) controllers: BTreeMap<ControllerName, Arc<Remembered>>,
    /// What each namespace hangs on.
    pub(crate) hung: BTreeMap<DeviceName, Hung>,
}

impl From<HostSnapshot> for Seen {
    fn from(snapshot: HostSnapshot) -> Self {
        Self { snapshot, ..Self::default() }
    }
}

/// One look at the host below `root`.
pub fn look(root: &Root, cache: &mut PortalCache) -> HostSnapshot {
    survey(root, cache).snapshot
}

/// The same, with what a [`glance`] needs of it.
pub(crate) fn survey(root: &Root, cache: &mut PortalCache) -> Seen {
    let block = root.dir("sys/block");
    let names = match block.entries() {
        Observed::Known(names) => names,
        Observed::Unknown(why) => return nothing_known(cache, "block devices", why).into(),
    };
    let fabric = match controller::Fabric::read(root, cache) {
        Ok(fabric) => fabric,
        Err(why) => return nothing_known(cache, "nvme controllers", why).into(),
    };
    let usage = usage::Usage::read(root);
    let namespaces = namespace::Namespaces::read(&block, &names, &fabric, &usage);

    let mut snapshot = HostSnapshot::default();
    let mut seen = Vec::new();
    for name in names.iter().filter(|name| name.starts_with("md")) {
        let Ok(device) = DeviceName::new(name.as_str()) else {
            continue;
        };
        match array::read(root, &block.dir(name), &device, &namespaces) {
            ArrayRead::Array(array) => {
                seen.push(device);
                snapshot.arrays.push(*array);
            }
            ArrayRead::Unreadable => {
                seen.push(device.clone());
                snapshot.unreadable.push(device);
            }
            ArrayRead::NoArray => {}
        }
    }
    let (namespaces, hung) = namespaces.into_snapshots();
    snapshot.namespaces = namespaces;
    snapshot.controllers = fabric.snapshots();
    cache.arrays = seen;
    Seen { snapshot, inodes: fabric.inodes(), controllers: cache.portals.clone(), hung }
}

/// The answer when a list that everything rests on could not be read.
fn nothing_known(cache: &PortalCache, list: &'static str, why: UnknownWhy) -> HostSnapshot {
    tracing::warn!(list, %why, "the host could not be looked at");
    HostSnapshot { unreadable: cache.arrays.clone(), ..HostSnapshot::default() }
}
