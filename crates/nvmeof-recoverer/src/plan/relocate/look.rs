//! What the cluster, as it is seen now, means for one move.
//!
//! One look gives at most one signal: the one that matters most. What depends on the old node is
//! asked only until the fence, what depends on the new one only until the OSD runs there.

use heal_types::cluster::NodeName;
use heal_types::{Observed, WallTime};

use super::{Cause, Phase, PhaseKind, Relocation, Signal};
use crate::plan::Policy;
use crate::plan::decide::doubted;
use crate::plan::detect::{Findings, HoldWhy, Standing, blind};
use crate::plan::schedule::{self, OutWhy};
use crate::plan::view::{ClusterView, FenceHealth};

/// What a look is made with.
#[derive(Debug, Clone, Copy)]
pub struct Seen<'a> {
    /// The cluster.
    pub view: &'a ClusterView,
    /// What the detector found in it.
    pub findings: &'a Findings,
    /// The policy.
    pub policy: &'a Policy,
    /// Whether Ceph can spare the OSD of a planned move (`ok-to-stop`), where it was asked.
    pub ok_to_stop: Observed<bool>,
}

impl Relocation {
    /// What the cluster means for this move.
    #[must_use]
    pub fn look(&self, seen: &Seen<'_>) -> Option<Signal> {
        let now = seen.view.now.wall;
        match self.phase.kind() {
            PhaseKind::Pending | PhaseKind::Confirmed | PhaseKind::NooutSet => {
                self.before_fence(seen, None).or_else(|| self.patience(now, seen.policy))
            }
            PhaseKind::Held => {
                let Phase::Held { why, .. } = &self.phase else { return None };
                self.before_fence(seen, Some(why))
            }
            PhaseKind::Stopping => match self.standing(seen) {
                Standing::Lost(loss) => Some(Signal::LossConfirmed(loss.clone())),
                Standing::Well
                | Standing::OneWitness(_)
                | Standing::Confirming { .. }
                | Standing::Unknown
                | Standing::Held(_) => self.patience(now, seen.policy),
            },
            PhaseKind::Fencing | PhaseKind::Proving => self.patience(now, seen.policy),
            PhaseKind::FenceRequired => self.fence_required(seen),
            PhaseKind::Fenced
            | PhaseKind::Detached
            | PhaseKind::Connecting
            | PhaseKind::Verified => {
                self.other_target(seen).or_else(|| self.patience(now, seen.policy))
            }
            PhaseKind::Placed | PhaseKind::OsdUp => self
                .arrived(seen)
                .or_else(|| self.other_target(seen))
                .or_else(|| self.patience(now, seen.policy)),
            PhaseKind::Clean
            | PhaseKind::RollingBack
            | PhaseKind::GivingUp
            | PhaseKind::Succeeded
            | PhaseKind::RolledBack
            | PhaseKind::Failed => None,
        }
    }

    fn standing<'a>(&self, seen: &Seen<'a>) -> &'a Standing {
        seen.findings.of(self.osd.id, &self.from)
    }

    /// Before the fence: is the reason still a fact, and is there still a place?
    fn before_fence(&self, seen: &Seen<'_>, held: Option<&HoldWhy>) -> Option<Signal> {
        if held == Some(&HoldWhy::Operator) {
            return None;
        }
        let hold = |why: HoldWhy| (held != Some(&why)).then_some(Signal::HoldBegan(why));
        if let Some(why) = blind(seen.view, seen.policy) {
            return hold(why);
        }
        let go = match &self.cause {
            Cause::Lost(_) => match self.standing(seen) {
                Standing::Well => return Some(Signal::LossEnded),
                Standing::Held(why) => return hold(why.clone()),
                Standing::OneWitness(_) | Standing::Confirming { .. } | Standing::Unknown => {
                    return None;
                }
                Standing::Lost(loss) => Signal::LossConfirmed(loss.clone()),
            },
            Cause::Planned { .. } => match (self.standing(seen), seen.ok_to_stop) {
                (Standing::Lost(loss), _) => Signal::LossConfirmed(loss.clone()),
                (_, Observed::Known(true)) => Signal::MoveWanted,
                (_, Observed::Known(false)) => return hold(HoldWhy::NotOkToStop),
                (_, Observed::Unknown(_)) => return None,
            },
        };
        match self.target(seen) {
            Target::Good => {}
            Target::Other(to, why) => return Some(Signal::Retargeted { to, why }),
            Target::Nobody => return hold(HoldWhy::NoTarget),
        }
        if held.is_some() {
            return Some(Signal::HoldEnded);
        }
        // In Confirmed the step under way says when to go on.
        (self.phase.kind() != PhaseKind::Confirmed).then_some(go)
    }

    fn fence_required(&self, seen: &Seen<'_>) -> Option<Signal> {
        if blind(seen.view, seen.policy).is_some() {
            return None;
        }
        let lost = matches!(self.cause, Cause::Lost(_));
        if lost && *self.standing(seen) == Standing::Well {
            return Some(Signal::LossEnded);
        }
        let domain = seen.view.osds.get(&self.osd.id).map(|osd| &osd.domain)?;
        let ready = seen.view.targets.get(domain).map(|it| it.fence) == Some(FenceHealth::Ready);
        let rested = seen.view.now.wall.since(self.since) >= seen.policy.fence_again;
        (ready && rested).then_some(Signal::FenceReady)
    }

    fn other_target(&self, seen: &Seen<'_>) -> Option<Signal> {
        if blind(seen.view, seen.policy).is_some() {
            return None;
        }
        match self.target(seen) {
            Target::Good => None,
            Target::Other(to, why) => Some(Signal::Retargeted { to, why }),
            // Nobody better: it may come back.
            Target::Nobody => None,
        }
    }

    fn arrived(&self, seen: &Seen<'_>) -> Option<Signal> {
        if blind(seen.view, seen.policy).is_some() {
            return None;
        }
        let osd = seen.view.osds.get(&self.osd.id)?;
        // Up on the old node is what the mons have not noticed yet.
        let up = *osd.up.known()? && *osd.started_on.known()? == self.to;
        match (self.phase.kind(), up) {
            (PhaseKind::Placed, true) => Some(Signal::OsdUp),
            (PhaseKind::OsdUp, false) => Some(Signal::OsdDown),
            (PhaseKind::OsdUp, true) if seen.view.mons.is_known_and(|mons| mons.all_clean) => {
                Some(Signal::Clean)
            }
            _ => None,
        }
    }

    /// Whether the chosen node can still take it.
    fn target(&self, seen: &Seen<'_>) -> Target {
        let Some(why) = self.target_out(seen) else {
            return Target::Good;
        };
        let mut avoid = doubted(seen.findings);
        avoid.insert(self.to.clone());
        avoid.insert(self.from.clone());
        let found = schedule::place(seen.view, seen.policy, &[self.osd.id], &avoid);
        match found.placed.into_iter().next() {
            Some(placed) => Target::Other(placed.to, why),
            None => Target::Nobody,
        }
    }

    /// Why the chosen node is out. The further the move is, the more that takes: before anybody is
    /// admitted another node costs nothing, then it costs another move.
    fn target_out(&self, seen: &Seen<'_>) -> Option<OutWhy> {
        let Some(node) = seen.view.nodes.get(&self.to).filter(|node| !node.out_of_service) else {
            return Some(OutWhy::NotReady);
        };
        let now = seen.view.now.mono;
        let silent = |changed| now.since(changed) >= seen.policy.lease_silent;
        let standing = seen.findings.node(&self.to);
        let in_doubt = match self.phase.kind() {
            // The OSD counts there now, and is down until it has started: only both witnesses are
            // one.
            PhaseKind::Placed | PhaseKind::OsdUp => matches!(standing, Standing::Lost(_)),
            PhaseKind::Detached | PhaseKind::Connecting | PhaseKind::Verified => {
                node.lease_changed.is_known_and(|changed| silent(*changed))
            }
            PhaseKind::Pending
            | PhaseKind::Confirmed
            | PhaseKind::NooutSet
            | PhaseKind::Stopping
            | PhaseKind::Fencing
            | PhaseKind::Proving
            | PhaseKind::FenceRequired
            | PhaseKind::Fenced
            | PhaseKind::Held
            | PhaseKind::Clean
            | PhaseKind::RollingBack
            | PhaseKind::GivingUp
            | PhaseKind::Succeeded
            | PhaseKind::RolledBack
            | PhaseKind::Failed => {
                if node.ready.is_known_and(|ready| !ready) {
                    return Some(OutWhy::NotReady);
                }
                *standing != Standing::Well
                    || node.lease_changed.is_known_and(|changed| silent(*changed))
            }
        };
        in_doubt.then_some(OutWhy::InDoubt)
    }

    fn patience(&self, now: WallTime, policy: &Policy) -> Option<Signal> {
        let longest = match self.phase.kind() {
            PhaseKind::Pending | PhaseKind::NooutSet => policy.confirm_patience,
            PhaseKind::Fencing | PhaseKind::Proving => policy.fence_patience,
            PhaseKind::OsdUp => policy.clean_patience,
            PhaseKind::Confirmed
            | PhaseKind::Stopping
            | PhaseKind::Fenced
            | PhaseKind::Detached
            | PhaseKind::Connecting
            | PhaseKind::Verified
            | PhaseKind::Placed => policy.step_patience,
            // These wait for a person, or for what they undo; or they are over.
            PhaseKind::FenceRequired
            | PhaseKind::Held
            | PhaseKind::Clean
            | PhaseKind::RollingBack
            | PhaseKind::GivingUp
            | PhaseKind::Succeeded
            | PhaseKind::RolledBack
            | PhaseKind::Failed => return None,
        };
        (now.since(self.since) >= longest).then_some(Signal::PatienceOver)
    }
}

/// How the chosen node stands.
enum Target {
    Good,
    Other(NodeName, OutWhy),
    Nobody,
}
