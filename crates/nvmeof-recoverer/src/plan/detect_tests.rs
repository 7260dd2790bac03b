//! One cluster of three nodes, and everything that looks like a loss and is none.

use std::time::Duration;

use heal_types::{Moment, Now, UnknownWhy, WallTime};

use super::*;
use crate::plan::testing::{NODES, node, osd, view};

fn at(view: &mut ClusterView, second: u64) {
    let mono = Moment(second * 1_000_000_000);
    view.now = Now { mono, wall: WallTime(1_800_000_000_000 + second * 1000) };
    view.api_seen = Observed::Known(mono);
    let mons = MonView { seen: mono, quorum: true, all_clean: true };
    view.mons = Observed::Known(mons);
    for (name, known) in &mut view.nodes {
        if *name != node(0) {
            known.lease_changed = Observed::Known(mono);
        }
    }
}

/// Node 0 fell silent at second 100.
fn silent_since_100(second: u64, osds_down: bool) -> ClusterView {
    let mut view = view(NODES, 6);
    at(&mut view, second);
    let lease = view.nodes.get_mut(&node(0)).unwrap();
    lease.lease_changed = Observed::Known(Moment(100_000_000_000));
    for known in view.osds.values_mut() {
        let here = known.node == Observed::Known(node(0));
        known.up = Observed::Known(!(here && osds_down));
    }
    view
}

fn standing(findings: &Findings) -> &Standing {
    findings.of(osd(0), &node(0))
}

fn looked(looks: &[ClusterView]) -> Findings {
    let (mut detector, policy) = (Detector::default(), Policy::default());
    let mut last = Findings::default();
    for view in looks {
        last = detector.look(view, &policy);
    }
    last
}

#[test]
fn two_witnesses_twice_in_a_row_are_a_loss() {
    let findings = looked(&[silent_since_100(126, true), silent_since_100(130, true)]);
    let Standing::Lost(loss) = standing(&findings) else {
        panic!("{findings:?}");
    };
    assert_eq!(loss.node, node(0));
    assert!(matches!(
        &loss.witnesses,
        Witnesses::LeaseAndMons { silent, down }
            if *silent == Duration::from_secs(30) && down.len() == 2
    ));
    assert_eq!(*findings.of(osd(1), &node(1)), Standing::Well);
}

#[test]
fn once_is_not_enough_and_neither_are_two_looks_within_a_moment() {
    let once = looked(&[silent_since_100(126, true)]);
    assert_eq!(*standing(&once), Standing::Confirming { rounds: 1 });
    let hasty = looked(&[silent_since_100(126, true), silent_since_100(127, true)]);
    assert_eq!(*standing(&hasty), Standing::Confirming { rounds: 1 });
}

#[test]
fn one_witness_alone_is_never_a_loss_however_long_it_says_so() {
    let lease: Vec<_> = (126..200).map(|second| silent_since_100(second, false)).collect();
    assert_eq!(*standing(&looked(&lease)), Standing::OneWitness(Witness::Lease));
    let mons: Vec<_> = (101..125).map(|second| silent_since_100(second, true)).collect();
    assert_eq!(*standing(&looked(&mons)), Standing::OneWitness(Witness::Mons));
}

#[test]
fn a_node_with_one_osd_up_is_not_lost() {
    let mut one_up = silent_since_100(140, true);
    one_up.osds.get_mut(&osd(0)).unwrap().up = Observed::Known(true);
    let findings = looked(&[silent_since_100(126, true), one_up]);
    assert_eq!(*standing(&findings), Standing::OneWitness(Witness::Lease));
}

#[test]
fn what_the_mons_do_not_say_is_neither_down_nor_up() {
    let mut unknown = silent_since_100(140, true);
    unknown.osds.get_mut(&osd(0)).unwrap().up = Observed::Unknown(UnknownWhy::NoAnswer);
    assert_eq!(*standing(&looked(&[silent_since_100(126, true), unknown])), Standing::Unknown);
}

#[test]
fn an_old_view_begins_the_row_again() {
    let mut old = silent_since_100(130, true);
    old.api_seen = Observed::Known(Moment(110_000_000_000));
    let looks = [silent_since_100(126, true), old, silent_since_100(134, true)];
    assert_eq!(*standing(&looked(&looks[..2])), Standing::Held(HoldWhy::ApiStale));
    assert_eq!(*standing(&looked(&looks)), Standing::Confirming { rounds: 1 });
}

#[test]
fn without_quorum_the_mons_are_no_witness() {
    let mut split = silent_since_100(130, true);
    let seen = split.now.mono;
    split.mons = Observed::Known(MonView { seen, quorum: false, all_clean: false });
    let findings = looked(&[silent_since_100(126, true), split]);
    assert_eq!(*standing(&findings), Standing::Held(HoldWhy::NoQuorum));
}

#[test]
fn two_nodes_at_once_are_a_storm_even_if_the_mons_doubt_only_one() {
    let storm = |second| {
        let mut view = silent_since_100(second, true);
        view.nodes.get_mut(&node(1)).unwrap().lease_changed =
            Observed::Known(Moment(100_000_000_000));
        view
    };
    let findings = looked(&[storm(126), storm(130)]);
    assert_eq!(*standing(&findings), Standing::Held(HoldWhy::Storm { nodes: 2 }));
}

#[test]
fn two_nodes_that_fell_at_once_are_a_storm_although_each_renewed_at_its_own_time() {
    let fell_at_102 = |second| {
        let mut view = silent_since_100(second, true);
        // The last renewal before that: of one node at 100, of the other at 92.
        view.nodes.get_mut(&node(1)).unwrap().lease_changed =
            Observed::Known(Moment(92_000_000_000));
        view
    };
    let findings = looked(&[fell_at_102(118), fell_at_102(122)]);
    assert_eq!(*findings.node(&node(1)), Standing::OneWitness(Witness::Lease));
    let down = |second| {
        let mut view = fell_at_102(second);
        for known in view.osds.values_mut().filter(|it| it.node == Observed::Known(node(1))) {
            known.up = Observed::Known(false);
        }
        view
    };
    let findings = looked(&[down(118), down(122)]);
    assert_eq!(*findings.node(&node(1)), Standing::Held(HoldWhy::Storm { nodes: 2 }));
}

#[test]
fn a_persons_word_needs_no_second_witness_and_knows_no_storm() {
    let mut view = silent_since_100(101, false);
    for n in [0, 1] {
        view.nodes.get_mut(&node(n)).unwrap().out_of_service = true;
    }
    let findings = looked(&[view]);
    for (n, id) in [(0, 0), (1, 1)] {
        let Standing::Lost(loss) = findings.of(osd(id), &node(n)) else {
            panic!("{findings:?}");
        };
        assert_eq!(loss.witnesses, Witnesses::OutOfService);
    }
}

#[test]
fn a_living_node_that_lost_its_path_is_a_loss_only_if_another_node_has_one() {
    let path_lost = |second, elsewhere| {
        let mut view = view(NODES, 6);
        at(&mut view, second);
        view.nodes.get_mut(&node(0)).unwrap().lease_changed = Observed::Known(view.now.mono);
        let known = view.osds.get_mut(&osd(0)).unwrap();
        known.up = Observed::Known(false);
        known.seen_here = Observed::Known(false);
        known.seen_elsewhere = Observed::Known(elsewhere);
        view
    };
    let moved = looked(&[path_lost(10, true), path_lost(14, true)]);
    assert!(matches!(standing(&moved), Standing::Lost(loss)
        if loss.witnesses == Witnesses::ProbeAndMons { osd: osd(0) }));
    let dead_target = looked(&[path_lost(10, false), path_lost(14, false)]);
    assert_eq!(*standing(&dead_target), Standing::OneWitness(Witness::Mons));
    let mut up = path_lost(14, true);
    up.osds.get_mut(&osd(0)).unwrap().up = Observed::Known(true);
    assert_eq!(
        *standing(&looked(&[path_lost(10, true), up])),
        Standing::OneWitness(Witness::Probe)
    );
}
