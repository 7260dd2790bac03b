//! `cargo xtask deb`: the Debian packages, built by `dpkg-deb` from the staged trees.
//!
//! Two builds of the same sources give the same bytes: one time stamp (the changelog's), owners and
//! modes set here, build paths kept out of the programs.

use super::VERSION;
use super::program::{need, output};
use super::scriptlets::forbidden_words;
use super::stage::{self, Inputs};
use super::tree::{self, Format, Owner, Package};
use anyhow::{Context, ensure};
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

fn scripts(package: Package) -> &'static [&'static str] {
    match package {
        Package::Heal | Package::Fenced => &["postinst", "prerm", "postrm"],
        Package::OpenStack => &["postinst", "prerm"],
    }
}

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
    // The daemon's own comes last: that is the one a script takes.
    for package in [Package::OpenStack, Package::Fenced, Package::Heal] {
        println!("deb: {}", build_from(&inputs, package)?.display());
    }
    Ok(())
}

/// Builds the programs and the daemon's package; answers where the package is.
pub(crate) fn build() -> anyhow::Result<PathBuf> {
    build_from(&Inputs::of_workspace(stage::build_programs()?), Package::Heal)
}

/// Where a package's control file and scripts are.
fn templates(package: Package) -> &'static str {
    match package {
        Package::Heal => "packaging/deb",
        Package::OpenStack => "packaging/openstack/deb",
        Package::Fenced => "packaging/nvmet-fenced/deb",
    }
}

pub(super) fn build_from(inputs: &Inputs, package: Package) -> anyhow::Result<PathBuf> {
    need("dpkg-deb", "dpkg")?;
    let epoch = inputs.epoch()?;
    let architecture = match package.is_for_all_machines() {
        true => "all".to_owned(),
        false => output(Command::new("dpkg").arg("--print-architecture"))?.trim().to_owned(),
    };
    let root = inputs.packages.join("deb").join(package.name());
    println!("staging {}", root.display());
    stage::lay_out(inputs, package, Format::Deb, &root)?;
    write_control(inputs, package, &architecture, &root)?;
    stage::set_times(&root, epoch)?;

    let name = package.name();
    let package = inputs.packages.join(format!("{name}_{VERSION}_{architecture}.deb"));
    output(
        Command::new("dpkg-deb")
            // xz is what Debian's dpkg reads in every release; elsewhere the default differs.
            .args(["--root-owner-group", "-Zxz", "--build"])
            .arg(&root)
            .arg(&package)
            .env("SOURCE_DATE_EPOCH", epoch.to_string()),
    )?;
    Ok(package)
}

fn write_control(
    inputs: &Inputs,
    package: Package,
    architecture: &str,
    root: &Path,
) -> anyhow::Result<()> {
    let size = installed_kibibytes(root)?;
    let sums = md5sums(package, root)?;
    let libraries = match package.is_for_all_machines() {
        true => String::new(),
        false => shared_libraries(inputs, package, root)?,
    };
    let directory = root.join("DEBIAN");
    fs::create_dir(&directory)?;
    fs::set_permissions(&directory, Permissions::from_mode(0o755))?;

    let from = templates(package);
    let templates = inputs.repository.join(from);
    let control = read(&templates.join("control.in"))?
        .replace("@VERSION@", VERSION)
        .replace("@ARCHITECTURE@", architecture)
        .replace("@INSTALLED_SIZE@", &size.to_string())
        .replace("@SHLIBS@", &libraries);
    write(&directory.join("control"), &control, 0o644)?;
    let conffiles = conffiles(package);
    if !conffiles.is_empty() {
        write(&directory.join("conffiles"), &conffiles, 0o644)?;
    }
    write(&directory.join("md5sums"), &sums, 0o644)?;
    for name in scripts(package) {
        let script = read(&templates.join(name))?;
        let forbidden = forbidden_words(&script);
        ensure!(forbidden.is_empty(), "{from}/{name} must not use {}", forbidden.join(", "));
        write(&directory.join(name), &script, 0o755)?;
    }
    Ok(())
}

fn conffiles(package: Package) -> String {
    package
        .entries(Format::Deb)
        .filter(|entry| entry.owner == Owner::Operator)
        .map(|entry| format!("{}\n", entry.destination))
        .collect()
}

/// Sums of what upgrades replace; conffiles have their own in dpkg's status.
fn md5sums(package: Package, root: &Path) -> anyhow::Result<String> {
    let files = package
        .entries(Format::Deb)
        .filter(|entry| entry.owner == Owner::Package && !entry.is_directory())
        .map(tree::Entry::below_root);
    output(Command::new("md5sum").args(files).current_dir(root))
}

/// As `dpkg-gencontrol` counts: each file rounded up, one for each directory.
fn installed_kibibytes(root: &Path) -> anyhow::Result<u64> {
    let mut size = 0;
    for file in stage::files(root)? {
        size += fs::symlink_metadata(&file)?.len().div_ceil(1024);
    }
    let directories = stage::directories(root)?.len();
    Ok(size + u64::try_from(directories).context("more directories than a file system has")?)
}

/// The libraries the programs are linked to, with the versions their symbols need, as Debian
/// packages.
fn shared_libraries(inputs: &Inputs, package: Package, root: &Path) -> anyhow::Result<String> {
    need("dpkg-shlibdeps", "dpkg-dev")?;
    // dpkg-shlibdeps wants a source package around it.
    let source = inputs.packages.join("shlibdeps");
    fs::create_dir_all(source.join("debian"))?;
    write(
        &source.join("debian/control"),
        "Source: nvme-heal\n\nPackage: nvme-heal\nArchitecture: any\n",
        0o644,
    )?;
    let programs = package
        .entries(Format::Deb)
        .filter(|entry| matches!(entry.source, tree::Source::Program(_)))
        .map(|entry| root.join(entry.below_root()));
    let found =
        output(Command::new("dpkg-shlibdeps").arg("-O").args(programs).current_dir(&source))?;
    found
        .trim()
        .strip_prefix("shlibs:Depends=")
        .map(str::to_owned)
        .with_context(|| format!("dpkg-shlibdeps says nothing about libraries: {found:?}"))
}

fn read(path: &Path) -> anyhow::Result<String> {
    fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

fn write(path: &Path, text: &str, mode: u32) -> anyhow::Result<()> {
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
    fs::set_permissions(path, Permissions::from_mode(mode)).map_err(Into::into)
}
