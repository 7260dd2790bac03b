//! `cargo xtask prove vendors`: any vendor, and beside OpenStack.
//!
//! ```text
//!   cargo test: backends, contract, hostile answers ─┐
//!   the conformance kit, and ten planted faults ─────┤
//!   os-brick from PyPI: the oldest and the newest ───┼─► claims
//!   the lab: attach, heal, detach; races; reaction ──┘        └─► bounds: the model of the polling agent
//! ```
//!
//! What the vendor's polling agent would have needed is computed by a **model** of it, for the faults
//! that the lab measured: its schedule is known, so for each fault there is a delay for every moment of
//! its period at which the fault could have come, and the median of those is what ours is held against.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::Context as _;
use vendor_emulator::polling::{self, Passes, Story};

use super::{Claim, Shown, sentences};
use crate::lab::scenario::Figure;
use crate::package::wheel;
use crate::workspace;

/// os-brick of Yoga, and the newest: the module is imported by both.
const OS_BRICKS: [&str; 2] = ["5.2.4", "7.1.1"];
/// How many times faster than the model ours has to be, at the median.
const FASTER: f64 = 100.0;

/// Everything that can be shown without the lab.
pub(super) fn show(verbose: bool) -> anyhow::Result<Vec<Shown>> {
    let mut shown = vec![
        tests(
            "the backends keep the contract; odd, slow and hostile answers change nothing",
            &["-p", "heal-provisioner", "--lib", "--tests"],
            verbose,
        )?,
        tests(
            "the conformance kit passes the reference, and fails each planted fault for its reason",
            &["-p", "nvme-heal", "--test", "conformance"],
            verbose,
        )?,
        tests(
            "the emulated provisioner, and the model of the polling agent",
            &["-p", "vendor-emulator", "--lib"],
            verbose,
        )?,
        tests(
            "os-brick's lock from the other side, and how subsystems are connected",
            &["-p", "heal-host", "--lib", "--", "connect"],
            verbose,
        )?,
        tests(
            "a repair goes on as it should, also when os-brick detaches in the middle of it",
            &[
                "-p",
                "heal-sim",
                "--test",
                "scenarios",
                "--test",
                "regressions",
                "--test",
                "isolation",
            ],
            verbose,
        )?,
        tests(
            "the daemon beside os-brick and its provisioner",
            &["-p", "nvme-heald", "--lib"],
            verbose,
        )?,
    ];
    let wheel = wheel::build()?;
    for os_brick in OS_BRICKS {
        shown.push(module(os_brick, &wheel, verbose)?);
    }
    shown.push(avoided(&shown));
    Ok(shown)
}

/// What the vendor's polling agent does wrong, and the tests that show that ours does not.
#[rustfmt::skip]
const DEFECTS: &[(&str, &[&str])] = &[
    ("a deletion is confirmed although mdadm refused to let go of the leg", &["tools that fail cost time only"]),
    ("a leg that cannot be read is \"not found\", and its deletion is confirmed", &["a good leg whose ids cannot be read for a moment is still known by them"]),
    ("the last good leg is failed, and called missing", &["a doubtful survivor is left alone"]),
    ("a cut of the host's own network makes every replica missing", &["a host that lost its only link isolates nothing and says so once"]),
    ("the old replica goes before the new one is in sync", &["the old replica is not deleted before the new one is in sync", "a replica that came back stays and the new one goes"]),
    ("every pass asks for one replica more", &["asking again and again is one replica"]),
    ("a grace of an hour and more never ends", &["a grace beyond an hour is that long"]),
    ("two replicas on their way out are never seen to", &["two terminating replicas are moved one after the other", "two replicas on their way out both go"]),
    ("legs are added without os-brick's lock and without a look at them", &["nothing is changed while os brick attaches or detaches", "nothing is ever written to a replica that is rejected"]),
    ("a migration deletes its source too early", &["a terminating replica is moved without losing redundancy"]),
    ("a replica is called available before it was filled", &["a new replica is never shown as good before the host says so"]),
    ("one odd answer ends the pass for every array", &["an odd volume is its own trouble", "what is missing fails by its name and nothing else does"]),
    ("one unreachable replica, or a slow provisioner, stalls all others", &["a stuck device holds its own array only", "a change that hangs does not keep others from looking"]),
    ("a provisioner that is down stops an attach for minutes", &["an attach beside a daemon that takes no calls succeeds at once"]),
    ("a token and client credentials together fail the attach; no new login after a refusal", &["a token and client credentials together are no crash", "a token that was revoked is replaced within the call", "a secret that is refused is unauthorized and stays secret"]),
    ("whoever answers is believed to be the provisioner", &["a server of another authority is not believed"]),
    ("the way that an error is logged is an error", &["a log that breaks raises nothing"]),
    ("a controller is not recognised by its address, and connected again", &["a portal that has a controller is left to the kernel"]),
    ("its threads keep nova-compute from ending", &["it leaves no thread and no open file behind"]),
    ("the same event is told every half minute, or never", &["a lost replica is replaced and the daemon tells of it"]),
    ("another release of a library, and it is silently not there", &["it needs the standard library and python 3 6 only"]),
    ("upstream os-brick calls it in another way than it expects", &["it is called in every way that was ever published"]),
];

/// Each defect as a claim of its own: it holds if the tests that show it were run, and hold.
fn avoided(shown: &[Shown]) -> Shown {
    let claims = DEFECTS.iter().map(|(defect, tests)| {
        let shows = |test: &&&str| {
            let mut found = shown.iter().flat_map(|group| &group.claims);
            let mut of_that_name = found.by_ref().filter(|claim| claim.text == **test).peekable();
            of_that_name.peek().is_some() && of_that_name.all(|claim| claim.holds)
        };
        let missing: Vec<&&str> = tests.iter().filter(|test| !shows(test)).collect();
        match missing.first() {
            None => Claim::new(true, format!("not so here: {defect}")),
            Some(test) => Claim::new(false, format!("{defect}: `{test}` does not show otherwise")),
        }
    });
    Shown { by: "what the polling agent does wrong".to_owned(), claims: claims.collect() }
}

fn tests(by: &str, arguments: &[&str], verbose: bool) -> anyhow::Result<Shown> {
    println!("prove: cargo test {}", arguments.join(" "));
    let mut command = Command::new("cargo");
    command.args(["test", "--quiet", "--no-fail-fast"]);
    let (before, after) = match arguments.iter().position(|argument| *argument == "--") {
        Some(at) => (&arguments[..at], &arguments[at + 1..]),
        None => (arguments, &[][..]),
    };
    let output = command
        .args(before)
        .args(["--", "--format", "pretty", "--test-threads", "2"])
        .args(after)
        .current_dir(workspace::root())
        .output()
        .context("cannot start cargo")?;
    Ok(told(by, &output, sentences(&String::from_utf8_lossy(&output.stdout)), verbose))
}

fn told(by: &str, output: &std::process::Output, claims: Vec<Claim>, verbose: bool) -> Shown {
    let mut claims = claims;
    if !output.status.success() && claims.iter().all(|claim| claim.holds) {
        claims.push(Claim::new(false, "the tests do not build or do not end"));
    } else if claims.is_empty() {
        claims.push(Claim::new(false, "there are no tests"));
    }
    if verbose || claims.iter().any(|claim| !claim.holds) {
        print!("{}", String::from_utf8_lossy(&output.stdout));
        eprint!("{}", String::from_utf8_lossy(&output.stderr));
    }
    Shown { by: by.to_owned(), claims }
}

/// The module's own tests, where that os-brick and our wheel are installed.
fn module(os_brick: &str, wheel: &Path, verbose: bool) -> anyhow::Result<Shown> {
    let release = format!("os-brick=={os_brick}");
    let python = wheel::environment(&release.replace("==", "-"), &[&release])?;
    let wheel = wheel.to_str().context("the path of the wheel is not text")?;
    wheel::pip_install(&python, &["--force-reinstall", "--no-deps", wheel])?;
    let script = workspace::root().join("packaging/openstack/tests/test_nvmeof_agent.py");
    println!("prove: {} beside {release}", script.display());
    let output = Command::new(&python)
        .arg(&script)
        .arg("--verbose")
        .output()
        .with_context(|| format!("cannot start {}", python.display()))?;
    let claims = unittest(&String::from_utf8_lossy(&output.stderr));
    Ok(told(&format!("the module, imported by the real {release}"), &output, claims, verbose))
}

/// `test_it_works (__main__.ModuleTest.test_it_works) ... ok`, with what the test logs in between.
fn unittest(said: &str) -> Vec<Claim> {
    let mut claims = Vec::new();
    let mut open: Option<String> = None;
    for line in said.lines() {
        if let Some(name) = line.strip_prefix("test_").and_then(|rest| rest.split(' ').next()) {
            open = Some(name.replace('_', " "));
        }
        let verdict = line.rsplit(" ... ").next().unwrap_or_default().trim();
        let holds = match verdict {
            "ok" => true,
            "FAIL" | "ERROR" => false,
            _ => continue,
        };
        if let Some(text) = open.take() {
            claims.push(Claim::new(holds, text));
        }
    }
    claims
}

/// What the lab's figures must come to, held against the model of the polling agent.
pub(super) fn bounds(figures: &[Figure]) -> Vec<Claim> {
    let of = |prefix: &str| -> Vec<f64> {
        let mine = figures.iter().filter(|figure| figure.name.starts_with(prefix));
        mine.map(|figure| figure.value).collect()
    };
    let (reports, readds) = (of("report_"), of("readd_"));
    if reports.is_empty() && readds.is_empty() {
        return Vec::new();
    }
    let (missing, added) = polled();
    vec![
        compared("from a fault to the report at the provisioner", reports, missing),
        compared("from the return to the re-add", readds, added),
    ]
}

fn compared(what: &str, ours: Vec<f64>, theirs: f64) -> Claim {
    let Some(ours) = median(ours) else {
        return Claim::new(false, format!("{what}: not measured"));
    };
    let times = theirs / ours.max(f64::MIN_POSITIVE);
    let text = format!(
        "{what}: {ours:.0} ms, a model of the 30 s polling agent {theirs:.0} ms: {times:.0} times \
         faster, at least {FASTER} wanted (medians)"
    );
    Claim::new(times >= FASTER, text)
}

/// The model's medians, milliseconds, over faults at every moment of its period.
fn polled() -> (f64, f64) {
    let (mut missing, mut added) = (Vec::new(), Vec::new());
    for step in 0..1000_u32 {
        let fault = Duration::from_secs(100) + Duration::from_micros(30_200) * step;
        let back = fault + Duration::from_secs(200);
        let story = Story { fault, back, resync: Duration::from_secs(10) };
        let told = polling::play(story, Passes::default());
        let after = |at: Option<Duration>, since: Duration| {
            at.map(|at| at.saturating_sub(since).as_secs_f64() * 1000.0)
        };
        missing.extend(after(told.missing, fault));
        added.extend(after(told.added, back));
    }
    (median(missing).unwrap_or_default(), median(added).unwrap_or_default())
}

fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_python_test_is_a_sentence_and_what_it_logs_is_not() {
        let said = "test_it_works (__main__.T.test_it_works) ... ok\n\
                    test_it_logs (__main__.T.test_it_logs) ... a line of a log\nok\n\
                    test_it_breaks (__main__.T.test_it_breaks) ... FAIL\n\nRan 3 tests\n";
        let claims = unittest(said);
        let shown: Vec<(bool, &str)> =
            claims.iter().map(|claim| (claim.holds, claim.text.as_str())).collect();
        assert_eq!(shown, [(true, "it works"), (true, "it logs"), (false, "it breaks")]);
    }

    #[test]
    fn a_defect_is_avoided_only_if_all_tests_of_it_were_run_and_hold() {
        let all: Vec<Claim> = DEFECTS
            .iter()
            .flat_map(|(_, tests)| tests.iter().map(|test| Claim::new(true, *test)))
            .collect();
        let group = |claims: Vec<Claim>| [Shown { by: String::new(), claims }];
        assert!(avoided(&group(all.clone())).claims.iter().all(|claim| claim.holds));
        let mut failed = all.clone();
        failed[0].holds = false;
        assert!(!avoided(&group(failed)).claims[0].holds);
        assert!(!avoided(&group(all[1..].to_vec())).claims[0].holds);
    }

    #[test]
    fn ours_is_held_against_the_model_and_what_was_not_measured_does_not_hold() {
        let figures = |lines: &[&str]| -> Vec<Figure> {
            lines.iter().filter_map(|line| Figure::parse(line)).collect()
        };
        let holds = |lines: &[&str]| -> Vec<bool> {
            bounds(&figures(lines)).iter().map(|claim| claim.holds).collect()
        };
        assert_eq!(holds(&["FIGURE attach_ms=3 ms"]), [true; 0]);
        assert_eq!(holds(&["FIGURE report_1=20 ms"]), [true, false]);
        assert_eq!(holds(&["FIGURE report_1=20 ms", "FIGURE readd_1=9000 ms"]), [true, false]);
        assert_eq!(holds(&["FIGURE report_1=900 ms", "FIGURE readd_1=90 ms"]), [false, true]);
    }
}
