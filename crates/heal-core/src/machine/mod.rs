//! One array's machine: `handle` applies an event, then maintains whatever follows from it.
//!
//! ```text
//!   handle(now, event)
//!      ├─ start.rs     Looked            ─► whether the array is there and runs
//!      ├─ look.rs      Looked            ─► what each slot looks like     ─► signals
//!      │    └ whose.rs  whose slot, and whose loss
//!      ├─ volume.rs    Answered(volume)  ─► what the provisioner wants    ─► signals
//!      ├─ answer.rs    Acted / Answered  ─► what became of a step         ─► signals
//!      │                                         │
//!      │                               moves.rs  ▼  table, new phase, audit
//!      └─ maintain ── holds end, deadlines pass, due steps are wanted (want.rs) and let through
//!                     or held (gate.rs), owed reports go out (owed.rs)
//! ```
//!
//! Maintenance runs after *every* event and is level-based: it asks what is due and allowed now,
//! not what just happened. A lost event therefore costs time and never a step.

#[cfg(test)]
mod agrees;
mod answer;
mod bad_blocks;
mod duties;
mod gate;
mod isolate;
mod look;
mod moves;
mod operator;
mod owed;
mod show;
mod start;
mod tell;
mod volume;
mod want;
mod whose;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

use heal_types::{
    ArrayId, ArraySnapshot, BootId, CallKey, ConnectParams, ControllerName, Deadline, DevT,
    HostAction, Moment, NamespaceId, NamespaceSnapshot, Now, Nqn, Observed, ReplicaId, Slot,
    SyncProgress, UnknownWhy, WallTime,
};

use crate::arming::LostLeg;
use crate::audit::{AuditKind, Severity};
use crate::effect::{Effect, Outbox};
use crate::event::{Event, LookCause};
use crate::flaps::Flaps;
use crate::ids::{EffectId, IncidentId};
use crate::phase::{Phase, PhaseKind, Repair, Turn, TurnState};
use crate::policy::{Mode, Policy};
use crate::record::{
    ArrayRecord, Incident, Intent, Lapsed, Member, OperatorHold, Owed, RepairRecord, SCHEMA,
};
use crate::restart;
use crate::signal::Signal;
use crate::why::{DoubtWhy, HeldWhy, QuarantinedWhy};

use volume::VolumeView;

/// After this many rounds of maintenance in one event, the rest waits for the next one.
const ROUNDS: usize = 16;

/// Why the machine wants to be woken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Due {
    /// The record of a loss is durable by now.
    Recorded,
    /// A step of a repair is due.
    Step,
    /// A doubt has lasted long enough.
    Doubt,
    /// A grace period ends.
    Grace,
    /// A hold may be over.
    Hold,
    /// The provisioner is to be asked about the volume.
    Volume,
    /// The provisioner is to be told something.
    Owed,
    /// The array as a whole is owed an act.
    Duty,
}

/// The action a guard stopped, if that is why a repair is held.
type HostActionBox = Option<Box<HostAction>>;

/// Whether the array may be touched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Standing {
    /// The provisioner has not said yet.
    Undecided,
    /// Ours.
    Managed,
    /// NVMe-oF legs, but no provisioner to ask: only returned legs, and only if told so.
    Unprovisioned,
    /// Shown, never touched.
    NotOurs(&'static str),
}

/// The host budget's leave to replace a leg.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Permit {
    None,
    Asked,
    Given,
}

/// Everything known and wanted of one array.
#[derive(Debug, Clone)]
pub struct ArrayMachine {
    id: ArrayId,
    boot: BootId,
    policy: Policy,

    /// The time of the event being handled.
    now: Now,

    // What was seen.
    /// Shared: decisions hold it while they change everything else.
    array: Observed<Option<Arc<ArraySnapshot>>>,
    namespaces: Vec<NamespaceSnapshot>,
    /// The subsystems of the controllers of the last look.
    subsystems: Vec<Observed<Nqn>>,
    /// The legs that were lost when this life began.
    left: Vec<LostLeg>,
    cause: LookCause,
    /// The last look saw nothing: the snapshot is older, and nothing is begun on it.
    blind: bool,
    /// The array was there at some time of this life.
    seen: bool,
    /// The boot in which it was last there, in this life or an earlier one.
    seen_in: Option<BootId>,
    /// It ran at some time of this life.
    ran: bool,
    /// There was a record of the array, or a life without one has held what it runs from against
    /// the provisioner's book.
    witnessed: bool,
    volume: VolumeView,
    standing: Standing,
    /// Since when a namespace has had a usable path.
    up_since: BTreeMap<NamespaceId, Moment>,
    /// Why the whole host is taken to be cut off.
    cut_off: Option<String>,
    /// Slots whose leg was said to have bad blocks.
    bad_slots: BTreeSet<Slot>,

    // What is intended: the record.
    generation: u64,
    next_effect: u64,
    incident: Option<Incident>,
    members: BTreeMap<Slot, Member>,
    repairs: BTreeMap<Slot, Repair>,
    owed: VecDeque<Owed>,
    intents: BTreeMap<EffectId, Intent>,
    connected: BTreeMap<Nqn, BTreeSet<ControllerName>>,
    lapsed: Vec<Lapsed>,
    /// Controllers that the kernel was seen to connect anew, and how they were connected.
    trying: BTreeMap<(ControllerName, Nqn), ConnectParams>,
    /// Lost replicas that nobody had connected, and that we did.
    called: BTreeSet<ReplicaId>,
    /// The one that is being connected.
    calling: Option<(EffectId, ReplicaId)>,
    flaps: Flaps,
    hold: Option<OperatorHold>,
    quarantine: Option<QuarantinedWhy>,

    /// When to look at a timed hold again: the wall clock it is measured by may step.
    hold_wake: Option<Moment>,
    // What no one needs after a crash.
    owing: Turn,
    duty: Turn,
    permit: Permit,
    /// Since when replacements wait for a step under way.
    waits: BTreeMap<EffectId, Moment>,
    /// How far each rebuild is, and since when it is no further.
    fills: BTreeMap<Slot, (Option<SyncProgress>, Moment)>,
    lookups: u64,
    /// Intents that no durable record holds yet.
    unwritten: Vec<EffectId>,
    /// A repair ended: the slots are looked at once more, on the same snapshot.
    recheck: bool,
    /// Whether the event being handled is a look: what it shows is so now.
    sees_now: bool,
    out: Outbox,
    dirty: bool,
}

impl ArrayMachine {
    /// A machine for an array about which nothing is known yet.
    #[must_use]
    pub fn new(id: ArrayId, boot: BootId, policy: Policy) -> Self {
        Self {
            id,
            boot,
            policy,
            now: Now { mono: Moment(0), wall: WallTime(0) },
            array: Observed::Unknown(UnknownWhy::NotReadYet),
            namespaces: Vec::new(),
            subsystems: Vec::new(),
            left: Vec::new(),
            cause: LookCause::Start,
            blind: true,
            seen: false,
            seen_in: None,
            ran: false,
            witnessed: false,
            volume: VolumeView::new(),
            standing: Standing::Undecided,
            up_since: BTreeMap::new(),
            cut_off: None,
            bad_slots: BTreeSet::new(),
            generation: 0,
            next_effect: 1,
            incident: None,
            members: BTreeMap::new(),
            repairs: BTreeMap::new(),
            owed: VecDeque::new(),
            intents: BTreeMap::new(),
            connected: BTreeMap::new(),
            lapsed: Vec::new(),
            trying: BTreeMap::new(),
            called: BTreeSet::new(),
            calling: None,
            flaps: Flaps::default(),
            hold: None,
            quarantine: None,
            hold_wake: None,
            owing: Turn::now(),
            duty: Turn::now(),
            permit: Permit::None,
            waits: BTreeMap::new(),
            fills: BTreeMap::new(),
            lookups: 0,
            unwritten: Vec::new(),
            recheck: false,
            sees_now: false,
            out: Outbox::default(),
            dirty: false,
        }
    }

    /// Takes up what an earlier life left. Effects that were begun and not ended are closed in the
    /// audit as interrupted; what became of them is in the next look.
    #[must_use]
    pub fn recover(record: ArrayRecord, boot: BootId, policy: Policy, now: Now) -> (Self, Outbox) {
        let mut machine = Self::new(record.array, boot, policy);
        machine.generation = record.generation;
        machine.witnessed = !record.unwitnessed;
        if record.schema != SCHEMA {
            let detail = format!("schema {} is not {SCHEMA}", record.schema);
            machine.quarantine(now, QuarantinedWhy::UnreadableRecord { detail });
            let outbox = machine.flush();
            return (machine, outbox);
        }
        machine.next_effect = record.next_effect;
        machine.incident = record.incident;
        machine.members = record.members.into_iter().collect();
        machine.owed = record.owed.into();
        // What another boot had connected went with it: whoever connected it in this one has it.
        let other_boot = record.boot.as_ref().is_some_and(|boot| *boot != machine.boot);
        machine.connected = if other_boot { BTreeMap::new() } else { record.connected };
        machine.seen_in = record.boot;
        machine.lapsed = record.lapsed;
        machine.flaps = Flaps::recovered(record.flaps);
        machine.now = now;
        machine.hold = record.hold;
        let incoming = record.repairs.iter().filter_map(|repair| repair.incoming.as_ref());
        let granted = incoming.map(|incoming| incoming.id.clone()).collect();
        machine.volume.remember(record.volume, granted);
        for repair in record.repairs {
            let repair = machine.taken_up(repair, now);
            machine.repairs.insert(repair.slot, repair);
        }
        machine.left = machine.lost_legs();
        for intent in record.intents {
            machine.tell_interrupted(now, &intent);
            if !other_boot {
                machine.note_unheard(&intent);
            }
            machine.dirty = true;
        }
        if let Some(why) = record.quarantine {
            machine.quarantine(now, why);
        }
        let outbox = machine.flush();
        (machine, outbox)
    }

    /// A machine whose record cannot be read: it does nothing until a person has looked.
    #[must_use]
    pub fn quarantined(
        id: ArrayId,
        boot: BootId,
        policy: Policy,
        why: QuarantinedWhy,
        now: Now,
    ) -> (Self, Outbox) {
        let mut machine = Self::new(id, boot, policy);
        machine.quarantine(now, why);
        let outbox = machine.flush();
        (machine, outbox)
    }

    /// Something happened.
    pub fn handle(&mut self, now: Now, event: Event) -> Outbox {
        self.now = now;
        self.sees_now = matches!(event, Event::Looked(_));
        let durable = !matches!(event, Event::NotDurable { .. });
        if durable {
            self.unwritten.clear();
            self.raise_durable(now);
        }
        match event {
            Event::Looked(look) => self.looked(now, *look),
            Event::Paths(news) => self.paths_changed(now, news),
            Event::Acted { id, answer } => self.acted(now, id, &answer),
            Event::Answered { id, answer } => self.answered(now, id, answer),
            Event::VolumeStale => self.volume.ask_again(now.mono),
            Event::Operator(operator) => self.operator(now, operator),
            Event::Permitted => self.permitted(now),
            Event::NotDurable { why } => self.not_durable(now, &why),
            Event::Tick => {}
        }
        self.maintain(now);
        self.flush()
    }

    /// When to send [`Event::Tick`] at the latest, and what for.
    #[must_use]
    pub fn next_deadline(&self) -> Option<(Moment, Due)> {
        let mut next: Option<(Moment, Due)> = None;
        let mut offer = |moment: Option<Moment>, due: Due| {
            if let Some(moment) = moment {
                if next.is_none_or(|(earliest, _)| moment < earliest) {
                    next = Some((moment, due));
                }
            }
        };
        if self.quarantine.is_some() {
            return None;
        }
        offer(self.volume_due(), Due::Volume);
        offer(self.owed_due(), Due::Owed);
        offer(self.duty_due(), Due::Duty);
        let sees = !self.blind && self.snapshot().is_some();
        for repair in self.repairs.values().filter(|_| sees) {
            match &repair.phase {
                Phase::Reporting => offer(Some(Moment(0)), Due::Recorded),
                Phase::Suspect { decide_at, .. } => offer(*decide_at, Due::Doubt),
                Phase::Grace if self.waits_for_full_copy(repair) => {}
                Phase::Grace => offer(self.grace_end(repair), Due::Grace),
                Phase::Held { until, .. } => offer(*until, Due::Hold),
                Phase::Rebuilding { .. } | Phase::Quarantined { .. } => {}
                Phase::Isolating { turn, .. }
                | Phase::Returning { turn, .. }
                | Phase::Requesting { turn, .. }
                | Phase::Connecting { turn, .. }
                | Phase::Verifying { turn, .. }
                | Phase::Adding { turn, .. }
                | Phase::Retiring { turn } => offer(due_at(turn), Due::Step),
            }
        }
        offer(self.hold_wake, Due::Hold);
        offer(self.permit_due(), Due::Step);
        next
    }

    /// Which array.
    #[must_use]
    pub fn id(&self) -> ArrayId {
        self.id
    }

    /// The open incident.
    #[must_use]
    pub fn incident(&self) -> Option<IncidentId> {
        self.incident.as_ref().map(|incident| incident.id)
    }

    /// Device numbers of legs that udev's stock rules must leave alone.
    #[must_use]
    pub fn managed_devices(&self) -> BTreeSet<DevT> {
        if self.standing != Standing::Managed {
            return BTreeSet::new();
        }
        let lost = self.repairs.values().filter_map(|repair| repair.lost.as_ref());
        self.members.values().chain(lost).filter_map(|member| member.dev).collect()
    }

    /// Whether the controllers of its legs are to be armed.
    #[must_use]
    pub fn is_ward(&self) -> bool {
        self.isolates_after().is_some()
    }

    /// After how long I/O is freed from a dead leg, if the array is ours to do that.
    #[must_use]
    pub fn isolates_after(&self) -> Option<Duration> {
        let ours = self.heals() && self.hold.is_none() && self.quarantine.is_none();
        self.may_isolate().ok().filter(|_| ours)
    }

    /// Whether the array is ours to act on, held or not: then what is armed on it is our doing.
    #[must_use]
    pub fn heals(&self) -> bool {
        self.standing == Standing::Managed && self.policy.mode == Mode::Heal
    }

    /// Whether a leg is in doubt because of its path.
    #[must_use]
    pub fn doubts_a_path(&self) -> bool {
        self.repairs.values().any(|repair| match &repair.phase {
            Phase::Suspect { why, .. } => match why {
                DoubtWhy::PathSuspect(_) | DoubtWhy::PathDead(_) => true,
                DoubtWhy::DeviceGone => false,
            },
            Phase::Isolating { .. } => true,
            Phase::Reporting
            | Phase::Grace
            | Phase::Returning { .. }
            | Phase::Requesting { .. }
            | Phase::Connecting { .. }
            | Phase::Verifying { .. }
            | Phase::Adding { .. }
            | Phase::Rebuilding { .. }
            | Phase::Retiring { .. }
            | Phase::Held { .. }
            | Phase::Quarantined { .. } => false,
        })
    }

    /// Whether a repair is in a phase of that kind.
    #[must_use]
    pub fn is_in(&self, kind: PhaseKind) -> bool {
        self.repairs.values().any(|repair| repair.phase.kind() == kind)
    }

    /// Whether the array is gone and nothing is owed: the machine and its record may be dropped.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        matches!(self.array, Observed::Known(None))
            && self.repairs.is_empty()
            && self.owed.is_empty()
            && self.intents.is_empty()
            && self.quarantine.is_none()
            // Not seen in this boot is not stopped, and a person's word stays.
            && self.was_there_in_this_boot()
            && self.hold.is_none()
            && !self.leaves_something()
    }

    /// The policy changed: a person edited the configuration.
    pub fn set_policy(&mut self, policy: Policy) {
        self.recheck |= self.policy != policy;
        if self.policy.mode != policy.mode {
            // What nobody was told while observing shows in the provisioner's answer.
            self.volume.ask_again(Moment(0));
        }
        self.policy = policy;
    }

    fn taken_up(&self, record: RepairRecord, now: Now) -> Repair {
        // A deadline of another boot is put on this boot's clock once, here. The wall clock may
        // have been set meanwhile, so nothing is waited for longer than from the beginning.
        let grace = self
            .grace_from(now)
            .map_or(self.policy.longest_grace, |whole| whole.mono.since(now.mono));
        let back =
            self.policy.return_hold_down.max(after_keep_alive(self.policy.connect.keep_alive));
        let on_this_boot = |deadline: Deadline, longest: Duration| Deadline {
            mono: deadline.moment(now, &self.boot, longest),
            wall: deadline.wall,
            boot: self.boot.clone(),
        };
        Repair {
            slot: record.slot,
            cause: record.cause,
            began: record.began,
            lost: record.lost,
            incoming: record.incoming,
            also_retire: record.also_retire,
            asks_for: record.asks_for,
            grace: record.grace.map(|d| on_this_boot(d, grace)),
            return_after: record.return_after.map(|d| on_this_boot(d, back)),
            request: record.request,
            rejected: record.rejected,
            bound: record.bound,
            not_again: None,
            since: now.wall,
            phase: restart::resume(&record.step),
        }
    }

    /// The host's budget gives leave: what waited for it is due.
    fn permitted(&mut self, now: Now) {
        self.permit = Permit::Given;
        self.due_now(now, |phase| {
            matches!(phase, Phase::Requesting { .. } | Phase::Connecting { .. })
        });
    }

    /// Makes the steps of some phases due, unless they are under way.
    fn due_now(&mut self, now: Now, which: impl Fn(&Phase) -> bool) {
        for repair in self.repairs.values_mut().filter(|repair| which(&repair.phase)) {
            if let Some(turn) = repair.phase.turn_mut() {
                if !matches!(turn.state, TurnState::UnderWay(_)) {
                    turn.state = TurnState::Due(now.mono);
                }
            }
        }
    }

    fn snapshot(&self) -> Option<&ArraySnapshot> {
        self.array.known().and_then(Option::as_deref)
    }

    /// Whatever is due and allowed, until nothing more moves.
    fn maintain(&mut self, now: Now) {
        self.decide_standing(now);
        self.ask_volume(now);
        if self.quarantine.is_some() {
            self.tend_permit();
            return;
        }
        self.expire_hold(now);
        for _ in 0..ROUNDS {
            let before = self.phases();
            self.end_holds(now);
            self.pass_deadlines(now);
            self.hold_flapping(now);
            let asks = |repair: &&Repair| matches!(repair.phase, Phase::Requesting { .. });
            let slots = |list: Vec<&Repair>| list.into_iter().map(|r| r.slot).collect::<Vec<_>>();
            let (asking, others): (Vec<_>, Vec<_>) = self.repairs.values().partition(asks);
            let (asking, others) = (slots(asking), slots(others));
            for slot in others {
                self.drive(now, slot);
            }
            self.look_once_more(now);
            // Whatever moved may have brought what would be asked for.
            if self.phases() == before {
                for slot in asking {
                    self.drive(now, slot);
                }
                self.look_once_more(now);
            }
            if self.phases() == before {
                break;
            }
        }
        self.tell_owed(now);
        self.tend_duties(now);
        self.tend_permit();
        self.close_incident(now);
    }

    /// The slots, on the snapshot that is there, if a move may have changed what it means.
    fn look_once_more(&mut self, now: Now) {
        if std::mem::take(&mut self.recheck) {
            self.look_at_slots(now);
            self.volume_signals(now);
        }
    }

    fn phases(&self) -> Vec<(Slot, Phase)> {
        self.repairs.iter().map(|(slot, repair)| (*slot, repair.phase.clone())).collect()
    }

    /// The record of the last event was durable when this one was handed over.
    fn raise_durable(&mut self, now: Now) {
        let reporting: Vec<Slot> = self
            .repairs
            .values()
            .filter(|repair| matches!(repair.phase, Phase::Reporting))
            .map(|repair| repair.slot)
            .collect();
        for slot in reporting {
            self.signal(now, slot, Signal::Durable);
        }
    }

    fn not_durable(&mut self, now: Now, why: &str) {
        self.tell(
            now,
            AuditKind::LedgerFailed,
            Severity::Critical,
            format!("{}: the ledger cannot be written, nothing is done: {why}", self.name()),
        );
        // The effects that rested on the record were dropped by the shell; earlier ones go on.
        let again = now.mono.after(self.policy.retry_max);
        for id in std::mem::take(&mut self.unwritten) {
            self.intents.remove(&id);
            if self.duty.state == TurnState::UnderWay(id) {
                self.duty.state = TurnState::Due(again);
            }
        }
        self.permit = if self.permit == Permit::Asked { Permit::None } else { self.permit };
        self.volume.dropped(again);
        self.owing.state = TurnState::Due(again);
        // A repair that stands still for another reason goes on standing still for that one.
        let moving = |repair: &&Repair| {
            !matches!(
                repair.phase,
                // Freeing I/O rests on no record: the disk may wait for that very leg.
                Phase::Suspect { .. }
                    | Phase::Isolating { .. }
                    | Phase::Held {
                        why: HeldWhy::Operator { .. }
                            | HeldWhy::Observing
                            | HeldWhy::Rejected { .. }
                            | HeldWhy::Refused { .. },
                        ..
                    }
            )
        };
        let slots: Vec<Slot> =
            self.repairs.values().filter(moving).map(|repair| repair.slot).collect();
        for slot in slots {
            let why = HeldWhy::NotDurable { detail: why.to_owned() };
            self.hold_repair(now, slot, why, Some(again), None);
        }
        self.dirty = true;
    }

    /// A contradiction: this array does nothing more until a person has looked.
    fn quarantine(&mut self, now: Now, why: QuarantinedWhy) {
        if self.quarantine.is_some() {
            return;
        }
        self.dirty = true;
        let text = format!("{}: quarantined: {why}", self.name());
        self.tell(now, AuditKind::ArrayQuarantined, Severity::Critical, text);
        let slots: Vec<Slot> = self.repairs.keys().copied().collect();
        for slot in slots {
            self.signal(now, slot, Signal::Contradiction(why.clone()));
        }
        self.quarantine = Some(why);
    }

    fn open_incident(&mut self, now: Now) {
        if self.incident.is_some() {
            return;
        }
        let id = mint(now, self.id, self.next_effect);
        self.incident = Some(Incident { id, began: now.wall });
        let text = format!("{}: incident opened", self.name());
        self.tell(now, AuditKind::IncidentOpened, Severity::Notice, text);
    }

    fn close_incident(&mut self, now: Now) {
        let owes = !self.owed.is_empty() || !self.lapsed.is_empty() || self.leaves_something();
        if !self.repairs.is_empty() || owes || !self.intents.is_empty() {
            return;
        }
        if let Some(incident) = self.incident.clone() {
            let seconds = now.wall.since(incident.began).as_secs();
            let text = match self.snapshot() {
                Some(_) => format!("{}: whole again after {seconds} s", self.name()),
                None => format!("{}: nothing left to do after {seconds} s", self.name()),
            };
            self.tell(now, AuditKind::IncidentClosed, Severity::Notice, text);
            self.incident = None;
            self.dirty = true;
        }
    }

    fn effect_id(&mut self) -> EffectId {
        let number = self.next_effect;
        self.next_effect += 1;
        self.dirty = true;
        let incident = self.incident().unwrap_or(IncidentId(Uuid::nil()));
        EffectId { incident, number }
    }

    fn key(&mut self, now: Now, what: &str) -> CallKey {
        self.open_incident(now);
        let id = self.effect_id();
        CallKey::new(format!("{}:{what}", id)).unwrap_or_else(|_| unreachable_key(id))
    }

    fn want_look(&mut self) {
        if !self.out.effects.contains(&Effect::LookAgain) {
            self.out.effects.push(Effect::LookAgain);
        }
    }

    fn flush(&mut self) -> Outbox {
        // An unreadable record is evidence until a person has looked.
        let sealed = matches!(self.quarantine, Some(QuarantinedWhy::UnreadableRecord { .. }));
        if self.dirty && !sealed {
            self.dirty = false;
            self.generation += 1;
            self.out.record = Some(self.record());
        }
        std::mem::take(&mut self.out)
    }

    fn record(&self) -> ArrayRecord {
        ArrayRecord {
            schema: SCHEMA,
            generation: self.generation,
            array: self.id,
            boot: self.seen_in.clone(),
            next_effect: self.next_effect,
            incident: self.incident.clone(),
            volume: self.volume.known().cloned(),
            unwitnessed: !self.witnessed,
            members: self.members.iter().map(|(s, m)| (*s, m.clone())).collect(),
            repairs: self.repairs.values().map(put_down).collect(),
            owed: self.owed.iter().cloned().collect(),
            intents: self.intents.values().cloned().collect(),
            connected: self.connected.clone(),
            lapsed: self.lapsed.clone(),
            flaps: self.flaps.recorded(),
            hold: self.hold.clone(),
            quarantine: self.quarantine.clone(),
        }
    }
}

/// A key made of an id has only hexadecimal digits, dashes, slashes and a known word, so it is
/// always valid; this keeps that argument out of a panic.
fn unreachable_key(id: EffectId) -> CallKey {
    CallKey::new(format!("effect-{}", id.number))
        .expect("digits and a dash are allowed in a key and it is short")
}

fn due_at(turn: &Turn) -> Option<Moment> {
    match &turn.state {
        TurnState::Due(moment) | TurnState::NextLook(moment) => Some(*moment),
        TurnState::UnderWay(_) => None,
    }
}

/// How long writes of a lost connection may still be carried out: a target that saw commands waits
/// for a second keep-alive time before it gives the connection up (`nvmet_keep_alive_timer`).
fn after_keep_alive(keep_alive: Duration) -> Duration {
    keep_alive.saturating_mul(2).saturating_add(Duration::from_secs(1))
}

fn put_down(repair: &Repair) -> RepairRecord {
    RepairRecord {
        slot: repair.slot,
        cause: repair.cause,
        began: repair.began,
        lost: repair.lost.clone(),
        incoming: repair.incoming.clone(),
        also_retire: repair.also_retire.clone(),
        asks_for: repair.asks_for.clone(),
        grace: repair.grace.clone(),
        return_after: repair.return_after.clone(),
        request: repair.request.clone(),
        rejected: repair.rejected.clone(),
        bound: repair.bound.clone(),
        step: restart::step_of(&repair.phase),
    }
}

/// An incident id in the form of a version-7 UUID: sorts by time, unique by array and counter. No
/// randomness, so that a replay mints the same one.
fn mint(now: Now, array: ArrayId, counter: u64) -> IncidentId {
    let mut rest = [0_u8; 10];
    for (i, source) in array.as_bytes().iter().chain(&counter.to_be_bytes()).enumerate() {
        rest[i % 10] = rest[i % 10].rotate_left(1) ^ source;
    }
    IncidentId(uuid::Builder::from_unix_timestamp_millis(now.wall.0, &rest).into_uuid())
}
