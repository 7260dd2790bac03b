//! What was decided of each subsystem: one small file each, whole or not there.
//!
//! ```text
//!   (none) ── close ──► Closed ── admit ──► Opening ──► Open ── close ──► Closed …
//!                                             ▲           │ it is not as it should be
//!                                             └───────────┘
//! ```
//!
//! A decision is written before the first thing is done for it. Whoever finds `Closed` takes down
//! what is up, whoever finds `Opening` builds anew: nothing is ever read from an object that may be
//! half a one. Only in `Open`, and where nothing was decided yet, does the tree say what a
//! subsystem looks like.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use heal_types::Nqn;
use heal_types::cluster::Generation;
use serde::{Deserialize, Serialize};

use crate::subsystem::Definition;

/// A definition is a few hundred bytes.
const MOST: u64 = 1 << 20;

/// What was decided of a subsystem.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// Which.
    pub subsystem: Nqn,
    /// By which token.
    pub generation: Generation,
    /// What it looks like.
    pub definition: Definition,
    /// What is to be so.
    pub state: State,
}

/// What is to be so.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum State {
    /// It is not there.
    Closed,
    /// It is to be there for this host; how far that has come, nobody knows.
    Opening {
        /// The host.
        host: Nqn,
    },
    /// It is there for this host.
    Open {
        /// The host.
        host: Nqn,
    },
}

/// Why a record cannot be had or kept.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// The file cannot be read or written.
    #[error("{}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// Its content is none.
    #[error("{} is not understood: somebody has to look at it", path.display())]
    Strange {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: serde_json::Error,
    },
}

/// The folder of records.
#[derive(Debug, Clone)]
pub struct Records {
    dir: PathBuf,
}

impl Records {
    /// Those in `dir`.
    #[must_use]
    pub fn at(dir: &Path) -> Self {
        Self { dir: dir.to_path_buf() }
    }

    fn path(&self, subsystem: &Nqn) -> PathBuf {
        // An NQN has at most 223 characters, and one with a slash comes no further than the border.
        self.dir.join(format!("{subsystem}.json"))
    }

    /// What was decided of a subsystem, if anything was.
    ///
    /// # Errors
    /// When that cannot be known: a file that is not understood is no missing file.
    pub fn of(&self, subsystem: &Nqn) -> Result<Option<Record>, RecordError> {
        read(&self.path(subsystem))
    }

    /// All of them; those that cannot be read apart.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn all(&self) -> Result<Vec<Result<Record, RecordError>>, RecordError> {
        let failed = |source| RecordError::File { path: self.dir.clone(), source };
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.dir).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            if path.extension().is_some_and(|it| it == "json") {
                found.extend(read(&path).transpose());
            }
        }
        Ok(found)
    }

    /// Keeps a decision, through a power cut.
    ///
    /// # Errors
    /// When it is not kept; then nothing may be done for it.
    pub fn keep(&self, record: &Record) -> Result<(), RecordError> {
        let path = self.path(&record.subsystem);
        let failed = |source| RecordError::File { path: path.clone(), source };
        let text = serde_json::to_vec_pretty(record)
            .map_err(|source| RecordError::Strange { path: path.clone(), source })?;
        let next = self.dir.join(format!("{}.next", record.subsystem));
        let write = || {
            let mut options = OpenOptions::new();
            let mut file =
                options.write(true).create(true).truncate(true).mode(0o600).open(&next)?;
            file.write_all(&text)?;
            file.sync_all()?;
            fs::rename(&next, &path)?;
            File::open(&self.dir)?.sync_all()
        };
        write().map_err(failed)
    }

    /// Whether a decision could be kept now.
    ///
    /// # Errors
    /// When it could not.
    pub fn writable(&self) -> Result<(), RecordError> {
        let path = self.dir.clone();
        let done = rustix::fs::access(&self.dir, rustix::fs::Access::WRITE_OK);
        done.map_err(|error| RecordError::File { path, source: error.into() })
    }
}

fn read(path: &Path) -> Result<Option<Record>, RecordError> {
    let failed = |source| RecordError::File { path: path.to_path_buf(), source };
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(failed(source)),
    };
    let mut text = Vec::new();
    file.take(MOST).read_to_end(&mut text).map_err(failed)?;
    let record = serde_json::from_slice(&text);
    record.map(Some).map_err(|source| RecordError::Strange { path: path.to_path_buf(), source })
}
