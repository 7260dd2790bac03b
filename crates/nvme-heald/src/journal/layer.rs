//! Diagnostics: what `tracing` is told anywhere in the process, into the same queue as the audit
//! trail.

use std::fmt::{self, Write as _};

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer};

use super::{Entry, Journal, wire};

/// The layer.
#[derive(Debug)]
pub(crate) struct Diagnostics {
    journal: Journal,
}

impl Diagnostics {
    /// Into `journal`.
    pub(crate) fn new(journal: Journal) -> Self {
        Self { journal }
    }
}

impl<S: Subscriber> Layer<S> for Diagnostics {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut words = Words::default();
        event.record(&mut words);
        let mut message = words.message;
        for (name, value) in &words.fields {
            // Writing to a String cannot fail.
            let _ = write!(message, " {name}={value}");
        }
        let mut entry = Entry::new(priority(*event.metadata().level()), message.trim_start());
        entry.put("NVME_HEAL_MODULE", event.metadata().target());
        for (name, value) in &words.fields {
            entry.put(format!("NVME_HEAL_{}", wire::field_name(name)), value);
        }
        self.journal.send(entry);
    }
}

fn priority(level: Level) -> u8 {
    match level {
        Level::ERROR => 3,
        Level::WARN => 4,
        Level::INFO => 6,
        Level::DEBUG | Level::TRACE => 7,
    }
}

#[derive(Debug, Default)]
struct Words {
    message: String,
    fields: Vec<(&'static str, String)>,
}

impl Words {
    fn put(&mut self, field: &Field, value: String) {
        if field.name() == "message" {
            self.message = value;
        } else {
            self.fields.push((field.name(), value));
        }
    }
}

impl Visit for Words {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, value.to_owned());
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        let mut text = value.to_string();
        let mut cause = value.source();
        while let Some(inner) = cause {
            let _ = write!(text, ": {inner}");
            cause = inner.source();
        }
        self.put(field, text);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field, format!("{value:?}"));
    }
}
