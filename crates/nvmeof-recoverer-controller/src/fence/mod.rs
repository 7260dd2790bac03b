//! Who takes a device away from a node, and who says that it is gone.
//!
//! ```text
//!   close    nobody may use the device any more, and nobody who does may go on ── a claim
//!   report   who can write to it ─────────────────────────────────────────────── what counts
//!   admit    this host, and no other
//! ```
//!
//! Every question carries the device's fencing token. A fence that has seen a newer one refuses, for
//! ever: so a leader that slept through its own replacement cannot let anybody in. What `report` says
//! becomes evidence only when the plan has examined it; a fence's own "done" is worth nothing.

mod exec;
mod manual;

pub use exec::ExecFence;
pub use manual::Manual;

use async_trait::async_trait;
use heal_types::Nqn;
use heal_types::cluster::{Generation, NodeName};
use nvmeof_recoverer::plan::relocate::Answer;
use nvmeof_recoverer::plan::view::{Device, FenceHealth};
use serde::Serialize;
use std::path::Path;
use std::sync::Arc;

use crate::crd;

/// What a fence is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ask {
    /// What to do.
    pub verb: Verb,
    /// With which device.
    pub device: Device,
    /// The device's fencing token.
    pub generation: Generation,
    /// The nodes that may have access, as the fabric knows them.
    pub holders: Vec<Host>,
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verb {
    /// Take everybody's access away.
    Close,
    /// Say who can write. Changes nothing.
    Report,
    /// Let this host in, and nobody else.
    Admit(Host),
}

/// A node, as the fabric knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Host {
    /// Its name in Kubernetes.
    pub node: NodeName,
    /// Its name on the fabric; none for a node that the target does not list any more.
    pub host_nqn: Option<Nqn>,
}

/// A fence.
#[async_trait]
pub trait Fence: Send + Sync {
    /// Whether it can be used now.
    async fn health(&self) -> FenceHealth;
    /// Does what it is asked; to `Report` it answers with what it saw.
    async fn ask(&self, ask: &Ask) -> Answer;
}

/// The fence of a target.
#[must_use]
pub fn of(spec: Option<&crd::Fence>, programs: &Path) -> Arc<dyn Fence> {
    match spec {
        None | Some(crd::Fence::Manual {}) => Arc::new(Manual),
        Some(crd::Fence::Exec(exec)) => Arc::new(ExecFence::new(programs, &exec.program)),
    }
}
