//! The kernel's log, read for the few lines by which NVMe tells of trouble.
//!
//! The kernel sends no event when a controller loses its connection; it only writes a line. The
//! line comes late, may be rate limited or lost, and its wording is no interface. So it is **a hint
//! and never truth**: a reason to look at once instead of at the next safety scan. What is not
//! understood is no hint.
//!
//! ```text
//!   /dev/kmsg  ──► one record per read ──►  4,1234,5678901,-;nvme nvme3: starting error recovery
//!                                           │ └ sequence, time    └ which      └ what
//!                                           └ facility * 8 + level
//! ```
//!
//! **Only the kernel is heard.** Whoever may write `/dev/kmsg` may write such a line, but not as
//! the kernel: a line from user space has a facility other than 0 (`devkmsg_write`,
//! `kernel/printk/printk.c`).
//!
//! A reader that is overtaken gets `EPIPE` and goes on with the oldest record there is; that is
//! [`KernelSaid::Lost`].
//!
//! The price: every line of the kernel wakes the daemon. A host that logs a lot has other worries.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use heal_types::{ControllerName, DeviceName};
use rustix::fs::{Mode, OFlags, SeekFrom};
use rustix::io::Errno;
use tokio::io::unix::AsyncFd;

use crate::readable::readable;

/// The longest record (`CONSOLE_EXT_LOG_MAX`).
const RECORD: usize = 8192;

/// How long to leave a log alone that answers with an unknown error.
const AFTER_ERROR: Duration = Duration::from_millis(100);

/// What the kernel said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KernelSaid {
    /// Of a controller.
    Controller {
        /// Which.
        name: ControllerName,
        /// What.
        what: KernelHint,
    },
    /// Of a namespace, native multipath's.
    Namespace {
        /// Its device.
        device: DeviceName,
        /// What.
        what: NamespaceHint,
    },
    /// It said more than was read in time.
    Lost,
}

/// What the kernel says of a controller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum KernelHint {
    /// A command got no answer in time.
    Timeout,
    /// A keep-alive failed.
    KeepAliveFailed,
    /// The connection is given up.
    ErrorRecovery,
    /// It will connect again after a while.
    Reconnecting,
    /// It did not connect.
    ReconnectFailed,
    /// It is connected again.
    Reconnected,
    /// `fast_io_fail_tmo` is over: its I/O fails from now on.
    FastIoFail,
    /// It is given up for good.
    Removing,
}

/// What the kernel says of a namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NamespaceHint {
    /// I/O waits: no path can take it now.
    Queueing,
    /// I/O fails: no path will take it.
    Failing,
}

/// The kernel's log from now on.
#[derive(Debug)]
pub struct KernelLog {
    log: AsyncFd<OwnedFd>,
    record: Vec<u8>,
}

impl KernelLog {
    /// Opens it at its end. Needs a tokio runtime with I/O and time.
    ///
    /// # Errors
    /// When it may not be read (`CAP_SYSLOG`, `dmesg_restrict`) or is not there.
    pub fn open() -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
        let log = rustix::fs::open(Path::new("/dev/kmsg"), flags, Mode::empty())?;
        rustix::fs::seek(&log, SeekFrom::End(0))?;
        Self::over(log)
    }

    fn over(log: OwnedFd) -> io::Result<Self> {
        Ok(Self { log: readable(log)?, record: vec![0; RECORD] })
    }

    /// The next thing the kernel says of NVMe. May be dropped while it waits; nothing is lost by
    /// that.
    pub async fn next(&mut self) -> KernelSaid {
        loop {
            let read = match self.log.readable().await {
                Ok(mut ready) => match rustix::io::read(ready.get_inner(), &mut self.record[..]) {
                    Err(Errno::AGAIN) => {
                        ready.clear_ready();
                        continue;
                    }
                    read => read,
                },
                Err(error) => Err(Errno::from_io_error(&error).unwrap_or(Errno::IO)),
            };
            match read {
                Ok(length) if length > 0 => {
                    if let Some(said) = parse(&self.record[..length]) {
                        return said;
                    }
                }
                Err(Errno::INTR) => {}
                // Overtaken; or a record that is too long, which the kernel has passed over.
                Err(Errno::PIPE | Errno::INVAL) => return KernelSaid::Lost,
                Ok(_) | Err(_) => {
                    tokio::time::sleep(AFTER_ERROR).await;
                    return KernelSaid::Lost;
                }
            }
        }
    }
}

/// Reads one record; nothing, if it is not one of those that matter.
#[must_use]
pub fn parse(record: &[u8]) -> Option<KernelSaid> {
    let at = record.iter().take(128).position(|byte| *byte == b';')?;
    let (head, text) = (record.get(..at)?, record.get(at + 1..)?);
    let priority = head.split(|byte| *byte == b',').next()?;
    let priority: u32 = std::str::from_utf8(priority).ok()?.parse().ok()?;
    if priority >> 3 != 0 {
        return None;
    }
    let line = text.split(|byte| *byte == b'\n').next()?;
    let line = std::str::from_utf8(line).ok()?;
    if let Some(rest) = line.strip_prefix("nvme ") {
        let (name, what) = rest.split_once(": ")?;
        let what = controller_hint(what)?;
        let name = ControllerName::new(name).ok().filter(|name| is_nvme(name.as_str()))?;
        return Some(KernelSaid::Controller { name, what });
    }
    // `dev_printk` of a disk puts its class before it; `pr_*` does not.
    let (device, what) = line.strip_prefix("block ").unwrap_or(line).split_once(": ")?;
    let what = namespace_hint(what)?;
    let device = DeviceName::new(device).ok().filter(|device| is_nvme(device.as_str()))?;
    Some(KernelSaid::Namespace { device, what })
}

fn is_nvme(name: &str) -> bool {
    name.strip_prefix("nvme").is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
}

/// `drivers/nvme/host/{core,tcp,rdma}.c`, 6.1 to 6.18.
fn controller_hint(what: &str) -> Option<KernelHint> {
    const BEGINNINGS: [(&str, KernelHint); 8] = [
        ("starting error recovery", KernelHint::ErrorRecovery),
        ("failed nvme_keep_alive_end_io", KernelHint::KeepAliveFailed),
        ("keep-alive failed", KernelHint::KeepAliveFailed),
        ("Reconnecting in ", KernelHint::Reconnecting),
        ("Failed reconnect attempt", KernelHint::ReconnectFailed),
        ("Successfully reconnected", KernelHint::Reconnected),
        ("failfast expired", KernelHint::FastIoFail),
        ("Removing controller", KernelHint::Removing),
    ];
    if let Some((_, hint)) = BEGINNINGS.iter().find(|(text, _)| what.starts_with(text)) {
        return Some(*hint);
    }
    // 6.1: "queue 2: timeout request 0x11 type 4"; RDMA "I/O 5 QID 2 timeout";
    // 6.6 and later: "I/O tag 17 (1011) type 4 opcode 0x1 (Write) QID 2 timeout".
    let old = what.starts_with("queue ") && what.contains(": timeout request ");
    let new = what.starts_with("I/O ") && what.contains(" QID ") && what.contains(" timeout");
    (old || new).then_some(KernelHint::Timeout)
}

/// `nvme_ns_head_submit_bio`, `drivers/nvme/host/multipath.c`.
fn namespace_hint(what: &str) -> Option<NamespaceHint> {
    if what.starts_with("no usable path - requeuing I/O") {
        Some(NamespaceHint::Queueing)
    } else if what.starts_with("no available path - failing I/O") {
        Some(NamespaceHint::Failing)
    } else {
        None
    }
}

#[cfg(test)]
#[path = "kmsg_tests.rs"]
mod tests;
