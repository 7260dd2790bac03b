//! How long it took from MD's notification to the decision in the journal's queue.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use heal_types::status::Reaction;

/// Upper bounds of the buckets, microseconds.
const BOUNDS: [u64; 12] =
    [250, 500, 1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 64_000, 250_000, 1_000_000, u64::MAX];
/// The newest samples, from which the percentiles are taken.
const NEWEST: usize = 1024;

/// The histogram all actors add to.
#[derive(Debug, Default)]
pub(crate) struct Reactions(Mutex<Samples>);

#[derive(Debug, Default)]
struct Samples {
    count: u64,
    max_us: u64,
    buckets: [u64; BOUNDS.len()],
    newest: Vec<u64>,
    next: usize,
}

impl Reactions {
    /// Adds one.
    pub(crate) fn record(&self, took: Duration) {
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let mut samples = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        samples.count += 1;
        samples.max_us = samples.max_us.max(us);
        let bucket = BOUNDS.iter().position(|bound| us <= *bound);
        samples.buckets[bucket.unwrap_or(BOUNDS.len() - 1)] += 1;
        let next = samples.next;
        if samples.newest.len() < NEWEST {
            samples.newest.push(us);
        } else {
            samples.newest[next] = us;
        }
        samples.next = (next + 1) % NEWEST;
    }

    /// As `status` shows it.
    pub(crate) fn summary(&self) -> Reaction {
        let samples = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut sorted = samples.newest.clone();
        sorted.sort_unstable();
        let at = |percent: usize| {
            let rank = (sorted.len() * percent).div_ceil(100).max(1);
            sorted.get(rank - 1).copied()
        };
        Reaction {
            count: samples.count,
            median_us: at(50),
            p99_us: at(99),
            max_us: (samples.count > 0).then_some(samples.max_us),
            buckets: BOUNDS.into_iter().zip(samples.buckets).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_samples_and_nothing_is_invented_without_one() {
        let reactions = Reactions::default();
        assert_eq!(reactions.summary().median_us, None);
        for us in 1..=100 {
            reactions.record(Duration::from_micros(us * 10));
        }
        let summary = reactions.summary();
        assert_eq!((summary.count, summary.max_us), (100, Some(1000)));
        assert_eq!((summary.median_us, summary.p99_us), (Some(500), Some(990)));
        assert_eq!(summary.buckets[..3], [(250, 25), (500, 25), (1000, 50)]);
    }

    #[test]
    fn old_samples_make_room() {
        let reactions = Reactions::default();
        for _ in 0..NEWEST {
            reactions.record(Duration::from_secs(10));
        }
        for _ in 0..NEWEST {
            reactions.record(Duration::from_micros(7));
        }
        let summary = reactions.summary();
        assert_eq!(summary.p99_us, Some(7));
        assert_eq!((summary.count, summary.max_us), (2048, Some(10_000_000)));
    }
}
