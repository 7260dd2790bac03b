//! The audit trail: plain sentences, with the facts as fields.

use heal_types::{HostAction, Now, Outcome, Slot};

use crate::audit::{AuditEntry, AuditKind, Severity};
use crate::ids::EffectId;
use crate::phase::{Phase, PhaseKind, Repair};
use crate::record::{Intent, Member, Owed};
use crate::signal::Signal;
use crate::view::{SlotView, slot_view};
use crate::why::{Cause, HeldWhy};

use super::ArrayMachine;

impl ArrayMachine {
    /// What the array is called: its kernel name while it is there, its UUID otherwise.
    pub(super) fn name(&self) -> String {
        match self.snapshot() {
            Some(array) => array.device.to_string(),
            None => self.id.to_string(),
        }
    }

    fn entry(&self, now: Now, kind: AuditKind, severity: Severity, message: String) -> AuditEntry {
        let mut fields = vec![("CAUSE", self.cause.to_string())];
        if let Some(alias) = self.snapshot().and_then(|array| array.alias.as_ref()) {
            fields.push(("ALIAS", alias.to_string()));
        }
        if let Some(volume) = self.volume.known() {
            fields.push(("VOLUME", volume.id.to_string()));
        }
        AuditEntry {
            kind,
            severity,
            at: now.wall,
            message,
            incident: self.incident(),
            action: None,
            slot: None,
            fields,
        }
    }

    pub(super) fn tell(&mut self, now: Now, kind: AuditKind, severity: Severity, text: String) {
        let entry = self.entry(now, kind, severity, text);
        self.out.audit.push(entry);
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
        self.out.audit.push(entry);
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
        if let Some(entry) = self.out.audit.last_mut() {
            entry.action = Some(id);
        }
    }

    pub(super) fn tell_begun(&mut self, now: Now, slot: Slot, id: EffectId, action: &HostAction) {
        let text = format!("{}: begins to {}", self.name(), sentence(action));
        self.tell_effect(now, AuditKind::ActBegun, Severity::Notice, text, slot, id);
        if let Some(entry) = self.out.audit.last_mut() {
            entry.fields.push(("VERB", action.verb().to_owned()));
        }
    }

    pub(super) fn tell_duty(&mut self, now: Now, id: EffectId, action: &HostAction) {
        let text = format!("{}: begins to {}", self.name(), sentence(action));
        let mut entry = self.entry(now, AuditKind::ActBegun, Severity::Notice, text);
        entry.action = Some(id);
        entry.fields.push(("VERB", action.verb().to_owned()));
        self.out.audit.push(entry);
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
        self.out.audit.push(entry);
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
        self.out.audit.push(entry);
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
        self.out.audit.push(entry);
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
        let (kind, severity, what) = self.describe_move(now, &repair, from, to, signal);
        let text = format!("{}: slot {slot}: {what}", self.name());
        self.tell_slot(now, kind, severity, text, slot);
        if let Some(entry) = self.out.audit.last_mut() {
            entry.fields.push(("STATE_BEFORE", from.to_string()));
            entry.fields.push(("STATE_AFTER", to.to_string()));
            entry.fields.push(("RULE", signal.kind().to_string()));
            entry.fields.push(("REASON", repair.cause.to_string()));
        }
    }

    fn describe_move(
        &self,
        now: Now,
        repair: &Repair,
        from: PhaseKind,
        to: PhaseKind,
        signal: &Signal,
    ) -> (AuditKind, Severity, String) {
        let lost = repair.lost.as_ref().map_or_else(|| "its leg".to_owned(), describe);
        let incoming = repair
            .incoming
            .as_ref()
            .map_or_else(|| "a replica".to_owned(), |incoming| format!("replica {}", incoming.id));
        if *signal == Signal::HoldEnded {
            let text = format!("goes on: {to}");
            return (AuditKind::RepairResumed, Severity::Notice, text);
        }
        match to {
            PhaseKind::Whole if matches!(from, PhaseKind::Suspect | PhaseKind::Isolating) => {
                (AuditKind::LegCleared, Severity::Notice, format!("{lost} is good again"))
            }
            PhaseKind::Whole => {
                let text = if *signal == Signal::ArrayGone {
                    "repair ended: the array was stopped"
                } else if *signal == Signal::NoLongerNeeded {
                    "repair ended: no longer wanted"
                } else {
                    "repair done"
                };
                (AuditKind::RepairEnded, Severity::Notice, text.to_owned())
            }
            PhaseKind::Suspect => {
                let mut text = format!("{lost} is in doubt");
                if let Phase::Suspect { why, .. } = &repair.phase {
                    text = format!("{text}: {why}");
                }
                (AuditKind::LegSuspected, Severity::Warning, text)
            }
            PhaseKind::Isolating => {
                let text =
                    format!("frees the application's I/O from {lost}: {}", self.doubt(repair));
                (AuditKind::LegIsolating, Severity::Warning, text)
            }
            PhaseKind::Reporting => {
                (AuditKind::LegLost, Severity::Warning, format!("{lost} is lost"))
            }
            PhaseKind::Grace => self.describe_grace(now, repair, from, signal, &lost),
            PhaseKind::Returning => {
                (AuditKind::LegReturned, Severity::Notice, format!("{lost} is back"))
            }
            PhaseKind::Requesting => {
                let text = format!("asks the provisioner to replace {lost}");
                (AuditKind::ReplacementRequested, Severity::Notice, text)
            }
            PhaseKind::Connecting => {
                let text = format!("{incoming} takes the place: connecting it");
                (AuditKind::ReplacementConnecting, Severity::Notice, text)
            }
            PhaseKind::Verifying => {
                let text = format!("{incoming} is there: verifying it");
                (AuditKind::ReplacementVerifying, Severity::Notice, text)
            }
            PhaseKind::Adding => {
                let text = format!("{incoming} is verified: adding it");
                (AuditKind::ReplacementAdding, Severity::Notice, text)
            }
            PhaseKind::Rebuilding => {
                (AuditKind::RebuildBegan, Severity::Notice, "MD rebuilds the leg".to_owned())
            }
            PhaseKind::Retiring if repair.cause == Cause::FewerCopies => {
                let text = format!("{lost} is no longer wanted: puts it away");
                (AuditKind::LegInSync, Severity::Notice, text)
            }
            PhaseKind::Retiring => {
                (AuditKind::LegInSync, Severity::Notice, "the leg is in sync".to_owned())
            }
            PhaseKind::Held => describe_held(repair),
            PhaseKind::Quarantined => {
                let text = "stands still: the array is quarantined".to_owned();
                (AuditKind::RepairHeld, Severity::Warning, text)
            }
        }
    }

    /// What speaks against the slot's leg now.
    pub(super) fn doubt(&self, repair: &Repair) -> String {
        match self.snapshot().map(|array| slot_view(array, repair.slot)) {
            Some(SlotView::Doubtful(why)) => why.to_string(),
            Some(
                SlotView::Good(_)
                | SlotView::Recovering
                | SlotView::Failed
                | SlotView::Vacant
                | SlotView::Unclear,
            )
            | None => "in doubt".to_owned(),
        }
    }

    fn describe_grace(
        &self,
        now: Now,
        repair: &Repair,
        from: PhaseKind,
        signal: &Signal,
        lost: &str,
    ) -> (AuditKind, Severity, String) {
        let until = match &repair.grace {
            Some(deadline) => format!("for {} s", deadline.wall.since(now.wall).as_secs()),
            None => "without end, as the policy says".to_owned(),
        };
        let text = match (from, signal) {
            (_, Signal::StepRefused { verb, detail }) => {
                format!("{lost} cannot be taken back ({verb}: {detail}): waits {until}")
            }
            (PhaseKind::Returning, _) => format!("{lost} left again: waits {until}"),
            (_, Signal::ReplicaTerminating) => {
                format!("{lost} is terminating: waits for its successor {until}")
            }
            (_, Signal::BadBlocks) => {
                format!("{lost} is no full copy: waits for its blocks to be written {until}")
            }
            (_, _) => format!("waits for {lost} or the provisioner {until}"),
        };
        (AuditKind::GraceBegan, Severity::Notice, text)
    }
}

fn describe_held(repair: &Repair) -> (AuditKind, Severity, String) {
    let Phase::Held { why, .. } = &repair.phase else {
        return (AuditKind::RepairHeld, Severity::Notice, "held".to_owned());
    };
    let severity = match why {
        HeldWhy::Observing | HeldWhy::OneAtATime { .. } | HeldWhy::Budget => Severity::Notice,
        HeldWhy::Guard { detail } if detail.starts_with("G1") => Severity::Critical,
        HeldWhy::Operator { .. }
        | HeldWhy::NoProvisioner
        | HeldWhy::ArrayState(_)
        | HeldWhy::ArrayBusy
        | HeldWhy::Guard { .. }
        | HeldWhy::Refused { .. }
        | HeldWhy::Rejected { .. }
        | HeldWhy::StepFailed { .. }
        | HeldWhy::HostCutOff { .. }
        | HeldWhy::Flapping { .. }
        | HeldWhy::NotDurable { .. } => Severity::Warning,
    };
    let kind = match why {
        HeldWhy::Rejected { .. } => AuditKind::ReplicaRejected,
        HeldWhy::Operator { .. }
        | HeldWhy::Observing
        | HeldWhy::NoProvisioner
        | HeldWhy::OneAtATime { .. }
        | HeldWhy::Budget
        | HeldWhy::ArrayState(_)
        | HeldWhy::ArrayBusy
        | HeldWhy::Guard { .. }
        | HeldWhy::Refused { .. }
        | HeldWhy::StepFailed { .. }
        | HeldWhy::HostCutOff { .. }
        | HeldWhy::Flapping { .. }
        | HeldWhy::NotDurable { .. } => AuditKind::RepairHeld,
    };
    (kind, severity, format!("held: {why}"))
}

fn repair_fields(repair: &Repair) -> Vec<(&'static str, String)> {
    let mut fields = Vec::new();
    if let Some(lost) = &repair.lost {
        if let Some(device) = &lost.device {
            fields.push(("LEG", device.to_string()));
        }
        if let Some(namespace) = &lost.namespace {
            fields.push(("LEG_NAMESPACE", namespace.to_string()));
        }
        if let Some(replica) = &lost.replica {
            fields.push(("REPLICA", replica.to_string()));
        }
        if let Some(nqn) = &lost.nqn {
            fields.push(("NQN", nqn.to_string()));
        }
    }
    if let Some(incoming) = &repair.incoming {
        fields.push(("INCOMING", incoming.id.to_string()));
        fields.push(("INCOMING_NAMESPACE", incoming.target.namespace.to_string()));
    }
    if let Phase::Requesting { key, .. } = &repair.phase {
        fields.push(("REQUEST_ID", key.to_string()));
    }
    fields
}

/// A member, as a person would name it.
pub(super) fn describe(member: &Member) -> String {
    match (&member.device, &member.replica) {
        (Some(device), Some(replica)) => format!("leg {device} (replica {replica})"),
        (Some(device), None) => format!("leg {device}"),
        (None, Some(replica)) => format!("replica {replica}"),
        (None, None) => "a leg".to_owned(),
    }
}

/// What an action does, as a person would say it.
fn sentence(action: &HostAction) -> String {
    match action {
        HostAction::Connect { target, .. } => format!("connect {}", target.nqn),
        HostAction::Examine { device } => format!("examine {device}"),
        HostAction::FailLeg { leg, .. } => format!("mark {} faulty", leg.device),
        HostAction::RemoveLeg { leg, .. } => format!("unbind {}", leg.device),
        HostAction::ReAddLeg { device, .. } => format!("re-add {device} by bitmap"),
        HostAction::AddLeg { device, .. } => format!("add {device}"),
        HostAction::ReplaceLeg { from, to, .. } => format!("move {} to {to}", from.device),
        HostAction::ClearWantReplacement { leg, .. } => {
            format!("take back MD's wish to replace {}", leg.device)
        }
        HostAction::SetRaidDisks { raid_disks, .. } => format!("set the slots to {raid_disks}"),
        HostAction::SetFastIoFail { controller, value } => {
            format!("set the fast failure of {controller} to {value}")
        }
        HostAction::IsolateLeg { leg, paths, .. } => {
            let paths: Vec<String> = paths.iter().map(ToString::to_string).collect();
            format!("destroy the sockets of {} through {}", leg.device, paths.join(", "))
        }
        HostAction::CutPath { controller, .. } => format!("destroy the sockets of {controller}"),
        HostAction::DeleteController { controller, .. } => format!("delete {controller}"),
        HostAction::Reconnect { params } => {
            format!("connect {} at {} again", params.nqn, params.portal)
        }
        HostAction::Disconnect { nqn, .. } => format!("disconnect {nqn}"),
    }
}
