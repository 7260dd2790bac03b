//! Lays the installed tree out below a staging root: the same bytes, modes and times for the same
//! sources.

use super::VERSION;
use super::program::{need, output};
use super::tree::{Entry, Format, Package, Source};
use crate::workspace;
use anyhow::{Context, ensure};
use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

/// What packages are made from.
#[derive(Debug)]
pub(super) struct Inputs {
    /// The repository: `packaging/`, `udev-rules/`.
    pub(super) repository: PathBuf,
    /// Where the built programs are.
    pub(super) programs: PathBuf,
    /// Where the packages go.
    pub(super) packages: PathBuf,
}

impl Inputs {
    /// This workspace, with programs that are built already.
    pub(super) fn of_workspace(programs: PathBuf) -> Self {
        Self {
            repository: workspace::root(),
            programs,
            packages: workspace::target().join("packages"),
        }
    }

    /// Seconds since 1970 of the newest changelog entry: the one time in a package. Also checks
    /// that this entry is about the version being built.
    pub(super) fn epoch(&self) -> anyhow::Result<u64> {
        let changelog = self.repository.join("packaging/deb/changelog");
        let field = |name: &str| {
            output(Command::new("dpkg-parsechangelog").arg("-l").arg(&changelog).args(["-S", name]))
        };
        need("dpkg-parsechangelog", "dpkg-dev")?;
        let version = field("Version")?;
        ensure!(
            version.trim() == VERSION,
            "packaging/deb/changelog is about {}, the workspace is {VERSION}: add an entry",
            version.trim()
        );
        field("Timestamp")?.trim().parse().context("the changelog's time stamp is not a number")
    }
}

/// The programs that ship in packages.
pub(super) const PROGRAMS: [&str; 3] = ["nvme-heald", "nvme-heal", "nvmet-fenced"];

/// Builds the programs as they ship; answers the directory they are in.
pub(super) fn build_programs() -> anyhow::Result<PathBuf> {
    println!("building {} (release profile)", PROGRAMS.join(", "));
    // Paths of the building machine would end up in panic messages, and make two builds differ.
    let cargo_home = std::env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| Path::new(&home).join(".cargo")));
    let mut flags = vec![format!("--remap-path-prefix={}=/nvme-heal", workspace::root().display())];
    if let Some(home) = cargo_home {
        flags.push(format!("--remap-path-prefix={}=/cargo", home.display()));
    }
    let status = workspace::cargo()
        .current_dir(workspace::root())
        .args(["build", "--release"])
        .args(PROGRAMS.iter().flat_map(|program| ["--package", program]))
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\u{1f}"))
        .status()
        .context("cannot start cargo")?;
    ensure!(status.success(), "the programs do not build");
    Ok(workspace::target().join("release"))
}

/// Lays out everything a package of this format installs. What was below `root` is gone.
pub(super) fn lay_out(
    inputs: &Inputs,
    package: Package,
    format: Format,
    root: &Path,
) -> anyhow::Result<()> {
    if root.exists() {
        fs::remove_dir_all(root).with_context(|| format!("cannot clear {}", root.display()))?;
    }
    for entry in package.entries(format) {
        place(inputs, entry, &root.join(entry.below_root()))
            .with_context(|| format!("cannot stage {}", entry.destination))?;
    }
    // Parents of installed files get the mode every host has, whatever the umask of whoever builds.
    for directory in directories(root)? {
        let owned =
            package.entries(format).find(|entry| root.join(entry.below_root()) == directory);
        let mode = owned.map_or(0o755, |entry| entry.mode);
        fs::set_permissions(&directory, Permissions::from_mode(mode))?;
    }
    Ok(())
}

fn place(inputs: &Inputs, entry: &Entry, destination: &Path) -> anyhow::Result<()> {
    if entry.is_directory() {
        return fs::create_dir_all(destination).map_err(Into::into);
    }
    if let Some(parent) = destination.parent() {
        fs::create_dir_all(parent)?;
    }
    match entry.source {
        Source::Directory => {}
        Source::Program(name) => {
            let built = inputs.programs.join(name);
            ensure!(built.is_file(), "{} is not built", built.display());
            need("strip", "binutils")?;
            output(
                Command::new("strip").arg("--strip-unneeded").arg("-o").arg(destination).arg(built),
            )?;
        }
        Source::File(path) => {
            fs::copy(present(inputs, path)?, destination)?;
        }
        Source::Gzip(path) => {
            let compressed = File::create(destination)?;
            let status = Command::new("gzip")
                .args(["-9", "--no-name", "--stdout"])
                .arg(present(inputs, path)?)
                .stdout(Stdio::from(compressed))
                .status()
                .context("cannot start gzip")?;
            ensure!(status.success(), "gzip failed on {path}");
        }
    }
    fs::set_permissions(destination, Permissions::from_mode(entry.mode)).map_err(Into::into)
}

fn present(inputs: &Inputs, path: &str) -> anyhow::Result<PathBuf> {
    let whole = inputs.repository.join(path);
    ensure!(whole.is_file(), "{path} is missing from the repository");
    Ok(whole)
}

/// Gives everything below `root` the one time of the package.
pub(super) fn set_times(root: &Path, epoch: u64) -> anyhow::Result<()> {
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(epoch);
    for path in files(root)?.into_iter().chain(directories(root)?) {
        File::open(&path)?
            .set_modified(time)
            .with_context(|| format!("cannot set the time of {}", path.display()))?;
    }
    Ok(())
}

/// Every file below `root`, sorted.
pub(super) fn files(root: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    walk(root, &mut |path, is_directory| {
        if !is_directory {
            found.push(path.to_path_buf());
        }
    })?;
    Ok(found)
}

/// `root` and every directory below it, sorted.
pub(super) fn directories(root: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = vec![root.to_path_buf()];
    walk(root, &mut |path, is_directory| {
        if is_directory {
            found.push(path.to_path_buf());
        }
    })?;
    Ok(found)
}

fn walk(directory: &Path, see: &mut impl FnMut(&Path, bool)) -> anyhow::Result<()> {
    let mut entries = fs::read_dir(directory)
        .with_context(|| format!("cannot read {}", directory.display()))?
        .collect::<Result<Vec<_>, _>>()?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        // Not followed: a link is a file here.
        let is_directory = entry.file_type()?.is_dir();
        see(&entry.path(), is_directory);
        if is_directory {
            walk(&entry.path(), see)?;
        }
    }
    Ok(())
}
