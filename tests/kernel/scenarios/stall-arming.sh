# what: every leg armed, and a rebooting switch breaks the array; one leg that queues, and it cannot
# timeout: 300
# needs: deb
# expects-error: the array is broken
. /lab/lib/lab.sh

armed() { cat "/sys/class/nvme/$(replica_controller "$1")/fast_io_fail_tmo"; }

# swallow SECONDS REPLICA…: the network takes everything of all of them, and keeps its carrier.
swallow() {
    local seconds=$1 replica
    shift
    for replica; do network_black_hole "$replica"; done
    sleep "$seconds"
    for replica; do network_clear "$replica"; done
}

heald_isolates
volume_create vol one two
replica_create other
replica_connect other
heald_manages vol
wait_until 20 "[[ \$(armed two) == 1 ]]"
[[ $(armed one) == off ]] || fail "the leg that must queue shows $(armed one)"
[[ $(armed other) == off ]] || fail "a controller that is no leg was armed: $(armed other)"
claim "one leg of the mirror is armed, the other one queues, and nothing else on the host is touched"

say "nobody watches, and both legs are black-holed"
workload_start "$(array_dev vol)" --blocks 64
heald_kill
systemctl stop "$HEALD_UNIT"
[[ $(armed two) == 1 ]] || fail "a leg that was armed shows $(armed two)"
swallow 30 one two
wait_until 60 "replica_live one"
workload_moves 20 60 || fail "the application does not go on"
workload_check
[[ $(cat "$(array_md vol)/array_state") != broken ]] || fail "the array is broken"
heald_start
array_healed vol
workload_progress
workload_stop
leg_checksums vol
claim "both legs lost with the daemon dead: no error, not broken, whole when it is back"

wait_until 20 "[[ \$(armed two) == 1 ]]"
heald_stop
[[ $(armed one) == off && $(armed two) == off ]] || fail "armed: $(armed one), $(armed two)"
claim "a daemon that is stopped leaves nothing armed"

say "the same with both legs armed, as a person would do it"
replica_create three
replica_create four
replica_connect three --fast-io-fail 1
replica_connect four --fast-io-fail 1
array_create control --assume-clean three four
dd if=/dev/urandom of="$(array_dev control)" bs=4096 oflag=direct status=none &
writer=$!
sleep 1
swallow 30 three four
wait "$writer" || true
dd if=/dev/urandom of="$(array_dev control)" bs=4096 count=1 oflag=direct status=none \
    && fail "the array takes writes: the control shows nothing"
figure control_array_state "$(cat "$(array_md control)/array_state")"
claim "the control: with every leg armed the array takes no write any more"
