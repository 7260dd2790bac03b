//! What Rook's objects say, and the patches they get. Pure: values in, values out.
//!
//! An OSD is moved by changing the Deployment that Rook made for it, and never by making a new one:
//! Rook then keeps the OSD's id, its UUID and the place in the CRUSH map that stands in its
//! arguments. Both objects are Rook's and people's, so they are patched and not written: every
//! patch begins with a `test` of what it was made from, and the API server refuses it when somebody
//! else was faster.
//!
//! | where | what of ours |
//! |---|---|
//! | label `ceph.rook.io/do-not-reconcile` | Rook keeps off while a move is under way |
//! | annotation `nvme-heal.io/mark` | the token of the move that set it |
//! | annotation `nvme-heal.io/generation` | the token of the last move that changed it |
//! | annotation `nvme-heal.io/moved-at` | when that put it elsewhere |

use heal_types::WallTime;
use heal_types::cluster::{Generation, NodeName, OsdFsid, OsdId};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Container;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use nvmeof_recoverer::plan::view::{Device, Resources};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use thiserror::Error;

use crate::crd::Stamp;

/// Rook's mark that it keeps off.
pub const KEEP_OFF: &str = "ceph.rook.io/do-not-reconcile";
/// The node label that Rook's selectors use.
pub const HOSTNAME: &str = "kubernetes.io/hostname";
const MARK: &str = "nvme-heal.io/mark";
const GENERATION: &str = "nvme-heal.io/generation";
const MOVED: &str = "nvme-heal.io/moved-at";
/// Where Rook writes the node's name down.
const NODE_NAME: &str = "ROOK_NODE_NAME";

/// Labels of an OSD's Deployment and pods.
pub const OSDS: &str = "app=rook-ceph-osd";

/// The Deployment of an OSD, as far as a move needs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OsdDeployment {
    /// The OSD.
    pub id: OsdId,
    /// Which data, as Rook knows it.
    pub fsid: OsdFsid,
    /// The node it is bound to.
    pub node: NodeName,
    /// What its pod requests.
    pub requests: Resources,
    /// The last move that changed it.
    pub generation: Generation,
    /// The move that keeps Rook off.
    pub mark: Option<Generation>,
    /// When a move last put it elsewhere.
    pub moved: Option<WallTime>,
    /// Whether it is Rook's to move: on a volume claim.
    pub portable: bool,
}

/// Why a Deployment is none that can be moved.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Unfit {
    /// It is no OSD's.
    #[error("it is not the Deployment of an OSD")]
    NoOsd,
    /// The selector names no node.
    #[error("it is not bound to a node")]
    NoNode,
    /// There is no UUID to know the data by.
    #[error("its container `osd` has no ROOK_OSD_UUID")]
    NoFsid,
    /// It has no resource version: it did not come from an API server.
    #[error("it has no resource version")]
    NoVersion,
}

/// The OSD whose Deployment or pod carries these labels.
#[must_use]
pub fn osd_of(labels: Option<&BTreeMap<String, String>>) -> Option<OsdId> {
    labels?.get("ceph-osd-id")?.parse().ok()
}

impl OsdDeployment {
    /// Reads one.
    ///
    /// # Errors
    /// When it is not the Deployment of an OSD that is bound to a node.
    pub fn read(deployment: &Deployment) -> Result<Self, Unfit> {
        let id = osd_of(deployment.metadata.labels.as_ref()).ok_or(Unfit::NoOsd)?;
        let pod = deployment.spec.as_ref().and_then(|spec| spec.template.spec.as_ref());
        let pod = pod.ok_or(Unfit::NoOsd)?;
        let node = pod.node_selector.as_ref().and_then(|selector| selector.get(HOSTNAME));
        let node = node.and_then(|node| NodeName::new(node.clone()).ok()).ok_or(Unfit::NoNode)?;
        let container = pod.containers.iter().find(|it| it.name == "osd").ok_or(Unfit::NoOsd)?;
        let fsid = environment(container, "ROOK_OSD_UUID").and_then(|fsid| fsid.parse().ok());
        let note = |key: &str| deployment.metadata.annotations.as_ref()?.get(key).cloned();
        let token = |key: &str| note(key).and_then(|it| it.parse().ok()).map(Generation);
        let labels = deployment.metadata.labels.as_ref();
        let kept_off = labels.is_some_and(|labels| labels.contains_key(KEEP_OFF));
        let yes =
            |key: &str| labels.and_then(|labels| labels.get(key)).is_some_and(|it| it == "true");
        Ok(Self {
            id,
            fsid: fsid.ok_or(Unfit::NoFsid)?,
            node,
            requests: requests(&pod.containers),
            generation: token(GENERATION).unwrap_or_default(),
            // Rook is kept off by a person as well: without our mark it is not ours to take off.
            mark: token(MARK).filter(|_| kept_off),
            moved: note(MOVED).and_then(|it| Stamp::try_from(it).ok()).map(|it| it.0),
            portable: yes("portable"),
        })
    }
}

fn environment<'a>(container: &'a Container, name: &str) -> Option<&'a str> {
    container.env.as_ref()?.iter().find(|it| it.name == name)?.value.as_deref()
}

/// What the containers of a pod request together.
#[must_use]
pub fn requests(containers: &[Container]) -> Resources {
    containers.iter().fold(Resources::default(), |sum, container| {
        let asked = container.resources.as_ref().and_then(|it| it.requests.as_ref());
        asked.map_or(sum, |asked| sum.plus(resources(asked)))
    })
}

/// CPU and memory of a list of resources.
#[must_use]
pub fn resources(list: &BTreeMap<String, Quantity>) -> Resources {
    let of = |name: &str| list.get(name).and_then(|it| thousandths(&it.0)).unwrap_or_default();
    Resources { cpu_milli: of("cpu"), memory: of("memory") / 1000 }
}

/// A quantity of Kubernetes in thousandths: `500m`, `2`, `1.5`, `4Gi`, `2e9`.
fn thousandths(text: &str) -> Option<u64> {
    const SUFFIXES: [(&str, u128); 13] = [
        ("Ki", 1 << 10),
        ("Mi", 1 << 20),
        ("Gi", 1 << 30),
        ("Ti", 1 << 40),
        ("Pi", 1 << 50),
        ("Ei", 1 << 60),
        ("k", 1_000),
        ("M", 1_000_000),
        ("G", 1_000_000_000),
        ("T", 1_000_000_000_000),
        ("P", 1_000_000_000_000_000),
        ("E", 1_000_000_000_000_000_000),
        ("", 1),
    ];
    let number = |text: &str, scale: u128| -> Option<u64> {
        let (whole, part) = text.split_once('.').unwrap_or((text, ""));
        let digits: String = part.chars().take(3).collect();
        if !part.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        let whole: u128 = whole.parse().ok()?;
        let part: u128 = format!("{digits:0<3}").parse().ok()?;
        u64::try_from(whole.checked_mul(1000)?.checked_add(part)?.checked_mul(scale)?).ok()
    };
    if let Some(text) = text.strip_suffix('m') {
        return text.parse().ok();
    }
    if let Some((mantissa, exponent)) = text.split_once(['e', 'E'])
        && let Some(scale) = exponent.parse().ok().and_then(|it| 10_u128.checked_pow(it))
    {
        return number(mantissa, scale);
    }
    let (text, scale) = SUFFIXES
        .iter()
        .find_map(|(suffix, scale)| text.strip_suffix(suffix).map(|text| (text, *scale)))?;
    number(text, scale)
}

/// What changes in the Deployment of an OSD.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Change {
    /// Set or take off the mark that keeps Rook off.
    pub mark: Option<Option<Generation>>,
    /// The move that changes more than the mark.
    pub generation: Option<Generation>,
    /// How many pods.
    pub replicas: Option<u32>,
    /// On which node, and since when.
    pub node: Option<(NodeName, WallTime)>,
}

/// A JSON patch that makes the change, and nothing if anybody else has written since.
///
/// # Errors
/// When the Deployment has not the parts that are to be changed.
pub fn change(deployment: &Deployment, change: &Change) -> Result<Value, Unfit> {
    let version = deployment.metadata.resource_version.as_ref().ok_or(Unfit::NoVersion)?;
    let mut patch = vec![test("/metadata/resourceVersion", &json!(version))];
    let mut notes = deployment.metadata.annotations.clone().unwrap_or_default();
    let mut labels = deployment.metadata.labels.clone().unwrap_or_default();
    if let Some(mark) = change.mark {
        match mark {
            Some(mark) => {
                notes.insert(MARK.to_owned(), mark.to_string());
                labels.insert(KEEP_OFF.to_owned(), "true".to_owned());
            }
            None => {
                notes.remove(MARK);
                labels.remove(KEEP_OFF);
            }
        }
    }
    if let Some(generation) = change.generation {
        notes.insert(GENERATION.to_owned(), generation.to_string());
    }
    if let Some(replicas) = change.replicas {
        patch.push(add("/spec/replicas", &json!(replicas)));
    }
    if let Some((node, at)) = &change.node {
        notes.insert(MOVED.to_owned(), String::from(Stamp(*at)));
        patch.extend(bind(deployment, node)?);
    }
    patch.push(add("/metadata/annotations", &json!(notes)));
    patch.push(add("/metadata/labels", &json!(labels)));
    Ok(Value::Array(patch))
}

/// Binds the pod to another node; its arguments, and so its place in CRUSH, stay.
fn bind(deployment: &Deployment, node: &NodeName) -> Result<Vec<Value>, Unfit> {
    let pod = deployment.spec.as_ref().and_then(|spec| spec.template.spec.as_ref());
    let pod = pod.ok_or(Unfit::NoOsd)?;
    let hostname = HOSTNAME.replace('/', "~1");
    let mut patch =
        vec![add(&format!("/spec/template/spec/nodeSelector/{hostname}"), &json!(node))];
    let lists = [("initContainers", pod.init_containers.as_deref().unwrap_or_default())];
    for (list, containers) in lists.into_iter().chain([("containers", &pod.containers[..])]) {
        for (n, container) in containers.iter().enumerate() {
            let variables = container.env.iter().flatten().enumerate();
            for (m, _) in variables.filter(|(_, it)| it.name == NODE_NAME && it.value.is_some()) {
                let path = format!("/spec/template/spec/{list}/{n}/env/{m}/value");
                patch.push(add(&path, &json!(node)));
            }
        }
    }
    Ok(patch)
}

fn test(path: &str, value: &Value) -> Value {
    json!({ "op": "test", "path": path, "value": value })
}

/// Sets what is at `path`, whether or not there was something.
fn add(path: &str, value: &Value) -> Value {
    json!({ "op": "add", "path": path, "value": value })
}

/// A patch of a CephCluster's list of nodes that moves our device to `to`: nothing where the list
/// does not name nodes, or says so already. Every entry that is touched is tested first, so what
/// others write meanwhile is kept or the patch is refused.
#[must_use]
pub fn move_device(
    cluster: &Value,
    device: &Device,
    from: &NodeName,
    to: &NodeName,
) -> Option<Value> {
    let storage = cluster.get("spec")?.get("storage")?;
    if storage.get("useAllNodes").and_then(Value::as_bool).unwrap_or(false) {
        return None;
    }
    let nodes = storage.get("nodes")?.as_array()?;
    let called =
        |node: &Value, name: &NodeName| node.get("name").is_some_and(|it| it == name.as_str());
    let old = nodes.iter().position(|node| called(node, from));
    let new = nodes.iter().position(|node| called(node, to));
    let at = |n: usize| format!("/spec/storage/nodes/{n}");
    let mut patch = Vec::new();
    for (n, name) in [(old, from), (new, to)] {
        patch.extend(n.map(|n| test(&format!("{}/name", at(n)), &json!(name))));
    }
    let listed = old.and_then(|n| {
        let devices = nodes[n].get("devices")?.as_array()?;
        devices.iter().position(|entry| is(entry, device)).map(|m| (n, m, &devices[m]))
    });
    let there = new.is_some_and(|n| {
        let devices = nodes[n].get("devices").and_then(Value::as_array);
        devices.is_some_and(|devices| devices.iter().any(|entry| is(entry, device)))
    });
    let mut moved = Vec::new();
    if let Some((n, m, entry)) = listed {
        let path = format!("{}/devices/{m}", at(n));
        moved.push(test(&path, entry));
        moved.push(json!({ "op": "remove", "path": path }));
        if !there {
            moved.extend(give(nodes, new, to, Some(entry)));
        }
    } else if old.is_some() && new.is_none() {
        // Rook leaves an OSD alone for ever whose node it does not list.
        moved.extend(give(nodes, new, to, None));
    }
    if moved.is_empty() {
        return None;
    }
    patch.extend(moved);
    Some(Value::Array(patch))
}

fn give(nodes: &[Value], new: Option<usize>, to: &NodeName, entry: Option<&Value>) -> Vec<Value> {
    let devices: Vec<&Value> = entry.into_iter().collect();
    let Some(n) = new else {
        let node = json!({ "name": to, "devices": devices });
        return vec![add("/spec/storage/nodes/-", &node)];
    };
    let path = format!("/spec/storage/nodes/{n}/devices");
    if nodes[n].get("devices").is_some_and(Value::is_array) {
        devices.into_iter().map(|entry| add(&format!("{path}/-"), entry)).collect()
    } else {
        vec![add(&path, &json!(devices))]
    }
}

/// Whether an entry names the device, by the link that udev makes from its namespace's id.
fn is(entry: &Value, device: &Device) -> bool {
    let link = link(device);
    ["name", "fullpath"]
        .iter()
        .filter_map(|key| entry.get(key)?.as_str())
        .any(|name| name.rsplit('/').next() == Some(link.as_str()))
}

/// The name of the device below `/dev/disk/by-id`.
#[must_use]
pub fn link(device: &Device) -> String {
    // The kernel's `wwid`: an NGUID is an `eui.` of sixteen bytes.
    format!("nvme-{}", device.namespace.to_string().replacen("nguid.", "eui.", 1))
}

#[cfg(test)]
#[path = "rook_tests.rs"]
mod tests;
