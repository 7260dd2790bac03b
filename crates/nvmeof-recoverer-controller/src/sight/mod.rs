//! What a controller sees: the watches, the mons' last word, and which fences answer.
//!
//! What is watched is only ever looked at whole: until every watch has seen its list, nothing is
//! seen.

mod watch;

use heal_types::Moment;
use heal_types::cluster::{NodeName, OsdId, RelocationId};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::{Api, Patch, PatchParams};
use kube::runtime::watcher;
use kube::{Client, ResourceExt as _};
use nvmeof_recoverer::plan::relocate::Relocation;
use nvmeof_recoverer::plan::view::{Device, FenceHealth};
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

use crate::ceph::{Ceph, MonReport, chain};
use crate::clock;
use crate::config::Config;
use crate::crd::{
    self, Condition, FINALIZER, FabricTarget, FabricTargetSpec, FabricTargetStatus, MANAGER,
    OsdRelocation, Rebalance, Stamp,
};
use crate::fence::Means;
use crate::lease::{Echoes, Leads};
use crate::rook::{self, OsdDeployment};
use crate::world::{NodeFacts, PodFacts, Seen, TargetFacts};
use watch::{Table, follow};

/// How often a fence is asked whether it answers.
const ASK_FENCES: Duration = Duration::from_secs(10);
/// How often it is seen whether there is a target that was not asked.
const LOOK_FOR_TARGETS: Duration = Duration::from_millis(500);

/// A node's Lease, or ours.
#[derive(Debug, Clone)]
struct LeaseRow {
    renewed: Option<MicroTime>,
    /// When we saw that it changed.
    changed: Moment,
    /// When we asked for the renewal that it shows, if it is ours.
    echo: Option<Moment>,
}

/// A move's object.
#[derive(Debug, Clone)]
struct MoveRow {
    id: Option<RelocationId>,
    osd: OsdId,
    /// The move, if the object does not contradict itself.
    read: Option<Relocation>,
    /// Whether nothing is left to do with the object either.
    over: bool,
}

#[derive(Debug, Clone)]
struct TargetRow {
    name: String,
    spec: FabricTargetSpec,
    status: Option<FabricTargetStatus>,
    generation: i64,
}

/// The watches, and what is asked besides.
#[derive(Debug)]
pub struct Sight {
    nodes: Arc<Table<NodeFacts>>,
    leases: Arc<Table<LeaseRow>>,
    pods: Arc<Table<PodFacts>>,
    deployments: Arc<Table<OsdDeployment>>,
    targets: Arc<Table<TargetRow>>,
    moves: Arc<Table<MoveRow>>,
    mons: Arc<Mutex<Option<(Moment, MonReport)>>>,
    fences: Arc<Mutex<Fences>>,
    api: Api<FabricTarget>,
    lease: String,
    /// They end with us.
    tasks: JoinSet<()>,
}

/// When each target's fence was asked last, and whether it answered.
type Fences = BTreeMap<String, (Moment, FenceHealth)>;

fn locked<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    // Whoever panicked while holding it changed nothing by halves.
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Asks the fences that were not asked lately, all at once.
async fn ask_fences(fences: &Mutex<Fences>, targets: &Table<TargetRow>, means: &Means) {
    let rows = targets.look(|rows| rows.values().cloned().collect::<Vec<_>>());
    let rows = rows.unwrap_or_default();
    let now = clock::now().mono;
    let due: Vec<TargetRow> = {
        let mut known = locked(fences);
        known.retain(|name, _| rows.iter().any(|row| row.name == *name));
        let lately = |row: &TargetRow| known.get(&row.name).map(|(asked, _)| now.since(*asked));
        rows.iter().filter(|row| lately(row).is_none_or(|it| it >= ASK_FENCES)).cloned().collect()
    };
    let asked = due.into_iter().map(|row| async move {
        let fence = means.of(&row.spec);
        (row.name, fence.health().await)
    });
    for (name, health) in futures_util::future::join_all(asked).await {
        locked(fences).insert(name, (now, health));
    }
}

impl Sight {
    /// Begins to watch. `wake` is told of what is ours; the rest is looked at now and then.
    #[must_use]
    pub fn open(client: &Client, config: &Config, echoes: Arc<Echoes>, wake: Arc<Notify>) -> Self {
        let (nodes, leases, pods) = (Arc::default(), Arc::default(), Arc::default());
        let (deployments, targets, moves) = (Arc::default(), Arc::default(), Arc::default());
        let quiet = Arc::new(Notify::new());
        let all = watcher::Config::default;
        let namespace = config.namespace.as_str();
        let mut tasks = JoinSet::new();
        tasks.spawn(follow(
            Api::all(client.clone()),
            all(),
            Arc::clone(&nodes),
            Arc::clone(&quiet),
            |node: &Node, _, _| Some(NodeFacts::read(node)),
        ));
        tasks.spawn(follow(
            Api::namespaced(client.clone(), &config.lease.namespace),
            all(),
            Arc::clone(&leases),
            Arc::clone(&quiet),
            move |lease: &Lease, before, now| Some(lease_row(lease, before, now, &echoes)),
        ));
        tasks.spawn(follow(
            Api::all(client.clone()),
            all().fields("status.phase!=Succeeded,status.phase!=Failed"),
            Arc::clone(&pods),
            Arc::clone(&quiet),
            |pod: &Pod, _, _| pod_facts(pod),
        ));
        tasks.spawn(follow(
            Api::namespaced(client.clone(), namespace),
            all().labels(rook::OSDS),
            Arc::clone(&deployments),
            quiet,
            |deployment: &Deployment, _, _| match OsdDeployment::read(deployment) {
                Ok(read) => Some(read),
                Err(why) => {
                    let name = deployment.name_any();
                    tracing::debug!(deployment = name, %why, "a Deployment is left alone");
                    None
                }
            },
        ));
        let ours: Api<FabricTarget> = Api::namespaced(client.clone(), namespace);
        tasks.spawn(follow(
            Api::namespaced(client.clone(), namespace),
            all(),
            Arc::clone(&targets),
            Arc::clone(&wake),
            |target: &FabricTarget, _, _| Some(target_row(target)),
        ));
        tasks.spawn(follow(
            Api::namespaced(client.clone(), namespace),
            all(),
            Arc::clone(&moves),
            wake,
            |relocation: &OsdRelocation, _, _| Some(move_row(relocation)),
        ));
        let lease = format!("{}/{}", config.lease.namespace, config.lease.name);
        Self {
            nodes,
            leases,
            pods,
            deployments,
            targets,
            moves,
            mons: Arc::default(),
            fences: Arc::default(),
            api: ours,
            lease,
            tasks,
        }
    }

    /// Asks the mons again and again, while we lead. On a task of its own: whoever waits for Ceph
    /// must not keep moves waiting that do not need it.
    pub fn follow_mons(&mut self, ceph: Arc<dyn Ceph>, every: Duration, leads: Leads) {
        let mons = Arc::clone(&self.mons);
        self.tasks.spawn(async move {
            let mut before = None;
            let mut tick = tokio::time::interval(every);
            tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                tick.tick().await;
                if !leads.now() {
                    continue;
                }
                let asked = clock::now().mono;
                let trouble = match ceph.look().await {
                    Ok(report) => {
                        *locked(&mons) = Some((asked, report));
                        None
                    }
                    Err(error) => Some(chain(&error)),
                };
                if let Some(error) = trouble.as_ref().filter(|_| trouble != before) {
                    tracing::warn!(error, "the mons cannot be asked");
                }
                before = trouble;
            }
        });
    }

    /// Asks every target's fence again and again whether it answers, while we lead.
    pub fn follow_fences(&mut self, means: Means, leads: Leads) {
        let (fences, targets) = (Arc::clone(&self.fences), Arc::clone(&self.targets));
        self.tasks.spawn(async move {
            let mut tick = tokio::time::interval(LOOK_FOR_TARGETS);
            tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                tick.tick().await;
                if leads.now() {
                    ask_fences(&fences, &targets, &means).await;
                }
            }
        });
    }

    /// Everything, once every watch has seen its whole list.
    #[must_use]
    pub fn seen(&self) -> Option<Seen> {
        let named = |name: &String| NodeName::new(name.clone()).ok();
        let mut seen = Seen { mons: locked(&self.mons).clone(), ..Seen::default() };
        seen.nodes = self.nodes.look(|rows| {
            rows.iter().filter_map(|(name, row)| Some((named(name)?, row.clone()))).collect()
        })?;
        self.leases.look(|rows| {
            for (name, row) in rows {
                let name = name.rsplit('/').next().unwrap_or_default().to_owned();
                seen.leases.extend(named(&name).map(|name| (name, row.changed)));
            }
            seen.api = rows.get(&self.lease).and_then(|row| row.echo);
        })?;
        seen.pods = self.pods.look(|rows| rows.values().cloned().collect())?;
        seen.deployments = self
            .deployments
            .look(|rows| rows.values().map(|row| (row.id, row.clone())).collect())?;
        let fences = locked(&self.fences).clone();
        seen.targets = self.targets.look(|rows| {
            let facts = |row: &TargetRow| {
                let fence = fences.get(&row.name).map_or(FenceHealth::Silent, |(_, it)| *it);
                (row.name.clone(), TargetFacts { spec: row.spec.clone(), fence })
            };
            rows.values().map(facts).collect()
        })?;
        self.moves.look(|rows| {
            seen.relocations = rows.values().filter_map(|row| row.read.clone()).collect();
            let broken = rows.values().filter(|row| row.read.is_none());
            seen.quarantined = broken.map(|row| row.osd).collect();
        })?;
        Some(seen)
    }

    /// Moves whose objects are not done with.
    #[must_use]
    pub fn open_moves(&self) -> Vec<RelocationId> {
        let open = |rows: &BTreeMap<String, MoveRow>| {
            rows.values().filter(|row| !row.over).filter_map(|row| row.id.clone()).collect()
        };
        self.moves.look(open).unwrap_or_default()
    }

    /// The target that lists a device.
    #[must_use]
    pub fn target_of(&self, device: &Device) -> Option<FabricTargetSpec> {
        self.targets.look(|rows| {
            let lists = |row: &&TargetRow| {
                row.spec.devices.iter().any(|it| it.subsystem == device.subsystem)
            };
            rows.values().find(lists).map(|row| row.spec.clone())
        })?
    }

    /// Writes into the targets' status what changed of it.
    pub async fn publish(&self, rebalance: Option<&Rebalance>) {
        let rows = self.targets.look(|rows| rows.values().cloned().collect::<Vec<_>>());
        for row in rows.unwrap_or_default() {
            let health = locked(&self.fences).get(&row.name).map(|(_, health)| *health);
            let Some(health) = health else { continue };
            let found = self.found(&row.spec);
            let ours = |osd: OsdId| row.spec.devices.iter().any(|it| it.osd == Some(osd));
            let rebalance = rebalance.filter(|it| ours(it.osd)).cloned();
            let status = target_status(&row, health, found, rebalance);
            if row.status.as_ref() == Some(&status) {
                continue;
            }
            let patch = json!({
                "apiVersion": "nvme-heal.io/v1alpha1",
                "kind": "FabricTarget",
                "status": status,
            });
            let params = PatchParams::apply(MANAGER).force();
            let written = self.api.patch_status(&row.name, &params, &Patch::Apply(&patch)).await;
            if let Err(error) = written {
                tracing::debug!(target = row.name, %error, "its status cannot be written");
            }
        }
    }

    /// How many of a target's devices hold an OSD that Rook runs.
    fn found(&self, spec: &FabricTargetSpec) -> u32 {
        let found = self.deployments.look(|rows| {
            let runs = |osd: &OsdId| rows.values().any(|row| row.id == *osd);
            spec.devices.iter().filter_map(|device| device.osd).filter(runs).count()
        });
        u32::try_from(found.unwrap_or_default()).unwrap_or(u32::MAX)
    }
}

fn lease_row(lease: &Lease, before: Option<&LeaseRow>, now: Moment, echoes: &Echoes) -> LeaseRow {
    let spec = lease.spec.clone().unwrap_or_default();
    let renewed = spec.renew_time.clone();
    let same = before.filter(|row| row.renewed == renewed);
    LeaseRow { changed: same.map_or(now, |row| row.changed), echo: echoes.asked(&spec), renewed }
}

fn pod_facts(pod: &Pod) -> Option<PodFacts> {
    let spec = pod.spec.as_ref()?;
    Some(PodFacts {
        node: NodeName::new(spec.node_name.clone()?).ok()?,
        requests: rook::requests(&spec.containers),
        osd: rook::osd_of(pod.metadata.labels.as_ref()),
    })
}

fn target_row(target: &FabricTarget) -> TargetRow {
    TargetRow {
        name: target.name_any(),
        spec: target.spec.clone(),
        status: target.status.clone(),
        generation: target.metadata.generation.unwrap_or_default(),
    }
}

fn move_row(object: &OsdRelocation) -> MoveRow {
    let read = crd::read(object);
    if let Err(why) = &read {
        tracing::error!(relocation = object.name_any(), %why, "nobody acts on this move");
    }
    let read = read.ok();
    let kept = object.finalizers().iter().any(|it| it == FINALIZER);
    let leaving = object.metadata.deletion_timestamp.is_some() && kept;
    MoveRow {
        id: RelocationId::new(object.name_any()).ok(),
        osd: object.spec.order.osd.id,
        over: read.as_ref().is_some_and(|it| it.phase.kind().is_over()) && !leaving,
        read,
    }
}

fn target_status(
    row: &TargetRow,
    health: FenceHealth,
    found: u32,
    rebalance: Option<Rebalance>,
) -> FabricTargetStatus {
    let (word, said) = match health {
        FenceHealth::Ready => ("Ready", "its fence answers"),
        FenceHealth::Silent => ("Silent", "its fence does not answer"),
        FenceHealth::Missing => ("Missing", "it has no fence: each move needs a person's word"),
    };
    let ready = if health == FenceHealth::Ready { "True" } else { "False" };
    let known =
        row.status.as_ref().and_then(|it| it.conditions.iter().find(|it| it.type_ == "Ready"));
    let since = known.filter(|it| it.status == ready).map(|it| it.last_transition_time);
    FabricTargetStatus {
        observed_generation: row.generation,
        devices: found,
        fence: word.to_owned(),
        conditions: vec![Condition {
            type_: "Ready".to_owned(),
            status: ready.to_owned(),
            last_transition_time: since.unwrap_or(Stamp(clock::now().wall)),
            reason: format!("Fence{word}"),
            message: said.to_owned(),
        }],
        rebalance,
    }
}
