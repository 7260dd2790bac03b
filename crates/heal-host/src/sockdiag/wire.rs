//! `inet_diag`'s bytes (`include/uapi/linux/inet_diag.h`), both ways.
//!
//! ```text
//!   inet_diag_sockid, 48 bytes, all of it in network order but the last three numbers
//!   ┌ sport 2 ┬ dport 2 ┬ src 16 ┬ dst 16 ┬ interface 4 ┬ cookie 8 ┐
//!   └─────────┴─────────┴────────┴────────┴─────────────┴──────────┘
//!   request  ┌ family protocol ext pad ┬ states 4 ┬ sockid ┬ attributes
//!   answer   ┌ family state timer retrans ┬ sockid ┬ expires rqueue wqueue uid inode ┬ attributes
//! ```

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::time::Duration;

use super::{SocketId, TcpInfo, TcpSocket, TcpState};
use crate::dialog::message::{Malformed, Request, attributes, u32_at};
use crate::dialog::{NLM_F_ACK, NLM_F_DUMP};

/// `SOCK_DIAG_BY_FAMILY`.
pub(super) const BY_FAMILY: u16 = 20;
/// `SOCK_DESTROY`.
const DESTROY: u16 = 21;

const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
const IPPROTO_TCP: u8 = 6;

const INET_DIAG_REQ_BYTECODE: u16 = 1;
const INET_DIAG_INFO: u16 = 2;
const INET_DIAG_BC_D_COND: u8 = 8;

/// Length of `inet_diag_sockid`.
const ID: usize = 48;
/// Length of `inet_diag_msg`.
const FIXED: usize = 72;
/// `idiag_timer` of a socket that only waits for its time to pass.
const TIMER_TIME_WAIT: u8 = 3;

/// Every state in which somebody holds the socket and it has a remote end: not those of a listener
/// (10), of a connection that is only remembered (6, 7), or of one that comes in (3, 12).
pub(super) const HELD: u32 = 1 << 1 | 1 << 2 | 1 << 4 | 1 << 5 | 1 << 8 | 1 << 9 | 1 << 11;

/// No state at all: asks only whether the kernel would answer.
pub(super) const NONE: u32 = 0;

/// IPv4 or IPv6.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6; its addresses may be IPv4's, mapped.
    V6,
}

impl Family {
    fn number(self) -> u8 {
        match self {
            Self::V4 => AF_INET,
            Self::V6 => AF_INET6,
        }
    }

    fn from_number(number: u8) -> Option<Self> {
        match number {
            AF_INET => Some(Self::V4),
            AF_INET6 => Some(Self::V6),
            _ => None,
        }
    }
}

/// `inet_diag_sockid` as the kernel wrote it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct RawId(pub(super) [u8; ID]);

impl RawId {
    pub(super) fn of(
        local: SocketAddr,
        remote: SocketAddr,
        interface: u32,
        cookie: [u32; 2],
    ) -> Self {
        let mut id = [0; ID];
        id[0..2].copy_from_slice(&local.port().to_be_bytes());
        id[2..4].copy_from_slice(&remote.port().to_be_bytes());
        put_address(&mut id[4..20], local.ip());
        put_address(&mut id[20..36], remote.ip());
        id[36..40].copy_from_slice(&interface.to_ne_bytes());
        id[40..44].copy_from_slice(&cookie[0].to_ne_bytes());
        id[44..48].copy_from_slice(&cookie[1].to_ne_bytes());
        Self(id)
    }

    fn read(self, family: Family) -> Option<SocketId> {
        let bytes = &self.0;
        let port = |at: usize| Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?));
        let interface = u32_at(bytes, 36)?;
        let end = |address: IpAddr, port: u16| match address {
            IpAddr::V6(address) if address.is_unicast_link_local() => {
                SocketAddr::V6(SocketAddrV6::new(address, port, 0, interface))
            }
            IpAddr::V4(_) | IpAddr::V6(_) => SocketAddr::new(address, port),
        };
        Some(SocketId {
            family,
            local: end(address(family, bytes.get(4..20)?)?, port(0)?),
            remote: end(address(family, bytes.get(20..36)?)?, port(2)?),
            interface,
            cookie: [u32_at(bytes, 40)?, u32_at(bytes, 44)?],
            raw: self,
        })
    }
}

fn put_address(place: &mut [u8], address: IpAddr) {
    match address {
        IpAddr::V4(address) => place[..4].copy_from_slice(&address.octets()),
        IpAddr::V6(address) => place.copy_from_slice(&address.octets()),
    }
}

/// A mapped address is the one that is mapped: whom it leads to counts, not how it is written.
fn address(family: Family, bytes: &[u8]) -> Option<IpAddr> {
    Some(match family {
        Family::V4 => {
            let bytes: [u8; 4] = bytes.get(..4)?.try_into().ok()?;
            Ipv4Addr::from(bytes).into()
        }
        Family::V6 => {
            let bytes: [u8; 16] = bytes.try_into().ok()?;
            IpAddr::V6(Ipv6Addr::from(bytes)).to_canonical()
        }
    })
}

fn fixed(family: Family, ext: u8, states: u32, id: &RawId) -> Vec<u8> {
    let mut bytes = vec![family.number(), IPPROTO_TCP, ext, 0];
    bytes.extend(states.to_ne_bytes());
    bytes.extend(id.0);
    bytes
}

/// `INET_DIAG_INFO` is wanted.
const WITH_INFO: u8 = 1 << (INET_DIAG_INFO - 1);

/// Sockets of `family` to `remote` in one of `states`.
pub(super) fn dump(family: Family, states: u32, remote: SocketAddr) -> Request {
    let mut id = [0; ID];
    id[2..4].copy_from_slice(&remote.port().to_be_bytes());
    Request::new(BY_FAMILY, NLM_F_DUMP, &fixed(family, WITH_INFO, states, &RawId(id)))
        .attribute(INET_DIAG_REQ_BYTECODE, &destination(remote))
}

/// The kernel's filter program: one condition, and past the end of it when it does not hold.
fn destination(remote: SocketAddr) -> Vec<u8> {
    let (family, address) = match remote.ip() {
        IpAddr::V4(address) => (AF_INET, address.octets().to_vec()),
        IpAddr::V6(address) => (AF_INET6, address.octets().to_vec()),
    };
    // The operation is 4 bytes, its condition 8 and the address.
    let (length, bits) = if family == AF_INET { (16_u8, 32_u8) } else { (28, 128) };
    let mut program = vec![INET_DIAG_BC_D_COND, length];
    program.extend((u16::from(length) + 4).to_ne_bytes());
    program.extend([family, bits, 0, 0]);
    program.extend(i32::from(remote.port()).to_ne_bytes());
    program.extend(address);
    program
}

/// One socket, by its id.
pub(super) fn exact(id: &SocketId) -> Request {
    Request::new(BY_FAMILY, 0, &fixed(id.family, WITH_INFO, u32::MAX, &id.raw))
}

/// The end of one socket.
pub(super) fn destroy(id: &SocketId) -> Request {
    Request::new(DESTROY, NLM_F_ACK, &fixed(id.family, 0, u32::MAX, &id.raw))
}

/// A socket that is told. Nothing for one that only waits for its time to pass: nobody holds it.
pub(super) fn socket(body: &[u8]) -> Result<Option<TcpSocket>, Malformed> {
    let head = body.get(..FIXED).ok_or(Malformed)?;
    let family = Family::from_number(head[0]).ok_or(Malformed)?;
    if head[2] == TIMER_TIME_WAIT {
        return Ok(None);
    }
    let raw = head.get(4..4 + ID).and_then(|bytes| bytes.try_into().ok()).ok_or(Malformed)?;
    let mut info = None;
    for attribute in attributes(body.get(FIXED..).unwrap_or_default()) {
        let (kind, value) = attribute?;
        if kind == INET_DIAG_INFO {
            info = Some(tcp_info(value).ok_or(Malformed)?);
        }
    }
    Ok(Some(TcpSocket {
        id: RawId(raw).read(family).ok_or(Malformed)?,
        state: TcpState::from_number(head[1]),
        info,
        uid: u32_at(head, 64).ok_or(Malformed)?,
        inode: u32_at(head, 68).ok_or(Malformed)?,
    }))
}

/// `struct tcp_info` (`include/uapi/linux/tcp.h`): eight bytes, then numbers of four. It grows at
/// its end with every few kernels.
fn tcp_info(bytes: &[u8]) -> Option<TcpInfo> {
    Some(TcpInfo {
        state: TcpState::from_number(*bytes.first()?),
        retransmits: *bytes.get(2)?,
        backoff: *bytes.get(4)?,
        rto: Duration::from_micros(u32_at(bytes, 8)?.into()),
        unacked: u32_at(bytes, 24)?,
        since_ack: Duration::from_millis(u32_at(bytes, 56)?.into()),
    })
}

#[cfg(test)]
#[path = "wire_tests.rs"]
mod tests;
