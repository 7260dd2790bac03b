//! The VM's disk, built once and kept: a Debian 12 from the machine's own mirror, with a stock
//! kernel.
//!
//! ```text
//!   debootstrap ──► root tree ─┐
//!   apt-get download kernel ───┼─► mke2fs -d ──► root.img     (booted with snapshot=on: never written)
//!   RECIPE, units below ───────┘
//!   busybox-static + virtio modules ──► initrd                (switch_root into root.img)
//! ```
//!
//! The cache key is a hash of everything in this file that shapes the image, so a changed recipe
//! builds anew and an unchanged one is a directory lookup. The kernel's exact version is written
//! beside it; `lab prepare --refresh` takes the newest. The price: a cached image does not follow
//! the archive by itself, which a test bed should not do anyway.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context as _;

use super::command::{is_root, program, run, stdout};
use super::cpio::Archive;
use super::kernel::{self, Apt, Kernel, Series};
use super::tools;

const SUITE: &str = "bookworm";

const PACKAGES: &str = "systemd,systemd-sysv,udev,libudev1,dbus,kmod,iproute2,iputils-ping,mdadm,nvme-cli,\
     e2fsprogs,util-linux,procps,jq,strace,lsof";

/// Parts of the module tree no array ever meets; without them the image is a third of the size.
const UNUSED_MODULES: &[&str] = &[
    "drivers/gpu",
    "drivers/media",
    "drivers/net/wireless",
    "drivers/staging",
    "drivers/iio",
    "drivers/infiniband/hw",
    "drivers/usb",
    "drivers/hid",
    "drivers/input",
    "drivers/isdn",
    "drivers/mtd",
    "drivers/net/ethernet",
    "drivers/bluetooth",
    "drivers/hwmon",
    "drivers/comedi",
    "sound",
    "net/bluetooth",
    "net/mac80211",
    "net/wireless",
    "fs/btrfs",
    "fs/ocfs2",
    "fs/ceph",
    "fs/smb",
];

/// What the initramfs inserts before it can mount the root disk and hear the host.
const EARLY_MODULES: &[&str] =
    &["virtio_pci", "virtio_blk", "virtio_console", "crc32c_generic", "ext4"];

const INIT: &str = "\
#!/bin/busybox sh
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
if grep -q lab.probe /proc/cmdline; then
    echo lab-probe-ok >/dev/console
    poweroff -f
fi
while read -r module; do insmod \"/modules/$module\"; done </modules/order
tries=0
until mount -t ext4 -o rw /dev/vda /root; do
    tries=$((tries + 1))
    [ $tries -lt 50 ] || { echo 'lab: no root disk' >/dev/console; poweroff -f; }
    sleep 0.2
done
umount /proc /sys
exec switch_root /root /sbin/init
";

/// Files laid over the Debian tree.
const OVERLAY: &[(&str, &str)] = &[
    ("etc/hostname", "lab\n"),
    ("etc/fstab", ""),
    (
        "etc/systemd/system/lab-agent.service",
        "[Unit]\nDescription=Agent of the nvme-heal lab\nAfter=dbus.service systemd-udevd.service\n\n\
         [Service]\nExecStartPre=mkdir -p /lab\nExecStartPre=mount -o ro /dev/vdb /lab\n\
         ExecStart=/lab/xtask guest agent\nKillMode=process\nOOMScoreAdjust=-900\n\n\
         [Install]\nWantedBy=multi-user.target\n",
    ),
    (
        "etc/systemd/system/serial-getty@hvc0.service.d/autologin.conf",
        "[Service]\nExecStart=\nExecStart=-/sbin/agetty --autologin root --noclear %I xterm\n",
    ),
    ("etc/systemd/journald.conf.d/lab.conf", "[Journal]\nStorage=volatile\nRateLimitBurst=0\n"),
    ("etc/mdadm/mdadm.conf", "HOMEHOST <system>\nMAILADDR root\n"),
    (
        "root/.bash_profile",
        "export LAB_OUT=/run/lab/out PS1='lab:\\w# '\n. /lab/lib/lab.sh; set +eu\n",
    ),
];

/// Links for units to start, and to mask: what only costs boot time, or shares the console.
const LINKS: &[(&str, &str)] = &[
    ("etc/systemd/system/multi-user.target.wants/lab-agent.service", "../lab-agent.service"),
    (
        "etc/systemd/system/getty.target.wants/serial-getty@hvc0.service",
        "/lib/systemd/system/serial-getty@.service",
    ),
    ("etc/systemd/system/serial-getty@ttyS0.service", "/dev/null"),
    ("etc/systemd/system/getty@tty1.service", "/dev/null"),
    ("etc/systemd/system/apt-daily.timer", "/dev/null"),
    ("etc/systemd/system/apt-daily-upgrade.timer", "/dev/null"),
    ("etc/systemd/system/dpkg-db-backup.timer", "/dev/null"),
    ("etc/systemd/system/e2scrub_all.timer", "/dev/null"),
    ("etc/systemd/system/e2scrub_reap.service", "/dev/null"),
    ("etc/systemd/system/fstrim.timer", "/dev/null"),
    ("etc/systemd/system/systemd-timesyncd.service", "/dev/null"),
];

/// A built image.
#[derive(Debug, Clone)]
pub(crate) struct Image {
    dir: PathBuf,
}

impl Image {
    pub(crate) fn kernel(&self) -> PathBuf {
        self.dir.join("vmlinuz")
    }

    pub(crate) fn initrd(&self) -> PathBuf {
        self.dir.join("initrd")
    }

    pub(crate) fn root(&self) -> PathBuf {
        self.dir.join("root.img")
    }

    /// The kernel package it was built from.
    pub(crate) fn package(&self) -> String {
        std::fs::read_to_string(self.dir.join("kernel-package")).unwrap_or_default()
    }
}

/// `$XDG_CACHE_HOME/nvme-heal-lab`, or below `~/.cache`.
pub(crate) fn cache() -> anyhow::Result<PathBuf> {
    let base = std::env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache")))
        .context("neither XDG_CACHE_HOME nor HOME is set")?;
    let dir = base.join("nvme-heal-lab");
    std::fs::create_dir_all(&dir)?;
    Ok(dir)
}

/// The image for a kernel; built when the cache has none, or when asked for a fresh one.
pub(crate) fn prepare(series: Series, refresh: bool) -> anyhow::Result<Image> {
    tools::install()?;
    let cache = cache()?;
    let lock = std::fs::File::create(cache.join("lock"))?;
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive)?;
    let dir = cache.join(format!("image-{series}-{:016x}", image_recipe()));
    let image = Image { dir: dir.clone() };
    if dir.exists() && !refresh {
        return Ok(image);
    }
    if !is_root() {
        anyhow::bail!(
            "building the image needs root (debootstrap): run once `sudo --preserve-env=HOME \
             cargo xtask lab prepare --kernel {series}`"
        );
    }
    let work = cache.join(format!("work-{}", std::process::id()));
    let built = build(series, &cache, &work);
    let finished = built.and_then(|()| {
        if dir.exists() {
            std::fs::remove_dir_all(&dir)?;
        }
        Ok(std::fs::rename(work.join("out"), &dir)?)
    });
    if work.exists() {
        std::fs::remove_dir_all(&work)?;
    }
    finished?;
    println!("lab: image ready ({})", image.package());
    Ok(image)
}

fn build(series: Series, cache: &Path, work: &Path) -> anyhow::Result<()> {
    let out = work.join("out");
    std::fs::create_dir_all(&out)?;
    let apt = Apt::for_series(series, cache)?;
    let kernel = kernel::fetch(series, &apt, work)?;
    let root = root_tree(cache, work)?;
    println!("lab: writing the root image");
    furnish(&root, &kernel)?;
    run(program("mke2fs")
        .args(["-q", "-t", "ext4", "-L", "lab-root", "-E", "root_owner=0:0", "-d"])
        .arg(&root)
        .arg(out.join("root.img"))
        .arg("2G"))?;
    std::fs::copy(kernel.image(), out.join("vmlinuz"))?;
    std::fs::write(out.join("initrd"), initramfs(&kernel, work)?)?;
    std::fs::write(out.join("kernel-package"), &kernel.package)?;
    Ok(())
}

/// A copy of the debootstrapped tree, which itself is cached: it serves every kernel.
fn root_tree(cache: &Path, work: &Path) -> anyhow::Result<PathBuf> {
    let kept = cache.join(format!("rootfs-{:016x}", fingerprint(&[SUITE, PACKAGES])));
    if !kept.exists() {
        let mirror = kernel::mirror()?;
        println!("lab: debootstrap of Debian {SUITE} (about a minute)");
        let fresh = work.join("rootfs");
        let mut debootstrap = program("debootstrap");
        if let Some(proxy) = proxy() {
            debootstrap.env("http_proxy", proxy);
        }
        run(debootstrap
            .args(["--variant=minbase", &format!("--include={PACKAGES}"), SUITE])
            .arg(&fresh)
            .arg(&mirror))?;
        std::fs::remove_dir_all(fresh.join("var/cache/apt/archives"))?;
        std::fs::create_dir_all(fresh.join("var/cache/apt/archives/partial"))?;
        // The mirror is the build machine's business.
        std::fs::write(fresh.join("etc/apt/sources.list"), "")?;
        std::fs::rename(&fresh, &kept)?;
    }
    let root = work.join("root");
    run(Command::new("cp").args(["--archive", "--reflink=auto"]).arg(&kept).arg(&root))?;
    Ok(root)
}

/// apt may be told of a proxy; debootstrap's wget asks the environment only.
fn proxy() -> Option<String> {
    let shown = stdout(program("apt-config").args(["dump", "Acquire::http::Proxy"])).ok()?;
    let value = shown.split('"').nth(1)?.trim();
    (!value.is_empty() && value != "DIRECT").then(|| value.to_owned())
}

/// Kernel modules, our units and masks, laid over the Debian tree.
fn furnish(root: &Path, kernel: &Kernel) -> anyhow::Result<()> {
    let modules = root.join("usr/lib/modules");
    std::fs::create_dir_all(&modules)?;
    run(Command::new("cp").arg("--archive").arg(kernel.modules()).arg(&modules))?;
    for unused in UNUSED_MODULES {
        let path = modules.join(&kernel.release).join("kernel").join(unused);
        if path.exists() {
            std::fs::remove_dir_all(path)?;
        }
    }
    run(program("depmod").arg("--basedir").arg(root).arg(&kernel.release))?;
    for (path, content) in OVERLAY {
        let path = root.join(path);
        std::fs::create_dir_all(path.parent().context("an overlay path has a parent")?)?;
        std::fs::write(path, content)?;
    }
    for (path, target) in LINKS {
        let path = root.join(path);
        std::fs::create_dir_all(path.parent().context("a link has a parent")?)?;
        if path.symlink_metadata().is_ok() {
            std::fs::remove_file(&path)?;
        }
        symlink(target, path)?;
    }
    Ok(())
}

fn initramfs(kernel: &Kernel, work: &Path) -> anyhow::Result<Vec<u8>> {
    let mut archive = Archive::default();
    for directory in ["bin", "dev", "proc", "sys", "root", "modules"] {
        archive.directory(directory)?;
    }
    archive.program("bin/busybox", &busybox(work)?)?;
    archive.program("init", INIT.as_bytes())?;
    let mut order = String::new();
    for path in kernel.load_order(EARLY_MODULES)? {
        let name = path.file_name().context("a module has a name")?.to_string_lossy();
        let plain = name.trim_end_matches(".xz").to_owned();
        let content = if plain == name {
            std::fs::read(&path)?
        } else {
            run(program("xz").args(["--decompress", "--stdout"]).arg(&path))?.stdout
        };
        archive.file(&format!("modules/{plain}"), &content)?;
        order.push_str(&plain);
        order.push('\n');
    }
    archive.file("modules/order", order.as_bytes())?;
    archive.finish()
}

/// Unpacked, not installed: on the build machine it would push out the busybox that is there.
fn busybox(work: &Path) -> anyhow::Result<Vec<u8>> {
    let apt = Apt::for_series(Series::V6_1, work)?;
    let deb = apt.download("busybox-static", work)?;
    let tree = work.join("busybox");
    run(program("dpkg").arg("--extract").arg(&deb).arg(&tree))?;
    let found = ["bin/busybox", "usr/bin/busybox"].map(|path| tree.join(path));
    let path =
        found.iter().find(|path| path.is_file()).context("busybox-static holds no busybox")?;
    Ok(std::fs::read(path)?)
}

/// Everything that shapes an image but its kernel.
fn image_recipe() -> u64 {
    let mut parts = vec![SUITE, PACKAGES, INIT];
    parts.extend(UNUSED_MODULES);
    parts.extend(EARLY_MODULES);
    for (path, content) in OVERLAY.iter().chain(LINKS) {
        parts.extend([path, content]);
    }
    fingerprint(&parts)
}

/// FNV-1a: stable from one build of xtask to the next, which std's hasher does not promise.
pub(super) fn fingerprint(parts: &[&str]) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for byte in parts.iter().flat_map(|part| part.bytes().chain([0])) {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    hash
}

/// A small ext4 disk from the files of a directory.
pub(crate) fn disk(directory: &Path, disk: &Path, label: &str) -> anyhow::Result<()> {
    let used = stdout(Command::new("du").args(["-s", "-k"]).arg(directory))?;
    let used: u64 = used.split_whitespace().next().unwrap_or("0").parse()?;
    let size = format!("{}k", used + used / 8 + 8 * 1024);
    run(program("mke2fs")
        .args(["-q", "-F", "-t", "ext4", "-O", "^has_journal", "-L", label])
        .args(["-E", "root_owner=0:0", "-d"])
        .arg(directory)
        .arg(disk)
        .arg(size))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_recipe_has_the_same_fingerprint_and_a_moved_byte_another() {
        assert_eq!(fingerprint(&["ab", "c"]), fingerprint(&["ab", "c"]));
        assert_ne!(fingerprint(&["ab", "c"]), fingerprint(&["a", "bc"]));
    }
}
