//! The reactor: one task that owns every source of events, and decides nothing.
//!
//! ```text
//!   kernel hints ─┐                                 ┌─► mailbox ─► actor md127
//!   safety scan ──┼─► one look at a time ─► route ──┼─► mailbox ─► actor md126
//!   "look again" ─┘     (blocking thread)           └─► …
//!   actors' reports ─► budget, udev marks, status text
//!   operators ───────► the actor they mean
//!   systemd ◄──────── ready, status, watchdog: fed by this very loop
//! ```
//!
//! However many hints come, there is one look at a time, and what comes meanwhile asks for one
//! more. So an event storm costs looks back to back and nothing else, and the last look is always
//! newer than the last hint.
//!
//! **What a look does not show is gone only if everything could be read.** One array that could not
//! be read may be any of those that are missing, so then all of those are unknown.
//!
//! The price: every look reads the whole host and goes to every actor, although mostly one array
//! changed. Some hundred small files cost a few milliseconds.

mod cuts;
mod isolation;
mod looks;
mod marks;
mod paths;
mod rehearsal;
mod requests;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use heal_core::budget::{Budget, Storm};
use heal_core::{Look, LookCause};
use heal_host::clock;
use heal_host::connect_lock::ConnectLock;
use heal_provisioner::Provisioner;
use heal_provisioner::text::HumanDuration;
use heal_types::{Alias, ArrayId, BootId, DevT, HostSnapshot, Observed, UnknownWhy};
use tokio::sync::mpsc;
use tokio::task::{Id, JoinHandle, JoinSet};
use tokio::time::Instant;

use crate::actor::{Actor, Origin, Shared, sleep_until};
use crate::config::{self, Config, ConfigError, Loaded};
use crate::control::Inbound;
use crate::executor::{Board, Caller, Executor};
use crate::forward::Forwarder;
use crate::hints::{Counted, Hint, Told};
use crate::host::Host;
use crate::journal::Journal;
use crate::keeper::{Found, Home, Keeper};
use crate::mailbox::{Mailbox, Sight};
use crate::notify::{Notifier, status_line};
use crate::reaction::Reactions;
use crate::report::{Brief, Report, Said};
use looks::{Looked, Looks};
use marks::Marks;
use paths::PathWatch;

/// How long acts under way may take once the daemon is told to stop. systemd waits twenty seconds.
const STOP_LIMIT: Duration = Duration::from_secs(15);
/// And for legs to be disarmed.
const DISARM_LIMIT: Duration = Duration::from_secs(3);
/// How long the first look's actors may take before the daemon calls itself ready all the same.
const READY_LIMIT: Duration = Duration::from_secs(5);
/// How often to try to move the ledger to its durable place while it is not there.
const SETTLE_AGAIN: Duration = Duration::from_secs(10);

/// What the daemon is made of.
#[derive(Debug)]
pub(crate) struct Setup<H> {
    pub(crate) host: H,
    pub(crate) boot: BootId,
    pub(crate) config: Arc<Config>,
    pub(crate) config_path: PathBuf,
    pub(crate) journal: Journal,
    pub(crate) keeper: Keeper,
    /// What an earlier life left.
    pub(crate) found: Found,
    pub(crate) backend: Option<Arc<dyn Provisioner>>,
    pub(crate) counted: Counted,
}

/// Where the reactor hears from.
#[derive(Debug)]
pub(crate) struct Inboxes {
    pub(crate) told: mpsc::Receiver<Told>,
    pub(crate) requests: mpsc::Receiver<Inbound>,
    pub(crate) stale: mpsc::Receiver<()>,
    pub(crate) commands: mpsc::Receiver<Command>,
}

/// What a signal asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Command {
    /// End.
    Stop,
    /// Read the configuration again.
    Reload,
}

/// One array's place.
#[derive(Debug)]
struct Seat {
    mailbox: Mailbox,
    brief: Option<Brief>,
}

impl Seat {
    /// Whether the provisioner is known to have a volume for it.
    fn is_ours(&self) -> bool {
        self.brief.as_ref().is_some_and(|brief| !brief.managed.is_empty())
    }
}

/// The reactor.
#[derive(Debug)]
pub(crate) struct Reactor<H> {
    setup: Setup<H>,
    shared: Shared,
    reports: mpsc::UnboundedReceiver<Report>,
    seats: BTreeMap<ArrayId, Seat>,
    actors: JoinSet<ArrayId>,
    running: HashMap<Id, ArrayId>,
    snapshot: Option<Arc<HostSnapshot>>,
    looks: Looks,
    budget: Budget,
    marks: Marks,
    notifier: Notifier,
    ready_by: Option<Instant>,
    /// When to try to make the ledger durable; `None` when it is.
    settle_at: Option<Instant>,
    /// The attempt under way. Its disk may hang, and nobody waits for it.
    settling: Option<JoinHandle<Option<Home>>>,
    reloading: Option<JoinHandle<Result<Loaded, ConfigError>>>,
    alarms: BTreeMap<&'static str, String>,
    paths: PathWatch,
    board: Board,
}

impl<H: Host> Reactor<H> {
    pub(crate) fn new(setup: Setup<H>, durable: bool) -> Self {
        let (sender, reports) = mpsc::unbounded_channel();
        let limit = setup.config.provisioner_timeout.0;
        let shared = Shared {
            boot: setup.boot.clone(),
            journal: setup.journal.clone(),
            forwarder: Forwarder::start(setup.backend.as_ref(), limit),
            keeper: setup.keeper.clone(),
            reactions: Arc::new(Reactions::default()),
            reports: sender,
            isolation_off: Arc::new(Mutex::new(Some("the kernel was not asked yet".to_owned()))),
        };
        let board = Board::beside(ConnectLock::new(&setup.config.os_brick.lock_paths))
            .publishing(setup.backend.clone(), limit);
        let looks = Looks::new(setup.config.safety_scan());
        let budget = Budget::new(setup.config.limits());
        let mut reactor = Self {
            shared,
            reports,
            seats: BTreeMap::new(),
            actors: JoinSet::new(),
            running: HashMap::new(),
            snapshot: None,
            looks,
            budget,
            marks: Marks::default(),
            notifier: Notifier::new(),
            ready_by: None,
            settle_at: (!durable).then(Instant::now),
            settling: None,
            reloading: None,
            alarms: BTreeMap::new(),
            paths: PathWatch::new(&setup.config, board.clone()),
            board,
            setup,
        };
        reactor.say_durable(durable);
        reactor
    }

    /// Runs until told to stop, and until everything under way has ended.
    pub(crate) async fn run(mut self, mut inboxes: Inboxes) {
        for (array, record) in std::mem::take(&mut self.setup.found) {
            self.seat(array, None, origin(record));
        }
        self.looks.want(Hint { cause: LookCause::Start, signalled_at: None });
        loop {
            if self.board.hurried().is_none() {
                self.begin_look();
                self.begin_path_work();
            }
            self.notifier.turn(!self.looks.is_stuck());
            let deadline = self.deadline();
            tokio::select! {
                biased;
                command = inboxes.commands.recv() => match command {
                    Some(Command::Stop) | None => break,
                    Some(Command::Reload) => self.reload(),
                },
                Some(told) = inboxes.told.recv() => {
                    let mut published = self.told(told);
                    while !published && let Ok(told) = inboxes.told.try_recv() {
                        published = self.told(told);
                    }
                    // Before anything else is begun or heard, actors do what it asks of them.
                    tokio::task::yield_now().await;
                }
                Some(work) = self.paths.ended() => self.path_work(work),
                looked = self.looks.ended() => {
                    while let Ok(told) = inboxes.told.try_recv() {
                        self.told(told);
                    }
                    if let Some(mut looked) = looked {
                        self.looks.belongs_to(&mut looked);
                        self.looked(looked);
                    }
                }
                Some(report) = self.reports.recv() => self.heard(report),
                Some(request) = inboxes.requests.recv() => self.requested(request),
                Some(()) = inboxes.stale.recv() => self.volumes_stale(),
                Some(ended) = self.actors.join_next_with_id() => match ended {
                    Ok((task, _)) => {
                        self.running.remove(&task);
                    }
                    Err(error) => self.actor_broke_off(&error),
                },
                loaded = reload_ended(&mut self.reloading) => self.reloaded(loaded),
                home = settle_ended(&mut self.settling) => self.ledger_settled(home),
                () = sleep_until(deadline) => self.time_passed(),
            }
        }
        self.stop().await;
    }

    /// Gives `array` an actor.
    fn seat(&mut self, array: ArrayId, alias: Option<Alias>, origin: Origin) {
        let mailbox = Mailbox::default();
        let reports = self.shared.reports.clone();
        let host = self.setup.host.clone();
        let board = self.board.clone();
        let executor = Executor::start(host, array, board, mailbox.clone(), reports);
        let limit = self.setup.config.provisioner_timeout.0;
        let caller = Caller::start(self.setup.backend.clone(), limit, mailbox.clone());
        let (actor, opening) = Actor::new(
            array,
            alias,
            origin,
            Arc::clone(&self.setup.config),
            self.shared.clone(),
            mailbox.clone(),
            (executor, caller),
        );
        let life = async move {
            actor.run(opening).await;
            array
        };
        let handle = self.actors.spawn(life);
        self.running.insert(handle.id(), array);
        let seat = Seat { mailbox, brief: None };
        self.seats.insert(array, seat);
    }

    fn begin_look(&mut self) {
        if self.looks.is_due() {
            let mut host = self.setup.host.clone();
            self.looks.begin(move || host.look());
        }
    }

    /// Answers whether it was news of a path.
    fn told(&mut self, told: Told) -> bool {
        let published = told.sign.is_some_and(|sign| self.signed(sign));
        if told.rewired {
            self.paths.rewire();
        }
        if let Some(hint) = told.hint {
            self.looks.want(hint);
        }
        published
    }

    fn looked(&mut self, mut looked: Looked) {
        let first = self.snapshot.is_none();
        self.saw_paths(Arc::make_mut(&mut looked.snapshot), looked.begun);
        self.snapshot = Some(Arc::clone(&looked.snapshot));
        // The verdicts go out first: an actor that acts at once must find them on the board.
        self.publish(clock::moment());
        let mut counts: BTreeMap<ArrayId, usize> = BTreeMap::new();
        for array in &looked.snapshot.arrays {
            *counts.entry(array.id).or_default() += 1;
            if !self.seats.contains_key(&array.id) {
                self.seat(array.id, array.alias.clone(), Origin::Fresh);
            }
        }
        self.say_twins(&counts);
        for (id, seat) in &self.seats {
            seat.mailbox.look(Sight {
                look: Box::new(Look {
                    array: shown(&looked.snapshot, *id, counts.get(id).copied().unwrap_or(0)),
                    namespaces: looked.snapshot.namespaces.clone(),
                    subsystems: looked.snapshot.subsystems(),
                    cause: looked.cause.clone(),
                }),
                begun: looked.begun,
                signalled_at: looked.signalled_at,
            });
        }
        if looks::is_unfilled(&looked.snapshot) {
            self.looks.want_filled();
        }
        if first {
            self.ready_by = Some(Instant::now() + READY_LIMIT);
        }
        self.refresh();
    }

    fn heard(&mut self, report: Report) {
        let Report { array, said } = report;
        let now = clock::moment();
        match said {
            Said::Brief(brief) => {
                if let Some(seat) = self.seats.get_mut(&array) {
                    seat.brief = Some(brief);
                }
                self.wards_changed();
                self.refresh();
            }
            Said::IncidentOpened => {
                if let Some(storm) = self.budget.degraded(now, array) {
                    self.storm(storm);
                }
            }
            Said::AskPermit => {
                let given = self.budget.ask(now, array);
                self.permit(&given);
            }
            Said::ReturnPermit => {
                let given = self.budget.give_back(now, array);
                self.permit(&given);
            }
            Said::LookAgain => self.looks.want_again(),
            Said::Acted => {
                self.looks.want(Hint { cause: LookCause::OwnAction, signalled_at: None });
            }
            Said::Finished => {
                self.seats.remove(&array);
                let seen = |snapshot: &Arc<HostSnapshot>| {
                    snapshot.arrays.iter().any(|there| there.id == array)
                };
                if self.snapshot.as_ref().is_some_and(seen) {
                    // It came back while its actor ended: the next look gives it a new one.
                    self.looks.want_again();
                }
                let given = self.budget.give_back(now, array);
                self.permit(&given);
                self.refresh();
            }
        }
    }

    fn permit(&self, given: &[ArrayId]) {
        for array in given {
            if let Some(seat) = self.seats.get(array) {
                seat.mailbox.permitted();
            }
        }
    }

    fn storm(&mut self, storm: Storm) {
        let window = HumanDuration(self.setup.config.limits().storm_window);
        let message = format!(
            "{} arrays of this host lost a leg within {window}: probably the network or a target, \
             not the disks",
            storm.arrays
        );
        if self.is_cut_off() {
            // One alarm for one cause; status shows what it led to.
            self.alarms.insert("storm", message);
        } else {
            self.alarm("storm", message, format!("{} arrays within {window}", storm.arrays));
        }
    }

    fn volumes_stale(&self) {
        for seat in self.seats.values() {
            seat.mailbox.volume_stale();
        }
    }

    /// Marks, status text and readiness follow what actors said last.
    fn refresh(&mut self) {
        let briefs = || self.seats.values().map(|seat| seat.brief.as_ref());
        let managed: BTreeSet<DevT> =
            briefs().flatten().flat_map(|brief| brief.managed.iter().copied()).collect();
        self.notifier.status(status_line(briefs()));
        if self.ready_by.is_some() && briefs().all(|brief| brief.is_some()) {
            self.ready_by = None;
            self.notifier.ready();
        }
        self.mark(&managed);
    }

    /// Tells udev which legs it must leave alone.
    fn mark(&mut self, managed: &BTreeSet<DevT>) {
        let Some(snapshot) = &self.snapshot else { return };
        let present = snapshot.namespaces.iter().map(|namespace| namespace.dev).collect();
        if let Some(marks) = self.marks.update(Instant::now(), managed, &present) {
            self.setup.host.mark_managed(&marks);
        }
    }

    /// An actor's task ended with a panic: that array alone is quarantined.
    fn actor_broke_off(&mut self, error: &tokio::task::JoinError) {
        let Some(array) = self.running.remove(&error.id()) else {
            return;
        };
        tracing::error!(%array, %error, "an array's actor broke off; the array is quarantined");
        let given = self.budget.give_back(clock::moment(), array);
        self.permit(&given);
        self.seat(array, None, Origin::Unreadable(format!("its actor broke off: {error}")));
        self.looks.want_again();
    }

    fn deadline(&self) -> Option<Instant> {
        let budget =
            self.budget.next_deadline().map(|at| Instant::now() + at.since(clock::moment()));
        let own = [
            self.looks.deadline(),
            self.notifier.deadline(),
            self.marks.deadline(),
            self.paths.deadline(),
        ];
        let due = own.into_iter().chain([self.ready_by, self.settle_at, budget]).flatten().min();
        // What is due is not begun while somebody is in a hurry.
        let held = self.board.hurried().map(|until| Instant::now() + until.since(clock::moment()));
        due.into_iter().chain(held).max()
    }

    fn time_passed(&mut self) {
        let now = Instant::now();
        if self.looks.time_passed(now) {
            self.paths.rewire(); // A link may have come back unheard of, like anything else.
        }
        self.paths_time_passed();
        if self.marks.deadline().is_some_and(|at| at <= now) {
            self.refresh();
        }
        if self.ready_by.is_some_and(|at| at <= now) {
            self.ready_by = None;
            self.notifier.ready();
        }
        let moment = clock::moment();
        if self.budget.next_deadline().is_some_and(|at| at <= moment) {
            let given = self.budget.wake(moment);
            self.permit(&given);
            if !self.budget.is_storm() {
                self.alarms.remove("storm");
            }
        }
        if self.settle_at.is_some_and(|at| at <= now) {
            // `/var` may be there by now.
            self.settle_at = None;
            self.settling = Some(tokio::spawn(self.setup.keeper.clone().settle()));
        }
    }

    fn ledger_settled(&mut self, home: Option<Home>) {
        self.settling = None;
        match home {
            Some(Home::Durable { late }) => {
                self.say_durable(true);
                for (array, record) in late {
                    match self.seats.get(&array) {
                        Some(seat) => seat.mailbox.recover(record),
                        None => self.seat(array, None, origin(record)),
                    }
                }
                self.looks.want_again();
            }
            Some(Home::NotDurable) | None => self.settle_at = Some(Instant::now() + SETTLE_AGAIN),
        }
    }

    fn say_durable(&mut self, durable: bool) {
        if durable {
            if self.alarms.remove("ledger").is_some() {
                tracing::info!("the ledger is durable now");
            }
        } else {
            let path = self.setup.config.state_dir.display();
            let text = format!("{path} takes no files: intents survive a restart, but no reboot");
            self.alarms.insert("ledger", text);
        }
    }

    /// Two arrays with one UUID: no one can say which of them is meant.
    fn say_twins(&mut self, counts: &BTreeMap<ArrayId, usize>) {
        match counts.iter().find(|(_, count)| **count > 1) {
            Some((id, count)) => {
                let text = format!("{count} running arrays have the UUID {id}: none is touched");
                if self.alarms.insert("twins", text.clone()).as_ref() != Some(&text) {
                    tracing::error!(array = %id, count, "arrays with one UUID: none is touched");
                }
            }
            None => {
                self.alarms.remove("twins");
            }
        }
    }

    fn reload(&mut self) {
        let path = self.setup.config_path.clone();
        self.reloading = Some(tokio::task::spawn_blocking(move || config::load(&path)));
    }

    /// Takes up what can be taken up in a running daemon, and says what cannot.
    fn reloaded(&mut self, loaded: Result<Loaded, ConfigError>) {
        self.reloading = None;
        let loaded = match loaded {
            Ok(loaded) => loaded,
            Err(error) => {
                let error = crate::keeper::chain(&error);
                tracing::error!(error, "the configuration is not taken up; the old one stays");
                self.alarms.insert("config", format!("not taken up: {error}"));
                return;
            }
        };
        self.alarms.remove("config");
        for warning in &loaded.warnings {
            tracing::warn!("{warning}");
        }
        let restart = self.setup.config.needs_restart(&loaded.config);
        let config = Arc::new(self.setup.config.taking_up(loaded.config));
        if !restart.is_empty() {
            let options = restart.join(", ");
            tracing::warn!(options, "these options change with the next restart");
        }
        tracing::info!("the configuration was read again");
        for seat in self.seats.values() {
            seat.mailbox.configure(Arc::clone(&config));
        }
        self.setup.config = config;
        self.reconfigure_paths();
    }

    async fn stop(mut self) {
        self.notifier.stopping();
        tracing::info!("stopping; arrays and connections stay as they are");
        for seat in self.seats.values() {
            seat.mailbox.stop();
        }
        let all = async { while self.actors.join_next().await.is_some() {} };
        if tokio::time::timeout(STOP_LIMIT, all).await.is_err() {
            tracing::warn!("acts are still under way; the next start takes them up");
        }
        // Whose arrays are healed, and what on them is armed by us with that, may have come with
        // the stop.
        while let Ok(report) = self.reports.try_recv() {
            self.heard(report);
        }
        if tokio::time::timeout(DISARM_LIMIT, self.disarm()).await.is_err() {
            tracing::warn!("legs may still be armed, and nobody watches which of them is the last");
        }
    }
}

fn origin(record: Result<heal_core::record::ArrayRecord, String>) -> Origin {
    match record {
        Ok(record) => Origin::Record(Box::new(record)),
        Err(detail) => Origin::Unreadable(detail),
    }
}

/// What `snapshot` says about the array `id`, of which it shows `count`.
fn shown(
    snapshot: &HostSnapshot,
    id: ArrayId,
    count: usize,
) -> Observed<Option<heal_types::ArraySnapshot>> {
    match count {
        0 if snapshot.unreadable.is_empty() => Observed::Known(None),
        0 => Observed::Unknown(UnknownWhy::ReadFailed),
        1 => Observed::Known(snapshot.arrays.iter().find(|array| array.id == id).cloned()),
        _ => Observed::Unknown(UnknownWhy::Malformed),
    }
}

async fn reload_ended(
    reloading: &mut Option<JoinHandle<Result<Loaded, ConfigError>>>,
) -> Result<Loaded, ConfigError> {
    let Some(handle) = reloading else {
        return std::future::pending().await;
    };
    match handle.await {
        Ok(loaded) => loaded,
        Err(error) => Err(ConfigError::Syntax(format!("reading it broke off: {error}"))),
    }
}

async fn settle_ended(settling: &mut Option<JoinHandle<Option<Home>>>) -> Option<Home> {
    match settling {
        Some(handle) => handle.await.unwrap_or(None),
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests;
