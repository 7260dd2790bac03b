//! Scenarios side by side: two VMs, because a scenario mostly waits for the kernel's timers.
//!
//! ```text
//!   (kernel, scenario), longest first ──► a lane takes the first that its VM ─┬─► lane 1 ─► its VM
//!   what is left                          can run, or boots another one       └─► lane 2 ─► its VM
//! ```
//!
//! Nothing is shared out beforehand: how long a scenario takes on this machine shows when it has
//! run.
//!
//! Not for what is measured to the millisecond: where that is shown, it comes first, one VM after
//! the other and nothing beside it.
//!
//! The price: their lines are mixed, so each is printed behind the name of its scenario.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use anyhow::Context as _;

use crate::lab::kernel::Series;
use crate::lab::scenario::{Multipath, Scenario};
use crate::lab::session::{BootOptions, ScenarioResult};
use crate::lab::{Guests, Printed, bring, image};

/// More VMs than this only wait for each other's processors.
const LANES: usize = 2;

/// What kind of VM runs a scenario.
type Kind = (Series, (Multipath, bool));

fn kind((kernel, scenario): &(Series, Scenario)) -> Kind {
    (*kernel, scenario.boot_group())
}

/// What is left to run, longest first.
#[derive(Debug)]
struct Left(Mutex<Vec<(Series, Scenario)>>);

impl Left {
    fn new(mut wanted: Vec<(Series, Scenario)>) -> Self {
        wanted.sort_by_key(|(_, scenario)| std::cmp::Reverse(scenario.timeout));
        Self(Mutex::new(wanted))
    }

    /// What a lane with a VM of that kind runs next: a boot costs as much as a short scenario.
    fn next(&self, running: Option<Kind>) -> Option<(Series, Scenario)> {
        let mut left = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let same = left.iter().position(|one| Some(kind(one)) == running);
        let kernel = running.map(|(kernel, _)| kernel);
        let at =
            same.or_else(|| left.iter().position(|(one, _)| Some(*one) == kernel)).unwrap_or(0);
        (!left.is_empty()).then(|| left.remove(at))
    }
}

/// Runs what is wanted, and tells what came of it, in the order in which it was wanted. Whether
/// what measures runs `alone` is asked for: it takes longer.
pub(super) fn run(
    wanted: Vec<(Series, Scenario)>,
    alone: bool,
    deb: Option<&Path>,
    verbose: bool,
) -> anyhow::Result<Vec<(Series, ScenarioResult)>> {
    // Made here, once: two lanes would make the same ones twice.
    let brought = bring(&wanted.iter().map(|(_, scenario)| scenario).collect::<Vec<_>>())?;
    for kernel in wanted.iter().map(|(kernel, _)| *kernel).collect::<BTreeSet<Series>>() {
        image::prepare(kernel, false)?;
    }
    // Each VM has a directory of its own for what it leaves.
    let boots = |kernel| {
        let options = BootOptions::new(kernel, deb.map(Path::to_owned))?;
        anyhow::Ok(BootOptions { keep: false, brought: brought.clone(), ..options })
    };
    let order: Vec<(Series, String)> =
        wanted.iter().map(|(kernel, scenario)| (*kernel, scenario.name.clone())).collect();
    let (measured, others): (Vec<_>, Vec<_>) =
        wanted.into_iter().partition(|(_, scenario)| alone && scenario.alone);
    let mut results = run_lanes(measured, 1, &boots, verbose)?;
    results.extend(run_lanes(others, LANES, &boots, verbose)?);
    results.sort_by_key(|(kernel, result)| {
        order.iter().position(|(on, name)| on == kernel && *name == result.name)
    });
    Ok(results)
}

fn run_lanes(
    wanted: Vec<(Series, Scenario)>,
    lanes: usize,
    boots: &(impl Fn(Series) -> anyhow::Result<BootOptions> + Sync),
    verbose: bool,
) -> anyhow::Result<Vec<(Series, ScenarioResult)>> {
    let printed = Printed { verbose, mixed: lanes > 1 };
    let left = Left::new(wanted);
    std::thread::scope(|scope| {
        let lanes: Vec<_> =
            (0..lanes).map(|_| scope.spawn(|| run_lane(&left, boots, printed))).collect();
        let mut results = Vec::new();
        for lane in lanes {
            results.extend(lane.join().ok().context("a lane of the proof broke off")??);
        }
        Ok(results)
    })
}

fn run_lane(
    left: &Left,
    boots: &impl Fn(Series) -> anyhow::Result<BootOptions>,
    printed: Printed,
) -> anyhow::Result<Vec<(Series, ScenarioResult)>> {
    let mut results = Vec::new();
    let mut running: Option<(Kind, Guests)> = None;
    while let Some(next) = left.next(running.as_ref().map(|(kind, _)| *kind)) {
        let (kernel, scenario) = &next;
        let mut guests = match running.take() {
            Some(((same, _), guests)) if same == *kernel => guests,
            Some(_) | None => Guests::new(boots(*kernel)?, printed),
        };
        results.push((*kernel, guests.run(scenario)?));
        running = Some((kind(&next), guests));
    }
    Ok(results)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::scenario;

    fn all_on_both() -> Vec<(Series, Scenario)> {
        let all = scenario::select(&scenario::directory(), &["stall-".to_owned()]).unwrap();
        let of = |kernel| all.iter().map(move |scenario| (kernel, scenario.clone()));
        of(Series::V6_1).chain(of(Series::V6_12)).collect()
    }

    #[test]
    fn a_lane_takes_the_longest_its_vm_can_run_and_boots_no_vm_it_does_not_need() {
        let wanted = all_on_both();
        let count = wanted.len();
        let kinds = wanted.iter().map(kind).collect::<BTreeSet<_>>().len();
        let longest = wanted.iter().map(|(_, scenario)| scenario.timeout).max();
        let left = Left::new(wanted);
        let (mut running, mut boots, mut taken) = (None, 0, 0);
        while let Some(next) = left.next(running) {
            if taken == 0 {
                assert_eq!(Some(next.1.timeout), longest);
            }
            boots += usize::from(running != Some(kind(&next)));
            running = Some(kind(&next));
            taken += 1;
        }
        assert_eq!((taken, boots), (count, kinds));
    }

    #[test]
    fn two_lanes_run_everything_once() {
        let wanted = all_on_both();
        let mut names: Vec<_> =
            wanted.iter().map(|(kernel, scenario)| (*kernel, scenario.name.clone())).collect();
        let left = Left::new(wanted);
        let mut lanes = [None, None];
        let mut taken = Vec::new();
        while let Some(next) = left.next(lanes[0]) {
            lanes = [lanes[1], Some(kind(&next))];
            taken.push((next.0, next.1.name));
        }
        names.sort();
        taken.sort();
        assert_eq!(taken, names);
    }
}
