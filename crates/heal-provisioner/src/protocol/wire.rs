//! The documents: one question, one answer, JSON.

use std::collections::BTreeMap;
use std::time::Duration;

use heal_types::{
    Alias, ArrayId, CallKey, Condition, FaultClass, InvalidText, NamespaceId, Nqn,
    ProvisionerFault, Replacement, Replica, ReplicaId, ReplicaState, SectorCount, Target, Volume,
    VolumeId,
};
use serde::{Deserialize, Deserializer, Serialize};

use crate::text::{HumanGrace, HumanPortal};
use crate::{Capabilities, ForwardedEvent, HostInfo, Severity};

/// The form of documents that this version speaks.
pub const PROTOCOL: u32 = 1;

/// A question.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Question {
    /// [`PROTOCOL`].
    pub protocol: u32,
    /// How long the asker waits.
    pub deadline_ms: u64,
    /// The idempotency key, for the calls that have one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<CallKey>,
    /// What is asked.
    #[serde(flatten)]
    pub call: Call,
}

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "verb", rename_all = "snake_case")]
#[allow(missing_docs, reason = "the fields are those of the trait's calls")]
pub enum Call {
    /// What can you do?
    Describe,
    /// This host lives.
    Probe {
        host_nqn: Nqn,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        host_id: Option<String>,
        host_name: String,
        version: String,
        next_within_ms: u64,
        multipath: bool,
    },
    /// Which volume is this array?
    FindVolume {
        array: ArrayId,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        alias: Option<Alias>,
    },
    /// This is what became of a replica.
    Report {
        volume: VolumeId,
        replica: ReplicaId,
        condition: ConditionWord,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        why: Option<String>,
        since_ms: u64,
    },
    /// Give the volume another replica in place of this one.
    RequestReplacement { volume: VolumeId, lost: ReplicaId, why: String },
    /// The host no longer uses this replica.
    ConfirmRemoved { volume: VolumeId, replica: ReplicaId },
    /// Let this host reach the volume.
    Publish { volume: VolumeId },
    /// An event for your log.
    Forward {
        severity: SeverityWord,
        at_ms: u64,
        message: String,
        fields: BTreeMap<String, String>,
    },
    /// Forget everything and stand this stage up. Only a provisioner in its test mode has this
    /// call; in earnest it is `unsupported`.
    Stage {
        array: ArrayId,
        alias: Option<Alias>,
        /// Which of the two the provisioner knows.
        known_by: KnownByWord,
        /// How many replicas the volume has; all good.
        replicas: u16,
        /// How large each is, in bytes.
        size: u64,
        /// How large each spare is, in bytes.
        spares: Vec<u64>,
    },
}

/// How the volume of a stage is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "the words are those of KnownBy")]
pub enum KnownByWord {
    Array,
    Alias,
    Both,
}

impl Call {
    /// The verb, as the document has it.
    #[must_use]
    pub fn verb(&self) -> &'static str {
        match self {
            Self::Describe => "describe",
            Self::Probe { .. } => "probe",
            Self::FindVolume { .. } => "find_volume",
            Self::Report { .. } => "report",
            Self::RequestReplacement { .. } => "request_replacement",
            Self::ConfirmRemoved { .. } => "confirm_removed",
            Self::Publish { .. } => "publish",
            Self::Forward { .. } => "forward",
            Self::Stage { .. } => "stage",
        }
    }

    pub(super) fn probe(host: &HostInfo) -> Self {
        Self::Probe {
            host_nqn: host.nqn.clone(),
            host_id: host.id.clone(),
            host_name: host.name.clone(),
            version: host.version.clone(),
            next_within_ms: millis(host.next_within),
            multipath: host.multipath,
        }
    }

    pub(super) fn forward(event: &ForwardedEvent) -> Self {
        Self::Forward {
            severity: match event.severity {
                Severity::Info => SeverityWord::Info,
                Severity::Warning => SeverityWord::Warning,
                Severity::Fatal => SeverityWord::Fatal,
            },
            at_ms: event.at.0,
            message: event.message.clone(),
            fields: event.fields.clone(),
        }
    }
}

pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// What became of a replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "the words are those of Condition")]
pub enum ConditionWord {
    Missing,
    Synchronizing,
    Available,
    Unusable,
}

impl ConditionWord {
    pub(super) fn of(condition: &Condition) -> (Self, Option<String>) {
        match condition {
            Condition::Missing => (Self::Missing, None),
            Condition::Synchronizing => (Self::Synchronizing, None),
            Condition::Available => (Self::Available, None),
            Condition::Unusable { why } => (Self::Unusable, Some(why.clone())),
        }
    }

    pub(super) fn condition(self, why: Option<String>) -> Condition {
        match self {
            Self::Missing => Condition::Missing,
            Self::Synchronizing => Condition::Synchronizing,
            Self::Available => Condition::Available,
            Self::Unusable => Condition::Unusable { why: why.unwrap_or_default() },
        }
    }
}

/// How much an event matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "the words are those of Severity")]
pub enum SeverityWord {
    Info,
    Warning,
    Fatal,
}

/// An answer: what was asked for, or why not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer<T> {
    /// [`PROTOCOL`].
    pub protocol: u32,
    /// What was asked for.
    #[serde(default = "none", skip_serializing_if = "Option::is_none")]
    pub answer: Option<T>,
    /// Why not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fault: Option<Fault>,
}

fn none<T>() -> Option<T> {
    None
}

/// Why not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the fields are those of ProvisionerFault")]
pub struct Fault {
    pub class: ClassWord,
    #[serde(default)]
    pub detail: String,
}

/// What kind of failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "the words are those of FaultClass")]
pub enum ClassWord {
    Unreachable,
    Unauthorized,
    NotFound,
    Refused,
    Invalid,
    Unsupported,
}

impl From<Fault> for ProvisionerFault {
    fn from(fault: Fault) -> Self {
        let class = match fault.class {
            ClassWord::Unreachable => FaultClass::Unreachable,
            ClassWord::Unauthorized => FaultClass::Unauthorized,
            ClassWord::NotFound => FaultClass::NotFound,
            ClassWord::Refused => FaultClass::Refused,
            ClassWord::Invalid => FaultClass::Invalid,
            ClassWord::Unsupported => FaultClass::Unsupported,
        };
        Self::new(class, fault.detail)
    }
}

impl From<ProvisionerFault> for Fault {
    fn from(fault: ProvisionerFault) -> Self {
        let class = match fault.class {
            FaultClass::Unreachable => ClassWord::Unreachable,
            FaultClass::Unauthorized => ClassWord::Unauthorized,
            FaultClass::NotFound => ClassWord::NotFound,
            FaultClass::Refused => ClassWord::Refused,
            FaultClass::Invalid => ClassWord::Invalid,
            FaultClass::Unsupported => ClassWord::Unsupported,
        };
        Self { class, detail: fault.detail }
    }
}

/// It was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Done {}

/// What a provisioner can do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the fields are those of Capabilities")]
pub struct Described {
    pub name: String,
    #[serde(default)]
    pub replacement: bool,
    #[serde(default)]
    pub publish: bool,
    #[serde(default)]
    pub forward: bool,
}

impl Described {
    pub(super) fn capabilities(&self) -> Capabilities {
        let Self { replacement, publish, forward, .. } = *self;
        Capabilities { replacement, publish, forward }
    }
}

/// The answer to `find_volume`. `null` is the clear word that there is none; a document without
/// `volume` says nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Found {
    /// The volume.
    #[serde(deserialize_with = "present")]
    pub volume: Option<VolumeDocument>,
}

/// A field that may be null and must be there.
fn present<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
) -> Result<Option<T>, D::Error> {
    Option::deserialize(deserializer)
}

/// The answer to `request_replacement`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Replaced {
    /// Here it is.
    Granted(ReplicaDocument),
    /// Being made: ask again after so many milliseconds.
    PendingMs(u64),
}

/// A volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the fields are those of Volume")]
pub struct VolumeDocument {
    pub id: VolumeId,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub array: Option<ArrayId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alias: Option<Alias>,
    pub copies: u16,
    /// `"10m"`, `"never"`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grace: Option<HumanGrace>,
    pub replicas: Vec<ReplicaDocument>,
}

/// A replica.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the fields are those of Replica and Target")]
pub struct ReplicaDocument {
    pub id: ReplicaId,
    pub state: StateWord,
    pub nqn: Nqn,
    /// `"uuid.…"`, `"nguid.…"`, `"eui.…"`, or a bare UUID.
    pub namespace: NamespaceId,
    /// `"tcp://10.0.0.1:4420"`.
    pub portals: Vec<HumanPortal>,
    /// Bytes, a multiple of 512.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
}

/// What a provisioner thinks of a replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "the words are those of ReplicaState")]
pub enum StateWord {
    Available,
    Synchronizing,
    Missing,
    Terminating,
    Bad,
    Unknown,
}

impl TryFrom<ReplicaDocument> for Replica {
    type Error = InvalidText;
    fn try_from(replica: ReplicaDocument) -> Result<Self, InvalidText> {
        let state = match replica.state {
            StateWord::Available => ReplicaState::Available,
            StateWord::Synchronizing => ReplicaState::Synchronizing,
            StateWord::Missing => ReplicaState::Missing,
            StateWord::Terminating => ReplicaState::Terminating,
            StateWord::Bad => ReplicaState::Bad,
            StateWord::Unknown => ReplicaState::Unknown,
        };
        let size = match replica.size {
            Some(bytes) if bytes % 512 != 0 => {
                let why = "it is not a whole number of 512-byte sectors";
                return Err(InvalidText::new("size", &bytes.to_string(), why));
            }
            size => size.map(|bytes| SectorCount(bytes / 512)),
        };
        let portals = replica.portals.into_iter().map(|portal| portal.0).collect();
        let target = Target { nqn: replica.nqn, namespace: replica.namespace, portals, size };
        Ok(Self { id: replica.id, state, target })
    }
}

impl From<Replica> for ReplicaDocument {
    fn from(replica: Replica) -> Self {
        Self {
            id: replica.id,
            state: match replica.state {
                ReplicaState::Available => StateWord::Available,
                ReplicaState::Synchronizing => StateWord::Synchronizing,
                ReplicaState::Missing => StateWord::Missing,
                ReplicaState::Terminating => StateWord::Terminating,
                ReplicaState::Bad => StateWord::Bad,
                ReplicaState::Unknown => StateWord::Unknown,
            },
            nqn: replica.target.nqn,
            namespace: replica.target.namespace,
            portals: replica.target.portals.into_iter().map(HumanPortal).collect(),
            size: replica.target.size.map(SectorCount::bytes),
        }
    }
}

impl TryFrom<VolumeDocument> for Volume {
    type Error = InvalidText;
    fn try_from(volume: VolumeDocument) -> Result<Self, InvalidText> {
        let replicas = volume.replicas.into_iter().map(Replica::try_from);
        Ok(Self {
            id: volume.id,
            array: volume.array,
            alias: volume.alias,
            copies: volume.copies,
            replicas: replicas.collect::<Result<_, _>>()?,
            grace: volume.grace.map(|grace| grace.0),
        })
    }
}

impl From<Volume> for VolumeDocument {
    fn from(volume: Volume) -> Self {
        Self {
            id: volume.id,
            array: volume.array,
            alias: volume.alias,
            copies: volume.copies,
            grace: volume.grace.map(HumanGrace),
            replicas: volume.replicas.into_iter().map(ReplicaDocument::from).collect(),
        }
    }
}

impl TryFrom<Replaced> for Replacement {
    type Error = InvalidText;
    fn try_from(replaced: Replaced) -> Result<Self, InvalidText> {
        match replaced {
            Replaced::Granted(replica) => replica.try_into().map(Self::Granted),
            Replaced::PendingMs(after) => Ok(Self::Pending { after: Duration::from_millis(after) }),
        }
    }
}

impl From<Replacement> for Replaced {
    fn from(replacement: Replacement) -> Self {
        match replacement {
            Replacement::Granted(replica) => Self::Granted(replica.into()),
            Replacement::Pending { after } => Self::PendingMs(millis(after)),
        }
    }
}
