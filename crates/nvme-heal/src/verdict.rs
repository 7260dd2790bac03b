//! One number for monitoring.

use std::process::ExitCode;

use heal_types::status::{ArrayStatus, Health, HostStatus, LegStatus};

/// How bad it is, from best to worst.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Verdict {
    /// Nothing to do.
    Well,
    /// Somebody should look, when there is time.
    Warning,
    /// Data is at risk, or nothing goes on without a person.
    Critical,
    /// The daemon could not be asked.
    CannotTell,
}

impl From<Verdict> for ExitCode {
    fn from(verdict: Verdict) -> Self {
        Self::from(match verdict {
            Verdict::Well => 0,
            Verdict::Warning => 1,
            Verdict::Critical => 2,
            Verdict::CannotTell => 3,
        })
    }
}

/// The worst of the host's arrays; an alarm of the host is a warning at least.
pub(crate) fn of_host(status: &HostStatus) -> Verdict {
    let worst = status.arrays.iter().map(of_array).max().unwrap_or(Verdict::Well);
    if status.alarms.is_empty() { worst } else { worst.max(Verdict::Warning) }
}

/// One array's verdict.
pub(crate) fn of_array(array: &ArrayStatus) -> Verdict {
    match array.health {
        Health::Quarantined => Verdict::Critical,
        // Not ours to judge: whoever owns it watches it.
        Health::Observed | Health::Optimal => Verdict::Well,
        Health::Healing | Health::Held if is_last_leg(array) => Verdict::Critical,
        Health::Healing | Health::Held => Verdict::Warning,
    }
}

/// Whether no loss more can be borne: one good leg, or none, of an array that should have more.
fn is_last_leg(array: &ArrayStatus) -> bool {
    let good = array.legs.iter().filter(|leg| is_good(leg)).count();
    let broken = array.array_state == "broken" || array.array_state == "gone";
    broken || (good <= 1 && !array.repairs.is_empty())
}

/// Whether a leg holds every block and can be reached.
pub(crate) fn is_good(leg: &LegStatus) -> bool {
    leg.slot.is_some() && has(leg, "in_sync") && !has(leg, "faulty") && leg.path == "up"
}

/// Whether MD shows `flag` on the leg.
pub(crate) fn has(leg: &LegStatus, flag: &str) -> bool {
    leg.state.split(',').any(|word| word == flag)
}
