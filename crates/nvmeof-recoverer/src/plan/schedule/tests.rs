//! Small clusters in which one thing is different, and the choice it must lead to.

use std::collections::BTreeSet;
use std::time::Duration;

use heal_types::cluster::{Generation, RelocationId};
use heal_types::{Now, Observed, UnknownWhy, WallTime};

use super::*;
use crate::plan::Automatic;
use crate::plan::detect::{Detector, HoldWhy};
use crate::plan::relocate::Cause;
use crate::plan::testing::{NODES, domain, node, osd, view};
use crate::plan::view::{FenceHealth, MonView, Moving, Permille, Pool, Reach, Resources, Usage};

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
    assert_eq!(best_of(&view(NODES, 7)), Err(RestWhy::Even));
}

/// Node 1 has six OSDs of four domains, node 0 none, the others three.
fn uneven() -> ClusterView {
    let mut uneven = view(4, 12);
    uneven.pools = vec![Pool { size: 4, min_size: 1 }];
    for id in [0, 4, 8] {
        let osd = uneven.osds.get_mut(&osd(id)).unwrap();
        (osd.node, osd.started_on) = (Observed::Known(node(1)), Observed::Known(node(1)));
    }
    uneven
}

fn best_of(view: &ClusterView) -> Result<Proposal, RestWhy> {
    rebalance(view, &Detector::default().look(view, &policy()), &policy())
}

#[test]
fn the_fullest_node_gives_one_to_the_emptiest_and_says_what_is_gained() {
    let best = best_of(&uneven()).unwrap();
    assert_eq!((&best.from, &best.to), (&node(1), &node(0)));
    assert!(best.gain() >= 15_000 && best.gain() == best.there.total - best.here.total, "{best:?}");
}

#[test]
fn nothing_is_rebalanced_while_anything_else_goes_on() {
    type Change = fn(&mut ClusterView);
    let with = |change: Change| {
        let mut view = uneven();
        change(&mut view);
        best_of(&view).unwrap_err()
    };
    let silent = heal_types::Moment(uneven().now.mono.0 - 30_000_000_000);
    let mut doubted = uneven();
    doubted.nodes.get_mut(&node(3)).unwrap().lease_changed = Observed::Known(silent);
    assert_eq!(best_of(&doubted), Err(RestWhy::InDoubt));
    let changes: [(Change, RestWhy); 6] = [
        (|view| view.osds.get_mut(&osd(3)).unwrap().up = Observed::Known(false), RestWhy::NotClean),
        (
            |view| {
                let mons = MonView { seen: view.now.mono, quorum: true, all_clean: false };
                view.mons = Observed::Known(mons);
            },
            RestWhy::NotClean,
        ),
        (
            |view| view.mons = Observed::Unknown(UnknownWhy::NoAnswer),
            RestWhy::Blind(HoldWhy::MonsStale),
        ),
        (
            |view| {
                let id = RelocationId::new("osd-3-1").unwrap();
                let moving = Some(Moving { id, to: node(0) });
                view.osds.get_mut(&osd(3)).unwrap().moving = moving;
            },
            RestWhy::Moving(osd(3)),
        ),
        (
            |view| view.osds.get_mut(&osd(3)).unwrap().marked = Some(Generation(0)),
            RestWhy::Marked(osd(3)),
        ),
        (
            |view| view.osds.get_mut(&osd(3)).unwrap().moved = Some(view.now.wall),
            RestWhy::CoolingDown(osd(3)),
        ),
    ];
    for (change, why) in changes {
        assert_eq!(with(change), why);
    }
}

#[test]
fn only_healthy_nodes_and_osds_without_a_past_take_part() {
    type Change = fn(&mut ClusterView);
    let sick: [Change; 2] = [
        |view| view.nodes.get_mut(&node(1)).unwrap().schedulable = false,
        |view| view.nodes.get_mut(&node(1)).unwrap().ready = Observed::Known(false),
    ];
    for change in sick {
        let mut view = uneven();
        change(&mut view);
        assert_ne!(best_of(&view).unwrap().from, node(1), "the others may do without it");
    }
    let changes: [Change; 4] = [
        |view| {
            for target in view.targets.values_mut() {
                target.fence = FenceHealth::Silent;
            }
        },
        |view| {
            let rested = WallTime(view.now.wall.0 - 1_799_000);
            view.osds.values_mut().for_each(|osd| osd.moved = Some(rested));
        },
        |view| {
            let rested = WallTime(view.now.wall.0 - 1_799_000);
            view.osds.values_mut().for_each(|osd| osd.tried = Some(rested));
        },
        |view| {
            for osd in view.osds.values_mut() {
                osd.holders.insert(node(2));
                osd.holders.insert(node(3));
            }
        },
    ];
    for (n, change) in changes.into_iter().enumerate() {
        let mut view = uneven();
        change(&mut view);
        assert_eq!(best_of(&view), Err(RestWhy::Even), "change {n}");
    }
    // And where they would go: what is left is the next best.
    let mut away = uneven();
    away.nodes.get_mut(&node(0)).unwrap().schedulable = false;
    let best = best_of(&away).unwrap();
    assert!(best.from == node(1) && best.to != node(0), "{best:?}");
}

#[test]
fn the_same_move_must_have_been_the_best_for_a_while_and_only_if_it_is_wanted() {
    let on = Policy { rebalance: Automatic::On, ..policy() };
    let mut view = uneven();
    let mut rebalancer = Rebalancer::default();
    let mut at = |view: &mut ClusterView, seconds: u64, policy: &Policy| {
        let start = uneven().now;
        let later = Duration::from_secs(seconds);
        view.now = Now { mono: start.mono.after(later), wall: start.wall.after(later) };
        view.api_seen = Observed::Known(view.now.mono);
        let all_clean = view.mons.is_known_and(|mons| mons.all_clean);
        view.mons = Observed::Known(MonView { seen: view.now.mono, quorum: true, all_clean });
        for node in view.nodes.values_mut() {
            node.lease_changed = Observed::Known(view.now.mono);
        }
        let findings = Detector::default().look(view, policy);
        let proposed = rebalancer.look(view, &findings, policy);
        proposed.map(|proposed| proposed.due(view, policy))
    };
    assert_eq!(at(&mut view, 0, &on), Ok(None));
    assert_eq!(at(&mut view, 599, &on), Ok(None));
    assert_eq!(at(&mut view, 600, &policy()), Ok(None), "by default it only says so");
    let due = at(&mut view, 600, &on).unwrap().unwrap();
    assert_eq!((&due.from, &due.to), (&node(1), &node(0)));
    assert!(matches!(due.cause, Cause::Planned { .. }));
    // A moment in which something was wrong, and it begins to wait again.
    view.mons = Observed::Known(MonView { seen: view.now.mono, quorum: true, all_clean: false });
    assert_eq!(at(&mut view, 700, &on), Err(RestWhy::NotClean));
    view.mons = Observed::Known(MonView { seen: view.now.mono, quorum: true, all_clean: true });
    assert_eq!(at(&mut view, 701, &on), Ok(None));
    assert_eq!(at(&mut view, 1300, &on), Ok(None));
    assert!(at(&mut view, 1301, &on).unwrap().is_some());
}
