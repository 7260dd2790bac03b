//! `cargo xtask bench stall`: how long an application waits when a cable is pulled, by who reacts.
//!
//! ```text
//!   stall-sidebyside.sh ──► FIGURE stall_STRATEGY_N=ms ──► Pull ─┬─► table: median and worst
//!     one VM, one workload,                                      └─► plot: a dot for each pull
//!     one strategy after another                                       --write: README, stall.svg
//! ```
//!
//! The strategies are measured in one boot and by one workload, so their rows may be read against
//! each other. On an emulated machine nothing else may be read from them: every figure is longer
//! than it is on real hardware, which is why the table says what it was measured on.

mod plot;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context as _, bail};

use crate::lab::kernel::Series;
use crate::lab::scenario::{self, Figure, Multipath};
use crate::lab::session::BootOptions;
use crate::lab::{Printed, run_all};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// What to measure.
    #[arg(value_enum)]
    what: What,
    /// Kernels to measure on.
    #[arg(long, value_enum, value_delimiter = ',', default_value = "6.1")]
    kernel: Vec<Series>,
    /// How often each strategy's cables are pulled.
    #[arg(long, default_value_t = 5)]
    pulls: u32,
    /// With or without native NVMe multipath.
    #[arg(long, value_enum, default_value_t)]
    multipath: Multipath,
    /// Take this package instead of building one.
    #[arg(long)]
    deb: Option<PathBuf>,
    /// Only these strategies, by the names their figures bear.
    #[arg(long, value_delimiter = ',')]
    strategies: Vec<String>,
    /// Put the table into README.md and the plot beside the lab's own README.
    #[arg(long)]
    write: bool,
    /// Print every line of the scenario.
    #[arg(long, short)]
    verbose: bool,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum What {
    /// The stall of an application after a cable pull.
    Stall,
}

const SCENARIO: &str = "stall-sidebyside";

/// Beyond a minute for each pull: arrays to be made, legs to be taken back.
const SECONDS_PER_PULL: u64 = 250;

/// Who reacts to the cable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Strategy {
    None,
    Monitor,
    FastIoFail,
    Heald,
    HealdAtOnce,
}

impl Strategy {
    const ALL: [Self; 5] =
        [Self::None, Self::Monitor, Self::FastIoFail, Self::Heald, Self::HealdAtOnce];

    /// As the scenario's figures name it.
    pub(crate) fn key(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Monitor => "monitor",
            Self::FastIoFail => "fast_io_fail",
            Self::Heald => "heald",
            Self::HealdAtOnce => "heald_at_once",
        }
    }

    fn is_ours(self) -> bool {
        matches!(self, Self::Heald | Self::HealdAtOnce)
    }
}

impl fmt::Display for Strategy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "no agent",
            Self::Monitor => "mdadm --monitor, PROGRAM fails the leg",
            Self::FastIoFail => "fast_io_fail_tmo=5 by hand",
            Self::Heald => "nvme-heald",
            Self::HealdAtOnce => "nvme-heald, isolate_after: 0s",
        })
    }
}

/// One cable pulled once.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Pull {
    pub(crate) strategy: Strategy,
    /// The longest write.
    pub(crate) ms: f64,
    /// The application still waited when it was put out of its misery.
    pub(crate) cut_off: bool,
}

impl Pull {
    /// Every `stall_STRATEGY_N` among the figures.
    pub(crate) fn all(figures: &[Figure]) -> Vec<Self> {
        figures.iter().filter_map(Self::read).collect()
    }

    fn read(figure: &Figure) -> Option<Self> {
        let (key, number) = figure.name.strip_prefix("stall_")?.rsplit_once('_')?;
        number.parse::<u32>().ok()?;
        let strategy = Strategy::ALL.into_iter().find(|strategy| strategy.key() == key)?;
        Some(Self { strategy, ms: figure.value, cut_off: figure.unit.contains("cut off") })
    }

    fn shown(self) -> String {
        let sign = if self.cut_off { "> " } else { "" };
        format!("{sign}{:.1} s", self.ms / 1000.0)
    }
}

/// All pulls of one strategy on one kernel, shortest first.
#[derive(Debug, Clone, PartialEq)]
struct Row {
    kernel: String,
    strategy: Strategy,
    pulls: Vec<Pull>,
}

impl Row {
    fn all(kernel: &str, pulls: &[Pull]) -> Vec<Self> {
        let mut rows: BTreeMap<Strategy, Vec<Pull>> = BTreeMap::new();
        for pull in pulls {
            rows.entry(pull.strategy).or_default().push(*pull);
        }
        rows.into_iter()
            .map(|(strategy, mut pulls)| {
                pulls.sort_by(|one, other| one.ms.total_cmp(&other.ms));
                Self { kernel: kernel.to_owned(), strategy, pulls }
            })
            .collect()
    }

    /// With an even number, the longer of the two in the middle: never flattering.
    fn median(&self) -> Option<Pull> {
        self.pulls.get(self.pulls.len() / 2).copied()
    }

    fn worst(&self) -> Option<Pull> {
        self.pulls.last().copied()
    }
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let What::Stall = args.what;
    let started = Instant::now();
    let deb = match &args.deb {
        Some(deb) => deb.clone(),
        None => crate::package::deb::build()?,
    };
    let mut rows = Vec::new();
    let mut failed = Vec::new();
    for &kernel in &args.kernel {
        let options = BootOptions::new(kernel, Some(deb.clone()))?;
        let mut scenario = scenario::select(&scenario::directory(), &[SCENARIO.to_owned()])?;
        for scenario in &mut scenario {
            scenario.multipath = args.multipath;
            scenario.say("PULLS", &args.pulls.to_string());
            if !args.strategies.is_empty() {
                scenario.say("STRATEGIES", &args.strategies.join(" "));
            }
            let seconds = u64::from(args.pulls.max(1)) * SECONDS_PER_PULL + 300;
            scenario.timeout = std::time::Duration::from_secs(seconds);
        }
        let printed = Printed { verbose: args.verbose, ..Printed::default() };
        for result in run_all(&options, &scenario.iter().collect::<Vec<_>>(), printed)? {
            rows.extend(Row::all(&kernel.to_string(), &Pull::all(&result.figures)));
            if !result.passed {
                failed.push(kernel.to_string());
            }
        }
    }
    let table = table(&rows, args.multipath);
    println!("\n{table}");
    let drawing = plot::draw(&rows);
    let drawn = crate::workspace::target().join("lab/latest/stall.svg");
    std::fs::write(&drawn, &drawing)?;
    println!("bench: the plot is {}", drawn.display());
    if !failed.is_empty() {
        bail!(
            "the scenario did not hold on {}: the figures are not to be trusted",
            failed.join(", ")
        );
    }
    if args.write {
        write(&table, &drawing)?;
    }
    println!("bench: {} strategies measured in {} s", rows.len(), started.elapsed().as_secs());
    Ok(())
}

fn table(rows: &[Row], multipath: Multipath) -> String {
    let mut text =
        String::from("| kernel | who reacts | pulls | median | worst |\n|---|---|---|---|---|\n");
    for row in rows {
        let shown = |pull: Option<Pull>| pull.map_or_else(|| "–".to_owned(), Pull::shown);
        text.push_str(&format!(
            "| {}{} | {} | {} | {} | {} |\n",
            row.kernel,
            if multipath == Multipath::Off { ", multipath off" } else { "" },
            row.strategy,
            row.pulls.len(),
            shown(row.median()),
            shown(row.worst()),
        ));
    }
    text
}

const BEGIN: &str = "<!-- cargo xtask bench stall --write: begin -->\n";
const END: &str = "<!-- cargo xtask bench stall --write: end -->\n";

/// The table between its marks in the README, the plot where the README's link leads.
fn write(table: &str, drawing: &str) -> anyhow::Result<()> {
    let root = crate::workspace::root();
    let readme = root.join("README.md");
    let text = std::fs::read_to_string(&readme)?;
    let text = between_marks(&text, table).with_context(|| format!("in {}", readme.display()))?;
    std::fs::write(&readme, text)?;
    let plot = root.join(Path::new("tests/kernel/stall.svg"));
    std::fs::write(&plot, drawing)?;
    println!("bench: wrote {} and {}", readme.display(), plot.display());
    Ok(())
}

fn between_marks(text: &str, table: &str) -> anyhow::Result<String> {
    let (before, rest) = text.split_once(BEGIN).context("there is no begin mark for the table")?;
    let (_, after) = rest.split_once(END).context("there is no end mark for the table")?;
    Ok(format!("{before}{BEGIN}{table}{END}{after}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures(lines: &[&str]) -> Vec<Figure> {
        lines.iter().filter_map(|line| Figure::parse(line)).collect()
    }

    fn measured() -> Vec<Row> {
        let pulls = Pull::all(&figures(&[
            "FIGURE stall_none_1=60000 ms, cut off",
            "FIGURE stall_heald_at_once_1=1500 ms",
            "FIGURE stall_heald_at_once_2=3500 ms",
            "FIGURE stall_heald_at_once_3=1900 ms",
            "FIGURE stall_unknown_3=1 ms",
            "FIGURE workload_errors=0",
        ]));
        Row::all("6.1", &pulls)
    }

    #[test]
    fn the_table_has_median_and_worst_and_says_what_was_cut_off() {
        let table = table(&measured(), Multipath::On);
        let rows: Vec<&str> = table.lines().skip(2).collect();
        assert_eq!(
            rows,
            [
                "| 6.1 | no agent | 1 | > 60.0 s | > 60.0 s |",
                "| 6.1 | nvme-heald, isolate_after: 0s | 3 | 1.9 s | 3.5 s |",
            ]
        );
    }

    #[test]
    fn only_what_is_between_the_marks_is_replaced() {
        let text = format!("before\n{BEGIN}old\n{END}after\n");
        let new = between_marks(&text, "new\n").unwrap();
        assert_eq!(new, format!("before\n{BEGIN}new\n{END}after\n"));
        assert!(between_marks("no marks", "x").is_err());
    }

    #[test]
    fn the_readme_has_its_marks_and_shows_the_plot() {
        let readme = std::fs::read_to_string(crate::workspace::root().join("README.md")).unwrap();
        assert!(between_marks(&readme, "").is_ok());
        assert!(readme.contains("(tests/kernel/stall.svg)"));
    }

    #[test]
    fn the_plot_has_a_mark_for_each_pull() {
        let drawing = plot::draw(&measured());
        assert_eq!(drawing.matches("class=\"pull").count(), 4);
        assert_eq!(drawing.matches("class=\"pull cut").count(), 1);
        assert!(drawing.starts_with("<svg") && drawing.ends_with("</svg>\n"));
    }
}
