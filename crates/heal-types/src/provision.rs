//! What is said between the machine and a storage provisioner.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::text::text_newtype;
use crate::{Alias, ArrayId, NamespaceId, Nqn, Portal, ReplicaId, SectorCount, VolumeId};

text_newtype! {
    /// An idempotency key: the same call under the same key has one effect, however often it is
    /// sent, by whichever life of the daemon.
    CallKey, "idempotency key", 128, |c| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '/' | ':')
}

/// A replicated volume as its provisioner knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Volume {
    /// The provisioner's name for it.
    pub id: VolumeId,
    /// The MD array it is on this host, where the provisioner knows it.
    pub array: Option<ArrayId>,
    /// The array's name, where the provisioner knows it.
    pub alias: Option<Alias>,
    /// How many copies the volume is meant to have.
    pub copies: u16,
    /// The replicas, those that are on their way out included.
    pub replicas: Vec<Replica>,
    /// How long to wait for a lost replica, where the vendor says so.
    pub grace: Option<GracePolicy>,
}

/// The largest number of replicas of one volume that is believed.
const MAX_REPLICAS: usize = 64;
/// The largest number of portals of one replica that is believed.
const MAX_PORTALS: usize = 64;

/// Why a volume, as a provisioner described it, contradicts itself. Nothing is concluded from it.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum VolumeError {
    /// No copies, or absurdly many.
    #[error("volume {volume} asks for {copies} copies")]
    Copies {
        /// The volume.
        volume: VolumeId,
        /// What it asks for.
        copies: u16,
    },
    /// More replicas than anyone has.
    #[error("volume {volume} lists {count} replicas")]
    TooManyReplicas {
        /// The volume.
        volume: VolumeId,
        /// How many.
        count: usize,
    },
    /// Two replicas of one name.
    #[error("volume {volume} lists replica {replica} twice")]
    DuplicateReplica {
        /// The volume.
        volume: VolumeId,
        /// The replica.
        replica: ReplicaId,
    },
    /// Two replicas on one namespace: a copy that is none.
    #[error("replicas {first} and {second} of volume {volume} are one namespace, {namespace}")]
    SharedNamespace {
        /// The volume.
        volume: VolumeId,
        /// One replica.
        first: ReplicaId,
        /// The other.
        second: ReplicaId,
        /// Their namespace.
        namespace: NamespaceId,
    },
    /// A replica that cannot be reached anywhere, or in absurdly many places.
    #[error("replica {replica} of volume {volume} has {count} portals")]
    Portals {
        /// The volume.
        volume: VolumeId,
        /// The replica.
        replica: ReplicaId,
        /// How many.
        count: usize,
    },
}

impl Volume {
    /// Checks what a provisioner said for contradictions, before anything is concluded from it.
    ///
    /// # Errors
    /// The first contradiction found.
    pub fn check(&self) -> Result<(), VolumeError> {
        let volume = || self.id.clone();
        if self.copies == 0 || usize::from(self.copies) > MAX_REPLICAS {
            return Err(VolumeError::Copies { volume: volume(), copies: self.copies });
        }
        if self.replicas.len() > MAX_REPLICAS {
            let count = self.replicas.len();
            return Err(VolumeError::TooManyReplicas { volume: volume(), count });
        }
        for (i, replica) in self.replicas.iter().enumerate() {
            let count = replica.target.portals.len();
            // One that is lost may be nowhere; one that is offered must be somewhere.
            let nowhere = count == 0 && replica.state.is_offered();
            if nowhere || count > MAX_PORTALS {
                let replica = replica.id.clone();
                return Err(VolumeError::Portals { volume: volume(), replica, count });
            }
            for earlier in &self.replicas[..i] {
                if earlier.id == replica.id {
                    let replica = replica.id.clone();
                    return Err(VolumeError::DuplicateReplica { volume: volume(), replica });
                }
                if earlier.target.namespace == replica.target.namespace {
                    return Err(VolumeError::SharedNamespace {
                        volume: volume(),
                        first: earlier.id.clone(),
                        second: replica.id.clone(),
                        namespace: replica.target.namespace,
                    });
                }
            }
        }
        Ok(())
    }

    /// The replica of that name.
    #[must_use]
    pub fn replica(&self, id: &ReplicaId) -> Option<&Replica> {
        self.replicas.iter().find(|replica| replica.id == *id)
    }
}

/// One copy of a volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replica {
    /// The provisioner's name for it.
    pub id: ReplicaId,
    /// What the provisioner thinks of it.
    pub state: ReplicaState,
    /// Where it is.
    pub target: Target,
}

/// What a provisioner thinks of a replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum ReplicaState {
    /// Good.
    Available,
    /// Being filled.
    Synchronizing,
    /// Reported lost.
    Missing,
    /// On its way out: still good, but it will be deleted once it is no longer used.
    Terminating,
    /// Known to be bad: its content must not be used again.
    Bad,
    /// The provisioner cannot say.
    Unknown,
}

impl ReplicaState {
    /// Whether the provisioner wants it out: it is bad, or will be deleted.
    #[must_use]
    pub fn is_leaving(self) -> bool {
        match self {
            Self::Terminating | Self::Bad => true,
            Self::Available | Self::Synchronizing | Self::Missing | Self::Unknown => false,
        }
    }

    /// Whether it is offered for use.
    #[must_use]
    pub fn is_offered(self) -> bool {
        match self {
            Self::Available | Self::Synchronizing | Self::Unknown => true,
            Self::Missing | Self::Terminating | Self::Bad => false,
        }
    }
}

/// Where a replica is and how to know that it is the one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    /// The subsystem.
    pub nqn: Nqn,
    /// The namespace in it.
    pub namespace: NamespaceId,
    /// Every way to it.
    pub portals: Vec<Portal>,
    /// Its size, where the provisioner says so.
    pub size: Option<SectorCount>,
}

/// How long to wait for a lost replica before a replacement is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum GracePolicy {
    /// This long.
    After(Duration),
    /// For ever: a person replaces replicas of this volume.
    Never,
}

/// What the host tells of a replica.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Condition {
    /// The host lost it.
    Missing,
    /// It is being filled.
    Synchronizing,
    /// It holds every block.
    Available,
    /// It was offered as a replacement and must not be used.
    Unusable {
        /// Why, as text for people.
        why: String,
    },
}

impl Condition {
    /// One word, for logs and keys.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Synchronizing => "synchronizing",
            Self::Available => "available",
            Self::Unusable { .. } => "unusable",
        }
    }
}

/// How an array's volume is looked up: by array UUID first, then by name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeQuery {
    /// The array.
    pub array: ArrayId,
    /// Its name.
    pub alias: Option<Alias>,
}

/// A call to a provisioner.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ProvisionerCall {
    /// Which volume is this array?
    FindVolume(VolumeQuery),
    /// This is what became of a replica.
    Report {
        /// The volume.
        volume: VolumeId,
        /// The replica.
        replica: ReplicaId,
        /// What became of it.
        condition: Condition,
        /// When, by this host's clock.
        since: crate::WallTime,
        /// Idempotency key.
        key: CallKey,
    },
    /// Give this volume another replica in place of a lost one.
    RequestReplacement {
        /// The volume.
        volume: VolumeId,
        /// The lost replica.
        lost: ReplicaId,
        /// Why, as text for people.
        why: String,
        /// Idempotency key: the same until it is answered.
        key: CallKey,
    },
    /// The host no longer uses this replica in any way; it may be deleted.
    ConfirmRemoved {
        /// The volume.
        volume: VolumeId,
        /// The replica.
        replica: ReplicaId,
        /// Idempotency key.
        key: CallKey,
    },
}

impl ProvisionerCall {
    /// The call's name, for logs.
    #[must_use]
    pub fn verb(&self) -> &'static str {
        match self {
            Self::FindVolume(_) => "find_volume",
            Self::Report { .. } => "report",
            Self::RequestReplacement { .. } => "request_replacement",
            Self::ConfirmRemoved { .. } => "confirm_removed",
        }
    }
}

/// A provisioner's answer, checked for contradictions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ProvisionerAnswer {
    /// The volume, or the clear word that no volume is known for that array.
    Volume(Option<Volume>),
    /// Noted.
    Noted,
    /// About a replacement.
    Replacement(Replacement),
}

/// What became of a request for a replacement.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Replacement {
    /// Here it is.
    Granted(Replica),
    /// Being made: ask again under the same key.
    Pending {
        /// When to ask again.
        after: Duration,
    },
}

/// What kind of failure a call met. The class decides what happens next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum FaultClass {
    /// Nobody answered. Again with backoff; healing that needs no answer goes on.
    Unreachable,
    /// The credentials were not accepted. Reload them once, then alarm.
    Unauthorized,
    /// What the call names does not exist there.
    NotFound,
    /// The provisioner understood and will not do it.
    Refused,
    /// The answer breaks the contract: nothing is concluded from it.
    Invalid,
    /// This backend has no such call.
    Unsupported,
}

impl fmt::Display for FaultClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unreachable => "unreachable",
            Self::Unauthorized => "unauthorized",
            Self::NotFound => "not found",
            Self::Refused => "refused",
            Self::Invalid => "invalid answer",
            Self::Unsupported => "unsupported",
        })
    }
}

/// A call that did not get what it asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Error)]
#[error("{class}: {detail}")]
pub struct ProvisionerFault {
    /// What kind of failure.
    pub class: FaultClass,
    /// What was said, for people. Never a secret.
    pub detail: String,
}

impl ProvisionerFault {
    /// The longest detail that is kept.
    const MAX_DETAIL: usize = 500;

    /// A fault of `class`; `detail` is cut to a length that can be logged.
    #[must_use]
    pub fn new(class: FaultClass, detail: impl fmt::Display) -> Self {
        Self { class, detail: detail.to_string().chars().take(Self::MAX_DETAIL).collect() }
    }
}
