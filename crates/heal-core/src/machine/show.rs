//! What a person sees: status and explanation.

use heal_types::status::{ArrayStatus, Explanation, Health, LegStatus, RepairStatus};
use heal_types::{Backing, LegSnapshot, Level, Moment, Now, Slot, WallTime};

use crate::phase::{Phase, PhaseKind, Repair};
use crate::record::OwedMessage;
use crate::restart;
use crate::telling::{describe, doubt};
use crate::view::{SlotView, member_of, slot_view};
use crate::why::HeldWhy;

use super::{ArrayMachine, Standing, due_at};

impl ArrayMachine {
    /// What `nvme-heal status` shows.
    #[must_use]
    pub fn status(&self, now: Now) -> ArrayStatus {
        let array = self.snapshot();
        let worst = self.repairs.values().map(|repair| repair.phase.kind()).max();
        let managed = self.standing == Standing::Managed;
        ArrayStatus {
            id: self.id.to_string(),
            device: array.map_or_else(|| "-".to_owned(), |array| array.device.to_string()),
            alias: array.and_then(|array| array.alias.as_ref()).map(ToString::to_string),
            volume: self.volume.known().filter(|_| managed).map(|volume| volume.id.to_string()),
            health: self.health(),
            phase: worst.unwrap_or(PhaseKind::Whole).to_string(),
            array_state: array.map_or_else(|| "gone".to_owned(), |array| array.state.to_string()),
            level: array.map_or_else(|| "-".to_owned(), |array| level(array.level)),
            summary: self.summary(now),
            incident: self.incident().map(|incident| incident.to_string()),
            legs: array
                .map(|array| array.legs.iter().map(|leg| self.leg_status(leg)).collect())
                .unwrap_or_default(),
            repairs: self.repairs.values().map(|repair| self.repair_status(now, repair)).collect(),
            owed_reports: self.owed_words(),
            provisioner_age_seconds: self.volume.at.map(|at| now.mono.since(at).as_secs()),
            provisioner_fault: self.volume.fault.as_ref().map(ToString::to_string),
        }
    }

    /// What `nvme-heal explain` shows; the trail is the shell's to add.
    #[must_use]
    pub fn explain(&self, now: Now) -> Explanation {
        let array = self.status(now);
        let mut rules: Vec<String> = array
            .repairs
            .iter()
            .map(|repair| format!("slot {}: {}", repair.slot, repair.rule))
            .collect();
        rules.push(self.standing_words());
        let mut next: Vec<String> = array
            .repairs
            .iter()
            .map(|repair| match repair.due {
                Some(due) => {
                    let left = due.since(now.wall).as_secs();
                    format!("slot {}: {} (in {left} s)", repair.slot, repair.next)
                }
                None => format!("slot {}: {}", repair.slot, repair.next),
            })
            .collect();
        if !self.owed.is_empty() {
            next.push(format!("tell the provisioner: {}", array.owed_reports.join("; ")));
        }
        if next.is_empty() {
            next.push("nothing: there is nothing to repair".to_owned());
        }
        Explanation { knows: self.knows(now), rules, next, trail: Vec::new(), array }
    }

    fn health(&self) -> Health {
        if self.quarantine.is_some() {
            return Health::Quarantined;
        }
        match &self.standing {
            Standing::NotOurs(_) => return Health::Observed,
            Standing::Undecided if self.repairs.is_empty() => return Health::Observed,
            Standing::Unprovisioned if self.repairs.is_empty() => return Health::Observed,
            Standing::Managed | Standing::Undecided | Standing::Unprovisioned => {}
        }
        if self.is_broken() {
            return Health::Held;
        }
        let held = self.repairs.values().any(|r| matches!(r.phase, Phase::Held { .. }));
        if held || self.hold.is_some() {
            Health::Held
        } else if self.repairs.is_empty() && self.owed.is_empty() {
            Health::Optimal
        } else {
            Health::Healing
        }
    }

    fn summary(&self, now: Now) -> String {
        if let Some(why) = &self.quarantine {
            return format!("quarantined: {why}");
        }
        if self.is_broken() {
            return "the array is broken: every write fails until it is stopped and assembled"
                .to_owned();
        }
        if let Some(hold) = &self.hold {
            return format!("held by {}: {}", hold.by, hold.reason);
        }
        let worst = self.repairs.values().max_by_key(|repair| repair.phase.kind());
        match worst {
            Some(repair) => {
                let status = self.repair_status(now, repair);
                format!("slot {}: {}: {}", status.slot, status.phase, status.rule)
            }
            None if !self.owed.is_empty() => {
                format!(
                    "whole; the provisioner has not heard that {}",
                    self.owed_words().join("; ")
                )
            }
            None => self.standing_words(),
        }
    }

    fn standing_words(&self) -> String {
        match &self.standing {
            Standing::Undecided => "observed: the provisioner has not said what it is".to_owned(),
            Standing::Managed if self.witnessed => "managed".to_owned(),
            Standing::Managed => "nothing is begun: what the array runs from was not held against \
                                  the provisioner's list yet, or a leg has no name to be found by"
                .to_owned(),
            Standing::Unprovisioned => "observed: no provisioner is configured".to_owned(),
            Standing::NotOurs(why) => format!("observed, never touched: {why}"),
        }
    }

    fn owed_words(&self) -> Vec<String> {
        self.owed
            .iter()
            .map(|owed| match &owed.message {
                OwedMessage::Report(condition) => {
                    format!("replica {} is {}", owed.replica, condition.word())
                }
                OwedMessage::Removed => format!("replica {} is no longer used", owed.replica),
            })
            .collect()
    }

    fn leg_status(&self, leg: &LegSnapshot) -> LegStatus {
        let member = member_of(leg, self.volume.known());
        let (namespace, path) = match &leg.backing {
            Backing::Namespace(namespace) => {
                let path = if namespace.has_usable_path() {
                    "up".to_owned()
                } else {
                    let states: Vec<String> = namespace
                        .paths
                        .iter()
                        .map(|path| format!("{} {} ({})", path.controller, path.state, path.health))
                        .collect();
                    format!("down: {}", states.join(", "))
                };
                (namespace.ids.to_string(), path)
            }
            Backing::Local => ("local".to_owned(), "up".to_owned()),
            Backing::Gone => ("device gone".to_owned(), "gone".to_owned()),
            Backing::Unreadable => ("unreadable".to_owned(), "unknown".to_owned()),
        };
        LegStatus {
            slot: leg.slot.map(|slot| slot.0),
            device: leg.device.to_string(),
            state: leg.flags.to_string(),
            namespace,
            replica: member.replica.map(|replica| replica.to_string()),
            path,
        }
    }

    fn repair_status(&self, now: Now, repair: &Repair) -> RepairStatus {
        let (mut rule, next, due) = self.outlook(now, repair);
        let present = matches!(&repair.phase, Phase::Held { why: HeldWhy::Rejected { .. }, .. });
        let earlier = repair.rejected.len().saturating_sub(usize::from(present));
        for (replica, why) in repair.rejected.iter().take(earlier) {
            rule.push_str(&format!("; replica {replica} was rejected: {why}"));
        }
        let percent = if let Phase::Rebuilding { progress: Some(progress) } = &repair.phase {
            Some(progress.percent())
        } else {
            None
        };
        RepairStatus {
            slot: repair.slot.0,
            phase: repair.phase.kind().to_string(),
            cause: repair.cause.to_string(),
            since: repair.since,
            lost: repair.lost.as_ref().map(describe),
            incoming: repair.incoming.as_ref().map(|incoming| incoming.id.to_string()),
            rule,
            next,
            due: due.filter(|due| due.0 > 0).map(|due| on_the_wall(now, due)),
            percent,
        }
    }

    /// The rule that holds or moves a repair, what happens next, and when at the latest.
    fn outlook(&self, now: Now, repair: &Repair) -> (String, String, Option<Moment>) {
        let turn = repair.phase.turn();
        let tries = match turn {
            Some(turn) if turn.failures > 0 => format!(" ({} failures so far)", turn.failures),
            Some(_) | None => String::new(),
        };
        let due = turn.and_then(due_at);
        match &repair.phase {
            Phase::Suspect { why, decide_at } => {
                let next = match decide_at {
                    Some(_) => "free its I/O, unless it comes back or it is the last good one",
                    None => "nothing, until MD fails the leg or its path comes back",
                };
                (format!("in doubt: {why}"), next.to_owned(), *decide_at)
            }
            Phase::Isolating { .. } => (
                format!("{}{tries}", doubt(self.doubt_about(repair.slot))),
                "MD fails the leg".to_owned(),
                due,
            ),
            Phase::Reporting => ("a loss is recorded first".to_owned(), "grace".to_owned(), None),
            Phase::Grace if self.waits_for_full_copy(repair) => {
                let rule = "no other leg is known to hold every block: this one stays".to_owned();
                (rule, "nothing, until its blocks are written".to_owned(), None)
            }
            Phase::Grace => {
                let rule = match &repair.grace {
                    Some(deadline) => {
                        format!("grace: {} s left", deadline.wall.since(now.wall).as_secs())
                    }
                    None => "grace without end".to_owned(),
                };
                let next = if repair.cause.is_loss() {
                    "take the leg back if it returns, else ask for a replacement"
                } else {
                    "use the successor if one is named, else ask for one"
                };
                (rule, next.to_owned(), self.grace_end(repair))
            }
            Phase::Returning { device, .. } => {
                let rule = format!(
                    "{device} is back; taken back once writes of its old connection cannot arrive any \
                     more{tries}"
                );
                (rule, "re-add it by bitmap".to_owned(), due)
            }
            Phase::Requesting { key, .. } => {
                (format!("asked under key {key}{tries}"), "the provisioner answers".to_owned(), due)
            }
            Phase::Connecting { connected_at, .. } => {
                let rule = match connected_at {
                    Some(_) => "connected; its namespace is not there yet".to_owned(),
                    None => format!("not connected yet{tries}"),
                };
                (rule, "find the namespace by its id".to_owned(), due)
            }
            Phase::Verifying { device, .. } => {
                let next = "add it if it fits and holds nothing foreign".to_owned();
                (format!("{device} is being read{tries}"), next, due)
            }
            Phase::Adding { device, .. } => {
                (format!("{device} is proven{tries}"), "MD rebuilds onto it".to_owned(), due)
            }
            Phase::Rebuilding { progress } => {
                let rule = match progress {
                    Some(progress) => format!("MD rebuilds: {} %", progress.percent()),
                    None => "MD rebuilds".to_owned(),
                };
                (rule, "report the replica available once it is in sync".to_owned(), None)
            }
            Phase::Retiring { .. }
                if self.snapshot().is_some_and(|array| self.lacks_blocks(array, repair.slot)) =>
            {
                let rule = "no leg is known to hold every block: what was replaced is kept";
                (rule.to_owned(), "put it away once the blocks are written".to_owned(), due)
            }
            Phase::Retiring { .. } => {
                (format!("in sync again{tries}"), "put away what was replaced".to_owned(), due)
            }
            Phase::Held { why, then, until, .. } => {
                let next = format!("when that ends: {}", restart::resume(then).kind());
                (why.to_string(), next, *until)
            }
            Phase::Quarantined { why, .. } => {
                (why.to_string(), "nothing, until a person resumes the array".to_owned(), None)
            }
        }
    }

    fn knows(&self, now: Now) -> Vec<String> {
        let mut facts = Vec::new();
        match self.snapshot() {
            Some(array) => {
                facts.push(format!(
                    "{} is {} with {} slots, state {}, degraded {}",
                    array.device,
                    level(array.level),
                    array.raid_disks,
                    array.state,
                    array.degraded
                ));
                for slot in (0..array.raid_disks).map(Slot) {
                    facts.push(format!("slot {slot}: {}", self.slot_words(slot)));
                }
            }
            None => facts.push(format!("the array is not there ({})", self.array_words())),
        }
        facts.push(match (self.volume.known(), self.volume.at) {
            (Some(volume), Some(at)) => format!(
                "the provisioner said {} s ago: volume {}, {} copies, replicas {}",
                now.mono.since(at).as_secs(),
                volume.id,
                volume.copies,
                replicas(volume)
            ),
            (Some(volume), None) => format!(
                "the provisioner has not answered yet; its last known word: volume {}, replicas {}",
                volume.id,
                replicas(volume)
            ),
            (None, Some(_)) => "the provisioner knows no volume for it".to_owned(),
            (None, None) => "the provisioner has not answered".to_owned(),
        });
        if let Some(fault) = &self.volume.fault {
            facts.push(format!("the provisioner does not help: {fault}"));
        }
        facts
    }

    fn array_words(&self) -> String {
        match &self.array {
            heal_types::Observed::Known(_) => "stopped".to_owned(),
            heal_types::Observed::Unknown(why) => why.to_string(),
        }
    }

    fn slot_words(&self, slot: Slot) -> String {
        let Some(array) = self.snapshot() else {
            return "-".to_owned();
        };
        let who = |leg: &LegSnapshot| describe(&member_of(leg, self.volume.known()));
        match slot_view(array, slot) {
            SlotView::Good(leg) => format!("{} is good", who(leg)),
            SlotView::Doubtful(why) => format!("in doubt: {why}"),
            SlotView::Recovering => "being rebuilt".to_owned(),
            SlotView::Failed => "faulty".to_owned(),
            SlotView::Vacant => "empty".to_owned(),
            SlotView::Unclear => "cannot be told".to_owned(),
        }
    }
}

fn level(level: Level) -> String {
    match level {
        Level::Raid1 => "raid1".to_owned(),
        Level::Raid10 { .. } => "raid10".to_owned(),
        Level::Other => "other".to_owned(),
    }
}

fn replicas(volume: &heal_types::Volume) -> String {
    let words: Vec<String> = volume
        .replicas
        .iter()
        .map(|replica| format!("{} {:?}", replica.id, replica.state).to_lowercase())
        .collect();
    words.join(", ")
}

fn on_the_wall(now: Now, moment: Moment) -> WallTime {
    now.wall.after(moment.since(now.mono))
}
