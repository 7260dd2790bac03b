//! What witnesses say, with the numbers they say it by.

use std::fmt;
use std::time::Duration;

use heal_types::{
    ControllerState, IfIndex, InterfaceName, Moment, Observed, PathHealth, SocketReading,
};

/// Why the verdict on a controller is what it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    /// The verdict.
    pub health: PathHealth,
    /// Since when.
    pub since: Moment,
    /// The interface it leaves through, as far as it is known.
    pub egress: Option<(IfIndex, Option<InterfaceName>)>,
    /// Whoever says something against it.
    pub witnesses: Vec<Testimony>,
}

/// What one witness says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Testimony {
    /// What it says.
    pub health: PathHealth,
    /// Since when.
    pub since: Moment,
    /// When it will say something else if nothing more is heard.
    pub until: Option<Moment>,
    /// What it goes by.
    pub evidence: Evidence,
}

/// What a witness goes by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Evidence {
    /// The interface is down or gone.
    LinkDown {
        /// Which.
        interface: IfIndex,
    },
    /// The interface is up again.
    LinkReturned {
        /// Which.
        interface: IfIndex,
        /// For how long.
        up_for: Duration,
    },
    /// The bond or bridge lost a port.
    PortLost {
        /// The bond or bridge.
        interface: IfIndex,
        /// How long ago.
        ago: Duration,
    },
    /// The controller's state.
    State(Observed<ControllerState>),
    /// Its sockets.
    Sockets(SocketReading),
    /// Its I/O.
    Io {
        /// Commands under way.
        in_flight: u64,
        /// For how long none of them ended, as far as samples show.
        unmoved_for: Duration,
    },
    /// The target lets no I/O in.
    Ana {
        /// Namespaces behind the controller.
        namespaces: usize,
    },
    /// The kernel's log.
    Log {
        /// How long ago.
        ago: Duration,
    },
}

impl fmt::Display for Evidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::LinkDown { interface } => write!(f, "interface {interface} is down or gone"),
            Self::LinkReturned { interface, up_for } => {
                write!(f, "interface {interface} was down and is up for {}", seconds(*up_for))
            }
            Self::PortLost { interface, ago } => {
                write!(f, "interface {interface} lost a port {} ago", seconds(*ago))
            }
            Self::State(state) => write!(f, "the controller's state is {state}"),
            Self::Sockets(SocketReading { backoff, unacked, since_ack, closed }) => {
                write!(
                    f,
                    "{unacked} segments without an answer, sent again at a distance doubled \
                     {backoff} times, nothing heard for {}",
                    seconds(*since_ack)
                )?;
                if *closed { f.write_str(", a socket closed") } else { Ok(()) }
            }
            Self::Io { in_flight, unmoved_for } => {
                write!(f, "{in_flight} commands under way, none ended in {}", seconds(*unmoved_for))
            }
            Self::Ana { namespaces } => {
                write!(f, "the target lets no I/O into any of {namespaces} namespaces")
            }
            Self::Log { ago } => write!(f, "the kernel's log spoke of it {} ago", seconds(*ago)),
        }
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.health)?;
        if let Some((index, name)) = &self.egress {
            match name {
                Some(name) => write!(f, " (leaves through {name}, interface {index})")?,
                None => write!(f, " (leaves through interface {index})")?,
            }
        }
        self.witnesses.iter().try_for_each(|witness| write!(f, "; {}", witness.evidence))
    }
}

/// What a duration reads like in a sentence.
fn seconds(duration: Duration) -> String {
    format!("{:.1} s", duration.as_secs_f64())
}
