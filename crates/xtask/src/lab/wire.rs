//! What the host and the guest say to each other: one JSON object a line, over a virtio-serial
//! port.
//!
//! ```text
//!   host                                 guest (the agent, pid of a systemd unit)
//!     │ ◄──────────────── hello ───────────┤   once, when the agent is up: the boot succeeded
//!     ├── run{name, script, timeout} ────► │
//!     │ ◄──────────────── line ────────────┤   each line the scenario prints, with its time
//!     │ ◄──────────────── file ────────────┤   journal, mdstat, dmesg, in chunks
//!     │ ◄──────────────── done ────────────┤
//! ```
//!
//! The console is not used for this: a getty hangs it up, and the kernel writes between the lines.
//! The price is a virtio module in the initramfs.

use serde::{Deserialize, Serialize};

/// Name of the port in the guest, below `/dev/virtio-ports`.
pub(crate) const CONTROL_PORT: &str = "lab.control";

/// A file comes in pieces of about this size, so that no line grows without bound.
pub(crate) const CHUNK: usize = 64 * 1024;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "say", rename_all = "snake_case")]
pub(crate) enum ToGuest {
    /// Return to a clean state, then run this script.
    Run { name: String, script: String, timeout_s: u64, env: Vec<(String, String)> },
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "say", rename_all = "snake_case")]
pub(crate) enum FromGuest {
    Hello { kernel: String, uptime_ms: u64 },
    Line { at_ms: u64, text: String },
    File { name: String, chunk: String },
    Done { outcome: Outcome, took_ms: u64 },
}

/// How a scenario's script ended, as the guest saw it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Outcome {
    Exited {
        code: i32,
    },
    Signalled,
    TimedOut,
    /// The state left by the scenario before could not be cleaned: this VM is used up.
    NotClean,
}

/// One message as a line, with its newline.
pub(crate) fn encode<T: Serialize>(message: &T) -> anyhow::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    Ok(line)
}

/// Collects bytes and gives whole lines.
#[derive(Debug, Default)]
pub(crate) struct LineBuffer {
    pending: Vec<u8>,
}

impl LineBuffer {
    /// Adds what was read and takes out every line that is now complete, without its newline.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> Vec<String> {
        self.pending.extend_from_slice(bytes);
        let mut lines = Vec::new();
        while let Some(end) = self.pending.iter().position(|&byte| byte == b'\n') {
            let rest = self.pending.split_off(end + 1);
            let line = std::mem::replace(&mut self.pending, rest);
            lines.push(String::from_utf8_lossy(&line[..end]).trim_end_matches('\r').to_owned());
        }
        lines
    }

    /// What is left when the stream has ended.
    pub(crate) fn rest(self) -> Option<String> {
        (!self.pending.is_empty()).then(|| String::from_utf8_lossy(&self.pending).into_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_split_over_two_reads_arrives_once_and_whole() {
        let mut buffer = LineBuffer::default();
        assert!(buffer.push(b"hel").is_empty());
        assert_eq!(buffer.push(b"lo\r\nwor"), ["hello"]);
        assert_eq!(buffer.rest().as_deref(), Some("wor"));
    }

    #[test]
    fn a_message_survives_the_wire() {
        let sent = FromGuest::Done { outcome: Outcome::Exited { code: 3 }, took_ms: 12 };
        let mut buffer = LineBuffer::default();
        let lines = buffer.push(&encode(&sent).unwrap());
        assert_eq!(serde_json::from_str::<FromGuest>(&lines[0]).unwrap(), sent);
    }

    #[test]
    fn a_newline_inside_a_script_does_not_end_the_message() {
        let sent = ToGuest::Run {
            name: "a".into(),
            script: "one\ntwo\n".into(),
            timeout_s: 1,
            env: vec![("LAB_PULLS".into(), "5\n".into())],
        };
        assert_eq!(encode(&sent).unwrap().iter().filter(|&&byte| byte == b'\n').count(), 1);
    }
}
