//! Paths: what is known of one way from this host to a namespace, beyond what sysfs calls "live".
//!
//! A controller that says `live` may have been dead for seconds: the kernel finds out by a
//! keep-alive that gets no answer. What else speaks of a path (its interface, its sockets, its I/O,
//! the kernel's log) is weighed by `heal-core`'s path machine, and the verdict stands in every
//! snapshot as [`PathHealth`], so that whoever asks "is this path usable" gets the same answer
//! everywhere.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{ControllerName, InterfaceName, InvalidText, Nqn, Portal};

/// What is held of one path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
pub enum PathHealth {
    /// Nothing speaks against it.
    #[default]
    Up,
    /// Something speaks against it, second-hand: nothing is begun on it, and nothing rests on it.
    Suspect(PathDoubt),
    /// A witness of its own says that nothing gets through.
    Dead(PathDoubt),
}

impl PathHealth {
    /// Why it is not up.
    #[must_use]
    pub fn doubt(self) -> Option<PathDoubt> {
        match self {
            Self::Up => None,
            Self::Suspect(why) | Self::Dead(why) => Some(why),
        }
    }
}

impl fmt::Display for PathHealth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Up => f.write_str("up"),
            Self::Suspect(why) => write!(f, "suspect: {why}"),
            Self::Dead(why) => write!(f, "dead: {why}"),
        }
    }
}

/// What speaks against a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum PathDoubt {
    /// The interface it leaves through has no carrier, is down, or is gone.
    LinkDown,
    /// A port of the bond or bridge it leaves through is down; the bond may go on without it.
    PortDown,
    /// Its controller is not live.
    ControllerDown,
    /// Its sockets send again and again and hear nothing.
    SocketStalled,
    /// Its I/O does not move, although its sockets do.
    IoStalled,
    /// The target says that this path carries no I/O (ANA).
    AnaInaccessible,
    /// The kernel's log says that the controller is in trouble.
    KernelLog,
}

impl PathDoubt {
    /// One word, for status and audit fields.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::LinkDown => "link-down",
            Self::PortDown => "port-down",
            Self::ControllerDown => "controller-down",
            Self::SocketStalled => "socket-stalled",
            Self::IoStalled => "io-stalled",
            Self::AnaInaccessible => "ana-inaccessible",
            Self::KernelLog => "kernel-log",
        }
    }
}

impl fmt::Display for PathDoubt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::LinkDown => "the link it leaves through is down",
            Self::PortDown => "a port of the link it leaves through is down",
            Self::ControllerDown => "its controller is not live",
            Self::SocketStalled => "its sockets get no answer",
            Self::IoStalled => "its I/O does not move",
            Self::AnaInaccessible => "the target lets no I/O through (ANA)",
            Self::KernelLog => "the kernel reports trouble with its controller",
        })
    }
}

/// A controller's `fast_io_fail_tmo`: how long after it lost its connection the kernel fails I/O
/// instead of queueing it. The kernel reads it at one moment only, when the controller goes from
/// `resetting` to `connecting` (`nvme_start_failfast_work`, `drivers/nvme/host/core.c`); a value
/// written later has no effect until the next loss.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum FastIoFail {
    /// Never: I/O queues until the path is back or the controller is given up.
    Off,
    /// After so many seconds.
    After(u32),
}

impl FromStr for FastIoFail {
    type Err = InvalidText;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.trim();
        if text == "off" || text == "-1" {
            return Ok(Self::Off);
        }
        crate::text::unsigned(text).map(Self::After).ok_or_else(|| {
            InvalidText::new("fast_io_fail_tmo", text, "it is neither off nor a number of seconds")
        })
    }
}

/// As the attribute is written: the kernel reads a number, and any negative one is "off".
impl fmt::Display for FastIoFail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Off => f.write_str("-1"),
            Self::After(seconds) => write!(f, "{seconds}"),
        }
    }
}

/// A controller, so that an act cannot hit its successor of the same name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ControllerRef {
    /// The kernel's name.
    pub name: ControllerName,
    /// The subsystem it must lead to.
    pub nqn: Nqn,
    /// Where it must be connected to.
    pub portal: Portal,
}

impl fmt::Display for ControllerRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.name, self.portal)
    }
}

/// Everything needed to make a controller like this one again, once the kernel has let it go.
///
/// No kernel up to 6.18 shows digests: they are as the configuration says. A key is named, never
/// held: the secret stays where `nvme-cli` finds it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ConnectParams {
    /// The subsystem.
    pub nqn: Nqn,
    /// Where, and from where.
    pub portal: Portal,
    /// The host NQN it is connected as.
    pub host_nqn: Nqn,
    /// The host id it is connected as.
    pub host_id: Option<uuid::Uuid>,
    /// I/O queues.
    pub io_queues: Option<u16>,
    /// Keep-alive time-out.
    pub keep_alive: Option<Duration>,
    /// Time between attempts to connect again.
    pub reconnect_delay: Option<Duration>,
    /// How long the kernel goes on trying; `None` is for ever.
    pub ctrl_loss: Option<Duration>,
    /// Where the key is, if one was used.
    pub key: Option<KeyRef>,
    /// What guards its messages.
    #[serde(default, skip_serializing_if = "Digests::are_off")]
    pub digests: Digests,
}

/// Checksums of NVMe/TCP messages, beside TCP's own.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(default, deny_unknown_fields)]
pub struct Digests {
    /// Of headers.
    pub header: bool,
    /// Of data.
    pub data: bool,
}

impl Digests {
    /// Whether there are none.
    #[must_use]
    pub fn are_off(&self) -> bool {
        !self.header && !self.data
    }
}

/// Where a controller's key is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum KeyRef {
    /// In `nvme-cli`'s own configuration (`/etc/nvme/config.json`), which it reads by itself.
    NvmeConfig,
}

/// The index of a network interface.
pub type IfIndex = u32;

/// One network interface.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interface {
    /// Its name.
    pub name: Option<InterfaceName>,
    /// Carrier is there and the administrator wants it up.
    pub up: bool,
    /// What it is made of.
    pub made_of: MadeOf,
}

/// What an interface stands on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum MadeOf {
    /// Nothing below it that matters: a card, a veth end, a tunnel.
    Itself,
    /// One interface: VLAN, macvlan. It is down when that one is.
    On(IfIndex),
    /// Any of several: bond, team, bridge. Its own carrier says whether enough of them are up.
    AnyOf(Vec<IfIndex>),
}

/// Every interface of the host.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Network {
    /// By index.
    pub interfaces: BTreeMap<IfIndex, Interface>,
}

/// How a link is, all that is below it included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinkState {
    /// Up.
    Up,
    /// Up, with a port of it down.
    PortDown,
    /// Down, or gone.
    Down,
}

/// Interfaces are stacked no deeper than this.
const DEPTH: usize = 8;

impl Network {
    /// How `index` is.
    #[must_use]
    pub fn state(&self, index: IfIndex) -> LinkState {
        self.state_below(index, DEPTH)
    }

    fn state_below(&self, index: IfIndex, depth: usize) -> LinkState {
        let Some(interface) = self.interfaces.get(&index).filter(|interface| interface.up) else {
            return LinkState::Down;
        };
        let Some(depth) = depth.checked_sub(1) else {
            return LinkState::Up; // A circle: its own carrier has to do.
        };
        match &interface.made_of {
            MadeOf::Itself => LinkState::Up,
            // The lower end may be in another network namespace and not in this list.
            MadeOf::On(lower) if !self.interfaces.contains_key(lower) => LinkState::Up,
            MadeOf::On(lower) => self.state_below(*lower, depth),
            MadeOf::AnyOf(ports) => {
                let down = |port: &IfIndex| self.state_below(*port, depth) == LinkState::Down;
                if ports.iter().any(down) { LinkState::PortDown } else { LinkState::Up }
            }
        }
    }
}

/// What the TCP sockets of one controller show, the worst of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SocketReading {
    /// Doublings of the retransmission time since the last answer (`tcpi_backoff`).
    pub backoff: u8,
    /// Segments sent and not acknowledged (`tcpi_unacked`).
    pub unacked: u32,
    /// Since the last acknowledgement (`tcpi_last_ack_recv`).
    pub since_ack: Duration,
    /// Whether one of them is no longer established.
    pub closed: bool,
}

/// How far the I/O of one path has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct IoReading {
    /// Commands under way.
    pub in_flight: u64,
    /// Commands ended so far.
    pub completed: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interface(up: bool, made_of: MadeOf) -> Interface {
        Interface { name: None, up, made_of }
    }

    #[test]
    fn a_vlan_is_down_with_its_card_and_a_bond_is_not_down_with_one_port() {
        let mut network = Network::default();
        network.interfaces.insert(1, interface(true, MadeOf::Itself));
        network.interfaces.insert(2, interface(false, MadeOf::Itself));
        network.interfaces.insert(3, interface(true, MadeOf::AnyOf(vec![1, 2])));
        network.interfaces.insert(4, interface(true, MadeOf::On(3)));
        network.interfaces.insert(5, interface(true, MadeOf::On(2)));
        assert_eq!(network.state(1), LinkState::Up);
        assert_eq!(network.state(3), LinkState::PortDown);
        assert_eq!(network.state(4), LinkState::PortDown);
        assert_eq!(network.state(5), LinkState::Down);
        assert_eq!(network.state(9), LinkState::Down, "an interface that is gone is down");
        network.interfaces.insert(3, interface(false, MadeOf::AnyOf(vec![1, 2])));
        assert_eq!(network.state(4), LinkState::Down);
    }

    #[test]
    fn interfaces_that_stand_on_each_other_in_a_circle_end() {
        let mut network = Network::default();
        network.interfaces.insert(1, interface(true, MadeOf::On(2)));
        network.interfaces.insert(2, interface(true, MadeOf::On(1)));
        assert_eq!(network.state(1), LinkState::Up);
    }

    #[test]
    fn the_fast_failure_reads_as_the_kernel_shows_it_and_prints_as_it_takes_it() {
        assert_eq!("off\n".parse::<FastIoFail>().unwrap(), FastIoFail::Off);
        assert_eq!("0".parse::<FastIoFail>().unwrap(), FastIoFail::After(0));
        assert_eq!(FastIoFail::Off.to_string(), "-1");
        assert_eq!(FastIoFail::After(2).to_string(), "2");
        assert!("soon".parse::<FastIoFail>().is_err());
        assert!("+1".parse::<FastIoFail>().is_err());
    }
}
