//! What this backend notes itself: words on replicas, grants, and calls already answered.
//!
//! The notes are keyed by *namespace*, because ids in the operator's file may be used again and a
//! namespace may not. A note holds for one making of the namespace, counted by the operator as
//! `renewed`; an entry with a higher count is a new replica to us.

use heal_types::{CallKey, NamespaceId, ReplicaId, Target, VolumeId};
use serde::{Deserialize, Serialize};

use crate::store::Answered;

/// The form of the file that this version writes.
pub(super) const SCHEMA: u32 = 1;
/// Calls that are remembered for their repetition.
const MAX_ANSWERED: usize = 512;
/// Requests that are over and remembered for their repetition.
const MAX_OVER: usize = 512;
/// Further keys of one grant.
const MAX_KEYS: usize = 16;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct State {
    pub(super) schema: u32,
    pub(super) notes: Vec<Note>,
    pub(super) grants: Vec<Grant>,
    pub(super) answered: Vec<Answered>,
}

impl Default for State {
    fn default() -> Self {
        Self { schema: SCHEMA, notes: Vec::new(), grants: Vec::new(), answered: Vec::new() }
    }
}

/// The last word on one namespace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Note {
    pub(super) namespace: NamespaceId,
    pub(super) renewed: u32,
    pub(super) volume: VolumeId,
    pub(super) replica: ReplicaId,
    pub(super) word: Word,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Word {
    Missing,
    Synchronizing,
    Available,
    /// For every volume, for ever, until renewed.
    Unusable(String),
    /// For every volume, for ever, until renewed.
    Removed,
}

/// One spare given to one volume in place of one replica.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Grant {
    /// The keys it was asked for under, the first one first.
    pub(super) keys: Vec<CallKey>,
    pub(super) volume: VolumeId,
    pub(super) lost: ReplicaId,
    pub(super) replica: ReplicaId,
    /// As it was when it was given: the operator may strike a used spare from the file.
    pub(super) target: Target,
    pub(super) renewed: u32,
    pub(super) stage: Stage,
    pub(super) why: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Stage {
    /// Nothing was heard of it since.
    Given,
    /// The host fills it or has filled it.
    TakenUp,
    /// The lost replica came back first: the spare is free again.
    Withdrawn,
    /// The operator made the namespace afresh, and it was given again.
    Superseded,
}

impl Stage {
    pub(super) fn is_over(self) -> bool {
        match self {
            Self::Given | Self::TakenUp => false,
            Self::Withdrawn | Self::Superseded => true,
        }
    }
}

impl State {
    /// What was noted of this making of the namespace, or of a later one.
    pub(super) fn note(&self, namespace: NamespaceId, renewed: u32) -> Option<&Note> {
        self.notes.iter().find(|note| note.namespace == namespace && note.renewed >= renewed)
    }

    /// Replaces the last word on a namespace.
    pub(super) fn set_note(&mut self, note: Note) {
        self.forget(note.namespace);
        self.notes.push(note);
    }

    pub(super) fn forget(&mut self, namespace: NamespaceId) {
        self.notes.retain(|note| note.namespace != namespace);
    }

    pub(super) fn was_answered(&self, call: &Answered) -> bool {
        self.answered.contains(call)
    }

    pub(super) fn remember(&mut self, call: Answered) {
        let surplus = (self.answered.len() + 1).saturating_sub(MAX_ANSWERED);
        self.answered.drain(..surplus);
        self.answered.push(call);
    }

    /// Adds a grant and forgets the oldest of those that are over.
    pub(super) fn add_grant(&mut self, grant: Grant) {
        for earlier in &mut self.grants {
            if earlier.target.namespace == grant.target.namespace && !earlier.stage.is_over() {
                earlier.stage = Stage::Superseded;
            }
        }
        self.grants.push(grant);
        let over = self.grants.iter().filter(|g| g.stage.is_over()).count();
        let mut surplus = over.saturating_sub(MAX_OVER);
        self.grants.retain(|grant| {
            let drop = surplus > 0 && grant.stage.is_over();
            surplus -= usize::from(drop);
            !drop
        });
    }
}

impl Grant {
    /// Another key for the same thing; the first one always stays.
    pub(super) fn also_under(&mut self, key: &CallKey) {
        if self.keys.len() >= MAX_KEYS {
            self.keys.remove(1);
        }
        self.keys.push(key.clone());
    }
}
