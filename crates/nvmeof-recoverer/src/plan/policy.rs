//! What a person decided: the numbers and switches the plan works under.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Whether moves begin without a person.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Automatic {
    /// Only the command moves OSDs.
    Off,
    /// Lost nodes and devices are acted on.
    On,
}

/// How much each part of a node's score counts. Only the proportions matter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Weights {
    /// How evenly the OSDs are spread.
    pub balance: u32,
    /// Room by what pods request.
    pub requests: u32,
    /// Room by what is used.
    pub usage: u32,
    /// How little the node waits for I/O.
    pub io: u32,
    /// How near the target is.
    pub locality: u32,
}

impl Weights {
    /// The whole, never zero.
    #[must_use]
    pub fn total(self) -> u32 {
        let parts = [self.balance, self.requests, self.usage, self.io, self.locality];
        parts.into_iter().fold(0, u32::saturating_add).max(1)
    }
}

impl Default for Weights {
    fn default() -> Self {
        Self { balance: 40, requests: 20, usage: 15, io: 15, locality: 10 }
    }
}

/// The policy of one cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    /// Whether moves begin without a person.
    pub automatic: Automatic,
    /// A node's lease that did not change for this long is one witness. Kubelets renew every 10 s.
    pub lease_silent: Duration,
    /// What we know must be no older than this to be acted on.
    pub view_fresh: Duration,
    /// Evaluations in a row that must agree.
    pub rounds: u32,
    /// Evaluations nearer to each other than this count as one.
    pub round_gap: Duration,
    /// More nodes lost at once than this are a storm: held, whatever else is true.
    pub storm_nodes: usize,
    /// A lease that did not change for this long counts in a storm. Of two nodes that fall at once
    /// one may have renewed a whole renewal later than the other, and would seem lost that much
    /// later.
    pub storm_silent: Duration,
    /// An OSD that was moved is not moved again automatically for this long.
    pub cooldown: Duration,
    /// Automatic moves within an hour.
    pub moves_per_hour: usize,
    /// How long a node that could not take an OSD is not asked again.
    pub hold_down: Duration,
    /// How long to wait before a step that failed is tried again; doubles with each failure.
    pub step_retry: Duration,
    /// The longest such wait.
    pub longest_retry: Duration,
    /// How long a move may wait for its reason to be confirmed.
    pub confirm_patience: Duration,
    /// How long the fence may take before a person is asked.
    pub fence_patience: Duration,
    /// How often a fence that failed is tried again by itself.
    pub fence_again: Duration,
    /// How long any other step may take before the move is given up.
    pub step_patience: Duration,
    /// How long the placement groups may take to become clean.
    pub clean_patience: Duration,
    /// OSDs a node takes at most.
    pub max_osds_per_node: usize,
    /// How much each part of a score counts.
    pub weights: Weights,
    /// Whether OSDs that are well are moved, without a person, to where they are better off.
    pub rebalance: Automatic,
    /// Rebalancing: by how many points, of a hundred, the new place must be better.
    pub rebalance_gain: u32,
    /// Rebalancing: for how long the same move must have been the best one.
    pub rebalance_after: Duration,
    /// Rebalancing: no OSD is moved again by it within this time.
    pub rebalance_rest: Duration,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            automatic: Automatic::Off,
            lease_silent: Duration::from_secs(25),
            view_fresh: Duration::from_secs(10),
            rounds: 2,
            round_gap: Duration::from_secs(3),
            storm_nodes: 1,
            storm_silent: Duration::from_secs(15),
            cooldown: Duration::from_secs(600),
            moves_per_hour: 60,
            hold_down: Duration::from_secs(600),
            step_retry: Duration::from_secs(1),
            longest_retry: Duration::from_secs(30),
            confirm_patience: Duration::from_secs(300),
            fence_patience: Duration::from_secs(60),
            fence_again: Duration::from_secs(30),
            step_patience: Duration::from_secs(300),
            clean_patience: Duration::from_secs(3600),
            max_osds_per_node: 64,
            weights: Weights::default(),
            rebalance: Automatic::Off,
            rebalance_gain: 15,
            rebalance_after: Duration::from_secs(600),
            rebalance_rest: Duration::from_secs(1800),
        }
    }
}
