# what: from MD's notification to the decision in the journal, over more than fifty faults
# timeout: 700
# alone: measured
# needs: deb
. /lab/lib/lab.sh

arrays=(a b c d e f)
# Sixty faults in a row are the measurement, not a leg that flaps.
heald_heals grace=300s keep_alive=1s hold_down=5s "flapping=limit: 1000"
for name in "${arrays[@]}"; do
    for leg in 1 2; do
        replica_create "$name$leg" 16
        replica_connect "$name$leg" --queues 1
    done
    array_create "$name" --assume-clean --bitmap-chunk=64K "${name}1" "${name}2"
    inventory_volume "$name" "${name}1" "${name}2"
done
heald_manages "${arrays[@]}"

all_whole() {
    [[ $(grep -c '\[UU\]' /proc/mdstat) == "${#arrays[@]}" ]] \
        && [[ $(status_json '[.arrays[] | select(.health == "optimal")] | length') == "${#arrays[@]}" ]]
}

# rounds COUNT: in each, every array loses a leg and takes it back; the other leg the next time.
rounds() {
    local round name leg
    for ((round = 1; round <= $1; round++)); do
        for name in "${arrays[@]}"; do
            leg=$(replica_dev "$name$((round % 2 + 1))")
            echo faulty >"$(array_md "$name")/dev-${leg#/dev/}/state"
        done
        wait_until 60 all_whole
        say "round $round of $1: $(journal_count --event leg.lost) faults so far"
    done
}

# A look that is under way already for another reason may see a loss before MD's word is read: that
# one is decided on earlier, and not measured.
measured() {
    figure "$1_measured" "$(status_json .reaction.count)"
    for what in median p99 max; do
        figure "$1_$what" "$(status_json ".reaction.${what}_us")" us
    done
}

rounds 11
measured reaction
(($(status_json .reaction.count) >= 50)) || fail "fewer than fifty decisions were measured"
claim "from MD's notification to the decision in the journal, while nothing else is being done"

say "the same while other arrays are being repaired"
heald_stop
heald_heals grace=300s keep_alive=1s hold_down=1100ms "flapping=limit: 1000"
heald_manages "${arrays[@]}"
rounds 2
measured busy
figure faults "$(journal_count --event leg.lost)"
journal_lacks --event replacement.requested
no_safety_scan
claim "every one of them was decided on, and every leg was taken back"
