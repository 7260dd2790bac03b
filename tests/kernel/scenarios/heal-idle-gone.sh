# what: an idle array's dead leg, which MD does not notice, is failed by the daemon; the last never
# timeout: 180
# needs: deb
# expects-error: G1
# expects-error: the host is cut off
. /lab/lib/lab.sh

heald_heals grace=120s
volume_create vol one two
heald_manages vol
md=$(array_md vol)
wait_until 20 "[[ \$(cat $md/array_state) == clean ]]"

say "a namespace of an idle array goes"
began=$(now_ms)
replica_kill two
journal_wait 20 --event act.ended --field VERB=fail_leg --field OUTCOME=ok
array_wait_state vol '[U_]'
figure failed_after $(($(now_ms) - began)) ms
journal_order leg.suspected leg.isolating act.begun leg.lost grace.began
claim "a dead leg of an idle array is failed without waiting for I/O"

# MD notes the loss in its bitmap in one of its next turns of 5 s: until then the array is not idle,
# and that write would be the one that breaks it.
writes() { cat /sys/class/nvme/nvme*/nvme*n1/stat | awk '{ all += $5 } END { print all + 0 }'; }
(($(writes) > 0)) || fail "nobody counts the writes"
was=0 quiet=0
until ((quiet >= 20)); do
    now=$(writes)
    quiet=$((now == was ? quiet + 1 : 0))
    was=$now
    sleep 1
done

say "now the last one goes as well"
replica_kill one
journal_wait 20 --event repair.held --text G1
sleep 3
[[ $(journal_count --event act.begun --field VERB=fail_leg) == 1 ]] || fail "the last leg was failed"
[[ $(cat "$md/array_state") != broken ]] || fail "the array is broken"
[[ $(cat "$md"/rd0/state) == in_sync ]] || fail "the last leg is $(cat "$md"/rd0/state)"
[[ $(array_status vol .health) == held ]] || fail "not held but $(array_status vol .health)"
no_safety_scan
claim "the last good leg is never failed: held by G1, the array is not broken"
