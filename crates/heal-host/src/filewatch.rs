//! One file that a person edits: says when it changed.
//!
//! Editors write a new file and rename it over the old one, so the file's own inode tells nothing.
//! The directory is watched, and what concerns another name in it is left out.
//!
//! ```text
//!   directory ── inotify: written, renamed, removed ──► that name? ──► quiet for a moment? ──► changed()
//! ```
//!
//! The price: a directory that is removed and made again is another one. That is told as an error,
//! and the caller watches anew.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use inotify::{EventMask, Inotify, WatchMask};
use tokio::io::unix::AsyncFd;

use crate::readable::readable;

/// An edit is several events; they are told as one once this long nothing more came.
const QUIET: Duration = Duration::from_millis(50);

/// A watch on one file.
#[derive(Debug)]
pub struct FileWatch {
    inotify: Inotify,
    ready: AsyncFd<OwnedFd>,
    name: OsString,
}

impl FileWatch {
    /// Watches the file at `path`, which need not exist; its directory must.
    ///
    /// # Errors
    /// When the directory is not there, `path` names no file, or the system says no.
    pub fn new(path: &Path) -> io::Result<Self> {
        let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else {
            let text = format!("{} names no file", path.display());
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        };
        let inotify = Inotify::init()?;
        let mask = WatchMask::CLOSE_WRITE
            | WatchMask::MOVED_TO
            | WatchMask::MOVED_FROM
            | WatchMask::DELETE
            | WatchMask::DELETE_SELF
            | WatchMask::MOVE_SELF
            | WatchMask::ONLYDIR;
        inotify.watches().add(directory, mask)?;
        let ready = readable(inotify.as_fd().try_clone_to_owned()?)?;
        Ok(Self { inotify, ready, name: name.to_owned() })
    }

    /// Waits until the file changed, appeared or went. Safe to drop while it waits.
    ///
    /// # Errors
    /// When the directory is gone or can no longer be watched.
    pub async fn changed(&mut self) -> io::Result<()> {
        let mut touched = false;
        loop {
            let waited = if touched {
                tokio::time::timeout(QUIET, self.ready.readable()).await
            } else {
                Ok(self.ready.readable().await)
            };
            let Ok(ready) = waited else {
                return Ok(());
            };
            let mut ready = ready?;
            let mut buffer = [0; 4096];
            match self.inotify.read_events(&mut buffer) {
                Ok(events) => {
                    for event in events {
                        touched |= concerns(event.mask, event.name, &self.name)?;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => ready.clear_ready(),
                Err(error) => return Err(error),
            }
        }
    }
}

/// Whether an event is about the file of that `name`.
fn concerns(mask: EventMask, who: Option<&OsStr>, name: &OsStr) -> io::Result<bool> {
    let gone =
        EventMask::DELETE_SELF | EventMask::MOVE_SELF | EventMask::IGNORED | EventMask::UNMOUNT;
    if mask.intersects(gone) {
        return Err(io::Error::new(io::ErrorKind::NotFound, "the file's directory is gone"));
    }
    Ok(mask.contains(EventMask::Q_OVERFLOW) || who == Some(name))
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "tests change files of their own scratch directory")]
mod tests {
    use super::*;
    use std::path::PathBuf;

    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Self {
            let path =
                std::env::temp_dir().join(format!("filewatch-{}-{name}", std::process::id()));
            std::fs::create_dir_all(&path).unwrap();
            Self(path)
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    fn in_runtime(test: impl Future<Output = ()>) {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        builder.enable_all().build().unwrap().block_on(test);
    }

    async fn within(watch: &mut FileWatch) -> Option<io::Result<()>> {
        tokio::time::timeout(Duration::from_millis(400), watch.changed()).await.ok()
    }

    #[test]
    fn an_edit_by_rename_is_one_change_and_another_file_is_none() {
        in_runtime(edited());
    }

    #[test]
    fn a_directory_that_goes_is_an_error() {
        in_runtime(directory_gone());
    }

    async fn edited() {
        let scratch = Scratch::new("rename");
        let file = scratch.0.join("volumes.ron");
        let mut watch = FileWatch::new(&file).unwrap();
        std::fs::write(scratch.0.join("other"), "x").unwrap();
        assert!(within(&mut watch).await.is_none());

        std::fs::write(scratch.0.join(".new"), "x").unwrap();
        std::fs::rename(scratch.0.join(".new"), &file).unwrap();
        std::fs::write(&file, "y").unwrap();
        assert!(matches!(within(&mut watch).await, Some(Ok(()))));
        assert!(within(&mut watch).await.is_none(), "several events are one change");

        std::fs::remove_file(&file).unwrap();
        assert!(matches!(within(&mut watch).await, Some(Ok(()))));
    }

    async fn directory_gone() {
        let scratch = Scratch::new("gone");
        let file = scratch.0.join("volumes.ron");
        let mut watch = FileWatch::new(&file).unwrap();
        std::fs::remove_dir_all(&scratch.0).unwrap();
        assert!(matches!(within(&mut watch).await, Some(Err(_))));
        assert!(FileWatch::new(&file).is_err());
    }
}
