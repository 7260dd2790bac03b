//! Carries events out. Total: whatever the world is like, an event is done or says why it is not.

use std::time::Duration;

use heal_core::{Event, Mode, Operator};
use heal_types::{ArrayState, NamespaceId, Replica, ReplicaId, ReplicaState, Target, WallTime};

use super::event::{
    Applied, DaemonEvent, FabricEvent, FeedEvent, Garbage, LedgerEvent, MdEvent, MoodEvent,
    PersonEvent, Sight, VolumeEvent, WorldEvent,
};
use crate::World;
use crate::invariants::Trouble;
use crate::kernel::Blur;
use crate::kernel::fabric::name;
use crate::world::setup::Flaw;

/// Every verb a tool can go wrong at.
pub const VERBS: [&str; 14] = [
    "connect",
    "examine",
    "fail_leg",
    "remove_leg",
    "re_add_leg",
    "add_leg",
    "replace_leg",
    "clear_want_replacement",
    "set_raid_disks",
    "set_fast_io_fail",
    "isolate_leg",
    "delete_controller",
    "reconnect",
    "disconnect",
];

/// An id that nothing has.
const NOWHERE: NamespaceId = NamespaceId::Nguid([0x99; 16]);

const NO_REPLICA: Applied = Applied::Nothing("there is no replica of that name");
const NO_ARRAY: Applied = Applied::Nothing("there is no array of that name");
const NO_LINK: Applied = Applied::Nothing("there is no link of that name");
const UNDECIDED: Applied =
    Applied::Nothing("there are two of the array, and a person decides before adding anything");
const NO_DAEMON: Applied = Applied::Nothing("the daemon does not run");

impl World {
    /// Does what the event says, and checks every rule that must hold after it.
    pub fn apply(&mut self, event: &WorldEvent) -> Applied {
        let applied = self.carry_event(event);
        match applied {
            Applied::Done => self.checker.did(event, self.now.mono),
            Applied::Nothing(why) => self.say(format!("{event:?}: nothing is done: {why}")),
        }
        self.check_event();
        applied
    }

    fn carry_event(&mut self, event: &WorldEvent) -> Applied {
        match event {
            WorldEvent::Pass(millis) => {
                self.run_for(Duration::from_millis(*millis));
                Applied::Done
            }
            WorldEvent::Fabric(event) => self.apply_far_away(event),
            WorldEvent::Md(event) => self.apply_to_md(event),
            WorldEvent::Feed(event) => self.apply_to_feed(event),
            WorldEvent::Daemon(event) => self.apply_to_daemon(event),
            WorldEvent::Ledger(event) => self.apply_to_ledger(event),
            WorldEvent::Mood(event) => self.apply_to_mood(event),
            WorldEvent::Volume(event) => self.apply_to_volume(event),
            WorldEvent::Person(event) => self.apply_word(event),
        }
    }

    pub(super) fn knows(&self, replica: &str) -> bool {
        let mut all = self.arrays.iter().flat_map(|array| &array.replicas);
        all.any(|plan| plan.replica.id.as_str() == replica)
    }

    /// Whether the replica belongs to a volume that the provisioner knows.
    fn knows_in_volume(&self, replica: &str) -> bool {
        let mut arrays = self.arrays.iter().filter(|array| array.volume.is_some());
        arrays.any(|array| array.replicas.iter().any(|p| p.replica.id.as_str() == replica))
    }

    fn knows_array(&self, array: &str) -> bool {
        self.arrays.iter().any(|known| known.name == array)
    }

    fn on_replica(&mut self, replica: &str, act: impl FnOnce(&mut Self)) -> Applied {
        if !self.knows(replica) {
            return NO_REPLICA;
        }
        act(self);
        Applied::Done
    }

    fn on_array(&mut self, array: &str, act: impl FnOnce(&mut Self)) -> Applied {
        if !self.knows_array(array) {
            return NO_ARRAY;
        }
        act(self);
        Applied::Done
    }

    fn on_link(&mut self, link: &str, act: impl FnOnce(&mut Self)) -> Applied {
        if self.kernel.links.iter().all(|known| known.name.as_str() != link) {
            return NO_LINK;
        }
        act(self);
        Applied::Done
    }

    fn apply_far_away(&mut self, event: &FabricEvent) -> Applied {
        match event {
            FabricEvent::Exported { replica, on: true } => {
                self.on_replica(replica, |world| world.namespace_restored(replica))
            }
            FabricEvent::Exported { replica, on: false } => {
                self.on_replica(replica, |world| world.namespace_removed(replica))
            }
            FabricEvent::Reachable { replica, on: true } => {
                self.on_replica(replica, |world| world.path_up(replica))
            }
            FabricEvent::Reachable { replica, on: false } => {
                self.on_replica(replica, |world| world.path_lost(replica))
            }
            FabricEvent::Cable { link, on: true } => self.on_link(link, |world| world.plug(link)),
            FabricEvent::Cable { link, on: false } => self.on_link(link, |world| world.pull(link)),
            FabricEvent::HostLink { on } => {
                self.every_link(*on);
                Applied::Done
            }
            FabricEvent::BlackHole { link, on } => {
                self.on_link(link, |world| world.black_hole(link, *on))
            }
            FabricEvent::Frozen { replica, on } => {
                self.on_replica(replica, |world| world.frozen_target(replica, *on))
            }
            FabricEvent::AnaUsable { replica, on } => {
                self.on_replica(replica, |world| world.ana_usable(replica, *on))
            }
            FabricEvent::Serving { replica, on } => {
                self.on_replica(replica, |world| world.target_serving(replica, *on))
            }
            FabricEvent::TargetGone(replica) => {
                self.on_replica(replica, |world| world.target_gone(replica))
            }
            FabricEvent::Detached(replica) => {
                self.on_replica(replica, |world| world.controllers_give_up(replica))
            }
            FabricEvent::Attached(replica) => {
                self.on_replica(replica, |world| world.connected_by_hand(replica))
            }
            FabricEvent::Flawed { replica, flaw } => self.flaw_unused(replica, flaw),
        }
    }

    fn every_link(&mut self, on: bool) {
        let word = if on { "back" } else { "pulled" };
        self.say(format!("every cable of the host is {word}"));
        let links: Vec<_> = self.kernel.links.iter().map(|link| link.name.clone()).collect();
        for link in links {
            self.kernel.set_carrier(&link, on);
        }
        self.after_kernel();
    }

    /// A medium that holds anybody's data is not changed by this: that would be the fault, not the
    /// healer.
    fn flaw_unused(&mut self, replica: &str, flaw: &Flaw) -> Applied {
        if !self.knows(replica) {
            return NO_REPLICA;
        }
        let nqn = self.nqn(replica);
        if self.kernel.was_written_to(&nqn) || self.is_leg(replica) {
            return Applied::Nothing("it is in use, or was");
        }
        let known = |id: &NamespaceId| {
            self.arrays.iter().flat_map(|a| &a.replicas).any(|plan| plan.namespace == *id)
        };
        if let Flaw::CloneOf(id) | Flaw::OldCopyOf(id) = flaw
            && !known(id)
        {
            return NO_REPLICA;
        }
        self.say(format!("{replica} is flawed: {flaw:?}"));
        self.flawed(replica, flaw);
        Applied::Done
    }

    fn is_leg(&self, replica: &str) -> bool {
        let id = self.namespace(replica);
        self.kernel.leg_of(&id).is_some()
    }

    fn apply_to_md(&mut self, event: &MdEvent) -> Applied {
        match event {
            MdEvent::Hiccup(replica) => self.on_replica(replica, |world| world.hiccup(replica)),
            MdEvent::BadBlock { replica, stubborn: false } => {
                self.on_replica(replica, |world| world.bad_block(replica))
            }
            MdEvent::BadBlock { replica, stubborn: true } => {
                self.on_replica(replica, |world| world.stubborn_bad_block(replica))
            }
            MdEvent::FailedByHand(replica) => {
                self.on_replica(replica, |world| world.failed_by_hand(replica))
            }
            MdEvent::RemovedByHand(replica) => {
                self.on_replica(replica, |world| world.removed_by_hand(replica))
            }
            MdEvent::AddedByHand { array, replica } => {
                if !self.knows(replica) {
                    return NO_REPLICA;
                }
                if self.knows_array(array) && self.kernel.is_parted(self.array(array)) {
                    return UNDECIDED;
                }
                self.on_array(array, |world| world.added_by_hand(array, replica))
            }
            MdEvent::AddedFrom { array, replica } => {
                if !self.knows(replica) {
                    return NO_REPLICA;
                }
                if self.knows_array(array) && self.kernel.is_parted(self.array(array)) {
                    return UNDECIDED;
                }
                self.on_array(array, |world| world.added_from(array, replica))
            }
            MdEvent::StartedAlone { array, replica } => {
                if !self.knows(replica) {
                    return NO_REPLICA;
                }
                if !self.knows_array(array) {
                    return NO_ARRAY;
                }
                if self.started_alone_from(array, replica) {
                    return Applied::Done;
                }
                Applied::Nothing("it runs, or the leg is not there")
            }
            MdEvent::SyncFrozen { array, on } => {
                self.on_array(array, |world| world.frozen(array, *on))
            }
            MdEvent::ReadOnly { array, on } => self.on_array(array, |world| {
                let word = if *on { "read-only" } else { "writable" };
                world.say(format!("another tool makes {array} {word}"));
                let id = world.array(array);
                world.kernel.force_state(id, on.then_some(ArrayState::Readonly));
                world.after_kernel();
            }),
            MdEvent::Stopped(array) => self.on_array(array, |world| world.array_stopped(array)),
            MdEvent::Assembled(array) => self.on_array(array, |world| world.array_assembled(array)),
        }
    }

    fn apply_to_feed(&mut self, event: &FeedEvent) -> Applied {
        match event {
            FeedEvent::Signals { fault, count } => {
                self.say(format!("of the next {count} signals: {fault:?}"));
                self.feed.disturb(*fault, *count);
            }
            FeedEvent::Overrun(millis) => {
                self.say(format!("for {millis} ms every signal is lost"));
                self.overrun(Duration::from_millis(*millis));
            }
            FeedEvent::OneLook(sight) => {
                let Some(blur) = self.blur_of(sight) else {
                    return Applied::Nothing("there is nothing of that name to see");
                };
                if self.restart_at.is_some() {
                    return NO_DAEMON;
                }
                self.one_look_with(blur);
            }
            FeedEvent::Unreadable { sight, millis } => {
                let fails = match sight {
                    Sight::Array(_) | Sight::Leg(_) | Sight::Holders(_) => self.blur_of(sight),
                    Sight::HalfStopped(_) | Sight::LegGone(_) => None,
                };
                let Some(blur) = fails else {
                    return Applied::Nothing("there is nothing of that name that cannot be read");
                };
                self.blurred_for(blur, Duration::from_millis(*millis));
            }
            FeedEvent::FilledLater { replica, millis } => {
                let time = Duration::from_millis(*millis);
                return self.on_replica(replica, |world| world.filled_later(replica, time));
            }
        }
        Applied::Done
    }

    fn apply_to_daemon(&mut self, event: &DaemonEvent) -> Applied {
        match event {
            DaemonEvent::Tool { verb, fault } => {
                let Some(verb) = VERBS.into_iter().find(|known| known == verb) else {
                    return Applied::Nothing("there is no such verb");
                };
                self.spoil_next(verb, *fault);
            }
            DaemonEvent::Killed => {
                if self.restart_at.is_some() {
                    return NO_DAEMON;
                }
                self.crash_daemon();
            }
            DaemonEvent::KilledAtBoundary(ahead) => {
                self.say(format!("the daemon will be killed at an effect soon: {ahead}"));
                let ahead = usize::try_from(*ahead).unwrap_or(usize::MAX);
                self.crash_at(self.boundaries().saturating_add(1).saturating_add(ahead));
            }
            DaemonEvent::SlowActs(millis) => {
                self.say(format!("acts begin {millis} ms after they were decided"));
                self.act_delay = Duration::from_millis(*millis);
            }
            DaemonEvent::Rebooted => self.reboot(),
            DaemonEvent::ClockJumps(seconds) => {
                self.say(format!("the wall clock jumps by {seconds} s"));
                let WallTime(millis) = self.now.wall;
                let jump = seconds.saturating_mul(1000);
                self.now.wall = WallTime(millis.saturating_add_signed(jump));
            }
        }
        Applied::Done
    }

    fn apply_to_ledger(&mut self, event: &LedgerEvent) -> Applied {
        match event {
            LedgerEvent::Write(fault) => {
                self.say(format!("within the next write of a record: {fault:?}"));
                self.disk.fail_next(Some(*fault));
                self.checker.trouble(Trouble::Disk);
            }
            LedgerEvent::DiskFull(full) => self.disk_full(*full),
            LedgerEvent::RecordTorn(array) => return self.tear_record(array),
            LedgerEvent::RecordLost(array) => return self.lose_record(array),
        }
        Applied::Done
    }

    fn blur_of(&self, sight: &Sight) -> Option<Blur> {
        match sight {
            Sight::Array(name) | Sight::HalfStopped(name) if !self.knows_array(name) => None,
            Sight::Leg(name) | Sight::LegGone(name) | Sight::Holders(name) if !self.knows(name) => {
                None
            }
            Sight::Array(name) => Some(Blur::Array(self.array(name))),
            Sight::HalfStopped(name) => Some(Blur::HalfStopped(self.array(name))),
            Sight::Leg(name) => Some(Blur::Leg(self.namespace(name))),
            Sight::LegGone(name) => Some(Blur::LegGone(self.namespace(name))),
            Sight::Holders(name) => Some(Blur::Holders(self.namespace(name))),
        }
    }

    fn tear_record(&mut self, array: &str) -> Applied {
        if !self.knows_array(array) {
            return NO_ARRAY;
        }
        let id = self.array(array);
        if !self.disk.tear(id) {
            return Applied::Nothing("there is no record of it");
        }
        self.say(format!("the record of {array} is torn"));
        Applied::Done
    }

    fn lose_record(&mut self, array: &str) -> Applied {
        if !self.knows_array(array) {
            return NO_ARRAY;
        }
        if self.restart_at.is_none() {
            return Applied::Nothing("the daemon runs");
        }
        let id = self.array(array);
        self.say(format!("the record of {array} is tidied away"));
        self.disk.remove(id);
        self.record_is_lost(id);
        Applied::Done
    }

    fn apply_to_mood(&mut self, event: &MoodEvent) -> Applied {
        match event {
            MoodEvent::ProvisionerUp(up) => self.provisioner_down(!up),
            MoodEvent::ProvisionerSlow(millis) => {
                self.say(format!("the provisioner takes {millis} ms longer"));
                self.provisioner.mood.slow = Duration::from_millis(*millis);
            }
            MoodEvent::Refuses(on) => self.provisioner_refuses(on.then_some("no capacity")),
            MoodEvent::AnswerLost => {
                self.say("the next answer of the provisioner is lost");
                self.provisioner.mood.lose_answer = true;
            }
            MoodEvent::Pending(times) => {
                self.say(format!("the provisioner answers {times} times that it is being made"));
                self.provisioner.mood.pending = *times;
            }
            MoodEvent::Nonsense(on) => {
                self.say(format!("the provisioner contradicts itself: {on}"));
                self.provisioner.mood.nonsense = *on;
            }
            MoodEvent::Stale(on) => {
                self.say(format!("the provisioner answers what is so now, for ever: {on}"));
                self.provisioner.stand_still(*on);
            }
            MoodEvent::Lies(None) => {
                self.say("the provisioner tells the truth");
                self.provisioner.mood.lie = None;
            }
            MoodEvent::Lies(Some((replica, state))) => return self.lie(replica, *state),
            MoodEvent::GrantsAgain(None) => self.grants_again(None),
            MoodEvent::GrantsAgain(Some(replica)) => {
                return self.on_replica(replica, |world| world.grants_again(Some(replica)));
            }
            MoodEvent::GrantsGarbage(garbage) => return self.grant_garbage(garbage.as_ref()),
            MoodEvent::KeepsUnusable(on) => {
                self.say(format!("the provisioner keeps what is unusable: {on}"));
                self.provisioner.mood.keeps_unusable = *on;
            }
        }
        Applied::Done
    }

    fn lie(&mut self, replica: &str, state: ReplicaState) -> Applied {
        self.on_replica(replica, |world| {
            world.say(format!("the provisioner says that {replica} is {state:?}"));
            let id = world.plan(replica).replica.id.clone();
            world.provisioner.mood.lie = Some((id, state));
        })
    }

    fn grant_garbage(&mut self, garbage: Option<&Garbage>) -> Applied {
        let granted = match garbage {
            None => None,
            Some(Garbage::Nowhere) => Some(nowhere()),
            Some(Garbage::Of(replica) | Garbage::NamespaceOf(replica)) if !self.knows(replica) => {
                return NO_REPLICA;
            }
            Some(Garbage::Of(replica)) => Some(self.plan(replica).replica.clone()),
            Some(Garbage::NamespaceOf(replica)) => {
                let id: ReplicaId = name(format!("copy-of-{replica}"));
                Some(Replica { id, ..self.plan(replica).replica.clone() })
            }
        };
        self.say(format!("the provisioner grants garbage: {garbage:?}"));
        self.provisioner.mood.garbage = granted;
        Applied::Done
    }

    fn apply_to_volume(&mut self, event: &VolumeEvent) -> Applied {
        match event {
            VolumeEvent::Terminating(replica)
            | VolumeEvent::WantedAgain(replica)
            | VolumeEvent::Withdrawn(replica)
            | VolumeEvent::ReplacedByItself(replica)
                if !self.knows_in_volume(replica) =>
            {
                return NO_REPLICA;
            }
            VolumeEvent::Terminating(replica) => self.terminating(replica),
            VolumeEvent::WantedAgain(replica)
                if self.replica_state(replica) != Some(ReplicaState::Terminating)
                    || !self.is_in_sync(replica) =>
            {
                return Applied::Nothing("it is not unwanted, or no good leg any more");
            }
            VolumeEvent::WantedAgain(replica) => self.wanted_again(replica),
            VolumeEvent::Withdrawn(replica) if self.is_leg(replica) => {
                return Applied::Nothing("it is a leg");
            }
            VolumeEvent::Withdrawn(replica) => self.withdrawn(replica),
            VolumeEvent::ReplacedByItself(replica) => self.replaced_by_itself(replica),
            VolumeEvent::Copies { array, copies } => {
                return self.on_array(array, |world| world.copies(array, *copies));
            }
            VolumeEvent::VolumeStale(array) => {
                return self.on_array(array, |world| world.volume_stale(array));
            }
        }
        Applied::Done
    }

    fn apply_word(&mut self, event: &PersonEvent) -> Applied {
        if self.restart_at.is_some() && !matches!(event, PersonEvent::Observe(_)) {
            return NO_DAEMON;
        }
        match event {
            PersonEvent::Hold { array, seconds } => {
                let until = seconds.map(|s| self.now.wall.after(Duration::from_secs(s)));
                self.on_array(array, |world| {
                    let (reason, by) = ("the dice said so".to_owned(), "alice".to_owned());
                    let id = world.array(array);
                    let hold = Operator::Hold { reason, by, until };
                    world.deliver(id, Event::Operator(hold));
                })
            }
            PersonEvent::Resume(array) => self.on_array(array, |world| {
                let id = world.array(array);
                world.kernel.decide_for_the_running_side(id);
                world.operator_resume(array);
            }),
            PersonEvent::Observe(observe) => {
                self.mode(if *observe { Mode::Observe } else { Mode::Heal });
                Applied::Done
            }
        }
    }
}

fn nowhere() -> Replica {
    Replica {
        id: name("nowhere".to_owned()),
        state: ReplicaState::Synchronizing,
        target: Target {
            nqn: name("nqn.2014-08.com.example:nowhere".to_owned()),
            namespace: NOWHERE,
            portals: Vec::new(),
            size: None,
        },
    }
}
