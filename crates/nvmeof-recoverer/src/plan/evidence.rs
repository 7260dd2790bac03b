//! What was seen before something was done: of a loss, and of a fence.
//!
//! ```text
//!   witness 1  lease silent       ┐                        backend: "fenced" ── a claim, worth nothing
//!   witness 2  mons: OSDs down    ├► Loss                         │
//!   rounds     twice in a row     ┘                               ▼
//!                                            a second look at the target ──► Report ──► Evidence
//!                                                                                 └───► StillOpen
//! ```
//!
//! A fence that says it is done has only said so: `nvmet` takes a host off its list without ending
//! the host's connection, and takes a connection apart some time after it was told to. So the claim
//! is not what counts. [`Evidence`] has no public constructor but [`Evidence::examine`], which
//! reads a report of who *could* write when it was made, and a person's word. The phases from
//! `Fenced` on cannot be built without one.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use heal_types::WallTime;
use heal_types::cluster::{Generation, NodeName, OsdId, Person};
use serde::{Deserialize, Serialize};

/// A loss that two witnesses, or a person, attest. It is stored in the object for ever.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Loss {
    /// The node the OSD was on.
    pub node: NodeName,
    /// Who attests it.
    pub witnesses: Witnesses,
    /// When it became certain.
    pub at: WallTime,
}

/// Who attests a loss.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Witnesses {
    /// Kubernetes' control plane and Ceph's: the node's lease is silent, and its OSDs are down.
    LeaseAndMons {
        /// For how long the lease did not change.
        silent: Duration,
        /// The OSDs that are down.
        down: BTreeSet<OsdId>,
    },
    /// The node lives and cannot reach the device any more, another node reaches its target, and
    /// the mons say that the OSD is down.
    ProbeAndMons {
        /// The OSD.
        osd: OsdId,
    },
    /// A person set the out-of-service taint.
    OutOfService,
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.witnesses {
            Witnesses::LeaseAndMons { silent, down } => write!(
                f,
                "node {}: lease silent for {} s, {} OSDs down",
                self.node,
                silent.as_secs(),
                down.len()
            ),
            Witnesses::ProbeAndMons { osd } => {
                write!(f, "node {} lost its path to {osd}, which is down", self.node)
            }
            Witnesses::OutOfService => {
                write!(f, "node {} was declared out of service", self.node)
            }
        }
    }
}

/// Who could write to a device, as a fence saw it when it looked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Report {
    /// The target's own state (nvmet, SPDK).
    Target {
        /// The newest generation it was told.
        generation: Generation,
        /// Hosts that may connect.
        allowed: Vec<String>,
        /// Whether any host may connect.
        any_host: bool,
        /// Hosts with a controller, or a session that is not taken apart yet.
        connected: Vec<String>,
    },
    /// The namespace's reservation.
    Reservation {
        /// The generation in the holder's key.
        holder: Generation,
        /// Other keys that are registered.
        others: Vec<u64>,
        /// Whether only the holder may write.
        exclusive: bool,
    },
    /// Machines that were switched off, as their management controllers say.
    Power {
        /// Machines that are off.
        off: BTreeSet<NodeName>,
    },
}

/// Why a device is not fenced.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum StillOpen {
    /// The target has not heard of this move.
    OlderGeneration(Generation),
    /// The target has heard of a later one.
    NewerGeneration(Generation),
    /// Any host may connect.
    AnyHost,
    /// A host may connect.
    Allowed(String),
    /// A host is connected.
    Connected(String),
    /// A key besides ours is registered, or the reservation lets others write.
    Reserved,
    /// The machine is not off.
    Powered(NodeName),
}

impl fmt::Display for StillOpen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OlderGeneration(seen) => write!(f, "the target knows generation {seen} only"),
            Self::NewerGeneration(seen) => write!(f, "the target is at generation {seen} already"),
            Self::AnyHost => f.write_str("any host may connect"),
            Self::Allowed(host) => write!(f, "{host} may still connect"),
            Self::Connected(host) => write!(f, "{host} is still connected"),
            Self::Reserved => f.write_str("another key may still write"),
            Self::Powered(node) => write!(f, "{node} is not known to be off"),
        }
    }
}

/// Proof that nobody can write to a device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evidence {
    /// For which generation.
    generation: Generation,
    basis: Basis,
    at: WallTime,
}

/// What evidence rests on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Basis {
    /// What a fence saw.
    Seen(Report),
    /// What a person said.
    Word {
        /// Who.
        who: Person,
        /// In their own words.
        said: String,
        /// Of which nodes.
        off: BTreeSet<NodeName>,
    },
}

impl Evidence {
    /// Reads a report: proof that nobody can write in `generation`, or who still can. `holders` are
    /// all nodes that may have had access: a target is asked for everybody, a machine only for
    /// itself.
    ///
    /// # Errors
    /// With the first way in that is still open.
    pub fn examine(
        report: Report,
        generation: Generation,
        holders: &BTreeSet<NodeName>,
        at: WallTime,
    ) -> Result<Self, StillOpen> {
        match &report {
            Report::Target { generation: seen, allowed, any_host, connected } => {
                if *seen < generation {
                    return Err(StillOpen::OlderGeneration(*seen));
                }
                if *seen > generation {
                    return Err(StillOpen::NewerGeneration(*seen));
                }
                if *any_host {
                    return Err(StillOpen::AnyHost);
                }
                if let Some(host) = allowed.first() {
                    return Err(StillOpen::Allowed(host.clone()));
                }
                if let Some(host) = connected.first() {
                    return Err(StillOpen::Connected(host.clone()));
                }
            }
            Report::Reservation { holder, others, exclusive } => {
                if *holder < generation {
                    return Err(StillOpen::OlderGeneration(*holder));
                }
                if *holder > generation {
                    return Err(StillOpen::NewerGeneration(*holder));
                }
                if !others.is_empty() || !exclusive {
                    return Err(StillOpen::Reserved);
                }
            }
            Report::Power { off } => {
                if let Some(on) = holders.difference(off).next() {
                    return Err(StillOpen::Powered(on.clone()));
                }
            }
        }
        Ok(Self { generation, basis: Basis::Seen(report), at })
    }

    /// A person says that the nodes in `off` cannot write.
    ///
    /// # Errors
    /// With a node that may have access and that they did not speak of.
    pub fn word(
        who: Person,
        said: String,
        off: &BTreeSet<NodeName>,
        generation: Generation,
        holders: &BTreeSet<NodeName>,
        at: WallTime,
    ) -> Result<Self, StillOpen> {
        match holders.difference(off).next() {
            Some(on) => Err(StillOpen::Powered(on.clone())),
            None => Ok(Self { generation, basis: Basis::Word { who, said, off: off.clone() }, at }),
        }
    }

    /// For which generation it was given.
    #[must_use]
    pub fn generation(&self) -> Generation {
        self.generation
    }

    /// What it rests on.
    #[must_use]
    pub fn basis(&self) -> &Basis {
        &self.basis
    }

    /// When it was given.
    #[must_use]
    pub fn at(&self) -> WallTime {
        self.at
    }
}

impl fmt::Display for Evidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.basis {
            Basis::Seen(Report::Target { .. }) => f.write_str("no host is admitted or connected"),
            Basis::Seen(Report::Reservation { .. }) => f.write_str("only our key may write"),
            Basis::Seen(Report::Power { .. }) => f.write_str("the machine is off"),
            Basis::Word { who, said, .. } => write!(f, "{who} said: {said}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GENERATION: Generation = Generation(7);

    fn node() -> NodeName {
        NodeName::new("n1").unwrap()
    }

    fn closed() -> Report {
        Report::Target {
            generation: GENERATION,
            allowed: Vec::new(),
            any_host: false,
            connected: Vec::new(),
        }
    }

    fn examined(report: Report) -> Result<Evidence, StillOpen> {
        Evidence::examine(report, GENERATION, &[node()].into(), WallTime(1))
    }

    #[test]
    fn a_target_that_admits_nobody_and_serves_nobody_is_proof() {
        let evidence = examined(closed()).unwrap();
        assert_eq!(evidence.generation(), GENERATION);
    }

    #[test]
    fn every_way_in_that_is_still_open_is_named() {
        let with = |change: fn(&mut Generation, &mut Vec<String>, &mut bool, &mut Vec<String>)| {
            let mut report = closed();
            if let Report::Target { generation, allowed, any_host, connected } = &mut report {
                change(generation, allowed, any_host, connected);
            }
            examined(report).unwrap_err()
        };
        assert_eq!(
            with(|g, _, _, _| *g = Generation(6)),
            StillOpen::OlderGeneration(Generation(6))
        );
        assert_eq!(
            with(|g, _, _, _| *g = Generation(8)),
            StillOpen::NewerGeneration(Generation(8))
        );
        assert_eq!(with(|_, a, _, _| a.push("h".into())), StillOpen::Allowed("h".into()));
        assert_eq!(with(|_, _, any, _| *any = true), StillOpen::AnyHost);
        assert_eq!(with(|_, _, _, c| c.push("h".into())), StillOpen::Connected("h".into()));
    }

    #[test]
    fn a_reservation_proves_only_what_it_excludes() {
        let report = |holder, others: &[u64], exclusive| Report::Reservation {
            holder,
            others: others.to_vec(),
            exclusive,
        };
        assert!(examined(report(GENERATION, &[], true)).is_ok());
        assert!(examined(report(GENERATION, &[3], true)).is_err());
        assert!(examined(report(GENERATION, &[], false)).is_err());
        assert!(examined(report(Generation(6), &[], true)).is_err());
    }

    #[test]
    fn a_word_about_one_node_says_nothing_about_another_that_was_admitted_once() {
        let holders = ["n1", "n3"].map(|name| NodeName::new(name).unwrap()).into();
        let word = |off: &BTreeSet<NodeName>| {
            let who = Person::new("ada").unwrap();
            Evidence::word(who, String::new(), off, GENERATION, &holders, WallTime(1))
        };
        let n3 = NodeName::new("n3").unwrap();
        assert_eq!(word(&[node()].into()).unwrap_err(), StillOpen::Powered(n3));
        assert!(word(&holders).is_ok());
    }

    #[test]
    fn another_machine_that_is_off_proves_nothing() {
        let off = |name: &str| Report::Power { off: [NodeName::new(name).unwrap()].into() };
        assert!(examined(off("n1")).is_ok());
        assert_eq!(examined(off("n2")).unwrap_err(), StillOpen::Powered(node()));
    }
}
