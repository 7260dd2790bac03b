//! A node: a Lease that is renewed, and pods that are processes.
//!
//! It does of a kubelet what matters here: it takes pods that are bound to it (and, as there is no
//! scheduler, those whose selector names it), runs their main container as a process, says how that
//! ended, and takes a pod away that is to go. What a container's mounts would do, it does with the
//! arguments: each node has its own folder of device links, each container its own place for its
//! last words.
//!
//! It can be cut off in two ways. Without power everything is gone. Frozen, nothing happens on it,
//! and when it wakes up its daemons go on with what they were about to do: the case that destroys
//! stores.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Binding, Container, Node, Pod};
use kube::Client;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams, Preconditions};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tokio::process::{Child, Command};
use tokio::sync::Mutex;
use tokio::task::JoinHandle;

use crate::fabric::Fabric;

const TICK: Duration = Duration::from_millis(250);
const RENEWAL: Duration = Duration::from_millis(500);

pub(crate) fn host_nqn(node: &str) -> String {
    format!("nqn.2026-01.org.example:{node}")
}

struct Running {
    child: Child,
    name: String,
    answer: PathBuf,
    job: bool,
}

#[derive(Clone)]
pub(crate) struct Kubelet {
    pub(crate) name: String,
    client: Client,
    namespace: String,
    dir: PathBuf,
    frozen: Arc<AtomicBool>,
    /// By the pods' uids.
    running: Arc<Mutex<BTreeMap<String, Running>>>,
    task: Arc<Mutex<Option<JoinHandle<()>>>>,
}

impl Kubelet {
    pub(crate) async fn start(client: &Client, namespace: &str, name: &str, dir: PathBuf) -> Self {
        let nodes: Api<Node> = Api::all(client.clone());
        let node = json!({
            "metadata": { "name": name, "labels": { "kubernetes.io/hostname": name } },
        });
        let node: Node = serde_json::from_value(node).unwrap();
        nodes.create(&PostParams::default(), &node).await.unwrap();
        let resources = json!({ "cpu": "8", "memory": "32Gi", "pods": "110" });
        let now = jiff::Timestamp::now().to_string();
        let status = json!({ "status": {
            "capacity": resources,
            "allocatable": resources,
            "conditions": [{ "type": "Ready", "status": "True", "reason": "KubeletReady",
                "lastHeartbeatTime": now, "lastTransitionTime": now }],
        } });
        let patch = Patch::Merge(&status);
        nodes.patch_status(name, &PatchParams::default(), &patch).await.unwrap();
        let kubelet = Self {
            name: name.to_owned(),
            client: client.clone(),
            namespace: namespace.to_owned(),
            dir,
            frozen: Arc::default(),
            running: Arc::default(),
            task: Arc::default(),
        };
        kubelet.power_on().await;
        kubelet
    }

    pub(crate) async fn power_on(&self) {
        self.frozen.store(false, Ordering::SeqCst);
        let kubelet = self.clone();
        let task = tokio::spawn(async move { kubelet.live().await });
        *self.task.lock().await = Some(task);
    }

    /// Everything on it is gone.
    pub(crate) async fn power_off(&self) {
        if let Some(task) = self.task.lock().await.take() {
            task.abort();
            let _ = task.await;
        }
        self.signal(Signal::KILL).await;
        for (_, mut pod) in std::mem::take(&mut *self.running.lock().await) {
            pod.child.wait().await.unwrap();
        }
    }

    /// Its kubelet is gone; what it runs goes on.
    pub(crate) async fn cut_off_from_api(&self) {
        if let Some(task) = self.task.lock().await.take() {
            task.abort();
            let _ = task.await;
        }
    }

    /// Nothing happens on it any more, and all of it is still there.
    pub(crate) async fn freeze(&self) {
        self.frozen.store(true, Ordering::SeqCst);
        self.signal(Signal::STOP).await;
    }

    pub(crate) async fn thaw(&self) {
        self.signal(Signal::CONT).await;
        self.frozen.store(false, Ordering::SeqCst);
    }

    /// While nobody holds the state that all share: a daemon must not be stopped with it in its
    /// hand.
    async fn signal(&self, signal: Signal) {
        let running = self.running.lock().await;
        let ids = running.values().filter_map(|pod| pod.child.id());
        let ids: Vec<Pid> = ids.filter_map(|id| Pid::from_raw(id.try_into().unwrap())).collect();
        Fabric::at(&self.dir).look(|_| {
            for id in &ids {
                let _ = kill_process(*id, signal);
            }
            // Not let go before they stand still: one that waits for it in the kernel would get it
            // there, and stop with it in its hand.
            while signal == Signal::STOP && ids.iter().any(|id| runs(*id)) {
                std::thread::sleep(Duration::from_millis(5));
            }
        });
    }

    pub(crate) async fn remove(&self) {
        self.power_off().await;
        let nodes: Api<Node> = Api::all(self.client.clone());
        let _ = nodes.delete(&self.name, &DeleteParams::default()).await;
    }

    async fn live(&self) {
        // Apart from each other, as in a kubelet: a node that is busy is not a silent one. An API
        // server that is away is asked again.
        let renew = async {
            loop {
                if !self.frozen.load(Ordering::SeqCst) {
                    let _ = self.renew().await;
                }
                tokio::time::sleep(RENEWAL).await;
            }
        };
        let look = async {
            loop {
                if !self.frozen.load(Ordering::SeqCst) {
                    let _ = self.look().await;
                }
                tokio::time::sleep(TICK).await;
            }
        };
        tokio::join!(renew, look);
    }

    async fn renew(&self) -> kube::Result<()> {
        let leases: Api<Lease> = Api::namespaced(self.client.clone(), "kube-node-lease");
        let lease = json!({
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": { "name": self.name },
            "spec": {
                "holderIdentity": self.name,
                "leaseDurationSeconds": 40,
                "renewTime": format!("{:.6}", jiff::Timestamp::now()),
            },
        });
        let params = PatchParams::apply("kubelet").force();
        leases.patch(&self.name, &params, &Patch::Apply(&lease)).await.map(drop)
    }

    fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    async fn look(&self) -> kube::Result<()> {
        let pods = self.pods().list(&ListParams::default()).await?.items;
        for pod in &pods {
            let spec = pod.spec.as_ref().unwrap();
            let selector = spec.node_selector.as_ref();
            let wanted = selector.and_then(|it| it.get("kubernetes.io/hostname"));
            match spec.node_name.as_deref() {
                Some(node) if node == self.name => self.tend(pod).await?,
                None if wanted == Some(&self.name) => self.bind(pod).await?,
                Some(_) | None => {}
            }
        }
        let known: Vec<&str> = pods.iter().filter_map(|pod| pod.metadata.uid.as_deref()).collect();
        let mut running = self.running.lock().await;
        let orphans: Vec<String> =
            running.keys().filter(|uid| !known.contains(&uid.as_str())).cloned().collect();
        for uid in orphans {
            if let Some(pod) = running.remove(&uid) {
                self.end(pod).await;
            }
        }
        Ok(())
    }

    async fn end(&self, mut pod: Running) {
        Fabric::at(&self.dir).look(|_| pod.child.start_kill()).unwrap();
        pod.child.wait().await.unwrap();
    }

    async fn bind(&self, pod: &Pod) -> kube::Result<()> {
        let name = pod.metadata.name.as_deref().unwrap();
        let binding: Binding = serde_json::from_value(json!({
            "metadata": { "name": name },
            "target": { "kind": "Node", "name": self.name },
        }))
        .unwrap();
        let bound: kube::Result<Value> =
            self.pods().create_subresource("binding", name, &PostParams::default(), &binding).await;
        bound.map(drop)
    }

    async fn tend(&self, pod: &Pod) -> kube::Result<()> {
        let uid = pod.metadata.uid.clone().unwrap();
        let name = pod.metadata.name.clone().unwrap();
        let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
        let mut running = self.running.lock().await;
        if pod.metadata.deletion_timestamp.is_some() {
            if let Some(pod) = running.remove(&uid) {
                self.end(pod).await;
            }
            let preconditions = Preconditions { uid: Some(uid), resource_version: None };
            let how = DeleteParams {
                grace_period_seconds: Some(0),
                preconditions: Some(preconditions),
                ..DeleteParams::default()
            };
            return self.pods().delete(&name, &how).await.map(drop);
        }
        if matches!(phase, Some("Succeeded" | "Failed")) {
            return Ok(());
        }
        let Some(known) = running.get_mut(&uid) else {
            let started = self.run(pod);
            let container = main_container(pod).name.clone();
            running.insert(uid, started);
            drop(running);
            let state = json!({ "running": { "startedAt": jiff::Timestamp::now().to_string() } });
            return self.say(&name, &container, "Running", &state).await;
        };
        let Some(status) = known.child.try_wait().unwrap() else { return Ok(()) };
        if !known.job {
            // Restarted where it is, as often as it likes.
            running.insert(uid, self.run(pod));
            return Ok(());
        }
        let message = std::fs::read_to_string(&known.answer).unwrap_or_default();
        let code = status.code().unwrap_or(137);
        let (name, container) = (known.name.clone(), main_container(pod).name.clone());
        running.remove(&uid);
        drop(running);
        let now = jiff::Timestamp::now().to_string();
        let state = json!({ "terminated": { "exitCode": code, "message": message,
            "reason": if code == 0 { "Completed" } else { "Error" },
            "startedAt": now, "finishedAt": now } });
        let phase = if code == 0 { "Succeeded" } else { "Failed" };
        self.say(&name, &container, phase, &state).await
    }

    fn run(&self, pod: &Pod) -> Running {
        let container = main_container(pod);
        let uid = pod.metadata.uid.as_deref().unwrap();
        let job = container.name == "connect";
        let answer = self.dir.join(format!("answer-{uid}"));
        let mut words = container.command.iter().chain(&container.args).flatten();
        let mut command = Command::new(words.next().unwrap());
        let links = self.dir.join("by-id");
        for word in words {
            // Each node has its own /dev.
            let own = links.join(&self.name).display().to_string();
            command.arg(if *word == links.display().to_string() { &own } else { word });
        }
        if job {
            command.arg("--answer").arg(&answer);
        }
        for variable in container.env.iter().flatten() {
            let value = variable.value.clone().unwrap_or_else(|| self.name.clone());
            command.env(&variable.name, value);
        }
        // What the node's kernel knows: under which name it is connected.
        command.env("HOST_NQN", host_nqn(&self.name)).env("NODE_NAME", &self.name);
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        Running { child, name: pod.metadata.name.clone().unwrap(), answer, job }
    }

    async fn say(
        &self,
        pod: &str,
        container: &str,
        phase: &str,
        state: &Value,
    ) -> kube::Result<()> {
        let ready = phase == "Running";
        let status = json!({ "status": {
            "phase": phase,
            "conditions": [{ "type": "Ready", "status": if ready { "True" } else { "False" } }],
            "containerStatuses": [{ "name": container, "image": "", "imageID": "", "ready": ready,
                "restartCount": 0, "state": state }],
        } });
        let patch = Patch::Strategic(&status);
        self.pods().patch_status(pod, &PatchParams::default(), &patch).await.map(drop)
    }
}

/// Whether a process is neither stopped nor gone.
fn runs(id: Pid) -> bool {
    let text = std::fs::read_to_string(format!("/proc/{}/stat", id.as_raw_nonzero()));
    let state = text.ok().and_then(|it| it.rsplit(") ").next().and_then(|it| it.chars().next()));
    state.is_some_and(|state| !"TtZX".contains(state))
}

fn main_container(pod: &Pod) -> &Container {
    let containers = &pod.spec.as_ref().unwrap().containers;
    let main = containers.iter().find(|it| it.name == "osd" || it.name == "connect");
    main.expect("a container of a kind that is run here")
}
