//! An OSD comes up elsewhere: by itself, by command, and by a person's word.

use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Node;
use kube::api::{Api, Patch, PatchParams};
use nvmeof_recoverer::plan::relocate::PhaseKind;
use nvmeof_recoverer_controller::crd::Cause;
use serde_json::json;

use crate::world::{World, subsystem};

#[tokio::test]
#[ignore = "needs an API server: cargo xtask cluster test"]
async fn an_osd_whose_node_died_runs_elsewhere() {
    let mut world = World::new("node-lost").await;
    world.controller("a");
    world.until_looked().await;
    let died = Instant::now();
    world.kubelet(0).power_off().await;
    let done = world.until_phase("osd-0-1", PhaseKind::Succeeded).await;
    println!("FIGURE from-death-to-succeeded={:.1} s", died.elapsed().as_secs_f64());
    let to = done.status.unwrap().to.to_string();
    assert_eq!(world.bound_to(0).await, to);
    assert_ne!(to, world.node(0));
    world.fabric.look(|state| assert_eq!(state.osds[&0].host.as_ref(), Some(&to)));
    // Rook's list agrees, so that its next look finds the device where it is.
    let cluster = world.clusters().get("ceph").await.unwrap().data;
    let nodes = cluster["spec"]["storage"]["nodes"].as_array().unwrap().clone();
    let devices = |node: &str| {
        let entry = nodes.iter().find(|it| it["name"] == node);
        entry.map_or(0, |it| it["devices"].as_array().map_or(0, Vec::len))
    };
    assert_eq!(devices(&world.node(0)), 0);
    assert!(devices(&to) >= 1);
    world.at_rest().await;
    assert_eq!(world.all_moves().await.len(), 1);
    world.end().await;
}

#[tokio::test]
#[ignore = "needs an API server: cargo xtask cluster test"]
async fn a_frozen_node_that_wakes_up_after_the_move_writes_nothing() {
    let mut world = World::new("frozen").await;
    world.controller("a");
    world.until_looked().await;
    world.kubelet(0).freeze().await;
    world.until_phase("osd-0-1", PhaseKind::Succeeded).await;
    let before = world.fabric.look(|state| state.devices[&subsystem(0)].turns.len());
    // Its daemon goes on with what it was about to write, and so does its kubelet.
    world.kubelet(0).thaw().await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    let after = world.fabric.look(|state| state.devices[&subsystem(0)].turns.len());
    assert_eq!(before, after, "somebody else wrote");
    world.at_rest().await;
    world.end().await;
}

#[tokio::test]
#[ignore = "needs an API server: cargo xtask cluster test"]
async fn a_command_moves_an_osd_that_is_well() {
    let mut world = World::new("command").await;
    world.controller("a");
    world.until_looked().await;
    let (from, to) = (world.node(0), world.node(3));
    let dry = world.command(&["osd-move", &from, &to, "--by", "ada", "--dry-run"]).await.unwrap();
    assert!(dry.contains("would move osd.0"), "{dry}");
    assert_eq!(world.all_moves().await.len(), 0);
    world.command(&["osd-move", &from, &to, "--by", "ada"]).await.unwrap();
    let done = world.until_phase("osd-0-1", PhaseKind::Succeeded).await;
    assert!(matches!(done.spec.order.cause, Cause::Planned { by } if by.as_str() == "ada"));
    assert_eq!(world.bound_to(0).await, to);
    let status = world.command(&["status"]).await.unwrap();
    assert!(status.contains("Succeeded"), "{status}");
    let nobody = world.command(&["osd-move", &from, &to, "--by", "ada"]).await.unwrap_err();
    assert!(nobody.contains("no OSD"), "{nobody}");
    world.at_rest().await;
    world.end().await;
}

#[tokio::test]
#[ignore = "needs an API server: cargo xtask cluster test"]
async fn a_node_that_a_person_calls_out_of_service_is_not_waited_for() {
    let mut world = World::new("out-of-service").await;
    world.controller("a");
    world.until_looked().await;
    world.kubelet(0).power_off().await;
    let said = Instant::now();
    let nodes: Api<Node> = Api::all(world.client.clone());
    let taint = json!({ "spec": { "taints": [{ "key": "node.kubernetes.io/out-of-service",
        "value": "nodeshutdown", "effect": "NoExecute" }] } });
    let name = world.node(0);
    nodes.patch(&name, &PatchParams::default(), &Patch::Strategic(&taint)).await.unwrap();
    let begun = world.until_phase("osd-0-1", PhaseKind::Fencing).await;
    println!("FIGURE from-word-to-fence={:.1} s", said.elapsed().as_secs_f64());
    let cause = serde_json::to_value(&begun.spec.order.cause).unwrap();
    assert!(cause["lost"]["witnesses"].get("outOfService").is_some(), "{cause}");
    world.until_phase("osd-0-1", PhaseKind::Succeeded).await;
    world.at_rest().await;
    world.end().await;
}

#[tokio::test]
#[ignore = "needs an API server: cargo xtask cluster test"]
async fn without_a_fence_that_works_a_persons_word_is_awaited() {
    let mut world = World::new("fence-required").await;
    world.controller("a");
    world.until_looked().await;
    // It says that it is done, and does nothing: only the second look finds that out.
    world.fabric.change(|state| state.fence_lies = true);
    world.kubelet(0).freeze().await;
    world.until_phase("osd-0-1", PhaseKind::FenceRequired).await;
    let turns = world.fabric.look(|state| state.devices[&subsystem(0)].turns.len());
    assert_eq!(turns, 1, "nobody else was let in");
    world.kubelet(0).power_off().await;
    world.fabric.change(|state| {
        state.fence_lies = false;
        state.fence_silent = true;
    });
    let node = world.node(0);
    let other = world.node(1);
    let word = ["fenced", "osd-0-1", "--said", "pulled the plug", "--by", "ada", "--node"];
    let wrong: Vec<&str> = word.iter().copied().chain([other.as_str()]).collect();
    world.command(&wrong).await.unwrap();
    tokio::time::sleep(Duration::from_secs(2)).await;
    let phase = world.phase("osd-0-1").await.unwrap();
    // The fence is tried again meanwhile.
    let waits = [PhaseKind::FenceRequired, PhaseKind::Fencing, PhaseKind::Proving];
    assert!(waits.contains(&phase), "a word about another node proves nothing, and it is {phase}");
    let right: Vec<&str> = word.iter().copied().chain([node.as_str()]).collect();
    world.command(&right).await.unwrap();
    world.until_phase("osd-0-1", PhaseKind::Detached).await;
    world.fabric.change(|state| state.fence_silent = false);
    let done = world.until_phase("osd-0-1", PhaseKind::Succeeded).await;
    let evidence = serde_json::to_value(done.status.unwrap().evidence).unwrap();
    assert_eq!(evidence["basis"]["word"]["who"], "ada");
    world.at_rest().await;
    world.end().await;
}

#[tokio::test]
#[ignore = "needs an API server: cargo xtask cluster test"]
async fn a_job_that_fails_on_the_new_node_is_made_again() {
    let mut world = World::new("job-again").await;
    world.controller("a");
    world.until_looked().await;
    world.fabric.change(|state| state.connects_to_fail = 1);
    world.kubelet(0).power_off().await;
    world.until_phase("osd-0-1", PhaseKind::Succeeded).await;
    world.fabric.look(|state| assert_eq!(state.connects_to_fail, 0));
    world.at_rest().await;
    world.end().await;
}
