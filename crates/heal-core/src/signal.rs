//! What an event means for one repair.
//!
//! Events come from outside and say little: "look again", "call 17 came back". The machine reads
//! the snapshot and turns each event into signals, one repair at a time. The transition table
//! speaks of signals only, so it can be read without knowing how the kernel shows anything.

use std::fmt;

use heal_types::{DeviceIdentity, Replica, SyncProgress};

use crate::why::{DoubtWhy, HeldWhy, QuarantinedWhy, RejectedWhy};

/// What happened, as one repair sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Signal {
    /// MD counts the slot's leg in sync, but its path or device says otherwise.
    LegDoubtful(DoubtWhy),
    /// MD gave the slot's leg up, or the slot is empty.
    LegFailed,
    /// The slot has a good leg: in sync, with a usable path.
    LegInSync,
    /// MD fills the slot's leg.
    LegRecovering(Option<SyncProgress>),
    /// The lost leg's own namespace is back and may be taken back.
    LegReturned(DeviceIdentity),
    /// The namespace worked with is gone again, or may no longer be used.
    LegLeft,
    /// The incoming replica's namespace is there, found by id.
    NamespaceFound(DeviceIdentity),
    /// The provisioner wants the replica in this slot out.
    ReplicaTerminating,
    /// The leg in this slot has blocks that MD must not read.
    BadBlocks,
    /// The volume is meant to have more copies, and here is one.
    MoreCopies(Box<Replica>),
    /// The volume is meant to have fewer copies than there are slots.
    FewerCopies,
    /// The volume names another replica for this slot.
    ReplicaReplaced(Box<Replica>),
    /// The volume no longer names the incoming replica.
    ReplicaWithdrawn,
    /// The provisioner gave a replacement.
    Granted(Box<Replica>),
    /// The provisioner will not give one.
    Refused(String),
    /// The record with this repair's intent is durable.
    Durable,
    /// The phase's deadline has passed.
    DeadlinePassed,
    /// The step under way is done.
    StepDone,
    /// The step under way did not happen, or nobody knows; it will be tried again.
    StepAgain,
    /// The step under way cannot be done.
    StepRefused {
        /// The step.
        verb: String,
        /// What was said.
        detail: String,
    },
    /// The offered replica must not be used.
    Rejected(RejectedWhy),
    /// Nothing is left to put away.
    Settled,
    /// The repair has lost its reason.
    NoLongerNeeded,
    /// A reason not to act appeared.
    HoldBegan(HeldWhy),
    /// The reason not to act is gone.
    HoldEnded,
    /// The array is stopped.
    ArrayGone,
    /// The facts contradict each other.
    Contradiction(QuarantinedWhy),
}

/// The kinds of signals.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "each is the signal of that name")]
pub enum SignalKind {
    LegDoubtful,
    LegFailed,
    LegInSync,
    LegRecovering,
    LegReturned,
    LegLeft,
    NamespaceFound,
    ReplicaTerminating,
    BadBlocks,
    MoreCopies,
    FewerCopies,
    ReplicaReplaced,
    ReplicaWithdrawn,
    Granted,
    Refused,
    Durable,
    DeadlinePassed,
    StepDone,
    StepAgain,
    StepRefused,
    Rejected,
    Settled,
    NoLongerNeeded,
    HoldBegan,
    HoldEnded,
    ArrayGone,
    Contradiction,
}

impl SignalKind {
    /// Every kind.
    pub const ALL: [Self; 27] = [
        Self::LegDoubtful,
        Self::LegFailed,
        Self::LegInSync,
        Self::LegRecovering,
        Self::LegReturned,
        Self::LegLeft,
        Self::NamespaceFound,
        Self::ReplicaTerminating,
        Self::BadBlocks,
        Self::MoreCopies,
        Self::FewerCopies,
        Self::ReplicaReplaced,
        Self::ReplicaWithdrawn,
        Self::Granted,
        Self::Refused,
        Self::Durable,
        Self::DeadlinePassed,
        Self::StepDone,
        Self::StepAgain,
        Self::StepRefused,
        Self::Rejected,
        Self::Settled,
        Self::NoLongerNeeded,
        Self::HoldBegan,
        Self::HoldEnded,
        Self::ArrayGone,
        Self::Contradiction,
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
            Self::LegDoubtful(_) => SignalKind::LegDoubtful,
            Self::LegFailed => SignalKind::LegFailed,
            Self::LegInSync => SignalKind::LegInSync,
            Self::LegRecovering(_) => SignalKind::LegRecovering,
            Self::LegReturned(_) => SignalKind::LegReturned,
            Self::LegLeft => SignalKind::LegLeft,
            Self::NamespaceFound(_) => SignalKind::NamespaceFound,
            Self::ReplicaTerminating => SignalKind::ReplicaTerminating,
            Self::BadBlocks => SignalKind::BadBlocks,
            Self::MoreCopies(_) => SignalKind::MoreCopies,
            Self::FewerCopies => SignalKind::FewerCopies,
            Self::ReplicaReplaced(_) => SignalKind::ReplicaReplaced,
            Self::ReplicaWithdrawn => SignalKind::ReplicaWithdrawn,
            Self::Granted(_) => SignalKind::Granted,
            Self::Refused(_) => SignalKind::Refused,
            Self::Durable => SignalKind::Durable,
            Self::DeadlinePassed => SignalKind::DeadlinePassed,
            Self::StepDone => SignalKind::StepDone,
            Self::StepAgain => SignalKind::StepAgain,
            Self::StepRefused { .. } => SignalKind::StepRefused,
            Self::Rejected(_) => SignalKind::Rejected,
            Self::Settled => SignalKind::Settled,
            Self::NoLongerNeeded => SignalKind::NoLongerNeeded,
            Self::HoldBegan(_) => SignalKind::HoldBegan,
            Self::HoldEnded => SignalKind::HoldEnded,
            Self::ArrayGone => SignalKind::ArrayGone,
            Self::Contradiction(_) => SignalKind::Contradiction,
        }
    }
}
