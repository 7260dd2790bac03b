//! `cargo xtask prove safety`: that no sequence of faults makes the product destroy a copy, as far
//! as it can be shown without a kernel; the lab shows the rest.
//!
//! ```text
//!   heal-hunt ── seeds ──► every rule after every event ──► incidents, edges of the transition table
//!   tests/regressions ──► every story that broke a rule once
//!   heal-core, made worse ──► heal-hunt ──► is it found?          a hunter that finds nothing proves
//!   the polling agent's defects ──► the test of each              nothing until this is known
//!   corpora of outside bytes ──► every parser
//!   the simulator's tests, instrumented ──► lines of heal-core     where LLVM's tools are
//! ```
//!
//! The price: a seed tells another story once the dice change, so the figures of two versions are
//! those of two hunts. What was found is kept as a log, and that stays what it is.

use std::path::Path;
use std::process::Command;

use anyhow::Context as _;

use super::defects::{DEFECTS, Defect};
use super::{Claim, Much, Shown, sentences};
use crate::lab::scenario::Figure;
use crate::{coverage, hunt, workspace};

/// The crates whose tests show that a defect is not ours.
const TESTED: [&str; 4] = ["heal-sim", "heal-core", "heal-provisioner", "nvme-heald"];
/// A mutant must be found within so many minutes.
const MINUTES: f64 = 10.0;

fn incidents(much: Much) -> u64 {
    match much {
        Much::Quick => 10_000,
        Much::Default => 100_000,
        Much::Full => 1_000_000,
    }
}

/// Everything that needs no lab.
pub(super) fn show(much: Much, verbose: bool) -> anyhow::Result<Vec<Shown>> {
    let target = hunt::mutants::target();
    let hunter = hunt::build(&workspace::root(), &target, &hunt::PROGRAMS)?;
    let mut shown = vec![
        explored(&hunter, much, verbose)?,
        retold(&hunter.with_file_name("heal-replay"))?,
        found(much)?,
        not_ours(verbose)?,
        read(verbose)?,
    ];
    if much != Much::Quick {
        shown.extend(reached()?);
    }
    Ok(shown)
}

fn explored(hunter: &Path, much: Much, verbose: bool) -> anyhow::Result<Shown> {
    let wanted = incidents(much);
    println!("prove: hunting through {wanted} incidents");
    let mut command = Command::new(hunter);
    command.args(["--matrix", "--figures", "--incidents", &wanted.to_string()]);
    command.arg("--keep").arg(workspace::target().join("hunt-finds"));
    if much == Much::Full {
        command.arg("--all-edges");
    }
    let output = command.output().context("cannot start the hunter")?;
    let said = String::from_utf8_lossy(&output.stdout);
    print!("{said}");
    if verbose {
        print!("{}", String::from_utf8_lossy(&output.stderr));
    }
    let figures: Vec<Figure> = said.lines().filter_map(Figure::parse).collect();
    let value = |name: &str| figures.iter().find(|f| f.name == name).map_or(-1.0, |f| f.value);
    let of = |names: &[&str]| {
        figures.iter().filter(|f| names.contains(&f.name.as_str())).cloned().collect()
    };
    #[allow(clippy::cast_precision_loss, reason = "there are not so many incidents")]
    let enough = value("incidents") >= wanted as f64;
    let whole = enough && value("finds") == 0.0;
    let rates = ["incidents", "events", "seeds", "seeds_per_s", "incidents_per_s", "threads"];
    let edges = ["edges_taken", "edges_legal"];
    let explained = value("edges_surprising") == 0.0;
    let claims = vec![
        Claim {
            holds: whole,
            text: "no rule is broken in any incident that the dice made".to_owned(),
            figures: of(&rates),
        },
        Claim {
            holds: explained && output.status.success() == whole,
            text: "every legal edge of the transition table is taken, or it is known why not"
                .to_owned(),
            figures: of(&edges),
        },
    ];
    Ok(Shown { by: "the hunter".to_owned(), claims })
}

/// Every log of a story that broke a rule once.
fn retold(replay: &Path) -> anyhow::Result<Shown> {
    let folder = workspace::root().join("tests/regressions");
    let mut broken = Vec::new();
    let mut count = 0;
    for entry in std::fs::read_dir(&folder).context("cannot read the folder of logs")? {
        let path = entry?.path();
        if path.extension().is_none_or(|extension| extension != "log") {
            continue;
        }
        count += 1;
        let output = Command::new(replay).arg(&path).output().context("cannot start the replay")?;
        if !output.status.success() {
            broken.push(path.file_name().unwrap_or_default().to_string_lossy().into_owned());
        }
    }
    let text = if broken.is_empty() {
        "stories that broke a rule once keep every rule".to_owned()
    } else {
        format!("rules are broken again: {}", broken.join(", "))
    };
    let logs = Figure { name: "logs".to_owned(), value: f64::from(count), unit: String::new() };
    let claim = Claim { holds: broken.is_empty() && count > 0, text, figures: vec![logs] };
    Ok(Shown { by: "the regressions".to_owned(), claims: vec![claim] })
}

fn found(much: Much) -> anyhow::Result<Shown> {
    println!("prove: making the agent worse on purpose");
    let short = much != Much::Full;
    let verdicts = hunt::mutants::verdicts(&[], short, MINUTES)?;
    let claims = verdicts.into_iter().map(|verdict| Claim::new(verdict.holds, verdict.text));
    let by = "each agent made worse on purpose is found out".to_owned();
    Ok(Shown { by, claims: claims.collect() })
}

/// The defects of the agent that polls, each with the tests that show that ours has it not.
fn not_ours(verbose: bool) -> anyhow::Result<Shown> {
    println!("prove: the polling agent's defects");
    let mut cargo = workspace::cargo();
    cargo.args(["test", "--quiet", "--no-fail-fast"]);
    for name in TESTED {
        cargo.args(["-p", name]);
    }
    cargo.args(["--lib", "--tests", "--", "--format", "pretty", "--test-threads", "2"]);
    cargo.args(DEFECTS.iter().flat_map(|defect| defect.shown_by));
    let output = cargo.current_dir(workspace::root()).output().context("cannot start cargo")?;
    let said = String::from_utf8_lossy(&output.stdout);
    if verbose || !output.status.success() {
        print!("{said}{}", String::from_utf8_lossy(&output.stderr));
    }
    let told = sentences(&said);
    let claims = DEFECTS.iter().map(|defect| claim_of(defect, &told)).collect();
    Ok(Shown { by: "what the polling agent does, and ours does not".to_owned(), claims })
}

fn claim_of(defect: &Defect, told: &[Claim]) -> Claim {
    let holds = defect.shown_by.iter().all(|test| {
        let text = test.replace('_', " ");
        told.iter().any(|claim| claim.text == text && claim.holds)
    });
    let tests = defect.shown_by.join(", ");
    Claim::new(holds, format!("{}: {} ({tests})", defect.theirs, defect.ours))
}

/// Every parser of outside bytes reads its corpus.
fn read(verbose: bool) -> anyhow::Result<Shown> {
    println!("prove: the corpora of outside bytes");
    let output = workspace::cargo()
        .args(["test", "--quiet", "-p", "heal-fuzz", "--tests", "--", "--format", "pretty"])
        .current_dir(workspace::root())
        .output()
        .context("cannot start cargo")?;
    let said = String::from_utf8_lossy(&output.stdout);
    if verbose || !output.status.success() {
        print!("{said}{}", String::from_utf8_lossy(&output.stderr));
    }
    let mut claims = sentences(&said);
    if claims.is_empty() || !output.status.success() && claims.iter().all(|claim| claim.holds) {
        claims.push(Claim::new(false, "the corpora are not read"));
    }
    Ok(Shown { by: "what comes from outside".to_owned(), claims })
}

/// How much of heal-core the scenario tests reach, where that can be measured.
fn reached() -> anyhow::Result<Option<Shown>> {
    if !coverage::is_possible() {
        println!("prove: LLVM's tools are not here, so coverage is not measured");
        return Ok(None);
    }
    let (lines, regions) = coverage::measured(false)?;
    let percent = |name: &str, value: f64| Figure {
        name: name.to_owned(),
        value: (value * 10.0).round() / 10.0,
        unit: "%".to_owned(),
    };
    let claim = Claim {
        holds: lines >= coverage::ENOUGH,
        text: "scenario tests alone reach nearly all of heal-core".to_owned(),
        figures: vec![percent("lines", lines), percent("regions", regions)],
    };
    Ok(Some(Shown { by: "coverage".to_owned(), claims: vec![claim] }))
}
