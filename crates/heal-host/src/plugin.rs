//! Runs a vendor's plugin: a program that is not ours, and is not trusted with anything.
//!
//! The service manager starts it, not we: as a user of its own, in a unit of its own, with a
//! deadline that holds even if this daemon dies meanwhile. What it gets is one document; what it
//! may do to the host is nothing.
//!
//! ```text
//!   document ──► systemd-run --pipe ──► service manager ──► unit: own user, no devices, read-only host,
//!   answer   ◄──────────────────────────────────────────      bounded memory, tasks and time
//! ```
//!
//! The price: no plugin where the service manager is not systemd, and some milliseconds for the
//! unit.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::Command;

/// Where the service manager's client is.
const SYSTEMD_RUN: &str = "/usr/bin/systemd-run";
/// How long the unit may take to die, and its client to say so.
const AFTER: Duration = Duration::from_secs(2);
/// As much of its complaints as is kept.
const COMPLAINTS: usize = 4096;

/// What every plugin lives under.
const SANDBOX: &[&str] = &[
    "NoNewPrivileges=yes",
    "CapabilityBoundingSet=",
    "AmbientCapabilities=",
    "ProtectSystem=strict",
    "ProtectHome=yes",
    "PrivateTmp=yes",
    "PrivateDevices=yes",
    "ProtectKernelTunables=yes",
    "ProtectKernelModules=yes",
    "ProtectKernelLogs=yes",
    "ProtectControlGroups=yes",
    "ProtectProc=invisible",
    "ProtectClock=yes",
    "ProtectHostname=yes",
    "RestrictNamespaces=yes",
    "RestrictRealtime=yes",
    "RestrictSUIDSGID=yes",
    "LockPersonality=yes",
    "SystemCallArchitectures=native",
    "SystemCallFilter=@system-service",
    "UMask=0077",
    "StateDirectory=nvme-heal-plugin",
    "StateDirectoryMode=0700",
    "WorkingDirectory=/",
    "MemoryMax=256M",
    "MemorySwapMax=0",
    "TasksMax=64",
    "CPUWeight=10",
    "IOWeight=10",
    "OOMScoreAdjust=500",
    "TimeoutStopSec=1s",
    "LogRateLimitIntervalSec=10s",
    "LogRateLimitBurst=100",
];

/// A plugin, and what it may have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plugin {
    /// The program.
    pub program: PathBuf,
    /// The user it runs as.
    pub user: String,
    /// Whether it may use the network.
    pub network: bool,
}

/// What became of one run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ended {
    /// It ended by itself.
    Exited {
        /// Its exit code.
        code: i32,
        /// What it wrote, up to the bound.
        stdout: Vec<u8>,
        /// What it complained of, the beginning of it.
        stderr: String,
    },
    /// It was ended, by its deadline or by a signal.
    Killed,
    /// It was not started.
    NotStarted(String),
}

impl Plugin {
    /// Runs it once: gives it `input`, takes at most `most` bytes, ends it after `limit`.
    pub async fn run(&self, input: &[u8], limit: Duration, most: u64) -> Ended {
        let program = self.program.clone();
        match tokio::task::spawn_blocking(move || trusted(&program)).await {
            Ok(Ok(())) => {}
            Ok(Err(why)) => return Ended::NotStarted(why),
            Err(_) => return Ended::NotStarted("the file access ended by itself".to_owned()),
        }
        let mut command = Command::new(SYSTEMD_RUN);
        command.args(self.arguments(limit));
        converse(command, input, limit + AFTER, most).await
    }

    fn arguments(&self, limit: Duration) -> Vec<String> {
        let mut arguments: Vec<String> =
            ["--pipe", "--wait", "--collect", "--quiet", "--service-type=exec"]
                .map(str::to_owned)
                .into();
        let mut property = |text: String| arguments.extend(["--property".to_owned(), text]);
        for line in SANDBOX {
            property((*line).to_owned());
        }
        property(format!("User={}", self.user));
        property(format!("RuntimeMaxSec={}ms", limit.as_millis().max(1)));
        if self.network {
            property("RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6".to_owned());
        } else {
            property("PrivateNetwork=yes".to_owned());
            property("RestrictAddressFamilies=AF_UNIX".to_owned());
        }
        arguments.push("--".to_owned());
        arguments.push(self.program.display().to_string());
        arguments
    }
}

/// Whether the program is root's alone to change: whoever can write it could answer for the
/// provisioner.
fn trusted(program: &Path) -> Result<(), String> {
    let name = program.display();
    if !program.is_absolute() {
        return Err(format!("{name} is not an absolute path"));
    }
    for path in program.ancestors() {
        let metadata = std::fs::metadata(path).map_err(|error| format!("{name}: {error}"))?;
        let sticky = metadata.is_dir() && metadata.mode() & 0o1000 != 0;
        if metadata.uid() != 0 || (metadata.mode() & 0o022 != 0 && !sticky) {
            return Err(format!("{} can be changed by others than root", path.display()));
        }
    }
    match std::fs::metadata(program) {
        Ok(metadata) if metadata.is_file() && metadata.mode() & 0o111 != 0 => Ok(()),
        Ok(_) => Err(format!("{name} is not a program")),
        Err(error) => Err(format!("{name}: {error}")),
    }
}

/// Writes, listens and waits at once, so that neither side waits for the other for ever.
async fn converse(mut command: Command, input: &[u8], limit: Duration, most: u64) -> Ended {
    command.env_clear().env("LC_ALL", "C").env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    command.current_dir("/").kill_on_drop(true);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) => return Ended::NotStarted(error.to_string()),
    };
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let talk = async {
        let say = async {
            if let Some(mut stdin) = stdin {
                // A program that does not listen may answer all the same.
                let _ = stdin.write_all(input).await;
            }
        };
        let hear = async {
            let mut heard = Vec::new();
            if let Some(stdout) = stdout {
                // Dropped behind the bound: whoever writes on gets an error, and nobody's memory
                // grows.
                let _ = stdout.take(most).read_to_end(&mut heard).await;
            }
            heard
        };
        let complaints = async {
            let mut heard = Vec::new();
            if let Some(stderr) = stderr {
                let _ = stderr.take(COMPLAINTS as u64).read_to_end(&mut heard).await;
            }
            String::from_utf8_lossy(&heard).into_owned()
        };
        let ((), stdout, stderr) = tokio::join!(say, hear, complaints);
        (child.wait().await, stdout, stderr)
    };
    match tokio::time::timeout(limit, talk).await {
        Err(_) => Ended::Killed,
        Ok((Err(error), ..)) => Ended::NotStarted(error.to_string()),
        Ok((Ok(status), stdout, stderr)) => match status.code() {
            Some(code) => Ended::Exited { code, stdout, stderr },
            None => Ended::Killed,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]);
        command
    }

    async fn run(script: &str) -> Ended {
        converse(shell(script), b"question", Duration::from_millis(700), 1000).await
    }

    #[tokio::test]
    async fn a_question_goes_in_and_an_answer_comes_out() {
        let ended = run("cat; echo oops >&2; exit 3").await;
        let (stdout, stderr) = (b"question".to_vec(), "oops\n".to_owned());
        assert_eq!(ended, Ended::Exited { code: 3, stdout, stderr });
    }

    #[tokio::test]
    async fn a_program_that_hangs_or_dies_is_an_ending_too() {
        assert_eq!(run("sleep 60").await, Ended::Killed);
        assert_eq!(run("kill -9 $$").await, Ended::Killed);
        let Ended::Exited { stdout, .. } = run("head -c 100000 /dev/zero; exit 0").await else {
            panic!("it ended otherwise")
        };
        assert_eq!(stdout.len(), 1000);
    }

    #[test]
    fn the_unit_has_its_deadline_its_user_and_no_network_of_its_own() {
        let program = PathBuf::from("/usr/libexec/plugin");
        let mut plugin = Plugin { program, user: "u".into(), network: false };
        let arguments = plugin.arguments(Duration::from_millis(1500));
        for wanted in ["RuntimeMaxSec=1500ms", "User=u", "PrivateNetwork=yes", "PrivateDevices=yes"]
        {
            assert!(arguments.iter().any(|argument| argument == wanted), "{wanted}");
        }
        assert_eq!(arguments[arguments.len() - 2..], ["--", "/usr/libexec/plugin"]);
        plugin.network = true;
        let arguments = plugin.arguments(Duration::from_secs(1));
        assert!(!arguments.iter().any(|argument| argument == "PrivateNetwork=yes"));
    }

    #[test]
    fn a_program_that_others_can_change_is_not_started() {
        use std::os::unix::fs::PermissionsExt;
        assert!(trusted(Path::new("bin/true")).unwrap_err().contains("absolute"));
        assert!(trusted(Path::new("/nonexistent")).is_err());
        assert!(trusted(Path::new("/etc")).unwrap_err().contains("not a program"));
        let dir = crate::exec::testing::TempDir::new();
        dir.file("plugin", "#!/bin/sh\n");
        let path = dir.path().join("plugin");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o777)).unwrap();
        assert!(trusted(&path).unwrap_err().contains("others than root"));
    }
}
