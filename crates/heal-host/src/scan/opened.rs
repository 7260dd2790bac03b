//! Controllers that stay open from one look to the next.
//!
//! The directory of a controller under `/sys`, and in it the two attributes that say how it is, one
//! of them to be written as well. As long as they answer it is the same controller: when it goes
//! they say `ENODEV` (`kernfs_seq_start`, `fs/kernfs/file.c`), whoever has its name by then. So its
//! inode is read once, and neither a glance nor an act has to walk the path to it again.
//!
//! In a captured tree files answer although they are gone: there none is kept.
//!
//! The price: five descriptors for each controller.

use std::collections::BTreeMap;
use std::ffi::CStr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use heal_types::{ControllerName, ControllerState, FastIoFail, Observed, UnknownWhy};
use rustix::io::Errno;

use super::Seen;
use crate::sysfs::{Attribute, Held, Listing, Root, Writable, why};

/// The attribute that says how soon I/O fails.
pub(crate) const FAST_IO_FAIL: &str = "fast_io_fail_tmo";

/// More controllers than a host has.
const CONTROLLERS: usize = 4096;

/// One controller, held open.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) name: ControllerName,
    pub(crate) inode: u64,
    dir: Held,
    names: Result<Listing, UnknownWhy>,
    /// To open it takes longer than everything else that is done to it. None in a captured tree.
    writable: Option<Writable>,
    state: Result<Attribute, UnknownWhy>,
    fast_io_fail: Result<Attribute, UnknownWhy>,
}

impl Opened {
    fn open(root: &Root, name: &ControllerName, is_host: bool) -> Observed<Self> {
        let dir = match Held::open(&root.dir("sys/class/nvme").dir(name.as_str())) {
            Observed::Known(dir) => dir,
            Observed::Unknown(why) => return Observed::Unknown(why),
        };
        let attribute = |name| dir.attribute(name).map_err(|errno: Errno| why(&errno.into()));
        let (state, fast_io_fail) = (attribute("state"), attribute(FAST_IO_FAIL));
        let names = dir.listing().map_err(|errno| why(&errno.into()));
        let writable = is_host.then(|| dir.writable(FAST_IO_FAIL).ok()).flatten();
        dir.inode().map(|inode| Self {
            name: name.clone(),
            inode,
            dir,
            names,
            writable,
            state,
            fast_io_fail,
        })
    }

    /// Says how soon I/O is to fail.
    pub(crate) fn set_fast_io_fail(&self, value: FastIoFail) -> Result<(), Errno> {
        let text = value.to_string();
        match &self.writable {
            Some(writable) => writable.write(&text),
            None => self.dir.write(FAST_IO_FAIL, &text),
        }
    }

    /// The names in its directory, in no order.
    pub(crate) fn names(&self, take: impl FnMut(&CStr)) -> Observed<()> {
        let listed = match &self.names {
            Ok(names) => names.names(take).map_err(|errno| why(&errno.into())),
            Err(why) => Err(*why),
        };
        listed.map_or_else(Observed::Unknown, Observed::Known)
    }

    pub(crate) fn state(&self) -> Observed<ControllerState> {
        match &self.state {
            Ok(state) => state.value(),
            Err(why) => Observed::Unknown(*why),
        }
    }

    /// `Vanished` where this kernel has no such attribute.
    pub(crate) fn fast_io_fail(&self) -> Observed<FastIoFail> {
        match &self.fast_io_fail {
            Ok(attribute) => attribute.value(),
            Err(why) => Observed::Unknown(*why),
        }
    }
}

/// The controllers that are open. Clones share them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Controllers {
    open: Arc<Mutex<BTreeMap<ControllerName, Arc<Opened>>>>,
    room: usize,
}

impl Controllers {
    /// Of the host this program runs on.
    pub(super) fn host() -> Self {
        Self { room: CONTROLLERS, ..Self::default() }
    }

    /// Whoever has the name now, and its state.
    pub(crate) fn get(
        &self,
        root: &Root,
        name: &ControllerName,
    ) -> Observed<(Arc<Opened>, Observed<ControllerState>)> {
        let open = self.lock().get(name).cloned();
        if let Some((open, state)) = open.map(|open| (Arc::clone(&open), open.state())) {
            if state.known().is_some() {
                return Observed::Known((open, state));
            }
        }
        Opened::open(root, name, self.room > 0).map(|opened| {
            let opened = Arc::new(opened);
            self.keep(&opened);
            let state = opened.state();
            (opened, state)
        })
    }

    /// Another look was made: only those it saw stay open.
    pub(super) fn looked(&self, seen: &Seen) {
        self.lock().retain(|name, open| seen.inodes.get(name) == Some(&open.inode));
    }

    fn keep(&self, opened: &Arc<Opened>) {
        let mut open = self.lock();
        if open.len() < self.room {
            open.insert(opened.name.clone(), Arc::clone(opened));
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<ControllerName, Arc<Opened>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exec::testing::TempDir;

    #[test]
    fn a_controller_stays_open_and_one_that_no_look_saw_is_closed() {
        let dir = TempDir::new();
        dir.file("sys/class/nvme/nvme0/state", "live\n");
        dir.file("sys/class/nvme/nvme0/fast_io_fail_tmo", "off\n");
        let root = Root::new(dir.path());
        let name = ControllerName::new("nvme0").unwrap();
        let controllers = Controllers { room: 1, ..Controllers::default() };
        let (first, state) = controllers.get(&root, &name).known().cloned().unwrap();
        assert_eq!(state, Observed::Known(ControllerState::Live));
        assert_eq!(first.fast_io_fail(), Observed::Known(FastIoFail::Off));
        dir.file("sys/class/nvme/nvme0/state", "connecting\n");
        let (again, state) = controllers.get(&root, &name).known().cloned().unwrap();
        assert!(Arc::ptr_eq(&first, &again));
        assert_eq!(state, Observed::Known(ControllerState::Connecting));
        controllers.looked(&Seen::default());
        let (anew, _) = controllers.get(&root, &name).known().cloned().unwrap();
        assert!(!Arc::ptr_eq(&first, &anew));
    }
}
