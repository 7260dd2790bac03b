//! Acts on one member's `state`: fail, remove, clear the wish for a replacement.

use heal_types::{
    ArrayId, ArraySnapshot, Backing, FailWhy, HostSnapshot, LegFlag, LegRef, LegSnapshot, Outcome,
    UnknownWhy,
};

use super::{LinuxHost, Step, guard, identity, not_done, not_in_that_state};
use crate::exec::{Subject, argv};
use crate::helper::Verb;

impl LinuxHost {
    /// A device that is gone, where MD has not noticed, or a copy that works and is one too many.
    pub(super) fn fail_leg(&self, id: ArrayId, wanted: &LegRef, why: FailWhy) -> Step<Outcome> {
        self.nobody_hangs_on(&[Subject::Array(id)])?;
        let before = self.before();
        let array = identity::array(&before, id)?;
        let Some(leg) = identity::leg(array, wanted)? else {
            return Ok(Outcome::AlreadySo);
        };
        if leg.is_faulty() {
            return Ok(Outcome::AlreadySo);
        }
        match why {
            FailWhy::DeviceGone if leg.backing != Backing::Gone => {
                return Err(not_in_that_state(format!("the device of {} is there", leg.device)));
            }
            FailWhy::DeviceGone => {}
            FailWhy::NoLongerWanted => guard::every_other_slot_is_good(array, leg)?,
        }
        guard::survives_without(array, leg)?;
        Ok(self.write_state(array, leg, Verb::Faulty, |found| {
            found.is_none_or(LegSnapshot::is_faulty)
        }))
    }

    pub(super) fn remove_leg(&self, id: ArrayId, wanted: &LegRef) -> Step<Outcome> {
        self.nobody_hangs_on(&[Subject::Array(id)])?;
        let before = self.before();
        let array = identity::array(&before, id)?;
        let Some(leg) = identity::leg(array, wanted)? else {
            return Ok(Outcome::AlreadySo);
        };
        if !leg.is_faulty() && !leg.is_spare() {
            return Err(not_in_that_state(format!(
                "{} is neither faulty nor an idle spare: {}",
                leg.device, leg.flags
            )));
        }
        Ok(self.write_state(array, leg, Verb::Remove, |found| found.is_none()))
    }

    pub(super) fn clear_want_replacement(&self, id: ArrayId, wanted: &LegRef) -> Step<Outcome> {
        self.nobody_hangs_on(&[Subject::Array(id)])?;
        let before = self.before();
        let array = identity::array(&before, id)?;
        let Some(leg) = identity::leg(array, wanted)? else {
            return Err(not_in_that_state(format!("{} is no leg of it", wanted.device)));
        };
        if !leg.flags.has(LegFlag::WantReplacement) {
            return Ok(Outcome::AlreadySo);
        }
        if let Some(taking_over) = replacement_of(array, leg) {
            return Err(not_in_that_state(format!(
                "{} takes the place of {} already",
                taking_over.device, leg.device
            )));
        }
        Ok(self.write_state(array, leg, Verb::ClearWantReplacement, |found| {
            found.is_some_and(|leg| !leg.flags.has(LegFlag::WantReplacement))
        }))
    }

    /// Writes the word, and answers `Changed` once the leg of that name is as `wanted` says.
    fn write_state(
        &self,
        array: &ArraySnapshot,
        leg: &LegSnapshot,
        verb: Verb,
        wanted: impl Fn(Option<&LegSnapshot>) -> bool,
    ) -> Outcome {
        let ended = self.run(&argv::set_attribute(array.id, &array.device, &leg.device, verb));
        let shown = |after: &HostSnapshot| {
            in_array(after, array.id, |array| {
                wanted(bound_as(array, leg)).then_some(Outcome::Changed)
            })
        };
        self.read_back(&ended, shown, not_done)
    }
}

/// The leg that is taking `leg`'s place.
pub(super) fn replacement_of<'a>(
    array: &'a ArraySnapshot,
    leg: &LegSnapshot,
) -> Option<&'a LegSnapshot> {
    array
        .legs
        .iter()
        .filter(|other| other.slot.is_some() && other.slot == leg.slot)
        .find(|other| other.flags.has(LegFlag::Replacement) && other.device != leg.device)
}

/// What the array shows now; without the array nobody can say what became of the act.
pub(super) fn in_array(
    snapshot: &HostSnapshot,
    id: ArrayId,
    shown: impl FnOnce(&ArraySnapshot) -> Option<Outcome>,
) -> Option<Outcome> {
    match identity::array(snapshot, id) {
        Ok(array) => shown(array),
        Err(Outcome::Unknown(why)) => Some(Outcome::Unknown(why)),
        Err(_) => Some(Outcome::Unknown(UnknownWhy::Vanished)),
    }
}

fn bound_as<'a>(array: &'a ArraySnapshot, leg: &LegSnapshot) -> Option<&'a LegSnapshot> {
    array.legs.iter().find(|other| other.device == leg.device)
}
