//! The acts that take I/O away from a leg, with the proofs that the real host asks for.
//!
//! The order is the real one's: every survivor is told to queue, and shown to, before the leg is
//! touched. What the kernel then does by itself stands in [`super::controller`].

use std::collections::BTreeSet;

use heal_types::{
    ArrayId, ConnectParams, ControllerRef, ControllerState, FastIoFail, LegRef, Nqn, Outcome,
};

use super::controller::Controller;
use super::fabric::{guarded, refused_state};
use super::md::Rdev;
use super::tools::{Checked, not_that_device};
use super::{FakeKernel, changed_if};

impl FakeKernel {
    /// The controller that was meant.
    fn the_controller(&self, meant: &ControllerRef) -> Checked<usize> {
        let Some(at) = self.controllers.iter().position(|c| c.name == meant.name) else {
            return Err(not_that_device(format!("{} is gone", meant.name)));
        };
        let found = &self.controllers[at];
        if found.is(meant) {
            Ok(at)
        } else {
            Err(not_that_device(format!("{} leads to {}", meant.name, found.nqn)))
        }
    }

    pub(crate) fn set_fast_io_fail(
        &mut self,
        controller: &ControllerRef,
        value: FastIoFail,
    ) -> Checked<Outcome> {
        let at = self.the_controller(controller)?;
        if matches!(value, FastIoFail::After(_)) {
            self.others_queue(at)?;
        }
        let before = std::mem::replace(&mut self.controllers[at].fast_io_fail, value);
        Ok(changed_if(before != value))
    }

    /// On every leg that the controller carries, another leg in sync queues for ever.
    pub(crate) fn others_queue(&self, at: usize) -> Checked<()> {
        let target = self.controllers[at].leads.target;
        for md in self.arrays.iter().filter(|md| md.running) {
            let own = |handle: usize| {
                self.devices[handle].fabric.as_ref().is_some_and(|head| head.target == target)
            };
            for rdev in md.rdevs.iter().filter(|rdev| own(rdev.handle)) {
                let queues = md.rdevs.iter().any(|other| {
                    other.in_sync
                        && !other.faulty
                        && !own(other.handle)
                        && md.may_stand_in(other.slot, rdev.slot)
                        && self.shows_to_queue(other.handle)
                });
                if rdev.slot.is_some() && !queues {
                    return Err(guarded(format!("nothing queues beside {}", rdev.name)));
                }
            }
        }
        Ok(())
    }

    /// Whether I/O to the device waits, however long its paths are away: one path that never fails
    /// is enough (`nvme_available_path`).
    pub(crate) fn queues(&self, handle: usize) -> bool {
        let device = &self.devices[handle];
        let Some(head) = device.fabric.as_ref() else { return device.present };
        let own = |c: &&Controller| c.leads.target == head.target;
        device.present && self.controllers.iter().filter(own).any(|c| !c.would_fail())
    }

    /// Whether sysfs shows a path that carries I/O, and none that is set to fail: nobody can see
    /// from there what a path that is away was told when it went.
    fn shows_to_queue(&self, handle: usize) -> bool {
        let device = &self.devices[handle];
        let Some(head) = device.fabric.as_ref() else { return device.present };
        let own = |c: &&Controller| c.leads.target == head.target;
        let paths = || self.controllers.iter().filter(own);
        device.present
            && paths().all(|c| c.fast_io_fail == FastIoFail::Off)
            && paths().any(|c| c.state == ControllerState::Live)
    }

    /// Legs whose error could be the last one's of its mirror set: in sync, armed, and nobody
    /// queues beside them. Legs that were isolated, or lost their connection while another one
    /// queued, count if `isolated`: right after the act they must have a partner that queues, and
    /// what becomes of that one later is another matter.
    #[must_use]
    pub fn exposed(&self, isolated: bool) -> Vec<(ArrayId, String)> {
        let mut exposed = Vec::new();
        for md in self.arrays.iter().filter(|md| md.running && !md.broken) {
            let good = |r: &&Rdev| r.in_sync && !r.faulty && r.slot.is_some();
            let armed = |r: &&Rdev| self.is_armed(r.handle, isolated);
            let held = md.rdevs.iter().filter(good).filter(armed).filter(|r| {
                !md.rdevs
                    .iter()
                    .filter(good)
                    .any(|o| md.may_stand_in(o.slot, r.slot) && self.queues(o.handle))
            });
            exposed.extend(held.map(|rdev| (md.id, rdev.name.to_string())));
        }
        exposed
    }

    /// The controllers that are armed, and behind which no running array has a leg.
    pub(crate) fn armed_without_a_leg(&self) -> impl Iterator<Item = &Controller> {
        let bound = self.arrays.iter().filter(|md| md.running).flat_map(|md| &md.rdevs);
        let bound = bound.map(|rdev| &self.devices[rdev.handle]).filter(|device| device.present);
        let legs: BTreeSet<_> =
            bound.filter_map(|device| Some(device.fabric.as_ref()?.target)).collect();
        let armed = self.controllers.iter().filter(|c| c.fast_io_fail != FastIoFail::Off);
        armed.filter(move |controller| !legs.contains(&controller.leads.target))
    }

    /// Controllers that are not live: what their I/O does is settled, or will be in a moment.
    #[must_use]
    pub fn not_live(&self) -> BTreeSet<u64> {
        let away = self.controllers.iter().filter(|c| c.state != ControllerState::Live);
        away.map(|controller| controller.serial).collect()
    }

    /// Whether a leg in sync of the array rests on one of these controllers.
    #[must_use]
    pub fn rests_on(&self, array: ArrayId, serials: &BTreeSet<u64>) -> bool {
        let legs = self.arrays.iter().filter(|md| md.id == array).flat_map(|md| &md.rdevs);
        let good = legs.filter(|rdev| rdev.slot.is_some() && !rdev.faulty);
        let mut heads = good.filter_map(|rdev| self.devices[rdev.handle].fabric.as_ref());
        heads.any(|head| {
            let own = self.controllers.iter().filter(|c| c.leads.target == head.target);
            own.into_iter().any(|controller| serials.contains(&controller.serial))
        })
    }

    /// What connects now, behind a leg of an exposed array, does so behind the daemon's back: it
    /// could not have been made to queue in time.
    pub(crate) fn nobody_heard(&mut self, exposed: &[(ArrayId, String)]) {
        let of = |md: &&super::md::MdArray| exposed.iter().any(|(id, _)| *id == md.id);
        let rdevs = self.arrays.iter().filter(of).flat_map(|md| &md.rdevs);
        let targets: Vec<_> = rdevs
            .filter_map(|rdev| self.devices[rdev.handle].fabric.as_ref())
            .map(|head| head.target)
            .collect();
        for controller in &mut self.controllers {
            let connecting = controller.state == ControllerState::Connecting;
            controller.covered |= connecting && targets.contains(&controller.leads.target);
        }
    }

    /// Whether a loss of its paths would make I/O to the device fail soon.
    fn is_armed(&self, handle: usize, isolated: bool) -> bool {
        let device = &self.devices[handle];
        device.present
            && device.fabric.as_ref().is_some_and(|head| {
                let own = |c: &&Controller| c.leads.target == head.target;
                let mut paths = self.controllers.iter().filter(own);
                paths.any(|c| c.would_fail() && (isolated || !(c.isolated || c.covered)))
            })
    }

    pub(crate) fn isolate_leg(
        &mut self,
        array: ArrayId,
        leg: &LegRef,
        paths: &[ControllerRef],
        survivors: &[ControllerRef],
    ) -> Checked<Outcome> {
        let array = self.the_array(array)?;
        let Some(index) = self.the_leg(array, leg)? else {
            return Ok(Outcome::AlreadySo);
        };
        let own =
            paths.iter().map(|path| self.the_controller(path)).collect::<Checked<Vec<_>>>()?;
        self.survivors_queue(array, index, survivors)?;
        for at in &own {
            self.controllers[*at].fast_io_fail = FastIoFail::After(0);
            self.controllers[*at].isolated = true;
        }
        let mut destroyed = false;
        for path in paths {
            let at = self.the_controller(path)?;
            destroyed |= self.destroy_sockets(at);
        }
        Ok(changed_if(destroyed))
    }

    /// Every leg behind the controller has another path that is live, or is being filled.
    pub(crate) fn cut_path(
        &mut self,
        array: ArrayId,
        controller: &ControllerRef,
    ) -> Checked<Outcome> {
        self.the_array(array)?;
        let at = self.the_controller(controller)?;
        if self.controllers[at].state != ControllerState::Live {
            return Ok(Outcome::AlreadySo);
        }
        let beside = |c: &&Controller| c.nqn == controller.nqn && c.name != controller.name;
        let mut others = self.controllers.iter().filter(beside);
        let another = others.any(|other| other.state == ControllerState::Live);
        if !another && !self.is_filled(&controller.nqn) {
            return Err(guarded(format!("nothing else leads to {}", controller.nqn)));
        }
        Ok(changed_if(self.destroy_sockets(at)))
    }

    /// Whether what stands behind the subsystem is no copy of anything yet.
    fn is_filled(&self, nqn: &Nqn) -> bool {
        let of_it = |handle: usize| {
            self.devices[handle].fabric.as_ref().is_some_and(|head| head.nqn == *nqn)
        };
        let rdevs = self.arrays.iter().filter(|md| md.running).flat_map(|md| &md.rdevs);
        let mut legs = rdevs.filter(|rdev| of_it(rdev.handle)).peekable();
        legs.peek().is_some() && legs.all(|rdev| !rdev.in_sync && rdev.slot.is_some())
    }

    /// Every survivor is told to queue, and afterwards one at least still works.
    fn survivors_queue(
        &mut self,
        array: usize,
        index: usize,
        survivors: &[ControllerRef],
    ) -> Checked<()> {
        for survivor in survivors {
            let at = self.the_controller(survivor)?;
            self.controllers[at].fast_io_fail = FastIoFail::Off;
        }
        let md = &self.arrays[array];
        let slot = md.rdevs[index].slot;
        let works = md.rdevs.iter().enumerate().any(|(i, other)| {
            i != index
                && other.in_sync
                && !other.faulty
                && md.may_stand_in(other.slot, slot)
                && self.shows_to_queue(other.handle)
        });
        if works { Ok(()) } else { Err(guarded("no other leg queues and is live".to_owned())) }
    }

    pub(crate) fn give_up_controller(
        &mut self,
        array: ArrayId,
        leg: &LegRef,
        controller: &ControllerRef,
        survivors: &[ControllerRef],
    ) -> Checked<Outcome> {
        let array = self.the_array(array)?;
        if self.controllers.iter().all(|c| c.name != controller.name) {
            return Ok(Outcome::AlreadySo);
        }
        let at = self.the_controller(controller)?;
        if self.controllers[at].state != ControllerState::Connecting {
            return Err(refused_state(format!("{} is not connecting", controller.name)));
        }
        let Some(index) = self.the_leg(array, leg)? else {
            return Err(refused_state(format!("{} is no leg of it", leg.device)));
        };
        self.survivors_queue(array, index, survivors)?;
        let at = self.the_controller(controller)?;
        Ok(self.delete_controller(at))
    }

    pub(crate) fn reconnect(&mut self, params: &ConnectParams) -> Outcome {
        self.connect_again(params)
    }
}
