//! What stands on disks: superblocks, signatures, and our own notes of an earlier life.

use std::fs;
use std::path::{Path, PathBuf};

use heal_core::record::ArrayRecord;
use heal_host::{Ledger, LedgerError, fuzzing};
use heal_types::{ArrayId, Content, MdSuperblock};

use crate::inputs::{cuts, halves, survives_json};

/// A directory of this process and this use, in memory where the machine has such a place.
pub(crate) fn scratch(name: &str) -> PathBuf {
    let memory = Path::new("/dev/shm");
    let place = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
    let path = place.join(format!("heal-fuzz-{}-{name}", std::process::id()));
    fs::create_dir_all(&path).expect("there is room for a directory");
    path
}

const MAGIC: [u8; 4] = 0xa92b_4efc_u32.to_le_bytes();
/// Length of the fixed part of `struct mdp_superblock_1`.
const FIXED: usize = 256;
/// Where its checksum stands.
const CHECKSUM: std::ops::Range<usize> = 216..220;
/// Where the number of roles stands.
const ROLES: std::ops::Range<usize> = 220..224;
/// Where a superblock of version 1.2 stands.
const PLACE: u64 = 8;

/// The first byte says whether the rest is taken as it is, or becomes a superblock whose magic
/// number, version, place and checksum hold: then the other fields are the attack.
fn as_superblock(bytes: &[u8]) -> Vec<u8> {
    let Some((how, rest)) = bytes.split_first() else { return Vec::new() };
    let mut page = rest.to_vec();
    if how % 2 == 0 || page.len() < FIXED {
        return page;
    }
    page[..4].copy_from_slice(&MAGIC);
    page[4..8].copy_from_slice(&1_u32.to_le_bytes());
    page[144..152].copy_from_slice(&PLACE.to_le_bytes());
    let roles = (page.len() - FIXED) / 2;
    page.truncate(FIXED + roles * 2);
    let roles = u32::try_from(roles).expect("an input is short");
    page[ROLES].copy_from_slice(&roles.to_le_bytes());
    let sum = checksum(&page);
    page[CHECKSUM].copy_from_slice(&sum.to_le_bytes());
    page
}

/// `calc_sb_1_csum`, written a second time: word for word as the kernel has it.
fn checksum(superblock: &[u8]) -> u32 {
    let mut without = superblock.to_vec();
    without[CHECKSUM].fill(0);
    let mut sum: u64 = 0;
    let mut words = without.chunks_exact(4);
    for word in &mut words {
        sum += u64::from(u32::from_le_bytes(word.try_into().expect("they are four")));
    }
    if let [low, high] = words.remainder() {
        sum += u64::from(u16::from_le_bytes([*low, *high]));
    }
    u32::try_from(((sum & 0xffff_ffff) + (sum >> 32)) & 0xffff_ffff).expect("it was masked")
}

pub(crate) fn superblock(bytes: &[u8]) {
    let page = as_superblock(bytes);
    match fuzzing::superblock(&page, PLACE) {
        Ok(Some(found)) => {
            whole(&page, &found);
            is_all_looked_at(&page);
        }
        Ok(None) => assert!(!page.starts_with(&MAGIC), "damage was read as absence"),
        Err(_) => assert!(page.starts_with(&MAGIC), "absence was read as damage"),
    }
}

fn whole(page: &[u8], found: &MdSuperblock) {
    survives_json(found);
    let roles = u32::from_le_bytes(page[ROLES].try_into().expect("they are four"));
    let length = FIXED + 2 * usize::try_from(roles).expect("it fits into a page");
    let sum = checksum(&page[..length]).to_le_bytes();
    assert_eq!(page[CHECKSUM], sum, "a superblock with a wrong checksum was believed");
    for cut in cuts(length) {
        match fuzzing::superblock(&page[..cut], PLACE) {
            Ok(Some(_)) => panic!("{cut} of {length} bytes were believed"),
            Ok(None) => assert!(cut < MAGIC.len(), "cut at {cut}, it was read as absent"),
            Err(_) => {}
        }
    }
    assert!(fuzzing::superblock(page, PLACE + 8).is_err(), "it was believed at another place");
}

/// One bit that is turned over anywhere makes it another superblock, or none.
fn is_all_looked_at(page: &[u8]) {
    let roles = u32::from_le_bytes(page[ROLES].try_into().expect("they are four"));
    let length = FIXED + 2 * usize::try_from(roles).expect("it fits into a page");
    let mut turned = page.to_vec();
    for at in (0..length).step_by(7) {
        turned[at] ^= 1;
        let found = fuzzing::superblock(&turned, PLACE);
        assert!(!matches!(found, Ok(Some(_))), "the bit turned over in byte {at} was not seen");
        turned[at] ^= 1;
    }
}

/// What `blkid` printed, a zero byte, what it printed blind to MD, and in front of both a byte that
/// says whether there is a superblock.
pub(crate) fn content(bytes: &[u8]) {
    let Some((how, rest)) = bytes.split_first() else { return };
    let (all, beside) = halves(rest);
    let (Ok(all), Ok(beside)) = (std::str::from_utf8(all), std::str::from_utf8(beside)) else {
        return;
    };
    let mut sealed = vec![1];
    sealed.extend([0x11; FIXED]);
    let page = if how & 1 == 0 { Vec::new() } else { as_superblock(&sealed) };
    let beside = (how & 2 != 0).then_some(beside);
    let Some(content) = fuzzing::content(&page, PLACE, all, beside) else {
        let silent =
            |text: &str| !text.lines().any(|line| line.starts_with("LOGICAL_SECTOR_SIZE="));
        assert!(silent(all) || beside.is_some_and(silent), "blkid had read the device");
        return;
    };
    survives_json(&content);
    match &content {
        Content::Blank => {
            let signature = |line: &str| {
                ["TYPE=", "USAGE=", "PTTYPE="].iter().any(|field| line.starts_with(field))
            };
            assert!(page.is_empty(), "a superblock was passed over");
            assert!(!all.lines().any(signature), "a signature was passed over: {all:?}");
        }
        Content::MdMember(_) => assert!(!page.is_empty(), "there is no superblock"),
        Content::Foreign(kind) => {
            let named = kind.to_string();
            assert!(!named.chars().any(char::is_control) && named.len() < 1024, "{named:?}");
        }
    }
}

pub(crate) fn helper(bytes: &[u8]) {
    let Some(printed) = fuzzing::report(bytes) else { return };
    assert_eq!(fuzzing::report(&printed).as_ref(), Some(&printed), "it is read back as another");
    let end = bytes.iter().rposition(|byte| *byte == b'}').unwrap_or(0);
    for cut in cuts(end) {
        assert_eq!(fuzzing::report(&bytes[..cut]), None, "cut at {cut}");
    }
}

/// The array of the record that is in the ledger's tests.
const ARRAY: &str = "8e0a1b6c:1f2e3d4c:5b6a7988:00112233";

/// A record of the highest generation that there can be.
const FRESH: &str = r#"(schema: 1, generation: 18446744073709551615,
    array: "8e0a1b6c:1f2e3d4c:5b6a7988:00112233", next_effect: 0, incident: None, volume: None,
    members: [], repairs: [], owed: [], intents: [], connected: {}, hold: None, quarantine: None)"#;

pub(crate) fn ledger(bytes: &[u8]) {
    let array: ArrayId = ARRAY.parse().expect("an array's UUID");
    let directory = scratch("ledger");
    let file = directory.join(format!("{}.ron", ARRAY.replace(':', "-")));
    fs::write(&file, bytes).expect("there is room for a file");
    let open = || Ledger::<ArrayRecord>::open(&directory, directory.join("fallback"));
    let mut ledger = open().expect("there is a home");
    let mut records = ledger.load_all().expect("the home can be listed");
    let Some((of, record)) = records.pop() else { panic!("a record that is there is not listed") };
    assert!(of == array && records.is_empty());
    match record {
        Ok(record) => survives(&mut ledger, array, record, open),
        Err(error) => stays(&mut ledger, array, &error, (&file, bytes)),
    }
}

/// A record that was read is written and read again.
fn survives(
    ledger: &mut Ledger<ArrayRecord>,
    array: ArrayId,
    mut record: ArrayRecord,
    open: impl Fn() -> Result<Ledger<ArrayRecord>, LedgerError>,
) {
    survives_json(&record.members);
    let older = record.clone();
    record.generation = record.generation.saturating_add(1);
    match ledger.save(array, &record) {
        Ok(()) => {}
        // What just fitted may not fit any more as it is laid out by us.
        Err(LedgerError::TooLarge { .. }) => return,
        Err(error) if older.generation == u64::MAX => {
            assert!(matches!(error, LedgerError::NotNewer { .. }), "{error}");
            return;
        }
        Err(error) => panic!("a record that was read cannot be written: {error}"),
    }
    let read = open().and_then(|mut ledger| ledger.load_all()).expect("the home can be listed");
    let [(_, Ok(read))] = read.as_slice() else { panic!("it is not read back: {read:?}") };
    assert_eq!(*read, record);
    let again = open().and_then(|mut ledger| ledger.save(array, &older));
    assert!(again.is_err() || older == record, "an older record was written over a newer one");
}

/// What cannot be read is an error, and stays for a person to look at.
fn stays(
    ledger: &mut Ledger<ArrayRecord>,
    array: ArrayId,
    error: &LedgerError,
    (file, bytes): (&Path, &[u8]),
) {
    assert!(!error.to_string().is_empty());
    let fresh: ArrayRecord = ron::from_str(FRESH).expect("a record");
    assert!(ledger.save(array, &fresh).is_err(), "it was written over what could not be read");
    assert_eq!(fs::read(file).expect("it is there"), bytes, "it was changed");
}
