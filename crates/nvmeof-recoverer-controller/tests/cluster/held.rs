//! What must not be acted on, is not.

use std::time::Duration;

use nvmeof_recoverer::plan::relocate::PhaseKind;

use crate::world::World;

#[tokio::test]
#[ignore = "needs an API server: cargo xtask cluster test"]
async fn two_nodes_lost_at_once_are_held_until_one_is_back() {
    let mut world = World::new("storm").await;
    world.controller("a");
    world.until_looked().await;
    world.kubelet(0).power_off().await;
    world.kubelet(1).power_off().await;
    tokio::time::sleep(Duration::from_secs(11)).await;
    assert_eq!(world.all_moves().await.len(), 0, "nothing is begun in a storm");
    world.kubelet(1).power_on().await;
    world.until_phase("osd-0-1", PhaseKind::Succeeded).await;
    assert_eq!(world.all_moves().await.len(), 1, "the other one is well again");
    world.at_rest().await;
    world.end().await;
}

#[tokio::test]
#[ignore = "needs an API server: cargo xtask cluster test"]
async fn without_a_quorum_of_the_mons_nothing_is_begun() {
    let mut world = World::new("no-quorum").await;
    world.controller("a");
    world.until_looked().await;
    world.fabric.change(|state| state.quorum = false);
    world.kubelet(0).power_off().await;
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(world.all_moves().await.len(), 0);
    world.fabric.change(|state| state.quorum = true);
    world.until_phase("osd-0-1", PhaseKind::Succeeded).await;
    world.at_rest().await;
    world.end().await;
}

#[tokio::test]
#[ignore = "needs an API server: cargo xtask cluster test"]
async fn a_node_that_only_one_witness_doubts_keeps_its_osd() {
    let mut world = World::new("one-witness").await;
    world.controller("a");
    world.until_looked().await;
    // Its kubelet is gone, and its OSD writes on.
    world.kubelet(0).cut_off_from_api().await;
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(world.all_moves().await.len(), 0);
    assert_eq!(world.bound_to(0).await, world.node(0));
    world.kubelet(0).power_on().await;
    world.at_rest().await;
    world.end().await;
}
