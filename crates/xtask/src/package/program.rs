//! Runs the tools of the distribution and says what it does.

use anyhow::{Context, bail};
use std::process::Command;

/// Runs a program to its end; answers what it wrote, and on failure what it complained about.
pub(super) fn output(command: &mut Command) -> anyhow::Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let done = command.output().with_context(|| format!("cannot start {name}"))?;
    if !done.status.success() {
        bail!(
            "{name} ended with {}: {}",
            done.status,
            String::from_utf8_lossy(&done.stderr).trim()
        );
    }
    String::from_utf8(done.stdout)
        .with_context(|| format!("{name} wrote something that is not text"))
}

/// Makes sure a program is there: installs its Debian package, and says so first.
pub(super) fn need(program: &str, package: &str) -> anyhow::Result<()> {
    if on_path(program) {
        return Ok(());
    }
    println!("installing {package}, for {program}");
    output(
        Command::new("apt-get")
            .args(["install", "--yes", "--no-install-recommends", package])
            .env("DEBIAN_FRONTEND", "noninteractive"),
    )
    .with_context(|| format!("{program} is needed; install {package} and run this again"))?;
    Ok(())
}

/// Whether a program can be found.
pub(super) fn on_path(program: &str) -> bool {
    std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|dir| dir.join(program).is_file()))
}

/// Whether this process is root.
pub(super) fn runs_as_root() -> bool {
    use std::os::unix::fs::MetadataExt;
    // A process's own directory in /proc belongs to whoever it runs as.
    std::fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0)
}
