//! Debian's stock kernel, fetched as a package and unpacked; never installed on the build machine.
//!
//! The plain flavour is taken, not `cloud`: that one has no NVMe target. Which package it is, the
//! metapackage `linux-image-amd64` says through its dependency; and where the archive has gone on to
//! a later series, the names of the packages that it still has.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};

use super::command::{program, run, stdout};

/// A kernel series the lab knows how to boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, clap::ValueEnum)]
pub(crate) enum Series {
    /// Debian 12's own.
    #[default]
    #[value(name = "6.1")]
    V6_1,
    /// From bookworm-backports.
    #[value(name = "6.12")]
    V6_12,
    /// From trixie-backports, for what only a later target can do. Never booted unasked: it costs
    /// an image, and no release ships it.
    #[value(name = "7.2")]
    V7_2,
}

impl std::fmt::Display for Series {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::V6_1 => "6.1",
            Self::V6_12 => "6.12",
            Self::V7_2 => "7.2",
        })
    }
}

impl std::str::FromStr for Series {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        match text {
            "6.1" => Ok(Self::V6_1),
            "6.12" => Ok(Self::V6_12),
            "7.2" => Ok(Self::V7_2),
            other => bail!("no kernel `{other}`: there are 6.1, 6.12 and 7.2"),
        }
    }
}

/// An unpacked kernel package.
#[derive(Debug)]
pub(crate) struct Kernel {
    /// What `uname -r` will say.
    pub(crate) release: String,
    pub(crate) package: String,
    pub(crate) tree: PathBuf,
}

impl Kernel {
    pub(crate) fn image(&self) -> PathBuf {
        let boot = self.tree.join(format!("boot/vmlinuz-{}", self.release));
        // Packages in several parts keep it beside the modules.
        if boot.exists() { boot } else { self.modules().join("vmlinuz") }
    }

    pub(crate) fn modules(&self) -> PathBuf {
        self.tree.join("lib/modules").join(&self.release)
    }

    /// Module files to insert for these modules, dependencies first, each once. What this kernel
    /// has no module for is part of something else in it.
    pub(crate) fn load_order(&self, modules: &[&str]) -> anyhow::Result<Vec<PathBuf>> {
        let known = ["modules.dep", "modules.builtin"]
            .map(|list| std::fs::read_to_string(self.modules().join(list)).unwrap_or_default())
            .concat();
        let modules = modules.iter().filter(|name| known.contains(&format!("/{name}.ko")));
        let shown = stdout(
            program("modprobe")
                .arg("--dirname")
                .arg(&self.tree)
                .args(["--set-version", &self.release, "--show-depends", "--all"])
                .args(modules),
        )?;
        Ok(parse_load_order(&shown))
    }
}

/// `modprobe --show-depends` prints `insmod PATH [options]`, or `builtin NAME`.
fn parse_load_order(shown: &str) -> Vec<PathBuf> {
    let mut order: Vec<PathBuf> = Vec::new();
    for path in shown.lines().filter_map(|line| line.strip_prefix("insmod ")) {
        let path = PathBuf::from(path.trim().split(' ').next().unwrap_or_default());
        if !order.contains(&path) {
            order.push(path);
        }
    }
    order
}

/// Downloads and unpacks a kernel below `into`.
pub(crate) fn fetch(series: Series, apt: &Apt, into: &Path) -> anyhow::Result<Kernel> {
    let shown = stdout(apt.command("apt-cache")?.args(["show", "linux-image-amd64"]))?;
    let named = newest_image(&shown, series);
    let (package, version) = if let Some(named) = named {
        named
    } else {
        let prefix = format!("linux-image-{series}.");
        let names = stdout(apt.command("apt-cache")?.arg("pkgnames").arg(&prefix))?;
        let package = newest_named(&names, &prefix).with_context(|| {
            format!("the configured Debian archives have no kernel {series} (linux-image-amd64)")
        })?;
        (package, String::new())
    };
    println!("lab: fetching {package} {version}");
    let tree = into.join("kernel");
    let shown = stdout(apt.command("apt-cache")?.args(["show", &package]))?;
    for part in parts(&shown, &package).iter().chain([&package]) {
        let deb = apt.download(part, into)?;
        run(program("dpkg").arg("--extract").arg(&deb).arg(&tree))?;
        std::fs::remove_file(&deb)?;
    }
    // Newer packages put their modules straight into the merged /usr.
    if !tree.join("lib").exists() {
        std::os::unix::fs::symlink("usr/lib", tree.join("lib"))?;
    }
    let modules = tree.join("lib/modules");
    let release = std::fs::read_dir(&modules)
        .with_context(|| format!("{package} holds no modules"))?
        .find_map(|entry| entry.ok()?.file_name().into_string().ok())
        .context("lib/modules is empty")?;
    run(program("depmod").arg("--basedir").arg(&tree).arg(&release))?;
    Ok(Kernel { release, package, tree })
}

/// From `apt-cache show linux-image-amd64` (newest version first): image package and its version.
fn newest_image(shown: &str, series: Series) -> Option<(String, String)> {
    let prefix = format!("linux-image-{series}.");
    shown.lines().find_map(|line| {
        let depends = line.strip_prefix("Depends: ")?;
        depends.split(", ").find(|package| package.starts_with(&prefix)).map(|found| {
            let (name, version) = found.split_once(' ').unwrap_or((found, ""));
            (name.to_owned(), version.trim_matches(['(', ')', '=', ' ']).to_owned())
        })
    })
}

/// From `apt-cache pkgnames`: the plain flavour's newest image of a series. A backports archive
/// goes on to the next series and keeps the one before for a while.
fn newest_named(names: &str, prefix: &str) -> Option<String> {
    let numbered = names.lines().filter_map(|name| {
        let (patch, suite) = name.strip_prefix(prefix)?.strip_suffix("-amd64")?.split_once('+')?;
        let patch: u32 = patch.parse().ok().filter(|_| !suite.contains('-'))?;
        Some((patch, name))
    });
    numbered.max().map(|(_, name)| name.to_owned())
}

/// From `apt-cache show` of an image: the packages that it is made of, where it is in several.
fn parts(shown: &str, image: &str) -> Vec<String> {
    let release = image.strip_prefix("linux-image").unwrap_or(image);
    let depends = shown.lines().find_map(|line| line.strip_prefix("Depends: ")).unwrap_or_default();
    let names = depends.split(", ").map(|it| it.split_once(' ').map_or(it, |(name, _)| name));
    names
        .filter(|it| it.starts_with("linux-") && it.ends_with(release))
        .map(str::to_owned)
        .collect()
}

/// The archives packages are taken from: the machine's own, and for a kernel that Debian 12 does
/// not have, backports beside them in lists of our own. The machine's apt configuration is never
/// changed.
#[derive(Debug)]
pub(crate) struct Apt {
    private: Option<PathBuf>,
}

impl Apt {
    pub(crate) fn for_series(series: Series, cache: &Path) -> anyhow::Result<Self> {
        match series {
            Series::V6_1 => {
                let apt = Self { private: None };
                if stdout(apt.command("apt-cache")?.args(["search", "--names-only", "^mdadm$"]))?
                    .is_empty()
                {
                    println!("lab: apt has no package lists; running apt-get update");
                    run(program("apt-get").arg("update"))?;
                }
                Ok(apt)
            }
            Series::V6_12 => Self::backports("bookworm", &cache.join("apt-backports")),
            Series::V7_2 => Self::backports("trixie", &cache.join("apt-trixie-backports")),
        }
    }

    fn backports(release: &str, private: &Path) -> anyhow::Result<Self> {
        let line = format!(
            "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] {} \
             {release}-backports main\n",
            mirror()?
        );
        Self::private(private.to_owned(), &line)
    }

    /// Lists of our own, from these sources and no others.
    pub(crate) fn private(private: PathBuf, sources: &str) -> anyhow::Result<Self> {
        std::fs::create_dir_all(private.join("lists/partial"))?;
        std::fs::create_dir_all(private.join("cache/archives/partial"))?;
        std::fs::write(private.join("sources.list"), sources)?;
        let apt = Self { private: Some(private) };
        run(apt.command("apt-get")?.arg("update"))?;
        Ok(apt)
    }

    pub(crate) fn command(&self, name: &str) -> anyhow::Result<std::process::Command> {
        let mut command = program(name);
        if let Some(private) = &self.private {
            for (option, path) in [
                ("Dir::Etc::SourceList", private.join("sources.list")),
                ("Dir::Etc::SourceParts", PathBuf::from("/dev/null")),
                ("Dir::State::Lists", private.join("lists")),
                ("Dir::Cache", private.join("cache")),
            ] {
                let path = path.to_str().context("the cache path is not UTF-8")?;
                command.arg("-o").arg(format!("{option}={path}"));
            }
            command.args(["-o", "APT::Sandbox::User=root"]);
        }
        Ok(command)
    }

    /// Downloads one package into a directory and gives its path.
    pub(crate) fn download(&self, package: &str, into: &Path) -> anyhow::Result<PathBuf> {
        std::fs::create_dir_all(into)?;
        run(self.command("apt-get")?.args(["download", package]).current_dir(into))?;
        let prefix = format!("{package}_");
        std::fs::read_dir(into)?
            .filter_map(|entry| Some(entry.ok()?.path()))
            .find(|path| {
                path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(&prefix))
            })
            .with_context(|| format!("apt-get downloaded no {package}"))
    }
}

/// The mirror this machine takes Debian 12 from.
pub(crate) fn mirror() -> anyhow::Result<String> {
    let targets = stdout(program("apt-get").args([
        "indextargets",
        "--format",
        "$(REPO_URI) $(CODENAME) $(COMPONENT)",
        "Created-By: Packages",
    ]))?;
    parse_mirror(&targets).context("apt has no source of Debian 12 (bookworm main) on this machine")
}

fn parse_mirror(targets: &str) -> Option<String> {
    targets
        .lines()
        .find_map(|line| line.strip_suffix(" bookworm main"))
        .map(|uri| uri.trim_end_matches('/').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_metapackage_names_the_image_and_its_version() {
        let shown = "Version: 6.12.9-1~bpo12+1\nDepends: linux-image-6.12.9+bpo-amd64 (= 6.12.9-1)\n\n\
                     Version: 6.1.192-2\nDepends: linux-image-6.1.0-56-amd64 (= 6.1.192-2)\n\n\
                     Version: 6.1.176-1\nDepends: linux-image-6.1.0-50-amd64 (= 6.1.176-1)\n";
        let (package, version) = newest_image(shown, Series::V6_1).unwrap();
        assert_eq!(package, "linux-image-6.1.0-56-amd64");
        assert_eq!(version, "6.1.192-2");
        assert_eq!(newest_image(shown, Series::V6_12).unwrap().0, "linux-image-6.12.9+bpo-amd64");
    }

    #[test]
    fn a_series_that_backports_have_gone_on_from_is_found_by_its_packages_names() {
        let names = "linux-image-7.2.9+deb13-amd64\nlinux-image-7.2.12+deb13-cloud-amd64\n\
                     linux-image-7.2.11+deb13-amd64\nlinux-image-7.2.13+deb13-amd64-unsigned\n";
        let newest = newest_named(names, "linux-image-7.2.");
        assert_eq!(newest.unwrap(), "linux-image-7.2.11+deb13-amd64");
        assert_eq!(newest_named(names, "linux-image-7.3."), None);
    }

    #[test]
    fn an_image_in_parts_is_fetched_with_them_and_with_nothing_else() {
        let shown = "Depends: dracut | initramfs-tools (>= 0.120+deb8u2), \
                     linux-base-7.2.12+deb13-amd64 (= 1), linux-modules-7.2.12+deb13-amd64 (= 1)\n\
                     Pre-Depends: linux-base (>= 4.17~)\n";
        let of = parts(shown, "linux-image-7.2.12+deb13-amd64");
        assert_eq!(of, ["linux-base-7.2.12+deb13-amd64", "linux-modules-7.2.12+deb13-amd64"]);
        let whole = "Depends: kmod, linux-base (>= 4.3~), initramfs-tools (>= 0.120+deb8u2)\n";
        assert!(parts(whole, "linux-image-6.1.0-56-amd64").is_empty());
    }

    #[test]
    fn a_module_needed_twice_is_inserted_once_and_before_its_users() {
        let order = parse_load_order(
            "insmod /a/virtio.ko \ninsmod /a/blk.ko x=1\nbuiltin crc\ninsmod /a/virtio.ko\n",
        );
        assert_eq!(order, [Path::new("/a/virtio.ko"), Path::new("/a/blk.ko")]);
    }

    #[test]
    fn the_mirror_is_that_of_the_release_not_of_security() {
        let targets =
            "http://one/security/ bookworm-security main\nhttp://two/debian/ bookworm main\n";
        assert_eq!(parse_mirror(targets).unwrap(), "http://two/debian");
    }
}
