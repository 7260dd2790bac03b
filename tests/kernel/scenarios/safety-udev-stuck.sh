# what: udev handles no event while a leg is lost, and another one is taken back
# timeout: 240
# needs: deb
. /lab/lib/lab.sh

heald_heals grace=120s
volume_create vol one two
heald_manages vol
workload_start "$(array_dev vol)" --blocks 256

say "udev stands still"
udevadm control --stop-exec-queue
began=$(now_ms)
replica_kill two
journal_wait 20 --event leg.lost
figure seen_after $(($(now_ms) - began)) ms
workload_progress
sleep 5
replica_revive two
array_wait_state vol '[UU]' 60
figure back_after $(($(now_ms) - began)) ms
udevadm control --start-exec-queue
array_healed vol
workload_progress
workload_stop
no_safety_scan
leg_checksums vol
claim "a loss is seen, and a leg is taken back, without udev"
