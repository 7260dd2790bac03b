//! What is known of the vendor, row by row, and the tests that show what ours makes of it.
//!
//! ```text
//!   QUIRKS.md: row ── provisioner ── backend ── `tests` ─┐   the tests that were run
//!   DEFECTS: number ── what its agent does ── tests ─────┴─► do all of them hold? ─► a claim for each
//! ```
//!
//! The page of oddities stands beside the backend, for whoever reads that. The defects are facts
//! about the vendor's polling agent, read in its source and seen in its runs; they have numbers,
//! and no number is without a line.
//!
//! The price: a test is named here, or there, so renaming one needs an eye on both. A name that no
//! test bears fails the tests of this file.

use anyhow::Context as _;

use super::super::{Claim, Shown};
use crate::workspace;

/// How many defects are known.
#[cfg(test)]
const COUNT: u8 = 25;
/// The page of oddities.
const PAGE: &str = "crates/heal-provisioner/src/kumoscale/QUIRKS.md";

/// What the vendor's polling agent does wrong, and the tests that show that ours does not.
#[rustfmt::skip]
const DEFECTS: &[(u8, &str, &[&str])] = &[
    (1, "a deletion is confirmed although mdadm refused to let go of the leg", &["tools that fail cost time only"]),
    (2, "a leg that cannot be read is \"not found\", and its deletion is confirmed", &["a good leg whose ids cannot be read for a moment is still known by them"]),
    (3, "the last good leg is failed, and called missing", &["a doubtful survivor is left alone", "the last leg is left alone when its cable is pulled"]),
    (4, "a cut of the host's own network makes every replica missing", &["a host that lost its only link isolates nothing and says so once"]),
    (5, "the old replica goes before the new one is in sync", &["the old replica is not deleted before the new one is in sync", "a replica that came back stays and the new one goes"]),
    (6, "every pass asks for one replica more", &["asking again and again is one replica"]),
    (7, "a grace of an hour and more never ends", &["a grace beyond an hour is that long"]),
    (8, "two replicas on their way out are never seen to", &["two terminating replicas are moved one after the other", "two replicas on their way out both go"]),
    (9, "legs are added without os-brick's lock and without a look at them", &["nothing is changed while os brick attaches or detaches", "nothing is ever written to a replica that is rejected"]),
    (9, "a volume that is being detached is published again", &["a volume that is not published to this host is not touched"]),
    (9, "the slot of a device that is gone is never emptied, and the array never grows again", &["an idle leg whose device is gone is failed and replaced", "a third copy is added and then grown into"]),
    (10, "a migration deletes its source too early", &["a terminating replica is moved without losing redundancy"]),
    (11, "the links of other volumes go, if their names begin alike", &["arrays whose names begin alike do not touch each other"]),
    (12, "a replica is called available before it was filled", &["a new replica is never shown as good before the host says so"]),
    (13, "one odd answer ends the pass for every array", &["an odd volume is its own trouble", "what is missing fails by its name and nothing else does", "a replica that is offered and has no portal is no answer"]),
    (14, "one error, and a thread of its own is dead for good", &["a look that breaks off concludes nothing and is made again", "a job that breaks off is told and the next one runs", "a record that cannot be read quarantines its array alone until a person looked"]),
    (15, "one unreachable replica, or a slow provisioner, stalls all others", &["a stuck device holds its own array only", "a change that hangs does not keep others from looking"]),
    (16, "a provisioner that is down stops an attach for minutes", &["an attach beside a daemon that takes no calls succeeds at once"]),
    (17, "a token and client credentials together fail the attach; no new login after a refusal", &["a token and client credentials together are no crash", "a token that was revoked is replaced within the call", "a secret that is refused is unauthorized and stays secret", "a token server that never answers costs the call its time and no more"]),
    (18, "whoever answers is believed to be the provisioner", &["a server of another authority is not believed", "a token server is verified also where a scope is set"]),
    (18, "two of it run at once, where they do not see each other's lock", &["a stale socket is replaced and nothing else is"]),
    (19, "the way that an error is logged is an error", &["a log that breaks raises nothing"]),
    (20, "a controller is not recognised by its address, and connected again", &["a portal that has a controller is left to the kernel", "an address reads in every form the kernel writes"]),
    (21, "its threads keep nova-compute from ending", &["it leaves no thread and no open file behind"]),
    (21, "a step of the wall clock shifts when it looks", &["a deadline ignores the wall clock until a reboot"]),
    (22, "the same event is told every half minute, or never", &["a lost replica is replaced and the daemon tells of it"]),
    (23, "another release of a library, and it is silently not there", &["it needs the standard library and python 3 6 only"]),
    (24, "upstream os-brick calls it in another way than it expects", &["it is called in every way that was ever published"]),
    (25, "it ends with the service that happened to attach first", &["a daemon killed in every phase ends at the same place", "an array that the provisioner did not know is asked for again when somebody attaches"]),
];

/// Each defect as a claim of its own: it holds if the tests that show it were run, and hold.
pub(super) fn defects(shown: &[Shown]) -> Shown {
    let claims = DEFECTS.iter().map(|(number, defect, tests)| {
        let text = format!("not so here ({number}): {defect}");
        judged(text, tests.iter().copied(), shown)
    });
    Shown { by: "what the polling agent does wrong".to_owned(), claims: claims.collect() }
}

/// Each oddity of the provisioner as a claim: it holds if the tests of its row were run, and hold.
pub(super) fn oddities(shown: &[Shown]) -> anyhow::Result<Shown> {
    let path = workspace::root().join(PAGE);
    let page = std::fs::read_to_string(&path)
        .with_context(|| format!("cannot read {}", path.display()))?;
    let claims = rows(&page).into_iter().map(|row| {
        let tests: Vec<String> = row.tests.iter().map(|test| test.replace('_', " ")).collect();
        let text = format!("{}: {} — {}", row.id, row.theirs, row.ours);
        judged(text, tests.iter().map(String::as_str), shown)
    });
    Ok(Shown { by: "the provisioner's oddities".to_owned(), claims: claims.collect() })
}

fn judged<'a>(text: String, tests: impl Iterator<Item = &'a str>, shown: &[Shown]) -> Claim {
    let shows = |test: &str| {
        let mut of_that_name = shown
            .iter()
            .flat_map(|group| &group.claims)
            .filter(|claim| claim.text == test)
            .peekable();
        of_that_name.peek().is_some() && of_that_name.all(|claim| claim.holds)
    };
    match tests.into_iter().find(|test| !shows(test)) {
        None => Claim::new(true, text),
        Some(test) => Claim::new(false, format!("{text}: `{test}` does not show it")),
    }
}

/// A line of the page's tables.
#[derive(Debug, PartialEq, Eq)]
struct Row<'a> {
    id: &'a str,
    theirs: &'a str,
    ours: &'a str,
    tests: Vec<&'a str>,
}

fn rows(page: &str) -> Vec<Row<'_>> {
    page.lines().filter_map(row).collect()
}

/// A line whose first cell ends in a number; heads of tables and prose have none.
fn row(line: &str) -> Option<Row<'_>> {
    let cells: Vec<&str> = line.strip_prefix("| ")?.strip_suffix(" |")?.split(" | ").collect();
    let [id, theirs, ours, tests] = cells.try_into().ok()?;
    let tests = tests.split('`').skip(1).step_by(2).collect();
    id.ends_with(|end: char| end.is_ascii_digit()).then_some(Row { id, theirs, ours, tests })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::*;

    /// The names of all functions below a directory: tests are some of them.
    fn functions(folder: &Path, names: &mut BTreeSet<String>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let is = |wanted: &str| path.extension().is_some_and(|extension| extension == wanted);
            if path.is_dir() {
                functions(&path, names);
            } else if is("rs") || is("py") {
                let text = std::fs::read_to_string(&path).unwrap();
                let heads = text.lines().filter_map(|line| {
                    let line = line.trim_start();
                    let python = line.strip_prefix("def test_");
                    python.or_else(|| line.split_once("fn ").map(|(_, rest)| rest))
                });
                names.extend(
                    heads.filter_map(|head| Some(head.split_once('(')?.0.replace('_', " "))),
                );
            }
        }
    }

    fn all_functions() -> BTreeSet<String> {
        let mut names = BTreeSet::new();
        for folder in ["crates", "packaging/openstack/tests"] {
            functions(&workspace::root().join(folder), &mut names);
        }
        names
    }

    fn page() -> String {
        std::fs::read_to_string(workspace::root().join(PAGE)).unwrap()
    }

    #[test]
    fn every_defect_has_its_number_and_is_shown_by_tests_that_are_there() {
        let names = all_functions();
        let numbers: BTreeSet<u8> = DEFECTS.iter().map(|(number, ..)| *number).collect();
        assert_eq!(numbers, (1..=COUNT).collect());
        for (number, defect, tests) in DEFECTS {
            assert!(!tests.is_empty(), "{number} {defect}");
            for test in *tests {
                assert!(names.contains(*test), "`{test}` is no test: {number} {defect}");
            }
        }
    }

    #[test]
    fn every_row_of_the_oddities_is_shown_by_tests_that_are_there() {
        let (page, names) = (page(), all_functions());
        let rows = rows(&page);
        let ids: Vec<String> = rows.iter().map(|row| row.id.to_owned()).collect();
        let numbered = |letter: &str, count: usize| -> Vec<String> {
            (1..=count).map(|number| format!("{letter}{number}")).collect()
        };
        let wanted =
            [numbered("T", 13), numbered("A", 9), numbered("E", 17), numbered("S", 15)].concat();
        assert_eq!(ids, wanted);
        let lines = page.lines().filter(|line| line.starts_with("| ")).count();
        assert_eq!(lines, rows.len() + 4, "every line but the heads is a row");
        for row in rows {
            assert!(!row.tests.is_empty(), "{} is shown by nothing", row.id);
            for test in row.tests {
                assert!(names.contains(&test.replace('_', " ")), "{}: `{test}`?", row.id);
            }
        }
    }

    #[test]
    fn a_row_holds_only_if_all_tests_of_it_were_run_and_hold() {
        let all: Vec<Claim> = DEFECTS
            .iter()
            .flat_map(|(_, _, tests)| tests.iter().map(|test| Claim::new(true, *test)))
            .collect();
        let group = |claims: Vec<Claim>| [Shown { by: String::new(), claims }];
        assert!(defects(&group(all.clone())).claims.iter().all(|claim| claim.holds));
        let mut failed = all.clone();
        failed[0].holds = false;
        assert!(!defects(&group(failed)).claims[0].holds);
        assert!(!defects(&group(all[1..].to_vec())).claims[0].holds);
    }

    #[test]
    fn a_page_is_read_as_it_is_written() {
        let page =
            "| row | theirs | ours | shown by |\n|---|---|---|---|\n| T1 | a | b | `c_d` `e` |\n";
        let row = Row { id: "T1", theirs: "a", ours: "b", tests: vec!["c_d", "e"] };
        assert_eq!(rows(page), [row]);
    }
}
