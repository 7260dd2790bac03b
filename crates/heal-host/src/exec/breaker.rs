//! Children that do not die, and what is kept away from them meanwhile.

use std::process::Child;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::Subject;

/// Every child that outlived its `SIGKILL`. Clones share the list.
#[derive(Debug, Clone, Default)]
pub(crate) struct Breaker {
    stuck: Arc<Mutex<Vec<Stuck>>>,
}

#[derive(Debug)]
struct Stuck {
    child: Child,
    subjects: Vec<Subject>,
    since: Instant,
}

impl Breaker {
    /// Takes over a child that cannot be waited for.
    pub(super) fn take(&self, child: Child, subjects: Vec<Subject>) {
        tracing::warn!(pid = child.id(), ?subjects, "a child hangs in the kernel");
        let since = Instant::now();
        self.lock().push(Stuck { child, subjects, since });
    }

    /// Whether a child hangs on any of `subjects`.
    pub(crate) fn holds(&self, subjects: &[Subject]) -> bool {
        self.swept().iter().any(|stuck| stuck.subjects.iter().any(|held| subjects.contains(held)))
    }

    /// The number of children that hang now.
    pub(crate) fn count(&self) -> usize {
        self.swept().len()
    }

    /// The list without the children that ended since.
    fn swept(&self) -> MutexGuard<'_, Vec<Stuck>> {
        let mut list = self.lock();
        list.retain_mut(|stuck| {
            // An error means that there is no such child to wait for any more.
            let hangs = matches!(stuck.child.try_wait(), Ok(None));
            if !hangs {
                let after = stuck.since.elapsed();
                tracing::info!(pid = stuck.child.id(), ?after, "a hanging child is gone");
            }
            hangs
        });
        list
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Stuck>> {
        // The list is whole after every statement, so a panic elsewhere does not spoil it.
        self.stuck.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
