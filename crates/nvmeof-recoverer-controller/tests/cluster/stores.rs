//! With a real Ceph: what a move does to the data, which is nothing.

use std::time::Instant;

use nvmeof_recoverer::plan::relocate::PhaseKind;

use crate::ceph::Place;
use crate::world::{OSDS, World};

/// Objects before the node dies, and while it is dead.
const BEFORE: u32 = 24;
const MEANWHILE: u32 = 6;

#[tokio::test]
#[ignore = "needs an API server and Ceph: cargo xtask cluster ceph"]
async fn an_osd_of_a_real_ceph_moves_and_no_data_does() {
    let mut world = World::with_ceph("real", Place::Target).await;
    world.controller("a");
    world.until_looked().await;
    let ceph = world.ceph();
    ceph.make_pool(OSDS).await;
    ceph.until_clean().await;
    ceph.write("before", BEFORE).await;
    let (map, before) = (ceph.map().await, ceph.recovered().await);
    let died = Instant::now();
    world.kubelet(0).power_off().await;
    // The first of them waits until the mons call the OSD down.
    world.ceph().write("meanwhile", MEANWHILE).await;
    println!("FIGURE from-death-to-last-write-without-it={:.1} s", died.elapsed().as_secs_f64());
    let done = world.until_phase("osd-0-1", PhaseKind::Succeeded).await;
    println!("FIGURE from-death-to-all-clean={:.1} s", died.elapsed().as_secs_f64());
    let ceph = world.ceph();
    let to = done.status.unwrap().to.to_string();
    assert_eq!(ceph.ask(&["osd", "find", "0"]).await["host"], to.as_str());
    let after = ceph.map().await;
    assert_eq!(map.crush, after.crush, "the CRUSH map is another one, byte by byte");
    assert_eq!(map.groups, after.groups, "placement groups lie elsewhere");
    println!("FIGURE placement-groups-as-before={}", after.groups.len());
    ceph.until_counted().await;
    let now = ceph.recovered().await;
    let delta = now.objects - before.objects;
    println!("FIGURE objects-recovered={delta}");
    println!("FIGURE bytes-recovered={}", now.bytes - before.bytes);
    println!("FIGURE objects-misplaced={}", now.misplaced);
    assert_eq!(now.misplaced, 0);
    assert!(delta > 0, "it missed no write: nothing is shown");
    assert!(delta <= u64::from(MEANWHILE), "more was recovered than was written meanwhile");
    ceph.check("before", BEFORE).await;
    ceph.check("meanwhile", MEANWHILE).await;
    let noout = ceph.ask(&["osd", "dump"]).await["osds"][0]["state"].to_string();
    assert!(!noout.contains("noout"), "{noout}");
    for node in world.nodes.clone() {
        node.power_off().await;
    }
    world.ceph().fsck(0, &to).await;
    world.end().await;
}

/// What the first one shows can be otherwise.
#[tokio::test]
#[ignore = "needs an API server and Ceph: cargo xtask cluster ceph"]
async fn without_a_virtual_host_the_same_move_shuffles_data() {
    let mut world = World::with_ceph("shuffled", Place::Node).await;
    world.controller("a");
    world.until_looked().await;
    let ceph = world.ceph();
    ceph.make_pool(OSDS).await;
    ceph.until_clean().await;
    ceph.write("before", BEFORE).await;
    let map = ceph.map().await;
    world.kubelet(0).power_off().await;
    world.until_phase("osd-0-1", PhaseKind::Succeeded).await;
    let after = world.ceph().map().await;
    assert_ne!(map.crush, after.crush, "nobody moved it: the first scenario shows nothing");
    let moved = map.groups.iter().zip(&after.groups).filter(|(one, other)| one.1 != other.1);
    println!("FIGURE placement-groups-that-moved={}", moved.count());
    world.end().await;
}

/// And so it is without anybody's help, but for the ten minutes that the mons wait before they call
/// the OSD out: here a person does.
#[tokio::test]
#[ignore = "needs an API server and Ceph: cargo xtask cluster ceph"]
async fn without_a_move_all_of_a_lost_osd_is_copied() {
    let world = World::with_ceph("rebuilt", Place::Target).await;
    let ceph = world.ceph();
    // One copy less than there are OSDs, so that there is a place to copy to.
    ceph.make_pool(OSDS - 1).await;
    ceph.until_clean().await;
    ceph.write("before", BEFORE).await;
    ceph.until_counted().await;
    let (held, before) = (ceph.objects_on(0).await, ceph.recovered().await);
    world.kubelet(0).power_off().await;
    ceph.until_not_clean().await;
    ceph.ask(&["osd", "out", "0"]).await;
    ceph.until_clean().await;
    ceph.until_counted().await;
    let now = ceph.recovered().await;
    println!("FIGURE objects-of-the-lost-osd={held}");
    println!("FIGURE objects-copied={}", now.objects - before.objects);
    println!("FIGURE bytes-copied={}", now.bytes - before.bytes);
    assert!(held > 0 && now.objects - before.objects >= held, "somebody had them already");
    ceph.check("before", BEFORE).await;
    world.end().await;
}
