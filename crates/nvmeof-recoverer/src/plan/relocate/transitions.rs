//! The transition table of a move: what each signal does in each phase. Nothing else moves one.
//!
//! ```text
//!   (phase, signal) ──► Go(phase)     the move goes there
//!                       Resume        it goes on with the phase it was held before
//!                       Stay(why)     the signal is real and changes nothing here
//!                       Illegal       the signal contradicts the phase: an error, and nobody acts
//! ```
//!
//! Two lines through the table are the whole safety. Between `NooutSet` and `Fencing`: before it a
//! move can be dropped as if it had never been. Between `Proving` and `Fenced`: only `Proven` and a
//! person's word cross it, and nothing right of it can be reached in any other way.
//!
//! There is no `_` arm: a new phase or signal does not compile until somebody has decided every
//! cell. The print-out is a golden file, and `STATES.md` is drawn from it.

use std::fmt;
use std::fmt::Write as _;

use super::phase::PhaseKind;
use super::signal::SignalKind;

/// What a signal does in a phase.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The move goes there.
    Go(PhaseKind),
    /// The move goes on with the phase it was held before.
    Resume,
    /// The move stays.
    Stay(StayWhy),
    /// The signal cannot happen here unless something is badly wrong.
    Illegal,
}

/// Why a signal changes nothing in a phase.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum StayWhy {
    /// It is what brought the move here.
    Known,
    /// The step is tried again.
    StepFirst,
    /// The fence may have been used: there is no way back but an explicit one.
    FenceFirst,
    /// The old node cannot write any more: the move must be finished.
    MustFinish,
    /// What was set has to be taken off first.
    ReleaseFirst,
    /// Nothing is done while it is held.
    Still,
    /// It is over.
    Over,
}

impl fmt::Display for StayWhy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// Looks one cell up.
#[must_use]
#[rustfmt::skip]
pub fn verdict(phase: PhaseKind, signal: SignalKind) -> Verdict {
    use PhaseKind as P;
    use SignalKind as S;
    use StayWhy::{FenceFirst, Known, MustFinish, Over, ReleaseFirst, StepFirst, Still};
    use Verdict::{Go, Illegal, Resume, Stay};
    match phase {
        P::Pending => match signal {
            S::LossConfirmed | S::MoveWanted
                               => Go(P::Confirmed),
            S::LossEnded       => Go(P::RolledBack),
            S::OperatorAborted => Go(P::RolledBack),
            S::PatienceOver    => Go(P::RolledBack),
            S::HoldBegan       => Go(P::Held),
            S::Retargeted      => Go(P::Pending),
            S::StepDone | S::StepAgain | S::StepRefused | S::Proven | S::Disproven | S::RightDevice
            | S::WrongDevice | S::OsdUp | S::OsdDown | S::Clean | S::HoldEnded | S::FenceReady
            | S::OperatorFenced
                               => Illegal,
        },
        P::Confirmed => match signal {
            S::StepDone        => Go(P::NooutSet),
            S::StepRefused     => Go(P::GivingUp),
            S::LossEnded       => Go(P::RollingBack),
            S::OperatorAborted => Go(P::RollingBack),
            S::PatienceOver    => Go(P::RollingBack),
            S::HoldBegan       => Go(P::Held),
            S::Retargeted      => Go(P::Confirmed),
            S::StepAgain       => Stay(StepFirst),
            S::LossConfirmed | S::MoveWanted
                               => Stay(Known),
            S::Proven | S::Disproven | S::RightDevice | S::WrongDevice | S::OsdUp | S::OsdDown
            | S::Clean | S::HoldEnded | S::FenceReady | S::OperatorFenced
                               => Illegal,
        },
        P::NooutSet => match signal {
            // The last look before the fence.
            S::LossConfirmed   => Go(P::Fencing),
            S::MoveWanted      => Go(P::Stopping),
            S::LossEnded       => Go(P::RollingBack),
            S::OperatorAborted => Go(P::RollingBack),
            S::PatienceOver    => Go(P::RollingBack),
            S::HoldBegan       => Go(P::Held),
            S::Retargeted      => Go(P::NooutSet),
            S::StepDone | S::StepAgain | S::StepRefused | S::Proven | S::Disproven | S::RightDevice
            | S::WrongDevice | S::OsdUp | S::OsdDown | S::Clean | S::HoldEnded | S::FenceReady
            | S::OperatorFenced
                               => Illegal,
        },
        P::Stopping => match signal {
            S::StepDone        => Go(P::Fencing),
            S::LossConfirmed   => Go(P::Fencing),
            S::StepRefused     => Go(P::RollingBack),
            S::OperatorAborted => Go(P::RollingBack),
            S::PatienceOver    => Go(P::RollingBack),
            S::Retargeted      => Go(P::Stopping),
            S::StepAgain       => Stay(StepFirst),
            S::MoveWanted | S::LossEnded | S::HoldBegan
                               => Stay(Known),
            S::Proven | S::Disproven | S::RightDevice | S::WrongDevice | S::OsdUp | S::OsdDown
            | S::Clean | S::HoldEnded | S::FenceReady | S::OperatorFenced
                               => Illegal,
        },
        P::Fencing => match signal {
            S::StepDone        => Go(P::Proving),
            S::StepRefused     => Go(P::FenceRequired),
            S::PatienceOver    => Go(P::FenceRequired),
            S::OperatorFenced  => Go(P::Fenced),
            S::OperatorAborted => Go(P::RollingBack),
            S::Retargeted      => Go(P::Fencing),
            S::StepAgain       => Stay(StepFirst),
            S::LossConfirmed | S::MoveWanted
                               => Stay(Known),
            S::LossEnded | S::HoldBegan
                               => Stay(FenceFirst),
            S::Proven | S::Disproven | S::RightDevice | S::WrongDevice | S::OsdUp | S::OsdDown
            | S::Clean | S::HoldEnded | S::FenceReady
                               => Illegal,
        },
        P::Proving => match signal {
            S::Proven          => Go(P::Fenced),
            S::Disproven       => Go(P::Fencing),
            S::StepRefused     => Go(P::FenceRequired),
            S::PatienceOver    => Go(P::FenceRequired),
            S::OperatorFenced  => Go(P::Fenced),
            S::OperatorAborted => Go(P::RollingBack),
            S::Retargeted      => Go(P::Proving),
            S::StepAgain       => Stay(StepFirst),
            S::LossConfirmed | S::MoveWanted
                               => Stay(Known),
            S::LossEnded | S::HoldBegan
                               => Stay(FenceFirst),
            S::StepDone | S::RightDevice | S::WrongDevice | S::OsdUp | S::OsdDown | S::Clean
            | S::HoldEnded | S::FenceReady
                               => Illegal,
        },
        P::FenceRequired => match signal {
            S::OperatorFenced  => Go(P::Fenced),
            S::FenceReady      => Go(P::Fencing),
            S::LossEnded       => Go(P::RollingBack),
            S::OperatorAborted => Go(P::RollingBack),
            S::Retargeted      => Go(P::FenceRequired),
            S::LossConfirmed | S::MoveWanted
                               => Stay(Known),
            S::HoldBegan | S::HoldEnded
                               => Stay(Still),
            S::StepDone | S::StepAgain | S::StepRefused | S::PatienceOver | S::Proven | S::Disproven
            | S::RightDevice | S::WrongDevice | S::OsdUp | S::OsdDown | S::Clean
                               => Illegal,
        },
        P::Fenced => match signal {
            S::StepDone        => Go(P::Detached),
            S::StepRefused     => Go(P::GivingUp),
            S::OperatorAborted => Go(P::GivingUp),
            S::PatienceOver    => Go(P::GivingUp),
            // Nobody was admitted yet: the last moment to choose another node.
            S::Retargeted      => Go(P::Fenced),
            S::StepAgain       => Stay(StepFirst),
            S::LossConfirmed | S::MoveWanted | S::OperatorFenced
                               => Stay(Known),
            S::LossEnded | S::HoldBegan
                               => Stay(MustFinish),
            S::Proven | S::Disproven | S::RightDevice | S::WrongDevice | S::OsdUp | S::OsdDown
            | S::Clean | S::HoldEnded | S::FenceReady
                               => Illegal,
        },
        P::Detached => match signal {
            S::StepDone        => Go(P::Connecting),
            S::StepRefused     => Go(P::GivingUp),
            S::OperatorAborted => Go(P::GivingUp),
            S::PatienceOver    => Go(P::GivingUp),
            S::Retargeted      => Go(P::GivingUp),
            S::StepAgain       => Stay(StepFirst),
            S::LossConfirmed | S::MoveWanted | S::OperatorFenced
                               => Stay(Known),
            S::LossEnded | S::HoldBegan
                               => Stay(MustFinish),
            S::Proven | S::Disproven | S::RightDevice | S::WrongDevice | S::OsdUp | S::OsdDown
            | S::Clean | S::HoldEnded | S::FenceReady
                               => Illegal,
        },
        P::Connecting => match signal {
            S::RightDevice     => Go(P::Verified),
            S::WrongDevice     => Go(P::GivingUp),
            S::StepRefused     => Go(P::GivingUp),
            S::OperatorAborted => Go(P::GivingUp),
            S::PatienceOver    => Go(P::GivingUp),
            S::Retargeted      => Go(P::GivingUp),
            S::StepAgain       => Stay(StepFirst),
            S::LossConfirmed | S::MoveWanted | S::OperatorFenced
                               => Stay(Known),
            S::LossEnded | S::HoldBegan
                               => Stay(MustFinish),
            S::StepDone | S::Proven | S::Disproven | S::OsdUp | S::OsdDown | S::Clean | S::HoldEnded
            | S::FenceReady    => Illegal,
        },
        P::Verified => match signal {
            S::StepDone        => Go(P::Placed),
            S::StepRefused     => Go(P::GivingUp),
            S::OperatorAborted => Go(P::GivingUp),
            S::PatienceOver    => Go(P::GivingUp),
            S::Retargeted      => Go(P::GivingUp),
            S::StepAgain       => Stay(StepFirst),
            S::LossConfirmed | S::MoveWanted | S::OperatorFenced
                               => Stay(Known),
            S::LossEnded | S::HoldBegan
                               => Stay(MustFinish),
            S::Proven | S::Disproven | S::RightDevice | S::WrongDevice | S::OsdUp | S::OsdDown
            | S::Clean | S::HoldEnded | S::FenceReady
                               => Illegal,
        },
        P::Placed => match signal {
            S::OsdUp           => Go(P::OsdUp),
            S::OperatorAborted => Go(P::GivingUp),
            S::PatienceOver    => Go(P::GivingUp),
            S::Retargeted      => Go(P::GivingUp),
            S::OsdDown | S::LossConfirmed | S::MoveWanted | S::OperatorFenced
                               => Stay(Known),
            S::LossEnded | S::HoldBegan
                               => Stay(MustFinish),
            S::StepDone | S::StepAgain | S::StepRefused | S::Proven | S::Disproven | S::RightDevice
            | S::WrongDevice | S::Clean | S::HoldEnded | S::FenceReady
                               => Illegal,
        },
        P::OsdUp => match signal {
            S::Clean           => Go(P::Clean),
            S::OsdDown         => Go(P::Placed),
            S::OperatorAborted => Go(P::GivingUp),
            S::PatienceOver    => Go(P::GivingUp),
            S::Retargeted      => Go(P::GivingUp),
            S::OsdUp | S::LossConfirmed | S::MoveWanted | S::OperatorFenced
                               => Stay(Known),
            S::LossEnded | S::HoldBegan
                               => Stay(MustFinish),
            S::StepDone | S::StepAgain | S::StepRefused | S::Proven | S::Disproven | S::RightDevice
            | S::WrongDevice | S::HoldEnded | S::FenceReady
                               => Illegal,
        },
        P::Clean => match signal {
            S::StepDone        => Go(P::Succeeded),
            S::StepAgain | S::StepRefused | S::PatienceOver | S::OperatorAborted | S::OsdDown
            | S::LossEnded | S::HoldBegan | S::Retargeted
                               => Stay(ReleaseFirst),
            S::Clean | S::OsdUp | S::LossConfirmed | S::MoveWanted | S::OperatorFenced
                               => Stay(Known),
            S::Proven | S::Disproven | S::RightDevice | S::WrongDevice | S::HoldEnded | S::FenceReady
                               => Illegal,
        },
        P::Held => match signal {
            S::HoldEnded       => Resume,
            S::LossEnded       => Go(P::RollingBack),
            S::OperatorAborted => Go(P::RollingBack),
            // One reason gives way to another, such as a person's.
            S::HoldBegan       => Go(P::Held),
            S::Retargeted      => Go(P::Held),
            S::LossConfirmed | S::MoveWanted | S::StepDone | S::StepAgain | S::StepRefused
                               => Stay(Still),
            S::PatienceOver | S::Proven | S::Disproven | S::RightDevice | S::WrongDevice | S::OsdUp
            | S::OsdDown | S::Clean | S::FenceReady | S::OperatorFenced
                               => Illegal,
        },
        P::RollingBack => match signal {
            S::StepDone        => Go(P::RolledBack),
            S::StepRefused     => Go(P::GivingUp),
            S::StepAgain | S::PatienceOver | S::OperatorAborted | S::OperatorFenced | S::LossConfirmed
            | S::MoveWanted | S::LossEnded | S::HoldBegan | S::Retargeted | S::OsdUp | S::OsdDown
                               => Stay(ReleaseFirst),
            S::Proven | S::Disproven | S::RightDevice | S::WrongDevice | S::Clean | S::HoldEnded
            | S::FenceReady    => Illegal,
        },
        P::GivingUp => match signal {
            S::StepDone        => Go(P::Failed),
            S::StepAgain | S::StepRefused | S::PatienceOver | S::OperatorAborted | S::OperatorFenced
            | S::LossConfirmed | S::MoveWanted | S::LossEnded | S::HoldBegan | S::Retargeted
            | S::OsdUp | S::OsdDown
                               => Stay(ReleaseFirst),
            S::Proven | S::Disproven | S::RightDevice | S::WrongDevice | S::Clean | S::HoldEnded
            | S::FenceReady    => Illegal,
        },
        P::Succeeded | P::RolledBack | P::Failed => match signal {
            S::LossConfirmed | S::MoveWanted | S::LossEnded | S::StepDone | S::StepAgain
            | S::StepRefused | S::Proven | S::Disproven | S::RightDevice | S::WrongDevice | S::OsdUp
            | S::OsdDown | S::Clean | S::PatienceOver | S::HoldBegan | S::HoldEnded | S::Retargeted
            | S::FenceReady | S::OperatorFenced | S::OperatorAborted
                               => Stay(Over),
        },
    }
}

/// The whole table as text: one block a phase, one line a signal. The golden file.
#[must_use]
pub fn matrix() -> String {
    let mut text = String::from(
        "# What each signal does in each phase of a move. Generated from\n\
         # crates/nvmeof-recoverer/src/plan/relocate/transitions.rs: run the tests with\n\
         # UPDATE_GOLDEN=1 after a deliberate change, and review the difference.\n",
    );
    for phase in PhaseKind::ALL {
        let _ = writeln!(text, "\n{phase}");
        for signal in SignalKind::ALL {
            let cell = match verdict(phase, signal) {
                Verdict::Go(to) => format!("-> {to}"),
                Verdict::Resume => "-> (the phase it was held before)".to_owned(),
                Verdict::Stay(why) => format!("   stays: {why}"),
                Verdict::Illegal => "!! impossible".to_owned(),
            };
            let _ = writeln!(text, "  {:<16}{cell}", signal.to_string());
        }
    }
    text
}

/// The table's moves as a Mermaid state diagram, without those that change only the target.
#[must_use]
pub fn diagram() -> String {
    let mut text = String::from("```mermaid\nstateDiagram-v2\n    direction LR\n");
    for from in PhaseKind::ALL {
        for to in PhaseKind::ALL.into_iter().filter(|to| *to != from) {
            let signals: Vec<String> = SignalKind::ALL
                .into_iter()
                .filter(|signal| verdict(from, *signal) == Verdict::Go(to))
                .map(|signal| signal.to_string())
                .collect();
            if !signals.is_empty() {
                let _ = writeln!(text, "    {from} --> {to}: {}", signals.join(", "));
            }
        }
    }
    text.push_str(
        "    note right of held: goes on with the phase it was held before on HoldEnded\n```\n",
    );
    text
}
