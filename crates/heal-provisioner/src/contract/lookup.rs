//! Cases about finding a volume, and about not being able to.

use heal_types::{Alias, ArrayId, FaultClass, ProvisionerCall, VolumeQuery};

use super::bench::{
    Bench, EndWhy, Ended, cases, ensure, expect_class, failed, key_of, nobody, request,
    two_replicas,
};
use super::{KnownBy, Stage};
use crate::{ForwardedEvent, Severity, dispatch};

cases![
    the_stage_shows_a_volume_that_passes_every_check,
    a_volume_is_found_by_the_uuid_of_its_array,
    a_volume_is_found_by_the_name_of_its_array,
    a_name_never_overrules_another_uuid,
    an_array_that_nobody_knows_is_none_and_not_a_fault,
    a_probe_is_answered,
    a_provisioner_that_is_away_is_unreachable_and_never_none,
    every_call_to_a_provisioner_that_is_away_is_unreachable,
    a_provisioner_that_came_back_knows_what_it_knew,
    an_optional_call_works_or_says_that_it_is_unsupported,
];

/// An array that is on no stage.
fn other_array() -> ArrayId {
    ArrayId::from_bytes(*b"no such array \xf0\x9f")
}

async fn the_stage_shows_a_volume_that_passes_every_check(mut bench: Bench<'_>) -> Ended {
    let stage = two_replicas(0);
    let volume = bench.stand(&stage).await?;
    for replica in &volume.replicas {
        bench.expect_state(&replica.id, heal_types::ReplicaState::Available).await?;
        ensure(
            replica.target.size.is_none_or(|size| size >= stage.size),
            format_args!("replica {} is smaller than the stage says", replica.id),
        )?;
    }
    Ok(())
}

async fn a_volume_is_found_by_the_uuid_of_its_array(mut bench: Bench<'_>) -> Ended {
    let known_by = KnownBy::Array;
    let stage = Stage { known_by, ..two_replicas(0) };
    bench.stand(&stage).await?;
    let query = VolumeQuery { alias: None, ..bench.query()? };
    found(&bench, query).await
}

async fn a_volume_is_found_by_the_name_of_its_array(mut bench: Bench<'_>) -> Ended {
    let known_by = KnownBy::Alias;
    let stage = Stage { known_by, ..two_replicas(0) };
    bench.stand(&stage).await?;
    let query = bench.query()?;
    found(&bench, query).await
}

async fn found(bench: &Bench<'_>, query: VolumeQuery) -> Ended {
    match bench.find(query).await? {
        Ok(Some(_)) => Ok(()),
        Ok(None) => failed("the volume is not found"),
        Err(fault) => failed(fault),
    }
}

async fn a_name_never_overrules_another_uuid(mut bench: Bench<'_>) -> Ended {
    bench.stand(&two_replicas(0)).await?;
    let query = VolumeQuery { array: other_array(), ..bench.query()? };
    match bench.find(query).await? {
        Ok(None) => Ok(()),
        // A provisioner that tells the array's UUID and answers all the same is caught by the
        // check.
        Err(fault) if fault.class == FaultClass::Invalid => Ok(()),
        Ok(Some(volume)) => failed(format_args!(
            "an array of another UUID is taken for volume {} by its name",
            volume.id
        )),
        Err(fault) => failed(fault),
    }
}

async fn an_array_that_nobody_knows_is_none_and_not_a_fault(mut bench: Bench<'_>) -> Ended {
    bench.stand(&two_replicas(0)).await?;
    let alias: Alias = nobody()?;
    for alias in [None, Some(alias)] {
        let array = other_array();
        match bench.find(VolumeQuery { array, alias }).await? {
            Ok(None) => {}
            other => return failed(format_args!("wanted a clear none, got {other:?}")),
        }
    }
    Ok(())
}

async fn a_probe_is_answered(mut bench: Bench<'_>) -> Ended {
    bench.stand(&two_replicas(0)).await?;
    bench.probe().await?.or_else(failed)
}

async fn a_provisioner_that_is_away_is_unreachable_and_never_none(mut bench: Bench<'_>) -> Ended {
    bench.stand(&two_replicas(0)).await?;
    let query = bench.query()?;
    bench.go_away().await?;
    let outcome = away_is_unreachable(&bench, query).await;
    bench.come_back().await?;
    outcome
}

async fn away_is_unreachable(bench: &Bench<'_>, query: VolumeQuery) -> Ended {
    expect_class(bench.find(query).await?, FaultClass::Unreachable)?;
    let unknown = VolumeQuery { array: other_array(), alias: None };
    expect_class(bench.find(unknown).await?, FaultClass::Unreachable)
}

async fn every_call_to_a_provisioner_that_is_away_is_unreachable(mut bench: Bench<'_>) -> Ended {
    let volume = bench.stand(&two_replicas(1)).await?;
    let lost = &volume.replicas[0].id;
    bench.go_away().await?;
    let calls = calls_on(&volume.id, lost);
    let outcome = all_unreachable(&bench, calls?).await;
    bench.come_back().await?;
    outcome
}

fn calls_on(
    volume: &heal_types::VolumeId,
    replica: &heal_types::ReplicaId,
) -> Result<Vec<ProvisionerCall>, EndWhy> {
    Ok(vec![
        ProvisionerCall::Report {
            volume: volume.clone(),
            replica: replica.clone(),
            condition: heal_types::Condition::Missing,
            since: heal_types::WallTime(0),
            key: key_of("k1")?,
        },
        request(volume, replica, "k2", "away")?,
        ProvisionerCall::ConfirmRemoved {
            volume: volume.clone(),
            replica: replica.clone(),
            key: key_of("k3")?,
        },
    ])
}

async fn all_unreachable(bench: &Bench<'_>, calls: Vec<ProvisionerCall>) -> Ended {
    for call in calls {
        expect_class(bench.call(call).await?, FaultClass::Unreachable)?;
    }
    expect_class(bench.probe().await?, FaultClass::Unreachable)
}

async fn a_provisioner_that_came_back_knows_what_it_knew(mut bench: Bench<'_>) -> Ended {
    let volume = bench.stand(&two_replicas(1)).await?;
    let granted = bench.lose(&volume.id, &volume.replicas[0].id, "k1").await?;
    let before = bench.volume().await?;
    bench.go_away().await?;
    bench.come_back().await?;
    let after = bench.volume().await?;
    ensure(before == after, format_args!("before: {before:?}\nafter: {after:?}"))?;
    let again = bench.request(&volume.id, &volume.replicas[0].id, "k1").await?;
    ensure(again.id == granted.id, "another replica under the same key")
}

async fn an_optional_call_works_or_says_that_it_is_unsupported(mut bench: Bench<'_>) -> Ended {
    let volume = bench.stand(&two_replicas(0)).await?;
    let provisioner = bench.provisioner()?;
    let limit = std::time::Duration::from_secs(30);
    let can = provisioner.capabilities();
    let event = ForwardedEvent {
        severity: Severity::Info,
        at: heal_types::WallTime(1_800_000_000_000),
        message: "the contract suite was here".to_owned(),
        fields: std::collections::BTreeMap::new(),
    };
    let publish = dispatch::publish(&*provisioner, &volume.id, limit).await;
    let forward = dispatch::forward(&*provisioner, &event, limit).await;
    for (verb, has, answer) in
        [("publish", can.publish, publish), ("forward", can.forward, forward)]
    {
        match answer {
            Ok(()) => {}
            Err(fault) if !has && fault.class == FaultClass::Unsupported => {}
            Err(fault) => return failed(format_args!("{verb} (said to be there: {has}): {fault}")),
        }
    }
    Ok(())
}
