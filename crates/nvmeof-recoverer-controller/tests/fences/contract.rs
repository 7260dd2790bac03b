//! What every fence keeps, whatever it is made of.

use std::path::PathBuf;
use std::sync::Arc;

use heal_types::Nqn;
use heal_types::cluster::{Generation, NodeName};
use nvmeof_recoverer::plan::evidence::{Evidence, StillOpen};
use nvmeof_recoverer::plan::relocate::Answer;
use nvmeof_recoverer::plan::view::{Device, FenceHealth};
use nvmeof_recoverer_controller::clock;
use nvmeof_recoverer_controller::config::FenceTls;
use nvmeof_recoverer_controller::crd::{
    self, AttachableNode, CephClusterRef, FabricTargetSpec, Portal, TargetDevice, Transport,
};
use nvmeof_recoverer_controller::fence::{Ask, Fence, Host, Means, Verb};

pub(crate) const NQN: &str = "nqn.2026-01.org.example:osd-3";
pub(crate) const NAMESPACE: &str = "6c1e5c4a-8b0e-4f5e-9c7b-2a0c3f1d9e11";
/// Where the OSD is, and where it shall be.
pub(crate) const OLD: &str = "nqn.2026-01.org.example:host-a";
pub(crate) const NEW: &str = "nqn.2026-01.org.example:host-b";
pub(crate) const NODES: [(&str, &str, u8); 2] = [("n1", OLD, 0xa1), ("n2", NEW, 0xb2)];

/// A target with writers on it.
pub(crate) trait Ground {
    /// Whether the next write of a host lands; it connects, if it is not connected and is let in.
    fn writes(&self, host: &str) -> bool;
    /// The target gets round to what it said that it would do.
    fn settles(&self);
}

/// A fence, and how it is asked.
pub(crate) struct Asked(pub(crate) Arc<dyn Fence>);

pub(crate) fn host_id(last: u8) -> [u8; 16] {
    let mut id = [0x11; 16];
    id[15] = last;
    id
}

pub(crate) fn uuid(id: [u8; 16]) -> String {
    let hex: Vec<String> = id.iter().map(|byte| format!("{byte:02x}")).collect();
    let hex = hex.concat();
    [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-")
}

/// A target with one device, that both nodes may use.
pub(crate) fn target(fence: crd::Fence, port: u16) -> FabricTargetSpec {
    let node = |(name, nqn, last): &(&str, &str, u8)| AttachableNode {
        name: NodeName::new(*name).unwrap(),
        host_nqn: Nqn::new(*nqn).unwrap(),
        host_id: uuid(host_id(*last)),
    };
    FabricTargetSpec {
        ceph_cluster: CephClusterRef { name: "main".to_owned() },
        crush_host: None,
        transport: Transport::Tcp,
        portals: vec![Portal { address: [127, 0, 0, 1].into(), port }],
        devices: vec![TargetDevice {
            subsystem: device().subsystem,
            namespace: device().namespace,
            osd: None,
        }],
        nodes: NODES.iter().map(node).collect(),
        fence: Some(fence),
    }
}

pub(crate) fn means(tls: Option<FenceTls>) -> Means {
    Means { programs: PathBuf::from("/nonexistent"), tls }
}

fn device() -> Device {
    let namespace = format!("uuid.{NAMESPACE}").parse().unwrap();
    Device { subsystem: Nqn::new(NQN).unwrap(), namespace }
}

pub(crate) fn host(nqn: &str) -> Host {
    let (name, ..) = NODES.iter().find(|(_, it, _)| *it == nqn).unwrap();
    Host { node: NodeName::new(*name).unwrap(), host_nqn: Some(Nqn::new(nqn).unwrap()) }
}

impl Asked {
    pub(crate) async fn ask(&self, verb: Verb, generation: u64) -> Answer {
        self.ask_of(verb, generation, vec![host(OLD)]).await
    }

    pub(crate) async fn ask_of(&self, verb: Verb, generation: u64, holders: Vec<Host>) -> Answer {
        let generation = Generation(generation);
        self.0.ask(&Ask { verb, device: device(), generation, holders }).await
    }

    pub(crate) async fn admit(&self, nqn: &str, generation: u64) -> Answer {
        self.ask(Verb::Admit(host(nqn)), generation).await
    }

    /// What the plan makes of a report.
    pub(crate) async fn proof(&self, generation: u64) -> Result<Evidence, StillOpen> {
        let answer = self.ask(Verb::Report, generation).await;
        let Answer::Seen(report) = answer else { panic!("{answer:?}") };
        let holders = [NodeName::new("n1").unwrap()].into();
        Evidence::examine(report, Generation(generation), &holders, clock::now().wall)
    }
}

/// From the proof on no write lands but those of whoever is admitted, an older token counts for
/// nothing, and everything may be asked twice.
pub(crate) async fn is_kept(fence: &Asked, ground: &dyn Ground) {
    assert_eq!(fence.0.health().await, FenceHealth::Ready);
    assert!(ground.writes(OLD), "nothing is shown on a device that nobody uses");
    assert!(fence.proof(0).await.is_err(), "it is in use");
    for _ in 0..2 {
        assert_eq!(fence.ask(Verb::Close, 7).await, Answer::Done);
        ground.settles();
        fence.proof(7).await.unwrap();
        assert!(!ground.writes(OLD) && !ground.writes(NEW));
    }
    for verb in [Verb::Close, Verb::Report, Verb::Admit(host(OLD))] {
        let answer = fence.ask(verb, 6).await;
        assert!(matches!(answer, Answer::Refused(_)), "an older leader: {answer:?}");
    }
    assert!(!ground.writes(OLD));
    for _ in 0..2 {
        assert_eq!(fence.admit(NEW, 7).await, Answer::Done);
        assert!(ground.writes(NEW) && !ground.writes(OLD));
    }
    assert!(fence.proof(7).await.is_err(), "somebody was let in");
    assert_eq!(fence.ask_of(Verb::Close, 12, vec![host(NEW)]).await, Answer::Done);
    ground.settles();
    fence.proof(12).await.unwrap();
    assert!(!ground.writes(NEW));
    assert_eq!(fence.admit(OLD, 12).await, Answer::Done);
    assert!(ground.writes(OLD) && !ground.writes(NEW));
    assert!(matches!(fence.admit(NEW, 7).await, Answer::Refused(_)));
}
