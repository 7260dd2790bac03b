//! What is left of a leg once its slot is good again.

use heal_sim::{ArraySetup, LineKind, ToolFault, World};
use heal_types::GracePolicy;

use super::{
    asked, assert_in_sync, assert_never, assert_picture, copied, heals, heard_of, legs, mirror,
    one_array, phase, seconds, until, well,
};

/// An array with a long grace whose slot 1 was moved to the first spare, which this daemon
/// connected.
fn moved_once(legs: u16) -> World {
    let mut world = well(&one_array(ArraySetup {
        legs,
        spares: 4,
        grace: Some(GracePolicy::After(seconds(900))),
        ..ArraySetup::mirror("vol1")
    }));
    world.replaced_by_itself("vol1-b");
    world.namespace_removed("vol1-b");
    world.volume_stale("vol1");
    let _ = world.run_until(World::is_at_rest, seconds(120));
    heals(&mut world);
    world.begin_story();
    world
}

// found by review: the repair of another slot, when it was done, disconnected the subsystem of a
// leg that was away for a moment and waited for: the leg could never come back.
#[test]
fn a_subsystem_that_another_slot_waits_for_is_not_disconnected() {
    let mut world = moved_once(3);
    assert_in_sync(&world, "vol1-d");
    world.path_lost("vol1-d");
    world.failed_by_hand("vol1-d");
    world.run_for(seconds(2));
    world.removed_by_hand("vol1-d");
    world.namespace_removed("vol1-c");
    world.run_for(seconds(5));
    world.namespace_restored("vol1-c");
    until(&mut world, "the other slot is good", |world| world.is_in_sync("vol1-c"));
    world.run_for(seconds(30));
    assert_never(&world, LineKind::Effect, "disconnect");
    world.path_up("vol1-d");
    heals(&mut world);
    assert_picture(&world, "vol1", "[UUU]");
    assert_in_sync(&world, "vol1-d");
    assert!(asked(&world).is_empty());
}

// found by review: of two faulty legs that other repairs still needed, only the first was left
// alone.
#[test]
fn faulty_legs_that_other_repairs_still_need_are_all_left_bound() {
    let mut world = moved_once(4);
    assert_in_sync(&world, "vol1-e");
    world.namespace_removed("vol1-c");
    world.namespace_removed("vol1-e");
    world.namespace_removed("vol1-d");
    world.run_for(seconds(5));
    world.namespace_restored("vol1-d");
    until(&mut world, "one of three is back", |world| world.is_in_sync("vol1-d"));
    world.run_for(seconds(30));
    for away in ["vol1-c", "vol1-e"] {
        let leg = world.kernel.leg_of(&world.namespace(away));
        assert!(leg.is_some_and(|leg| leg.faulty), "{away}\n{}", world.transcript.text());
        world.namespace_restored(away);
    }
    heals(&mut world);
    assert_picture(&world, "vol1", "[UUUU]");
}

// found by review: somebody added the replaced leg back as a spare; it was neither put away nor was
// anything said: the repair waited for ever.
#[test]
fn a_replaced_leg_that_somebody_added_back_as_a_spare_is_put_away() {
    let mut world = mirror();
    world.namespace_removed("vol1-b");
    until(&mut world, "half of the replacement is copied", copied(50));
    world.namespace_restored("vol1-b");
    world.run_for(seconds(1));
    world.added_by_hand("vol1", "vol1-b");
    heals(&mut world);
    assert_in_sync(&world, "vol1-c");
    assert!(world.kernel.leg_of(&world.namespace("vol1-b")).is_none());
    assert_eq!(world.replica_state("vol1-b"), None, "its removal was confirmed");
}

// found by review: a tool that could not be started while a leg was put away was never tried again.
#[test]
fn putting_away_goes_on_after_a_tool_could_not_be_started() {
    for verb in ["remove_leg", "disconnect"] {
        let mut world = moved_once(2);
        world.terminating("vol1-c");
        world.volume_stale("vol1");
        world.spoil_next(verb, ToolFault::CannotStart);
        heals(&mut world);
        assert_in_sync(&world, "vol1-d");
        assert_eq!(world.replica_state("vol1-c"), None, "{verb}: its removal was confirmed");
    }
}

// found by review: losses and returns piled up unsaid while the provisioner was away.
#[test]
fn a_flapping_leg_owes_the_provisioner_one_word_at_the_most() {
    let mut world = well(&legs(2, 3600));
    world.provisioner_down(true);
    for _ in 0..12 {
        world.namespace_removed("vol1-b");
        world.run_for(seconds(5));
        world.namespace_restored("vol1-b");
        until(&mut world, "it is back", |world| world.is_in_sync("vol1-b"));
        world.run_for(seconds(10));
        assert_ne!(phase(&world, "vol1"), "held");
    }
    let record = world.record(world.array("vol1")).unwrap();
    assert!(record.owed.len() <= 2, "{:#?}", record.owed);
    world.provisioner_down(false);
    heals(&mut world);
    assert_eq!(heard_of(&world, "vol1-b").last(), Some(&"available"));
}

// found by review: a subsystem that somebody else had connected, and that led to no namespace yet,
// was taken for ours when nobody heard what became of our own connect.
#[test]
fn a_controller_without_a_namespace_is_somebody_elses_also_when_our_connect_goes_unheard() {
    for somebody_else in [true, false] {
        let mut world = mirror();
        world.namespace_removed("vol1-c");
        if somebody_else {
            world.connected_by_hand("vol1-c");
        }
        world.spoil_next("connect", ToolFault::DoneUnheard);
        world.namespace_removed("vol1-b");
        let ours = |world: &World| {
            let record = world.record(world.array("vol1")).expect("a repair is recorded");
            record.connected.contains_key(&world.nqn("vol1-c"))
        };
        let unheard = |world: &World| world.transcript.text().contains("connect: unknown");
        until(&mut world, "the connect went unheard", unheard);
        world.run_for(seconds(1));
        assert_eq!(ours(&world), !somebody_else, "{}", world.transcript.text());
        world.namespace_restored("vol1-c");
        heals(&mut world);
        assert_in_sync(&world, "vol1-c");
        assert_eq!(ours(&world), !somebody_else, "{}", world.transcript.text());
    }
}
