//! The scheduler beside "the node with the fewest devices", when a node is lost and when it is back.
//!
//! | rule | what it knows |
//! |---|---|
//! | ours | filters, scores, the whole batch; afterwards the rebalancer, until it rests |
//! | fewest devices | the counts, after each of its choices anew; nothing of domains and room |
//! | fewest allowed | the same, and only nodes that our filters let through; may leave OSDs without a place |
//!
//! The spread is that of CRUSH weight, because data and work go by it: between the heaviest and the
//! lightest node, in mean OSDs, once among those that are left and once with the node that came back.
//! Where nodes differ in nothing but their OSDs, ours must not be worse in either. Where they differ in
//! room and load, most of a score goes by that, and a twentieth of evenness is what it may cost.
//!
//! All clusters are generated. A recorded one would show shapes that nobody thought of.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use heal_types::cluster::{NodeName, OsdId};
use nvmeof_recoverer::plan::detect::Findings;
use nvmeof_recoverer::plan::schedule::{RestWhy, explain, place, rebalance};
use nvmeof_recoverer::plan::view::ClusterView;

use crate::cluster::{Kind, SHAPES, Shape, broken, cluster, later, node, on, policy, put, spread};

type Plan = Vec<(OsdId, NodeName)>;

fn ours(view: &ClusterView, wanted: &[OsdId], lost: &BTreeSet<NodeName>) -> Plan {
    let placed = place(view, &policy(), wanted, lost).placed;
    placed.into_iter().map(|placed| (placed.osd, placed.to)).collect()
}

/// The attachable node with the fewest devices.
fn fewest_devices(view: &ClusterView, wanted: &[OsdId], lost: &BTreeSet<NodeName>) -> Plan {
    fewest(view, wanted, |view, osd| {
        let able = view.targets[&view.osds[&osd].domain].attachable.iter();
        able.filter(|name| !lost.contains(*name)).cloned().collect()
    })
}

/// The same, of the nodes that our filters let through.
fn fewest_allowed(view: &ClusterView, wanted: &[OsdId], lost: &BTreeSet<NodeName>) -> Plan {
    fewest(view, wanted, |view, osd| {
        let verdicts = explain(view, &policy(), osd, lost).into_iter();
        verdicts.filter(|(_, verdict)| verdict.is_ok()).map(|(name, _)| name).collect()
    })
}

fn fewest(
    view: &ClusterView,
    wanted: &[OsdId],
    able: impl Fn(&ClusterView, OsdId) -> Vec<NodeName>,
) -> Plan {
    let mut view = view.clone();
    let mut counts: BTreeMap<NodeName, usize> =
        view.nodes.keys().map(|name| (name.clone(), on(&view, name).len())).collect();
    let mut plan = Plan::new();
    for osd in wanted {
        let able = able(&view, *osd).into_iter();
        let Some(to) = able.min_by_key(|name| (counts[name], name.clone())) else { continue };
        put(&mut view, *osd, &to);
        *counts.get_mut(&to).unwrap() += 1;
        plan.push((*osd, to));
    }
    plan
}

/// Moves one OSD after another until there is nothing to gain; how many that were.
fn until_rest(view: &mut ClusterView) -> usize {
    let mut moves = 0;
    loop {
        // Longer than any cooldown: what is compared here is where it ends.
        later(view, Duration::from_secs(86_400));
        match rebalance(view, &Findings::default(), &policy()) {
            Ok(best) => {
                put(view, best.osd, &best.to);
                moves += 1;
                assert_eq!(broken(view), (0, 0), "{best:?}");
            }
            Err(RestWhy::Even) => return moves,
            Err(other) => panic!("{other}"),
        }
    }
}

#[derive(Default)]
struct Row {
    losses: u64,
    /// Hundredths of an OSD, summed.
    spread: u64,
    spread_back: u64,
    moves: usize,
    moves_back: usize,
    domains: usize,
    full: usize,
    unplaced: usize,
}

impl Row {
    fn add(
        &mut self,
        mut view: ClusterView,
        lost: &BTreeSet<NodeName>,
        (wanted, plan): (usize, Plan),
        rebalances: bool,
    ) {
        for (osd, to) in &plan {
            put(&mut view, *osd, to);
        }
        let (domains, full) = broken(&view);
        self.losses += 1;
        self.spread += spread(&view, lost);
        self.domains += domains;
        self.full += full;
        self.moves += plan.len();
        self.unplaced += wanted - plan.len();
        if rebalances {
            self.moves_back += until_rest(&mut view);
        }
        self.spread_back += spread(&view, &BTreeSet::new());
    }

    fn print(&self, rule: &str, shape: &Shape) {
        let each = |hundredths: u64| {
            let mean = hundredths / self.losses;
            format!("{}.{:02}", mean / 100, mean % 100)
        };
        let of = |count: usize| each(u64::try_from(count).unwrap() * 100);
        println!(
            "TABLE {:<16}{:<16}{:>7}{:>8}{:>7}{:>14}{:>7}{:>12}{:>11}{:>10}",
            shape.name,
            rule,
            self.losses,
            each(self.spread),
            of(self.moves),
            each(self.spread_back),
            of(self.moves_back),
            self.domains,
            self.full,
            self.unplaced
        );
    }
}

#[test]
fn a_lost_node_breaks_no_failure_domain_and_spreads_no_worse_than_fewest_devices() {
    println!(
        "TABLE {:<16}{:<16}{:>7}{:>8}{:>7}{:>14}{:>7}{:>12}{:>11}{:>10}",
        "generated",
        "rule",
        "losses",
        "spread",
        "moves",
        "then: spread",
        "moves",
        "violations",
        "over-full",
        "unplaced"
    );
    let mut others = 0;
    let mut worse = Vec::new();
    for shape in &SHAPES {
        let (mut us, mut fewest, mut allowed) = (Row::default(), Row::default(), Row::default());
        let view = cluster(7, *shape);
        for n in 0..shape.nodes.min(20) {
            let lost: BTreeSet<NodeName> = [node(n)].into();
            let wanted = on(&view, &node(n));
            let many = wanted.len();
            us.add(view.clone(), &lost, (many, ours(&view, &wanted, &lost)), true);
            let plan = fewest_devices(&view, &wanted, &lost);
            fewest.add(view.clone(), &lost, (many, plan), false);
            let plan = fewest_allowed(&view, &wanted, &lost);
            allowed.add(view.clone(), &lost, (many, plan), false);
        }
        us.print("ours", shape);
        fewest.print("fewest devices", shape);
        allowed.print("fewest allowed", shape);
        assert_eq!((us.domains, us.full), (0, 0), "{}", shape.name);
        assert!(us.unplaced <= allowed.unplaced, "{}", shape.name);
        // A rule that breaks failure domains is not compared: being even is easy without them.
        let slack = if matches!(shape.kind, Kind::Mixed | Kind::Busy) { 20 } else { u64::MAX };
        for (other, rule) in [(&fewest, "fewest devices"), (&allowed, "fewest allowed")] {
            let fair = other.domains == 0 && other.full == 0 && other.unplaced == us.unplaced;
            let limit = other.spread + other.spread / slack;
            if fair && (us.spread > limit || us.spread_back > other.spread_back) {
                worse.push((shape.name, rule, us.spread, other.spread));
            }
        }
        others += fewest.domains;
    }
    assert!(worse.is_empty(), "{worse:?}");
    assert!(others > 0, "the comparison shows nothing if the other rule breaks none either");
}
