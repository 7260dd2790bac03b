//! Paths: which controllers get I/O through, told by whatever speaks of them.
//!
//! A controller that says `live` may be dead for seconds: the kernel finds out by a keep-alive that
//! is not answered, and says nothing even then. Others know sooner. Each of them is a *witness*: it
//! says one thing about one controller, since a moment, and nothing else; none is trusted with more
//! than it can know. The verdict on a controller is the gravest thing any witness says, worked out
//! again from all of them after every event, so that the order in which they speak does not matter.
//!
//! ```text
//!   rtnetlink ─── link ────── the interface is down ───────────────────────────────► Dead
//!                             a bond's port was lost: Suspect, until the bond has settled
//!                             up again: Suspect, until it stayed up for a while
//!   sysfs ─────── state ───── resetting, new: Suspect      connecting, deleting, gone ► Dead
//!   ANA ───────── state ───── no namespace lets I/O in: Suspect ── for long enough ───► Dead
//!   diskstats ─── I/O ─────── commands that do not move: Suspect ── for long enough ──► Dead
//!        └─ opens the socket watch, which tells a black hole from a frozen target
//!   sock_diag ─── sockets ─── sends again: Suspect ── hears nothing ──────────────────► Dead
//!   kmsg ──────── log ─────── trouble: Suspect, for a while, and never more than that
//!
//!   Up ◄── every witness is silent ── Suspect: nothing begins, nothing rests on it ── Dead: I/O may
//!                                                                                    be taken off it
//! ```
//!
//! **Why levels.** "The cable was pulled" is an event that can be missed; "the interface has no
//! carrier" is a fact that the next picture of the network shows again. An event here only changes
//! what a witness holds. A witness that is not heard any more stops counting, and one that could
//! not be asked says nothing: neither makes a path dead.
//!
//! **Where a path leaves.** The interface is remembered from when it worked. Once it is down, the
//! kernel names another way, or none, and both are of no use: the sockets are bound to the old
//! address. So the answer to "which way" is taken anew only while the old one is up, after the
//! controller connected again, or when an interface of the same name took the old one's place.
//!
//! **The price.** A path that another route saves after its interface went down counts as dead
//! until its controller connects again. A second port lost by a bond that lacks one already is not
//! noticed as such: the sockets and the I/O have to tell. And all of this is second-hand: the
//! guards look at the host again before anything is done.

mod explain;
mod host;
mod link;
mod seen;
#[cfg(test)]
mod tests;
mod witness;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use heal_types::{
    ControllerName, HostSnapshot, IfIndex, IoReading, Moment, NamespaceSnapshot, Network,
    PathHealth, SocketReading,
};

pub use explain::{Evidence, Explanation, Testimony};
pub use host::CutOff;
pub use seen::Seen;

use seen::space_of;
use witness::Controller;

/// How long things take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// A link that was down counts as up once it has been up this long.
    pub up_confirm: Duration,
    /// A bond that lost a port has found another by now.
    pub port_settle: Duration,
    /// I/O that does not move for this long is a reason to look at the sockets.
    pub io_suspect: Duration,
    /// I/O that does not move, or a path closed by ANA, is given up after this long.
    pub stalled_after: Duration,
    /// What the kernel's log said counts this long.
    pub log_lifetime: Duration,
    /// A reading of sockets or I/O that nobody renews counts this long. By then the keep-alive has
    /// spoken, and the controller's state says what is to say.
    pub reading_lifetime: Duration,
    /// More arrays in doubt at once than this, without one link that explains it, are the host's
    /// own trouble.
    pub many_arrays: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            up_confirm: Duration::from_secs(1),
            port_settle: Duration::from_secs(2),
            io_suspect: Duration::from_secs(2),
            stalled_after: Duration::from_secs(10),
            log_lifetime: Duration::from_secs(5),
            reading_lifetime: Duration::from_secs(15),
            many_arrays: 3,
        }
    }
}

/// What somebody says of paths.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PathEvent {
    /// Somebody looked at the host.
    Looked(Seen),
    /// Every interface, and the one each controller's packets leave through, as far as that is
    /// known. Wanted after every event of rtnetlink, and after each `Connected`.
    Network {
        /// The interfaces.
        network: Network,
        /// The way out of each controller. One that is not named keeps the way it had.
        egress: BTreeMap<ControllerName, IfIndex>,
    },
    /// One interface changed: applied at once, before anybody asks for the whole picture.
    Link {
        /// Which.
        index: IfIndex,
        /// Whether it has carrier and is wanted up.
        up: bool,
        /// Whether it is gone.
        removed: bool,
    },
    /// The kernel said `NVME_EVENT=connected`: new sockets, and whatever was said of the old ones
    /// is of no account.
    Connected {
        /// Which controller.
        controller: ControllerName,
    },
    /// What the sockets of a controller that is watched show; `None` when none could be read.
    Sockets {
        /// Which controller.
        controller: ControllerName,
        /// The worst of them.
        reading: Option<SocketReading>,
    },
    /// How far a controller's I/O has come, sampled about every second.
    Io {
        /// Which controller.
        controller: ControllerName,
        /// How far.
        reading: IoReading,
    },
    /// The kernel's log speaks of trouble: error recovery begun, a keep-alive not answered.
    KernelSaid {
        /// Which controller.
        controller: ControllerName,
    },
    /// Time passed.
    Tick,
}

/// What is held of every path of the host.
#[derive(Debug, Clone)]
pub struct Paths {
    limits: Limits,
    network: Network,
    /// The last answer to "which way", for controllers that are still to be seen as well.
    egress: BTreeMap<ControllerName, IfIndex>,
    controllers: BTreeMap<ControllerName, Controller>,
    verdicts: BTreeMap<ControllerName, PathHealth>,
    next: Option<Moment>,
}

impl Paths {
    /// Nothing is known yet.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            network: Network::default(),
            egress: BTreeMap::new(),
            controllers: BTreeMap::new(),
            verdicts: BTreeMap::new(),
            next: None,
        }
    }

    /// From now on things take this long.
    pub fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
    }

    /// Hears an event. Answers whether the verdict on any path changed.
    pub fn handle(&mut self, now: Moment, event: PathEvent) -> bool {
        let mut changed = false;
        match event {
            PathEvent::Looked(seen) => changed = self.looked(now, seen),
            PathEvent::Network { network, egress } => {
                self.network = network;
                for (name, controller) in &mut self.controllers {
                    controller.link.route(&self.network, egress.get(name).copied());
                }
                self.egress = egress;
                self.observe_links(now);
            }
            PathEvent::Link { index, up, removed } => {
                if removed {
                    self.network.interfaces.remove(&index);
                } else if let Some(interface) = self.network.interfaces.get_mut(&index) {
                    interface.up = up;
                }
                self.observe_links(now);
            }
            PathEvent::Connected { controller } => {
                self.with(&controller, |controller| controller.connected(now));
            }
            PathEvent::Sockets { controller, reading } => {
                self.with(&controller, |controller| controller.heard_sockets(now, reading));
            }
            PathEvent::Io { controller, reading } => {
                self.with(&controller, |controller| controller.heard_io(now, reading));
            }
            PathEvent::KernelSaid { controller } => {
                self.with(&controller, |controller| controller.heard_log(now));
            }
            PathEvent::Tick => {}
        }
        self.judge(now) || changed
    }

    /// The verdict on every controller that was looked at.
    #[must_use]
    pub fn verdicts(&self) -> &BTreeMap<ControllerName, PathHealth> {
        &self.verdicts
    }

    /// The interfaces that controllers leave through, as far as that is known.
    #[must_use]
    pub fn interfaces(&self) -> BTreeSet<IfIndex> {
        self.egress.values().copied().collect()
    }

    /// When a verdict can change by time alone.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Moment> {
        self.next
    }

    /// The controllers whose sockets are to be read, every 200 ms or so: those of which something
    /// was said that only the sockets can confirm or take back. Mostly nobody.
    #[must_use]
    pub fn watched_sockets(&self) -> Vec<ControllerName> {
        let watched = self.controllers.iter().filter(|(_, controller)| controller.is_watched());
        watched.map(|(name, _)| name.clone()).collect()
    }

    /// Puts the verdicts into everything `snapshot` shows. A path whose controller was never looked
    /// at, or is another one by now, keeps what it has.
    pub fn annotate(&self, snapshot: &mut HostSnapshot) {
        for leg in snapshot.arrays.iter_mut().flat_map(|array| &mut array.legs) {
            if let Some(namespace) = leg.backing.namespace_mut() {
                self.annotate_namespace(namespace);
            }
        }
        for namespace in &mut snapshot.namespaces {
            self.annotate_namespace(namespace);
        }
    }

    fn annotate_namespace(&self, namespace: &mut NamespaceSnapshot) {
        let space = space_of(namespace);
        let nqn = namespace.nqn.known();
        for path in &mut namespace.paths {
            if let Some(controller) = self.controllers.get(&path.controller) {
                if controller.is_one(nqn, path.portal.known()) {
                    path.health = controller.verdict_on(&space);
                }
            }
        }
    }

    /// Why the verdict on `controller` is what it is.
    #[must_use]
    pub fn why(&self, now: Moment, controller: &ControllerName) -> Option<Explanation> {
        let controller = self.controllers.get(controller)?;
        Some(controller.explain(now, &self.limits))
    }

    fn with(&mut self, name: &ControllerName, change: impl FnOnce(&mut Controller)) {
        if let Some(controller) = self.controllers.get_mut(name) {
            change(controller);
        }
    }

    fn observe_links(&mut self, now: Moment) {
        for controller in self.controllers.values_mut() {
            controller.link.observe(now, &self.network);
        }
    }

    /// Takes in a look. Whoever a whole look does not show is gone, and with them their verdict.
    fn looked(&mut self, now: Moment, seen: Seen) -> bool {
        let mut changed = false;
        if seen.is_whole() {
            self.controllers.retain(|name, _| seen.shows(name));
            self.verdicts.retain(|name, health| {
                let stays = seen.shows(name);
                changed |= !stays && *health != PathHealth::Up;
                stays
            });
        }
        let whole = seen.is_whole();
        for (name, facts) in seen.into_controllers() {
            let same =
                |old: &&mut Controller| old.is_one(facts.nqn.as_ref(), facts.portal.as_ref());
            if let Some(controller) = self.controllers.get_mut(&name).filter(|old| same(old)) {
                controller.looked(now, facts, whole);
                continue;
            }
            let mut controller = Controller::new(now, facts);
            controller.link.route(&self.network, self.egress.get(&name).copied());
            controller.link.observe(now, &self.network);
            self.controllers.insert(name, controller);
        }
        changed
    }

    fn judge(&mut self, now: Moment) -> bool {
        let mut changed = false;
        self.next = None;
        for (name, controller) in &mut self.controllers {
            controller.forget(now, &self.limits);
            let (news, next) = controller.judge(now, &self.limits);
            changed |= news;
            self.next = self.next.into_iter().chain(next).min();
            let health = controller.health();
            match self.verdicts.get_mut(name) {
                Some(verdict) => {
                    changed |= *verdict != health;
                    *verdict = health;
                }
                None => {
                    changed |= health != PathHealth::Up;
                    self.verdicts.insert(name.clone(), health);
                }
            }
        }
        changed
    }
}

/// The graver of two: dead before suspect before up, and among equals what is named first in
/// [`heal_types::PathDoubt`], which is nearer to the cause.
fn graver(a: PathHealth, b: PathHealth) -> PathHealth {
    let weight = |health: PathHealth| match health {
        PathHealth::Up => (0, None),
        PathHealth::Suspect(why) => (1, Some(Reverse(why))),
        PathHealth::Dead(why) => (2, Some(Reverse(why))),
    };
    if weight(b) > weight(a) { b } else { a }
}
