//! The way out of everything the daemon says: a queue that never makes anybody wait.
//!
//! journald may stall. Its disk may be the very array that is being healed, and a plain `send` to a
//! full socket waits for it; a healer that waits for its log has stopped healing. So whoever has
//! something to say leaves it here and goes on, and one thread of its own talks to journald.
//!
//! ```text
//!   actors: audit entries ──┐                      ┌─ journald, native protocol, time-limited
//!   tracing: diagnostics ───┴─► bounded queue ─► thread
//!                                 │ full: the least important      └─ no journald: JSON on stderr
//!                                 ▼ goes first, and is counted
//!                              "12 entries were dropped", once there is room again
//! ```
//!
//! The price: an entry that was queued is not an entry that was written. A crash of the daemon
//! loses the last few, which is why intents are in the ledger and not here.

mod layer;
mod wire;

use std::borrow::Cow;
use std::collections::VecDeque;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use heal_core::audit::{AuditEntry, Severity};
use heal_host::priority;
use heal_types::{ArrayId, DeviceName};

pub(crate) use layer::Diagnostics;
use wire::Sink;

/// Where journald listens.
pub(crate) const JOURNALD: &str = "/run/systemd/journal/socket";

/// Entries that may wait. An incident is some dozens.
const ROOM: usize = 4096;
/// The longest value of one field that is kept, bytes.
const MAX_VALUE: usize = 8 * 1024;
/// How long to wait before a stalled or absent journald is tried again.
const AGAIN: Duration = Duration::from_millis(100);

/// One entry: its priority as syslog counts (0 is worst) and its fields.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    priority: u8,
    fields: Vec<(Cow<'static, str>, String)>,
}

impl Entry {
    /// A plain message.
    pub(crate) fn new(priority: u8, message: &str) -> Self {
        let mut entry = Self { priority, fields: Vec::with_capacity(12) };
        entry.put("MESSAGE", message);
        entry.put("PRIORITY", &priority.to_string());
        entry.put("SYSLOG_IDENTIFIER", "nvme-heald");
        entry
    }

    /// An entry of the audit trail about `array`, which goes by `device` now.
    pub(crate) fn audit(entry: &AuditEntry, about: Option<(ArrayId, Option<&DeviceName>)>) -> Self {
        let mut out = Self::new(priority(entry.severity), &entry.message);
        out.put("MESSAGE_ID", entry.kind.message_id());
        out.put("NVME_HEAL_EVENT", entry.kind.name());
        if let Some(incident) = entry.incident {
            out.put("NVME_HEAL_INCIDENT", &incident.to_string());
        }
        if let Some(action) = entry.action {
            out.put("NVME_HEAL_ACTION", &action.to_string());
        }
        if let Some(slot) = entry.slot {
            out.put("NVME_HEAL_SLOT", &slot.to_string());
        }
        if let Some((id, device)) = about {
            if entry.field("ARRAY_UUID").is_none() {
                out.put("NVME_HEAL_ARRAY_UUID", &id.to_string());
            }
            if let (Some(device), None) = (device, entry.field("ARRAY")) {
                out.put("NVME_HEAL_ARRAY", device.as_str());
            }
        }
        for (name, value) in &entry.fields {
            out.put(format!("NVME_HEAL_{}", wire::field_name(name)), value);
        }
        out
    }

    fn put(&mut self, name: impl Into<Cow<'static, str>>, value: &str) {
        let mut end = value.len().min(MAX_VALUE);
        while !value.is_char_boundary(end) {
            end -= 1;
        }
        self.fields.push((name.into(), value[..end].to_owned()));
    }

    #[cfg(test)]
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

/// As `syslog.h` numbers them.
fn priority(severity: Severity) -> u8 {
    match severity {
        Severity::Critical => 2,
        Severity::Error => 3,
        Severity::Warning => 4,
        Severity::Notice => 5,
        Severity::Info => 6,
    }
}

/// The queue's end for whoever has something to say.
#[derive(Debug, Clone)]
pub(crate) struct Journal {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    queue: Mutex<Queue>,
    /// Something is in the queue, or it closes.
    filled: Condvar,
    /// The thread has nothing in its hands.
    idle: Condvar,
    dropped: AtomicU64,
}

#[derive(Debug, Default)]
struct Queue {
    entries: VecDeque<Entry>,
    /// The thread is busy with an entry it took.
    in_hand: bool,
    /// Dropped and not yet said so.
    untold: u64,
    closing: bool,
}

impl Journal {
    /// Starts the thread that writes to journald at `socket`, or to stderr if nobody is there.
    ///
    /// # Errors
    /// When there is no thread or no socket to be had.
    pub(crate) fn start(socket: &Path) -> io::Result<Self> {
        let sink = Sink::open(socket)?;
        let journal = Self { shared: Arc::default() };
        let shared = Arc::clone(&journal.shared);
        std::thread::Builder::new().name("journal".into()).spawn(move || {
            priority::step_back();
            write_all(&shared, &sink);
        })?;
        Ok(journal)
    }

    /// A journal that keeps its entries, for tests.
    #[cfg(test)]
    pub(crate) fn kept() -> Self {
        Self { shared: Arc::default() }
    }

    /// What a [`Journal::kept`] keeps.
    #[cfg(test)]
    pub(crate) fn entries(&self) -> Vec<Entry> {
        self.shared.lock().entries.iter().cloned().collect()
    }

    /// Leaves `entry` to be written. Never waits for anything but other callers of this.
    pub(crate) fn send(&self, entry: Entry) {
        let mut queue = self.shared.lock();
        if queue.entries.len() >= ROOM {
            // The least important of those that wait, the oldest of equals.
            let least = queue
                .entries
                .iter()
                .enumerate()
                .max_by_key(|(place, waiting)| (waiting.priority, std::cmp::Reverse(*place)))
                .map(|(place, waiting)| (place, waiting.priority));
            queue.untold += 1;
            self.shared.dropped.fetch_add(1, Ordering::Relaxed);
            match least {
                Some((place, worst)) if worst >= entry.priority => {
                    queue.entries.remove(place);
                }
                Some(_) | None => return,
            }
        }
        queue.entries.push_back(entry);
        drop(queue);
        self.shared.filled.notify_one();
    }

    /// Entries dropped since the start.
    pub(crate) fn dropped(&self) -> u64 {
        self.shared.dropped.load(Ordering::Relaxed)
    }

    /// Waits until everything is written, but no longer than `limit`. Blocks its thread: for the
    /// end of the process only.
    pub(crate) fn flush(&self, limit: Duration) {
        let until = Instant::now() + limit;
        let mut queue = self.shared.lock();
        queue.closing = true;
        self.shared.filled.notify_one();
        while queue.in_hand || !queue.entries.is_empty() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            let waited = self.shared.idle.wait_timeout(queue, left);
            queue = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Shared {
    /// A thread that panicked with the queue in its hands left it whole: every change is one step.
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The thread: one entry after the other, each until it is taken.
fn write_all(shared: &Shared, sink: &Sink) {
    loop {
        let (entry, untold) = {
            let mut queue = shared.lock();
            loop {
                if let Some(entry) = queue.entries.pop_front() {
                    queue.in_hand = true;
                    break (entry, std::mem::take(&mut queue.untold));
                }
                shared.idle.notify_all();
                queue = shared.filled.wait(queue).unwrap_or_else(PoisonError::into_inner);
            }
        };
        if untold > 0 {
            let message =
                format!("{untold} journal entries were dropped because the journal stalled");
            let mut report = Entry::new(4, &message);
            report.put("NVME_HEAL_DROPPED", &untold.to_string());
            write_one(shared, sink, &report);
        }
        write_one(shared, sink, &entry);
        shared.lock().in_hand = false;
    }
}

fn write_one(shared: &Shared, sink: &Sink, entry: &Entry) {
    loop {
        match sink.write(entry) {
            Ok(()) => return,
            Err(error) if wire::is_too_large(&error) => {
                shared.dropped.fetch_add(1, Ordering::Relaxed);
                return;
            }
            Err(_) if shared.lock().closing => return,
            Err(_) => std::thread::sleep(AGAIN),
        }
    }
}

#[cfg(test)]
mod tests;
