//! What stands on a device that is about to become a leg.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{ArrayId, MdDeviceId, SectorCount};

/// What was found on a device by reading it, before anything is written to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Content {
    /// No signature of anything known.
    Blank,
    /// An MD superblock of version 1.x.
    MdMember(MdSuperblock),
    /// Something that `mdadm --add` would overwrite without a word.
    Foreign(ForeignKind),
}

/// What kind of foreign content it is, with the name blkid gives it where there is one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ForeignKind {
    /// A file system (`ext4`, `xfs`, …) or swap.
    Filesystem(String),
    /// A partition table (`gpt`, `dos`, …).
    PartitionTable(String),
    /// A member of another storage layer: LVM, LUKS, DRBD, another RAID.
    Layer(String),
    /// Several signatures at once, or one this product has no word for.
    Other(String),
}

/// The parts of an MD version-1 superblock (`struct mdp_superblock_1`,
/// `include/uapi/linux/raid/md_p.h`) that say whose leg this is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MdSuperblock {
    /// The array it belongs to.
    pub array: ArrayId,
    /// The member's own UUID.
    pub device: MdDeviceId,
    /// What the member is in the array.
    pub role: MdRole,
    /// Event counter: the higher, the fresher.
    pub events: u64,
    /// Where data starts.
    pub data_offset: SectorCount,
    /// Room for data on this device.
    pub data_size: SectorCount,
    /// Whether the member carries a non-empty bad block log.
    pub bad_blocks: bool,
    /// Whether it was being filled from the beginning when this was written. One that was filled by
    /// the bitmap was complete once, and may have had what nobody else has.
    #[serde(default)]
    pub filling: bool,
    /// Its number among the members, which it keeps for as long as it is one.
    #[serde(default)]
    pub number: u32,
    /// The numbers of the members that held a slot when this was written.
    #[serde(default)]
    pub active: Vec<u32>,
}

/// What a leg that stands outside and one of the running array tell of each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum History {
    /// The one outside left, and the other one stayed.
    One,
    /// The one outside counts more events.
    Newer,
    /// The one outside counts more events, but was being filled. It has nothing that nobody else
    /// has: MD tells no application that a write is done which only a member like that has got
    /// (`raid1_end_write_request`, `drivers/md/raid1.c`). But what it has got is in nobody's bitmap.
    Unfinished,
    /// The one outside went on without the other one.
    Parted,
}

impl MdSuperblock {
    /// How this leg, which is outside, stands to one that the running array is read from.
    ///
    /// After a start from a stale leg the one that comes late has writes that nobody else has. MD
    /// takes such a leg back by the stale one's bitmap, which knows nothing of them
    /// (`super_1_validate` refuses older event counts only). Its event count is no proof either
    /// way: the stale one may have counted past it. Its roles are: a leg that left counts those
    /// that stayed as members for ever, and one that went on without them does not.
    ///
    /// A role belongs to a member's number, and MD gives a number that nobody bound has to the next
    /// new member (`bind_rdev_to_array`, `drivers/md/md.c`): of a leg whose number went to another
    /// one while it was out, its role tells nothing.
    #[must_use]
    pub fn history_with(&self, running: &Self) -> History {
        if self.events > running.events {
            if self.filling { History::Unfinished } else { History::Newer }
        } else if self.active.contains(&running.number) {
            History::One
        } else {
            History::Parted
        }
    }
}

/// A member's role in its own superblock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum MdRole {
    /// An active member in this slot.
    Active(u16),
    /// A spare (`0xffff`).
    Spare,
    /// Marked faulty (`0xfffe`).
    Faulty,
    /// The journal of a RAID with one (`0xfffd`).
    Journal,
}

impl fmt::Display for ForeignKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Filesystem(kind) => write!(f, "a file system ({kind})"),
            Self::PartitionTable(kind) => write!(f, "a partition table ({kind})"),
            Self::Layer(kind) => write!(f, "a member of another storage layer ({kind})"),
            Self::Other(kind) => write!(f, "an unexpected signature ({kind})"),
        }
    }
}
