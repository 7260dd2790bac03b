//! The phases of one leg's repair: each holds exactly the work still to do.
//!
//! ```text
//!  Suspect ─► Isolating ─► Reporting ─► Grace ─┬─► Returning ──────────────────────────┐
//!                                              ├─► Requesting ─┐                       ▼
//!                                              └───────────────┴─► Connecting ─► Verifying ─► Adding ─► Rebuilding ─► Retiring ─► whole
//!     Held and Quarantined can be entered from every phase; a Held repair remembers its next step.
//! ```
//!
//! The drawing is the happy part; every edge there is stands in `transitions.rs` and in the golden
//! matrix.

use std::fmt;

use serde::{Deserialize, Serialize};

use heal_types::{
    CallKey, Deadline, DeviceIdentity, DeviceName, HostAction, Moment, Replica, ReplicaId, Slot,
    SyncProgress, WallTime,
};

use crate::ids::EffectId;
use crate::record::{Member, Step};
use crate::why::{Cause, DoubtWhy, HeldWhy, QuarantinedWhy, RejectedWhy};

/// One slot in trouble.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repair {
    /// The slot.
    pub slot: Slot,
    /// What began it.
    pub cause: Cause,
    /// When it began, wall clock.
    pub began: WallTime,
    /// Who was lost, or has to go.
    pub lost: Option<Member>,
    /// The replica that takes the place.
    pub incoming: Option<Replica>,
    /// Replacements that failed on the way and have to be retired as well.
    pub also_retire: Vec<Member>,
    /// Another slot's loss that this repair asks to have replaced instead of its own, because what
    /// was granted for its own fills that slot.
    pub asks_for: Option<Member>,
    /// Until when the lost replica may come back before another one is asked for; `None` before the
    /// loss is a fact, and for ever where the policy says never.
    pub grace: Option<Deadline>,
    /// No earlier than this the lost replica may be taken back.
    pub return_after: Option<Deadline>,
    /// The key of a request that was not answered: the next request is the same one.
    pub request: Option<CallKey>,
    /// Replicas that were offered for this slot and must not be used, and why.
    pub rejected: Vec<(ReplicaId, RejectedWhy)>,
    /// The name that the incoming replica is bound under, once MD fills it.
    pub bound: Option<DeviceName>,
    /// A device that was refused as the returning leg: not tried again under that identity.
    pub not_again: Option<DeviceIdentity>,
    /// When the present phase was entered, wall clock.
    pub since: WallTime,
    /// The phase.
    pub phase: Phase,
}

impl Repair {
    /// The replica that another one is asked for in place of.
    #[must_use]
    pub fn asks_to_replace(&self) -> Option<&ReplicaId> {
        self.asks_for.as_ref().or(self.lost.as_ref())?.replica.as_ref()
    }
}

/// Where a repair stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Phase {
    /// The path is in doubt, but MD still counts the leg in sync.
    Suspect {
        /// What raises the doubt.
        why: DoubtWhy,
        /// When to act on it, if at all: a lost path is isolated, a device that is gone is failed.
        decide_at: Option<Moment>,
    },
    /// Freeing the application's I/O from the leg.
    Isolating {
        /// Since when.
        since: Moment,
        /// The step under way.
        turn: Turn,
    },
    /// The loss is being made durable and owed to the provisioner. Left as soon as the record is
    /// written: the telling itself goes on in parallel and never blocks.
    Reporting,
    /// Waiting for the provisioner to act by itself, or for the leg to come back.
    Grace,
    /// The same namespace is back: take it back by bitmap, in place of what of it is bound still.
    Returning {
        /// The device.
        device: DeviceIdentity,
        /// The step under way.
        turn: Turn,
    },
    /// Asking for a replacement.
    Requesting {
        /// The idempotency key, the same until it is answered.
        key: CallKey,
        /// The step under way.
        turn: Turn,
    },
    /// Connecting the incoming replica until its namespace is found by id.
    Connecting {
        /// Since when a controller of it is connected and the namespace still missing.
        connected_at: Option<Moment>,
        /// The step under way.
        turn: Turn,
    },
    /// Proving that the namespace is the promised one, fits and holds nothing foreign.
    Verifying {
        /// The device.
        device: DeviceIdentity,
        /// The step under way.
        turn: Turn,
    },
    /// Giving the verified device to MD.
    Adding {
        /// The device.
        device: DeviceIdentity,
        /// The step under way.
        turn: Turn,
    },
    /// MD recovers.
    Rebuilding {
        /// How far it is, while MD says so.
        progress: Option<SyncProgress>,
    },
    /// Putting away what is no longer a leg.
    Retiring {
        /// The step under way.
        turn: Turn,
    },
    /// Deliberately not acting.
    Held {
        /// Why.
        why: HeldWhy,
        /// What comes when the reason ends.
        then: Step,
        /// When to look at the reason again, where time alone can end it.
        until: Option<Moment>,
        /// The action that a guard stopped: the hold ends when the guards would let it through.
        wants: Option<Box<HostAction>>,
    },
    /// A contradiction.
    Quarantined {
        /// Which.
        why: QuarantinedWhy,
        /// What comes when a person has looked.
        then: Step,
    },
}

/// A phase's step: under way, or due.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Turn {
    /// How often it failed so far.
    pub failures: u32,
    /// Where it stands.
    pub state: TurnState,
}

/// Where a step stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TurnState {
    /// Due from this moment on.
    Due(Moment),
    /// Due at the next look, which shows what the last step led to; at this moment at the latest.
    NextLook(Moment),
    /// Under way; nothing else is begun for this repair before it has come back.
    UnderWay(EffectId),
}

impl Turn {
    /// The first try, due at once.
    #[must_use]
    pub fn now() -> Self {
        Self { failures: 0, state: TurnState::Due(Moment(0)) }
    }

    /// The first try, due at `moment`.
    #[must_use]
    pub fn at(moment: Moment) -> Self {
        Self { failures: 0, state: TurnState::Due(moment) }
    }
}

/// The kinds of phases, `Whole` for no repair at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[expect(missing_docs, reason = "each is the phase of that name")]
pub enum PhaseKind {
    Whole,
    Suspect,
    Isolating,
    Reporting,
    Grace,
    Returning,
    Requesting,
    Connecting,
    Verifying,
    Adding,
    Rebuilding,
    Retiring,
    Held,
    Quarantined,
}

impl PhaseKind {
    /// Every kind, from best to worst.
    pub const ALL: [Self; 14] = [
        Self::Whole,
        Self::Suspect,
        Self::Isolating,
        Self::Reporting,
        Self::Grace,
        Self::Returning,
        Self::Requesting,
        Self::Connecting,
        Self::Verifying,
        Self::Adding,
        Self::Rebuilding,
        Self::Retiring,
        Self::Held,
        Self::Quarantined,
    ];

    /// Whether a repair in this phase puts another replica in place: one at a time per array.
    #[must_use]
    pub fn is_replacing(self) -> bool {
        match self {
            Self::Requesting
            | Self::Connecting
            | Self::Verifying
            | Self::Adding
            | Self::Rebuilding => true,
            Self::Whole
            | Self::Suspect
            | Self::Isolating
            | Self::Reporting
            | Self::Grace
            | Self::Returning
            | Self::Retiring
            | Self::Held
            | Self::Quarantined => false,
        }
    }

    /// One word, for status, audit and the golden matrix.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Whole => "whole",
            Self::Suspect => "suspect",
            Self::Isolating => "isolating",
            Self::Reporting => "reporting",
            Self::Grace => "grace",
            Self::Returning => "returning",
            Self::Requesting => "requesting",
            Self::Connecting => "connecting",
            Self::Verifying => "verifying",
            Self::Adding => "adding",
            Self::Rebuilding => "rebuilding",
            Self::Retiring => "retiring",
            Self::Held => "held",
            Self::Quarantined => "quarantined",
        }
    }
}

impl fmt::Display for PhaseKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

impl Phase {
    /// Its kind.
    #[must_use]
    pub fn kind(&self) -> PhaseKind {
        match self {
            Self::Suspect { .. } => PhaseKind::Suspect,
            Self::Isolating { .. } => PhaseKind::Isolating,
            Self::Reporting => PhaseKind::Reporting,
            Self::Grace => PhaseKind::Grace,
            Self::Returning { .. } => PhaseKind::Returning,
            Self::Requesting { .. } => PhaseKind::Requesting,
            Self::Connecting { .. } => PhaseKind::Connecting,
            Self::Verifying { .. } => PhaseKind::Verifying,
            Self::Adding { .. } => PhaseKind::Adding,
            Self::Rebuilding { .. } => PhaseKind::Rebuilding,
            Self::Retiring { .. } => PhaseKind::Retiring,
            Self::Held { .. } => PhaseKind::Held,
            Self::Quarantined { .. } => PhaseKind::Quarantined,
        }
    }

    /// The step under way or due, in phases that have one.
    #[must_use]
    pub fn turn(&self) -> Option<&Turn> {
        match self {
            Self::Isolating { turn, .. }
            | Self::Returning { turn, .. }
            | Self::Requesting { turn, .. }
            | Self::Connecting { turn, .. }
            | Self::Verifying { turn, .. }
            | Self::Adding { turn, .. }
            | Self::Retiring { turn } => Some(turn),
            Self::Suspect { .. }
            | Self::Reporting
            | Self::Grace
            | Self::Rebuilding { .. }
            | Self::Held { .. }
            | Self::Quarantined { .. } => None,
        }
    }

    /// The same, to change it.
    pub fn turn_mut(&mut self) -> Option<&mut Turn> {
        match self {
            Self::Isolating { turn, .. }
            | Self::Returning { turn, .. }
            | Self::Requesting { turn, .. }
            | Self::Connecting { turn, .. }
            | Self::Verifying { turn, .. }
            | Self::Adding { turn, .. }
            | Self::Retiring { turn } => Some(turn),
            Self::Suspect { .. }
            | Self::Reporting
            | Self::Grace
            | Self::Rebuilding { .. }
            | Self::Held { .. }
            | Self::Quarantined { .. } => None,
        }
    }
}
