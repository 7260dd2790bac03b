//! What the daemon means to do, kept where a crash does not reach it.
//!
//! The kernel and the provisioner are the truth about arrays and replicas; the ledger holds only
//! *our intents*: what was reported, what was asked for and under which key, until when to wait. It
//! is read once, at start, and there is no other start than recovery from it.
//!
//! One small RON file for each array, replaced as a whole:
//!
//! ```text
//!   save ──► .UUID.ron.tmp ──► fsync ──► rename ──► fsync directory ──► Ok
//!                │                         │
//!            crash: the old file holds;  crash: either file holds, and each is whole
//!            the rest is swept at open
//! ```
//!
//! There are two homes. `/var/lib/nvme-heal` is the durable one, and is *not* made here: a
//! directory that is missing is one that is not mounted yet, and a file written below a mount point
//! would vanish under the mount. Until it is there and takes files, records go to
//! `/run/nvme-heald/ledger`, which outlives the daemon but not the machine. [`Ledger::settle`]
//! moves them over. Where both homes have a record of one array, the newest generation counts.
//!
//! Three rules keep a bad file from becoming a bad act:
//!
//! - **Unreadable is not empty.** A torn, foreign or too large file is an error for its array, also
//!   when the other home has a good one, for nobody can say which is newer. Nothing is saved over
//!   it; [`Ledger::remove`] is a person's way out.
//! - **Generations only grow.** An older record is refused, and so is another one of the same
//!   generation; saving the same one again is fine.
//! - **What is written was read back.** A record is parsed from its text before the text goes out.
//!
//! Every call runs on the caller's thread and takes as long as the disk does: a full or dying disk
//! can hold an `fsync` for minutes. The daemon gives it a blocking thread and a deadline, and does
//! nothing for an array whose intent is not on disk.
//!
//! The price: two `fsync`s for each step of a repair, and a directory that a person must not tidy.

mod home;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::marker::PhantomData;
use std::path::{Path, PathBuf};

use heal_types::ArrayId;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use home::Home;

/// The largest record, bytes. A record is some kilobytes.
pub const MAX_RECORD: usize = 256 * 1024;

/// Why a record was not read or not saved.
#[derive(Debug, Error)]
pub enum LedgerError {
    /// The file system said no while reading.
    #[error("cannot read {}", path.display())]
    Read {
        /// What was read.
        path: PathBuf,
        /// What it said.
        #[source]
        source: io::Error,
    },
    /// The file system said no while writing.
    #[error("cannot write {}", path.display())]
    Write {
        /// What was written.
        path: PathBuf,
        /// What it said.
        #[source]
        source: io::Error,
    },
    /// The file does not hold a record: torn, of another version, or not ours.
    #[error("{} does not hold a record", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Where and why.
        #[source]
        source: Box<ron::error::SpannedError>,
    },
    /// The file is larger than any record, or no plain file.
    #[error("{} is not a plain file of at most {MAX_RECORD} bytes", path.display())]
    NotAFile {
        /// The file.
        path: PathBuf,
    },
    /// The record cannot be written as text, or not be read from that text.
    #[error("the record of array {array} does not survive its text form")]
    NotText {
        /// The array.
        array: ArrayId,
        /// Why.
        #[source]
        source: Box<ron::Error>,
    },
    /// The record is too large.
    #[error("the record of array {array} has {size} bytes, more than {MAX_RECORD}")]
    TooLarge {
        /// The array.
        array: ArrayId,
        /// Its size.
        size: usize,
    },
    /// A newer record is there.
    #[error("record {offered} of array {array} is not newer than record {last}")]
    NotNewer {
        /// The array.
        array: ArrayId,
        /// The generation that is there.
        last: u64,
        /// The generation that was to be saved.
        offered: u64,
    },
}

/// Records by array, each of them readable or not.
pub type Records<T> = Vec<(ArrayId, Result<T, LedgerError>)>;

/// Where records are saved now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LedgerHome {
    /// The durable one.
    Primary,
    /// The one that ends with this boot.
    Fallback,
}

/// What [`Ledger::settle`] came to.
#[derive(Debug)]
pub enum Settled<T> {
    /// The durable home still takes no files.
    NotYet,
    /// There is nothing to move.
    Already,
    /// Records are saved durably from now on.
    Moved {
        /// Records that only the durable home had, or had newer, or that cannot be read there: the
        /// daemon did not know them while it ran without it.
        late: Records<T>,
    },
}

/// The part of a record that the ledger itself reads.
#[derive(Debug, Deserialize)]
struct Header {
    #[serde(rename = "schema")]
    _schema: u32,
    generation: u64,
}

/// A record as text, with its generation.
struct Written {
    text: String,
    generation: u64,
}

/// One durable record `T` for each array. `T` is a struct with the fields `schema` and
/// `generation`.
#[derive(Debug)]
pub struct Ledger<T> {
    primary: Home,
    fallback: Home,
    home: LedgerHome,
    settled: bool,
    last: BTreeMap<ArrayId, u64>,
    record: PhantomData<fn() -> T>,
}

impl<T: Serialize + DeserializeOwned> Ledger<T> {
    /// Opens the ledger in `primary` if that takes files now, else in `fallback`, which is made.
    ///
    /// # Errors
    /// When neither takes files.
    pub fn open(
        primary: impl Into<PathBuf>,
        fallback: impl Into<PathBuf>,
    ) -> Result<Self, LedgerError> {
        let primary = Home::new(primary);
        let fallback = Home::new(fallback);
        let home = match primary.sweep_and_try() {
            Ok(()) => LedgerHome::Primary,
            Err(error) => {
                tracing::warn!(
                    path = %primary.path().display(),
                    %error,
                    "the ledger is not durable yet"
                );
                fallback.make().and_then(|()| fallback.sweep_and_try())?;
                LedgerHome::Fallback
            }
        };
        Ok(Self {
            primary,
            fallback,
            home,
            settled: false,
            last: BTreeMap::new(),
            record: PhantomData,
        })
    }

    /// Where records go now.
    #[must_use]
    pub fn home(&self) -> LedgerHome {
        self.home
    }

    /// Every record there is, the newest one of each array.
    ///
    /// # Errors
    /// When a home is there but its files cannot be listed: that is not the same as no records.
    pub fn load_all(&mut self) -> Result<Records<T>, LedgerError> {
        let mut arrays: BTreeSet<ArrayId> = self.primary.arrays()?;
        arrays.extend(self.fallback.arrays()?);
        Ok(arrays.into_iter().map(|array| (array, self.load(array))).collect())
    }

    /// Saves the record of `array`. When this returns, it is on disk.
    ///
    /// # Errors
    /// When it could not be written, is older than what is there, or what is there cannot be read.
    /// The file that was there holds, unless the error came after the new one took its place.
    pub fn save(&mut self, array: ArrayId, record: &T) -> Result<(), LedgerError> {
        let written = self.as_text(array, record)?;
        let last = match self.last.get(&array) {
            Some(last) => Some(*last),
            None => self.newest(array)?.map(|(newest, _)| newest.generation),
        };
        if let Some(last) = last {
            let same = || -> Result<bool, LedgerError> {
                Ok(self.newest(array)?.is_some_and(|(newest, _)| newest.text == written.text))
            };
            if written.generation < last || (written.generation == last && !same()?) {
                return Err(LedgerError::NotNewer { array, last, offered: written.generation });
            }
        }
        self.current().save(array, &written.text)?;
        self.last.insert(array, written.generation);
        Ok(())
    }

    /// Forgets `array`, readable or not.
    ///
    /// # Errors
    /// When its file is there and cannot be removed.
    pub fn remove(&mut self, array: ArrayId) -> Result<(), LedgerError> {
        // The fallback first: were it left alone, an old record would come back at the next start.
        self.fallback.remove(array)?;
        self.primary.remove(array)?;
        self.last.remove(&array);
        Ok(())
    }

    /// Moves everything to the durable home once that takes files. Cheap when there is nothing to
    /// do.
    ///
    /// # Errors
    /// When a record could not be moved. What was moved is moved; call again.
    pub fn settle(&mut self) -> Result<Settled<T>, LedgerError> {
        if self.settled {
            return Ok(Settled::Already);
        }
        let was = self.home;
        if self.primary.sweep_and_try().is_err() {
            return Ok(match was {
                LedgerHome::Primary => Settled::Already,
                LedgerHome::Fallback => Settled::NotYet,
            });
        }
        let known = self.last.clone();
        let moving = self.fallback.arrays()?;
        for array in &moving {
            self.move_over(*array)?;
        }
        self.home = LedgerHome::Primary;
        let mut late = Vec::new();
        if was == LedgerHome::Fallback {
            for array in self.primary.arrays()? {
                let record = self.load(array);
                let now = self.last.get(&array);
                if record.is_err() || now != known.get(&array) {
                    late.push((array, record));
                }
            }
        }
        self.settled = true;
        if was == LedgerHome::Primary && moving.is_empty() {
            return Ok(Settled::Already);
        }
        Ok(Settled::Moved { late })
    }

    fn move_over(&self, array: ArrayId) -> Result<(), LedgerError> {
        match self.newest(array) {
            Ok(Some((newest, LedgerHome::Fallback))) => self.primary.save(array, &newest.text)?,
            Ok(Some((_, LedgerHome::Primary)) | None) => {}
            // Both files stay as they are, for a person to look at.
            Err(error) => {
                tracing::warn!(%array, %error, "a record is not moved");
                return Ok(());
            }
        }
        self.fallback.remove(array)
    }

    fn load(&mut self, array: ArrayId) -> Result<T, LedgerError> {
        let Some((newest, home)) = self.newest(array)? else {
            let path = self.current().file(array);
            let source = io::Error::from(io::ErrorKind::NotFound);
            return Err(LedgerError::Read { path, source });
        };
        let path = self.at(home).file(array);
        let record = ron::from_str(&newest.text)
            .map_err(|error| LedgerError::Unreadable { path, source: Box::new(error) })?;
        self.last.insert(array, newest.generation);
        Ok(record)
    }

    /// The newest record and where it is. Of two equal ones the durable one.
    fn newest(&self, array: ArrayId) -> Result<Option<(Written, LedgerHome)>, LedgerError> {
        let primary = self.read(LedgerHome::Primary, array)?;
        let fallback = self.read(LedgerHome::Fallback, array)?;
        Ok(match (primary, fallback) {
            (Some(durable), Some(passing)) if passing.generation > durable.generation => {
                Some((passing, LedgerHome::Fallback))
            }
            (Some(durable), _) => Some((durable, LedgerHome::Primary)),
            (None, Some(passing)) => Some((passing, LedgerHome::Fallback)),
            (None, None) => None,
        })
    }

    /// Reads one file, as far as to know that it holds a whole record.
    fn read(&self, home: LedgerHome, array: ArrayId) -> Result<Option<Written>, LedgerError> {
        let home = self.at(home);
        let Some(text) = home.read(array)? else {
            return Ok(None);
        };
        let unreadable =
            |error| LedgerError::Unreadable { path: home.file(array), source: Box::new(error) };
        ron::from_str::<T>(&text).map_err(unreadable)?;
        let header: Header = ron::from_str(&text).map_err(unreadable)?;
        Ok(Some(Written { text, generation: header.generation }))
    }

    fn as_text(&self, array: ArrayId, record: &T) -> Result<Written, LedgerError> {
        let not_text = |error| LedgerError::NotText { array, source: Box::new(error) };
        let pretty = ron::ser::PrettyConfig::default();
        let text = ron::ser::to_string_pretty(record, pretty).map_err(not_text)? + "\n";
        if text.len() > MAX_RECORD {
            return Err(LedgerError::TooLarge { array, size: text.len() });
        }
        ron::from_str::<T>(&text).map_err(|error| not_text(error.code))?;
        let header: Header = ron::from_str(&text).map_err(|error| not_text(error.code))?;
        Ok(Written { text, generation: header.generation })
    }

    fn current(&self) -> &Home {
        self.at(self.home)
    }

    fn at(&self, home: LedgerHome) -> &Home {
        match home {
            LedgerHome::Primary => &self.primary,
            LedgerHome::Fallback => &self.fallback,
        }
    }

    /// The durable home's path, for messages.
    #[must_use]
    pub fn primary(&self) -> &Path {
        self.primary.path()
    }
}
