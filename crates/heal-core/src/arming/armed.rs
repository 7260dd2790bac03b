//! What was armed because of us, and when it is set back.
//!
//! ```text
//!   leads to a leg of a ward ──────────────────────────────────────► stays
//!   leads to that and to a stranger, or its array is no ward ──────► at once
//!   leads to no leg ───────────────────────────────────────────────► after a second
//! ```
//!
//! A leg that returns stands beside its array until MD has it again. Setting its controller back
//! for that moment, and to ours again, would be two writes and as many looks in the way of the
//! re-add.
//!
//! A controller outlives the namespace it led to, so it is looked for among all of them.
//!
//! **The price.** What an earlier life armed is known by what it leads to, or by the record of the
//! leg that was lost. A life that ends in the second after it put a leg away leaves that leg's
//! controller armed until a leg is behind it again, or it goes.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use heal_types::{
    ArrayId, ControllerName, ControllerRef, ControllerSnapshot, FastIoFail, HostSnapshot, Moment,
    NamespaceId, NamespaceSnapshot, Nqn, Observed,
};

use super::{ArmWhy, Arming, Ward, named_paths, namespaces, ours, paths, shared_controllers};

/// How long a controller must have led to no leg of its array before it is set back. From the
/// return of a leg to its re-add are tens of milliseconds; what stays away for a second stays away.
const PATIENCE: Duration = Duration::from_secs(1);

/// A leg that an array lost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LostLeg {
    /// Its subsystem.
    pub nqn: Nqn,
    /// Its namespace.
    pub namespace: NamespaceId,
}

/// The controllers that are armed because of us.
#[derive(Debug, Clone, Default)]
pub struct Armed {
    /// And for whom.
    ours: BTreeMap<ControllerRef, ArrayId>,
    /// Those that lead to no leg of theirs, since when.
    astray: BTreeMap<ControllerRef, Moment>,
    /// When the first of those is due that are not yet.
    next: Option<Moment>,
}

impl Armed {
    /// Takes in what was armed by us, maybe in an earlier life: whatever is armed on a leg of an
    /// array that is ours to act on, or leads to nothing but a leg that such an array lost.
    /// `healed` are those arrays, and these legs. What is gone is forgotten.
    pub fn inherit(&mut self, snapshot: &HostSnapshot, healed: &BTreeMap<ArrayId, Vec<LostLeg>>) {
        // A look that failed shows none.
        if !snapshot.controllers.is_empty() {
            let is_there =
                |it: &ControllerRef| snapshot.controllers.iter().any(|all| all.name == it.name);
            self.ours.retain(|controller, _| is_there(controller));
        }
        for shown in snapshot.controllers.iter().filter(|shown| is_armed(shown.fast_io_fail)) {
            let Some(controller) = shown.reference() else { continue };
            let leads_to = |lost: &LostLeg| leads_to_nothing_but(snapshot, &controller, lost);
            let mut losers = healed.iter().filter(|(_, lost)| lost.iter().any(leads_to));
            if let Some((array, _)) = losers.next() {
                self.ours.insert(controller, *array);
            }
        }
        for array in snapshot.arrays.iter().filter(|array| healed.contains_key(&array.id)) {
            for (path, controller) in array.legs.iter().flat_map(named_paths) {
                if is_armed(path.fast_io_fail) {
                    self.ours.insert(controller, array.id);
                }
            }
        }
    }

    /// This was written.
    pub fn wrote(&mut self, step: &Arming) {
        match step.want {
            FastIoFail::After(_) => drop(self.ours.insert(step.controller.clone(), step.array)),
            FastIoFail::Off => drop(self.ours.remove(&step.controller)),
        }
    }

    /// What is armed because of us, and not because of these wards: to be set back, some day.
    #[must_use]
    pub fn released(
        &self,
        snapshot: &HostSnapshot,
        wards: &BTreeMap<ArrayId, Ward>,
    ) -> Vec<Arming> {
        let shared = shared_controllers(snapshot, wards);
        let kept: BTreeSet<&ControllerName> = ours(snapshot, wards)
            .flat_map(|(array, _)| &array.legs)
            .flat_map(paths)
            .map(|path| &path.controller)
            .collect();
        let why = |controller: &ControllerRef, array: &ArrayId| {
            if !wards.contains_key(array) {
                Some(ArmWhy::Unwatched)
            } else if !kept.contains(&controller.name) {
                Some(ArmWhy::Astray)
            } else {
                shared.contains(&controller.name).then_some(ArmWhy::Stranger)
            }
        };
        let set_back = |it: &ControllerSnapshot| {
            let controller = it.reference()?;
            let array = *self.ours.get(&controller)?;
            let why = why(&controller, &array)?;
            Some(Arming { array, controller, shows: it.fast_io_fail, want: FastIoFail::Off, why })
        };
        let armed = snapshot.controllers.iter().filter(|it| is_armed(it.fast_io_fail));
        armed.filter_map(set_back).collect()
    }

    /// Of that, what is to be set back now.
    #[must_use]
    pub fn due(
        &mut self,
        now: Moment,
        snapshot: &HostSnapshot,
        wards: &BTreeMap<ArrayId, Ward>,
    ) -> Vec<Arming> {
        let before = std::mem::take(&mut self.astray);
        self.next = None;
        let mut due = self.released(snapshot, wards);
        due.retain(|step| {
            if step.why != ArmWhy::Astray {
                return true;
            }
            let since = before.get(&step.controller).copied().unwrap_or(now);
            self.astray.insert(step.controller.clone(), since);
            let at = since.after(PATIENCE);
            if at > now {
                self.next = Some(self.next.map_or(at, |next| next.min(at)));
            }
            at <= now
        });
        due
    }

    /// When more of it is due.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Moment> {
        self.next
    }

    /// Whether more of it is due; not twice.
    #[must_use]
    pub fn is_time(&mut self, now: Moment) -> bool {
        self.next.take_if(|at| *at <= now).is_some()
    }
}

fn is_armed(shows: Observed<FastIoFail>) -> bool {
    shows.is_known_and(|value| *value != FastIoFail::Off)
}

fn leads_to_nothing_but(
    snapshot: &HostSnapshot,
    controller: &ControllerRef,
    lost: &LostLeg,
) -> bool {
    let leads_to = |namespace: &&NamespaceSnapshot| {
        namespace.paths.iter().any(|path| path.controller == controller.name)
    };
    let mut all = namespaces(snapshot).filter(leads_to);
    lost.nqn == controller.nqn && all.all(|namespace| namespace.goes_by(&lost.namespace))
}

#[cfg(test)]
mod tests;
