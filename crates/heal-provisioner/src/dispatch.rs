//! The one way from the daemon to a backend.
//!
//! A backend is somebody else's code talking to somebody else's machine. Whatever comes back is
//! believed only after it passed this module: in time, free of contradictions, and an answer to
//! what was asked. Everything else becomes a fault, and a fault is never an answer.
//!
//! ```text
//!   call, limit ──►  deadline ──►  backend ──►  kind of answer ──►  contradictions ──►  answer
//!                       │             │               │                   │
//!                  Unreachable   its own class     Invalid             Invalid
//! ```
//!
//! The price: a vendor's small slip (a replica listed twice) costs the whole answer. Half-believed
//! answers are how arrays lose their last copy.

use std::future::Future;
use std::time::Duration;

use heal_types::{
    FaultClass, GracePolicy, ProvisionerAnswer, ProvisionerCall, ProvisionerFault, Replacement,
    Replica, ReplicaId, ReplicaState, Volume, VolumeId, VolumeQuery,
};
use tokio::time::timeout_at;

use crate::text::printable;
use crate::{CallContext, ForwardedEvent, HostInfo, Provisioner, ReplicaRef};

/// The longest grace period that is believed.
const LONGEST_GRACE: Duration = Duration::from_secs(366 * 86_400);
/// A pending replacement is asked for again no sooner than this.
const SOONEST_AGAIN: Duration = Duration::from_secs(1);
/// A pending replacement is asked for again no later than this.
const LATEST_AGAIN: Duration = Duration::from_secs(3600);

/// Makes `call` and checks the answer; gives up after `limit`.
///
/// # Errors
/// The backend's own fault; `Unreachable` when `limit` passed; `Invalid` when the answer breaks the
/// contract.
pub async fn call(
    provisioner: &dyn Provisioner,
    call: &ProvisionerCall,
    limit: Duration,
) -> Result<ProvisionerAnswer, ProvisionerFault> {
    let context = CallContext::within(limit);
    in_time(&context, call.verb(), answer(provisioner, &context, call)).await
}

/// [`Provisioner::probe`] with a deadline.
///
/// # Errors
/// The backend's own fault; `Unreachable` when `limit` passed.
pub async fn probe(
    provisioner: &dyn Provisioner,
    host: &HostInfo,
    limit: Duration,
) -> Result<(), ProvisionerFault> {
    let context = CallContext::within(limit);
    in_time(&context, "probe", provisioner.probe(&context, host)).await
}

/// [`Provisioner::publish`] with a deadline.
///
/// # Errors
/// The backend's own fault; `Unreachable` when `limit` passed.
pub async fn publish(
    provisioner: &dyn Provisioner,
    volume: &VolumeId,
    limit: Duration,
) -> Result<(), ProvisionerFault> {
    let context = CallContext::within(limit);
    in_time(&context, "publish", provisioner.publish(&context, volume)).await
}

/// [`Provisioner::forward`] with a deadline.
///
/// # Errors
/// The backend's own fault; `Unreachable` when `limit` passed.
pub async fn forward(
    provisioner: &dyn Provisioner,
    event: &ForwardedEvent,
    limit: Duration,
) -> Result<(), ProvisionerFault> {
    let context = CallContext::within(limit);
    in_time(&context, "forward", provisioner.forward(&context, event)).await
}

async fn in_time<T>(
    context: &CallContext,
    verb: &str,
    call: impl Future<Output = Result<T, ProvisionerFault>>,
) -> Result<T, ProvisionerFault> {
    match timeout_at(context.deadline, call).await {
        Ok(answer) => answer.map_err(|fault| tidy(&fault)),
        Err(_) => Err(ProvisionerFault::new(
            FaultClass::Unreachable,
            format_args!("no answer to {verb} in time"),
        )),
    }
}

/// A backend may have filled the fault's fields by hand: bound the text and keep it on one line.
fn tidy(fault: &ProvisionerFault) -> ProvisionerFault {
    ProvisionerFault::new(fault.class, printable(&fault.detail, usize::MAX))
}

async fn answer(
    provisioner: &dyn Provisioner,
    context: &CallContext,
    call: &ProvisionerCall,
) -> Result<ProvisionerAnswer, ProvisionerFault> {
    match call {
        ProvisionerCall::FindVolume(query) => {
            let volume =
                provisioner.find_volume(context, query).await.map_err(not_found_is_no_answer)?;
            if let Some(volume) = &volume {
                check_volume(volume, query)?;
            }
            Ok(ProvisionerAnswer::Volume(volume))
        }
        ProvisionerCall::Report { volume, replica, condition, since, key } => provisioner
            .report(context, ReplicaRef { volume, replica }, condition, *since, key)
            .await
            .map(|()| ProvisionerAnswer::Noted),
        ProvisionerCall::RequestReplacement { volume, lost, why, key } => {
            let replica = ReplicaRef { volume, replica: lost };
            let replacement = provisioner.request_replacement(context, replica, why, key).await?;
            check_replacement(volume, lost, replacement).map(ProvisionerAnswer::Replacement)
        }
        ProvisionerCall::ConfirmRemoved { volume, replica, key } => provisioner
            .confirm_removed(context, ReplicaRef { volume, replica }, key)
            .await
            .map(|()| ProvisionerAnswer::Noted),
    }
}

/// "Not found" would let a wrong address or path read as "no such volume". Only `None` says that.
fn not_found_is_no_answer(fault: ProvisionerFault) -> ProvisionerFault {
    match fault.class {
        FaultClass::NotFound => invalid(format_args!(
            "find_volume must say clearly that there is no volume, but said: {}",
            fault.detail
        )),
        FaultClass::Unreachable
        | FaultClass::Unauthorized
        | FaultClass::Refused
        | FaultClass::Invalid
        | FaultClass::Unsupported => fault,
    }
}

fn invalid(detail: impl std::fmt::Display) -> ProvisionerFault {
    ProvisionerFault::new(FaultClass::Invalid, detail)
}

fn check_volume(volume: &Volume, query: &VolumeQuery) -> Result<(), ProvisionerFault> {
    volume.check().map_err(invalid)?;
    match (&volume.array, &volume.alias) {
        (Some(array), _) if *array != query.array => {
            return Err(invalid(format_args!(
                "asked for array {}, got volume {} of array {array}",
                query.array, volume.id
            )));
        }
        (None, Some(alias)) if query.alias.as_ref() != Some(alias) => {
            return Err(invalid(format_args!(
                "asked for array {}, got volume {} of the name {alias}",
                query.array, volume.id
            )));
        }
        (Some(_) | None, _) => {}
    }
    match volume.grace {
        Some(GracePolicy::After(grace)) if grace > LONGEST_GRACE => {
            return Err(invalid(format_args!(
                "volume {} has a grace period of {} s",
                volume.id,
                grace.as_secs()
            )));
        }
        Some(GracePolicy::After(_) | GracePolicy::Never) | None => {}
    }
    volume.replicas.iter().try_for_each(|replica| check_target(&volume.id, replica))
}

/// What [`Volume::check`] leaves open, for one replica.
fn check_target(volume: &VolumeId, replica: &Replica) -> Result<(), ProvisionerFault> {
    if replica.target.size.is_some_and(|size| size.0 == 0) {
        return Err(invalid(format_args!("replica {} of volume {volume} has no size", replica.id)));
    }
    if replica.target.portals.iter().any(|portal| portal.port == 0) {
        return Err(invalid(format_args!(
            "replica {} of volume {volume} has a portal at port 0",
            replica.id
        )));
    }
    Ok(())
}

fn check_replacement(
    volume: &VolumeId,
    lost: &ReplicaId,
    replacement: Replacement,
) -> Result<Replacement, ProvisionerFault> {
    match replacement {
        Replacement::Granted(replica) => {
            check_granted(volume, lost, &replica)?;
            Ok(Replacement::Granted(replica))
        }
        Replacement::Pending { after } => {
            Ok(Replacement::Pending { after: after.clamp(SOONEST_AGAIN, LATEST_AGAIN) })
        }
    }
}

fn check_granted(
    volume: &VolumeId,
    lost: &ReplicaId,
    replica: &Replica,
) -> Result<(), ProvisionerFault> {
    if replica.id == *lost {
        return Err(invalid(format_args!(
            "the replacement granted for replica {lost} of volume {volume} is {lost} itself"
        )));
    }
    match replica.state {
        ReplicaState::Available | ReplicaState::Synchronizing | ReplicaState::Unknown => {}
        ReplicaState::Missing | ReplicaState::Terminating | ReplicaState::Bad => {
            return Err(invalid(format_args!(
                "the replacement granted for replica {lost} of volume {volume} is {}, which is {:?}",
                replica.id, replica.state
            )));
        }
    }
    // A volume of this one replica, so that a granted replica passes the gate that a listed one
    // does.
    let alone = Volume {
        id: volume.clone(),
        array: None,
        alias: None,
        copies: 1,
        replicas: vec![replica.clone()],
        grace: None,
    };
    alone.check().map_err(invalid)?;
    check_target(volume, replica)
}
