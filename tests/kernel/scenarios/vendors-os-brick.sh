# what: os-brick attaches a volume, a replica dies and is replaced, os-brick detaches, nothing is left
# timeout: 1500
# needs: deb
# needs: os-brick
. /lab/lib/lab.sh

openstack_ready vol one two spare
grep -q "nvmeof_agent.py" "$NOVA/log" || fail "os-brick did not import the module: $(cat "$NOVA/log")"

say "os-brick 7.1.1 attaches"
os_brick_attach vol
figure attach_ms "$(jq .ms "$NOVA/vol.answer")" ms
journal_wait 30 --event array.managed
[[ $(array_state vol) == '[UU]' ]] || fail "the array is $(array_state vol)"
claim "the real os-brick attached the volume, and the daemon knows it by its alias"

workload_start "$(array_dev vol)"
say "a replica dies; the stand-in is killed while it is replaced"
replica_kill two
journal_wait 30 --event leg.lost
nova_kill
nova_start
array_healed vol 200
workload_progress
workload_stop
array_has_leg vol one && array_has_leg vol spare || fail "not the legs it should have"
leg_checksums vol
emulator_heard 'POST /replica/.* 200' >/dev/null || fail "no replica was asked for"
emulator_heard 'POST /forward_log .*Volume is degraded' >/dev/null || fail "its log was not told"
emulator_heard 'POST /publish' >/dev/null || fail "nothing was published"
claim "the provisioner made a new target, the volume healed, and nova-compute's death did not matter"

say "os-brick detaches"
os_brick_detach vol
nothing_left
claim "os-brick detached cleanly, and nothing is left connected"

say "os-brick attaches again, with what it knew at the first time"
os_brick_attach vol
wait_until 60 "[[ \$(array_state vol) == '[UU]' ]]"
array_has_leg vol spare || fail "the replacement is no leg"
os_brick_detach vol
nothing_left
claim "with stale connection_info the replica of today is connected and taken back, and nothing is left"
