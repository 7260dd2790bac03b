//! From an object to the plan's move, and back.

use heal_types::cluster::RelocationId;
use nvmeof_recoverer::plan::detect::HoldWhy;
use nvmeof_recoverer::plan::evidence as proof;
use nvmeof_recoverer::plan::relocate::{
    self as plan, BeforeFence, FailWhy, FenceWhy, Phase, PhaseKind, Relocation, Undo,
};
use nvmeof_recoverer::plan::view::{Device, OsdIdentity};
use serde::de::value::{Error as WordError, StrDeserializer};
use serde::de::{DeserializeOwned, IntoDeserializer as _};
use std::time::Duration;
use thiserror::Error;

use super::relocation::{
    Basis, Cause, Condition, Evidence, Failure, FenceTrouble, Held, Loss, Order, OsdName,
    OsdRelocation, OsdRelocationStatus, Tries, Witnesses, Word,
};
use super::schema::Stamp;

/// Why an object is no move that anybody acts on.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Invalid {
    /// Its name is not that of its OSD and token: two leaders could begin the same move twice.
    #[error("it is named {found}, and its order makes it {wanted}")]
    Name {
        /// Its name.
        found: String,
        /// What it must be.
        wanted: String,
    },
    /// The phase needs something that is not there.
    #[error("phase {phase} has no {part}")]
    Missing {
        /// The phase.
        phase: PhaseKind,
        /// What is missing.
        part: &'static str,
    },
    /// A word that is none of ours.
    #[error("`{word}` is no {what}")]
    Word {
        /// What was to be read.
        what: &'static str,
        /// What was there.
        word: String,
    },
    /// What is called evidence proves nothing.
    #[error("its evidence proves nothing: {0}")]
    NotProven(proof::StillOpen),
    /// Evidence for another move.
    #[error("its evidence is for another move of the device")]
    OtherMove,
}

/// The move that an object stands for. Without a status it is one that nobody has begun.
///
/// # Errors
/// When the object contradicts itself: then nobody acts on it.
pub fn read(object: &OsdRelocation) -> Result<Relocation, Invalid> {
    let status = object.status.as_ref();
    let order = status.map_or(&object.spec.order, |status| &status.accepted);
    let wanted = plan::name(&identity(order.osd), order.generation);
    let found = object.metadata.name.clone().unwrap_or_default();
    if wanted.as_str() != found {
        return Err(Invalid::Name { found, wanted: wanted.to_string() });
    }
    let relocation = begun(wanted, order);
    let Some(status) = status else {
        return Ok(relocation);
    };
    let phase = phase(status, &relocation)?;
    Ok(Relocation {
        to: status.to.clone(),
        since: status.since.0,
        tries: plan::Tries {
            failed: status.tries.failed,
            said: status.tries.said.clone(),
            not_before: status.tries.not_before.map(|it| it.0),
        },
        phase,
        ..relocation
    })
}

fn begun(id: RelocationId, order: &Order) -> Relocation {
    Relocation {
        id,
        osd: identity(order.osd),
        device: Device { subsystem: order.subsystem.clone(), namespace: order.namespace },
        from: order.from.clone(),
        to: order.to.clone(),
        holders: order.holders.iter().cloned().collect(),
        cause: cause(&order.cause),
        generation: order.generation,
        began: order.began.0,
        since: order.began.0,
        tries: plan::Tries::default(),
        phase: Phase::Pending,
    }
}

fn identity(osd: OsdName) -> OsdIdentity {
    OsdIdentity { cluster: osd.cluster, id: osd.id, fsid: osd.fsid }
}

fn osd_name(osd: &OsdIdentity) -> OsdName {
    OsdName { cluster: osd.cluster, id: osd.id, fsid: osd.fsid }
}

fn cause(cause: &Cause) -> plan::Cause {
    match cause {
        Cause::Planned { by } => plan::Cause::Planned { by: by.clone() },
        Cause::Lost(loss) => plan::Cause::Lost(proof::Loss {
            node: loss.node.clone(),
            at: loss.at.0,
            witnesses: match &loss.witnesses {
                Witnesses::LeaseAndMons { silent_ms, down } => proof::Witnesses::LeaseAndMons {
                    silent: Duration::from_millis(*silent_ms),
                    down: down.iter().copied().collect(),
                },
                Witnesses::ProbeAndMons { osd } => proof::Witnesses::ProbeAndMons { osd: *osd },
                Witnesses::OutOfService {} => proof::Witnesses::OutOfService,
            },
        }),
    }
}

fn phase(status: &OsdRelocationStatus, relocation: &Relocation) -> Result<Phase, Invalid> {
    let missing = |part| Invalid::Missing { phase: status.phase, part };
    let evidence = || {
        let stored = status.evidence.as_ref().ok_or_else(|| missing("evidence"))?;
        examined(stored, relocation)
    };
    let failure = || failed(status.failure.as_ref().ok_or_else(|| missing("failure"))?);
    Ok(match status.phase {
        PhaseKind::Pending => Phase::Pending,
        PhaseKind::Confirmed => Phase::Confirmed,
        PhaseKind::NooutSet => Phase::NooutSet,
        PhaseKind::Stopping => Phase::Stopping,
        PhaseKind::Fencing => Phase::Fencing,
        PhaseKind::Proving => Phase::Proving,
        PhaseKind::Fenced => Phase::Fenced { evidence: evidence()? },
        PhaseKind::Detached => Phase::Detached { evidence: evidence()? },
        PhaseKind::Connecting => Phase::Connecting { evidence: evidence()? },
        PhaseKind::Verified => Phase::Verified { evidence: evidence()? },
        PhaseKind::Placed => Phase::Placed { evidence: evidence()? },
        PhaseKind::OsdUp => Phase::OsdUp { evidence: evidence()? },
        PhaseKind::Clean => Phase::Clean { evidence: evidence()? },
        PhaseKind::Succeeded => Phase::Succeeded { evidence: evidence()? },
        PhaseKind::Held => {
            let held = status.held.as_ref().ok_or_else(|| missing("held"))?;
            Phase::Held { why: hold(held)?, then: word::<BeforeFence>("phase", &held.then)? }
        }
        PhaseKind::FenceRequired => {
            let trouble = status.fence_trouble.as_ref().ok_or_else(|| missing("fenceTrouble"))?;
            let why = trouble.refused.clone().map_or(FenceWhy::TooLong, FenceWhy::Refused);
            Phase::FenceRequired { why }
        }
        PhaseKind::RollingBack => {
            let undo = status.undo.as_deref().ok_or_else(|| missing("undo"))?;
            Phase::RollingBack { undo: word::<Undo>("undo", undo)? }
        }
        PhaseKind::RolledBack => Phase::RolledBack,
        PhaseKind::GivingUp => Phase::GivingUp { why: failure()? },
        PhaseKind::Failed => Phase::Failed { why: failure()? },
    })
}

/// Evidence that was stored is a claim: it is examined as if it had just come in.
fn examined(stored: &Evidence, relocation: &Relocation) -> Result<proof::Evidence, Invalid> {
    let (generation, holders) = (relocation.generation, &relocation.holders);
    if stored.generation != generation {
        return Err(Invalid::OtherMove);
    }
    let at = stored.at.0;
    let evidence = match &stored.basis {
        Basis::Target { generation: seen, allowed, any_host, connected } => {
            let report = proof::Report::Target {
                generation: *seen,
                allowed: allowed.clone(),
                any_host: *any_host,
                connected: connected.clone(),
            };
            proof::Evidence::examine(report, generation, holders, at)
        }
        Basis::Reservation { holder, others, exclusive } => {
            let report = proof::Report::Reservation {
                holder: *holder,
                others: others.clone(),
                exclusive: *exclusive,
            };
            proof::Evidence::examine(report, generation, holders, at)
        }
        Basis::Power { off } => {
            let report = proof::Report::Power { off: off.iter().cloned().collect() };
            proof::Evidence::examine(report, generation, holders, at)
        }
        Basis::Word(Word { who, said, nodes }) => {
            let off = nodes.iter().cloned().collect();
            proof::Evidence::word(who.clone(), said.clone(), &off, generation, holders, at)
        }
    };
    evidence.map_err(Invalid::NotProven)
}

fn hold(held: &Held) -> Result<HoldWhy, Invalid> {
    if held.why == "Storm" {
        let nodes = held.nodes.and_then(|nodes| usize::try_from(nodes).ok()).unwrap_or_default();
        return Ok(HoldWhy::Storm { nodes });
    }
    word("reason", &held.why)
}

fn failed(failure: &Failure) -> Result<FailWhy, Invalid> {
    let phase = || failure.phase.ok_or_else(|| unknown("failure", &failure.why));
    Ok(match failure.why.as_str() {
        "Refused" => {
            FailWhy::Refused { phase: phase()?, said: failure.said.clone().unwrap_or_default() }
        }
        "TooLong" => FailWhy::TooLong { phase: phase()? },
        "TargetLost" => {
            FailWhy::TargetLost(word("target", failure.target.as_deref().unwrap_or_default())?)
        }
        "WrongDevice" => {
            let found = failure.found.ok_or_else(|| unknown("failure", &failure.why))?;
            FailWhy::WrongDevice(Box::new(identity(found)))
        }
        "Aborted" => FailWhy::Aborted,
        other => return Err(unknown("failure", other)),
    })
}

fn unknown(what: &'static str, word: &str) -> Invalid {
    Invalid::Word { what, word: word.chars().take(40).collect() }
}

/// One of the plan's own words: those without anything beside them.
fn word<T: DeserializeOwned>(what: &'static str, word: &str) -> Result<T, Invalid> {
    let from: StrDeserializer<'_, WordError> = word.into_deserializer();
    T::deserialize(from).map_err(|_| unknown(what, word))
}

fn said<T: serde::Serialize>(word: &T) -> String {
    match serde_json::to_value(word) {
        Ok(serde_json::Value::String(word)) => word,
        Ok(_) | Err(_) => String::new(),
    }
}

/// An order for a move that was just decided.
impl From<&Relocation> for Order {
    fn from(relocation: &Relocation) -> Self {
        Self {
            osd: osd_name(&relocation.osd),
            subsystem: relocation.device.subsystem.clone(),
            namespace: relocation.device.namespace,
            from: relocation.from.clone(),
            to: relocation.to.clone(),
            holders: relocation.holders.iter().cloned().collect(),
            cause: (&relocation.cause).into(),
            generation: relocation.generation,
            began: Stamp(relocation.began),
        }
    }
}

impl From<&plan::Cause> for Cause {
    fn from(cause: &plan::Cause) -> Self {
        match cause {
            plan::Cause::Planned { by } => Self::Planned { by: by.clone() },
            plan::Cause::Lost(loss) => Self::Lost(Loss {
                node: loss.node.clone(),
                at: Stamp(loss.at),
                witnesses: match &loss.witnesses {
                    proof::Witnesses::LeaseAndMons { silent, down } => Witnesses::LeaseAndMons {
                        silent_ms: u64::try_from(silent.as_millis()).unwrap_or(u64::MAX),
                        down: down.iter().copied().collect(),
                    },
                    proof::Witnesses::ProbeAndMons { osd } => Witnesses::ProbeAndMons { osd: *osd },
                    proof::Witnesses::OutOfService => Witnesses::OutOfService {},
                },
            }),
        }
    }
}

impl From<&proof::Evidence> for Evidence {
    fn from(evidence: &proof::Evidence) -> Self {
        let basis = match evidence.basis() {
            proof::Basis::Seen(proof::Report::Target {
                generation,
                allowed,
                any_host,
                connected,
            }) => Basis::Target {
                generation: *generation,
                allowed: allowed.clone(),
                any_host: *any_host,
                connected: connected.clone(),
            },
            proof::Basis::Seen(proof::Report::Reservation { holder, others, exclusive }) => {
                Basis::Reservation {
                    holder: *holder,
                    others: others.clone(),
                    exclusive: *exclusive,
                }
            }
            proof::Basis::Seen(proof::Report::Power { off }) => {
                Basis::Power { off: off.iter().cloned().collect() }
            }
            proof::Basis::Word { who, said, off } => Basis::Word(Word {
                who: who.clone(),
                said: said.clone(),
                nodes: off.iter().cloned().collect(),
            }),
        };
        Self { generation: evidence.generation(), at: Stamp(evidence.at()), basis }
    }
}

impl From<&FailWhy> for Failure {
    fn from(why: &FailWhy) -> Self {
        let named = |why: &str| Self {
            why: why.to_owned(),
            phase: None,
            said: None,
            target: None,
            found: None,
        };
        match why {
            FailWhy::Refused { phase, said } => {
                Self { phase: Some(*phase), said: Some(said.clone()), ..named("Refused") }
            }
            FailWhy::TooLong { phase } => Self { phase: Some(*phase), ..named("TooLong") },
            FailWhy::TargetLost(out) => Self { target: Some(said(out)), ..named("TargetLost") },
            FailWhy::WrongDevice(found) => {
                Self { found: Some(osd_name(found)), ..named("WrongDevice") }
            }
            FailWhy::Aborted => named("Aborted"),
        }
    }
}

/// What an object's status says of a move; conditions that were there keep their times.
#[must_use]
pub fn status(
    relocation: &Relocation,
    before: Option<&OsdRelocationStatus>,
) -> OsdRelocationStatus {
    let begun = Relocation { to: first_target(relocation, before), ..relocation.clone() };
    let mut status = OsdRelocationStatus {
        accepted: Order::from(&begun),
        phase: relocation.phase.kind(),
        to: relocation.to.clone(),
        since: Stamp(relocation.since),
        tries: Tries {
            failed: relocation.tries.failed,
            said: relocation.tries.said.clone(),
            not_before: relocation.tries.not_before.map(Stamp),
        },
        message: message(relocation),
        evidence: relocation.phase.evidence().map(Evidence::from),
        held: None,
        fence_trouble: None,
        undo: None,
        failure: None,
        observed_generation: before.map_or(0, |before| before.observed_generation),
        conditions: Vec::new(),
    };
    match &relocation.phase {
        Phase::Held { why, then } => {
            let (word, nodes) = if let HoldWhy::Storm { nodes } = why {
                ("Storm".to_owned(), u64::try_from(*nodes).ok())
            } else {
                (said(why), None)
            };
            status.held = Some(Held { why: word, nodes, then: said(then) });
        }
        Phase::FenceRequired { why } => {
            let refused = match why {
                FenceWhy::Refused(said) => Some(said.clone()),
                FenceWhy::TooLong => None,
            };
            status.fence_trouble = Some(FenceTrouble { refused });
        }
        Phase::RollingBack { undo } => status.undo = Some(said(undo)),
        Phase::GivingUp { why } | Phase::Failed { why } => status.failure = Some(why.into()),
        Phase::Pending
        | Phase::Confirmed
        | Phase::NooutSet
        | Phase::Stopping
        | Phase::Fencing
        | Phase::Proving
        | Phase::Fenced { .. }
        | Phase::Detached { .. }
        | Phase::Connecting { .. }
        | Phase::Verified { .. }
        | Phase::Placed { .. }
        | Phase::OsdUp { .. }
        | Phase::Clean { .. }
        | Phase::Succeeded { .. }
        | Phase::RolledBack => {}
    }
    status.conditions = conditions(&status, relocation, before);
    status
}

/// The order says where the move was to go first; that does not change when it goes elsewhere.
fn first_target(
    relocation: &Relocation,
    before: Option<&OsdRelocationStatus>,
) -> heal_types::cluster::NodeName {
    before.map_or_else(|| relocation.to.clone(), |before| before.accepted.to.clone())
}

fn message(relocation: &Relocation) -> String {
    let said = relocation.tries.said.as_ref();
    let step = said.map_or_else(String::new, |said| format!("; {said}"));
    match &relocation.phase {
        Phase::Held { why, .. } => format!("held: {why}"),
        Phase::FenceRequired { why } => format!("{why}: a person's word is needed"),
        Phase::GivingUp { why } => format!("giving up: {why}{step}"),
        Phase::Failed { why } => format!("failed: {why}"),
        Phase::Pending => relocation.cause.to_string(),
        Phase::Succeeded { .. } => format!("{} runs on {}", relocation.osd.id, relocation.to),
        Phase::Confirmed
        | Phase::NooutSet
        | Phase::Stopping
        | Phase::Fencing
        | Phase::Proving
        | Phase::Fenced { .. }
        | Phase::Detached { .. }
        | Phase::Connecting { .. }
        | Phase::Verified { .. }
        | Phase::Placed { .. }
        | Phase::OsdUp { .. }
        | Phase::Clean { .. }
        | Phase::RollingBack { .. }
        | Phase::RolledBack => {
            let work = relocation.phase.kind().work();
            format!("{work}{step}")
        }
    }
}

fn conditions(
    status: &OsdRelocationStatus,
    relocation: &Relocation,
    before: Option<&OsdRelocationStatus>,
) -> Vec<Condition> {
    let phase = relocation.phase.kind();
    let fenced = relocation.phase.evidence().map_or_else(
        || ("False", "NotProven", "nobody has proven that the old node cannot write".to_owned()),
        |evidence| ("True", "Proven", evidence.to_string()),
    );
    let complete = if phase.is_over() { "True" } else { "False" };
    let said = [("Fenced", fenced), ("Complete", (complete, phase.word(), status.message.clone()))];
    said.map(|(type_, (state, reason, message))| {
        let known = before.and_then(|it| it.conditions.iter().find(|it| it.type_ == type_));
        let since = known
            .filter(|known| known.status == state)
            .map_or(Stamp(relocation.since), |known| known.last_transition_time);
        Condition {
            type_: type_.to_owned(),
            status: state.to_owned(),
            last_transition_time: since,
            reason: reason.to_owned(),
            message,
        }
    })
    .into()
}
