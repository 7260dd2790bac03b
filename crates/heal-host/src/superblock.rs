//! Reads MD superblocks, without MD and without `mdadm`.
//!
//! What stands on a device decides whether it may become a leg, so the answer must not depend on
//! the device being part of an assembled array, nor on parsing a tool's text. The bytes come from a
//! target over a network: nothing in them is believed before the checksum holds, and nothing in
//! them is used as a length or an index without a bound.
//!
//! ```text
//!   sector 0        8                                              end − 128 KiB   end − 8 KiB
//!   ├── 1.1 ────────┼── 1.2 ──── data ───────────────────── … ─────┼── 0.90 ───────┼── 1.0 ──┤
//! ```
//!
//! Layout and checksum: `struct mdp_superblock_1` and `MD_NEW_SIZE_SECTORS`
//! (`include/uapi/linux/raid/md_p.h`), `calc_sb_1_csum` and `super_1_load` (`drivers/md/md.c`).
//!
//! The price: a second reader of a format that the kernel owns. It reads only the fields that say
//! whose leg this is, and whatever it does not understand is *damaged*, never *absent*.

use heal_types::{ArrayId, MdDeviceId, MdRole, MdSuperblock, SectorCount};
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// `MD_SB_MAGIC`.
const MAGIC: u32 = 0xa92b_4efc;

/// The fixed part of `struct mdp_superblock_1`, before `dev_roles`.
const FIXED: usize = 256;

/// Room for a superblock of any version. The kernel reads one page as well.
pub(crate) const ROOM: usize = 4096;

/// The most roles that fit behind the fixed part.
const MAX_ROLES: usize = (ROOM - FIXED) / 2;

/// `MD_FEATURE_BAD_BLOCKS`. The kernel sets it only while the log is not empty.
const FEATURE_BAD_BLOCKS: u32 = 8;

/// `MD_FEATURE_RECOVERY_OFFSET`: a member in a slot that is not in sync (`super_1_sync`).
const FEATURE_FILLING: u32 = 2;

/// `MD_FEATURE_RECOVERY_BITMAP`: it is filled where the bitmap says so, and was complete once.
const FEATURE_BY_BITMAP: u32 = 128;

/// What a leg of a plain mirror may have: a bitmap (`MD_FEATURE_BITMAP_OFFSET`), a recovery that it
/// was in the middle of, a log of bad blocks.
const FEATURES_PLAIN: u32 = 1 | FEATURE_FILLING | FEATURE_BY_BITMAP | FEATURE_BAD_BLOCKS;

/// `WriteMostly1` and `FailFast1`, of `devflags`.
const WRITE_MOSTLY: u8 = 1;
const FAIL_FAST: u8 = 2;

/// `MD_DISK_ROLE_MAX`: the highest role that is a slot.
const ROLE_MAX: u16 = 0xff00;

/// What a place that may hold a superblock holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Trace {
    /// A superblock of version 1.x whose checksum holds.
    V1(MdSuperblock),
    /// A superblock of version 0.90.
    V090,
    /// MD's magic number, and behind it something that is no valid superblock.
    Damaged(DamageWhy),
}

/// Why bytes with MD's magic number are no superblock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error, Serialize, Deserialize)]
pub(crate) enum DamageWhy {
    /// There are fewer bytes than a superblock has.
    #[error("cut short")]
    Short,
    /// Neither 0.90 nor 1.x.
    #[error("of unknown version {0}")]
    Version(u32),
    /// The number of roles does not fit.
    #[error("with {0} roles, more than fit")]
    TooManyRoles(u32),
    /// The checksum does not hold.
    #[error("with a wrong checksum")]
    Checksum,
    /// It says that it stands elsewhere: it was copied here, or the device changed its size.
    #[error("that belongs at sector {0}")]
    Misplaced(u64),
    /// The array's or the member's UUID is all zeros.
    #[error("without a UUID")]
    NoUuid,
    /// A role that MD does not define.
    #[error("with the undefined role {0:#06x}")]
    Role(u16),
}

/// The sectors at which a device of this size may carry a version-1 superblock: 1.0, 1.1, 1.2.
pub(crate) fn v1_places(size: SectorCount) -> Vec<u64> {
    let mut places = vec![0, 8];
    if let Some(end) = size.0.checked_sub(16) {
        places.push(end & !7);
    }
    places.sort_unstable();
    places.dedup();
    places
}

/// The sector at which a device of this size may carry a 0.90 superblock.
pub(crate) fn v090_place(size: SectorCount) -> Option<u64> {
    (size.0 & !127).checked_sub(128)
}

/// Reads the superblock that starts with `bytes` and stands at `sector`.
///
/// # Errors
/// When MD's magic number is there but the rest is not a superblock.
pub(crate) fn parse(bytes: &[u8], sector: u64) -> Result<Option<MdSuperblock>, DamageWhy> {
    let Some(magic) = u32_at(bytes, 0) else {
        return Ok(None);
    };
    if magic != MAGIC {
        return Ok(None);
    }
    let version = u32_at(bytes, 4).ok_or(DamageWhy::Short)?;
    if version != 1 {
        return Err(DamageWhy::Version(version));
    }
    let max_dev = u32_at(bytes, 220).ok_or(DamageWhy::Short)?;
    let roles = usize::try_from(max_dev)
        .ok()
        .filter(|roles| *roles <= MAX_ROLES)
        .ok_or(DamageWhy::TooManyRoles(max_dev))?;
    let whole = bytes.get(..FIXED + roles * 2).ok_or(DamageWhy::Short)?;
    if checksum(whole) != u32_at(whole, 216).ok_or(DamageWhy::Short)? {
        return Err(DamageWhy::Checksum);
    }
    let place = u64_at(whole, 144).ok_or(DamageWhy::Short)?;
    if place != sector {
        return Err(DamageWhy::Misplaced(place));
    }
    fields(whole, roles).map(Some)
}

/// How MD is to treat a member, besides what its role says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Manners {
    /// Read only when there is no other.
    pub(crate) write_mostly: bool,
    /// Given up at its first error.
    pub(crate) fail_fast: bool,
}

/// The manners that stand in a superblock which [`parse`] takes; `None` if it has more to it than a
/// leg of a plain mirror has: a reshape, a journal, a cluster, another leg's replacement.
pub(crate) fn manners(bytes: &[u8]) -> Option<Manners> {
    let plain = u32_at(bytes, 8)? & !FEATURES_PLAIN == 0;
    let flags = *bytes.get(184)?;
    plain.then_some(Manners {
        write_mostly: flags & WRITE_MOSTLY != 0,
        fail_fast: flags & FAIL_FAST != 0,
    })
}

/// Whether a 0.90 superblock starts with `bytes`, in either byte order: it was written in the byte
/// order of its machine.
pub(crate) fn is_v090(bytes: &[u8]) -> bool {
    let Some(head) = bytes.get(..8) else {
        return false;
    };
    let little = u32_at(head, 0) == Some(MAGIC) && u32_at(head, 4) == Some(0);
    let big = head[..4] == MAGIC.to_be_bytes() && head[4..] == [0; 4];
    little || big
}

fn fields(whole: &[u8], roles: usize) -> Result<MdSuperblock, DamageWhy> {
    let features = u32_at(whole, 8).ok_or(DamageWhy::Short)?;
    let array = uuid_at(whole, 16)?;
    let device = uuid_at(whole, 168)?;
    let number = u32_at(whole, 160).ok_or(DamageWhy::Short)?;
    Ok(MdSuperblock {
        array: ArrayId::from_bytes(array),
        device: MdDeviceId::from_bytes(device),
        role: role_of(whole, number, roles)?,
        events: u64_at(whole, 200).ok_or(DamageWhy::Short)?,
        data_offset: SectorCount(u64_at(whole, 128).ok_or(DamageWhy::Short)?),
        data_size: SectorCount(u64_at(whole, 136).ok_or(DamageWhy::Short)?),
        bad_blocks: features & FEATURE_BAD_BLOCKS != 0,
        filling: features & (FEATURE_FILLING | FEATURE_BY_BITMAP) == FEATURE_FILLING,
        number,
        active: active(whole, roles),
    })
}

/// The members that held a slot when this was written: MD gives those their slot as a role that are
/// in sync or are being filled (`super_1_sync`).
fn active(whole: &[u8], roles: usize) -> Vec<u32> {
    let holds_a_slot =
        |index: &usize| u16_at(whole, FIXED + index * 2).is_some_and(|role| role <= ROLE_MAX);
    (0..roles).filter(holds_a_slot).filter_map(|index| u32::try_from(index).ok()).collect()
}

/// A member whose number is outside the table is a spare (`super_1_validate`).
fn role_of(whole: &[u8], number: u32, roles: usize) -> Result<MdRole, DamageWhy> {
    let index = match usize::try_from(number) {
        Ok(index) if index < roles => index,
        Ok(_) | Err(_) => return Ok(MdRole::Spare),
    };
    match u16_at(whole, FIXED + index * 2).ok_or(DamageWhy::Short)? {
        0xffff => Ok(MdRole::Spare),
        0xfffe => Ok(MdRole::Faulty),
        0xfffd => Ok(MdRole::Journal),
        slot if slot <= ROLE_MAX => Ok(MdRole::Active(slot)),
        other => Err(DamageWhy::Role(other)),
    }
}

/// `calc_sb_1_csum`: the sum of all words with the checksum's own word as zero, folded once.
fn checksum(whole: &[u8]) -> u32 {
    let mut sum: u64 = 0;
    for (index, word) in whole.chunks(4).enumerate() {
        if index == 216 / 4 {
            continue;
        }
        let mut wide = [0; 4];
        wide[..word.len()].copy_from_slice(word);
        sum += u64::from(u32::from_le_bytes(wide));
    }
    let folded = (sum & 0xffff_ffff) + (sum >> 32);
    u32::try_from(folded & 0xffff_ffff).unwrap_or(0)
}

fn uuid_at(bytes: &[u8], at: usize) -> Result<[u8; 16], DamageWhy> {
    let uuid: [u8; 16] = array_at(bytes, at).ok_or(DamageWhy::Short)?;
    if uuid == [0; 16] {
        return Err(DamageWhy::NoUuid);
    }
    Ok(uuid)
}

fn array_at<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at.checked_add(N)?)?.try_into().ok()
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    array_at(bytes, at).map(u16::from_le_bytes)
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    array_at(bytes, at).map(u32::from_le_bytes)
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    array_at(bytes, at).map(u64::from_le_bytes)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A superblock as MD writes it for slot `role` of a two-leg mirror.
    pub(crate) fn written(sector: u64, role: u16) -> Vec<u8> {
        let mut page = vec![0; ROOM];
        let mut put = |at: usize, bytes: &[u8]| page[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, &MAGIC.to_le_bytes());
        put(4, &1u32.to_le_bytes());
        put(8, &1u32.to_le_bytes());
        put(16, &[0x11; 16]);
        put(32, b"host:vol");
        put(72, &1u32.to_le_bytes());
        put(80, &0x8000u64.to_le_bytes());
        put(92, &2u32.to_le_bytes());
        put(128, &2048u64.to_le_bytes());
        put(136, &0x8800u64.to_le_bytes());
        put(144, &sector.to_le_bytes());
        put(160, &1u32.to_le_bytes());
        put(168, &[0x22; 16]);
        put(200, &42u64.to_le_bytes());
        put(220, &128u32.to_le_bytes());
        for slot in 0..128usize {
            put(FIXED + slot * 2, &0xfffeu16.to_le_bytes());
        }
        put(FIXED, &0u16.to_le_bytes());
        put(FIXED + 2, &role.to_le_bytes());
        seal(&mut page);
        page
    }

    pub(crate) fn seal(page: &mut [u8]) {
        let roles = u32_at(page, 220).unwrap() as usize;
        let sum = checksum(&page[..FIXED + roles * 2]);
        page[216..220].copy_from_slice(&sum.to_le_bytes());
    }

    #[test]
    fn a_superblock_says_whose_leg_it_is() {
        let found = parse(&written(8, 1), 8).unwrap().unwrap();
        assert_eq!(found.array, ArrayId::from_bytes([0x11; 16]));
        assert_eq!(found.device, MdDeviceId::from_bytes([0x22; 16]));
        assert_eq!(found.role, MdRole::Active(1));
        assert_eq!(found.events, 42);
        assert_eq!(found.data_offset, SectorCount(2048));
        assert_eq!(found.data_size, SectorCount(0x8800));
        assert!(!found.bad_blocks);
    }

    #[test]
    fn a_superblock_says_whom_it_counted_as_a_member() {
        let found = parse(&written(8, 1), 8).unwrap().unwrap();
        assert_eq!((found.number, found.active), (1, vec![0, 1]));
        let mut alone = written(8, 1);
        alone[FIXED..FIXED + 2].copy_from_slice(&0xffffu16.to_le_bytes());
        seal(&mut alone);
        assert_eq!(parse(&alone, 8).unwrap().unwrap().active, [1]);
    }

    #[test]
    fn a_superblock_says_how_its_leg_is_treated_unless_it_is_no_plain_mirrors() {
        let mut page = written(8, 1);
        for (flags, write_mostly, fail_fast) in
            [(0, false, false), (1, true, false), (2, false, true), (3, true, true)]
        {
            page[184] = flags;
            assert_eq!(manners(&page), Some(Manners { write_mostly, fail_fast }));
        }
        // A reshape, a replacement, another offset, a cluster, a journal, a log of partial parity.
        for feature in [4u32, 16, 32, 64, 256, 512, 1024, 2048, 4096] {
            page[8..12].copy_from_slice(&(feature | 1).to_le_bytes());
            assert_eq!(manners(&page), None, "{feature}");
        }
        assert_eq!(manners(&page[..184]), None);
    }

    #[test]
    fn the_checksum_is_the_kernels() {
        // Summed by hand as calc_sb_1_csum does it: 0xffffffff + 2, folded, is 2.
        let mut page = vec![0; FIXED + 2];
        page[0..4].copy_from_slice(&0xffff_ffffu32.to_le_bytes());
        page[216..220].copy_from_slice(&0x1234_5678u32.to_le_bytes());
        page[256..258].copy_from_slice(&2u16.to_le_bytes());
        assert_eq!(checksum(&page), 2);
    }

    #[test]
    fn mdadm_computes_the_same_checksum() {
        // `mdadm --examine` 4.2 on a file with exactly this superblock: "569d91e4 - correct".
        let mut page = written(8, 1);
        page[8..12].fill(0);
        page[80..88].copy_from_slice(&0x1000u64.to_le_bytes());
        page[136..144].copy_from_slice(&0x7800u64.to_le_bytes());
        assert_eq!(checksum(&page[..512]), 0x569d_91e4);
    }

    #[test]
    fn each_role_has_its_own_value() {
        for (raw, role) in [
            (0, MdRole::Active(0)),
            (0xffff, MdRole::Spare),
            (0xfffe, MdRole::Faulty),
            (0xfffd, MdRole::Journal),
        ] {
            assert_eq!(parse(&written(8, raw), 8).unwrap().unwrap().role, role);
        }
        assert_eq!(parse(&written(8, 0xff01), 8), Err(DamageWhy::Role(0xff01)));
    }

    #[test]
    fn a_device_number_outside_the_table_is_a_spare() {
        let mut page = written(8, 1);
        page[160..164].copy_from_slice(&u32::MAX.to_le_bytes());
        seal(&mut page);
        assert_eq!(parse(&page, 8).unwrap().unwrap().role, MdRole::Spare);
    }

    #[test]
    fn a_bad_block_log_in_use_is_seen() {
        let mut page = written(8, 1);
        page[8] |= 8;
        seal(&mut page);
        assert!(parse(&page, 8).unwrap().unwrap().bad_blocks);
    }

    #[test]
    fn a_leg_that_is_filled_from_the_beginning_is_told_from_one_that_is_by_the_bitmap() {
        for (features, filling) in [(0, false), (2, true), (2 | 128, false), (128, false)] {
            let mut page = written(8, 1);
            page[8] |= features;
            seal(&mut page);
            assert_eq!(parse(&page, 8).unwrap().unwrap().filling, filling, "{features}");
        }
    }

    #[test]
    fn damage_is_never_read_as_absence() {
        let mut flipped = written(8, 1);
        flipped[20] ^= 1;
        assert_eq!(parse(&flipped, 8), Err(DamageWhy::Checksum));
        assert_eq!(parse(&written(0, 1), 8), Err(DamageWhy::Misplaced(0)));
        assert_eq!(parse(&written(8, 1)[..300], 8), Err(DamageWhy::Short));
        assert_eq!(parse(&written(8, 1)[..6], 8), Err(DamageWhy::Short));

        let mut crowded = written(8, 1);
        crowded[220..224].copy_from_slice(&u32::MAX.to_le_bytes());
        assert_eq!(parse(&crowded, 8), Err(DamageWhy::TooManyRoles(u32::MAX)));

        let mut nameless = written(8, 1);
        nameless[16..32].fill(0);
        seal(&mut nameless);
        assert_eq!(parse(&nameless, 8), Err(DamageWhy::NoUuid));
        assert_eq!(parse(&vec![0; ROOM], 8), Ok(None));
        assert_eq!(parse(&[], 8), Ok(None));
    }

    #[test]
    fn the_places_are_where_md_looks() {
        assert_eq!(v1_places(SectorCount(2_097_152)), vec![0, 8, 2_097_136]);
        assert_eq!(v1_places(SectorCount(1001)), vec![0, 8, 984]);
        assert_eq!(v1_places(SectorCount(3)), vec![0, 8]);
        assert_eq!(v090_place(SectorCount(2_097_152)), Some(2_097_024));
        assert_eq!(v090_place(SectorCount(100)), None);
    }

    #[test]
    fn version_090_is_known_in_either_byte_order() {
        let mut little = MAGIC.to_le_bytes().to_vec();
        little.extend([0; 8]);
        let mut big = MAGIC.to_be_bytes().to_vec();
        big.extend([0; 8]);
        assert!(is_v090(&little) && is_v090(&big));
        assert!(!is_v090(&written(8, 1)) && !is_v090(&[]));
    }

    #[test]
    fn hostile_bytes_end_in_an_answer() {
        // xorshift64: the same sequence each time, so that a failure can be looked at.
        let mut state = 0x9e37_79b9_7f4a_7c15u64;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        };
        let mut accepted = 0;
        for _ in 0..20_000 {
            let mut page = written(8, 1);
            for _ in 0..=(next() % 8) {
                let at = (next() % 512) as usize;
                page[at] = (next() & 0xff) as u8;
            }
            page.truncate(usize::try_from(next()).unwrap() % (ROOM + 1));
            if let Ok(Some(_)) = parse(&page, 8) {
                accepted += 1;
            }
            // With a checksum that holds, the fields themselves are the attack.
            let mut sealed = written(8, 1);
            for _ in 0..8 {
                sealed[8 + (next() % 208) as usize] = (next() & 0xff) as u8;
            }
            seal(&mut sealed);
            let _ = parse(&sealed, 8);
        }
        assert!(accepted < 200, "{accepted} damaged superblocks were believed");
    }
}
