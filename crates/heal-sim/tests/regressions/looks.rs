//! Looks that see nothing, half of it, or see it wrongly.

use std::time::Duration;

use heal_sim::{Blur, Flaw, Setup, World};
use heal_types::ProvisionerCall;

use super::{
    asked, asked_nothing, assert_in_sync, assert_picture, copied, heals, heard_of, in_phase,
    keeps_every_rule, mirror, seconds, until,
};

// found by review: one look at the leg that was being filled failed, and it was reported missing
// and asked to be replaced while MD went on copying.
#[test]
fn a_leg_that_cannot_be_read_for_one_look_while_it_is_filled_is_not_lost() {
    for blur in [Blur::Leg, Blur::LegGone] {
        let mut world = mirror();
        world.terminating("vol1-b");
        world.volume_stale("vol1");
        until(&mut world, "some of it is copied", copied(20));
        let id = world.namespace("vol1-c");
        world.one_look_with(blur(id));
        heals(&mut world);
        assert_in_sync(&world, "vol1-c");
        assert_eq!(heard_of(&world, "vol1-c"), ["available"]);
        assert_eq!(asked(&world).len(), 1);
    }
}

// found by review: after a reboot the daemon looked before the array was assembled, took it for
// stopped, threw the record away, and asked again under another key.
#[test]
fn a_request_keeps_its_key_over_a_reboot_that_shows_no_array_at_first() {
    let mut world = mirror();
    world.provisioner.mood.pending = u32::MAX;
    world.namespace_removed("vol1-b");
    until(&mut world, "a replacement is asked for", |world| !asked(world).is_empty());
    world.reboot();
    world.run_for(seconds(60));
    world.array_assembled("vol1");
    world.run_for(seconds(60));
    world.provisioner.mood.pending = 0;
    heals(&mut world);
    assert_eq!(asked(&world).len(), 1, "{:?}", asked(&world));
    assert_in_sync(&world, "vol1-c");
    assert_eq!(world.provisioner.grants(), 1);
}

// found by review: the replica that was granted before a reboot was forgotten with the record.
#[test]
fn a_granted_replica_is_still_the_incoming_one_after_a_reboot() {
    let mut world = mirror();
    world.namespace_removed("vol1-b");
    until(&mut world, "it is granted", in_phase("vol1", "connecting"));
    world.reboot();
    world.run_for(seconds(60));
    world.array_assembled("vol1");
    heals(&mut world);
    assert_in_sync(&world, "vol1-c");
    assert_eq!(world.provisioner.grants(), 1);
}

// found by review: a repair of an earlier life whose array could not be seen was due at once, for
// ever: the daemon woke two hundred times a second.
#[test]
fn an_array_that_cannot_be_seen_does_not_keep_the_daemon_awake() {
    let mut world = mirror();
    world.provisioner.mood.pending = u32::MAX;
    world.namespace_removed("vol1-b");
    until(&mut world, "a replacement is asked for", in_phase("vol1", "requesting"));
    let array = world.array("vol1");
    world.blurred(Blur::Array(array));
    world.crash_daemon();
    let before = world.now().mono;
    world.run_for(seconds(60));
    assert_eq!(world.now().mono.since(before), seconds(60));
    keeps_every_rule(&world);
    world.provisioner.mood.pending = 0;
    world.sharp();
    heals(&mut world);
    assert_in_sync(&world, "vol1-c");
}

// found by review: an array in the middle of a stop shows no slots; every leg of it was reported
// missing.
#[test]
fn an_array_that_is_being_stopped_has_lost_no_leg() {
    let mut world = mirror();
    let array = world.array("vol1");
    world.one_look_with(Blur::HalfStopped(array));
    world.run_for(seconds(10));
    world.array_stopped("vol1");
    world.run_for(seconds(60));
    for replica in ["vol1-a", "vol1-b"] {
        assert_eq!(heard_of(&world, replica), Vec::<&str>::new());
    }
    world.array_assembled("vol1");
    heals(&mut world);
    asked_nothing(&world);
    assert_picture(&world, "vol1", "[UU]");
}

// found by chaos: a doubt that was being waited out was decided on a look at a half stopped array:
// the good leg had no slot there, so it was reported missing.
#[test]
fn a_doubt_is_not_decided_while_the_array_looks_half_stopped() {
    let mut world = mirror();
    let (array, id) = (world.array("vol1"), world.namespace("vol1-b"));
    world.one_look_with(Blur::LegGone(id));
    world.blurred(Blur::HalfStopped(array));
    world.one_look_with(Blur::HalfStopped(array));
    world.blurred(Blur::HalfStopped(array));
    world.run_for(seconds(5));
    world.sharp();
    heals(&mut world);
    assert_eq!(heard_of(&world, "vol1-b"), Vec::<&str>::new());
    assert_picture(&world, "vol1", "[UU]");
}

// found by review: the grace of a lost leg ended on a snapshot that was minutes old, and a
// replacement was asked for though the leg was back.
#[test]
fn nothing_is_asked_for_while_the_array_cannot_be_read() {
    let mut world = mirror();
    world.namespace_removed("vol1-b");
    world.run_for(seconds(10));
    let array = world.array("vol1");
    world.blurred(Blur::Array(array));
    world.namespace_restored("vol1-b");
    world.run_for(seconds(120));
    asked_nothing(&world);
    world.sharp();
    heals(&mut world);
    asked_nothing(&world);
    assert_in_sync(&world, "vol1-b");
}

// found by a story: the namespaces had appeared just before the daemon started; it looked once, saw
// no ids, and did not look again until a leg was lost, which then had no name.
#[test]
fn ids_that_are_not_filled_in_at_the_start_are_read_again() {
    let mut world = World::new(&Setup { workload: None, ..Setup::default() });
    for replica in ["vol1-a", "vol1-b"] {
        world.filled_later(replica, seconds(3));
    }
    world.run_for(seconds(10));
    let machine = world.machine(world.array("vol1")).unwrap();
    assert!(machine.status(world.now()).volume.is_some(), "\n{}", world.transcript.text());
    world.kernel.set_workload(Some(seconds(1)));
    world.namespace_removed("vol1-b");
    heals(&mut world);
    assert_eq!(heard_of(&world, "vol1-b"), ["missing"]);
    assert_in_sync(&world, "vol1-c");
}

// found by chaos: one look at which a good leg's ids could not be read wiped out which namespace it
// was; when it was lost and came back, nobody knew it.
#[test]
fn a_good_leg_whose_ids_cannot_be_read_for_a_moment_is_still_known_by_them() {
    let mut world = mirror();
    world.filled_later("vol1-b", seconds(5));
    world.sharp();
    world.run_for(seconds(1));
    world.namespace_removed("vol1-b");
    world.run_for(seconds(10));
    world.namespace_restored("vol1-b");
    heals(&mut world);
    assert_in_sync(&world, "vol1-b");
    asked_nothing(&world);
}

// found by a story: the returned namespace showed no ids at the look its uevent caused, nobody
// looked again, and a replacement was asked for.
#[test]
fn a_returned_namespace_whose_ids_are_not_filled_in_yet_is_looked_at_again() {
    let mut world = mirror();
    world.namespace_removed("vol1-b");
    world.run_for(seconds(5));
    world.namespace_restored("vol1-b");
    world.filled_later("vol1-b", seconds(3));
    heals(&mut world);
    assert_in_sync(&world, "vol1-b");
    asked_nothing(&world);
}

// found by the lab's catalogue: after a boot that started the array from a leg that had been lost,
// the fresh leg was reported missing, and after the grace period replaced by a copy of the stale
// one.
#[test]
fn an_array_that_a_boot_started_from_a_lost_leg_is_left_to_a_person() {
    let mut world = mirror();
    world.provisioner_refuses(Some("not now"));
    world.namespace_removed("vol1-b");
    world.run_for(seconds(120));
    world.reboot();
    world.namespace_removed("vol1-a");
    world.namespace_restored("vol1-b");
    world.provisioner_refuses(None);
    world.started_alone_from("vol1", "vol1-b");
    world.run_for(seconds(600));
    let array = world.array("vol1");
    assert!(world.record(array).unwrap().quarantine.is_some(), "{}", world.transcript.text());
    world.namespace_restored("vol1-a");
    world.run_for(seconds(600));
    assert_picture(&world, "vol1", "[_U]");
    assert!(heard_of(&world, "vol1-a").is_empty(), "{:?}", heard_of(&world, "vol1-a"));
    assert_eq!(world.provisioner.grants(), 0);
}

// found by reading: a replacement that was still being filled when last seen stood for every leg
// that was good then, and the array went on from it alone after a boot.
#[test]
fn an_array_that_a_boot_started_from_a_replacement_alone_is_left_to_a_person() {
    let mut world = mirror();
    world.namespace_removed("vol1-b");
    until(&mut world, "some of it is copied", copied(20));
    let array = world.array("vol1");
    let unwatched = |world: &mut World, half_seconds: u32| {
        for _ in 0..half_seconds {
            world.crash_daemon();
            world.run_for(Duration::from_millis(500));
        }
    };
    unwatched(&mut world, 240);
    assert_picture(&world, "vol1", "[UU]");
    world.namespace_removed("vol1-c");
    unwatched(&mut world, 20);
    world.reboot();
    world.namespace_removed("vol1-a");
    world.namespace_restored("vol1-c");
    world.started_alone_from("vol1", "vol1-c");
    world.run_for(seconds(600));
    assert!(world.record(array).unwrap().quarantine.is_some(), "{}", world.transcript.text());
}

// found by reading: a life that was not told whose the array is remembers its good leg and opens no
// repair for the empty slot. A start from the leg that had left that slot is no good one for that.
#[test]
fn a_start_from_a_leg_that_left_while_nobody_knew_whose_the_array_is_is_left_to_a_person() {
    let mut world = mirror();
    let array = world.array("vol1");
    world.crash_daemon();
    world.record_lost("vol1");
    world.provisioner_down(true);
    world.namespace_removed("vol1-b");
    world.run_for(seconds(20));
    assert_picture(&world, "vol1", "[U_]");
    world.operator_hold("vol1", "somebody looks at it");
    world.operator_resume("vol1");
    assert!(world.record(array).is_some_and(|record| record.repairs.is_empty()));
    world.reboot();
    world.namespace_removed("vol1-a");
    world.namespace_restored("vol1-b");
    world.started_alone_from("vol1", "vol1-b");
    world.provisioner_down(false);
    world.run_for(seconds(60));
    assert!(world.record(array).unwrap().quarantine.is_some(), "{}", world.transcript.text());
}

// found by reading: the first look of a life sees the only leg without its name, and forgets to ask
// again whether the array was started from one that had been lost.
#[test]
fn a_start_from_a_lost_leg_is_seen_although_the_leg_has_no_name_at_first() {
    let mut world = mirror();
    world.provisioner_refuses(Some("not now"));
    world.namespace_removed("vol1-b");
    world.run_for(seconds(120));
    world.reboot();
    world.namespace_removed("vol1-a");
    world.namespace_restored("vol1-b");
    world.provisioner_refuses(None);
    world.filled_later("vol1-b", seconds(5));
    world.started_alone_from("vol1", "vol1-b");
    world.run_for(seconds(600));
    let array = world.array("vol1");
    assert!(world.record(array).unwrap().quarantine.is_some(), "{}", world.transcript.text());
    assert!(heard_of(&world, "vol1-a").is_empty(), "{:?}", heard_of(&world, "vol1-a"));
    assert_eq!(world.provisioner.grants(), 0);
}

// found by the lab's catalogue: a replacement that carried an old copy of a leg, superblock and
// all, was taken back by the bitmap.
#[test]
fn a_replacement_that_carries_an_old_copy_of_the_leg_is_filled_whole() {
    let mut world = mirror();
    let lost = world.namespace("vol1-b");
    world.flawed("vol1-c", &Flaw::OldCopyOf(lost));
    world.run_for(seconds(120)); // Everything is written to that the copy does not know.
    world.namespace_removed("vol1-b");
    heals(&mut world);
    assert_in_sync(&world, "vol1-c");
}

// found by the hunt: the leg that had gone on was in doubt when the host went down, and was taken
// for a lost one as well, so that nobody was left of whom the stale start could be told.
#[test]
fn a_start_from_a_lost_leg_is_seen_although_the_good_one_was_in_doubt() {
    let mut world = mirror();
    world.provisioner_refuses(Some("not now"));
    world.namespace_removed("vol1-b");
    world.run_for(seconds(120));
    world.path_lost("vol1-a");
    world.run_for(seconds(5));
    world.reboot();
    world.namespace_restored("vol1-b");
    world.started_alone_from("vol1", "vol1-b");
    world.run_for(seconds(60));
    let array = world.array("vol1");
    assert!(world.record(array).unwrap().quarantine.is_some(), "{}", world.transcript.text());
    assert!(heard_of(&world, "vol1-a").is_empty(), "{:?}", heard_of(&world, "vol1-a"));
}

// found in the lab: an array that the provisioner knows by its name only was asked for before udev
// had found the name, and then not again for as long as a volume that is whole is left alone.
#[test]
fn an_array_is_asked_for_again_as_soon_as_its_name_is_found() {
    let mut world = World::new(&Setup::default());
    world.known_by_name_only("vol1");
    world.name_found("vol1", false);
    world.run_for(seconds(60));
    let healed = |world: &World| world.machine(world.array("vol1")).is_some_and(|m| m.heals());
    assert!(!healed(&world), "{}", world.transcript.text());
    world.name_found("vol1", true);
    world.run_for(seconds(1));
    assert!(healed(&world), "{}", world.transcript.text());
    keeps_every_rule(&world);
}

// found by review: the word that a replica is no longer used waited for a provisioner that was
// down, and was given on a look from before somebody had taken the replica back.
#[test]
fn a_removal_is_not_confirmed_while_a_leg_that_nobody_can_name_may_be_it() {
    let of_the_array = |world: &World| Blur::Array(world.array("vol1"));
    let of_the_leg = |world: &World| Blur::LegGone(world.namespace("vol1-b"));
    for blur in [of_the_array, of_the_leg] {
        let mut world = mirror();
        world.terminating("vol1-b");
        world.volume_stale("vol1");
        until(&mut world, "some of it is copied", copied(50));
        world.provisioner_down(true);
        until(&mut world, "the copy is good", |world| world.is_in_sync("vol1-c"));
        world.run_for(seconds(30));
        assert!(world.kernel.leg_of(&world.namespace("vol1-b")).is_none());
        world.blurred(blur(&world));
        world.connected_by_hand("vol1-b");
        world.added_by_hand("vol1", "vol1-b");
        world.provisioner_down(false);
        world.run_for(seconds(60));
        // A spare whose device seems to be gone is put out first.
        let out = world.kernel.leg_of(&world.namespace("vol1-b")).is_none();
        assert!(out || !is_confirmed(&world, "vol1-b"), "{}", world.transcript.text());
        world.sharp();
        heals(&mut world);
    }
}

fn is_confirmed(world: &World, replica: &str) -> bool {
    world.provisioner.received().iter().any(|call| match call {
        ProvisionerCall::ConfirmRemoved { replica: of, .. } => of.as_str() == replica,
        ProvisionerCall::FindVolume(_)
        | ProvisionerCall::RequestReplacement { .. }
        | ProvisionerCall::Report { .. } => false,
    })
}
