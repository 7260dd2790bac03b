//! Targets from a file or from the environment: one list, as a person keeps it.
//!
//! ```yaml
//! hosts:                                   # who the nodes are on the fabric, once
//!   worker-1: { hostNqn: nqn…, hostId: 0b9c… }
//!   worker-2: { hostNqn: nqn…, hostId: 7d11… }
//! targets:
//!   - name: array-a
//!     clusterName: rook-ceph
//!     ip: 192.0.2.10
//!     attachableNodes: [worker-1, worker-2]
//!     devices:
//!       - { subnqn: nqn…, port: 4420, namespace: uuid.…, osd: 3 }
//!     fence: { nvmet: { host: array-a.example } }
//! ```
//!
//! It becomes `FabricTarget`s, which are the record from then on; the file is read once. Everything
//! is checked before anything is made: a node that nobody knows on the fabric, a host or a device
//! that stands there twice.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use heal_types::cluster::{NodeName, OsdId, TargetName};
use heal_types::{NamespaceId, Nqn};
use serde::Deserialize;
use thiserror::Error;

use crate::crd::{
    AttachableNode, CephClusterRef, FabricTarget, FabricTargetSpec, Fence, Portal, TargetDevice,
    Transport,
};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct List {
    hosts: BTreeMap<NodeName, Host>,
    targets: Vec<Target>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Host {
    host_nqn: Nqn,
    host_id: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Target {
    name: TargetName,
    cluster_name: String,
    ip: IpAddr,
    #[serde(default)]
    transport: Transport,
    attachable_nodes: Vec<NodeName>,
    devices: Vec<Device>,
    #[serde(default)]
    fence: Option<Fence>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Device {
    subnqn: Nqn,
    #[serde(default = "port")]
    port: u16,
    namespace: NamespaceId,
    #[serde(default)]
    osd: Option<OsdId>,
}

fn port() -> u16 {
    4420
}

/// Why a list is not taken.
#[derive(Debug, Error)]
pub enum ImportError {
    /// It is not understood.
    #[error("the list is not understood")]
    Strange(#[source] Box<serde_saphyr::Error>),
    /// A target's node is not among the hosts.
    #[error("{target}: nobody says who {node} is on the fabric")]
    NoHost {
        /// The target.
        target: TargetName,
        /// Its node.
        node: NodeName,
    },
    /// Something that is there once stands there twice.
    #[error("{0} stands there twice")]
    Twice(String),
}

/// The targets of a list.
///
/// # Errors
/// With the first thing that is wrong with it; then none of it is taken.
pub fn targets(text: &str) -> Result<Vec<FabricTarget>, ImportError> {
    let list: List =
        serde_saphyr::from_str(text).map_err(|error| ImportError::Strange(Box::new(error)))?;
    let mut seen = BTreeSet::new();
    let mut once = |what: String| {
        if seen.contains(&what) {
            return Err(ImportError::Twice(what));
        }
        seen.insert(what);
        Ok(())
    };
    for host in list.hosts.values() {
        once(host.host_nqn.to_string())?;
        once(format!("host id {}", host.host_id))?;
    }
    for target in &list.targets {
        once(format!("target {}", target.name))?;
        for device in &target.devices {
            once(device.subnqn.to_string())?;
            once(device.namespace.to_string())?;
            device.osd.map_or(Ok(()), |osd| once(osd.to_string()))?;
        }
    }
    list.targets.iter().map(|target| object(target, &list.hosts)).collect()
}

fn object(target: &Target, hosts: &BTreeMap<NodeName, Host>) -> Result<FabricTarget, ImportError> {
    let node = |name: &NodeName| {
        let host = hosts.get(name).ok_or_else(|| ImportError::NoHost {
            target: target.name.clone(),
            node: name.clone(),
        })?;
        Ok(AttachableNode {
            name: name.clone(),
            host_nqn: host.host_nqn.clone(),
            host_id: host.host_id.clone(),
        })
    };
    let ports: BTreeSet<u16> = target.devices.iter().map(|device| device.port).collect();
    let device = |device: &Device| TargetDevice {
        subsystem: device.subnqn.clone(),
        namespace: device.namespace,
        osd: device.osd,
    };
    let spec = FabricTargetSpec {
        ceph_cluster: CephClusterRef { name: target.cluster_name.clone() },
        crush_host: None,
        transport: target.transport,
        portals: ports.into_iter().map(|port| Portal { address: target.ip, port }).collect(),
        devices: target.devices.iter().map(device).collect(),
        nodes: target.attachable_nodes.iter().map(node).collect::<Result<_, _>>()?,
        fence: target.fence.clone(),
    };
    Ok(FabricTarget::new(target.name.as_str(), spec))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: &str = "
hosts:
  worker-1: { hostNqn: 'nqn.2026-01.org.example:w1', hostId: 0b9c0000-0000-4000-8000-000000000001 }
  worker-2: { hostNqn: 'nqn.2026-01.org.example:w2', hostId: 0b9c0000-0000-4000-8000-000000000002 }
targets:
  - name: array-a
    clusterName: rook-ceph
    ip: 192.0.2.10
    attachableNodes: [worker-1, worker-2]
    devices:
      - { subnqn: 'nqn.2026-01.org.example:osd-3', port: 1152, osd: 3,
          namespace: uuid.6c1e5c4a-8b0e-4f5e-9c7b-2a0c3f1d9e11 }
      - { subnqn: 'nqn.2026-01.org.example:spare', port: 1152,
          namespace: uuid.6c1e5c4a-8b0e-4f5e-9c7b-2a0c3f1d9e12 }
    fence: { nvmet: { host: array-a.example } }
";

    #[test]
    fn a_list_becomes_objects() {
        let found = targets(LIST).unwrap();
        let spec = &found[0].spec;
        assert_eq!(found[0].metadata.name.as_deref(), Some("array-a"));
        assert_eq!((spec.portals.len(), spec.portals[0].port), (1, 1152));
        assert_eq!(spec.nodes[1].host_nqn.as_str(), "nqn.2026-01.org.example:w2");
        assert_eq!(spec.devices.iter().filter(|device| device.osd.is_some()).count(), 1);
        let Some(Fence::Nvmet(fence)) = &spec.fence else { panic!("{:?}", spec.fence) };
        assert_eq!(fence.port, 4421);
    }

    #[test]
    fn nothing_is_taken_of_a_list_that_contradicts_itself() {
        for (from, to) in [
            ("[worker-1, worker-2]", "[worker-1, worker-3]"),
            ("example:w2", "example:w1"),
            ("-000000000002", "-000000000001"),
            ("example:spare", "example:osd-3"),
            ("2a0c3f1d9e12", "2a0c3f1d9e11"),
            ("clusterName", "cluster"),
            ("192.0.2.10", "array.example"),
        ] {
            assert!(targets(&LIST.replace(from, to)).is_err(), "{to}");
        }
    }
}
