use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use heal_core::LookCause;
use heal_core::audit::AuditEntry;
use heal_core::guards::Footing;
use heal_core::record::{Intent, SCHEMA};
use heal_core::{EffectId, Look};
use heal_host::Ledger;
use heal_types::{
    ControllerName, DevT, DeviceIdentity, DiskSeq, HostAction, HostAnswer, HostPort, HostSnapshot,
    IoReading, NamespaceId, Nqn, Portal, RetryWhy, SocketReading, UnknownWhy, WallTime,
};

use super::*;
use crate::executor::Board;
use crate::host::{Host, Isolation, Rehearsal, Wiring};
use crate::testing::Scratch;

/// A host without anything, which counts what it is asked to do.
#[derive(Debug, Clone, Default)]
struct EmptyHost {
    acts: Arc<Mutex<Vec<&'static str>>>,
    /// It cannot be read while this is set.
    hangs: Arc<AtomicBool>,
}

impl HostPort for EmptyHost {
    fn look(&mut self) -> HostSnapshot {
        while self.hangs.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(1));
        }
        HostSnapshot::default()
    }

    fn glance(&mut self, _: ArrayId) -> HostSnapshot {
        self.look()
    }

    fn act(&mut self, action: &HostAction) -> HostAnswer {
        self.acts.lock().unwrap().push(action.verb());
        Outcome::Changed.into()
    }
}

impl Host for EmptyHost {
    fn await_settled(&self, _: DevT) {}
    fn mark_managed(&self, _: &BTreeSet<DevT>) {}
    fn stuck_children(&self) -> u64 {
        0
    }

    fn wiring(&mut self, _: &[(ControllerName, Portal)]) -> Option<Wiring> {
        Some(Wiring::default())
    }

    fn read_sockets(
        &mut self,
        _: &[ControllerName],
    ) -> Vec<(ControllerName, Option<SocketReading>)> {
        Vec::new()
    }

    fn read_io(&mut self, _: &[ControllerName]) -> Vec<(ControllerName, IoReading)> {
        Vec::new()
    }

    fn rehearse(&mut self, _: ArrayId, _: Rehearsal) {}

    fn isolation(&mut self) -> Isolation {
        Isolation::whole()
    }
}

struct Bench {
    _scratch: Scratch,
    host: EmptyHost,
    mailbox: Mailbox,
    actor: Actor,
}

fn id() -> ArrayId {
    ArrayId::from_bytes([3; 16])
}

fn bench(name: &str, origin: Origin) -> Bench {
    let scratch = Scratch::new(name);
    let ledger = Ledger::open(scratch.path(), scratch.path().join("run")).unwrap();
    let (reports, inbox) = mpsc::unbounded_channel();
    // The reactor of these tests listens for as long as the process lives.
    std::mem::forget(inbox);
    let shared = Shared {
        boot: BootId("boot".into()),
        journal: Journal::kept(),
        forwarder: Forwarder::default(),
        keeper: Keeper::start(ledger).unwrap(),
        reactions: Arc::default(),
        reports: reports.clone(),
        isolation_off: Arc::default(),
    };
    let host = EmptyHost::default();
    let mailbox = Mailbox::default();
    let executor = Executor::start(host.clone(), id(), Board::default(), mailbox.clone(), reports);
    let caller = Caller::start(None, Duration::from_secs(1), mailbox.clone());
    let config = Arc::new(Config::default());
    let hands = (executor, caller);
    let (actor, _) = Actor::new(id(), None, origin, config, shared, mailbox.clone(), hands);
    Bench { _scratch: scratch, host, mailbox, actor }
}

fn record(intents: Vec<Intent>) -> ArrayRecord {
    let text = format!(
        "(schema: {SCHEMA}, generation: 4, array: \"{}\", next_effect: 9, incident: None, \
         members: [], repairs: [], owed: [], intents: [], connected: {{}}, volume: None, hold: None, \
         quarantine: None)",
        id()
    );
    let mut record: ArrayRecord = heal_provisioner::ron_text::parse(&text, "record").unwrap();
    record.intents = intents;
    record
}

fn act(number: u64) -> (EffectId, Effect) {
    let id_of_act = EffectId { incident: IncidentId(uuid::Uuid::from_u128(1)), number };
    let effect = Effect::Act {
        id: id_of_act,
        action: HostAction::Examine {
            device: DeviceIdentity {
                device: DeviceName::new("nvme1n1").unwrap(),
                dev: DevT { major: 259, minor: 1 },
                diskseq: Observed::Known(DiskSeq(1)),
                namespace: NamespaceId::Eui([1; 8]),
                nqn: Nqn::new("nqn.x").unwrap(),
            },
        },
        footing: Box::new(Footing { array: id(), volume: None }),
    };
    (id_of_act, effect)
}

async fn answer(bench: &Bench) -> (EffectId, Outcome) {
    let mail = bench.mailbox.next().await;
    let Mail::Answer(Event::Acted { id, answer }) = mail else {
        panic!("{mail:?}");
    };
    (id, answer.outcome)
}

#[tokio::test]
async fn an_act_without_a_durable_intent_is_refused() {
    let mut bench = bench("no-intent", Origin::Fresh);
    let (number, effect) = act(1);
    bench.actor.begin(vec![effect]);
    let refused = Outcome::Refused(RefusedWhy::NoDurableIntent);
    assert_eq!(answer(&bench).await, (number, refused));
    assert!(bench.host.acts.lock().unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn an_urgent_act_that_hangs_is_begun_no_second_time_until_it_came_back() {
    let bench = bench("hangs", Origin::Fresh);
    let (reports, _inbox) = mpsc::unbounded_channel();
    let (host, mailbox) = (bench.host.clone(), bench.mailbox.clone());
    let executor = Executor::start(host, id(), Board::default(), mailbox, reports);
    let urgent = |number| {
        let (id, Effect::Act { action, footing, .. }) = act(number) else {
            panic!("an act");
        };
        drop(executor.act_now(vec![Order { id, action, footing, sign: None }]));
    };
    bench.host.hangs.store(true, Ordering::Relaxed);
    urgent(1);
    assert_eq!(answer(&bench).await.1, Outcome::Unknown(UnknownWhy::NoAnswer));
    urgent(2);
    let (_, stuck) = answer(&bench).await;
    assert!(matches!(stuck, Outcome::Retry { why: RetryWhy::Stuck, .. }), "{stuck:?}");
    bench.host.hangs.store(false, Ordering::Relaxed);
    let mut number = 3;
    urgent(number);
    while let Outcome::Retry { why: RetryWhy::Stuck, .. } = answer(&bench).await.1 {
        tokio::time::sleep(Duration::from_millis(1)).await;
        number += 1;
        assert!(number < 10_000, "its thread has come back");
        urgent(number);
    }
}

#[tokio::test]
async fn an_act_whose_guard_does_not_hold_on_a_fresh_look_is_refused() {
    let (number, effect) = act(1);
    let intent = Intent {
        id: number,
        verb: "examine".into(),
        slot: None,
        disconnects: None,
        connects: None,
        first: false,
        at: WallTime(1),
    };
    let origin = Origin::Record(Box::new(record(vec![intent])));
    let mut bench = bench("guard", origin);
    bench.actor.begin(vec![effect]);
    let (answered, outcome) = answer(&bench).await;
    assert_eq!(answered, number);
    assert!(matches!(outcome, Outcome::Refused(RefusedWhy::Guard { .. })), "{outcome:?}");
    assert!(bench.host.acts.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_call_without_a_provisioner_is_answered_at_once() {
    let mut bench = bench("no-provisioner", Origin::Fresh);
    let (number, _) = act(2);
    let query = heal_types::VolumeQuery { array: id(), alias: None };
    let call = heal_types::ProvisionerCall::FindVolume(query);
    bench.actor.begin(vec![Effect::Call { id: number, call }]);
    let Mail::Answer(Event::Answered { answer, .. }) = bench.mailbox.next().await else {
        panic!("a call is answered");
    };
    assert_eq!(answer.unwrap_err().class, FaultClass::Unsupported);
}

#[tokio::test]
async fn a_look_from_before_our_last_act_is_thrown_away_and_its_first_sign_is_kept() {
    let mut bench = bench("old-look", Origin::Fresh);
    let sight = |begun, signalled_at: Option<u64>| Sight {
        look: Box::new(Look {
            array: Observed::Known(None),
            namespaces: vec![],
            subsystems: vec![],
            cause: LookCause::Md,
        }),
        begun: Moment(begun),
        signalled_at: signalled_at.map(Moment),
    };
    bench.actor.acted_at = Moment(100);
    bench.actor.see(sight(99, Some(98))).await;
    assert!(!bench.actor.seen);
    assert_eq!(bench.actor.first_sign, Some(Moment(98)));
    bench.actor.see(sight(101, None)).await;
    assert!(bench.actor.seen);
    assert_eq!(bench.actor.first_sign, None);
}

#[tokio::test]
async fn the_trail_is_bounded() {
    let mut bench = bench("trail", Origin::Fresh);
    let entry = AuditEntry {
        kind: AuditKind::LegLost,
        severity: heal_core::audit::Severity::Warning,
        at: WallTime(1),
        message: "m".into(),
        incident: None,
        action: None,
        slot: None,
        fields: vec![],
    };
    bench.actor.log(&vec![entry.into(); TRAIL + 50], None);
    assert_eq!(bench.actor.trail.len(), TRAIL);
    assert_eq!(bench.actor.shared.journal.entries().len(), TRAIL + 50);
}

#[tokio::test]
async fn the_first_decision_after_mds_word_is_the_reaction_and_the_others_are_not() {
    let mut bench = bench("reaction", Origin::Fresh);
    let entry = |kind| AuditEntry {
        kind,
        severity: heal_core::audit::Severity::Warning,
        at: WallTime(1),
        message: "m".into(),
        incident: None,
        action: None,
        slot: None,
        fields: vec![],
    };
    let audit = [AuditKind::IncidentOpened, AuditKind::LegLost, AuditKind::LegLost];
    let audit = audit.map(|kind| Telling::from(entry(kind)));
    bench.actor.log(&audit, None);
    assert_eq!(bench.actor.shared.reactions.summary().count, 0);
    bench.actor.log(&audit, Some(clock::moment()));
    assert_eq!(bench.actor.shared.reactions.summary().count, 1);
}
