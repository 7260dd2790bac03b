//! `cargo xtask fuzz`: explores what reads outside bytes, guided by coverage.
//!
//! ```text
//!   crates/heal-fuzz ── cargo, profile "fuzz", sancov ──► heal-fuzz (libFuzzer), HEAL_FUZZ_TARGET=…
//!   corpus/TARGET, committed ──► read                      │
//!   target/fuzz/corpus/TARGET ◄── what is new ─────────────┤
//!   target/fuzz/found/TARGET  ◄── what broke a promise ────┘   the run ends with an error
//! ```
//!
//! The stable compiler takes LLVM's coverage pass as an ordinary code generation flag (`-C
//! passes`), and libFuzzer needs nothing else, so this is for whoever has a C++ compiler.
//! Sanitizers are not on: of them the stable compiler has none, and there is no `unsafe` here that
//! they could watch.
//!
//! Tests replay what is committed, on every run; this explores, for as long as somebody wants to
//! wait. Whatever it finds is copied by hand to `corpus/TARGET/found-…`, beside the fix.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, bail};

use crate::workspace;

/// Coverage as libFuzzer reads it: counters and a table of places; comparisons guide as well.
const FLAGS: [&str; 8] = [
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "-Cforce-frame-pointers=yes",
    "--cfg",
    "fuzzing",
];

/// No input takes longer, seconds.
const SLOWEST: u32 = 5;
/// No input needs more, MiB.
const MEMORY: u32 = 1024;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Only these targets; all of them, one after the other, if none is named.
    targets: Vec<String>,
    /// How long to explore, over all targets together.
    #[arg(long, default_value_t = 10.0)]
    minutes: f64,
    /// Make the committed corpora as small as they can be, with what exploration has found since.
    #[arg(long)]
    minimise: bool,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let targets = chosen(&args.targets)?;
    let engine = build()?;
    if args.minimise {
        return targets.iter().try_for_each(|target| minimise(&engine, target));
    }
    let count = u32::try_from(targets.len()).context("there are not so many targets")?;
    let seconds = (args.minutes * 60.0 / f64::from(count)).max(1.0).round();
    let mut broken = Vec::new();
    for target in &targets {
        if !explore(&engine, target, seconds)? {
            broken.push(target.as_str());
        }
    }
    if !broken.is_empty() {
        bail!("fuzz: promises are broken: {}", broken.join(", "));
    }
    println!("fuzz: {count} targets, {seconds} s each, every promise kept");
    Ok(())
}

fn corpora() -> PathBuf {
    workspace::root().join("crates/heal-fuzz/corpus")
}

/// Where what is found lies, by kind and target; made if it is missing.
fn place(kind: &str, target: &str) -> anyhow::Result<PathBuf> {
    let path = workspace::target().join("fuzz").join(kind).join(target);
    std::fs::create_dir_all(&path).with_context(|| format!("cannot make {}", path.display()))?;
    Ok(path)
}

/// Every target has a corpus of its name, which the tests of heal-fuzz see to.
fn chosen(named: &[String]) -> anyhow::Result<Vec<String>> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(corpora()).context("there are no corpora")? {
        all.extend(entry?.file_name().into_string().ok());
    }
    all.sort_unstable();
    if let Some(unknown) = named.iter().find(|name| !all.contains(name)) {
        bail!("there is no target {unknown:?}; there are {}", all.join(", "));
    }
    Ok(if named.is_empty() { all } else { named.to_vec() })
}

/// Build scripts and procedural macros are not instrumented, because a target is named.
fn build() -> anyhow::Result<PathBuf> {
    let host = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let place = workspace::target().join("fuzz/build");
    println!("building heal-fuzz with coverage instrumentation");
    let done = workspace::cargo()
        .current_dir(workspace::root())
        .args(["build", "--quiet", "-p", "heal-fuzz", "--features", "engine"])
        .args(["--profile", "fuzz", "--target", &host, "--target-dir"])
        .arg(&place)
        .env("CARGO_ENCODED_RUSTFLAGS", FLAGS.join("\u{1f}"))
        .status()
        .context("cannot start cargo")?;
    if !done.success() {
        bail!("heal-fuzz does not build; libFuzzer needs a C++ compiler (g++)");
    }
    Ok(place.join(host).join("fuzz/heal-fuzz"))
}

fn engine(program: &Path, target: &str) -> Command {
    let mut command = Command::new(program);
    command
        .env("HEAL_FUZZ_TARGET", target)
        .args([format!("-timeout={SLOWEST}"), format!("-rss_limit_mb={MEMORY}")])
        .stdin(Stdio::null());
    command
}

/// Explores one target and prints its line. Whether every promise was kept.
fn explore(program: &Path, target: &str, seconds: f64) -> anyhow::Result<bool> {
    let found = place("found", target)?;
    let done = engine(program, target)
        .arg(format!("-max_total_time={seconds}"))
        .arg(format!("-artifact_prefix={}/", found.display()))
        .arg("-print_final_stats=1")
        .args([place("corpus", target)?, corpora().join(target)])
        .output()
        .context("cannot start the engine")?;
    let told = String::from_utf8_lossy(&done.stderr);
    let stat = |name: &str| {
        let line = told.lines().rev().find_map(|line| line.strip_prefix(name));
        line.map_or("?", str::trim).to_owned()
    };
    let covered = told.lines().rev().find_map(|line| line.split("cov: ").nth(1)?.split(' ').next());
    println!(
        "{target:12} {:>9} runs, {:>6}/s, {:>5} places reached, {:>4} inputs new",
        stat("stat::number_of_executed_units:"),
        stat("stat::average_exec_per_sec:"),
        covered.unwrap_or("?"),
        stat("stat::new_units_added:"),
    );
    if done.status.success() {
        return Ok(true);
    }
    let said = told.lines().skip_while(|line| !line.contains("panicked at"));
    said.take(4).for_each(|line| println!("    {line}"));
    match told.lines().find_map(|line| line.split("Test unit written to ").nth(1)) {
        Some(input) => {
            println!("    input: {}", smallest(program, target, Path::new(input))?.display());
            println!("    beside the fix: crates/heal-fuzz/corpus/{target}/found-WHAT-IT-WAS");
        }
        None => println!("    {}", told.lines().last().unwrap_or("it ended without a word")),
    }
    Ok(false)
}

/// The input that breaks the promise, made shorter for half a minute.
fn smallest(program: &Path, target: &str, input: &Path) -> anyhow::Result<PathBuf> {
    let smaller = input.with_extension("small");
    engine(program, target)
        .args(["-minimize_crash=1", "-max_total_time=30"])
        .arg(format!("-exact_artifact_path={}", smaller.display()))
        .arg(input)
        .output()
        .context("cannot start the engine")?;
    Ok(if smaller.exists() { smaller } else { input.to_owned() })
}

/// Puts into the committed corpus the smallest inputs that reach what is reached by now. What has a
/// name of its own stays as it is.
fn minimise(program: &Path, target: &str) -> anyhow::Result<()> {
    let committed = corpora().join(target);
    let kept = place("kept", target)?;
    std::fs::remove_dir_all(&kept).and_then(|()| std::fs::create_dir_all(&kept))?;
    let mut named = 0;
    for entry in std::fs::read_dir(&committed)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if name.starts_with("seed-") || name.starts_with("found-") {
            std::fs::copy(&path, kept.join(name))?;
            named += 1;
        }
    }
    let done = engine(program, target)
        .arg("-merge=1")
        .args([&kept, &committed, &place("corpus", target)?])
        .output()
        .context("cannot start the engine")?;
    if !done.status.success() {
        bail!("{target}: the corpora cannot be merged: a committed input breaks a promise");
    }
    std::fs::remove_dir_all(&committed)?;
    std::fs::create_dir_all(&committed)?;
    let (mut inputs, mut bytes) = (0, 0);
    for entry in std::fs::read_dir(&kept)? {
        let entry = entry?;
        bytes += std::fs::copy(entry.path(), committed.join(entry.file_name()))?;
        inputs += 1;
    }
    println!("{target:12} {inputs} inputs, {named} of them named, {bytes} bytes");
    Ok(())
}
