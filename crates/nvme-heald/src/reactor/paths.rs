//! The reactor's paths: who is asked when, who hears the verdicts, which controllers are armed.
//!
//! ```text
//!   signs (links, connects, kernel log) ─┐
//!   looks ───────────────────────────────┼─► Paths ─► verdicts changed ─► Board, every actor
//!   readings (sockets, I/O), on a timer ─┘                            └─► arming::plan ─► host
//! ```
//!
//! A sign is worked off where it is heard, on the reactor's own task: between a carrier that is
//! lost and the actor that has to decide there is one message and no look. What takes a thread that
//! may block (the network's picture, sockets, I/O, arming) is asked for here and comes back as
//! news.
//!
//! Sockets are read every 200 ms while a suspicion is open, and for no longer. How far I/O has come
//! is read every second while an array has legs of ours: of a target that swallows everything
//! nothing else speaks before the keep-alive.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use heal_core::arming::{self, Armed, Arming, LostLeg, Ward};
use heal_core::audit::{AuditEntry, AuditKind, Severity};
use heal_core::cuts::{Cut, Cuts};
use heal_core::paths::{CutOff, Limits, PathEvent, Paths, Seen};
use heal_core::{LookCause, PathNews};
use heal_host::clock;
use heal_types::{
    ArrayId, ControllerName, ControllerRef, FastIoFail, HostAction, HostAnswer, HostSnapshot,
    IoReading, LegSnapshot, Moment, Observed, Outcome, PathDoubt, PathHealth, PathSnapshot, Portal,
    SocketReading,
};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::Reactor;
use super::isolation::Answered;
use super::rehearsal::Rehearsed;
use crate::config::Config;
use crate::executor::Board;
use crate::hints::{Hint, Sign};
use crate::host::{Host, Isolation, Wiring};
use crate::journal::Entry;

/// How often sockets are read while a suspicion is open.
const SOCKETS: Duration = Duration::from_millis(200);
/// How often I/O is read while there are legs of ours.
const IO: Duration = Duration::from_secs(1);
/// When to read the network again after it could not be read.
const REWIRE_AGAIN: Duration = Duration::from_secs(2);
/// All legs of an array in doubt are the host's own trouble for this long; later it is that
/// array's.
const CUT_OFF: Duration = Duration::from_secs(30);
/// One alarm for one outage.
const ALARM_AGAIN: Duration = Duration::from_secs(60);
/// How often to look while a target lets no I/O through: that it does again has no event.
const ANA: Duration = Duration::from_secs(2);

/// What came of a question that takes a thread.
#[derive(Debug)]
pub(super) enum Work {
    Wired(Option<Wiring>),
    Sockets(Vec<(ControllerName, Option<SocketReading>)>),
    Io(Vec<(ControllerName, IoReading)>),
    Armed(Vec<(Arming, Outcome)>),
    Cut(Vec<(Cut, HostAnswer)>),
    Isolation(Isolation),
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
    pub(super) paths: Paths,
    pub(super) board: Board,
    pub(super) news: PathNews,
    pub(super) work: JoinSet<Work>,
    out: Out,
    rewire: bool,
    rewire_at: Option<Instant>,
    sockets_at: Option<Instant>,
    io_at: Option<Instant>,
    /// Looks that began before this moment show controllers as they were before they were armed.
    armed_at: Moment,
    /// Something changed that the plan of arming rests on.
    replan: bool,
    /// What could not be armed, and was said: it is tried again without a word.
    refused: BTreeMap<ControllerRef, (FastIoFail, Outcome)>,
    armed: Armed,
    /// Since when each array has no leg that anything gets through to.
    without_legs: BTreeMap<ArrayId, Moment>,
    /// What the last judgement was.
    cut_off: Option<CutOff>,
    alarmed_at: Option<Moment>,
    pub(super) isolation: Answered,
    ana_at: Option<Instant>,
    pub(super) cuts: Cuts,
    pub(super) cut_at: Option<Moment>,
    pub(super) controllers: BTreeMap<ControllerName, Portal>,
    pub(super) rehearsed: Rehearsed,
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
            refused: BTreeMap::new(),
            armed: Armed::default(),
            without_legs: BTreeMap::new(),
            cut_off: None,
            alarmed_at: None,
            isolation: Answered::default(),
            ana_at: None,
            cuts: Cuts::default(),
            cut_at: None,
            controllers: BTreeMap::new(),
            rehearsed: Rehearsed::default(),
        }
    }

    /// The network changed: read it again.
    pub(super) fn rewire(&mut self) {
        self.rewire = true;
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        let now = clock::moment();
        let expiries = self.without_legs.values().map(|since| since.after(CUT_OFF));
        let expiry = expiries.filter(|at| *at > now).min();
        let rehearsal = self.rehearsed.deadline();
        let let_go = self.armed.next_deadline();
        let moments = [self.paths.next_deadline(), expiry, self.cut_at, rehearsal, let_go];
        let moments = moments.into_iter().flatten();
        let moments = moments.map(|at| Instant::now() + at.since(now));
        let own = [self.rewire_at, self.sockets_at, self.io_at, self.isolation.ask_at, self.ana_at];
        own.into_iter().flatten().chain(moments).min()
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
    /// News of a path, if anything follows from it. It goes to the actors before anything else is
    /// done.
    pub(super) fn signed(&mut self, sign: Sign) -> bool {
        let changed = self.paths.paths.handle(clock::moment(), sign.event);
        if changed {
            self.verdicts_changed(sign.at);
        }
        changed
    }

    /// Takes the verdicts in, and puts them into what was just seen.
    pub(super) fn saw_paths(&mut self, snapshot: &mut HostSnapshot, begun: Moment) {
        self.paths.paths.handle(clock::moment(), PathEvent::Looked(Seen::whole(snapshot)));
        self.paths.paths.annotate(snapshot);
        let controllers = controllers(snapshot);
        if controllers != self.paths.controllers {
            let before = std::mem::replace(&mut self.paths.controllers, controllers);
            self.paths.rewire = true;
            self.fabrics_changed(before.is_empty());
        }
        self.paths.armed.inherit(snapshot, &self.healed());
        if begun >= self.paths.armed_at {
            self.paths.replan = true;
        }
    }

    /// The arrays that are ours to act on, and the legs they lost.
    fn healed(&self) -> BTreeMap<ArrayId, Vec<LostLeg>> {
        let seats = self.seats.iter();
        let healed = seats.filter_map(|(array, seat)| {
            let lost = seat.brief.as_ref()?.lost_of_ours.clone()?;
            Some((*array, lost))
        });
        healed.collect()
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
        let cut_off = self.judge_cut_off(&snapshot);
        let news = PathNews::of(&snapshot, cut_off, &self.paths.news);
        if news == self.paths.news {
            return;
        }
        self.paths.board.set(news.clone());
        // Who has a path in doubt hears it first: somebody's write may be waiting there.
        let (concerned, others): (Vec<ArrayId>, Vec<ArrayId>) =
            self.seats.keys().partition(|array| news.concerns(&snapshot, **array));
        for seat in concerned.iter().chain(&others).filter_map(|array| self.seats.get(array)) {
            seat.mailbox.paths(news.clone(), heard_at);
        }
        self.paths.news = news;
        self.rehearse_waiting(&concerned, heard_at);
    }

    /// Whether the host is cut off, as machines are to hear it: one alarm for the whole host. An
    /// array that lost everything long ago is that array's trouble and says nothing of the host any
    /// more.
    fn judge_cut_off(&mut self, snapshot: &HostSnapshot) -> Option<String> {
        let now = clock::moment();
        let mut wards: BTreeSet<ArrayId> = self.wards().into_keys().collect();
        let of_all = self.paths.paths.cut_off(snapshot, &wards, self.paths.cut_off.as_ref());
        self.paths.cut_off.clone_from(&of_all);
        let without: &[ArrayId] = match &of_all {
            Some(CutOff::AllLegs { arrays }) => arrays,
            Some(CutOff::ManyArrays { .. }) | None => &[],
        };
        self.paths.without_legs.retain(|array, _| without.contains(array));
        for array in without {
            self.paths.without_legs.entry(*array).or_insert(now);
        }
        let old = |array: &ArrayId| {
            let since = self.paths.without_legs.get(array);
            since.is_some_and(|since| now.since(*since) >= CUT_OFF)
        };
        let fresh = match &of_all {
            Some(_) => {
                wards.retain(|array| !old(array));
                let fresh = self.paths.paths.cut_off(snapshot, &wards, of_all.as_ref());
                fresh.map(|cut_off| cut_off.reason())
            }
            // With fewer arrays there is even less.
            None => None,
        };
        let Some(of_all) = of_all else {
            if self.alarms.remove("cut_off").is_some() {
                tracing::info!("the host is no longer cut off");
            }
            return fresh;
        };
        let text = format!("the host is cut off: {of_all}; nothing is isolated");
        let recently = |at: Moment| now.since(at) < ALARM_AGAIN;
        if self.alarms.contains_key("cut_off") || self.paths.alarmed_at.is_some_and(recently) {
            // A fabric that comes back does so path by path.
            self.alarms.insert("cut_off", text);
        } else {
            self.paths.alarmed_at = Some(now);
            self.alarm("cut_off", text, format!("{} arrays", of_all.arrays().len()));
        }
        fresh
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
    pub(super) fn wards(&self) -> BTreeMap<ArrayId, Ward> {
        if self.is_isolation_off() {
            return BTreeMap::new();
        }
        let fast_io_fail = self.setup.config.isolation.fast_io_fail.0.as_secs();
        let fast_io_fail = u32::try_from(fast_io_fail).unwrap_or(1);
        let isolates_after = |seat: &super::Seat| seat.brief.as_ref()?.isolates_after;
        self.seats
            .iter()
            .filter_map(|(array, seat)| Some((*array, isolates_after(seat)?)))
            .map(|(array, isolate_after)| (array, Ward { fast_io_fail, isolate_after }))
            .collect()
    }

    /// An array became a ward, or is none any more.
    pub(super) fn wards_changed(&mut self) {
        // Of a quarantined array it may show only now that what is armed on it is our doing.
        let healed = self.healed();
        if let Some(snapshot) = &self.snapshot {
            self.paths.armed.inherit(snapshot, &healed);
        }
        self.paths.replan = true;
    }

    /// The configuration was read again.
    pub(super) fn reconfigure_paths(&mut self) {
        self.paths.paths.set_limits(limits(&self.setup.config));
        self.paths.replan = true;
    }

    /// Begins whatever is due and not under way.
    pub(super) fn begin_path_work(&mut self) {
        let now = Instant::now();
        let due = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        self.cut_paths();
        self.rehearse_due();
        if (self.paths.rewire || due(self.paths.rewire_at)) && !self.paths.out.wired {
            self.ask_wiring();
        }
        let watched = self.paths.paths.watched_sockets();
        match (watched.is_empty(), self.paths.sockets_at) {
            (true, _) => self.paths.sockets_at = None,
            (false, None) => self.paths.sockets_at = Some(now + SOCKETS),
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
            self.rehearse_next();
        }
        if due(self.paths.isolation.ask_at) {
            self.ask_isolation();
        }
        let closed = |health: &PathHealth| health.doubt() == Some(PathDoubt::AnaInaccessible);
        match (self.paths.news.verdicts.values().any(closed), self.paths.ana_at) {
            (false, _) => self.paths.ana_at = None,
            (true, None) => self.paths.ana_at = Some(now + ANA),
            (true, Some(at)) if at <= now => {
                self.paths.ana_at = Some(now + ANA);
                self.looks.want(Hint { cause: LookCause::Asked, signalled_at: None });
            }
            (true, Some(_)) => {}
        }
        self.paths.replan |= self.paths.armed.is_time(clock::moment());
        if self.paths.replan && !self.paths.out.armed {
            self.paths.replan = false;
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
        plan.extend(self.paths.armed.due(clock::moment(), &snapshot, &wards));
        if plan.is_empty() {
            return;
        }
        self.paths.out.armed = true;
        let mut host = self.setup.host.clone();
        let (board, planned_on) = (self.paths.board.clone(), self.paths.news.clone());
        self.paths.work.spawn_blocking(move || {
            let mut done = Vec::new();
            let mut failed = BTreeSet::new();
            for step in plan {
                let array = step.array;
                if failed.contains(&array) {
                    continue;
                }
                // A verdict that came since may have moved the anchor: then nothing more is armed.
                if step.want != FastIoFail::Off && board.news() != planned_on {
                    break;
                }
                let (controller, value) = (step.controller.clone(), step.want);
                let answer = host.act(&HostAction::SetFastIoFail { controller, value });
                let is_so = matches!(answer.outcome, Outcome::Changed | Outcome::AlreadySo);
                done.push((step, answer.outcome));
                if !is_so {
                    failed.insert(array); // What comes after it for this array may rest on it.
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
            Work::Cut(done) => self.cut(done),
            Work::Isolation(answer) => self.isolation_answered(answer),
        }
    }

    fn armed(&mut self, done: Vec<(Arming, Outcome)>) {
        self.paths.out.armed = false;
        self.paths.armed_at = clock::moment();
        let changed = done.iter().any(|(_, outcome)| *outcome == Outcome::Changed);
        self.tell_armed(done);
        if changed {
            self.looks.want(Hint { cause: LookCause::OwnAction, signalled_at: None });
        } else {
            self.looks.want_again(); // Later each time: it may fail the same way again.
        }
        if self.paths.news.verdicts.is_empty() {
            self.rehearse_all();
        }
    }

    /// Nobody moves an anchor while no daemon runs, and an armed leg may become the last one: what
    /// is well, or leads to no leg, goes back to the kernel's default. A leg in trouble keeps what
    /// frees its I/O.
    pub(super) async fn disarm(&mut self) {
        while self.paths.out.armed {
            if let Some(work) = self.paths.ended().await {
                self.path_work(work);
            }
        }
        let Some(snapshot) = self.snapshot.clone() else { return };
        let mut plan = self.paths.armed.released(&snapshot, &BTreeMap::new());
        let legs = snapshot.arrays.iter().flat_map(|array| &array.legs);
        let namespaces = legs.filter_map(|leg| Some((leg, leg.backing.namespace()?)));
        let (well, in_trouble): (Vec<_>, Vec<_>) = namespaces
            .flat_map(|(leg, namespace)| namespace.paths.iter().map(move |path| (leg, path)))
            .partition(|(leg, path)| leg.is_in_sync() && path.is_usable());
        let behind = |paths: &[(&LegSnapshot, &PathSnapshot)], controller: &ControllerName| {
            paths.iter().any(|(_, path)| path.controller == *controller)
        };
        plan.retain(|Arming { controller, .. }| {
            behind(&well, &controller.name) || !behind(&in_trouble, &controller.name)
        });
        let mut host = self.setup.host.clone();
        let disarmed = tokio::task::spawn_blocking(move || {
            let disarm = |step: Arming| {
                let (controller, value) = (step.controller.clone(), step.want);
                let answer = host.act(&HostAction::SetFastIoFail { controller, value });
                (step, answer.outcome)
            };
            plan.into_iter().map(disarm).collect()
        });
        match disarmed.await {
            Ok(done) => self.tell_armed(done),
            Err(error) => tracing::error!(%error, "the disarming broke off"),
        }
    }

    fn tell_armed(&mut self, done: Vec<(Arming, Outcome)>) {
        for (step, outcome) in done {
            let message = format!(
                "fast_io_fail_tmo of {} from {} to {}: {}: {outcome}",
                step.controller, step.shows, step.want, step.why
            );
            if outcome == Outcome::Changed {
                self.show_armed(&step);
                self.paths.armed.wrote(&step);
            }
            let severity = match outcome {
                Outcome::Changed => {
                    self.paths.refused.remove(&step.controller);
                    Severity::Notice
                }
                // The plan was older than the write that made it so, which was told.
                Outcome::AlreadySo => continue,
                Outcome::Retry { .. } | Outcome::Refused(_) | Outcome::Unknown(_) => {
                    let now = (step.want, outcome.clone());
                    if self.paths.refused.insert(step.controller.clone(), now.clone()) == Some(now)
                    {
                        continue;
                    }
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
    }

    /// The last look is older than what was just written: a stop before the next one rests on it.
    fn show_armed(&mut self, step: &Arming) {
        let Some(snapshot) = &mut self.snapshot else { return };
        let HostSnapshot { arrays, controllers, .. } = std::sync::Arc::make_mut(snapshot);
        for controller in controllers.iter_mut().filter(|it| it.name == step.controller.name) {
            controller.fast_io_fail = Observed::Known(step.want);
        }
        let legs = arrays.iter_mut().flat_map(|array| &mut array.legs);
        let paths =
            legs.filter_map(|leg| leg.backing.namespace_mut()).flat_map(|space| &mut space.paths);
        for path in paths.filter(|path| path.controller == step.controller.name) {
            path.fast_io_fail = Observed::Known(step.want);
        }
    }

    pub(super) fn paths_time_passed(&mut self) {
        if self.paths.paths.handle(clock::moment(), PathEvent::Tick) {
            self.verdicts_changed(clock::moment());
        } else if !self.paths.without_legs.is_empty() {
            self.publish(clock::moment());
        }
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
