//! Attributes that stay open from one glance to the next.
//!
//! Opening and closing a file below `/sys` costs several times what reading it does, and so does
//! putting its path together. So a glance keeps what it opened, in a tree like the one it reads:
//!
//! ```text
//!   sys/block ─► md127 ─┬─ inflight
//!                       └► md ─┬─ array_state, uuid, ...          a name leads to a directory
//!                              └► dev-nvme1n1 ─┬─ state, slot     or to a descriptor
//!                                              └► block ── diskseq
//! ```
//!
//! That is safe because an open attribute belongs to one kernel object for as long as it is open:
//! when the object goes, reading answers `ENODEV` (`kernfs_seq_start`, `fs/kernfs/file.c`), and the
//! path is opened anew, be it that somebody else has the name by then. So what is read is what a
//! fresh `open` would have led to.
//!
//! In a captured tree a file outlives its name, so there no descriptor is kept.
//!
//! The price: some twenty descriptors for each array. There are no more than a quarter of what this
//! process may open; what does not fit is opened each time.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::str::FromStr;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use heal_types::Observed;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::process::{Resource, getrlimit};

use super::Seen;
use super::opened::Controllers;
use crate::sysfs::{
    Dir, ENTRIES, Root, as_text, as_value, attribute, each_name, empty_is_a_list, open, why,
};

/// Whoever was not read for so many looks is closed.
const UNUSED: u32 = 16;

/// Open attributes. Shared by everybody who glances.
#[derive(Debug, Default)]
pub(crate) struct Kept {
    /// The most descriptors that are kept; none in a captured tree.
    room: usize,
    held: Arc<AtomicUsize>,
    look: AtomicU32,
    tops: Mutex<Branches<&'static str>>,
    controllers: Controllers,
}

type Branches<Name> = BTreeMap<Name, Arc<Branch>>;

/// One directory, and what of it is open.
#[derive(Debug)]
struct Branch {
    dir: Dir,
    used: AtomicU32,
    /// Held while somebody reads, which may hang.
    open: Mutex<Open>,
    /// Held for a moment only: whoever goes through here waits for no reading.
    branches: Mutex<Branches<Box<str>>>,
}

#[derive(Debug, Default)]
struct Open {
    files: BTreeMap<Box<str>, Counted>,
    listing: Option<Counted>,
}

/// A descriptor that takes up room.
#[derive(Debug)]
struct Counted {
    fd: OwnedFd,
    held: Arc<AtomicUsize>,
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.held.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A directory whose attributes stay open. Whoever has it is not disturbed when it is given up.
#[derive(Debug, Clone)]
pub(super) struct Place<'k> {
    kept: &'k Kept,
    branch: Arc<Branch>,
}

impl Kept {
    /// Keeps what this process has room for.
    pub(crate) fn host() -> Self {
        let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::from(u16::MAX));
        let room = usize::try_from(limit / 4).unwrap_or(usize::MAX).min(16_384);
        Self { room, controllers: Controllers::host(), ..Self::default() }
    }

    /// The controllers that are open.
    pub(crate) fn controllers(&self) -> &Controllers {
        &self.controllers
    }

    /// The directory at `relative` of the one root that all who share this read below.
    pub(super) fn top(&self, root: &Root, relative: &'static str) -> Place<'_> {
        let mut tops = lock(&self.tops);
        let branch = tops.entry(relative).or_insert_with(|| Branch::new(root.dir(relative)));
        Place { kept: self, branch: branch.used_now(self) }
    }

    /// Another look was made: closes what nobody has read for a while.
    pub(crate) fn looked(&self, seen: &Seen) {
        self.controllers.looked(seen);
        let look = self.look.fetch_add(1, Ordering::Relaxed).wrapping_add(1);
        prune(&mut lock(&self.tops), look);
    }

    /// `fd`, if there is room for it.
    fn counted(&self, fd: OwnedFd) -> Option<Counted> {
        let counted = Counted { fd, held: Arc::clone(&self.held) };
        (self.held.fetch_add(1, Ordering::Relaxed) < self.room).then_some(counted)
    }
}

impl Branch {
    fn new(dir: Dir) -> Arc<Self> {
        Arc::new(Self {
            dir,
            used: AtomicU32::default(),
            open: Mutex::default(),
            branches: Mutex::default(),
        })
    }

    fn used_now(self: &Arc<Self>, kept: &Kept) -> Arc<Self> {
        self.used.store(kept.look.load(Ordering::Relaxed), Ordering::Relaxed);
        Arc::clone(self)
    }
}

/// A branch is used when one of its own is.
fn prune<Name: Ord>(branches: &mut Branches<Name>, look: u32) {
    branches.retain(|_, branch| look.wrapping_sub(branch.used.load(Ordering::Relaxed)) < UNUSED);
    for branch in branches.values() {
        prune(&mut lock(&branch.branches), look);
    }
}

/// What is open is whole after every statement.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<'k> Place<'k> {
    /// Where it is.
    pub(super) fn at(&self) -> &Dir {
        &self.branch.dir
    }

    /// The directory `name` in it.
    pub(super) fn dir(&self, name: &str) -> Place<'k> {
        let mut branches = lock(&self.branch.branches);
        if let Some(branch) = branches.get(name) {
            return Place { kept: self.kept, branch: branch.used_now(self.kept) };
        }
        let branch = Branch::new(self.at().dir(name));
        let place = Place { kept: self.kept, branch: branch.used_now(self.kept) };
        branches.insert(name.into(), branch);
        place
    }

    /// As [`Dir::text`].
    pub(super) fn text(&self, name: &str) -> Observed<String> {
        self.read(name, as_text)
    }

    /// As [`Dir::list_text`].
    pub(super) fn list_text(&self, name: &str) -> Observed<String> {
        empty_is_a_list(self.text(name))
    }

    /// As [`Dir::value`].
    pub(super) fn value<T: FromStr>(&self, name: &str) -> Observed<T> {
        self.read(name, as_value)
    }

    /// What an attribute says, through `read`.
    pub(super) fn read<T>(&self, name: &str, read: impl Fn(&[u8]) -> Observed<T>) -> Observed<T> {
        self.told(name, read).unwrap_or_else(|errno| Observed::Unknown(why(&errno.into())))
    }

    fn told<T>(
        &self,
        name: &str,
        read: impl Fn(&[u8]) -> Observed<T>,
    ) -> Result<Observed<T>, Errno> {
        let mut open_files = lock(&self.branch.open);
        if let Some(file) = open_files.files.get(name) {
            if let Ok(told) = attribute(&file.fd, &read) {
                return Ok(told);
            }
            open_files.files.remove(name);
        }
        let fd = open(&self.at().path().join(name))?;
        let told = attribute(&fd, &read)?;
        if let Some(file) = self.kept.counted(fd) {
            open_files.files.insert(name.into(), file);
        }
        Ok(told)
    }

    /// The names in it, in no order.
    pub(super) fn names(&self) -> Observed<Vec<String>> {
        match self.listed() {
            Ok(names) => Observed::Known(names),
            Err(errno) => Observed::Unknown(why(&errno.into())),
        }
    }

    fn listed(&self) -> Result<Vec<String>, Errno> {
        let mut open_files = lock(&self.branch.open);
        if let Some(listing) = &open_files.listing {
            if let Ok(names) = names_in(&listing.fd) {
                return Ok(names);
            }
            open_files.listing = None;
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = rustix::fs::open(self.at().path(), flags, Mode::empty())?;
        let names = names_in(&fd)?;
        open_files.listing = self.kept.counted(fd);
        Ok(names)
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

    fn kept(room: usize) -> Kept {
        Kept { room, ..Kept::default() }
    }

    fn held(kept: &Kept) -> usize {
        kept.held.load(Ordering::Relaxed)
    }

    fn known(place: &Place<'_>, name: &str) -> String {
        place.text(name).known().unwrap().clone()
    }

    #[test]
    fn an_attribute_is_opened_once_and_read_anew_each_time() {
        let dir = TempDir::new();
        let (root, kept) = (Root::new(dir.path()), kept(1));
        let (one, two) = (dir.file("in/one", "1\n"), dir.file("in/two", "2\n"));
        let place = kept.top(&root, "in");
        assert_eq!((known(&place, "one"), known(&place, "two")), ("1".into(), "2".into()));
        assert_eq!(held(&kept), 1, "there is room for one");
        dir.file("in/one", "3\n");
        assert_eq!(known(&kept.top(&root, "in"), "one"), "3");
        // It is open: the name may lead elsewhere.
        std::fs::rename(&two, &one).unwrap();
        assert_eq!(known(&place, "one"), "3");
        assert_eq!(place.text("three"), Observed::Unknown(UnknownWhy::Vanished));
    }

    #[test]
    #[allow(clippy::disallowed_methods, reason = "a test empties what it made")]
    fn a_directory_is_opened_once_and_listed_anew_each_time() {
        let dir = TempDir::new();
        let (root, kept) = (Root::new(dir.path()), kept(9));
        let path = dir.file("in/place/one", "1\n").parent().unwrap().to_owned();
        let names = || {
            let place = kept.top(&root, "in").dir("place");
            let mut names = place.names().known().cloned().unwrap_or_default();
            names.sort();
            names
        };
        assert_eq!(names(), ["one"]);
        dir.file("in/place/two", "2\n");
        assert_eq!(names(), ["one", "two"]);
        assert_eq!(held(&kept), 1);
        // Gone, and another one has its name.
        for name in ["one", "two"] {
            std::fs::remove_file(path.join(name)).unwrap();
        }
        std::fs::remove_dir(&path).unwrap();
        assert!(kept.top(&root, "in").dir("place").names().known().is_none());
        dir.file("in/place/three", "3\n");
        assert_eq!(names(), ["three"]);
    }

    #[test]
    fn what_nobody_reads_is_closed() {
        let dir = TempDir::new();
        let (root, kept) = (Root::new(dir.path()), kept(9));
        dir.file("in/a/one", "1\n");
        dir.file("in/b/two", "2\n");
        kept.top(&root, "in").dir("b").text("two");
        for _ in 0..UNUSED {
            kept.top(&root, "in").dir("a").text("one");
            kept.looked(&Seen::default());
        }
        assert_eq!(held(&kept), 1);
        let branches: Vec<_> =
            lock(&kept.top(&root, "in").branch.branches).keys().cloned().collect();
        assert_eq!(branches, ["a".into()]);
    }

    #[test]
    fn a_reading_that_hangs_holds_up_no_look_and_nobody_who_reads_elsewhere() {
        let dir = TempDir::new();
        let (root, kept) = (Root::new(dir.path()), kept(9));
        dir.file("in/one/two/text", "1\n");
        let places = [kept.top(&root, "in"), kept.top(&root, "in").dir("one")];
        let reads = places.each_ref().map(|place| lock(&place.branch.open));
        let (done, ended) = std::sync::mpsc::channel();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                kept.looked(&Seen::default());
                let two = kept.top(&root, "in").dir("one").dir("two");
                done.send(known(&two, "text")).unwrap();
            });
            let told = ended.recv_timeout(std::time::Duration::from_secs(9));
            drop(reads);
            assert_eq!(told.unwrap(), "1");
        });
    }

    #[test]
    fn in_a_captured_tree_nothing_is_kept() {
        let dir = TempDir::new();
        let (root, kept) = (Root::new(dir.path()), Kept::default());
        dir.file("in/one", "1\n");
        assert_eq!(known(&kept.top(&root, "in"), "one"), "1");
        assert_eq!(held(&kept), 0);
        assert!(Kept::host().room > 0);
    }
}
