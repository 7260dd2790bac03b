//! The loop: lead, look, decide, write, act.
//!
//! ```text
//!    ┌── every `look_every`, or when something of ours changed
//!    ▼
//!   leads? ─no─► forget what was found, wait
//!    │ yes
//!    ▼
//!   evaluate: watched objects, mons ─► view ─► detector ─► decide ─► new OsdRelocations
//!    │                                                 └─► rebalancer ─► a proposal in a target's status;
//!    │                                                                   in its time, and if wanted, one more
//!    ▼  for each move that is open
//!   read it anew ─► a person's word, a look ─► signal ─► write the phase, if nobody wrote since
//!                       │ nothing to say                         └─► Event, metrics
//!                       ▼
//!                   its effect ─► hands (a task) ─► answer ─► read it anew ─► signal ─► write
//! ```
//!
//! The phase is in the object before its effect begins, because an effect is only ever taken from
//! an object that was just read. So there is nothing to recover: a leader that starts finds moves
//! in phases, and goes on. What it remembers itself (who is doubted, and for how long; which
//! effects are under way) is worth nothing to others, and a new leader begins that again.
//!
//! Writes are compare-and-swap by resource version. Between the moment at which leadership ends and
//! the one at which we notice lies at most the lease's margin; what we write then is refused if the
//! next leader wrote, and right if it did not.

mod hands;
mod record;

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use heal_types::cluster::{OsdId, RelocationId};
use heal_types::{Moment, Observed, UnknownWhy};
use kube::Client;
use kube::api::{Api, Patch, PatchParams, PostParams};
use nvmeof_recoverer::plan::Policy;
use nvmeof_recoverer::plan::decide::decide;
use nvmeof_recoverer::plan::detect::{Detector, Findings, HoldWhy};
use nvmeof_recoverer::plan::relocate::{
    Answer, BeforeFence, Cause, Moved, PhaseKind, Relocation, Seen, Signal,
};
use nvmeof_recoverer::plan::schedule::{Rebalancer, RestWhy};
use nvmeof_recoverer::plan::view::ClusterView;
use serde_json::json;
use tokio::sync::{Notify, mpsc, watch as channel};

use crate::ceph::{Ceph, chain};
use crate::config::Config;
use crate::crd::{self, FINALIZER, Operator, Order, OsdRelocation, OsdRelocationSpec, Rebalance};
use crate::fence::Means;
use crate::lease::{Candidate, Leads};
use crate::sight::Sight;
use crate::{clock, world};
use hands::{Hands, Task};
pub use record::Metrics;
use record::Record;

/// The API server has so long to answer one question.
const ANSWER: Duration = Duration::from_secs(10);
/// Nothing is looked at more often than that.
const PAUSE: Duration = Duration::from_millis(50);

/// One replica of the controller.
pub struct Controller {
    api: Api<OsdRelocation>,
    config: Config,
    policy: Policy,
    ceph: Arc<dyn Ceph>,
    hands: Hands,
    sight: Sight,
    leads: Leads,
    record: Record,
    memory: Memory,
    answers: mpsc::UnboundedSender<(Task, Answer)>,
    wake: Arc<Notify>,
}

/// What a crash takes, and nobody misses.
#[derive(Debug, Default)]
struct Memory {
    detector: Detector,
    findings: Findings,
    rebalancer: Rebalancer,
    /// Why nothing was rebalanced, when it was said last.
    rests: Option<RestWhy>,
    view: Option<ClusterView>,
    busy: BTreeSet<RelocationId>,
    /// What was held when it was said last.
    held: BTreeMap<OsdId, HoldWhy>,
    said: BTreeSet<String>,
}

impl std::fmt::Debug for Controller {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Controller").field("memory", &self.memory).finish_non_exhaustive()
    }
}

/// Runs a replica until `stop` is ready; then gives its lease up.
pub async fn run(
    client: Client,
    config: Config,
    identity: String,
    ceph: Arc<dyn Ceph>,
    metrics: Arc<Metrics>,
    stop: impl Future<Output = ()>,
) {
    let leases = Api::namespaced(client.clone(), &config.lease.namespace);
    let candidate = Candidate::new(leases, config.lease.clone(), identity.clone());
    let wake = Arc::new(Notify::new());
    let mut sight = Sight::open(&client, &config, candidate.echoes(), Arc::clone(&wake));
    let (lead, leads) = channel::channel(None);
    let leads = Leads(leads);
    sight.follow_mons(Arc::clone(&ceph), config.look_every, leads.clone());
    let means = Means::new(&config);
    sight.follow_fences(means.clone(), leads.clone());
    let (resign, resigned) = channel::channel(false);
    let campaign = tokio::spawn(campaign(candidate, config.lease.renew, lead, resigned));
    let (answers, mut heard) = mpsc::unbounded_channel();
    let mut controller = Controller {
        api: Api::namespaced(client.clone(), &config.namespace),
        policy: config.policy.policy(),
        hands: Hands {
            client: client.clone(),
            namespace: config.namespace.clone(),
            ceph: Arc::clone(&ceph),
            fences: means,
            node_jobs: config.node_jobs.clone(),
        },
        ceph,
        sight,
        leads,
        record: Record::new(client, identity, metrics),
        memory: Memory::default(),
        answers,
        wake,
        config,
    };
    controller.drive(&mut heard, stop).await;
    // Nobody has to wait for a leader that says it goes.
    let _ = resign.send(true);
    let _ = tokio::time::timeout(ANSWER, campaign).await;
}

async fn campaign(
    mut candidate: Candidate,
    every: Duration,
    lead: channel::Sender<Option<Moment>>,
    mut resigned: channel::Receiver<bool>,
) {
    let mut tick = tokio::time::interval(every);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = resigned.changed() => break,
            _ = tick.tick() => {}
        }
        match tokio::time::timeout(ANSWER, candidate.campaign(clock::now().mono)).await {
            Ok(Ok(until)) => {
                if lead.borrow().is_some() != until.is_some() {
                    tracing::info!(leads = until.is_some(), "leadership");
                }
                lead.send_replace(until);
            }
            // Who leads, leads on until its time is over.
            Ok(Err(error)) => tracing::debug!(%error, "the lease cannot be renewed"),
            Err(_) => tracing::debug!("the lease cannot be renewed: no answer"),
        }
    }
    lead.send_replace(None);
    candidate.resign().await;
}

impl Controller {
    async fn drive(
        &mut self,
        heard: &mut mpsc::UnboundedReceiver<(Task, Answer)>,
        stop: impl Future<Output = ()>,
    ) {
        tokio::pin!(stop);
        let mut tick = tokio::time::interval(self.config.look_every);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            self.record.turned();
            let wake = Arc::clone(&self.wake);
            tokio::select! {
                () = &mut stop => return,
                _ = tick.tick() => {
                    if self.leading() {
                        self.evaluate().await;
                    } else {
                        self.memory = Memory { busy: std::mem::take(&mut self.memory.busy), ..Memory::default() };
                    }
                }
                () = wake.notified() => tokio::time::sleep(PAUSE).await,
                Some((task, answer)) = heard.recv() => self.hear(&task, answer).await,
            }
            if self.leading() {
                self.go_on_with_all().await;
            }
        }
    }

    fn leading(&self) -> bool {
        self.leads.now()
    }

    async fn evaluate(&mut self) {
        let Some(seen) = self.sight.seen() else { return };
        let (view, left_out) = world::view(&seen, &self.policy, clock::now());
        // A leader that has just begun has not heard of everything yet: nothing is wrong with that.
        let heard = view.api_seen.known().is_some() && view.mons.known().is_some();
        for (device, why) in left_out.iter().filter(|_| heard) {
            let subsystem = device.subsystem.to_string();
            self.say_once(&format!("{subsystem}: {why}"), || {
                tracing::warn!(subsystem, %why, "a device is left alone");
            });
        }
        let memory = &mut self.memory;
        memory.findings = memory.detector.look(&view, &self.policy);
        let decision = decide(&view, &memory.findings, &self.policy);
        self.record.looked(&view, &decision);
        let held: BTreeMap<OsdId, HoldWhy> = decision.held.into_iter().collect();
        let new = |(osd, why): &(&OsdId, &HoldWhy)| heard && memory.held.get(osd) != Some(why);
        for (osd, why) in held.iter().filter(new) {
            tracing::warn!(%osd, %why, "lost, and held");
        }
        memory.held = if heard { held } else { BTreeMap::new() };
        memory.view = Some(view);
        for relocation in decision.begin {
            self.begin(&relocation).await;
        }
        for (osd, mark) in decision.tidy {
            match self.hands.tidy(osd, mark).await {
                Ok(()) => tracing::info!(%osd, "what a move had left behind was taken off"),
                Err(why) => tracing::debug!(%osd, why, "what a move left behind stays for now"),
            }
        }
        let rebalance = self.rebalance().await;
        self.sight.publish(rebalance.as_ref()).await;
    }

    /// Looks for a move that would help, and begins it when its time has come.
    async fn rebalance(&mut self) -> Option<Rebalance> {
        let memory = &mut self.memory;
        let view = memory.view.as_ref()?;
        let proposed = match memory.rebalancer.look(view, &memory.findings, &self.policy) {
            Ok(proposed) => proposed,
            Err(why) => {
                if memory.rests.as_ref() != Some(&why) {
                    tracing::debug!(%why, "nothing is rebalanced");
                    memory.rests = Some(why);
                }
                return None;
            }
        };
        memory.rests = None;
        let shown = Rebalance::of(proposed, &self.policy);
        if proposed.since == view.now.wall {
            let Rebalance { osd, from, to, here, there, gain, .. } = &shown;
            tracing::info!(%osd, %from, %to, gain, here, there, "a move would help");
        }
        let Some(relocation) = proposed.due(view, &self.policy) else { return Some(shown) };
        // Whatever comes of it, the next one waits its whole time: until then this one is seen.
        memory.rebalancer.forget();
        match self.ceph.ok_to_stop(&[relocation.osd.id]).await {
            Ok(true) => self.begin(&relocation).await,
            Ok(false) => tracing::info!(osd = %relocation.osd.id, "Ceph cannot spare it now"),
            Err(error) => {
                let error = chain(&error);
                tracing::debug!(error, "Ceph does not say whether it can spare an OSD");
            }
        }
        None
    }

    fn say_once(&mut self, what: &str, say: impl FnOnce()) {
        // Bounded: a cluster that invents new troubles for ever is told of them again.
        if self.memory.said.len() > 1000 {
            self.memory.said.clear();
        }
        if self.memory.said.insert(what.to_owned()) {
            say();
        }
    }

    async fn begin(&mut self, relocation: &Relocation) {
        if !self.leading() {
            return;
        }
        let object = object(relocation);
        match within(self.api.create(&PostParams::default(), &object)).await {
            Ok(object) => {
                let Relocation { id, from, to, cause, .. } = relocation;
                tracing::warn!(relocation = %id, %from, %to, %cause, "a move begins");
                self.record.event(&object, relocation, "Begun");
            }
            Err(Trouble::Api(kube::Error::Api(status))) if status.code == 409 => {}
            Err(error) => {
                tracing::warn!(relocation = %relocation.id, %error, "cannot begin a move");
            }
        }
    }

    async fn go_on_with_all(&mut self) {
        for id in self.sight.open_moves() {
            if !self.memory.busy.contains(&id) && self.leading() {
                self.go_on(&id).await;
            }
        }
    }

    async fn fresh(&self, id: &RelocationId) -> Option<OsdRelocation> {
        match within(self.api.get_opt(id.as_str())).await {
            Ok(object) => object,
            Err(error) => {
                tracing::debug!(relocation = %id, %error, "cannot be read");
                None
            }
        }
    }

    /// One step of one move: a phase that is written, or an effect that leaves.
    async fn go_on(&mut self, id: &RelocationId) {
        let Some(object) = self.fresh(id).await else { return };
        let relocation = match crd::read(&object) {
            Ok(relocation) => relocation,
            Err(why) => {
                self.say_once(&format!("{id}: {why}"), || {
                    tracing::error!(relocation = %id, %why, "nobody acts on this move");
                });
                return;
            }
        };
        let over = relocation.phase.kind().is_over();
        let leaving = object.metadata.deletion_timestamp.is_some();
        let kept = object.metadata.finalizers.iter().flatten().any(|it| it == FINALIZER);
        if over {
            if leaving && kept {
                self.let_go(&object).await;
            }
            return;
        }
        if !kept && !leaving {
            self.keep(&object).await;
            return;
        }
        if object.status.is_none() {
            self.write(&object, &relocation, None).await;
            return;
        }
        let word = person(&object.spec.operator, leaving, &relocation).unwrap_or_else(|open| {
            self.say_once(&format!("{id}: {open}"), || {
                tracing::warn!(relocation = %id, open, "a person's word does not speak of every node");
            });
            None
        });
        if let Some(signal) = word
            && self.signal(&object, &relocation, signal).await
        {
            return;
        }
        let ok_to_stop = self.ok_to_stop(&relocation).await;
        // A leader that has not looked yet does not act either.
        let Some(view) = &self.memory.view else { return };
        // What was found some seconds ago is looked at with the time of now: it ages by itself.
        let view = ClusterView { now: clock::now(), ..view.clone() };
        let (findings, policy) = (&self.memory.findings, &self.policy);
        let signal = relocation.look(&Seen { view: &view, findings, policy, ok_to_stop });
        if let Some(signal) = signal
            && self.signal(&object, &relocation, signal).await
        {
            return;
        }
        self.act(&relocation);
    }

    fn act(&mut self, relocation: &Relocation) {
        let Some(command) = relocation.command(clock::now().wall) else { return };
        if !self.leading() {
            return;
        }
        tracing::debug!(%command, "begins");
        self.memory.busy.insert(relocation.id.clone());
        let target = self.sight.target_of(&relocation.device);
        let task = Task { command, relocation: relocation.clone(), target };
        let (hands, answers) = (self.hands.clone(), self.answers.clone());
        tokio::spawn(async move {
            let answer = hands.carry_out(&task).await;
            // Nobody hears it when we stop; whoever goes on asks again.
            let _ = answers.send((task, answer));
        });
    }

    async fn hear(&mut self, task: &Task, answer: Answer) {
        let id = &task.command.relocation;
        tracing::debug!(command = %task.command, ?answer, "answered");
        self.record.answered(&task.command, &answer);
        if self.leading()
            && let Some(object) = self.fresh(id).await
            && let Ok(relocation) = crd::read(&object)
        {
            let signal = relocation.answered(&task.command, answer, clock::now().wall);
            if let Some(signal) = signal {
                self.signal(&object, &relocation, signal).await;
            }
        }
        // Only now: the next step is taken from what was written.
        self.memory.busy.remove(id);
    }

    /// Writes what a signal does; whether it did anything.
    async fn signal(
        &mut self,
        object: &OsdRelocation,
        before: &Relocation,
        signal: Signal,
    ) -> bool {
        let mut next = before.clone();
        let kind = signal.kind();
        match next.signal(clock::now().wall, signal, &self.policy) {
            Ok(Moved::To(_) | Moved::Stayed(_)) if next == *before => false,
            Ok(Moved::To(_) | Moved::Stayed(_)) => {
                self.write(object, &next, Some(before)).await;
                true
            }
            Err(illegal) => {
                self.say_once(&format!("{}: {illegal}", before.id), || {
                    tracing::error!(relocation = %before.id, %illegal, %kind, "nobody acts on this");
                });
                false
            }
        }
    }

    async fn write(
        &mut self,
        object: &OsdRelocation,
        next: &Relocation,
        before: Option<&Relocation>,
    ) {
        if !self.leading() {
            return;
        }
        let mut written = object.clone();
        let mut status = crd::status(next, object.status.as_ref());
        status.observed_generation = object.metadata.generation.unwrap_or_default();
        written.status = Some(status);
        let name = next.id.as_str();
        // With the version that was read: refused if anybody wrote since.
        match within(self.api.replace_status(name, &PostParams::default(), &written)).await {
            Ok(object) => {
                let (from, to) = (before.map(|it| it.phase.kind()), next.phase.kind());
                if from != Some(to) {
                    let from = from.map_or("-", PhaseKind::word);
                    let message = &object.status.as_ref().map_or("", |it| it.message.as_str());
                    tracing::info!(relocation = name, from, %to, message, "phase");
                    self.record.phase(&object, next);
                }
                self.wake.notify_one();
            }
            Err(Trouble::Api(kube::Error::Api(status))) if status.code == 409 => {
                tracing::debug!(relocation = name, "somebody else wrote first");
            }
            Err(error) => tracing::debug!(relocation = name, %error, "cannot be written"),
        }
    }

    /// Whether Ceph can spare the OSD of a move that nothing forces, where it matters.
    async fn ok_to_stop(&self, relocation: &Relocation) -> Observed<bool> {
        let unknown = Observed::Unknown(UnknownWhy::NoAnswer);
        let phase = relocation.phase.kind();
        let early =
            phase == PhaseKind::Held || BeforeFence::ALL.iter().any(|it| it.kind() == phase);
        if !early || matches!(relocation.cause, Cause::Lost(_)) {
            return unknown;
        }
        self.ceph.ok_to_stop(&[relocation.osd.id]).await.map_or(unknown, Observed::Known)
    }

    async fn keep(&self, object: &OsdRelocation) {
        let mut finalizers = object.metadata.finalizers.clone().unwrap_or_default();
        finalizers.push(FINALIZER.to_owned());
        self.finalizers(object, &finalizers).await;
    }

    async fn let_go(&self, object: &OsdRelocation) {
        let mut finalizers = object.metadata.finalizers.clone().unwrap_or_default();
        finalizers.retain(|it| it != FINALIZER);
        self.finalizers(object, &finalizers).await;
    }

    async fn finalizers(&self, object: &OsdRelocation, finalizers: &[String]) {
        let patch = json!({ "metadata": {
            "resourceVersion": object.metadata.resource_version,
            "finalizers": finalizers,
        } });
        let name = object.metadata.name.as_deref().unwrap_or_default();
        let patch = Patch::Merge(&patch);
        if let Err(error) = within(self.api.patch(name, &PatchParams::default(), &patch)).await {
            tracing::debug!(relocation = name, %error, "its finalizers cannot be written");
        }
    }
}

/// What a person has said to a move and that it has not heard yet.
///
/// # Errors
/// What the word leaves open.
fn person(
    said: &Operator,
    leaving: bool,
    relocation: &Relocation,
) -> Result<Option<Signal>, String> {
    let waits = match relocation.phase.kind() {
        PhaseKind::Fencing | PhaseKind::Proving | PhaseKind::FenceRequired => true,
        PhaseKind::Pending
        | PhaseKind::Confirmed
        | PhaseKind::NooutSet
        | PhaseKind::Stopping
        | PhaseKind::Fenced
        | PhaseKind::Detached
        | PhaseKind::Connecting
        | PhaseKind::Verified
        | PhaseKind::Placed
        | PhaseKind::OsdUp
        | PhaseKind::Clean
        | PhaseKind::Succeeded
        | PhaseKind::Held
        | PhaseKind::RollingBack
        | PhaseKind::RolledBack
        | PhaseKind::GivingUp
        | PhaseKind::Failed => false,
    };
    if said.abort || leaving {
        return Ok(Some(Signal::OperatorAborted));
    }
    let Some(word) = said.fenced.as_ref().filter(|_| waits) else { return Ok(None) };
    let off = word.nodes.iter().cloned().collect();
    let signal = relocation.word(word.who.clone(), &word.said, &off, clock::now().wall);
    signal.map(Some).map_err(|open| open.to_string())
}

/// The object of a move that was just decided.
#[must_use]
pub fn object(relocation: &Relocation) -> OsdRelocation {
    let order = Order::from(relocation);
    let spec = OsdRelocationSpec { order, operator: Operator::default() };
    let mut object = OsdRelocation::new(relocation.id.as_str(), spec);
    object.metadata.finalizers = Some(vec![FINALIZER.to_owned()]);
    object
}

/// What the API server did not do.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error(transparent)]
    Api(#[from] kube::Error),
    #[error("no answer in {} s", ANSWER.as_secs())]
    Silent,
}

async fn within<T>(asked: impl Future<Output = Result<T, kube::Error>>) -> Result<T, Trouble> {
    match tokio::time::timeout(ANSWER, asked).await {
        Ok(answer) => Ok(answer?),
        Err(_) => Err(Trouble::Silent),
    }
}
