//! A cluster that exists only here: nodes, OSDs, mons, targets and an API server, second by second.
//!
//! ```text
//!   Controller ×2 ──► Api (objects, versions, lagging caches) ◄── kubelets, Deployments
//!        │  commands that arrive late                                  │ pods
//!        ├──► mons (heartbeats, grace, quorum, noout) ◄── heartbeats ── OSD daemons on nodes
//!        └──► targets (fences that lie) ──► Device ◄── writes ──────────────┘
//! ```
//!
//! A node has four ways to be half dead: without power, frozen, without the control network (its
//! OSD writes on), or without the fabric. The frozen one is the worst: it wakes up with writes in
//! its hand.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use heal_types::cluster::{DomainName, NodeName, OsdId, RelocationId};
use heal_types::{Moment, Now, Nqn, Observed, UnknownWhy, WallTime};
use nvmeof_recoverer::plan::evidence::Loss;
use nvmeof_recoverer::plan::view::{
    ClusterView, FenceHealth, MonView, NodeView, OsdIdentity, OsdView, Pool, Resources, TargetView,
};
use nvmeof_recoverer::plan::{Automatic, Policy};

use crate::api::{Api, Pod};
use crate::controller::{Controller, Sent};
use crate::device::{Block, Device, Host};
use crate::dice::Dice;

/// Nodes and OSDs of the cluster. The first two OSDs share a node and a failure domain.
pub(crate) const NODES: usize = 5;
pub(crate) const OSDS: usize = 4;
const DOMAINS: usize = 3;
/// The mons give an OSD up after that long, in seconds. All times are a third of the real ones.
const GRACE: u64 = 8;
/// Every node renews its lease that often, each at its own time.
const RENEWAL: u64 = 3;
/// A target gives a silent host's connection up after that long.
const KEEP_ALIVE: u64 = 4;

#[derive(Debug, Clone)]
pub(crate) struct Node {
    pub(crate) powered: bool,
    pub(crate) frozen: bool,
    /// The way to the API server.
    pub(crate) api: bool,
    /// The way to the mons.
    pub(crate) mon: bool,
    /// The way to the targets.
    pub(crate) fabric: bool,
    /// Off until the story says otherwise: a person pulled the plug.
    pub(crate) unplugged: bool,
    pub(crate) out_of_service: bool,
    /// Devices its kernel is to be connected to.
    pub(crate) attached: BTreeSet<usize>,
    pub(crate) daemons: BTreeMap<usize, Daemon>,
    renewed: u64,
    /// When it was last truly silent for long.
    pub(crate) last_silent: Option<u64>,
}

impl Node {
    fn runs(&self) -> bool {
        self.powered && !self.frozen
    }
}

/// A running OSD.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Daemon {
    epoch: u64,
    number: u64,
    errors: u32,
}

#[derive(Debug)]
pub(crate) struct World {
    pub(crate) now: u64,
    pub(crate) dice: Dice,
    pub(crate) policy: Policy,
    pub(crate) nodes: Vec<Node>,
    pub(crate) devices: Vec<Device>,
    pub(crate) api: Api,
    pub(crate) quorum: bool,
    pub(crate) up: Vec<bool>,
    heartbeat: Vec<u64>,
    /// Where each OSD booted last.
    pub(crate) started_on: Vec<Host>,
    booted: Vec<u64>,
    pub(crate) last_down: Vec<Option<u64>>,
    changed: u64,
    pub(crate) noout: Vec<bool>,
    pub(crate) controllers: Vec<Controller>,
    pub(crate) sent: Vec<Sent>,
    /// Commands may be late by that much.
    pub(crate) late: u64,
    /// Moves whose first fence was judged: what follows finishes what was begun.
    pub(crate) judged: BTreeSet<RelocationId>,
    /// The loss that was confirmed last: a move that was held rests on that, not on what it was
    /// begun for.
    pub(crate) confirmed: BTreeMap<RelocationId, Loss>,
    pub(crate) violations: Vec<String>,
    pub(crate) told: Option<Vec<String>>,
    pub(crate) template: ClusterView,
    pub(crate) names: Vec<NodeName>,
}

pub(crate) fn policy() -> Policy {
    use std::time::Duration as D;
    Policy {
        automatic: Automatic::On,
        lease_silent: D::from_secs(8),
        storm_silent: D::from_secs(5),
        view_fresh: D::from_secs(4),
        round_gap: D::from_secs(1),
        cooldown: D::from_secs(20),
        moves_per_hour: 10_000,
        hold_down: D::from_secs(30),
        step_retry: D::from_secs(1),
        longest_retry: D::from_secs(4),
        confirm_patience: D::from_secs(40),
        fence_patience: D::from_secs(15),
        fence_again: D::from_secs(10),
        step_patience: D::from_secs(40),
        clean_patience: D::from_secs(60),
        ..Policy::default()
    }
}

/// A second of this world on both clocks.
pub(crate) fn moment(second: u64) -> Moment {
    Moment(second * 1_000_000_000)
}

pub(crate) fn wall(second: u64) -> WallTime {
    WallTime(1_800_000_000_000 + second * 1000)
}

pub(crate) fn osd_id(osd: usize) -> OsdId {
    OsdId::new(u32::try_from(osd).unwrap()).unwrap()
}

pub(crate) fn domain_of(osd: usize) -> usize {
    osd.saturating_sub(1) % DOMAINS
}

fn domain(n: usize) -> DomainName {
    DomainName::new(format!("fabric-{n}")).unwrap()
}

pub(crate) fn identity(osd: usize) -> OsdIdentity {
    OsdIdentity {
        cluster: "0f7e4d5a-1111-4222-8333-444455556666".parse().unwrap(),
        id: osd_id(osd),
        fsid: format!("0f7e4d5a-1111-4222-8333-{:012}", osd + 1).parse().unwrap(),
    }
}

fn template(names: &[NodeName]) -> ClusterView {
    let node = NodeView {
        lease_changed: Observed::Unknown(UnknownWhy::NotReadYet),
        ready: Observed::Known(true),
        out_of_service: false,
        schedulable: true,
        allocatable: Resources { cpu_milli: 8000, memory: 32 << 30 },
        requested: Resources::default(),
        used: Observed::Unknown(UnknownWhy::NotReadYet),
        io_wait: Observed::Unknown(UnknownWhy::NotReadYet),
        not_before: None,
        vetoed: false,
    };
    let target = TargetView {
        attachable: names.iter().cloned().collect(),
        fence: FenceHealth::Ready,
        reach: BTreeMap::new(),
    };
    let osd = |osd: usize| OsdView {
        identity: identity(osd),
        device: nvmeof_recoverer::plan::view::Device {
            subsystem: Nqn::new(format!("nqn.2026-01.org.example:osd-{osd}")).unwrap(),
            namespace: format!("uuid.0f7e4d5a-1111-4222-8333-{:012}", osd + 1).parse().unwrap(),
        },
        domain: domain(domain_of(osd)),
        node: Observed::Unknown(UnknownWhy::NotReadYet),
        up: Observed::Unknown(UnknownWhy::NotReadYet),
        started_on: Observed::Unknown(UnknownWhy::NotReadYet),
        requests: Resources { cpu_milli: 1000, memory: 4 << 30 },
        weight: 1000,
        holders: BTreeSet::new(),
        generation: heal_types::cluster::Generation(0),
        moved: None,
        tried: None,
        moving: None,
        seen_here: Observed::Unknown(UnknownWhy::NotReadYet),
        seen_elsewhere: Observed::Unknown(UnknownWhy::NotReadYet),
        marked: None,
    };
    ClusterView {
        now: Now { mono: moment(0), wall: wall(0) },
        api_seen: Observed::Unknown(UnknownWhy::NotReadYet),
        mons: Observed::<MonView>::Unknown(UnknownWhy::NotReadYet),
        nodes: names.iter().map(|name| (name.clone(), node.clone())).collect(),
        targets: (0..DOMAINS).map(|n| (domain(n), target.clone())).collect(),
        osds: (0..OSDS).map(|n| (osd_id(n), osd(n))).collect(),
        pools: vec![Pool { size: 3, min_size: 2 }],
        recent_moves: Vec::new(),
    }
}

impl World {
    pub(crate) fn new(seed: u64) -> Self {
        let names: Vec<NodeName> =
            (0..NODES).map(|n| NodeName::new(format!("n{n}")).unwrap()).collect();
        let places: Vec<Host> = (0..OSDS).map(domain_of).collect();
        let node = |n: usize| Node {
            powered: true,
            frozen: false,
            api: true,
            mon: true,
            fabric: true,
            unplugged: false,
            out_of_service: false,
            attached: (0..OSDS).filter(|osd| places[*osd] == n).collect(),
            daemons: BTreeMap::new(),
            renewed: 0,
            last_silent: None,
        };
        let mut world = Self {
            now: 0,
            dice: Dice::new(seed),
            policy: policy(),
            nodes: (0..NODES).map(node).collect(),
            devices: places.iter().map(|host| Device::new(*host)).collect(),
            api: Api::new(&places, NODES),
            quorum: true,
            up: vec![true; OSDS],
            heartbeat: vec![0; OSDS],
            started_on: places.clone(),
            booted: vec![0; OSDS],
            last_down: vec![None; OSDS],
            changed: 0,
            noout: vec![false; OSDS],
            controllers: vec![Controller::new(), Controller::new()],
            sent: Vec::new(),
            late: 0,
            judged: BTreeSet::new(),
            confirmed: BTreeMap::new(),
            violations: Vec::new(),
            told: None,
            template: template(&names),
            names,
        };
        world.run(12);
        world
    }

    pub(crate) fn say(&mut self, line: impl FnOnce() -> String) {
        if let Some(told) = &mut self.told {
            told.push(format!("{:>5} {}", self.now, line()));
        }
    }

    pub(crate) fn host(&self, name: &NodeName) -> Host {
        self.names.iter().position(|it| it == name).expect("the plan names nodes of this world")
    }

    pub(crate) fn run(&mut self, seconds: u64) {
        for _ in 0..seconds {
            self.second();
        }
    }

    /// One second: everybody acts once, in an order that the dice choose.
    fn second(&mut self) {
        self.now += 1;
        // Mons without a quorum still say so to whoever reads it when they have one again.
        for osd in (0..OSDS).filter(|osd| !self.up[*osd]) {
            self.last_down[osd] = Some(self.now);
        }
        let first = self.dice.index(4);
        for turn in 0..4 {
            match (first + turn) % 4 {
                0 => self.nodes_act(),
                1 => self.mons_act(),
                2 => self.deployments_act(),
                _ => self.controllers_act(),
            }
        }
        for device in &mut self.devices {
            device.pass(self.now);
        }
        self.deliver();
        self.api.remember();
        self.gather();
    }

    fn gather(&mut self) {
        let devices = self.devices.iter_mut().enumerate();
        let of_devices: Vec<String> = devices
            .flat_map(|(osd, device)| {
                device.violations.drain(..).map(move |it| format!("osd.{osd}: {it}"))
            })
            .collect();
        for violation in of_devices.into_iter().chain(std::mem::take(&mut self.api.violations)) {
            self.violated(&violation);
        }
    }

    pub(crate) fn violated(&mut self, what: &str) {
        self.say(|| format!("VIOLATED {what}"));
        self.violations.push(format!("second {}: {what}", self.now));
    }

    fn nodes_act(&mut self) {
        for n in 0..NODES {
            self.connections(n);
            if !self.nodes[n].runs() {
                continue;
            }
            if self.nodes[n].api && self.api.up {
                self.renew(n);
                self.kubelet(n);
            }
            self.daemons(n);
        }
        for node in &mut self.nodes {
            // As long as the plan may call silence, less what its view may lag.
            if self.now - node.renewed + 4 >= self.policy.lease_silent.as_secs() {
                node.last_silent = Some(self.now);
            }
        }
    }

    /// Each node at its own time, and as soon as it can after that.
    fn renew(&mut self, n: usize) {
        let its_time = (self.now + u64::try_from(n).unwrap()) % RENEWAL == 0;
        if its_time || self.now - self.nodes[n].renewed >= RENEWAL {
            self.api.now.leases[n] += 1;
            self.nodes[n].renewed = self.now;
        }
    }

    /// What the kernel does by itself: keep alive, reconnect, and be given up.
    fn connections(&mut self, n: usize) {
        let reaches = self.nodes[n].runs() && self.nodes[n].fabric;
        for osd in 0..OSDS {
            let device = &mut self.devices[osd];
            if let Some(session) = device.sessions.iter_mut().find(|it| it.host == n) {
                if reaches {
                    session.silent = None;
                } else if self.now - *session.silent.get_or_insert(self.now) >= KEEP_ALIVE {
                    device.disconnect(n);
                }
            } else if reaches && self.nodes[n].attached.contains(&osd) {
                device.connect(n);
            }
        }
    }

    fn kubelet(&mut self, n: usize) {
        for osd in 0..OSDS {
            let pod = self.api.now.pods[osd].filter(|pod| pod.node == n);
            match pod {
                Some(Pod { terminating: false, .. }) => {
                    if !self.nodes[n].daemons.contains_key(&osd)
                        && self.nodes[n].fabric
                        && self.nodes[n].attached.contains(&osd)
                    {
                        self.start(n, osd);
                    }
                }
                Some(Pod { terminating: true, .. }) => {
                    self.nodes[n].daemons.remove(&osd);
                    self.api.now.pods[osd] = None;
                }
                None => {
                    self.nodes[n].daemons.remove(&osd);
                }
            }
        }
    }

    fn start(&mut self, n: usize, osd: usize) {
        if let Some(epoch) = self.devices[osd].mount(n) {
            self.say(|| format!("osd.{osd} starts on n{n}, epoch {epoch}"));
            self.nodes[n].daemons.insert(osd, Daemon { epoch, number: 0, errors: 0 });
        }
    }

    fn daemons(&mut self, n: usize) {
        let (now, fabric) = (self.now, self.nodes[n].fabric);
        let running: Vec<usize> = self.nodes[n].daemons.keys().copied().collect();
        for osd in running {
            let delay = if self.dice.once_in(3) { self.dice.below(4) } else { 0 };
            let Some(daemon) = self.nodes[n].daemons.get_mut(&osd) else { continue };
            daemon.number += 1;
            let epoch = daemon.epoch;
            let block = Block { host: n, epoch: daemon.epoch, number: daemon.number };
            if fabric && self.devices[osd].write(now, delay, block) {
                daemon.errors = 0;
            } else {
                daemon.errors += 1;
                if daemon.errors > 6 {
                    self.nodes[n].daemons.remove(&osd);
                    self.say(|| format!("osd.{osd} on n{n} dies of an I/O error"));
                    continue;
                }
            }
            if self.nodes[n].mon {
                // An older daemon than the last that booted is not heard any more.
                if epoch >= self.booted[osd] {
                    self.heartbeat[osd] = now;
                    (self.booted[osd], self.started_on[osd]) = (epoch, n);
                }
            }
        }
    }

    fn mons_act(&mut self) {
        if !self.quorum {
            return;
        }
        for osd in 0..OSDS {
            let heard = self.now - self.heartbeat[osd] < GRACE;
            // A daemon that was marked down and lives says so, and is up again.
            let just_heard = self.now - self.heartbeat[osd] <= 1;
            if self.up[osd] && !heard || !self.up[osd] && just_heard {
                self.set_up(osd, just_heard);
            }
        }
    }

    pub(crate) fn set_up(&mut self, osd: usize, up: bool) {
        if self.up[osd] != up {
            self.up[osd] = up;
            self.changed = self.now;
            if !up {
                self.last_down[osd] = Some(self.now);
            }
            self.say(|| format!("the mons: osd.{osd} is {}", if up { "up" } else { "down" }));
        }
    }

    pub(crate) fn all_clean(&self) -> bool {
        self.up.iter().all(|up| *up) && self.now - self.changed >= 2
    }

    /// A Deployment with `Recreate`: no new pod before the old one is gone.
    fn deployments_act(&mut self) {
        if !self.api.up {
            return;
        }
        for osd in 0..OSDS {
            let wanted = self.api.now.deployments[osd];
            match &mut self.api.now.pods[osd] {
                Some(pod) => {
                    pod.terminating |= wanted.replicas == 0 || pod.node != wanted.node;
                }
                None if wanted.replicas > 0 => {
                    self.api.now.pods[osd] = Some(Pod { node: wanted.node, terminating: false });
                }
                None => {}
            }
        }
        self.api.collect();
    }

    pub(crate) fn power(&mut self, n: usize, on: bool) {
        self.say(|| format!("n{n} {}", if on { "boots" } else { "loses power" }));
        let node = &mut self.nodes[n];
        node.powered = on;
        node.frozen = false;
        node.daemons.clear();
        // What is connected at boot is what its pods will want.
        let deployments = &self.api.now.deployments;
        node.attached = (0..OSDS).filter(|osd| on && deployments[*osd].node == n).collect();
        if on {
            // A boot takes longer than anything stays on the wire.
            self.devices.iter_mut().for_each(|device| device.disconnect(n));
        }
    }

    /// Where an OSD's daemons are.
    pub(crate) fn running(&self, osd: usize) -> Vec<Host> {
        let here = self.nodes.iter().enumerate();
        here.filter(|(_, node)| node.powered && node.daemons.contains_key(&osd))
            .map(|(n, _)| n)
            .collect()
    }

    pub(crate) fn shared_template(&self) -> Rc<ClusterView> {
        Rc::new(self.template.clone())
    }
}
