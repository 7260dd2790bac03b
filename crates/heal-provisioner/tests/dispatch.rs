//! What the dispatcher believes, and what it turns into a fault.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::wildcard_enum_match_arm,
    reason = "a test's helper functions fail the test like the test itself"
)]

use std::time::Duration;

use heal_provisioner::{
    CallContext, Capabilities, HostInfo, Provisioner, ReplicaRef, async_trait, call, dispatch,
};
use heal_types::{
    CallKey, Condition, FaultClass, GracePolicy, ProvisionerAnswer, ProvisionerCall,
    ProvisionerFault, Replacement, Replica, ReplicaState, SectorCount, Target, Volume, VolumeQuery,
    WallTime,
};

/// Answers what it was told to; without an answer it never does.
#[derive(Debug, Default)]
struct Parrot {
    volume: Option<Result<Option<Volume>, ProvisionerFault>>,
    replacement: Option<Replacement>,
}

#[async_trait]
impl Provisioner for Parrot {
    fn name(&self) -> &str {
        "parrot"
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::default()
    }

    async fn probe(&self, _: &CallContext, _: &HostInfo) -> Result<(), ProvisionerFault> {
        std::future::pending().await
    }

    async fn find_volume(
        &self,
        _: &CallContext,
        _: &VolumeQuery,
    ) -> Result<Option<Volume>, ProvisionerFault> {
        match &self.volume {
            Some(volume) => volume.clone(),
            None => std::future::pending().await,
        }
    }

    async fn report(
        &self,
        context: &CallContext,
        _: ReplicaRef<'_>,
        _: &Condition,
        _: WallTime,
        _: &CallKey,
    ) -> Result<(), ProvisionerFault> {
        assert!(context.remaining() > Duration::ZERO);
        Ok(())
    }

    async fn request_replacement(
        &self,
        _: &CallContext,
        _: ReplicaRef<'_>,
        _: &str,
        _: &CallKey,
    ) -> Result<Replacement, ProvisionerFault> {
        match &self.replacement {
            Some(replacement) => Ok(replacement.clone()),
            None => std::future::pending().await,
        }
    }

    async fn confirm_removed(
        &self,
        _: &CallContext,
        _: ReplicaRef<'_>,
        _: &CallKey,
    ) -> Result<(), ProvisionerFault> {
        std::future::pending().await
    }
}

const LIMIT: Duration = Duration::from_secs(5);

fn replica(id: &str, number: u8) -> Replica {
    Replica {
        id: id.parse().unwrap(),
        state: ReplicaState::Available,
        target: Target {
            nqn: "nqn.2026-11.example:a".parse().unwrap(),
            namespace: format!("6fd1ee4c-3f2c-4f6f-8a44-0000000000{number:02x}").parse().unwrap(),
            portals: vec![heal_provisioner::text::parse_portal("tcp://10.0.0.1:4420").unwrap()],
            size: Some(SectorCount(2048)),
        },
    }
}

fn query() -> VolumeQuery {
    VolumeQuery {
        array: "8e0a1b6c:1f2e3d4c:5b6a7988:00112233".parse().unwrap(),
        alias: Some("db".parse().unwrap()),
    }
}

fn volume() -> Volume {
    Volume {
        id: "v".parse().unwrap(),
        array: Some(query().array),
        alias: None,
        copies: 2,
        replicas: vec![replica("a", 1), replica("b", 2)],
        grace: None,
    }
}

async fn find(
    answer: Result<Option<Volume>, ProvisionerFault>,
) -> Result<ProvisionerAnswer, ProvisionerFault> {
    let parrot = Parrot { volume: Some(answer), replacement: None };
    call(&parrot, &ProvisionerCall::FindVolume(query()), LIMIT).await
}

async fn request(answer: Replacement) -> Result<ProvisionerAnswer, ProvisionerFault> {
    let parrot = Parrot { volume: None, replacement: Some(answer) };
    let request = ProvisionerCall::RequestReplacement {
        volume: "v".parse().unwrap(),
        lost: "a".parse().unwrap(),
        why: "lost".into(),
        key: CallKey::new("k").unwrap(),
    };
    call(&parrot, &request, LIMIT).await
}

#[tokio::test(start_paused = true)]
async fn no_answer_in_time_is_unreachable() {
    let parrot = Parrot::default();
    let started = tokio::time::Instant::now();
    let fault = call(&parrot, &ProvisionerCall::FindVolume(query()), LIMIT).await.unwrap_err();
    assert_eq!(fault.class, FaultClass::Unreachable);
    assert_eq!(fault.detail, "no answer to find_volume in time");
    assert_eq!(started.elapsed().as_secs(), 5);
}

#[tokio::test(start_paused = true)]
async fn a_limit_beyond_all_clocks_does_not_panic() {
    let parrot = Parrot { volume: Some(Ok(None)), replacement: None };
    let find = ProvisionerCall::FindVolume(query());
    let _ = call(&parrot, &find, Duration::MAX).await;
    let _ = call(&parrot, &find, Duration::ZERO).await;
}

#[tokio::test]
async fn a_volume_without_contradiction_and_a_clear_none_are_believed() {
    assert_eq!(find(Ok(None)).await, Ok(ProvisionerAnswer::Volume(None)));
    let by_array = volume();
    assert_eq!(
        find(Ok(Some(by_array.clone()))).await,
        Ok(ProvisionerAnswer::Volume(Some(by_array)))
    );
    let by_alias = Volume { array: None, alias: Some("db".parse().unwrap()), ..volume() };
    assert!(find(Ok(Some(by_alias))).await.is_ok());
}

#[tokio::test]
async fn a_volume_that_contradicts_itself_or_the_question_is_invalid() {
    let other = "8e0a1b6c:1f2e3d4c:5b6a7988:00112234".parse().unwrap();
    let mut no_size = volume();
    no_size.replicas[0].target.size = Some(SectorCount(0));
    let mut port_zero = volume();
    port_zero.replicas[1].target.portals[0].port = 0;
    let century = GracePolicy::After(Duration::from_secs(100 * 366 * 86_400));
    for (volume, said) in [
        (Volume { copies: 0, ..volume() }, "0 copies"),
        (
            Volume { replicas: vec![replica("a", 1), replica("a", 2)], ..volume() },
            "lists replica a twice",
        ),
        (
            Volume { replicas: vec![replica("a", 1), replica("b", 1)], ..volume() },
            "are one namespace",
        ),
        (Volume { array: Some(other), ..volume() }, "got volume v of array"),
        (Volume { array: None, alias: Some("dc".parse().unwrap()), ..volume() }, "of the name dc"),
        (Volume { grace: Some(century), ..volume() }, "grace period"),
        (no_size, "has no size"),
        (port_zero, "port 0"),
    ] {
        let fault = find(Ok(Some(volume))).await.unwrap_err();
        assert_eq!(fault.class, FaultClass::Invalid);
        assert!(fault.detail.contains(said), "{fault}\nwanted {said}");
    }
}

#[tokio::test]
async fn not_found_is_no_answer_to_which_volume() {
    let fault = ProvisionerFault::new(FaultClass::NotFound, "HTTP 404");
    assert_eq!(find(Err(fault)).await.unwrap_err().class, FaultClass::Invalid);
}

#[tokio::test]
async fn a_grant_that_breaks_the_contract_is_invalid() {
    let mut no_portal = replica("c", 3);
    no_portal.target.portals.clear();
    for (granted, said) in [
        (replica("a", 3), "is a itself"),
        (Replica { state: ReplicaState::Bad, ..replica("c", 3) }, "which is Bad"),
        (Replica { state: ReplicaState::Terminating, ..replica("c", 3) }, "which is Terminating"),
        (no_portal, "has 0 portals"),
    ] {
        let fault = request(Replacement::Granted(granted)).await.unwrap_err();
        assert_eq!(fault.class, FaultClass::Invalid);
        assert!(fault.detail.contains(said), "{fault}\nwanted {said}");
    }
    assert!(request(Replacement::Granted(replica("c", 3))).await.is_ok());
}

#[tokio::test]
async fn a_pending_replacement_is_asked_for_neither_at_once_nor_never() {
    for (said, believed) in [(0, 1), (10, 10), (u64::MAX, 3600)] {
        let answer = request(Replacement::Pending { after: Duration::from_secs(said) }).await;
        let after = Duration::from_secs(believed);
        assert_eq!(answer, Ok(ProvisionerAnswer::Replacement(Replacement::Pending { after })));
    }
}

#[tokio::test]
async fn a_faults_text_is_one_bounded_line() {
    let fault = ProvisionerFault {
        class: FaultClass::Refused,
        detail: format!("no\n\x1b[2J{}", "x".repeat(100_000)),
    };
    let fault = find(Err(fault)).await.unwrap_err();
    assert!(fault.detail.starts_with("no  [2Jxxx") && fault.detail.len() <= 500, "{fault}");
}

#[tokio::test]
async fn a_call_that_the_backend_does_not_have_is_unsupported() {
    let fault =
        dispatch::publish(&Parrot::default(), &"v".parse().unwrap(), LIMIT).await.unwrap_err();
    assert_eq!(fault.class, FaultClass::Unsupported);
    assert_eq!(fault.detail, "backend parrot has no call publish");
}
