//! kube-apiserver and kube-controller-manager from Debian's source package, and etcd from its
//! binary one. Nothing is installed: packages are unpacked beside the sources.
//!
//! What is in the way, each found the hard way:
//! - Go's module mode wants to change `go.mod`: the tree is built as in the days of GOPATH.
//! - the vendored `reflect2` crashes when it is built with Go 1.18 or later: Debian's own is newer.
//! - the makefiles want `rsync`.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::Context as _;

use crate::lab::command::{exists, program, run};
use crate::lab::kernel::{Apt, mirror};

/// Changes with what is built, and how.
const RECIPE: &str = "kubernetes-1.20-go-1.19-reflect2-1.0.2";
const PROGRAMS: [&str; 3] = ["etcd", "kube-apiserver", "kube-controller-manager"];
const PACKAGES: [&str; 7] = [
    "etcd-server",
    "golang-1.19-go",
    "golang-1.19-src",
    "golang-github-modern-go-reflect2-dev",
    "libpopt0",
    "libxxhash0",
    "rsync",
];

/// `$XDG_CACHE_HOME/nvme-heal-cluster`, or below `~/.cache`.
fn cache() -> anyhow::Result<PathBuf> {
    let base = std::env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache")))
        .context("neither XDG_CACHE_HOME nor HOME is set")?;
    let dir = base.join("nvme-heal-cluster");
    std::fs::create_dir_all(&dir)?;
    Ok(dir)
}

/// The folder with the programs; built when the cache has none.
pub(super) fn prepare() -> anyhow::Result<PathBuf> {
    let cache = cache()?;
    let lock = std::fs::File::create(cache.join("lock"))?;
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive)?;
    let ready = cache.join(RECIPE);
    if PROGRAMS.iter().all(|name| ready.join(name).is_file()) {
        return Ok(ready);
    }
    for tool in ["dpkg-source", "make", "gcc"] {
        anyhow::ensure!(
            exists(tool),
            "{tool} is not here: apt-get install build-essential dpkg-dev"
        );
    }
    let started = Instant::now();
    let work = cache.join("build");
    if work.exists() {
        std::fs::remove_dir_all(&work)?;
    }
    let root = work.join("root");
    std::fs::create_dir_all(&root)?;
    println!("cluster: fetching Debian's sources of Kubernetes, Go and etcd");
    let apt = sources(&cache)?;
    for package in PACKAGES {
        let deb = apt.download(package, &work)?;
        run(program("dpkg").arg("--extract").arg(&deb).arg(&root))?;
    }
    let tree = unpack(&apt, &work)?;
    replace_reflect2(&root, &tree)?;
    println!(
        "cluster: building kube-apiserver and kube-controller-manager; this takes some minutes"
    );
    make(&root, &tree)?;
    let built = tree.join("_output/local/bin/linux/amd64");
    let made = cache.join(format!("{RECIPE}.new"));
    std::fs::create_dir_all(&made)?;
    for (from, name) in [
        (root.join("usr/bin"), "etcd"),
        (built.clone(), "kube-apiserver"),
        (built, "kube-controller-manager"),
    ] {
        std::fs::copy(from.join(name), made.join(name))
            .with_context(|| format!("{name} was not built"))?;
    }
    std::fs::rename(&made, &ready)?;
    std::fs::remove_dir_all(&work)?;
    println!("cluster: built in {} s", started.elapsed().as_secs());
    Ok(ready)
}

fn sources(cache: &Path) -> anyhow::Result<Apt> {
    let from = format!(
        "[signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] {} bookworm main",
        mirror()?
    );
    Apt::private(cache.join("apt"), &format!("deb {from}\ndeb-src {from}\n"))
}

fn unpack(apt: &Apt, work: &Path) -> anyhow::Result<PathBuf> {
    let mut fetch = apt.command("apt-get")?;
    run(fetch.args(["source", "--download-only", "kubernetes"]).current_dir(work))?;
    let dsc = std::fs::read_dir(work)?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| path.extension().is_some_and(|it| it == "dsc"))
        .context("apt-get fetched no source package")?;
    let tree = work.join("kubernetes");
    run(program("dpkg-source").arg("--extract").arg(&dsc).arg(&tree))?;
    // Where GOPATH expects it.
    let home = tree.join(".go/src/k8s.io");
    std::fs::create_dir_all(&home)?;
    std::os::unix::fs::symlink("../../..", home.join("kubernetes"))?;
    Ok(tree)
}

fn replace_reflect2(root: &Path, tree: &Path) -> anyhow::Result<()> {
    let code = |path: &Path| path.extension().is_some_and(|it| it == "go" || it == "s");
    let files = |dir: &Path| -> anyhow::Result<Vec<PathBuf>> {
        let entries = std::fs::read_dir(dir).with_context(|| format!("no {}", dir.display()))?;
        let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
        Ok(paths.filter(|path| code(path)).collect())
    };
    let vendored = tree.join("vendor/github.com/modern-go/reflect2");
    for old in files(&vendored)? {
        std::fs::remove_file(old)?;
    }
    for new in files(&root.join("usr/share/gocode/src/github.com/modern-go/reflect2"))? {
        let name = new.file_name().context("a file without a name")?;
        if !name.to_string_lossy().ends_with("_test.go") {
            std::fs::copy(&new, vendored.join(name))?;
        }
    }
    Ok(())
}

fn make(root: &Path, tree: &Path) -> anyhow::Result<()> {
    let go = root.join("usr/lib/go-1.19");
    let mut path = vec![go.join("bin"), root.join("usr/bin")];
    path.extend(std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()));
    let libraries = root.join(format!("usr/lib/{}-linux-gnu", std::env::consts::ARCH));
    let mut command = Command::new("make");
    command
        .arg("WHAT=cmd/kube-apiserver cmd/kube-controller-manager")
        .current_dir(tree.join(".go/src/k8s.io/kubernetes"))
        .env("PATH", std::env::join_paths(path)?)
        .env("LD_LIBRARY_PATH", libraries)
        .env("GOROOT", &go)
        .env("GOPATH", tree.join(".go"))
        .env("GOCACHE", tree.join(".go/cache"))
        .env("GO111MODULE", "off");
    run(&mut command).map(drop)
}
