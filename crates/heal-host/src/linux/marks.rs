//! Files that tell udev's rules which devices are legs of managed arrays.
//!
//! A rule can test whether a file exists, and nothing else about this program. So there is one
//! empty file for each leg, named by device number as a rule knows it (`$major:$minor`). The rules
//! keep `mdadm -If` of the stock rules away from legs that have one.

#![allow(clippy::disallowed_methods, reason = "empty files of our own, in a directory of our own")]

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use heal_types::DevT;

/// Makes the marks in `directory` equal to `legs`. Every mark is tried; the first failure is told.
pub(super) fn set(directory: &Path, legs: &BTreeSet<DevT>) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o755).create(directory)?;
    let mut result = Ok(());
    let mut note = |done: io::Result<()>| {
        if let (Ok(()), Err(error)) = (&result, done) {
            result = Err(error);
        }
    };
    let mut there = BTreeSet::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let Some(dev) = mark(&entry) else { continue };
        if legs.contains(&dev) {
            there.insert(dev);
        } else {
            note(fs::remove_file(entry.path()));
        }
    }
    for dev in legs.difference(&there) {
        note(make(&directory.join(dev.to_string())));
    }
    result
}

/// The device an entry is a mark of. Whatever is not exactly a mark is left alone.
fn mark(entry: &fs::DirEntry) -> Option<DevT> {
    let name = entry.file_name();
    let dev: DevT = name.to_str()?.parse().ok()?;
    let meta = entry.metadata().ok()?;
    (meta.is_file() && meta.len() == 0 && name.to_str()? == dev.to_string()).then_some(dev)
}

fn make(path: &Path) -> io::Result<()> {
    OpenOptions::new().write(true).create_new(true).mode(0o644).open(path).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exec::testing::TempDir;

    fn dev(minor: u32) -> DevT {
        DevT { major: 259, minor }
    }

    #[test]
    fn marks_follow_the_legs_and_nothing_else_is_touched() {
        let dir = TempDir::new();
        let marks = dir.path().join("run/legs");
        set(&marks, &BTreeSet::from([dev(1), dev(2)])).unwrap();
        dir.file("run/legs/259:7", "not ours");
        dir.file("run/legs/notes", "");
        dir.file("run/legs/0259:8", "");
        set(&marks, &BTreeSet::from([dev(2), dev(3)])).unwrap();
        let mut names: Vec<String> = fs::read_dir(&marks)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        assert_eq!(names, ["0259:8", "259:2", "259:3", "259:7", "notes"]);
    }

    #[test]
    fn one_mark_that_cannot_be_made_does_not_keep_the_others_away() {
        let dir = TempDir::new();
        fs::create_dir(dir.path().join("259:1")).unwrap();
        assert!(set(dir.path(), &BTreeSet::from([dev(1), dev(2)])).is_err());
        assert!(dir.path().join("259:2").is_file());
    }
}
