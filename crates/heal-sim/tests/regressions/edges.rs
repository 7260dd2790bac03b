//! Moves that the dice make once in many hours: several things have to meet within one step. Each
//! is made here, and `coverage::SELDOM` names the test.

use heal_core::SignalKind;
use heal_core::phase::PhaseKind;
use heal_sim::hunt::coverage::SELDOM;
use heal_sim::{Flaw, ToolFault};

use super::*;

fn takes(world: &World, phase: PhaseKind, signal: SignalKind) {
    let edge = (phase, signal);
    assert!(SELDOM.iter().any(|(seldom, _)| *seldom == edge), "{edge:?} is not in the list");
    assert!(world.edges().count(edge) > 0, "{edge:?}\n{}", world.transcript.text());
}

#[test]
fn a_clone_that_shows_while_a_leg_is_isolated_ends_that() {
    let mut world = well(&Setup { workload: None, ..legs(3, 30) });
    let twin = world.namespace("vol1-a");
    world.flawed("vol1-d", &Flaw::CloneOf(twin));
    world.connected_by_hand("vol1-d");
    world.run_for(seconds(1));
    world.spoil_next("isolate_leg", ToolFault::Fails);
    world.path_lost("vol1-b");
    until(&mut world, "isolating", in_phase("vol1", "isolating"));
    world.added_from("vol1", "vol1-d");
    world.run_for(seconds(1));
    takes(&world, PhaseKind::Isolating, SignalKind::Contradiction);
    keeps_every_rule(&world);
}

#[test]
fn a_slot_that_a_person_fills_while_the_offer_is_verified_needs_it_no_more() {
    let mut world = well(&legs(2, 5));
    world.connected_by_hand("vol1-d");
    world.run_for(seconds(1));
    world.namespace_removed("vol1-b");
    world.spoil_next("examine", ToolFault::Hangs);
    until(&mut world, "verifying", in_phase("vol1", "verifying"));
    world.added_from("vol1", "vol1-d");
    heals(&mut world);
    takes(&world, PhaseKind::Verifying, SignalKind::LegInSync);
    assert_in_sync(&world, "vol1-d");
}

#[test]
fn a_clone_that_shows_while_an_offer_is_verified_ends_that() {
    let mut world = well(&legs(2, 5));
    let twin = world.namespace("vol1-a");
    world.flawed("vol1-d", &Flaw::CloneOf(twin));
    world.connected_by_hand("vol1-d");
    world.run_for(seconds(1));
    world.namespace_removed("vol1-b");
    world.spoil_next("examine", ToolFault::Hangs);
    until(&mut world, "verifying", in_phase("vol1", "verifying"));
    world.added_from("vol1", "vol1-d");
    world.run_for(seconds(1));
    takes(&world, PhaseKind::Verifying, SignalKind::Contradiction);
    keeps_every_rule(&world);
}

#[test]
fn a_copy_that_is_taken_back_while_it_is_verified_was_one_too_many() {
    let mut world = well(&legs(2, 5));
    world.spoil_next("examine", ToolFault::Hangs);
    world.copies("vol1", 3);
    world.volume_stale("vol1");
    until(&mut world, "verifying", in_phase("vol1", "verifying"));
    world.copies("vol1", 2);
    world.withdrawn("vol1-c");
    world.volume_stale("vol1");
    heals(&mut world);
    takes(&world, PhaseKind::Verifying, SignalKind::NoLongerNeeded);
    assert_picture(&world, "vol1", "[UU]");
}

#[test]
fn a_copy_that_is_wanted_again_before_it_was_failed_stays() {
    let mut world = well(&legs(3, 5));
    world.spoil_next("fail_leg", ToolFault::Hangs);
    world.copies("vol1", 2);
    world.terminating("vol1-c");
    world.volume_stale("vol1");
    until(&mut world, "retiring", in_phase("vol1", "retiring"));
    world.copies("vol1", 3);
    world.wanted_again("vol1-c");
    world.volume_stale("vol1");
    heals(&mut world);
    takes(&world, PhaseKind::Retiring, SignalKind::NoLongerNeeded);
    assert_in_sync(&world, "vol1-c");
}
