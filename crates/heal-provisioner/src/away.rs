//! A provisioner that cannot be set up: every call says why.
//!
//! A wrong file of the vendor's must not keep the daemon from starting, and must not look like a
//! host without a provisioner either: such a host may take legs back by itself.

use async_trait::async_trait;
use heal_types::{
    CallKey, Condition, FaultClass, ProvisionerFault, Replacement, Volume, VolumeQuery, WallTime,
};

use crate::{CallContext, Capabilities, HostInfo, Provisioner, ReplicaRef};

/// Stands where a backend could not be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Away {
    /// The backend that was meant.
    pub name: &'static str,
    /// Why there is none.
    pub why: String,
}

impl Away {
    fn fault(&self) -> ProvisionerFault {
        ProvisionerFault::new(FaultClass::Unreachable, &self.why)
    }
}

#[async_trait]
impl Provisioner for Away {
    fn name(&self) -> &str {
        self.name
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::default()
    }

    async fn probe(&self, _: &CallContext, _: &HostInfo) -> Result<(), ProvisionerFault> {
        Err(self.fault())
    }

    async fn find_volume(
        &self,
        _: &CallContext,
        _: &VolumeQuery,
    ) -> Result<Option<Volume>, ProvisionerFault> {
        Err(self.fault())
    }

    async fn report(
        &self,
        _: &CallContext,
        _: ReplicaRef<'_>,
        _: &Condition,
        _: WallTime,
        _: &CallKey,
    ) -> Result<(), ProvisionerFault> {
        Err(self.fault())
    }

    async fn request_replacement(
        &self,
        _: &CallContext,
        _: ReplicaRef<'_>,
        _: &str,
        _: &CallKey,
    ) -> Result<Replacement, ProvisionerFault> {
        Err(self.fault())
    }

    async fn confirm_removed(
        &self,
        _: &CallContext,
        _: ReplicaRef<'_>,
        _: &CallKey,
    ) -> Result<(), ProvisionerFault> {
        Err(self.fault())
    }
}
