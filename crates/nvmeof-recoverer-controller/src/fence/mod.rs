//! Who takes a device away from a node, and who says that it is gone.
//!
//! ```text
//!   close    nobody may use the device any more, and nobody who does may go on ── a claim
//!   report   who can write to it ─────────────────────────────────────────────── what counts
//!   admit    this host, and no other
//! ```
//!
//! Every question carries the device's fencing token. A fence that has seen a newer one refuses,
//! for ever: so a leader that slept through its own replacement cannot let anybody in. What
//! `report` says becomes evidence only when the plan has examined it; a fence's own "done" is worth
//! nothing.

mod exec;
mod manual;
mod nvmet;
mod reservation;
mod spdk;
mod tls;

pub use exec::ExecFence;
pub use manual::Manual;
pub use nvmet::NvmetFence;
pub use reservation::ReservationFence;
pub use spdk::SpdkFence;

use async_trait::async_trait;
use heal_types::cluster::Generation;
pub use heal_types::fence::Host;
use heal_types::fence::{self, Question, Told};
use nvmeof_recoverer::plan::evidence::Report;
use nvmeof_recoverer::plan::relocate::Answer;
use nvmeof_recoverer::plan::view::{Device, FenceHealth};
use std::path::PathBuf;
use std::sync::Arc;

use crate::config::{Config, FenceTls};
use crate::crd::{self, FabricTargetSpec};

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

/// A fence.
#[async_trait]
pub trait Fence: Send + Sync {
    /// Whether it can be used now.
    async fn health(&self) -> FenceHealth;
    /// Does what it is asked; to `Report` it answers with what it saw.
    async fn ask(&self, ask: &Ask) -> Answer;
}

/// What fences need that no object says.
#[derive(Debug, Clone)]
pub struct Means {
    /// The folder of fences that are programs.
    pub programs: PathBuf,
    /// Who we are to a target's own fence.
    pub tls: Option<FenceTls>,
}

impl Means {
    /// As it is configured.
    #[must_use]
    pub fn new(config: &Config) -> Self {
        Self { programs: config.fences.clone(), tls: config.fence_tls.clone() }
    }

    /// The fence of a target.
    #[must_use]
    pub fn of(&self, target: &FabricTargetSpec) -> Arc<dyn Fence> {
        match &target.fence {
            None | Some(crd::Fence::Manual {}) => Arc::new(Manual),
            Some(crd::Fence::Exec(exec)) => Arc::new(ExecFence::new(&self.programs, &exec.program)),
            Some(crd::Fence::Nvmet(at)) => Arc::new(NvmetFence::new(at.clone(), self.tls.clone())),
            Some(crd::Fence::Reservation(us)) => {
                Arc::new(ReservationFence::new(us.clone(), target))
            }
            Some(crd::Fence::Spdk(at)) => Arc::new(SpdkFence::new(at.clone(), self.tls.clone())),
        }
    }
}

/// The document that asks this.
fn question(ask: &Ask) -> Question {
    let (verb, admit) = match &ask.verb {
        Verb::Close => (fence::Verb::Close, None),
        Verb::Report => (fence::Verb::Report, None),
        Verb::Admit(host) => (fence::Verb::Admit, Some(host.clone())),
    };
    Question {
        version: fence::VERSION,
        verb,
        subsystem: Some(ask.device.subsystem.clone()),
        namespace: Some(ask.device.namespace),
        generation: Some(ask.generation),
        holders: ask.holders.clone(),
        admit,
    }
}

/// What a document means to the plan. Silence, and what is not understood, is "nobody knows".
fn answer(told: Result<Told, String>) -> Answer {
    match told {
        Err(why) | Ok(Told::Again(why)) => Answer::Again(why),
        Ok(Told::Refused(why)) => Answer::Refused(why),
        Ok(Told::Done {}) => Answer::Done,
        Ok(Told::Target { generation, allowed, any_host, connected }) => {
            Answer::Seen(Report::Target { generation, allowed, any_host, connected })
        }
        Ok(Told::Reservation { holder, others, exclusive }) => {
            Answer::Seen(Report::Reservation { holder, others, exclusive })
        }
        Ok(Told::Power { off }) => Answer::Seen(Report::Power { off }),
    }
}

fn health(told: &Result<Told, String>) -> FenceHealth {
    if matches!(told, Ok(Told::Done {})) { FenceHealth::Ready } else { FenceHealth::Silent }
}
