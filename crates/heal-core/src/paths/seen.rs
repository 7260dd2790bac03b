//! What a look shows of controllers.

use std::collections::BTreeMap;

use heal_types::{
    ControllerName, ControllerState, DeviceName, DiskSeq, HostSnapshot, NamespaceSnapshot, Nqn,
    Observed, Portal,
};

/// A namespace's disk: the number tells it from an older one of the same name.
pub(super) type Space = (DeviceName, Option<DiskSeq>);

/// What a look shows of every controller.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Seen {
    whole: bool,
    controllers: BTreeMap<ControllerName, Facts>,
}

/// What a look shows of one controller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Facts {
    pub(super) nqn: Option<Nqn>,
    pub(super) portal: Option<Portal>,
    pub(super) state: Observed<ControllerState>,
    /// Whether the target lets I/O in, per namespace.
    pub(super) spaces: BTreeMap<Space, Observed<bool>>,
}

impl Seen {
    /// Of a look at the whole host: a controller that is not in it is gone, unless something could
    /// not be read.
    #[must_use]
    pub fn whole(snapshot: &HostSnapshot) -> Self {
        Self { whole: snapshot.unreadable.is_empty(), ..Self::part(snapshot) }
    }

    /// Of a look at a part of the host.
    #[must_use]
    pub fn part(snapshot: &HostSnapshot) -> Self {
        let mut seen = Self::default();
        let legs = snapshot.arrays.iter().flat_map(|array| &array.legs);
        let backings = legs.filter_map(|leg| leg.backing.namespace());
        for namespace in snapshot.namespaces.iter().chain(backings) {
            seen.add(namespace);
        }
        seen
    }

    fn add(&mut self, namespace: &NamespaceSnapshot) {
        let space = space_of(namespace);
        for path in &namespace.paths {
            let facts = self.controllers.entry(path.controller.clone()).or_insert_with(|| Facts {
                nqn: None,
                portal: None,
                state: path.state,
                spaces: BTreeMap::new(),
            });
            facts.nqn = facts.nqn.take().or_else(|| namespace.nqn.known().cloned());
            facts.portal = facts.portal.take().or_else(|| path.portal.known().cloned());
            facts.state = worse(facts.state, path.state);
            facts.spaces.insert(space.clone(), path.ana_usable);
        }
    }

    pub(super) fn is_whole(&self) -> bool {
        self.whole
    }

    pub(super) fn shows(&self, name: &ControllerName) -> bool {
        self.controllers.contains_key(name)
    }

    pub(super) fn into_controllers(self) -> BTreeMap<ControllerName, Facts> {
        self.controllers
    }
}

pub(super) fn space_of(namespace: &NamespaceSnapshot) -> Space {
    (namespace.device.clone(), namespace.diskseq.known().copied())
}

/// One look reads a controller's state once for each namespace: what says that it is not live
/// counts.
fn worse(a: Observed<ControllerState>, b: Observed<ControllerState>) -> Observed<ControllerState> {
    match (a, b) {
        (Observed::Known(ControllerState::Live) | Observed::Unknown(_), Observed::Known(_)) => b,
        (Observed::Known(_), Observed::Known(_) | Observed::Unknown(_))
        | (Observed::Unknown(_), Observed::Unknown(_)) => a,
    }
}
