//! The operator's command: it reads what the API server shows, and writes objects. It moves
//! nothing.
//!
//! ```text
//!   osd-move ─► the same view and planner as the controller's ─► OsdRelocation ─► the controller moves
//!   plan     ─► … ─► every node's verdict on every OSD, with its score; what the controller proposes
//!   status   ─► targets, moves, and what each is waiting for
//!   adopt    ─► CRUSH's tree against the targets; the only one that asks Ceph, and by default only that
//!   import   ─► a list of targets ─► FabricTargets
//!   fenced, abort ─► a person's word, in the object
//! ```
//!
//! Whoever may create an `OsdRelocation` may move OSDs, and nothing more is needed: no access to
//! Ceph, to targets or to nodes. So the mons are not asked here; what Rook wrote down stands for
//! them, and the controller looks again before anything happens.

mod show;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use heal_types::cluster::{DomainName, NodeName, OsdId, Person, RelocationId};
use kube::api::{
    Api, ApiResource, DynamicObject, GroupVersionKind, ListParams, Patch, PatchParams, PostParams,
};
use kube::{Client, ResourceExt as _};
use nvmeof_recoverer::plan::Policy;
use nvmeof_recoverer::plan::relocate::{Cause, Relocation};
use nvmeof_recoverer::plan::schedule::{self, Score};
use nvmeof_recoverer::plan::view::ClusterView;
use serde_json::json;

use nvmeof_recoverer_controller::ceph::crush::adoption;
use nvmeof_recoverer_controller::ceph::{Ceph16, MonReport, OsdReport};
use nvmeof_recoverer_controller::config::Config;
use nvmeof_recoverer_controller::controller::object;
use nvmeof_recoverer_controller::crd::{self, FabricTarget, OsdRelocation, Word};
use nvmeof_recoverer_controller::sight::Sight;
use nvmeof_recoverer_controller::world::{self, Seen};
use nvmeof_recoverer_controller::{clock, lease};

/// What may be asked of every command.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Where {
    /// The namespace of the CephCluster and of our objects.
    #[arg(long, short, default_value = "rook-ceph")]
    pub(crate) namespace: String,
}

/// Moves OSDs from a node while it is well, or off one that is not.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct OsdMove {
    /// The node they are on.
    pub(crate) from: NodeName,
    /// The node they go to; `auto` lets the planner choose, for each of them.
    pub(crate) to: String,
    /// Only this one.
    #[arg(long)]
    pub(crate) osd: Option<OsdId>,
    /// Say what would be done, and do nothing.
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Who wants it: it stands in the object for ever.
    #[arg(long, env = "USER", default_value = "somebody")]
    pub(crate) by: Person,
    /// Where.
    #[command(flatten)]
    pub(crate) place: Where,
}

/// Says that nodes cannot write any more, to a move that waits for that.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Fenced {
    /// The move.
    pub(crate) relocation: RelocationId,
    /// How you know. It stands in the object for ever.
    #[arg(long)]
    pub(crate) said: String,
    /// A node that is off, or cut from the fabric; may be given more than once.
    #[arg(long = "node", required = true)]
    pub(crate) nodes: Vec<NodeName>,
    /// Who says so.
    #[arg(long, env = "USER", default_value = "somebody")]
    pub(crate) by: Person,
    /// Where.
    #[command(flatten)]
    pub(crate) place: Where,
}

/// Puts OSDs into the CRUSH buckets of their targets.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Adopt {
    /// Do it; otherwise it is only said what would be done.
    #[arg(long)]
    pub(crate) yes: bool,
    /// Also what moves data.
    #[arg(long, requires = "yes")]
    pub(crate) move_data: bool,
    /// Where.
    #[command(flatten)]
    pub(crate) place: Where,
}

/// Makes targets from a list.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Import {
    /// The list, in YAML; without one, what the environment says in `NVMEOF_TARGETS`.
    file: Option<PathBuf>,
    /// Make them; otherwise they are printed.
    #[arg(long)]
    yes: bool,
    /// Where.
    #[command(flatten)]
    place: Where,
}

/// How long the API server may take to show everything.
const PATIENCE: Duration = Duration::from_secs(30);

/// Everything that the API server shows, once.
async fn snapshot(client: &Client, place: &Where) -> anyhow::Result<Seen> {
    let config = Config::of_namespace(&place.namespace);
    let sight = Sight::open(client, &config, Arc::<lease::Echoes>::default(), Arc::default());
    let deadline = tokio::time::Instant::now() + PATIENCE;
    let mut seen = loop {
        if let Some(seen) = sight.seen() {
            break seen;
        }
        ensure!(
            tokio::time::Instant::now() < deadline,
            "the API server does not show everything that is needed: are the definitions \
             installed, and may you read nodes, pods, Deployments and leases?"
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    seen.api = Some(clock::now().mono);
    seen.mons = Some((clock::now().mono, as_rook_says(client, place, &seen).await?));
    Ok(seen)
}

/// What Rook wrote down of the cluster, in the place of what the mons would say.
async fn as_rook_says(client: &Client, place: &Where, seen: &Seen) -> anyhow::Result<MonReport> {
    let kind = ApiResource::from_gvk(&GroupVersionKind::gvk("ceph.rook.io", "v1", "CephCluster"));
    let clusters: Api<DynamicObject> =
        Api::namespaced_with(client.clone(), &place.namespace, &kind);
    let names: BTreeSet<&str> =
        seen.targets.values().map(|target| target.spec.ceph_cluster.name.as_str()).collect();
    let mut names = names.into_iter();
    let (Some(name), None) = (names.next(), names.next()) else {
        bail!("the FabricTargets of namespace {} name not one CephCluster", place.namespace);
    };
    let cluster = clusters.get(name).await.with_context(|| format!("no CephCluster {name}"))?;
    let fsid = cluster.data.pointer("/status/ceph/fsid").and_then(|it| it.as_str());
    let fsid = fsid.context("Rook has not written the cluster's fsid yet")?.parse()?;
    let osds = seen.deployments.values().map(|deployment| {
        let (fsid, host) = (deployment.fsid, Some(deployment.node.clone()));
        // Rook does not say how large they are: alike, so that a node with fewer scores better.
        (deployment.id, OsdReport { fsid, up: true, noout: false, host, weight: 1000 })
    });
    Ok(MonReport { fsid, quorum: true, all_clean: true, osds: osds.collect(), pools: Vec::new() })
}

async fn view(client: &Client, place: &Where) -> anyhow::Result<ClusterView> {
    let seen = snapshot(client, place).await?;
    Ok(world::view(&seen, &Policy::default(), clock::now()).0)
}

/// `osd-move`: what was begun, or would be, in lines for people.
pub(crate) async fn osd_move(client: &Client, wanted: &OsdMove) -> anyhow::Result<Vec<String>> {
    let view = view(client, &wanted.place).await?;
    let moves = moves(&view, wanted)?;
    let api: Api<OsdRelocation> = Api::namespaced(client.clone(), &wanted.place.namespace);
    let mut lines = Vec::new();
    for (relocation, score) in moves {
        let Relocation { id, osd, from, to, .. } = &relocation;
        let line = format!("{} from {from} to {to}, score {score}", osd.id);
        if wanted.dry_run {
            lines.push(format!("would move {line}"));
            continue;
        }
        api.create(&PostParams::default(), &object(&relocation))
            .await
            .with_context(|| format!("{id} cannot be created"))?;
        lines.push(format!("{id}: moves {line}"));
    }
    Ok(lines)
}

fn moves(view: &ClusterView, wanted: &OsdMove) -> anyhow::Result<Vec<(Relocation, Score)>> {
    let policy = Policy::default();
    let on_it = |osd: &OsdId| view.osds[osd].node.is_known_and(|node| *node == wanted.from);
    let named = |osd: &OsdId| wanted.osd.is_none_or(|wanted| wanted == *osd);
    let osds: Vec<OsdId> =
        view.osds.keys().copied().filter(|osd| on_it(osd) && named(osd)).collect();
    ensure!(!osds.is_empty(), "no OSD on a fabric device is on {}", wanted.from);
    if let Some(osd) = osds.iter().find(|osd| view.osds[osd].moving.is_some()) {
        bail!("{osd} is being moved already");
    }
    let mut avoid: BTreeSet<NodeName> = [wanted.from.clone()].into();
    if wanted.to != "auto" {
        let to = NodeName::new(wanted.to.clone())?;
        ensure!(view.nodes.contains_key(&to), "there is no node {to}");
        avoid.extend(view.nodes.keys().filter(|node| **node != to).cloned());
    }
    let placement = schedule::place(view, &policy, &osds, &avoid);
    if let Some((osd, reasons)) = placement.unplaced.first() {
        bail!("{osd} cannot go there: {}", show::reasons(reasons));
    }
    let cause = Cause::Planned { by: wanted.by.clone() };
    let begun = placement.placed.into_iter().map(|placed| {
        let osd = &view.osds[&placed.osd];
        let from = wanted.from.clone();
        (Relocation::new(osd, from, placed.to, cause.clone(), view.now.wall), placed.score)
    });
    Ok(begun.collect())
}

/// `plan`: every node's verdict on every OSD, and what the controller would move, in lines for
/// people.
pub(crate) async fn plan(
    client: &Client,
    place: &Where,
    osd: Option<OsdId>,
) -> anyhow::Result<Vec<String>> {
    let view = view(client, place).await?;
    let wanted = view.osds.keys().copied().filter(|it| osd.is_none_or(|osd| osd == *it));
    let mut lines: Vec<String> = wanted.flat_map(|osd| show::verdicts(&view, osd)).collect();
    if osd.is_none() {
        let targets: Api<FabricTarget> = Api::namespaced(client.clone(), &place.namespace);
        let targets = targets.list(&ListParams::default()).await?;
        lines.extend(show::rebalance(&targets.items));
    }
    Ok(lines)
}

/// `status`: targets and moves, in lines for people.
pub(crate) async fn status(client: &Client, place: &Where) -> anyhow::Result<Vec<String>> {
    let moves: Api<OsdRelocation> = Api::namespaced(client.clone(), &place.namespace);
    let targets: Api<FabricTarget> = Api::namespaced(client.clone(), &place.namespace);
    let all = ListParams::default();
    let (moves, targets) = tokio::try_join!(moves.list(&all), targets.list(&all))
        .context("the objects cannot be read: are the definitions installed?")?;
    Ok(show::status(&targets.items, &moves.items))
}

/// `fenced`: stores a person's word.
pub(crate) async fn fenced(client: &Client, word: &Fenced) -> anyhow::Result<()> {
    let said = Word { who: word.by.clone(), said: word.said.clone(), nodes: word.nodes.clone() };
    tell(client, &word.place, &word.relocation, &json!({ "fenced": said })).await
}

/// `abort`: ends a move, as far as it can be ended.
pub(crate) async fn abort(client: &Client, place: &Where, id: &RelocationId) -> anyhow::Result<()> {
    tell(client, place, id, &json!({ "abort": true })).await
}

/// `adopt`: what has to become so in CRUSH, and with `yes`, makes it so.
pub(crate) async fn adopt(
    client: &Client,
    ceph: &Ceph16,
    how: &Adopt,
) -> anyhow::Result<Vec<String>> {
    let targets: Api<FabricTarget> = Api::namespaced(client.clone(), &how.place.namespace);
    let listed = targets.list(&ListParams::default()).await?;
    let mut wanted: BTreeMap<DomainName, BTreeSet<OsdId>> = BTreeMap::new();
    for target in listed.items {
        let domain = world::domain(&target.name_any(), &target.spec);
        let domain = domain.context("a FabricTarget whose name no bucket can have")?;
        let osds = target.spec.devices.iter().filter_map(|device| device.osd);
        wanted.entry(domain).or_default().extend(osds);
    }
    let steps = adoption(&ceph.crush_tree().await?, &wanted);
    let moving = steps.iter().filter(|step| step.moves_data()).count();
    let mut lines: Vec<String> = steps.iter().map(ToString::to_string).collect();
    if steps.is_empty() {
        lines.push("every OSD lies in the bucket of its target".to_owned());
    } else if !how.yes {
        lines.push(format!("{} steps, {moving} of which move data; nothing is done", steps.len()));
    } else {
        ensure!(
            moving == 0 || how.move_data,
            "{moving} of these steps move data: say --move-data if that is wanted\n{}",
            lines.join("\n")
        );
        for step in &steps {
            ceph.adopt(step).await.with_context(|| format!("stopped before: {step}"))?;
        }
        lines.push(format!("{} steps are done", steps.len()));
    }
    Ok(lines)
}

/// `import`: what was made, or the objects that would be.
pub(crate) async fn import(how: &Import) -> anyhow::Result<Vec<String>> {
    let text = match &how.file {
        Some(file) => std::fs::read_to_string(file)
            .with_context(|| format!("cannot read {}", file.display()))?,
        None => std::env::var("NVMEOF_TARGETS").context("neither a file nor NVMEOF_TARGETS")?,
    };
    let targets = nvmeof_recoverer_controller::import::targets(&text)?;
    let mut lines = Vec::new();
    if !how.yes {
        for mut target in targets {
            target.metadata.namespace = Some(how.place.namespace.clone());
            lines.push(format!("---\n{}", crd::as_yaml(&target)?.trim_end()));
        }
        return Ok(lines);
    }
    let client = Client::try_default().await.context("there is no way to the API server")?;
    let api: Api<FabricTarget> = Api::namespaced(client, &how.place.namespace);
    for target in targets {
        let name = target.name_any();
        lines.push(match api.create(&PostParams::default(), &target).await {
            Ok(_) => format!("{name}: made"),
            Err(kube::Error::Api(status)) if status.code == 409 => {
                format!("{name}: is there already, and left as it is")
            }
            Err(error) => return Err(error).context(format!("{name} cannot be made")),
        });
    }
    Ok(lines)
}

async fn tell(
    client: &Client,
    place: &Where,
    id: &RelocationId,
    what: &serde_json::Value,
) -> anyhow::Result<()> {
    let api: Api<OsdRelocation> = Api::namespaced(client.clone(), &place.namespace);
    let patch = json!({ "spec": { "operator": what } });
    api.patch(id.as_str(), &PatchParams::default(), &Patch::Merge(&patch))
        .await
        .with_context(|| format!("{id} cannot be told"))?;
    Ok(())
}
