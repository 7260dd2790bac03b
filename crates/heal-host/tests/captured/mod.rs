//! Trees of `/sys`, `/proc` and `/run` as text, unfolded into a directory for one test.
//!
//! A captured tree has empty directories, links that lead nowhere and names with colons: what a
//! version control system keeps badly. So each is one file, `trees/NAME.tree`, one entry a line:
//!
//! ```text
//!   f PATH CONTENT      a file; `\n` and `\\` in its content are written so
//!   l PATH TARGET       a symbolic link, as it reads
//!   d PATH              a directory, where no file implies it
//!   # anything          a remark
//! ```
//!
//! `trees/capture.sh` writes this form from a running machine.
#![allow(
    dead_code,
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test writes and deletes its own tree, and no test needs all of this"
)]

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use heal_host::sysfs::Root;

/// A tree on disk, deleted at the end of the test.
pub(crate) struct Tree {
    path: PathBuf,
}

impl Tree {
    /// An empty one.
    pub(crate) fn empty() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("nvme-heal-tree-{}-{count}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path).unwrap();
        Self { path }
    }

    /// The captured tree `trees/NAME.tree`.
    pub(crate) fn captured(name: &str) -> Self {
        let file =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/trees").join(format!("{name}.tree"));
        let tree = Self::empty();
        for line in fs::read_to_string(file).unwrap().lines() {
            tree.entry(line);
        }
        tree
    }

    pub(crate) fn root(&self) -> Root {
        Root::new(&self.path)
    }

    pub(crate) fn path(&self, relative: &str) -> PathBuf {
        self.path.join(relative)
    }

    pub(crate) fn file(&self, relative: &str, content: &str) {
        let path = self.path(relative);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    pub(crate) fn dir(&self, relative: &str) {
        fs::create_dir_all(self.path(relative)).unwrap();
    }

    pub(crate) fn link(&self, relative: &str, target: &str) {
        let path = self.path(relative);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        symlink(target, path).unwrap();
    }

    /// Removes a file, a link or a whole directory.
    pub(crate) fn remove(&self, relative: &str) {
        let path = self.path(relative);
        if path.is_dir() && !path.is_symlink() {
            fs::remove_dir_all(path).unwrap();
        } else {
            fs::remove_file(path).unwrap();
        }
    }

    fn entry(&self, line: &str) {
        let mut parts = line.splitn(3, ' ');
        let (kind, path) = (parts.next(), parts.next().unwrap_or_default());
        let rest = parts.next().unwrap_or_default();
        match kind {
            Some("f") => self.file(path, &unescape(rest)),
            Some("l") => self.link(path, rest),
            Some("d") => self.dir(path),
            Some("#" | "") => {}
            other => panic!("no such kind of entry: {other:?}"),
        }
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.path);
    }
}

fn unescape(text: &str) -> String {
    let mut plain = String::new();
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        if character != '\\' {
            plain.push(character);
            continue;
        }
        match characters.next() {
            Some('n') => plain.push('\n'),
            Some(other) => plain.push(other),
            None => plain.push('\\'),
        }
    }
    plain
}
