//! NVMe controllers and the subsystems they belong to.

use std::collections::BTreeMap;
use std::sync::Arc;

use heal_types::{
    ConnectParams, ControllerName, ControllerSnapshot, ControllerState, FastIoFail, Nqn, Observed,
    PathHealth, PathSnapshot, Portal, TransportAddress, TransportKind, UnknownWhy,
};

use super::params::{self, Fixed};
use super::{PortalCache, Remembered};
use crate::sysfs::{Dir, Root, parsed};

/// A subsystem's port when the kernel shows none (IANA's NVMe over Fabrics port).
const DEFAULT_PORT: u16 = 4420;

/// Every controller and every subsystem, each read once.
#[derive(Debug)]
pub(super) struct Fabric {
    controllers: BTreeMap<String, Controller>,
    subsystems: BTreeMap<String, Subsystem>,
}

/// One controller.
#[derive(Debug)]
pub(super) struct Controller {
    name: ControllerName,
    dir: Dir,
    kind: Kind,
    nqn: Observed<Nqn>,
    state: Observed<ControllerState>,
    inode: Observed<u64>,
    portal: Observed<Portal>,
    fast_io_fail: Observed<FastIoFail>,
    params: Observed<Box<ConnectParams>>,
}

/// What kind of controller it is, as far as this product tells them apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Fabric(TransportKind),
    /// PCIe, loop, Fibre Channel.
    Other,
    Unreadable,
}

/// One subsystem, as native multipath shows it.
#[derive(Debug)]
pub(super) struct Subsystem {
    nqn: Observed<Nqn>,
    /// Names of its controllers.
    members: Vec<String>,
}

/// Where a namespace's block device hangs in the device tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Parent<'a> {
    /// Below a subsystem: native multipath, any number of paths.
    Subsystem(&'a str),
    /// Below one controller: that path and no other.
    Controller(&'a str),
}

impl Fabric {
    /// Reads all of it. A list that cannot be read is an error: half a list of controllers would
    /// say that paths are gone.
    pub(super) fn read(root: &Root, cache: &mut PortalCache) -> Result<Self, UnknownWhy> {
        let class = root.dir("sys/class/nvme");
        let mut controllers = BTreeMap::new();
        for name in entries(&class)? {
            let Ok(valid) = ControllerName::new(name.as_str()) else {
                continue;
            };
            if let Some(controller) = Controller::read(root, class.dir(&name), valid, cache) {
                controllers.insert(name, controller);
            }
        }
        cache.keep_only(|name| controllers.contains_key(name.as_str()));

        let class = root.dir("sys/class/nvme-subsystem");
        let mut subsystems = BTreeMap::new();
        for name in entries(&class)? {
            let dir = class.dir(&name);
            let mut members = entries(&dir)?;
            members.retain(|entry| controllers.contains_key(entry));
            let nqn = dir.value("subsysnqn");
            subsystems.insert(name, Subsystem { nqn, members });
        }
        Ok(Self { controllers, subsystems })
    }

    /// The NQN of the subsystem a namespace belongs to.
    pub(super) fn nqn(&self, parent: Parent<'_>) -> Observed<Nqn> {
        let nqn = match parent {
            Parent::Subsystem(name) => self.subsystems.get(name).map(|found| &found.nqn),
            Parent::Controller(name) => self.controllers.get(name).map(|found| &found.nqn),
        };
        nqn.cloned().unwrap_or(Observed::Unknown(UnknownWhy::Vanished))
    }

    /// Whether a namespace comes over TCP or RDMA. Where no controller is left to say so, a device
    /// below the virtual NVMe devices is taken for one: "local" would be a claim.
    pub(super) fn is_remote(&self, parent: Parent<'_>) -> bool {
        let mut none = true;
        for controller in self.controllers_of(parent) {
            none = false;
            match controller.kind {
                Kind::Fabric(_) | Kind::Unreadable => return true,
                Kind::Other => {}
            }
        }
        none
    }

    /// The paths to the namespace `device`.
    pub(super) fn paths(&self, parent: Parent<'_>, device: &str) -> Vec<PathSnapshot> {
        self.controllers_of(parent)
            .filter_map(|controller| controller.path_to(parent, device))
            .collect()
    }

    /// Every controller that is remote, or may be.
    pub(super) fn snapshots(&self) -> Vec<ControllerSnapshot> {
        let remote = |controller: &&Controller| match controller.kind {
            Kind::Fabric(_) | Kind::Unreadable => true,
            Kind::Other => false,
        };
        self.controllers.values().filter(remote).map(Controller::snapshot).collect()
    }

    /// Every controller, with the inode of its directory.
    pub(super) fn inodes(&self) -> BTreeMap<ControllerName, u64> {
        self.controllers
            .values()
            .filter_map(|controller| Some((controller.name.clone(), *controller.inode.known()?)))
            .collect()
    }

    fn controllers_of<'f>(&'f self, parent: Parent<'_>) -> impl Iterator<Item = &'f Controller> {
        let (members, single) = match parent {
            Parent::Subsystem(name) => {
                (self.subsystems.get(name).map(|found| &found.members), None)
            }
            Parent::Controller(name) => (None, self.controllers.get(name)),
        };
        members.into_iter().flatten().filter_map(|name| self.controllers.get(name)).chain(single)
    }
}

impl Controller {
    fn read(root: &Root, dir: Dir, name: ControllerName, cache: &mut PortalCache) -> Option<Self> {
        let kind = match dir.text("transport") {
            Observed::Known(text) => text.parse().map_or(Kind::Other, Kind::Fabric),
            Observed::Unknown(UnknownWhy::Vanished) => return None,
            Observed::Unknown(_) => Kind::Unreadable,
        };
        let nqn = dir.value("subsysnqn");
        let state = dir.value("state");
        let inode = dir.inode();
        let known = match kind {
            Kind::Fabric(transport) => recall(&dir, &name, transport, (inode, &nqn, state), cache),
            Kind::Other => Err(UnknownWhy::Unsupported),
            Kind::Unreadable => Err(UnknownWhy::ReadFailed),
        };
        let (portal, params) = match known {
            Ok(known) => {
                let params = params::params(root, &dir, &known.nqn, &known.portal, &known.fixed);
                (Observed::Known(known.portal.clone()), params)
            }
            Err(why) => (Observed::Unknown(why), Observed::Unknown(why)),
        };
        let fast_io_fail = dir.optional("fast_io_fail_tmo");
        Some(Self { name, dir, kind, nqn, state, inode, portal, fast_io_fail, params })
    }

    fn snapshot(&self) -> ControllerSnapshot {
        ControllerSnapshot {
            name: self.name.clone(),
            nqn: self.nqn.clone(),
            portal: self.portal.clone(),
            fast_io_fail: self.fast_io_fail,
        }
    }

    /// The path through this controller to the namespace `device`, if it leads there.
    fn path_to(&self, parent: Parent<'_>, device: &str) -> Option<PathSnapshot> {
        let ana = match parent {
            Parent::Controller(_) => ana_usable(&self.dir.dir(device)),
            Parent::Subsystem(_) => {
                let path = self.dir.dir(path_device(device, self.name.as_str())?);
                match ana_usable(&path) {
                    // Another namespace of the subsystem, or one this controller has yet to scan.
                    Observed::Unknown(UnknownWhy::Vanished) if !path.exists() => return None,
                    ana @ (Observed::Known(_) | Observed::Unknown(_)) => ana,
                }
            }
        };
        Some(PathSnapshot {
            controller: self.name.clone(),
            state: self.state,
            portal: self.portal.clone(),
            ana_usable: ana,
            health: PathHealth::Up,
            fast_io_fail: self.fast_io_fail,
            params: self.params.clone(),
        })
    }
}

/// The names in a directory; a directory that is not there has none.
fn entries(dir: &Dir) -> Result<Vec<String>, UnknownWhy> {
    match dir.entries() {
        Observed::Known(names) => Ok(names),
        Observed::Unknown(UnknownWhy::Vanished) => Ok(Vec::new()),
        Observed::Unknown(why) => Err(why),
    }
}

/// Where a controller is connected to, and how.
///
/// The reader of `address` takes the queue's lock, and waits while a queue is being stopped. So it
/// is read while the controller is live, once: nothing in it changes in a controller's life, not
/// even when it connects again (`nvmf_get_address`, `drivers/nvme/host/fabrics.c`; `src_addr`,
/// which can change, is left out).
///
/// A daemon that starts while a controller is not live reads what the driver tells udev instead,
/// which takes no lock of the queue (`nvme_class_uevent`). The number of queues is not to be had
/// then: all of it is read again once the controller is live.
fn recall(
    dir: &Dir,
    name: &ControllerName,
    transport: TransportKind,
    (inode, nqn, state): (Observed<u64>, &Observed<Nqn>, Observed<ControllerState>),
    cache: &mut PortalCache,
) -> Result<Arc<Remembered>, UnknownWhy> {
    let inode = need(inode)?;
    let nqn = need(nqn.as_ref())?;
    let is_live = state.is_known_and(|state| *state == ControllerState::Live);
    let known = cache.recall(name, inode, nqn);
    let portal = match known {
        Some(known) if (known.fixed.known().is_some() && known.read_live) || !is_live => {
            return Ok(Arc::clone(known));
        }
        Some(known) => known.portal.clone(),
        None if !is_live => {
            let told = parsed(&dir.text("uevent"), |text| parse_uevent(transport, text));
            told.known().cloned().ok_or(UnknownWhy::WouldBlock)?
        }
        None => need(parsed(&dir.text("address"), |text| parse_address(transport, text)))?,
    };
    let fixed = Fixed::read(dir, is_live);
    let known = Arc::new(Remembered { inode, nqn: nqn.clone(), portal, fixed, read_live: is_live });
    cache.remember(name, Arc::clone(&known));
    Ok(known)
}

fn need<T>(fact: Observed<T>) -> Result<T, UnknownWhy> {
    match fact {
        Observed::Known(value) => Ok(value),
        Observed::Unknown(why) => Err(why),
    }
}

/// The same as lines: `NVME_TRADDR=10.0.0.2`, `NVME_HOST_IFACE=none`.
fn parse_uevent(transport: TransportKind, text: &str) -> Option<Portal> {
    let lines: Vec<String> = text
        .lines()
        .filter_map(|line| line.strip_prefix("NVME_"))
        .map(|line| {
            line.split_once('=').map_or_else(String::new, |(name, value)| {
                format!("{}={value}", name.to_ascii_lowercase())
            })
        })
        .collect();
    // A value is one field, whatever it holds.
    if lines.iter().any(|line| line.contains(',')) {
        return None;
    }
    parse_address(transport, &lines.join(","))
}

/// `traddr=10.0.0.2,trsvcid=4420,host_traddr=10.0.0.1,host_iface=eth0,src_addr=10.0.0.1`
fn parse_address(transport: TransportKind, text: &str) -> Option<Portal> {
    let field = |key: &str| {
        text.split(',').find_map(|part| {
            let (name, value) = part.trim().split_once('=')?;
            (name == key && !value.is_empty() && value != "none").then_some(value)
        })
    };
    let host_address = match field("host_traddr") {
        Some(value) => Some(TransportAddress::new(value).ok()?),
        None => None,
    };
    let host_interface = match field("host_iface") {
        Some(value) => Some(value.parse().ok()?),
        None => None,
    };
    Some(Portal {
        transport,
        address: TransportAddress::new(field("traddr")?).ok()?,
        port: match field("trsvcid") {
            Some(port) => port.parse().ok()?,
            None => DEFAULT_PORT,
        },
        host_address,
        host_interface,
    })
}

/// The name of the hidden device of one path: `nvme1n2` through `nvme3` is `nvme1c3n2`
/// (`nvme_mpath_set_disk_name`, `drivers/nvme/host/multipath.c`).
pub(crate) fn path_device(device: &str, controller: &str) -> Option<String> {
    let (subsystem, namespace) = device.rsplit_once('n')?;
    let instance = controller.strip_prefix("nvme")?;
    Some([subsystem, "c", instance, "n", namespace].concat())
}

/// Whether the target lets I/O through. A path device without the attribute belongs to a controller
/// that does not use ANA (`nvme_ns_attrs_are_visible`).
fn ana_usable(path: &Dir) -> Observed<bool> {
    ana_says(path.text("ana_state"), || path.exists())
}

/// The same of the attribute's text, where `is_there` tells of the path device.
pub(super) fn ana_says(text: Observed<String>, is_there: impl FnOnce() -> bool) -> Observed<bool> {
    match text {
        Observed::Known(text) => match text.as_str() {
            "optimized" | "non-optimized" => Observed::Known(true),
            "inaccessible" | "persistent-loss" | "change" => Observed::Known(false),
            // The target's first ANA log is still to be read.
            "invalid state" => Observed::Unknown(UnknownWhy::NotFilledYet),
            _ => Observed::Unknown(UnknownWhy::Malformed),
        },
        Observed::Unknown(UnknownWhy::Vanished) if is_there() => Observed::Known(true),
        Observed::Unknown(why) => Observed::Unknown(why),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_reads_in_every_form_the_kernel_writes() {
        let tcp = |text| parse_address(TransportKind::Tcp, text);
        let plain = tcp("traddr=10.0.0.2,trsvcid=4420,src_addr=10.0.0.1").unwrap();
        assert_eq!(plain.to_string(), "tcp://10.0.0.2:4420");
        assert_eq!(plain.host_address, None);
        let full = tcp("traddr=fe80::1%eth0,trsvcid=8009,host_traddr=fe80::2,host_iface=eth0\n");
        let full = full.unwrap();
        assert_eq!(full.address.as_str(), "fe80::1%eth0");
        assert_eq!(full.host_address.unwrap().as_str(), "fe80::2");
        assert_eq!(full.host_interface.unwrap().as_str(), "eth0");
        assert_eq!(tcp("traddr=10.0.0.2").unwrap().port, 4420);
        for bad in [
            "",
            "trsvcid=4420",
            "traddr=,trsvcid=4420",
            "traddr=10.0.0.2,trsvcid=99999",
            "traddr=-x,trsvcid=1",
            "traddr=a b,trsvcid=1",
            ",,,==,",
        ] {
            assert_eq!(tcp(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn what_udev_is_told_says_where_a_controller_leads() {
        let text = "MAJOR=242\nMINOR=1\nDEVNAME=nvme1\nNVME_TRTYPE=tcp\nNVME_TRADDR=10.0.0.2\n\
                    NVME_TRSVCID=4420\nNVME_HOST_TRADDR=none\nNVME_HOST_IFACE=eth0\n";
        let portal = parse_uevent(TransportKind::Tcp, text).unwrap();
        assert_eq!(portal.to_string(), "tcp://10.0.0.2:4420");
        assert_eq!((portal.host_address, portal.host_interface.unwrap().as_str()), (None, "eth0"));
        for bad in ["", "NVME_TRSVCID=4420", "NVME_TRADDR=none", "NVME_TRADDR=10.0.0.2,trsvcid=1"] {
            assert_eq!(parse_uevent(TransportKind::Tcp, bad), None, "{bad:?}");
        }
    }

    #[test]
    fn a_path_device_is_named_after_subsystem_controller_and_namespace() {
        assert_eq!(path_device("nvme1n2", "nvme3").unwrap(), "nvme1c3n2");
        assert_eq!(path_device("nvme10n12", "nvme0").unwrap(), "nvme10c0n12");
        assert_eq!(path_device("sda", "nvme0"), None);
    }
}
