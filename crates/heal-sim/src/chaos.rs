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

use crate::kernel::{Blur, ToolFault};
use crate::world::World;
use crate::world::setup::{ArraySetup, Setup};

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
const TOOL_FAULTS: [ToolFault; 4] =
    [ToolFault::Fails, ToolFault::Hangs, ToolFault::HangsAfterDoing, ToolFault::DoneUnheard];

/// What the dice may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Table {
    /// Faults of devices, paths, tools, the daemon and the provisioner.
    Faults,
    /// The same, and looks that see wrongly, other people's hands, and reboots.
    EverythingElse,
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
    let legs = if dice.below(3) == 0 { 3 } else { 2 };
    let setup = Setup {
        arrays: vec![ArraySetup { legs, spares: 6, ..ArraySetup::mirror("vol1") }],
        ..Setup::default()
    };
    let mut world = World::new(&setup);
    world.run_for(Duration::from_secs(10));
    world.begin_story();
    for _ in 0..faults {
        if table == Table::EverythingElse && dice.below(2) == 0 {
            other_hands(&mut world, &mut dice);
        } else {
            fault(&mut world, &mut dice);
        }
        let pause = match dice.below(3) {
            0 => Duration::from_millis(dice.below(500)),
            1 => Duration::from_millis(dice.below(20_000)),
            _ => Duration::from_secs(dice.below(90)),
        };
        world.run_for(pause);
    }
    repair_everything(&mut world, table);
    world.check_end();
    world
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
    match dice.below(14) {
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
    let all = world.arrays.iter().flat_map(|array| &array.replicas);
    let names: Vec<String> = all.map(|plan| plan.replica.id.to_string()).collect();
    for name in names {
        let nqn = world.nqn(&name);
        world.kernel.restore_path(&nqn);
        world.kernel.restore_namespace(&nqn);
    }
    let array = world.array("vol1");
    if table == Table::EverythingElse {
        world.kernel.freeze(array, false);
        world.kernel.assemble_array(array); // Unless it runs.
    }
    world.after_kernel();
    world.run_for(Duration::from_secs(5));
    world.operator_resume("vol1");
    world.run_for(Duration::from_secs(60));
    let _ = world.run_until(World::is_at_rest, Duration::from_secs(1800));
    world.run_for(Duration::from_secs(120));
}
