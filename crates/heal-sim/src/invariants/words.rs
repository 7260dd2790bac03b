//! What is said to the provisioner, and what is owed to it.

use std::collections::BTreeSet;
use std::time::Duration;

use heal_core::audit::AuditEntry;
use heal_core::record::{ArrayRecord, Owed, OwedMessage, Step};
use heal_types::{
    ArrayId, CallKey, Condition, Moment, ProvisionerCall, Replica, ReplicaId, ReplicaState,
};

use crate::World;
use crate::kernel::LegTruth;
use crate::world::setup::ArrayPlan;

use super::explained::{Trouble, runs_from_a_replica};
use super::{Checked, is_quarantined};

/// So many request keys an array may use within [`REQUESTS_PER`].
const REQUESTS: usize = 20;
const REQUESTS_PER: Duration = Duration::from_secs(60);

/// A replica's deletion is confirmed only when MD does not have it in any way.
///
/// # Errors
/// How MD has it.
pub fn deletion_confirmed_only_when_leg_is_provably_out(
    world: &World,
    replica: &ReplicaId,
) -> Checked {
    match leg_of_replica(world, replica) {
        None => Ok(()),
        Some(leg) => Err(format!("{replica} is still bound as {}", leg.device)),
    }
}

/// A request for a replacement keeps its key until it is answered, over crashes and restarts.
///
/// # Errors
/// Both keys.
pub fn same_request_key_until_answered(
    world: &World,
    array: ArrayId,
    lost: &ReplicaId,
    key: &CallKey,
) -> Checked {
    match world.checker.open_requests.get(&(array, lost.clone())) {
        Some((open, _)) if open != key => Err(format!("{lost}: {open}, then {key}")),
        Some(_) | None => Ok(()),
    }
}

/// An array asks for no more than a few replacements in a minute, whatever the answers are.
///
/// # Errors
/// How many it asked for.
pub fn requests_are_paced(world: &World, array: ArrayId) -> Checked {
    let now = world.now().mono;
    let recent = |at: &Moment| now.since(*at) < REQUESTS_PER;
    let keys = world.checker.keys.iter().filter(|((of, _), at)| *of == array && recent(at)).count();
    if keys <= REQUESTS { Ok(()) } else { Err(format!("more than {REQUESTS} keys in a minute")) }
}

/// Whatever is said to the provisioner about a replica's fate was written down before.
///
/// # Errors
/// What was not.
pub fn every_word_to_the_provisioner_is_durable(
    record: Option<&ArrayRecord>,
    call: &ProvisionerCall,
) -> Checked {
    let durable = match call {
        ProvisionerCall::FindVolume(_) => true,
        ProvisionerCall::Report { key, .. } | ProvisionerCall::ConfirmRemoved { key, .. } => {
            record.is_some_and(|record| record.owed.iter().any(|owed| owed.key == *key))
        }
        ProvisionerCall::RequestReplacement { key, .. } => record.is_some_and(|record| {
            record.repairs.iter().any(|repair| request_key(&repair.step) == Some(key))
        }),
    };
    if durable { Ok(()) } else { Err(format!("{} under a key that is not durable", call.verb())) }
}

/// "Available" is owed to the provisioner only for a leg that the kernel counts in sync.
///
/// # Errors
/// What the leg is.
pub fn available_reported_only_when_in_sync(world: &World, owed: &Owed) -> Checked {
    let OwedMessage::Report(Condition::Available) = owed.message else {
        return Ok(());
    };
    let leg = leg_of_replica(world, &owed.replica);
    // What shows the id of a leg looks like that leg itself.
    let stood_in = || {
        let plans = world.arrays.iter().flat_map(|array| &array.replicas);
        let mut own = plans.filter(|plan| plan.replica.id == owed.replica);
        let in_sync = |id| world.kernel.leg_of(id).is_some_and(|leg| leg.in_sync);
        world.checker.had(Trouble::Clone) && own.any(|plan| in_sync(&plan.namespace))
    };
    if leg.as_ref().is_some_and(|leg| leg.in_sync) || stood_in() {
        Ok(())
    } else {
        Err(format!("{} is {leg:?}", owed.replica))
    }
}

/// "Missing" is owed to the provisioner only for a leg that the kernel does not count in sync. One
/// that a provisioner gave to another volume as well, and that serves there, is lost here.
///
/// # Errors
/// What the leg is.
pub fn missing_reported_only_when_lost(world: &World, array: ArrayId, owed: &Owed) -> Checked {
    let OwedMessage::Report(Condition::Missing) = owed.message else {
        return Ok(());
    };
    let given_away = |leg: &LegTruth| leg.array != array && world.checker.had(Trouble::Contract);
    match leg_of_replica(world, &owed.replica) {
        Some(leg) if leg.in_sync && !given_away(&leg) => {
            Err(format!("{} is {leg:?}", owed.replica))
        }
        Some(_) | None => Ok(()),
    }
}

/// At the end, with the provisioner there: whatever was owed has reached it, or a newer word on the
/// same replica has.
///
/// # Errors
/// What did not.
pub fn report_is_never_lost(world: &World) -> Checked {
    let told: BTreeSet<&CallKey> = world.provisioner.received().iter().filter_map(key_of).collect();
    // A quarantined array says nothing until a person has looked; its record keeps the word.
    let kept = |owed: &Owed| world.arrays.iter().any(|plan| is_kept(world, plan.id, owed));
    let reaches = |owed: &Owed| told.contains(&owed.key) || kept(owed);
    for (at, owed) in world.checker.owed.iter().enumerate() {
        let mut newer =
            world.checker.owed[at + 1..].iter().filter(|later| later.replica == owed.replica);
        let overtaken = world.checker.overtaken.contains(&owed.key);
        if !overtaken && !reaches(owed) && !newer.any(reaches) {
            return Err(format!("{:?} of {} was never told", owed.message, owed.replica));
        }
    }
    // Who lost its record does not know what it owes, and who was lied to tells it to the wrong
    // one.
    if world.checker.knows_not_what_it_owes() {
        return Ok(());
    }
    // What runs from nothing that the provisioner lists is nobody's to speak of.
    let speaks = |plan: &&ArrayPlan| {
        let ours = plan.volume.is_some() && !is_quarantined(world, plan.id);
        ours && (world.kernel.picture(plan.id).is_none() || runs_from_a_replica(world, plan))
    };
    for plan in world.arrays.iter().filter(speaks) {
        for replica in &plan.replicas {
            let state = world.provisioner.state_of(&replica.replica.id);
            let leg = leg_of_replica(world, &replica.replica.id);
            let whole = leg.as_ref().is_some_and(|leg| leg.in_sync);
            let known_good = state == Some(ReplicaState::Available);
            // Of a replica whose successor is in use the provisioner says so for ever, whatever it
            // hears (`Provisioner`: it is listed until its removal is confirmed, but never as
            // good). Then what counts is that it was told; whose successor that was may be
            // forgotten with the repair.
            let told = world.checker.knows_not_whose_place_it_is()
                || is_told_of_as_good(world, &replica.replica.id);
            let place_taken = told && world.provisioner.has_a_successor_in_use(&replica.replica.id);
            if whole && state == Some(ReplicaState::Missing) && !place_taken {
                return Err(format!("{} is a good leg, and still Missing", replica.replica.id));
            }
            // Where a person gave a clone the slot, what shows that id looks like the leg itself.
            let stood_in = world.checker.had(Trouble::Clone)
                && world.kernel.leg_of(&replica.namespace).is_some();
            let running = world.kernel.picture(plan.id).is_some();
            if running && known_good && !whole && !stood_in {
                return Err(format!("{} is no good leg, and still Available", replica.replica.id));
            }
        }
    }
    Ok(())
}

/// The leg that a replica is, wherever it is bound.
pub(super) fn leg_of_replica(world: &World, replica: &ReplicaId) -> Option<LegTruth> {
    let of_it = |array: &ArrayPlan| {
        let plan = array.replicas.iter().find(|plan| plan.replica.id == *replica)?;
        world.kernel.leg_of_replica(&plan.namespace, &plan.nqn)
    };
    let mut arrays = world.arrays.iter();
    let planned = arrays.find_map(of_it);
    // A provisioner that lies grants replicas that no plan knows.
    planned.or_else(|| {
        let granted = world.checker.granted.iter().map(|(_, granted)| granted);
        let Replica { target, .. } = granted.rev().find(|granted| granted.id == *replica)?;
        world.kernel.leg_of_replica(&target.namespace, &target.nqn)
    })
}

/// Whether the last word that the provisioner heard of a replica is that it is good.
fn is_told_of_as_good(world: &World, id: &ReplicaId) -> bool {
    let received = world.provisioner.received().iter().rev();
    let mut words = received.filter_map(|call| match call {
        ProvisionerCall::Report { replica, condition, .. } if replica == id => Some(condition),
        ProvisionerCall::Report { .. }
        | ProvisionerCall::FindVolume(_)
        | ProvisionerCall::RequestReplacement { .. }
        | ProvisionerCall::ConfirmRemoved { .. } => None,
    });
    words.next() == Some(&Condition::Available)
}

impl World {
    /// A removal need not be told any more of a replica that really is in an array again.
    pub(super) fn removal_taken_back(&mut self, entry: &AuditEntry) {
        let key = entry.field("REQUEST_ID").map(str::to_owned);
        let of_it = |owed: &&Owed| Some(owed.key.as_str()) == key.as_deref();
        let owed = self.checker.owed.iter().find(of_it).cloned();
        let Some(owed) = owed.filter(|owed| owed.message == OwedMessage::Removed) else { return };
        if leg_of_replica(self, &owed.replica).is_some() {
            self.checker.owed.retain(|known| known.key != owed.key);
        }
    }
}

fn is_kept(world: &World, array: ArrayId, owed: &Owed) -> bool {
    let kept = |record: &ArrayRecord| record.owed.iter().any(|own| own.key == owed.key);
    is_quarantined(world, array) && world.record(array).is_some_and(kept)
}

pub(super) fn request_key(step: &Step) -> Option<&CallKey> {
    match step {
        Step::Request { key } => Some(key),
        Step::Hold { then, .. } => request_key(then),
        Step::Doubt | Step::Report | Step::Grace | Step::Connect | Step::Rebuild | Step::Retire => {
            None
        }
    }
}

fn key_of(call: &ProvisionerCall) -> Option<&CallKey> {
    match call {
        ProvisionerCall::FindVolume(_) => None,
        ProvisionerCall::Report { key, .. }
        | ProvisionerCall::RequestReplacement { key, .. }
        | ProvisionerCall::ConfirmRemoved { key, .. } => Some(key),
    }
}
