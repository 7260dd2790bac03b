//! Reading the two files, and the one place of this crate that writes one.
//!
//! Files are written by `heal-host` everywhere else. This one is a backend's own store, the stand-in
//! for the database of a vendor's provisioner, and `heal-provisioner` cannot depend on the host: so
//! the same rule (temp, fsync, rename, fsync the directory) is kept here, for this file alone.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use heal_types::{FaultClass, ProvisionerFault};
use ron::ser::PrettyConfig;

use super::inventory::Inventory;
use super::state::{SCHEMA, State};
use super::{FixedPaths, MAX_FILE};
use crate::ron_text;

fn fault(class: FaultClass, detail: impl std::fmt::Display) -> ProvisionerFault {
    ProvisionerFault::new(class, detail)
}

/// A file that cannot be read is a provisioner that is away, whatever the reason: it may be mounted,
/// restored or repaired. It is never a provisioner without volumes.
fn away(path: &Path, error: &io::Error) -> ProvisionerFault {
    fault(FaultClass::Unreachable, format_args!("{}: {error}", path.display()))
}

pub(super) fn read_inventory(paths: &FixedPaths) -> Result<Inventory, ProvisionerFault> {
    let path = &paths.inventory;
    let text = read(path)?.ok_or_else(|| away(path, &io::Error::from(io::ErrorKind::NotFound)))?;
    Inventory::parse(&text, &path.display().to_string())
        .map_err(|error| fault(FaultClass::Invalid, chain(&error)))
}

/// The notes; none yet if the file does not exist, as long as the directory for it does. A missing
/// directory is a file system that is not mounted yet.
pub(super) fn read_state(paths: &FixedPaths) -> Result<State, ProvisionerFault> {
    let path = &paths.state;
    let Some(text) = read(path)? else {
        let directory = directory_of(path);
        std::fs::metadata(&directory).map_err(|error| away(&directory, &error))?;
        return Ok(State::default());
    };
    let state: State = ron_text::parse(&text, &path.display().to_string())
        .map_err(|error| fault(FaultClass::Invalid, error))?;
    if state.schema != SCHEMA {
        return Err(fault(
            FaultClass::Invalid,
            format_args!(
                "{}: written in form {}, this version reads form {SCHEMA}",
                path.display(),
                state.schema
            ),
        ));
    }
    Ok(state)
}

/// `None` if there is no such file.
fn read(path: &Path) -> Result<Option<String>, ProvisionerFault> {
    let invalid = |why: &str| fault(FaultClass::Invalid, format_args!("{}: {why}", path.display()));
    // Opening a FIFO would wait for somebody to write to it.
    match std::fs::metadata(path) {
        Ok(metadata) if metadata.is_file() => {}
        Ok(_) => return Err(invalid("it is not a file")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(away(path, &error)),
    }
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(MAX_FILE + 1).read_to_end(&mut bytes))
        .map_err(|error| away(path, &error))?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(invalid("it is larger than 4 MiB"));
    }
    String::from_utf8(bytes).map(Some).map_err(|_| invalid("it is not UTF-8 text"))
}

/// Replaces the notes on disk. When this returns `Ok` they survive a power cut.
pub(super) fn write_state(paths: &FixedPaths, state: &State) -> Result<(), ProvisionerFault> {
    let path = &paths.state;
    let layout = PrettyConfig::new().depth_limit(2);
    let body = ron::ser::to_string_pretty(state, layout)
        .map_err(|error| fault(FaultClass::Invalid, format_args!("notes not written: {error}")))?;
    let text =
        format!("// Written by nvme-heald. To change a volume, edit the inventory.\n{body}\n");
    if text.len() as u64 > MAX_FILE {
        return Err(fault(
            FaultClass::Refused,
            format_args!("{}: more to note than fits in 4 MiB", path.display()),
        ));
    }
    replace(path, text.as_bytes()).map_err(|error| away(path, &error))
}

fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    let fresh = PathBuf::from(name);
    let mut file =
        OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&fresh)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&fresh, path)?;
    File::open(directory_of(path))?.sync_all()
}

fn directory_of(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        Some(_) | None => PathBuf::from("."),
    }
}

/// An error with its causes, on one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
