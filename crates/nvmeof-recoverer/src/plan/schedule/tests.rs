//! Small clusters in which one thing is different, and the choice it must lead to.

use std::collections::BTreeSet;

use heal_types::Observed;

use super::*;
use crate::plan::testing::{NODES, domain, node, osd, view};
use crate::plan::view::{Permille, Pool, Reach, Resources, Usage};

fn policy() -> Policy {
    Policy::default()
}

/// Node 0 of `nodes` is lost with what it carries; everybody may take several domains.
fn lost(nodes: usize, osds: u32) -> (ClusterView, Vec<OsdId>) {
    let mut view = view(nodes, osds);
    view.pools = vec![Pool { size: 4, min_size: 2 }];
    let wanted = view.osds.iter().filter(|(_, osd)| osd.node == Observed::Known(node(0)));
    let wanted = wanted.map(|(id, _)| *id).collect();
    (view, wanted)
}

fn placed_on(view: &ClusterView, wanted: &[OsdId]) -> Vec<NodeName> {
    let placement = place(view, &policy(), wanted, &[node(0)].into());
    assert!(placement.unplaced.is_empty(), "{placement:?}");
    placement.placed.into_iter().map(|placed| placed.to).collect()
}

#[test]
fn what_one_node_carried_is_dealt_out_and_not_piled_up() {
    let (view, wanted) = lost(5, 20);
    assert_eq!(wanted.len(), 4);
    let nodes: BTreeSet<NodeName> = placed_on(&view, &wanted).into_iter().collect();
    assert_eq!(nodes.len(), 4, "one for each of the others");
}

#[test]
fn a_node_that_waits_for_its_disks_is_the_second_choice() {
    let (mut view, _) = lost(3, 3);
    let busy = view.nodes.get_mut(&node(1)).unwrap();
    busy.io_wait = Observed::Known(Permille::of(900, 1000));
    let idle = view.nodes.get_mut(&node(2)).unwrap();
    idle.io_wait = Observed::Known(Permille::of(10, 1000));
    assert_eq!(placed_on(&view, &[osd(0)]), [node(2)]);
}

#[test]
fn a_missing_metric_is_neither_good_nor_bad() {
    for (known, better) in [(900, 2), (100, 1)] {
        let (mut view, _) = lost(3, 3);
        let share = Permille::of(known, 1000);
        view.nodes.get_mut(&node(1)).unwrap().used =
            Observed::Known(Usage { cpu: share, memory: share });
        assert_eq!(placed_on(&view, &[osd(0)]), [node(better)], "{known} of 1000 used on node 1");
    }
}

#[test]
fn the_nearer_target_wins_between_equals() {
    let (mut view, _) = lost(3, 3);
    let target = view.targets.get_mut(&domain(0)).unwrap();
    target.reach.insert(node(1), Observed::Known(Reach::Micros(800)));
    target.reach.insert(node(2), Observed::Known(Reach::Micros(40)));
    assert_eq!(placed_on(&view, &[osd(0)]), [node(2)]);
}

#[test]
fn every_filter_has_its_reason() {
    let (mut view, _) = lost(9, 9);
    let now = view.now;
    let with = |view: &mut ClusterView, n: usize, change: fn(&mut crate::plan::view::NodeView)| {
        change(view.nodes.get_mut(&node(n)).unwrap());
    };
    with(&mut view, 1, |node| node.ready = Observed::Known(false));
    with(&mut view, 2, |node| node.schedulable = false);
    with(&mut view, 3, |node| node.vetoed = true);
    with(&mut view, 4, |node| node.allocatable.memory = 1 << 30);
    with(&mut view, 5, |node| node.allocatable.cpu_milli = 100);
    view.nodes.get_mut(&node(6)).unwrap().not_before = Some(now.wall.after(policy().cooldown));
    let target = view.targets.get_mut(&domain(0)).unwrap();
    target.attachable.remove(&node(7));
    target.reach.insert(node(8), Observed::Known(Reach::Unreachable));
    let verdicts = explain(&view, &policy(), osd(0), &BTreeSet::new());
    let why: Vec<OutWhy> = verdicts.into_iter().map(|(_, verdict)| verdict.unwrap_err()).collect();
    assert_eq!(
        why,
        [
            OutWhy::SameNode,
            OutWhy::NotReady,
            OutWhy::Unschedulable,
            OutWhy::Vetoed,
            OutWhy::NoMemory,
            OutWhy::NoCpu,
            OutWhy::HeldDown,
            OutWhy::NotAttachable,
            OutWhy::Unreachable,
        ]
    );
    let placement = place(&view, &policy(), &[osd(0)], &BTreeSet::new());
    assert_eq!(placement.unplaced[0].1.values().sum::<usize>(), 9);
}

#[test]
fn no_node_takes_more_domains_than_the_pools_can_spare() {
    let mut view = view(NODES, 3);
    let placement = place(&view, &policy(), &[osd(0)], &[node(0)].into());
    assert!(placement.placed.is_empty(), "size 3, min_size 2: one domain a node, and each has one");
    assert_eq!(placement.unplaced[0].1[&OutWhy::TooManyDomains], 2);
    view.pools = vec![Pool { size: 3, min_size: 1 }];
    assert_eq!(place(&view, &policy(), &[osd(0)], &[node(0)].into()).placed.len(), 1);
}

#[test]
fn one_of_the_batch_gives_way_to_one_that_found_no_place() {
    let (mut view, _) = lost(3, 2);
    // Room for one on each; only node 1 may take the second.
    for n in [1, 2] {
        let node = view.nodes.get_mut(&node(n)).unwrap();
        node.allocatable =
            Resources { cpu_milli: 100_000, memory: node.requested.memory + (5 << 30) };
    }
    view.osds.get_mut(&osd(1)).unwrap().node = Observed::Known(node(0));
    view.targets.get_mut(&domain(1)).unwrap().attachable = [node(1)].into();
    let wanted = [osd(0), osd(1)];
    assert_eq!(placed_on(&view, &wanted), [node(2), node(1)]);
}

#[test]
fn what_is_even_enough_is_left_alone() {
    assert_eq!(rebalance(&view(NODES, 7), &policy()), Err(RestWhy::Even));
}

#[test]
fn nothing_is_rebalanced_while_anything_else_goes_on() {
    let mut uneven = view(4, 12);
    uneven.pools = vec![Pool { size: 4, min_size: 1 }];
    for id in [0, 4, 8] {
        uneven.osds.get_mut(&osd(id)).unwrap().node = Observed::Known(node(1));
    }
    let moved = rebalance(&uneven, &policy()).unwrap();
    assert_eq!((moved.from, moved.to), (Some(node(1)), node(0)));
    let mut down = uneven.clone();
    down.osds.get_mut(&osd(3)).unwrap().up = Observed::Known(false);
    assert_eq!(rebalance(&down, &policy()), Err(RestWhy::NotClean));
    let mut rested = uneven.clone();
    for osd in rested.osds.values_mut() {
        osd.moved = Some(rested.now.wall);
    }
    assert_eq!(rebalance(&rested, &policy()), Err(RestWhy::Even));
}
