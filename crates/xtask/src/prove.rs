//! `cargo xtask prove heal`: what the product claims, shown on what is built here and now.
//!
//! ```text
//!   cargo test -p heal-sim ──► each test is a claim, its name the sentence ─┐
//!   cargo xtask deb ──► lab ──► heal-*.sh ──► CLAIM and FIGURE lines ───────┴─► ✔ / ✘, exit code
//! ```
//!
//! A claim is nothing but a line that a scenario prints once it has shown it, with the figures it
//! measured on the way. A scenario that fails is one claim that does not hold, and so is one that is
//! expected here and not there: a proof that quietly left something out would be worse than none.

use std::path::PathBuf;
use std::process::Command;
use std::time::Instant;

use anyhow::Context as _;

use crate::lab::kernel::Series;
use crate::lab::run_all;
use crate::lab::scenario::{self, Boot, Figure, Scenario, claim};
use crate::lab::session::{BootOptions, ScenarioResult};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// What to prove.
    #[arg(value_enum)]
    what: What,
    /// Also what takes long: the newer kernel, and the kills again and again.
    #[arg(long)]
    full: bool,
    /// Only what the lab shows: for `tests/run`, which has run the simulator's tests already.
    #[arg(long)]
    lab_only: bool,
    /// Take this package instead of building one.
    #[arg(long)]
    deb: Option<PathBuf>,
    /// Print every line of the scenarios.
    #[arg(long, short)]
    verbose: bool,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum What {
    /// A lost leg is healed, and everything that could go wrong on the way is held or refused.
    Heal,
}

/// What must be shown, in the order in which it is shown.
const HEAL: &[&str] = &[
    "heal-replace",
    "heal-killed",
    "heal-return",
    "heal-provisioner-away",
    "heal-refuse-foreign-fs",
    "heal-refuse-foreign-md",
    "heal-refuse-too-small",
    "heal-refuse-wrong-id",
    "heal-local",
    "heal-renamed",
    "heal-idle-gone",
    "heal-operator",
    "heal-udev",
    "heal-reaction",
    "heal-purge",
];

/// Repeated by `--full`: where the moment of a fault is a matter of luck.
const AGAIN: &[&str] = &["heal-replace", "heal-killed"];
const TIMES: usize = 5;

/// The simulator's crate: every test of it is a claim.
const SIMULATOR: &str = "heal-sim";

/// One statement, and whether it holds.
#[derive(Debug, Clone, PartialEq)]
struct Claim {
    holds: bool,
    text: String,
    figures: Vec<Figure>,
}

impl Claim {
    fn new(holds: bool, text: impl Into<String>) -> Self {
        Self { holds, text: text.into(), figures: Vec::new() }
    }
}

/// Claims that were shown by the same means.
#[derive(Debug)]
struct Shown {
    by: String,
    claims: Vec<Claim>,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let What::Heal = args.what;
    let started = Instant::now();
    let scenarios = wanted(args.full)?;
    let mut shown = Vec::new();
    if !args.lab_only {
        shown.push(simulator()?);
    }
    let deb = match &args.deb {
        Some(deb) => deb.clone(),
        None => crate::package::deb::build()?,
    };
    let kernels: &[Series] =
        if args.full { &[Series::V6_1, Series::V6_12] } else { &[Series::V6_1] };
    for &kernel in kernels {
        let mut options = BootOptions::new(kernel, Some(deb.clone()))?;
        options.keep = false;
        let here: Vec<&Scenario> =
            scenarios.iter().filter(|scenario| scenario.runs_on(kernel)).collect();
        for result in run_all(&options, &here, args.verbose)? {
            shown.push(lab_claims(kernel, &result));
        }
    }
    print(&shown);
    let (line, holds) = summary(&shown, started);
    println!("{line}");
    if !holds {
        // No error with a trace behind it: the summary is the last line, whatever it says.
        std::process::exit(1);
    }
    Ok(())
}

/// The scenarios of the proof, those that share a boot first.
fn wanted(full: bool) -> anyhow::Result<Vec<Scenario>> {
    let directory = scenario::directory();
    let mut wanted = Vec::new();
    for name in HEAL {
        let found = scenario::select(&directory, &[(*name).to_owned()])?;
        let times = if full && AGAIN.contains(name) { TIMES } else { 1 };
        for _ in 0..times {
            wanted.extend(found.iter().cloned());
        }
    }
    wanted.sort_by_key(|scenario| scenario.boot == Boot::Fresh);
    Ok(wanted)
}

fn simulator() -> anyhow::Result<Shown> {
    println!("prove: cargo test -p {SIMULATOR}");
    let output = Command::new("cargo")
        .args(["test", "--quiet", "--no-fail-fast", "-p", SIMULATOR])
        .args(["--", "--format", "pretty", "--test-threads", "2"])
        .current_dir(crate::workspace::root())
        .output()
        .context("cannot start cargo")?;
    let said = String::from_utf8_lossy(&output.stdout);
    let mut claims = sentences(&said);
    if !output.status.success() && claims.iter().all(|claim| claim.holds) {
        print!("{said}{}", String::from_utf8_lossy(&output.stderr));
        claims.push(Claim::new(false, "the simulator's tests do not build or do not end"));
    } else if claims.is_empty() {
        claims.push(Claim::new(false, "the simulator has no tests"));
    } else if claims.iter().any(|claim| !claim.holds) {
        print!("{said}");
    }
    Ok(Shown { by: "the simulator".to_owned(), claims })
}

/// `test a_leg_returns ... ok` as a sentence. Doc tests and those left out claim nothing.
fn sentences(said: &str) -> Vec<Claim> {
    said.lines()
        .filter_map(|line| line.strip_prefix("test ")?.split_once(" ... "))
        .filter(|(name, _)| !name.contains(' '))
        .filter_map(|(name, verdict)| {
            let name = name.rsplit("::").next().unwrap_or(name);
            let text = name.replace('_', " ");
            match verdict.trim() {
                "ok" => Some(Claim::new(true, text)),
                verdict if verdict.starts_with("ignored") => None,
                _ => Some(Claim::new(false, text)),
            }
        })
        .collect()
}

/// Each claim with the figures measured on the way to it; a failure is a claim that does not hold.
fn lab_claims(kernel: Series, result: &ScenarioResult) -> Shown {
    let mut claims = Vec::new();
    let mut figures = Vec::new();
    for line in &result.lines {
        if let Some(figure) = Figure::parse(&line.text) {
            figures.push(figure);
        } else if let Some(text) = claim(&line.text) {
            claims.push(Claim {
                holds: true,
                text: text.to_owned(),
                figures: std::mem::take(&mut figures),
            });
        }
    }
    if let Some(last) = claims.last_mut() {
        last.figures.append(&mut figures);
    }
    if !result.passed {
        let said = result.lines.iter().map(|line| line.text.as_str());
        let why = said.filter_map(|text| text.strip_prefix("FAIL "));
        let why: Vec<String> =
            why.map(str::to_owned).chain(result.failures.iter().map(ToString::to_string)).collect();
        claims.push(Claim::new(false, why.join("; ")));
    } else if claims.is_empty() {
        claims.push(Claim::new(false, "it claims nothing"));
    }
    let seconds = result.duration.as_secs();
    Shown { by: format!("{} on kernel {kernel}, {seconds} s", result.name), claims }
}

fn print(shown: &[Shown]) {
    println!("\n==== prove heal");
    for group in shown {
        println!("{}", group.by);
        for claim in &group.claims {
            let mark = if claim.holds { '✔' } else { '✘' };
            println!("  {mark} {}{}", claim.text, in_brackets(&claim.figures));
        }
    }
    println!();
}

fn in_brackets(figures: &[Figure]) -> String {
    if figures.is_empty() {
        return String::new();
    }
    let words: Vec<String> = figures
        .iter()
        .map(|figure| format!("{} {} {}", figure.name, figure.value, figure.unit))
        .map(|text| text.trim_end().replace('_', " "))
        .collect();
    format!("  [{}]", words.join(", "))
}

fn summary(shown: &[Shown], started: Instant) -> (String, bool) {
    let all = || shown.iter().flat_map(|group| &group.claims);
    let good = all().filter(|claim| claim.holds).count();
    let bad = all().count() - good;
    let seconds = started.elapsed().as_secs();
    let took = format!("{} min {:02} s", seconds / 60, seconds % 60);
    (format!("prove heal: {good} claims hold, {bad} do not ({took})"), bad == 0)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::time::Duration;

    use super::*;
    use crate::lab::session::Line;

    fn result(lines: &[&str], passed: bool) -> ScenarioResult {
        ScenarioResult {
            name: "heal-x".to_owned(),
            passed,
            failures: Vec::new(),
            lines: lines
                .iter()
                .map(|text| Line { at: Duration::ZERO, text: (*text).to_owned() })
                .collect(),
            figures: Vec::new(),
            claims: Vec::new(),
            dir: PathBuf::new(),
            duration: Duration::from_secs(3),
        }
    }

    #[test]
    fn a_claim_carries_the_figures_measured_on_the_way_to_it() {
        let lines = ["FIGURE a_b=1 ms", "CLAIM first", "CLAIM second", "FIGURE c=2"];
        let shown = lab_claims(Series::V6_1, &result(&lines, true));
        let texts: Vec<String> = shown
            .claims
            .iter()
            .map(|claim| format!("{}{}", claim.text, in_brackets(&claim.figures)))
            .collect();
        assert_eq!(texts, ["first  [a b 1 ms]", "second  [c 2]"]);
    }

    #[test]
    fn a_scenario_that_fails_after_its_last_claim_does_not_hold() {
        let shown = lab_claims(Series::V6_1, &result(&["CLAIM x", "FAIL the legs differ"], false));
        assert_eq!(shown.claims.last().unwrap().text, "the legs differ");
        assert!(!shown.claims.last().unwrap().holds);
        let (line, holds) = summary(&[shown], Instant::now());
        assert!(!holds && line.starts_with("prove heal: 1 claims hold, 1 do not"));
    }

    #[test]
    fn a_scenario_that_claims_nothing_does_not_hold() {
        let shown = lab_claims(Series::V6_1, &result(&["-- hello"], true));
        assert!(!shown.claims[0].holds);
    }

    #[test]
    fn the_simulators_tests_are_read_as_sentences() {
        let said = "\nrunning 3 tests\ntest told::a_leg_returns ... ok\ntest it_heals ... FAILED\n\
                    test slow ... ignored, takes long\ntest src/lib.rs - x (line 3) ... ok\n";
        let claims = sentences(said);
        assert_eq!(claims, [Claim::new(true, "a leg returns"), Claim::new(false, "it heals")]);
    }

    #[test]
    fn every_healing_scenario_is_part_of_the_proof() {
        let there = scenario::select(&scenario::directory(), &["heal-".to_owned()]).unwrap();
        let there: BTreeSet<&str> = there.iter().map(|found| found.name.as_str()).collect();
        assert_eq!(there, HEAL.iter().copied().collect());
        assert!(AGAIN.iter().all(|name| HEAL.contains(name)));
    }
}
