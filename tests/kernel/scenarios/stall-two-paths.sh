# what: two controllers per leg, one of them pulled: md is not touched
# timeout: 180
# needs: deb
. /lab/lib/lab.sh

heald_isolates
for leg in one two; do
    replica_create "$leg"
    replica_second_path "$leg"
    replica_connect "$leg"
    replica_connect "$leg" --path 2
done
array_create vol --assume-clean --bitmap-chunk=64K one two
inventory_volume vol one two
heald_manages vol
workload_start "$(array_dev vol)" --blocks 64
array_watch vol

for path in 1 2; do
    say "path $path of replica two is pulled"
    workload_mark "path-$path"
    cable_pull two "$path"
    sleep 1
    # Whoever waited on the dead path goes on over the other one.
    wait_until 45 "(( \$(workload_since writes) > 50 && \$(workload_since in_flight_ms) < 500 ))"
    figure "failover_path_$path" "$(workload_since longest_write_ms)" ms
    # Left to itself the kernel waits for its keep-alive, ten seconds and more.
    (($(workload_since longest_write_ms) < 8000)) || fail "the dead path was not cut"
    sleep 2
    [[ $(array_state vol) == '[UU]' ]] || fail "the array is $(array_state vol)"
    cable_plug two "$path"
    wait_until 40 "replica_live two $path"
    wait_until 30 "[[ \$(array_status vol .health) == optimal ]]"
done
workload_stop
[[ $(array_seen vol faulty) == 0 ]] || fail "a leg was faulty"
journal_lacks --event leg.lost
journal_lacks --event act.begun --field VERB=fail_leg
journal_lacks --event act.begun --field VERB=isolate_leg
[[ $(journal_count --event path.cut --field OUTCOME=done) == 2 ]] || fail "not two paths were cut"
leg_checksums vol
claim "one path of two is lost, and md never hears of it"
