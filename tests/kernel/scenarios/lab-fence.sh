# what: a device is taken away from a host that writes to it, and no write of that host lands any more
# timeout: 300
# needs: fence
# multipath: off
. /lab/lib/lab.sh

say "first a fence that is none: off the list, and the next host let in"
disk_of_one_host none 16
host_connect a
turn_begin a
wait_until 60 '(($(turn_get a acked) > 600))'
host_unlist a
host_list b
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
claim "a host that is only taken off the list goes on writing, and every check here sees it"

say "now the fence, while the old host writes"
disk_of_one_host real 16
fence_ready
host_connect_second a b
turn_begin a
wait_until 60 '(($(turn_get a acked) > 1200))'
! ask report "$nqn" 0 2>/dev/null || fail "a device in use is reported closed"

began=$(now_ms)
ask close "$nqn" 7
ask report "$nqn" 7
proven=$(now_ms)
figure proven_after $((proven - began)) ms
nap 0.3
acked=$(turn_get a acked)
# Ten milliseconds are what the shell's clock can tell.
(($(turn_get a last_ack_ms) <= proven + 10)) || fail "a write was acknowledged after the proof"
nap 4
[[ $(turn_get a acked) == "$acked" ]] || fail "a write was acknowledged after the proof"
(($(turn_get a errors) > 0)) || fail "the old host's writes do not fail: they wait"
holds "$(replica_backing real)" a || fail "the device does not hold what was acknowledged"
claim "from the proof on every write of the old host fails, and what was acknowledged is there"

say "the fence is killed, and the new host let in"
systemctl kill --signal=KILL lab-fenced.service
wait_until 10 '! systemctl is-active --quiet lab-fenced.service'
systemctl reset-failed lab-fenced.service 2>/dev/null || true
fence_start
! ask admit "$nqn" 6 "${HOST[a]}" 2>/dev/null || fail "an older leader let the old host in"
ask report "$nqn" 7
ask admit "$nqn" 7 "${HOST[b]}"
host_connect b
[[ $(replica_uuid real) == "$(cat "/sys/block/$(basename "$(host_dev b)")/uuid")" ]] \
    || fail "it is another device now"
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
claim "the new host reads what the old one wrote, and no write of the old one lands any more"

say "a write is under way when the fence comes, and the disk does not answer"
disk_of_one_host slow 16 --backing freezable
host_connect a
turn_begin a
wait_until 60 '(($(turn_get a acked) > 600))'
replica_freeze slow
nap 1
acked=$(turn_get a acked)
ask_begin close "$nqn" 3
nap 3
say "meanwhile its namespace is $(cat "$subsystem/namespaces/1/enable")"
kill -0 "$ASKING" 2>/dev/null || fail "it is closed while a write is under way"
! ask report "$nqn" 3 2>/dev/null || fail "it is reported closed while a write is under way"
replica_thaw slow
wait "$ASKING" || fail "it is never closed"
ask report "$nqn" 3
landed=$(replica_sum slow)
nap 4
turn_end a
[[ $(replica_sum slow) == "$landed" ]] || fail "a write landed after the proof"
# The one that was under way may have been acknowledged, and no other.
(($(turn_get a acked) <= acked + 1)) || fail "a write was acknowledged after the proof"
holds "$(replica_backing slow)" a || fail "the device does not hold what was acknowledged"
claim "a write that is under way when the fence comes is waited for, and nothing is proven before it ended"
