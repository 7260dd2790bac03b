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

/// The leader is killed in each phase, as soon as that is written; the replica that stands by goes
/// on.
#[tokio::test]
#[ignore = "needs an API server: cargo xtask cluster test"]
async fn a_leader_killed_in_any_phase_is_followed_by_another_and_there_is_one_move() {
    let mut world = World::new("leader-killed").await;
    let mut born = 0;
    let mut slowest = Duration::ZERO;
    let mut killed_in = BTreeSet::new();
    let mut moves = 0;
    // A phase that was over before the leader was killed in it has another chance.
    while killed_in.len() < WAY.len() && moves < MOVES {
        moves += 1;
        let (from, to) = (world.bound_to(0).await, world.node(if moves % 2 == 1 { 3 } else { 4 }));
        let name = format!("osd-0-{moves}");
        two_replicas(&mut world, &mut born);
        world.until_led().await;
        world.until_looked().await;
        let begun = Instant::now();
        let mut phases = world.follow(&name);
        world.command(&["osd-move", &from, &to, "--by", "ada"]).await.unwrap();
        while !phases.next().await.is_over() {
            let Some(now) = world.phase(&name).await else { continue };
            if !WAY.contains(&now) || killed_in.contains(&now) {
                continue;
            }
            let leader = world.until_led().await;
            world.kill(&leader).await;
            killed_in.extend(world.phase(&name).await.filter(|phase| WAY.contains(phase)));
            two_replicas(&mut world, &mut born);
        }
        world.until_phase(&name, PhaseKind::Succeeded).await;
        slowest = slowest.max(begun.elapsed());
        assert_eq!(world.bound_to(0).await, to);
        world.at_rest().await;
    }
    assert_eq!(world.all_moves().await.len(), moves, "one move for each command");
    println!("FIGURE leaders-killed={}", born - 2);
    println!("FIGURE phases-with-a-killed-leader={}", killed_in.len());
    println!("FIGURE slowest-move={:.1} s", slowest.as_secs_f64());
    // Some are over in a few milliseconds.
    let missed: Vec<_> = WAY.iter().filter(|phase| !killed_in.contains(phase)).collect();
    assert!(missed.len() <= 2, "nobody was killed in {missed:?}");
    world.end().await;
}

/// So often all phases are gone through at most.
const MOVES: usize = 4;

fn two_replicas(world: &mut World, born: &mut usize) {
    while world.replicas() < 2 {
        *born += 1;
        world.controller(&format!("c{born}"));
    }
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
