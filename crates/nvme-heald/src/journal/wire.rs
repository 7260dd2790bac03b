//! journald's native protocol, and JSON lines where there is no journald.
//!
//! A datagram of fields, each `NAME=value\n`; a value with a line feed in it is written as
//! `NAME\n`, its length in eight bytes, little endian, the value, `\n`
//! (<https://systemd.io/JOURNAL_NATIVE_PROTOCOL/>).

use std::borrow::Cow;
use std::io::{self, Write};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::io::Errno;

use super::Entry;

/// How long one datagram may take: journald's queue may be full.
const SEND: Duration = Duration::from_millis(250);
/// The longest name journald takes.
const MAX_NAME: usize = 64;
/// The prefix that our own names get.
const PREFIX: usize = "NVME_HEAL_".len();

/// Where entries go.
#[derive(Debug)]
pub(super) enum Sink {
    /// journald. The socket is not connected: one that was restarted is found again by its path.
    Journald { socket: UnixDatagram, path: PathBuf },
    /// Somebody who reads stderr.
    Stderr,
}

impl Sink {
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        if !path.exists() {
            return Ok(Self::Stderr);
        }
        let socket = UnixDatagram::unbound()?;
        socket.set_write_timeout(Some(SEND))?;
        Ok(Self::Journald { socket, path: path.to_owned() })
    }

    pub(super) fn write(&self, entry: &Entry) -> io::Result<()> {
        match self {
            Self::Journald { socket, path } => {
                socket.send_to(&datagram(entry), path)?;
            }
            Self::Stderr => {
                let fields: serde_json::Map<String, serde_json::Value> = entry
                    .fields
                    .iter()
                    .map(|(name, value)| (name.clone().into_owned(), value.as_str().into()))
                    .collect();
                let mut line = serde_json::to_vec(&fields)?;
                line.push(b'\n');
                // A reader of stderr that is gone is no reason to try for ever.
                let _ = io::stderr().write_all(&line);
            }
        }
        Ok(())
    }
}

/// Whether no retry can help.
pub(super) fn is_too_large(error: &io::Error) -> bool {
    let code = error.raw_os_error();
    code == Some(Errno::MSGSIZE.raw_os_error()) || code == Some(Errno::INVAL.raw_os_error())
}

pub(super) fn datagram(entry: &Entry) -> Vec<u8> {
    let mut out = Vec::with_capacity(512);
    for (name, value) in &entry.fields {
        out.extend_from_slice(name.as_bytes());
        if value.contains('\n') {
            out.push(b'\n');
            out.extend_from_slice(&(value.len() as u64).to_le_bytes());
        } else {
            out.push(b'=');
        }
        out.extend_from_slice(value.as_bytes());
        out.push(b'\n');
    }
    out
}

/// `name` as journald takes it behind our prefix: capitals, digits and underscores.
pub(super) fn field_name(name: &str) -> Cow<'_, str> {
    let fits = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
    if name.len() <= MAX_NAME - PREFIX && name.chars().all(fits) {
        return Cow::Borrowed(name);
    }
    let clean = name.chars().take(MAX_NAME - PREFIX).map(|c| {
        let c = c.to_ascii_uppercase();
        if fits(c) { c } else { '_' }
    });
    Cow::Owned(clean.collect())
}
