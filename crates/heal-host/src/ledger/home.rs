//! One directory of records.

#![allow(
    clippy::disallowed_methods,
    reason = "the ledger's own files, in the ledger's own directory"
)]

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use heal_types::ArrayId;
use rustix::fs::OFlags;

use super::{LedgerError, MAX_RECORD};

/// How a file that is not finished ends. A finished one ends with `.ron`.
const UNFINISHED: &str = ".ron.tmp";

#[derive(Debug)]
pub(super) struct Home {
    path: PathBuf,
}

impl Home {
    pub(super) fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn file(&self, array: ArrayId) -> PathBuf {
        self.path.join(format!("{}.ron", stem(array)))
    }

    fn unfinished(&self, array: ArrayId) -> PathBuf {
        self.path.join(format!(".{}{UNFINISHED}", stem(array)))
    }

    pub(super) fn make(&self) -> Result<(), LedgerError> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.path)
            .map_err(|source| write_error(&self.path, source))
    }

    /// Removes what a crash left unfinished, and finds out whether files can be made here. Only
    /// making one tells: a read-only file system, a full one and a missing mount all look like
    /// directories.
    pub(super) fn sweep_and_try(&self) -> Result<(), LedgerError> {
        let entries = fs::read_dir(&self.path).map_err(|source| read_error(&self.path, source))?;
        for entry in entries {
            let entry = entry.map_err(|source| read_error(&self.path, source))?;
            let name = entry.file_name();
            let ours = name
                .to_str()
                .is_some_and(|name| name.starts_with('.') && name.ends_with(UNFINISHED));
            if ours && entry.file_type().is_ok_and(|kind| kind.is_file()) {
                Self::unlink(&entry.path())?;
            }
        }
        let path = self.path.join(format!(".try{UNFINISHED}"));
        create(&path)
            .and_then(|mut file| {
                file.write_all(b"x")?;
                file.sync_all()
            })
            .map_err(|source| write_error(&path, source))?;
        Self::unlink(&path)
    }

    /// The arrays that have a file here. A home that is not there has none.
    pub(super) fn arrays(&self) -> Result<BTreeSet<ArrayId>, LedgerError> {
        let failed = |source| read_error(&self.path, source);
        let entries = match fs::read_dir(&self.path) {
            Ok(entries) => entries,
            Err(error) if is_absent(&error) => return Ok(BTreeSet::new()),
            Err(error) => return Err(failed(error)),
        };
        let mut arrays = BTreeSet::new();
        for entry in entries {
            let name = entry.map_err(failed)?.file_name();
            let array = name.to_str().and_then(|name| name.strip_suffix(".ron"));
            let array = array.and_then(|stem| stem.parse().ok());
            // A name that only resembles ours would be read from another file than was listed.
            arrays.extend(array.filter(|array| self.file(*array).file_name() == Some(&name)));
        }
        Ok(arrays)
    }

    /// A record's text; `None` when there is no file.
    pub(super) fn read(&self, array: ArrayId) -> Result<Option<String>, LedgerError> {
        let path = self.file(array);
        let file = match open(&path) {
            Ok(file) => file,
            Err(error) if is_absent(&error) => return Ok(None),
            Err(source) => return Err(read_error(&path, source)),
        };
        let failed = |source| read_error(&path, source);
        if !file.metadata().map_err(failed)?.is_file() {
            return Err(LedgerError::NotAFile { path });
        }
        let mut bytes = Vec::new();
        let bound = u64::try_from(MAX_RECORD).unwrap_or(u64::MAX).saturating_add(1);
        file.take(bound).read_to_end(&mut bytes).map_err(failed)?;
        if bytes.len() > MAX_RECORD {
            return Err(LedgerError::NotAFile { path });
        }
        String::from_utf8(bytes)
            .map(Some)
            .map_err(|error| failed(io::Error::new(ErrorKind::InvalidData, error.utf8_error())))
    }

    /// Puts `text` in the place of what is there, so that a crash leaves one or the other.
    pub(super) fn save(&self, array: ArrayId, text: &str) -> Result<(), LedgerError> {
        let unfinished = self.unfinished(array);
        let path = self.file(array);
        let written = create(&unfinished).and_then(|mut file| {
            file.write_all(text.as_bytes())?;
            file.sync_all()
        });
        if let Err(source) = written.and_then(|()| fs::rename(&unfinished, &path)) {
            // The next open sweeps it if this fails as well.
            let _ = fs::remove_file(&unfinished);
            return Err(write_error(&path, source));
        }
        self.sync()
    }

    pub(super) fn remove(&self, array: ArrayId) -> Result<(), LedgerError> {
        match fs::remove_file(self.file(array)) {
            Ok(()) => self.sync(),
            Err(error) if is_absent(&error) => Ok(()),
            Err(source) => Err(write_error(&self.file(array), source)),
        }
    }

    fn unlink(path: &Path) -> Result<(), LedgerError> {
        fs::remove_file(path).map_err(|source| write_error(path, source))
    }

    /// Makes a rename or removal durable.
    fn sync(&self) -> Result<(), LedgerError> {
        File::open(&self.path)
            .and_then(|directory| directory.sync_all())
            .map_err(|source| write_error(&self.path, source))
    }
}

fn read_error(path: &Path, source: io::Error) -> LedgerError {
    let path = path.to_owned();
    LedgerError::Read { path, source }
}

fn write_error(path: &Path, source: io::Error) -> LedgerError {
    let path = path.to_owned();
    LedgerError::Write { path, source }
}

fn stem(array: ArrayId) -> String {
    array.to_string().replace(':', "-")
}

/// Whether the error says that there is no such file. A home whose parent is no directory has none.
fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory)
}

fn create(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .custom_flags(flags(OFlags::NOFOLLOW | OFlags::CLOEXEC)?)
        .open(path)
}

/// Without waiting for a writer, should somebody have put a pipe there.
fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .custom_flags(flags(OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC)?)
        .open(path)
}

fn flags(flags: OFlags) -> io::Result<i32> {
    i32::try_from(flags.bits()).map_err(io::Error::other)
}
