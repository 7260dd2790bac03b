//! Running a program of the build machine: its output is kept, and shown only when it fails.

use std::path::Path;
use std::process::{Command, Output};

use anyhow::{Context as _, bail};

/// Runs to the end; an error holds the command and the last lines it printed.
pub(crate) fn run(command: &mut Command) -> anyhow::Result<Output> {
    let shown = format!("{command:?}");
    let output = command.output().with_context(|| format!("cannot start {shown}"))?;
    if !output.status.success() {
        let mut said = String::from_utf8_lossy(&output.stdout).into_owned();
        said.push_str(&String::from_utf8_lossy(&output.stderr));
        bail!("{shown}: {}\n{}", output.status, tail(&said, 20));
    }
    Ok(output)
}

/// Runs to the end and gives what it printed.
pub(crate) fn stdout(command: &mut Command) -> anyhow::Result<String> {
    Ok(String::from_utf8_lossy(&run(command)?.stdout).into_owned())
}

/// The last lines of a text.
pub(crate) fn tail(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

/// Is the program there? Debian keeps some of ours in sbin, which not every user has in the path.
pub(crate) fn exists(program: &str) -> bool {
    find(program).is_some()
}

fn find(program: &str) -> Option<std::path::PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/local/sbin", "/usr/sbin", "/sbin"].map(|dir| Path::new(dir).to_path_buf()))
        .map(|dir| dir.join(program))
        .find(|candidate| candidate.is_file())
}

/// A command for a program that may live in sbin.
pub(crate) fn program(name: &str) -> Command {
    Command::new(find(name).unwrap_or_else(|| name.into()))
}

pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}
