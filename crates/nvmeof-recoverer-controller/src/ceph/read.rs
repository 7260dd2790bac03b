//! The JSON of `ceph`, as far as it is needed. Fields that come and go between releases are
//! optional.

use heal_types::cluster::{ClusterFsid, NodeName, OsdFsid, OsdId};
use nvmeof_recoverer::plan::view::Pool;
use serde::Deserialize;
use std::collections::BTreeMap;

use super::{MonReport, OsdReport};

/// `ceph status`.
#[derive(Debug, Deserialize)]
pub(super) struct Status {
    fsid: ClusterFsid,
    #[serde(default)]
    quorum: Vec<u32>,
    pgmap: PgMap,
}

#[derive(Debug, Deserialize)]
struct PgMap {
    #[serde(default)]
    pgs_by_state: Vec<PgState>,
    #[serde(default)]
    num_pgs: u64,
}

#[derive(Debug, Deserialize)]
struct PgState {
    state_name: String,
    count: u64,
}

/// `ceph osd dump`.
#[derive(Debug, Deserialize)]
pub(super) struct Dump {
    pub(super) epoch: u64,
    #[serde(default)]
    osds: Vec<DumpedOsd>,
    #[serde(default)]
    pools: Vec<DumpedPool>,
}

#[derive(Debug, Deserialize)]
struct DumpedOsd {
    osd: OsdId,
    uuid: String,
    up: u8,
    #[serde(default)]
    state: Vec<String>,
}

#[derive(Debug, Deserialize)]
struct DumpedPool {
    size: u32,
    min_size: u32,
}

/// One of `ceph osd metadata`; an OSD that never started has only its number.
#[derive(Debug, Deserialize)]
pub(super) struct Metadata {
    id: OsdId,
    hostname: Option<String>,
}

/// `ceph osd tree`.
#[derive(Debug, Deserialize)]
pub(super) struct Tree {
    #[serde(default)]
    nodes: Vec<TreeNode>,
}

#[derive(Debug, Deserialize)]
struct TreeNode {
    id: i64,
    #[serde(default)]
    crush_weight: f64,
}

/// What changes only with the map.
#[derive(Debug, Clone, Default)]
pub(super) struct Places {
    hosts: BTreeMap<OsdId, NodeName>,
    weights: BTreeMap<OsdId, u32>,
}

impl Places {
    pub(super) fn new(metadata: Vec<Metadata>, tree: &Tree) -> Self {
        let host = |it: Metadata| Some((it.id, NodeName::new(it.hostname?).ok()?));
        let weight = |it: &TreeNode| {
            let id = OsdId::new(u32::try_from(it.id).ok()?).ok()?;
            Some((id, thousandths(it.crush_weight)))
        };
        Self {
            hosts: metadata.into_iter().filter_map(host).collect(),
            weights: tree.nodes.iter().filter_map(weight).collect(),
        }
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "clamped to what fits before it is cast"
)]
fn thousandths(weight: f64) -> u32 {
    (weight * 1000.0).round().clamp(0.0, f64::from(u32::MAX)) as u32
}

pub(super) fn report(status: &Status, dump: Dump, places: &Places) -> MonReport {
    let clean = |state: &&PgState| {
        let has = |word: &str| state.state_name.split('+').any(|it| it == word);
        has("active") && has("clean") && !has("remapped")
    };
    let counted: u64 = status.pgmap.pgs_by_state.iter().filter(clean).map(|it| it.count).sum();
    let osds = dump.osds.into_iter().filter_map(|osd| {
        // An OSD that was created and never made has no UUID yet: it is not ours to know.
        let fsid: OsdFsid = osd.uuid.parse().ok()?;
        let report = OsdReport {
            fsid,
            up: osd.up == 1,
            noout: osd.state.iter().any(|it| it == "noout"),
            host: places.hosts.get(&osd.osd).cloned(),
            weight: places.weights.get(&osd.osd).copied().unwrap_or_default(),
        };
        Some((osd.osd, report))
    });
    MonReport {
        fsid: status.fsid,
        quorum: !status.quorum.is_empty(),
        all_clean: counted == status.pgmap.num_pgs,
        osds: osds.collect(),
        pools: dump
            .pools
            .iter()
            .map(|pool| Pool { size: pool.size, min_size: pool.min_size })
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(pgs: &str) -> Status {
        let text = format!(
            r#"{{"fsid":"0f7e4d5a-1111-4222-8333-444455556666","quorum":[0,1],
                 "pgmap":{{"pgs_by_state":{pgs},"num_pgs":17,"num_pools":2}}}}"#
        );
        serde_json::from_str(&text).unwrap()
    }

    /// Cut from what a real 16.2.15 prints.
    const DUMP: &str = r#"{"epoch":21,"fsid":"x","flags_set":[],"pools":[{"pool":1,"size":3,"min_size":2,
        "pool_name":"p"}],"osds":[
        {"osd":0,"uuid":"0f7e4d5a-1111-4222-8333-444455550000","up":1,"in":1,"state":["exists","up"]},
        {"osd":1,"uuid":"0f7e4d5a-1111-4222-8333-444455550001","up":0,"in":1,
         "state":["exists","noout"]},
        {"osd":2,"uuid":"00000000-0000-0000-0000-000000000000","up":0,"in":0,"state":["new"]}]}"#;

    fn read(pgs: &str) -> MonReport {
        let metadata = serde_json::from_str(r#"[{"id":0,"hostname":"n1"},{"id":1}]"#).unwrap();
        let tree = r#"{"nodes":[{"id":-1,"crush_weight":0},{"id":0,"crush_weight":1.81929}]}"#;
        let places = Places::new(metadata, &serde_json::from_str(tree).unwrap());
        report(&status(pgs), serde_json::from_str(DUMP).unwrap(), &places)
    }

    #[test]
    fn what_ceph_prints_is_read() {
        let report = read(r#"[{"state_name":"active+clean","count":17}]"#);
        let osds: Vec<_> = report.osds.values().collect();
        assert_eq!(osds.len(), 2, "one that was never made is not there");
        assert_eq!((osds[0].up, osds[0].noout, osds[0].weight), (true, false, 1819));
        assert_eq!(osds[0].host, Some(NodeName::new("n1").unwrap()));
        assert_eq!((osds[1].up, osds[1].noout, osds[1].host.as_ref()), (false, true, None));
        assert_eq!(report.pools, [Pool { size: 3, min_size: 2 }]);
        assert!(report.quorum && report.all_clean);
    }

    #[test]
    fn a_group_that_is_scrubbed_is_clean_and_one_that_is_elsewhere_is_not() {
        let clean = |state: &str| {
            let pgs = format!(
                r#"[{{"state_name":"active+clean","count":16}},{{"state_name":"{state}","count":1}}]"#
            );
            read(&pgs).all_clean
        };
        assert!(clean("active+clean+scrubbing+deep"));
        for state in ["active+undersized+degraded", "active+clean+remapped", "peering", "unknown"] {
            assert!(!clean(state), "{state}");
        }
        assert!(!read("[]").all_clean, "a mgr that says nothing says nothing good");
    }
}
