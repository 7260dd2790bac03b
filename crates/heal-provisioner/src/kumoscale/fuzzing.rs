//! What this backend reads from outside, opened for `heal-fuzz` and for nobody else.

use std::collections::BTreeMap;
use std::path::Path;

use bytes::Bytes;
use heal_types::{FaultClass, ProvisionerFault, Volume};

use super::conf::{self, KioxiaConf};
use super::notes::State;
use super::{volume, wire};
use crate::client::Reply;

/// The vendor's own configuration file.
///
/// # Errors
/// What the journal would say.
pub fn conf(text: &[u8]) -> Result<KioxiaConf, String> {
    conf::parse(text, Path::new("provisioner.conf")).map_err(|error| error.to_string())
}

/// The answer to something that was to be done.
///
/// # Errors
/// What is concluded from any other than "done".
pub fn done(status: u16, body: &[u8]) -> Result<(), ProvisionerFault> {
    let reply = reply(status, body);
    if wire::refuses(&reply) {
        return Err(ProvisionerFault::new(FaultClass::Unauthorized, "not authorised"));
    }
    wire::done(&reply, &["AlreadyPublished"])
}

/// A volume, from the lists of volumes, targets and backends.
///
/// # Errors
/// What is wrong with them.
pub fn volume(
    volumes: &[u8],
    targets: &[u8],
    backends: &[u8],
) -> Result<Option<Volume>, ProvisionerFault> {
    let mut listed: Vec<wire::Volume> = wire::list(&reply(200, volumes))?;
    let targets: Vec<wire::Target> = wire::list(&reply(200, targets))?;
    let backends: Vec<wire::Backend> = wire::list(&reply(200, backends))?;
    let backends: BTreeMap<String, wire::Backend> =
        backends.into_iter().map(|backend| (backend.persistent_id.clone(), backend)).collect();
    let Some(listed) = listed.pop() else { return Ok(None) };
    volume::check(&listed)?;
    let place = volume::Place { targets: &targets, backends: &backends, known: &BTreeMap::new() };
    let shown = volume::show(&listed, &place, &State::default())?;
    Ok(Some(shown.into_volume(volume::id(&listed)?, None)))
}

fn reply(status: u16, body: &[u8]) -> Reply {
    Reply { status, body: Bytes::copy_from_slice(body) }
}
