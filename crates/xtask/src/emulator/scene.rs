//! A provisioner whose volume and backends are somebody else's: a lab's, with a real target for
//! each replica.
//!
//! ```text
//!   emulator ── PROGRAM make UUID BACKEND ──► a namespace of that UUID behind the backend's portals
//!            └─ PROGRAM delete UUID BACKEND ──► it is gone
//! ```

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::Context as _;
use serde::Deserialize;
use vendor_emulator::async_trait;
use vendor_emulator::kumoscale::{Backend, Model, Portal, Replica, Replicas, Volume};

/// One volume, and where it and its replacements can be.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Scene {
    uuid: String,
    alias: String,
    /// Minutes; none: never.
    down_time: u64,
    host: String,
    /// How many replicas it has: each on a backend of its own, the first ones.
    replicas: Vec<String>,
    backends: Vec<Place>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Place {
    id: String,
    nqn: String,
    address: String,
    port: u16,
}

impl Scene {
    pub(super) fn read(path: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("cannot read {}", path.display()))?;
        let scene: Self = serde_json::from_str(&text)
            .with_context(|| format!("{} is no scene", path.display()))?;
        anyhow::ensure!(
            scene.replicas.len() <= scene.backends.len(),
            "there are more replicas than backends"
        );
        Ok(scene)
    }

    /// Every replica takes one unit of room, and a backend has one.
    pub(super) fn model(self) -> Model {
        let taken = self.replicas.len();
        let replicas: Vec<Replica> = self
            .replicas
            .into_iter()
            .zip(&self.backends)
            .map(|(uuid, place)| Replica {
                uuid,
                state: "Available".to_owned(),
                since: Instant::now(),
                backend: place.id.clone(),
                touched: true,
                hidden: 0,
            })
            .collect();
        let backends = self.backends.into_iter().enumerate().map(|(number, place)| Backend {
            id: place.id,
            state: "Available".to_owned(),
            portals: vec![Portal { ip: place.address, port: place.port, transport: "TCP".into() }],
            nqn: place.nqn,
            room: u64::from(number >= taken),
        });
        let mut model = Model::default();
        model.backends.extend(backends);
        model.volumes.push(Volume {
            uuid: self.uuid,
            alias: self.alias,
            num_replicas: replicas.len().try_into().unwrap_or(u64::MAX),
            max_replica_down_time: self.down_time,
            capacity: 1,
            replicas,
            published: [self.host].into(),
        });
        model
    }
}

/// Replicas that a program makes.
#[derive(Debug)]
pub(super) struct ByProgram(pub(super) PathBuf);

impl ByProgram {
    async fn ask(&self, verb: &'static str, uuid: &str, backend: &str) -> Result<(), String> {
        let mut command = Command::new(&self.0);
        command.args([verb, uuid, backend]);
        let done = tokio::task::spawn_blocking(move || command.output())
            .await
            .map_err(|error| error.to_string())?
            .map_err(|error| format!("{} cannot be started: {error}", self.0.display()))?;
        match done.status.success() {
            true => Ok(()),
            false => {
                Err(format!("{verb} {uuid}: {}", String::from_utf8_lossy(&done.stderr).trim()))
            }
        }
    }
}

#[async_trait]
impl Replicas for ByProgram {
    async fn make(&self, replica: &Replica, backend: &Backend, _: u64) -> Result<(), String> {
        self.ask("make", &replica.uuid, &backend.id).await
    }

    async fn delete(&self, replica: &Replica) -> Result<(), String> {
        self.ask("delete", &replica.uuid, &replica.backend).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scene_has_its_replicas_on_the_first_backends_and_room_on_the_others() {
        let text = r#"{"uuid":"u","alias":"a","down_time":1,"host":"h","replicas":["r1","r2"],
            "backends":[{"id":"one","nqn":"n1","address":"10.0.0.1","port":4420},
            {"id":"two","nqn":"n2","address":"10.0.0.2","port":4420},
            {"id":"three","nqn":"n3","address":"10.0.0.3","port":4420}]}"#;
        let model = serde_json::from_str::<Scene>(text).unwrap().model();
        let volume = model.volume("u").unwrap();
        let on: Vec<&str> = volume.replicas.iter().map(|r| r.backend.as_str()).collect();
        assert_eq!(on, ["one", "two"]);
        let room: Vec<u64> = model.backends.iter().map(|backend| backend.room).collect();
        assert_eq!(room, [0, 0, 1]);
    }
}
