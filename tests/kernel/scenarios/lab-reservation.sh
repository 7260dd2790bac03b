# what: the kernel's own target keeps a host out by a reservation, and no write of that host lands any more
# timeout: 900
# timeout-full: 1800
# kernels: 7.2
# needs: fence
# multipath: off
. /lab/lib/lab.sh

# disk_to_reserve NAME [OPTION…]: everybody may connect to it, and it can be reserved.
disk_to_reserve() {
    disk_of_hosts "$1" 16 "${@:2}"
    echo 0 >"$subsystem/namespaces/1/enable"
    echo 1 >"$subsystem/namespaces/1/resv_enable"
    echo 1 >"$subsystem/namespaces/1/enable"
    reservation_ready true "$(replica_address "$1")"
}
kernel_is_well() {
    ! dmesg | grep -E 'BUG:|WARNING:|Oops|refcount_t|blocked for more than' || fail "the kernel complains"
}

say "first no fence: everybody may connect, and the next host does"
disk_to_reserve none
host_connect a
reservation_ready false "$(replica_address none)"
! ask health || fail "a target that forgets what is reserved is said to be a fence"
why=$(ask close 7 a 2>&1) && fail "a target that forgets what is reserved is closed"
[[ $why == *"do not survive a loss of power"* ]] || fail "it is refused for another reason: $why"
seen=$(nvme resv-report "$(host_dev a)" --eds --output-format=json | tr -d ' \n')
[[ $seen == *'"regctl":0'* ]] || fail "something was reserved on a target that was refused"
claim "a target whose reservations end with its power is refused as long as nobody says that this is enough"
turn_begin a
wait_until 60 '(($(turn_get a acked) > 600))'
before=$(turn_get a acked)
host_connect b
turn_begin b
wait_until 60 '(($(turn_get b acked) > 1200))'
turn_end b
after=$(turn_get a acked)
turn_end a
figure late_writes $((after - before)) blocks
((after > before)) || fail "the old host's writes failed: nothing is shown"
foreign=$(($(turn_get a foreign) + $(turn_get b foreign)))
((foreign > 0)) || fail "neither host noticed the other's blocks"
! holds "$(replica_backing none)" b 2>/dev/null || fail "the check does not see late writes"
nvme disconnect --nqn="$nqn" >/dev/null

say "a reservation that is only taken, with a write under way"
disk_to_reserve bare --backing freezable
host_connect a
host_connect b
replica_freeze bare
dd if=/dev/urandom of="$(host_dev a)" bs=4096 count=1 oflag=direct conv=notrunc status=none &
writing=$!
nap 2
nvme resv-register "$(host_dev b)" --namespace-id=1 --nrkey=9 --rrega=0
nvme resv-acquire "$(host_dev b)" --namespace-id=1 --crkey=9 --rtype=2 --racqa=0
before=$(replica_sum bare)
replica_thaw bare
wait "$writing" || fail "the write that was under way failed: nothing is shown"
[[ $(replica_sum bare) != "$before" ]] || fail "no write landed late: nothing is shown"
! dd if=/dev/urandom of="$(host_dev a)" bs=4096 count=1 oflag=direct conv=notrunc status=none 2>/dev/null \
    || fail "the reservation keeps nobody out"
nvme disconnect --nqn="$nqn" >/dev/null
claim "without a fence the old host writes on, and a reservation alone lets land what is under way: both are seen"

say "now the fence, while the old host writes"
disk_to_reserve real
# What the target refuses is no sign of life to it, while the host gives no other: after its keep-alive time
# such a connection ends, and comes back after a second. The new host would get its number then (see below).
KEEP_ALIVE=120 host_connect a
ask health
turn_begin a
wait_until 60 '(($(turn_get a acked) > 1200))'
! ask report 0 a || fail "a device in use is reported closed"
began=$(now_ms)
ask close 7 a
ask report 7 a
proven=$(now_ms)
figure proven_after $((proven - began)) ms
nap 0.3
landed=$(replica_sum real)
acked=$(turn_get a acked)
# Ten milliseconds are what the shell's clock can tell.
(($(turn_get a last_ack_ms) <= proven + 10)) || fail "a write was acknowledged after the proof"
nap 4
[[ $(turn_get a acked) == "$acked" ]] || fail "a write was acknowledged after the proof"
(($(turn_get a errors) > 0)) || fail "the old host's writes do not fail: they wait"
[[ $(replica_sum real) == "$landed" ]] || fail "a write landed after the proof"
holds "$(replica_backing real)" a || fail "the device does not hold what was acknowledged"
figure refused_writes "$(turn_get a errors)" writes
claim "from the proof on every write of the old host fails, and what was acknowledged is there"

say "an older leader comes by, and the new host is let in"
for late in "close 6 a" "admit 6 a" "report 6 a"; do
    # shellcheck disable=SC2086  # several words
    ! ask $late 2>/dev/null || fail "an older leader was heard: $late"
done
ask report 7 a
ask admit 7 b
host_connect b
holds "$(host_dev b)" a || fail "the new host does not read what the old one was told is written"
turn_begin b
wait_until 60 '(($(turn_get b acked) > 1200))'
turn_end b
turn_end a
[[ $(turn_get b foreign) == 0 ]] || fail "the new host met blocks that are not its own"
[[ $(turn_get b errors) == 0 ]] || fail "writes of the new host failed"
holds "$(replica_backing real)" b || fail "a write of the old host landed later"
[[ $(turn_get a acked) == "$acked" ]] || fail "a write of the old host was acknowledged later"
figure blocks_checked $(($(turn_get b acked) + acked)) blocks
nvme disconnect --nqn="$nqn" >/dev/null
claim "the new host reads what the old one wrote, and no write of the old one lands any more"

say "a write is under way when the fence comes, and the disk does not answer"
disk_to_reserve slow --backing freezable
host_connect a
turn_begin a
wait_until 60 '(($(turn_get a acked) > 600))'
replica_freeze slow
nap 1
ask_begin close 3 a
nap 3
kill -0 "$ASKING" 2>/dev/null || fail "it is closed while a write is under way"
! ask report 3 a 2>/dev/null || fail "it is reported closed while a write is under way"
kill -KILL "$ASKING"
wait "$ASKING" 2>/dev/null || true
say "the leader died; the next one asks"
ask_begin close 3 a
nap 3
kill -0 "$ASKING" 2>/dev/null || fail "it is closed while a write is under way"
! ask report 3 a 2>/dev/null || fail "it is reported closed while a write is under way"
replica_thaw slow
# It begins anew, so that the old host may have written in between.
wait "$ASKING" || ask close 3 a
ask report 3 a
proven=$(now_ms)
nap 0.3
landed=$(replica_sum slow)
acked=$(turn_get a acked)
(($(turn_get a last_ack_ms) <= proven + 10)) || fail "a write was acknowledged after the proof"
nap 4
turn_end a
[[ $(replica_sum slow) == "$landed" ]] || fail "a write landed after the proof"
[[ $(turn_get a acked) == "$acked" ]] || fail "a write was acknowledged after the proof"
holds "$(replica_backing slow)" a || fail "the device does not hold what was acknowledged"
nvme disconnect --nqn="$nqn" >/dev/null
claim "a write that is under way when the fence comes is waited for, also by the leader after the one that died"

say "the old host is cut off with writes under way, and comes back when another has its disk"
disk_to_reserve away
replica_second_path away
reservation_ready true "$(replica_address away)" "$(replica_address away 2)"
# Connected before: the number of a controller that its target gave up is given to the next one, and one
# kernel takes no two of one number.
host_connect b 2
host_connect a
turn_begin a
wait_until 60 '(($(turn_get a acked) > 600))'
network_black_hole away
nap 1
began=$(now_ms)
ask close 5 a
ask report 5 a
figure proven_cut_off_after $(($(now_ms) - began)) ms
acked=$(turn_get a acked)
ask admit 5 b
holds "$(host_dev b)" a || fail "the new host does not read what the old one was told is written"
turn_begin b
wait_until 60 '(($(turn_get b acked) > 600))'
network_clear away
wait_until 60 "[[ \$(cat /sys/class/nvme/$(host_controller a)/state) == live ]]"
more=$(turn_get b acked)
wait_until 60 "((\$(turn_get b acked) > more + 600))"
errors=$(turn_get a errors)
wait_until 30 "((\$(turn_get a errors) > errors + 20))"
turn_end b
turn_end a
[[ $(turn_get b foreign) == 0 && $(turn_get b errors) == 0 ]] || fail "the new host was disturbed"
[[ $(turn_get a acked) == "$acked" ]] || fail "a write of the old host was acknowledged later"
holds "$(replica_backing away)" b || fail "a write of the old host landed later"
nvme disconnect --nqn="$nqn" >/dev/null
claim "an old host that was cut off and comes back writes nothing"
kernel_is_well

say "the contract of all fences"
backing_contract() {
    mkdir -p "$(replica_state contract)"
    backing_create contract 16 loop
    nqn=nqn.2026-01.org.example:osd-3
    subsystem=$NVMET/subsystems/$nqn
    mkdir "$subsystem" "$subsystem/namespaces/1" "$NVMET/ports/900"
    echo 1 >"$subsystem/attr_allow_any_host"
    replica_get contract device >"$subsystem/namespaces/1/device_path"
    echo 6c1e5c4a-8b0e-4f5e-9c7b-2a0c3f1d9e11 >"$subsystem/namespaces/1/device_uuid"
    echo 1 >"$subsystem/namespaces/1/resv_enable"
    echo 1 >"$subsystem/namespaces/1/enable"
    echo tcp >"$NVMET/ports/900/addr_trtype"
    echo ipv4 >"$NVMET/ports/900/addr_adrfam"
    echo 127.0.0.1 >"$NVMET/ports/900/addr_traddr"
    echo 4420 >"$NVMET/ports/900/addr_trsvcid"
    ln -s "$subsystem" "$NVMET/ports/900/subsystems/$nqn"
}
backing_contract
/lab/files/fence_contract 4420 || fail "the kernel's target does not let the fence keep its contract"
nvme disconnect --nqn="$nqn" >/dev/null
claim "on a kernel's own target the fence keeps the contract that all fences keep"

say "there and back again"
disk_to_reserve often
host_connect a
host_connect b
moves=$(repeat 10 100)
from=a to=b
for ((move = 1; move <= moves; move++)); do
    ask close "$move" "$from" >/dev/null || ask close "$move" "$from"
    ask report "$move" "$from" >/dev/null
    ask admit "$move" "$to" >/dev/null || ask admit "$move" "$to"
    dd if=/dev/zero of="$(host_dev "$to")" bs=4096 count=1 oflag=direct conv=notrunc status=none
    ! dd if=/dev/zero of="$(host_dev "$from")" bs=4096 count=1 oflag=direct conv=notrunc status=none \
        2>/dev/null || fail "move $move: the old host writes"
    read -r from to <<<"$to $from"
done
kernel_is_well
figure moves "$moves" moves
claim "a disk goes to and fro as often as it is asked"
