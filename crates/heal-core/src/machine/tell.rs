//! The audit trail: plain sentences, with the facts as fields.

use heal_types::{HostAction, Now, Outcome, Slot};

use crate::audit::{AuditEntry, AuditKind, Severity};
use crate::ids::EffectId;
use crate::phase::PhaseKind;
use crate::record::{Intent, Owed};
use crate::signal::Signal;
use crate::telling::{Begun, Move, Scene, Telling, repair_fields, sentence};
use crate::view::{SlotView, slot_view};
use crate::why::DoubtWhy;

use super::ArrayMachine;

impl ArrayMachine {
    /// What the array is called: its kernel name while it is there, its UUID otherwise.
    pub(super) fn name(&self) -> String {
        match self.snapshot() {
            Some(array) => array.device.to_string(),
            None => self.id.to_string(),
        }
    }

    fn scene(&self, now: Now) -> Scene {
        let array = self.snapshot();
        Scene {
            at: now.wall,
            cause: self.cause.clone(),
            array: self.id,
            device: array.map(|array| array.device.clone()),
            alias: array.and_then(|array| array.alias.clone()),
            volume: self.volume.known().map(|volume| volume.id.clone()),
            incident: self.incident(),
        }
    }

    fn entry(&self, now: Now, kind: AuditKind, severity: Severity, message: String) -> AuditEntry {
        self.scene(now).entry(kind, severity, message)
    }

    pub(super) fn tell(&mut self, now: Now, kind: AuditKind, severity: Severity, text: String) {
        let entry = self.entry(now, kind, severity, text);
        self.out.audit.push(entry.into());
    }

    pub(super) fn tell_slot(
        &mut self,
        now: Now,
        kind: AuditKind,
        severity: Severity,
        text: String,
        slot: Slot,
    ) {
        let mut entry = self.entry(now, kind, severity, text);
        entry.slot = Some(slot);
        if let Some(repair) = self.repairs.get(&slot) {
            entry.fields.extend(repair_fields(repair));
        }
        self.out.audit.push(entry.into());
    }

    pub(super) fn tell_effect(
        &mut self,
        now: Now,
        kind: AuditKind,
        severity: Severity,
        text: String,
        slot: Slot,
        id: EffectId,
    ) {
        self.tell_slot(now, kind, severity, text, slot);
        if let Some(entry) = self.out.audit.last_mut().and_then(Telling::worded_mut) {
            entry.action = Some(id);
        }
    }

    pub(super) fn tell_begun(&mut self, now: Now, slot: Slot, id: EffectId, action: &HostAction) {
        let repair = self.repairs.get(&slot).cloned();
        let begun = Begun { scene: self.scene(now), slot, repair, id, action: action.clone() };
        self.out.audit.push(begun.into());
    }

    pub(super) fn tell_duty(&mut self, now: Now, id: EffectId, action: &HostAction) {
        let text = format!("{}: begins to {}", self.name(), sentence(action));
        let mut entry = self.entry(now, AuditKind::ActBegun, Severity::Notice, text);
        entry.action = Some(id);
        entry.fields.push(("VERB", action.verb().to_owned()));
        self.out.audit.push(entry.into());
    }

    pub(super) fn tell_ended(&mut self, now: Now, intent: &Intent, outcome: &Outcome) {
        let (severity, word) = match outcome {
            Outcome::Changed => (Severity::Notice, "ok"),
            Outcome::AlreadySo => (Severity::Notice, "already"),
            Outcome::Retry { .. } => (Severity::Info, "again"),
            Outcome::Refused(_) => (Severity::Warning, "refused"),
            Outcome::Unknown(_) => (Severity::Warning, "unknown"),
        };
        // Reading changes nothing, so "already so" would say nothing.
        let said = match outcome {
            Outcome::AlreadySo if intent.verb == "examine" => "read".to_owned(),
            Outcome::Changed
            | Outcome::AlreadySo
            | Outcome::Retry { .. }
            | Outcome::Refused(_)
            | Outcome::Unknown(_) => outcome.to_string(),
        };
        let text = format!("{}: {}: {said}", self.name(), intent.verb);
        let mut entry = self.entry(now, AuditKind::ActEnded, severity, text);
        entry.slot = intent.slot;
        entry.action = Some(intent.id);
        entry.fields.push(("VERB", intent.verb.clone()));
        entry.fields.push(("OUTCOME", word.to_owned()));
        let micros = now.wall.since(intent.at).as_micros();
        entry.fields.push(("DURATION_USEC", micros.to_string()));
        self.out.audit.push(entry.into());
    }

    pub(super) fn tell_interrupted(&mut self, now: Now, intent: &Intent) {
        let text = format!(
            "{}: {} was under way when the daemon ended; the kernel shows what became of it",
            self.name(),
            intent.verb
        );
        let mut entry = self.entry(now, AuditKind::ActInterrupted, Severity::Notice, text);
        entry.slot = intent.slot;
        entry.action = Some(intent.id);
        entry.fields.push(("VERB", intent.verb.clone()));
        entry.fields.push(("OUTCOME", "interrupted".to_owned()));
        self.out.audit.push(entry.into());
    }

    pub(super) fn tell_key(
        &mut self,
        now: Now,
        kind: AuditKind,
        severity: Severity,
        text: String,
        owed: &Owed,
    ) {
        let mut entry = self.entry(now, kind, severity, text);
        entry.fields.push(("REPLICA", owed.replica.to_string()));
        entry.fields.push(("REQUEST_ID", owed.key.to_string()));
        self.out.audit.push(entry.into());
    }

    /// One entry for every move of a repair.
    pub(super) fn tell_move(
        &mut self,
        now: Now,
        slot: Slot,
        from: PhaseKind,
        to: PhaseKind,
        signal: &Signal,
    ) {
        let Some(repair) = self.repairs.get(&slot).cloned() else {
            return;
        };
        let doubt = self.doubt_about(slot);
        let (scene, signal) = (self.scene(now), signal.clone());
        self.out.audit.push(Move { scene, repair, from, to, signal, doubt }.into());
    }

    /// What speaks against the slot's leg now.
    pub(super) fn doubt_about(&self, slot: Slot) -> Option<DoubtWhy> {
        match slot_view(self.snapshot()?, slot) {
            SlotView::Doubtful(why) => Some(why),
            SlotView::Good(_)
            | SlotView::Recovering
            | SlotView::Failed
            | SlotView::Vacant
            | SlotView::Unclear => None,
        }
    }
}
