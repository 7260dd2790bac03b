# what: the daemon is killed once in each phase of a replacement, and the end is the same
# timeout: 300
# needs: deb
. /lab/lib/lab.sh

heald_heals
volume_create vol one two
replica_create spare
inventory_spare spare
heald_manages vol
workload_start "$(array_dev vol)"
# A rebuild long enough to be killed in.
echo 4000 >/proc/sys/dev/raid/speed_limit_max

phases="reporting grace requesting connecting verifying adding rebuilding retiring"
# shellcheck disable=SC2086
heald_kill_in $phases
replica_kill two
wait_until 200 "[[ \$(wc -l <$LAB_STATE/killed-in) == 8 ]]"
heald_wait_restarted
echo 200000 >/proc/sys/dev/raid/speed_limit_max
array_healed vol 60
workload_progress
workload_stop
claim "killed in $(tr '\n' ' ' <"$LAB_STATE/killed-in")and healed"

one_grant
claim "eight kills, one request, one grant"
notes_said two Missing || fail "the loss was never reported"
notes_said spare Available || fail "the spare was never reported available"
notes_said two Removed || fail "the removal was never confirmed"
claim "eight kills, no report lost"
leg_checksums vol
no_safety_scan
claim "the workload saw no error and both legs hold the same bytes"
