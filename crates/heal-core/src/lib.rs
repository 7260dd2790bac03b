//! The healing machine: all of the product's decisions, none of its I/O.
//!
//! One [`ArrayMachine`] owns everything that is known and wanted of one array. It is fed events and
//! answers with effects; it opens nothing, calls nothing, and reads no clock: time is an argument.
//! The same machine runs in the daemon, in the simulator and in the tests, and whatever one of them
//! finds can be replayed in the others.
//!
//! ```text
//!      Event ──► handle(now, event) ──► Outbox { record, audit, effects }
//!                  │                       │
//!                  │   1. events are hints: the snapshot in `Looked` is the fact
//!                  │   2. facts become signals, one repair at a time        (view, signal)
//!                  │   3. the table says what a signal does                 (transitions)
//!                  │   4. maintenance: whatever is due and allowed is wanted (guards)
//!                  ▼                       ▼
//!            next_deadline()        the shell makes the record durable, writes the audit,
//!                                   then acts, and feeds what came of it back as events
//! ```
//!
//! **Why this shape.** A healer that acts from inside its event handlers can only be tested against
//! the machine it may destroy. Here every decision is a value that a test compares.
//!
//! **The price.** A step that takes three actions is written as three effects and three answers,
//! and the machine has to be ready for anything in between. That is also the truth about the host.
#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod arming;
pub mod audit;
pub mod budget;
pub mod cuts;
mod effect;
mod event;
mod flaps;
pub mod guards;
mod ids;
mod machine;
pub mod paths;
pub mod phase;
mod policy;
pub mod record;
mod restart;
mod signal;
mod telling;
pub mod transitions;
mod view;
pub mod why;

pub use effect::{Effect, Outbox};
pub use event::{Event, Look, LookCause, Operator, PathNews};
pub use flaps::Count;
pub use ids::{EffectId, IncidentId};
pub use machine::{ArrayMachine, Due};
pub use policy::{Flapping, IsolateAfter, Mode, Policy};
pub use signal::{Signal, SignalKind};
pub use telling::Telling;
