//! A world as lines, so that two worlds can be compared by a person.

use std::fmt::Write as _;

use super::World;

/// One line of what differs between two worlds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// What it is about.
    pub what: String,
    /// How it was; empty if it was not there.
    pub before: String,
    /// How it is; empty if it is not there any more.
    pub after: String,
}

impl std::fmt::Display for Difference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (self.before.is_empty(), self.after.is_empty()) {
            (true, _) => write!(f, "+ {}: {}", self.what, self.after),
            (_, true) => write!(f, "- {}: {}", self.what, self.before),
            (false, false) => write!(f, "~ {}: {} -> {}", self.what, self.before, self.after),
        }
    }
}

impl World {
    /// What the world is like: what it is about, and how that is.
    #[must_use]
    pub fn state(&self) -> Vec<(String, String)> {
        let mut lines = self.kernel.state();
        for array in &self.arrays {
            let name = &array.name;
            let record = self.record(array.id);
            let mut text = self.disk.words(array.id);
            if let Some(record) = record {
                for owed in &record.owed {
                    let _ = write!(text, "; owes {} {}", owed.replica, owed.message.word());
                }
                for intent in &record.intents {
                    let _ = write!(text, "; {} begun", intent.verb);
                }
                if let Some(hold) = &record.hold {
                    let _ = write!(text, "; held by {}", hold.by);
                }
            }
            lines.push((format!("ledger {name}"), text));
            let Some(machine) = self.machines.get(&array.id) else { continue };
            let status = machine.status(self.now);
            let health = format!("{:?}: {}", status.health, status.summary);
            lines.push((format!("machine {name}"), health));
            for repair in &status.repairs {
                let lost = repair.lost.as_deref().unwrap_or("nobody");
                let incoming = repair.incoming.as_deref().unwrap_or("nobody");
                let text = format!("{}, lost {lost}, incoming {incoming}", repair.phase);
                lines.push((format!("machine {name} slot {}", repair.slot), text));
            }
        }
        for (replica, state) in self.provisioner.states() {
            lines.push((format!("provisioner {replica}"), format!("{state:?}")));
        }
        let daemon = if self.restart_at.is_some() { "is down" } else { "runs" };
        lines.push(("daemon".to_owned(), daemon.to_owned()));
        lines
    }

    /// What differs in `later`.
    #[must_use]
    pub fn diff(&self, later: &Self) -> Vec<Difference> {
        let (before, after) = (self.state(), later.state());
        let of = |lines: &[(String, String)], what: &str| {
            let found = lines.iter().find(|(about, _)| about == what);
            found.map(|(_, text)| text.clone()).unwrap_or_default()
        };
        let gone = before.iter().filter(|(what, _)| after.iter().all(|(other, _)| other != what));
        let all = after.iter().chain(gone);
        all.map(|(what, _)| Difference {
            what: what.clone(),
            before: of(&before, what),
            after: of(&after, what),
        })
        .filter(|difference| difference.before != difference.after)
        .collect()
    }
}
