# what: somebody fails the last leg and MD breaks the array: an alarm, no act, whole after stop and start
# timeout: 240
# needs: deb
# expects-error: broken
# expects-error: G1
. /lab/lib/lab.sh

heald_heals
volume_create vol one two
replica_create spare
inventory_spare spare
heald_manages vol
workload_start "$(array_dev vol)" --blocks 256
nvme-heal hold "$(array_dev vol)" --reason "to lose both"
replica_kill two
array_wait_state vol '[U_]'
workload_progress 50
workload_stop
wait_until 20 "[[ \$(cat $(array_md vol)/array_state) == clean ]]"
kept=$(leg_sum one)

say "a person marks the last leg faulty: MD refuses, and breaks the array"
! echo faulty >"$(leg_dir vol one)/state" || fail "MD took it"
[[ $(cat "$(array_md vol)/array_state") == broken ]] || fail "it is $(cat "$(array_md vol)/array_state")"
echo change >"/sys/block/$(array_kernel_name vol)/uevent"
nvme-heal resume "$(array_dev vol)"
journal_wait 20 --event array.broken
[[ $(array_status vol .health) != optimal ]] || fail "it is called optimal"
replica_revive two
sleep 12
[[ $(cat "$(array_md vol)/array_state") == broken ]] || fail "it is not broken any more"
for verb in re_add_leg add_leg remove_leg fail_leg; do
    [[ $(journal_count --event act.ended --field VERB=$verb --field OUTCOME=ok) == 0 ]] || fail "$verb was done"
done
[[ $(array_status vol .health) != optimal ]] || fail "it is called optimal"
[[ $(leg_sum one) == "$kept" ]] || fail "the last copy changed"
claim "a broken array is an alarm; nothing is done to it, also when the other leg is back"

say "the only cure: it is stopped and started"
array_stop vol
array_start vol one
heald_stop
heald_start
# As whoever mounts it would.
array_rewrite vol
array_healed vol 120
[[ $(leg_sum one) == "$kept" ]] || fail "what was written is gone"
leg_checksums vol
claim "after stop and start it heals, and everything written before is on every leg"
