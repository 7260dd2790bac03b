//! The rig over the kernel in memory.

use std::time::Duration;

use heal_types::{HostPort, Moment, Target};

use super::{Rig, Stage};
use crate::kernel::FakeKernel;
use crate::provisioner::FakeProvisioner;
use crate::world::setup::{ArraySetup, Builder, Wiring};

/// A mirror of two targets and a spare, in memory.
#[derive(Debug)]
pub struct FakeRig {
    kernel: FakeKernel,
    stage: Stage,
}

impl FakeRig {
    /// A fresh one.
    #[must_use]
    pub fn new() -> Self {
        let mut kernel = FakeKernel::new(Moment(1_000_000_000));
        let mut provisioner = FakeProvisioner::new();
        let setup = ArraySetup { spares: 1, ..ArraySetup::mirror("contract") };
        let mut builder = Builder {
            kernel: &mut kernel,
            provisioner: &mut provisioner,
            wiring: Wiring::EachItsOwn,
        };
        let plan = builder.array(0, &setup);
        let mut targets = plan.replicas.into_iter().map(|plan| plan.replica.target);
        let mut next = || targets.next().expect("the setup has two legs and a spare");
        let stage = Stage { array: plan.id, legs: [next(), next()], spare: next() };
        let mut rig = Self { kernel, stage };
        // Until every attribute is filled.
        rig.wait(Duration::from_secs(2));
        rig
    }
}

impl Default for FakeRig {
    fn default() -> Self {
        Self::new()
    }
}

impl Rig for FakeRig {
    fn stage(&self) -> &Stage {
        &self.stage
    }

    fn host(&mut self) -> &mut dyn HostPort {
        &mut self.kernel
    }

    fn export(&mut self, target: &Target, exported: bool) {
        if exported {
            self.kernel.restore_namespace(&target.nqn);
        } else {
            self.kernel.remove_namespace(&target.nqn);
        }
    }

    fn write(&mut self) {
        self.kernel.set_workload(Some(Duration::from_millis(20)));
        self.wait(Duration::from_millis(200));
        self.kernel.set_workload(None);
    }

    fn wait(&mut self, time: Duration) {
        let until = self.kernel.now.after(time);
        while self.kernel.advance_to(until) < until {
            let _ = self.kernel.take_signals();
        }
        let _ = self.kernel.take_signals();
    }
}
