//! The reactor's paths: who is asked when, who hears the verdicts, which controllers are armed.
//!
//! ```text
//!   signs (links, connects, kernel log) ─┐
//!   looks ───────────────────────────────┼─► Paths ─► verdicts changed ─► Board, every actor
//!   readings (sockets, I/O), on a timer ─┘                            └─► arming::plan ─► host
//! ```
//!
//! A sign is worked off where it is heard, on the reactor's own task: between a carrier that is lost
//! and the actor that has to decide there is one message and no look. What takes a thread that may
//! block (the network's picture, sockets, I/O, arming) is asked for here and comes back as news.
//!
//! There are two timers, and neither is for ever: sockets are read every 200 ms while a suspicion is
//! open, and how far I/O has come every second while an array has legs of ours.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use heal_core::arming::{self, Arming, Ward};
use heal_core::audit::{AuditEntry, AuditKind, Severity};
use heal_core::paths::{CutOff, Limits, PathEvent, Paths, Seen};
use heal_core::{LookCause, PathNews};
use heal_host::clock;
use heal_types::{
    ArrayId, ControllerName, ControllerRef, FastIoFail, HostAction, HostSnapshot, IoReading,
    Moment, Observed, Outcome, Portal, SocketReading,
};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::Reactor;
use crate::config::Config;
use crate::executor::Board;
use crate::hints::{Hint, Sign};
use crate::host::{Host, Wiring};
use crate::journal::Entry;

/// How often sockets are read while a suspicion is open.
const SOCKETS: Duration = Duration::from_millis(200);
/// How often I/O is read while there are legs of ours.
const IO: Duration = Duration::from_secs(1);
/// When to read the network again after it could not be read.
const REWIRE_AGAIN: Duration = Duration::from_secs(2);
/// All legs of an array in doubt are the host's own trouble for this long; later it is that array's.
const CUT_OFF: Duration = Duration::from_secs(30);

/// What came of a question that takes a thread.
#[derive(Debug)]
pub(super) enum Work {
    Wired(Option<Wiring>),
    Sockets(Vec<(ControllerName, Option<SocketReading>)>),
    Io(Vec<(ControllerName, IoReading)>),
    Armed(Vec<(Arming, Outcome)>),
    Support(Option<String>),
    Rehearsed,
}

/// Which questions are out.
#[derive(Debug, Default)]
struct Out {
    wired: bool,
    sockets: bool,
    io: bool,
    armed: bool,
}

/// What the reactor holds of paths.
#[derive(Debug)]
pub(super) struct PathWatch {
    paths: Paths,
    board: Board,
    news: PathNews,
    work: JoinSet<Work>,
    out: Out,
    rewire: bool,
    rewire_at: Option<Instant>,
    sockets_at: Option<Instant>,
    io_at: Option<Instant>,
    /// Looks that began before this moment show controllers as they were before they were armed.
    armed_at: Moment,
    /// Something changed that the plan of arming rests on.
    replan: bool,
    /// Controllers that are armed because of us.
    ours: BTreeMap<ControllerRef, ArrayId>,
    cut_off_since: Option<Moment>,
    controllers: BTreeMap<ControllerName, Portal>,
}

impl PathWatch {
    pub(super) fn new(config: &Config, board: Board) -> Self {
        Self {
            paths: Paths::new(limits(config)),
            board,
            news: PathNews::default(),
            work: JoinSet::new(),
            out: Out::default(),
            rewire: true,
            rewire_at: None,
            sockets_at: None,
            io_at: None,
            armed_at: Moment::default(),
            replan: false,
            ours: BTreeMap::new(),
            cut_off_since: None,
            controllers: BTreeMap::new(),
        }
    }

    /// The network changed: read it again.
    pub(super) fn rewire(&mut self) {
        self.rewire = true;
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        let tick = self.paths.next_deadline();
        let tick = tick.map(|at| Instant::now() + at.since(clock::moment()));
        let expiry = self
            .cut_off_since
            .map(|since| Instant::now() + since.after(CUT_OFF).since(clock::moment()));
        let expiry = expiry.filter(|_| self.news.cut_off.is_some());
        [tick, expiry, self.rewire_at, self.sockets_at, self.io_at].into_iter().flatten().min()
    }

    /// The end of a question. Safe to drop while it waits.
    pub(super) async fn ended(&mut self) -> Option<Work> {
        match self.work.join_next().await {
            Some(Ok(work)) => Some(work),
            Some(Err(error)) => {
                tracing::error!(%error, "a reading of paths broke off");
                self.out = Out::default();
                None
            }
            None => std::future::pending().await,
        }
    }
}

fn limits(config: &Config) -> Limits {
    Limits {
        stalled_after: config.isolation.stalled_after.0,
        many_arrays: config.isolation.many_arrays,
        ..Limits::default()
    }
}

impl<H: Host> Reactor<H> {
    /// News of a path. It goes to the actors before anything else is done.
    pub(super) fn signed(&mut self, sign: Sign) {
        if self.paths.paths.handle(clock::moment(), sign.event) {
            self.verdicts_changed(sign.at);
        }
    }

    /// Takes the verdicts in, and puts them into what was just seen.
    pub(super) fn saw_paths(&mut self, snapshot: &mut HostSnapshot, begun: Moment) {
        self.paths.paths.handle(clock::moment(), PathEvent::Looked(Seen::whole(snapshot)));
        self.paths.paths.annotate(snapshot);
        let controllers = controllers(snapshot);
        if controllers != self.paths.controllers {
            self.paths.controllers = controllers;
            self.paths.rewire = true;
            self.ask_support();
        }
        if begun >= self.paths.armed_at {
            self.paths.replan = true;
        }
    }

    /// What the look made of the verdicts goes to those who did not get the look.
    pub(super) fn verdicts_changed(&mut self, heard_at: Moment) {
        let Some(snapshot) = &mut self.snapshot else { return };
        let snapshot = std::sync::Arc::make_mut(snapshot);
        self.paths.paths.annotate(snapshot);
        self.publish(heard_at);
        self.paths.replan = true;
    }

    /// Tells the board and every actor, if there is anything new.
    pub(super) fn publish(&mut self, heard_at: Moment) {
        let Some(snapshot) = self.snapshot.clone() else { return };
        let wards: BTreeSet<ArrayId> = self.wards().into_keys().collect();
        let cut_off = self.paths.paths.cut_off(&snapshot, &wards);
        let cut_off = self.tell_cut_off(cut_off);
        let news = PathNews::of(&snapshot, cut_off);
        if news == self.paths.news {
            return;
        }
        self.paths.board.set(news.clone());
        for seat in self.seats.values() {
            seat.mailbox.paths(news.clone(), heard_at);
        }
        self.paths.news = news;
    }

    /// One alarm for the whole host, and what to say to machines of it.
    fn tell_cut_off(&mut self, cut_off: Option<CutOff>) -> Option<String> {
        let Some(cut_off) = cut_off else {
            if self.alarms.remove("cut_off").is_some() {
                tracing::info!("the host is no longer cut off");
            }
            self.paths.cut_off_since = None;
            return None;
        };
        let now = clock::moment();
        let since = *self.paths.cut_off_since.get_or_insert(now);
        let text = cut_off.to_string();
        if !self.alarms.contains_key("cut_off") {
            self.alarm(
                "cut_off",
                format!("the host is cut off: {text}; nothing is isolated"),
                format!("{} arrays", arrays_of(&cut_off)),
            );
        }
        match cut_off {
            CutOff::ManyArrays { .. } => Some(text),
            CutOff::AllLegs { .. } if now.since(since) < CUT_OFF => Some(text),
            // An array that lost everything must not keep others from being helped for ever.
            CutOff::AllLegs { .. } => None,
        }
    }

    pub(super) fn alarm(&mut self, rule: &'static str, message: String, reason: String) {
        self.alarms.insert(rule, message.clone());
        let entry = AuditEntry {
            kind: AuditKind::HostAlarm,
            severity: Severity::Critical,
            at: clock::now().wall,
            message,
            incident: None,
            action: None,
            slot: None,
            fields: vec![("RULE", rule.to_owned()), ("REASON", reason)],
        };
        self.setup.journal.send(Entry::audit(&entry, None));
    }

    /// Whether one alarm speaks already of what a storm of lost legs would be.
    pub(super) fn is_cut_off(&self) -> bool {
        self.alarms.contains_key("cut_off")
    }

    /// The arrays whose legs' controllers are to be armed.
    fn wards(&self) -> BTreeMap<ArrayId, Ward> {
        let fast_io_fail = self.setup.config.isolation.fast_io_fail.0.as_secs();
        let fast_io_fail = u32::try_from(fast_io_fail).unwrap_or(1);
        let is_ward = |seat: &super::Seat| seat.brief.as_ref().is_some_and(|brief| brief.is_ward);
        self.seats
            .iter()
            .filter(|(_, seat)| is_ward(seat))
            .map(|(array, _)| (*array, Ward { fast_io_fail }))
            .collect()
    }

    /// An array became a ward, or is none any more.
    pub(super) fn wards_changed(&mut self) {
        self.paths.replan = true;
    }

    /// Begins whatever is due and not under way.
    pub(super) fn begin_path_work(&mut self) {
        let now = Instant::now();
        let due = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        if (self.paths.rewire || due(self.paths.rewire_at)) && !self.paths.out.wired {
            self.ask_wiring();
        }
        let watched = self.paths.paths.watched_sockets();
        match (watched.is_empty(), self.paths.sockets_at) {
            (true, _) => self.paths.sockets_at = None,
            (false, None) => self.paths.sockets_at = Some(now),
            (false, Some(_)) => {}
        }
        if due(self.paths.sockets_at) && !self.paths.out.sockets {
            self.paths.sockets_at = Some(now + SOCKETS);
            self.paths.out.sockets = true;
            let mut host = self.setup.host.clone();
            self.paths.work.spawn_blocking(move || Work::Sockets(host.read_sockets(&watched)));
        }
        let legs = self.legs_of_wards();
        match (legs.is_empty(), self.paths.io_at) {
            (true, _) => self.paths.io_at = None,
            (false, None) => self.paths.io_at = Some(now + IO),
            (false, Some(_)) => {}
        }
        if due(self.paths.io_at) && !self.paths.out.io {
            self.paths.io_at = Some(now + IO);
            self.paths.out.io = true;
            let mut host = self.setup.host.clone();
            self.paths.work.spawn_blocking(move || Work::Io(host.read_io(&legs)));
        }
        if std::mem::take(&mut self.paths.replan) {
            self.arm();
        }
    }

    fn ask_wiring(&mut self) {
        self.paths.rewire = false;
        self.paths.rewire_at = None;
        self.paths.out.wired = true;
        let mut host = self.setup.host.clone();
        let controllers: Vec<(ControllerName, Portal)> =
            self.paths.controllers.iter().map(|(name, at)| (name.clone(), at.clone())).collect();
        self.paths.work.spawn_blocking(move || Work::Wired(host.wiring(&controllers)));
    }

    fn ask_support(&mut self) {
        let mut host = self.setup.host.clone();
        self.paths.work.spawn_blocking(move || Work::Support(host.isolation_off()));
    }

    fn legs_of_wards(&self) -> Vec<ControllerName> {
        let wards = self.wards();
        let arrays = self.snapshot.iter().flat_map(|snapshot| &snapshot.arrays);
        let legs = arrays.filter(|array| wards.contains_key(&array.id)).flat_map(|a| &a.legs);
        let paths = legs.filter_map(|leg| leg.backing.namespace()).flat_map(|space| &space.paths);
        let names: BTreeSet<ControllerName> = paths.map(|path| path.controller.clone()).collect();
        names.into_iter().collect()
    }

    /// Brings every controller's fast failure to what the plan says.
    fn arm(&mut self) {
        let Some(snapshot) = self.snapshot.clone().filter(|_| !self.paths.out.armed) else {
            return;
        };
        let wards = self.wards();
        let mut plan = arming::plan(&snapshot, &wards);
        plan.extend(arming::released(&snapshot, &wards, &self.paths.ours));
        if plan.is_empty() {
            return;
        }
        self.paths.out.armed = true;
        let mut host = self.setup.host.clone();
        let (board, planned_on) = (self.paths.board.clone(), self.paths.news.clone());
        self.paths.work.spawn_blocking(move || {
            let mut done = Vec::new();
            for step in plan {
                // A verdict that came since may have moved the anchor: then nothing more is armed.
                if step.want != FastIoFail::Off && board.news() != planned_on {
                    break;
                }
                let (controller, value) = (step.controller.clone(), step.want);
                let answer = host.act(&HostAction::SetFastIoFail { controller, value });
                let is_so = matches!(answer.outcome, Outcome::Changed | Outcome::AlreadySo);
                done.push((step, answer.outcome));
                if !is_so {
                    break; // What comes after it may rest on it.
                }
            }
            Work::Armed(done)
        });
    }

    /// What came of a question.
    pub(super) fn path_work(&mut self, work: Work) {
        let now = clock::moment();
        match work {
            Work::Wired(wiring) => {
                self.paths.out.wired = false;
                let Some(Wiring { network, egress }) = wiring else {
                    self.paths.rewire_at = Some(Instant::now() + REWIRE_AGAIN);
                    return;
                };
                if self.paths.paths.handle(now, PathEvent::Network { network, egress }) {
                    self.verdicts_changed(now);
                }
            }
            Work::Sockets(readings) => {
                self.paths.out.sockets = false;
                let mut changed = false;
                for (controller, reading) in readings {
                    let event = PathEvent::Sockets { controller, reading };
                    changed |= self.paths.paths.handle(now, event);
                }
                if changed {
                    self.verdicts_changed(now);
                }
            }
            Work::Io(readings) => {
                self.paths.out.io = false;
                let mut changed = false;
                for (controller, reading) in readings {
                    changed |= self.paths.paths.handle(now, PathEvent::Io { controller, reading });
                }
                if changed {
                    self.verdicts_changed(now);
                }
            }
            Work::Armed(done) => self.armed(done),
            Work::Support(off) => self.supported(off),
            Work::Rehearsed => {}
        }
    }

    fn armed(&mut self, done: Vec<(Arming, Outcome)>) {
        self.paths.out.armed = false;
        self.paths.armed_at = clock::moment();
        for (step, outcome) in done {
            let message = format!(
                "fast_io_fail_tmo of {} from {} to {}: {}: {outcome}",
                step.controller, step.shows, step.want, step.why
            );
            if outcome == Outcome::Changed {
                match step.want {
                    FastIoFail::After(_) => {
                        self.paths.ours.insert(step.controller.clone(), step.array);
                    }
                    FastIoFail::Off => drop(self.paths.ours.remove(&step.controller)),
                }
            }
            let severity = match outcome {
                Outcome::Changed | Outcome::AlreadySo => Severity::Notice,
                Outcome::Retry { .. } | Outcome::Refused(_) | Outcome::Unknown(_) => {
                    Severity::Warning
                }
            };
            let entry = AuditEntry {
                kind: AuditKind::PathArmed,
                severity,
                at: clock::now().wall,
                message,
                incident: None,
                action: None,
                slot: None,
                fields: vec![
                    ("CONTROLLER", step.controller.name.to_string()),
                    ("VERB", "set_fast_io_fail".to_owned()),
                    ("OUTCOME", outcome.to_string()),
                    ("RULE", step.why.to_string()),
                ],
            };
            self.setup.journal.send(Entry::audit(&entry, None));
        }
        self.looks.want(Hint { cause: LookCause::OwnAction, signalled_at: None });
        self.rehearse();
    }

    /// What was never run is slow the first time: everything between a sign and its act is run once
    /// while nothing is at stake. News that is none changes nothing in a machine.
    fn rehearse(&mut self) {
        let wards: Vec<ArrayId> = self.wards().into_keys().collect();
        for ward in &wards {
            if let Some(seat) = self.seats.get(ward) {
                seat.mailbox.paths(self.paths.news.clone(), clock::moment());
            }
        }
        let mut host = self.setup.host.clone();
        self.paths.work.spawn_blocking(move || {
            for ward in wards {
                host.rehearse(ward);
            }
            Work::Rehearsed
        });
    }

    /// Whether this kernel can isolate is known now, or differs from what was known.
    fn supported(&mut self, off: Option<String>) {
        let known = &self.shared.isolation_off;
        let mut held = known.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if *held == off {
            return;
        }
        match &off {
            Some(why) => tracing::warn!(why, "no leg is isolated on this kernel"),
            None => tracing::info!("this kernel can isolate legs"),
        }
        match &off {
            Some(why) => {
                self.alarms.insert("isolation", format!("isolation is off: {why}"));
            }
            None => {
                self.alarms.remove("isolation");
            }
        }
        *held = off;
        drop(held);
        for seat in self.seats.values() {
            seat.mailbox.configure(std::sync::Arc::clone(&self.setup.config));
        }
    }

    pub(super) fn paths_time_passed(&mut self) {
        if self.paths.paths.handle(clock::moment(), PathEvent::Tick) {
            self.verdicts_changed(clock::moment());
        } else if self.paths.cut_off_since.is_some() {
            self.publish(clock::moment());
        }
    }
}

fn arrays_of(cut_off: &CutOff) -> usize {
    match cut_off {
        CutOff::AllLegs { arrays } | CutOff::ManyArrays { arrays, .. } => arrays.len(),
    }
}

/// Every controller of a namespace, and where it leads.
fn controllers(snapshot: &HostSnapshot) -> BTreeMap<ControllerName, Portal> {
    let paths = snapshot.namespaces.iter().flat_map(|namespace| &namespace.paths);
    paths
        .filter_map(|path| match &path.portal {
            Observed::Known(portal) => Some((path.controller.clone(), portal.clone())),
            Observed::Unknown(_) => None,
        })
        .collect()
}
