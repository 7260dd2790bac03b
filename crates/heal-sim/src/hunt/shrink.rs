//! Makes a failing story short: what can be left out without its rule being kept is left out.
//!
//! ```text
//!   24 events ── halves, quarters, … left out while the same rule breaks ──► 3 events
//!             ── pauses made shorter                                     ──► round numbers
//! ```
//!
//! That is Zeller's delta debugging. It works because any part of a log is a story too.
//!
//! The price: what is left is *a* short story that breaks the rule, not always by the same way.

use super::event::WorldEvent;
use super::log::EventLog;
use super::retold;

/// So many stories are told at most to make one short.
const BUDGET: u32 = 600;

/// The shortest story found that breaks the same rule.
#[must_use]
pub fn shrunk(log: &EventLog, rule: &str) -> EventLog {
    let mut shrinker = Shrinker { best: log.clone(), rule, left: BUDGET };
    while shrinker.leave_out() | shrinker.shorten() {}
    shrinker.best
}

struct Shrinker<'a> {
    best: EventLog,
    rule: &'a str,
    left: u32,
}

impl Shrinker<'_> {
    fn breaks(&mut self, events: Vec<WorldEvent>) -> bool {
        if self.left == 0 {
            return false;
        }
        self.left -= 1;
        let shorter = EventLog { events, ..self.best.clone() };
        let world = retold(&shorter);
        let breaks = world.violations().iter().any(|violation| violation.name == self.rule);
        if breaks {
            self.best = shorter;
        }
        breaks
    }

    /// Leaves out ever smaller parts. Answers whether anything could be left out.
    fn leave_out(&mut self) -> bool {
        let before = self.best.events.len();
        let mut size = before.div_ceil(2).max(1);
        loop {
            let mut from = 0;
            while from < self.best.events.len() {
                let until = (from + size).min(self.best.events.len());
                let mut events = self.best.events.clone();
                events.drain(from..until);
                if !self.breaks(events) {
                    from = until;
                }
            }
            if size == 1 {
                break;
            }
            size = size.div_ceil(2);
        }
        self.best.events.len() < before
    }

    /// Makes pauses round. Answers whether any could be made shorter.
    fn shorten(&mut self) -> bool {
        let mut any = false;
        for at in 0..self.best.events.len() {
            let WorldEvent::Pass(millis) = self.best.events[at] else { continue };
            for shorter in [0, 100, 1_000, 5_000, 10_000, 30_000] {
                if shorter >= millis {
                    break;
                }
                let mut events = self.best.events.clone();
                events[at] = WorldEvent::Pass(shorter);
                if self.breaks(events) {
                    any = true;
                    break;
                }
            }
        }
        any
    }
}
