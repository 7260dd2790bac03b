//! Where a run leaves its traces, and what a person sees of it.
//!
//! ```text
//!   target/lab/20260101-120000/        (target/lab/latest points to it)
//!     vm-1/console.log
//!     replica-returns/output.log  result.json  journal.json  system.log  mdstat  kernel.log
//! ```

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use anyhow::Context as _;

use super::boot::Vm;
use super::command::tail;
use super::session::{Line, ScenarioResult};

fn lab_directory() -> PathBuf {
    crate::workspace::target().join("lab")
}

/// A new directory for this run, named after the time.
pub(crate) fn run_directory() -> anyhow::Result<PathBuf> {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let now = jiff::Timestamp::now().strftime("%Y%m%d-%H%M%S").to_string();
    let lab = lab_directory();
    std::fs::create_dir_all(&lab)?;
    let dir = fresh(&lab, &now)?;
    let latest = lab.join("latest");
    if latest.symlink_metadata().is_ok() {
        std::fs::remove_file(&latest)?;
    }
    std::os::unix::fs::symlink(&dir, latest)?;
    Ok(dir)
}

/// `PREFIX-1`, `PREFIX-2`, … whichever is the first not there.
pub(crate) fn numbered(dir: &Path, prefix: &str) -> anyhow::Result<PathBuf> {
    (1..1000)
        .map(|number| dir.join(format!("{prefix}-{number}")))
        .find(|path| !path.exists())
        .context("a thousand of them in one run")
        .and_then(|path| {
            std::fs::create_dir_all(&path)?;
            Ok(path)
        })
}

/// `NAME`, or `NAME-2` and on when it is there already.
fn fresh(dir: &Path, name: &str) -> anyhow::Result<PathBuf> {
    let path = dir.join(name);
    if path.exists() {
        return numbered(dir, name);
    }
    std::fs::create_dir_all(&path)?;
    Ok(path)
}

pub(crate) fn scenario_directory(run: &Path, name: &str) -> anyhow::Result<PathBuf> {
    fresh(run, name)
}

/// Adds a piece to a file the guest sends. Its name must not lead out of the directory.
pub(crate) fn append(dir: &Path, name: &str, chunk: &str) -> anyhow::Result<()> {
    let name = Path::new(name).file_name().context("the guest sent a file without a name")?;
    let mut file = std::fs::OpenOptions::new().create(true).append(true).open(dir.join(name))?;
    file.write_all(chunk.as_bytes())?;
    Ok(())
}

/// Writes what was heard and what it came to.
pub(crate) fn save(result: &ScenarioResult) -> anyhow::Result<()> {
    let mut output = String::new();
    for line in &result.lines {
        output.push_str(&format!("{:8.2} {}\n", line.at.as_secs_f64(), line.text));
    }
    std::fs::write(result.dir.join("output.log"), output)?;
    let summary = serde_json::json!({
        "name": result.name,
        "passed": result.passed,
        "failures": result.failures.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "figures": result.figures,
        "claims": result.claims,
        "seconds": result.duration.as_secs_f64(),
    });
    std::fs::write(result.dir.join("result.json"), serde_json::to_string_pretty(&summary)?)?;
    Ok(())
}

/// Lines meant for a person who watches; the rest is in `output.log`.
pub(crate) fn is_narration(text: &str) -> bool {
    ["-- ", "FIGURE ", "CLAIM ", "FAIL"].iter().any(|prefix| text.starts_with(prefix))
}

/// What of a run is printed while it goes on.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Printed {
    /// Every line, not only what is told.
    pub(crate) verbose: bool,
    /// Another run prints as well: each line says whose it is.
    pub(crate) mixed: bool,
}

pub(crate) fn print_line(scenario: &str, line: &Line, printed: Printed) {
    if printed.verbose || is_narration(&line.text) {
        let whose = if printed.mixed { format!("{scenario:<24}") } else { String::new() };
        println!("{whose}  {:7.1}s  {}", line.at.as_secs_f64(), line.text);
    }
}

pub(crate) fn print_result(result: &ScenarioResult) {
    let word = if result.passed { "ok  " } else { "FAIL" };
    println!("{word} {} ({:.1} s)", result.name, result.duration.as_secs_f64());
    if result.passed {
        return;
    }
    for failure in &result.failures {
        println!("     {failure}");
    }
    let texts: Vec<&str> = result.lines.iter().map(|line| line.text.as_str()).collect();
    section("its last lines", &tail(&texts.join("\n"), 40));
    let read = |name: &str| std::fs::read_to_string(result.dir.join(name)).unwrap_or_default();
    section("the daemon's journal", &tail(&messages(&read("journal.json")), 40));
    section("/proc/mdstat", &read("mdstat"));
    section("the kernel's log", &tail(&read("kernel.log"), 25));
    println!("     all of it: {}", result.dir.display());
}

fn section(title: &str, text: &str) {
    if !text.trim().is_empty() {
        println!("  --- {title}");
        for line in text.lines() {
            println!("  | {line}");
        }
    }
}

/// The messages of a JSON journal, one a line.
fn messages(journal: &str) -> String {
    let entries = journal.lines().filter_map(|line| serde_json::from_str(line).ok());
    entries.map(|entry| super::verdict::text(&entry, "MESSAGE")).collect::<Vec<_>>().join("\n")
}

/// A VM left running, for `lab shell` and `lab stop`.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
pub(crate) struct Kept {
    pub(crate) pid: u32,
    pub(crate) shell: PathBuf,
}

fn kept_note() -> PathBuf {
    lab_directory().join("kept.json")
}

pub(crate) fn note_kept(vm: &Vm) -> anyhow::Result<()> {
    let kept = Kept { pid: vm.pid(), shell: vm.shell_socket() };
    std::fs::write(kept_note(), serde_json::to_string(&kept)?)?;
    Ok(())
}

/// The VM kept last, if it still runs: its command line must name its socket, as a pid may be
/// reused.
pub(crate) fn kept() -> Option<Kept> {
    let kept: Kept = serde_json::from_str(&std::fs::read_to_string(kept_note()).ok()?).ok()?;
    let arguments = std::fs::read(format!("/proc/{}/cmdline", kept.pid)).ok()?;
    String::from_utf8_lossy(&arguments).contains(kept.shell.to_str()?).then_some(kept)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_guest_cannot_name_a_file_outside_its_directory() {
        let dir = std::env::temp_dir().join(format!("lab-report-test.{}", std::process::id()));
        std::fs::create_dir_all(dir.join("in")).unwrap();
        append(&dir.join("in"), "../out", "x").unwrap();
        assert!(dir.join("in/out").exists());
        assert!(!dir.join("out").exists());
        assert!(append(&dir, "..", "x").is_err());
        std::fs::remove_dir_all(dir).unwrap();
    }
}
