//! A leg that comes back, and requests that must not be made then.

use heal_core::Mode;
use heal_sim::{ArraySetup, Blur, LineKind, Setup};
use heal_types::GracePolicy;

use super::{
    asked, asked_nothing, assert_in_sync, assert_never, assert_picture, heals, heard_of, in_phase,
    is_bound, legs, mirror, one_array, phase, seconds, two_arrays_in_line, until, well,
};

// found by review: the grace ended under the hold, and in the breath in which a person ended the
// hold a replacement was asked for, though the leg had been back for a minute.
#[test]
fn a_leg_that_returned_under_a_persons_hold_is_taken_back_when_the_hold_ends() {
    let mut world = mirror();
    world.namespace_removed("vol1-b");
    world.run_for(seconds(10));
    world.operator_hold("vol1", "changing a switch");
    world.run_for(seconds(60));
    world.namespace_restored("vol1-b");
    world.run_for(seconds(60));
    world.operator_resume("vol1");
    heals(&mut world);
    assert_in_sync(&world, "vol1-b");
    asked_nothing(&world);
}

// found by review: the same when the mode went from observe to heal.
#[test]
fn a_leg_that_returned_while_only_observed_is_taken_back_when_healing_begins() {
    let mut world = mirror();
    world.namespace_removed("vol1-b");
    world.run_for(seconds(2));
    world.mode(Mode::Observe);
    world.run_for(seconds(60));
    world.namespace_restored("vol1-b");
    world.run_for(seconds(60));
    world.mode(Mode::Heal);
    heals(&mut world);
    assert_in_sync(&world, "vol1-b");
    asked_nothing(&world);
}

// found by review: the provisioner replaced by itself while the array waited for the host's budget;
// the offer was not taken, and with the leave a second replacement was asked for.
#[test]
fn a_replacement_offered_while_the_array_waits_for_the_budget_is_the_only_one() {
    let mut setup = two_arrays_in_line();
    setup.arrays[0].rebuild = seconds(120);
    let mut world = well(&setup);
    world.namespace_removed("vol1-b");
    until(&mut world, "the first array rebuilds", in_phase("vol1", "rebuilding"));
    world.namespace_removed("vol2-b");
    world.run_for(seconds(30));
    assert_eq!(phase(&world, "vol2"), "held");
    world.replaced_by_itself("vol2-b");
    heals(&mut world);
    assert_in_sync(&world, "vol2-c");
    let names: Vec<String> = asked(&world).into_iter().map(|(lost, _)| lost).collect();
    assert_eq!(names, ["vol1-b"]);
}

/// A leg that is back and waits out its hold-down, with its grace long over.
fn returning() -> heal_sim::World {
    let setup = one_array(ArraySetup {
        grace: Some(GracePolicy::After(seconds(5))),
        ..ArraySetup::mirror("vol1")
    });
    let mut world = well(&setup);
    world.namespace_removed("vol1-b");
    world.run_for(seconds(2));
    world.namespace_restored("vol1-b");
    world.run_for(seconds(6));
    assert_eq!(phase(&world, "vol1"), "returning");
    world
}

// found by review: one look that could not read who holds the returned namespace was taken for "it
// left", and a replacement was asked for in the same breath.
#[test]
fn a_returned_leg_whose_holders_cannot_be_read_for_one_look_has_not_left() {
    let mut world = returning();
    let id = world.namespace("vol1-b");
    world.one_look_with(Blur::Holders(id));
    heals(&mut world);
    assert_in_sync(&world, "vol1-b");
    asked_nothing(&world);
}

// found by review: the look in the middle of the re-add saw the namespace held and its leg
// unreadable: "it left", and a replacement was asked for while MD took the leg back.
#[test]
fn a_returned_leg_that_cannot_be_read_while_it_is_re_added_has_not_left() {
    for blur in [Blur::Leg, Blur::LegGone] {
        let mut world = returning();
        until(&mut world, "it is re-added", is_bound("vol1-b"));
        let id = world.namespace("vol1-b");
        world.one_look_with(blur(id));
        heals(&mut world);
        assert_in_sync(&world, "vol1-b");
        asked_nothing(&world);
    }
}

// found by review: a look right after the re-add showed the leg as a spare without a slot;
// re-adding it again was refused, and the happy path ended in a warning.
#[test]
fn a_leg_that_md_has_not_given_its_slot_yet_is_waited_for() {
    let mut world = well(&legs(3, 600));
    world.namespace_removed("vol1-c");
    world.run_for(seconds(20));
    world.namespace_removed("vol1-b");
    world.run_for(seconds(1));
    world.namespace_restored("vol1-b");
    world.run_for(seconds(12));
    world.namespace_restored("vol1-c");
    heals(&mut world);
    assert_picture(&world, "vol1", "[UUU]");
    assert_never(&world, LineKind::Audit, "held");
    asked_nothing(&world);
}

// found by review: without a provisioner, on an array that nobody manages, a leg whose device was
// gone was failed.
#[test]
fn without_a_provisioner_no_leg_is_ever_failed() {
    let mut setup = Setup::default();
    setup.policy.provisioned = false;
    let mut world = well(&setup);
    world.idle_gone("vol1-b");
    world.run_for(seconds(120));
    assert_never(&world, LineKind::Effect, "fail");
    assert_picture(&world, "vol1", "[UU]");
    let said = world.transcript.lines().iter().filter(|line| line.kind == LineKind::Audit).count();
    assert!(said < 20, "{said} sentences in two minutes\n{}", world.transcript.text());
}

// found by review: on an array that nobody manages, the faulty leg that a person had replaced was
// unbound as soon as the new one was in sync; only a leg that returns may be touched there.
#[test]
fn without_a_provisioner_a_leg_that_a_person_replaced_is_left_bound() {
    let mut setup = Setup::default();
    setup.policy.provisioned = false;
    let mut world = well(&setup);
    world.namespace_removed("vol1-b");
    world.run_for(seconds(20));
    world.connected_by_hand("vol1-c");
    world.run_for(seconds(1));
    world.added_by_hand("vol1", "vol1-c");
    world.run_for(seconds(120));
    assert_in_sync(&world, "vol1-c");
    assert_never(&world, LineKind::Effect, "#");
}

// found by review: a leg that was lost before the provisioner answered for the first time was never
// reported: its loss was owed before anybody knew which replica it was.
#[test]
fn a_leg_lost_before_the_provisioner_first_answered_is_reported_all_the_same() {
    let mut world = heal_sim::World::new(&Setup::default());
    world.provisioner_down(true);
    world.run_for(seconds(5));
    world.namespace_removed("vol1-b");
    world.run_for(seconds(20));
    world.provisioner_down(false);
    heals(&mut world);
    assert_eq!(heard_of(&world, "vol1-b"), ["missing"]);
    assert_in_sync(&world, "vol1-c");
}
