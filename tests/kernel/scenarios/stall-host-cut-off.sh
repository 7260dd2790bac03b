# what: the host's only link goes down under eight arrays: one alarm, nothing isolated
# timeout: 300
# needs: deb
# expects-error: cut off
. /lab/lib/lab.sh

heald_isolates
arrays=(a b c d e f g h)
via=()
for name in "${arrays[@]}"; do
    for leg in "${name}1" "${name}2"; do
        replica_create "$leg" 16 "${via[@]}"
        replica_connect "$leg" --queues 1
        via=(--via a1)
    done
    array_create "$name" --assume-clean --bitmap-chunk=64K "${name}1" "${name}2"
    inventory_volume "$name" "${name}1" "${name}2"
done
heald_manages "${arrays[@]}"
workload_start "$(array_dev a)" --blocks 64

say "the one link of all eight is down for ten seconds"
workload_mark cut
cable_pull a1
journal_wait 10 --event host.alarm --field RULE=cut_off
sleep 10
[[ $(journal_count --event host.alarm) == 1 ]] || fail "not one alarm"
[[ $(isolations_begun) == 0 ]] || fail "something was isolated"
for name in "${arrays[@]}"; do
    [[ $(array_state "$name") == '[UU]' ]] || fail "$name is $(array_state "$name")"
done
cable_plug a1
for name in "${arrays[@]}"; do array_healed "$name"; done
workload_progress
figure stall "$(workload_since longest_write_ms)" ms
workload_stop
[[ $(journal_count --event host.alarm) == 1 ]] || fail "not one alarm"
[[ $(isolations_begun) == 0 ]] || fail "something was isolated"
journal_lacks --event act.begun --field VERB=fail_leg
journal_lacks --event leg.lost
leg_checksums a
claim "eight arrays cut off together: one alarm, nothing isolated, all whole when the link is back"
