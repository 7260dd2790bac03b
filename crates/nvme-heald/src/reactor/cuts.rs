//! The reactor's cuts: dead paths with which nothing is lost ([`heal_core::cuts`]).
//!
//! No array's act: MD never hears of it, no record holds it, no array waits for it. What is due is
//! asked after every verdict and every look, and carried out on threads of its own, where the
//! guards speak again on the glance the act rests on.

use heal_core::LookCause;
use heal_core::audit::{AuditEntry, AuditKind, Severity};
use heal_core::cuts::{self, Cut};
use heal_host::clock;
use heal_types::{HostAction, HostAnswer, Outcome, UnknownWhy};

use super::Reactor;
use super::paths::Work;
use crate::hints::Hint;
use crate::host::Host;
use crate::journal::Entry;

impl<H: Host> Reactor<H> {
    /// Begins what is due.
    pub(super) fn cut_paths(&mut self) {
        let wards = self.wards();
        let Some(snapshot) = &self.snapshot else { return };
        let (due, next) = match &self.paths.news.cut_off {
            None => self.paths.cuts.due(clock::moment(), snapshot, &wards),
            // Then no path is better than another.
            Some(_) => (Vec::new(), None),
        };
        self.paths.cut_at = next;
        if due.is_empty() {
            return;
        }
        let (mut host, board) = (self.setup.host.clone(), self.paths.board.clone());
        let standby = board.standby().clone();
        let asked = due.clone();
        let made = standby.run(move || {
            let carry_out = |cut: Cut| {
                let controller = Box::new(cut.controller.clone());
                let action = HostAction::CutPath { array: cut.array, controller };
                let answer = host.act_if(cut.array, &action, &mut |fresh| {
                    board.news().annotate_all(fresh);
                    cuts::permits(&cut, fresh)
                });
                (cut, answer)
            };
            due.into_iter().map(carry_out).collect()
        });
        self.paths.work.spawn(async move {
            let broke_off = || Outcome::Unknown(UnknownWhy::NoAnswer).into();
            let missed = |cut| (cut, broke_off());
            Work::Cut(made.await.unwrap_or_else(|_| asked.into_iter().map(missed).collect()))
        });
    }

    /// What came of it.
    pub(super) fn cut(&mut self, done: Vec<(Cut, HostAnswer)>) {
        for (cut, HostAnswer { outcome, .. }) in done {
            let severity = match &outcome {
                // Refused is what came back, or changed, in the same moment.
                Outcome::Changed | Outcome::AlreadySo | Outcome::Refused(_) => Severity::Notice,
                Outcome::Retry { .. } | Outcome::Unknown(_) => Severity::Warning,
            };
            if !outcome.is_so() {
                self.paths.cuts.missed(clock::moment(), &cut.controller);
            }
            let name = cut.controller.name.to_string();
            let entry = AuditEntry {
                kind: AuditKind::PathCut,
                severity,
                at: clock::now().wall,
                message: format!(
                    "destroy the sockets of {}, with which nothing is lost: {}: {outcome}",
                    cut.controller, cut.why
                ),
                incident: None,
                action: None,
                slot: None,
                fields: vec![
                    ("CONTROLLER", name),
                    ("VERB", "cut_path".to_owned()),
                    ("OUTCOME", outcome.to_string()),
                    ("REASON", cut.why.word().to_owned()),
                ],
            };
            self.setup.journal.send(Entry::audit(&entry, None));
        }
        self.looks.want(Hint { cause: LookCause::OwnAction, signalled_at: None });
    }
}
