//! The array as a whole comes and goes: assembled, started, stopped, and that unseen.
//!
//! ```text
//!   not there ──► half there (clear, inactive) ──► runs, from who knows what ──► runs
//!       ▲          nothing is concluded              until its legs have names     │ started from a leg that
//!       └──────────────── stopped, before our eyes or unseen ◄────────────────────┤ had been lost: quarantine
//! ```
//!
//! What a slot looks like means nothing before the last state; what is done about slots is in
//! `look`.

use heal_types::{
    ArraySnapshot, ArrayState, Backing, LegSnapshot, Level, NamespaceId, Now, Observed,
    ReplicaState, Slot,
};

use crate::audit::{AuditKind, Severity};
use crate::phase::{Phase, Repair};
use crate::record::{Member, Step};
use crate::signal::Signal;
use crate::view::is_nameless;
use crate::why::{Cause, QuarantinedWhy};

use super::{ArrayMachine, Standing};

impl ArrayMachine {
    /// The first look of a life shows no array. One that was there in this boot was stopped while
    /// nobody looked, and what had been connected for it is still connected. Any other is not
    /// assembled yet, for all anybody knows.
    ///
    /// The rest of the record stays: nobody saw in which order the legs went, and it alone can tell
    /// which of them must not be started from.
    pub(super) fn array_went_unseen(&mut self, now: Now) {
        if !self.was_there_in_this_boot() {
            return;
        }
        let text = format!("{}: the array was stopped while nobody looked", self.name());
        self.tell(now, AuditKind::ArrayStopped, Severity::Notice, text);
        self.begin_leaving(now);
    }

    /// Whether the array was there since the host booted, in this life or an earlier one.
    pub(super) fn was_there_in_this_boot(&self) -> bool {
        self.seen_in.as_ref() == Some(&self.boot)
    }

    pub(super) fn array_gone(&mut self, now: Now) {
        let text = format!("{}: the array was stopped", self.name());
        self.tell(now, AuditKind::ArrayStopped, Severity::Notice, text);
        self.end_repairs_of_gone_array(now);
        self.begin_leaving(now);
    }

    /// Ends every repair of an array that is not there.
    pub(super) fn end_repairs_of_gone_array(&mut self, now: Now) {
        let slots: Vec<Slot> = self.repairs.keys().copied().collect();
        for slot in slots {
            self.signal(now, slot, Signal::ArrayGone);
        }
        self.members.clear();
        self.lapsed.clear();
        self.trying.clear();
        // What is under way ends all the same, and its end is told; what it connects is put away.
        self.dirty = true;
    }

    /// Whether it cannot be told yet what the array runs from, because that has no name so far.
    /// Until it has one, an empty slot means nothing.
    pub(super) fn runs_from_who_knows(&self) -> bool {
        let Some(array) = self.snapshot() else { return false };
        !self.members.is_empty() && array.in_sync().any(has_no_name_yet)
    }

    /// A boot may find one leg only, start the array from it, and find the others later. If that
    /// one was lost before, it lacks what was written since, and everything would be filled from
    /// it. So the first look of a life must show in sync what the last one left in sync, or one of
    /// them.
    pub(super) fn started_from_a_lost_leg(&self) -> Option<QuarantinedWhy> {
        let array = self.snapshot().filter(|array| array.level == Level::Raid1)?;
        let stale = array.in_sync().next()?;
        // One in doubt is no lost one: it went on as well.
        let out: Vec<NamespaceId> = self.repairs.values().filter_map(left_out).collect();
        let went_on = |slot: &Slot, member: &Member| {
            let lost = member.namespace.is_some_and(|id| out.contains(&id));
            !lost && !self.repairs.get(slot).is_some_and(was_out)
        };
        let mut served = self.repairs.values().filter_map(served_in);
        if served.any(|id| array.in_sync().any(|leg| leg.is_namespace(&id))) {
            return None;
        }
        let mut good = None;
        for (_, member) in self.members.iter().filter(|(slot, member)| went_on(slot, member)) {
            let id = member.namespace?; // Which leg it was cannot be told.
            // One whose device is gone may be any of them.
            if array.in_sync().any(|leg| leg.is_namespace(&id) || leg.backing == Backing::Gone) {
                return None;
            }
            good = good.or(Some(member));
        }
        let good = match &good?.replica {
            Some(replica) => format!("replica {replica}"),
            None => "another leg".to_owned(),
        };
        let stale = &stale.device;
        let detail = format!(
            "the array was started from {stale}, and had gone on without it: {good} is out"
        );
        Some(QuarantinedWhy::NewerCopy { detail })
    }

    /// The same where no earlier life left a record: the provisioner's book is the only witness,
    /// and is heard once. Until then nothing is begun, and the book is not written in.
    pub(super) fn agrees_with_the_book(&mut self, now: Now) -> bool {
        if self.standing != Standing::Managed || self.witnessed {
            return true;
        }
        // What an earlier life was told may have changed since.
        if self.volume.at.is_none() {
            return false;
        }
        if self.needs_a_name_to_judge() {
            self.want_look();
            return false;
        }
        self.witnessed = true;
        self.dirty = true;
        match self.started_against_the_book() {
            Some(why) => {
                self.quarantine(now, why);
                false
            }
            None => true,
        }
    }

    /// The legs of which the array runs that have a name, and whether the provisioner calls each
    /// missing.
    fn called_missing(&self) -> impl Iterator<Item = bool> {
        let volume = self.volume.known();
        let called = move |leg: &LegSnapshot| {
            let mut listed = volume.into_iter().flat_map(|volume| &volume.replicas);
            let own = listed.find(|replica| leg.is_namespace(&replica.target.namespace));
            own.is_some_and(|replica| replica.state == ReplicaState::Missing)
        };
        let running = self.snapshot().into_iter().flat_map(ArraySnapshot::in_sync);
        running.filter(|leg| !has_no_name_yet(leg)).map(called)
    }

    /// Whether a leg has no name yet, and none that has speaks for the array.
    fn needs_a_name_to_judge(&self) -> bool {
        let Some(array) = self.snapshot() else { return false };
        self.called_missing().all(|missing| missing) && array.legs.iter().any(has_no_name_yet)
    }

    /// Whether the provisioner calls missing whatever the array runs from, and lists one that is
    /// out and may have been a full copy: either may have gone on without the other.
    fn started_against_the_book(&self) -> Option<QuarantinedWhy> {
        let (array, volume) = self.snapshot().zip(self.volume.known())?;
        let runs = array.in_sync().next()?;
        if !self.called_missing().all(|missing| missing) {
            return None;
        }
        // One that failed before the array's eyes is bound still, and had nothing after it.
        let bound = |id| array.legs.iter().any(|leg| leg.is_namespace(id) || is_nameless(leg));
        let out = volume.replicas.iter().find(|replica| {
            may_have_been_full(replica.state) && !bound(&replica.target.namespace)
        })?;
        let detail = format!(
            "there is no record of the array; it runs from {}, which the provisioner calls \
             missing, and without replica {}, which may have gone on",
            runs.device, out.id
        );
        Some(QuarantinedWhy::NewerCopy { detail })
    }
}

/// Whether a leg will have a name, and has none at this look. One whose device is gone gets none.
fn has_no_name_yet(leg: &LegSnapshot) -> bool {
    is_nameless(leg) && leg.backing != Backing::Gone
}

/// Whether a replica of which the provisioner says that may have had every block: all but one that
/// is still to be filled.
fn may_have_been_full(state: ReplicaState) -> bool {
    match state {
        ReplicaState::Available
        | ReplicaState::Missing
        | ReplicaState::Terminating
        | ReplicaState::Bad
        | ReplicaState::Unknown => true,
        ReplicaState::Synchronizing => false,
    }
}

/// Who served in the slot of a repair beside whoever is remembered there: one in doubt, or the
/// successor that takes the place of one that was good until it was complete. What was being filled
/// for a loss stands for nobody: it was no full copy when last seen, and the others may have gone
/// on without it.
fn served_in(repair: &Repair) -> Option<NamespaceId> {
    let moves = repair.cause.moves_leg();
    let doubted = match &repair.phase {
        Phase::Suspect { .. } | Phase::Isolating { .. } => true,
        Phase::Held { then, .. } => matches!(then, Step::Doubt),
        Phase::Rebuilding { .. } | Phase::Retiring { .. } if moves => {
            return repair.incoming.as_ref().map(|incoming| incoming.target.namespace);
        }
        Phase::Rebuilding { .. }
        | Phase::Retiring { .. }
        | Phase::Reporting
        | Phase::Grace
        | Phase::Returning { .. }
        | Phase::Requesting { .. }
        | Phase::Connecting { .. }
        | Phase::Verifying { .. }
        | Phase::Adding { .. }
        | Phase::Quarantined { .. } => false,
    };
    repair.lost.as_ref().filter(|_| doubted)?.namespace
}

/// Who was lost and is replaced by another, whichever slot that one got.
fn left_out(repair: &Repair) -> Option<NamespaceId> {
    let replaced = repair.cause == Cause::LegLost && repair.incoming.is_some();
    repair.lost.as_ref().filter(|_| replaced || was_out(repair))?.namespace
}

/// Whether the record says that the leg that was lost was not taken back since.
fn was_out(repair: &Repair) -> bool {
    let step = match &repair.phase {
        Phase::Reporting
        | Phase::Grace
        | Phase::Requesting { .. }
        | Phase::Connecting { .. }
        | Phase::Verifying { .. } => return repair.cause == Cause::LegLost,
        Phase::Suspect { .. }
        | Phase::Isolating { .. }
        | Phase::Returning { .. }
        | Phase::Adding { .. }
        | Phase::Rebuilding { .. }
        | Phase::Retiring { .. }
        | Phase::Quarantined { .. } => return false,
        Phase::Held { then, .. } => then,
    };
    let out = match step {
        Step::Report | Step::Grace | Step::Request { .. } | Step::Connect => true,
        Step::Doubt | Step::Rebuild | Step::Retire | Step::Hold { .. } => false,
    };
    out && repair.cause == Cause::LegLost
}

/// Whether the array is being assembled or stopped: an empty slot, or a leg that is gone, means
/// nothing then, and nothing is decided on it.
pub(super) fn is_half_there(array: &ArraySnapshot) -> bool {
    match array.state {
        Observed::Known(ArrayState::Clear | ArrayState::Inactive) | Observed::Unknown(_) => true,
        Observed::Known(
            ArrayState::Suspended
            | ArrayState::Readonly
            | ArrayState::ReadAuto
            | ArrayState::Clean
            | ArrayState::Active
            | ArrayState::WritePending
            | ArrayState::ActiveIdle
            | ArrayState::Broken,
        ) => false,
    }
}
