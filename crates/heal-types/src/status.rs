//! What `nvme-heal status` and `nvme-heal explain` show: stable, additive data.
//!
//! Within one [`SCHEMA`] fields are only ever added. Everything here is for people and scripts; no
//! part of the product reads it back to decide anything.

use serde::{Deserialize, Serialize};

use crate::WallTime;

/// Version of the documents in this module.
pub const SCHEMA: u16 = 1;

/// Everything about one host.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HostStatus {
    /// [`SCHEMA`].
    pub schema: u16,
    /// The daemon's version.
    pub version: String,
    /// `observe` or `heal`.
    pub mode: String,
    /// The provisioner backend's name, or `none`.
    pub provisioner: String,
    /// When this was put together.
    pub at: WallTime,
    /// Every md array of the host, managed or not.
    pub arrays: Vec<ArrayStatus>,
    /// From MD's notification to the decision in the journal.
    pub reaction: Reaction,
    /// From the first sign of a dead path to its sockets destroyed, without the wait the policy
    /// asks for.
    #[serde(default)]
    pub isolation: Reaction,
    /// Counters that say whether anything was lost on the way.
    pub counters: Counters,
    /// Alarms that concern the host as a whole.
    pub alarms: Vec<String>,
}

/// How an array is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Health {
    /// Every slot has a good leg and nothing is owed.
    Optimal,
    /// Fewer copies than it should have, and something is being done about it.
    Healing,
    /// Fewer copies than it should have, and nothing may be done about it.
    Held,
    /// A contradiction: nothing is done until a person has looked.
    Quarantined,
    /// Not ours: shown, never touched.
    Observed,
}

/// Everything about one array.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ArrayStatus {
    /// MD array UUID.
    pub id: String,
    /// Kernel name now.
    pub device: String,
    /// Array name.
    pub alias: Option<String>,
    /// The provisioner's volume, if the array is managed.
    pub volume: Option<String>,
    /// How it is.
    pub health: Health,
    /// The worst repair's phase, `whole` if there is none.
    pub phase: String,
    /// MD's `array_state`.
    pub array_state: String,
    /// RAID level.
    pub level: String,
    /// One sentence: why it is not healed, or what happens next.
    pub summary: String,
    /// Incident, from first symptom to whole again.
    pub incident: Option<String>,
    /// Legs, by slot.
    pub legs: Vec<LegStatus>,
    /// Repairs under way, by slot.
    pub repairs: Vec<RepairStatus>,
    /// Reports the provisioner has not taken yet.
    pub owed_reports: Vec<String>,
    /// The last answer of the provisioner about this volume.
    pub provisioner_age_seconds: Option<u64>,
    /// The last failure of the provisioner about this volume, if it has not answered since.
    pub provisioner_fault: Option<String>,
}

/// One leg.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LegStatus {
    /// Its slot, if it has one.
    pub slot: Option<u16>,
    /// The name it is bound under.
    pub device: String,
    /// MD's flags.
    pub state: String,
    /// Namespace ids, or why they are not known.
    pub namespace: String,
    /// The provisioner's replica, if it is one.
    pub replica: Option<String>,
    /// `up`, or what is wrong with its paths.
    pub path: String,
}

/// One repair.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RepairStatus {
    /// The slot in trouble.
    pub slot: u16,
    /// Its phase.
    pub phase: String,
    /// What began it.
    pub cause: String,
    /// When it entered the phase.
    pub since: WallTime,
    /// The replica that was lost, if it is known.
    pub lost: Option<String>,
    /// The replica that takes its place, if there is one.
    pub incoming: Option<String>,
    /// The rule that holds it or moves it, with the numbers.
    pub rule: String,
    /// What happens next.
    pub next: String,
    /// When, at the latest.
    pub due: Option<WallTime>,
    /// Rebuild progress.
    pub percent: Option<u8>,
}

/// A distribution of durations in microseconds.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Reaction {
    /// Number of samples.
    pub count: u64,
    /// Median, if there is a sample.
    pub median_us: Option<u64>,
    /// 99th percentile, if there is a sample.
    pub p99_us: Option<u64>,
    /// Longest, if there is a sample.
    pub max_us: Option<u64>,
    /// Upper bound in microseconds and number of samples up to it, not cumulative.
    pub buckets: Vec<(u64, u64)>,
}

/// Counters since the daemon's start.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Counters {
    /// Kernel uevents read.
    pub uevents: u64,
    /// Times a netlink socket overran and everything was scanned again.
    pub overruns: u64,
    /// Messages dropped because the kernel did not send them.
    pub forged: u64,
    /// Wakes by MD's own notifications.
    pub md_wakes: u64,
    /// Full looks at the host.
    pub looks: u64,
    /// Journal entries dropped because the journal stalled.
    pub journal_dropped: u64,
    /// Children that hang in the kernel now.
    pub stuck_children: u64,
    /// Safety scans made.
    pub safety_scans: u64,
}

/// Why one array is, or is not, being healed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Explanation {
    /// The array as `status` shows it.
    pub array: ArrayStatus,
    /// What the daemon knows, one fact a line.
    pub knows: Vec<String>,
    /// Which rules hold it or move it, one a line, with the numbers used.
    pub rules: Vec<String>,
    /// What happens next and when, one a line.
    pub next: Vec<String>,
    /// The newest entries of the audit trail, oldest first.
    pub trail: Vec<TrailEntry>,
}

/// One entry of the audit trail.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TrailEntry {
    /// When.
    pub at: WallTime,
    /// The plain sentence.
    pub message: String,
    /// The event's stable name.
    pub event: String,
}
