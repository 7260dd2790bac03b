//! The trait, and what a vendor promises by implementing it.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use heal_types::{
    CallKey, Condition, FaultClass, Nqn, ProvisionerFault, Replacement, ReplicaId, Volume,
    VolumeId, VolumeQuery, WallTime,
};
use tokio::time::Instant;

/// A storage provisioner, as the healing agent of one host sees it.
///
/// The agent loses calls, repeats them, dies between two of them and starts again with a ledger
/// that may be one step old. All of that must end in *one* replacement. Neither side can do it
/// alone, so here is the half of the bargain that a vendor keeps. Each promise is a case of the
/// [contract suite](crate::contract).
///
/// ```text
///             report Missing            request_replacement(key)         report Available (new)
///  Available ───────────────► Missing ──────────────────────────► granted ────────────────────► taken up
///      ▲                         │                                 │   │                            │
///      └── report Available ◄────┘ ◄── report Available (lost) ────┘   └─ report Unusable ─► closed  │
///                                       withdraws the request                                       │
///                                       confirm_removed(lost): gone from the volume  ◄──────────────┘
/// ```
///
/// **One key, one effect.** `report`, `request_replacement` and `confirm_removed` carry a
/// [`CallKey`]. The same call under the same key has one effect, however often it comes, at the
/// same time or months apart, and across restarts of the backend. A late repetition of an old
/// report does not undo a newer one. A key that comes again with *another* request is refused or
/// answered as the first one was; it never yields a second replica.
///
/// **One lost replica, one replacement.** A request for a replica that already has an open request
/// under another key gets the same replica or is refused. The agent uses another key when its
/// ledger was lost, and must not cost a second spare by that.
///
/// **A grant is lasting.** What was granted is listed in the volume from then on, as
/// [`Synchronizing`](heal_types::ReplicaState::Synchronizing), and survives any crash between the
/// grant and the host's first word of it. The lost replica stays listed until its removal is
/// confirmed, but never as good.
///
/// **A request is over when the lost replica's removal is confirmed**, or when it is withdrawn or
/// closed as below. Until then every further request for that replica is answered with the same
/// one, wherever the host has put it. MD fills the first empty slot, so what was granted for one
/// replica may end up in the place of another: then the host asks for that other one's successor,
/// and confirms both removals at the end. A lost replica that the host reports `Available` while
/// its successor is in use stays lost here, and the host goes on using it: whoever wants the two to
/// agree replaces it again.
///
/// **The lost one may come back.** A report of `Available` for the lost replica withdraws a request
/// that the host has not taken up: the granted replica leaves the volume and may be given out
/// again, and the old key is refused from then on. Taken up is a replica that the host reported
/// `Synchronizing` or `Available`; such a request is not withdrawn.
///
/// **Unusable means unusable.** A report of `Unusable` for a granted replica closes the request and
/// marks the replica bad. A new key may get another one; this one is never offered again.
///
/// **Removed means no longer used.** After `confirm_removed` the host touches that replica in no
/// way, and it may be deleted. It leaves the volume and is never offered again as it is. Confirming
/// twice, and confirming the removal of a replica nobody knows, is success: what was asked for is
/// so.
///
/// **"No" is not "I do not know".** `find_volume` says `None` only when it *knows* that there is no
/// volume for the array. Whatever stands between it and that knowledge is a fault:
///
/// | class | means | the agent then |
/// |---|---|---|
/// | `Unreachable` | nobody answered in time | tries again with backoff; healing that needs no answer goes on |
/// | `Unauthorized` | credentials not accepted | reloads them once, then alarms |
/// | `NotFound` | the volume or replica named does not exist there; never from `find_volume` | stops asking for it |
/// | `Refused` | understood, and will not do it; the detail says why | holds the repair |
/// | `Invalid` | the answer breaks the contract | concludes nothing |
/// | `Unsupported` | no such call here | does not ask again |
///
/// **Never block.** A call is a future that yields; what blocks goes to a thread of its own. A call
/// that outlives its deadline is dropped at its next yield, and may have had its effect: that is
/// what keys are for.
///
/// **Text is text.** `why` comes from a host in trouble and may be long and ugly. It is shown to
/// people, shortened, and never interpreted. No secret goes into a fault's detail.
#[async_trait]
pub trait Provisioner: Send + Sync + fmt::Debug {
    /// The backend's name, for logs and `status`.
    fn name(&self) -> &str;

    /// Which of the optional calls this backend has.
    fn capabilities(&self) -> Capabilities;

    /// Says that this host lives, and finds out whether the provisioner does.
    async fn probe(&self, context: &CallContext, host: &HostInfo) -> Result<(), ProvisionerFault>;

    /// Which volume is this array? By its UUID first, then by its name. `None` is the clear word
    /// that there is none.
    async fn find_volume(
        &self,
        context: &CallContext,
        query: &VolumeQuery,
    ) -> Result<Option<Volume>, ProvisionerFault>;

    /// This is what became of a replica, `since` by the host's clock.
    async fn report(
        &self,
        context: &CallContext,
        replica: ReplicaRef<'_>,
        condition: &Condition,
        since: WallTime,
        key: &CallKey,
    ) -> Result<(), ProvisionerFault>;

    /// Give this volume another replica in place of the lost one: at least as large, and on no
    /// namespace that anyone uses.
    async fn request_replacement(
        &self,
        context: &CallContext,
        lost: ReplicaRef<'_>,
        why: &str,
        key: &CallKey,
    ) -> Result<Replacement, ProvisionerFault>;

    /// The host no longer uses this replica in any way.
    async fn confirm_removed(
        &self,
        context: &CallContext,
        replica: ReplicaRef<'_>,
        key: &CallKey,
    ) -> Result<(), ProvisionerFault>;

    /// Let this host reach the volume's replicas. "Already so" is success.
    async fn publish(
        &self,
        _context: &CallContext,
        _volume: &VolumeId,
    ) -> Result<(), ProvisionerFault> {
        Err(unsupported(self.name(), "publish"))
    }

    /// Takes an event of this host into the provisioner's own log.
    async fn forward(
        &self,
        _context: &CallContext,
        _event: &ForwardedEvent,
    ) -> Result<(), ProvisionerFault> {
        Err(unsupported(self.name(), "forward"))
    }
}

fn unsupported(backend: &str, verb: &str) -> ProvisionerFault {
    ProvisionerFault::new(
        FaultClass::Unsupported,
        format_args!("backend {backend} has no call {verb}"),
    )
}

/// What every call carries. The idempotency key is not here but an argument of its own, so that a
/// call that needs one cannot be made without.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CallContext {
    /// When the caller stops waiting. A backend passes what is left on to whatever it asks.
    pub deadline: Instant,
}

impl CallContext {
    /// A call that may take this long from now.
    #[must_use]
    pub fn within(limit: Duration) -> Self {
        let now = Instant::now();
        Self { deadline: now.checked_add(limit).unwrap_or(now) }
    }

    /// What is left of the time.
    #[must_use]
    pub fn remaining(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }
}

/// One replica of one volume. A replica's id means something only together with its volume's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReplicaRef<'a> {
    /// The volume.
    pub volume: &'a VolumeId,
    /// The replica in it.
    pub replica: &'a ReplicaId,
}

/// Which optional calls a backend has. The others answer `Unsupported`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Capabilities {
    /// It can give a volume another replica.
    pub replacement: bool,
    /// It has to be told before a host can reach a volume.
    pub publish: bool,
    /// It keeps a log that hosts write to.
    pub forward: bool,
}

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostInfo {
    /// The host's NQN.
    pub nqn: Nqn,
    /// The host's id (`/etc/nvme/hostid`), where there is one.
    pub id: Option<String>,
    /// The host's name.
    pub name: String,
    /// The agent's version.
    pub version: String,
    /// When the next probe comes at the latest.
    pub next_within: Duration,
    /// Whether native NVMe multipath is on.
    pub multipath: bool,
}

/// How much an event matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Worth knowing.
    Info,
    /// Redundancy is lost.
    Warning,
    /// Data cannot be reached.
    Fatal,
}

/// An event for the provisioner's log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForwardedEvent {
    /// How much it matters.
    pub severity: Severity,
    /// When, by the host's clock.
    pub at: WallTime,
    /// A plain sentence.
    pub message: String,
    /// The facts in it.
    pub fields: BTreeMap<String, String>,
}
