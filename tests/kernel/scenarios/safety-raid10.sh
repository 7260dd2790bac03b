# what: a RAID10 loses a leg of each pair, and then the last one of a pair is never touched
# timeout: 300
# needs: deb
# expects-error: G1
# expects-error: the array is broken
. /lab/lib/lab.sh

heald_heals grace=6s
legs=(a1 a2 b1 b2)
for leg in "${legs[@]}"; do
    replica_create "$leg" 32
    replica_connect "$leg" --queues 1
done
array_create vol --level=10 --assume-clean --bitmap-chunk=64K "${legs[@]}"
inventory_volume vol "${legs[@]}"
replica_create spare 32
inventory_spare spare
heald_manages vol
md=$(array_md vol)
workload_start "$(array_dev vol)" --blocks 512
whole() { [[ $(array_state vol) == '[UUUU]' && $(array_status vol .health) == optimal ]]; }

say "a leg of the first pair returns, one of the second is lost for good"
replica_kill a2
journal_wait 20 --event leg.lost
replica_revive a2
wait_until 90 whole
replica_kill b1
wait_until 120 whole
array_has_leg vol spare || fail "the spare is no leg"
workload_progress
workload_stop
claim "in a RAID10 a leg is taken back by its bitmap, and another one is replaced"

say "both legs of a pair go while nobody writes"
wait_until 20 "[[ \$(cat $md/array_state) == clean ]]"
replica_kill a1
wait_until 30 "[[ \$(array_state vol) == '[_UUU]' ]]"
replica_kill a2
journal_wait 30 --event repair.held --text G1
sleep 3
[[ $(cat "$md/array_state") != broken ]] || fail "the array is broken"
[[ $(cat "$md/rd1/state") == in_sync ]] || fail "the last of the pair is $(cat "$md/rd1/state")"
claim "the last leg of a pair is never failed, however good the other pair is"

say "a person stops it, and starts it with what is there"
for leg in a1 a2; do replica_revive "$leg"; done
heald_stop
array_stop vol
wait_until 20 "replica_dev a1 && replica_dev a2"
udevadm settle --timeout=20
array_start vol a2 b2 spare a1
heald_start
# As whoever mounts it would.
array_rewrite vol
wait_until 90 whole
pairs_equal() {
    local n
    for n in 0 2; do
        cmp -s <("$XTASK" guest leg-sum "$(slot_dev $n)") <("$XTASK" guest leg-sum "$(slot_dev $((n + 1)))") \
            || fail "the pair of slot $n differs"
    done
}
slot_dev() { local link; link=$(readlink "$md/rd$1"); echo "/dev/${link#dev-}"; }
md=$(array_md vol)
pairs_equal
claim "both legs of each pair hold the same bytes"
