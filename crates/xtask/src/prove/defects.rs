//! What the agent that polls does wrong, as far as it concerns healing, and where it shows that
//! ours does not: the defects are facts about Kioxia's agent, read in its source and seen in its
//! runs.
//!
//! ```text
//!   defect ── what ours does instead ── the tests whose names say so ──► a claim of `prove safety`
//! ```
//!
//! The price: a test is named here by its function, so renaming one needs an eye on this table. A
//! name that no test bears fails the tests of this file.

/// One defect.
#[derive(Debug)]
pub(super) struct Defect {
    /// What the polling agent does.
    pub(super) theirs: &'static str,
    /// What ours does.
    pub(super) ours: &'static str,
    /// The tests that show it.
    pub(super) shown_by: &'static [&'static str],
}

/// All that concern healing. Those of its threads, its packaging and of os-brick are not ours to
/// have.
pub(super) const DEFECTS: &[Defect] = &[
    Defect {
        theirs: "confirms a deletion although mdadm refused to take the leg out",
        ours: "a deletion is confirmed when the kernel shows the leg out, whatever a tool said",
        shown_by: &[
            "tools_that_fail_cost_time_only",
            "confirming_the_removal_of_a_leg_in_use_is_found",
        ],
    },
    Defect {
        theirs: "takes what it could not read for gone, and deletes or shrinks",
        ours: "what cannot be read is not known, and nothing is begun on it",
        shown_by: &[
            "nothing_is_asked_for_while_the_array_cannot_be_read",
            "what_could_not_be_read_is_not_gone",
            "a_leg_that_cannot_be_read_for_one_look_while_it_is_filled_is_not_lost",
        ],
    },
    Defect {
        theirs: "fails a leg without looking for another good one, and calls the last copy missing",
        ours: "the last good leg is left alone, and is never called missing",
        shown_by: &[
            "a_doubtful_survivor_is_left_alone",
            "failing_a_leg_is_fine_until_it_is_the_last_one",
        ],
    },
    Defect {
        theirs: "marks every replica missing when the host's own network is cut",
        ours: "a host that is cut off says so once, and touches nothing",
        shown_by: &["a_host_that_lost_its_only_link_isolates_nothing_and_says_so_once"],
    },
    Defect {
        theirs: "gives the old replica up as soon as the new one is added, before it is filled",
        ours: "the old replica goes when the new one is in sync and the old one is out",
        shown_by: &["the_old_replica_is_not_deleted_before_the_new_one_is_in_sync"],
    },
    Defect {
        theirs: "re-adds a leg that came back while its replacement was asked for, and deletes it",
        ours: "a replica that came back stays, and the new one goes",
        shown_by: &["a_replica_that_came_back_stays_and_the_new_one_goes"],
    },
    Defect {
        theirs: "asks for another replica in each pass until one can be attached",
        ours: "one loss is one request under one key, over crashes and lost answers",
        shown_by: &[
            "a_dead_replica_is_replaced_by_exactly_one_grant",
            "a_crash_at_any_effect_boundary_changes_neither_the_end_nor_the_number_of_grants",
            "asking_again_and_again_is_one_replica",
        ],
    },
    Defect {
        theirs: "counts the minutes of a grace modulo an hour",
        ours: "a grace is as long as the volume says, over restarts and reboots",
        shown_by: &[
            "a_grace_beyond_an_hour_is_that_long",
            "the_end_of_a_grace_period_survives_a_restart_and_another_boot",
        ],
    },
    Defect {
        theirs: "never handles two terminating replicas at once",
        ours: "they are moved one after the other",
        shown_by: &["two_terminating_replicas_are_moved_one_after_the_other"],
    },
    Defect {
        theirs: "adds a leg without looking at its size or at what stands on it",
        ours: "what does not fit, or holds anything foreign, is rejected unwritten",
        shown_by: &[
            "nothing_is_ever_written_to_a_replica_that_is_rejected",
            "adding_what_nobody_has_read_is_found",
        ],
    },
    Defect {
        theirs: "leaves the faulty slot of a vanished device for good, which blocks growing",
        ours: "a leg whose device is gone is failed, unbound and replaced",
        shown_by: &["an_idle_leg_whose_device_is_gone_is_failed_and_replaced"],
    },
    Defect {
        theirs: "publishes and adds beside an attach or detach of the same volume",
        ours: "an array that is stopped under a repair ends it, and heals when it is back",
        shown_by: &["an_array_that_is_stopped_under_a_repair_heals_when_it_is_back"],
    },
    Defect {
        theirs: "takes a sync that has not begun for one that is over, and deletes the source",
        ours: "MD's own flag on the leg is the word, never the absence of a sync",
        shown_by: &[
            "a_terminating_replica_is_moved_without_losing_redundancy",
            "calling_a_lost_leg_available_is_found",
        ],
    },
    Defect {
        theirs: "calls a replica available before it is filled",
        ours: "available is owed for a leg that MD counts in sync, and for no other",
        shown_by: &[
            "calling_a_lost_leg_available_is_found",
            "a_new_replica_is_never_shown_as_good_before_the_host_says_so",
        ],
    },
    Defect {
        theirs: "ends the pass for every array when one of them is odd",
        ours: "one array in trouble is one array in trouble",
        shown_by: &[
            "an_odd_volume_is_its_own_trouble",
            "no_rule_is_broken_and_no_array_waits_for_another_in_a_crowd",
        ],
    },
    Defect {
        theirs: "one replica that cannot be reached stalls every other array for half a minute",
        ours: "a stuck device holds its own array only",
        shown_by: &["a_stuck_device_holds_its_own_array_only"],
    },
    Defect {
        theirs: "a slow provisioner stops attaches and healing for minutes",
        ours: "no answer is waited for: a leg that returns is taken back meanwhile",
        shown_by: &[
            "an_hour_without_a_provisioner_costs_an_hour_and_nothing_else",
            "a_leg_that_returns_while_the_provisioner_is_down_is_taken_back",
            "a_call_ends_at_its_deadline_and_not_at_four_minutes",
        ],
    },
    Defect {
        theirs: "does not log in again, and shows its secret in its status",
        ours: "a token that was revoked is replaced within the call, and no error repeats a secret",
        shown_by: &[
            "a_token_that_was_revoked_is_replaced_within_the_call",
            "a_secret_that_is_refused_is_unauthorized_and_stays_secret",
        ],
    },
    Defect {
        theirs: "believes every server's certificate",
        ours: "a server of another authority is not believed",
        shown_by: &["a_server_of_another_authority_is_not_believed"],
    },
    Defect {
        theirs: "connects a controller that is there already, because its address reads otherwise",
        ours: "what is connected is recognised, however its address is written",
        shown_by: &[
            "a_replica_that_is_listed_with_another_portal_than_it_was_granted_with_is_still_the_one",
        ],
    },
    Defect {
        theirs: "two agents run at once, and neither knows of the other",
        ours: "whatever another hand does is seen in the next look, and is gone on from",
        shown_by: &["no_rule_is_broken_when_readers_err_and_others_meddle"],
    },
    Defect {
        theirs: "wall-clock steps shift when it looks",
        ours: "deadlines are on the monotonic clock; events, not clocks, make it look",
        shown_by: &["no_rule_is_broken_when_the_daemon_dies_within_a_write_of_its_ledger"],
    },
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::*;
    use crate::workspace;

    fn functions(folder: &Path, names: &mut BTreeSet<String>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                functions(&path, names);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = std::fs::read_to_string(&path).unwrap();
                let lines = text.lines().filter_map(|line| line.split_once("fn "));
                names.extend(
                    lines.filter_map(|(_, rest)| Some(rest.split_once("()")?.0.to_owned())),
                );
            }
        }
    }

    #[test]
    fn every_defect_is_shown_by_a_test_that_is_there() {
        let mut names = BTreeSet::new();
        functions(&workspace::root().join("crates"), &mut names);
        for defect in DEFECTS {
            assert!(!defect.shown_by.is_empty(), "{}", defect.theirs);
            for test in defect.shown_by {
                assert!(names.contains(*test), "{test} is no test: {}", defect.theirs);
            }
        }
    }
}
