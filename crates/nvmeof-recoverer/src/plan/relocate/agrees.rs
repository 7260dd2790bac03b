//! The machine agrees with its table: every signal in every phase, cell by cell.

use heal_types::WallTime;
use heal_types::cluster::{Generation, Person};

use super::transitions::{Verdict, verdict};
use super::*;
use crate::plan::detect::HoldWhy;
use crate::plan::evidence::{Loss, Report, StillOpen, Witnesses};
use crate::plan::schedule::OutWhy;
use crate::plan::testing::{NODES, identity, node, osd, view};

const NOW: WallTime = WallTime(1_800_000_000_000);

fn loss() -> Loss {
    Loss { node: node(0), witnesses: Witnesses::OutOfService, at: NOW }
}

fn evidence(generation: Generation) -> Evidence {
    let report =
        Report::Target { generation, allowed: Vec::new(), any_host: false, connected: Vec::new() };
    Evidence::examine(report, generation, &[node(0)].into(), NOW).unwrap()
}

fn phase(kind: PhaseKind) -> Phase {
    let evidence = evidence(Generation(1));
    match kind {
        PhaseKind::Pending => Phase::Pending,
        PhaseKind::Confirmed => Phase::Confirmed,
        PhaseKind::NooutSet => Phase::NooutSet,
        PhaseKind::Stopping => Phase::Stopping,
        PhaseKind::Fencing => Phase::Fencing,
        PhaseKind::Proving => Phase::Proving,
        PhaseKind::FenceRequired => Phase::FenceRequired { why: FenceWhy::TooLong },
        PhaseKind::Fenced => Phase::Fenced { evidence },
        PhaseKind::Detached => Phase::Detached { evidence },
        PhaseKind::Connecting => Phase::Connecting { evidence },
        PhaseKind::Verified => Phase::Verified { evidence },
        PhaseKind::Placed => Phase::Placed { evidence },
        PhaseKind::OsdUp => Phase::OsdUp { evidence },
        PhaseKind::Clean => Phase::Clean { evidence },
        PhaseKind::Succeeded => Phase::Succeeded { evidence },
        PhaseKind::Held => Phase::Held { why: HoldWhy::Operator, then: BeforeFence::NooutSet },
        PhaseKind::RollingBack => Phase::RollingBack { undo: Undo::Fenced },
        PhaseKind::RolledBack => Phase::RolledBack,
        PhaseKind::GivingUp => Phase::GivingUp { why: FailWhy::Aborted },
        PhaseKind::Failed => Phase::Failed { why: FailWhy::Aborted },
    }
}

fn signal(kind: SignalKind) -> Signal {
    let said = || "something".to_owned();
    match kind {
        SignalKind::LossConfirmed => Signal::LossConfirmed(loss()),
        SignalKind::MoveWanted => Signal::MoveWanted,
        SignalKind::LossEnded => Signal::LossEnded,
        SignalKind::StepDone => Signal::StepDone,
        SignalKind::StepAgain => Signal::StepAgain(said()),
        SignalKind::StepRefused => Signal::StepRefused(said()),
        SignalKind::Proven => Signal::Proven(evidence(Generation(1))),
        SignalKind::Disproven => Signal::Disproven(StillOpen::AnyHost),
        SignalKind::RightDevice => Signal::RightDevice,
        SignalKind::WrongDevice => Signal::WrongDevice(Box::new(identity(1))),
        SignalKind::OsdUp => Signal::OsdUp,
        SignalKind::OsdDown => Signal::OsdDown,
        SignalKind::Clean => Signal::Clean,
        SignalKind::PatienceOver => Signal::PatienceOver,
        SignalKind::HoldBegan => Signal::HoldBegan(HoldWhy::NoQuorum),
        SignalKind::HoldEnded => Signal::HoldEnded,
        SignalKind::Retargeted => Signal::Retargeted { to: node(2), why: OutWhy::NotReady },
        SignalKind::FenceReady => Signal::FenceReady,
        SignalKind::OperatorFenced => Signal::OperatorFenced(evidence(Generation(1))),
        SignalKind::OperatorAborted => Signal::OperatorAborted,
    }
}

fn in_phase(kind: PhaseKind) -> Relocation {
    let view = view(NODES, 3);
    let cause = Cause::Lost(loss());
    let mut relocation = Relocation::new(&view.osds[&osd(0)], node(0), node(1), cause, NOW);
    relocation.phase = phase(kind);
    relocation
}

fn policy() -> Policy {
    Policy::default()
}

#[test]
fn the_machine_does_what_the_table_says_in_every_cell() {
    for from in PhaseKind::ALL {
        for kind in SignalKind::ALL {
            let mut relocation = in_phase(from);
            let before = relocation.clone();
            let moved = relocation.signal(NOW, signal(kind), &policy());
            let cell = format!("{kind} in {from}: {moved:?}, now {}", relocation.phase.kind());
            match verdict(from, kind) {
                Verdict::Go(to) => {
                    assert_eq!(moved, Ok(Moved::To(to)), "{cell}");
                    assert_eq!(relocation.phase.kind(), to, "{cell}");
                }
                Verdict::Resume => {
                    assert_eq!(relocation.phase.kind(), PhaseKind::NooutSet, "{cell}");
                }
                Verdict::Stay(why) => {
                    assert_eq!(moved, Ok(Moved::Stayed(why)), "{cell}");
                    assert_eq!(relocation.phase, before.phase, "{cell}");
                }
                Verdict::Illegal => {
                    assert_eq!(moved, Err(Illegal { phase: from, signal: kind }), "{cell}");
                    assert_eq!(relocation, before, "{cell}: an error changes nothing");
                }
            }
        }
    }
}

/// Phases in which somebody else than the old node may have been admitted.
fn behind_the_fence(kind: PhaseKind) -> bool {
    phase(kind).evidence().is_some()
}

#[test]
fn only_proof_or_a_persons_word_leads_behind_the_fence() {
    for from in PhaseKind::ALL.into_iter().filter(|kind| !behind_the_fence(*kind)) {
        for kind in SignalKind::ALL {
            if let Verdict::Go(to) = verdict(from, kind) {
                let crosses = behind_the_fence(to);
                let proof = matches!(kind, SignalKind::Proven | SignalKind::OperatorFenced);
                assert_eq!(crosses, crosses && proof, "{kind} leads from {from} to {to}");
            }
        }
    }
}

#[test]
fn nothing_is_rolled_back_once_the_fence_is_proven() {
    for from in PhaseKind::ALL.into_iter().filter(|kind| behind_the_fence(*kind)) {
        for kind in SignalKind::ALL {
            let verdict = verdict(from, kind);
            assert_ne!(verdict, Verdict::Go(PhaseKind::RollingBack), "{kind} in {from}");
            assert_ne!(verdict, Verdict::Go(PhaseKind::Fencing), "{kind} in {from}");
        }
    }
}

#[test]
fn proof_of_another_move_is_no_proof() {
    for kind in [PhaseKind::Proving, PhaseKind::FenceRequired] {
        let mut relocation = in_phase(kind);
        let other = if kind == PhaseKind::Proving {
            Signal::Proven(evidence(Generation(2)))
        } else {
            Signal::OperatorFenced(evidence(Generation(0)))
        };
        assert!(relocation.signal(NOW, other, &policy()).is_err());
        assert_eq!(relocation.phase, phase(kind));
    }
}

#[test]
fn every_effect_that_lets_somebody_write_carries_the_proof() {
    for kind in PhaseKind::ALL {
        let Some(command) = in_phase(kind).command(NOW) else {
            continue;
        };
        let lets_write = matches!(
            command.effect,
            Effect::Admit { .. } | Effect::Connect { .. } | Effect::Place { .. }
        );
        assert_eq!(lets_write, lets_write && behind_the_fence(kind), "{command}");
    }
}

#[test]
fn every_phase_that_is_not_over_has_work_or_waits_for_something() {
    for kind in PhaseKind::ALL {
        let moves = SignalKind::ALL.into_iter().any(|signal| {
            matches!(verdict(kind, signal), Verdict::Go(to) if to != kind)
                || verdict(kind, signal) == Verdict::Resume
        });
        assert_eq!(moves, !kind.is_over(), "{kind}");
        assert!(!kind.is_over() || in_phase(kind).command(NOW).is_none(), "{kind}");
    }
}

#[test]
fn an_object_that_is_read_back_goes_on_with_the_same_effect() {
    for kind in PhaseKind::ALL {
        let relocation = in_phase(kind);
        let text = ron::to_string(&relocation).unwrap();
        let again: Relocation = ron::from_str(&text).unwrap();
        assert_eq!(again, relocation, "{kind}");
        assert_eq!(again.command(NOW), relocation.command(NOW), "{kind}");
    }
}

#[test]
fn an_answer_to_an_earlier_phase_or_another_generation_is_nobodys() {
    let fencing = in_phase(PhaseKind::Fencing);
    let command = fencing.command(NOW).unwrap();
    assert_eq!(fencing.answered(&command, Answer::Done, NOW), Some(Signal::StepDone));
    let proving = in_phase(PhaseKind::Proving);
    assert_eq!(proving.answered(&command, Answer::Done, NOW), None);
    let mut later = in_phase(PhaseKind::Fencing);
    later.generation = Generation(9);
    assert_eq!(later.answered(&command, Answer::Done, NOW), None);
}

#[test]
fn a_fence_that_only_says_it_is_done_proves_nothing() {
    let proving = in_phase(PhaseKind::Proving);
    let command = proving.command(NOW).unwrap();
    let answer = |answer| proving.answered(&command, answer, NOW).unwrap().kind();
    assert_eq!(answer(Answer::Done), SignalKind::StepAgain);
    let open = Report::Target {
        generation: Generation(1),
        allowed: Vec::new(),
        any_host: false,
        connected: vec!["nqn.old".to_owned()],
    };
    assert_eq!(answer(Answer::Seen(open)), SignalKind::Disproven);
}

#[test]
fn a_disk_that_holds_another_osd_is_not_started() {
    let connecting = in_phase(PhaseKind::Connecting);
    let command = connecting.command(NOW).unwrap();
    let mut label = connecting.osd;
    assert_eq!(connecting.answered(&command, Answer::Label(label), NOW), Some(Signal::RightDevice));
    // The same number in the same cluster, and another disk: purged and made anew.
    label.fsid = identity(7).fsid;
    let signal = connecting.answered(&command, Answer::Label(label), NOW).unwrap();
    assert_eq!(signal.kind(), SignalKind::WrongDevice);
}

#[test]
fn a_step_that_fails_waits_longer_each_time_and_not_for_ever() {
    let mut relocation = in_phase(PhaseKind::Confirmed);
    let (policy, mut now, mut waits) = (policy(), NOW, Vec::new());
    for _ in 0..40 {
        let again = Signal::StepAgain("x".repeat(5000));
        relocation.signal(now, again, &policy).unwrap();
        assert_eq!(relocation.command(now), None);
        let next = relocation.tries.not_before.unwrap();
        waits.push(next.since(now));
        now = next;
        assert!(relocation.command(now).is_some());
    }
    assert!(waits.is_sorted());
    assert_eq!(waits.last(), Some(&policy.longest_retry));
    assert_eq!(relocation.tries.said.as_ref().map(String::len), Some(SAID));
}

#[test]
fn a_fence_that_never_does_what_it_says_comes_to_the_end_of_its_patience() {
    let mut relocation = in_phase(PhaseKind::Fencing);
    let (policy, mut now) = (policy(), NOW);
    let mut rounds = 0;
    while now.since(NOW) < policy.fence_patience {
        let wait = relocation.tries.not_before;
        now = wait.unwrap_or(now).max(now).after(std::time::Duration::from_millis(10));
        relocation.signal(now, Signal::StepDone, &policy).unwrap();
        assert!(relocation.command(now).is_some(), "looking is never put off");
        relocation.signal(now, Signal::Disproven(StillOpen::AnyHost), &policy).unwrap();
        assert_eq!(relocation.phase, Phase::Fencing);
        rounds += 1;
    }
    assert_eq!(relocation.since, NOW, "it is still the first attempt");
    assert!(rounds < 20, "{rounds} rounds in a minute are a hot loop");
    assert_eq!(relocation.tries.said, Some(StillOpen::AnyHost.to_string()));
}

#[test]
fn a_persons_word_is_kept_with_their_name() {
    let mut relocation = in_phase(PhaseKind::FenceRequired);
    let who = Person::new("ada").unwrap();
    let off = [node(0)].into();
    let word = relocation.word(who, "I pulled the plug of n0", &off, NOW).unwrap();
    assert_eq!(relocation.signal(NOW, word, &policy()), Ok(Moved::To(PhaseKind::Fenced)));
    let said = relocation.phase.evidence().unwrap().to_string();
    assert_eq!(said, "ada said: I pulled the plug of n0");
}

#[test]
fn a_node_that_a_failed_move_admitted_has_to_be_cut_by_the_next() {
    let failed = in_phase(PhaseKind::Failed);
    let mut view = view(NODES, 3);
    let next = view.osds.get_mut(&osd(0)).unwrap();
    next.holders = failed.holders_after();
    next.generation = failed.generation;
    let next = Relocation::new(next, node(0), node(2), Cause::Lost(loss()), NOW);
    assert_eq!(next.holders, [node(0), node(1)].into());
    let who = Person::new("ada").unwrap();
    let open = next.word(who, "n0 is off", &[node(0)].into(), NOW).unwrap_err();
    assert_eq!(open, StillOpen::Powered(node(1)));
    assert_eq!(in_phase(PhaseKind::Succeeded).holders_after(), [node(1)].into());
}

#[test]
fn the_old_node_is_not_admitted_again_while_another_may_have_access() {
    for (other, undo) in [(None, Undo::Fenced), (Some(node(2)), Undo::Stopped)] {
        let mut relocation = in_phase(PhaseKind::Fencing);
        relocation.holders.extend(other);
        relocation.signal(NOW, Signal::OperatorAborted, &policy()).unwrap();
        assert_eq!(relocation.phase, Phase::RollingBack { undo });
    }
}

#[test]
fn two_leaders_that_begin_the_same_move_give_it_the_same_name() {
    let view = view(NODES, 3);
    let begin = |to| {
        let cause = Cause::Lost(loss());
        Relocation::new(&view.osds[&osd(0)], node(0), node(to), cause, NOW)
    };
    assert_eq!(begin(1).id, begin(2).id);
    assert_eq!(begin(1).id.as_str(), "osd-0-1");
}
