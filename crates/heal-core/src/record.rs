//! What survives a crash: our intents, never our observations.
//!
//! The kernel and the provisioner are the truth about arrays and volumes. The record holds only
//! what neither of them can tell a fresh daemon: which incident this is, what we owe the
//! provisioner, until when we wait, under which key we asked, which effects were begun and not
//! ended.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use heal_types::{
    ArrayId, BootId, CallKey, Condition, ConnectParams, ControllerName, Deadline, DevT, DeviceName,
    MdDeviceId, NamespaceId, Nqn, Replica, ReplicaId, Slot, Volume, VolumeId, WallTime,
};

use crate::flaps::Count;
use crate::ids::{EffectId, IncidentId};
use crate::why::{Cause, HeldWhy, QuarantinedWhy, RejectedWhy};

/// Version of this record's form.
pub const SCHEMA: u16 = 1;

/// Everything durable about one array.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ArrayRecord {
    /// [`SCHEMA`].
    pub schema: u16,
    /// Counts up with every change; the newest valid one wins.
    pub generation: u64,
    /// The array.
    pub array: ArrayId,
    /// The boot in which it was last seen, and in which `connected` is so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boot: Option<BootId>,
    /// Number of the next effect.
    pub next_effect: u64,
    /// The open incident.
    pub incident: Option<Incident>,
    /// The provisioner's last word on the volume. Not an intent, but the one observation that no
    /// one can repeat while the provisioner is down.
    pub volume: Option<Volume>,
    /// No record was there before, and what the array runs from was not held against the
    /// provisioner's book yet.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unwitnessed: bool,
    /// Who held which slot when it was last good.
    pub members: Vec<(Slot, Member)>,
    /// Repairs under way.
    pub repairs: Vec<RepairRecord>,
    /// What the provisioner has not taken yet, oldest first.
    pub owed: Vec<Owed>,
    /// Effects begun and not ended.
    pub intents: Vec<Intent>,
    /// Subsystems that we connected, with the controllers they were seen to have since.
    pub connected: BTreeMap<Nqn, BTreeSet<ControllerName>>,
    /// Controllers that we deleted, or the kernel gave up, and that have to be connected again.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lapsed: Vec<Lapsed>,
    /// How often legs were lost lately.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub flaps: Vec<(NamespaceId, Count)>,
    /// A person's hold.
    pub hold: Option<OperatorHold>,
    /// A contradiction that a person has to look at.
    pub quarantine: Option<QuarantinedWhy>,
}

/// A controller that we deleted because I/O was stuck behind it, or that the kernel gave up
/// (`ctrl_loss_tmo`): the kernel forgot it, we must not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lapsed {
    /// How it was connected.
    pub params: ConnectParams,
    /// Since when it is gone.
    pub since: WallTime,
}

/// From the first symptom to whole again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Incident {
    /// Its id.
    pub id: IncidentId,
    /// When it began.
    pub began: WallTime,
}

/// Who was, or is, in a slot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// The name it was bound under, if it was ever seen bound.
    pub device: Option<DeviceName>,
    /// Its device number then, for udev's guard.
    pub dev: Option<DevT>,
    /// Its MD device UUID, if it was read.
    pub md_device: Option<MdDeviceId>,
    /// The namespace it stood on.
    pub namespace: Option<NamespaceId>,
    /// The subsystem of that namespace.
    pub nqn: Option<Nqn>,
    /// The replica it was.
    pub replica: Option<ReplicaId>,
}

/// One repair, as far as it must survive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RepairRecord {
    /// The slot.
    pub slot: Slot,
    /// What began it.
    pub cause: Cause,
    /// When it began, wall clock.
    pub began: WallTime,
    /// Who was lost.
    pub lost: Option<Member>,
    /// The replica that takes the place.
    pub incoming: Option<Replica>,
    /// Replacements that failed on the way and have to be retired as well.
    pub also_retire: Vec<Member>,
    /// The loss of another slot that is asked to be replaced instead of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asks_for: Option<Member>,
    /// Until when the lost replica may come back before another one is asked for.
    pub grace: Option<Deadline>,
    /// No earlier than this the lost replica may be taken back.
    pub return_after: Option<Deadline>,
    /// The key of a request that was not answered: the next request is the same one.
    pub request: Option<CallKey>,
    /// Replicas that were offered for this slot and must not be used, and why.
    pub rejected: Vec<(ReplicaId, RejectedWhy)>,
    /// The name that the incoming replica is bound under, once MD fills it.
    pub bound: Option<DeviceName>,
    /// What is still to do.
    pub step: Step,
}

/// What is still to do, in a form that a fresh daemon can take up. `restart.rs` says what each
/// phase becomes and what each step resumes as.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Step {
    /// Look again: the leg was in doubt.
    Doubt,
    /// Make the loss known.
    Report,
    /// Wait for the leg or the provisioner.
    Grace,
    /// Ask for a replacement under this key.
    Request {
        /// The key: the same until it is answered.
        key: CallKey,
    },
    /// Bring the incoming replica in, from wherever that stands.
    Connect,
    /// See the rebuild through.
    Rebuild,
    /// Put away what is no longer a leg.
    Retire,
    /// Deliberately nothing, for this reason, and then the inner step.
    Hold {
        /// Why.
        why: HeldWhy,
        /// What comes when the reason ends.
        then: Box<Step>,
    },
}

/// Something the provisioner must be told, however long that takes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owed {
    /// Idempotency key.
    pub key: CallKey,
    /// The volume.
    pub volume: VolumeId,
    /// The replica.
    pub replica: ReplicaId,
    /// What is to be said.
    pub message: OwedMessage,
    /// Since when it is so.
    pub since: WallTime,
}

/// What is to be said of a replica.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum OwedMessage {
    /// What became of it.
    Report(Condition),
    /// It is no longer used here in any way.
    Removed,
}

impl OwedMessage {
    /// Whether `earlier`, which was not told yet, is not so any more when this is.
    pub(crate) fn belies(&self, earlier: &Self) -> bool {
        let good = match earlier {
            Self::Report(Condition::Available | Condition::Synchronizing) => true,
            Self::Report(Condition::Missing | Condition::Unusable { .. }) | Self::Removed => false,
        };
        good && match self {
            Self::Report(Condition::Available | Condition::Synchronizing) => false,
            Self::Report(Condition::Missing | Condition::Unusable { .. }) | Self::Removed => true,
        }
    }

    /// One word, for keys and to tell one kind of news from another.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::Report(condition) => condition.word(),
            Self::Removed => "removed",
        }
    }
}

/// An effect that was begun.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Intent {
    /// Which.
    pub id: EffectId,
    /// Its verb.
    pub verb: String,
    /// The repair it serves.
    pub slot: Option<Slot>,
    /// The subsystem it disconnects, if that is what it does.
    pub disconnects: Option<Nqn>,
    /// The subsystem it connects, if that is what it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connects: Option<Nqn>,
    /// Whether nobody was seen to have connected that subsystem, by a namespace or a controller: if
    /// its end is never heard of, what is connected is ours all the same.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub first: bool,
    /// When it was begun.
    pub at: WallTime,
}

/// A person's hold on an array.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OperatorHold {
    /// Why.
    pub reason: String,
    /// Who.
    pub by: String,
    /// Since when.
    pub since: WallTime,
    /// Until when, if it ends by itself.
    pub until: Option<WallTime>,
}
