//! What a person says: hold, and go on.

use std::time::Duration;

use heal_types::{Now, Slot};

use crate::audit::{AuditKind, Severity};
use crate::event::Operator;
use crate::phase::Phase;
use crate::record::OperatorHold;
use crate::signal::Signal;
use crate::why::HeldWhy;

use super::ArrayMachine;

/// A timed hold is looked at this often.
const HOLD_CHECK: Duration = Duration::from_secs(60);

impl ArrayMachine {
    pub(super) fn operator(&mut self, now: Now, operator: Operator) {
        match operator {
            Operator::Hold { reason, by, until } => {
                self.hold = Some(OperatorHold {
                    reason: reason.clone(),
                    by: by.clone(),
                    since: now.wall,
                    until,
                });
                self.dirty = true;
                let text = format!("{}: held by {by}: {reason}", self.name());
                self.tell(now, AuditKind::HoldPlaced, Severity::Warning, text);
                let slots: Vec<Slot> = self.repairs.keys().copied().collect();
                for slot in slots {
                    let why = HeldWhy::Operator { reason: reason.clone() };
                    self.hold_repair(now, slot, why, None, None);
                }
            }
            Operator::Resume { by } => {
                if self.hold.take().is_some() {
                    let text = format!("{}: hold lifted by {by}", self.name());
                    self.tell(now, AuditKind::HoldLifted, Severity::Notice, text);
                }
                self.release(now, &by);
                self.volume.ask_again(now.mono);
                self.dirty = true;
            }
        }
    }

    /// A person has looked: end quarantine, and every hold that waits for a person.
    fn release(&mut self, now: Now, by: &str) {
        if self.quarantine.take().is_some() {
            let text = format!("{}: quarantine ended by {by}", self.name());
            self.tell(now, AuditKind::ArrayReleased, Severity::Warning, text);
        }
        if self.is_gone() {
            // Whoever resumes an array that is not there says that it will not come back.
            self.end_repairs_of_gone_array(now);
        }
        self.want_look();
        let slots: Vec<Slot> = self.repairs.keys().copied().collect();
        for slot in slots {
            if let Some(repair) = self.repairs.get_mut(&slot) {
                repair.not_again = None;
            }
            self.signal_if_held(now, slot);
        }
    }

    fn signal_if_held(&mut self, now: Now, slot: Slot) {
        let held = self.repairs.get(&slot).is_some_and(|repair| {
            matches!(repair.phase, Phase::Held { .. } | Phase::Quarantined { .. })
        });
        if held {
            self.signal(now, slot, Signal::HoldEnded);
        }
    }

    pub(super) fn expire_hold(&mut self, now: Now) {
        let until = self.hold.as_ref().and_then(|hold| hold.until);
        self.hold_wake = until.map(|until| {
            let left = until.since(now.wall).clamp(Duration::from_secs(1), HOLD_CHECK);
            now.mono.after(left)
        });
        let over =
            self.hold.as_ref().and_then(|hold| hold.until).is_some_and(|until| until <= now.wall);
        if over {
            self.hold = None;
            self.hold_wake = None;
            self.dirty = true;
            let text = format!("{}: the hold's time is over", self.name());
            self.tell(now, AuditKind::HoldLifted, Severity::Notice, text);
        }
    }
}
