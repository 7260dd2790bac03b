//! The link witness: the interface a controller's packets leave through.

use heal_types::{
    IfIndex, InterfaceName, LinkState, MadeOf, Moment, Network, PathDoubt, PathHealth,
};

use super::Limits;
use super::explain::{Evidence, Testimony};

/// The interface a controller leaves through.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Egress {
    pub(super) index: IfIndex,
    pub(super) name: Option<InterfaceName>,
}

/// What is held of it.
#[derive(Debug, Clone, Default)]
pub(super) struct Link {
    pub(super) egress: Option<Egress>,
    /// The controller connected again: it may have taken another way.
    ask_again: bool,
    pub(super) state: Option<LinkState>,
    /// The loss that has not been made good yet.
    down_since: Option<Moment>,
    up_since: Option<Moment>,
    /// The last loss of a port.
    port_since: Option<Moment>,
}

impl Link {
    /// Takes the kernel's answer to "which way", if it is worth taking.
    pub(super) fn route(&mut self, network: &Network, answer: Option<IfIndex>) {
        let Some(answer) = answer else {
            return; // No route, or nobody could ask: the way it had is the way it had.
        };
        let name = network.interfaces.get(&answer).and_then(|interface| interface.name.clone());
        if let Some(old) = &self.egress {
            let heir = !network.interfaces.contains_key(&old.index) && old.name == name;
            let is_down = network.state(old.index) == LinkState::Down;
            if is_down && !self.ask_again && !(heir && name.is_some()) {
                return;
            }
        }
        self.ask_again = false;
        self.egress = Some(Egress { index: answer, name });
    }

    /// The controller connected: the next picture of the network says which way it took.
    pub(super) fn ask_again(&mut self) {
        self.ask_again = true;
    }

    /// Takes in how the interface is now.
    pub(super) fn observe(&mut self, now: Moment, network: &Network) {
        let state = self.egress.as_ref().map(|egress| network.state(egress.index));
        if state == self.state {
            return;
        }
        match state {
            None => {}
            Some(LinkState::Down) => {
                self.down_since.get_or_insert(now);
                self.up_since = None;
                self.port_since = None;
            }
            Some(LinkState::Up | LinkState::PortDown) if self.state == Some(LinkState::Down) => {
                self.up_since = Some(now);
            }
            Some(LinkState::Up) => self.port_since = None,
            // A bond that lacks a port when it is first seen has lost none.
            Some(LinkState::PortDown) => self.port_since = self.state.map(|_| now),
        }
        self.state = state;
    }

    /// Forgets losses that are made good.
    pub(super) fn forget(&mut self, now: Moment, limits: &Limits) {
        if self.up_since.is_some_and(|since| now.since(since) >= limits.up_confirm) {
            self.down_since = None;
            self.up_since = None;
        }
        if self.port_since.is_some_and(|since| now.since(since) >= limits.port_settle) {
            self.port_since = None;
        }
    }

    pub(super) fn says(&self, now: Moment, limits: &Limits) -> Option<Testimony> {
        let interface = self.egress.as_ref()?.index;
        if self.state == Some(LinkState::Down) {
            return Some(Testimony {
                health: PathHealth::Dead(PathDoubt::LinkDown),
                since: self.down_since.unwrap_or(now),
                until: None,
                evidence: Evidence::LinkDown { interface },
            });
        }
        if let (Some(since), Some(up)) = (self.down_since, self.up_since) {
            return Some(Testimony {
                health: PathHealth::Suspect(PathDoubt::LinkDown),
                since,
                until: Some(up.after(limits.up_confirm)),
                evidence: Evidence::LinkReturned { interface, up_for: now.since(up) },
            });
        }
        let since = self.port_since?;
        Some(Testimony {
            health: PathHealth::Suspect(PathDoubt::PortDown),
            since,
            until: Some(since.after(limits.port_settle)),
            evidence: Evidence::PortLost { interface, ago: now.since(since) },
        })
    }

    /// The interface whose loss is the cause, if this link is down.
    pub(super) fn culprit(&self, network: &Network) -> Option<IfIndex> {
        let egress = self.egress.as_ref()?;
        (self.state == Some(LinkState::Down)).then(|| culprit(network, egress.index))
    }
}

/// Interfaces are stacked no deeper than this.
pub(super) const DEPTH: usize = 8;

/// The lowest interface that is down below `index`: two VLANs of one card have one reason.
fn culprit(network: &Network, index: IfIndex) -> IfIndex {
    let mut culprit = index;
    for _ in 0..DEPTH {
        match network.interfaces.get(&culprit).map(|interface| &interface.made_of) {
            Some(MadeOf::On(lower))
                if network.interfaces.contains_key(lower)
                    && network.state(*lower) == LinkState::Down =>
            {
                culprit = *lower;
            }
            Some(MadeOf::On(_) | MadeOf::AnyOf(_) | MadeOf::Itself) | None => break,
        }
    }
    culprit
}
