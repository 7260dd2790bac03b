//! The `nvmet` fence, from the controller's end: over a wire, against the daemon with a target in a
//! process. What it proves is read by the plan itself.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "scratch files of these tests"
)]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use heal_types::Nqn;
use heal_types::cluster::{Generation, NodeName};
use nvmeof_recoverer::plan::evidence::{Evidence, StillOpen};
use nvmeof_recoverer::plan::relocate::Answer;
use nvmeof_recoverer::plan::view::{Device, FenceHealth};
use nvmeof_recoverer_controller::clock;
use nvmeof_recoverer_controller::config::FenceTls;
use nvmeof_recoverer_controller::crd;
use nvmeof_recoverer_controller::fence::{Ask, Fence, Host, Means, Verb};
use nvmet_fenced::config::Config;
use nvmet_fenced::record::Records;
use nvmet_fenced::server;
use nvmet_fenced::tree::fake::Fake;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use tokio::net::TcpListener;

const NQN: &str = "nqn.2026-01.org.example:osd-3";
const OLD: &str = "nqn.2026-01.org.example:host-a";
const NEW: &str = "nqn.2026-01.org.example:host-b";
const DEVICE: &str = "/dev/sdx";

struct Wire {
    target: Arc<Fake>,
    fence: Arc<dyn Fence>,
    dir: PathBuf,
}

impl Drop for Wire {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

fn certificates(dir: &Path, name: &str) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    std::fs::write(dir.join("authority"), params.self_signed(&key).unwrap().pem()).unwrap();
    let issuer = Issuer::new(params, key);
    for (file, name) in [("server", name), ("client", "recoverer.example")] {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &issuer).unwrap();
        std::fs::write(dir.join(file), certificate.pem()).unwrap();
        std::fs::write(dir.join(format!("{file}.key")), key.serialize_pem()).unwrap();
    }
}

impl Wire {
    /// A daemon whose certificate says `name`; the controller looks for 127.0.0.1.
    async fn open(test: &str, name: &str) -> Self {
        let dir =
            std::env::temp_dir().join(format!("recoverer-nvmet-{}-{test}", std::process::id()));
        std::fs::create_dir_all(dir.join("state")).unwrap();
        certificates(&dir, name);
        let path = |file: &str| dir.join(file);
        let text = format!(
            "(certificate: {:?}, key: {:?}, clients: {:?})",
            path("server"),
            path("server.key"),
            path("authority")
        );
        std::fs::write(path("config"), text).unwrap();
        let config = Config::load(&path("config")).unwrap();
        let target = Arc::new(Fake::default().with(NQN, DEVICE, OLD));
        let tree: Arc<dyn nvmet_fenced::tree::Tree> = Arc::clone(&target) as _;
        let records = Records::at(&path("state"));
        let daemon = nvmet_fenced::fence::Fence::new(tree, records, Vec::new(), None);
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let tls = server::tls(&config).unwrap();
        tokio::spawn(server::serve(listener, tls, Arc::new(daemon)));
        let tls = FenceTls {
            authority: path("authority"),
            certificate: path("client"),
            key: path("client.key"),
        };
        let spec = crd::Fence::Nvmet(crd::Nvmet { host: "127.0.0.1".to_owned(), port });
        let means = Means { programs: PathBuf::from("/nonexistent"), tls: Some(tls) };
        Self { target, fence: means.of(Some(&spec)), dir }
    }

    async fn ask(&self, verb: Verb, generation: u64) -> Answer {
        let namespace = "uuid.6c1e5c4a-8b0e-4f5e-9c7b-2a0c3f1d9e11".parse().unwrap();
        let device = Device { subsystem: Nqn::new(NQN).unwrap(), namespace };
        let generation = Generation(generation);
        self.fence.ask(&Ask { verb, device, generation, holders: vec![host(OLD)] }).await
    }

    /// What the plan makes of a report.
    async fn proof(&self, generation: u64) -> Result<Evidence, StillOpen> {
        let answer = self.ask(Verb::Report, generation).await;
        let Answer::Seen(report) = answer else { panic!("{answer:?}") };
        let holders = [NodeName::new("n1").unwrap()].into();
        Evidence::examine(report, Generation(generation), &holders, clock::now().wall)
    }
}

fn host(nqn: &str) -> Host {
    Host { node: NodeName::new("n1").unwrap(), host_nqn: Some(Nqn::new(nqn).unwrap()) }
}

#[tokio::test]
async fn what_it_proves_is_that_the_old_hosts_next_write_fails() {
    let wire = Wire::open("contract", "127.0.0.1").await;
    assert_eq!(wire.fence.health().await, FenceHealth::Ready);
    let old = wire.target.connect(OLD, NQN).unwrap();
    wire.target.write_by(&old, 0).unwrap();
    assert!(wire.proof(0).await.is_err(), "it is connected");
    assert_eq!(wire.ask(Verb::Close, 7).await, Answer::Done);
    wire.proof(7).await.unwrap();
    assert!(wire.target.write_by(&old, 1).is_err());
    assert_eq!(wire.ask(Verb::Admit(host(NEW)), 7).await, Answer::Done);
    let new = wire.target.connect(NEW, NQN).unwrap();
    wire.target.write_by(&new, 0).unwrap();
    assert!(wire.target.write_by(&old, 2).is_err());
    assert!(matches!(wire.ask(Verb::Close, 6).await, Answer::Refused(_)), "an older leader");
}

#[tokio::test]
async fn a_daemon_that_is_somebody_else_is_not_believed() {
    let wire = Wire::open("somebody", "another.example").await;
    assert_eq!(wire.fence.health().await, FenceHealth::Silent);
    assert!(matches!(wire.ask(Verb::Close, 1).await, Answer::Again(_)));
    assert!(wire.target.connect(OLD, NQN).is_ok(), "nothing was done");
}
