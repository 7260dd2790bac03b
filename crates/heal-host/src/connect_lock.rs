//! os-brick's lock around attach and detach, from the other side.
//!
//! ```text
//!   os-brick   ── F_SETLK, exclusive ──► <lock_path>/os-brick-connect_volume ◄── shared ── nvme-heald
//!    connect, assemble / stop, disconnect                                        look, guards, one act
//! ```
//!
//! os-brick holds an exclusive record lock (`fcntl`) from the first `nvme connect` of a volume
//! until its array runs, and from `mdadm --stop` until the last controller is gone. While that is
//! so, the host is half changed, and nothing may be concluded from it. A *shared* lock keeps
//! os-brick out just as well, and has two merits: it needs the file readable only, where the
//! daemon's sandbox lets it write nothing; and acts for several arrays do not wait for each other.
//!
//! Record locks belong to a process, and closing *any* descriptor of the file lets go of all of
//! them. So there is one set of open files in this process, counted: the first who holds opens, the
//! last closes.
//!
//! A file that is not there yet is no obstacle: os-brick makes it with its first attach, and until
//! then it has attached nothing. One that is there and cannot be opened is: nobody knows who is at
//! work.
//!
//! The price: os-brick polls (every 10 to 100 ms), and so could starve behind many short acts that
//! overlap. So a turn ends after a second, and is followed by a pause, in which only os-brick can
//! take the lock.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use heal_types::Moment;
use rustix::fs::{FlockOperation, fcntl_lock};
use rustix::io::Errno;
use thiserror::Error;

use crate::clock;

/// os-brick's locks that matter: attach and detach have one, extending has another.
const FILES: [&str; 2] = ["os-brick-connect_volume", "os-brick-extend_volume"];
/// Nobody joins those who hold the lock for longer than this already.
const TURN: Duration = Duration::from_secs(1);
/// Longer than os-brick's longest wait between two attempts.
const REST: Duration = Duration::from_millis(150);

/// Why the lock is not held.
#[derive(Debug, Error)]
pub enum LockFault {
    /// os-brick attaches or detaches a volume, or it is its turn.
    #[error("os-brick is at work")]
    Taken,
    /// Nobody knows whether it is at work.
    #[error("cannot take the lock {}", path.display())]
    Unreadable {
        /// The lock's file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// The locks of the services on this host that use os-brick. Without any, it is always held.
#[derive(Debug, Clone, Default)]
pub struct ConnectLock {
    files: Arc<[PathBuf]>,
    turn: Arc<Mutex<Turn>>,
}

#[derive(Debug, Default)]
struct Turn {
    holders: usize,
    open: Vec<File>,
    since: Moment,
    /// Until when it is os-brick's turn.
    rest: Option<Moment>,
}

impl ConnectLock {
    /// The locks below these directories, each some service's `lock_path`.
    #[must_use]
    pub fn new(lock_paths: &[PathBuf]) -> Self {
        let file = |directory: &PathBuf| FILES.map(|name| directory.join(name));
        Self { files: lock_paths.iter().flat_map(file).collect(), turn: Arc::default() }
    }

    /// Whether there is anybody to keep out.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    /// Keeps os-brick out until the answer is dropped, if it is not at work. Never waits.
    ///
    /// # Errors
    /// When it is at work, or nobody knows.
    pub fn try_hold(&self) -> Result<Hold, LockFault> {
        if self.is_empty() {
            return Ok(Hold(None));
        }
        let now = clock::moment();
        let mut turn = lock(&self.turn);
        if turn.holders > 0 {
            if now.since(turn.since) >= TURN {
                return Err(LockFault::Taken);
            }
        } else {
            if turn.rest.is_some_and(|until| now < until) {
                return Err(LockFault::Taken);
            }
            let open: Result<Vec<Option<File>>, LockFault> =
                self.files.iter().map(|path| share(path)).collect();
            turn.open = open?.into_iter().flatten().collect();
            turn.since = now;
            turn.rest = None;
        }
        turn.holders += 1;
        Ok(Hold(Some(Arc::clone(&self.turn))))
    }
}

/// os-brick is kept out while this lives.
#[derive(Debug)]
#[must_use = "the lock is let go of when this is dropped"]
pub struct Hold(Option<Arc<Mutex<Turn>>>);

impl Drop for Hold {
    fn drop(&mut self) {
        let Some(turn) = &self.0 else { return };
        let mut turn = lock(turn);
        turn.holders = turn.holders.saturating_sub(1);
        if turn.holders == 0 {
            turn.open.clear();
            let now = clock::moment();
            turn.rest = (now.since(turn.since) >= TURN).then(|| now.after(REST));
        }
    }
}

fn lock(turn: &Mutex<Turn>) -> MutexGuard<'_, Turn> {
    turn.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A shared lock on that file; none if there is no such file.
fn share(path: &Path) -> Result<Option<File>, LockFault> {
    let fault = |source| LockFault::Unreadable { path: path.to_owned(), source };
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(fault(error)),
    };
    match fcntl_lock(&file, FlockOperation::NonBlockingLockShared) {
        Ok(()) => Ok(Some(file)),
        Err(Errno::AGAIN | Errno::ACCESS) => Err(LockFault::Taken),
        Err(error) => Err(fault(error.into())),
    }
}

#[cfg(test)]
mod tests;
