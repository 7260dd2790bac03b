//! A story as a file: a head, and one event a line.
//!
//! ```text
//!   # what it found, in words
//!   (seed: 218, table: Hands, commit: "29c7b6c", breaks: Some("report_is_never_lost"), scene: (…))
//!   Fabric(Exported(replica: "vol1-a", on: false))
//!   Pass(1250)
//! ```
//!
//! The head says how to make the world and where the story came from; only the scene and the events
//! are needed to tell it again. The end, in which everything is repaired and every rule is checked,
//! is not in the file: it follows from the scene (`super::end`).

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::event::WorldEvent;
use super::scene::Scene;
use super::table::Table;

/// The first line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// The seed it was made from.
    pub seed: u64,
    /// The table it was made from.
    pub table: Table,
    /// The commit it was found on.
    pub commit: String,
    /// The rule that it broke there.
    pub breaks: Option<String>,
    /// What the world begins with.
    pub scene: Scene,
}

/// A story that can be told again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventLog {
    /// What is said about it, line by line.
    pub notes: Vec<String>,
    /// Where it comes from.
    pub head: Head,
    /// What is done.
    pub events: Vec<WorldEvent>,
}

/// Why a text is no log.
#[derive(Debug, Error)]
pub enum LogError {
    /// There is no head.
    #[error("the log has no head")]
    NoHead,
    /// A line cannot be read.
    #[error("line {line} of the log cannot be read")]
    Line {
        /// Which, counted from one.
        line: usize,
        /// Why.
        #[source]
        source: Box<ron::error::SpannedError>,
    },
}

impl EventLog {
    /// Reads a log.
    ///
    /// # Errors
    /// The first line that cannot be read.
    pub fn parse(text: &str) -> Result<Self, LogError> {
        let mut notes = Vec::new();
        let mut head = None;
        let mut events = Vec::new();
        for (number, line) in (1..).zip(text.lines()) {
            let unreadable = |source| LogError::Line { line: number, source: Box::new(source) };
            if let Some(note) = line.strip_prefix('#') {
                notes.push(note.trim_start().to_owned());
            } else if line.trim().is_empty() {
            } else if head.is_none() {
                head = Some(ron::from_str(line).map_err(unreadable)?);
            } else {
                events.push(ron::from_str(line).map_err(unreadable)?);
            }
        }
        Ok(Self { notes, head: head.ok_or(LogError::NoHead)?, events })
    }

    /// The log as text.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::new();
        for note in &self.notes {
            let _ = writeln!(text, "# {note}");
        }
        let unprintable = "plain enums and structs of names and numbers have a text form";
        let _ = writeln!(text, "{}", ron::to_string(&self.head).expect(unprintable));
        for event in &self.events {
            let _ = writeln!(text, "{}", ron::to_string(event).expect(unprintable));
        }
        text
    }
}
