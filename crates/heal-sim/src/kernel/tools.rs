//! `mdadm` and `nvme`, as far as the product uses them: one function an action.
//!
//! Whoever carries an action out checks again that the device at a name is the one that is meant;
//! that is part of the port's contract, so the fake does it too, and so is the question whether a
//! leg that is taken back is the one that left, and of one history with the array ([`History`]). It does *not* check what the real tools do
//! not check: `--add-spare` looks at the size and at nothing of the content.

use std::time::Duration;

use heal_types::{
    ArrayId, ConnectParams, Content, DeviceIdentity, History, HostAction, HostAnswer, LegRef,
    MdDeviceId, MdRole, MdSuperblock, Observed, Outcome, RefusedWhy, RetryWhy, UnknownWhy,
};

use serde::{Deserialize, Serialize};

use super::fabric::{Handle, refused_state};
use super::md::{Rdev, number_of};
use super::{FakeKernel, KernelSignal, changed_if};

/// How a tool goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToolFault {
    /// It fails and changes nothing.
    Fails,
    /// It hangs until its deadline and changes nothing.
    Hangs,
    /// It hangs until its deadline, but what it was to do is done.
    HangsAfterDoing,
    /// It does what it should, and nobody learns it.
    DoneUnheard,
    /// It cannot even be started.
    CannotStart,
}

impl ToolFault {
    pub(crate) fn happens_anyway(self) -> bool {
        match self {
            Self::Fails | Self::Hangs | Self::CannotStart => false,
            Self::HangsAfterDoing | Self::DoneUnheard => true,
        }
    }

    pub(crate) fn outcome(self) -> Outcome {
        match self {
            Self::Fails => Outcome::Retry {
                after: Duration::from_secs(1),
                why: RetryWhy::ToolFailed {
                    exit: Some(1),
                    detail: "the tool failed, as told".into(),
                },
            },
            Self::Hangs | Self::HangsAfterDoing => {
                Outcome::Retry { after: Duration::from_secs(1), why: RetryWhy::TimedOut }
            }
            Self::DoneUnheard => Outcome::Unknown(UnknownWhy::NoAnswer),
            Self::CannotStart => Outcome::Refused(RefusedWhy::NotPossibleHere {
                detail: "the tool cannot be started, as told".into(),
            }),
        }
    }
}

pub(super) type Checked<T> = Result<T, Outcome>;

pub(super) fn not_that_device(detail: impl Into<String>) -> Outcome {
    Outcome::Refused(RefusedWhy::NotThatDevice { detail: detail.into() })
}

fn newer_copy(detail: &str) -> Outcome {
    Outcome::Refused(RefusedWhy::NewerCopy { detail: detail.to_owned() })
}

fn either(result: Checked<Outcome>) -> HostAnswer {
    match result {
        Ok(outcome) | Err(outcome) => outcome.into(),
    }
}

impl FakeKernel {
    pub(crate) fn carry_out(&mut self, action: &HostAction) -> HostAnswer {
        match action {
            HostAction::Connect { target, options } => {
                let Some(portal) = target.portals.first() else {
                    return refused_state("it has no portal".to_owned()).into();
                };
                let plain = Self::plain_params(&target.nqn, portal, options.ctrl_loss);
                let params = ConnectParams {
                    io_queues: options.io_queues,
                    keep_alive: Some(options.keep_alive),
                    reconnect_delay: Some(options.reconnect_delay),
                    host_nqn: options.host_nqn.clone().unwrap_or_else(|| plain.host_nqn.clone()),
                    digests: options.digests,
                    ..plain
                };
                self.connect(target, &params).into()
            }
            HostAction::Examine { device } => self.examine(device),
            HostAction::FailLeg { array, leg, .. } => either(self.fail_leg(*array, leg)),
            HostAction::RemoveLeg { array, leg } => either(self.remove_leg(*array, leg)),
            HostAction::ReAddLeg { array, device, member, faulty } => {
                either(self.re_add_leg(*array, device, *member, faulty.as_ref()))
            }
            HostAction::AddLeg { array, device } => either(self.add_leg(*array, device)),
            HostAction::ReplaceLeg { array, from, to } => {
                either(self.replace_leg(*array, from, to))
            }
            HostAction::ClearWantReplacement { array, leg } => either(self.clear_want(*array, leg)),
            HostAction::SetRaidDisks { array, raid_disks } => {
                either(self.resize(*array, *raid_disks))
            }
            HostAction::SetFastIoFail { controller, value } => {
                either(self.set_fast_io_fail(controller, *value))
            }
            HostAction::IsolateLeg { array, leg, paths, survivors } => {
                either(self.isolate_leg(*array, leg, paths, survivors))
            }
            HostAction::CutPath { array, controller } => either(self.cut_path(*array, controller)),
            HostAction::DeleteController { array, leg, controller, survivors } => {
                either(self.give_up_controller(*array, leg, controller, survivors))
            }
            HostAction::Reconnect { params } => self.reconnect(params).into(),
            HostAction::Disconnect { nqn, controllers } => self.disconnect(nqn, controllers).into(),
        }
    }

    pub(super) fn the_array(&self, id: ArrayId) -> Checked<usize> {
        self.array_index(id).ok_or(Outcome::Refused(RefusedWhy::NotThatArray))
    }

    fn the_device(&self, meant: &DeviceIdentity) -> Checked<Handle> {
        let found = self.devices.iter().position(|d| d.present && d.name == meant.device);
        let handle = found.ok_or_else(|| not_that_device(format!("{} is gone", meant.device)))?;
        let device = &self.devices[handle];
        let head = device.fabric.as_ref().ok_or_else(|| not_that_device("it is a local disk"))?;
        let same = device.dev == meant.dev
            && Observed::Known(device.diskseq) == meant.diskseq
            && head.nqn == meant.nqn
            && head.ids.contains(&meant.namespace);
        if !same {
            return Err(not_that_device(format!(
                "{} is {} of {}",
                device.name, head.ids, head.nqn
            )));
        }
        if self.io_moves(handle) {
            Ok(handle)
        } else {
            Err(Outcome::Retry { after: Duration::from_secs(1), why: RetryWhy::TimedOut })
        }
    }

    /// The leg, or `None` when no member of that name is bound any more.
    pub(super) fn the_leg(&self, array: usize, meant: &LegRef) -> Checked<Option<usize>> {
        let rdevs = &self.arrays[array].rdevs;
        let Some(index) = rdevs.iter().position(|r| r.name == meant.device) else {
            return Ok(None);
        };
        let bound = &rdevs[index];
        if meant.md_device.is_some_and(|uuid| uuid != bound.uuid) {
            return Err(not_that_device(format!("{} is another member", bound.name)));
        }
        let backing = &self.devices[bound.handle];
        let same = meant.identity.as_ref().is_none_or(|identity| {
            !backing.present
                || (identity.dev == backing.dev
                    && identity.diskseq == Observed::Known(backing.diskseq))
        });
        if same {
            Ok(Some(index))
        } else {
            Err(not_that_device(format!("{} stands on another disk", bound.name)))
        }
    }

    /// A change of the array waits for the superblocks of every leg, with the array's lock held.
    pub(super) fn hangs(&self, array: usize) -> Checked<()> {
        let rdevs = &self.arrays[array].rdevs;
        if rdevs.iter().any(|rdev| !rdev.faulty && self.io_waits(rdev.handle)) {
            return Err(Outcome::Retry { after: Duration::from_secs(1), why: RetryWhy::TimedOut });
        }
        Ok(())
    }

    fn examine(&self, device: &DeviceIdentity) -> HostAnswer {
        match self.the_device(device) {
            Err(outcome) => outcome.into(),
            Ok(handle) => HostAnswer {
                content: Some(self.disks[self.devices[handle].disk.0].content()),
                ..HostAnswer::from(Outcome::AlreadySo)
            },
        }
    }

    /// `state_store` "faulty": busy when MD keeps the leg, and broken by the very attempt.
    fn fail_leg(&mut self, array: ArrayId, leg: &LegRef) -> Checked<Outcome> {
        let array = self.the_array(array)?;
        let Some(index) = self.the_leg(array, leg)? else {
            return Ok(Outcome::AlreadySo);
        };
        if self.arrays[array].rdevs[index].faulty {
            return Ok(Outcome::AlreadySo);
        }
        self.md_error(array, index);
        if self.arrays[array].rdevs[index].faulty {
            Ok(Outcome::Changed)
        } else {
            Err(refused_state("MD keeps its last leg".into()))
        }
    }

    fn remove_leg(&mut self, array: ArrayId, leg: &LegRef) -> Checked<Outcome> {
        let array = self.the_array(array)?;
        let Some(index) = self.the_leg(array, leg)? else {
            return Ok(Outcome::AlreadySo);
        };
        self.hangs(array)?;
        if self.unbind(array, index) {
            Ok(Outcome::Changed)
        } else if self.arrays[array].rdevs[index].faulty {
            Err(Outcome::Retry { after: Duration::from_secs(1), why: RetryWhy::Busy })
        } else {
            Err(refused_state("it holds a slot".into()))
        }
    }

    /// Whether the device is a leg of this array already; an error if another array holds it.
    fn is_bound(&self, array: usize, handle: Handle) -> Checked<bool> {
        if self.arrays[array].rdevs.iter().any(|r| r.handle == handle) {
            return Ok(true);
        }
        match self.holders(handle).first() {
            Some(holder) => Err(refused_state(format!("{holder} holds it"))),
            None => Ok(false),
        }
    }

    fn re_add_leg(
        &mut self,
        array: ArrayId,
        device: &DeviceIdentity,
        member: Option<MdDeviceId>,
        faulty: Option<&LegRef>,
    ) -> Checked<Outcome> {
        let array = self.the_array(array)?;
        let handle = self.the_device(device)?;
        let is_faulty = |index: usize| self.arrays[array].rdevs[index].faulty;
        let own = self.arrays[array].rdevs.iter().position(|rdev| rdev.handle == handle);
        if own.is_some_and(|own| !is_faulty(own)) {
            return Ok(Outcome::AlreadySo);
        }
        let leaving = match faulty {
            Some(leg) => self.the_leg(array, leg)?.filter(|leg| is_faulty(*leg)),
            None => None,
        };
        if own.is_some() && own != leaving {
            return Err(refused_state("it is still bound and faulty".into()));
        }
        if own.is_none() {
            self.is_bound(array, handle)?;
        }
        self.hangs(array)?;
        if leaving.is_some_and(|leg| !self.unbind(array, leg)) {
            return Err(Outcome::Retry { after: Duration::from_secs(1), why: RetryWhy::Busy });
        }
        self.is_the_member(array, handle, member)?;
        self.is_of_one_history(array, handle)?;
        match self.re_add(array, handle) {
            Ok(()) => Ok(Outcome::Changed),
            Err(detail) => Err(Outcome::Refused(RefusedWhy::ReAddNotPossible { detail })),
        }
    }

    /// What the port's contract asks of whoever takes a leg back: nothing but the superblock of the
    /// active member that left stands on it.
    fn is_the_member(
        &self,
        array: usize,
        handle: Handle,
        member: Option<MdDeviceId>,
    ) -> Checked<()> {
        let own = self.arrays[array].id;
        let is_it = match self.disks[self.devices[handle].disk.0].content() {
            Content::MdMember(found) => {
                let active = matches!(found.role, MdRole::Active(_));
                let same = member.is_none_or(|member| member == found.device);
                found.array == own && active && same
            }
            Content::Blank | Content::Foreign(_) => false,
        };
        if is_it {
            return Ok(());
        }
        let detail = "it is not the leg that left".to_owned();
        Err(Outcome::Refused(RefusedWhy::ReAddNotPossible { detail }))
    }

    fn add_leg(&mut self, array: ArrayId, device: &DeviceIdentity) -> Checked<Outcome> {
        let array = self.the_array(array)?;
        let handle = self.the_device(device)?;
        if self.is_bound(array, handle)? {
            return Ok(Outcome::AlreadySo);
        }
        self.hangs(array)?;
        if let (Some(own), Some(sb)) = (self.sources(array).next(), self.superblock_on(handle)) {
            if sb.array == self.arrays[array].id && sb.history_with(own) == History::Newer {
                return Err(newer_copy("it counts more events than the running array"));
            }
        }
        self.add_spare(array, handle).map_err(refused_state)?;
        Ok(Outcome::Changed)
    }

    fn superblock_on(&self, handle: Handle) -> Option<&MdSuperblock> {
        self.disks[self.devices[handle].disk.0].superblock.as_ref()
    }

    /// Superblocks of the legs that the array can be read from.
    fn sources(&self, array: usize) -> impl Iterator<Item = &MdSuperblock> {
        let good = self.arrays[array].rdevs.iter().filter(|rdev| rdev.in_sync && !rdev.faulty);
        good.filter(|rdev| self.io_moves(rdev.handle))
            .filter_map(|rdev| self.superblock_on(rdev.handle))
    }

    /// What the port's contract asks of whoever takes a leg back: the kernel does not ask it.
    pub(super) fn is_of_one_history(&self, array: usize, handle: Handle) -> Checked<()> {
        let own = self.arrays[array].id;
        let Some(sb) = self.superblock_on(handle).filter(|sb| sb.array == own) else {
            return Ok(());
        };
        let mut parted = false;
        for source in self.sources(array) {
            match sb.history_with(source) {
                History::One => return Ok(()),
                History::Newer => {
                    return Err(newer_copy("it counts more events than the running array"));
                }
                History::Unfinished => {
                    let detail = "it counts more events than the array, and was being filled";
                    return Err(Outcome::Refused(RefusedWhy::ReAddNotPossible {
                        detail: detail.to_owned(),
                    }));
                }
                History::Parted => parted = true,
            }
        }
        let mut others = self.arrays[array].rdevs.iter().filter(|rdev| rdev.slot.is_some());
        let may_know = |rdev: &Rdev| {
            let filled = !rdev.in_sync && sb.active.contains(&number_of(rdev.uuid));
            !rdev.faulty && (filled || !self.io_moves(rdev.handle))
        };
        if parted && others.any(may_know) {
            return Err(Outcome::Retry { after: Duration::from_secs(1), why: RetryWhy::Undecided });
        }
        if parted {
            return Err(newer_copy("it went on without the array, and the array without it"));
        }
        Ok(())
    }

    /// `mdadm --replace X --with Y`: the spare takes the same slot as a Replacement; the leg itself
    /// stays in use until the copy is complete.
    fn replace_leg(
        &mut self,
        array: ArrayId,
        from: &LegRef,
        to: &DeviceIdentity,
    ) -> Checked<Outcome> {
        let array = self.the_array(array)?;
        let handle = self.the_device(to)?;
        let index = self
            .the_leg(array, from)?
            .ok_or_else(|| refused_state(format!("{} is not bound", from.device)))?;
        let md = &self.arrays[array];
        let slot = md.rdevs[index].slot;
        let spare = (md.rdevs.iter().position(|r| r.handle == handle))
            .ok_or_else(|| refused_state(format!("{} is not bound", to.device)))?;
        if slot.is_some() && md.rdevs[spare].slot == slot && md.rdevs[spare].replacement {
            return Ok(Outcome::AlreadySo);
        }
        if slot.is_none() || !md.rdevs[index].in_sync || md.rdevs[spare].slot.is_some() {
            return Err(refused_state("no leg in sync, or no idle spare".into()));
        }
        let at = self.now;
        let md = &mut self.arrays[array];
        md.rdevs[index].want_replacement = true;
        // `--with` names the spare through its `slot` attribute, so no other one is taken.
        let chosen = &mut md.rdevs[spare];
        chosen.slot = slot;
        chosen.replacement = true;
        chosen.by_bitmap = false;
        chosen.recovered = 0;
        // mdadm freezes the array for it (`sysfs_freeze_array`): what was being filled is
        // interrupted, and goes on together with the spare from where that one begins
        // (`md_do_sync`).
        md.sync = None;
        md.thread_at = Some(at);
        self.signals.push(KernelSignal::Md);
        Ok(Outcome::Changed)
    }

    fn clear_want(&mut self, array: ArrayId, leg: &LegRef) -> Checked<Outcome> {
        let array = self.the_array(array)?;
        let Some(index) = self.the_leg(array, leg)? else {
            return Ok(Outcome::AlreadySo);
        };
        let rdev = &mut self.arrays[array].rdevs[index];
        let wished = std::mem::take(&mut rdev.want_replacement);
        rdev.write_error = false;
        if wished {
            self.signals.push(KernelSignal::Md);
        }
        Ok(changed_if(wished))
    }

    fn resize(&mut self, array: ArrayId, raid_disks: u16) -> Checked<Outcome> {
        let array = self.the_array(array)?;
        if self.arrays[array].raid_disks == raid_disks {
            return Ok(Outcome::AlreadySo);
        }
        self.hangs(array)?;
        self.set_raid_disks(array, raid_disks)?;
        Ok(Outcome::Changed)
    }
}
