//! How the kernel's signals reach the daemon when the way is bad: not at all, late, twice, in the
//! wrong order, or so many that the kernel gives up (`ENOBUFS`).
//!
//! ```text
//!   signal ──► lose? ──► overrun? ──► double? ──► late, or the later the earlier ──► the daemon
//!                            └─ when it ends: one look at everything, and the network anew
//! ```
//!
//! A lost signal that nobody speaks of is what the safety scan is for, so scenes that lose signals
//! have it on.

use std::time::Duration;

use heal_types::Moment;
use serde::{Deserialize, Serialize};

/// How far apart signals in the wrong order come.
const APART: Duration = Duration::from_millis(20);

/// What becomes of the next signals.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum FeedFault {
    /// They are lost, and nobody says so.
    Lost,
    /// They come so much later, milliseconds.
    Late(u32),
    /// Each comes twice.
    Doubled,
    /// The last one comes first.
    Reversed,
}

/// The way.
#[derive(Debug, Clone, Default)]
pub(crate) struct Feed {
    /// What becomes of how many signals.
    fault: Option<(FeedFault, u32)>,
    /// Every signal up to this moment is lost, and then the daemon is told so.
    overrun: Option<Moment>,
    /// Something was lost or is late, and no look has been taken since.
    deaf: bool,
}

/// What becomes of one signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Heard {
    pub(crate) times: u32,
    pub(crate) after: Duration,
}

impl Feed {
    pub(crate) fn disturb(&mut self, fault: FeedFault, count: u32) {
        self.fault = Some((fault, count));
    }

    pub(crate) fn overrun_until(&mut self, end: Moment) {
        self.overrun = Some(end);
        self.deaf = true;
    }

    /// The way is good again.
    pub(crate) fn mend(&mut self) {
        self.fault = None;
        self.overrun = None;
    }

    /// A new life opens a socket of its own, with room in it.
    pub(crate) fn opened(&mut self) {
        self.overrun = None;
    }

    pub(crate) fn hear(&mut self, now: Moment) -> Heard {
        let once = Heard { times: 1, after: Duration::ZERO };
        if self.overrun.is_some_and(|end| now < end) {
            self.deaf = true;
            return Heard { times: 0, ..once };
        }
        let Some((fault, left)) = self.fault.take().filter(|(_, left)| *left > 0) else {
            return once;
        };
        self.fault = Some((fault, left - 1));
        match fault {
            FeedFault::Lost => {
                self.deaf = true;
                Heard { times: 0, ..once }
            }
            FeedFault::Late(millis) => {
                self.deaf = true;
                Heard { after: Duration::from_millis(millis.into()), ..once }
            }
            FeedFault::Doubled => Heard { times: 2, ..once },
            FeedFault::Reversed => {
                self.deaf = true;
                Heard { after: APART.saturating_mul(left - 1), ..once }
            }
        }
    }

    /// A look at everything was taken.
    pub(crate) fn looked(&mut self, now: Moment) {
        self.deaf = self.overrun.is_some_and(|end| now < end);
    }

    /// Whether the daemon cannot know yet what it should.
    pub(crate) fn is_deaf(&self) -> bool {
        self.deaf
    }
}
