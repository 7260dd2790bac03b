//! What is asked of Ceph, and what it says.
//!
//! ```text
//!   Ceph (trait) ──► Command: `ceph … -f json`, a child with a deadline ──► read: its JSON ──► MonReport
//! ```
//!
//! The `ceph` command is the one interface of Ceph that is kept stable, and Rook's image brings it
//! with everything it needs to be believed (keyring, addresses). It costs a process per question;
//! what rarely changes is asked again only when the map's epoch did.

mod command;
pub mod crush;
mod read;

pub use command::{Ceph16, Command};

use async_trait::async_trait;
use heal_types::cluster::{ClusterFsid, NodeName, OsdFsid, OsdId};
use nvmeof_recoverer::plan::view::Pool;
use std::collections::BTreeMap;
use std::time::Duration;
use thiserror::Error;

/// What the mons said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MonReport {
    /// The cluster.
    pub fsid: ClusterFsid,
    /// Whether they have a quorum.
    pub quorum: bool,
    /// Whether all placement groups are active and clean.
    pub all_clean: bool,
    /// The OSDs.
    pub osds: BTreeMap<OsdId, OsdReport>,
    /// The pools.
    pub pools: Vec<Pool>,
}

/// What they said of one OSD.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OsdReport {
    /// Its UUID.
    pub fsid: OsdFsid,
    /// Whether it is up.
    pub up: bool,
    /// Whether it carries `noout` of its own.
    pub noout: bool,
    /// The node it was started on last.
    pub host: Option<NodeName>,
    /// Its CRUSH weight, in thousandths.
    pub weight: u32,
}

/// Why Ceph did not do what it was asked.
#[derive(Debug, Error)]
pub enum CephError {
    /// The command cannot be started.
    #[error("cannot start {program}")]
    Start {
        /// The program.
        program: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// There was no answer in time: no quorum, as a rule.
    #[error("`ceph {asked}` did not answer in {} s", .after.as_secs())]
    Silent {
        /// What was asked.
        asked: String,
        /// How long was waited.
        after: Duration,
    },
    /// It said no.
    #[error("`ceph {asked}` failed with {code}: {said}")]
    Refused {
        /// What was asked.
        asked: String,
        /// Its exit code; -1 for a signal.
        code: i32,
        /// The end of what it printed.
        said: String,
    },
    /// What it printed is not what is documented.
    #[error("what `ceph {asked}` printed is not understood")]
    Strange {
        /// What was asked.
        asked: String,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
}

/// A Ceph cluster, as far as a move needs it. Everything may be asked twice.
#[async_trait]
pub trait Ceph: Send + Sync {
    /// Looks at everything.
    async fn look(&self) -> Result<MonReport, CephError>;
    /// Sets or takes off `noout` of one OSD.
    async fn noout(&self, osd: OsdId, set: bool) -> Result<(), CephError>;
    /// Says that an OSD is down and will not come back as it was. Only after its fence.
    async fn down(&self, osd: OsdId) -> Result<(), CephError>;
    /// Whether these OSDs can be stopped together without a pool stopping.
    async fn ok_to_stop(&self, osds: &[OsdId]) -> Result<bool, CephError>;
}

/// An error and what caused it, in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}
