//! The in-memory provisioner behind the real trait, so that the contract suite runs on it.
//!
//! A vendor's backend is a service with a life of its own; this one is a value behind a lock, which
//! is taken and given back without waiting for anything in between.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use heal_provisioner::{CallContext, Capabilities, HostInfo, Provisioner, ReplicaRef, async_trait};
use heal_types::{
    CallKey, Condition, FaultClass, ProvisionerAnswer, ProvisionerCall, ProvisionerFault,
    Replacement, Volume, VolumeQuery, WallTime,
};

use crate::provisioner::FakeProvisioner;

/// A [`FakeProvisioner`] that several callers share.
#[derive(Debug, Clone, Default)]
pub struct SharedProvisioner(Arc<Mutex<FakeProvisioner>>);

impl SharedProvisioner {
    /// Shares `provisioner`.
    #[must_use]
    pub fn new(provisioner: FakeProvisioner) -> Self {
        Self(Arc::new(Mutex::new(provisioner)))
    }

    /// The provisioner itself, to look at it or to change its mood.
    pub fn lock(&self) -> MutexGuard<'_, FakeProvisioner> {
        // A caller that panicked left a value behind that is still a provisioner.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn noted(&self, call: &ProvisionerCall) -> Result<(), ProvisionerFault> {
        match self.lock().call(call)? {
            ProvisionerAnswer::Noted => Ok(()),
            ProvisionerAnswer::Volume(_) | ProvisionerAnswer::Replacement(_) => Err(unfit(call)),
        }
    }
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
        Capabilities { replacement: true, publish: false, forward: false }
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
}
