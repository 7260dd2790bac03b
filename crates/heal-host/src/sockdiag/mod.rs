//! The host's TCP sockets, over `NETLINK_SOCK_DIAG`: which lead to a target, how they fare, and the
//! end of one of them.
//!
//! A pulled cable leaves an NVMe/TCP controller `live` until a keep-alive goes unanswered. Its
//! sockets know earlier: segments go out again and again and nothing comes back. And ending them
//! from here (what `ss -K` does) is what makes the kernel begin its error recovery at once:
//!
//! ```text
//!   dump(target) ──► every socket to it: id, state, tcp_info        (looks through the whole table)
//!   get(id)      ──► this socket, if it still is this one            (one look-up)
//!   destroy(id)  ──► tcp_abort ──► TCP_CLOSE ──► nvme_tcp_state_change ──► error recovery
//! ```
//!
//! **An id is exact.** The kernel looks a socket up by both addresses, both ports and interface,
//! and then compares the cookie, a number no other socket of this boot gets. Whoever destroys by id
//! hits that connection or none ([`Destroyed::Gone`]), never its successor on the same ports. One
//! cookie means "any" to the kernel; an id with that one is refused here.
//!
//! **`ENOENT` has two meanings**: no such socket, and no `tcp_diag` in this kernel. So
//! [`Diag::open`] first asks an empty question, which also loads the module; after that `ENOENT` is
//! the socket's.
//!
//! The price: a dump walks the kernel's table of all connections, some milliseconds on a host with
//! many; it is filtered there and once more here. It has no place on the way from a lost carrier to
//! `destroy`: the ids are to be known before (see `crate::socketbook`).

mod wire;

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use heal_types::Moment;
use rustix::io::Errno;
use thiserror::Error;

pub use wire::Family;

use crate::dialog::{Dialog, Heard, malformed};

/// The most sockets of one dump.
const SOCKETS: usize = 65_536;

/// How often a dump is asked for that changed while it was told.
const ATTEMPTS: usize = 3;

/// `INET_DIAG_NOCOOKIE`, twice: the kernel compares no cookie.
const ANY_COOKIE: [u32; 2] = [u32::MAX; 2];

/// What this kernel does not offer. An [`io::Error`] of kind [`io::ErrorKind::Unsupported`] holds
/// it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum NotOffered {
    /// No `tcp_diag`, and no module of that name.
    #[error("the kernel tells nothing of its TCP sockets (no tcp_diag)")]
    Diag,
    /// Built without `CONFIG_INET_DIAG_DESTROY`.
    #[error("the kernel does not end sockets on request (no INET_DIAG_DESTROY)")]
    Destroy,
}

impl From<NotOffered> for io::Error {
    fn from(what: NotOffered) -> Self {
        Self::new(io::ErrorKind::Unsupported, what)
    }
}

/// A TCP socket's state (`include/net/tcp_states.h`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TcpState {
    /// Connected.
    Established,
    /// Connecting.
    SynSent,
    /// Being connected to.
    SynRecv,
    /// Closed here, not acknowledged.
    FinWait1,
    /// Closed here.
    FinWait2,
    /// Remembered.
    TimeWait,
    /// Closed.
    Close,
    /// Closed by the other end.
    CloseWait,
    /// Closed by both, not acknowledged.
    LastAck,
    /// Waiting for connections.
    Listen,
    /// Closed by both at once.
    Closing,
    /// One that this program does not know.
    Other(u8),
}

impl TcpState {
    fn from_number(number: u8) -> Self {
        match number {
            1 => Self::Established,
            2 => Self::SynSent,
            3 => Self::SynRecv,
            4 => Self::FinWait1,
            5 => Self::FinWait2,
            6 => Self::TimeWait,
            7 => Self::Close,
            8 => Self::CloseWait,
            9 => Self::LastAck,
            10 => Self::Listen,
            11 => Self::Closing,
            other => Self::Other(other),
        }
    }
}

/// One socket and no other, now or later in this boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SocketId {
    /// Its family.
    pub family: Family,
    /// Our end; an address that is mapped into IPv6 is given as IPv4's.
    pub local: SocketAddr,
    /// The other end, likewise.
    pub remote: SocketAddr,
    /// The interface it is bound to; 0 is none.
    pub interface: u32,
    /// The number no other socket gets.
    pub cookie: [u32; 2],
    /// As the kernel wrote it, and wants it back.
    raw: wire::RawId,
}

impl SocketId {
    /// The id of a socket that is not mapped. What the kernel tells has its id already; this is for
    /// probes and tests.
    #[must_use]
    pub fn new(local: SocketAddr, remote: SocketAddr, interface: u32, cookie: [u32; 2]) -> Self {
        let family = if remote.is_ipv4() { Family::V4 } else { Family::V6 };
        let raw = wire::RawId::of(local, remote, interface, cookie);
        Self { family, local, remote, interface, cookie, raw }
    }
}

/// One socket as the kernel tells of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TcpSocket {
    /// Which.
    pub id: SocketId,
    /// Its state.
    pub state: TcpState,
    /// How it fares, where the kernel says.
    pub info: Option<TcpInfo>,
    /// Its inode; 0 when nobody holds it any more.
    pub inode: u32,
    /// Who made it.
    pub uid: u32,
}

/// How a connection fares (`struct tcp_info`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TcpInfo {
    /// Its state, once more.
    pub state: TcpState,
    /// Retransmissions of the oldest segment that is not acknowledged.
    pub retransmits: u8,
    /// Doublings of the retransmission time since the last answer.
    pub backoff: u8,
    /// The retransmission time.
    pub rto: Duration,
    /// Segments sent and not acknowledged.
    pub unacked: u32,
    /// Since the last acknowledgement.
    pub since_ack: Duration,
}

/// What became of a socket that was to be ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Destroyed {
    /// There is none of this id: it ended before, or another has its ports.
    Gone,
    /// It is ended.
    Destroyed,
}

/// The kernel's diagnosis of sockets.
#[derive(Debug)]
pub struct Diag {
    dialog: Dialog,
}

impl Diag {
    /// Opens it, and makes sure that the kernel answers about TCP.
    ///
    /// # Errors
    /// [`NotOffered::Diag`], or what the kernel says.
    pub fn open() -> io::Result<Self> {
        let mut dialog = Dialog::open(netlink_sys::protocols::NETLINK_SOCK_DIAG)?;
        let nowhere = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 1);
        let nothing = wire::dump(Family::V4, wire::NONE, nowhere);
        match dialog.ask(&nothing, |_, _| Ok(())) {
            Ok(_) => Ok(Self { dialog }),
            Err(error) if is(&error, Errno::NOENT) => Err(NotOffered::Diag.into()),
            Err(error) => Err(error),
        }
    }

    /// Every TCP socket to `remote` that somebody holds, whatever its state. A listener, and a
    /// connection that is only remembered, is none.
    ///
    /// # Errors
    /// When the kernel refuses, says nothing for a second, tells more than 65536, or when the list
    /// changed three times while it was told. Half a list is never answered.
    pub fn dump(&mut self, remote: SocketAddr) -> io::Result<Vec<TcpSocket>> {
        let remote = canonical(remote);
        let families: &[Family] = match remote.ip() {
            // A socket of IPv6 may lead to an IPv4 address.
            IpAddr::V4(_) => &[Family::V4, Family::V6],
            IpAddr::V6(_) => &[Family::V6],
        };
        for _ in 0..ATTEMPTS {
            let mut sockets = Vec::new();
            let mut torn = false;
            for family in families {
                torn |= self.dump_family(*family, remote, &mut sockets)? == Heard::Torn;
            }
            if !torn {
                return Ok(sockets);
            }
        }
        Err(io::Error::new(io::ErrorKind::Interrupted, "the list of sockets does not hold still"))
    }

    fn dump_family(
        &mut self,
        family: Family,
        remote: SocketAddr,
        sockets: &mut Vec<TcpSocket>,
    ) -> io::Result<Heard> {
        self.dialog.ask(&wire::dump(family, wire::HELD, remote), |kind, body| {
            let Some(socket) = told(kind, body)? else { return Ok(()) };
            if !leads_to(&socket.id, remote) {
                return Ok(());
            }
            if sockets.len() >= SOCKETS {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "too many sockets"));
            }
            sockets.push(socket);
            Ok(())
        })
    }

    /// The socket `id`, if it still is this one.
    ///
    /// # Errors
    /// When the kernel refuses or says nothing for a second.
    pub fn get(&mut self, id: &SocketId) -> io::Result<Option<TcpSocket>> {
        exact(id)?;
        let mut found = None;
        let asked = self.dialog.ask(&wire::exact(id), |kind, body| {
            found = told(kind, body)?;
            Ok(())
        });
        match asked {
            Ok(_) => Ok(found.filter(|socket| socket.id.cookie == id.cookie)),
            Err(error) if is_gone(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Ends the socket `id`, and no other.
    ///
    /// # Errors
    /// [`NotOffered::Destroy`], a missing right (`CAP_NET_ADMIN`), or what else the kernel says.
    pub fn destroy(&mut self, id: &SocketId) -> io::Result<Destroyed> {
        let (ended, _) = self.destroy_all(std::slice::from_ref(id))?;
        Ok(ended.first().copied().unwrap_or(Destroyed::Gone))
    }

    /// Ends the sockets `ids`, and no others, all from within one call: after the first of a
    /// controller's the kernel begins its error recovery, and nobody has to wait for that. Answers
    /// what became of each, and when the last had ended.
    ///
    /// # Errors
    /// As [`Diag::destroy`], for the first that the kernel refused; the others were asked for as
    /// well.
    pub fn destroy_all(&mut self, ids: &[SocketId]) -> io::Result<(Vec<Destroyed>, Moment)> {
        ids.iter().try_for_each(exact)?;
        let requests: Vec<_> = ids.iter().map(wire::destroy).collect();
        let acts = self.dialog.ask_acts(&requests)?;
        let ended: io::Result<Vec<Destroyed>> = acts
            .answers
            .into_iter()
            .map(|refused| match refused {
                None => Ok(Destroyed::Destroyed),
                Some(Errno::NOENT | Errno::STALE) => Ok(Destroyed::Gone),
                Some(Errno::OPNOTSUPP) => Err(NotOffered::Destroy.into()),
                Some(errno) => Err(errno.into()),
            })
            .collect();
        Ok((ended?, acts.done_at))
    }
}

/// An id must name one socket.
fn exact(id: &SocketId) -> io::Result<()> {
    if id.cookie == ANY_COOKIE {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "this cookie means any socket"));
    }
    Ok(())
}

pub(crate) fn told(kind: u16, body: &[u8]) -> io::Result<Option<TcpSocket>> {
    if kind != wire::BY_FAMILY {
        return Ok(None);
    }
    wire::socket(body).map_err(malformed)
}

fn leads_to(id: &SocketId, remote: SocketAddr) -> bool {
    let scope = match remote {
        SocketAddr::V6(remote) => remote.scope_id(),
        SocketAddr::V4(_) => 0,
    };
    id.remote.ip() == remote.ip()
        && id.remote.port() == remote.port()
        && (scope == 0 || id.interface == scope)
}

fn canonical(address: SocketAddr) -> SocketAddr {
    match address.ip().to_canonical() {
        IpAddr::V4(ip) => SocketAddr::new(ip.into(), address.port()),
        IpAddr::V6(_) => address,
    }
}

/// The question that would end the socket `id`.
#[cfg(feature = "fuzzing")]
pub(crate) fn destruction(id: &SocketId) -> Vec<u8> {
    wire::destroy(id).numbered(1)
}

/// A cookie that does not fit is `ENOENT` (`inet_diag_find_one_icsk`, `net/ipv4/inet_diag.c`), and
/// `ESTALE` where that is passed on.
fn is_gone(error: &io::Error) -> bool {
    is(error, Errno::NOENT) || is(error, Errno::STALE)
}

fn is(error: &io::Error, errno: Errno) -> bool {
    Errno::from_io_error(error) == Some(errno)
}
