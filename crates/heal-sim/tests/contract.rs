//! The provisioner's contract suite, run on the provisioner that exists only in memory.
#![allow(clippy::unwrap_used, reason = "a test may end loudly, its helpers too")]

use std::sync::Arc;

use heal_provisioner::contract::{self, Fixture, FixtureWhy, KnownBy, Stage, Standing};
use heal_provisioner::{Provisioner, async_trait};
use heal_sim::FakeProvisioner;
use heal_sim::port::SharedProvisioner;
use heal_types::{
    Alias, ArrayId, Nqn, Portal, Replica, ReplicaId, ReplicaState, SectorCount, Target,
    TransportKind, Volume, VolumeId, VolumeQuery,
};

#[derive(Default)]
struct InMemory(SharedProvisioner);

fn replica(n: usize, size: SectorCount) -> Replica {
    let portal = Portal {
        transport: TransportKind::Tcp,
        address: format!("192.0.2.{n}").parse().unwrap(),
        port: 4420,
        host_address: None,
        host_interface: None,
    };
    Replica {
        id: ReplicaId::new(format!("replica-{n}")).unwrap(),
        state: ReplicaState::Available,
        target: Target {
            nqn: Nqn::new(format!("nqn.2014-08.com.example:replica-{n}")).unwrap(),
            namespace: format!("uuid.00000000-0000-4000-8000-{n:012}").parse().unwrap(),
            portals: vec![portal],
            size: Some(size),
        },
    }
}

#[async_trait]
impl Fixture for InMemory {
    async fn set_up(&mut self, stage: &Stage) -> Result<Standing, FixtureWhy> {
        let array = ArrayId::from_bytes([0x5a; 16]);
        let alias = Alias::new("stage").unwrap();
        let count = usize::from(stage.replicas);
        let volume = Volume {
            id: VolumeId::new("volume-1").unwrap(),
            array: matches!(stage.known_by, KnownBy::Array | KnownBy::Both).then_some(array),
            alias: matches!(stage.known_by, KnownBy::Alias | KnownBy::Both).then(|| alias.clone()),
            copies: stage.replicas,
            replicas: (1..=count).map(|n| replica(n, stage.size)).collect(),
            grace: None,
        };
        let spares = (count + 1..).zip(&stage.spares).map(|(n, size)| replica(n, *size)).collect();
        let mut provisioner = FakeProvisioner::new();
        provisioner.add_volume(volume, spares);
        self.0 = SharedProvisioner::new(provisioner);
        Ok(Standing {
            provisioner: Arc::new(self.0.clone()),
            query: VolumeQuery { array, alias: Some(alias) },
        })
    }

    async fn go_away(&mut self) -> Result<(), FixtureWhy> {
        self.0.lock().mood.down = true;
        Ok(())
    }

    async fn come_back(&mut self) -> Result<(), FixtureWhy> {
        self.0.lock().mood.down = false;
        Ok(())
    }

    /// Everything it knows is durable, by definition: what starts again is the same value.
    async fn restart(&mut self) -> Result<Arc<dyn Provisioner>, FixtureWhy> {
        let durable = self.0.lock().clone();
        self.0 = SharedProvisioner::new(durable);
        Ok(Arc::new(self.0.clone()))
    }
}

#[tokio::test]
async fn the_provisioner_in_memory_keeps_every_promise_of_the_contract() {
    let report = contract::run(&mut InMemory::default()).await;
    assert!(report.passed(), "{report}");
    assert!(report.cases.len() > 20);
}
