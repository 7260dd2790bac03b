//! `cargo xtask prove heal|stall|vendors|recoverer|safety`: what the product claims, shown on what
//! is built here and now.
//!
//! ```text
//!   cargo test -p heal-sim ──► each test is a claim, its name the sentence ─┐
//!   cargo xtask deb ──► lab ──► heal-*.sh ──► CLAIM and FIGURE lines ───────┴─► ✔ / ✘, exit code
//!                               stall-*.sh        └─► bounds: figures that must not be worse
//! ```
//!
//! A [`Proof`] is a table: which scenarios, on which kernels, how often, and what bounds their
//! figures must keep. The default runs two VMs at a time and is over in twenty minutes; `--full` is
//! all of it, one VM after the other.
//!
//! A claim is nothing but a line that a scenario prints once it has shown it, with the figures it
//! measured on the way. A scenario that fails is one claim that does not hold, and so is one that
//! is expected here and not there: a proof that quietly left something out would be worse than
//! none.

mod defects;
mod lanes;
mod recoverer;
mod safety;
mod vendors;

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::Context as _;
use clap::ValueEnum as _;

use crate::bench;
use crate::lab::kernel::Series;
use crate::lab::scenario::{self, Figure, Scenario, claim};
use crate::lab::session::ScenarioResult;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// What to prove.
    #[arg(value_enum)]
    what: What,
    /// Also what takes long: every kernel, and again and again what is a matter of luck.
    #[arg(long)]
    full: bool,
    /// Only what the lab shows: for `tests/run`, which has run the simulator's tests already.
    #[arg(long)]
    lab_only: bool,
    /// Only what matters most, once each, on the stock kernel: for `tests/run`, beside the other
    /// proof.
    #[arg(long, conflicts_with = "full")]
    quick: bool,
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
    /// A pulled cable stalls the application for a second or two, and the last copy is never
    /// risked.
    Stall,
    /// Any vendor's provisioner can be put behind it, and it heals beside OpenStack's os-brick.
    Vendors,
    /// An OSD whose node died runs elsewhere, and no two nodes ever write to one device.
    Recoverer,
    /// No sequence of faults makes the agent destroy a copy that it should have kept.
    Safety,
}

impl What {
    fn proof(self) -> &'static Proof {
        match self {
            Self::Heal => &HEAL,
            Self::Stall => &STALL,
            Self::Vendors => &VENDORS,
            Self::Recoverer => &RECOVERER,
            Self::Safety => &SAFETY,
        }
    }
}

/// How much is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Much {
    Quick,
    Default,
    Full,
}

/// On which kernels a scenario is shown when not everything is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Where {
    /// The same as `Stock`, and with `--quick` as well.
    Always,
    /// On every kernel, and with `--quick` on Debian 12's own.
    AlwaysEvery,
    /// On Debian 12's own kernel; on the newer one with `--full`.
    Stock,
    /// On every kernel, with `--full` only.
    Full,
    /// On the kernel that nothing else is run on, with `--full` only: what no release's can do.
    Later,
}

impl Where {
    fn includes(self, kernel: Series, much: Much) -> bool {
        let stock = match kernel {
            Series::V6_1 => true,
            Series::V6_12 => false,
            Series::V7_2 => return self == Self::Later && much == Much::Full,
        };
        match (self, much) {
            (Self::Later, _) => false,
            (Self::Always | Self::AlwaysEvery | Self::Stock | Self::Full, Much::Full) => true,
            (Self::Always | Self::AlwaysEvery, Much::Quick) => stock,
            (Self::Stock, Much::Quick) | (Self::Full, Much::Quick | Much::Default) => false,
            (Self::Always | Self::Stock, Much::Default) => stock,
            (Self::AlwaysEvery, Much::Default) => true,
        }
    }
}

type Bounds = fn(&[Figure]) -> Vec<Claim>;

/// What must be shown, in the order in which it is shown.
#[derive(Debug)]
struct Proof {
    name: &'static str,
    scenarios: &'static [(&'static str, Where)],
    /// Run [`TIMES`] times by `--full`: where the moment of a fault is a matter of luck. Others
    /// repeat within themselves.
    again: &'static [&'static str],
    /// Whether the simulator's tests are claims of it.
    simulated: bool,
    /// Wherever this scenario is shown: what the figures of that kernel must keep, over all
    /// scenarios.
    bounds: Option<(&'static str, Bounds)>,
    /// Whether what measures milliseconds runs alone by default too: where what it is compared with
    /// is no slower on a machine that is busy.
    alone: bool,
}

const HEAL: Proof = Proof {
    name: "heal",
    scenarios: &[
        ("heal-replace", Where::Stock),
        ("heal-killed", Where::Stock),
        ("heal-return", Where::Stock),
        ("heal-provisioner-away", Where::Stock),
        ("heal-refuse-foreign-fs", Where::Stock),
        ("heal-refuse-foreign-md", Where::Stock),
        ("heal-refuse-too-small", Where::Stock),
        ("heal-refuse-wrong-id", Where::Stock),
        ("heal-local", Where::Stock),
        ("heal-renamed", Where::Stock),
        ("heal-idle-gone", Where::Stock),
        ("heal-operator", Where::Stock),
        ("heal-udev", Where::Stock),
        ("heal-reaction", Where::Stock),
        ("heal-purge", Where::Stock),
    ],
    again: &["heal-replace", "heal-killed"],
    simulated: true,
    bounds: None,
    alone: false,
};

const STALL: Proof = Proof {
    name: "stall",
    scenarios: &[
        ("stall-sidebyside", Where::Always),
        ("stall-return", Where::AlwaysEvery),
        ("stall-both-legs", Where::Always),
        ("stall-black-hole", Where::Stock),
        ("stall-frozen-target", Where::Stock),
        ("stall-ana", Where::Stock),
        ("stall-two-paths", Where::Stock),
        ("stall-host-cut-off", Where::Stock),
        ("stall-flaps", Where::Stock),
        ("stall-not-supported", Where::Stock),
        ("stall-arming", Where::Always),
        ("stall-deleted", Where::Stock),
        ("stall-leftovers", Where::Always),
        ("stall-bad-blocks", Where::AlwaysEvery),
        ("stall-multipath-off", Where::Full),
    ],
    again: &[],
    simulated: false,
    bounds: Some(("stall-sidebyside", stall_bounds)),
    alone: false,
};

/// What needs no lab is shown by `vendors.rs`.
const VENDORS: Proof = Proof {
    name: "vendors",
    scenarios: &[
        ("vendors-os-brick", Where::Stock),
        ("vendors-race", Where::Stock),
        ("vendors-reaction", Where::Stock),
    ],
    again: &[],
    simulated: false,
    bounds: Some(("vendors-reaction", vendors::bounds)),
    alone: true,
};

/// The plan and the controller show `recoverer.rs`; here stands what wants a real target.
const RECOVERER: Proof = Proof {
    name: "recoverer",
    scenarios: &[
        ("lab-fence", Where::Stock),
        ("recoverer-joined", Where::Full),
        ("lab-reservation", Where::Later),
    ],
    again: &[],
    simulated: false,
    bounds: None,
    alone: false,
};

/// What the simulator shows stands in `safety.rs`; here stands the catalogue of the lab.
const SAFETY: Proof = Proof {
    name: "safety",
    scenarios: &[
        ("safety-boot", Where::Full),
        ("safety-broken", Where::Full),
        ("safety-came-back", Where::Full),
        ("safety-clone", Where::Full),
        ("safety-congestion", Where::Full),
        ("safety-disk-full", Where::Full),
        ("safety-ghost-writes", Where::Full),
        ("safety-given-up", Where::Full),
        ("safety-lost-events", Where::Full),
        ("safety-raid10", Where::Full),
        ("safety-rdma", Where::Full),
        ("safety-rebuild", Where::Full),
        ("safety-refuse-4k", Where::Full),
        ("safety-stale-first", Where::Full),
        ("safety-stuck-faulty", Where::Full),
        ("safety-stuck-tool", Where::Full),
        ("safety-udev-stuck", Where::Full),
        ("safety-write-errors", Where::Full),
        ("safety-written-to", Where::Full),
        ("safety-wrong-slot", Where::Full),
    ],
    again: &[],
    simulated: false,
    bounds: None,
    alone: false,
};

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
    let proof = args.what.proof();
    let much = match (args.quick, args.full) {
        (true, _) => Much::Quick,
        (false, true) => Much::Full,
        (false, false) => Much::Default,
    };
    let started = Instant::now();
    let shown = match args.what {
        What::Heal | What::Stall => in_the_lab(proof, args, much)?,
        What::Vendors => {
            let mut shown = match args.lab_only {
                true => Vec::new(),
                false => vendors::show(args.verbose)?,
            };
            // Without the lab's own time: `tests/run` shows the rest.
            if much != Much::Quick {
                shown.extend(in_the_lab(proof, args, much)?);
            }
            shown
        }
        What::Recoverer => {
            let mut shown = match args.lab_only {
                true => Vec::new(),
                false => recoverer::show(much, args.verbose)?,
            };
            shown.extend(in_the_lab(proof, args, much)?);
            shown
        }
        What::Safety => {
            let mut shown = Vec::new();
            if !args.lab_only {
                shown.extend(safety::show(much, args.verbose)?);
            }
            shown.extend(in_the_lab(proof, args, much)?);
            shown
        }
    };
    print(proof, &shown);
    let (line, holds) = summary(proof, &shown, started);
    println!("{line}");
    if !holds {
        // No error with a trace behind it: the summary is the last line, whatever it says.
        std::process::exit(1);
    }
    Ok(())
}

fn in_the_lab(proof: &Proof, args: &Args, much: Much) -> anyhow::Result<Vec<Shown>> {
    let mut shown = Vec::new();
    if proof.simulated && !args.lab_only {
        shown.push(simulator()?);
    }
    if proof.wanted_on_all(much)?.is_empty() {
        return Ok(shown);
    }
    let deb = match &args.deb {
        Some(deb) => Some(deb.clone()),
        None if proof.needs_deb(much)? => Some(crate::package::deb::build()?),
        None => None,
    };
    for (kernel, results) in proof.run(deb.as_deref(), much, args.verbose)? {
        shown.extend(results.iter().map(|result| lab_claims(kernel, result)));
        let Some((measured_by, bounds)) = proof.bounds else { continue };
        if results.iter().any(|result| result.name == measured_by) {
            let figures: Vec<Figure> =
                results.into_iter().flat_map(|result| result.figures).collect();
            let claims = bounds(&figures);
            shown.push(Shown { by: format!("the figures on kernel {kernel}"), claims });
        }
    }
    Ok(shown)
}

impl Proof {
    /// What came of its scenarios on each kernel: two VMs at a time. Where everything is shown,
    /// what measures milliseconds comes first and alone.
    fn run(
        &self,
        deb: Option<&Path>,
        much: Much,
        verbose: bool,
    ) -> anyhow::Result<Vec<(Series, Vec<ScenarioResult>)>> {
        let wanted = self.wanted_on_all(much)?;
        let mut by_kernel: Vec<(Series, Vec<ScenarioResult>)> = Vec::new();
        let alone = much == Much::Full || (self.alone && much == Much::Default);
        for (kernel, result) in lanes::run(wanted, alone, deb, verbose)? {
            match by_kernel.last_mut().filter(|(last, _)| *last == kernel) {
                Some((_, results)) => results.push(result),
                None => by_kernel.push((kernel, vec![result])),
            }
        }
        Ok(by_kernel)
    }

    /// Whether any of it is about the package.
    fn needs_deb(&self, much: Much) -> anyhow::Result<bool> {
        Ok(self.wanted_on_all(much)?.iter().any(|(_, scenario)| scenario.needs_deb))
    }

    fn wanted_on_all(&self, much: Much) -> anyhow::Result<Vec<(Series, Scenario)>> {
        let mut wanted = Vec::new();
        for &kernel in Series::value_variants() {
            let scenarios = self.wanted(kernel, much)?;
            wanted.extend(scenarios.into_iter().map(|scenario| (kernel, scenario)));
        }
        Ok(wanted)
    }

    /// What is to be run on a kernel, those that share a boot together.
    fn wanted(&self, kernel: Series, much: Much) -> anyhow::Result<Vec<Scenario>> {
        let directory = scenario::directory();
        let full = much == Much::Full;
        let mut wanted = Vec::new();
        for &(name, on) in self.scenarios {
            if !on.includes(kernel, much) {
                continue;
            }
            let mut found = scenario::select(&directory, &[name.to_owned()])?;
            found.retain(|scenario| scenario.runs_on(kernel));
            match much {
                Much::Quick => found.iter_mut().for_each(Scenario::repeat_once),
                Much::Default => {}
                Much::Full => found.iter_mut().for_each(Scenario::repeat_in_full),
            }
            let times = if full && self.again.contains(&name) { TIMES } else { 1 };
            for _ in 0..times {
                wanted.extend(found.iter().cloned());
            }
        }
        wanted.sort_by_key(Scenario::boot_group);
        Ok(wanted)
    }
}

/// As many pulls as a median is taken of.
const ENOUGH_PULLS: usize = 5;

/// What the stalls must come to, whichever scenario measured them.
fn stall_bounds(figures: &[Figure]) -> Vec<Claim> {
    let pulls = bench::Pull::all(figures);
    let worst = |strategy| {
        let stalls = pulls.iter().filter(|pull| pull.strategy == strategy);
        stalls.map(|pull| pull.ms).reduce(f64::max)
    };
    let mut claims = Vec::new();
    for ours in [bench::Strategy::Heald, bench::Strategy::HealdAtOnce] {
        let Some(stall) = worst(ours) else {
            claims.push(Claim::new(false, format!("{ours}: no stall was measured")));
            continue;
        };
        for (other, factor) in [(bench::Strategy::None, 10.0), (bench::Strategy::FastIoFail, 1.0)] {
            let Some(bound) = worst(other).map(|other| other / factor) else {
                claims.push(Claim::new(false, format!("{other}: no stall was measured")));
                continue;
            };
            let text = format!(
                "{ours}: {:.1} s at worst, less than {:.1} s, which is {other}{}",
                stall / 1000.0,
                bound / 1000.0,
                if factor > 1.0 { format!(" divided by {factor}") } else { String::new() },
            );
            claims.push(Claim::new(stall < bound, text));
        }
    }
    claims.extend(isolation_bounds(figures));
    claims
}

/// What of the stalls is the daemon's own: from the carrier event to the sockets' end. Where the
/// policy waits, its wait is taken off, and the processor sleeps in it: those pulls count among
/// all, and the ones that nothing lies between count by themselves as well.
fn isolation_bounds(figures: &[Figure]) -> Vec<Claim> {
    let of = |strategy: bench::Strategy| -> Vec<f64> {
        let prefix = format!("isolated_{}_", strategy.key());
        let own = figures.iter().filter(|figure| {
            figure.name.strip_prefix(&prefix).is_some_and(|number| number.parse::<u32>().is_ok())
        });
        own.map(|figure| figure.value).collect()
    };
    let waited = of(bench::Strategy::Heald);
    let at_once = of(bench::Strategy::HealdAtOnce);
    // The first isolations of a process run on cold emulated code; fewer than this have no median.
    if waited.len() < ENOUGH_PULLS || at_once.len() < ENOUGH_PULLS {
        return Vec::new();
    }
    let bound = |who: &str, times: Vec<f64>| {
        let pulls = times.len();
        let ms = median(times)? / 1000.0;
        let text = format!(
            "{who}: {ms:.1} ms from the carrier event to the sockets' end, the median of {pulls} \
             pulls, less than 5 ms"
        );
        Some(Claim::new(ms < 5.0, text))
    };
    let all = [waited.as_slice(), &at_once].concat();
    let at_once = bound("nvme-heald, isolate_after: 0s", at_once);
    bound("nvme-heald, both", all).into_iter().chain(at_once).collect()
}

/// The one in the middle; where the number is even, the mean of the two.
fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let upper = *values.get(values.len() / 2)?;
    match values.len() % 2 {
        0 => Some(f64::midpoint(values[values.len() / 2 - 1], upper)),
        _ => Some(upper),
    }
}

fn simulator() -> anyhow::Result<Shown> {
    println!("prove: cargo test -p {SIMULATOR}");
    let output = crate::workspace::cargo()
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

fn print(proof: &Proof, shown: &[Shown]) {
    println!("\n==== prove {}", proof.name);
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

fn summary(proof: &Proof, shown: &[Shown], started: Instant) -> (String, bool) {
    let all = || shown.iter().flat_map(|group| &group.claims);
    let good = all().filter(|claim| claim.holds).count();
    let bad = all().count() - good;
    let seconds = started.elapsed().as_secs();
    let took = format!("{} min {:02} s", seconds / 60, seconds % 60);
    let holds = bad == 0 && good > 0;
    (format!("prove {}: {good} claims hold, {bad} do not ({took})", proof.name), holds)
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
        let (line, holds) = summary(&HEAL, &[shown], Instant::now());
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
    fn every_scenario_of_a_proofs_name_is_part_of_it() {
        for proof in [&HEAL, &STALL, &VENDORS, &RECOVERER, &SAFETY] {
            assert!(proof.bounds.is_none_or(|(by, _)| proof.scenarios.iter().any(|it| it.0 == by)));
            let all = scenario::select(&scenario::directory(), &[]).unwrap();
            let prefix = format!("{}-", proof.name);
            let there = all.iter().map(|found| found.name.as_str());
            let there: BTreeSet<&str> = there.filter(|name| name.starts_with(&prefix)).collect();
            // The fences have scenarios that are the lab's own.
            let listed = proof.scenarios.iter().map(|&(name, _)| name);
            let listed: BTreeSet<&str> = listed.filter(|name| !name.starts_with("lab-")).collect();
            assert_eq!(there, listed);
            assert!(proof.again.iter().all(|name| listed.contains(name)));
        }
    }

    #[test]
    fn the_fence_is_shown_by_default_and_joined_with_ceph_in_full_and_neither_in_haste() {
        let names = |kernel, much| -> Vec<String> {
            let wanted = RECOVERER.wanted(kernel, much).unwrap();
            wanted.into_iter().map(|scenario| scenario.name).collect()
        };
        assert!(names(Series::V6_1, Much::Quick).is_empty());
        assert_eq!(names(Series::V6_1, Much::Default), ["lab-fence"]);
        for kernel in [Series::V6_1, Series::V6_12] {
            assert_eq!(names(kernel, Much::Full), ["lab-fence", "recoverer-joined"]);
        }
        assert_eq!(names(Series::V7_2, Much::Full), ["lab-reservation"]);
    }

    #[test]
    fn the_kernel_of_no_release_is_booted_by_a_full_proof_of_the_recoverer_alone() {
        for proof in [&HEAL, &STALL, &VENDORS, &RECOVERER, &SAFETY] {
            for much in [Much::Quick, Much::Default, Much::Full] {
                let wanted = proof.wanted_on_all(much).unwrap();
                let booted = wanted.iter().any(|(kernel, _)| *kernel == Series::V7_2);
                let meant = proof.name == "recoverer" && much == Much::Full;
                assert_eq!(booted, meant, "{}", proof.name);
            }
        }
    }

    #[test]
    fn the_newer_kernel_shows_less_unless_everything_is_wanted() {
        let names = |kernel, much| -> BTreeSet<String> {
            let wanted = STALL.wanted(kernel, much).unwrap();
            wanted.into_iter().map(|scenario| scenario.name).collect()
        };
        assert!(
            names(Series::V6_12, Much::Default).len() < names(Series::V6_1, Much::Default).len()
        );
        assert_eq!(names(Series::V6_12, Much::Full), names(Series::V6_1, Much::Full));
        assert!(HEAL.wanted(Series::V6_12, Much::Default).unwrap().is_empty());
        assert!(names(Series::V6_12, Much::Quick).is_empty());
        assert!(!names(Series::V6_1, Much::Quick).is_empty());
    }

    fn stalls(lines: &[&str]) -> Vec<(bool, String)> {
        let figures: Vec<Figure> = lines.iter().filter_map(|line| Figure::parse(line)).collect();
        let claims = stall_bounds(&figures);
        claims.into_iter().map(|claim| (claim.holds, claim.text)).collect()
    }

    #[test]
    fn ours_must_be_ten_times_shorter_than_the_cut_off_and_shorter_than_the_knob() {
        let measured = [
            "FIGURE stall_none_1=60000 ms, cut off",
            "FIGURE stall_fast_io_fail_1=9000 ms",
            "FIGURE stall_heald_1=2000 ms",
            "FIGURE stall_heald_2=7000 ms",
            "FIGURE stall_heald_at_once_1=1500 ms",
        ];
        let holds = stalls(&measured).into_iter().map(|(holds, _)| holds);
        assert_eq!(holds.collect::<Vec<bool>>(), [false, true, true, true]);
    }

    #[test]
    fn our_own_part_is_bounded_over_all_pulls_and_where_the_policy_waits_for_nothing() {
        let holds = |waited: &[u32], at_once: &[u32]| -> Vec<bool> {
            let told = |strategy: &str, times: &[u32]| -> Vec<Figure> {
                let told = (1..).zip(times).map(|(n, us): (u32, _)| {
                    Figure::parse(&format!("FIGURE isolated_{strategy}_{n}={us} us")).unwrap()
                });
                told.collect()
            };
            let mut figures = told("heald", waited);
            figures.extend(told("heald_at_once", at_once));
            isolation_bounds(&figures).into_iter().map(|claim| claim.holds).collect()
        };
        let (fast, slow) = ([3000; 5], [6000; 5]);
        assert_eq!(holds(&fast, &fast), [true, true]);
        assert_eq!(holds(&slow, &fast), [true, true], "4.5 ms lie in the middle of all");
        assert_eq!(holds(&[8000; 6], &fast), [false, true]);
        assert_eq!(holds(&[1000; 6], &slow), [true, false]);
        assert!(holds(&fast[1..], &fast).is_empty(), "no median of four pulls");
    }

    #[test]
    fn a_stall_that_was_not_measured_does_not_hold() {
        assert!(stalls(&["FIGURE stall_none_1=60000 ms"]).iter().all(|(holds, _)| !holds));
    }
}
