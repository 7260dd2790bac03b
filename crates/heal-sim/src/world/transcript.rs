//! The story as it is written down: what happened, what was decided, what was done.
//!
//! ```text
//!   +12.500s  md126 [U_]                          the kernel
//!   +12.501s  event look (md)                     what the machine was told
//!                 audit: the leg in slot 1 …      what it decided
//!                 -> report vol1-b missing        what it wants done
//! ```
//!
//! Events that lead to nothing are left out: a look that shows no news is the normal case.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use heal_core::{Effect, Event, Operator, PathNews};
use heal_types::{
    Condition, ControllerRef, HostAction, HostAnswer, Moment, PathHealth, ProvisionerAnswer,
    ProvisionerCall, ProvisionerFault, Replacement,
};

/// A line of a story.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// When, since the story's beginning.
    pub at: Moment,
    /// What kind of line.
    pub kind: LineKind,
    /// What it says.
    pub text: String,
}

/// What a line tells of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum LineKind {
    /// Something was done to the world from outside.
    Fault,
    /// The array looks different now.
    Array,
    /// The daemon started or died.
    Daemon,
    /// An event was given to a machine.
    Event,
    /// What the machine said of it.
    Audit,
    /// What the machine wants.
    Effect,
    /// An invariant is broken.
    Violation,
}

/// The lines so far.
#[derive(Debug, Clone, Default)]
pub struct Transcript {
    zero: Moment,
    lines: Vec<Line>,
    read: usize,
    silent: bool,
}

impl Transcript {
    /// Counts time from here on.
    pub fn begin(&mut self, now: Moment) {
        self.zero = now;
        self.lines.clear();
        self.read = 0;
    }

    /// Keeps nothing from now on.
    pub fn silence(&mut self) {
        self.silent = true;
        self.lines.clear();
    }

    /// Whether anybody reads it: whoever has nobody to tell need not find words.
    pub(crate) fn is_silent(&self) -> bool {
        self.silent
    }

    pub(crate) fn push(&mut self, now: Moment, kind: LineKind, text: String) {
        if self.silent {
            return;
        }
        let at = Moment(now.0.saturating_sub(self.zero.0));
        self.lines.push(Line { at, kind, text });
    }

    /// Every line.
    #[must_use]
    pub fn lines(&self) -> &[Line] {
        &self.lines
    }

    /// The lines since the last call.
    pub fn news(&mut self) -> Vec<Line> {
        let news = self.lines[self.read..].to_vec();
        self.read = self.lines.len();
        news
    }

    /// Everything as text. What is tried again and again is told twice and then counted.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::new();
        let mut told: BTreeMap<Vec<&str>, u32> = BTreeMap::new();
        let mut left_out = 0;
        for block in self.blocks() {
            let count = told.entry(essence(block)).or_insert(0);
            *count += 1;
            if is_a_try(block) && *count > TOLD {
                left_out += 1;
                continue;
            }
            if left_out > 0 {
                let _ = writeln!(text, "{:<12}... and so on, {left_out} more times", "");
                left_out = 0;
            }
            for line in block {
                let _ = writeln!(text, "{line}");
            }
        }
        text
    }

    /// An event with everything that follows from it, or a line of another kind alone.
    fn blocks(&self) -> impl Iterator<Item = &[Line]> {
        self.lines.chunk_by(|_, next| match next.kind {
            LineKind::Audit | LineKind::Effect => true,
            LineKind::Fault
            | LineKind::Array
            | LineKind::Daemon
            | LineKind::Event
            | LineKind::Violation => false,
        })
    }
}

/// How often the same try is told in full.
const TOLD: u32 = 2;

/// What a block says, without the numbers that only count tries.
fn essence(block: &[Line]) -> Vec<&str> {
    let unnumbered = |line: &'_ Line| match line.text.split_once(' ') {
        Some((first, _)) if first.starts_with('#') => first.len() + 1,
        Some(_) | None => 0,
    };
    block.iter().map(|line| &line.text[unnumbered(line)..]).collect()
}

/// Only what follows from an event can be a try again; a fault is always news.
fn is_a_try(block: &[Line]) -> bool {
    block.first().is_some_and(|line| line.kind == LineKind::Event)
}

impl std::fmt::Display for Line {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let millis = self.at.0 / 1_000_000;
        let stamp = format!("+{}.{:03}s", millis / 1000, millis % 1000);
        match self.kind {
            LineKind::Fault => write!(f, "{stamp:<12}** {}", self.text),
            LineKind::Array => write!(f, "{stamp:<12}{}", self.text),
            LineKind::Daemon => write!(f, "{stamp:<12}-- {}", self.text),
            LineKind::Event => write!(f, "{stamp:<12}event {}", self.text),
            LineKind::Audit => write!(f, "{:<12}   audit: {}", "", self.text),
            LineKind::Effect => write!(f, "{:<12}   -> {}", "", self.text),
            LineKind::Violation => write!(f, "{stamp:<12}!! {}", self.text),
        }
    }
}

/// Whether an effect is worth a line.
pub(crate) fn is_news(effect: &Effect) -> bool {
    match effect {
        Effect::Act { .. } | Effect::AskPermit | Effect::ReturnPermit => true,
        Effect::Call { call, .. } => match call {
            ProvisionerCall::FindVolume(_) => false,
            ProvisionerCall::Report { .. }
            | ProvisionerCall::RequestReplacement { .. }
            | ProvisionerCall::ConfirmRemoved { .. } => true,
        },
        Effect::LookAgain => false,
    }
}

/// An effect in words.
#[must_use]
pub fn effect_words(effect: &Effect) -> String {
    match effect {
        Effect::Act { id, action, .. } => format!("#{} {}", id.number, action_words(action)),
        Effect::Call { id, call } => format!("#{} {}", id.number, call_words(call)),
        Effect::AskPermit => "ask the host's budget for leave".into(),
        Effect::ReturnPermit => "give the leave back".into(),
        Effect::LookAgain => "look again soon".into(),
    }
}

pub(super) fn action_words(action: &HostAction) -> String {
    match action {
        HostAction::Connect { target, .. } => format!("connect {}", target.nqn),
        HostAction::Examine { device } => format!("examine {}", device.device),
        HostAction::FailLeg { leg, why, .. } => format!("fail {} ({why:?})", leg.device),
        HostAction::RemoveLeg { leg, .. } => format!("remove {}", leg.device),
        HostAction::ReAddLeg { device, .. } => format!("re-add {}", device.device),
        HostAction::AddLeg { device, .. } => format!("add {}", device.device),
        HostAction::ReplaceLeg { from, to, .. } => {
            format!("replace {} with {}", from.device, to.device)
        }
        HostAction::ClearWantReplacement { leg, .. } => {
            format!("clear {}'s wish for a replacement", leg.device)
        }
        HostAction::SetRaidDisks { raid_disks, .. } => format!("set the slots to {raid_disks}"),
        HostAction::SetFastIoFail { controller, value } => {
            format!("set fast_io_fail_tmo of {} to {value}", controller.name)
        }
        HostAction::CutPath { controller, .. } => {
            format!("cut {}: destroy its sockets", controller.name)
        }
        HostAction::IsolateLeg { leg, paths, survivors, .. } => {
            let names = |list: &[ControllerRef]| {
                list.iter().map(|c| c.name.to_string()).collect::<Vec<_>>().join(", ")
            };
            let (dead, kept) = (names(paths), names(survivors));
            format!("isolate {}: destroy the sockets of {dead}; {kept} must queue", leg.device)
        }
        HostAction::DeleteController { controller, leg, .. } => {
            format!("delete {}, behind which {} is stuck", controller.name, leg.device)
        }
        HostAction::Reconnect { params } => format!("connect {} again", params.nqn),
        HostAction::Disconnect { nqn, controllers } => {
            let names: Vec<&str> = controllers.iter().map(|c| c.as_str()).collect();
            format!("disconnect {nqn} ({})", names.join(", "))
        }
    }
}

fn call_words(call: &ProvisionerCall) -> String {
    match call {
        ProvisionerCall::FindVolume(_) => "find the volume".into(),
        ProvisionerCall::Report { replica, condition, .. } => match condition {
            Condition::Missing | Condition::Synchronizing | Condition::Available => {
                format!("report {replica} {}", condition.word())
            }
            Condition::Unusable { why } => format!("report {replica} unusable: {why}"),
        },
        ProvisionerCall::RequestReplacement { lost, key, .. } => {
            let key = key.as_str();
            let short = key.rsplit('/').next().unwrap_or(key);
            format!("request a replacement for {lost} (key …/{short})")
        }
        ProvisionerCall::ConfirmRemoved { replica, .. } => format!("confirm {replica} removed"),
    }
}

/// An event in words.
#[must_use]
pub fn event_words(event: &Event) -> String {
    match event {
        Event::Looked(look) => format!("look ({})", look.cause),
        Event::Paths(news) => paths_words(news),
        Event::Acted { id, answer } => format!("#{} {}", id.number, acted_words(answer)),
        Event::Answered { id, answer } => format!("#{} {}", id.number, answer_words(answer)),
        Event::VolumeStale => "the volume may have changed".into(),
        Event::Operator(Operator::Hold { reason, .. }) => format!("operator: hold ({reason})"),
        Event::Operator(Operator::Resume { .. }) => "operator: resume".into(),
        Event::Permitted => "the budget gives leave".into(),
        Event::NotDurable { why } => format!("not durable: {why}"),
        Event::Tick => "tick".into(),
    }
}

fn paths_words(news: &PathNews) -> String {
    let doubted = news.verdicts.iter().filter(|(_, health)| **health != PathHealth::Up);
    let list: Vec<String> = doubted.map(|((name, _), health)| format!("{name} {health}")).collect();
    let cut_off = news.cut_off.as_ref().map_or_else(String::new, |why| format!("; cut off: {why}"));
    let list = if list.is_empty() { "all up".to_owned() } else { list.join(", ") };
    format!("paths: {list}{cut_off}")
}

fn acted_words(answer: &HostAnswer) -> String {
    match &answer.content {
        Some(heal_types::Content::Blank) => "is blank".into(),
        Some(heal_types::Content::MdMember(sb)) => {
            format!("has an MD superblock of {}, {:?}", sb.array, sb.role)
        }
        Some(heal_types::Content::Foreign(kind)) => format!("has {kind}"),
        None => answer.outcome.to_string(),
    }
}

fn answer_words(answer: &Result<ProvisionerAnswer, ProvisionerFault>) -> String {
    match answer {
        Ok(ProvisionerAnswer::Volume(Some(volume))) => {
            let list: Vec<String> =
                (volume.replicas.iter()).map(|r| format!("{} {:?}", r.id, r.state)).collect();
            format!("volume {}: {}", volume.id, list.join(", "))
        }
        Ok(ProvisionerAnswer::Volume(None)) => "no such volume".into(),
        Ok(ProvisionerAnswer::Noted) => "noted".into(),
        Ok(ProvisionerAnswer::Replacement(Replacement::Granted(replica))) => {
            format!("granted {}", replica.id)
        }
        Ok(ProvisionerAnswer::Replacement(Replacement::Pending { after })) => {
            format!("being made, ask again in {after:?}")
        }
        Err(fault) => format!("{fault}"),
    }
}
