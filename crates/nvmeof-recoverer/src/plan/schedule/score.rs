//! How good a place is, in thousandths of a point: 0 to 100 points for each part, weighted.

use std::fmt;

use heal_types::Observed;

use crate::plan::Weights;
use crate::plan::view::{Permille, Reach, Resources, Usage};

/// A hundred points.
const FULL: u32 = 100_000;
/// What a metric that is missing is worth.
const NEUTRAL: u32 = FULL / 2;
/// A target this far away is worth nothing, in microseconds.
const FAR: u32 = 1000;

/// A score with its parts, each in thousandths of a point.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Score {
    /// The weighted mean.
    pub total: u32,
    /// How few OSDs the node has, against the emptiest.
    pub balance: u32,
    /// What pods leave free, by their requests.
    pub requests: u32,
    /// What is free by measure.
    pub usage: u32,
    /// How little it waits for I/O.
    pub io: u32,
    /// How near the target is.
    pub locality: u32,
}

impl Score {
    pub(super) fn weighted(mut self, weights: Weights) -> Self {
        let sum = [
            (self.balance, weights.balance),
            (self.requests, weights.requests),
            (self.usage, weights.usage),
            (self.io, weights.io),
            (self.locality, weights.locality),
        ]
        .into_iter()
        .map(|(part, weight)| u64::from(part) * u64::from(weight))
        .fold(0, u64::saturating_add);
        let mean = sum / u64::from(weights.total());
        self.total = u32::try_from(mean).unwrap_or(FULL).min(FULL);
        self
    }
}

impl fmt::Display for Score {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let points = |part: u32| part / 1000;
        write!(
            f,
            "{} (balance {}, requests {}, usage {}, io {}, locality {})",
            points(self.total),
            points(self.balance),
            points(self.requests),
            points(self.usage),
            points(self.io),
            points(self.locality)
        )
    }
}

/// All points for the emptiest, half for two OSDs more, and never nothing: a difference near the
/// bottom counts, and one between two full nodes hardly does.
pub(super) fn balance(above_emptiest: u64, mean_osd: u64) -> u32 {
    let step = mean_osd.max(1).saturating_mul(2);
    share(step, step.saturating_add(above_emptiest))
}

pub(super) fn requests(free: Resources, allocatable: Resources) -> u32 {
    let cpu = share(free.cpu_milli, allocatable.cpu_milli);
    let memory = share(free.memory, allocatable.memory);
    cpu.midpoint(memory)
}

pub(super) fn usage(used: &Observed<Usage>) -> u32 {
    used.known().map_or(NEUTRAL, |used| free(used.cpu).midpoint(free(used.memory)))
}

pub(super) fn io(wait: &Observed<Permille>) -> u32 {
    wait.known().map_or(NEUTRAL, |wait| free(*wait))
}

pub(super) fn locality(reach: Option<&Observed<Reach>>) -> u32 {
    match reach.and_then(Observed::known) {
        Some(Reach::Micros(micros)) => FULL / FAR * (FAR - (*micros).min(FAR)),
        Some(Reach::Unreachable) => 0,
        None => NEUTRAL,
    }
}

fn free(used: Permille) -> u32 {
    FULL - used.thousandths() * (FULL / 1000)
}

/// In 64 bits, because this is asked for every OSD of every node: what is too large loses its last
/// bits.
fn share(part: u64, whole: u64) -> u32 {
    const BITS: u32 = 40;
    let shift = (u64::BITS - whole.leading_zeros()).saturating_sub(BITS);
    let (part, whole) = (part.min(whole) >> shift, (whole >> shift).max(1));
    u32::try_from(part * u64::from(FULL) / whole).unwrap_or(FULL).min(FULL)
}
