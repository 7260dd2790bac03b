//! `cargo xtask demo`: the main job on a real kernel, told while it happens.
//!
//! ```text
//!   tests/kernel/demo.sh, in the VM      what is shown here
//!     -- text                              what is done to the array, and why
//!     ARRAY text                           /proc/mdstat and the workload, whenever they change
//!     AUDIT text                           the daemon's own words, from its journal
//! ```
//!
//! The story is a scenario like any other, so it is held to the same rules: a daemon that dies or
//! complains fails it. It is no part of `lab run`, because what it shows `heal-replace` proves.

use std::path::PathBuf;
use std::time::Instant;

use super::kernel::Series;
use super::report;
use super::scenario::{Figure, Scenario};
use super::session::{BootOptions, Line, ScenarioResult, Session};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Take this package instead of building one.
    #[arg(long)]
    deb: Option<PathBuf>,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let started = Instant::now();
    let deb = match &args.deb {
        Some(deb) => deb.clone(),
        None => {
            println!("demo: building the package (the first time takes minutes)");
            crate::package::deb::build()?
        }
    };
    let story = crate::workspace::root().join("tests/kernel/demo.sh");
    let story = Scenario::read(&story)?;
    let mut session =
        Session::boot(&BootOptions::new(Series::default(), Some(deb))?, story.multipath)?;
    println!("demo: {}", story.what);
    let result = session.run(&story, &mut |line| {
        if let Some(text) = shown(line) {
            println!("{text}");
        }
    })?;
    let seconds = started.elapsed().as_secs();
    if !result.passed {
        report::print_result(&result);
        println!("demo: the array did not heal as it should ({seconds} s)");
        std::process::exit(1);
    }
    println!("demo: {} ({seconds} s in all)", verdict(&result));
    Ok(())
}

/// A line as a person sees it; nothing for what is only the scenario's noise.
fn shown(line: &Line) -> Option<String> {
    let at = line.at.as_secs_f64();
    if let Some(text) = line.text.strip_prefix("-- ") {
        return Some(format!("\n{at:6.1}s  == {text}"));
    }
    if let Some(text) = line.text.strip_prefix("ARRAY ") {
        return Some(format!("{at:6.1}s     {text}"));
    }
    if let Some(text) = line.text.strip_prefix("AUDIT ") {
        return Some(format!("{at:6.1}s  nvme-heald: {text}"));
    }
    let text = line.text.strip_prefix("SHOW ")?;
    Some(format!("           {text}"))
}

fn verdict(result: &ScenarioResult) -> String {
    let value = |name: &str| {
        let found = result.figures.iter().find(|figure: &&Figure| figure.name == name);
        found.map_or(f64::NAN, |figure| figure.value)
    };
    format!(
        "the array is whole again {:.1} s after it lost a replica; the application wrote {} blocks \
         meanwhile, and saw {} errors",
        value("whole_after") / 1000.0,
        value("workload_writes"),
        value("workload_errors"),
    )
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn only_what_is_told_is_shown() {
        let line = |text: &str| Line { at: Duration::from_millis(1500), text: text.to_owned() };
        assert_eq!(shown(&line("AUDIT lost")).unwrap(), "   1.5s  nvme-heald: lost");
        assert_eq!(shown(&line("mdadm: array started")), None);
    }

    #[test]
    fn the_story_is_a_scenario() {
        let story = crate::workspace::root().join("tests/kernel/demo.sh");
        assert!(Scenario::read(&story).unwrap().needs_deb);
    }
}
