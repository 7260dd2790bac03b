//! Children that do not die, and what is kept away from them meanwhile.

use std::collections::BTreeSet;
use std::process::Child;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use heal_types::ArrayId;

use super::Subject;

/// Every child that outlived its `SIGKILL`. Clones share the list.
#[derive(Debug, Clone, Default)]
pub(crate) struct Breaker {
    stuck: Arc<Mutex<Vec<Stuck>>>,
    /// Arrays in whose change a child was killed.
    cut_short: Arc<Mutex<BTreeSet<ArrayId>>>,
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

    /// A child that changes an array was killed, or is being killed.
    pub(super) fn cuts_short(&self, subjects: &[Subject]) {
        let arrays = subjects.iter().filter_map(|subject| match subject {
            Subject::Array(id) => Some(*id),
            Subject::Namespace(_) | Subject::Subsystem(_) => None,
        });
        whole(&self.cut_short).extend(arrays);
    }

    /// The arrays in whose change a child was killed, and is gone.
    pub(crate) fn cut_short(&self) -> Vec<ArrayId> {
        let arrays: Vec<ArrayId> = whole(&self.cut_short).iter().copied().collect();
        arrays.into_iter().filter(|id| !self.holds(&[Subject::Array(*id)])).collect()
    }

    /// Nothing of a killed child is left in this array.
    pub(crate) fn is_well(&self, array: ArrayId) {
        whole(&self.cut_short).remove(&array);
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
        whole(&self.stuck)
    }
}

/// A list is whole after every statement, so a panic elsewhere does not spoil it.
fn whole<T>(list: &Mutex<T>) -> MutexGuard<'_, T> {
    list.lock().unwrap_or_else(PoisonError::into_inner)
}
