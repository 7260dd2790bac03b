//! A whole world as a value: kernel, provisioner, clocks, the ledger's disk, and the daemon's
//! machines, driven one due thing at a time.
//!
//! ```text
//!            ┌──────────── step(): advance to whatever is due first ────────────┐
//!            ▼                                                                  │
//!   FakeKernel ── signals ─► look ─┐                                            │
//!        └────── signs ─► Paths ─┤                                            │
//!   answers that are under way ────┼─► Event ─► ArrayMachine ─► Outbox          │
//!   deadlines of machines ── tick ─┘               record ─► disk  (durable)    │
//!                                                  audit  ─► transcript         │
//!                                                  effects ─► guards ─► act ────┘
//! ```
//!
//! The world does exactly what the daemon does, in the same order: it makes the record durable,
//! then writes the audit, then carries effects out; it refuses an act without a durable intent; it
//! takes a fresh look and asks the guards again right before an act. A crash is an event like
//! another: everything in memory goes, the disk stays. After every step the invariants are checked
//! ([`crate::invariants`]); what they find is kept in [`World::violations`].
//!
//! There is no clock and no randomness in here: the same setup and the same faults give the same
//! story, so a story can be compared with a golden file and a failure can be run again.
//!
//! The price: acts take effect at their beginning and answer at their end, so a fault *within* an
//! act is only told by [`crate::kernel::ToolFault`].

mod carry;
mod faults;
pub mod feed;
mod hands;
pub mod ledger;
mod paths;
pub mod setup;
pub mod state;
pub mod transcript;

use std::collections::BTreeMap;
use std::time::Duration;

use heal_core::arming::Arming;
use heal_core::budget::Budget;
use heal_core::guards::Footing;
use heal_core::paths::PathEvent;
use heal_core::record::{ArrayRecord, Step};
use heal_core::why::{HeldWhy, QuarantinedWhy};
use heal_core::{ArrayMachine, EffectId, Event, Look, LookCause, Mode, PathNews, Policy};
use heal_types::{
    ArrayId, BootId, ControllerName, DeviceName, HostAction, HostAnswer, HostPort, Moment, Now,
    Observed, ProvisionerAnswer, ProvisionerFault, UnknownWhy, WallTime,
};

use crate::hunt::coverage::Edges;
use crate::invariants::{self, Checker, Violation};
use crate::kernel::{Blur, FakeKernel, KernelSignal};
use crate::provisioner::FakeProvisioner;
use feed::{Feed, Heard};
use ledger::{File, LedgerDisk};
use paths::Watch;
use setup::{ArrayPlan, Builder, Setup};
use transcript::{LineKind, Transcript};

/// How long after its cause a look is taken.
const LOOK_LATENCY: Duration = Duration::from_millis(1);
/// How soon a machine that asked for another look gets one, and how late at the most: each comes
/// later than the one before, until something happens.
const LOOK_AGAIN: Duration = Duration::from_millis(50);
const LOOK_AGAIN_MAX: Duration = Duration::from_secs(2);
/// How long a crashed daemon takes to be started again.
const RESTART: Duration = Duration::from_secs(1);
/// More events than this at one moment mean that a machine talks to itself.
const SPINS: u32 = 500;

/// Something that is under way and due at a moment.
#[derive(Debug, Clone)]
struct Queued {
    due: Moment,
    order: u64,
    what: What,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum What {
    Look(LookCause),
    Acted(ArrayId, EffectId, HostAnswer),
    Answered(ArrayId, EffectId, Result<ProvisionerAnswer, ProvisionerFault>),
    Sign(PathEvent),
    Wiring,
    Arm(Vec<Arming>, Box<PathNews>),
    Do(Box<Decided>),
}

/// An act whose record is durable, and that has not begun.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Decided {
    array: ArrayId,
    id: EffectId,
    action: HostAction,
    footing: Footing,
}

/// The world. See the module's head.
#[derive(Debug, Clone)]
pub struct World {
    /// The kernel.
    pub kernel: FakeKernel,
    /// The provisioner.
    pub provisioner: FakeProvisioner,
    /// The story so far.
    pub transcript: Transcript,
    pub(crate) now: Now,
    pub(crate) arrays: Vec<ArrayPlan>,
    pub(crate) policy: Policy,
    /// What was made durable.
    pub(crate) disk: LedgerDisk,
    pub(crate) machines: BTreeMap<ArrayId, ArrayMachine>,
    pub(crate) checker: Checker,
    pub(crate) feed: Feed,
    pub(crate) boot: BootId,
    limits: heal_core::budget::Limits,
    budget: Budget,
    queue: Vec<Queued>,
    order: u64,
    crash_at: Option<usize>,
    boundaries: usize,
    /// When the daemon is started again; `None` while it runs.
    pub(crate) restart_at: Option<Moment>,
    safety_scan: Option<Duration>,
    next_scan: Option<Moment>,
    pictures: BTreeMap<ArrayId, String>,
    watch: Watch,
    /// Records that should be on the disk of the ledger and are not.
    unsaved: BTreeMap<ArrayId, ArrayRecord>,
    /// When they are tried again.
    save_at: Option<Moment>,
    /// What the last look saw wrongly.
    pub(crate) blurred: Vec<Blur>,
    /// Devices whose attributes it could not read.
    pub(crate) nameless: Vec<DeviceName>,
    /// Until when readers see something wrongly.
    blurred_until: Option<Moment>,
    /// How long after it was decided an act begins.
    pub(crate) act_delay: Duration,
    /// How long the next look that a machine asks for takes to come.
    look_again: Duration,
    spins: (Moment, u32),
}

impl World {
    /// A world as `setup` says, with the daemon just started.
    #[must_use]
    pub fn new(setup: &Setup) -> Self {
        let now = Now { mono: Moment(100_000_000_000), wall: WallTime(1_767_225_600_000) };
        let mut kernel = FakeKernel::new(now.mono);
        let mut provisioner = FakeProvisioner::new();
        let wiring = setup.wiring;
        let mut builder = Builder { kernel: &mut kernel, provisioner: &mut provisioner, wiring };
        let arrays = (setup.arrays.iter().enumerate())
            .map(|(number, array)| builder.array(number, array))
            .collect();
        kernel.take_signals();
        for disk in &mut kernel.disks {
            disk.written = false;
        }
        // Everything has been there for a while.
        for device in &mut kernel.devices {
            device.filled_at = now.mono;
        }
        kernel.set_workload(setup.workload);
        let mut world = Self {
            kernel,
            provisioner,
            transcript: Transcript::default(),
            now,
            arrays,
            policy: setup.policy.clone(),
            disk: LedgerDisk::default(),
            machines: BTreeMap::new(),
            checker: Checker::default(),
            feed: Feed::default(),
            boot: BootId("8f14e45f-boot-1".into()),
            limits: setup.limits,
            budget: Budget::new(setup.limits),
            queue: Vec::new(),
            order: 0,
            crash_at: None,
            boundaries: 0,
            restart_at: None,
            safety_scan: setup.safety_scan,
            next_scan: None,
            pictures: BTreeMap::new(),
            watch: Watch::new(),
            unsaved: BTreeMap::new(),
            save_at: None,
            blurred: Vec::new(),
            nameless: Vec::new(),
            blurred_until: None,
            act_delay: Duration::ZERO,
            look_again: LOOK_AGAIN,
            spins: (now.mono, 0),
        };
        world.transcript.begin(now.mono);
        world.note_pictures();
        world.start_daemon();
        world
    }

    /// What time it is.
    #[must_use]
    pub fn now(&self) -> Now {
        self.now
    }

    /// The policy of every array.
    #[must_use]
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// The machine of an array, while the daemon runs.
    #[must_use]
    pub fn machine(&self, array: ArrayId) -> Option<&ArrayMachine> {
        self.machines.get(&array)
    }

    /// The durable record of an array.
    #[must_use]
    pub fn record(&self, array: ArrayId) -> Option<&ArrayRecord> {
        self.disk.get(array)
    }

    /// The record of an array as the running daemon has it: the disk may not have taken it yet.
    pub(crate) fn newest_record(&self, array: ArrayId) -> Option<&ArrayRecord> {
        self.unsaved.get(&array).or_else(|| self.record(array))
    }

    /// What the invariants found so far.
    #[must_use]
    pub fn violations(&self) -> &[Violation] {
        self.checker.violations()
    }

    /// How many legs were lost so far that the agent had to heal.
    #[must_use]
    pub fn incidents(&self) -> u64 {
        self.checker.incidents()
    }

    /// Which moves repairs made so far.
    #[must_use]
    pub fn edges(&self) -> &Edges {
        self.checker.edges()
    }

    /// Whether the array waits for leave that other arrays have.
    pub(crate) fn waits_for_others(&self, array: ArrayId) -> bool {
        self.record(array).is_some_and(|record| {
            record
                .repairs
                .iter()
                .any(|repair| matches!(&repair.step, Step::Hold { why: HeldWhy::Budget, .. }))
        })
    }

    /// How many boundaries around effects were passed so far: the places where a crash can matter.
    #[must_use]
    pub fn boundaries(&self) -> usize {
        self.boundaries
    }

    /// Lets the daemon crash at the boundary of that number, counted from the world's beginning.
    pub fn crash_at(&mut self, boundary: usize) {
        self.crash_at = Some(boundary);
    }

    /// Counts the story's time from now on and forgets what was written so far.
    pub fn begin_story(&mut self) {
        let now = self.now.mono;
        self.transcript.begin(now);
        self.pictures.clear();
        self.note_pictures();
    }

    /// Whether nothing is under way and every repair is over.
    #[must_use]
    pub fn is_at_rest(&self) -> bool {
        self.restart_at.is_none()
            && self.machines.values().all(|machine| machine.incident().is_none())
    }

    /// Lets so much time pass.
    pub fn run_for(&mut self, time: Duration) {
        let end = self.now.mono.after(time);
        while self.step_before(end) {}
        self.reach(end);
    }

    /// Lets time pass until `done` says so. Answers whether it did within `limit`.
    pub fn run_until(&mut self, done: impl Fn(&Self) -> bool, limit: Duration) -> bool {
        let end = self.now.mono.after(limit);
        loop {
            if done(self) {
                return true;
            }
            if !self.step_before(end) {
                self.reach(end);
                return done(self);
            }
        }
    }

    fn next_due(&self) -> Option<Moment> {
        let queued = self.queue.iter().map(|queued| queued.due).min();
        let daemon = if self.restart_at.is_some() {
            self.restart_at
        } else {
            let ticks = self.machines.values().filter_map(|m| m.next_deadline()).map(|(at, _)| at);
            let own =
                [self.budget.next_deadline(), self.next_scan, self.watch.deadline(), self.save_at];
            ticks.chain(own.into_iter().flatten()).min()
        };
        let daemon = [daemon, self.blurred_until].into_iter().flatten().min();
        // The kernel runs by itself up to its next signal, so what it does need not be waited for.
        let next = [queued, daemon].into_iter().flatten().min();
        next.or_else(|| self.kernel.next_due())
    }

    fn step_before(&mut self, end: Moment) -> bool {
        let Some(due) = self.next_due().filter(|due| *due <= end) else {
            return self.signal_before(end);
        };
        if self.is_spinning() {
            return false;
        }
        self.reach(due.max(self.now.mono));
        if self.after_kernel() || self.now.mono < due {
            return true;
        }
        let now = self.now.mono;
        if self.blurred_until.is_some_and(|at| at <= now) {
            self.seen_as_it_is();
        } else if self.restart_at.is_some_and(|at| at <= now) {
            self.restart_at = None;
            self.start_daemon();
        } else if let Some(queued) = self.take_queued() {
            self.deliver_queued(queued);
        } else if self.restart_at.is_none() {
            self.wake_daemon();
        }
        self.tend_paths();
        true
    }

    /// Nothing of ours is due before `end`: the kernel may still have something to say.
    fn signal_before(&mut self, end: Moment) -> bool {
        if self.now.mono >= end || end == Moment(u64::MAX) {
            return false;
        }
        self.reach(end);
        let signalled = self.after_kernel();
        self.tend_paths();
        signalled
    }

    fn is_spinning(&mut self) -> bool {
        let (at, count) = self.spins;
        self.spins = if at == self.now.mono { (at, count + 1) } else { (self.now.mono, 0) };
        if self.spins.1 > SPINS {
            self.violated("the_world_moves_on", "a machine is woken again and again".into());
        }
        self.spins.1 > SPINS
    }

    /// Lets the kernel run up to `to`, or up to its next signal.
    fn reach(&mut self, to: Moment) {
        let reached = self.kernel.advance_to(to);
        let passed = reached.since(self.now.mono);
        self.now.wall = self.now.wall.after(Duration::from_millis(
            (reached.0 / 1_000_000).saturating_sub(self.now.mono.0 / 1_000_000),
        ));
        self.now.mono = self.now.mono.after(passed);
    }

    /// Takes note of what the kernel did and of what it signalled. Answers whether it signalled.
    pub(crate) fn after_kernel(&mut self) -> bool {
        let signals = self.kernel.take_signals();
        self.note_pictures();
        self.check_state();
        let any = !signals.is_empty();
        for signal in signals {
            let Heard { times, after } = self.feed.hear(self.now.mono);
            for _ in 0..times {
                self.hear(&signal, after);
            }
        }
        any
    }

    /// A signal reaches the daemon so much later than it should.
    fn hear(&mut self, signal: &KernelSignal, after: Duration) {
        let cause = match signal {
            KernelSignal::Md => LookCause::Md,
            KernelSignal::Uevent { what } => {
                self.hear_uevent(what, after);
                LookCause::Uevent { what: what.clone() }
            }
            KernelSignal::Link { index, up } => {
                let link = PathEvent::Link { index: *index, up: *up, removed: false };
                self.sign_in(link, after);
                self.rewire(after);
                LookCause::Link
            }
            KernelSignal::NoPath => LookCause::KernelLog,
            KernelSignal::Log { controller } => {
                self.sign_in(PathEvent::KernelSaid { controller: controller.clone() }, after);
                LookCause::KernelLog
            }
        };
        self.look_in(LOOK_LATENCY + after, cause);
    }

    /// Every change of a controller is `NVME_EVENT=connected` here.
    fn hear_uevent(&mut self, what: &str, after: Duration) {
        let name = what.strip_prefix("change nvme/").map(ControllerName::new);
        if let Some(Ok(controller)) = name {
            self.sign_in(PathEvent::Connected { controller }, after);
            self.rewire(after);
        }
    }

    /// So many signals come that the kernel drops them all, for so long; then the daemon is told.
    pub(crate) fn overrun(&mut self, time: Duration) {
        self.feed.overrun_until(self.now.mono.after(time));
        self.look_in(time, LookCause::Overrun);
        self.rewire(time);
    }

    fn note_pictures(&mut self) {
        if self.transcript.is_silent() {
            return;
        }
        for array in &self.arrays {
            let picture = self.kernel.picture(array.id).unwrap_or_else(|| "stopped".into());
            let index = self.kernel.arrays.iter().find(|md| md.id == array.id);
            let broken = if index.is_some_and(|md| md.broken) { " broken" } else { "" };
            let copied = match self.kernel.rebuild_percent(array.id) {
                Some(percent) => format!(" rebuilding, {} %", percent / 25 * 25),
                None => String::new(),
            };
            let picture = format!("{picture}{broken}{copied}");
            if self.pictures.get(&array.id) != Some(&picture) {
                let text = format!("{} {picture}", array.name);
                self.transcript.push(self.now.mono, LineKind::Array, text);
                self.pictures.insert(array.id, picture);
            }
        }
    }

    fn look_in(&mut self, after: Duration, cause: LookCause) {
        if self.restart_at.is_some() {
            return; // Nobody listens; the start looks at everything.
        }
        if cause != LookCause::Asked {
            self.look_again = LOOK_AGAIN;
        }
        let what = What::Look(cause);
        if self.queue.iter().any(|queued| queued.what == what) {
            return;
        }
        self.enqueue(after, what);
    }

    /// A machine asks for another look.
    fn look_once_more(&mut self) {
        let asked = What::Look(LookCause::Asked);
        if self.restart_at.is_none() && !self.queue.iter().any(|queued| queued.what == asked) {
            self.enqueue(self.look_again, asked);
            self.look_again = (self.look_again * 2).min(LOOK_AGAIN_MAX);
        }
    }

    fn enqueue(&mut self, after: Duration, what: What) {
        self.order += 1;
        let queued = Queued { due: self.now.mono.after(after), order: self.order, what };
        self.queue.push(queued);
    }

    fn take_queued(&mut self) -> Option<Queued> {
        let now = self.now.mono;
        let due = self.queue.iter().enumerate().filter(|(_, queued)| queued.due <= now);
        let (index, _) = due.min_by_key(|(_, queued)| (queued.due, queued.order))?;
        Some(self.queue.remove(index))
    }

    fn deliver_queued(&mut self, queued: Queued) {
        match queued.what {
            What::Look(cause) => self.look(&cause),
            What::Acted(array, id, answer) => {
                self.deliver(array, Event::Acted { id, answer });
                self.look_in(Duration::ZERO, LookCause::OwnAction);
            }
            What::Sign(event) => self.signed(event),
            What::Wiring => self.wired(),
            What::Arm(plan, planned_on) => self.arm(plan, &planned_on),
            What::Do(decided) => self.begin(*decided),
            What::Answered(array, id, answer) => {
                self.checker.answered(array, id, &answer);
                self.deliver(array, Event::Answered { id, answer });
            }
        }
    }

    /// Whatever deadline of the daemon's own is due: one thing.
    fn wake_daemon(&mut self) {
        let now = self.now.mono;
        if self.next_scan.is_some_and(|at| at <= now) {
            self.next_scan = self.safety_scan.map(|every| now.after(every));
            self.rewire(Duration::ZERO);
            self.look(&LookCause::SafetyScan);
            return;
        }
        if self.save_at.is_some_and(|at| at <= now) {
            self.save_waiting();
            return;
        }
        if self.wake_paths() {
            return;
        }
        if self.budget.next_deadline().is_some_and(|at| at <= now) {
            let given = self.budget.wake(now);
            self.permit(given);
            return;
        }
        let due = self
            .machines
            .iter()
            .find(|(_, machine)| machine.next_deadline().is_some_and(|(at, _)| at <= now))
            .map(|(id, _)| *id);
        if let Some(array) = due {
            self.deliver(array, Event::Tick);
        }
    }

    fn permit(&mut self, arrays: Vec<ArrayId>) {
        for array in arrays {
            self.deliver(array, Event::Permitted);
        }
    }

    /// One look, given to every machine; an array that nobody knew yet gets one.
    pub(crate) fn look(&mut self, cause: &LookCause) {
        let mut snapshot = self.kernel.look();
        self.blurred.clone_from(&self.kernel.blurs);
        self.nameless = self.kernel.unfilled();
        self.feed.looked(self.now.mono);
        self.checker.handled.clear();
        self.saw_paths(&mut snapshot);
        for array in &snapshot.arrays {
            if !self.machines.contains_key(&array.id) {
                let machine = ArrayMachine::new(array.id, self.boot.clone(), self.policy.clone());
                self.machines.insert(array.id, machine);
            }
        }
        self.publish();
        let ids: Vec<ArrayId> = self.machines.keys().copied().collect();
        let last = ids.last().copied();
        for id in ids {
            let index = snapshot.arrays.iter().position(|array| array.id == id);
            let array = index.map(|index| snapshot.arrays.swap_remove(index));
            // An array that was not read may be the one.
            let unread = array.is_none() && !snapshot.unreadable.is_empty();
            let look = Look {
                array: if unread {
                    Observed::Unknown(UnknownWhy::ReadFailed)
                } else {
                    Observed::Known(array)
                },
                namespaces: if last == Some(id) {
                    std::mem::take(&mut snapshot.namespaces)
                } else {
                    snapshot.namespaces.clone()
                },
                subsystems: snapshot.subsystems(),
                cause: cause.clone(),
            };
            self.deliver(id, Event::Looked(Box::new(look)));
            if self.machines.get(&id).is_some_and(ArrayMachine::is_finished) {
                self.machines.remove(&id);
                self.unsaved.remove(&id);
                self.disk.remove(id);
            }
        }
    }

    fn start_daemon(&mut self) {
        self.transcript.push(self.now.mono, LineKind::Daemon, "the daemon starts".into());
        self.checker.began_observing = self.policy.mode == Mode::Observe;
        self.feed.opened();
        self.takes_over();
        self.note_orphans();
        self.next_scan = self.safety_scan.map(|every| self.now.mono.after(every));
        for (id, file) in self.disk.load() {
            let readable =
                matches!(&file, File::Record(record) if invariants::is_of_this_version(record));
            if !readable {
                self.record_is_lost(id);
            }
            let (boot, policy) = (self.boot.clone(), self.policy.clone());
            let (machine, outbox) = match file {
                File::Record(record) => ArrayMachine::recover(*record, boot, policy, self.now),
                File::Torn => {
                    let why = QuarantinedWhy::UnreadableRecord { detail: "it is torn".to_owned() };
                    ArrayMachine::quarantined(id, boot, policy, why, self.now)
                }
            };
            self.machines.insert(id, machine);
            self.drain(id, outbox, None);
        }
        // Where packets leave is known before anything is decided on a look.
        self.wired();
        self.look_in(Duration::ZERO, LookCause::Start);
    }

    /// Kills the daemon: what is in memory is gone, what is durable stays. It is started again
    /// soon.
    pub fn crash_daemon(&mut self) {
        self.transcript.push(self.now.mono, LineKind::Daemon, "the daemon is killed".into());
        self.machines.clear();
        self.unsaved.clear();
        self.save_at = None;
        self.watch = Watch::new();
        self.kernel.forget_readings();
        self.feed.mend();
        self.queue.clear();
        self.budget = Budget::new(self.limits);
        self.next_scan = None;
        self.crash_at = None;
        self.checker.crashed();
        self.restart_at = Some(self.now.mono.after(RESTART));
    }

    /// The same, unless it is being started anyway.
    pub fn crash_daemon_unless_down(&mut self) {
        if self.restart_at.is_none() {
            self.crash_daemon();
        }
    }

    /// The machine boots again before the daemon starts: deadlines have only the wall clock left.
    pub fn change_boot(&mut self) {
        self.boot = BootId(format!("{}'", self.boot.0));
    }

    pub(crate) fn violated(&mut self, name: &'static str, detail: String) {
        self.transcript.push(self.now.mono, LineKind::Violation, format!("{name}: {detail}"));
        self.checker.note(Violation { name, detail, at: self.now.mono });
    }
}
