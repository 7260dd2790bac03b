//! The guards: what must hold, on a fresh snapshot, in the same breath as an act.
//!
//! ```text
//!   machine ── decides on its last look ──► Effect::Act{action, footing}
//!                                                  │
//!   executor ── fresh look ── footing.permits(action, fresh) ──► act, or refuse with the guard's name
//! ```
//!
//! The machine asks the guards before it wants something, and the executor asks the very same
//! function again right before the act, because between the two a second leg may have died. A guard
//! never trusts a name, and a fact that is `Unknown` fails it (G5).
//!
//! | guard | what it protects |
//! |---|---|
//! | G1 | another leg holds every block, its path is up (RAID10: in the same mirror set) |
//! | G2 | the device is the one that was meant: namespace id, NQN, device number, DISKSEQ |
//! | G3 | the array's state allows the change |
//! | G4 | the array is still ours and nobody else is at it |
//! | G5 | nothing this rests on is unknown |

mod isolation;

use std::fmt;

use serde::{Deserialize, Serialize};

use heal_types::{
    ArrayId, ArraySnapshot, ArrayState, Backing, DeviceIdentity, FailWhy, HostAction, HostSnapshot,
    LegFlag, LegRef, LegSnapshot, Level, NamespaceSnapshot, Nqn, Observed, SectorCount, Slot,
    SyncAction, Target, Volume,
};

use crate::why::{HeldWhy, RejectedWhy};

use isolation::{bound, free_from, given_up, same_controllers};
pub(crate) use isolation::{paths_of, survivors_of};

/// Why a guard does not let an action through.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum GuardWhy {
    /// G1: no other leg is known to hold every block.
    NoOtherGoodLeg {
        /// The slot the action would take something from.
        slot: Option<Slot>,
    },
    /// G2: what the action names is not there, or is another device.
    NotThatDevice {
        /// What differs.
        detail: String,
    },
    /// G2: the leg is not in the state the action needs.
    LegState {
        /// What was found.
        detail: String,
    },
    /// G3: the array's state.
    ArrayState(ArrayState),
    /// G3: another tool changes the array, or its shape is half changed.
    ArrayBusy,
    /// G4: not ours, or no longer.
    NotOurs {
        /// What is not.
        detail: String,
    },
    /// G4: something still uses it.
    StillUsed {
        /// What.
        detail: String,
    },
    /// G5: a fact is not known.
    NotKnown {
        /// Which.
        what: String,
    },
    /// The candidate must not become a leg.
    Candidate(RejectedWhy),
}

impl fmt::Display for GuardWhy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoOtherGoodLeg { slot: Some(slot) } => {
                write!(f, "G1: no leg other than slot {slot} is known to hold every block")
            }
            Self::NoOtherGoodLeg { slot: None } => {
                f.write_str("G1: no leg is known to hold every block")
            }
            Self::NotThatDevice { detail } => write!(f, "G2: not the device meant: {detail}"),
            Self::LegState { detail } => write!(f, "G2: leg not in the needed state: {detail}"),
            Self::ArrayState(state) => write!(f, "G3: the array is {state}"),
            Self::ArrayBusy => f.write_str("G3: another tool changes the array"),
            Self::NotOurs { detail } => write!(f, "G4: not ours: {detail}"),
            Self::StillUsed { detail } => write!(f, "G4: still used: {detail}"),
            Self::NotKnown { what } => write!(f, "G5: {what} is not known"),
            Self::Candidate(why) => write!(f, "candidate: {why}"),
        }
    }
}

impl GuardWhy {
    /// The reason under which a repair is held when this guard stops it.
    #[must_use]
    pub fn held(&self) -> HeldWhy {
        match self {
            Self::ArrayState(state) => HeldWhy::ArrayState(*state),
            Self::ArrayBusy => HeldWhy::ArrayBusy,
            Self::NoOtherGoodLeg { .. }
            | Self::NotThatDevice { .. }
            | Self::LegState { .. }
            | Self::NotOurs { .. }
            | Self::StillUsed { .. }
            | Self::NotKnown { .. }
            | Self::Candidate(_) => HeldWhy::Guard { detail: self.to_string() },
        }
    }
}

/// What a decision stood on: carried with the action so that it can be checked again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Footing {
    /// The array.
    pub array: ArrayId,
    /// The volume, where there is a provisioner.
    pub volume: Option<Volume>,
}

type Guarded = Result<(), GuardWhy>;

fn unknown(what: &str) -> GuardWhy {
    GuardWhy::NotKnown { what: what.to_owned() }
}

impl Footing {
    /// Whether `action` may be done to a host that looks like `fresh`.
    ///
    /// # Errors
    /// The first guard that does not hold.
    pub fn permits(&self, action: &HostAction, fresh: &HostSnapshot) -> Guarded {
        if !fresh.unreadable.is_empty() && fresh.arrays.iter().all(|a| a.id != self.array) {
            return Err(unknown("an array of this host"));
        }
        let array = fresh.arrays.iter().find(|array| array.id == self.array);
        self.permits_on(action, array, &fresh.namespaces)
    }

    /// The same, on the parts that matter.
    ///
    /// # Errors
    /// The first guard that does not hold.
    pub fn permits_on(
        &self,
        action: &HostAction,
        array: Option<&ArraySnapshot>,
        namespaces: &[NamespaceSnapshot],
    ) -> Guarded {
        let Some(array) = array else {
            return self.permits_without_array(action, namespaces);
        };
        match action {
            HostAction::Connect { target, .. } => self.wanted_target(target),
            HostAction::Examine { device } => {
                let namespace = present(namespaces, device)?;
                unbound(array, namespace)
            }
            HostAction::FailLeg { leg, why, .. } => {
                changeable(array)?;
                settled(array)?;
                self.fewer_wanted(array, *why)?;
                fail_leg(array, leg, *why)
            }
            HostAction::RemoveLeg { leg, .. } => {
                changeable(array)?;
                if leaving(array, leg)?.is_none() {
                    return Ok(()); // Already so.
                }
                nobody_would_hang(array)?;
                a_good_leg_other_than(array, None)
            }
            HostAction::ReAddLeg { device, faulty, .. } => {
                changeable(array)?;
                let leaving = match faulty {
                    Some(leg) => leaving(array, leg)?,
                    None => None,
                };
                unbound_but_as(array, leaving, present(namespaces, device)?)?;
                nobody_would_hang(array)?;
                a_good_leg_other_than(array, None)
            }
            HostAction::AddLeg { device, .. } => {
                changeable(array)?;
                let namespace = present(namespaces, device)?;
                self.wanted_namespace(device)?;
                candidate(array, namespace)?;
                no_wish_to_replace(array, None)?;
                nobody_would_hang(array)?;
                a_good_leg_other_than(array, None)
            }
            HostAction::ReplaceLeg { from, to, .. } => {
                changeable(array)?;
                let namespace = present(namespaces, to)?;
                replace_leg(array, from, namespace)
            }
            HostAction::ClearWantReplacement { leg, .. } => {
                changeable(array)?;
                match array.legs.iter().find(|bound| bound.device == leg.device) {
                    Some(bound) if is_source(bound) => Ok(()),
                    Some(bound) => Err(GuardWhy::LegState { detail: bound.flags.to_string() }),
                    None => Ok(()), // Already so.
                }
            }
            HostAction::SetRaidDisks { raid_disks, .. } => {
                changeable(array)?;
                settled(array)?;
                resize(array, *raid_disks)
            }
            HostAction::IsolateLeg { leg, paths, survivors, .. } => {
                free_from(array, namespaces, leg, survivors)?;
                let own = paths_of(bound(array, leg)?)?;
                if same_controllers(&own, paths) {
                    Ok(())
                } else {
                    Err(GuardWhy::NotThatDevice { detail: "the leg has other paths now".into() })
                }
            }
            HostAction::DeleteController { leg, controller, survivors, .. } => {
                free_from(array, namespaces, leg, survivors)?;
                given_up(array, leg, controller)
            }
            HostAction::Reconnect { params } => self.wanted_subsystem(&params.nqn),
            // Which controller fails its I/O how soon, and which path is cut, is decided for the
            // whole host at once (`crate::arming`, `crate::cuts`).
            HostAction::SetFastIoFail { controller, .. } => {
                Err(GuardWhy::NotOurs { detail: format!("{controller} is armed by the host") })
            }
            HostAction::CutPath { controller, .. } => {
                Err(GuardWhy::NotOurs { detail: format!("{controller} is cut by the host") })
            }
            HostAction::Disconnect { nqn, .. } => disconnect(array, namespaces, nqn),
        }
    }

    /// When an array is stopped, what was connected for it may be put away, and nothing else.
    fn permits_without_array(
        &self,
        action: &HostAction,
        namespaces: &[NamespaceSnapshot],
    ) -> Guarded {
        match action {
            HostAction::Disconnect { nqn, .. } => idle_subsystem(namespaces, nqn),
            HostAction::Connect { .. }
            | HostAction::Examine { .. }
            | HostAction::FailLeg { .. }
            | HostAction::RemoveLeg { .. }
            | HostAction::ReAddLeg { .. }
            | HostAction::AddLeg { .. }
            | HostAction::ReplaceLeg { .. }
            | HostAction::ClearWantReplacement { .. }
            | HostAction::SetRaidDisks { .. }
            | HostAction::SetFastIoFail { .. }
            | HostAction::IsolateLeg { .. }
            | HostAction::CutPath { .. }
            | HostAction::DeleteController { .. }
            | HostAction::Reconnect { .. } => Err(GuardWhy::NotThatDevice {
                detail: format!("array {} is not there", self.array),
            }),
        }
    }

    fn wanted_target(&self, target: &Target) -> Guarded {
        let wanted = self.volume.as_ref().is_some_and(|volume| {
            volume.replicas.iter().any(|replica| {
                replica.target.namespace == target.namespace && replica.target.nqn == target.nqn
            })
        });
        if wanted {
            Ok(())
        } else {
            Err(GuardWhy::NotOurs { detail: format!("{} is no replica's target", target.nqn) })
        }
    }

    /// What is connected again must still be where the provisioner has a replica.
    fn wanted_subsystem(&self, nqn: &Nqn) -> Guarded {
        let wanted = self
            .volume
            .as_ref()
            .is_some_and(|volume| volume.replicas.iter().any(|replica| replica.target.nqn == *nqn));
        if wanted {
            Ok(())
        } else {
            Err(GuardWhy::NotOurs { detail: format!("{nqn} is no replica's subsystem") })
        }
    }

    /// A good leg is failed only while the volume is meant to have fewer copies than there are.
    fn fewer_wanted(&self, array: &ArraySnapshot, why: FailWhy) -> Guarded {
        let fewer = self.volume.as_ref().is_some_and(|volume| volume.copies < array.raid_disks);
        match why {
            FailWhy::NoLongerWanted if !fewer => {
                Err(GuardWhy::NotOurs { detail: "the volume wants all its copies".to_owned() })
            }
            FailWhy::NoLongerWanted | FailWhy::DeviceGone => Ok(()),
        }
    }

    /// The device must be a replica that the provisioner wants in this volume.
    fn wanted_namespace(&self, device: &DeviceIdentity) -> Guarded {
        let replica = self.volume.iter().flat_map(|volume| &volume.replicas).find(|replica| {
            replica.target.namespace == device.namespace && replica.target.nqn == device.nqn
        });
        match replica {
            Some(replica) if replica.state.is_leaving() => {
                Err(GuardWhy::NotOurs { detail: format!("{} is on its way out", device.namespace) })
            }
            Some(_) => Ok(()),
            None => {
                Err(GuardWhy::NotOurs { detail: format!("{} is no replica", device.namespace) })
            }
        }
    }
}

/// Whether a leg can be relied upon to hold every block: in sync, device present, a path usable, no
/// block that MD must not read, no write that may still be on its way (write-behind goes with
/// write-mostly).
#[must_use]
pub fn is_good(leg: &LegSnapshot) -> bool {
    is_source(leg)
        && leg.bad_blocks.is_known_and(|bad| !bad)
        && !leg.flags.has(LegFlag::WriteMostly)
}

/// Whether MD can fill another leg from this one. A source with bad blocks is one leg more than
/// none: adding to it only ever adds a copy.
#[must_use]
pub fn is_source(leg: &LegSnapshot) -> bool {
    leg.is_in_sync()
        && match &leg.backing {
            Backing::Namespace(namespace) => namespace.has_usable_path(),
            Backing::Local => true,
            Backing::Gone | Backing::Unreadable => false,
        }
}

/// G3 for every change of an array.
fn changeable(array: &ArraySnapshot) -> Guarded {
    match array.state {
        Observed::Known(state) if state.is_running() => {}
        Observed::Known(state) => return Err(GuardWhy::ArrayState(state)),
        Observed::Unknown(_) => return Err(unknown("array_state")),
    }
    match array.sync_action {
        Observed::Known(SyncAction::Frozen | SyncAction::Reshape) => {
            return Err(GuardWhy::ArrayBusy);
        }
        Observed::Known(
            SyncAction::Idle
            | SyncAction::Resync
            | SyncAction::Recover
            | SyncAction::Check
            | SyncAction::Repair,
        ) => {}
        Observed::Unknown(_) => return Err(unknown("sync_action")),
    }
    if array.reshaping { Err(GuardWhy::ArrayBusy) } else { Ok(()) }
}

/// G3 for changes that take a leg away or change the shape: no resync may be running, because then
/// "in sync" does not yet mean equal.
fn settled(array: &ArraySnapshot) -> Guarded {
    match array.sync_action {
        Observed::Known(SyncAction::Idle) => Ok(()),
        Observed::Known(
            SyncAction::Resync
            | SyncAction::Recover
            | SyncAction::Check
            | SyncAction::Repair
            | SyncAction::Reshape
            | SyncAction::Frozen,
        ) => Err(GuardWhy::ArrayBusy),
        Observed::Unknown(_) => Err(unknown("sync_action")),
    }
}

/// The slots that hold the same blocks as `slot`.
pub(crate) fn mirror_set(array: &ArraySnapshot, slot: Slot) -> Vec<Slot> {
    let all = || (0..array.raid_disks).map(Slot).collect();
    match array.level {
        Level::Raid1 => all(),
        Level::Raid10 { layout } => {
            // md.h, `raid10`: near copies in the low byte, far copies in the next one.
            let near = u16::try_from(layout & 0xff).unwrap_or(1).max(1);
            let far = (layout >> 8) & 0xff;
            if far == 1 && near > 1 && array.raid_disks % near == 0 {
                let first = slot.0 / near * near;
                (first..first + near).map(Slot).collect()
            } else {
                Vec::new() // Sets overlap: judged by `a_good_leg_other_than`.
            }
        }
        Level::Other => Vec::new(),
    }
}

/// G1. With `slot`, a good leg must hold the blocks of that slot besides it; without, every block
/// of the array must be held by some good leg.
fn a_good_leg_other_than(array: &ArraySnapshot, slot: Option<Slot>) -> Guarded {
    let taken = slot.is_some();
    let good = |s: &Slot| {
        let enough = |leg: &&LegSnapshot| if taken { is_good(leg) } else { is_source(leg) };
        array.legs.iter().filter(enough).any(|leg| leg.slot == Some(*s))
    };
    let fails = || Err(GuardWhy::NoOtherGoodLeg { slot });
    let Some(slot) = slot else {
        let mut slots = (0..array.raid_disks).map(Slot);
        let held = match array.level {
            Level::Raid1 => slots.any(|s| good(&s)),
            Level::Raid10 { .. } => slots.all(|s| {
                let set = mirror_set(array, s);
                // Where sets overlap, one slot without a good leg is what any layout with two
                // copies survives; more is not reasoned about.
                if set.is_empty() { missing(array) <= 1 } else { set.iter().any(good) }
            }),
            Level::Other => false,
        };
        return if held { Ok(()) } else { fails() };
    };
    let set = mirror_set(array, slot);
    let held = if set.is_empty() {
        (0..array.raid_disks).map(Slot).filter(|s| *s != slot).all(|s| good(&s))
    } else {
        set.iter().filter(|s| **s != slot).any(good)
    };
    if held { Ok(()) } else { fails() }
}

/// Whether legs other than the one in `slot` are known to hold every block of it.
pub(crate) fn is_held_elsewhere(array: &ArraySnapshot, slot: Slot) -> bool {
    a_good_leg_other_than(array, Some(slot)).is_ok()
}

fn missing(array: &ArraySnapshot) -> usize {
    let good = array.legs.iter().filter(|leg| is_source(leg)).count();
    usize::from(array.raid_disks).saturating_sub(good)
}

fn fail_leg(array: &ArraySnapshot, leg: &LegRef, why: FailWhy) -> Guarded {
    let Some(bound) = array.legs.iter().find(|bound| bound.device == leg.device) else {
        return Ok(()); // Already so.
    };
    if bound.is_faulty() {
        return Ok(()); // Already so.
    }
    if bound.slot != leg.slot {
        return Err(GuardWhy::LegState { detail: "it holds another slot".to_owned() });
    }
    let slot = bound.slot.ok_or_else(|| GuardWhy::LegState { detail: "no slot".to_owned() })?;
    match why {
        FailWhy::DeviceGone => match &bound.backing {
            Backing::Gone => a_good_leg_other_than(array, Some(slot)),
            Backing::Unreadable => Err(unknown("the leg's device")),
            Backing::Namespace(_) | Backing::Local => {
                Err(GuardWhy::LegState { detail: "its device is back".to_owned() })
            }
        },
        FailWhy::NoLongerWanted => {
            let others = (0..array.raid_disks).map(Slot).filter(|s| *s != slot);
            let all_good = others
                .into_iter()
                .all(|s| array.legs.iter().any(|leg| leg.slot == Some(s) && is_good(leg)));
            if all_good && array.raid_disks > 1 {
                Ok(())
            } else {
                Err(GuardWhy::NoOtherGoodLeg { slot: Some(slot) })
            }
        }
    }
}

/// G2: the namespace that `device` means is present, under the same name, and its I/O moves.
fn present<'a>(
    namespaces: &'a [NamespaceSnapshot],
    device: &DeviceIdentity,
) -> Result<&'a NamespaceSnapshot, GuardWhy> {
    let detail = |detail: String| GuardWhy::NotThatDevice { detail };
    let found = namespaces
        .iter()
        .find(|namespace| namespace.device == device.device)
        .ok_or_else(|| detail(format!("{} is gone", device.device)))?;
    if found.dev != device.dev || found.diskseq != device.diskseq {
        return Err(detail(format!("{} is another disk by now", device.device)));
    }
    match &found.nqn {
        Observed::Known(nqn) if *nqn == device.nqn => {}
        Observed::Known(nqn) => return Err(detail(format!("{} is of {nqn}", device.device))),
        Observed::Unknown(_) => return Err(unknown("the subsystem's NQN")),
    }
    match &found.ids {
        Observed::Known(ids) if ids.contains(&device.namespace) => {}
        Observed::Known(ids) => return Err(detail(format!("{} is {ids}", device.device))),
        Observed::Unknown(_) => return Err(unknown("the namespace's ids")),
    }
    if !found.has_usable_path() {
        return Err(detail(format!("no path to {} is usable", device.device)));
    }
    Ok(found)
}

fn unbound(array: &ArraySnapshot, namespace: &NamespaceSnapshot) -> Guarded {
    unbound_but_as(array, None, namespace)
}

/// The bound leg that is to be unbound, if it is still there: nobody needs it.
fn leaving<'a>(
    array: &'a ArraySnapshot,
    leg: &LegRef,
) -> Result<Option<&'a LegSnapshot>, GuardWhy> {
    match array.legs.iter().find(|bound| bound.device == leg.device) {
        Some(bound) if !bound.is_faulty() && !bound.is_spare() => {
            Err(GuardWhy::LegState { detail: bound.flags.to_string() })
        }
        found => Ok(found),
    }
}

/// Nobody holds the namespace, unless as that leg of this array.
fn unbound_but_as(
    array: &ArraySnapshot,
    leg: Option<&LegSnapshot>,
    namespace: &NamespaceSnapshot,
) -> Guarded {
    let mut bound = array.legs.iter().filter(|leg| stands_on(leg, namespace));
    let ours = match bound.next() {
        None => None,
        Some(own) if leg.is_some_and(|leg| leg.device == own.device) => Some(&array.device),
        Some(_) => return Err(GuardWhy::LegState { detail: "it is bound already".to_owned() }),
    };
    match &namespace.holders {
        Observed::Known(holders) if holders.iter().all(|holder| Some(holder) == ours) => Ok(()),
        Observed::Known(holders) => {
            Err(GuardWhy::StillUsed { detail: format!("held by {}", holders[0]) })
        }
        Observed::Unknown(_) => Err(unknown("the namespace's holders")),
    }
}

/// Whether a leg stands on this very disk.
fn stands_on(leg: &LegSnapshot, namespace: &NamespaceSnapshot) -> bool {
    match &leg.backing {
        Backing::Namespace(own) => own.dev == namespace.dev,
        Backing::Local | Backing::Gone | Backing::Unreadable => false,
    }
}

/// What a leg of `array` needs: its data, from where data starts on the legs there are.
#[must_use]
pub fn needed_size(array: &ArraySnapshot) -> Option<SectorCount> {
    let component = array.component_size.known()?;
    let offset = array.legs.iter().filter_map(|leg| leg.data_offset.known()).max()?;
    Some(SectorCount(component.0.saturating_add(offset.0)))
}

/// What can be said of a candidate without reading it: size, blocks, write access, users.
///
/// # Errors
/// The first reason against it.
pub fn candidate(array: &ArraySnapshot, namespace: &NamespaceSnapshot) -> Guarded {
    let reject = |why| Err(GuardWhy::Candidate(why));
    let needs = needed_size(array).ok_or_else(|| unknown("the size a leg needs"))?;
    let has = namespace.size.known().ok_or_else(|| unknown("the namespace's size"))?;
    if *has < needs {
        return reject(RejectedWhy::TooSmall { has: has.0, needs: needs.0 });
    }
    let block = namespace.logical_block.known().ok_or_else(|| unknown("its block size"))?;
    let own = array.logical_block.known().ok_or_else(|| unknown("the array's block size"))?;
    if block > own {
        return reject(RejectedWhy::BlockSize { has: *block, array: *own });
    }
    if *namespace.read_only.known().ok_or_else(|| unknown("whether it is read-only"))? {
        return reject(RejectedWhy::ReadOnly);
    }
    let holders = namespace.holders.known().ok_or_else(|| unknown("its holders"))?;
    if let Some(holder) = holders.first() {
        return reject(RejectedWhy::InUse { detail: format!("held by {holder}") });
    }
    if *namespace.in_use.known().ok_or_else(|| unknown("whether it is mounted"))? {
        return reject(RejectedWhy::InUse { detail: "mounted or used as swap".to_owned() });
    }
    let partitions = *namespace.partitions.known().ok_or_else(|| unknown("its partitions"))?;
    if partitions > 0 {
        return reject(RejectedWhy::InUse { detail: format!("{partitions} partitions") });
    }
    Ok(())
}

/// MD writes every superblock, and mdadm opens every member, for each change: behind a dead path
/// either one hangs, with the array's lock held.
fn nobody_would_hang(array: &ArraySnapshot) -> Guarded {
    let dead = array.legs.iter().filter(|leg| !leg.is_faulty()).find(|leg| match &leg.backing {
        Backing::Namespace(namespace) => !namespace.has_usable_path(),
        Backing::Local | Backing::Gone => false,
        Backing::Unreadable => true,
    });
    match dead {
        None => Ok(()),
        Some(leg) => Err(GuardWhy::LegState {
            detail: format!(
                "no path to {} is usable, and the change would wait for it",
                leg.device
            ),
        }),
    }
}

/// A spare that is added while another good leg wants to be replaced would become that leg's
/// replacement (raid1_add_disk), and a good copy would be dropped.
fn no_wish_to_replace(array: &ArraySnapshot, except: Option<&LegRef>) -> Guarded {
    let wishing = array.in_sync().find(|leg| {
        leg.flags.has(LegFlag::WantReplacement)
            && except.is_none_or(|except| except.device != leg.device)
    });
    match wishing {
        None => Ok(()),
        Some(leg) => {
            Err(GuardWhy::LegState { detail: format!("{} wants to be replaced", leg.device) })
        }
    }
}

fn replace_leg(array: &ArraySnapshot, from: &LegRef, to: &NamespaceSnapshot) -> Guarded {
    let Some(leaving) = array.legs.iter().find(|leg| leg.device == from.device) else {
        return Err(GuardWhy::NotThatDevice { detail: format!("{} is not bound", from.device) });
    };
    if leaving.slot != from.slot || !is_source(leaving) {
        return Err(GuardWhy::LegState { detail: leaving.flags.to_string() });
    }
    let Some(spare) = array.legs.iter().find(|leg| stands_on(leg, to)) else {
        return Err(GuardWhy::NotThatDevice { detail: format!("{} is not bound", to.device) });
    };
    if !spare.is_spare() {
        return Err(GuardWhy::LegState { detail: spare.flags.to_string() });
    }
    // MD drops the old leg when the copy is complete: what it cannot read must stand elsewhere.
    if !is_good(leaving) {
        a_good_leg_other_than(array, leaving.slot)?;
    }
    no_wish_to_replace(array, Some(from))
}

fn resize(array: &ArraySnapshot, raid_disks: u16) -> Guarded {
    if array.level != Level::Raid1 {
        return Err(GuardWhy::NotOurs { detail: "only RAID1 changes its number of legs".into() });
    }
    let good = array.legs.iter().filter(|leg| is_good(leg)).count();
    let wanted = usize::from(raid_disks.min(array.raid_disks));
    if raid_disks == 0 || good < wanted {
        return Err(GuardWhy::NoOtherGoodLeg { slot: None });
    }
    if raid_disks.abs_diff(array.raid_disks) > 1 {
        return Err(GuardWhy::LegState { detail: "more than one slot at once".to_owned() });
    }
    Ok(())
}

fn disconnect(array: &ArraySnapshot, namespaces: &[NamespaceSnapshot], nqn: &Nqn) -> Guarded {
    let own = namespaces.iter().filter(|namespace| namespace.nqn.is_known_and(|own| own == nqn));
    for namespace in own {
        if array.legs.iter().any(|leg| stands_on(leg, namespace)) {
            return Err(GuardWhy::StillUsed { detail: format!("{} is a leg", namespace.device) });
        }
    }
    idle_subsystem(namespaces, nqn)
}

/// Nobody uses any namespace of it.
fn idle_subsystem(namespaces: &[NamespaceSnapshot], nqn: &Nqn) -> Guarded {
    for namespace in namespaces {
        let of_subsystem = match &namespace.nqn {
            Observed::Known(own) => own == nqn,
            Observed::Unknown(_) => return Err(unknown("the NQN of a namespace")),
        };
        if !of_subsystem {
            continue;
        }
        let idle = namespace.holders.is_known_and(Vec::is_empty)
            && namespace.in_use.is_known_and(|used| !used);
        if !idle {
            return Err(GuardWhy::StillUsed { detail: namespace.device.to_string() });
        }
    }
    Ok(())
}
