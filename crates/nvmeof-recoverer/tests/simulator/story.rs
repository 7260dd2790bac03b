//! Stories: incidents that the dice choose, and after each of them everything is repaired.
//!
//! ```text
//!   seed ──► incident (one to three faults at once, some time, some more) ──► invariants every second
//!            └── repeated ──► everything repaired ──► every OSD runs once, nothing left behind
//! ```

use heal_types::cluster::{NodeName, Person};
use nvmeof_recoverer::plan::evidence::{Basis, Evidence};
use nvmeof_recoverer::plan::relocate::{Cause, PhaseKind, Relocation, Signal};

use crate::device::Mood;
use crate::world::{NODES, OSDS, World, wall};

/// Incidents in one story, between which nothing but the faults is reset.
pub(crate) const INCIDENTS: u64 = 5;

/// Tells the story of a seed.
pub(crate) fn told(seed: u64, tell: bool) -> World {
    let mut world = World::new(seed);
    world.told = tell.then(Vec::new);
    for _ in 0..INCIDENTS {
        incident(&mut world);
        repair(&mut world);
        if !world.violations.is_empty() {
            return world;
        }
        check_end(&mut world);
        check_contents(&mut world);
    }
    world
}

fn incident(world: &mut World) {
    let faults = 1 + world.dice.below(3);
    world.late = if world.dice.once_in(2) { world.dice.below(12) } else { 0 };
    for _ in 0..faults {
        fault(world);
        let pause = world.dice.below(12);
        world.run(pause);
    }
    for _ in 0..6 {
        let pause = 2 + world.dice.below(8);
        world.run(pause);
        if world.dice.once_in(3) {
            change(world);
        }
        person(world);
    }
}

/// A node that carries something, most of the time.
fn victim(world: &mut World) -> usize {
    if world.dice.once_in(5) {
        return world.dice.index(NODES);
    }
    let osd = world.dice.index(OSDS);
    world.api.now.deployments[osd].node
}

fn fault(world: &mut World) {
    let n = victim(world);
    match world.dice.below(20) {
        0..=2 => world.power(n, false),
        3..=5 => {
            world.say(|| format!("n{n} freezes"));
            world.nodes[n].frozen = true;
        }
        6..=8 => {
            world.say(|| format!("n{n} loses the control network; its OSDs write on"));
            (world.nodes[n].api, world.nodes[n].mon) = (false, false);
        }
        9 | 10 => {
            world.say(|| format!("n{n} loses the API server only"));
            world.nodes[n].api = false;
        }
        11 => {
            world.say(|| format!("n{n} loses the mons only"));
            world.nodes[n].mon = false;
        }
        12 | 13 => {
            world.say(|| format!("n{n} loses the fabric"));
            world.nodes[n].fabric = false;
        }
        14 | 15 => {
            world.say(|| "a planned move".to_owned());
            planned(world);
        }
        16 => spoil(world),
        17 => world.power(n, false),
        _ => {
            spoil(world);
            world.say(|| format!("n{n} loses the control network; its OSDs write on"));
            (world.nodes[n].api, world.nodes[n].mon) = (false, false);
        }
    }
    if world.dice.once_in(3) {
        spoil(world);
    }
    if world.dice.once_in(3) {
        controller_fault(world);
    }
}

/// A fence that does not do what it says.
fn spoil(world: &mut World) {
    let osd = world.dice.index(OSDS);
    let mood = match world.dice.below(7) {
        0 | 1 => Mood::Later(1 + world.dice.below(8)),
        2 => Mood::UnlinksOnly,
        3 => Mood::Lies,
        4 => Mood::DoneUnheard,
        5 => Mood::Silent,
        _ => Mood::Refuses,
    };
    world.say(|| format!("the fence of osd.{osd}: {mood:?}"));
    world.devices[osd].mood = mood;
}

fn controller_fault(world: &mut World) {
    let who = world.dice.index(2);
    let now = world.now;
    match world.dice.below(8) {
        0..=2 => {
            let left = world.dice.below(24);
            world.say(|| format!("c{who} will die at boundary {left}"));
            world.controllers[who].dies_in = Some(left);
        }
        3 | 4 => {
            let long = 2 + world.dice.below(20);
            world.say(|| format!("c{who} hangs for {long} s"));
            world.controllers[who].hangs_until = now + long;
        }
        5 => {
            world.say(|| format!("c{who} loses the API server"));
            world.controllers[who].api_link = false;
        }
        6 => {
            world.say(|| format!("c{who} loses the mons"));
            world.controllers[who].mon_link = false;
        }
        _ => {
            world.say(|| format!("c{who} loses the targets"));
            world.controllers[who].target_link = false;
        }
    }
}

/// Something changes in the middle.
fn change(world: &mut World) {
    let n = world.dice.index(NODES);
    match world.dice.below(9) {
        0..=2 => node_returns(world, n),
        3 => {
            world.say(|| "the mons lose their quorum, or find it".to_owned());
            world.quorum = !world.quorum;
        }
        4 => {
            world.say(|| "the API server goes, or comes".to_owned());
            world.api.up = !world.api.up;
        }
        5 => controller_fault(world),
        6 => {
            let osd = world.dice.index(OSDS);
            world.say(|| format!("the fence of osd.{osd} is honest again"));
            world.devices[osd].mood = Mood::Honest;
        }
        7 => abort(world),
        _ => fault(world),
    }
}

fn node_returns(world: &mut World, n: usize) {
    if world.nodes[n].unplugged {
        return;
    }
    world.say(|| format!("n{n} is well again"));
    if !world.nodes[n].powered {
        world.power(n, true);
    }
    let node = &mut world.nodes[n];
    (node.frozen, node.api, node.mon, node.fabric) = (false, true, true, true);
    node.out_of_service = false;
}

/// A person who says that a node cannot write has pulled its plug before.
fn person(world: &mut World) {
    if !world.api.up {
        return;
    }
    let Some(stored) = world.move_in(PhaseKind::FenceRequired) else { return };
    if world.dice.once_in(2) {
        return;
    }
    let holders = &stored.relocation.holders;
    for holder in holders {
        let n = world.host(holder);
        world.power(n, false);
        world.nodes[n].unplugged = true;
        world.devices.iter_mut().for_each(|device| device.disconnect(n));
    }
    let who = Person::new("ada").unwrap();
    let word = stored.relocation.word(who, "I pulled their plugs", holders, wall(world.now));
    world.signal(0, &stored, word.expect("they spoke of all of them"));
}

fn abort(world: &mut World) {
    let open = world.open_moves();
    if open.is_empty() || !world.api.up {
        return;
    }
    let stored = open[world.dice.index(open.len())].clone();
    world.say(|| format!("a person ends {}", stored.relocation.id));
    world.signal(0, &stored, Signal::OperatorAborted);
}

/// The command: an OSD that is well, to another node.
fn planned(world: &mut World) {
    let osd = world.dice.index(OSDS);
    let Some(view) = world.controllers.iter().find_map(|it| it.memory.view.clone()) else { return };
    let shown = &view.osds[&crate::world::osd_id(osd)];
    let from = world.api.now.deployments[osd].node;
    let free = (0..NODES).find(|n| world.api.now.deployments.iter().all(|it| it.node != *n));
    let (Some(to), true) = (free, world.api.up) else { return };
    if world.open_moves().iter().any(|it| it.relocation.osd.id == shown.identity.id) {
        return;
    }
    // As the command does: from what the API server says now.
    let mut shown = shown.clone();
    let all = world.api.now.relocations.values().map(|stored| &stored.relocation);
    let last = all.filter(|it| it.osd.id == shown.identity.id).max_by_key(|it| it.generation);
    if let Some(last) = last {
        shown.generation = last.generation;
        shown.holders = last.holders_after();
    }
    let (from, to) = (world.names[from].clone(), world.names[to].clone());
    let cause = Cause::Planned { by: Person::new("ada").unwrap() };
    world.api.create(Relocation::new(&shown, from, to, cause, wall(world.now)));
}

/// Everything that was broken is whole; then the controllers get time.
fn repair(world: &mut World) {
    world.say(|| "everything is repaired".to_owned());
    world.quorum = true;
    world.api.up = true;
    for device in &mut world.devices {
        device.mood = Mood::Honest;
    }
    for controller in &mut world.controllers {
        controller.dies_in = None;
        controller.hangs_until = 0;
        (controller.api_link, controller.mon_link, controller.target_link) = (true, true, true);
    }
    // A node that was unplugged is plugged in only when nobody relies on the word any more.
    for n in 0..NODES {
        node_returns(world, n);
    }
    world.late = 0;
    for turn in 0..600 {
        world.run(2);
        if turn % 5 == 0 {
            person(world);
        }
        for n in 0..NODES {
            let name = &world.names[n];
            let relied = world.open_moves().iter().any(|it| relies_on_word(&it.relocation, name));
            if world.nodes[n].unplugged && !relied {
                world.nodes[n].unplugged = false;
                node_returns(world, n);
            }
        }
        if at_rest(world).is_none() {
            break;
        }
    }
}

/// Whether a move goes on because a person said that this node is off.
fn relies_on_word(relocation: &Relocation, node: &NodeName) -> bool {
    let basis = relocation.phase.evidence().map(Evidence::basis);
    matches!(basis, Some(Basis::Word { off, .. }) if off.contains(node))
}

/// What is not as it should be when nothing is broken any more.
fn at_rest(world: &World) -> Option<String> {
    if let Some(open) = world.open_moves().first() {
        let relocation = &open.relocation;
        return Some(format!("{} is still in {}", relocation.id, relocation.phase.kind()));
    }
    for osd in 0..OSDS {
        let deployment = world.api.now.deployments[osd];
        if world.running(osd) != [deployment.node] {
            let on = world.running(osd);
            return Some(format!("osd.{osd} runs on {on:?}, not on n{}", deployment.node));
        }
        if !world.up[osd] {
            return Some(format!("osd.{osd} is not up"));
        }
        if world.noout[osd] || deployment.mark.is_some() || deployment.replicas != 1 {
            return Some(format!("osd.{osd} still carries the mark of a move"));
        }
        let sessions = &world.devices[osd].sessions;
        if sessions.iter().any(|session| session.host != deployment.node) {
            return Some(format!("osd.{osd}'s device is connected elsewhere: {sessions:?}"));
        }
    }
    (!world.sent.is_empty()).then(|| "a command is still under way".to_owned())
}

fn check_end(world: &mut World) {
    if let Some(what) = at_rest(world) {
        world.violated(&format!("it does not come to rest: {what}"));
    }
}

/// Reads every device from its first write to its last: epochs never go back, an epoch has one
/// host, and within one the numbers only grow where the writes were not under way together.
fn check_contents(world: &mut World) {
    for osd in 0..OSDS {
        let mut owner = (0, None);
        let mut wrong = None;
        for block in &world.devices[osd].landed {
            if block.epoch > owner.0 {
                owner = (block.epoch, Some(block.host));
            } else if owner != (block.epoch, Some(block.host)) {
                wrong = Some(format!("osd.{osd}: {block:?} among the writes of {owner:?}"));
                break;
            }
        }
        if let Some(wrong) = wrong {
            world.violated(&wrong);
        }
        world.devices[osd].landed.clear();
    }
}
