//! What this kernel can do for isolation, found out by asking it and never by its version:
//! distributions carry fixes back, and leave options out.
//!
//! ```text
//!   capabilities      CAP_NET_ADMIN                 or NotPermitted
//!   sock_diag         an empty dump of TCP          or NoTcpDiag
//!   SOCK_DESTROY      of a socket that cannot be:
//!                     ENOENT yes, EOPNOTSUPP no     or NoSockDestroy
//!   kallsyms          nvme_tcp_wait_queue           or NoWmemDrain
//!   a controller      fast_io_fail_tmo              or NoFastIoFail
//! ```
//!
//! The fourth is about data: without that function the driver completes a cancelled write while its
//! pages may still be sent, and what is sent later is whatever the pages hold by then. Such a
//! kernel is not hurried. `nvme_tcp_stop_queue_nowait` came with the same change and counts as
//! well: a compiler may have put one of the two into its callers.
//!
//! Some questions have no answer **yet**: the symbols of a module that is not loaded, the
//! attributes of a controller that is not there. That is [`UndecidedWhy`]: ask again when the first
//! controller appears. Until then there is nothing to isolate.
//!
//! **RDMA has no sockets.** On a host whose fabrics controllers are all over RDMA only the last
//! question is asked, because arming is all that is done there; the others are asked when the first
//! controller over TCP appears, and until then no socket may be ended.
//!
//! The price: the kernel's symbols are some megabytes of text, made while they are read (a tenth of
//! a second, more under emulation). This is for start-up, off the event loop.

use std::collections::BTreeSet;
use std::fmt;
use std::io::{self, BufRead, BufReader, Read};
use std::net::{Ipv4Addr, SocketAddr};

use heal_types::{Observed, TransportKind, UnknownWhy};
use rustix::thread::CapabilitySet;

use crate::sockdiag::{Destroyed, Diag, NotOffered, SocketId};
use crate::sysfs::Root;

/// The most of `/proc/kallsyms` that is read.
const KALLSYMS: u64 = 64 * 1024 * 1024;

/// The functions of the change that waits for a socket's send buffer before it cancels commands.
const DRAIN: [&[u8]; 2] = [b"nvme_tcp_wait_queue", b"nvme_tcp_stop_queue_nowait"];

/// A cookie no socket gets: they are counted up from zero. (All ones means any socket.)
const NOBODYS_COOKIE: [u32; 2] = [0, u32::MAX];

/// Why this host's legs cannot be isolated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum UnsupportedWhy {
    /// The kernel tells nothing of TCP sockets, and has no module for it.
    NoTcpDiag,
    /// The kernel does not end sockets on request.
    NoSockDestroy,
    /// The daemon may not end sockets.
    NotPermitted,
    /// The driver may send pages whose write it has already completed.
    NoWmemDrain,
    /// Controllers have no `fast_io_fail_tmo`.
    NoFastIoFail,
}

impl UnsupportedWhy {
    /// One word, for status and audit fields.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::NoTcpDiag => "no-tcp-diag",
            Self::NoSockDestroy => "no-sock-destroy",
            Self::NotPermitted => "not-permitted",
            Self::NoWmemDrain => "no-wmem-drain",
            Self::NoFastIoFail => "no-fast-io-fail",
        }
    }
}

impl fmt::Display for UnsupportedWhy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoTcpDiag => "the kernel tells nothing of TCP sockets (tcp_diag)",
            Self::NoSockDestroy => "the kernel does not end sockets on request (INET_DIAG_DESTROY)",
            Self::NotPermitted => "the daemon may not end sockets (CAP_NET_ADMIN)",
            Self::NoWmemDrain => {
                "the driver may send pages of writes it has given up (nvme_tcp_wait_queue)"
            }
            Self::NoFastIoFail => "controllers have no fast_io_fail_tmo",
        })
    }
}

/// Why it cannot be said yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum UndecidedWhy {
    /// `nvme_tcp` is not loaded: its functions are not to be seen.
    DriverNotLoaded,
    /// There is no fabrics controller: its attributes are not to be seen.
    NoController,
    /// The kernel's symbols cannot be read.
    SymbolsUnreadable,
    /// The kernel did not answer about sockets.
    NoAnswer,
}

impl UndecidedWhy {
    /// One word, for status and audit fields.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::DriverNotLoaded => "driver-not-loaded",
            Self::NoController => "no-controller",
            Self::SymbolsUnreadable => "symbols-unreadable",
            Self::NoAnswer => "no-answer",
        }
    }
}

impl fmt::Display for UndecidedWhy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::DriverNotLoaded => "nvme_tcp is not loaded yet",
            Self::NoController => "there is no fabrics controller yet",
            Self::SymbolsUnreadable => "the kernel's symbols cannot be read",
            Self::NoAnswer => "the kernel does not answer about sockets",
        })
    }
}

/// Whether this host's legs can be isolated.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct IsolationSupport {
    /// Every fabrics controller is over RDMA: nothing was asked about sockets.
    pub only_rdma: bool,
    /// What is missing; nothing of it comes back without another kernel or another unit file.
    pub missing: BTreeSet<UnsupportedWhy>,
    /// What could not be found out.
    pub undecided: BTreeSet<UndecidedWhy>,
}

impl IsolationSupport {
    /// Asks the kernel, and reads below `root`. Blocks, for some tenths of a second.
    #[must_use]
    pub fn detect(root: &Root) -> Self {
        let mut support = Self::read(root);
        if !support.only_rdma {
            support.probe_capability();
            support.probe_sockets();
        }
        support
    }

    /// What can be read below `root`: the driver and its controllers.
    #[must_use]
    pub fn read(root: &Root) -> Self {
        let mut support = Self::default();
        support.read_controllers(root);
        if !support.only_rdma {
            support.read_driver(root);
        }
        support
    }

    /// Whether legs may be isolated: nothing is missing and everything is known.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.missing.is_empty() && self.undecided.is_empty()
    }

    /// Whether sockets may be ended as well.
    #[must_use]
    pub fn covers_sockets(&self) -> bool {
        self.fabrics().contains(&TransportKind::Tcp)
    }

    /// The fabrics whose controllers may be isolated: none while anything is missing or not known.
    #[must_use]
    pub fn fabrics(&self) -> BTreeSet<TransportKind> {
        match (self.is_whole(), self.only_rdma) {
            (false, _) => BTreeSet::new(),
            (true, true) => [TransportKind::Rdma].into(),
            (true, false) => [TransportKind::Tcp, TransportKind::Rdma].into(),
        }
    }

    /// Whether it is worth asking again.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.missing.is_empty() && !self.undecided.is_empty()
    }

    fn read_driver(&mut self, root: &Root) {
        if !root.dir("sys/module/nvme_tcp").exists() {
            self.undecided.insert(UndecidedWhy::DriverNotLoaded);
            return;
        }
        let path = root.dir("proc").path().join("kallsyms");
        match std::fs::File::open(path).and_then(drains) {
            Ok(Drains::Yes) => {}
            Ok(Drains::No) => {
                self.missing.insert(UnsupportedWhy::NoWmemDrain);
            }
            Ok(Drains::Unseen) => {
                self.undecided.insert(UndecidedWhy::SymbolsUnreadable);
            }
            Err(error) => {
                tracing::info!(%error, "kernel symbols cannot be read");
                self.undecided.insert(UndecidedWhy::SymbolsUnreadable);
            }
        }
    }

    fn read_controllers(&mut self, root: &Root) {
        let class = root.dir("sys/class/nvme");
        let Observed::Known(names) = class.entries() else {
            self.undecided.insert(UndecidedWhy::NoController);
            return;
        };
        let (mut seen, mut tcp, mut rdma) = (false, false, false);
        for name in names {
            let controller = class.dir(&name);
            match controller.text("transport") {
                Observed::Known(transport) if transport == "tcp" => tcp = true,
                Observed::Known(transport) if transport == "rdma" => rdma = true,
                Observed::Known(_) => continue,
                // It may be any: what is said of sockets is not put off.
                Observed::Unknown(_) => {
                    tcp = true;
                    continue;
                }
            }
            match controller.optional::<String>("fast_io_fail_tmo") {
                Observed::Unknown(UnknownWhy::Unsupported) => {
                    self.missing.insert(UnsupportedWhy::NoFastIoFail);
                    seen = true;
                }
                // One that goes away just now says nothing.
                Observed::Unknown(_) => {}
                Observed::Known(_) => seen = true,
            }
        }
        if !seen {
            self.undecided.insert(UndecidedWhy::NoController);
        }
        self.only_rdma = rdma && !tcp;
    }

    fn probe_capability(&mut self) {
        let may = rustix::thread::capabilities(None)
            .is_ok_and(|sets| sets.effective.contains(CapabilitySet::NET_ADMIN));
        if !may {
            self.missing.insert(UnsupportedWhy::NotPermitted);
        }
    }

    /// Ends a socket that cannot be: from a port to the same port of the loopback address, under a
    /// cookie nobody has. The kernel looks for it before it asks for any right.
    fn probe_sockets(&mut self) {
        let nowhere = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 1);
        let nobody = SocketId::new(nowhere, nowhere, 0, NOBODYS_COOKIE);
        match Diag::open().and_then(|mut diag| diag.destroy(&nobody)) {
            Ok(Destroyed::Gone | Destroyed::Destroyed) => {}
            Err(error) => self.socket_refusal(&error),
        }
    }

    fn socket_refusal(&mut self, error: &io::Error) {
        let offered = error.get_ref().and_then(|inner| inner.downcast_ref::<NotOffered>());
        match (offered, error.kind()) {
            (Some(NotOffered::Diag), _) => {
                self.missing.insert(UnsupportedWhy::NoTcpDiag);
            }
            (Some(NotOffered::Destroy), _) => {
                self.missing.insert(UnsupportedWhy::NoSockDestroy);
            }
            (None, io::ErrorKind::PermissionDenied) => {
                self.missing.insert(UnsupportedWhy::NotPermitted);
            }
            (None, _) => {
                tracing::info!(%error, "no answer about sockets");
                self.undecided.insert(UndecidedWhy::NoAnswer);
            }
        }
    }
}

/// "isolation: available", or everything that is against it.
impl fmt::Display for IsolationSupport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.covers_sockets() {
            return f.write_str("available");
        }
        if self.is_whole() {
            return f.write_str("available for RDMA, by fast_io_fail_tmo alone");
        }
        let missing = self.missing.iter().map(ToString::to_string);
        let reasons: Vec<_> = if self.missing.is_empty() {
            f.write_str("not known: ")?;
            self.undecided.iter().map(ToString::to_string).collect()
        } else {
            f.write_str("not available: ")?;
            missing.collect()
        };
        f.write_str(&reasons.join("; "))
    }
}

/// What the symbols say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Drains {
    Yes,
    No,
    /// There is not one symbol of the driver: a kernel that does not show them.
    Unseen,
}

fn drains(symbols: impl Read) -> io::Result<Drains> {
    let mut symbols = BufReader::with_capacity(64 * 1024, symbols.take(KALLSYMS));
    let mut line = Vec::with_capacity(256);
    let mut found = Drains::Unseen;
    loop {
        line.clear();
        if symbols.read_until(b'\n', &mut line)? == 0 {
            return Ok(found);
        }
        let Some(name) = driver_symbol(&line) else { continue };
        if DRAIN.contains(&name) {
            return Ok(Drains::Yes);
        }
        if name.starts_with(b"nvme_tcp_") {
            found = Drains::No;
        }
    }
}

/// The name in a line of `kallsyms`, without what a compiler put behind it, if it belongs to
/// `nvme_tcp` or to the kernel's core: `0000000000000000 t nvme_tcp_wait_queue.part.0\t[nvme_tcp]`.
fn driver_symbol(line: &[u8]) -> Option<&[u8]> {
    let mut words = line.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
    let kind = words.nth(1)?;
    let name = words.next()?;
    let module = words.next();
    let is_code = kind.eq_ignore_ascii_case(b"t");
    let is_drivers = module.is_none_or(|module| module == b"[nvme_tcp]");
    (is_code && is_drivers).then(|| name.split(|byte| *byte == b'.').next()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(symbols: &str) -> Drains {
        drains(symbols.as_bytes()).unwrap()
    }

    const DRIVER: &str = "0000000000000000 T _stext\n\
        0000000000000000 t nvme_tcp_stop_queue\t[nvme_tcp]\n\
        0000000000000000 t nvme_tcp_error_recovery_work\t[nvme_tcp]\n";

    #[test]
    fn a_driver_that_waits_is_known_by_its_function_whatever_the_compiler_called_it() {
        assert_eq!(read(DRIVER), Drains::No);
        for name in [
            "nvme_tcp_wait_queue",
            "nvme_tcp_wait_queue.part.0",
            "nvme_tcp_wait_queue.isra.0",
            "nvme_tcp_stop_queue_nowait",
        ] {
            let with = format!("{DRIVER}ffffffffc0a01230 t {name}\t[nvme_tcp]\n");
            assert_eq!(read(&with), Drains::Yes, "{name}");
            let built_in = format!("ffffffff81a01230 t {name}\n");
            assert_eq!(read(&built_in), Drains::Yes, "{name}, built in");
        }
    }

    #[test]
    fn a_name_that_only_looks_like_it_is_not_it() {
        for line in [
            "0 t nvme_tcp_wait_queue\t[other]",
            "0 d nvme_tcp_wait_queue\t[nvme_tcp]",
            "0 t nvme_tcp_wait_queues\t[nvme_tcp]",
            "0 t my_nvme_tcp_wait_queue\t[nvme_tcp]",
            "0 t",
            "nvme_tcp_wait_queue",
        ] {
            assert_eq!(read(&format!("{DRIVER}{line}\n")), Drains::No, "{line}");
        }
    }

    #[test]
    fn a_kernel_that_shows_no_symbols_of_the_driver_decides_nothing() {
        assert_eq!(read(""), Drains::Unseen);
        assert_eq!(read("0000000000000000 T _stext\n"), Drains::Unseen);
        assert_eq!(drains(&[0xff; 4096][..]).unwrap(), Drains::Unseen);
    }

    #[test]
    fn nothing_is_available_until_everything_is_known() {
        let mut support = IsolationSupport::default();
        assert!(support.is_whole() && !support.is_open());
        assert_eq!(support.to_string(), "available");
        support.undecided.insert(UndecidedWhy::DriverNotLoaded);
        assert!(!support.is_whole() && support.is_open());
        assert_eq!(support.to_string(), "not known: nvme_tcp is not loaded yet");
        support.missing.insert(UnsupportedWhy::NoSockDestroy);
        support.missing.insert(UnsupportedWhy::NoFastIoFail);
        assert!(!support.is_whole() && !support.is_open());
        assert_eq!(
            support.to_string(),
            "not available: the kernel does not end sockets on request (INET_DIAG_DESTROY); \
             controllers have no fast_io_fail_tmo"
        );
    }

    #[test]
    fn what_the_kernel_says_about_sockets_becomes_its_reason() {
        let refused = |error: io::Error| {
            let mut support = IsolationSupport::default();
            support.socket_refusal(&error);
            support.to_string()
        };
        assert!(refused(NotOffered::Diag.into()).contains("tcp_diag"));
        assert!(refused(NotOffered::Destroy.into()).contains("INET_DIAG_DESTROY"));
        assert!(refused(io::ErrorKind::PermissionDenied.into()).contains("CAP_NET_ADMIN"));
        assert!(refused(io::ErrorKind::TimedOut.into()).starts_with("not known"));
    }
}
