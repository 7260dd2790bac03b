//! The `kumoscale` backend against the emulated provisioner.

use std::sync::Arc;

use heal_provisioner::Provisioner;
use heal_provisioner::client::{ClientOptions, CredentialOptions, Endpoint, TlsOptions};
use heal_provisioner::contract::{Fixture, FixtureWhy, KnownBy, Stage, Standing};
use heal_provisioner::kumoscale::{KumoScale, KumoScaleOptions};
use heal_types::{Alias, ArrayId, Volume, VolumeQuery};
use vendor_emulator::certificates::Certificates;
use vendor_emulator::kumoscale::{self as emulated, OnPaper, Options};
use vendor_emulator::server::{Server, ServerOptions};

use super::Desk;

pub(crate) const ARRAY: &str = "8e0a1b6c:1f2e3d4c:5b6a7988:00112233";
pub(crate) const UUID: &str = "8e0a1b6c-1f2e-3d4c-5b6a-798800112233";
pub(crate) const HOST: &str = "6f3a-host";

/// A provisioner, served, and a place for files.
pub(crate) struct Emulated {
    pub(crate) desk: Desk,
    pub(crate) certificates: Certificates,
    pub(crate) service: Arc<emulated::KumoScale>,
    pub(crate) server: Server,
    pub(crate) max_replicas: usize,
}

impl Emulated {
    /// A volume of two replicas and one backend with room.
    pub(crate) async fn start(options: Options) -> Self {
        Self::of(options, &stage(UUID, "db", 2, 100, &[100]), ServerOptions::default()).await
    }

    pub(crate) async fn of(
        options: Options,
        stage: &emulated::Stage,
        server: ServerOptions,
    ) -> Self {
        let desk = Desk::new();
        let certificates = Certificates::make(&["127.0.0.1", "localhost"]).unwrap();
        desk.put("ca.pem", &certificates.authority_pem);
        desk.put("client.pem", &certificates.client_pem);
        let replicas = Arc::new(OnPaper);
        let service = Arc::new(emulated::KumoScale::new(options, stage.model(), replicas));
        let any = "127.0.0.1:0".parse().unwrap();
        let server = Server::start(any, &certificates, server, service.clone()).await.unwrap();
        Self { desk, certificates, service, server, max_replicas: 4 }
    }

    pub(crate) fn endpoint(&self) -> Endpoint {
        Endpoint::parse(&self.server.address().to_string(), 0).unwrap()
    }

    pub(crate) fn client(&self) -> ClientOptions {
        let authorities = Some(self.desk.directory.join("ca.pem"));
        ClientOptions {
            endpoints: vec![self.endpoint()],
            tls: TlsOptions { authorities, ..TlsOptions::default() },
            credentials: CredentialOptions::None,
        }
    }

    pub(crate) fn backend(&self) -> Arc<dyn Provisioner> {
        self.backend_with(self.client())
    }

    pub(crate) fn backend_with(&self, client: ClientOptions) -> Arc<dyn Provisioner> {
        let state = self.desk.directory.join("kumoscale-state.ron");
        let mut options = KumoScaleOptions::new(client, Some(HOST.to_owned()), state);
        options.max_replicas = self.max_replicas;
        Arc::new(KumoScale::new(options))
    }
}

pub(crate) fn query() -> VolumeQuery {
    VolumeQuery { array: ARRAY.parse::<ArrayId>().unwrap(), alias: Some(Alias::new("db").unwrap()) }
}

pub(crate) fn stage(
    uuid: &str,
    alias: &str,
    replicas: usize,
    capacity: u64,
    spares: &[u64],
) -> emulated::Stage {
    emulated::Stage {
        uuid: uuid.to_owned(),
        alias: alias.to_owned(),
        replicas,
        capacity,
        spares: spares.to_vec(),
        host: HOST.to_owned(),
    }
}

/// Finds the volume of the stage.
pub(crate) async fn find(backend: &dyn Provisioner) -> Volume {
    let call = heal_types::ProvisionerCall::FindVolume(query());
    let limit = std::time::Duration::from_secs(10);
    match heal_provisioner::call(backend, &call, limit).await {
        Ok(heal_types::ProvisionerAnswer::Volume(Some(volume))) => volume,
        other => panic!("the volume is not found: {other:?}"),
    }
}

/// Stands the emulated provisioner up for every case.
pub(crate) struct OnTheWire {
    pub(crate) options: Options,
    pub(crate) standing: Option<Emulated>,
}

impl OnTheWire {
    pub(crate) fn new(options: Options) -> Self {
        // A spare is a spare for one use, and the product's limit of four is no promise of the
        // contract.
        let options = Options { reclaim: false, max_replicas: 8, ..options };
        Self { options, standing: None }
    }

    fn standing(&self) -> &Emulated {
        self.standing.as_ref().unwrap()
    }
}

#[heal_provisioner::async_trait]
impl Fixture for OnTheWire {
    async fn set_up(&mut self, wanted: &Stage) -> Result<Standing, FixtureWhy> {
        let other = "11111111-2222-4333-8444-555555555555";
        let (uuid, alias) = match wanted.known_by {
            KnownBy::Array => (UUID, "another-name"),
            KnownBy::Alias => (other, "db"),
            KnownBy::Both => (UUID, "db"),
        };
        let spares: Vec<u64> = wanted.spares.iter().map(|size| size.0).collect();
        let replicas = usize::from(wanted.replicas);
        let stage = stage(uuid, alias, replicas, wanted.size.0, &spares);
        let mut emulated =
            Emulated::of(self.options.clone(), &stage, ServerOptions::default()).await;
        emulated.max_replicas = 8;
        let provisioner = emulated.backend();
        self.standing = Some(emulated);
        Ok(Standing { provisioner, query: query() })
    }

    async fn go_away(&mut self) -> Result<(), FixtureWhy> {
        self.standing().server.set_away(true);
        Ok(())
    }

    async fn come_back(&mut self) -> Result<(), FixtureWhy> {
        self.standing().server.set_away(false);
        Ok(())
    }

    async fn restart(&mut self) -> Result<Arc<dyn Provisioner>, FixtureWhy> {
        Ok(self.standing().backend())
    }
}
