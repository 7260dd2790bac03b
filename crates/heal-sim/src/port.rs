//! The in-memory provisioner behind the real trait, so that the contract suite runs on it.
//!
//! A vendor's backend is a service with a life of its own; this one is a value behind a lock, which
//! is taken and given back without waiting for anything in between.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use heal_provisioner::{
    CallContext, Capabilities, ForwardedEvent, HostInfo, Provisioner, ReplicaRef, async_trait,
};
use heal_types::{
    CallKey, Condition, FaultClass, ProvisionerAnswer, ProvisionerCall, ProvisionerFault,
    Replacement, Volume, VolumeId, VolumeQuery, WallTime,
};

use crate::provisioner::FakeProvisioner;

/// A [`FakeProvisioner`] that several callers share, with the calls that change nothing in it.
#[derive(Debug, Clone, Default)]
pub struct SharedProvisioner {
    provisioner: Arc<Mutex<FakeProvisioner>>,
    published: Arc<Mutex<Vec<VolumeId>>>,
    log: Arc<Mutex<Vec<ForwardedEvent>>>,
}

impl SharedProvisioner {
    /// Shares `provisioner`.
    #[must_use]
    pub fn new(provisioner: FakeProvisioner) -> Self {
        Self { provisioner: Arc::new(Mutex::new(provisioner)), ..Self::default() }
    }

    /// What was published, in this order.
    #[must_use]
    pub fn published(&self) -> Vec<VolumeId> {
        held(&self.published).clone()
    }

    /// What hosts wrote to its log.
    #[must_use]
    pub fn log(&self) -> Vec<ForwardedEvent> {
        held(&self.log).clone()
    }

    /// The provisioner itself, to look at it or to change its mood.
    pub fn lock(&self) -> MutexGuard<'_, FakeProvisioner> {
        held(&self.provisioner)
    }

    fn noted(&self, call: &ProvisionerCall) -> Result<(), ProvisionerFault> {
        match self.lock().call(call)? {
            ProvisionerAnswer::Noted => Ok(()),
            ProvisionerAnswer::Volume(_) | ProvisionerAnswer::Replacement(_) => Err(unfit(call)),
        }
    }
}

/// A caller that panicked left a value behind that is still a provisioner.
fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn unfit(call: &ProvisionerCall) -> ProvisionerFault {
    ProvisionerFault::new(
        FaultClass::Invalid,
        format_args!("the answer does not belong to {}", call.verb()),
    )
}

#[async_trait]
impl Provisioner for SharedProvisioner {
    fn name(&self) -> &str {
        "fake"
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { replacement: true, publish: true, forward: true }
    }

    async fn probe(&self, _: &CallContext, _: &HostInfo) -> Result<(), ProvisionerFault> {
        if self.lock().mood.down {
            return Err(ProvisionerFault::new(FaultClass::Unreachable, "connection refused"));
        }
        Ok(())
    }

    async fn find_volume(
        &self,
        _: &CallContext,
        query: &VolumeQuery,
    ) -> Result<Option<Volume>, ProvisionerFault> {
        let call = ProvisionerCall::FindVolume(query.clone());
        match self.lock().call(&call)? {
            ProvisionerAnswer::Volume(volume) => Ok(volume),
            ProvisionerAnswer::Noted | ProvisionerAnswer::Replacement(_) => Err(unfit(&call)),
        }
    }

    async fn report(
        &self,
        _: &CallContext,
        replica: ReplicaRef<'_>,
        condition: &Condition,
        since: WallTime,
        key: &CallKey,
    ) -> Result<(), ProvisionerFault> {
        self.noted(&ProvisionerCall::Report {
            volume: replica.volume.clone(),
            replica: replica.replica.clone(),
            condition: condition.clone(),
            since,
            key: key.clone(),
        })
    }

    async fn request_replacement(
        &self,
        _: &CallContext,
        lost: ReplicaRef<'_>,
        why: &str,
        key: &CallKey,
    ) -> Result<Replacement, ProvisionerFault> {
        let call = ProvisionerCall::RequestReplacement {
            volume: lost.volume.clone(),
            lost: lost.replica.clone(),
            why: why.to_owned(),
            key: key.clone(),
        };
        match self.lock().call(&call)? {
            ProvisionerAnswer::Replacement(replacement) => Ok(replacement),
            ProvisionerAnswer::Noted | ProvisionerAnswer::Volume(_) => Err(unfit(&call)),
        }
    }

    async fn confirm_removed(
        &self,
        _: &CallContext,
        replica: ReplicaRef<'_>,
        key: &CallKey,
    ) -> Result<(), ProvisionerFault> {
        self.noted(&ProvisionerCall::ConfirmRemoved {
            volume: replica.volume.clone(),
            replica: replica.replica.clone(),
            key: key.clone(),
        })
    }

    async fn publish(&self, _: &CallContext, volume: &VolumeId) -> Result<(), ProvisionerFault> {
        let provisioner = self.lock();
        if provisioner.mood.down {
            return Err(ProvisionerFault::new(FaultClass::Unreachable, "connection refused"));
        }
        if provisioner.volume(volume).is_none() {
            return Err(ProvisionerFault::new(FaultClass::NotFound, "no such volume"));
        }
        held(&self.published).push(volume.clone());
        Ok(())
    }

    async fn forward(
        &self,
        _: &CallContext,
        event: &ForwardedEvent,
    ) -> Result<(), ProvisionerFault> {
        if self.lock().mood.down {
            return Err(ProvisionerFault::new(FaultClass::Unreachable, "connection refused"));
        }
        held(&self.log).push(event.clone());
        Ok(())
    }
}
