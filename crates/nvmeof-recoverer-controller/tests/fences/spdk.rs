//! The `spdk` fence: over TLS, against a target in a process that answers as SPDK does.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex};

use nvmeof_recoverer::plan::evidence::StillOpen;
use nvmeof_recoverer::plan::relocate::Answer;
use nvmeof_recoverer_controller::crd;
use nvmeof_recoverer_controller::fence::Verb;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use crate::contract::{self, Asked, Ground, NEW, NQN, OLD, means};
use crate::scratch::Scratch;

/// A subsystem of the target.
#[derive(Debug, Default)]
struct Subsystem {
    any_host: bool,
    hosts: BTreeSet<String>,
    bdevs: Vec<String>,
    /// Hosts with a controller: their writes land.
    controllers: Vec<String>,
    /// Controllers that are told to go, and go when the target gets round to it.
    leaving: Vec<String>,
}

#[derive(Debug, Default)]
struct State {
    subsystems: BTreeMap<String, Subsystem>,
    /// Somebody newer comes when a host is let in.
    overtaken: bool,
    asked: Vec<String>,
}

/// A target in a process, with the rules of the real one: taking a host off the list tells its
/// controllers to go, and they write until they are gone; a list that does not count cuts nobody.
#[derive(Debug, Default)]
struct Target(Mutex<State>);

impl Target {
    fn connect(&self, host: &str) -> Result<(), ()> {
        let mut state = self.0.lock().unwrap();
        let subsystem = state.subsystems.get_mut(NQN).unwrap();
        if !subsystem.any_host && !subsystem.hosts.contains(host) {
            return Err(());
        }
        subsystem.controllers.push(host.to_owned());
        Ok(())
    }

    fn can_write(&self, host: &str) -> bool {
        let state = self.0.lock().unwrap();
        let subsystem = &state.subsystems[NQN];
        subsystem.controllers.iter().chain(&subsystem.leaving).any(|it| it == host)
    }

    /// The target gets round to it.
    fn teardown(&self) {
        self.0.lock().unwrap().subsystems.values_mut().for_each(|it| it.leaving.clear());
    }

    fn set(&self, set: impl FnOnce(&mut State)) {
        set(&mut self.0.lock().unwrap());
    }

    fn call(&self, method: &str, params: &Value) -> Result<Value, (i64, &'static str)> {
        const INVALID: (i64, &str) = (-32602, "Invalid parameters");
        let mut state = self.0.lock().unwrap();
        state.asked.push(method.to_owned());
        let overtaken = state.overtaken;
        let nqn = params["nqn"].as_str().unwrap_or_default().to_owned();
        let host = params["host"].as_str().unwrap_or_default().to_owned();
        match method {
            "nvmf_get_subsystems" => {
                let one = |(nqn, it): (&String, &Subsystem)| {
                    let hosts: Vec<Value> =
                        it.hosts.iter().map(|nqn| json!({ "nqn": nqn })).collect();
                    let bdev = |name: &String| json!({ "nsid": 1, "bdev_name": name });
                    let namespaces: Vec<Value> = it.bdevs.iter().map(bdev).collect();
                    json!({ "nqn": nqn, "subtype": "NVMe", "listen_addresses": [],
                        "allow_any_host": it.any_host, "hosts": hosts, "namespaces": namespaces })
                };
                return Ok(state.subsystems.iter().map(one).collect());
            }
            "nvmf_create_subsystem" if state.subsystems.contains_key(&nqn) => {
                return Err((-32603, "Unable to create subsystem"));
            }
            "nvmf_create_subsystem" => {
                state.subsystems.insert(nqn, Subsystem::default());
                return Ok(json!(true));
            }
            "nvmf_delete_subsystem" => {
                return state.subsystems.remove(&nqn).map(|_| json!(true)).ok_or(INVALID);
            }
            _ => {}
        }
        let subsystem = state.subsystems.get_mut(&nqn).ok_or(INVALID)?;
        match method {
            "nvmf_subsystem_get_controllers" => {
                let all = subsystem.controllers.iter().chain(&subsystem.leaving);
                let one = |host: &String| json!({ "cntlid": 1, "hostnqn": host, "hostid": "" });
                Ok(all.map(one).collect())
            }
            "nvmf_subsystem_get_qpairs" => {
                let all = subsystem.controllers.iter().chain(&subsystem.leaving);
                Ok(all.map(|_| json!({ "cntlid": 1, "qid": 0, "state": "active" })).collect())
            }
            "nvmf_subsystem_allow_any_host" => {
                subsystem.any_host = params["allow_any_host"].as_bool().unwrap();
                Ok(json!(true))
            }
            "nvmf_subsystem_add_host" if subsystem.hosts.insert(host.clone()) => {
                if overtaken {
                    let newer = Subsystem::default();
                    state.subsystems.insert(format!("{NQN}:generation-99"), newer);
                }
                Ok(json!(true))
            }
            "nvmf_subsystem_remove_host" if subsystem.hosts.remove(&host) => {
                let all = std::mem::take(&mut subsystem.controllers);
                let (gone, kept): (Vec<_>, Vec<_>) = all.into_iter().partition(|it| *it == host);
                subsystem.controllers = kept;
                subsystem.leaving.extend(gone);
                Ok(json!(true))
            }
            "nvmf_subsystem_add_host" | "nvmf_subsystem_remove_host" => Err(INVALID),
            _ => Err((-32601, "Method not found")),
        }
    }

    async fn answer(&self, stream: TcpStream, acceptor: TlsAcceptor) -> std::io::Result<()> {
        let mut stream = acceptor.accept(stream).await?;
        let mut unread = Vec::new();
        loop {
            let mut more = [0; 512];
            let read = stream.read(&mut more).await?;
            if read == 0 {
                return Ok(());
            }
            unread.extend_from_slice(&more[..read]);
            let Ok(asked) = serde_json::from_slice::<Value>(&unread) else { continue };
            unread.clear();
            let told = match self.call(asked["method"].as_str().unwrap(), &asked["params"]) {
                Ok(result) => json!({ "jsonrpc": "2.0", "id": asked["id"], "result": result }),
                Err((code, message)) => json!({ "jsonrpc": "2.0", "id": asked["id"],
                    "error": { "code": code, "message": message } }),
            };
            // In pieces, as a long answer comes.
            for piece in told.to_string().as_bytes().chunks(100) {
                stream.write_all(piece).await?;
                stream.flush().await?;
            }
        }
    }
}

struct Wire {
    target: Arc<Target>,
    fence: Asked,
    _scratch: Scratch,
}

impl Ground for Wire {
    fn writes(&self, host: &str) -> bool {
        self.target.can_write(host)
            || (self.target.connect(host).is_ok() && self.target.can_write(host))
    }

    fn settles(&self) {
        self.target.teardown();
    }
}

/// What stands before the target's socket.
fn acceptor(dir: &Path) -> TlsAcceptor {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let read = |file: &str| CertificateDer::from_pem_file(dir.join(file)).unwrap();
    let mut clients = RootCertStore::empty();
    clients.add(read("authority")).unwrap();
    let judge =
        WebPkiClientVerifier::builder_with_provider(Arc::new(clients), Arc::clone(&provider))
            .build()
            .unwrap();
    let key = PrivateKeyDer::from_pem_file(dir.join("server.key")).unwrap();
    let config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_client_cert_verifier(judge)
        .with_single_cert(vec![read("server")], key)
        .unwrap();
    TlsAcceptor::from(Arc::new(config))
}

impl Wire {
    /// A target with one device, that the old host uses.
    async fn open(test: &str) -> Self {
        let scratch = Scratch::with_certificates(&format!("spdk-{test}"), "127.0.0.1");
        let target = Arc::new(Target::default());
        let device = Subsystem {
            hosts: [OLD.to_owned()].into(),
            bdevs: vec!["Nvme0n1".to_owned()],
            ..Subsystem::default()
        };
        target.set(|state| drop(state.subsystems.insert(NQN.to_owned(), device)));
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (acceptor, answers) = (acceptor(scratch.dir()), Arc::clone(&target));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, answers) = (acceptor.clone(), Arc::clone(&answers));
                tokio::spawn(async move { answers.answer(stream, acceptor).await });
            }
        });
        let spec = crd::Fence::Spdk(crd::Spdk { host: "127.0.0.1".to_owned(), port });
        let fence = Asked(means(Some(scratch.tls())).of(&contract::target(spec, 4420)));
        Self { target, fence, _scratch: scratch }
    }
}

#[tokio::test]
async fn it_keeps_the_contract() {
    let wire = Wire::open("contract").await;
    contract::is_kept(&wire.fence, &wire).await;
}

#[tokio::test]
async fn a_host_that_is_not_gone_yet_is_no_proof_whatever_the_target_says() {
    let wire = Wire::open("leaving").await;
    wire.target.connect(OLD).unwrap();
    assert_eq!(wire.fence.ask(Verb::Close, 7).await, Answer::Done);
    // It says that it is done, and the old host writes on.
    assert!(wire.target.can_write(OLD));
    let proof = wire.fence.proof(7).await;
    assert!(matches!(proof, Err(StillOpen::Connected(host)) if host == OLD));
    wire.target.teardown();
    wire.fence.proof(7).await.unwrap();
}

#[tokio::test]
async fn one_token_is_enough_and_nobody_can_use_it() {
    let wire = Wire::open("token").await;
    for generation in [7, 12] {
        assert_eq!(wire.fence.ask(Verb::Close, generation).await, Answer::Done);
    }
    wire.target.set(|state| {
        let names: Vec<&str> = state.subsystems.keys().map(String::as_str).collect();
        assert_eq!(names, [NQN, "nqn.2026-01.org.example:osd-3:generation-12"]);
        assert!(state.subsystems.values().all(|it| it.hosts.is_empty() && !it.any_host));
    });
}

#[tokio::test]
async fn a_host_is_not_let_in_beside_one_that_is_not_gone_yet() {
    let wire = Wire::open("beside").await;
    wire.target.connect(OLD).unwrap();
    assert_eq!(wire.fence.ask(Verb::Close, 1).await, Answer::Done);
    assert!(matches!(wire.fence.admit(NEW, 1).await, Answer::Again(_)));
    assert!(wire.target.connect(NEW).is_err());
    wire.target.teardown();
    assert_eq!(wire.fence.admit(NEW, 1).await, Answer::Done);
}

#[tokio::test]
async fn a_list_that_did_not_count_counts_and_whoever_came_in_meanwhile_is_thrown_out() {
    let wire = Wire::open("any").await;
    wire.target.set(|state| state.subsystems.get_mut(NQN).unwrap().any_host = true);
    wire.target.connect(NEW).unwrap();
    assert!(matches!(wire.fence.proof(0).await, Err(StillOpen::AnyHost)));
    assert_eq!(wire.fence.ask(Verb::Close, 1).await, Answer::Done);
    wire.target.teardown();
    wire.fence.proof(1).await.unwrap();
    assert!(!wire.target.can_write(NEW) && wire.target.connect(NEW).is_err());
}

#[tokio::test]
async fn a_leader_that_is_overtaken_while_it_lets_a_host_in_throws_it_out_again() {
    let wire = Wire::open("overtaken").await;
    assert_eq!(wire.fence.ask(Verb::Close, 1).await, Answer::Done);
    wire.target.set(|state| state.overtaken = true);
    assert!(matches!(wire.fence.admit(NEW, 1).await, Answer::Refused(_)));
    assert!(wire.target.connect(NEW).is_err());
}

#[tokio::test]
async fn a_second_subsystem_with_the_same_device_is_no_proof() {
    let wire = Wire::open("double").await;
    assert_eq!(wire.fence.ask(Verb::Close, 1).await, Answer::Done);
    wire.fence.proof(1).await.unwrap();
    let other = Subsystem { bdevs: vec!["Nvme0n1".to_owned()], ..Subsystem::default() };
    wire.target.set(|state| drop(state.subsystems.insert("nqn.x:other".to_owned(), other)));
    assert!(
        matches!(wire.fence.proof(1).await, Err(StillOpen::Connected(who)) if who.contains("other"))
    );
}

#[tokio::test]
async fn a_target_that_says_something_else_is_asked_again() {
    let wire = Wire::open("strange").await;
    wire.target.set(|state| state.subsystems.clear());
    assert!(
        matches!(wire.fence.ask(Verb::Close, 1).await, Answer::Refused(_)),
        "there is no such device"
    );
    wire.target
        .set(|state| assert_eq!(state.asked, ["nvmf_get_subsystems"], "nothing was changed"));
}
