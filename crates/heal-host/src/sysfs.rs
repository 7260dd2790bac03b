//! Typed reading of kernel attributes, all of it below one root path.
//!
//! An attribute is a small text file whose content is made at the moment of reading, by code that
//! can fail, and whose object can vanish between `open` and `read`. So every read answers with
//! [`Observed`], and the reason of an `Unknown` says what the kernel said:
//!
//! ```text
//!   open, read ──► ENOENT, ENODEV, ENXIO, EBUSY ──► Vanished       the object is going or gone
//!              ──► any other error              ──► ReadFailed
//!              ──► longer than the bound        ──► Malformed
//!              ──► empty                        ──► NotFilledYet    the driver has not got there yet
//!              ──► not of the expected form     ──► Malformed
//! ```
//!
//! `EBUSY` counts as vanished because MD answers with it for an array that is being freed
//! (`md_attr_show`, `drivers/md/md.c`).
//!
//! [`Dir`] is a path, and what stands there may be another object at the next read. `Held` is an
//! open directory: everything read and written through it belongs to one object, and once that is
//! gone there is nothing behind it any more, whoever has the name then. Acts and quick looks go
//! through it.
//!
//! The last part of a path is never followed if it is a symbolic link: attributes are plain files,
//! and a link to a device node must not be opened by accident. The price: a link has to be asked
//! for as a link ([`Dir::link_target`]).

use std::ffi::{CStr, OsStr};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::{Mutex, PoisonError};

use heal_types::{Observed, UnknownWhy};
use rustix::fs::{Mode, OFlags, RawDir, SeekFrom};
use rustix::io::Errno;

/// The longest attribute. The kernel's own bound is one page.
pub(crate) const ATTRIBUTE: usize = 4096;

/// The longest file of `/proc` or of udev's database that is read.
const TABLE: usize = 1024 * 1024;

/// The most entries of one directory that are listed.
pub(crate) const ENTRIES: usize = 65_536;

/// The place everything is read below: `/` on a host, a captured tree in a test.
#[derive(Debug, Clone)]
pub struct Root {
    path: PathBuf,
}

impl Root {
    /// Reading below `path`.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// Reading this host.
    #[must_use]
    pub fn host() -> Self {
        Self::new("/")
    }

    /// The directory at `relative`.
    #[must_use]
    pub fn dir(&self, relative: impl AsRef<Path>) -> Dir {
        Dir { path: self.path.join(relative) }
    }

    /// A whole table, such as `proc/mdstat`.
    #[must_use]
    pub fn table(&self, relative: impl AsRef<Path>) -> Observed<String> {
        text(&self.path.join(relative), TABLE)
    }
}

/// A directory of attributes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dir {
    path: PathBuf,
}

impl Dir {
    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The last part of its path.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        self.path.file_name().and_then(OsStr::to_str)
    }

    /// The directory `name` in this one.
    #[must_use]
    pub fn dir(&self, name: impl AsRef<Path>) -> Self {
        Self { path: self.path.join(name) }
    }

    /// Whether it is there. A link that leads nowhere is not.
    #[must_use]
    pub fn exists(&self) -> bool {
        self.path.is_dir()
    }

    /// An attribute's text without white space around it.
    #[must_use]
    pub fn text(&self, name: &str) -> Observed<String> {
        text(&self.path.join(name), ATTRIBUTE)
    }

    /// An attribute that may be empty, as a list may.
    #[must_use]
    pub fn list_text(&self, name: &str) -> Observed<String> {
        empty_is_a_list(text(&self.path.join(name), ATTRIBUTE))
    }

    /// An attribute's value.
    #[must_use]
    pub fn value<T: FromStr>(&self, name: &str) -> Observed<T> {
        parsed(&self.text(name), |text| text.parse().ok())
    }

    /// An attribute that not every kernel or object has: where it is missing although its directory
    /// is there, it is `Unsupported`.
    #[must_use]
    pub fn optional<T: FromStr>(&self, name: &str) -> Observed<T> {
        match self.value(name) {
            Observed::Unknown(UnknownWhy::Vanished) if self.exists() => {
                Observed::Unknown(UnknownWhy::Unsupported)
            }
            other @ (Observed::Known(_) | Observed::Unknown(_)) => other,
        }
    }

    /// The names in it, sorted. A name that is not UTF-8 is not one of the kernel's.
    #[must_use]
    pub fn entries(&self) -> Observed<Vec<String>> {
        match list(&self.path) {
            Ok(Some(mut names)) => {
                names.sort_unstable();
                Observed::Known(names)
            }
            Ok(None) => Observed::Unknown(UnknownWhy::Malformed),
            Err(error) => Observed::Unknown(why(&error)),
        }
    }

    /// Where the link `name` points, as it is written. For a link below `/sys` the kernel writes
    /// the target's path anew at each reading, even if the target is gone.
    #[must_use]
    pub fn link_target(&self, name: &str) -> Observed<PathBuf> {
        match std::fs::read_link(self.path.join(name)) {
            Ok(target) => Observed::Known(target),
            Err(error) => Observed::Unknown(why(&error)),
        }
    }

    /// The inode of the directory. Below `/sys` it is the kernel's own number of the object, which
    /// is not given out again for a new object of the same name (`kernfs_ino`, 64 bits wide).
    #[must_use]
    pub fn inode(&self) -> Observed<u64> {
        match rustix::fs::stat(&self.path) {
            Ok(stat) => Observed::Known(stat.st_ino),
            Err(errno) => Observed::Unknown(why(&errno.into())),
        }
    }
}

/// One object's directory, held open.
#[derive(Debug)]
pub(crate) struct Held {
    fd: OwnedFd,
}

impl Held {
    /// Holds what `dir` leads to now.
    pub(crate) fn open(dir: &Dir) -> Observed<Self> {
        Self::of(rustix::fs::open(dir.path(), HOLD, Mode::empty()))
    }

    fn of(opened: Result<OwnedFd, Errno>) -> Observed<Self> {
        match opened {
            Ok(fd) => Observed::Known(Self { fd }),
            Err(errno) => Observed::Unknown(why(&errno.into())),
        }
    }

    /// Which object it is; see [`Dir::inode`].
    pub(crate) fn inode(&self) -> Observed<u64> {
        match rustix::fs::fstat(&self.fd) {
            Ok(stat) => Observed::Known(stat.st_ino),
            Err(errno) => Observed::Unknown(why(&errno.into())),
        }
    }

    /// As [`Dir::text`].
    pub(crate) fn text(&self, name: &str) -> Observed<String> {
        self.bytes(name, as_text)
    }

    /// As [`Dir::value`].
    pub(crate) fn value<T: FromStr>(&self, name: &str) -> Observed<T> {
        parsed(&self.text(name), |text| text.parse().ok())
    }

    /// Whether an attribute says exactly `word`. What else it says is not kept: it may be a secret.
    pub(crate) fn says(&self, name: &str, word: &str) -> Observed<bool> {
        self.bytes(name, |content| Observed::Known(content.trim_ascii() == word.as_bytes()))
    }

    /// Its names, to be listed again and again.
    pub(crate) fn listing(&self) -> Result<Listing, Errno> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(&self.fd, c".", flags, Mode::empty())?;
        Ok(Listing(Mutex::new(fd)))
    }

    /// Writes `text` to an attribute, in one `write`: the kernel takes each as a command of its
    /// own.
    pub(crate) fn write(&self, name: &str, text: &str) -> Result<(), Errno> {
        // To the kernel truncating says nothing; in a captured tree it makes room for the new text.
        let flags = OFlags::WRONLY | OFlags::TRUNC | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let fd = rustix::fs::openat(&self.fd, name, flags, Mode::empty())?;
        write_whole(&fd, text)
    }

    /// An attribute that can be written to again and again. Not one of a captured tree, where a
    /// shorter text leaves the end of a longer one.
    pub(crate) fn writable(&self, name: &str) -> Result<Writable, Errno> {
        let flags = OFlags::WRONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        rustix::fs::openat(&self.fd, name, flags, Mode::empty()).map(Writable)
    }

    /// One attribute, to be read again and again.
    pub(crate) fn attribute(&self, name: &str) -> Result<Attribute, Errno> {
        rustix::fs::openat(&self.fd, name, ASK, Mode::empty()).map(Attribute)
    }

    fn bytes<T>(&self, name: &str, read: impl FnOnce(&[u8]) -> Observed<T>) -> Observed<T> {
        rustix::fs::openat(&self.fd, name, ASK, Mode::empty())
            .and_then(|fd| attribute(&fd, read))
            .unwrap_or_else(|errno| Observed::Unknown(why(&errno.into())))
    }
}

/// One attribute of one object, held open: when the object is gone it says so (`ENODEV`), whoever
/// has its name by then.
#[derive(Debug)]
pub(crate) struct Attribute(OwnedFd);

impl Attribute {
    /// What it says now.
    pub(crate) fn value<T: FromStr>(&self) -> Observed<T> {
        attribute(&self.0, as_value).unwrap_or_else(|errno| Observed::Unknown(why(&errno.into())))
    }
}

/// One attribute, held open to be written; as [`Attribute`].
#[derive(Debug)]
pub(crate) struct Writable(OwnedFd);

impl Writable {
    /// As [`Held::write`].
    pub(crate) fn write(&self, text: &str) -> Result<(), Errno> {
        write_whole(&self.0, text)
    }
}

/// Where in an attribute it is written to says nothing (`sysfs_kf_write`, `fs/sysfs/file.c`).
fn write_whole(fd: &OwnedFd, text: &str) -> Result<(), Errno> {
    match rustix::io::retry_on_intr(|| rustix::io::write(fd, text.as_bytes()))? {
        written if written == text.len() => Ok(()),
        _ => Err(Errno::IO),
    }
}

/// One object's directory, held open to be listed.
#[derive(Debug)]
pub(crate) struct Listing(Mutex<OwnedFd>);

impl Listing {
    /// As [`each_name`].
    pub(crate) fn names(&self, mut take: impl FnMut(&CStr)) -> Result<(), Errno> {
        // Where the list is read is the descriptor's own: one at a time.
        let fd = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        each_name(&fd, |name| {
            take(name);
            Ok(())
        })
    }
}

/// Tells `take` every name in an open directory, from the first, in no order. Every object has
/// some: where there are none it is gone.
pub(crate) fn each_name(
    fd: &OwnedFd,
    mut take: impl FnMut(&CStr) -> Result<(), Errno>,
) -> Result<(), Errno> {
    rustix::fs::seek(fd, SeekFrom::Start(0))?;
    let mut room = [MaybeUninit::uninit(); ATTRIBUTE];
    let mut entries = RawDir::new(fd, &mut room);
    let mut any = false;
    while let Some(entry) = entries.next() {
        let entry = entry?;
        if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
            any = true;
            take(entry.file_name())?;
        }
    }
    if any { Ok(()) } else { Err(Errno::NODEV) }
}

const ASK: OFlags = OFlags::RDONLY
    .union(OFlags::CLOEXEC)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::NONBLOCK)
    .union(OFlags::NOCTTY);

const HOLD: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// What an open attribute says, through `read`. It comes whole with the first read: `kernfs` keeps
/// a page of it, so an answer that does not fill the room is its end, and asking again would cost
/// as much as the read itself. Nobody clears the room before: that takes longer than the rest.
pub(crate) fn attribute<T>(
    fd: &OwnedFd,
    read: impl FnOnce(&[u8]) -> Observed<T>,
) -> Result<Observed<T>, Errno> {
    let mut room = [MaybeUninit::uninit(); ATTRIBUTE + 1];
    loop {
        match rustix::io::pread(fd, &mut room[..], 0) {
            Ok((content, _)) if content.len() > ATTRIBUTE => {
                return Ok(Observed::Unknown(UnknownWhy::Malformed));
            }
            Ok((content, _)) => return Ok(read(content)),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}

/// `text` through `read`; what `read` does not understand is malformed.
pub(crate) fn parsed<T>(
    text: &Observed<String>,
    read: impl FnOnce(&str) -> Option<T>,
) -> Observed<T> {
    match text {
        Observed::Known(text) => {
            read(text).map_or(Observed::Unknown(UnknownWhy::Malformed), Observed::Known)
        }
        Observed::Unknown(why) => Observed::Unknown(*why),
    }
}

/// Opens an attribute for reading: never a device, never through a link in its last part.
pub(crate) fn open(path: &Path) -> Result<OwnedFd, Errno> {
    rustix::fs::open(
        path,
        OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY,
        Mode::empty(),
    )
}

/// Reads a file from its beginning, at most `bound` bytes and one more: whoever gets more than
/// `bound` knows that it was too long.
pub(crate) fn read_whole(fd: &OwnedFd, bound: usize) -> Result<Vec<u8>, Errno> {
    let mut content = vec![0; 4096.min(bound + 1)];
    let mut filled = 0;
    loop {
        if filled == content.len() {
            if filled > bound {
                break;
            }
            content.resize((filled * 4).min(bound + 1), 0);
        }
        let offset = u64::try_from(filled).map_err(|_| Errno::OVERFLOW)?;
        match rustix::io::pread(fd, &mut content[filled..], offset) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    content.truncate(filled);
    Ok(content)
}

fn text(path: &Path, bound: usize) -> Observed<String> {
    let content = match open(path).and_then(|fd| read_whole(&fd, bound)) {
        Ok(content) => content,
        Err(errno) => return Observed::Unknown(why(&errno.into())),
    };
    if content.len() > bound {
        return Observed::Unknown(UnknownWhy::Malformed);
    }
    as_text(&content)
}

pub(crate) fn as_text(content: &[u8]) -> Observed<String> {
    trimmed(content).map(str::to_owned)
}

pub(crate) fn as_value<T: FromStr>(content: &[u8]) -> Observed<T> {
    match trimmed(content) {
        Observed::Known(text) => {
            text.parse().map_or(Observed::Unknown(UnknownWhy::Malformed), Observed::Known)
        }
        Observed::Unknown(why) => Observed::Unknown(why),
    }
}

fn trimmed(content: &[u8]) -> Observed<&str> {
    match std::str::from_utf8(content).map(str::trim) {
        Ok("") => Observed::Unknown(UnknownWhy::NotFilledYet),
        Ok(text) => Observed::Known(text),
        Err(_) => Observed::Unknown(UnknownWhy::Malformed),
    }
}

pub(crate) fn empty_is_a_list(text: Observed<String>) -> Observed<String> {
    match text {
        Observed::Unknown(UnknownWhy::NotFilledYet) => Observed::Known(String::new()),
        other @ (Observed::Known(_) | Observed::Unknown(_)) => other,
    }
}

fn list(path: &Path) -> io::Result<Option<Vec<String>>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(path)? {
        if names.len() >= ENTRIES {
            return Ok(None);
        }
        let name = entry?.file_name();
        if let Ok(name) = std::str::from_utf8(name.as_bytes()) {
            names.push(name.to_owned());
        }
    }
    Ok(Some(names))
}

pub(crate) fn why(error: &io::Error) -> UnknownWhy {
    match Errno::from_io_error(error) {
        Some(Errno::NOENT | Errno::NODEV | Errno::NXIO | Errno::BUSY) => UnknownWhy::Vanished,
        Some(_) | None => UnknownWhy::ReadFailed,
    }
}
