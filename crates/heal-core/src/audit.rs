//! The audit trail: one entry for every decision, one before and one after every act.
//!
//! An entry is a plain sentence that can stand alone in `journalctl -u nvme-heald`, and fields that
//! a script can search. "Why did it pull that disk?" must be answered by one line: the entry
//! carries the cause (what was seen), the rule (which part of the policy spoke) and the reason (the
//! numbers).

use serde::{Deserialize, Serialize};

use heal_types::{Slot, WallTime};

use crate::ids::{EffectId, IncidentId};

/// How loud an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Severity {
    /// Data is at risk now.
    Critical,
    /// An action failed for good.
    Error,
    /// Somebody may be woken: degraded, refused, held.
    Warning,
    /// A change of state or a mutation.
    Notice,
    /// Anything else worth a line.
    Info,
}

/// One entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct AuditEntry {
    /// What kind of event.
    pub kind: AuditKind,
    /// How loud.
    pub severity: Severity,
    /// When, wall clock.
    pub at: WallTime,
    /// The plain sentence.
    pub message: String,
    /// The incident it belongs to.
    pub incident: Option<IncidentId>,
    /// The effect it is about.
    pub action: Option<EffectId>,
    /// The slot it is about.
    pub slot: Option<Slot>,
    /// Searchable facts: upper-case name without the product's prefix, value.
    pub fields: Vec<(&'static str, String)>,
}

impl AuditEntry {
    /// The value of one field.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(key, _)| *key == name).map(|(_, value)| value.as_str())
    }
}

/// Declares the kinds of entries: variant, stable dotted name, stable message id.
macro_rules! kinds {
    ($($(#[$doc:meta])* $variant:ident $name:literal $id:literal)*) => {
        /// The kinds of entries. The list is the documentation: names and ids never change.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum AuditKind {
            $($(#[$doc])* $variant,)*
        }

        impl AuditKind {
            /// Every kind.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The stable dotted name.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// The stable 128-bit `MESSAGE_ID`, 32 hexadecimal digits.
            #[must_use]
            pub const fn message_id(self) -> &'static str {
                match self { $(Self::$variant => $id,)* }
            }
        }
    };
}

kinds! {
    /// The provisioner knows a volume for the array and one of its legs is a replica of it.
    ArrayManaged "array.managed" "33634c6d03124ab4bf76d0b8b8b2d6ec"
    /// The array is shown and never touched.
    ArrayObserved "array.observed" "1bd11921a6e1486db99409ddd42dca73"
    /// The array was stopped.
    ArrayStopped "array.stopped" "a6bb64d047344fa89fa14e1cd3967b58"
    /// MD gave the array up: every write fails until it is stopped and assembled.
    ArrayBroken "array.broken" "5b1f0c6e9d7a4f0c8a3e2b71c4d5e6f7"
    /// A contradiction: nothing is done to the array until a person has looked.
    ArrayQuarantined "array.quarantined" "09136aeb06ef40a0b86037925f26b337"
    /// A person has looked at a quarantined array.
    ArrayReleased "array.released" "012d7976bbe343a08e2fa63d9bb30c95"
    /// The first symptom.
    IncidentOpened "incident.opened" "7444f124244a46d69203d47b393e4a5d"
    /// Whole again, and everything owed has been said.
    IncidentClosed "incident.closed" "06eaf7347d0d405faef4ba4036594ef0"
    /// A leg that MD counts good is in doubt.
    LegSuspected "leg.suspected" "936e544c410b4a3c8dc6578c0dcb32e7"
    /// The doubt is gone.
    LegCleared "leg.cleared" "c5a35eacc997494b89338b501ed80c6c"
    /// The application's I/O is being freed from a leg.
    LegIsolating "leg.isolating" "eeb51521b09b4582a8d2f514bde1824b"
    /// MD gave a leg up, or a slot is empty.
    LegLost "leg.lost" "fea7d3917a094e3d9985c25ca2d35cb0"
    /// A leg has blocks that MD must not read: it is no full copy.
    BadBlocksFound "leg.bad_blocks" "52ab1e8f0f5b4f0f9d5c7a1c3f2e6b94"
    /// Every block of a leg is readable again.
    BadBlocksHealed "leg.bad_blocks_healed" "b0c4f3a7d6e14a5f8e2d9c1b7a3f5e60"
    /// Waiting for the leg or the provisioner until a deadline.
    GraceBegan "grace.began" "f0f4a89b595b40dea445c9d58a7e233c"
    /// The lost leg's namespace is back.
    LegReturned "leg.returned" "c8ec2f27313644f0810ae3b16552389a"
    /// A replacement is asked for.
    ReplacementRequested "replacement.requested" "02cee2bc04984fceb1effb584d8ec810"
    /// There is a replacement: it is being connected.
    ReplacementConnecting "replacement.connecting" "68491787fc944415873944566f15a6dc"
    /// The namespace of the replacement is there and is being verified.
    ReplacementVerifying "replacement.verifying" "99164d9e10e04a2982edce45aae76372"
    /// The replacement is proven and given to MD.
    ReplacementAdding "replacement.adding" "08fc5bb717c943e291b7f4cdae926cd5"
    /// MD fills a leg.
    RebuildBegan "rebuild.began" "adadb6a1acc14978821b8a8763d7d9b2"
    /// A leg holds every block; what it replaced is being put away.
    LegInSync "leg.in_sync" "8b92a0ac9e0349cbbdd8d6fc1480c995"
    /// The repair is over.
    RepairEnded "repair.ended" "7031913a259c4ce8bcbec204a1da4a35"
    /// A repair is deliberately not going on.
    RepairHeld "repair.held" "9b6012b09b15440a99c77c8987264c91"
    /// The reason not to go on is gone.
    RepairResumed "repair.resumed" "58167b8bd010461da0afbacfc62cb0a6"
    /// An offered replica must not be used. Nothing was written to it.
    ReplicaRejected "replica.rejected" "d6d097013b5e4f76b0f05832634aba15"
    /// An act is about to begin.
    ActBegun "act.begun" "1dd66b5338cc4ff09d6fbda25d95013c"
    /// An act ended.
    ActEnded "act.ended" "aee3d9fb6cf3497e8d370d60209cdea8"
    /// An act was begun by an earlier life of the daemon; how it ended is read from the kernel.
    ActInterrupted "act.interrupted" "cac4a57168db412d8e7b6f528f9e0b62"
    /// The provisioner took a report or a confirmation.
    ReportDelivered "report.delivered" "de1835304dd1460e867acabd9b41f224"
    /// The provisioner will never take a report or a confirmation.
    ReportRejected "report.rejected" "a3b212d771de4081bc138e84a0eeb7d6"
    /// The provisioner does not answer as it should.
    ProvisionerFaulted "provisioner.faulted" "ea4f171be3194322a5eea8fe0c61b6af"
    /// The provisioner answers again.
    ProvisionerRecovered "provisioner.recovered" "8d429b6a559f49e89f0bbac147c2180a"
    /// A person put a hold on the array.
    HoldPlaced "hold.placed" "c41df84589fa4446b3506327ab3336ac"
    /// A hold on the array ended.
    HoldLifted "hold.lifted" "c59a4a33674348b0bab1011fb42d25c6"
    /// The mode is observe: this would have been done.
    WouldAct "act.withheld" "84e282004d454b6f8fa81d060ba5d6d6"
    /// Many arrays of this host degraded at once.
    HostAlarm "host.alarm" "e7b080a2015745918ac2202f70c8ab02"
    /// How soon the kernel fails the I/O of a path that lost its connection was set.
    PathArmed "path.armed" "d3f5c1a27b8e4e0c9f6a4b2d8c7e1f35"
    /// The sockets of a dead path were to be destroyed: nothing is lost with it.
    PathCut "path.cut" "5b0c6e9d41f24a7b8c3e17d2f6a90b84"
    /// The ledger cannot be written.
    LedgerFailed "ledger.failed" "2bb5cf0894bb4ae98ae7b22f5c46b160"
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_and_message_ids_are_unique_and_well_formed() {
        let names: BTreeSet<_> = AuditKind::ALL.iter().map(|kind| kind.name()).collect();
        let ids: BTreeSet<_> = AuditKind::ALL.iter().map(|kind| kind.message_id()).collect();
        assert_eq!(names.len(), AuditKind::ALL.len());
        assert_eq!(ids.len(), AuditKind::ALL.len());
        for id in ids {
            assert!(id.len() == 32 && id.bytes().all(|b| b.is_ascii_hexdigit()), "{id}");
        }
    }
}
