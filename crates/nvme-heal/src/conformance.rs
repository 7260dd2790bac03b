//! `nvme-heal provisioner conformance`: the contract suite as a tool for vendors.
//!
//! ```text
//!   --backend exec:/path/to/plugin        the program, as whoever calls this, in a scratch directory
//!   --backend https://host/prefix         the protocol over HTTPS, of a provisioner in its test mode
//!   --backend kumoscale:host:port         an emulated KumoScale
//!        │
//!        ▼  for each case: stage, calls, verdict
//!   TAP 13, or JSON
//! ```
//!
//! The very cases that the project's own backends are held to. It talks to the provisioner and to
//! nobody else: no daemon, no array, no device.
//!
//! Exit codes: 0 every case that could be staged passed · 2 one failed · 3 none could be staged.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use heal_provisioner::client::{
    ClientOptions, CredentialOptions, Endpoint, SecretSource, TlsOptions,
};
use heal_provisioner::contract::live::{Live, Made, Make};
use heal_provisioner::contract::{self, SuiteReport, Verdict as CaseVerdict};
use heal_provisioner::exec::{self, Ended, Spawner};
use heal_provisioner::kumoscale::{DEFAULT_PORT, KumoScale, KumoScaleOptions};
use heal_provisioner::protocol::MAX_DOCUMENT;
use heal_provisioner::{async_trait, http};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::printer::Printer;
use crate::verdict::Verdict;

/// What is judged, and how it is reached.
#[derive(Debug, PartialEq, Eq, clap::Args)]
pub(crate) struct Conformance {
    /// exec:PATH, https://HOST:PORT/PREFIX, or kumoscale:HOST:PORT (an emulator).
    #[arg(long, value_name = "BACKEND")]
    pub(crate) backend: String,
    /// Authorities to believe, PEM.
    #[arg(long, value_name = "FILE")]
    pub(crate) ca_file: Option<PathBuf>,
    /// SHA-256 of the server's certificate or public key.
    #[arg(long, value_name = "SHA256")]
    pub(crate) pin: Option<String>,
    /// Our certificate and key, one PEM file.
    #[arg(long, value_name = "FILE")]
    pub(crate) client_cert: Option<PathBuf>,
    /// A file with a bearer token.
    #[arg(long, value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,
    /// Where the backend keeps what it needs; emptied of its own files. A directory that is there.
    #[arg(long, value_name = "DIRECTORY")]
    pub(crate) scratch: PathBuf,
    /// Only the cases with this in their name.
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub(crate) only: String,
    /// As JSON instead of TAP.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Runs the suite and prints what came of it.
pub(crate) fn run(args: &Conformance, printer: &Printer) -> anyhow::Result<Verdict> {
    let mut fixture = Live::new(make(args)?);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let wanted = |name: &str| name.contains(&args.only);
    let report = runtime.block_on(contract::run_if(&mut fixture, wanted));
    if report.cases.is_empty() {
        bail!("no case has {:?} in its name", args.only);
    }
    if args.json {
        printer.print(&format!("{}\n", serde_json::to_string_pretty(&as_json(&report))?));
    } else {
        printer.print(&report.to_string());
    }
    let passed = report.cases.iter().any(|case| case.verdict == CaseVerdict::Passed);
    Ok(match (report.passed(), passed) {
        (true, true) => Verdict::Well,
        // Nothing was shown.
        (true, false) => Verdict::CannotTell,
        (false, _) => Verdict::Critical,
    })
}

fn make(args: &Conformance) -> anyhow::Result<Make> {
    let scratch = std::fs::canonicalize(&args.scratch)
        .with_context(|| format!("no directory {}", args.scratch.display()))?;
    let (kind, place) = args.backend.split_once(':').unwrap_or((args.backend.as_str(), ""));
    match kind {
        "exec" => {
            let program =
                std::fs::canonicalize(place).with_context(|| format!("no program {place:?}"))?;
            Ok(Box::new(move |_| {
                let plugin = Plugin { program: program.clone(), scratch: scratch.clone() };
                let remote = Arc::new(exec::backend(Arc::new(plugin)));
                Ok(Made { provisioner: remote.clone(), stages: remote })
            }))
        }
        "https" => {
            let options = client(args, &args.backend, http::DEFAULT_PORT)?;
            Ok(Box::new(move |_| {
                let remote = Arc::new(http::backend(options.clone()));
                Ok(Made { provisioner: remote.clone(), stages: remote })
            }))
        }
        "kumoscale" => {
            let options = client(args, place, DEFAULT_PORT)?;
            let state = scratch.join("kumoscale-state.ron");
            Ok(Box::new(move |fresh| {
                if fresh {
                    forget(&state)?;
                }
                let host = Some("conformance-kit".to_owned());
                let mut options = KumoScaleOptions::new(options.clone(), host, state.clone());
                // The product's limit of four is no promise of the contract.
                options.max_replicas = 8;
                let backend = Arc::new(KumoScale::new(options));
                Ok(Made { provisioner: backend.clone(), stages: backend })
            }))
        }
        _ => bail!("--backend is exec:PATH, https://HOST:PORT/PREFIX or kumoscale:HOST:PORT"),
    }
}

#[allow(
    clippy::disallowed_methods,
    reason = "the kit's own notes in the scratch directory, which every case begins without"
)]
fn forget(state: &Path) -> Result<(), String> {
    match std::fs::remove_file(state) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(format!("{}: {error}", state.display()))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

fn client(args: &Conformance, address: &str, port: u16) -> anyhow::Result<ClientOptions> {
    let file = |path: &PathBuf| CredentialOptions::Bearer(SecretSource::File(path.clone()));
    Ok(ClientOptions {
        endpoints: vec![Endpoint::parse(address, port)?],
        tls: TlsOptions {
            authorities: args.ca_file.clone(),
            pins: args.pin.iter().map(|pin| pin.parse()).collect::<Result<_, _>>()?,
            identity: args.client_cert.clone(),
            believe_anybody: false,
        },
        credentials: args.token_file.as_ref().map_or(CredentialOptions::None, file),
    })
}

fn as_json(report: &SuiteReport) -> serde_json::Value {
    let cases: Vec<serde_json::Value> = report
        .cases
        .iter()
        .map(|case| {
            let (verdict, why) = match &case.verdict {
                CaseVerdict::Passed => ("passed", None),
                CaseVerdict::Failed { why } => ("failed", Some(why)),
                CaseVerdict::Skipped { why } => ("skipped", Some(why)),
            };
            serde_json::json!({ "name": case.name, "verdict": verdict, "why": why })
        })
        .collect();
    let version = env!("CARGO_PKG_VERSION");
    serde_json::json!({ "suite": version, "passed": report.passed(), "cases": cases })
}

/// The vendor's program, run as whoever runs the kit: it is theirs, and so is this machine.
#[derive(Debug)]
struct Plugin {
    program: PathBuf,
    scratch: PathBuf,
}

#[async_trait]
impl Spawner for Plugin {
    async fn run(&self, input: Vec<u8>, limit: Duration) -> Ended {
        let mut command = tokio::process::Command::new(&self.program);
        command.arg(&self.scratch).env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit());
        let mut child = match command.kill_on_drop(true).spawn() {
            Ok(child) => child,
            Err(error) => return Ended::NotStarted(error.to_string()),
        };
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
        let most = u64::try_from(MAX_DOCUMENT).unwrap_or(u64::MAX).saturating_add(1);
        let talk = async {
            let say = async {
                if let Some(mut stdin) = stdin {
                    let _ = stdin.write_all(&input).await;
                }
            };
            let hear = async {
                let mut heard = Vec::new();
                if let Some(stdout) = stdout {
                    let _ = stdout.take(most).read_to_end(&mut heard).await;
                }
                heard
            };
            let ((), heard) = tokio::join!(say, hear);
            (child.wait().await.ok().and_then(|status| status.code()), heard)
        };
        match tokio::time::timeout(limit, talk).await {
            Ok((Some(code), stdout)) => Ended::Exited { code, stdout, stderr: String::new() },
            Ok((None, _)) | Err(_) => Ended::Killed,
        }
    }
}
