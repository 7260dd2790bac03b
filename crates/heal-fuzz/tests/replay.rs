//! Every committed input through its target, on every run of the tests.
//!
//! An input that made a target fail once is its regression test from then on; the others keep what
//! exploration reached within reach.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use heal_fuzz::{TARGETS, Target, corpora, target};

/// All corpora together: exploring makes far more than is worth keeping.
const ROOM: u64 = 640 * 1024;

/// No input takes longer, on however slow a machine.
const LIMIT: Duration = Duration::from_secs(10);

fn corpus(target: &Target) -> Vec<PathBuf> {
    let directory = corpora().join(target.name);
    let entries = fs::read_dir(&directory).expect("every target has a corpus");
    entries.map(|entry| entry.expect("it can be listed").path()).collect()
}

#[test]
fn every_input_keeps_every_promise() {
    let mut broken = Vec::new();
    for target in TARGETS {
        let inputs = corpus(target);
        for input in &inputs {
            let bytes = fs::read(input).unwrap();
            let begun = Instant::now();
            if std::panic::catch_unwind(|| (target.run)(&bytes)).is_err() {
                broken.push(input.clone());
            }
            assert!(begun.elapsed() < LIMIT, "{} took {:?}", input.display(), begun.elapsed());
        }
        assert!(inputs.len() > 1, "{} has next to no corpus", target.name);
    }
    assert!(broken.is_empty(), "promises are broken by {broken:#?}");
}

#[test]
fn an_input_without_bytes_keeps_every_promise() {
    for target in TARGETS {
        (target.run)(&[]);
    }
}

#[test]
fn every_corpus_belongs_to_a_target_and_there_is_room_for_all_of_them() {
    let mut size = 0;
    for entry in fs::read_dir(corpora()).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let owner = target(&name).unwrap_or_else(|| panic!("{name} belongs to no target"));
        size += corpus(owner).iter().map(|input| fs::metadata(input).unwrap().len()).sum::<u64>();
    }
    assert!(size <= ROOM, "{size} bytes of corpora: minimise them");
    let names: BTreeSet<&str> = TARGETS.iter().map(|target| target.name).collect();
    assert_eq!(names.len(), TARGETS.len(), "two targets of one name");
}
