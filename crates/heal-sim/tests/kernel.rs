//! The kernel in memory does what the real one does, where a healer could trip over it.
#![allow(clippy::unwrap_used, reason = "a test may end loudly, its helpers too")]

use std::time::Duration;

use heal_sim::{ArraySetup, FakeKernel, Setup, World};
use heal_types::{
    ArraySnapshot, DeviceIdentity, FailWhy, HostAction, HostPort, LegFlag, LegRef, Moment, Outcome,
    RefusedWhy, SyncAction,
};

/// A kernel with an array and no daemon beside it.
fn kernel(setup: &Setup) -> (FakeKernel, World) {
    let world = World::new(setup);
    (world.kernel.clone(), world)
}

fn mirror() -> (FakeKernel, World) {
    kernel(&Setup::default())
}

fn array(kernel: &mut FakeKernel) -> ArraySnapshot {
    kernel.look().arrays[0].clone()
}

fn pass(kernel: &mut FakeKernel, time: Duration) {
    let end = now(kernel).after(time);
    while kernel.advance_to(end) < end {
        kernel.take_signals();
    }
    kernel.take_signals();
}

/// The kernel's own clock, read by asking it to go nowhere.
fn now(kernel: &mut FakeKernel) -> Moment {
    kernel.take_signals();
    kernel.advance_to(Moment(0))
}

fn leg(array: &ArraySnapshot, n: usize) -> LegRef {
    LegRef {
        device: array.legs[n].device.clone(),
        slot: array.legs[n].slot,
        md_device: array.legs[n].md_device.known().copied(),
        identity: None,
    }
}

fn identity(kernel: &mut FakeKernel, world: &World, replica: &str) -> DeviceIdentity {
    let id = world.namespace(replica);
    let namespaces = kernel.look().namespaces;
    namespaces.iter().find_map(|namespace| namespace.identity(&id)).unwrap()
}

fn fail(kernel: &mut FakeKernel, n: usize) -> Outcome {
    let snapshot = array(kernel);
    let action = HostAction::FailLeg {
        array: snapshot.id,
        leg: leg(&snapshot, n),
        why: FailWhy::NoLongerWanted,
    };
    kernel.act(&action).outcome
}

#[test]
fn a_failed_leg_keeps_its_slot_until_md_gets_to_it_and_stays_bound_until_it_is_removed() {
    let (mut kernel, _) = mirror();
    assert_eq!(fail(&mut kernel, 1), Outcome::Changed);
    let at_once = array(&mut kernel);
    assert!(at_once.legs[1].is_faulty() && at_once.legs[1].slot.is_some());
    let action = HostAction::RemoveLeg { array: at_once.id, leg: leg(&at_once, 1) };
    assert!(matches!(kernel.act(&action).outcome, Outcome::Retry { .. }));
    pass(&mut kernel, Duration::from_millis(10));
    let later = array(&mut kernel);
    assert_eq!((later.legs.len(), later.legs[1].slot), (2, None));
    assert_eq!(kernel.act(&action).outcome, Outcome::Changed);
    assert_eq!(kernel.act(&action).outcome, Outcome::AlreadySo);
    assert_eq!(array(&mut kernel).legs.len(), 1);
}

#[test]
fn failing_the_last_leg_breaks_the_array_and_every_write_after_it() {
    let (mut kernel, _) = mirror();
    fail(&mut kernel, 1);
    pass(&mut kernel, Duration::from_millis(10));
    assert!(matches!(fail(&mut kernel, 0), Outcome::Refused(_)));
    let broken = array(&mut kernel);
    assert!(kernel.is_broken(broken.id) && broken.legs[0].is_in_sync());
    pass(&mut kernel, Duration::from_secs(1));
    assert!(kernel.failed_writes() > 0);
}

#[test]
fn a_re_add_is_refused_while_the_old_member_is_bound_and_copies_only_what_changed() {
    let (mut kernel, world) = mirror();
    let id = array(&mut kernel).id;
    kernel.remove_namespace(&world.nqn("vol1-b"));
    pass(&mut kernel, Duration::from_secs(2));
    kernel.restore_namespace(&world.nqn("vol1-b"));
    pass(&mut kernel, Duration::from_secs(1));
    let device = identity(&mut kernel, &world, "vol1-b");
    assert_eq!(device.device.as_str(), "nvme1n2", "its old name is still held by MD");
    let re_add = HostAction::ReAddLeg { array: id, device, member: None, faulty: None };
    let refused = kernel.act(&re_add).outcome;
    assert!(matches!(refused, Outcome::Refused(RefusedWhy::ReAddNotPossible { .. })));
    let snapshot = array(&mut kernel);
    let faulty = snapshot.legs.iter().position(|l| l.is_faulty()).unwrap();
    kernel.act(&HostAction::RemoveLeg { array: id, leg: leg(&snapshot, faulty) });
    assert_eq!(kernel.act(&re_add).outcome, Outcome::Changed);
    pass(&mut kernel, Duration::from_secs(4));
    assert_eq!(kernel.picture(id).as_deref(), Some("[UU]"), "a full copy takes eight seconds");
    assert_eq!(kernel.verify_data(), Vec::<String>::new());
}

#[test]
fn a_leg_is_not_re_addable_once_another_one_took_its_place() {
    let (mut kernel, world) = mirror();
    let id = array(&mut kernel).id;
    kernel.remove_namespace(&world.nqn("vol1-b"));
    pass(&mut kernel, Duration::from_secs(2));
    let mut world = world;
    world.kernel = kernel;
    world.connected_by_hand("vol1-c");
    let mut kernel = world.kernel.clone();
    pass(&mut kernel, Duration::from_secs(1));
    let device = identity(&mut kernel, &world, "vol1-c");
    assert_eq!(kernel.act(&HostAction::AddLeg { array: id, device }).outcome, Outcome::Changed);
    pass(&mut kernel, Duration::from_secs(12));
    assert_eq!(kernel.picture(id).as_deref(), Some("[UU]"));
    kernel.restore_namespace(&world.nqn("vol1-b"));
    pass(&mut kernel, Duration::from_secs(1));
    let snapshot = array(&mut kernel);
    let faulty = snapshot.legs.iter().position(|l| l.is_faulty()).unwrap();
    kernel.act(&HostAction::RemoveLeg { array: id, leg: leg(&snapshot, faulty) });
    let device = identity(&mut kernel, &world, "vol1-b");
    let re_add = HostAction::ReAddLeg { array: id, device, member: None, faulty: None };
    let refused = kernel.act(&re_add).outcome;
    assert!(matches!(refused, Outcome::Refused(RefusedWhy::ReAddNotPossible { .. })));
    assert_eq!(kernel.verify_data(), Vec::<String>::new());
}

#[test]
fn a_stale_leg_that_counts_as_good_is_seen_as_data_loss() {
    let (mut kernel, world) = mirror();
    pass(&mut kernel, Duration::from_secs(5));
    assert_eq!(kernel.verify_data(), Vec::<String>::new());
    kernel.corrupt(&world.namespace("vol1-b"));
    assert!(!kernel.verify_data().is_empty());
}

#[test]
fn a_spare_added_while_a_good_leg_wishes_for_a_replacement_becomes_just_that() {
    let (_, mut world) = mirror();
    world.hiccup("vol1-a");
    world.connected_by_hand("vol1-c");
    let mut kernel = world.kernel.clone();
    pass(&mut kernel, Duration::from_secs(1));
    let id = array(&mut kernel).id;
    let device = identity(&mut kernel, &world, "vol1-c");
    kernel.act(&HostAction::AddLeg { array: id, device });
    pass(&mut kernel, Duration::from_secs(1));
    let snapshot = array(&mut kernel);
    let new = snapshot.legs.last().unwrap();
    assert!(new.flags.has(LegFlag::Replacement) && new.slot == snapshot.legs[0].slot);
    assert_eq!(snapshot.sync_action.known(), Some(&SyncAction::Recover));
    pass(&mut kernel, Duration::from_secs(12));
    assert!(array(&mut kernel).legs[0].is_faulty(), "the good copy was dropped");
}

#[test]
fn a_lost_path_leaves_the_leg_in_sync_and_the_writer_waiting() {
    let (mut kernel, world) = mirror();
    kernel.lose_path(&world.nqn("vol1-b"));
    pass(&mut kernel, Duration::from_secs(60));
    let id = array(&mut kernel).id;
    assert_eq!(kernel.picture(id).as_deref(), Some("[UU]"));
    pass(&mut kernel, Duration::from_secs(600));
    assert_eq!(kernel.picture(id).as_deref(), Some("[U_]"), "the controllers gave up");
    assert_eq!(kernel.failed_writes(), 0);
}

#[test]
fn an_idle_leg_whose_device_is_gone_is_never_noticed() {
    let (_, world) = mirror();
    let mut kernel = world.kernel.clone();
    kernel.set_workload(None);
    kernel.remove_namespace(&world.nqn("vol1-b"));
    pass(&mut kernel, Duration::from_secs(3600));
    let id = array(&mut kernel).id;
    assert_eq!(kernel.picture(id).as_deref(), Some("[UU]"));
}

#[test]
fn shrinking_numbers_the_remaining_slots_anew() {
    let setup = Setup {
        arrays: vec![ArraySetup { legs: 3, ..ArraySetup::mirror("vol1") }],
        ..Setup::default()
    };
    let (mut kernel, _) = kernel(&setup);
    let id = array(&mut kernel).id;
    let shrink = HostAction::SetRaidDisks { array: id, raid_disks: 2 };
    assert!(matches!(kernel.act(&shrink).outcome, Outcome::Retry { .. }), "no slot is free");
    fail(&mut kernel, 0);
    pass(&mut kernel, Duration::from_millis(10));
    let snapshot = array(&mut kernel);
    kernel.act(&HostAction::RemoveLeg { array: id, leg: leg(&snapshot, 0) });
    assert_eq!(kernel.act(&shrink).outcome, Outcome::Changed);
    let slots: Vec<_> = array(&mut kernel).legs.iter().map(|l| l.slot.unwrap().0).collect();
    assert_eq!(slots, [0, 1]);
    assert_eq!(kernel.picture(id).as_deref(), Some("[UU]"));
}

#[test]
fn raid10_near_two_keeps_its_data_while_each_pair_has_a_leg() {
    let setup = Setup {
        arrays: vec![ArraySetup {
            legs: 4,
            level: heal_types::Level::Raid10 { layout: 0x102 },
            ..ArraySetup::mirror("vol1")
        }],
        ..Setup::default()
    };
    let (mut kernel, world) = kernel(&setup);
    let id = array(&mut kernel).id;
    kernel.remove_namespace(&world.nqn("vol1-b"));
    kernel.remove_namespace(&world.nqn("vol1-c"));
    pass(&mut kernel, Duration::from_secs(10));
    assert_eq!(kernel.picture(id).as_deref(), Some("[U__U]"));
    assert_eq!((kernel.failed_writes(), kernel.is_broken(id)), (0, false));
    assert_eq!(kernel.verify_data(), Vec::<String>::new());
    kernel.remove_namespace(&world.nqn("vol1-a"));
    pass(&mut kernel, Duration::from_secs(10));
    assert!(kernel.is_broken(id), "the first pair has no leg left");
}
