//! Heals the blocks of a leg that MD must not read, without replacing the leg.

use heal_types::{
    ArrayId, Backing, HostSnapshot, LegRef, Level, Observed, Outcome, RetryWhy, SyncAction,
};

use super::legs::in_array;
use super::{LinuxHost, SOON, Step, guard, guarded, identity, not_done, not_in_that_state, retry};
use crate::exec::{Subject, argv};

impl LinuxHost {
    /// A repair of a few blocks. It writes to the leg and rests on the others, so all of them are
    /// whole, and nothing else is under way.
    pub(super) fn rewrite_bad_blocks(&self, id: ArrayId, wanted: &LegRef) -> Step<Outcome> {
        self.nobody_hangs_on(&[Subject::Array(id)])?;
        let before = self.see();
        let array = identity::array(&before, id)?;
        let Some(leg) = identity::leg(array, wanted)? else {
            return Err(not_in_that_state(format!("{} is no leg of it", wanted.device)));
        };
        match leg.bad_blocks {
            Observed::Known(true) => {}
            Observed::Known(false) => return Ok(Outcome::AlreadySo),
            Observed::Unknown(why) => return Err(Outcome::Unknown(why)),
        }
        match array.level {
            Level::Raid1 => {}
            Level::Raid10 { .. } | Level::Other => {
                return Err(guarded("only a mirror's repair writes bad blocks again"));
            }
        }
        if !array.state.is_known_and(|state| state.is_running()) {
            return Err(not_in_that_state(format!("{} is {}", array.device, array.state)));
        }
        if array.reshaping || !array.sync_action.is_known_and(|it| *it == SyncAction::Idle) {
            return Err(retry(SOON, RetryWhy::Busy));
        }
        if !leg.is_in_sync() {
            return Err(not_in_that_state(format!("{} is {}", leg.device, leg.flags)));
        }
        if let Backing::Namespace(namespace) = &leg.backing {
            identity::reachable(namespace)?;
        }
        guard::every_other_slot_is_good(array, leg)?;
        let ended = self.run(&argv::rewrite_bad_blocks(id, &array.device, &leg.device));
        let shown = |after: &HostSnapshot| {
            in_array(after, id, |array| {
                let leg = array.legs.iter().find(|other| other.device == leg.device)?;
                (leg.bad_blocks == Observed::Known(false)).then_some(Outcome::Changed)
            })
        };
        Ok(self.read_back(&ended, shown, not_done))
    }
}
