//! How one slot looks, read from a snapshot: the step from sysfs facts to signals.

use heal_types::{
    ArraySnapshot, Backing, ControllerState, LegSnapshot, NamespaceId, NamespaceSnapshot, Nqn,
    Observed, PathDoubt, PathHealth, PathSnapshot, Replica, Slot, Volume,
};

use crate::record::Member;
use crate::why::DoubtWhy;

/// One slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SlotView<'a> {
    /// In sync, device present, a path usable.
    Good(&'a LegSnapshot),
    /// In sync as far as MD knows, and something says otherwise.
    Doubtful(DoubtWhy),
    /// Being filled.
    Recovering,
    /// Given up by MD.
    Failed,
    /// Nobody holds it.
    Vacant,
    /// What there is to see does not allow a conclusion.
    Unclear,
}

/// How `slot` of `array` looks.
pub(crate) fn slot_view(array: &ArraySnapshot, slot: Slot) -> SlotView<'_> {
    let Some(leg) = array.leg_in(slot) else {
        return SlotView::Vacant;
    };
    if leg.is_faulty() {
        return SlotView::Failed;
    }
    if leg.is_recovering() {
        return SlotView::Recovering;
    }
    match &leg.backing {
        Backing::Local => SlotView::Good(leg),
        Backing::Gone => SlotView::Doubtful(DoubtWhy::DeviceGone),
        Backing::Unreadable => SlotView::Unclear,
        Backing::Namespace(namespace) => match leg_health(namespace) {
            Some(PathHealth::Up) => SlotView::Good(leg),
            Some(PathHealth::Suspect(why)) => SlotView::Doubtful(DoubtWhy::PathSuspect(why)),
            Some(PathHealth::Dead(why)) => SlotView::Doubtful(DoubtWhy::PathDead(why)),
            None => SlotView::Unclear,
        },
    }
}

/// Whether nobody can tell which namespace a leg is: its device is gone, or its attributes are not
/// filled in yet.
pub(crate) fn is_nameless(leg: &LegSnapshot) -> bool {
    match &leg.backing {
        Backing::Gone | Backing::Unreadable => true,
        Backing::Namespace(namespace) => namespace.ids.known().is_none(),
        Backing::Local => false,
    }
}

/// How the paths to a namespace are, taken together: the best of them. `None` when none is usable
/// and something about them is not known.
pub(crate) fn leg_health(namespace: &NamespaceSnapshot) -> Option<PathHealth> {
    let mut best: Option<PathHealth> = None;
    let mut unknown = false;
    for path in &namespace.paths {
        match path_health(path) {
            Some(PathHealth::Up) => return Some(PathHealth::Up),
            Some(health) => best = Some(best.map_or(health, |best| best.min(health))),
            None => unknown = true,
        }
    }
    let none_left = PathHealth::Dead(PathDoubt::ControllerDown);
    (!unknown).then(|| best.unwrap_or(none_left))
}

/// How one path is: the path machine's verdict, and where it has none, what sysfs says.
fn path_health(path: &PathSnapshot) -> Option<PathHealth> {
    use ControllerState::{Connecting, Dead, Deleting, DeletingNoIo, Live, New, Resetting};
    let own = match &path.state {
        Observed::Known(Live) => PathHealth::Up,
        Observed::Known(New | Resetting) => PathHealth::Suspect(PathDoubt::ControllerDown),
        Observed::Known(Connecting | Deleting | DeletingNoIo | Dead) => {
            PathHealth::Dead(PathDoubt::ControllerDown)
        }
        Observed::Unknown(_) => return None,
    };
    let ana = match path.ana_usable {
        Observed::Known(true) => PathHealth::Up,
        Observed::Known(false) => PathHealth::Suspect(PathDoubt::AnaInaccessible),
        // A controller that is not live shows no ANA state worth anything.
        Observed::Unknown(_) if own == PathHealth::Up => return None,
        Observed::Unknown(_) => PathHealth::Up,
    };
    Some(worse(worse(own, ana), path.health))
}

/// The graver of two words on a path; of two that are as grave, the later one, which knows more.
fn worse(a: PathHealth, b: PathHealth) -> PathHealth {
    let grave = |health| match health {
        PathHealth::Up => 0,
        PathHealth::Suspect(_) => 1,
        PathHealth::Dead(_) => 2,
    };
    if grave(b) >= grave(a) { b } else { a }
}

/// The bound leg that is the namespace `id`.
pub(crate) fn leg_of<'a>(array: &'a ArraySnapshot, id: &NamespaceId) -> Option<&'a LegSnapshot> {
    array.legs.iter().find(|leg| leg.is_namespace(id))
}

/// The legs of `member` that are still bound and faulty, whatever became of their devices: one,
/// unless another hand added it anew and it failed again.
pub(crate) fn bound_faulty<'a>(
    array: &'a ArraySnapshot,
    slot: Slot,
    member: Option<&'a Member>,
) -> impl Iterator<Item = &'a LegSnapshot> {
    array.legs.iter().filter(move |leg| {
        let same_slot = leg.slot == Some(slot);
        let same_name = member.is_some_and(|m| m.device.as_ref() == Some(&leg.device));
        let same_space = member.and_then(|m| m.namespace).is_some_and(|id| leg.is_namespace(&id));
        leg.is_faulty() && (same_slot || same_name || same_space)
    })
}

/// The namespace that goes by `id`, in that subsystem if one is named, if it is present.
pub(crate) fn namespace_of<'a>(
    namespaces: &'a [NamespaceSnapshot],
    id: &NamespaceId,
    nqn: Option<&Nqn>,
) -> Option<&'a NamespaceSnapshot> {
    let of_subsystem = |namespace: &NamespaceSnapshot| {
        nqn.is_none_or(|nqn| namespace.nqn.is_known_and(|own| own == nqn))
    };
    namespaces.iter().find(|namespace| namespace.goes_by(id) && of_subsystem(namespace))
}

/// Who a leg is, with the replica it is in `volume`.
pub(crate) fn member_of(leg: &LegSnapshot, volume: Option<&Volume>) -> Member {
    let mut member = Member {
        device: Some(leg.device.clone()),
        dev: None,
        md_device: leg.md_device.known().copied(),
        namespace: None,
        nqn: None,
        replica: None,
    };
    let Backing::Namespace(namespace) = &leg.backing else {
        return member;
    };
    member.dev = Some(namespace.dev);
    member.nqn = namespace.nqn.known().cloned();
    let replica = volume.iter().flat_map(|volume| &volume.replicas).find(|replica| {
        namespace.goes_by(&replica.target.namespace)
            && namespace.nqn.is_known_and(|nqn| *nqn == replica.target.nqn)
    });
    member.replica = replica.map(|replica| replica.id.clone());
    member.namespace = match replica {
        Some(replica) => Some(replica.target.namespace),
        None => namespace.ids.known().and_then(|ids| ids.iter().next().copied()),
    };
    member
}

/// A replica that was never seen as a leg, as a member.
pub(crate) fn member_of_replica(replica: &Replica) -> Member {
    Member {
        device: None,
        dev: None,
        md_device: None,
        namespace: Some(replica.target.namespace),
        nqn: Some(replica.target.nqn.clone()),
        replica: Some(replica.id.clone()),
    }
}
