//! Cuts: paths that nothing gets through and that do not know it, where nothing is lost with them.
//!
//! The kernel sends what waits on a dead path over another one only once it knows that the path is
//! dead, and a controller whose cable is out goes on believing in it until its keep-alive fails:
//! ten seconds and more in which an application waits although a path works. It believes its
//! sockets. So the dead path's are destroyed, and what waited there goes on elsewhere at once:
//!
//! ```text
//!   leg ─┬─ nvme1  live, link down    ◄── cut: live ► resetting ► connecting, again and again
//!        └─ nvme2  live, up           ──► takes over what nvme1 held
//! ```
//!
//! MD never hears of it, and nothing is armed for it: I/O that finds no path at all still queues or
//! fails as [`crate::arming`] says. So a cut needs no survivor among the legs and is right on the
//! last one too. What it needs is another path, to every namespace behind the controller.
//!
//! A leg that MD is still filling needs none. It is no copy yet, but every write of the application
//! goes to it as well and would wait there; what it holds is written again when it is back.
//!
//! The price: a path that was dead by mistake connects again and costs two seconds without it. So
//! none is cut twice within a minute ([`AGAIN`]).

use std::collections::BTreeMap;
use std::time::Duration;

use heal_types::{
    ArrayId, ArraySnapshot, Backing, ControllerName, ControllerRef, ControllerState, FastIoFail,
    HostSnapshot, LegSnapshot, Moment, NamespaceSnapshot, PathDoubt, PathHealth, PathSnapshot,
};

use crate::arming::{Ward, shared_controllers};
use crate::guards::mirror_set;

/// No controller is cut again before.
pub const AGAIN: Duration = Duration::from_secs(60);

/// When to try again what could not be cut.
const MISSED: Duration = Duration::from_secs(1);

/// A path to be cut.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cut {
    /// The array whose leg it leads to; of several, the first.
    pub array: ArrayId,
    /// Its controller.
    pub controller: ControllerRef,
    /// What is wrong with it.
    pub why: PathDoubt,
    /// How long it must have been so.
    pub after: Duration,
}

/// Which paths have been dead since when, and which are not to be cut again yet.
#[derive(Debug, Clone, Default)]
pub struct Cuts {
    since: BTreeMap<ControllerRef, Moment>,
    /// Who is not to be cut before that moment.
    not_before: BTreeMap<ControllerRef, Moment>,
}

impl Cuts {
    /// What is to be cut now, and when to ask again if nothing else happens. Each counts as cut
    /// from now on, unless it was [missed](Self::missed).
    pub fn due(
        &mut self,
        now: Moment,
        snapshot: &HostSnapshot,
        wards: &BTreeMap<ArrayId, Ward>,
    ) -> (Vec<Cut>, Option<Moment>) {
        let plan = plan(snapshot, wards);
        self.not_before.retain(|_, at| now < *at);
        self.since.retain(|path, _| plan.iter().any(|cut| cut.controller == *path));
        let (mut due, mut next) = (Vec::new(), None);
        for cut in plan {
            let since = *self.since.entry(cut.controller.clone()).or_insert(now);
            let allowed = self.not_before.get(&cut.controller).copied().unwrap_or(since);
            let at = since.after(cut.after).max(allowed);
            if at <= now {
                self.not_before.insert(cut.controller.clone(), now.after(AGAIN));
                due.push(cut);
            } else {
                next = next.into_iter().chain([at]).min();
            }
        }
        (due, next)
    }

    /// A cut that was due was not made: its sockets are as they were, and somebody may wait.
    pub fn missed(&mut self, now: Moment, controller: &ControllerRef) {
        self.not_before.insert(controller.clone(), now.after(MISSED));
    }
}

/// Every path that may be cut. `snapshot` is a look at the whole host, with the paths' verdicts in
/// it.
#[must_use]
pub fn plan(snapshot: &HostSnapshot, wards: &BTreeMap<ArrayId, Ward>) -> Vec<Cut> {
    let legs = snapshot.arrays.iter().flat_map(|array| &array.legs);
    if legs.flat_map(dead).next().is_none() {
        return Vec::new(); // As good as always.
    }
    let shared = shared_controllers(snapshot, wards);
    let mut plan: BTreeMap<&ControllerName, Option<Cut>> = BTreeMap::new();
    let ours = snapshot.arrays.iter().filter(|array| wards.contains_key(&array.id));
    for (array, leg) in ours.flat_map(|array| array.legs.iter().map(move |leg| (array, leg))) {
        for path in dead(leg).filter(|path| !shared.contains(&path.controller)) {
            let after = wards.get(&array.id).map_or(Duration::MAX, |ward| ward.isolate_after);
            let cut = of_leg(snapshot, array, leg, path, after);
            match plan.get_mut(&path.controller) {
                // One leg behind it that nothing else leads to is enough.
                Some(known) => {
                    *known = known
                        .take()
                        .zip(cut)
                        .map(|(one, other)| Cut { after: one.after.max(other.after), ..one });
                }
                None => drop(plan.insert(&path.controller, cut)),
            }
        }
    }
    plan.into_values().flatten().collect()
}

/// Whether `cut` still holds on a glance of this moment, with the paths' verdicts in it.
///
/// # Errors
/// What is against it.
pub fn permits(cut: &Cut, fresh: &HostSnapshot) -> Result<(), String> {
    let name = &cut.controller.name;
    let leads = |namespace: &&NamespaceSnapshot| {
        namespace.paths.iter().any(|path| path.controller == *name)
    };
    let Some(array) = fresh.arrays.iter().find(|array| array.id == cut.array) else {
        return Err(format!("array {} is not there", cut.array));
    };
    let behind = |leg: &LegSnapshot| leg.backing.namespace().is_some_and(|space| leads(&space));
    let mut behind = array.legs.iter().filter(|leg| behind(leg)).peekable();
    if behind.peek().is_none() {
        return Err(format!("{name} leads to no leg of {}", array.device));
    }
    if let Some(leg) = behind.find(|leg| leg.is_in_sync() && !some_leg_queues(array, leg)) {
        return Err(format!("nothing queues if {} is lost", leg.device));
    }
    for namespace in namespaces(fresh).filter(leads) {
        let Some(path) = namespace.paths.iter().find(|path| path.controller == *name) else {
            continue;
        };
        if !is_dead(path) {
            return Err(format!("{name} is {} and {}", path.state, path.health));
        }
        if !has_another(namespace, name) && !fresh.is_filled(namespace) {
            return Err(format!("nothing else leads to {}", namespace.device));
        }
    }
    Ok(())
}

/// Whether I/O waits if the leg's other paths go as well: it queues itself, or another leg in sync
/// that holds what it holds does. A leg queues while one path to it never fails
/// (`nvme_available_path`). Who was to queue may be gone, and the next plan of arming is not
/// carried out yet.
fn some_leg_queues(array: &ArraySnapshot, leg: &LegSnapshot) -> bool {
    let set = leg.slot.map(|slot| mirror_set(array, slot)).unwrap_or_default();
    let never_fails =
        |path: &PathSnapshot| path.fast_io_fail.is_known_and(|v| *v == FastIoFail::Off);
    array.in_sync().filter(|other| other.slot.is_some_and(|slot| set.contains(&slot))).any(
        |other| match &other.backing {
            Backing::Local => true,
            Backing::Namespace(namespace) => namespace.paths.iter().any(never_fails),
            Backing::Gone | Backing::Unreadable => false,
        },
    )
}

/// Every namespace, as a leg and by itself.
fn namespaces(snapshot: &HostSnapshot) -> impl Iterator<Item = &NamespaceSnapshot> {
    let legs = snapshot.arrays.iter().flat_map(|array| &array.legs);
    legs.filter_map(|leg| leg.backing.namespace()).chain(&snapshot.namespaces)
}

fn of_leg(
    snapshot: &HostSnapshot,
    array: &ArraySnapshot,
    leg: &LegSnapshot,
    path: &PathSnapshot,
    after: Duration,
) -> Option<Cut> {
    let namespace = leg.backing.namespace()?;
    let why = path.health.doubt()?;
    let controller = path.controller_ref(namespace.nqn.known()?)?;
    (has_another(namespace, &path.controller) || snapshot.is_filled(namespace)).then_some(Cut {
        array: array.id,
        controller,
        why,
        after,
    })
}

/// The paths to a leg that are dead and do not know it. A target that lets nothing through (ANA) is
/// asked by nobody anyway.
fn dead(leg: &LegSnapshot) -> impl Iterator<Item = &PathSnapshot> {
    let namespace = match &leg.backing {
        Backing::Namespace(namespace) => Some(namespace),
        Backing::Local | Backing::Gone | Backing::Unreadable => None,
    };
    namespace.into_iter().flat_map(|namespace| &namespace.paths).filter(|path| is_dead(path))
}

fn is_dead(path: &PathSnapshot) -> bool {
    let doubted = match path.health {
        PathHealth::Dead(PathDoubt::AnaInaccessible | PathDoubt::ControllerDown) => false,
        PathHealth::Dead(
            PathDoubt::LinkDown
            | PathDoubt::PortDown
            | PathDoubt::SocketStalled
            | PathDoubt::IoStalled
            | PathDoubt::KernelLog,
        ) => true,
        PathHealth::Up | PathHealth::Suspect(_) => false,
    };
    doubted && path.state.is_known_and(|state| *state == ControllerState::Live)
}

/// Whether I/O to the namespace has a path that works beside this one.
fn has_another(namespace: &NamespaceSnapshot, name: &ControllerName) -> bool {
    namespace.paths.iter().any(|path| path.controller != *name && path.is_usable())
}

#[cfg(test)]
mod tests {
    use heal_types::{LegFlag, LegFlags, Observed};

    use super::*;
    use crate::arming::tests::{DEAD, OFF, host, leg, mirror, namespace, on, path, wards};

    /// Two legs with two paths each.
    fn two_paths() -> HostSnapshot {
        let both = |slot: u16, one: u16| {
            let paths = vec![path(one, OFF), path(one + 1, FastIoFail::After(1))];
            leg(slot, Backing::Namespace(Box::new(namespace(one, one, paths))))
        };
        host(vec![mirror(1, vec![both(0, 1), both(1, 3)])])
    }

    fn dead(snapshot: &mut HostSnapshot, controller: &str) {
        on(snapshot, controller, |path| path.health = DEAD);
    }

    fn planned(snapshot: &HostSnapshot) -> Vec<String> {
        let plan = plan(snapshot, &wards(snapshot));
        assert!(plan.iter().all(|cut| permits(cut, snapshot).is_ok()));
        plan.into_iter().map(|cut| cut.controller.name.to_string()).collect()
    }

    #[test]
    fn a_dead_path_is_cut_where_its_leg_has_another() {
        let mut snapshot = two_paths();
        assert!(planned(&snapshot).is_empty());
        dead(&mut snapshot, "nvme2");
        assert_eq!(planned(&snapshot), ["nvme2"]);
        dead(&mut snapshot, "nvme3");
        assert_eq!(planned(&snapshot), ["nvme2", "nvme3"]);
    }

    #[test]
    fn the_last_path_of_a_leg_is_not_cut() {
        let mut snapshot = two_paths();
        dead(&mut snapshot, "nvme3");
        let cut = plan(&snapshot, &wards(&snapshot)).remove(0);
        dead(&mut snapshot, "nvme4");
        assert!(planned(&snapshot).is_empty());
        assert!(permits(&cut, &snapshot).is_err());
    }

    #[test]
    fn a_path_of_the_last_leg_is_not_cut_while_nothing_queues() {
        let mut snapshot = two_paths();
        dead(&mut snapshot, "nvme4");
        on(&mut snapshot, "nvme3", |path| {
            path.fast_io_fail = Observed::Known(FastIoFail::After(1));
        });
        let cut = plan(&snapshot, &wards(&snapshot)).remove(0);
        assert!(permits(&cut, &snapshot).is_ok(), "the other leg queues");
        snapshot.arrays[0].legs[0].flags = LegFlags::of(&[LegFlag::Faulty]);
        assert!(permits(&cut, &snapshot).is_err());
        on(&mut snapshot, "nvme3", |path| path.fast_io_fail = Observed::Known(OFF));
        assert!(permits(&cut, &snapshot).is_ok(), "it queues itself");
    }

    #[test]
    fn the_only_path_of_a_leg_that_is_still_filled_is_cut() {
        let mut snapshot = two_paths();
        dead(&mut snapshot, "nvme3");
        dead(&mut snapshot, "nvme4");
        assert!(planned(&snapshot).is_empty(), "it is a copy");
        snapshot.arrays[0].legs[1].flags = LegFlags::of(&[LegFlag::Spare]);
        assert_eq!(planned(&snapshot), ["nvme3", "nvme4"]);
        snapshot.arrays[0].legs[0].flags = LegFlags::of(&[LegFlag::Faulty]);
        assert!(planned(&snapshot).is_empty(), "it may be the best there is");
        snapshot.arrays[0].legs[0].flags = LegFlags::of(&[LegFlag::InSync]);
        snapshot.arrays[0].legs[1].flags = LegFlags::of(&[LegFlag::Spare, LegFlag::Replacement]);
        assert!(planned(&snapshot).is_empty(), "it becomes the leg it stands beside");
    }

    #[test]
    fn a_path_that_is_connecting_is_not_another_one() {
        let mut snapshot = two_paths();
        dead(&mut snapshot, "nvme3");
        on(&mut snapshot, "nvme4", |path| {
            path.state = Observed::Known(ControllerState::Connecting);
        });
        assert!(planned(&snapshot).is_empty());
    }

    #[test]
    fn who_knows_that_it_is_dead_is_left_alone() {
        let mut snapshot = two_paths();
        dead(&mut snapshot, "nvme3");
        on(&mut snapshot, "nvme3", |path| {
            path.state = Observed::Known(ControllerState::Resetting);
        });
        assert!(planned(&snapshot).is_empty());
        on(&mut snapshot, "nvme3", |path| {
            path.state = Observed::Known(ControllerState::Live);
            path.health = PathHealth::Dead(PathDoubt::AnaInaccessible);
        });
        assert!(planned(&snapshot).is_empty());
    }

    #[test]
    fn a_controller_is_cut_only_if_every_leg_behind_it_has_another() {
        let mut snapshot = two_paths();
        // A second array, one leg of which comes through nvme1 and nothing else.
        let alone = namespace(9, 1, vec![path(1, OFF)]);
        let legs = vec![leg(0, Backing::Namespace(Box::new(alone)))];
        snapshot.arrays.push(mirror(2, legs));
        let mut snapshot = host(snapshot.arrays);
        dead(&mut snapshot, "nvme1");
        assert!(planned(&snapshot).is_empty());
        dead(&mut snapshot, "nvme4");
        assert_eq!(planned(&snapshot), ["nvme4"]);
    }

    #[test]
    fn a_controller_with_a_strangers_namespace_is_not_cut() {
        let mut snapshot = two_paths();
        snapshot.namespaces.push(namespace(9, 1, vec![path(1, OFF), path(2, OFF)]));
        dead(&mut snapshot, "nvme1");
        assert!(planned(&snapshot).is_empty());
    }

    #[test]
    fn a_path_is_cut_once_after_its_time_and_not_again_within_a_minute() {
        let mut snapshot = two_paths();
        let mut wards = wards(&snapshot);
        let after = Duration::from_millis(250);
        wards.values_mut().for_each(|ward| ward.isolate_after = after);
        let mut cuts = Cuts::default();
        let begun = Moment(0).after(AGAIN);
        assert_eq!(cuts.due(begun, &snapshot, &wards), (vec![], None));
        dead(&mut snapshot, "nvme2");
        let (due, next) = cuts.due(begun, &snapshot, &wards);
        assert_eq!((due.len(), next), (0, Some(begun.after(after))));
        let cut = begun.after(after);
        assert_eq!(cuts.due(cut, &snapshot, &wards).0.len(), 1);
        let (due, next) = cuts.due(cut.after(after), &snapshot, &wards);
        assert_eq!((due.len(), next), (0, Some(cut.after(AGAIN))));
        assert_eq!(cuts.due(cut.after(AGAIN), &snapshot, &wards).0.len(), 1);
    }

    #[test]
    fn a_cut_that_was_missed_is_tried_again_soon() {
        let mut snapshot = two_paths();
        dead(&mut snapshot, "nvme2");
        let wards = wards(&snapshot);
        let mut cuts = Cuts::default();
        let begun = Moment(0).after(AGAIN);
        let cut = cuts.due(begun, &snapshot, &wards).0.remove(0);
        cuts.missed(begun, &cut.controller);
        assert_eq!(cuts.due(begun, &snapshot, &wards), (vec![], Some(begun.after(MISSED))));
        assert_eq!(cuts.due(begun.after(MISSED), &snapshot, &wards).0, [cut]);
    }

    #[test]
    fn a_path_that_recovers_in_time_is_not_cut() {
        let well = two_paths();
        let mut snapshot = two_paths();
        dead(&mut snapshot, "nvme2");
        let mut wards = wards(&snapshot);
        wards.values_mut().for_each(|ward| ward.isolate_after = Duration::from_secs(2));
        let mut cuts = Cuts::default();
        let at = |seconds| Moment(0).after(AGAIN + Duration::from_secs(seconds));
        cuts.due(at(0), &snapshot, &wards);
        cuts.due(at(1), &well, &wards);
        assert_eq!(cuts.due(at(2), &snapshot, &wards), (vec![], Some(at(4))));
    }

    #[test]
    fn an_array_that_is_no_ward_is_not_touched() {
        let mut snapshot = two_paths();
        dead(&mut snapshot, "nvme1");
        assert!(plan(&snapshot, &BTreeMap::new()).is_empty());
    }
}
