//! The rebalancer over days: from any cluster it comes to rest, and moves nothing to and fro.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use heal_types::WallTime;
use heal_types::cluster::{NodeName, OsdId};
use nvmeof_recoverer::plan::detect::Findings;
use nvmeof_recoverer::plan::schedule::{Rebalancer, explain, place};
use nvmeof_recoverer::plan::view::ClusterView;
use nvmeof_recoverer::plan::{Automatic, Policy};

use crate::cluster::{
    SHAPES, Shape, broken, cluster, later, measure_again, node, on, policy, put, weights,
};
use crate::dice::Dice;

const STEP: Duration = Duration::from_secs(300);
/// So many steps without a move are rest: six hours, in which measurements go on changing.
const QUIET: usize = 72;

fn wanted() -> Policy {
    Policy {
        rebalance: Automatic::On,
        // Longer than what it waits for anyway, so that neither hides that the other is missing.
        cooldown: Duration::from_secs(1800),
        rebalance_rest: Duration::from_secs(3 * 3600),
        ..policy()
    }
}

/// OSDs where nobody would put them, but nowhere where they must not be.
fn scramble(view: &mut ClusterView, dice: &mut Dice) {
    let osds: Vec<OsdId> = view.osds.keys().copied().collect();
    for _ in 0..osds.len() * 2 {
        let osd = osds[dice.index(osds.len())];
        let verdicts = explain(view, &policy(), osd, &BTreeSet::new());
        let able: Vec<NodeName> =
            verdicts.into_iter().filter(|(_, it)| it.is_ok()).map(|(name, _)| name).collect();
        // Piled up rather than dealt out.
        let few = able.len().min(1 + dice.index(3));
        if few > 0 {
            put(view, osd, &able[dice.index(few)]);
        }
    }
}

/// What every move makes smaller.
fn squares(view: &ClusterView) -> u128 {
    weights(view).values().map(|weight| u128::from(*weight).pow(2)).sum()
}

/// Lets it run until it rests; how many moves that took, and how many were of an OSD for the second
/// time.
fn run(
    view: &mut ClusterView,
    dice: &mut Dice,
    shape: Shape,
    last: &mut BTreeMap<OsdId, WallTime>,
) -> (usize, usize) {
    let policy = wanted();
    let mut rebalancer = Rebalancer::default();
    let (mut moves, mut again, mut quiet) = (0, 0, 0);
    let mut latest: Option<WallTime> = None;
    while quiet < QUIET {
        later(view, STEP);
        if dice.once_in(6) {
            measure_again(view, dice, shape);
        }
        let due = rebalancer.look(view, &Findings::default(), &policy);
        let Some(due) = due.ok().and_then(|proposed| proposed.due(view, &policy)) else {
            quiet += 1;
            continue;
        };
        let (osd, now) = (due.osd.id, view.now.wall);
        if let Some(before) = last.insert(osd, now) {
            assert!(now.since(before) >= policy.rebalance_rest, "{osd} to and fro");
            again += 1;
        }
        let pause = latest.map(|latest| now.since(latest));
        assert!(pause.is_none_or(|pause| pause >= policy.cooldown), "one after the other");
        latest = Some(now);
        let before = squares(view);
        put(view, osd, &due.to);
        view.osds.get_mut(&osd).unwrap().moved = Some(now);
        assert!(squares(view) < before, "{due:?} makes it no more even");
        assert_eq!(broken(view), (0, 0), "{due:?}");
        (moves, quiet) = (moves + 1, 0);
        assert!(moves <= 20 * shape.osds, "it does not end");
    }
    (moves, again)
}

#[test]
fn rebalancing_comes_to_rest_and_never_moves_one_osd_to_and_fro() {
    let (mut moves, mut again) = (0, 0);
    for seed in 0..32 {
        let shape = SHAPES[1 + usize::try_from(seed).unwrap() % 8];
        let mut dice = Dice::new(seed ^ 0xba1a);
        let mut view = cluster(seed, shape);
        scramble(&mut view, &mut dice);
        assert_eq!(broken(&view), (0, 0), "seed {seed}: as it begins");
        let mut last = BTreeMap::new();
        // Then a node is lost and comes back empty, twice.
        for n in 0..3 {
            let ended = run(&mut view, &mut dice, shape, &mut last);
            (moves, again) = (moves + ended.0, again + ended.1);
            let away: BTreeSet<NodeName> = [node(n)].into();
            for placed in place(&view, &policy(), &on(&view, &node(n)), &away).placed {
                put(&mut view, placed.osd, &placed.to);
                last.insert(placed.osd, view.now.wall);
                view.osds.get_mut(&placed.osd).unwrap().moved = Some(view.now.wall);
            }
        }
    }
    println!("FIGURE moves={moves}");
    println!("FIGURE moved_again_later={again}");
    assert!(moves > 300 && again > 20, "{moves} moves, {again} again: too few to show anything");
}
