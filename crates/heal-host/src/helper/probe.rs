//! Reads a device where superblocks stand, and a good piece around.

use std::fs::{File, OpenOptions};
use std::io::{self, Seek, SeekFrom};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use heal_types::{DevT, MdSuperblock, SectorCount};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::io::Errno;
use rustix::ioctl::{NoArg, Opcode, ioctl, opcode};
use serde::{Deserialize, Serialize};

use super::{Exit, Failure};
use crate::superblock::{self, Manners, ROOM, Trace};

/// As much of each end of the device as is read. `blkid` looks for signatures here and does not say
/// when a read fails; when all of this can be read, so could what `blkid` read.
const END: u64 = 1024 * 1024;

/// What direct reads are aligned to: no device here has larger blocks.
const PAGE: u64 = 4096;

/// `_IO(0x12, 97)` of `linux/fs.h`.
const BLKFLSBUF: Opcode = opcode::none(0x12, 97);

/// What stands on a device, as far as MD is concerned.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Report {
    /// The device's size.
    pub(crate) size: SectorCount,
    /// What was found, in the order of its place.
    pub(crate) traces: Vec<Trace>,
}

/// How much of a device is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reading {
    /// Both ends, so that another reader's silence about them means something.
    Ends,
    /// Only where a superblock may stand.
    Places,
}

/// Reads `node` if it is the device `dev`. Whoever asks for both ends has others read them as well:
/// they are to see what stands there now.
pub(super) fn device(node: &Path, dev: DevT, reading: Reading) -> Result<Report, Failure> {
    let file = open_if(node, dev)?;
    if reading == Reading::Ends {
        drop_pages(&file).map_err(|errno| Failure::kernel(node.display(), &errno.into()))?;
    }
    report(&file, reading).map_err(|error| Failure::kernel(node.display(), &error))
}

/// `blockdev --flushbufs`: drops what the kernel keeps of the device in memory.
#[allow(unsafe_code, reason = "a call of block devices that no library wraps")]
fn drop_pages(device: impl AsFd) -> Result<(), Errno> {
    // SAFETY: `BLKFLSBUF` takes no argument.
    unsafe { ioctl(device, NoArg::<BLKFLSBUF>::new()) }
}

/// A member that stands on a device, and how it is treated.
#[derive(Debug, Clone)]
pub(super) struct Member {
    pub(super) superblock: MdSuperblock,
    /// `None`: it is no plain mirror's.
    pub(super) manners: Option<Manners>,
}

/// The member on `node`, if it is the device `dev` and carries exactly one superblock; and the
/// device, held.
pub(super) fn only_member(node: &Path, dev: DevT) -> Result<(File, Option<Member>), Failure> {
    let file = open_if(node, dev)?;
    let found = member_of(&file).map_err(|error| Failure::kernel(node.display(), &error))?;
    Ok((file, found))
}

fn member_of(mut file: &File) -> io::Result<Option<Member>> {
    let bytes = file.seek(SeekFrom::End(0))?;
    let size = SectorCount(bytes / 512);
    let pieces = places(file, bytes)?;
    let found = traces(&pieces, size);
    let [Trace::V1(superblock)] = found.as_slice() else { return Ok(None) };
    let own = superblock::v1_places(size).into_iter().map(|sector| (sector, page(&pieces, sector)));
    let own = own.into_iter().find(|(sector, page)| {
        matches!(superblock::parse(page, *sector), Ok(Some(found)) if found == *superblock)
    });
    let manners = own.and_then(|(_, page)| superblock::manners(&page));
    Ok(Some(Member { superblock: superblock.clone(), manners }))
}

/// `node`, open for reading, if it is the device `dev`.
pub(super) fn open_if(node: &Path, dev: DevT) -> Result<File, Failure> {
    let failed = |error: io::Error| Failure::kernel(node.display(), &error);
    let file = open(node).map_err(failed)?;
    let meta = file.metadata().map_err(failed)?;
    let found = number(meta.rdev());
    if !meta.file_type().is_block_device() || found != dev {
        return Err(Failure {
            exit: Exit::OtherDevice,
            said: format!("{} is {found}, not {dev}", node.display()),
        });
    }
    Ok(file)
}

/// Past the page cache where that is possible: what counts is what stands at the target now, and
/// pages of an earlier life of the device may linger while somebody else has it open.
fn open(node: &Path) -> io::Result<File> {
    let open = |flags: OFlags| {
        let flags = i32::try_from(flags.bits()).map_err(io::Error::other)?;
        OpenOptions::new().read(true).custom_flags(flags).open(node)
    };
    let plain = OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
    open(plain | OFlags::DIRECT).or_else(|error| {
        if Errno::from_io_error(&error) == Some(Errno::INVAL) { open(plain) } else { Err(error) }
    })
}

fn number(rdev: u64) -> DevT {
    DevT { major: rustix::fs::major(rdev), minor: rustix::fs::minor(rdev) }
}

fn report(mut file: &File, reading: Reading) -> io::Result<Report> {
    let bytes = file.seek(SeekFrom::End(0))?;
    let size = SectorCount(bytes / 512);
    let pieces = match reading {
        Reading::Ends => ends(file, bytes)?,
        Reading::Places => places(file, bytes)?,
    };
    Ok(Report { size, traces: traces(&pieces, size) })
}

fn ends(file: &File, bytes: u64) -> io::Result<Vec<Piece>> {
    let head_end = bytes.min(END);
    let tail_start = (bytes.saturating_sub(END) / PAGE * PAGE).max(head_end);
    Ok(vec![Piece::read(file, 0, head_end)?, Piece::read(file, tail_start, bytes - tail_start)?])
}

fn places(file: &File, bytes: u64) -> io::Result<Vec<Piece>> {
    let size = SectorCount(bytes / 512);
    let mut sectors = superblock::v1_places(size);
    sectors.extend(superblock::v090_place(size));
    sectors.sort_unstable();
    sectors.dedup();
    let offsets = sectors.into_iter().map(|sector| sector.saturating_mul(512));
    let offsets = offsets.filter(|offset| *offset < bytes);
    offsets.map(|offset| Piece::read(file, offset, (bytes - offset).min(ROOM as u64))).collect()
}

/// What stands at the places for superblocks, in their order.
fn traces(pieces: &[Piece], size: SectorCount) -> Vec<Trace> {
    let mut traces = Vec::new();
    for sector in superblock::v1_places(size) {
        match superblock::parse(&page(pieces, sector), sector) {
            Ok(Some(found)) => traces.push(Trace::V1(found)),
            Ok(None) => {}
            // Version 0.90 has a place of its own, which may be this one.
            Err(superblock::DamageWhy::Version(0)) => {}
            Err(why) => traces.push(Trace::Damaged(why)),
        }
    }
    let old = superblock::v090_place(size);
    if old.is_some_and(|sector| superblock::is_v090(&page(pieces, sector))) {
        traces.push(Trace::V090);
    }
    traces
}

/// The bytes from `sector` on, as many as a superblock can have and were read.
fn page(pieces: &[Piece], sector: u64) -> Vec<u8> {
    let Some(start) = sector.checked_mul(512) else {
        return Vec::new();
    };
    let mut found = Vec::with_capacity(ROOM);
    for piece in pieces {
        // The second piece may continue the first.
        let at = start.saturating_add(u64::try_from(found.len()).unwrap_or(u64::MAX));
        let Some(skip) = at.checked_sub(piece.offset) else {
            continue;
        };
        let skip = usize::try_from(skip).unwrap_or(usize::MAX);
        let rest = piece.bytes().get(skip..).unwrap_or_default();
        found.extend_from_slice(&rest[..rest.len().min(ROOM - found.len())]);
    }
    found
}

/// A piece of the device in a buffer that direct reads accept.
struct Piece {
    offset: u64,
    buffer: Vec<u8>,
    start: usize,
    length: usize,
}

impl Piece {
    fn read(file: &File, offset: u64, length: u64) -> io::Result<Self> {
        let length = usize::try_from(length).map_err(io::Error::other)?;
        let page = usize::try_from(PAGE).map_err(io::Error::other)?;
        let mut buffer = vec![0; length + page];
        let start = buffer.as_ptr().align_offset(page).min(page);
        read_all(file, &mut buffer[start..start + length], offset)?;
        Ok(Self { offset, buffer, start, length })
    }

    fn bytes(&self) -> &[u8] {
        &self.buffer[self.start..self.start + self.length]
    }
}

/// Reads all of it, or fails: a short answer is not a blank device.
fn read_all(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<()> {
    match file.read_exact_at(buffer, offset) {
        Err(error) if Errno::from_io_error(&error) == Some(Errno::INVAL) => {
            // The device's blocks are not as direct reads need them.
            let flags = fcntl_getfl(file)?;
            fcntl_setfl(file, flags - OFlags::DIRECT)?;
            file.read_exact_at(buffer, offset)
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exec::testing::TempDir;
    use crate::superblock::tests::written;

    const MEBI: usize = 1024 * 1024;

    fn report_of(content: &[u8]) -> Report {
        let dir = TempDir::new();
        let path = dir.bytes("device", content);
        let file = open(&path).unwrap();
        let report = report(&file, Reading::Ends).unwrap();
        assert_eq!(super::report(&file, Reading::Places).unwrap(), report);
        report
    }

    fn device_with(size: usize, sector: usize, superblock: &[u8]) -> Vec<u8> {
        let mut content = vec![0; size];
        content[sector * 512..sector * 512 + superblock.len()].copy_from_slice(superblock);
        content
    }

    #[test]
    fn a_superblock_is_found_at_each_of_its_places() {
        for size in [MEBI / 2, MEBI + 512 * 24, 8 * MEBI] {
            let end = size / 512 - 16;
            for sector in [0, 8, end & !7] {
                let superblock = written(sector as u64, 1);
                let report = report_of(&device_with(size, sector, &superblock));
                assert_eq!(report.size, SectorCount(size as u64 / 512));
                assert!(
                    matches!(report.traces.as_slice(), [Trace::V1(found)] if found.events == 42),
                    "{size} {sector} {report:?}"
                );
            }
        }
    }

    #[test]
    fn an_old_superblock_is_found() {
        let mut old = 0xa92b_4efc_u32.to_le_bytes().to_vec();
        old.extend([0; 4]);
        let size = 4 * MEBI + 1024;
        let sector = ((size / 512) & !127) - 128;
        assert_eq!(report_of(&device_with(size, sector, &old)).traces, vec![Trace::V090]);
    }

    #[test]
    fn nothing_is_found_on_a_blank_or_tiny_device() {
        for size in [0, 512, 4096, 3 * MEBI] {
            assert_eq!(report_of(&vec![0; size]).traces, Vec::new());
        }
    }

    #[test]
    fn damage_is_reported_not_overlooked() {
        let mut bad = written(8, 1);
        bad[16] ^= 0xff;
        let report = report_of(&device_with(2 * MEBI, 8, &bad));
        assert_eq!(report.traces, vec![Trace::Damaged(superblock::DamageWhy::Checksum)]);
    }

    #[test]
    fn a_plain_file_is_not_the_device_that_was_meant() {
        let dir = TempDir::new();
        let path = dir.bytes("device", &[0; 512]);
        let failure = device(&path, DevT { major: 259, minor: 3 }, Reading::Ends).unwrap_err();
        assert_eq!(failure.exit, Exit::OtherDevice);
    }

    #[test]
    fn the_member_of_a_device_is_the_only_one_with_its_own_manners() {
        let member = |content: &[u8]| {
            let dir = TempDir::new();
            member_of(&open(&dir.bytes("device", content)).unwrap()).unwrap()
        };
        let mut own = written(8, 1);
        own[184] = 2;
        crate::superblock::tests::seal(&mut own);
        let found = member(&device_with(2 * MEBI, 8, &own)).unwrap();
        assert_eq!(found.superblock.events, 42);
        assert_eq!(found.manners, Some(Manners { write_mostly: false, fail_fast: true }));
        let mut two = device_with(2 * MEBI, 8, &own);
        let old = written(2 * MEBI as u64 / 512 - 16, 1);
        let at = 2 * MEBI - 8192;
        two[at..at + old.len()].copy_from_slice(&old);
        assert!(member(&two).is_none());
        assert!(member(&vec![0; MEBI]).is_none());
    }

    #[test]
    fn a_report_survives_the_way_to_the_parent() {
        let report = report_of(&device_with(2 * MEBI, 8, &written(8, 1)));
        let line = serde_json::to_string(&report).unwrap();
        assert!(!line.contains('\n'));
        assert_eq!(serde_json::from_str::<Report>(&line).unwrap(), report);
    }
}
