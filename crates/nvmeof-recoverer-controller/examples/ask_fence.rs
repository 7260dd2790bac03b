//! Asks a target's own fence as the controller does, from a shell; for the lab.
//!
//! ```text
//!   ask_fence certificates DIR NAME        an authority, the fence's certificate for NAME, and ours
//!   ask_fence DIR NAME close|report|health NQN GENERATION
//!   ask_fence DIR NAME admit NQN GENERATION HOST-NQN
//! ```
//!
//! A report is examined as the plan examines it: only what proves that nobody can write ends with
//! 0.
#![allow(
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a tool of the lab, that ships nowhere"
)]

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context as _, bail};
use heal_types::Nqn;
use heal_types::cluster::{Generation, NodeName};
use nvmeof_recoverer::plan::evidence::Evidence;
use nvmeof_recoverer::plan::relocate::Answer;
use nvmeof_recoverer::plan::view::{Device, FenceHealth};
use nvmeof_recoverer_controller::clock;
use nvmeof_recoverer_controller::config::FenceTls;
use nvmeof_recoverer_controller::crd::{self, CephClusterRef, FabricTargetSpec, Transport};
use nvmeof_recoverer_controller::fence::{Ask, Host, Means, Verb};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        ["certificates", dir, name] => certificates(Path::new(dir), name),
        [dir, name, "health"] => {
            let health = fence(dir, name).health().await;
            println!("{health:?}");
            anyhow::ensure!(health == FenceHealth::Ready, "it is not ready");
            Ok(())
        }
        [dir, name, "admit", nqn, generation, host] => {
            let host_nqn = Some(Nqn::new(host)?);
            let host = Host { node: NodeName::new("node")?, host_nqn };
            asked(dir, name, Verb::Admit(host), nqn, generation).await
        }
        [dir, name, "close", nqn, generation] => {
            asked(dir, name, Verb::Close, nqn, generation).await
        }
        [dir, name, "report", nqn, generation] => {
            asked(dir, name, Verb::Report, nqn, generation).await
        }
        _ => bail!("see the head of this program"),
    }
}

fn fence(dir: &str, name: &str) -> std::sync::Arc<dyn nvmeof_recoverer_controller::fence::Fence> {
    let path = |file: &str| Path::new(dir).join(file);
    let tls = FenceTls {
        authority: path("authority.crt"),
        certificate: path("client.crt"),
        key: path("client.key"),
    };
    let fence = crd::Fence::Nvmet(crd::Nvmet { host: name.to_owned(), port: 4421 });
    let target = FabricTargetSpec {
        ceph_cluster: CephClusterRef { name: "lab".to_owned() },
        crush_host: None,
        transport: Transport::Tcp,
        portals: Vec::new(),
        devices: Vec::new(),
        nodes: Vec::new(),
        fence: Some(fence),
    };
    Means { programs: Path::new("/nonexistent").to_path_buf(), tls: Some(tls) }.of(&target)
}

async fn asked(
    dir: &str,
    name: &str,
    verb: Verb,
    nqn: &str,
    generation: &str,
) -> anyhow::Result<()> {
    let generation = Generation(generation.parse()?);
    let namespace = "uuid.6c1e5c4a-8b0e-4f5e-9c7b-2a0c3f1d9e11".parse()?;
    let device = Device { subsystem: Nqn::new(nqn)?, namespace };
    let ask = Ask { verb, device, generation, holders: Vec::new() };
    match fence(dir, name).ask(&ask).await {
        Answer::Done => println!("done"),
        Answer::Seen(report) => {
            println!("{report:?}");
            let now = clock::now().wall;
            let open = Evidence::examine(report, generation, &BTreeSet::new(), now).err();
            anyhow::ensure!(open.is_none(), "{}", open.map_or(String::new(), |it| it.to_string()));
        }
        answer @ (Answer::Again(_) | Answer::Refused(_) | Answer::Label(_)) => bail!("{answer:?}"),
    }
    Ok(())
}

fn certificates(dir: &Path, name: &str) -> anyhow::Result<()> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    // Machines of a lab have no clock worth mentioning.
    params.not_before = rcgen::date_time_ymd(2000, 1, 1);
    let authority = params.self_signed(&key)?;
    let issuer = Issuer::new(params, key);
    let write = |file: &str, text: String| {
        std::fs::write(dir.join(file), text).with_context(|| format!("cannot write {file}"))
    };
    write("authority.crt", authority.pem())?;
    for (file, name) in [("server", name), ("client", "recoverer.example")] {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(vec![name.to_owned()])?;
        params.not_before = rcgen::date_time_ymd(2000, 1, 1);
        let certificate = params.signed_by(&key, &issuer)?;
        write(&format!("{file}.crt"), certificate.pem())?;
        write(&format!("{file}.key"), key.serialize_pem())?;
    }
    Ok(())
}
