//! Legs that come and go: a count of losses that halves with time.
//!
//! ```text
//!   losses
//!     4 ┤      ╷ over the limit: out until it was up for the hold-down
//!     3 ┤┄┄┄┄┄┄├──╮┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄ limit
//!     2 ┤   ╷──╯   ╰────╮
//!     1 ┤╷──╯           ╰──────────── halves every half-life
//!       └┴─────────────────────────── time
//! ```
//!
//! A bad optic that flaps makes each return look like a recovery, and each recovery costs a resync
//! and an application's stall. The count is kept by namespace, on the wall clock and in the record:
//! a crash in the middle of it must not make a bad leg look like a good one. A wall clock that
//! steps back only makes the count stay longer.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use heal_types::{NamespaceId, WallTime};

use crate::policy::Flapping;

/// One loss, in the unit that counts are kept in.
const LOSS: u64 = 1_000;

/// The count of one leg.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Count {
    /// Thousandths of a loss, as of `at`.
    pub millis: u64,
    /// When it was last counted.
    pub at: WallTime,
}

impl Count {
    fn now(self, now: WallTime, half_life: std::time::Duration) -> u64 {
        let half = half_life.as_millis().max(1);
        let passed = now.since(self.at).as_millis();
        let halvings = u32::try_from(passed / half).unwrap_or(u32::MAX);
        let whole = self.millis.checked_shr(halvings).unwrap_or(0);
        // Between two halvings a straight line: near enough to the curve, and never below it.
        let part = u64::try_from(passed % half * u128::from(whole / 2) / half).unwrap_or(0);
        whole - part.min(whole)
    }
}

/// The counts of an array's legs.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Flaps {
    counts: BTreeMap<NamespaceId, Count>,
}

impl Flaps {
    pub(crate) fn recovered(counts: Vec<(NamespaceId, Count)>) -> Self {
        Self { counts: counts.into_iter().collect() }
    }

    pub(crate) fn recorded(&self) -> Vec<(NamespaceId, Count)> {
        self.counts.iter().map(|(id, count)| (*id, *count)).collect()
    }

    /// A leg was lost. Counts that have all but faded are forgotten on the way.
    pub(crate) fn lost(&mut self, leg: NamespaceId, now: WallTime, policy: &Flapping) {
        let half = policy.half_life;
        self.counts.retain(|id, count| *id == leg || count.now(now, half) > LOSS / 10);
        let millis = self.counts.get(&leg).map_or(0, |count| count.now(now, half)) + LOSS;
        self.counts.insert(leg, Count { millis, at: now });
    }

    /// Whether a leg has been lost too often.
    pub(crate) fn is_over(&self, leg: &NamespaceId, now: WallTime, policy: &Flapping) -> bool {
        let count = self.counts.get(leg).map_or(0, |count| count.now(now, policy.half_life));
        count > u64::from(policy.limit) * LOSS
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const LEG: NamespaceId = NamespaceId::Nguid([1; 16]);

    fn at(seconds: u64) -> WallTime {
        WallTime(1_700_000_000_000 + seconds * 1000)
    }

    #[test]
    fn the_fourth_loss_in_a_row_is_one_too_many() {
        let policy = Flapping::default();
        let mut flaps = Flaps::default();
        for loss in 0..3 {
            flaps.lost(LEG, at(loss), &policy);
            assert!(!flaps.is_over(&LEG, at(loss), &policy));
        }
        flaps.lost(LEG, at(3), &policy);
        assert!(flaps.is_over(&LEG, at(3), &policy));
        let kept = Flaps::recovered(flaps.recorded());
        assert!(kept.is_over(&LEG, at(4), &policy), "a restart forgives nothing");
    }

    #[test]
    fn losses_fade_with_time() {
        let policy = Flapping { half_life: Duration::from_secs(100), ..Flapping::default() };
        let mut flaps = Flaps::default();
        for _ in 0..4 {
            flaps.lost(LEG, at(0), &policy);
        }
        assert!(flaps.is_over(&LEG, at(0), &policy));
        assert_eq!(flaps.counts[&LEG].now(at(50), policy.half_life), 3000);
        assert_eq!(flaps.counts[&LEG].now(at(100), policy.half_life), 2000);
        assert!(!flaps.is_over(&LEG, at(60), &policy));
        assert_eq!(flaps.counts[&LEG].now(at(1_000_000), policy.half_life), 0);
    }

    #[test]
    fn a_clock_that_steps_back_forgives_nothing() {
        let policy = Flapping::default();
        let mut flaps = Flaps::default();
        for _ in 0..4 {
            flaps.lost(LEG, at(5000), &policy);
        }
        assert!(flaps.is_over(&LEG, at(0), &policy));
    }
}
