//! From a snapshot to signals: what each slot looks like now, held against what its repair expects.
//!
//! Everything here is level-based. A signal is raised because the snapshot *is* so and the phase
//! does not expect it, never because something changed since the last look.

use std::collections::BTreeMap;
use std::sync::Arc;

use heal_types::{
    ArraySnapshot, ArrayState, Backing, DeviceIdentity, LegFlag, LegSnapshot, Moment, NamespaceId,
    NamespaceIds, Now, Nqn, Observed, Slot, UnknownWhy,
};

use crate::audit::{AuditKind, Severity};
use crate::event::{Look, LookCause, PathNews};
use crate::phase::{Phase, PhaseKind, Repair, TurnState};
use crate::record::{Member, OwedMessage, Step};
use crate::signal::Signal;
use crate::view::{SlotView, is_nameless, leg_of, member_of, namespace_of, slot_view};
use crate::why::{Cause, DoubtWhy, HeldWhy, QuarantinedWhy};

use super::bad_blocks::{blocks_are_back, stays_after_all};
use super::start::is_half_there;
use super::{ArrayMachine, Standing};

impl ArrayMachine {
    pub(super) fn looked(&mut self, now: Now, look: Look) {
        self.cause = look.cause;
        if let Observed::Unknown(why) = look.array {
            // The old snapshot stays for status; nothing is concluded from a look that saw nothing.
            if self.array.known().is_none() {
                self.array = Observed::Unknown(why);
            }
            self.blind = true;
            return;
        }
        self.blind = false;
        self.namespaces = look.namespaces;
        self.subsystems = look.subsystems;
        self.note_given_up(now);
        if matches!(self.owing.state, TurnState::NextLook(_)) {
            self.owing.state = TurnState::Due(now.mono);
        }
        let was_there = self.snapshot().is_some();
        let name = self.snapshot().and_then(|array| array.alias.clone());
        let first = self.array.known().is_none();
        let was_broken = self.is_broken();
        self.array = look.array.map(|array| array.map(Arc::new));
        // A provisioner may know the array by the name that udev found only now.
        if was_there && self.snapshot().is_some_and(|array| array.alias != name) {
            self.volume.ask_again(now.mono);
        }
        if self.snapshot().is_some() {
            self.seen = true;
            if self.seen_in.as_ref() != Some(&self.boot) {
                self.seen_in = Some(self.boot.clone());
            }
        }
        self.blind = self.snapshot().is_some_and(is_half_there);
        if self.is_broken() && !was_broken {
            let text = format!(
                "{}: the array is broken: a write was lost on its last leg, and every write fails \
                 until it is stopped and assembled",
                self.name()
            );
            self.tell(now, AuditKind::ArrayBroken, Severity::Critical, text);
        }
        if self.is_gone() {
            if self.seen {
                self.note_controllers();
            }
            if was_there {
                self.array_gone(now);
            } else if first {
                self.array_went_unseen(now);
            }
            return;
        }
        for repair in self.repairs.values_mut() {
            if let Some(turn) = repair.phase.turn_mut() {
                if matches!(turn.state, TurnState::NextLook(_)) {
                    turn.state = TurnState::Due(now.mono);
                }
            }
        }
        self.note_up(now);
        self.note_unfilled();
        self.note_controllers();
        if let Some(why) = self.duplicate_leg() {
            self.quarantine(now, why);
        }
        if !self.blind && !self.ran {
            self.ran = !self.runs_from_who_knows();
            self.blind = !self.ran;
            if let Some(why) = self.started_from_a_lost_leg().filter(|_| self.ran) {
                self.quarantine(now, why);
            }
        }
        self.decide_standing(now);
        self.look_at_slots(now);
        // A slot that became whole or empty may be what a wish of the provisioner waited for.
        self.volume_signals(now);
        self.set_the_book_right(now);
    }

    /// Attributes are filled some time after a device appears, without an event: look again.
    fn note_unfilled(&mut self) {
        let soon = |why: &UnknownWhy| match why {
            UnknownWhy::NotReadYet | UnknownWhy::NotFilledYet | UnknownWhy::Vanished => true,
            UnknownWhy::ReadFailed
            | UnknownWhy::Malformed
            | UnknownWhy::WouldBlock
            | UnknownWhy::NoAnswer
            | UnknownWhy::Unsupported => false,
        };
        let unfilled = self.namespaces.iter().any(|namespace| {
            matches!(&namespace.ids, Observed::Unknown(why) if soon(why))
                || matches!(&namespace.nqn, Observed::Unknown(why) if soon(why))
        });
        let binding = self
            .snapshot()
            .is_some_and(|array| array.legs.iter().any(|leg| leg.backing == Backing::Unreadable));
        if unfilled || binding {
            self.want_look();
        }
    }

    /// Which controllers the subsystems have that we connected: a namespace may be gone when the
    /// time comes to disconnect them.
    fn note_controllers(&mut self) {
        for namespace in &self.namespaces {
            let Some(nqn) = namespace.nqn.known() else { continue };
            let Some(seen) = self.connected.get_mut(nqn) else { continue };
            for path in &namespace.paths {
                self.dirty |= seen.insert(path.controller.clone());
            }
        }
    }

    pub(super) fn is_broken(&self) -> bool {
        self.snapshot()
            .is_some_and(|array| array.state.is_known_and(|state| *state == ArrayState::Broken))
    }

    fn duplicate_leg(&self) -> Option<QuarantinedWhy> {
        let array = self.snapshot()?;
        let good: Vec<&LegSnapshot> = array.legs.iter().filter(|leg| !leg.is_faulty()).collect();
        for (i, leg) in good.iter().enumerate() {
            let own = member_of(leg, self.volume.known());
            let twin = good[..i].iter().find(|other| {
                own.namespace.is_some_and(|id| other.is_namespace(&id))
                    || (own.md_device.is_some()
                        && other.md_device.known().copied() == own.md_device)
            });
            if let Some(twin) = twin {
                let detail = format!("{} and {}", twin.device, leg.device);
                return Some(QuarantinedWhy::DuplicateLeg { detail });
            }
        }
        None
    }

    /// Raises whatever the slots show.
    pub(super) fn look_at_slots(&mut self, now: Now) {
        match self.standing {
            Standing::Managed | Standing::Unprovisioned => {}
            // A repair of an earlier life was begun on a managed array; it goes on.
            Standing::Undecided if !self.repairs.is_empty() => {}
            Standing::Undecided | Standing::NotOurs(_) => {
                let _ = self.remember_members();
                return;
            }
        }
        if self.quarantine.is_some() {
            return;
        }
        let Observed::Known(Some(array)) = self.array.clone() else {
            return;
        };
        if is_half_there(&array) || !self.ran || !self.agrees_with_the_book(now) {
            return;
        }
        self.follow_slots(now, &array);
        self.name_losses(now);
        let mut slots: Vec<Slot> = (0..array.raid_disks).map(Slot).collect();
        slots.extend(self.repairs.keys().filter(|slot| slot.0 >= array.raid_disks));
        for slot in slots {
            self.moving_leg_failed(now, &array, slot);
            match self.slot_signal(&array, slot) {
                // The last look may be long ago, and the leg be lost again: nobody is told
                // otherwise. Nobody is told either while it cannot be said who that leg is.
                Some(Signal::LegInSync | Signal::NoLongerNeeded)
                    if !self.is_doubted(slot)
                        && (!self.sees_now || array.leg_in(slot).is_some_and(is_nameless)) =>
                {
                    self.want_look();
                }
                Some(signal) => self.signal(now, slot, signal),
                None => {}
            }
        }
        // MD may have put another one into a good slot, for a wish that a passing error left there.
        for member in self.remember_members() {
            self.owe(now, Some(&member), OwedMessage::Report(heal_types::Condition::Missing));
        }
    }

    fn is_doubted(&self, slot: Slot) -> bool {
        let phase = self.repairs.get(&slot).map(|repair| &repair.phase);
        matches!(phase, Some(Phase::Suspect { .. } | Phase::Isolating { .. }))
    }

    /// Who holds which slot, while it is good: what a loss will be told by. Answers with those whom
    /// another leg has replaced behind everybody's back.
    fn remember_members(&mut self) -> Vec<Member> {
        let Some(array) = self.snapshot() else { return Vec::new() };
        let mut seen: Vec<(Slot, Member)> = Vec::new();
        for slot in (0..array.raid_disks).map(Slot) {
            if let Some(leg) = self.member_in(array, slot) {
                let mut member = member_of(leg, self.volume.known());
                if let Some(known) = self.members.get(&slot) {
                    // udev's database may be behind; who it is does not change under one name.
                    if known.device == member.device && known.dev == member.dev {
                        member.md_device = member.md_device.or(known.md_device);
                        member.namespace = member.namespace.or(known.namespace);
                        member.nqn = member.nqn.or_else(|| known.nqn.clone());
                        member.replica = member.replica.or_else(|| known.replica.clone());
                    }
                }
                seen.push((slot, member));
            }
        }
        let slots = array.raid_disks;
        let replaced = self.replaced_unseen(&seen);
        let repairs = &self.repairs;
        self.members.retain(|slot, _| slot.0 < slots || repairs.contains_key(slot));
        for (slot, member) in seen {
            // A namespace is in one slot only: whoever remembers it elsewhere is behind.
            self.members.retain(|other, known| {
                *other == slot || member.namespace.is_none() || known.namespace != member.namespace
            });
            if self.members.get(&slot) != Some(&member) {
                self.members.insert(slot, member);
                self.dirty |= self.standing == Standing::Managed;
            }
        }
        replaced
    }

    /// The leg in a slot, if it is to be remembered. One in doubt holds every block as well: where
    /// nobody is remembered yet it is, or the next life takes it for one that was lost.
    fn member_in<'a>(&self, array: &'a ArraySnapshot, slot: Slot) -> Option<&'a LegSnapshot> {
        let unknown = !self.members.contains_key(&slot) && !self.repairs.contains_key(&slot);
        match slot_view(array, slot) {
            SlotView::Good(leg) => Some(leg),
            SlotView::Doubtful(_) if unknown => array.leg_in(slot).filter(|leg| !is_nameless(leg)),
            SlotView::Doubtful(_)
            | SlotView::Recovering
            | SlotView::Failed
            | SlotView::Vacant
            | SlotView::Unclear => None,
        }
    }

    /// Whether the leg that was good in a slot may be one that nobody can name now, in another slot
    /// where a person put it.
    fn may_serve_elsewhere(&self, array: &ArraySnapshot, slot: Slot) -> bool {
        let was_good = match self.repairs.get(&slot).map(|repair| repair.phase.kind()) {
            None | Some(PhaseKind::Suspect | PhaseKind::Isolating) => self.members.get(&slot),
            Some(
                PhaseKind::Whole
                | PhaseKind::Reporting
                | PhaseKind::Grace
                | PhaseKind::Returning
                | PhaseKind::Requesting
                | PhaseKind::Connecting
                | PhaseKind::Verifying
                | PhaseKind::Adding
                | PhaseKind::Rebuilding
                | PhaseKind::Retiring
                | PhaseKind::Held
                | PhaseKind::Quarantined,
            ) => None,
        };
        let device = was_good.and_then(|member| member.device.as_ref());
        array.legs.iter().any(|leg| {
            let serves = leg.slot.is_some_and(|other| other != slot) && !leg.is_faulty();
            serves && is_nameless(leg) && device == Some(&leg.device)
        })
    }

    fn slot_signal(&self, array: &ArraySnapshot, slot: Slot) -> Option<Signal> {
        let mut view = slot_view(array, slot);
        if view == SlotView::Vacant && self.may_serve_elsewhere(array, slot) {
            view = SlotView::Unclear;
        }
        let Some(repair) = self.repairs.get(&slot) else {
            return match view {
                // Hearsay about a path opens no repair; nothing rests on that path meanwhile.
                SlotView::Doubtful(DoubtWhy::PathSuspect(_)) => None,
                SlotView::Doubtful(why) => Some(Signal::LegDoubtful(why)),
                SlotView::Failed | SlotView::Vacant => Some(Signal::LegFailed),
                SlotView::Recovering => Some(Signal::LegRecovering(array.sync_progress)),
                SlotView::Good(_) | SlotView::Unclear => None,
            };
        };
        match &repair.phase {
            Phase::Suspect { .. } | Phase::Isolating { .. } => doubt_signal(array, view),
            Phase::Reporting | Phase::Quarantined { .. } => None,
            Phase::Grace | Phase::Requesting { .. } => self
                .healed_by_others(array, repair, view)
                .or_else(|| blocks_are_back(array, repair))
                .or_else(|| moving_leg_in_doubt(repair, view))
                .or_else(|| self.returned(repair).map(Signal::LegReturned)),
            Phase::Returning { device, .. } => self.returning_signal(array, repair, device, view),
            Phase::Connecting { .. } | Phase::Verifying { .. } | Phase::Adding { .. } => {
                filled_by_others(repair, view).or_else(|| self.incoming_signal(array, repair))
            }
            Phase::Rebuilding { .. } => rebuilding_signal(array, repair, view),
            Phase::Retiring { .. } => match (repair.cause, view) {
                (Cause::FewerCopies, _) => None,
                (
                    Cause::LegLost
                    | Cause::ReplicaTerminating
                    | Cause::BadBlocks
                    | Cause::MoreCopies,
                    SlotView::Failed | SlotView::Vacant,
                ) => Some(Signal::LegFailed),
                // It left and came back between two looks: nothing is put away before it is full.
                (
                    Cause::LegLost
                    | Cause::ReplicaTerminating
                    | Cause::BadBlocks
                    | Cause::MoreCopies,
                    SlotView::Recovering,
                ) => Some(Signal::LegRecovering(array.sync_progress)),
                (
                    Cause::LegLost
                    | Cause::ReplicaTerminating
                    | Cause::BadBlocks
                    | Cause::MoreCopies,
                    SlotView::Good(_) | SlotView::Doubtful(_) | SlotView::Unclear,
                ) => None,
            },
            Phase::Held { why, then, .. } => self.held_signal(array, repair, why, then, view),
        }
    }

    fn held_signal(
        &self,
        array: &ArraySnapshot,
        repair: &Repair,
        why: &HeldWhy,
        then: &Step,
        view: SlotView<'_>,
    ) -> Option<Signal> {
        match then {
            // Good again: nothing was ever lost, so the doubt is taken up and cleared.
            Step::Doubt if matches!(view, SlotView::Good(_)) => return Some(Signal::HoldEnded),
            Step::Doubt if matches!(view, SlotView::Doubtful(_)) => return None,
            Step::Doubt => return doubt_signal(array, view),
            // The new leg is lost while the old one waits to be put away.
            Step::Retire if repair.cause != Cause::FewerCopies => match view {
                SlotView::Failed | SlotView::Vacant => return Some(Signal::LegFailed),
                SlotView::Good(_)
                | SlotView::Doubtful(_)
                | SlotView::Recovering
                | SlotView::Unclear => return None,
            },
            Step::Report
            | Step::Grace
            | Step::Request { .. }
            | Step::Connect
            | Step::Rebuild
            | Step::Retire
            | Step::Hold { .. } => {}
        }
        // A hold ends with its reason. A slot that is good again, or being filled, ends it as well,
        // unless a person said so and something would be left to do.
        let nothing_to_retire = repair.incoming.is_none() && repair.also_retire.is_empty();
        if let Some(signal) = blocks_are_back(array, repair).filter(|_| nothing_to_retire) {
            return Some(signal);
        }
        let silent = matches!(why, HeldWhy::Operator { .. } | HeldWhy::Observing);
        if !silent && stays_after_all(array, repair) {
            return Some(Signal::LegInSync);
        }
        if nothing_to_retire || !silent {
            let own = self
                .incoming_signal(array, repair)
                .filter(|signal| matches!(signal, Signal::LegInSync | Signal::LegRecovering(_)));
            let healed = own.or_else(|| self.healed_by_others(array, repair, view));
            if healed.is_some() {
                return healed;
            }
        }
        if let Some(signal) = moving_leg_in_doubt(repair, view) {
            return Some(signal);
        }
        let takes_back = match why {
            HeldWhy::NoProvisioner
            | HeldWhy::OneAtATime { .. }
            | HeldWhy::Budget
            | HeldWhy::Refused { .. }
            | HeldWhy::Rejected { .. }
            | HeldWhy::StepFailed { .. } => true,
            HeldWhy::Operator { .. }
            | HeldWhy::Observing
            | HeldWhy::HostCutOff { .. }
            | HeldWhy::Flapping { .. }
            | HeldWhy::ArrayState(_)
            | HeldWhy::ArrayBusy
            | HeldWhy::Guard { .. }
            | HeldWhy::NotDurable { .. } => false,
        };
        if takes_back { self.returned(repair).map(Signal::LegReturned) } else { None }
    }

    /// The slot is good or being filled though we did nothing: somebody else did.
    fn healed_by_others(
        &self,
        array: &ArraySnapshot,
        repair: &Repair,
        view: SlotView<'_>,
    ) -> Option<Signal> {
        match repair.cause {
            Cause::LegLost => match view {
                SlotView::Good(_) => Some(Signal::LegInSync),
                SlotView::Recovering => Some(Signal::LegRecovering(array.sync_progress)),
                SlotView::Doubtful(_) | SlotView::Failed | SlotView::Vacant | SlotView::Unclear => {
                    None
                }
            },
            // Mostly the slot is good because the leg that has to go is still in it.
            Cause::ReplicaTerminating | Cause::BadBlocks => match view {
                SlotView::Good(leg) => {
                    let leaving = repair.lost.as_ref()?.namespace?;
                    let ids = leg.backing.namespace()?.ids.known()?;
                    (!ids.contains(&leaving)).then_some(Signal::LegInSync)
                }
                SlotView::Doubtful(_)
                | SlotView::Recovering
                | SlotView::Failed
                | SlotView::Vacant
                | SlotView::Unclear => None,
            },
            Cause::MoreCopies | Cause::FewerCopies => None,
        }
    }

    /// The lost leg's own namespace, if it is back, whole, unbound and allowed back.
    pub(super) fn returned(&self, repair: &Repair) -> Option<DeviceIdentity> {
        if repair.cause != Cause::LegLost || !self.may_return(repair) {
            return None;
        }
        let lost = repair.lost.as_ref()?;
        let device = self.taken_back(lost).or_else(|| {
            let namespace = lost.namespace.as_ref()?;
            self.idle_namespace(namespace, lost.nqn.as_ref())
        })?;
        let refused = repair.not_again.as_ref() == Some(&device);
        (!refused && self.calms_at(&lost.namespace?).is_none()).then_some(device)
    }

    /// A lost leg that is in the array again as a spare: an earlier life, or another hand, has
    /// taken it back, and MD fills another leg first.
    fn taken_back(&self, lost: &Member) -> Option<DeviceIdentity> {
        let id = lost.namespace?;
        leg_of(self.snapshot()?, &id).filter(|leg| leg.is_spare())?;
        namespace_of(&self.namespaces, &id, lost.nqn.as_ref())?.identity(&id)
    }

    /// When a leg that was lost too often has been up for long enough, if that is still to come.
    fn calms_at(&self, leg: &NamespaceId) -> Option<Moment> {
        let policy = &self.policy.flapping;
        if !self.flaps.is_over(leg, self.now.wall, policy) {
            return None;
        }
        let calm = self.up_since.get(leg).map_or(self.now.mono, |since| *since);
        Some(calm.after(policy.hold_down)).filter(|at| *at > self.now.mono)
    }

    /// Legs that are back and were lost too often stay out for a while, and status says so.
    pub(super) fn hold_flapping(&mut self, now: Now) {
        let waiting: Vec<(Slot, Moment)> = self
            .repairs
            .values()
            .filter(|repair| matches!(repair.phase, Phase::Grace) && repair.cause == Cause::LegLost)
            .filter_map(|repair| {
                let lost = repair.lost.as_ref()?;
                let back = self.idle_namespace(&lost.namespace?, lost.nqn.as_ref()).is_some();
                let until = self.calms_at(&lost.namespace?)?;
                (back && self.may_return(repair)).then_some((repair.slot, until))
            })
            .collect();
        for (slot, until) in waiting {
            let why = HeldWhy::Flapping { seconds: self.policy.flapping.hold_down.as_secs() };
            self.hold_repair(now, slot, why, Some(until), None);
        }
    }

    /// Since when each namespace has had a usable path, without a break.
    fn note_up(&mut self, now: Now) {
        let mut up = BTreeMap::new();
        for namespace in self.namespaces.iter().filter(|namespace| namespace.has_usable_path()) {
            for id in namespace.ids.known().into_iter().flat_map(NamespaceIds::iter) {
                up.insert(*id, self.up_since.get(id).copied().unwrap_or(now.mono));
            }
        }
        let left: Vec<NamespaceId> = self
            .repairs
            .values()
            .filter(|repair| is_out(repair))
            .filter_map(|repair| repair.lost.as_ref()?.namespace)
            .filter(|id| self.up_since.contains_key(id) && !up.contains_key(id))
            .collect();
        for leg in left {
            // It came and went without being a leg: that is a flap like any other.
            self.flaps.lost(leg, now.wall, &self.policy.flapping);
            self.dirty = true;
        }
        self.up_since = up;
    }

    /// The verdict on some path changed: the same look, seen with other eyes.
    pub(super) fn paths_changed(&mut self, now: Now, news: PathNews) {
        if self.blind {
            return self.hear_paths(news);
        }
        if let Observed::Known(Some(array)) = &mut self.array {
            let legs = Arc::make_mut(array).legs.iter_mut();
            news.annotate(legs.filter_map(|leg| leg.backing.namespace_mut()));
        }
        news.annotate(&mut self.namespaces);
        self.cause = LookCause::Link;
        self.hear_paths(news);
        self.note_up(now);
        self.look_at_slots(now);
    }

    fn hear_paths(&mut self, news: PathNews) {
        self.cut_off = news.cut_off;
    }

    /// The identity of the namespace `id`, if it is present, usable and nothing holds it. A faulty
    /// member of this very array that still stands on it does not count: it is unbound first.
    pub(super) fn idle_namespace(
        &self,
        id: &NamespaceId,
        nqn: Option<&Nqn>,
    ) -> Option<DeviceIdentity> {
        let namespace = namespace_of(&self.namespaces, id, nqn)?;
        let array = self.snapshot()?;
        let ours = leg_of(array, id).is_some_and(LegSnapshot::is_faulty);
        let idle = ours || namespace.holders.is_known_and(Vec::is_empty);
        if idle && namespace.has_usable_path() { namespace.identity(id) } else { None }
    }

    fn returning_signal(
        &self,
        array: &ArraySnapshot,
        repair: &Repair,
        device: &DeviceIdentity,
        view: SlotView<'_>,
    ) -> Option<Signal> {
        let turn = repair.phase.turn();
        let under_way = turn.is_some_and(|turn| matches!(turn.state, TurnState::UnderWay(_)));
        // It traded slots with one whose leg only has to go: nothing is out that could return.
        if repair.cause != Cause::LegLost && !under_way {
            return Some(Signal::LegLeft);
        }
        if let Some(leg) = leg_of(array, &device.namespace) {
            if leg.is_in_sync() {
                return Some(Signal::LegInSync);
            }
            if leg.is_recovering() {
                return Some(Signal::LegRecovering(array.sync_progress));
            }
            if leg.is_spare() {
                // Taken back; MD gives it its slot in a moment, unless another hand's leg has it.
                return filled_by_another(repair, view, &device.namespace);
            }
        }
        if under_way {
            return None; // What it shows meanwhile is half done.
        }
        if !self.may_return(repair) {
            return Some(Signal::LegLeft);
        }
        let Some(namespace) = namespace_of(&self.namespaces, &device.namespace, Some(&device.nqn))
        else {
            return Some(Signal::LegLeft);
        };
        let binding = array.legs.iter().any(|leg| leg.backing == Backing::Unreadable);
        let foreign = namespace
            .holders
            .is_known_and(|holders| holders.iter().any(|holder| *holder != array.device));
        let same = namespace.identity(&device.namespace).as_ref() == Some(device);
        let left = !same || foreign || (!binding && !namespace.has_usable_path());
        left.then_some(Signal::LegLeft)
    }

    fn incoming_signal(&self, array: &ArraySnapshot, repair: &Repair) -> Option<Signal> {
        let target = &repair.incoming.as_ref()?.target;
        let (id, nqn) = (target.namespace, Some(&target.nqn));
        if let Some(leg) = leg_of(array, &id) {
            if leg.is_in_sync() {
                return Some(Signal::LegInSync);
            }
            if leg.is_recovering() {
                return Some(Signal::LegRecovering(array.sync_progress));
            }
            if leg.is_faulty() {
                let adding = matches!(repair.phase, Phase::Adding { .. });
                return adding.then_some(Signal::LegFailed);
            }
            // Bound as a spare by an earlier life, which died before it was told.
            let connecting = matches!(repair.phase, Phase::Connecting { .. });
            let identity =
                namespace_of(&self.namespaces, &id, nqn).and_then(|space| space.identity(&id));
            return identity.filter(|_| connecting).map(Signal::NamespaceFound);
        }
        let found = self.idle_namespace(&id, nqn);
        match &repair.phase {
            Phase::Connecting { .. } => found.map(Signal::NamespaceFound),
            Phase::Verifying { device, .. } | Phase::Adding { device, .. } => {
                // While it is being added its holders change under our eyes: only a device that
                // is really gone, or another one, counts as left.
                let present = namespace_of(&self.namespaces, &id, nqn)
                    .and_then(|namespace| namespace.identity(&id))
                    .is_some_and(|identity| identity == *device);
                if present { None } else { Some(Signal::LegLeft) }
            }
            Phase::Suspect { .. }
            | Phase::Isolating { .. }
            | Phase::Reporting
            | Phase::Grace
            | Phase::Returning { .. }
            | Phase::Requesting { .. }
            | Phase::Rebuilding { .. }
            | Phase::Retiring { .. }
            | Phase::Held { .. }
            | Phase::Quarantined { .. } => None,
        }
    }

    /// A leg that has to go has failed before it was moved: now it is a loss.
    fn moving_leg_failed(&mut self, now: Now, array: &ArraySnapshot, slot: Slot) {
        let failed = matches!(slot_view(array, slot), SlotView::Failed | SlotView::Vacant);
        let Some(repair) = self.repairs.get_mut(&slot) else {
            return;
        };
        if !failed || !repair.cause.moves_leg() {
            return;
        }
        if matches!(repair.phase, Phase::Rebuilding { .. } | Phase::Retiring { .. }) {
            return; // MD drops the old leg itself when the copy is complete.
        }
        repair.cause = Cause::LegLost;
        self.dirty = true;
        let waiting = matches!(repair.phase, Phase::Grace | Phase::Requesting { .. });
        let lost = repair.lost.clone();
        if waiting {
            self.signal(now, slot, Signal::LegFailed);
        } else {
            self.owe(now, lost.as_ref(), OwedMessage::Report(heal_types::Condition::Missing));
        }
    }
}

/// Whether a lost leg is out, so that nobody else counts its comings and goings.
fn is_out(repair: &Repair) -> bool {
    let waits = match &repair.phase {
        Phase::Grace | Phase::Returning { .. } => true,
        Phase::Held { why, .. } => matches!(why, HeldWhy::Flapping { .. }),
        Phase::Suspect { .. }
        | Phase::Isolating { .. }
        | Phase::Reporting
        | Phase::Requesting { .. }
        | Phase::Connecting { .. }
        | Phase::Verifying { .. }
        | Phase::Adding { .. }
        | Phase::Rebuilding { .. }
        | Phase::Retiring { .. }
        | Phase::Quarantined { .. } => false,
    };
    waits && repair.cause == Cause::LegLost
}

/// Another hand put another leg into the slot, and it is complete: the one that was on its way is
/// not needed.
fn filled_by_others(repair: &Repair, view: SlotView<'_>) -> Option<Signal> {
    let incoming = repair.incoming.as_ref()?.target.namespace;
    filled_by_another(repair, view, &incoming)
}

fn filled_by_another(repair: &Repair, view: SlotView<'_>, awaited: &NamespaceId) -> Option<Signal> {
    match view {
        SlotView::Good(leg) if repair.cause.fills_empty_slot() => {
            let ids = leg.backing.namespace().and_then(|namespace| namespace.ids.known())?;
            (!ids.contains(awaited)).then_some(Signal::LegInSync)
        }
        SlotView::Good(_)
        | SlotView::Doubtful(_)
        | SlotView::Recovering
        | SlotView::Failed
        | SlotView::Vacant
        | SlotView::Unclear => None,
    }
}

/// A leg that has to go serves until its successor is complete. While that is only waited for, and
/// nothing is under way, its path matters as much as any other leg's.
fn moving_leg_in_doubt(repair: &Repair, view: SlotView<'_>) -> Option<Signal> {
    let waits = match &repair.phase {
        Phase::Grace => true,
        Phase::Requesting { turn, .. } => !matches!(turn.state, TurnState::UnderWay(_)),
        Phase::Held { why, then, .. } => {
            let silent = matches!(
                why,
                HeldWhy::Operator { .. } | HeldWhy::Observing | HeldWhy::HostCutOff { .. }
            );
            // What was rejected is left alone; what is on its way in goes first.
            let free = repair.incoming.is_none() || matches!(why, HeldWhy::Rejected { .. });
            !silent && free && matches!(then, Step::Grace | Step::Request { .. })
        }
        Phase::Suspect { .. }
        | Phase::Isolating { .. }
        | Phase::Reporting
        | Phase::Returning { .. }
        | Phase::Connecting { .. }
        | Phase::Verifying { .. }
        | Phase::Adding { .. }
        | Phase::Rebuilding { .. }
        | Phase::Retiring { .. }
        | Phase::Quarantined { .. } => false,
    };
    match view {
        SlotView::Doubtful(why @ (DoubtWhy::DeviceGone | DoubtWhy::PathDead(_))) => {
            (waits && repair.cause.moves_leg()).then_some(Signal::LegDoubtful(why))
        }
        SlotView::Doubtful(DoubtWhy::PathSuspect(_))
        | SlotView::Good(_)
        | SlotView::Recovering
        | SlotView::Failed
        | SlotView::Vacant
        | SlotView::Unclear => None,
    }
}

fn doubt_signal(array: &ArraySnapshot, view: SlotView<'_>) -> Option<Signal> {
    match view {
        SlotView::Good(_) => Some(Signal::LegInSync),
        SlotView::Doubtful(why) => Some(Signal::LegDoubtful(why)),
        SlotView::Failed | SlotView::Vacant => Some(Signal::LegFailed),
        SlotView::Recovering => Some(Signal::LegRecovering(array.sync_progress)),
        SlotView::Unclear => None,
    }
}

fn rebuilding_signal(array: &ArraySnapshot, repair: &Repair, view: SlotView<'_>) -> Option<Signal> {
    let incoming = repair.incoming.as_ref().map(|incoming| incoming.target.namespace);
    match incoming.and_then(|id| leg_of(array, &id)) {
        Some(leg) if leg.is_in_sync() => return Some(Signal::LegInSync),
        Some(leg) if leg.is_recovering() => {
            return Some(Signal::LegRecovering(array.sync_progress));
        }
        Some(leg) if leg.is_faulty() => return Some(Signal::LegFailed),
        // Another hand took it out and added it again: MD uses it for nothing.
        Some(leg)
            if repair.cause.moves_leg() && array.sync_progress.is_none() && leg.is_spare() =>
        {
            return Some(Signal::LegFailed);
        }
        Some(_) => return filled_by_others(repair, view), // A spare that MD is about to use.
        None => {}
    }
    if repair.cause.moves_leg() {
        // The leg that has to go is still good in its slot. Its successor has failed, unless it is
        // there and only cannot be told from another device at this moment.
        let hidden = array.legs.iter().filter(|leg| !leg.is_faulty()).any(|leg| {
            // MD has it as the leg itself once the one that had to go failed meanwhile.
            is_nameless(leg) || leg.flags.has(LegFlag::Replacement)
        });
        return if hidden { None } else { Some(Signal::LegFailed) };
    }
    match view {
        SlotView::Good(_) => Some(Signal::LegInSync),
        SlotView::Recovering => Some(Signal::LegRecovering(array.sync_progress)),
        SlotView::Failed | SlotView::Vacant => Some(Signal::LegFailed),
        SlotView::Doubtful(_) | SlotView::Unclear => None,
    }
}
