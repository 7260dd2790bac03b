//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use heal_provisioner::text::parse_duration;
use heal_types::control::Request;

use crate::conformance::Conformance;

/// Shows and steers the healing of MD arrays on NVMe-oF.
///
/// ARRAY is a kernel name (md127), a path (/dev/md127, /dev/md/NAME), an array name or an MD UUID.
///
/// Exit codes: 0 all well, 1 healing or held, 2 quarantined or down to the last leg, 3 cannot tell.
#[derive(Debug, clap::Parser)]
#[command(name = "nvme-heal", version, verbatim_doc_comment)]
pub(crate) struct Args {
    /// The daemon's control socket.
    #[arg(
        long,
        global = true,
        value_name = "PATH",
        default_value = "/run/nvme-heald/control.sock"
    )]
    pub(crate) socket: PathBuf,
    #[command(subcommand)]
    pub(crate) command: Ask,
}

/// What is asked of the daemon.
#[derive(Debug, PartialEq, Eq, clap::Subcommand)]
pub(crate) enum Ask {
    /// Every array: problems first, then a table.
    Status {
        /// As JSON, in a form that only ever grows.
        #[arg(long)]
        json: bool,
    },
    /// Why one array is, or is not, being healed, and what happens next.
    Explain {
        /// Which array.
        array: String,
    },
    /// Do nothing to an array until told otherwise. Needs to be root.
    Hold {
        /// Which array.
        array: String,
        /// Why: shown to everybody who wonders.
        #[arg(long, value_name = "TEXT", value_parser = reason)]
        reason: String,
        /// End by itself after this long: 90s, 30m, 2h, 1d.
        #[arg(long = "for", value_name = "TIME", value_parser = duration)]
        duration: Option<Duration>,
    },
    /// For those who write a provisioner's backend or plugin.
    Provisioner {
        /// What to do.
        #[command(subcommand)]
        task: ProvisionerTask,
    },
    /// End a hold or a quarantine, and look again at what was refused. Needs to be root.
    Resume {
        /// Which array.
        array: String,
    },
}

/// What a vendor wants.
#[derive(Debug, PartialEq, Eq, clap::Subcommand)]
pub(crate) enum ProvisionerTask {
    /// Hold a provisioner to every promise of the contract, case by case. It must be in its test
    /// mode: every case makes it forget everything.
    Conformance(Conformance),
}

fn duration(text: &str) -> Result<Duration, String> {
    let duration = parse_duration(text).map_err(|error| error.to_string())?;
    if duration.is_zero() {
        return Err("a hold of no time is none".to_owned());
    }
    Ok(duration)
}

fn reason(text: &str) -> Result<String, String> {
    if text.trim().is_empty() {
        return Err("whoever wonders about the hold needs a reason".to_owned());
    }
    Ok(text.trim().to_owned())
}

impl Ask {
    /// The request to the daemon, for what is asked of it.
    pub(crate) fn request(&self) -> Option<Request> {
        Some(match self {
            Self::Status { .. } => Request::Status,
            Self::Explain { array } => Request::Explain { array: array.clone() },
            Self::Hold { array, reason, duration } => {
                Request::Hold { array: array.clone(), reason: reason.clone(), duration: *duration }
            }
            Self::Resume { array } => Request::Resume { array: array.clone() },
            Self::Provisioner { .. } => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::{CommandFactory, Parser};

    fn request(words: &[&str]) -> Result<Request, clap::Error> {
        let words = ["nvme-heal"].iter().chain(words);
        Args::try_parse_from(words).map(|args| args.command.request().unwrap())
    }

    #[test]
    fn the_command_line_is_well_formed() {
        Args::command().debug_assert();
    }

    #[test]
    fn a_hold_needs_a_reason_and_may_end_by_itself() {
        let hold = request(&["hold", "md127", "--reason", " cabling ", "--for", "2h"]).unwrap();
        assert_eq!(
            hold,
            Request::Hold {
                array: "md127".into(),
                reason: "cabling".into(),
                duration: Some(Duration::from_secs(7200)),
            }
        );
        assert!(request(&["hold", "md127"]).is_err());
        assert!(request(&["hold", "md127", "--reason", "  "]).is_err());
        assert!(request(&["hold", "md127", "--reason", "x", "--for", "2"]).is_err());
        assert!(request(&["hold", "md127", "--reason", "x", "--for", "0s"]).is_err());
    }

    #[test]
    fn the_socket_can_be_named_before_or_after_the_command() {
        for words in [["--socket", "/x", "status"], ["status", "--socket", "/x"]] {
            let args = Args::try_parse_from(["nvme-heal"].iter().chain(&words)).unwrap();
            assert_eq!(args.socket, PathBuf::from("/x"));
        }
    }
}
