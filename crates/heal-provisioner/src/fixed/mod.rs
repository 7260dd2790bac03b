//! The built-in backend: volumes and spares in a file that an operator writes.
//!
//! For sites without a provisioner that has an API, for air-gapped ones, and for tests against the
//! real daemon. The operator lists the volumes, where their replicas are, and spare replicas that
//! may be given out. The backend never writes to that file; what it notes itself (who was reported
//! what, which spare was given to whom under which key, what was removed) goes to a file of its
//! own.
//!
//! ```text
//!   /etc/nvme-heal/volumes.ron        ──read──►  ┌────────┐
//!     the operator's: what there is              │ Ledger │ ──► answer
//!   /var/lib/nvme-heal/fixed-state.ron ─read──►  └───┬────┘
//!     ours: what became of it          ◄─durable──── notes
//! ```
//!
//! - Both files are read anew for every call: an edit is in force with the next one, and there is
//!   no cache to be wrong. The notes are durable before the answer leaves.
//! - A file that is missing or cannot be read is a provisioner that is *away*, and one that does
//!   not parse gave an *invalid* answer. Neither is ever read as "no volumes" or "nothing granted".
//! - An alias finds a volume only where the entry has no array UUID.
//! - The operator's `Bad` and `Terminating` win over what hosts report.
//! - A spare that was removed or found unusable is not offered again until the operator counts its
//!   `renewed` up, which says: the namespace was made afresh.
//!
//! The price: one host's view. Two hosts with the same inventory know nothing of each other's
//! grants; a spare belongs in the file of one host only. And whoever deletes the state file deletes
//! the memory of what was given; only the host's own look at a device then stands between it and a
//! second use.

mod inventory;
mod ledger;
mod state;
mod store;

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use heal_types::{
    CallKey, Condition, FaultClass, ProvisionerFault, Replacement, Volume, VolumeId, VolumeQuery,
    WallTime,
};
use tokio::sync::Mutex;
use tokio::time::timeout_at;

use inventory::Inventory;
pub use inventory::InventoryError;
use ledger::Ledger;

use crate::store::late;
use crate::{CallContext, Capabilities, HostInfo, Provisioner, ReplicaRef};

/// The largest inventory and the largest state file that is read.
pub const MAX_FILE: u64 = crate::store::MAX_FILE;

/// Where the two files are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FixedPaths {
    /// The operator's inventory. Only read.
    pub inventory: PathBuf,
    /// Our own notes. Its directory must exist.
    pub state: PathBuf,
}

impl Default for FixedPaths {
    fn default() -> Self {
        Self {
            inventory: PathBuf::from("/etc/nvme-heal/volumes.ron"),
            state: PathBuf::from("/var/lib/nvme-heal/fixed-state.ron"),
        }
    }
}

/// Checks the text of an inventory, for `--check-config`. Says how many volumes it has.
///
/// # Errors
/// When a call would refuse it.
pub fn check_inventory(text: &str, source_name: &str) -> Result<usize, InventoryError> {
    Inventory::parse(text, source_name).map(|inventory| inventory.volumes().len())
}

/// The backend over an operator's file.
#[derive(Debug)]
pub struct Fixed {
    paths: Arc<FixedPaths>,
    /// One call at a time. Taken before a thread is, so that a file system that hangs holds one
    /// thread and not one for every retry.
    turn: Arc<Mutex<()>>,
}

impl Fixed {
    /// A backend over these files. Nothing is read before the first call.
    #[must_use]
    pub fn new(paths: FixedPaths) -> Self {
        Self { paths: Arc::new(paths), turn: Arc::new(Mutex::new(())) }
    }

    /// Runs `work` on both files, on a thread that may block, and makes the notes durable if it
    /// changed them.
    async fn with_ledger<T: Send + 'static>(
        &self,
        context: &CallContext,
        work: impl FnOnce(&mut Ledger<'_>) -> Result<T, ProvisionerFault> + Send + 'static,
    ) -> Result<T, ProvisionerFault> {
        let turn = timeout_at(context.deadline, Arc::clone(&self.turn).lock_owned())
            .await
            .map_err(|_| late())?;
        let paths = Arc::clone(&self.paths);
        let done = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            let inventory = store::read_inventory(&paths)?;
            let before = store::read_state(&paths)?;
            let mut ledger = Ledger { inventory: &inventory, state: before.clone() };
            let answer = work(&mut ledger)?;
            if ledger.state != before {
                store::write_state(&paths, &ledger.state)?;
            }
            Ok(answer)
        });
        match timeout_at(context.deadline, done).await {
            Err(_) => Err(late()),
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(ProvisionerFault::new(
                FaultClass::Unreachable,
                "the file access ended by itself",
            )),
        }
    }
}

#[async_trait]
impl Provisioner for Fixed {
    fn name(&self) -> &str {
        "fixed"
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { replacement: true, publish: false, forward: false }
    }

    async fn probe(&self, context: &CallContext, _host: &HostInfo) -> Result<(), ProvisionerFault> {
        self.with_ledger(context, |_| Ok(())).await
    }

    async fn find_volume(
        &self,
        context: &CallContext,
        query: &VolumeQuery,
    ) -> Result<Option<Volume>, ProvisionerFault> {
        let query = query.clone();
        self.with_ledger(context, move |ledger| Ok(ledger.find_volume(&query))).await
    }

    async fn report(
        &self,
        context: &CallContext,
        replica: ReplicaRef<'_>,
        condition: &Condition,
        _since: WallTime,
        key: &CallKey,
    ) -> Result<(), ProvisionerFault> {
        let (volume, replica) = (replica.volume.clone(), replica.replica.clone());
        let (condition, key) = (condition.clone(), key.clone());
        self.with_ledger(context, move |ledger| ledger.report(&volume, &replica, &condition, &key))
            .await
    }

    async fn request_replacement(
        &self,
        context: &CallContext,
        lost: ReplicaRef<'_>,
        why: &str,
        key: &CallKey,
    ) -> Result<Replacement, ProvisionerFault> {
        let (volume, lost) = (lost.volume.clone(), lost.replica.clone());
        let (why, key) = (why.to_owned(), key.clone());
        self.with_ledger(context, move |ledger| {
            let granted = ledger.request_replacement(&volume, &lost, &why, &key)?;
            tracing::info!(%volume, %lost, spare = %granted.id, %key, "spare granted");
            Ok(Replacement::Granted(granted))
        })
        .await
    }

    async fn confirm_removed(
        &self,
        context: &CallContext,
        replica: ReplicaRef<'_>,
        key: &CallKey,
    ) -> Result<(), ProvisionerFault> {
        let (volume, replica, key) = (replica.volume.clone(), replica.replica.clone(), key.clone());
        self.with_ledger(context, move |ledger| {
            ledger.confirm_removed(&volume, &replica, &key);
            Ok(())
        })
        .await
    }

    /// Whoever the target lets in can reach it: there is nobody to tell.
    async fn publish(
        &self,
        context: &CallContext,
        volume: &VolumeId,
    ) -> Result<(), ProvisionerFault> {
        let volume = volume.clone();
        self.with_ledger(context, move |ledger| ledger.has_volume(&volume)).await
    }
}
