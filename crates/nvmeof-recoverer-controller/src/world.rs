//! A [`ClusterView`] from objects and the mons' word. Pure: the plan looks at what this makes.
//!
//! ```text
//!   FabricTarget ── device ─┐
//!   Deployment ── node, token, mark ─┼─► OsdView ── only where all of them name the same data
//!   mons ── uuid, up, host ─┘
//! ```
//!
//! An OSD is in the view only if a `FabricTarget` lists its device, a Deployment of Rook's runs it
//! and the mons know it by the same UUID. A number alone is given again after a purge, and moving
//! by number would start somebody else's data. What does not fit together is left out, with a
//! reason that status and logs show; what is merely not known is `Unknown`, and the plan does
//! nothing about it.

use heal_types::cluster::{DomainName, Generation, NodeName, OsdId};
use heal_types::{Moment, Now, Observed, UnknownWhy, WallTime};
use k8s_openapi::api::core::v1::Node;
use nvmeof_recoverer::plan::Policy;
use nvmeof_recoverer::plan::relocate::{Cause, PhaseKind, Relocation};
use nvmeof_recoverer::plan::view::{
    ClusterView, Device, FenceHealth, MonView, Moving, NodeView, OsdIdentity, OsdView, Resources,
    TargetView,
};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use crate::ceph::{MonReport, OsdReport};
use crate::crd::{FabricTargetSpec, TargetDevice};
use crate::rook::{self, OsdDeployment};

/// The taint by which a person says that a node is off.
const OUT_OF_SERVICE: &str = "node.kubernetes.io/out-of-service";
const HOUR: Duration = Duration::from_secs(3600);

/// A node, as its object shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeFacts {
    /// Its `Ready` condition; `None` where there is none.
    pub ready: Option<bool>,
    /// Whether it carries the out-of-service taint.
    pub out_of_service: bool,
    /// Whether new pods may come to it.
    pub schedulable: bool,
    /// What it can give.
    pub allocatable: Resources,
}

impl NodeFacts {
    /// Reads a node.
    #[must_use]
    pub fn read(node: &Node) -> Self {
        let spec = node.spec.as_ref();
        let status = node.status.as_ref();
        let conditions = status.and_then(|status| status.conditions.as_ref());
        let ready = conditions.into_iter().flatten().find(|it| it.type_ == "Ready");
        let taints = spec.and_then(|spec| spec.taints.as_ref());
        Self {
            ready: ready.map(|it| it.status == "True"),
            out_of_service: taints.into_iter().flatten().any(|it| it.key == OUT_OF_SERVICE),
            schedulable: !spec.and_then(|spec| spec.unschedulable).unwrap_or_default(),
            allocatable: status
                .and_then(|status| status.allocatable.as_ref())
                .map(rook::resources)
                .unwrap_or_default(),
        }
    }
}

/// What a pod takes on its node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodFacts {
    /// Where it is.
    pub node: NodeName,
    /// What it requests.
    pub requests: Resources,
    /// The OSD it is, if it is one.
    pub osd: Option<OsdId>,
}

/// A target, and whether its fence answers.
#[derive(Debug, Clone, PartialEq)]
pub struct TargetFacts {
    /// What a person wrote.
    pub spec: FabricTargetSpec,
    /// Its fence, as it was asked last.
    pub fence: FenceHealth,
}

/// Everything that was seen, and when.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    /// The nodes.
    pub nodes: BTreeMap<NodeName, NodeFacts>,
    /// When we saw each node's lease change.
    pub leases: BTreeMap<NodeName, Moment>,
    /// When what the API server shows was certainly fresh.
    pub api: Option<Moment>,
    /// All pods that are not over.
    pub pods: Vec<PodFacts>,
    /// The OSDs' Deployments.
    pub deployments: BTreeMap<OsdId, OsdDeployment>,
    /// The targets, by the names of their objects.
    pub targets: BTreeMap<String, TargetFacts>,
    /// The moves.
    pub relocations: Vec<Relocation>,
    /// OSDs with a move whose object contradicts itself: nobody touches them.
    pub quarantined: BTreeSet<OsdId>,
    /// What the mons said, and when they were asked.
    pub mons: Option<(Moment, MonReport)>,
}

/// Why a device that a target lists is not in the view.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LeftOut {
    /// No OSD is named for it.
    NoOsd,
    /// Rook has no Deployment for its OSD, or one that cannot be moved.
    NoDeployment(OsdId),
    /// Rook moves it itself.
    Portable(OsdId),
    /// The mons do not know its OSD.
    NotInCeph(OsdId),
    /// The mons and Rook know other data by that number.
    OtherData(OsdId),
    /// Two devices are said to be the same OSD.
    Twice(OsdId),
    /// An object of a move of it contradicts itself.
    Quarantined(OsdId),
}

impl fmt::Display for LeftOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoOsd => f.write_str("no OSD is named for it"),
            Self::NoDeployment(osd) => write!(f, "Rook has no Deployment of {osd} on a node"),
            Self::Portable(osd) => write!(f, "{osd} is on a volume claim: Rook moves it"),
            Self::NotInCeph(osd) => write!(f, "the mons do not know {osd}"),
            Self::OtherData(osd) => write!(f, "the mons know other data as {osd}"),
            Self::Twice(osd) => write!(f, "{osd} is named twice"),
            Self::Quarantined(osd) => {
                write!(f, "a move of {osd} contradicts itself: somebody has to look at its object")
            }
        }
    }
}

/// The CRUSH bucket that stands for a target.
#[must_use]
pub fn domain(name: &str, spec: &FabricTargetSpec) -> Option<DomainName> {
    spec.crush_host.clone().or_else(|| DomainName::new(format!("fabric-{name}")).ok())
}

/// The view at this moment, and the devices that are not in it.
#[must_use]
pub fn view(seen: &Seen, policy: &Policy, now: Now) -> (ClusterView, Vec<(Device, LeftOut)>) {
    let mut osds: BTreeMap<OsdId, OsdView> = BTreeMap::new();
    let mut left_out = Vec::new();
    let mut targets = BTreeMap::new();
    for (name, target) in &seen.targets {
        let Some(domain) = domain(name, &target.spec) else { continue };
        for listed in &target.spec.devices {
            let device =
                Device { subsystem: listed.subsystem.clone(), namespace: listed.namespace };
            match osd(seen, listed, &device, &domain, now.wall) {
                Ok(osd) if osds.contains_key(&osd.identity.id) => {
                    left_out.push((device, LeftOut::Twice(osd.identity.id)));
                }
                Ok(osd) => {
                    osds.insert(osd.identity.id, osd);
                }
                Err(why) => left_out.push((device, why)),
            }
        }
        let attachable = target.spec.nodes.iter().map(|node| node.name.clone()).collect();
        let reach = BTreeMap::new();
        targets.insert(domain, TargetView { attachable, fence: target.fence, reach });
    }
    let mons =
        seen.mons.as_ref().map_or(Observed::Unknown(UnknownWhy::NotReadYet), |(at, mons)| {
            Observed::Known(MonView { seen: *at, quorum: mons.quorum, all_clean: mons.all_clean })
        });
    let view = ClusterView {
        now,
        api_seen: seen.api.map_or(Observed::Unknown(UnknownWhy::NotReadYet), Observed::Known),
        mons,
        nodes: nodes(seen, policy, &osds),
        targets,
        osds,
        pools: seen.mons.as_ref().map_or_else(Vec::new, |(_, mons)| mons.pools.clone()),
        recent_moves: recent(seen, now.wall),
    };
    (view, left_out)
}

fn osd(
    seen: &Seen,
    listed: &TargetDevice,
    device: &Device,
    domain: &DomainName,
    now: WallTime,
) -> Result<OsdView, LeftOut> {
    let id = listed.osd.ok_or(LeftOut::NoOsd)?;
    if seen.quarantined.contains(&id) {
        return Err(LeftOut::Quarantined(id));
    }
    let deployment = seen.deployments.get(&id).ok_or(LeftOut::NoDeployment(id))?;
    if deployment.portable {
        return Err(LeftOut::Portable(id));
    }
    let (_, mons) = seen.mons.as_ref().ok_or(LeftOut::NotInCeph(id))?;
    let known = mons.osds.get(&id).ok_or(LeftOut::NotInCeph(id))?;
    if known.fsid != deployment.fsid {
        return Err(LeftOut::OtherData(id));
    }
    let identity = OsdIdentity { cluster: mons.fsid, id, fsid: known.fsid };
    let mut view = plain(known, deployment, identity, device, domain);
    with_moves(&mut view, &seen.relocations, known.noout, now);
    Ok(view)
}

/// The OSD as Rook and the mons know it.
fn plain(
    known: &OsdReport,
    deployment: &OsdDeployment,
    identity: OsdIdentity,
    device: &Device,
    domain: &DomainName,
) -> OsdView {
    let unknown = UnknownWhy::NotReadYet;
    OsdView {
        identity,
        device: device.clone(),
        domain: domain.clone(),
        node: Observed::Known(deployment.node.clone()),
        up: Observed::Known(known.up),
        started_on: known.host.clone().map_or(Observed::Unknown(unknown), Observed::Known),
        requests: deployment.requests,
        weight: known.weight,
        holders: BTreeSet::new(),
        generation: deployment.generation,
        moved: deployment.moved,
        tried: None,
        moving: None,
        seen_here: Observed::Unknown(unknown),
        seen_elsewhere: Observed::Unknown(unknown),
        marked: deployment.mark,
    }
}

/// What its moves left or are about to do. Their objects outlive what Rook does to its Deployment.
fn with_moves(view: &mut OsdView, moves: &[Relocation], noout: bool, now: WallTime) {
    let ours = moves.iter().filter(|it| it.osd.id == view.identity.id);
    let open = ours.clone().find(|it| !it.phase.kind().is_over());
    view.moving = open.map(|it| Moving { id: it.id.clone(), to: it.to.clone() });
    let Some(last) = ours.max_by_key(|it| it.generation) else { return };
    view.generation = view.generation.max(last.generation);
    view.holders = last.holders_after();
    view.tried = Some(last.since);
    // A command that was late may set `noout` again after its move. Later than that it was a
    // person.
    if noout && view.marked.is_none() && now.since(last.since) < HOUR {
        view.marked = Some(Generation(0));
    }
}

fn nodes(
    seen: &Seen,
    policy: &Policy,
    ours: &BTreeMap<OsdId, OsdView>,
) -> BTreeMap<NodeName, NodeView> {
    let unknown = UnknownWhy::NotReadYet;
    let mut requested: BTreeMap<&NodeName, Resources> = BTreeMap::new();
    for pod in seen.pods.iter().filter(|pod| !pod.osd.is_some_and(|osd| ours.contains_key(&osd))) {
        let sum = requested.entry(&pod.node).or_default();
        *sum = sum.plus(pod.requests);
    }
    let failed = |relocation: &&Relocation| relocation.phase.kind() == PhaseKind::Failed;
    let mut held_down: BTreeMap<&NodeName, WallTime> = BTreeMap::new();
    for relocation in seen.relocations.iter().filter(failed) {
        let until = relocation.since.after(policy.hold_down);
        let known = held_down.entry(&relocation.to).or_insert(until);
        *known = until.max(*known);
    }
    let node = |(name, facts): (&NodeName, &NodeFacts)| {
        let changed = seen.leases.get(name);
        let view = NodeView {
            lease_changed: changed.map_or(Observed::Unknown(unknown), |it| Observed::Known(*it)),
            ready: facts.ready.map_or(Observed::Unknown(unknown), Observed::Known),
            out_of_service: facts.out_of_service,
            schedulable: facts.schedulable,
            allocatable: facts.allocatable,
            requested: requested.get(name).copied().unwrap_or_default(),
            used: Observed::Unknown(unknown),
            io_wait: Observed::Unknown(unknown),
            not_before: held_down.get(name).copied(),
            vetoed: false,
        };
        (name.clone(), view)
    };
    seen.nodes.iter().map(node).collect()
}

/// When moves of the last hour began that nobody asked for.
fn recent(seen: &Seen, now: WallTime) -> Vec<WallTime> {
    let automatic = |it: &&Relocation| matches!(it.cause, Cause::Lost(_));
    let began = seen.relocations.iter().filter(automatic).map(|it| it.began);
    began.filter(|began| now.since(*began) < HOUR).collect()
}

#[cfg(test)]
#[path = "world_tests.rs"]
mod tests;
