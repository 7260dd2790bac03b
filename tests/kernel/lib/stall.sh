# How long an application waits when a path of one leg dies, and what the daemon does about it.

# An application that still waits then is taken out of its misery, and counted as that long.
STALL_CUT_OFF=60

# heald_isolates [NAME=VALUE…]: heald_heals, with isolation as it is by default, and clocks that are
# short for the lab. after= is isolate_after as RON, limit= and held= are those of flapping.
heald_isolates() {
    local after='"250ms"' limit=1000 held=20s rest=() word
    for word; do
        case $word in
            after=* | limit=* | held=*) local "$word" ;;
            *) rest+=("$word") ;;
        esac
    done
    heald_heals grace=120s keep_alive=5s hold_down=6s \
        "isolation=isolate_after: $after, stalled_after: \"10s\", fast_io_fail: \"1s\", many_arrays: 3" \
        "flapping=limit: $limit, half_life: \"10m\", hold_down: \"$held\"" "${rest[@]}"
}

# isolation_times: each isolation's microseconds from the carrier event to the sockets' end.
isolation_times() {
    { journal_find --text 'sockets of a dead leg are destroyed' --print ISOLATE_US || true; } \
        | grep -E '^[0-9]+$' || true
}

# isolations_begun: how often a leg was isolated.
isolations_begun() { journal_count --event act.begun --field VERB=isolate_leg; }

# Of an array's two legs, made by volume_create NAME NAME1 NAME2, a pull takes the second when its
# number is odd and the first, MD's favourite, when it is even.
pulled_leg() { echo "$1$((2 - ($2 + 1) % 2))"; }

# array_degraded MD
array_degraded() { local LETTERS; letters "$1"; [[ $LETTERS == *_* ]]; }

# stall_over ARRAY SECONDS: MD has given the leg up and the application goes on, within that time.
stall_over() {
    local md deadline=$(($(now_ms) + $2 * 1000))
    md=$(array_kernel_name "$1")
    until array_degraded "$md" && workload_moves 20 1; do
        (($(now_ms) < deadline)) || return 1
        nap 0.2
    done
}

# stall_pull STRATEGY NUMBER ARRAY [SECONDS]: one cable is pulled; how long does the longest write
# wait? STALL is the answer in milliseconds. The cable stays out.
stall_pull() {
    local strategy=$1 number=$2 array=$3 seconds=${4:-$STALL_CUT_OFF}
    workload_mark "$strategy-$number"
    cable_pull "$(pulled_leg "$array" "$number")"
    # Whoever reacts has an emulated processor or two: not to be measured together with our asking.
    nap 1
    if stall_over "$array" "$seconds"; then
        STALL=$(workload_since longest_write_ms)
        figure "stall_${strategy}_$number" "$STALL" ms
    else
        STALL=$((seconds * 1000))
        figure "stall_${strategy}_$number" "$STALL" "ms, cut off"
    fi
}

# stall_mend NUMBER ARRAY: the cable is back; a person re-adds the leg if MD has given it up.
stall_mend() {
    local array=$2 leg
    leg=$(pulled_leg "$array" "$1")
    cable_plug "$leg"
    wait_until 60 "replica_live $leg"
    if [[ $(array_state "$array") != '[UU]' ]]; then
        udevadm settle --timeout=20
        mdadm --quiet --manage "$(array_dev "$array")" --remove "$(replica_dev "$leg")" || true
        array_readd "$array" "$leg"
    fi
    array_wait_state "$array" '[UU]' 90
    workload_moves 20 30 || fail "the workload does not go on"
}

# stall_plug NUMBER ARRAY: the cable is back; the daemon does the rest.
stall_plug() {
    cable_plug "$(pulled_leg "$2" "$1")"
    array_healed "$2" 90
    workload_moves 20 30 || fail "the workload does not go on"
}

# stall_array NAME: two legs of its own, and an application of its own on it.
stall_array() {
    volume_create "$1" "${1}1" "${1}2"
    WORKLOAD=$1 workload_start "$(array_dev "$1")" --blocks 512
}

# stall_array_end NAME: no error until the end, and both legs hold the same bytes.
stall_array_end() {
    WORKLOAD=$1 workload_stop
    leg_checksums "$1"
}

# stall_ours STRATEGY ISOLATE_AFTER PULLS: that many pulls, each healed by the daemon and nobody else.
stall_ours() {
    local strategy=$1 after=$2 pulls=$3 array=ours number WORKLOAD=ours
    [[ $strategy == heald ]] || array=once WORKLOAD=once
    say "nvme-heald, isolate_after: $after"
    heald_isolates after="$after"
    stall_array "$array"
    heald_manages "$array"
    for ((number = 1; number <= pulls; number++)); do
        stall_pull "$strategy" "$number" "$array" 30
        stall_plug "$number" "$array"
    done
    workload_check
    isolation_figures "$strategy"
    journal_has --event act.begun --field VERB=re_add_leg || fail "nothing was re-added"
    journal_lacks --event act.begun --field VERB=fail_leg
    journal_lacks --event replacement.requested
    heald_stop
    stall_array_end "$array"
    claim "isolate_after $after: $pulls pulls, no error, each leg re-added, both hold the same bytes"
}

# isolation_figures STRATEGY: what of the stalls since the last call is the daemon's: each, median and
# worst.
ISOLATIONS_TOLD=0
isolation_figures() {
    local times number
    mapfile -t times < <(isolation_times | tail -n +$((ISOLATIONS_TOLD + 1)))
    ISOLATIONS_TOLD=$((ISOLATIONS_TOLD + ${#times[@]}))
    ((${#times[@]} > 0)) || fail "the daemon tells no time from the carrier event to the sockets' end"
    for number in "${!times[@]}"; do
        figure "isolated_$1_$((number + 1))" "${times[number]}" us
    done
    figure "isolated_$1_median" "$(median_of "${times[@]}")" us
    figure "isolated_$1_worst" "$(printf '%s\n' "${times[@]}" | sort -n | tail -n 1)" us
}

# array_watch NAME: in the background, notes every state of array and legs that nobody wants to see.
array_watch() {
    local md file state
    md=$(array_md "$1")
    : >"$LAB_STATE/seen-$1"
    while [[ -e $md/array_state ]]; do
        read -r state <"$md/array_state" && [[ $state == broken ]] && echo broken
        for file in "$md"/dev-*/state; do
            read -r state <"$file" && [[ $state == *faulty* ]] && echo "faulty ${file#"$md"/dev-}"
        done
        nap 0.1
    done >>"$LAB_STATE/seen-$1" 2>/dev/null &
}

# array_seen NAME WORD: how often was it seen?
array_seen() { grep -c "^$2" "$LAB_STATE/seen-$1" || true; }
