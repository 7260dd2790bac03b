//! What is known of a cluster at one moment, and how old it is.
//!
//! The controller fills this from its reflectors and from the mons, the simulator from what it lets
//! a controller see. Facts that may be missing are [`Observed`]; "not there" and "not known" are
//! never the same value. Ages are measured on our own clock: a lease's own time stamp was written
//! by a clock on the node that is in doubt, so what counts is when *we* last saw it change.

use std::collections::{BTreeMap, BTreeSet};

use heal_types::cluster::{
    ClusterFsid, DomainName, Generation, NodeName, OsdFsid, OsdId, RelocationId,
};
use heal_types::{Moment, NamespaceId, Now, Nqn, Observed, WallTime};
use serde::{Deserialize, Serialize};

/// Everything the plan knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterView {
    /// When this is looked at.
    pub now: Now,
    /// When the API server last confirmed what is shown here.
    pub api_seen: Observed<Moment>,
    /// What the mons said.
    pub mons: Observed<MonView>,
    /// The nodes.
    pub nodes: BTreeMap<NodeName, NodeView>,
    /// The targets, by the failure domain each is.
    pub targets: BTreeMap<DomainName, TargetView>,
    /// The OSDs on devices of those targets. Others are not ours, and not here.
    pub osds: BTreeMap<OsdId, OsdView>,
    /// The pools that lie on them.
    pub pools: Vec<Pool>,
    /// When automatic moves of the last hour began.
    pub recent_moves: Vec<WallTime>,
}

/// The mons' word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MonView {
    /// When they said it.
    pub seen: Moment,
    /// Whether they have a quorum.
    pub quorum: bool,
    /// Whether all placement groups are active and clean.
    pub all_clean: bool,
}

/// CPU and memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Resources {
    /// Thousandths of a core.
    pub cpu_milli: u64,
    /// Bytes.
    pub memory: u64,
}

impl Resources {
    /// Both together.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            cpu_milli: self.cpu_milli.saturating_add(other.cpu_milli),
            memory: self.memory.saturating_add(other.memory),
        }
    }

    /// What is left of `self` without `other`.
    #[must_use]
    pub fn minus(self, other: Self) -> Self {
        Self {
            cpu_milli: self.cpu_milli.saturating_sub(other.cpu_milli),
            memory: self.memory.saturating_sub(other.memory),
        }
    }

    /// Whether `self` fits into `room`.
    #[must_use]
    pub fn fits(self, room: Self) -> bool {
        self.cpu_milli <= room.cpu_milli && self.memory <= room.memory
    }
}

/// A share in thousandths, at most the whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
pub struct Permille(u16);

impl Permille {
    /// The whole.
    pub const ALL: Self = Self(1000);

    /// `part` of `whole`; all of it where there is no whole.
    #[must_use]
    pub fn of(part: u64, whole: u64) -> Self {
        let share = u128::from(part) * 1000 / u128::from(whole.max(1));
        Self(u16::try_from(share.min(1000)).unwrap_or(1000))
    }

    /// Thousandths.
    #[must_use]
    pub fn thousandths(self) -> u32 {
        u32::from(self.0)
    }
}

/// A node's load as it is measured, smoothed over a minute.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Usage {
    /// Used CPU.
    pub cpu: Permille,
    /// Used memory.
    pub memory: Permille,
}

/// One node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeView {
    /// When we last saw its lease change.
    pub lease_changed: Observed<Moment>,
    /// Its `Ready` condition.
    pub ready: Observed<bool>,
    /// The out-of-service taint: a person's word that the node is off.
    pub out_of_service: bool,
    /// Whether new pods may come to it.
    pub schedulable: bool,
    /// What it can give.
    pub allocatable: Resources,
    /// What its pods request, without OSDs of this view.
    pub requested: Resources,
    /// What is used.
    pub used: Observed<Usage>,
    /// The share of time in which something waited for I/O (PSI, `some avg60`).
    pub io_wait: Observed<Permille>,
    /// No OSD may come before this: it was away, or it failed to take one.
    pub not_before: Option<WallTime>,
    /// Ceph said that what would sit here then could not be stopped.
    pub vetoed: bool,
}

/// Whether a target's fence can be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum FenceHealth {
    /// It answers.
    Ready,
    /// One is configured and does not answer.
    Silent,
    /// None is configured: every move needs a person's word.
    Missing,
}

/// One target: what fails together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetView {
    /// Nodes that may use its devices.
    pub attachable: BTreeSet<NodeName>,
    /// Its fence.
    pub fence: FenceHealth,
    /// Whether a node reaches it, and in how many microseconds, as probed.
    pub reach: BTreeMap<NodeName, Observed<Reach>>,
}

/// What a probe from a node to a target found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reach {
    /// It answers in that many microseconds.
    Micros(u32),
    /// It does not answer.
    Unreachable,
}

/// Which device, by names that stay.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// Its subsystem: one for each OSD.
    pub subsystem: Nqn,
    /// Its namespace.
    pub namespace: NamespaceId,
}

/// Which data: what the device's own label must say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct OsdIdentity {
    /// The cluster.
    pub cluster: ClusterFsid,
    /// The OSD's number.
    pub id: OsdId,
    /// The OSD's own UUID.
    pub fsid: OsdFsid,
}

impl std::fmt::Display for OsdIdentity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({}) of cluster {}", self.id, self.fsid, self.cluster)
    }
}

/// One OSD.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OsdView {
    /// Which data.
    pub identity: OsdIdentity,
    /// Which device.
    pub device: Device,
    /// Its failure domain: the target.
    pub domain: DomainName,
    /// Where its Deployment puts it.
    pub node: Observed<NodeName>,
    /// Whether the mons say it is up.
    pub up: Observed<bool>,
    /// The node it was started on last, as the mons know it (`ceph osd find`).
    pub started_on: Observed<NodeName>,
    /// What its pod requests.
    pub requests: Resources,
    /// Its CRUSH weight, in thousandths.
    pub weight: u32,
    /// Nodes besides its own that earlier moves may have admitted, and no fence is known to have
    /// cut.
    pub holders: BTreeSet<NodeName>,
    /// The last generation that any move of it had.
    pub generation: Generation,
    /// When it was last moved.
    pub moved: Option<WallTime>,
    /// When its last move came to its present phase, whatever became of it.
    pub tried: Option<WallTime>,
    /// The move that is under way.
    pub moving: Option<Moving>,
    /// Whether a probe on its own node finds the device, where there was one.
    pub seen_here: Observed<bool>,
    /// Whether any probe on another node reaches the target.
    pub seen_elsewhere: Observed<bool>,
    /// It carries what only a move sets, `noout` or the mark that keeps Rook off, and of which one.
    pub marked: Option<Generation>,
}

/// A move under way, as the view needs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Moving {
    /// Its object.
    pub id: RelocationId,
    /// Where the OSD comes to: it counts there already.
    pub to: NodeName,
}

/// A pool's promise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pool {
    /// Copies, or chunks.
    pub size: u32,
    /// As many it needs to take writes.
    pub min_size: u32,
}

impl ClusterView {
    /// How many failure domains may go at once without a pool stopping.
    #[must_use]
    pub fn spare_domains(&self) -> usize {
        let spare = self.pools.iter().map(|pool| pool.size.saturating_sub(pool.min_size)).min();
        spare.map_or(1, |spare| usize::try_from(spare).unwrap_or(usize::MAX))
    }
}
