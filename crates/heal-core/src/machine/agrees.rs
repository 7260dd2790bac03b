//! The machine agrees with its table: every signal in every phase, cell by cell.

use std::sync::Arc;
use std::time::Duration;

use heal_types::{
    ArraySnapshot, ArrayState, Bitmap, BootId, CallKey, DevT, DeviceIdentity, DeviceName,
    GracePolicy, Level, Metadata, Moment, NamespaceId, Now, Nqn, Observed, Portal, Replica,
    ReplicaId, ReplicaState, SectorCount, Slot, SyncAction, Target, TransportAddress,
    TransportKind, Volume, VolumeId, WallTime,
};

use super::{ArrayMachine, Standing};
use crate::phase::{Phase, PhaseKind, Repair, Turn};
use crate::policy::{Mode, Policy};
use crate::record::{Member, Step};
use crate::restart;
use crate::signal::{Signal, SignalKind};
use crate::telling::Telling;
use crate::transitions::{Verdict, verdict};
use crate::why::{Cause, DoubtWhy, HeldWhy, QuarantinedWhy, RejectedWhy};

const NOW: Now = Now { mono: Moment(50_000_000_000), wall: WallTime(1_800_000_000_000) };
const SLOT: Slot = Slot(1);

fn nqn(n: u8) -> Nqn {
    Nqn::new(format!("nqn.2026-01.org.example:r{n}")).unwrap()
}

fn namespace(n: u8) -> NamespaceId {
    NamespaceId::Nguid([n; 16])
}

fn replica(n: u8) -> Replica {
    Replica {
        id: ReplicaId::new(format!("r{n}")).unwrap(),
        state: ReplicaState::Available,
        target: Target {
            nqn: nqn(n),
            namespace: namespace(n),
            portals: vec![Portal {
                transport: TransportKind::Tcp,
                address: TransportAddress::new("10.0.0.1").unwrap(),
                port: 4420,
                host_address: None,
                host_interface: None,
            }],
            size: None,
        },
    }
}

fn device(n: u8) -> DeviceIdentity {
    DeviceIdentity {
        device: DeviceName::new(format!("nvme{n}n1")).unwrap(),
        dev: DevT { major: 259, minor: u32::from(n) },
        diskseq: Observed::Known(heal_types::DiskSeq(u64::from(n))),
        namespace: namespace(n),
        nqn: nqn(n),
    }
}

fn member(n: u8) -> Member {
    Member {
        device: Some(DeviceName::new(format!("nvme{n}n1")).unwrap()),
        dev: Some(DevT { major: 259, minor: u32::from(n) }),
        md_device: None,
        namespace: Some(namespace(n)),
        nqn: Some(nqn(n)),
        replica: Some(ReplicaId::new(format!("r{n}")).unwrap()),
    }
}

fn machine() -> ArrayMachine {
    let id = heal_types::ArrayId::from_bytes([7; 16]);
    let policy = Policy {
        mode: Mode::Heal,
        provisioned: true,
        grace: GracePolicy::After(Duration::from_secs(60)),
        ..Policy::default()
    };
    let mut machine = ArrayMachine::new(id, BootId("boot".into()), policy);
    machine.array = Observed::Known(Some(Arc::new(ArraySnapshot {
        id,
        device: DeviceName::new("md0").unwrap(),
        dev: DevT { major: 9, minor: 0 },
        alias: None,
        level: Level::Raid1,
        metadata: Metadata::V1,
        state: Observed::Known(ArrayState::Clean),
        raid_disks: 2,
        degraded: Observed::Known(1),
        sync_action: Observed::Known(SyncAction::Idle),
        sync_progress: None,
        reshaping: false,
        component_size: Observed::Known(SectorCount(1000)),
        logical_block: Observed::Known(512),
        bitmap: Observed::Known(Bitmap::Present),
        in_flight: Observed::Known(0),
        legs: Vec::new(),
    })));
    machine.standing = Standing::Managed;
    let volume = Volume {
        id: VolumeId::new("vol").unwrap(),
        array: Some(id),
        alias: None,
        copies: 2,
        replicas: vec![replica(1), replica(2)],
        grace: None,
    };
    machine.volume.remember(Some(volume), Vec::new());
    machine.members.insert(SLOT, member(2));
    machine
}

fn phase(kind: PhaseKind) -> Option<Phase> {
    let turn = Turn::now();
    Some(match kind {
        PhaseKind::Whole => return None,
        PhaseKind::Suspect => Phase::Suspect { why: DoubtWhy::DeviceGone, decide_at: None },
        PhaseKind::Isolating => Phase::Isolating { since: NOW.mono, turn },
        PhaseKind::Reporting => Phase::Reporting,
        PhaseKind::Grace => Phase::Grace,
        PhaseKind::Returning => Phase::Returning { device: device(2), turn },
        PhaseKind::Requesting => Phase::Requesting { key: CallKey::new("k").unwrap(), turn },
        PhaseKind::Connecting => Phase::Connecting { connected_at: None, turn },
        PhaseKind::Verifying => Phase::Verifying { device: device(3), turn },
        PhaseKind::Adding => Phase::Adding { device: device(3), turn },
        PhaseKind::Rebuilding => Phase::Rebuilding { progress: None },
        PhaseKind::Retiring => Phase::Retiring { turn },
        PhaseKind::Held => {
            Phase::Held { why: HeldWhy::Budget, then: Step::Grace, until: None, wants: None }
        }
        PhaseKind::Quarantined => Phase::Quarantined {
            why: QuarantinedWhy::DuplicateLeg { detail: String::new() },
            then: Step::Retire,
        },
    })
}

fn signal(kind: SignalKind) -> Signal {
    match kind {
        SignalKind::LegDoubtful => Signal::LegDoubtful(DoubtWhy::DeviceGone),
        SignalKind::LegFailed => Signal::LegFailed,
        SignalKind::LegInSync => Signal::LegInSync,
        SignalKind::LegRecovering => Signal::LegRecovering(None),
        SignalKind::LegReturned => Signal::LegReturned(device(2)),
        SignalKind::LegLeft => Signal::LegLeft,
        SignalKind::NamespaceFound => Signal::NamespaceFound(device(3)),
        SignalKind::ReplicaTerminating => Signal::ReplicaTerminating,
        SignalKind::BadBlocks => Signal::BadBlocks,
        SignalKind::MoreCopies => Signal::MoreCopies(Box::new(replica(3))),
        SignalKind::FewerCopies => Signal::FewerCopies,
        SignalKind::ReplicaReplaced => Signal::ReplicaReplaced(Box::new(replica(3))),
        SignalKind::ReplicaWithdrawn => Signal::ReplicaWithdrawn,
        SignalKind::Granted => Signal::Granted(Box::new(replica(3))),
        SignalKind::Refused => Signal::Refused("no".into()),
        SignalKind::Durable => Signal::Durable,
        SignalKind::DeadlinePassed => Signal::DeadlinePassed,
        SignalKind::StepDone => Signal::StepDone,
        SignalKind::StepAgain => Signal::StepAgain,
        SignalKind::StepRefused => {
            Signal::StepRefused { verb: "add_leg".into(), detail: "no".into() }
        }
        SignalKind::Rejected => Signal::Rejected(RejectedWhy::ReadOnly),
        SignalKind::Settled => Signal::Settled,
        SignalKind::NoLongerNeeded => Signal::NoLongerNeeded,
        SignalKind::HoldBegan => Signal::HoldBegan(HeldWhy::ArrayBusy),
        SignalKind::HoldEnded => Signal::HoldEnded,
        SignalKind::ArrayGone => Signal::ArrayGone,
        SignalKind::Contradiction => {
            Signal::Contradiction(QuarantinedWhy::DuplicateLeg { detail: "x".into() })
        }
    }
}

fn in_phase(kind: PhaseKind) -> ArrayMachine {
    let mut machine = machine();
    if let Some(phase) = phase(kind) {
        machine.open_incident(NOW);
        machine.repairs.insert(
            SLOT,
            Repair {
                slot: SLOT,
                cause: Cause::LegLost,
                began: NOW.wall,
                lost: Some(member(2)),
                incoming: Some(replica(3)),
                also_retire: Vec::new(),
                asks_for: None,
                grace: None,
                return_after: None,
                request: None,
                rejected: Vec::new(),
                bound: None,
                not_again: None,
                since: NOW.wall,
                phase,
            },
        );
    }
    machine
}

fn kind_of(machine: &ArrayMachine) -> PhaseKind {
    machine.repairs.get(&SLOT).map_or(PhaseKind::Whole, |repair| repair.phase.kind())
}

#[test]
fn the_machine_does_what_the_table_says_in_every_cell() {
    for from in PhaseKind::ALL {
        for kind in SignalKind::ALL {
            let mut machine = in_phase(from);
            let step = machine.repairs.get(&SLOT).map(|repair| restart::step_of(&repair.phase));
            machine.signal(NOW, SLOT, signal(kind));
            let to = kind_of(&machine);
            let cell = format!("{kind} in {from} led to {to}");
            match verdict(from, kind) {
                Verdict::Go(wanted) => {
                    assert_eq!(to, wanted, "{cell}");
                    assert!(machine.quarantine.is_none(), "{cell}, quarantined");
                }
                Verdict::Resume => {
                    let then = match step {
                        Some(Step::Hold { then, .. }) => *then,
                        Some(step) => step,
                        None => panic!("nothing to resume: {cell}"),
                    };
                    assert_eq!(to, restart::resume(&then).kind(), "{cell}");
                }
                Verdict::Stay(_) => {
                    assert_eq!(to, from, "{cell}");
                    assert!(machine.quarantine.is_none(), "{cell}, quarantined");
                }
                Verdict::Illegal => {
                    assert!(machine.quarantine.is_some(), "{cell}, not quarantined");
                }
            }
        }
    }
}

#[test]
fn every_move_leaves_a_line_in_the_audit() {
    for from in PhaseKind::ALL {
        for kind in SignalKind::ALL {
            let mut machine = in_phase(from);
            machine.out.audit.clear();
            machine.signal(NOW, SLOT, signal(kind));
            if kind_of(&machine) != from {
                let told = machine.out.audit.iter().map(Telling::entry).any(|entry| {
                    entry.field("STATE_BEFORE") == Some(from.word()) && entry.slot == Some(SLOT)
                });
                assert!(told, "{kind} in {from}");
            }
        }
    }
}

#[test]
fn every_step_survives_being_put_down_and_taken_up() {
    for kind in PhaseKind::ALL {
        let machine = in_phase(kind);
        let record = machine.record();
        let (again, _) = ArrayMachine::recover(
            record.clone(),
            machine.boot.clone(),
            machine.policy.clone(),
            NOW,
        );
        let mut twice = again.record();
        twice.generation = record.generation;
        assert_eq!(twice.owed, record.owed, "{kind}");
        assert_eq!(twice.connected, record.connected, "{kind}");
        assert_eq!(twice.incident, record.incident, "{kind}");
        assert_eq!(twice.repairs.len(), record.repairs.len(), "{kind}");
        assert!(twice.intents.is_empty(), "{kind}: intents of an earlier life are closed");
    }
}
