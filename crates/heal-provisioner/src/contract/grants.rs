//! Cases about replacements: one key, one lost replica, one spare.

use heal_types::{
    Condition, FaultClass, ProvisionerAnswer, Replacement, Replica, ReplicaId, ReplicaState,
    SectorCount, Volume,
};
use tokio::task::JoinSet;

use super::Stage;
use super::bench::{
    Bench, EndWhy, Ended, cases, ensure, expect_class, failed, nobody, request, two_replicas,
};
use crate::dispatch;

cases![
    a_granted_replica_is_listed_as_synchronizing_beside_the_lost_one,
    a_granted_replica_is_on_no_namespace_that_the_volume_uses,
    a_request_under_one_key_is_one_replica_however_often_it_comes,
    requests_under_one_key_at_the_same_time_are_one_replica,
    a_grant_survives_a_restart_before_the_host_says_a_word,
    another_key_for_the_same_lost_replica_never_costs_a_second_spare,
    two_lost_replicas_never_get_the_same_replacement,
    one_key_never_yields_two_replicas,
    a_request_before_the_report_of_the_loss_is_granted,
    a_request_without_a_spare_left_is_refused,
    a_refused_request_leaves_the_volume_as_it_was,
    a_spare_that_is_too_small_is_never_granted,
    a_spare_that_is_large_enough_is_found_behind_one_that_is_not,
    a_request_for_an_unknown_replica_is_not_found,
    a_request_for_an_unknown_volume_is_not_found,
    a_granted_replica_becomes_available_when_the_host_says_so,
    the_return_of_the_lost_replica_withdraws_the_request,
    a_withdrawn_spare_can_be_granted_again_under_a_new_key,
    a_withdrawal_survives_a_restart,
    a_replacement_taken_up_is_not_withdrawn,
    an_unusable_replacement_closes_its_request_and_a_new_key_gets_another,
    an_unusable_replacement_is_never_offered_again,
    a_replacement_that_is_lost_itself_can_be_replaced,
    a_removed_replica_is_never_offered_again,
    a_spare_in_use_stays_with_its_volume_after_the_lost_one_is_removed,
];

async fn a_granted_replica_is_listed_as_synchronizing_beside_the_lost_one(
    mut bench: Bench<'_>,
) -> Ended {
    let volume = bench.stand(&two_replicas(1)).await?;
    let lost = &volume.replicas[0].id;
    let new = bench.lose(&volume.id, lost, "k1").await?;
    bench.expect_state(&new.id, ReplicaState::Synchronizing).await?;
    match bench.state_of(lost).await? {
        ReplicaState::Missing | ReplicaState::Bad | ReplicaState::Terminating => Ok(()),
        good @ (ReplicaState::Available | ReplicaState::Synchronizing | ReplicaState::Unknown) => {
            failed(format_args!("the lost replica is {good:?} after it was replaced"))
        }
    }
}

async fn a_granted_replica_is_on_no_namespace_that_the_volume_uses(mut bench: Bench<'_>) -> Ended {
    let volume = bench.stand(&two_replicas(1)).await?;
    let new = bench.lose(&volume.id, &volume.replicas[0].id, "k1").await?;
    for replica in &volume.replicas {
        ensure(
            replica.id != new.id && replica.target.namespace != new.target.namespace,
            format_args!("the replacement {} is replica {}", new.id, replica.id),
        )?;
    }
    let listed = bench.volume().await?;
    ensure(
        listed.replica(&new.id).map(|listed| &listed.target) == Some(&new.target),
        "the volume lists the replacement in another place than the grant said",
    )
}

async fn a_request_under_one_key_is_one_replica_however_often_it_comes(
    mut bench: Bench<'_>,
) -> Ended {
    let volume = bench.stand(&two_replicas(3)).await?;
    let lost = &volume.replicas[0].id;
    let first = bench.lose(&volume.id, lost, "k1").await?;
    for _ in 0..3 {
        let again = bench.request(&volume.id, lost, "k1").await?;
        same(&first, &again)?;
    }
    expect_count(&bench, 3).await
}

fn same(first: &Replica, again: &Replica) -> Ended {
    ensure(
        first.id == again.id && first.target.namespace == again.target.namespace,
        format_args!("first replica {}, then replica {}", first.id, again.id),
    )
}

async fn expect_count(bench: &Bench<'_>, wanted: usize) -> Ended {
    let count = bench.volume().await?.replicas.len();
    ensure(count == wanted, format_args!("the volume has {count} replicas, wanted {wanted}"))
}

async fn requests_under_one_key_at_the_same_time_are_one_replica(mut bench: Bench<'_>) -> Ended {
    let volume = bench.stand(&two_replicas(3)).await?;
    let lost = &volume.replicas[0].id;
    bench.report(&volume.id, lost, Condition::Missing, "k1/missing").await?;
    let call = request(&volume.id, lost, "k1", "all at once")?;
    let mut calls = JoinSet::new();
    for _ in 0..8 {
        let (provisioner, call) = (bench.provisioner()?, call.clone());
        calls.spawn(async move {
            let limit = std::time::Duration::from_secs(30);
            dispatch::call(&*provisioner, &call, limit).await
        });
    }
    let mut granted: Option<ReplicaId> = None;
    while let Some(answer) = calls.join_next().await {
        match answer.or_else(failed)? {
            Ok(ProvisionerAnswer::Replacement(Replacement::Granted(replica))) => {
                let first = granted.get_or_insert_with(|| replica.id.clone());
                ensure(*first == replica.id, "two replicas under one key")?;
            }
            Ok(ProvisionerAnswer::Replacement(Replacement::Pending { .. })) => {}
            other => return failed(format_args!("one of the calls: {other:?}")),
        }
    }
    let settled = bench.request(&volume.id, lost, "k1").await?;
    ensure(granted.is_none_or(|id| id == settled.id), "another replica when asked again")?;
    expect_count(&bench, 3).await
}

async fn a_grant_survives_a_restart_before_the_host_says_a_word(mut bench: Bench<'_>) -> Ended {
    let volume = bench.stand(&two_replicas(2)).await?;
    let lost = &volume.replicas[0].id;
    let first = bench.lose(&volume.id, lost, "k1").await?;
    bench.restart().await?;
    bench.expect_state(&first.id, ReplicaState::Synchronizing).await?;
    let again = bench.request(&volume.id, lost, "k1").await?;
    same(&first, &again)?;
    expect_count(&bench, 3).await
}

async fn another_key_for_the_same_lost_replica_never_costs_a_second_spare(
    mut bench: Bench<'_>,
) -> Ended {
    let volume = bench.stand(&two_replicas(2)).await?;
    let lost = &volume.replicas[0].id;
    let first = bench.lose(&volume.id, lost, "k1").await?;
    for (key, taken_up) in [("k2", true), ("k3", false)] {
        match bench.try_request(&volume.id, lost, key).await? {
            Ok(again) => same(&first, &again)?,
            Err(fault) => expect_class::<Replica>(Err(fault), FaultClass::Refused)?,
        }
        expect_count(&bench, 3).await?;
        if taken_up {
            bench.report(&volume.id, &first.id, Condition::Synchronizing, "k4").await?;
        }
    }
    Ok(())
}

async fn two_lost_replicas_never_get_the_same_replacement(mut bench: Bench<'_>) -> Ended {
    let stage = Stage { replicas: 3, ..two_replicas(2) };
    let volume = bench.stand(&stage).await?;
    let first = bench.lose(&volume.id, &volume.replicas[0].id, "k1").await?;
    let second = bench.lose(&volume.id, &volume.replicas[1].id, "k2").await?;
    ensure(
        first.id != second.id && first.target.namespace != second.target.namespace,
        "one replica replaces two",
    )
}

async fn one_key_never_yields_two_replicas(mut bench: Bench<'_>) -> Ended {
    let stage = Stage { replicas: 3, ..two_replicas(2) };
    let volume = bench.stand(&stage).await?;
    let first = bench.lose(&volume.id, &volume.replicas[0].id, "k1").await?;
    match bench.try_request(&volume.id, &volume.replicas[1].id, "k1").await? {
        Ok(again) => same(&first, &again)?,
        Err(fault) => expect_class::<Replica>(Err(fault), FaultClass::Refused)?,
    }
    expect_count(&bench, 4).await
}

async fn a_request_before_the_report_of_the_loss_is_granted(mut bench: Bench<'_>) -> Ended {
    let volume = bench.stand(&two_replicas(1)).await?;
    let lost = &volume.replicas[0].id;
    bench.request(&volume.id, lost, "k1").await?;
    bench.report(&volume.id, lost, Condition::Missing, "k2").await?;
    expect_count(&bench, 3).await
}

async fn a_request_without_a_spare_left_is_refused(mut bench: Bench<'_>) -> Ended {
    let stage = Stage { replicas: 3, ..two_replicas(1) };
    let volume = bench.stand(&stage).await?;
    bench.lose(&volume.id, &volume.replicas[0].id, "k1").await?;
    bench.expect_refused(&volume.id, &volume.replicas[1].id, "k2").await
}

async fn a_refused_request_leaves_the_volume_as_it_was(mut bench: Bench<'_>) -> Ended {
    let volume = bench.stand(&two_replicas(0)).await?;
    let lost = &volume.replicas[0].id;
    bench.report(&volume.id, lost, Condition::Missing, "k1").await?;
    let before = bench.volume().await?;
    bench.expect_refused(&volume.id, lost, "k2").await?;
    let after = bench.volume().await?;
    ensure(before == after, format_args!("before: {before:?}\nafter: {after:?}"))
}

async fn a_spare_that_is_too_small_is_never_granted(mut bench: Bench<'_>) -> Ended {
    let mut stage = two_replicas(0);
    stage.spares = vec![SectorCount(stage.size.0 - 8)];
    let volume = bench.stand(&stage).await?;
    bench.expect_refused(&volume.id, &volume.replicas[0].id, "k1").await
}

async fn a_spare_that_is_large_enough_is_found_behind_one_that_is_not(
    mut bench: Bench<'_>,
) -> Ended {
    let mut stage = two_replicas(0);
    stage.spares = vec![SectorCount(stage.size.0 / 2), SectorCount(stage.size.0 * 2)];
    let volume = bench.stand(&stage).await?;
    let new = bench.lose(&volume.id, &volume.replicas[0].id, "k1").await?;
    ensure(
        new.target.size.is_none_or(|size| size >= stage.size),
        format_args!("granted {:?}, the lost one had {}", new.target.size, stage.size),
    )
}

async fn a_request_for_an_unknown_replica_is_not_found(mut bench: Bench<'_>) -> Ended {
    let volume = bench.stand(&two_replicas(1)).await?;
    let answer = bench.try_request(&volume.id, &nobody()?, "k1").await?;
    expect_class(answer, FaultClass::NotFound)
}

async fn a_request_for_an_unknown_volume_is_not_found(mut bench: Bench<'_>) -> Ended {
    let volume = bench.stand(&two_replicas(1)).await?;
    let answer = bench.try_request(&nobody()?, &volume.replicas[0].id, "k1").await?;
    expect_class(answer, FaultClass::NotFound)
}

async fn a_granted_replica_becomes_available_when_the_host_says_so(mut bench: Bench<'_>) -> Ended {
    let volume = bench.stand(&two_replicas(1)).await?;
    let new = bench.lose(&volume.id, &volume.replicas[0].id, "k1").await?;
    bench.report(&volume.id, &new.id, Condition::Synchronizing, "k2").await?;
    bench.expect_state(&new.id, ReplicaState::Synchronizing).await?;
    bench.report(&volume.id, &new.id, Condition::Available, "k3").await?;
    bench.expect_state(&new.id, ReplicaState::Available).await
}

/// A replica is lost, another is granted, and the lost one comes back before that is taken up.
async fn withdrawn(bench: &mut Bench<'_>) -> Result<(Volume, Replica), EndWhy> {
    let volume = bench.stand(&two_replicas(1)).await?;
    let lost = &volume.replicas[0].id;
    let new = bench.lose(&volume.id, lost, "k1").await?;
    bench.report(&volume.id, lost, Condition::Available, "k2").await?;
    Ok((volume, new))
}

async fn the_return_of_the_lost_replica_withdraws_the_request(mut bench: Bench<'_>) -> Ended {
    let (volume, new) = withdrawn(&mut bench).await?;
    let lost = &volume.replicas[0].id;
    bench.expect_state(lost, ReplicaState::Available).await?;
    let after = bench.volume().await?;
    ensure(
        after.replica(&new.id).is_none(),
        "the replacement is still listed after the lost replica came back",
    )?;
    bench.expect_refused(&volume.id, lost, "k1").await
}

async fn a_withdrawn_spare_can_be_granted_again_under_a_new_key(mut bench: Bench<'_>) -> Ended {
    let (volume, _) = withdrawn(&mut bench).await?;
    let lost = &volume.replicas[0].id;
    bench.lose(&volume.id, lost, "k3").await?;
    expect_count(&bench, 3).await
}

async fn a_withdrawal_survives_a_restart(mut bench: Bench<'_>) -> Ended {
    let (volume, _) = withdrawn(&mut bench).await?;
    bench.restart().await?;
    expect_count(&bench, 2).await?;
    bench.expect_refused(&volume.id, &volume.replicas[0].id, "k1").await
}

async fn a_replacement_taken_up_is_not_withdrawn(mut bench: Bench<'_>) -> Ended {
    let volume = bench.stand(&two_replicas(1)).await?;
    let lost = &volume.replicas[0].id;
    let new = bench.lose(&volume.id, lost, "k1").await?;
    bench.report(&volume.id, &new.id, Condition::Synchronizing, "k2").await?;
    bench.report(&volume.id, lost, Condition::Available, "k3").await?;
    bench.expect_state(&new.id, ReplicaState::Synchronizing).await
}

async fn an_unusable_replacement_closes_its_request_and_a_new_key_gets_another(
    mut bench: Bench<'_>,
) -> Ended {
    let volume = bench.stand(&two_replicas(2)).await?;
    let lost = &volume.replicas[0].id;
    let first = bench.lose(&volume.id, lost, "k1").await?;
    report_unusable(&bench, &volume, &first).await?;
    bench.expect_refused(&volume.id, lost, "k1").await?;
    let second = bench.request(&volume.id, lost, "k3").await?;
    ensure(
        second.id != first.id && second.target.namespace != first.target.namespace,
        "the unusable replica is granted again",
    )
}

async fn report_unusable(bench: &Bench<'_>, volume: &Volume, replica: &Replica) -> Ended {
    let why = "it holds an ext4 file system".to_owned();
    bench.report(&volume.id, &replica.id, Condition::Unusable { why }, "k2").await?;
    match bench.volume().await?.replica(&replica.id).map(|listed| listed.state) {
        None | Some(ReplicaState::Bad | ReplicaState::Terminating) => Ok(()),
        Some(state) => failed(format_args!("an unusable replica is listed as {state:?}")),
    }
}

async fn an_unusable_replacement_is_never_offered_again(mut bench: Bench<'_>) -> Ended {
    let volume = bench.stand(&two_replicas(1)).await?;
    let lost = &volume.replicas[0].id;
    let first = bench.lose(&volume.id, lost, "k1").await?;
    report_unusable(&bench, &volume, &first).await?;
    bench.expect_refused(&volume.id, lost, "k3").await?;
    bench.restart().await?;
    bench.expect_refused(&volume.id, lost, "k4").await
}

async fn a_replacement_that_is_lost_itself_can_be_replaced(mut bench: Bench<'_>) -> Ended {
    let volume = bench.stand(&two_replicas(2)).await?;
    let lost = &volume.replicas[0].id;
    let first = bench.lose(&volume.id, lost, "k1").await?;
    bench.report(&volume.id, &first.id, Condition::Synchronizing, "k2").await?;
    let second = bench.lose(&volume.id, &first.id, "k3").await?;
    ensure(
        second.id != first.id && second.id != *lost,
        "a lost replica is granted as a replacement",
    )
}

async fn a_removed_replica_is_never_offered_again(mut bench: Bench<'_>) -> Ended {
    let volume = bench.stand(&two_replicas(1)).await?;
    let (lost, other) = (&volume.replicas[0].id, &volume.replicas[1].id);
    let new = bench.lose(&volume.id, lost, "k1").await?;
    bench.report(&volume.id, &new.id, Condition::Available, "k2").await?;
    bench.confirm_removed(&volume.id, lost, "k3").await?;
    bench.report(&volume.id, &new.id, Condition::Missing, "k4").await?;
    bench.confirm_removed(&volume.id, &new.id, "k5").await?;
    match bench.try_request(&volume.id, other, "k6").await? {
        Err(fault) if fault.class == FaultClass::Refused => Ok(()),
        Err(fault) => failed(fault),
        Ok(replica) if replica.id == *lost || replica.id == new.id => {
            failed(format_args!("removed replica {} is offered", replica.id))
        }
        Ok(replica)
            if volume
                .replicas
                .iter()
                .chain([&new])
                .any(|used| used.target.namespace == replica.target.namespace) =>
        {
            failed(format_args!("a used namespace is offered as {}", replica.id))
        }
        // A provisioner that makes replicas on demand may have made a fresh one.
        Ok(_) => Ok(()),
    }
}

async fn a_spare_in_use_stays_with_its_volume_after_the_lost_one_is_removed(
    mut bench: Bench<'_>,
) -> Ended {
    let volume = bench.stand(&two_replicas(1)).await?;
    let lost = &volume.replicas[0].id;
    let new = bench.lose(&volume.id, lost, "k1").await?;
    bench.report(&volume.id, &new.id, Condition::Available, "k2").await?;
    bench.confirm_removed(&volume.id, lost, "k3").await?;
    bench.restart().await?;
    bench.expect_state(&new.id, ReplicaState::Available).await?;
    // The only spare is in use: nobody may be given it.
    bench.expect_refused(&volume.id, &volume.replicas[1].id, "k4").await
}
