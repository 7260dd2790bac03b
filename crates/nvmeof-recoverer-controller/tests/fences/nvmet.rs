//! The `nvmet` fence, against the daemon with a target in a process.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use nvmeof_recoverer::plan::relocate::Answer;
use nvmeof_recoverer::plan::view::FenceHealth;
use nvmeof_recoverer_controller::crd;
use nvmeof_recoverer_controller::fence::Verb;
use nvmet_fenced::config::Config;
use nvmet_fenced::record::Records;
use nvmet_fenced::server;
use nvmet_fenced::tree::fake::{Connection, Fake};
use tokio::net::TcpListener;

use crate::contract::{self, Asked, Ground, NQN, OLD, means, target};
use crate::scratch::Scratch;

const DEVICE: &str = "/dev/sdx";

struct Wire {
    target: Arc<Fake>,
    connections: Mutex<BTreeMap<String, Connection>>,
    fence: Asked,
    _scratch: Scratch,
}

impl Ground for Wire {
    fn writes(&self, host: &str) -> bool {
        let mut connections = self.connections.lock().unwrap();
        let lands = |by: &Connection| self.target.write_by(by, 0).is_ok();
        if connections.get(host).is_some_and(lands) {
            return true;
        }
        let Ok(fresh) = self.target.connect(host, NQN) else { return false };
        let written = lands(&fresh);
        connections.insert(host.to_owned(), fresh);
        written
    }

    fn settles(&self) {}
}

impl Wire {
    /// A daemon whose certificate says `name`; the controller looks for 127.0.0.1.
    async fn open(test: &str, name: &str) -> Self {
        let scratch = Scratch::with_certificates(&format!("nvmet-{test}"), name);
        std::fs::create_dir_all(scratch.path("state")).unwrap();
        let text = format!(
            "(certificate: {:?}, key: {:?}, clients: {:?})",
            scratch.path("server"),
            scratch.path("server.key"),
            scratch.path("authority")
        );
        std::fs::write(scratch.path("config"), text).unwrap();
        let config = Config::load(&scratch.path("config")).unwrap();
        let fake = Arc::new(Fake::default().with(NQN, DEVICE, OLD));
        let tree: Arc<dyn nvmet_fenced::tree::Tree> = Arc::clone(&fake) as _;
        let records = Records::at(&scratch.dir().join("state"));
        let daemon = nvmet_fenced::fence::Fence::new(tree, records, Vec::new(), None);
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let tls = server::tls(&config).unwrap();
        tokio::spawn(server::serve(listener, tls, Arc::new(daemon)));
        let spec = crd::Fence::Nvmet(crd::Nvmet { host: "127.0.0.1".to_owned(), port });
        let fence = Asked(means(Some(scratch.tls())).of(&target(spec, 4420)));
        Self { target: fake, connections: Mutex::default(), fence, _scratch: scratch }
    }
}

#[tokio::test]
async fn it_keeps_the_contract() {
    let wire = Wire::open("contract", "127.0.0.1").await;
    contract::is_kept(&wire.fence, &wire).await;
}

#[tokio::test]
async fn a_daemon_that_is_somebody_else_is_not_believed() {
    let wire = Wire::open("somebody", "another.example").await;
    assert_eq!(wire.fence.0.health().await, FenceHealth::Silent);
    assert!(matches!(wire.fence.ask(Verb::Close, 1).await, Answer::Again(_)));
    assert!(wire.writes(OLD), "nothing was done");
}
