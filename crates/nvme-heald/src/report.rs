//! What actors tell the reactor.

use std::collections::BTreeSet;
use std::time::Duration;

use heal_core::arming::LostLeg;
use heal_types::status::Health;
use heal_types::{ArrayId, DevT};

/// One array's word.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) array: ArrayId,
    pub(crate) said: Said,
}

/// What it said.
#[derive(Debug)]
pub(crate) enum Said {
    /// How it is; sent when that changed.
    Brief(Brief),
    /// An incident was opened.
    IncidentOpened,
    /// It asks for leave to replace a leg.
    AskPermit,
    /// It needs no leave any more.
    ReturnPermit,
    /// Something was not filled in yet.
    LookAgain,
    /// An act of ours ended.
    Acted,
    /// Its actor is gone, because there is nothing left to do.
    Finished,
}

/// What the reactor knows of an array without asking.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Brief {
    pub(crate) health: Health,
    /// Rebuild progress, while there is a rebuild.
    pub(crate) percent: Option<u8>,
    /// Legs that udev's stock rules must leave alone.
    pub(crate) managed: BTreeSet<DevT>,
    /// The legs it lost, if it is ours to act on, held or not.
    pub(crate) lost_of_ours: Option<Vec<LostLeg>>,
    /// After how long I/O is freed from a dead leg, if its controllers are to be armed.
    pub(crate) isolates_after: Option<Duration>,
}
