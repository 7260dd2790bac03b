//! A pulled cable, and everything like it: the application goes on, and the last copy is never
//! risked.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test may end loudly, its helpers too"
)]

use std::time::Duration;

use heal_core::{IsolateAfter, Mode};
use heal_sim::hunt::dice::Dice;
use heal_sim::story;
use heal_sim::{ArraySetup, Gone, LastError, LineKind, Setup, ToolFault, Wiring, World};
use heal_types::{FastIoFail, GracePolicy, HostPort, Level, PathSnapshot};

fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn milliseconds(n: u64) -> Duration {
    Duration::from_millis(n)
}

fn busy(array: ArraySetup) -> Setup {
    Setup { arrays: vec![array], workload: Some(milliseconds(10)), ..Setup::default() }
}

fn mirror() -> ArraySetup {
    let grace = Some(GracePolicy::After(seconds(600)));
    ArraySetup { grace, rebuild: seconds(2), ..ArraySetup::mirror("vol1") }
}

/// A world in which everything has been well for a minute.
fn well(setup: &Setup) -> World {
    let mut world = World::new(setup);
    world.run_for(seconds(60));
    world.begin_story();
    world.kernel.forget_stalls();
    world
}

fn told(name: &str) -> World {
    let world = story::find(name).unwrap().told();
    keeps_every_rule(&world);
    world
}

fn stall(world: &World) -> Duration {
    world.kernel.longest_write(world.array("vol1"))
}

fn lines(world: &World, kind: LineKind, text: &str) -> usize {
    let lines = world.transcript.lines().iter();
    lines.filter(|line| line.kind == kind && line.text.contains(text)).count()
}

/// How often something was done to the array that takes a path away.
fn taken(world: &World) -> usize {
    lines(world, LineKind::Effect, "isolate nvme") + lines(world, LineKind::Effect, " delete nvme")
}

fn keeps_every_rule(world: &World) {
    let broken: Vec<String> =
        world.violations().iter().map(|v| format!("{}: {}", v.name, v.detail)).collect();
    assert!(broken.is_empty(), "{broken:#?}\n{}", world.transcript.text());
}

fn asked_nothing(world: &World) {
    assert_eq!(world.provisioner.request_keys(), 0, "\n{}", world.transcript.text());
}

/// Lets a story end: nothing was lost, nothing failed, everything is whole.
fn whole_without_an_error(world: &mut World) {
    world.run_for(seconds(10));
    let _ = world.run_until(World::is_at_rest, seconds(1800));
    world.run_for(seconds(60));
    world.check_end();
    keeps_every_rule(world);
    assert_eq!(world.kernel.failed_writes(), 0, "\n{}", world.transcript.text());
    for array in names(world) {
        let id = world.array(&array);
        assert!(!world.kernel.is_broken(id), "\n{}", world.transcript.text());
        assert!(!world.picture(&array).contains('_'), "\n{}", world.transcript.text());
    }
    assert_eq!(world.kernel.verify_data(), Vec::<String>::new());
}

fn names(world: &World) -> Vec<String> {
    let all = world.kernel.snapshot().arrays;
    all.iter().filter_map(|array| array.alias.as_ref().map(ToString::to_string)).collect()
}

fn pulled_for(world: &mut World, link: &str, time: Duration) {
    world.pull(link);
    world.run_for(time);
    world.plug(link);
}

fn path(world: &World, replica: &str) -> Option<PathSnapshot> {
    let id = world.namespace(replica);
    let mut kernel = world.kernel.clone();
    let found = kernel.look().namespaces.into_iter().find(|namespace| namespace.goes_by(&id))?;
    found.paths.first().cloned()
}

fn armed(world: &World, replica: &str) -> FastIoFail {
    *path(world, replica).unwrap().fast_io_fail.known().unwrap()
}

#[test]
fn a_rehearsal_isolates_every_leg_that_can_be_spared_and_changes_nothing() {
    let world = well(&busy(mirror()));
    let now = world.now();
    let machine = world.machine(world.array("vol1")).unwrap();
    let before = machine.explain(now);
    assert_eq!(machine.rehearse(now), 2);
    assert_eq!(machine.explain(now), before);
}

#[test]
fn a_pulled_cable_stops_the_application_for_a_third_of_a_second_and_costs_no_replacement() {
    let world = told("cable-pulled");
    assert!(stall(&world) < milliseconds(400), "{:?}", stall(&world));
    assert_eq!(world.kernel.failed_writes(), 0);
    assert!(world.is_in_sync("vol1-b"));
    asked_nothing(&world);
}

#[test]
fn with_nothing_waited_for_it_is_a_tenth() {
    let world = told("cable-pulled-no-wait");
    assert!(stall(&world) < milliseconds(120), "{:?}", stall(&world));
    assert!(world.is_in_sync("vol1-b"));
    asked_nothing(&world);
}

#[test]
fn a_policy_of_never_and_an_array_without_a_bitmap_wait_for_the_cable() {
    for name in ["cable-pulled-never", "no-bitmap"] {
        let world = told(name);
        assert!(stall(&world) > seconds(10), "{name}: {:?}", stall(&world));
        assert_eq!(taken(&world), 0, "{name}");
        assert_eq!(world.kernel.failed_writes(), 0, "{name}");
        assert!(world.is_in_sync("vol1-b"), "{name}: MD never lost it");
        assert_eq!(lines(&world, LineKind::Array, "[U_]"), 0, "{name}");
    }
}

#[test]
fn a_held_or_observed_array_keeps_its_leg_and_is_not_armed() {
    for name in ["isolation-held", "isolation-observed"] {
        let world = told(name);
        assert_eq!(taken(&world), 0, "{name}");
        assert_eq!(lines(&world, LineKind::Array, "[U_]"), 0, "{name}");
        assert_eq!(world.kernel.failed_writes(), 0, "{name}");
        assert_eq!(lines(&world, LineKind::Audit, "frees the application"), 0, "{name}");
    }
}

#[test]
fn an_array_that_is_put_on_hold_is_disarmed_even_by_a_daemon_that_did_not_arm_it() {
    let mut world = well(&busy(mirror()));
    assert_eq!(armed(&world, "vol1-b"), FastIoFail::After(1));
    world.crash_daemon();
    world.run_for(seconds(10));
    world.operator_hold("vol1", "changing a switch");
    world.run_for(seconds(2));
    assert_eq!(armed(&world, "vol1-b"), FastIoFail::Off);
    // The anchor is lost for good, and then the other path: it has to wait.
    world.namespace_removed("vol1-a");
    world.run_for(seconds(1));
    pulled_for(&mut world, "to-vol1-b", seconds(20));
    world.run_for(seconds(20));
    assert!(!world.kernel.is_broken(world.array("vol1")), "\n{}", world.transcript.text());
    keeps_every_rule(&world);
}

#[test]
fn one_leg_is_the_anchor_and_the_others_are_armed() {
    let world = well(&busy(ArraySetup { legs: 3, ..mirror() }));
    let values = ["vol1-a", "vol1-b", "vol1-c"].map(|replica| armed(&world, replica));
    assert_eq!(values, [FastIoFail::Off, FastIoFail::After(1), FastIoFail::After(1)]);
}

#[test]
fn every_pair_of_a_raid10_has_an_anchor_of_its_own() {
    let setup = busy(ArraySetup { legs: 4, level: Level::Raid10 { layout: 0x102 }, ..mirror() });
    let mut world = well(&setup);
    let values = ["vol1-a", "vol1-b", "vol1-c", "vol1-d"].map(|replica| armed(&world, replica));
    let (off, on) = (FastIoFail::Off, FastIoFail::After(1));
    assert_eq!(values, [off, on, off, on]);
    // One leg of each pair at once.
    world.pull("to-vol1-b");
    world.pull("to-vol1-c");
    world.run_for(seconds(10));
    // Each of the two isolations tells the other one's leg to queue, until it is armed again.
    assert!(stall(&world) < seconds(2), "{:?}", stall(&world));
    world.plug("to-vol1-b");
    world.plug("to-vol1-c");
    whole_without_an_error(&mut world);
    asked_nothing(&world);
}

#[test]
fn both_legs_pulled_at_any_distance_lose_nothing_and_break_nothing() {
    let mut dice = Dice::new(2026);
    for round in 0..60 {
        let apart = milliseconds(dice.below(500)) + Duration::from_micros(dice.below(1000));
        let back = milliseconds(dice.below(3000));
        let first = if dice.below(2) == 0 {
            ["to-vol1-a", "to-vol1-b"]
        } else {
            ["to-vol1-b", "to-vol1-a"]
        };
        let mut setup = busy(mirror());
        let after = [0, 100, 250, 250][usize::try_from(dice.below(4)).unwrap()];
        setup.policy.isolate_after = IsolateAfter::After(milliseconds(after));
        let mut world = well(&setup);
        world.say(format!("round {round}: {apart:?} apart, isolated after {after} ms"));
        world.run_for(milliseconds(dice.below(3000)));
        world.pull(first[0]);
        world.run_for(apart);
        world.pull(first[1]);
        world.run_for(seconds(10));
        world.plug(first[usize::try_from(dice.below(2)).unwrap()]);
        world.run_for(back);
        world.plug(first[0]);
        world.plug(first[1]);
        whole_without_an_error(&mut world);
        asked_nothing(&world);
    }
}

#[test]
fn the_second_leg_lost_before_the_first_is_isolated_means_that_neither_is_failed() {
    for apart in [0, 1, 50, 200, 249] {
        let mut world = well(&busy(mirror()));
        world.pull("to-vol1-b");
        world.run_for(milliseconds(apart));
        world.pull("to-vol1-a");
        world.run_for(seconds(10));
        world.plug("to-vol1-a");
        world.plug("to-vol1-b");
        whole_without_an_error(&mut world);
        assert_eq!(taken(&world), 0, "{apart}\n{}", world.transcript.text());
        assert_eq!(lines(&world, LineKind::Array, "_"), 0, "{apart}");
    }
}

#[test]
fn the_last_leg_is_left_alone_when_its_cable_is_pulled() {
    let world = told("last-cable-pulled");
    assert_eq!(taken(&world), 1, "only the first one\n{}", world.transcript.text());
    assert_eq!(world.kernel.failed_writes(), 0);
    assert!(stall(&world) > seconds(10), "its I/O waits: {:?}", stall(&world));
    assert_eq!(world.picture("vol1"), "[UU]");
    asked_nothing(&world);
}

#[test]
fn one_of_two_paths_is_no_reason_to_touch_the_array() {
    let world = told("one-path-of-two");
    assert_eq!(taken(&world), 0);
    assert_eq!(lines(&world, LineKind::Audit, ""), 0, "\n{}", world.transcript.text());
    assert_eq!(lines(&world, LineKind::Array, "_"), 0);
    assert_eq!(world.kernel.failed_writes(), 0);
    // Left to itself, the kernel needs its keep-alive to leave a path that is dead and says `live`.
    assert_eq!(lines(&world, LineKind::Daemon, "cut nvme"), 2, "\n{}", world.transcript.text());
    assert!(stall(&world) < milliseconds(500), "{:?}", stall(&world));
}

#[test]
fn the_application_does_not_wait_for_a_leg_that_is_still_filled() {
    let mut world = well(&busy(ArraySetup { rebuild: seconds(600), ..mirror() }));
    world.removed_by_hand("vol1-b");
    world.namespace_removed("vol1-b");
    world.run_for(seconds(1));
    world.namespace_restored("vol1-b");
    world.run_for(seconds(30));
    assert_eq!(world.picture("vol1"), "[U_]", "\n{}", world.transcript.text());
    world.kernel.forget_stalls();
    world.pull("to-vol1-b");
    world.run_for(seconds(20));
    assert_eq!(lines(&world, LineKind::Daemon, "cut nvme"), 1, "\n{}", world.transcript.text());
    assert!(stall(&world) < seconds(3), "{:?}", stall(&world));
    world.plug("to-vol1-b");
    whole_without_an_error(&mut world);
}

#[test]
fn both_paths_of_a_leg_pulled_is_a_leg_without_a_path() {
    let mut world = well(&busy(ArraySetup { paths: 2, ..mirror() }));
    world.pull("to-vol1-b");
    world.run_for(seconds(1));
    world.pull("to-vol1-b2");
    world.run_for(seconds(5));
    assert_eq!(world.picture("vol1"), "[U_]", "\n{}", world.transcript.text());
    assert!(stall(&world) < seconds(2), "{:?}", stall(&world));
    world.plug("to-vol1-b");
    world.plug("to-vol1-b2");
    whole_without_an_error(&mut world);
    asked_nothing(&world);
}

#[test]
fn a_host_that_lost_its_only_link_isolates_nothing_and_says_so_once() {
    let world = told("host-cut-off");
    assert_eq!(taken(&world), 0);
    assert_eq!(world.kernel.failed_writes(), 0);
    assert_eq!(lines(&world, LineKind::Daemon, "alarm:"), 1);
    assert_eq!(lines(&world, LineKind::Daemon, "storm:"), 0, "one alarm is enough");
    for n in 1..=8 {
        assert_eq!(world.picture(&format!("vol{n}")), "[UU]");
    }
    asked_nothing(&world);
}

#[test]
fn one_of_two_fabrics_lost_under_eight_arrays_frees_all_of_them() {
    let array = |n: u16| ArraySetup {
        grace: Some(GracePolicy::After(seconds(600))),
        ..ArraySetup::mirror(&format!("vol{n}"))
    };
    let setup = Setup {
        arrays: (1..=8).map(array).collect(),
        wiring: Wiring::TwoFabrics,
        workload: Some(milliseconds(50)),
        ..Setup::default()
    };
    let mut world = well(&setup);
    pulled_for(&mut world, "eth1", seconds(20));
    for n in 1..=8 {
        let id = world.array(&format!("vol{n}"));
        let stall = world.kernel.longest_write(id);
        assert!(stall < milliseconds(500), "vol{n}: {stall:?}\n{}", world.transcript.text());
    }
    whole_without_an_error(&mut world);
    asked_nothing(&world);
}

#[test]
fn a_leg_that_flaps_twenty_times_stays_out_and_is_whole_after_the_hold_down() {
    let world = told("flapping");
    assert_eq!(world.picture("vol1"), "[UU]", "\n{}", world.transcript.text());
    assert!(world.is_in_sync("vol1-b"));
    assert_eq!(world.kernel.failed_writes(), 0);
    assert_eq!(lines(&world, LineKind::Effect, "isolate nvme"), 4, "the limit is three");
    assert_eq!(lines(&world, LineKind::Effect, "re-add"), 4, "three times, and at the end");
    assert!(lines(&world, LineKind::Audit, "comes and goes") > 0);
    asked_nothing(&world);
}

#[test]
fn a_black_hole_is_found_by_the_sockets_long_before_the_keep_alive() {
    let world = told("black-hole");
    assert!(stall(&world) < seconds(3), "{:?}", stall(&world));
    assert_eq!(world.picture("vol1"), "[UU]");
    asked_nothing(&world);
}

#[test]
fn a_frozen_target_and_a_closed_ana_group_are_found_by_io_that_does_not_move() {
    for name in ["target-frozen", "ana-inaccessible"] {
        let world = told(name);
        assert!(stall(&world) < seconds(12), "{name}: {:?}", stall(&world));
        assert_eq!(world.picture("vol1"), "[UU]", "{name}");
        assert!(world.is_in_sync("vol1-b"), "{name}\n{}", world.transcript.text());
        asked_nothing(&world);
    }
}

#[test]
fn an_idle_leg_that_nothing_gets_through_to_is_isolated_and_not_failed_before_somebody_writes() {
    let mut world = well(&Setup { workload: None, ..busy(mirror()) });
    pulled_for(&mut world, "to-vol1-b", seconds(30));
    assert_eq!(world.picture("vol1"), "[UU]", "MD was told nothing");
    whole_without_an_error(&mut world);
    asked_nothing(&world);
}

#[test]
fn a_second_leg_of_three_is_isolated_as_well() {
    let mut world = well(&busy(ArraySetup { legs: 3, ..mirror() }));
    world.pull("to-vol1-b");
    world.run_for(seconds(2));
    world.pull("to-vol1-a");
    world.run_for(seconds(5));
    assert_eq!(world.picture("vol1"), "[__U]", "\n{}", world.transcript.text());
    assert!(stall(&world) < seconds(1), "{:?}", stall(&world));
    world.plug("to-vol1-a");
    world.plug("to-vol1-b");
    whole_without_an_error(&mut world);
    asked_nothing(&world);
}

/// The anchor, which queues, is connecting and does not fail: its target reset it, and there was no
/// time to move the anchor.
fn stuck_behind_the_anchor() -> World {
    let mut world = well(&busy(mirror()));
    world.kernel.set_drain(Duration::ZERO);
    world.target_serving("vol1-a", false);
    world
}

#[test]
fn io_that_is_stuck_behind_a_connecting_controller_is_freed_by_deleting_it() {
    let mut world = stuck_behind_the_anchor();
    world.run_for(seconds(20));
    assert_eq!(lines(&world, LineKind::Effect, " delete nvme0"), 1, "{}", world.transcript.text());
    assert!(stall(&world) < seconds(5), "{:?}\n{}", stall(&world), world.transcript.text());
    assert_eq!(world.picture("vol1"), "[_U]");
    let lapsed = &world.record(world.array("vol1")).unwrap().lapsed;
    assert_eq!(lapsed.len(), 1, "the reconnect is ours");
    world.target_serving("vol1-a", true);
    whole_without_an_error(&mut world);
    assert!(world.record(world.array("vol1")).unwrap().lapsed.is_empty());
    assert!(world.is_in_sync("vol1-a"));
    asked_nothing(&world);
}

#[test]
fn a_deleted_controller_is_connected_again_with_longer_and_longer_pauses() {
    let mut world = stuck_behind_the_anchor();
    world.run_for(seconds(300));
    let tries = lines(&world, LineKind::Effect, "connect nqn.2014-08.com.example:vol1-a");
    assert!((5..25).contains(&tries), "{tries}\n{}", world.transcript.text());
    keeps_every_rule(&world);
}

#[test]
fn nothing_is_owed_to_a_controller_whose_subsystem_is_no_replica_any_more() {
    let mut world = stuck_behind_the_anchor();
    world.run_for(seconds(20));
    let id = world.array("vol1");
    assert_eq!(world.record(id).unwrap().lapsed.len(), 1, "\n{}", world.transcript.text());
    world.withdrawn("vol1-a");
    world.volume_stale("vol1");
    world.run_for(seconds(60));
    assert!(world.record(id).unwrap().lapsed.is_empty(), "\n{}", world.transcript.text());
    let tries = lines(&world, LineKind::Effect, "connect nqn.2014-08.com.example:vol1-a");
    world.run_for(seconds(120));
    let later = lines(&world, LineKind::Effect, "connect nqn.2014-08.com.example:vol1-a");
    assert_eq!(tries, later);
    keeps_every_rule(&world);
}

#[test]
fn nothing_is_owed_to_a_controller_of_an_array_that_was_stopped() {
    let mut world = stuck_behind_the_anchor();
    world.run_for(seconds(20));
    world.array_stopped("vol1");
    world.run_for(seconds(60));
    let tries = lines(&world, LineKind::Effect, "connect nqn.2014-08.com.example:vol1-a");
    world.run_for(seconds(120));
    let later = lines(&world, LineKind::Effect, "connect nqn.2014-08.com.example:vol1-a");
    assert_eq!(tries, later, "\n{}", world.transcript.text());
    keeps_every_rule(&world);
}

#[test]
fn an_operator_who_holds_the_array_stops_the_deletion_as_well() {
    let mut world = well(&busy(mirror()));
    world.operator_hold("vol1", "changing a switch");
    world.target_serving("vol1-a", false);
    world.run_for(seconds(60));
    assert_eq!(taken(&world), 0);
    assert_eq!(world.picture("vol1"), "[UU]");
    world.target_serving("vol1-a", true);
    world.operator_resume("vol1");
    whole_without_an_error(&mut world);
}

#[test]
fn bad_blocks_are_said_once_and_said_to_be_over_when_the_application_wrote_there() {
    let world = told("bad-blocks");
    assert_eq!(lines(&world, LineKind::Audit, "must not read"), 1);
    assert_eq!(lines(&world, LineKind::Audit, "every block is readable again"), 1);
    assert!(world.is_at_rest());
}

#[test]
fn nothing_is_done_about_bad_blocks_within_their_grace_and_nothing_rests_on_their_leg() {
    let mut world = well(&busy(mirror()));
    world.stubborn_bad_block("vol1-b");
    world.run_for(seconds(300));
    assert_eq!(lines(&world, LineKind::Effect, ""), 0, "\n{}", world.transcript.text());
    assert_eq!(lines(&world, LineKind::Audit, "must not read"), 1, "said once");
    keeps_every_rule(&world);
    // It is no survivor: whatever becomes of the other one, nothing rests on this leg.
    pulled_for(&mut world, "to-vol1-a", seconds(20));
    assert_eq!(lines(&world, LineKind::Effect, "isolate nvme"), 0);
    keeps_every_rule(&world);
}

/// Prints the story when a test fails over it.
struct Tell<'a>(&'a World, usize);

impl Drop for Tell<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("crash at boundary {}\n{}", self.1, self.0.transcript.text());
        }
    }
}

/// Tells something once for every place where a crash can matter.
fn crash_everywhere(begin: impl Fn() -> World, tell: impl Fn(&mut World), check: impl Fn(&World)) {
    let begin = || {
        let mut world = begin();
        world.kernel.set_workload(Some(milliseconds(100)));
        world
    };
    let mut calm = begin();
    let before = calm.boundaries();
    tell(&mut calm);
    let all = calm.boundaries();
    assert!(all > before + 8, "the story has places to crash at: {before}..{all}");
    for boundary in before + 1..=all {
        let mut world = begin();
        world.crash_at(boundary);
        tell(&mut world);
        let _tell = Tell(&world.clone(), boundary);
        whole_without_an_error(&mut world);
        check(&world);
    }
}

#[test]
fn a_crash_at_any_effect_boundary_of_an_isolation_costs_a_moment_and_nothing_else() {
    crash_everywhere(
        || well(&busy(mirror())),
        |world| {
            pulled_for(world, "to-vol1-b", seconds(30));
            world.run_for(seconds(40));
        },
        |world| {
            assert!(world.is_in_sync("vol1-b"));
            asked_nothing(world);
        },
    );
}

#[test]
fn a_crash_at_any_effect_boundary_of_a_deletion_loses_no_reconnect() {
    crash_everywhere(
        stuck_behind_the_anchor,
        |world| {
            world.run_for(seconds(30));
            world.target_serving("vol1-a", true);
            world.run_for(seconds(60));
        },
        |world| {
            assert!(world.is_in_sync("vol1-a"), "\n{}", world.transcript.text());
            assert!(world.record(world.array("vol1")).unwrap().lapsed.is_empty());
            asked_nothing(world);
        },
    );
}

#[test]
fn tools_that_fail_in_an_isolation_cost_time_only() {
    for fault in
        [ToolFault::Fails, ToolFault::Hangs, ToolFault::HangsAfterDoing, ToolFault::DoneUnheard]
    {
        for verb in ["isolate_leg", "set_fast_io_fail"] {
            let mut world = well(&busy(mirror()));
            world.spoil_next(verb, fault);
            pulled_for(&mut world, "to-vol1-b", seconds(60));
            whole_without_an_error(&mut world);
            assert!(world.is_in_sync("vol1-b"), "{verb} {fault:?}");
        }
    }
}

#[test]
fn an_error_that_hits_the_last_leg_is_known_for_what_it_is() {
    let mut world = well(&busy(mirror()));
    world.namespace_removed("vol1-a");
    world.run_for(seconds(2));
    world.namespace_removed("vol1-b");
    world.run_for(seconds(2));
    let id = world.array("vol1");
    assert_eq!(world.kernel.broken_by(id), Some(LastError::DeviceGone(Gone::Unexported)));
    keeps_every_rule(&world);
}

#[test]
fn observing_arms_nothing() {
    let mut setup = busy(mirror());
    setup.policy.mode = Mode::Observe;
    let world = well(&setup);
    for replica in ["vol1-a", "vol1-b"] {
        assert_eq!(armed(&world, replica), FastIoFail::Off);
    }
}

/// No isolation is begun while a copy is under way, but the leg that has to go is armed like any
/// other.
#[test]
fn a_leg_that_is_copied_beside_costs_no_more_than_a_keep_alive_when_it_loses_its_path() {
    for (leg, link) in [("vol1-a", "to-vol1-a"), ("vol1-b", "to-vol1-b")] {
        let mut world = well(&busy(ArraySetup { rebuild: seconds(600), ..mirror() }));
        world.terminating(leg);
        world.volume_stale("vol1");
        world.run_for(seconds(700));
        assert_eq!(lines(&world, LineKind::Effect, "replace nvme"), 1, "{leg}");
        world.kernel.forget_stalls();
        world.pull(link);
        world.run_for(seconds(1200));
        let stall = stall(&world);
        assert!(stall < seconds(10), "{leg}: {stall:?}\n{}", world.transcript.text());
        world.plug(link);
        whole_without_an_error(&mut world);
    }
}
