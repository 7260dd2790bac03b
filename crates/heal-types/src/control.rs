//! The control socket's protocol: one JSON document on one line in, one out.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::status::{Explanation, HostStatus};

/// The newest protocol version. A daemon answers a request of another version with
/// [`Response::Refused`].
pub const PROTOCOL: u16 = 1;

/// The longest request that is read, bytes.
pub const MAX_REQUEST: usize = 16 * 1024;

/// The longest answer that is written, bytes.
pub const MAX_RESPONSE: usize = 16 * 1024 * 1024;

/// A request, with the version of the protocol it is written in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Envelope {
    /// [`PROTOCOL`].
    pub protocol: u16,
    /// What is asked for.
    pub request: Request,
}

/// What may be asked of the daemon.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// Everything about every array.
    Status,
    /// Why one array is (not) being healed.
    Explain {
        /// Kernel name, `/dev` path, array name or UUID.
        array: String,
    },
    /// Do nothing to an array until told otherwise. Needs to be root.
    Hold {
        /// Kernel name, `/dev` path, array name or UUID.
        array: String,
        /// Why: shown in status and in the audit trail.
        reason: String,
        /// End by itself after this long.
        duration: Option<Duration>,
    },
    /// End a hold, and look again at what was refused. Needs to be root.
    Resume {
        /// Kernel name, `/dev` path, array name or UUID.
        array: String,
    },
    /// Look at the host now, and ask the provisioner again about what is not known to be ours.
    /// Whoever attaches or detaches volumes says this; it is the one request that everybody on the
    /// host may make.
    Look {
        /// Kernel name, `/dev` path, array name or UUID of the one array that it is about.
        array: Option<String>,
    },
}

/// The daemon's answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Response {
    /// To `Status`.
    Status(Box<HostStatus>),
    /// To `Explain`.
    Explanation(Box<Explanation>),
    /// It was done; the text says what.
    Done(String),
    /// It was not done; the text says why.
    Refused(String),
}
