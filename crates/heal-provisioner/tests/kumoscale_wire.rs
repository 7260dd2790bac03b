//! What the `kumoscale` backend sends, and what it makes of each form an answer can have: the rows
//! of `src/kumoscale/QUIRKS.md` that no other test shows.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test's helper functions fail the test like the test itself"
)]

mod common;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use common::emulated::{Emulated, HOST, UUID, find, query};
use heal_provisioner::client::{CredentialOptions, Endpoint, SecretSource};
use heal_provisioner::kumoscale::{KumoScale, KumoScaleOptions};
use heal_provisioner::{ForwardedEvent, HostInfo, Provisioner, Severity, call, dispatch};
use heal_types::{
    Condition, FaultClass, ProvisionerAnswer, ProvisionerCall, ProvisionerFault, Replacement,
    ReplicaState, Volume, WallTime,
};
use vendor_emulator::kumoscale::{Access, Options};
use vendor_emulator::server::{Answer, Fault, Heard, Server, ServerOptions, Service};

/// Remembers all that is asked, as it came.
#[derive(Debug)]
struct Recorder {
    service: Arc<vendor_emulator::kumoscale::KumoScale>,
    heard: Mutex<Vec<Heard>>,
}

#[heal_provisioner::async_trait]
impl Service for Recorder {
    async fn answer(&self, heard: Heard) -> Answer {
        self.heard.lock().unwrap().push(heard.clone());
        self.service.answer(heard).await
    }
}

const LIMIT: Duration = Duration::from_secs(5);

async fn ask(
    backend: &dyn Provisioner,
    asked: ProvisionerCall,
) -> Result<ProvisionerAnswer, ProvisionerFault> {
    call(backend, &asked, LIMIT).await
}

fn request(volume: &Volume, key: &str) -> ProvisionerCall {
    ProvisionerCall::RequestReplacement {
        volume: volume.id.clone(),
        lost: volume.replicas[0].id.clone(),
        why: "lost".into(),
        key: key.parse().unwrap(),
    }
}

fn report(volume: &Volume, at: usize, condition: Condition, key: &str) -> ProvisionerCall {
    ProvisionerCall::Report {
        volume: volume.id.clone(),
        replica: volume.replicas[at].id.clone(),
        condition,
        since: WallTime(0),
        key: key.parse().unwrap(),
    }
}

/// A whole repair: a loss is told, replaced, filled, and what was lost is given up.
async fn heal_once(backend: &dyn Provisioner) {
    let host = HostInfo {
        nqn: "nqn.2014-08.org.nvmexpress:uuid:1".parse().unwrap(),
        id: None,
        name: "node7".into(),
        version: "1.0".into(),
        next_within: Duration::from_secs(30),
        multipath: false,
    };
    dispatch::probe(backend, &host, LIMIT).await.unwrap();
    let before = find(backend).await;
    ask(backend, report(&before, 0, Condition::Missing, "k1")).await.unwrap();
    let answer = ask(backend, request(&before, "k2")).await.unwrap();
    let ProvisionerAnswer::Replacement(Replacement::Granted(new)) = answer else {
        panic!("not granted: {answer:?}")
    };
    dispatch::publish(backend, &before.id, LIMIT).await.unwrap();
    let between = find(backend).await;
    let at = between.replicas.iter().position(|replica| replica.id == new.id).unwrap();
    ask(backend, report(&between, at, Condition::Synchronizing, "k3")).await.unwrap();
    ask(backend, report(&between, at, Condition::Available, "k4")).await.unwrap();
    let confirm = ProvisionerCall::ConfirmRemoved {
        volume: before.id.clone(),
        replica: before.replicas[0].id.clone(),
        key: "k5".parse().unwrap(),
    };
    ask(backend, confirm).await.unwrap();
    let event = ForwardedEvent {
        severity: Severity::Info,
        at: WallTime(0),
        message: "Volume is healed.".into(),
        fields: [("volumeAlias".to_owned(), "db".to_owned())].into(),
    };
    dispatch::forward(backend, &event, LIMIT).await.unwrap();
}

/// The request without what differs from run to run.
fn form(heard: &Heard) -> String {
    let path: Vec<&str> =
        heard.path.split('/').map(|part| if part.len() == 36 { "{uuid}" } else { part }).collect();
    format!("{} {}", heard.method, path.join("/").replace(UUID, "{uuid}"))
}

#[tokio::test]
async fn all_that_a_repair_asks_is_what_the_vendors_clients_ask() {
    let made = "Missing".to_owned();
    let emulated = Emulated::start(Options { made, ..Options::default() }).await;
    let recorder =
        Arc::new(Recorder { service: emulated.service.clone(), heard: Mutex::default() });
    let any = "127.0.0.1:0".parse().unwrap();
    let options = ServerOptions::default();
    let server =
        Server::start(any, &emulated.certificates, options, recorder.clone()).await.unwrap();
    let mut client = emulated.client();
    client.endpoints = vec![Endpoint::parse(&server.address().to_string(), 0).unwrap()];
    let backend = emulated.backend_with(client);
    assert_eq!(recorder.heard.lock().unwrap().len(), 0, "nobody is called before there is a call");
    heal_once(&*backend).await;

    let heard = recorder.heard.lock().unwrap();
    let forms: BTreeSet<String> = heard.iter().map(form).collect();
    let targets = format!("GET /targets?hostId={HOST}&volId={{uuid}}");
    let known: BTreeSet<String> = [
        "POST /host_probe",
        "GET /volumes/{uuid}",
        &targets,
        "GET /backends",
        "PATCH /replica/{uuid}/{uuid}/Missing",
        "PATCH /replica/{uuid}/{uuid}/Synchronizing",
        "PATCH /replica/{uuid}/{uuid}/Available",
        "POST /replica/{uuid}",
        "PATCH /replica/{uuid}/{uuid}",
        "DELETE /replica/{uuid}/{uuid}",
        "POST /publish",
        "POST /forward_log",
    ]
    .map(str::to_owned)
    .into();
    assert_eq!(forms.difference(&known).collect::<Vec<_>>(), [""; 0], "no other path, no prefix");
    assert_eq!(known.difference(&forms).collect::<Vec<_>>(), [""; 0]);

    for heard in heard.iter() {
        let json = heard.content_type.as_deref() == Some("application/json");
        assert_eq!(json, heard.method != "GET", "{heard:?}");
        assert_eq!(heard.authorization, None, "without credentials nothing is made up: {heard:?}");
        let has_body = heard.method == "POST";
        assert_eq!(!heard.body.is_empty(), has_body, "{heard:?}");
        if has_body {
            let text = String::from_utf8(heard.body.to_vec()).unwrap();
            let value: serde_json::Value = serde_json::from_str(&text).unwrap();
            let keys: Vec<&String> = value.as_object().unwrap().keys().collect();
            let places: Vec<_> =
                keys.iter().map(|key| text.find(&format!("\"{key}\":")).unwrap()).collect();
            assert!(places.is_sorted(), "the keys are sorted: {text}");
            assert!(!text.contains("null"), "what is not there is left out: {text}");
        }
    }
    let body = |wanted: &str| {
        let found = heard.iter().find(|heard| form(heard) == wanted).unwrap();
        serde_json::from_slice::<serde_json::Value>(&found.body).unwrap()
    };
    assert_eq!(
        body("POST /replica/{uuid}"),
        serde_json::json!({ "racks": [], "regions": [], "sameRackAllowed": false, "zones": [] })
    );
    assert_eq!(body("POST /publish"), serde_json::json!({ "hostId": HOST, "volId": UUID }));
    assert_eq!(body("POST /host_probe")["multipath"], false, "false is said");
}

#[tokio::test]
async fn the_status_word_decides_whether_something_was_done_and_http_does_not() {
    let emulated = Emulated::start(Options::default()).await;
    let backend = emulated.backend();
    let volume = find(&*backend).await;
    let page = "<html>HTTP Status 403 - Forbidden</html>";
    for (number, (status, body, wanted)) in [
        (500, r#"{"status":"Success","description":""}"#, None),
        (404, r#"{"description":"x","status":"Success"}"#, None),
        (200, r#"{"status":"Failure","description":"x"}"#, Some(FaultClass::Refused)),
        (200, r#"{"status":"Failure"}"#, Some(FaultClass::Refused)),
        (200, r#"{"status":"VolumeNotFound","description":"x"}"#, Some(FaultClass::NotFound)),
        (200, r#"{"description":"x"}"#, Some(FaultClass::Invalid)),
        (200, r#"{"status":7,"description":"x"}"#, Some(FaultClass::Invalid)),
        (200, "[]", Some(FaultClass::Invalid)),
        (200, "", Some(FaultClass::Invalid)),
        (200, page, Some(FaultClass::Unauthorized)),
    ]
    .into_iter()
    .enumerate()
    {
        emulated.service.change(|model| model.volumes[0].replicas[0].set_state("Available"));
        let say = Fault::Say(Answer { status, body: body.into() });
        emulated.server.plan("PATCH", "/replica/", 1, say);
        let key = format!("k{number}");
        let answer = ask(&*backend, report(&volume, 0, Condition::Missing, &key)).await;
        assert_eq!(answer.map_err(|fault| fault.class).err(), wanted, "{status} {body}");
        emulated.server.heal();
    }
}

#[tokio::test]
async fn without_an_id_of_this_host_targets_are_asked_for_by_volume_and_nothing_is_published() {
    let emulated = Emulated::start(Options::default()).await;
    let state = emulated.desk.directory.join("kumoscale-state.ron");
    let backend = KumoScale::new(KumoScaleOptions::new(emulated.client(), None, state));
    let volume = find(&backend).await;
    assert!(!backend.capabilities().publish);
    ask(&backend, request(&volume, "k1")).await.unwrap();
    assert_eq!(emulated.server.count("POST", "/publish"), 0);
    assert_eq!(emulated.server.count("GET", "/targets?hostId"), 0);
    assert!(emulated.server.count("GET", "/targets?volId=") > 0);
}

async fn shown_with(emulated: &Emulated, path: &str, body: String) -> Result<Volume, FaultClass> {
    emulated.server.plan("GET", path, 1, Fault::Say(Answer::ok(body)));
    let found = ask(&*emulated.backend(), ProvisionerCall::FindVolume(query())).await;
    emulated.server.heal();
    match found {
        Ok(ProvisionerAnswer::Volume(Some(volume))) => Ok(volume),
        Ok(other) => panic!("{other:?}"),
        Err(fault) => Err(fault.class),
    }
}

#[tokio::test]
async fn a_port_may_be_text_and_whatever_is_not_rocev2_is_tcp() {
    let emulated = Emulated::start(Options::default()).await;
    for (port, transport, wanted) in [
        ("4420", "\"TCP\"", Ok("tcp://10.0.0.1:4420")),
        ("\"4420\"", "\"tcp\"", Ok("tcp://10.0.0.1:4420")),
        ("4420", "\"RoCEv2\"", Ok("rdma://10.0.0.1:4420")),
        ("4420", "\"something new\"", Ok("tcp://10.0.0.1:4420")),
        ("4420", "null", Ok("tcp://10.0.0.1:4420")),
        ("0", "\"TCP\"", Err(FaultClass::Invalid)),
        ("\"N/A\"", "\"TCP\"", Err(FaultClass::Invalid)),
        ("70000", "\"TCP\"", Err(FaultClass::Invalid)),
    ] {
        let portal = format!(r#"{{"ip":"10.0.0.1","port":{port},"transport":{transport}}}"#);
        let of = |id: usize| format!(r#"{{"persistentID":"backend-{id}","portals":[{portal}]}}"#);
        let shown = shown_with(&emulated, "/backends", format!("[{},{}]", of(0), of(1))).await;
        let shown = shown.map(|volume| volume.replicas[0].target.portals[0].to_string());
        assert_eq!(shown, wanted.map(str::to_owned), "{portal}");
    }
}

#[tokio::test]
async fn a_replica_that_is_offered_and_has_no_portal_is_no_answer() {
    let emulated = Emulated::start(Options::default()).await;
    for portals in [r#""portals":[]"#, r#""portals":null"#, r#""state":"Available""#] {
        let of = |id: usize| format!(r#"{{"persistentID":"backend-{id}",{portals}}}"#);
        let shown = shown_with(&emulated, "/backends", format!("[{},{}]", of(0), of(1))).await;
        assert_eq!(shown, Err(FaultClass::Invalid), "{portals}");
    }
    // A backend that is not listed at all is the same.
    assert_eq!(shown_with(&emulated, "/backends", "[]".to_owned()).await, Err(FaultClass::Invalid));
}

#[tokio::test]
async fn of_two_targets_of_this_host_none_is_guessed() {
    let emulated = Emulated::start(Options::default()).await;
    let two = r#"[{"name":"nqn.x:1","numNamespaces":2},{"name":"nqn.x:2","numNamespaces":2}]"#;
    let shown = shown_with(&emulated, "/targets", two.to_owned()).await;
    assert_eq!(shown, Err(FaultClass::Refused));
    // How many namespaces it has is nothing that anything hangs on.
    let one = r#"[{"name":"nqn.x:1"}]"#;
    assert!(shown_with(&emulated, "/targets", one.to_owned()).await.is_ok());
}

fn with_location(uuid: &str, fields: &str) -> String {
    format!(
        r#"[{{"uuid":"{UUID}","alias":"db","numReplicas":1,"location":[{{"uuid":"{uuid}",
           "backend":{{"persistentID":"backend-0"}}{fields}}}]}}]"#
    )
}

#[tokio::test]
async fn milliseconds_in_a_state_decide_nothing_and_impossible_ones_are_no_answer() {
    let emulated = Emulated::start(Options::default()).await;
    let uuid = emulated.service.model().volumes[0].replicas[0].uuid.clone();
    let shown = async |time: &str| {
        let fields = format!(r#","replicaState":"Missing","currentStateTime":{time}"#);
        shown_with(&emulated, "/volumes/", with_location(&uuid, &fields)).await
    };
    let whole = shown("0").await.unwrap();
    for time in ["1", "3600000", "90061001", "1e15", "0.5", "null"] {
        assert_eq!(shown(time).await.as_ref(), Ok(&whole), "{time}");
    }
    for time in ["-1", "1e999", "\"N/A\"", "[]"] {
        assert_eq!(shown(time).await, Err(FaultClass::Invalid), "{time}");
    }
}

#[tokio::test]
async fn a_state_that_nobody_documented_is_not_known() {
    let emulated = Emulated::start(Options::default()).await;
    let uuid = emulated.service.model().volumes[0].replicas[0].uuid.clone();
    for (word, wanted) in [
        (r#""Available""#, ReplicaState::Available),
        (r#""Synchronizing""#, ReplicaState::Synchronizing),
        (r#""Missing""#, ReplicaState::Missing),
        (r#""Terminating""#, ReplicaState::Terminating),
        (r#""Unknown""#, ReplicaState::Unknown),
        (r#""available""#, ReplicaState::Unknown),
        (r#""Resting""#, ReplicaState::Unknown),
        ("null", ReplicaState::Unknown),
    ] {
        let fields = format!(r#","replicaState":{word}"#);
        let shown = shown_with(&emulated, "/volumes/", with_location(&uuid, &fields)).await;
        assert_eq!(shown.unwrap().replicas[0].state, wanted, "{word}");
    }
}

#[tokio::test]
async fn without_a_good_copy_another_is_refused_and_may_be_asked_for_later() {
    let emulated = Emulated::start(Options::default()).await;
    let backend = emulated.backend();
    let volume = find(&*backend).await;
    emulated.service.change(|model| {
        for replica in &mut model.volumes[0].replicas {
            replica.set_state("Synchronizing");
        }
    });
    let fault = ask(&*backend, request(&volume, "k1")).await.unwrap_err();
    assert_eq!(fault.class, FaultClass::Refused, "{fault}");
    emulated.service.change(|model| model.volumes[0].replicas[1].set_state("Available"));
    let answer = ask(&*backend, request(&volume, "k2")).await.unwrap();
    assert!(
        matches!(answer, ProvisionerAnswer::Replacement(Replacement::Granted(_))),
        "{answer:?}"
    );
}

fn with_oauth(emulated: &Emulated, token_server: &str) -> Arc<dyn Provisioner> {
    let file = |name: &str, text: &str| SecretSource::File(emulated.desk.put(name, text));
    let credentials = CredentialOptions::ClientCredentials {
        token_url: Endpoint::parse(token_server, 443).unwrap(),
        client_id: file("id", "host-1"),
        client_secret: file("secret", "s3cr3t"),
        scope: Some("kumoscale".into()),
    };
    let mut client = emulated.client();
    client.credentials = credentials;
    emulated.backend_with(client)
}

async fn with_tokens() -> Emulated {
    let life = Duration::from_secs(3600);
    let access = Access::ClientCredentials {
        client_id: "host-1".into(),
        client_secret: "s3cr3t".into(),
        life,
    };
    Emulated::start(Options { access, ..Options::default() }).await
}

#[tokio::test]
async fn a_token_server_is_verified_also_where_a_scope_is_set() {
    let (emulated, stranger) = (with_tokens().await, with_tokens().await);
    let url = format!("https://{}/oauth/token", stranger.server.address());
    let backend = with_oauth(&emulated, &url);
    let fault = ask(&*backend, ProvisionerCall::FindVolume(query())).await.unwrap_err();
    assert_eq!(fault.class, FaultClass::Unreachable, "{fault}");
    assert_eq!(stranger.server.log(), [], "our secret was not told to a stranger");
}

#[tokio::test]
async fn a_token_server_that_never_answers_costs_the_call_its_time_and_no_more() {
    let emulated = with_tokens().await;
    emulated.server.plan("POST", "/oauth/token", 9, Fault::Hang);
    let backend =
        with_oauth(&emulated, &format!("https://{}/oauth/token", emulated.server.address()));
    let begun = Instant::now();
    let limit = Duration::from_millis(300);
    let fault = call(&*backend, &ProvisionerCall::FindVolume(query()), limit).await.unwrap_err();
    assert_eq!(fault.class, FaultClass::Unreachable, "{fault}");
    assert!(begun.elapsed() < Duration::from_secs(2));
}

#[tokio::test]
async fn what_a_token_server_must_not_say_is_told_from_a_refusal() {
    let emulated = with_tokens().await;
    let backend =
        with_oauth(&emulated, &format!("https://{}/oauth/token", emulated.server.address()));
    for (status, body, class) in [
        (200, "", FaultClass::Invalid),
        (200, "<html>OK</html>", FaultClass::Invalid),
        (200, r#"{"expires_in":60}"#, FaultClass::Invalid),
        (200, r#"{"access_token":7,"expires_in":60}"#, FaultClass::Invalid),
        (200, r#"{"access_token":"a b","expires_in":60}"#, FaultClass::Invalid),
        (200, r#"{"access_token":"","expires_in":60}"#, FaultClass::Invalid),
        (200, r#"{"access_token":"t","expires_in":-1}"#, FaultClass::Invalid),
        (302, "", FaultClass::Invalid),
        (400, "{}", FaultClass::Unauthorized),
        (401, "", FaultClass::Unauthorized),
        (404, r#"{"access_token":"t","expires_in":60}"#, FaultClass::Invalid),
        (503, "", FaultClass::Unreachable),
    ] {
        let say = Fault::Say(Answer { status, body: body.into() });
        emulated.server.plan("POST", "/oauth/token", 1, say);
        let fault = ask(&*backend, ProvisionerCall::FindVolume(query())).await.unwrap_err();
        assert_eq!(fault.class, class, "{status} {body}: {fault}");
        emulated.server.heal();
    }
    assert_eq!(emulated.server.count("GET", "/volumes"), 0, "nothing is asked without a token");
    find(&*backend).await;
}
