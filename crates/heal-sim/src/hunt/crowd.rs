//! Many seeds at once: one thread a processor, and every seed for itself.
//!
//! The seeds are given out in order and what a seed finds depends on nothing but the seed, so a
//! hunt on eight processors finds what a hunt on one does, only sooner.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::coverage::Edges;
use super::log::EventLog;
use super::table::Table;
use super::told_quietly;
use crate::invariants::Violation;

/// When to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// After so long.
    pub time: Option<Duration>,
    /// After so many incidents.
    pub incidents: Option<u64>,
    /// After so many seeds.
    pub seeds: Option<u64>,
    /// After so many finds.
    pub finds: Option<usize>,
}

/// A hunt.
#[derive(Debug, Clone)]
pub struct Hunt {
    /// The first seed.
    pub from: u64,
    /// The tables, one after the other with each seed.
    pub tables: Vec<Table>,
    /// Wishes in a story.
    pub wishes: u32,
    /// Threads.
    pub threads: usize,
    /// When to stop.
    pub limits: Limits,
}

/// A rule that broke.
#[derive(Debug, Clone)]
pub struct Find {
    /// The story.
    pub log: EventLog,
    /// What broke, first to last.
    pub violations: Vec<Violation>,
    /// After how many seeds.
    pub seeds: u64,
    /// After how long.
    pub time: Duration,
}

/// What a hunt came to.
#[derive(Debug, Clone, Default)]
pub struct Bag {
    /// Stories told.
    pub seeds: u64,
    /// Legs lost in them that had to be healed.
    pub incidents: u64,
    /// Events applied.
    pub events: u64,
    /// How long it took.
    pub time: Duration,
    /// The moves that were made.
    pub edges: Edges,
    /// What was found, in the order of seeds.
    pub finds: Vec<Find>,
}

impl Hunt {
    /// The table of a seed.
    #[must_use]
    pub fn table(&self, seed: u64) -> Table {
        let count = u64::try_from(self.tables.len()).unwrap_or(1).max(1);
        let at = usize::try_from(seed % count).unwrap_or(0);
        self.tables.get(at).copied().unwrap_or(Table::Everything)
    }

    /// Hunts until a limit is reached. `watch` hears of every find as it comes.
    pub fn run(&self, watch: impl Fn(&Find) + Sync) -> Bag {
        let began = Instant::now();
        let next = AtomicU64::new(self.from);
        let enough = AtomicBool::new(false);
        let bag = Mutex::new(Bag::default());
        std::thread::scope(|scope| {
            for _ in 0..self.threads.max(1) {
                scope.spawn(|| {
                    while !enough.load(Ordering::Relaxed) {
                        let seed = next.fetch_add(1, Ordering::Relaxed);
                        let (world, log) = told_quietly(self.table(seed), seed, self.wishes);
                        let mut bag = bag.lock().unwrap_or_else(PoisonError::into_inner);
                        bag.seeds += 1;
                        bag.incidents += world.incidents();
                        bag.events += u64::try_from(log.events.len()).unwrap_or(0);
                        bag.edges.merge(world.edges());
                        if !world.violations().is_empty() {
                            let violations = world.violations().to_vec();
                            let (seeds, time) = (bag.seeds, began.elapsed());
                            let find = Find { log, violations, seeds, time };
                            watch(&find);
                            bag.finds.push(find);
                        }
                        if self.limits.are_reached(&bag, began.elapsed()) {
                            enough.store(true, Ordering::Relaxed);
                        }
                    }
                });
            }
        });
        let mut bag = bag.into_inner().unwrap_or_else(PoisonError::into_inner);
        bag.finds.sort_by_key(|find| find.log.head.seed);
        bag.time = began.elapsed();
        bag
    }
}

impl Limits {
    fn are_reached(&self, bag: &Bag, time: Duration) -> bool {
        self.time.is_some_and(|limit| time >= limit)
            || self.incidents.is_some_and(|limit| bag.incidents >= limit)
            || self.seeds.is_some_and(|limit| bag.seeds >= limit)
            || self.finds.is_some_and(|limit| bag.finds.len() >= limit)
    }
}
