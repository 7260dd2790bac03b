//! `nvmet-fenced`: the daemon, and two commands for whoever stands beside the target.
#![forbid(unsafe_code)]

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use heal_types::Nqn;
use heal_types::cluster::Generation;
use heal_types::fence::{Question, Verb};
use nvmet_fenced::config::Config;
use nvmet_fenced::fence::Fence;
use nvmet_fenced::record::Records;
use nvmet_fenced::server;
use nvmet_fenced::tree::Kernel;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

/// How often it is seen whether everything is as it was decided.
const TEND_EVERY: Duration = Duration::from_secs(10);

/// Takes devices of this NVMe target away from hosts, and proves it.
#[derive(Debug, Parser)]
#[command(name = "nvmet-fenced", version)]
struct Cli {
    /// The configuration.
    #[arg(long, global = true, default_value = "/etc/nvmet-fenced/nvmet-fenced.ron")]
    config: PathBuf,
    #[command(subcommand)]
    task: Option<Task>,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Say whether the configuration and its files can be used.
    Check,
    /// Say who can write to a subsystem's device.
    Report {
        /// The subsystem.
        subsystem: Nqn,
    },
    /// Take what is open to one host into the records: after a reboot it is opened to that host
    /// from there, and the saved configuration should name nobody.
    Adopt,
}

#[tokio::main]
async fn main() -> ExitCode {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .without_time()
        .init();
    match run(Cli::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(cli: Cli) -> anyhow::Result<()> {
    let config = Config::load(&cli.config)?;
    let fence = Fence::new(
        Arc::new(Kernel::at(&config.tree)),
        Records::at(&config.state),
        config.prefixes.clone(),
        Some(config.saved.clone()),
    );
    match cli.task {
        None => daemon(&config, Arc::new(fence)).await,
        Some(Task::Check) => server::tls(&config).map(drop).map_err(Into::into),
        Some(Task::Report { subsystem }) => {
            let generation = Some(Generation(u64::MAX));
            let verb = Verb::Report;
            let question =
                Question { verb, subsystem: Some(subsystem), generation, ..Question::health() };
            print(&serde_json::to_string(&fence.ask(&question))?);
            Ok(())
        }
        Some(Task::Adopt) => {
            fence.adopt().map_err(anyhow::Error::msg)?.iter().for_each(|line| print(line));
            Ok(())
        }
    }
}

#[expect(clippy::print_stdout, reason = "what was asked for")]
fn print(line: &str) {
    println!("{line}");
}

async fn daemon(config: &Config, fence: Arc<Fence>) -> anyhow::Result<()> {
    let tls = server::tls(config)?;
    // Before anybody is listened to: a target that has just booted may have let somebody in.
    tend(&fence).await;
    let listener = TcpListener::bind(config.listen).await;
    let listener = listener.with_context(|| format!("cannot listen on {}", config.listen))?;
    tracing::info!(listen = %config.listen, "ready");
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
    let mut term = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        () = server::serve(listener, tls, Arc::clone(&fence)) => {}
        () = keep_so(&fence) => {}
        _ = term.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}

async fn keep_so(fence: &Arc<Fence>) {
    loop {
        tokio::time::sleep(TEND_EVERY).await;
        tend(fence).await;
    }
}

/// What was not as it was decided, is said: somebody restored something, or was here.
async fn tend(fence: &Arc<Fence>) {
    let fence = Arc::clone(fence);
    let found = tokio::task::spawn_blocking(move || fence.tend()).await.unwrap_or_default();
    found.iter().for_each(|what| tracing::warn!("{what}"));
}
