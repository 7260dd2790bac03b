# what: os-brick attaches a volume, a replica dies and is replaced, os-brick detaches, nothing is left
# timeout: 900
# needs: deb
# needs: os-brick
. /lab/lib/lab.sh

openstack_ready vol one two spare
grep -q "nvmeof_agent.py" "$NOVA/log" || fail "os-brick did not import the module: $(cat "$NOVA/log")"

say "os-brick 7.1.1 attaches"
os_brick_attach vol
figure attach_ms "$OS_BRICK_MS" ms
journal_wait 30 --event array.managed
[[ $(array_state vol) == '[UU]' ]] || fail "the array is $(array_state vol)"
claim "the real os-brick attached the volume, and the daemon knows it by its alias"

workload_start "$(array_dev vol)" --pause-ms 20
say "a replica dies; the stand-in is killed, and started again while the daemon goes on"
replica_kill two
journal_wait 30 --event leg.lost
nova_kill
lines=$(emulator_lines)
nova_start
say "the grace is a minute: the provisioner is asked for a replica"
emulator_wait 90 'POST /replica/.* 200' "$lines"
journal_wait 30 --event replacement.adding
say "a new target was made and connected; MD fills the leg"
array_healed vol 120
workload_progress
workload_stop
array_has_leg vol one && array_has_leg vol spare || fail "not the legs it should have"
leg_checksums vol
emulator_heard 'POST /forward_log .*Volume is degraded' >/dev/null || fail "its log was not told"
emulator_heard 'POST /publish' >/dev/null || fail "nothing was published"
emulator_wait 30 'DELETE /replica/.* 200' "$lines"
claim "the provisioner made a new target, the volume healed, and nova-compute's death did not matter"

say "os-brick detaches"
os_brick_detach vol
figure detach_ms "$OS_BRICK_MS" ms
nothing_left
claim "os-brick detached cleanly, and nothing is left connected"

say "os-brick attaches again, with what it knew at the first time; it looks for the old replica for a minute"
os_brick_attach vol 240
figure stale_attach_ms "$OS_BRICK_MS" ms
say "the array is $(array_state vol)"
# Nothing is changed on an array that nobody has written to since it was assembled.
array_touch vol
wait_until 60 "array_has_leg vol spare"
array_healed vol 60
leg_checksums vol
[[ $(journal_count --event replacement.requested) == 1 ]] || fail "another replica was asked for"
claim "with stale connection_info the replica of today is connected and taken back"

say "the daemon is not there when os-brick detaches"
heald_stop
os_brick_detach vol
[[ $(left_behind) == *:spare* ]] || fail "the spare's controller is not there: $(left_behind)"
heald_start
nothing_left
claim "what was connected for a volume that went while the daemon was down is put away by its next life"
