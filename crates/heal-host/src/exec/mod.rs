//! The one way to start a child.
//!
//! The daemon needs three foreign programs and one of its own, and no others. Each is a variant of
//! [`Tool`] with an absolute path that is looked up once, in fixed directories, before anything
//! else. What is started is a [`Call`], and the only functions that make one are in [`argv`]: one
//! for each act, from types that were checked at the border. There is no shell, no inherited
//! environment and no argument that came in as a plain string.
//!
//! A child may hang: `mdadm` waits for an array's I/O, `blkid` for a read, a write to sysfs for a
//! lock. So a child has a deadline, and after it dies with its whole process group. One that does
//! not even die hangs in the kernel; nobody waits for it:
//!
//! ```text
//!   Call ──► Runner ── exits ──────────────────────────────► Ended { Exited, output }
//!               │ deadline
//!               └─ SIGKILL to the group ── dies ───────────► Ended { TimedOut }
//!                        │ does not die
//!                        └─ Breaker ───────────────────────► Ended { Stuck }
//!                             │  counted, and every further call on the same subject is
//!                             │  answered Behind, until the child is gone
//!                             └─ reaped by whoever asks next
//! ```
//!
//! The price: a call takes the caller's thread for as long as its deadline, and a child that is
//! stuck leaves a zombie for a moment when it ends, because no thread of its own waits for it.

pub(crate) mod argv;
mod breaker;
mod hand;
mod run;
#[cfg(test)]
pub(crate) mod testing;

use std::fmt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use heal_types::{ArrayId, NamespaceId, Nqn};
use thiserror::Error;

pub(crate) use run::{Ended, Ending, Runner};

/// Where programs are looked for. `PATH` of the daemon is never asked.
const DIRECTORIES: [&str; 4] = ["/usr/sbin", "/usr/bin", "/sbin", "/bin"];

/// The running program itself, also when its file was replaced by an upgrade.
const OURSELVES: &str = "/proc/self/exe";

/// A program that may be started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tool {
    /// Changes an array's members.
    Mdadm,
    /// Connects and disconnects subsystems.
    Nvme,
    /// Names what stands on a device.
    Blkid,
    /// This program, as [`crate::helper`].
    OurHelper,
}

impl fmt::Display for Tool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Mdadm => "mdadm",
            Self::Nvme => "nvme",
            Self::Blkid => "blkid",
            Self::OurHelper => "helper",
        })
    }
}

/// Programs this host lacks.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("missing programs: {}; they are looked for in {}", .0.join(", "), DIRECTORIES.join(", "))]
pub struct MissingTools(
    /// Their names.
    pub Vec<String>,
);

/// Where each [`Tool`] is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tools {
    mdadm: PathBuf,
    nvme: PathBuf,
    blkid: PathBuf,
    helper: PathBuf,
}

impl Tools {
    /// Looks every tool up.
    ///
    /// # Errors
    /// When any is missing. All that are missing are named, so that one look is enough to fix it.
    pub fn find() -> Result<Self, MissingTools> {
        Self::find_in(&DIRECTORIES.map(Path::new), Path::new(OURSELVES))
    }

    pub(crate) fn find_in(directories: &[&Path], helper: &Path) -> Result<Self, MissingTools> {
        let mut missing = Vec::new();
        let mut find = |tool: Tool| {
            let name = tool.to_string();
            let found = directories
                .iter()
                .map(|directory| directory.join(&name))
                .find(|path| is_program(path));
            found.unwrap_or_else(|| {
                missing.push(name);
                PathBuf::new()
            })
        };
        let tools = Self {
            mdadm: find(Tool::Mdadm),
            nvme: find(Tool::Nvme),
            blkid: find(Tool::Blkid),
            helper: helper.to_owned(),
        };
        if missing.is_empty() { Ok(tools) } else { Err(MissingTools(missing)) }
    }

    /// Where `tool` is.
    #[must_use]
    pub fn path(&self, tool: Tool) -> &Path {
        match tool {
            Tool::Mdadm => &self.mdadm,
            Tool::Nvme => &self.nvme,
            Tool::Blkid => &self.blkid,
            Tool::OurHelper => &self.helper,
        }
    }
}

fn is_program(path: &Path) -> bool {
    std::fs::metadata(path)
        .is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

/// What a call works on. A child that is stuck on one keeps every later call away from it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Subject {
    /// An array.
    Array(ArrayId),
    /// A namespace, by identity: its name may be another one by the next call.
    Namespace(NamespaceId),
    /// A subsystem.
    Subsystem(Nqn),
}

/// One child to be started. Made by the functions in [`argv`] only.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    tool: Tool,
    args: Vec<String>,
    deadline: Duration,
    subjects: Vec<Subject>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_missing_program_is_named_at_once() {
        let nowhere = Path::new("/nonexistent");
        let error = Tools::find_in(&[nowhere], Path::new(OURSELVES)).unwrap_err();
        assert_eq!(error, MissingTools(vec!["mdadm".into(), "nvme".into(), "blkid".into()]));
        assert!(error.to_string().starts_with("missing programs: mdadm, nvme, blkid;"));
    }
}
