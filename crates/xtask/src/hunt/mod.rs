//! `cargo xtask hunt`: explores the simulator for a while, or shows that exploring finds anything.
//!
//! ```text
//!   hunt --minutes N            build heal-hunt ──► seeds ──► matrix, rates, finds under target/hunt-finds
//!   hunt --mutants [NAME..]     copy the workspace ──► make heal-core worse ──► build ──► hunt ──► found?
//!                                    ▲                                                     │
//!                                    └────────────── the next mutant ◄─────────────────────┘
//! ```
//!
//! A hunter that finds nothing proves nothing until it is known what it would find. So the agent is
//! made worse on purpose, in a copy: no line of the product knows of it. A mutant counts as found
//! when a story breaks a rule with it that keeps every rule without it.
//!
//! The price: the list of mutants quotes the code, and has to be changed with it. A text that is
//! not found exactly once fails the run, so the list cannot rot unseen.

pub(crate) mod mutants;

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};

use crate::workspace;

/// What to hunt.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Explore for so many minutes; with --mutants: at most so long for each.
    #[arg(long, default_value_t = 1.0)]
    minutes: f64,
    /// The first seed.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Stop after so many incidents: legs lost that the agent had to heal.
    #[arg(long)]
    incidents: Option<u64>,
    /// Only these tables.
    #[arg(long)]
    table: Vec<String>,
    /// Make the agent worse, in all the ways there are or in these, and see whether it is found.
    #[arg(long, num_args = 0.., value_name = "NAME")]
    mutants: Option<Vec<String>>,
    /// With --mutants: only as many as CI has time for.
    #[arg(long, requires = "mutants")]
    short: bool,
}

/// Does what is asked.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    match &args.mutants {
        Some(names) => mutants::run(names, args.short, args.minutes),
        None => explore(args),
    }
}

/// The hunter, and what tells its logs again.
pub(crate) const PROGRAMS: [&str; 2] = ["heal-hunt", "heal-replay"];

/// Builds these of [`PROGRAMS`] of the workspace in `tree`, into `target`. Answers with the first
/// one's path.
pub(crate) fn build(tree: &Path, target: &Path, programs: &[&str]) -> anyhow::Result<PathBuf> {
    let status = workspace::cargo()
        .args(["build", "--quiet", "--profile", "hunt", "-p", "heal-sim"])
        .args(programs.iter().flat_map(|program| ["--bin", program]))
        .current_dir(tree)
        .env("CARGO_TARGET_DIR", target)
        .status()
        .context("cannot run cargo")?;
    if !status.success() {
        bail!("the hunter of {} does not build", tree.display());
    }
    Ok(target.join("hunt").join(programs.first().copied().unwrap_or("heal-hunt")))
}

fn explore(args: &Args) -> anyhow::Result<()> {
    let root = workspace::root();
    let target = workspace::target();
    let hunter = build(&root, &target, &PROGRAMS)?;
    let mut command = Command::new(hunter);
    command.arg("--matrix").arg("--keep").arg(target.join("hunt-finds"));
    command.args(["--minutes", &args.minutes.to_string(), "--seed", &args.seed.to_string()]);
    command.args(["--commit", &commit(&root)]);
    if let Some(incidents) = args.incidents {
        command.args(["--incidents", &incidents.to_string()]);
    }
    for table in &args.table {
        command.args(["--table", table]);
    }
    let status = command.status().context("cannot run the hunter")?;
    if !status.success() {
        bail!("rules were broken; the stories are in {}", target.join("hunt-finds").display());
    }
    Ok(())
}

/// What the finds are said to be found on.
fn commit(root: &std::path::Path) -> String {
    let output =
        Command::new("git").args(["rev-parse", "--short", "HEAD"]).current_dir(root).output();
    let text = output.ok().filter(|output| output.status.success()).map(|output| output.stdout);
    let text = text.map(|text| String::from_utf8_lossy(&text).trim().to_owned());
    text.unwrap_or_else(|| "unknown".to_owned())
}
