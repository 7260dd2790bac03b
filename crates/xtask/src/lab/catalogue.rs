//! Holds `tests/kernel/CATALOGUE.md` to what there is: a page that names scenarios and tests is
//! worth something only as long as they exist and run where it says.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::kernel::Series;
use super::scenario::{self, Scenario};

/// How many faults the page must have.
const FAULTS: usize = 25;

/// Scenarios that are about the safety of data and nothing else: each belongs to a fault.
const SAFETY: &str = "safety-";

/// One `## n. title` with its `- key: text` lines.
#[derive(Debug, Default)]
struct Fault {
    title: String,
    lines: BTreeMap<String, String>,
}

/// A name in backticks, with what stands in brackets right behind it.
#[derive(Debug, PartialEq, Eq)]
struct Named {
    name: String,
    kernels: Option<String>,
}

fn page() -> String {
    let path = crate::workspace::root().join("tests/kernel/CATALOGUE.md");
    std::fs::read_to_string(path).unwrap()
}

fn faults(page: &str) -> Vec<Fault> {
    let mut faults: Vec<Fault> = Vec::new();
    let mut key = String::new();
    for line in page.lines() {
        if let Some(title) = line.strip_prefix("## ") {
            faults.push(Fault { title: title.to_owned(), ..Fault::default() });
            continue;
        }
        let Some(fault) = faults.last_mut() else { continue };
        if let Some((name, text)) = line.strip_prefix("- ").and_then(|rest| rest.split_once(": ")) {
            name.clone_into(&mut key);
            fault.lines.insert(key.clone(), text.to_owned());
        } else if let Some(text) = fault.lines.get_mut(&key).filter(|_| line.starts_with("  ")) {
            text.push(' ');
            text.push_str(line.trim());
        }
    }
    faults
}

fn named(text: &str) -> Vec<Named> {
    let mut parts = text.split('`');
    let mut found = Vec::new();
    parts.next();
    while let (Some(name), Some(behind)) = (parts.next(), parts.next()) {
        let kernels = behind.strip_prefix(" (").and_then(|rest| rest.split_once(')'));
        let kernels = kernels.map(|(kernels, _)| kernels.to_owned());
        found.push(Named { name: name.to_owned(), kernels });
    }
    found
}

/// The names of all `#[test]` functions below a directory.
fn tests_below(directory: &Path, found: &mut BTreeSet<String>) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            tests_below(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = std::fs::read_to_string(&path).unwrap();
            let mut lines = text.lines().map(str::trim);
            while lines.by_ref().any(|line| line == "#[test]") {
                let is_body = |line: &&str| !line.starts_with("#[") && !line.starts_with("//");
                let head = lines.by_ref().find(is_body).unwrap_or_default();
                let name = head.strip_prefix("fn ").and_then(|rest| rest.split_once('('));
                found.extend(name.map(|(name, _)| name.to_owned()));
            }
        }
    }
}

fn tests() -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    tests_below(&crate::workspace::root().join("crates"), &mut found);
    found
}

fn kernels_of(scenario: &Scenario) -> String {
    let all = [Series::V6_1, Series::V6_12];
    let on: Vec<String> = all
        .into_iter()
        .filter(|kernel| scenario.runs_on(*kernel))
        .map(|kernel| kernel.to_string())
        .collect();
    on.join(" ")
}

#[test]
fn every_fault_is_there_once_and_says_what_must_be_done_where_and_to_which_data() {
    let faults = faults(&page());
    let numbered: Vec<&Fault> =
        faults.iter().filter(|fault| fault.title.starts_with(char::is_numeric)).collect();
    assert_eq!(numbered.len(), FAULTS);
    for (at, fault) in numbered.iter().enumerate() {
        assert!(fault.title.starts_with(&format!("{}. ", at + 1)), "{}", fault.title);
    }
    for fault in &faults {
        for key in ["must", "staged", "data"] {
            assert!(fault.lines.contains_key(key), "{}: no `- {key}:`", fault.title);
        }
        let known = ["must", "staged", "data", "not in the lab"];
        for key in fault.lines.keys() {
            assert!(known.contains(&key.as_str()), "{}: `{key}`", fault.title);
        }
    }
}

#[test]
fn everything_the_catalogue_names_is_there_and_runs_on_the_kernels_it_says() {
    let tests = tests();
    let scenarios = scenario::select(&scenario::directory(), &[]).unwrap();
    for fault in faults(&page()) {
        let mut in_the_lab = fault.lines.contains_key("not in the lab");
        for named in named(&fault.lines["staged"]) {
            let scenario = scenarios.iter().find(|scenario| scenario.name == named.name);
            if let Some(scenario) = scenario {
                in_the_lab = true;
                let wanted = Some(kernels_of(scenario));
                assert_eq!(named.kernels, wanted, "{}: {}", fault.title, named.name);
            } else {
                assert!(tests.contains(&named.name), "{}: `{}`?", fault.title, named.name);
            }
        }
        assert!(in_the_lab, "{}: no scenario, and no reason why", fault.title);
    }
}

#[test]
fn no_scenario_of_the_safety_proof_is_without_its_fault() {
    let faults = faults(&page());
    let staged = faults.iter().flat_map(|fault| named(&fault.lines["staged"]));
    let staged: BTreeSet<String> = staged.map(|named| named.name).collect();
    for scenario in scenario::select(&scenario::directory(), &[]).unwrap() {
        if scenario.name.starts_with(SAFETY) {
            assert!(staged.contains(&scenario.name), "{} is not in the catalogue", scenario.name);
        }
    }
}

#[test]
fn a_page_is_read_as_it_is_written() {
    let page =
        "intro `x`\n## 1. A\n\n- must: do\n- staged: `a-b` (6.1 6.12),\n  `c_d`\n- data: x\n";
    let read = faults(page);
    assert_eq!(read.len(), 1);
    assert_eq!(read[0].title, "1. A");
    let names = named(&read[0].lines["staged"]);
    assert_eq!(names[0], Named { name: "a-b".into(), kernels: Some("6.1 6.12".into()) });
    assert_eq!(names[1], Named { name: "c_d".into(), kernels: None });
}
