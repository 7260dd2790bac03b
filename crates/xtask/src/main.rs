//! The project's own tasks, as one program: `cargo xtask TASK`.
//!
//! ```text
//!   lab       boots a stock Debian kernel in QEMU and runs scenarios against the installed deb
//!   bench     how long an application waits after a cable pull, with a table and a plot
//!   hunt      explores the simulator, and shows that it finds what it should
//!   prove     what an issue must show, as one command with figures
//!   coverage  what of heal-core the scenario tests reach
//!   fuzz      explores what reads outside bytes, guided by coverage
//!   demo      the main job on a real kernel, told while it happens
//!   cluster   a real API server, and the recoverer's scenarios on it
//!   deb, rpm  the packages, from one list of installed files
//!   wheel     what os-brick imports, for os-bricks that came by pip
//!   mutants   the recoverer without one of its rules: the simulator must notice
//!   layering  who may depend on whom, checked against `cargo metadata`
//!   emulator  a KumoScale provisioner to try the product against, over HTTPS
//!   guest     what runs inside the lab's VM: workload, leg checksums
//! ```
//!
//! Nothing here ships in a package. A task says what it installs or builds before it does so,
//! prints progress on standard output, and ends with one line that says how it went.
#![forbid(unsafe_code)]
#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a developer's tool: it runs cargo, qemu and dpkg-deb, writes artefacts and talks to a person"
)]

mod bench;
mod cluster;
mod coverage;
mod emulator;
mod fuzz;
mod guest;
mod hunt;
mod lab;
mod layering;
mod mutants;
mod package;
mod prove;
mod workspace;

use clap::{Parser, Subcommand};

/// Tasks of the nvme-heal project.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", version)]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Run scenarios on a real kernel in a VM.
    Lab(lab::Args),
    /// Show that an issue's claims hold; print each with its figure.
    Prove(prove::Args),
    /// Explore the simulator with dice, or hunt agents that were made worse.
    Hunt(hunt::Args),
    /// Measure; print a table, draw a plot.
    Bench(bench::Args),
    /// Measure what of heal-core the scenario tests reach.
    Coverage(coverage::Args),
    /// Explore what reads outside bytes.
    Fuzz(fuzz::Args),
    /// A real API server, and the recoverer's scenarios on it.
    Cluster(cluster::Args),
    /// Heal a real array in the lab and narrate it.
    Demo(lab::demo::Args),
    /// Build the Debian package.
    Deb(package::deb::Args),
    /// Build the RPM package and check it with rpm's own tools.
    Rpm(package::rpm::Args),
    /// Build the wheel of the module that os-brick imports.
    Wheel,
    /// Take the recoverer's rules out, one by one, and see whether the simulator notices.
    Mutants(mutants::Args),
    /// Compare the crates' dependencies with the layering table.
    Layering,
    /// Serve an emulated KumoScale provisioner and print what it hears.
    Emulator(emulator::Args),
    /// What runs inside the lab's VM.
    #[command(hide = true)]
    Guest(guest::Args),
}

fn main() -> anyhow::Result<()> {
    match Cli::parse().task {
        Task::Lab(args) => lab::run(&args),
        Task::Prove(args) => prove::run(&args),
        Task::Hunt(args) => hunt::run(&args),
        Task::Bench(args) => bench::run(&args),
        Task::Coverage(args) => coverage::run(&args),
        Task::Fuzz(args) => fuzz::run(&args),
        Task::Cluster(args) => cluster::run(&args),
        Task::Demo(args) => lab::demo::run(&args),
        Task::Deb(args) => package::deb::run(&args),
        Task::Rpm(args) => package::rpm::run(&args),
        Task::Wheel => package::wheel::run(),
        Task::Mutants(args) => mutants::run(&args),
        Task::Layering => layering::run(),
        Task::Emulator(args) => emulator::run(&args),
        Task::Guest(args) => guest::run(&args),
    }
}
