//! The checksum of a leg's data area, past md and past the page cache.
//!
//! Two legs of a mirror are equal when their data areas are; superblock and bitmap differ by
//! nature. The leg is read with `O_DIRECT`: the block device has a page cache of its own which md's
//! writes never touch, so an ordinary read can show yesterday's bytes.

use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail};

use super::workload::{Block, DIRECT};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The block device of the leg.
    device: PathBuf,
}

const SECTOR: u64 = 512;
const BLOCK: u64 = 4096;

/// What of an md superblock (version 1.2) says where the data is, in bytes.
#[derive(Debug, PartialEq, Eq)]
struct DataArea {
    offset: u64,
    length: u64,
}

impl DataArea {
    /// Field offsets as in the kernel's `struct mdp_superblock_1`.
    fn parse(superblock: &[u8]) -> anyhow::Result<Self> {
        let word = |at: usize| -> Option<u32> {
            Some(u32::from_le_bytes(superblock.get(at..at + 4)?.try_into().ok()?))
        };
        let long = |at: usize| -> Option<u64> {
            Some(u64::from_le_bytes(superblock.get(at..at + 8)?.try_into().ok()?))
        };
        if word(0) != Some(0xa92b_4efc) || word(4) != Some(1) {
            bail!("no md superblock of version 1.2");
        }
        let sectors = |at| {
            long(at).and_then(|sectors| sectors.checked_mul(SECTOR)).context("absurd superblock")
        };
        let area = Self { offset: sectors(128)?, length: sectors(80)? };
        if area.offset % BLOCK != 0 || area.length % BLOCK != 0 {
            bail!("the data area is not aligned to {BLOCK} bytes: {area:?}");
        }
        Ok(area)
    }
}

pub(super) fn run(args: &Args) -> anyhow::Result<()> {
    let device = File::options()
        .read(true)
        .custom_flags(DIRECT)
        .open(&args.device)
        .with_context(|| format!("cannot open {}", args.device.display()))?;
    let mut block = Block::zeroed();
    device.read_exact_at(block.bytes_mut(), BLOCK)?;
    let area = DataArea::parse(block.bytes())?;
    let mut sum = Command::new("sha256sum").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let mut into = sum.stdin.take().context("sha256sum has no input")?;
    let mut chunk = Chunk::zeroed();
    let mut done = 0;
    while done < area.length {
        let want = usize::try_from((area.length - done).min(Chunk::SIZE))?;
        let bytes = &mut chunk.bytes_mut()[..want];
        device.read_exact_at(bytes, area.offset + done)?;
        into.write_all(bytes)?;
        done += u64::try_from(want)?;
    }
    drop(into);
    let output = sum.wait_with_output()?;
    let hash = String::from_utf8_lossy(&output.stdout);
    println!("{} {}", hash.split_whitespace().next().context("no checksum")?, area.length);
    Ok(())
}

/// Half a mebibyte, aligned for `O_DIRECT`.
#[repr(align(4096))]
struct Chunk([u8; 512 * 1024]);

impl Chunk {
    const SIZE: u64 = 512 * 1024;

    fn zeroed() -> Box<Self> {
        Box::new(Self([0; 512 * 1024]))
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_data_area_is_read_from_the_superblock() {
        let mut superblock = vec![0; 4096];
        superblock[0..4].copy_from_slice(&0xa92b_4efc_u32.to_le_bytes());
        superblock[4..8].copy_from_slice(&1_u32.to_le_bytes());
        superblock[80..88].copy_from_slice(&126_976_u64.to_le_bytes());
        superblock[128..136].copy_from_slice(&2048_u64.to_le_bytes());
        let area = DataArea::parse(&superblock).unwrap();
        assert_eq!(area, DataArea { offset: 1 << 20, length: 126_976 * 512 });
    }

    #[test]
    fn what_is_no_superblock_is_refused() {
        assert!(DataArea::parse(&[0; 4096]).is_err());
        assert!(DataArea::parse(&[]).is_err());
    }
}
