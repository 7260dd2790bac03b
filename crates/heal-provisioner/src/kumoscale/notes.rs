//! What this backend remembers, because the provisioner has no keys: which call had its effect, and
//! which replica was asked for in place of which.

use heal_types::{CallKey, ReplicaId, VolumeId};
use serde::{Deserialize, Serialize};

use crate::store::{self, Answered, Said};

/// Calls that are remembered for their repetition.
const MAX_ANSWERED: usize = 512;
/// Requests that are remembered.
const MAX_GRANTS: usize = 512;
/// Further keys of one request.
const MAX_KEYS: usize = 16;
/// Bad replicas that are remembered.
const MAX_BAD: usize = 512;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct State {
    schema: u32,
    pub(super) grants: Vec<Grant>,
    answered: Vec<Answered>,
    bad: Vec<(VolumeId, ReplicaId)>,
}

impl Default for State {
    fn default() -> Self {
        let schema = <Self as store::Notes>::SCHEMA;
        Self { schema, grants: Vec::new(), answered: Vec::new(), bad: Vec::new() }
    }
}

impl store::Notes for State {
    const SCHEMA: u32 = 1;
    fn schema(&self) -> u32 {
        self.schema
    }
}

/// One request for a replica in place of another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Grant {
    /// The keys it was asked for under, the first one first.
    pub(super) keys: Vec<CallKey>,
    pub(super) volume: VolumeId,
    pub(super) lost: ReplicaId,
    /// The volume's replicas when it was asked for: a replica that is not among them is new.
    pub(super) before: Vec<ReplicaId>,
    pub(super) stage: Stage,
    /// Whether the host ever said a word of the new replica. Before that it is empty, whatever the
    /// provisioner calls it.
    pub(super) heard: bool,
    /// How often it was looked for since the last question.
    pub(super) looks: u32,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Stage {
    /// The question may have been asked.
    Asked,
    /// The provisioner said yes and does not list it yet.
    Promised,
    /// It is there.
    Given(ReplicaId),
    /// The host fills it or has filled it.
    TakenUp(ReplicaId),
    /// The lost replica came back first.
    Withdrawn(Option<ReplicaId>),
}

impl Grant {
    pub(super) fn replica(&self) -> Option<&ReplicaId> {
        match &self.stage {
            Stage::Given(replica) | Stage::TakenUp(replica) => Some(replica),
            Stage::Withdrawn(replica) => replica.as_ref(),
            Stage::Asked | Stage::Promised => None,
        }
    }

    /// Whether the replica it names is its own to give.
    pub(super) fn holds(&self, replica: &ReplicaId) -> bool {
        match &self.stage {
            Stage::Given(held) | Stage::TakenUp(held) => held == replica,
            Stage::Asked | Stage::Promised | Stage::Withdrawn(_) => false,
        }
    }

    /// Another key for the same thing; the first one always stays.
    pub(super) fn also_under(&mut self, key: &CallKey) {
        if self.keys.contains(key) {
            return;
        }
        if self.keys.len() >= MAX_KEYS {
            self.keys.remove(1);
        }
        self.keys.push(key.clone());
    }
}

impl State {
    pub(super) fn was_answered(&self, call: &Answered) -> bool {
        self.answered.contains(call)
    }

    pub(super) fn remember(&mut self, call: Answered) {
        push_bounded(&mut self.answered, call, MAX_ANSWERED);
    }

    pub(super) fn was_removed(&self, volume: &VolumeId, replica: &ReplicaId) -> bool {
        self.answered.iter().any(|call| {
            call.said == Said::Removed && call.volume == *volume && call.replica == *replica
        })
    }

    pub(super) fn is_bad(&self, volume: &VolumeId, replica: &ReplicaId) -> bool {
        self.bad.iter().any(|(of, bad)| of == volume && bad == replica)
    }

    pub(super) fn set_bad(&mut self, volume: &VolumeId, replica: &ReplicaId) {
        if !self.is_bad(volume, replica) {
            push_bounded(&mut self.bad, (volume.clone(), replica.clone()), MAX_BAD);
        }
    }

    pub(super) fn add_grant(&mut self, grant: Grant) {
        push_bounded(&mut self.grants, grant, MAX_GRANTS);
    }

    /// The requests of one volume.
    pub(super) fn of<'a>(&'a self, volume: &'a VolumeId) -> impl Iterator<Item = &'a Grant> {
        self.grants.iter().filter(move |grant| grant.volume == *volume)
    }

    /// Whether some request holds this replica.
    pub(super) fn is_claimed(&self, volume: &VolumeId, replica: &ReplicaId) -> bool {
        self.of(volume).any(|grant| grant.holds(replica))
    }

    /// Whether the replica was given and nothing was heard of it since.
    pub(super) fn is_untouched(&self, volume: &VolumeId, replica: &ReplicaId) -> bool {
        self.of(volume).any(|grant| grant.holds(replica) && !grant.heard)
    }
}

fn push_bounded<T>(list: &mut Vec<T>, element: T, most: usize) {
    let surplus = (list.len() + 1).saturating_sub(most);
    list.drain(..surplus);
    list.push(element);
}
