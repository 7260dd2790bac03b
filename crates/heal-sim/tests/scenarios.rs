//! Every story as a golden transcript, and what each of them must show in the end.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test may end loudly, its helpers too"
)]

use std::path::PathBuf;
use std::time::Duration;

use heal_sim::World;
use heal_sim::story::{self, STORIES, Story};
use heal_types::ReplicaState;

fn golden(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../../tests/scenarios")
        .join(format!("{name}.txt"))
}

fn as_text(story: &Story, world: &World) -> String {
    format!(
        "# {}\n# Golden transcript of crates/heal-sim: run the tests with UPDATE_GOLDEN=1 after a\n\
         # deliberate change, and review the difference.\n\n{}",
        story.title,
        world.transcript.text()
    )
}

#[expect(clippy::disallowed_methods, reason = "golden files are rewritten on demand")]
fn write(path: &PathBuf, text: &str) {
    std::fs::write(path, text).unwrap();
}

/// The first line in which two texts differ.
fn first_difference(expected: &str, got: &str) -> String {
    let mut expected = expected.lines();
    for (number, line) in got.lines().enumerate() {
        let wanted = expected.next();
        if wanted != Some(line) {
            let wanted = wanted.unwrap_or("(the end)");
            return format!("line {}:\n  expected {wanted}\n  got      {line}", number + 1);
        }
    }
    "the text ends earlier".to_owned()
}

fn told(name: &str) -> World {
    let story = story::find(name).unwrap();
    let world = story.told();
    let broken: Vec<String> =
        world.violations().iter().map(|v| format!("{}: {}", v.name, v.detail)).collect();
    assert!(broken.is_empty(), "{name}: {broken:#?}\n{}", world.transcript.text());
    world
}

fn says(world: &World, sentence: &str) -> bool {
    world.transcript.text().contains(sentence)
}

#[test]
fn every_story_reads_as_it_did_before() {
    let update = std::env::var_os("UPDATE_GOLDEN").is_some();
    let mut different = Vec::new();
    for story in STORIES {
        let text = as_text(story, &story.told());
        let path = golden(story.name);
        let expected = std::fs::read_to_string(&path).unwrap_or_default();
        if update {
            write(&path, &text);
        } else if expected != text {
            different.push(format!("{}: {}", story.name, first_difference(&expected, &text)));
        }
    }
    assert!(different.is_empty(), "{}", different.join("\n"));
}

#[test]
fn every_story_keeps_every_rule() {
    let mut broken = Vec::new();
    for story in STORIES {
        for violation in story.told().violations() {
            broken.push(format!("{}: {}: {}", story.name, violation.name, violation.detail));
        }
    }
    assert!(broken.is_empty(), "{broken:#?}");
}

#[test]
fn a_story_told_twice_is_the_same_story() {
    for story in STORIES {
        assert_eq!(story.told().transcript.text(), story.told().transcript.text());
    }
}

#[test]
fn a_dead_replica_is_replaced_by_exactly_one_grant() {
    let world = told("replica-replaced");
    assert_eq!(world.picture("vol1"), "[UU]");
    assert!(world.is_in_sync("vol1-c"));
    assert_eq!(world.provisioner.grants(), 1);
    assert_eq!(world.replica_state("vol1-c"), Some(ReplicaState::Available));
    assert_eq!(world.replica_state("vol1-b"), None, "its removal was confirmed");
    assert_eq!(world.kernel.failed_writes(), 0);
}

#[test]
fn a_leg_that_returns_in_time_costs_no_replacement() {
    let world = told("leg-returns");
    assert_eq!(world.picture("vol1"), "[UU]");
    assert!(world.is_in_sync("vol1-b"));
    assert_eq!(world.provisioner.request_keys(), 0);
    assert_eq!(world.replica_state("vol1-b"), Some(ReplicaState::Available));
}

#[test]
fn a_replacement_that_was_not_asked_for_is_used() {
    let world = told("replaced-by-itself");
    assert!(world.is_in_sync("vol1-c"));
    assert_eq!(world.provisioner.request_keys(), 0);
}

#[test]
fn an_hour_without_a_provisioner_costs_an_hour_and_nothing_else() {
    let world = told("provisioner-down");
    assert_eq!(world.picture("vol1"), "[UU]");
    assert_eq!(world.provisioner.grants(), 1);
}

#[test]
fn a_returned_leg_is_taken_back_while_the_provisioner_is_down() {
    let world = told("returns-while-provisioner-down");
    assert!(world.is_in_sync("vol1-b"));
    assert_eq!(world.provisioner.grants(), 0);
    assert_eq!(world.replica_state("vol1-b"), Some(ReplicaState::Available));
}

#[test]
fn a_refused_request_is_asked_again_under_a_new_key() {
    let world = told("request-refused");
    assert_eq!(world.picture("vol1"), "[UU]");
    assert_eq!(world.provisioner.grants(), 1);
}

#[test]
fn a_replacement_that_dies_is_replaced_as_well() {
    let world = told("replacement-fails");
    assert_eq!(world.picture("vol1"), "[UU]");
    assert!(world.is_in_sync("vol1-d"));
}

#[test]
fn a_second_lost_leg_is_replaced_after_the_first() {
    let world = told("second-leg-fails");
    assert_eq!(world.picture("vol1"), "[UUU]");
    assert_eq!(world.provisioner.grants(), 2);
}

#[test]
fn two_legs_that_die_at_once_are_both_replaced_or_taken_back() {
    let world = told("two-legs-at-once");
    assert_eq!(world.picture("vol1"), "[UUU]");
}

#[test]
fn a_doubtful_survivor_is_left_alone() {
    let world = told("survivor-in-doubt");
    assert_eq!(world.picture("vol1"), "[UU]");
    assert_eq!(world.kernel.failed_writes(), 0);
    assert!(!world.kernel.is_broken(world.array("vol1")));
}

/// The array's pictures over the story.
fn pictures(world: &World) -> Vec<String> {
    let lines = world.transcript.lines().iter();
    let mut pictures: Vec<String> = lines
        .filter(|line| line.kind == heal_sim::LineKind::Array)
        .map(|line| line.text.split(" rebuilding").next().unwrap_or_default().to_owned())
        .collect();
    pictures.dedup();
    pictures
}

#[test]
fn a_terminating_replica_is_moved_without_losing_redundancy() {
    let world = told("terminating");
    assert!(world.is_in_sync("vol1-c"));
    assert_eq!(pictures(&world), ["vol1 [UU]"], "never degraded");
    assert_eq!(world.replica_state("vol1-b"), None);
}

#[test]
fn two_terminating_replicas_are_moved_one_after_the_other() {
    let world = told("two-terminating");
    assert!(world.is_in_sync("vol1-c") && world.is_in_sync("vol1-d"));
    assert_eq!(pictures(&world), ["vol1 [UU]"], "never degraded");
}

#[test]
fn a_third_copy_is_added_and_then_grown_into() {
    let world = told("more-copies");
    assert_eq!(world.picture("vol1"), "[UUU]");
    assert_eq!(world.replica_state("vol1-c"), Some(ReplicaState::Available));
}

#[test]
fn a_copy_that_is_no_longer_wanted_is_put_away() {
    let world = told("fewer-copies");
    assert_eq!(world.picture("vol1"), "[UU]");
    assert!(!world.is_in_sync("vol1-c"));
}

#[test]
fn a_daemon_killed_in_every_phase_ends_at_the_same_place() {
    let world = told("killed-in-every-phase");
    assert_eq!(world.picture("vol1"), "[UU]");
    assert_eq!(world.provisioner.grants(), 1);
    assert_eq!(world.provisioner.request_keys(), 1);
}

#[test]
fn a_held_array_is_left_alone_until_it_is_released() {
    let world = told("hold-and-resume");
    assert_eq!(world.picture("vol1"), "[UU]");
}

#[test]
fn an_array_that_is_stopped_under_a_repair_heals_when_it_is_back() {
    let world = told("array-stopped");
    assert_eq!(world.picture("vol1"), "[UU]");
}

#[test]
fn what_was_connected_for_a_detached_volume_is_put_away() {
    let world = told("detached");
    assert!(!is_connected(&world, "vol1-c"));
    assert!(is_connected(&world, "vol1-a"), "that one is os-brick's to disconnect");
}

#[test]
fn what_was_connected_for_a_volume_that_went_unseen_is_put_away() {
    let world = told("detached-unseen");
    assert!(!is_connected(&world, "vol1-c"));
    assert!(is_connected(&world, "vol1-a"), "that one is os-brick's to disconnect");
    assert_eq!(world.machine(world.array("vol1")).map(|_| ()), None, "its record is gone as well");
}

/// Until it is there for the first time since the host booted, nobody knows whether it will come.
#[test]
fn after_a_boot_nothing_is_put_away_for_an_array_that_is_not_there_yet() {
    let mut world = story::find("detached").unwrap().begin();
    world.namespace_removed("vol1-b");
    world.run_for(Duration::from_secs(120));
    world.reboot();
    world.run_for(Duration::from_secs(600));
    assert!(is_connected(&world, "vol1-c") && is_connected(&world, "vol1-a"));
    world.array_assembled("vol1");
    world.run_for(Duration::from_secs(30));
    assert_eq!(world.picture("vol1"), "[UU]", "{}", world.transcript.text());
    world.check_end();
    // Whoever connected it in this boot disconnects it.
    world.array_stopped("vol1");
    world.run_for(Duration::from_secs(60));
    assert!(is_connected(&world, "vol1-c"), "{}", world.transcript.text());
    assert_eq!(world.violations().len(), 0, "{:?}", world.violations());
}

#[test]
fn an_array_that_is_assembled_again_in_time_keeps_what_was_connected_for_it() {
    let mut world = story::find("detached").unwrap().begin();
    world.namespace_removed("vol1-b");
    world.run_for(Duration::from_secs(120));
    world.crash_daemon();
    world.array_stopped("vol1");
    let looked = |world: &World| says(world, "stopped while nobody looked");
    assert!(world.run_until(looked, Duration::from_secs(60)), "{}", world.transcript.text());
    world.run_for(Duration::from_secs(2));
    world.array_assembled("vol1");
    world.run_for(Duration::from_secs(60));
    assert!(is_connected(&world, "vol1-c"), "{}", world.transcript.text());
    assert_eq!(world.picture("vol1"), "[UU]");
}

/// The daemon dies at every moment of a repair, and the array is stopped before it lives again.
#[test]
fn a_detach_without_the_daemon_at_any_moment_of_a_repair_leaves_nothing_connected() {
    for tenths in (0..=500_u64).step_by(13) {
        let mut world = story::find("detached").unwrap().begin();
        world.namespace_removed("vol1-b");
        world.run_for(Duration::from_millis(tenths * 100));
        world.crash_daemon();
        world.array_stopped("vol1");
        world.run_for(Duration::from_secs(90));
        let told = world.transcript.text();
        assert!(!is_connected(&world, "vol1-c"), "after {tenths}/10 s: {told}");
        world.array_assembled("vol1");
        let whole = |world: &World| world.picture("vol1") == "[UU]";
        let healed = world.run_until(whole, Duration::from_secs(600));
        assert!(healed, "after {tenths}/10 s: {}", world.transcript.text());
        world.run_for(Duration::from_secs(30));
        world.check_end();
        assert_eq!(world.violations().len(), 0, "{tenths}: {:?}", world.violations());
    }
}

#[test]
fn with_an_old_list_the_replica_of_today_is_connected_and_taken_back() {
    let mut world = told("attached-by-an-old-list");
    assert!(world.is_in_sync("vol1-c"), "{}", world.transcript.text());
    assert_eq!(world.provisioner.grants(), 1, "it is not replaced by another one");
    world.array_stopped("vol1");
    world.run_for(Duration::from_secs(60));
    assert!(!is_connected(&world, "vol1-c"), "and it is put away with the volume");
}

fn is_connected(world: &World, replica: &str) -> bool {
    world.kernel.has_controllers(&world.nqn(replica))
}

/// os-brick stops the array at every moment of a repair, and attaches it again a minute later: by
/// then nothing of it is left, and the repair goes on where it was.
#[test]
fn a_detach_at_any_moment_of_a_repair_leaves_nothing_connected() {
    for tenths in (0..=500_u64).step_by(7) {
        let mut world = story::find("detached").unwrap().begin();
        world.namespace_removed("vol1-b");
        world.run_for(Duration::from_millis(tenths * 100));
        let connected = is_connected(&world, "vol1-c");
        world.array_stopped("vol1");
        world.run_for(Duration::from_secs(60));
        assert!(
            !is_connected(&world, "vol1-c"),
            "after {tenths}/10 s: {}",
            world.transcript.text()
        );
        assert_eq!(world.machine(world.array("vol1")).map(|_| ()), None, "{tenths}: it is done");
        world.array_assembled("vol1");
        let whole = |world: &World| world.picture("vol1") == "[UU]";
        let healed = world.run_until(whole, Duration::from_secs(600));
        assert!(healed, "after {tenths}/10 s, connected {connected}: {}", world.transcript.text());
        world.run_for(Duration::from_secs(30));
        world.check_end();
        assert_eq!(world.violations().len(), 0, "{tenths}: {:?}", world.violations());
    }
}

#[test]
fn without_os_brick_a_stopped_arrays_legs_stay_connected() {
    let mut world = World::new(&heal_sim::Setup::default());
    world.run_for(Duration::from_secs(60));
    world.namespace_removed("vol1-b");
    world.run_for(Duration::from_secs(120));
    assert!(is_connected(&world, "vol1-c"));
    world.array_stopped("vol1");
    world.run_for(Duration::from_secs(60));
    assert!(is_connected(&world, "vol1-c"), "whoever stopped it may assemble it again");
    world.array_assembled("vol1");
    world.run_for(Duration::from_secs(10));
    assert_eq!(world.picture("vol1"), "[UU]");
}

#[test]
fn a_controller_that_somebody_uses_is_not_put_away() {
    let mut world = story::find("detached").unwrap().begin();
    world.namespace_removed("vol1-b");
    world.run_for(Duration::from_secs(120));
    world.array_stopped("vol1");
    world.run_for(Duration::from_secs(2));
    world.array_assembled("vol1");
    world.run_for(Duration::from_secs(60));
    assert!(is_connected(&world, "vol1-c"));
    assert_eq!(world.picture("vol1"), "[UU]");
}

#[test]
fn nothing_is_ever_written_to_a_replica_that_is_rejected() {
    for name in ["foreign-file-system", "foreign-array", "too-small", "wrong-namespace"] {
        let world = told(name);
        let nqn = world.nqn("vol1-c");
        assert!(!world.kernel.was_written_to(&nqn), "{name}");
        assert!(says(&world, "vol1-c"), "{name}");
    }
}

#[test]
fn an_idle_leg_whose_device_is_gone_is_failed_and_replaced() {
    let world = told("idle-leg-gone");
    assert_eq!(world.picture("vol1"), "[UU]");
    assert!(says(&world, "-> #") && says(&world, "fail nvme1n1"));
}

#[test]
fn a_local_array_is_never_touched() {
    let world = told("local-array");
    assert_eq!(world.picture("vol1"), "[UU]");
    assert_eq!(world.picture("scratch"), "[U_]");
}

#[test]
fn arrays_whose_names_begin_alike_do_not_touch_each_other() {
    let arrays = ["vol1", "vol10", "vol100"].map(heal_sim::ArraySetup::mirror).to_vec();
    let mut world = World::new(&heal_sim::Setup { arrays, ..heal_sim::Setup::default() });
    world.run_for(Duration::from_secs(60));
    world.namespace_removed("vol10-b");
    world.run_for(Duration::from_secs(300));
    assert_eq!(world.picture("vol10"), "[UU]");
    assert!(world.is_in_sync("vol10-c"));
    for (other, legs) in [("vol1", ["vol1-a", "vol1-b"]), ("vol100", ["vol100-a", "vol100-b"])] {
        assert_eq!(world.picture(other), "[UU]");
        assert!(legs.iter().all(|leg| world.is_in_sync(leg)), "{}", world.transcript.text());
        assert!(!is_connected(&world, &format!("{other}-c")));
    }
    world.array_stopped("vol10");
    world.run_for(Duration::from_secs(60));
    assert_eq!((world.picture("vol1"), world.picture("vol100")), ("[UU]".into(), "[UU]".into()));
    assert_eq!(world.violations().len(), 0, "{:?}", world.violations());
}

#[test]
fn a_namespace_that_returns_under_another_name_is_recognised() {
    let world = told("name-reused");
    assert!(world.is_in_sync("vol1-b"));
    assert!(says(&world, "re-add nvme1n2"), "{}", world.transcript.text());
}

#[test]
fn tools_that_fail_cost_time_only() {
    let world = told("tools-fail");
    assert_eq!(world.picture("vol1"), "[UU]");
    assert_eq!(world.provisioner.grants(), 1);
}

#[test]
fn a_storm_is_one_alarm_and_one_replacement_at_a_time() {
    let world = told("storm");
    for n in 1..=5 {
        assert_eq!(world.picture(&format!("vol{n}")), "[UU]");
    }
    let told = ["storm:", "alarm:"].map(|word| world.transcript.text().matches(word).count());
    assert_eq!(told.iter().sum::<usize>(), 1, "one alarm: {told:?}");
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

/// Tells a story once for every place where a crash can matter, and compares the end.
fn crash_everywhere(name: &str, check: impl Fn(&World, usize)) {
    let story = story::find(name).unwrap();
    let before = story.begin().boundaries();
    let all = story.told().boundaries();
    assert!(all > before + 20, "the story has places to crash at");
    for boundary in before + 1..=all {
        let mut world = story.begin();
        world.crash_at(boundary);
        (story.tell)(&mut world);
        // A crash may cost the time of a step; the story gets that time.
        let _ = world.run_until(World::is_at_rest, Duration::from_secs(1800));
        world.run_for(Duration::from_secs(60));
        world.check_end();
        let broken: Vec<String> =
            world.violations().iter().map(|v| format!("{}: {}", v.name, v.detail)).collect();
        let _tell = Tell(&world, boundary);
        assert!(broken.is_empty(), "{name}: {broken:#?}");
        check(&world, boundary);
    }
}

#[test]
fn a_crash_at_any_effect_boundary_changes_neither_the_end_nor_the_number_of_grants() {
    crash_everywhere("replica-replaced", |world, at| {
        assert_eq!(world.picture("vol1"), "[UU]", "crash at {at}");
        assert!(world.is_in_sync("vol1-c"), "crash at {at}");
        assert_eq!(world.provisioner.grants(), 1, "crash at {at}");
        assert_eq!(world.provisioner.request_keys(), 1, "crash at {at}");
        assert_eq!(world.replica_state("vol1-c"), Some(ReplicaState::Available), "crash at {at}");
        assert_eq!(world.replica_state("vol1-b"), None, "crash at {at}");
    });
}

#[test]
fn a_crash_at_any_effect_boundary_of_a_return_asks_for_nothing() {
    crash_everywhere("leg-returns", |world, at| {
        assert!(world.is_in_sync("vol1-b"), "crash at {at}");
        assert_eq!(world.provisioner.request_keys(), 0, "crash at {at}");
        assert_eq!(world.replica_state("vol1-b"), Some(ReplicaState::Available), "crash at {at}");
    });
}

#[test]
fn a_crash_at_any_effect_boundary_of_a_move_keeps_the_redundancy() {
    crash_everywhere("terminating", |world, at| {
        assert!(world.is_in_sync("vol1-c"), "crash at {at}");
        assert_eq!(pictures(world), ["vol1 [UU]"], "crash at {at}");
        assert_eq!(world.replica_state("vol1-b"), None, "crash at {at}");
    });
}

#[test]
fn a_crash_at_any_effect_boundary_of_a_growth_ends_with_three_copies() {
    crash_everywhere("more-copies", |world, at| {
        assert_eq!(world.picture("vol1"), "[UUU]", "crash at {at}");
        assert_eq!(world.replica_state("vol1-c"), Some(ReplicaState::Available), "crash at {at}");
    });
}

#[test]
fn a_crash_at_any_effect_boundary_of_a_shrinking_ends_with_two_copies() {
    crash_everywhere("fewer-copies", |world, at| {
        assert_eq!(world.picture("vol1"), "[UU]", "crash at {at}");
    });
}

#[test]
fn a_crash_at_any_effect_boundary_of_a_failed_replacement_costs_no_third_one() {
    crash_everywhere("replacement-fails", |world, at| {
        assert_eq!(world.picture("vol1"), "[UU]", "crash at {at}");
        assert!(world.provisioner.request_keys() <= 2, "crash at {at}");
    });
}
