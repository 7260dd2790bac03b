//! Cases about what the host tells: reports and confirmed removals.

use heal_types::{Condition, FaultClass, ReplicaState};

use super::bench::{Bench, Ended, cases, ensure, expect_class, failed, nobody, two_replicas};

cases![
    a_replica_reported_missing_is_missing,
    a_replica_that_came_back_is_available_again,
    a_report_sent_twice_has_one_effect,
    a_late_repetition_of_an_old_report_does_not_undo_a_newer_one,
    a_report_survives_a_restart,
    a_report_of_an_unknown_replica_is_not_found,
    a_report_of_an_unknown_volume_is_not_found,
    a_report_changes_no_other_replica,
    a_removed_replica_leaves_the_volume,
    a_removal_confirmed_twice_is_success,
    a_removal_of_an_unknown_replica_is_success,
    a_removal_survives_a_restart,
    hostile_text_is_only_text,
];

async fn a_replica_reported_missing_is_missing(mut bench: Bench<'_>) -> Ended {
    let volume = bench.stand(&two_replicas(0)).await?;
    let lost = &volume.replicas[0].id;
    bench.report(&volume.id, lost, Condition::Missing, "k1").await?;
    bench.expect_state(lost, ReplicaState::Missing).await
}

async fn a_replica_that_came_back_is_available_again(mut bench: Bench<'_>) -> Ended {
    let volume = bench.stand(&two_replicas(0)).await?;
    let lost = &volume.replicas[0].id;
    for (condition, key, state) in [
        (Condition::Missing, "k1", ReplicaState::Missing),
        (Condition::Synchronizing, "k2", ReplicaState::Synchronizing),
        (Condition::Available, "k3", ReplicaState::Available),
    ] {
        bench.report(&volume.id, lost, condition, key).await?;
        bench.expect_state(lost, state).await?;
    }
    Ok(())
}

async fn a_report_sent_twice_has_one_effect(mut bench: Bench<'_>) -> Ended {
    let volume = bench.stand(&two_replicas(0)).await?;
    let lost = &volume.replicas[0].id;
    bench.report(&volume.id, lost, Condition::Missing, "k1").await?;
    let once = bench.volume().await?;
    bench.report(&volume.id, lost, Condition::Missing, "k1").await?;
    let twice = bench.volume().await?;
    ensure(once == twice, format_args!("once: {once:?}\ntwice: {twice:?}"))
}

async fn a_late_repetition_of_an_old_report_does_not_undo_a_newer_one(
    mut bench: Bench<'_>,
) -> Ended {
    let volume = bench.stand(&two_replicas(0)).await?;
    let lost = &volume.replicas[0].id;
    bench.report(&volume.id, lost, Condition::Missing, "k1").await?;
    bench.report(&volume.id, lost, Condition::Available, "k2").await?;
    bench.report(&volume.id, lost, Condition::Missing, "k1").await?;
    bench.expect_state(lost, ReplicaState::Available).await
}

async fn a_report_survives_a_restart(mut bench: Bench<'_>) -> Ended {
    let volume = bench.stand(&two_replicas(0)).await?;
    let lost = &volume.replicas[0].id;
    bench.report(&volume.id, lost, Condition::Missing, "k1").await?;
    bench.restart().await?;
    bench.expect_state(lost, ReplicaState::Missing).await
}

async fn a_report_of_an_unknown_replica_is_not_found(mut bench: Bench<'_>) -> Ended {
    let volume = bench.stand(&two_replicas(0)).await?;
    let answer = bench.try_report(&volume.id, &nobody()?, Condition::Missing, "k1").await?;
    expect_class(answer, FaultClass::NotFound)
}

async fn a_report_of_an_unknown_volume_is_not_found(mut bench: Bench<'_>) -> Ended {
    let volume = bench.stand(&two_replicas(0)).await?;
    let answer =
        bench.try_report(&nobody()?, &volume.replicas[0].id, Condition::Missing, "k1").await?;
    expect_class(answer, FaultClass::NotFound)
}

async fn a_report_changes_no_other_replica(mut bench: Bench<'_>) -> Ended {
    let volume = bench.stand(&two_replicas(1)).await?;
    let (lost, other) = (&volume.replicas[0].id, &volume.replicas[1]);
    bench.report(&volume.id, lost, Condition::Missing, "k1").await?;
    let after = bench.volume().await?;
    ensure(
        after.replica(&other.id) == Some(other) && after.replicas.len() == 2,
        format_args!("before: {volume:?}\nafter: {after:?}"),
    )
}

async fn a_removed_replica_leaves_the_volume(mut bench: Bench<'_>) -> Ended {
    let volume = bench.stand(&two_replicas(1)).await?;
    let lost = &volume.replicas[0].id;
    let new = bench.lose(&volume.id, lost, "k1").await?;
    bench.report(&volume.id, &new.id, Condition::Available, "k2").await?;
    bench.confirm_removed(&volume.id, lost, "k3").await?;
    let after = bench.volume().await?;
    ensure(after.replica(lost).is_none(), "the removed replica is still listed")?;
    ensure(
        after.replica(&new.id).is_some() && after.replicas.len() == 2,
        format_args!("the replacement or the survivor went with it: {after:?}"),
    )
}

async fn a_removal_confirmed_twice_is_success(mut bench: Bench<'_>) -> Ended {
    let volume = bench.stand(&two_replicas(0)).await?;
    let lost = &volume.replicas[0].id;
    bench.report(&volume.id, lost, Condition::Missing, "k1").await?;
    bench.confirm_removed(&volume.id, lost, "k2").await?;
    let once = bench.volume().await?;
    bench.confirm_removed(&volume.id, lost, "k2").await?;
    bench.confirm_removed(&volume.id, lost, "k3").await?;
    let thrice = bench.volume().await?;
    ensure(once == thrice, format_args!("once: {once:?}\nthrice: {thrice:?}"))
}

async fn a_removal_of_an_unknown_replica_is_success(mut bench: Bench<'_>) -> Ended {
    let volume = bench.stand(&two_replicas(0)).await?;
    bench.confirm_removed(&volume.id, &nobody()?, "k1").await?;
    let after = bench.volume().await?;
    ensure(after == volume, format_args!("it changed the volume: {after:?}"))
}

async fn a_removal_survives_a_restart(mut bench: Bench<'_>) -> Ended {
    let volume = bench.stand(&two_replicas(0)).await?;
    let lost = &volume.replicas[0].id;
    bench.report(&volume.id, lost, Condition::Missing, "k1").await?;
    bench.confirm_removed(&volume.id, lost, "k2").await?;
    bench.restart().await?;
    let after = bench.volume().await?;
    ensure(after.replica(lost).is_none(), "the removed replica is back after a restart")
}

async fn hostile_text_is_only_text(mut bench: Bench<'_>) -> Ended {
    let volume = bench.stand(&two_replicas(2)).await?;
    let lost = &volume.replicas[0].id;
    let ugly = format!(
        "\"), spares: [], \\u{{0}} {{}} '; DROP TABLE replicas; -- $(reboot) </x> %s \n\r\t\x1b[2J\u{0} {}",
        "\u{1f4a5}long".repeat(20_000)
    );
    let first = match bench.try_request_because(&volume.id, lost, "k1", &ugly).await? {
        Ok(replica) => replica,
        Err(fault) => return failed(format_args!("a request with an ugly reason: {fault}")),
    };
    let unusable = Condition::Unusable { why: ugly };
    bench.report(&volume.id, &first.id, unusable, "k2").await?;
    bench.restart().await?;
    let second = bench.request(&volume.id, lost, "k3").await?;
    ensure(second.id != first.id, "an unusable replica is offered again")?;
    bench.volume().await.map(|_| ())
}
