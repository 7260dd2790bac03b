//! `cargo xtask mutants`: the recoverer without one of its rules, and whether that is noticed.
//!
//! ```text
//!   tests/mutants.txt ──► a copy of the tree ──► exact replacements ──► it compiles? ──► its test fails?
//!                         (as it is: passes)     (each matches once)       must             must
//! ```
//!
//! A simulator that never fails proves nothing. So each rule is taken out once, in a copy, and the
//! simulator has to find it, or another long test that the mutant names (`by TARGET TEST`); the
//! unit tests, which would fail as well, are not asked. A mutant is text in a file, so nothing of
//! it is in the product, and one that no longer matches is an error.
//!
//! The price: each mutant is a build.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context as _, bail, ensure};

use crate::workspace;

/// The crate whose rules are taken out, and what it is built from.
const CRATE: &str = "nvmeof-recoverer";
const COPIED: [&str; 4] =
    ["Cargo.toml", "Cargo.lock", "crates/heal-types", "crates/nvmeof-recoverer"];

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Only mutants whose name contains this.
    #[arg(default_value = "")]
    name: String,
    /// Incidents in which the simulator has to find each.
    #[arg(long, default_value_t = INCIDENTS)]
    incidents: u64,
}

/// Enough for the rarest of them.
pub(crate) const INCIDENTS: u64 = 60_000;

/// One rule taken out.
#[derive(Debug, PartialEq, Eq, Default)]
struct Mutant {
    name: String,
    what: String,
    by: Judge,
    edits: Vec<Edit>,
}

/// The test that has to notice it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Judge {
    target: String,
    test: String,
}

impl Default for Judge {
    fn default() -> Self {
        let (target, test) = ("simulator", "no_device_ever_has_two_writers");
        Self { target: target.to_owned(), test: test.to_owned() }
    }
}

#[derive(Debug, PartialEq, Eq)]
struct Edit {
    file: String,
    old: String,
    new: String,
}

/// What became of a mutant.
#[derive(Debug)]
pub(crate) struct Verdict {
    pub(crate) found: bool,
    /// What is left out, and by what it was noticed.
    pub(crate) text: String,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let verdicts = all(&args.name, args.incidents)?;
    let missed = verdicts.iter().filter(|verdict| !verdict.found).count();
    println!("mutants: {} found, {missed} missed", verdicts.len() - missed);
    ensure!(missed == 0, "a rule can be taken out without anybody noticing");
    Ok(())
}

/// Tries every mutant whose name contains `name`.
pub(crate) fn all(name: &str, incidents: u64) -> anyhow::Result<Vec<Verdict>> {
    let list = workspace::root().join("crates").join(CRATE).join("tests/mutants.txt");
    let text = fs::read_to_string(&list).with_context(|| format!("{}", list.display()))?;
    let mut mutants = parse(&text)?;
    mutants.retain(|mutant| mutant.name.contains(name));
    ensure!(!mutants.is_empty(), "no mutant has {name:?} in its name");
    let tree = Tree::new();
    tree.renew()?;
    for judge in mutants.iter().map(|mutant| &mutant.by).collect::<BTreeSet<_>>() {
        let whole = tree.judge(judge, incidents)?;
        let Judge { target, test } = judge;
        ensure!(whole.status.success(), "{target} fails without a mutant:\n{}", said(&whole));
        // A filter that fits no test would find every mutant innocent, and be right.
        let ran = String::from_utf8_lossy(&whole.stdout).contains("1 passed");
        ensure!(ran, "{target} has no test {test}");
        println!("mutants: the copied tree as it is passes {test}, {incidents} incidents");
    }
    let mut verdicts = Vec::new();
    for mutant in &mutants {
        let verdict = tree.try_one(mutant, incidents)?;
        let mark = if verdict.found { "found " } else { "MISSED" };
        println!("mutants: {mark} {}", verdict.text);
        verdicts.push(verdict);
    }
    Ok(verdicts)
}

fn parse(text: &str) -> anyhow::Result<Vec<Mutant>> {
    let mut mutants: Vec<Mutant> = Vec::new();
    let mut file = String::new();
    let mut new_edit = true;
    for (number, line) in text.lines().enumerate() {
        let place = || format!("mutants.txt, line {}", number + 1);
        if line.starts_with('#') || line.is_empty() {
            continue;
        }
        if let Some(head) = line.strip_prefix("mutant ") {
            let (name, what) = head.split_once(": ").with_context(place)?;
            let (name, what) = (name.to_owned(), what.to_owned());
            mutants.push(Mutant { name, what, ..Mutant::default() });
            file.clear();
        } else if let Some(judge) = line.strip_prefix("by ") {
            let (target, test) = judge.split_once(' ').with_context(place)?;
            let by = Judge { target: target.to_owned(), test: test.to_owned() };
            mutants.last_mut().with_context(place)?.by = by;
        } else if let Some(name) = line.strip_prefix("in ") {
            name.clone_into(&mut file);
            new_edit = true;
        } else if let Some((sign, line)) = line.split_at_checked(2) {
            let edits = &mut mutants.last_mut().with_context(place)?.edits;
            ensure!(!file.is_empty(), "{}: in which file?", place());
            match sign {
                "- " => {
                    // A removal after an addition begins another replacement.
                    if new_edit || edits.last().is_none_or(|edit| !edit.new.is_empty()) {
                        let (old, new) = (String::new(), String::new());
                        edits.push(Edit { file: file.clone(), old, new });
                        new_edit = false;
                    }
                    let edit = edits.last_mut().with_context(place)?;
                    edit.old.push_str(line);
                    edit.old.push('\n');
                }
                "+ " => {
                    let edit = edits.last_mut().with_context(place)?;
                    edit.new.push_str(line);
                    edit.new.push('\n');
                }
                _ => bail!("{}: neither a comment nor part of a mutant", place()),
            }
        }
    }
    for mutant in &mutants {
        ensure!(!mutant.edits.is_empty(), "{} changes nothing", mutant.name);
    }
    Ok(mutants)
}

/// `text` with `edit` applied: what it looks for stands there exactly once.
fn replaced(text: &str, edit: &Edit) -> anyhow::Result<String> {
    let count = text.matches(&edit.old).count();
    ensure!(count == 1, "stands there {count} times instead of once:\n{}", edit.old);
    Ok(text.replacen(&edit.old, &edit.new, 1))
}

/// The copy that mutants are made in.
struct Tree {
    root: PathBuf,
    build: PathBuf,
}

impl Tree {
    fn new() -> Self {
        let base = workspace::root().join("target/mutants");
        Self { root: base.join("tree"), build: base.join("build") }
    }

    /// Copies the sources anew.
    fn renew(&self) -> anyhow::Result<()> {
        if self.root.exists() {
            fs::remove_dir_all(&self.root).context("the old copy stays")?;
        }
        for name in COPIED {
            copy(&workspace::root().join(name), &self.root.join(name))?;
        }
        Ok(())
    }

    fn try_one(&self, mutant: &Mutant, incidents: u64) -> anyhow::Result<Verdict> {
        self.renew()?;
        for edit in &mutant.edits {
            let path = self.root.join("crates").join(CRATE).join("src").join(&edit.file);
            let text = fs::read_to_string(&path).with_context(|| format!("{}", path.display()))?;
            let text = replaced(&text, edit)
                .with_context(|| format!("{}: in {}", mutant.name, edit.file))?;
            fs::write(&path, text).with_context(|| format!("{}", path.display()))?;
        }
        let built = self.cargo(&mutant.by).arg("--no-run").output();
        let built = built.context("cannot start cargo")?;
        ensure!(built.status.success(), "{} does not compile:\n{}", mutant.name, said(&built));
        let done = self.judge(&mutant.by, incidents)?;
        let noticed = noticed(&String::from_utf8_lossy(&done.stdout));
        let found = !done.status.success() && noticed.is_some();
        let by = noticed.unwrap_or_else(|| "nothing noticed it".to_owned());
        Ok(Verdict { found, text: format!("{}: {}: {by}", mutant.name, mutant.what) })
    }

    fn cargo(&self, judge: &Judge) -> Command {
        let mut command = workspace::cargo();
        command
            .current_dir(&self.root)
            .env("CARGO_TARGET_DIR", &self.build)
            .env("RUST_BACKTRACE", "0")
            .args(["test", "--quiet", "--offline", "-p", CRATE, "--test", &judge.target]);
        command
    }

    fn judge(&self, judge: &Judge, incidents: u64) -> anyhow::Result<Output> {
        self.cargo(judge)
            .env("INCIDENTS", incidents.to_string())
            .arg(&judge.test)
            .output()
            .context("cannot start cargo")
    }
}

/// The first violation a failed run printed: an incident's, or what a test panicked with.
fn noticed(said: &str) -> Option<String> {
    let mut lines = said.lines().map(str::trim);
    let incident = lines.clone().find(|line| line.starts_with("\"seed "));
    let panicked = || lines.find(|line| line.contains("panicked at ")).and_then(|_| lines.next());
    let line = incident.or_else(panicked)?;
    Some(line.trim_matches(['"', ',']).chars().take(140).collect())
}

fn said(output: &Output) -> String {
    let text = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes));
    text.concat()
}

fn copy(from: &Path, to: &Path) -> anyhow::Result<()> {
    if from.is_dir() {
        fs::create_dir_all(to).with_context(|| format!("{}", to.display()))?;
        for entry in fs::read_dir(from).with_context(|| format!("{}", from.display()))? {
            let name = entry?.file_name();
            copy(&from.join(&name), &to.join(&name))?;
        }
    } else {
        if let Some(parent) = to.parent() {
            fs::create_dir_all(parent).with_context(|| format!("{}", parent.display()))?;
        }
        fs::copy(from, to).with_context(|| format!("{}", from.display()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: &str = "# a comment\n\nmutant one: without it\nin a.rs\n- x\n- y\n+ z\n- v\n+ w\n\
                        in b.rs\n- q\nmutant two: another\nby long it_rests\nin a.rs\n- v\n+ u\n";

    fn edit(file: &str, old: &str, new: &str) -> Edit {
        Edit { file: file.into(), old: old.into(), new: new.into() }
    }

    #[test]
    fn a_mutant_is_read_with_all_its_replacements() {
        let mutants = parse(LIST).unwrap();
        assert_eq!(mutants.len(), 2);
        let edits = [edit("a.rs", "x\ny\n", "z\n"), edit("a.rs", "v\n", "w\n")];
        assert_eq!(mutants[0].edits[..2], edits);
        assert_eq!(mutants[0].edits[2], edit("b.rs", "q\n", ""));
        assert_eq!(mutants[1].edits, [edit("a.rs", "v\n", "u\n")]);
        assert_eq!(mutants[0].by, Judge::default());
        assert_eq!(mutants[1].by, Judge { target: "long".into(), test: "it_rests".into() });
    }

    #[test]
    fn a_replacement_that_matches_never_or_twice_is_an_error() {
        let edit = edit("a.rs", "x\n", "y\n");
        assert_eq!(replaced("a\nx\n", &edit).unwrap(), "a\ny\n");
        assert!(replaced("a\n", &edit).is_err());
        assert!(replaced("x\nx\n", &edit).is_err());
    }

    #[test]
    fn what_noticed_a_mutant_is_an_incident_or_a_panic() {
        let incident = "x\n    \"seed 7: two writers\",\nthread 'a' panicked at b.rs:1:2:\nfound\n";
        assert_eq!(noticed(incident).unwrap(), "seed 7: two writers");
        let panicked = "thread 'a' panicked at b.rs:1:2:\nosd.3 to and fro\n";
        assert_eq!(noticed(panicked).unwrap(), "osd.3 to and fro");
        assert_eq!(noticed("error: it does not link\n"), None);
    }

    #[test]
    fn a_mutant_that_changes_nothing_is_an_error() {
        assert!(parse("mutant one: without it\n").is_err());
        assert!(parse("- x\n").is_err());
    }

    #[test]
    fn every_mutant_in_the_list_matches_the_product() {
        let source = workspace::root().join("crates").join(CRATE);
        let mutants = parse(&fs::read_to_string(source.join("tests/mutants.txt")).unwrap());
        for mutant in mutants.unwrap() {
            for edit in &mutant.edits {
                let text = fs::read_to_string(source.join("src").join(&edit.file)).unwrap();
                replaced(&text, edit).map_err(|why| format!("{}: {why}", mutant.name)).unwrap();
            }
        }
    }
}
