//! The contract suite against the `fixed` backend, and against backends that break the contract: a
//! suite that cannot fail proves nothing.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::wildcard_enum_match_arm,
    reason = "a test's helper functions fail the test like the test itself"
)]

mod common;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use common::emulated::ARRAY;
use common::{Desk, inventory};
use heal_provisioner::contract::{
    self, Fixture, FixtureWhy, Stage, Standing, SuiteReport, Verdict,
};
use heal_provisioner::{CallContext, Capabilities, HostInfo, Provisioner, ReplicaRef, async_trait};
use heal_types::{
    Alias, ArrayId, CallKey, Condition, FaultClass, ProvisionerFault, Replacement, ReplicaState,
    Volume, VolumeId, VolumeQuery, WallTime,
};

/// Stands `fixed` up in a directory of its own for every case, with `wrap` around the backend.
struct OnDisk {
    desk: Option<Desk>,
    wrap: fn(Arc<dyn Provisioner>) -> Arc<dyn Provisioner>,
}

impl OnDisk {
    fn desk(&self) -> &Desk {
        self.desk.as_ref().unwrap()
    }

    fn backend(&self) -> Arc<dyn Provisioner> {
        (self.wrap)(self.desk().backend())
    }
}

#[async_trait]
impl Fixture for OnDisk {
    async fn set_up(&mut self, stage: &Stage) -> Result<Standing, FixtureWhy> {
        self.desk = Some(Desk::with(&inventory(stage)));
        Ok(Standing {
            provisioner: self.backend(),
            query: VolumeQuery {
                array: ARRAY.parse::<ArrayId>().unwrap(),
                alias: Some(Alias::new("db").unwrap()),
            },
        })
    }

    async fn go_away(&mut self) -> Result<(), FixtureWhy> {
        self.desk().rename("volumes.ron", "volumes.away");
        Ok(())
    }

    async fn come_back(&mut self) -> Result<(), FixtureWhy> {
        self.desk().rename("volumes.away", "volumes.ron");
        Ok(())
    }

    async fn restart(&mut self) -> Result<Arc<dyn Provisioner>, FixtureWhy> {
        Ok(self.backend())
    }
}

async fn run(wrap: fn(Arc<dyn Provisioner>) -> Arc<dyn Provisioner>) -> SuiteReport {
    contract::run(&mut OnDisk { desk: None, wrap }).await
}

#[tokio::test]
async fn the_fixed_backend_keeps_every_promise() {
    let report = run(|backend| backend).await;
    println!("{report}");
    assert!(report.cases.iter().all(|case| case.verdict == Verdict::Passed));
    assert_eq!(report.cases.len(), contract::names().count());
    assert!(report.cases.len() >= 45);
}

#[test]
fn no_two_cases_have_one_name() {
    let names: Vec<_> = contract::names().collect();
    assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), names.len());
}

/// How a backend breaks the contract.
#[derive(Debug, Clone, Copy)]
enum Sabotage {
    AwayIsNone,
    KeysAreIgnored,
    LostOneIsGranted,
    AlwaysPending,
    RemovalIsForgotten,
    ReportIsForgotten,
    NothingIsListed,
    EverythingIsAvailable,
    EveryArrayIsThis,
    RefusalIsSilence,
    RemovalOfTheUnknownFails,
}

#[derive(Debug)]
struct Saboteur {
    inner: Arc<dyn Provisioner>,
    how: Sabotage,
    count: AtomicU32,
}

impl Saboteur {
    /// The caller's key, or one that nobody saw before.
    fn key(&self, key: &CallKey) -> CallKey {
        match self.how {
            Sabotage::KeysAreIgnored => {
                let number = self.count.fetch_add(1, Ordering::Relaxed);
                CallKey::new(format!("{key}-{number}")).unwrap()
            }
            _ => key.clone(),
        }
    }
}

#[async_trait]
impl Provisioner for Saboteur {
    fn name(&self) -> &str {
        "saboteur"
    }

    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    async fn probe(&self, context: &CallContext, host: &HostInfo) -> Result<(), ProvisionerFault> {
        self.inner.probe(context, host).await
    }

    async fn find_volume(
        &self,
        context: &CallContext,
        query: &VolumeQuery,
    ) -> Result<Option<Volume>, ProvisionerFault> {
        let mut volume = match (self.how, self.inner.find_volume(context, query).await) {
            (Sabotage::AwayIsNone, Err(_)) => return Ok(None),
            (_, answer) => answer?,
        };
        if let (Sabotage::EveryArrayIsThis, None) = (self.how, &volume) {
            let known = VolumeQuery {
                array: ARRAY.parse().unwrap(),
                alias: Some(Alias::new("db").unwrap()),
            };
            volume = self.inner.find_volume(context, &known).await?;
            if let Some(volume) = &mut volume {
                (volume.array, volume.alias) = (Some(query.array), query.alias.clone());
            }
        }
        match (self.how, &mut volume) {
            (Sabotage::NothingIsListed, Some(volume)) => {
                volume.replicas.retain(|replica| replica.id.as_str().starts_with('r'));
            }
            (Sabotage::EverythingIsAvailable, Some(volume)) => {
                for replica in &mut volume.replicas {
                    replica.state = ReplicaState::Available;
                }
            }
            _ => {}
        }
        Ok(volume)
    }

    async fn report(
        &self,
        context: &CallContext,
        replica: ReplicaRef<'_>,
        condition: &Condition,
        since: WallTime,
        key: &CallKey,
    ) -> Result<(), ProvisionerFault> {
        if matches!(self.how, Sabotage::ReportIsForgotten) {
            return Ok(());
        }
        let key = self.key(key);
        self.inner.report(context, replica, condition, since, &key).await
    }

    async fn request_replacement(
        &self,
        context: &CallContext,
        lost: ReplicaRef<'_>,
        why: &str,
        key: &CallKey,
    ) -> Result<Replacement, ProvisionerFault> {
        if matches!(self.how, Sabotage::AlwaysPending) {
            return Ok(Replacement::Pending { after: std::time::Duration::ZERO });
        }
        let key = self.key(key);
        let mut answer = match self.inner.request_replacement(context, lost, why, &key).await {
            Err(fault) if matches!(self.how, Sabotage::RefusalIsSilence) => {
                return Err(ProvisionerFault::new(FaultClass::Unreachable, fault.detail));
            }
            answer => answer?,
        };
        if let (Sabotage::LostOneIsGranted, Replacement::Granted(replica)) = (self.how, &mut answer)
        {
            replica.id = lost.replica.clone();
        }
        Ok(answer)
    }

    async fn confirm_removed(
        &self,
        context: &CallContext,
        replica: ReplicaRef<'_>,
        key: &CallKey,
    ) -> Result<(), ProvisionerFault> {
        if matches!(self.how, Sabotage::RemovalIsForgotten) {
            return Ok(());
        }
        let known = ["r", "s"].iter().any(|start| replica.replica.as_str().starts_with(start));
        if matches!(self.how, Sabotage::RemovalOfTheUnknownFails) && !known {
            return Err(ProvisionerFault::new(FaultClass::NotFound, "no such replica"));
        }
        let key = self.key(key);
        self.inner.confirm_removed(context, replica, &key).await
    }

    async fn publish(&self, _: &CallContext, _: &VolumeId) -> Result<(), ProvisionerFault> {
        Err(ProvisionerFault::new(FaultClass::Unsupported, "no"))
    }
}

/// Time stands still but for sleeps, so a saboteur who never answers costs no time.
async fn failures_of(wrap: fn(Arc<dyn Provisioner>) -> Arc<dyn Provisioner>) -> BTreeSet<String> {
    let report = run(wrap).await;
    report.failures().map(|case| case.name.clone()).collect()
}

macro_rules! saboteur {
    ($test:ident, $how:ident, [$($caught:literal),+]) => {
        #[tokio::test(start_paused = true)]
        async fn $test() {
            let failed = failures_of(|inner| {
                Arc::new(Saboteur { inner, how: Sabotage::$how, count: AtomicU32::new(0) })
            }).await;
            for caught in [$($caught),+] {
                assert!(failed.contains(caught), "{caught} passed; failed were {failed:#?}");
            }
        }
    };
}

saboteur!(
    a_backend_that_says_none_when_it_is_away_is_caught,
    AwayIsNone,
    ["a provisioner that is away is unreachable and never none"]
);
saboteur!(
    a_backend_that_ignores_keys_is_caught,
    KeysAreIgnored,
    [
        "a late repetition of an old report does not undo a newer one",
        "the return of the lost replica withdraws the request"
    ]
);
saboteur!(
    a_backend_that_grants_the_lost_replica_is_caught,
    LostOneIsGranted,
    ["a granted replica is listed as synchronizing beside the lost one"]
);
saboteur!(
    a_backend_that_never_answers_a_request_is_caught,
    AlwaysPending,
    ["a request before the report of the loss is granted"]
);
saboteur!(
    a_backend_that_forgets_removals_is_caught,
    RemovalIsForgotten,
    ["a removed replica leaves the volume", "a removal survives a restart"]
);
saboteur!(
    a_backend_that_forgets_reports_is_caught,
    ReportIsForgotten,
    [
        "a replica reported missing is missing",
        "a report of an unknown replica is not found",
        "an unusable replacement is never offered again"
    ]
);
saboteur!(
    a_backend_that_does_not_list_what_it_granted_is_caught,
    NothingIsListed,
    ["a grant survives a restart before the host says a word"]
);
saboteur!(
    a_backend_that_calls_everything_available_is_caught,
    EverythingIsAvailable,
    ["a granted replica is listed as synchronizing beside the lost one"]
);

saboteur!(
    a_backend_that_takes_every_array_for_its_own_is_caught,
    EveryArrayIsThis,
    ["an array that nobody knows is none and not a fault", "a name never overrules another uuid"]
);
saboteur!(
    a_backend_whose_refusal_is_silence_is_caught,
    RefusalIsSilence,
    ["a request without a spare left is refused"]
);
saboteur!(
    a_backend_that_cannot_remove_what_is_gone_is_caught,
    RemovalOfTheUnknownFails,
    ["a removal of an unknown replica is success"]
);
