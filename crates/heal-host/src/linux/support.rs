//! Whether legs can be isolated on this host, asked of the kernel until it is known.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::isolation_support::{IsolationSupport, UndecidedWhy};
use crate::sysfs::Root;

/// What is not known yet is not asked for more often: it takes a tenth of a second.
const AGAIN: Duration = Duration::from_secs(10);

/// What is known. Clones share it.
#[derive(Debug, Clone)]
pub(super) struct Support {
    known: Arc<Mutex<Known>>,
}

#[derive(Debug)]
struct Known {
    support: IsolationSupport,
    asked: Option<Instant>,
}

impl Support {
    /// Nothing is known.
    pub(super) fn unasked() -> Self {
        let undecided = [UndecidedWhy::NoController].into();
        Self::of(IsolationSupport { undecided, ..IsolationSupport::default() })
    }

    fn of(support: IsolationSupport) -> Self {
        Self { known: Arc::new(Mutex::new(Known { support, asked: None })) }
    }

    /// Everything is there.
    #[cfg(test)]
    pub(super) fn whole() -> Self {
        Self::of(IsolationSupport::default())
    }

    pub(super) fn now(&self) -> IsolationSupport {
        self.lock().support.clone()
    }

    /// Asks, without keeping anybody who wants the last answer waiting.
    pub(super) fn ask(&self, root: &Root) -> IsolationSupport {
        let support = IsolationSupport::detect(root);
        let mut known = self.lock();
        known.support = support.clone();
        known.asked = Some(Instant::now());
        support
    }

    /// Asks again if something was open, and there is a controller to ask by.
    pub(super) fn ask_while_open(&self, root: &Root) {
        let is_due = {
            let known = self.lock();
            known.support.is_open() && known.asked.is_none_or(|asked| asked.elapsed() >= AGAIN)
        };
        if is_due {
            let support = self.ask(root);
            tracing::info!(isolation = %support, "asked the kernel");
        }
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        // Both fields are whole after every statement.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
