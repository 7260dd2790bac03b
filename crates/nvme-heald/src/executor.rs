//! Carries a machine's acts and calls out, one array's acts one after the other.
//!
//! ```text
//!   Act ─► in the durable record? ─► udev done? ─► fresh look ─► footing.permits ─► host.act ─► Acted
//!               │ no                                                  │ no
//!               └─► Refused(NoDurableIntent)                          └─► Refused(Guard)
//! ```
//!
//! The machine decided on a look that is some milliseconds old and waited for a disk since then; in
//! between a second leg may have died. So the guards speak again, on a look of this moment, on the
//! very thread that acts.
//!
//! What is urgent, to free an application from a dead leg, has a lane of its own: it waits for no
//! disk and for no tool that is at the array, and its guards speak on a glance, which reads again
//! only what can have changed.
//!
//! Where os-brick attaches volumes to the same host, the ordinary lane keeps it out: from before
//! the fresh look until the act has ended, and for [`HOLD_LIMIT`] at most. The provisioner is told
//! of a connect before the lock is taken and not under it, so no attach ever waits for a
//! provisioner.
//!
//! Each array has one such thread a lane and no share in anybody else's: a device that holds its
//! caller in the kernel holds its own array only. An act that does not come back in time is
//! answered `Unknown`, its thread is written off, and until it returns every further act of that
//! array is answered "stuck".

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use heal_core::guards::Footing;
use heal_core::{EffectId, Event, PathNews};
use heal_host::clock;
use heal_host::connect_lock::{ConnectLock, Hold, LockFault};
use heal_provisioner::{Provisioner, dispatch};
use heal_types::{
    ArrayId, DevT, FaultClass, HostAction, HostAnswer, Moment, Outcome, ProvisionerCall,
    ProvisionerFault, RetryWhy, UnknownWhy,
};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use crate::host::Host;
use crate::mailbox::Mailbox;
use crate::reaction::Reactions;
use crate::report::{Report, Said};
use crate::urgent::Standby;

/// No act takes longer: the host's own deadlines are far shorter, and this is only for a host that
/// does not keep them.
const ACT_LIMIT: Duration = Duration::from_secs(180);
/// How long an act waits while os-brick attaches or detaches a volume.
const LOCK_LIMIT: Duration = Duration::from_secs(30);
/// How often it looks whether that is over.
const LOCK_AGAIN: Duration = Duration::from_millis(20);
/// No attach waits longer for one act of ours: one that takes so long hangs, and its guards have
/// spoken.
const HOLD_LIMIT: Duration = Duration::from_secs(10);
/// When to try again after an act that never came back.
const STUCK_AGAIN: Duration = Duration::from_secs(30);

/// An act, as the actor hands it over.
#[derive(Debug)]
pub(crate) struct Order {
    pub(crate) id: EffectId,
    pub(crate) action: HostAction,
    pub(crate) footing: Box<Footing>,
    /// What it answers, if that was a sign of a path.
    pub(crate) sign: Option<Answered>,
}

/// The way from a sign of a path to the act that answers it, as far as it has gone.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Answered {
    /// When the first sign was heard.
    pub(crate) heard: Moment,
    /// How long policy waited before it was believed.
    pub(crate) waited: Duration,
    /// When the act was decided on.
    pub(crate) decided: Moment,
}

/// For so long nothing else is begun beside an urgent act: a look, a log line, a record that is
/// written would only take the processor from somebody whose write waits.
const FIRST: Duration = Duration::from_millis(50);

/// What all executors share of the host: its paths, and who else changes it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Board {
    news: Arc<RwLock<PathNews>>,
    isolations: Arc<Reactions>,
    urgent: Arc<Mutex<Hurry>>,
    standby: Standby,
    attaching: ConnectLock,
    publisher: Option<Publisher>,
}

/// A provisioner that has to be told before a host can reach a volume's replicas.
#[derive(Debug, Clone)]
struct Publisher {
    backend: Arc<dyn Provisioner>,
    limit: Duration,
}

/// The urgent acts under way.
#[derive(Debug, Default)]
struct Hurry {
    acts: usize,
    /// Until when others let them go first.
    until: Option<Moment>,
}

impl Board {
    /// A board for a host on which whoever has these locks attaches volumes.
    pub(crate) fn beside(attaching: ConnectLock) -> Self {
        Self { attaching, ..Self::default() }
    }

    /// Volumes are published by `backend`, if it has to be told of that.
    pub(crate) fn publishing(self, backend: Option<Arc<dyn Provisioner>>, limit: Duration) -> Self {
        let backend = backend.filter(|backend| backend.capabilities().publish);
        Self { publisher: backend.map(|backend| Publisher { backend, limit }), ..self }
    }

    /// From now on this is held of the paths.
    pub(crate) fn set(&self, news: PathNews) {
        *self.news.write().unwrap_or_else(PoisonError::into_inner) = news;
    }

    /// What is held of the paths.
    pub(crate) fn news(&self) -> PathNews {
        self.news.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Until when whatever is not urgent is to wait, if somebody is in a hurry.
    pub(crate) fn hurried(&self) -> Option<Moment> {
        let hurry = self.hurry();
        hurry.until.filter(|until| hurry.acts > 0 && clock::moment() < *until)
    }

    /// The threads for what is urgent.
    pub(crate) fn standby(&self) -> &Standby {
        &self.standby
    }

    /// Somebody is in a hurry until the answer is dropped.
    fn begins(&self) -> Hurried {
        let mut hurry = self.hurry();
        hurry.acts += 1;
        hurry.until = Some(clock::moment().after(FIRST));
        Hurried(self.clone())
    }

    fn hurry(&self) -> MutexGuard<'_, Hurry> {
        self.urgent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From the first sign of a dead path to its sockets destroyed, without the wait that policy
    /// asks for.
    pub(crate) fn isolations(&self) -> &Reactions {
        &self.isolations
    }
}

/// An urgent act that is under way.
#[derive(Debug)]
struct Hurried(Board);

impl Drop for Hurried {
    fn drop(&mut self) {
        let mut hurry = self.0.hurry();
        hurry.acts = hurry.acts.saturating_sub(1);
    }
}

/// One array's acts.
#[derive(Debug)]
pub(crate) struct Executor {
    orders: Option<mpsc::UnboundedSender<Order>>,
    worker: Option<JoinHandle<()>>,
    urgent: Urgent,
}

/// Carries an act out at once, on a thread of its own, and tells when that has ended.
struct Urgent(Box<dyn Fn(Order) -> oneshot::Receiver<()> + Send + Sync>);

impl std::fmt::Debug for Urgent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Urgent")
    }
}

impl Executor {
    /// Acts on `host`; answers go to `mailbox`, and the reactor hears that there is a reason to
    /// look.
    pub(crate) fn start<H: Host>(
        host: H,
        array: ArrayId,
        board: Board,
        mailbox: Mailbox,
        reports: mpsc::UnboundedSender<Report>,
    ) -> Self {
        let (orders, inbox) = mpsc::unbounded_channel();
        let lane = Lane { host, array, board, mailbox, reports, hung: Arc::default() };
        let worker = tokio::spawn(lane.clone().work(inbox));
        // A lane for each: one host is used by one thread at a time.
        let lane = Mutex::new(lane);
        let urgent = Urgent(Box::new(move |order| {
            lane.lock().unwrap_or_else(PoisonError::into_inner).clone().hurry(order)
        }));
        Self { orders: Some(orders), worker: Some(worker), urgent }
    }

    /// Carries `order` out when it is its turn.
    pub(crate) fn act(&self, order: Order) {
        if let Some(orders) = &self.orders {
            // The worker ends only after `close`.
            let _ = orders.send(order);
        }
    }

    /// Carries `orders` out now, beside whatever is under way. Answers when they have ended, or
    /// when that takes too long to wait for.
    pub(crate) fn act_now(&self, orders: Vec<Order>) -> impl Future<Output = ()> + use<> {
        let ended: Vec<_> = orders.into_iter().map(&*self.urgent.0).collect();
        async move {
            let all = async {
                for one in ended {
                    let _ = one.await; // An act that broke off has ended, too.
                }
            };
            let _ = tokio::time::timeout(FIRST, all).await;
        }
    }

    /// Begins nothing more, and waits for the act under way. Its answer is in the mailbox then.
    pub(crate) async fn close(&mut self) {
        self.orders = None;
        if let Some(worker) = self.worker.take() {
            let _ = worker.await;
        }
    }
}

/// A queue of one array's acts: the ordinary ones, or those that must not wait behind them.
#[derive(Debug, Clone)]
struct Lane<H> {
    host: H,
    array: ArrayId,
    board: Board,
    mailbox: Mailbox,
    reports: mpsc::UnboundedSender<Report>,
    /// Urgent acts that were answered for because they do not come back, and have not come back
    /// yet.
    hung: Arc<AtomicUsize>,
}

impl<H: Host> Lane<H> {
    /// The thread begins before the caller goes on: whatever the caller does next would only take
    /// time from somebody who waits.
    fn hurry(self, order: Order) -> oneshot::Receiver<()> {
        let Self { mut host, array, board, mailbox, reports, hung } = self;
        let (id, verb) = (order.id, order.action.verb());
        let (end, ended) = oneshot::channel();
        if hung.load(Ordering::Acquire) > 0 {
            let stuck = Outcome::Retry { after: STUCK_AGAIN, why: RetryWhy::Stuck };
            mailbox.answer(Event::Acted { id, answer: stuck.into() });
            let _ = reports.send(Report { array, said: Said::Acted });
            return ended;
        }
        let hurried = board.begins();
        let standby = board.standby().clone();
        let mut thread = standby.run(move || {
            let answer = carry_out(&mut host, array, &board, &order);
            drop(hurried);
            let _ = end.send(()); // Nobody may wait any more.
            note_isolation(&board, array, &order, &answer);
            answer.answer
        });
        tokio::spawn(async move {
            let answer = limited(array, verb, &mut thread).await;
            let hangs = matches!(thread.try_recv(), Err(oneshot::error::TryRecvError::Empty));
            if hangs {
                hung.fetch_add(1, Ordering::Release);
            }
            mailbox.answer(Event::Acted { id, answer });
            let _ = reports.send(Report { array, said: Said::Acted });
            if hangs {
                let _ = thread.await; // What it answers now nobody waits for.
                hung.fetch_sub(1, Ordering::Release);
            }
        });
        ended
    }

    async fn work(self, mut inbox: mpsc::UnboundedReceiver<Order>) {
        let mut lost: Option<JoinHandle<HostAnswer>> = None;
        let lock = self.board.attaching.clone();
        let publisher = self.board.publisher.clone();
        while let Some(order) = inbox.recv().await {
            // Orders behind the one under way are not begun after `close`: their intents are
            // durable, and the next life of the daemon takes them up.
            if inbox.is_closed() {
                return;
            }
            let id = order.id;
            let answer = if lost.as_ref().is_some_and(|thread| !thread.is_finished()) {
                Outcome::Retry { after: STUCK_AGAIN, why: RetryWhy::Stuck }.into()
            } else {
                publish(publisher.as_ref(), &order).await;
                match keep_os_brick_out(&lock, self.array, &inbox).await {
                    Ok(hold) => {
                        let (mut host, board, array) =
                            (self.host.clone(), self.board.clone(), self.array);
                        let verb = order.action.verb();
                        let mut thread = tokio::task::spawn_blocking(move || {
                            carry_out(&mut host, array, &board, &order).answer
                        });
                        let answer = held(hold, limited(array, verb, &mut thread)).await;
                        lost = (!thread.is_finished()).then_some(thread);
                        answer
                    }
                    Err(_) if inbox.is_closed() => return,
                    Err(why) => Outcome::Retry { after: LOCK_LIMIT, why }.into(),
                }
            };
            self.mailbox.answer(Event::Acted { id, answer });
            let _ = self.reports.send(Report { array: self.array, said: Said::Acted });
        }
    }
}

/// The end of an act, with os-brick kept out until then, but not for long.
async fn held(hold: Hold, act: impl Future<Output = HostAnswer>) -> HostAnswer {
    let mut act = std::pin::pin!(act);
    match tokio::time::timeout(HOLD_LIMIT, &mut act).await {
        Ok(answer) => answer,
        Err(_) => {
            drop(hold);
            act.await
        }
    }
}

/// Lets this host reach the volume, before anything of it is connected. A replica that its
/// provisioner put in another's place by itself may not be published yet; one that is, is published
/// again. Whether it worked shows when it is connected.
async fn publish(publisher: Option<&Publisher>, order: &Order) {
    let (Some(publisher), HostAction::Connect { .. }) = (publisher, &order.action) else { return };
    let Some(volume) = &order.footing.volume else { return };
    let published = dispatch::publish(&*publisher.backend, &volume.id, publisher.limit).await;
    if let Err(fault) = published {
        tracing::warn!(volume = %volume.id, %fault, "the volume was not published to this host");
    }
}

/// Waits until os-brick is not at work, for a bounded time.
async fn keep_os_brick_out(
    lock: &ConnectLock,
    array: ArrayId,
    inbox: &mpsc::UnboundedReceiver<Order>,
) -> Result<Hold, RetryWhy> {
    let began = tokio::time::Instant::now();
    loop {
        match lock.try_hold() {
            Ok(hold) => return Ok(hold),
            Err(LockFault::Taken) if began.elapsed() < LOCK_LIMIT && !inbox.is_closed() => {
                tokio::time::sleep(LOCK_AGAIN).await;
            }
            Err(LockFault::Taken) => return Err(RetryWhy::LockTaken),
            Err(fault @ LockFault::Unreadable { .. }) => {
                let detail = crate::keeper::chain(&fault);
                tracing::warn!(%array, detail, "nothing is done beside os-brick");
                return Err(RetryWhy::ToolFailed { exit: None, detail });
            }
        }
    }
}

/// The end of an act, or what is said of one that does not end.
async fn limited<E: std::fmt::Display>(
    array: ArrayId,
    verb: &'static str,
    thread: impl Future<Output = Result<HostAnswer, E>>,
) -> HostAnswer {
    match tokio::time::timeout(ACT_LIMIT, thread).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(error)) => {
            tracing::error!(%array, verb, %error, "an act broke off");
            Outcome::Unknown(UnknownWhy::NoAnswer).into()
        }
        Err(_) => {
            tracing::error!(%array, verb, limit = ?ACT_LIMIT, "an act does not come back");
            Outcome::Unknown(UnknownWhy::NoAnswer).into()
        }
    }
}

/// The act itself, on a thread that may block.
fn carry_out<H: Host>(host: &mut H, array: ArrayId, board: &Board, order: &Order) -> Carried {
    let udev = at_udev(&order.action);
    if let AtUdev::Waits(device) = udev {
        host.await_settled(device);
    }
    let begun = clock::moment();
    let act = |host: &mut H| {
        host.act_if(array, &order.action, &mut |fresh| {
            let news = board.news();
            news.annotate_all(fresh);
            order.footing.permits(&order.action, fresh).map_err(|why| why.to_string())?;
            match news.cut_off.filter(|_| order.action.takes_a_path()) {
                Some(detail) => Err(format!("the host is cut off: {detail}")),
                None => Ok(()),
            }
        })
    };
    let mut answer = act(host);
    if let (AtUdev::WaitsIfBusy(device), true) = (udev, is_busy(&answer.outcome)) {
        host.await_settled(device);
        answer = act(host);
    }
    Carried { begun, answer }
}

fn is_busy(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Retry { why: RetryWhy::Busy, .. })
}

/// An act that was carried out.
struct Carried {
    begun: Moment,
    answer: HostAnswer,
}

/// How long it took from the first sign to sockets destroyed, and where the time went.
fn note_isolation(board: &Board, array: ArrayId, order: &Order, carried: &Carried) {
    let Carried { begun, answer } = carried;
    let isolated = matches!(order.action, HostAction::IsolateLeg { .. });
    let (true, Some(sign), Outcome::Changed) = (isolated, order.sign, &answer.outcome) else {
        return;
    };
    let done = answer.done_at.unwrap_or_else(clock::moment);
    let took = done.since(sign.heard).saturating_sub(sign.waited);
    board.isolations.record(took);
    tracing::info!(
        %array,
        isolate_us = micros(took),
        decide_us = micros(sign.decided.since(sign.heard).saturating_sub(sign.waited)),
        begin_us = micros(begun.since(sign.decided)),
        act_us = micros(done.since(*begun)),
        "the sockets of a dead leg are destroyed"
    );
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// How an act stands to udev, which opens a device that has just appeared, at times for itself
/// alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum AtUdev {
    /// It is no new device's, or only reads, which is in nobody's way.
    Indifferent,
    /// The device is written to by a tool: udev is done first.
    Waits(DevT),
    /// The kernel says when somebody has the device for itself, and has not taken it then.
    WaitsIfBusy(DevT),
}

fn at_udev(action: &HostAction) -> AtUdev {
    match action {
        HostAction::ReAddLeg { device, .. } => AtUdev::WaitsIfBusy(device.dev),
        HostAction::AddLeg { device, .. } | HostAction::ReplaceLeg { to: device, .. } => {
            AtUdev::Waits(device.dev)
        }
        HostAction::Examine { .. }
        | HostAction::Connect { .. }
        | HostAction::FailLeg { .. }
        | HostAction::RemoveLeg { .. }
        | HostAction::ClearWantReplacement { .. }
        | HostAction::SetRaidDisks { .. }
        | HostAction::SetFastIoFail { .. }
        | HostAction::IsolateLeg { .. }
        | HostAction::CutPath { .. }
        | HostAction::DeleteController { .. }
        | HostAction::Reconnect { .. }
        | HostAction::Disconnect { .. } => AtUdev::Indifferent,
    }
}

/// One array's calls to the provisioner, one at a time.
#[derive(Debug)]
pub(crate) struct Caller {
    calls: mpsc::UnboundedSender<(EffectId, ProvisionerCall)>,
    worker: JoinHandle<()>,
}

impl Caller {
    /// Calls `backend`, each call for at most `limit`; answers go to `mailbox`.
    pub(crate) fn start(
        backend: Option<Arc<dyn Provisioner>>,
        limit: Duration,
        mailbox: Mailbox,
    ) -> Self {
        let (calls, mut inbox) = mpsc::unbounded_channel::<(EffectId, ProvisionerCall)>();
        let worker = tokio::spawn(async move {
            while let Some((id, call)) = inbox.recv().await {
                let answer = match &backend {
                    Some(backend) => heal_provisioner::call(&**backend, &call, limit).await,
                    None => Err(ProvisionerFault::new(
                        FaultClass::Unsupported,
                        "no provisioner is configured",
                    )),
                };
                mailbox.answer(Event::Answered { id, answer });
            }
        });
        Self { calls, worker }
    }

    /// Makes `call` when it is its turn.
    pub(crate) fn call(&self, id: EffectId, call: ProvisionerCall) {
        // The worker lives as long as this.
        let _ = self.calls.send((id, call));
    }
}

impl Drop for Caller {
    fn drop(&mut self) {
        // A call that is under way may have had its effect: that is what its key is for.
        self.worker.abort();
    }
}
