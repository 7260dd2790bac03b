//! Stages for the contract suite, also over the wire (`POST /emulator/stage`), so that a
//! conformance kit in another process can ask for one.

use std::time::Instant;

use serde_json::{Value, json};

use super::model::{Backend, Model, Portal, Replica, Volume};
use super::{KumoScale, lock};
use crate::server::Answer;

/// One volume, and room for more replicas.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stage {
    /// The volume's UUID; an array of that UUID is found by it.
    pub uuid: String,
    /// Its name.
    pub alias: String,
    /// How many replicas it has, all good.
    pub replicas: usize,
    /// How large each is.
    pub capacity: u64,
    /// Backends with room for another replica, and how much each has.
    pub spares: Vec<u64>,
    /// The host it is published to.
    pub host: String,
}

impl Stage {
    fn from_json(value: &Value) -> Option<Self> {
        let text = |name: &str| value.get(name)?.as_str().map(str::to_owned);
        let number = |name: &str| value.get(name)?.as_u64();
        Some(Self {
            uuid: text("uuid")?,
            alias: text("alias")?,
            replicas: usize::try_from(number("replicas")?).ok().filter(|count| *count <= 64)?,
            capacity: number("capacity")?,
            spares: value.get("spares")?.as_array()?.iter().filter_map(Value::as_u64).collect(),
            host: text("host")?,
        })
    }

    /// The model that stands there.
    #[must_use]
    pub fn model(&self) -> Model {
        let mut model = Model::default();
        let mut replicas = Vec::new();
        for number in 0..self.replicas {
            let backend = backend(number, 0);
            replicas.push(Replica {
                uuid: model.fresh_uuid(),
                state: "Available".to_owned(),
                since: Instant::now(),
                backend: backend.id.clone(),
                touched: true,
                hidden: 0,
            });
            model.backends.push(backend);
        }
        let spares = self.spares.iter().enumerate();
        model.backends.extend(spares.map(|(number, room)| backend(self.replicas + number, *room)));
        model.volumes.push(Volume {
            uuid: self.uuid.clone(),
            alias: self.alias.clone(),
            num_replicas: u64::try_from(self.replicas).unwrap_or(u64::MAX),
            max_replica_down_time: 10,
            capacity: self.capacity,
            replicas,
            published: [self.host.clone()].into(),
        });
        model
    }
}

fn backend(number: usize, room: u64) -> Backend {
    let transport = if number % 2 == 0 { "TCP" } else { "RoCEv2" };
    Backend {
        id: format!("backend-{number}"),
        state: "Available".to_owned(),
        portals: vec![Portal {
            ip: format!("192.0.2.{}", number % 250 + 1),
            port: 4420,
            transport: transport.to_owned(),
        }],
        nqn: format!("nqn.2019-10.com.kioxia:backend-{number}"),
        room,
    }
}

impl KumoScale {
    pub(super) fn stage(&self, body: &[u8]) -> Answer {
        let stage = serde_json::from_slice(body).ok().as_ref().and_then(Stage::from_json);
        match stage {
            None => Answer { status: 400, body: "not a stage".into() },
            Some(stage) => {
                *lock(&self.model) = stage.model();
                Answer::ok(json!({ "status": "Success", "description": "" }).to_string())
            }
        }
    }
}
