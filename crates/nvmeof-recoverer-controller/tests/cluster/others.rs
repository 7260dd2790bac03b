//! Somebody else writes to the same objects meanwhile.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use nvmeof_recoverer::plan::relocate::PhaseKind;
use serde_json::json;

use crate::world::World;

/// Another client adds a node to the CephCluster every few milliseconds, and takes the first of its
/// own away, so that places in the list change all the time. None of its edits may be lost, nor
/// ours.
#[tokio::test]
#[ignore = "needs an API server: cargo xtask cluster test"]
async fn edits_of_the_ceph_cluster_by_another_client_are_merged_or_refused_and_never_lost() {
    let mut world = World::new("edits").await;
    world.controller("a");
    world.until_looked().await;
    let stop = Arc::new(AtomicBool::new(false));
    let (clusters, done) = (world.clusters(), Arc::clone(&stop));
    let editor = tokio::spawn(async move {
        let (mut made, mut refused) = (0_u32, 0_u32);
        while !done.load(Ordering::SeqCst) {
            let mut cluster = clusters.get("ceph").await.unwrap();
            let nodes = cluster.data["spec"]["storage"]["nodes"].as_array_mut().unwrap();
            // Before ours, so that every place in the list moves.
            nodes.insert(0, json!({ "name": format!("other-{made}"), "devices": [] }));
            if made >= 5 {
                let last = format!("other-{}", made - 5);
                let known = nodes.len();
                nodes.retain(|node| node["name"] != last.as_str());
                assert_eq!(nodes.len() + 1, known, "{last} was lost");
            }
            match clusters.replace("ceph", &PostParams::default(), &cluster).await {
                Ok(_) => made += 1,
                Err(_) => refused += 1,
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        (made, refused)
    });
    world.kubelet(0).power_off().await;
    let moved = world.until_phase("osd-0-1", PhaseKind::Succeeded).await;
    stop.store(true, Ordering::SeqCst);
    let (made, refused) = editor.await.unwrap();
    println!("FIGURE edits-by-others={made}");
    println!("FIGURE edits-of-theirs-refused={refused}");
    let cluster = world.clusters().get("ceph").await.unwrap().data;
    let nodes = cluster["spec"]["storage"]["nodes"].as_array().unwrap();
    let named = |name: &str| nodes.iter().find(|node| node["name"] == name).cloned();
    for n in made - 5..made {
        assert!(named(&format!("other-{n}")).is_some(), "other-{n} was lost");
    }
    let to = moved.status.unwrap().to.to_string();
    let ours = named(&to).expect("the new node is listed");
    assert!(!ours["devices"].as_array().unwrap().is_empty());
    world.at_rest().await;
    world.end().await;
}

#[tokio::test]
#[ignore = "needs an API server: cargo xtask cluster test"]
async fn a_move_that_is_deleted_is_undone_before_it_goes() {
    let mut world = World::new("deleted").await;
    world.controller("a");
    world.until_looked().await;
    world.fabric.change(|state| state.fence_silent = true);
    let (from, to) = (world.node(0), world.node(3));
    world.command(&["osd-move", &from, &to, "--by", "ada"]).await.unwrap();
    world.until_phase("osd-0-1", PhaseKind::Fencing).await;
    world.moves().delete("osd-0-1", &DeleteParams::default()).await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(world.phase("osd-0-1").await.is_some(), "the finalizer keeps it");
    world.fabric.change(|state| state.fence_silent = false);
    world.until_gone("osd-0-1").await;
    assert_eq!(world.bound_to(0).await, from);
    world.at_rest().await;
    world.end().await;
}

#[tokio::test]
#[ignore = "needs an API server: cargo xtask cluster test"]
async fn an_object_that_contradicts_itself_stops_its_own_osd_and_no_other() {
    let mut world = World::new("quarantine").await;
    world.controller("a");
    world.until_looked().await;
    let (from, to) = (world.node(0), world.node(3));
    world.fabric.change(|state| state.fence_silent = true);
    world.command(&["osd-move", &from, &to, "--by", "ada"]).await.unwrap();
    world.until_phase("osd-0-1", PhaseKind::Fencing).await;
    // Somebody with too many rights helps: it says it is fenced, without evidence.
    let forged = json!({ "status": { "phase": "Connecting" } });
    let params = PatchParams::default();
    // The controller writes as well: until the forged phase stays.
    world.moves().patch_status("osd-0-1", &params, &Patch::Merge(&forged)).await.unwrap();
    world.fabric.change(|state| state.fence_silent = false);
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(world.phase("osd-0-1").await, Some(PhaseKind::Connecting));
    world.fabric.look(|state| {
        let admitted = state.log.iter().any(|line| line.starts_with("admit osd.0"));
        assert!(!admitted, "nobody acts on it: {:?}", state.log);
    });
    // The others go on, as far as they can: placement groups are not clean while osd.0 is down.
    world.kubelet(1).power_off().await;
    world.until_phase("osd-1-1", PhaseKind::OsdUp).await;
    let node = world.node(1);
    assert_ne!(world.bound_to(1).await, node);
    world.until("osd.1 is up elsewhere", |state| state.osds[&1].host.as_ref() != Some(&node)).await;
    world.end().await;
}
