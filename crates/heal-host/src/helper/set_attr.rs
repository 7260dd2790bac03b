//! Writes one word to one member's `state`, once the array's UUID is the one that was meant.
//!
//! Both files are opened through one handle of the array's `md` directory. A name that was given to
//! another array meanwhile leads to another directory: this one then has no files any more.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use heal_types::{ArrayId, DevT, DeviceName};
use rustix::fs::{Mode, OFlags};

use super::{Exit, Failure, Verb};

/// Longer than any word of MD.
const WORD: u64 = 32;

/// Longer than all flags of a member.
const FLAGS: u64 = 256;

/// Longer than any UUID in any form.
const UUID_TEXT: u64 = 64;

/// Writes below `block`, which is `/sys/block`. The word goes out in one `write`: MD takes each as
/// a command of its own.
pub(super) fn write(
    block: &Path,
    array: (&DeviceName, ArrayId),
    leg: &DeviceName,
    verb: Verb,
) -> Result<(), Failure> {
    let (name, id) = array;
    let (directory, path) = proven(block, name, id)?;
    let file = format!("dev-{leg}/state");
    match verb {
        Verb::RemoveFaulty if !is_faulty(&directory, &path, &file)? => Ok(()),
        Verb::Faulty | Verb::Remove | Verb::RemoveFaulty | Verb::ClearWantReplacement => {
            put(&directory, &path, &file, verb.word())
        }
    }
}

/// Whether a member is faulty: not, if there is none. MD's own "remove" takes one that is being
/// filled as well.
fn is_faulty(directory: &OwnedFd, path: &Path, file: &str) -> Result<bool, Failure> {
    let failed = |error: io::Error| Failure::kernel(path.join(file).display(), &error);
    let mut flags = String::new();
    match open(directory, file, OFlags::RDONLY) {
        Ok(state) => state.take(FLAGS).read_to_string(&mut flags).map_err(failed)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(failed(error)),
    };
    Ok(flags.trim().split(',').any(|flag| flag == "faulty"))
}

/// Lets MD go on with an array that is frozen. One that is not is left alone.
pub(super) fn thaw(block: &Path, name: &DeviceName, id: ArrayId) -> Result<(), Failure> {
    const ACTION: &str = "sync_action";
    let (directory, path) = proven(block, name, id)?;
    let mut action = String::new();
    open(&directory, ACTION, OFlags::RDONLY)
        .and_then(|file| file.take(WORD).read_to_string(&mut action))
        .map_err(|error| Failure::kernel(path.join(ACTION).display(), &error))?;
    if action.trim() == "frozen" { put(&directory, &path, ACTION, "idle") } else { Ok(()) }
}

/// The number of the array's device.
pub(super) fn number_of(block: &Path, name: &DeviceName, id: ArrayId) -> Result<DevT, Failure> {
    let (directory, path) = proven(block, name, id)?;
    let mut text = String::new();
    open(&directory, "../dev", OFlags::RDONLY)
        .and_then(|file| file.take(WORD).read_to_string(&mut text))
        .map_err(|error| Failure::kernel(path.join("../dev").display(), &error))?;
    text.trim().parse().map_err(|error| {
        let said = format!("{}: {error}", path.join("../dev").display());
        Failure { exit: Exit::Failed, said }
    })
}

/// The array's directory, once its UUID is the one that was meant.
fn proven(block: &Path, name: &DeviceName, id: ArrayId) -> Result<(OwnedFd, PathBuf), Failure> {
    let path = block.join(name.as_str()).join("md");
    let directory =
        rustix::fs::open(&path, OFlags::DIRECTORY | OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
            .map_err(|errno| Failure::kernel(path.display(), &errno.into()))?;
    prove(&directory, &path, id)?;
    Ok((directory, path))
}

fn put(directory: &OwnedFd, path: &Path, name: &str, word: &str) -> Result<(), Failure> {
    let path = path.join(name);
    let mut file = open(directory, name, OFlags::WRONLY)
        .map_err(|error| Failure::kernel(path.display(), &error))?;
    let written = file
        .write(word.as_bytes())
        .map_err(|error| Failure::kernel(format!("{word} to {}", path.display()), &error))?;
    if written == word.len() {
        Ok(())
    } else {
        let error = std::io::Error::from(std::io::ErrorKind::WriteZero);
        Err(Failure::kernel(format!("{word} to {}", path.display()), &error))
    }
}

/// The array behind `directory` is `id`.
fn prove(directory: &OwnedFd, path: &Path, id: ArrayId) -> Result<(), Failure> {
    let mut text = String::new();
    open(directory, "uuid", OFlags::RDONLY)
        .and_then(|file| file.take(UUID_TEXT).read_to_string(&mut text))
        .map_err(|error| Failure::kernel(path.join("uuid").display(), &error))?;
    if text.parse() == Ok(id) {
        return Ok(());
    }
    let said = format!("{} is another array by now: {}", path.display(), text.trim());
    Err(Failure { exit: Exit::OtherDevice, said })
}

fn open(directory: &OwnedFd, name: &str, how: OFlags) -> std::io::Result<File> {
    let flags = how | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(directory, name, flags, Mode::empty())?.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exec::testing::TempDir;

    const UUID: &str = "8e0a1b6c-1f2e-3d4c-5b6a-798800112233";

    #[test]
    fn the_word_lands_in_the_members_state() {
        let dir = TempDir::new();
        dir.file("md127/md/uuid", &format!("{UUID}\n"));
        dir.file("md127/md/dev-nvme1n1/state", "");
        let (array, leg) = ("md127".parse().unwrap(), "nvme1n1".parse().unwrap());
        let id = UUID.parse().unwrap();
        write(dir.path(), (&array, id), &leg, Verb::ClearWantReplacement).unwrap();
        assert_eq!(dir.read("md127/md/dev-nvme1n1/state"), "-want_replacement");
    }

    #[test]
    fn a_name_that_is_another_array_by_now_is_not_written_to() {
        let dir = TempDir::new();
        dir.file("md127/md/uuid", "11111111-1f2e-3d4c-5b6a-798800112233\n");
        dir.file("md127/md/dev-nvme1n1/state", "");
        let (array, leg) = ("md127".parse().unwrap(), "nvme1n1".parse().unwrap());
        let id = UUID.parse().unwrap();
        let failure = write(dir.path(), (&array, id), &leg, Verb::Faulty).unwrap_err();
        assert_eq!(failure.exit, Exit::OtherDevice);
        assert_eq!(dir.read("md127/md/dev-nvme1n1/state"), "");
    }

    #[test]
    fn what_is_removed_if_it_is_faulty_stays_if_it_is_not() {
        let (array, leg) = ("md127".parse().unwrap(), "nvme1n1".parse().unwrap());
        let id = UUID.parse().unwrap();
        let dir = TempDir::new();
        dir.file("md127/md/uuid", UUID);
        let remove = || write(dir.path(), (&array, id), &leg, Verb::RemoveFaulty);
        remove().unwrap(); // It is not there.
        for (before, after) in [("spare,write_mostly\n", "spare"), ("faulty,blocked\n", "remove")] {
            dir.file("md127/md/dev-nvme1n1/state", before);
            remove().unwrap();
            assert!(dir.read("md127/md/dev-nvme1n1/state").starts_with(after), "{before}");
        }
    }

    #[test]
    fn only_a_frozen_array_is_thawed() {
        let (array, id) = ("md127".parse().unwrap(), UUID.parse().unwrap());
        for (before, after) in [("frozen\n", "idle"), ("check\n", "check\n")] {
            let dir = TempDir::new();
            dir.file("md127/md/uuid", UUID);
            dir.file("md127/md/sync_action", before);
            thaw(dir.path(), &array, id).unwrap();
            // A file keeps what a shorter word does not cover; MD takes the word.
            assert!(dir.read("md127/md/sync_action").starts_with(after), "{before}");
        }
    }

    #[test]
    fn the_number_is_that_of_the_array_that_was_meant() {
        let dir = TempDir::new();
        dir.file("md127/md/uuid", UUID);
        dir.file("md127/dev", "9:127\n");
        let (array, id) = ("md127".parse().unwrap(), UUID.parse().unwrap());
        let found = number_of(dir.path(), &array, id).unwrap();
        assert_eq!(found, DevT { major: 9, minor: 127 });
        let other = ArrayId::from_bytes([7; 16]);
        let failure = number_of(dir.path(), &array, other).unwrap_err();
        assert_eq!(failure.exit, Exit::OtherDevice);
    }

    #[test]
    fn a_member_that_left_is_not_there() {
        let dir = TempDir::new();
        dir.file("md127/md/uuid", UUID);
        let (array, leg) = ("md127".parse().unwrap(), "nvme1n1".parse().unwrap());
        let id = UUID.parse().unwrap();
        let failure = write(dir.path(), (&array, id), &leg, Verb::Remove).unwrap_err();
        assert_eq!(failure.exit, Exit::NotThere);
        assert!(failure.said.contains("dev-nvme1n1"), "{}", failure.said);
    }
}
