//! Moving what is not broken: seldom, one at a time, and only where it certainly helps.
//!
//! ```text
//!   view, findings ──► anything else going on? ──► the heaviest node's OSD that gains most
//!                        │ RestWhy                             │ gain < threshold: the next node's
//!                        ▼                                     ▼
//!                     nothing ◄──────── another one ──── Proposal ── the same one for long enough ──► a move
//! ```
//!
//! A rebalancer that follows every measurement moves OSDs for ever. Three things keep this one from
//! it:
//!
//! * **Weights begin a move, measurements only choose.** An OSD goes only to a node that is still
//!   the lighter one when it has it. So each move makes the sum of the squared weights smaller,
//!   whatever the measurements say, and that ends.
//! * **A threshold.** Being a little better is not worth taking an OSD down for some seconds.
//! * **Time.** The same move must have been the best for a while, in which everybody can see it;
//!   after a move everything rests for the cooldown, and the OSD that was moved for longer. A move
//!   that came to nothing counts like one that did.
//!
//! And it is the last of all: as long as anything is lost, in doubt, down, unclean, marked or under
//! way, it does nothing, and then it begins to wait again. What it begins is a planned move like
//! any person's, which Ceph may refuse (`ok-to-stop`).
//!
//! The price: a cluster of small OSDs stays two apart, because one OSD less is not enough of a
//! gain.

use std::fmt;

use heal_types::cluster::{NodeName, OsdId, Person};
use heal_types::{Observed, WallTime};

use super::Score;
use super::load::{Load, PerOsd};
use crate::plan::detect::{Findings, HoldWhy, blind};
use crate::plan::relocate::{Cause, Relocation};
use crate::plan::view::{ClusterView, FenceHealth, OsdView};
use crate::plan::{Automatic, Policy};

/// Who wants what nobody asked for.
const NAME: &str = "rebalancer";

/// Why nothing is rebalanced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RestWhy {
    /// What is known is not fit to act on.
    Blind(HoldWhy),
    /// A node or a device is lost, held or doubted.
    InDoubt,
    /// Something is not clean, or not up.
    NotClean,
    /// A move is under way.
    Moving(OsdId),
    /// It carries something of a move that is over.
    Marked(OsdId),
    /// It was moved a short time ago.
    CoolingDown(OsdId),
    /// It is even enough, or nothing that may move would make it more so.
    Even,
}

impl fmt::Display for RestWhy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Blind(why) => why.fmt(f),
            Self::InDoubt => f.write_str("a node or a device is in doubt"),
            Self::NotClean => f.write_str("not every placement group is clean"),
            Self::Moving(osd) => write!(f, "{osd} is being moved"),
            Self::Marked(osd) => write!(f, "{osd} carries the mark of a move that is over"),
            Self::CoolingDown(osd) => write!(f, "{osd} was moved a short time ago"),
            Self::Even => f.write_str("the OSDs are spread evenly enough"),
        }
    }
}

/// A move that would help.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proposal {
    /// The OSD.
    pub osd: OsdId,
    /// Where it is.
    pub from: NodeName,
    /// Where it would go.
    pub to: NodeName,
    /// How good its place is.
    pub here: Score,
    /// How good the other one would be.
    pub there: Score,
}

impl Proposal {
    /// How much better, in thousandths of a point.
    #[must_use]
    pub fn gain(&self) -> u32 {
        self.there.total.saturating_sub(self.here.total)
    }

    fn same_move(&self, other: &Self) -> bool {
        (self.osd, &self.from, &self.to) == (other.osd, &other.from, &other.to)
    }
}

/// The one move that helps most.
///
/// # Errors
/// When nothing should be moved, with the reason.
pub fn rebalance(
    view: &ClusterView,
    findings: &Findings,
    policy: &Policy,
) -> Result<Proposal, RestWhy> {
    match rests(view, findings, policy) {
        Some(why) => Err(why),
        None => best(view, policy).ok_or(RestWhy::Even),
    }
}

fn rests(view: &ClusterView, findings: &Findings, policy: &Policy) -> Option<RestWhy> {
    if let Some(why) = blind(view, policy) {
        return Some(RestWhy::Blind(why));
    }
    if !findings.all_well() {
        return Some(RestWhy::InDoubt);
    }
    let first = |is: &dyn Fn(&OsdView) -> bool| {
        view.osds.iter().find(|(_, osd)| is(osd)).map(|(id, _)| *id)
    };
    let cooling = |at: &WallTime| view.now.wall.since(*at) < policy.cooldown;
    let clean = view.mons.is_known_and(|mons| mons.all_clean);
    let up = |osd: &OsdView| osd.up.is_known_and(|up| *up);
    first(&|osd| osd.moving.is_some())
        .map(RestWhy::Moving)
        .or_else(|| first(&|osd| osd.marked.is_some()).map(RestWhy::Marked))
        .or_else(|| (!clean || !view.osds.values().all(up)).then_some(RestWhy::NotClean))
        .or_else(|| {
            let lately = |osd: &OsdView| osd.moved.iter().chain(&osd.tried).any(cooling);
            first(&lately).map(RestWhy::CoolingDown)
        })
}

fn best(view: &ClusterView, policy: &Policy) -> Option<Proposal> {
    let mut load = Load::new(view, policy, &std::collections::BTreeSet::new());
    for here in load.heaviest_first() {
        let mut best: Option<Proposal> = None;
        for osd in here.into_iter().filter(|osd| may_go(view, policy, osd)) {
            let Some(found) = load.gain(&osd, policy) else { continue };
            // Of equals the first: which one does not matter, but it is always the same.
            if best.as_ref().is_none_or(|best| found.gain() > best.gain()) {
                best = Some(found);
            }
        }
        // The heaviest node may have nothing that can go.
        if let Some(best) =
            best.filter(|it| it.gain() >= policy.rebalance_gain.saturating_mul(1000))
        {
            return Some(best);
        }
    }
    None
}

/// Whether nothing about the OSD itself forbids it.
fn may_go(view: &ClusterView, policy: &Policy, osd: &PerOsd<'_>) -> bool {
    let osd = osd.view;
    let Observed::Known(node) = &osd.node else { return false };
    let rested = |at: &WallTime| view.now.wall.since(*at) >= policy.rebalance_rest;
    let fence = view.targets.get(&osd.domain).map(|target| target.fence);
    osd.moved.iter().chain(&osd.tried).all(rested)
        && fence == Some(FenceHealth::Ready)
        && osd.started_on.is_known_and(|started| started == node)
        // Whoever else may have access is an unfinished story.
        && osd.holders.iter().all(|holder| holder == node)
}

/// A proposal, and since when it is the best.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proposed {
    /// The move.
    pub proposal: Proposal,
    /// Since when.
    pub since: WallTime,
}

impl Proposed {
    /// When the move begins if nothing changes; `None` where a person has to do it.
    #[must_use]
    pub fn begins(&self, policy: &Policy) -> Option<WallTime> {
        match policy.rebalance {
            Automatic::Off => None,
            Automatic::On => Some(self.since.after(policy.rebalance_after)),
        }
    }

    /// The move, once its time has come.
    ///
    /// # Panics
    /// Never: the rebalancer's name is one.
    #[must_use]
    pub fn due(&self, view: &ClusterView, policy: &Policy) -> Option<Relocation> {
        self.begins(policy).filter(|begins| view.now.wall >= *begins)?;
        let Proposal { osd, from, to, .. } = &self.proposal;
        let by = Person::new(NAME).expect("a word is a name");
        let cause = Cause::Planned { by };
        let osd = view.osds.get(osd)?;
        Some(Relocation::new(osd, from.clone(), to.clone(), cause, view.now.wall))
    }
}

/// Remembers since when the same move is the best. A new leader begins with nothing, and waits.
#[derive(Debug, Clone, Default)]
pub struct Rebalancer(Option<Proposed>);

impl Rebalancer {
    /// Looks at the cluster once.
    ///
    /// # Errors
    /// When nothing should be moved, with the reason; then waiting begins again.
    pub fn look(
        &mut self,
        view: &ClusterView,
        findings: &Findings,
        policy: &Policy,
    ) -> Result<&Proposed, RestWhy> {
        let before = self.0.take();
        let proposal = rebalance(view, findings, policy)?;
        let same = before.filter(|before| before.proposal.same_move(&proposal));
        let since = same.map_or(view.now.wall, |before| before.since);
        Ok(self.0.insert(Proposed { proposal, since }))
    }

    /// Forgets it: waiting begins again.
    pub fn forget(&mut self) {
        self.0 = None;
    }
}
