//! What the daemon does with an outbox: persist, audit, act, in this order.

use std::time::Duration;

use heal_core::audit::AuditEntry;
use heal_core::guards::Footing;
use heal_core::{Effect, EffectId, Event, LookCause, Outbox};
use heal_types::{
    ArrayId, HostAction, HostAnswer, HostPort, Outcome, ProvisionerCall, RefusedWhy, RetryWhy,
};

use super::transcript::{LineKind, effect_words, event_words, is_news};
use super::{LOOK_AGAIN, What, World};

/// How long a provisioner takes to answer.
const ANSWER: Duration = Duration::from_millis(30);
/// How long it takes to find out that nobody answers.
const NO_ANSWER: Duration = Duration::from_secs(2);
/// How long a tool may take before it is killed.
const TOOL_DEADLINE: Duration = Duration::from_secs(30);

/// The daemon is gone: whatever was left of the outbox is gone with it.
struct Crashed;

impl World {
    /// Gives a machine an event and carries out what it wants.
    pub(crate) fn deliver(&mut self, array: ArrayId, event: Event) {
        let now = self.now;
        let Some(machine) = self.machines.get_mut(&array) else {
            return;
        };
        let before = machine.incident();
        let words = event_words(&event);
        let outbox = machine.handle(now, event);
        if machine.incident().is_some() && before.is_none() {
            if let Some(storm) = self.budget.degraded(now.mono, array) {
                let text = format!("storm: {} arrays degraded at once", storm.arrays);
                self.transcript.push(now.mono, LineKind::Daemon, text);
            }
        }
        self.drain(array, outbox, Some(words));
    }

    pub(crate) fn drain(&mut self, array: ArrayId, outbox: Outbox, event: Option<String>) {
        let news = !outbox.audit.is_empty() || outbox.effects.iter().any(is_news);
        if let Some(words) = event.filter(|_| news) {
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
    fn boundary(&mut self) -> Result<(), Crashed> {
        self.boundaries += 1;
        if self.crash_at == Some(self.boundaries) {
            self.crash_daemon();
            return Err(Crashed);
        }
        Ok(())
    }

    fn carry(&mut self, array: ArrayId, outbox: Outbox) -> Result<(), Crashed> {
        if let Some(record) = outbox.record {
            self.boundary()?;
            if self.disk_full {
                self.not_durable(array);
                return Ok(());
            }
            self.check_record(&record);
            self.disk.insert(array, record);
        }
        // The journal takes the audit in the same breath: a crash between the two would lose a
        // sentence, never a fact.
        self.tell(&outbox.audit);
        for effect in outbox.effects {
            self.boundary()?;
            if is_news(&effect) {
                let words = effect_words(&effect);
                self.transcript.push(self.now.mono, LineKind::Effect, words);
            }
            self.effect(array, effect);
            if self.restart_at.is_some() {
                return Err(Crashed);
            }
            self.boundary()?;
        }
        Ok(())
    }

    /// Nothing that rests on the record is done. What the machine answers to that is only said: its
    /// own record cannot be written either, and is part of the next one.
    fn not_durable(&mut self, array: ArrayId) {
        let why = "no space left on device".to_owned();
        let now = self.now;
        if let Some(machine) = self.machines.get_mut(&array) {
            let outbox = machine.handle(now, Event::NotDurable { why });
            self.tell(&outbox.audit);
        }
    }

    fn tell(&mut self, audit: &[AuditEntry]) {
        for entry in audit {
            self.checker.audited(entry);
            self.transcript.push(self.now.mono, LineKind::Audit, entry.message.clone());
        }
    }

    fn effect(&mut self, array: ArrayId, effect: Effect) {
        match effect {
            Effect::Act { id, action, footing } => self.act(array, id, &action, &footing),
            Effect::Call { id, call } => self.call(array, id, &call),
            Effect::AskPermit => {
                let given = self.budget.ask(self.now.mono, array);
                self.permit(given);
            }
            Effect::ReturnPermit => {
                let given = self.budget.give_back(self.now.mono, array);
                self.permit(given);
            }
            Effect::LookAgain => self.look_in(LOOK_AGAIN, LookCause::Asked),
        }
    }

    fn act(&mut self, array: ArrayId, id: EffectId, action: &HostAction, footing: &Footing) {
        self.check_act(array, id, action);
        let durable = self
            .disk
            .get(&array)
            .is_some_and(|record| record.intents.iter().any(|intent| intent.id == id));
        let answer: HostAnswer = if durable {
            let fresh = self.kernel.look();
            match footing.permits(action, &fresh) {
                Ok(()) => self.act_now(array, action),
                Err(guard) => {
                    Outcome::Refused(RefusedWhy::Guard { detail: guard.to_string() }).into()
                }
            }
        } else {
            Outcome::Refused(RefusedWhy::NoDurableIntent).into()
        };
        let takes = how_long(action, &answer);
        self.enqueue(takes, What::Acted(array, id, answer));
    }

    fn act_now(&mut self, array: ArrayId, action: &HostAction) -> HostAnswer {
        self.check_before_act(array, action);
        let was_broken = self.kernel.is_broken(array);
        let answer = self.kernel.act(action);
        if self.kernel.is_broken(array) && !was_broken {
            let detail = format!("{} broke the array", action.verb());
            self.violated("never_acts_on_last_in_sync_leg", detail);
        }
        if answer.outcome.is_so() && answer.content.is_some() {
            self.checker.examined(action, &answer);
        }
        self.after_kernel();
        answer
    }

    fn call(&mut self, array: ArrayId, id: EffectId, call: &ProvisionerCall) {
        self.check_call(array, id, call);
        let reached = !self.provisioner.mood.down;
        let answer = self.provisioner.call(call);
        let takes = if reached { ANSWER } else { NO_ANSWER };
        self.enqueue(takes, What::Answered(array, id, answer));
    }
}

fn how_long(action: &HostAction, answer: &HostAnswer) -> Duration {
    match &answer.outcome {
        Outcome::Retry { why, .. } => match why {
            RetryWhy::TimedOut | RetryWhy::Stuck => return TOOL_DEADLINE,
            RetryWhy::Unreachable { .. } => return Duration::from_secs(3),
            RetryWhy::Busy | RetryWhy::ToolFailed { .. } | RetryWhy::LockTaken => {}
        },
        Outcome::Refused(RefusedWhy::Guard { .. } | RefusedWhy::NoDurableIntent) => {
            return Duration::from_millis(1);
        }
        Outcome::Changed | Outcome::AlreadySo | Outcome::Refused(_) | Outcome::Unknown(_) => {}
    }
    match action {
        HostAction::Connect { .. } => Duration::from_millis(60),
        HostAction::Examine { .. } => Duration::from_millis(20),
        HostAction::FailLeg { .. }
        | HostAction::RemoveLeg { .. }
        | HostAction::ReAddLeg { .. }
        | HostAction::AddLeg { .. }
        | HostAction::ReplaceLeg { .. }
        | HostAction::ClearWantReplacement { .. }
        | HostAction::SetRaidDisks { .. }
        | HostAction::Disconnect { .. } => Duration::from_millis(40),
    }
}
