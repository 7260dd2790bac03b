//! Asks a target's own fence as the controller does, from a shell; for the lab.
//!
//! ```text
//!   ask_fence certificates DIR NAME        an authority, the fence's certificate for NAME, and ours
//!   ask_fence DIR NAME close|report|health NQN GENERATION
//!   ask_fence DIR NAME admit NQN GENERATION HOST-NQN
//!   ask_fence target FILE health                           the fence of a FabricTarget's spec, in JSON,
//!   ask_fence target FILE close|report GENERATION NODE…    and its first device; those nodes may be
//!   ask_fence target FILE admit GENERATION NODE            using it
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
use std::sync::Arc;

use anyhow::{Context as _, bail};
use heal_types::Nqn;
use heal_types::cluster::{Generation, NodeName};
use nvmeof_recoverer::plan::evidence::Evidence;
use nvmeof_recoverer::plan::relocate::Answer;
use nvmeof_recoverer::plan::view::{Device, FenceHealth};
use nvmeof_recoverer_controller::clock;
use nvmeof_recoverer_controller::config::FenceTls;
use nvmeof_recoverer_controller::crd::{self, CephClusterRef, FabricTargetSpec, Transport};
use nvmeof_recoverer_controller::fence::{Ask, Fence, Host, Means, Verb};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        ["certificates", dir, name] => certificates(Path::new(dir), name),
        ["target", file, "health"] => healthy(means(None).of(&target(file)?)).await,
        ["target", file, verb, generation, ref nodes @ ..] => {
            let target = target(file)?;
            let hosts =
                nodes.iter().map(|node| host(&target, node)).collect::<Result<Vec<_>, _>>()?;
            let (verb, holders) = match (verb, &hosts[..]) {
                ("close", _) => (Verb::Close, hosts),
                ("report", _) => (Verb::Report, hosts),
                ("admit", [host]) => (Verb::Admit(host.clone()), Vec::new()),
                _ => bail!("see the head of this program"),
            };
            let first = target.devices.first().context("a target with no device")?;
            let device = Device { subsystem: first.subsystem.clone(), namespace: first.namespace };
            let generation = Generation(generation.parse()?);
            let ask = Ask { verb, device, generation, holders };
            answered(means(None).of(&target).ask(&ask).await, &ask)
        }
        [dir, name, "health"] => healthy(fence(dir, name)).await,
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

async fn healthy(fence: Arc<dyn Fence>) -> anyhow::Result<()> {
    let health = fence.health().await;
    println!("{health:?}");
    anyhow::ensure!(health == FenceHealth::Ready, "it is not ready");
    Ok(())
}

fn target(file: &str) -> anyhow::Result<FabricTargetSpec> {
    let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {file}"))?;
    serde_json::from_str(&text).with_context(|| format!("{file} is no FabricTarget's spec"))
}

fn host(target: &FabricTargetSpec, node: &str) -> anyhow::Result<Host> {
    let listed = target.nodes.iter().find(|it| it.name.as_str() == node);
    let listed = listed.with_context(|| format!("the target does not list {node}"))?;
    Ok(Host { node: listed.name.clone(), host_nqn: Some(listed.host_nqn.clone()) })
}

fn means(tls: Option<FenceTls>) -> Means {
    Means { programs: Path::new("/nonexistent").to_path_buf(), tls }
}

fn fence(dir: &str, name: &str) -> Arc<dyn Fence> {
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
    means(Some(tls)).of(&target)
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
    answered(fence(dir, name).ask(&ask).await, &ask)
}

fn answered(answer: Answer, ask: &Ask) -> anyhow::Result<()> {
    match answer {
        Answer::Done => println!("done"),
        Answer::Seen(report) => {
            println!("{report:?}");
            let holders = ask.holders.iter().map(|it| it.node.clone()).collect::<BTreeSet<_>>();
            let open = Evidence::examine(report, ask.generation, &holders, clock::now().wall).err();
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
