//! `cargo xtask prove vendors`: any vendor, and beside OpenStack.
//!
//! ```text
//!   cargo test: backends, contract, hostile answers ─┐
//!   the conformance kit, and ten planted faults ─────┤     and of those, in `known`: each oddity of the
//!   … ───────────────────────────────────────────────┤     provisioner, each defect of its own agent
//!   os-brick from PyPI: the oldest and the newest ───┼─► claims
//!   the lab: attach, heal, detach; races; reaction ──┘        └─► bounds: ours beside the model
//! ```
//!
//! The vendor's polling agent is held against by a **model** of it, twice: one that polls in the
//! lab, beside the same provisioner, array and faults as ours (`tests/kernel/lib/polling.py`), and
//! one on paper, which says how long a fault waits for the next pass at every moment of the period.
//! The measured figures are compared; they must be what paper says, or one of the two models is
//! wrong.
//!
//! Both are measured from the moment that the host's kernel itself dates
//! (`tests/kernel/lib/dates.sh`): when it lets go of the namespace or MD of the leg, and when it
//! has the namespace's disk again. How long it takes until then, which is the same for both, is
//! told beside it.

mod known;

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::Context as _;
use vendor_emulator::polling::{self, Passes, Story};

use super::{Claim, Shown, median, sentences};
use crate::lab::scenario::Figure;
use crate::package::wheel;
use crate::workspace;

/// os-brick of Yoga, and the newest: the module is imported by both.
const OS_BRICKS: [&str; 2] = ["5.2.4", "7.1.1"];
/// How many times faster than the model ours has to be, at the median.
const FASTER: f64 = 100.0;
/// How far the model in the lab may be from the one on paper, at the median: a few rounds, and the
/// time that its own programs take.
const NEAR: f64 = 6000.0;

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
            &["-p", "heal-host", "--lib", "--", "connect", "controller"],
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
            &["-p", "nvme-heald", "-p", "heal-types", "--lib"],
            verbose,
        )?,
    ];
    let wheel = wheel::build()?;
    for os_brick in OS_BRICKS {
        shown.push(module(os_brick, &wheel, verbose)?);
    }
    let known = [known::defects(&shown), known::oddities(&shown)?];
    shown.extend(known);
    Ok(shown)
}

fn tests(by: &str, arguments: &[&str], verbose: bool) -> anyhow::Result<Shown> {
    println!("prove: cargo test {}", arguments.join(" "));
    let mut command = workspace::cargo();
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

/// What the lab's figures must come to: ours beside the model of the polling agent.
pub(super) fn bounds(figures: &[Figure]) -> Vec<Claim> {
    let of = |prefix: &str| -> Vec<f64> {
        let mine = figures.iter().filter(|figure| figure.name.starts_with(prefix));
        mine.map(|figure| figure.value).collect()
    };
    let all = ["report_", "readd_", "polled_report_", "polled_readd_"].map(of);
    if all.iter().all(Vec::is_empty) {
        return Vec::new();
    }
    let [report, readd, polled_report, polled_readd] = all.map(median);
    let kernel = ["kernel_report_", "kernel_readd_"].map(|prefix| median(of(prefix)));
    let (paper_report, paper_readd) = on_paper();
    vec![
        compared("from a fault to the report at the provisioner", report, polled_report, kernel[0]),
        compared("from the return to the re-add", readd, polled_readd, kernel[1]),
        as_on_paper("to the report", polled_report, paper_report),
        as_on_paper("to the re-add", polled_readd, paper_readd),
    ]
}

fn compared(what: &str, ours: Option<f64>, theirs: Option<f64>, kernel: Option<f64>) -> Claim {
    let (Some(ours), Some(theirs), Some(kernel)) = (ours, theirs, kernel) else {
        return Claim::new(false, format!("{what}: not measured"));
    };
    let times = theirs / ours.max(f64::MIN_POSITIVE);
    let text = format!(
        "{what}: {ours:.0} ms, a model of the 30 s polling agent {theirs:.0} ms: {times:.0} times \
         faster, at least {FASTER} wanted (medians; before that, for either, the kernel itself takes \
         {kernel:.0} ms)"
    );
    Claim::new(times >= FASTER, text)
}

fn as_on_paper(what: &str, measured: Option<f64>, paper: f64) -> Claim {
    let Some(measured) = measured else {
        return Claim::new(false, format!("the model, {what}: not measured"));
    };
    let text = format!("the model, {what}: {measured:.0} ms in the lab, {paper:.0} ms on paper");
    Claim::new((measured - paper).abs() <= NEAR, text)
}

/// The model's medians, milliseconds, over faults at every moment of its period.
fn on_paper() -> (f64, f64) {
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
    fn ours_is_held_against_the_model_and_what_was_not_measured_does_not_hold() {
        let figures = |lines: &[&str]| -> Vec<Figure> {
            lines.iter().filter_map(|line| Figure::parse(line)).collect()
        };
        let holds = |lines: &[&str]| -> Vec<bool> {
            let claims = bounds(&figures(lines));
            claims.iter().map(|claim| claim.holds).collect()
        };
        let polled = ["FIGURE polled_report_1=15300 ms", "FIGURE polled_readd_1=16000 ms"];
        let kernel = ["FIGURE kernel_report_1=120 ms", "FIGURE kernel_readd_1=300 ms"];
        let with = |ours: [&'static str; 2]| [&ours[..], &polled[..], &kernel[..]].concat();
        assert_eq!(holds(&["FIGURE attach_ms=3 ms"]), [true; 0]);
        assert_eq!(holds(&["FIGURE report_1=20 ms"]), [false; 4]);
        assert_eq!(holds(&polled), [false, false, true, true]);
        let fast = with(["FIGURE report_1=20 ms", "FIGURE readd_1=90 ms"]);
        assert_eq!(holds(&fast), [true; 4]);
        let slow = with(["FIGURE report_1=900 ms", "FIGURE readd_1=9000 ms"]);
        assert_eq!(holds(&slow), [false, false, true, true]);
        let odd = ["FIGURE polled_report_1=900 ms", "FIGURE polled_readd_1=60000 ms"];
        assert_eq!(holds(&odd)[2..], [false, false]);
    }
}
