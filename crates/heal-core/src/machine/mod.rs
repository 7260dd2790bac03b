//! stub
use crate::phase::QuarantinedWhy;
use crate::record::ArrayRecord;
use crate::*;
use heal_types::status::*;
use heal_types::*;
use std::collections::BTreeSet;

/// Why the machine wants to be woken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Due {
    /// A step.
    Step,
}

/// One array.
#[derive(Debug, Clone)]
pub struct ArrayMachine {
    id: ArrayId,
}

impl ArrayMachine {
    /// A machine for an array about which nothing is known yet.
    pub fn new(id: ArrayId, _boot: BootId, _policy: Policy) -> Self {
        Self { id }
    }
    /// Takes up what an earlier life left.
    pub fn recover(
        record: ArrayRecord,
        _boot: BootId,
        _policy: Policy,
        _now: Now,
    ) -> (Self, Outbox) {
        (Self { id: record.array }, Outbox::default())
    }
    /// A machine whose record cannot be read: it does nothing until a person has looked.
    pub fn quarantined(
        id: ArrayId,
        _boot: BootId,
        _policy: Policy,
        _why: QuarantinedWhy,
        _now: Now,
    ) -> (Self, Outbox) {
        (Self { id }, Outbox::default())
    }
    /// Something happened.
    pub fn handle(&mut self, _now: Now, _event: Event) -> Outbox {
        Outbox::default()
    }
    /// When to send [`Event::Tick`] at the latest, and what for.
    pub fn next_deadline(&self) -> Option<(Moment, Due)> {
        None
    }
    /// Which array.
    pub fn id(&self) -> ArrayId {
        self.id
    }
    /// The open incident.
    pub fn incident(&self) -> Option<IncidentId> {
        None
    }
    /// Device numbers of legs that udev's stock rules must leave alone.
    pub fn managed_devices(&self) -> BTreeSet<DevT> {
        BTreeSet::new()
    }
    /// Whether the array is gone and nothing is owed: the machine and its record may be dropped.
    pub fn is_finished(&self) -> bool {
        false
    }
    /// What `nvme-heal status` shows.
    pub fn status(&self, _now: Now) -> ArrayStatus {
        unreachable!()
    }
    /// What `nvme-heal explain` shows; the trail is the shell's to add.
    pub fn explain(&self, _now: Now) -> Explanation {
        unreachable!()
    }
}
