# what: the leg that queues is lost while nobody watches: its controller is deleted, and connected again
# timeout: 300
# needs: deb
. /lab/lib/lab.sh

state_of() { cat "/sys/class/nvme/$(replica_controller "$1")/state"; }

heald_isolates
volume_create vol one two
heald_manages vol
wait_until 20 "[[ \$(cat /sys/class/nvme/$(replica_controller two)/fast_io_fail_tmo) == 1 ]]"
workload_start "$(array_dev vol)" --blocks 64

say "nobody watches, and the leg that queues is black-holed"
heald_stop
network_black_hole one
wait_until 60 "[[ \$(state_of one) == connecting ]]"
if workload_moves 20 5; then fail "the application does not wait: there is nothing to free"; fi
controller=$(replica_controller one)
began=$(now_ms)
heald_start
stall_over vol 90 || fail "the application still waits"
figure goes_on_after $(($(now_ms) - began)) ms
journal_has --event act.begun --field VERB=delete_controller || fail "no controller was deleted"
[[ ! -e /sys/class/nvme/$controller ]] || fail "$controller is there"
workload_check
claim "I/O that waits for a controller that cannot fail it any more is freed by deleting it"

say "the network is back"
network_clear one
array_healed vol 120
journal_has --event act.begun --field VERB=reconnect || fail "nobody connected it again"
journal_order leg.lost leg.returned leg.in_sync incident.closed
journal_lacks --event replacement.requested
workload_progress
workload_stop
leg_checksums vol
claim "it is connected again as it was, and the leg is taken back by its bitmap"
