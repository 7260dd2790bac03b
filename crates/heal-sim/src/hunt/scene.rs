//! What a story begins with, in the few numbers that stories differ by.

use std::time::Duration;

use heal_core::IsolateAfter;
use heal_types::{GracePolicy, Level};
use serde::{Deserialize, Serialize};

use super::dice::Dice;
use super::table::Table;
use crate::world::setup::{ArraySetup, Setup, StandsOn, Wiring};

/// The setup of a story. It stands in the head of its log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scene {
    /// Arrays of volumes: `vol1`, `vol2`, ….
    pub arrays: u16,
    /// Legs of each.
    pub legs: u16,
    /// RAID10 of near copies instead of RAID1.
    pub raid10: bool,
    /// Spare replicas of each.
    pub spares: u16,
    /// Paths to each replica.
    pub paths: u16,
    /// Which cables lead where.
    pub wiring: Wiring,
    /// Whether the arrays have a bitmap.
    pub bitmap: bool,
    /// How long a full rebuild takes, seconds.
    pub rebuild: u64,
    /// How long a lost replica is waited for, seconds.
    pub grace: u64,
    /// After how many milliseconds a leg is isolated.
    pub isolate_after: u64,
    /// How often the application writes, milliseconds.
    pub workload: u64,
    /// How often the slow scan looks, seconds; 0: never.
    pub safety_scan: u64,
    /// Replacements at once on the host.
    pub replacements: u16,
    /// Whether an array of namespaces that no volume knows, and one of local disks, are there too.
    pub strangers: bool,
}

impl Default for Scene {
    fn default() -> Self {
        Self {
            arrays: 1,
            legs: 2,
            raid10: false,
            spares: 6,
            paths: 1,
            wiring: Wiring::EachItsOwn,
            bitmap: true,
            rebuild: 8,
            grace: 30,
            isolate_after: 250,
            workload: 200,
            safety_scan: 0,
            replacements: 2,
            strangers: false,
        }
    }
}

impl Scene {
    /// A scene for that table.
    pub fn cast(table: Table, dice: &mut Dice) -> Self {
        let plain = Self {
            legs: if dice.once_in(3) { 3 } else { 2 },
            safety_scan: if table.loses_signals() { 60 } else { 0 },
            rebuild: dice.choose(&[2, 8, 8, 40]).copied().unwrap_or(8),
            grace: dice.choose(&[0, 5, 30, 30]).copied().unwrap_or(30),
            bitmap: !dice.once_in(8),
            strangers: dice.once_in(16),
            ..Self::default()
        };
        match table {
            Table::Faults | Table::Hands | Table::Ledger | Table::Provisioner | Table::Signals => {
                Self { arrays: if dice.once_in(6) { 2 } else { 1 }, ..plain }
            }
            Table::Paths => Self { bitmap: true, ..Self::wired(&plain, dice) },
            Table::Crowd => Self {
                arrays: 2 + dice.small(4),
                legs: 2,
                replacements: 1 + dice.small(2),
                ..plain
            },
            Table::Everything => Self {
                arrays: 1 + dice.small(3),
                ..if dice.once_in(2) { Self::wired(&plain, dice) } else { plain }
            },
        }
    }

    fn wired(plain: &Self, dice: &mut Dice) -> Self {
        let wirings = [Wiring::EachItsOwn, Wiring::TwoFabrics, Wiring::One];
        let raid10 = dice.once_in(5);
        Self {
            arrays: if dice.once_in(4) { 2 } else { 1 },
            legs: if raid10 { 4 } else { plain.legs },
            raid10,
            paths: if dice.once_in(3) { 2 } else { 1 },
            wiring: dice.choose(&wirings).copied().unwrap_or(Wiring::EachItsOwn),
            isolate_after: dice.choose(&[0, 250, 250, 2000]).copied().unwrap_or(250),
            workload: if dice.once_in(2) { 40 } else { 200 },
            ..plain.clone()
        }
    }

    /// The world's setup.
    #[must_use]
    pub fn setup(&self) -> Setup {
        let level = if self.raid10 { Level::Raid10 { layout: 0x102 } } else { Level::Raid1 };
        let array = |name: &str| ArraySetup {
            level,
            legs: self.legs,
            spares: self.spares,
            paths: self.paths,
            bitmap: self.bitmap,
            rebuild: Duration::from_secs(self.rebuild),
            grace: Some(GracePolicy::After(Duration::from_secs(self.grace))),
            ..ArraySetup::mirror(name)
        };
        let mut arrays: Vec<ArraySetup> =
            (1..=self.arrays).map(|n| array(&format!("vol{n}"))).collect();
        if self.strangers {
            let stands_on = StandsOn::StrangeNamespaces;
            arrays.push(ArraySetup { stands_on, legs: 2, spares: 0, ..array("strange") });
            arrays.push(ArraySetup::local("local"));
        }
        let mut setup = Setup {
            arrays,
            wiring: self.wiring,
            workload: Some(Duration::from_millis(self.workload)),
            ..Setup::default()
        };
        setup.safety_scan = (self.safety_scan > 0).then(|| Duration::from_secs(self.safety_scan));
        setup.limits.replacements = self.replacements.into();
        let after = Duration::from_millis(self.isolate_after);
        setup.policy.isolate_after = IsolateAfter::After(after);
        setup
    }
}
