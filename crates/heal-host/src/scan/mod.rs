//! One look at everything: sysfs in, [`HostSnapshot`] out.
//!
//! ```text
//!   /sys/class/nvme/nvme*  ─► controllers ─┐
//!   /proc/{mounts, swaps}  ─► usage ───────┼─► namespaces ──┐
//!   /sys/block/nvme*n*  ───────────────────┘                ├─► arrays, legs ─► HostSnapshot
//!   /sys/block/md*/md, /run/udev/data  ─────────────────────┘
//! ```
//!
//! The look is bottom-up, so that each thing is read once: controllers before namespaces, namespaces
//! before legs. It is linear in what the host has.
//!
//! What could not be read is never left out in silence. A single fact becomes `Unknown`; an array of
//! which a fact is missing that every conclusion needs is listed as unreadable. If `/sys/block` itself
//! cannot be read, every array that was seen before is unreadable: an empty snapshot would say that
//! they are gone.
//!
//! Two things deserve suspicion, because the names under `/sys` do not say who somebody is:
//!
//! - **A leg's `block` link** is written as a path at each reading. When the device is gone and another
//!   one took its name, the link leads to the stranger. Who is held by an array says so himself: his
//!   `holders` directory names it.
//! - **A controller's name** goes to the next controller. What is remembered of one is kept under the
//!   inode of its directory, which the kernel does not give out twice.
//!
//! The price: a snapshot is no instant. The kernel goes on while it is read, so whoever acts on it
//! checks again, right before the act.

mod array;
mod controller;
mod namespace;
mod udevdb;
mod usage;

use std::collections::BTreeMap;

use heal_types::{ControllerName, DeviceName, HostSnapshot, Nqn, Observed, Portal, UnknownWhy};

use crate::sysfs::Root;
use array::ArrayRead;

/// What one look leaves to the next.
#[derive(Debug, Default)]
pub struct PortalCache {
    portals: BTreeMap<ControllerName, Remembered>,
    /// Arrays of the last look that could list them.
    arrays: Vec<DeviceName>,
}

/// The portal of one controller: it cannot change in the controller's life.
#[derive(Debug)]
struct Remembered {
    inode: u64,
    nqn: Nqn,
    portal: Portal,
}

impl PortalCache {
    /// A cache that knows nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn portal(&self, name: &ControllerName, inode: u64, nqn: &Nqn) -> Option<&Portal> {
        self.portals
            .get(name)
            .filter(|known| known.inode == inode && known.nqn == *nqn)
            .map(|known| &known.portal)
    }

    fn remember(&mut self, name: &ControllerName, inode: u64, nqn: &Nqn, portal: &Portal) {
        let known = Remembered { inode, nqn: nqn.clone(), portal: portal.clone() };
        self.portals.insert(name.clone(), known);
    }

    fn keep_only(&mut self, present: impl Fn(&ControllerName) -> bool) {
        self.portals.retain(|name, _| present(name));
    }
}

/// One look at the host below `root`.
pub fn look(root: &Root, cache: &mut PortalCache) -> HostSnapshot {
    let block = root.dir("sys/block");
    let names = match block.entries() {
        Observed::Known(names) => names,
        Observed::Unknown(why) => return nothing_known(cache, "block devices", why),
    };
    let fabric = match controller::Fabric::read(root, cache) {
        Ok(fabric) => fabric,
        Err(why) => return nothing_known(cache, "nvme controllers", why),
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
    snapshot.namespaces = namespaces.into_snapshots();
    cache.arrays = seen;
    snapshot
}

/// The answer when a list that everything rests on could not be read.
fn nothing_known(cache: &PortalCache, list: &'static str, why: UnknownWhy) -> HostSnapshot {
    tracing::warn!(list, %why, "the host could not be looked at");
    HostSnapshot { unreadable: cache.arrays.clone(), ..HostSnapshot::default() }
}
