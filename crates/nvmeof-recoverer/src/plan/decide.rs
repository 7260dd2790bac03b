//! A finding is not a permission: what may be begun now, and why the rest is held.
//!
//! ```text
//!   Lost ──► automatic? ──► a fence that answers? ──► not moved lately? ──► this hour's share? ──► batch
//!               no │               no │                     no │                 no │                │
//!                  └──────────────────┴─── Held(why), said once, seen in status ────┘     no place ──┘
//! ```
//!
//! A person's word (the out-of-service taint) passes the cooldown and the hourly cap: both are
//! there against a machine that runs in circles, and a person does not. It does not pass the fence.
//!
//! Beside the moves, whatever an OSD still carries of a move that is over is found here: a mark
//! that stays behind keeps Ceph from healing, or Rook from looking.

use std::collections::BTreeSet;
use std::time::Duration;

use heal_types::cluster::{Generation, NodeName, OsdId};

use super::detect::{Findings, HoldWhy, Standing};
use super::evidence::{Loss, Witnesses};
use super::relocate::{Cause, Relocation};
use super::schedule;
use super::view::{ClusterView, FenceHealth, OsdView};
use super::{Automatic, Policy};

/// What to do now.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Decision {
    /// Moves to begin: objects to create. A name that exists already was begun by somebody else.
    pub begin: Vec<Relocation>,
    /// Lost OSDs that nothing is begun for, and why.
    pub held: Vec<(OsdId, HoldWhy)>,
    /// OSDs that carry the mark of a move and are in none: the mark is to be taken off.
    pub tidy: Vec<(OsdId, Generation)>,
}

const HOUR: Duration = Duration::from_secs(3600);

/// Decides on everything that was found.
#[must_use]
pub fn decide(view: &ClusterView, findings: &Findings, policy: &Policy) -> Decision {
    let mut decision = Decision::default();
    let mut losses: Vec<(OsdId, Loss)> = Vec::new();
    let used = view.recent_moves.iter().filter(|began| view.now.wall.since(**began) < HOUR);
    let mut left = policy.moves_per_hour.saturating_sub(used.count());
    for (id, osd) in &view.osds {
        if osd.moving.is_some() {
            continue;
        }
        // A move that is not seen yet may be under way: only the mark of one that is known to be
        // over.
        if let Some(mark) = osd.marked.filter(|mark| *mark <= osd.generation) {
            decision.tidy.push((*id, mark));
        }
        let Some(node) = osd.node.known() else {
            continue;
        };
        match findings.of(*id, node) {
            Standing::Well
            | Standing::Unknown
            | Standing::OneWitness(_)
            | Standing::Confirming { .. } => {}
            Standing::Held(why) => decision.held.push((*id, why.clone())),
            Standing::Lost(loss) => match permitted(view, osd, loss, policy, &mut left) {
                Ok(()) => losses.push((*id, loss.clone())),
                Err(why) => decision.held.push((*id, why)),
            },
        }
    }
    let wanted: Vec<OsdId> = losses.iter().map(|(osd, _)| *osd).collect();
    let placement = schedule::place(view, policy, &wanted, &doubted(findings));
    for placed in placement.placed {
        let loss = losses.iter().find(|(osd, _)| *osd == placed.osd).map(|(_, loss)| loss.clone());
        if let (Some(osd), Some(loss)) = (view.osds.get(&placed.osd), loss) {
            let cause = Cause::Lost(loss.clone());
            decision.begin.push(Relocation::new(osd, loss.node, placed.to, cause, view.now.wall));
        }
    }
    let nowhere = placement.unplaced.into_iter();
    decision.held.extend(nowhere.map(|(osd, _)| (osd, HoldWhy::NoTarget)));
    decision
}

/// Nodes that are in any doubt: nothing new comes to them.
#[must_use]
pub fn doubted(findings: &Findings) -> BTreeSet<NodeName> {
    findings
        .nodes()
        .filter(|(_, standing)| **standing != Standing::Well)
        .map(|(node, _)| node.clone())
        .collect()
}

fn permitted(
    view: &ClusterView,
    osd: &OsdView,
    loss: &Loss,
    policy: &Policy,
    left: &mut usize,
) -> Result<(), HoldWhy> {
    let word = match &loss.witnesses {
        Witnesses::OutOfService => true,
        Witnesses::LeaseAndMons { .. } | Witnesses::ProbeAndMons { .. } => false,
    };
    if !word && policy.automatic == Automatic::Off {
        return Err(HoldWhy::AutomaticOff);
    }
    let fence = view.targets.get(&osd.domain).map_or(FenceHealth::Missing, |target| target.fence);
    if !word && fence != FenceHealth::Ready {
        return Err(HoldWhy::NoFence);
    }
    if word {
        return Ok(());
    }
    if osd.moved.is_some_and(|moved| view.now.wall.since(moved) < policy.cooldown) {
        return Err(HoldWhy::CoolingDown);
    }
    *left = left.checked_sub(1).ok_or(HoldWhy::HourlyCap)?;
    Ok(())
}
