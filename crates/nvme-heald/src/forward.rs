//! What the provisioner's own log is told: the few things that its operators look for there.
//!
//! ```text
//!   actors ── audit entries ──► worth telling? ──► bounded queue ──► after you; one at a time ──► forward
//!                                                     │ full                      │ fails
//!                                                     └─► counted, dropped ◄──────┘
//! ```
//!
//! The loss that is told here is reported in the same breath, by whoever's duty that is: a second
//! connection at that moment, with its handshake, would only take time from the first. So an event
//! waits a moment before it goes.
//!
//! This is a courtesy, and it is built like one. The journal is the record, reports are the duty,
//! and both are safe elsewhere; so nothing waits here, nothing is kept over a restart, and what the
//! provisioner does not take is not sent again. The messages are its vendor's words where there are
//! such, because people have alarms on them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use heal_core::audit::{AuditEntry, AuditKind};
use heal_provisioner::{ForwardedEvent, Provisioner, Severity, dispatch};
use heal_types::{Alias, ArrayId, FaultClass};
use tokio::sync::mpsc;
use tokio::time::Instant;

/// Events that may wait. A host that loses all its arrays at once has a few for each.
const ROOM: usize = 256;
/// For so long a report that was begun with an event goes first.
const AFTER_YOU: Duration = Duration::from_millis(500);

/// Where events are handed over. Without a provisioner that keeps a log, nowhere.
#[derive(Debug, Clone, Default)]
pub(crate) struct Forwarder(Option<mpsc::Sender<Waiting>>);

/// An event, and from when on it may go.
type Waiting = (Instant, ForwardedEvent);

impl Forwarder {
    /// Forwards to `backend`, each event within `limit`, if it keeps a log.
    pub(crate) fn start(backend: Option<&Arc<dyn Provisioner>>, limit: Duration) -> Self {
        let Some(backend) = backend.filter(|backend| backend.capabilities().forward) else {
            return Self(None);
        };
        let (sender, inbox) = mpsc::channel(ROOM);
        tokio::spawn(forward(Arc::clone(backend), limit, inbox));
        Self(Some(sender))
    }

    /// Tells of `entry`, if it is worth telling. Never waits.
    pub(crate) fn tell(&self, entry: &AuditEntry, array: ArrayId, alias: Option<&Alias>) {
        let Some(sender) = &self.0 else { return };
        let Some((severity, message)) = worth_telling(entry.kind) else { return };
        let mut fields = BTreeMap::new();
        fields.insert("arrayUuid".to_owned(), array.to_string());
        if let Some(alias) = alias {
            fields.insert("volumeAlias".to_owned(), alias.to_string());
        }
        fields.insert("detail".to_owned(), entry.message.clone());
        let event = ForwardedEvent { severity, at: entry.at, message: message.to_owned(), fields };
        if sender.try_send((Instant::now() + AFTER_YOU, event)).is_err() {
            tracing::debug!(%array, message, "the provisioner's log is not told: too much waits");
        }
    }
}

async fn forward(
    backend: Arc<dyn Provisioner>,
    limit: Duration,
    mut inbox: mpsc::Receiver<Waiting>,
) {
    while let Some((after, event)) = inbox.recv().await {
        tokio::time::sleep_until(after).await;
        let Err(fault) = dispatch::forward(&*backend, &event, limit).await else { continue };
        tracing::debug!(message = event.message, %fault, "the provisioner's log was not told");
        if fault.class == FaultClass::Unsupported {
            return;
        }
    }
}

/// How much it matters there, and in which words.
fn worth_telling(kind: AuditKind) -> Option<(Severity, &'static str)> {
    match kind {
        AuditKind::LegLost => Some((Severity::Fatal, "Volume is degraded.")),
        AuditKind::ArrayBroken => Some((Severity::Fatal, "Volume is broken: writes fail.")),
        AuditKind::ArrayQuarantined => {
            Some((Severity::Warning, "Volume is not healed until somebody has looked at it."))
        }
        AuditKind::ReplicaRejected => {
            Some((Severity::Warning, "An offered replica must not be used."))
        }
        AuditKind::RebuildBegan => Some((Severity::Warning, "Volume synchronization started.")),
        AuditKind::LegInSync => Some((Severity::Warning, "Volume synchronization ended.")),
        AuditKind::IncidentClosed => Some((Severity::Info, "Volume is healed.")),
        AuditKind::ArrayManaged
        | AuditKind::ArrayObserved
        | AuditKind::ArrayStopped
        | AuditKind::ArrayReleased
        | AuditKind::IncidentOpened
        | AuditKind::LegSuspected
        | AuditKind::LegCleared
        | AuditKind::LegIsolating
        | AuditKind::BadBlocksFound
        | AuditKind::BadBlocksHealed
        | AuditKind::GraceBegan
        | AuditKind::LegReturned
        | AuditKind::ReplacementRequested
        | AuditKind::ReplacementConnecting
        | AuditKind::ReplacementVerifying
        | AuditKind::ReplacementAdding
        | AuditKind::RepairEnded
        | AuditKind::RepairHeld
        | AuditKind::RepairResumed
        | AuditKind::ActBegun
        | AuditKind::ActEnded
        | AuditKind::ActInterrupted
        | AuditKind::ReportDelivered
        | AuditKind::ReportRejected
        | AuditKind::ProvisionerFaulted
        | AuditKind::ProvisionerRecovered
        | AuditKind::HoldPlaced
        | AuditKind::HoldLifted
        | AuditKind::WouldAct
        | AuditKind::HostAlarm
        | AuditKind::PathArmed
        | AuditKind::PathCut
        | AuditKind::LedgerFailed => None,
    }
}
