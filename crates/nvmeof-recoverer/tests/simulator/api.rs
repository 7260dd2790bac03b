//! The API server: objects with versions, a leader's lease, and watch caches that lag.

use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

use heal_types::cluster::{Generation, RelocationId};
use nvmeof_recoverer::plan::relocate::Relocation;

use crate::device::Host;

/// An `OsdRelocation` and its resource version.
#[derive(Debug, Clone)]
pub(crate) struct Stored {
    pub(crate) version: u64,
    pub(crate) relocation: Relocation,
}

/// The Deployment of an OSD.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Deployment {
    pub(crate) node: Host,
    pub(crate) replicas: u8,
    /// The last move that changed it.
    pub(crate) generation: Generation,
    /// Kept from Rook by a move.
    pub(crate) mark: Option<Generation>,
    /// When a move last put it elsewhere.
    pub(crate) moved: Option<u64>,
}

/// The pod of an OSD.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pod {
    pub(crate) node: Host,
    pub(crate) terminating: bool,
}

/// Every object.
#[derive(Debug, Clone)]
pub(crate) struct Objects {
    pub(crate) relocations: BTreeMap<RelocationId, Rc<Stored>>,
    pub(crate) deployments: Vec<Deployment>,
    pub(crate) pods: Vec<Option<Pod>>,
    /// How often each node's lease was renewed.
    pub(crate) leases: Vec<u64>,
}

/// The server.
#[derive(Debug)]
pub(crate) struct Api {
    pub(crate) up: bool,
    pub(crate) now: Objects,
    /// What watchers may still see: the newest first.
    past: VecDeque<Rc<Objects>>,
    version: u64,
    leader: Option<(usize, u64)>,
    pub(crate) violations: Vec<String>,
    pub(crate) created: u64,
}

/// How far a watch cache lags at most, in seconds.
pub(crate) const LAG: usize = 3;
/// The leader's lease lasts that long, in seconds.
const LEADER: u64 = 4;

impl Api {
    pub(crate) fn new(places: &[Host], nodes: usize) -> Self {
        let deployment = |node: &Host| Deployment {
            node: *node,
            replicas: 1,
            generation: Generation(0),
            mark: None,
            moved: None,
        };
        let now = Objects {
            relocations: BTreeMap::new(),
            deployments: places.iter().map(deployment).collect(),
            pods: places.iter().map(|node| Some(Pod { node: *node, terminating: false })).collect(),
            leases: vec![0; nodes],
        };
        Self {
            up: true,
            now,
            past: VecDeque::new(),
            version: 0,
            leader: None,
            violations: Vec::new(),
            created: 0,
        }
    }

    /// A second has passed: this is what a watcher may see from now on.
    pub(crate) fn remember(&mut self) {
        self.past.push_front(Rc::new(self.now.clone()));
        self.past.truncate(LAG + 1);
    }

    /// What a watch cache shows that lags by that much.
    pub(crate) fn watched(&self, lag: usize) -> Option<Rc<Objects>> {
        self.past.get(lag.min(self.past.len().checked_sub(1)?)).cloned()
    }

    /// Becomes or stays the leader; until when that is certain, by a clock that may be a little
    /// off.
    pub(crate) fn lead(&mut self, who: usize, now: u64) -> Option<u64> {
        match self.leader {
            Some((holder, renewed)) if holder != who && now < renewed + LEADER => None,
            _ => {
                self.leader = Some((who, now));
                Some(now + LEADER - 1)
            }
        }
    }

    pub(crate) fn create(&mut self, relocation: Relocation) {
        if self.now.relocations.contains_key(&relocation.id) {
            return;
        }
        let open = self.now.relocations.values().find(|stored| {
            stored.relocation.osd.id == relocation.osd.id
                && !stored.relocation.phase.kind().is_over()
        });
        if let Some(open) = open {
            let (one, two) = (&open.relocation.id, &relocation.id);
            self.violations.push(format!("two moves of one OSD at once: {one} and {two}"));
        }
        self.created += 1;
        self.version += 1;
        let stored = Stored { version: self.version, relocation };
        self.now.relocations.insert(stored.relocation.id.clone(), Rc::new(stored));
    }

    /// Writes if nobody else has since `version`.
    pub(crate) fn write(&mut self, version: u64, relocation: Relocation) -> bool {
        let known = self.now.relocations.get_mut(&relocation.id);
        let Some(known) = known.filter(|known| known.version == version) else {
            return false;
        };
        self.version += 1;
        *known = Rc::new(Stored { version: self.version, relocation });
        true
    }

    /// What is over goes, but for each OSD's last: somebody has to remember its generation.
    pub(crate) fn collect(&mut self) {
        if self.now.relocations.len() < 12 {
            return;
        }
        let mut last = BTreeMap::new();
        for stored in self.now.relocations.values() {
            let newest = last.entry(stored.relocation.osd.id).or_insert(Generation(0));
            *newest = stored.relocation.generation.max(*newest);
        }
        self.now.relocations.retain(|_, stored| {
            let relocation = &stored.relocation;
            !relocation.phase.kind().is_over()
                || last.get(&relocation.osd.id) == Some(&relocation.generation)
        });
    }
}
