//! From what the provisioner lists to what the contract shows. Pure functions of its answers and
//! our notes.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use heal_types::{
    Alias, ArrayId, CallKey, FaultClass, GracePolicy, NamespaceId, Nqn, Portal, ProvisionerFault,
    Replica, ReplicaId, ReplicaState, Target, TransportAddress, TransportKind, Volume, VolumeId,
};

use super::notes::{Grant, Stage, State};
use super::wire;
use crate::ReplicaRef;
use crate::store::{Answered, Said};

/// More replicas of one volume are not believed.
const MOST_REPLICAS: u16 = 64;
/// The longest host name the provisioner takes.
const MAX_HOST_NAME: usize = 32;

fn fault(class: FaultClass, detail: impl std::fmt::Display) -> ProvisionerFault {
    ProvisionerFault::new(class, detail)
}

fn invalid(detail: impl std::fmt::Display) -> ProvisionerFault {
    fault(FaultClass::Invalid, detail)
}

/// A volume with its replicas in their places.
#[derive(Debug)]
pub(super) struct Shown {
    alias: Option<Alias>,
    copies: u16,
    grace: Option<GracePolicy>,
    pub(super) replicas: Vec<Replica>,
}

impl Shown {
    pub(super) fn into_volume(self, id: VolumeId, array: Option<ArrayId>) -> Volume {
        let Self { alias, copies, grace, replicas } = self;
        Volume { id, array, alias, copies, replicas, grace }
    }
}

/// Where things are.
pub(super) struct Place<'a> {
    pub(super) targets: &'a [wire::Target],
    pub(super) backends: &'a BTreeMap<String, wire::Backend>,
    /// Where replicas were.
    pub(super) known: &'a BTreeMap<ReplicaId, Target>,
}

pub(super) fn id(volume: &wire::Volume) -> Result<VolumeId, ProvisionerFault> {
    VolumeId::new(&volume.uuid).map_err(invalid)
}

fn locations(volume: &wire::Volume) -> &[wire::Location] {
    volume.location.as_ref().map(|list| list.0.as_slice()).unwrap_or_default()
}

/// Whether the listing makes sense as a whole. Asked of every listing before anything is concluded
/// from any part of it: half-believed answers are how arrays lose their last copy.
pub(super) fn check(listed: &wire::Volume) -> Result<(), ProvisionerFault> {
    let id = id(listed)?;
    grace(listed)?;
    match listed.num_replicas {
        Some(1..=MOST_REPLICAS) => {}
        Some(count) => return Err(invalid(format_args!("volume {id} has {count} replicas"))),
        None => return Err(invalid(format_args!("volume {id} has no numReplicas"))),
    }
    let mut namespaces = BTreeSet::new();
    for location in locations(listed) {
        ReplicaId::new(&location.uuid).map_err(invalid)?;
        let namespace: NamespaceId = location.uuid.parse().map_err(invalid)?;
        if !namespaces.insert(namespace) {
            return Err(invalid(format_args!("volume {id} lists {namespace} twice")));
        }
        if location.current_state_time.is_some_and(|time| !time.is_finite() || time < 0.0) {
            return Err(invalid(format_args!("{namespace} has an impossible currentStateTime")));
        }
    }
    if namespaces.len() > usize::from(MOST_REPLICAS) {
        return Err(invalid(format_args!("volume {id} lists {} replicas", namespaces.len())));
    }
    Ok(())
}

/// The location of that name.
pub(super) fn location<'a>(
    volume: &'a wire::Volume,
    replica: &ReplicaId,
) -> Option<&'a wire::Location> {
    locations(volume).iter().find(|location| location.uuid == replica.as_str())
}

/// A listed replica's state, as far as it is to be believed.
pub(super) fn state_of(
    listed: &wire::Volume,
    state: &State,
    volume: &VolumeId,
    replica: &ReplicaId,
) -> Option<ReplicaState> {
    let location = location(listed, replica)?;
    if state.is_bad(volume, replica) {
        return Some(ReplicaState::Bad);
    }
    Some(match location.replica_state.as_deref() {
        Some("Terminating") => ReplicaState::Terminating,
        // Nobody wrote to it yet, whatever it is called.
        _ if state.is_untouched(volume, replica) => ReplicaState::Synchronizing,
        Some("Available") => ReplicaState::Available,
        Some("Synchronizing") => ReplicaState::Synchronizing,
        Some("Missing") => ReplicaState::Missing,
        Some(_) | None => ReplicaState::Unknown,
    })
}

/// The whole volume as the contract shows it.
pub(super) fn show(
    listed: &wire::Volume,
    place: &Place<'_>,
    state: &State,
) -> Result<Shown, ProvisionerFault> {
    let id = id(listed)?;
    if place.targets.is_empty() {
        return Err(fault(
            FaultClass::Refused,
            format_args!("volume {id} is not published to this host"),
        ));
    }
    let mut replicas = Vec::new();
    for location in locations(listed) {
        replicas.extend(show_replica(listed, &id, location, place, state)?);
    }
    Ok(Shown {
        alias: listed.alias.as_deref().and_then(|alias| Alias::new(alias).ok()),
        copies: copies(listed, &id, state)?,
        grace: grace(listed)?,
        replicas,
    })
}

fn show_replica(
    listed: &wire::Volume,
    volume: &VolumeId,
    location: &wire::Location,
    place: &Place<'_>,
    state: &State,
) -> Result<Option<Replica>, ProvisionerFault> {
    let id = ReplicaId::new(&location.uuid).map_err(invalid)?;
    let namespace: NamespaceId = location.uuid.parse().map_err(invalid)?;
    let seen = state_of(listed, state, volume, &id).unwrap_or(ReplicaState::Unknown);
    if let Some(time) = location.current_state_time {
        tracing::trace!(replica = %id, state = ?seen, milliseconds = time, "listed");
    }
    let known = place.known.get(&id);
    let nqn = nqn(location, place.targets)?.or_else(|| known.map(|known| known.nqn.clone()));
    let portals = match location.backend().and_then(|backend| place.backends.get(backend)) {
        Some(backend) => portals(backend)?,
        None => known.map(|known| known.portals.clone()).unwrap_or_default(),
    };
    match nqn {
        Some(nqn) if !portals.is_empty() || !seen.is_offered() => {
            let target = Target { nqn, namespace, portals, size: None };
            Ok(Some(Replica { id, state: seen, target }))
        }
        // It is nowhere, and nobody offers it.
        None if !seen.is_offered() => Ok(None),
        // Given, and its target is still being made.
        Some(_) | None if state.is_untouched(volume, &id) => Ok(None),
        Some(_) => Err(invalid(format_args!("replica {id} is offered and has no portal"))),
        None => Err(fault(
            FaultClass::Refused,
            format_args!("replica {id} of {volume} is not published to this host"),
        )),
    }
}

/// The subsystem of a replica: that of its backend, or the host's only one.
fn nqn(
    location: &wire::Location,
    targets: &[wire::Target],
) -> Result<Option<Nqn>, ProvisionerFault> {
    let of_backend = |target: &&wire::Target| {
        let on = target.backend.as_ref().and_then(|backend| backend.persistent_id.as_deref());
        on.is_some() && on == location.backend()
    };
    let for_host = |target: &&wire::Target| target.name.is_some() && target.backend.is_none();
    let target = targets.iter().find(of_backend).or_else(|| {
        let mut for_hosts = targets.iter().filter(for_host);
        for_hosts.next().filter(|_| for_hosts.next().is_none())
    });
    let name = target.and_then(|target| target.name.as_deref().or(target.target_name.as_deref()));
    name.map(|name| Nqn::new(name).map_err(invalid)).transpose()
}

fn portals(backend: &wire::Backend) -> Result<Vec<Portal>, ProvisionerFault> {
    let listed = backend.portals.as_ref().map(|list| list.0.as_slice()).unwrap_or_default();
    listed
        .iter()
        .map(|portal| {
            Ok(Portal {
                transport: match portal.transport.as_deref() {
                    Some(word) if word.eq_ignore_ascii_case("RoCEv2") => TransportKind::Rdma,
                    Some(_) | None => TransportKind::Tcp,
                },
                address: TransportAddress::new(&portal.ip).map_err(invalid)?,
                port: portal.port.number().ok_or_else(|| {
                    invalid(format_args!("a portal of {} without port", backend.persistent_id))
                })?,
                host_address: None,
                host_interface: None,
            })
        })
        .collect()
}

/// How many copies are wanted. A provisioner that counts the replica it added counts one too many
/// as long as the lost one is listed beside it.
fn copies(
    listed: &wire::Volume,
    volume: &VolumeId,
    state: &State,
) -> Result<u16, ProvisionerFault> {
    let said = listed
        .num_replicas
        .ok_or_else(|| invalid(format_args!("volume {volume} has no numReplicas")))?;
    let both = |grant: &&Grant| {
        let listed_new = grant.replica().is_some_and(|new| location(listed, new).is_some());
        let held = grant.replica().is_some_and(|new| grant.holds(new));
        held && listed_new && location(listed, &grant.lost).is_some()
    };
    let doubled = state.of(volume).filter(both).count();
    if doubled == 0 {
        return Ok(said);
    }
    let without = locations(listed).len().saturating_sub(doubled).max(1);
    Ok(said.min(u16::try_from(without).unwrap_or(u16::MAX)))
}

/// The volume's own grace, in minutes; zero is never.
fn grace(listed: &wire::Volume) -> Result<Option<GracePolicy>, ProvisionerFault> {
    match listed.max_replica_down_time {
        None => Ok(None),
        Some(0.0) => Ok(Some(GracePolicy::Never)),
        Some(minutes) => match Duration::try_from_secs_f64(minutes * 60.0) {
            Ok(grace) => Ok(Some(GracePolicy::After(grace))),
            Err(_) => Err(invalid(format_args!("a maxReplicaDownTime of {minutes} minutes"))),
        },
    }
}

/// The replica that came after the request.
pub(super) fn newcomer(listed: &wire::Volume, state: &State, grant: &Grant) -> Option<ReplicaId> {
    locations(listed)
        .iter()
        .filter(|location| location.replica_state.as_deref() != Some("Terminating"))
        .filter_map(|location| ReplicaId::new(&location.uuid).ok())
        .find(|id| {
            !grant.before.contains(id)
                && !state.is_claimed(&grant.volume, id)
                && !state.is_bad(&grant.volume, id)
        })
}

/// Whether a request still stands: nothing that was given is lost, bad or gone.
pub(super) fn is_open(listed: &wire::Volume, state: &State, grant: &Grant) -> bool {
    match &grant.stage {
        Stage::Asked | Stage::Promised => true,
        Stage::Withdrawn(_) => false,
        Stage::Given(replica) | Stage::TakenUp(replica) => {
            state_of(listed, state, &grant.volume, replica).is_some_and(ReplicaState::is_offered)
        }
    }
}

/// A new request, if there may be one. When the volume has as many replicas as it wants without the
/// lost one, somebody has asked already, and the one that is being filled is the answer.
pub(super) fn ask(
    listed: &wire::Volume,
    state: &State,
    lost: ReplicaRef<'_>,
    key: &CallKey,
    most: usize,
) -> Result<Grant, ProvisionerFault> {
    let (volume, lost) = (lost.volume, lost.replica);
    if location(listed, lost).is_none() {
        let text = format_args!("volume {volume} has no replica {lost}");
        return Err(fault(FaultClass::NotFound, text));
    }
    let before: Vec<ReplicaId> =
        locations(listed).iter().filter_map(|l| ReplicaId::new(&l.uuid).ok()).collect();
    let offered: Vec<(&ReplicaId, ReplicaState)> = before
        .iter()
        .filter(|id| *id != lost)
        .filter_map(|id| Some((id, state_of(listed, state, volume, id)?)))
        .filter(|(_, state)| state.is_offered())
        .collect();
    let grant = |stage| Grant {
        keys: vec![key.clone()],
        volume: volume.clone(),
        lost: lost.clone(),
        before: before.clone(),
        stage,
        heard: false,
        looks: 0,
    };
    if offered.len() >= usize::from(copies(listed, volume, state)?) {
        let filling: Vec<&ReplicaId> = offered
            .iter()
            .filter(|(id, is)| *is == ReplicaState::Synchronizing && !state.is_claimed(volume, id))
            .map(|(id, _)| *id)
            .collect();
        return match filling[..] {
            [only] => Ok(grant(Stage::Given(only.clone()))),
            _ => Err(fault(
                FaultClass::Refused,
                format_args!(
                    "volume {volume} has {} replicas without {lost}, as many as it is meant to have",
                    offered.len()
                ),
            )),
        };
    }
    if before.len() >= most {
        return Err(fault(
            FaultClass::Refused,
            format_args!("volume {volume} has {} replicas, the most there can be", before.len()),
        ));
    }
    Ok(grant(Stage::Asked))
}

/// The host spoke of `replica`.
pub(super) fn heard(grant: &mut Grant, replica: &ReplicaId, said: Said) {
    if !grant.holds(replica) {
        return;
    }
    grant.heard = true;
    match said {
        Said::Synchronizing | Said::Available => grant.stage = Stage::TakenUp(replica.clone()),
        Said::Missing | Said::Unusable | Said::Removed => {}
    }
}

/// A word on a replica that the volume does not list.
pub(super) fn report_unlisted(state: &State, call: &Answered) -> Result<(), ProvisionerFault> {
    let (volume, replica) = (&call.volume, &call.replica);
    let withdrawn = state.of(volume).any(|grant| match &grant.stage {
        Stage::Withdrawn(Some(new)) => new == replica,
        Stage::Withdrawn(None)
        | Stage::Asked
        | Stage::Promised
        | Stage::Given(_)
        | Stage::TakenUp(_) => false,
    });
    let uses = match call.said {
        Said::Synchronizing | Said::Available => true,
        Said::Missing | Said::Unusable | Said::Removed => false,
    };
    if withdrawn && uses {
        return Err(fault(
            FaultClass::Refused,
            format_args!("replica {replica} was withdrawn and is deleted"),
        ));
    }
    if withdrawn || state.was_removed(volume, replica) {
        return Ok(());
    }
    Err(fault(FaultClass::NotFound, format_args!("volume {volume} has no replica {replica}")))
}

/// Whether the volume has a good copy beside `replica`.
pub(super) fn another_is_good(
    listed: &wire::Volume,
    state: &State,
    volume: &VolumeId,
    replica: &ReplicaId,
) -> bool {
    locations(listed)
        .iter()
        .filter_map(|location| ReplicaId::new(&location.uuid).ok())
        .filter(|id| id != replica)
        .any(|id| state_of(listed, state, volume, &id) == Some(ReplicaState::Available))
}

/// The host's name as the vendor's clients write it.
pub(super) fn host_name(name: &str) -> String {
    let name = name.replace('.', "-").to_lowercase();
    if name.len() <= MAX_HOST_NAME {
        return name;
    }
    format!("{:x}", md5::compute(name.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_named_as_the_vendors_clients_name_it() {
        assert_eq!(host_name("Node7.example.com"), "node7-example-com");
        let long = "a-very-long-host-name-of-a-node.example.com";
        assert_eq!(host_name(long).len(), 32);
        assert_eq!(host_name(""), "");
    }
}
