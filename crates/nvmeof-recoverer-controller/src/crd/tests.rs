use heal_types::WallTime;
use heal_types::cluster::{Generation, NodeName, OsdId, Person};
use nvmeof_recoverer::plan::detect::HoldWhy;
use nvmeof_recoverer::plan::evidence::{Evidence, Loss, Report, Witnesses};
use nvmeof_recoverer::plan::relocate::{
    BeforeFence, Cause, FailWhy, FenceWhy, Phase, PhaseKind, Relocation, Tries, Undo, name,
};
use nvmeof_recoverer::plan::schedule::OutWhy;
use nvmeof_recoverer::plan::view::{Device, OsdIdentity};
use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use super::*;

const NOW: WallTime = WallTime(1_800_000_000_123);
const GENERATION: Generation = Generation(7);

fn node(n: u32) -> NodeName {
    NodeName::new(format!("n{n}")).unwrap()
}

fn identity() -> OsdIdentity {
    OsdIdentity {
        cluster: "0f7e4d5a-1111-4222-8333-444455556666".parse().unwrap(),
        id: OsdId::new(3).unwrap(),
        fsid: "0f7e4d5a-1111-4222-8333-444455550003".parse().unwrap(),
    }
}

fn holders() -> BTreeSet<NodeName> {
    [node(1), node(3)].into()
}

fn relocation(cause: Cause, phase: Phase) -> Relocation {
    Relocation {
        id: name(&identity(), GENERATION),
        osd: identity(),
        device: Device {
            subsystem: "nqn.2026-01.org.example:osd-3".parse().unwrap(),
            namespace: "uuid.0f7e4d5a-1111-4222-8333-444455550003".parse().unwrap(),
        },
        from: node(1),
        to: node(2),
        holders: holders(),
        cause,
        generation: GENERATION,
        began: NOW,
        since: NOW.after(Duration::from_millis(1500)),
        tries: Tries { failed: 2, said: Some("no answer".into()), not_before: Some(NOW) },
        phase,
    }
}

fn causes() -> Vec<Cause> {
    let lost = |witnesses| Cause::Lost(Loss { node: node(1), witnesses, at: NOW });
    let osd = identity().id;
    vec![
        Cause::Planned { by: Person::new("ada").unwrap() },
        lost(Witnesses::LeaseAndMons { silent: Duration::from_millis(25_250), down: [osd].into() }),
        lost(Witnesses::ProbeAndMons { osd }),
        lost(Witnesses::OutOfService),
    ]
}

fn evidences() -> Vec<Evidence> {
    let closed = Report::Target {
        generation: GENERATION,
        allowed: Vec::new(),
        any_host: false,
        connected: Vec::new(),
    };
    let reserved = Report::Reservation { holder: GENERATION, others: Vec::new(), exclusive: true };
    let off = Report::Power { off: holders() };
    let seen = [closed, reserved, off];
    let seen = seen.map(|it| Evidence::examine(it, GENERATION, &holders(), NOW).unwrap());
    let who = Person::new("ada").unwrap();
    let said = "pulled the plug".to_owned();
    let word = Evidence::word(who, said, &holders(), GENERATION, &holders(), NOW).unwrap();
    seen.into_iter().chain([word]).collect()
}

/// Every phase there is, and every shape of what it holds.
fn phases() -> Vec<Phase> {
    let mut phases = vec![
        Phase::Pending,
        Phase::Confirmed,
        Phase::NooutSet,
        Phase::Stopping,
        Phase::Fencing,
        Phase::Proving,
        Phase::RolledBack,
        Phase::FenceRequired { why: FenceWhy::TooLong },
        Phase::FenceRequired { why: FenceWhy::Refused("older".into()) },
    ];
    for evidence in evidences() {
        phases.extend([
            Phase::Fenced { evidence: evidence.clone() },
            Phase::Detached { evidence: evidence.clone() },
            Phase::Connecting { evidence: evidence.clone() },
            Phase::Verified { evidence: evidence.clone() },
            Phase::Placed { evidence: evidence.clone() },
            Phase::OsdUp { evidence: evidence.clone() },
            Phase::Clean { evidence: evidence.clone() },
            Phase::Succeeded { evidence },
        ]);
    }
    for why in [
        HoldWhy::ApiStale,
        HoldWhy::MonsStale,
        HoldWhy::NoQuorum,
        HoldWhy::Storm { nodes: 2 },
        HoldWhy::AutomaticOff,
        HoldWhy::NoFence,
        HoldWhy::CoolingDown,
        HoldWhy::HourlyCap,
        HoldWhy::NoTarget,
        HoldWhy::NotOkToStop,
        HoldWhy::Operator,
    ] {
        phases.extend(BeforeFence::ALL.map(|then| Phase::Held { why: why.clone(), then }));
    }
    let undo = [Undo::Marks, Undo::Stopped, Undo::Fenced];
    phases.extend(undo.map(|undo| Phase::RollingBack { undo }));
    let phase = PhaseKind::Connecting;
    for why in [
        FailWhy::Refused { phase, said: "no".into() },
        FailWhy::TooLong { phase },
        FailWhy::TargetLost(OutWhy::InDoubt),
        FailWhy::WrongDevice(Box::new(identity())),
        FailWhy::Aborted,
    ] {
        phases.push(Phase::GivingUp { why: why.clone() });
        phases.push(Phase::Failed { why });
    }
    phases
}

/// As the API server gives it back: through JSON.
fn stored(relocation: &Relocation) -> OsdRelocation {
    let order = Order::from(relocation);
    let spec = OsdRelocationSpec { order, operator: Operator::default() };
    let mut object = OsdRelocation::new(relocation.id.as_str(), spec);
    object.status = Some(status(relocation, None));
    serde_json::from_str(&serde_json::to_string(&object).unwrap()).unwrap()
}

#[test]
fn a_status_gives_back_the_move_it_was_written_from_in_every_phase() {
    let phases = phases();
    let kinds: BTreeSet<PhaseKind> = phases.iter().map(Phase::kind).collect();
    assert_eq!(kinds.len(), PhaseKind::ALL.len(), "a phase is not tried");
    for phase in phases {
        for cause in causes() {
            let relocation = relocation(cause, phase.clone());
            assert_eq!(read(&stored(&relocation)).unwrap(), relocation);
        }
    }
}

#[test]
fn an_object_without_a_status_is_a_move_that_nobody_has_begun() {
    let [cause, ..] = &causes()[..] else { unreachable!() };
    let mut fresh = relocation(cause.clone(), Phase::Pending);
    fresh.since = fresh.began;
    fresh.tries = Tries::default();
    let mut object = stored(&fresh);
    object.status = None;
    assert_eq!(read(&object).unwrap(), fresh);
}

#[test]
fn an_order_that_is_edited_later_changes_nothing() {
    let relocation = relocation(causes().remove(0), Phase::Fencing);
    let mut object = stored(&relocation);
    object.spec.order.generation = GENERATION.next();
    object.spec.order.holders.clear();
    object.spec.order.to = node(9);
    assert_eq!(read(&object).unwrap(), relocation);
}

#[test]
fn a_name_that_another_leader_would_not_choose_is_refused() {
    let mut object = stored(&relocation(causes().remove(0), Phase::Pending));
    object.metadata.name = Some("osd-3-8".into());
    assert!(matches!(read(&object), Err(Invalid::Name { .. })));
}

#[test]
fn evidence_that_was_edited_is_none() {
    let evidence = evidences().remove(0);
    let base = stored(&relocation(causes().remove(0), Phase::Connecting { evidence }));
    let edited = |edit: fn(&mut super::Evidence)| {
        let mut object = base.clone();
        edit(object.status.as_mut().unwrap().evidence.as_mut().unwrap());
        read(&object).unwrap_err()
    };
    let connected = edited(|evidence| {
        if let relocation::Basis::Target { connected, .. } = &mut evidence.basis {
            connected.push("nqn.2026-01.org.example:n1".into());
        }
    });
    assert!(matches!(connected, Invalid::NotProven(_)), "{connected}");
    let other = edited(|evidence| evidence.generation = Generation(6));
    assert_eq!(other, Invalid::OtherMove);
    let word = edited(|evidence| {
        evidence.basis = relocation::Basis::Word(Word {
            who: Person::new("mallory").unwrap(),
            said: String::new(),
            nodes: vec![node(1)],
        });
    });
    assert!(matches!(word, Invalid::NotProven(_)), "a holder is not spoken of: {word}");
    let mut object = base.clone();
    object.status.as_mut().unwrap().evidence = None;
    assert!(matches!(read(&object), Err(Invalid::Missing { part: "evidence", .. })));
}

#[test]
fn a_condition_keeps_the_time_since_when_it_is_so() {
    let mut move_ = relocation(causes().remove(0), Phase::Fencing);
    let first = status(&move_, None);
    move_.phase = Phase::Proving;
    move_.since = NOW.after(Duration::from_secs(60));
    let second = status(&move_, Some(&first));
    assert_eq!(second.conditions[0].last_transition_time, first.conditions[0].last_transition_time);
    move_.phase = Phase::Fenced { evidence: evidences().remove(0) };
    let third = status(&move_, Some(&second));
    assert_eq!(third.conditions[0].status, "True");
    assert_eq!(third.conditions[0].last_transition_time, Stamp(move_.since));
}

/// `UPDATE_GOLDEN=1 cargo test` writes them.
#[test]
#[expect(clippy::disallowed_methods, reason = "a golden file, when it is asked for")]
fn the_definitions_that_are_installed_are_those_of_the_types() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../packaging/kubernetes/crds");
    for (file, text) in yaml().unwrap() {
        let path = dir.join(file);
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::create_dir_all(&dir).unwrap();
            std::fs::write(&path, &text).unwrap();
        }
        let kept = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(kept == text, "{file} is not what the types say: run this with UPDATE_GOLDEN=1");
    }
}

#[test]
fn nothing_in_a_schema_is_left_open() {
    fn walk(path: &str, schema: &serde_json::Value) {
        let Some(schema) = schema.as_object() else { return };
        let open = schema.contains_key("x-kubernetes-preserve-unknown-fields")
            || schema.get("additionalProperties").is_some_and(|it| it != false);
        assert!(!open, "{path} takes anything");
        if let Some(items) = schema.get("items") {
            walk(&format!("{path}[]"), items);
        }
        let properties = schema.get("properties").and_then(|it| it.as_object());
        for (name, schema) in properties.into_iter().flatten() {
            assert!(
                path.is_empty() || name == "conditions" || schema.get("description").is_some(),
                "{path}.{name} is not described"
            );
            walk(&format!("{path}.{name}"), schema);
        }
    }
    use kube::CustomResourceExt as _;
    for crd in [FabricTarget::crd(), OsdRelocation::crd()] {
        let crd = serde_json::to_value(&crd).unwrap();
        walk("", &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]);
    }
}
