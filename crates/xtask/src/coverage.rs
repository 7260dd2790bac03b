//! `cargo xtask coverage`: how much of heal-core the scenario tests reach, by themselves.
//!
//! ```text
//!   cargo test -p heal-sim, -C instrument-coverage ──► *.profraw ── llvm-profdata ──► one profile
//!   the test programs, with the map of their regions ─────────────── llvm-cov ──► table, a line a file
//! ```
//!
//! Only the simulator's tests run, so a line that no story reaches is seen, however well a unit
//! test knows it. A region is a piece of code that is run as a whole: an arm of a match, one side
//! of an `if`, what follows a `?`. Branches proper the stable compiler does not count; regions are
//! what it has for them.
//!
//! LLVM's two programs must be of the compiler's own version: `rustup component add llvm-tools`, or
//! the distribution's package of that number.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail, ensure};
use serde::Deserialize;

use crate::workspace;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Also print the lines that no story reaches.
    #[arg(long)]
    missing: bool,
    /// Fail when fewer of a hundred lines are reached.
    #[arg(long, default_value_t = ENOUGH)]
    at_least: f64,
}

/// What is measured.
const SOURCES: &str = "crates/heal-core/src/";

/// So many of a hundred lines are to be reached by scenario tests alone.
pub(crate) const ENOUGH: f64 = 90.0;

/// Whether LLVM's programs are here.
pub(crate) fn is_possible() -> bool {
    Tools::find().is_ok()
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let (lines, _) = measured(args.missing)?;
    ensure!(lines >= args.at_least, "fewer lines than {} % are reached", args.at_least);
    Ok(())
}

/// Runs the tests and prints the table. Answers with how much of a hundred lines and regions is
/// reached.
pub(crate) fn measured(missing: bool) -> anyhow::Result<(f64, f64)> {
    let tools = Tools::find()?;
    let place = workspace::target().join("coverage");
    let profiles = place.join("profiles");
    if profiles.exists() {
        std::fs::remove_dir_all(&profiles)?;
    }
    std::fs::create_dir_all(&profiles)?;
    println!("running the simulator's tests with coverage instrumentation");
    let programs = test(&place, &profiles)?;
    let profile = place.join("merged.profdata");
    tools.merge(&profiles, &profile)?;
    let totals = table(&tools.summary(&profile, &programs)?)?;
    if missing {
        tools.lcov(&profile, &programs)?.iter().for_each(|line| println!("{line}"));
    }
    println!(
        "coverage: {:.1} % of heal-core's lines, {:.1} % of its regions, by scenario tests alone",
        totals.lines.percent, totals.regions.percent
    );
    Ok((totals.lines.percent, totals.regions.percent))
}

/// The test programs, after they ran.
fn test(place: &Path, profiles: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let cargo = || {
        let mut cargo = workspace::cargo();
        cargo
            .current_dir(workspace::root())
            .args(["test", "-p", "heal-sim", "--tests", "--target-dir"])
            .arg(place.join("build"))
            .env("CARGO_ENCODED_RUSTFLAGS", "-Cinstrument-coverage")
            // Build scripts and procedural macros are instrumented as well, and leave profiles.
            .env("LLVM_PROFILE_FILE", profiles.join("%m-%p.profraw"));
        cargo
    };
    let built = cargo()
        .args(["--no-run", "--quiet", "--message-format=json"])
        .output()
        .context("cannot start cargo")?;
    ensure!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    let programs = String::from_utf8_lossy(&built.stdout)
        .lines()
        .filter_map(|line| serde_json::from_str::<Artifact>(line).ok()?.executable)
        .collect();
    let ran = cargo().arg("--quiet").output().context("cannot start cargo")?;
    ensure!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stdout));
    Ok(programs)
}

/// What cargo says of something it built.
#[derive(Debug, Deserialize)]
struct Artifact {
    executable: Option<PathBuf>,
}

/// What `llvm-cov export` says.
#[derive(Debug, Deserialize)]
struct Export {
    data: Vec<Data>,
}

#[derive(Debug, Deserialize)]
struct Data {
    files: Vec<Covered>,
}

#[derive(Debug, Deserialize)]
struct Covered {
    filename: String,
    summary: Summary,
}

#[derive(Debug, Deserialize)]
struct Summary {
    lines: Count,
    regions: Count,
}

#[derive(Debug, Clone, Copy, Default, Deserialize)]
struct Count {
    count: u64,
    covered: u64,
    percent: f64,
}

impl Count {
    fn add(&mut self, other: Self) {
        self.count += other.count;
        self.covered += other.covered;
        self.percent = percent(self.covered, self.count);
    }
}

#[allow(clippy::cast_precision_loss, reason = "there are not so many lines")]
fn percent(covered: u64, count: u64) -> f64 {
    if count == 0 { 100.0 } else { covered as f64 * 100.0 / count as f64 }
}

fn table(export: &Export) -> anyhow::Result<Summary> {
    let mut totals = Summary { lines: Count::default(), regions: Count::default() };
    println!("{:28} {:>7} {:>7} {:>7}   {:>7} {:>7}", "", "lines", "reached", "%", "regions", "%");
    for file in export.data.iter().flat_map(|data| &data.files) {
        let Some((_, name)) = file.filename.split_once(SOURCES) else { continue };
        let Summary { lines, regions } = file.summary;
        println!(
            "{name:28} {:>7} {:>7} {:>7.1}   {:>7} {:>7.1}",
            lines.count, lines.covered, lines.percent, regions.count, regions.percent
        );
        totals.lines.add(lines);
        totals.regions.add(regions);
    }
    ensure!(totals.lines.count > 0, "no line of {SOURCES} is in the profile");
    Ok(totals)
}

/// LLVM's programs, of the compiler's version.
#[derive(Debug)]
struct Tools {
    profdata: PathBuf,
    cov: PathBuf,
}

impl Tools {
    fn find() -> anyhow::Result<Self> {
        let rustc = |words: &[&str]| -> anyhow::Result<String> {
            let done = Command::new("rustc").args(words).output().context("cannot start rustc")?;
            Ok(String::from_utf8_lossy(&done.stdout).into_owned())
        };
        let version = rustc(&["-vV"])?;
        let version = version.lines().find_map(|line| line.strip_prefix("LLVM version: "));
        let major = version.and_then(|version| version.split('.').next()).unwrap_or("?").to_owned();
        let host = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
        let sysroot = PathBuf::from(rustc(&["--print", "sysroot"])?.trim());
        let component = sysroot.join("lib/rustlib").join(host).join("bin");
        let find = |name: &str| {
            let packaged = PathBuf::from(format!("/usr/bin/{name}-{major}"));
            [component.join(name), packaged].into_iter().find(|path| path.is_file())
        };
        match (find("llvm-profdata"), find("llvm-cov")) {
            (Some(profdata), Some(cov)) => Ok(Self { profdata, cov }),
            _ => bail!(
                "the compiler's profiles are read by LLVM {major}: `rustup component add llvm-tools`, \
                 or `apt-get install llvm-{major}`"
            ),
        }
    }

    fn merge(&self, profiles: &Path, into: &Path) -> anyhow::Result<()> {
        let mut merge = Command::new(&self.profdata);
        merge.args(["merge", "-sparse", "-failure-mode=all", "-o"]).arg(into);
        for entry in std::fs::read_dir(profiles)? {
            merge.arg(entry?.path());
        }
        output(&mut merge).map(drop)
    }

    fn summary(&self, profile: &Path, programs: &[PathBuf]) -> anyhow::Result<Export> {
        let told = output(self.export(profile, programs)?.arg("-summary-only"))?;
        serde_json::from_str(&told).context("llvm-cov's answer is not what it was")
    }

    /// The lines that are never run, a line for each stretch of them.
    fn lcov(&self, profile: &Path, programs: &[PathBuf]) -> anyhow::Result<Vec<String>> {
        let told = output(self.export(profile, programs)?.arg("-format=lcov"))?;
        let mut file = None;
        let mut missing: Vec<(String, u64, u64)> = Vec::new();
        for line in told.lines() {
            if let Some(name) = line.strip_prefix("SF:") {
                file = name.split_once(SOURCES).map(|(_, name)| name.to_owned());
            }
            let run = line.strip_prefix("DA:").and_then(|run| run.split_once(','));
            let (Some(file), Some((at, "0"))) = (&file, run) else { continue };
            let at: u64 = at.parse().context("llvm-cov's answer is not what it was")?;
            match missing.last_mut() {
                Some((last, _, to)) if last == file && *to + 1 == at => *to = at,
                Some(_) | None => missing.push((file.clone(), at, at)),
            }
        }
        Ok(missing.iter().map(|(file, from, to)| format!("{SOURCES}{file}:{from}-{to}")).collect())
    }

    fn export(&self, profile: &Path, programs: &[PathBuf]) -> anyhow::Result<Command> {
        let (first, rest) = programs.split_first().context("no test program was built")?;
        let mut export = Command::new(&self.cov);
        export.arg("export").arg("-instr-profile").arg(profile).arg(first);
        for program in rest {
            export.arg("-object").arg(program);
        }
        Ok(export)
    }
}

fn output(command: &mut Command) -> anyhow::Result<String> {
    let done = command.output().with_context(|| format!("cannot start {command:?}"))?;
    ensure!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    Ok(String::from_utf8_lossy(&done.stdout).into_owned())
}
