//! QEMU as a child process: started, watched until the guest speaks, and never left behind.
//!
//! ```text
//!   xtask ── setpriv --pdeathsig KILL ── qemu-system-x86_64
//!     │                                    ├─ vda  root.img, snapshot=on
//!     │                                    ├─ vdb  payload.img (xtask itself, library, packages)
//!     │                                    ├─ vdc… what a scenario needs beside it, never written
//!     ├── control.sock ── virtserialport ──┤  lab.control, the agent
//!     ├── shell.sock ──── virtconsole ─────┤  hvc0, a root shell
//!     └── console.log ─── ttyS0 ───────────┘  kernel and systemd, read only when something is wrong
//! ```
//!
//! The kernel ends QEMU when xtask goes, however it goes. With `KEEP=1` the VM is meant to outlive
//! xtask, so it gets a process group of its own and no such leash.

use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context as _;

use super::command::program;
use super::image::Image;
use super::scenario::Multipath;

/// How the guest's instructions are run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Accel {
    Kvm,
    /// Emulation: ten to twenty times slower, and everywhere the same.
    Tcg,
}

impl Accel {
    fn args(self) -> [&'static str; 4] {
        match self {
            Self::Kvm => ["-accel", "kvm", "-cpu", "host"],
            Self::Tcg => ["-accel", TRANSLATOR, "-cpu", TRANSLATED],
        }
    }
}

/// The most that fits: when it is full (with a gibibyte, every eighty seconds of a scenario)
/// everything is thrown away, and whatever runs next is slow once more.
const TRANSLATOR: &str = "tcg,thread=multi,tb-size=2047";

/// Without what takes longer when it is emulated than what it replaces: string moves byte by byte,
/// page tables of five levels, a flag to be changed around every copy to a user.
const TRANSLATED: &str = "max,la57=off,smap=off,erms=off,fsrm=off";

/// What every kernel is booted with. `tsc=reliable`: an emulated processor's counters fail the
/// kernel's test for being in step although they are read from one clock, and what is left then,
/// the HPET, is an emulated device that every look at the time has to wait for. The hardening that
/// is left out clears memory, checks copies and moves stacks at every system call: next to nothing
/// on a processor that has instructions for it, and a good part of every system call on one that is
/// translated. `norandmaps`: what was translated for a program serves its next run, if that is
/// mapped to the same addresses.
const KERNEL_OPTIONS: &str = "console=ttyS0 panic=-1 loglevel=4 mitigations=off nowatchdog audit=0 \
     tsc=reliable init_on_alloc=0 hardened_usercopy=off randomize_kstack_offset=off norandmaps \
     net.ifnames=0 systemd.show_status=1";

/// How long KVM gets to show that it can run a guest: a nested one may open and then hang.
const PROBE_LIMIT: Duration = Duration::from_secs(10);

/// KVM when a tiny guest proves it. The answer is kept until the machine boots again.
pub(crate) fn accelerator(image: &Image) -> anyhow::Result<Accel> {
    if !Path::new("/dev/kvm").exists() {
        return Ok(Accel::Tcg);
    }
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let note = super::image::cache()?.join("accelerator");
    if let Some(answer) = noted_accelerator() {
        return Ok(answer);
    }
    println!("lab: trying KVM (up to {} s)", PROBE_LIMIT.as_secs());
    let answer = if probe_kvm(image)? { Accel::Kvm } else { Accel::Tcg };
    let word = match answer {
        Accel::Kvm => "kvm",
        Accel::Tcg => "tcg",
    };
    println!(
        "lab: {}",
        match answer {
            Accel::Kvm => "KVM works",
            Accel::Tcg => "KVM does not run a guest here; emulating",
        }
    );
    std::fs::write(note, format!("{} {word}\n", boot.trim()))?;
    Ok(answer)
}

/// How guests run here, if one was booted since the machine was.
fn noted_accelerator() -> Option<Accel> {
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    let noted = std::fs::read_to_string(super::image::cache().ok()?.join("accelerator")).ok()?;
    match noted.strip_prefix(boot.trim())?.trim() {
        "kvm" => Some(Accel::Kvm),
        _ => Some(Accel::Tcg),
    }
}

fn probe_kvm(image: &Image) -> anyhow::Result<bool> {
    let console = std::env::temp_dir().join(format!("nvme-heal-lab-probe.{}", std::process::id()));
    let child = leashed()
        .args(Accel::Kvm.args())
        .args(["-m", "256", "-nodefaults", "-display", "none", "-no-reboot", "-serial"])
        .arg(format!("file:{}", console.display()))
        .arg("-kernel")
        .arg(image.kernel())
        .arg("-initrd")
        .arg(image.initrd())
        .args(["-append", "console=ttyS0 panic=-1 lab.probe"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .context("cannot start qemu-system-x86_64")?;
    let mut child = KillOnDrop(child);
    let started = Instant::now();
    let mut proven = false;
    while !proven && started.elapsed() < PROBE_LIMIT && child.0.try_wait()?.is_none() {
        std::thread::sleep(Duration::from_millis(100));
        proven = std::fs::read_to_string(&console).is_ok_and(|text| text.contains("lab-probe-ok"));
    }
    drop(child);
    if console.exists() {
        std::fs::remove_file(console)?;
    }
    Ok(proven)
}

#[derive(Debug)]
struct KillOnDrop(Child);

impl Drop for KillOnDrop {
    fn drop(&mut self) {
        // Already gone is what we want too.
        let _gone = self.0.kill();
        let _reaped = self.0.wait();
    }
}

/// QEMU that dies with the thread that started it.
fn leashed() -> Command {
    let mut command = program("setpriv");
    command.args(["--pdeathsig", "KILL", "--", "qemu-system-x86_64"]);
    command
}

/// What a VM is made of.
#[derive(Debug)]
pub(crate) struct Plan<'a> {
    pub(crate) image: &'a Image,
    pub(crate) accel: Accel,
    pub(crate) multipath: Multipath,
    pub(crate) payload: &'a Path,
    /// Further ones, that are only read; the guest knows them by their labels.
    pub(crate) disks: &'a [PathBuf],
    /// Where the console log goes.
    pub(crate) dir: &'a Path,
    pub(crate) keep: bool,
}

/// A running VM; dropping it kills it, unless it is to be kept.
#[derive(Debug)]
pub(crate) struct Vm {
    child: Child,
    keep: bool,
    sockets: PathBuf,
    console: PathBuf,
}

impl Vm {
    pub(crate) fn start(plan: &Plan<'_>) -> anyhow::Result<Self> {
        let sockets = socket_directory()?;
        let console = plan.dir.join("console.log");
        let mut command = if plan.keep {
            let mut command = program("qemu-system-x86_64");
            command.process_group(0);
            command
        } else {
            leashed()
        };
        let log = std::fs::File::create(plan.dir.join("qemu.log"))?;
        let child = command
            .args(plan.accel.args())
            .args(["-smp", "2", "-m", "2048", "-nodefaults", "-display", "none", "-no-reboot"])
            .arg("-kernel")
            .arg(plan.image.kernel())
            .arg("-initrd")
            .arg(plan.image.initrd())
            .arg("-append")
            .arg(format!("{KERNEL_OPTIONS} {}", plan.multipath.boot_option()))
            .args(disk(&plan.image.root(), "snapshot=on"))
            .args(disk(plan.payload, "readonly=on"))
            .args(plan.disks.iter().flat_map(|path| disk(path, "readonly=on")))
            .args(["-device", "virtio-rng-pci", "-device", "virtio-serial-pci"])
            .args(socket("control", &sockets))
            .args(["-device", "virtserialport,chardev=control,name=lab.control"])
            .args(socket("shell", &sockets))
            .args(["-device", "virtconsole,chardev=shell"])
            .arg("-serial")
            .arg(format!("file:{}", console.display()))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("cannot start qemu-system-x86_64")?;
        Ok(Self { child, keep: plan.keep, sockets, console })
    }

    pub(crate) fn control_socket(&self) -> PathBuf {
        self.sockets.join("control")
    }

    pub(crate) fn shell_socket(&self) -> PathBuf {
        self.sockets.join("shell")
    }

    pub(crate) fn console(&self) -> &Path {
        &self.console
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Has QEMU ended, and how?
    pub(crate) fn ended(&mut self) -> Option<String> {
        match self.child.try_wait() {
            Ok(None) => None,
            Ok(Some(status)) => Some(format!("qemu ended: {status}")),
            Err(error) => Some(format!("qemu cannot be waited for: {error}")),
        }
    }

    /// A boot that failed is never worth keeping.
    pub(crate) fn kill(mut self) {
        self.keep = false;
    }
}

impl Drop for Vm {
    fn drop(&mut self) {
        if self.keep {
            return;
        }
        // Already gone is what we want too; a socket left in the temporary directory harms nobody.
        let _gone = self.child.kill();
        let _reaped = self.child.wait();
        let _removed = std::fs::remove_dir_all(&self.sockets);
    }
}

/// A unix socket's path may have 107 bytes at most, so these do not live below the target
/// directory.
fn socket_directory() -> anyhow::Result<PathBuf> {
    for attempt in 0..1000 {
        let name = format!("nvme-heal-lab.{}.{attempt}", std::process::id());
        let dir = std::env::temp_dir().join(name);
        match std::fs::create_dir(&dir) {
            Ok(()) => return Ok(dir),
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error).context("cannot make a directory for the sockets"),
        }
    }
    anyhow::bail!("a thousand lab directories are left in {}", std::env::temp_dir().display())
}

fn socket(name: &str, dir: &Path) -> [String; 2] {
    let path = dir.join(name);
    ["-chardev".to_owned(), format!("socket,id={name},path={},server=on,wait=off", path.display())]
}

fn disk(path: &Path, how: &str) -> [String; 2] {
    let path = path.display().to_string().replace(',', ",,");
    ["-drive".to_owned(), format!("if=virtio,format=raw,{how},file={path}")]
}
