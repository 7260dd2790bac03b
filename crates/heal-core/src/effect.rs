//! Everything a machine can want: data, not calls.

use std::fmt;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use heal_types::{HostAction, ProvisionerCall};

use crate::audit::AuditEntry;
use crate::guards::Footing;
use crate::record::ArrayRecord;

/// One incident: from the first symptom of an array to whole again, kept across restarts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct IncidentId(pub Uuid);

impl fmt::Display for IncidentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One effect: the incident it belongs to and a number that is never used twice in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct EffectId {
    /// The incident, or the nil UUID for questions asked while an array is whole.
    pub incident: IncidentId,
    /// Counted up by the array's record, so a restart does not repeat one.
    pub number: u64,
}

impl fmt::Display for EffectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.incident, self.number)
    }
}

/// What a machine wants done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Effect {
    /// Do this to the host. Before the act the executor takes a fresh look and asks
    /// [`Footing::permits`] again.
    Act {
        /// Its id.
        id: EffectId,
        /// What.
        action: HostAction,
        /// What the decision stood on.
        footing: Box<Footing>,
    },
    /// Say this to the provisioner.
    Call {
        /// Its id.
        id: EffectId,
        /// What.
        call: ProvisionerCall,
    },
    /// Ask the host's budget for leave to replace a leg.
    AskPermit,
    /// The leave is no longer needed.
    ReturnPermit,
    /// Look at the array again soon: something was not filled in yet.
    LookAgain,
}

/// What one event led to. The shell makes the record durable first, then writes the audit entries,
/// then carries the effects out, in this order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Outbox {
    /// The record, if it changed.
    pub record: Option<ArrayRecord>,
    /// What was decided and why.
    pub audit: Vec<AuditEntry>,
    /// What is to be done.
    pub effects: Vec<Effect>,
}
