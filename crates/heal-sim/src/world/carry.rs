//! What the daemon does with an outbox: persist, audit, act, in this order.

use std::time::Duration;

use heal_core::record::{ArrayRecord, Step};
use heal_core::{Effect, EffectId, Event, Outbox, Telling};
use heal_types::{
    ArrayId, FaultClass, HostAction, HostAnswer, HostPort, Outcome, ProvisionerCall,
    ProvisionerFault, RefusedWhy, ReplicaId, RetryWhy,
};

use super::ledger::Saved;
use super::transcript::{LineKind, effect_words, event_words, is_news};
use super::{Decided, What, World};
use crate::invariants::{Trouble, last_leg_sees_no_error_of_ours, no_grace_is_slept_through};
use crate::kernel::{FakeKernel, LastError};

/// How long a provisioner takes to answer.
const ANSWER: Duration = Duration::from_millis(30);
/// How long it takes to find out that nobody answers.
const NO_ANSWER: Duration = Duration::from_secs(2);
/// How long a tool may take before it is killed.
const TOOL_DEADLINE: Duration = Duration::from_secs(30);

/// How soon a record that could not be written is tried again.
const SAVE_AGAIN: Duration = Duration::from_secs(2);

/// The daemon is gone: whatever was left of the outbox is gone with it.
pub(super) struct Crashed;

impl World {
    /// Gives a machine an event and carries out what it wants.
    pub(crate) fn deliver(&mut self, array: ArrayId, event: Event) {
        let now = self.now;
        // A look, or news of a path, may be the first thing it hears after a while without eyes.
        if matches!(event, Event::Tick | Event::Answered { .. }) {
            let slept = no_grace_is_slept_through(self, array);
            self.expect("no_grace_is_slept_through", slept);
        }
        let Some(machine) = self.machines.get_mut(&array) else {
            return;
        };
        let before = machine.incident();
        let words = (!self.transcript.is_silent()).then(|| event_words(&event));
        let outbox = machine.handle(now, event);
        if machine.incident().is_some() && before.is_none() {
            let storm = self.budget.degraded(now.mono, array);
            // One alarm for the host is enough.
            if let Some(storm) = storm.filter(|_| !self.is_cut_off()) {
                let text = format!("storm: {} arrays degraded at once", storm.arrays);
                self.transcript.push(now.mono, LineKind::Daemon, text);
            }
        }
        self.drain(array, outbox, words);
    }

    pub(crate) fn drain(&mut self, array: ArrayId, outbox: Outbox, event: Option<String>) {
        let news = || !outbox.audit.is_empty() || outbox.effects.iter().any(is_news);
        if let Some(words) = event.filter(|_| news()) {
            let text = if self.arrays.len() > 1 {
                format!("{} {words}", self.name_of(array))
            } else {
                words
            };
            self.transcript.push(self.now.mono, LineKind::Event, text);
        }
        // A crash anywhere in here is a crash of everything.
        let _: Result<(), Crashed> = self.carry(array, outbox);
    }

    fn name_of(&self, id: ArrayId) -> String {
        let plan = self.arrays.iter().find(|array| array.id == id);
        plan.map_or_else(|| id.to_string(), |array| array.name.clone())
    }

    /// A place where a crash can matter.
    pub(super) fn boundary(&mut self) -> Result<(), Crashed> {
        self.boundaries += 1;
        if self.crash_at == Some(self.boundaries) {
            self.crash_daemon();
            return Err(Crashed);
        }
        Ok(())
    }

    fn carry(&mut self, array: ArrayId, outbox: Outbox) -> Result<(), Crashed> {
        // What is urgent waits for no disk, and a record that nothing rests on keeps nobody
        // waiting.
        let (urgent, effects): (Vec<Effect>, Vec<Effect>) =
            outbox.effects.into_iter().partition(is_urgent);
        for effect in urgent {
            self.carry_effect(array, effect)?;
        }
        if let Some(record) = outbox.record {
            self.boundary()?;
            self.check_record(&record);
            match self.save(array, &record) {
                Saved::Durable => drop(self.unsaved.remove(&array)),
                Saved::Dies => {
                    self.crash_daemon();
                    return Err(Crashed);
                }
                Saved::No(why) if rests_on(&record, &effects) => {
                    self.tell(array, &outbox.audit);
                    self.not_durable(array, record, why);
                    let resting = |effect: &Effect| match effect {
                        Effect::ReturnPermit | Effect::LookAgain => true,
                        Effect::Act { .. } | Effect::Call { .. } | Effect::AskPermit => false,
                    };
                    for effect in effects.into_iter().filter(resting) {
                        self.carry_effect(array, effect)?;
                    }
                    return Ok(());
                }
                Saved::No(_) => self.keep_waiting(array, record),
            }
        }
        // The journal takes the audit in the same breath: a crash between the two would lose a
        // sentence, never a fact.
        self.tell(array, &outbox.audit);
        for effect in effects {
            self.carry_effect(array, effect)?;
        }
        Ok(())
    }

    fn carry_effect(&mut self, array: ArrayId, effect: Effect) -> Result<(), Crashed> {
        self.boundary()?;
        if is_news(&effect) && !self.transcript.is_silent() {
            let words = effect_words(&effect);
            self.transcript.push(self.now.mono, LineKind::Effect, words);
        }
        self.effect(array, effect);
        if self.restart_at.is_some() {
            return Err(Crashed);
        }
        self.boundary()
    }

    /// Writes a record, and notes what the disk holds then, whatever it said.
    fn save(&mut self, array: ArrayId, record: &ArrayRecord) -> Saved {
        let saved = self.disk.save(array, record);
        if self.disk.get(array) == Some(record) {
            self.checker.written(record);
        }
        saved
    }

    /// A record that is to be written once the disk takes it.
    fn keep_waiting(&mut self, array: ArrayId, record: ArrayRecord) {
        self.unsaved.insert(array, record);
        self.save_at = Some(self.now.mono.after(SAVE_AGAIN));
    }

    /// Tries again what could not be written.
    pub(super) fn save_waiting(&mut self) {
        self.save_at = None;
        for (array, record) in std::mem::take(&mut self.unsaved) {
            if self.restart_at.is_some() {
                return;
            }
            match self.save(array, &record) {
                Saved::Durable => {}
                Saved::Dies => self.crash_daemon(),
                Saved::No(_) => self.keep_waiting(array, record),
            }
        }
    }

    /// Nothing that rests on the record is done. What the machine answers to that is only said: its
    /// own record is tried again by itself.
    fn not_durable(&mut self, array: ArrayId, record: ArrayRecord, why: &str) {
        let why = why.to_owned();
        let now = self.now;
        let mut waiting = record;
        if let Some(machine) = self.machines.get_mut(&array) {
            let outbox = machine.handle(now, Event::NotDurable { why });
            self.tell(array, &outbox.audit);
            waiting = outbox.record.unwrap_or(waiting);
            self.drop_effects(array, outbox.effects);
        }
        self.keep_waiting(array, waiting);
    }

    /// Effects that must not happen are answered all the same: somebody waits for each.
    fn drop_effects(&mut self, array: ArrayId, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Act { id, .. } => {
                    let answer = Outcome::Refused(RefusedWhy::NoDurableIntent).into();
                    self.enqueue(Duration::ZERO, What::Acted(array, id, answer));
                }
                Effect::Call { id, .. } => {
                    let why = "not asked: the record could not be made durable";
                    let answer = Err(ProvisionerFault::new(FaultClass::Unreachable, why));
                    self.enqueue(Duration::ZERO, What::Answered(array, id, answer));
                }
                Effect::AskPermit | Effect::ReturnPermit | Effect::LookAgain => {
                    self.effect(array, effect);
                }
            }
        }
    }

    fn tell(&mut self, array: ArrayId, audit: &[Telling]) {
        for entry in audit.iter().map(Telling::entry) {
            self.check_audit(array, &entry);
            if !self.transcript.is_silent() {
                self.transcript.push(self.now.mono, LineKind::Audit, entry.message);
            }
        }
    }

    fn effect(&mut self, array: ArrayId, effect: Effect) {
        match effect {
            Effect::Act { id, action, footing } => {
                self.check_act(array, id, &action);
                let decided = Decided { array, id, action, footing: *footing };
                if self.act_delay > Duration::ZERO && !decided.action.is_urgent() {
                    self.enqueue(self.act_delay, What::Do(Box::new(decided)));
                } else {
                    self.begin(decided);
                }
            }
            Effect::Call { id, call } => self.call(array, id, &call),
            Effect::AskPermit => {
                let given = self.budget.ask(self.now.mono, array);
                self.permit(given);
            }
            Effect::ReturnPermit => {
                let given = self.budget.give_back(self.now.mono, array);
                self.permit(given);
            }
            Effect::LookAgain => self.look_once_more(),
        }
    }

    /// Begins an act, on a fresh look.
    pub(super) fn begin(&mut self, decided: Decided) {
        let Decided { array, id, action, footing } = decided;
        let action = &action;
        let durable = self
            .disk
            .get(array)
            .is_some_and(|record| record.intents.iter().any(|intent| intent.id == id));
        let answer: HostAnswer = if durable || action.is_urgent() {
            // Not `act_if`: the world's own checks stand between the guards and the act.
            let mut fresh =
                if action.is_urgent() { self.kernel.glance(array) } else { self.kernel.look() };
            self.watch.news.annotate_all(&mut fresh);
            let cut_off = self.watch.news.cut_off.clone().filter(|_| action.takes_a_path());
            match (footing.permits(action, &fresh), cut_off) {
                (Ok(()), None) => self.act_now(array, action),
                (Ok(()), Some(detail)) => {
                    let detail = format!("the host is cut off: {detail}");
                    Outcome::Refused(RefusedWhy::Guard { detail }).into()
                }
                (Err(guard), _) => {
                    Outcome::Refused(RefusedWhy::Guard { detail: guard.to_string() }).into()
                }
            }
        } else {
            Outcome::Refused(RefusedWhy::NoDurableIntent).into()
        };
        let takes = how_long(action, &answer);
        self.enqueue(takes, What::Acted(array, id, answer));
    }

    pub(super) fn act_now(&mut self, array: ArrayId, action: &HostAction) -> HostAnswer {
        self.check_before_act(array, action);
        let was_broken = self.kernel.is_broken(array);
        // A path of a leg that is only filled may be cut whatever the others are, and a leg taken
        // from one mirror set says nothing of the next: that is not its doing.
        let mut before = self.kernel.exposed(true);
        if let HostAction::IsolateLeg { leg, .. } | HostAction::DeleteController { leg, .. } =
            action
        {
            before.retain(|(_, name)| *name != leg.device.to_string());
        }
        let answer = self.kernel.act(action);
        // What MD writes to its superblocks may show that a disk has gone: that is nobody's act.
        let ours = last_leg_sees_no_error_of_ours(self, array).is_err()
            || self.kernel.broken_by(array) == Some(LastError::ByHand);
        if self.kernel.is_broken(array) && !was_broken && ours {
            let detail = format!("{} broke the array", action.verb());
            self.violated("never_acts_on_last_in_sync_leg", detail);
        }
        let exposed = |kernel: &FakeKernel| {
            let legs = kernel.exposed(true);
            legs.into_iter().any(|leg| leg.0 == array && !before.contains(&leg))
        };
        if action.takes_a_path() && exposed(&self.kernel) {
            let detail = format!("after {}", action.verb());
            self.violated("never_two_legs_armed_at_once", detail);
        }
        if answer.outcome.is_so() && answer.content.is_some() {
            self.checker.examined(action, &answer);
        }
        self.after_kernel();
        answer
    }

    fn call(&mut self, array: ArrayId, id: EffectId, call: &ProvisionerCall) {
        self.check_call(array, id, call);
        if self.provisioner.breaks_contract() {
            self.checker.trouble(Trouble::Contract);
        }
        let mood = &self.provisioner.mood;
        let mood_down = mood.down;
        let takes = if mood_down { NO_ANSWER } else { ANSWER + mood.slow };
        let answer = self.provisioner.call(call);
        if let (ProvisionerCall::ConfirmRemoved { replica, .. }, false) = (call, mood_down) {
            self.deleted(replica);
        }
        self.enqueue(takes, What::Answered(array, id, answer));
    }
}

impl World {
    /// The provisioner deletes what nobody needs any more.
    fn deleted(&mut self, replica: &ReplicaId) {
        let all = self.arrays.iter().flat_map(|array| &array.replicas);
        let nqn =
            all.filter(|plan| plan.replica.id == *replica).map(|plan| plan.nqn.clone()).next();
        if let Some(nqn) = nqn {
            self.kernel.deleted(&nqn);
        }
    }
}

fn is_urgent(effect: &Effect) -> bool {
    match effect {
        Effect::Act { action, .. } => action.is_urgent(),
        Effect::Call { .. } | Effect::AskPermit | Effect::ReturnPermit | Effect::LookAgain => false,
    }
}

/// Whether anything must not happen before `record` is on disk: an act, a call, or a loss that is
/// told to be recorded.
fn rests_on(record: &ArrayRecord, effects: &[Effect]) -> bool {
    let begins = effects.iter().any(|effect| match effect {
        Effect::Act { .. } | Effect::Call { .. } | Effect::AskPermit => true,
        Effect::ReturnPermit | Effect::LookAgain => false,
    });
    let doubts = record.repairs.iter().all(|repair| matches!(repair.step, Step::Doubt));
    begins || !doubts || !record.owed.is_empty()
}

fn how_long(action: &HostAction, answer: &HostAnswer) -> Duration {
    match &answer.outcome {
        Outcome::Retry { why, .. } => match why {
            RetryWhy::TimedOut | RetryWhy::Stuck => return TOOL_DEADLINE,
            RetryWhy::Unreachable { .. } => return Duration::from_secs(3),
            RetryWhy::Busy
            | RetryWhy::ToolFailed { .. }
            | RetryWhy::LockTaken
            | RetryWhy::Undecided => {}
        },
        Outcome::Refused(RefusedWhy::Guard { .. } | RefusedWhy::NoDurableIntent) => {
            return Duration::from_millis(1);
        }
        Outcome::Changed | Outcome::AlreadySo | Outcome::Refused(_) | Outcome::Unknown(_) => {}
    }
    match action {
        HostAction::Connect { .. } => Duration::from_millis(60),
        HostAction::SetFastIoFail { .. }
        | HostAction::IsolateLeg { .. }
        | HostAction::CutPath { .. } => Duration::from_millis(3),
        HostAction::Examine { .. } => Duration::from_millis(20),
        HostAction::FailLeg { .. }
        | HostAction::RemoveLeg { .. }
        | HostAction::ReAddLeg { .. }
        | HostAction::AddLeg { .. }
        | HostAction::ReplaceLeg { .. }
        | HostAction::ClearWantReplacement { .. }
        | HostAction::SetRaidDisks { .. }
        | HostAction::Reconnect { .. }
        | HostAction::DeleteController { .. }
        | HostAction::Disconnect { .. } => Duration::from_millis(40),
    }
}
