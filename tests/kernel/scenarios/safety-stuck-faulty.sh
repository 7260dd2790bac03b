# what: behind a black hole somebody marks the leg faulty: its I/O is stuck all the same, and is freed
# timeout: 240
# needs: deb
. /lab/lib/lab.sh

heald_isolates
volume_create vol one two
heald_manages vol
workload_start "$(array_dev vol)" --blocks 64

say "leg one, which queues, is black-holed, and a person marks it faulty"
workload_mark stuck
network_black_hole one
nap 0.2
mdadm --manage "$(array_dev vol)" --fail "$(replica_dev one)" &
failing=$!
began=$(now_ms)
stall_over vol 120 || fail "the application still waits"
figure goes_on_after $(($(now_ms) - began)) ms
workload_check
wait "$failing" || true
claim "I/O that is stuck behind a leg that MD calls faulty is freed"

network_clear one
array_healed vol 120
workload_progress
workload_stop
journal_lacks --event replacement.requested
leg_checksums vol
claim "taken back when the network is; no error, and the legs are equal"
