//! What a host shows, read from sysfs in one look.
//!
//! ```text
//!   HostSnapshot
//!     ├─ arrays      every md array        ── legs: the members bound to it, each with its Backing
//!     └─ namespaces  every NVMe-oF namespace ── paths: the controllers that lead to it
//! ```
//!
//! A leg that is bound to an array and a namespace that is present are two facts: MD keeps a member
//! whose device is long gone, and a returned namespace belongs to no array until somebody adds it.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::{
    Alias, ArrayId, ConnectParams, ControllerName, ControllerRef, DevT, DeviceIdentity, DeviceName,
    DiskSeq, FastIoFail, InvalidText, MdDeviceId, NamespaceId, NamespaceIds, Nqn, Observed,
    PathHealth, Portal, SectorCount, Slot,
};

/// Everything the host shows of arrays and NVMe-oF namespaces, at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct HostSnapshot {
    /// Every md array with a superblock, managed or not.
    pub arrays: Vec<ArraySnapshot>,
    /// Every NVMe-oF namespace, a leg or not.
    pub namespaces: Vec<NamespaceSnapshot>,
    /// Arrays that are there but could not be read: their actors must not conclude "gone".
    pub unreadable: Vec<DeviceName>,
    /// Every NVMe-oF controller, also one that leads to no namespace.
    #[serde(default)]
    pub controllers: Vec<ControllerSnapshot>,
}

impl HostSnapshot {
    /// Whether MD is filling `namespace` from a leg that it counts complete, and it is nobody's
    /// copy yet.
    #[must_use]
    pub fn is_filled(&self, namespace: &NamespaceSnapshot) -> bool {
        let is_it =
            |leg: &&LegSnapshot| leg.backing.namespace().is_some_and(|it| it.dev == namespace.dev);
        let mut holding = self.arrays.iter().filter(|array| array.legs.iter().any(|l| is_it(&l)));
        let filled = |array: &ArraySnapshot| {
            array.legs.iter().filter(is_it).all(LegSnapshot::is_no_copy_yet)
                && array.in_sync().next().is_some()
        };
        holding.next().is_some_and(filled) && holding.all(filled)
    }

    /// The subsystem of each controller.
    #[must_use]
    pub fn subsystems(&self) -> Vec<Observed<Nqn>> {
        self.controllers.iter().map(|controller| controller.nqn.clone()).collect()
    }
}

/// One MD array.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArraySnapshot {
    /// Which array it is.
    pub id: ArrayId,
    /// The kernel's name now.
    pub device: DeviceName,
    /// Its device number now.
    pub dev: DevT,
    /// The name in its superblock, which a provisioner may know as the volume's alias.
    pub alias: Option<Alias>,
    /// RAID level.
    pub level: Level,
    /// Who keeps its metadata.
    pub metadata: Metadata,
    /// MD's `array_state`.
    pub state: Observed<ArrayState>,
    /// Number of slots.
    pub raid_disks: u16,
    /// MD's `degraded`: slots without an in-sync leg.
    pub degraded: Observed<u16>,
    /// What the sync thread does.
    pub sync_action: Observed<SyncAction>,
    /// How far it is, while it runs.
    pub sync_progress: Option<SyncProgress>,
    /// Whether a reshape is under way or half done.
    pub reshaping: bool,
    /// Room each leg must offer.
    pub component_size: Observed<SectorCount>,
    /// The array's logical block size, bytes.
    pub logical_block: Observed<u32>,
    /// Write-intent bitmap.
    pub bitmap: Observed<Bitmap>,
    /// Reads and writes that the array has taken and not ended (`inflight` of its block device).
    pub in_flight: Observed<u64>,
    /// Members bound to the array, in the kernel's order.
    pub legs: Vec<LegSnapshot>,
}

impl ArraySnapshot {
    /// The leg in `slot`, whatever its state. A replacement shares its slot with the leg it
    /// replaces: the leg itself comes first, unless MD has given it up for the replacement.
    #[must_use]
    pub fn leg_in(&self, slot: Slot) -> Option<&LegSnapshot> {
        self.legs
            .iter()
            .filter(|leg| leg.slot == Some(slot))
            .min_by_key(|leg| (leg.is_faulty(), leg.flags.has(LegFlag::Replacement)))
    }

    /// Legs that hold every block as far as MD knows.
    pub fn in_sync(&self) -> impl Iterator<Item = &LegSnapshot> {
        self.legs.iter().filter(|leg| leg.is_in_sync())
    }
}

/// RAID level.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Level {
    /// Mirror.
    Raid1,
    /// Striped mirrors. MD's `layout` says how copies lie.
    Raid10 {
        /// MD's `layout` value: near copies in the low byte, far copies in the next.
        layout: u32,
    },
    /// Any other level, observed only.
    Other,
}

/// Who keeps an array's metadata.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Metadata {
    /// MD itself, version 1.0, 1.1 or 1.2.
    V1,
    /// MD itself, the old 0.90 format.
    V090,
    /// `mdmon` or another program (`external:…`).
    External,
    /// Nobody.
    None,
    /// A cluster's lock manager guards it as well.
    Clustered,
}

/// MD's `array_state` (`Documentation/admin-guide/md.rst`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ArrayState {
    /// No devices, no size.
    Clear,
    /// May have settings, but no I/O.
    Inactive,
    /// I/O is blocked.
    Suspended,
    /// No resync, no superblock updates, writes fail.
    Readonly,
    /// Like `Readonly` until the first write.
    ReadAuto,
    /// No pending writes.
    Clean,
    /// Being written to.
    Active,
    /// Clean, with writes waiting for a superblock update.
    WritePending,
    /// Active without writes for a while.
    ActiveIdle,
    /// `MD_BROKEN`: a write was lost on the last leg; every write fails until stop and assemble.
    Broken,
}

impl FromStr for ArrayState {
    type Err = InvalidText;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(match text.trim() {
            "clear" => Self::Clear,
            "inactive" => Self::Inactive,
            "suspended" => Self::Suspended,
            "readonly" => Self::Readonly,
            "read-auto" => Self::ReadAuto,
            "clean" => Self::Clean,
            "active" => Self::Active,
            "write-pending" => Self::WritePending,
            "active-idle" => Self::ActiveIdle,
            "broken" => Self::Broken,
            _ => {
                return Err(InvalidText::new("array_state", text, "no such state is known"));
            }
        })
    }
}

impl ArrayState {
    /// Whether writes are accepted now or after the next superblock update.
    #[must_use]
    pub fn is_running(self) -> bool {
        match self {
            Self::Clean | Self::Active | Self::WritePending | Self::ActiveIdle => true,
            Self::Clear
            | Self::Inactive
            | Self::Suspended
            | Self::Readonly
            | Self::ReadAuto
            | Self::Broken => false,
        }
    }
}

impl fmt::Display for ArrayState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Clear => "clear",
            Self::Inactive => "inactive",
            Self::Suspended => "suspended",
            Self::Readonly => "readonly",
            Self::ReadAuto => "read-auto",
            Self::Clean => "clean",
            Self::Active => "active",
            Self::WritePending => "write-pending",
            Self::ActiveIdle => "active-idle",
            Self::Broken => "broken",
        })
    }
}

/// MD's `sync_action`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum SyncAction {
    /// Nothing runs.
    Idle,
    /// Legs are made equal after an unclean stop or at creation.
    Resync,
    /// A leg is rebuilt.
    Recover,
    /// Legs are compared.
    Check,
    /// Legs are compared and made equal.
    Repair,
    /// The layout changes.
    Reshape,
    /// A tool has stopped all of these.
    Frozen,
}

impl FromStr for SyncAction {
    type Err = InvalidText;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(match text.trim() {
            "idle" => Self::Idle,
            "resync" => Self::Resync,
            "recover" => Self::Recover,
            "check" => Self::Check,
            "repair" => Self::Repair,
            "reshape" => Self::Reshape,
            "frozen" => Self::Frozen,
            _ => {
                return Err(InvalidText::new("sync_action", text, "no such action is known"));
            }
        })
    }
}

/// MD's `sync_completed`: sectors done of sectors to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SyncProgress {
    /// Done.
    pub done: SectorCount,
    /// Of this many.
    pub total: SectorCount,
}

impl SyncProgress {
    /// Whole percent, rounded down.
    #[must_use]
    pub fn percent(self) -> u8 {
        let percent = self.done.0.saturating_mul(100).checked_div(self.total.0).unwrap_or(0);
        u8::try_from(percent.min(100)).unwrap_or(100)
    }
}

/// Write-intent bitmap.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Bitmap {
    /// There is one: a returned leg needs only what changed.
    Present,
    /// There is none: a returned leg needs everything.
    Absent,
}

/// One member bound to an array: a `md/dev-NAME` directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LegSnapshot {
    /// The name MD bound it under. The device of that name may be another one by now.
    pub device: DeviceName,
    /// Its slot, unless it is a spare or was thrown out.
    pub slot: Option<Slot>,
    /// MD's flags.
    pub flags: LegFlags,
    /// Its own UUID in the superblock, as udev's database has it.
    pub md_device: Observed<MdDeviceId>,
    /// Where its data starts (`md/dev-NAME/offset`).
    pub data_offset: Observed<SectorCount>,
    /// Whether MD knows blocks on it that it must not read.
    pub bad_blocks: Observed<bool>,
    /// What it stands on.
    pub backing: Backing,
}

impl LegSnapshot {
    /// Whether MD counts it as holding every block.
    #[must_use]
    pub fn is_in_sync(&self) -> bool {
        self.slot.is_some() && self.flags.has(LegFlag::InSync) && !self.flags.has(LegFlag::Faulty)
    }

    /// Whether MD has given it up.
    #[must_use]
    pub fn is_faulty(&self) -> bool {
        self.flags.has(LegFlag::Faulty)
    }

    /// Whether MD is writing the array's content to it: a slot of its own, not complete.
    #[must_use]
    pub fn is_recovering(&self) -> bool {
        self.slot.is_some() && !self.flags.has(LegFlag::InSync) && !self.is_faulty()
    }

    /// Whether nothing is lost with it: MD is filling it. One that takes another leg's place does
    /// so in one step, and counts as that leg.
    #[must_use]
    pub fn is_no_copy_yet(&self) -> bool {
        self.is_recovering() && !self.flags.has(LegFlag::Replacement)
    }

    /// Whether it is bound but holds no slot.
    #[must_use]
    pub fn is_spare(&self) -> bool {
        self.slot.is_none() && !self.is_faulty() && !self.flags.has(LegFlag::Journal)
    }

    /// Whether it is bound and is the namespace `id`.
    #[must_use]
    pub fn is_namespace(&self, id: &NamespaceId) -> bool {
        match &self.backing {
            Backing::Namespace(namespace) => namespace.goes_by(id),
            Backing::Local | Backing::Gone | Backing::Unreadable => false,
        }
    }
}

/// What a leg stands on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Backing {
    /// An NVMe-oF namespace that is present and held by this very array.
    Namespace(Box<NamespaceSnapshot>),
    /// Anything else that is present: a local disk, a loop device, a PCIe namespace.
    Local,
    /// The device is gone; MD still holds the member.
    Gone,
    /// Whether it is there could not be read.
    Unreadable,
}

impl Backing {
    /// The namespace, if it is one.
    pub fn namespace_mut(&mut self) -> Option<&mut NamespaceSnapshot> {
        match self {
            Self::Namespace(namespace) => Some(namespace),
            Self::Local | Self::Gone | Self::Unreadable => None,
        }
    }

    /// The namespace, if it is one.
    #[must_use]
    pub fn namespace(&self) -> Option<&NamespaceSnapshot> {
        match self {
            Self::Namespace(namespace) => Some(namespace),
            Self::Local | Self::Gone | Self::Unreadable => None,
        }
    }
}

/// One flag of a member, as `md/dev-NAME/state` lists it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[repr(u16)]
pub enum LegFlag {
    /// Given up by MD.
    Faulty = 1 << 0,
    /// Holds every block.
    InSync = 1 << 1,
    /// Reads avoid it.
    WriteMostly = 1 << 2,
    /// Writes wait until its failure is recorded.
    Blocked = 1 << 3,
    /// Not in use yet, or only partly complete.
    Spare = 1 << 4,
    /// A write to it failed.
    WriteError = 1 << 5,
    /// MD moves it to a spare as soon as one is there.
    WantReplacement = 1 << 6,
    /// It is taking another leg's place.
    Replacement = 1 << 7,
    /// Its I/O is sent with failfast.
    FailFast = 1 << 8,
    /// It is the journal of the array.
    Journal = 1 << 9,
}

impl LegFlag {
    const ALL: [(Self, &'static str); 10] = [
        (Self::Faulty, "faulty"),
        (Self::InSync, "in_sync"),
        (Self::WriteMostly, "write_mostly"),
        (Self::Blocked, "blocked"),
        (Self::Spare, "spare"),
        (Self::WriteError, "write_error"),
        (Self::WantReplacement, "want_replacement"),
        (Self::Replacement, "replacement"),
        (Self::FailFast, "failfast"),
        (Self::Journal, "journal"),
    ];
}

/// The set of flags of one member. A flag this version has no word for is ignored: kernels add
/// some.
#[derive(Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub struct LegFlags(u16);

impl LegFlags {
    /// The set of `flags`.
    #[must_use]
    pub fn of(flags: &[LegFlag]) -> Self {
        Self(flags.iter().fold(0, |set, flag| set | *flag as u16))
    }

    /// Reads the comma-separated list of `md/dev-NAME/state`.
    ///
    /// MD shows "faulty" also of a leg with bad blocks that its superblock does not list yet
    /// (`state_show`, `drivers/md/md.c`), for as long as it takes to write that. Such a leg is
    /// still in sync, and one that failed never is (`raid1_error`, `raid10_error`): so it is not
    /// faulty.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let mut set = 0;
        for word in text.trim().split(',') {
            // Kernels before 4.x and mdadm write "writemostly", md.c writes "write_mostly".
            let word = if word == "writemostly" { "write_mostly" } else { word };
            for (flag, name) in LegFlag::ALL {
                if word == name {
                    set |= flag as u16;
                }
            }
        }
        if set & LegFlag::InSync as u16 != 0 {
            set &= !(LegFlag::Faulty as u16);
        }
        Self(set)
    }

    /// Whether `flag` is in the set.
    #[must_use]
    pub fn has(self, flag: LegFlag) -> bool {
        self.0 & flag as u16 != 0
    }
}

impl fmt::Display for LegFlags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut first = true;
        for (flag, name) in LegFlag::ALL {
            if self.has(flag) {
                write!(f, "{}{name}", if first { "" } else { "," })?;
                first = false;
            }
        }
        Ok(())
    }
}

impl fmt::Debug for LegFlags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl From<String> for LegFlags {
    fn from(text: String) -> Self {
        Self::parse(&text)
    }
}

impl From<LegFlags> for String {
    fn from(flags: LegFlags) -> String {
        flags.to_string()
    }
}

/// One NVMe-oF namespace as a block device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamespaceSnapshot {
    /// The kernel's name now.
    pub device: DeviceName,
    /// Its device number now.
    pub dev: DevT,
    /// Its disk sequence number.
    pub diskseq: Observed<DiskSeq>,
    /// Every id it goes by. Empty right after it appeared: read again.
    pub ids: Observed<NamespaceIds>,
    /// The subsystem it belongs to.
    pub nqn: Observed<Nqn>,
    /// Size.
    pub size: Observed<SectorCount>,
    /// Logical block size, bytes.
    pub logical_block: Observed<u32>,
    /// Whether writes are refused.
    pub read_only: Observed<bool>,
    /// Devices stacked on it.
    pub holders: Observed<Vec<DeviceName>>,
    /// Whether it, or a partition of it, is mounted or used as swap.
    pub in_use: Observed<bool>,
    /// Number of partitions the kernel found on it.
    pub partitions: Observed<u16>,
    /// Controllers that lead to it.
    pub paths: Vec<PathSnapshot>,
}

impl NamespaceSnapshot {
    /// Whether `id` is known to be one of its ids.
    #[must_use]
    pub fn goes_by(&self, id: &NamespaceId) -> bool {
        self.ids.is_known_and(|ids| ids.contains(id))
    }

    /// Whether at least one path is usable: its I/O moves.
    #[must_use]
    pub fn has_usable_path(&self) -> bool {
        self.paths.iter().any(PathSnapshot::is_usable)
    }

    /// Its identity under the id `namespace`, if it goes by it and its subsystem is known.
    #[must_use]
    pub fn identity(&self, namespace: &NamespaceId) -> Option<DeviceIdentity> {
        if !self.goes_by(namespace) {
            return None;
        }
        Some(DeviceIdentity {
            device: self.device.clone(),
            dev: self.dev,
            diskseq: self.diskseq,
            namespace: *namespace,
            nqn: self.nqn.known()?.clone(),
        })
    }
}

/// One controller that leads to a namespace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PathSnapshot {
    /// The kernel's name now.
    pub controller: ControllerName,
    /// Its state.
    pub state: Observed<ControllerState>,
    /// Where it is connected to. Read only while it is live, and remembered: the attribute's reader
    /// can wait for a queue that is being stopped.
    pub portal: Observed<Portal>,
    /// Whether the target says that this path may carry I/O (ANA state optimized or non-optimized,
    /// or no ANA at all).
    pub ana_usable: Observed<bool>,
    /// What is held of it beyond that. Whoever reads sysfs says `Up`; the path machine's verdict is
    /// put in before anybody decides by it.
    #[serde(default)]
    pub health: PathHealth,
    /// Its controller's `fast_io_fail_tmo`.
    pub fast_io_fail: Observed<FastIoFail>,
    /// How it could be connected again.
    pub params: Observed<Box<ConnectParams>>,
}

impl PathSnapshot {
    /// Whether I/O sent down this path can be expected to move.
    #[must_use]
    pub fn is_usable(&self) -> bool {
        self.state.is_known_and(|state| *state == ControllerState::Live)
            && self.ana_usable.is_known_and(|usable| *usable)
            && self.health == PathHealth::Up
    }

    /// Its controller, if where it leads is known.
    #[must_use]
    pub fn controller_ref(&self, nqn: &Nqn) -> Option<ControllerRef> {
        let portal = self.portal.known()?.clone();
        Some(ControllerRef { name: self.controller.clone(), nqn: nqn.clone(), portal })
    }
}

/// One NVMe-oF controller, wherever it leads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ControllerSnapshot {
    /// The kernel's name now.
    pub name: ControllerName,
    /// Its subsystem.
    pub nqn: Observed<Nqn>,
    /// As a path's.
    pub portal: Observed<Portal>,
    /// Its `fast_io_fail_tmo`.
    pub fast_io_fail: Observed<FastIoFail>,
}

impl ControllerSnapshot {
    /// The controller, if where it leads is known.
    #[must_use]
    pub fn reference(&self) -> Option<ControllerRef> {
        let (nqn, portal) = (self.nqn.known()?.clone(), self.portal.known()?.clone());
        Some(ControllerRef { name: self.name.clone(), nqn, portal })
    }
}

/// An NVMe controller's `state` (`drivers/nvme/host/sysfs.c`, `nvme_sysfs_show_state`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ControllerState {
    /// Made, not started.
    New,
    /// Carrying I/O, as far as the kernel knows.
    Live,
    /// Being torn down to be connected again.
    Resetting,
    /// Trying to connect again.
    Connecting,
    /// Going away.
    Deleting,
    /// Going away, I/O is failed already (`deleting (no IO)`).
    DeletingNoIo,
    /// Given up.
    Dead,
}

impl FromStr for ControllerState {
    type Err = InvalidText;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(match text.trim() {
            "new" => Self::New,
            "live" => Self::Live,
            "resetting" => Self::Resetting,
            "connecting" => Self::Connecting,
            "deleting" => Self::Deleting,
            "deleting (no IO)" => Self::DeletingNoIo,
            "dead" => Self::Dead,
            _ => {
                return Err(InvalidText::new("controller state", text, "no such state is known"));
            }
        })
    }
}

impl fmt::Display for ControllerState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::New => "new",
            Self::Live => "live",
            Self::Resetting => "resetting",
            Self::Connecting => "connecting",
            Self::Deleting => "deleting",
            Self::DeletingNoIo => "deleting (no IO)",
            Self::Dead => "dead",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leg_with_bad_blocks_that_are_not_written_down_yet_has_not_failed() {
        let flags = LegFlags::parse("faulty,in_sync,write_error,blocked,want_replacement\n");
        assert!(flags.has(LegFlag::InSync) && !flags.has(LegFlag::Faulty), "{flags}");
        assert!(LegFlags::parse("faulty,blocked\n").has(LegFlag::Faulty));
    }

    #[test]
    fn flags_read_and_print_as_md_writes_them() {
        let flags = LegFlags::parse("faulty,blocked,write_error,want_replacement\n");
        assert!(flags.has(LegFlag::Faulty) && flags.has(LegFlag::WantReplacement));
        assert!(!flags.has(LegFlag::InSync));
        assert_eq!(flags.to_string(), "faulty,blocked,write_error,want_replacement");
        assert_eq!(LegFlags::parse("in_sync,some_new_flag"), LegFlags::of(&[LegFlag::InSync]));
        assert_eq!(LegFlags::parse(""), LegFlags::default());
    }

    #[test]
    fn progress_survives_a_total_of_zero() {
        let progress = SyncProgress { done: SectorCount(5), total: SectorCount(0) };
        assert_eq!(progress.percent(), 0);
    }

    #[test]
    fn a_path_of_unknown_ana_state_is_not_usable() {
        let path = PathSnapshot {
            controller: ControllerName::new("nvme0").unwrap(),
            state: Observed::Known(ControllerState::Live),
            portal: Observed::Unknown(crate::UnknownWhy::NotReadYet),
            ana_usable: Observed::Unknown(crate::UnknownWhy::ReadFailed),
            health: PathHealth::Up,
            fast_io_fail: Observed::Known(FastIoFail::Off),
            params: Observed::Unknown(crate::UnknownWhy::NotReadYet),
        };
        assert!(!path.is_usable());
        let mut path = PathSnapshot { ana_usable: Observed::Known(true), ..path };
        assert!(path.is_usable());
        path.health = PathHealth::Suspect(crate::PathDoubt::PortDown);
        assert!(!path.is_usable(), "nothing rests on a path in doubt");
    }
}
