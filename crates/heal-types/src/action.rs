//! What may be done to a host: a closed list.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{
    ArrayId, ConnectParams, Content, ControllerName, ControllerRef, DeviceIdentity, DeviceName,
    Digests, FastIoFail, HostSnapshot, MdDeviceId, Moment, Nqn, Outcome, RefusedWhy, Slot, Target,
};

/// Everything the product may ever do to a host. What is not here cannot be done.
///
/// Each action names its array and devices by identity; whoever carries it out checks the identity
/// again, right before the act, and answers [`Outcome::Refused`] if anything differs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum HostAction {
    /// Connect every portal of `target` that has no controller yet.
    Connect {
        /// The subsystem and where it is.
        target: Target,
        /// How.
        options: ConnectOptions,
    },
    /// Read what stands on a device. Nothing is written; answered in [`HostAnswer::content`].
    Examine {
        /// The device.
        device: DeviceIdentity,
    },
    /// Mark a leg faulty that MD still counts as good.
    FailLeg {
        /// The array.
        array: ArrayId,
        /// The leg.
        leg: LegRef,
        /// What makes this right.
        why: FailWhy,
    },
    /// Unbind a faulty leg or an idle spare.
    RemoveLeg {
        /// The array.
        array: ArrayId,
        /// The leg.
        leg: LegRef,
    },
    /// Take a returned leg back, by bitmap only: never by a full copy. What stands on the device is
    /// read first; anything but the superblock of the very member that left, and nothing else, is
    /// [`RefusedWhy::ReAddNotPossible`](crate::RefusedWhy::ReAddNotPossible).
    ReAddLeg {
        /// The array.
        array: ArrayId,
        /// The device.
        device: DeviceIdentity,
        /// Which member left, if that was ever read.
        member: Option<MdDeviceId>,
        /// What of it is bound still, and faulty. It may be unbound even if the rest is refused.
        faulty: Option<LegRef>,
    },
    /// Add a verified device as a new leg.
    AddLeg {
        /// The array.
        array: ArrayId,
        /// The device.
        device: DeviceIdentity,
    },
    /// Copy a leg to a spare while both are in use, then drop the leg.
    ReplaceLeg {
        /// The array.
        array: ArrayId,
        /// The leg to move away from.
        from: LegRef,
        /// The spare to move to.
        to: DeviceIdentity,
    },
    /// Take back MD's wish to move a leg to the next spare, left by a passing error.
    ClearWantReplacement {
        /// The array.
        array: ArrayId,
        /// The leg.
        leg: LegRef,
    },
    /// Set the number of slots.
    SetRaidDisks {
        /// The array.
        array: ArrayId,
        /// The number wanted.
        raid_disks: u16,
    },
    /// Set how soon the kernel fails I/O of a controller that lost its connection.
    SetFastIoFail {
        /// The controller.
        controller: ControllerRef,
        /// The value.
        value: FastIoFail,
    },
    /// Free the application's I/O from a leg none of whose paths gets anything through: make sure
    /// that the survivors queue, let the leg fail at once, and destroy its sockets.
    IsolateLeg {
        /// The array.
        array: ArrayId,
        /// The leg.
        leg: LegRef,
        /// Every path to it.
        paths: Vec<ControllerRef>,
        /// Every path to every other leg that is in sync: they must queue from now on.
        survivors: Vec<ControllerRef>,
    },
    /// Destroy the sockets of a path that nothing gets through, while each leg behind it has
    /// another one, over which goes on what waits there, or is still being filled.
    CutPath {
        /// The array.
        array: ArrayId,
        /// The path's controller.
        controller: Box<ControllerRef>,
    },
    /// Give up a controller that is connecting while I/O is stuck behind it. The kernel will not
    /// connect it again; whoever does this does that.
    DeleteController {
        /// The array.
        array: ArrayId,
        /// The leg behind it.
        leg: LegRef,
        /// The controller.
        controller: Box<ControllerRef>,
        /// Every path to every other leg that is in sync: they must queue from now on.
        survivors: Vec<ControllerRef>,
    },
    /// Connect a controller as it was before it was deleted.
    Reconnect {
        /// How it was.
        params: Box<ConnectParams>,
    },
    /// Disconnect every controller of a subsystem that nothing uses.
    Disconnect {
        /// The subsystem.
        nqn: Nqn,
        /// The controllers it was seen to have; any other one is a reason to refuse.
        controllers: Vec<ControllerName>,
    },
}

impl HostAction {
    /// The action's name, for logs and limits.
    #[must_use]
    pub fn verb(&self) -> &'static str {
        match self {
            Self::Connect { .. } => "connect",
            Self::Examine { .. } => "examine",
            Self::FailLeg { .. } => "fail_leg",
            Self::RemoveLeg { .. } => "remove_leg",
            Self::ReAddLeg { .. } => "re_add_leg",
            Self::AddLeg { .. } => "add_leg",
            Self::ReplaceLeg { .. } => "replace_leg",
            Self::ClearWantReplacement { .. } => "clear_want_replacement",
            Self::SetRaidDisks { .. } => "set_raid_disks",
            Self::SetFastIoFail { .. } => "set_fast_io_fail",
            Self::IsolateLeg { .. } => "isolate_leg",
            Self::CutPath { .. } => "cut_path",
            Self::DeleteController { .. } => "delete_controller",
            Self::Reconnect { .. } => "reconnect",
            Self::Disconnect { .. } => "disconnect",
        }
    }

    /// Whether it takes a path away from an array.
    #[must_use]
    pub fn takes_a_path(&self) -> bool {
        match self {
            Self::IsolateLeg { .. } | Self::CutPath { .. } | Self::DeleteController { .. } => true,
            Self::Connect { .. }
            | Self::Examine { .. }
            | Self::FailLeg { .. }
            | Self::RemoveLeg { .. }
            | Self::ReAddLeg { .. }
            | Self::AddLeg { .. }
            | Self::ReplaceLeg { .. }
            | Self::ClearWantReplacement { .. }
            | Self::SetRaidDisks { .. }
            | Self::SetFastIoFail { .. }
            | Self::Reconnect { .. }
            | Self::Disconnect { .. } => false,
        }
    }

    /// Whether it must not wait for a disk, and need not: whatever becomes of it stands in the
    /// kernel and nowhere else, and nobody has to finish or undo it after a crash.
    #[must_use]
    pub fn is_urgent(&self) -> bool {
        match self {
            Self::IsolateLeg { .. } | Self::CutPath { .. } | Self::SetFastIoFail { .. } => true,
            Self::Connect { .. }
            | Self::Examine { .. }
            | Self::FailLeg { .. }
            | Self::RemoveLeg { .. }
            | Self::ReAddLeg { .. }
            | Self::AddLeg { .. }
            | Self::ReplaceLeg { .. }
            | Self::ClearWantReplacement { .. }
            | Self::SetRaidDisks { .. }
            | Self::DeleteController { .. }
            | Self::Reconnect { .. }
            | Self::Disconnect { .. } => false,
        }
    }
}

/// Why a leg that MD counts as good may be marked faulty.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum FailWhy {
    /// Its device is gone and MD has not noticed, because no I/O went there.
    DeviceGone,
    /// The volume is meant to have fewer copies, and every other slot has a good leg.
    NoLongerWanted,
}

/// A leg as MD has it bound, with what is known of who it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LegRef {
    /// The name it is bound under.
    pub device: DeviceName,
    /// Its slot when it was seen.
    pub slot: Option<Slot>,
    /// Its MD device UUID, if it was ever read.
    pub md_device: Option<MdDeviceId>,
    /// The device it must stand on, or `None` when the device is gone.
    pub identity: Option<DeviceIdentity>,
}

/// How controllers are connected that are ours.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ConnectOptions {
    /// Number of I/O queues; the kernel's default (one per CPU) if not set. Fewer queues mean a
    /// shorter stall when a path dies.
    pub io_queues: Option<u16>,
    /// Keep-alive time-out.
    pub keep_alive: Duration,
    /// Time between attempts to connect again.
    pub reconnect_delay: Duration,
    /// How long the kernel goes on trying.
    pub ctrl_loss: Duration,
    /// The host NQN to connect as; the host's own if not set.
    pub host_nqn: Option<Nqn>,
    /// What guards messages over TCP.
    pub digests: Digests,
}

impl Default for ConnectOptions {
    fn default() -> Self {
        Self {
            io_queues: None,
            keep_alive: Duration::from_secs(5),
            reconnect_delay: Duration::from_secs(2),
            ctrl_loss: Duration::from_secs(600),
            host_nqn: None,
            digests: Digests::default(),
        }
    }
}

/// What came of an action.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostAnswer {
    /// What became of it.
    pub outcome: Outcome,
    /// What stands on the device, when that was the question.
    pub content: Option<Content>,
    /// When it was done, for what must be quick: what came after that took nobody's time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub done_at: Option<Moment>,
}

impl From<Outcome> for HostAnswer {
    fn from(outcome: Outcome) -> Self {
        Self { outcome, content: None, done_at: None }
    }
}

/// A host: the real one, or one that exists only in memory.
///
/// One suite of contract tests runs on both. Both calls may take as long as an action's deadline,
/// so an asynchronous caller gives them a thread.
pub trait HostPort: Send {
    /// One look at everything.
    fn look(&mut self) -> HostSnapshot;

    /// What a look would show of `array`, with only those facts read again that can have changed
    /// while nobody plugged anything: states, flags, controllers. Never waits for a look.
    fn glance(&mut self, array: ArrayId) -> HostSnapshot;

    /// Carries one action out, and reads back what became of it.
    fn act(&mut self, action: &HostAction) -> HostAnswer;

    /// Carries `action` out on `array` if `permits` finds nothing against it in what the host shows
    /// right before: a glance for what is urgent, a look for everything else.
    fn act_if(
        &mut self,
        array: ArrayId,
        action: &HostAction,
        permits: &mut Permits<'_>,
    ) -> HostAnswer {
        ask_then_act(self, array, action, permits)
    }
}

/// What [`HostPort::act_if`] does, for hosts that have something of their own for some actions
/// only.
pub fn ask_then_act<H: HostPort + ?Sized>(
    host: &mut H,
    array: ArrayId,
    action: &HostAction,
    permits: &mut Permits<'_>,
) -> HostAnswer {
    let mut fresh = if action.is_urgent() { host.glance(array) } else { host.look() };
    match permits(&mut fresh) {
        Ok(()) => host.act(action),
        Err(detail) => Outcome::Refused(RefusedWhy::Guard { detail }).into(),
    }
}

/// The caller's guards on a snapshot of this moment, to which they may add what only the caller
/// knows. The error says what is against the act.
pub type Permits<'a> = dyn FnMut(&mut HostSnapshot) -> Result<(), String> + 'a;
