//! The daemon's reactor, as far as paths go: who is asked when, who hears the verdicts, which
//! controllers are armed.
//!
//! ```text
//!   signs (links, connects, log) ─┐
//!   looks ────────────────────────┼─► Paths ─► verdicts changed ─► every machine
//!   readings on a timer ──────────┘                            └─► arming::plan ─► kernel
//! ```
//!
//! The order is the daemon's: a sign reaches the machines before anybody looks, a plan is carried
//! out a moment after it was made, and stops where the verdicts have changed meanwhile.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use heal_core::arming::{self, Armed, Arming, LostLeg, Ward};
use heal_core::cuts::{self, Cuts};
use heal_core::paths::{CutOff, Limits, PathEvent, Paths, Seen};
use heal_core::{ArrayMachine, Event, LookCause, PathNews};
use heal_types::{
    ArrayId, ControllerName, FastIoFail, HostAction, HostPort, HostSnapshot, Moment, Outcome,
    PathDoubt, PathHealth,
};

use super::transcript::{LineKind, action_words};
use super::{LOOK_LATENCY, Queued, What, World};

/// How long a sign takes from the kernel to the machines.
const SIGN_LATENCY: Duration = Duration::from_micros(200);
/// How long reading the network takes.
const WIRING: Duration = Duration::from_millis(2);
/// How long a plan of arming takes to be begun.
const ARMING: Duration = Duration::from_millis(1);
/// How often sockets are read while a suspicion is open.
const SOCKETS: Duration = Duration::from_millis(200);
/// How often I/O is read while there are legs of ours.
const IO: Duration = Duration::from_secs(1);
/// How often the host is looked at while a target lets no I/O through.
const ANA: Duration = Duration::from_secs(2);
/// All legs of an array in doubt are the host's own trouble for this long; later it is that
/// array's.
const CUT_OFF: Duration = Duration::from_secs(30);
/// After how many seconds a leg that is armed fails its I/O.
const FAST_IO_FAIL: u32 = 1;

/// What a reactor holds of paths.
#[derive(Debug, Clone)]
pub(super) struct Watch {
    pub(super) paths: Paths,
    pub(super) news: PathNews,
    snapshot: Option<HostSnapshot>,
    controllers: BTreeSet<(ControllerName, bool)>,
    sockets_at: Option<Moment>,
    io_at: Option<Moment>,
    /// Controllers of which somebody waited for I/O at the last reading.
    busy: BTreeSet<ControllerName>,
    /// A plan is being carried out.
    arming: bool,
    replan: bool,
    wards: BTreeMap<ArrayId, Ward>,
    /// Arrays that are ours to act on, and the legs they lost: what is armed on them is our doing.
    healed: BTreeMap<ArrayId, Vec<LostLeg>>,
    armed: Armed,
    cuts: Cuts,
    cut_at: Option<Moment>,
    /// What the last look, or the last sign of a path, made of it.
    cut_off: Option<CutOff>,
    cut_off_since: Option<Moment>,
    alarmed: bool,
}

impl Watch {
    pub(super) fn new() -> Self {
        Self {
            paths: Paths::new(Limits::default()),
            news: PathNews::default(),
            snapshot: None,
            controllers: BTreeSet::new(),
            sockets_at: None,
            io_at: None,
            busy: BTreeSet::new(),
            arming: false,
            replan: false,
            wards: BTreeMap::new(),
            healed: BTreeMap::new(),
            armed: Armed::default(),
            cuts: Cuts::default(),
            cut_at: None,
            cut_off: None,
            cut_off_since: None,
            alarmed: false,
        }
    }

    /// When something is due by time alone.
    pub(super) fn deadline(&self) -> Option<Moment> {
        let expiry = self.cut_off_since.filter(|_| self.news.cut_off.is_some());
        let expiry = expiry.map(|since| since.after(CUT_OFF));
        let times = [
            self.paths.next_deadline(),
            expiry,
            self.sockets_at,
            self.io_at,
            self.cut_at,
            self.armed.next_deadline(),
        ];
        times.into_iter().flatten().min()
    }
}

impl World {
    /// News of a path is on its way.
    pub(super) fn sign_in(&mut self, event: PathEvent, after: Duration) {
        if self.restart_at.is_none() {
            self.enqueue(SIGN_LATENCY + after, What::Sign(event));
        }
    }

    /// The network is to be read again.
    pub(super) fn rewire(&mut self, after: Duration) {
        let (asked, due) = (self.now.mono.after(after), self.now.mono.after(WIRING + after));
        let is_soon = |q: &Queued| q.what == What::Wiring && (asked..=due).contains(&q.due);
        if self.restart_at.is_none() && !self.queue.iter().any(is_soon) {
            self.enqueue(WIRING + after, What::Wiring);
        }
    }

    /// News of a path. It goes to the machines before anything else is done.
    pub(super) fn signed(&mut self, event: PathEvent) {
        if self.watch.paths.handle(self.now.mono, event) {
            self.verdicts_changed();
        }
    }

    pub(super) fn wired(&mut self) {
        let network = self.kernel.network();
        let egress = self.kernel.egress().into_iter().collect();
        self.signed(PathEvent::Network { network, egress });
    }

    /// Takes the verdicts in, and puts them into what was just seen.
    pub(super) fn saw_paths(&mut self, snapshot: &mut HostSnapshot) {
        self.watch.paths.handle(self.now.mono, PathEvent::Looked(Seen::whole(snapshot)));
        self.watch.paths.annotate(snapshot);
        let seen: BTreeSet<(ControllerName, bool)> = snapshot
            .namespaces
            .iter()
            .flat_map(|namespace| &namespace.paths)
            .map(|path| (path.controller.clone(), path.portal.known().is_some()))
            .collect();
        if seen != self.watch.controllers {
            self.watch.controllers = seen;
            self.rewire(Duration::ZERO);
        }
        self.watch.snapshot = Some(snapshot.clone());
        self.watch.replan = true;
    }

    pub(super) fn is_cut_off(&self) -> bool {
        self.watch.alarmed
    }

    fn is_ward(&self, array: ArrayId) -> bool {
        self.machines.get(&array).is_some_and(ArrayMachine::is_ward)
    }

    fn verdicts_changed(&mut self) {
        let Some(snapshot) = &mut self.watch.snapshot else { return };
        self.watch.paths.annotate(snapshot);
        self.publish();
        self.watch.replan = true;
    }

    /// Tells every machine, if there is anything new.
    pub(super) fn publish(&mut self) {
        let Some(snapshot) = &self.watch.snapshot else { return };
        let wards: BTreeSet<ArrayId> = self.watch.wards.keys().copied().collect();
        let cut_off = self.watch.paths.cut_off(snapshot, &wards, self.watch.cut_off.as_ref());
        self.watch.cut_off.clone_from(&cut_off);
        let mut news = PathNews::of(snapshot, None, &self.watch.news);
        news.cut_off = self.tell_cut_off(cut_off);
        if news == self.watch.news {
            return;
        }
        self.watch.news = news.clone();
        let ids: Vec<ArrayId> = self.machines.keys().copied().collect();
        for id in ids {
            self.deliver(id, Event::Paths(news.clone()));
        }
    }

    /// One alarm for the whole host, and what to say to machines of it.
    fn tell_cut_off(&mut self, cut_off: Option<CutOff>) -> Option<String> {
        let now = self.now.mono;
        let Some(cut_off) = cut_off else {
            if std::mem::take(&mut self.watch.alarmed) {
                self.daemon_says("the host is no longer cut off".to_owned());
            }
            self.watch.cut_off_since = None;
            return None;
        };
        let since = *self.watch.cut_off_since.get_or_insert(now);
        let text = cut_off.to_string();
        if !std::mem::replace(&mut self.watch.alarmed, true) {
            self.daemon_says(format!("alarm: the host is cut off: {text}; nothing is isolated"));
        }
        match cut_off {
            CutOff::ManyArrays { .. } => Some(text),
            CutOff::AllLegs { .. } if now.since(since) < CUT_OFF => Some(text),
            // An array that lost everything must not keep others from being helped for ever.
            CutOff::AllLegs { .. } => None,
        }
    }

    fn daemon_says(&mut self, text: String) {
        let now = self.now.mono;
        self.transcript.push(now, LineKind::Daemon, text);
    }

    /// Whatever is due by time alone. Answers whether anything was.
    pub(super) fn wake_paths(&mut self) -> bool {
        let now = self.now.mono;
        let due = |at: Option<Moment>| at.is_some_and(|at| at <= now);
        if due(self.watch.sockets_at) {
            self.watch.sockets_at = Some(now.after(SOCKETS));
            for controller in self.watch.paths.watched_sockets() {
                let reading = self.kernel.sockets(&controller);
                self.signed(PathEvent::Sockets { controller, reading });
            }
            return true;
        }
        if due(self.watch.io_at) {
            self.watch.io_at = Some(now.after(IO));
            for controller in self.kernel.controllers() {
                let Some(reading) = self.kernel.io_reading(&controller) else { continue };
                // Two quiet readings in a row say nothing, and are most of what there is to read.
                let was_busy = self.watch.busy.remove(&controller);
                if reading.in_flight > 0 {
                    self.watch.busy.insert(controller.clone());
                } else if !was_busy {
                    continue;
                }
                self.signed(PathEvent::Io { controller, reading });
            }
            return true;
        }
        if self.watch.armed.is_time(now) {
            self.watch.replan = true;
            return true;
        }
        if due(self.watch.deadline()) {
            if self.watch.paths.handle(now, PathEvent::Tick) {
                self.verdicts_changed();
            } else {
                self.publish();
            }
            return true;
        }
        false
    }

    /// Begins whatever follows from what was heard: readings, and a plan of arming.
    pub(super) fn tend_paths(&mut self) {
        if self.restart_at.is_some() {
            return;
        }
        let now = self.now.mono;
        let wards: BTreeMap<ArrayId, Ward> = self
            .machines
            .iter()
            .filter_map(|(id, machine)| Some((*id, machine.isolates_after()?)))
            .map(|(id, isolate_after)| (id, Ward { fast_io_fail: FAST_IO_FAIL, isolate_after }))
            .collect();
        if wards != self.watch.wards {
            self.watch.wards = wards;
            self.watch.replan = true;
            self.publish();
        }
        // Of an array that is quarantined it shows only now that what is armed on it is our doing.
        let heals = self.machines.iter().filter(|(_, machine)| machine.heals());
        let healed = heals.map(|(id, machine)| (*id, machine.lost_legs())).collect();
        if healed != self.watch.healed {
            self.watch.healed = healed;
            self.watch.replan = true;
        }
        let watched = !self.watch.paths.watched_sockets().is_empty();
        self.watch.sockets_at = self.watch.sockets_at.or(Some(now)).filter(|_| watched);
        let any = !self.watch.wards.is_empty();
        self.watch.io_at = self.watch.io_at.or(Some(now.after(IO))).filter(|_| any);
        // A plan under way ends with a look, which asks for the next one.
        let closed = |health: &PathHealth| health.doubt() == Some(PathDoubt::AnaInaccessible);
        if self.watch.news.verdicts.values().any(closed) {
            self.look_in(ANA, LookCause::Asked); // Nobody says when the target opens it again.
        }
        if std::mem::take(&mut self.watch.replan) && !self.watch.arming {
            self.plan_arming();
        }
        self.cut_paths();
    }

    /// Cuts dead paths beside which their legs have another one.
    fn cut_paths(&mut self) {
        let Some(snapshot) = &self.watch.snapshot else { return };
        let now = self.now.mono;
        let (due, next) = match self.watch.news.cut_off {
            None => self.watch.cuts.due(now, snapshot, &self.watch.wards),
            Some(_) => (Vec::new(), None),
        };
        self.watch.cut_at = next;
        for cut in due {
            if self.boundary().is_err() {
                return;
            }
            let array = cut.array;
            let mut fresh = self.kernel.glance(array);
            self.watch.news.annotate_all(&mut fresh);
            if let Err(why) = cuts::permits(&cut, &fresh) {
                self.watch.cuts.missed(now, &cut.controller);
                self.daemon_says(format!("{} is not cut: {why}", cut.controller.name));
                continue;
            }
            let controller = Box::new(cut.controller.clone());
            let action = HostAction::CutPath { array, controller };
            let answer = self.act_now(array, &action);
            if !answer.outcome.is_so() {
                self.watch.cuts.missed(now, &cut.controller);
            }
            self.daemon_says(format!("{}: {}: {}", action_words(&action), cut.why, answer.outcome));
            self.look_in(LOOK_LATENCY, LookCause::OwnAction);
        }
    }

    fn plan_arming(&mut self) {
        let Watch { snapshot, armed, wards, healed, .. } = &mut self.watch;
        let Some(snapshot) = snapshot else { return };
        armed.inherit(snapshot, healed);
        let mut plan = arming::plan(snapshot, wards);
        plan.extend(armed.due(self.now.mono, snapshot, wards));
        if !plan.is_empty() {
            self.watch.arming = true;
            let planned_on = self.watch.news.clone();
            self.enqueue(ARMING, What::Arm(plan, Box::new(planned_on)));
        }
    }

    /// Carries a plan out, step by step; a crash may come before and after each.
    pub(super) fn arm(&mut self, plan: Vec<Arming>, planned_on: &PathNews) {
        self.watch.arming = false;
        for step in plan {
            // A verdict that came since may have moved the anchor: then nothing more is armed.
            let meant = self.watch.news == *planned_on && self.is_ward(step.array);
            if step.want != FastIoFail::Off && !meant {
                break;
            }
            if self.boundary().is_err() {
                return;
            }
            self.check_arming(&step);
            let (controller, value) = (step.controller.clone(), step.want);
            let answer = self.kernel.act(&HostAction::SetFastIoFail { controller, value }).outcome;
            self.after_kernel();
            let text = format!(
                "fast_io_fail_tmo of {} from {} to {}: {}: {answer}",
                step.controller.name, step.shows, step.want, step.why
            );
            self.daemon_says(text);
            if answer == Outcome::Changed {
                self.watch.armed.wrote(&step);
            }
            if self.boundary().is_err() {
                return;
            }
            if !answer.is_so() {
                break; // What comes after it may rest on it.
            }
        }
        self.look_in(LOOK_LATENCY, LookCause::OwnAction);
    }
}
