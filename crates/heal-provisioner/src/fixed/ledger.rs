//! The two files put together: who is in a volume, in which state, and what each call changes.
//!
//! Pure functions of inventory and notes. The caller reads both before and writes the notes after,
//! so a call that fails here has changed nothing.

use heal_types::{
    CallKey, Condition, FaultClass, NamespaceId, ProvisionerFault, Replica, ReplicaId,
    ReplicaState, SectorCount, Target, Volume, VolumeId, VolumeQuery,
};

use super::inventory::{Inventory, Marked, ReplicaEntry, VolumeEntry};
use super::state::{Grant, Note, Stage, State, Word};
use crate::store::{Answered, Said};
use crate::text::printable;

/// The largest number of replicas of one volume that anyone believes (see [`Volume::check`]).
const MAX_REPLICAS: usize = 64;
/// How much of a reason is kept.
const MAX_WHY: usize = 200;

/// A replica that a volume has now.
#[derive(Debug, Clone)]
struct Member {
    id: ReplicaId,
    target: Target,
    renewed: u32,
    state: ReplicaState,
}

/// Both files, as one call sees them.
#[derive(Debug)]
pub(super) struct Ledger<'a> {
    pub(super) inventory: &'a Inventory,
    pub(super) state: State,
}

fn fault(class: FaultClass, detail: impl std::fmt::Display) -> ProvisionerFault {
    ProvisionerFault::new(class, detail)
}

impl Ledger<'_> {
    pub(super) fn find_volume(&self, query: &VolumeQuery) -> Option<Volume> {
        let entry = self.inventory.find(query)?;
        Some(Volume {
            id: entry.id.clone(),
            array: entry.array,
            alias: entry.alias.clone(),
            copies: entry.copies,
            replicas: self
                .members(entry)
                .into_iter()
                .map(|member| Replica { id: member.id, state: member.state, target: member.target })
                .collect(),
            grace: entry.grace(),
        })
    }

    pub(super) fn report(
        &mut self,
        volume: &VolumeId,
        replica: &ReplicaId,
        condition: &Condition,
        key: &CallKey,
    ) -> Result<(), ProvisionerFault> {
        let entry = self.volume(volume)?;
        let (said, word) = match condition {
            Condition::Missing => (Said::Missing, Word::Missing),
            Condition::Synchronizing => (Said::Synchronizing, Word::Synchronizing),
            Condition::Available => (Said::Available, Word::Available),
            Condition::Unusable { why } => {
                (Said::Unusable, Word::Unusable(printable(why, MAX_WHY)))
            }
        };
        let call =
            Answered { key: key.clone(), volume: volume.clone(), replica: replica.clone(), said };
        if self.state.was_answered(&call) {
            return Ok(());
        }
        match self.member(entry, replica) {
            Some(member) => self.report_member(volume, &member, said, word),
            None if self.report_withdrawn(volume, replica, said, &word)? => {}
            None if self.was_removed(volume, replica) => {}
            None => return Err(no_replica(volume, replica)),
        }
        self.state.remember(call);
        Ok(())
    }

    pub(super) fn request_replacement(
        &mut self,
        volume: &VolumeId,
        lost: &ReplicaId,
        why: &str,
        key: &CallKey,
    ) -> Result<Replica, ProvisionerFault> {
        let entry = self.volume(volume)?;
        if let Some(grant) = self.state.grants.iter().find(|g| g.keys.contains(key)) {
            if grant.volume != *volume || grant.lost != *lost {
                return Err(fault(
                    FaultClass::Refused,
                    format_args!(
                        "this key was used for replica {} of {}",
                        grant.lost, grant.volume
                    ),
                ));
            }
            return self.answer_again(entry, grant);
        }
        let lost_member = self.member(entry, lost).ok_or_else(|| no_replica(volume, lost))?;
        if let Some(at) = self.live_grant(entry, lost) {
            self.state.grants[at].also_under(key);
            return self.answer_again(entry, &self.state.grants[at]);
        }
        let spare = self.choose_spare(entry, &lost_member)?;
        let grant = Grant {
            keys: vec![key.clone()],
            volume: volume.clone(),
            lost: lost.clone(),
            replica: spare.id.clone(),
            target: spare.target(),
            renewed: spare.renewed,
            stage: Stage::Given,
            why: printable(why, MAX_WHY),
        };
        // Asked to be replaced, it is lost, even if the report of that is still on its way.
        match lost_member.state {
            ReplicaState::Available | ReplicaState::Synchronizing | ReplicaState::Unknown => {
                self.set_word(volume, &lost_member, Word::Missing);
            }
            ReplicaState::Missing | ReplicaState::Terminating | ReplicaState::Bad => {}
        }
        let granted = Replica {
            id: grant.replica.clone(),
            state: ReplicaState::Synchronizing,
            target: grant.target.clone(),
        };
        // What an earlier holder said of it (lost, say) is not about its new life.
        self.state.forget(grant.target.namespace);
        self.state.add_grant(grant);
        Ok(granted)
    }

    /// What is not there is removed already, and that is success.
    pub(super) fn confirm_removed(
        &mut self,
        volume: &VolumeId,
        replica: &ReplicaId,
        key: &CallKey,
    ) {
        let call = Answered {
            key: key.clone(),
            volume: volume.clone(),
            replica: replica.clone(),
            said: Said::Removed,
        };
        let Some(entry) = self.inventory.volume(volume) else {
            return;
        };
        if self.state.was_answered(&call) {
            return;
        }
        if let Some(member) = self.member(entry, replica) {
            self.set_word(volume, &member, Word::Removed);
            self.state.remember(call);
        }
    }

    pub(super) fn has_volume(&self, volume: &VolumeId) -> Result<(), ProvisionerFault> {
        self.volume(volume).map(|_| ())
    }
}

fn no_replica(volume: &VolumeId, replica: &ReplicaId) -> ProvisionerFault {
    fault(FaultClass::NotFound, format_args!("volume {volume} has no replica {replica}"))
}

impl<'a> Ledger<'a> {
    fn volume(&self, id: &VolumeId) -> Result<&'a VolumeEntry, ProvisionerFault> {
        self.inventory.volume(id).ok_or_else(|| {
            fault(FaultClass::NotFound, format_args!("the inventory has no volume {id}"))
        })
    }

    fn member(&self, volume: &VolumeEntry, id: &ReplicaId) -> Option<Member> {
        self.members(volume).into_iter().find(|member| member.id == *id)
    }

    /// The volume's listed replicas that were not removed, then the spares it was given.
    fn members(&self, volume: &VolumeEntry) -> Vec<Member> {
        let mut members: Vec<Member> = volume
            .replicas
            .iter()
            .filter_map(|entry| {
                let state = self.state_of(&volume.id, entry, ReplicaState::Available)?;
                Some(Member {
                    id: entry.id.clone(),
                    target: entry.target(),
                    renewed: entry.renewed,
                    state,
                })
            })
            .collect();
        let given = self.state.grants.iter().filter(|g| g.volume == volume.id);
        for grant in given.filter(|grant| !grant.stage.is_over()) {
            let known = members.iter().any(|member| {
                member.target.namespace == grant.target.namespace || member.id == grant.replica
            });
            if known || members.len() >= MAX_REPLICAS {
                continue;
            }
            if let Some(member) = self.given_member(grant) {
                members.push(member);
            }
        }
        members
    }

    /// A spare that was given. The operator's entry, where it still stands, knows its newest
    /// address.
    fn given_member(&self, grant: &Grant) -> Option<Member> {
        let namespace = grant.target.namespace;
        let entry = self.inventory.entry(namespace);
        let renewed = entry.map_or(grant.renewed, |entry| entry.renewed);
        let word = self.state.note(namespace, grant.renewed).map(|note| &note.word);
        let marked = entry.map_or(Marked::Available, |entry| entry.state);
        let state = match (marked, word) {
            (_, Some(Word::Removed)) => return None,
            (_, Some(Word::Unusable(_))) if renewed > grant.renewed => return None,
            (Marked::Bad, _) | (_, Some(Word::Unusable(_))) => ReplicaState::Bad,
            (Marked::Terminating, _) => ReplicaState::Terminating,
            (Marked::Available, Some(Word::Missing)) => ReplicaState::Missing,
            (Marked::Available, Some(Word::Available)) => ReplicaState::Available,
            (Marked::Available, Some(Word::Synchronizing) | None) => ReplicaState::Synchronizing,
        };
        Some(Member {
            id: grant.replica.clone(),
            target: entry.map_or_else(|| grant.target.clone(), ReplicaEntry::target),
            renewed: grant.renewed,
            state,
        })
    }

    /// The state of a listed replica; `None` once it was removed.
    fn state_of(
        &self,
        volume: &VolumeId,
        entry: &ReplicaEntry,
        untold: ReplicaState,
    ) -> Option<ReplicaState> {
        let note = self.state.note(entry.namespace(), entry.renewed);
        let here = |note: &&Note| note.volume == *volume;
        let state = match (entry.state, note.map(|note| &note.word)) {
            (_, Some(Word::Removed)) => return None,
            (Marked::Bad, _) | (_, Some(Word::Unusable(_))) => ReplicaState::Bad,
            (Marked::Terminating, _) => ReplicaState::Terminating,
            (Marked::Available, _) => match note.filter(here).map(|note| &note.word) {
                Some(Word::Missing) => ReplicaState::Missing,
                Some(Word::Synchronizing) => ReplicaState::Synchronizing,
                Some(Word::Available) => ReplicaState::Available,
                Some(Word::Unusable(_) | Word::Removed) | None => untold,
            },
        };
        Some(state)
    }

    fn set_word(&mut self, volume: &VolumeId, member: &Member, word: Word) {
        self.state.set_note(Note {
            namespace: member.target.namespace,
            renewed: member.renewed,
            volume: volume.clone(),
            replica: member.id.clone(),
            word,
        });
    }

    fn report_member(&mut self, volume: &VolumeId, member: &Member, said: Said, word: Word) {
        let namespace = member.target.namespace;
        let taken_up = matches!(said, Said::Synchronizing | Said::Available);
        for grant in self.state.grants.iter_mut().filter(|g| g.volume == *volume) {
            if grant.target.namespace == namespace && grant.stage == Stage::Given && taken_up {
                grant.stage = Stage::TakenUp;
            }
            if grant.lost == member.id && grant.stage == Stage::Given && said == Said::Available {
                grant.stage = Stage::Withdrawn;
            }
        }
        let note = self.state.note(namespace, member.renewed);
        let unusable = matches!(note.map(|note| &note.word), Some(Word::Unusable(_)));
        if !unusable {
            self.set_word(volume, member, word);
        }
    }

    /// A word on a spare whose request was withdrawn. The host may have been about to use it: then
    /// it is the volume's after all, and nobody else may get it. Says whether there is such a
    /// spare.
    fn report_withdrawn(
        &mut self,
        volume: &VolumeId,
        replica: &ReplicaId,
        said: Said,
        word: &Word,
    ) -> Result<bool, ProvisionerFault> {
        let withdrawn = self.state.grants.iter().rposition(|grant| {
            grant.volume == *volume && grant.replica == *replica && grant.stage == Stage::Withdrawn
        });
        let Some(at) = withdrawn else {
            return Ok(false);
        };
        let grant = self.state.grants[at].clone();
        if self.holder(grant.target.namespace).is_some() {
            return Err(fault(
                FaultClass::Refused,
                format_args!("replica {replica} was withdrawn and has been given away since"),
            ));
        }
        match said {
            Said::Synchronizing | Said::Available => self.state.grants[at].stage = Stage::TakenUp,
            Said::Unusable => {}
            Said::Missing | Said::Removed => return Ok(true),
        }
        self.state.set_note(Note {
            namespace: grant.target.namespace,
            renewed: grant.renewed,
            volume: volume.clone(),
            replica: replica.clone(),
            word: word.clone(),
        });
        Ok(true)
    }

    fn was_removed(&self, volume: &VolumeId, replica: &ReplicaId) -> bool {
        self.state.notes.iter().any(|note| {
            note.volume == *volume && note.replica == *replica && note.word == Word::Removed
        })
    }

    /// The grant that holds a namespace now, if one does.
    fn holder(&self, namespace: NamespaceId) -> Option<&Grant> {
        self.state.grants.iter().find(|grant| {
            grant.target.namespace == namespace
                && !grant.stage.is_over()
                && !matches!(
                    self.state.note(namespace, grant.renewed).map(|note| &note.word),
                    Some(Word::Removed | Word::Unusable(_))
                )
        })
    }

    /// The newest grant for a lost replica whose own replica is still good for it.
    fn live_grant(&self, volume: &VolumeEntry, lost: &ReplicaId) -> Option<usize> {
        self.state.grants.iter().rposition(|grant| {
            grant.volume == volume.id
                && grant.lost == *lost
                && self.answer_again(volume, grant).is_ok()
        })
    }

    /// The same answer as the first time, unless what was granted is no longer good for it.
    fn answer_again(
        &self,
        volume: &VolumeEntry,
        grant: &Grant,
    ) -> Result<Replica, ProvisionerFault> {
        let over = |why: &str| {
            Err(fault(
                FaultClass::Refused,
                format_args!("this request was answered with replica {}, {why}", grant.replica),
            ))
        };
        match grant.stage {
            Stage::Given | Stage::TakenUp => {}
            Stage::Withdrawn => return over("and withdrawn when the lost replica came back"),
            Stage::Superseded => return over("which was made afresh and given again since"),
        }
        let member = self
            .members(volume)
            .into_iter()
            .find(|member| member.target.namespace == grant.target.namespace);
        match member {
            None => over("which has been removed since"),
            Some(member) => match member.state {
                ReplicaState::Bad => over("which must not be used"),
                ReplicaState::Missing => over("which has been lost since"),
                ReplicaState::Terminating => over("which is on its way out"),
                ReplicaState::Available | ReplicaState::Synchronizing | ReplicaState::Unknown => {
                    Ok(Replica { id: member.id, state: member.state, target: member.target })
                }
            },
        }
    }

    /// The first spare that fits, the volume's own before those of all.
    fn choose_spare(
        &self,
        volume: &'a VolumeEntry,
        lost: &Member,
    ) -> Result<&'a ReplicaEntry, ProvisionerFault> {
        let members = self.members(volume);
        if members.len() >= MAX_REPLICAS {
            return Err(fault(FaultClass::Refused, "the volume has too many replicas"));
        }
        // A replica of unknown size is as large as the largest of its siblings, at a guess that
        // errs on the safe side; the host compares the device itself before it is used.
        let needed = lost
            .target
            .size
            .or_else(|| members.iter().filter_map(|member| member.target.size).max());
        let (mut taken, mut bad, mut small) = (0, 0, 0);
        for spare in self.inventory.spares_for(volume) {
            match self.unfit(&members, spare, needed) {
                None => return Ok(spare),
                Some(UnfitWhy::Taken) => taken += 1,
                Some(UnfitWhy::Bad) => bad += 1,
                Some(UnfitWhy::TooSmall) => small += 1,
            }
        }
        Err(fault(
            FaultClass::Refused,
            format_args!(
                "no spare left: of {} listed, {taken} are used, {bad} are bad or removed, \
                 {small} are too small or of unknown size",
                taken + bad + small
            ),
        ))
    }

    fn unfit(
        &self,
        members: &[Member],
        spare: &ReplicaEntry,
        needed: Option<SectorCount>,
    ) -> Option<UnfitWhy> {
        match spare.state {
            Marked::Available => {}
            Marked::Terminating | Marked::Bad => return Some(UnfitWhy::Bad),
        }
        let namespace = spare.namespace();
        if matches!(
            self.state.note(namespace, spare.renewed).map(|note| &note.word),
            Some(Word::Removed | Word::Unusable(_))
        ) {
            return Some(UnfitWhy::Bad);
        }
        let met = members
            .iter()
            .any(|member| member.id == spare.id || member.target.namespace == namespace);
        if met || self.holder(namespace).is_some() {
            return Some(UnfitWhy::Taken);
        }
        // A spare that does not say its size may be too small: that is not known to fit.
        match (needed, spare.size()) {
            (Some(needed), Some(size)) if size < needed => Some(UnfitWhy::TooSmall),
            (Some(_), None) => Some(UnfitWhy::TooSmall),
            (Some(_) | None, _) => None,
        }
    }
}

/// Why a spare cannot be given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum UnfitWhy {
    Taken,
    Bad,
    TooSmall,
}
