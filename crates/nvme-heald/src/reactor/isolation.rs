//! Whether legs may be isolated on this host: an answer of the kernel, and how far it reaches.
//!
//! ```text
//!   the kernel's answer: off | over these fabrics ─┐
//!                                                  ├─► off, or not ─► wards() ─► arming
//!   the fabrics of the controllers that are there ─┘          └─────► every machine's policy
//! ```
//!
//! A host with RDMA alone is never asked about sockets and the TCP driver, as it has none. Its
//! first controller over TCP comes before the answer that covers it. Until then nothing is armed,
//! on no leg: what an armed TCP leg does on a driver that does not drain is to lose a write. The
//! RDMA legs are without their fast failure for the tenths of a second that an answer takes.

use std::collections::BTreeSet;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use heal_types::TransportKind;
use tokio::time::Instant;

use super::Reactor;
use super::paths::Work;
use crate::host::{Host, Isolation};

/// When to ask again whether this kernel can isolate, while that is not known.
const AGAIN: Duration = Duration::from_secs(10);
/// The longest such pause: each answer that is no news doubles it, for each costs some megabytes of
/// symbols.
const SELDOM: Duration = Duration::from_secs(80);

/// What the kernel answered, and when it is asked next.
#[derive(Debug, Default)]
pub(super) struct Answered {
    last: Option<Isolation>,
    /// Over which fabrics there were controllers when it was asked.
    about: BTreeSet<TransportKind>,
    pause: Duration,
    pub(super) ask_at: Option<Instant>,
}

impl<H: Host> Reactor<H> {
    /// The controllers changed: what was answered may not cover them. The first one after none may
    /// have come with another driver. All others are asked about already: a leg that comes and goes
    /// is no reason to read the kernel's symbols, least of all at that moment.
    pub(super) fn fabrics_changed(&mut self, were_none: bool) {
        let covered = match &self.paths.isolation.last {
            Some(Isolation::Over(known)) => self.fabrics().is_subset(known),
            Some(Isolation::Off(_)) => self.fabrics().is_subset(&self.paths.isolation.about),
            None => false,
        };
        if were_none || !covered {
            self.paths.isolation.ask_at = Some(Instant::now());
        }
        if matches!(self.paths.isolation.last, Some(Isolation::Over(_))) {
            self.judge_isolation();
        }
    }

    pub(super) fn ask_isolation(&mut self) {
        self.paths.isolation.ask_at = None;
        self.paths.isolation.about = self.fabrics();
        let mut host = self.setup.host.clone();
        self.paths.work.spawn_blocking(move || Work::Isolation(host.isolation()));
    }

    /// The kernel answered.
    pub(super) fn isolation_answered(&mut self, answer: Isolation) {
        let is_news = self.paths.isolation.last.as_ref() != Some(&answer);
        let pause = pause_after(self.paths.isolation.pause, is_news);
        self.paths.isolation.pause = pause;
        // What is missing does not come back by itself, but what is not known yet may be known
        // soon.
        self.paths.isolation.ask_at = match &answer {
            Isolation::Off(_) => Some(Instant::now() + pause),
            Isolation::Over(fabrics) => {
                (!self.fabrics().is_subset(fabrics)).then(|| Instant::now() + pause)
            }
        };
        match &answer {
            Isolation::Off(why) if is_news => {
                tracing::warn!(why, "no leg is isolated on this kernel");
                self.alarms.insert("isolation", format!("isolation is off: {why}"));
            }
            Isolation::Over(_) if is_news => {
                tracing::info!("legs are armed, and isolated where they have sockets");
                self.alarms.remove("isolation");
            }
            Isolation::Off(_) | Isolation::Over(_) => {}
        }
        self.paths.isolation.last = Some(answer);
        self.judge_isolation();
    }

    /// Whether no leg of this host may be armed or isolated now.
    pub(super) fn is_isolation_off(&self) -> bool {
        let off = &self.shared.isolation_off;
        off.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// Every machine hears whether it may isolate, if that is not what it heard last.
    fn judge_isolation(&mut self) {
        let off = match &self.paths.isolation.last {
            None => return,
            Some(Isolation::Off(why)) => Some(why.clone()),
            Some(Isolation::Over(known)) => self
                .fabrics()
                .difference(known)
                .next()
                .map(|fabric| format!("the kernel was not asked about NVMe over {fabric} yet")),
        };
        {
            let known = &self.shared.isolation_off;
            let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
            if *known == off {
                return;
            }
            *known = off;
        }
        for seat in self.seats.values() {
            seat.mailbox.configure(Arc::clone(&self.setup.config));
        }
        self.wards_changed();
    }

    fn fabrics(&self) -> BTreeSet<TransportKind> {
        self.paths.controllers.values().map(|portal| portal.transport).collect()
    }
}

/// How long to wait after an answer, when the wait for that one was `last`.
fn pause_after(last: Duration, is_news: bool) -> Duration {
    if is_news { AGAIN } else { (2 * last).clamp(AGAIN, SELDOM) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_that_is_no_news_is_asked_for_less_and_less() {
        let first = pause_after(Duration::ZERO, true);
        assert_eq!((first, pause_after(first, false)), (AGAIN, 2 * AGAIN));
        assert_eq!(pause_after(SELDOM, false), SELDOM);
        assert_eq!(pause_after(SELDOM, true), AGAIN);
    }
}
