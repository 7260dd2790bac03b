//! The invariants find what they are there to find: a check that can never fail proves nothing.
#![allow(clippy::unwrap_used, reason = "a test may end loudly, its helpers too")]

use std::time::Duration;

use heal_core::record::{Owed, OwedMessage};
use heal_core::{EffectId, IncidentId};
use heal_sim::invariants as rules;
use heal_sim::{Setup, World};
use heal_types::{
    CallKey, Condition, DeviceIdentity, FailWhy, HostAction, LegRef, ReplicaId, VolumeId, WallTime,
};

fn well() -> World {
    let mut world = World::new(&Setup::default());
    world.run_for(Duration::from_secs(5));
    world
}

fn fail_first_leg(world: &World) -> HostAction {
    let array = world.kernel.snapshot().arrays[0].clone();
    HostAction::FailLeg {
        array: array.id,
        leg: LegRef {
            device: array.legs[0].device.clone(),
            slot: array.legs[0].slot,
            md_device: None,
            identity: None,
        },
        why: FailWhy::NoLongerWanted,
    }
}

fn device(world: &World, replica: &str) -> DeviceIdentity {
    let id = world.namespace(replica);
    let namespaces = world.kernel.snapshot().namespaces;
    namespaces.iter().find_map(|namespace| namespace.identity(&id)).unwrap()
}

#[test]
fn failing_a_leg_is_fine_until_it_is_the_last_one() {
    let mut world = well();
    let action = fail_first_leg(&world);
    assert_eq!(rules::never_acts_on_last_in_sync_leg(&world, &action), Ok(()));
    world.path_lost("vol1-b");
    assert!(rules::never_acts_on_last_in_sync_leg(&world, &action).is_err());
}

#[test]
fn adding_what_nobody_has_read_is_found() {
    let mut world = well();
    world.connected_by_hand("vol1-c");
    world.run_for(Duration::from_secs(1));
    let action =
        HostAction::AddLeg { array: world.array("vol1"), device: device(&world, "vol1-c") };
    assert!(rules::never_adds_unverified_device(&world, &action).is_err());
}

#[test]
fn an_act_without_an_intent_is_found() {
    let world = well();
    let id = EffectId {
        incident: IncidentId("00000000-0000-0000-0000-000000000000".parse().unwrap()),
        number: 4711,
    };
    let checked = rules::every_effect_has_a_durable_intent(&world, world.array("vol1"), id);
    assert!(checked.is_err());
}

#[test]
fn confirming_the_removal_of_a_leg_in_use_is_found() {
    let world = well();
    let check = |name: &str| {
        let replica = ReplicaId::new(name).unwrap();
        rules::deletion_confirmed_only_when_leg_is_provably_out(&world, &replica)
    };
    assert!(check("vol1-a").is_err());
    assert_eq!(check("vol1-c"), Ok(()));
}

#[test]
fn calling_a_lost_leg_available_is_found() {
    let mut world = well();
    let owed = Owed {
        key: CallKey::new("k").unwrap(),
        volume: VolumeId::new("vol1").unwrap(),
        replica: ReplicaId::new("vol1-b").unwrap(),
        message: OwedMessage::Report(Condition::Available),
        since: WallTime(0),
    };
    assert_eq!(rules::available_reported_only_when_in_sync(&world, &owed), Ok(()));
    world.namespace_removed("vol1-b");
    world.run_for(Duration::from_secs(1));
    assert!(rules::available_reported_only_when_in_sync(&world, &owed).is_err());
}

#[test]
fn touching_an_array_without_a_volume_is_found() {
    let setup = Setup { arrays: vec![heal_sim::ArraySetup::local("scratch")], ..Setup::default() };
    let world = World::new(&setup);
    let action = fail_first_leg(&world);
    let checked = rules::foreign_arrays_untouched(&world, world.array("scratch"), &action);
    assert!(checked.is_err());
}

#[test]
fn an_act_on_a_held_array_is_found() {
    let mut world = well();
    let array = world.array("vol1");
    assert_eq!(rules::held_or_observed_array_gets_no_effect(&world, array), Ok(()));
    world.operator_hold("vol1", "maintenance");
    assert!(rules::held_or_observed_array_gets_no_effect(&world, array).is_err());
}

#[test]
fn an_array_that_is_not_whole_in_the_end_is_found() {
    let mut world = well();
    assert_eq!(rules::heals_eventually(&world), Ok(()));
    assert_eq!(rules::report_is_never_lost(&world), Ok(()));
    world.provisioner_down(true);
    world.namespace_removed("vol1-b");
    world.run_for(Duration::from_secs(5));
    assert!(rules::heals_eventually(&world).is_err());
    assert!(rules::report_is_never_lost(&world).is_err());
}

#[test]
fn a_controller_that_is_armed_for_nobody_is_found() {
    let mut world = well();
    assert_eq!(rules::what_leads_to_no_leg_is_not_armed(&world), Ok(()));
    world.namespace_removed("vol1-b");
    assert!(rules::what_leads_to_no_leg_is_not_armed(&world).is_err());
    world.run_for(Duration::from_secs(2));
    assert_eq!(rules::what_leads_to_no_leg_is_not_armed(&world), Ok(()));
}

#[test]
fn a_block_that_is_gone_is_found() {
    let mut world = well();
    assert_eq!(rules::no_data_is_lost(&world), Ok(()));
    let id = world.namespace("vol1-a");
    world.kernel.corrupt(&id);
    assert!(rules::no_data_is_lost(&world).is_err());
    world.check_end();
    assert!(world.violations().iter().any(|v| v.name == "no_data_is_lost"));
}

#[test]
fn the_end_of_a_grace_period_survives_a_restart_and_another_boot() {
    for boots in [false, true] {
        let mut world = well();
        world.begin_story();
        world.namespace_removed("vol1-b");
        world.run_for(Duration::from_secs(10));
        world.crash_daemon();
        if boots {
            world.change_boot();
        }
        world.run_for(Duration::from_secs(15));
        assert_eq!(world.provisioner.request_keys(), 0, "25 s of 30 s");
        world.run_for(Duration::from_secs(8));
        assert_eq!(world.provisioner.request_keys(), 1, "33 s of 30 s");
    }
}

#[test]
fn a_full_disk_stops_everything_but_the_array() {
    let mut world = well();
    world.disk_full(true);
    world.namespace_removed("vol1-b");
    world.run_for(Duration::from_secs(300));
    assert_eq!(world.provisioner.request_keys(), 0);
    assert!(world.kernel.snapshot().arrays[0].legs.len() == 2, "nothing was removed");
    world.disk_full(false);
    assert!(world.run_until(World::is_at_rest, Duration::from_secs(600)));
    world.run_for(Duration::from_secs(60));
    world.check_end();
    assert_eq!(world.violations(), []);
    assert_eq!(world.picture("vol1"), "[UU]");
}

#[test]
fn observing_changes_nothing() {
    let mut setup = Setup::default();
    setup.policy.mode = heal_core::Mode::Observe;
    let mut world = World::new(&setup);
    world.run_for(Duration::from_secs(5));
    world.namespace_removed("vol1-b");
    world.run_for(Duration::from_secs(600));
    assert_eq!(world.violations(), []);
    assert_eq!(world.provisioner.request_keys(), 0);
    assert_eq!(world.picture("vol1"), "[U_]");
}
