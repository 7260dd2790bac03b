//! What became of an act.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::UnknownWhy;

/// What became of an act, as the kernel shows it afterwards. "Already so" is success.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// It was done, and reading back shows it.
    Changed,
    /// It was so before.
    AlreadySo,
    /// Not now; `after` says when to try again.
    Retry {
        /// How long to wait.
        after: Duration,
        /// What stands in the way.
        why: RetryWhy,
    },
    /// It must not or cannot be done.
    Refused(RefusedWhy),
    /// Nobody can say whether it was done: look again before anything else.
    Unknown(UnknownWhy),
}

impl Outcome {
    /// Whether what was wanted is now so.
    #[must_use]
    pub fn is_so(&self) -> bool {
        match self {
            Self::Changed | Self::AlreadySo => true,
            Self::Retry { .. } | Self::Refused(_) | Self::Unknown(_) => false,
        }
    }
}

/// Why an act is worth another try.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum RetryWhy {
    /// The kernel said "busy" (a leg with I/O still pending, an array being changed).
    Busy,
    /// The child did not end within its deadline.
    TimedOut,
    /// A child of an earlier act still hangs in the kernel on this device.
    Stuck,
    /// The target could not be reached on any portal.
    Unreachable {
        /// What the tool said, shortened.
        detail: String,
    },
    /// The tool failed and reading back shows no change.
    ToolFailed {
        /// The tool's exit code, if it ended by itself.
        exit: Option<i32>,
        /// What it said, shortened.
        detail: String,
    },
    /// Another tool holds the lock around attach and detach.
    LockTaken,
    /// Whether a leg may be taken back is known to one that cannot be read just now. However often
    /// that is the answer, it is none.
    Undecided,
}

/// Why an act was refused. The device or array is untouched.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum RefusedWhy {
    /// The device at that name is not the one that was meant.
    NotThatDevice {
        /// What differs.
        detail: String,
    },
    /// The array at that name is not the one that was meant, or is gone.
    NotThatArray,
    /// The device is not a member, or not in the state that the act needs.
    NotInThatState {
        /// What was found.
        detail: String,
    },
    /// The device has a newer copy of the array than the array itself: adding it would lose that.
    NewerCopy {
        /// Both event counts.
        detail: String,
    },
    /// MD refuses to take the leg back by bitmap.
    ReAddNotPossible {
        /// What `mdadm` said, shortened.
        detail: String,
    },
    /// A guard does not hold on the fresh snapshot taken right before the act.
    Guard {
        /// The guard and the numbers, as text.
        detail: String,
    },
    /// A value or tool that the act needs is missing on this host.
    NotPossibleHere {
        /// What is missing.
        detail: String,
    },
    /// No durable record of the intent exists, so the act must not happen.
    NoDurableIntent,
}

impl fmt::Display for RetryWhy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Busy => f.write_str("busy"),
            Self::TimedOut => f.write_str("it did not end in time"),
            Self::Stuck => f.write_str("an earlier act still hangs in the kernel"),
            Self::Unreachable { detail } => write!(f, "target not reachable: {detail}"),
            Self::ToolFailed { exit: Some(exit), detail } => {
                write!(f, "the tool failed with exit code {exit}: {detail}")
            }
            Self::ToolFailed { exit: None, detail } => write!(f, "the tool was killed: {detail}"),
            Self::LockTaken => f.write_str("another tool holds the attach lock"),
            Self::Undecided => f.write_str("who could tell its history cannot be read now"),
        }
    }
}

impl fmt::Display for RefusedWhy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotThatDevice { detail } => write!(f, "not the device that was meant: {detail}"),
            Self::NotThatArray => f.write_str("not the array that was meant"),
            Self::NotInThatState { detail } => write!(f, "not in the needed state: {detail}"),
            Self::NewerCopy { detail } => write!(f, "the device has a newer copy: {detail}"),
            Self::ReAddNotPossible { detail } => {
                write!(f, "MD does not take the leg back by bitmap: {detail}")
            }
            Self::Guard { detail } => write!(f, "guard: {detail}"),
            Self::NotPossibleHere { detail } => write!(f, "not possible on this host: {detail}"),
            Self::NoDurableIntent => f.write_str("no durable record of the intent"),
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Changed => f.write_str("done"),
            Self::AlreadySo => f.write_str("already so"),
            Self::Retry { after, why } => write!(f, "again in {after:?}: {why}"),
            Self::Refused(why) => write!(f, "refused: {why}"),
            Self::Unknown(why) => write!(f, "unknown: {why}"),
        }
    }
}
