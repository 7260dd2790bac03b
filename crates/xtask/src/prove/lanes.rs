//! Scenarios side by side: two VMs, because a scenario mostly waits for the kernel's timers.
//!
//! ```text
//!   (kernel, scenario), longest first ──► the lane that has less to do ─┬─► lane 1: a VM for each kernel
//!                                                                       └─► lane 2: a VM for each kernel
//! ```
//!
//! Not for what is to be measured: a full proof runs one VM after the other and alone.
//!
//! The price: their lines are mixed, so each is printed behind the name of its scenario.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;

use crate::lab::kernel::Series;
use crate::lab::scenario::Scenario;
use crate::lab::session::{BootOptions, ScenarioResult};
use crate::lab::{Printed, files, image, run_all};

/// More VMs than this only wait for each other's processors.
pub(super) const LANES: usize = 2;

/// What one VM after another runs.
type Lane = Vec<(Series, Scenario)>;

/// Shares the scenarios out, what takes longest first.
fn share_out(mut wanted: Lane, lanes: usize) -> Vec<Lane> {
    let mut lanes: Vec<(Duration, Lane)> = vec![Default::default(); lanes];
    wanted.sort_by_key(|(_, scenario)| std::cmp::Reverse(scenario.timeout));
    for (kernel, scenario) in wanted {
        if let Some((load, lane)) = lanes.iter_mut().min_by_key(|(load, _)| *load) {
            *load += scenario.timeout;
            lane.push((kernel, scenario));
        }
    }
    let mut lanes: Vec<Lane> = lanes.into_iter().map(|(_, lane)| lane).collect();
    for lane in &mut lanes {
        // Those that share a boot together.
        lane.sort_by_key(|(kernel, scenario)| (*kernel, scenario.boot_group()));
    }
    lanes
}

/// Runs what is wanted, and tells what came of it, in the order in which it was wanted.
pub(super) fn run(
    wanted: Lane,
    lanes: usize,
    deb: Option<&Path>,
    verbose: bool,
) -> anyhow::Result<Vec<(Series, ScenarioResult)>> {
    // Made here, once: two lanes would make the same one twice.
    for kernel in wanted.iter().map(|(kernel, _)| *kernel).collect::<BTreeSet<Series>>() {
        image::prepare(kernel, false)?;
    }
    files(&wanted.iter().map(|(_, scenario)| scenario).collect::<Vec<_>>())?;
    let printed = Printed { verbose, mixed: lanes > 1 };
    let order: Vec<(Series, String)> =
        wanted.iter().map(|(kernel, scenario)| (*kernel, scenario.name.clone())).collect();
    let mut results = std::thread::scope(|scope| {
        let lanes: Vec<_> = share_out(wanted, lanes)
            .into_iter()
            .map(|lane| scope.spawn(move || run_lane(&lane, deb, printed)))
            .collect();
        let mut results = Vec::new();
        for lane in lanes {
            results.extend(lane.join().ok().context("a lane of the proof broke off")??);
        }
        anyhow::Ok(results)
    })?;
    results.sort_by_key(|(kernel, result)| {
        order.iter().position(|(on, name)| on == kernel && *name == result.name)
    });
    Ok(results)
}

fn run_lane(
    lane: &[(Series, Scenario)],
    deb: Option<&Path>,
    printed: Printed,
) -> anyhow::Result<Vec<(Series, ScenarioResult)>> {
    let mut results = Vec::new();
    for on_one in lane.chunk_by(|(one, _), (other, _)| one == other) {
        let Some((kernel, _)) = on_one.first() else { continue };
        let mut options = BootOptions::new(*kernel, deb.map(Path::to_owned))?;
        options.keep = false;
        let scenarios: Vec<&Scenario> = on_one.iter().map(|(_, scenario)| scenario).collect();
        options.files = files(&scenarios)?;
        let ended = run_all(&options, &scenarios, printed)?;
        results.extend(ended.into_iter().map(|result| (*kernel, result)));
    }
    Ok(results)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::scenario;

    #[test]
    fn nothing_is_left_out_and_no_lane_has_twice_the_work() {
        let all = scenario::select(&scenario::directory(), &["stall-".to_owned()]).unwrap();
        let of = |kernel| all.iter().map(move |scenario| (kernel, scenario.clone()));
        let wanted: Lane = of(Series::V6_1).chain(of(Series::V6_12)).collect();
        let count = wanted.len();
        let lanes = share_out(wanted, LANES);
        assert_eq!((lanes.len(), lanes.iter().map(Vec::len).sum::<usize>()), (LANES, count));
        let load = |lane: &Lane| lane.iter().map(|(_, it)| it.timeout.as_secs()).sum::<u64>();
        let (least, most) =
            (load(&lanes[0]).min(load(&lanes[1])), load(&lanes[0]).max(load(&lanes[1])));
        assert!(most < 2 * least, "{least} s and {most} s");
    }
}
