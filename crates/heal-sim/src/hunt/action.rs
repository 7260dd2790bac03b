//! From what the dice want to what is done: an action looks at the world and becomes events.

use std::time::Duration;

use heal_core::phase::PhaseKind;
use heal_types::{ForeignKind, ReplicaState};

use super::apply::VERBS;
use super::dice::Dice;
use super::event::{
    DaemonEvent, FabricEvent, FeedEvent, Garbage, LedgerEvent, MdEvent, MoodEvent, PersonEvent,
    Sight, VolumeEvent, WorldEvent,
};
use super::table::{Action, MoodWish, Table, VolumeWish};
use crate::World;
use crate::kernel::ToolFault;
use crate::world::feed::FeedFault;
use crate::world::ledger::WriteFault;
use crate::world::setup::{Flaw, ReplicaPlan};

const TOOL_FAULTS: [ToolFault; 5] = [
    ToolFault::Fails,
    ToolFault::Hangs,
    ToolFault::HangsAfterDoing,
    ToolFault::DoneUnheard,
    ToolFault::CannotStart,
];
const WRITE_FAULTS: [WriteFault; 4] = [
    WriteFault::DiesBeforeRename,
    WriteFault::DiesAfterRename,
    WriteFault::Refused,
    WriteFault::RefusedAfterRename,
];
const LIES: [ReplicaState; 6] = [
    ReplicaState::Available,
    ReplicaState::Synchronizing,
    ReplicaState::Missing,
    ReplicaState::Terminating,
    ReplicaState::Bad,
    ReplicaState::Unknown,
];

/// How far ahead an ambush looks.
const AHEAD: Duration = Duration::from_secs(90);

/// Phases that are waited for: those that are over soon more often.
const AMBUSHED: [PhaseKind; 13] = [
    PhaseKind::Suspect,
    PhaseKind::Isolating,
    PhaseKind::Grace,
    PhaseKind::Returning,
    PhaseKind::Returning,
    PhaseKind::Requesting,
    PhaseKind::Connecting,
    PhaseKind::Verifying,
    PhaseKind::Verifying,
    PhaseKind::Adding,
    PhaseKind::Adding,
    PhaseKind::Rebuilding,
    PhaseKind::Retiring,
];

/// Phases in which an act is about a disk that nobody holds.
const SWAPPED: [PhaseKind; 3] = [PhaseKind::Returning, PhaseKind::Verifying, PhaseKind::Adding];

/// What is done there.
const STRIKES: [Action; 18] = [
    Action::NamespaceGoes,
    Action::CablesGo,
    Action::FrozenTarget,
    Action::TargetDies,
    Action::OsBrick,
    Action::Hand,
    Action::SecondHealer,
    Action::BehindItsBack,
    Action::Clone,
    Action::StopAndAssemble,
    Action::Flaw,
    Action::ToolFails,
    Action::Killed,
    Action::Hold,
    Action::Overrun,
    Action::Volume(VolumeWish::Withdrawn),
    Action::Volume(VolumeWish::Terminating),
    Action::Volume(VolumeWish::ReplacedByItself),
];

/// The same, where cables are all that goes.
const PATH_STRIKES: [Action; 8] = [
    Action::OneCable,
    Action::CablesGo,
    Action::BlackHole,
    Action::FrozenTarget,
    Action::ToolFails,
    Action::Killed,
    Action::Hold,
    Action::Volume(VolumeWish::Terminating),
];

/// What happens next, and the pause after it.
pub fn next(table: Table, world: &World, dice: &mut Dice) -> Vec<WorldEvent> {
    let Some(action) = dice.weigh(table.weights()) else { return Vec::new() };
    let mut choice = Choice { table, world, dice, hurts: false };
    let mut events = choice.events(action).unwrap_or_default();
    let pause = match (action, dice.below(3)) {
        // A blow is followed by the next one while it still hurts.
        (Action::Strike, 0 | 1) | (_, 0) => dice.below(500),
        (_, 1) => dice.below(20_000),
        (_, _) => dice.below(table.longest_pause() * 1000),
    };
    events.push(WorldEvent::Pass(pause));
    events
}

struct Choice<'a> {
    table: Table,
    world: &'a World,
    dice: &'a mut Dice,
    /// Whatever is done, it is done to what a repair is about.
    hurts: bool,
}

impl Choice<'_> {
    fn events(&mut self, action: Action) -> Option<Vec<WorldEvent>> {
        let event = match action {
            Action::NamespaceGoes => {
                fabric(FabricEvent::Exported { replica: self.leg()?, on: false })
            }
            Action::NamespaceReturns => {
                fabric(FabricEvent::Exported { replica: self.replica()?, on: true })
            }
            Action::CablesGo => fabric(FabricEvent::Reachable { replica: self.leg()?, on: false }),
            Action::CablesReturn => {
                fabric(FabricEvent::Reachable { replica: self.replica()?, on: true })
            }
            Action::OneCable => {
                let (link, on) = (self.link()?, self.dice.below(7) > 3);
                fabric(FabricEvent::Cable { link, on })
            }
            Action::BlackHole => {
                fabric(FabricEvent::BlackHole { link: self.link()?, on: self.coin() })
            }
            Action::FrozenTarget => {
                fabric(FabricEvent::Frozen { replica: self.leg()?, on: self.coin() })
            }
            Action::Ana => fabric(FabricEvent::AnaUsable { replica: self.leg()?, on: self.coin() }),
            Action::TargetDies if self.dice.once_in(4) => {
                fabric(FabricEvent::TargetGone(self.leg()?))
            }
            Action::TargetDies => {
                fabric(FabricEvent::Serving { replica: self.leg()?, on: self.coin() })
            }
            Action::HostLink => return Some(self.host_link()),
            Action::Strike => return self.strike(),
            Action::OsBrick => return self.os_brick(),
            Action::SecondHealer => return self.second_healer(),
            Action::Hand => self.hand()?,
            Action::Medium => self.medium()?,
            Action::ArrayState => self.array_state()?,
            Action::StopAndAssemble => return self.stop_and_assemble(),
            Action::Signals => self.signals(),
            Action::Overrun => WorldEvent::Feed(FeedEvent::Overrun(50 + self.dice.below(5_000))),
            Action::BlurredLook => WorldEvent::Feed(FeedEvent::OneLook(self.sight()?)),
            Action::Unreadable => {
                let sight = match self.dice.below(3) {
                    0 => Sight::Array(self.array()?),
                    1 => Sight::Leg(self.replica()?),
                    _ => Sight::Holders(self.replica()?),
                };
                let millis = *self.dice.choose(&[500, 5_000, 20_000, 60_000])?;
                WorldEvent::Feed(FeedEvent::Unreadable { sight, millis })
            }
            Action::SlowActs => {
                let millis = *self.dice.choose(&[0, 5, 200, 2_000])?;
                WorldEvent::Daemon(DaemonEvent::SlowActs(millis))
            }
            Action::Swap => return self.swap(),
            Action::Ambush => return self.ambush(),
            Action::BehindItsBack => return self.behind_its_back(),
            Action::Clone => return self.clone_of_a_leg(),
            Action::StaleStart => return self.stale_start(),
            Action::FilledLater => {
                let (replica, millis) = (self.replica()?, self.dice.below(5_000));
                WorldEvent::Feed(FeedEvent::FilledLater { replica, millis })
            }
            Action::ToolFails => self.tool()?,
            Action::Killed => WorldEvent::Daemon(DaemonEvent::Killed),
            Action::KilledSoon => {
                WorldEvent::Daemon(DaemonEvent::KilledAtBoundary(self.dice.small(12).into()))
            }
            Action::Reboot => return self.reboot(),
            Action::ClockJumps => {
                let jump = *self.dice.choose(&[-86_400, -600, -5, 5, 600, 86_400])?;
                WorldEvent::Daemon(DaemonEvent::ClockJumps(jump))
            }
            Action::LedgerWrite => {
                WorldEvent::Ledger(LedgerEvent::Write(*self.dice.choose(&WRITE_FAULTS)?))
            }
            Action::DiskFull => WorldEvent::Ledger(LedgerEvent::DiskFull(self.coin())),
            Action::RecordTorn => return self.record(LedgerEvent::RecordTorn),
            Action::RecordLost => return self.record(LedgerEvent::RecordLost),
            Action::Mood(wish) => WorldEvent::Mood(self.mood(wish)?),
            Action::Volume(wish) => WorldEvent::Volume(self.volume(wish)?),
            Action::Hold => {
                let seconds = self.coin().then(|| self.dice.below(120));
                WorldEvent::Person(PersonEvent::Hold { array: self.array()?, seconds })
            }
            Action::Resume => WorldEvent::Person(PersonEvent::Resume(self.array()?)),
            Action::Observe => WorldEvent::Person(PersonEvent::Observe(self.coin())),
            Action::Flaw => fabric(self.flaw()?),
        };
        Some(vec![event])
    }

    fn coin(&mut self) -> bool {
        self.dice.once_in(2)
    }

    /// A managed array.
    fn array(&mut self) -> Option<String> {
        let managed = self.world.arrays.iter().filter(|array| array.volume.is_some());
        let names: Vec<&String> = managed.map(|array| &array.name).collect();
        self.dice.choose(&names).map(|name| (*name).clone())
    }

    /// A replica that is a leg, and seldom any other one; of strangers too.
    fn leg(&mut self) -> Option<String> {
        if let Some(hurt) = self.hurt() {
            return Some(hurt);
        }
        if self.dice.once_in(5) {
            return self.replica();
        }
        let all = self.world.arrays.iter().flat_map(|array| &array.replicas);
        let bound = all.filter(|plan| self.world.kernel.leg_of(&plan.namespace).is_some());
        let names: Vec<String> = bound.map(|plan| plan.replica.id.to_string()).collect();
        self.dice.choose(&names).cloned()
    }

    /// A replica that the provisioner speaks of.
    fn replica(&mut self) -> Option<String> {
        if let Some(hurt) = self.hurt() {
            return Some(hurt);
        }
        let all = self.world.arrays.iter().flat_map(|array| &array.replicas);
        let known = all.filter(|plan| self.world.provisioner.state_of(&plan.replica.id).is_some());
        let names: Vec<String> = known.map(|plan| plan.replica.id.to_string()).collect();
        self.dice.choose(&names).cloned()
    }

    /// A replica that nobody has offered yet, or no longer.
    fn spare(&mut self) -> Option<String> {
        let managed = self.world.arrays.iter().filter(|array| array.volume.is_some());
        let all = managed.flat_map(|array| &array.replicas);
        let unknown =
            all.filter(|plan| self.world.provisioner.state_of(&plan.replica.id).is_none());
        let names: Vec<String> = unknown.map(|plan| plan.replica.id.to_string()).collect();
        self.dice.choose(&names).cloned()
    }

    /// A link that leads to a replica that the provisioner speaks of.
    fn link(&mut self) -> Option<String> {
        let replica = self.replica()?;
        let links = self.world.kernel.links_of(&self.world.nqn(&replica));
        self.dice.choose(&links).map(ToString::to_string)
    }

    fn host_link(&mut self) -> Vec<WorldEvent> {
        vec![
            fabric(FabricEvent::HostLink { on: false }),
            WorldEvent::Pass(self.dice.below(45_000)),
            fabric(FabricEvent::HostLink { on: true }),
        ]
    }

    /// What a repair is about: the replica that is being brought in, or another leg while one is
    /// out.
    fn hurting(&mut self) -> Option<String> {
        let now = self.world.now();
        let statuses: Vec<_> = self.world.machines.values().map(|m| m.status(now)).collect();
        let mut hurt: Vec<String> = Vec::new();
        for status in statuses.iter().filter(|status| !status.repairs.is_empty()) {
            hurt.extend(status.repairs.iter().filter_map(|repair| repair.incoming.clone()));
            hurt.extend(status.legs.iter().filter_map(|leg| leg.replica.clone()));
        }
        hurt.retain(|name| self.world.knows(name));
        self.dice.choose(&hurt).cloned()
    }

    /// The array whose replica that is.
    fn home(&self, replica: &str) -> Option<String> {
        let own = |plan: &ReplicaPlan| plan.replica.id.as_str() == replica;
        let home = self.world.arrays.iter().find(|array| array.replicas.iter().any(own));
        home.map(|array| array.name.clone())
    }

    fn hurt(&mut self) -> Option<String> {
        if self.hurts && !self.dice.once_in(4) { self.hurting() } else { None }
    }

    /// Waits until a repair is in some phase, and strikes there: phases that are over in a moment
    /// are met by chance too seldom. What is to come is seen in a copy of the world.
    fn ambush(&mut self) -> Option<Vec<WorldEvent>> {
        let phase = *self.dice.choose(&AMBUSHED)?;
        // Where no namespace ever goes, only what the table has.
        let (strikes, otherwise) = match self.table {
            Table::Paths => (PATH_STRIKES.as_slice(), Action::OneCable),
            Table::Faults
            | Table::Hands
            | Table::Ledger
            | Table::Provisioner
            | Table::Signals
            | Table::Crowd
            | Table::Everything => (STRIKES.as_slice(), Action::Strike),
        };
        let action = *self.dice.choose(strikes)?;
        if self.world.is_at_rest() {
            return self.events(otherwise);
        }
        let mut ahead = self.world.clone();
        ahead.transcript.silence();
        let there = |world: &World| world.machines.values().any(|machine| machine.is_in(phase));
        if !ahead.run_until(there, AHEAD) {
            return self.events(otherwise);
        }
        let waited = ahead.now().mono.since(self.world.now().mono);
        let millis = u64::try_from(waited.as_millis()).ok()? + 1 + self.dice.below(3);
        let mut choice = Choice { world: &ahead, table: self.table, dice: self.dice, hurts: true };
        let mut events = vec![WorldEvent::Pass(millis)];
        events.extend(choice.events(action)?);
        Some(events)
    }

    /// An act is decided and begins late, and meanwhile the disk that it is about goes and comes
    /// back: under its old name and number, and another disk for all that anybody knows.
    fn swap(&mut self) -> Option<Vec<WorldEvent>> {
        let phase = *self.dice.choose(&SWAPPED)?;
        if self.world.is_at_rest() {
            return self.events(Action::Strike);
        }
        let delay = 500 + self.dice.below(2_000);
        let late = WorldEvent::Daemon(DaemonEvent::SlowActs(delay));
        let mut ahead = self.world.clone();
        ahead.transcript.silence();
        ahead.apply(&late);
        let there = |world: &World| world.machines.values().any(|machine| machine.is_in(phase));
        if !ahead.run_until(there, AHEAD) {
            return self.events(Action::Strike);
        }
        let waited = ahead.now().mono.since(self.world.now().mono);
        let millis = u64::try_from(waited.as_millis()).ok()? + 1;
        let plans = ahead.arrays.iter().flat_map(|array| &array.replicas);
        let idle = plans.filter(|plan| {
            let there = ahead.kernel.has_controllers(&plan.nqn);
            there && ahead.kernel.leg_of(&plan.namespace).is_none()
        });
        let idle: Vec<String> = idle.map(|plan| plan.replica.id.to_string()).collect();
        let replica = self.dice.choose(&idle)?.clone();
        let exported = |on| fabric(FabricEvent::Exported { replica: replica.clone(), on });
        Some(vec![
            late,
            WorldEvent::Pass(millis + self.dice.below(delay / 2)),
            exported(false),
            WorldEvent::Pass(self.dice.below(50)),
            exported(true),
            WorldEvent::Pass(delay),
            WorldEvent::Daemon(DaemonEvent::SlowActs(0)),
        ])
    }

    /// While nobody listens another hand fails a leg, takes it out and adds it again.
    fn behind_its_back(&mut self) -> Option<Vec<WorldEvent>> {
        let replica = self.leg()?;
        let array = self.home(&replica)?;
        let mut events = Vec::new();
        let pause = |dice: &mut Dice, below| WorldEvent::Pass(dice.below(below));
        let dark = self.dice.once_in(3);
        if dark {
            events.push(fabric(FabricEvent::Reachable { replica: replica.clone(), on: false }));
            events.push(pause(self.dice, 400));
        }
        events.push(if self.coin() {
            WorldEvent::Daemon(DaemonEvent::Killed)
        } else {
            WorldEvent::Feed(FeedEvent::Overrun(1_000 + self.dice.below(4_000)))
        });
        events.push(pause(self.dice, 20));
        events.push(WorldEvent::Md(MdEvent::FailedByHand(replica.clone())));
        events.push(pause(self.dice, 200));
        events.push(WorldEvent::Md(MdEvent::RemovedByHand(replica.clone())));
        events.push(pause(self.dice, 200));
        if dark {
            events.push(fabric(FabricEvent::Reachable { replica: replica.clone(), on: true }));
        }
        events.push(WorldEvent::Md(MdEvent::AddedByHand { array, replica }));
        Some(events)
    }

    /// Another hand adds a clone of a leg, its id included.
    fn clone_of_a_leg(&mut self) -> Option<Vec<WorldEvent>> {
        let (leg, replica) = (self.leg()?, self.spare()?);
        let array = self.home(&leg)?;
        let flaw = Flaw::CloneOf(self.world.namespace(&leg));
        Some(vec![
            fabric(FabricEvent::Flawed { replica: replica.clone(), flaw }),
            WorldEvent::Md(MdEvent::AddedFrom { array, replica }),
        ])
    }

    /// A leg is lost, the array goes on without it, and a boot starts the array from that very leg.
    fn stale_start(&mut self) -> Option<Vec<WorldEvent>> {
        let leg = self.leg()?;
        let plans = self.world.arrays.iter();
        let own = |plan: &ReplicaPlan| plan.replica.id.as_str() == leg;
        let array = plans.clone().find(|array| array.replicas.iter().any(own))?;
        let name = array.name.clone();
        let bound = |plan: &&ReplicaPlan| {
            self.world.kernel.leg_of(&plan.namespace).is_some_and(|leg| leg.array == array.id)
        };
        let others: Vec<String> = array
            .replicas
            .iter()
            .filter(|plan| !own(plan) && bound(plan))
            .map(|plan| plan.replica.id.to_string())
            .collect();
        let late = !self.dice.once_in(3);
        let exported =
            |replica: &String, on| fabric(FabricEvent::Exported { replica: replica.clone(), on });
        let mut events = vec![
            exported(&leg, false),
            WorldEvent::Pass(200 + self.dice.below(20_000)),
            WorldEvent::Daemon(DaemonEvent::Rebooted),
        ];
        if late {
            events.extend(others.iter().map(|other| exported(other, false)));
        }
        events.push(exported(&leg, true));
        events.push(WorldEvent::Pass(self.dice.below(3_000)));
        events.push(WorldEvent::Md(MdEvent::StartedAlone { array: name, replica: leg }));
        events.push(WorldEvent::Pass(self.dice.below(60_000)));
        if late {
            events.extend(others.iter().map(|other| exported(other, true)));
        }
        for other in plans.filter(|plan| plan.id != array.id) {
            events.push(WorldEvent::Md(MdEvent::Assembled(other.name.clone())));
        }
        Some(events)
    }

    /// Where it hurts.
    fn strike(&mut self) -> Option<Vec<WorldEvent>> {
        let replica = match self.hurting() {
            Some(replica) => replica,
            None => self.leg()?,
        };
        let event = match self.dice.below(6) {
            0 | 1 => FabricEvent::Exported { replica, on: false },
            2 => FabricEvent::Exported { replica, on: true },
            3 => FabricEvent::Reachable { replica, on: false },
            4 => FabricEvent::Reachable { replica, on: true },
            _ => FabricEvent::Frozen { replica, on: self.coin() },
        };
        Some(vec![fabric(event)])
    }

    /// Attach and detach of a volume, as Nova has them done, close to each other.
    fn os_brick(&mut self) -> Option<Vec<WorldEvent>> {
        // Also one that is no leg yet: it comes back under its old name, on a new disk.
        let replica = if self.coin() { self.leg()? } else { self.replica()? };
        let mut events = vec![fabric(FabricEvent::Detached(replica.clone()))];
        if self.coin() {
            events.push(WorldEvent::Pass(self.dice.below(2_000)));
            events.push(fabric(FabricEvent::Attached(replica)));
        }
        Some(events)
    }

    /// Another healer acts on the array: it does what ours would, without asking anybody.
    fn second_healer(&mut self) -> Option<Vec<WorldEvent>> {
        let other = self.replica()?;
        let array = self.home(&other)?;
        let lost = self.leg().filter(|lost| self.home(lost).as_ref() == Some(&array))?;
        let pause = |dice: &mut Dice| WorldEvent::Pass(dice.below(300));
        let mut events = Vec::new();
        if self.coin() {
            events.push(WorldEvent::Md(MdEvent::RemovedByHand(lost.clone())));
            events.push(pause(self.dice));
        }
        events.push(fabric(FabricEvent::Attached(other.clone())));
        events.push(pause(self.dice));
        let replica = if self.coin() { lost } else { other };
        events.push(WorldEvent::Md(MdEvent::AddedByHand { array, replica }));
        Some(events)
    }

    fn hand(&mut self) -> Option<WorldEvent> {
        let replica = self.leg()?;
        Some(WorldEvent::Md(match self.dice.below(4) {
            0 => MdEvent::FailedByHand(replica),
            1 => MdEvent::AddedByHand { array: self.home(&replica)?, replica },
            _ => MdEvent::RemovedByHand(replica),
        }))
    }

    fn medium(&mut self) -> Option<WorldEvent> {
        let replica = self.leg()?;
        Some(WorldEvent::Md(match self.dice.below(3) {
            0 => MdEvent::Hiccup(replica),
            1 => MdEvent::BadBlock { replica, stubborn: false },
            _ => MdEvent::BadBlock { replica, stubborn: self.dice.once_in(4) },
        }))
    }

    fn array_state(&mut self) -> Option<WorldEvent> {
        let (array, on) = (self.array()?, self.coin());
        Some(WorldEvent::Md(if self.dice.once_in(3) {
            MdEvent::ReadOnly { array, on }
        } else {
            MdEvent::SyncFrozen { array, on }
        }))
    }

    fn stop_and_assemble(&mut self) -> Option<Vec<WorldEvent>> {
        let array = self.array()?;
        Some(vec![
            WorldEvent::Md(MdEvent::Stopped(array.clone())),
            WorldEvent::Pass(self.dice.below(30_000)),
            WorldEvent::Md(MdEvent::Assembled(array)),
        ])
    }

    fn reboot(&mut self) -> Option<Vec<WorldEvent>> {
        let mut events = vec![
            WorldEvent::Daemon(DaemonEvent::Rebooted),
            WorldEvent::Pass(self.dice.below(30_000)),
        ];
        for array in &self.world.arrays {
            events.push(WorldEvent::Md(MdEvent::Assembled(array.name.clone())));
        }
        Some(events)
    }

    fn signals(&mut self) -> WorldEvent {
        let late = u32::from(self.dice.small(5_000));
        let faults =
            [FeedFault::Lost, FeedFault::Late(late), FeedFault::Doubled, FeedFault::Reversed];
        let fault = self.dice.choose(&faults).copied().unwrap_or(FeedFault::Lost);
        let count = 1 + u32::from(self.dice.small(8));
        WorldEvent::Feed(FeedEvent::Signals { fault, count })
    }

    fn sight(&mut self) -> Option<Sight> {
        Some(match self.dice.below(5) {
            0 => Sight::Array(self.array()?),
            1 => Sight::HalfStopped(self.array()?),
            2 => Sight::Leg(self.replica()?),
            3 => Sight::LegGone(self.replica()?),
            _ => Sight::Holders(self.replica()?),
        })
    }

    fn tool(&mut self) -> Option<WorldEvent> {
        let verb = (*self.dice.choose(&VERBS)?).to_owned();
        let mut fault = *self.dice.choose(&TOOL_FAULTS)?;
        if fault == ToolFault::CannotStart && self.table == Table::Paths {
            fault = ToolFault::Fails;
        }
        Some(WorldEvent::Daemon(DaemonEvent::Tool { verb, fault }))
    }

    /// The daemon dies, and its record is not what it was when it starts.
    fn record(&mut self, what: impl Fn(String) -> LedgerEvent) -> Option<Vec<WorldEvent>> {
        let array = self.array()?;
        let mut events =
            vec![WorldEvent::Daemon(DaemonEvent::Killed), WorldEvent::Ledger(what(array.clone()))];
        if self.coin() {
            events.push(WorldEvent::Pass(1_000 + self.dice.below(20_000)));
            events.push(WorldEvent::Person(PersonEvent::Resume(array)));
        }
        Some(events)
    }

    fn mood(&mut self, wish: MoodWish) -> Option<MoodEvent> {
        Some(match wish {
            MoodWish::ProvisionerUpOrDown => MoodEvent::ProvisionerUp(self.coin()),
            MoodWish::ProvisionerSlow => {
                MoodEvent::ProvisionerSlow(*self.dice.choose(&[0, 1_000, 20_000, 90_000])?)
            }
            MoodWish::Refuses => MoodEvent::Refuses(self.coin()),
            MoodWish::Pending => MoodEvent::Pending(self.dice.small(4).into()),
            MoodWish::Nonsense => MoodEvent::Nonsense(self.coin()),
            MoodWish::Stale => MoodEvent::Stale(self.coin()),
            MoodWish::Lies if self.coin() => MoodEvent::Lies(None),
            MoodWish::Lies => MoodEvent::Lies(Some((self.replica()?, *self.dice.choose(&LIES)?))),
            MoodWish::GrantsAgain if self.coin() => MoodEvent::GrantsAgain(None),
            MoodWish::GrantsAgain => MoodEvent::GrantsAgain(Some(self.replica()?)),
            MoodWish::Garbage => MoodEvent::GrantsGarbage(match self.dice.below(5) {
                0 | 1 => None,
                2 => Some(Garbage::Nowhere),
                3 => Some(Garbage::NamespaceOf(self.replica()?)),
                _ => Some(Garbage::Of(self.replica()?)),
            }),
            MoodWish::KeepsUnusable => MoodEvent::KeepsUnusable(self.coin()),
            MoodWish::AnswerLost => MoodEvent::AnswerLost,
        })
    }

    fn volume(&mut self, wish: VolumeWish) -> Option<VolumeEvent> {
        Some(match wish {
            VolumeWish::Terminating => VolumeEvent::Terminating(self.replica()?),
            VolumeWish::WantedAgain => VolumeEvent::WantedAgain(self.replica()?),
            VolumeWish::Withdrawn => VolumeEvent::Withdrawn(self.replica()?),
            VolumeWish::ReplacedByItself => VolumeEvent::ReplacedByItself(self.replica()?),
            VolumeWish::Copies => {
                VolumeEvent::Copies { array: self.array()?, copies: 2 + self.dice.small(2) }
            }
            VolumeWish::VolumeStale => VolumeEvent::VolumeStale(self.array()?),
        })
    }

    fn flaw(&mut self) -> Option<FabricEvent> {
        // One that is being brought in is what it is, and was read: only its shape may still
        // change.
        if let Some(replica) = self.hurt() {
            let flaws = [Flaw::TooSmall, Flaw::LargeBlocks, Flaw::ReadOnly, Flaw::Partitioned];
            let flaw = self.dice.choose(&flaws)?.clone();
            return Some(FabricEvent::Flawed { replica, flaw });
        }
        let replica = self.spare()?;
        let flaw = match self.dice.below(9) {
            0 => Flaw::Foreign(ForeignKind::Filesystem("ext4".into())),
            1 => Flaw::OtherArray,
            2 => Flaw::TooSmall,
            3 => Flaw::LargeBlocks,
            4 => Flaw::ReadOnly,
            5 => Flaw::WrongNamespace,
            6 => Flaw::Partitioned,
            _ => Flaw::OldCopyOf(self.world.namespace(&self.leg()?)),
        };
        Some(FabricEvent::Flawed { replica, flaw })
    }
}

fn fabric(event: FabricEvent) -> WorldEvent {
    WorldEvent::Fabric(event)
}
