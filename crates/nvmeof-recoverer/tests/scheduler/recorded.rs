//! Clusters that people run, beside those that dice make.
//!
//! ```text
//!   recorded.ron ──► parse ──► checked ──► view: hosts are nodes, failure domains are targets
//!                      │
//!                      └─ Bad: which cluster, and what is wrong with it
//! ```
//!
//! What is known of them, where it was seen and what is only assumed stands in the file. It is read
//! as if anybody could have written it: nothing is made before the counts are known to be small.

use std::collections::{BTreeMap, BTreeSet};

use nvmeof_recoverer::plan::view::{ClusterView, FenceHealth, Pool, Resources, TargetView};
use serde::Deserialize;

use crate::cluster::{GIB, domain, healthy, healthy_node, healthy_osd, node, osd, put, start};

/// The plan is not measured with more either.
const MOST_NODES: u64 = 1000;
const MOST_OSDS: u64 = 10_000;
/// A device of a PiB.
const MOST_WEIGHT: u32 = 1_048_576;
/// A column of the table.
const LONGEST_NAME: usize = 15;
const OSD_MEMORY: u64 = 4 * GIB;

/// A cluster as it stands in the file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Recorded {
    pub(crate) name: String,
    seen: Vec<String>,
    assumed: Vec<String>,
    size: u32,
    min_size: u32,
    room: u32,
    empty: u32,
    domains: Vec<Vec<Hosts>>,
}

/// Hosts that are alike.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Hosts {
    hosts: u32,
    /// How many, and the weight of each in thousandths.
    osds: Vec<(u32, u32)>,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum Bad {
    #[error("not a list of clusters: {0}")]
    Unreadable(Box<ron::error::SpannedError>),
    #[error("there is no cluster in it")]
    Empty,
    #[error("{0:?} is no name: 1 to {LONGEST_NAME} printable characters of ASCII")]
    Name(String),
    #[error("there are two clusters {0:?}")]
    Twice(String),
    #[error("{cluster}: {why}")]
    Cluster { cluster: String, why: Why },
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Why {
    #[error("it does not say where it was seen")]
    SeenNowhere,
    #[error("it does not say what is assumed")]
    AssumedNothing,
    #[error("a pool of size {0} cannot have min_size {1}")]
    Pool(u32, u32),
    #[error("{0} failure domains are too few for a pool of size {1}")]
    FewDomains(usize, u32),
    #[error("failure domain {0} has no OSD")]
    NoOsds(usize),
    #[error("failure domain {0} has a host without OSDs; such nodes are `empty`")]
    NoOsdsOnHost(usize),
    #[error("an OSD of weight {0}: 1 to {MOST_WEIGHT} thousandths")]
    Weight(u32),
    #[error("{0} nodes are more than {MOST_NODES}")]
    ManyNodes(u64),
    #[error("{0} OSDs are more than {MOST_OSDS}")]
    ManyOsds(u64),
    #[error("a host has {0} OSDs and room for {1}, of at most {MOST_OSDS}")]
    NoRoom(u64, u32),
}

/// The clusters of the file beside this one.
pub(crate) fn all() -> Result<Vec<Recorded>, Bad> {
    parse(include_str!("recorded.ron"))
}

fn parse(text: &str) -> Result<Vec<Recorded>, Bad> {
    let clusters: Vec<Recorded> =
        ron::from_str(text).map_err(|source| Bad::Unreadable(Box::new(source)))?;
    if clusters.is_empty() {
        return Err(Bad::Empty);
    }
    let mut names = BTreeSet::new();
    for it in &clusters {
        let printable = it.name.bytes().all(|c| c.is_ascii_graphic() || c == b' ');
        if it.name.trim().is_empty() || it.name.len() > LONGEST_NAME || !printable {
            return Err(Bad::Name(it.name.clone()));
        }
        if !names.insert(&it.name) {
            return Err(Bad::Twice(it.name.clone()));
        }
        it.check().map_err(|why| Bad::Cluster { cluster: it.name.clone(), why })?;
    }
    Ok(clusters)
}

impl Hosts {
    /// The OSDs of one of them.
    fn each(&self) -> u64 {
        self.osds.iter().map(|(count, _)| u64::from(*count)).fold(0, u64::saturating_add)
    }

    /// One list for each host.
    fn weights_of_each(&self) -> impl Iterator<Item = Vec<u32>> {
        let weights = || {
            let each = self.osds.iter();
            each.flat_map(|(count, weight)| (0..*count).map(move |_| *weight)).collect()
        };
        (0..self.hosts).map(move |_| weights())
    }
}

impl Recorded {
    fn check(&self) -> Result<(), Why> {
        let says_nothing = |lines: &[String]| lines.iter().all(|line| line.trim().is_empty());
        if says_nothing(&self.seen) {
            return Err(Why::SeenNowhere);
        }
        if says_nothing(&self.assumed) {
            return Err(Why::AssumedNothing);
        }
        if self.min_size == 0 || self.min_size > self.size {
            return Err(Why::Pool(self.size, self.min_size));
        }
        let domains = self.domains.len();
        if u32::try_from(domains).is_ok_and(|domains| domains < self.size) {
            return Err(Why::FewDomains(domains, self.size));
        }
        let (mut nodes, mut osds) = (u64::from(self.empty), 0_u64);
        for (n, domain) in self.domains.iter().enumerate() {
            if domain.iter().all(|it| it.hosts == 0) {
                return Err(Why::NoOsds(n));
            }
            for it in domain {
                let each = it.each();
                if each == 0 {
                    return Err(Why::NoOsdsOnHost(n));
                }
                if each > u64::from(self.room) || u64::from(self.room) > MOST_OSDS {
                    return Err(Why::NoRoom(each, self.room));
                }
                let mut weights = it.osds.iter().map(|(_, weight)| *weight);
                if let Some(bad) = weights.find(|it| *it == 0 || *it > MOST_WEIGHT) {
                    return Err(Why::Weight(bad));
                }
                nodes = nodes.saturating_add(u64::from(it.hosts));
                osds = osds.saturating_add(u64::from(it.hosts).saturating_mul(each));
            }
        }
        if nodes > MOST_NODES {
            return Err(Why::ManyNodes(nodes));
        }
        if osds > MOST_OSDS {
            return Err(Why::ManyOsds(osds));
        }
        Ok(())
    }

    /// The cluster as the plan sees it, with every OSD where it was.
    pub(crate) fn view(&self) -> ClusterView {
        let requested = Resources { cpu_milli: 4000, memory: 8 * GIB };
        let room = u64::from(self.room);
        let osds = Resources { cpu_milli: room * 1000, memory: room * OSD_MEMORY };
        let pool = Pool { size: self.size, min_size: self.min_size };
        let mut view = healthy(BTreeMap::new(), BTreeMap::new(), BTreeMap::new(), pool);
        let add_node = |view: &mut ClusterView| {
            let name = node(view.nodes.len());
            let it = healthy_node(start(), requested.plus(osds), requested);
            view.nodes.insert(name.clone(), it);
            name
        };
        for (n, hosts) in self.domains.iter().enumerate() {
            for weights in hosts.iter().flat_map(Hosts::weights_of_each) {
                let name = add_node(&mut view);
                for weight in weights {
                    let id = view.osds.len();
                    view.osds.insert(osd(id), healthy_osd(id, domain(n), OSD_MEMORY, weight));
                    put(&mut view, osd(id), &name);
                }
            }
        }
        for _ in 0..self.empty {
            add_node(&mut view);
        }
        let attachable: BTreeSet<_> = view.nodes.keys().cloned().collect();
        for n in 0..self.domains.len() {
            let (attachable, reach) = (attachable.clone(), BTreeMap::new());
            let target = TargetView { attachable, fence: FenceHealth::Ready, reach };
            view.targets.insert(domain(n), target);
        }
        view
    }
}

/// A good file of one cluster, with something else in place of a part of it.
fn with(part: &str, other: &str) -> String {
    let good = r#"[(name: "good", seen: ["here"], assumed: ["nothing"], size: 3, min_size: 2,
        room: 8, empty: 1, domains: [
            [(hosts: 2, osds: [(3, 1000), (1, 2000)])], [(hosts: 1, osds: [(4, 1000)])],
            [(hosts: 1, osds: [(2, 1000)])],
        ])]"#;
    assert_eq!(good.matches(part).count(), 1, "{part:?}");
    good.replace(part, other)
}

#[test]
fn a_recorded_cluster_that_makes_no_sense_is_refused_with_the_reason() {
    assert_eq!(parse(&with("good", "good")).unwrap().len(), 1);
    let refused = [
        ("size: 3, ", "", "missing field named `size`"),
        ("empty: 1", "empty: 1, colour: 2", "`colour`"),
        ("empty: 1", "empty: -1", "Integer is out of bounds"),
        ("empty: 1", "empty: 4294967296", "Integer is out of bounds"),
        ("\"good\"", "\"\"", "\"\" is no name"),
        ("\"good\"", "\"a name of seventy\"", "is no name"),
        ("\"good\"", "\"ba\\u{1b}[2Jd\"", "\"ba\\u{1b}[2Jd\" is no name"),
        ("[\"here\"]", "[]", "good: it does not say where it was seen"),
        ("[\"here\"]", "[\" \"]", "good: it does not say where it was seen"),
        ("[\"nothing\"]", "[]", "good: it does not say what is assumed"),
        ("min_size: 2", "min_size: 0", "good: a pool of size 3 cannot have min_size 0"),
        ("min_size: 2", "min_size: 4", "good: a pool of size 3 cannot have min_size 4"),
        ("size: 3, ", "size: 4, ", "good: 3 failure domains are too few for a pool of size 4"),
        ("[(hosts: 1, osds: [(2, 1000)])]", "[]", "good: failure domain 2 has no OSD"),
        ("hosts: 1, osds: [(2", "hosts: 0, osds: [(2", "good: failure domain 2 has no OSD"),
        ("(2, 1000)", "", "good: failure domain 2 has a host without OSDs"),
        ("(2, 1000)", "(0, 1000)", "good: failure domain 2 has a host without OSDs"),
        ("(2, 1000)", "(2, 0)", "good: an OSD of weight 0"),
        ("(2, 1000)", "(2, 1048577)", "good: an OSD of weight 1048577"),
        ("(2, 1000)", "(9, 1000)", "good: a host has 9 OSDs and room for 8"),
        ("room: 8", "room: 4294967295", "good: a host has 4 OSDs and room for 4294967295"),
        // Nothing of these may be made before it is refused.
        ("empty: 1", "empty: 4294967295", "good: 4294967299 nodes are more than 1000"),
        ("hosts: 2", "hosts: 4294967295", "good: 4294967298 nodes are more than 1000"),
        ("(2, 1000)", "(4294967295, 1), (4294967295, 1)", "a host has 8589934590 OSDs"),
    ];
    for (part, other, why) in refused {
        let said = parse(&with(part, other)).unwrap_err().to_string();
        assert!(said.contains(why), "{other:?} instead of {part:?}: {said}");
    }
    let good = with("good", "good");
    let one = good.trim_matches(['[', ']']);
    let many = with("room: 8", "room: 10000").replace("(4, 1000)", "(9999, 1000)");
    let whole = [
        (String::new(), "not a list of clusters"),
        ("[]".to_owned(), "there is no cluster in it"),
        ("[".repeat(100_000), "not a list of clusters"),
        (good[..good.len() - 9].to_owned(), "not a list of clusters"),
        (format!("[{one}, {one}]"), "there are two clusters \"good\""),
        (many, "good: 10009 OSDs are more than 10000"),
    ];
    for (text, why) in whole {
        let said = parse(&text).unwrap_err().to_string();
        assert!(said.contains(why), "{said}");
    }
}

#[test]
fn recorded_clusters_have_as_many_nodes_and_osds_as_were_seen() {
    let counts = |it: &Recorded| {
        let view = it.view();
        let weight: u64 = view.osds.values().map(|osd| u64::from(osd.weight)).sum();
        (it.name.clone(), view.targets.len(), view.nodes.len(), view.osds.len(), weight / 1000)
    };
    let seen: Vec<_> = all().unwrap().iter().map(counts).collect();
    let seen: Vec<_> =
        seen.iter().map(|(name, a, b, c, d)| (name.as_str(), *a, *b, *c, *d)).collect();
    // The last is the weight of the whole CRUSH tree as it stands there; of the last cluster, of
    // the room.
    assert_eq!(
        seen,
        [
            ("four hosts", 4, 7, 18, 31),
            ("three racks", 3, 10, 28, 48),
            ("ten hosts", 10, 10, 88, 78),
            ("nvme, six racks", 6, 6, 120, 209),
            ("five racks", 5, 34, 812, 4433),
        ]
    );
}
