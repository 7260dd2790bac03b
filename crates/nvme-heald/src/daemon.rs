//! Puts the daemon together on the host it runs on, and takes it apart again.
//!
//! The order of the start is the order of trust: the journal, so that everything after it is told;
//! the ledger, because nothing may act without it; the control socket, because two daemons must not
//! run; the sources before the first look, so that nothing falls in between.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use heal_host::enumerate::{Enumerator, Settle};
use heal_host::events::Sources;
use heal_host::network::NetworkReader;
use heal_host::pathio;
use heal_host::sysfs::Root;
use heal_host::{Ledger, LedgerHome, LinuxHost, Tools, clock, priority};
use heal_types::{
    ArrayId, BootId, ControllerName, DevT, HostAction, HostAnswer, HostPort, HostSnapshot,
    IoReading, Observed, Permits, Portal, SocketReading,
};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tracing_subscriber::layer::SubscriberExt as _;

use crate::backend;
use crate::config::{Config, Loaded};
use crate::control::knock::Knocker;
use crate::control::{self, Control};
use crate::hints::{self, Counted};
use crate::host::{Host, Isolation, Rehearsal, Wiring};
use crate::journal::{Diagnostics, JOURNALD, Journal};
use crate::keeper::{self, Keeper};
use crate::reactor::{Command, Inboxes, Reactor, Setup};

/// Threads that may block: looks, and one act for each array at work. The unit allows 1024 tasks,
/// children included.
const BLOCKING: usize = 256;
/// How long udev may take with a device before it is opened all the same.
const SETTLE: Duration = Duration::from_secs(5);
/// How long the last entries may take to be written.
const FLUSH: Duration = Duration::from_secs(2);

/// Runs the daemon until it is told to stop.
pub(crate) fn run(loaded: Loaded, config_path: PathBuf) -> anyhow::Result<()> {
    let journal = Journal::start(Path::new(JOURNALD)).context("cannot start the journal")?;
    let subscriber = tracing_subscriber::registry()
        .with(loaded.config.log_level.filter())
        .with(Diagnostics::new(journal.clone()));
    tracing::subscriber::set_global_default(subscriber).context("cannot start diagnostics")?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(BLOCKING)
        .on_thread_start(priority::step_back)
        .build()
        .context("cannot start the runtime")?;
    stay_in_memory();
    // This thread hears of a lost path and decides; those of the pool are ordinary.
    let standing = priority::step_ahead();
    tracing::info!(%standing, "the thread that decides");
    // A task like the others: to wake the future that the runtime itself waits for takes a system
    // call.
    let life = runtime.spawn(live(loaded, config_path, journal.clone()));
    let result = runtime.block_on(life).context("the daemon broke off").and_then(|lived| lived);
    if let Err(error) = &result {
        tracing::error!("cannot run: {error:#}");
    }
    journal.flush(FLUSH);
    // A thread that hangs in the kernel is not waited for.
    runtime.shutdown_background();
    result
}

/// The root disk may be what stalls: code that has to be read from it cannot heal it. What is there
/// now is locked whole, what comes later as it is first used.
fn stay_in_memory() {
    use rustix::mm::{MlockAllFlags, mlockall};
    let later = MlockAllFlags::CURRENT | MlockAllFlags::FUTURE | MlockAllFlags::ONFAULT;
    if let Err(error) = mlockall(MlockAllFlags::CURRENT).and_then(|()| mlockall(later)) {
        tracing::warn!(%error, "the daemon is not locked in memory");
    }
}

async fn live(loaded: Loaded, config_path: PathBuf, journal: Journal) -> anyhow::Result<()> {
    let Loaded { config, warnings } = loaded;
    tracing::info!(version = env!("CARGO_PKG_VERSION"), mode = config.mode_word(), "starting");
    for warning in &warnings {
        tracing::warn!("{warning}");
    }
    let config = Arc::new(config);
    let boot = boot_id()?;

    // Before the ledger: it is what tells that no other daemon runs.
    let control = Control::open(&config.runtime_dir).with_context(|| {
        format!("cannot open the control socket in {}", config.runtime_dir.display())
    })?;
    let (keeper, found, durable) = open_ledger(&config)?;
    let host = RealHost {
        linux: LinuxHost::new(Tools::find()?),
        udev: Enumerator::start().context("cannot start libudev")?,
    };
    let sources = Sources::open(Root::host()).context("cannot listen to the kernel")?;
    let opened = backend::open(&config.provisioner);

    let (told_sender, told) = mpsc::channel(hints::ROOM);
    let (request_sender, requests) = mpsc::channel(control::ROOM);
    let (news_sender, stale) = mpsc::channel(1);
    let (command_sender, commands) = mpsc::channel(4);
    let counted = Counted::default();
    tokio::spawn(hints::pump_log(told_sender.clone()));
    tokio::spawn(hints::pump(sources, told_sender, counted.clone()));
    match Knocker::open(&config.runtime_dir) {
        Ok(knocker) => drop(tokio::spawn(knocker.serve(request_sender.clone()))),
        // The kernel tells of new arrays, too.
        Err(error) => tracing::warn!(%error, "whoever attaches volumes cannot say so"),
    }
    tokio::spawn(control.serve(request_sender));
    if let Some(path) = backend::watched(&config.provisioner) {
        tokio::spawn(backend::watch(path, news_sender.clone()));
    }
    if let Some(opened) = &opened {
        tokio::spawn(backend::listen(opened.clone(), news_sender.clone()));
        match backend::host_info(config.connect.host_nqn.as_ref()) {
            Some(host) => drop(tokio::spawn(backend::announce(opened.clone(), host))),
            None => tracing::warn!("this host has no NQN; the provisioner does not hear of it"),
        }
    }
    let backend = opened.map(|opened| opened.provisioner);
    tokio::spawn(signals(Signals::listen()?, command_sender));

    let setup = Setup { host, boot, config, config_path, journal, keeper, found, backend, counted };
    let inboxes = Inboxes { told, requests, stale, commands };
    Reactor::new(setup, durable).run(inboxes).await;
    drop(news_sender);
    Ok(())
}

type Kept = (Keeper, keeper::Found, bool);

fn open_ledger(config: &Config) -> anyhow::Result<Kept> {
    let mut ledger = Ledger::open(&config.state_dir, config.runtime_dir.join("ledger"))
        .context("cannot open the ledger")?;
    let durable = ledger.home() == LedgerHome::Primary;
    let found = keeper::load(&mut ledger).context("cannot list the ledger")?;
    for (array, record) in &found {
        if let Err(error) = record {
            tracing::error!(%array, error, "a record cannot be read; its array is quarantined");
        }
    }
    let keeper = Keeper::start(ledger).context("cannot start the ledger's thread")?;
    Ok((keeper, found, durable))
}

fn boot_id() -> anyhow::Result<BootId> {
    match clock::boot_id(&Root::host()) {
        Observed::Known(boot) => Ok(boot),
        // A deadline that cannot be tied to a boot would be trusted in the wrong one.
        Observed::Unknown(why) => bail!("the kernel's boot id is not known: {why}"),
    }
}

struct Signals {
    stop: [Signal; 2],
    reload: Signal,
}

impl Signals {
    fn listen() -> anyhow::Result<Self> {
        let listen = |kind| signal(kind).context("cannot listen to signals");
        Ok(Self {
            stop: [listen(SignalKind::terminate())?, listen(SignalKind::interrupt())?],
            reload: listen(SignalKind::hangup())?,
        })
    }
}

async fn signals(mut signals: Signals, commands: mpsc::Sender<Command>) {
    loop {
        let [terminate, interrupt] = &mut signals.stop;
        let command = tokio::select! {
            _ = terminate.recv() => Command::Stop,
            _ = interrupt.recv() => Command::Stop,
            _ = signals.reload.recv() => Command::Reload,
        };
        if commands.send(command).await.is_err() {
            return;
        }
    }
}

/// The host this program runs on.
#[derive(Debug, Clone)]
struct RealHost {
    linux: LinuxHost,
    udev: Enumerator,
}

impl HostPort for RealHost {
    fn look(&mut self) -> HostSnapshot {
        self.linux.look()
    }

    fn glance(&mut self, array: ArrayId) -> HostSnapshot {
        self.linux.glance(array)
    }

    fn act(&mut self, action: &HostAction) -> HostAnswer {
        self.linux.act(action)
    }

    fn act_if(
        &mut self,
        array: ArrayId,
        action: &HostAction,
        permits: &mut Permits<'_>,
    ) -> HostAnswer {
        self.linux.act_if(array, action, permits)
    }
}

impl Host for RealHost {
    fn await_settled(&self, device: DevT) {
        match self.udev.settled_blocking(device, SETTLE) {
            Settle::Done => {}
            Settle::TimedOut => {
                tracing::warn!(%device, "udev is not done with the device; it is opened all the same");
            }
        }
    }

    fn mark_managed(&self, devices: &BTreeSet<DevT>) {
        if let Err(error) = self.linux.mark_managed(devices) {
            tracing::error!(%error, "udev's guard of managed legs is not up to date");
        }
    }

    fn stuck_children(&self) -> u64 {
        u64::try_from(self.linux.stuck_children()).unwrap_or(u64::MAX)
    }

    fn wiring(&mut self, controllers: &[(ControllerName, Portal)]) -> Option<Wiring> {
        let read = || -> std::io::Result<Wiring> {
            let mut reader = NetworkReader::open()?;
            let network = reader.read()?;
            let mut egress = BTreeMap::new();
            for (controller, portal) in controllers {
                match reader.egress(portal, None) {
                    Ok(Some(index)) => drop(egress.insert(controller.clone(), index)),
                    Ok(None) => {}
                    Err(error) => {
                        tracing::debug!(%controller, %error, "its way out cannot be read");
                    }
                }
            }
            Ok(Wiring { network, egress })
        };
        match read() {
            Ok(wiring) => Some(wiring),
            Err(error) => {
                tracing::warn!(%error, "the network cannot be read; it is tried again");
                None
            }
        }
    }

    fn read_sockets(
        &mut self,
        controllers: &[ControllerName],
    ) -> Vec<(ControllerName, Option<SocketReading>)> {
        let asked: BTreeSet<ControllerName> = controllers.iter().cloned().collect();
        match self.linux.socket_readings(&asked) {
            Ok(mut readings) => asked
                .into_iter()
                .map(|name| {
                    let reading = readings.remove(&name);
                    (name, reading)
                })
                .collect(),
            Err(error) => {
                tracing::warn!(%error, "the kernel does not tell of its sockets");
                Vec::new()
            }
        }
    }

    fn read_io(&mut self, controllers: &[ControllerName]) -> Vec<(ControllerName, IoReading)> {
        let root = Root::host();
        let read = |name: &ControllerName| Some((name.clone(), pathio::read(&root, name)?));
        controllers.iter().filter_map(read).collect()
    }

    fn rehearse(&mut self, array: ArrayId, how: Rehearsal) {
        self.linux.rehearse(array);
        match how {
            Rehearsal::Light => {}
            Rehearsal::Whole => self.linux.rehearse_sockets(),
        }
    }

    fn isolation(&mut self) -> Isolation {
        let support = self.linux.ask_isolation();
        if support.is_whole() {
            Isolation::Over(support.fabrics())
        } else {
            Isolation::Off(support.to_string())
        }
    }
}
