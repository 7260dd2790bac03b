//! What must hold in every world, after every step: each check is a function of its name.
//!
//! ```text
//!   before an act    never_acts_on_last_in_sync_leg, never_adds_unverified_device,
//!                    every_effect_has_a_durable_intent, held_or_observed_array_gets_no_effect,
//!                    foreign_arrays_untouched, every_deletion_has_its_params_in_the_record,
//!                    no_decision_from_unknown, never_acts_on_another_device,
//!                    changes_only_what_md_lets_change, no_act_on_unknown
//!   before a call    deletion_confirmed_only_when_leg_is_provably_out, same_request_key_until_answered,
//!                    requests_are_paced
//!   with a record    available_reported_only_when_in_sync, missing_reported_only_when_lost,
//!                    at_most_one_replacement_per_array, quarantine_is_explained
//!   with a word      loud_words_are_explained, repairs_are_paced
//!   after a step     no_data_is_lost, never_two_legs_armed_at_once, last_leg_sees_no_error_of_ours
//!   after an event   a_copy_of_every_block_exists
//!   on waking up     no_grace_is_slept_through
//!   at the end       heals_eventually, report_is_never_lost, held_only_for_what_lasts,
//!                    every_effect_has_one_outcome_in_the_audit, other_arrays_progress,
//!                    what_leads_to_no_leg_is_not_armed, application_sees_no_error
//! ```
//!
//! The checks look at the kernel as it *is*, which no machine can: a machine sees snapshots. They
//! do not stop the world, so one broken rule does not hide the next; tests ask for the list.
//!
//! Where two actors meet in one instant, or what happened could be heard by nobody, no daemon can
//! do better, and the rule says so where it lets that pass:
//!
//! - two legs that go at once while signals are lost, or while no daemon may touch the array
//!   ([`last_leg_sees_no_error_of_ours`], [`never_two_legs_armed_at_once`]);
//! - a leg that MD has failed and that is unbound while nobody reaches the other one: it holds what
//!   it held, and MD reads it no more ([`never_acts_on_last_in_sync_leg`]);
//! - a hand that takes the survivor of a leg that was isolated, or adds it again
//!   ([`last_leg_sees_no_error_of_ours`]);
//! - what happens to a path while the daemon only observes ([`never_two_legs_armed_at_once`]);
//! - a clone that a person gave a slot, and that shows the leg's own id: who was lost may then not
//!   be known, or not be missed ([`held_only_for_what_lasts`], [`report_is_never_lost`]);
//! - attributes that go blank between a look and the act, which the guards then refuse
//!   ([`no_decision_from_unknown`]);
//! - a leg that the provisioner has replaced for good and another hand, or the end of its trouble,
//!   keeps in the array: it is told that the leg is good, and may go on disagreeing
//!   ([`report_is_never_lost`]);
//! - a replica whose successor serves in another slot, for one that is given up by now: the
//!   provisioner has nobody else to give ([`held_only_for_what_lasts`]).

mod acts;
mod astray;
mod explained;
mod progress;
mod unknown;
mod words;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use heal_core::arming::Arming;
use heal_core::audit::{AuditEntry, AuditKind};
use heal_core::record::{ArrayRecord, Owed, OwedMessage, RepairRecord, Step};
use heal_core::{ArrayMachine, EffectId, Mode};
use heal_types::status::Health;
use heal_types::{
    ArrayId, CallKey, Content, DeviceIdentity, FastIoFail, FaultClass, HostAction, HostAnswer,
    Moment, ProvisionerAnswer, ProvisionerCall, ProvisionerFault, Replacement, Replica, ReplicaId,
    WallTime,
};

use crate::World;
use crate::hunt::coverage::Edges;
use crate::kernel::{Blur, Gone, LastError};

pub use acts::{
    changes_only_what_md_lets_change, never_acts_on_another_device, never_acts_on_last_in_sync_leg,
    never_adds_unverified_device,
};
pub use astray::what_leads_to_no_leg_is_not_armed;
pub(crate) use explained::is_of_this_version;
use explained::runs_from_a_replica;
pub use explained::{
    Trouble, held_only_for_what_lasts, loud_words_are_explained, quarantine_is_explained,
};
pub use progress::{
    a_copy_of_every_block_exists, no_grace_is_slept_through, other_arrays_progress,
};
pub use unknown::{no_act_on_unknown, no_decision_from_unknown};
use words::request_key;
pub use words::{
    available_reported_only_when_in_sync, deletion_confirmed_only_when_leg_is_provably_out,
    every_word_to_the_provisioner_is_durable, missing_reported_only_when_lost,
    report_is_never_lost, requests_are_paced, same_request_key_until_answered,
};

/// A broken rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// The rule.
    pub name: &'static str,
    /// How it was broken.
    pub detail: String,
    /// When.
    pub at: Moment,
}

type Checked = Result<(), String>;

/// What the checks remember between steps.
#[derive(Debug, Clone, Default)]
pub(crate) struct Checker {
    violations: Vec<Violation>,
    /// Devices whose content was read and found harmless.
    examined: Vec<DeviceIdentity>,
    /// What the provisioner gave to which array, whosever it is.
    granted: Vec<(ArrayId, Replica)>,
    /// Acts begun, with the number of outcomes the audit gave them.
    acts: BTreeMap<EffectId, u32>,
    /// Acts whose outcome a crash may have taken along.
    excused: BTreeSet<EffectId>,
    /// The open request for a lost replica: its key, and when the repair began that asks.
    open_requests: BTreeMap<(ArrayId, ReplicaId), (CallKey, WallTime)>,
    /// Which request an effect asks.
    asked: BTreeMap<(ArrayId, EffectId), (ArrayId, ReplicaId)>,
    /// When each request key was first used.
    keys: BTreeMap<(ArrayId, CallKey), Moment>,
    /// Everything that was ever owed, oldest first.
    owed: Vec<Owed>,
    /// Keys of it that need not be told any more; one that was told stays the newer word.
    overtaken: BTreeSet<CallKey>,
    /// Keys of it that no disk ever held: a crash takes them along.
    unwritten: BTreeSet<CallKey>,
    lost_data_told: bool,
    /// Arrays that a hand took a leg from while nobody could have looked.
    pub(crate) handled: BTreeSet<ArrayId>,
    /// Arrays of which there are two, and nobody could have known when it began.
    unknowing: BTreeSet<ArrayId>,
    /// Since when an array has an armed leg and none that queues.
    exposed: BTreeMap<ArrayId, Moment>,
    /// The daemon's present life began as one that only observes.
    pub(crate) began_observing: bool,
    /// Controllers that were away when this life began, or began to act: after how long I/O fails
    /// there was settled before.
    untended: BTreeSet<u64>,
    /// Controllers that an earlier life armed, and of which no record tells any more.
    orphans: BTreeSet<u64>,
    broken_told: BTreeSet<ArrayId>,
    /// What was done that explains loud words.
    troubles: BTreeSet<Trouble>,
    /// Replicas that the provisioner offered and took back.
    pub(crate) taken_back: BTreeSet<ReplicaId>,
    /// Replicas that something was wrong with.
    flawed: BTreeSet<ReplicaId>,
    /// When something last happened to devices, paths, or what is heard of them.
    hurt_at: Option<Moment>,
    /// An application may have seen an error by now.
    writes_may_fail: bool,
    /// Legs that were lost, by the agent's own record.
    incidents: u64,
    /// Which moves repairs made.
    edges: Edges,
    /// How many of them since when, lately.
    moves: BTreeMap<ArrayId, (Moment, u32)>,
}

impl Checker {
    pub(crate) fn violations(&self) -> &[Violation] {
        &self.violations
    }

    pub(crate) fn note(&mut self, violation: Violation) {
        self.violations.push(violation);
    }

    pub(crate) fn examined(&mut self, action: &HostAction, answer: &HostAnswer) {
        if let HostAction::Examine { device } = action
            && !matches!(answer.content, Some(Content::Foreign(_)) | None)
        {
            self.examined.push(device.clone());
        }
    }

    pub(crate) fn incidents(&self) -> u64 {
        self.incidents
    }

    pub(crate) fn edges(&self) -> &Edges {
        &self.edges
    }

    fn audited(&mut self, entry: &AuditEntry) {
        self.incidents += u64::from(entry.kind == AuditKind::LegLost);
        self.edges.note(entry);
        let ends = [AuditKind::ActEnded, AuditKind::ActInterrupted].contains(&entry.kind);
        if let Some(id) = entry.action.filter(|_| ends)
            && let Some(count) = self.acts.get_mut(&id)
        {
            *count += 1;
        }
    }

    /// The daemon died. What only its memory held is nobody's promise; a word that some disk held
    /// is.
    pub(crate) fn crashed(&mut self) {
        self.excused.extend(self.acts.keys());
        let unwritten = std::mem::take(&mut self.unwritten);
        self.owed.retain(|owed| !unwritten.contains(&owed.key));
    }

    /// A record reached the disk.
    pub(crate) fn written(&mut self, record: &ArrayRecord) {
        for owed in &record.owed {
            self.unwritten.remove(&owed.key);
        }
    }

    pub(crate) fn answered(
        &mut self,
        array: ArrayId,
        id: EffectId,
        answer: &Result<ProvisionerAnswer, ProvisionerFault>,
    ) {
        let is_final = match answer {
            Ok(ProvisionerAnswer::Replacement(Replacement::Granted(_))) => true,
            Ok(
                ProvisionerAnswer::Replacement(Replacement::Pending { .. })
                | ProvisionerAnswer::Volume(_)
                | ProvisionerAnswer::Noted,
            ) => false,
            Err(fault) => match fault.class {
                FaultClass::Refused
                | FaultClass::NotFound
                | FaultClass::Unsupported
                | FaultClass::Invalid => true,
                FaultClass::Unreachable | FaultClass::Unauthorized => false,
            },
        };
        if let Ok(ProvisionerAnswer::Replacement(Replacement::Granted(replica))) = answer {
            self.granted.push((array, replica.clone()));
            // What is granted anew is not given up any more.
            let given_up = self
                .owed
                .iter()
                .filter(|owed| owed.replica == replica.id && owed.message == OwedMessage::Removed);
            self.overtaken.extend(given_up.map(|owed| owed.key.clone()));
        }
        if let Some(lost) = self.asked.remove(&(array, id)).filter(|_| is_final) {
            self.open_requests.remove(&lost);
        }
    }
}

/// A plan of arming may be behind the facts for so long, while the daemon runs: two looks.
const EXPOSED: Duration = Duration::from_millis(100);

/// What it takes to connect a controller again is on disk before the controller is deleted. Who is
/// no replica of the volume any more is not connected again, so nothing is owed to it.
///
/// # Errors
/// What is not.
pub fn every_deletion_has_its_params_in_the_record(
    world: &World,
    array: ArrayId,
    action: &HostAction,
) -> Checked {
    let HostAction::DeleteController { controller, .. } = action else { return Ok(()) };
    let kept = world.record(array).is_some_and(|record| {
        let mut lapsed = record.lapsed.iter().map(|lapsed| &lapsed.params);
        lapsed.any(|kept| kept.nqn == controller.nqn && kept.portal == controller.portal)
    });
    let mut replicas = world.arrays.iter().flat_map(|plan| &plan.replicas);
    let listed = replicas.any(|plan| {
        plan.nqn == controller.nqn && world.provisioner.state_of(&plan.replica.id).is_some()
    });
    if kept || !listed { Ok(()) } else { Err(format!("{controller} is in no durable record")) }
}

/// In every mirror set with an armed leg, another leg in sync queues. A loss that nobody could
/// foresee may break that until the next plan of arming.
///
/// # Errors
/// The armed leg.
pub fn never_two_legs_armed_at_once(world: &World) -> Checked {
    exposed_for_long(world, &world.kernel.exposed(false))
}

fn exposed_for_long(world: &World, exposed: &[(ArrayId, String)]) -> Checked {
    let now = world.now().mono;
    for (array, leg) in exposed {
        let since = world.checker.exposed.get(array);
        if since.is_some_and(|since| now.since(*since) > EXPOSED) {
            return Err(format!("{leg} is armed, and no other leg in sync queues"));
        }
    }
    Ok(())
}

/// No array is broken by an error that would not be there without us, unless another hand took the
/// leg that was to queue while nobody looked, or nobody could read the array. Two things nobody can
/// help:
///
/// - The leg that was to queue and the path of an armed one go in the same instant, and the signals
///   are lost: after how long I/O fails is read once, when the path goes, and no later act takes
///   that back.
/// - An earlier life armed it, and this one may not touch it: no daemon runs, it began as one that
///   only observes, or it has not been told yet whose the array is. What is not known to be ours is
///   left as it is.
///
/// # Errors
/// Which error it was.
pub fn last_leg_sees_no_error_of_ours(world: &World, array: ArrayId) -> Checked {
    let unread = |blur: &Blur| matches!(blur, Blur::Array(id) if *id == array);
    if world.checker.handled.contains(&array) || world.kernel.blurs.iter().any(unread) {
        return Ok(());
    }
    let may_not_touch_it = match world.policy.mode {
        Mode::Heal => {
            !world.machine(array).is_some_and(ArrayMachine::heals)
                || world.kernel.rests_on(array, &world.checker.untended)
        }
        Mode::Observe => world.checker.began_observing,
    };
    if may_not_touch_it {
        return Ok(());
    }
    match world.kernel.broken_by(array) {
        Some(why @ (LastError::FastIoFail | LastError::DeviceGone(Gone::Deleted))) => {
            Err(format!("the last leg's I/O failed: {why:?}"))
        }
        Some(
            LastError::DeviceGone(Gone::Unexported | Gone::GivenUp)
            | LastError::Isolated
            | LastError::ByHand,
        )
        | None => Ok(()),
    }
}

/// Whatever is done was written down before.
///
/// # Errors
/// What was not.
pub fn every_effect_has_a_durable_intent(world: &World, array: ArrayId, id: EffectId) -> Checked {
    let durable = world
        .record(array)
        .is_some_and(|record| record.intents.iter().any(|intent| intent.id == id));
    if durable { Ok(()) } else { Err(format!("effect {id} is in no durable record")) }
}

/// An array that is held by a person, or whose mode is observe, is left alone.
///
/// # Errors
/// What holds it.
pub fn held_or_observed_array_gets_no_effect(world: &World, array: ArrayId) -> Checked {
    if world.policy.mode == Mode::Observe {
        return Err("the mode is observe".into());
    }
    let hold = world.newest_record(array).and_then(|record| record.hold.as_ref());
    match hold {
        Some(hold) if hold.until.is_none_or(|until| until > world.now().wall) => {
            Err(format!("held by {}", hold.by))
        }
        Some(_) | None => Ok(()),
    }
}

/// What is urgent goes before the record does, so there the machine's own word counts.
///
/// # Errors
/// That it is no ward.
pub fn urgent_effects_only_on_wards(world: &World, array: ArrayId) -> Checked {
    match world.machine(array) {
        Some(machine) if machine.is_ward() => Ok(()),
        Some(_) | None => Err("its legs are not to be isolated".into()),
    }
}

/// An array that no volume stands behind is never acted upon.
///
/// # Errors
/// Which.
pub fn foreign_arrays_untouched(world: &World, array: ArrayId, action: &HostAction) -> Checked {
    let ours = |id: ArrayId| world.arrays.iter().any(|a| a.id == id && a.volume.is_some());
    let named = match action {
        HostAction::FailLeg { array, .. }
        | HostAction::RemoveLeg { array, .. }
        | HostAction::ReAddLeg { array, .. }
        | HostAction::AddLeg { array, .. }
        | HostAction::ReplaceLeg { array, .. }
        | HostAction::ClearWantReplacement { array, .. }
        | HostAction::IsolateLeg { array, .. }
        | HostAction::CutPath { array, .. }
        | HostAction::DeleteController { array, .. }
        | HostAction::SetRaidDisks { array, .. } => *array,
        HostAction::Connect { .. }
        | HostAction::Examine { .. }
        | HostAction::SetFastIoFail { .. }
        | HostAction::Reconnect { .. }
        | HostAction::Disconnect { .. } => array,
    };
    if ours(named) && named == array {
        Ok(())
    } else {
        Err(format!("{} on array {named}", action.verb()))
    }
}

/// At most one replacement of an array is asked for or brought in at a time.
///
/// # Errors
/// The slots.
pub fn at_most_one_replacement_per_array(record: &ArrayRecord) -> Checked {
    let busy: Vec<String> = record
        .repairs
        .iter()
        .filter(|repair| matches!(repair.step, Step::Request { .. } | Step::Connect))
        .map(|repair| repair.slot.to_string())
        .collect();
    if busy.len() <= 1 { Ok(()) } else { Err(format!("slots {}", busy.join(", "))) }
}

/// Every leg in sync holds the newest version of every acknowledged block.
///
/// # Errors
/// The first block that is lost.
pub fn no_data_is_lost(world: &World) -> Checked {
    world.kernel.lost().next().map_or(Ok(()), Err)
}

/// At the end, when faults have stopped: every managed array is optimal, held or quarantined, and
/// "optimal" is what the kernel says too, with nothing left to do.
///
/// # Errors
/// The array that is none of these.
pub fn heals_eventually(world: &World) -> Checked {
    for plan in world.arrays.iter().filter(|plan| plan.volume.is_some()) {
        let Some(picture) = world.kernel.picture(plan.id) else {
            continue; // Stopped: nothing of it can be healed.
        };
        let Some(machine) = world.machine(plan.id) else {
            return Err(format!("{} is forgotten, the kernel says {picture}", plan.name));
        };
        let status = machine.status(world.now());
        match status.health {
            Health::Held | Health::Quarantined => {}
            Health::Optimal if !picture.contains('_') && machine.incident().is_none() => {}
            // The provisioner took back every replica that runs: it is nobody's to heal.
            Health::Observed if !runs_from_a_replica(world, plan) => {}
            // What was replaced serves elsewhere: nobody may say that it can be deleted.
            Health::Healing
                if !picture.contains('_') && waits_for_another_array(world, plan.id) => {}
            Health::Healing if waits_for_a_person_and_a_clone(world, plan.id) => {}
            Health::Optimal | Health::Healing | Health::Observed => {
                return Err(format!(
                    "{} is {:?} ({}), the kernel says {picture}",
                    plan.name, status.health, status.summary
                ));
            }
        }
    }
    Ok(())
}

/// Whether a repair has nothing left but to put away a replica that another array holds.
fn waits_for_another_array(world: &World, array: ArrayId) -> bool {
    let Some(record) = world.record(array) else { return false };
    let (retiring, others): (Vec<_>, Vec<_>) =
        record.repairs.iter().partition(|repair| repair.step == Step::Retire);
    let elsewhere = |repair: &&RepairRecord| {
        let mut leaving = repair.lost.iter().chain(&repair.also_retire);
        leaving.any(|member| {
            let leg = member.namespace.and_then(|id| world.kernel.leg_of(&id));
            leg.is_some_and(|leg| leg.array != array)
        })
    };
    others.is_empty() && !retiring.is_empty() && retiring.iter().all(elsewhere)
}

/// Whether a person gave the array a spare that goes by the id of the replica on its way in: which
/// of the two was meant only a person can tell.
fn waits_for_a_person_and_a_clone(world: &World, array: ArrayId) -> bool {
    let Some(record) = world.record(array).filter(|_| world.checker.had(Trouble::Clone)) else {
        return false;
    };
    let mut incoming = record.repairs.iter().filter_map(|repair| repair.incoming.as_ref());
    incoming.any(|Replica { target, .. }| {
        let stands_in = world.kernel.leg_of(&target.namespace);
        let own = world.kernel.leg_of_replica(&target.namespace, &target.nqn);
        stands_in.is_some_and(|leg| leg.array == array && !leg.in_sync) && own.is_none()
    })
}

fn is_quarantined(world: &World, array: ArrayId) -> bool {
    world.record(array).is_some_and(|record| record.quarantine.is_some())
}

/// At the end: no write has failed, where no disk ever went and nobody else was at it.
///
/// # Errors
/// How many failed.
pub fn application_sees_no_error(world: &World) -> Checked {
    match world.kernel.failed_writes() {
        failed if failed > 0 && !world.checker.writes_may_fail => {
            Err(format!("{failed} writes failed"))
        }
        _ => Ok(()),
    }
}

/// At the end: every act that was begun has one outcome in the audit, and never two. A crash in
/// between may have taken one along.
///
/// # Errors
/// The act.
pub fn every_effect_has_one_outcome_in_the_audit(world: &World) -> Checked {
    for (id, outcomes) in &world.checker.acts {
        let excused = world.checker.excused.contains(id);
        // A life that could not write down that it told of an interrupted act leaves that to the
        // next.
        if *outcomes != 1 && !excused {
            return Err(format!("act {id} has {outcomes} outcomes"));
        }
    }
    Ok(())
}

impl World {
    pub(crate) fn expect(&mut self, name: &'static str, checked: Checked) {
        if let Err(detail) = checked {
            self.violated(name, detail);
        }
    }

    /// A record may be written while the array cannot be seen: whose turn it is shows when
    /// something is done.
    fn check_turns(&mut self, array: ArrayId) {
        if let Some(record) = self.record(array) {
            let one = at_most_one_replacement_per_array(record);
            self.expect("at_most_one_replacement_per_array", one);
        }
    }

    /// Before an act, whether or not the guards will let it through.
    pub(crate) fn check_act(&mut self, array: ArrayId, id: EffectId, action: &HostAction) {
        if matches!(action, HostAction::Connect { .. } | HostAction::AddLeg { .. }) {
            self.check_turns(array);
        }
        self.checker.acts.entry(id).or_insert(0);
        if !action.is_urgent() {
            let intent = every_effect_has_a_durable_intent(self, array, id);
            self.expect("every_effect_has_a_durable_intent", intent);
        }
        let held = if action.is_urgent() {
            urgent_effects_only_on_wards(self, array)
        } else {
            held_or_observed_array_gets_no_effect(self, array)
        };
        self.expect("held_or_observed_array_gets_no_effect", held);
        let foreign = foreign_arrays_untouched(self, array, action);
        self.expect("foreign_arrays_untouched", foreign);
        let known = no_decision_from_unknown(self, array, action);
        self.expect("no_decision_from_unknown", known);
    }

    /// Before a controller is armed or set to queue.
    pub(crate) fn check_arming(&mut self, step: &Arming) {
        if step.want != FastIoFail::Off {
            let held = held_or_observed_array_gets_no_effect(self, step.array);
            self.expect("held_or_observed_array_gets_no_effect", held);
        }
    }

    /// Right before an act that the guards let through.
    pub(crate) fn check_before_act(&mut self, array: ArrayId, action: &HostAction) {
        let params = every_deletion_has_its_params_in_the_record(self, array, action);
        self.expect("every_deletion_has_its_params_in_the_record", params);
        let known = no_act_on_unknown(self, array, action);
        self.expect("no_act_on_unknown", known);
        let last = never_acts_on_last_in_sync_leg(self, action);
        self.expect("never_acts_on_last_in_sync_leg", last);
        let verified = never_adds_unverified_device(self, action);
        self.expect("never_adds_unverified_device", verified);
        let meant = never_acts_on_another_device(self, action);
        self.expect("never_acts_on_another_device", meant);
        let changeable = changes_only_what_md_lets_change(self, action);
        self.expect("changes_only_what_md_lets_change", changeable);
    }

    pub(crate) fn check_call(&mut self, array: ArrayId, id: EffectId, call: &ProvisionerCall) {
        let durable = every_word_to_the_provisioner_is_durable(self.record(array), call);
        self.expect("every_word_to_the_provisioner_is_durable", durable);
        match call {
            ProvisionerCall::FindVolume(_) | ProvisionerCall::Report { .. } => {}
            ProvisionerCall::RequestReplacement { lost, key, .. } => {
                self.check_turns(array);
                let same = same_request_key_until_answered(self, array, lost, key);
                self.expect("same_request_key_until_answered", same);
                let held = held_or_observed_array_gets_no_effect(self, array);
                self.expect("held_or_observed_array_gets_no_effect", held);
                let (used, now) = ((array, key.clone()), self.now.mono);
                self.checker.keys.entry(used).or_insert(now);
                // What is broken once stays broken, and counting costs time.
                if !self.violations().iter().any(|known| known.name == "requests_are_paced") {
                    let paced = requests_are_paced(self, array);
                    self.expect("requests_are_paced", paced);
                }
                let about = (array, lost.clone());
                self.checker.asked.insert((array, id), about.clone());
                let began = self.began(array, key);
                self.checker.open_requests.insert(about, (key.clone(), began));
            }
            ProvisionerCall::ConfirmRemoved { replica, .. } => {
                let out = deletion_confirmed_only_when_leg_is_provably_out(self, replica);
                self.expect("deletion_confirmed_only_when_leg_is_provably_out", out);
            }
        }
    }

    /// Before a record is made durable.
    pub(crate) fn check_record(&mut self, record: &ArrayRecord) {
        // What explains it may be over when the record is written again.
        let known =
            self.record(record.array).is_some_and(|old| old.quarantine == record.quarantine);
        if record.quarantine.is_some() && !known {
            let explained = quarantine_is_explained(self, record);
            self.expect("quarantine_is_explained", explained);
        }
        let new: Vec<Owed> = (record.owed.iter())
            .filter(|owed| self.checker.owed.iter().all(|known| known.key != owed.key))
            .cloned()
            .collect();
        for owed in new {
            let available = available_reported_only_when_in_sync(self, &owed);
            self.expect("available_reported_only_when_in_sync", available);
            let missing = missing_reported_only_when_lost(self, record.array, &owed);
            self.expect("missing_reported_only_when_lost", missing);
            if owed.message == OwedMessage::Removed {
                let out = deletion_confirmed_only_when_leg_is_provably_out(self, &owed.replica);
                self.expect("deletion_confirmed_only_when_leg_is_provably_out", out);
            }
            self.checker.unwritten.insert(owed.key.clone());
            self.checker.owed.push(owed);
        }
        // A request is given up with its repair, or when another replica takes the place.
        let asking: BTreeSet<&CallKey> =
            record.repairs.iter().filter_map(|repair| request_key(&repair.step)).collect();
        self.checker.open_requests.retain(|(array, replica), (key, began)| {
            let goes_on = record.repairs.iter().any(|repair| {
                let asked = repair.asks_for.as_ref().or(repair.lost.as_ref());
                let asked = asked.and_then(|member| member.replica.as_ref());
                asked == Some(replica) && repair.began == *began && repair.incoming.is_none()
            });
            *array != record.array || asking.contains(key) || goes_on
        });
    }

    /// When the repair began that asks under that key.
    fn began(&self, array: ArrayId, key: &CallKey) -> WallTime {
        let repairs = self.record(array).into_iter().flat_map(|record| &record.repairs);
        let mut asking = repairs.filter(|repair| request_key(&repair.step) == Some(key));
        asking.next().map_or(WallTime(0), |repair| repair.began)
    }

    /// The daemon may act from now on, and could not until now.
    pub(crate) fn takes_over(&mut self) {
        self.checker.untended = self.kernel.not_live();
    }

    /// After the kernel moved.
    pub(crate) fn check_state(&mut self) {
        if !self.checker.untended.is_empty() {
            let away = self.kernel.not_live();
            self.checker.untended.retain(|serial| away.contains(serial));
        }
        self.check_arms();
        let broken: Vec<ArrayId> =
            self.kernel.arrays.iter().filter(|md| md.broken).map(|md| md.id).collect();
        self.checker.broken_told.retain(|id| broken.contains(id));
        for id in broken {
            if !self.feed.is_deaf() && self.checker.broken_told.insert(id) {
                let ours = last_leg_sees_no_error_of_ours(self, id);
                self.expect("last_leg_sees_no_error_of_ours", ours);
            }
        }
        if self.checker.lost_data_told {
            return;
        }
        let lost = no_data_is_lost(self);
        self.checker.lost_data_told = lost.is_err();
        self.expect("no_data_is_lost", lost);
    }

    /// How long an array has been exposed counts while somebody is there to end it.
    fn check_arms(&mut self) {
        let now = self.now.mono;
        // What an earlier life armed on an array that may not be touched now is put back at a look.
        let tended = |id: &ArrayId| {
            self.machines.get(id).is_some_and(ArrayMachine::is_ward)
                && !self.kernel.rests_on(*id, &self.checker.untended)
        };
        let legs = self.kernel.exposed(false);
        if legs.is_empty() && self.checker.exposed.is_empty() {
            return;
        }
        let exposed: Vec<ArrayId> = legs.iter().map(|(id, _)| *id).filter(tended).collect();
        // Who cannot have heard of it cannot have ended it.
        let sees = !self.feed.is_deaf() && self.kernel.blurs.is_empty() && self.blurred.is_empty();
        let running = self.restart_at.is_none() && sees;
        // Its timer runs, and whoever hears of it later cannot stop it
        // (`nvme_start_failfast_work`): an anchor that goes meanwhile is a second fault in the same
        // instant.
        let unheard = |leg: &&(ArrayId, String)| !running || !exposed.contains(&leg.0);
        let unheard: Vec<_> = legs.iter().filter(unheard).cloned().collect();
        self.kernel.nobody_heard(&unheard);
        self.checker.exposed.retain(|id, _| running && exposed.contains(id));
        if running {
            let armed = exposed_for_long(self, &legs);
            let told = |known: &Violation| known.name == "never_two_legs_armed_at_once";
            if !self.violations().iter().any(told) {
                self.expect("never_two_legs_armed_at_once", armed);
            }
            for id in exposed {
                self.checker.exposed.entry(id).or_insert(now);
            }
        }
    }

    /// At the end of a story whose faults have stopped: everything that must hold in the end.
    pub fn check_end(&mut self) {
        self.check_event();
        self.check_state();
        let heals = heals_eventually(self);
        self.expect("heals_eventually", heals);
        let reports = report_is_never_lost(self);
        self.expect("report_is_never_lost", reports);
        let outcomes = every_effect_has_one_outcome_in_the_audit(self);
        self.expect("every_effect_has_one_outcome_in_the_audit", outcomes);
        let holds = held_only_for_what_lasts(self);
        self.expect("held_only_for_what_lasts", holds);
        let armed = what_leads_to_no_leg_is_not_armed(self);
        self.expect("what_leads_to_no_leg_is_not_armed", armed);
        let errors = application_sees_no_error(self);
        self.expect("application_sees_no_error", errors);
    }
}
