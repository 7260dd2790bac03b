//! What a phase wants next, given what the snapshot shows: one step, as data.
//!
//! Each phase derives its next step from the facts and not from a list it keeps, so a step that
//! somebody else has done already, or that an earlier life had done, is simply not wanted any more.

use heal_types::{
    ArraySnapshot, Backing, DeviceIdentity, FailWhy, HostAction, LegFlag, LegRef, LegSnapshot,
    NamespaceId, Now, Nqn, Observed, ProvisionerCall, Slot,
};

use crate::guards;
use crate::phase::{Phase, Repair};
use crate::record::Member;
use crate::signal::Signal;
use crate::view::{bound_faulty, is_nameless, leg_of, member_of, namespace_of};
use crate::why::{Cause, HeldWhy, RejectedWhy};

use super::{ArrayMachine, Standing};

/// The next step of a repair.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Want {
    /// Do this to the host.
    Act(HostAction),
    /// Say this to the provisioner.
    Call(ProvisionerCall),
    /// The facts already say what comes.
    Signal(Signal),
    /// Something stands in the way.
    Hold(HeldWhy),
    /// Wait for the next look, or for this long at the most.
    Wait(std::time::Duration),
    /// The same, and nothing asks for a look: whatever ends the wait wakes by itself.
    Rest(std::time::Duration),
}

impl ArrayMachine {
    pub(super) fn want(&self, now: Now, repair: &Repair) -> Option<Want> {
        let array = self.snapshot()?;
        match &repair.phase {
            Phase::Suspect { .. }
            | Phase::Reporting
            | Phase::Grace
            | Phase::Rebuilding { .. }
            | Phase::Held { .. }
            | Phase::Quarantined { .. } => None,
            Phase::Isolating { since, .. } => Some(self.want_isolated(now, array, repair, *since)),
            Phase::Returning { device, .. }
                if leg_of(array, &device.namespace).is_some_and(LegSnapshot::is_spare) =>
            {
                Some(match slot_to_make(array, repair) {
                    Some(raid_disks) => {
                        Want::Act(HostAction::SetRaidDisks { array: self.id, raid_disks })
                    }
                    // Taken back, and MD fills another leg first.
                    None => Want::Wait(self.policy.retry_max),
                })
            }
            Phase::Returning { device, .. } => {
                Some(Want::Act(self.want_back(array, repair, device)))
            }
            Phase::Requesting { key, .. } => Some(self.want_replacement(repair, key.clone())),
            Phase::Connecting { connected_at, .. } => {
                // It was granted once more after it had failed.
                let failed = repair.incoming.as_ref().and_then(|incoming| {
                    leg_of(array, &incoming.target.namespace).filter(|leg| leg.is_faulty())
                });
                Some(match failed {
                    Some(leg) => Want::Act(self.remove(leg, None)),
                    None => self.want_connected(now, repair, *connected_at),
                })
            }
            // Only what was verified is ever bound: an earlier life had come this far.
            Phase::Verifying { device, .. }
                if leg_of(array, &device.namespace).is_some_and(LegSnapshot::is_spare) =>
            {
                Some(Want::Signal(Signal::StepDone))
            }
            Phase::Verifying { device, .. } => {
                let namespace =
                    namespace_of(&self.namespaces, &device.namespace, Some(&device.nqn));
                Some(match namespace.map(|namespace| guards::candidate(array, namespace)) {
                    Some(Err(guards::GuardWhy::Candidate(why))) => {
                        Want::Signal(Signal::Rejected(why))
                    }
                    Some(Err(_)) => Want::Wait(self.policy.retry_min),
                    Some(Ok(())) => Want::Act(HostAction::Examine { device: device.clone() }),
                    None => Want::Signal(Signal::LegLeft),
                })
            }
            Phase::Adding { .. } => Some(self.want_added(array, repair)),
            Phase::Retiring { .. } => Some(self.want_retired(array, repair)),
        }
    }

    /// The leg is taken back in place of what of it is bound still: on that very device, or under
    /// its old name. If both are, another hand was there meanwhile, and the old one goes first.
    fn want_back(
        &self,
        array: &ArraySnapshot,
        repair: &Repair,
        device: &DeviceIdentity,
    ) -> HostAction {
        if let Some(clear) = self.wishing(array, None) {
            return clear;
        }
        let lost = repair.lost.as_ref();
        let own = leg_of(array, &device.namespace).filter(|leg| leg.is_faulty());
        let elsewhere = |leg: &&LegSnapshot| own.is_none_or(|own| own.device != leg.device);
        let mut left = bound_faulty(array, repair.slot, lost).filter(elsewhere);
        let first = left.next();
        let second = left.next();
        match (own.or(second), first) {
            (Some(_), Some(first)) => self.remove(first, lost),
            (own, first) => HostAction::ReAddLeg {
                array: self.id,
                device: device.clone(),
                member: lost.and_then(|lost| lost.md_device),
                // Whatever member it is by now: it is faulty.
                faulty: own.or(first).map(|leg| LegRef { md_device: None, ..leg_ref(leg, lost) }),
            },
        }
    }

    /// Takes back a wish to be replaced that a passing error left on a good leg: whatever is added
    /// while it stands becomes that leg's successor.
    fn wishing(&self, array: &ArraySnapshot, may: Option<&LegSnapshot>) -> Option<HostAction> {
        let leg = array.in_sync().find(|leg| {
            leg.flags.has(LegFlag::WantReplacement)
                && may.is_none_or(|leaving| leaving.device != leg.device)
        })?;
        let leg = leg_ref(leg, Some(&member_of(leg, self.volume.known())));
        Some(HostAction::ClearWantReplacement { array: self.id, leg })
    }

    fn want_replacement(&self, repair: &Repair, key: heal_types::CallKey) -> Want {
        // While this waited, the leg may have come back, or the provisioner may have acted.
        if let Some(device) = self.returned(repair) {
            return Want::Signal(Signal::LegReturned(device));
        }
        if let Some(signal) = self.volume_signal(repair.slot) {
            return Want::Signal(signal);
        }
        if self.waits_for_full_copy(repair) {
            return Want::Rest(self.policy.retry_max);
        }
        if repair.cause == Cause::MoreCopies {
            // Nobody was lost: the volume offers another copy when it has one.
            return Want::Signal(Signal::NoLongerNeeded);
        }
        let lost = repair.asks_to_replace().cloned();
        let volume = self.volume.known().map(|volume| volume.id.clone());
        let (Some(lost), Some(volume)) = (lost, volume) else {
            let detail = "G5: which replica was lost is not known".to_owned();
            return Want::Hold(HeldWhy::Guard { detail });
        };
        let why = match repair.cause {
            Cause::LegLost => "the replica was lost and did not come back within its grace",
            Cause::ReplicaTerminating => "the replica is terminating",
            Cause::BadBlocks => "the replica has blocks that cannot be read, and is no full copy",
            Cause::MoreCopies | Cause::FewerCopies => "the number of copies changes",
        };
        Want::Call(ProvisionerCall::RequestReplacement { volume, lost, why: why.to_owned(), key })
    }

    fn want_connected(
        &self,
        now: Now,
        repair: &Repair,
        connected_at: Option<heal_types::Moment>,
    ) -> Want {
        let Some(incoming) = &repair.incoming else {
            let detail = "G5: the incoming replica is not known".to_owned();
            return Want::Hold(HeldWhy::Guard { detail });
        };
        let target = &incoming.target;
        match connected_at {
            Some(at) if now.mono.since(at) >= self.policy.namespace_timeout => {
                let found: Vec<String> = self
                    .namespaces
                    .iter()
                    .filter(|namespace| namespace.nqn.is_known_and(|nqn| *nqn == target.nqn))
                    .map(|namespace| namespace.ids.to_string())
                    .collect();
                let found = if found.is_empty() { "nothing".to_owned() } else { found.join(", ") };
                let promised = target.namespace.to_string();
                Want::Signal(Signal::Rejected(RejectedWhy::NamespaceNotFound { promised, found }))
            }
            Some(at) => {
                Want::Wait(self.policy.namespace_timeout.saturating_sub(now.mono.since(at)))
            }
            None => Want::Act(HostAction::Connect {
                target: target.clone(),
                options: self.policy.connect.clone(),
            }),
        }
    }

    fn want_added(&self, array: &ArraySnapshot, repair: &Repair) -> Want {
        let (Some(incoming), Phase::Adding { device, .. }) = (&repair.incoming, &repair.phase)
        else {
            return Want::Hold(HeldWhy::Guard { detail: "G5: nothing to add".to_owned() });
        };
        if let Some(leg) = bound_faulty(array, repair.slot, repair.lost.as_ref()).next() {
            return Want::Act(self.remove(leg, repair.lost.as_ref()));
        }
        let leaving = array.leg_in(repair.slot).filter(|_| repair.cause.moves_leg());
        let bound = leg_of(array, &incoming.target.namespace);
        // The leg that has to go may wish for it once its successor is bound, not before.
        let may_wish = leaving.filter(|_| bound.is_some());
        if let Some(clear) = self.wishing(array, may_wish) {
            return Want::Act(clear);
        }
        if let Some(raid_disks) = bound.and_then(|_| slot_to_make(array, repair)) {
            return Want::Act(HostAction::SetRaidDisks { array: self.id, raid_disks });
        }
        match (bound, leaving) {
            (None, _) => Want::Act(HostAction::AddLeg { array: self.id, device: device.clone() }),
            (Some(spare), Some(leaving)) if spare.is_spare() => Want::Act(HostAction::ReplaceLeg {
                array: self.id,
                from: leg_ref(leaving, repair.lost.as_ref()),
                to: device.clone(),
            }),
            // MD takes a spare into an empty slot by itself.
            (Some(_), _) => Want::Wait(self.policy.retry_max),
        }
    }

    fn want_retired(&self, array: &ArraySnapshot, repair: &Repair) -> Want {
        if self.standing == Standing::Unprovisioned {
            return Want::Signal(Signal::Settled); // What others put in place is theirs to tidy.
        }
        if repair.cause == Cause::FewerCopies {
            if let Some(want) = self.want_fewer(array, repair) {
                return want;
            }
        }
        if self.lacks_blocks(array, repair.slot) {
            return Want::Wait(self.policy.retry_max);
        }
        if let Some(leg) = self.left_over(array, repair.slot) {
            let member = self.leaving(repair).into_iter().find(|member| is_bound_as(member, leg));
            return Want::Act(self.remove(leg, member.as_ref()));
        }
        if let Some(action) = self.connected.keys().find_map(|nqn| self.disconnect(array, nqn)) {
            return Want::Act(action);
        }
        let mut told = self.leaving(repair).into_iter().filter(|member| member.replica.is_some());
        if !self.sees_now {
            // What was out at the last look may have been added again since, and it is given up for
            // good.
            return Want::Wait(self.policy.retry_max);
        }
        if told.all(|member| self.is_provably_out(repair.slot, &member)) {
            Want::Signal(Signal::Settled)
        } else {
            Want::Wait(self.policy.retry_max)
        }
    }

    /// A faulty member that no other repair still needs: whoever it was, its slot is good again.
    fn left_over<'a>(&self, array: &'a ArraySnapshot, slot: Slot) -> Option<&'a LegSnapshot> {
        let others = || self.repairs.values().filter(|repair| repair.slot != slot);
        let leaving = self.repairs.get(&slot).map(|repair| self.leaving(repair));
        let leaving = leaving.unwrap_or_default();
        array.legs.iter().find(|leg| {
            let idle = leg.is_spare() && leaving.iter().any(|member| is_bound_as(member, leg));
            (leg.is_faulty() || idle)
                && leg.slot.is_none_or(|own| own == slot)
                && !others().any(|repair| {
                    let theirs = |member: &Member| is_bound_as(member, leg);
                    // Who retires as well needs it no more, or each would leave it to the other.
                    let retires = matches!(repair.phase, Phase::Retiring { .. });
                    let needs = repair.lost.as_ref().is_some_and(theirs)
                        || repair.also_retire.iter().any(theirs);
                    (needs && !retires) || brings(repair, |id| leg.is_namespace(id))
                })
        })
    }

    fn want_fewer(&self, array: &ArraySnapshot, repair: &Repair) -> Option<Want> {
        let lost = repair.lost.as_ref()?;
        let copies = self.volume.known()?.copies;
        let bound = lost.namespace.and_then(|id| leg_of(array, &id));
        match bound {
            Some(leg) if leg.is_faulty() => Some(Want::Act(self.remove(leg, Some(lost)))),
            // The wish may have been taken back while the repair was held.
            Some(_) if copies >= array.raid_disks || !self.is_leaving(lost) => {
                Some(Want::Signal(Signal::NoLongerNeeded))
            }
            Some(leg) => Some(Want::Act(HostAction::FailLeg {
                array: self.id,
                leg: leg_ref(leg, Some(lost)),
                why: FailWhy::NoLongerWanted,
            })),
            None if array.raid_disks > copies => Some(Want::Act(HostAction::SetRaidDisks {
                array: self.id,
                raid_disks: array.raid_disks.saturating_sub(1),
            })),
            None => None,
        }
    }

    /// Whether the provisioner wants a replica out. One that its last answer does not list may have
    /// been granted after the question.
    pub(super) fn is_leaving(&self, member: &Member) -> bool {
        let Some(id) = member.replica.as_ref() else { return true };
        match self.volume.known().and_then(|volume| volume.replica(id)) {
            Some(replica) => replica.state.is_leaving(),
            None => !self.volume.is_newer_than_the_answer(id),
        }
    }

    /// Who is put away at the end of this repair.
    pub(super) fn leaving(&self, repair: &Repair) -> Vec<Member> {
        let replaced = repair.incoming.is_some() || repair.cause == Cause::FewerCopies;
        let lost = repair.lost.iter().filter(|_| replaced);
        let stays = |member: &&Member| {
            // A replacement that failed and then came back by itself is a leg again, or another
            // slot's replacement, or that one's loss.
            let is_leg = self.members.values().any(|leg| leg.namespace == member.namespace);
            let mut others = self.repairs.values().filter(|other| other.slot != repair.slot);
            let same = |lost: &Member| lost.namespace == member.namespace;
            let theirs = others.any(|other| {
                brings(other, |id| member.namespace == Some(*id))
                    || other.lost.as_ref().is_some_and(same)
                    || other.asks_for.as_ref().is_some_and(same)
            });
            !theirs && (!is_leg || repair.cause == Cause::FewerCopies)
        };
        lost.chain(&repair.also_retire).filter(stays).cloned().collect()
    }

    /// The controllers of a subsystem that we connected, if nothing uses it any more.
    fn disconnect(&self, array: &ArraySnapshot, nqn: &Nqn) -> Option<HostAction> {
        if self.is_used(array, nqn) {
            return None;
        }
        let controllers = self.connected.get(nqn)?.iter().cloned().collect();
        Some(HostAction::Disconnect { nqn: nqn.clone(), controllers })
    }

    fn is_used(&self, array: &ArraySnapshot, nqn: &Nqn) -> bool {
        let by_leg = array.legs.iter().any(|leg| match &leg.backing {
            Backing::Namespace(namespace) => !namespace.nqn.is_known_and(|own| own != nqn),
            Backing::Local | Backing::Gone | Backing::Unreadable => false,
        });
        let by_repair = self.repairs.values().any(|repair| {
            repair.incoming.as_ref().is_some_and(|incoming| incoming.target.nqn == *nqn)
        });
        // A leg in doubt, or one that may still come back, is not put away by another slot's
        // repair.
        let named = |member: &Member| member.nqn.as_ref() == Some(nqn);
        let left = self
            .repairs
            .values()
            .filter(|repair| matches!(repair.phase, Phase::Retiring { .. }))
            .flat_map(|repair| self.leaving(repair))
            .any(|member| named(&member));
        let awaited = self.members.values().any(named)
            || self.repairs.values().any(|repair| repair.lost.as_ref().is_some_and(named));
        by_leg || by_repair || (awaited && !left)
    }

    pub(super) fn remove(&self, leg: &LegSnapshot, member: Option<&Member>) -> HostAction {
        HostAction::RemoveLeg { array: self.id, leg: leg_ref(leg, member) }
    }

    /// Whether it is certain that a member is no part of the array any more.
    pub(super) fn is_provably_out(&self, slot: Slot, member: &Member) -> bool {
        let Observed::Known(Some(array)) = &self.array else { return false };
        let Some(id) = member.namespace else { return false };
        let bound = bound_faulty(array, slot, Some(member)).next().is_some()
            || leg_of(array, &id).is_some();
        let held = namespace_of(&self.namespaces, &id, member.nqn.as_ref())
            .is_some_and(|namespace| !namespace.holders.is_known_and(Vec::is_empty));
        let hidden =
            self.may_be_hidden(array, |known| known.namespace.is_some_and(|own| own != id));
        !bound && !held && !hidden
    }

    /// Whether somebody may be a leg that nobody can name: one that goes by the name of a member
    /// whom `is_another` knows not to be the one, is not.
    pub(super) fn may_be_hidden(
        &self,
        array: &ArraySnapshot,
        is_another: impl Fn(&Member) -> bool,
    ) -> bool {
        let losses = self.repairs.values().filter_map(|repair| repair.lost.as_ref());
        let known: Vec<&Member> = self.members.values().chain(losses).collect();
        let told_apart = |leg: &LegSnapshot| {
            let mut named = known.iter().filter(|it| it.device.as_ref() == Some(&leg.device));
            named.any(|it| is_another(it))
        };
        array.legs.iter().any(|leg| is_nameless(leg) && !told_apart(leg))
    }
}

/// How many slots the array needs, where that of a repair is not there yet: MD uses no leg for it
/// before.
fn slot_to_make(array: &ArraySnapshot, repair: &Repair) -> Option<u16> {
    (repair.slot.0 >= array.raid_disks).then(|| array.raid_disks.saturating_add(1))
}

/// Whether a repair brings a namespace in that is so.
fn brings(repair: &Repair, is_it: impl Fn(&NamespaceId) -> bool) -> bool {
    repair.incoming.as_ref().is_some_and(|incoming| is_it(&incoming.target.namespace))
}

/// Whether a bound leg is this member, by name or by namespace.
fn is_bound_as(member: &Member, leg: &LegSnapshot) -> bool {
    if let Some(id) = member.namespace {
        if leg.is_namespace(&id) {
            return true;
        }
        // A name goes to the next device: where it is known who goes by it now, that decides.
        if leg.backing.namespace().is_some_and(|namespace| namespace.ids.known().is_some()) {
            return false;
        }
    }
    member.device.as_ref() == Some(&leg.device)
}

/// A leg as an action names it.
pub(super) fn leg_ref(leg: &LegSnapshot, member: Option<&Member>) -> LegRef {
    let id = member.and_then(|member| member.namespace);
    LegRef {
        device: leg.device.clone(),
        slot: leg.slot,
        md_device: leg
            .md_device
            .known()
            .copied()
            .or_else(|| member.and_then(|member| member.md_device)),
        identity: match &leg.backing {
            Backing::Namespace(namespace) => id.and_then(|id| namespace.identity(&id)),
            Backing::Local | Backing::Gone | Backing::Unreadable => None,
        },
    }
}
