//! The first vocabulary: what the dice may want, and how often.
//!
//! An action is abstract: "strike where it hurts", "another healer is at it". `action.rs` looks at
//! the world and makes concrete events of it. A table says which actions a story is made of;
//! several narrow tables find more than one broad one, because a bug needs its few faults close
//! together.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// What a story is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Table {
    /// Devices, paths, tools, the daemon and the provisioner.
    Faults,
    /// The same, and looks that see wrongly, other people's hands, and reboots.
    Hands,
    /// Cables, black holes, frozen targets and ANA, on every kind of wiring; no namespace ever
    /// goes, so the application must never see an error.
    Paths,
    /// The ledger's disk, crashes within a write, clocks.
    Ledger,
    /// A provisioner that is slow, lies, grants twice and changes its mind.
    Provisioner,
    /// The kernel's signals lost, late, doubled, reordered.
    Signals,
    /// Many arrays, few leaves to replace.
    Crowd,
    /// Everything there is.
    Everything,
}

impl Table {
    /// Every table.
    pub const ALL: [Self; 8] = [
        Self::Faults,
        Self::Hands,
        Self::Paths,
        Self::Ledger,
        Self::Provisioner,
        Self::Signals,
        Self::Crowd,
        Self::Everything,
    ];

    /// Whether signals may be lost for good, so that only a slow scan finds what they told of.
    #[must_use]
    pub fn loses_signals(self) -> bool {
        match self {
            Self::Signals | Self::Everything => true,
            Self::Faults
            | Self::Hands
            | Self::Paths
            | Self::Ledger
            | Self::Provisioner
            | Self::Crowd => false,
        }
    }

    /// The longest pause between two actions, seconds.
    #[must_use]
    pub fn longest_pause(self) -> u64 {
        match self {
            // The kernel gives a controller up after ten minutes: that is another story.
            Self::Paths => 40,
            Self::Faults
            | Self::Hands
            | Self::Ledger
            | Self::Provisioner
            | Self::Signals
            | Self::Crowd
            | Self::Everything => 90,
        }
    }

    /// What it is made of.
    #[must_use]
    pub fn weights(self) -> &'static [(Action, u32)] {
        match self {
            Self::Faults => FAULTS,
            Self::Hands => HANDS,
            Self::Paths => PATHS,
            Self::Ledger => LEDGER,
            Self::Provisioner => PROVISIONER,
            Self::Signals => SIGNALS,
            Self::Crowd => CROWD,
            Self::Everything => EVERYTHING,
        }
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

impl FromStr for Table {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let named = |table: &Self| table.to_string().eq_ignore_ascii_case(text);
        Self::ALL.into_iter().find(named).ok_or_else(|| format!("no table is called {text}"))
    }
}

/// What the dice want.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "each is what its name says; action.rs makes events of it")]
pub enum Action {
    NamespaceGoes,
    NamespaceReturns,
    CablesGo,
    CablesReturn,
    OneCable,
    BlackHole,
    FrozenTarget,
    Ana,
    TargetDies,
    HostLink,
    Strike,
    OsBrick,
    SecondHealer,
    Hand,
    Medium,
    ArrayState,
    StopAndAssemble,
    Signals,
    Overrun,
    BlurredLook,
    Unreadable,
    SlowActs,
    FilledLater,
    Swap,
    Ambush,
    BehindItsBack,
    Clone,
    StaleStart,
    ToolFails,
    Killed,
    KilledSoon,
    Reboot,
    ClockJumps,
    LedgerWrite,
    DiskFull,
    RecordTorn,
    RecordLost,
    Mood(MoodWish),
    Volume(VolumeWish),
    Hold,
    Resume,
    Observe,
    Flaw,
}

/// What kind of day the provisioner shall have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "each is what its name says")]
pub enum MoodWish {
    ProvisionerUpOrDown,
    ProvisionerSlow,
    Refuses,
    AnswerLost,
    Pending,
    Nonsense,
    Stale,
    Lies,
    GrantsAgain,
    Garbage,
    KeepsUnusable,
}

/// What the provisioner shall want.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "each is what its name says")]
pub enum VolumeWish {
    Terminating,
    WantedAgain,
    Withdrawn,
    ReplacedByItself,
    Copies,
    VolumeStale,
}

use Action as A;
use MoodWish as M;
use VolumeWish as V;

const FAULTS: &[(Action, u32)] = &[
    (A::NamespaceGoes, 6),
    (A::NamespaceReturns, 4),
    (A::CablesGo, 3),
    (A::CablesReturn, 3),
    (A::OneCable, 2),
    (A::BlackHole, 2),
    (A::FrozenTarget, 1),
    (A::Ana, 1),
    (A::TargetDies, 1),
    (A::Strike, 4),
    (A::Medium, 2),
    (A::ToolFails, 3),
    (A::Killed, 2),
    (A::KilledSoon, 3),
    (A::Mood(M::ProvisionerUpOrDown), 2),
    (A::Mood(M::Refuses), 2),
    (A::Mood(M::AnswerLost), 2),
    (A::Hold, 1),
    (A::Resume, 1),
    (A::Flaw, 1),
    (A::Swap, 2),
    (A::Ambush, 5),
];

const HANDS: &[(Action, u32)] = &[
    (A::NamespaceGoes, 4),
    (A::NamespaceReturns, 3),
    (A::CablesGo, 2),
    (A::CablesReturn, 2),
    (A::Strike, 2),
    (A::BlurredLook, 6),
    (A::FilledLater, 2),
    (A::Hand, 4),
    (A::SecondHealer, 2),
    (A::OsBrick, 2),
    (A::Medium, 2),
    (A::ArrayState, 2),
    (A::StopAndAssemble, 1),
    (A::Reboot, 2),
    (A::ToolFails, 2),
    (A::KilledSoon, 2),
    (A::Volume(V::Terminating), 2),
    (A::Volume(V::Copies), 1),
    (A::Observe, 1),
    (A::Hold, 1),
    (A::Resume, 1),
    (A::Unreadable, 2),
    (A::Ambush, 6),
    (A::BehindItsBack, 3),
    (A::Clone, 1),
    (A::StaleStart, 1),
];

const PATHS: &[(Action, u32)] = &[
    (A::OneCable, 8),
    (A::CablesGo, 2),
    (A::CablesReturn, 2),
    (A::BlackHole, 3),
    (A::FrozenTarget, 2),
    (A::Ana, 2),
    (A::HostLink, 1),
    (A::Killed, 1),
    (A::KilledSoon, 2),
    (A::ToolFails, 2),
    (A::BlurredLook, 1),
    (A::Hold, 1),
    (A::Resume, 1),
    (A::Mood(M::ProvisionerUpOrDown), 1),
    (A::Volume(V::Terminating), 1),
    (A::Ambush, 2),
];

const LEDGER: &[(Action, u32)] = &[
    (A::NamespaceGoes, 5),
    (A::NamespaceReturns, 3),
    (A::CablesGo, 2),
    (A::CablesReturn, 2),
    (A::Strike, 2),
    (A::LedgerWrite, 6),
    (A::DiskFull, 4),
    (A::RecordTorn, 1),
    (A::RecordLost, 1),
    (A::Killed, 3),
    (A::KilledSoon, 6),
    (A::Reboot, 1),
    (A::ClockJumps, 3),
    (A::Mood(M::AnswerLost), 2),
    (A::Mood(M::ProvisionerUpOrDown), 1),
    (A::ToolFails, 1),
    (A::Hold, 1),
    (A::Resume, 2),
    (A::Volume(V::Terminating), 1),
    (A::SlowActs, 3),
    (A::Ambush, 3),
    (A::StaleStart, 1),
];

const PROVISIONER: &[(Action, u32)] = &[
    (A::NamespaceGoes, 5),
    (A::NamespaceReturns, 3),
    (A::Strike, 3),
    (A::Mood(M::ProvisionerUpOrDown), 2),
    (A::Mood(M::ProvisionerSlow), 2),
    (A::Mood(M::Refuses), 2),
    (A::Mood(M::AnswerLost), 2),
    (A::Mood(M::Pending), 2),
    (A::Mood(M::Nonsense), 1),
    (A::Mood(M::Stale), 2),
    (A::Mood(M::Lies), 2),
    (A::Mood(M::GrantsAgain), 2),
    (A::Mood(M::Garbage), 2),
    (A::Mood(M::KeepsUnusable), 1),
    (A::Volume(V::Terminating), 3),
    (A::Volume(V::WantedAgain), 2),
    (A::Volume(V::Withdrawn), 2),
    (A::Volume(V::ReplacedByItself), 2),
    (A::Volume(V::Copies), 2),
    (A::Volume(V::VolumeStale), 2),
    (A::Flaw, 2),
    (A::KilledSoon, 2),
    (A::Hold, 1),
    (A::Resume, 1),
    (A::Ambush, 6),
];

const SIGNALS: &[(Action, u32)] = &[
    (A::NamespaceGoes, 4),
    (A::NamespaceReturns, 3),
    (A::CablesGo, 3),
    (A::CablesReturn, 3),
    (A::BlackHole, 1),
    (A::TargetDies, 1),
    (A::Strike, 3),
    (A::Signals, 8),
    (A::Overrun, 3),
    (A::FilledLater, 1),
    (A::BlurredLook, 1),
    (A::Killed, 1),
    (A::KilledSoon, 1),
    (A::Medium, 1),
    (A::Unreadable, 1),
    (A::BehindItsBack, 4),
    (A::Ambush, 3),
];

const CROWD: &[(Action, u32)] = &[
    (A::NamespaceGoes, 6),
    (A::NamespaceReturns, 3),
    (A::CablesGo, 3),
    (A::CablesReturn, 2),
    (A::Strike, 3),
    (A::ToolFails, 2),
    (A::Hold, 2),
    (A::Resume, 1),
    (A::RecordTorn, 1),
    (A::Killed, 1),
    (A::KilledSoon, 2),
    (A::Mood(M::Refuses), 1),
    (A::Mood(M::Pending), 1),
    (A::Flaw, 2),
    (A::Mood(M::ProvisionerUpOrDown), 1),
    (A::ArrayState, 1),
    (A::FrozenTarget, 1),
    (A::Ambush, 2),
];

const EVERYTHING: &[(Action, u32)] = &[
    (A::NamespaceGoes, 6),
    (A::NamespaceReturns, 4),
    (A::CablesGo, 3),
    (A::CablesReturn, 3),
    (A::OneCable, 3),
    (A::BlackHole, 2),
    (A::FrozenTarget, 1),
    (A::Ana, 1),
    (A::TargetDies, 1),
    (A::HostLink, 1),
    (A::Strike, 4),
    (A::OsBrick, 1),
    (A::SecondHealer, 1),
    (A::Hand, 2),
    (A::Medium, 2),
    (A::ArrayState, 1),
    (A::StopAndAssemble, 1),
    (A::Signals, 2),
    (A::Overrun, 1),
    (A::BlurredLook, 2),
    (A::FilledLater, 1),
    (A::ToolFails, 2),
    (A::Killed, 1),
    (A::KilledSoon, 2),
    (A::Reboot, 1),
    (A::ClockJumps, 1),
    (A::LedgerWrite, 2),
    (A::DiskFull, 1),
    (A::RecordTorn, 1),
    (A::RecordLost, 1),
    (A::Mood(M::ProvisionerUpOrDown), 1),
    (A::Mood(M::ProvisionerSlow), 1),
    (A::Mood(M::Refuses), 1),
    (A::Mood(M::AnswerLost), 1),
    (A::Mood(M::Pending), 1),
    (A::Mood(M::Nonsense), 1),
    (A::Mood(M::Stale), 1),
    (A::Mood(M::Lies), 1),
    (A::Mood(M::GrantsAgain), 1),
    (A::Mood(M::Garbage), 1),
    (A::Mood(M::KeepsUnusable), 1),
    (A::Volume(V::Terminating), 2),
    (A::Volume(V::WantedAgain), 1),
    (A::Volume(V::Withdrawn), 1),
    (A::Volume(V::ReplacedByItself), 1),
    (A::Volume(V::Copies), 1),
    (A::Volume(V::VolumeStale), 1),
    (A::Hold, 1),
    (A::Resume, 1),
    (A::Observe, 1),
    (A::Flaw, 1),
    (A::Unreadable, 1),
    (A::SlowActs, 1),
    (A::Swap, 1),
    (A::Ambush, 4),
    (A::BehindItsBack, 2),
    (A::Clone, 1),
    (A::StaleStart, 1),
];
