//! Moving what is not broken: seldom, one at a time, and only where it certainly helps.
//!
//! A rebalancer that follows every measurement moves OSDs for ever. This one looks at counts, which
//! only its own moves change: it begins when the fullest node has at least two OSDs more than one that
//! could take one, so every move makes the sum of squares smaller, and that cannot go on for ever.
//! Measurements choose between moves that help; they never begin one.

use std::collections::BTreeSet;
use std::fmt;

use heal_types::Observed;
use heal_types::cluster::{NodeName, OsdId};

use super::load::Load;
use super::{Placed, placed};
use crate::plan::Policy;
use crate::plan::detect::{HoldWhy, blind};
use crate::plan::view::{ClusterView, OsdView};

/// Why nothing is rebalanced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RestWhy {
    /// What is known is not fit to act on.
    Blind(HoldWhy),
    /// Something is not clean, or not up.
    NotClean,
    /// A move is under way.
    Moving(OsdId),
    /// It is even enough, or nothing that may move would make it more so.
    Even,
}

impl fmt::Display for RestWhy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Blind(why) => why.fmt(f),
            Self::NotClean => f.write_str("not every placement group is clean"),
            Self::Moving(osd) => write!(f, "{osd} is being moved"),
            Self::Even => f.write_str("the OSDs are spread evenly enough"),
        }
    }
}

/// The one move that helps most.
///
/// # Errors
/// When nothing should be moved, with the reason.
pub fn rebalance(view: &ClusterView, policy: &Policy) -> Result<Placed, RestWhy> {
    if let Some(why) = blind(view, policy) {
        return Err(RestWhy::Blind(why));
    }
    if let Some((osd, _)) = view.osds.iter().find(|(_, osd)| osd.moving.is_some()) {
        return Err(RestWhy::Moving(*osd));
    }
    let clean = view.mons.is_known_and(|mons| mons.all_clean);
    if !clean || !view.osds.values().all(|osd| osd.up.is_known_and(|up| *up)) {
        return Err(RestWhy::NotClean);
    }
    let nobody = BTreeSet::new();
    let load = Load::new(view, policy, &nobody);
    let mut nodes: Vec<&NodeName> = view.nodes.keys().collect();
    nodes.sort_by_key(|node| std::cmp::Reverse(load.osds_on(node)));
    // The fullest nodes may have nothing that can go.
    for from in nodes {
        let here = load.osds_on(from);
        let movable = view.osds.iter().filter(|(_, osd)| may_go(view, policy, osd, from));
        let better = movable.filter_map(|(id, _)| {
            let osd = load.osd(*id)?;
            let (to, score) = load.best_below(&osd, here, policy)?;
            Some((osd, to, score))
        });
        // `max_by_key` takes the last of equals; which one, does not matter, but it is always the same.
        if let Some((osd, to, score)) = better.max_by_key(|(_, _, score)| score.total) {
            return Ok(placed(&osd, load.name(to), score));
        }
    }
    Err(RestWhy::Even)
}

fn may_go(view: &ClusterView, policy: &Policy, osd: &OsdView, from: &NodeName) -> bool {
    let rested = osd.moved.is_none_or(|moved| view.now.wall.since(moved) >= policy.rebalance_rest);
    rested && matches!(&osd.node, Observed::Known(node) if node == from)
}
