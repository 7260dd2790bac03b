//! A model of the vendor's polling agent: when it would see and do what.
//!
//! **It is a model, not the agent.** It has the agent's schedule (a first pass one second after the
//! start, the next one thirty seconds after the end of the one before) and the order of steps in a
//! pass, and nothing else. It is there to be compared with, for one leg of one array:
//!
//! ```text
//!   fault ─────────────► pass: --fail, then Missing is told ─────► next pass: "degraded" is told
//!   return ────────────► pass: --add                        ─────► next pass: Synchronizing is told
//!   end of the resync ─► pass: Available is told
//! ```
//!
//! How long a pass takes is given: 0.2 s for one healthy array, some 2.5 s with a replica that is
//! missing, 30.5 to 34.9 s with one that cannot be reached.

use std::time::Duration;

/// The first pass after the start.
const FIRST: Duration = Duration::from_secs(1);
/// From the end of a pass to the next.
const PAUSE: Duration = Duration::from_secs(30);

/// How long passes take, by what they meet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Passes {
    /// Everything is well.
    pub healthy: Duration,
    /// The leg is lost.
    pub lost: Duration,
}

impl Default for Passes {
    fn default() -> Self {
        Self { healthy: Duration::from_millis(200), lost: Duration::from_millis(2500) }
    }
}

/// What happened to the leg, after the agent's start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Story {
    /// It was lost.
    pub fault: Duration,
    /// It was there again. Not before the fault.
    pub back: Duration,
    /// How long its resync takes once it is added.
    pub resync: Duration,
}

/// When the agent did what, after its start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeline {
    /// The leg is failed in the array and told as `Missing`; none if it was back before a pass saw
    /// it gone.
    pub missing: Option<Duration>,
    /// The leg is added again.
    pub added: Option<Duration>,
    /// `Synchronizing` is told.
    pub synchronizing: Option<Duration>,
    /// `Available` is told.
    pub available: Option<Duration>,
}

/// Plays `story`.
#[must_use]
pub fn play(story: Story, passes: Passes) -> Timeline {
    let mut timeline =
        Timeline { missing: None, added: None, synchronizing: None, available: None };
    let mut now = FIRST;
    // The end of the story and two passes more: everything has been told by then.
    let end = story.back + story.resync + 4 * (PAUSE + passes.lost);
    while now < end && timeline.available.is_none() {
        let gone = now >= story.fault && now < story.back;
        match (timeline.missing, timeline.added) {
            (None, _) if gone => timeline.missing = Some(now),
            // It came and went between two passes.
            (None, _) if now >= story.back => return timeline,
            (Some(_), None) if !gone => timeline.added = Some(now),
            (Some(_), Some(added)) => {
                if now >= added + story.resync {
                    timeline.available = Some(now);
                } else if timeline.synchronizing.is_none() {
                    timeline.synchronizing = Some(now);
                }
            }
            (None, _) | (Some(_), None) => {}
        }
        now += PAUSE + if gone { passes.lost } else { passes.healthy };
    }
    timeline
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(seconds: f64) -> Duration {
        Duration::from_secs_f64(seconds)
    }

    /// Delays from the fault to `Missing`, and from the return to the add, over faults at every
    /// phase.
    fn delays() -> Vec<(f64, f64)> {
        (0..3000)
            .map(|step| {
                let fault = seconds(100.0 + f64::from(step) * 0.0302);
                let back = fault + seconds(200.0);
                let story = Story { fault, back, resync: seconds(50.0) };
                let told = play(story, Passes::default());
                let missing = told.missing.expect("it was gone for long") - fault;
                let added = told.added.expect("it came back") - back;
                (missing.as_secs_f64(), added.as_secs_f64())
            })
            .collect()
    }

    #[test]
    fn a_dead_leg_is_seen_after_half_a_period_at_the_mean_and_never_after_more_than_one() {
        let delays = delays();
        let mean = delays.iter().map(|(missing, _)| missing).sum::<f64>() / 3000.0;
        assert!((14.0..16.5).contains(&mean), "{mean}");
        assert!(delays.iter().all(|(missing, _)| *missing <= 30.2));
    }

    #[test]
    fn a_leg_that_is_back_waits_for_a_pass_as_well() {
        let mean = delays().iter().map(|(_, added)| added).sum::<f64>() / 3000.0;
        assert!((14.0..18.0).contains(&mean), "{mean}");
    }

    #[test]
    fn what_comes_and_goes_between_two_passes_is_not_seen() {
        let story = Story { fault: seconds(5.0), back: seconds(10.0), resync: seconds(1.0) };
        let told = play(story, Passes::default());
        assert_eq!((told.missing, told.added), (None, None));
    }

    #[test]
    fn the_word_of_a_step_comes_one_pass_after_it() {
        let story = Story { fault: seconds(5.0), back: seconds(40.0), resync: seconds(90.0) };
        let told = play(story, Passes::default());
        let (added, synchronizing) = (told.added.unwrap(), told.synchronizing.unwrap());
        assert_eq!(synchronizing - added, PAUSE + Passes::default().healthy);
        assert!(told.available.unwrap() >= added + seconds(90.0));
    }
}
