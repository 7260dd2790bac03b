//! Lines for people.

use heal_types::cluster::OsdId;
use kube::ResourceExt as _;
use nvmeof_recoverer::plan::Policy;
use nvmeof_recoverer::plan::schedule::{OutWhy, explain};
use nvmeof_recoverer::plan::view::ClusterView;
use std::collections::{BTreeMap, BTreeSet};

use nvmeof_recoverer_controller::crd::{FabricTarget, OsdRelocation, Rebalance};

/// `2 nodes full, 1 node not ready`.
pub(super) fn reasons(reasons: &BTreeMap<OutWhy, usize>) -> String {
    let say = |(why, count): (&OutWhy, &usize)| {
        let nodes = if *count == 1 { "node" } else { "nodes" };
        format!("{count} {nodes}: {why}")
    };
    reasons.iter().map(say).collect::<Vec<_>>().join(", ")
}

/// Every node's verdict on one OSD; the best first.
pub(super) fn verdicts(view: &ClusterView, osd: OsdId) -> Vec<String> {
    let mut verdicts = explain(view, &Policy::default(), osd, &BTreeSet::new());
    verdicts.sort_by(|(one, a), (two, b)| match (a, b) {
        (Ok(a), Ok(b)) => b.total.cmp(&a.total).then_with(|| one.cmp(two)),
        (Ok(_), Err(_)) => std::cmp::Ordering::Less,
        (Err(_), Ok(_)) => std::cmp::Ordering::Greater,
        (Err(a), Err(b)) => a.cmp(b).then_with(|| one.cmp(two)),
    });
    let on = view.osds.get(&osd).and_then(|osd| osd.node.known());
    let head = on.map_or_else(|| osd.to_string(), |node| format!("{osd}, now on {node}"));
    let lines = verdicts.into_iter().map(|(node, verdict)| match verdict {
        Ok(score) => format!("  {node:40} {score}"),
        Err(why) => format!("  {node:40} out: {why}"),
    });
    std::iter::once(head).chain(lines).collect()
}

/// What the controller would move although nothing is broken: it knows what Ceph says, we do not.
pub(super) fn rebalance(targets: &[FabricTarget]) -> Vec<String> {
    let found = targets.iter().find_map(|it| it.status.as_ref()?.rebalance.as_ref());
    let Some(Rebalance { osd, from, to, here, there, gain, since, begins }) = found else {
        return vec!["rebalancing: the controller proposes nothing".to_owned()];
    };
    let since = String::from(*since);
    let when = begins.map_or_else(
        || "not by itself: rebalancing is off".to_owned(),
        |begins| format!("begins at {} if nothing changes", String::from(begins)),
    );
    vec![
        format!(
            "rebalancing: {osd} from {from} to {to} gains {gain} points; the best since {since}"
        ),
        format!("  {from:40} {here}"),
        format!("  {to:40} {there}"),
        format!("  {when}"),
    ]
}

/// Targets and moves; the newest move first.
pub(super) fn status(targets: &[FabricTarget], moves: &[OsdRelocation]) -> Vec<String> {
    let mut lines = vec![format!("{:30} {:>7} {}", "TARGET", "DEVICES", "FENCE")];
    for target in targets {
        let status = target.status.clone().unwrap_or_default();
        let fence = if status.fence.is_empty() { "not asked yet" } else { &status.fence };
        lines.push(format!("{:30} {:>7} {fence}", target.name_any(), status.devices));
    }
    lines.push(String::new());
    lines.push(format!("{:14} {:16} {:30} {}", "MOVE", "PHASE", "FROM - TO", "MESSAGE"));
    let mut moves: Vec<&OsdRelocation> = moves.iter().collect();
    moves.sort_by_key(|it| std::cmp::Reverse((it.spec.order.began, it.name_any())));
    for found in moves {
        let order = &found.spec.order;
        let (phase, to, message) = found.status.as_ref().map_or_else(
            || ("new", &order.to, ""),
            |status| (status.phase.word(), &status.to, status.message.as_str()),
        );
        let way = format!("{} - {to}", order.from);
        lines.push(format!("{:14} {phase:16} {way:30} {message}", found.name_any()));
    }
    lines
}
