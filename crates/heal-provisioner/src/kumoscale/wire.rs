//! What the provisioner says, as it says it.
//!
//! A list is an array at the top, even for one thing asked for by name; everything else is an
//! object with `status` and `description`; an error page is neither. Fields that are not known are
//! passed over, and one that is missing is missing: what needs it fails, by its name, and nothing
//! else does.

use heal_types::{FaultClass, ProvisionerFault};
use serde::de::{DeserializeOwned, IgnoredAny, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use crate::client::Reply;
use crate::text::printable;

/// More of anything in one list is not believed.
const MAX_LIST: usize = 1024;

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Volume {
    pub(super) uuid: String,
    #[serde(default)]
    pub(super) alias: Option<String>,
    #[serde(default)]
    pub(super) num_replicas: Option<u16>,
    /// Minutes; zero: never.
    #[serde(default)]
    pub(super) max_replica_down_time: Option<f64>,
    #[serde(default)]
    pub(super) location: Option<Bounded<Location>>,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Location {
    /// The namespace's UUID as well as the replica's name.
    pub(super) uuid: String,
    #[serde(default)]
    pub(super) replica_state: Option<String>,
    /// Milliseconds in this state.
    #[serde(default)]
    pub(super) current_state_time: Option<f64>,
    #[serde(default)]
    pub(super) backend: Option<BackendRef>,
}

impl Location {
    /// The backend it is on; none for a replica that is nowhere.
    pub(super) fn backend(&self) -> Option<&str> {
        let id = self.backend.as_ref()?.persistent_id.as_deref()?;
        (!id.is_empty()).then_some(id)
    }
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(super) struct BackendRef {
    #[serde(rename = "persistentID", default)]
    pub(super) persistent_id: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(super) struct Backend {
    #[serde(rename = "persistentID")]
    pub(super) persistent_id: String,
    #[serde(default)]
    pub(super) portals: Option<Bounded<Portal>>,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(super) struct Portal {
    pub(super) ip: String,
    pub(super) port: Port,
    #[serde(default)]
    pub(super) transport: Option<String>,
}

/// A number, or the text of one.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(untagged)]
pub(super) enum Port {
    Number(u16),
    Text(String),
}

impl Port {
    pub(super) fn number(&self) -> Option<u16> {
        match self {
            Self::Number(port) => Some(*port),
            Self::Text(text) => text.trim().parse().ok(),
        }
    }
}

/// Both shapes: one target for a host (`name`), or one for each backend (`targetName`, `backend`).
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Target {
    #[serde(default)]
    pub(super) name: Option<String>,
    #[serde(default)]
    pub(super) target_name: Option<String>,
    #[serde(default)]
    pub(super) backend: Option<BackendRef>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct HostProbe<'a> {
    pub(super) client_type: &'a str,
    pub(super) duration: u64,
    pub(super) host_id: &'a str,
    pub(super) host_nqn: &'a str,
    pub(super) multipath: bool,
    pub(super) name: &'a str,
    pub(super) version: &'a str,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct AddReplica {
    pub(super) racks: [&'static str; 0],
    pub(super) regions: [&'static str; 0],
    pub(super) same_rack_allowed: bool,
    pub(super) zones: [&'static str; 0],
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Publish<'a> {
    pub(super) host_id: &'a str,
    pub(super) vol_id: &'a str,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ForwardLog<'a> {
    pub(super) app_name: &'a str,
    pub(super) host: &'a str,
    pub(super) level: &'a str,
    pub(super) logging_type: &'a str,
    pub(super) message: &'a str,
    pub(super) parameters_list: &'a std::collections::BTreeMap<String, String>,
}

/// For the emulated provisioner only.
#[derive(Debug, Serialize)]
pub(super) struct Stage<'a> {
    pub(super) uuid: &'a str,
    pub(super) alias: &'a str,
    pub(super) replicas: u16,
    pub(super) capacity: u64,
    pub(super) spares: &'a [u64],
    pub(super) host: &'a str,
}

/// A list of which no more than a bound is kept or even looked at.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Bounded<T>(pub(super) Vec<T>);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Bounded<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct List<T>(std::marker::PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for List<T> {
            type Value = Bounded<T>;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                write!(f, "a list of at most {MAX_LIST}")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Bounded<T>, A::Error> {
                let mut kept = Vec::new();
                while kept.len() < MAX_LIST {
                    match list.next_element()? {
                        Some(element) => kept.push(element),
                        None => return Ok(Bounded(kept)),
                    }
                }
                match list.next_element::<IgnoredAny>()? {
                    None => Ok(Bounded(kept)),
                    Some(_) => Err(serde::de::Error::invalid_length(MAX_LIST + 1, &self)),
                }
            }
        }
        deserializer.deserialize_seq(List(std::marker::PhantomData))
    }
}

/// The answer to everything that is no list.
#[derive(Debug, Deserialize)]
struct Verdict {
    status: Option<String>,
    description: Option<String>,
}

fn fault(class: FaultClass, detail: impl std::fmt::Display) -> ProvisionerFault {
    ProvisionerFault::new(class, detail)
}

/// The first byte of the body that is no blank: what kind of answer this is.
fn kind(reply: &Reply) -> Option<u8> {
    reply.body.iter().copied().find(|byte| !byte.is_ascii_whitespace())
}

/// Whether the reply says that our credentials were not accepted. Tomcat says it in an error page,
/// and the status beside it may be 200.
pub(super) fn refuses(reply: &Reply) -> bool {
    match kind(reply) {
        Some(b'[') => false,
        Some(b'{') => matches!(reply.status, 401 | 403),
        Some(_) | None => {
            matches!(reply.status, 401 | 403) || page_says(reply, &["Status 401", "Status 403"])
        }
    }
}

fn page_says(reply: &Reply, words: &[&str]) -> bool {
    let page = reply.body.get(..4096).unwrap_or(&reply.body);
    let page = String::from_utf8_lossy(page);
    words.iter().any(|word| page.contains(word))
}

/// The elements of a list.
pub(super) fn list<T: DeserializeOwned>(reply: &Reply) -> Result<Vec<T>, ProvisionerFault> {
    match kind(reply) {
        Some(b'[') => {
            serde_json::from_slice::<Bounded<T>>(&reply.body).map(|list| list.0).map_err(|error| {
                fault(FaultClass::Invalid, format_args!("a list cannot be read: {error}"))
            })
        }
        Some(b'{') => match verdict(reply) {
            Ok(()) => Err(fault(FaultClass::Invalid, "success where a list was asked for")),
            Err(fault) => Err(fault),
        },
        Some(_) | None => Err(page(reply)),
    }
}

/// Whether what was asked for was done.
pub(super) fn done(reply: &Reply, already: &[&str]) -> Result<(), ProvisionerFault> {
    match kind(reply) {
        Some(b'{') => match verdict_word(reply)? {
            (status, _) if status == "Success" || already.contains(&status.as_str()) => Ok(()),
            (status, description) => Err(refusal(&status, description.as_deref())),
        },
        Some(b'[') => Err(fault(FaultClass::Invalid, "a list where a status was asked for")),
        Some(_) | None => Err(page(reply)),
    }
}

fn verdict(reply: &Reply) -> Result<(), ProvisionerFault> {
    done(reply, &[])
}

fn verdict_word(reply: &Reply) -> Result<(String, Option<String>), ProvisionerFault> {
    let verdict: Verdict = serde_json::from_slice(&reply.body).map_err(|error| {
        fault(FaultClass::Invalid, format_args!("a status cannot be read: {error}"))
    })?;
    match verdict.status {
        Some(status) => Ok((status, verdict.description)),
        None => Err(fault(FaultClass::Invalid, "an answer without status")),
    }
}

/// What a status other than success means. A word that nobody documented is a refusal: it was
/// understood, and was not done.
fn refusal(status: &str, description: Option<&str>) -> ProvisionerFault {
    let class = match status {
        "VolumeNotFound" | "ReplicaNotFound" | "DeviceNotFound" | "NotExists" | "NotFound" => {
            FaultClass::NotFound
        }
        "Unauthorized" | "Bad credentials" | "Access is denied" => FaultClass::Unauthorized,
        "CommunicationError" | "Communication Error" | "Provisioner Communication Error" => {
            FaultClass::Unreachable
        }
        _ => FaultClass::Refused,
    };
    let text = match description {
        Some(description) => format!("{status}: {description}"),
        None => status.to_owned(),
    };
    fault(class, printable(&text, 300))
}

/// Neither a list nor a status: an error page, or nothing.
fn page(reply: &Reply) -> ProvisionerFault {
    let (status, empty) = (reply.status, reply.body.is_empty());
    if empty && status < 500 {
        return fault(FaultClass::Invalid, format_args!("an empty answer with status {status}"));
    }
    if status >= 500 || page_says(reply, &["Status 500", "Status 502", "Status 503", "Status 504"])
    {
        return fault(FaultClass::Unreachable, format_args!("an error page with status {status}"));
    }
    let start = String::from_utf8_lossy(reply.body.get(..80).unwrap_or(&reply.body)).into_owned();
    fault(
        FaultClass::Invalid,
        format_args!(
            "neither a list nor a status, with status {status}: {}",
            printable(&start, 80)
        ),
    )
}
