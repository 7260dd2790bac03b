//! The agent made worse on purpose, one way at a time.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, bail};
use serde::Deserialize;

use super::build;
use crate::workspace;

/// One way to make it worse: an exact replacement in one file, of heal-core where nothing else is said.
#[derive(Debug, Deserialize)]
struct Mutant {
    name: String,
    what: String,
    /// Why no rule can break by it: then it is hunted for a while, and must not be found.
    #[serde(default)]
    harmless: Option<String>,
    /// The crate: what the port's contract asks stands in others too.
    #[serde(default = "core")]
    of: String,
    file: String,
    find: String,
    put: String,
}

fn core() -> String {
    "heal-core".to_owned()
}

/// So many seeds are tried in a row that break a rule without the mutant as well.
const TRIES: u32 = 20;

/// For so many minutes a mutant that is harmless is hunted.
const HARMLESS: f64 = 0.5;

/// Mutants that CI has time for: one build each, found within seconds.
const SHORT: [&str; 4] =
    ["drop_g1", "skip_the_intent", "confirm_deletion_early", "forget_the_request_key"];

fn list() -> anyhow::Result<Vec<Mutant>> {
    ron::from_str(include_str!("mutants.ron")).context("the list of mutants cannot be read")
}

impl Mutant {
    /// The file, below the workspace.
    fn path(&self) -> PathBuf {
        Path::new("crates").join(&self.of).join("src").join(&self.file)
    }

    fn verdict(&self, found: Option<&str>) -> Verdict {
        let how = match (&self.harmless, found) {
            (None, Some(found)) => format!("found {found}"),
            (None, None) => "NOT FOUND".to_owned(),
            (Some(why), None) => format!("harmless: {why}"),
            (Some(_), Some(found)) => format!("said to be harmless, and found {found}"),
        };
        let holds = self.harmless.is_none() == found.is_some();
        Verdict { holds, text: format!("{}: {}: {how}", self.name, self.what) }
    }

    /// The file, made worse.
    fn worse(&self, text: &str) -> anyhow::Result<String> {
        match text.matches(&self.find).count() {
            1 => Ok(text.replacen(&self.find, &self.put, 1)),
            count => bail!("{}: its text is found {count} times in {}", self.name, self.file),
        }
    }
}

/// What became of one.
#[derive(Debug)]
pub(crate) struct Verdict {
    /// Whether it is as it should be: found, or harmless and not found.
    pub(crate) holds: bool,
    /// Its name, what it does, and what found it.
    pub(crate) text: String,
}

/// Hunts the mutants of these names, or all.
pub(super) fn run(names: &[String], short: bool, minutes: f64) -> anyhow::Result<()> {
    let verdicts = verdicts(names, short, minutes)?;
    let missed = verdicts.iter().filter(|verdict| !verdict.holds).count();
    println!("mutants: {} of {} as they should be", verdicts.len() - missed, verdicts.len());
    if missed == 0 { Ok(()) } else { bail!("{missed} mutants are not as they should be") }
}

/// The same, for a proof.
pub(crate) fn verdicts(
    names: &[String],
    short: bool,
    minutes: f64,
) -> anyhow::Result<Vec<Verdict>> {
    let all = list()?;
    for name in names {
        if all.iter().all(|mutant| mutant.name != *name) {
            bail!("there is no mutant {name}");
        }
    }
    let chosen: Vec<Mutant> = all
        .into_iter()
        .filter(|mutant| names.is_empty() || names.contains(&mutant.name))
        .filter(|mutant| !short || SHORT.contains(&mutant.name.as_str()))
        .collect();
    let tree = Tree::copied()?;
    let honest = build(&workspace::root(), &workspace::target())?;
    let mut verdicts = Vec::new();
    for mutant in &chosen {
        let minutes = if mutant.harmless.is_some() { minutes.min(HARMLESS) } else { minutes };
        let found = tree.hunted(mutant, &honest, minutes)?;
        let verdict = mutant.verdict(found.as_deref());
        println!("{} {}", if verdict.holds { '✔' } else { '✘' }, verdict.text);
        verdicts.push(verdict);
    }
    Ok(verdicts)
}

/// A copy of the workspace that may be made worse.
struct Tree {
    root: PathBuf,
    target: PathBuf,
}

impl Tree {
    fn copied() -> anyhow::Result<Self> {
        let base = workspace::target().join("mutants");
        let tree = Self { root: base.join("tree"), target: base.join("target") };
        let from = workspace::root();
        let files = Command::new("git")
            .args(["ls-files", "--cached", "--others", "--exclude-standard"])
            .args(["Cargo.toml", "Cargo.lock", "crates"])
            .current_dir(&from)
            .output()
            .context("cannot run git")?;
        for file in String::from_utf8_lossy(&files.stdout).lines() {
            tree.take(&from, Path::new(file))?;
        }
        Ok(tree)
    }

    /// Copies a file if it differs: what is not touched is not built again.
    fn take(&self, from: &Path, file: &Path) -> anyhow::Result<()> {
        let Ok(content) = fs::read(from.join(file)) else { return Ok(()) }; // Deleted, not committed.
        self.put(file, &content)
    }

    fn put(&self, file: &Path, content: &[u8]) -> anyhow::Result<()> {
        let path = self.root.join(file);
        if fs::read(&path).is_ok_and(|there| there == content) {
            return Ok(());
        }
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        fs::write(&path, content).with_context(|| format!("cannot write {}", path.display()))
    }

    /// Hunts one mutant. Answers with what found it.
    fn hunted(
        &self,
        mutant: &Mutant,
        honest: &Path,
        minutes: f64,
    ) -> anyhow::Result<Option<String>> {
        let file = mutant.path();
        let original = fs::read_to_string(workspace::root().join(&file))?;
        self.put(&file, mutant.worse(&original)?.as_bytes())?;
        let hunter = build(&self.root, &self.target);
        self.put(&file, original.as_bytes())?;
        find(&hunter?, honest, minutes)
    }
}

/// Seeds of the worse hunter, until one breaks a rule that the honest one keeps.
fn find(hunter: &Path, honest: &Path, minutes: f64) -> anyhow::Result<Option<String>> {
    let began = Instant::now();
    let (mut from, mut told) = (0, 0);
    for _ in 0..TRIES {
        let left = minutes - began.elapsed().as_secs_f64() / 60.0;
        if left <= 0.0 {
            return Ok(None);
        }
        let output = Command::new(hunter)
            .args(["--finds", "1", "--minutes", &left.to_string(), "--seed", &from.to_string()])
            .output()
            .context("cannot run the hunter")?;
        let text = String::from_utf8_lossy(&output.stdout);
        let Some(line) = text.lines().find(|line| line.starts_with("seed ")) else {
            return Ok(None);
        };
        let (seed, rule) = read(line).with_context(|| format!("what is this: {line}"))?;
        told += seed - from + 1;
        let clean = Command::new(honest)
            .args(["--seeds", "1", "--threads", "1", "--seed", &seed.to_string()])
            .output()
            .context("cannot run the hunter")?;
        if clean.status.success() {
            let seconds = began.elapsed().as_secs_f64();
            return Ok(Some(format!("by {rule}, after {told} seeds, {seconds:.1} s")));
        }
        from = seed + 1;
    }
    Ok(None)
}

/// The seed and the rule in `seed 17 (Faults): rule: detail`.
fn read(line: &str) -> Option<(u64, String)> {
    let rest = line.strip_prefix("seed ")?;
    let (seed, rest) = rest.split_once(' ')?;
    let rule = rest.split(": ").nth(1)?;
    Some((seed.parse().ok()?, rule.to_owned()))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_mutant_changes_exactly_one_place_of_the_agent() {
        let mutants = list().unwrap();
        assert!(mutants.iter().filter(|mutant| mutant.harmless.is_none()).count() >= 12);
        let names: BTreeSet<&str> = mutants.iter().map(|mutant| mutant.name.as_str()).collect();
        assert_eq!(names.len(), mutants.len());
        for mutant in &mutants {
            let path = workspace::root().join(mutant.path());
            let original = fs::read_to_string(&path).unwrap();
            assert_ne!(mutant.worse(&original).unwrap(), original);
        }
        for name in SHORT {
            assert!(names.contains(name), "{name}");
        }
    }

    #[test]
    fn the_hunters_line_is_read() {
        let line = "seed 23 (Ledger): never_two_legs_armed_at_once: nvme1n1 is armed (after …)";
        assert_eq!(read(line), Some((23, "never_two_legs_armed_at_once".to_owned())));
    }
}
