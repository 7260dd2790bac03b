//! The provisioner's REST calls, one function each.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use heal_types::{Alias, ArrayId, FaultClass, ProvisionerFault, ReplicaId, VolumeId};
use hyper::Method;
use serde::Serialize;

use super::volume::check;
use super::wire;
use crate::CallContext;
use crate::client::{Client, ClientOptions, Reply, Request, quoted};
use crate::store::chain;

/// A replica's state as the provisioner is told of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Told {
    Available,
    Synchronizing,
    Missing,
}

impl Told {
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Available => "Available",
            Self::Synchronizing => "Synchronizing",
            Self::Missing => "Missing",
        }
    }
}

/// Calls the provisioner.
#[derive(Debug)]
pub(super) struct Rest {
    options: ClientOptions,
    made: Mutex<Option<Arc<Client>>>,
}

impl Rest {
    pub(super) fn new(options: ClientOptions) -> Self {
        Self { options, made: Mutex::new(None) }
    }

    pub(super) async fn host_probe(
        &self,
        context: &CallContext,
        probe: &wire::HostProbe<'_>,
    ) -> Result<(), ProvisionerFault> {
        let reply =
            self.call(context, Method::POST, "/host_probe".into(), body(probe)?, true).await?;
        wire::done(&reply, &[])
    }

    pub(super) async fn volume(
        &self,
        context: &CallContext,
        volume: &VolumeId,
    ) -> Result<Option<wire::Volume>, ProvisionerFault> {
        let found = self.list(context, format!("/volumes/{}", quoted(volume.as_str()))).await?;
        one_volume(found, |found: &wire::Volume| found.uuid.eq_ignore_ascii_case(volume.as_str()))
    }

    pub(super) async fn volume_by_array(
        &self,
        context: &CallContext,
        array: &ArrayId,
    ) -> Result<Option<wire::Volume>, ProvisionerFault> {
        let uuid = hyphenated(array);
        let found = self.list(context, format!("/volumes/{uuid}")).await?;
        one_volume(found, |found: &wire::Volume| found.uuid.eq_ignore_ascii_case(&uuid))
    }

    pub(super) async fn volume_by_alias(
        &self,
        context: &CallContext,
        alias: &Alias,
    ) -> Result<Option<wire::Volume>, ProvisionerFault> {
        let path = format!("/volumes_by_alias/{}", quoted(alias.as_str()));
        let found = self.list(context, path).await?;
        one_volume(found, |found: &wire::Volume| found.alias.as_deref() == Some(alias.as_str()))
    }

    pub(super) async fn targets(
        &self,
        context: &CallContext,
        host: Option<&str>,
        volume: &str,
    ) -> Result<Vec<wire::Target>, ProvisionerFault> {
        let host = host.map(|host| format!("hostId={}&", quoted(host))).unwrap_or_default();
        self.list(context, format!("/targets?{host}volId={}", quoted(volume))).await
    }

    pub(super) async fn backends(
        &self,
        context: &CallContext,
    ) -> Result<BTreeMap<String, wire::Backend>, ProvisionerFault> {
        let list: Vec<wire::Backend> = self.list(context, "/backends".into()).await?;
        Ok(list.into_iter().map(|backend| (backend.persistent_id.clone(), backend)).collect())
    }

    pub(super) async fn set_state(
        &self,
        context: &CallContext,
        volume: &VolumeId,
        replica: &ReplicaId,
        state: Told,
    ) -> Result<(), ProvisionerFault> {
        let path = format!("{}/{}", replica_path(volume, replica), state.word());
        let reply = self.call(context, Method::PATCH, path, None, true).await?;
        wire::done(&reply, &[])
    }

    /// Not repeatable: each one is a replica.
    pub(super) async fn add_replica(
        &self,
        context: &CallContext,
        volume: &VolumeId,
    ) -> Result<(), ProvisionerFault> {
        let path = format!("/replica/{}", quoted(volume.as_str()));
        let add = wire::AddReplica { racks: [], regions: [], same_rack_allowed: false, zones: [] };
        let reply = self.call(context, Method::POST, path, body(&add)?, false).await?;
        wire::done(&reply, &[])
    }

    /// Asks for the replica's deletion: it is `Terminating` from then on.
    pub(super) async fn delete_request(
        &self,
        context: &CallContext,
        volume: &VolumeId,
        replica: &ReplicaId,
    ) -> Result<(), ProvisionerFault> {
        let path = replica_path(volume, replica);
        let reply = self.call(context, Method::PATCH, path, None, true).await?;
        gone_is_done(wire::done(&reply, &[]))
    }

    /// Confirms that nobody uses it: it leaves the volume.
    pub(super) async fn delete_confirm(
        &self,
        context: &CallContext,
        volume: &VolumeId,
        replica: &ReplicaId,
    ) -> Result<(), ProvisionerFault> {
        let path = replica_path(volume, replica);
        let reply = self.call(context, Method::DELETE, path, None, true).await?;
        gone_is_done(wire::done(&reply, &[]))
    }

    pub(super) async fn publish(
        &self,
        context: &CallContext,
        host: &str,
        volume: &VolumeId,
    ) -> Result<(), ProvisionerFault> {
        let publish = wire::Publish { host_id: host, vol_id: volume.as_str() };
        let body = body(&publish)?;
        let reply = self.call(context, Method::POST, "/publish".into(), body, true).await?;
        wire::done(&reply, &["AlreadyPublished"])
    }

    pub(super) async fn forward_log(
        &self,
        context: &CallContext,
        log: &wire::ForwardLog<'_>,
    ) -> Result<(), ProvisionerFault> {
        let reply =
            self.call(context, Method::POST, "/forward_log".into(), body(log)?, false).await?;
        wire::done(&reply, &[])
    }

    /// Only the emulated provisioner has stages; another one answers with an error page.
    pub(super) async fn stage(
        &self,
        context: &CallContext,
        stage: &wire::Stage<'_>,
    ) -> Result<(), ProvisionerFault> {
        let reply =
            self.call(context, Method::POST, "/emulator/stage".into(), body(stage)?, true).await?;
        wire::done(&reply, &[]).map_err(|fault| {
            ProvisionerFault::new(FaultClass::Unsupported, format_args!("no emulator: {fault}"))
        })
    }

    async fn list<T: serde::de::DeserializeOwned>(
        &self,
        context: &CallContext,
        path: String,
    ) -> Result<Vec<T>, ProvisionerFault> {
        wire::list(&self.call(context, Method::GET, path, None, true).await?)
    }

    async fn call(
        &self,
        context: &CallContext,
        method: Method,
        path: String,
        body: Option<Vec<u8>>,
        repeatable: bool,
    ) -> Result<Reply, ProvisionerFault> {
        let request = Request { method, path, body, key: None, repeatable };
        let client = self.client().await?;
        let reply = client.call(context, &request).await;
        if let Err(fault) = &reply {
            match fault.class {
                // Certificates may have been renewed since: the next call reads them again.
                FaultClass::Unreachable | FaultClass::Unauthorized => self.forget(),
                FaultClass::NotFound
                | FaultClass::Refused
                | FaultClass::Invalid
                | FaultClass::Unsupported => {}
            }
        }
        reply
    }

    /// The client, made when it is first needed: its certificates may stand on a disk that comes
    /// late.
    async fn client(&self) -> Result<Arc<Client>, ProvisionerFault> {
        if let Some(client) = &*self.made.lock().unwrap_or_else(PoisonError::into_inner) {
            return Ok(Arc::clone(client));
        }
        let options = self.options.clone();
        let client = tokio::task::spawn_blocking(move || Client::new(options, wire::refuses))
            .await
            .map_err(|_| ProvisionerFault::new(FaultClass::Unreachable, "the file access ended"))?
            .map_err(|error| ProvisionerFault::new(FaultClass::Unreachable, chain(&error)))?;
        let client = Arc::new(client);
        *self.made.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&client));
        Ok(client)
    }

    fn forget(&self) {
        *self.made.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

fn replica_path(volume: &VolumeId, replica: &ReplicaId) -> String {
    format!("/replica/{}/{}", quoted(volume.as_str()), quoted(replica.as_str()))
}

/// Sorted by key, as the vendor's own clients send it.
fn body<T: Serialize>(value: &T) -> Result<Option<Vec<u8>>, ProvisionerFault> {
    serde_json::to_vec(value)
        .map(Some)
        .map_err(|error| ProvisionerFault::new(FaultClass::Invalid, error))
}

/// What is not there is deleted.
fn gone_is_done(answer: Result<(), ProvisionerFault>) -> Result<(), ProvisionerFault> {
    match answer {
        Err(fault) if fault.class == FaultClass::NotFound => Ok(()),
        other => other,
    }
}

/// None or one, and the one that was asked for.
fn one_volume(
    mut found: Vec<wire::Volume>,
    is_it: impl Fn(&wire::Volume) -> bool,
) -> Result<Option<wire::Volume>, ProvisionerFault> {
    let invalid = |why: String| ProvisionerFault::new(FaultClass::Invalid, why);
    match (found.len(), found.pop()) {
        (0 | 1, None) => Ok(None),
        (1, Some(volume)) if is_it(&volume) => check(&volume).map(|()| Some(volume)),
        (1, Some(volume)) => Err(invalid(format!("asked for another volume, got {}", volume.uuid))),
        (count, _) => Err(invalid(format!("{count} volumes where one was asked for"))),
    }
}

/// As RFC 9562 writes it; MD writes the same bytes in four groups.
pub(super) fn hyphenated(array: &ArrayId) -> String {
    let hex: String = array.as_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

/// Where the identity of this host is kept by the vendor's forks.
pub const HOST_ID_FILE: &str = "/etc/kioxia/uuid.conf";

/// This host's id as Cinder knows it: of the vendor's file if there is one, else the UUID of the
/// root file system. None in a container whose root is an overlay.
#[must_use]
pub fn host_id() -> Option<String> {
    let from_file = std::fs::read_to_string(HOST_ID_FILE).ok();
    // The forks send the file's newline along; whoever registered the host did not.
    let from_file = from_file.map(|text| text.trim().to_owned()).filter(|text| !text.is_empty());
    from_file.or_else(root_uuid)
}

fn root_uuid() -> Option<String> {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").ok()?;
    let device = root_device(&mounts)?;
    let device = std::fs::canonicalize(device).ok()?;
    std::fs::read_dir("/dev/disk/by-uuid").ok()?.flatten().find_map(|link| {
        (std::fs::canonicalize(link.path()).ok()? == device)
            .then(|| link.file_name().to_string_lossy().into_owned())
    })
}

/// The device of `/` in the text of `mountinfo`, if it is one.
fn root_device(mounts: &str) -> Option<PathBuf> {
    let root = mounts.lines().rfind(|line| line.split(' ').nth(4) == Some("/"))?;
    let source = root.split(" - ").nth(1)?.split(' ').nth(1)?;
    source.starts_with("/dev/").then(|| PathBuf::from(source))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_root_device_is_the_one_mounted_last() {
        let mounts = "1 0 0:2 / / rw - rootfs rootfs rw\n\
                      22 1 8:2 / / rw,relatime shared:1 - ext4 /dev/sda2 rw\n\
                      23 22 8:3 / /boot rw - ext4 /dev/sda3 rw\n";
        assert_eq!(root_device(mounts), Some(PathBuf::from("/dev/sda2")));
        assert_eq!(root_device("9 0 0:3 / / rw - overlay overlay rw\n"), None);
        assert_eq!(root_device("garbage"), None);
    }

    #[test]
    fn an_array_is_asked_for_as_the_vendor_writes_it() {
        let array: ArrayId = "8e0a1b6c:1f2e3d4c:5b6a7988:00112233".parse().unwrap();
        assert_eq!(hyphenated(&array), "8e0a1b6c-1f2e-3d4c-5b6a-798800112233");
    }
}
