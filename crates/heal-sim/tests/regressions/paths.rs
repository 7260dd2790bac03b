//! Paths that are lost, and what is done and said about them.

use heal_core::record::Step;
use heal_sim::{LineKind, Setup, World};
use heal_types::GracePolicy;

use super::{
    ArraySetup, Duration, asked_nothing, assert_in_sync, assert_never, heals, in_phase,
    keeps_every_rule, legs, lines, milliseconds, mirror, one_array, seconds, until, well,
};

/// A mirror whose anchor is connecting and queues, with an application that waits for it.
fn stuck() -> World {
    let mut world = well(&Setup { workload: Some(milliseconds(50)), ..Setup::default() });
    world.kernel.set_drain(Duration::ZERO);
    world.target_serving("vol1-a", false);
    world
}

// found by chaos: the controller that was about to be deleted was still shown as connecting, so it
// was taken for connected again and forgotten: the record had nothing of it, and nobody connected
// it.
#[test]
fn what_a_deleted_controller_is_owed_stays_in_the_record_until_it_is_live_again() {
    let mut world = stuck();
    let array = world.array("vol1");
    until(&mut world, "it is deleted", |world| {
        lines(world, LineKind::Effect, " delete nvme0") == 1
    });
    assert_eq!(world.record(array).unwrap().lapsed.len(), 1);
    world.crash_daemon();
    world.run_for(seconds(10));
    assert_eq!(world.record(array).unwrap().lapsed.len(), 1, "a crash forgives nothing");
    world.target_serving("vol1-a", true);
    heals(&mut world);
    assert!(world.record(array).unwrap().lapsed.is_empty());
    assert_in_sync(&world, "vol1-a");
    asked_nothing(&world);
}

// found by a story: a WARN said that the application was freed from a leg, in the same moment in
// which it was decided not to do it.
#[test]
fn nobody_is_told_that_an_application_is_freed_while_it_is_not() {
    // Cut off.
    let mut world = mirror();
    world.path_lost("vol1-a");
    world.path_lost("vol1-b");
    world.run_for(seconds(5));
    assert_never(&world, LineKind::Audit, "frees the application");
    // Held.
    let mut world = mirror();
    world.operator_hold("vol1", "changing a switch");
    world.path_lost("vol1-b");
    world.run_for(seconds(5));
    assert_never(&world, LineKind::Audit, "frees the application");
    assert_eq!(lines(&world, LineKind::Audit, "slot 1: held: held by an operator"), 1);
    // The last leg.
    let mut world = mirror();
    world.namespace_removed("vol1-b");
    world.run_for(seconds(5));
    world.path_lost("vol1-a");
    world.run_for(seconds(5));
    assert_never(&world, LineKind::Audit, "slot 0: frees the application");
    keeps_every_rule(&world);
}

// found by chaos: an event of any kind decided the graces of an array that nobody had seen since
// the host booted.
#[test]
fn news_of_a_path_decides_nothing_about_an_array_that_was_not_seen_yet() {
    let mut world = well(&legs(3, 30));
    world.namespace_removed("vol1-b");
    world.namespace_removed("vol1-c");
    world.run_for(seconds(10));
    world.reboot();
    world.run_for(seconds(60));
    world.path_lost("vol1-a");
    world.run_for(seconds(10));
    let array = world.array("vol1");
    let waits = |world: &World| {
        let record = world.record(array).unwrap();
        record.repairs.iter().all(|repair| repair.step == Step::Grace)
    };
    assert!(waits(&world), "\n{}", world.transcript.text());
    world.path_up("vol1-a");
    world.run_for(seconds(10));
    asked_nothing(&world);
    keeps_every_rule(&world);
}

// found by chaos: after a restart a slot that had to wait for another one went on with it, because
// its turn was judged before anybody had looked at the array.
#[test]
fn a_slot_that_waits_its_turn_waits_over_a_restart_with_a_lost_path() {
    let mut world = well(&legs(3, 10));
    world.provisioner.mood.pending = u32::MAX;
    world.namespace_removed("vol1-b");
    world.namespace_removed("vol1-c");
    until(&mut world, "one is asked for", in_phase("vol1", "held"));
    world.run_for(seconds(5));
    let array = world.array("vol1");
    let asks = |world: &World| {
        let record = world.record(array).unwrap();
        record.repairs.iter().filter(|repair| matches!(repair.step, Step::Request { .. })).count()
    };
    assert_eq!(asks(&world), 1, "\n{}", world.transcript.text());
    world.path_lost("vol1-a");
    world.run_for(seconds(10));
    world.crash_daemon();
    for _ in 0..200 {
        world.run_for(milliseconds(10));
        assert!(asks(&world) <= 1, "\n{}", world.transcript.text());
    }
    keeps_every_rule(&world);
}

// found by a story: only losses of a leg were counted; a leg that was out flapped on, its count
// faded, and it was taken back in between.
#[test]
fn a_leg_that_flaps_while_it_is_out_is_not_taken_back_in_between() {
    let array = ArraySetup {
        grace: Some(GracePolicy::After(seconds(3600))),
        rebuild: seconds(2),
        ..ArraySetup::mirror("vol1")
    };
    let mut world = well(&one_array(array));
    for _ in 0..60 {
        world.path_lost("vol1-b");
        world.run_for(seconds(2));
        world.path_up("vol1-b");
        world.run_for(seconds(20));
    }
    let losses = lines(&world, LineKind::Effect, "isolate nvme");
    assert_eq!(losses, 4, "the limit is three\n{}", world.transcript.text());
    world.run_for(seconds(120));
    heals(&mut world);
    assert_in_sync(&world, "vol1-b");
    asked_nothing(&world);
}

// found by the lab's catalogue: the kernel gives a controller up after ctrl_loss_tmo, and nobody
// connected it again when its target was back.
#[test]
fn a_controller_that_the_kernel_gave_up_is_connected_again() {
    let mut world = well(&one_array(ArraySetup {
        grace: Some(GracePolicy::After(seconds(7200))),
        ..ArraySetup::mirror("vol1")
    }));
    let array = world.array("vol1");
    world.target_serving("vol1-b", false);
    world.run_for(seconds(900));
    assert_eq!(world.picture("vol1"), "[U_]");
    assert_eq!(world.record(array).unwrap().lapsed.len(), 1, "{}", world.transcript.text());
    let tries = lines(&world, LineKind::Effect, "connect nqn.2014-08.com.example:vol1-b");
    assert!((1..40).contains(&tries), "{tries}\n{}", world.transcript.text());
    world.crash_daemon();
    world.run_for(seconds(10));
    world.target_serving("vol1-b", true);
    heals(&mut world);
    assert_in_sync(&world, "vol1-b");
    assert!(world.record(array).unwrap().lapsed.is_empty());
    asked_nothing(&world);
}

// A namespace that left for good, or a controller that somebody disconnected while it was live, is
// not connected again behind that somebody's back.
#[test]
fn a_controller_that_was_live_when_it_went_is_left_alone() {
    let mut world = well(&one_array(ArraySetup {
        grace: Some(GracePolicy::After(seconds(7200))),
        ..ArraySetup::mirror("vol1")
    }));
    world.controllers_give_up("vol1-b");
    world.run_for(seconds(120));
    assert!(world.record(world.array("vol1")).unwrap().lapsed.is_empty());
    assert_never(&world, LineKind::Effect, "connect nqn.2014-08.com.example:vol1-b");
}
