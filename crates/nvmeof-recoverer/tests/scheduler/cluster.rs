//! Clusters that dice make, and what can be counted of any cluster without the scheduler.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use heal_types::cluster::{DomainName, Generation, NodeName, OsdId};
use heal_types::{Moment, Now, Nqn, Observed, UnknownWhy, WallTime};
use nvmeof_recoverer::plan::schedule::place;
use nvmeof_recoverer::plan::view::{
    ClusterView, Device, FenceHealth, MonView, NodeView, OsdIdentity, OsdView, Permille, Pool,
    Reach, Resources, TargetView, Usage,
};
use nvmeof_recoverer::plan::{Automatic, Policy};

use crate::dice::Dice;

pub(crate) const GIB: u64 = 1 << 30;

/// What differs from node to node, and from OSD to OSD.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Nothing.
    Even,
    /// Node 0 has eight times what the others have.
    OneBig,
    /// Devices of one to eight times the same size.
    Sizes,
    /// A node has room for one OSD more than its share.
    NearlyFull,
    /// What is used of the nodes, and how they wait for I/O.
    Busy,
    /// A target is in a zone, and only nodes of that zone may use it.
    Zones,
    /// Everything, and some of it is not known.
    Mixed,
}

/// What a cluster looks like.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shape {
    pub(crate) name: &'static str,
    pub(crate) nodes: usize,
    pub(crate) targets: usize,
    pub(crate) osds: usize,
    pub(crate) pool: Pool,
    pub(crate) kind: Kind,
}

pub(crate) const fn shape(
    name: &'static str,
    (nodes, targets, osds): (usize, usize, usize),
    (size, min_size): (u32, u32),
    kind: Kind,
) -> Shape {
    Shape { name, nodes, targets, osds, pool: Pool { size, min_size }, kind }
}

/// Small ones first; the last has thousands of OSDs.
pub(crate) const SHAPES: [Shape; 13] = [
    // As built for the measurements of the move itself: three targets, one OSD each.
    shape("three by three", (4, 3, 3), (3, 2), Kind::Even),
    shape("small, even", (6, 4, 16), (4, 2), Kind::Even),
    shape("small, mixed", (8, 4, 24), (4, 2), Kind::Mixed),
    shape("three domains", (9, 3, 27), (3, 2), Kind::Even),
    shape("one big node", (8, 4, 24), (4, 2), Kind::OneBig),
    shape("uneven devices", (8, 4, 32), (4, 2), Kind::Sizes),
    shape("nearly full", (8, 4, 24), (4, 2), Kind::NearlyFull),
    shape("uneven load", (8, 4, 24), (4, 2), Kind::Busy),
    shape("one rack", (20, 10, 120), (4, 2), Kind::Mixed),
    // What the rule it is compared with was tested on by its own authors.
    shape("two, one domain", (2, 1, 3), (3, 2), Kind::Even),
    // As Rook's portable OSDs are laid out: each can move within its zone.
    shape("three zones", (12, 3, 36), (3, 2), Kind::Zones),
    shape("erasure 8+3", (40, 16, 320), (11, 9), Kind::Mixed),
    shape("large", (200, 50, 2000), (6, 3), Kind::Mixed),
];

pub(crate) fn node(n: usize) -> NodeName {
    NodeName::new(format!("node-{n}")).unwrap()
}

pub(crate) fn domain(n: usize) -> DomainName {
    DomainName::new(format!("fabric-{n}")).unwrap()
}

pub(crate) fn osd(n: usize) -> OsdId {
    OsdId::new(u32::try_from(n).unwrap()).unwrap()
}

fn unknown<T>() -> Observed<T> {
    Observed::Unknown(UnknownWhy::NotReadYet)
}

/// What is measured of a node now.
fn measure(dice: &mut Dice, kind: Kind, node: &mut NodeView) {
    let share = |dice: &mut Dice| Permille::of(dice.below(900), 1000);
    let used = Usage { cpu: share(dice), memory: share(dice) };
    let known = match kind {
        Kind::Busy => true,
        Kind::Mixed => !dice.once_in(5),
        Kind::Even | Kind::OneBig | Kind::Sizes | Kind::NearlyFull | Kind::Zones => false,
    };
    node.used = if known { Observed::Known(used) } else { unknown() };
    node.io_wait = if known { Observed::Known(share(dice)) } else { unknown() };
}

fn some_node(dice: &mut Dice, now: Now, n: usize, shape: Shape) -> NodeView {
    let times = match shape.kind {
        Kind::Mixed => 1 << dice.below(3),
        Kind::OneBig if n == 0 => 8,
        Kind::Even | Kind::OneBig | Kind::Sizes | Kind::NearlyFull | Kind::Busy | Kind::Zones => 1,
    };
    let requested = Resources { cpu_milli: 4000, memory: (4 + dice.below(12)) * GIB };
    let mut allocatable = Resources { cpu_milli: 32_000 * times, memory: 96 * GIB * times };
    if shape.kind == Kind::NearlyFull {
        let share = u64::try_from(shape.osds.div_ceil(shape.nodes)).unwrap();
        allocatable.memory = requested.memory + (share + 1) * 4 * GIB;
    }
    let mut view = healthy_node(now, allocatable, requested);
    measure(dice, shape.kind, &mut view);
    view
}

/// A node of which nothing is measured.
pub(crate) fn healthy_node(now: Now, allocatable: Resources, requested: Resources) -> NodeView {
    NodeView {
        lease_changed: Observed::Known(now.mono),
        ready: Observed::Known(true),
        out_of_service: false,
        schedulable: true,
        allocatable,
        requested,
        used: unknown(),
        io_wait: unknown(),
        not_before: None,
        vetoed: false,
    }
}

fn some_osd(dice: &mut Dice, n: usize, shape: Shape) -> OsdView {
    let (memory, weight) = match shape.kind {
        Kind::Even | Kind::OneBig | Kind::NearlyFull | Kind::Busy | Kind::Zones => (4, 1000),
        Kind::Sizes => (4, 1000 << dice.below(4)),
        Kind::Mixed => (4 + dice.below(5), 1000 * u32::try_from(1 + dice.below(3)).unwrap()),
    };
    healthy_osd(n, domain(n % shape.targets), memory * GIB, weight)
}

/// An OSD that has no node yet.
pub(crate) fn healthy_osd(n: usize, domain: DomainName, memory: u64, weight: u32) -> OsdView {
    OsdView {
        identity: OsdIdentity {
            cluster: "0f7e4d5a-1111-4222-8333-444455556666".parse().unwrap(),
            id: osd(n),
            fsid: format!("0f7e4d5a-1111-4222-8333-{:012}", n + 1).parse().unwrap(),
        },
        device: Device {
            subsystem: Nqn::new(format!("nqn.2026-01.org.example:osd-{n}")).unwrap(),
            namespace: format!("uuid.0f7e4d5a-1111-4222-8333-{:012}", n + 1).parse().unwrap(),
        },
        domain,
        node: unknown(),
        up: Observed::Known(true),
        started_on: unknown(),
        requests: Resources { cpu_milli: 1000, memory },
        weight,
        holders: BTreeSet::new(),
        generation: Generation(0),
        moved: None,
        tried: None,
        moving: None,
        seen_here: unknown(),
        seen_elsewhere: unknown(),
        marked: None,
    }
}

/// A cluster whose OSDs have no node yet.
pub(crate) fn unplaced(seed: u64, shape: Shape) -> ClusterView {
    let mut dice = Dice::new(seed);
    let now = start();
    let nodes: BTreeMap<NodeName, NodeView> =
        (0..shape.nodes).map(|n| (node(n), some_node(&mut dice, now, n, shape))).collect();
    let mut targets = BTreeMap::new();
    for n in 0..shape.targets {
        let may = |dice: &mut Dice, at: usize| match shape.kind {
            Kind::Mixed => !dice.once_in(10),
            Kind::Zones => at % shape.targets == n,
            Kind::Even | Kind::OneBig | Kind::Sizes | Kind::NearlyFull | Kind::Busy => true,
        };
        let able = nodes.keys().enumerate().filter(|(at, _)| may(&mut dice, *at));
        let attachable: BTreeSet<NodeName> = able.map(|(_, name)| name.clone()).collect();
        let near = |dice: &mut Dice| Reach::Micros(20 + u32::try_from(dice.below(200)).unwrap());
        let reach = attachable.iter().map(|node| (node.clone(), Observed::Known(near(&mut dice))));
        let reach = reach.collect();
        targets.insert(domain(n), TargetView { attachable, fence: FenceHealth::Ready, reach });
    }
    let osds = (0..shape.osds).map(|n| (osd(n), some_osd(&mut dice, n, shape))).collect();
    healthy(nodes, targets, osds, shape.pool)
}

/// When every cluster is looked at first.
pub(crate) fn start() -> Now {
    Now { mono: Moment(1_000_000_000_000), wall: WallTime(1_800_000_000_000) }
}

/// A cluster of these parts that has just been heard of.
pub(crate) fn healthy(
    nodes: BTreeMap<NodeName, NodeView>,
    targets: BTreeMap<DomainName, TargetView>,
    osds: BTreeMap<OsdId, OsdView>,
    pool: Pool,
) -> ClusterView {
    let mut view = ClusterView {
        now: start(),
        api_seen: unknown(),
        mons: unknown(),
        nodes,
        targets,
        osds,
        pools: vec![pool],
        recent_moves: Vec::new(),
    };
    later(&mut view, Duration::ZERO);
    view
}

/// Time goes on, and everybody is heard of again.
pub(crate) fn later(view: &mut ClusterView, time: Duration) {
    view.now = Now { mono: view.now.mono.after(time), wall: view.now.wall.after(time) };
    let now = view.now.mono;
    view.api_seen = Observed::Known(now);
    view.mons = Observed::Known(MonView { seen: now, quorum: true, all_clean: true });
    for node in view.nodes.values_mut() {
        node.lease_changed = Observed::Known(now);
    }
}

/// Everything that is measured is something else now.
pub(crate) fn measure_again(view: &mut ClusterView, dice: &mut Dice, shape: Shape) {
    for node in view.nodes.values_mut() {
        measure(dice, shape.kind, node);
    }
}

pub(crate) fn policy() -> Policy {
    let mut policy = Policy { automatic: Automatic::On, ..Policy::default() };
    policy.moves_per_hour = 100_000;
    policy
}

/// The same cluster after its first placement.
pub(crate) fn cluster(seed: u64, shape: Shape) -> ClusterView {
    let mut view = unplaced(seed, shape);
    let wanted: Vec<OsdId> = view.osds.keys().copied().collect();
    for placed in place(&view, &policy(), &wanted, &BTreeSet::new()).placed {
        put(&mut view, placed.osd, &placed.to);
    }
    let without = view.osds.values().filter(|osd| osd.node.known().is_none()).count();
    assert_eq!(without, 0, "{}, seed {seed}: the first placement", shape.name);
    view
}

pub(crate) fn put(view: &mut ClusterView, osd: OsdId, to: &NodeName) {
    let osd = view.osds.get_mut(&osd).unwrap();
    osd.node = Observed::Known(to.clone());
    osd.started_on = Observed::Known(to.clone());
}

pub(crate) fn on(view: &ClusterView, name: &NodeName) -> Vec<OsdId> {
    let here = view.osds.iter().filter(|(_, osd)| osd.node.is_known_and(|node| node == name));
    here.map(|(id, _)| *id).collect()
}

/// The OSDs of every node, also of those that have none.
fn by_node(view: &ClusterView) -> BTreeMap<&NodeName, Vec<&OsdView>> {
    let mut by_node: BTreeMap<&NodeName, Vec<&OsdView>> =
        view.nodes.keys().map(|name| (name, Vec::new())).collect();
    for osd in view.osds.values() {
        if let Some(here) = osd.node.known().and_then(|node| by_node.get_mut(node)) {
            here.push(osd);
        }
    }
    by_node
}

/// The nodes that break the rules, counted without the scheduler: more domains than can be spared,
/// and more memory requested than there is.
pub(crate) fn broken(view: &ClusterView) -> (usize, usize) {
    let (mut domains, mut full) = (0, 0);
    for (name, here) in by_node(view) {
        let node = &view.nodes[name];
        let carried: BTreeSet<&DomainName> = here.iter().map(|osd| &osd.domain).collect();
        let memory: u64 = here.iter().map(|osd| osd.requests.memory).sum();
        domains += usize::from(carried.len() > view.spare_domains().max(1));
        full += usize::from(memory + node.requested.memory > node.allocatable.memory);
    }
    (domains, full)
}

/// What each node carries, by CRUSH weight, which is what data and work go by.
pub(crate) fn weights(view: &ClusterView) -> BTreeMap<&NodeName, u64> {
    let weight = |osds: Vec<&OsdView>| osds.iter().map(|osd| u64::from(osd.weight)).sum();
    by_node(view).into_iter().map(|(name, osds)| (name, weight(osds))).collect()
}

/// What is used of a node and how it waits, in thousandths; half of it where nobody knows.
pub(crate) fn load(view: &ClusterView, name: &NodeName) -> u64 {
    let node = &view.nodes[name];
    let used =
        node.used.known().map_or(500, |it| it.cpu.thousandths().midpoint(it.memory.thousandths()));
    u64::from(used.midpoint(node.io_wait.known().map_or(500, |it| it.thousandths())))
}

/// Between the heaviest and the lightest node, in hundredths of a mean OSD.
pub(crate) fn spread(view: &ClusterView, without: &BTreeSet<NodeName>) -> u64 {
    let total: u64 = view.osds.values().map(|osd| u64::from(osd.weight)).sum();
    let mean = (total / u64::try_from(view.osds.len()).unwrap()).max(1);
    let weights = weights(view).into_iter().filter(|(name, _)| !without.contains(*name));
    let weights: Vec<u64> = weights.map(|(_, weight)| weight).collect();
    (weights.iter().max().unwrap() - weights.iter().min().unwrap()) * 100 / mean
}
