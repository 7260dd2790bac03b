//! The conformance kit as a vendor runs it.
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "the test runs the built program and plays the vendor, who writes files"
)]

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

fn scratch(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::create_dir_all(&path).unwrap();
    path
}

fn reference() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../packaging/plugins/nvme-heal-plugin.py")
}

/// The kit's exit code and its JSON.
fn kit(backend: &str, scratch: &Path, only: &str) -> (Option<i32>, Value) {
    let done = Command::new(env!("CARGO_BIN_EXE_nvme-heal"))
        .args(["provisioner", "conformance", "--json", "--only", only, "--backend", backend])
        .arg("--scratch")
        .arg(scratch)
        .output()
        .unwrap();
    let report = serde_json::from_slice(&done.stdout).unwrap_or(Value::Null);
    (done.status.code(), report)
}

fn with_verdict<'a>(report: &'a Value, verdict: &str) -> Vec<&'a str> {
    let cases = report["cases"].as_array().unwrap().iter();
    cases.filter(|c| c["verdict"] == verdict).map(|c| c["name"].as_str().unwrap()).collect()
}

#[test]
fn the_reference_plugin_passes_all_that_can_be_staged_from_outside() {
    let (code, report) = kit(&format!("exec:{}", reference().display()), &scratch("passes"), "");
    assert_eq!(code, Some(0), "{report:#}");
    assert_eq!(with_verdict(&report, "failed"), [""; 0]);
    assert!(with_verdict(&report, "passed").len() >= 40, "{report:#}");
    let skipped = with_verdict(&report, "skipped");
    assert!(skipped.iter().all(|name| name.contains("away") || name.contains("came back")));
}

/// Planted faults, each in one line of the reference, and what must catch it.
const PLANTED: &[(&str, &str, &str)] = &[
    ("if key in grant[\"keys\"]", "if key in []", "a withdrawal survives a restart"),
    ("and spare[\"size\"] >= lost[\"size\"]", "", "a spare that is too small is never granted"),
    ("return taken | spent", "return spent", "two lost replicas never get the same replacement"),
    (
        "if once and seen in self.state[\"seen\"]:",
        "if False:",
        "a late repetition of an old report does not undo a newer one",
    ),
    ("store(self.state_path, self.state)", "pass", "a report survives a restart"),
    (
        "listed += [(grant[\"replica\"], \"synchronizing\") for",
        "listed += [(grant[\"replica\"], \"available\") for",
        "a granted replica is listed as synchronizing beside the lost one",
    ),
    (
        "by_array = volume.get(\"array\") == call[\"array\"]",
        "by_array = True",
        "an array that nobody knows is none and not a fault",
    ),
    (
        "grant[\"stage\"] = \"withdrawn\"",
        "pass",
        "the return of the lost replica withdraws the request",
    ),
    (
        "raise Fault(\"refused\", \"no spare is left that is large enough\")",
        "raise Fault(\"unreachable\", \"no spare\")",
        "a request without a spare left is refused",
    ),
    (
        "return {\"volume\": None}",
        "raise Fault(\"not_found\", \"none\")",
        "an array that nobody knows is none and not a fault",
    ),
    ("if word != \"removed\":", "if True:", "a removed replica leaves the volume"),
];

#[test]
fn every_planted_fault_is_caught_by_the_case_that_is_about_it() {
    let sound = std::fs::read_to_string(reference()).unwrap();
    for (number, (line, fault, caught)) in PLANTED.iter().enumerate() {
        assert_eq!(sound.matches(line).count(), 1, "{line} stands in the reference once");
        let scratch = scratch(&format!("planted-{number}"));
        let plugin = scratch.join("plugin.py");
        std::fs::copy(reference(), &plugin).unwrap();
        std::fs::write(&plugin, sound.replace(line, fault)).unwrap();
        let (code, report) = kit(&format!("exec:{}", plugin.display()), &scratch, caught);
        assert_eq!(code, Some(2), "{line} became {fault}: {report:#}");
        assert_eq!(with_verdict(&report, "failed"), [*caught]);
    }
}

#[test]
fn a_kit_that_can_show_nothing_says_so() {
    let scratch = scratch("earnest");
    std::fs::write(scratch.join("inventory.json"), "{\"volumes\":[],\"spares\":[]}").unwrap();
    let backend = format!("exec:{}", reference().display());
    let (code, report) = kit(&backend, &scratch, "unknown replica");
    assert_eq!(code, Some(3), "{report:#}");
    let text = std::fs::read_to_string(scratch.join("inventory.json")).unwrap();
    assert_eq!(text, "{\"volumes\":[],\"spares\":[]}", "an inventory in earnest is not touched");
    assert_eq!(kit("exec:/nonexistent", &scratch, "").0, Some(3));
    assert_eq!(kit("carrier-pigeon", &scratch, "").0, Some(3));
    assert_eq!(kit(&backend, &scratch, "no such case").0, Some(3));
}
