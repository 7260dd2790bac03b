//! Finds in a fresh snapshot what an action names, and nothing that merely resembles it.

use heal_types::{
    ArrayId, ArraySnapshot, Backing, DeviceIdentity, DiskSeq, HostSnapshot, LegRef, LegSnapshot,
    NamespaceSnapshot, Observed, Outcome, RefusedWhy, RetryWhy, UnknownWhy,
};

use super::{SOON, Step, other_device, retry};

/// The array `id`, under whatever name it has now.
pub(super) fn array(snapshot: &HostSnapshot, id: ArrayId) -> Step<&ArraySnapshot> {
    let mut found = snapshot.arrays.iter().filter(|array| array.id == id);
    match (found.next(), found.next()) {
        (Some(array), None) => Ok(array),
        // It may be one of those that could not be read: "gone" would be a claim.
        (None, _) if !snapshot.unreadable.is_empty() => {
            Err(Outcome::Unknown(UnknownWhy::ReadFailed))
        }
        // Two arrays of one id are two halves of one: neither is the one that was meant.
        (None, _) | (Some(_), Some(_)) => Err(Outcome::Refused(RefusedWhy::NotThatArray)),
    }
}

/// What a namespace is named by, if any of its ids is known.
pub(super) fn of(namespace: &NamespaceSnapshot) -> Option<DeviceIdentity> {
    let id = namespace.ids.known()?.iter().next().copied()?;
    namespace.identity(&id)
}

/// The namespace that `identity` names, if everything about it is still the same.
pub(super) fn device<'s>(
    snapshot: &'s HostSnapshot,
    identity: &DeviceIdentity,
) -> Step<&'s NamespaceSnapshot> {
    let named = snapshot.namespaces.iter().find(|namespace| namespace.device == identity.device);
    let mut known =
        snapshot.namespaces.iter().filter(|namespace| namespace.goes_by(&identity.namespace));
    match (known.next(), known.next()) {
        (Some(namespace), None) => same(namespace, identity).map(|()| namespace),
        (Some(one), Some(two)) => Err(other_device(format!(
            "{} and {} both go by {}",
            one.device, two.device, identity.namespace
        ))),
        (None, _) => Err(match named.map(|namespace| &namespace.ids) {
            Some(Observed::Unknown(why)) => Outcome::Unknown(*why),
            Some(Observed::Known(ids)) => {
                other_device(format!("{} is {ids}, not {}", identity.device, identity.namespace))
            }
            None => other_device(format!("no device goes by {}", identity.namespace)),
        }),
    }
}

/// Whether `namespace` is the very device that was seen as `identity`.
pub(super) fn same(namespace: &NamespaceSnapshot, identity: &DeviceIdentity) -> Step<()> {
    if !namespace.goes_by(&identity.namespace) {
        return match &namespace.ids {
            Observed::Unknown(why) => Err(Outcome::Unknown(*why)),
            Observed::Known(ids) => Err(differs("namespace", ids, &identity.namespace)),
        };
    }
    if namespace.device != identity.device {
        return Err(differs("device name", &namespace.device, &identity.device));
    }
    if namespace.dev != identity.dev {
        return Err(differs("device number", &namespace.dev, &identity.dev));
    }
    if !same_disk(namespace.diskseq, identity.diskseq) {
        return Err(differs("disk sequence number", &namespace.diskseq, &identity.diskseq));
    }
    match &namespace.nqn {
        Observed::Known(nqn) if *nqn == identity.nqn => Ok(()),
        Observed::Known(nqn) => Err(differs("NQN", nqn, &identity.nqn)),
        Observed::Unknown(why) => Err(Outcome::Unknown(*why)),
    }
}

/// A kernel before 5.15 has no disk sequence numbers, which is the only way to do without one.
fn same_disk(now: Observed<DiskSeq>, then: Observed<DiskSeq>) -> bool {
    match (now, then) {
        (Observed::Known(now), Observed::Known(then)) => now == then,
        (
            Observed::Unknown(UnknownWhy::Unsupported),
            Observed::Unknown(UnknownWhy::Unsupported),
        ) => true,
        (Observed::Known(_) | Observed::Unknown(_), Observed::Known(_) | Observed::Unknown(_)) => {
            false
        }
    }
}

fn differs(what: &str, now: &impl ToString, then: &impl ToString) -> Outcome {
    other_device(format!("its {what} is {}, not {}", now.to_string(), then.to_string()))
}

/// The leg that `wanted` names, or `None` when the array has no leg of that name.
///
/// A leg whose device is gone is told by its name, its MD device UUID if it was ever read, and by
/// the device still being gone.
pub(super) fn leg<'s>(array: &'s ArraySnapshot, wanted: &LegRef) -> Step<Option<&'s LegSnapshot>> {
    let Some(leg) = array.legs.iter().find(|leg| leg.device == wanted.device) else {
        return Ok(None);
    };
    if let (Observed::Known(now), Some(then)) = (&leg.md_device, &wanted.md_device) {
        if now != then {
            return Err(differs("MD device UUID", now, then));
        }
    }
    // A leg loses its slot when MD gives it up; it never gets another one.
    if let (Some(now), Some(then)) = (leg.slot, wanted.slot) {
        if now != then {
            return Err(differs("slot", &now, &then));
        }
    }
    match (&leg.backing, &wanted.identity) {
        (Backing::Namespace(namespace), Some(identity)) => same(namespace, identity)?,
        (Backing::Gone, None) => {}
        (Backing::Unreadable, _) => return Err(Outcome::Unknown(UnknownWhy::ReadFailed)),
        (Backing::Gone, Some(identity)) => {
            return Err(other_device(format!("{identity} is gone by now")));
        }
        (Backing::Namespace(namespace), None) => {
            return Err(other_device(format!("{} is there, it was gone", namespace.device)));
        }
        (Backing::Local, _) => {
            return Err(other_device(format!("{} is a local device", leg.device)));
        }
    }
    Ok(Some(leg))
}

/// No device is opened that has no usable path.
pub(super) fn reachable(namespace: &NamespaceSnapshot) -> Step<()> {
    if namespace.has_usable_path() {
        return Ok(());
    }
    let detail = format!("{} has no usable path", namespace.device);
    Err(retry(SOON, RetryWhy::Unreachable { detail }))
}
