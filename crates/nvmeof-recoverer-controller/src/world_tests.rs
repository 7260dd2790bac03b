use heal_types::cluster::{Person, RelocationId};
use nvmeof_recoverer::plan::detect::{Detector, Standing};
use nvmeof_recoverer::plan::relocate::Phase;
use serde_json::json;

use super::*;
use crate::crd::FabricTargetSpec;

const WALL: WallTime = WallTime(1_800_000_000_000);

fn now() -> Now {
    Now { mono: Moment(1_000_000_000_000), wall: WALL }
}

fn node(n: u32) -> NodeName {
    NodeName::new(format!("n{n}")).unwrap()
}

fn osd(n: u32) -> OsdId {
    OsdId::new(n).unwrap()
}

fn fsid(n: u32) -> String {
    format!("0f7e4d5a-1111-4222-8333-44445555{n:04}")
}

fn target(osds: &[u32]) -> TargetFacts {
    let device = |n: &u32| {
        json!({ "subsystem": format!("nqn.2026-01.org.example:osd-{n}"),
                "namespace": format!("uuid.{}", fsid(*n)), "osd": n })
    };
    let attachable = |n: u32| {
        json!({ "name": node(n), "hostNqn": format!("nqn.2026-01.org.example:n{n}"),
                "hostId": fsid(100 + n) })
    };
    let spec: FabricTargetSpec = serde_json::from_value(json!({
        "cephCluster": { "name": "rook-ceph" },
        "portals": [{ "address": "192.0.2.1" }],
        "devices": osds.iter().map(device).collect::<Vec<_>>(),
        "nodes": (0..3).map(attachable).collect::<Vec<_>>(),
        "fence": { "exec": { "program": "array" } },
    }))
    .unwrap();
    TargetFacts { spec, fence: FenceHealth::Ready }
}

fn deployment(n: u32) -> OsdDeployment {
    OsdDeployment {
        id: osd(n),
        fsid: fsid(n).parse().unwrap(),
        node: node(n % 3),
        requests: Resources { cpu_milli: 1000, memory: 4 << 30 },
        generation: Generation(2),
        mark: None,
        moved: None,
        portable: false,
    }
}

fn report(n: u32) -> OsdReport {
    let host = Some(node(n % 3));
    OsdReport { fsid: fsid(n).parse().unwrap(), up: true, noout: false, host, weight: 1000 }
}

/// Three nodes, three OSDs on one target.
fn seen() -> Seen {
    let facts = NodeFacts {
        ready: Some(true),
        out_of_service: false,
        schedulable: true,
        allocatable: Resources { cpu_milli: 8000, memory: 32 << 30 },
    };
    let mons = MonReport {
        fsid: "0f7e4d5a-1111-4222-8333-444455556666".parse().unwrap(),
        quorum: true,
        all_clean: true,
        osds: (0..3).map(|n| (osd(n), report(n))).collect(),
        pools: Vec::new(),
    };
    Seen {
        nodes: (0..3).map(|n| (node(n), facts.clone())).collect(),
        leases: (0..3).map(|n| (node(n), now().mono)).collect(),
        api: Some(now().mono),
        pods: Vec::new(),
        deployments: (0..3).map(|n| (osd(n), deployment(n))).collect(),
        targets: [("a".to_owned(), target(&[0, 1, 2]))].into(),
        relocations: Vec::new(),
        quarantined: BTreeSet::new(),
        mons: Some((now().mono, mons)),
    }
}

fn looked(seen: &Seen) -> (ClusterView, Vec<LeftOut>) {
    let (view, left_out) = view(seen, &Policy::default(), now());
    (view, left_out.into_iter().map(|(_, why)| why).collect())
}

/// A move of `osd.0`, finished a minute ago.
fn finished(phase: Phase) -> Relocation {
    let (view, _) = looked(&seen());
    let cause = Cause::Planned { by: Person::new("ada").unwrap() };
    let mut relocation = Relocation::new(&view.osds[&osd(0)], node(0), node(1), cause, WALL);
    relocation.phase = phase;
    relocation.since = WallTime(WALL.0 - 60_000);
    relocation
}

#[test]
fn an_osd_that_all_three_know_as_the_same_data_is_in_the_view() {
    let (view, left_out) = looked(&seen());
    assert_eq!((view.osds.len(), left_out), (3, Vec::new()));
    let first = &view.osds[&osd(0)];
    assert_eq!(first.domain.as_str(), "fabric-a");
    assert_eq!(first.generation, Generation(2));
    let findings = Detector::default().look(&view, &Policy::default());
    assert_eq!(findings.of(osd(0), &node(0)), &Standing::Well);
}

#[test]
fn whatever_does_not_fit_together_is_left_out_by_name() {
    let out = |change: fn(&mut Seen)| {
        let mut seen = seen();
        change(&mut seen);
        let (view, left_out) = looked(&seen);
        assert!(!view.osds.contains_key(&osd(0)));
        left_out
    };
    let first = osd(0);
    assert_eq!(
        out(|it| {
            it.deployments.remove(&osd(0));
        }),
        [LeftOut::NoDeployment(first)]
    );
    assert_eq!(
        out(|it| it.deployments.get_mut(&osd(0)).unwrap().portable = true),
        [LeftOut::Portable(first)]
    );
    assert_eq!(
        out(|it| it.deployments.get_mut(&osd(0)).unwrap().fsid = fsid(9).parse().unwrap()),
        [LeftOut::OtherData(first)]
    );
    assert_eq!(
        out(|it| {
            it.mons.as_mut().unwrap().1.osds.remove(&osd(0));
        }),
        [LeftOut::NotInCeph(first)]
    );
    assert_eq!(
        out(|it| {
            it.quarantined.insert(osd(0));
        }),
        [LeftOut::Quarantined(first)]
    );
    assert_eq!(
        out(|it| it.targets.get_mut("a").unwrap().spec.devices[0].osd = None),
        [LeftOut::NoOsd]
    );
}

#[test]
fn the_token_is_the_newest_that_any_object_remembers() {
    let mut seen = seen();
    seen.relocations.push(finished(Phase::RolledBack));
    // Rook has written the Deployment anew, and our annotations are gone.
    seen.deployments.get_mut(&osd(0)).unwrap().generation = Generation(0);
    let (view, _) = looked(&seen);
    assert_eq!(view.osds[&osd(0)].generation, Generation(3));
    assert_eq!(view.osds[&osd(0)].holders, [node(0)].into(), "who was not cut may still write");
}

#[test]
fn noout_of_a_person_is_left_alone_and_noout_of_a_late_command_is_not() {
    let mut seen = seen();
    seen.mons.as_mut().unwrap().1.osds.get_mut(&osd(0)).unwrap().noout = true;
    assert_eq!(looked(&seen).0.osds[&osd(0)].marked, None);
    seen.relocations.push(finished(Phase::RolledBack));
    assert_eq!(looked(&seen).0.osds[&osd(0)].marked, Some(Generation(0)));
    seen.relocations[0].since = WallTime(WALL.0 - 7_200_000);
    assert_eq!(looked(&seen).0.osds[&osd(0)].marked, None);
}

#[test]
fn a_move_that_came_to_nothing_was_tried_and_did_not_move_it() {
    let mut seen = seen();
    seen.relocations.push(finished(Phase::RolledBack));
    let (view, _) = looked(&seen);
    let tried = Some(WallTime(WALL.0 - 60_000));
    assert_eq!((view.osds[&osd(0)].moved, view.osds[&osd(0)].tried), (None, tried));
    assert_eq!(view.osds[&osd(1)].tried, None);
}

#[test]
fn a_move_under_way_is_seen() {
    let mut seen = seen();
    seen.relocations.push(finished(Phase::Fencing));
    let moving = looked(&seen).0.osds[&osd(0)].moving.clone().unwrap();
    assert_eq!(moving.id, RelocationId::new("osd-0-3").unwrap());
    assert_eq!(moving.to, node(1));
}

#[test]
fn what_pods_request_counts_but_for_our_osds_which_are_counted_where_they_go() {
    let mut seen = seen();
    let requests = Resources { cpu_milli: 500, memory: 1 << 30 };
    let pod = |osd| PodFacts { node: node(0), requests, osd };
    seen.pods = vec![pod(None), pod(Some(osd(0))), pod(Some(osd(77)))];
    let (view, _) = looked(&seen);
    assert_eq!(view.nodes[&node(0)].requested, requests.plus(requests));
}

#[test]
fn nothing_said_is_nothing_known() {
    let mut seen = seen();
    (seen.mons, seen.api) = (None, None);
    seen.leases.remove(&node(0));
    let (view, _) = looked(&seen);
    assert!(view.osds.is_empty() && view.mons == Observed::Unknown(UnknownWhy::NotReadYet));
    assert_eq!(view.nodes[&node(0)].lease_changed, Observed::Unknown(UnknownWhy::NotReadYet));
    let findings = Detector::default().look(&view, &Policy::default());
    assert_eq!(findings.nodes().count(), 0);
}
