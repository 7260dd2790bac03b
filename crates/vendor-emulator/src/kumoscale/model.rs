//! What the provisioner has.

use std::collections::BTreeSet;
use std::time::Instant;

/// All of it.
#[derive(Debug, Clone, Default)]
pub struct Model {
    /// Where replicas can be.
    pub backends: Vec<Backend>,
    /// The volumes.
    pub volumes: Vec<Volume>,
    /// Hosts that were heard of, by id.
    pub hosts: BTreeSet<String>,
    /// Messages of `forward_log`.
    pub messages: Vec<String>,
    pub(crate) made: u64,
}

/// A storage node.
#[derive(Debug, Clone)]
pub struct Backend {
    /// Its `persistentID`.
    pub id: String,
    /// `Available`, or something else.
    pub state: String,
    /// Ways to it.
    pub portals: Vec<Portal>,
    /// Its subsystem, where each backend has its own.
    pub nqn: String,
    /// Room that is left.
    pub room: u64,
}

/// A way to a backend.
#[derive(Debug, Clone)]
pub struct Portal {
    /// Address.
    pub ip: String,
    /// Port.
    pub port: u16,
    /// `TCP`, `RoCEv2`.
    pub transport: String,
}

/// A volume.
#[derive(Debug, Clone)]
pub struct Volume {
    /// Its UUID.
    pub uuid: String,
    /// Its name.
    pub alias: String,
    /// How many replicas it is meant to have.
    pub num_replicas: u64,
    /// Minutes; zero: never.
    pub max_replica_down_time: u64,
    /// Size.
    pub capacity: u64,
    /// Its replicas.
    pub replicas: Vec<Replica>,
    /// Hosts it is published to.
    pub published: BTreeSet<String>,
}

/// A replica.
#[derive(Debug, Clone)]
pub struct Replica {
    /// The namespace's UUID.
    pub uuid: String,
    /// `Available`, `Synchronizing`, `Missing`, `Terminating`, `Unknown`.
    pub state: String,
    /// Since when.
    pub since: Instant,
    /// The backend it is on.
    pub backend: String,
    /// Whether a host ever said that it writes to it.
    pub touched: bool,
    /// It is listed after so many more looks.
    pub hidden: usize,
}

impl Model {
    /// A volume by UUID.
    #[must_use]
    pub fn volume(&self, uuid: &str) -> Option<&Volume> {
        self.volumes.iter().find(|volume| volume.uuid.eq_ignore_ascii_case(uuid))
    }

    /// The same, to be changed.
    pub fn volume_mut(&mut self, uuid: &str) -> Option<&mut Volume> {
        self.volumes.iter_mut().find(|volume| volume.uuid.eq_ignore_ascii_case(uuid))
    }

    /// A UUID that nobody has yet.
    pub(crate) fn fresh_uuid(&mut self) -> String {
        self.made += 1;
        format!("5eed0000-0000-4000-8000-{:012x}", self.made)
    }

    /// The backend with enough room that has none of the volume's replicas.
    pub(crate) fn room_for(&self, volume: &Volume) -> Option<&Backend> {
        self.backends.iter().find(|backend| {
            backend.state == "Available"
                && backend.room >= volume.capacity
                && volume.replicas.iter().all(|replica| replica.backend != backend.id)
        })
    }
}

impl Volume {
    /// A replica by UUID.
    #[must_use]
    pub fn replica(&self, uuid: &str) -> Option<&Replica> {
        self.replicas.iter().find(|replica| replica.uuid == uuid)
    }

    /// The same, to be changed.
    pub fn replica_mut(&mut self, uuid: &str) -> Option<&mut Replica> {
        self.replicas.iter_mut().find(|replica| replica.uuid == uuid)
    }
}

impl Replica {
    /// Puts it into a state.
    pub fn set_state(&mut self, state: &str) {
        if self.state != state {
            self.since = Instant::now();
        }
        state.clone_into(&mut self.state);
        if matches!(state, "Available" | "Synchronizing") {
            self.touched = true;
        }
    }
}
