//! The whole daemon but its sockets, on a host and a provisioner that exist only in memory, in real
//! time.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use heal_core::Mode;
use heal_core::paths::PathEvent;
use heal_host::{Ledger, LedgerHome};
use heal_provisioner::text::HumanGrace;
use heal_sim::kernel::KernelSignal;
use heal_sim::port::SharedProvisioner;
use heal_sim::{ArraySetup, FakeKernel, Setup as SimSetup, World};
use heal_types::control::{Request, Response};
use heal_types::status::{Explanation, Health, HostStatus};
use heal_types::{
    ControllerName, FastIoFail, GracePolicy, HostAction, HostAnswer, HostPort, IoReading, Nqn,
    Outcome, Portal, ProvisionerCall, ReplicaId, ReplicaState, RetryWhy, SocketReading,
    TransportKind,
};
use tokio::sync::oneshot;

use super::*;
use crate::config::ProvisionerConfig;
use crate::control::Peer;
use crate::hints::Sign;
use crate::host::{Isolation, Rehearsal, Wiring};
use crate::journal::Entry;
use crate::keeper;
use crate::testing::Scratch;

mod fake_host;
use fake_host::{FakeHost, run_kernel};

struct Stage {
    scratch: Scratch,
    host: FakeHost,
    provisioner: SharedProvisioner,
    config: Config,
}

/// One life of the daemon.
struct Life {
    journal: Journal,
    requests: mpsc::Sender<Inbound>,
    commands: mpsc::Sender<Command>,
    stale: mpsc::Sender<()>,
    reactor: tokio::task::JoinHandle<()>,
    kernel: tokio::task::JoinHandle<()>,
}

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

impl Stage {
    fn new(name: &str, arrays: &[&str]) -> Self {
        let arrays = arrays
            .iter()
            .map(|name| ArraySetup {
                rebuild: ms(300),
                grace: Some(GracePolicy::After(ms(400))),
                ..ArraySetup::mirror(name)
            })
            .collect();
        let world = World::new(&SimSetup { arrays, workload: Some(ms(20)), ..SimSetup::default() });
        let mut config = Config {
            mode: Mode::Heal,
            grace: HumanGrace(GracePolicy::After(ms(400))),
            provisioner: ProvisionerConfig::Fixed {
                inventory: "/nowhere/volumes.ron".into(),
                state: "/nowhere/state.ron".into(),
            },
            safety_scan: crate::config::SafetyScan::Off,
            ..Config::default()
        };
        config.timing.gone_confirm = HumanDuration(ms(50));
        config.timing.return_hold_down = HumanDuration(ms(50));
        config.timing.refresh_in_repair = HumanDuration(ms(100));
        config.timing.retry_min = HumanDuration(ms(50));
        config.timing.retry_max = HumanDuration(ms(200));
        let scratch = Scratch::new(name);
        let made = ["state", "run"].map(|name| scratch.path().join(name));
        made.iter().for_each(|path| std::fs::create_dir(path).unwrap());
        let [state, run] = made;
        config.state_dir = state;
        config.runtime_dir = run;
        Self {
            scratch,
            host: FakeHost {
                kernel: Arc::new(Mutex::new(world.kernel)),
                acts: Arc::default(),
                marked: Arc::default(),
                hangs: Arc::default(),
                isolation: Arc::new(Mutex::new(Isolation::whole())),
                isolation_asked: Arc::default(),
                busy: Arc::default(),
            },
            provisioner: SharedProvisioner::new(world.provisioner),
            config,
        }
    }

    fn start(&self) -> Life {
        let run = self.config.runtime_dir.join("ledger");
        let mut ledger = Ledger::open(&self.config.state_dir, run).unwrap();
        let durable = ledger.home() == LedgerHome::Primary;
        let found = keeper::load(&mut ledger).unwrap();
        self.start_on(Keeper::start(ledger).unwrap(), found, durable)
    }

    fn start_on(&self, keeper: Keeper, found: Found, durable: bool) -> Life {
        let journal = Journal::kept();
        let (told_sender, told) = mpsc::channel(crate::hints::ROOM);
        let (requests, request_inbox) = mpsc::channel(8);
        let (commands, command_inbox) = mpsc::channel(4);
        let (stale, stale_inbox) = mpsc::channel(1);
        let setup = Setup {
            host: self.host.clone(),
            boot: BootId("test-boot".into()),
            config: Arc::new(self.config.clone()),
            config_path: self.scratch.path().join("nvme-heald.ron"),
            journal: journal.clone(),
            keeper,
            found,
            backend: Some(Arc::new(self.provisioner.clone())),
            counted: Counted::default(),
        };
        let inboxes =
            Inboxes { told, requests: request_inbox, stale: stale_inbox, commands: command_inbox };
        let kernel = tokio::spawn(run_kernel(self.host.clone(), told_sender));
        let reactor = tokio::spawn(Reactor::new(setup, durable).run(inboxes));
        Life { journal, requests, commands, stale, reactor, kernel }
    }

    fn lose(&self, replica: &str) {
        let nqn = nqn(replica);
        self.host.kernel(|kernel| kernel.remove_namespace(&nqn));
    }

    fn restore(&self, replica: &str) {
        let nqn = nqn(replica);
        self.host.kernel(|kernel| kernel.restore_namespace(&nqn));
    }

    fn state_of(&self, replica: &str) -> Option<ReplicaState> {
        let id = ReplicaId::new(replica).unwrap();
        self.provisioner.lock().state_of(&id)
    }

    /// How many controllers fail their I/O fast.
    fn armed(&self) -> usize {
        let controllers = self.host.kernel(|kernel| kernel.snapshot()).controllers;
        let armed = |it: &FastIoFail| matches!(it, FastIoFail::After(_));
        controllers.iter().filter(|it| it.fast_io_fail.is_known_and(armed)).count()
    }

    fn requests_made(&self) -> usize {
        let provisioner = self.provisioner.lock();
        let is_request =
            |call: &&ProvisionerCall| matches!(call, ProvisionerCall::RequestReplacement { .. });
        provisioner.received().iter().filter(is_request).count()
    }
}

fn nqn(replica: &str) -> Nqn {
    Nqn::new(format!("nqn.2014-08.com.example:{replica}")).unwrap()
}

impl Life {
    async fn ask(&self, request: Request) -> Response {
        let (answer, answered) = oneshot::channel();
        let peer = Peer { uid: 0, pid: Some(1) };
        let inbound = Inbound { request, peer, answer };
        self.requests.send(inbound).await.unwrap();
        answered.await.unwrap()
    }

    async fn status(&self) -> HostStatus {
        let response = self.ask(Request::Status).await;
        let Response::Status(status) = response else {
            panic!("{response:?}");
        };
        *status
    }

    async fn explain(&self, array: &str) -> Explanation {
        let array = array.to_owned();
        let response = self.ask(Request::Explain { array }).await;
        let Response::Explanation(explanation) = response else {
            panic!("{response:?}");
        };
        *explanation
    }

    fn events(&self) -> Vec<String> {
        let entries = self.journal.entries();
        let event = |entry: &Entry| entry.field("NVME_HEAL_EVENT").map(str::to_owned);
        entries.iter().filter_map(event).collect()
    }

    fn has(&self, event: &str) -> bool {
        self.events().iter().any(|have| have == event)
    }

    async fn wait(&self, what: &str, mut holds: impl FnMut() -> bool) {
        let until = Instant::now() + Duration::from_secs(20);
        while !holds() {
            assert!(!self.reactor.is_finished(), "{what}: the reactor is gone");
            if Instant::now() > until {
                panic!("{what}: not so; journal: {:#?}", self.messages());
            }
            tokio::time::sleep(ms(5)).await;
        }
    }

    async fn wait_event(&self, event: &str) {
        self.wait(event, || self.has(event)).await;
    }

    fn messages(&self) -> Vec<String> {
        let entries = self.journal.entries();
        let message = |entry: &Entry| entry.field("MESSAGE").unwrap_or_default().to_owned();
        entries.iter().map(message).collect()
    }

    /// The clean way.
    async fn stop(self) {
        self.commands.send(Command::Stop).await.unwrap();
        tokio::time::timeout(Duration::from_secs(10), self.reactor)
            .await
            .expect("the daemon ends in time")
            .unwrap();
        self.kernel.abort();
    }

    /// As SIGKILL does.
    async fn kill(self) {
        self.reactor.abort();
        let _ = self.reactor.await;
        self.kernel.abort();
        // The thread of the ledger ends by itself here.
        tokio::time::sleep(ms(50)).await;
    }
}

#[tokio::test]
async fn a_disk_that_hangs_while_the_ledger_is_moved_to_it_keeps_nobody_waiting() {
    let stage = Stage::new("hanging", &["vol1"]);
    let (keeper, _hangs) = Keeper::hanging();
    let life = stage.start_on(keeper, Found::new(), false);
    let answered = async {
        // The second one comes after the attempt has begun.
        life.status().await;
        tokio::time::sleep(ms(50)).await;
        life.status().await
    };
    let status = tokio::time::timeout(ms(2000), answered).await.expect("the reactor answers");
    assert!(status.alarms.iter().any(|alarm| alarm.contains("takes no files")), "{status:?}");
    life.kill().await;
}

#[tokio::test]
async fn a_lost_replica_is_replaced_and_the_daemon_tells_of_it() {
    let stage = Stage::new("replaced", &["vol1"]);
    let life = stage.start();
    life.wait_event("array.managed").await;
    assert_eq!(stage.host.marked.lock().unwrap().len(), 2);
    stage.lose("vol1-b");
    life.wait_event("incident.closed").await;

    let status = life.status().await;
    assert_eq!(status.arrays.len(), 1);
    assert_eq!(status.arrays[0].health, Health::Optimal, "{status:#?}");
    // A look that was under way may see the loss before MD tells: then there is no sample.
    assert!(status.reaction.max_us.is_none_or(|max| max < 1_000_000), "{status:?}");
    assert!(status.counters.looks > 2 && status.counters.safety_scans == 0);
    assert_eq!(status.alarms, Vec::<String>::new());
    assert_eq!(stage.state_of("vol1-c"), Some(ReplicaState::Available));
    assert_eq!(stage.provisioner.lock().request_keys(), 1);
    assert_eq!(stage.host.kernel(|kernel| kernel.verify_data()), Vec::<String>::new());
    assert_eq!(stage.provisioner.published().len(), 1, "before the replacement was connected");
    let healed =
        || stage.provisioner.log().iter().any(|event| event.message == "Volume is healed.");
    life.wait("the provisioner's log is told", healed).await;
    let told: Vec<String> = stage.provisioner.log().into_iter().map(|e| e.message).collect();
    assert_eq!(
        told,
        [
            "Volume is degraded.",
            "Volume synchronization started.",
            "Volume synchronization ended.",
            "Volume is healed."
        ]
    );

    let events = life.events();
    let at = |event: &str| events.iter().position(|have| have == event).unwrap();
    assert!(at("leg.lost") < at("grace.began") && at("grace.began") < at("replacement.requested"));
    assert!(at("replacement.adding") < at("leg.in_sync"));
    let lost = life.journal.entries();
    let lost = lost.iter().find(|entry| entry.field("NVME_HEAL_EVENT") == Some("leg.lost"));
    let lost = lost.unwrap();
    assert_eq!(lost.field("NVME_HEAL_ARRAY"), Some("md127"));
    assert_eq!(lost.field("NVME_HEAL_SLOT"), Some("1"));
    assert!(lost.field("NVME_HEAL_INCIDENT").is_some());

    let explanation = life.explain("/dev/md/vol1").await;
    assert!(explanation.trail.iter().any(|entry| entry.event == "replacement.requested"));
    let refused = life.ask(Request::Explain { array: "md0".into() }).await;
    assert!(matches!(refused, Response::Refused(why) if why.contains("no array")));
    life.stop().await;
}

#[tokio::test]
async fn a_daemon_killed_again_and_again_asks_for_one_replacement() {
    let stage = Stage::new("killed", &["vol1"]);
    let mut life = stage.start();
    life.wait_event("array.managed").await;
    stage.lose("vol1-b");
    for event in ["leg.lost", "grace.began", "replacement.requested", "replacement.adding"] {
        let deadline = Instant::now() + Duration::from_secs(3);
        while !life.has(event) && Instant::now() < deadline {
            tokio::time::sleep(ms(1)).await;
        }
        life.kill().await;
        life = stage.start();
    }
    let whole = || stage.state_of("vol1-c") == Some(ReplicaState::Available);
    life.wait("whole again", whole).await;
    assert_eq!(stage.provisioner.lock().request_keys(), 1);
    assert_eq!(stage.provisioner.lock().grants(), 1);
    assert_eq!(stage.host.kernel(|kernel| kernel.verify_data()), Vec::<String>::new());
    life.stop().await;
}

#[tokio::test]
async fn a_held_array_is_not_healed_until_it_is_resumed() {
    let stage = Stage::new("held", &["vol1"]);
    let life = stage.start();
    life.wait_event("array.managed").await;
    let hold = Request::Hold { array: "vol1".into(), reason: "cabling".into(), duration: None };
    assert_eq!(life.ask(hold).await, Response::Done("vol1: held".into()));
    let unreasonable = Request::Hold { array: "vol1".into(), reason: " \n".into(), duration: None };
    assert!(matches!(life.ask(unreasonable).await, Response::Refused(_)));
    stage.lose("vol1-b");
    life.wait_event("leg.lost").await;
    tokio::time::sleep(ms(800)).await;
    assert_eq!(stage.requests_made(), 0);
    assert_eq!(stage.host.acts(), Vec::<&str>::new());
    let status = life.status().await;
    assert_eq!(status.arrays[0].health, Health::Held);

    // A hold survives the daemon.
    life.kill().await;
    let life = stage.start();
    tokio::time::sleep(ms(300)).await;
    assert_eq!(stage.host.acts(), Vec::<&str>::new());
    let resume = Request::Resume { array: "md127".into() };
    assert_eq!(life.ask(resume).await, Response::Done("md127: resumed".into()));
    life.wait_event("incident.closed").await;
    life.stop().await;
}

#[tokio::test]
async fn nothing_is_done_while_the_ledger_takes_nothing_and_everything_afterwards() {
    let stage = Stage::new("full-disk", &["vol1"]);
    let life = stage.start();
    life.wait_event("array.managed").await;
    let (state, away) = (stage.config.state_dir.clone(), stage.scratch.path().join("away"));
    std::fs::rename(&state, &away).unwrap();
    stage.lose("vol1-b");
    life.wait_event("ledger.failed").await;
    tokio::time::sleep(ms(900)).await;
    assert_eq!(stage.requests_made(), 0);
    assert_eq!(stage.host.acts(), Vec::<&str>::new());
    assert!(life.has("leg.lost"), "it is told all the same");

    std::fs::rename(&away, &state).unwrap();
    life.wait_event("incident.closed").await;
    assert_eq!(stage.provisioner.lock().request_keys(), 1);
    life.stop().await;
}

#[tokio::test]
async fn a_record_that_cannot_be_read_quarantines_its_array_alone_until_a_person_looked() {
    let stage = Stage::new("torn", &["vol1", "vol2"]);
    let life = stage.start();
    let managed = || life.events().iter().filter(|event| *event == "array.managed").count() == 2;
    life.wait("both are managed", managed).await;
    stage.lose("vol1-b");
    life.wait_event("leg.lost").await;
    life.kill().await;
    let mut torn = 0;
    for file in std::fs::read_dir(&stage.config.state_dir).unwrap() {
        let path = file.unwrap().path();
        // What the killed life had not finished is swept at the next start.
        if path.extension().is_none_or(|end| end != "ron") {
            continue;
        }
        let text = std::fs::read_to_string(&path).unwrap();
        if text.contains("LegLost") {
            let mut file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
            file.set_len(10).unwrap();
            std::io::Write::write_all(&mut file, b"(torn").unwrap();
            torn += 1;
        }
    }
    assert_eq!(torn, 1);

    let life = stage.start();
    life.wait_event("array.quarantined").await;
    stage.lose("vol2-b");
    let second = || stage.state_of("vol2-c") == Some(ReplicaState::Available);
    life.wait("the other array heals", second).await;
    assert_eq!(stage.state_of("vol1-c"), None);
    let status = life.status().await;
    let health: Vec<_> = status.arrays.iter().map(|a| (a.device.as_str(), a.health)).collect();
    assert_eq!(health[1], ("md127", Health::Quarantined), "{health:?}");

    let resume = Request::Resume { array: "vol1".into() };
    assert_eq!(life.ask(resume).await, Response::Done("vol1: resumed".into()));
    let first = || stage.state_of("vol1-c") == Some(ReplicaState::Available);
    life.wait("the first array heals", first).await;
    life.stop().await;
}

#[tokio::test]
async fn a_stop_waits_for_the_act_under_way_and_begins_no_other() {
    let stage = Stage::new("stopped", &["vol1"]);
    let life = stage.start();
    life.wait_event("array.managed").await;
    stage.host.hangs.store(true, Ordering::Relaxed);
    stage.lose("vol1-b");
    life.wait("an act is under way", || !stage.host.acts().is_empty()).await;
    life.commands.send(Command::Stop).await.unwrap();
    tokio::time::sleep(ms(100)).await;
    assert!(!life.reactor.is_finished());
    stage.host.hangs.store(false, Ordering::Relaxed);
    let journal = life.journal.clone();
    life.reactor.await.unwrap();
    life.kernel.abort();
    assert_eq!(stage.host.acts().len(), 1);
    let ended = journal.entries().iter().any(|e| e.field("NVME_HEAL_EVENT") == Some("act.ended"));
    assert!(ended, "what came of it is told");
    let life = stage.start();
    let whole = || stage.state_of("vol1-c") == Some(ReplicaState::Available);
    life.wait("the next life goes on", whole).await;
    life.stop().await;
}

#[tokio::test]
async fn a_stuck_device_holds_its_own_array_only() {
    let stage = Stage::new("stuck", &["vol1", "vol2"]);
    let life = stage.start();
    let managed = || life.events().iter().filter(|event| *event == "array.managed").count() == 2;
    life.wait("both are managed", managed).await;
    stage.host.hangs.store(true, Ordering::Relaxed);
    stage.lose("vol1-b");
    life.wait("an act hangs", || stage.host.acts().len() == 1).await;
    stage.lose("vol2-b");
    life.wait("the other array acts", || stage.host.acts().len() == 2).await;
    assert_eq!(life.status().await.arrays.len(), 2);
    stage.host.hangs.store(false, Ordering::Relaxed);
    let both = || {
        ["vol1-c", "vol2-c"]
            .iter()
            .all(|replica| stage.state_of(replica) == Some(ReplicaState::Available))
    };
    life.wait("both heal", both).await;
    life.stop().await;
}

#[tokio::test]
async fn many_arrays_that_fail_together_are_one_alarm_and_all_heal() {
    let names = ["v1", "v2", "v3", "v4", "v5"];
    let stage = Stage::new("storm", &names);
    let life = stage.start();
    let managed = || life.events().iter().filter(|event| *event == "array.managed").count() == 5;
    life.wait("all are managed", managed).await;
    for name in names {
        stage.lose(&format!("{name}-b"));
    }
    life.wait_event("host.alarm").await;
    let status = life.status().await;
    assert!(status.alarms.iter().any(|alarm| alarm.contains("lost a leg within 10s")));
    let healed =
        |name: &&str| stage.state_of(&format!("{name}-c")) == Some(ReplicaState::Available);
    life.wait("all heal", || names.iter().all(healed)).await;
    let alarms = life.events().iter().filter(|event| *event == "host.alarm").count();
    assert_eq!(alarms, 1);
    life.stop().await;
}

#[tokio::test]
async fn a_leg_that_returns_while_the_provisioner_is_down_is_taken_back() {
    let stage = Stage::new("returns", &["vol1"]);
    let life = stage.start();
    life.wait_event("array.managed").await;
    stage.provisioner.lock().mood.down = true;
    stage.lose("vol1-b");
    life.wait_event("leg.lost").await;
    stage.restore("vol1-b");
    life.wait_event("leg.in_sync").await;
    assert_eq!(stage.requests_made(), 0);
    stage.provisioner.lock().mood.down = false;
    let _ = life.stale.send(()).await;
    life.wait_event("incident.closed").await;
    life.stop().await;
}

#[tokio::test]
async fn a_stopped_daemon_leaves_no_leg_armed_and_a_killed_one_leaves_the_anchor() {
    let stage = Stage::new("disarms", &["vol1"]);
    let life = stage.start();
    life.wait("a leg is armed", || stage.armed() == 1).await;
    life.kill().await;
    assert_eq!(stage.armed(), 1);

    let life = stage.start();
    life.wait_event("array.managed").await;
    life.stop().await;
    assert_eq!(stage.armed(), 0);
}

#[tokio::test]
async fn a_controller_is_set_back_only_when_its_leg_stays_beside_its_array() {
    let stage = Stage::new("sets-back", &["vol1"]);
    let life = stage.start();
    life.wait("a leg is armed", || stage.armed() == 1).await;
    let set_back = || life.messages().iter().any(|message| message.contains("leads to no leg"));
    stage.lose("vol1-b");
    life.wait_event("leg.lost").await;
    stage.restore("vol1-b");
    life.wait_event("incident.closed").await;
    assert!(!set_back(), "{:#?}", life.messages());
    assert_eq!(stage.armed(), 1);

    let losses = || life.events().iter().filter(|event| *event == "leg.lost").count();
    stage.lose("vol1-b");
    life.wait("it is lost again", || losses() == 2).await;
    stage.host.hangs.store(true, Ordering::Relaxed);
    let back = Instant::now();
    stage.restore("vol1-b");
    life.wait("its controller is set back", set_back).await;
    // The second began with the loss, a moment before.
    assert!(back.elapsed() >= ms(900), "{:?}", back.elapsed());
    stage.host.hangs.store(false, Ordering::Relaxed);
    life.wait("the leg is armed again", || stage.armed() == 1).await;
    life.stop().await;
}

#[tokio::test]
async fn a_controller_that_leads_nowhere_any_more_is_set_back_in_a_second_or_by_a_stop() {
    for stops in [false, true] {
        let stage = Stage::new("leads-nowhere", &["vol1"]);
        let life = stage.start();
        life.wait("a leg is armed", || stage.armed() == 1).await;
        stage.lose("vol1-b");
        life.wait_event("leg.lost").await;
        assert_eq!(stage.armed(), 1, "nobody hurries");
        if !stops {
            stage.host.hangs.store(true, Ordering::Relaxed); // No other leg comes and is armed.
            life.wait("its controller is set back", || stage.armed() == 0).await;
            stage.host.hangs.store(false, Ordering::Relaxed);
        }
        life.stop().await;
        assert_eq!(stage.armed(), 0);
    }
}

#[tokio::test]
async fn a_leg_that_was_armed_since_the_last_look_is_disarmed_as_well() {
    let stage = Stage::new("disarms-late", &["vol1"]);
    let life = stage.start();
    while stage.armed() == 0 {
        tokio::task::yield_now().await;
    }
    life.stop().await;
    assert_eq!(stage.armed(), 0);
}

#[tokio::test]
async fn nothing_is_armed_while_a_controller_is_of_a_fabric_that_the_kernel_was_not_asked_about() {
    let stage = Stage::new("fabrics", &["vol1"]);
    // As if these were the first controllers over TCP of a host that had RDMA alone.
    *stage.host.isolation.lock().unwrap() = Isolation::Over([TransportKind::Rdma].into());
    let life = stage.start();
    life.wait_event("array.managed").await;
    tokio::time::sleep(ms(500)).await;
    assert_eq!(stage.armed(), 0);
    assert_eq!(life.status().await.alarms, Vec::<String>::new(), "nobody is called for that");

    // It is asked again when the controllers change.
    *stage.host.isolation.lock().unwrap() = Isolation::whole();
    stage.lose("vol1-b");
    life.wait_event("leg.lost").await;
    stage.restore("vol1-b");
    life.wait("a leg is armed", || stage.armed() == 1).await;
    life.stop().await;
}

#[tokio::test]
async fn a_leg_that_comes_and_goes_is_no_reason_to_ask_the_kernel_about_isolation_again() {
    let stage = Stage::new("asked-once", &["vol1"]);
    let life = stage.start();
    life.wait("a leg is armed", || stage.armed() == 1).await;
    let asked = || stage.host.isolation_asked.load(Ordering::Relaxed);
    let before = asked();
    stage.lose("vol1-b");
    life.wait_event("leg.lost").await;
    stage.restore("vol1-b");
    life.wait_event("leg.in_sync").await;
    assert_eq!(asked(), before);
    life.stop().await;
}

#[tokio::test]
async fn a_returned_leg_that_udev_still_has_is_taken_back_when_udev_is_done() {
    let stage = Stage::new("udev", &["vol1"]);
    let life = stage.start();
    life.wait_event("array.managed").await;
    stage.host.busy.store(true, Ordering::Relaxed);
    stage.lose("vol1-b");
    life.wait_event("leg.lost").await;
    stage.restore("vol1-b");
    life.wait_event("leg.in_sync").await;
    let acts = stage.host.acts();
    let tries = acts.iter().filter(|verb| **verb == "re_add_leg").count();
    assert_eq!(tries, 2, "at once, and when udev was done: {acts:?}");
    life.stop().await;
}

#[tokio::test]
async fn a_configuration_is_taken_up_while_running_or_refused_whole() {
    let mut stage = Stage::new("reload", &["vol1"]);
    stage.config.mode = Mode::Observe;
    let life = stage.start();
    life.wait_event("array.managed").await;
    stage.lose("vol1-b");
    life.wait_event("leg.lost").await;
    tokio::time::sleep(ms(600)).await;
    assert_eq!(stage.host.acts(), Vec::<&str>::new());

    let path = stage.scratch.path().join("nvme-heald.ron");
    let write = |text: &str| {
        let mut options = std::fs::OpenOptions::new();
        let mut file = options.create(true).write(true).truncate(true).open(&path).unwrap();
        std::io::Write::write_all(&mut file, text.as_bytes()).unwrap();
    };
    write("(mode: Heel)");
    life.commands.send(Command::Reload).await.unwrap();
    for _ in 0..200 {
        if !life.status().await.alarms.is_empty() {
            break;
        }
        tokio::time::sleep(ms(5)).await;
    }
    let status = life.status().await;
    assert!(status.alarms[0].contains("did you mean `Heal`"), "{:?}", status.alarms);
    assert_eq!(status.mode, "observe");

    write("(mode: Heal, timing: (retry_min: \"100ms\", retry_max: \"200ms\"))");
    life.commands.send(Command::Reload).await.unwrap();
    life.wait_event("incident.closed").await;
    assert_eq!(life.status().await.mode, "heal");
    life.stop().await;
}

#[test]
fn what_could_not_be_read_is_not_gone() {
    let id = ArrayId::from_bytes([1; 16]);
    let mut snapshot = HostSnapshot::default();
    assert_eq!(shown(&snapshot, id, 0), Observed::Known(None));
    snapshot.unreadable.push(heal_types::DeviceName::new("md9").unwrap());
    assert_eq!(shown(&snapshot, id, 0), Observed::Unknown(UnknownWhy::ReadFailed));
    assert_eq!(shown(&snapshot, id, 2), Observed::Unknown(UnknownWhy::Malformed));
}

#[tokio::test]
async fn an_array_is_found_by_each_of_its_names() {
    let stage = Stage::new("names", &["vol1", "vol2"]);
    let snapshot = stage.host.kernel(|kernel| kernel.snapshot());
    let find = |text: &str| requests::named(Some(&snapshot), text).len();
    for name in ["md127", "/dev/md127", "vol1", "/dev/md/vol1"] {
        assert_eq!(find(name), 1, "{name}");
    }
    for name in ["", "/dev", "/dev/md", "/dev/md/", "md1", "vol", "/etc/vol1", "../md127"] {
        assert_eq!(find(name), 0, "{name}");
    }
}

#[tokio::test]
async fn an_array_that_the_provisioner_did_not_know_is_asked_for_again_when_somebody_attaches() {
    let stage = Stage::new("knock", &["vol1"]);
    let volume = {
        let mut provisioner = stage.provisioner.lock();
        let id = heal_types::VolumeId::new("vol1").unwrap();
        let volume = provisioner.volume(&id).unwrap().clone();
        provisioner.forget_volume(&id);
        volume
    };
    let life = stage.start();
    life.wait_event("array.observed").await;
    stage.provisioner.lock().add_volume(volume, Vec::new());
    tokio::time::sleep(ms(100)).await;
    assert!(!life.has("array.managed"), "nobody said that it is worth asking again");
    for array in [None, Some("/dev/md/vol1".to_owned()), Some("/dev/md/none".to_owned())] {
        let answer = life.ask(Request::Look { array }).await;
        assert_eq!(answer, Response::Done("looking".to_owned()));
    }
    life.wait_event("array.managed").await;
    life.stop().await;
}

#[tokio::test]
async fn nothing_is_changed_while_os_brick_attaches_or_detaches() {
    let mut stage = Stage::new("os-brick", &["vol1"]);
    stage.config.os_brick.lock_paths = vec![stage.scratch.path().to_owned()];
    let lock = heal_host::connect_lock::ConnectLock::new(&stage.config.os_brick.lock_paths);
    // Nobody has locked here yet: that is no obstacle.
    drop(lock.try_hold().unwrap());
    let path = stage.scratch.path().join("os-brick-connect_volume");
    let mut os_brick = OsBrick::holding(&path);
    let life = stage.start();
    life.wait_event("array.managed").await;
    stage.lose("vol1-b");
    life.wait_event("act.begun").await;
    tokio::time::sleep(ms(300)).await;
    assert_eq!(stage.host.acts(), Vec::<&str>::new(), "os-brick is at work");
    os_brick.lets_go();
    life.wait_event("incident.closed").await;
    assert_eq!(life.status().await.arrays[0].health, Health::Optimal);
    life.stop().await;
}

/// Another process that has os-brick's lock until its standard input ends.
struct OsBrick(std::process::Child);

impl OsBrick {
    #[expect(clippy::disallowed_methods, reason = "a record lock is another process's")]
    fn holding(path: &std::path::Path) -> Self {
        let script = "import fcntl, sys\nfile = open(sys.argv[1], 'a+')\n\
                      fcntl.lockf(file, fcntl.LOCK_EX)\nprint('held', flush=True)\nsys.stdin.read()";
        let mut child = std::process::Command::new("python3")
            .args(["-c", script])
            .arg(path)
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = String::new();
        let stdout = child.stdout.take().unwrap();
        std::io::BufRead::read_line(&mut std::io::BufReader::new(stdout), &mut said).unwrap();
        assert_eq!(said, "held\n");
        Self(child)
    }

    fn lets_go(&mut self) {
        drop(self.0.stdin.take());
        self.0.wait().unwrap();
    }
}
