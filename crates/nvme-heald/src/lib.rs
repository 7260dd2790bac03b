//! nvme-heald: heals MD arrays whose legs are NVMe-oF namespaces.
//!
//! The machine in heal-core decides, heal-host reads and acts, heal-provisioner talks to vendors.
//! What is left for this program is to carry values between them in the right order, and to be a
//! good citizen of the host: a configuration that is checked, a journal that never stalls it, a
//! socket for people, a clean end.
//!
//! ```text
//!   uevents, md, links ─► hints ─► reactor ─► mailbox ─► actor ── machine ──► Outbox
//!   safety scan ───────────────────►  │                    ▲                    │
//!   control socket ────────────────►  │                    │                    ├─► keeper   (ledger)
//!   inventory changed ─────────────►  │                    │                    ├─► journal  (audit)
//!                                     └─► systemd          └── answers ◄────────┴─► executor (acts, calls)
//! ```
//!
//! One thread runs all of it; what may block (looks, acts, the ledger, the journal) has threads of
//! its own. There is no clean start: every start reads what an earlier life left and takes it up.
//!
//! It is a library with a `main` of one line, so that what reads outside bytes here can be fuzzed
//! from a crate of its own. Nothing else may depend on it.
//!
//! Exit codes: 0 ended well · 1 cannot run · 2 wrong arguments or configuration.
#![forbid(unsafe_code)]

mod actor;
mod args;
mod backend;
mod config;
mod control;
mod daemon;
mod executor;
mod forward;
mod hints;
mod host;
mod journal;
mod keeper;
mod mailbox;
mod notify;
mod reaction;
mod reactor;
mod report;
mod sim;
#[cfg(test)]
mod testing;
mod urgent;

#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;

use std::io::Write;
use std::process::ExitCode;

use args::{Args, Task};
use clap::Parser;

/// Wrong arguments or configuration.
const MISUSE: u8 = 2;

/// What the program does; `main` has nothing to add.
#[must_use]
pub fn main() -> ExitCode {
    // The daemon starts itself as the child that may hang. Nothing else may come before that.
    let mut argv = std::env::args_os().skip(1);
    if argv.next().is_some_and(|first| first == "helper") {
        return heal_host::helper::main(argv);
    }
    match Args::parse().task() {
        Task::Check(path) => check(&path),
        Task::Tell(story) => report(sim::tell(&story)),
        Task::Run(path) => match config::load(&path) {
            Ok(loaded) => report(daemon::run(loaded, path)),
            Err(error) => refuse(&error),
        },
    }
}

fn check(path: &std::path::Path) -> ExitCode {
    let loaded = match config::load(path) {
        Ok(loaded) => loaded,
        Err(error) => return refuse(&error),
    };
    let mut out = std::io::stdout().lock();
    for warning in &loaded.warnings {
        let _ = writeln!(out, "warning: {warning}");
    }
    match backend::check(&loaded.config.provisioner) {
        Ok(None) => {}
        Ok(Some(text)) => drop(writeln!(out, "{text}")),
        Err(error) => return complain(&error),
    }
    let _ = writeln!(out, "{}: valid", path.display());
    ExitCode::SUCCESS
}

fn refuse(error: &config::ConfigError) -> ExitCode {
    complain(&keeper::chain(error))
}

fn complain(text: &str) -> ExitCode {
    let _ = writeln!(std::io::stderr(), "{text}");
    ExitCode::from(MISUSE)
}

fn report(result: anyhow::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "nvme-heald: {error:#}");
            ExitCode::FAILURE
        }
    }
}
