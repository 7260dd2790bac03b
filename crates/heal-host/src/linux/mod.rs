//! The real host: carries one action out, checked right before and read back right after.
//!
//! An action names an array and devices by identity, as they were when the machine decided. Since
//! then a device may have left and another one taken its name. So every act has the same four
//! steps, and only the second differs from act to act:
//!
//! ```text
//!   HostAction ──► 1 look      may it? that array, that device, in that state?  ── no ──► Refused, Retry
//!                     │        is it so already?                        ── yes ─► AlreadySo
//!                     ▼
//!                  2 act       one child, with a deadline (exec)
//!                     ▼
//!                  3 look      until the kernel shows it, two seconds at most
//!                     ▼
//!                  4 answer    what the kernel shows: Changed, Retry, Refused, Unknown
//! ```
//!
//! A tool's exit code and words are never the answer. They matter only when the kernel shows no
//! change: then they say why, and stand in the answer.
//!
//! Three rules hold for every act:
//!
//! - **No path, no open.** A device none of whose paths is usable is not opened by anybody, for
//!   such an open can hang for ever.
//! - **A node is proven.** What a child is given as `/dev/NAME` is the device whose number was
//!   meant ([`Node`]).
//! - **Nobody waits behind a child that hangs.** While one does, acts on the same array, namespace
//!   or subsystem are answered `Retry(Stuck)` before anything is looked at.
//!
//! Three acts on controllers are made otherwise ([`controllers`], [`isolate`]): the application
//! waits for them. They look at one array only, by way of the last look, write attributes
//! themselves because that takes no lock, and read back once.
//!
//! The guards of the core are checked there. Those that keep data from being lost are checked here
//! once more, on the snapshot of this very moment: the last leg that works, a device in use,
//! foreign content.
//!
//! The price: two looks and one child for each act, a few dozen milliseconds, and between the first
//! look and the kernel's own check there is still a gap that only the kernel can close.

mod arrays;
mod connect;
pub(crate) mod content;
mod controllers;
mod examine;
mod guard;
mod identity;
mod isolate;
mod legs;
mod marks;
mod node;
mod sockets;
mod support;
#[cfg(test)]
mod tests;
mod thaw;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use heal_types::{
    ArrayId, ArraySnapshot, Backing, ControllerName, DevT, DeviceName, HostAction, HostAnswer,
    HostPort, HostSnapshot, Outcome, Permits, RefusedWhy, RetryWhy, SocketReading, ask_then_act,
};

use crate::exec::{Call, Ended, Ending, Runner, Subject, Tools};
use crate::helper::Exit;
use crate::isolation_support::IsolationSupport;
use crate::scan::{Kept, PortalCache, Seen, glance, survey};
use crate::sysfs::Root;

use controllers::Survivors;
pub(crate) use node::Node;
use node::Nodes;
use sockets::{KernelSockets, Sockets};
use support::Support;

/// Where the marks for udev are.
const MARKS: &str = "/run/nvme-heald/legs";

/// How long the kernel may take to show what a successful child did.
const SHOWS: Duration = Duration::from_secs(2);

/// Time between two looks while waiting for that.
const PAUSE: Duration = Duration::from_millis(50);

/// When to try again what was only in the way for a moment.
const SOON: Duration = Duration::from_secs(1);

/// When to try again what failed.
const LATER: Duration = Duration::from_secs(5);

/// As many arrays as each look prepares glances of.
const PREPARED: usize = 64;

/// A step of an act: go on, or this is the answer.
type Step<T> = Result<T, Outcome>;

/// Looks at the host. Tests bring a host that is a file.
trait Eye: Send + fmt::Debug {
    fn look(&mut self) -> Seen;
}

#[derive(Debug)]
struct SysfsEye {
    root: Root,
    cache: PortalCache,
}

impl Eye for SysfsEye {
    fn look(&mut self) -> Seen {
        survey(&self.root, &mut self.cache)
    }
}

/// A handle on this host. Clones are the same host: they share what is known of portals and of
/// children that hang.
#[derive(Debug, Clone)]
pub struct LinuxHost {
    root: Root,
    eye: Arc<Mutex<dyn Eye>>,
    /// What the last look saw. Held only to take or to put it: nobody waits here for a look.
    last: Arc<Mutex<Option<Arc<Seen>>>>,
    /// What the caller's guards spoke on, right before the act: its first look.
    fresh: Option<Arc<HostSnapshot>>,
    /// What glances read.
    kept: Arc<Kept>,
    sockets: Arc<dyn Sockets>,
    support: Support,
    survivors: Survivors,
    runner: Runner,
    nodes: Nodes,
    marks: PathBuf,
    shows: Duration,
}

impl LinuxHost {
    /// The host this program runs on.
    #[must_use]
    pub fn new(tools: Tools) -> Self {
        let root = Root::host();
        let eye = SysfsEye { root: root.clone(), cache: PortalCache::new() };
        Self {
            root,
            eye: Arc::new(Mutex::new(eye)),
            last: Arc::default(),
            fresh: None,
            kept: Arc::new(Kept::host()),
            sockets: Arc::new(KernelSockets::default()),
            support: Support::unasked(),
            survivors: Survivors::default(),
            runner: Runner::new(tools),
            nodes: Nodes::host(),
            marks: PathBuf::from(MARKS),
            shows: SHOWS,
        }
    }

    /// The number of children that hang in the kernel now.
    #[must_use]
    pub fn stuck_children(&self) -> usize {
        self.runner.breaker().count()
    }

    /// Whether legs can be isolated here, as far as it is known.
    #[must_use]
    pub fn isolation(&self) -> IsolationSupport {
        self.support.now()
    }

    /// Asks the kernel whether legs can be isolated here, which takes some tenths of a second.
    /// Looks ask by themselves while it is open and there is a controller.
    #[must_use]
    pub fn ask_isolation(&self) -> IsolationSupport {
        self.support.ask(&self.root)
    }

    /// How the TCP sockets of `controllers` fare now, where it is known which those are.
    ///
    /// # Errors
    /// When the kernel does not tell of its sockets.
    pub fn socket_readings(
        &self,
        controllers: &BTreeSet<ControllerName>,
    ) -> io::Result<BTreeMap<ControllerName, SocketReading>> {
        self.sockets.readings(controllers)
    }

    /// Makes the marks that tell udev's rules which devices are legs of managed arrays equal to
    /// `legs`.
    ///
    /// # Errors
    /// When a mark could not be made or removed; the others are as they should be.
    pub fn mark_managed(&self, legs: &BTreeSet<DevT>) -> io::Result<()> {
        marks::set(&self.marks, legs)
    }

    fn see(&self) -> HostSnapshot {
        self.survey().snapshot.clone()
    }

    /// The look that an act on an array begins with. It may be some instants old; what is not in it
    /// is not there only for acts that need it to be there.
    fn before(&self) -> HostSnapshot {
        self.fresh.as_deref().cloned().unwrap_or_else(|| self.see())
    }

    /// One look, which the next glance starts from.
    fn survey(&self) -> Arc<Seen> {
        // A look that panicked left at worst an old cache of portals, which the next look corrects.
        let mut eye = self.eye.lock().unwrap_or_else(PoisonError::into_inner);
        let seen = Arc::new(eye.look());
        // Before the next look begins, or an older one could come last.
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&seen));
        seen
    }

    /// What the last look saw, if there was one.
    fn last(&self) -> Option<Arc<Seen>> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn glance_from(&self, seen: &Seen, array: ArrayId) -> HostSnapshot {
        glance(&self.root, &self.kept, seen, array)
    }

    /// Opens what glances will read, so that the first one is as quick as the next.
    fn prepare_glances(&self, seen: &Seen) {
        self.kept.looked(seen);
        let on_namespaces = |array: &&ArraySnapshot| {
            array.legs.iter().any(|leg| matches!(leg.backing, Backing::Namespace(_)))
        };
        let arrays = || seen.snapshot.arrays.iter().filter(on_namespaces);
        if arrays().next().is_some() {
            self.runner.stand_ready();
        }
        for array in arrays().take(PREPARED) {
            self.glance_from(seen, array.id);
        }
    }

    fn glimpse(&self, array: ArrayId) -> HostSnapshot {
        match self.last() {
            Some(seen) => self.glance_from(&seen, array),
            None => HostSnapshot { unreadable: vec![nobody_looked()], ..HostSnapshot::default() },
        }
    }

    fn carry_out(&self, action: &HostAction) -> HostAnswer {
        let outcome = match action {
            HostAction::Examine { device } => {
                return match self.examine(device) {
                    Ok(content) => HostAnswer {
                        // Reading changes nothing.
                        content: Some(content),
                        ..HostAnswer::from(Outcome::AlreadySo)
                    },
                    Err(outcome) => outcome.into(),
                };
            }
            HostAction::Connect { target, options } => self.connect(target, options),
            HostAction::FailLeg { array, leg, why } => self.fail_leg(*array, leg, *why),
            HostAction::RemoveLeg { array, leg } => self.remove_leg(*array, leg),
            HostAction::ReAddLeg { array, device, member, faulty } => {
                self.re_add_leg(*array, device, *member, faulty.as_ref())
            }
            HostAction::AddLeg { array, device } => self.add_leg(*array, device),
            HostAction::ReplaceLeg { array, from, to } => self.replace_leg(*array, from, to),
            HostAction::ClearWantReplacement { array, leg } => {
                self.clear_want_replacement(*array, leg)
            }
            HostAction::SetRaidDisks { array, raid_disks } => {
                self.set_raid_disks(*array, *raid_disks)
            }
            HostAction::Disconnect { nqn, controllers } => self.disconnect(nqn, controllers),
            HostAction::SetFastIoFail { controller, value } => {
                self.set_fast_io_fail(controller, *value)
            }
            HostAction::IsolateLeg { array, leg, paths, survivors } => {
                let isolated = self.isolate_leg(*array, leg, paths, survivors, &mut |_| Ok(()));
                return isolated.unwrap_or_else(HostAnswer::from);
            }
            HostAction::CutPath { array, controller } => {
                return self
                    .cut_path(*array, controller, &mut |_| Ok(()))
                    .unwrap_or_else(HostAnswer::from);
            }
            HostAction::DeleteController { array, leg, controller, survivors } => {
                self.delete_controller(*array, leg, controller, survivors)
            }
            HostAction::Reconnect { params } => self.reconnect(params),
        };
        outcome.unwrap_or_else(|outcome| outcome).into()
    }

    /// Nothing is begun on a subject that a child still hangs on.
    fn nobody_hangs_on(&self, subjects: &[Subject]) -> Step<()> {
        if self.runner.is_blocked(subjects) {
            return Err(stuck());
        }
        Ok(())
    }

    fn run(&self, call: &Call) -> Ended {
        self.runner.run(call)
    }

    /// What the kernel shows after `ended`. `shown` answers as soon as it recognises something, and
    /// `otherwise` when it has not.
    fn read_back(
        &self,
        ended: &Ended,
        shown: impl Fn(&HostSnapshot) -> Option<Outcome>,
        otherwise: impl FnOnce(&Ended) -> Outcome,
    ) -> Outcome {
        let patience = if ended.is_success() { self.shows } else { Duration::ZERO };
        let begun = Instant::now();
        loop {
            if let Some(outcome) = shown(&self.see()) {
                return outcome;
            }
            if begun.elapsed() >= patience {
                return otherwise(ended);
            }
            std::thread::sleep(PAUSE);
        }
    }
}

impl HostPort for LinuxHost {
    fn look(&mut self) -> HostSnapshot {
        let mut seen = self.survey();
        if self.thaw(&seen) {
            seen = self.survey();
        }
        self.note_sockets(&seen);
        self.prepare_glances(&seen);
        seen.snapshot.clone()
    }

    fn glance(&mut self, array: ArrayId) -> HostSnapshot {
        self.glimpse(array)
    }

    fn act(&mut self, action: &HostAction) -> HostAnswer {
        let answer = self.carry_out(action);
        tracing::debug!(verb = action.verb(), outcome = %answer.outcome, "act");
        answer
    }

    fn act_if(
        &mut self,
        array: ArrayId,
        action: &HostAction,
        permits: &mut Permits<'_>,
    ) -> HostAnswer {
        // The application waits for these, and they begin with a glance of their own.
        let isolated = match action {
            HostAction::IsolateLeg { array, leg, paths, survivors } => {
                Some(self.isolate_leg(*array, leg, paths, survivors, permits))
            }
            HostAction::CutPath { array, controller } => {
                Some(self.cut_path(*array, controller, permits))
            }
            HostAction::Connect { .. }
            | HostAction::Examine { .. }
            | HostAction::FailLeg { .. }
            | HostAction::RemoveLeg { .. }
            | HostAction::ReAddLeg { .. }
            | HostAction::AddLeg { .. }
            | HostAction::ReplaceLeg { .. }
            | HostAction::ClearWantReplacement { .. }
            | HostAction::SetRaidDisks { .. }
            | HostAction::SetFastIoFail { .. }
            | HostAction::DeleteController { .. }
            | HostAction::Reconnect { .. }
            | HostAction::Disconnect { .. } => None,
        };
        if let Some(answer) = isolated {
            return answer.unwrap_or_else(HostAnswer::from);
        }
        if action.is_urgent() {
            return ask_then_act(self, array, action, permits);
        }
        let mut fresh = self.see();
        if let Err(detail) = permits(&mut fresh) {
            return guarded(detail).into();
        }
        Self { fresh: Some(Arc::new(fresh)), ..self.clone() }.act(action)
    }
}

/// Stands for an array whose name nobody has read yet.
fn nobody_looked() -> DeviceName {
    DeviceName::new("md").expect("two letters are a name")
}

/// Why nothing changed, as the child tells it.
fn not_done(ended: &Ended) -> Outcome {
    let detail = ended.said();
    match &ended.ending {
        Ending::Stuck | Ending::Behind => stuck(),
        Ending::TimedOut => retry(LATER, RetryWhy::TimedOut),
        Ending::NotStarted(error) if is_missing(error) => {
            refused_here(format!("a child could not be started: {error}"))
        }
        // Too many processes, too little memory: what is so now is not so for ever.
        Ending::NotStarted(error) => {
            let detail = format!("a child could not be started: {error}");
            retry(LATER, RetryWhy::ToolFailed { exit: None, detail })
        }
        Ending::Exited(code) if Exit::of(*code) == Some(Exit::Busy) || is_busy(&detail) => {
            retry(SOON, RetryWhy::Busy)
        }
        Ending::Exited(code) => {
            let exit = Some(*code);
            retry(LATER, RetryWhy::ToolFailed { exit, detail })
        }
        Ending::Signalled(signal) => {
            let detail = format!("signal {signal} {detail}").trim_end().to_owned();
            retry(LATER, RetryWhy::ToolFailed { exit: None, detail })
        }
    }
}

/// Whether the program itself is not there, or not to be run.
fn is_missing(error: &std::io::Error) -> bool {
    use std::io::ErrorKind;
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::PermissionDenied)
}

/// The kernel's `EBUSY`, as every tool prints it.
fn is_busy(said: &str) -> bool {
    said.to_ascii_lowercase().contains("resource busy")
}

fn retry(after: Duration, why: RetryWhy) -> Outcome {
    Outcome::Retry { after, why }
}

fn stuck() -> Outcome {
    retry(LATER, RetryWhy::Stuck)
}

fn refused_here(detail: String) -> Outcome {
    Outcome::Refused(RefusedWhy::NotPossibleHere { detail })
}

fn not_in_that_state(detail: impl Into<String>) -> Outcome {
    let detail = detail.into();
    Outcome::Refused(RefusedWhy::NotInThatState { detail })
}

fn guarded(detail: impl Into<String>) -> Outcome {
    let detail = detail.into();
    Outcome::Refused(RefusedWhy::Guard { detail })
}

fn other_device(detail: impl Into<String>) -> Outcome {
    let detail = detail.into();
    Outcome::Refused(RefusedWhy::NotThatDevice { detail })
}
