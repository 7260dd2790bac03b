# what: the stale leg of a mirror is started first: the fresh one that comes late is not written over
# timeout: 300
# needs: deb
# expects-error: quarantined
. /lab/lib/lab.sh

# story ARRAY FRESH STALE WRITES: the stale leg is lost, the application goes on; then, at a boot, only
# the stale leg is there in time, the array is started from it, and so many writes are made. Whatever
# either side counts since then, each has blocks that the other one lacks.
story() {
    local array=$1 fresh=$2 stale=$3 writes=$4 n before earlier
    say "$array: leg $stale is lost, and the application goes on"
    heald_start
    wait_until 30 "[[ \$(array_status $array .health) == optimal ]]"
    workload_start "$(array_dev "$array")" --blocks 256
    replica_kill "$stale"
    journal_wait 20 --event leg.lost --field ARRAY="$(array_kernel_name "$array")"
    workload_progress 100
    workload_stop
    for ((n = 0; n < 4; n++)); do array_touch "$array"; sleep 0.7; done
    heald_stop
    array_stop "$array"
    nvme disconnect --nqn="$(replica_nqn "$fresh")"
    nvme disconnect --nqn="$(replica_nqn "$stale")"

    say "$array: the next boot starts it from the stale leg, and $writes writes are made"
    # The array before this one may have had the same name; and udev may start the daemon.
    earlier=$(quarantined "$array")
    replica_revive "$stale"
    replica_connect "$stale"
    array_start "$array" "$stale"
    [[ $(array_state "$array") == *_* ]] || fail "it is $(array_state "$array")"
    for ((n = 0; n < writes; n++)); do array_touch "$array"; sleep 0.5; done
    before=$(replica_sum "$fresh")
    figure "${array}_fresh_events" "$(events "$fresh")"
    figure "${array}_stale_events" "$(events "$stale")"
    heald_start
    wait_until 40 "(( \$(quarantined $array) == earlier + 1 ))"

    say "$array: a person releases it without a look, and the fresh leg comes late"
    nvme-heal resume "$(array_dev "$array")"
    replica_connect "$fresh"
    wait_until 60 "(( \$(quarantined $array) == earlier + 2 ))"
    sleep 3
    [[ $(array_state "$array") == *_* ]] || fail "it was taken back"
    ! array_has_leg "$array" "$fresh" || fail "it was bound"
    [[ $(replica_sum "$fresh") == "$before" ]] || fail "the fresh leg was written to"
    [[ $(grants_given) == 0 ]] || fail "a replacement was granted"
    journal_lacks --event act.begun --field VERB=add_leg
    notes_lack_removed "$fresh" "$stale"
    heald_stop
}

quarantined() { journal_count --event array.quarantined --field ARRAY="$(array_kernel_name "$1")"; }

# events REPLICA: how many MD counted in its superblock, at the target.
events() { mdadm --examine "$(replica_get "$1" device)" | awk '$1 == "Events" { print $3 }'; }

notes_lack_removed() {
    local replica
    for replica; do ! notes_said "$replica" Removed || fail "$replica was given away"; done
}

heald_heals grace=120s
volume_create vol one two
story vol one two 1
claim "an array that a boot started from a lost leg: quarantined before anything is told or asked"
claim "the fresh leg counts more events than the running array: quarantined, and not a byte changes"

say "a person stops the array and starts it from the fresh leg"
fresh=$(leg_sum one)
array_stop vol
nvme disconnect --nqn="$(replica_nqn two)"
mdadm --quiet --stop "/dev/$(holder_of one)" 2>/dev/null || true
array_start vol one
[[ $(leg_sum one) == "$fresh" ]] || fail "what was written is gone"
array_stop vol
claim "everything that the application wrote is still there"

volume_create web three four
story web three four 12
claim "a stale copy that has counted past the fresh one: quarantined as well"
