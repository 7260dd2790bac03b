# what: both legs are pulled within half a second, for ten: no error, not broken, whole after return
# timeout: 600
# timeout-full: 1800
# needs: deb
# expects-error: cut off
# expects-error: no leg other than
. /lab/lib/lab.sh

ROUNDS=${LAB_PULLS:-$(repeat 4 20)}
heald_isolates
volume_create vol one two
heald_manages vol
workload_start "$(array_dev vol)" --blocks 64
array_watch vol

# Which leg goes first is a matter of luck too.
pull_both() {
    local first=one second=two offset=$((RANDOM % 500))
    if ((RANDOM % 2)); then first=two second=one; fi
    say "round $1: $first, and $second $offset ms later"
    cable_pull "$first"
    nap "0.$(printf '%03d' "$offset")"
    cable_pull "$second"
}

plug_both() {
    cable_plug one
    cable_plug two
    array_healed vol 90
    workload_moves 20 30 || fail "the application does not go on"
    workload_check
    [[ $(array_seen vol broken) == 0 ]] || fail "the array was broken"
}

out=0
for ((round = 1; round <= ROUNDS; round++)); do
    workload_mark "both-$round"
    seen=$(array_seen vol faulty)
    pull_both "$round"
    sleep 10
    if (($(array_seen vol faulty) > seen)); then out=$((out + 1)); fi
    plug_both
done
figure rounds "$ROUNDS"
figure rounds_with_a_leg_out "$out"
figure longest_write "$(workload_get longest_write_ms)" ms
journal_lacks --event act.begun --field VERB=fail_leg
# A second pull that came after isolate_after found the first leg isolated already, and rightly.
claim "both legs pulled for ten seconds: no error, never broken, no leg failed by us, whole after it"

say "again with one leg already out"
for ((round = 1; round <= $(repeat 2 5); round++)); do
    cable_pull two
    stall_over vol 30 || fail "the application still waits after 30 s"
    cable_pull one
    sleep 10
    [[ $(cat "$(array_md vol)/rd0/state") == in_sync ]] || fail "the last leg is not in sync"
    plug_both
done
workload_progress
workload_stop
[[ $(array_seen vol broken) == 0 ]] || fail "the array was broken"
journal_lacks --event act.begun --field VERB=fail_leg
journal_lacks --event replacement.requested
leg_checksums vol
claim "the last leg pulled for ten seconds: no error, never broken, both legs hold the same bytes"
