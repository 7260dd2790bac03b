//! What is told of a move besides its object: Events for people, numbers for their graphs.

use heal_types::Moment;
use k8s_openapi::api::core::v1::ObjectReference;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use kube::{Client, Resource as _};
use nvmeof_recoverer::plan::decide::Decision;
use nvmeof_recoverer::plan::relocate::{Answer, Command, PhaseKind, Relocation};
use nvmeof_recoverer::plan::view::ClusterView;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::clock;
use crate::crd::{MANAGER, OsdRelocation};

/// Counters and gauges, in the text format of Prometheus.
#[derive(Debug, Default)]
pub struct Metrics(Mutex<Numbers>);

#[derive(Debug, Default)]
struct Numbers {
    /// Moves that came to a phase.
    phases: BTreeMap<&'static str, u64>,
    /// Effects by what came of them.
    effects: BTreeMap<(&'static str, &'static str), u64>,
    osds: usize,
    down: usize,
    held: usize,
    looks: u64,
    /// When the loop turned last.
    turned: Option<Moment>,
}

impl Metrics {
    fn change(&self, change: impl FnOnce(&mut Numbers)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// The loop turned once more.
    pub fn turned(&self) {
        self.change(|numbers| numbers.turned = Some(clock::now().mono));
    }

    /// Whether the loop turned within that time.
    #[must_use]
    pub fn turned_within(&self, time: Duration) -> bool {
        let turned = self.0.lock().unwrap_or_else(PoisonError::into_inner).turned;
        turned.is_some_and(|turned| clock::now().mono.since(turned) < time)
    }

    /// The page that is scraped.
    #[must_use]
    pub fn page(&self) -> String {
        let numbers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut page = String::new();
        let head = |page: &mut String, name: &str, kind: &str, what: &str| {
            let _ = writeln!(page, "# HELP {name} {what}\n# TYPE {name} {kind}");
        };
        let gauges = [
            ("nvmeof_recoverer_osds", "OSDs that can be moved.", numbers.osds),
            ("nvmeof_recoverer_osds_down", "Those the mons say are down.", numbers.down),
            ("nvmeof_recoverer_osds_held", "Lost OSDs that nothing is begun for.", numbers.held),
        ];
        for (name, what, value) in gauges {
            head(&mut page, name, "gauge", what);
            let _ = writeln!(page, "{name} {value}");
        }
        let name = "nvmeof_recoverer_looks_total";
        head(&mut page, name, "counter", "How often everything was looked at.");
        let _ = writeln!(page, "{name} {}", numbers.looks);
        let name = "nvmeof_recoverer_phases_total";
        head(&mut page, name, "counter", "Moves that came to a phase.");
        for (phase, count) in &numbers.phases {
            let _ = writeln!(page, "{name}{{phase=\"{phase}\"}} {count}");
        }
        let name = "nvmeof_recoverer_effects_total";
        head(&mut page, name, "counter", "Effects, by what came of them.");
        for ((effect, answer), count) in &numbers.effects {
            let _ = writeln!(page, "{name}{{effect=\"{effect}\",answer=\"{answer}\"}} {count}");
        }
        page
    }
}

/// Where things are told.
pub(crate) struct Record {
    recorder: Recorder,
    metrics: Arc<Metrics>,
}

impl Record {
    pub(crate) fn new(client: Client, identity: String, metrics: Arc<Metrics>) -> Self {
        let reporter = Reporter { controller: MANAGER.to_owned(), instance: Some(identity) };
        Self { recorder: Recorder::new(client, reporter), metrics }
    }

    pub(crate) fn turned(&self) {
        self.metrics.turned();
    }

    pub(crate) fn looked(&self, view: &ClusterView, decision: &Decision) {
        let down = view.osds.values().filter(|osd| osd.up.is_known_and(|up| !up)).count();
        self.metrics.change(|numbers| {
            numbers.looks += 1;
            (numbers.osds, numbers.down) = (view.osds.len(), down);
            numbers.held = decision.held.len();
        });
    }

    pub(crate) fn answered(&self, command: &Command, answer: &Answer) {
        let word = match answer {
            Answer::Done | Answer::Seen(_) | Answer::Label(_) => "done",
            Answer::Again(_) => "again",
            Answer::Refused(_) => "refused",
        };
        let key = (command.effect.verb(), word);
        self.metrics.change(|numbers| *numbers.effects.entry(key).or_default() += 1);
    }

    pub(crate) fn phase(&self, object: &OsdRelocation, relocation: &Relocation) {
        let word = relocation.phase.kind().word();
        self.metrics.change(|numbers| *numbers.phases.entry(word).or_default() += 1);
        self.event(object, relocation, word);
    }

    /// Tells people, who may not hear it: the object is the record.
    pub(crate) fn event(&self, object: &OsdRelocation, relocation: &Relocation, reason: &str) {
        let status = object.status.as_ref();
        let note = status.map_or_else(|| relocation.cause.to_string(), |it| it.message.clone());
        let event = Event {
            type_: kind(relocation.phase.kind()),
            reason: reason.to_owned(),
            note: Some(note),
            action: "Relocate".to_owned(),
            secondary: None,
        };
        let reference: ObjectReference = object.object_ref(&());
        let recorder = self.recorder.clone();
        tokio::spawn(async move {
            if let Err(error) = recorder.publish(&event, &reference).await {
                tracing::debug!(%error, "an Event was not taken");
            }
        });
    }
}

fn kind(phase: PhaseKind) -> EventType {
    match phase {
        PhaseKind::FenceRequired | PhaseKind::GivingUp | PhaseKind::Failed | PhaseKind::Held => {
            EventType::Warning
        }
        PhaseKind::Pending
        | PhaseKind::Confirmed
        | PhaseKind::NooutSet
        | PhaseKind::Stopping
        | PhaseKind::Fencing
        | PhaseKind::Proving
        | PhaseKind::Fenced
        | PhaseKind::Detached
        | PhaseKind::Connecting
        | PhaseKind::Verified
        | PhaseKind::Placed
        | PhaseKind::OsdUp
        | PhaseKind::Clean
        | PhaseKind::Succeeded
        | PhaseKind::RollingBack
        | PhaseKind::RolledBack => EventType::Normal,
    }
}
