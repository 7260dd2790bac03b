//! The host's interfaces and the way out to a target, read over rtnetlink.
//!
//! A lost carrier means something for a path only if the path leaves through that interface, or
//! through one that stands on it. So two things are read while all is well, and kept:
//!
//! ```text
//!   RTM_GETLINK, all     ──► Network   index → up?, made of   vlan ──► bond ──┬─► eth0
//!   RTM_GETROUTE, target ──► egress    the index at the top    (On)   (AnyOf) └─► eth1
//! ```
//!
//! and after that each [`LinkEvent`] is followed in place ([`follow`]), without a question to
//! anybody: the way from the event to the verdict has to be short. Only when the shape of the stack
//! changed, or events were lost, is all of it read again.
//!
//! - A controller bound to an interface leaves through that one. Otherwise the kernel's routing is
//!   asked, with the address it connects from where that is known.
//! - **No way out is an answer** (`None`): no route, or its source address is not ours any more.
//!   "Could not ask" is an error.
//! - A `veth`, and whatever has its lower end in another network namespace, stands on itself.
//!
//! The price: with several equal routes the kernel names one of them, which need not be the one a
//! connection took; and a bridge counts every port alike, also one that leads only to a guest.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;

use heal_types::{IfIndex, Interface, InterfaceName, MadeOf, Network, Portal, TransportAddress};
use rustix::io::Errno;

use crate::dialog::message::{Malformed, Request, attributes, u32_at};
use crate::dialog::{Dialog, Heard, NLM_F_DUMP, malformed};
use crate::link::{Link, LinkEvent, LinkKind, link};

const RTM_NEWLINK: u16 = 16;
const RTM_GETLINK: u16 = 18;
const RTM_NEWROUTE: u16 = 24;
const RTM_GETROUTE: u16 = 26;

const IFLA_IFNAME: u16 = 3;
const IFLA_EXT_MASK: u16 = 29;
/// Leaves the counters out (`RTEXT_FILTER_SKIP_STATS`).
const SKIP_STATS: u32 = 1 << 3;

const RTA_DST: u16 = 1;
const RTA_SRC: u16 = 2;
const RTA_OIF: u16 = 4;

const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;

/// Length of `ifinfomsg`.
const LINK_HEADER: usize = 16;
/// Length of `rtmsg`.
const ROUTE_HEADER: usize = 12;
/// Where `rtm_type` is.
const ROUTE_TYPE: usize = 7;
/// A route that leads somewhere: to another host, or to this one.
const RTN_UNICAST: u8 = 1;
const RTN_LOCAL: u8 = 2;

/// The most interfaces of a host.
const INTERFACES: usize = 65_536;

/// How often a list is asked for that changed while it was told.
const ATTEMPTS: usize = 3;

/// What an event did to a [`Network`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Followed {
    /// Nothing.
    Same,
    /// It stands in it.
    Changed,
    /// What the event says of an interface that is known stands in it; the rest has to be read
    /// again.
    ReadAgain,
}

/// Takes `event` into `network`. Routes and addresses are no part of it: after such an event the
/// way out to a target may be another one.
pub fn follow(network: &mut Network, event: &LinkEvent) -> Followed {
    match event {
        LinkEvent::Address { .. } | LinkEvent::Route => Followed::Same,
        LinkEvent::Overrun => Followed::ReadAgain,
        LinkEvent::Link { ifindex, removed: true, .. } => {
            let known = network.interfaces.remove(ifindex).is_some();
            for interface in network.interfaces.values_mut() {
                if let MadeOf::AnyOf(ports) = &mut interface.made_of {
                    ports.retain(|port| port != ifindex);
                }
            }
            if known { Followed::Changed } else { Followed::Same }
        }
        LinkEvent::Link {
            ifindex,
            name,
            carrier,
            admin_up,
            stands_on,
            port_of,
            removed: false,
        } => {
            let shape = shape_is_known(network, *ifindex, *stands_on, *port_of);
            let Some(interface) = network.interfaces.get_mut(ifindex) else {
                return Followed::ReadAgain;
            };
            let now = Interface {
                name: valid(name.as_deref()).or_else(|| interface.name.clone()),
                up: *carrier && *admin_up,
                made_of: interface.made_of.clone(),
            };
            let same = *interface == now;
            *interface = now;
            match (shape, same) {
                (false, _) => Followed::ReadAgain,
                (true, true) => Followed::Same,
                (true, false) => Followed::Changed,
            }
        }
    }
}

/// Whether `network` has the interface standing on, and being port of, what the event says.
fn shape_is_known(
    network: &Network,
    index: IfIndex,
    stands_on: Option<IfIndex>,
    port_of: Option<IfIndex>,
) -> bool {
    let below = match network.interfaces.get(&index).map(|interface| &interface.made_of) {
        Some(MadeOf::On(lower)) => stands_on == Some(*lower),
        Some(MadeOf::Itself | MadeOf::AnyOf(_)) => stands_on.is_none(),
        None => false,
    };
    // A master that is no bond or bridge (a VRF) lists no ports.
    let above = network.interfaces.iter().all(|(master, interface)| match &interface.made_of {
        MadeOf::AnyOf(ports) => ports.contains(&index) == (port_of == Some(*master)),
        MadeOf::Itself | MadeOf::On(_) => true,
    });
    let master_is_known = port_of.is_none_or(|master| network.interfaces.contains_key(&master));
    below && above && master_is_known
}

fn valid(name: Option<&str>) -> Option<InterfaceName> {
    name.and_then(|name| InterfaceName::new(name).ok())
}

/// Asks the kernel about interfaces and routes.
#[derive(Debug)]
pub struct NetworkReader {
    dialog: Dialog,
}

impl NetworkReader {
    /// Opens it.
    ///
    /// # Errors
    /// When the kernel does not give out the socket.
    pub fn open() -> io::Result<Self> {
        Ok(Self { dialog: Dialog::open(netlink_sys::protocols::NETLINK_ROUTE)? })
    }

    /// Every interface of this network namespace.
    ///
    /// # Errors
    /// When the kernel refuses, says nothing for a second, tells more than 65536, or when the list
    /// changed three times while it was told. Half a list is never answered.
    pub fn read(&mut self) -> io::Result<Network> {
        let all = Request::new(RTM_GETLINK, NLM_F_DUMP, &[0; LINK_HEADER])
            .attribute(IFLA_EXT_MASK, &SKIP_STATS.to_ne_bytes());
        for _ in 0..ATTEMPTS {
            let mut links = Vec::new();
            let heard = self.dialog.ask(&all, |kind, body| {
                if links.len() >= INTERFACES {
                    return Err(io::Error::new(io::ErrorKind::InvalidData, "too many interfaces"));
                }
                if kind == RTM_NEWLINK {
                    links.extend(link(body).map_err(malformed)?);
                }
                Ok(())
            })?;
            if heard == Heard::Whole {
                return Ok(network(links));
            }
        }
        Err(io::Error::new(io::ErrorKind::Interrupted, "the interfaces do not hold still"))
    }

    /// The index of the interface `name`, if there is one.
    ///
    /// # Errors
    /// When the kernel refuses or says nothing for a second.
    pub fn index(&mut self, name: &InterfaceName) -> io::Result<Option<IfIndex>> {
        let mut text = name.as_str().as_bytes().to_vec();
        text.push(0);
        let one = Request::new(RTM_GETLINK, 0, &[0; LINK_HEADER])
            .attribute(IFLA_EXT_MASK, &SKIP_STATS.to_ne_bytes())
            .attribute(IFLA_IFNAME, &text);
        let mut index = None;
        let asked = self.dialog.ask(&one, |kind, body| {
            if kind == RTM_NEWLINK {
                index = link(body).map_err(malformed)?.map(|link| link.index);
            }
            Ok(())
        });
        match asked {
            Ok(_) => Ok(index),
            Err(error) if Errno::from_io_error(&error) == Some(Errno::NODEV) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The interface a connection to `portal` leaves through: the one it is bound to, or the one
    /// the kernel routes it to, coming from `local` (or from the portal's own host address) where
    /// that is known. Nothing when no way leads there.
    ///
    /// # Errors
    /// When the kernel cannot be asked, or the portal's address is no IP address.
    pub fn egress(
        &mut self,
        portal: &Portal,
        local: Option<IpAddr>,
    ) -> io::Result<Option<IfIndex>> {
        if let Some(name) = &portal.host_interface {
            return self.index(name);
        }
        let Some(target) = Numeric::of(&portal.address) else {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "a portal without an IP address",
            ));
        };
        match target.scope {
            Some(Scope::Index(index)) => return Ok(Some(index)),
            Some(Scope::Name(name)) => return self.index(&name),
            None => {}
        }
        let host = || portal.host_address.as_ref().and_then(Numeric::of).map(|host| host.ip);
        self.route(target.ip, local.map(|local| local.to_canonical()).or_else(host))
    }

    fn route(&mut self, target: IpAddr, local: Option<IpAddr>) -> io::Result<Option<IfIndex>> {
        let mut out = None;
        let asked = self.dialog.ask(&route_request(target, local), |kind, body| {
            if kind == RTM_NEWROUTE {
                out = way_out(body).map_err(malformed)?;
            }
            Ok(())
        });
        match asked {
            Ok(_) => Ok(out),
            Err(error) if leads_nowhere(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// A route's refusals that are answers. IPv4 says `EINVAL` for a source that is not ours
/// (`ip_route_output_key_hash_rcu`, `net/ipv4/route.c`) and for a black hole (`fib_props`,
/// `net/ipv4/fib_semantics.c`).
fn leads_nowhere(error: &io::Error) -> bool {
    matches!(
        Errno::from_io_error(error),
        Some(
            Errno::NETUNREACH
                | Errno::HOSTUNREACH
                | Errno::NETDOWN
                | Errno::ACCESS
                | Errno::INVAL
                | Errno::NODEV
                | Errno::ADDRNOTAVAIL
        )
    )
}

fn route_request(target: IpAddr, local: Option<IpAddr>) -> Request {
    let local = local.filter(|local| local.is_ipv4() == target.is_ipv4());
    let (family, bits) = if target.is_ipv4() { (AF_INET, 32) } else { (AF_INET6, 128) };
    let mut header = [0; ROUTE_HEADER];
    header[..3].copy_from_slice(&[family, bits, if local.is_some() { bits } else { 0 }]);
    let request = Request::new(RTM_GETROUTE, 0, &header).attribute(RTA_DST, &octets(target));
    match local {
        Some(local) => request.attribute(RTA_SRC, &octets(local)),
        None => request,
    }
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

pub(crate) fn way_out(body: &[u8]) -> Result<Option<IfIndex>, Malformed> {
    let rest = body.get(ROUTE_HEADER..).ok_or(Malformed)?;
    // A route may say that nothing goes there.
    if !matches!(body[ROUTE_TYPE], RTN_UNICAST | RTN_LOCAL) {
        return Ok(None);
    }
    let mut out = None;
    for attribute in attributes(rest) {
        let (kind, value) = attribute?;
        if kind == RTA_OIF {
            out = Some(u32_at(value, 0).ok_or(Malformed)?);
        }
    }
    Ok(out.filter(|index| *index != 0))
}

pub(crate) fn network(links: Vec<Link>) -> Network {
    let mut ports: BTreeMap<IfIndex, Vec<IfIndex>> = BTreeMap::new();
    for link in &links {
        if let Some(master) = link.master {
            ports.entry(master).or_default().push(link.index);
        }
    }
    let interface = |link: Link| {
        let made_of = match (link.kind, link.stands_on()) {
            (LinkKind::Master, _) => {
                MadeOf::AnyOf(ports.get(&link.index).cloned().unwrap_or_default())
            }
            (LinkKind::Stacked, Some(lower)) => MadeOf::On(lower),
            (LinkKind::Stacked, None) | (LinkKind::Other, _) => MadeOf::Itself,
        };
        let interface = Interface {
            name: valid(link.name.as_deref()),
            up: link.carrier && link.admin_up,
            made_of,
        };
        (link.index, interface)
    };
    Network { interfaces: links.into_iter().map(interface).collect() }
}

/// A transport address that is a number, as every address is that the kernel shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Numeric {
    /// The address; one that is mapped into IPv6 is IPv4's.
    pub ip: IpAddr,
    /// The interface a link-local address belongs to.
    pub scope: Option<Scope>,
}

/// The interface of a link-local address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    /// By index.
    Index(IfIndex),
    /// By name.
    Name(InterfaceName),
}

impl Numeric {
    /// `address`, unless it is a host name.
    #[must_use]
    pub fn of(address: &TransportAddress) -> Option<Self> {
        let (ip, scope) = match address.as_str().split_once('%') {
            Some((ip, scope)) => (ip, Some(scope)),
            None => (address.as_str(), None),
        };
        let scope = match scope {
            Some(scope) => Some(match scope.parse() {
                Ok(index) => Scope::Index(index),
                Err(_) => Scope::Name(InterfaceName::new(scope).ok()?),
            }),
            None => None,
        };
        Some(Self { ip: ip.parse::<IpAddr>().ok()?.to_canonical(), scope })
    }
}

#[cfg(test)]
#[path = "network_tests.rs"]
mod tests;
