//! The transition table: what each signal does in each phase. Nothing else moves a repair.
//!
//! ```text
//!   (phase, signal) ──► Go(phase)     the repair moves there
//!                       Resume        the repair goes on with the step it was held before
//!                       Stay(why)     the signal is real and changes nothing here
//!                       Illegal       the signal contradicts the phase: the array is quarantined
//! ```
//!
//! The table has no `_` arm: a new phase or signal does not compile until somebody has decided
//! every cell. Its print-out is the golden file `tests/scenarios/transition-matrix.txt`, so every
//! change of behaviour shows in review, and the state diagram in the project's documentation is
//! generated from it. The machine looks every move up here and refuses to end up anywhere else.

use std::fmt;
use std::fmt::Write as _;

use crate::phase::PhaseKind;
use crate::signal::SignalKind;

/// What a signal does in a phase.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The repair moves.
    Go(PhaseKind),
    /// The repair goes on with the step it remembers.
    Resume,
    /// The repair stays.
    Stay(StayWhy),
    /// The signal cannot happen here unless something is badly wrong.
    Illegal,
}

/// Why a signal changes nothing in a phase.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum StayWhy {
    /// It is the standing condition of this phase.
    Known,
    /// The record comes first; the signal is seen again right after.
    RecordFirst,
    /// The step under way decides.
    StepFirst,
    /// The next step of this phase follows.
    NextStep,
    /// MD has it in hand.
    MdGoesOn,
    /// A replacement is under way already.
    ReplacementUnderWay,
    /// Nothing is done while it is held or quarantined.
    Still,
    /// There is nothing to repair.
    Nothing,
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
    use StayWhy::{Known, MdGoesOn, NextStep, Nothing, RecordFirst, ReplacementUnderWay, StepFirst, Still};
    use Verdict::{Go, Illegal, Resume, Stay};
    match phase {
        P::Whole => match signal {
            S::LegDoubtful        => Go(P::Suspect),
            S::LegFailed          => Go(P::Reporting),
            S::LegRecovering      => Go(P::Rebuilding),
            S::ReplicaTerminating | S::BadBlocks
                                  => Go(P::Grace),
            S::MoreCopies         => Go(P::Connecting),
            S::FewerCopies        => Go(P::Retiring),
            S::LegInSync | S::ArrayGone | S::HoldBegan | S::HoldEnded | S::Contradiction
                                  => Stay(Nothing),
            S::LegReturned | S::LegLeft | S::NamespaceFound | S::ReplicaReplaced | S::ReplicaWithdrawn
            | S::Granted | S::Refused | S::Durable | S::DeadlinePassed | S::StepDone | S::StepAgain
            | S::StepRefused | S::Rejected | S::Settled | S::NoLongerNeeded
                                  => Illegal,
        },
        P::Suspect => match signal {
            S::LegInSync          => Go(P::Whole),
            S::LegFailed          => Go(P::Reporting),
            S::LegRecovering      => Go(P::Rebuilding),
            S::DeadlinePassed     => Go(P::Isolating),
            S::HoldBegan          => Go(P::Held),
            S::ArrayGone          => Go(P::Whole),
            S::Contradiction      => Go(P::Quarantined),
            S::LegDoubtful        => Stay(Known),
            S::ReplicaTerminating | S::BadBlocks | S::FewerCopies | S::ReplicaReplaced
                                  => Stay(StepFirst),
            S::LegReturned | S::LegLeft | S::NamespaceFound | S::MoreCopies | S::ReplicaWithdrawn
            | S::Granted | S::Refused | S::Durable | S::StepDone | S::StepAgain | S::StepRefused
            | S::Rejected | S::Settled | S::NoLongerNeeded | S::HoldEnded
                                  => Illegal,
        },
        P::Isolating => match signal {
            S::LegInSync          => Go(P::Whole),
            S::LegFailed          => Go(P::Reporting),
            S::LegRecovering      => Go(P::Rebuilding),
            S::StepRefused        => Go(P::Held),
            S::HoldBegan          => Go(P::Held),
            S::ArrayGone          => Go(P::Whole),
            S::Contradiction      => Go(P::Quarantined),
            S::LegDoubtful        => Stay(Known),
            S::StepDone           => Stay(MdGoesOn),
            S::StepAgain | S::ReplicaTerminating | S::BadBlocks | S::FewerCopies | S::ReplicaReplaced
                                  => Stay(StepFirst),
            S::LegReturned | S::LegLeft | S::NamespaceFound | S::MoreCopies | S::ReplicaWithdrawn
            | S::Granted | S::Refused | S::Durable | S::DeadlinePassed | S::Rejected | S::Settled
            | S::NoLongerNeeded | S::HoldEnded
                                  => Illegal,
        },
        P::Reporting => match signal {
            S::Durable            => Go(P::Grace),
            S::ArrayGone          => Go(P::Whole),
            S::Contradiction      => Go(P::Quarantined),
            S::HoldBegan          => Go(P::Held),
            S::LegFailed          => Stay(Known),
            S::LegInSync | S::LegRecovering | S::LegReturned | S::LegLeft | S::LegDoubtful
            | S::ReplicaReplaced | S::ReplicaTerminating | S::BadBlocks | S::FewerCopies
                                  => Stay(RecordFirst),
            S::NamespaceFound | S::MoreCopies | S::ReplicaWithdrawn | S::Granted | S::Refused
            | S::DeadlinePassed | S::StepDone | S::StepAgain | S::StepRefused | S::Rejected
            | S::Settled | S::NoLongerNeeded | S::HoldEnded
                                  => Illegal,
        },
        P::Grace => match signal {
            S::LegReturned        => Go(P::Returning),
            S::ReplicaReplaced    => Go(P::Connecting),
            S::DeadlinePassed     => Go(P::Requesting),
            S::LegRecovering      => Go(P::Rebuilding),
            S::LegInSync          => Go(P::Retiring),
            S::NoLongerNeeded     => Go(P::Whole),
            S::HoldBegan          => Go(P::Held),
            S::ArrayGone          => Go(P::Whole),
            S::Contradiction      => Go(P::Quarantined),
            // A leg that its provisioner wants out fails meanwhile: now it is a loss to report.
            S::LegFailed          => Go(P::Reporting),
            // One that has to go and still serves is freed of I/O like any other.
            S::LegDoubtful        => Go(P::Suspect),
            S::LegLeft | S::ReplicaTerminating | S::BadBlocks | S::FewerCopies
                                  => Stay(Known),
            S::NamespaceFound | S::MoreCopies | S::ReplicaWithdrawn | S::Granted | S::Refused
            | S::Durable | S::StepDone | S::StepAgain | S::StepRefused | S::Rejected | S::Settled
            | S::HoldEnded        => Illegal,
        },
        P::Returning => match signal {
            S::LegRecovering      => Go(P::Rebuilding),
            S::LegInSync          => Go(P::Retiring),
            S::LegLeft            => Go(P::Grace),
            S::StepRefused        => Go(P::Grace),
            S::HoldBegan          => Go(P::Held),
            S::ArrayGone          => Go(P::Whole),
            S::Contradiction      => Go(P::Quarantined),
            S::StepDone           => Stay(NextStep),
            S::StepAgain          => Stay(StepFirst),
            S::LegFailed | S::LegReturned | S::LegDoubtful
                                  => Stay(Known),
            S::ReplicaReplaced | S::ReplicaTerminating | S::BadBlocks | S::FewerCopies
                                  => Stay(StepFirst),
            S::NamespaceFound | S::MoreCopies | S::ReplicaWithdrawn | S::Granted | S::Refused
            | S::Durable | S::DeadlinePassed | S::Rejected | S::Settled | S::NoLongerNeeded
            | S::HoldEnded        => Illegal,
        },
        P::Requesting => match signal {
            S::Granted            => Go(P::Connecting),
            S::ReplicaReplaced    => Go(P::Connecting),
            S::LegReturned        => Go(P::Returning),
            S::LegRecovering      => Go(P::Rebuilding),
            S::LegInSync          => Go(P::Retiring),
            S::Refused            => Go(P::Held),
            S::Rejected           => Go(P::Held),
            S::NoLongerNeeded     => Go(P::Whole),
            S::HoldBegan          => Go(P::Held),
            S::ArrayGone          => Go(P::Whole),
            S::Contradiction      => Go(P::Quarantined),
            // See Grace: a terminating leg fails while its replacement is asked for.
            S::LegFailed          => Go(P::Reporting),
            S::LegDoubtful        => Go(P::Suspect),
            S::StepAgain          => Stay(StepFirst),
            S::LegLeft | S::ReplicaTerminating | S::BadBlocks | S::FewerCopies
                                  => Stay(Known),
            S::NamespaceFound | S::MoreCopies | S::ReplicaWithdrawn | S::Durable
            | S::DeadlinePassed | S::StepDone | S::StepRefused | S::Settled | S::HoldEnded
                                  => Illegal,
        },
        P::Connecting => match signal {
            S::NamespaceFound     => Go(P::Verifying),
            S::LegRecovering      => Go(P::Rebuilding),
            S::LegInSync          => Go(P::Retiring),
            S::ReplicaWithdrawn   => Go(P::Requesting),
            S::Rejected           => Go(P::Held),
            S::StepRefused        => Go(P::Held),
            S::NoLongerNeeded     => Go(P::Whole),
            S::HoldBegan          => Go(P::Held),
            S::ArrayGone          => Go(P::Whole),
            S::Contradiction      => Go(P::Quarantined),
            S::StepDone           => Stay(NextStep),
            S::StepAgain          => Stay(StepFirst),
            S::LegFailed | S::LegLeft | S::LegDoubtful | S::ReplicaTerminating | S::BadBlocks
            | S::MoreCopies | S::FewerCopies
                                  => Stay(Known),
            S::LegReturned | S::ReplicaReplaced
                                  => Stay(ReplacementUnderWay),
            S::Granted | S::Refused | S::Durable | S::DeadlinePassed | S::Settled | S::HoldEnded
                                  => Illegal,
        },
        P::Verifying => match signal {
            S::StepDone           => Go(P::Adding),
            S::Rejected           => Go(P::Held),
            S::LegLeft            => Go(P::Connecting),
            S::StepRefused        => Go(P::Held),
            S::LegRecovering      => Go(P::Rebuilding),
            S::LegInSync          => Go(P::Retiring),
            S::ReplicaWithdrawn   => Go(P::Requesting),
            S::NoLongerNeeded     => Go(P::Whole),
            S::HoldBegan          => Go(P::Held),
            S::ArrayGone          => Go(P::Whole),
            S::Contradiction      => Go(P::Quarantined),
            S::StepAgain          => Stay(StepFirst),
            S::NamespaceFound | S::LegFailed | S::LegDoubtful | S::ReplicaTerminating | S::BadBlocks
            | S::MoreCopies | S::FewerCopies
                                  => Stay(Known),
            S::LegReturned | S::ReplicaReplaced
                                  => Stay(ReplacementUnderWay),
            S::Granted | S::Refused | S::Durable | S::DeadlinePassed | S::Settled | S::HoldEnded
                                  => Illegal,
        },
        P::Adding => match signal {
            S::LegRecovering      => Go(P::Rebuilding),
            S::LegInSync          => Go(P::Retiring),
            S::LegFailed          => Go(P::Reporting),
            S::LegLeft            => Go(P::Connecting),
            S::Rejected           => Go(P::Held),
            S::StepRefused        => Go(P::Held),
            S::HoldBegan          => Go(P::Held),
            S::ArrayGone          => Go(P::Whole),
            S::Contradiction      => Go(P::Quarantined),
            S::StepDone           => Stay(NextStep),
            S::StepAgain          => Stay(StepFirst),
            S::NamespaceFound | S::LegDoubtful | S::ReplicaTerminating | S::BadBlocks | S::MoreCopies
            | S::FewerCopies | S::ReplicaWithdrawn | S::NoLongerNeeded
                                  => Stay(Known),
            S::LegReturned | S::ReplicaReplaced
                                  => Stay(ReplacementUnderWay),
            S::Granted | S::Refused | S::Durable | S::DeadlinePassed | S::Settled | S::HoldEnded
                                  => Illegal,
        },
        P::Rebuilding => match signal {
            S::LegInSync          => Go(P::Retiring),
            S::LegFailed          => Go(P::Reporting),
            S::ArrayGone          => Go(P::Whole),
            S::Contradiction      => Go(P::Quarantined),
            S::LegRecovering      => Stay(Known),
            S::LegDoubtful | S::LegLeft | S::ReplicaTerminating | S::BadBlocks | S::FewerCopies
            | S::MoreCopies | S::ReplicaWithdrawn | S::NoLongerNeeded | S::HoldBegan
                                  => Stay(MdGoesOn),
            S::LegReturned | S::ReplicaReplaced
                                  => Stay(ReplacementUnderWay),
            S::NamespaceFound | S::Granted | S::Refused | S::Durable | S::DeadlinePassed
            | S::StepDone | S::StepAgain | S::StepRefused | S::Rejected | S::Settled | S::HoldEnded
                                  => Illegal,
        },
        P::Retiring => match signal {
            S::Settled            => Go(P::Whole),
            S::LegFailed          => Go(P::Reporting),
            S::LegRecovering      => Go(P::Rebuilding),
            S::HoldBegan          => Go(P::Held),
            S::NoLongerNeeded     => Go(P::Whole),
            S::ArrayGone          => Go(P::Whole),
            S::Contradiction      => Go(P::Quarantined),
            S::StepDone | S::StepRefused
                                  => Stay(NextStep),
            S::StepAgain          => Stay(StepFirst),
            S::LegInSync | S::LegDoubtful | S::LegLeft | S::ReplicaTerminating | S::BadBlocks
            | S::MoreCopies | S::FewerCopies
                                  => Stay(Known),
            S::LegReturned | S::ReplicaReplaced | S::ReplicaWithdrawn
                                  => Stay(ReplacementUnderWay),
            S::NamespaceFound | S::Granted | S::Refused | S::Durable | S::DeadlinePassed
            | S::Rejected | S::HoldEnded
                                  => Illegal,
        },
        P::Held => match signal {
            S::HoldEnded          => Resume,
            S::LegReturned        => Go(P::Returning),
            S::LegRecovering      => Go(P::Rebuilding),
            S::LegInSync          => Go(P::Retiring),
            S::LegFailed          => Go(P::Reporting),
            S::ReplicaReplaced    => Go(P::Connecting),
            S::ReplicaWithdrawn   => Go(P::Requesting),
            S::NoLongerNeeded     => Go(P::Whole),
            S::ArrayGone          => Go(P::Whole),
            S::Contradiction      => Go(P::Quarantined),
            // One reason gives way to another, such as an operator's.
            S::HoldBegan          => Go(P::Held),
            S::LegDoubtful        => Go(P::Suspect),
            S::LegLeft | S::NamespaceFound | S::ReplicaTerminating | S::BadBlocks
            | S::MoreCopies | S::FewerCopies | S::DeadlinePassed
                                  => Stay(Still),
            S::StepDone | S::StepAgain | S::StepRefused
                                  => Stay(Still),
            S::Granted | S::Refused | S::Durable | S::Rejected | S::Settled
                                  => Illegal,
        },
        P::Quarantined => match signal {
            S::HoldEnded          => Resume,
            S::ArrayGone          => Go(P::Whole),
            S::LegDoubtful | S::LegFailed | S::LegInSync | S::LegRecovering | S::LegReturned
            | S::LegLeft | S::NamespaceFound | S::ReplicaTerminating | S::BadBlocks | S::MoreCopies
            | S::FewerCopies | S::ReplicaReplaced | S::ReplicaWithdrawn | S::Granted | S::Refused
            | S::Durable | S::DeadlinePassed | S::StepDone | S::StepAgain | S::StepRefused
            | S::Rejected | S::Settled | S::NoLongerNeeded | S::HoldBegan | S::Contradiction
                                  => Stay(Still),
        },
    }
}

/// The whole table as text: one block a phase, one line a signal. The golden file.
#[must_use]
pub fn matrix() -> String {
    let mut text = String::from(
        "# What each signal does in each phase. Generated from crates/heal-core/src/transitions.rs:\n\
         # run the tests with UPDATE_GOLDEN=1 after a deliberate change, and review the difference.\n",
    );
    for phase in PhaseKind::ALL {
        let _ = writeln!(text, "\n{phase}");
        for signal in SignalKind::ALL {
            let cell = match verdict(phase, signal) {
                Verdict::Go(to) => format!("-> {to}"),
                Verdict::Resume => "-> (the step it was held before)".to_owned(),
                Verdict::Stay(why) => format!("   stays: {why}"),
                Verdict::Illegal => "!! impossible".to_owned(),
            };
            let _ = writeln!(text, "  {:<19}{cell}", signal.to_string());
        }
    }
    text
}

/// The table's moves as a Mermaid state diagram. Moves that every phase has (array gone,
/// contradiction, hold) are said in its note instead of drawn fourteen times.
#[must_use]
pub fn diagram() -> String {
    let mut text = String::from("```mermaid\nstateDiagram-v2\n    direction LR\n");
    for from in PhaseKind::ALL {
        for to in PhaseKind::ALL {
            let signals: Vec<String> = SignalKind::ALL
                .into_iter()
                .filter(|signal| {
                    !matches!(
                        signal,
                        SignalKind::ArrayGone | SignalKind::Contradiction | SignalKind::HoldBegan
                    )
                })
                .filter(|signal| verdict(from, *signal) == Verdict::Go(to))
                .map(|signal| signal.to_string())
                .collect();
            if !signals.is_empty() {
                let _ = writeln!(text, "    {from} --> {to}: {}", signals.join(", "));
            }
        }
    }
    text.push_str(
        "    note right of held: any phase but rebuilding comes here on HoldBegan\\nand goes on \
         with its step on HoldEnded\n    note right of quarantined: any phase comes here on \
         Contradiction\\nArrayGone ends every repair\n```\n",
    );
    text
}
