//! The fence of an SPDK target: the target's own JSON-RPC.
//!
//! ```text
//!   controller ── TLS, certificates on both sides ── stunnel or its like ── the target's RPC socket
//!
//!   close    the token is written; no host may connect; hosts that are connected are thrown out
//!   report   the list, the controllers and the queue pairs, as the target has them now
//!   admit    nobody else is connected ─► this host on the list ─► still the newest token?
//! ```
//!
//! SPDK ends a host's connections when the host is taken off the list, some time after it says so.
//! A controller leaves its subsystem when the last of its queue pairs is gone, and a queue pair
//! goes when nothing that came by it is under way. So an empty list of controllers and of queue
//! pairs is the proof, and the answer to "take it off" is none. A host that is connected although
//! it is not on the list (any host could connect before) is put on it for a moment, because only so
//! can it be thrown out.
//!
//! A target keeps no token for us. It keeps subsystems, and making one of a name that exists is
//! refused: the token of a device is an empty subsystem beside its own, without host, namespace or
//! listener, whose name says the number. Nobody can connect to it, and the target saves it as it
//! saves everything.
//!
//! The price: between looking at the token and letting a host in is a moment; it is looked at again
//! afterwards, and the host is thrown out if somebody newer was there. And a target that starts
//! from an older file is what that file says: no device of ours may have hosts in it.

use std::collections::BTreeSet;
use std::time::Duration;

use async_trait::async_trait;
use heal_types::Nqn;
use heal_types::cluster::Generation;
use heal_types::fence::Told;
use nvmeof_recoverer::plan::relocate::Answer;
use nvmeof_recoverer::plan::view::FenceHealth;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use super::{Ask, Fence, Verb, answer, health, tls};
use crate::config::FenceTls;
use crate::crd;

/// How long all of a question may take.
const DEADLINE: Duration = Duration::from_secs(20);
/// As much of an answer as is read: a target may have a thousand subsystems.
const MOST: usize = 8 << 20;

/// An SPDK target.
#[derive(Debug, Clone)]
pub struct SpdkFence {
    at: crd::Spdk,
    tls: Option<FenceTls>,
}

/// Why a question ends without having been answered.
enum Stop {
    Again(String),
    Refused(String),
}

impl From<String> for Stop {
    fn from(why: String) -> Self {
        Self::Again(why)
    }
}

/// One of `nvmf_get_subsystems`.
#[derive(Debug, Clone, Deserialize)]
struct Subsystem {
    nqn: String,
    /// What is not known to be off is on.
    #[serde(default = "on")]
    allow_any_host: bool,
    #[serde(default)]
    hosts: Vec<Host>,
    #[serde(default)]
    namespaces: Vec<Namespace>,
}

fn on() -> bool {
    true
}

#[derive(Debug, Clone, Deserialize)]
struct Host {
    nqn: String,
}

#[derive(Debug, Clone, Deserialize)]
struct Namespace {
    bdev_name: Option<String>,
}

/// One of `nvmf_subsystem_get_controllers`.
#[derive(Debug, Deserialize)]
struct Controller {
    hostnqn: String,
}

/// What the target says of one device.
struct Seen {
    subsystem: Subsystem,
    /// The newest token, and every name that says one.
    generation: Generation,
    tokens: Vec<(Generation, String)>,
    /// Others that have the same device.
    doubles: Vec<String>,
}

impl Seen {
    fn hosts(&self) -> Vec<String> {
        self.subsystem.hosts.iter().map(|host| host.nqn.clone()).collect()
    }
}

/// The name of the subsystem that is a device's token.
fn token(subsystem: &Nqn, generation: Generation) -> String {
    format!("{subsystem}:generation-{generation}")
}

fn read_token(subsystem: &Nqn, name: &str) -> Option<Generation> {
    let number = name.strip_prefix(subsystem.as_str())?.strip_prefix(":generation-")?;
    number.parse().ok().map(Generation)
}

impl SpdkFence {
    /// The target at that place.
    #[must_use]
    pub fn new(at: crd::Spdk, tls: Option<FenceTls>) -> Self {
        Self { at, tls }
    }

    async fn open(&self) -> Result<Rpc, String> {
        let stream = tls::connect(&self.at.host, self.at.port, self.tls.as_ref(), &[]).await?;
        Ok(Rpc { host: self.at.host.clone(), stream, asked: 0, unread: Vec::new() })
    }

    async fn carry_out(&self, ask: &Ask) -> Result<Told, Stop> {
        let mut rpc = self.open().await?;
        let nqn = &ask.device.subsystem;
        let seen = rpc.look(nqn).await?;
        if seen.generation > ask.generation {
            return Err(Stop::Refused("a newer move was here".to_owned()));
        }
        match &ask.verb {
            Verb::Report => rpc.report(nqn, seen).await,
            Verb::Close => {
                rpc.mark(nqn, &seen, ask.generation).await?;
                rpc.empty(nqn, &seen, None).await?;
                Ok(Told::Done {})
            }
            Verb::Admit(host) => {
                let host = host.host_nqn.as_ref();
                let host = host.ok_or_else(|| Stop::Refused("a host without a name".to_owned()))?;
                rpc.mark(nqn, &seen, ask.generation).await?;
                rpc.admit(nqn, &seen, ask.generation, host).await
            }
        }
    }
}

#[async_trait]
impl Fence for SpdkFence {
    async fn health(&self) -> FenceHealth {
        let asked = async {
            let mut rpc = self.open().await?;
            rpc.call::<Vec<Subsystem>>("nvmf_get_subsystems", json!({})).await
        };
        let told = match tokio::time::timeout(DEADLINE, asked).await {
            Ok(asked) => asked.map(|_| Told::Done {}),
            Err(_) => Err(late()),
        };
        if let Err(why) = &told {
            tracing::debug!(why, "a fence is not ready");
        }
        health(&told)
    }

    async fn ask(&self, ask: &Ask) -> Answer {
        let told = tokio::time::timeout(DEADLINE, self.carry_out(ask)).await;
        answer(match told {
            Ok(Ok(told)) => Ok(told),
            Ok(Err(Stop::Refused(why))) => Ok(Told::Refused(why)),
            Ok(Err(Stop::Again(why))) => Err(why),
            Err(_) => Err(late()),
        })
    }
}

fn late() -> String {
    format!("the target did not answer in {} s", DEADLINE.as_secs())
}

/// A conversation with a target.
struct Rpc {
    host: String,
    stream: TlsStream<TcpStream>,
    asked: u64,
    unread: Vec<u8>,
}

#[derive(Deserialize)]
struct Response {
    id: Value,
    #[serde(default)]
    result: Value,
    error: Option<Complaint>,
}

#[derive(Deserialize)]
struct Complaint {
    code: i64,
    message: String,
}

impl Rpc {
    async fn call<T: DeserializeOwned>(
        &mut self,
        method: &str,
        params: Value,
    ) -> Result<T, String> {
        self.asked += 1;
        let mut request = json!({ "jsonrpc": "2.0", "id": self.asked, "method": method });
        // Some methods take none, and refuse an empty object.
        if params.as_object().is_some_and(|params| !params.is_empty()) {
            request["params"] = params;
        }
        let failed = |why: String| format!("{}: {method}: {why}", self.host);
        let text = request.to_string();
        self.stream.write_all(text.as_bytes()).await.map_err(|e| failed(e.to_string()))?;
        self.stream.flush().await.map_err(|e| failed(e.to_string()))?;
        let response = self.response().await.map_err(|why| format!("{method}: {why}"))?;
        let failed = |why: String| format!("{}: {method}: {why}", self.host);
        if response.id != self.asked {
            return Err(failed("the answer is to another question".to_owned()));
        }
        if let Some(error) = response.error {
            return Err(failed(format!("{} ({})", error.message, error.code)));
        }
        serde_json::from_value(response.result)
            .map_err(|error| failed(format!("the answer is not understood: {error}")))
    }

    /// The next document: a target sends one after the other, with nothing in between that counts.
    async fn response(&mut self) -> Result<Response, String> {
        loop {
            let mut documents = serde_json::Deserializer::from_slice(&self.unread).into_iter();
            match documents.next() {
                Some(Ok(response)) => {
                    let read = documents.byte_offset();
                    self.unread.drain(..read);
                    return Ok(response);
                }
                Some(Err(error)) if !error.is_eof() => {
                    return Err(format!("the answer is not understood: {error}"));
                }
                Some(Err(_)) | None => {}
            }
            if self.unread.len() > MOST {
                return Err("the answer has no end".to_owned());
            }
            let mut more = vec![0; 64 << 10];
            match self.stream.read(&mut more).await {
                Ok(0) => return Err("no answer".to_owned()),
                Ok(read) => self.unread.extend_from_slice(&more[..read]),
                Err(error) => return Err(error.to_string()),
            }
        }
    }

    /// Something that answers with nothing but "true".
    async fn change(&mut self, method: &str, params: Value) -> Result<(), String> {
        match self.call(method, params).await? {
            true => Ok(()),
            false => Err(format!("{}: {method} was not done", self.host)),
        }
    }

    async fn look(&mut self, nqn: &Nqn) -> Result<Seen, Stop> {
        let all: Vec<Subsystem> = self.call("nvmf_get_subsystems", json!({})).await?;
        let found = all.iter().find(|it| it.nqn == nqn.as_str());
        let Some(subsystem) = found.cloned() else {
            // Nobody can write to it here, but it is not known either where else it is.
            return Err(Stop::Refused(format!("there is no subsystem {nqn}")));
        };
        let devices = |it: &Subsystem| -> BTreeSet<String> {
            it.namespaces.iter().filter_map(|it| it.bdev_name.clone()).collect()
        };
        let ours = devices(&subsystem);
        let double = |it: &&Subsystem| it.nqn != subsystem.nqn && !devices(it).is_disjoint(&ours);
        let doubles = all.iter().filter(double).map(|it| it.nqn.clone()).collect();
        let token = |it: &Subsystem| Some((read_token(nqn, &it.nqn)?, it.nqn.clone()));
        let tokens: Vec<_> = all.iter().filter_map(token).collect();
        let newest = tokens.iter().map(|(generation, _)| *generation).max();
        Ok(Seen { subsystem, generation: newest.unwrap_or(Generation(0)), tokens, doubles })
    }

    /// Hosts that can write: with a controller, or a queue pair that is not gone yet.
    async fn connected(&mut self, nqn: &Nqn) -> Result<Vec<String>, String> {
        let params = json!({ "nqn": nqn });
        let found: Vec<Controller> =
            self.call("nvmf_subsystem_get_controllers", params.clone()).await?;
        let queues: Vec<Value> = self.call("nvmf_subsystem_get_qpairs", params).await?;
        let mut hosts: Vec<String> = found.into_iter().map(|it| it.hostnqn).collect();
        if hosts.is_empty() && !queues.is_empty() {
            hosts.push("a host whose connection is being ended".to_owned());
        }
        Ok(hosts)
    }

    async fn report(&mut self, nqn: &Nqn, seen: Seen) -> Result<Told, Stop> {
        let mut connected = self.connected(nqn).await?;
        let whoever = |it: &String| format!("whoever uses {it}, which has the same device,");
        connected.extend(seen.doubles.iter().map(whoever));
        // Looked at last: whoever came in before the list was read is among the connected or comes
        // next.
        let now = self.look(nqn).await?;
        if now.generation != seen.generation {
            return Err(Stop::Again("somebody else is at it".to_owned()));
        }
        Ok(Told::Target {
            generation: now.generation,
            allowed: now.hosts(),
            any_host: now.subsystem.allow_any_host || seen.subsystem.allow_any_host,
            connected,
        })
    }

    /// Writes the token down, before anything is done for it.
    async fn mark(&mut self, nqn: &Nqn, seen: &Seen, generation: Generation) -> Result<(), Stop> {
        if seen.generation < generation {
            let params = json!({ "nqn": token(nqn, generation), "allow_any_host": false,
                "max_namespaces": 1 });
            self.change("nvmf_create_subsystem", params).await?;
        }
        for (older, name) in seen.tokens.iter().filter(|(it, _)| *it < generation) {
            let gone = self.change("nvmf_delete_subsystem", json!({ "nqn": name })).await;
            if let Err(error) = gone {
                tracing::debug!(%older, error, "an older token stays");
            }
        }
        Ok(())
    }

    /// Throws everybody out but `but`.
    async fn empty(&mut self, nqn: &Nqn, seen: &Seen, but: Option<&Nqn>) -> Result<(), Stop> {
        if seen.subsystem.allow_any_host {
            let params = json!({ "nqn": nqn, "allow_any_host": false });
            self.change("nvmf_subsystem_allow_any_host", params).await?;
        }
        let listed = seen.hosts();
        let stays = |host: &String| but.is_some_and(|but| but.as_str() == host);
        for host in listed.iter().filter(|host| !stays(host)) {
            self.remove(nqn, host).await?;
        }
        let params = json!({ "nqn": nqn });
        let found: Vec<Controller> = self.call("nvmf_subsystem_get_controllers", params).await?;
        let strangers: BTreeSet<String> = found.into_iter().map(|it| it.hostnqn).collect();
        for host in strangers.iter().filter(|host| !listed.contains(host)) {
            let params = json!({ "nqn": nqn, "host": host });
            self.change("nvmf_subsystem_add_host", params).await?;
            self.remove(nqn, host).await?;
        }
        Ok(())
    }

    async fn remove(&mut self, nqn: &Nqn, host: &str) -> Result<(), String> {
        let params = json!({ "nqn": nqn, "host": host });
        self.change("nvmf_subsystem_remove_host", params).await
    }

    async fn admit(
        &mut self,
        nqn: &Nqn,
        seen: &Seen,
        generation: Generation,
        host: &Nqn,
    ) -> Result<Told, Stop> {
        let listed = seen.hosts().iter().any(|it| it == host.as_str());
        let alone = listed && seen.hosts().len() == 1 && !seen.subsystem.allow_any_host;
        if !alone {
            self.empty(nqn, seen, Some(host)).await?;
        }
        let others = self.connected(nqn).await?;
        if let Some(other) = others.iter().find(|other| !listed || *other != host.as_str()) {
            return Err(Stop::Again(format!("{other} is still connected")));
        }
        if !listed {
            let params = json!({ "nqn": nqn, "host": host });
            self.change("nvmf_subsystem_add_host", params).await?;
        }
        let now = self.look(nqn).await?;
        if now.generation != generation {
            self.remove(nqn, host.as_str()).await?;
            return Err(Stop::Refused("a newer move was here".to_owned()));
        }
        if now.subsystem.allow_any_host || now.hosts() != [host.as_str()] {
            return Err(Stop::Again("somebody else changes its list".to_owned()));
        }
        Ok(Told::Done {})
    }
}
