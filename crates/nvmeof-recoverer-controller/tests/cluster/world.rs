//! A cluster for one scenario: a namespace, nodes, targets with OSDs as Rook runs them, and
//! replicas of the controller as processes.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::authentication::v1::TokenRequest;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::Client;
use kube::api::{
    Api, ApiResource, DeleteParams, DynamicObject, GroupVersionKind, ListParams, Patch,
    PatchParams, PostParams,
};
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{self, watcher};
use nvmeof_recoverer::plan::relocate::PhaseKind;
use nvmeof_recoverer_controller::crd::{FabricTarget, OsdRelocation};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tokio::process::{Child, Command};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::ceph::{Ceph, Place};
use crate::fabric::{Device, Fabric, Osd, State, now_ms};
use crate::kubelet::{Kubelet, host_nqn};

pub(crate) const CLUSTER: &str = "0f7e4d5a-1111-4222-8333-444455556666";

pub(crate) fn fsid(osd: u32) -> String {
    format!("0f7e4d5a-1111-4222-8333-44445555{osd:04}")
}

pub(crate) fn subsystem(osd: u32) -> String {
    format!("nqn.2026-01.org.example:osd-{osd}")
}

pub(crate) struct World {
    pub(crate) name: String,
    pub(crate) client: Client,
    pub(crate) fabric: Fabric,
    pub(crate) nodes: Vec<Kubelet>,
    replicas: Vec<(String, Child)>,
    dir: PathBuf,
    /// A real one, where it is not played.
    ceph: Option<Ceph>,
    /// More of the policy, for replicas that are started from now on.
    pub(crate) policy: &'static str,
}

/// Nodes of a world. OSD n and target n are on node n.
const NODES: u32 = 5;
/// OSDs of a world; the nodes behind them are free.
pub(crate) const OSDS: u32 = 3;

impl World {
    pub(crate) fn node(&self, n: u32) -> String {
        format!("{}-n{n}", self.name)
    }

    pub(crate) fn kubelet(&self, n: u32) -> &Kubelet {
        &self.nodes[usize::try_from(n).unwrap()]
    }

    /// A world in order, without a controller.
    pub(crate) async fn new(name: &str) -> Self {
        let world = Self::made(name, None).await;
        world
            .until("every OSD is up", |state| state.osds.values().all(|osd| osd.host.is_some()))
            .await;
        world
    }

    /// The same, with a real Ceph.
    pub(crate) async fn with_ceph(name: &str, place: Place) -> Self {
        let world = Self::made(name, Some(place)).await;
        let mut patience = Patience::new();
        while world.ceph().ask(&["osd", "stat"]).await["num_up_osds"] != OSDS {
            assert!(patience.lasts().await, "the OSDs do not come up");
        }
        world
    }

    pub(crate) fn ceph(&self) -> &Ceph {
        self.ceph.as_ref().expect("a world with a real Ceph")
    }

    async fn made(name: &str, real: Option<Place>) -> Self {
        let client = Client::try_default().await.expect("CLUSTER is reached by KUBECONFIG");
        install(&client).await;
        let dir = PathBuf::from(std::env::var_os("CLUSTER").unwrap()).join(name);
        let mut state =
            State { cluster: CLUSTER.to_owned(), quorum: true, min_size: 2, ..State::default() };
        for osd in 0..OSDS {
            let host = host_nqn(&format!("{name}-n{osd}"));
            let device = Device {
                osd,
                allowed: vec![host.clone()],
                connected: vec![host],
                ..Device::default()
            };
            state.devices.insert(subsystem(osd), device);
            let osd_state =
                Osd { fsid: fsid(osd), host: None, beat_ms: now_ms(), noout: false, boots: 0 };
            state.osds.insert(osd, osd_state);
        }
        let fabric = Fabric::create(&dir, &state);
        programs(&dir);
        let namespace: Namespace =
            serde_json::from_value(json!({ "metadata": { "name": name } })).unwrap();
        Api::all(client.clone()).create(&PostParams::default(), &namespace).await.unwrap();
        let mut world = Self {
            name: name.to_owned(),
            client,
            fabric,
            nodes: Vec::new(),
            replicas: Vec::new(),
            dir,
            ceph: None,
            policy: "",
        };
        if let Some(place) = real {
            let ceph = Ceph::start(&world.dir, place).await;
            (0..OSDS).for_each(|osd| ceph.show(osd, &world.node(osd)));
            world.ceph = Some(ceph);
        }
        world.rook().await;
        world.rights().await;
        for n in 0..NODES {
            let node = world.node(n);
            let dir = world.dir.clone();
            world.nodes.push(Kubelet::start(&world.client, name, &node, dir).await);
        }
        world
    }

    /// The rights that are shipped, for this namespace, and a way in that has no others.
    async fn rights(&self) {
        let leases: Api<Lease> = Api::namespaced(self.client.clone(), "kube-node-lease");
        let _ = leases.delete("nvmeof-recoverer", &DeleteParams::default()).await;
        let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../packaging/kubernetes");
        let rights = std::fs::read_to_string(shipped.join("rbac.yaml")).unwrap();
        let file = self.dir.join("rbac.yaml");
        std::fs::write(&file, rights.replace("rook-ceph", &self.name)).unwrap();
        apply(&file).await;
        let accounts: Api<ServiceAccount> = Api::namespaced(self.client.clone(), &self.name);
        let request: TokenRequest = serde_json::from_value(json!({ "metadata": {}, "spec": {
            "audiences": ["https://127.0.0.1"], "expirationSeconds": 7200 } }))
        .unwrap();
        let params = PostParams::default();
        let token = accounts.create_token_request("nvmeof-recoverer", &params, &request).await;
        let token = token.unwrap().status.unwrap().token;
        let admin = std::fs::read(std::env::var_os("KUBECONFIG").unwrap()).unwrap();
        let mut access: Value = serde_json::from_slice(&admin).unwrap();
        access["users"][0]["user"] = json!({ "token": token });
        std::fs::write(self.dir.join("kubeconfig"), access.to_string()).unwrap();
    }

    /// What Rook and a person would have made.
    async fn rook(&self) {
        let link = |osd: u32| format!("/dev/disk/by-id/nvme-uuid.{}", fsid(osd));
        let nodes: Vec<Value> = (0..OSDS)
            .map(|n| json!({ "name": self.node(n), "devices": [{ "name": link(n) }] }))
            .collect();
        let cluster = json!({
            "apiVersion": "ceph.rook.io/v1",
            "kind": "CephCluster",
            "metadata": { "name": "ceph" },
            "spec": {
                "dataDirHostPath": "/var/lib/rook",
                "cephVersion": { "image": "quay.io/ceph/ceph:v16" },
                "cephConfig": { "global": { "osd_crush_update_on_start": "false" } },
                "storage": { "useAllNodes": false, "useAllDevices": false, "nodes": nodes },
            },
        });
        let cluster: DynamicObject = serde_json::from_value(cluster).unwrap();
        self.clusters().create(&PostParams::default(), &cluster).await.unwrap();
        let status = json!({ "status": { "ceph": { "fsid": CLUSTER } } });
        let patch = Patch::Merge(&status);
        self.clusters().patch_status("ceph", &PatchParams::default(), &patch).await.unwrap();
        for osd in 0..OSDS {
            let deployment = self.osd(osd);
            self.deployments().create(&PostParams::default(), &deployment).await.unwrap();
            let target = self.target(osd);
            self.targets().create(&PostParams::default(), &target).await.unwrap();
        }
    }

    fn osd(&self, osd: u32) -> Deployment {
        let id = osd.to_string();
        let labels = json!({ "app": "rook-ceph-osd", "ceph-osd-id": id, "portable": "false" });
        serde_json::from_value(json!({
            "metadata": { "name": format!("rook-ceph-osd-{osd}"), "labels": labels },
            "spec": {
                "replicas": 1,
                "strategy": { "type": "Recreate" },
                "selector": { "matchLabels": { "app": "rook-ceph-osd", "ceph-osd-id": id } },
                "template": {
                    "metadata": { "labels": labels },
                    "spec": {
                        "nodeSelector": { "kubernetes.io/hostname": self.node(osd) },
                        "containers": [{
                            "name": "osd",
                            "image": "quay.io/ceph/ceph:v16",
                            "command": [self.dir.join("bin/ceph-osd")],
                            "args": ["--id", id, "--fsid", fsid(osd)],
                            "resources": { "requests": { "cpu": "1", "memory": "4Gi" } },
                            "env": [
                                { "name": "ROOK_OSD_UUID", "value": fsid(osd) },
                                { "name": "ROOK_NODE_NAME", "value": self.node(osd) },
                                { "name": "NODE_NAME", "valueFrom": {
                                    "fieldRef": { "fieldPath": "spec.nodeName" } } },
                            ],
                        }],
                    },
                },
            },
        }))
        .unwrap()
    }

    fn target(&self, osd: u32) -> FabricTarget {
        let nodes: Vec<Value> = (0..NODES)
            .map(|n| self.node(n))
            .map(|node| json!({ "name": node, "hostNqn": host_nqn(&node), "hostId": fsid(900) }))
            .collect();
        serde_json::from_value(json!({
            "apiVersion": "nvme-heal.io/v1alpha1",
            "kind": "FabricTarget",
            "metadata": { "name": format!("array-{osd}") },
            "spec": {
                "cephCluster": { "name": "ceph" },
                "portals": [{ "address": "192.0.2.1" }],
                "devices": [{ "subsystem": subsystem(osd), "osd": osd,
                    "namespace": format!("uuid.{}", fsid(osd)) }],
                "nodes": nodes,
                "fence": { "exec": { "program": "array" } },
            },
        }))
        .unwrap()
    }

    pub(crate) fn deployments(&self) -> Api<Deployment> {
        Api::namespaced(self.client.clone(), &self.name)
    }

    pub(crate) fn targets(&self) -> Api<FabricTarget> {
        Api::namespaced(self.client.clone(), &self.name)
    }

    pub(crate) fn moves(&self) -> Api<OsdRelocation> {
        Api::namespaced(self.client.clone(), &self.name)
    }

    pub(crate) fn clusters(&self) -> Api<DynamicObject> {
        let kind = GroupVersionKind::gvk("ceph.rook.io", "v1", "CephCluster");
        Api::namespaced_with(self.client.clone(), &self.name, &ApiResource::from_gvk(&kind))
    }

    /// A third of real times, so that a scenario takes seconds; with a real Ceph, which has its
    /// own, mostly as they are shipped.
    fn config(&self) -> String {
        let path = |name: &str| self.dir.join(name).display().to_string();
        let own = env!("CARGO_BIN_EXE_nvmeof-recoverer");
        let (ceph, label_tool, times) = match &self.ceph {
            None => (
                format!(r#"(program: "{}", deadline: "5s")"#, path("bin/ceph")),
                path("bin/ceph-bluestore-tool"),
                format!(
                    r#"look_every: "750ms", policy: (automatic: true, lease_silent: "6s", storm_silent: "4s",
        view_fresh: "8s", round_gap: "500ms", cooldown: "5s", fence_patience: "8s", fence_again: "2s", {}),"#,
                    self.policy
                ),
            ),
            Some(_) => (
                format!(
                    r#"(program: "/usr/bin/ceph", options: ["--conf", "{}"], deadline: "30s")"#,
                    path("ceph.conf")
                ),
                "/usr/bin/ceph-bluestore-tool".to_owned(),
                // Its command takes a second, and more where others work as well.
                r#"look_every: "3s", policy: (automatic: true, view_fresh: "60s"),"#.to_owned(),
            ),
        };
        format!(
            r#"(
    namespace: "{}",
    lease: (duration: "3s", margin: "750ms", renew: "400ms"),
    ceph: {ceph},
    fences: "{}",
    node_jobs: (image: "none", program: "{own}", nvme: "{}", label_tool: "{label_tool}", by_id: "{}", deadline: "20s"),
    {times}
)"#,
            self.name,
            path("bin"),
            path("bin/nvme"),
            path("by-id"),
        )
    }

    /// Starts a replica of the controller.
    pub(crate) fn controller(&mut self, identity: &str) {
        let own = env!("CARGO_BIN_EXE_nvmeof-recoverer");
        let config = self.config();
        std::fs::write(self.dir.join("config.ron"), config).unwrap();
        let log = std::fs::File::create(self.dir.join(format!("{identity}.log"))).unwrap();
        let child = Command::new(own)
            .args(["controller", "--identity", identity, "--config"])
            .arg(self.dir.join("config.ron"))
            // With its own rights, as they are shipped.
            .env("KUBECONFIG", self.dir.join("kubeconfig"))
            .env("RUST_LOG", "info,nvmeof_recoverer_controller=debug")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        self.replicas.push((identity.to_owned(), child));
    }

    /// Who leads, as the Lease says.
    pub(crate) async fn leader(&self) -> Option<String> {
        let leases: Api<Lease> = Api::namespaced(self.client.clone(), "kube-node-lease");
        let lease = leases.get_opt("nvmeof-recoverer").await.ok()??;
        lease.spec?.holder_identity.filter(|holder| !holder.is_empty())
    }

    /// How many replicas run.
    pub(crate) fn replicas(&self) -> usize {
        self.replicas.len()
    }

    /// Waits until one of our replicas leads, and says which.
    pub(crate) async fn until_led(&self) -> String {
        let mut patience = Patience::new();
        loop {
            let leader = self.leader().await;
            if let Some(leader) =
                leader.filter(|it| self.replicas.iter().any(|(name, _)| name == it))
            {
                return leader;
            }
            assert!(patience.lasts().await, "nobody leads");
        }
    }

    /// Waits until a leader has seen everything: it has written what it knows of the targets.
    pub(crate) async fn until_looked(&self) {
        let mut patience = Patience::new();
        loop {
            let targets = self.targets().list(&ListParams::default()).await.unwrap();
            let known =
                |it: &FabricTarget| it.status.as_ref().is_some_and(|it| it.fence == "Ready");
            if targets.items.iter().all(known) {
                return;
            }
            assert!(patience.lasts().await, "no leader looks");
        }
    }

    /// Watches for the moment at which a move is written in this phase; whether that came.
    pub(crate) fn watch_for(&self, name: &str, wanted: PhaseKind) -> JoinHandle<bool> {
        let (api, name) = (self.moves(), name.to_owned());
        tokio::spawn(async move {
            let config = watcher::Config::default().fields(&format!("metadata.name={name}"));
            let stream = watcher(api, config).default_backoff().applied_objects();
            let mut stream = std::pin::pin!(stream);
            let seen = async {
                while let Some(found) = stream.next().await {
                    let status = found.ok().and_then(|found| found.status);
                    if status.is_some_and(|status| status.phase == wanted) {
                        return true;
                    }
                }
                false
            };
            let mut patience = Patience::new();
            tokio::select! {
                biased;
                seen = seen => seen,
                () = async { while patience.lasts().await {} } => false,
            }
        })
    }

    /// The phases of a move, as they are written.
    pub(crate) fn follow(&self, name: &str) -> Phases {
        let (api, name) = (self.moves(), name.to_owned());
        let (write, read) = mpsc::unbounded_channel();
        let task = tokio::spawn(async move {
            let config = watcher::Config::default().fields(&format!("metadata.name={name}"));
            let stream = watcher(api, config).default_backoff().applied_objects();
            let mut stream = std::pin::pin!(stream);
            while let Some(found) = stream.next().await {
                let status = found.ok().and_then(|found| found.status);
                if status.is_some_and(|status| write.send(status.phase).is_err()) {
                    return;
                }
            }
        });
        Phases { read, task }
    }

    /// Kills the API server, and starts it again after a while; how long it was away.
    #[expect(clippy::zombie_processes, reason = "it outlives the scenario, and the run ends it")]
    pub(crate) async fn restart_api(&self, away: Duration) -> Duration {
        let dir = PathBuf::from(std::env::var_os("CLUSTER").unwrap());
        let pid = std::fs::read_to_string(dir.join("kube-apiserver.pid")).unwrap();
        let pid = Pid::from_raw(pid.trim().parse().unwrap()).unwrap();
        let started = Instant::now();
        kill_process(pid, Signal::KILL).unwrap();
        tokio::time::sleep(away).await;
        let how = std::fs::read(dir.join("kube-apiserver.json")).unwrap();
        let how: Value = serde_json::from_slice(&how).unwrap();
        let arguments = how["arguments"].as_array().unwrap().iter().map(|it| it.as_str().unwrap());
        let log = std::fs::File::create(dir.join("kube-apiserver-again.log")).unwrap();
        let child = std::process::Command::new(how["program"].as_str().unwrap())
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        std::fs::write(dir.join("kube-apiserver.pid"), child.id().to_string()).unwrap();
        let mut patience = Patience::new();
        while self.moves().list(&ListParams::default()).await.is_err() {
            assert!(patience.lasts().await, "the API server does not come back");
        }
        started.elapsed()
    }

    /// The operator's command: what it printed, or what it complained of.
    pub(crate) async fn command(&self, words: &[&str]) -> Result<String, String> {
        let done = Command::new(env!("CARGO_BIN_EXE_nvmeof-recoverer"))
            .args(words)
            .args(["--namespace", &self.name])
            .output()
            .await
            .unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        if done.status.success() { Ok(text(&done.stdout)) } else { Err(text(&done.stderr)) }
    }

    /// Waits until an object is gone.
    pub(crate) async fn until_gone(&self, name: &str) {
        let mut patience = Patience::new();
        while self.moves().get_opt(name).await.unwrap().is_some() {
            assert!(patience.lasts().await, "{name} stays");
        }
    }

    /// Kills a replica without a word.
    pub(crate) async fn kill(&mut self, identity: &str) {
        let at = self.replicas.iter().position(|(name, _)| name == identity).unwrap();
        self.replicas.remove(at).1.kill().await.unwrap();
    }

    /// Waits until what is shared is so.
    pub(crate) async fn until(&self, what: &str, is: impl Fn(&State) -> bool) {
        let mut patience = Patience::new();
        while !self.fabric.look(&is) {
            assert!(patience.lasts().await, "{}: it is never so: {what}", self.name);
        }
    }

    /// All moves, by their names.
    pub(crate) async fn all_moves(&self) -> Vec<OsdRelocation> {
        self.moves().list(&ListParams::default()).await.map_or_else(|_| Vec::new(), |it| it.items)
    }

    /// The phase of a move; `None` without an answer or a status.
    pub(crate) async fn phase(&self, name: &str) -> Option<PhaseKind> {
        Some(self.moves().get_opt(name).await.ok()??.status?.phase)
    }

    /// Waits until a move is in this phase.
    pub(crate) async fn until_phase(&self, name: &str, wanted: PhaseKind) -> OsdRelocation {
        let mut patience = Patience::new();
        loop {
            let found = self.moves().get_opt(name).await.ok().flatten();
            let phase = found.as_ref().and_then(|it| it.status.as_ref()).map(|it| it.phase);
            if let Some(found) = found.filter(|_| phase == Some(wanted)) {
                return found;
            }
            let over = phase.is_some_and(PhaseKind::is_over);
            assert!(!over && patience.lasts().await, "{name} is {phase:?}, not {wanted}");
        }
    }

    /// The node an OSD's Deployment is bound to.
    pub(crate) async fn bound_to(&self, osd: u32) -> String {
        let deployment = self.deployments().get(&format!("rook-ceph-osd-{osd}")).await.unwrap();
        let pod = deployment.spec.unwrap().template.spec.unwrap();
        pod.node_selector.unwrap()["kubernetes.io/hostname"].clone()
    }

    /// What must be so at the end of every scenario: no device had two writers in turn, nothing
    /// that a move sets is left, and every OSD is up.
    pub(crate) async fn at_rest(&self) {
        self.until("all are up and unmarked", |state| {
            state.osds.values().all(|osd| !osd.noout && now_ms() - osd.beat_ms < 1000)
        })
        .await;
        let torn: Vec<_> = self.fabric.look(|state| {
            let torn = state.devices.values().filter(|device| device.torn());
            torn.map(|device| (device.osd, device.turns.clone())).collect()
        });
        assert_eq!(torn, [], "two daemons wrote to one device in turn");
        for osd in 0..OSDS {
            let name = format!("rook-ceph-osd-{osd}");
            let deployment = self.deployments().get(&name).await.unwrap();
            let labels = deployment.metadata.labels.unwrap();
            assert!(!labels.contains_key("ceph.rook.io/do-not-reconcile"), "{name} is kept off");
        }
    }

    /// Ends everything; nodes go, as the next world counts them.
    pub(crate) async fn end(mut self) {
        for (_, mut child) in self.replicas.drain(..) {
            child.kill().await.unwrap();
        }
        for node in &self.nodes {
            node.remove().await;
        }
        for found in self.all_moves().await {
            let name = found.metadata.name.unwrap();
            let free = json!({ "metadata": { "finalizers": null } });
            let patch = Patch::Merge(&free);
            let _ = self.moves().patch(&name, &PatchParams::default(), &patch).await;
        }
        let namespaces: Api<Namespace> = Api::all(self.client.clone());
        let _ = namespaces.delete(&self.name, &DeleteParams::default()).await;
    }
}

/// How long a scenario waits for something. Counted in naps and not by the clock: a machine that
/// stood still in between did not wait.
pub(crate) struct Patience(u32);

impl Patience {
    const NAP: Duration = Duration::from_millis(50);

    pub(crate) fn new() -> Self {
        Self(60 * 20)
    }

    /// A nap; whether there was time for one.
    pub(crate) async fn lasts(&mut self) -> bool {
        tokio::time::sleep(Self::NAP).await;
        self.0 = self.0.saturating_sub(1);
        self.0 > 0
    }
}

/// A move, as it goes on.
pub(crate) struct Phases {
    read: mpsc::UnboundedReceiver<PhaseKind>,
    task: JoinHandle<()>,
}

impl Drop for Phases {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Phases {
    /// The next one that is written.
    pub(crate) async fn next(&mut self) -> PhaseKind {
        let mut patience = Patience::new();
        loop {
            if let Ok(phase) = tokio::time::timeout(Patience::NAP, self.read.recv()).await {
                return phase.expect("the watch goes on");
            }
            assert!(patience.lasts().await, "nothing is written any more");
        }
    }
}

/// The stand-in under all its names.
fn programs(dir: &Path) {
    let own = Path::new(env!("CARGO_BIN_EXE_nvmeof-recoverer"));
    let stand_in = own.with_file_name("examples").join("stand_in");
    assert!(stand_in.is_file(), "cargo builds examples with tests");
    std::fs::create_dir_all(dir.join("bin")).unwrap();
    for name in ["ceph", "array", "nvme", "ceph-bluestore-tool", "ceph-osd"] {
        std::os::unix::fs::symlink(&stand_in, dir.join("bin").join(name)).unwrap();
    }
}

async fn apply(file: &Path) {
    let done = Command::new("kubectl")
        .args(["apply", "--server-side", "--force-conflicts", "--validate=false", "-f"])
        .arg(file)
        .output()
        .await
        .expect("kubectl is installed");
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
}

/// What is there already is the same. Not applied: this server's own types do not know all of it.
async fn create(file: &Path) {
    let done = Command::new("kubectl")
        .args(["create", "--validate=false", "-f"])
        .arg(file)
        .output()
        .await
        .expect("kubectl is installed");
    let said = String::from_utf8_lossy(&done.stderr).into_owned();
    assert!(done.status.success() || said.contains("AlreadyExists"), "{said}");
}

/// Our definitions, and Rook's own.
async fn install(client: &Client) {
    let definitions: Api<CustomResourceDefinition> = Api::all(client.clone());
    let top = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    for file in [
        "packaging/kubernetes/crds/fabrictargets.yaml",
        "packaging/kubernetes/crds/osdrelocations.yaml",
        "tests/cluster/cephclusters.yaml",
    ] {
        create(&top.join(file)).await;
    }
    let mut patience = Patience::new();
    for kind in OURS_AND_ROOKS {
        loop {
            let definition = definitions.get(kind).await.unwrap();
            let conditions = definition.status.and_then(|status| status.conditions);
            let mut conditions = conditions.into_iter().flatten();
            if conditions.any(|it| it.type_ == "Established" && it.status == "True") {
                break;
            }
            assert!(patience.lasts().await, "{kind} is not established");
        }
    }
}

const OURS_AND_ROOKS: [&str; 3] =
    ["fabrictargets.nvme-heal.io", "osdrelocations.nvme-heal.io", "cephclusters.ceph.rook.io"];
