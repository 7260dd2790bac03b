//! Where to: filters that forbid, scores that prefer, and all losses of one event as one batch.
//!
//! ```text
//!   node ──► ready, lease fresh, schedulable, not held down, no veto ┐ once for a batch
//!   domain ► attachable, reachable                                   ┘
//!                │
//!   OSD ───► not where it is lost, room, few enough domains ──► score 0..100 ──► best ──► the load moves
//!                                                                                           │
//!                                      the next OSD of the batch sees it there ◄────────────┘
//! ```
//!
//! **Filters come first and have no weight.** One of them carries the data's safety: a node that
//! holds OSDs of more failure domains than a pool can spare takes the pool down with it, however
//! well the CRUSH map spreads the copies. CRUSH knows targets; only this filter knows who carries
//! them. Ceph's own `ok-to-stop` has the last word: a node that it refused is vetoed, and the plan
//! is made again.
//!
//! **One batch.** A node's OSDs are lost together. Choosing for each on its own sends all of them
//! to the same "emptiest" node; here each choice moves the load before the next one is made, and
//! those with the fewest candidates choose first. If one finds no place, another of the batch may
//! give way.
//!
//! **Scores** are integers, so every replica of the controller finds the same answer: what is equal
//! is decided by a hash of both names. A metric that is missing is worth half, and nothing breaks.
//!
//! The price: greedy is not optimal. It is predictable, explained in one line for each node, and
//! plans ten thousand OSDs on a thousand nodes in under a second.

mod load;
mod rebalance;
mod score;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use heal_types::cluster::{NodeName, OsdId};
use serde::{Deserialize, Serialize};

use load::{Load, PerOsd};
pub use rebalance::{Proposal, Proposed, Rebalancer, RestWhy, rebalance};
pub use score::Score;

use super::Policy;
use super::view::ClusterView;

/// Why a node cannot take an OSD.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum OutWhy {
    /// It is not known to be ready.
    NotReady,
    /// Its lease is silent, or something else is in doubt.
    InDoubt,
    /// It takes no new pods.
    Unschedulable,
    /// It was away, or failed to take an OSD, a short time ago.
    HeldDown,
    /// Ceph says that what would sit there could not be stopped.
    Vetoed,
    /// The target does not list it.
    NotAttachable,
    /// It does not reach the target.
    Unreachable,
    /// It is where the OSD is.
    SameNode,
    /// It has as many OSDs as a node may have.
    Full,
    /// It has not the memory.
    NoMemory,
    /// It has not the CPU.
    NoCpu,
    /// Losing it would then take more failure domains than a pool can spare.
    TooManyDomains,
}

impl fmt::Display for OutWhy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotReady => "not ready",
            Self::InDoubt => "in doubt",
            Self::Unschedulable => "takes no new pods",
            Self::HeldDown => "held down",
            Self::Vetoed => "vetoed by ok-to-stop",
            Self::NotAttachable => "not attachable",
            Self::Unreachable => "does not reach the target",
            Self::SameNode => "the same node",
            Self::Full => "full",
            Self::NoMemory => "not enough memory",
            Self::NoCpu => "not enough CPU",
            Self::TooManyDomains => "too many failure domains",
        })
    }
}

/// An OSD and its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placed {
    /// The OSD.
    pub osd: OsdId,
    /// Where it is, or was; `None` for a new device.
    pub from: Option<NodeName>,
    /// Where it goes.
    pub to: NodeName,
    /// How good that is.
    pub score: Score,
}

/// The plan of a batch.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Placement {
    /// OSDs that have a place.
    pub placed: Vec<Placed>,
    /// OSDs that have none, and how many nodes are out for which reason.
    pub unplaced: Vec<(OsdId, BTreeMap<OutWhy, usize>)>,
}

/// Plans all of `wanted` together. Nodes in `avoid` take nothing.
#[must_use]
pub fn place(
    view: &ClusterView,
    policy: &Policy,
    wanted: &[OsdId],
    avoid: &BTreeSet<NodeName>,
) -> Placement {
    let mut load = Load::new(view, policy, avoid);
    for osd in wanted {
        load.take_away(*osd);
    }
    let mut order: Vec<PerOsd<'_>> = wanted.iter().filter_map(|osd| load.osd(*osd)).collect();
    order.sort_by_key(|osd| {
        let choice = load.candidates(osd).len();
        (choice, std::cmp::Reverse(osd.view.requests.memory), osd.id)
    });
    let mut placement = Placement::default();
    let mut without = Vec::new();
    for osd in &order {
        match load.best(osd, policy) {
            Some((node, score)) => {
                load.put(osd, node);
                placement.placed.push(placed(osd, load.name(node), score));
            }
            None => without.push(osd),
        }
    }
    for osd in without {
        if !load.make_room(osd, &order, &mut placement.placed, policy) {
            placement.unplaced.push((osd.id, load.reasons(osd)));
        }
    }
    placement.placed.sort_by_key(|placed| placed.osd);
    placement
}

fn placed(osd: &PerOsd<'_>, to: &NodeName, score: Score) -> Placed {
    Placed { osd: osd.id, from: osd.view.node.known().cloned(), to: to.clone(), score }
}

/// Every node's verdict on one OSD, as things are: a score, or why it is out.
#[must_use]
pub fn explain(
    view: &ClusterView,
    policy: &Policy,
    osd: OsdId,
    avoid: &BTreeSet<NodeName>,
) -> Vec<(NodeName, Result<Score, OutWhy>)> {
    let mut load = Load::new(view, policy, avoid);
    load.take_away(osd);
    let Some(osd) = load.osd(osd) else {
        return Vec::new();
    };
    load.explain(&osd, policy)
}
