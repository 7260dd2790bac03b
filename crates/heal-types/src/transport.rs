//! Where a subsystem can be reached.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::text::text_newtype;
use crate::{InterfaceName, InvalidText};

/// The kind of fabric.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum TransportKind {
    /// NVMe over TCP.
    Tcp,
    /// NVMe over RDMA (RoCE, iWARP, InfiniBand).
    Rdma,
}

impl TransportKind {
    /// As `nvme connect --transport` and sysfs' `transport` write it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Rdma => "rdma",
        }
    }
}

impl FromStr for TransportKind {
    type Err = InvalidText;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.trim() {
            "tcp" => Ok(Self::Tcp),
            "rdma" => Ok(Self::Rdma),
            _ => Err(InvalidText::new("transport", text, "it is neither tcp nor rdma")),
        }
    }
}

impl fmt::Display for TransportKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

text_newtype! {
    /// An address of a fabric: an IP address, with a scope if it is link-local, or a host name.
    TransportAddress, "transport address", 255,
    |c| c.is_ascii_alphanumeric() || matches!(c, '.' | ':' | '-' | '%' | '_')
}

/// One way to a subsystem. Two values are the same way only if every part is the same: a second
/// controller through another interface is another path.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Portal {
    /// Kind of fabric.
    pub transport: TransportKind,
    /// Target's address.
    pub address: TransportAddress,
    /// Target's port.
    pub port: u16,
    /// Our own address to connect from, where it matters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_address: Option<TransportAddress>,
    /// Our own interface to connect through, where it matters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_interface: Option<InterfaceName>,
}

impl Portal {
    /// Whether a controller at `live` is a path to this portal. What a portal leaves open, any
    /// controller satisfies.
    #[must_use]
    pub fn is_served_by(&self, live: &Portal) -> bool {
        self.transport == live.transport
            && self.address == live.address
            && self.port == live.port
            && (self.host_address.is_none() || self.host_address == live.host_address)
            && (self.host_interface.is_none() || self.host_interface == live.host_interface)
    }
}

impl fmt::Display for Portal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.address.as_str().contains(':') {
            write!(f, "{}://[{}]:{}", self.transport, self.address, self.port)
        } else {
            write!(f, "{}://{}:{}", self.transport, self.address, self.port)
        }
    }
}
