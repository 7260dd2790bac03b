//! The hunter: it makes stories that nobody thought of, and looks whether a rule breaks.
//!
//! ```text
//!   seed ──► Dice ──► Scene ────────────────► World
//!              │                                ▲ apply         every rule of the product
//!              └──► Action ──► WorldEvent ──────┤◄────────────── after every event,
//!                    (wish)      │   (done)     │                and at the end
//!                                ▼              ▼
//!                            EventLog ◄── a rule broke: the log is made short and kept
//!                                │
//!                                └──► told again for ever: tests/regressions
//! ```
//!
//! There are two vocabularies, and the border between them is what makes a find worth something. An
//! [`table::Action`] is a wish: it has a weight, it looks at the world, and another version of the
//! hunter may wish something else for the same seed. A [`event::WorldEvent`] is a deed: it names
//! what is done, and nothing else ever changes a world in a hunt. So a log of deeds tells the same
//! story long after the dice have changed, any part of it is a story too, and a failing one can be
//! made short.
//!
//! A story that a person writes tests what the person thought of. These do not read well, but they
//! are patient: some hundred stories a second on one processor, each with a dozen faults, a crash
//! or a lie in it, and at the end all faults stop and everything must be well again.
//!
//! Two things are counted. A *run* is the story of one seed. An *incident* is a leg that was lost
//! and that the agent has to heal: it has taken it down as lost, and owes the provisioner a word on
//! it (`AuditKind::LegLost`). A leg that is lost again while it is filled is a new one; a doubt
//! that clears, a leg that is isolated and comes back before MD fails it, a replica that moves, and
//! whatever happens to an array that is only observed are none. A run has about two.
//!
//! The price: the dice know only the faults of their tables. How sharp the hunter is shows when the
//! agent is made worse on purpose: `cargo xtask hunt --mutants`.

pub mod action;
mod apply;
pub mod coverage;
pub mod crowd;
pub mod dice;
mod end;
pub mod event;
pub mod log;
pub mod replay;

pub mod scene;
pub mod shrink;
pub mod table;

pub use apply::VERBS;

use std::time::Duration;

use crate::World;
use dice::Dice;
use log::{EventLog, Head};
use scene::Scene;
use table::Table;

/// How long everything is well before a story begins.
const BEFORE: Duration = Duration::from_secs(10);

/// A world in which the story of that scene begins.
#[must_use]
pub fn opened(scene: &Scene) -> World {
    let mut world = World::new(&scene.setup());
    world.run_for(BEFORE);
    world.begin_story();
    world
}

/// Tells the story of a seed, with so many wishes, to its end.
#[must_use]
pub fn told(table: Table, seed: u64, wishes: u32) -> (World, EventLog) {
    told_by(table, seed, wishes, opened)
}

/// The same, without keeping what was said: for those who count.
#[must_use]
pub fn told_quietly(table: Table, seed: u64, wishes: u32) -> (World, EventLog) {
    told_by(table, seed, wishes, |scene| {
        let mut world = World::new(&scene.setup());
        world.transcript.silence();
        world.run_for(BEFORE);
        world
    })
}

fn told_by(
    table: Table,
    seed: u64,
    wishes: u32,
    open: impl Fn(&Scene) -> World,
) -> (World, EventLog) {
    let mut dice = Dice::new(seed);
    let scene = Scene::cast(table, &mut dice);
    let mut world = open(&scene);
    let mut events = Vec::new();
    for _ in 0..wishes {
        for event in action::next(table, &world, &mut dice) {
            world.apply(&event);
            events.push(event);
        }
    }
    end::told_to_the_end(&mut world, &scene);
    let breaks = world.violations().first().map(|violation| violation.name.to_owned());
    let head = Head { seed, table, commit: String::new(), breaks, scene };
    (world, EventLog { notes: Vec::new(), head, events })
}

/// Tells a log again, to its end.
#[must_use]
pub fn retold(log: &EventLog) -> World {
    let mut world = opened(&log.head.scene);
    for event in &log.events {
        world.apply(event);
    }
    end::told_to_the_end(&mut world, &log.head.scene);
    world
}
