//! rtnetlink: the earliest sign of a pulled cable.
//!
//! A lost carrier is told here seconds before NVMe's keep-alive notices. The events say which
//! interface; what they mean for a leg is for others to find out, from a look.
//!
//! ```text
//!   ┌ nlmsghdr 16 ┬ ifinfomsg 16 ┬ attribute ┬ attribute ┐
//!   │ len type .. │ index flags  │ len kind  │ ...       │   RTM_NEWLINK, RTM_DELLINK
//!   └─────────────┴──────────────┴───────────┴───────────┘
//! ```
//!
//! Several messages may come in one datagram, each padded to four bytes. Every length is checked
//! against what is there; a message that does not fit ends the reading of its datagram, which then
//! counts as lost.

use std::collections::VecDeque;
use std::io;

use crate::netlink::{Datagram, KernelSocket, SocketCounters};

/// `RTMGRP_*` (`include/uapi/linux/rtnetlink.h`): link, and addresses and routes of both families.
const GROUPS: u32 = 0x1 | 0x10 | 0x40 | 0x100 | 0x400;

const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_NEWADDR: u16 = 20;
const RTM_DELADDR: u16 = 21;
const RTM_NEWROUTE: u16 = 24;
const RTM_DELROUTE: u16 = 25;

const IFLA_IFNAME: u16 = 3;
const IFF_UP: u32 = 1 << 0;
const IFF_LOWER_UP: u32 = 1 << 16;

const HEADER: usize = 16;
const LINK_HEADER: usize = 16;
const ADDRESS_HEADER: usize = 8;

/// The most messages of one datagram that are kept.
const MESSAGES: usize = 1024;

/// One change of the network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LinkEvent {
    /// An interface changed.
    Link {
        /// Its index.
        ifindex: u32,
        /// Its name, if the message has one that is text.
        name: Option<String>,
        /// Whether the layer below is up (`IFF_LOWER_UP`).
        carrier: bool,
        /// Whether the administrator wants it up (`IFF_UP`).
        admin_up: bool,
        /// Whether it is gone.
        removed: bool,
    },
    /// An address came, changed or went.
    Address {
        /// The interface's index.
        ifindex: u32,
        /// Whether it is gone.
        removed: bool,
    },
    /// A route came, changed or went. Routes that die with their interface are not told.
    Route,
    /// Messages were lost: look at everything again.
    Overrun,
}

/// The socket.
#[derive(Debug)]
pub struct LinkSocket {
    socket: KernelSocket,
    waiting: VecDeque<LinkEvent>,
}

impl LinkSocket {
    /// Starts listening. Needs a tokio runtime with I/O and time.
    ///
    /// # Errors
    /// When the kernel does not give out the socket.
    pub fn open() -> io::Result<Self> {
        Ok(Self {
            socket: KernelSocket::open(netlink_sys::protocols::NETLINK_ROUTE, GROUPS)?,
            waiting: VecDeque::new(),
        })
    }

    /// The next change. May be dropped while it waits; nothing is lost by that.
    pub async fn next(&mut self) -> LinkEvent {
        loop {
            if let Some(event) = self.waiting.pop_front() {
                return event;
            }
            let events = match self.socket.next().await {
                Datagram::Overrun => return LinkEvent::Overrun,
                Datagram::Message(message) => parse(message),
            };
            if events.contains(&LinkEvent::Overrun) {
                self.socket.counters.malformed += 1;
            }
            self.waiting.extend(events);
        }
    }

    /// What happened so far.
    #[must_use]
    pub fn counters(&self) -> SocketCounters {
        self.socket.counters
    }
}

/// Reads every message of a datagram.
#[must_use]
pub fn parse(datagram: &[u8]) -> Vec<LinkEvent> {
    let mut events = Vec::new();
    let mut rest = datagram;
    while !rest.is_empty() {
        let Some((kind, body, next)) = message(rest).filter(|_| events.len() < MESSAGES) else {
            events.push(LinkEvent::Overrun);
            break;
        };
        match event(kind, body) {
            Ok(Some(event)) => events.push(event),
            Ok(None) => {}
            Err(TooShort) => events.push(LinkEvent::Overrun),
        }
        rest = next;
    }
    events
}

/// A message that ends before its fixed part does.
struct TooShort;

/// The first message: its type, its body, and what follows it.
fn message(bytes: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let length = usize::try_from(u32_at(bytes, 0)?).ok()?;
    let kind = u16_at(bytes, 4)?;
    let body = bytes.get(HEADER..length)?;
    let next = bytes.get(aligned(length)?..).unwrap_or_default();
    Some((kind, body, next))
}

fn event(kind: u16, body: &[u8]) -> Result<Option<LinkEvent>, TooShort> {
    Ok(match kind {
        RTM_NEWLINK | RTM_DELLINK => {
            let ifindex = u32_at(body, 4).ok_or(TooShort)?;
            let flags = u32_at(body, 8).ok_or(TooShort)?;
            let attributes = body.get(LINK_HEADER..).ok_or(TooShort)?;
            let name = attribute(attributes, IFLA_IFNAME).and_then(name);
            Some(LinkEvent::Link {
                ifindex,
                name,
                carrier: flags & IFF_LOWER_UP != 0,
                admin_up: flags & IFF_UP != 0,
                removed: kind == RTM_DELLINK,
            })
        }
        RTM_NEWADDR | RTM_DELADDR => {
            if body.len() < ADDRESS_HEADER {
                return Err(TooShort);
            }
            Some(LinkEvent::Address {
                ifindex: u32_at(body, 4).ok_or(TooShort)?,
                removed: kind == RTM_DELADDR,
            })
        }
        RTM_NEWROUTE | RTM_DELROUTE => Some(LinkEvent::Route),
        _ => None,
    })
}

/// The value of the first attribute of `kind`.
fn attribute(mut bytes: &[u8], kind: u16) -> Option<&[u8]> {
    while !bytes.is_empty() {
        let length = usize::from(u16_at(bytes, 0)?);
        let found = u16_at(bytes, 2)?;
        let value = bytes.get(4..length)?;
        if found == kind {
            return Some(value);
        }
        bytes = bytes.get(aligned(length)?..).unwrap_or_default();
    }
    None
}

fn name(value: &[u8]) -> Option<String> {
    let text = value.split(|byte| *byte == 0).next()?;
    // `IFNAMSIZ` is 16, with the zero byte at the end.
    (text.len() < 16).then(|| std::str::from_utf8(text).ok()).flatten().map(str::to_owned)
}

fn aligned(length: usize) -> Option<usize> {
    length.checked_next_multiple_of(4)
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    let bytes = bytes.get(at..at.checked_add(2)?)?;
    Some(u16::from_ne_bytes(bytes.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..at.checked_add(4)?)?;
    Some(u32::from_ne_bytes(bytes.try_into().ok()?))
}
