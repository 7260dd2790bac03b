//! The host's budget: how many arrays may replace a leg at once, and when many fail together.
//!
//! One machine sees one array. When a switch reboots, every machine on the host sees a lost leg in
//! the same second, and each of them, alone, would do the right thing; all together they would ask
//! for a hundred replacements. So a machine asks for leave before it requests or connects a
//! replacement, and the host gives it to a few at a time: fewer when it smells a storm.
//!
//! ```text
//!   machine ─ AskPermit ─► Budget ─ Permitted ─► machine … whole again ─ ReturnPermit ─► Budget ─► the next one
//!   machine ─ degraded ──► Budget ─ more than `storm_arrays` within `storm_window` ─► one alarm
//! ```
//!
//! Taking a returned leg back needs no leave: it costs little and only ever adds a copy. A
//! replacement that gets nowhere gives its leave back: after a step has failed three times, until
//! the next try; when the kernel has not let a step return for [`Policy::retry_max`]; and when MD
//! has filled nothing for twice that. One array in trouble is no reason for the others to wait. The
//! price: what was begun, and may be added after all, goes on without leave, and for once one more
//! array is being filled.
//!
//! [`Policy::retry_max`]: crate::policy::Policy::retry_max

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use heal_types::{ArrayId, Moment};

/// What to do once a storm is seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AfterStorm {
    /// Go on, one replacement at a time.
    OneAtATime,
    /// Give no leave until the storm is over.
    Hold,
}

/// The limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Replacements at once on this host.
    pub replacements: usize,
    /// More arrays than this degraded within `storm_window` are a storm.
    pub storm_arrays: usize,
    /// See `storm_arrays`; a storm is over when no array degraded for this long.
    pub storm_window: Duration,
    /// What to do then.
    pub after_storm: AfterStorm,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            replacements: 2,
            storm_arrays: 3,
            storm_window: Duration::from_secs(10),
            after_storm: AfterStorm::OneAtATime,
        }
    }
}

/// Who may replace a leg now.
#[derive(Debug, Clone)]
pub struct Budget {
    limits: Limits,
    holding: BTreeSet<ArrayId>,
    waiting: VecDeque<ArrayId>,
    degraded: BTreeMap<ArrayId, Moment>,
    storm: bool,
}

/// Many arrays degraded at once: one alarm for all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Storm {
    /// How many arrays within the window.
    pub arrays: usize,
}

impl Budget {
    /// A budget under `limits`, with nothing given out.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            holding: BTreeSet::new(),
            waiting: VecDeque::new(),
            degraded: BTreeMap::new(),
            storm: false,
        }
    }

    /// `array` asks for leave; it gets it in the answer of this or of a later call.
    pub fn ask(&mut self, now: Moment, array: ArrayId) -> Vec<ArrayId> {
        if !self.holding.contains(&array) && !self.waiting.contains(&array) {
            self.waiting.push_back(array);
        }
        if self.holding.contains(&array) {
            return vec![array];
        }
        self.give_out(now)
    }

    /// `array` needs no leave any more. Answers with who gets it.
    pub fn give_back(&mut self, now: Moment, array: ArrayId) -> Vec<ArrayId> {
        self.holding.remove(&array);
        self.waiting.retain(|waiting| *waiting != array);
        self.give_out(now)
    }

    /// `array` opened an incident. Answers with the alarm when that makes a storm.
    pub fn degraded(&mut self, now: Moment, array: ArrayId) -> Option<Storm> {
        let window = self.limits.storm_window;
        self.degraded.retain(|_, at| now.since(*at) < window);
        self.degraded.insert(array, now);
        let arrays = self.degraded.len();
        if self.storm || arrays <= self.limits.storm_arrays {
            return None;
        }
        self.storm = true;
        Some(Storm { arrays })
    }

    /// Whether a storm is on.
    #[must_use]
    pub fn is_storm(&self) -> bool {
        self.storm
    }

    /// When to call [`Budget::wake`], if at all.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Moment> {
        let newest = self.degraded.values().max()?;
        self.storm.then(|| newest.after(self.limits.storm_window))
    }

    /// Time passed: a storm may be over. Answers with who gets leave.
    pub fn wake(&mut self, now: Moment) -> Vec<ArrayId> {
        self.give_out(now)
    }

    fn forget_old(&mut self, now: Moment) {
        let window = self.limits.storm_window;
        self.degraded.retain(|_, at| now.since(*at) < window);
        if self.degraded.is_empty() {
            self.storm = false;
        }
    }

    fn give_out(&mut self, now: Moment) -> Vec<ArrayId> {
        self.forget_old(now);
        let limit = match (self.storm, self.limits.after_storm) {
            (false, _) => self.limits.replacements,
            (true, AfterStorm::OneAtATime) => 1,
            (true, AfterStorm::Hold) => 0,
        };
        let mut given = Vec::new();
        while self.holding.len() < limit {
            let Some(array) = self.waiting.pop_front() else {
                break;
            };
            self.holding.insert(array);
            given.push(array);
        }
        given
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn array(n: u8) -> ArrayId {
        ArrayId::from_bytes([n; 16])
    }

    fn second(s: u64) -> Moment {
        Moment(s * 1_000_000_000)
    }

    #[test]
    fn the_third_array_waits_until_one_of_two_is_done() {
        let mut budget = Budget::new(Limits::default());
        assert_eq!(budget.ask(second(0), array(1)), vec![array(1)]);
        assert_eq!(budget.ask(second(0), array(2)), vec![array(2)]);
        assert_eq!(budget.ask(second(0), array(3)), vec![]);
        assert_eq!(budget.ask(second(0), array(3)), vec![], "asking twice is no second place");
        assert_eq!(budget.give_back(second(1), array(1)), vec![array(3)]);
        assert_eq!(budget.give_back(second(1), array(2)), vec![]);
    }

    #[test]
    fn four_arrays_within_ten_seconds_are_one_alarm_and_one_at_a_time() {
        let mut budget = Budget::new(Limits::default());
        for n in 1..=3 {
            assert_eq!(budget.degraded(second(0), array(n)), None);
        }
        assert_eq!(budget.degraded(second(1), array(4)), Some(Storm { arrays: 4 }));
        assert_eq!(budget.degraded(second(2), array(5)), None, "one alarm, not two");
        assert_eq!(budget.ask(second(2), array(1)), vec![array(1)]);
        assert_eq!(budget.ask(second(2), array(2)), vec![]);
        assert_eq!(budget.next_deadline(), Some(second(12)));
        assert_eq!(budget.wake(second(13)), vec![array(2)], "the storm is over");
        assert!(!budget.is_storm());
    }

    #[test]
    fn a_policy_of_hold_gives_no_leave_in_a_storm() {
        let limits = Limits { storm_arrays: 0, after_storm: AfterStorm::Hold, ..Limits::default() };
        let mut budget = Budget::new(limits);
        assert!(budget.degraded(second(0), array(1)).is_some());
        assert_eq!(budget.ask(second(1), array(1)), vec![]);
        assert_eq!(budget.wake(second(11)), vec![array(1)]);
    }
}
