//! What a review or a pair of dice once found in the machine, one test a finding, so that it stays
//! found.
//!
//! ```text
//!   slots       who holds which slot, and whose loss it is
//!   returns     a leg that comes back, and requests that must not be made then
//!   looks       looks that see nothing, half or wrongly
//!   moves       replicas that the provisioner wants out, in, or after all not
//!   paths       cables, and what is done and said about them
//!   offers      replacements that are rejected, withdrawn or offered twice
//!   putting_away   what is left of a leg once its slot is good again
//!   bad_blocks  legs that look whole and are not
//!   edges       moves that the dice make too seldom
//!   bookkeeping    holds, permits, records, keys, and the provisioner's ear
//! ```
//!
//! Each test fails on the machine that had the bug; the line "found by review" or "found by chaos"
//! says what that machine did.
#![allow(clippy::unwrap_used, reason = "a test may end loudly, its helpers too")]

mod bad_blocks;
mod bookkeeping;
mod edges;
mod looks;
mod moves;
mod offers;
mod paths;
mod putting_away;
mod returns;
mod slots;

use std::collections::BTreeSet;
use std::time::Duration;

use heal_sim::{ArraySetup, LineKind, Setup, World};
use heal_types::{CallKey, Condition, GracePolicy, ProvisionerCall};

fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn milliseconds(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// A world of that setup in which everything has been well for a minute.
fn well(setup: &Setup) -> World {
    let mut world = World::new(setup);
    world.run_for(seconds(60));
    world.begin_story();
    world
}

fn mirror() -> World {
    well(&Setup::default())
}

fn one_array(array: ArraySetup) -> Setup {
    Setup { arrays: vec![array], ..Setup::default() }
}

fn legs(legs: u16, grace: u64) -> Setup {
    one_array(ArraySetup {
        legs,
        spares: 4,
        grace: Some(GracePolicy::After(seconds(grace))),
        ..ArraySetup::mirror("vol1")
    })
}

/// Two mirrors of which only one may replace a leg at a time.
fn two_arrays_in_line() -> Setup {
    let array = |name: &str| ArraySetup {
        grace: Some(GracePolicy::After(seconds(5))),
        spares: 4,
        ..ArraySetup::mirror(name)
    };
    let mut setup = Setup { arrays: vec![array("vol1"), array("vol2")], ..Setup::default() };
    setup.limits.replacements = 1;
    setup
}

/// Lets a story end, and checks every rule and that everything is whole.
fn heals(world: &mut World) {
    world.run_for(seconds(10));
    let _ = world.run_until(World::is_at_rest, seconds(1800));
    world.run_for(seconds(60));
    world.check_end();
    keeps_every_rule(world);
    assert!(world.is_at_rest(), "an incident is open\n{}", world.transcript.text());
}

fn keeps_every_rule(world: &World) {
    let broken: Vec<String> =
        world.violations().iter().map(|v| format!("{}: {}", v.name, v.detail)).collect();
    assert!(broken.is_empty(), "{broken:#?}\n{}", world.transcript.text());
}

fn assert_picture(world: &World, array: &str, picture: &str) {
    assert_eq!(world.picture(array), picture, "\n{}", world.transcript.text());
}

fn assert_in_sync(world: &World, replica: &str) {
    assert!(world.is_in_sync(replica), "{replica} is not\n{}", world.transcript.text());
}

fn copied(percent: u8) -> impl Fn(&World) -> bool {
    move |world| world.kernel.rebuild_percent(world.array("vol1")) >= Some(percent)
}

fn until(world: &mut World, what: &str, done: impl Fn(&World) -> bool) {
    let came = world.run_until(done, seconds(600));
    assert!(came, "it never came to this: {what}\n{}", world.transcript.text());
}

fn is_bound(replica: &'static str) -> impl Fn(&World) -> bool {
    move |world| {
        let id = world.namespace(replica);
        world.kernel.leg_of(&id).is_some_and(|leg| !leg.faulty)
    }
}

fn phase(world: &World, array: &str) -> String {
    let machine = world.machine(world.array(array)).unwrap();
    machine.status(world.now()).phase
}

fn in_phase(array: &'static str, wanted: &'static str) -> impl Fn(&World) -> bool {
    move |world| phase(world, array) == wanted
}

/// What the provisioner heard of a replica's condition, in order, each word once.
fn heard_of(world: &World, replica: &str) -> Vec<&'static str> {
    let mut keys = BTreeSet::new();
    let calls = world.provisioner.received().iter();
    calls
        .filter_map(|call| match call {
            ProvisionerCall::Report { replica: of, condition, key, .. } => {
                (of.as_str() == replica && keys.insert(key.clone())).then(|| word(condition))
            }
            ProvisionerCall::FindVolume(_)
            | ProvisionerCall::RequestReplacement { .. }
            | ProvisionerCall::ConfirmRemoved { .. } => None,
        })
        .collect()
}

fn word(condition: &Condition) -> &'static str {
    match condition {
        Condition::Missing => "missing",
        Condition::Synchronizing => "synchronizing",
        Condition::Available => "available",
        Condition::Unusable { .. } => "unusable",
    }
}

/// The replicas a replacement was asked for, with the key of each request.
fn asked(world: &World) -> BTreeSet<(String, CallKey)> {
    let calls = world.provisioner.received().iter();
    calls
        .filter_map(|call| match call {
            ProvisionerCall::RequestReplacement { lost, key, .. } => {
                Some((lost.to_string(), key.clone()))
            }
            ProvisionerCall::FindVolume(_)
            | ProvisionerCall::Report { .. }
            | ProvisionerCall::ConfirmRemoved { .. } => None,
        })
        .collect()
}

fn asked_nothing(world: &World) {
    assert!(asked(world).is_empty(), "{:?}\n{}", asked(world), world.transcript.text());
}

/// How many lines of that kind contain a text.
fn lines(world: &World, kind: LineKind, text: &str) -> usize {
    let lines = world.transcript.lines().iter();
    lines.filter(|line| line.kind == kind && line.text.contains(text)).count()
}

fn assert_never(world: &World, kind: LineKind, text: &str) {
    assert_eq!(lines(world, kind, text), 0, "{text}\n{}", world.transcript.text());
}
