//! Writes one word to one member's `state`.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use heal_types::DeviceName;
use rustix::fs::OFlags;

use super::{Failure, Verb};

/// Writes below `block`, which is `/sys/block`. The word goes out in one `write`: MD takes each as
/// a command of its own.
pub(super) fn write(
    block: &Path,
    array: &DeviceName,
    leg: &DeviceName,
    verb: Verb,
) -> Result<(), Failure> {
    let path = block.join(array.as_str()).join("md").join(format!("dev-{leg}")).join("state");
    let flags =
        i32::try_from((OFlags::NOFOLLOW | OFlags::CLOEXEC).bits()).map_err(Failure::usage)?;
    let mut file = OpenOptions::new()
        .write(true)
        .custom_flags(flags)
        .open(&path)
        .map_err(|error| Failure::kernel(path.display(), &error))?;
    let word = verb.word();
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exec::testing::TempDir;
    use crate::helper::Exit;

    #[test]
    fn the_word_lands_in_the_members_state() {
        let dir = TempDir::new();
        dir.file("md127/md/dev-nvme1n1/state", "");
        let (array, leg) = ("md127".parse().unwrap(), "nvme1n1".parse().unwrap());
        write(dir.path(), &array, &leg, Verb::ClearWantReplacement).unwrap();
        assert_eq!(dir.read("md127/md/dev-nvme1n1/state"), "-want_replacement");
    }

    #[test]
    fn a_member_that_left_is_not_there() {
        let dir = TempDir::new();
        let (array, leg) = ("md127".parse().unwrap(), "nvme1n1".parse().unwrap());
        let failure = write(dir.path(), &array, &leg, Verb::Remove).unwrap_err();
        assert_eq!(failure.exit, Exit::NotThere);
        assert!(failure.said.contains("dev-nvme1n1"), "{}", failure.said);
    }
}
