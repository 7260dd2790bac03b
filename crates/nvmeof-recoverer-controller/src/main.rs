//! `nvmeof-recoverer`: the controller, what runs in its Jobs, and the operator's command.
#![forbid(unsafe_code)]

mod cli;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use heal_types::cluster::{OsdId, RelocationId};
use nvmeof_recoverer_controller::ceph::{Ceph16, Command};
use nvmeof_recoverer_controller::config::Config;
use nvmeof_recoverer_controller::controller::{self, Metrics};
use nvmeof_recoverer_controller::health;
use nvmeof_recoverer_controller::nodejob::Said;
use nvmeof_recoverer_controller::nodejob::node::{self, Connect};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

/// Moves Ceph OSDs whose devices are NVMe-oF namespaces off failed nodes.
#[derive(Debug, Parser)]
#[command(name = "nvmeof-recoverer", version)]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Run a replica of the controller.
    Controller {
        /// The configuration.
        #[arg(long, default_value = "/etc/nvmeof-recoverer/config.ron")]
        config: PathBuf,
        /// The name of this replica; its pod's, as a rule.
        #[arg(long, env = "POD_NAME")]
        identity: String,
    },
    /// Move OSDs from one node to another.
    OsdMove(cli::OsdMove),
    /// Say where each OSD could go, and why not elsewhere.
    Plan {
        /// Only this one.
        #[arg(long)]
        osd: Option<OsdId>,
        #[command(flatten)]
        place: cli::Where,
    },
    /// Show targets and moves.
    Status {
        #[command(flatten)]
        place: cli::Where,
    },
    /// Say that nodes cannot write any more, to a move in `FenceRequired`.
    Fenced(cli::Fenced),
    /// End a move, as far as it can be ended.
    Abort {
        /// The move.
        relocation: RelocationId,
        #[command(flatten)]
        place: cli::Where,
    },
    /// Put OSDs into the CRUSH buckets of their targets; says first what that would move.
    Adopt {
        #[command(flatten)]
        how: cli::Adopt,
        /// The controller's configuration: how Ceph is asked.
        #[arg(long, default_value = "/etc/nvmeof-recoverer/config.ron")]
        config: PathBuf,
    },
    /// Make targets from a list; prints them first.
    Import(cli::Import),
    /// Print the definitions of our objects.
    Crds,
    /// What runs on a node, in a Job.
    #[command(hide = true)]
    Node {
        #[command(subcommand)]
        task: NodeTask,
    },
}

#[derive(Debug, Subcommand)]
enum NodeTask {
    /// Connect a device, and say what lies on it.
    Connect(Connect),
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    let arguments = as_plugin(std::env::args_os().collect());
    match run(Cli::parse_from(arguments).task).await {
        Ok(code) => code,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

/// As `kubectl-osd_move` it is `kubectl osd-move`.
fn as_plugin(mut arguments: Vec<OsString>) -> Vec<OsString> {
    let name = arguments.first().map(PathBuf::from);
    if name.is_some_and(|name| name.file_name() == Some("kubectl-osd_move".as_ref())) {
        arguments.insert(1, "osd-move".into());
    }
    arguments
}

async fn run(task: Task) -> anyhow::Result<ExitCode> {
    match task {
        Task::Controller { config, identity } => control(&config, identity).await?,
        Task::OsdMove(wanted) => print(&cli::osd_move(&client().await?, &wanted).await?),
        Task::Plan { osd, place } => print(&cli::plan(&client().await?, &place, osd).await?),
        Task::Status { place } => print(&cli::status(&client().await?, &place).await?),
        Task::Fenced(word) => cli::fenced(&client().await?, &word).await?,
        Task::Abort { relocation, place } => {
            cli::abort(&client().await?, &place, &relocation).await?;
        }
        Task::Adopt { how, config } => {
            let ceph = ceph(&Config::load(&config)?);
            print(&cli::adopt(&client().await?, &ceph, &how).await?);
        }
        Task::Import(how) => print(&cli::import(&how).await?),
        Task::Crds => print_crds()?,
        Task::Node { task: NodeTask::Connect(how) } => return connect(&how).await,
    }
    Ok(ExitCode::SUCCESS)
}

async fn client() -> anyhow::Result<kube::Client> {
    kube::Client::try_default().await.context("there is no way to the API server")
}

#[expect(clippy::print_stdout, reason = "what was asked for")]
fn print(lines: &[String]) {
    lines.iter().for_each(|line| println!("{line}"));
}

fn ceph(config: &Config) -> Ceph16 {
    Ceph16::new(Command {
        program: config.ceph.program.clone(),
        options: config.ceph.options.clone(),
        mon_endpoints: config.ceph.mon_endpoints.clone(),
        deadline: config.ceph.deadline,
    })
}

async fn control(path: &std::path::Path, identity: String) -> anyhow::Result<()> {
    let config = Config::load(path)?;
    let client = client().await?;
    let ceph = ceph(&config);
    let mut term = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let stop = async {
        tokio::select! {
            _ = term.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    tracing::info!(identity, namespace = config.namespace, "a replica starts");
    let metrics = Arc::new(Metrics::default());
    if let Some(listen) = config.listen {
        let listener = TcpListener::bind(listen).await;
        let listener = listener.with_context(|| format!("cannot listen on {listen}"))?;
        tokio::spawn(health::serve(listener, Arc::clone(&metrics)));
    }
    controller::run(client, config, identity, Arc::new(ceph), metrics, stop).await;
    tracing::info!("stopped");
    Ok(())
}

#[expect(clippy::print_stdout, reason = "a document that was asked for")]
fn print_crds() -> anyhow::Result<()> {
    for (_, text) in nvmeof_recoverer_controller::crd::yaml()? {
        println!("---\n{text}");
    }
    Ok(())
}

/// The exit code says whether there is a label; the answer, what it says or why there is none.
#[expect(clippy::disallowed_methods, reason = "the one file a Job answers with")]
async fn connect(how: &Connect) -> anyhow::Result<ExitCode> {
    let said = node::connect(how).await;
    let text = serde_json::to_string(&said).context("an answer is always JSON")?;
    std::fs::write(&how.answer, text)
        .with_context(|| format!("cannot answer in {}", how.answer.display()))?;
    Ok(match said {
        Said::Label(_) => ExitCode::SUCCESS,
        Said::Again(_) => ExitCode::FAILURE,
    })
}
