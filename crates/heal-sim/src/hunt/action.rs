//! From what the dice want to what is done: an action looks at the world and becomes events.

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
use crate::world::setup::Flaw;

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

/// What happens next, and the pause after it.
pub fn next(table: Table, world: &World, dice: &mut Dice) -> Vec<WorldEvent> {
    let Some(action) = dice.weigh(table.weights()) else { return Vec::new() };
    let mut events = Choice { table, world, dice }.events(action).unwrap_or_default();
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

    /// Where it hurts: the replica that is being brought in, or another leg while one is out.
    fn strike(&mut self) -> Option<Vec<WorldEvent>> {
        let now = self.world.now();
        let statuses: Vec<_> = self.world.machines.values().map(|m| m.status(now)).collect();
        let mut hurt: Vec<String> = Vec::new();
        for status in statuses.iter().filter(|status| !status.repairs.is_empty()) {
            hurt.extend(status.repairs.iter().filter_map(|repair| repair.incoming.clone()));
            hurt.extend(status.legs.iter().filter_map(|leg| leg.replica.clone()));
        }
        let replica = match self.dice.choose(&hurt) {
            Some(replica) => replica.clone(),
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
        let (array, lost, other) = (self.array()?, self.leg()?, self.replica()?);
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
            1 => MdEvent::AddedByHand { array: self.array()?, replica },
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
        let replica = self.spare()?;
        let flaw = match self.dice.below(7) {
            0 => Flaw::Foreign(ForeignKind::Filesystem("ext4".into())),
            1 => Flaw::OtherArray,
            2 => Flaw::TooSmall,
            3 => Flaw::LargeBlocks,
            4 => Flaw::ReadOnly,
            5 => Flaw::WrongNamespace,
            _ => Flaw::Partitioned,
        };
        Some(FabricEvent::Flawed { replica, flaw })
    }
}

fn fabric(event: FabricEvent) -> WorldEvent {
    WorldEvent::Fabric(event)
}
