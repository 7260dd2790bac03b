# what: the target says that its only path carries no I/O (ANA): reported and isolated
# timeout: 180
# needs: deb
. /lab/lib/lab.sh

heald_isolates
volume_create vol one two
heald_manages vol
workload_start "$(array_dev vol)" --blocks 64

workload_mark ana
began=$(now_ms)
replica_ana two inaccessible
stall_over vol 60 || fail "the application still waits after 60 s"
figure goes_on_after $(($(now_ms) - began)) ms
figure stall "$(workload_since longest_write_ms)" ms
journal_wait 10 --event leg.lost
journal_has --event leg.suspected --text ANA || fail "the journal does not speak of ANA"
workload_progress 50
sleep 8
[[ $(array_state vol) == '[U_]' ]] || fail "taken back over an inaccessible path"
claim "an inaccessible path is reported and isolated; the application goes on"

replica_ana two optimized
array_healed vol
workload_progress
workload_stop
journal_lacks --event replacement.requested
leg_checksums vol
claim "optimized again: taken back without an error"
