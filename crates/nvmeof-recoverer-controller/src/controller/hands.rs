//! What a command does in the world. Everything here may be done twice, and by two at once.
//!
//! | effect | Kubernetes | Ceph | target |
//! |---|---|---|---|
//! | quiet | mark on the Deployment | `noout` | |
//! | stop | no pods, wait for the last one | | |
//! | fence, prove, admit | | | asked, with the token |
//! | detach | the old pod, by its uid, without its node | `down` | |
//! | connect | a Job on the new node | | |
//! | place | the Deployment's node, the CephCluster's list | | |
//! | release | mark off, pods as they were | `noout` off | |
//!
//! Whoever keeps a token refuses an older one: the target, and the Deployment by its annotations.
//! What the API server refuses because somebody else was faster is asked again from what is there
//! then.

use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;

use heal_types::cluster::{Generation, NodeName, OsdId};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use kube::Client;
use kube::api::{
    Api, ApiResource, DeleteParams, DynamicObject, GroupVersionKind, ListParams, Patch,
    PatchParams, PostParams, Preconditions,
};
use nvmeof_recoverer::plan::relocate::{Answer, Command, Effect, Relocation, Undo};
use nvmeof_recoverer::plan::view::Device;
use serde_json::Value;

use crate::ceph::Ceph;
use crate::clock;
use crate::config::NodeJobs;
use crate::crd::FabricTargetSpec;
use crate::fence::{Ask, Host, Means, Verb};
use crate::nodejob::{self, Progress, Said};
use crate::rook::{self, Change, OsdDeployment};

/// How often a Job is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// A Job that the cluster has not ended by then is not waited for.
const JOB_GRACE: Duration = Duration::from_secs(10);

/// A step that ends early ends with an answer.
type Step<T = ()> = Result<T, Answer>;

fn again(why: impl Display) -> Answer {
    Answer::Again(why.to_string())
}

/// Everything an effect needs.
#[derive(Clone)]
pub(crate) struct Hands {
    pub(crate) client: Client,
    pub(crate) namespace: String,
    pub(crate) ceph: Arc<dyn Ceph>,
    pub(crate) fences: Means,
    pub(crate) node_jobs: NodeJobs,
}

/// A command, and what is known of its move.
#[derive(Debug, Clone)]
pub(crate) struct Task {
    pub(crate) command: Command,
    pub(crate) relocation: Relocation,
    /// The target that lists the device.
    pub(crate) target: Option<FabricTargetSpec>,
}

impl Hands {
    /// Carries one command out.
    pub(crate) async fn carry_out(&self, task: &Task) -> Answer {
        self.step(task).await.unwrap_or_else(|answer| answer)
    }

    async fn step(&self, task: &Task) -> Step<Answer> {
        let generation = task.command.generation;
        match &task.command.effect {
            Effect::Quiet { osd } => self.quiet(*osd, generation).await?,
            Effect::Stop { osd } => self.stop(*osd, generation).await?,
            Effect::Fence { device, .. } => return self.fence(task, device, Verb::Close).await,
            Effect::Prove { device, .. } => return self.fence(task, device, Verb::Report).await,
            Effect::Detach { osd, from, .. } => self.detach(*osd, from).await?,
            Effect::Admit { device, to, .. } => {
                let verb = Verb::Admit(host(target(task)?, to));
                return self.fence(task, device, verb).await;
            }
            Effect::Connect { device, to, .. } => return self.connect(task, device, to).await,
            Effect::Place { osd, from, to } => self.place(task, *osd, from, to).await?,
            Effect::Release { osd } => self.release(*osd, generation).await?,
            Effect::Restore { osd, device, from, undo } => {
                return self.restore(task, *osd, device, from, *undo).await;
            }
        }
        Ok(Answer::Done)
    }

    fn deployments(&self) -> Api<Deployment> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    async fn deployment(&self, osd: OsdId) -> Step<(Deployment, OsdDeployment)> {
        let name = format!("rook-ceph-osd-{}", osd.number());
        let deployment = self.deployments().get(&name).await.map_err(again)?;
        let read = OsdDeployment::read(&deployment).map_err(again)?;
        Ok((deployment, read))
    }

    async fn change(&self, deployment: &Deployment, what: &Change) -> Step {
        let patch = rook::change(deployment, what).map_err(again)?;
        let name = deployment.metadata.name.as_deref().unwrap_or_default();
        patched(&self.deployments(), name, patch).await
    }

    async fn quiet(&self, osd: OsdId, generation: Generation) -> Step {
        let (deployment, known) = self.deployment(osd).await?;
        if known.generation > generation || known.mark.is_some_and(|mark| mark > generation) {
            return Err(Answer::Refused("a newer move was here".to_owned()));
        }
        if known.mark != Some(generation) {
            let what = Change { mark: Some(Some(generation)), ..Change::default() };
            self.change(&deployment, &what).await?;
        }
        // After the mark: what is set without one would never be taken off.
        self.ceph.noout(osd, true).await.map_err(again)
    }

    async fn stop(&self, osd: OsdId, generation: Generation) -> Step {
        let (deployment, known) = self.marked(osd, generation).await?;
        let stopped = deployment.spec.as_ref().and_then(|spec| spec.replicas) == Some(0);
        if !stopped || known.generation != generation {
            let generation = Some(generation);
            let what = Change { replicas: Some(0), generation, ..Change::default() };
            self.change(&deployment, &what).await?;
        }
        match self.pods(osd).await?.first() {
            None => Ok(()),
            Some(pod) => Err(again(format!(
                "pod {} is still there",
                pod.metadata.name.as_deref().unwrap_or_default()
            ))),
        }
    }

    /// The Deployment, if this move's mark is on it: a command that arrives late must not undo what
    /// ended its move.
    async fn marked(
        &self,
        osd: OsdId,
        generation: Generation,
    ) -> Step<(Deployment, OsdDeployment)> {
        let (deployment, known) = self.deployment(osd).await?;
        if known.mark != Some(generation) {
            return Err(Answer::Refused("it does not carry the mark of this move".to_owned()));
        }
        Ok((deployment, known))
    }

    async fn fence(&self, task: &Task, device: &Device, verb: Verb) -> Step<Answer> {
        let target = target(task)?;
        let fence = self.fences.of(target);
        let holders = task.relocation.holders.iter().map(|node| host(target, node)).collect();
        let generation = task.command.generation;
        Ok(fence.ask(&Ask { verb, device: device.clone(), generation, holders }).await)
    }

    async fn detach(&self, osd: OsdId, from: &NodeName) -> Step {
        self.ceph.down(osd).await.map_err(again)?;
        for pod in self.pods(osd).await?.iter().filter(|pod| runs_on(pod, from)) {
            self.remove(pod).await?;
        }
        Ok(())
    }

    async fn connect(&self, task: &Task, device: &Device, to: &NodeName) -> Step<Answer> {
        let target = target(task)?;
        let Some(node) = nodejob::entry(target, to) else {
            return Err(Answer::Refused(format!("the target does not list {to}")));
        };
        let id = &task.command.relocation;
        let job = nodejob::connect(id, device, node, target, &self.node_jobs).map_err(again)?;
        let jobs: Api<Job> = Api::namespaced(self.client.clone(), &self.namespace);
        match jobs.create(&PostParams::default(), &job).await {
            Ok(_) => {}
            Err(error) if is(&error, 409) => {}
            Err(error) => return Err(again(error)),
        }
        let name = nodejob::name(id);
        let patience = tokio::time::Instant::now() + self.node_jobs.deadline + JOB_GRACE;
        loop {
            let job = jobs.get(&name).await.map_err(again)?;
            let selector = format!("job-name={name}");
            let pods = self.list(&selector).await?;
            match nodejob::progress(&job, &pods) {
                Progress::Over(Said::Label(found)) => return Ok(Answer::Label(found)),
                Progress::Over(Said::Again(why)) => {
                    jobs.delete(&name, &DeleteParams::background()).await.map_err(again)?;
                    return Err(Answer::Again(why));
                }
                Progress::Running if tokio::time::Instant::now() < patience => {}
                Progress::Running => return Err(again("the Job does not come to an end")),
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    async fn place(&self, task: &Task, osd: OsdId, from: &NodeName, to: &NodeName) -> Step {
        let generation = task.command.generation;
        let (deployment, known) = self.marked(osd, generation).await?;
        let stopped = deployment.spec.as_ref().and_then(|spec| spec.replicas) == Some(0);
        if known.node != *to || known.generation != generation || stopped {
            let node = (known.node != *to).then(|| (to.clone(), clock::now().wall));
            let (replicas, generation) = (Some(1), Some(generation));
            let what = Change { replicas, generation, node, ..Change::default() };
            self.change(&deployment, &what).await?;
        }
        for pod in self.pods(osd).await?.iter().filter(|pod| !runs_on(pod, to)) {
            self.remove(pod).await?;
        }
        self.list_device(task, from, to).await
    }

    /// Says in the CephCluster where the device is now, so that Rook's next look agrees.
    async fn list_device(&self, task: &Task, from: &NodeName, to: &NodeName) -> Step {
        let kind = GroupVersionKind::gvk("ceph.rook.io", "v1", "CephCluster");
        let kind = ApiResource::from_gvk(&kind);
        let clusters: Api<DynamicObject> =
            Api::namespaced_with(self.client.clone(), &self.namespace, &kind);
        let name = &target(task)?.ceph_cluster.name;
        let cluster = clusters.get(name).await.map_err(again)?;
        match rook::move_device(&cluster.data, &task.relocation.device, from, to) {
            None => Ok(()),
            Some(patch) => patched(&clusters, name, patch).await,
        }
    }

    async fn release(&self, osd: OsdId, generation: Generation) -> Step {
        let (deployment, known) = self.deployment(osd).await?;
        let ours = known.mark.is_none_or(|mark| mark <= generation);
        let stopped = deployment.spec.as_ref().and_then(|spec| spec.replicas) == Some(0);
        // A person may have stopped it; then no move's token stands there.
        let by_a_move = known.generation > Generation(0) && known.generation <= generation;
        let replicas = (stopped && by_a_move).then_some(1);
        let mark = (ours && known.mark.is_some()).then_some(None);
        if ours {
            // Before the mark: what is left behind without one nobody would look for.
            self.ceph.noout(osd, false).await.map_err(again)?;
        }
        if replicas.is_none() && mark.is_none() {
            return Ok(());
        }
        self.change(&deployment, &Change { replicas, mark, ..Change::default() }).await
    }

    async fn restore(
        &self,
        task: &Task,
        osd: OsdId,
        device: &Device,
        from: &NodeName,
        undo: Undo,
    ) -> Step<Answer> {
        if undo >= Undo::Fenced {
            let verb = Verb::Admit(host(target(task)?, from));
            let answer = self.fence(task, device, verb).await?;
            if answer != Answer::Done {
                return Ok(answer);
            }
        }
        self.release(osd, task.command.generation).await?;
        Ok(Answer::Done)
    }

    /// Takes off what a move that is over left behind.
    pub(crate) async fn tidy(&self, osd: OsdId, mark: Generation) -> Result<(), String> {
        self.release(osd, mark).await.map_err(|answer| format!("{answer:?}"))
    }

    async fn list(&self, selector: &str) -> Step<Vec<Pod>> {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), &self.namespace);
        let listed = pods.list(&ListParams::default().labels(selector)).await;
        listed.map(|list| list.items).map_err(again)
    }

    /// The OSD's pods, but for those that are over.
    async fn pods(&self, osd: OsdId) -> Step<Vec<Pod>> {
        let pods = self.list(&format!("{},ceph-osd-id={}", rook::OSDS, osd.number())).await?;
        let over = |pod: &Pod| {
            let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
            matches!(phase, Some("Succeeded" | "Failed"))
        };
        Ok(pods.into_iter().filter(|pod| !over(pod)).collect())
    }

    /// Removes a pod without waiting for its node; that very pod, not one that has its name now.
    async fn remove(&self, pod: &Pod) -> Step {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), &self.namespace);
        let how = DeleteParams {
            grace_period_seconds: Some(0),
            preconditions: Some(Preconditions {
                uid: pod.metadata.uid.clone(),
                resource_version: None,
            }),
            ..DeleteParams::default()
        };
        match pods.delete(pod.metadata.name.as_deref().unwrap_or_default(), &how).await {
            Ok(_) => Ok(()),
            Err(error) if is(&error, 404) => Ok(()),
            Err(error) => Err(again(error)),
        }
    }
}

fn target(task: &Task) -> Step<&FabricTargetSpec> {
    task.target.as_ref().ok_or_else(|| again("no FabricTarget lists the device"))
}

fn host(target: &FabricTargetSpec, node: &NodeName) -> Host {
    let host_nqn = nodejob::entry(target, node).map(|entry| entry.host_nqn.clone());
    Host { node: node.clone(), host_nqn }
}

fn runs_on(pod: &Pod, node: &NodeName) -> bool {
    let on = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref());
    on == Some(node.as_str())
}

fn is(error: &kube::Error, code: u16) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == code)
}

async fn patched<K>(api: &Api<K>, name: &str, patch: Value) -> Step
where
    K: Clone + std::fmt::Debug + serde::de::DeserializeOwned,
{
    let patch: Patch<()> = Patch::Json(serde_json::from_value(patch).map_err(again)?);
    match api.patch(name, &PatchParams::default(), &patch).await {
        Ok(_) => Ok(()),
        // A test in the patch failed, or the version is another one.
        Err(error) if is(&error, 409) || is(&error, 422) => {
            Err(again("somebody else changed it meanwhile"))
        }
        Err(error) => Err(again(error)),
    }
}
