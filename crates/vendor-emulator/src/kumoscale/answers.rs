//! What is answered to each request.

use std::time::Instant;

use serde_json::{Value, json};

use super::model::{Backend, Replica, Volume};
use super::{KumoScale, Options, Targets, lock};
use crate::server::Answer;

const STATES: [&str; 3] = ["Available", "Synchronizing", "Missing"];

/// `%41` is `A`.
pub(super) fn unquoted(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let pair = tail.get(..2).and_then(|pair| std::str::from_utf8(pair).ok());
        match pair.filter(|_| *first == b'%').and_then(|pair| u8::from_str_radix(pair, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &tail[2..];
            }
            None => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

pub(super) fn unauthorised(as_page: bool) -> Answer {
    let page = "<!doctype html><html><head><title>HTTP Status 401 \u{2013} Unauthorized</title></head>\
                <body><h1>HTTP Status 401 \u{2013} Unauthorized</h1></body></html>";
    Answer { status: if as_page { 200 } else { 401 }, body: page.into() }
}

fn no_such_path() -> Answer {
    let page = "<!doctype html><html><title>HTTP Status 404 \u{2013} Not Found</title></html>";
    Answer { status: 404, body: page.into() }
}

fn status(status: &str, description: &str) -> Answer {
    Answer::ok(json!({ "description": description, "status": status }).to_string())
}

fn success() -> Answer {
    status("Success", "")
}

fn no_volume(uuid: &str) -> Answer {
    status("VolumeNotFound", &format!("Volume {uuid} was not found"))
}

fn no_replica(uuid: &str) -> Answer {
    status("NotExists", &format!("Replica {uuid} does not exist"))
}

fn query(path: &str, name: &str) -> Option<String> {
    let (_, query) = path.split_once('?')?;
    query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('=')).map(unquoted)
}

impl KumoScale {
    /// Every `GET`.
    pub(super) fn look(&self, options: &Options, segments: &[&str], path: &str) -> Answer {
        let mut model = lock(&self.model);
        let volume = match segments {
            ["volumes", uuid] => model.volume(uuid).map(|volume| volume.uuid.clone()),
            ["volumes_by_alias", alias] => model
                .volumes
                .iter()
                .find(|volume| volume.alias == *alias)
                .map(|volume| volume.uuid.clone()),
            _ => None,
        };
        let list = match segments {
            ["info"] => {
                let info = json!({ "totalFreeSpace": 0, "version": "3.22.170" });
                return Answer::ok(info.to_string());
            }
            ["volumes", _] | ["volumes_by_alias", _] => match volume {
                None => Vec::new(),
                Some(uuid) => {
                    model.volume_mut(&uuid).map(|v| show_volume(options, v)).into_iter().collect()
                }
            },
            ["targets"] => {
                let (host, volume) = (query(path, "hostId"), query(path, "volId"));
                if host.is_none() && volume.is_none() {
                    return status("ParametersError", "hostId or volId is needed");
                }
                let of = |v: &&Volume| {
                    volume.as_ref().is_none_or(|id| v.uuid.eq_ignore_ascii_case(id))
                        && host.as_ref().is_none_or(|host| v.published.contains(host))
                };
                let volumes: Vec<&Volume> = model.volumes.iter().filter(of).collect();
                show_targets(options, &volumes, &model.backends, host.as_deref())
            }
            ["backends"] => model.backends.iter().map(show_backend).collect(),
            ["backends", id] => {
                model.backends.iter().filter(|b| b.id == *id).map(show_backend).collect()
            }
            ["hosts"] => model.hosts.iter().map(|host| json!({ "uuid": host })).collect(),
            ["tasks"] | ["snapshots", _] => Vec::new(),
            _ => return no_such_path(),
        };
        Answer::ok(Value::Array(list).to_string())
    }

    /// Everything that changes the model and nothing else.
    pub(super) fn change_model(
        &self,
        options: &Options,
        method: &str,
        segments: &[&str],
        body: &[u8],
    ) -> Answer {
        let body: Value = serde_json::from_slice(body).unwrap_or(Value::Null);
        let text = |name: &str| body.get(name).and_then(Value::as_str).map(str::to_owned);
        let mut model = lock(&self.model);
        match (method, segments) {
            ("POST", ["host_probe"]) => match (text("hostNqn"), text("hostId"), text("name")) {
                (Some(_), Some(id), Some(_)) => {
                    model.hosts.insert(id);
                    success()
                }
                _ => status("ParametersError", "hostNqn, hostId and name are needed"),
            },
            ("POST", ["publish"]) => match (text("hostId"), text("volId")) {
                (Some(host), Some(id)) => match model.volume_mut(&id) {
                    None => no_volume(&id),
                    Some(volume) => match volume.published.insert(host) {
                        true => success(),
                        false => status("AlreadyPublished", "The host has the volume"),
                    },
                },
                _ => status("ParametersError", "hostId and volId are needed"),
            },
            ("POST", ["unpublish"]) => {
                let volume = text("volId").unwrap_or_default();
                let host = text("hostId").unwrap_or_default();
                match model.volume_mut(&volume).is_some_and(|v| v.published.remove(&host)) {
                    true => success(),
                    false => status("VolumeNotPublished", "The host does not have the volume"),
                }
            }
            ("POST", ["forward_log"]) => {
                model.messages.extend(text("message"));
                success()
            }
            ("PATCH", ["replica", volume, replica]) => match model.volume_mut(volume) {
                None => no_volume(volume),
                Some(volume) => match volume.replica_mut(replica) {
                    None => no_replica(replica),
                    Some(replica) => {
                        replica.set_state("Terminating");
                        success()
                    }
                },
            },
            ("PATCH", ["replica", volume, replica, state]) if STATES.contains(state) => {
                match model.volume_mut(volume) {
                    None => no_volume(volume),
                    Some(volume) => match volume.replica_mut(replica) {
                        None => no_replica(replica),
                        Some(replica) => {
                            replica.set_state(state);
                            success()
                        }
                    },
                }
            }
            ("PATCH", ["replica", _, _, state]) => {
                status("InvalidInput", &format!("{state} is not a replica state"))
            }
            ("PUT", ["tasks"]) => success(),
            _ => {
                let _ = options;
                no_such_path()
            }
        }
    }

    /// `POST /replica/{v}`.
    pub(super) async fn add(&self, options: &Options, uuid: &str) -> Answer {
        let _turn = self.turn.lock().await;
        let (replica, backend, capacity) = {
            let mut model = lock(&self.model);
            let Some(volume) = model.volume(uuid).cloned() else { return no_volume(uuid) };
            if volume.replicas.len() >= options.max_replicas {
                return status("MaxReplicas", "The volume has as many replicas as it can have");
            }
            if !volume.replicas.iter().any(|replica| replica.state == "Available") {
                return status("NotEnoughReplicas", "No replica of the volume is available");
            }
            let Some(backend) = model.room_for(&volume).cloned() else {
                return status("NotAvailable", "No backend has enough room for another replica");
            };
            let replica = Replica {
                uuid: model.fresh_uuid(),
                state: options.made.clone(),
                since: Instant::now(),
                backend: backend.id.clone(),
                touched: false,
                hidden: options.listed_after,
            };
            (replica, backend, volume.capacity)
        };
        if let Err(why) = self.replicas.make(&replica, &backend, capacity).await {
            return status("NotAvailable", &why);
        }
        let mut model = lock(&self.model);
        if let Some(backend) = model.backends.iter_mut().find(|b| b.id == replica.backend) {
            backend.room -= capacity;
        }
        if let Some(volume) = model.volume_mut(uuid) {
            volume.num_replicas += u64::from(options.counts_added);
            volume.replicas.push(replica);
        }
        success()
    }

    /// `DELETE /replica/{v}/{r}`.
    pub(super) async fn confirm(&self, options: &Options, uuid: &str, replica: &str) -> Answer {
        let _turn = self.turn.lock().await;
        let (gone, capacity) = {
            let model = lock(&self.model);
            let Some(volume) = model.volume(uuid) else { return no_volume(uuid) };
            match volume.replica(replica) {
                None => return no_replica(replica),
                Some(replica) if replica.state != "Terminating" => {
                    return status("InvalidInput", "The deletion was not requested");
                }
                Some(replica) => (replica.clone(), volume.capacity),
            }
        };
        if let Err(why) = self.replicas.delete(&gone).await {
            return status("NotAvailable", &why);
        }
        let mut model = lock(&self.model);
        if let Some(volume) = model.volume_mut(uuid) {
            volume.replicas.retain(|replica| replica.uuid != gone.uuid);
            volume.num_replicas -= u64::from(options.counts_added && volume.num_replicas > 1);
        }
        if options.reclaim || !gone.touched {
            if let Some(backend) = model.backends.iter_mut().find(|b| b.id == gone.backend) {
                backend.room += capacity;
            }
        }
        success()
    }
}

fn show_volume(options: &Options, volume: &mut Volume) -> Value {
    let mut listed = Vec::new();
    for replica in &mut volume.replicas {
        if replica.hidden > 0 {
            replica.hidden -= 1;
        } else {
            listed.push(show_replica(options, replica));
        }
    }
    json!({
        "alias": volume.alias,
        "blockSize": 4096,
        "capacity": volume.capacity,
        "desiredBW": 0,
        "location": listed,
        "maxReplicaDownTime": volume.max_replica_down_time,
        "numReplicas": volume.num_replicas,
        "protocol": "NVMeoF",
        "uuid": volume.uuid,
        "writable": true,
    })
}

fn show_replica(options: &Options, replica: &Replica) -> Value {
    // One that nobody had yet is where it was made.
    let nowhere = options.missing_is_nowhere && replica.touched && replica.state == "Missing";
    let milliseconds = u64::try_from(replica.since.elapsed().as_millis()).unwrap_or(u64::MAX);
    json!({
        "backend": {
            "mgmtIPs": [],
            "persistentID": if nowhere { "" } else { replica.backend.as_str() },
        },
        "currentStateTime": milliseconds,
        "replicaState": replica.state,
        "uuid": replica.uuid,
    })
}

fn show_backend(backend: &Backend) -> Value {
    let portals: Vec<Value> = backend
        .portals
        .iter()
        .map(
            |portal| json!({ "ip": portal.ip, "port": portal.port, "transport": portal.transport }),
        )
        .collect();
    json!({
        "availableCapacity": backend.room,
        "hostId": "",
        "inUse": true,
        "mgmtIPs": ["192.0.2.1"],
        "persistentID": backend.id,
        "portals": portals,
        "rack": "r1", "region": "", "zone": "",
        "state": backend.state,
    })
}

fn show_targets(
    options: &Options,
    volumes: &[&Volume],
    backends: &[Backend],
    host: Option<&str>,
) -> Vec<Value> {
    let replicas: usize = volumes.iter().map(|volume| volume.replicas.len()).sum();
    match options.targets {
        Targets::PerHost if replicas == 0 || volumes.iter().all(|v| v.published.is_empty()) => {
            Vec::new()
        }
        Targets::PerHost => {
            let host = host
                .map(str::to_owned)
                .or_else(|| volumes.iter().find_map(|v| v.published.first().cloned()))
                .unwrap_or_default();
            let name = format!("nqn.2019-10.com.kioxia:host-{host}");
            vec![json!({ "name": name, "numNamespaces": replicas })]
        }
        Targets::PerBackend => {
            let on = |backend: &&Backend| {
                volumes
                    .iter()
                    .filter(|volume| !volume.published.is_empty())
                    .any(|volume| volume.replicas.iter().any(|r| r.backend == backend.id))
            };
            let show = |backend: &Backend| json!({ "targetName": backend.nqn, "backend": { "persistentID": backend.id } });
            backends.iter().filter(on).map(show).collect()
        }
    }
}
