//! Virtual hosts: what has to become so that every OSD lies in the bucket of its target. Pure.
//!
//! ```text
//!   host node-a ── osd.0  osd.1     a bucket whose OSDs are all of one target, and all of it:
//!        ▲ rename                   it gets the target's name, and no data moves at all
//!   host fabric-a ── osd.0  osd.1
//!
//!   host node-b ── osd.2  osd.3     anything else: a bucket is added, and what lies elsewhere is
//!                    │              moved there; Ceph then moves its data
//!   host fabric-b ◄──┘
//! ```
//!
//! CRUSH places data by the numbers of buckets and never by their names. So on a cluster whose
//! nodes each serve one target, adoption is a matter of names.

use heal_types::cluster::{DomainName, OsdId};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// A step of an adoption.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AdoptStep {
    /// No data moves.
    Rename {
        /// The bucket, as it is called now.
        from: String,
        /// The target's bucket.
        to: DomainName,
    },
    /// No data moves.
    Add {
        /// The target's bucket.
        bucket: DomainName,
        /// Where it hangs.
        root: String,
    },
    /// The OSD's data moves.
    Move {
        /// The OSD.
        osd: OsdId,
        /// The bucket it lies in, if it lies in one.
        from: Option<String>,
        /// The target's bucket.
        to: DomainName,
        /// Above that.
        root: String,
    },
}

impl AdoptStep {
    /// Whether Ceph moves data because of it.
    #[must_use]
    pub fn moves_data(&self) -> bool {
        matches!(self, Self::Move { .. })
    }

    /// The words after `ceph`.
    #[must_use]
    pub fn command(&self) -> Vec<String> {
        let words = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect();
        match self {
            Self::Rename { from, to } => {
                words(&["osd", "crush", "rename-bucket", from, to.as_str()])
            }
            Self::Add { bucket, root } => {
                let root = format!("root={root}");
                words(&["osd", "crush", "add-bucket", bucket.as_str(), "host", &root])
            }
            Self::Move { osd, to, root, .. } => {
                let (osd, root, host) =
                    (osd.to_string(), format!("root={root}"), format!("host={to}"));
                words(&["osd", "crush", "move", &osd, &root, &host])
            }
        }
    }
}

impl fmt::Display for AdoptStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rename { from, to } => write!(f, "bucket {from} becomes {to}; no data moves"),
            Self::Add { bucket, root } => write!(f, "bucket {bucket} below {root}; no data moves"),
            Self::Move { osd, from, to, .. } => {
                let from = from.as_deref().unwrap_or("nowhere");
                write!(f, "{osd} from {from} to {to}: ITS DATA MOVES")
            }
        }
    }
}

/// `ceph osd tree`, as far as places are concerned.
#[derive(Debug, Deserialize)]
pub struct CrushTree {
    nodes: Vec<Bucket>,
}

#[derive(Debug, Deserialize)]
struct Bucket {
    id: i64,
    name: String,
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    children: Vec<i64>,
}

impl CrushTree {
    fn osds(&self, bucket: &Bucket) -> BTreeSet<OsdId> {
        let number = |id: &i64| OsdId::new(u32::try_from(*id).ok()?).ok();
        bucket.children.iter().filter_map(number).collect()
    }

    fn hosts(&self) -> impl Iterator<Item = &Bucket> {
        self.nodes.iter().filter(|node| node.kind == "host")
    }

    /// The root above a bucket; `default` where the tree does not say.
    fn root(&self, bucket: Option<&Bucket>) -> String {
        let mut at = bucket;
        // No tree is deeper than CRUSH has types.
        for _ in 0..16 {
            let Some(below) = at else { break };
            if below.kind == "root" {
                return below.name.clone();
            }
            at = self.nodes.iter().find(|node| node.children.contains(&below.id));
        }
        "default".to_owned()
    }
}

/// The steps for these targets, in their order; none where everything is so already.
#[must_use]
pub fn adoption(
    tree: &CrushTree,
    targets: &BTreeMap<DomainName, BTreeSet<OsdId>>,
) -> Vec<AdoptStep> {
    let mut steps = Vec::new();
    for (domain, osds) in targets.iter().filter(|(_, osds)| !osds.is_empty()) {
        let own = tree.hosts().find(|host| host.name == domain.as_str());
        let same = tree.hosts().find(|host| tree.osds(host) == *osds);
        let home = |osd: &OsdId| tree.hosts().find(|host| tree.osds(host).contains(osd));
        match (own, same) {
            (None, Some(host)) => {
                steps.push(AdoptStep::Rename { from: host.name.clone(), to: domain.clone() });
                continue;
            }
            (None, None) => {
                let root = tree.root(osds.iter().find_map(home));
                steps.push(AdoptStep::Add { bucket: domain.clone(), root });
            }
            (Some(_), _) => {}
        }
        for osd in osds {
            let home = home(osd);
            if home.is_some_and(|host| host.name == domain.as_str()) {
                continue;
            }
            let from = home.map(|host| host.name.clone());
            let root = tree.root(own.or(home));
            steps.push(AdoptStep::Move { osd: *osd, from, to: domain.clone(), root });
        }
    }
    steps
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree() -> CrushTree {
        serde_json::from_str(
            r#"{"nodes":[
            {"id":-1,"name":"ssd","type":"root","type_id":11,"children":[-5,-2,-3]},
            {"id":-5,"name":"rack1","type":"rack","type_id":3,"children":[-4]},
            {"id":-2,"name":"node-a","type":"host","type_id":1,"children":[1,0]},
            {"id":-3,"name":"node-b","type":"host","type_id":1,"children":[2,3]},
            {"id":-4,"name":"fabric-c","type":"host","type_id":1,"children":[4]},
            {"id":0,"name":"osd.0","type":"osd","type_id":0,"crush_weight":1.0}],"stray":[]}"#,
        )
        .unwrap()
    }

    fn steps(targets: &[(&str, &[u32])]) -> Vec<String> {
        let osds = |osds: &[u32]| osds.iter().map(|osd| OsdId::new(*osd).unwrap()).collect();
        let targets =
            targets.iter().map(|(name, of)| (DomainName::new(*name).unwrap(), osds(of))).collect();
        adoption(&tree(), &targets).iter().map(|step| step.command().join(" ")).collect()
    }

    #[test]
    fn a_host_that_serves_one_target_gets_its_name_and_nothing_moves() {
        assert_eq!(steps(&[("fabric-a", &[0, 1])]), ["osd crush rename-bucket node-a fabric-a"]);
    }

    #[test]
    fn what_lies_right_stays() {
        assert_eq!(steps(&[("fabric-c", &[4])]), [""; 0]);
    }

    #[test]
    fn a_host_of_two_targets_is_split_and_that_is_said_to_move_data() {
        let found = steps(&[("fabric-b", &[2]), ("fabric-c", &[3, 4])]);
        assert_eq!(
            found,
            [
                "osd crush add-bucket fabric-b host root=ssd",
                "osd crush move osd.2 root=ssd host=fabric-b",
                "osd crush move osd.3 root=ssd host=fabric-c",
            ]
        );
        let targets = [(DomainName::new("fabric-b").unwrap(), [OsdId::new(2).unwrap()].into())];
        let moving = adoption(&tree(), &targets.into());
        assert_eq!(moving.iter().filter(|step| step.moves_data()).count(), 1);
    }

    #[test]
    fn an_osd_that_lies_nowhere_is_put_into_its_targets_bucket() {
        assert_eq!(
            steps(&[("fabric-d", &[9])]),
            [
                "osd crush add-bucket fabric-d host root=default",
                "osd crush move osd.9 root=default host=fabric-d",
            ]
        );
    }
}
