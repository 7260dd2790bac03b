//! Faults that nobody thought of: a seed makes a story, and the same seed the same story.
//!
//! ```text
//!   seed ──► Dice ──► some faults, some time between them   ──► invariants after every step
//!                     then everything is repaired            ──► heals_eventually
//! ```
//!
//! A story that a person writes tests what the person thought of. These ones do not read well, but
//! they are patient. A seed that breaks a rule is kept as a test; exploring new seeds is for nights.
//!
//! The price: the dice know only the faults listed here, and two of them seldom fall in the same
//! millisecond; for that there are the tests that crash at every boundary.

use std::time::Duration;

use heal_core::IsolateAfter;
use heal_types::Level;

use crate::kernel::{Blur, ToolFault};
use crate::world::World;
use crate::world::setup::{ArraySetup, Setup, Wiring};

/// Dice with a seed (Vigna's SplitMix64): good enough to choose faults, and the same everywhere.
#[derive(Debug, Clone)]
pub struct Dice(u64);

impl Dice {
    /// Dice that always fall the same way for the same seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `sides`.
    pub fn below(&mut self, sides: u64) -> u64 {
        self.roll() % sides.max(1)
    }

    fn choose<'a, T>(&mut self, among: &'a [T]) -> Option<&'a T> {
        let count = u64::try_from(among.len()).ok()?;
        let index = usize::try_from(self.below(count)).ok()?;
        among.get(index)
    }
}

const VERBS: [&str; 6] =
    ["connect", "examine", "add_leg", "re_add_leg", "remove_leg", "disconnect"];
const PATH_VERBS: [&str; 6] = [
    "isolate_leg",
    "set_fast_io_fail",
    "delete_controller",
    "reconnect",
    "re_add_leg",
    "remove_leg",
];
const TOOL_FAULTS: [ToolFault; 4] =
    [ToolFault::Fails, ToolFault::Hangs, ToolFault::HangsAfterDoing, ToolFault::DoneUnheard];

/// What the dice may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Table {
    /// Faults of devices, paths, tools, the daemon and the provisioner.
    Faults,
    /// The same, and looks that see wrongly, other people's hands, and reboots.
    EverythingElse,
    /// Cables, black holes, frozen targets and ANA, on every kind of wiring; the daemon dies and its
    /// tools fail. No namespace ever goes, so the application must never see an error.
    Paths,
}

/// Tells the story of a seed, with `faults` faults, and checks what must hold in the end.
#[must_use]
pub fn told(seed: u64, faults: u32) -> World {
    told_at(Table::Faults, seed, faults)
}

/// The same, with dice that may do more.
#[must_use]
pub fn told_at(table: Table, seed: u64, faults: u32) -> World {
    let mut dice = Dice::new(seed);
    let setup = match table {
        Table::Faults | Table::EverythingElse => {
            let legs = if dice.below(3) == 0 { 3 } else { 2 };
            Setup {
                arrays: vec![ArraySetup { legs, spares: 6, ..ArraySetup::mirror("vol1") }],
                ..Setup::default()
            }
        }
        Table::Paths => wired(&mut dice),
    };
    let mut world = World::new(&setup);
    world.run_for(Duration::from_secs(10));
    world.begin_story();
    for _ in 0..faults {
        match table {
            Table::EverythingElse if dice.below(2) == 0 => other_hands(&mut world, &mut dice),
            Table::EverythingElse | Table::Faults => fault(&mut world, &mut dice),
            Table::Paths => path_fault(&mut world, &mut dice),
        }
        // The kernel gives a controller up after ten minutes: that is another story.
        let longest = if table == Table::Paths { 40 } else { 90 };
        let pause = match dice.below(3) {
            0 => Duration::from_millis(dice.below(500)),
            1 => Duration::from_millis(dice.below(20_000)),
            _ => Duration::from_secs(dice.below(longest)),
        };
        world.run_for(pause);
    }
    repair_everything(&mut world, table);
    world.check_end();
    if table == Table::Paths && world.kernel.failed_writes() > 0 {
        let count = world.kernel.failed_writes();
        world.violated("the_application_sees_no_error", format!("{count} writes failed"));
    }
    world
}

/// A world with one or two paths to each leg, one or two cables or many, and a policy of its own.
fn wired(dice: &mut Dice) -> Setup {
    let wirings = [Wiring::EachItsOwn, Wiring::TwoFabrics, Wiring::One];
    let wiring = dice.choose(&wirings).copied().unwrap_or(Wiring::EachItsOwn);
    let legs = if dice.below(3) == 0 { 3 } else { 2 };
    let paths = if dice.below(3) == 0 { 2 } else { 1 };
    let level = if dice.below(5) == 0 { Level::Raid10 { layout: 0x102 } } else { Level::Raid1 };
    let legs = if level == Level::Raid1 { legs } else { 4 };
    let array =
        |name: &str| ArraySetup { level, legs, paths, spares: 6, ..ArraySetup::mirror(name) };
    let mut arrays = vec![array("vol1")];
    if dice.below(4) == 0 {
        arrays.push(array("vol2"));
    }
    let afters = [0, 250, 250, 2000].map(Duration::from_millis);
    let after = dice.choose(&afters).copied().unwrap_or_default();
    let pace = if dice.below(2) == 0 { 10 } else { 200 };
    let mut setup =
        Setup { arrays, wiring, workload: Some(Duration::from_millis(pace)), ..Setup::default() };
    setup.policy.isolate_after = IsolateAfter::After(after);
    setup
}

fn path_fault(world: &mut World, dice: &mut Dice) {
    let known = replicas(world);
    let Some(replica) = dice.choose(&known).cloned() else {
        return;
    };
    let nqn = world.nqn(&replica);
    let links = world.kernel.links_of(&nqn);
    let Some(link) = dice.choose(&links).map(ToString::to_string) else {
        return;
    };
    match dice.below(16) {
        0..=3 => world.pull(&link),
        4..=6 => world.plug(&link),
        7 => world.black_hole(&link, true),
        8 => world.black_hole(&link, false),
        9 => {
            let frozen = dice.below(2) == 0;
            world.frozen_target(&replica, frozen);
        }
        10 => {
            let usable = dice.below(2) == 0;
            world.ana_usable(&replica, usable);
        }
        11 if dice.below(2) == 0 => world.crash_daemon_unless_down(),
        11 => {
            let soon = usize::try_from(dice.below(12)).unwrap_or(0);
            world.say(format!("the daemon will be killed at an effect soon: {soon}"));
            world.crash_at(world.boundaries() + 1 + soon);
        }
        12 => {
            let verb = dice.choose(&PATH_VERBS).copied();
            let fault = dice.choose(&TOOL_FAULTS).copied();
            if let (Some(verb), Some(fault)) = (verb, fault) {
                world.spoil_next(verb, fault);
            }
        }
        13 => world.operator_hold("vol1", "the dice said so"),
        14 => world.operator_resume("vol1"),
        _ => {
            let down = dice.below(2) == 0;
            world.provisioner_down(down);
        }
    }
}

fn replicas(world: &World) -> Vec<String> {
    let all = world.arrays.iter().flat_map(|array| &array.replicas);
    all.filter(|plan| world.provisioner.state_of(&plan.replica.id).is_some())
        .map(|plan| plan.replica.id.to_string())
        .collect()
}

fn fault(world: &mut World, dice: &mut Dice) {
    let known = replicas(world);
    let Some(replica) = dice.choose(&known).cloned() else {
        return;
    };
    match dice.below(18) {
        14 | 15 => path_fault(world, dice),
        16 => world.black_hole(&format!("to-{replica}"), true),
        17 => world.bad_block(&replica),
        0..=2 => world.namespace_removed(&replica),
        3 | 4 => world.namespace_restored(&replica),
        5 => world.path_lost(&replica),
        6 => world.path_up(&replica),
        7 => world.crash_daemon_unless_down(),
        8 => {
            let down = dice.below(2) == 0;
            world.provisioner_down(down);
        }
        9 => {
            let refuses = dice.below(2) == 0;
            world.provisioner_refuses(refuses.then_some("no capacity"));
        }
        10 => {
            let verb = dice.choose(&VERBS).copied();
            let fault = dice.choose(&TOOL_FAULTS).copied();
            if let (Some(verb), Some(fault)) = (verb, fault) {
                world.spoil_next(verb, fault);
            }
        }
        11 => world.operator_hold("vol1", "the dice said so"),
        12 => world.operator_resume("vol1"),
        _ => {
            world.say("the next answer of the provisioner is lost");
            world.provisioner.mood.lose_answer = true;
        }
    }
}

fn other_hands(world: &mut World, dice: &mut Dice) {
    let known = replicas(world);
    let Some(replica) = dice.choose(&known).cloned() else {
        return;
    };
    let (id, array) = (world.namespace(&replica), world.array("vol1"));
    match dice.below(11) {
        0 => world.one_look_with(Blur::Array(array)),
        1 => world.one_look_with(Blur::HalfStopped(array)),
        2 => world.one_look_with(Blur::Leg(id)),
        3 => world.one_look_with(Blur::LegGone(id)),
        4 => world.one_look_with(Blur::Holders(id)),
        5 => world.filled_later(&replica, Duration::from_secs(dice.below(5))),
        6 => world.removed_by_hand(&replica),
        7 => world.hiccup(&replica),
        8 => world.terminating(&replica),
        9 => {
            let frozen = dice.below(2) == 0;
            world.frozen("vol1", frozen);
        }
        _ => {
            world.reboot();
            world.run_for(Duration::from_secs(dice.below(30)));
            world.array_assembled("vol1");
        }
    }
}

/// Ends every fault and gives the machines time.
fn repair_everything(world: &mut World, table: Table) {
    world.say("everything is repaired");
    world.provisioner.mood = crate::provisioner::Mood::default();
    world.crash_at(usize::MAX);
    let all = world.arrays.iter().flat_map(|array| &array.replicas);
    let names: Vec<String> = all.map(|plan| plan.replica.id.to_string()).collect();
    for name in names {
        let nqn = world.nqn(&name);
        world.kernel.restore_path(&nqn);
        world.kernel.restore_namespace(&nqn);
    }
    world.after_kernel();
    world.run_for(Duration::from_secs(5)); // Everything connects again.
    let array = world.array("vol1");
    if table == Table::EverythingElse {
        world.kernel.freeze(array, false);
        world.kernel.assemble_array(array); // Unless it runs.
    }
    world.after_kernel();
    world.run_for(Duration::from_secs(5));
    for array in world.arrays.iter().map(|array| array.name.clone()).collect::<Vec<_>>() {
        world.operator_resume(&array);
    }
    world.run_for(Duration::from_secs(60));
    let _ = world.run_until(World::is_at_rest, Duration::from_secs(1800));
    world.run_for(Duration::from_secs(120));
}
