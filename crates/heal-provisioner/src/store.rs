//! The notes a backend keeps for itself, and the one place of this crate that writes a file.
//!
//! Files are written by `heal-host` everywhere else. These are a backend's own store, the stand-in
//! for what a vendor's provisioner does not remember, and `heal-provisioner` cannot depend on the
//! host: so the same rule (temp, fsync, rename, fsync the directory) is kept here, for these files
//! alone.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex as Cache, PoisonError};

use heal_types::{CallKey, FaultClass, ProvisionerFault, ReplicaId, VolumeId};
use ron::ser::PrettyConfig;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;
use tokio::time::timeout_at;

use crate::{CallContext, ron_text};

/// The largest file that is read or written.
pub(crate) const MAX_FILE: u64 = 4 * 1024 * 1024;

/// What a backend notes.
pub(crate) trait Notes: Serialize + DeserializeOwned + Default {
    /// The form of the file that this version writes.
    const SCHEMA: u32;
    /// The form these notes were read in.
    fn schema(&self) -> u32;
}

/// A call that had its effect. Only the very same call counts as a repetition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Answered {
    pub(crate) key: CallKey,
    pub(crate) volume: VolumeId,
    pub(crate) replica: ReplicaId,
    pub(crate) said: Said,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Said {
    Missing,
    Synchronizing,
    Available,
    Unusable,
    Removed,
}

fn fault(class: FaultClass, detail: impl std::fmt::Display) -> ProvisionerFault {
    ProvisionerFault::new(class, detail)
}

/// A file that cannot be read is a provisioner that is away, whatever the reason: it may be
/// mounted, restored or repaired. It is never a provisioner without volumes.
pub(crate) fn away(path: &Path, error: &io::Error) -> ProvisionerFault {
    fault(FaultClass::Unreachable, format_args!("{}: {error}", path.display()))
}

/// The file access took longer than the caller waits.
pub(crate) fn late() -> ProvisionerFault {
    fault(FaultClass::Unreachable, "the file system did not answer in time")
}

/// The notes; none yet if the file does not exist, as long as the directory for it does. A missing
/// directory is a file system that is not mounted yet.
pub(crate) fn read_notes<N: Notes>(path: &Path) -> Result<N, ProvisionerFault> {
    let Some(text) = read(path)? else {
        let directory = directory_of(path);
        std::fs::metadata(&directory).map_err(|error| away(&directory, &error))?;
        return Ok(N::default());
    };
    let notes: N = ron_text::parse(&text, &path.display().to_string())
        .map_err(|error| fault(FaultClass::Invalid, error))?;
    if notes.schema() != N::SCHEMA {
        return Err(fault(
            FaultClass::Invalid,
            format_args!(
                "{}: written in form {}, this version reads form {}",
                path.display(),
                notes.schema(),
                N::SCHEMA
            ),
        ));
    }
    Ok(notes)
}

/// `None` if there is no such file.
pub(crate) fn read(path: &Path) -> Result<Option<String>, ProvisionerFault> {
    let invalid = |why: &str| fault(FaultClass::Invalid, format_args!("{}: {why}", path.display()));
    // Opening a FIFO would wait for somebody to write to it.
    match std::fs::metadata(path) {
        Ok(metadata) if metadata.is_file() => {}
        Ok(_) => return Err(invalid("it is not a file")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(away(path, &error)),
    }
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(MAX_FILE + 1).read_to_end(&mut bytes))
        .map_err(|error| away(path, &error))?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(invalid("it is larger than 4 MiB"));
    }
    String::from_utf8(bytes).map(Some).map_err(|_| invalid("it is not UTF-8 text"))
}

/// Replaces the notes on disk. When this returns `Ok` they survive a power cut.
pub(crate) fn write_notes<N: Notes>(path: &Path, notes: &N) -> Result<(), ProvisionerFault> {
    let layout = PrettyConfig::new().depth_limit(2);
    let body = ron::ser::to_string_pretty(notes, layout)
        .map_err(|error| fault(FaultClass::Invalid, format_args!("notes not written: {error}")))?;
    let text = format!("// Written by nvme-heald, for itself.\n{body}\n");
    if text.len() as u64 > MAX_FILE {
        return Err(fault(
            FaultClass::Refused,
            format_args!("{}: more to note than fits in 4 MiB", path.display()),
        ));
    }
    replace(path, text.as_bytes()).map_err(|error| away(path, &error))
}

fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    let fresh = PathBuf::from(name);
    let mut file =
        OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&fresh)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&fresh, path)?;
    File::open(directory_of(path))?.sync_all()
}

fn directory_of(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        Some(_) | None => PathBuf::from("."),
    }
}

/// An error with its causes, on one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

/// Notes that one process owns: read once, kept in memory, durable before a change is believed.
#[derive(Debug)]
pub(crate) struct Notebook<N> {
    path: Arc<PathBuf>,
    /// What is on disk.
    known: Arc<Cache<Option<Arc<N>>>>,
    /// One writer at a time. Held by the thread that may hang, so that a file system that hangs
    /// holds one thread and not one for every retry.
    pen: Arc<Mutex<()>>,
}

impl<N: Notes + Send + Sync + 'static> Notebook<N> {
    /// Notes in the file at `path`. Nothing is read before it is needed.
    pub(crate) fn new(path: PathBuf) -> Self {
        Self { path: Arc::new(path), known: Arc::default(), pen: Arc::default() }
    }

    /// What is noted.
    pub(crate) async fn read(&self, context: &CallContext) -> Result<Arc<N>, ProvisionerFault> {
        if let Some(known) = self.cached() {
            return Ok(known);
        }
        let (path, known) = (Arc::clone(&self.path), Arc::clone(&self.known));
        self.work(context, move || {
            let notes = Arc::new(read_notes::<N>(&path)?);
            *known.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&notes));
            Ok(notes)
        })
        .await
    }

    /// Makes `notes` durable, and what is noted.
    pub(crate) async fn write(
        &self,
        context: &CallContext,
        notes: N,
    ) -> Result<(), ProvisionerFault> {
        let (path, known) = (Arc::clone(&self.path), Arc::clone(&self.known));
        // Until it is known to be on disk, nothing is known: a write that is given up on may
        // arrive.
        *known.lock().unwrap_or_else(PoisonError::into_inner) = None;
        self.work(context, move || {
            write_notes(&path, &notes)?;
            *known.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(notes));
            Ok(())
        })
        .await
    }

    fn cached(&self) -> Option<Arc<N>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn work<T: Send + 'static>(
        &self,
        context: &CallContext,
        work: impl FnOnce() -> Result<T, ProvisionerFault> + Send + 'static,
    ) -> Result<T, ProvisionerFault> {
        let pen = timeout_at(context.deadline, Arc::clone(&self.pen).lock_owned())
            .await
            .map_err(|_| late())?;
        let done = tokio::task::spawn_blocking(move || {
            let _pen = pen;
            work()
        });
        match timeout_at(context.deadline, done).await {
            Err(_) => Err(late()),
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(fault(FaultClass::Unreachable, "the file access ended by itself")),
        }
    }
}
