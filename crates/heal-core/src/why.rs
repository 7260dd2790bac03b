//! Why: the reasons a repair has, as types. They stand in the record, in the audit and in status.

use std::fmt;

use serde::{Deserialize, Serialize};

use heal_types::{ArrayState, PathDoubt, ReplicaId, Slot};

/// What began a repair.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Cause {
    /// The leg failed, or is in doubt.
    LegLost,
    /// The provisioner wants the replica out.
    ReplicaTerminating,
    /// The leg has blocks that MD must not read, and another one has them all.
    BadBlocks,
    /// The volume is meant to have more copies.
    MoreCopies,
    /// The volume is meant to have fewer copies.
    FewerCopies,
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::LegLost => "leg lost",
            Self::ReplicaTerminating => "replica terminating",
            Self::BadBlocks => "bad blocks",
            Self::MoreCopies => "more copies wanted",
            Self::FewerCopies => "fewer copies wanted",
        })
    }
}

impl Cause {
    /// Whether the slot is without its leg, or about to be.
    pub(crate) fn is_loss(self) -> bool {
        match self {
            Self::LegLost => true,
            Self::ReplicaTerminating | Self::BadBlocks | Self::MoreCopies | Self::FewerCopies => {
                false
            }
        }
    }

    /// Whether the slot's leg has to go and stays in its slot until its successor is complete.
    pub(crate) fn moves_leg(self) -> bool {
        match self {
            Self::ReplicaTerminating | Self::BadBlocks => true,
            Self::LegLost | Self::MoreCopies | Self::FewerCopies => false,
        }
    }

    /// Whether the slot is without a leg, so that whoever fills it ends the repair.
    pub(crate) fn fills_empty_slot(self) -> bool {
        match self {
            Self::LegLost | Self::MoreCopies => true,
            Self::ReplicaTerminating | Self::BadBlocks | Self::FewerCopies => false,
        }
    }
}

/// What raises doubt about a leg that MD still counts in sync.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum DoubtWhy {
    /// Its block device is gone.
    DeviceGone,
    /// No path to it is usable, and it is not certain yet that nothing gets through.
    PathSuspect(PathDoubt),
    /// Nothing gets through to it, on any path.
    PathDead(PathDoubt),
}

impl fmt::Display for DoubtWhy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::DeviceGone => f.write_str("its device is gone"),
            Self::PathSuspect(why) => write!(f, "its path is suspect: {why}"),
            Self::PathDead(why) => write!(f, "no path to it works: {why}"),
        }
    }
}

/// Why a repair is deliberately not going on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum HeldWhy {
    /// A person said so.
    Operator {
        /// Their reason.
        reason: String,
    },
    /// The mode is `observe`: it only says what it would do.
    Observing,
    /// No provisioner is configured to ask for a replacement.
    NoProvisioner,
    /// Another repair of this array goes first.
    OneAtATime {
        /// The other one's slot.
        slot: Slot,
    },
    /// Other arrays of this host go first.
    Budget,
    /// The array's state allows no change.
    ArrayState(ArrayState),
    /// Another tool changes the array, or its shape is half changed.
    ArrayBusy,
    /// A guard does not hold.
    Guard {
        /// Which, with the numbers.
        detail: String,
    },
    /// The provisioner will not give another replica.
    Refused {
        /// What it said.
        detail: String,
    },
    /// The offered replica must not be used.
    Rejected {
        /// Which.
        replica: ReplicaId,
        /// Why.
        why: RejectedWhy,
    },
    /// A step on the host was refused or failed too often.
    StepFailed {
        /// The step.
        verb: String,
        /// What was said.
        detail: String,
    },
    /// Too much of the host is in doubt at once: it is the host that is cut off, not the leg.
    HostCutOff {
        /// What is in doubt.
        detail: String,
    },
    /// The leg comes and goes: it stays out until it has been up for a while.
    Flapping {
        /// How long it must be up, seconds.
        seconds: u64,
    },
    /// What is to be done could not be written down.
    NotDurable {
        /// Why.
        detail: String,
    },
}

impl fmt::Display for HeldWhy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Operator { reason } => write!(f, "held by an operator: {reason}"),
            Self::Observing => f.write_str("mode is observe"),
            Self::NoProvisioner => f.write_str("no provisioner is configured"),
            Self::OneAtATime { slot } => write!(f, "slot {slot} of this array goes first"),
            Self::Budget => f.write_str("other arrays of this host go first"),
            Self::ArrayState(state) => write!(f, "the array is {state}"),
            Self::ArrayBusy => f.write_str("another tool changes the array"),
            Self::Guard { detail } => write!(f, "{detail}"),
            Self::Refused { detail } => {
                write!(f, "the provisioner refuses a replacement: {detail}")
            }
            Self::Rejected { replica, why } => write!(
                f,
                "replica {replica} is rejected: {why}; waits until the provisioner offers another \
                 one or an operator resumes"
            ),
            Self::StepFailed { verb, detail } => write!(f, "{verb} failed: {detail}"),
            Self::HostCutOff { detail } => write!(f, "the host is cut off: {detail}"),
            Self::Flapping { seconds } => {
                write!(f, "the leg comes and goes: taken back once it was up for {seconds} s")
            }
            Self::NotDurable { detail } => write!(f, "cannot write the ledger: {detail}"),
        }
    }
}

/// Why an offered replica must not become a leg. Nothing was written to it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum RejectedWhy {
    /// The promised namespace id did not show up behind the target.
    NamespaceNotFound {
        /// The id that was promised.
        promised: String,
        /// The ids that the target shows instead.
        found: String,
    },
    /// It is smaller than the legs must be.
    TooSmall {
        /// Its size, sectors.
        has: u64,
        /// What a leg needs, sectors.
        needs: u64,
    },
    /// Its logical blocks are larger than the array's.
    BlockSize {
        /// Its logical block size, bytes.
        has: u32,
        /// The array's, bytes.
        array: u32,
    },
    /// It refuses writes.
    ReadOnly,
    /// Another device is stacked on it, or it has partitions.
    InUse {
        /// What uses it.
        detail: String,
    },
    /// It carries something that is not ours.
    ForeignContent {
        /// What.
        detail: String,
    },
    /// It belongs to another MD array.
    OtherArray {
        /// Which.
        array: String,
    },
    /// The grant itself contradicts what is known.
    BadGrant {
        /// How.
        detail: String,
    },
}

impl fmt::Display for RejectedWhy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NamespaceNotFound { promised, found } => {
                write!(
                    f,
                    "the promised namespace {promised} is not there; the target shows {found}"
                )
            }
            Self::TooSmall { has, needs } => {
                write!(f, "too small: {has} sectors, a leg needs {needs}")
            }
            Self::BlockSize { has, array } => {
                write!(f, "logical blocks of {has} bytes do not fit an array of {array}")
            }
            Self::ReadOnly => f.write_str("it is read-only"),
            Self::InUse { detail } => write!(f, "it is in use: {detail}"),
            Self::ForeignContent { detail } => write!(f, "foreign content: {detail}"),
            Self::OtherArray { array } => write!(f, "it is a leg of another MD array, {array}"),
            Self::BadGrant { detail } => write!(f, "the offer contradicts itself: {detail}"),
        }
    }
}

/// A contradiction. Nothing is done to the array until a person has looked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum QuarantinedWhy {
    /// Two legs of the array claim to be one namespace or one member.
    DuplicateLeg {
        /// Both.
        detail: String,
    },
    /// The machine met an input that its table calls impossible.
    Impossible {
        /// Phase and signal.
        detail: String,
    },
    /// The durable record of this array cannot be read.
    UnreadableRecord {
        /// Why.
        detail: String,
    },
    /// A device carries a newer copy of this array than the array itself.
    NewerCopy {
        /// Both event counts.
        detail: String,
    },
}

impl fmt::Display for QuarantinedWhy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::DuplicateLeg { detail } => write!(f, "two legs claim to be one: {detail}"),
            Self::Impossible { detail } => write!(f, "impossible input: {detail}"),
            Self::UnreadableRecord { detail } => write!(f, "its record is unreadable: {detail}"),
            Self::NewerCopy { detail } => write!(f, "a device has a newer copy: {detail}"),
        }
    }
}
