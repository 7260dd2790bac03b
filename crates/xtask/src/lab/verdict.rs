//! Did the scenario hold? The script's exit code alone does not say: a daemon may crash, be
//! restarted by systemd and still heal in time.
//!
//! The journal of the unit is read after each scenario. A panic, an exit that nobody asked for, or
//! an entry of priority `err` or worse that the scenario does not expect, fails it.

use serde_json::Value;

use super::wire::Outcome;

/// Why a scenario failed.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub(crate) enum FailureWhy {
    ExitCode(i32),
    Signalled,
    TimedOut,
    GuestNotClean,
    /// The VM went away or stopped to answer.
    GuestLost(String),
    DaemonPanicked(String),
    DaemonDied(String),
    UnexpectedError(String),
    UnreadableJournal(String),
}

impl std::fmt::Display for FailureWhy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::ExitCode(code) => write!(f, "the script ended with {code}"),
            Self::Signalled => f.write_str("the script was killed by a signal"),
            Self::TimedOut => f.write_str("the script did not end in time"),
            Self::GuestNotClean => f.write_str("the guest could not be brought to a clean state"),
            Self::GuestLost(what) => write!(f, "the guest is lost: {what}"),
            Self::DaemonPanicked(message) => write!(f, "the daemon panicked: {message}"),
            Self::DaemonDied(message) => write!(f, "the daemon died: {message}"),
            Self::UnexpectedError(message) => {
                write!(f, "unexpected error in the journal: {message}")
            }
            Self::UnreadableJournal(line) => write!(f, "a journal entry is not JSON: {line}"),
        }
    }
}

/// What speaks against the scenario, from the way its script ended.
pub(crate) fn of_outcome(outcome: &Outcome) -> Option<FailureWhy> {
    match outcome {
        Outcome::Exited { code: 0 } => None,
        Outcome::Exited { code } => Some(FailureWhy::ExitCode(*code)),
        Outcome::Signalled => Some(FailureWhy::Signalled),
        Outcome::TimedOut => Some(FailureWhy::TimedOut),
        Outcome::NotClean => Some(FailureWhy::GuestNotClean),
    }
}

/// What speaks against it in the unit's journal (`journalctl -o json`). `kills` is how often the
/// scenario itself killed the daemon.
pub(crate) fn of_journal(journal: &str, kills: usize, expected: &[String]) -> Vec<FailureWhy> {
    let mut failures = Vec::new();
    let mut kills_left = kills;
    for line in journal.lines().filter(|line| !line.trim().is_empty()) {
        let Ok(entry) = serde_json::from_str::<Value>(line) else {
            failures.push(FailureWhy::UnreadableJournal(line.chars().take(120).collect()));
            continue;
        };
        let message = text(&entry, "MESSAGE");
        if message.contains("panicked at") {
            failures.push(FailureWhy::DaemonPanicked(message));
        } else if message.contains("Main process exited, code=killed, status=9") && kills_left > 0 {
            kills_left -= 1;
        } else if message.contains("Main process exited") && !message.contains("status=0/SUCCESS") {
            failures.push(FailureWhy::DaemonDied(message));
        } else if is_error(&entry) && !expected.iter().any(|text| message.contains(text.as_str())) {
            failures.push(FailureWhy::UnexpectedError(message));
        }
    }
    failures
}

/// Only what the unit itself said: systemd's own words about it (a restart after a kill) are read
/// above.
fn is_error(entry: &Value) -> bool {
    let from_unit = text(entry, "_SYSTEMD_UNIT").starts_with("nvme-heald");
    from_unit && text(entry, "PRIORITY").parse::<u8>().is_ok_and(|priority| priority <= 3)
}

/// A field of a journal entry; journald writes bytes that are not text as an array of numbers.
pub(crate) fn text(entry: &Value, field: &str) -> String {
    match entry.get(field) {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Array(bytes)) => {
            let bytes: Vec<u8> = bytes
                .iter()
                .filter_map(|byte| byte.as_u64().and_then(|byte| u8::try_from(byte).ok()))
                .collect();
            String::from_utf8_lossy(&bytes).into_owned()
        }
        Some(Value::Number(number)) => number.to_string(),
        Some(Value::Bool(_) | Value::Object(_) | Value::Null) | None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KILLED: &str = r#"{"_SYSTEMD_UNIT":"init.scope","PRIORITY":"4","MESSAGE":"nvme-heald.service: Main process exited, code=killed, status=9/KILL"}"#;
    const ERROR: &str = r#"{"_SYSTEMD_UNIT":"nvme-heald.service","PRIORITY":"3","MESSAGE":"md0: refused: foreign"}"#;

    #[test]
    fn a_quiet_journal_speaks_for_the_scenario() {
        let quiet = r#"{"_SYSTEMD_UNIT":"nvme-heald.service","PRIORITY":"6","MESSAGE":"watching"}"#;
        assert!(of_journal(quiet, 0, &[]).is_empty());
        assert!(of_journal("", 0, &[]).is_empty());
    }

    #[test]
    fn a_kill_by_the_scenario_is_no_crash_but_a_second_one_is() {
        let journal = format!("{KILLED}\n{KILLED}\n");
        assert_eq!(of_journal(&journal, 2, &[]), []);
        assert!(matches!(of_journal(&journal, 1, &[])[..], [FailureWhy::DaemonDied(_)]));
    }

    #[test]
    fn an_error_fails_unless_the_scenario_is_about_it() {
        assert!(matches!(of_journal(ERROR, 0, &[])[..], [FailureWhy::UnexpectedError(_)]));
        assert_eq!(of_journal(ERROR, 0, &["foreign".into()]), []);
    }

    #[test]
    fn a_panic_is_found_also_when_journald_kept_it_as_bytes() {
        let bytes: Vec<u8> = b"thread 'main' panicked at x.rs\x1b".to_vec();
        let entry = serde_json::json!({"_SYSTEMD_UNIT": "nvme-heald.service", "MESSAGE": bytes});
        let found = of_journal(&entry.to_string(), 0, &["panicked".into()]);
        assert!(matches!(found[..], [FailureWhy::DaemonPanicked(_)]));
    }
}
