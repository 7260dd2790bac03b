//! Names for what belongs together: an incident, and each effect in it.

use std::fmt;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// One incident: from the first symptom of an array to whole again, kept across restarts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct IncidentId(pub Uuid);

impl fmt::Display for IncidentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One effect: the incident it belongs to and a number that is never used twice in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct EffectId {
    /// The incident, or the nil UUID for questions asked while an array is whole.
    pub incident: IncidentId,
    /// Counted up by the array's record, so a restart does not repeat one.
    pub number: u64,
}

impl fmt::Display for EffectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.incident, self.number)
    }
}
