//! The end of every story: the faults stop, time passes, and then everything must be well.
//!
//! ```text
//!   the host's own troubles end ──► vol1's end ──► vol1 is well while the others are not
//!        └─────────────────────────► everybody's end ──► a person resumes ──► at rest ──► every rule
//! ```

use std::time::Duration;

use heal_core::Mode;
use heal_types::ArrayId;

use super::scene::Scene;
use crate::World;
use crate::invariants::other_arrays_progress;
use crate::provisioner::Mood;
use crate::world::setup::Wiring;

/// How long a lone array may need while others are in trouble.
const ALONE: Duration = Duration::from_secs(600);
/// How long everybody may need: refused requests are asked again after ten minutes.
const TOGETHER: Duration = Duration::from_secs(1800);
/// How often rest may turn out to have been a pause.
const RESTS: u32 = 4;

/// Ends every fault, gives the machines time, and checks what must hold in the end.
pub(super) fn told_to_the_end(world: &mut World, scene: &Scene) {
    world.say("everything is repaired");
    the_host(world);
    let names: Vec<String> = world.arrays.iter().map(|array| array.name.clone()).collect();
    if scene.arrays > 1 && scene.wiring == Wiring::EachItsOwn {
        alone(world, "vol1");
    }
    world.check_event();
    for name in &names {
        the_array(world, name);
    }
    world.run_for(Duration::from_secs(5)); // Everything connects again.
    world.check_event();
    for name in &names {
        reassembled(world, name);
    }
    world.run_for(Duration::from_secs(5));
    for name in &names {
        world.operator_resume(name);
    }
    world.run_for(Duration::from_secs(60));
    // A provisioner that was slow may still have something to say when everything has been at rest.
    for _ in 0..RESTS {
        let _ = world.run_until(World::is_at_rest, TOGETHER);
        world.run_for(Duration::from_secs(120));
        world.check_event();
        if world.is_at_rest() {
            break;
        }
    }
    world.check_end();
}

/// The daemon, its disk, its tools and its provisioner are well.
fn the_host(world: &mut World) {
    world.provisioner.mood = Mood::default();
    world.crash_at(usize::MAX);
    world.disk.fail_next(None);
    world.disk.set_full(false);
    world.feed.mend();
    world.act_delay = Duration::ZERO;
    world.seen_as_it_is();
    world.kernel.mend_tools();
    world.run_for(Duration::from_secs(5));
    world.mode(Mode::Heal);
}

fn the_array(world: &mut World, name: &str) {
    let Some(plan) = world.arrays.iter().find(|plan| plan.name == name) else { return };
    let (id, nqns): (ArrayId, Vec<_>) =
        (plan.id, plan.replicas.iter().map(|replica| replica.nqn.clone()).collect());
    for nqn in nqns {
        world.kernel.restore_path(&nqn);
        world.kernel.restore_namespace(&nqn);
    }
    world.kernel.mend_blocks(id);
    world.kernel.freeze(id, false);
    world.kernel.force_state(id, None);
    world.checker.mended(world.now().mono);
    world.after_kernel();
}

/// A person stops an array that MD gave up, or of which there are two, and assembles whatever is
/// stopped.
fn reassembled(world: &mut World, name: &str) {
    let id = world.array(name);
    if world.kernel.is_parted(id) {
        world.decided_for_the_good_side(name);
        world.run_for(Duration::from_secs(1));
    }
    if world.kernel.is_broken(id) {
        world.array_stopped(name);
        world.run_for(Duration::from_secs(1));
    }
    world.kernel.assemble_array(id); // Unless it runs.
    world.after_kernel();
}

/// The others keep their faults; this one must not wait for them.
fn alone(world: &mut World, name: &str) {
    the_array(world, name);
    world.run_for(Duration::from_secs(5));
    reassembled(world, name);
    world.run_for(Duration::from_secs(5));
    world.operator_resume(name);
    let well = |world: &World| other_arrays_progress(world, name).is_ok();
    let _ = world.run_until(well, ALONE);
    let progress = other_arrays_progress(world, name);
    world.expect("other_arrays_progress", progress);
}
