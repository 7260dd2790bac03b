//! Legs that look whole and are not. The lab found that MD's own `repair`, which the agent had
//! asked for, fills such blocks with anything (`lab-repair`): since then they wait for a write, or
//! for a successor.

use heal_sim::{Flaw, ToolFault};

use super::*;

fn mirror_with(grace: u64) -> World {
    let mut setup = legs(2, grace);
    setup.workload = Some(milliseconds(10));
    well(&setup)
}

/// Runs to the end and checks at every step that MD never counts a slot less than it has.
fn heals_without_a_gap(world: &mut World) {
    let less = |world: &World| world.picture("vol1") != "[UU]";
    assert!(!world.run_until(less, seconds(1800)), "a gap\n{}", world.transcript.text());
    heals(world);
}

#[test]
fn a_leg_whose_bad_blocks_stay_is_replaced_and_serves_until_its_successor_is_complete() {
    let mut world = mirror_with(30);
    world.stubborn_bad_block("vol1-b");
    world.run_for(seconds(29));
    asked_nothing(&world);
    heals_without_a_gap(&mut world);
    assert_in_sync(&world, "vol1-a");
    assert_in_sync(&world, "vol1-c");
    assert_eq!(asked(&world).len(), 1);
    assert_eq!(heard_of(&world, "vol1-c"), ["available"]);
    assert_eq!(world.replica_state("vol1-b"), None, "its removal was confirmed");
    assert_never(&world, LineKind::Effect, "fail ");
}

#[test]
fn blocks_that_are_written_while_a_spare_is_waited_for_end_the_search() {
    let mut world = well(&Setup { workload: None, ..legs(2, 30) });
    world.provisioner_refuses(Some("no spare is left"));
    world.bad_block("vol1-b");
    until(&mut world, "no spare is left", in_phase("vol1", "held"));
    world.kernel.set_workload(Some(milliseconds(10)));
    heals(&mut world);
    assert_in_sync(&world, "vol1-b");
    assert_never(&world, LineKind::Effect, "connect");
    assert_eq!(heard_of(&world, "vol1-b"), ["available"], "it was asked to be replaced");
}

#[test]
fn two_legs_that_lack_blocks_are_both_kept_and_nobody_is_asked() {
    let mut world = mirror_with(600);
    world.stubborn_bad_block("vol1-b");
    world.run_for(seconds(10));
    world.stubborn_bad_block("vol1-a");
    world.run_for(seconds(4 * 3600));
    asked_nothing(&world);
    assert_eq!(phase(&world, "vol1"), "grace", "\n{}", world.transcript.text());
    assert_picture(&world, "vol1", "[UU]");
    assert_eq!(lines(&world, LineKind::Audit, "no other leg is known to hold"), 1, "said once");
    assert_never(&world, LineKind::Effect, "");
    keeps_every_rule(&world);
}

#[test]
fn a_leg_with_bad_blocks_that_fails_is_a_loss_like_any_other() {
    let mut world = mirror_with(600);
    world.stubborn_bad_block("vol1-b");
    world.run_for(seconds(10));
    world.failed_by_hand("vol1-b");
    world.run_for(seconds(5));
    assert_eq!(heard_of(&world, "vol1-b"), ["missing"], "\n{}", world.transcript.text());
    heals(&mut world);
}

#[test]
fn what_was_replaced_is_kept_while_no_leg_is_known_to_hold_every_block() {
    let mut world = mirror_with(30);
    world.stubborn_bad_block("vol1-b");
    until(&mut world, "the successor is filled", in_phase("vol1", "rebuilding"));
    // What the one lacks has the other, and that one fails before it was copied.
    world.kernel.set_workload(None);
    world.stubborn_bad_block("vol1-a");
    world.failed_by_hand("vol1-b");
    world.run_for(seconds(3600));
    keeps_every_rule(&world);
    assert_eq!(phase(&world, "vol1"), "retiring", "\n{}", world.transcript.text());
    assert!(world.replica_state("vol1-b").is_some(), "it has the only copy of a block");
    // The application writes there, and nothing speaks against it any more.
    world.kernel.set_workload(Some(milliseconds(10)));
    heals(&mut world);
    assert_eq!(world.replica_state("vol1-b"), None, "its removal was confirmed");
}

#[test]
fn a_crash_at_any_effect_boundary_of_such_a_move_changes_nothing() {
    let begin = || mirror_with(30);
    let tell = |world: &mut World| {
        world.stubborn_bad_block("vol1-b");
        let _ = world.run_until(|world| world.replica_state("vol1-b").is_none(), seconds(600));
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
        heals(&mut world);
        assert_in_sync(&world, "vol1-c");
    }
}

#[test]
fn a_tool_that_fails_and_a_spare_that_cannot_be_used_cost_time_only() {
    let mut world = mirror_with(30);
    world.flawed("vol1-c", &Flaw::TooSmall);
    world.spoil_next("replace_leg", ToolFault::HangsAfterDoing);
    world.stubborn_bad_block("vol1-b");
    heals_without_a_gap(&mut world);
    assert_in_sync(&world, "vol1-a");
    assert!(!world.is_in_sync("vol1-b"));
}

// found by review: whatever was waited for in place of a leg that has to go, its cable was nobody's
// concern meanwhile, and the application waited with it for ctrl_loss_tmo.
#[test]
fn a_leg_that_waits_for_its_successor_is_isolated_like_any_other_when_its_cable_is_pulled() {
    for waits_for in ["grace", "held"] {
        let mut world = mirror_with(600);
        if waits_for == "held" {
            world.provisioner_refuses(Some("no spare is left"));
        }
        world.stubborn_bad_block("vol1-b");
        let minutes = if waits_for == "held" { 11 } else { 1 };
        world.run_for(seconds(60 * minutes));
        assert_eq!(phase(&world, "vol1"), waits_for, "\n{}", world.transcript.text());
        world.kernel.forget_stalls();
        world.pull("to-vol1-b");
        world.run_for(seconds(30));
        let stall = world.kernel.longest_write(world.array("vol1"));
        assert!(stall < seconds(2), "{waits_for}: {stall:?}\n{}", world.transcript.text());
        assert_picture(&world, "vol1", "[U_]");
        world.plug("to-vol1-b");
        world.provisioner_refuses(None);
        heals(&mut world);
        assert_in_sync(&world, "vol1-a");
    }
}

#[test]
fn a_terminating_leg_is_isolated_as_well_while_no_spare_is_left() {
    let mut world = mirror_with(30);
    world.provisioner_refuses(Some("no spare is left"));
    world.terminating("vol1-b");
    world.volume_stale("vol1");
    until(&mut world, "it is refused", in_phase("vol1", "held"));
    world.kernel.forget_stalls();
    world.pull("to-vol1-b");
    world.run_for(seconds(30));
    let stall = world.kernel.longest_write(world.array("vol1"));
    assert!(stall < seconds(2), "{stall:?}\n{}", world.transcript.text());
    world.plug("to-vol1-b");
    world.provisioner_refuses(None);
    heals(&mut world);
}
