//! A controller as the plan expects one: it watches, leads or waits, writes before it acts, and
//! dies between any two of these.
//!
//! It is as careless as the plan allows: a command that left is carried out whenever it arrives,
//! even if its sender is dead, or no longer the leader, or the move has long gone on. What keeps
//! that from doing harm has to be in the plan and at the receiver.

use std::collections::BTreeSet;
use std::rc::Rc;

use heal_types::cluster::RelocationId;
use nvmeof_recoverer::plan::detect::{Detector, Findings};
use nvmeof_recoverer::plan::relocate::Command;
use nvmeof_recoverer::plan::view::ClusterView;

use crate::api::Objects;

/// One replica of the controller.
#[derive(Debug, Default)]
pub(crate) struct Controller {
    pub(crate) alive: bool,
    /// Which of its lives this is: an answer to an earlier one is lost.
    pub(crate) life: u64,
    pub(crate) starts_at: u64,
    /// It hangs until then, and does not know.
    pub(crate) hangs_until: u64,
    pub(crate) api_link: bool,
    pub(crate) mon_link: bool,
    pub(crate) target_link: bool,
    /// It dies at this boundary between two steps, if that comes.
    pub(crate) dies_in: Option<u64>,
    pub(crate) memory: Memory,
}

/// What a crash takes.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    pub(crate) leads_until: u64,
    pub(crate) detector: Detector,
    pub(crate) findings: Findings,
    pub(crate) view: Option<Rc<ClusterView>>,
    pub(crate) objects: Option<Rc<Objects>>,
    pub(crate) objects_at: u64,
    /// Each node's lease, and when we last saw it change.
    pub(crate) leases: Vec<(u64, u64)>,
    pub(crate) mons: Option<Mons>,
    pub(crate) busy: BTreeSet<RelocationId>,
    pub(crate) looks_at: u64,
}

/// The mons' word, as it was heard.
#[derive(Debug, Clone)]
pub(crate) struct Mons {
    pub(crate) at: u64,
    pub(crate) quorum: bool,
    pub(crate) up: Vec<bool>,
    pub(crate) noout: Vec<bool>,
    pub(crate) started_on: Vec<usize>,
}

/// A command under way.
#[derive(Debug, Clone)]
pub(crate) struct Sent {
    pub(crate) due: u64,
    pub(crate) by: usize,
    pub(crate) life: u64,
    pub(crate) command: Command,
}

impl Controller {
    pub(crate) fn new() -> Self {
        Self { alive: true, api_link: true, mon_link: true, target_link: true, ..Self::default() }
    }

    pub(crate) fn dies(&mut self, back_at: u64) {
        self.alive = false;
        self.starts_at = back_at;
        self.life += 1;
        self.memory = Memory::default();
        self.dies_in = None;
    }

    /// A boundary at which it may die; whether it does.
    pub(crate) fn boundary(&mut self, now: u64) -> bool {
        let Some(left) = self.dies_in else {
            return false;
        };
        self.dies_in = Some(left.saturating_sub(1));
        if left == 0 {
            self.dies(now + 3);
        }
        left == 0
    }
}
