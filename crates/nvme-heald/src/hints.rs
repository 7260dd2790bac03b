//! Reasons to look, as the reactor takes them: the kernel's events without their details, which
//! nobody may conclude anything from.

use std::sync::{Arc, Mutex, PoisonError};

use heal_core::LookCause;
use heal_host::events::{Counters, SourceEvent, Sources};
use heal_host::uevent::{Action, Subject, Uevent};
use heal_types::Moment;
use tokio::sync::mpsc;

/// Hints that may wait for the reactor; more of them wait in the kernel, whose overrun is a hint too.
pub(crate) const ROOM: usize = 1024;

/// One reason to look.
#[derive(Debug, Clone)]
pub(crate) struct Hint {
    pub(crate) cause: LookCause,
    /// When MD notified, if it did.
    pub(crate) signalled_at: Option<Moment>,
}

/// What the sources counted so far.
#[derive(Debug, Clone, Default)]
pub(crate) struct Counted(Arc<Mutex<Counters>>);

impl Counted {
    pub(crate) fn now(&self) -> Counters {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, counters: Counters) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = counters;
    }
}

/// Passes on what `sources` say, for as long as somebody listens.
pub(crate) async fn pump(mut sources: Sources, hints: mpsc::Sender<Hint>, counted: Counted) {
    loop {
        let hint = hint(sources.next().await);
        counted.set(sources.counters());
        if hints.send(hint).await.is_err() {
            return;
        }
    }
}

fn hint(event: SourceEvent) -> Hint {
    let (cause, signalled_at) = match event {
        SourceEvent::Md(wake) => (LookCause::Md, Some(wake.at)),
        SourceEvent::Uevent(uevent) => (LookCause::Uevent { what: what(&uevent) }, None),
        SourceEvent::Link(_) => (LookCause::Link, None),
        SourceEvent::Overrun(source) => {
            tracing::warn!(?source, "events were lost: everything is looked at again");
            (LookCause::Overrun, None)
        }
    };
    Hint { cause, signalled_at }
}

fn what(uevent: &Uevent) -> String {
    let action = match uevent.action {
        Action::Add => "add",
        Action::Remove => "remove",
        Action::Change => "change",
        Action::Other => "other",
    };
    match &uevent.subject {
        Subject::Block { device, .. } => format!("{action} block/{device}"),
        Subject::NvmeController { name, .. } => format!("{action} nvme/{name}"),
        Subject::NvmeSubsystem => format!("{action} nvme-subsystem"),
        Subject::Net => format!("{action} net"),
        Subject::Other => format!("{action} other"),
    }
}
