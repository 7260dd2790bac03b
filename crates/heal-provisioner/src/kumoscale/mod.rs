//! Kioxia KumoScale.
//!
//! A provisioner with a REST interface that was made for one polling client: it has no idempotency
//! keys, says yes without saying which, and answers nearly everything with status 200. This backend
//! puts the contract on top of it.
//!
//! ```text
//!   the contract's call          what is noted first        what the provisioner is asked
//!   find_volume                                             volumes · volumes_by_alias · targets · backends
//!   report                       the key, after             PATCH replica/v/r/State
//!   request_replacement          key, and who is there      POST replica/v, then: who is new?
//!   report Available (lost one)                             PATCH State, then delete the new one
//!   confirm_removed              the key, after             PATCH replica/v/r, DELETE replica/v/r
//! ```
//!
//! - **Who is new?** A request is noted with the list of replicas *before* it is sent. Whatever
//!   became of the answer, the replica that is there afterwards and was not before is the one; a
//!   second is asked for only when the first did not come. Changes of one backend are made one
//!   after the other.
//! - **A replica nobody spoke of is empty.** The provisioner may call it `Available` from the
//!   start; until the host has said a word of it, it is shown as `Synchronizing`.
//! - **The last good copy is not deleted.** `confirm_removed` is refused unless another replica is
//!   `Available`. The vendor's agent asked for the deletion of the old replica as soon as the new
//!   one was attached and still empty.
//! - **Not published is not ours.** A volume that has no target for this host is being attached or
//!   detached by somebody: the answer is a refusal, and nothing is published by a look.
//!
//! The price: notes on the host's disk. Without them (a new disk, an empty directory) a request is
//! answered with the volume's newcomer if there is exactly one, and refused otherwise.

pub mod conf;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod notes;
mod rest;
mod volume;
mod wire;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Mutex as Cache, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use heal_types::{
    CallKey, Condition, FaultClass, ProvisionerFault, Replacement, ReplicaId, ReplicaState, Target,
    Volume, VolumeId, VolumeQuery, WallTime,
};
use tokio::sync::{Mutex, MutexGuard};
use tokio::time::timeout_at;

use crate::client::ClientOptions;
use crate::contract::live::Stages;
use crate::contract::{KnownBy, Stage as Wanted};
use crate::store::Notebook;
use crate::text::printable;
use crate::{
    CallContext, Capabilities, ForwardedEvent, HostInfo, Provisioner, ReplicaRef, Severity,
};
use notes::{Grant, Stage, State};

use crate::store::{Answered, Said};
pub use rest::{HOST_ID_FILE, host_id};
use rest::{Rest, Told};
use volume::{Place, Shown};

/// The port of the provisioner where nothing else is said.
pub const DEFAULT_PORT: u16 = 8090;

/// More replicas than this no volume has.
const MAX_REPLICAS: usize = 4;
/// How long until a replica that was promised is looked for again.
const PROMISED_AGAIN: Duration = Duration::from_secs(1);
/// How often it is, before it is asked for anew.
const PROMISED_LOOKS: u32 = 120;
/// The same for a question whose answer was lost.
const ASKED_AGAIN: Duration = Duration::from_secs(5);
const ASKED_LOOKS: u32 = 3;
/// Places of replicas that are remembered while they are nowhere.
const MAX_PLACES: usize = 4096;

/// How the backend is set up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KumoScaleOptions {
    /// Where the provisioner is, whom to believe, who we are.
    pub client: ClientOptions,
    /// This host's id, as volumes are published to it. Without it targets are asked for by volume
    /// alone, and nothing can be published.
    pub host_id: Option<String>,
    /// Our own notes. Its directory must exist.
    pub state: PathBuf,
    /// The most replicas a volume may have; the product's limit is four.
    pub max_replicas: usize,
}

impl KumoScaleOptions {
    /// With the product's limits.
    #[must_use]
    pub fn new(client: ClientOptions, host_id: Option<String>, state: PathBuf) -> Self {
        Self { client, host_id, state, max_replicas: MAX_REPLICAS }
    }
}

/// The backend.
#[derive(Debug)]
pub struct KumoScale {
    rest: Rest,
    host_id: Option<String>,
    max_replicas: usize,
    notes: Notebook<State>,
    /// One change at a time: "who is new" has one answer only if nobody else asks for one
    /// meanwhile.
    turn: Mutex<()>,
    seen: Cache<Seen>,
    nqn: Cache<Option<String>>,
}

/// What earlier answers taught.
#[derive(Debug, Default)]
struct Seen {
    /// Where replicas are, for when the provisioner no longer knows.
    places: BTreeMap<ReplicaId, Target>,
    /// Volumes whose array bears their UUID: no array of another UUID is theirs, whatever its name.
    by_uuid: BTreeMap<VolumeId, ()>,
}

fn fault(class: FaultClass, detail: impl std::fmt::Display) -> ProvisionerFault {
    ProvisionerFault::new(class, detail)
}

impl KumoScale {
    /// A backend. Nobody is called, and no file is read, before the first call.
    #[must_use]
    pub fn new(options: KumoScaleOptions) -> Self {
        Self {
            rest: Rest::new(options.client),
            host_id: options.host_id,
            max_replicas: options.max_replicas,
            notes: Notebook::new(options.state),
            turn: Mutex::default(),
            seen: Cache::default(),
            nqn: Cache::default(),
        }
    }

    async fn turn(&self, context: &CallContext) -> Result<MutexGuard<'_, ()>, ProvisionerFault> {
        timeout_at(context.deadline, self.turn.lock())
            .await
            .map_err(|_| fault(FaultClass::Unreachable, "an earlier call is still under way"))
    }

    /// The volume as the provisioner lists it; a volume it does not have is a fault here.
    async fn listed(
        &self,
        context: &CallContext,
        volume: &VolumeId,
    ) -> Result<wire::Volume, ProvisionerFault> {
        self.rest.volume(context, volume).await?.ok_or_else(|| {
            fault(FaultClass::NotFound, format_args!("the provisioner has no volume {volume}"))
        })
    }

    /// Everything about a volume, put together.
    async fn assemble(
        &self,
        context: &CallContext,
        volume: wire::Volume,
        state: &State,
    ) -> Result<Shown, ProvisionerFault> {
        let targets = self.rest.targets(context, self.host_id.as_deref(), &volume.uuid).await?;
        let backends = self.rest.backends(context).await?;
        let known = {
            let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            seen.places.clone()
        };
        let place = Place { targets: &targets, backends: &backends, known: &known };
        let shown = volume::show(&volume, &place, state)?;
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        for replica in shown.replicas.iter().filter(|replica| !replica.target.portals.is_empty()) {
            if seen.places.len() < MAX_PLACES || seen.places.contains_key(&replica.id) {
                seen.places.insert(replica.id.clone(), replica.target.clone());
            }
        }
        Ok(shown)
    }

    /// What the noted request stands at, moved on by a look at the volume.
    async fn settle(
        &self,
        context: &CallContext,
        state: &mut State,
        at: usize,
        listed: wire::Volume,
    ) -> Result<Replacement, ProvisionerFault> {
        let grant = state.grants[at].clone();
        match &grant.stage {
            Stage::Given(replica) | Stage::TakenUp(replica) => {
                self.again(context, state, &grant, replica, listed).await
            }
            Stage::Withdrawn(_) => Err(fault(
                FaultClass::Refused,
                "this request was withdrawn when the lost replica came back",
            )),
            Stage::Asked | Stage::Promised => {
                if let Some(replica) = volume::newcomer(&listed, state, &grant) {
                    return self.given(context, state, at, replica, listed).await;
                }
                let (looks, after) = match grant.stage {
                    Stage::Promised => (PROMISED_LOOKS, PROMISED_AGAIN),
                    Stage::Asked | Stage::Given(_) | Stage::TakenUp(_) | Stage::Withdrawn(_) => {
                        (ASKED_LOOKS, ASKED_AGAIN)
                    }
                };
                if grant.looks < looks {
                    state.grants[at].looks += 1;
                    self.notes.write(context, state.clone()).await?;
                    return Ok(Replacement::Pending { after });
                }
                self.ask(context, state, at).await
            }
        }
    }

    /// Asks for a replica under the request at `at`, which is noted first.
    async fn ask(
        &self,
        context: &CallContext,
        state: &mut State,
        at: usize,
    ) -> Result<Replacement, ProvisionerFault> {
        let volume = state.grants[at].volume.clone();
        state.grants[at].stage = Stage::Asked;
        state.grants[at].looks = 0;
        self.notes.write(context, state.clone()).await?;
        match self.rest.add_replica(context, &volume).await {
            Ok(()) => {}
            Err(no) => {
                match no.class {
                    // It may have been heard: the note stays, and the next look decides.
                    FaultClass::Unreachable | FaultClass::Invalid => {}
                    FaultClass::Refused
                    | FaultClass::NotFound
                    | FaultClass::Unauthorized
                    | FaultClass::Unsupported => {
                        state.grants.remove(at);
                        self.notes.write(context, state.clone()).await?;
                    }
                }
                return Err(no);
            }
        }
        state.grants[at].stage = Stage::Promised;
        let listed = self.listed(context, &volume).await?;
        match volume::newcomer(&listed, state, &state.grants[at]) {
            Some(replica) => self.given(context, state, at, replica, listed).await,
            None => {
                self.notes.write(context, state.clone()).await?;
                Ok(Replacement::Pending { after: PROMISED_AGAIN })
            }
        }
    }

    /// The newcomer is the answer: noted, let in, shown.
    async fn given(
        &self,
        context: &CallContext,
        state: &mut State,
        at: usize,
        replica: ReplicaId,
        listed: wire::Volume,
    ) -> Result<Replacement, ProvisionerFault> {
        state.grants[at].stage = Stage::Given(replica.clone());
        self.notes.write(context, state.clone()).await?;
        let grant = &state.grants[at];
        tracing::info!(volume = %grant.volume, lost = %grant.lost, %replica, "replica granted");
        self.mark_lost(context, state, &grant.volume, &grant.lost, &listed).await?;
        self.again(context, state, grant, &replica, listed).await
    }

    /// Asked to be replaced, it is lost, even if the report of that is still on its way.
    async fn mark_lost(
        &self,
        context: &CallContext,
        state: &State,
        volume: &VolumeId,
        lost: &ReplicaId,
        listed: &wire::Volume,
    ) -> Result<(), ProvisionerFault> {
        match volume::state_of(listed, state, volume, lost) {
            Some(ReplicaState::Available | ReplicaState::Synchronizing | ReplicaState::Unknown) => {
                self.rest.set_state(context, volume, lost, Told::Missing).await
            }
            Some(ReplicaState::Missing | ReplicaState::Terminating | ReplicaState::Bad) | None => {
                Ok(())
            }
        }
    }

    /// The same answer as the first time, unless what was given is no longer good for it.
    async fn again(
        &self,
        context: &CallContext,
        state: &State,
        grant: &Grant,
        replica: &ReplicaId,
        listed: wire::Volume,
    ) -> Result<Replacement, ProvisionerFault> {
        let over = |why: &str| {
            let text = format_args!("this request was answered with replica {replica}, {why}");
            Err(fault(FaultClass::Refused, text))
        };
        match volume::state_of(&listed, state, &grant.volume, replica) {
            None => return over("which has been removed since"),
            Some(ReplicaState::Bad) => return over("which must not be used"),
            Some(ReplicaState::Missing) => return over("which has been lost since"),
            Some(ReplicaState::Terminating) => return over("which is on its way out"),
            Some(ReplicaState::Available | ReplicaState::Synchronizing | ReplicaState::Unknown) => {
            }
        }
        if let Some(host) = &self.host_id {
            self.rest.publish(context, host, &grant.volume).await?;
        }
        let shown = self.assemble(context, listed, state).await?;
        match shown.replicas.into_iter().find(|shown| shown.id == *replica) {
            Some(replica) if !replica.target.portals.is_empty() => {
                Ok(Replacement::Granted(replica))
            }
            // Its target is still being made.
            Some(_) | None => Ok(Replacement::Pending { after: PROMISED_AGAIN }),
        }
    }

    /// The request at which a call under `key` for `lost` is already noted.
    fn noted(
        state: &State,
        listed: &wire::Volume,
        lost: ReplicaRef<'_>,
        key: &CallKey,
    ) -> Result<Option<usize>, ProvisionerFault> {
        if let Some(at) = state.grants.iter().position(|grant| grant.keys.contains(key)) {
            let grant = &state.grants[at];
            if grant.volume != *lost.volume || grant.lost != *lost.replica {
                return Err(fault(
                    FaultClass::Refused,
                    format_args!(
                        "this key was used for replica {} of {}",
                        grant.lost, grant.volume
                    ),
                ));
            }
            return Ok(Some(at));
        }
        let open = state.grants.iter().rposition(|grant| {
            grant.volume == *lost.volume
                && grant.lost == *lost.replica
                && volume::is_open(listed, state, grant)
        });
        Ok(open)
    }

    async fn report_in_turn(
        &self,
        context: &CallContext,
        call: Answered,
    ) -> Result<(), ProvisionerFault> {
        let mut state = (*self.notes.read(context).await?).clone();
        if state.was_answered(&call) {
            return Ok(());
        }
        let listed = self.listed(context, &call.volume).await?;
        match volume::state_of(&listed, &state, &call.volume, &call.replica) {
            Some(now) => self.report_listed(context, &mut state, &call, now, &listed).await?,
            None => volume::report_unlisted(&state, &call)?,
        }
        state.remember(call);
        self.notes.write(context, state).await
    }

    async fn report_listed(
        &self,
        context: &CallContext,
        state: &mut State,
        call: &Answered,
        now: ReplicaState,
        listed: &wire::Volume,
    ) -> Result<(), ProvisionerFault> {
        let (volume, replica) = (&call.volume, &call.replica);
        let told = match call.said {
            Said::Missing => Some(Told::Missing),
            Said::Synchronizing => Some(Told::Synchronizing),
            Said::Available => Some(Told::Available),
            Said::Unusable | Said::Removed => None,
        };
        match (told, now) {
            // On its way out, for good: its state is no longer ours to set.
            (_, ReplicaState::Terminating | ReplicaState::Bad) => {}
            (Some(told), _) => {
                let word =
                    volume::location(listed, replica).and_then(|l| l.replica_state.as_deref());
                if word != Some(told.word()) {
                    self.rest.set_state(context, volume, replica, told).await?;
                }
            }
            (None, _) => {
                // Noted before it is asked for: bad it is, whether the provisioner hears it or not.
                state.set_bad(volume, replica);
                self.notes.write(context, state.clone()).await?;
                self.rest.delete_request(context, volume, replica).await?;
            }
        }
        for at in 0..state.grants.len() {
            if state.grants[at].volume != *volume {
                continue;
            }
            volume::heard(&mut state.grants[at], replica, call.said);
            if state.grants[at].lost == *replica && call.said == Said::Available {
                self.withdraw(context, state, at, listed).await?;
            }
        }
        Ok(())
    }

    /// The lost replica is back before another was taken up: that other goes.
    async fn withdraw(
        &self,
        context: &CallContext,
        state: &mut State,
        at: usize,
        listed: &wire::Volume,
    ) -> Result<(), ProvisionerFault> {
        let grant = state.grants[at].clone();
        let new = match &grant.stage {
            Stage::TakenUp(_) | Stage::Withdrawn(_) => return Ok(()),
            Stage::Given(replica) => Some(replica.clone()),
            Stage::Asked | Stage::Promised => volume::newcomer(listed, state, &grant),
        };
        if let Some(new) = &new {
            self.delete(context, state, &grant.volume, new, listed).await?;
        }
        tracing::info!(volume = %grant.volume, lost = %grant.lost, replica = ?new, "request withdrawn");
        state.grants[at].stage = Stage::Withdrawn(new);
        Ok(())
    }

    async fn delete(
        &self,
        context: &CallContext,
        state: &State,
        volume: &VolumeId,
        replica: &ReplicaId,
        listed: &wire::Volume,
    ) -> Result<(), ProvisionerFault> {
        let leaving = volume::location(listed, replica)
            .is_some_and(|location| location.replica_state.as_deref() == Some("Terminating"));
        if !leaving && !state.is_bad(volume, replica) {
            self.rest.delete_request(context, volume, replica).await?;
        }
        self.rest.delete_confirm(context, volume, replica).await
    }
}

/// Only the emulated provisioner has stages.
#[async_trait]
impl Stages for KumoScale {
    async fn stage(
        &self,
        context: &CallContext,
        stage: &Wanted,
        query: &VolumeQuery,
    ) -> Result<(), ProvisionerFault> {
        let other = "11111111-2222-4333-8444-555555555555".to_owned();
        let alias = query.alias.as_ref().map(ToString::to_string).unwrap_or_default();
        let (uuid, alias) = match stage.known_by {
            KnownBy::Array => (rest::hyphenated(&query.array), "another-name".to_owned()),
            KnownBy::Alias => (other, alias),
            KnownBy::Both => (rest::hyphenated(&query.array), alias),
        };
        let spares: Vec<u64> = stage.spares.iter().map(|size| size.0).collect();
        let stage = wire::Stage {
            uuid: &uuid,
            alias: &alias,
            replicas: stage.replicas,
            capacity: stage.size.0,
            spares: &spares,
            host: self.host_id.as_deref().unwrap_or_default(),
        };
        self.rest.stage(context, &stage).await
    }
}

#[async_trait]
impl Provisioner for KumoScale {
    fn name(&self) -> &str {
        "kumoscale"
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { replacement: true, publish: self.host_id.is_some(), forward: true }
    }

    async fn probe(&self, context: &CallContext, host: &HostInfo) -> Result<(), ProvisionerFault> {
        *self.nqn.lock().unwrap_or_else(PoisonError::into_inner) = Some(host.nqn.to_string());
        let id = self.host_id.as_deref().or(host.id.as_deref()).unwrap_or_default();
        let probe = wire::HostProbe {
            client_type: "Agent",
            duration: host.next_within.as_secs(),
            host_id: id,
            host_nqn: host.nqn.as_str(),
            multipath: host.multipath,
            name: &volume::host_name(&host.name),
            version: &host.version,
        };
        self.rest.host_probe(context, &probe).await
    }

    async fn find_volume(
        &self,
        context: &CallContext,
        query: &VolumeQuery,
    ) -> Result<Option<Volume>, ProvisionerFault> {
        let by_uuid = self.rest.volume_by_array(context, &query.array).await?;
        let (listed, array) = match (by_uuid, &query.alias) {
            (Some(listed), _) => (listed, Some(query.array)),
            (None, None) => return Ok(None),
            (None, Some(alias)) => match self.rest.volume_by_alias(context, alias).await? {
                None => return Ok(None),
                Some(listed) => (listed, None),
            },
        };
        let id = volume::id(&listed)?;
        {
            let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            match array {
                Some(_) if seen.by_uuid.len() < MAX_PLACES => {
                    seen.by_uuid.insert(id.clone(), ());
                }
                None if seen.by_uuid.contains_key(&id) => return Ok(None),
                Some(_) | None => {}
            }
        }
        let state = self.notes.read(context).await?;
        let shown = self.assemble(context, listed, &state).await?;
        Ok(Some(shown.into_volume(id, array)))
    }

    async fn report(
        &self,
        context: &CallContext,
        replica: ReplicaRef<'_>,
        condition: &Condition,
        _since: WallTime,
        key: &CallKey,
    ) -> Result<(), ProvisionerFault> {
        let _turn = self.turn(context).await?;
        let said = match condition {
            Condition::Missing => Said::Missing,
            Condition::Synchronizing => Said::Synchronizing,
            Condition::Available => Said::Available,
            Condition::Unusable { why } => {
                let (volume, replica, why) = (replica.volume, replica.replica, printable(why, 200));
                tracing::info!(%volume, %replica, why, "replica unusable");
                Said::Unusable
            }
        };
        let (volume, replica) = (replica.volume.clone(), replica.replica.clone());
        self.report_in_turn(context, Answered { key: key.clone(), volume, replica, said }).await
    }

    async fn request_replacement(
        &self,
        context: &CallContext,
        lost: ReplicaRef<'_>,
        _why: &str,
        key: &CallKey,
    ) -> Result<Replacement, ProvisionerFault> {
        let _turn = self.turn(context).await?;
        let mut state = (*self.notes.read(context).await?).clone();
        let listed = self.listed(context, lost.volume).await?;
        if let Some(at) = Self::noted(&state, &listed, lost, key)? {
            if !state.grants[at].keys.contains(key) {
                state.grants[at].also_under(key);
                self.notes.write(context, state.clone()).await?;
            }
            return self.settle(context, &mut state, at, listed).await;
        }
        let asked = volume::ask(&listed, &state, lost, key, self.max_replicas)?;
        let found = asked.replica().cloned();
        state.add_grant(asked);
        let at = state.grants.len() - 1;
        match found {
            Some(replica) => self.given(context, &mut state, at, replica, listed).await,
            None => self.ask(context, &mut state, at).await,
        }
    }

    async fn confirm_removed(
        &self,
        context: &CallContext,
        replica: ReplicaRef<'_>,
        key: &CallKey,
    ) -> Result<(), ProvisionerFault> {
        let _turn = self.turn(context).await?;
        let mut state = (*self.notes.read(context).await?).clone();
        let (volume, replica) = (replica.volume, replica.replica);
        let call = Answered {
            key: key.clone(),
            volume: volume.clone(),
            replica: replica.clone(),
            said: Said::Removed,
        };
        if state.was_answered(&call) {
            return Ok(());
        }
        // What is not there is removed.
        let Some(listed) = self.rest.volume(context, volume).await? else { return Ok(()) };
        if volume::location(&listed, replica).is_none() {
            return Ok(());
        }
        if !volume::another_is_good(&listed, &state, volume, replica) {
            return Err(fault(
                FaultClass::Refused,
                format_args!("no other replica of {volume} is Available: {replica} is kept"),
            ));
        }
        self.delete(context, &state, volume, replica, &listed).await?;
        state.remember(call);
        self.notes.write(context, state).await
    }

    async fn publish(
        &self,
        context: &CallContext,
        volume: &VolumeId,
    ) -> Result<(), ProvisionerFault> {
        match &self.host_id {
            Some(host) => self.rest.publish(context, host, volume).await,
            None => Err(fault(FaultClass::Unsupported, "this host has no id to publish to")),
        }
    }

    async fn forward(
        &self,
        context: &CallContext,
        event: &ForwardedEvent,
    ) -> Result<(), ProvisionerFault> {
        let nqn = self.nqn.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let host = nqn.or_else(|| self.host_id.clone()).unwrap_or_default();
        let log = wire::ForwardLog {
            app_name: "nvmeof_agent",
            host: &host,
            level: match event.severity {
                Severity::Info => "INFO",
                Severity::Warning => "WARN",
                Severity::Fatal => "FATAL",
            },
            logging_type: "EVENT",
            message: &event.message,
            parameters_list: &event.fields,
        };
        self.rest.forward_log(context, &log).await
    }
}
