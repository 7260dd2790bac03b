//! What the controller is granted, against what it asked for: the API server wrote that down.
//!
//! A right that nothing uses is there for whoever takes the controller over; one that is missing
//! shows only on the day that needs it. So every scenario runs with the shipped rights and no
//! others, and at the end the two lists have to be the same.

use std::collections::BTreeSet;
use std::process::Command;

use anyhow::Context as _;
use serde::Deserialize;

use super::server::{AUDIT, Server};
use crate::lab::command::stdout;

pub(super) const SENTENCE: &str = "every_right_that_is_granted_is_used_and_none_is_missing";
const NAME: &str = "nvmeof-recoverer";

/// A verb on a resource: `patch apps/deployments`, `update nvme-heal.io/osdrelocations/status`.
type Right = String;

#[derive(Debug, Deserialize)]
struct Asked {
    verb: String,
    user: User,
    #[serde(rename = "objectRef")]
    object: Option<Object>,
    #[serde(rename = "responseStatus")]
    answer: Option<Answer>,
}

#[derive(Debug, Deserialize)]
struct User {
    username: String,
}

#[derive(Debug, Deserialize)]
struct Object {
    resource: String,
    subresource: Option<String>,
    #[serde(rename = "apiGroup", default)]
    group: String,
}

#[derive(Debug, Deserialize)]
struct Answer {
    #[serde(default)]
    code: u16,
}

#[derive(Debug, Deserialize)]
struct Roles {
    items: Vec<Role>,
}

#[derive(Debug, Deserialize)]
struct Role {
    metadata: Named,
    /// None in a role that is gathered from others.
    rules: Option<Vec<Rule>>,
}

#[derive(Debug, Deserialize)]
struct Named {
    name: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Rule {
    #[serde(default)]
    api_groups: Vec<String>,
    #[serde(default)]
    resources: Vec<String>,
    verbs: Vec<String>,
}

/// What is wrong with the rights, in sentences; nothing if nothing is.
pub(super) fn check(server: &Server) -> anyhow::Result<Vec<String>> {
    let granted = granted(server)?;
    let (used, denied) = asked(server)?;
    // An API server that has just begun denies what it grants a moment later.
    let denied = denied.difference(&used);
    let mut wrong: Vec<String> = denied.map(|it| format!("{it} was denied")).collect();
    wrong.extend(granted.difference(&used).map(|it| format!("{it} is granted and never used")));
    Ok(wrong)
}

fn granted(server: &Server) -> anyhow::Result<BTreeSet<Right>> {
    let mut granted = BTreeSet::new();
    for kind in [&["clusterroles"][..], &["roles", "--all-namespaces"]] {
        let mut command = Command::new("kubectl");
        command.arg("--kubeconfig").arg(server.kubeconfig()).arg("get").args(kind);
        let shown = stdout(command.args(["--output", "json"]))?;
        let roles: Roles = serde_json::from_str(&shown).context("kubectl's roles")?;
        let ours = roles.items.iter().filter(|role| role.metadata.name == NAME);
        for rule in ours.flat_map(|role| role.rules.iter().flatten()) {
            for group in &rule.api_groups {
                for resource in &rule.resources {
                    let right = |verb: &String| right(verb, group, resource);
                    granted.extend(rule.verbs.iter().map(right));
                }
            }
        }
    }
    Ok(granted)
}

fn asked(server: &Server) -> anyhow::Result<(BTreeSet<Right>, BTreeSet<Right>)> {
    let log = std::fs::read_to_string(server.dir().join(AUDIT)).context("no audit log")?;
    let (mut used, mut denied) = (BTreeSet::new(), BTreeSet::new());
    let ours = format!(":{NAME}");
    for line in log.lines() {
        let asked: Asked = serde_json::from_str(line).context("an audit log that is not JSON")?;
        let Some(object) = asked.object.filter(|_| asked.user.username.ends_with(&ours)) else {
            continue;
        };
        let resource = match object.subresource {
            Some(subresource) => format!("{}/{subresource}", object.resource),
            None => object.resource,
        };
        let right = right(&asked.verb, &object.group, &resource);
        if asked.answer.is_some_and(|answer| answer.code == 403) {
            denied.insert(right);
        } else {
            used.insert(right);
        }
    }
    Ok((used, denied))
}

fn right(verb: &str, group: &str, resource: &str) -> Right {
    let slash = if group.is_empty() { "" } else { "/" };
    format!("{verb} {group}{slash}{resource}")
}
