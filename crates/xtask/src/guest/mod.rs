//! What runs inside the lab's VM. The payload disk carries xtask itself, so the tools of a scenario
//! are built and versioned with the lab, and the image needs no compiler and no interpreter but
//! bash.

mod agent;
mod journal;
mod leg_sum;
mod turns;
mod workload;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: GuestCommand,
}

#[derive(Debug, clap::Subcommand)]
enum GuestCommand {
    /// Take scenarios from the host and run them.
    Agent,
    /// Write and verify blocks on a device until told to stop.
    Workload(workload::Args),
    /// The checksum of a leg's data area, read from the device itself.
    LegSum(leg_sum::Args),
    /// Write to a device as one of two hosts, and see whose blocks it holds.
    Turns(turns::Args),
    /// Find entries in the daemon's journal.
    Journal(journal::Args),
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    match &args.command {
        GuestCommand::Agent => agent::run(),
        GuestCommand::Workload(args) => workload::run(args),
        GuestCommand::LegSum(args) => leg_sum::run(args),
        GuestCommand::Turns(args) => turns::run(args),
        GuestCommand::Journal(args) => journal::run(args),
    }
}
