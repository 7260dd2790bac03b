# what: a cable flaps twenty times: the leg is held out after the limit, and taken back when it is quiet
# timeout: 420
# needs: deb
. /lab/lib/lab.sh

LIMIT=3
heald_isolates limit=$LIMIT held=30s
volume_create vol one two
heald_manages vol
workload_start "$(array_dev vol)" --blocks 64

held() { [[ $(array_status vol '.repairs[].rule') =~ 'comes and goes' ]]; }

# A leg that is taken back is whole before the next flap; one that is held stays out.
settled() { held || [[ $(array_status vol .health) == optimal && $(array_state vol) == '[UU]' ]]; }

for ((flap = 1; flap <= 20; flap++)); do
    cable_pull two
    if held; then
        nap 0.5
        cable_plug two
        nap 0.5
        continue
    fi
    stall_over vol 30 || fail "the application still waits after 30 s"
    cable_plug two
    wait_until 60 settled
    if held; then say "held out after flap $flap"; fi
done
quiet=$(now_ms)
# While the leg is away there is nothing to hold: a hold that ended then begins again with its return.
wait_until 20 held || fail "twenty flaps, and the leg is not held"
begun=$(isolations_begun)
figure isolations "$begun"
((begun >= LIMIT && begun <= LIMIT + 1)) || fail "isolated $begun times with a limit of $LIMIT"
[[ $(array_state vol) == '[U_]' ]] || fail "the array is $(array_state vol)"
workload_check
claim "twenty flaps: the leg is held out after the limit, and the application saw no error"

say "the cable stays in"
array_healed vol 120
waited=$(($(now_ms) - quiet))
figure taken_back_after "$waited" ms
((waited >= 29000)) || fail "taken back before the hold-down"
workload_progress
workload_stop
journal_lacks --event replacement.requested
leg_checksums vol
claim "after the hold-down it is taken back, and both legs hold the same bytes"
