//! One array of the last look, with those facts read again that change while nobody plugs anything.
//!
//! A decision that must not wait is made on facts of this moment, and a whole look takes as long as
//! the host is large. What a look finds out about identity — which namespace stands behind which
//! name, where a controller leads — does not change in the life of a kernel object. So a glance
//! asks each object whether it is still the same one, and then only for what moves:
//!
//! ```text
//!   last look                      same one?                     what moves
//!   array ──────────► md/uuid                        array_state, sync_action, degraded, inflight
//!    └─ leg ────────► block/diskseq                  state, slot, bad_blocks
//!        └─ path ───► inode of the controller        state, fast_io_fail_tmo, ana_state
//! ```
//!
//! Who is not the same any more is treated as the look would: an array is not there, a leg's device
//! is gone or unreadable, a controller is a new one, of which it is not known where it leads.
//!
//! What a glance reads stays open ([`super::Kept`]), so that the next one only reads.
//!
//! In the snapshot stand this array and every namespace that a question about it can touch: those
//! of its legs, and those that share a subsystem, a controller or an id with one of them.
//!
//! The price: what was plugged since the last look is not in it, unless it is a path to a leg. A
//! new member of the array, or a namespace nobody knew, is seen by the next look.

use heal_types::{
    ArrayId, ArraySnapshot, ArrayState, Backing, ControllerName, DeviceName, HostSnapshot,
    LegFlags, LegSnapshot, NamespaceSnapshot, Observed, PathHealth, PathSnapshot, Slot, SyncAction,
    UnknownWhy,
};

use super::array::{Member, held_by, in_flight};
use super::controller::{ana_says, path_device};
use super::kept::Place;
use super::{Hung, Kept, Seen};
use crate::sysfs::{Root, parsed};

/// Why a part of the last look is not in this one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Missing {
    Gone,
    Unreadable,
}

impl From<UnknownWhy> for Missing {
    fn from(why: UnknownWhy) -> Self {
        match why {
            UnknownWhy::Vanished => Self::Gone,
            UnknownWhy::NotReadYet
            | UnknownWhy::NotFilledYet
            | UnknownWhy::ReadFailed
            | UnknownWhy::Malformed
            | UnknownWhy::WouldBlock
            | UnknownWhy::NoAnswer
            | UnknownWhy::Unsupported => Self::Unreadable,
        }
    }
}

/// What a look would show of the array `id` of the look `seen`.
pub(crate) fn glance(root: &Root, kept: &Kept, seen: &Seen, id: ArrayId) -> HostSnapshot {
    let mut now = HostSnapshot::default();
    let mut arrays = seen.snapshot.arrays.iter().filter(|array| array.id == id);
    let last = match (arrays.next(), arrays.next()) {
        (Some(last), None) => last,
        // Two halves of one array are not told apart here either.
        (Some(one), Some(two)) => {
            now.unreadable.extend([one.device.clone(), two.device.clone()]);
            return now;
        }
        (None, _) => {
            now.unreadable.clone_from(&seen.snapshot.unreadable);
            return now;
        }
    };
    match (Eye { root, kept, seen }).array(last) {
        Ok(array) => {
            now.namespaces = namespaces(seen, last, &array);
            now.arrays.push(array);
        }
        Err(Missing::Gone) => {}
        Err(Missing::Unreadable) => now.unreadable.push(last.device.clone()),
    }
    now
}

/// Who glances, and what was seen before.
#[derive(Clone, Copy)]
struct Eye<'a> {
    root: &'a Root,
    kept: &'a Kept,
    seen: &'a Seen,
}

impl Eye<'_> {
    fn array(self, last: &ArraySnapshot) -> Result<ArraySnapshot, Missing> {
        let disk = self.kept.top(self.root, "sys/block").dir(last.device.as_str());
        let md = disk.dir("md");
        // A kernel without this attribute offers nothing else that names the array for sure.
        match md.value::<ArrayId>("uuid") {
            Observed::Known(id) if id == last.id => {}
            // Another one, or none that counts.
            Observed::Known(_) | Observed::Unknown(UnknownWhy::Malformed) => {
                return Err(Missing::Gone);
            }
            Observed::Unknown(UnknownWhy::Vanished) if !md.at().exists() => {
                return Err(Missing::Gone);
            }
            Observed::Unknown(_) => return Err(Missing::Unreadable),
        }
        let state: Observed<ArrayState> = md.value("array_state");
        if state == Observed::Known(ArrayState::Clear) {
            return Err(Missing::Gone);
        }
        let sync_action = again(md.value("sync_action"), last.sync_action);
        let mut legs = Vec::with_capacity(last.legs.len());
        for known in &last.legs {
            match self.leg(&md, last, known) {
                Ok(leg) => legs.push(leg),
                // MD let go of it.
                Err(Missing::Gone) => {}
                Err(Missing::Unreadable) => return Err(Missing::Unreadable),
            }
        }
        Ok(ArraySnapshot {
            id: last.id,
            device: last.device.clone(),
            dev: last.dev,
            alias: last.alias.clone(),
            level: last.level,
            metadata: last.metadata,
            state,
            raid_disks: last.raid_disks,
            degraded: again(md.value("degraded"), last.degraded),
            sync_action,
            sync_progress: last.sync_progress,
            reshaping: last.reshaping || sync_action == Observed::Known(SyncAction::Reshape),
            component_size: last.component_size,
            logical_block: last.logical_block,
            bitmap: last.bitmap,
            in_flight: parsed(&disk.text("inflight"), in_flight),
            legs,
        })
    }
}

/// A fact read again. What the kernel did not show before it does not show now.
fn again<T>(now: Observed<T>, last: Observed<T>) -> Observed<T> {
    match (now, last) {
        (
            Observed::Unknown(UnknownWhy::Vanished),
            last @ Observed::Unknown(UnknownWhy::Unsupported),
        ) => last,
        (now, Observed::Known(_) | Observed::Unknown(_)) => now,
    }
}

fn need<T>(fact: Observed<T>) -> Result<T, Missing> {
    match fact {
        Observed::Known(value) => Ok(value),
        Observed::Unknown(why) => Err(why.into()),
    }
}

impl Eye<'_> {
    fn leg(
        self,
        md: &Place<'_>,
        array: &ArraySnapshot,
        last: &LegSnapshot,
    ) -> Result<LegSnapshot, Missing> {
        let dir = md.dir(&["dev-", last.device.as_str()].concat());
        let flags = LegFlags::parse(&need(dir.list_text("state"))?);
        let slot = match need(dir.text("slot"))?.as_str() {
            "none" | "journal" => None,
            text => Some(Slot(text.parse().map_err(|_| Missing::Unreadable)?)),
        };
        let backing = match &last.backing {
            Backing::Namespace(known) if is_same(&dir.dir("block"), &array.device, known) => {
                Backing::Namespace(Box::new(with_paths(known, self.paths(known))))
            }
            Backing::Namespace(_) => match held_by(dir.at(), &array.device) {
                Member::Gone => Backing::Gone,
                // Another one than was seen, of which nothing is known yet.
                Member::Held(_) | Member::Unreadable(_) => Backing::Unreadable,
            },
            Backing::Local => match held_by(dir.at(), &array.device) {
                Member::Held(_) => Backing::Local,
                Member::Gone => Backing::Gone,
                Member::Unreadable(_) => Backing::Unreadable,
            },
            // What is gone does not come back: a device that returns is another one to MD.
            Backing::Gone => Backing::Gone,
            Backing::Unreadable => Backing::Unreadable,
        };
        let md_device = match backing {
            Backing::Gone => Observed::Unknown(UnknownWhy::Vanished),
            Backing::Namespace(_) | Backing::Local | Backing::Unreadable => last.md_device,
        };
        Ok(LegSnapshot {
            device: last.device.clone(),
            slot,
            flags,
            md_device,
            data_offset: last.data_offset,
            bad_blocks: dir.list_text("bad_blocks").map(|text| !text.is_empty()),
            backing,
        })
    }
}

/// Whether the disk behind a member is the one that was seen. A disk sequence number is given out
/// once; without one, the array must still be the one that holds it.
fn is_same(block: &Place<'_>, array: &DeviceName, known: &NamespaceSnapshot) -> bool {
    match known.diskseq {
        Observed::Known(then) => block.value("diskseq") == Observed::Known(then.0),
        Observed::Unknown(_) => {
            let holder = block.at().dir("holders").link_target(array.as_str());
            holder.known().is_some() && block.value("dev") == Observed::Known(known.dev)
        }
    }
}

fn with_paths(known: &NamespaceSnapshot, paths: Vec<PathSnapshot>) -> NamespaceSnapshot {
    NamespaceSnapshot {
        device: known.device.clone(),
        dev: known.dev,
        diskseq: known.diskseq,
        ids: known.ids.clone(),
        nqn: known.nqn.clone(),
        size: known.size,
        logical_block: known.logical_block,
        read_only: known.read_only,
        holders: known.holders.clone(),
        in_use: known.in_use,
        partitions: known.partitions,
        paths,
    }
}

impl Eye<'_> {
    /// The paths to a namespace that is still the same, new ones among them.
    fn paths(self, known: &NamespaceSnapshot) -> Vec<PathSnapshot> {
        match self.seen.hung.get(&known.device) {
            Some(Hung::Controller(controller)) => {
                let device = known.device.as_str();
                self.path(known, controller, device).into_iter().collect()
            }
            Some(Hung::Subsystem(subsystem)) => members(self, subsystem, known)
                .iter()
                .filter_map(|controller| {
                    let device = path_device(known.device.as_str(), controller)?;
                    self.path(known, controller, &device)
                })
                .collect(),
            None => Vec::new(),
        }
    }

    /// The path through `controller`, by way of the path device `device`, if it leads there.
    fn path(
        self,
        known: &NamespaceSnapshot,
        controller: &str,
        device: &str,
    ) -> Option<PathSnapshot> {
        let name = ControllerName::new(controller).ok()?;
        let through = self.kept.top(self.root, "sys/class/nvme").dir(controller).dir(device);
        let ana_usable = ana_says(through.text("ana_state"), || through.at().exists());
        if ana_usable == Observed::Unknown(UnknownWhy::Vanished) {
            // Another namespace of the subsystem, or the controller is gone.
            return None;
        }
        let open = self.kept.controllers().get(self.root, &name);
        let is_same = open.is_known_and(|(it, _)| self.seen.inodes.get(&name) == Some(&it.inode));
        let (state, fast_io_fail) = match open {
            Observed::Known((it, state)) => (state, it.fast_io_fail()),
            Observed::Unknown(why) => (Observed::Unknown(why), Observed::Unknown(why)),
        };
        let last = known.paths.iter().find(|path| is_same && path.controller == name);
        let unseen = UnknownWhy::NotReadYet;
        Some(PathSnapshot {
            controller: name,
            state,
            portal: last.map_or(Observed::Unknown(unseen), |path| path.portal.clone()),
            ana_usable,
            health: PathHealth::Up,
            fast_io_fail: again(
                fast_io_fail,
                last.map_or(Observed::Unknown(unseen), |path| path.fast_io_fail),
            ),
            params: last.map_or(Observed::Unknown(unseen), |path| path.params.clone()),
        })
    }
}

/// The controllers of a subsystem, in the order of a look. If they cannot be listed, those that
/// were there before.
fn members(eye: Eye<'_>, subsystem: &str, known: &NamespaceSnapshot) -> Vec<String> {
    match eye.kept.top(eye.root, "sys/class/nvme-subsystem").dir(subsystem).names() {
        Observed::Known(mut found) => {
            found.retain(|name| is_controller(name));
            found.sort_unstable();
            found
        }
        Observed::Unknown(_) => {
            known.paths.iter().map(|path| path.controller.to_string()).collect()
        }
    }
}

fn is_controller(name: &str) -> bool {
    name.strip_prefix("nvme")
        .is_some_and(|digits| !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()))
}

/// The namespaces that a question about the array can touch.
fn namespaces(seen: &Seen, last: &ArraySnapshot, now: &ArraySnapshot) -> Vec<NamespaceSnapshot> {
    let legs: Vec<&NamespaceSnapshot> = last.legs.iter().filter_map(behind).collect();
    let current: Vec<&NamespaceSnapshot> = now.legs.iter().filter_map(behind).collect();
    seen.snapshot
        .namespaces
        .iter()
        .filter_map(|namespace| {
            let is = |leg: &&&NamespaceSnapshot| leg.device == namespace.device;
            match (current.iter().find(is), legs.iter().find(is)) {
                (Some(leg), _) => Some((*leg).clone()),
                // Its device is gone, and the name is nobody's or another one's.
                (None, Some(_)) => None,
                (None, None) => {
                    legs.iter().any(|leg| concerns(namespace, leg)).then(|| namespace.clone())
                }
            }
        })
        .collect()
}

fn behind(leg: &LegSnapshot) -> Option<&NamespaceSnapshot> {
    match &leg.backing {
        Backing::Namespace(namespace) => Some(namespace),
        Backing::Local | Backing::Gone | Backing::Unreadable => None,
    }
}

/// Whether `namespace` shares a subsystem, a controller or an id with `leg`. What is not known of
/// it may be shared.
fn concerns(namespace: &NamespaceSnapshot, leg: &NamespaceSnapshot) -> bool {
    let same_subsystem = match (&namespace.nqn, &leg.nqn) {
        (Observed::Known(one), Observed::Known(other)) => one == other,
        (Observed::Known(_) | Observed::Unknown(_), Observed::Known(_) | Observed::Unknown(_)) => {
            true
        }
    };
    same_subsystem
        || namespace
            .paths
            .iter()
            .any(|path| leg.paths.iter().any(|other| other.controller == path.controller))
        || match &namespace.ids {
            Observed::Known(ids) => ids.iter().any(|id| leg.goes_by(id)),
            Observed::Unknown(_) => true,
        }
}
