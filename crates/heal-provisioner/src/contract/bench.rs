//! What the cases are written with: one stage, its calls, and short words for what is expected.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use heal_types::{
    CallKey, Condition, FaultClass, ProvisionerAnswer, ProvisionerCall, ProvisionerFault,
    Replacement, Replica, ReplicaId, ReplicaState, SectorCount, Volume, VolumeId, VolumeQuery,
    WallTime,
};

use super::{Fixture, FixtureWhy, KnownBy, Stage, Standing};
use crate::{HostInfo, Provisioner, dispatch};

/// How long the suite lets a provisioner take for one call.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often a pending replacement is asked for again.
const MAX_PENDING: u32 = 60;
/// How long the suite waits between two such questions, however long the provisioner asked for.
const MAX_PAUSE: Duration = Duration::from_secs(10);

pub(super) type Ended = Result<(), EndWhy>;

/// Why a case ended early.
#[derive(Debug)]
pub(super) enum EndWhy {
    Failed(String),
    Skipped(String),
}

impl From<FixtureWhy> for EndWhy {
    fn from(why: FixtureWhy) -> Self {
        match why {
            FixtureWhy::NotPossible(why) => Self::Skipped(why),
            FixtureWhy::Broken(why) => Self::Failed(format!("the fixture broke: {why}")),
        }
    }
}

type CaseFuture<'a> = Pin<Box<dyn Future<Output = Ended> + Send + 'a>>;

#[derive(Clone, Copy)]
pub(super) struct Case {
    pub(super) name: &'static str,
    pub(super) run: for<'a> fn(Bench<'a>) -> CaseFuture<'a>,
}

impl Case {
    pub(super) fn sentence(&self) -> String {
        self.name.replace('_', " ")
    }
}

/// A table of cases: the function's name is the case's.
macro_rules! cases {
    ($($name:ident),+ $(,)?) => {
        pub(super) const CASES: &[$crate::contract::bench::Case] = &[$(
            $crate::contract::bench::Case { name: stringify!($name), run: |bench| Box::pin($name(bench)) },
        )+];
    };
}
pub(super) use cases;

pub(super) fn failed<T>(why: impl fmt::Display) -> Result<T, EndWhy> {
    Err(EndWhy::Failed(why.to_string()))
}

/// Fails the case with `why` unless `so`.
pub(super) fn ensure(so: bool, why: impl fmt::Display) -> Ended {
    if so { Ok(()) } else { failed(why) }
}

/// The stage most cases want: a volume of two replicas.
pub(super) fn two_replicas(spares: usize) -> Stage {
    let size = SectorCount(1 << 16);
    Stage { known_by: KnownBy::Both, replicas: 2, size, spares: vec![size; spares] }
}

pub(super) struct Bench<'a> {
    fixture: &'a mut dyn Fixture,
    standing: Option<Standing>,
}

impl<'a> Bench<'a> {
    pub(super) fn new(fixture: &'a mut dyn Fixture) -> Self {
        Self { fixture, standing: None }
    }

    /// Stands the stage up and gives the volume as the provisioner shows it.
    pub(super) async fn stand(&mut self, stage: &Stage) -> Result<Volume, EndWhy> {
        self.standing = Some(self.fixture.set_up(stage).await?);
        let volume = self.volume().await?;
        ensure(
            volume.replicas.len() == usize::from(stage.replicas),
            format_args!(
                "asked for {} replicas, the volume has {}",
                stage.replicas,
                volume.replicas.len()
            ),
        )?;
        Ok(volume)
    }

    pub(super) async fn go_away(&mut self) -> Ended {
        Ok(self.fixture.go_away().await?)
    }

    pub(super) async fn come_back(&mut self) -> Ended {
        Ok(self.fixture.come_back().await?)
    }

    pub(super) async fn restart(&mut self) -> Ended {
        let provisioner = self.fixture.restart().await?;
        if let Some(standing) = &mut self.standing {
            standing.provisioner = provisioner;
        }
        Ok(())
    }

    fn standing(&self) -> Result<&Standing, EndWhy> {
        match &self.standing {
            Some(standing) => Ok(standing),
            None => failed("the case stands on no stage"),
        }
    }

    pub(super) fn provisioner(&self) -> Result<Arc<dyn Provisioner>, EndWhy> {
        Ok(Arc::clone(&self.standing()?.provisioner))
    }

    pub(super) fn query(&self) -> Result<VolumeQuery, EndWhy> {
        Ok(self.standing()?.query.clone())
    }

    pub(super) async fn call(
        &self,
        call: ProvisionerCall,
    ) -> Result<Result<ProvisionerAnswer, ProvisionerFault>, EndWhy> {
        let provisioner = self.provisioner()?;
        Ok(dispatch::call(&*provisioner, &call, PATIENCE).await)
    }

    pub(super) async fn probe(&self) -> Result<Result<(), ProvisionerFault>, EndWhy> {
        let host = HostInfo {
            nqn: "nqn.2014-08.org.nvmexpress:uuid:6fd1ee4c-3f2c-4f6f-8a44-0a7ef2a0a001"
                .parse()
                .or_else(failed)?,
            id: None,
            name: "contract-suite".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            next_within: Duration::from_secs(60),
            multipath: true,
        };
        let provisioner = self.provisioner()?;
        Ok(dispatch::probe(&*provisioner, &host, PATIENCE).await)
    }

    pub(super) async fn find(
        &self,
        query: VolumeQuery,
    ) -> Result<Result<Option<Volume>, ProvisionerFault>, EndWhy> {
        match self.call(ProvisionerCall::FindVolume(query)).await? {
            Ok(ProvisionerAnswer::Volume(volume)) => Ok(Ok(volume)),
            Ok(other) => failed(format_args!("find_volume was answered with {other:?}")),
            Err(fault) => Ok(Err(fault)),
        }
    }

    /// The volume as it is shown now.
    pub(super) async fn volume(&self) -> Result<Volume, EndWhy> {
        match self.find(self.query()?).await? {
            Ok(Some(volume)) => Ok(volume),
            Ok(None) => failed("the volume is not found"),
            Err(fault) => failed(format_args!("the volume is not found: {fault}")),
        }
    }

    pub(super) async fn state_of(&self, replica: &ReplicaId) -> Result<ReplicaState, EndWhy> {
        match self.volume().await?.replica(replica) {
            Some(replica) => Ok(replica.state),
            None => failed(format_args!("replica {replica} is not in the volume")),
        }
    }

    pub(super) async fn expect_state(&self, replica: &ReplicaId, wanted: ReplicaState) -> Ended {
        let state = self.state_of(replica).await?;
        ensure(state == wanted, format_args!("replica {replica} is {state:?}, wanted {wanted:?}"))
    }

    pub(super) async fn try_report(
        &self,
        volume: &VolumeId,
        replica: &ReplicaId,
        condition: Condition,
        key: &str,
    ) -> Result<Result<(), ProvisionerFault>, EndWhy> {
        let call = ProvisionerCall::Report {
            volume: volume.clone(),
            replica: replica.clone(),
            condition,
            since: WallTime(1_800_000_000_000),
            key: key_of(key)?,
        };
        Ok(self.call(call).await?.map(|_| ()))
    }

    pub(super) async fn report(
        &self,
        volume: &VolumeId,
        replica: &ReplicaId,
        condition: Condition,
        key: &str,
    ) -> Ended {
        let word = condition.word();
        match self.try_report(volume, replica, condition, key).await? {
            Ok(()) => Ok(()),
            Err(fault) => failed(format_args!("report {word} of {replica}: {fault}")),
        }
    }

    pub(super) async fn confirm_removed(
        &self,
        volume: &VolumeId,
        replica: &ReplicaId,
        key: &str,
    ) -> Ended {
        let call = ProvisionerCall::ConfirmRemoved {
            volume: volume.clone(),
            replica: replica.clone(),
            key: key_of(key)?,
        };
        match self.call(call).await? {
            Ok(_) => Ok(()),
            Err(fault) => failed(format_args!("confirm_removed of {replica}: {fault}")),
        }
    }

    /// Asks for a replacement, and again while it is pending.
    pub(super) async fn try_request(
        &self,
        volume: &VolumeId,
        lost: &ReplicaId,
        key: &str,
    ) -> Result<Result<Replica, ProvisionerFault>, EndWhy> {
        self.try_request_because(volume, lost, key, "the contract suite lost it").await
    }

    pub(super) async fn try_request_because(
        &self,
        volume: &VolumeId,
        lost: &ReplicaId,
        key: &str,
        why: &str,
    ) -> Result<Result<Replica, ProvisionerFault>, EndWhy> {
        let call = request(volume, lost, key, why)?;
        for _ in 0..MAX_PENDING {
            match self.call(call.clone()).await? {
                Ok(ProvisionerAnswer::Replacement(Replacement::Granted(replica))) => {
                    return Ok(Ok(replica));
                }
                Ok(ProvisionerAnswer::Replacement(Replacement::Pending { after })) => {
                    tokio::time::sleep(after.min(MAX_PAUSE)).await;
                }
                Ok(other) => {
                    return failed(format_args!("a request was answered with {other:?}"));
                }
                Err(fault) => return Ok(Err(fault)),
            }
        }
        failed(format_args!("still pending after {MAX_PENDING} questions under one key"))
    }

    pub(super) async fn request(
        &self,
        volume: &VolumeId,
        lost: &ReplicaId,
        key: &str,
    ) -> Result<Replica, EndWhy> {
        match self.try_request(volume, lost, key).await? {
            Ok(replica) => Ok(replica),
            Err(fault) => failed(format_args!("request for {lost} under {key}: {fault}")),
        }
    }

    /// A request that must not be granted.
    pub(super) async fn expect_refused(
        &self,
        volume: &VolumeId,
        lost: &ReplicaId,
        key: &str,
    ) -> Ended {
        expect_class(self.try_request(volume, lost, key).await?, FaultClass::Refused)
    }

    /// Reports a replica missing and asks for another: how nearly every story begins.
    pub(super) async fn lose(
        &self,
        volume: &VolumeId,
        lost: &ReplicaId,
        key: &str,
    ) -> Result<Replica, EndWhy> {
        self.report(volume, lost, Condition::Missing, &format!("{key}/missing")).await?;
        self.request(volume, lost, key).await
    }
}

pub(super) fn request(
    volume: &VolumeId,
    lost: &ReplicaId,
    key: &str,
    why: &str,
) -> Result<ProvisionerCall, EndWhy> {
    Ok(ProvisionerCall::RequestReplacement {
        volume: volume.clone(),
        lost: lost.clone(),
        why: why.to_owned(),
        key: key_of(key)?,
    })
}

pub(super) fn key_of(text: &str) -> Result<CallKey, EndWhy> {
    CallKey::new(text).or_else(failed)
}

/// An id that no provisioner made.
pub(super) fn nobody<T: std::str::FromStr>() -> Result<T, EndWhy>
where
    T::Err: fmt::Display,
{
    "contract-suite-nobody".parse().or_else(failed)
}

/// The call must fail in this way.
pub(super) fn expect_class<T: fmt::Debug>(
    answer: Result<T, ProvisionerFault>,
    wanted: FaultClass,
) -> Ended {
    match answer {
        Err(fault) if fault.class == wanted => Ok(()),
        Err(fault) => failed(format_args!("wanted {wanted}, got {fault}")),
        Ok(answer) => failed(format_args!("wanted {wanted}, got {answer:?}")),
    }
}
