# what: a pulled cable is back within grace: re-added by bitmap, no request, array whole
# timeout: 180
# needs: deb
. /lab/lib/lab.sh

heald_isolates
volume_create vol one two
replica_create spare
inventory_spare spare
heald_manages vol
workload_start "$(array_dev vol)" --blocks 64

say "the cable of replica two is pulled"
workload_mark pull
cable_pull two
stall_over vol 30 || fail "the application still waits after 30 s"
figure stall "$(workload_since longest_write_ms)" ms
journal_wait 10 --event leg.lost
journal_order leg.suspected leg.isolating leg.lost
workload_progress 50
isolation_figures return
claim "the leg is isolated and the application goes on"

say "the cable is back"
written=$(replica_written two)
cable_plug two
array_healed vol
copied=$(($(replica_written two) - written))
whole=$(blockdev --getsz "$(array_dev vol)")
figure recovered $((copied / 2)) KiB
figure whole $((whole / 2)) KiB
((copied * 4 < whole)) || fail "$copied of $whole sectors were written"
workload_progress
workload_stop
# The rebuild may be over before anybody looks.
journal_order leg.lost leg.returned leg.in_sync incident.closed
journal_has --event act.begun --field VERB=re_add_leg || fail "it was not re-added"
journal_lacks --event act.begun --field VERB=add_leg
journal_lacks --event act.begun --field VERB=fail_leg
journal_lacks --event replacement.requested
[[ $(grants_given) == 0 ]] || fail "a replacement was granted"
leg_checksums vol
no_safety_scan
claim "back within grace: re-added by its bitmap, no request, whole, both legs hold the same bytes"
