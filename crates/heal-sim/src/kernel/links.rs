//! Links, targets and what gets through: cables, black holes, frozen targets, ANA.
//!
//! ```text
//!   controller ── link ──────────────── target ── ANA ── namespace
//!                  │ no carrier          │ gone     │ inaccessible
//!                  │ black hole          │ frozen   │
//!                  ▼                     ▼          ▼
//!               nothing               nothing     everything but I/O
//!               (carrier: an event)   frozen: everything but I/O
//! ```
//!
//! Only a carrier that comes or goes is ever told. Everything else has to be found out: by a
//! keep-alive that is not answered, by sockets that send again and again, or by I/O that does not
//! move.

use std::time::Duration;

use heal_types::{
    ControllerName, ControllerState, IfIndex, Interface, InterfaceName, IoReading, MadeOf, Network,
    Nqn, SocketReading,
};

use super::controller::{Controller, Leads};
use super::fabric::FarPortal;
use super::{FakeKernel, KernelSignal};

/// Indexes of interfaces begin here: 1 is the loopback.
const FIRST_INDEX: IfIndex = 2;
/// The first retransmission time-out of a connection (`TCP_RTO_MIN`).
const RTO: Duration = Duration::from_millis(200);

/// An interface of this host, with the cable in it.
#[derive(Debug, Clone)]
pub(crate) struct Link {
    pub(crate) name: InterfaceName,
    pub(crate) carrier: bool,
    /// Packets vanish, and nobody is told.
    pub(crate) black_hole: bool,
}

/// How far something sent down a path gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reach {
    /// Everything is answered.
    Answers,
    /// The target takes packets and answers keep-alives; no I/O ends.
    Frozen,
    /// Nothing is answered.
    Nothing,
}

impl FakeKernel {
    /// The index of the link of that name, made if there is none.
    pub(crate) fn link_named(&mut self, name: &InterfaceName) -> usize {
        let known = self.links.iter().position(|link| link.name == *name);
        known.unwrap_or_else(|| {
            self.links.push(Link { name: name.clone(), carrier: true, black_hole: false });
            self.links.len() - 1
        })
    }

    /// Every interface, as rtnetlink lists them.
    #[must_use]
    pub fn network(&self) -> Network {
        let mut network = Network::default();
        for (index, link) in (FIRST_INDEX..).zip(&self.links) {
            let interface = Interface {
                name: Some(link.name.clone()),
                up: link.carrier,
                made_of: MadeOf::Itself,
            };
            network.interfaces.insert(index, interface);
        }
        network
    }

    /// The interface each controller's packets leave through, as the kernel's routes say. A link
    /// without carrier keeps its routes (`ignore_routes_with_linkdown` is 0 by default).
    #[must_use]
    pub fn egress(&self) -> Vec<(ControllerName, IfIndex)> {
        let index = |c: &Controller| IfIndex::try_from(c.leads.link).unwrap_or(IfIndex::MAX);
        let found = self.controllers.iter();
        found.map(|c| (c.name.clone(), FIRST_INDEX.saturating_add(index(c)))).collect()
    }

    /// The cable is pulled, or is back.
    pub fn set_carrier(&mut self, link: &InterfaceName, carrier: bool) {
        let Some(at) = self.links.iter().position(|l| l.name == *link) else {
            return;
        };
        if std::mem::replace(&mut self.links[at].carrier, carrier) == carrier {
            return;
        }
        let offset = IfIndex::try_from(at).unwrap_or(IfIndex::MAX);
        let index = FIRST_INDEX.saturating_add(offset);
        self.signals.push(KernelSignal::Link { index, up: carrier });
        self.reached_differently();
    }

    /// Everything sent down the link vanishes, or no longer does. Nobody is told.
    pub fn set_black_hole(&mut self, link: &InterfaceName, black: bool) {
        if let Some(link) = self.links.iter_mut().find(|l| l.name == *link) {
            link.black_hole = black;
            self.reached_differently();
        }
    }

    /// The target's process stands still while its TCP lives, or goes on.
    pub fn set_frozen(&mut self, nqn: &Nqn, frozen: bool) {
        if let Some(target) = self.target_mut(nqn) {
            target.frozen = frozen;
            self.reached_differently();
        }
    }

    /// The target's paths carry no I/O (ANA inaccessible), or do again. The kernel learns it by an
    /// asynchronous event and tells nobody.
    pub fn set_ana(&mut self, nqn: &Nqn, usable: bool) {
        if let Some(target) = self.target_mut(nqn) {
            for portal in &mut target.portals {
                portal.ana_usable = usable;
            }
            self.reached_differently();
        }
    }

    /// The target's process dies, or is back. Its machine answers for it: connections are reset.
    pub fn set_serving(&mut self, nqn: &Nqn, serving: bool) {
        let Some(target) = self.target_mut(nqn) else { return };
        target.reachable = serving;
        if !serving {
            for at in 0..self.controllers.len() {
                let answers = self.links[self.controllers[at].leads.link].carrier;
                if self.controllers[at].nqn == *nqn && answers {
                    self.destroy_sockets(at);
                }
            }
        }
        self.reached_differently();
    }

    /// Names of the links that lead to a target.
    #[must_use]
    pub fn links_of(&self, nqn: &Nqn) -> Vec<InterfaceName> {
        let portals = self.target(nqn).into_iter().flat_map(|target| &target.portals);
        portals.map(|portal| self.links[portal.link].name.clone()).collect()
    }

    pub(crate) fn far_portal(&self, controller: &Controller) -> Option<&FarPortal> {
        self.targets[controller.leads.target.0].portals.get(controller.leads.portal)
    }

    pub(crate) fn ana_usable(&self, controller: &Controller) -> bool {
        self.far_portal(controller).is_some_and(|far| far.ana_usable)
    }

    /// How far something sent by that controller gets now.
    pub(crate) fn reach(&self, controller: &Controller) -> Reach {
        self.reach_of(controller.leads)
    }

    pub(crate) fn reach_of(&self, leads: Leads) -> Reach {
        let (link, target) = (&self.links[leads.link], &self.targets[leads.target.0]);
        if !target.reachable || !link.carrier || link.black_hole {
            Reach::Nothing
        } else if target.frozen {
            Reach::Frozen
        } else {
            Reach::Answers
        }
    }

    /// What is sent gets another way than before: keep-alives begin to fail, or are answered again,
    /// and whatever waited may go on.
    pub(crate) fn reached_differently(&mut self) {
        let now = self.now;
        for at in 0..self.controllers.len() {
            let answered = self.reach(&self.controllers[at]) != Reach::Nothing;
            let controller = &mut self.controllers[at];
            match (controller.state == ControllerState::Live, answered) {
                (true, false) => controller.begin_silence(now),
                (true, true) => controller.end_silence(),
                (false, _) => {}
            }
        }
        self.io_moved();
    }

    /// What the TCP sockets of a controller show (`tcp_info`); `None` when it has none.
    #[must_use]
    pub fn sockets(&self, name: &ControllerName) -> Option<SocketReading> {
        let controller = self.controllers.iter().find(|c| c.name == *name)?;
        if controller.state != ControllerState::Live {
            return None;
        }
        // A keep-alive, if nothing else, is sent every few seconds.
        let silent = controller.silent_since.map(|since| self.now.since(since));
        let sent =
            silent.filter(|_| self.is_used(controller) || controller.keep_alive_sent(self.now));
        Some(match sent {
            None => SocketReading {
                backoff: 0,
                unacked: 0,
                since_ack: silent.unwrap_or_default(),
                closed: false,
            },
            Some(silent) => {
                let mut backoff = 0;
                while RTO.saturating_mul(1 << (backoff + 1)) <= silent && backoff < 15 {
                    backoff += 1;
                }
                SocketReading { backoff, unacked: 3, since_ack: silent, closed: false }
            }
        })
    }

    /// How far the I/O of a controller has come, as its path devices' statistics show.
    #[must_use]
    pub fn io_reading(&self, name: &ControllerName) -> Option<IoReading> {
        let controller = self.controllers.iter().find(|c| c.name == *name)?;
        let in_flight = u64::from(self.is_used(controller));
        Some(IoReading { in_flight, completed: controller.completed })
    }

    /// Names of all controllers.
    #[must_use]
    pub fn controllers(&self) -> Vec<ControllerName> {
        self.controllers.iter().map(|c| c.name.clone()).collect()
    }
}
