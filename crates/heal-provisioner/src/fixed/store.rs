//! Reading the operator's inventory, and our own notes beside it.

use std::io;

use heal_types::{FaultClass, ProvisionerFault};

use super::FixedPaths;
use super::inventory::Inventory;
use super::state::{SCHEMA, State};
use crate::store::{Notes, away, chain, read, read_notes, write_notes};

impl Notes for State {
    const SCHEMA: u32 = SCHEMA;
    fn schema(&self) -> u32 {
        self.schema
    }
}

pub(super) fn read_inventory(paths: &FixedPaths) -> Result<Inventory, ProvisionerFault> {
    let path = &paths.inventory;
    let text = read(path)?.ok_or_else(|| away(path, &io::Error::from(io::ErrorKind::NotFound)))?;
    Inventory::parse(&text, &path.display().to_string())
        .map_err(|error| ProvisionerFault::new(FaultClass::Invalid, chain(&error)))
}

pub(super) fn read_state(paths: &FixedPaths) -> Result<State, ProvisionerFault> {
    read_notes(&paths.state)
}

pub(super) fn write_state(paths: &FixedPaths, state: &State) -> Result<(), ProvisionerFault> {
    write_notes(&paths.state, state)
}
