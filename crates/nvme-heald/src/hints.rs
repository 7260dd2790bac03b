//! Reasons to look, as the reactor takes them: the kernel's events without their details, which
//! nobody may conclude anything from, and with what they say of paths, which is news by itself.

use std::sync::{Arc, Mutex, PoisonError};

use heal_core::LookCause;
use heal_core::paths::PathEvent;
use heal_host::clock;
use heal_host::events::{Counters, SourceEvent, Sources};
use heal_host::kmsg::{KernelLog, KernelSaid};
use heal_host::link::LinkEvent;
use heal_host::uevent::{Action, NvmeEvent, Subject, Uevent};
use heal_types::Moment;
use tokio::sync::mpsc;

/// Hints that may wait for the reactor; more of them wait in the kernel, whose overrun is a hint
/// too.
pub(crate) const ROOM: usize = 1024;

/// One reason to look.
#[derive(Debug, Clone)]
pub(crate) struct Hint {
    pub(crate) cause: LookCause,
    /// When MD notified, if it did.
    pub(crate) signalled_at: Option<Moment>,
}

/// What one event said.
#[derive(Debug, Clone)]
pub(crate) struct Told {
    /// Why to look, if it is worth a look.
    pub(crate) hint: Option<Hint>,
    /// What it says of a path, and when it was heard.
    pub(crate) sign: Option<Sign>,
    /// Whether interfaces, addresses or routes have to be read again.
    pub(crate) rewired: bool,
}

/// News of a path.
#[derive(Debug, Clone)]
pub(crate) struct Sign {
    /// What.
    pub(crate) event: PathEvent,
    /// When it was heard.
    pub(crate) at: Moment,
}

impl From<Hint> for Told {
    fn from(hint: Hint) -> Self {
        Self { hint: Some(hint), sign: None, rewired: false }
    }
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
pub(crate) async fn pump(mut sources: Sources, told: mpsc::Sender<Told>, counted: Counted) {
    loop {
        let event = sources.next().await;
        counted.set(sources.counters());
        if told.send(heard(event)).await.is_err() {
            return;
        }
        // A lost carrier comes with a dozen other messages, and nobody has to wait for those.
        tokio::task::yield_now().await;
    }
}

/// Passes on what the kernel's log says of controllers. A host whose log cannot be read is slower
/// to notice what has no other sign, and loses nothing.
pub(crate) async fn pump_log(told: mpsc::Sender<Told>) {
    let mut log = match KernelLog::open() {
        Ok(log) => log,
        Err(error) => {
            tracing::info!(%error, "the kernel's log is not read");
            return;
        }
    };
    loop {
        if told.send(logged(log.next().await)).await.is_err() {
            return;
        }
    }
}

fn logged(said: KernelSaid) -> Told {
    let at = clock::moment();
    let sign = match said {
        KernelSaid::Controller { name, .. } => {
            Some(Sign { event: PathEvent::KernelSaid { controller: name }, at })
        }
        KernelSaid::Namespace { .. } | KernelSaid::Lost => None,
    };
    let hint = Some(Hint { cause: LookCause::KernelLog, signalled_at: None });
    Told { hint, sign, rewired: false }
}

fn heard(event: SourceEvent) -> Told {
    let at = clock::moment();
    let hint = |cause| Hint { cause, signalled_at: None };
    match event {
        SourceEvent::Md(wake) => Hint { cause: LookCause::Md, signalled_at: Some(wake.at) }.into(),
        SourceEvent::Uevent(uevent) => {
            let sign = match &uevent.subject {
                Subject::NvmeController { name, event: Some(NvmeEvent::Connected) } => {
                    let event = PathEvent::Connected { controller: name.clone() };
                    Some(Sign { event, at })
                }
                Subject::NvmeController { .. }
                | Subject::Block { .. }
                | Subject::NvmeSubsystem
                | Subject::Net
                | Subject::Other => None,
            };
            let rewired = sign.is_some();
            Told { hint: Some(hint(LookCause::Uevent { what: what(&uevent) })), sign, rewired }
        }
        SourceEvent::Link(link) => {
            let sign = match link {
                LinkEvent::Link { ifindex, carrier, admin_up, removed, .. } => {
                    let up = carrier && admin_up;
                    Some(Sign { event: PathEvent::Link { index: ifindex, up, removed }, at })
                }
                LinkEvent::Address { .. } | LinkEvent::Route | LinkEvent::Overrun => None,
            };
            Told { hint: Some(hint(LookCause::Link)), sign, rewired: true }
        }
        SourceEvent::Overrun(source) => {
            tracing::warn!(?source, "events were lost: everything is looked at again");
            Told { hint: Some(hint(LookCause::Overrun)), sign: None, rewired: true }
        }
    }
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
