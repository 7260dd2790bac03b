# what: a replica of a written mirror is lost for good and replaced, on events alone
# timeout: 240
# needs: deb
. /lab/lib/lab.sh

heald_heals
volume_create vol one two
replica_create spare
inventory_spare spare
heald_manages vol
workload_start "$(array_dev vol)"

say "the second replica's namespace is taken away"
began=$(now_ms)
replica_kill two
journal_wait 20 --event leg.lost
figure seen_after $(($(now_ms) - began)) ms
array_healed vol 120
figure whole_after $(($(now_ms) - began)) ms
workload_progress
workload_stop

journal_order leg.lost 'report.delivered two is missing' replacement.requested \
    replacement.connecting replacement.verifying replacement.adding rebuild.began leg.in_sync \
    'report.delivered spare is available' incident.closed
journal_order leg.lost grace.began replacement.requested
journal_order leg.in_sync repair.ended 'report.delivered two is no longer used' incident.closed
claim "the loss is seen, reported, waited for, and replaced, in this order"

[[ $(journal_find --event replacement.requested --print REQUEST_ID | sort -u | wc -l) == 1 ]] \
    || fail "more than one key"
one_grant
notes_said two Missing && notes_said spare Available && notes_said two Removed \
    || fail "the provisioner was not told all"
claim "exactly one request and one grant; lost, available and removed were all reported"

array_has_leg vol one && array_has_leg vol spare || fail "not the legs it should have"
[[ ! -e $(array_md vol)/rd2 && $(ls -d "$(array_md vol)"/dev-* | wc -l) == 2 ]] \
    || fail "the lost leg is still bound"
leg_checksums vol
claim "[UU], the workload saw no error, and both legs hold the same bytes"
no_safety_scan
claim "no safety scan was made: events sufficed"
