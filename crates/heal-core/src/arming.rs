//! Arming: which controllers fail their I/O soon after they lost their connection, and which queue
//! it.
//!
//! With `fast_io_fail_tmo` off, a write to a mirror waits for a dead leg until the kernel gives its
//! controller up, ten minutes by default. With it on, on every leg, a switch that reboots fails the
//! last leg too, and MD answers every write with an error from then on, until the array is stopped
//! (`MD_BROKEN`). So it is neither: in every mirror set one good leg, the *anchor*, queues whatever
//! comes, and the others fail fast. That holds at rest, with the daemon dead, in every moment. A
//! daemon that is stopped takes back what it armed: nobody would move the anchor.
//!
//! ```text
//!   at rest                 slot 0 in doubt: the anchor moves        slot 0 is back
//!
//!   slot 0  off  anchor     off ······ off ······ 1 s                off  anchor
//!   slot 1  1 s             off first, read back  off  anchor        off, then 1 s
//!                            look 1     look 2     look 3
//!
//!   both in doubt: off everywhere, nothing fails, everything waits
//! ```
//!
//! A plan is worked out from one look at the whole host. It never arms anything on a promise: a leg
//! is armed only when the look shows that its anchor's controllers are off already, so an anchor
//! moves in two looks. Should every leg of a set be found armed, everything goes off, and the set
//! begins anew.
//!
//! The kernel uses the value at one moment only, from `resetting` to `connecting`. A leg that is
//! not good keeps a shorter time than the policy's: an isolation has set it, and the moment may be
//! now.
//!
//! Of several good legs the anchor is the one that could not be armed anyway, and else the one in
//! the lowest slot: facts that every look shows alike, so that nothing has to be remembered.
//!
//! **Nothing else on the host is armed.** A controller that carries a namespace that is no leg of
//! ours is never armed; it is set to off, the kernel's default, only where a last copy must queue.
//! What we armed is set back once it leads to no leg of ours, also where it leads nowhere
//! ([`Armed`]).
//!
//! **The price.** Where the anchor itself is lost without a link going down, the kernel alone does
//! not free the application: that takes the daemon. And behind a shared controller there is no fast
//! way at all.

mod armed;
#[cfg(test)]
pub(crate) mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use heal_types::{
    ArrayId, ArraySnapshot, Backing, ControllerName, ControllerRef, ControllerState, FastIoFail,
    HostSnapshot, LegFlag, LegSnapshot, NamespaceSnapshot, Observed, PathSnapshot, Slot,
    SyncAction,
};

use crate::guards::{is_good, mirror_set};

pub use armed::{Armed, LostLeg};

/// An array whose legs are armed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ward {
    /// After how many seconds a leg that is not the anchor fails its I/O.
    pub fast_io_fail: u32,
    /// How long nothing must have come through before I/O is freed from a dead path.
    pub isolate_after: Duration,
}

/// One controller that does not show what it should.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arming {
    /// The array that asks for it.
    pub array: ArrayId,
    /// The controller.
    pub controller: ControllerRef,
    /// What it shows.
    pub shows: Observed<FastIoFail>,
    /// What it should.
    pub want: FastIoFail,
    /// Why.
    pub why: ArmWhy,
}

/// Why a controller gets a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ArmWhy {
    /// Its leg is the one that must queue.
    Anchor,
    /// No leg of the mirror set can be relied upon: every one of them must queue.
    NoGoodLeg,
    /// Every leg of the mirror set is armed: none may be, until one is proven to queue.
    AllArmed,
    /// The array is not in a state in which losing a leg is safe.
    ArrayState,
    /// Its legs are being made equal, or what happens to them is not known to be harmless.
    NotEqual,
    /// Copies overlap in a way that is not reasoned about.
    Layout,
    /// Something about the leg could not be read.
    NotKnown,
    /// Another array, whose leg is behind it as well, wants another value.
    ArraysDiffer,
    /// Nobody watches over its array any more.
    Unwatched,
    /// It leads to something that is no leg of ours as well.
    Stranger,
    /// It leads to no leg of its array any more.
    Astray,
    /// The anchor holds every block and queues.
    AnchorQueues {
        /// The anchor's slot.
        anchor: Slot,
    },
}

impl fmt::Display for ArmWhy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Anchor => f.write_str("this leg must queue, so that the others may fail"),
            Self::NoGoodLeg => f.write_str("no leg can be relied upon, so all of them must queue"),
            Self::AllArmed => f.write_str("every leg is armed, and one at least must queue"),
            Self::ArrayState => f.write_str("the array's state does not allow a leg to fail"),
            Self::NotEqual => f.write_str("the legs are not known to be equal"),
            Self::Layout => f.write_str("the array's copies overlap"),
            Self::NotKnown => f.write_str("not everything about the leg is known"),
            Self::ArraysDiffer => f.write_str("two arrays behind it want different values"),
            Self::Unwatched => f.write_str("nobody watches over its array any more"),
            Self::Stranger => f.write_str("it leads to something that is no leg of ours as well"),
            Self::Astray => f.write_str("it leads to no leg of its array any more"),
            Self::AnchorQueues { anchor } => {
                write!(f, "the leg in slot {anchor} holds every block and queues")
            }
        }
    }
}

/// What a leg asks of each of its controllers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Ask {
    array: ArrayId,
    want: Want,
    why: ArmWhy,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Want {
    Off,
    After {
        seconds: u32,
        /// A shorter time is left alone: an isolation has set it.
        keep_shorter: bool,
    },
    /// As it is, until the anchor is proven: neither armed nor disarmed.
    AsItIs,
}

/// What the host's controllers should be set to, and are not. Every `Off` comes before any `After`;
/// an `After` is in it only once the look shows its anchor off.
///
/// `snapshot` is a look at the whole host, with the paths' verdicts in it: a part of it does not
/// show who shares a controller.
#[must_use]
pub fn plan(snapshot: &HostSnapshot, wards: &BTreeMap<ArrayId, Ward>) -> Vec<Arming> {
    let shared = shared_controllers(snapshot, wards);
    let mut asks: BTreeMap<ControllerName, Vec<Ask>> = BTreeMap::new();
    let mut seen: BTreeMap<ControllerName, (ControllerRef, Observed<FastIoFail>)> = BTreeMap::new();
    for (array, ward) in ours(snapshot, wards) {
        for (leg, ask) in asks_of(array, *ward, &shared) {
            for (path, controller) in named_paths(leg) {
                seen.insert(path.controller.clone(), (controller, path.fast_io_fail));
                asks.entry(path.controller.clone()).or_default().push(ask);
            }
        }
    }
    let mut plan: Vec<Arming> = seen
        .into_iter()
        .filter_map(|(name, (controller, shows))| {
            let ask = settle(asks.get(&name)?, shared.contains(&name))?;
            let want = to_write(shows, ask.want)?;
            Some(Arming { array: ask.array, controller, shows, want, why: ask.why })
        })
        .collect();
    // Anchors first: were the daemon to die half way, what is off is what matters most.
    plan.sort_by_key(|arming| (arming.want != FastIoFail::Off, arming.why != ArmWhy::Anchor));
    plan
}

/// Controllers with a namespace behind them that is no leg of a ward: never armed, never isolated.
#[must_use]
pub fn shared_controllers(
    snapshot: &HostSnapshot,
    wards: &BTreeMap<ArrayId, Ward>,
) -> BTreeSet<ControllerName> {
    let legs: BTreeSet<_> = ours(snapshot, wards)
        .flat_map(|(array, _)| &array.legs)
        .filter_map(|leg| leg.backing.namespace())
        .map(|namespace| namespace.dev)
        .collect();
    namespaces(snapshot)
        .filter(|namespace| !legs.contains(&namespace.dev))
        .flat_map(|namespace| &namespace.paths)
        .map(|path| path.controller.clone())
        .collect()
}

fn ours<'a>(
    snapshot: &'a HostSnapshot,
    wards: &'a BTreeMap<ArrayId, Ward>,
) -> impl Iterator<Item = (&'a ArraySnapshot, &'a Ward)> {
    snapshot.arrays.iter().filter_map(|array| Some((array, wards.get(&array.id)?)))
}

/// Every namespace, bound to an array or not.
fn namespaces(snapshot: &HostSnapshot) -> impl Iterator<Item = &NamespaceSnapshot> {
    let legs = snapshot.arrays.iter().flat_map(|array| &array.legs);
    snapshot.namespaces.iter().chain(legs.filter_map(|leg| leg.backing.namespace()))
}

fn paths(leg: &LegSnapshot) -> impl Iterator<Item = &PathSnapshot> {
    leg.backing.namespace().into_iter().flat_map(|namespace| &namespace.paths)
}

/// The paths of a namespace whose controllers can be named beyond doubt.
fn named(namespace: &NamespaceSnapshot) -> impl Iterator<Item = (&PathSnapshot, ControllerRef)> {
    let nqn = namespace.nqn.known();
    namespace.paths.iter().filter_map(move |path| Some((path, path.controller_ref(nqn?)?)))
}

fn named_paths(leg: &LegSnapshot) -> impl Iterator<Item = (&PathSnapshot, ControllerRef)> {
    leg.backing.namespace().into_iter().flat_map(named)
}

/// One answer to all who ask of a controller: off wins, then whoever wants it left alone.
fn settle(asks: &[Ask], shared: bool) -> Option<Ask> {
    let off = asks.iter().filter(|ask| ask.want == Want::Off).min_by_key(|ask| ask.why);
    if let Some(off) = off {
        return Some(*off);
    }
    // A shared controller is never armed, and what somebody else set stays.
    if shared || asks.iter().any(|ask| ask.want == Want::AsItIs) {
        return None;
    }
    let seconds = |ask: &Ask| match ask.want {
        Want::After { seconds, .. } => Some(seconds),
        Want::Off | Want::AsItIs => None,
    };
    let first = asks.first()?;
    if asks.iter().any(|ask| seconds(ask) != seconds(first)) {
        return Some(Ask { want: Want::Off, why: ArmWhy::ArraysDiffer, ..*first });
    }
    let keeps = |ask: &&Ask| matches!(ask.want, Want::After { keep_shorter: true, .. });
    asks.iter().find(keeps).or(Some(first)).copied()
}

/// What is to be written over what is shown, if anything. A value that cannot be read cannot be
/// read back either: nothing is written on top of it.
fn to_write(shows: Observed<FastIoFail>, want: Want) -> Option<FastIoFail> {
    match (*shows.known()?, want) {
        (_, Want::AsItIs) | (FastIoFail::Off, Want::Off) => None,
        (FastIoFail::After(_), Want::Off) => Some(FastIoFail::Off),
        (FastIoFail::After(shows), Want::After { seconds, keep_shorter })
            if shows == seconds || (shows < seconds && keep_shorter) =>
        {
            None
        }
        (FastIoFail::Off | FastIoFail::After(_), Want::After { seconds, .. }) => {
            Some(FastIoFail::After(seconds))
        }
    }
}

/// What the legs of one array ask for.
fn asks_of<'a>(
    array: &'a ArraySnapshot,
    ward: Ward,
    shared: &BTreeSet<ControllerName>,
) -> Vec<(&'a LegSnapshot, Ask)> {
    let all_off = |why| {
        let ask = Ask { array: array.id, want: Want::Off, why };
        array.legs.iter().map(|leg| (leg, ask)).collect()
    };
    if let Err(why) = may_lose_a_leg(array) {
        return all_off(why);
    }
    let mut asks = Vec::new();
    let mut slots: BTreeSet<Slot> = (0..array.raid_disks).map(Slot).collect();
    while let Some(slot) = slots.pop_first() {
        let set = mirror_set(array, slot);
        if !set.contains(&slot) {
            return all_off(ArmWhy::Layout);
        }
        slots.retain(|slot| !set.contains(slot));
        let in_set = |leg: &&LegSnapshot| leg.slot.is_some_and(|slot| set.contains(&slot));
        let legs: Vec<_> = array.legs.iter().filter(in_set).collect();
        let anchor = find_anchor(&legs, shared);
        for leg in legs {
            let (want, why) = ask_of(leg, &anchor, ward);
            asks.push((leg, Ask { array: array.id, want, why }));
        }
    }
    asks
}

/// What one leg asks for, with such an anchor in its mirror set. A leg that is not in sync has
/// nothing to lose: where it is not armed, it is left alone, because its I/O may be waiting to
/// fail.
fn ask_of(leg: &LegSnapshot, anchor: &Anchor<'_>, ward: Ward) -> (Want, ArmWhy) {
    match anchor {
        Anchor::Queues(anchor) | Anchor::Armed { anchor, .. } if std::ptr::eq(*anchor, leg) => {
            (Want::Off, ArmWhy::Anchor)
        }
        // It takes a leg's place in one step, maybe the anchor's.
        Anchor::Queues(_) | Anchor::Armed { .. } | Anchor::None
            if leg.flags.has(LegFlag::Replacement) =>
        {
            (Want::Off, ArmWhy::NotEqual)
        }
        Anchor::Queues(anchor) if is_clear(leg) => {
            let keep_shorter = !is_good(leg);
            let want = Want::After { seconds: ward.fast_io_fail, keep_shorter };
            (want, ArmWhy::AnchorQueues { anchor: anchor.slot.unwrap_or(Slot(0)) })
        }
        Anchor::Queues(_) | Anchor::Armed { .. } | Anchor::None if !leg.is_in_sync() => {
            (Want::AsItIs, ArmWhy::NotKnown)
        }
        Anchor::Queues(_) => (Want::Off, ArmWhy::NotKnown),
        Anchor::Armed { .. } | Anchor::None if !is_clear(leg) => (Want::Off, ArmWhy::NotKnown),
        Anchor::None => (Want::Off, ArmWhy::NoGoodLeg),
        Anchor::Armed { every_leg: true, .. } => (Want::Off, ArmWhy::AllArmed),
        Anchor::Armed { every_leg: false, .. } => (Want::AsItIs, ArmWhy::AllArmed),
    }
}

/// The leg of a mirror set that queues whatever comes.
#[derive(Debug, Clone, Copy)]
enum Anchor<'a> {
    /// No leg can be relied upon.
    None,
    /// This one is to be it, and is armed still; so is every other leg in sync, if `every_leg`.
    Armed { anchor: &'a LegSnapshot, every_leg: bool },
    /// This one, and it is shown to queue.
    Queues(&'a LegSnapshot),
}

fn find_anchor<'a>(legs: &[&'a LegSnapshot], shared: &BTreeSet<ControllerName>) -> Anchor<'a> {
    let can_hold =
        |leg: &LegSnapshot| is_good(leg) && is_clear(leg) && !leg.flags.has(LegFlag::Replacement);
    let rank = |leg: &LegSnapshot| {
        let is_shared = paths(leg).any(|path| shared.contains(&path.controller));
        let is_local = paths(leg).next().is_none();
        match (is_local || is_shared, queues(leg)) {
            (true, true) => 0, // It could not be armed anyway.
            (false, _) => 1,
            (true, false) => 2, // To disarm it, somebody else's value must be changed.
        }
    };
    let able = legs.iter().copied().filter(|leg| can_hold(leg));
    match able.min_by_key(|leg| (rank(leg), leg.slot)) {
        None => Anchor::None,
        Some(anchor) if queues(anchor) => Anchor::Queues(anchor),
        Some(anchor) => {
            let every_leg = !legs.iter().any(|leg| leg.is_in_sync() && queues(leg));
            Anchor::Armed { anchor, every_leg }
        }
    }
}

/// Whether a leg's device is there and every controller of it is shown to queue.
fn queues(leg: &LegSnapshot) -> bool {
    match &leg.backing {
        Backing::Namespace(_) | Backing::Local => {
            paths(leg).all(|path| path.fast_io_fail == Observed::Known(FastIoFail::Off))
        }
        Backing::Gone | Backing::Unreadable => false,
    }
}

/// Whether everything is known that a decision on this leg rests on (G5). What a path that is known
/// not to be live says of ANA does not matter.
fn is_clear(leg: &LegSnapshot) -> bool {
    let known = |path: &PathSnapshot| {
        let ana = path.ana_usable.known().is_some();
        path.fast_io_fail.known().is_some()
            && path.portal.known().is_some()
            && path.state.is_known_and(|state| ana || *state != ControllerState::Live)
    };
    match &leg.backing {
        Backing::Namespace(namespace) => {
            namespace.nqn.known().is_some() && namespace.paths.iter().all(known)
        }
        Backing::Local | Backing::Gone => true,
        Backing::Unreadable => false,
    }
}

/// Whether an array is in a state in which one leg fewer is harmless where another is good.
fn may_lose_a_leg(array: &ArraySnapshot) -> Result<(), ArmWhy> {
    match array.state {
        Observed::Known(state) if state.is_running() => {}
        Observed::Known(_) => return Err(ArmWhy::ArrayState),
        Observed::Unknown(_) => return Err(ArmWhy::NotKnown),
    }
    if array.reshaping {
        return Err(ArmWhy::ArrayState);
    }
    match array.sync_action {
        // A repair that was asked for compares legs that are equal; an unclean stop's resync does
        // not.
        Observed::Known(
            SyncAction::Idle | SyncAction::Recover | SyncAction::Check | SyncAction::Repair,
        ) => Ok(()),
        // A tool that freezes may have frozen a resync.
        Observed::Known(SyncAction::Resync | SyncAction::Reshape | SyncAction::Frozen) => {
            Err(ArmWhy::NotEqual)
        }
        Observed::Unknown(_) => Err(ArmWhy::NotKnown),
    }
}
