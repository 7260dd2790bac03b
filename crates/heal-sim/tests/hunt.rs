//! Stories made by dice. `HUNT_SEEDS=FROM..TO` explores; without it a fixed corpus is told again.
//! `HUNT_TELL=1` prints the stories that broke a rule. To explore for minutes: `cargo xtask hunt`.
#![allow(clippy::print_stdout, reason = "a story that broke a rule is told on request")]

use heal_sim::hunt::coverage::{self, SELDOM, UNTAKEN};
use heal_sim::hunt::log::EventLog;
use heal_sim::hunt::table::Table;
use heal_sim::hunt::{retold, told};

fn seeds(corpus: std::ops::Range<u64>) -> std::ops::Range<u64> {
    let parse = |text: &str| {
        let (from, to) = text.split_once("..")?;
        Some(from.parse().ok()?..to.parse().ok()?)
    };
    std::env::var("HUNT_SEEDS").ok().as_deref().and_then(parse).unwrap_or(corpus)
}

fn every_rule_is_kept(table: Table, corpus: u64) {
    let mut broken = Vec::new();
    for seed in seeds(0..corpus) {
        let (world, log) = told(table, seed, 12);
        for violation in world.violations() {
            broken.push(format!("seed {seed}: {}: {}", violation.name, violation.detail));
        }
        for (phase, signal) in world.edges().surprises() {
            broken.push(format!("seed {seed}: {phase} on {signal} is said never to be taken"));
        }
        if std::env::var_os("HUNT_TELL").is_some() && !world.violations().is_empty() {
            println!("{}\n{}", log.text(), world.transcript.text());
        }
    }
    assert!(broken.is_empty(), "{} rules broken: {broken:#?}", broken.len());
}

#[test]
fn no_rule_is_broken_whatever_devices_paths_tools_and_the_daemon_do() {
    every_rule_is_kept(Table::Faults, 60);
}

#[test]
fn no_rule_is_broken_when_readers_err_and_others_meddle() {
    every_rule_is_kept(Table::Hands, 30);
}

#[test]
fn no_rule_is_broken_and_no_write_fails_whatever_becomes_of_cables_and_targets() {
    every_rule_is_kept(Table::Paths, 20);
}

#[test]
fn no_rule_is_broken_when_the_daemon_dies_within_a_write_of_its_ledger() {
    every_rule_is_kept(Table::Ledger, 40);
}

#[test]
fn no_rule_is_broken_whatever_the_provisioner_says() {
    every_rule_is_kept(Table::Provisioner, 40);
}

#[test]
fn no_rule_is_broken_when_signals_are_lost_late_doubled_or_reordered() {
    every_rule_is_kept(Table::Signals, 30);
}

#[test]
fn no_rule_is_broken_and_no_array_waits_for_another_in_a_crowd() {
    every_rule_is_kept(Table::Crowd, 10);
}

#[test]
fn no_rule_is_broken_by_everything_at_once() {
    every_rule_is_kept(Table::Everything, 20);
}

#[test]
fn every_move_that_is_said_to_be_made_never_or_seldom_is_a_legal_one_and_named_once() {
    let legal = coverage::legal();
    let named: Vec<_> = UNTAKEN.iter().chain(SELDOM).collect();
    for (at, (edge, why)) in named.iter().enumerate() {
        assert!(legal.contains(edge), "{edge:?}");
        assert!(!why.is_empty(), "{edge:?}");
        assert!(named[..at].iter().all(|(other, _)| other != edge), "{edge:?} twice");
    }
}

#[test]
fn a_log_tells_the_same_story_again_word_by_word() {
    for (seed, table) in (0..16).zip(Table::ALL.into_iter().cycle()) {
        let (world, log) = told(table, seed, 8);
        let read = EventLog::parse(&log.text()).expect("a log that was written is read");
        assert_eq!(read, log);
        let again = retold(&read);
        assert_eq!(again.transcript.text(), world.transcript.text(), "{table} {seed}");
        assert_eq!(again.state(), world.state());
    }
}
