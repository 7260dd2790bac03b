//! A node that was lost is back, and empty: what would help is said, and done only if that is
//! wanted.

use std::time::Duration;

use k8s_openapi::api::core::v1::Node;
use kube::api::{Api, Patch, PatchParams};
use nvmeof_recoverer::plan::relocate::PhaseKind;
use nvmeof_recoverer_controller::crd::Cause;
use serde_json::json;

use crate::world::{OSDS, Patience, World};

async fn takes_pods(world: &World, n: u32, takes: bool) {
    let nodes: Api<Node> = Api::all(world.client.clone());
    let patch = json!({ "spec": { "unschedulable": !takes } });
    nodes.patch(&world.node(n), &PatchParams::default(), &Patch::Merge(&patch)).await.unwrap();
}

/// Waits until the plan says so; the line.
async fn until_planned(world: &World, what: &str) -> Vec<String> {
    let mut patience = Patience::new();
    loop {
        let plan = world.command(&["plan"]).await.unwrap();
        let lines: Vec<String> = plan.lines().map(str::to_owned).collect();
        let at = lines.iter().position(|line| line.starts_with("rebalancing: "));
        let said = lines[at.unwrap()..].to_vec();
        if said.iter().any(|line| line.contains(what)) {
            return said;
        }
        assert!(patience.lasts().await, "it never says {what:?}: {said:?}");
    }
}

#[tokio::test]
#[ignore = "needs an API server: cargo xtask cluster test"]
async fn two_osds_of_one_node_are_parted_by_one_move_if_that_is_wanted() {
    let mut world = World::new("rebalanced").await;
    // Two domains may go at once, so a node may carry two; and the free ones take nothing yet.
    world.fabric.change(|state| state.min_size = 1);
    for n in OSDS..OSDS + 2 {
        takes_pods(&world, n, false).await;
    }
    world.controller("a");
    world.until_looked().await;
    world.kubelet(0).power_off().await;
    world.until_phase("osd-0-1", PhaseKind::Succeeded).await;
    let full = world.bound_to(0).await;
    world.kubelet(0).power_on().await;
    takes_pods(&world, 3, true).await;
    let said = until_planned(&world, "not by itself").await;
    println!("{}", said.join("\n"));
    assert!(said[0].contains(&format!(" from {full} to ")), "{said:?}");
    world.kill("a").await;
    assert_eq!(world.all_moves().await.len(), 1, "nobody wants it");

    world.policy = r#"rebalance: true, rebalance_after: "9s", rebalance_rest: "30s""#;
    world.controller("b");
    until_planned(&world, "begins at").await;
    assert_eq!(world.all_moves().await.len(), 1, "it is said before it is done");
    let mut patience = Patience::new();
    let begun = loop {
        let moves = world.all_moves().await;
        if let Some(it) = moves.iter().find(|it| it.metadata.name.as_deref() != Some("osd-0-1")) {
            break it.clone();
        }
        assert!(patience.lasts().await, "it is never done");
    };
    let by = |cause: &Cause| matches!(cause, Cause::Planned { by } if by.as_str() == "rebalancer");
    assert!(by(&begun.spec.order.cause), "{:?}", begun.spec.order.cause);
    assert_eq!(begun.spec.order.from.to_string(), full);
    world.until_phase(begun.metadata.name.as_deref().unwrap(), PhaseKind::Succeeded).await;
    until_planned(&world, "proposes nothing").await;
    tokio::time::sleep(Duration::from_secs(12)).await;
    assert_eq!(world.all_moves().await.len(), 2, "it is even, and stays so");
    let mut nodes = Vec::new();
    for osd in 0..OSDS {
        nodes.push(world.bound_to(osd).await);
    }
    nodes.sort();
    nodes.dedup();
    assert_eq!(nodes.len(), 3, "each has one: {nodes:?}");
    world.at_rest().await;
    world.end().await;
}
