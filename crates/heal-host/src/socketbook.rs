//! Which sockets are whose: a controller's, all of them, and nobody else's.
//!
//! A leg is isolated by ending the sockets of its controllers. No file says which those are: a
//! socket of the kernel's shows where it leads and nothing more, and two controllers may lead to
//! one portal (two subsystems behind it, one leg each: ending the wrong three sockets ends the good
//! leg). So the book counts, and never guesses:
//!
//! ```text
//!   group   controllers that could own each other's sockets: one target, and host address and
//!           interface that do not tell them apart
//!   claim   a set of controllers, and exactly their sockets
//!
//!   nvme1 (3 queues) ─┐             6 sockets = 3 + 3           claim {nvme1, nvme2}: these six
//!   nvme2 (3 queues) ─┴─ group ──── 7 sockets                   none: somebody else is here too
//!                                   3 left, nvme2 not live      claim {nvme1}: those three
//!                                   3 new, nvme2 live again     claim {nvme2}: the new three
//! ```
//!
//! - **A live controller has as many sockets as queues**, the admin queue's among them. A group's
//!   sockets that nobody has claimed yet are those of its live controllers that have no claim, if
//!   and only if the numbers agree. One socket too many, of whichever tool, and there is no claim.
//! - **What is claimed once stays claimed** for as long as its cookies live, so a claim made while
//!   the numbers agreed outlives a tool that connects later.
//! - **Claims grow finer.** Sockets that appear when exactly one controller becomes live are its
//!   own, if its group was quiet for two looks before; what remains of a joint claim when a
//!   controller loses its connection is the others'.
//! - **A look is not taken at one moment.** Between its two halves one controller's sockets may go
//!   and another's come, and the numbers agree by accident. So a claim is made only when the next
//!   look shows the same again: its controllers, read after the first look's sockets, close the
//!   bracket around them. While [`SocketBook::wants_another_look`], whoever looks does so once more
//!   at once.
//! - **Only what a kernel thread can hold counts**: sockets of user 0, connected. A user's socket
//!   is a user's, and one that is being closed belongs to no live controller.
//!
//! The controllers are to be read *before* the sockets, all of the host that lead over TCP
//! (discovery controllers too); what is missing in the list makes the numbers disagree, which costs
//! isolation and nothing else.
//!
//! The price: every claim takes two looks. And two legs behind one portal that were connected
//! before the daemon started are one claim: one of them alone is not isolated until one of the two
//! has connected anew.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;

use heal_types::{ControllerName, IfIndex, Portal, SocketReading, TransportKind};

use crate::network::Numeric;
use crate::sockdiag::{SocketId, TcpSocket, TcpState};

type Cookie = [u32; 2];
type Names = BTreeSet<ControllerName>;

/// A controller as it was seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LiveController {
    /// Its name.
    pub name: ControllerName,
    /// The inode of its directory, which no other controller of this boot gets.
    pub instance: u64,
    /// Where it is connected to.
    pub portal: Portal,
    /// The interface it is bound to: that of `portal.host_interface`, or of a link-local address.
    pub interface: Option<IfIndex>,
    /// Its queues, the admin queue among them (`queue_count`).
    pub queues: u16,
    /// Whether its state is `live`.
    pub live: bool,
}

/// Why nobody knows which sockets are those of the controllers asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AmbiguousWhy {
    /// It is not in the book.
    Unknown(ControllerName),
    /// It is not connected over TCP.
    NotTcp(ControllerName),
    /// It is not live.
    NotLive(ControllerName),
    /// Its addresses are no numbers.
    AddressUnreadable(ControllerName),
    /// It is bound to an interface whose index is not known.
    InterfaceUnknown(ControllerName),
    /// These have so many queues, and there are so many sockets that could be theirs.
    CountsDisagree {
        /// The controllers.
        controllers: Names,
        /// Their queues.
        queues: usize,
        /// The sockets.
        sockets: usize,
    },
    /// The numbers agree for these, and the next look has to confirm it.
    Unconfirmed(Names),
    /// The sockets are known, but they are those of these too.
    SharedWith(Names),
}

impl fmt::Display for AmbiguousWhy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown(name) => write!(f, "{name} is not known"),
            Self::NotTcp(name) => write!(f, "{name} has no TCP sockets"),
            Self::NotLive(name) => write!(f, "{name} is not live"),
            Self::AddressUnreadable(name) => write!(f, "{name} has an address that is no number"),
            Self::InterfaceUnknown(name) => {
                write!(f, "{name} is bound to an interface that is not there")
            }
            Self::CountsDisagree { controllers, queues, sockets } => {
                let list = list(controllers);
                write!(f, "{list} have {queues} queues, and {sockets} sockets could be theirs")
            }
            Self::Unconfirmed(names) => {
                write!(f, "the sockets of {} are not settled", list(names))
            }
            Self::SharedWith(names) => {
                write!(f, "nobody knows which of the sockets are those of {}", list(names))
            }
        }
    }
}

fn list(names: &Names) -> String {
    names.iter().map(ControllerName::as_str).collect::<Vec<_>>().join(", ")
}

/// A set of controllers and exactly their sockets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// The controllers and their instances.
    members: BTreeMap<ControllerName, u64>,
    sockets: BTreeMap<Cookie, SocketId>,
    /// All members are live, and have as many sockets as queues.
    whole: bool,
}

impl Claim {
    /// Whose sockets they are.
    pub fn controllers(&self) -> impl Iterator<Item = &ControllerName> {
        self.members.keys()
    }

    /// The sockets.
    pub fn sockets(&self) -> impl Iterator<Item = &SocketId> {
        self.sockets.values()
    }
}

/// A claim that one look speaks for.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Candidate {
    claim: Claim,
    speaks: Speaks,
}

/// What speaks for a claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Speaks {
    /// All that is left of a group agrees in number.
    Number,
    /// Its sockets came with its controller.
    Arrival,
}

/// The book.
#[derive(Debug, Clone, Default)]
pub struct SocketBook {
    claims: Vec<Claim>,
    /// Claims that wait for the next look.
    candidates: Vec<Candidate>,
    /// Why a controller of the last look is in no whole claim.
    why: BTreeMap<ControllerName, AmbiguousWhy>,
    /// The last look, and the one before it.
    last: Option<Look>,
    older: Option<Look>,
}

#[derive(Debug, Clone, Default)]
struct Look {
    /// The controllers: their instances, and whether they were live.
    controllers: BTreeMap<ControllerName, (u64, bool)>,
    sockets: BTreeMap<Cookie, SocketId>,
}

/// One look at the host, indexed.
struct Seen<'a> {
    members: BTreeMap<&'a ControllerName, Member<'a>>,
    sockets: BTreeMap<Cookie, SocketId>,
}

/// A controller over TCP, and which sockets could be its own.
struct Member<'a> {
    controller: &'a LiveController,
    target: Option<IpAddr>,
    host: Option<IpAddr>,
    interface: Option<IfIndex>,
    /// Why its sockets cannot be told although it may have some.
    trouble: Option<AmbiguousWhy>,
}

impl SocketBook {
    /// An empty book.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes one look into the book: every controller of the host, and every socket to their
    /// portals (read after the controllers).
    pub fn reconcile(&mut self, controllers: &[LiveController], sockets: &[TcpSocket]) {
        self.why.clear();
        let seen = Seen::of(controllers, sockets);
        for controller in controllers {
            if controller.portal.transport != TransportKind::Tcp {
                let name = controller.name.clone();
                self.why.insert(name.clone(), AmbiguousWhy::NotTcp(name));
            }
        }
        self.carry_over(&seen);
        let before = std::mem::take(&mut self.candidates);
        for group in seen.groups() {
            self.settle(&seen, &group, &before);
        }
        let states = seen.members.values().map(|member| {
            let (name, instance) = member.identity();
            (name, (instance, member.settled()))
        });
        let look = Look { controllers: states.collect(), sockets: seen.sockets };
        self.older = self.last.replace(look);
    }

    /// Whether the numbers of the last look agree somewhere where they have not been confirmed.
    #[must_use]
    pub fn wants_another_look(&self) -> bool {
        !self.candidates.is_empty()
    }

    /// Every claim: which controllers, which sockets.
    pub fn claims(&self) -> impl Iterator<Item = &Claim> {
        self.claims.iter().filter(|claim| claim.whole)
    }

    /// The sockets of `controllers`, all of them and no other's.
    ///
    /// # Errors
    /// When that is not known.
    pub fn sockets_of(&self, controllers: &Names) -> Result<Vec<SocketId>, AmbiguousWhy> {
        let mut sockets = BTreeMap::new();
        for name in controllers {
            let Some(claim) = self.claims().find(|claim| claim.members.contains_key(name)) else {
                let unknown = || AmbiguousWhy::Unknown(name.clone());
                return Err(self.why.get(name).cloned().unwrap_or_else(unknown));
            };
            let others: Names =
                claim.controllers().filter(|name| !controllers.contains(*name)).cloned().collect();
            if !others.is_empty() {
                return Err(AmbiguousWhy::SharedWith(others));
            }
            sockets.extend(claim.sockets.iter().map(|(cookie, id)| (*cookie, *id)));
        }
        Ok(sockets.into_values().collect())
    }

    /// The sockets that `name` has, alone or with others it cannot be told from.
    pub fn claimed(&self, name: &ControllerName) -> impl Iterator<Item = SocketId> {
        let claim = self.claims.iter().find(|claim| claim.members.contains_key(name));
        claim.into_iter().flat_map(|claim| claim.sockets.values().copied())
    }

    /// How the sockets of `name` fare, from fresh news of each of them that there still is: those
    /// of the one that fares worst. What is claimed jointly reads jointly. Nothing, if its sockets
    /// are not known.
    #[must_use]
    pub fn reading(&self, name: &ControllerName, sockets: &[TcpSocket]) -> Option<SocketReading> {
        let claim = self.claims.iter().find(|claim| claim.members.contains_key(name))?;
        let fresh: BTreeMap<_, _> =
            sockets.iter().map(|socket| (socket.id.cookie, socket)).collect();
        let closed = claim.sockets.keys().any(|cookie| {
            fresh.get(cookie).is_none_or(|socket| socket.state != TcpState::Established)
        });
        let mine = claim.sockets.keys().filter_map(|cookie| fresh.get(cookie));
        let worst = mine
            .filter_map(|socket| socket.info)
            .max_by_key(|info| (info.unacked > 0, info.backoff, info.since_ack, info.unacked));
        match worst {
            Some(info) => Some(SocketReading {
                backoff: info.backoff,
                unacked: info.unacked,
                since_ack: info.since_ack,
                closed,
            }),
            None if closed => Some(SocketReading {
                backoff: 0,
                unacked: 0,
                since_ack: std::time::Duration::ZERO,
                closed,
            }),
            None => None,
        }
    }

    /// Brings the claims up to what is seen: whoever is gone, and whatever socket is gone, leaves.
    fn carry_over(&mut self, seen: &Seen<'_>) {
        for claim in &mut self.claims {
            claim.members.retain(|name, instance| {
                seen.member(name).is_some_and(|member| member.controller.instance == *instance)
            });
            claim.sockets.retain(|cookie, _| seen.sockets.contains_key(cookie));
            let live: BTreeMap<_, _> = claim
                .members
                .iter()
                .filter(|(name, _)| seen.member(name).is_some_and(Member::settled))
                .map(|(name, instance)| (name.clone(), *instance))
                .collect();
            // Of those that are not live nothing is left as soon as the rest is enough for the
            // others.
            claim.whole = !live.is_empty() && claim.sockets.len() == seen.queues(&live);
            if claim.whole || live.is_empty() {
                claim.members = live;
            }
        }
        self.claims.retain(|claim| !claim.members.is_empty() && !claim.sockets.is_empty());
    }

    /// Makes what claims can be made in one group.
    fn settle(&mut self, seen: &Seen<'_>, group: &[&Member<'_>], before: &[Candidate]) {
        for member in group {
            let name = &member.controller.name;
            if let Some(why) = member.why() {
                self.why.insert(name.clone(), why);
            }
        }
        let was = |member: &Member<'_>| self.last.as_ref().and_then(|last| last.settled(member));
        let as_before = group.iter().all(|member| was(member) == Some(member.settled()));
        let before = if as_before { before } else { &[] };
        self.confirm_arrival(seen, group, before);
        self.propose_arrival(seen, group);
        let whole = |name: &ControllerName| self.claims().any(|c| c.members.contains_key(name));
        let open: BTreeMap<_, _> = group
            .iter()
            .filter(|member| member.settled() && !whole(&member.controller.name))
            .map(|member| member.identity())
            .collect();
        if open.is_empty() {
            return;
        }
        let claim = Claim { members: open, sockets: self.pool(seen, group), whole: true };
        let (sockets, queues) = (claim.sockets.len(), seen.queues(&claim.members));
        let names: Names = claim.members.keys().cloned().collect();
        let why = if sockets == queues {
            let candidate = Candidate { claim, speaks: Speaks::Number };
            if before.contains(&candidate) {
                self.enter(candidate.claim);
                return;
            }
            self.candidates.push(candidate);
            AmbiguousWhy::Unconfirmed(names.clone())
        } else {
            AmbiguousWhy::CountsDisagree { controllers: names.clone(), queues, sockets }
        };
        for name in names {
            self.why.insert(name, why.clone());
        }
    }

    /// The sockets of a group that no whole claim has.
    fn pool(&self, seen: &Seen<'_>, group: &[&Member<'_>]) -> BTreeMap<Cookie, SocketId> {
        let claimed = |cookie: &Cookie| self.claims().any(|c| c.sockets.contains_key(cookie));
        seen.sockets
            .iter()
            .filter(|(cookie, id)| !claimed(cookie) && group.iter().any(|m| m.could_own(id)))
            .map(|(cookie, id)| (*cookie, *id))
            .collect()
    }

    /// Sockets that were not there at the last look belong to the one controller that was not live
    /// then, if nothing else in its group changed: also where the others' numbers do not agree. The
    /// two looks before have to show the same of the group, or its sockets may have come before it
    /// was seen to be live.
    fn propose_arrival(&mut self, seen: &Seen<'_>, group: &[&Member<'_>]) {
        let (Some(last), Some(older)) = (&self.last, &self.older) else { return };
        if !group.iter().all(|member| member.settled()) || !last.agrees_with(older, group) {
            return;
        }
        let mut newcomers = group.iter().filter(|member| last.settled(member) != Some(true));
        let (Some(newcomer), None) = (newcomers.next(), newcomers.next()) else { return };
        // One socket of another that went and one of its that came would look like a newcomer's.
        if !last.sockets_of(group).all(|cookie| seen.sockets.contains_key(cookie)) {
            return;
        }
        let mut fresh = self.pool(seen, group);
        fresh.retain(|cookie, _| !last.sockets.contains_key(cookie));
        let members: BTreeMap<_, _> = [newcomer.identity()].into();
        if fresh.len() == seen.queues(&members) {
            let claim = Claim { members, sockets: fresh, whole: true };
            self.candidates.push(Candidate { claim, speaks: Speaks::Arrival });
        }
    }

    /// A newcomer that is still there, in a group where nobody's state changed, with the sockets
    /// that came with it.
    fn confirm_arrival(&mut self, seen: &Seen<'_>, group: &[&Member<'_>], before: &[Candidate]) {
        for candidate in before.iter().filter(|candidate| candidate.speaks == Speaks::Arrival) {
            let claim = &candidate.claim;
            let here = |name| group.iter().any(|member| &member.controller.name == name);
            let pool = self.pool(seen, group);
            if claim.members.keys().all(here)
                && claim.sockets.keys().all(|cookie| pool.contains_key(cookie))
                && claim.sockets.len() == seen.queues(&claim.members)
            {
                self.enter(claim.clone());
            }
        }
    }

    /// Writes a claim down, in place of whatever was known of its members.
    fn enter(&mut self, claim: Claim) {
        self.claims.retain(|old| !old.members.keys().any(|name| claim.members.contains_key(name)));
        self.claims.push(claim);
    }
}

impl Look {
    /// Whether this controller was there, and whether it was settled.
    fn settled(&self, member: &Member<'_>) -> Option<bool> {
        let (instance, settled) = self.controllers.get(&member.controller.name)?;
        (*instance == member.controller.instance).then_some(*settled)
    }

    /// The sockets that could be a group's.
    fn sockets_of(&self, group: &[&Member<'_>]) -> impl Iterator<Item = &Cookie> {
        let could = |id: &SocketId| group.iter().any(|member| member.could_own(id));
        self.sockets.iter().filter(move |(_, id)| could(id)).map(|(cookie, _)| cookie)
    }

    /// Whether two looks show the same of a group.
    fn agrees_with(&self, older: &Self, group: &[&Member<'_>]) -> bool {
        self.sockets_of(group).eq(older.sockets_of(group))
            && group.iter().all(|member| {
                self.settled(member).unwrap_or(false) == older.settled(member).unwrap_or(false)
            })
    }
}

impl<'a> Seen<'a> {
    fn of(controllers: &'a [LiveController], sockets: &[TcpSocket]) -> Self {
        let tcp = controllers.iter().filter(|one| one.portal.transport == TransportKind::Tcp);
        let sockets = sockets.iter().filter(|socket| counts(socket));
        Self {
            members: tcp.map(|one| (&one.name, Member::of(one))).collect(),
            sockets: sockets.map(|socket| (socket.id.cookie, socket.id)).collect(),
        }
    }

    fn member(&self, name: &ControllerName) -> Option<&Member<'a>> {
        self.members.get(name)
    }

    fn queues(&self, members: &BTreeMap<ControllerName, u64>) -> usize {
        let members = members.keys().filter_map(|name| self.member(name));
        members.map(|member| usize::from(member.controller.queues)).sum()
    }

    /// The controllers, in groups that could own each other's sockets.
    fn groups(&self) -> Vec<Vec<&Member<'a>>> {
        let mut groups: Vec<Vec<&Member<'a>>> = Vec::new();
        for member in self.members.values() {
            let overlaps = |group: &Vec<&Member<'a>>| group.iter().any(|one| one.overlaps(member));
            let (mut joined, apart): (Vec<_>, Vec<_>) = groups.into_iter().partition(overlaps);
            joined.push(vec![member]);
            groups = apart;
            groups.push(joined.concat());
        }
        groups
    }
}

/// Whether a kernel thread can hold it for a live controller. One that the other end has closed
/// still is the controller's for a moment.
fn counts(socket: &TcpSocket) -> bool {
    socket.uid == 0 && matches!(socket.state, TcpState::Established | TcpState::CloseWait)
}

impl<'a> Member<'a> {
    fn of(controller: &'a LiveController) -> Self {
        let portal = &controller.portal;
        let target = Numeric::of(&portal.address);
        let host = portal.host_address.as_ref().map(Numeric::of);
        let is_bound = portal.host_interface.is_some()
            || target.as_ref().is_some_and(|target| target.scope.is_some());
        let trouble = if target.is_none() || host == Some(None) {
            Some(AmbiguousWhy::AddressUnreadable(controller.name.clone()))
        } else if is_bound && controller.interface.is_none() {
            Some(AmbiguousWhy::InterfaceUnknown(controller.name.clone()))
        } else {
            None
        };
        Self {
            controller,
            target: target.map(|target| target.ip),
            host: host.flatten().map(|host| host.ip),
            interface: controller.interface.filter(|_| is_bound),
            trouble,
        }
    }

    fn identity(&self) -> (ControllerName, u64) {
        (self.controller.name.clone(), self.controller.instance)
    }

    /// Whether it has as many sockets as queues, and they can be told.
    fn settled(&self) -> bool {
        self.controller.live && self.controller.queues > 0 && self.trouble.is_none()
    }

    fn why(&self) -> Option<AmbiguousWhy> {
        if self.settled() {
            return None;
        }
        let not_live = || AmbiguousWhy::NotLive(self.controller.name.clone());
        Some(self.trouble.clone().unwrap_or_else(not_live))
    }

    /// Whether a socket could be the one's or the other's. What is not known of a controller
    /// excludes nothing.
    fn overlaps(&self, other: &Self) -> bool {
        fn alike<T: PartialEq + Copy>(one: Option<T>, other: Option<T>) -> bool {
            one.is_none() || other.is_none() || one == other
        }
        self.target.is_some()
            && self.target == other.target
            && self.controller.portal.port == other.controller.portal.port
            && alike(self.host, other.host)
            && alike(self.interface, other.interface)
    }

    fn could_own(&self, id: &SocketId) -> bool {
        self.target == Some(id.remote.ip())
            && self.controller.portal.port == id.remote.port()
            && self.host.is_none_or(|host| host == id.local.ip())
            && self.interface.is_none_or(|interface| interface == id.interface)
    }
}

#[cfg(test)]
#[path = "socketbook_tests.rs"]
mod tests;
