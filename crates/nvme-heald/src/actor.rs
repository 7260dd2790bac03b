//! One array's actor: the only owner of its machine.
//!
//! ```text
//!   mailbox ─┐                                            ┌─► journal (never waits)
//!   deadline ┴─► machine.handle(now, event) ─► Outbox ────┤
//!                                                │        └─► executor, provisioner, budget
//!                              record, if any    ▼                   ▲
//!                              ─────────► ledger, on disk ───────────┘ only then
//! ```
//!
//! The order is the whole safety of it: what is to be done is on disk before anybody is told that
//! it will be done, and it is told before it is done. When the disk says no, or nothing within five
//! seconds, the machine hears [`Event::NotDurable`], and nothing that rested on the record happens.
//! The record that could not be written is tried again by itself.
//!
//! **A look that is older than the end of our last act is thrown away.** It shows the array as it
//! was before, and the reactor makes another one because of the act.
//!
//! The price: one array's events are handled one after the other, each as slow as its `fsync`.
//! Questions (`status`, `explain`) are answered meanwhile.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use heal_core::audit::AuditKind;
use heal_core::record::{ArrayRecord, Step};
use heal_core::why::QuarantinedWhy;
use heal_core::{
    ArrayMachine, Effect, Event, IncidentId, IsolateAfter, Operator, Outbox, Policy, Telling,
};
use heal_host::clock::{self, Alarm};
use heal_types::status::TrailEntry;
use heal_types::{
    Alias, ArrayId, BootId, DeviceName, FaultClass, Moment, Now, Observed, Outcome,
    ProvisionerFault, RefusedWhy,
};
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::config::Config;
use crate::executor::{Answered, Caller, Executor, Order};
use crate::forward::Forwarder;
use crate::journal::{Entry, Journal};
use crate::keeper::Keeper;
use crate::mailbox::{Mail, Mailbox, Question, Sight, earliest};
use crate::reaction::Reactions;
use crate::report::{Brief, Report, Said};

/// Entries of the audit trail that `explain` shows.
const TRAIL: usize = 200;
/// How soon a record that could not be written is tried again.
const SAVE_AGAIN: Duration = Duration::from_secs(2);
/// No deadline is met sooner than this after the one before: a machine that names the same past
/// moment again and again would take the whole processor.
const TICK_REST: Duration = Duration::from_millis(5);

/// What an actor starts from.
#[derive(Debug)]
pub(crate) enum Origin {
    /// Nothing is known of the array.
    Fresh,
    /// What an earlier life left.
    Record(Box<ArrayRecord>),
    /// An earlier life left something that cannot be read.
    Unreadable(String),
}

/// What all actors share.
#[derive(Debug, Clone)]
pub(crate) struct Shared {
    pub(crate) boot: BootId,
    pub(crate) journal: Journal,
    pub(crate) forwarder: Forwarder,
    pub(crate) keeper: Keeper,
    pub(crate) reactions: Arc<Reactions>,
    pub(crate) reports: mpsc::UnboundedSender<Report>,
    /// Why no leg of this host may be isolated, if that is so.
    pub(crate) isolation_off: Arc<Mutex<Option<String>>>,
}

/// The actor.
#[derive(Debug)]
pub(crate) struct Actor {
    id: ArrayId,
    machine: ArrayMachine,
    shared: Shared,
    config: Arc<Config>,
    mailbox: Mailbox,
    executor: Executor,
    caller: Caller,
    /// The last record that is known to be on disk.
    durable: Option<ArrayRecord>,
    /// The newest record that should be and is not.
    unsaved: Option<ArrayRecord>,
    save_again: Option<Instant>,
    alarm: Option<Alarm>,
    /// A record that nothing rests on is being written.
    saving: Option<Saving>,
    /// Whether the file on disk is unreadable, so that nothing can be saved over it.
    unreadable: bool,
    device: Option<DeviceName>,
    alias: Option<Alias>,
    trail: VecDeque<TrailEntry>,
    /// Looks that began before this moment are older than our last act.
    acted_at: Moment,
    /// When the first sign of the present doubt about a path was heard.
    path_sign: Option<Moment>,
    /// When the machine had its last event.
    handled: Moment,
    /// MD's notification of a look that was thrown away.
    first_sign: Option<Moment>,
    incident: Option<IncidentId>,
    brief: Option<Brief>,
    seen: bool,
}

/// Whether to go on.
#[derive(Debug, PartialEq, Eq)]
enum Course {
    On,
    End,
}

impl Actor {
    /// An actor of `id`, and what its machine wants at once.
    pub(crate) fn new(
        id: ArrayId,
        alias: Option<Alias>,
        origin: Origin,
        config: Arc<Config>,
        shared: Shared,
        mailbox: Mailbox,
        hands: (Executor, Caller),
    ) -> (Self, Outbox) {
        // The configuration may say something about the name of an array that is not there.
        let alias = alias.or_else(|| match &origin {
            Origin::Record(record) => record.volume.as_ref()?.alias.clone(),
            Origin::Fresh | Origin::Unreadable(_) => None,
        });
        let policy = policy(&config, &shared, id, alias.as_ref());
        let now = clock::now();
        let boot = shared.boot.clone();
        let (durable, unreadable) = match &origin {
            Origin::Fresh => (None, false),
            Origin::Record(record) => (Some((**record).clone()), false),
            Origin::Unreadable(_) => (None, true),
        };
        let (machine, opening) = match origin {
            Origin::Fresh => (ArrayMachine::new(id, boot, policy), Outbox::default()),
            Origin::Record(record) => ArrayMachine::recover(*record, boot, policy, now),
            Origin::Unreadable(detail) => {
                let why = QuarantinedWhy::UnreadableRecord { detail };
                ArrayMachine::quarantined(id, boot, policy, why, now)
            }
        };
        let (executor, caller) = hands;
        let actor = Self {
            id,
            incident: machine.incident(),
            machine,
            shared,
            config,
            mailbox,
            executor,
            caller,
            durable,
            unsaved: None,
            save_again: None,
            alarm: Alarm::new().ok(),
            saving: None,
            unreadable,
            device: None,
            alias,
            trail: VecDeque::new(),
            acted_at: Moment::default(),
            path_sign: None,
            handled: now.mono,
            first_sign: None,
            brief: None,
            seen: false,
        };
        (actor, opening)
    }

    /// Lives until the array is gone and nothing is owed, or until told to stop.
    pub(crate) async fn run(mut self, opening: Outbox) {
        self.settle(opening, None).await;
        self.tell();
        let mut rested = clock::moment();
        loop {
            let deadline = self.machine.next_deadline().map(|(at, _why)| at.max(rested));
            let mailbox = self.mailbox.clone();
            tokio::select! {
                biased;
                question = mailbox.question() => self.answer(question),
                mail = mailbox.next() => {
                    if self.deliver(mail).await == Course::End {
                        return;
                    }
                    self.tell();
                }
                () = alarmed(&mut self.alarm, deadline) => {
                    self.handle(Event::Tick, None).await;
                    self.tell();
                    rested = clock::moment().after(TICK_REST);
                }
                saved = ended(&mut self.saving) => self.saved_aside(saved),
                () = sleep_until(self.save_again) => self.save_waiting(),
            }
        }
    }

    async fn deliver(&mut self, mail: Mail) -> Course {
        match mail {
            Mail::Paths(news, heard_at) => {
                if self.path_sign.is_none() {
                    self.path_sign = Some(heard_at);
                }
                // Policy counts from when the path was lost, not from when somebody had time for
                // it; but to the machine time never runs back.
                let mono = heard_at.max(self.handled);
                self.handle_at(Now { mono, ..clock::now() }, Event::Paths(news), None).await;
                if !self.machine.doubts_a_path() {
                    self.path_sign = None;
                }
            }
            Mail::Look(sight) => self.see(sight).await,
            Mail::Answer(event) => {
                if let Event::Acted { .. } = &event {
                    self.acted_at = clock::moment();
                }
                self.handle(event, None).await;
            }
            Mail::Operator(said, done) => {
                if matches!(said, Operator::Resume { .. }) {
                    self.give_unreadable_up().await;
                }
                self.handle(Event::Operator(said), None).await;
                let _ = done.send(());
            }
            Mail::Permitted => self.handle(Event::Permitted, None).await,
            Mail::VolumeStale => self.handle(Event::VolumeStale, None).await,
            Mail::Configure(config) => {
                self.config = config;
                self.take_policy();
                // What the new policy allows is allowed from now on.
                self.handle(Event::Tick, None).await;
            }
            Mail::Rehearse => {
                let legs = self.machine.rehearse(clock::now());
                tracing::trace!(array = %self.id, legs, "rehearsed");
            }
            Mail::Recover(found) => self.start_over(*found).await,
            Mail::Stop => {
                self.stop().await;
                return Course::End;
            }
        }
        if self.seen && self.machine.is_finished() {
            return self.finish().await;
        }
        Course::On
    }

    async fn see(&mut self, sight: Sight) {
        let signalled_at = earliest(self.first_sign.take(), sight.signalled_at);
        if sight.begun < self.acted_at {
            self.first_sign = signalled_at;
            return;
        }
        if let Observed::Known(Some(array)) = &sight.look.array {
            self.device = Some(array.device.clone());
            if self.alias != array.alias {
                self.alias = array.alias.clone();
                // The configuration may say something about the name that the array goes by now.
                self.take_policy();
            }
        }
        self.seen = true;
        self.handle(Event::Looked(sight.look), signalled_at).await;
    }

    fn take_policy(&mut self) {
        let policy = self.policy();
        self.machine.set_policy(policy);
    }

    fn policy(&self) -> Policy {
        policy(&self.config, &self.shared, self.id, self.alias.as_ref())
    }

    /// One event, and everything that follows from it.
    async fn handle(&mut self, event: Event, signalled_at: Option<Moment>) {
        self.handle_at(clock::now(), event, signalled_at).await;
    }

    async fn handle_at(&mut self, now: Now, event: Event, signalled_at: Option<Moment>) {
        self.handled = now.mono;
        let outbox = self.machine.handle(now, event);
        self.settle(outbox, signalled_at).await;
    }

    /// Record, audit, effects: in this order. What is urgent goes before all of it, and a record
    /// that nothing rests on is written aside: the disk it goes to may wait for the very leg that
    /// is in doubt.
    async fn settle(&mut self, mut outbox: Outbox, signalled_at: Option<Moment>) {
        let (urgent, effects): (Vec<Effect>, Vec<Effect>) =
            outbox.effects.into_iter().partition(is_urgent);
        outbox.effects = effects;
        if !urgent.is_empty() {
            self.hurry(urgent).await;
        }
        let aside = outbox
            .record
            .take_if(|record| !rests_on(record, self.durable.as_ref(), &outbox.effects));
        let saved = match (outbox.record, aside) {
            (Some(record), _) => self.save(record).await,
            (None, Some(record)) => {
                self.save_aside(record);
                Ok(())
            }
            (None, None) => Ok(()),
        };
        self.log(&outbox.audit, signalled_at);
        let Err(why) = saved else {
            self.begin(outbox.effects);
            return;
        };
        // The machine must hear this before anything else: its next event means that it was
        // durable.
        let after = self.machine.handle(clock::now(), Event::NotDurable { why });
        self.log(&after.audit, None);
        self.unsaved = after.record.or(self.unsaved.take());
        self.save_again = Some(Instant::now() + SAVE_AGAIN);
        // What the first outbox wanted of the host or the provisioner does not happen, and the
        // machine knows. What rests on no record goes on.
        for effect in outbox.effects {
            match effect {
                Effect::ReturnPermit => self.report(Said::ReturnPermit),
                Effect::LookAgain => self.report(Said::LookAgain),
                Effect::Act { .. } | Effect::Call { .. } | Effect::AskPermit => {}
            }
        }
        self.drop_effects(after.effects);
    }

    /// Begins what must not wait for a disk, and lets it go first.
    async fn hurry(&mut self, effects: Vec<Effect>) {
        let waited = match self.policy().isolate_after {
            IsolateAfter::After(after) => after,
            IsolateAfter::Never => Duration::ZERO,
        };
        let mut orders = Vec::with_capacity(effects.len());
        for effect in effects {
            if let Effect::Act { id, action, footing } = effect {
                let decided = clock::moment();
                let sign = self.path_sign.map(|heard| Answered { heard, waited, decided });
                orders.push(Order { id, action, footing, sign });
            }
        }
        self.executor.act_now(orders).await;
    }

    /// Writes a record that nothing rests on, beside everything else.
    fn save_aside(&mut self, record: ArrayRecord) {
        let keeper = self.shared.keeper.clone();
        let before = self.saving.take();
        self.saving = Some(Saving(Box::pin(async move {
            if let Some(Saving(before)) = before {
                let _ = before.await;
            }
            match keeper.save(record.clone()).await {
                Ok(()) => Ok(record),
                Err(why) => Err((record, why)),
            }
        })));
    }

    fn saved_aside(&mut self, saved: Saved) {
        self.saving = None;
        match saved {
            Ok(record) => self.durable = Some(record),
            Err((record, why)) => {
                tracing::warn!(array = %self.id, why, "a record is not on disk yet");
                self.unsaved = Some(record);
                self.save_again = Some(Instant::now() + SAVE_AGAIN);
            }
        }
    }

    async fn save(&mut self, record: ArrayRecord) -> Result<(), String> {
        if let Some(Saving(before)) = self.saving.take() {
            let saved = before.await;
            self.saved_aside(saved);
        }
        let keeper = self.shared.keeper.clone();
        let mailbox = self.mailbox.clone();
        let mut saving = std::pin::pin!(keeper.save(record.clone()));
        let saved = loop {
            tokio::select! {
                biased;
                saved = &mut saving => break saved,
                question = mailbox.question() => self.answer(question),
            }
        };
        match saved {
            Ok(()) => {
                self.durable = Some(record);
                self.unsaved = None;
                self.save_again = None;
                Ok(())
            }
            Err(why) => {
                self.unsaved = Some(record);
                Err(why)
            }
        }
    }

    /// Tries again what could not be written. The machine holds meanwhile, and looks for itself
    /// when to go on.
    fn save_waiting(&mut self) {
        self.save_again = None;
        if let Some(record) = self.unsaved.take() {
            self.save_aside(record);
        }
    }

    fn begin(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Act { id, action, footing } => {
                    let intended = self
                        .durable
                        .as_ref()
                        .is_some_and(|record| record.intents.iter().any(|intent| intent.id == id));
                    if intended {
                        self.executor.act(Order { id, action, footing, sign: None });
                    } else {
                        tracing::error!(array = %self.id, effect = %id, verb = action.verb(),
                            "an act without a durable intent was refused");
                        self.refuse(id);
                    }
                }
                Effect::Call { id, call } => self.caller.call(id, call),
                Effect::AskPermit => self.report(Said::AskPermit),
                Effect::ReturnPermit => self.report(Said::ReturnPermit),
                Effect::LookAgain => self.report(Said::LookAgain),
            }
        }
    }

    /// Effects that must not happen are answered all the same: somebody waits for each.
    fn drop_effects(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Act { id, .. } => self.refuse(id),
                Effect::Call { id, .. } => {
                    let why = "not asked: the record could not be made durable";
                    let answer = Err(ProvisionerFault::new(FaultClass::Unreachable, why));
                    self.mailbox.answer(Event::Answered { id, answer });
                }
                Effect::AskPermit => self.report(Said::AskPermit),
                Effect::ReturnPermit => self.report(Said::ReturnPermit),
                Effect::LookAgain => self.report(Said::LookAgain),
            }
        }
    }

    fn refuse(&self, id: heal_core::EffectId) {
        let answer = Outcome::Refused(RefusedWhy::NoDurableIntent).into();
        self.mailbox.answer(Event::Acted { id, answer });
    }

    fn log(&mut self, audit: &[Telling], signalled_at: Option<Moment>) {
        let mut signalled_at = signalled_at;
        for entry in audit.iter().map(Telling::entry) {
            let about = Some((self.id, self.device.as_ref()));
            self.shared.journal.send(Entry::audit(&entry, about));
            if self.machine.heals() {
                self.shared.forwarder.tell(&entry, self.id, self.alias.as_ref());
            }
            if matches!(entry.kind, AuditKind::LegLost | AuditKind::LegSuspected) {
                // The first decision of this event is the reaction; the others follow from it.
                if let Some(at) = signalled_at.take() {
                    self.shared.reactions.record(clock::moment().since(at));
                }
            }
            if self.trail.len() == TRAIL {
                self.trail.pop_front();
            }
            self.trail.push_back(TrailEntry {
                at: entry.at,
                message: entry.message,
                event: entry.kind.name().to_owned(),
            });
        }
    }

    /// Tells the reactor what changed.
    fn tell(&mut self) {
        let incident = self.machine.incident();
        if incident.is_some() && incident != self.incident {
            self.report(Said::IncidentOpened);
        }
        self.incident = incident;
        if !self.seen {
            return;
        }
        let status = self.machine.status(clock::now());
        let brief = Brief {
            health: status.health,
            percent: status.repairs.iter().find_map(|repair| repair.percent),
            managed: self.machine.managed_devices(),
            lost_of_ours: self.machine.heals().then(|| self.machine.lost_legs()),
            isolates_after: self.machine.isolates_after(),
        };
        if self.brief.as_ref() != Some(&brief) {
            self.brief = Some(brief.clone());
            self.report(Said::Brief(brief));
        }
    }

    fn report(&self, said: Said) {
        // The reactor is gone only when the process ends.
        let _ = self.shared.reports.send(Report { array: self.id, said });
    }

    fn answer(&self, question: Question) {
        let now = clock::now();
        match question {
            Question::Status(asker) => {
                let _ = asker.send(self.machine.status(now));
            }
            Question::Explain(asker) => {
                let mut explanation = self.machine.explain(now);
                explanation.trail = self.trail.iter().cloned().collect();
                let _ = asker.send(explanation);
            }
        }
    }

    /// A person has looked at an array whose record is unreadable. Nothing can be saved over that
    /// file, so it goes, and the array starts from what the kernel and the provisioner say.
    async fn give_unreadable_up(&mut self) {
        if !self.unreadable {
            return;
        }
        match self.shared.keeper.remove(self.id).await {
            Ok(()) => {
                self.unreadable = false;
                tracing::info!(array = %self.id, "the unreadable record was removed");
            }
            Err(error) => {
                tracing::error!(array = %self.id, error, "the unreadable record cannot be removed");
            }
        }
    }

    /// Another record than the one this life began with turned up.
    async fn start_over(&mut self, found: Result<ArrayRecord, String>) {
        let policy = self.policy();
        let boot = self.shared.boot.clone();
        let now = clock::now();
        let (machine, opening) = match found {
            Ok(record) => {
                self.durable = Some(record.clone());
                ArrayMachine::recover(record, boot, policy, now)
            }
            Err(detail) => {
                self.durable = None;
                self.unreadable = true;
                let why = QuarantinedWhy::UnreadableRecord { detail };
                ArrayMachine::quarantined(self.id, boot, policy, why, now)
            }
        };
        self.machine = machine;
        self.unsaved = None;
        self.save_again = None;
        self.report(Said::ReturnPermit);
        self.report(Said::LookAgain);
        self.settle(opening, None).await;
    }

    async fn finish(&mut self) -> Course {
        if let Err(error) = self.shared.keeper.remove(self.id).await {
            tracing::warn!(array = %self.id, error, "the record of a finished array stays");
        }
        self.report(Said::Finished);
        Course::End
    }

    /// Begins nothing more, waits for the act under way and writes down what came of it. The array
    /// and its connections stay as they are.
    async fn stop(&mut self) {
        self.executor.close().await;
        if let Some(Saving(saving)) = self.saving.take() {
            let saved = saving.await;
            self.saved_aside(saved);
        }
        while let Some(event) = self.mailbox.waiting_answer() {
            let outbox = self.machine.handle(clock::now(), event);
            self.log(&outbox.audit, None);
            if let Some(record) = outbox.record {
                if let Err(error) = self.save(record).await {
                    tracing::warn!(array = %self.id, error, "the last record was not written");
                    return;
                }
            }
        }
        if let Some(record) = self.unsaved.take() {
            if let Err(error) = self.save(record).await {
                tracing::warn!(array = %self.id, error, "the last record was not written");
            }
        }
    }
}

/// What applies to the array now.
fn policy(config: &Config, shared: &Shared, id: ArrayId, alias: Option<&Alias>) -> Policy {
    let off = shared.isolation_off.lock().unwrap_or_else(PoisonError::into_inner).clone();
    Policy { isolation_off: off, ..config.policy(id, alias) }
}

fn is_urgent(effect: &Effect) -> bool {
    match effect {
        Effect::Act { action, .. } => action.is_urgent(),
        Effect::Call { .. } | Effect::AskPermit | Effect::ReturnPermit | Effect::LookAgain => false,
    }
}

/// Whether anything must not happen before `record` is on disk: an act, a call, a loss that is told
/// to be recorded, a person's word that is acknowledged. A doubt is none of these: the next look
/// finds it again.
fn rests_on(record: &ArrayRecord, durable: Option<&ArrayRecord>, effects: &[Effect]) -> bool {
    let begins = effects.iter().any(|effect| match effect {
        Effect::Act { .. } | Effect::Call { .. } | Effect::AskPermit => true,
        Effect::ReturnPermit | Effect::LookAgain => false,
    });
    let Some(durable) = durable.filter(|_| !begins) else {
        return begins || !is_only_doubt(record);
    };
    let without_doubts = |record: &ArrayRecord| {
        let mut record = record.clone();
        record.repairs.retain(|repair| repair.step != Step::Doubt);
        record
    };
    let mut before = without_doubts(durable);
    let now = without_doubts(record);
    // What a doubt changes beside itself.
    before.generation = now.generation;
    before.next_effect = now.next_effect;
    before.incident.clone_from(&now.incident);
    before.intents.clone_from(&now.intents);
    before.members.clone_from(&now.members);
    before != now
}

/// Whether a record that is the first one of its array holds nothing but doubts.
fn is_only_doubt(record: &ArrayRecord) -> bool {
    record.repairs.iter().all(|repair| repair.step == Step::Doubt)
        && record.owed.is_empty()
        && record.hold.is_none()
        && record.quarantine.is_none()
        && record.lapsed.is_empty()
}

/// A save beside everything else.
struct Saving(Pin<Box<dyn Future<Output = Saved> + Send>>);

type Saved = Result<ArrayRecord, (ArrayRecord, String)>;

impl std::fmt::Debug for Saving {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Saving")
    }
}

/// The end of a save beside everything else, if there is one. Safe to drop while it waits.
async fn ended(saving: &mut Option<Saving>) -> Saved {
    match saving {
        Some(Saving(saving)) => saving.await,
        None => std::future::pending().await,
    }
}

/// Waits until `deadline`, or for ever. Without an alarm, or with one that fails, a little longer.
async fn alarmed(alarm: &mut Option<Alarm>, deadline: Option<Moment>) {
    if let Some(set) = alarm {
        match set.until(deadline).await {
            Ok(()) => return,
            Err(error) => {
                tracing::warn!(%error, "an alarm failed; the runtime's timers take over");
                *alarm = None;
            }
        }
    }
    sleep_until(deadline.map(|at| Instant::now() + at.since(clock::moment()))).await;
}

/// Sleeps until `deadline`, or for ever.
pub(crate) async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests;
