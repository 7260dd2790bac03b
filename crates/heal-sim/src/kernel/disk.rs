//! What stands on a device: versions instead of bytes.
//!
//! Bytes would only be compared, so a block holds the number of the write that filled it. A block
//! that a rebuild missed, or a stale leg that was taken back too eagerly, then shows as an old
//! number on a leg that MD counts in sync. That is how this simulator *sees* data loss.

use heal_types::{Content, ForeignKind, MdSuperblock, SectorCount};

/// Blocks that the content of every array is divided into.
pub(crate) const BLOCKS: u16 = 64;

/// Which write filled a block.
pub(crate) type Version = u64;

/// Which write filled each block; 0 where none did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Versions([Version; BLOCKS as usize]);

impl Versions {
    pub(crate) fn none() -> Self {
        Self([0; BLOCKS as usize])
    }

    pub(crate) fn get(&self, block: u16) -> Version {
        self.0[usize::from(block)]
    }

    pub(crate) fn set(&mut self, block: u16, version: Version) {
        self.0[usize::from(block)] = version;
    }

    /// Each block with its version.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u16, Version)> {
        (0..BLOCKS).zip(self.0)
    }
}

/// Some of the blocks: the bits of a write-intent bitmap.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct BlockSet(u64);

const _: () = assert!(BLOCKS as u32 == u64::BITS, "a set has a bit for each block");

impl BlockSet {
    pub(crate) fn insert(&mut self, block: u16) {
        self.0 |= 1 << block;
    }

    pub(crate) fn contains(self, block: u16) -> bool {
        self.0 & (1 << block) != 0
    }

    pub(crate) fn clear(&mut self) {
        self.0 = 0;
    }
}

impl FromIterator<u16> for BlockSet {
    fn from_iter<I: IntoIterator<Item = u16>>(blocks: I) -> Self {
        let mut set = Self::default();
        blocks.into_iter().for_each(|block| set.insert(block));
        set
    }
}

/// A place in [`super::FakeKernel`]'s list of disks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct DiskId(pub(crate) usize);

/// How far a leg is from holding every block, as its superblock says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Recovery {
    /// It holds every block up to its event count.
    Complete,
    /// It was being filled by the write-intent bitmap (`MD_FEATURE_RECOVERY_BITMAP`).
    ByBitmap,
    /// It was being filled from the beginning (`MD_FEATURE_RECOVERY_OFFSET` alone).
    Full,
}

/// One medium, somewhere behind a target or in the host itself.
#[derive(Debug, Clone)]
pub(crate) struct Disk {
    pub(crate) size: SectorCount,
    pub(crate) logical_block: u32,
    pub(crate) read_only: bool,
    /// Somebody else's signature.
    pub(crate) foreign: Option<ForeignKind>,
    pub(crate) superblock: Option<MdSuperblock>,
    pub(crate) recovery: Recovery,
    pub(crate) blocks: Versions,
    /// Whether anything was ever written to it through this host.
    pub(crate) written: bool,
    pub(crate) partitions: u16,
    pub(crate) in_use: bool,
    /// The provisioner was told that nobody needs it: whatever stands on it is gone.
    pub(crate) given_up: bool,
    /// It has what stood on another one at some time, superblock and all.
    pub(crate) copy: bool,
    /// The block that its list of bad blocks names: nothing can be read there.
    pub(crate) bad: Option<u16>,
}

impl Disk {
    pub(crate) fn blank(size: SectorCount) -> Self {
        Self {
            size,
            logical_block: 512,
            read_only: false,
            foreign: None,
            superblock: None,
            recovery: Recovery::Complete,
            blocks: Versions::none(),
            written: false,
            partitions: 0,
            in_use: false,
            given_up: false,
            copy: false,
            bad: None,
        }
    }

    /// What `blkid` and a reader of MD superblocks make of it.
    pub(crate) fn content(&self) -> Content {
        match (&self.foreign, &self.superblock) {
            (Some(kind), _) => Content::Foreign(kind.clone()),
            (None, Some(superblock)) => Content::MdMember(superblock.clone()),
            (None, None) => Content::Blank,
        }
    }

    pub(crate) fn write(&mut self, block: u16, version: Version) {
        self.written = true;
        self.blocks.set(block, version);
    }

    /// What `mdadm --add` does to whatever stood there: overwrites it without a word.
    pub(crate) fn write_superblock(&mut self, superblock: MdSuperblock, recovery: Recovery) {
        self.written = true;
        self.foreign = None;
        self.superblock = Some(superblock);
        self.recovery = recovery;
    }
}
