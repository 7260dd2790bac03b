//! The suite against a provisioner that is somewhere else, for the conformance kit.
//!
//! Whoever is to be judged stands the stage up himself: over our protocol by the call `stage`,
//! which only a provisioner in its test mode has; the emulated KumoScale by a call of its own. What
//! cannot be done from outside (take a provisioner away, kill it) is skipped, by name.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use heal_types::{Alias, ArrayId, FaultClass, ProvisionerFault, VolumeQuery};

use super::{Fixture, FixtureWhy, Stage, Standing};
use crate::{CallContext, Provisioner};

/// How long a stage may take to stand.
const STAGING: Duration = Duration::from_secs(60);

/// Stands stages up.
#[async_trait]
pub trait Stages: Send + Sync {
    /// Forgets everything, and makes the volume that `stage` describes, for the array of `query`.
    async fn stage(
        &self,
        context: &CallContext,
        stage: &Stage,
        query: &VolumeQuery,
    ) -> Result<(), ProvisionerFault>;
}

/// A backend in a fresh life, and what stands stages up behind it.
pub struct Made {
    /// The backend.
    pub provisioner: Arc<dyn Provisioner>,
    /// Stages.
    pub stages: Arc<dyn Stages>,
}

impl fmt::Debug for Made {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Made").field("provisioner", &self.provisioner).finish_non_exhaustive()
    }
}

/// How a backend is made. `true`: with no memory of an earlier life.
pub type Make = Box<dyn Fn(bool) -> Result<Made, String> + Send + Sync>;

/// The fixture of a provisioner somewhere else.
pub struct Live {
    make: Make,
}

impl fmt::Debug for Live {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Live")
    }
}

impl Live {
    /// A fixture of backends made by `make`.
    #[must_use]
    pub fn new(make: Make) -> Self {
        Self { make }
    }
}

/// The array that every stage is about.
#[must_use]
pub fn query() -> VolumeQuery {
    let array = ArrayId::from_bytes([
        0x8e, 0x0a, 0x1b, 0x6c, 0x1f, 0x2e, 0x4d, 0x4c, 0x9b, 0x6a, 0x79, 0x88, 0, 0x11, 0x22, 0x33,
    ]);
    VolumeQuery { array, alias: Alias::new("conformance").ok() }
}

#[async_trait]
impl Fixture for Live {
    async fn set_up(&mut self, stage: &Stage) -> Result<Standing, FixtureWhy> {
        let made = (self.make)(true).map_err(FixtureWhy::Broken)?;
        let (context, query) = (CallContext::within(STAGING), query());
        match made.stages.stage(&context, stage, &query).await {
            Ok(()) => Ok(Standing { provisioner: made.provisioner, query }),
            Err(fault) if fault.class == FaultClass::Unsupported => {
                Err(FixtureWhy::NotPossible(format!("no such stage: {}", fault.detail)))
            }
            Err(fault) => Err(FixtureWhy::Broken(format!("the stage does not stand: {fault}"))),
        }
    }

    async fn go_away(&mut self) -> Result<(), FixtureWhy> {
        Err(FixtureWhy::NotPossible("it cannot be taken away from here".to_owned()))
    }

    async fn come_back(&mut self) -> Result<(), FixtureWhy> {
        Ok(())
    }

    async fn restart(&mut self) -> Result<Arc<dyn Provisioner>, FixtureWhy> {
        (self.make)(false).map(|made| made.provisioner).map_err(FixtureWhy::Broken)
    }
}
