//! The machine of one move: its state is the object's status, so a restart is nothing special.
//!
//! ```text
//!            ┌───────────────────────── OsdRelocation (the API server) ◄─────────────────────┐
//!            │ read, fresh                                                                   │ write if nobody
//!            ▼                                                                               │ else did, then act
//!     look(view, findings) ─► Signal ─► verdict(phase, signal) ─► next phase ────────────────┤
//!            │ nothing to say                                                                │
//!            ▼                                                                               │
//!     command(now) ─► Command{generation} ──► executor ──► Answer ─► answered() ─► Signal ───┘
//! ```
//!
//! A phase names one effect. It is written before the effect is begun, so whoever finds the object
//! does the same again; every effect may be done twice. What must not happen twice in *different*
//! ways is kept apart by the generation: at a target that has seen a newer one an older command is
//! refused, and within one generation at most one node is ever admitted. That is why the new node
//! cannot be exchanged once it may have been admitted: the move fails, and the next one, with the
//! next generation, fences that node too.
//!
//! The price: a move is a dozen writes to the API server, and a node that fails to connect costs a
//! second move.

mod effect;
mod look;
mod phase;
mod signal;
pub mod transitions;

#[cfg(test)]
mod agrees;

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use heal_types::WallTime;
use heal_types::cluster::{Generation, NodeName, Person, RelocationId};
use serde::{Deserialize, Serialize};
use thiserror::Error;

pub use effect::{Answer, Command, Effect};
pub use look::Seen;
pub use phase::{BeforeFence, FailWhy, FenceWhy, Phase, PhaseKind, Undo};
pub use signal::{Signal, SignalKind};
use transitions::{StayWhy, Verdict, verdict};

use super::Policy;
use super::evidence::{Evidence, Loss, StillOpen};
use super::view::{Device, OsdIdentity, OsdView};

/// Why an OSD is moved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Cause {
    /// It is lost where it is.
    Lost(Loss),
    /// A person, or the rebalancer, wants it elsewhere while it is well.
    Planned {
        /// Who.
        by: Person,
    },
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lost(loss) => loss.fmt(f),
            Self::Planned { by } => write!(f, "wanted by {by}"),
        }
    }
}

/// One move: what its object says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Relocation {
    /// Its name. Two leaders that begin the same move give it the same one.
    pub id: RelocationId,
    /// Which OSD.
    pub osd: OsdIdentity,
    /// On which device.
    pub device: Device,
    /// The old node.
    pub from: NodeName,
    /// The new node.
    pub to: NodeName,
    /// Nodes that may have access when it begins: the old one, and those that moves before it
    /// admitted without getting to the end.
    pub holders: BTreeSet<NodeName>,
    /// Why.
    pub cause: Cause,
    /// The device's fencing token.
    pub generation: Generation,
    /// When it began.
    pub began: WallTime,
    /// When the present phase began; closing the old node out and looking whether it worked are
    /// one.
    pub since: WallTime,
    /// How often the present step failed, and what it said last.
    pub tries: Tries,
    /// Where it stands.
    pub phase: Phase,
}

/// How a step goes.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Tries {
    /// How often it failed.
    pub failed: u32,
    /// What was said last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub said: Option<String>,
    /// Not again before this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_before: Option<WallTime>,
}

/// A signal that the phase cannot have: nobody acts on this move until a person has looked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("{signal} cannot happen in {phase}")]
pub struct Illegal {
    /// The phase.
    pub phase: PhaseKind,
    /// The signal.
    pub signal: SignalKind,
}

/// What a signal did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moved {
    /// The object has changed and must be written before anything else.
    To(PhaseKind),
    /// It has not, beyond the count of tries.
    Stayed(StayWhy),
}

/// The longest piece of somebody else's text that is kept.
const SAID: usize = 200;

impl Relocation {
    /// A new move of `osd`, to be created as an object; one generation later than its last one.
    #[must_use]
    pub fn new(osd: &OsdView, from: NodeName, to: NodeName, cause: Cause, now: WallTime) -> Self {
        let generation = osd.generation.next();
        let mut holders = osd.holders.clone();
        holders.insert(from.clone());
        Self {
            id: name(&osd.identity, generation),
            osd: osd.identity,
            device: osd.device.clone(),
            from,
            to,
            holders,
            cause,
            generation,
            began: now,
            since: now,
            tries: Tries::default(),
            phase: Phase::Pending,
        }
    }

    /// Something happened.
    ///
    /// # Errors
    /// When it cannot happen in this phase; then nothing has changed.
    pub fn signal(
        &mut self,
        now: WallTime,
        signal: Signal,
        policy: &Policy,
    ) -> Result<Moved, Illegal> {
        let (phase, kind) = (self.phase.kind(), signal.kind());
        let illegal = Illegal { phase, signal: kind };
        let to = match verdict(phase, kind) {
            Verdict::Go(to) => to,
            Verdict::Resume => {
                let Phase::Held { then, .. } = &self.phase else { return Err(illegal) };
                then.kind()
            }
            Verdict::Stay(why) => {
                self.note(now, &signal, policy);
                return Ok(Moved::Stayed(why));
            }
            Verdict::Illegal => return Err(illegal),
        };
        let next = self.next(&signal, to).filter(|next| next.kind() == to).ok_or(illegal)?;
        match (phase, to) {
            // Closing and looking are one stage with one patience: a fence that never does what it
            // says would begin anew for ever, and nobody would be asked.
            (PhaseKind::Fencing, PhaseKind::Proving) => self.tries.not_before = None,
            (PhaseKind::Proving, PhaseKind::Fencing) => {
                if let Signal::Disproven(open) = &signal {
                    // As a rule a connection that is being taken apart: it takes a moment.
                    self.failed(now, &open.to_string(), policy.step_retry / 8, policy);
                }
            }
            (from, to) if from != to => {
                self.since = now;
                self.tries = Tries::default();
            }
            _ => {}
        }
        if let Signal::Retargeted { to, .. } = signal {
            self.to = to;
        }
        self.phase = next;
        Ok(Moved::To(to))
    }

    /// The phase `to`, from what the present one holds and what the signal brings; `None` where a
    /// part is missing.
    fn next(&self, signal: &Signal, to: PhaseKind) -> Option<Phase> {
        Some(match to {
            PhaseKind::Pending => Phase::Pending,
            PhaseKind::Confirmed => Phase::Confirmed,
            PhaseKind::NooutSet => Phase::NooutSet,
            PhaseKind::Stopping => Phase::Stopping,
            PhaseKind::Fencing => Phase::Fencing,
            PhaseKind::Proving => Phase::Proving,
            PhaseKind::Fenced => Phase::Fenced { evidence: self.proof(signal)? },
            PhaseKind::Detached => Phase::Detached { evidence: self.proof(signal)? },
            PhaseKind::Connecting => Phase::Connecting { evidence: self.proof(signal)? },
            PhaseKind::Verified => Phase::Verified { evidence: self.proof(signal)? },
            PhaseKind::Placed => Phase::Placed { evidence: self.proof(signal)? },
            PhaseKind::OsdUp => Phase::OsdUp { evidence: self.proof(signal)? },
            PhaseKind::Clean => Phase::Clean { evidence: self.proof(signal)? },
            PhaseKind::Succeeded => Phase::Succeeded { evidence: self.proof(signal)? },
            PhaseKind::Held => self.held(signal)?,
            PhaseKind::FenceRequired => Phase::FenceRequired { why: self.fence_trouble(signal) },
            PhaseKind::RollingBack => Phase::RollingBack { undo: self.to_undo()? },
            PhaseKind::RolledBack => Phase::RolledBack,
            PhaseKind::GivingUp => Phase::GivingUp { why: self.failure(signal)? },
            PhaseKind::Failed => {
                let Phase::GivingUp { why } = &self.phase else { return None };
                Phase::Failed { why: why.clone() }
            }
        })
    }

    /// The proof that a phase behind the fence needs: brought by the signal, or held already. One
    /// for another generation is none.
    fn proof(&self, signal: &Signal) -> Option<Evidence> {
        let evidence = if let Signal::Proven(evidence) | Signal::OperatorFenced(evidence) = signal {
            Some(evidence)
        } else {
            self.phase.evidence()
        };
        evidence.filter(|evidence| evidence.generation() == self.generation).cloned()
    }

    fn held(&self, signal: &Signal) -> Option<Phase> {
        let before = |kind| BeforeFence::ALL.into_iter().find(|it| it.kind() == kind);
        let (present, then) = if let Phase::Held { why, then } = &self.phase {
            (Some(why), *then)
        } else {
            (None, before(self.phase.kind())?)
        };
        let why = if let Signal::HoldBegan(why) = signal { Some(why) } else { present };
        why.map(|why| Phase::Held { why: why.clone(), then })
    }

    fn fence_trouble(&self, signal: &Signal) -> FenceWhy {
        if let Phase::FenceRequired { why } = &self.phase {
            return why.clone();
        }
        if let Signal::StepRefused(said) = signal {
            return FenceWhy::Refused(short(said));
        }
        FenceWhy::TooLong
    }

    fn to_undo(&self) -> Option<Undo> {
        match self.phase.kind() {
            PhaseKind::Confirmed | PhaseKind::NooutSet | PhaseKind::Held => Some(Undo::Marks),
            PhaseKind::Stopping => Some(Undo::Stopped),
            PhaseKind::Fencing | PhaseKind::Proving | PhaseKind::FenceRequired => {
                // Nobody knows that the others are cut: then the old node is not admitted either,
                // and the next move cuts all of them.
                let alone = self.holders.iter().all(|holder| *holder == self.from);
                Some(if alone { Undo::Fenced } else { Undo::Stopped })
            }
            // From here on somebody else may have been admitted, or nothing was begun.
            PhaseKind::Pending
            | PhaseKind::Fenced
            | PhaseKind::Detached
            | PhaseKind::Connecting
            | PhaseKind::Verified
            | PhaseKind::Placed
            | PhaseKind::OsdUp
            | PhaseKind::Clean
            | PhaseKind::Succeeded
            | PhaseKind::RollingBack
            | PhaseKind::RolledBack
            | PhaseKind::GivingUp
            | PhaseKind::Failed => None,
        }
    }

    fn failure(&self, signal: &Signal) -> Option<FailWhy> {
        let phase = self.phase.kind();
        match signal {
            Signal::StepRefused(said) => Some(FailWhy::Refused { phase, said: short(said) }),
            Signal::PatienceOver => Some(FailWhy::TooLong { phase }),
            Signal::Retargeted { why, .. } => Some(FailWhy::TargetLost(*why)),
            Signal::WrongDevice(found) => Some(FailWhy::WrongDevice(found.clone())),
            Signal::OperatorAborted => Some(FailWhy::Aborted),
            Signal::LossConfirmed(_)
            | Signal::MoveWanted
            | Signal::LossEnded
            | Signal::StepDone
            | Signal::StepAgain(_)
            | Signal::Proven(_)
            | Signal::Disproven(_)
            | Signal::RightDevice
            | Signal::OsdUp
            | Signal::OsdDown
            | Signal::Clean
            | Signal::HoldBegan(_)
            | Signal::HoldEnded
            | Signal::FenceReady
            | Signal::OperatorFenced(_) => None,
        }
    }

    /// Counts a try that failed, and says when the next one is due.
    fn note(&mut self, now: WallTime, signal: &Signal, policy: &Policy) {
        if let Signal::StepAgain(said) | Signal::StepRefused(said) = signal {
            self.failed(now, said, policy.step_retry, policy);
        }
    }

    fn failed(&mut self, now: WallTime, said: &str, first: Duration, policy: &Policy) {
        let doubled = first.saturating_mul(1 << self.tries.failed.min(16));
        self.tries = Tries {
            failed: self.tries.failed.saturating_add(1),
            said: Some(short(said)),
            not_before: Some(now.after(doubled.min(policy.longest_retry))),
        };
    }

    /// The phase's effect, if it has one and its time has come.
    #[must_use]
    pub fn command(&self, now: WallTime) -> Option<Command> {
        if self.tries.not_before.is_some_and(|not_before| now < not_before) {
            return None;
        }
        Some(Command {
            relocation: self.id.clone(),
            generation: self.generation,
            phase: self.phase.kind(),
            effect: self.effect()?,
        })
    }

    fn effect(&self) -> Option<Effect> {
        let (osd, device) = (self.osd.id, self.device.clone());
        let (from, to) = (self.from.clone(), self.to.clone());
        match &self.phase {
            Phase::Confirmed => Some(Effect::Quiet { osd }),
            Phase::Stopping => Some(Effect::Stop { osd }),
            Phase::Fencing => Some(Effect::Fence { device, holders: self.holders.clone() }),
            Phase::Proving => Some(Effect::Prove { device, holders: self.holders.clone() }),
            Phase::Fenced { evidence } => {
                Some(Effect::Detach { osd, from, evidence: evidence.clone() })
            }
            Phase::Detached { evidence } => {
                Some(Effect::Admit { device, to, evidence: evidence.clone() })
            }
            Phase::Connecting { evidence } => {
                Some(Effect::Connect { device, to, evidence: evidence.clone() })
            }
            Phase::Verified { .. } => Some(Effect::Place { osd, from, to }),
            Phase::Clean { .. } | Phase::GivingUp { .. } => Some(Effect::Release { osd }),
            Phase::RollingBack { undo } => Some(Effect::Restore { osd, device, from, undo: *undo }),
            // These wait for the world, for a person, or for nothing.
            Phase::Pending
            | Phase::NooutSet
            | Phase::Placed { .. }
            | Phase::OsdUp { .. }
            | Phase::Held { .. }
            | Phase::FenceRequired { .. }
            | Phase::Succeeded { .. }
            | Phase::RolledBack
            | Phase::Failed { .. } => None,
        }
    }

    /// What an answer means; `None` for one that this phase did not ask for.
    #[must_use]
    pub fn answered(&self, command: &Command, answer: Answer, now: WallTime) -> Option<Signal> {
        let ours = command.relocation == self.id
            && command.generation == self.generation
            && command.phase == self.phase.kind();
        if !ours {
            return None;
        }
        Some(match (answer, &self.phase) {
            (Answer::Again(said), _) => Signal::StepAgain(said),
            (Answer::Refused(said), _) => Signal::StepRefused(said),
            (Answer::Seen(report), Phase::Proving) => {
                match Evidence::examine(report, self.generation, &self.holders, now) {
                    Ok(evidence) => Signal::Proven(evidence),
                    Err(open) => Signal::Disproven(open),
                }
            }
            (Answer::Label(found), Phase::Connecting { .. }) => {
                if found == self.osd {
                    Signal::RightDevice
                } else {
                    Signal::WrongDevice(Box::new(found))
                }
            }
            (Answer::Done, Phase::Proving | Phase::Connecting { .. }) => {
                Signal::StepAgain("it was answered without what was asked for".to_owned())
            }
            (Answer::Done, _) => Signal::StepDone,
            (Answer::Seen(_) | Answer::Label(_), _) => {
                Signal::StepAgain("it was answered with what was not asked for".to_owned())
            }
        })
    }

    /// A person says that the nodes in `off` cannot write.
    ///
    /// # Errors
    /// With a node that may have access and that they did not speak of.
    pub fn word(
        &self,
        who: Person,
        said: &str,
        off: &BTreeSet<NodeName>,
        now: WallTime,
    ) -> Result<Signal, StillOpen> {
        Evidence::word(who, short(said), off, self.generation, &self.holders, now)
            .map(Signal::OperatorFenced)
    }

    /// Nodes that may have access after this move, whatever became of it: what the next one has to
    /// cut.
    #[must_use]
    pub fn holders_after(&self) -> BTreeSet<NodeName> {
        let mut holders = self.holders.clone();
        match self.phase.kind() {
            // Whoever was not cut before the new node was admitted, was cut by admitting it alone.
            PhaseKind::Succeeded => holders.clear(),
            PhaseKind::RolledBack => return holders,
            PhaseKind::Pending
            | PhaseKind::Confirmed
            | PhaseKind::NooutSet
            | PhaseKind::Stopping
            | PhaseKind::Fencing
            | PhaseKind::Proving
            | PhaseKind::FenceRequired
            | PhaseKind::Fenced
            | PhaseKind::Detached
            | PhaseKind::Connecting
            | PhaseKind::Verified
            | PhaseKind::Placed
            | PhaseKind::OsdUp
            | PhaseKind::Clean
            | PhaseKind::Held
            | PhaseKind::RollingBack
            | PhaseKind::GivingUp
            | PhaseKind::Failed => {}
        }
        holders.insert(self.to.clone());
        holders
    }
}

/// `osd-3-7`: the OSD and the generation, so that the API server refuses the second of two equals.
///
/// # Panics
/// Never: a word and two numbers are a name.
#[must_use]
pub fn name(osd: &OsdIdentity, generation: Generation) -> RelocationId {
    RelocationId::new(format!("osd-{}-{generation}", osd.id.number()))
        .expect("a word and two numbers are a DNS name")
}

fn short(said: &str) -> String {
    said.chars().take(SAID).collect()
}
