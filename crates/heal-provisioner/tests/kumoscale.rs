//! The `kumoscale` backend against the emulated provisioner: the contract, and every oddity.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::wildcard_enum_match_arm,
    reason = "a test's helper functions fail the test like the test itself"
)]

mod common;

use std::time::Duration;

use common::emulated::{Emulated, HOST, OnTheWire, UUID, find, query, stage};
use heal_provisioner::contract::{self, Verdict};
use heal_provisioner::{ForwardedEvent, HostInfo, Provisioner, Severity, call};
use heal_types::{
    Condition, FaultClass, GracePolicy, ProvisionerAnswer, ProvisionerCall, ProvisionerFault,
    Replacement, Replica, ReplicaId, ReplicaState, Volume, WallTime,
};
use vendor_emulator::kumoscale::{Options, Targets};
use vendor_emulator::server::{Answer, Fault, ServerOptions};

async fn keeps_every_promise(options: Options) {
    let report = contract::run(&mut OnTheWire::new(options)).await;
    assert!(report.cases.iter().all(|case| case.verdict == Verdict::Passed), "{report}");
    assert!(report.cases.len() >= 45);
}

#[tokio::test]
async fn the_kumoscale_backend_keeps_every_promise() {
    keeps_every_promise(Options::default()).await;
}

#[tokio::test]
async fn it_keeps_them_with_one_target_for_each_backend() {
    keeps_every_promise(Options { targets: Targets::PerBackend, ..Options::default() }).await;
}

#[tokio::test]
async fn it_keeps_them_where_a_new_replica_is_called_available_and_counted() {
    let made = "Available".to_owned();
    keeps_every_promise(Options { made, counts_added: true, ..Options::default() }).await;
}

#[tokio::test]
async fn it_keeps_them_where_a_new_replica_is_called_missing_and_missing_ones_are_nowhere() {
    let made = "Missing".to_owned();
    keeps_every_promise(Options { made, missing_is_nowhere: true, ..Options::default() }).await;
}

fn in_time() -> Duration {
    Duration::from_secs(5)
}

async fn ask(backend: &dyn Provisioner) -> Result<Option<Volume>, ProvisionerFault> {
    match call(backend, &ProvisionerCall::FindVolume(query()), in_time()).await? {
        ProvisionerAnswer::Volume(volume) => Ok(volume),
        other => panic!("{other:?}"),
    }
}

async fn request(
    backend: &dyn Provisioner,
    volume: &Volume,
    lost: usize,
    key: &str,
) -> Result<Replacement, ProvisionerFault> {
    let request = ProvisionerCall::RequestReplacement {
        volume: volume.id.clone(),
        lost: volume.replicas[lost].id.clone(),
        why: "lost".into(),
        key: key.parse().unwrap(),
    };
    match call(backend, &request, in_time()).await? {
        ProvisionerAnswer::Replacement(replacement) => Ok(replacement),
        other => panic!("{other:?}"),
    }
}

async fn report(
    backend: &dyn Provisioner,
    volume: &Volume,
    replica: &ReplicaId,
    condition: Condition,
    key: &str,
) -> Result<(), ProvisionerFault> {
    let report = ProvisionerCall::Report {
        volume: volume.id.clone(),
        replica: replica.clone(),
        condition,
        since: WallTime(0),
        key: key.parse().unwrap(),
    };
    call(backend, &report, in_time()).await.map(|_| ())
}

async fn confirm(
    backend: &dyn Provisioner,
    volume: &Volume,
    replica: &ReplicaId,
) -> Result<(), ProvisionerFault> {
    let confirm = ProvisionerCall::ConfirmRemoved {
        volume: volume.id.clone(),
        replica: replica.clone(),
        key: "confirm".parse().unwrap(),
    };
    call(backend, &confirm, in_time()).await.map(|_| ())
}

fn granted(replacement: Result<Replacement, ProvisionerFault>) -> Replica {
    match replacement {
        Ok(Replacement::Granted(replica)) => replica,
        other => panic!("not granted: {other:?}"),
    }
}

/// What the answer to the first look is, when the provisioner says `body`.
async fn told(status: u16, body: &str) -> Result<Option<Volume>, ProvisionerFault> {
    let emulated = Emulated::start(Options::default()).await;
    let answer = Answer { status, body: body.to_owned().into() };
    emulated.server.plan("GET", "/volumes/", 1, Fault::Say(answer));
    ask(&*emulated.backend()).await
}

#[tokio::test]
async fn every_kind_of_answer_has_its_class() {
    use FaultClass::{Invalid, Refused, Unauthorized, Unreachable};
    for (status, body, class) in [
        // Not a list where a list belongs: never "no such volume".
        (200, r#"{"status":"Success","description":""}"#, Invalid),
        (200, r#"{"status":"VolumeNotFound","description":"gone"}"#, Invalid),
        (200, r#"{"status":"LicenseExpired","description":"pay"}"#, Refused),
        // A refusal without description is one all the same.
        (200, r#"{"status":"LicenseExpired"}"#, Refused),
        (200, "{}", Invalid),
        (200, "", Invalid),
        (404, "", Invalid),
        (503, "", Unreachable),
        (200, "<html>HTTP Status 401 - Unauthorized</html>", Unauthorized),
        (200, "<html>HTTP Status 403 - Forbidden</html>", Unauthorized),
        (401, "", Unauthorized),
        (403, "{}", Unauthorized),
        (200, "<html>HTTP Status 404 - Not Found</html>", Invalid),
        (502, "<html>Bad Gateway</html>", Unreachable),
        (200, "<html>HTTP Status 500 - Internal Server Error</html>", Unreachable),
        (200, r#"{"status":"Provisioner Communication Error","description":"x"}"#, Unreachable),
        (200, "[", Invalid),
        (200, "null", Invalid),
        (200, "[null]", Invalid),
        (200, "[[]]", Invalid),
        (200, r#"[{"uuid":7}]"#, Invalid),
        (200, r#"[{"uuid":"another"}]"#, Invalid),
        (200, r#"[{"uuid":"a"},{"uuid":"b"}]"#, Invalid),
    ] {
        let fault = told(status, body).await.unwrap_err();
        assert_eq!(fault.class, class, "{status} {body}: {fault}");
    }
}

#[tokio::test]
async fn the_status_beside_a_list_is_not_looked_at() {
    let body = format!(
        r#"[{{"uuid":"{UUID}","alias":"Status 401","numReplicas":1,"maxReplicaDownTime":0,"location":[]}}]"#
    );
    let volume = told(500, &body).await.unwrap().unwrap();
    assert_eq!(volume.grace, Some(GracePolicy::Never), "zero minutes are never");
    assert_eq!(volume.alias, None, "a name that no array can have is none");
}

fn listed(fields: &str) -> String {
    format!(r#"[{{"uuid":"{UUID}","alias":"db",{fields}}}]"#)
}

#[tokio::test]
async fn what_is_missing_fails_by_its_name_and_nothing_else_does() {
    for (fields, wanted) in [
        (r#""maxReplicaDownTime":5,"location":[]"#, "numReplicas"),
        (r#""numReplicas":"N/A","location":[]"#, "u16"),
        (r#""numReplicas":2,"maxReplicaDownTime":-1,"location":[]"#, "maxReplicaDownTime"),
        (r#""numReplicas":2,"location":[{"replicaState":"Available"}]"#, "uuid"),
        (r#""numReplicas":2,"location":[{"uuid":"no-uuid"}]"#, "not a UUID"),
    ] {
        let fault = told(200, &listed(fields)).await.unwrap_err();
        assert_eq!(fault.class, FaultClass::Invalid, "{fields}: {fault}");
        assert!(fault.detail.contains(wanted), "{fields}: {fault}");
    }
    // No grace of its own, no state, no time, no list, and fields nobody knows.
    let volume = told(200, &listed(r#""numReplicas":2,"tag":{"a":[1]}"#)).await.unwrap().unwrap();
    assert_eq!((volume.grace, volume.replicas.len()), (None, 0));
}

#[tokio::test]
async fn a_grace_beyond_an_hour_is_that_long() {
    for minutes in [59_u64, 60, 65, 1440] {
        let emulated = Emulated::start(Options::default()).await;
        emulated.service.change(|model| model.volumes[0].max_replica_down_time = minutes);
        let volume = find(&*emulated.backend()).await;
        let grace = Duration::from_secs(minutes * 60);
        assert_eq!(volume.grace, Some(GracePolicy::After(grace)));
    }
}

#[tokio::test]
async fn a_replica_stands_on_the_portals_of_its_backend() {
    for targets in [Targets::PerHost, Targets::PerBackend] {
        let emulated = Emulated::start(Options { targets, ..Options::default() }).await;
        let volume = find(&*emulated.backend()).await;
        let shown: Vec<_> = volume
            .replicas
            .iter()
            .map(|replica| (replica.target.nqn.to_string(), replica.target.portals[0].to_string()))
            .collect();
        let nqn = |number: usize| match targets {
            Targets::PerHost => format!("nqn.2019-10.com.kioxia:host-{HOST}"),
            Targets::PerBackend => format!("nqn.2019-10.com.kioxia:backend-{number}"),
        };
        // RoCEv2 is RDMA, anything else is TCP.
        assert_eq!(
            shown,
            [
                (nqn(0), "tcp://192.0.2.1:4420".to_owned()),
                (nqn(1), "rdma://192.0.2.2:4420".to_owned())
            ]
        );
    }
}

#[tokio::test]
async fn a_volume_that_is_not_published_to_this_host_is_not_touched() {
    let emulated = Emulated::start(Options::default()).await;
    emulated.service.change(|model| model.volumes[0].published.clear());
    let fault = ask(&*emulated.backend()).await.unwrap_err();
    assert_eq!(fault.class, FaultClass::Refused, "{fault}");
    assert_eq!(emulated.server.count("POST", "/publish"), 0, "a look publishes nothing");
}

#[tokio::test]
async fn a_missing_replica_on_no_backend_does_not_spoil_the_volume() {
    let options = Options { missing_is_nowhere: true, ..Options::default() };
    let emulated = Emulated::start(options).await;
    let backend = emulated.backend();
    let before = find(&*backend).await;
    let lost = &before.replicas[0];
    report(&*backend, &before, &lost.id, Condition::Missing, "k1").await.unwrap();
    let after = find(&*backend).await;
    let shown = after.replica(&lost.id).unwrap();
    assert_eq!((shown.state, &shown.target), (ReplicaState::Missing, &lost.target));
    // A backend that never saw it elsewhere shows it without a way to it.
    let fresh = find(&*emulated.backend()).await;
    assert_eq!(fresh.replica(&lost.id).unwrap().target.portals, []);
}

#[tokio::test]
async fn a_volume_is_published_again_with_its_new_replica() {
    let emulated = Emulated::start(Options::default()).await;
    let backend = emulated.backend();
    let volume = find(&*backend).await;
    granted(request(&*backend, &volume, 0, "k1").await);
    assert_eq!(emulated.server.count("POST", "/publish"), 1, "AlreadyPublished is success");
}

#[tokio::test]
async fn a_probe_and_an_event_say_what_the_vendors_agent_says() {
    let emulated = Emulated::start(Options::default()).await;
    let backend = emulated.backend();
    let host = HostInfo {
        nqn: "nqn.2014-08.org.nvmexpress:uuid:1".parse().unwrap(),
        id: None,
        name: "Node7.Example".into(),
        version: "1.0".into(),
        next_within: Duration::from_secs(30),
        multipath: true,
    };
    heal_provisioner::dispatch::probe(&*backend, &host, in_time()).await.unwrap();
    let event = ForwardedEvent {
        severity: Severity::Fatal,
        at: WallTime(0),
        message: "Volume is degraded.".into(),
        fields: [("volumeAlias".to_owned(), "db".to_owned())].into(),
    };
    heal_provisioner::dispatch::forward(&*backend, &event, in_time()).await.unwrap();
    let log = emulated.server.log();
    let body = |at: usize| serde_json::from_str::<serde_json::Value>(&log[at].body).unwrap();
    assert_eq!(
        body(0),
        serde_json::json!({
            "clientType": "Agent", "duration": 30, "hostId": HOST, "multipath": true,
            "hostNqn": "nqn.2014-08.org.nvmexpress:uuid:1", "name": "node7-example", "version": "1.0",
        })
    );
    assert_eq!(
        body(1),
        serde_json::json!({
            "appName": "nvmeof_agent", "host": "nqn.2014-08.org.nvmexpress:uuid:1", "level": "FATAL",
            "loggingType": "EVENT", "message": "Volume is degraded.",
            "parametersList": { "volumeAlias": "db" },
        })
    );
}

#[tokio::test]
async fn names_go_into_a_path_quoted() {
    let emulated = Emulated::start(Options::default()).await;
    let alias = heal_types::Alias::new("a?b#c%20&d").unwrap();
    let query = heal_types::VolumeQuery { array: query().array, alias: Some(alias) };
    emulated.service.change(|model| model.volumes.clear());
    let call = ProvisionerCall::FindVolume(query);
    heal_provisioner::call(&*emulated.backend(), &call, in_time()).await.unwrap();
    assert_eq!(emulated.server.log()[1].path, "/volumes_by_alias/a%3Fb%23c%2520%26d");
}

// What the provisioner does when an answer is lost.

#[tokio::test]
async fn a_request_whose_answer_was_lost_is_found_and_not_sent_again() {
    let emulated = Emulated::start(Options::default()).await;
    let backend = emulated.backend();
    let volume = find(&*backend).await;
    emulated.server.plan("POST", "/replica/", 1, Fault::LoseAnswer);
    let fault = request(&*backend, &volume, 0, "k1").await.unwrap_err();
    assert_eq!(fault.class, FaultClass::Unreachable);
    // Also after a crash, by the notes alone.
    let backend = emulated.backend();
    granted(request(&*backend, &volume, 0, "k1").await);
    assert_eq!(emulated.server.count("POST", "/replica/"), 1);
    assert_eq!(emulated.service.model().volumes[0].replicas.len(), 3);
}

#[tokio::test]
async fn a_request_that_never_arrived_is_sent_again_but_not_at_once() {
    let emulated = Emulated::start(Options::default()).await;
    let backend = emulated.backend();
    let volume = find(&*backend).await;
    emulated.server.plan("POST", "/replica/", 1, Fault::Drop);
    request(&*backend, &volume, 0, "k1").await.unwrap_err();
    for _ in 0..3 {
        let answer = request(&*backend, &volume, 0, "k1").await.unwrap();
        assert!(matches!(answer, Replacement::Pending { .. }), "it may still be on its way");
    }
    assert_eq!(emulated.server.count("POST", "/replica/"), 1);
    granted(request(&*backend, &volume, 0, "k1").await);
    assert_eq!(emulated.service.model().volumes[0].replicas.len(), 3);
}

#[tokio::test]
async fn a_replica_that_is_listed_late_is_waited_for() {
    let options = Options { listed_after: 2, ..Options::default() };
    let emulated = Emulated::start(options).await;
    let backend = emulated.backend();
    let volume = find(&*backend).await;
    for _ in 0..2 {
        let answer = request(&*backend, &volume, 0, "k1").await.unwrap();
        assert!(matches!(answer, Replacement::Pending { .. }), "{answer:?}");
    }
    granted(request(&*backend, &volume, 0, "k1").await);
    assert_eq!(emulated.server.count("POST", "/replica/"), 1);
}

#[tokio::test]
async fn an_answer_that_cannot_be_read_is_no_second_replica() {
    let emulated = Emulated::start(Options::default()).await;
    let backend = emulated.backend();
    let volume = find(&*backend).await;
    emulated.server.plan("POST", "/replica/", 1, Fault::Garble(Answer::ok("<html>")));
    let fault = request(&*backend, &volume, 0, "k1").await.unwrap_err();
    assert_eq!(fault.class, FaultClass::Invalid);
    granted(request(&*backend, &volume, 0, "k1").await);
    assert_eq!(emulated.server.count("POST", "/replica/"), 1);
}

#[tokio::test]
async fn lost_notes_cost_no_second_replica() {
    let emulated = Emulated::start(Options::default()).await;
    let backend = emulated.backend();
    let volume = find(&*backend).await;
    report(&*backend, &volume, &volume.replicas[0].id, Condition::Missing, "k0").await.unwrap();
    let first = granted(request(&*backend, &volume, 0, "k1").await);
    emulated.desk.rename("kumoscale-state.ron", "lost.ron");
    let again = granted(request(&*emulated.backend(), &volume, 0, "k2").await);
    assert_eq!(first.id, again.id);
    assert_eq!(emulated.server.count("POST", "/replica/"), 1);
}

#[tokio::test]
async fn notes_that_cannot_be_read_stop_changes_and_are_never_empty() {
    let emulated = Emulated::start(Options::default()).await;
    let volume = find(&*emulated.backend()).await;
    emulated.desk.put("kumoscale-state.ron", "(garbage");
    let fault = request(&*emulated.backend(), &volume, 0, "k1").await.unwrap_err();
    assert_eq!(fault.class, FaultClass::Invalid);
    assert_eq!(emulated.server.count("POST", "/replica/"), 0);
}

#[tokio::test]
async fn a_volume_never_gets_a_fifth_replica() {
    let emulated = Emulated::of(
        Options { max_replicas: 8, ..Options::default() },
        &stage(UUID, "db", 4, 1, &[1]),
        ServerOptions::default(),
    )
    .await;
    let backend = emulated.backend();
    let volume = find(&*backend).await;
    let fault = request(&*backend, &volume, 0, "k1").await.unwrap_err();
    assert_eq!(fault.class, FaultClass::Refused);
    assert_eq!(emulated.server.count("POST", "/replica/"), 0);
}

// Defects of the vendor's polling agent that concern a backend; the numbers are those of the facts.

/// Defects 1, 2 and 5: the old replica went before the new one was good.
#[tokio::test]
async fn the_old_replica_is_not_deleted_before_the_new_one_is_in_sync() {
    let emulated =
        Emulated::start(Options { made: "Available".into(), ..Options::default() }).await;
    let backend = emulated.backend();
    let volume = find(&*backend).await;
    let (lost, last) = (&volume.replicas[0].id, &volume.replicas[1].id);
    report(&*backend, &volume, lost, Condition::Missing, "k0").await.unwrap();
    let new = granted(request(&*backend, &volume, 0, "k1").await);
    report(&*backend, &volume, &new.id, Condition::Synchronizing, "k2").await.unwrap();
    assert_eq!(emulated.server.count("DELETE", "/replica/"), 0);
    // The last good copy stays, whoever asks.
    let fault = confirm(&*backend, &volume, last).await.unwrap_err();
    assert_eq!(fault.class, FaultClass::Refused, "{fault}");
    assert_eq!(emulated.server.count("DELETE", "/replica/"), 0);
    report(&*backend, &volume, &new.id, Condition::Available, "k3").await.unwrap();
    confirm(&*backend, &volume, lost).await.unwrap();
    assert_eq!(emulated.service.model().volumes[0].replicas.len(), 2);
}

/// Defect 5: a replica that came back while another was asked for was deleted all the same.
#[tokio::test]
async fn a_replica_that_came_back_stays_and_the_new_one_goes() {
    let emulated = Emulated::start(Options::default()).await;
    let backend = emulated.backend();
    let volume = find(&*backend).await;
    let lost = &volume.replicas[0].id;
    report(&*backend, &volume, lost, Condition::Missing, "k0").await.unwrap();
    let new = granted(request(&*backend, &volume, 0, "k1").await);
    report(&*backend, &volume, lost, Condition::Available, "k2").await.unwrap();
    let left = find(&*backend).await;
    assert!(left.replica(lost).is_some() && left.replica(&new.id).is_none(), "{left:?}");
}

/// Defect 6: every pass asked for one more.
#[tokio::test]
async fn asking_again_and_again_is_one_replica() {
    let emulated = Emulated::start(Options::default()).await;
    let volume = find(&*emulated.backend()).await;
    for number in 0..6 {
        // A new life of the daemon and another key each time.
        let key = format!("k{number}");
        granted(request(&*emulated.backend(), &volume, 0, &key).await);
    }
    assert_eq!(emulated.server.count("POST", "/replica/"), 1);
}

/// Defect 8: two leaving replicas at once, and neither was ever handled.
#[tokio::test]
async fn two_replicas_on_their_way_out_both_go() {
    let emulated =
        Emulated::of(Options::default(), &stage(UUID, "db", 3, 1, &[]), ServerOptions::default())
            .await;
    emulated.service.change(|model| {
        for replica in &mut model.volumes[0].replicas[..2] {
            replica.set_state("Terminating");
        }
    });
    let backend = emulated.backend();
    let volume = find(&*backend).await;
    for replica in &volume.replicas[..2] {
        assert_eq!(replica.state, ReplicaState::Terminating);
        confirm(&*backend, &volume, &replica.id).await.unwrap();
    }
    assert_eq!(emulated.service.model().volumes[0].replicas.len(), 1);
    assert_eq!(emulated.server.count("PATCH", "/replica/"), 0, "they were asked to go already");
}

/// Defect 12: `Available` before it was in sync.
#[tokio::test]
async fn a_new_replica_is_never_shown_as_good_before_the_host_says_so() {
    for made in ["Available", "Missing", "Unknown", "Synchronizing", "Splendid"] {
        let emulated =
            Emulated::start(Options { made: made.to_owned(), ..Options::default() }).await;
        let backend = emulated.backend();
        let volume = find(&*backend).await;
        let new = granted(request(&*backend, &volume, 0, "k1").await);
        assert_eq!(new.state, ReplicaState::Synchronizing, "{made}");
        let shown = find(&*emulated.backend()).await;
        assert_eq!(shown.replica(&new.id).unwrap().state, ReplicaState::Synchronizing, "{made}");
        assert_eq!(shown.copies, 2);
    }
}

/// Defect 13: one odd volume ended the pass for all.
#[tokio::test]
async fn an_odd_volume_is_its_own_trouble() {
    let emulated = Emulated::start(Options::default()).await;
    let backend = emulated.backend();
    let odd = Answer::ok(listed(r#""location":[{"uuid":{}}]"#));
    emulated.server.plan("GET", "/volumes/", 1, Fault::Say(odd));
    assert_eq!(ask(&*backend).await.unwrap_err().class, FaultClass::Invalid);
    find(&*backend).await;
}

/// Defect 15: one slow answer stopped everybody.
#[tokio::test]
async fn a_change_that_hangs_does_not_keep_others_from_looking() {
    let emulated = Emulated::start(Options::default()).await;
    let backend = emulated.backend();
    let volume = find(&*backend).await;
    emulated.server.plan("POST", "/replica/", 1, Fault::Hang);
    let hanging = tokio::spawn({
        let (backend, volume) = (backend.clone(), volume.clone());
        async move { request(&*backend, &volume, 0, "k1").await }
    });
    tokio::time::sleep(Duration::from_millis(200)).await;
    tokio::time::timeout(Duration::from_secs(1), find(&*backend)).await.unwrap();
    assert!(!hanging.is_finished());
    hanging.abort();
}
