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
//! Several messages may come in one datagram. A message that does not fit ends the reading of its
//! datagram, which then counts as lost.
//!
//! **The bridge speaks of its ports in the same words.** When a port leaves a bridge, the same
//! group carries an `RTM_DELLINK` of family `AF_BRIDGE` (`br_ifinfo_notify`,
//! `net/bridge/br_netlink.c`): the interface is still there. What a port's own state is, the kernel
//! tells with no family at all, so messages of a family are passed over.

use std::collections::VecDeque;
use std::io;

use heal_types::IfIndex;

use crate::dialog::message::{Malformed, Message, attributes, messages, u32_at};
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
const IFLA_LINK: u16 = 5;
const IFLA_MASTER: u16 = 10;
const IFLA_LINKINFO: u16 = 18;
const IFLA_LINK_NETNSID: u16 = 37;
const IFLA_INFO_KIND: u16 = 1;

const IFF_UP: u32 = 1 << 0;
const IFF_LOWER_UP: u32 = 1 << 16;

const AF_UNSPEC: u8 = 0;
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
        ifindex: IfIndex,
        /// Its name, if the message has one that is text.
        name: Option<String>,
        /// Whether the layer below is up (`IFF_LOWER_UP`).
        carrier: bool,
        /// Whether the administrator wants it up (`IFF_UP`).
        admin_up: bool,
        /// Whether it is gone.
        removed: bool,
        /// The interface it stands on, for a kind that stands on one: VLAN, macvlan.
        stands_on: Option<IfIndex>,
        /// The interface it is a port of: bond, bridge, but also VRF.
        port_of: Option<IfIndex>,
    },
    /// An address came, changed or went.
    Address {
        /// The interface's index.
        ifindex: IfIndex,
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
    for message in messages(datagram) {
        let event = message.and_then(|message| event(&message));
        let full = events.len() >= MESSAGES;
        match event {
            Ok(_) if full => {
                events.push(LinkEvent::Overrun);
                break;
            }
            Ok(Some(event)) => events.push(event),
            Ok(None) => {}
            Err(Malformed) => events.push(LinkEvent::Overrun),
        }
    }
    events
}

fn event(message: &Message<'_>) -> Result<Option<LinkEvent>, Malformed> {
    let body = message.body;
    Ok(match message.kind {
        RTM_NEWLINK | RTM_DELLINK => link(body)?.map(|link| LinkEvent::Link {
            ifindex: link.index,
            carrier: link.carrier,
            admin_up: link.admin_up,
            removed: message.kind == RTM_DELLINK,
            stands_on: link.stands_on(),
            port_of: link.master,
            name: link.name,
        }),
        RTM_NEWADDR | RTM_DELADDR => {
            if body.len() < ADDRESS_HEADER {
                return Err(Malformed);
            }
            Some(LinkEvent::Address {
                ifindex: u32_at(body, 4).ok_or(Malformed)?,
                removed: message.kind == RTM_DELADDR,
            })
        }
        RTM_NEWROUTE | RTM_DELROUTE => Some(LinkEvent::Route),
        _ => None,
    })
}

/// What a link message tells of its interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Link {
    pub(crate) index: IfIndex,
    pub(crate) name: Option<String>,
    pub(crate) carrier: bool,
    pub(crate) admin_up: bool,
    pub(crate) kind: LinkKind,
    pub(crate) master: Option<IfIndex>,
    lower: Option<IfIndex>,
}

/// What kind of interface it is, as far as it matters for what it stands on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LinkKind {
    /// It stands on one other.
    Stacked,
    /// It stands on any of its ports.
    Master,
    Other,
}

impl Link {
    /// The interface it stands on, if that is one of this network namespace.
    pub(crate) fn stands_on(&self) -> Option<IfIndex> {
        match self.kind {
            LinkKind::Stacked => self.lower,
            LinkKind::Master | LinkKind::Other => None,
        }
    }
}

/// Reads the body of `RTM_NEWLINK` or `RTM_DELLINK`; nothing, if it is a bridge's word on a port.
pub(crate) fn link(body: &[u8]) -> Result<Option<Link>, Malformed> {
    let rest = body.get(LINK_HEADER..).ok_or(Malformed)?;
    if body[0] != AF_UNSPEC {
        return Ok(None);
    }
    let flags = u32_at(body, 8).ok_or(Malformed)?;
    let mut link = Link {
        index: u32_at(body, 4).ok_or(Malformed)?,
        name: None,
        carrier: flags & IFF_LOWER_UP != 0,
        admin_up: flags & IFF_UP != 0,
        kind: LinkKind::Other,
        master: None,
        lower: None,
    };
    let mut lower_is_elsewhere = false;
    for attribute in attributes(rest) {
        let (found, value) = attribute?;
        match found {
            IFLA_IFNAME => link.name = name(value),
            IFLA_LINK => link.lower = u32_at(value, 0),
            IFLA_MASTER => link.master = u32_at(value, 0).filter(|index| *index != 0),
            IFLA_LINKINFO => link.kind = kind(value)?,
            IFLA_LINK_NETNSID => lower_is_elsewhere = true,
            _ => {}
        }
    }
    // What stands on nothing names itself, or zero.
    link.lower = link.lower.filter(|lower| *lower != 0 && *lower != link.index);
    if lower_is_elsewhere {
        link.lower = None;
    }
    Ok(Some(link))
}

fn kind(info: &[u8]) -> Result<LinkKind, Malformed> {
    for attribute in attributes(info) {
        let (found, value) = attribute?;
        if found == IFLA_INFO_KIND {
            return Ok(match value.split(|byte| *byte == 0).next().unwrap_or_default() {
                b"vlan" | b"macvlan" | b"macvtap" | b"ipvlan" | b"ipvtap" => LinkKind::Stacked,
                b"bond" | b"team" | b"bridge" => LinkKind::Master,
                _ => LinkKind::Other,
            });
        }
    }
    Ok(LinkKind::Other)
}

fn name(value: &[u8]) -> Option<String> {
    let text = value.split(|byte| *byte == 0).next()?;
    // `IFNAMSIZ` is 16, with the zero byte at the end.
    (text.len() < 16).then(|| std::str::from_utf8(text).ok()).flatten().map(str::to_owned)
}
