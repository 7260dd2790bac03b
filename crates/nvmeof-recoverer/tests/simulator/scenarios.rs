//! Stories a person wrote: what must happen, and what must not, in cases that have a name.

use nvmeof_recoverer::plan::relocate::{PhaseKind, Relocation};

use crate::device::Mood;
use crate::world::World;

fn moves(world: &World) -> Vec<&Relocation> {
    world.api.now.relocations.values().map(|stored| &stored.relocation).collect()
}

fn phases(world: &World) -> Vec<PhaseKind> {
    moves(world).iter().map(|relocation| relocation.phase.kind()).collect()
}

fn without_control_network(world: &mut World, n: usize) {
    (world.nodes[n].api, world.nodes[n].mon) = (false, false);
}

fn assert_kept(world: &World) {
    assert!(world.violations.is_empty(), "{:#?}", world.violations);
}

#[test]
fn a_dead_nodes_osds_run_elsewhere_and_each_moves_once() {
    let mut world = World::new(1);
    world.power(0, false);
    world.run(60);
    assert_eq!(phases(&world), [PhaseKind::Succeeded; 2]);
    for osd in [0, 1] {
        let now_on = world.running(osd);
        assert_eq!(now_on.len(), 1);
        assert_ne!(now_on, [0]);
        assert!(world.up[osd] && !world.noout[osd]);
    }
    assert_kept(&world);
}

#[test]
fn a_node_that_writes_on_behind_a_cut_network_is_fenced_before_anybody_connects() {
    let mut world = World::new(2);
    without_control_network(&mut world, 0);
    world.run(60);
    assert_eq!(phases(&world), [PhaseKind::Succeeded; 2]);
    assert_kept(&world);
}

#[test]
fn a_frozen_node_that_wakes_up_after_the_move_writes_nothing() {
    let mut world = World::new(3);
    world.nodes[0].frozen = true;
    world.run(60);
    world.nodes[0].frozen = false;
    world.run(30);
    assert_eq!(phases(&world), [PhaseKind::Succeeded; 2]);
    assert_eq!(world.running(0).len(), 1, "the old daemon died of its I/O errors");
    assert_kept(&world);
}

#[test]
fn two_nodes_lost_at_once_are_held() {
    // Whenever that is between the renewals of their leases.
    for second in 0..3 {
        let mut world = World::new(4);
        world.run(second);
        without_control_network(&mut world, 0);
        without_control_network(&mut world, 1);
        world.run(120);
        assert_eq!(moves(&world).len(), 0, "at second {second}");
        world.nodes[1].api = true;
        world.nodes[1].mon = true;
        world.run(60);
        assert_eq!(phases(&world), [PhaseKind::Succeeded; 2], "one node is no storm");
        assert_kept(&world);
    }
}

#[test]
fn one_witness_alone_moves_nothing() {
    for (api, mon) in [(false, true), (true, false)] {
        let mut world = World::new(5);
        (world.nodes[0].api, world.nodes[0].mon) = (api, mon);
        world.run(120);
        assert_eq!(moves(&world).len(), 0);
        assert_kept(&world);
    }
}

#[test]
fn a_fence_that_lies_leads_to_a_person_and_to_no_connect() {
    for mood in [Mood::Lies, Mood::UnlinksOnly, Mood::Refuses] {
        let mut world = World::new(6);
        world.devices[2].mood = mood;
        without_control_network(&mut world, 1);
        world.run(120);
        let relocation = moves(&world)[0];
        let waits = [PhaseKind::FenceRequired, PhaseKind::Fencing, PhaseKind::Proving];
        assert!(waits.contains(&relocation.phase.kind()), "{mood:?}: {:?}", relocation.phase);
        assert_eq!(world.devices[2].sessions.iter().filter(|it| it.host != 1).count(), 0);
        assert_kept(&world);
    }
}

#[test]
fn a_fence_that_works_later_is_waited_for() {
    let mut world = World::new(7);
    world.devices[2].mood = Mood::Later(6);
    without_control_network(&mut world, 1);
    world.run(90);
    assert_eq!(phases(&world), [PhaseKind::Succeeded]);
    assert_kept(&world);
}

#[test]
fn a_node_that_returns_before_the_fence_keeps_its_osds() {
    let mut world = World::new(8);
    world.devices[2].mood = Mood::Refuses;
    without_control_network(&mut world, 1);
    world.run(22);
    assert_eq!(phases(&world), [PhaseKind::FenceRequired]);
    (world.nodes[1].api, world.nodes[1].mon) = (true, true);
    world.devices[2].mood = Mood::Honest;
    world.run(30);
    let ended = phases(&world);
    assert!(
        matches!(ended[..], [PhaseKind::RolledBack] | [PhaseKind::Succeeded]),
        "put back, or, if the fence came first, finished: {ended:?}"
    );
    assert_eq!(world.running(2).len(), 1);
    assert!(world.up[2] && !world.noout[2]);
    assert_kept(&world);
}

/// Kills whoever comes to the `boundary`th step of a move, with commands on time or late.
fn killed_at(boundary: u64, late: bool) -> World {
    let mut world = World::new(9);
    world.told = Some(Vec::new());
    without_control_network(&mut world, 1);
    world.run(10);
    for controller in &mut world.controllers {
        controller.dies_in = Some(boundary);
    }
    if late {
        world.late = 6;
    }
    world.run(150);
    world
}

#[test]
fn a_leader_that_is_killed_at_any_step_is_followed_by_one_that_makes_exactly_one_move() {
    for late in [false, true] {
        let mut steps = 0;
        loop {
            let world = killed_at(steps, late);
            let told = world.told.as_ref().map(|lines| lines.join("\n")).unwrap_or_default();
            let at = format!("killed at boundary {steps}:\n{told}");
            assert_eq!(phases(&world), [PhaseKind::Succeeded], "{at}");
            assert_eq!(world.api.created, 1, "{at}");
            assert_eq!(world.running(2).len(), 1, "{at}");
            assert_kept(&world);
            if world.controllers.iter().all(|it| it.life == 0) {
                break;
            }
            steps += 1;
        }
        assert!(steps > 20, "a move has more than {steps} steps to be killed at");
    }
}
