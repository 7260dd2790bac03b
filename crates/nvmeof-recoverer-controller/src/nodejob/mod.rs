//! One Job on the new node: connect the device, and read its label.
//!
//! ```text
//!   controller ── Job `osd-3-7-connect`, bound to the node ──► nvmeof-recoverer node connect …
//!        ▲                                                        │ nvme connect, each portal
//!        │                                                        │ /dev/disk/by-id/nvme-uuid.… appears
//!        └── termination message of its pod: {"label":{…}} ◄──────┘ ceph-bluestore-tool show-label
//! ```
//!
//! The name says which move it belongs to, so a controller that dies meanwhile finds its successor
//! asking the same question. The answer is what lies on the device, not that something appeared: a
//! portal that leads to another server would otherwise be found out by destroying an OSD. The Job
//! is bound by name and not by a selector: no scheduler has to agree, and no other node can take
//! it.
//!
//! The price: the pod is privileged. It is the only one that is, it lives for seconds, and no
//! argument of it comes from anywhere but the `FabricTarget`.

pub mod node;

use heal_types::cluster::{NodeName, RelocationId};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use nvmeof_recoverer::plan::view::{Device, OsdIdentity};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::config::NodeJobs;
use crate::crd::{AttachableNode, FabricTargetSpec};

/// The label that says which move a Job belongs to.
pub const RELOCATION: &str = "nvme-heal.io/relocation";
const CONTAINER: &str = "connect";

/// What a Job says at its end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Said {
    /// What lies on the device.
    Label(OsdIdentity),
    /// It did not come that far.
    Again(String),
}

/// Where a Job stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// It has not said anything yet.
    Running,
    /// It is over, and said this.
    Over(Said),
}

/// The name of a move's Job.
#[must_use]
pub fn name(relocation: &RelocationId) -> String {
    format!("{relocation}-connect")
}

/// The Job that connects `device` on `node`.
///
/// # Errors
/// When it is none that Kubernetes' types can say, which a test excludes.
pub fn connect(
    relocation: &RelocationId,
    device: &Device,
    node: &AttachableNode,
    target: &FabricTargetSpec,
    how: &NodeJobs,
) -> Result<Job, serde_json::Error> {
    let mut arguments = vec!["node".to_owned(), "connect".to_owned()];
    let mut say = |option: &str, value: String| arguments.extend([format!("--{option}"), value]);
    say("transport", target.transport.word().to_owned());
    for portal in &target.portals {
        say("portal", std::net::SocketAddr::new(portal.address, portal.port).to_string());
    }
    say("subsystem", device.subsystem.to_string());
    say("namespace", device.namespace.to_string());
    say("host-nqn", node.host_nqn.to_string());
    say("host-id", node.host_id.clone());
    for (option, path) in
        [("nvme", &how.nvme), ("label-tool", &how.label_tool), ("by-id", &how.by_id)]
    {
        say(option, path.display().to_string());
    }
    let seconds = how.deadline.as_secs();
    serde_json::from_value(json!({
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": { "name": name(relocation), "labels": { RELOCATION: relocation } },
        "spec": {
            "backoffLimit": 0,
            "activeDeadlineSeconds": seconds,
            "ttlSecondsAfterFinished": 86_400,
            "template": {
                "metadata": { "labels": { RELOCATION: relocation } },
                "spec": {
                    "nodeName": node.name,
                    "restartPolicy": "Never",
                    "hostNetwork": true,
                    "automountServiceAccountToken": false,
                    "tolerations": [{ "operator": "Exists" }],
                    "containers": [{
                        "name": CONTAINER,
                        "image": how.image,
                        "command": [how.program],
                        "args": arguments,
                        // The image's own user may not connect anything.
                        "securityContext": { "privileged": true, "runAsUser": 0 },
                        "terminationMessagePolicy": "File",
                        "volumeMounts": [
                            { "name": "dev", "mountPath": "/dev" },
                            { "name": "udev", "mountPath": "/run/udev", "readOnly": true },
                        ],
                    }],
                    "volumes": [
                        { "name": "dev", "hostPath": { "path": "/dev" } },
                        { "name": "udev", "hostPath": { "path": "/run/udev" } },
                    ],
                },
            },
        },
    }))
}

/// Where a Job stands, from itself and its pods.
#[must_use]
pub fn progress(job: &Job, pods: &[Pod]) -> Progress {
    if let Some(said) = pods.iter().find_map(message) {
        return Progress::Over(said);
    }
    let conditions = job.status.as_ref().and_then(|status| status.conditions.as_ref());
    let ended = conditions.into_iter().flatten().find(|condition| {
        condition.status == "True" && matches!(condition.type_.as_str(), "Failed" | "Complete")
    });
    ended.map_or(Progress::Running, |condition| {
        let why = condition.message.clone().unwrap_or_else(|| condition.type_.clone());
        Progress::Over(Said::Again(format!("the Job ended without an answer: {why}")))
    })
}

fn message(pod: &Pod) -> Option<Said> {
    let containers = pod.status.as_ref()?.container_statuses.as_ref()?;
    let ours = containers.iter().find(|it| it.name == CONTAINER)?;
    let ended = ours.state.as_ref()?.terminated.as_ref()?;
    let message = ended.message.as_deref().unwrap_or_default();
    Some(serde_json::from_str(message).unwrap_or_else(|_| {
        let code = ended.exit_code;
        Said::Again(format!("the Job ended with {code} and nothing that is understood"))
    }))
}

/// The node's entry in a target.
#[must_use]
pub fn entry<'a>(target: &'a FabricTargetSpec, node: &NodeName) -> Option<&'a AttachableNode> {
    target.nodes.iter().find(|it| it.name == *node)
}
