//! What each phase becomes when the daemon dies in it, and what each step resumes as.
//!
//! There is no clean start. A daemon that starts reads what an earlier life intended, looks at the
//! kernel, asks the provisioner, and goes on; a daemon that was stopped politely leaves the same
//! record as one that was killed. So both directions stand here, one arm a phase, each with the
//! reason why nothing is lost by it.

use crate::phase::{Phase, Turn};
use crate::record::Step;
use crate::why::{DoubtWhy, HeldWhy};
use heal_types::PathDoubt;

/// What is left to do in `phase`, in a form that a later life can take up.
pub(crate) fn step_of(phase: &Phase) -> Step {
    match phase {
        // A doubt is no fact: the look at start sees it again, or it is gone.
        Phase::Suspect { .. } => Step::Doubt,
        // Whether MD failed the leg is for the kernel to say; if not, it is in doubt again.
        Phase::Isolating { .. } => Step::Doubt,
        Phase::Reporting => Step::Report,
        Phase::Grace => Step::Grace,
        // Whether the leg is still there, and how far taking it back got, is in the next look.
        Phase::Returning { .. } => Step::Grace,
        // The key is what must not be lost: a second key could be granted a second replica.
        Phase::Requesting { key, .. } => Step::Request { key: key.clone() },
        // The incoming replica is in the record; whether it is connected, present or bound already
        // is in the next look. A verdict on its content is not carried over: it is read again.
        Phase::Connecting { .. } | Phase::Verifying { .. } | Phase::Adding { .. } => Step::Connect,
        // The rebuild goes on in the kernel without us.
        Phase::Rebuilding { .. } => Step::Rebuild,
        // Every part of putting away is idempotent and judged by the next look.
        Phase::Retiring { .. } => Step::Retire,
        Phase::Held { why, then, .. } => {
            Step::Hold { why: why.clone(), then: Box::new(then.clone()) }
        }
        // The quarantine itself is in the record, once for the array.
        Phase::Quarantined { then, .. } => then.clone(),
    }
}

/// The phase that `step` resumes as.
pub(crate) fn resume(step: &Step) -> Phase {
    match step {
        // The next look says what the doubt is, and sets the time to decide.
        Step::Doubt => Phase::Suspect {
            why: DoubtWhy::PathSuspect(PathDoubt::ControllerDown),
            decide_at: None,
        },
        // Owed reports are in the record as well; reporting again only re-reads the deadline.
        Step::Report => Phase::Reporting,
        Step::Grace => Phase::Grace,
        // Asked under the same key: a grant that was given and never heard is given again.
        Step::Request { key } => Phase::Requesting { key: key.clone(), turn: Turn::now() },
        Step::Connect => Phase::Connecting { connected_at: None, turn: Turn::now() },
        Step::Rebuild => Phase::Rebuilding { progress: None },
        Step::Retire => Phase::Retiring { turn: Turn::now() },
        Step::Hold { why, then } => match why {
            // A person's word survives a restart, and so does the turn of another slot.
            HeldWhy::Operator { .. } | HeldWhy::OneAtATime { .. } => {
                let (why, then) = (why.clone(), (**then).clone());
                Phase::Held { why, then, until: None, wants: None }
            }
            // Every other reason is found again if it still holds.
            HeldWhy::Observing
            | HeldWhy::NoProvisioner
            | HeldWhy::Budget
            | HeldWhy::ArrayState(_)
            | HeldWhy::ArrayBusy
            | HeldWhy::Guard { .. }
            | HeldWhy::Refused { .. }
            | HeldWhy::Rejected { .. }
            | HeldWhy::StepFailed { .. }
            | HeldWhy::HostCutOff { .. }
            | HeldWhy::Flapping { .. }
            | HeldWhy::NotDurable { .. } => resume(then),
        },
    }
}
