# what: a target's disk answers nothing while TCP and keep-alive go on: isolated by its I/O
# timeout: 240
# needs: deb
. /lab/lib/lab.sh

heald_isolates
replica_create one
replica_create two --backing freezable
for leg in one two; do replica_connect "$leg"; done
array_create vol --assume-clean --bitmap-chunk=64K one two
inventory_volume vol one two
heald_manages vol
workload_start "$(array_dev vol)" --blocks 64

workload_mark freeze
began=$(now_ms)
replica_freeze two
stall_over vol 60 || fail "the application still waits after 60 s"
figure goes_on_after $(($(now_ms) - began)) ms
figure stall "$(workload_since longest_write_ms)" ms
journal_wait 10 --event leg.lost
journal_has --event leg.suspected --text I/O || fail "the journal does not say that I/O stood still"
workload_progress 50
claim "a frozen target with a live connection is reported and isolated; the application goes on"

replica_thaw two
array_healed vol
workload_progress
workload_stop
journal_lacks --event replacement.requested
leg_checksums vol
claim "thawed: taken back without an error"
