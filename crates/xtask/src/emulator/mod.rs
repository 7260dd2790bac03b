//! Serves the emulated KumoScale provisioner, and prints every request as it comes.
//!
//! ```text
//!   cargo xtask emulator --directory target/emulator
//!     ca.pem client.pem      certificates made on the spot: what nvme-heald is to believe and to show
//!     provisioner.conf       the vendor's own file, for it
//!   1795258364.093 GET /volumes/8e0a… 200
//! ```
//!
//! The volume is made from the command line, and its replicas are on paper; or both are a lab's,
//! where "add replica" makes a real target ([`scene`]).

mod scene;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context;
use vendor_emulator::certificates::Certificates;
use vendor_emulator::kumoscale::{
    Access, KumoScale, Model, OnPaper, Options, Replicas, Stage, Targets,
};
use vendor_emulator::server::{Server, ServerOptions};

use scene::{ByProgram, Scene};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Where to listen.
    #[arg(long, default_value = "127.0.0.1:8090")]
    address: SocketAddr,
    /// The volume and the backends, in a file, instead of the four options below.
    #[arg(long, requires = "replicas_by")]
    scene: Option<PathBuf>,
    /// A program that makes what replicas are made of: `make UUID BACKEND`, `delete UUID BACKEND`.
    #[arg(long, requires = "scene")]
    replicas_by: Option<PathBuf>,
    /// Where certificates and an example configuration go.
    #[arg(long, default_value = "target/emulator")]
    directory: PathBuf,
    /// The volume's UUID: that of the array, where the provisioner knows it.
    #[arg(long, default_value = "8e0a1b6c-1f2e-3d4c-5b6a-798800112233")]
    volume: String,
    /// The volume's name: that of the array.
    #[arg(long, default_value = "db")]
    alias: String,
    /// How many replicas it has.
    #[arg(long, default_value_t = 2)]
    replicas: usize,
    /// How many more there is room for.
    #[arg(long, default_value_t = 2)]
    spares: usize,
    /// The host it is published to.
    #[arg(long, default_value = "emulated-host")]
    host: String,
    /// Only whoever has this token may call.
    #[arg(long)]
    token: Option<String>,
    /// Only whoever shows the client's certificate is talked to.
    #[arg(long)]
    client_certificate: bool,
    /// One target for each backend, as versions up to 3.21 have it.
    #[arg(long)]
    target_per_backend: bool,
    /// A missing replica is on no backend.
    #[arg(long)]
    missing_is_nowhere: bool,
    /// The state a replica is made in.
    #[arg(long, default_value = "Synchronizing")]
    made: String,
    /// The room of a deleted replica that was written to is not used again. The contract suite
    /// counts spares, and needs this.
    #[arg(long)]
    no_reclaim: bool,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(serve(args))
}

async fn serve(args: &Args) -> anyhow::Result<()> {
    let ip = args.address.ip().to_string();
    let certificates = Certificates::make(&[ip.as_str(), "localhost", "127.0.0.1"])
        .context("cannot make certificates")?;
    let options = Options {
        targets: if args.target_per_backend { Targets::PerBackend } else { Targets::PerHost },
        access: args.token.clone().map_or(Access::Open, Access::Token),
        missing_is_nowhere: args.missing_is_nowhere,
        made: args.made.clone(),
        reclaim: !args.no_reclaim,
        max_replicas: if args.no_reclaim { 8 } else { 4 },
        ..Options::default()
    };
    let (model, replicas): (Model, Arc<dyn Replicas>) = match (&args.scene, &args.replicas_by) {
        (Some(path), Some(program)) => {
            (Scene::read(path)?.model(), Arc::new(ByProgram(program.clone())))
        }
        (Some(_) | None, _) => {
            let stage = Stage {
                uuid: args.volume.clone(),
                alias: args.alias.clone(),
                replicas: args.replicas,
                capacity: 100,
                spares: vec![100; args.spares],
                host: args.host.clone(),
            };
            (stage.model(), Arc::new(OnPaper))
        }
    };
    let service = Arc::new(KumoScale::new(options, model, replicas));
    let server_options = ServerOptions { client_certificate: args.client_certificate };
    let server = Server::start(args.address, &certificates, server_options, service).await?;
    server.tell(Box::new(|line| println!("{line}")));
    write_files(args, &certificates, server.address())?;
    println!(
        "emulated KumoScale at https://{}, files in {}",
        server.address(),
        args.directory.display()
    );
    std::future::pending().await
}

fn write_files(
    args: &Args,
    certificates: &Certificates,
    address: SocketAddr,
) -> anyhow::Result<()> {
    let directory = &args.directory;
    std::fs::create_dir_all(directory)
        .with_context(|| format!("cannot make {}", directory.display()))?;
    let client = directory.join("client.pem");
    let token = args.token.as_ref().map(|token| format!("token = {token}\n")).unwrap_or_default();
    let conf = format!(
        "[DEFAULT]\nprov_ip = {}\nprov_port = {}\ncert_file = {}\n{token}",
        address.ip(),
        address.port(),
        std::path::absolute(&client)?.display()
    );
    for (name, text) in [
        ("ca.pem", certificates.authority_pem.as_str()),
        ("client.pem", certificates.client_pem.as_str()),
        ("provisioner.conf", conf.as_str()),
        ("pin", certificates.server_pin.as_str()),
    ] {
        let path = directory.join(name);
        std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}
