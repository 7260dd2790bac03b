//! `cargo xtask prove recoverer`: what the recoverer's plan must show, and that its simulator can
//! fail.
//!
//! The tests run in a build for speed, because a hundred thousand incidents and a second for ten
//! thousand OSDs are claims about what ships. Then every rule is taken out once, in a copy of the
//! tree, and the simulator has to notice. Last, the controller itself: replicas of it on a real API
//! server, with its own rights, killed in every phase; with `--full`, with a real Ceph behind it as
//! well.
//!
//! What wants a kernel stands in the table of `prove.rs`: the fence of a Linux target under load, on
//! real NVMe/TCP, and with `--full` both ends joined: a real OSD on such a device, whose old daemon
//! wakes up after the move; and the fence by reservations, against a kernel's own target that is new
//! enough to know them. `--quick` boots no VM.

use anyhow::Context as _;

use super::{Claim, Much, Shown, sentences};
use crate::cluster::{self, Wanted};
use crate::lab::scenario::Figure;
use crate::{mutants, workspace};

const CRATE: &str = "nvmeof-recoverer";

/// Incidents of the simulator: by default, and with `--full`.
const INCIDENTS: u64 = 100_000;
const INCIDENTS_FULL: u64 = 1_000_000;

/// Everything that can be shown without a VM.
pub(super) fn show(much: Much, verbose: bool) -> anyhow::Result<Vec<Shown>> {
    let mut shown = vec![
        plan(much == Much::Full, verbose)?,
        taken_out()?,
        scenarios(&Wanted::All, "the controller on a real API server", verbose)?,
    ];
    if much == Much::Full {
        shown.push(scenarios(&Wanted::Ceph, "the controller and a real Ceph", verbose)?);
    }
    Ok(shown)
}

fn scenarios(wanted: &Wanted, by: &str, verbose: bool) -> anyhow::Result<Shown> {
    let (passed, said) = cluster::test(wanted, verbose)?;
    let mut claims = with_figures(sentences(&said), &said);
    if claims.is_empty() || (!passed && claims.iter().all(|claim| claim.holds)) {
        claims.push(Claim::new(false, "the scenarios do not build or do not end"));
    }
    Ok(Shown { by: by.to_owned(), claims })
}

fn plan(full: bool, verbose: bool) -> anyhow::Result<Shown> {
    let incidents = if full { INCIDENTS_FULL } else { INCIDENTS };
    println!("prove: cargo test --release -p {CRATE}, {incidents} incidents");
    let output = workspace::cargo()
        .args(["test", "--release", "--quiet", "--no-fail-fast", "-p", CRATE, "--lib", "--tests"])
        .args(["--", "--format", "pretty", "--show-output", "--test-threads", "2"])
        .env("INCIDENTS", incidents.to_string())
        .current_dir(workspace::root())
        .output()
        .context("cannot start cargo")?;
    let said = String::from_utf8_lossy(&output.stdout);
    let mut claims = with_figures(sentences(&said), &said);
    if !output.status.success() && claims.iter().all(|claim| claim.holds) {
        print!("{}", String::from_utf8_lossy(&output.stderr));
        claims.push(Claim::new(false, "the tests do not build or do not end"));
    } else if claims.is_empty() {
        claims.push(Claim::new(false, "there are no tests"));
    }
    if verbose || claims.iter().any(|claim| !claim.holds) {
        print!("{said}");
    } else {
        said.lines().filter(|line| is_table(line)).for_each(|line| println!("{line}"));
    }
    Ok(Shown { by: "the plan, its simulator and its scheduler".to_owned(), claims })
}

/// A row of the comparison of schedulers.
fn is_table(line: &str) -> bool {
    line.starts_with("TABLE ")
}

/// Each test's figures stand under its name, in what it printed.
fn with_figures(mut claims: Vec<Claim>, said: &str) -> Vec<Claim> {
    let mut of = None;
    for line in said.lines() {
        if let Some(name) =
            line.strip_prefix("---- ").and_then(|it| it.strip_suffix(" stdout ----"))
        {
            of = name.rsplit("::").next().map(|name| name.replace('_', " "));
        } else if let Some(figure) = Figure::parse(line) {
            let whose = claims.iter_mut().find(|claim| Some(&claim.text) == of.as_ref());
            if let Some(claim) = whose {
                claim.figures.push(figure);
            }
        }
    }
    claims
}

fn taken_out() -> anyhow::Result<Shown> {
    let verdicts = mutants::all("", mutants::INCIDENTS)?;
    let claims = verdicts.into_iter().map(|verdict| Claim::new(verdict.found, verdict.text));
    Ok(Shown { by: "each rule taken out once is noticed".to_owned(), claims: claims.collect() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_belong_to_the_test_that_printed_them() {
        let said = "test a::it_is_fast ... ok\ntest it_is_safe ... ok\n\nsuccesses:\n\n\
                    ---- a::it_is_fast stdout ----\nFIGURE took=12 ms\n\n\
                    ---- it_is_safe stdout ----\nTABLE x\nFIGURE moves=3\n";
        let claims = with_figures(sentences(said), said);
        let of = |n: usize| -> Vec<&str> {
            claims[n].figures.iter().map(|figure| figure.name.as_str()).collect()
        };
        assert_eq!((of(0), of(1)), (vec!["took"], vec!["moves"]));
    }
}
