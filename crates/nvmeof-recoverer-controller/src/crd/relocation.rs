//! `OsdRelocation`: one move, as an order that does not change and a status that is the machine.
//!
//! `spec.order` says what is to be moved where, and why; `spec.operator` is where a person may say
//! a word while it goes on. Whoever begins to work on an object copies the order into the status,
//! and from then on only that copy counts: an order that is edited later changes nothing, on any
//! server.
#![allow(unreachable_pub, reason = "`KubeSchema` repeats each type inside a function")]
#![allow(clippy::duplicated_attributes, reason = "columns of one type are no duplicates")]

use heal_types::cluster::{ClusterFsid, Generation, NodeName, OsdFsid, OsdId, Person};
use heal_types::{NamespaceId, Nqn};
use kube::{CustomResource, KubeSchema};
use nvmeof_recoverer::plan::relocate::PhaseKind;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::schema::{self, Stamp};

/// One move of one OSD.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Debug, Clone, PartialEq)]
#[kube(
    group = "nvme-heal.io",
    version = "v1alpha1",
    kind = "OsdRelocation",
    namespaced,
    status = "OsdRelocationStatus",
    shortname = "osdmove",
    category = "nvme-heal",
    derive = "PartialEq",
    doc = "One move of one OSD from a node to another: the order, where it stands, and afterwards the record.",
    printcolumn(name = "OSD", type_ = "integer", json_path = ".spec.order.osd.id"),
    printcolumn(name = "From", type_ = "string", json_path = ".spec.order.from"),
    printcolumn(name = "To", type_ = "string", json_path = ".status.to"),
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "Message", type_ = "string", json_path = ".status.message", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct OsdRelocationSpec {
    /// What is to be done.
    #[x_kube(validation = Rule::new("self == oldSelf").message("an order does not change"))]
    pub order: Order,
    /// What a person has to say.
    #[serde(default)]
    pub operator: Operator,
}

/// What is to be done.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Order {
    /// Which data.
    pub osd: OsdName,
    /// Its subsystem.
    #[schemars(schema_with = "schema::nqn")]
    pub subsystem: Nqn,
    /// Its namespace.
    #[schemars(schema_with = "schema::namespace_id")]
    pub namespace: NamespaceId,
    /// The old node.
    #[schemars(schema_with = "schema::dns_name")]
    pub from: NodeName,
    /// The new node, as it was chosen first.
    #[schemars(schema_with = "schema::dns_name")]
    pub to: NodeName,
    /// Nodes that may have access to the device, and are to be cut.
    #[schemars(schema_with = "schema::dns_names")]
    pub holders: Vec<NodeName>,
    /// Why.
    pub cause: Cause,
    /// The device's fencing token.
    #[schemars(schema_with = "schema::generation")]
    pub generation: Generation,
    /// When it was decided.
    pub began: Stamp,
}

/// Which data: what the device's label has to say.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, Copy, PartialEq, Eq)]
pub struct OsdName {
    /// The cluster.
    #[schemars(schema_with = "schema::uuid")]
    pub cluster: ClusterFsid,
    /// The OSD's number.
    #[schemars(schema_with = "schema::osd_id")]
    pub id: OsdId,
    /// The OSD's own UUID.
    #[schemars(schema_with = "schema::uuid")]
    pub fsid: OsdFsid,
}

/// Why an OSD is moved. Exactly one.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, PartialEq)]
#[serde(rename_all = "camelCase")]
pub enum Cause {
    /// It is lost where it is.
    Lost(Loss),
    /// Somebody wants it elsewhere while it is well.
    Planned {
        /// Who.
        #[schemars(schema_with = "schema::person")]
        by: Person,
    },
}

/// A loss, and who attests it.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, PartialEq)]
pub struct Loss {
    /// The node the OSD was on.
    #[schemars(schema_with = "schema::dns_name")]
    pub node: NodeName,
    /// When it became certain.
    pub at: Stamp,
    /// Who attests it.
    pub witnesses: Witnesses,
}

/// Who attests a loss. Exactly one.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, PartialEq)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Witnesses {
    /// The node's lease is silent, and its OSDs are down.
    LeaseAndMons {
        /// For how long the lease did not change, in milliseconds.
        silent_ms: u64,
        /// The OSDs that are down.
        #[schemars(schema_with = "schema::osd_ids")]
        down: Vec<OsdId>,
    },
    /// The node lives and cannot reach the device, which is down.
    ProbeAndMons {
        /// The OSD.
        #[schemars(schema_with = "schema::osd_id")]
        osd: OsdId,
    },
    /// A person set the out-of-service taint.
    OutOfService {},
}

/// What a person has to say to a move.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, PartialEq, Default)]
pub struct Operator {
    /// End it: as if it had never been, while that is possible.
    #[serde(default)]
    pub abort: bool,
    /// These nodes cannot write any more. Whoever says so without it being so loses the data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fenced: Option<Word>,
}

/// A person's word that nodes cannot write.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, PartialEq)]
pub struct Word {
    /// Who says so.
    #[schemars(schema_with = "schema::person")]
    pub who: Person,
    /// How they know.
    #[schemars(length(max = 200))]
    pub said: String,
    /// Of which nodes.
    #[schemars(schema_with = "schema::dns_names")]
    pub nodes: Vec<NodeName>,
}

/// Where a move stands.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct OsdRelocationStatus {
    /// The order that is carried out, whatever the spec says now.
    pub accepted: Order,
    /// The phase: what is still to be done.
    #[schemars(schema_with = "schema::phase")]
    pub phase: PhaseKind,
    /// The new node.
    #[schemars(schema_with = "schema::dns_name")]
    pub to: NodeName,
    /// When the phase began.
    pub since: Stamp,
    /// How the present step goes.
    #[serde(default)]
    pub tries: Tries,
    /// In a sentence.
    pub message: String,
    /// From `Fenced` on: why nobody can write.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evidence: Option<Evidence>,
    /// In `Held`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held: Option<Held>,
    /// In `FenceRequired`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fence_trouble: Option<FenceTrouble>,
    /// In `RollingBack`: how much there is to undo.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::optional_word")]
    pub undo: Option<String>,
    /// In `GivingUp` and `Failed`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
    /// The generation of the spec that was looked at.
    #[serde(default)]
    pub observed_generation: i64,
    /// `Fenced`, `Complete`.
    #[serde(default)]
    pub conditions: Vec<Condition>,
}

/// How a step goes.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct Tries {
    /// How often it failed.
    #[serde(default)]
    pub failed: u32,
    /// What was said last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub said: Option<String>,
    /// Not again before this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_before: Option<Stamp>,
}

/// Why nobody can write to the device. It is examined again whenever it is read.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, PartialEq)]
pub struct Evidence {
    /// For which fencing token.
    #[schemars(schema_with = "schema::generation")]
    pub generation: Generation,
    /// When it was seen or said.
    pub at: Stamp,
    /// What it rests on.
    pub basis: Basis,
}

/// What evidence rests on. Exactly one.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, PartialEq)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Basis {
    /// The target's own state.
    Target {
        /// The newest token it was told.
        #[schemars(schema_with = "schema::generation")]
        generation: Generation,
        /// Hosts that may connect.
        allowed: Vec<String>,
        /// Whether any host may connect.
        any_host: bool,
        /// Hosts that are connected.
        connected: Vec<String>,
    },
    /// The namespace's reservation.
    Reservation {
        /// The token in the holder's key.
        #[schemars(schema_with = "schema::generation")]
        holder: Generation,
        /// Other keys that are registered.
        others: Vec<u64>,
        /// Whether only the holder may write.
        exclusive: bool,
    },
    /// Machines that are off.
    Power {
        /// Which.
        #[schemars(schema_with = "schema::dns_names")]
        off: Vec<NodeName>,
    },
    /// What a person said.
    Word(Word),
}

/// Deliberately not acting.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, PartialEq)]
pub struct Held {
    /// Why.
    #[schemars(schema_with = "schema::word")]
    pub why: String,
    /// In a storm: how many nodes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nodes: Option<u64>,
    /// What comes when the reason ends.
    #[schemars(schema_with = "schema::word")]
    pub then: String,
}

/// What keeps a fence from doing its work.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, PartialEq)]
pub struct FenceTrouble {
    /// What it said when it refused; nothing if it took too long.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
}

/// Why a move was not finished.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, PartialEq)]
pub struct Failure {
    /// `Refused`, `TooLong`, `TargetLost`, `WrongDevice` or `Aborted`.
    #[schemars(schema_with = "schema::word")]
    pub why: String,
    /// In which phase.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::optional_phase")]
    pub phase: Option<PhaseKind>,
    /// What was said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub said: Option<String>,
    /// What became of the new node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::optional_word")]
    pub target: Option<String>,
    /// What the device holds instead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub found: Option<OsdName>,
}

/// A condition, as Kubernetes' tools wait for it.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// What is said.
    #[serde(rename = "type")]
    #[schemars(length(min = 1, max = 316))]
    pub type_: String,
    /// `True`, `False` or `Unknown`.
    #[schemars(length(min = 4, max = 7))]
    pub status: String,
    /// Since when.
    pub last_transition_time: Stamp,
    /// In one word.
    #[schemars(length(min = 1, max = 1024))]
    pub reason: String,
    /// In a sentence.
    #[schemars(length(max = 32768))]
    pub message: String,
}
