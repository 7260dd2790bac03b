//! Clusters for tests: every node alike, every OSD alike, OSDs dealt round.

use std::collections::{BTreeMap, BTreeSet};

use heal_types::cluster::{DomainName, Generation, NodeName, OsdId};
use heal_types::{Moment, Now, Nqn, Observed, UnknownWhy, WallTime};

use super::view::{
    ClusterView, Device, FenceHealth, MonView, NodeView, OsdIdentity, OsdView, Pool, Resources,
    TargetView,
};

pub(crate) const NODES: usize = 3;
const GIB: u64 = 1 << 30;

pub(crate) fn node(n: usize) -> NodeName {
    NodeName::new(format!("n{n}")).unwrap()
}

pub(crate) fn domain(n: usize) -> DomainName {
    DomainName::new(format!("fabric-{n}")).unwrap()
}

pub(crate) fn osd(n: u32) -> OsdId {
    OsdId::new(n).unwrap()
}

pub(crate) fn identity(n: u32) -> OsdIdentity {
    OsdIdentity {
        cluster: "0f7e4d5a-1111-4222-8333-444455556666".parse().unwrap(),
        id: osd(n),
        fsid: format!("0f7e4d5a-1111-4222-8333-{:012}", n + 1).parse().unwrap(),
    }
}

/// As many nodes as targets; OSD `n` lies on target and on node `n` modulo that.
pub(crate) fn view(nodes: usize, osds: u32) -> ClusterView {
    let now = Now { mono: Moment(1_000_000_000_000), wall: WallTime(1_800_000_000_000) };
    let one = NodeView {
        lease_changed: Observed::Known(now.mono),
        ready: Observed::Known(true),
        out_of_service: false,
        schedulable: true,
        allocatable: Resources { cpu_milli: 32_000, memory: 128 * GIB },
        requested: Resources { cpu_milli: 4000, memory: 16 * GIB },
        used: Observed::Unknown(UnknownWhy::NotReadYet),
        io_wait: Observed::Unknown(UnknownWhy::NotReadYet),
        not_before: None,
        vetoed: false,
    };
    let target = TargetView {
        attachable: (0..nodes).map(node).collect(),
        fence: FenceHealth::Ready,
        reach: BTreeMap::new(),
    };
    let place = |n: u32| usize::try_from(n).unwrap() % nodes;
    let osds = (0..osds).map(|n| {
        let view = OsdView {
            identity: identity(n),
            device: Device {
                subsystem: Nqn::new(format!("nqn.2026-01.org.example:osd-{n}")).unwrap(),
                namespace: format!("uuid.0f7e4d5a-1111-4222-8333-{:012}", n + 1).parse().unwrap(),
            },
            domain: domain(place(n)),
            node: Observed::Known(node(place(n))),
            up: Observed::Known(true),
            started_on: Observed::Known(node(place(n))),
            requests: Resources { cpu_milli: 1000, memory: 4 * GIB },
            weight: 1000,
            holders: BTreeSet::new(),
            generation: Generation(0),
            moved: None,
            tried: None,
            moving: None,
            seen_here: Observed::Unknown(UnknownWhy::NotReadYet),
            seen_elsewhere: Observed::Unknown(UnknownWhy::NotReadYet),
            marked: None,
        };
        (osd(n), view)
    });
    ClusterView {
        now,
        api_seen: Observed::Known(now.mono),
        mons: Observed::Known(MonView { seen: now.mono, quorum: true, all_clean: true }),
        nodes: (0..nodes).map(|n| (node(n), one.clone())).collect(),
        targets: (0..nodes).map(|n| (domain(n), target.clone())).collect(),
        osds: osds.collect(),
        pools: vec![Pool { size: 3, min_size: 2 }],
        recent_moves: Vec::new(),
    }
}
