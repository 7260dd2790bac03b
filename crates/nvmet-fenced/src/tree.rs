//! The kernel's configuration tree of its NVMe target, as far as it is needed here.
//!
//! Paths are below `/sys/kernel/config/nvmet`. It looks like a file system and is none: a directory
//! is an object with attributes, a link is a relation, and both come and go with effects.

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

#[cfg(any(test, feature = "fake"))]
#[allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "plays a part in tests")]
pub mod fake;

/// As much of an attribute as is read: they are one page at most.
const PAGE: u64 = 4096;

/// The tree.
pub trait Tree: Send + Sync {
    /// The names in a directory; nothing if it is not there.
    ///
    /// # Errors
    /// When it cannot be read.
    fn list(&self, dir: &Path) -> io::Result<Option<Vec<String>>>;
    /// An attribute, without the end of its line; nothing if there is none.
    ///
    /// # Errors
    /// When it cannot be read.
    fn read(&self, file: &Path) -> io::Result<Option<String>>;
    /// Writes an attribute.
    ///
    /// # Errors
    /// When the kernel does not take the value.
    fn write(&self, file: &Path, value: &str) -> io::Result<()>;
    /// Makes an object. That it is there already is well.
    ///
    /// # Errors
    /// When it cannot be made.
    fn make(&self, dir: &Path) -> io::Result<()>;
    /// Removes an object. That it is gone already is well.
    ///
    /// # Errors
    /// When it is still in use.
    fn remove(&self, dir: &Path) -> io::Result<()>;
    /// Makes a relation to `to` at `at`. That it is there already is well.
    ///
    /// # Errors
    /// When it cannot be made.
    fn link(&self, to: &Path, at: &Path) -> io::Result<()>;
    /// Ends the relation at `at`. That it is gone already is well.
    ///
    /// # Errors
    /// When it cannot be ended.
    fn unlink(&self, at: &Path) -> io::Result<()>;
    /// Where a device's path leads: two names of one device lead to the same place.
    fn resolve(&self, device: &str) -> String;
}

/// The kernel's own.
#[derive(Debug, Clone)]
pub struct Kernel {
    root: PathBuf,
}

impl Kernel {
    /// The tree at `root`.
    #[must_use]
    pub fn at(root: &Path) -> Self {
        Self { root: root.to_path_buf() }
    }
}

/// "Already so" is success.
fn unless(kind: io::ErrorKind, done: io::Result<()>) -> io::Result<()> {
    match done {
        Err(error) if error.kind() == kind => Ok(()),
        done => done,
    }
}

impl Tree for Kernel {
    fn list(&self, dir: &Path) -> io::Result<Option<Vec<String>>> {
        let entries = match fs::read_dir(self.root.join(dir)) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let name = |entry: io::Result<fs::DirEntry>| {
            let name = entry?.file_name().into_string();
            name.map_err(|name| io::Error::other(format!("{name:?} is no name")))
        };
        let mut names = entries.map(name).collect::<io::Result<Vec<String>>>()?;
        names.sort_unstable();
        Ok(Some(names))
    }

    fn read(&self, file: &Path) -> io::Result<Option<String>> {
        let file = match fs::File::open(self.root.join(file)) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut text = String::new();
        file.take(PAGE).read_to_string(&mut text)?;
        Ok(Some(text.trim_end_matches('\n').to_owned()))
    }

    fn write(&self, file: &Path, value: &str) -> io::Result<()> {
        // Not created: an attribute is there or this kernel has none of that name.
        let mut file = fs::OpenOptions::new().write(true).open(self.root.join(file))?;
        file.write_all(value.as_bytes())
    }

    fn make(&self, dir: &Path) -> io::Result<()> {
        unless(io::ErrorKind::AlreadyExists, fs::create_dir(self.root.join(dir)))
    }

    fn remove(&self, dir: &Path) -> io::Result<()> {
        unless(io::ErrorKind::NotFound, fs::remove_dir(self.root.join(dir)))
    }

    fn link(&self, to: &Path, at: &Path) -> io::Result<()> {
        let made = std::os::unix::fs::symlink(self.root.join(to), self.root.join(at));
        unless(io::ErrorKind::AlreadyExists, made)
    }

    fn unlink(&self, at: &Path) -> io::Result<()> {
        #[expect(clippy::disallowed_methods, reason = "a relation of the kernel's, and no file")]
        let done = fs::remove_file(self.root.join(at));
        unless(io::ErrorKind::NotFound, done)
    }

    fn resolve(&self, device: &str) -> String {
        let found = fs::canonicalize(device).ok();
        found.map_or_else(|| device.to_owned(), |path| path.display().to_string())
    }
}
