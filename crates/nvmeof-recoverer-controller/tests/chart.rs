//! The Helm chart installs what the manifests beside it do. Its templates have nothing but places
//! for values, so that this can be said without Helm: filled in, they are the manifests, letter by
//! letter.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use serde_json::Value;

const TEMPLATES: [&str; 2] = ["controller.yaml", "rbac.yaml"];

fn read(name: &str) -> String {
    let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../packaging/kubernetes");
    std::fs::read_to_string(dir.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn values() -> BTreeMap<String, String> {
    let values: BTreeMap<String, Value> =
        serde_saphyr::from_str(&read("chart/values.yaml")).unwrap();
    let text = |value: Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    values.into_iter().map(|(name, value)| (name, text(value))).collect()
}

/// Fills in, and says which values were asked for.
fn render(
    template: &str,
    namespace: &str,
    values: &BTreeMap<String, String>,
) -> (String, BTreeSet<String>) {
    let (mut text, mut asked) = (String::new(), BTreeSet::new());
    let mut rest = template;
    while let Some((before, after)) = rest.split_once("{{ ") {
        let (place, after) = after.split_once(" }}").expect("a place has an end");
        text.push_str(before);
        match place.strip_prefix(".Values.") {
            Some(name) => {
                asked.insert(name.to_owned());
                text.push_str(values.get(name).unwrap_or_else(|| panic!("no value {name}")));
            }
            None if place == ".Release.Namespace" => text.push_str(namespace),
            None => panic!("{place} is more than a place for a value"),
        }
        rest = after;
    }
    assert!(!rest.contains("{{"), "every place is written with spaces");
    text.push_str(rest);
    (text, asked)
}

fn documents(text: &str) -> Vec<Value> {
    serde_saphyr::from_multiple(text).unwrap()
}

#[test]
fn the_chart_as_it_comes_is_what_the_manifests_are() {
    let mut used = BTreeSet::new();
    for name in TEMPLATES {
        let template = read(&format!("chart/templates/{name}"));
        let (text, asked) = render(&template, "rook-ceph", &values());
        assert!(text == read(name), "{name} and its template say different things");
        used.extend(asked);
    }
    assert!(used.iter().eq(values().keys()), "a value that nothing asks for: {used:?}");
    for file in ["fabrictargets.yaml", "osdrelocations.yaml"] {
        assert_eq!(read(&format!("chart/crds/{file}")), read(&format!("crds/{file}")));
    }
}

#[test]
fn in_another_namespace_and_with_other_values_nothing_is_left_behind() {
    let mut values = values();
    values.insert("automatic".to_owned(), "true".to_owned());
    values.insert("rebalance".to_owned(), "true".to_owned());
    values.insert("image".to_owned(), "registry.example/recoverer@sha256:0f7e".to_owned());
    let mut objects = Vec::new();
    for name in TEMPLATES {
        let (text, _) = render(&read(&format!("chart/templates/{name}")), "storage", &values);
        objects.extend(documents(&text));
    }
    let kinds: BTreeSet<&str> = objects.iter().filter_map(|it| it["kind"].as_str()).collect();
    assert!(kinds.contains("Deployment") && kinds.contains("ClusterRole"), "{kinds:?}");
    for object in &objects {
        let namespace = object["metadata"]["namespace"].as_str();
        let whole = object["kind"].as_str().is_some_and(|it| it.starts_with("Cluster"));
        // The nodes' leases are where they are.
        let known = [Some("storage"), Some("kube-node-lease")];
        assert!(known.contains(&namespace) || whole, "{object}");
        for subject in object["subjects"].as_array().into_iter().flatten() {
            assert_eq!(subject["namespace"], "storage");
        }
    }
    let config = objects.iter().find(|it| it["kind"] == "ConfigMap").unwrap();
    let config = config["data"]["config.ron"].as_str().unwrap();
    assert!(
        config.contains("automatic: true, rebalance: true") && config.contains("\"storage\""),
        "{config}"
    );
    let path = std::env::temp_dir().join(format!("recoverer-chart-{}", std::process::id()));
    #[allow(clippy::disallowed_methods, reason = "a scratch file of this test")]
    std::fs::write(&path, config).unwrap();
    let read = nvmeof_recoverer_controller::config::Config::load(&path);
    #[allow(clippy::disallowed_methods, reason = "a scratch file of this test")]
    let _ = std::fs::remove_file(&path);
    assert_eq!(read.unwrap().node_jobs.image, "registry.example/recoverer@sha256:0f7e");
}

#[test]
fn the_chart_has_the_version_of_what_it_installs() {
    let chart: Value = serde_saphyr::from_str(&read("chart/Chart.yaml")).unwrap();
    for of in ["version", "appVersion"] {
        assert_eq!(chart[of], env!("CARGO_PKG_VERSION"), "{of}");
    }
    assert!(values()["image"].ends_with(env!("CARGO_PKG_VERSION")));
}
