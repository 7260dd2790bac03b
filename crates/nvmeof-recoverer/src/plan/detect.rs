//! Who is lost: never on one witness, never on an old view, never in a storm.
//!
//! ```text
//!                      Kubernetes' word             Ceph's word
//!                    lease silent ≥ 25 s      all its OSDs of ours are down
//!                            └──────────┬──────────┘
//!                                       ▼                       one only ──► OneWitness
//!    out-of-service ──► certain    two in a row ──► certain ──► more nodes than one? ──► Held(Storm)
//!    (a person's word)                  │                              │
//!                     an old view, no quorum: Unknown, and the row      ▼
//!                     begins again                                     Lost(who says so)
//! ```
//!
//! Each witness alone is wrong every week: a lease is silent when the API server is, and OSDs are
//! down when a switch between them is. They are kept by two control planes that share little, so
//! both at once, twice, mean a node. What both would also show is trouble on *our* side, and that
//! looks like many nodes at once: the storm breaker counts every silent lease, whatever the mons
//! say, and counts it sooner: nodes that fall together do not seem lost together, because each
//! renewed at its own time.
//!
//! A process that crashed is not looked at here: its node is alive, and starting it again is
//! Kubernetes' job. The one loss that leaves the node alive is a path to the device, and then the
//! two witnesses are the node's own probe and the mons; if no other node reaches the target, moving
//! is no help.
//!
//! The price: nothing happens before half a minute has passed.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use heal_types::cluster::{NodeName, OsdId};
use heal_types::{Moment, Observed};
use serde::{Deserialize, Serialize};

use super::Policy;
use super::evidence::{Loss, Witnesses};
use super::view::{ClusterView, MonView, NodeView};

/// Why nothing is begun although something seems lost.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum HoldWhy {
    /// What we know of the cluster's objects is too old.
    ApiStale,
    /// What we know of the OSDs is too old.
    MonsStale,
    /// The mons have no quorum.
    NoQuorum,
    /// Too many nodes are lost at once.
    Storm {
        /// How many.
        nodes: usize,
    },
    /// Moves begin by hand only.
    AutomaticOff,
    /// The target has no fence that answers.
    NoFence,
    /// It was moved a short time ago.
    CoolingDown,
    /// As many moves as one hour may have.
    HourlyCap,
    /// No node can take it.
    NoTarget,
    /// Ceph says that stopping it would stop a pool.
    NotOkToStop,
    /// A person said so.
    Operator,
}

impl fmt::Display for HoldWhy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ApiStale => "the view of the API server is too old",
            Self::MonsStale => "the view of the mons is too old",
            Self::NoQuorum => "the mons have no quorum",
            Self::Storm { nodes } => {
                return write!(f, "{nodes} nodes seem lost at once");
            }
            Self::AutomaticOff => "automatic moves are off",
            Self::NoFence => "the target's fence does not answer",
            Self::CoolingDown => "it was moved a short time ago",
            Self::HourlyCap => "this hour has had its moves",
            Self::NoTarget => "no node can take it",
            Self::NotOkToStop => "stopping it would stop a pool",
            Self::Operator => "an operator holds it",
        })
    }
}

/// Which control plane doubts a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Witness {
    /// Kubernetes: the lease is silent.
    Lease,
    /// Ceph: the OSDs are down.
    Mons,
    /// The node's own probe: the device is gone.
    Probe,
}

/// How an OSD's node, or its device, stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// Known to be well.
    Well,
    /// One of them says nothing.
    Unknown,
    /// One control plane doubts it.
    OneWitness(Witness),
    /// Both do, not yet often enough.
    Confirming {
        /// Evaluations in a row so far.
        rounds: u32,
    },
    /// Lost.
    Lost(Loss),
    /// Lost as it seems, and not to be acted on.
    Held(HoldWhy),
}

/// What an evaluation found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Findings {
    nodes: BTreeMap<NodeName, Standing>,
    devices: BTreeMap<OsdId, Standing>,
}

impl Findings {
    /// How `osd` stands where it is, on `node`.
    #[must_use]
    pub fn of(&self, osd: OsdId, node: &NodeName) -> &Standing {
        // The node's loss comes first: it explains a device's.
        match self.nodes.get(node).unwrap_or(&Standing::Well) {
            Standing::Well | Standing::OneWitness(_) | Standing::Unknown => {
                self.devices.get(&osd).or_else(|| self.nodes.get(node)).unwrap_or(&Standing::Well)
            }
            certain @ (Standing::Confirming { .. } | Standing::Lost(_) | Standing::Held(_)) => {
                certain
            }
        }
    }

    /// How a node stands that carries OSDs; one that carries none is well.
    #[must_use]
    pub fn node(&self, node: &NodeName) -> &Standing {
        self.nodes.get(node).unwrap_or(&Standing::Well)
    }

    /// Whether nothing is lost, held or doubted.
    #[must_use]
    pub fn all_well(&self) -> bool {
        self.nodes.is_empty() && self.devices.is_empty()
    }

    /// Every node that is not well.
    pub fn nodes(&self) -> impl Iterator<Item = (&NodeName, &Standing)> {
        self.nodes.iter()
    }
}

/// Who is doubted, and for how many evaluations in a row.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Subject {
    Node(NodeName),
    Device(OsdId),
}

/// Remembers from one evaluation to the next. A new leader begins with nothing, and waits.
#[derive(Debug, Clone, Default)]
pub struct Detector {
    rows: BTreeMap<Subject, Row>,
}

#[derive(Debug, Clone, Copy)]
struct Row {
    rounds: u32,
    counted: Moment,
}

/// What makes the whole view unfit to act on.
#[must_use]
pub fn blind(view: &ClusterView, policy: &Policy) -> Option<HoldWhy> {
    let fresh = |seen: Moment| view.now.mono.since(seen) <= policy.view_fresh;
    if !view.api_seen.is_known_and(|seen| fresh(*seen)) {
        return Some(HoldWhy::ApiStale);
    }
    match &view.mons {
        Observed::Known(MonView { seen, .. }) if !fresh(*seen) => Some(HoldWhy::MonsStale),
        Observed::Known(MonView { quorum: false, .. }) => Some(HoldWhy::NoQuorum),
        Observed::Known(MonView { .. }) => None,
        Observed::Unknown(_) => Some(HoldWhy::MonsStale),
    }
}

impl Detector {
    /// Looks at the cluster once.
    pub fn look(&mut self, view: &ClusterView, policy: &Policy) -> Findings {
        let by_node = osds_by_node(view);
        if let Some(why) = blind(view, policy) {
            self.rows.clear();
            let held = by_node.keys().map(|&node| (node.clone(), Standing::Held(why.clone())));
            return Findings { nodes: held.collect(), devices: BTreeMap::new() };
        }
        let mut seen = BTreeSet::new();
        let storm = storm(view, &by_node, policy);
        let mut findings = Findings::default();
        for (&node, osds) in &by_node {
            let standing = self.node(view, policy, node, osds, storm.as_ref(), &mut seen);
            for &osd in osds {
                if let Some(standing) = self.device(view, policy, osd, node, &mut seen) {
                    findings.devices.insert(osd, standing);
                }
            }
            if standing != Standing::Well {
                findings.nodes.insert(node.clone(), standing);
            }
        }
        self.rows.retain(|subject, _| seen.contains(subject));
        findings
    }

    fn node(
        &mut self,
        view: &ClusterView,
        policy: &Policy,
        node: &NodeName,
        osds: &BTreeSet<OsdId>,
        storm: Option<&HoldWhy>,
        seen: &mut BTreeSet<Subject>,
    ) -> Standing {
        let known = view.nodes.get(node);
        if known.is_some_and(|known| known.out_of_service) {
            // A person's word is not counted, and no storm: they know what they see.
            return Standing::Lost(Loss {
                node: node.clone(),
                witnesses: Witnesses::OutOfService,
                at: view.now.wall,
            });
        }
        let silent = known.and_then(|known| silent_for(known, view.now.mono));
        let Some((silent, mons_say)) = silent.zip(all_down(view, osds)) else {
            return Standing::Unknown;
        };
        let lease_says = silent >= policy.lease_silent;
        match (lease_says, mons_say) {
            (false, false) => Standing::Well,
            (true, false) => Standing::OneWitness(Witness::Lease),
            (false, true) => Standing::OneWitness(Witness::Mons),
            (true, true) => {
                let rounds = self.count(Subject::Node(node.clone()), view.now.mono, policy, seen);
                if let Some(storm) = storm {
                    return Standing::Held(storm.clone());
                }
                if rounds < policy.rounds {
                    return Standing::Confirming { rounds };
                }
                Standing::Lost(Loss {
                    node: node.clone(),
                    witnesses: Witnesses::LeaseAndMons { silent, down: osds.clone() },
                    at: view.now.wall,
                })
            }
        }
    }

    /// A device that its living node has lost; `None` where there is nothing to say.
    fn device(
        &mut self,
        view: &ClusterView,
        policy: &Policy,
        osd: OsdId,
        node: &NodeName,
        seen: &mut BTreeSet<Subject>,
    ) -> Option<Standing> {
        let known = view.osds.get(&osd)?;
        if !known.seen_here.is_known_and(|there| !there) {
            return None;
        }
        if !is_down(view, osd) {
            return Some(Standing::OneWitness(Witness::Probe));
        }
        if !known.seen_elsewhere.is_known_and(|there| *there) {
            // The target itself is away: no node would do better.
            return Some(Standing::OneWitness(Witness::Mons));
        }
        let rounds = self.count(Subject::Device(osd), view.now.mono, policy, seen);
        if rounds < policy.rounds {
            return Some(Standing::Confirming { rounds });
        }
        Some(Standing::Lost(Loss {
            node: node.clone(),
            witnesses: Witnesses::ProbeAndMons { osd },
            at: view.now.wall,
        }))
    }

    /// One more evaluation in a row, unless the last one was a moment ago.
    fn count(
        &mut self,
        subject: Subject,
        now: Moment,
        policy: &Policy,
        seen: &mut BTreeSet<Subject>,
    ) -> u32 {
        seen.insert(subject.clone());
        let row = self.rows.entry(subject).or_insert(Row { rounds: 1, counted: now });
        if now.since(row.counted) >= policy.round_gap {
            *row = Row { rounds: row.rounds.saturating_add(1), counted: now };
        }
        row.rounds
    }
}

fn osds_by_node(view: &ClusterView) -> BTreeMap<&NodeName, BTreeSet<OsdId>> {
    let mut by_node: BTreeMap<&NodeName, BTreeSet<OsdId>> = BTreeMap::new();
    for (id, osd) in &view.osds {
        if let Some(node) = osd.node.known() {
            by_node.entry(node).or_default().insert(*id);
        }
    }
    by_node
}

fn silent_for(node: &NodeView, now: Moment) -> Option<std::time::Duration> {
    node.lease_changed.known().map(|changed| now.since(*changed))
}

/// Whether the mons say that all of them are down; `None` where they say nothing of one, and no
/// other is up.
fn all_down(view: &ClusterView, osds: &BTreeSet<OsdId>) -> Option<bool> {
    let known = |osd: &OsdId| view.osds.get(osd).and_then(|osd| osd.up.known().copied());
    if osds.iter().any(|osd| known(osd) == Some(true)) {
        return Some(false);
    }
    osds.iter().all(|osd| known(osd) == Some(false)).then_some(true)
}

fn is_down(view: &ClusterView, osd: OsdId) -> bool {
    view.osds.get(&osd).is_some_and(|osd| osd.up.is_known_and(|up| !up))
}

/// Whether so many nodes with OSDs of ours are silent that the fault is more likely elsewhere.
fn storm(
    view: &ClusterView,
    by_node: &BTreeMap<&NodeName, BTreeSet<OsdId>>,
    policy: &Policy,
) -> Option<HoldWhy> {
    let silent = |name: &NodeName| {
        view.nodes.get(name).is_some_and(|node| {
            !node.out_of_service
                && silent_for(node, view.now.mono).is_some_and(|it| it >= policy.storm_silent)
        })
    };
    let nodes = by_node.keys().filter(|name| silent(name)).count();
    let third = nodes.saturating_mul(3) > view.nodes.len();
    (nodes > policy.storm_nodes || (nodes > 0 && third)).then_some(HoldWhy::Storm { nodes })
}

#[cfg(test)]
#[path = "detect_tests.rs"]
mod tests;
