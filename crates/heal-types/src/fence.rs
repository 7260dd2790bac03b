//! What a fence is asked, and what it answers: one JSON document each way, whatever carries it.
//!
//! ```text
//!   close    nobody may use the device any more, and nobody who does may go on ── a claim
//!   report   who can write to it ─────────────────────────────────────────────── what counts
//!   admit    this host, and no other
//!   health   whether all that could be done now; names no device
//! ```
//!
//! A program reads the document from its input, a daemon from the body of a request. Every question
//! about a device carries its fencing token: who has seen a newer one refuses, for ever.
//!
//! The price: a fence that knows more than this cannot say it.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::cluster::{Generation, NodeName};
use crate::{NamespaceId, Nqn};

/// The version of these documents.
pub const VERSION: u32 = 1;

/// A node, as the fabric knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Host {
    /// Its name in Kubernetes.
    pub node: NodeName,
    /// Its name on the fabric; none for a node that the target does not list any more.
    pub host_nqn: Option<Nqn>,
}

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the head of this module says what each is")]
pub enum Verb {
    Health,
    Close,
    Report,
    Admit,
}

/// A question.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Question {
    /// [`VERSION`].
    pub version: u32,
    /// What is to be done.
    pub verb: Verb,
    /// The device's subsystem.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subsystem: Option<Nqn>,
    /// The device's namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<NamespaceId>,
    /// The device's fencing token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<Generation>,
    /// The nodes that may have access.
    #[serde(default)]
    pub holders: Vec<Host>,
    /// Whom to admit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub admit: Option<Host>,
}

impl Question {
    /// Whether it can be used now.
    #[must_use]
    pub fn health() -> Self {
        Self {
            version: VERSION,
            verb: Verb::Health,
            subsystem: None,
            namespace: None,
            generation: None,
            holders: Vec::new(),
            admit: None,
        }
    }
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Told {
    /// It is so.
    Done {},
    /// Not now, or nobody knows.
    Again(String),
    /// It cannot or must not be done.
    Refused(String),
    /// To `report`: the target's own state.
    Target {
        /// The newest generation it was told.
        generation: Generation,
        /// Hosts that may connect.
        allowed: Vec<String>,
        /// Whether any host may.
        any_host: bool,
        /// Hosts that can write: with a controller, or a session that is not taken apart yet.
        connected: Vec<String>,
    },
    /// To `report`: the namespace's reservation.
    Reservation {
        /// The generation in the holder's key.
        holder: Generation,
        /// Other keys that are registered.
        others: Vec<u64>,
        /// Whether only the holder may write.
        exclusive: bool,
    },
    /// To `report`: machines that were switched off.
    Power {
        /// Machines that are off.
        off: BTreeSet<NodeName>,
    },
}
