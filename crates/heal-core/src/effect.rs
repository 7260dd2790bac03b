//! Everything a machine can want: data, not calls.

use serde::{Deserialize, Serialize};

use heal_types::{HostAction, ProvisionerCall};

use crate::guards::Footing;
use crate::ids::EffectId;
use crate::record::ArrayRecord;
use crate::telling::Telling;

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
    /// What was decided and why, without its words yet.
    pub audit: Vec<Telling>,
    /// What is to be done.
    pub effects: Vec<Effect>,
}
