//! Whom the client believes, who it says it is, and where it goes when nobody answers.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test's helper functions fail the test like the test itself"
)]

mod common;

use std::time::{Duration, Instant};

use common::emulated::{Emulated, UUID, find, query, stage};
use heal_provisioner::client::{ClientOptions, CredentialOptions, Endpoint, SecretSource};
use heal_provisioner::{ForwardedEvent, Provisioner, Severity, call, dispatch};
use heal_types::{
    Condition, FaultClass, ProvisionerAnswer, ProvisionerCall, ProvisionerFault, WallTime,
};
use vendor_emulator::certificates::Certificates;
use vendor_emulator::kumoscale::{Access, Options};
use vendor_emulator::server::{Answer, Fault, Server, ServerOptions};

async fn ask(backend: &dyn Provisioner) -> Result<ProvisionerAnswer, ProvisionerFault> {
    call(backend, &ProvisionerCall::FindVolume(query()), Duration::from_secs(5)).await
}

async fn class(backend: &dyn Provisioner) -> FaultClass {
    ask(backend).await.unwrap_err().class
}

fn with(access: Access) -> Options {
    Options { access, ..Options::default() }
}

#[tokio::test]
async fn a_server_of_another_authority_is_not_believed() {
    let emulated = Emulated::start(Options::default()).await;
    let other = Emulated::start(Options::default()).await;
    let mut client = emulated.client();
    client.tls.authorities = Some(other.desk.directory.join("ca.pem"));
    let fault = ask(&*emulated.backend_with(client)).await.unwrap_err();
    assert_eq!(fault.class, FaultClass::Unreachable);
    assert!(fault.detail.contains("certificate"), "{fault}");
    assert_eq!(emulated.server.log(), [], "nothing was said to a stranger");
}

#[tokio::test]
async fn a_certificate_for_another_name_is_not_believed() {
    let emulated = Emulated::start(Options::default()).await;
    let other = Certificates::make(&["provisioner.example"]).unwrap();
    let any = "127.0.0.1:0".parse().unwrap();
    let service = emulated.service.clone();
    let server = Server::start(any, &other, ServerOptions::default(), service).await.unwrap();
    let mut client = emulated.client();
    client.tls.authorities = Some(emulated.desk.put("other.pem", &other.authority_pem));
    client.endpoints = vec![Endpoint::parse(&server.address().to_string(), 0).unwrap()];
    let fault = ask(&*emulated.backend_with(client)).await.unwrap_err();
    assert!(fault.detail.contains("not valid for name"), "{fault}");
}

#[tokio::test]
async fn a_pin_is_enough_and_a_wrong_one_is_not() {
    let emulated = Emulated::start(Options::default()).await;
    let pins = [&emulated.certificates.server_pin, &emulated.certificates.server_key_pin];
    for pin in pins {
        let mut client = emulated.client();
        client.tls.authorities = None;
        client.tls.pins = vec![pin.parse().unwrap()];
        ask(&*emulated.backend_with(client)).await.unwrap();
    }
    let mut client = emulated.client();
    client.tls.pins = vec!["00".repeat(32).parse().unwrap()];
    // The authority would believe it; the pin must as well.
    assert_eq!(class(&*emulated.backend_with(client)).await, FaultClass::Unreachable);
}

#[tokio::test]
async fn a_server_that_wants_a_certificate_gets_ours() {
    let options = ServerOptions { client_certificate: true };
    let emulated = Emulated::of(Options::default(), &stage(UUID, "db", 2, 1, &[]), options).await;
    assert_eq!(class(&*emulated.backend()).await, FaultClass::Unreachable);
    let mut client = emulated.client();
    client.tls.identity = Some(emulated.desk.directory.join("client.pem"));
    find(&*emulated.backend_with(client)).await;
}

#[tokio::test]
async fn certificates_that_come_late_are_read_late() {
    let emulated = Emulated::start(Options::default()).await;
    emulated.desk.rename("ca.pem", "ca.away");
    let backend = emulated.backend();
    assert_eq!(class(&*backend).await, FaultClass::Unreachable);
    emulated.desk.rename("ca.away", "ca.pem");
    ask(&*backend).await.unwrap();
}

fn bearer(emulated: &Emulated) -> ClientOptions {
    let token = SecretSource::File(emulated.desk.directory.join("token"));
    ClientOptions { credentials: CredentialOptions::Bearer(token), ..emulated.client() }
}

#[tokio::test]
async fn a_token_that_was_rotated_is_read_again_at_once() {
    for page_for_401 in [true, false] {
        let options = Options { page_for_401, ..with(Access::Token("first".into())) };
        let emulated = Emulated::start(options).await;
        emulated.desk.put("token", "first\n");
        let backend = emulated.backend_with(bearer(&emulated));
        ask(&*backend).await.unwrap();
        emulated.service.set_up(|options| options.access = Access::Token("second".into()));
        assert_eq!(class(&*backend).await, FaultClass::Unauthorized);
        emulated.desk.put("token", "second");
        ask(&*backend).await.unwrap();
    }
}

#[tokio::test]
async fn a_token_that_cannot_be_sent_is_named_by_its_file_and_never_shown() {
    let emulated = Emulated::start(with(Access::Token("x".into()))).await;
    emulated.desk.put("token", "hunter2 hunter3");
    let fault = ask(&*emulated.backend_with(bearer(&emulated))).await.unwrap_err();
    assert_eq!(fault.class, FaultClass::Unauthorized);
    assert!(fault.detail.contains("token") && !fault.detail.contains("hunter"), "{fault}");
}

async fn with_oauth(life: Duration) -> (Emulated, ClientOptions) {
    let emulated = Emulated::start(with(Access::ClientCredentials {
        client_id: "host-1".into(),
        client_secret: "s3cr3t".into(),
        life,
    }))
    .await;
    let file = |name: &str, text: &str| SecretSource::File(emulated.desk.put(name, text));
    let token_url = format!("https://{}/oauth/token", emulated.server.address());
    let credentials = CredentialOptions::ClientCredentials {
        token_url: Endpoint::parse(&token_url, 443).unwrap(),
        client_id: file("id", "host-1\n"),
        client_secret: file("secret", "s3cr3t\n"),
        scope: Some("kumoscale".into()),
    };
    let client = ClientOptions { credentials, ..emulated.client() };
    (emulated, client)
}

#[tokio::test]
async fn client_credentials_get_one_token_for_many_calls() {
    let (emulated, client) = with_oauth(Duration::from_secs(3600)).await;
    let backend = emulated.backend_with(client);
    for _ in 0..5 {
        ask(&*backend).await.unwrap();
    }
    assert_eq!(emulated.service.issued(), 1);
}

#[tokio::test]
async fn a_token_is_renewed_before_it_expires() {
    let (emulated, client) = with_oauth(Duration::from_secs(2)).await;
    let backend = emulated.backend_with(client);
    ask(&*backend).await.unwrap();
    tokio::time::sleep(Duration::from_millis(1850)).await;
    ask(&*backend).await.unwrap();
    assert_eq!(emulated.service.issued(), 2);
    let refused = emulated.server.log().iter().filter(|line| line.status == Some(401)).count();
    assert_eq!(refused, 0, "it was renewed before anybody complained");
}

#[tokio::test]
async fn a_token_that_was_revoked_is_replaced_within_the_call() {
    let (emulated, client) = with_oauth(Duration::from_secs(3600)).await;
    let backend = emulated.backend_with(client);
    ask(&*backend).await.unwrap();
    emulated.service.revoke();
    ask(&*backend).await.unwrap();
    assert_eq!(emulated.service.issued(), 2);
}

#[tokio::test]
async fn a_secret_that_is_refused_is_unauthorized_and_stays_secret() {
    let (emulated, client) = with_oauth(Duration::from_secs(3600)).await;
    emulated.desk.put("secret", "wr0ng-hunter2");
    let fault = ask(&*emulated.backend_with(client)).await.unwrap_err();
    assert_eq!(fault.class, FaultClass::Unauthorized);
    assert!(!fault.detail.contains("hunter2"), "{fault}");
}

#[tokio::test]
async fn the_next_address_is_asked_when_one_is_away() {
    let (first, second) =
        (Emulated::start(Options::default()).await, Emulated::start(Options::default()).await);
    let both = format!("{}{}", first.certificates.authority_pem, second.certificates.authority_pem);
    let mut client = first.client();
    client.tls.authorities = Some(first.desk.put("both.pem", &both));
    client.endpoints.push(second.endpoint());
    let backend = first.backend_with(client);
    ask(&*backend).await.unwrap();
    assert_eq!(second.server.log().len(), 0);
    first.server.set_away(true);
    ask(&*backend).await.unwrap();
    let asked = second.server.log().len();
    assert!(asked > 0);
    first.server.set_away(false);
    ask(&*backend).await.unwrap();
    assert!(second.server.log().len() > asked, "the one that answered last is asked first");
}

#[tokio::test]
async fn an_address_that_never_answers_leaves_time_for_the_next() {
    let (first, second) =
        (Emulated::start(Options::default()).await, Emulated::start(Options::default()).await);
    let both = format!("{}{}", first.certificates.authority_pem, second.certificates.authority_pem);
    let mut client = first.client();
    client.tls.authorities = Some(first.desk.put("both.pem", &both));
    client.endpoints.push(second.endpoint());
    first.server.plan("GET", "/volumes", 1, Fault::Hang);
    let begun = Instant::now();
    ask(&*first.backend_with(client)).await.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn a_call_ends_at_its_deadline_and_not_at_four_minutes() {
    let emulated = Emulated::start(Options::default()).await;
    emulated.server.plan("GET", "/", 100, Fault::Hang);
    let backend = emulated.backend();
    let begun = Instant::now();
    let limit = Duration::from_millis(300);
    let fault = call(&*backend, &ProvisionerCall::FindVolume(query()), limit).await.unwrap_err();
    assert_eq!(fault.class, FaultClass::Unreachable);
    assert!(begun.elapsed() < Duration::from_secs(2));
}

#[tokio::test]
async fn an_answer_without_end_is_cut() {
    let emulated = Emulated::start(Options::default()).await;
    let huge = Answer::ok(vec![b'['; 5 * 1024 * 1024]);
    emulated.server.plan("GET", "/volumes", 1, Fault::Say(huge));
    assert_eq!(class(&*emulated.backend()).await, FaultClass::Invalid);
}

#[tokio::test]
async fn a_connection_the_server_closed_costs_nothing() {
    let emulated = Emulated::start(Options::default()).await;
    let backend = emulated.backend();
    let volume = find(&*backend).await;
    emulated.server.plan("GET", "/volumes", 1, Fault::Drop);
    let report = ProvisionerCall::Report {
        volume: volume.id,
        replica: volume.replicas[0].id.clone(),
        condition: Condition::Missing,
        since: WallTime(0),
        key: "k1".parse().unwrap(),
    };
    call(&*backend, &report, Duration::from_secs(5)).await.unwrap();
}

#[tokio::test]
async fn a_call_that_wants_a_connection_of_its_own_leaves_the_kept_one_to_the_others() {
    let emulated = Emulated::start(Options::default()).await;
    let backend = emulated.backend();
    find(&*backend).await;
    assert_eq!(emulated.server.connections(), 1);
    emulated.server.plan("POST", "/forward_log", 1, Fault::Slow(Duration::from_millis(300)));
    let event = ForwardedEvent {
        severity: Severity::Fatal,
        at: WallTime(0),
        message: "Volume is degraded.".into(),
        fields: [].into(),
    };
    let limit = Duration::from_secs(5);
    let forwarding = dispatch::forward(&*backend, &event, limit);
    let (forwarded, found) = tokio::join!(forwarding, ask(&*backend));
    forwarded.unwrap();
    found.unwrap();
    assert_eq!(emulated.server.connections(), 2, "no third handshake");
    // Both are kept.
    let (one, other) = tokio::join!(ask(&*backend), ask(&*backend));
    one.and(other).unwrap();
    assert_eq!(emulated.server.connections(), 2);
}
