//! The scheduler on clusters that dice made, and on recorded ones: what must always hold, how it
//! compares, how long it takes.
//!
//! The rule it is compared with is "the node with the fewest devices", which knows nothing of
//! failure domains, of room, or of the other OSDs that are lost in the same moment.
#![allow(clippy::unwrap_used, reason = "names and numbers of clusters made here")]
#![allow(clippy::panic, reason = "tests")]
#![allow(clippy::print_stdout, reason = "tables and figures are what people look at")]

mod cluster;
mod compare;
#[path = "../simulator/dice.rs"]
mod dice;
mod recorded;
mod rest;

use std::collections::BTreeSet;
use std::time::Instant;

use dice::Dice;
use heal_types::cluster::{NodeName, OsdId};
use heal_types::{Moment, Observed};
use nvmeof_recoverer::plan::Policy;
use nvmeof_recoverer::plan::decide::decide;
use nvmeof_recoverer::plan::detect::{Detector, Findings};
use nvmeof_recoverer::plan::schedule::{RestWhy, place, rebalance};

use cluster::{Kind, SHAPES, broken, cluster, node, on, policy, put, shape, unplaced};

#[test]
fn no_plan_ever_breaks_a_rule_and_none_depends_on_the_order_of_the_question() {
    for seed in 0..120 {
        // But the largest.
        let shape = SHAPES[usize::try_from(seed).unwrap() % (SHAPES.len() - 1)];
        let mut view = cluster(seed, shape);
        assert_eq!(broken(&view), (0, 0), "seed {seed}: the first placement");
        let mut dice = Dice::new(seed ^ 0xfeed);
        let lost: BTreeSet<NodeName> =
            (0..=dice.index(2)).map(|_| node(dice.index(shape.nodes))).collect();
        let mut wanted: Vec<OsdId> = lost.iter().flat_map(|name| on(&view, name)).collect();
        let plan = place(&view, &policy(), &wanted, &lost);
        wanted.reverse();
        assert_eq!(plan, place(&view, &policy(), &wanted, &lost), "seed {seed}");
        assert_eq!(plan.placed.len() + plan.unplaced.len(), wanted.len(), "seed {seed}");
        for placed in &plan.placed {
            assert!(!lost.contains(&placed.to), "seed {seed}: {placed:?}");
            let target = &view.targets[&view.osds[&placed.osd].domain];
            assert!(target.attachable.contains(&placed.to), "seed {seed}: {placed:?}");
            put(&mut view, placed.osd, &placed.to);
        }
        for (osd, _) in &plan.unplaced {
            view.osds.remove(osd);
        }
        assert_eq!(broken(&view), (0, 0), "seed {seed}: after the loss of {lost:?}");
    }
}

/// The most memory this process has had, in KiB.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn a_thousand_nodes_and_ten_thousand_osds_are_planned_within_a_second() {
    let shape = shape("huge", (1000, 100, 10_000), (6, 3), Kind::Mixed);
    let view = unplaced(11, shape);
    let wanted: Vec<OsdId> = view.osds.keys().copied().collect();
    let before = peak();
    let started = Instant::now();
    let all = place(&view, &policy(), &wanted, &BTreeSet::new());
    let first = started.elapsed();
    let mut view = cluster(11, shape);
    let now = view.now.mono;
    let started = Instant::now();
    // Nothing gains so much: every OSD of every node is looked at.
    let never = Policy { rebalance_gain: 100, ..policy() };
    let rests = rebalance(&view, &Findings::default(), &never);
    let rebalanced = started.elapsed();
    for id in on(&view, &node(1)) {
        view.osds.get_mut(&id).unwrap().up = Observed::Known(false);
    }
    view.nodes.get_mut(&node(1)).unwrap().lease_changed =
        Observed::Known(Moment(now.0 - 30_000_000_000));
    let mut detector = Detector::default();
    detector.look(&view, &policy());
    view.now.mono = Moment(now.0 + 4_000_000_000);
    let started = Instant::now();
    let findings = detector.look(&view, &policy());
    let decision = decide(&view, &findings, &policy());
    let one = started.elapsed();
    println!("FIGURE place_10000={} ms", first.as_millis());
    println!("FIGURE lost_node={} ms", one.as_millis());
    println!("FIGURE rebalance={} ms", rebalanced.as_millis());
    println!("FIGURE memory={} KiB", peak() - before);
    assert_eq!(all.placed.len() + all.unplaced.len(), 10_000);
    assert!(!decision.begin.is_empty() && decision.held.is_empty());
    assert_eq!(rests, Err(RestWhy::Even));
    // A debug build is several times slower; what counts is what ships.
    if !cfg!(debug_assertions) {
        assert!([first, one, rebalanced].iter().all(|took| took.as_millis() < 1000));
    }
}
