//! What the schema says of the plan's words, time as people read it, and YAML.

use heal_types::WallTime;
use jiff::Timestamp;
use nvmeof_recoverer::plan::relocate::PhaseKind;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::borrow::Cow;
use std::fmt::Write as _;

const DNS: &str = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$";
const UUID: &str = "^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$";

pub(super) fn dns_name(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "maxLength": 253, "pattern": DNS })
}

pub(super) fn dns_names(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "items": { "type": "string", "maxLength": 253, "pattern": DNS },
        "x-kubernetes-list-type": "set",
    })
}

pub(super) fn uuid(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "pattern": UUID })
}

pub(super) fn namespace_id(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "minLength": 1, "maxLength": 64, "pattern": r"^[a-z0-9.-]+$" })
}

pub(super) fn nqn(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "maxLength": 223, "pattern": r"^nqn\.[!-~]+$" })
}

pub(super) fn crush_name(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": ["string", "null"], "maxLength": 128, "pattern": "^[A-Za-z0-9_.-]+$" })
}

pub(super) fn person(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "minLength": 1, "maxLength": 128, "pattern": "^[ -~]+$" })
}

pub(super) fn osd_id(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "integer", "format": "int64", "minimum": 0, "maximum": i32::MAX })
}

pub(super) fn optional_osd_id(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": ["integer", "null"], "format": "int64", "minimum": 0, "maximum": i32::MAX,
    })
}

pub(super) fn osd_ids(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "items": { "type": "integer", "format": "int64", "minimum": 0, "maximum": i32::MAX },
        "x-kubernetes-list-type": "set",
    })
}

pub(super) fn generation(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "integer", "format": "int64", "minimum": 0 })
}

pub(super) fn phase(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "enum": PhaseKind::ALL.map(PhaseKind::word) })
}

pub(super) fn optional_phase(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": ["string", "null"], "maxLength": 32 })
}

/// A word of the plan's; which words there are, the plan says.
pub(super) fn word(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "minLength": 1, "maxLength": 32 })
}

pub(super) fn optional_word(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": ["string", "null"], "maxLength": 32 })
}

/// A time, as Kubernetes writes it: RFC 3339, in UTC, to the millisecond.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Stamp(pub WallTime);

impl From<Stamp> for String {
    fn from(stamp: Stamp) -> Self {
        let millis = i64::try_from(stamp.0.0).unwrap_or(i64::MAX);
        let time = Timestamp::from_millisecond(millis).unwrap_or(Timestamp::MAX);
        format!("{time:.3}")
    }
}

impl TryFrom<String> for Stamp {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let time: Timestamp = text.parse().map_err(|_| format!("`{text}` is no RFC 3339 time"))?;
        let millis = u64::try_from(time.as_millisecond());
        millis.map(|it| Self(WallTime(it))).map_err(|_| format!("`{text}` is before 1970"))
    }
}

impl JsonSchema for Stamp {
    fn schema_name() -> Cow<'static, str> {
        "Stamp".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "format": "date-time" })
    }
}

/// YAML of what JSON can say; keys in their order, strings always quoted where YAML could read
/// something else.
pub(super) fn yaml(value: &Value) -> String {
    let mut out = String::new();
    block(&mut out, value, 0);
    out
}

fn block(out: &mut String, value: &Value, depth: usize) {
    match value {
        Value::Object(map) => {
            for (key, value) in map.iter().filter(|(_, value)| !value.is_null()) {
                let _ = write!(out, "{:depth$}{}:", "", scalar(&Value::String(key.clone())));
                child(out, value, depth);
            }
        }
        Value::Array(items) => {
            for item in items {
                let _ = write!(out, "{:depth$}-", "");
                let mut inner = String::new();
                child(&mut inner, item, depth);
                // The first key of an object stands beside its dash.
                match inner.strip_prefix('\n') {
                    Some(rest) => out.push_str(&format!(" {}", rest.trim_start_matches(' '))),
                    None => out.push_str(&inner),
                }
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
            let _ = writeln!(out, "{:depth$}{}", "", scalar(value));
        }
    }
}

fn child(out: &mut String, value: &Value, depth: usize) {
    match value {
        Value::Object(map) if map.is_empty() => out.push_str(" {}\n"),
        Value::Array(items) if items.is_empty() => out.push_str(" []\n"),
        Value::Object(_) | Value::Array(_) => {
            out.push('\n');
            block(out, value, depth + 2);
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
            let _ = writeln!(out, " {}", scalar(value));
        }
    }
}

fn scalar(value: &Value) -> String {
    let Value::String(text) = value else {
        return value.to_string();
    };
    let plain = text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "-_./ ,()'".contains(c))
        && !text.ends_with(' ')
        && !["true", "false", "null", "yes", "no", "on", "off", "y", "n"]
            .contains(&text.to_ascii_lowercase().as_str());
    // JSON's strings are YAML's double-quoted ones.
    if plain { text.clone() } else { value.to_string() }
}
