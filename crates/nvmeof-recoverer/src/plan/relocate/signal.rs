//! What happened, as one move sees it. The transition table speaks of these only.

use std::fmt;

use heal_types::cluster::NodeName;

use crate::plan::detect::HoldWhy;
use crate::plan::evidence::{Evidence, Loss, StillOpen};
use crate::plan::schedule::OutWhy;
use crate::plan::view::OsdIdentity;

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Signal {
    /// The loss is certain, on a fresh view.
    LossConfirmed(Loss),
    /// A planned move may go on: Ceph can spare the OSD.
    MoveWanted,
    /// The old node, or its OSD, is known to be well again.
    LossEnded,
    /// The phase's step is done.
    StepDone,
    /// The step did not happen, or nobody knows; it is tried again.
    StepAgain(String),
    /// The step cannot be done.
    StepRefused(String),
    /// Nobody can write to the device.
    Proven(Evidence),
    /// Somebody still can.
    Disproven(StillOpen),
    /// The device that appeared holds the OSD that is meant.
    RightDevice,
    /// It holds something else.
    WrongDevice(Box<OsdIdentity>),
    /// The OSD is up on the new node.
    OsdUp,
    /// It is down.
    OsdDown,
    /// Every placement group is active and clean.
    Clean,
    /// The phase took longer than it may.
    PatienceOver,
    /// A reason not to act appeared.
    HoldBegan(HoldWhy),
    /// It is gone.
    HoldEnded,
    /// The chosen node cannot take it any more; another one can.
    Retargeted {
        /// The other one.
        to: NodeName,
        /// Why not the chosen one.
        why: OutWhy,
    },
    /// The fence that was missing answers.
    FenceReady,
    /// A person says that the old node cannot write.
    OperatorFenced(Evidence),
    /// A person wants the move ended.
    OperatorAborted,
}

/// The kinds of signals.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "each is the signal of that name")]
pub enum SignalKind {
    LossConfirmed,
    MoveWanted,
    LossEnded,
    StepDone,
    StepAgain,
    StepRefused,
    Proven,
    Disproven,
    RightDevice,
    WrongDevice,
    OsdUp,
    OsdDown,
    Clean,
    PatienceOver,
    HoldBegan,
    HoldEnded,
    Retargeted,
    FenceReady,
    OperatorFenced,
    OperatorAborted,
}

impl SignalKind {
    /// Every kind.
    pub const ALL: [Self; 20] = [
        Self::LossConfirmed,
        Self::MoveWanted,
        Self::LossEnded,
        Self::StepDone,
        Self::StepAgain,
        Self::StepRefused,
        Self::Proven,
        Self::Disproven,
        Self::RightDevice,
        Self::WrongDevice,
        Self::OsdUp,
        Self::OsdDown,
        Self::Clean,
        Self::PatienceOver,
        Self::HoldBegan,
        Self::HoldEnded,
        Self::Retargeted,
        Self::FenceReady,
        Self::OperatorFenced,
        Self::OperatorAborted,
    ];
}

impl fmt::Display for SignalKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

impl Signal {
    /// Its kind.
    #[must_use]
    pub fn kind(&self) -> SignalKind {
        match self {
            Self::LossConfirmed(_) => SignalKind::LossConfirmed,
            Self::MoveWanted => SignalKind::MoveWanted,
            Self::LossEnded => SignalKind::LossEnded,
            Self::StepDone => SignalKind::StepDone,
            Self::StepAgain(_) => SignalKind::StepAgain,
            Self::StepRefused(_) => SignalKind::StepRefused,
            Self::Proven(_) => SignalKind::Proven,
            Self::Disproven(_) => SignalKind::Disproven,
            Self::RightDevice => SignalKind::RightDevice,
            Self::WrongDevice(_) => SignalKind::WrongDevice,
            Self::OsdUp => SignalKind::OsdUp,
            Self::OsdDown => SignalKind::OsdDown,
            Self::Clean => SignalKind::Clean,
            Self::PatienceOver => SignalKind::PatienceOver,
            Self::HoldBegan(_) => SignalKind::HoldBegan,
            Self::HoldEnded => SignalKind::HoldEnded,
            Self::Retargeted { .. } => SignalKind::Retargeted,
            Self::FenceReady => SignalKind::FenceReady,
            Self::OperatorFenced(_) => SignalKind::OperatorFenced,
            Self::OperatorAborted => SignalKind::OperatorAborted,
        }
    }
}
