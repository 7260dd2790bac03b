//! `cargo xtask layering`: who may depend on whom, as a table, compared with what cargo sees.
//!
//! ```text
//!                     nvme-heald ──────────────┬──────────────┐        nvme-heal
//!                     │        │               │              │         │      │
//!                     ▼        ▼               ▼              ▼         │      │
//!                heal-sim ► heal-core    heal-provisioner  heal-host    │      │
//!                     │        │               │    ▲         │         │      │
//!                     │        ▼               ▼    └─────────┼─────────┘      │
//!                     └─────► heal-types ◄─────┴──────────────┴────────────────┘
//! ```
//!
//! The machine that decides must not be able to act, and what acts must not be able to decide: good
//! will does not keep that true for years, a failing check does. Three rules: a crate of ours
//! depends only on what its row names; the pure crates take nothing from outside but what is
//! listed; a crate without a row is an error. The price: a new crate needs a line here, and a
//! reason.

use anyhow::{Context, bail};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};

use crate::workspace;

/// What a crate may take from outside the workspace, in what it ships.
enum Outside {
    /// Anything; reviews and the count keep it small.
    Any,
    /// These crates and no others: no I/O, no runtime, no clock.
    Only(&'static [&'static str]),
}

/// A row of the table.
struct Layer {
    name: &'static str,
    /// Crates of ours it may depend on, also when it is built and tested.
    may: &'static [&'static str],
    /// Crates of ours that only its tests may use, in addition.
    tests_may: &'static [&'static str],
    outside: Outside,
}

/// What a crate without I/O needs: derived encodings, identifiers, error types.
const PURE: Outside = Outside::Only(&["serde", "thiserror", "uuid"]);

static LAYERS: &[Layer] = &[
    Layer { name: "heal-types", may: &[], tests_may: &[], outside: PURE },
    Layer { name: "heal-core", may: &["heal-types"], tests_may: &[], outside: PURE },
    // Its ports are tested against the simulator's fakes: one contract, two implementations.
    Layer {
        name: "heal-host",
        may: &["heal-types"],
        tests_may: &["heal-sim"],
        outside: Outside::Any,
    },
    // Its backends are tested against provisioners that exist only in a process.
    Layer {
        name: "heal-provisioner",
        may: &["heal-types"],
        tests_may: &["vendor-emulator"],
        outside: Outside::Any,
    },
    // The other side of the wire: it shares no code with what it tests.
    Layer { name: "vendor-emulator", may: &[], tests_may: &[], outside: Outside::Any },
    // Never heal-host: a simulation must not be able to touch the machine it runs on.
    Layer {
        name: "heal-sim",
        may: &["heal-types", "heal-core", "heal-provisioner"],
        tests_may: &[],
        outside: Outside::Any,
    },
    Layer {
        name: "nvme-heald",
        may: &["heal-types", "heal-core", "heal-host", "heal-provisioner", "heal-sim"],
        tests_may: &[],
        outside: Outside::Any,
    },
    Layer {
        name: "nvme-heal",
        may: &["heal-types", "heal-provisioner"],
        tests_may: &[],
        outside: Outside::Any,
    },
    // Feeds bytes to whoever reads them, and ships nowhere.
    Layer {
        name: "heal-fuzz",
        may: &["heal-types", "heal-core", "heal-host", "heal-provisioner", "nvme-heald"],
        tests_may: &[],
        outside: Outside::Any,
    },
    // The cluster half: nothing of the host half but the words. What decides is pure here too.
    Layer { name: "nvmeof-recoverer", may: &["heal-types"], tests_may: &[], outside: PURE },
    Layer {
        name: "nvmeof-recoverer-controller",
        may: &["heal-types", "nvmeof-recoverer"],
        // Whoever asks a fence is tested against the fence.
        tests_may: &["nvmet-fenced"],
        outside: Outside::Any,
    },
    // On the target host, alone: it shares the words of a fence with the controller, and nothing
    // else.
    Layer { name: "nvmet-fenced", may: &["heal-types"], tests_may: &[], outside: Outside::Any },
    Layer { name: "xtask", may: &["vendor-emulator"], tests_may: &[], outside: Outside::Any },
];

/// The daemon's third-party crates, all told; above it the run says so and goes on.
const DAEMON_AIM: usize = 110;

#[derive(Debug, Deserialize)]
struct Metadata {
    packages: Vec<Package>,
    workspace_members: Vec<String>,
    resolve: Resolve,
}

#[derive(Debug, Deserialize)]
struct Package {
    id: String,
    name: String,
    dependencies: Vec<Dependency>,
}

/// A dependency as the manifest declares it.
#[derive(Debug, Deserialize)]
struct Dependency {
    name: String,
    /// `None`: an ordinary one.
    kind: Option<String>,
}

/// What cargo chose.
#[derive(Debug, Deserialize)]
struct Resolve {
    nodes: Vec<Node>,
}

#[derive(Debug, Deserialize)]
struct Node {
    id: String,
    deps: Vec<Edge>,
}

#[derive(Debug, Deserialize)]
struct Edge {
    pkg: String,
    dep_kinds: Vec<EdgeKind>,
}

#[derive(Debug, Deserialize)]
struct EdgeKind {
    kind: Option<String>,
}

pub(crate) fn run() -> anyhow::Result<()> {
    let metadata = read_metadata()?;
    let broken = violations(&metadata);
    for violation in &broken {
        println!("layering: {violation}");
    }
    if !broken.is_empty() {
        bail!("{} dependencies go against the table in crates/xtask/src/layering.rs", broken.len());
    }
    let daemon = third_party(&metadata, "nvme-heald");
    let aim = if daemon > DAEMON_AIM { ", MORE THAN WANTED" } else { "" };
    println!(
        "layering: {} crates as in the table; third-party crates: nvme-heald {daemon} (aim: at most \
         {DAEMON_AIM}{aim}), nvme-heal {}",
        metadata.workspace_members.len(),
        third_party(&metadata, "nvme-heal"),
    );
    Ok(())
}

fn read_metadata() -> anyhow::Result<Metadata> {
    let done = workspace::cargo()
        .current_dir(workspace::root())
        .args(["metadata", "--format-version", "1"])
        // What this product is built for; crates for other systems do not count.
        .args(["--filter-platform", &format!("{}-unknown-linux-gnu", std::env::consts::ARCH)])
        .output()
        .context("cannot start cargo")?;
    if !done.status.success() {
        bail!("cargo metadata failed: {}", String::from_utf8_lossy(&done.stderr).trim());
    }
    serde_json::from_slice(&done.stdout).context("cargo metadata is not what it was")
}

/// Every dependency the table does not allow, as a sentence.
fn violations(metadata: &Metadata) -> Vec<String> {
    let members: Vec<&Package> = metadata
        .packages
        .iter()
        .filter(|package| metadata.workspace_members.contains(&package.id))
        .collect();
    let ours: BTreeSet<&str> = members.iter().map(|package| package.name.as_str()).collect();
    let mut broken = Vec::new();
    for package in &members {
        match LAYERS.iter().find(|layer| layer.name == package.name) {
            Some(layer) => broken.extend(against(layer, package, &ours)),
            None => broken
                .push(format!("{} is not in the table: add a row and its reason", package.name)),
        }
    }
    for layer in LAYERS.iter().filter(|layer| !ours.contains(layer.name)) {
        broken.push(format!("{} is in the table and not in the workspace", layer.name));
    }
    broken
}

fn against(layer: &Layer, package: &Package, ours: &BTreeSet<&str>) -> Vec<String> {
    let name = &package.name;
    let mut broken = Vec::new();
    for dependency in &package.dependencies {
        let wanted = dependency.name.as_str();
        let in_tests = dependency.kind.as_deref() == Some("dev");
        if ours.contains(wanted) {
            let allowed =
                layer.may.contains(&wanted) || in_tests && layer.tests_may.contains(&wanted);
            if !allowed {
                let tests = if in_tests { ", not even in its tests" } else { "" };
                broken.push(format!("{name} must not depend on {wanted}{tests}"));
            }
            continue;
        }
        match layer.outside {
            Outside::Only(allowed) if !in_tests && !allowed.contains(&wanted) => {
                let allowed = allowed.join(", ");
                broken.push(format!(
                    "{name} is pure and must not take {wanted}; allowed from outside: {allowed}"
                ));
            }
            Outside::Only(_) | Outside::Any => {}
        }
    }
    broken
}

/// How many crates that are not ours a crate of ours is built from, procedural macros and build
/// scripts included.
fn third_party(metadata: &Metadata, name: &str) -> usize {
    let edges: BTreeMap<&str, &[Edge]> = metadata
        .resolve
        .nodes
        .iter()
        .map(|node| (node.id.as_str(), node.deps.as_slice()))
        .collect();
    let start = metadata
        .packages
        .iter()
        .find(|package| package.name == name && metadata.workspace_members.contains(&package.id));
    let mut seen: BTreeSet<&str> = BTreeSet::new();
    let mut left: Vec<&str> = start.map(|package| package.id.as_str()).into_iter().collect();
    while let Some(id) = left.pop() {
        if !seen.insert(id) {
            continue;
        }
        let shipped =
            edges.get(id).copied().unwrap_or_default().iter().filter(|edge| {
                edge.dep_kinds.iter().any(|kind| kind.kind.as_deref() != Some("dev"))
            });
        left.extend(shipped.map(|edge| edge.pkg.as_str()));
    }
    seen.iter().filter(|id| !metadata.workspace_members.iter().any(|member| member == *id)).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A workspace with every crate of the table, each with the dependencies given for it: `(crate,
    /// kind, on)`.
    fn workspace(dependencies: &[(&str, Option<&str>, &str)]) -> Metadata {
        let mut names: BTreeSet<&str> = LAYERS.iter().map(|layer| layer.name).collect();
        names.extend(dependencies.iter().map(|(name, ..)| *name));
        fn of<'a>(
            all: &'a [(&str, Option<&'a str>, &'a str)],
            name: &'a str,
        ) -> impl Iterator<Item = (Option<&'a str>, &'a str)> {
            all.iter().filter(move |(whose, ..)| *whose == name).map(|(_, kind, on)| (*kind, *on))
        }
        let packages = names
            .iter()
            .map(|name| Package {
                id: (*name).to_owned(),
                name: (*name).to_owned(),
                dependencies: of(dependencies, name)
                    .map(|(kind, on)| Dependency {
                        name: on.to_owned(),
                        kind: kind.map(str::to_owned),
                    })
                    .collect(),
            })
            .collect();
        let nodes = names
            .iter()
            .map(|name| Node {
                id: (*name).to_owned(),
                deps: of(dependencies, name)
                    .map(|(kind, on)| Edge {
                        pkg: on.to_owned(),
                        dep_kinds: vec![EdgeKind { kind: kind.map(str::to_owned) }],
                    })
                    .collect(),
            })
            .collect();
        let workspace_members = names.iter().map(|name| (*name).to_owned()).collect();
        Metadata { packages, workspace_members, resolve: Resolve { nodes } }
    }

    #[test]
    fn what_the_table_allows_passes() {
        let allowed = workspace(&[
            ("heal-core", None, "heal-types"),
            ("heal-core", None, "serde"),
            ("heal-core", Some("dev"), "proptest"),
            ("heal-host", None, "tokio"),
            ("heal-host", Some("dev"), "heal-sim"),
            ("nvme-heald", None, "heal-host"),
        ]);
        assert_eq!(violations(&allowed), [""; 0]);
    }

    #[test]
    fn a_dependency_against_the_direction_is_named() {
        let broken = violations(&workspace(&[("heal-types", None, "heal-core")]));
        assert_eq!(broken, ["heal-types must not depend on heal-core"]);
    }

    #[test]
    fn the_simulator_cannot_reach_the_machine_it_runs_on() {
        for kind in [None, Some("dev"), Some("build")] {
            let broken = violations(&workspace(&[("heal-sim", kind, "heal-host")]));
            assert!(broken[0].starts_with("heal-sim must not depend on heal-host"), "{broken:?}");
        }
    }

    #[test]
    fn what_only_tests_may_use_does_not_ship() {
        let broken = violations(&workspace(&[("heal-host", None, "heal-sim")]));
        assert_eq!(broken, ["heal-host must not depend on heal-sim"]);
    }

    #[test]
    fn tests_do_not_escape_the_table() {
        let broken = violations(&workspace(&[("heal-core", Some("dev"), "heal-sim")]));
        assert_eq!(broken, ["heal-core must not depend on heal-sim, not even in its tests"]);
    }

    #[test]
    fn a_runtime_does_not_enter_a_pure_crate() {
        for kind in [None, Some("build")] {
            let broken = violations(&workspace(&[("heal-core", kind, "tokio")]));
            assert!(
                broken[0].starts_with("heal-core is pure and must not take tokio"),
                "{broken:?}"
            );
        }
    }

    #[test]
    fn a_crate_nobody_gave_a_row_is_named() {
        let broken = violations(&workspace(&[("heal-extra", None, "serde")]));
        assert_eq!(broken, ["heal-extra is not in the table: add a row and its reason"]);
    }

    #[test]
    fn a_row_without_a_crate_is_named() {
        let mut shrunk = workspace(&[]);
        shrunk.workspace_members.retain(|member| member != "heal-sim");
        assert_eq!(violations(&shrunk), ["heal-sim is in the table and not in the workspace"]);
    }

    #[test]
    fn a_crate_counts_once_and_tests_do_not_count() {
        let mut metadata = workspace(&[
            ("nvme-heald", None, "tokio"),
            ("nvme-heald", None, "heal-host"),
            ("heal-host", None, "tokio"),
            ("heal-host", Some("build"), "pkg-config"),
            ("heal-host", Some("dev"), "proptest"),
        ]);
        // Crates from outside have nodes too, with dependencies of their own.
        let edge = |on: &str| Edge { pkg: on.to_owned(), dep_kinds: vec![EdgeKind { kind: None }] };
        metadata.resolve.nodes.push(Node { id: "tokio".to_owned(), deps: vec![edge("mio")] });
        assert_eq!(third_party(&metadata, "nvme-heald"), 3, "tokio, mio, pkg-config");
    }
}
