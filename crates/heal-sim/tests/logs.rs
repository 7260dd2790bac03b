//! Every story that once broke a rule is told again, for ever: `tests/regressions/*.log`.
//!
//! `cargo xtask hunt` writes such a file when it finds something; it goes into that folder together
//! with the fix. What is found and not fixed yet is in `open`, and has to break its rule still: who
//! fixes it moves the log. `cargo run -p heal-sim --bin heal-replay -- FILE` tells one step by
//! step.

use std::fs;
use std::path::PathBuf;

use heal_sim::hunt::log::EventLog;
use heal_sim::hunt::retold;

fn logs(below: &str) -> Vec<(String, EventLog)> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/regressions");
    let folder = folder.join(below);
    if !folder.exists() {
        return Vec::new(); // Nothing is open.
    }
    let mut paths: Vec<PathBuf> = fs::read_dir(folder)
        .expect("the folder of logs can be read")
        .map(|entry| entry.expect("its entries can be read").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "log"))
        .collect();
    paths.sort();
    let read = |path: &PathBuf| {
        let text = fs::read_to_string(path).expect("a log can be read");
        EventLog::parse(&text).map_err(|error| (path, error)).expect("a log can be parsed")
    };
    let name = |path: &PathBuf| path.file_name().expect("a file").to_string_lossy().into_owned();
    paths.iter().map(|path| (name(path), read(path))).collect()
}

#[test]
fn stories_that_broke_a_rule_once_keep_every_rule() {
    let logs = logs("");
    assert!(!logs.is_empty(), "the folder holds logs");
    let mut broken = Vec::new();
    for (name, log) in &logs {
        for violation in retold(log).violations() {
            broken.push(format!("{name}: {}: {}", violation.name, violation.detail));
        }
    }
    assert!(broken.is_empty(), "{} rules broken: {broken:#?}", broken.len());
}

#[test]
fn every_log_says_what_it_found() {
    for (name, log) in logs("").into_iter().chain(logs("open")) {
        assert!(!log.notes.is_empty(), "{name} has no note");
    }
}

#[test]
fn what_is_open_still_breaks_its_rule_and_is_moved_when_it_does_not() {
    let mut fixed = Vec::new();
    for (name, log) in logs("open") {
        let world = retold(&log);
        let mut names = world.violations().iter().map(|violation| Some(violation.name));
        if !names.any(|broken| broken == log.head.breaks.as_deref()) {
            fixed.push(name);
        }
    }
    assert!(fixed.is_empty(), "fixed, so they belong among the regressions: {fixed:?}");
}
