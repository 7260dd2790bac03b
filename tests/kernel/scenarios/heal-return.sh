# what: a replica returns within grace and is taken back by its bitmap
# timeout: 180
# needs: deb
. /lab/lib/lab.sh

heald_heals grace=60s
volume_create vol one two
replica_create spare
inventory_spare spare
heald_manages vol
# Few blocks: what was missed is a small part of the device.
workload_start "$(array_dev vol)" --blocks 64

replica_kill two
journal_wait 20 --event leg.lost
workload_progress 50
workload_stop
written=$(replica_written two)
whole=$(blockdev --getsz "$(array_dev vol)")

say "it comes back"
replica_revive two
array_healed vol
copied=$(($(replica_written two) - written))
figure recovered $((copied / 2)) KiB
figure whole $((whole / 2)) KiB
((copied > 0 && copied * 4 < whole)) || fail "$copied of $whole sectors were written"

# The rebuild may be over before anybody looks.
journal_order leg.lost 'report.delivered two is missing' leg.returned leg.in_sync \
    'report.delivered two is available' incident.closed
journal_has --event act.begun --field VERB=re_add_leg || fail "it was not re-added"
journal_lacks --event act.begun --field VERB=add_leg
claim "a leg that returns is re-added, and only what it missed is written"
journal_lacks --event replacement.requested
[[ $(grants_given) == 0 ]] || fail "a replacement was granted"
leg_checksums vol
no_safety_scan
claim "no request; both legs hold the same bytes"
