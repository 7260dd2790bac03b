//! What a move asks the world for, as data, and what the world says to it.

use std::collections::BTreeSet;
use std::fmt;

use heal_types::cluster::{Generation, NodeName, OsdId, RelocationId};

use super::phase::{PhaseKind, Undo};
use crate::plan::evidence::{Evidence, Report};
use crate::plan::view::{Device, OsdIdentity};

/// One effect of one move. Whoever receives it refuses it if it has seen a newer generation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    /// The move.
    pub relocation: RelocationId,
    /// Its fencing token.
    pub generation: Generation,
    /// The phase it belongs to: an answer that comes later is nobody's.
    pub phase: PhaseKind,
    /// What to do.
    pub effect: Effect,
}

/// What to do. Each may be done twice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Set `noout` on this OSD, and keep Rook off its Deployment.
    Quiet {
        /// The OSD.
        osd: OsdId,
    },
    /// Stop the OSD where it runs, and wait until its pod is gone. Only while its Deployment
    /// carries the mark of this move: one that arrives late must not undo what ended it.
    Stop {
        /// The OSD.
        osd: OsdId,
    },
    /// Take away everybody's access to the device: first of all that of `holders`.
    Fence {
        /// The device.
        device: Device,
        /// The nodes that may have access: the old one, and those that earlier moves admitted.
        holders: BTreeSet<NodeName>,
    },
    /// Read who can write to the device. Changes nothing.
    Prove {
        /// The device.
        device: Device,
        /// The nodes that may have access.
        holders: BTreeSet<NodeName>,
    },
    /// Mark the OSD down, and remove its pod on the old node without waiting for that node.
    Detach {
        /// The OSD.
        osd: OsdId,
        /// The old node.
        from: NodeName,
        /// Why that is safe.
        evidence: Evidence,
    },
    /// Let `to`, and nobody else, connect to the device.
    Admit {
        /// The device.
        device: Device,
        /// The new node.
        to: NodeName,
        /// Why that is safe.
        evidence: Evidence,
    },
    /// Connect the device on `to`, and read its label.
    Connect {
        /// The device.
        device: Device,
        /// The new node.
        to: NodeName,
        /// Why that is safe.
        evidence: Evidence,
    },
    /// Let the OSD's Deployment run on `to`, remove a pod of it elsewhere, and say so in the
    /// CephCluster. Only while the Deployment carries the mark of this move.
    Place {
        /// The OSD.
        osd: OsdId,
        /// The old node.
        from: NodeName,
        /// The new node.
        to: NodeName,
    },
    /// Take off `noout` and the mark that keeps Rook off, and let its Deployment have a pod again
    /// where it was stopped.
    Release {
        /// The OSD.
        osd: OsdId,
    },
    /// Make everything as it was, as far as `undo` says; then as `Release`.
    Restore {
        /// The OSD.
        osd: OsdId,
        /// The device.
        device: Device,
        /// The old node.
        from: NodeName,
        /// How far.
        undo: Undo,
    },
}

impl Effect {
    /// One word, for Events and metrics.
    #[must_use]
    pub fn verb(&self) -> &'static str {
        match self {
            Self::Quiet { .. } => "quiet",
            Self::Stop { .. } => "stop",
            Self::Fence { .. } => "fence",
            Self::Prove { .. } => "prove",
            Self::Detach { .. } => "detach",
            Self::Admit { .. } => "admit",
            Self::Connect { .. } => "connect",
            Self::Place { .. } => "place",
            Self::Release { .. } => "release",
            Self::Restore { .. } => "restore",
        }
    }
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} (generation {})", self.relocation, self.effect.verb(), self.generation)
    }
}

/// What came of an effect. "Already so" is done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// It is so.
    Done,
    /// Not now, or nobody knows.
    Again(String),
    /// It cannot or must not be done.
    Refused(String),
    /// Who can write.
    Seen(Report),
    /// What the device's label says.
    Label(OsdIdentity),
}
