//! The agent made worse on purpose, one way at a time.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, bail};
use serde::Deserialize;

use super::build;
use crate::workspace;

/// One way to make it worse: an exact replacement in one file, of heal-core where nothing else is
/// said.
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

    fn verdict(&self, hunted: &Hunted) -> Verdict {
        let found = hunted.found.as_ref();
        let how = match (&self.harmless, found) {
            (None, Some(found)) => format!("found {found}"),
            (None, None) => "NOT FOUND".to_owned(),
            (Some(why), None) => format!("harmless: {why}"),
            (Some(_), Some(found)) => format!("said to be harmless, and found {found}"),
        };
        let (seed, rule) = match found {
            Some(found) => (format!("{} ({})", found.seed, found.table), found.rule.as_str()),
            None if self.harmless.is_some() => ("-".to_owned(), "harmless"),
            None => ("-".to_owned(), "NOT FOUND"),
        };
        let Hunted { runs, seconds, .. } = hunted;
        Verdict {
            holds: self.harmless.is_none() == found.is_some(),
            text: format!("{}: {}: {how}", self.name, self.what),
            row: format!("{:<28} {seed:<22} {runs:>7} {seconds:>7.1}  {rule}", self.name),
        }
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
    /// The same as a row of [`HEAD`].
    row: String,
}

/// What stands above the rows.
const HEAD: &str = "mutant                       seed                      runs seconds  rule";

/// How a mutant was hunted.
#[derive(Debug, Default)]
struct Hunted {
    /// What found it.
    found: Option<Found>,
    /// Stories told.
    runs: u64,
    /// What that took, its build not counted.
    seconds: f64,
}

/// The story that breaks a rule with the mutant, and none without it.
#[derive(Debug, PartialEq, Eq)]
struct Found {
    seed: u64,
    table: String,
    rule: String,
}

impl std::fmt::Display for Found {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "by {}, seed {} ({})", self.rule, self.seed, self.table)
    }
}

/// Hunts the mutants of these names, or all.
pub(super) fn run(names: &[String], short: bool, minutes: f64) -> anyhow::Result<()> {
    let verdicts = verdicts(names, short, minutes)?;
    let missed = verdicts.iter().filter(|verdict| !verdict.holds).count();
    println!("\n{HEAD}");
    for verdict in verdicts.iter().filter(|verdict| !verdict.row.is_empty()) {
        println!("{}", verdict.row);
    }
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
    let chosen: Vec<&Mutant> = all
        .iter()
        .filter(|mutant| names.is_empty() || names.contains(&mutant.name))
        .filter(|mutant| !short || SHORT.contains(&mutant.name.as_str()))
        .collect();
    let tree = Tree::copied()?;
    // From here on nobody's edits in the workspace count.
    let honest = tree.target.join("honest-hunt");
    fs::copy(build(&tree.root, &tree.target, &["heal-hunt"])?, &honest)?;
    let mut verdicts = Vec::new();
    if short {
        verdicts.push(rotten(&tree, &all)?);
    }
    for mutant in chosen {
        let minutes = if mutant.harmless.is_some() { minutes.min(HARMLESS) } else { minutes };
        let verdict = mutant.verdict(&tree.hunted(mutant, &honest, minutes)?);
        println!("{} {}", if verdict.holds { '✔' } else { '✘' }, verdict.text);
        verdicts.push(verdict);
    }
    Ok(verdicts)
}

/// Whether every mutant of the list can still be built, those too that there is no time to hunt.
fn rotten(tree: &Tree, all: &[Mutant]) -> anyhow::Result<Verdict> {
    let holds = tree.builds_with(all)?;
    let text = format!("all {} mutants of the list build", all.len());
    println!("{} {text}", if holds { '✔' } else { '✘' });
    Ok(Verdict { holds, row: String::new(), text })
}

/// Where hunters are built whose libraries the mutants' builds find there.
pub(crate) fn target() -> PathBuf {
    workspace::target().join("mutants/target")
}

/// A copy of the workspace that may be made worse.
struct Tree {
    root: PathBuf,
    target: PathBuf,
}

impl Tree {
    fn copied() -> anyhow::Result<Self> {
        let tree = Self { root: workspace::target().join("mutants/tree"), target: target() };
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

    /// Whether the workspace builds with all of these at once: a list that nobody has hunted lately
    /// rots.
    fn builds_with(&self, mutants: &[Mutant]) -> anyhow::Result<bool> {
        let mut originals = BTreeMap::new();
        for mutant in mutants {
            let file = mutant.path();
            let text = fs::read_to_string(self.root.join(&file))?;
            self.put(&file, mutant.worse(&text)?.as_bytes())?;
            originals.entry(file).or_insert(text);
        }
        let built = build(&self.root, &self.target, &["heal-hunt"]);
        for (file, text) in originals {
            self.put(&file, text.as_bytes())?;
        }
        Ok(built.is_ok())
    }

    /// Hunts one mutant. Answers with what found it.
    fn hunted(&self, mutant: &Mutant, honest: &Path, minutes: f64) -> anyhow::Result<Hunted> {
        let file = mutant.path();
        let original = fs::read_to_string(self.root.join(&file))?;
        self.put(&file, mutant.worse(&original)?.as_bytes())?;
        let hunter = build(&self.root, &self.target, &["heal-hunt"]);
        self.put(&file, original.as_bytes())?;
        match hunter {
            Ok(hunter) => find(&hunter, honest, minutes),
            Err(error) => {
                println!("  {}: {error:#}", mutant.name);
                Ok(Hunted::default())
            }
        }
    }
}

/// Seeds of the worse hunter, until one breaks a rule that the honest one keeps.
fn find(hunter: &Path, honest: &Path, minutes: f64) -> anyhow::Result<Hunted> {
    let began = Instant::now();
    let mut hunted = Hunted::default();
    let mut from = 0;
    for _ in 0..TRIES {
        let left = minutes - began.elapsed().as_secs_f64() / 60.0;
        if left <= 0.0 {
            break;
        }
        let output = Command::new(hunter)
            .args(["--finds", "1", "--figures"])
            .args(["--minutes", &left.to_string(), "--seed", &from.to_string()])
            .output()
            .context("cannot run the hunter")?;
        let text = String::from_utf8_lossy(&output.stdout);
        hunted.runs += runs(&text).context("the hunter does not say how many seeds it tried")?;
        hunted.seconds = began.elapsed().as_secs_f64();
        let Some(line) = text.lines().find(|line| line.starts_with("seed ")) else { break };
        let found = read(line).with_context(|| format!("what is this: {line}"))?;
        let clean = Command::new(honest)
            .args(["--seeds", "1", "--threads", "1", "--seed", &found.seed.to_string()])
            .output()
            .context("cannot run the hunter")?;
        if clean.status.success() {
            hunted.found = Some(found);
            break;
        }
        from = found.seed + 1;
    }
    Ok(hunted)
}

/// How many stories the hunter told.
fn runs(said: &str) -> Option<u64> {
    said.lines().find_map(|line| line.strip_prefix("FIGURE seeds="))?.trim().parse().ok()
}

/// What stands in `seed 17 (Faults): rule: detail`.
fn read(line: &str) -> Option<Found> {
    let (seed, rest) = line.strip_prefix("seed ")?.split_once(" (")?;
    let (table, rest) = rest.split_once("): ")?;
    let (rule, _) = rest.split_once(": ")?;
    Some(Found { seed: seed.parse().ok()?, table: table.to_owned(), rule: rule.to_owned() })
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
        let found = read(line).unwrap();
        assert_eq!((found.seed, found.table.as_str()), (23, "Ledger"));
        assert_eq!(found.rule, "never_two_legs_armed_at_once");
        assert_eq!(runs("FIGURE incidents=7\nFIGURE seeds=24\n"), Some(24));
    }
}
