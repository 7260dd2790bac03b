//! `cargo xtask cluster`: a real API server for the recoverer's scenarios, on this machine alone.
//!
//! ```text
//!   Debian's source package ─► build (once, cached) ─► etcd ◄── kube-apiserver ◄── kube-controller-manager
//!                                                                    ▲
//!           cargo test --test cluster: replicas of the controller ───┤
//!             kubelets and a Ceph that are stand-ins ────────────────┘
//! ```
//!
//! A fake API server agrees with whoever wrote it. What a resource version, a field selector, a
//! JSON patch with a `test` or a finalizer really does, only the real one says; so the real one
//! runs here, with Deployments, Jobs and garbage collection by the real controllers. What is not
//! real: nodes.
//!
//! The price: Debian has no binary of it, so it is built, once, in some minutes. It is Kubernetes
//! 1.20, the last one whose source package is whole; what newer servers do beyond it is not shown
//! here.

mod build;
mod chart;
mod rights;
mod server;

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail};
use clap::Subcommand;

use crate::lab::command::{exists, run as run_program};
use crate::workspace;
use server::Server;

const CRATE: &str = "nvmeof-recoverer-controller";

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Build the API server, or say that it is there.
    Prepare,
    /// Start it, and say how to reach it.
    Start,
    /// Stop what `start` started.
    Stop,
    /// Run the scenarios that have a real Ceph as well.
    Ceph {
        /// Print what the replicas and stand-ins say.
        #[arg(long, short)]
        verbose: bool,
    },
    /// Run the scenarios whose names hold the pattern, on a fresh one.
    Test {
        pattern: Option<String>,
        /// Print what the replicas and stand-ins say.
        #[arg(long, short)]
        verbose: bool,
    },
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    match &args.task {
        Task::Prepare => {
            let programs = build::prepare()?;
            println!("cluster: {}", programs.display());
        }
        Task::Start => {
            let server = Server::start(&build::prepare()?)?;
            println!("cluster: export KUBECONFIG={}", server.kubeconfig().display());
            println!("cluster: ends with `cargo xtask cluster stop`");
            server.leave();
        }
        Task::Stop => println!("cluster: {} processes ended", server::stop()?),
        Task::Ceph { verbose } => show(test(&Wanted::Ceph, *verbose)?)?,
        Task::Test { pattern, verbose } => {
            let wanted = pattern.clone().map_or(Wanted::All, Wanted::Named);
            show(test(&wanted, *verbose)?)?;
        }
    }
    Ok(())
}

fn show((passed, said): (bool, String)) -> anyhow::Result<()> {
    if !passed {
        bail!("scenarios failed");
    }
    let figures = said.lines().filter(|line| line.starts_with("FIGURE "));
    figures.for_each(|line| println!("{line}"));
    Ok(())
}

/// Which scenarios.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// All but those that want a real Ceph.
    All,
    /// Those that do.
    Ceph,
    /// Whose names hold this.
    Named(String),
}

/// The module of those that want a real Ceph.
const WITH_CEPH: &str = "stores::";

fn has_ceph() -> anyhow::Result<()> {
    for program in ["ceph", "ceph-mon", "ceph-mgr", "ceph-osd", "rados", "unshare"] {
        anyhow::ensure!(
            exists(program),
            "{program} is not here: apt-get install --no-install-recommends ceph-mon ceph-mgr \
             ceph-osd ceph-common util-linux"
        );
    }
    Ok(())
}

/// Runs the scenarios on a server of their own: whether all passed, and what cargo printed.
pub(crate) fn test(wanted: &Wanted, verbose: bool) -> anyhow::Result<(bool, String)> {
    if *wanted == Wanted::Ceph {
        has_ceph()?;
    }
    let programs = build::prepare()?;
    println!("cluster: building the controller and its scenarios");
    let stand_in = ["build", "--quiet", "-p", CRATE, "--example", "stand_in"];
    run_program(workspace::cargo().args(stand_in).current_dir(workspace::root()))?;
    let scenarios = ["test", "--quiet", "-p", CRATE, "--test", "cluster", "--no-run"];
    run_program(workspace::cargo().args(scenarios).current_dir(workspace::root()))?;
    let server = Server::start(&programs)?;
    let mut command = workspace::cargo();
    command
        .args(["test", "--quiet", "-p", CRATE, "--test", "cluster", "--"])
        // One after another: each counts nodes, and there is one cluster.
        .args(["--ignored", "--test-threads", "1", "--format", "pretty", "--show-output"])
        .args(match wanted {
            Wanted::All => vec!["--skip", WITH_CEPH],
            Wanted::Ceph => vec![WITH_CEPH],
            Wanted::Named(pattern) => vec![pattern.as_str()],
        })
        .env("CLUSTER", server.dir())
        .env("KUBECONFIG", server.kubeconfig())
        .current_dir(workspace::root());
    if verbose {
        command.arg("--nocapture");
    }
    let (mut passed, mut said) = follow(&mut command)?;
    if *wanted == Wanted::All {
        for (sentence, found) in
            [(rights::SENTENCE, rights::check(&server)), (chart::SENTENCE, chart::check(&server))]
        {
            let found = found.unwrap_or_else(|error| vec![format!("{error:#}")]);
            passed &= found.is_empty();
            tell(sentence, &found, &mut said);
        }
    }
    if verbose || !passed {
        print!("{said}");
    }
    Ok((passed, said))
}

/// What a check found, in the words of a test, for whoever reads both.
fn tell(sentence: &str, found: &[String], said: &mut String) {
    let verdict = if found.is_empty() { "ok" } else { "FAILED" };
    let line = format!("test cluster::{sentence} ... {verdict}\n");
    print!("{line}");
    found.iter().for_each(|it| said.push_str(&format!("{it}\n")));
    said.push_str(&line);
}

/// Runs cargo to its end and says meanwhile how each scenario ended: whether all is well, and all
/// that was printed.
fn follow(command: &mut Command) -> anyhow::Result<(bool, String)> {
    let mut cargo = command.stdout(Stdio::piped()).spawn().context("cannot start cargo")?;
    let mut said = String::new();
    let out = cargo.stdout.take().context("cargo has no output")?;
    for line in BufReader::new(out).lines() {
        let line = line.context("cannot read what cargo prints")?;
        if line.starts_with("test ") {
            println!("{line}");
        }
        said.push_str(&line);
        said.push('\n');
    }
    Ok((cargo.wait().context("cargo is lost")?.success(), said))
}
