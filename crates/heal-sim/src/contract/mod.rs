//! What a host promises, as cases that run on the one in memory and on a real kernel alike.
//!
//! The simulator finds faults in the healer only as far as its kernel is like the real one. So what
//! the healer relies on stands here as cases over [`HostPort`], and each runs in both places:
//!
//! ```text
//!   CASES ──► Rig ──┬── FakeRig   FakeKernel                    `cargo test -p heal-sim`, milliseconds
//!                   └── LabRig    LinuxHost, md, nvmet over TCP  in the lab's VM (heal-host/examples)
//! ```
//!
//! A [`Rig`] is the hand from outside: it sets the stage, takes a target away and gives it back,
//! writes, and lets time pass. Whatever a case says of the host, it says through the port. Where
//! the two differ, the fake is wrong.
//!
//! One difference is meant: the real host guards the last good leg itself, and the fake does not,
//! so that a healer whose own guards fail is seen to do harm. No case is about that.
//!
//! The price: only what can be staged with two targets and a spare, and no more than a look can
//! see.

mod cases;
mod fake;

use std::fmt;
use std::time::Duration;

use heal_types::{
    ArrayId, ArraySnapshot, Backing, DeviceIdentity, HostAction, HostPort, HostSnapshot, LegRef,
    LegSnapshot, NamespaceSnapshot, Observed, Outcome, RefusedWhy, Target,
};

pub use cases::CASES;
pub use fake::FakeRig;

/// What a case finds: a whole RAID1 array with a bitmap.
#[derive(Debug, Clone)]
pub struct Stage {
    /// The array.
    pub array: ArrayId,
    /// What its two legs stand on, in the order of their slots.
    pub legs: [Target; 2],
    /// Something as large, blank, and not connected.
    pub spare: Target,
}

/// The hand from outside.
pub trait Rig {
    /// The stage that was set.
    fn stage(&self) -> &Stage;

    /// The host.
    fn host(&mut self) -> &mut dyn HostPort;

    /// The target stops exporting its namespace, or does so again; its controllers stay.
    fn export(&mut self, target: &Target, exported: bool);

    /// An application writes to the array, here and there, and is answered.
    fn write(&mut self);

    /// Time passes.
    fn wait(&mut self, time: Duration);
}

/// One promise.
#[derive(Debug, Clone, Copy)]
pub struct Case {
    /// As a sentence.
    pub name: &'static str,
    /// Whether it leaves the stage as it found it, so that the next one need not have another.
    pub leaves_no_trace: bool,
    /// Shows that it is kept, on a fresh stage or on one that nobody left a trace on.
    pub run: fn(&mut Play<'_>) -> Result<(), Broken>,
}

/// How a promise is broken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broken(String);

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Broken {}

/// How long whatever happens by itself may take: a rebuild on an emulated machine among it.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often it is looked whether it has happened.
const PAUSE: Duration = Duration::from_millis(250);

/// A rig, and the questions that cases ask of it.
#[allow(missing_debug_implementations, reason = "a rig need not be shown")]
pub struct Play<'r> {
    rig: &'r mut dyn Rig,
}

impl<'r> Play<'r> {
    /// With this rig.
    #[must_use]
    pub fn new(rig: &'r mut dyn Rig) -> Self {
        Self { rig }
    }

    fn stage(&self) -> Stage {
        self.rig.stage().clone()
    }

    fn look(&mut self) -> HostSnapshot {
        self.rig.host().look()
    }

    fn array(&mut self) -> Result<ArraySnapshot, Broken> {
        let id = self.rig.stage().array;
        let snapshot = self.look();
        let mut found = snapshot.arrays.into_iter().filter(|array| array.id == id);
        found.next().ok_or_else(|| Broken(format!("no array {id} is seen")))
    }

    /// The namespace of `target`, found by its id.
    fn namespace(&mut self, target: &Target) -> Result<NamespaceSnapshot, Broken> {
        let id = target.namespace;
        let mut found = self.look().namespaces.into_iter().filter(|seen| seen.goes_by(&id));
        found.next().ok_or_else(|| Broken(format!("no device goes by {id}")))
    }

    fn identity(&mut self, target: &Target) -> Result<DeviceIdentity, Broken> {
        let seen = self.namespace(target)?;
        seen.identity(&target.namespace).ok_or_else(|| Broken(format!("{} is nobody", seen.device)))
    }

    /// The leg that stands on `target`.
    fn leg(&mut self, target: &Target) -> Result<LegSnapshot, Broken> {
        let array = self.array()?;
        stands_on(&array, target).cloned().ok_or_else(|| {
            Broken(format!("no leg stands on {}: {}", target.namespace, shown(&array)))
        })
    }

    /// Asks for an act until it no longer answers "later".
    fn act(&mut self, action: &HostAction) -> Outcome {
        let mut left = PATIENCE;
        loop {
            let outcome = self.rig.host().act(action).outcome;
            let Outcome::Retry { after, .. } = &outcome else { return outcome };
            let after = (*after).max(PAUSE);
            if left < after {
                return outcome;
            }
            left -= after;
            self.rig.wait(after);
        }
    }

    fn expect(&mut self, action: &HostAction, wanted: &Outcome) -> Result<(), Broken> {
        let outcome = self.act(action);
        ensure(outcome == *wanted, || format!("{}: {outcome}, not {wanted}", action.verb()))
    }

    /// Refused, and for this reason: an act that fails for another one shows nothing.
    fn expect_refused(
        &mut self,
        action: &HostAction,
        is_why: fn(&RefusedWhy) -> bool,
    ) -> Result<(), Broken> {
        match self.act(action) {
            Outcome::Refused(why) if is_why(&why) => Ok(()),
            outcome @ (Outcome::Refused(_)
            | Outcome::Changed
            | Outcome::AlreadySo
            | Outcome::Retry { .. }
            | Outcome::Unknown(_)) => Err(Broken(format!("{}: {outcome}", action.verb()))),
        }
    }

    /// Waits until the array shows what `done` is after.
    fn until(
        &mut self,
        what: &str,
        mut done: impl FnMut(&ArraySnapshot) -> bool,
    ) -> Result<ArraySnapshot, Broken> {
        let mut left = PATIENCE;
        loop {
            let array = self.array()?;
            if done(&array) {
                return Ok(array);
            }
            left = left.checked_sub(PAUSE).ok_or_else(|| {
                Broken(format!("not within {PATIENCE:?}: {what}: {}", shown(&array)))
            })?;
            self.rig.wait(PAUSE);
        }
    }

    /// Waits until a device goes by the id of `target`, with a path that works.
    fn until_there(&mut self, target: &Target) -> Result<DeviceIdentity, Broken> {
        let mut left = PATIENCE;
        loop {
            let seen = self.namespace(target);
            if seen.as_ref().is_ok_and(NamespaceSnapshot::has_usable_path) {
                return self.identity(target);
            }
            left = left
                .checked_sub(PAUSE)
                .ok_or_else(|| Broken(format!("{} does not come", target.namespace)))?;
            self.rig.wait(PAUSE);
        }
    }

    /// Takes the second leg's target away, and writes until MD has noticed and takes writes again.
    fn lose_the_second(&mut self) -> Result<LegSnapshot, Broken> {
        let [_, second] = self.stage().legs;
        let before = self.leg(&second)?;
        self.rig.export(&second, false);
        for _ in 0..240 {
            self.rig.write();
            let array = self.array()?;
            let mut legs = array.legs.iter();
            let leg = legs.find(|leg| leg.device == before.device);
            if leg.is_none_or(|leg| !leg.is_in_sync() && leg.slot.is_none()) {
                return self.write_until_it_runs().map(|()| before);
            }
            self.rig.wait(PAUSE);
        }
        Err(Broken(format!("MD does not give {} up: {}", before.device, shown(&self.array()?))))
    }

    /// Writes as the application would. `mdadm -If` of the stock udev rules makes an array that
    /// nobody holds `read-auto` when a leg goes (mdadm 4.2, `IncrementalRemove`), and it comes when
    /// udev gets to it: an act would be refused for that and for nothing else.
    fn write_until_it_runs(&mut self) -> Result<(), Broken> {
        let runs = |array: &ArraySnapshot| array.state.is_known_and(|state| state.is_running());
        for _ in 0..240 {
            self.rig.wait(PAUSE);
            self.rig.write();
            if runs(&self.array()?) {
                return Ok(());
            }
        }
        Err(Broken(format!("it does not run: {:?}", self.array()?.state)))
    }

    /// The reference to a leg as it is bound now, or was.
    fn bound(&mut self, leg: &LegSnapshot) -> Result<LegRef, Broken> {
        let array = self.array()?;
        let now = array.legs.iter().find(|now| now.device == leg.device);
        let gone = LegRef { slot: None, identity: None, ..reference(leg) };
        Ok(now.map_or(gone, reference))
    }
}

fn reference(leg: &LegSnapshot) -> LegRef {
    let identity = match &leg.backing {
        Backing::Namespace(seen) => {
            let id = seen.ids.known().and_then(|ids| ids.iter().next().copied());
            id.and_then(|id| seen.identity(&id))
        }
        Backing::Local | Backing::Gone | Backing::Unreadable => None,
    };
    LegRef {
        device: leg.device.clone(),
        slot: leg.slot,
        md_device: leg.md_device.known().copied(),
        identity,
    }
}

fn stands_on<'a>(array: &'a ArraySnapshot, target: &Target) -> Option<&'a LegSnapshot> {
    array.legs.iter().find(|leg| match &leg.backing {
        Backing::Namespace(seen) => seen.goes_by(&target.namespace),
        Backing::Local | Backing::Gone | Backing::Unreadable => false,
    })
}

/// An array in one line: its legs, their slots and flags.
fn shown(array: &ArraySnapshot) -> String {
    let legs = array.legs.iter().map(|leg| {
        let slot = leg.slot.map_or("-".to_owned(), |slot| slot.to_string());
        format!("{} in {slot} ({})", leg.device, leg.flags)
    });
    let legs: Vec<String> = legs.collect();
    format!("{} of {}: {}", array.device, array.raid_disks, legs.join(", "))
}

fn is_whole(array: &ArraySnapshot) -> bool {
    array.degraded == Observed::Known(0)
        && array.legs.iter().filter(|leg| leg.is_in_sync()).count() == usize::from(array.raid_disks)
}

fn ensure(holds: bool, otherwise: impl FnOnce() -> String) -> Result<(), Broken> {
    if holds { Ok(()) } else { Err(Broken(otherwise())) }
}
