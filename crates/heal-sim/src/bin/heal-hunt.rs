//! Explores seeds for a while; see `heal_sim::hunt`. `cargo xtask hunt` builds and runs it.
#![allow(
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a developer's tool: it talks to a person and keeps what it finds in files"
)]

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use clap::Parser;
use heal_sim::hunt::coverage::{self, Edges};
use heal_sim::hunt::crowd::{Bag, Find, Hunt, Limits};
use heal_sim::hunt::shrink::shrunk;
use heal_sim::hunt::table::Table;

/// Tells stories made by dice, checks every rule, and keeps the stories that break one.
#[derive(Debug, Parser)]
struct Args {
    /// Stop after so many minutes.
    #[arg(long)]
    minutes: Option<f64>,
    /// The first seed.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Stop after so many seeds.
    #[arg(long)]
    seeds: Option<u64>,
    /// Stop after so many incidents: legs lost that the agent had to heal.
    #[arg(long)]
    incidents: Option<u64>,
    /// Stop after so many finds.
    #[arg(long)]
    finds: Option<usize>,
    /// Only these tables.
    #[arg(long)]
    table: Vec<Table>,
    /// Wishes in a story.
    #[arg(long, default_value_t = 12)]
    wishes: u32,
    /// Threads.
    #[arg(long)]
    threads: Option<usize>,
    /// Where to keep the stories that break a rule.
    #[arg(long)]
    keep: Option<PathBuf>,
    /// The commit that is written into their heads.
    #[arg(long, default_value = "unknown")]
    commit: String,
    /// How many finds to make short.
    #[arg(long, default_value_t = 8)]
    shrink: usize,
    /// Print the transition matrix with counts.
    #[arg(long)]
    matrix: bool,
    /// Print the figures as `FIGURE name=value unit`.
    #[arg(long)]
    figures: bool,
    /// Fail if a legal move was never made and it is not known why.
    #[arg(long)]
    all_edges: bool,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let hunt = Hunt {
        from: args.seed,
        tables: if args.table.is_empty() { Table::ALL.to_vec() } else { args.table.clone() },
        wishes: args.wishes,
        threads: args.threads.unwrap_or(threads),
        limits: Limits {
            time: args.minutes.map(|minutes| Duration::from_secs_f64(minutes * 60.0)),
            incidents: args.incidents,
            seeds: args.seeds,
            finds: args.finds,
        },
    };
    let kept = AtomicUsize::new(0);
    let bag = hunt.run(|find| tell(&args, find, kept.fetch_add(1, Ordering::Relaxed)));
    if args.matrix {
        println!("{}", bag.edges.table());
    }
    let surprising = surprising(&args, &bag.edges);
    if args.figures {
        figures(&bag, hunt.threads, surprising);
    }
    println!("{}", summary(&bag));
    let good = bag.finds.is_empty() && surprising == 0;
    if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Moves that should not have been made, or should have been.
fn surprising(args: &Args, edges: &Edges) -> usize {
    let taken = edges.surprises();
    for (phase, signal) in &taken {
        println!("{phase} on {signal} was taken, and is said never to be");
    }
    let missing = if args.all_edges { edges.unexplained() } else { Vec::new() };
    for (phase, signal) in &missing {
        println!("{phase} on {signal} was not taken, and it is not known why");
    }
    taken.len() + missing.len()
}

fn figures(bag: &Bag, threads: usize, surprising: usize) {
    let seconds = bag.time.as_secs_f64().max(0.001);
    #[allow(clippy::cast_precision_loss, reason = "rates for people")]
    let per = |count: u64| (count as f64 / seconds).round();
    let legal = coverage::legal().len();
    println!("FIGURE incidents={}", bag.incidents);
    println!("FIGURE events={}", bag.events);
    println!("FIGURE seeds={}", bag.seeds);
    println!("FIGURE seeds_per_s={}", per(bag.seeds));
    println!("FIGURE incidents_per_s={}", per(bag.incidents));
    println!("FIGURE threads={threads}");
    println!("FIGURE finds={}", bag.finds.len());
    println!("FIGURE edges_legal={legal}");
    println!("FIGURE edges_taken={}", legal - bag.edges.untaken().len());
    println!("FIGURE edges_surprising={surprising}");
}

/// Says what broke and keeps the story, short if there are not too many already.
fn tell(args: &Args, find: &Find, number: usize) {
    let Some(first) = find.violations.first() else { return };
    let head = &find.log.head;
    println!(
        "seed {} ({}): {}: {} (after {} seeds, {:.1} s)",
        head.seed,
        head.table,
        first.name,
        first.detail,
        find.seeds,
        find.time.as_secs_f64()
    );
    let Some(folder) = &args.keep else { return };
    let mut log =
        if number < args.shrink { shrunk(&find.log, first.name) } else { find.log.clone() };
    log.head.commit.clone_from(&args.commit);
    log.head.breaks = Some(first.name.to_owned());
    log.notes = vec![first.detail.clone()];
    let path = folder.join(format!("{}-{}-{}.log", first.name, head.table, head.seed));
    let written = std::fs::create_dir_all(folder).and_then(|()| std::fs::write(&path, log.text()));
    match written {
        Ok(()) => println!("  {} events: {}", log.events.len(), path.display()),
        Err(error) => println!("  cannot be kept: {error}"),
    }
}

fn summary(bag: &Bag) -> String {
    let seconds = bag.time.as_secs_f64().max(0.001);
    #[allow(clippy::cast_precision_loss, reason = "rates for people")]
    let per = |count: u64| count as f64 / seconds;
    format!(
        "hunt: {} runs, {} events, {} incidents in {seconds:.1} s: {:.0} runs/s, {:.0} \
         incidents/s, {} of {} edges taken, {} finds",
        bag.seeds,
        bag.events,
        bag.incidents,
        per(bag.seeds),
        per(bag.incidents),
        coverage::legal().len() - bag.edges.untaken().len(),
        coverage::legal().len(),
        bag.finds.len()
    )
}
