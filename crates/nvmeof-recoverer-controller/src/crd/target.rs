//! `FabricTarget`: what exports the devices, and what fails together.
#![allow(unreachable_pub, reason = "`KubeSchema` repeats each type inside a function")]
#![allow(clippy::duplicated_attributes, reason = "columns of one type are no duplicates")]

use heal_types::cluster::{DomainName, NodeName, OsdId};
use heal_types::{NamespaceId, Nqn};
use kube::{CustomResource, KubeSchema};
use nvmeof_recoverer::plan::Policy;
use nvmeof_recoverer::plan::schedule::Proposed;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::relocation::Condition;
use super::schema::{self, Stamp};

/// A storage server on the fabric: its devices, who may use them, and who takes them away.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Debug, Clone, PartialEq)]
#[kube(
    group = "nvme-heal.io",
    version = "v1alpha1",
    kind = "FabricTarget",
    namespaced,
    status = "FabricTargetStatus",
    shortname = "ft",
    category = "nvme-heal",
    derive = "PartialEq",
    doc = "A storage server on the fabric: its devices, who may use them, and who takes them away.",
    printcolumn(name = "Devices", type_ = "integer", json_path = ".status.devices"),
    printcolumn(name = "Fence", type_ = "string", json_path = ".status.fence"),
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].status"
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct FabricTargetSpec {
    /// The cluster whose OSDs lie on it.
    pub ceph_cluster: CephClusterRef,
    /// The CRUSH bucket that stands for it. Default: `fabric-NAME`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::crush_name")]
    pub crush_host: Option<DomainName>,
    /// How it is reached.
    #[serde(default)]
    pub transport: Transport,
    /// Where it is reached.
    #[schemars(length(min = 1, max = 16))]
    pub portals: Vec<Portal>,
    /// Its devices: one subsystem for each OSD.
    #[schemars(length(max = 4096))]
    pub devices: Vec<TargetDevice>,
    /// Nodes that may use its devices.
    #[schemars(length(max = 4096))]
    pub nodes: Vec<AttachableNode>,
    /// Who takes a device away from a node; without one, a person's word is asked for each move.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fence: Option<Fence>,
}

/// A CephCluster of Rook's, in the namespace of the `FabricTarget`.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
pub struct CephClusterRef {
    /// Its name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

/// A fabric.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, Copy, PartialEq, Eq, Default)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// NVMe/TCP.
    #[default]
    Tcp,
    /// NVMe over RDMA.
    Rdma,
}

impl Transport {
    /// As nvme-cli calls it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Rdma => "rdma",
        }
    }
}

/// An address of the target.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
pub struct Portal {
    /// An IP address.
    #[schemars(length(min = 2, max = 45))]
    pub address: std::net::IpAddr,
    /// Its port.
    #[serde(default = "default_port")]
    #[schemars(range(min = 1))]
    pub port: u16,
}

fn default_port() -> u16 {
    4420
}

/// A device: a subsystem with one namespace.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct TargetDevice {
    /// Its subsystem.
    #[schemars(schema_with = "schema::nqn")]
    pub subsystem: Nqn,
    /// Its namespace, by an id that stays: `uuid.…`, `nguid.…` or `eui.…`.
    #[schemars(schema_with = "schema::namespace_id")]
    pub namespace: NamespaceId,
    /// The OSD on it, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::optional_osd_id")]
    pub osd: Option<OsdId>,
}

/// A node that may use the target's devices.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct AttachableNode {
    /// Its name in Kubernetes.
    #[schemars(schema_with = "schema::dns_name")]
    pub name: NodeName,
    /// Its name on the fabric: no other node has it.
    #[schemars(schema_with = "schema::nqn")]
    pub host_nqn: Nqn,
    /// Its host id.
    #[schemars(schema_with = "schema::uuid")]
    pub host_id: String,
}

/// Who takes a device away from a node. Exactly one.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub enum Fence {
    /// A person, with their word: nothing moves by itself.
    Manual {},
    /// A program beside the controller.
    Exec(Exec),
    /// `nvmet-fenced` on the target's own host.
    Nvmet(Nvmet),
    /// The namespaces themselves, by NVMe reservations.
    Reservation(Reservation),
    /// SPDK's own JSON-RPC, behind TLS.
    Spdk(Spdk),
}

/// A fence that is a program in the controller's own folder of fences.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
pub struct Exec {
    /// Its name in that folder.
    #[schemars(length(min = 1, max = 64), regex(pattern = "^[a-z0-9][a-z0-9-]*$"))]
    pub program: String,
}

/// A fence on the target's own host.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
pub struct Nvmet {
    /// The host, by the name or address that its certificate says.
    #[schemars(length(min = 1, max = 253), regex(pattern = "^[A-Za-z0-9.:-]+$"))]
    pub host: String,
    /// Where it listens.
    #[serde(default = "fence_port")]
    #[schemars(range(min = 1))]
    pub port: u16,
}

fn fence_port() -> u16 {
    4421
}

/// As whom namespaces are reserved to keep everybody out: a host that is no node, and that each of
/// the target's subsystems admits.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Reservation {
    /// Its name on the fabric.
    #[schemars(schema_with = "schema::nqn")]
    pub host_nqn: Nqn,
    /// Its host id, for ever: what is reserved belongs to it.
    #[schemars(schema_with = "schema::uuid")]
    pub host_id: String,
    /// A reservation that ends when the target loses power, or takes the namespace out of service,
    /// is a fence here (Linux targets have no other): such a target admits no node again before a
    /// person has looked.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub until_power_loss: bool,
}

/// The JSON-RPC of an SPDK target, behind something on the target's host that speaks TLS and knows
/// us by our certificate.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
pub struct Spdk {
    /// The host, by the name or address that its certificate says.
    #[schemars(length(min = 1, max = 253), regex(pattern = "^[A-Za-z0-9.:-]+$"))]
    pub host: String,
    /// Where it listens.
    #[serde(default = "rpc_port")]
    #[schemars(range(min = 1))]
    pub port: u16,
}

fn rpc_port() -> u16 {
    4422
}

/// What is known of a target.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct FabricTargetStatus {
    /// The spec this speaks of.
    #[serde(default)]
    pub observed_generation: i64,
    /// How many of its devices hold an OSD that is found in the cluster.
    #[serde(default)]
    pub devices: u32,
    /// `Ready`, `Silent` or `Missing`.
    pub fence: String,
    /// `Ready`: moves from and to its devices are possible.
    #[serde(default)]
    pub conditions: Vec<Condition>,
    /// The one OSD of the cluster that would be better off elsewhere, if it is this target's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rebalance: Option<Rebalance>,
}

/// A move that nothing forces, and that would help.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Rebalance {
    /// The OSD.
    #[schemars(schema_with = "schema::osd_id")]
    pub osd: OsdId,
    /// Where it is.
    #[schemars(schema_with = "schema::dns_name")]
    pub from: NodeName,
    /// Where it would go.
    #[schemars(schema_with = "schema::dns_name")]
    pub to: NodeName,
    /// The points of the node it is on, without it.
    pub here: String,
    /// The points of the other one.
    pub there: String,
    /// How many points better that is.
    pub gain: u32,
    /// Since when this is the best move.
    pub since: Stamp,
    /// When it begins if nothing changes; nothing where a person has to do it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub begins: Option<Stamp>,
}

impl Rebalance {
    /// A proposal as it stands.
    #[must_use]
    pub fn of(proposed: &Proposed, policy: &Policy) -> Self {
        let proposal = &proposed.proposal;
        Self {
            osd: proposal.osd,
            from: proposal.from.clone(),
            to: proposal.to.clone(),
            here: proposal.here.to_string(),
            there: proposal.there.to_string(),
            gain: proposal.gain() / 1000,
            since: Stamp(proposed.since),
            begins: proposed.begins(policy).map(Stamp),
        }
    }
}
