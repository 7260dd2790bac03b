//! Loud words need a reason: an entry of ERROR or worse, a quarantine, or a repair that still
//! stands still at the end, must be explained by what was done to the world.
//!
//! ```text
//!   quarantined: impossible            never
//!   quarantined: two legs are one      a clone was made
//!   quarantined: record unreadable     the record was torn
//!   quarantined: newer copy            a boot started the array from a leg that had been lost, a replica
//!                                      is an old copy, nobody in sync was there when a leg left, or a
//!                                      hand failed a leg while nobody could look, or nobody could tell
//!                                      which leg it was while it was recorded, or the provisioner
//!                                      calls missing what an array runs from that nobody remembers
//!   ledger cannot be written           its disk was full, or failed
//!   G1 stops it                        a leg really is not good
//!   held at the end: refused           no spare is left
//!                    rejected          what was offered was not what it should be
//! ```
//!
//! The price: an explanation is accepted for the rest of the story, so a second, unexplained word
//! of the same kind passes.

use std::collections::BTreeSet;
use std::time::Duration;

use heal_core::audit::{AuditEntry, AuditKind, Severity};
use heal_core::record::{ArrayRecord, RepairRecord, SCHEMA, Step};
use heal_core::why::{Cause, HeldWhy, QuarantinedWhy, RejectedWhy};
use heal_types::{ArrayId, Moment, NamespaceId, ReplicaId, ReplicaState, VolumeId};

use super::{Checked, Checker};
use crate::World;
use crate::hunt::event::WorldEvent;
use crate::world::setup::ArrayPlan;

/// How long a machine may take to find out what a path is like.
const FOUND_OUT: Duration = Duration::from_secs(120);

/// What explains loud words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Trouble {
    /// The disk of the ledger was full, or failed.
    Disk,
    /// A record was torn, tidied away, or of another version.
    Record,
    /// Two namespaces go by one id.
    Clone,
    /// The provisioner broke its contract.
    Contract,
    /// An array was started from a leg that had been lost.
    Parted,
    /// A replica has what stood on a leg at some time, superblock and all.
    Copy,
    /// Another hand failed a leg while nobody could look: what is recorded is behind, and what the
    /// array runs from by now looks like a start from the wrong leg.
    Hand,
    /// A leg could not be told from others for a while: what is recorded may not know it.
    Nameless,
    /// An array was stopped in the middle of a repair: who was lost is not known when it is back.
    Stopped,
}

impl Checker {
    pub(crate) fn trouble(&mut self, trouble: Trouble) {
        self.troubles.insert(trouble);
    }

    pub(super) fn had(&self, trouble: Trouble) -> bool {
        self.troubles.contains(&trouble)
    }

    /// Whether words to the provisioner may be missing for reasons that are nobody's fault.
    pub(super) fn knows_not_what_it_owes(&self) -> bool {
        self.had(Trouble::Record) || self.had(Trouble::Contract)
    }

    /// Whether nobody may know any more for whom a replacement was granted.
    pub(super) fn knows_not_whose_place_it_is(&self) -> bool {
        self.had(Trouble::Stopped)
    }

    /// An event was carried out.
    pub(crate) fn did(&mut self, event: &WorldEvent, now: Moment) {
        self.writes_may_fail |= event.may_fail_writes();
        match event {
            WorldEvent::Fabric(_) | WorldEvent::Md(_) | WorldEvent::Feed(_) => {
                self.hurt_at = Some(now);
            }
            WorldEvent::Pass(_)
            | WorldEvent::Daemon(_)
            | WorldEvent::Ledger(_)
            | WorldEvent::Mood(_)
            | WorldEvent::Volume(_)
            | WorldEvent::Person(_) => {}
        }
    }

    /// What was wrong with paths is over: that has to be found out like what was wrong.
    pub(crate) fn mended(&mut self, now: Moment) {
        if self.hurt_at.is_some() {
            self.hurt_at = Some(now);
        }
    }

    /// What was owed, begun or asked for in a record that is gone is nobody's fault any more.
    fn forget(&mut self, array: ArrayId, volume: Option<&VolumeId>) {
        self.trouble(Trouble::Record);
        self.owed.retain(|owed| Some(&owed.volume) != volume);
        self.excused.extend(self.acts.keys());
        self.open_requests.retain(|(of, _), _| *of != array);
    }
}

impl World {
    /// The record of that array is gone, or cannot be read.
    pub(crate) fn record_is_lost(&mut self, array: ArrayId) {
        let plan = self.arrays.iter().find(|plan| plan.id == array);
        let volume = plan.and_then(|plan| plan.volume.clone());
        self.checker.forget(array, volume.as_ref());
    }

    /// The array is about to be stopped, and with it whatever repair there is.
    pub(crate) fn stops(&mut self, array: ArrayId) {
        if self.newest_record(array).is_some_and(|record| !record.repairs.is_empty()) {
            self.checker.trouble(Trouble::Stopped);
        }
    }

    /// There are two of an array: it runs from `leg`, which had been lost. Whose record does not
    /// say so cannot know.
    pub(crate) fn array_is_parted(&mut self, array: ArrayId, leg: &NamespaceId) {
        self.checker.trouble(Trouble::Parted);
        let says = self.record(array).is_some_and(|record| {
            let out =
                |repair: &RepairRecord| is_out(&repair.step) && repair.cause == Cause::LegLost;
            let mut lost = record.repairs.iter().filter(|repair| out(repair));
            let went_on = record
                .members
                .iter()
                .any(|(slot, _)| record.repairs.iter().all(|repair| repair.slot != *slot));
            let is_leg = |repair: &RepairRecord| {
                repair.lost.as_ref().is_some_and(|lost| lost.namespace == Some(*leg))
            };
            went_on && lost.any(is_leg)
        });
        if !says {
            self.checker.unknowing.insert(array);
        }
    }

    pub(crate) fn check_audit(&mut self, array: ArrayId, entry: &AuditEntry) {
        self.checker.audited(entry);
        if entry.kind == AuditKind::ReportRejected {
            self.removal_taken_back(entry);
        }
        if entry.field("STATE_BEFORE").is_some() {
            let paced = self.checker.moved(array, self.now.mono);
            self.expect("repairs_are_paced", paced);
        }
        if entry.severity <= Severity::Error {
            let explained = loud_words_are_explained(self, array, entry);
            self.expect("loud_words_are_explained", explained);
        }
    }
}

/// An entry of ERROR or worse says what really is so.
///
/// # Errors
/// The entry.
pub fn loud_words_are_explained(world: &World, array: ArrayId, entry: &AuditEntry) -> Checked {
    let checker = &world.checker;
    let explained = match entry.kind {
        // The quarantine itself is judged by its reason, in the record.
        AuditKind::ArrayQuarantined => true,
        AuditKind::LedgerFailed => checker.had(Trouble::Disk) || checker.had(Trouble::Record),
        AuditKind::ArrayBroken => world.kernel.is_broken(array),
        AuditKind::ProvisionerFaulted => checker.had(Trouble::Contract),
        AuditKind::BadBlocksFound => world.kernel.has_bad_blocks(array),
        AuditKind::RepairHeld => {
            // What a path is like is found out, and found to be over, some time later.
            let now = world.now().mono;
            let lately = checker.hurt_at.is_some_and(|at| now.since(at) < FOUND_OUT);
            lately || !world.kernel.every_leg_is_good(array)
        }
        AuditKind::ArrayManaged
        | AuditKind::ArrayObserved
        | AuditKind::ArrayStopped
        | AuditKind::ArrayReleased
        | AuditKind::IncidentOpened
        | AuditKind::IncidentClosed
        | AuditKind::LegSuspected
        | AuditKind::LegCleared
        | AuditKind::LegIsolating
        | AuditKind::LegLost
        | AuditKind::BadBlocksHealed
        | AuditKind::GraceBegan
        | AuditKind::LegReturned
        | AuditKind::ReplacementRequested
        | AuditKind::ReplacementConnecting
        | AuditKind::ReplacementVerifying
        | AuditKind::ReplacementAdding
        | AuditKind::RebuildBegan
        | AuditKind::LegInSync
        | AuditKind::RepairEnded
        | AuditKind::RepairResumed
        | AuditKind::ReplicaRejected
        | AuditKind::ActBegun
        | AuditKind::ActEnded
        | AuditKind::ActInterrupted
        | AuditKind::ReportDelivered
        | AuditKind::ReportRejected
        | AuditKind::ProvisionerRecovered
        | AuditKind::HoldPlaced
        | AuditKind::HoldLifted
        | AuditKind::WouldAct
        | AuditKind::HostAlarm
        | AuditKind::PathArmed
        | AuditKind::PathCut => false,
    };
    if explained { Ok(()) } else { Err(format!("{:?}: {}", entry.severity, entry.message)) }
}

/// A quarantine is a contradiction that somebody made.
///
/// # Errors
/// The contradiction that nobody made.
pub fn quarantine_is_explained(world: &World, record: &ArrayRecord) -> Checked {
    let explained = match &record.quarantine {
        None => true,
        Some(QuarantinedWhy::DuplicateLeg { .. }) => world.checker.had(Trouble::Clone),
        Some(QuarantinedWhy::UnreadableRecord { .. }) => world.checker.had(Trouble::Record),
        Some(QuarantinedWhy::NewerCopy { .. }) => {
            world.checker.had(Trouble::Parted)
                || world.checker.had(Trouble::Copy)
                || world.checker.had(Trouble::Hand)
                || world.kernel.has_a_stranger_of_its_own(record.array)
                || (world.checker.had(Trouble::Record) && doubts_somebody_nameless(record))
                || (world.checker.had(Trouble::Nameless) && runs_from_nobody_known(world, record))
                || runs_against_the_book(world, record)
        }
        Some(QuarantinedWhy::Impossible { .. }) => false,
    };
    match &record.quarantine {
        Some(why) if !explained => Err(why.to_string()),
        Some(_) | None => Ok(()),
    }
}

/// Whether a leg is in doubt that nobody knows the name of, since the record of it was lost: it may
/// be the one that the array was started from.
fn doubts_somebody_nameless(record: &ArrayRecord) -> bool {
    record.repairs.iter().any(|repair| {
        let doubt = matches!(&repair.step, Step::Doubt)
            || matches!(&repair.step, Step::Hold { then, .. } if **then == Step::Doubt);
        doubt && repair.lost.as_ref().is_none_or(|lost| lost.namespace.is_none())
    })
}

/// Whether no leg that the array runs from is one that the record knew as good.
fn runs_from_nobody_known(world: &World, record: &ArrayRecord) -> bool {
    let Some(plan) = world.arrays.iter().find(|plan| plan.id == record.array) else {
        return false;
    };
    let known = |id: &NamespaceId| {
        let Some(old) = world.record(record.array) else { return false };
        let mut members = old.members.iter();
        members.any(|(slot, member)| {
            let in_repair = old.repairs.iter().any(|repair| repair.slot == *slot);
            member.namespace == Some(*id) && !in_repair
        })
    };
    !plan.replicas.iter().any(|replica| {
        let leg = world.kernel.leg_of(&replica.namespace).filter(|leg| leg.array == plan.id);
        leg.is_some_and(|leg| leg.in_sync) && known(&replica.namespace)
    })
}

/// Whether nobody remembers the array, and the provisioner believes that it runs from nothing but
/// what is missing, or says so.
fn runs_against_the_book(world: &World, record: &ArrayRecord) -> bool {
    let Some(plan) = world.arrays.iter().find(|plan| plan.id == record.array) else {
        return false;
    };
    let mut running = plan.replicas.iter().filter(|replica| {
        let leg = world.kernel.leg_of(&replica.namespace).filter(|leg| leg.array == plan.id);
        leg.is_some_and(|leg| leg.in_sync)
    });
    let called_missing = |replica: &ReplicaId| {
        world.provisioner.state_of(replica) == Some(ReplicaState::Missing)
            || world.checker.had(Trouble::Contract)
    };
    let forgotten = world.record(record.array).is_none() || world.checker.had(Trouble::Record);
    forgotten && running.all(|replica| called_missing(&replica.replica.id))
}

/// At the end a repair stands still only for a reason that no time can end.
///
/// # Errors
/// The reason.
pub fn held_only_for_what_lasts(world: &World) -> Checked {
    for plan in &world.arrays {
        let Some(volume) = plan.volume.as_ref() else { continue };
        if world.kernel.picture(plan.id).is_none() || world.kernel.is_broken(plan.id) {
            continue;
        }
        let Some(record) = world.record(plan.id) else { continue };
        let mut lasting = BTreeSet::new();
        let held = record.repairs.iter().filter_map(|repair| match &repair.step {
            Step::Hold { why, .. } => Some((repair.slot, why)),
            Step::Doubt
            | Step::Report
            | Step::Grace
            | Step::Request { .. }
            | Step::Connect
            | Step::Rebuild
            | Step::Retire => None,
        });
        let (waiting, own): (Vec<_>, Vec<_>) =
            held.partition(|(_, why)| matches!(why, HeldWhy::OneAtATime { .. }));
        for (slot, why) in own {
            // A leg with blocks that stay bad is no full copy, so another one is not given up.
            let guarded = matches!(why, HeldWhy::Guard { .. });
            let no_full_copy = guarded && world.kernel.has_bad_blocks(plan.id);
            let refused = matches!(why, HeldWhy::Refused { .. });
            let not_listed = (guarded || refused) && uses_what_was_taken_back(world, plan);
            if !lasts(world, volume, why) && !no_full_copy && !not_listed {
                return Err(format!("{}: slot {slot}: {why}", plan.name));
            }
            lasting.insert(slot);
        }
        for (slot, why) in waiting {
            let first = if let HeldWhy::OneAtATime { slot } = why { Some(slot) } else { None };
            if !first.is_some_and(|first| lasting.contains(first)) {
                return Err(format!("{}: slot {slot}: {why}", plan.name));
            }
        }
    }
    Ok(())
}

/// Whether a leg that was lost was not taken back since.
fn is_out(step: &Step) -> bool {
    match step {
        Step::Report | Step::Grace | Step::Request { .. } | Step::Connect => true,
        Step::Hold { then, .. } => is_out(then),
        Step::Doubt | Step::Rebuild | Step::Retire => false,
    }
}

/// Whether an offer was taken back that had been taken up: what was a leg then is no replica, and
/// the provisioner replaces none of that name.
fn uses_what_was_taken_back(world: &World, plan: &ArrayPlan) -> bool {
    plan.replicas.iter().any(|replica| {
        world.checker.taken_back.contains(&replica.replica.id)
            && world.kernel.was_written_to(&replica.nqn)
    })
}

/// Whether a leg that is bound and not faulty is a replica that the provisioner lists.
pub(super) fn runs_from_a_replica(world: &World, plan: &ArrayPlan) -> bool {
    plan.replicas.iter().any(|replica| {
        let leg = world.kernel.leg_of(&replica.namespace).filter(|leg| leg.array == plan.id);
        let listed = world.provisioner.state_of(&replica.replica.id).is_some();
        listed && leg.is_some_and(|leg| !leg.faulty)
    })
}

fn lasts(world: &World, volume: &VolumeId, why: &HeldWhy) -> bool {
    match why {
        HeldWhy::Refused { .. } => {
            world.provisioner.spares(volume) == 0 || world.checker.had(Trouble::Contract)
        }
        // Nobody remembers what the replica that was granted took the place of.
        HeldWhy::Rejected { why: RejectedWhy::BadGrant { .. }, .. }
            if world.checker.had(Trouble::Record) || world.checker.had(Trouble::Stopped) =>
        {
            true
        }
        // What was granted for this slot serves in another one, for a replica that is given up by
        // now: the provisioner has nobody else to give until a person has decided.
        HeldWhy::Rejected { why: RejectedWhy::BadGrant { .. }, replica }
            if is_a_good_leg(world, replica) =>
        {
            true
        }
        HeldWhy::Rejected { replica, .. } => {
            world.checker.had(Trouble::Contract) || world.checker.flawed.contains(replica)
        }
        // Nobody remembers who was lost, or what was granted, or was lost, is no replica.
        HeldWhy::Guard { .. } => {
            world.checker.had(Trouble::Record)
                || world.checker.had(Trouble::Contract)
                || world.checker.had(Trouble::Stopped)
                || world.checker.had(Trouble::Clone)
        }
        HeldWhy::Operator { .. }
        | HeldWhy::Observing
        | HeldWhy::NoProvisioner
        | HeldWhy::OneAtATime { .. }
        | HeldWhy::Budget
        | HeldWhy::ArrayState(_)
        | HeldWhy::ArrayBusy
        | HeldWhy::StepFailed { .. }
        | HeldWhy::HostCutOff { .. }
        | HeldWhy::Flapping { .. }
        | HeldWhy::NotDurable { .. } => false,
    }
}

fn is_a_good_leg(world: &World, replica: &ReplicaId) -> bool {
    super::words::leg_of_replica(world, replica).is_some_and(|leg| leg.in_sync)
}

/// Whether this record was written by this version of the daemon.
pub(crate) fn is_of_this_version(record: &ArrayRecord) -> bool {
    record.schema == SCHEMA
}

impl Checker {
    /// Something is wrong with a replica: it may be rejected.
    pub(crate) fn flaw(&mut self, replica: &ReplicaId) {
        self.flawed.insert(replica.clone());
    }
}
