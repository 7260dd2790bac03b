//! A provisioner that exists only in memory, with a vendor's promises and a vendor's bad days.
//!
//! ```text
//!            Missing                 request(key)                  Synchronizing, Available
//!   replica ─────────► lost one ───────────────────► grant from the pool ─────────► taken up
//!      ▲                  │                             │        │
//!      └── Available ─────┴── withdraws what is not taken up     └─ Unusable ─► bad, never again
//! ```
//!
//! It keeps its half of the bargain that `heal_provisioner::Provisioner` describes: one key has one
//! effect, one lost replica has one replacement, a grant lasts. The bad days are switches in
//! [`Mood`]. Everything that ever reached it is in [`FakeProvisioner::received`], for the checks.
//!
//! The price: it has no tasks, no capacity and no opinion on where a replica should be.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use heal_types::{
    Alias, ArrayId, CallKey, Condition, FaultClass, GracePolicy, Portal, ProvisionerAnswer,
    ProvisionerCall, ProvisionerFault, Replacement, Replica, ReplicaId, ReplicaState, Volume,
    VolumeId, VolumeQuery,
};

type Answer = Result<ProvisionerAnswer, ProvisionerFault>;

/// What kind of day the provisioner has.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Mood {
    /// Nobody answers.
    pub down: bool,
    /// Requests for a replacement are refused with this word.
    pub refuse: Option<String>,
    /// So many requests are answered with "being made" first.
    pub pending: u32,
    /// The answer to `find_volume` contradicts itself.
    pub nonsense: bool,
    /// The next call is carried out, and its answer is lost.
    pub lose_answer: bool,
    /// A request for a replacement is answered, for ever under its key, with this replica of the
    /// volume, whatever became of it.
    pub grants_again: Option<ReplicaId>,
    /// Nothing follows from a report that a replica is unusable.
    pub keeps_unusable: bool,
    /// Every answer takes so much longer.
    pub slow: Duration,
    /// `find_volume` answers what was so at some time.
    pub stale: Option<Vec<Volume>>,
    /// `find_volume` says this of a replica.
    pub lie: Option<(ReplicaId, ReplicaState)>,
    /// Requests for a replacement are granted with this, whatever it is.
    pub garbage: Option<Replica>,
    /// A portal that `find_volume` names for every replica, and a grant does not.
    pub lists_portal: Option<Portal>,
}

/// A request for a replacement, under one key.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Request {
    volume: VolumeId,
    lost: ReplicaId,
    state: RequestState,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum RequestState {
    Pending { asked: u32 },
    Granted { replica: Replica, taken_up: bool, mistaken: bool },
    Closed { why: &'static str },
}

impl Request {
    fn is_open(&self) -> bool {
        match &self.state {
            RequestState::Pending { .. } => true,
            // A grant of what the volume had is a mistake that binds nobody under another key.
            RequestState::Granted { mistaken, .. } => !mistaken,
            RequestState::Closed { .. } => false,
        }
    }
}

/// The provisioner. See the module's head.
#[derive(Debug, Clone, Default)]
pub struct FakeProvisioner {
    /// What kind of day it has.
    pub mood: Mood,
    volumes: Vec<Volume>,
    /// Spare replicas of each volume, best first.
    pool: BTreeMap<VolumeId, Vec<Replica>>,
    requests: BTreeMap<CallKey, Request>,
    /// Keys of reports and confirmations that had their effect.
    done: BTreeSet<CallKey>,
    received: Vec<ProvisionerCall>,
}

fn fault(class: FaultClass, detail: impl std::fmt::Display) -> ProvisionerFault {
    ProvisionerFault::new(class, detail)
}

impl FakeProvisioner {
    /// One without volumes.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A volume it knows, with the spares it may give out for it.
    pub fn add_volume(&mut self, volume: Volume, spares: Vec<Replica>) {
        self.pool.insert(volume.id.clone(), spares);
        self.volumes.push(volume);
    }

    /// Another spare for a volume.
    pub fn add_spare(&mut self, volume: &VolumeId, spare: Replica) {
        self.pool.entry(volume.clone()).or_default().push(spare);
    }

    /// The volume of that name.
    #[must_use]
    pub fn volume(&self, id: &VolumeId) -> Option<&Volume> {
        self.volumes.iter().find(|volume| volume.id == *id)
    }

    /// What the provisioner thinks of a replica of any volume.
    #[must_use]
    pub fn state_of(&self, replica: &ReplicaId) -> Option<ReplicaState> {
        self.volumes.iter().find_map(|v| v.replica(replica)).map(|r| r.state)
    }

    /// Every replica of every volume, and what the provisioner thinks of it.
    #[must_use]
    pub fn states(&self) -> Vec<(ReplicaId, ReplicaState)> {
        let all = self.volumes.iter().flat_map(|volume| &volume.replicas);
        all.map(|replica| (replica.id.clone(), replica.state)).collect()
    }

    /// Every call that reached it, oldest first, repetitions included.
    #[must_use]
    pub fn received(&self) -> &[ProvisionerCall] {
        &self.received
    }

    /// How many replacements it has given out, ever.
    #[must_use]
    pub fn grants(&self) -> usize {
        let granted = |request: &&Request| match &request.state {
            RequestState::Granted { .. } => true,
            RequestState::Closed { .. } | RequestState::Pending { .. } => false,
        };
        self.requests.values().filter(granted).count()
    }

    /// Whether what was granted for that replica has been taken up: then it is not good again for
    /// anybody.
    #[must_use]
    pub fn has_a_successor_in_use(&self, lost: &ReplicaId) -> bool {
        self.requests.values().filter(|request| request.lost == *lost).any(|request| match &request
            .state
        {
            RequestState::Granted { taken_up, .. } => *taken_up,
            RequestState::Pending { .. } | RequestState::Closed { .. } => false,
        })
    }

    /// How many keys a replacement was ever asked for under.
    #[must_use]
    pub fn request_keys(&self) -> usize {
        self.requests.len()
    }

    fn edit(&mut self, id: &VolumeId) -> Option<&mut Volume> {
        self.volumes.iter_mut().find(|volume| volume.id == *id)
    }

    fn set_state(&mut self, volume: &VolumeId, replica: &ReplicaId, state: ReplicaState) {
        if let Some(volume) = self.edit(volume)
            && let Some(found) = volume.replicas.iter_mut().find(|r| r.id == *replica)
        {
            found.state = state;
        }
    }

    /// The provisioner wants this replica out.
    pub fn terminate(&mut self, volume: &VolumeId, replica: &ReplicaId) {
        self.set_state(volume, replica, ReplicaState::Terminating);
        self.close(volume, replica, "the granted replica is on its way out");
    }

    /// The provisioner wants this replica after all.
    pub fn want_again(&mut self, volume: &VolumeId, replica: &ReplicaId) {
        self.set_state(volume, replica, ReplicaState::Available);
    }

    /// The provisioner takes a replica out of the volume, as if it had never offered it.
    pub fn drop_replica(&mut self, volume: &VolumeId, replica: &ReplicaId) {
        self.close(volume, replica, "the granted replica was taken back");
        if let Some(volume) = self.edit(volume) {
            volume.replicas.retain(|known| known.id != *replica);
        }
    }

    /// The provisioner knows nothing of the volume any more.
    pub fn forget_volume(&mut self, volume: &VolumeId) {
        self.volumes.retain(|known| known.id != *volume);
    }

    /// It knows the volume by its alias only.
    pub fn forget_array(&mut self, volume: &VolumeId) {
        for known in self.volumes.iter_mut().filter(|known| known.id == *volume) {
            known.array = None;
        }
    }

    /// The volume shall have this many copies. More copies come from the pool at once.
    pub fn set_copies(&mut self, id: &VolumeId, copies: u16) {
        if let Some(volume) = self.edit(id) {
            volume.copies = copies;
        }
        self.fill_up(id);
    }

    /// Brings as many replicas as the volume shall have.
    fn fill_up(&mut self, id: &VolumeId) {
        let spares = self.pool.entry(id.clone()).or_default();
        let Some(volume) = self.volumes.iter_mut().find(|volume| volume.id == *id) else {
            return;
        };
        while volume.replicas.len() < usize::from(volume.copies) && !spares.is_empty() {
            let mut replica = spares.remove(0);
            replica.state = ReplicaState::Synchronizing;
            volume.replicas.push(replica);
        }
    }

    /// The provisioner replaces a replica without being asked.
    pub fn replace_by_itself(&mut self, id: &VolumeId, lost: &ReplicaId) {
        let Some(mut spare) =
            self.pool.get_mut(id).and_then(|p| (!p.is_empty()).then(|| p.remove(0)))
        else {
            return;
        };
        spare.state = ReplicaState::Synchronizing;
        if let Some(volume) = self.edit(id) {
            volume.replicas.push(spare);
        }
        self.set_state(id, lost, ReplicaState::Bad);
        self.close(id, lost, "the granted replica was replaced");
    }

    /// One call. The same key never has a second effect.
    ///
    /// # Errors
    /// What a vendor's backend would say.
    pub fn call(&mut self, call: &ProvisionerCall) -> Answer {
        if self.mood.down {
            return Err(fault(FaultClass::Unreachable, "connection refused"));
        }
        self.received.push(call.clone());
        let answer = match call {
            ProvisionerCall::FindVolume(query) => self.find(query),
            ProvisionerCall::Report { volume, replica, condition, key, since: _ } => {
                self.report(volume, replica, condition, key)
            }
            ProvisionerCall::RequestReplacement { volume, lost, key, why: _ } => {
                self.request(volume, lost, key).map(ProvisionerAnswer::Replacement)
            }
            ProvisionerCall::ConfirmRemoved { volume, replica, key } => {
                self.confirm_removed(volume, replica, key)
            }
        };
        if std::mem::take(&mut self.mood.lose_answer) {
            return Err(fault(FaultClass::Unreachable, "the connection broke before the answer"));
        }
        answer
    }

    fn find(&self, query: &VolumeQuery) -> Answer {
        let by_array = |v: &&Volume| v.array == Some(query.array);
        let by_alias =
            |v: &&Volume| v.array.is_none() && v.alias.is_some() && v.alias == query.alias;
        let volumes = self.mood.stale.as_ref().unwrap_or(&self.volumes);
        let found =
            volumes.iter().find(by_array).or_else(|| volumes.iter().find(by_alias)).cloned();
        if self.mood.nonsense
            && let Some(volume) = found
        {
            // What `Volume::check` finds before anything is concluded.
            let copies = 0;
            return Err(fault(
                FaultClass::Invalid,
                format!("volume {} asks for {copies} copies", volume.id),
            ));
        }
        let mut found = found;
        if let (Some(portal), Some(volume)) = (&self.mood.lists_portal, &mut found) {
            for replica in &mut volume.replicas {
                replica.target.portals.push(portal.clone());
            }
        }
        if let (Some((lied, state)), Some(volume)) = (&self.mood.lie, &mut found) {
            for replica in volume.replicas.iter_mut().filter(|replica| replica.id == *lied) {
                replica.state = *state;
            }
        }
        Ok(ProvisionerAnswer::Volume(found))
    }

    /// From now on `find_volume` answers what is so now, or the truth again.
    pub fn stand_still(&mut self, stale: bool) {
        self.mood.stale = stale.then(|| self.volumes.clone());
    }

    /// Whether its answers break what it promised.
    #[must_use]
    pub fn breaks_contract(&self) -> bool {
        let mood = &self.mood;
        mood.nonsense
            || mood.garbage.is_some()
            || mood.grants_again.is_some()
            || mood.lie.is_some()
            || mood.stale.is_some()
    }

    /// Replicas that could still be given out for a volume.
    #[must_use]
    pub fn spares(&self, volume: &VolumeId) -> usize {
        self.pool.get(volume).map_or(0, Vec::len)
    }

    fn known(&self, volume: &VolumeId, replica: &ReplicaId) -> Result<(), ProvisionerFault> {
        let volume = self
            .volume(volume)
            .ok_or_else(|| fault(FaultClass::NotFound, format!("no volume {volume}")))?;
        match volume.replica(replica) {
            Some(_) => Ok(()),
            None => Err(fault(FaultClass::NotFound, format!("no replica {replica}"))),
        }
    }

    fn report(
        &mut self,
        volume: &VolumeId,
        replica: &ReplicaId,
        condition: &Condition,
        key: &CallKey,
    ) -> Answer {
        if self.done.contains(key) {
            return Ok(ProvisionerAnswer::Noted);
        }
        self.known(volume, replica)?;
        self.done.insert(key.clone());
        match condition {
            Condition::Missing => self.set_unless_leaving(volume, replica, ReplicaState::Missing),
            Condition::Synchronizing => {
                self.take_up(volume, replica);
                self.set_unless_leaving(volume, replica, ReplicaState::Synchronizing);
            }
            // One that is on its way out is no less so for being seen.
            Condition::Available if self.is_leaving(volume, replica) => {}
            Condition::Available => {
                self.take_up(volume, replica);
                if self.withdraw(volume, replica) {
                    self.set_unless_leaving(volume, replica, ReplicaState::Available);
                }
            }
            Condition::Unusable { .. } if self.mood.keeps_unusable => {}
            Condition::Unusable { .. } => {
                self.close(volume, replica, "the replica was unusable");
                self.set_state(volume, replica, ReplicaState::Bad);
            }
        }
        Ok(ProvisionerAnswer::Noted)
    }

    /// A replica that is on its way out, or bad, stays so whatever the host sees of it.
    fn set_unless_leaving(&mut self, volume: &VolumeId, replica: &ReplicaId, to: ReplicaState) {
        let now = self.volume(volume).and_then(|v| v.replica(replica)).map(|r| r.state);
        match now {
            Some(ReplicaState::Terminating | ReplicaState::Bad) | None => {}
            Some(
                ReplicaState::Available
                | ReplicaState::Synchronizing
                | ReplicaState::Missing
                | ReplicaState::Unknown,
            ) => self.set_state(volume, replica, to),
        }
    }

    fn is_leaving(&self, volume: &VolumeId, replica: &ReplicaId) -> bool {
        let known = self.volume(volume).and_then(|volume| volume.replica(replica));
        known.is_some_and(|replica| replica.state.is_leaving())
    }

    fn take_up(&mut self, id: &VolumeId, granted: &ReplicaId) {
        for request in self.requests.values_mut().filter(|r| r.volume == *id) {
            if let RequestState::Granted { replica, taken_up, .. } = &mut request.state
                && replica.id == *granted
            {
                *taken_up = true;
            }
        }
    }

    /// The lost one is back: what was not taken up goes back into the pool. Answers whether the
    /// replica may count as good.
    fn withdraw(&mut self, id: &VolumeId, back: &ReplicaId) -> bool {
        let mut returned = Vec::new();
        let mut good = true;
        for request in self.requests.values_mut() {
            if request.volume != *id || request.lost != *back {
                continue;
            }
            match &request.state {
                RequestState::Pending { .. } => {}
                // What was granted by mistake is a replica of the volume all the same.
                RequestState::Granted { taken_up: false, mistaken: true, .. } => {}
                RequestState::Granted { replica, taken_up: false, .. } => {
                    returned.push(replica.clone());
                }
                RequestState::Granted { taken_up: true, .. } => {
                    good = false;
                    continue;
                }
                RequestState::Closed { .. } => continue,
            }
            request.state = RequestState::Closed { why: "the lost replica came back" };
        }
        for replica in returned {
            if let Some(volume) = self.edit(id) {
                volume.replicas.retain(|r| r.id != replica.id);
            }
            self.pool.entry(id.clone()).or_default().insert(0, replica);
        }
        good
    }

    fn close(&mut self, id: &VolumeId, granted: &ReplicaId, why: &'static str) {
        for request in self.requests.values_mut().filter(|r| r.volume == *id) {
            let is_it = match &request.state {
                RequestState::Granted { replica, .. } => replica.id == *granted,
                RequestState::Pending { .. } | RequestState::Closed { .. } => false,
            };
            if is_it {
                request.state = RequestState::Closed { why };
            }
        }
    }

    fn request(
        &mut self,
        volume: &VolumeId,
        lost: &ReplicaId,
        key: &CallKey,
    ) -> Result<Replacement, ProvisionerFault> {
        if let Some(earlier) = self.requests.get(key) {
            if earlier.volume != *volume || earlier.lost != *lost {
                return Err(fault(FaultClass::Refused, "that key was used for another request"));
            }
            match &earlier.state {
                RequestState::Granted { replica, .. } => {
                    return Ok(Replacement::Granted(replica.clone()));
                }
                RequestState::Closed { why } => return Err(fault(FaultClass::Refused, why)),
                RequestState::Pending { .. } => {}
            }
        }
        self.known(volume, lost)?;
        if let Some(why) = &self.mood.refuse {
            return Err(fault(FaultClass::Refused, why));
        }
        if let Some(garbage) = &self.mood.garbage {
            return Ok(Replacement::Granted(garbage.clone()));
        }
        let under_another_key = self
            .requests
            .iter()
            .find(|(k, r)| *k != key && r.volume == *volume && r.lost == *lost && r.is_open());
        if let Some((other, open)) = under_another_key {
            return match &open.state {
                RequestState::Granted { replica, .. } => Ok(Replacement::Granted(replica.clone())),
                RequestState::Pending { .. } | RequestState::Closed { .. } => {
                    // What is being made goes on being made, whoever asks for it.
                    let other = other.clone();
                    match self.grant(volume, lost, &other)? {
                        Replacement::Pending { .. } => Err(fault(
                            FaultClass::Refused,
                            "a request for it is open under another key",
                        )),
                        made @ Replacement::Granted(_) => Ok(made),
                    }
                }
            };
        }
        self.grant(volume, lost, key)
    }

    fn grant(
        &mut self,
        volume: &VolumeId,
        lost: &ReplicaId,
        key: &CallKey,
    ) -> Result<Replacement, ProvisionerFault> {
        let asked = match self.requests.get(key).map(|r| &r.state) {
            Some(RequestState::Pending { asked }) => asked + 1,
            Some(RequestState::Granted { .. } | RequestState::Closed { .. }) | None => 1,
        };
        let state = if asked <= self.mood.pending {
            RequestState::Pending { asked }
        } else {
            let again = self.mood.grants_again.as_ref();
            let again = again.and_then(|id| self.volume(volume)?.replica(id)).cloned();
            let mistaken = again.is_some();
            let mut replica = match again {
                Some(again) => again,
                None => self.take_spare(volume, lost)?,
            };
            replica.state = ReplicaState::Synchronizing;
            if let Some(volume) = self.edit(volume)
                && volume.replica(&replica.id).is_none()
            {
                volume.replicas.push(replica.clone());
            }
            self.set_unless_leaving(volume, lost, ReplicaState::Missing);
            RequestState::Granted { replica, taken_up: false, mistaken }
        };
        let answer = match &state {
            RequestState::Granted { replica, .. } => Replacement::Granted(replica.clone()),
            RequestState::Pending { .. } | RequestState::Closed { .. } => {
                Replacement::Pending { after: Duration::from_secs(2) }
            }
        };
        let request = Request { volume: volume.clone(), lost: lost.clone(), state };
        self.requests.insert(key.clone(), request);
        Ok(answer)
    }

    /// The first spare that is at least as large as the lost replica.
    fn take_spare(
        &mut self,
        volume: &VolumeId,
        lost: &ReplicaId,
    ) -> Result<Replica, ProvisionerFault> {
        let needs = self.volume(volume).and_then(|v| v.replica(lost)).and_then(|r| r.target.size);
        let pool = self.pool.entry(volume.clone()).or_default();
        let fits = |spare: &Replica| spare.target.size >= needs;
        match pool.iter().position(fits) {
            Some(index) => Ok(pool.remove(index)),
            None => Err(fault(FaultClass::Refused, "no spare replica is left")),
        }
    }

    fn confirm_removed(&mut self, volume: &VolumeId, replica: &ReplicaId, key: &CallKey) -> Answer {
        if !self.done.insert(key.clone()) {
            return Ok(ProvisionerAnswer::Noted);
        }
        self.close(volume, replica, "the granted replica was removed");
        if let Some(volume) = self.edit(volume) {
            volume.replicas.retain(|r| r.id != *replica);
        }
        // More copies may have been wanted while that one was on its way out.
        self.fill_up(volume);
        Ok(ProvisionerAnswer::Noted)
    }
}

/// A volume with these replicas, as most stories begin.
#[must_use]
pub fn volume(
    id: VolumeId,
    array: ArrayId,
    alias: Option<Alias>,
    replicas: Vec<Replica>,
    grace: Option<GracePolicy>,
) -> Volume {
    Volume {
        id,
        array: Some(array),
        alias,
        copies: u16::try_from(replicas.len()).unwrap_or(u16::MAX),
        replicas,
        grace,
    }
}
