# what: a boot in the middle of a repair: the daemon is up before the array, and the legs come one by one
# timeout: 300
# needs: deb
. /lab/lib/lab.sh

heald_heals grace=20s
volume_create vol one two
replica_create spare
inventory_spare spare
heald_manages vol
workload_start "$(array_dev vol)" --blocks 256
# A rebuild long enough to be interrupted.
echo 2000 >/proc/sys/dev/raid/speed_limit_max
echo 500 >/proc/sys/dev/raid/speed_limit_min
replica_kill two
journal_wait 60 --event rebuild.began
workload_stop
kept=$(leg_sum one)

say "the host goes down in the middle of the rebuild"
heald_kill
systemctl stop "$HEALD_UNIT"
array_stop vol
for leg in one two spare; do nvme disconnect --nqn="$(replica_nqn "$leg")"; done
rm -rf /run/nvme-heald/*
echo 200000 >/proc/sys/dev/raid/speed_limit_max

say "the daemon is up, and there is no array"
heald_start
sleep 3
journal_lacks --event array.quarantined
nvme connect --transport=tcp --traddr="$(replica_address spare)" --trsvcid=4420 --nqn="$(replica_nqn spare)"
wait_until 20 "replica_dev spare"
udevadm settle --timeout=20
sleep 3
[[ $(leg_sum one) == "$kept" ]] || fail "the good leg was written to"
say "the half-filled leg is there first; then the good one"
nvme connect --transport=tcp --traddr="$(replica_address one)" --trsvcid=4420 --nqn="$(replica_nqn one)"
wait_until 20 "replica_dev one"
array_start vol one
[[ $(<"$(array_md vol)/array_state") == read-auto ]] || fail "it is written to already"
array_rewrite vol
array_healed vol 150
array_has_leg vol one && array_has_leg vol spare || fail "not the legs it should have"
one_grant
notes_said spare Available || fail "the spare was never reported available"
[[ $(leg_sum one) == "$kept" ]] || fail "what was written is gone"
leg_checksums vol
claim "after the boot the rebuild goes on from the good leg: one request, one grant, equal legs"
