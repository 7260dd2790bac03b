//! MD's own notifications: the only signal that comes at the moment a leg fails.
//!
//! MD sends no uevent for fail, remove or recovery. It wakes whoever polls `/proc/mdstat`, and
//! whoever polls or watches one of its attributes in sysfs. So files are held open, of every array
//! and leg:
//!
//! ```text
//!   /proc/mdstat ───────────────── POLLPRI ─┐
//!   md/array_state  md/sync_action          │           level-triggered        tokio
//!   md/degraded     md/sync_completed       ├─ POLLPRI ──► one epoll ── readable ──► wake()
//!   md/dev-*/state ─────────────────────────┤
//!   inotify on the same files ── POLLIN ────┘
//! ```
//!
//! - **A wake stays until it is answered.** A file of sysfs is ready until it is read again from
//!   its beginning, mdstat until it is opened again. The inner epoll is level-triggered, so a
//!   caller who drops [`MdWatch::wake`] half-way loses nothing: the next call finds the same files
//!   ready.
//! - **Re-armed before it is told.** Each file is read, or opened again, when it wakes; the caller
//!   looks afterwards. What changes in between wakes again.
//! - **mdstat is never read.** Its reader takes a lock of every array's bitmap (`md_seq_show`),
//!   which raid1 holds while a bitmap page waits for a dead leg: a read in that moment hangs in the
//!   kernel, and with it whoever has to free that leg. Opening takes no lock and notes "seen up to
//!   here" (`md_seq_open`), so each wake opens it anew. The content is of no interest: the look has
//!   it.
//! - **Removal wakes nobody.** kernfs takes a file away from under whoever polls it without a word;
//!   only the next read says `ENODEV`. MD wakes mdstat when it lets go of a leg or an array, so
//!   each wake of mdstat lists everything again: what is new is held, and what is held but no
//!   longer the file at its path is let go.
//! - **inotify is the second witness.** It is later and it coalesces. What it says within
//!   [`ECHO`] of a poll on the same file is the same news.
//! - **`sync_completed` is noisy**: twice at each sixteenth of a rebuild, on some kernels far more.
//!   An array that has nothing else to say is reported once a second at most; the last news is held
//!   back, not lost.
//!
//! The price: four open files for each array and one for each leg, and as many inotify watches.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use heal_types::{DeviceName, Moment, Observed};
use inotify::{Inotify, WatchDescriptor, WatchMask};
use rustix::event::{Timespec, epoll};
use rustix::io::Errno;
use tokio::io::unix::AsyncFd;

use crate::clock;
use crate::readable::readable;
use crate::sysfs::{self, Dir, Root};

/// Attributes of an array that MD notifies. All but the first exist while a redundant array runs.
const ATTRIBUTES: [&str; 4] = ["array_state", "sync_action", "degraded", "sync_completed"];

const NOISY: &str = "sync_completed";

/// How often the progress of one array is worth a wake.
const PROGRESS: Duration = Duration::from_secs(1);

/// How long after a poll an inotify event on the same file is its echo.
pub const ECHO: Duration = Duration::from_millis(250);

const MDSTAT: u64 = 0;
const INOTIFY: u64 = 1;
const FIRST_FILE: u64 = 2;

/// What woke up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MdWake {
    /// The arrays to look at.
    pub arrays: Touched,
    /// When the kernel's wake reached this process.
    pub at: Moment,
}

/// Which arrays a wake is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Touched {
    /// Any of them: mdstat does not say which.
    All,
    /// These.
    These(BTreeSet<DeviceName>),
}

impl Touched {
    fn add(&mut self, array: &DeviceName) {
        match self {
            Self::All => {}
            Self::These(arrays) => {
                arrays.insert(array.clone());
            }
        }
    }

    fn is_nothing(&self) -> bool {
        match self {
            Self::All => false,
            Self::These(arrays) => arrays.is_empty(),
        }
    }
}

/// Counts since the watch began.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MdCounters {
    /// Wakes given to the caller.
    pub wakes: u64,
    /// Times mdstat woke.
    pub mdstat: u64,
    /// Times an attribute woke.
    pub attributes: u64,
    /// Files let go because their leg or array is gone.
    pub removed: u64,
    /// Times inotify told what no poll had told before.
    pub inotify_first: u64,
    /// Progress news held back.
    pub held_back: u64,
    /// Files held open now.
    pub files: u64,
}

/// The watch.
#[derive(Debug)]
pub struct MdWatch {
    root: Root,
    epoll: AsyncFd<OwnedFd>,
    mdstat: Option<OwnedFd>,
    inotify: Option<Inotify>,
    files: BTreeMap<u64, Held>,
    tokens: BTreeMap<PathBuf, u64>,
    /// inotify's number of a watch → the file.
    watches: BTreeMap<i32, u64>,
    next_token: u64,
    progress: Progress,
    /// Arrays of which a file was found gone outside a wake.
    owed: BTreeSet<DeviceName>,
    counters: MdCounters,
}

/// One attribute held open.
#[derive(Debug)]
struct Held {
    array: DeviceName,
    path: PathBuf,
    fd: OwnedFd,
    noisy: bool,
    watch: Option<WatchDescriptor>,
    /// Whether it can be polled; where it cannot, inotify is the only witness.
    polls: bool,
    /// When poll spoke last.
    polled: Option<Moment>,
}

impl Held {
    fn is_current(&self) -> bool {
        let (ours, there) = (rustix::fs::fstat(&self.fd), rustix::fs::stat(&self.path));
        matches!((ours, there), (Ok(ours), Ok(there)) if ours.st_ino == there.st_ino)
    }
}

impl MdWatch {
    /// Starts watching every array there is. Needs a tokio runtime with I/O and time.
    ///
    /// A host without MD loaded has no mdstat; it is looked for again at each [`MdWatch::relist`].
    ///
    /// # Errors
    /// When the kernel does not give out an epoll.
    pub fn new(root: Root) -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let mut watch = Self {
            root,
            epoll: readable(epoll)?,
            mdstat: None,
            inotify: None,
            files: BTreeMap::new(),
            tokens: BTreeMap::new(),
            watches: BTreeMap::new(),
            next_token: FIRST_FILE,
            progress: Progress::default(),
            owed: BTreeSet::new(),
            counters: MdCounters::default(),
        };
        watch.open_inotify();
        watch.relist();
        Ok(watch)
    }

    /// The next wake. May be dropped while it waits; nothing is lost by that.
    pub async fn wake(&mut self) -> MdWake {
        loop {
            if !self.owed.is_empty() {
                let arrays = std::mem::take(&mut self.owed);
                return self.give(Touched::These(arrays), clock::moment());
            }
            let due = self.progress.next_due();
            let ready = wait(&self.epoll, due).await;
            // Before anything else: reaction times are counted from here.
            let at = clock::moment();
            if let Err(error) = ready {
                tracing::warn!(%error, "md's notifications cannot be waited for");
                tokio::time::sleep(PROGRESS).await;
                return self.give(Touched::All, at);
            }
            let mut touched = Touched::These(BTreeSet::new());
            self.drain(&mut touched, at);
            self.progress.take_due(&mut touched, at);
            if !touched.is_nothing() {
                return self.give(touched, at);
            }
        }
    }

    /// Lists arrays and legs again, holds what is new and lets go of what is gone. Done by itself
    /// when mdstat wakes; the caller does it when something else says that an array came or went,
    /// such as a uevent, and looks afterwards.
    pub fn relist(&mut self) {
        self.open_mdstat();
        self.let_go();
        let block = self.root.dir("sys/block");
        let Observed::Known(names) = block.entries() else {
            return;
        };
        for name in names.iter().filter(|name| name.starts_with("md")) {
            if let Ok(array) = DeviceName::new(name.as_str()) {
                self.hold_array(&array, &block.dir(name).dir("md"));
            }
        }
        self.counters.files = u64::try_from(self.files.len()).unwrap_or(u64::MAX);
    }

    /// What happened so far.
    #[must_use]
    pub fn counters(&self) -> MdCounters {
        self.counters
    }

    fn give(&mut self, arrays: Touched, at: Moment) -> MdWake {
        self.counters.wakes += 1;
        MdWake { arrays, at }
    }

    fn open_mdstat(&mut self) {
        if self.mdstat.is_some() {
            return;
        }
        let path = self.root.dir("proc").path().join("mdstat");
        let Ok(fd) = sysfs::open(&path) else {
            return;
        };
        match add(self.epoll.get_ref(), &fd, MDSTAT, epoll::EventFlags::PRI) {
            Ok(()) => self.mdstat = Some(fd),
            Err(errno) => tracing::warn!(%errno, "mdstat cannot be waited for"),
        }
    }

    fn open_inotify(&mut self) {
        let opened = Inotify::init().and_then(|inotify| {
            add(self.epoll.get_ref(), &inotify, INOTIFY, epoll::EventFlags::IN)?;
            Ok(inotify)
        });
        match opened {
            Ok(inotify) => self.inotify = Some(inotify),
            Err(error) => tracing::info!(%error, "no inotify: poll alone watches md"),
        }
    }

    fn hold_array(&mut self, array: &DeviceName, md: &Dir) {
        for attribute in ATTRIBUTES {
            self.hold(array, md.path().join(attribute), attribute == NOISY);
        }
        let Observed::Known(entries) = md.entries() else {
            return;
        };
        for entry in entries.iter().filter(|entry| entry.starts_with("dev-")) {
            self.hold(array, md.path().join(entry).join("state"), false);
        }
    }

    fn hold(&mut self, array: &DeviceName, path: PathBuf, noisy: bool) {
        if self.tokens.contains_key(&path) {
            return;
        }
        let Ok(fd) = sysfs::open(&path) else {
            return;
        };
        if rearm(&fd).is_err() {
            return;
        }
        let token = self.next_token;
        self.next_token += 1;
        let polls = add(self.epoll.get_ref(), &fd, token, epoll::EventFlags::PRI);
        let watch = self.watch_file(&path, token);
        if let (Err(errno), None) = (&polls, &watch) {
            tracing::warn!(%errno, path = %path.display(), "attribute cannot be watched");
            return;
        }
        self.tokens.insert(path.clone(), token);
        let held = Held {
            array: array.clone(),
            path,
            fd,
            noisy,
            watch,
            polls: polls.is_ok(),
            polled: None,
        };
        self.files.insert(token, held);
    }

    /// Lets go of every file that is no longer the one at its path. Asked without reading: a read
    /// would swallow a wake that nobody has taken yet.
    fn let_go(&mut self) {
        let gone: Vec<u64> = self
            .files
            .iter()
            .filter(|(_, held)| !held.is_current())
            .map(|(token, _)| *token)
            .collect();
        for token in gone {
            if let Some(held) = self.release(token) {
                self.counters.removed += 1;
                self.owed.insert(held.array);
            }
        }
    }

    fn watch_file(&mut self, path: &Path, token: u64) -> Option<WatchDescriptor> {
        let watch = self.inotify.as_ref()?.watches().add(path, WatchMask::MODIFY).ok()?;
        self.watches.insert(watch.get_watch_descriptor_id(), token);
        Some(watch)
    }

    /// Takes every event there is.
    fn drain(&mut self, touched: &mut Touched, at: Moment) {
        let mut relist = false;
        for token in ready_tokens(self.epoll.get_ref()) {
            match token {
                MDSTAT => {
                    self.counters.mdstat += 1;
                    relist = true;
                    *touched = Touched::All;
                    self.mdstat = None; // Opened anew with the list, which is what re-arms it.
                }
                INOTIFY => relist |= self.drain_inotify(touched, at),
                file => {
                    if let Some(held) = self.files.get_mut(&file) {
                        held.polled = Some(at);
                    }
                    self.woke(file, touched, at);
                }
            }
        }
        if relist {
            self.relist();
        }
        if *touched == Touched::All {
            self.owed.clear();
        }
    }

    /// One file woke: re-arms it and takes the news.
    fn woke(&mut self, token: u64, touched: &mut Touched, at: Moment) {
        let Some(held) = self.files.get(&token) else {
            return;
        };
        self.counters.attributes += 1;
        let there = rearm(&held.fd).is_ok();
        if held.noisy && there {
            self.counters.held_back += u64::from(self.progress.news(&held.array, touched, at));
            return;
        }
        touched.add(&held.array);
        if !there && self.release(token).is_some() {
            self.counters.removed += 1;
        }
    }

    /// Whether everything has to be listed again.
    fn drain_inotify(&mut self, touched: &mut Touched, at: Moment) -> bool {
        let Some(inotify) = self.inotify.as_mut() else {
            return false;
        };
        let mut overflow = false;
        let mut modified = BTreeSet::new();
        let mut buffer = [0; 4096];
        while let Ok(events) = inotify.read_events(&mut buffer) {
            for event in events {
                if event.mask.contains(inotify::EventMask::Q_OVERFLOW) {
                    overflow = true;
                } else if let Some(token) = self.watches.get(&event.wd.get_watch_descriptor_id()) {
                    modified.insert(*token);
                }
            }
        }
        if overflow {
            *touched = Touched::All;
        }
        for token in modified {
            let Some(held) = self.files.get(&token) else {
                continue;
            };
            let echo = held.polled.is_some_and(|polled| at.since(polled) < ECHO);
            if !(held.polls && echo) {
                self.counters.inotify_first += 1;
                self.woke(token, touched, at);
            }
        }
        overflow
    }

    fn release(&mut self, token: u64) -> Option<Held> {
        // Closing the file takes it out of the epoll: no other descriptor refers to it.
        let held = self.files.remove(&token)?;
        self.tokens.remove(&held.path);
        if let Some(watch) = held.watch.clone() {
            self.watches.remove(&watch.get_watch_descriptor_id());
            if let Some(inotify) = self.inotify.as_ref() {
                // The watch went with its inode, unless the file is still there.
                let _ = inotify.watches().remove(watch);
            }
        }
        Some(held)
    }
}

/// How often an array's progress was told, and what is held back.
#[derive(Debug, Default)]
struct Progress {
    told: BTreeMap<DeviceName, Moment>,
    due: BTreeMap<DeviceName, Moment>,
}

impl Progress {
    /// Takes the news of one array; says whether it is held back.
    fn news(&mut self, array: &DeviceName, touched: &mut Touched, at: Moment) -> bool {
        match self.told.get(array) {
            Some(told) if at.since(*told) < PROGRESS => {
                self.due.insert(array.clone(), told.after(PROGRESS));
                true
            }
            Some(_) | None => {
                self.tell(array, touched, at);
                false
            }
        }
    }

    fn next_due(&self) -> Option<Moment> {
        self.due.values().min().copied()
    }

    fn take_due(&mut self, touched: &mut Touched, at: Moment) {
        let due: Vec<DeviceName> = self
            .due
            .iter()
            .filter(|(_, due)| **due <= at)
            .map(|(array, _)| array.clone())
            .collect();
        for array in due {
            self.tell(&array, touched, at);
        }
    }

    fn tell(&mut self, array: &DeviceName, touched: &mut Touched, at: Moment) {
        touched.add(array);
        self.due.remove(array);
        self.told.insert(array.clone(), at);
    }
}

/// Waits for the epoll, at the longest until `due`.
async fn wait(epoll: &AsyncFd<OwnedFd>, due: Option<Moment>) -> io::Result<()> {
    let readable = async {
        let mut ready = epoll.readable().await?;
        // Readiness is edge-triggered out here and level-triggered within: what is not drained now
        // is asked for again before the next wait.
        if ready_tokens(epoll.get_ref()).is_empty() {
            ready.clear_ready();
        }
        Ok(())
    };
    match due {
        None => readable.await,
        Some(due) => {
            let left = due.since(clock::moment());
            match tokio::time::timeout(left, readable).await {
                Ok(result) => result,
                Err(_elapsed) => Ok(()),
            }
        }
    }
}

/// The tokens of what is ready now.
fn ready_tokens(epoll: &OwnedFd) -> Vec<u64> {
    let mut events = Vec::with_capacity(64);
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    match epoll::wait(epoll, rustix::buffer::spare_capacity(&mut events), Some(&now)) {
        Ok(_) => events.iter().map(|event| event.data.u64()).collect(),
        // Interrupted: the same files are ready at the next call.
        Err(_) => Vec::new(),
    }
}

fn add(
    epoll: &OwnedFd,
    file: impl AsFd,
    token: u64,
    flags: epoll::EventFlags,
) -> Result<(), Errno> {
    epoll::add(epoll, file, epoll::EventData::new_u64(token), flags)
}

/// Reads a file once from its beginning, so that the next change wakes again.
fn rearm(fd: &OwnedFd) -> Result<(), Errno> {
    let mut content = [0; 4096];
    loop {
        match rustix::io::pread(fd, &mut content[..], 0) {
            Ok(_) => return Ok(()),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(seconds: f64) -> Moment {
        Moment::default().after(Duration::from_secs_f64(seconds))
    }

    fn news(progress: &mut Progress, at: f64) -> bool {
        let mut touched = Touched::These(BTreeSet::new());
        let array = DeviceName::new("md0").unwrap();
        let held_back = progress.news(&array, &mut touched, seconds(at));
        assert_eq!(touched.is_nothing(), held_back);
        held_back
    }

    #[test]
    fn the_last_progress_is_told_late_but_told() {
        let mut progress = Progress::default();
        assert!(!news(&mut progress, 10.0));
        assert!(news(&mut progress, 10.1));
        assert!(news(&mut progress, 10.9));
        assert_eq!(progress.next_due(), Some(seconds(11.0)));

        let mut touched = Touched::These(BTreeSet::new());
        progress.take_due(&mut touched, seconds(10.95));
        assert!(touched.is_nothing());
        progress.take_due(&mut touched, seconds(11.0));
        assert!(!touched.is_nothing());
        assert_eq!(progress.next_due(), None);
        assert!(news(&mut progress, 11.5));
        assert!(!news(&mut progress, 12.5));
    }
}
