//! The phases of a move: each holds exactly the work still to do, and *is* the object's status.
//!
//! ```text
//!  Pending ─► Confirmed ─► NooutSet ─┬────────────► Fencing ─► Proving ═╪═► Fenced ─► Detached ─► Connecting
//!                │            │      └► Stopping ─►    │          │     ║                              │
//!                └────────────┴──► RollingBack ◄───────┴──────────┘     ║                              ▼
//!                                      │         FenceRequired ═════════╪══► by a person's word     Verified
//!                                      ▼                                ║                              │
//!                                 RolledBack            evidence from here on                          ▼
//!                                                          Failed ◄─ GivingUp ◄─(any)─ Clean ◄ OsdUp ◄ Placed
//! ```
//!
//! Whoever reads an object knows what comes next from its phase alone: that is how a crash, and
//! another leader, go on. So a phase is written before its effect is begun, and an effect that was
//! begun may be begun again.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::plan::detect::HoldWhy;
use crate::plan::evidence::Evidence;
use crate::plan::schedule::OutWhy;
use crate::plan::view::OsdIdentity;

/// Where a move stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Phase {
    /// Asked for. Work: see that its reason is a fact.
    Pending,
    /// Its reason is a fact. Work: keep Ceph from marking the OSD out, and Rook from looking at it.
    Confirmed,
    /// Nothing rebalances. Work: look once more, then fence.
    NooutSet,
    /// A planned move. Work: stop the OSD on its old node.
    Stopping,
    /// Work: take the old node's access away.
    Fencing,
    /// The fence says it is done. Work: see for ourselves.
    Proving,
    /// Nobody can write. Work: mark the OSD down and remove the dead node's pod.
    Fenced {
        /// The proof.
        evidence: Evidence,
    },
    /// Nothing of it is left on the old node. Work: admit the new node at the target.
    Detached {
        /// The proof.
        evidence: Evidence,
    },
    /// The new node may connect, and nobody else. Work: connect, and read the device's label.
    Connecting {
        /// The proof.
        evidence: Evidence,
    },
    /// The device is the right one. Work: let the OSD's pod run there.
    Verified {
        /// The proof.
        evidence: Evidence,
    },
    /// The pod may run. Work: wait for the OSD.
    Placed {
        /// The proof.
        evidence: Evidence,
    },
    /// The OSD is up. Work: wait for its placement groups.
    OsdUp {
        /// The proof.
        evidence: Evidence,
    },
    /// All is clean. Work: take off what was set.
    Clean {
        /// The proof.
        evidence: Evidence,
    },
    /// Done.
    Succeeded {
        /// The proof.
        evidence: Evidence,
    },
    /// Deliberately not acting; nothing was fenced.
    Held {
        /// Why.
        why: HoldWhy,
        /// What comes when the reason ends.
        then: BeforeFence,
    },
    /// No fence did its work: a person has to say that the old node cannot write.
    FenceRequired {
        /// What the fence said.
        why: FenceWhy,
    },
    /// Its reason is gone before anybody was fenced for good. Work: undo.
    RollingBack {
        /// How much there is to undo.
        undo: Undo,
    },
    /// Dropped; everything is as it was.
    RolledBack,
    /// It cannot be finished. Work: take off what was set, so that Ceph heals in its own way.
    GivingUp {
        /// Why.
        why: FailWhy,
    },
    /// Not finished. The old node stays fenced.
    Failed {
        /// Why.
        why: FailWhy,
    },
}

/// The phases in which nothing has been fenced yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "each is the phase of that name")]
pub enum BeforeFence {
    Pending,
    Confirmed,
    NooutSet,
}

/// How much there is to undo. Each includes those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Undo {
    /// `noout`, and the mark that keeps Rook off.
    Marks,
    /// The OSD was stopped.
    Stopped,
    /// The fence was used, or may have been: the old node is to be admitted again.
    Fenced,
}

/// What keeps a fence from doing its work.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum FenceWhy {
    /// It refuses.
    Refused(String),
    /// It has had its time, and nobody knows.
    TooLong,
}

impl fmt::Display for FenceWhy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(said) => write!(f, "the fence refuses: {said}"),
            Self::TooLong => f.write_str("the fence has not done its work in time"),
        }
    }
}

/// Why a move was not finished.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum FailWhy {
    /// A step cannot be done.
    Refused {
        /// In which phase.
        phase: PhaseKind,
        /// What was said.
        said: String,
    },
    /// A step took too long.
    TooLong {
        /// In which phase.
        phase: PhaseKind,
    },
    /// The new node was lost, or cannot take it any more.
    TargetLost(OutWhy),
    /// The device holds something else.
    WrongDevice(Box<OsdIdentity>),
    /// A person ended it.
    Aborted,
}

impl fmt::Display for FailWhy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused { phase, said } => write!(f, "{phase}: refused: {said}"),
            Self::TooLong { phase } => write!(f, "{phase}: took too long"),
            Self::TargetLost(why) => write!(f, "the new node cannot take it any more: {why}"),
            Self::WrongDevice(found) => write!(f, "the device holds {found}"),
            Self::Aborted => f.write_str("ended by an operator"),
        }
    }
}

/// The kinds of phases.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[expect(missing_docs, reason = "each is the phase of that name")]
pub enum PhaseKind {
    Pending,
    Confirmed,
    NooutSet,
    Stopping,
    Fencing,
    Proving,
    FenceRequired,
    Fenced,
    Detached,
    Connecting,
    Verified,
    Placed,
    OsdUp,
    Clean,
    Succeeded,
    Held,
    RollingBack,
    RolledBack,
    GivingUp,
    Failed,
}

impl PhaseKind {
    /// Every kind.
    pub const ALL: [Self; 20] = [
        Self::Pending,
        Self::Confirmed,
        Self::NooutSet,
        Self::Stopping,
        Self::Fencing,
        Self::Proving,
        Self::FenceRequired,
        Self::Fenced,
        Self::Detached,
        Self::Connecting,
        Self::Verified,
        Self::Placed,
        Self::OsdUp,
        Self::Clean,
        Self::Succeeded,
        Self::Held,
        Self::RollingBack,
        Self::RolledBack,
        Self::GivingUp,
        Self::Failed,
    ];

    /// Whether nothing is left to do.
    #[must_use]
    pub fn is_over(self) -> bool {
        match self {
            Self::Succeeded | Self::RolledBack | Self::Failed => true,
            Self::Pending
            | Self::Confirmed
            | Self::NooutSet
            | Self::Stopping
            | Self::Fencing
            | Self::Proving
            | Self::FenceRequired
            | Self::Fenced
            | Self::Detached
            | Self::Connecting
            | Self::Verified
            | Self::Placed
            | Self::OsdUp
            | Self::Clean
            | Self::Held
            | Self::RollingBack
            | Self::GivingUp => false,
        }
    }

    /// The work that is left, in a few words.
    #[must_use]
    pub fn work(self) -> &'static str {
        match self {
            Self::Pending => "waiting for its reason to be certain",
            Self::Confirmed => "setting noout, and keeping Rook off",
            Self::NooutSet => "looking once more before the fence",
            Self::Stopping => "stopping the OSD where it runs",
            Self::Fencing => "taking the device away from the old node",
            Self::Proving => "reading who can still write",
            Self::FenceRequired => "waiting for a person's word",
            Self::Fenced => "marking the OSD down, and removing its old pod",
            Self::Detached => "admitting the new node, and nobody else",
            Self::Connecting => "connecting the device, and reading its label",
            Self::Verified => "letting the OSD run on the new node",
            Self::Placed => "waiting for the OSD to come up",
            Self::OsdUp => "waiting for its placement groups",
            Self::Clean | Self::GivingUp => "taking off what was set",
            Self::Held => "held",
            Self::RollingBack => "putting things back as they were",
            Self::Succeeded => "moved",
            Self::RolledBack => "as it was before",
            Self::Failed => "not finished",
        }
    }

    /// One word, for status, Events and the golden matrix.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Pending => "Pending",
            Self::Confirmed => "Confirmed",
            Self::NooutSet => "NooutSet",
            Self::Stopping => "Stopping",
            Self::Fencing => "Fencing",
            Self::Proving => "Proving",
            Self::FenceRequired => "FenceRequired",
            Self::Fenced => "Fenced",
            Self::Detached => "Detached",
            Self::Connecting => "Connecting",
            Self::Verified => "Verified",
            Self::Placed => "Placed",
            Self::OsdUp => "OsdUp",
            Self::Clean => "Clean",
            Self::Succeeded => "Succeeded",
            Self::Held => "Held",
            Self::RollingBack => "RollingBack",
            Self::RolledBack => "RolledBack",
            Self::GivingUp => "GivingUp",
            Self::Failed => "Failed",
        }
    }
}

impl fmt::Display for PhaseKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

impl BeforeFence {
    /// Every one.
    pub const ALL: [Self; 3] = [Self::Pending, Self::Confirmed, Self::NooutSet];

    /// The phase of that name.
    #[must_use]
    pub fn kind(self) -> PhaseKind {
        match self {
            Self::Pending => PhaseKind::Pending,
            Self::Confirmed => PhaseKind::Confirmed,
            Self::NooutSet => PhaseKind::NooutSet,
        }
    }
}

impl Phase {
    /// Its kind.
    #[must_use]
    pub fn kind(&self) -> PhaseKind {
        match self {
            Self::Pending => PhaseKind::Pending,
            Self::Confirmed => PhaseKind::Confirmed,
            Self::NooutSet => PhaseKind::NooutSet,
            Self::Stopping => PhaseKind::Stopping,
            Self::Fencing => PhaseKind::Fencing,
            Self::Proving => PhaseKind::Proving,
            Self::Fenced { .. } => PhaseKind::Fenced,
            Self::Detached { .. } => PhaseKind::Detached,
            Self::Connecting { .. } => PhaseKind::Connecting,
            Self::Verified { .. } => PhaseKind::Verified,
            Self::Placed { .. } => PhaseKind::Placed,
            Self::OsdUp { .. } => PhaseKind::OsdUp,
            Self::Clean { .. } => PhaseKind::Clean,
            Self::Succeeded { .. } => PhaseKind::Succeeded,
            Self::Held { .. } => PhaseKind::Held,
            Self::FenceRequired { .. } => PhaseKind::FenceRequired,
            Self::RollingBack { .. } => PhaseKind::RollingBack,
            Self::RolledBack => PhaseKind::RolledBack,
            Self::GivingUp { .. } => PhaseKind::GivingUp,
            Self::Failed { .. } => PhaseKind::Failed,
        }
    }

    /// The proof that nobody can write, in the phases that have one.
    #[must_use]
    pub fn evidence(&self) -> Option<&Evidence> {
        match self {
            Self::Fenced { evidence }
            | Self::Detached { evidence }
            | Self::Connecting { evidence }
            | Self::Verified { evidence }
            | Self::Placed { evidence }
            | Self::OsdUp { evidence }
            | Self::Clean { evidence }
            | Self::Succeeded { evidence } => Some(evidence),
            Self::Pending
            | Self::Confirmed
            | Self::NooutSet
            | Self::Stopping
            | Self::Fencing
            | Self::Proving
            | Self::Held { .. }
            | Self::FenceRequired { .. }
            | Self::RollingBack { .. }
            | Self::RolledBack
            | Self::GivingUp { .. }
            | Self::Failed { .. } => None,
        }
    }
}
