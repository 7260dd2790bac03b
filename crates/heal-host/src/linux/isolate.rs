//! Frees the application's I/O from a leg that nothing gets through to.
//!
//! MD waits for a leg that does not answer, and the kernel's NVMe host waits with it: ten minutes
//! by default. Nothing that is done to the array helps, and a controller that is dead but still
//! `live` must be neither reset nor deleted: both wait for its answer. What it believes is its
//! sockets:
//!
//! ```text
//!   glance ──► guards ──► survivors: fast_io_fail_tmo off ──► still live?      they queue from now on
//!                                                                │
//!                leg's paths: fast_io_fail_tmo 0 ◄───────────────┘              I/O fails at once ...
//!                      │
//!                      └──► SOCK_DESTROY, by ports and cookie ──► live ► resetting ► connecting
//!                                                                             ... from here on
//!   MD fails the leg by itself at the first error, and the application goes on with the others.
//! ```
//!
//! The order is what keeps the data: a survivor whose I/O failed while the leg is out would break
//! the array for good (`MD_BROKEN`), so none is left able to fail before the leg is made to.
//! Everything up to the sockets can be taken back and harms nobody; a guard that does not hold ends
//! it there.
//!
//! A controller in `connecting` has failed its I/O or queues it. If it queues, because it was not
//! armed in time, the only way left is to delete it: in this state alone that returns at once.
//!
//! Nothing here waits: attributes are written by this very thread, because a write to
//! `fast_io_fail_tmo` takes no lock, and what becomes of the leg is seen by whoever watches MD.
//!
//! The price: the host's facts about *identity* are those of the last look ([`crate::scan`]),
//! checked by inode and sequence number instead of being read again.

use std::collections::BTreeSet;
use std::io;
use std::time::{Duration, Instant};

use heal_types::{
    ArrayId, ArraySnapshot, Backing, ControllerName, ControllerRef, ControllerState, FastIoFail,
    HostAnswer, HostSnapshot, LegFlag, LegRef, LegSnapshot, NamespaceSnapshot, Observed, Outcome,
    PathSnapshot, Permits, RetryWhy, SyncAction, TransportKind, UnknownWhy,
};

use super::controllers::Proven;
use super::sockets::{Destroyed, controllers};
use super::{
    LinuxHost, SOON, Step, guard, guarded, identity, not_done, not_in_that_state, other_device,
    refused_here, retry,
};
use crate::exec::{Subject, argv};
use crate::scan::Seen;

/// I/O fails as soon as the controller is connecting.
const AT_ONCE: FastIoFail = FastIoFail::After(0);

/// How often sockets are listed in a row until two lists agree; they change while somebody
/// connects.
const LISTINGS: usize = 3;

/// A leg in trouble on the glance of this moment, with every guard that a glance can check held.
struct Trouble<'s> {
    array: &'s ArraySnapshot,
    leg: &'s LegSnapshot,
    paths: &'s [PathSnapshot],
}

impl LinuxHost {
    /// The caller's guards and ours speak on one and the same glance.
    pub(super) fn isolate_leg(
        &self,
        id: ArrayId,
        wanted: &LegRef,
        paths: &[ControllerRef],
        survivors: &[ControllerRef],
        permits: &mut Permits<'_>,
    ) -> Step<HostAnswer> {
        self.can_isolate()?;
        let begun = Instant::now();
        let seen = self.last().ok_or(Outcome::Unknown(UnknownWhy::NotReadYet))?;
        let mut now = self.glance_from(&seen, id);
        permits(&mut now).map_err(guarded)?;
        let Some((trouble, own)) = self.isolable(&seen, &now, id, wanted, paths, survivors)? else {
            return Ok(Outcome::AlreadySo.into());
        };
        let glance = begun.elapsed();
        // Nobody arms a survivor from here on, and not before the leg has failed either.
        self.survivors.lock().keep(survivors);
        self.survivors_queue(&seen, &trouble, survivors)?;
        for controller in &own {
            controller.fail_io(AT_ONCE)?;
        }
        let armed = begun.elapsed();
        let sockets = self.destroy_sockets(&seen, paths, &own)?;
        let destroyed = begun.elapsed();
        let live = own.iter().filter(|controller| controller.is_live()).count();
        tracing::info!(
            array = %trouble.array.device,
            leg = %trouble.leg.device,
            sockets = sockets.sockets,
            unknown = sockets.unknown.as_deref(),
            live,
            glance_us = micros(glance),
            armed_us = micros(armed),
            destroyed_us = micros(destroyed),
            "sockets of a leg destroyed"
        );
        let outcome = match (sockets.sockets, live) {
            (0, 0) | (1.., _) => Outcome::Changed,
            (0, _) => none_destroyed(sockets.unknown),
        };
        Ok(HostAnswer { outcome, content: None, done_at: sockets.at })
    }

    /// The leg and its controllers, with every guard held that is checked by reading alone; `None`
    /// if MD has let the leg go.
    fn isolable<'s>(
        &self,
        seen: &Seen,
        now: &'s HostSnapshot,
        id: ArrayId,
        wanted: &LegRef,
        paths: &[ControllerRef],
        survivors: &[ControllerRef],
    ) -> Step<Option<(Trouble<'s>, Vec<Proven>)>> {
        let Some(trouble) = trouble(now, id, wanted, paths, survivors)? else { return Ok(None) };
        all_named(trouble.paths, paths, "leads there too")?;
        let own = paths.iter().map(|path| self.prove(seen, path)).collect::<Step<Vec<_>>>()?;
        for (path, controller) in paths.iter().zip(&own) {
            leads_nowhere_else(controller, trouble.leg)?;
            has_sockets(path, controller)?;
        }
        Ok(Some((trouble, own)))
    }

    /// Ends the sockets of a path with which nothing is lost.
    pub(super) fn cut_path(
        &self,
        id: ArrayId,
        wanted: &ControllerRef,
        permits: &mut Permits<'_>,
    ) -> Step<HostAnswer> {
        self.can_isolate()?;
        let seen = self.last().ok_or(Outcome::Unknown(UnknownWhy::NotReadYet))?;
        let mut now = self.glance_from(&seen, id);
        permits(&mut now).map_err(guarded)?;
        let controller = self.prove(&seen, wanted)?;
        if !controller.is_live() {
            return Ok(Outcome::AlreadySo.into());
        }
        each_has_another(&now, &wanted.name)?;
        let paths = std::slice::from_ref(wanted);
        let sockets = self.destroy_sockets(&seen, paths, std::slice::from_ref(&controller))?;
        tracing::info!(
            controller = %wanted.name,
            sockets = sockets.sockets,
            unknown = sockets.unknown.as_deref(),
            "sockets of a path destroyed"
        );
        let outcome = match sockets.sockets {
            0 => none_destroyed(sockets.unknown),
            1.. => Outcome::Changed,
        };
        Ok(HostAnswer { outcome, content: None, done_at: sockets.at })
    }

    /// Goes through everything an isolation of a leg of `id` reads, and changes nothing: code that
    /// was never run is slow the first time, and the first time is the one that counts. Answers
    /// how many of its legs could be isolated.
    pub fn rehearse(&self, id: ArrayId) -> usize {
        let Some(seen) = self.last().filter(|_| self.can_isolate().is_ok()) else { return 0 };
        let now = self.glance_from(&seen, id);
        let legs: Vec<&LegSnapshot> = now.arrays.iter().flat_map(|array| &array.legs).collect();
        let (mut isolable, mut names) = (0, BTreeSet::new());
        for leg in &legs {
            let paths = controllers_of(leg);
            let others = legs.iter().filter(|other| other.device != leg.device);
            let survivors: Vec<ControllerRef> =
                others.flat_map(|other| controllers_of(other)).collect();
            let checked = self.isolable(&seen, &now, id, &named(leg), &paths, &survivors);
            let live = |own: &[Proven]| own.iter().all(Proven::is_live);
            isolable += usize::from(matches!(checked, Ok(Some((_, own))) if live(&own)));
            names.extend(paths.into_iter().map(|path| path.name));
        }
        // A question about a socket takes the way that its end takes.
        let asked = self.sockets.readings(&names).map_or(0, |readings| readings.len());
        tracing::trace!(asked, isolable, "rehearsed");
        isolable
    }

    /// Destroys a socket that was made for that.
    pub fn rehearse_sockets(&self) {
        if self.can_isolate().is_err() {
            return;
        }
        if let Err(error) = self.sockets.rehearse() {
            tracing::debug!(%error, "no socket of our own could be destroyed");
        }
    }

    /// Gives up a controller whose I/O is stuck behind an attempt to connect.
    pub(super) fn delete_controller(
        &self,
        id: ArrayId,
        wanted: &LegRef,
        controller: &ControllerRef,
        survivors: &[ControllerRef],
    ) -> Step<Outcome> {
        self.nobody_hangs_on(&[Subject::Subsystem(controller.nqn.clone())])?;
        let seen = self.last().ok_or(Outcome::Unknown(UnknownWhy::NotReadYet))?;
        if !self.root.dir("sys/class/nvme").dir(controller.name.as_str()).exists() {
            return Ok(Outcome::AlreadySo);
        }
        let proven = self.prove(&seen, controller)?;
        is_connecting(&proven)?;
        let now = self.glance_from(&seen, id);
        let path = [controller.clone()];
        let Some(trouble) = trouble(&now, id, wanted, &path, survivors)? else {
            return Err(not_in_that_state(format!("{} is no leg of it", wanted.device)));
        };
        leads_nowhere_else(&proven, trouble.leg)?;
        if let Some(path) = trouble.paths.iter().find(|path| path.is_usable()) {
            return Err(guarded(format!("I/O still goes through {}", path.controller)));
        }
        let can_return = trouble
            .paths
            .iter()
            .any(|path| path.controller == controller.name && path.params.known().is_some());
        if !can_return {
            let name = &controller.name;
            return Err(guarded(format!("nobody knows how {name} could be connected again")));
        }
        self.survivors_queue(&seen, &trouble, survivors)?;
        is_connecting(&proven)?;
        let call = argv::delete_controller(&controller.nqn, &controller.name, proven.inode());
        let ended = self.run(&call);
        let is_gone = || self.prove(&seen, controller).is_err_and(|it| it != unread());
        let begun = Instant::now();
        let patience = if ended.is_success() { self.shows } else { Duration::ZERO };
        loop {
            if is_gone() {
                return Ok(Outcome::Changed);
            }
            if begun.elapsed() >= patience {
                return Ok(not_done(&ended));
            }
            std::thread::sleep(super::PAUSE);
        }
    }

    /// Takes down whose sockets are whose. Without that an isolation has to do it itself.
    pub(super) fn note_sockets(&self, seen: &Seen) {
        if controllers(&self.root, seen).is_empty() {
            return;
        }
        self.support.ask_while_open(&self.root);
        if self.can_isolate().is_err() {
            return;
        }
        if let Err(error) = self.list_sockets(seen) {
            tracing::warn!(%error, "the sockets of controllers could not be listed");
        }
    }

    /// A claim takes two looks that agree, and a daemon that has just started may be needed at
    /// once.
    fn list_sockets(&self, seen: &Seen) -> io::Result<()> {
        for _ in 0..LISTINGS {
            if !self.sockets.refresh(&controllers(&self.root, seen))? {
                break;
            }
        }
        Ok(())
    }

    /// Whether this kernel lets sockets be ended, and without harm to data.
    fn can_isolate(&self) -> Step<()> {
        let support = self.support.now();
        if support.covers_sockets() {
            return Ok(());
        }
        Err(refused_here(format!("isolation is {support}")))
    }

    /// Every survivor queues, proven, and afterwards enough of them are still live: one that lost
    /// its connection before it was told to queue may be failing its I/O already.
    fn survivors_queue(
        &self,
        seen: &Seen,
        trouble: &Trouble<'_>,
        survivors: &[ControllerRef],
    ) -> Step<()> {
        let mut live: Vec<&ControllerName> = Vec::with_capacity(survivors.len());
        for survivor in survivors {
            let doubted =
                |why| guarded(format!("{} does not queue for sure: {why}", survivor.name));
            let controller = self.prove(seen, survivor).map_err(doubted)?;
            controller.fail_io(FastIoFail::Off).map_err(doubted)?;
            if controller.is_live() {
                live.push(&survivor.name);
            }
        }
        let good = |other: &LegSnapshot| match &other.backing {
            Backing::Namespace(namespace) => {
                !other.flags.has(LegFlag::WriteMostly)
                    && namespace.paths.iter().any(|path| {
                        path.is_usable() && live.iter().any(|name| **name == path.controller)
                    })
            }
            Backing::Local => !other.flags.has(LegFlag::WriteMostly),
            Backing::Gone | Backing::Unreadable => false,
        };
        guard::others_hold(trouble.array, trouble.leg, "that queue and are live", good)
    }

    /// The sockets of those paths that are live. What the book does not know, it looks up once.
    fn destroy_sockets(
        &self,
        seen: &Seen,
        paths: &[ControllerRef],
        own: &[Proven],
    ) -> Step<Destroyed> {
        let live: BTreeSet<ControllerName> = paths
            .iter()
            .zip(own)
            .filter(|(path, it)| path.portal.transport == TransportKind::Tcp && it.is_live())
            .map(|(path, _)| path.name.clone())
            .collect();
        if live.is_empty() {
            return Ok(Destroyed::default());
        }
        let failed = |error: io::Error| not_destroyed(&error);
        let first = self.sockets.destroy(&live).map_err(failed)?;
        if first.sockets > 0 && first.unknown.is_none() {
            return Ok(first);
        }
        self.list_sockets(seen).map_err(failed)?;
        let second = self.sockets.destroy(&live).map_err(failed)?;
        Ok(Destroyed { sockets: first.sockets + second.sockets, ..second })
    }
}

/// Everything that leads to a leg, as far as it is known.
fn controllers_of(leg: &LegSnapshot) -> Vec<ControllerRef> {
    let Some(namespace) = leg.backing.namespace() else { return Vec::new() };
    let Some(nqn) = namespace.nqn.known() else { return Vec::new() };
    namespace.paths.iter().filter_map(|path| path.controller_ref(nqn)).collect()
}

/// A leg as it is bound now.
fn named(leg: &LegSnapshot) -> LegRef {
    LegRef {
        device: leg.device.clone(),
        slot: leg.slot,
        md_device: leg.md_device.known().copied(),
        identity: leg.backing.namespace().and_then(identity::of),
    }
}

fn none_destroyed(unknown: Option<String>) -> Outcome {
    let detail = unknown.unwrap_or_else(|| "they were gone already".to_owned());
    retry(SOON, RetryWhy::ToolFailed { exit: None, detail })
}

/// Every namespace behind the controller has another path that is live, or holds nothing yet.
fn each_has_another(now: &HostSnapshot, name: &ControllerName) -> Step<()> {
    let legs = now.arrays.iter().flat_map(|array| &array.legs);
    let all = legs.filter_map(|leg| leg.backing.namespace()).chain(&now.namespaces);
    let behind: Vec<&NamespaceSnapshot> =
        all.filter(|space| space.paths.iter().any(|path| path.controller == *name)).collect();
    if behind.is_empty() {
        return Err(guarded(format!("{name} leads to no leg")));
    }
    for namespace in behind {
        let mut others = namespace.paths.iter().filter(|path| path.controller != *name);
        if !others.any(PathSnapshot::is_usable) && !now.is_filled(namespace) {
            return Err(guarded(format!("nothing but {name} leads to {}", namespace.device)));
        }
    }
    Ok(())
}

/// The leg as the glance shows it, or `None` if MD has let it go.
fn trouble<'s>(
    now: &'s HostSnapshot,
    id: ArrayId,
    wanted: &LegRef,
    paths: &[ControllerRef],
    survivors: &[ControllerRef],
) -> Step<Option<Trouble<'s>>> {
    let array = identity::array(now, id)?;
    undisturbed(array)?;
    let Some(leg) = identity::leg(array, wanted)? else {
        return Ok(None);
    };
    if leg.is_spare() {
        return Err(not_in_that_state(format!("{} carries nothing: {}", leg.device, leg.flags)));
    }
    let Backing::Namespace(namespace) = &leg.backing else {
        return Err(not_in_that_state(format!("the device of {} is gone", leg.device)));
    };
    let elsewhere =
        paths.iter().find(|it| namespace.paths.iter().all(|path| path.controller != it.name));
    if let Some(path) = elsewhere {
        return Err(other_device(format!("{} does not lead to {}", path.name, leg.device)));
    }
    alone(now, namespace, paths)?;
    for other in array.in_sync().filter(|other| other.device != leg.device) {
        if let Backing::Namespace(namespace) = &other.backing {
            all_named(&namespace.paths, survivors, "leads to a survivor, too")?;
        }
    }
    if let Some(both) = paths.iter().find(|path| survivors.iter().any(|it| it.name == path.name)) {
        return Err(guarded(format!("{} leads to a survivor and to the leg", both.name)));
    }
    guard::survives_without(array, leg)?;
    Ok(Some(Trouble { array, leg, paths: &namespace.paths }))
}

/// The array runs, and nothing is under way that rests on which legs it has.
fn undisturbed(array: &ArraySnapshot) -> Step<()> {
    match array.state {
        Observed::Known(state) if state.is_running() => {}
        Observed::Known(state) => {
            return Err(not_in_that_state(format!("{} is {state}", array.device)));
        }
        Observed::Unknown(why) => return Err(Outcome::Unknown(why)),
    }
    if array.reshaping {
        return Err(guarded("the layout of the array changes"));
    }
    match array.sync_action {
        Observed::Known(
            SyncAction::Idle | SyncAction::Recover | SyncAction::Check | SyncAction::Repair,
        ) => Ok(()),
        Observed::Known(SyncAction::Resync) => {
            Err(guarded("while legs are made equal none is complete"))
        }
        Observed::Known(SyncAction::Reshape) => Err(guarded("the layout of the array changes")),
        Observed::Known(SyncAction::Frozen) => Err(guarded("a tool has frozen the array")),
        Observed::Unknown(why) => Err(Outcome::Unknown(why)),
    }
}

fn all_named(paths: &[PathSnapshot], named: &[ControllerRef], told: &str) -> Step<()> {
    let other = paths.iter().find(|path| named.iter().all(|it| it.name != path.controller));
    other.map_or(Ok(()), |path| Err(guarded(format!("{} {told}", path.controller))))
}

/// No other namespace comes through these controllers: its I/O would fail, too.
fn alone(now: &HostSnapshot, leg: &NamespaceSnapshot, paths: &[ControllerRef]) -> Step<()> {
    let others = now.namespaces.iter().filter(|other| other.device != leg.device);
    for other in others {
        let shared =
            other.paths.iter().find(|path| paths.iter().any(|it| it.name == path.controller));
        if let Some(path) = shared {
            return Err(guarded(format!("{} carries {}, too", path.controller, other.device)));
        }
    }
    Ok(())
}

/// The same, asked of the controller itself: a namespace may be there that no look has seen.
fn leads_nowhere_else(controller: &Proven, leg: &LegSnapshot) -> Step<()> {
    let Backing::Namespace(namespace) = &leg.backing else {
        return Err(not_in_that_state(format!("the device of {} is gone", leg.device)));
    };
    let through = crate::scan::path_device(namespace.device.as_str(), controller.name().as_str());
    let other = controller
        .disks()?
        .into_iter()
        .find(|disk| *disk != *namespace.device.as_str() && Some(disk) != through.as_ref());
    other.map_or(Ok(()), |disk| Err(guarded(format!("{} carries {disk}, too", controller.name()))))
}

/// RDMA has no socket to destroy: there the kernel's keep-alive finds out by itself.
fn has_sockets(path: &ControllerRef, controller: &Proven) -> Step<()> {
    match path.portal.transport {
        TransportKind::Tcp => Ok(()),
        TransportKind::Rdma if controller.is_live() => {
            Err(refused_here(format!("{} is RDMA and has no sockets", path.name)))
        }
        TransportKind::Rdma => Ok(()),
    }
}

/// Deleting waits for the target's answer in every other state.
fn is_connecting(controller: &Proven) -> Step<()> {
    match controller.state() {
        Observed::Known(ControllerState::Connecting) => Ok(()),
        Observed::Known(ControllerState::Deleting | ControllerState::DeletingNoIo) => {
            Err(retry(SOON, RetryWhy::Busy))
        }
        Observed::Known(
            state @ (ControllerState::New
            | ControllerState::Live
            | ControllerState::Resetting
            | ControllerState::Dead),
        ) => Err(not_in_that_state(format!("{} is {state}", controller.name()))),
        Observed::Unknown(why) => Err(Outcome::Unknown(why)),
    }
}

fn unread() -> Outcome {
    Outcome::Unknown(UnknownWhy::ReadFailed)
}

fn not_destroyed(error: &io::Error) -> Outcome {
    use io::ErrorKind::{PermissionDenied, Unsupported};
    let detail = format!("sockets: {error}");
    if matches!(error.kind(), PermissionDenied | Unsupported) {
        return refused_here(detail);
    }
    retry(SOON, RetryWhy::ToolFailed { exit: None, detail })
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}
