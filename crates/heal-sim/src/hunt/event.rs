//! The second vocabulary: what was really done to a world, in a form that can be kept for years.
//!
//! ```text
//!   Action (what the dice want) ──► WorldEvent (what is done) ──► World::apply ──► Applied
//!                                        │                                     ├─ Done
//!                                        └──► a line of a log                  └─ Nothing(why)
//! ```
//!
//! An event is concrete: it names replicas, links, durations and faults, and takes nothing from
//! dice. So a log of events tells the same story on every machine, and any part of a log is a story
//! too: an event that does not apply any more, because the event before it was dropped, does
//! nothing and says so. That is what lets a failing story be made short.
//!
//! The price: an event names things as they were called when it was recorded. Renaming a variant
//! needs an eye on the logs under `tests/regressions`.

use std::time::Duration;

use heal_types::ReplicaState;
use serde::{Deserialize, Serialize};

use crate::kernel::ToolFault;
use crate::world::feed::FeedFault;
use crate::world::ledger::WriteFault;
use crate::world::setup::Flaw;

/// Something that is done to a world. Replicas, arrays and links go by name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum WorldEvent {
    /// Time passes, milliseconds.
    Pass(u64),
    /// What becomes of cables, targets and connections.
    Fabric(FabricEvent),
    /// What other hands, or the medium, do to an array.
    Md(MdEvent),
    /// What becomes of what the daemon hears and sees.
    Feed(FeedEvent),
    /// What becomes of its tools, itself and the clock.
    Daemon(DaemonEvent),
    /// What becomes of the ledger.
    Ledger(LedgerEvent),
    /// What kind of day the provisioner has.
    Mood(MoodEvent),
    /// What the provisioner wants of a volume.
    Volume(VolumeEvent),
    /// What a person says.
    Person(PersonEvent),
}

/// What becomes of cables, targets and connections.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum FabricEvent {
    /// The target stops exporting the replica's namespace, or does again.
    Exported {
        /// Whose.
        replica: String,
        /// Whether it does.
        on: bool,
    },
    /// Every cable to the replica is out, or in.
    Reachable {
        /// Whose.
        replica: String,
        /// Whether they are in.
        on: bool,
    },
    /// One cable of the host is in, or out.
    Cable {
        /// The link.
        link: String,
        /// Whether it is in.
        on: bool,
    },
    /// All cables of the host are in, or out.
    HostLink {
        /// Whether they are in.
        on: bool,
    },
    /// What leaves through the link arrives, or vanishes.
    BlackHole {
        /// The link.
        link: String,
        /// Whether it vanishes.
        on: bool,
    },
    /// The target stands still while its TCP lives.
    Frozen {
        /// Whose target.
        replica: String,
        /// Whether it does.
        on: bool,
    },
    /// The target lets I/O through (ANA).
    AnaUsable {
        /// To which replica.
        replica: String,
        /// Whether it does.
        on: bool,
    },
    /// The target's process lives: when it dies, connections are reset.
    Serving {
        /// Whose target.
        replica: String,
        /// Whether it lives.
        on: bool,
    },
    /// The target's machine dies.
    TargetGone(String),
    /// Another tool (`os-brick`, a person) disconnects the replica.
    Detached(String),
    /// Another tool connects the replica.
    Attached(String),
    /// Something is wrong with a replica that nobody has used yet.
    Flawed {
        /// Which.
        replica: String,
        /// What.
        flaw: Flaw,
    },
}

/// What other hands, or the medium, do to an array.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum MdEvent {
    /// A write to the replica's leg fails once.
    Hiccup(String),
    /// A block of the replica cannot be read any more.
    BadBlock {
        /// Which replica.
        replica: String,
        /// Whether writing to it does not help either.
        stubborn: bool,
    },
    /// Another hand fails the replica's leg.
    FailedByHand(String),
    /// Another hand unbinds the replica's faulty leg.
    RemovedByHand(String),
    /// Another hand adds the replica to an array.
    AddedByHand {
        /// The array.
        array: String,
        /// The replica.
        replica: String,
    },
    /// Another tool freezes the array's sync thread, or lets it go on.
    SyncFrozen {
        /// The array.
        array: String,
        /// Whether it is frozen.
        on: bool,
    },
    /// Another tool makes the array read-only, or lets it be written again.
    ReadOnly {
        /// The array.
        array: String,
        /// Whether it is.
        on: bool,
    },
    /// The array is stopped.
    Stopped(String),
    /// The array is assembled again.
    Assembled(String),
    /// A boot starts the array from the replica's leg alone.
    StartedAlone {
        /// The array.
        array: String,
        /// The replica.
        replica: String,
    },
    /// Another hand connects the replica's target, and adds whatever that shows to an array.
    AddedFrom {
        /// The array.
        array: String,
        /// Whose target.
        replica: String,
    },
}

/// What becomes of what the daemon hears and sees.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum FeedEvent {
    /// Something becomes of the next signals of the kernel.
    Signals {
        /// What.
        fault: FeedFault,
        /// Of how many.
        count: u32,
    },
    /// So many signals that all are lost, for so many milliseconds; then the daemon is told.
    Overrun(u64),
    /// One look sees something wrongly.
    OneLook(Sight),
    /// Every look for so many milliseconds fails to read something.
    Unreadable {
        /// What: an array, a leg or holders. What looks wrong without failing is for one look only.
        sight: Sight,
        /// For how long.
        millis: u64,
    },
    /// The attributes of the replica's block device stay empty for so many milliseconds.
    FilledLater {
        /// Whose.
        replica: String,
        /// For how long.
        millis: u64,
    },
}

/// What becomes of its tools, itself and the clock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum DaemonEvent {
    /// The next act of that verb goes wrong.
    Tool {
        /// The verb.
        verb: String,
        /// How.
        fault: ToolFault,
    },
    /// The daemon is killed.
    Killed,
    /// The daemon is killed at the boundary of an effect, so many boundaries ahead.
    KilledAtBoundary(u32),
    /// From now on an act begins so many milliseconds after it was decided: the ledger's disk is
    /// slow.
    SlowActs(u64),
    /// The host boots again; its arrays are not assembled yet.
    Rebooted,
    /// The wall clock jumps by so many seconds.
    ClockJumps(i64),
}

/// What becomes of the ledger.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum LedgerEvent {
    /// Something happens within the next write of a record.
    Write(WriteFault),
    /// The disk of the ledger is full, or has room.
    DiskFull(bool),
    /// The record of the array cannot be read any more.
    RecordTorn(String),
    /// Somebody tidied the record of the array away, with the daemon not running.
    RecordLost(String),
}

/// What kind of day the provisioner has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum MoodEvent {
    /// The provisioner answers, or nobody does.
    ProvisionerUp(bool),
    /// Every answer takes so many milliseconds longer.
    ProvisionerSlow(u64),
    /// The provisioner refuses to give replacements.
    Refuses(bool),
    /// The next answer is lost.
    AnswerLost,
    /// So many requests are answered with "being made" first.
    Pending(u32),
    /// What it says of volumes contradicts itself.
    Nonsense(bool),
    /// What it says of volumes is what was so now, for a while.
    Stale(bool),
    /// It says something wrong of a replica, or the truth again.
    Lies(Option<(String, ReplicaState)>),
    /// It grants a replica that the volume has or had.
    GrantsAgain(Option<String>),
    /// It grants what is no replica of the volume.
    GrantsGarbage(Option<Garbage>),
    /// Nothing follows from a report that a replica is unusable.
    KeepsUnusable(bool),
}

/// What the provisioner wants of a volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum VolumeEvent {
    /// It wants the replica out.
    Terminating(String),
    /// It wants the replica after all.
    WantedAgain(String),
    /// It takes a replica that it offered back.
    Withdrawn(String),
    /// It puts another replica in the place of this one without being asked.
    ReplacedByItself(String),
    /// It wants so many copies.
    Copies {
        /// Of which array.
        array: String,
        /// How many.
        copies: u16,
    },
    /// It says that the volume of the array may have changed.
    VolumeStale(String),
}

/// What a person says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum PersonEvent {
    /// A person holds the array, for so many seconds or until they lift it.
    Hold {
        /// Which.
        array: String,
        /// For how long.
        seconds: Option<u64>,
    },
    /// A person resumes the array.
    Resume(String),
    /// A person changes the mode.
    Observe(bool),
}

/// What one look sees wrongly.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Sight {
    /// The array cannot be read.
    Array(String),
    /// The array looks half stopped.
    HalfStopped(String),
    /// Whether the device of the replica's leg is there cannot be read.
    Leg(String),
    /// The device of the replica's leg looks gone.
    LegGone(String),
    /// Who holds the replica's namespace cannot be read.
    Holders(String),
}

/// What a provisioner grants that is no replica of the volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Garbage {
    /// A target that is nowhere.
    Nowhere,
    /// A replica of this name, with the namespace of another one.
    NamespaceOf(String),
    /// A replica as it is, of whatever volume.
    Of(String),
}

/// What became of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Applied {
    /// It was done.
    Done,
    /// It does not apply, for this reason, and nothing was done.
    Nothing(&'static str),
}

impl WorldEvent {
    /// How much time it takes by itself.
    #[must_use]
    pub fn time(&self) -> Duration {
        if let Self::Pass(millis) = self { Duration::from_millis(*millis) } else { Duration::ZERO }
    }

    /// Whether an application may see an error after it: a disk went, or another hand was at it.
    #[must_use]
    pub fn may_fail_writes(&self) -> bool {
        match self {
            Self::Fabric(event) => match event {
                FabricEvent::Exported { .. }
                | FabricEvent::TargetGone(_)
                | FabricEvent::Serving { .. }
                | FabricEvent::Detached(_)
                | FabricEvent::Attached(_)
                | FabricEvent::Flawed { .. } => true,
                FabricEvent::Reachable { .. }
                | FabricEvent::Cable { .. }
                | FabricEvent::HostLink { .. }
                | FabricEvent::BlackHole { .. }
                | FabricEvent::Frozen { .. }
                | FabricEvent::AnaUsable { .. } => false,
            },
            Self::Md(_) => true,
            // A daemon that hears nothing cannot let the last leg queue.
            Self::Feed(event) => match event {
                FeedEvent::Signals { .. } | FeedEvent::Overrun(_) => true,
                FeedEvent::OneLook(_)
                | FeedEvent::Unreadable { .. }
                | FeedEvent::FilledLater { .. } => false,
            },
            Self::Daemon(event) => match event {
                DaemonEvent::Rebooted => true,
                DaemonEvent::Tool { .. }
                | DaemonEvent::Killed
                | DaemonEvent::KilledAtBoundary(_)
                | DaemonEvent::SlowActs(_)
                | DaemonEvent::ClockJumps(_) => false,
            },
            Self::Pass(_) | Self::Ledger(_) | Self::Mood(_) | Self::Volume(_) | Self::Person(_) => {
                false
            }
        }
    }
}
