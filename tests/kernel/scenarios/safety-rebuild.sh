# what: while a replacement is filled, first the last good leg and then the new one lose their cable
# timeout: 300
# needs: deb
# expects-error: cut off
. /lab/lib/lab.sh

heald_isolates grace=4s
volume_create vol one two
replica_create spare
inventory_spare spare
heald_manages vol
workload_start "$(array_dev vol)" --blocks 256
array_watch vol
# Slow enough to pull cables in.
echo 2000 >/proc/sys/dev/raid/speed_limit_max
echo 500 >/proc/sys/dev/raid/speed_limit_min

replica_kill two
journal_wait 60 --event rebuild.began
wait_until 20 "[[ \$(array_sync_action vol) == recover ]]"

say "the only good leg loses its cable for eight seconds"
cable_pull one
sleep 8
[[ $(cat "$(array_md vol)/rd0/state") == in_sync ]] || fail "the last leg is $(cat "$(array_md vol)/rd0/state")"
cable_plug one
wait_until 60 "replica_live one"
workload_moves 20 60 || fail "the application does not go on"
workload_check
[[ $(array_seen vol broken) == 0 ]] || fail "the array was broken"
claim "the last good leg pulled during a rebuild: it queues, no error, never broken"

say "the leg that is filled loses its cable"
[[ $(array_sync_action vol) == recover ]] || fail "the rebuild is over: $(array_sync_action vol)"
workload_mark filled
cable_pull spare
wait_until 45 "(( \$(workload_since writes) > 30 ))"
figure stall "$(workload_since longest_write_ms)" ms
sleep 3
cable_plug spare
echo 200000 >/proc/sys/dev/raid/speed_limit_max
array_healed vol 150
workload_progress
workload_stop
[[ $(array_seen vol broken) == 0 ]] || fail "the array was broken"
notes_said spare Available || fail "the spare was never reported available"
leg_checksums vol
claim "the new leg pulled while it is filled: the application goes on, and the legs are equal in the end"
