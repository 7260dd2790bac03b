//! NVMe-oF namespaces as block devices.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path};

use heal_types::{
    DevT, DeviceName, NamespaceId, NamespaceIds, NamespaceSnapshot, Observed, SectorCount,
    UnknownWhy,
};

use super::controller::{Fabric, Parent};
use super::usage::Usage;
use crate::sysfs::Dir;

/// Every NVMe block device that is not hidden.
#[derive(Debug, Default)]
pub(super) struct Namespaces {
    remote: BTreeMap<String, (NamespaceSnapshot, Hung)>,
    local: BTreeSet<String>,
}

/// What a namespace's block device hangs on in the device tree: [`Parent`], kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Hung {
    /// A subsystem.
    Subsystem(String),
    /// One controller.
    Controller(String),
}

impl From<Parent<'_>> for Hung {
    fn from(parent: Parent<'_>) -> Self {
        match parent {
            Parent::Subsystem(name) => Self::Subsystem(name.to_owned()),
            Parent::Controller(name) => Self::Controller(name.to_owned()),
        }
    }
}

/// What a block device's name turned out to be.
#[derive(Debug)]
pub(super) enum Found<'a> {
    Remote(&'a NamespaceSnapshot),
    Local,
    /// An NVMe device that was not there, or not readable, when this look listed them.
    Unseen,
}

impl Namespaces {
    pub(super) fn read(block: &Dir, names: &[String], fabric: &Fabric, usage: &Usage) -> Self {
        let mut all = Self::default();
        for name in names.iter().filter(|name| is_namespace_name(name)) {
            let Observed::Known(target) = block.link_target(name) else {
                continue;
            };
            let parent = parent_of(&target);
            match parent {
                Some(parent) if fabric.is_remote(parent) => {
                    if let Some(namespace) = read(&block.dir(name), name, parent, fabric, usage) {
                        all.remote.insert(name.clone(), (namespace, parent.into()));
                    }
                }
                Some(_) | None => {
                    all.local.insert(name.clone());
                }
            }
        }
        all
    }

    /// What stands behind the name of a disk that exists.
    pub(super) fn find(&self, name: &str) -> Found<'_> {
        if let Some((namespace, _)) = self.remote.get(name) {
            return Found::Remote(namespace);
        }
        if is_namespace_name(name) && !self.local.contains(name) {
            return Found::Unseen;
        }
        Found::Local
    }

    pub(super) fn into_snapshots(self) -> (Vec<NamespaceSnapshot>, BTreeMap<DeviceName, Hung>) {
        self.remote
            .into_values()
            .map(|(namespace, hung)| {
                let hung = (namespace.device.clone(), hung);
                (namespace, hung)
            })
            .unzip()
    }
}

/// `nvme1n2`, but neither a partition (`nvme1n2p1`) nor a hidden path (`nvme1c3n2`).
fn is_namespace_name(name: &str) -> bool {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    name.strip_prefix("nvme")
        .and_then(|rest| rest.split_once('n'))
        .is_some_and(|(instance, namespace)| digits(instance) && digits(namespace))
}

/// Where the device hangs below `/sys/devices/virtual`: fabric controllers and the heads of native
/// multipath are virtual devices, a PCIe namespace is below its PCI slot.
fn parent_of(target: &Path) -> Option<Parent<'_>> {
    let parts: Vec<&str> = target
        .components()
        .filter_map(|part| match part {
            Component::Normal(name) => name.to_str(),
            Component::Prefix(_)
            | Component::RootDir
            | Component::CurDir
            | Component::ParentDir => None,
        })
        .collect();
    match parts.as_slice() {
        ["devices", "virtual", "nvme-subsystem", subsystem, _] => {
            Some(Parent::Subsystem(subsystem))
        }
        ["devices", "virtual", "nvme-fabrics", "ctl", controller, _] => {
            Some(Parent::Controller(controller))
        }
        _ => None,
    }
}

/// Reads one namespace; `None` if it vanished meanwhile.
fn read(
    dir: &Dir,
    name: &str,
    parent: Parent<'_>,
    fabric: &Fabric,
    usage: &Usage,
) -> Option<NamespaceSnapshot> {
    let device = DeviceName::new(name).ok()?;
    let dev: DevT = *dir.value("dev").known()?;
    let partitions = partitions(dir, name);
    let in_use = in_use(dir, name, dev, &partitions, usage);
    Some(NamespaceSnapshot {
        device,
        dev,
        diskseq: dir.optional("diskseq").map(heal_types::DiskSeq),
        ids: ids(dir),
        nqn: fabric.nqn(parent),
        size: size(dir),
        logical_block: dir.dir("queue").value("logical_block_size"),
        read_only: flag(dir, "ro"),
        holders: device_names(&dir.dir("holders")),
        in_use,
        partitions: partitions.map(|names| u16::try_from(names.len()).unwrap_or(u16::MAX)),
        paths: fabric.paths(parent, name),
    })
}

/// The names the target gave the namespace.
///
/// `wwid` says which the kernel has. `uuid` alone does not: where the target gave no UUID, the
/// kernel shows the NGUID there (`uuid_show`, `drivers/nvme/host/sysfs.c`). A `wwid` made of serial
/// number and model (`nvme.…`) is shared by clones and is no identity.
fn ids(dir: &Dir) -> Observed<NamespaceIds> {
    let wwid = match dir.text("wwid") {
        Observed::Known(text) => text,
        Observed::Unknown(why) => return Observed::Unknown(why),
    };
    let mut ids: Vec<NamespaceId> = Vec::new();
    if let Some(uuid) = wwid.strip_prefix("uuid.") {
        match uuid.parse() {
            Ok(id) => ids.push(id),
            Err(_) => return Observed::Unknown(UnknownWhy::Malformed),
        }
    }
    // Missing or all zeros: the target gave none.
    if let Observed::Known(text) = dir.text("nguid") {
        ids.extend(format!("nguid.{text}").parse::<NamespaceId>());
    }
    if let Observed::Known(text) = dir.text("eui") {
        let plain: String = text.split_ascii_whitespace().collect();
        ids.extend(format!("eui.{plain}").parse::<NamespaceId>());
    }
    Observed::Known(NamespaceIds::new(ids))
}

/// A namespace of no size is one whose size the kernel does not know yet.
fn size(dir: &Dir) -> Observed<SectorCount> {
    match dir.value("size") {
        Observed::Known(0) => Observed::Unknown(UnknownWhy::NotFilledYet),
        Observed::Known(sectors) => Observed::Known(SectorCount(sectors)),
        Observed::Unknown(why) => Observed::Unknown(why),
    }
}

fn flag(dir: &Dir, name: &str) -> Observed<bool> {
    crate::sysfs::parsed(&dir.text(name), |text| match text {
        "0" => Some(false),
        "1" => Some(true),
        _ => None,
    })
}

/// The devices named in a `holders` directory.
pub(super) fn device_names(dir: &Dir) -> Observed<Vec<DeviceName>> {
    match dir.entries() {
        Observed::Known(names) => names
            .into_iter()
            .map(DeviceName::new)
            .collect::<Result<_, _>>()
            .map_or(Observed::Unknown(UnknownWhy::Malformed), Observed::Known),
        Observed::Unknown(why) => Observed::Unknown(why),
    }
}

fn partitions(dir: &Dir, disk: &str) -> Observed<Vec<String>> {
    let is_partition = |name: &String| {
        name.strip_prefix(disk)
            .and_then(|rest| rest.strip_prefix('p'))
            .is_some_and(|digits| digits.bytes().all(|b| b.is_ascii_digit()))
    };
    dir.entries().map(|names| names.into_iter().filter(is_partition).collect())
}

fn in_use(
    dir: &Dir,
    name: &str,
    dev: DevT,
    partitions: &Observed<Vec<String>>,
    usage: &Usage,
) -> Observed<bool> {
    let mut answer = usage.of(name, dev);
    let parts = match partitions {
        Observed::Known(parts) => parts,
        Observed::Unknown(why) if answer != Observed::Known(true) => {
            return Observed::Unknown(*why);
        }
        Observed::Unknown(_) => return answer,
    };
    for part in parts {
        if answer == Observed::Known(true) {
            break;
        }
        let of_part = match dir.dir(part).value("dev") {
            Observed::Known(dev) => usage.of(part, dev),
            Observed::Unknown(why) => Observed::Unknown(why),
        };
        if of_part != Observed::Known(false) {
            answer = of_part;
        }
    }
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_visible_nvme_disks_are_namespaces() {
        assert!(is_namespace_name("nvme0n1") && is_namespace_name("nvme12n34"));
        for other in ["nvme0", "nvme0n1p1", "nvme0c1n1", "nvmen1", "nvme0n", "sda", "md0"] {
            assert!(!is_namespace_name(other), "{other}");
        }
    }

    #[test]
    fn the_device_tree_says_what_a_namespace_hangs_on() {
        let parent = |path: &'static str| parent_of(Path::new(path));
        assert_eq!(
            parent("../devices/virtual/nvme-subsystem/nvme-subsys1/nvme1n2"),
            Some(Parent::Subsystem("nvme-subsys1"))
        );
        assert_eq!(
            parent("../devices/virtual/nvme-fabrics/ctl/nvme3/nvme3n1"),
            Some(Parent::Controller("nvme3"))
        );
        let pcie = "../devices/pci0000:00/0000:00:04.0/nvme/nvme0/nvme0n1";
        assert_eq!(parent(pcie), None);
        assert_eq!(parent(""), None);
    }
}
