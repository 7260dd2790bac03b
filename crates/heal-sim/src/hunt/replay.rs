//! Tells a log step by step, and stops where somebody wants to look.
//!
//! ```text
//!   step N        so many more events             show      the world as lines
//!   until WHAT    event 17, phase, violation,     diff      since the last stop
//!                 audit leg.lost                  explain   why each array is where it is
//!   end           the end and every rule          said      the transcript since the last stop
//! ```
//!
//! The end of a story is told as one step: it is the same for all.

use std::fmt::Write as _;

use heal_core::Due;
use heal_types::ArrayId;

use super::end;
use super::event::{Applied, WorldEvent};
use super::log::EventLog;
use super::opened;
use crate::World;
use crate::world::state::Difference;
use crate::world::transcript::LineKind;

/// Where to stop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stop {
    /// Before the event of that number, counted from one.
    Event(usize),
    /// After an event that moved a repair to another phase.
    Phase,
    /// After an event with an audit entry whose text holds this.
    Audit(String),
    /// After an event after which a rule was broken.
    Violation,
}

/// What a step came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stepped {
    /// The event of that number was told.
    Event(usize, WorldEvent, Applied),
    /// The end was told.
    End,
    /// There is nothing more to tell.
    Over,
}

/// A log that is being told.
#[derive(Debug, Clone)]
pub struct Replay {
    log: EventLog,
    world: World,
    next: usize,
    over: bool,
    /// The world at the last stop.
    mark: World,
    /// Lines of the transcript that were there at the last stop.
    read: usize,
}

impl Replay {
    /// A log, of which nothing is told yet.
    #[must_use]
    pub fn new(log: EventLog) -> Self {
        let world = opened(&log.head.scene);
        let read = world.transcript.lines().len();
        Self { log, mark: world.clone(), world, next: 0, over: false, read }
    }

    /// The world as it is now.
    #[must_use]
    pub fn world(&self) -> &World {
        &self.world
    }

    /// How many events were told.
    #[must_use]
    pub fn told(&self) -> usize {
        self.next
    }

    /// The next event, if the end is not next.
    #[must_use]
    pub fn upcoming(&self) -> Option<&WorldEvent> {
        self.log.events.get(self.next)
    }

    /// One event, or the end.
    pub fn step(&mut self) -> Stepped {
        if let Some(event) = self.log.events.get(self.next).cloned() {
            self.next += 1;
            let applied = self.world.apply(&event);
            return Stepped::Event(self.next, event, applied);
        }
        if self.over {
            return Stepped::Over;
        }
        self.over = true;
        end::told_to_the_end(&mut self.world, &self.log.head.scene);
        Stepped::End
    }

    /// Tells on up to a stop. Answers with the last step.
    pub fn until(&mut self, stop: &Stop) -> Stepped {
        loop {
            if let Stop::Event(number) = stop
                && self.next + 1 >= *number
            {
                return self.upcoming().cloned().map_or(Stepped::Over, |event| {
                    Stepped::Event(self.next, event, Applied::Nothing("it is next"))
                });
            }
            let (phases, lines, broken) = self.facts();
            let stepped = self.step();
            let (now, _, broken_now) = self.facts();
            let stops = match stop {
                Stop::Event(_) => false,
                Stop::Phase => phases != now,
                Stop::Violation => broken != broken_now,
                Stop::Audit(text) => self.world.transcript.lines()[lines..]
                    .iter()
                    .any(|line| line.kind == LineKind::Audit && line.text.contains(text)),
            };
            if stops || matches!(stepped, Stepped::Over | Stepped::End) {
                return stepped;
            }
        }
    }

    fn facts(&self) -> (Vec<(ArrayId, Vec<String>)>, usize, usize) {
        let now = self.world.now();
        let phases = self.world.machines.iter().map(|(id, machine)| {
            let repairs = machine.status(now).repairs;
            (*id, repairs.iter().map(|r| format!("{} {}", r.slot, r.phase)).collect())
        });
        (phases.collect(), self.world.transcript.lines().len(), self.world.violations().len())
    }

    /// The world as lines.
    #[must_use]
    pub fn show(&self) -> String {
        let mut text = String::new();
        for (what, how) in self.world.state() {
            let _ = writeln!(text, "{what}: {how}");
        }
        for violation in self.world.violations() {
            let _ = writeln!(text, "!! {}: {}", violation.name, violation.detail);
        }
        text
    }

    /// What differs since the last call.
    pub fn diff(&mut self) -> Vec<Difference> {
        let diff = self.mark.diff(&self.world);
        self.mark = self.world.clone();
        diff
    }

    /// What was said since the last call.
    pub fn said(&mut self) -> String {
        let lines = &self.world.transcript.lines()[self.read..];
        self.read += lines.len();
        lines.iter().fold(String::new(), |mut text, line| {
            let _ = writeln!(text, "{line}");
            text
        })
    }

    /// Why each machine is where it is: what it knows, which rule holds it, what comes next and
    /// when.
    #[must_use]
    pub fn explain(&self) -> String {
        let mut text = String::new();
        let now = self.world.now();
        for array in &self.world.arrays {
            let _ = writeln!(text, "{}", array.name);
            let Some(machine) = self.world.machine(array.id) else {
                let _ = writeln!(text, "  nobody looks after it");
                continue;
            };
            let explanation = machine.explain(now);
            let _ = writeln!(text, "  is: {:?}", explanation.array.health);
            for knows in explanation.knows {
                let _ = writeln!(text, "  knows: {knows}");
            }
            for rule in explanation.rules {
                let _ = writeln!(text, "  rule: {rule}");
            }
            for next in explanation.next {
                let _ = writeln!(text, "  next: {next}");
            }
            if let Some((at, due)) = machine.next_deadline() {
                let left = at.since(now.mono);
                let _ = writeln!(text, "  wakes: in {left:?}, for {}", due_words(due));
            }
        }
        text
    }
}

fn due_words(due: Due) -> &'static str {
    match due {
        Due::Recorded => "a record that is durable by now",
        Due::Step => "a step of a repair",
        Due::Doubt => "a doubt that has lasted",
        Due::Grace => "a grace period that ends",
        Due::Hold => "a hold that may be over",
        Due::Volume => "a question about the volume",
        Due::Owed => "something the provisioner is owed",
        Due::Duty => "a duty of the whole array",
    }
}
