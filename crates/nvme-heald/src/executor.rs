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
//! Each array has one such thread at a time and no share in anybody else's: a device that holds its
//! caller in the kernel holds its own array only. An act that does not come back in time is
//! answered `Unknown`, its thread is written off, and until it returns every further act of that array
//! is answered "stuck".

use std::sync::Arc;
use std::time::Duration;

use heal_core::guards::Footing;
use heal_core::{EffectId, Event};
use heal_provisioner::Provisioner;
use heal_types::{
    ArrayId, DevT, FaultClass, HostAction, HostAnswer, Outcome, ProvisionerCall, ProvisionerFault,
    RefusedWhy, RetryWhy, UnknownWhy,
};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::host::Host;
use crate::mailbox::Mailbox;
use crate::report::{Report, Said};

/// No act takes longer: the host's own deadlines are far shorter, and this is only for a host that
/// does not keep them.
const ACT_LIMIT: Duration = Duration::from_secs(180);
/// When to try again after an act that never came back.
const STUCK_AGAIN: Duration = Duration::from_secs(30);

/// An act, as the actor hands it over.
#[derive(Debug)]
pub(crate) struct Order {
    pub(crate) id: EffectId,
    pub(crate) action: HostAction,
    pub(crate) footing: Box<Footing>,
}

/// One array's acts.
#[derive(Debug)]
pub(crate) struct Executor {
    orders: Option<mpsc::UnboundedSender<Order>>,
    worker: Option<JoinHandle<()>>,
}

impl Executor {
    /// Acts on `host`; answers go to `mailbox`, and the reactor hears that there is a reason to look.
    pub(crate) fn start<H: Host>(
        host: H,
        array: ArrayId,
        mailbox: Mailbox,
        reports: mpsc::UnboundedSender<Report>,
    ) -> Self {
        let (orders, inbox) = mpsc::unbounded_channel();
        let worker = tokio::spawn(work(host, array, inbox, mailbox, reports));
        Self { orders: Some(orders), worker: Some(worker) }
    }

    /// Carries `order` out when it is its turn.
    pub(crate) fn act(&self, order: Order) {
        if let Some(orders) = &self.orders {
            // The worker ends only after `close`.
            let _ = orders.send(order);
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

async fn work<H: Host>(
    host: H,
    array: ArrayId,
    mut inbox: mpsc::UnboundedReceiver<Order>,
    mailbox: Mailbox,
    reports: mpsc::UnboundedSender<Report>,
) {
    let mut lost: Option<JoinHandle<HostAnswer>> = None;
    while let Some(order) = inbox.recv().await {
        // Orders behind the one under way are not begun after `close`: their intents are durable, and
        // the next life of the daemon takes them up.
        if inbox.is_closed() {
            return;
        }
        let id = order.id;
        let verb = order.action.verb();
        let answer = if lost.as_ref().is_some_and(|thread| !thread.is_finished()) {
            Outcome::Retry { after: STUCK_AGAIN, why: RetryWhy::Stuck }.into()
        } else {
            let mut host = host.clone();
            let mut thread = tokio::task::spawn_blocking(move || carry_out(&mut host, &order));
            match tokio::time::timeout(ACT_LIMIT, &mut thread).await {
                Ok(Ok(answer)) => answer,
                Ok(Err(error)) => {
                    tracing::error!(%array, verb, %error, "an act broke off");
                    Outcome::Unknown(UnknownWhy::NoAnswer).into()
                }
                Err(_) => {
                    tracing::error!(%array, verb, limit = ?ACT_LIMIT, "an act does not come back");
                    lost = Some(thread);
                    Outcome::Unknown(UnknownWhy::NoAnswer).into()
                }
            }
        };
        mailbox.answer(Event::Acted { id, answer });
        let _ = reports.send(Report { array, said: Said::Acted });
    }
}

/// The act itself, on a thread that may block.
fn carry_out<H: Host>(host: &mut H, order: &Order) -> HostAnswer {
    if let Some(device) = opened(&order.action) {
        host.await_settled(device);
    }
    let fresh = host.look();
    match order.footing.permits(&order.action, &fresh) {
        Ok(()) => host.act(&order.action),
        Err(why) => Outcome::Refused(RefusedWhy::Guard { detail: why.to_string() }).into(),
    }
}

/// The device that udev may still be busy with.
fn opened(action: &HostAction) -> Option<DevT> {
    match action {
        HostAction::Examine { device }
        | HostAction::ReAddLeg { device, .. }
        | HostAction::AddLeg { device, .. }
        | HostAction::ReplaceLeg { to: device, .. } => Some(device.dev),
        HostAction::Connect { .. }
        | HostAction::FailLeg { .. }
        | HostAction::RemoveLeg { .. }
        | HostAction::ClearWantReplacement { .. }
        | HostAction::SetRaidDisks { .. }
        | HostAction::Disconnect { .. } => None,
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
