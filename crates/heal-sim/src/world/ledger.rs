//! The ledger's disk, with everything that the real one can leave behind.
//!
//! ```text
//!   save ──► temporary file, fsync ──► rename ──► fsync directory ──► durable
//!              │ no room: "no"          │ dies: the   │ "no", and the new
//!              │ dies: the old record   │ new record  │ record is in place
//!              ▼ holds                  ▼ holds       ▼ all the same
//! ```
//!
//! A file that cannot be read is no empty file: its array is quarantined at the next start, and
//! nothing is saved over it until a person has looked. Whoever wrote a file since the start does
//! not read it again, so a file that is torn under a living daemon is overwritten. A temporary file
//! that a crash left is swept at the start, so there is nothing to model of it.
//!
//! The price: there is one home, which is always mounted.

use std::collections::{BTreeMap, BTreeSet};

use heal_core::record::ArrayRecord;
use heal_types::ArrayId;
use serde::{Deserialize, Serialize};

/// What happens within the next write of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum WriteFault {
    /// The daemon dies before the new file takes the old one's place.
    DiesBeforeRename,
    /// The daemon dies right after it did.
    DiesAfterRename,
    /// The disk says no, and nothing is changed.
    Refused,
    /// The disk says no to the last `fsync`: the new file is in place, and the daemon does not
    /// know.
    RefusedAfterRename,
}

/// What became of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Saved {
    Durable,
    No(&'static str),
    Dies,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum File {
    Record(Box<ArrayRecord>),
    Torn,
}

/// The disk.
#[derive(Debug, Clone, Default)]
pub(crate) struct LedgerDisk {
    files: BTreeMap<ArrayId, File>,
    full: bool,
    next: Option<WriteFault>,
    /// Files that this life of the daemon found unreadable.
    sealed: BTreeSet<ArrayId>,
}

impl LedgerDisk {
    pub(crate) fn get(&self, array: ArrayId) -> Option<&ArrayRecord> {
        match self.files.get(&array)? {
            File::Record(record) => Some(record),
            File::Torn => None,
        }
    }

    pub(crate) fn get_mut(&mut self, array: ArrayId) -> Option<&mut ArrayRecord> {
        match self.files.get_mut(&array)? {
            File::Record(record) => Some(record),
            File::Torn => None,
        }
    }

    /// Every file, as a daemon that starts finds it.
    pub(crate) fn load(&mut self) -> Vec<(ArrayId, File)> {
        let torn = self.files.iter().filter(|(_, file)| **file == File::Torn);
        self.sealed = torn.map(|(array, _)| *array).collect();
        self.files.iter().map(|(array, file)| (*array, file.clone())).collect()
    }

    pub(crate) fn save(&mut self, array: ArrayId, record: &ArrayRecord) -> Saved {
        if self.full {
            return Saved::No("no space left on device");
        }
        if self.sealed.contains(&array) {
            return Saved::No("the file that is there cannot be read");
        }
        let older = self.get(array).is_some_and(|there| {
            there.generation > record.generation
                || there.generation == record.generation && there != record
        });
        if older {
            return Saved::No("the record is not newer than the one that is there");
        }
        match self.next.take() {
            Some(WriteFault::DiesBeforeRename) => Saved::Dies,
            Some(WriteFault::Refused) => Saved::No("input/output error"),
            Some(WriteFault::DiesAfterRename) => {
                self.put(array, record);
                Saved::Dies
            }
            Some(WriteFault::RefusedAfterRename) => {
                self.put(array, record);
                Saved::No("input/output error, told by the last fsync")
            }
            None => {
                self.put(array, record);
                Saved::Durable
            }
        }
    }

    fn put(&mut self, array: ArrayId, record: &ArrayRecord) {
        self.files.insert(array, File::Record(Box::new(record.clone())));
    }

    pub(crate) fn remove(&mut self, array: ArrayId) {
        self.files.remove(&array);
        self.sealed.remove(&array);
    }

    pub(crate) fn fail_next(&mut self, fault: Option<WriteFault>) {
        self.next = fault;
    }

    pub(crate) fn set_full(&mut self, full: bool) {
        self.full = full;
    }

    /// The file's content is gone. Answers whether there was a file.
    pub(crate) fn tear(&mut self, array: ArrayId) -> bool {
        match self.files.get_mut(&array) {
            Some(file) => {
                *file = File::Torn;
                true
            }
            None => false,
        }
    }

    /// A person has looked at a file that cannot be read: it goes.
    pub(crate) fn give_up(&mut self, array: ArrayId) {
        if self.sealed.contains(&array) {
            self.remove(array);
        }
    }

    /// One line for each file, for people.
    pub(crate) fn words(&self, array: ArrayId) -> String {
        match self.files.get(&array) {
            None => "no record".to_owned(),
            Some(File::Torn) => "a record that cannot be read".to_owned(),
            Some(File::Record(record)) => format!("record {}", record.generation),
        }
    }
}
