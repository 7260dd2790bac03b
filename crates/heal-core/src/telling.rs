//! What is told, and the words for it.
//!
//! ```text
//!   machine ──► Telling: the facts, as they were ──► what is urgent begins ──► entry(): the words
//! ```
//!
//! A decision takes less time than the sentences about it, and an application's write waits for the
//! decisions that count. So the machine notes who moved from where to where, and whoever writes the
//! trail puts it into words afterwards. The price: a telling holds copies of what it is about.

use heal_types::{Alias, ArrayId, DeviceName, HostAction, Slot, VolumeId, WallTime};

use crate::audit::{AuditEntry, AuditKind, Severity};
use crate::event::LookCause;
use crate::ids::{EffectId, IncidentId};
use crate::phase::{Phase, PhaseKind, Repair};
use crate::record::Member;
use crate::signal::Signal;
use crate::why::{Cause, DoubtWhy, HeldWhy};

/// One thing to be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Telling(What);

#[derive(Debug, Clone, PartialEq, Eq)]
enum What {
    Entry(Box<AuditEntry>),
    Move(Box<Move>),
    Begun(Box<Begun>),
}

/// What every entry says of the moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Scene {
    pub(crate) at: WallTime,
    pub(crate) cause: LookCause,
    pub(crate) array: ArrayId,
    pub(crate) device: Option<DeviceName>,
    pub(crate) alias: Option<Alias>,
    pub(crate) volume: Option<VolumeId>,
    pub(crate) incident: Option<IncidentId>,
}

/// A repair went from one phase to another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Move {
    pub(crate) scene: Scene,
    /// As it is after the move.
    pub(crate) repair: Repair,
    pub(crate) from: PhaseKind,
    pub(crate) to: PhaseKind,
    pub(crate) signal: Signal,
    /// What speaks against the leg.
    pub(crate) doubt: Option<DoubtWhy>,
}

/// A repair's act begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Begun {
    pub(crate) scene: Scene,
    pub(crate) slot: Slot,
    pub(crate) repair: Option<Repair>,
    pub(crate) id: EffectId,
    pub(crate) action: HostAction,
}

impl Telling {
    /// In words.
    #[must_use]
    pub fn entry(&self) -> AuditEntry {
        match &self.0 {
            What::Entry(entry) => AuditEntry::clone(entry),
            What::Move(moved) => moved.entry(),
            What::Begun(begun) => begun.entry(),
        }
    }

    /// The entry, if it has its words already.
    pub(crate) fn worded_mut(&mut self) -> Option<&mut AuditEntry> {
        match &mut self.0 {
            What::Entry(entry) => Some(entry),
            What::Move(_) | What::Begun(_) => None,
        }
    }
}

impl From<AuditEntry> for Telling {
    fn from(entry: AuditEntry) -> Self {
        Self(What::Entry(Box::new(entry)))
    }
}

impl From<Move> for Telling {
    fn from(moved: Move) -> Self {
        Self(What::Move(Box::new(moved)))
    }
}

impl From<Begun> for Telling {
    fn from(begun: Begun) -> Self {
        Self(What::Begun(Box::new(begun)))
    }
}

impl Scene {
    /// What the array is called: its kernel name while it is there, its UUID otherwise.
    pub(crate) fn name(&self) -> String {
        match &self.device {
            Some(device) => device.to_string(),
            None => self.array.to_string(),
        }
    }

    pub(crate) fn entry(self, kind: AuditKind, severity: Severity, message: String) -> AuditEntry {
        let mut fields = vec![("CAUSE", self.cause.to_string())];
        if let Some(alias) = &self.alias {
            fields.push(("ALIAS", alias.to_string()));
        }
        if let Some(volume) = &self.volume {
            fields.push(("VOLUME", volume.to_string()));
        }
        AuditEntry {
            kind,
            severity,
            at: self.at,
            message,
            incident: self.incident,
            action: None,
            slot: None,
            fields,
        }
    }
}

impl Move {
    fn entry(&self) -> AuditEntry {
        let Self { scene, repair, from, to, signal, .. } = self;
        let (kind, severity, what) = self.describe();
        let text = format!("{}: slot {}: {what}", scene.name(), repair.slot);
        let mut entry = scene.clone().entry(kind, severity, text);
        entry.slot = Some(repair.slot);
        entry.fields.extend(repair_fields(repair));
        entry.fields.push(("STATE_BEFORE", from.to_string()));
        entry.fields.push(("STATE_AFTER", to.to_string()));
        entry.fields.push(("RULE", signal.kind().to_string()));
        entry.fields.push(("REASON", repair.cause.to_string()));
        entry
    }

    fn describe(&self) -> (AuditKind, Severity, String) {
        let Self { repair, from, to, signal, .. } = self;
        let lost = repair.lost.as_ref().map_or_else(|| "its leg".to_owned(), describe);
        let incoming = repair
            .incoming
            .as_ref()
            .map_or_else(|| "a replica".to_owned(), |incoming| format!("replica {}", incoming.id));
        if *signal == Signal::HoldEnded {
            let text = format!("goes on: {to}");
            return (AuditKind::RepairResumed, Severity::Notice, text);
        }
        match to {
            PhaseKind::Whole if matches!(from, PhaseKind::Suspect | PhaseKind::Isolating) => {
                (AuditKind::LegCleared, Severity::Notice, format!("{lost} is good again"))
            }
            PhaseKind::Whole => {
                let text = if *signal == Signal::ArrayGone {
                    "repair ended: the array was stopped"
                } else if *signal == Signal::NoLongerNeeded {
                    "repair ended: no longer wanted"
                } else {
                    "repair done"
                };
                (AuditKind::RepairEnded, Severity::Notice, text.to_owned())
            }
            PhaseKind::Suspect => {
                let mut text = format!("{lost} is in doubt");
                if let Phase::Suspect { why, .. } = &repair.phase {
                    text = format!("{text}: {why}");
                }
                (AuditKind::LegSuspected, Severity::Warning, text)
            }
            PhaseKind::Isolating => {
                let text =
                    format!("frees the application's I/O from {lost}: {}", doubt(self.doubt));
                (AuditKind::LegIsolating, Severity::Warning, text)
            }
            PhaseKind::Reporting => {
                (AuditKind::LegLost, Severity::Warning, format!("{lost} is lost"))
            }
            PhaseKind::Grace => self.describe_grace(&lost),
            PhaseKind::Returning => {
                (AuditKind::LegReturned, Severity::Notice, format!("{lost} is back"))
            }
            PhaseKind::Requesting => {
                let text = format!("asks the provisioner to replace {lost}");
                (AuditKind::ReplacementRequested, Severity::Notice, text)
            }
            PhaseKind::Connecting => {
                let text = format!("{incoming} takes the place: connecting it");
                (AuditKind::ReplacementConnecting, Severity::Notice, text)
            }
            PhaseKind::Verifying => {
                let text = format!("{incoming} is there: verifying it");
                (AuditKind::ReplacementVerifying, Severity::Notice, text)
            }
            PhaseKind::Adding => {
                let text = format!("{incoming} is verified: adding it");
                (AuditKind::ReplacementAdding, Severity::Notice, text)
            }
            PhaseKind::Rebuilding => {
                (AuditKind::RebuildBegan, Severity::Notice, "MD rebuilds the leg".to_owned())
            }
            PhaseKind::Retiring if repair.cause == Cause::FewerCopies => {
                let text = format!("{lost} is no longer wanted: puts it away");
                (AuditKind::LegInSync, Severity::Notice, text)
            }
            PhaseKind::Retiring => {
                (AuditKind::LegInSync, Severity::Notice, "the leg is in sync".to_owned())
            }
            PhaseKind::Held => describe_held(repair),
            PhaseKind::Quarantined => {
                let text = "stands still: the array is quarantined".to_owned();
                (AuditKind::RepairHeld, Severity::Warning, text)
            }
        }
    }

    fn describe_grace(&self, lost: &str) -> (AuditKind, Severity, String) {
        let until = match &self.repair.grace {
            Some(deadline) => format!("for {} s", deadline.wall.since(self.scene.at).as_secs()),
            None => "without end, as the policy says".to_owned(),
        };
        let text = match (self.from, &self.signal) {
            (_, Signal::StepRefused { verb, detail }) => {
                format!("{lost} cannot be taken back ({verb}: {detail}): waits {until}")
            }
            (PhaseKind::Returning, _) => format!("{lost} left again: waits {until}"),
            (_, Signal::ReplicaTerminating) => {
                format!("{lost} is terminating: waits for its successor {until}")
            }
            (_, Signal::BadBlocks) => {
                format!("{lost} is no full copy: waits for its blocks to be written {until}")
            }
            (_, _) => format!("waits for {lost} or the provisioner {until}"),
        };
        (AuditKind::GraceBegan, Severity::Notice, text)
    }
}

impl Begun {
    fn entry(&self) -> AuditEntry {
        let Self { scene, slot, repair, id, action } = self;
        let text = format!("{}: begins to {}", scene.name(), sentence(action));
        let mut entry = scene.clone().entry(AuditKind::ActBegun, Severity::Notice, text);
        entry.slot = Some(*slot);
        entry.action = Some(*id);
        entry.fields.extend(repair.iter().flat_map(repair_fields));
        entry.fields.push(("VERB", action.verb().to_owned()));
        entry
    }
}

/// What speaks against a leg, in words.
pub(crate) fn doubt(why: Option<DoubtWhy>) -> String {
    why.map_or_else(|| "in doubt".to_owned(), |why| why.to_string())
}

fn describe_held(repair: &Repair) -> (AuditKind, Severity, String) {
    let Phase::Held { why, .. } = &repair.phase else {
        return (AuditKind::RepairHeld, Severity::Notice, "held".to_owned());
    };
    let severity = match why {
        HeldWhy::Observing | HeldWhy::OneAtATime { .. } | HeldWhy::Budget => Severity::Notice,
        HeldWhy::Guard { detail } if detail.starts_with("G1") => Severity::Critical,
        HeldWhy::Operator { .. }
        | HeldWhy::NoProvisioner
        | HeldWhy::ArrayState(_)
        | HeldWhy::ArrayBusy
        | HeldWhy::Guard { .. }
        | HeldWhy::Refused { .. }
        | HeldWhy::Rejected { .. }
        | HeldWhy::StepFailed { .. }
        | HeldWhy::HostCutOff { .. }
        | HeldWhy::Flapping { .. }
        | HeldWhy::NotDurable { .. } => Severity::Warning,
    };
    let kind = match why {
        HeldWhy::Rejected { .. } => AuditKind::ReplicaRejected,
        HeldWhy::Operator { .. }
        | HeldWhy::Observing
        | HeldWhy::NoProvisioner
        | HeldWhy::OneAtATime { .. }
        | HeldWhy::Budget
        | HeldWhy::ArrayState(_)
        | HeldWhy::ArrayBusy
        | HeldWhy::Guard { .. }
        | HeldWhy::Refused { .. }
        | HeldWhy::StepFailed { .. }
        | HeldWhy::HostCutOff { .. }
        | HeldWhy::Flapping { .. }
        | HeldWhy::NotDurable { .. } => AuditKind::RepairHeld,
    };
    (kind, severity, format!("held: {why}"))
}

pub(crate) fn repair_fields(repair: &Repair) -> Vec<(&'static str, String)> {
    let mut fields = Vec::new();
    if let Some(lost) = &repair.lost {
        if let Some(device) = &lost.device {
            fields.push(("LEG", device.to_string()));
        }
        if let Some(namespace) = &lost.namespace {
            fields.push(("LEG_NAMESPACE", namespace.to_string()));
        }
        if let Some(replica) = &lost.replica {
            fields.push(("REPLICA", replica.to_string()));
        }
        if let Some(nqn) = &lost.nqn {
            fields.push(("NQN", nqn.to_string()));
        }
    }
    if let Some(incoming) = &repair.incoming {
        fields.push(("INCOMING", incoming.id.to_string()));
        fields.push(("INCOMING_NAMESPACE", incoming.target.namespace.to_string()));
    }
    if let Phase::Requesting { key, .. } = &repair.phase {
        fields.push(("REQUEST_ID", key.to_string()));
    }
    fields
}

/// A member, as a person would name it.
pub(crate) fn describe(member: &Member) -> String {
    match (&member.device, &member.replica) {
        (Some(device), Some(replica)) => format!("leg {device} (replica {replica})"),
        (Some(device), None) => format!("leg {device}"),
        (None, Some(replica)) => format!("replica {replica}"),
        (None, None) => "a leg".to_owned(),
    }
}

/// What an action does, as a person would say it.
pub(crate) fn sentence(action: &HostAction) -> String {
    match action {
        HostAction::Connect { target, .. } => format!("connect {}", target.nqn),
        HostAction::Examine { device } => format!("examine {device}"),
        HostAction::FailLeg { leg, .. } => format!("mark {} faulty", leg.device),
        HostAction::RemoveLeg { leg, .. } => format!("unbind {}", leg.device),
        HostAction::ReAddLeg { device, .. } => format!("re-add {device} by bitmap"),
        HostAction::AddLeg { device, .. } => format!("add {device}"),
        HostAction::ReplaceLeg { from, to, .. } => format!("move {} to {to}", from.device),
        HostAction::ClearWantReplacement { leg, .. } => {
            format!("take back MD's wish to replace {}", leg.device)
        }
        HostAction::SetRaidDisks { raid_disks, .. } => format!("set the slots to {raid_disks}"),
        HostAction::SetFastIoFail { controller, value } => {
            format!("set the fast failure of {controller} to {value}")
        }
        HostAction::IsolateLeg { leg, paths, .. } => {
            let paths: Vec<String> = paths.iter().map(ToString::to_string).collect();
            format!("destroy the sockets of {} through {}", leg.device, paths.join(", "))
        }
        HostAction::CutPath { controller, .. } => format!("destroy the sockets of {controller}"),
        HostAction::DeleteController { controller, .. } => format!("delete {controller}"),
        HostAction::Reconnect { params } => {
            format!("connect {} at {} again", params.nqn, params.portal)
        }
        HostAction::Disconnect { nqn, .. } => format!("disconnect {nqn}"),
    }
}
