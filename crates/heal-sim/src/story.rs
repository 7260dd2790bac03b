//! The stories: what can happen to an array, told from the first fault to the end.
//!
//! ```text
//!   Story { name, title, setup, tell } ──► World ──► transcript ──► tests/scenarios/NAME.txt
//!                                            └─────► retold in plain words: nvme-heald --sim
//! ```
//!
//! One list serves both: the golden files that every change of behaviour must show up in, and the
//! newcomer who wants to see the product at work without root and without a virtual machine.
//!
//! The price: a story that is good to read may not be the meanest one. The mean ones are the crash
//! tests, which tell the first story once for every place where a crash can matter.

use std::time::Duration;

use heal_core::{IsolateAfter, Mode};
use heal_types::{ForeignKind, GracePolicy};

use crate::kernel::ToolFault;
use crate::world::World;
use crate::world::setup::{ArraySetup, Flaw, Setup, Wiring};
use crate::world::transcript::LineKind;

/// One story.
#[derive(Debug, Clone, Copy)]
pub struct Story {
    /// Its name, which is also its golden file's.
    pub name: &'static str,
    /// What it is about, in one sentence.
    pub title: &'static str,
    /// What its world begins with.
    pub setup: fn() -> Setup,
    /// What happens in it.
    pub tell: fn(&mut World),
}

/// Why a story cannot be told.
#[derive(Debug, thiserror::Error)]
pub enum StoryError {
    /// Nobody knows it.
    #[error("there is no story {name:?}; the stories are: {known}")]
    Unknown {
        /// What was asked for.
        name: String,
        /// What there is.
        known: String,
    },
    /// It went against a rule of the product.
    #[error("the story {name} broke the rule {rule}: {detail}")]
    BrokeARule {
        /// The story.
        name: &'static str,
        /// The rule.
        rule: &'static str,
        /// How.
        detail: String,
    },
}

/// Every story.
#[rustfmt::skip]
pub const STORIES: &[Story] = &[
    Story { name: "replica-replaced", title: "A replica dies and is replaced.", setup: Setup::default, tell: replica_replaced },
    Story { name: "leg-returns", title: "A leg returns within its grace period and is taken back by bitmap.", setup: Setup::default, tell: leg_returns },
    Story { name: "replaced-by-itself", title: "The provisioner replaces a lost replica without being asked.", setup: Setup::default, tell: replaced_by_itself },
    Story { name: "provisioner-down", title: "The provisioner is down for an hour; nothing it must know is lost.", setup: slow_writer, tell: provisioner_down },
    Story { name: "returns-while-provisioner-down", title: "A leg returns while nobody answers: it is taken back all the same.", setup: Setup::default, tell: returns_while_down },
    Story { name: "request-refused", title: "The provisioner refuses a replacement, and later gives one.", setup: slow_writer, tell: request_refused },
    Story { name: "replacement-fails", title: "The replacement dies while it is being filled.", setup: Setup::default, tell: replacement_fails },
    Story { name: "second-leg-fails", title: "A second leg of three fails while the first is being replaced.", setup: three_legs, tell: second_leg_fails },
    Story { name: "two-legs-at-once", title: "Two legs of three die in the same moment, and one comes back meanwhile.", setup: three_legs, tell: two_legs_at_once },
    Story { name: "survivor-in-doubt", title: "The path to the only good leg is lost while its partner is replaced.", setup: Setup::default, tell: survivor_in_doubt },
    Story { name: "terminating", title: "The provisioner wants a replica out: it is moved with the redundancy kept.", setup: Setup::default, tell: terminating },
    Story { name: "two-terminating", title: "Both replicas have to go: one after the other.", setup: Setup::default, tell: two_terminating },
    Story { name: "more-copies", title: "The volume shall have a third copy.", setup: Setup::default, tell: more_copies },
    Story { name: "fewer-copies", title: "The volume shall have one copy less.", setup: three_legs, tell: fewer_copies },
    Story { name: "killed-in-every-phase", title: "The daemon is killed once in every phase of a repair.", setup: Setup::default, tell: killed_in_every_phase },
    Story { name: "hold-and-resume", title: "A person holds the array during a repair, and lets it go on.", setup: Setup::default, tell: hold_and_resume },
    Story { name: "array-stopped", title: "The array is stopped in the middle of a repair, and assembled again.", setup: Setup::default, tell: array_stopped },
    Story { name: "detached", title: "os-brick detaches a healed volume: what was connected for it is put away, and not before.", setup: with_os_brick, tell: detached },
    Story { name: "detached-unseen", title: "os-brick detaches a healed volume while the daemon is down: its next life puts away what was connected for it.", setup: with_os_brick, tell: detached_unseen },
    Story { name: "attached-by-an-old-list", title: "os-brick attaches with a list from before the replacement: the replica of today is connected and taken back.", setup: with_os_brick, tell: attached_by_an_old_list },
    Story { name: "foreign-file-system", title: "The replacement has a file system on it: nothing is written to it.", setup: Setup::default, tell: foreign_file_system },
    Story { name: "foreign-array", title: "The replacement is a leg of another MD array: nothing is written to it.", setup: Setup::default, tell: foreign_array },
    Story { name: "too-small", title: "The replacement is too small: nothing is written to it.", setup: Setup::default, tell: too_small },
    Story { name: "wrong-namespace", title: "Behind the replacement's target is another namespace: nothing is written to it.", setup: Setup::default, tell: wrong_namespace },
    Story { name: "idle-leg-gone", title: "A leg's device goes while nothing writes, so MD does not notice.", setup: Setup::default, tell: idle_leg_gone },
    Story { name: "local-array", title: "A local array loses a disk beside a managed one: it is never touched.", setup: with_local_array, tell: local_array },
    Story { name: "name-reused", title: "A lost namespace returns under another name.", setup: Setup::default, tell: name_reused },
    Story { name: "tools-fail", title: "Every tool fails once, hangs once, or does its work unheard.", setup: Setup::default, tell: tools_fail },
    Story { name: "storm", title: "Five arrays lose a leg at once: one alarm, one replacement at a time.", setup: five_arrays, tell: storm },
    Story { name: "cable-pulled", title: "A cable is pulled: the application goes on, and the leg is taken back by bitmap.", setup: busy, tell: cable_pulled },
    Story { name: "cable-pulled-no-wait", title: "The same, and nothing is waited for.", setup: busy_without_wait, tell: cable_pulled },
    Story { name: "cable-pulled-never", title: "The policy says never: the application waits for the cable.", setup: busy_never, tell: cable_pulled },
    Story { name: "no-bitmap", title: "An array without a bitmap is not isolated: its return would be a full copy.", setup: busy_without_bitmap, tell: cable_pulled },
    Story { name: "both-cables-pulled", title: "Both legs lose their cables within a moment: everything waits, nothing fails.", setup: busy, tell: both_cables_pulled },
    Story { name: "last-cable-pulled", title: "One leg is out already when the last one loses its cable: it is left alone.", setup: busy, tell: last_cable_pulled },
    Story { name: "one-path-of-two", title: "Each leg has two paths, and one of them is lost: the array is not touched.", setup: two_paths, tell: one_path_of_two },
    Story { name: "host-cut-off", title: "The host's only link goes, under eight arrays: one alarm, nothing is isolated.", setup: eight_on_one_link, tell: host_cut_off },
    Story { name: "flapping", title: "A cable comes and goes twenty times: the leg stays out until it has been up for a while.", setup: patient, tell: flapping },
    Story { name: "target-dies", title: "The target of the leg that must queue dies: its controller is given up, and connected again later.", setup: patient, tell: target_dies },
    Story { name: "black-hole", title: "Packets vanish without a link going down: the sockets tell.", setup: busy, tell: black_hole },
    Story { name: "target-frozen", title: "A target stands still while its TCP lives: only its I/O does not move.", setup: busy, tell: target_frozen },
    Story { name: "ana-inaccessible", title: "The target lets no I/O through to a leg (ANA).", setup: busy, tell: ana_inaccessible },
    Story { name: "isolation-held", title: "A person holds the array when a cable is pulled: nothing is done.", setup: busy, tell: isolation_held },
    Story { name: "isolation-observed", title: "The mode is observe when a cable is pulled: it says what it would do.", setup: busy_observed, tell: cable_pulled },
    Story { name: "bad-blocks", title: "A leg has blocks that MD must not read: that is said, and left to whoever writes there.", setup: busy, tell: bad_blocks },
];

/// The names of the stories, the main one first.
#[must_use]
pub fn names() -> Vec<&'static str> {
    STORIES.iter().map(|story| story.name).collect()
}

/// The story of that name.
///
/// # Errors
/// When there is none.
pub fn find(name: &str) -> Result<&'static Story, StoryError> {
    STORIES
        .iter()
        .find(|story| story.name == name)
        .ok_or_else(|| StoryError::Unknown { name: name.to_owned(), known: names().join(", ") })
}

impl Story {
    /// The story's world at its beginning: everything is well, and has been for a minute.
    #[must_use]
    pub fn begin(&self) -> World {
        let mut world = World::new(&(self.setup)());
        world.run_for(minutes(1));
        world.begin_story();
        world
    }

    /// Tells the story to its end and checks what must hold then.
    #[must_use]
    pub fn told(&self) -> World {
        let mut world = self.begin();
        (self.tell)(&mut world);
        world.check_end();
        world
    }
}

/// Tells a story for a newcomer, line by line.
///
/// # Errors
/// When there is no such story, or it broke a rule of the product.
pub fn run(name: &str, sink: &mut dyn FnMut(&str)) -> Result<(), StoryError> {
    let story = find(name)?;
    sink(story.title);
    sink("");
    let world = story.told();
    for line in world.transcript.lines() {
        let seconds = line.at.0 / 1_000_000_000;
        let stamp =
            format!("{:>3}:{:02}.{:03}", seconds / 60, seconds % 60, line.at.0 / 1_000_000 % 1000);
        match line.kind {
            LineKind::Fault => sink(&format!("{stamp}  >>> {}", line.text)),
            LineKind::Array => sink(&format!("{stamp}  /proc/mdstat: {}", line.text)),
            LineKind::Daemon => sink(&format!("{stamp}  {}", line.text)),
            LineKind::Audit => sink(&format!("{stamp}      nvme-heald: {}", line.text)),
            LineKind::Violation => sink(&format!("{stamp}  BROKEN RULE: {}", line.text)),
            // The audit says what is meant; how it is asked for is for the golden files.
            LineKind::Event | LineKind::Effect => {}
        }
    }
    sink("");
    match world.violations().first() {
        None => sink("Every rule held: no block was lost, no report was lost."),
        Some(broken) => {
            return Err(StoryError::BrokeARule {
                name: story.name,
                rule: broken.name,
                detail: broken.detail.clone(),
            });
        }
    }
    Ok(())
}

fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn minutes(n: u64) -> Duration {
    seconds(n * 60)
}

/// Lets a story run until nothing is left to do, and a little longer, so that a late surprise
/// shows.
fn settle(world: &mut World) {
    // What was just done to the world is not an incident yet.
    world.run_for(seconds(10));
    let _ = world.run_until(World::is_at_rest, minutes(30));
    world.run_for(minutes(1));
}

fn whole(picture: &str) -> bool {
    !picture.is_empty() && !picture.contains('_')
}

fn slow_writer() -> Setup {
    Setup { workload: Some(seconds(1)), ..Setup::default() }
}

/// An application that writes a hundred times a second.
fn busy() -> Setup {
    Setup { workload: Some(Duration::from_millis(10)), ..Setup::default() }
}

fn busy_and(isolate_after: IsolateAfter) -> Setup {
    let mut setup = busy();
    setup.policy.isolate_after = isolate_after;
    setup
}

fn busy_without_wait() -> Setup {
    busy_and(IsolateAfter::After(Duration::ZERO))
}

fn busy_never() -> Setup {
    busy_and(IsolateAfter::Never)
}

fn busy_observed() -> Setup {
    let mut setup = busy();
    setup.policy.mode = Mode::Observe;
    setup
}

/// A host whose arrays are attached and detached by os-brick.
fn with_os_brick() -> Setup {
    let mut setup = Setup::default();
    setup.policy.put_away_after = Some(seconds(5));
    setup
}

fn busy_without_bitmap() -> Setup {
    Setup { arrays: vec![ArraySetup { bitmap: false, ..ArraySetup::mirror("vol1") }], ..busy() }
}

/// An array whose provisioner gives a lost leg ten minutes, and that fills one in two seconds.
fn patient() -> Setup {
    let array = ArraySetup {
        grace: Some(GracePolicy::After(minutes(10))),
        rebuild: seconds(2),
        ..ArraySetup::mirror("vol1")
    };
    Setup { arrays: vec![array], ..busy() }
}

fn two_paths() -> Setup {
    Setup { arrays: vec![ArraySetup { paths: 2, ..ArraySetup::mirror("vol1") }], ..busy() }
}

fn eight_on_one_link() -> Setup {
    let array = |n: u16| ArraySetup::mirror(&format!("vol{n}"));
    Setup { arrays: (1..=8).map(array).collect(), wiring: Wiring::One, ..busy() }
}

fn three_legs() -> Setup {
    Setup {
        arrays: vec![ArraySetup { legs: 3, spares: 3, ..ArraySetup::mirror("vol1") }],
        ..Setup::default()
    }
}

fn with_local_array() -> Setup {
    Setup {
        arrays: vec![ArraySetup::mirror("vol1"), ArraySetup::local("scratch")],
        ..Setup::default()
    }
}

fn five_arrays() -> Setup {
    let array = |n: u16| ArraySetup {
        grace: Some(GracePolicy::After(seconds(5))),
        rebuild: seconds(4),
        ..ArraySetup::mirror(&format!("vol{n}"))
    };
    Setup { arrays: (1..=5).map(array).collect(), ..Setup::default() }
}

fn replica_replaced(world: &mut World) {
    world.namespace_removed("vol1-b");
    settle(world);
}

fn leg_returns(world: &mut World) {
    world.namespace_removed("vol1-b");
    world.run_for(seconds(5));
    world.namespace_restored("vol1-b");
    settle(world);
}

fn replaced_by_itself(world: &mut World) {
    world.namespace_removed("vol1-b");
    world.run_for(seconds(8));
    world.replaced_by_itself("vol1-b");
    settle(world);
}

fn provisioner_down(world: &mut World) {
    world.provisioner_down(true);
    world.namespace_removed("vol1-b");
    world.run_for(minutes(60));
    world.provisioner_down(false);
    settle(world);
}

fn returns_while_down(world: &mut World) {
    world.provisioner_down(true);
    world.namespace_removed("vol1-b");
    world.run_for(minutes(2));
    world.namespace_restored("vol1-b");
    let _ = world.run_until(|world| whole(&world.picture("vol1")), minutes(5));
    world.run_for(seconds(10));
    world.provisioner_down(false);
    settle(world);
}

fn request_refused(world: &mut World) {
    world.provisioner_refuses(Some("no capacity in this zone"));
    world.namespace_removed("vol1-b");
    world.run_for(minutes(5));
    world.provisioner_refuses(None);
    settle(world);
}

fn replacement_fails(world: &mut World) {
    world.namespace_removed("vol1-b");
    let copying = |world: &World| world.kernel.rebuild_percent(world.array("vol1")) >= Some(40);
    let _ = world.run_until(copying, minutes(5));
    world.namespace_removed("vol1-c");
    settle(world);
}

fn second_leg_fails(world: &mut World) {
    world.namespace_removed("vol1-b");
    let copying = |world: &World| world.kernel.rebuild_percent(world.array("vol1")) >= Some(40);
    let _ = world.run_until(copying, minutes(5));
    world.namespace_removed("vol1-c");
    settle(world);
}

fn two_legs_at_once(world: &mut World) {
    world.namespace_removed("vol1-a");
    world.namespace_removed("vol1-c");
    // MD gives a new disk the first free slot, whichever leg it was meant for.
    let copying = |world: &World| world.kernel.rebuild_percent(world.array("vol1")) >= Some(40);
    let _ = world.run_until(copying, minutes(5));
    world.namespace_restored("vol1-a");
    settle(world);
}

fn survivor_in_doubt(world: &mut World) {
    world.namespace_removed("vol1-b");
    world.run_for(seconds(20));
    world.path_lost("vol1-a");
    world.run_for(minutes(2));
    world.path_up("vol1-a");
    settle(world);
}

fn terminating(world: &mut World) {
    world.terminating("vol1-b");
    world.volume_stale("vol1");
    settle(world);
}

fn two_terminating(world: &mut World) {
    world.terminating("vol1-a");
    world.terminating("vol1-b");
    world.volume_stale("vol1");
    settle(world);
}

fn more_copies(world: &mut World) {
    world.copies("vol1", 3);
    world.volume_stale("vol1");
    settle(world);
}

fn fewer_copies(world: &mut World) {
    world.copies("vol1", 2);
    world.terminating("vol1-c");
    world.volume_stale("vol1");
    settle(world);
}

/// Waits until the array's worst repair is in `phase`, and kills the daemon there.
fn killed_in(world: &mut World, phase: &str) {
    let in_phase = |world: &World| {
        let machine = world.machine(world.array("vol1"));
        machine.is_some_and(|machine| machine.status(world.now()).phase == phase)
    };
    if world.run_until(in_phase, minutes(5)) {
        world.say(format!("phase {phase}"));
        world.crash_daemon();
    }
}

fn killed_in_every_phase(world: &mut World) {
    world.namespace_removed("vol1-b");
    for phase in [
        "reporting",
        "grace",
        "requesting",
        "connecting",
        "verifying",
        "adding",
        "rebuilding",
        "retiring",
    ] {
        killed_in(world, phase);
    }
    settle(world);
}

fn hold_and_resume(world: &mut World) {
    world.namespace_removed("vol1-b");
    world.run_for(seconds(10));
    world.operator_hold("vol1", "changing a switch");
    world.run_for(minutes(5));
    world.operator_resume("vol1");
    settle(world);
}

fn array_stopped(world: &mut World) {
    world.namespace_removed("vol1-b");
    world.run_for(seconds(10));
    world.array_stopped("vol1");
    world.run_for(minutes(1));
    world.array_assembled("vol1");
    settle(world);
}

fn detached(world: &mut World) {
    world.namespace_removed("vol1-b");
    world.run_for(minutes(2));
    world.array_stopped("vol1");
    world.run_for(minutes(1));
}

fn detached_unseen(world: &mut World) {
    world.namespace_removed("vol1-b");
    world.run_for(minutes(2));
    world.crash_daemon();
    world.array_stopped("vol1");
    world.run_for(minutes(1));
}

fn attached_by_an_old_list(world: &mut World) {
    detached(world);
    world.array_assembled("vol1");
    settle(world);
}

fn rejected(world: &mut World, flaw: &Flaw) {
    world.flawed("vol1-c", flaw);
    world.namespace_removed("vol1-b");
    settle(world);
}

fn foreign_file_system(world: &mut World) {
    rejected(world, &Flaw::Foreign(ForeignKind::Filesystem("ext4".into())));
}

fn foreign_array(world: &mut World) {
    rejected(world, &Flaw::OtherArray);
}

fn too_small(world: &mut World) {
    rejected(world, &Flaw::TooSmall);
}

fn wrong_namespace(world: &mut World) {
    rejected(world, &Flaw::WrongNamespace);
}

fn idle_leg_gone(world: &mut World) {
    world.idle_gone("vol1-b");
    settle(world);
}

fn local_array(world: &mut World) {
    world.say("a disk of scratch fails");
    world.kernel.fail_local_leg(world.array("scratch"));
    world.after_kernel();
    world.run_for(seconds(5));
    world.namespace_removed("vol1-b");
    settle(world);
}

fn name_reused(world: &mut World) {
    world.controllers_give_up("vol1-b");
    world.run_for(seconds(20));
    world.connected_by_hand("vol1-b");
    settle(world);
}

fn tools_fail(world: &mut World) {
    world.spoil_next("connect", ToolFault::Fails);
    world.spoil_next("examine", ToolFault::Hangs);
    world.spoil_next("add_leg", ToolFault::HangsAfterDoing);
    world.spoil_next("remove_leg", ToolFault::DoneUnheard);
    world.spoil_next("disconnect", ToolFault::Fails);
    world.namespace_removed("vol1-b");
    settle(world);
}

fn storm(world: &mut World) {
    for n in 1..=5 {
        world.namespace_removed(&format!("vol{n}-b"));
    }
    settle(world);
}

fn cable_pulled(world: &mut World) {
    pulled_for(world, "to-vol1-b", seconds(10));
    settle(world);
}

fn pulled_for(world: &mut World, link: &str, time: Duration) {
    world.pull(link);
    world.run_for(time);
    world.plug(link);
}

fn both_cables_pulled(world: &mut World) {
    world.pull("to-vol1-b");
    world.run_for(Duration::from_millis(100));
    world.pull("to-vol1-a");
    world.run_for(seconds(10));
    world.plug("to-vol1-a");
    world.plug("to-vol1-b");
    settle(world);
}

fn last_cable_pulled(world: &mut World) {
    world.pull("to-vol1-b");
    world.run_for(seconds(5));
    pulled_for(world, "to-vol1-a", seconds(10));
    world.plug("to-vol1-b");
    settle(world);
}

fn one_path_of_two(world: &mut World) {
    pulled_for(world, "to-vol1-b", seconds(30));
    world.run_for(seconds(10));
    pulled_for(world, "to-vol1-a2", seconds(30));
    settle(world);
}

fn host_cut_off(world: &mut World) {
    pulled_for(world, "eth0", seconds(10));
    settle(world);
}

fn flapping(world: &mut World) {
    for _ in 0..20 {
        pulled_for(world, "to-vol1-b", seconds(2));
        world.run_for(seconds(20));
    }
    settle(world);
    world.run_for(minutes(2));
}

fn target_dies(world: &mut World) {
    world.target_serving("vol1-a", false);
    world.run_for(minutes(1));
    world.target_serving("vol1-a", true);
    settle(world);
}

fn black_hole(world: &mut World) {
    world.black_hole("to-vol1-b", true);
    world.run_for(seconds(20));
    world.black_hole("to-vol1-b", false);
    settle(world);
}

fn target_frozen(world: &mut World) {
    world.frozen_target("vol1-b", true);
    world.run_for(seconds(20));
    world.frozen_target("vol1-b", false);
    settle(world);
}

fn ana_inaccessible(world: &mut World) {
    world.ana_usable("vol1-b", false);
    world.run_for(seconds(20));
    world.ana_usable("vol1-b", true);
    settle(world);
}

fn isolation_held(world: &mut World) {
    world.operator_hold("vol1", "changing a switch");
    pulled_for(world, "to-vol1-b", seconds(10));
    world.run_for(seconds(20));
    world.operator_resume("vol1");
    settle(world);
}

fn bad_blocks(world: &mut World) {
    world.bad_block("vol1-b");
    settle(world);
}
