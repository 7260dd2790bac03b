//! What the operator writes: volumes, their replicas, and spares.

use std::collections::{BTreeMap, BTreeSet};

use heal_types::{
    Alias, ArrayId, GracePolicy, NamespaceId, Nqn, Replica, ReplicaId, ReplicaState, SectorCount,
    Target, Volume, VolumeError, VolumeId, VolumeQuery,
};
use serde::Deserialize;
use thiserror::Error;

use crate::ron_text::{self, RonTextError};
use crate::text::{HumanGrace, HumanPortal, HumanSize};

/// The whole file.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Inventory {
    /// Not optional: a file without the word must not read as a file without volumes.
    volumes: Vec<VolumeEntry>,
    /// Spares that any volume may get.
    #[serde(default)]
    spares: Vec<ReplicaEntry>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename = "Volume", deny_unknown_fields)]
pub(super) struct VolumeEntry {
    pub(super) id: VolumeId,
    #[serde(default)]
    pub(super) array: Option<ArrayId>,
    #[serde(default)]
    pub(super) alias: Option<Alias>,
    pub(super) copies: u16,
    #[serde(default)]
    grace: Option<HumanGrace>,
    pub(super) replicas: Vec<ReplicaEntry>,
    /// Spares of this volume alone; taken before those of all.
    #[serde(default)]
    spares: Vec<ReplicaEntry>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename = "Replica", deny_unknown_fields)]
pub(super) struct ReplicaEntry {
    pub(super) id: ReplicaId,
    namespace: NamespaceId,
    nqn: Nqn,
    portals: Vec<HumanPortal>,
    #[serde(default)]
    size: Option<HumanSize>,
    #[serde(default)]
    pub(super) state: Marked,
    /// Counted up by the operator when the namespace was made afresh: what was noted of it before
    /// no longer holds.
    #[serde(default)]
    pub(super) renewed: u32,
}

/// What the operator says of a replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename = "State")]
pub(super) enum Marked {
    /// Nothing in particular.
    #[default]
    Available,
    /// It shall go.
    Terminating,
    /// Its content must not be used.
    Bad,
}

/// Why an inventory was refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum InventoryError {
    /// It is not RON, or not an inventory.
    #[error(transparent)]
    Text(#[from] RonTextError),
    /// A volume contradicts itself.
    #[error("{source_name} contradicts itself")]
    Volume {
        /// The file.
        source_name: String,
        /// How.
        #[source]
        why: VolumeError,
    },
    /// Two entries contradict each other.
    #[error("{source_name}: {why}")]
    Contradiction {
        /// The file.
        source_name: String,
        /// How, naming both.
        why: String,
    },
}

impl ReplicaEntry {
    pub(super) fn namespace(&self) -> NamespaceId {
        self.namespace
    }

    pub(super) fn size(&self) -> Option<SectorCount> {
        self.size.map(|size| size.0)
    }

    pub(super) fn target(&self) -> Target {
        Target {
            nqn: self.nqn.clone(),
            namespace: self.namespace,
            portals: self.portals.iter().map(|portal| portal.0.clone()).collect(),
            size: self.size(),
        }
    }
}

impl VolumeEntry {
    pub(super) fn grace(&self) -> Option<GracePolicy> {
        self.grace.map(|grace| grace.0)
    }
}

impl Inventory {
    pub(super) fn parse(text: &str, source_name: &str) -> Result<Self, InventoryError> {
        let inventory: Self = ron_text::parse(text, source_name)?;
        let contradiction =
            |why| InventoryError::Contradiction { source_name: source_name.to_owned(), why };
        inventory
            .check_replicas()
            .map_err(|why| InventoryError::Volume { source_name: source_name.to_owned(), why })?;
        inventory.check_volumes().map_err(contradiction)?;
        inventory.check_owners().map_err(contradiction)?;
        Ok(inventory)
    }

    pub(super) fn volumes(&self) -> &[VolumeEntry] {
        &self.volumes
    }

    pub(super) fn volume(&self, id: &VolumeId) -> Option<&VolumeEntry> {
        self.volumes.iter().find(|volume| volume.id == *id)
    }

    /// By the array's UUID; by its name only where the operator gave no UUID, because a name is
    /// where to look and a UUID is who it is.
    pub(super) fn find(&self, query: &VolumeQuery) -> Option<&VolumeEntry> {
        let by_array = |volume: &&VolumeEntry| volume.array == Some(query.array);
        let by_alias = |volume: &&VolumeEntry| {
            volume.array.is_none() && volume.alias.is_some() && volume.alias == query.alias
        };
        let mut volumes = self.volumes.iter();
        volumes.find(by_array).or_else(|| self.volumes.iter().find(by_alias))
    }

    /// The spares that `volume` may get, its own first.
    pub(super) fn spares_for<'a>(
        &'a self,
        volume: &'a VolumeEntry,
    ) -> impl Iterator<Item = &'a ReplicaEntry> {
        volume.spares.iter().chain(&self.spares)
    }

    /// Every entry of a replica or spare, with the volume it stands in.
    fn entries(&self) -> impl Iterator<Item = (Option<&VolumeId>, &ReplicaEntry)> {
        let owned = self.volumes.iter().flat_map(|volume| {
            let entries = volume.replicas.iter().chain(&volume.spares);
            entries.map(move |entry| (Some(&volume.id), entry))
        });
        owned.chain(self.spares.iter().map(|entry| (None, entry)))
    }

    /// The entry of that namespace, wherever it stands.
    pub(super) fn entry(&self, namespace: NamespaceId) -> Option<&ReplicaEntry> {
        self.entries().map(|(_, entry)| entry).find(|entry| entry.namespace == namespace)
    }

    /// Each volume, and each spare on its own, must be something that could be answered.
    fn check_replicas(&self) -> Result<(), VolumeError> {
        for volume in &self.volumes {
            as_volume(&volume.id, volume.copies, &volume.replicas).check()?;
            for spare in &volume.spares {
                as_volume(&volume.id, 1, std::slice::from_ref(spare)).check()?;
            }
        }
        let pool = VolumeId::new("(any)").expect("printable and short");
        self.spares
            .iter()
            .try_for_each(|spare| as_volume(&pool, 1, std::slice::from_ref(spare)).check())
    }

    fn check_volumes(&self) -> Result<(), String> {
        let (mut ids, mut arrays) = (BTreeSet::new(), BTreeMap::new());
        let mut aliases = BTreeMap::new();
        for volume in &self.volumes {
            if !ids.insert(&volume.id) {
                return Err(format!("volume {} is listed twice", volume.id));
            }
            let earlier = match (&volume.array, &volume.alias) {
                (Some(array), _) => arrays.insert(array, &volume.id),
                (None, Some(alias)) => aliases.insert(alias, &volume.id),
                (None, None) => {
                    return Err(format!(
                        "volume {} has neither an array nor an alias, so no array can be it",
                        volume.id
                    ));
                }
            };
            if let Some(earlier) = earlier {
                return Err(format!("volumes {earlier} and {} are one array", volume.id));
            }
        }
        Ok(())
    }

    /// A namespace listed twice would sooner or later be given to two arrays.
    fn check_owners(&self) -> Result<(), String> {
        let mut namespaces = BTreeMap::new();
        let (mut owned, mut anywhere) = (BTreeSet::new(), BTreeSet::new());
        for (volume, entry) in self.entries() {
            if let Some(earlier) = namespaces.insert(entry.namespace, &entry.id) {
                return Err(format!(
                    "namespace {} is listed twice, as {earlier} and as {}",
                    entry.namespace, entry.id
                ));
            }
            // Those of all volumes come last, and any volume could get them.
            let new_anywhere = anywhere.insert(&entry.id);
            let free = match volume {
                Some(volume) => owned.insert((volume, &entry.id)),
                None => new_anywhere,
            };
            if !free {
                return Err(format!(
                    "replica id {} is listed twice where one volume could have both",
                    entry.id
                ));
            }
        }
        Ok(())
    }
}

fn as_volume(id: &VolumeId, copies: u16, entries: &[ReplicaEntry]) -> Volume {
    Volume {
        id: id.clone(),
        array: None,
        alias: None,
        copies,
        replicas: entries
            .iter()
            .map(|entry| Replica {
                id: entry.id.clone(),
                state: ReplicaState::Available,
                target: entry.target(),
            })
            .collect(),
        grace: None,
    }
}
