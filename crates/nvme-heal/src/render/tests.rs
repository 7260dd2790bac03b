use heal_types::status::{Counters, Reaction, SCHEMA, TrailEntry};

use super::*;
use crate::verdict::of_host;

const NOW: WallTime = WallTime(1_767_225_600_000);

fn look() -> Look {
    Look { width: Some(100), colour: false, dots: true, zone: TimeZone::UTC }
}

fn leg(slot: Option<u16>, device: &str, state: &str, path: &str) -> LegStatus {
    LegStatus {
        slot,
        device: device.into(),
        state: state.into(),
        namespace: "uuid.6fd1ee4c-3f2c-4f6f-8a44-0a7ef2a0a001".into(),
        replica: slot.map(|slot| format!("r{slot}")),
        path: path.into(),
    }
}

fn array(device: &str, health: Health, summary: &str, legs: Vec<LegStatus>) -> ArrayStatus {
    ArrayStatus {
        id: "8e0a1b6c:1f2e3d4c:5b6a7988:00112233".into(),
        device: device.into(),
        alias: Some(format!("vol-{device}")),
        volume: Some("vol-7".into()),
        health,
        phase: "whole".into(),
        array_state: "clean".into(),
        level: "raid1".into(),
        summary: summary.into(),
        incident: None,
        legs,
        repairs: vec![],
        owed_reports: vec![],
        provisioner_age_seconds: Some(3),
        provisioner_fault: None,
    }
}

fn repair(slot: u16, phase: &str, next: &str, due: Option<u64>) -> RepairStatus {
    RepairStatus {
        slot,
        phase: phase.into(),
        cause: "leg lost".into(),
        since: NOW,
        lost: Some("r1".into()),
        incoming: None,
        rule: "grace: 252 s left".into(),
        next: next.into(),
        due: due.map(|seconds| WallTime(NOW.0 + seconds * 1000)),
        percent: None,
    }
}

fn whole(device: &str) -> ArrayStatus {
    let legs =
        vec![leg(Some(0), "nvme0n1", "in_sync", "up"), leg(Some(1), "nvme1n1", "in_sync", "up")];
    array(device, Health::Optimal, "managed", legs)
}

fn in_grace(device: &str) -> ArrayStatus {
    let legs = vec![
        leg(Some(0), "nvme2n1", "in_sync", "up"),
        leg(Some(1), "nvme3n1", "in_sync", "up"),
        leg(None, "nvme4n1", "faulty,write_error", "gone"),
    ];
    ArrayStatus {
        phase: "grace".into(),
        incident: Some("0198c0de-0000-7000-8000-000000000001".into()),
        repairs: vec![repair(2, "grace", "ask for a replacement", Some(252))],
        ..array(device, Health::Healing, "slot 2: grace: 252 s left", legs)
    }
}

fn rebuilding(device: &str) -> ArrayStatus {
    let legs =
        vec![leg(Some(0), "nvme5n1", "in_sync", "up"), leg(Some(1), "nvme6n2", "spare", "up")];
    let mut repair = repair(1, "rebuilding", "report the replica available", None);
    repair.percent = Some(42);
    ArrayStatus {
        phase: "rebuilding".into(),
        repairs: vec![repair],
        ..array(device, Health::Healing, "slot 1: rebuilding: MD rebuilds: 42 %", legs)
    }
}

fn host(arrays: Vec<ArrayStatus>) -> HostStatus {
    HostStatus {
        schema: SCHEMA,
        version: "0.1.0".into(),
        mode: "heal".into(),
        provisioner: "fixed".into(),
        at: NOW,
        arrays,
        reaction: Reaction::default(),
        isolation: Reaction::default(),
        counters: Counters::default(),
        alarms: vec![],
    }
}

fn troubled() -> HostStatus {
    let quarantined = array(
        "md124",
        Health::Quarantined,
        "quarantined: its record is unreadable: torn",
        vec![leg(Some(0), "nvme7n1", "in_sync", "down: nvme7 connecting")],
    );
    let mut local = whole("md1");
    local.health = Health::Observed;
    local.alias = None;
    let mut status =
        host(vec![local, quarantined, rebuilding("md125"), in_grace("md126"), whole("md127")]);
    status.alarms.push("4 arrays of this host lost a leg within 10s".into());
    status
}

#[test]
fn problems_come_first_then_the_table() {
    let expected = "\
! host: 4 arrays of this host lost a leg within 10s
! md124 (vol-md124): quarantined: its record is unreadable: torn
! md125 (vol-md125): slot 1: rebuilding: MD rebuilds: 42 %
! md126 (vol-md126): slot 2: grace: 252 s left

ARRAY  NAME       STATE        LEGS       REBUILD  NEXT
md1    -          observed     ● ●        -        -
md124  vol-md124  quarantined  ○P         -        -
md125  vol-md125  rebuilding   ● ○R       42 %     slot 1: report the replica available
md126  vol-md126  grace        ● ● ○- ○F  -        slot 2: ask for a replacement in 4m12s
md127  vol-md127  optimal      ● ●        -        -

nvme-heald 0.1.0, mode heal, provisioner fixed
";
    assert_eq!(status(&troubled(), &look()), expected);
}

#[test]
fn a_pipe_gets_whole_lines_in_mds_own_signs() {
    let look = Look { width: None, dots: false, ..look() };
    let expected = "\
! md126 (vol-md126): slot 2: grace: 252 s left

ARRAY  NAME       STATE  LEGS      REBUILD  NEXT
md126  vol-md126  grace  [UU_-_f]  -        slot 2: ask for a replacement in 4m12s

nvme-heald 0.1.0, mode heal, provisioner fixed
";
    assert_eq!(status(&host(vec![in_grace("md126")]), &look), expected);
}

#[test]
fn a_narrow_terminal_cuts_the_last_column_only() {
    let look = Look { width: Some(60), ..look() };
    let text = status(&troubled(), &look);
    let table: Vec<&str> = text.lines().filter(|line| line.starts_with("md")).collect();
    assert!(table.iter().all(|line| line.chars().count() <= 64), "{text}");
    assert!(text.contains("slot 2: as..\n"), "{text}");
}

#[test]
fn colours_are_there_only_when_they_are_wanted() {
    let colourful = Look { colour: true, ..look() };
    let text = status(&troubled(), &colourful);
    assert!(text.contains("\x1b[1;31mquarantined\x1b[0m"), "{text:?}");
    assert!(text.contains("\x1b[32moptimal\x1b[0m"), "{text:?}");
    assert!(!status(&troubled(), &look()).contains('\x1b'));
}

#[test]
fn what_came_from_outside_cannot_speak_to_the_terminal() {
    let mut array = whole("md127");
    array.health = Health::Held;
    array.summary = "held: \x1b[2Jgone\r\nfake".into();
    array.provisioner_fault = Some("\x07".into());
    let text = status(&host(vec![array]), &look());
    assert!(text.chars().all(|c| c == '\n' || !c.is_control()), "{text:?}");
    assert!(text.contains("held:  [2Jgone  fake"), "{text}");
}

#[test]
fn an_explanation_tells_the_whole_chain() {
    let explained = Explanation {
        array: in_grace("md126"),
        knows: vec!["slot 2: empty".into()],
        rules: vec!["slot 2: grace: 252 s left".into()],
        next: vec!["slot 2: ask for a replacement (in 252 s)".into()],
        trail: vec![TrailEntry {
            at: NOW,
            message: "md126: slot 2 lost".into(),
            event: "leg.lost".into(),
        }],
    };
    let expected = "\
md126 (vol-md126): grace: slot 2: grace: 252 s left
  UUID 8e0a1b6c:1f2e3d4c:5b6a7988:00112233
  volume vol-7
  incident 0198c0de-0000-7000-8000-000000000001: journalctl NVME_HEAL_INCIDENT=0198c0de-0000-7000-8000-000000000001

SLOT  LEG      STATE               PATH  REPLICA  NAMESPACE
0     nvme2n1  in_sync             up    r0       uuid.6fd1ee4c-3f2c-4f6f-8a44-0a7ef2a0a001
1     nvme3n1  in_sync             up    r1       uuid.6fd1ee4c-3f2c-4f6f-8a44-0a7ef2a0a001
-     nvme4n1  faulty,write_error  gone  -        uuid.6fd1ee4c-3f2c-4f6f-8a44-0a7ef2a0a001

What is known
  slot 2: empty

Which rules hold
  slot 2: grace: 252 s left

What happens next
  slot 2: ask for a replacement (in 252 s)

What happened
  2026-01-01 00:00:00.000  md126: slot 2 lost
";
    assert_eq!(explanation(&explained, &look()), expected);
}

#[test]
fn a_host_without_arrays_says_so() {
    let text = status(&host(vec![]), &look());
    assert!(text.starts_with("no md arrays on this host\n"), "{text}");
}

#[test]
fn the_exit_code_follows_the_worst() {
    assert_eq!(of_host(&host(vec![whole("md1")])), Verdict::Well);
    // Two of three legs are good: one more loss can be borne.
    assert_eq!(of_host(&host(vec![in_grace("md1")])), Verdict::Warning);
    // One good leg beside a rebuild is the last one.
    assert_eq!(of_host(&host(vec![whole("md1"), rebuilding("md2")])), Verdict::Critical);
    assert_eq!(of_host(&troubled()), Verdict::Critical);
    let mut alarmed = host(vec![whole("md1")]);
    alarmed.alarms.push("the ledger".into());
    assert_eq!(of_host(&alarmed), Verdict::Warning);
    let mut held = whole("md1");
    held.health = Health::Held;
    assert_eq!(of_host(&host(vec![held])), Verdict::Warning);
    let mut foreign = rebuilding("md1");
    foreign.health = Health::Observed;
    assert_eq!(of_host(&host(vec![foreign])), Verdict::Well);
}

#[test]
fn spans_are_as_exact_as_anybody_plans() {
    let spans = [0, 59, 252, 7500, 273_600].map(span);
    assert_eq!(spans, ["0s", "59s", "4m12s", "2h05m", "3d04h"]);
}

#[test]
fn an_owed_report_is_what_comes_next_when_there_is_no_repair() {
    let mut array = whole("md1");
    array.owed_reports.push("replica r1 is available".into());
    assert_eq!(next(&array, NOW), "tell the provisioner that replica r1 is available");
}
