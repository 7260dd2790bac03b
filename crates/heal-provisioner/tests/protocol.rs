//! Our own protocol, over HTTPS and over a program: the contract, and what a bad other end can do.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::wildcard_enum_match_arm,
    reason = "a test's helper functions fail the test like the test itself"
)]

mod common;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use common::Desk;
use common::emulated::{ARRAY, query};
use common::plugin::Direct;
use heal_provisioner::client::{
    ClientOptions, CredentialOptions, Endpoint, SecretSource, TlsOptions,
};
use heal_provisioner::contract::{
    self, Fixture, FixtureWhy, KnownBy, Stage, Standing, SuiteReport, Verdict,
};
use heal_provisioner::{CallContext, Provisioner, call, exec, http, protocol};
use heal_types::{FaultClass, ProvisionerAnswer, ProvisionerCall, ProvisionerFault};
use serde_json::{Value, json};
use vendor_emulator::certificates::Certificates;
use vendor_emulator::server::{Answer, Fault, Heard, Server, ServerOptions, Service};

/// The reference server: the protocol in front of any provisioner, here the one over files.
struct Reference {
    provisioner: Mutex<Arc<dyn Provisioner>>,
    revision: tokio::sync::watch::Sender<u64>,
}

#[heal_provisioner::async_trait]
impl Service for Reference {
    async fn answer(&self, heard: Heard) -> Answer {
        if heard.authorization.as_deref() != Some("Bearer t0ken") {
            return Answer { status: 401, body: "".into() };
        }
        if heard.path.starts_with("/api/v1/changes") {
            let mut seen = self.revision.subscribe();
            let since = format!("since={}&", *seen.borrow_and_update());
            if heard.path.contains(&since) {
                let _ = tokio::time::timeout(Duration::from_secs(5), seen.changed()).await;
            }
            let revision = seen.borrow().to_string();
            return Answer::ok(json!({ "protocol": 1, "revision": revision }).to_string());
        }
        let document: Value = serde_json::from_slice(&heard.body).unwrap();
        assert_eq!(document["verb"], heard.path.strip_prefix("/api/v1/").unwrap());
        assert_eq!(document.get("key").and_then(Value::as_str), heard.key.as_deref());
        let provisioner = Arc::clone(&self.provisioner.lock().unwrap());
        Answer::ok(protocol::serve(&*provisioner, &heard.body).await)
    }
}

struct OverHttps {
    desk: Desk,
    certificates: Certificates,
    reference: Arc<Reference>,
    server: Server,
}

impl OverHttps {
    async fn start(inventory: &str) -> Self {
        let desk = Desk::with(inventory);
        let certificates = Certificates::make(&["127.0.0.1"]).unwrap();
        desk.put("ca.pem", &certificates.authority_pem);
        desk.put("token", "t0ken\n");
        desk.put("client.pem", &certificates.client_pem);
        let reference = Arc::new(Reference {
            provisioner: Mutex::new(desk.backend()),
            revision: tokio::sync::watch::Sender::new(7),
        });
        let options = ServerOptions { client_certificate: true };
        let any = "127.0.0.1:0".parse().unwrap();
        let server = Server::start(any, &certificates, options, reference.clone()).await.unwrap();
        Self { desk, certificates, reference, server }
    }

    fn backend(&self) -> http::Http {
        let path = |name: &str| self.desk.directory.join(name);
        let url = format!("https://{}/api/", self.server.address());
        http::backend(ClientOptions {
            endpoints: vec![Endpoint::parse(&url, http::DEFAULT_PORT).unwrap()],
            tls: TlsOptions {
                authorities: Some(path("ca.pem")),
                pins: vec![self.certificates.server_pin.parse().unwrap()],
                identity: Some(path("client.pem")),
                believe_anybody: false,
            },
            credentials: CredentialOptions::Bearer(SecretSource::File(path("token"))),
        })
    }
}

#[derive(Default)]
struct HttpFixture(Option<OverHttps>);

#[heal_provisioner::async_trait]
impl Fixture for HttpFixture {
    async fn set_up(&mut self, stage: &Stage) -> Result<Standing, FixtureWhy> {
        let standing = OverHttps::start(&common::inventory(stage)).await;
        let provisioner = Arc::new(standing.backend());
        self.0 = Some(standing);
        Ok(Standing { provisioner, query: query() })
    }

    async fn go_away(&mut self) -> Result<(), FixtureWhy> {
        self.0.as_ref().unwrap().server.set_away(true);
        Ok(())
    }

    async fn come_back(&mut self) -> Result<(), FixtureWhy> {
        self.0.as_ref().unwrap().server.set_away(false);
        Ok(())
    }

    async fn restart(&mut self) -> Result<Arc<dyn Provisioner>, FixtureWhy> {
        let standing = self.0.as_ref().unwrap();
        *standing.reference.provisioner.lock().unwrap() = standing.desk.backend();
        Ok(Arc::new(standing.backend()))
    }
}

fn all_passed(report: &SuiteReport) {
    assert!(report.cases.iter().all(|case| case.verdict == Verdict::Passed), "{report}");
    assert!(report.cases.len() >= 45);
}

#[tokio::test]
async fn the_http_backend_keeps_every_promise() {
    all_passed(&contract::run(&mut HttpFixture::default()).await);
}

fn plugin(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../packaging/plugins").join(name)
}

/// What the reference plugin reads.
fn plugin_inventory(stage: &Stage) -> String {
    let replica = |id: String, number: usize, sectors: u64| {
        json!({
            "id": id, "nqn": format!("nqn.2026-11.example:{id}"), "size": sectors * 512,
            "namespace": format!("6fd1ee4c-3f2c-4f6f-8a44-{number:012x}"),
            "portals": [format!("tcp://10.0.0.{}:4420", number % 250 + 1)],
        })
    };
    let replicas = 1..=usize::from(stage.replicas);
    let replicas: Vec<Value> =
        replicas.map(|n| replica(format!("r{n}"), n, stage.size.0)).collect();
    let spares = stage.spares.iter().enumerate();
    let spares: Vec<Value> =
        spares.map(|(n, size)| replica(format!("s{n}"), 100 + n, size.0)).collect();
    let mut volume = json!({ "id": "vol-7", "copies": 2, "grace": "10m", "replicas": replicas });
    if stage.known_by != KnownBy::Alias {
        volume["array"] = json!(ARRAY);
    }
    if stage.known_by != KnownBy::Array {
        volume["alias"] = json!("db");
    }
    json!({ "volumes": [volume], "spares": spares }).to_string()
}

#[derive(Default)]
struct ExecFixture(Option<Desk>);

impl ExecFixture {
    fn backend(&self) -> Arc<dyn Provisioner> {
        let directory = self.0.as_ref().unwrap().directory.display().to_string();
        let program = plugin("nvme-heal-plugin.py");
        Arc::new(exec::backend(Arc::new(Direct { program, arguments: vec![directory] })))
    }
}

#[heal_provisioner::async_trait]
impl Fixture for ExecFixture {
    async fn set_up(&mut self, stage: &Stage) -> Result<Standing, FixtureWhy> {
        let desk = Desk::new();
        desk.put("inventory.json", &plugin_inventory(stage));
        self.0 = Some(desk);
        Ok(Standing { provisioner: self.backend(), query: query() })
    }

    async fn go_away(&mut self) -> Result<(), FixtureWhy> {
        self.0.as_ref().unwrap().rename("inventory.json", "away.json");
        Ok(())
    }

    async fn come_back(&mut self) -> Result<(), FixtureWhy> {
        self.0.as_ref().unwrap().rename("away.json", "inventory.json");
        Ok(())
    }

    async fn restart(&mut self) -> Result<Arc<dyn Provisioner>, FixtureWhy> {
        Ok(self.backend())
    }
}

#[tokio::test]
async fn the_exec_backend_with_the_reference_plugin_keeps_every_promise() {
    all_passed(&contract::run(&mut ExecFixture::default()).await);
}

async fn ask(backend: &dyn Provisioner) -> Result<ProvisionerAnswer, ProvisionerFault> {
    call(backend, &ProvisionerCall::FindVolume(query()), Duration::from_secs(2)).await
}

#[tokio::test]
async fn a_plugin_of_a_few_lines_of_shell_can_look_up() {
    let desk = Desk::new();
    let volume = r#"{"id":"vol-7","copies":2,"replicas":[{"id":"r1","state":"available",
        "nqn":"nqn.x:1","namespace":"6fd1ee4c-3f2c-4f6f-8a44-000000000001",
        "portals":["tcp://10.0.0.1:4420"],"news":"a field nobody knows"}]}"#;
    let array = query().array.to_string();
    desk.put(&format!("{array}.json"), volume);
    let directory = desk.directory.display().to_string();
    let program = plugin("nvme-heal-plugin.sh");
    let backend = exec::backend(Arc::new(Direct { program, arguments: vec![directory] }));
    match ask(&backend).await.unwrap() {
        ProvisionerAnswer::Volume(Some(volume)) => assert_eq!(volume.replicas.len(), 1),
        other => panic!("{other:?}"),
    }
    desk.rename(&format!("{array}.json"), "away");
    assert_eq!(ask(&backend).await.unwrap(), ProvisionerAnswer::Volume(None));
    let report = ProvisionerCall::ConfirmRemoved {
        volume: "vol-7".parse().unwrap(),
        replica: "r1".parse().unwrap(),
        key: "k".parse().unwrap(),
    };
    let fault = call(&backend, &report, Duration::from_secs(2)).await.unwrap_err();
    assert_eq!(fault.class, FaultClass::Unsupported);
}

/// A plugin that runs `script`.
fn scripted(desk: &Desk, script: &str) -> exec::Exec {
    let path = desk.put("plugin.sh", script);
    let arguments = vec![path.display().to_string()];
    exec::backend(Arc::new(Direct { program: "/bin/sh".into(), arguments }))
}

#[tokio::test]
async fn a_hung_or_lying_plugin_is_a_fault_and_nothing_more() {
    use FaultClass::{Invalid, Unreachable};
    let volume = r#"{"id":"v","copies":2,"replicas":[]}"#;
    for (script, class) in [
        ("sleep 60", Unreachable),
        ("exec sleep 60 >&-", Unreachable),
        ("exit 3", Unreachable),
        ("kill -9 $$", Unreachable),
        ("true", Invalid),
        ("cat", Invalid),
        ("yes babble", Invalid),
        ("head -c 3000000 /dev/zero", Invalid),
        ("echo '{\"protocol\":2,\"answer\":{\"volume\":null}}'", Invalid),
        ("echo '{\"protocol\":1}'", Invalid),
        ("echo '{\"protocol\":1,\"answer\":{}}'", Invalid),
        ("echo '{\"protocol\":1,\"answer\":null}'", Invalid),
        ("echo '{\"protocol\":1,\"answer\":{\"volume\":null}}{}'", Invalid),
        ("echo '{\"protocol\":1,\"fault\":{\"class\":\"sulking\"}}'", Invalid),
        // Not found is not the clear word that there is none.
        ("echo '{\"protocol\":1,\"fault\":{\"class\":\"not_found\"}}'", Invalid),
        (
            "echo '{\"protocol\":1,\"answer\":{\"volume\":null},\"fault\":{\"class\":\"refused\"}}'",
            Invalid,
        ),
    ] {
        let desk = Desk::new();
        let begun = Instant::now();
        let fault = ask(&scripted(&desk, script)).await.unwrap_err();
        assert_eq!(fault.class, class, "{script}: {fault}");
        assert!(begun.elapsed() < Duration::from_secs(4), "{script}");
    }
    let desk = Desk::new();
    let fine = format!("echo '{{\"protocol\":1,\"answer\":{{\"volume\":{volume}}},\"new\":1}}'");
    ask(&scripted(&desk, &fine)).await.unwrap();
}

#[tokio::test]
async fn a_plugin_that_hangs_again_and_again_is_left_alone_for_a_while() {
    let desk = Desk::new();
    let backend = scripted(&desk, "echo x >>\"$0.calls\"; exit 7");
    for _ in 0..12 {
        assert_eq!(ask(&backend).await.unwrap_err().class, FaultClass::Unreachable);
    }
    let calls = std::fs::read_to_string(desk.directory.join("plugin.sh.calls")).unwrap();
    assert_eq!(calls.lines().count(), 5);
}

#[tokio::test]
async fn what_stands_in_between_is_not_the_provisioner() {
    use FaultClass::{Invalid, Unauthorized, Unreachable};
    for (status, body, class) in [
        (401, "", Unauthorized),
        (403, "", Unauthorized),
        (404, "<html>", Invalid),
        (429, "", Unreachable),
        (502, "<html>Bad Gateway", Unreachable),
        (200, "<html>Welcome to the hotel", Invalid),
        (204, "", Invalid),
        (301, "", Invalid),
    ] {
        let standing = OverHttps::start("(volumes: [], spares: [])").await;
        let answer = Answer { status, body: body.into() };
        standing.server.plan("POST", "/api/v1/find_volume", 5, Fault::Say(answer));
        let fault = ask(&standing.backend()).await.unwrap_err();
        assert_eq!(fault.class, class, "{status} {body}: {fault}");
    }
}

#[tokio::test]
async fn a_change_is_heard_while_it_is_waited_for() {
    let standing = OverHttps::start("(volumes: [], spares: [])").await;
    let backend = standing.backend();
    let context = CallContext::within(Duration::from_secs(10));
    let first = backend.carrier().changed(&context, None).await.unwrap();
    assert_eq!(first, "7");
    let begun = Instant::now();
    let waiting = backend.carrier().changed(&context, Some("7"));
    let change = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        standing.reference.revision.send_replace(8);
    };
    let (heard, ()) = tokio::join!(waiting, change);
    assert_eq!(heard.unwrap(), "8");
    assert!(begun.elapsed() < Duration::from_secs(2));
}

/// The interface as vendors read it, and the one that is spoken, have the same verbs.
#[test]
fn the_openapi_document_has_every_verb() {
    let text = include_str!("../../../packaging/doc/openapi.json");
    let document: Value = serde_json::from_str(text).unwrap();
    let described: Vec<&str> =
        document["paths"].as_object().unwrap().keys().map(String::as_str).collect();
    let mut spoken: Vec<String> = [
        "describe",
        "probe",
        "find_volume",
        "report",
        "request_replacement",
        "confirm_removed",
        "publish",
        "forward",
        "stage",
        "changes",
    ]
    .map(|verb| format!("/v1/{verb}"))
    .into();
    spoken.sort();
    let mut described: Vec<String> = described.into_iter().map(str::to_owned).collect();
    described.sort();
    assert_eq!(described, spoken);
    for path in document["paths"].as_object().unwrap().values() {
        let Some(post) = path.get("post") else { continue };
        let schema = &post["requestBody"]["content"]["application/json"]["schema"];
        let verb = schema["properties"]["verb"]["const"].as_str().unwrap();
        let unknown = json!({ "protocol": 1, "deadline_ms": 1, "verb": verb }).to_string();
        let question = serde_json::from_str::<protocol::wire::Question>(&unknown);
        let why = question.err().map(|error| error.to_string()).unwrap_or_default();
        assert!(!why.contains("unknown variant"), "{verb} is not spoken: {why}");
    }
}
