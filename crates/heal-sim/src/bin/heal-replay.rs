//! Tells a log of events again; see `heal_sim::hunt::replay`.
//!
//! ```text
//!   heal-replay FILE                      to the end; what it broke
//!   heal-replay FILE -c 'until phase' -c diff -c explain
//!   heal-replay FILE -i                   commands from standard input, one a line
//! ```
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a developer's tool: it talks to a person"
)]

use std::io::BufRead;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use heal_sim::hunt::event::Applied;
use heal_sim::hunt::log::EventLog;
use heal_sim::hunt::replay::{Replay, Stepped, Stop};
use heal_sim::hunt::shrink::shrunk;

/// Tells a log of events again.
#[derive(Debug, Parser)]
struct Args {
    /// The log.
    file: PathBuf,
    /// A command; several are done one after the other.
    #[arg(short, long = "command")]
    command: Vec<String>,
    /// Read commands from standard input.
    #[arg(short, long)]
    interactive: bool,
    /// Print the log, made as short as it gets with the rule still broken.
    #[arg(long)]
    shrink: bool,
}

const HELP: &str = "step [N] | until event N | until phase | until violation | until audit TEXT | \
                    end | show | diff | said | explain | quit";

fn main() -> ExitCode {
    let args = Args::parse();
    let read = std::fs::read_to_string(&args.file).map_err(|error| error.to_string());
    let log = read.and_then(|text| EventLog::parse(&text).map_err(|error| chain(&error)));
    let log = match log {
        Ok(log) => log,
        Err(error) => {
            eprintln!("heal-replay: {}: {error}", args.file.display());
            return ExitCode::from(2);
        }
    };
    if args.shrink {
        return shrink(&log);
    }
    let mut replay = Replay::new(log);
    for command in &args.command {
        obey(&mut replay, command);
    }
    if args.interactive {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            if line.trim() == "quit" {
                break;
            }
            obey(&mut replay, &line);
        }
    } else if args.command.is_empty() {
        obey(&mut replay, "end");
    }
    for violation in replay.world().violations() {
        println!("!! {}: {}", violation.name, violation.detail);
    }
    if replay.world().violations().is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

fn shrink(log: &EventLog) -> ExitCode {
    let world = heal_sim::hunt::retold(log);
    let Some(first) = world.violations().first() else {
        eprintln!("heal-replay: no rule is broken, so there is nothing to make short");
        return ExitCode::FAILURE;
    };
    let mut short = shrunk(log, first.name);
    short.head.breaks = Some(first.name.to_owned());
    print!("{}", short.text());
    ExitCode::SUCCESS
}

fn obey(replay: &mut Replay, command: &str) {
    let words: Vec<&str> = command.split_whitespace().collect();
    match words.as_slice() {
        [] => {}
        ["step"] => stepped(&replay.step()),
        ["step", count] => {
            for _ in 0..count.parse().unwrap_or(1_u32) {
                stepped(&replay.step());
            }
        }
        ["until", "event", number] => match number.parse() {
            Ok(number) => stepped(&replay.until(&Stop::Event(number))),
            Err(_) => println!("{HELP}"),
        },
        ["until", "phase"] => stepped(&replay.until(&Stop::Phase)),
        ["until", "violation"] => stepped(&replay.until(&Stop::Violation)),
        ["until", "audit", text @ ..] => {
            stepped(&replay.until(&Stop::Audit(text.join(" "))));
        }
        ["end"] => while !matches!(replay.step(), Stepped::End | Stepped::Over) {},
        ["show"] => print!("{}", replay.show()),
        ["diff"] => {
            for difference in replay.diff() {
                println!("{difference}");
            }
        }
        ["said"] => print!("{}", replay.said()),
        ["explain"] => print!("{}", replay.explain()),
        [..] => println!("{HELP}"),
    }
}

fn stepped(stepped: &Stepped) {
    match stepped {
        Stepped::Event(number, event, Applied::Done) => println!("{number}: {event:?}"),
        Stepped::Event(number, event, Applied::Nothing(why)) => {
            println!("{number}: {event:?}: {why}");
        }
        Stepped::End => println!("the end"),
        Stepped::Over => println!("nothing more to tell"),
    }
}
