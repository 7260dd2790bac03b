//! `cargo xtask rpm`: the RPM packages, built by `rpmbuild` from the staged trees, then checked by
//! rpm itself.
//!
//! The check reads the package back (files, modes, configuration, scripts, requirements), installs
//! it into an empty root and takes it out again. What rpm shows is compared with the list in
//! `tree.rs`, not with the spec: a spec that drops or adds a file does not pass.

use super::VERSION;
use super::program::{need, output, runs_as_root};
use super::scriptlets::forbidden_words;
use super::stage::{self, Inputs};
use super::tree::{Entry, Format, Owner, Package};
use anyhow::{Context, ensure};
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Take the programs from this directory instead of building them.
    #[arg(long, value_name = "DIR")]
    programs: Option<PathBuf>,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let programs = match &args.programs {
        Some(programs) => programs.clone(),
        None => stage::build_programs()?,
    };
    let inputs = Inputs::of_workspace(programs);
    for package in Package::ALL {
        let built = build_from(&inputs, package)?;
        check(&built, package, &inputs.packages.join("rpm-root"))?;
        println!("rpm: {}", built.display());
    }
    Ok(())
}

fn spec(package: Package) -> &'static str {
    match package {
        Package::Heal => "packaging/rpm/nvme-heal.spec",
        Package::OpenStack => "packaging/openstack/rpm/nvme-heal-openstack.spec",
        Package::Fenced => "packaging/nvmet-fenced/rpm/nvmet-fenced.spec",
    }
}

pub(super) fn build_from(inputs: &Inputs, package: Package) -> anyhow::Result<PathBuf> {
    need("rpmbuild", "rpm")?;
    let epoch = inputs.epoch()?;
    let root = inputs.packages.join("rpm").join(package.name());
    println!("staging {}", root.display());
    stage::lay_out(inputs, package, Format::Rpm, &root)?;
    stage::set_times(&root, epoch)?;
    let list = inputs.packages.join(format!("rpm-files-{}", package.name()));
    fs::write(&list, package.entries(Format::Rpm).map(files_line).collect::<String>())?;

    let top = inputs.packages.join("rpmbuild");
    let define = |name: &str, value: &str| ["--define".to_owned(), format!("{name} {value}")];
    output(
        Command::new("rpmbuild")
            .arg("-bb")
            .args(define("_topdir", &top.display().to_string()))
            .args(define("heal_version", VERSION))
            .args(define("heal_stage", &root.display().to_string()))
            .args(define("heal_files", &list.display().to_string()))
            // The same bytes wherever and whenever it is built.
            .args(define("_buildhost", "localhost"))
            // Links for debug packages, which there are none of.
            .args(define("_build_id_links", "none"))
            .args(define("use_source_date_epoch_as_buildtime", "1"))
            .args(define("clamp_mtime_to_source_date_epoch", "1"))
            .arg(inputs.repository.join(spec(package)))
            .env("SOURCE_DATE_EPOCH", epoch.to_string()),
    )?;
    let machine = if package.is_for_all_machines() { "noarch" } else { std::env::consts::ARCH };
    let name = format!("{}-{VERSION}-1.{machine}.rpm", package.name());
    let package = inputs.packages.join(&name);
    fs::copy(top.join("RPMS").join(machine).join(&name), &package)
        .with_context(|| format!("rpmbuild left no {name}"))?;
    Ok(package)
}

/// A line of `%files`.
fn files_line(entry: &Entry) -> String {
    let kind = match (entry.is_directory(), entry.owner) {
        (true, Owner::Package | Owner::Operator) => "%dir ",
        (false, Owner::Operator) => "%config(noreplace) ",
        (false, Owner::Package) => "",
    };
    format!("%attr({:04o}, root, root) {kind}{}\n", entry.mode, entry.destination)
}

/// Reads the package back, installs it below `scratch` and takes it out again.
pub(super) fn check(built: &Path, package: Package, scratch: &Path) -> anyhow::Result<()> {
    check_contents(built, package)?;
    check_scripts(built, package)?;
    check_requirements(built, package)?;
    check_installation(built, package, scratch)
}

fn query(package: &Path, arguments: &[&str]) -> anyhow::Result<String> {
    output(Command::new("rpm").args(["--query", "--package"]).args(arguments).arg(package))
}

fn check_contents(built: &Path, package: Package) -> anyhow::Result<()> {
    let format =
        "[%{FILENAMES} %{FILEMODES:perms} %{FILEUSERNAME}:%{FILEGROUPNAME} %{FILEFLAGS:fflags}\n]";
    let shown = query(built, &["--queryformat", format])?;
    // Documentation and licences are flagged by their place; only configuration is of interest.
    let shown: BTreeSet<String> = shown
        .lines()
        .map(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let flags = fields.get(3).copied().unwrap_or_default();
            let config = if flags.contains('c') && flags.contains('n') { " config" } else { "" };
            format!("{}{config}", fields.iter().take(3).copied().collect::<Vec<_>>().join(" "))
        })
        .collect();
    let expected: BTreeSet<String> = package
        .entries(Format::Rpm)
        .map(|entry| {
            let kind = if entry.is_directory() { 'd' } else { '-' };
            let config = if entry.owner == Owner::Operator { " config" } else { "" };
            format!("{} {kind}{} root:root{config}", entry.destination, permissions(entry.mode))
        })
        .collect();
    same("files in the rpm", &expected, &shown)?;
    println!("rpm -qpl: {} files and directories, modes and owners as listed", shown.len());
    Ok(())
}

/// `rwxr-xr-x`, as ls writes it.
fn permissions(mode: u32) -> String {
    (0..9)
        .map(|bit| if mode & (0o400 >> bit) == 0 { '-' } else { ['r', 'w', 'x'][bit % 3] })
        .collect()
}

fn check_scripts(built: &Path, package: Package) -> anyhow::Result<()> {
    let scripts = query(built, &["--scripts"])?;
    let forbidden = forbidden_words(&scripts);
    ensure!(forbidden.is_empty(), "the rpm's scripts must not use {}", forbidden.join(", "));
    match package {
        Package::Heal | Package::Fenced => {
            for needed in
                ["install-system-units", "remove-system-units", "mark-restart-system-units"]
            {
                ensure!(scripts.contains(needed), "no scriptlet calls {needed}");
            }
            println!(
                "rpm -qp --scripts: units handled on install, upgrade and removal; nothing else touched"
            );
        }
        Package::OpenStack => ensure!(scripts.trim().is_empty(), "it has scripts: {scripts}"),
    }
    Ok(())
}

fn check_requirements(built: &Path, package: Package) -> anyhow::Result<()> {
    let requires = query(built, &["--requires"])?;
    let all: &[&str] = match package {
        Package::Heal => &["mdadm", "nvme-cli", "systemd", "libc.so.6"],
        Package::OpenStack => &["python(abi) = 3.9", "python3-os-brick"],
        Package::Fenced => &["systemd", "libc.so.6"],
    };
    for &needed in all {
        ensure!(
            requires.lines().any(|line| line.starts_with(needed)),
            "the rpm does not require {needed}"
        );
    }
    println!("rpm -qp --requires: {}", all.join(", "));
    Ok(())
}

fn check_installation(built: &Path, package: Package, scratch: &Path) -> anyhow::Result<()> {
    if scratch.exists() {
        fs::remove_dir_all(scratch)
            .with_context(|| format!("cannot clear {}", scratch.display()))?;
    }
    fs::create_dir_all(scratch)?;
    let scratch = scratch.canonicalize()?;
    // Without dependencies and scripts: an empty root has neither the packages nor a shell.
    let rpm = |arguments: &[&str]| {
        output(
            rpm_as_root()
                .arg("--root")
                .arg(&scratch)
                .args(["--dbpath", DATABASE, "--nodeps", "--noscripts"])
                .args(arguments),
        )
    };
    rpm(&["--install", &built.display().to_string()])?;
    let expected: BTreeSet<String> = package
        .entries(Format::Rpm)
        .filter(|entry| !entry.is_directory())
        .map(|entry| entry.destination.to_owned())
        .collect();
    same("files below the scratch root", &expected, &installed(&scratch)?)?;
    for entry in package.entries(Format::Rpm) {
        let mode = fs::metadata(scratch.join(entry.below_root()))?.permissions().mode() & 0o7777;
        ensure!(mode == entry.mode, "{} is installed with mode {mode:04o}", entry.destination);
    }
    rpm(&["--erase", package.name()])?;
    same("files left after removal", &BTreeSet::new(), &installed(&scratch)?)?;
    for entry in package.entries(Format::Rpm).filter(|entry| entry.is_directory()) {
        let left = scratch.join(entry.below_root()).exists();
        ensure!(!left, "{} is left after removal", entry.destination);
    }
    println!("rpm --root: {} files installed, none left after removal", expected.len());
    Ok(())
}

/// The scratch root's own rpm database, as seen inside it.
const DATABASE: &str = "/rpmdb";

/// rpm changes its root, which takes root: for others, in a user namespace of their own.
fn rpm_as_root() -> Command {
    if runs_as_root() {
        return Command::new("rpm");
    }
    let mut command = Command::new("unshare");
    command.args(["--map-root-user", "rpm"]);
    command
}

fn installed(scratch: &Path) -> anyhow::Result<BTreeSet<String>> {
    let files = stage::files(scratch)?;
    let below = files.iter().filter_map(|file| file.strip_prefix(scratch).ok());
    Ok(below
        .map(|file| format!("/{}", file.display()))
        .filter(|file| !file.starts_with(DATABASE))
        .collect())
}

fn same(what: &str, expected: &BTreeSet<String>, shown: &BTreeSet<String>) -> anyhow::Result<()> {
    let missing: Vec<&String> = expected.difference(shown).collect();
    let unexpected: Vec<&String> = shown.difference(expected).collect();
    ensure!(
        missing.is_empty() && unexpected.is_empty(),
        "{what}: missing {missing:?}, unexpected {unexpected:?}"
    );
    Ok(())
}
