//! What is the `fixed` backend's own: its files, its operator, and several volumes.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::wildcard_enum_match_arm,
    reason = "a test's helper functions fail the test like the test itself"
)]

mod common;

use std::time::{Duration, Instant};

use common::Desk;
use heal_provisioner::fixed::check_inventory;
use heal_provisioner::{Provisioner, call, dispatch};
use heal_types::{
    CallKey, Condition, FaultClass, GracePolicy, ProvisionerAnswer, ProvisionerCall,
    ProvisionerFault, Replacement, Replica, ReplicaState, SectorCount, Volume, VolumeQuery,
    WallTime,
};

const LIMIT: Duration = Duration::from_secs(30);

fn array(volume: u8) -> String {
    format!("8e0a1b6c:1f2e3d4c:5b6a7988:{volume:08x}")
}

fn entry(id: &str, number: u32, more: &str) -> String {
    format!(
        "(id: \"{id}\", namespace: \"6fd1ee4c-3f2c-4f6f-8a44-{number:012x}\", nqn: \"nqn.2026-11.example:{id}\", \
         portals: [\"tcp://10.0.0.1:4420\"], size: \"1GiB\", {more}),"
    )
}

fn volume(id: u8, replicas: &str, spares: &str) -> String {
    format!(
        "(id: \"vol-{id}\", array: \"{}\", alias: \"db{id}\", copies: 2, grace: \"90s\", \
         replicas: [{replicas}], spares: [{spares}]),",
        array(id)
    )
}

fn file(volumes: &str, spares: &str) -> String {
    format!("(volumes: [{volumes}], spares: [{spares}])")
}

fn one_volume(spare: &str) -> String {
    file(&volume(1, &(entry("r1", 1, "") + &entry("r2", 2, "")), ""), spare)
}

async fn find(desk: &Desk, id: u8) -> Result<Option<Volume>, ProvisionerFault> {
    let query = VolumeQuery { array: array(id).parse().unwrap(), alias: None };
    match call(&*desk.backend(), &ProvisionerCall::FindVolume(query), LIMIT).await? {
        ProvisionerAnswer::Volume(volume) => Ok(volume),
        other => panic!("{other:?}"),
    }
}

async fn state(desk: &Desk, replica: &str) -> Option<ReplicaState> {
    let volume = find(desk, 1).await.unwrap().unwrap();
    volume.replica(&replica.parse().unwrap()).map(|replica| replica.state)
}

async fn request(
    desk: &Desk,
    volume: &str,
    lost: &str,
    key: &str,
) -> Result<Replica, ProvisionerFault> {
    let request = ProvisionerCall::RequestReplacement {
        volume: volume.parse().unwrap(),
        lost: lost.parse().unwrap(),
        why: "lost".into(),
        key: CallKey::new(key).unwrap(),
    };
    match call(&*desk.backend(), &request, LIMIT).await? {
        ProvisionerAnswer::Replacement(Replacement::Granted(replica)) => Ok(replica),
        other => panic!("{other:?}"),
    }
}

async fn report(
    desk: &Desk,
    replica: &str,
    condition: Condition,
    key: &str,
) -> Result<(), ProvisionerFault> {
    let report = ProvisionerCall::Report {
        volume: "vol-1".parse().unwrap(),
        replica: replica.parse().unwrap(),
        condition,
        since: WallTime(0),
        key: CallKey::new(key).unwrap(),
    };
    call(&*desk.backend(), &report, LIMIT).await.map(|_| ())
}

async fn remove(desk: &Desk, replica: &str, key: &str) {
    let confirm = ProvisionerCall::ConfirmRemoved {
        volume: "vol-1".parse().unwrap(),
        replica: replica.parse().unwrap(),
        key: CallKey::new(key).unwrap(),
    };
    call(&*desk.backend(), &confirm, LIMIT).await.unwrap();
}

#[tokio::test]
async fn an_inventory_that_is_not_there_or_not_readable_is_a_provisioner_that_is_away() {
    let desk = Desk::new();
    assert_eq!(find(&desk, 1).await.unwrap_err().class, FaultClass::Unreachable);
    let nowhere = Desk::with(&one_volume(""));
    let mut paths = nowhere.paths();
    paths.state = nowhere.directory.join("not-mounted/fixed-state.ron");
    let backend = heal_provisioner::fixed::Fixed::new(paths);
    let query = VolumeQuery { array: array(1).parse().unwrap(), alias: None };
    let fault = call(&backend, &ProvisionerCall::FindVolume(query), LIMIT).await.unwrap_err();
    assert_eq!(fault.class, FaultClass::Unreachable, "{fault}");
}

#[tokio::test]
async fn an_inventory_that_does_not_parse_is_invalid_with_the_place_and_never_empty() {
    for (text, said) in [
        ("", "volumes.ron:1:1"),
        ("()", "field `volumes` is missing"),
        (
            "(volumes: [], spars: [])",
            "volumes.ron:1:15: unknown field `spars` in `Inventory`; did you mean `spares`?",
        ),
        (
            "(volumes: [\n(id: \"v\", copys: 2)])",
            "volumes.ron:2:11: unknown field `copys` in `Volume`; did you mean `copies`?",
        ),
        ("(volumes: [(id: \"v\", alias: \"a\", copies: 0, replicas: [])])", "asks for 0 copies"),
        ("(volumes: [(id: \"v\", copies: 2, replicas: [])])", "neither an array nor an alias"),
        ("\u{fffe}", "volumes.ron:1:1"),
    ] {
        let desk = Desk::with(text);
        let fault = find(&desk, 1).await.unwrap_err();
        assert_eq!(fault.class, FaultClass::Invalid, "{fault}");
        assert!(fault.detail.contains(said), "{fault}\nwanted {said}");
    }
    let desk = Desk::with(&" ".repeat(4 * 1024 * 1024 + 1));
    assert!(find(&desk, 1).await.unwrap_err().detail.contains("larger than 4 MiB"));
}

#[test]
fn entries_that_contradict_each_other_are_refused_by_name() {
    let twice = entry("r1", 1, "") + &entry("r2", 1, "");
    for (text, said) in [
        (file(&volume(1, &twice, ""), ""), "contradicts itself"),
        (one_volume(&entry("s1", 2, "")), "as r2 and as s1"),
        (one_volume(&entry("r1", 9, "")), "replica id r1 is listed twice"),
        (file(&(volume(1, "", "") + &volume(1, "", "")), ""), "vol-1 is listed twice"),
        (
            file(&(volume(1, &entry("r1", 1, ""), "") + &volume(2, &entry("r1", 1, ""), "")), ""),
            "namespace uuid.6fd1ee4c-3f2c-4f6f-8a44-000000000001 is listed twice",
        ),
    ] {
        let error = check_inventory(&text, "volumes.ron").unwrap_err().to_string();
        assert!(error.contains(said), "{error}\nwanted {said}");
    }
    let same_ids = volume(1, &entry("r1", 1, ""), "") + &volume(2, &entry("r1", 2, ""), "");
    assert_eq!(check_inventory(&file(&same_ids, ""), "x").unwrap(), 2);
}

#[tokio::test]
async fn a_state_file_that_does_not_parse_is_invalid_and_left_as_it_is() {
    let desk = Desk::with(&one_volume(&entry("s1", 9, "")));
    for text in [
        "",
        "(schema: 1",
        "(schema: 2, notes: [], grants: [], answered: [])",
        "(schema: 1, notes: [], grants: [], answered: [], x: 1)",
    ] {
        desk.write_state(text);
        assert_eq!(find(&desk, 1).await.unwrap_err().class, FaultClass::Invalid, "{text}");
        let fault = request(&desk, "vol-1", "r1", "k1").await.unwrap_err();
        assert_eq!(fault.class, FaultClass::Invalid, "{text}");
        assert_eq!(desk.state(), text);
    }
}

#[tokio::test]
async fn the_operators_inventory_is_never_written_and_what_is_in_it_is_answered() {
    let text = one_volume(&entry("s1", 9, ""));
    let desk = Desk::with(&text);
    let volume = find(&desk, 1).await.unwrap().unwrap();
    assert_eq!(volume.grace, Some(GracePolicy::After(Duration::from_secs(90))));
    assert_eq!(volume.replicas[0].target.size, Some(SectorCount(1 << 21)));
    request(&desk, "vol-1", "r1", "k1").await.unwrap();
    report(&desk, "s1", Condition::Available, "k2").await.unwrap();
    remove(&desk, "r1", "k3").await;
    assert_eq!(std::fs::read_to_string(desk.paths().inventory).unwrap(), text);
}

#[tokio::test]
async fn an_edit_is_in_force_with_the_next_call() {
    let desk = Desk::with(&one_volume(""));
    assert!(request(&desk, "vol-1", "r1", "k1").await.is_err());
    desk.write_inventory(&one_volume(&entry("s1", 9, "")));
    assert_eq!(request(&desk, "vol-1", "r1", "k1").await.unwrap().id.as_str(), "s1");
}

#[tokio::test]
async fn a_spare_of_the_volume_is_taken_before_one_of_all() {
    let replicas = entry("r1", 1, "") + &entry("r2", 2, "");
    let desk = Desk::with(&file(&volume(1, &replicas, &entry("own", 8, "")), &entry("any", 9, "")));
    assert_eq!(request(&desk, "vol-1", "r1", "k1").await.unwrap().id.as_str(), "own");
    assert_eq!(request(&desk, "vol-1", "r2", "k2").await.unwrap().id.as_str(), "any");
}

#[tokio::test]
async fn two_volumes_never_get_one_spare() {
    let volumes = volume(1, &entry("a", 1, ""), "") + &volume(2, &entry("a", 2, ""), "");
    let desk = Desk::with(&file(&volumes, &entry("s1", 9, "")));
    request(&desk, "vol-1", "a", "k1").await.unwrap();
    let fault = request(&desk, "vol-2", "a", "k2").await.unwrap_err();
    assert_eq!(fault.class, FaultClass::Refused);
    assert!(fault.detail.contains("no spare left: of 1 listed, 1 are used"), "{fault}");
    // Found unusable by the one, it is not offered to the other either.
    report(&desk, "s1", Condition::Unusable { why: "ext4".into() }, "k3").await.unwrap();
    let fault = request(&desk, "vol-2", "a", "k4").await.unwrap_err();
    assert!(fault.detail.contains("1 are bad"), "{fault}");
}

#[tokio::test]
async fn a_spare_withdrawn_from_one_volume_starts_afresh_in_another() {
    let volumes = volume(1, &entry("a", 1, ""), "") + &volume(2, &entry("a", 2, ""), "");
    let desk = Desk::with(&file(&volumes, &entry("s1", 9, "")));
    request(&desk, "vol-1", "a", "k1").await.unwrap();
    report(&desk, "s1", Condition::Missing, "k2").await.unwrap();
    report(&desk, "a", Condition::Available, "k3").await.unwrap();
    request(&desk, "vol-2", "a", "k4").await.unwrap();
    let other = find(&desk, 2).await.unwrap().unwrap();
    assert_eq!(other.replicas[1].state, ReplicaState::Synchronizing);
    let late = report(&desk, "s1", Condition::Synchronizing, "k5").await.unwrap_err();
    assert_eq!(late.class, FaultClass::Refused, "{late}");
}

#[tokio::test]
async fn a_withdrawn_spare_that_the_host_uses_after_all_is_nobody_elses() {
    let desk = Desk::with(&one_volume(&entry("s1", 9, "")));
    request(&desk, "vol-1", "r1", "k1").await.unwrap();
    report(&desk, "r1", Condition::Available, "k2").await.unwrap();
    assert_eq!(state(&desk, "s1").await, None);
    report(&desk, "s1", Condition::Synchronizing, "k3").await.unwrap();
    assert_eq!(state(&desk, "s1").await, Some(ReplicaState::Synchronizing));
    assert!(request(&desk, "vol-1", "r2", "k4").await.is_err());
}

#[tokio::test]
async fn the_operators_word_wins_over_what_hosts_report() {
    let replicas = entry("r1", 1, "state: Terminating") + &entry("r2", 2, "state: Bad");
    let spares = entry("s1", 8, "state: Bad") + &entry("s2", 9, "state: Terminating");
    let desk = Desk::with(&file(&volume(1, &replicas, &spares), ""));
    report(&desk, "r1", Condition::Available, "k1").await.unwrap();
    report(&desk, "r2", Condition::Available, "k2").await.unwrap();
    assert_eq!(state(&desk, "r1").await, Some(ReplicaState::Terminating));
    assert_eq!(state(&desk, "r2").await, Some(ReplicaState::Bad));
    assert!(request(&desk, "vol-1", "r1", "k3").await.is_err());
}

#[tokio::test]
async fn a_terminating_replica_is_replaced_and_stays_terminating_until_it_is_removed() {
    let replicas = entry("r1", 1, "state: Terminating") + &entry("r2", 2, "");
    let desk = Desk::with(&file(&volume(1, &replicas, ""), &entry("s1", 9, "")));
    request(&desk, "vol-1", "r1", "k1").await.unwrap();
    assert_eq!(state(&desk, "r1").await, Some(ReplicaState::Terminating));
    remove(&desk, "r1", "k2").await;
    assert_eq!(state(&desk, "r1").await, None);
}

#[tokio::test]
async fn a_removed_spare_is_offered_again_only_once_the_operator_says_it_is_renewed() {
    let desk = Desk::with(&one_volume(&entry("s1", 9, "")));
    request(&desk, "vol-1", "r1", "k1").await.unwrap();
    report(&desk, "s1", Condition::Unusable { why: "ext4".into() }, "k2").await.unwrap();
    assert_eq!(state(&desk, "s1").await, Some(ReplicaState::Bad));
    remove(&desk, "s1", "k3").await;
    assert_eq!(state(&desk, "s1").await, None);
    assert!(request(&desk, "vol-1", "r1", "k4").await.is_err());
    desk.write_inventory(&one_volume(&entry("s1", 9, "renewed: 1")));
    assert_eq!(request(&desk, "vol-1", "r1", "k5").await.unwrap().id.as_str(), "s1");
    assert_eq!(state(&desk, "s1").await, Some(ReplicaState::Synchronizing));
    let old = request(&desk, "vol-1", "r1", "k1").await.unwrap_err();
    assert_eq!(old.class, FaultClass::Refused, "{old}");
}

#[tokio::test]
async fn a_renewed_spare_that_is_still_in_use_is_not_offered_to_another() {
    let desk = Desk::with(&one_volume(&entry("s1", 9, "")));
    request(&desk, "vol-1", "r1", "k1").await.unwrap();
    report(&desk, "s1", Condition::Available, "k2").await.unwrap();
    desk.write_inventory(&one_volume(&entry("s1", 9, "renewed: 1")));
    assert!(request(&desk, "vol-1", "r2", "k3").await.is_err());
    assert_eq!(state(&desk, "s1").await, Some(ReplicaState::Available));
}

#[tokio::test]
async fn the_operator_may_strike_or_move_a_spare_that_was_used() {
    let desk = Desk::with(&one_volume(&entry("s1", 9, "")));
    let granted = request(&desk, "vol-1", "r1", "k1").await.unwrap();
    desk.write_inventory(&one_volume(""));
    assert_eq!(request(&desk, "vol-1", "r1", "k1").await.unwrap(), granted);
    report(&desk, "s1", Condition::Available, "k2").await.unwrap();
    remove(&desk, "r1", "k3").await;
    let moved = file(&volume(1, &(entry("s1", 9, "") + &entry("r2", 2, "")), ""), "");
    desk.write_inventory(&moved);
    assert_eq!(state(&desk, "s1").await, Some(ReplicaState::Available));
    assert_eq!(find(&desk, 1).await.unwrap().unwrap().replicas.len(), 2);
}

#[tokio::test]
async fn a_spare_of_unknown_size_is_not_known_to_fit() {
    let spare = entry("s1", 9, "").replace("size: \"1GiB\",", "");
    let desk = Desk::with(&one_volume(&spare));
    let fault = request(&desk, "vol-1", "r1", "k1").await.unwrap_err();
    assert!(fault.detail.contains("1 are too small or of unknown size"), "{fault}");
}

#[tokio::test]
async fn the_state_stays_bounded_however_many_reports_come() {
    let desk = Desk::with(&one_volume(""));
    let backend = desk.backend();
    for number in 0..600 {
        let report = ProvisionerCall::Report {
            volume: "vol-1".parse().unwrap(),
            replica: "r1".parse().unwrap(),
            condition: if number % 2 == 0 { Condition::Missing } else { Condition::Available },
            since: WallTime(number),
            key: CallKey::new(format!("k{number}")).unwrap(),
        };
        dispatch::call(&*backend, &report, LIMIT).await.unwrap();
    }
    let text = desk.state();
    assert!(text.contains("\"k599\"") && !text.contains("\"k10\""));
    assert!(text.len() < 100_000, "{}", text.len());
}

#[tokio::test]
async fn a_device_in_place_of_a_file_is_refused_before_it_is_opened() {
    let desk = Desk::new();
    let mut paths = desk.paths();
    paths.inventory = "/dev/zero".into();
    let backend = heal_provisioner::fixed::Fixed::new(paths);
    assert_eq!(backend.name(), "fixed");
    let query = VolumeQuery { array: array(1).parse().unwrap(), alias: None };
    let fault = call(&backend, &ProvisionerCall::FindVolume(query), LIMIT).await.unwrap_err();
    assert!(fault.detail.contains("not a file"), "{fault}");
}

#[tokio::test]
async fn an_inventory_of_the_largest_size_is_answered_in_time() {
    let mut volumes = String::new();
    let mut number = 1;
    while volumes.len() < 3_900_000 {
        let id = format!("v{number}");
        volumes += &format!(
            "(id: \"{id}\", alias: \"{id}\", copies: 1, replicas: [{}]),",
            entry("r", number, "")
        );
        number += 1;
    }
    let desk = Desk::with(&file(&volumes, ""));
    let started = Instant::now();
    assert_eq!(find(&desk, 1).await.unwrap(), None);
    println!("{number} volumes in {:?}", started.elapsed());
    assert!(started.elapsed() < LIMIT);
}

#[test]
fn the_example_is_a_valid_inventory() {
    let text = include_str!("../../../packaging/config/volumes.example.ron");
    assert_eq!(check_inventory(text, "volumes.example.ron").unwrap(), 1);
}
