//! Which moves of the transition table were made, and which never.
//!
//! The machine tells of every move in its audit trail, with the phase before and the signal. That
//! is all this needs: what counts is what a person would read in the journal.
//!
//! An edge that no story takes is either a hole in the hunter or a move that cannot happen in this
//! world. [`UNTAKEN`] says which and why, as data; a test keeps it honest: what it names is a legal
//! edge, and no edge of it was taken in the last long hunt.

use std::fmt::Write as _;
use std::sync::LazyLock;

use heal_core::SignalKind;
use heal_core::audit::AuditEntry;
use heal_core::phase::PhaseKind;
use heal_core::transitions::{Verdict, verdict};

const PHASES: usize = PhaseKind::ALL.len();
const SIGNALS: usize = SignalKind::ALL.len();

/// The names of signals, as the audit trail has them.
static SIGNAL_NAMES: LazyLock<Vec<String>> =
    LazyLock::new(|| SignalKind::ALL.iter().map(ToString::to_string).collect());

/// How often each move was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Edges {
    counts: Vec<u64>,
}

impl Default for Edges {
    fn default() -> Self {
        Self { counts: vec![0; PHASES * SIGNALS] }
    }
}

/// One move of the table.
pub type Edge = (PhaseKind, SignalKind);

/// Every move that the table allows.
#[must_use]
pub fn legal() -> Vec<Edge> {
    let all = PhaseKind::ALL.into_iter().flat_map(|p| SignalKind::ALL.map(|s| (p, s)));
    all.filter(|(phase, signal)| match verdict(*phase, *signal) {
        Verdict::Go(_) | Verdict::Resume => true,
        Verdict::Stay(_) | Verdict::Illegal => false,
    })
    .collect()
}

fn place((phase, signal): Edge) -> usize {
    phase as usize * SIGNALS + signal as usize
}

impl Edges {
    pub(crate) fn note(&mut self, entry: &AuditEntry) {
        let (Some(before), Some(rule)) = (entry.field("STATE_BEFORE"), entry.field("RULE")) else {
            return;
        };
        let phase = PhaseKind::ALL.into_iter().find(|phase| phase.word() == before);
        let signal = SIGNAL_NAMES.iter().position(|name| *name == rule);
        if let (Some(phase), Some(signal)) = (phase, signal) {
            self.counts[phase as usize * SIGNALS + signal] += 1;
        }
    }

    /// Adds what another world counted.
    pub fn merge(&mut self, other: &Self) {
        for (own, more) in self.counts.iter_mut().zip(&other.counts) {
            *own += more;
        }
    }

    /// How often this move was made.
    #[must_use]
    pub fn count(&self, edge: Edge) -> u64 {
        self.counts[place(edge)]
    }

    /// Legal moves that were never made.
    #[must_use]
    pub fn untaken(&self) -> Vec<Edge> {
        legal().into_iter().filter(|edge| self.count(*edge) == 0).collect()
    }

    /// Moves that were made although [`UNTAKEN`] says that no story makes them.
    #[must_use]
    pub fn surprises(&self) -> Vec<Edge> {
        let said = UNTAKEN.iter().map(|(edge, _)| *edge);
        said.filter(|edge| self.count(*edge) > 0).collect()
    }

    /// Legal moves that were never made, and nobody knows why.
    #[must_use]
    pub fn unexplained(&self) -> Vec<Edge> {
        self.untaken().into_iter().filter(|edge| explanation(*edge).is_none()).collect()
    }

    /// The table with counts; edges never taken stand below with their explanation.
    #[must_use]
    pub fn table(&self) -> String {
        let mut text = String::new();
        for phase in PhaseKind::ALL {
            let _ = writeln!(text, "{phase}");
            for edge in legal().into_iter().filter(|(from, _)| *from == phase) {
                let to = match verdict(edge.0, edge.1) {
                    Verdict::Go(to) => to.to_string(),
                    Verdict::Resume => "(the step it was held before)".to_owned(),
                    Verdict::Stay(_) | Verdict::Illegal => continue,
                };
                let _ = writeln!(
                    text,
                    "  {:<19}-> {to:<30}{:>10}",
                    edge.1.to_string(),
                    self.count(edge)
                );
            }
        }
        let untaken = self.untaken();
        let _ = writeln!(
            text,
            "{} of {} legal edges taken",
            legal().len() - untaken.len(),
            legal().len()
        );
        for edge in untaken {
            let why = explanation(edge).unwrap_or("NOT EXPLAINED");
            let _ = writeln!(text, "  never: {} on {}: {why}", edge.0, edge.1);
        }
        text
    }
}

/// Why no story takes an edge, or which scenario takes it, if that is known.
#[must_use]
pub fn explanation(edge: Edge) -> Option<&'static str> {
    UNTAKEN.iter().chain(SELDOM).find(|(of, _)| *of == edge).map(|(_, why)| *why)
}

/// Legal edges that no story takes, and why.
pub const UNTAKEN: &[(Edge, &str)] = &[
    (
        (PhaseKind::Reporting, SignalKind::ArrayGone),
        "the next event of any kind first means that the loss is on disk, and ends the phase",
    ),
    (
        (PhaseKind::Reporting, SignalKind::Contradiction),
        "the same; where the disk does not take it, the repair is held in the same breath",
    ),
];

/// Legal edges that dice take once in many hours, because several things have to meet within one
/// step, and the scenario (`tests/regressions/edges.rs`) that takes each.
pub const SELDOM: &[(Edge, &str)] = &[
    (
        (PhaseKind::Isolating, SignalKind::Contradiction),
        "taken by `a_clone_that_shows_while_a_leg_is_isolated_ends_that`",
    ),
    (
        (PhaseKind::Verifying, SignalKind::LegInSync),
        "taken by `a_slot_that_a_person_fills_while_the_offer_is_verified_needs_it_no_more`",
    ),
    (
        (PhaseKind::Verifying, SignalKind::Contradiction),
        "taken by `a_clone_that_shows_while_an_offer_is_verified_ends_that`",
    ),
    (
        (PhaseKind::Verifying, SignalKind::NoLongerNeeded),
        "taken by `a_copy_that_is_taken_back_while_it_is_verified_was_one_too_many`",
    ),
    (
        (PhaseKind::Retiring, SignalKind::NoLongerNeeded),
        "taken by `a_copy_that_is_wanted_again_before_it_was_failed_stays`",
    ),
];
