//! The contract suite: what a provisioner must do, as cases that run against any of them.
//!
//! A vendor writes a [`Fixture`], which can stand a volume up on a real or a test provisioner, take
//! the provisioner away and bring it back, and runs [`run`]. Every case has a sentence for a name,
//! starts from a fresh [`Stage`], and goes through [`dispatch`](crate::dispatch) as the daemon
//! does, so an answer that the daemon would not believe fails here first.
//!
//! ```text
//!   run ──► for each case:  Fixture::set_up(stage) ──► Standing { provisioner, query }
//!                           the case's calls       ──► passed | failed, why | skipped, why
//!       ──► SuiteReport (prints as TAP)
//! ```
//!
//! Ids are the provisioner's own affair: the suite asks for "a volume of two replicas and one
//! spare" and learns the ids by `find_volume`. What a fixture cannot do, it says, and the cases
//! that need it are skipped by name, never silently.
//!
//! The price: the suite sees a provisioner only through the calls of the trait. That a replica is
//! *really* deleted, or really another disk, is for the vendor's own tests.

mod bench;
mod grants;
pub mod live;
mod lookup;
mod reports;

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use heal_types::{SectorCount, VolumeQuery};

use crate::Provisioner;
use bench::{Bench, Case, EndWhy};

/// What a case wants to find.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stage {
    /// How the volume's array is known to the provisioner.
    pub known_by: KnownBy,
    /// How many replicas it has; all good.
    pub replicas: u16,
    /// How large each is.
    pub size: SectorCount,
    /// How many further replicas can be had, and how large, in the order in which the provisioner
    /// would take them if it has an order.
    pub spares: Vec<SectorCount>,
}

/// How the volume's array is known to the provisioner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KnownBy {
    /// By the array's UUID only.
    Array,
    /// By its name only.
    Alias,
    /// By both.
    Both,
}

/// A stage that stands.
#[derive(Debug, Clone)]
pub struct Standing {
    /// The backend, ready for calls.
    pub provisioner: Arc<dyn Provisioner>,
    /// What finds the volume: always with both the array's UUID and its name, whichever of them the
    /// provisioner knows.
    pub query: VolumeQuery,
}

/// Why a fixture did not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FixtureWhy {
    /// It cannot, here: the case is skipped.
    NotPossible(String),
    /// It should have been able to: the case fails.
    Broken(String),
}

/// Sets provisioners up for the suite.
#[async_trait]
pub trait Fixture: Send + Sync {
    /// Makes a volume as `stage` says, on a provisioner without any other volume or spare,
    /// reachable, and with no memory of earlier cases.
    async fn set_up(&mut self, stage: &Stage) -> Result<Standing, FixtureWhy>;

    /// From now on the provisioner cannot be reached.
    async fn go_away(&mut self) -> Result<(), FixtureWhy>;

    /// It can be reached again, with everything it knew.
    async fn come_back(&mut self) -> Result<(), FixtureWhy>;

    /// The backend, and the provisioner if that can be done, dies without warning and starts again
    /// with what it had made durable.
    async fn restart(&mut self) -> Result<Arc<dyn Provisioner>, FixtureWhy>;
}

/// What became of a case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The promise is kept.
    Passed,
    /// It is not.
    Failed {
        /// What was seen and what was wanted.
        why: String,
    },
    /// The fixture cannot stage it.
    Skipped {
        /// What is missing.
        why: String,
    },
}

/// One case of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CaseReport {
    /// The case, as a sentence.
    pub name: String,
    /// What became of it.
    pub verdict: Verdict,
}

/// A run of the suite. Prints as TAP 13.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SuiteReport {
    /// Every case, in the suite's order.
    pub cases: Vec<CaseReport>,
}

impl SuiteReport {
    /// Whether no case failed.
    #[must_use]
    pub fn passed(&self) -> bool {
        self.failures().next().is_none()
    }

    /// The cases that failed.
    pub fn failures(&self) -> impl Iterator<Item = &CaseReport> {
        self.cases.iter().filter(|case| matches!(case.verdict, Verdict::Failed { .. }))
    }
}

impl fmt::Display for SuiteReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "TAP version 13\n1..{}", self.cases.len())?;
        for (number, case) in (1..).zip(&self.cases) {
            let name = &case.name;
            match &case.verdict {
                Verdict::Passed => writeln!(f, "ok {number} - {name}")?,
                Verdict::Failed { why } => {
                    writeln!(f, "not ok {number} - {name}")?;
                    why.lines().try_for_each(|line| writeln!(f, "# {line}"))?;
                }
                Verdict::Skipped { why } => {
                    writeln!(f, "ok {number} - {name} # SKIP {}", why.replace('\n', " "))?;
                }
            }
        }
        Ok(())
    }
}

fn all() -> impl Iterator<Item = Case> {
    lookup::CASES.iter().chain(reports::CASES).chain(grants::CASES).copied()
}

/// The names of all cases, in the order in which they run.
pub fn names() -> impl Iterator<Item = String> {
    all().map(|case| case.sentence())
}

/// Runs every case.
pub async fn run(fixture: &mut dyn Fixture) -> SuiteReport {
    run_if(fixture, |_| true).await
}

/// Runs the cases whose name `wanted` accepts.
pub async fn run_if(fixture: &mut dyn Fixture, wanted: impl Fn(&str) -> bool) -> SuiteReport {
    let mut cases = Vec::new();
    for case in all().filter(|case| wanted(&case.sentence())) {
        let verdict = match (case.run)(Bench::new(fixture)).await {
            Ok(()) => Verdict::Passed,
            Err(EndWhy::Failed(why)) => Verdict::Failed { why },
            Err(EndWhy::Skipped(why)) => Verdict::Skipped { why },
        };
        cases.push(CaseReport { name: case.sentence(), verdict });
    }
    SuiteReport { cases }
}
