# what: the network swallows everything and the carrier stays: the leg is isolated all the same
# timeout: 180
# needs: deb
. /lab/lib/lab.sh

heald_isolates
volume_create vol one two
heald_manages vol
workload_start "$(array_dev vol)" --blocks 64

workload_mark hole
began=$(now_ms)
network_black_hole two
stall_over vol 60 || fail "the application still waits after 60 s"
figure goes_on_after $(($(now_ms) - began)) ms
figure stall "$(workload_since longest_write_ms)" ms
[[ $(cat /sys/class/net/hv-two/carrier) == 1 ]] || fail "the carrier went"
journal_wait 10 --event leg.lost
journal_order leg.suspected leg.lost
say "seen by: $(journal_find --event leg.suspected)"
[[ $(isolations_begun) -le 1 ]] || fail "isolated more than once"
claim "a black hole with its carrier: seen, the leg is out, the application goes on"

network_clear two
array_healed vol
workload_progress
workload_stop
journal_lacks --event replacement.requested
leg_checksums vol
no_safety_scan
claim "taken back when the network is, without an error"
