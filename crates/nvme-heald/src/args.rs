//! The command line.

use std::path::PathBuf;

/// Heals MD arrays whose legs are NVMe-oF namespaces.
#[derive(Debug, clap::Parser)]
#[command(name = "nvme-heald", version)]
pub(crate) struct Args {
    /// The configuration file.
    #[arg(long, value_name = "PATH", default_value = "/etc/nvme-heal/nvme-heald.ron")]
    config: PathBuf,
    /// Check the configuration, say what is wrong with it, and end.
    #[arg(long, conflicts_with = "sim")]
    check_config: bool,
    /// Tell a story on a host that exists only in memory, and end; `list` names the stories.
    #[arg(
        long,
        value_name = "STORY",
        num_args = 0..=1,
        default_missing_value = "replica-replaced"
    )]
    sim: Option<String>,
}

/// What is to be done.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Task {
    /// Run as the daemon, with this configuration.
    Run(PathBuf),
    /// Check this configuration.
    Check(PathBuf),
    /// Tell this story.
    Tell(String),
}

impl Args {
    pub(crate) fn task(self) -> Task {
        match (self.sim, self.check_config) {
            (Some(story), _) => Task::Tell(story),
            (None, true) => Task::Check(self.config),
            (None, false) => Task::Run(self.config),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    fn task(words: &[&str]) -> Result<Task, clap::Error> {
        let words = ["nvme-heald"].iter().chain(words);
        Args::try_parse_from(words).map(Args::task)
    }

    #[test]
    fn the_command_line_says_one_thing() {
        let default = PathBuf::from("/etc/nvme-heal/nvme-heald.ron");
        assert_eq!(task(&[]).unwrap(), Task::Run(default.clone()));
        assert_eq!(task(&["--check-config"]).unwrap(), Task::Check(default));
        assert_eq!(task(&["--config", "/x", "--check-config"]).unwrap(), Task::Check("/x".into()));
        assert_eq!(task(&["--sim"]).unwrap(), Task::Tell("replica-replaced".into()));
        assert_eq!(task(&["--sim", "storm"]).unwrap(), Task::Tell("storm".into()));
        assert!(task(&["--sim", "--check-config"]).is_err());
        assert!(task(&["--frob"]).is_err());
    }
}
