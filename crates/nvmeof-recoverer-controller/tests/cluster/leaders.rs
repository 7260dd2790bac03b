//! Replicas die, and so does the API server: exactly one move, whatever happens in between.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use nvmeof_recoverer::plan::relocate::PhaseKind;

use crate::world::World;

/// The phases of a planned move in their order; it has one more than that of a lost OSD.
const WAY: [PhaseKind; 13] = [
    PhaseKind::Pending,
    PhaseKind::Confirmed,
    PhaseKind::NooutSet,
    PhaseKind::Stopping,
    PhaseKind::Fencing,
    PhaseKind::Proving,
    PhaseKind::Fenced,
    PhaseKind::Detached,
    PhaseKind::Connecting,
    PhaseKind::Verified,
    PhaseKind::Placed,
    PhaseKind::OsdUp,
    PhaseKind::Clean,
];

/// The leader is killed as soon as it wrote a phase, in each of them once; the other replica goes on.
#[tokio::test]
#[ignore = "needs an API server: cargo xtask cluster test"]
async fn a_leader_killed_in_any_phase_is_followed_by_another_and_there_is_one_move() {
    let mut world = World::new("leader-killed").await;
    let mut born = 0;
    let mut slowest = Duration::ZERO;
    let mut killed_in = BTreeSet::new();
    for (n, phase) in WAY.into_iter().enumerate() {
        while world.replicas() < 2 {
            born += 1;
            world.controller(&format!("c{born}"));
        }
        let leader = world.until_led().await;
        world.until_looked().await;
        let (from, to) = (world.bound_to(0).await, world.node(if n % 2 == 0 { 3 } else { 4 }));
        let name = format!("osd-0-{}", n + 1);
        let begun = Instant::now();
        let watched = world.watch_for(&name, phase);
        world.command(&["osd-move", &from, &to, "--by", "ada"]).await.unwrap();
        assert!(watched.await.unwrap(), "{name} never came to {phase}");
        world.kill(&leader).await;
        killed_in.insert(phase);
        world.until_phase(&name, PhaseKind::Succeeded).await;
        slowest = slowest.max(begun.elapsed());
        assert_eq!(world.bound_to(0).await, to);
        world.at_rest().await;
    }
    assert_eq!(world.all_moves().await.len(), WAY.len(), "one move for each command");
    println!("FIGURE phases-with-a-killed-leader={}", killed_in.len());
    println!("FIGURE slowest-move={:.1} s", slowest.as_secs_f64());
    world.end().await;
}

#[tokio::test]
#[ignore = "needs an API server: cargo xtask cluster test"]
async fn a_move_goes_on_after_the_api_server_was_away() {
    let mut world = World::new("api-restarted").await;
    world.controller("a");
    world.controller("b");
    world.until_looked().await;
    let watched = world.watch_for("osd-0-1", PhaseKind::Fencing);
    world.kubelet(0).power_off().await;
    assert!(watched.await.unwrap());
    let away = world.restart_api(Duration::from_secs(6)).await;
    println!("FIGURE api-server-away={:.1} s", away.as_secs_f64());
    world.until_phase("osd-0-1", PhaseKind::Succeeded).await;
    // Nobody was taken for dead because the API server was.
    assert_eq!(world.all_moves().await.len(), 1);
    world.at_rest().await;
    world.end().await;
}
