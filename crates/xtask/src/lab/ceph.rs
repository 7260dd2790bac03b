//! Debian's Ceph for a guest: a mon, an OSD and everything that they need, as a disk of its own.
//!
//! ```text
//!   apt-get install --download-only ─► dpkg --extract ─► compiled ─► mke2fs -d ─► ceph.img ─► LABEL=lab-ceph
//!        (as if nothing were installed)
//! ```
//!
//! What belongs to it, apt itself says: it is told of a machine that has nothing, and so the tree is
//! whole, down to the C library. In the guest it is entered by `chroot`, and whatever the image has
//! is of no concern. No script of any package runs; a program finds its libraries without one.
//!
//! The lists are fetched for it, and are of the release alone: lists that lie about for long name
//! packages that the archive has no longer. Made once for each recipe and kept beside the images.
//!
//! The price: the disk does not follow the archive by itself, and takes as much room as one half of
//! an image.

use std::path::{Path, PathBuf};

use anyhow::Context as _;

use super::command::{program, run};
use super::image::{self, cache, fingerprint};
use super::kernel::{Apt, mirror};
use super::os_brick::compile;

/// What is asked for; the rest is what it depends on.
const PACKAGES: [&str; 3] = ["ceph-mon", "ceph-osd", "ceph-common"];
/// What none of its programs opens.
const UNUSED: [&str; 5] =
    ["usr/share/doc", "usr/share/locale", "usr/share/man", "usr/share/perl", "usr/share/perl5"];
/// Where the guest's own are bound to.
const MOUNTED: [&str; 5] = ["dev", "proc", "run", "sys", "tmp"];

/// The disk; built when the cache has none.
pub(super) fn disk() -> anyhow::Result<PathBuf> {
    let cache = cache()?;
    let lock = std::fs::File::create(cache.join("lock"))?;
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive)?;
    let recipe = fingerprint(&[&PACKAGES[..], &UNUSED, &MOUNTED].concat());
    let ready = cache.join(format!("ceph-{recipe:016x}.img"));
    if ready.is_file() {
        return Ok(ready);
    }
    let work = cache.join("ceph-work");
    if work.exists() {
        std::fs::remove_dir_all(&work)?;
    }
    let tree = work.join("tree");
    std::fs::create_dir_all(&tree)?;
    println!("lab: fetching Debian's Ceph and what it depends on");
    for deb in fetch(&work)? {
        run(program("dpkg").arg("--extract").arg(&deb).arg(&tree))?;
    }
    for unused in UNUSED {
        std::fs::remove_dir_all(tree.join(unused)).with_context(|| format!("no {unused}"))?;
    }
    for place in MOUNTED {
        std::fs::create_dir_all(tree.join(place))?;
    }
    // Emulated, it takes longer to compile what `ceph` imports than `ceph` takes for the rest.
    let matters = ["usr/lib/python3/dist-packages/__pycache__/ceph_argparse.cpython-311.pyc"];
    compile(&tree, &["usr/lib/python3.11", "usr/lib/python3"], &matters)?;
    let made = work.join("ceph.img");
    image::disk(&tree, &made, "lab-ceph")?;
    std::fs::rename(&made, &ready)?;
    std::fs::remove_dir_all(&work)?;
    Ok(ready)
}

/// Fetches the packages and all that they depend on.
fn fetch(work: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let sources = format!(
        "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] {} bookworm main\n",
        mirror()?
    );
    let private = work.join("apt");
    let apt = Apt::private(private.clone(), &sources)?;
    let nothing = private.join("status");
    std::fs::write(&nothing, "")?;
    let mut install = apt.command("apt-get")?;
    for (option, path) in
        [("Dir::State::status", nothing), ("Dir::State::extended_states", private.join("states"))]
    {
        let path = path.to_str().context("the cache path is not UTF-8")?;
        install.arg("-o").arg(format!("{option}={path}"));
    }
    run(install
        // The machine's own packages are not what is asked about.
        .args(["-o", "Debug::NoLocking=1"])
        .args(["install", "--download-only", "--yes", "--no-install-recommends"])
        .args(PACKAGES))?;
    let debs: Vec<PathBuf> = std::fs::read_dir(private.join("cache/archives"))?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "deb"))
        .collect();
    anyhow::ensure!(debs.len() > PACKAGES.len(), "apt-get fetched {} packages", debs.len());
    Ok(debs)
}
