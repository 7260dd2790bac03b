//! Who is who in a cluster: what the recoverer, its fences and a target's fence daemon talk in.
//!
//! ```text
//!   CephCluster ── fsid          OSD ── id, fsid          FabricTarget ── name, failure domain
//!        └───────────────┬───────┘                              │
//!                        ▼                                      ▼
//!              label on the device ◄── one subsystem (NQN), one namespace (UUID), one Generation
//! ```
//!
//! An OSD's id is a small number that a cluster gives again once an OSD is purged, so it never says
//! alone which data are meant: the OSD's own fsid and the cluster's stand beside it wherever a disk
//! is about to be started.
//!
//! The price: three names for what people call "osd 3".

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::ids::uuid_newtype;
use crate::text::{InvalidText, text_newtype};

text_newtype! {
    /// A node of the cluster, as Kubernetes names it: a DNS subdomain (RFC 1123).
    NodeName, "node name", 253, |c| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '.'), dns
}

text_newtype! {
    /// A `FabricTarget`, by the name of its object.
    TargetName, "target name", 63, |c| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '.'), dns
}

text_newtype! {
    /// An `OsdRelocation`, by the name of its object.
    RelocationId, "relocation name", 253, |c| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '.'), dns
}

text_newtype! {
    /// The CRUSH bucket that stands for a target: `fabric-NAME`. What fails together.
    DomainName, "failure domain", 128, |c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.')
}

text_newtype! {
    /// A person, as they name themselves to the cluster.
    Person, "name of a person", 128, |c| c.is_ascii_graphic() || c == ' '
}

/// What the names of Kubernetes' objects must keep, beyond their characters.
fn dns(text: &str) -> Option<&'static str> {
    let label = |part: &str| {
        let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
        edge(part.chars().next()) && edge(part.chars().next_back())
    };
    (!text.split('.').all(label)).then_some("each part must begin and end with a letter or digit")
}

uuid_newtype! {
    /// A Ceph cluster (`ceph fsid`).
    ClusterFsid, "cluster fsid"
}

uuid_newtype! {
    /// An OSD's own UUID, in its device's label: which data, whatever the OSD's number.
    OsdFsid, "OSD fsid"
}

impl fmt::Display for ClusterFsid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Uuid::from_bytes(*self.as_bytes()).hyphenated().fmt(f)
    }
}

impl fmt::Display for OsdFsid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Uuid::from_bytes(*self.as_bytes()).hyphenated().fmt(f)
    }
}

/// An OSD's number. Read as `3` or `osd.3`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct OsdId(u32);

impl OsdId {
    /// Takes a number that Ceph can give: its own type is signed.
    ///
    /// # Errors
    /// When it is larger than that.
    pub fn new(number: u32) -> Result<Self, InvalidText> {
        if i32::try_from(number).is_err() {
            let text = number.to_string();
            return Err(InvalidText::new("OSD id", &text, "it is larger than any OSD's number"));
        }
        Ok(Self(number))
    }

    /// The number.
    #[must_use]
    pub fn number(self) -> u32 {
        self.0
    }
}

impl TryFrom<u32> for OsdId {
    type Error = InvalidText;
    fn try_from(number: u32) -> Result<Self, Self::Error> {
        Self::new(number)
    }
}

impl From<OsdId> for u32 {
    fn from(id: OsdId) -> u32 {
        id.0
    }
}

impl FromStr for OsdId {
    type Err = InvalidText;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let digits = text.strip_prefix("osd.").unwrap_or(text);
        // `parse` alone would take a sign.
        if !digits.bytes().all(|b| b.is_ascii_digit()) {
            return Err(InvalidText::new("OSD id", text, "it is neither N nor osd.N"));
        }
        let number =
            digits.parse().map_err(|_| InvalidText::new("OSD id", text, "it is not a number"))?;
        Self::new(number)
    }
}

impl fmt::Display for OsdId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "osd.{}", self.0)
    }
}

/// The fencing token of one device: counts its moves, and never goes back.
///
/// Whoever changes who may write to a device says for which generation. A target that has seen a
/// newer one refuses, so a leader that slept through its own replacement cannot undo what the next
/// one did.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
pub struct Generation(pub u64);

impl Generation {
    /// The one after this.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_osd_is_read_as_people_and_as_ceph_write_it() {
        assert_eq!("osd.12".parse::<OsdId>().unwrap(), "12".parse().unwrap());
        assert_eq!(OsdId::new(12).unwrap().to_string(), "osd.12");
        for bad in ["", "osd.", "osd.-1", "+1", "1.5", "2147483648", "osd.osd.1"] {
            assert!(bad.parse::<OsdId>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_node_name_is_one_that_kubernetes_would_take() {
        for good in ["node-1", "a", "rack1.node-2.example"] {
            assert!(NodeName::new(good).is_ok(), "{good:?}");
        }
        for bad in ["", "-n", "n-", "a..b", "a.-b", "Node", "a_b", "n ode", "a/b"] {
            assert!(NodeName::new(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_name_that_is_not_valid_does_not_come_in_by_another_door() {
        use serde::de::IntoDeserializer as _;
        use serde::de::value::{Error, StringDeserializer};
        let from: StringDeserializer<Error> = "a..b".to_owned().into_deserializer();
        assert!(NodeName::deserialize(from).is_err());
    }

    #[test]
    fn an_fsid_of_zeros_is_no_fsid() {
        assert!("00000000-0000-0000-0000-000000000000".parse::<OsdFsid>().is_err());
        let fsid: OsdFsid = "0f7e4d5a-1111-4222-8333-444455556666".parse().unwrap();
        assert_eq!(fsid.to_string(), "0f7e4d5a-1111-4222-8333-444455556666");
    }
}
