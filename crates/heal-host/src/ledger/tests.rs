//! What the ledger does when things go wrong, simulated by the files a crash would leave.

#![allow(clippy::disallowed_methods, reason = "a test makes and breaks files of its own")]

use std::collections::BTreeMap;
use std::error::Error;
use std::fs;
use std::time::Duration;

use heal_types::Slot;
use serde::{Deserialize, Serialize};

use super::*;
use crate::exec::testing::TempDir;

/// A record with every shape that a real one may have.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Record {
    schema: u32,
    incident: Option<String>,
    repairs: BTreeMap<Slot, Phase>,
    pair: (u8, Option<Duration>),
    nothing: (),
    generation: u64,
    text: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
enum Phase {
    Waiting,
    Grace { until: u64, why: Option<Box<Phase>> },
    Asked(String),
    Both(u8, Vec<Phase>),
}

fn record(generation: u64) -> Record {
    let grace = Phase::Grace {
        until: 17,
        why: Some(Box::new(Phase::Asked("a \"key\", (generation: 99)".to_owned()))),
    };
    let both = Phase::Both(3, vec![Phase::Waiting, grace.clone()]);
    Record {
        schema: 1,
        incident: Some("it broke".to_owned()),
        repairs: BTreeMap::from([(Slot(0), grace), (Slot(1), Phase::Waiting), (Slot(7), both)]),
        pair: (5, Some(Duration::from_millis(1500))),
        nothing: (),
        generation,
        text: "tab\there, newline\nthere, \u{1f980}".to_owned(),
    }
}

const ONE: ArrayId = ArrayId::from_bytes([0x11; 16]);
const TWO: ArrayId = ArrayId::from_bytes([0x22; 16]);
const FILE: &str = "11111111-11111111-11111111-11111111.ron";

struct Homes(TempDir);

impl Homes {
    /// With a durable home that is there.
    fn both() -> Self {
        let homes = Self::without_primary();
        homes.mount();
        homes
    }

    fn without_primary() -> Self {
        Self(TempDir::new())
    }

    fn mount(&self) {
        fs::create_dir(self.0.path().join("var")).unwrap();
    }

    fn open(&self) -> Ledger<Record> {
        Ledger::open(self.0.path().join("var"), self.0.path().join("run/ledger")).unwrap()
    }

    fn put(&self, home: &str, name: &str, text: &str) {
        self.0.file(&format!("{home}/{name}"), text);
    }

    fn put_record(&self, home: &str, generation: u64) {
        self.put(home, FILE, &ron::to_string(&record(generation)).unwrap());
    }

    fn names(&self, home: &str) -> Vec<String> {
        let Ok(entries) = fs::read_dir(self.0.path().join(home)) else {
            return Vec::new();
        };
        let mut names: Vec<String> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

fn only(ledger: &mut Ledger<Record>) -> Result<Record, LedgerError> {
    let mut records = ledger.load_all().unwrap();
    assert_eq!(records.len(), 1);
    records.remove(0).1
}

#[test]
fn what_was_saved_is_there_after_a_restart() {
    let homes = Homes::both();
    let mut ledger = homes.open();
    assert_eq!(ledger.home(), LedgerHome::Primary);
    assert!(ledger.load_all().unwrap().is_empty());
    ledger.save(ONE, &record(1)).unwrap();
    ledger.save(ONE, &record(2)).unwrap();
    ledger.save(TWO, &record(1)).unwrap();

    let loaded = homes.open().load_all().unwrap();
    let loaded: Vec<_> = loaded.into_iter().map(|(id, it)| (id, it.unwrap())).collect();
    assert_eq!(loaded, vec![(ONE, record(2)), (TWO, record(1))]);
    assert_eq!(homes.names("var").len(), 2);
    assert_eq!(homes.names("run/ledger"), Vec::<String>::new());
}

#[test]
fn generations_only_grow() {
    let homes = Homes::both();
    let mut ledger = homes.open();
    ledger.save(ONE, &record(5)).unwrap();
    let refused = ledger.save(ONE, &record(4)).unwrap_err();
    assert!(matches!(refused, LedgerError::NotNewer { last: 5, offered: 4, .. }), "{refused}");
    // The same record once more is what a caller does that did not hear the answer.
    ledger.save(ONE, &record(5)).unwrap();
    let other = Record { incident: None, ..record(5) };
    assert!(matches!(ledger.save(ONE, &other), Err(LedgerError::NotNewer { .. })));

    // Nor does a ledger that was never read go back.
    let mut fresh = homes.open();
    assert!(matches!(fresh.save(ONE, &record(1)), Err(LedgerError::NotNewer { .. })));
    fresh.save(ONE, &record(6)).unwrap();
}

#[test]
fn a_file_that_is_not_whole_is_an_error_for_its_array_and_is_kept() {
    let whole = ron::to_string(&record(3)).unwrap();
    let foreign = r#"(schema: 1, generation: 3)"#;
    let huge = format!("{whole}{}", " ".repeat(MAX_RECORD));
    for text in ["", "\0\0\0\0", &whole[..whole.len() / 2], foreign, "hello", &huge] {
        let homes = Homes::both();
        homes.put("var", FILE, text);
        homes.put("var", "22222222-22222222-22222222-22222222.ron", &whole);
        let mut ledger = homes.open();
        let records = ledger.load_all().unwrap();
        assert_eq!(records.len(), 2, "the other array is not affected");
        assert!(records[0].1.is_err() && records[1].1.is_ok(), "{records:?}");
        assert!(ledger.save(ONE, &record(9)).is_err(), "nothing is saved over it");
        assert_eq!(homes.0.read(&format!("var/{FILE}")), text);

        ledger.remove(ONE).unwrap();
        ledger.save(ONE, &record(1)).unwrap();
    }
}

#[test]
fn a_text_that_is_not_utf8_is_an_error_too() {
    let homes = Homes::both();
    homes.0.bytes(&format!("var/{FILE}"), &[0xff, 0xfe, 0x00]);
    assert!(matches!(only(&mut homes.open()), Err(LedgerError::Read { .. })));
}

#[test]
fn a_link_or_directory_in_a_records_place_is_not_followed() {
    let homes = Homes::both();
    homes.put("elsewhere", "file", &ron::to_string(&record(3)).unwrap());
    let target = homes.0.path().join("elsewhere/file");
    std::os::unix::fs::symlink(&target, homes.0.path().join("var").join(FILE)).unwrap();
    assert!(only(&mut homes.open()).is_err());

    let homes = Homes::both();
    fs::create_dir(homes.0.path().join("var").join(FILE)).unwrap();
    assert!(matches!(only(&mut homes.open()), Err(LedgerError::NotAFile { .. })));
}

#[test]
fn a_crash_before_the_rename_leaves_the_old_record() {
    let homes = Homes::both();
    homes.put_record("var", 1);
    let torn = &ron::to_string(&record(2)).unwrap()[..40];
    homes.put("var", &format!(".{FILE}.tmp"), torn);
    let mut ledger = homes.open();
    assert_eq!(only(&mut ledger).unwrap(), record(1));
    assert_eq!(homes.names("var"), [FILE], "what was not finished is gone");
    ledger.save(ONE, &record(2)).unwrap();
}

#[test]
fn a_crash_after_the_rename_leaves_the_new_record() {
    let homes = Homes::both();
    // Renamed, the directory not synced, the caller never told: it will save the same again.
    homes.put("var", FILE, &{
        let pretty = ron::ser::PrettyConfig::default();
        ron::ser::to_string_pretty(&record(2), pretty).unwrap() + "\n"
    });
    let mut ledger = homes.open();
    assert_eq!(only(&mut ledger).unwrap(), record(2));
    ledger.save(ONE, &record(2)).unwrap();
}

#[test]
fn names_that_are_not_ours_are_neither_read_nor_removed() {
    let homes = Homes::both();
    let others = [".editor.swp", "111111111111111111111111111111.ron", "README", "x.ron", "x.tmp"];
    for name in others {
        homes.put("var", name, "whatever");
    }
    // The same UUID, written as another program would.
    homes.put("var", "11111111-1111-1111-1111-111111111111.ron", "whatever");
    let mut ledger = homes.open();
    assert!(ledger.load_all().unwrap().is_empty());
    assert_eq!(homes.names("var").len(), others.len() + 1);
}

#[test]
fn without_the_durable_home_records_wait_in_the_other() {
    let homes = Homes::without_primary();
    let mut ledger = homes.open();
    assert_eq!(ledger.home(), LedgerHome::Fallback);
    ledger.save(ONE, &record(1)).unwrap();
    assert!(matches!(ledger.settle().unwrap(), Settled::NotYet));
    // A restart of the daemon finds it.
    let mut ledger = homes.open();
    assert_eq!(only(&mut ledger).unwrap(), record(1));

    homes.mount();
    assert!(matches!(ledger.settle().unwrap(), Settled::Moved { late } if late.is_empty()));
    assert_eq!(ledger.home(), LedgerHome::Primary);
    assert_eq!(homes.names("var"), [FILE]);
    assert_eq!(homes.names("run/ledger"), Vec::<String>::new());
    assert!(matches!(ledger.settle().unwrap(), Settled::Already));
    ledger.save(ONE, &record(2)).unwrap();
    assert_eq!(only(&mut homes.open()).unwrap(), record(2));
}

#[test]
fn a_durable_home_that_takes_no_files_is_not_there_yet() {
    let homes = Homes::without_primary();
    // Nobody can make a file here, root included; and the second is no directory at all.
    homes.put("plain", "file", "");
    for primary in ["/proc".into(), homes.0.path().join("plain/file")] {
        let mut ledger: Ledger<Record> =
            Ledger::open(primary, homes.0.path().join("run/ledger")).unwrap();
        assert_eq!(ledger.home(), LedgerHome::Fallback);
        ledger.save(ONE, &record(1)).unwrap();
        ledger.remove(ONE).unwrap();
    }
    let error = Ledger::<Record>::open("/proc", "/proc/ledger").unwrap_err();
    assert!(matches!(error, LedgerError::Write { .. } | LedgerError::Read { .. }), "{error}");
    assert!(error.source().is_some());
}

#[test]
fn the_newest_of_two_homes_counts_and_the_other_goes() {
    for (durable, passing, newest) in [(1, 2, 2), (3, 2, 3), (2, 2, 2)] {
        let homes = Homes::both();
        homes.put_record("var", durable);
        homes.put_record("run/ledger", passing);
        let mut ledger = homes.open();
        assert_eq!(only(&mut ledger).unwrap(), record(newest));
        // The daemon asked before it settled, so nothing is news to it.
        assert!(matches!(ledger.settle().unwrap(), Settled::Moved { late } if late.is_empty()));
        assert_eq!(homes.names("run/ledger"), Vec::<String>::new());
        assert_eq!(only(&mut homes.open()).unwrap(), record(newest));
    }
}

#[test]
fn a_crash_while_moving_is_finished_by_the_next_start() {
    let homes = Homes::both();
    // Copied, not yet removed from the other home.
    homes.put_record("var", 4);
    homes.put_record("run/ledger", 4);
    let mut ledger = homes.open();
    ledger.load_all().unwrap();
    ledger.settle().unwrap();
    assert_eq!(homes.names("run/ledger"), Vec::<String>::new());
    assert_eq!(only(&mut ledger).unwrap(), record(4));
}

#[test]
fn records_that_turn_up_with_the_durable_home_are_told() {
    let homes = Homes::without_primary();
    let mut ledger = homes.open();
    ledger.load_all().unwrap();
    ledger.save(ONE, &record(1)).unwrap();
    homes.mount();
    homes.put_record("var", 8);
    homes.put("var", "22222222-22222222-22222222-22222222.ron", "torn");
    let Settled::Moved { late } = ledger.settle().unwrap() else {
        panic!("it was there to be moved to");
    };
    assert_eq!(late.len(), 2);
    assert_eq!(late[0].0, ONE);
    assert_eq!(late[0].1.as_ref().unwrap(), &record(8));
    assert!(late[1].0 == TWO && late[1].1.is_err());
    assert!(matches!(ledger.save(ONE, &record(2)), Err(LedgerError::NotNewer { last: 8, .. })));
}

#[test]
fn a_good_record_does_not_outvote_an_unreadable_one() {
    for (bad, good) in [("var", "run/ledger"), ("run/ledger", "var")] {
        let homes = Homes::both();
        homes.put_record(good, 5);
        homes.put(bad, FILE, "torn");
        let mut ledger = homes.open();
        assert!(matches!(only(&mut ledger), Err(LedgerError::Unreadable { .. })));
        ledger.settle().unwrap();
        assert_eq!(homes.0.read(&format!("{bad}/{FILE}")), "torn", "kept for a person to look at");
        assert!(ledger.save(ONE, &record(6)).is_err());
        ledger.remove(ONE).unwrap();
        assert!(homes.names("var").is_empty() && homes.names("run/ledger").is_empty());
    }
}

#[test]
fn a_record_that_is_too_large_is_refused_and_the_old_one_holds() {
    let homes = Homes::both();
    let mut ledger = homes.open();
    ledger.save(ONE, &record(1)).unwrap();
    let huge = Record { text: "x".repeat(MAX_RECORD), ..record(2) };
    assert!(matches!(ledger.save(ONE, &huge), Err(LedgerError::TooLarge { .. })));
    ledger.save(ONE, &record(2)).unwrap();
    assert_eq!(only(&mut homes.open()).unwrap(), record(2));
}

#[test]
fn a_write_that_fails_is_told_and_may_be_tried_again() {
    let homes = Homes::both();
    let mut ledger = homes.open();
    ledger.save(ONE, &record(1)).unwrap();
    let away = homes.0.path().join("away");
    fs::rename(homes.0.path().join("var"), &away).unwrap();
    assert!(matches!(ledger.save(ONE, &record(2)), Err(LedgerError::Write { .. })));
    fs::rename(&away, homes.0.path().join("var")).unwrap();
    ledger.save(ONE, &record(2)).unwrap();
    assert_eq!(only(&mut homes.open()).unwrap(), record(2));
}

#[test]
fn removing_what_is_not_there_is_fine() {
    let homes = Homes::both();
    let mut ledger = homes.open();
    ledger.remove(ONE).unwrap();
    ledger.save(ONE, &record(9)).unwrap();
    ledger.remove(ONE).unwrap();
    ledger.save(ONE, &record(1)).unwrap();
}
