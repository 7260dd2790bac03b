//! Attributes that stay open from one glance to the next.
//!
//! Opening and closing a file below `/sys` costs several times what reading it does, so a glance
//! keeps what it opened. That is safe because an open attribute belongs to one kernel object for as
//! long as it is open: when the object goes, reading answers `ENODEV` (`kernfs_seq_start`,
//! `fs/kernfs/file.c`), and the path is opened anew, be it that somebody else has the name by then.
//! So what is read is what a fresh `open` would have led to.
//!
//! In a captured tree a file outlives its name, so there nothing is kept.
//!
//! The price: some twenty descriptors for each array. There are no more than a quarter of what this
//! process may open; what does not fit is opened each time.

use std::collections::HashMap;
use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::str::FromStr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use heal_types::Observed;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::process::{Resource, getrlimit};

use super::Seen;
use super::opened::Controllers;
use crate::sysfs::{ENTRIES, as_text, as_value, attribute, each_name, open, why};

/// Whoever was not read for so many looks is closed.
const UNUSED: u32 = 16;

/// Open attributes, by path. Shared by everybody who glances.
#[derive(Debug, Default)]
pub(crate) struct Kept {
    /// The most that are kept; none in a captured tree.
    room: usize,
    open: Mutex<Open>,
    controllers: Controllers,
}

#[derive(Debug, Default)]
struct Open {
    /// By the bytes of their paths: to compare paths as such takes longer than to read what is
    /// there.
    files: HashMap<OsString, File>,
    look: u32,
}

#[derive(Debug)]
struct File {
    fd: OwnedFd,
    used: u32,
}

impl Kept {
    /// Keeps what this process has room for.
    pub(crate) fn host() -> Self {
        let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::from(u16::MAX));
        let room = usize::try_from(limit / 4).unwrap_or(usize::MAX).min(16_384);
        Self { room, open: Mutex::default(), controllers: Controllers::host() }
    }

    /// The controllers that are open.
    pub(crate) fn controllers(&self) -> &Controllers {
        &self.controllers
    }

    /// The text at `path`, as [`crate::sysfs::Dir::text`] has it.
    pub(super) fn text(&self, path: &Path) -> Observed<String> {
        self.read(path, as_text)
    }

    /// As [`crate::sysfs::Dir::value`].
    pub(super) fn value<T: FromStr>(&self, path: &Path) -> Observed<T> {
        self.read(path, as_value)
    }

    fn read<T>(&self, path: &Path, read: fn(&[u8]) -> Observed<T>) -> Observed<T> {
        self.attribute(path, read).unwrap_or_else(|errno| Observed::Unknown(why(&errno.into())))
    }

    /// The names in the directory at `path`, in no order. It stays open, too.
    pub(super) fn names(&self, path: &Path) -> Observed<Vec<String>> {
        match self.listed(path) {
            Ok(names) => Observed::Known(names),
            Err(errno) => Observed::Unknown(why(&errno.into())),
        }
    }

    fn listed(&self, path: &Path) -> Result<Vec<String>, Errno> {
        let mut open_files = self.lock();
        let look = open_files.look;
        if let Some(file) = open_files.files.get_mut(path.as_os_str()) {
            file.used = look;
            match names_in(&file.fd) {
                Ok(names) => return Ok(names),
                Err(_) => drop(open_files.files.remove(path.as_os_str())),
            }
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = rustix::fs::open(path, flags, Mode::empty())?;
        let names = names_in(&fd)?;
        if open_files.files.len() < self.room {
            open_files.files.insert(path.as_os_str().to_owned(), File { fd, used: look });
        }
        Ok(names)
    }

    fn attribute<T>(
        &self,
        path: &Path,
        read: fn(&[u8]) -> Observed<T>,
    ) -> Result<Observed<T>, Errno> {
        let mut open_files = self.lock();
        let look = open_files.look;
        if let Some(file) = open_files.files.get_mut(path.as_os_str()) {
            file.used = look;
            if let Ok(told) = attribute(&file.fd, read) {
                return Ok(told);
            }
            open_files.files.remove(path.as_os_str());
        }
        let fd = open(path)?;
        let told = attribute(&fd, read)?;
        if open_files.files.len() < self.room {
            open_files.files.insert(path.as_os_str().to_owned(), File { fd, used: look });
        }
        Ok(told)
    }

    /// Another look was made: closes what nobody has read for a while.
    pub(crate) fn looked(&self, seen: &Seen) {
        self.controllers.looked(seen);
        let mut open_files = self.lock();
        open_files.look = open_files.look.wrapping_add(1);
        let look = open_files.look;
        open_files.files.retain(|_, file| look.wrapping_sub(file.used) < UNUSED);
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        // The list is whole after every statement.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn names_in(fd: &OwnedFd) -> Result<Vec<String>, Errno> {
    let mut names = Vec::new();
    each_name(fd, |name| {
        if names.len() >= ENTRIES {
            return Err(Errno::FBIG);
        }
        // A name that is not UTF-8 is not one of the kernel's.
        names.extend(name.to_str().ok().map(str::to_owned));
        Ok(())
    })?;
    Ok(names)
}

#[cfg(test)]
mod tests {
    use heal_types::UnknownWhy;

    use super::*;
    use crate::exec::testing::TempDir;

    fn known(kept: &Kept, path: &Path) -> String {
        kept.text(path).known().unwrap().clone()
    }

    #[test]
    fn an_attribute_is_opened_once_and_read_anew_each_time() {
        let dir = TempDir::new();
        let kept = Kept { room: 1, ..Kept::default() };
        let (one, two) = (dir.file("one", "1\n"), dir.file("two", "2\n"));
        assert_eq!((known(&kept, &one), known(&kept, &two)), ("1".into(), "2".into()));
        assert_eq!(kept.lock().files.len(), 1, "there is room for one");
        dir.file("one", "3\n");
        assert_eq!(known(&kept, &one), "3");
        // It is open: the name may lead elsewhere.
        std::fs::rename(&two, &one).unwrap();
        assert_eq!(known(&kept, &one), "3");
        let gone = kept.text(&dir.path().join("three"));
        assert_eq!(gone, Observed::Unknown(UnknownWhy::Vanished));
    }

    #[test]
    #[allow(clippy::disallowed_methods, reason = "a test empties what it made")]
    fn a_directory_is_opened_once_and_listed_anew_each_time() {
        let dir = TempDir::new();
        let kept = Kept { room: 9, ..Kept::default() };
        let place = dir.file("place/one", "1\n").parent().unwrap().to_owned();
        let names = |kept: &Kept| {
            let mut names = kept.names(&place).known().cloned().unwrap_or_default();
            names.sort();
            names
        };
        assert_eq!(names(&kept), ["one"]);
        dir.file("place/two", "2\n");
        assert_eq!(names(&kept), ["one", "two"]);
        assert_eq!(kept.lock().files.len(), 1);
        // Gone, and another one has its name.
        for name in ["one", "two"] {
            std::fs::remove_file(place.join(name)).unwrap();
        }
        std::fs::remove_dir(&place).unwrap();
        assert!(kept.names(&place).known().is_none());
        dir.file("place/three", "3\n");
        assert_eq!(names(&kept), ["three"]);
    }

    #[test]
    fn what_nobody_reads_is_closed() {
        let dir = TempDir::new();
        let kept = Kept { room: 9, ..Kept::default() };
        let (one, two) = (dir.file("one", "1\n"), dir.file("two", "2\n"));
        kept.text(&two);
        for _ in 0..UNUSED {
            kept.text(&one);
            kept.looked(&Seen::default());
        }
        assert_eq!(kept.lock().files.len(), 1);
    }

    #[test]
    fn in_a_captured_tree_nothing_is_kept() {
        let dir = TempDir::new();
        let kept = Kept::default();
        let path = dir.file("one", "1\n");
        assert_eq!(known(&kept, &path), "1");
        assert!(kept.lock().files.is_empty());
        assert!(Kept::host().room > 0);
    }
}
