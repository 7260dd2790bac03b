# what: how long a write waits after a cable pull: no agent, mdadm, a kernel knob, and nvme-heald
# timeout: 900
# timeout-full: 2400
# alone: measured
# needs: deb
. /lab/lib/lab.sh

# Every strategy gets the same array of two replicas and the same workload; its cables are pulled one
# after the other, leg by leg, and before each pull the array is whole. In the first two the
# application still hangs when it is cut off, so they hang at the same time, each on its own array.
STRATEGIES=${LAB_STRATEGIES:-none monitor fast_io_fail heald heald_at_once}
# Each pull of the first two takes more than a minute.
HANGS=${LAB_PULLS:-$(repeat 1 5)}
PULLS=${LAB_PULLS:-$(repeat 2 7)}

wanted() { [[ " $STRATEGIES " == *" $1 "* ]]; }

# pulls STRATEGY COUNT ARRAY: each mended by hand.
pulls() {
    local number WORKLOAD=$3
    for ((number = 1; number <= $2; number++)); do
        stall_pull "$1" "$number" "$3"
        stall_mend "$number" "$3"
    done
}

# What the manual page suggests to a person: a program that is told of what happens to the array.
monitor_start() {
    cat >"$LAB_STATE/kick" <<'PROGRAM'
#!/bin/bash
echo "$*" >>/run/lab/kick.events
case $1 in
    Fail | FailSpare | DegradedArray) ;;
    *) exit 0 ;;
esac
[[ -z ${3:-} ]] || mdadm --manage "$2" --fail "$3"
mdadm --manage "$2" --remove failed
PROGRAM
    chmod +x "$LAB_STATE/kick"
    : >/run/lab/kick.events
    # --test: it says TestMessage once, so that a silent monitor is known from one that does not work.
    mdadm --monitor --test --delay=1 --program="$LAB_STATE/kick" "$(array_dev "$1")" &
    MONITOR=$!
    wait_until 20 "grep TestMessage /run/lab/kick.events"
}

heald_absent
if wanted none || wanted monitor; then
    say "no agent, and mdadm --monitor with a program that fails and removes the leg"
    hanging=()
    # Made first: while one array hangs, mdadm makes no other (it reads /proc/mdstat, which hangs too).
    for strategy in none monitor; do
        if wanted "$strategy"; then stall_array "$strategy"; fi
    done
    if wanted monitor; then monitor_start monitor; fi
    for strategy in none monitor; do
        wanted "$strategy" || continue
        pulls "$strategy" "$HANGS" "$strategy" &
        hanging+=($!)
    done
    for pid in "${hanging[@]}"; do wait "$pid" || fail "a strategy without an agent did not end"; done
    if wanted monitor; then
        cat /run/lab/kick.events
        figure monitor_events "$(grep -vc TestMessage /run/lab/kick.events || true)"
        kill "$MONITOR"
    fi
    for strategy in none monitor; do
        if wanted "$strategy"; then stall_array_end "$strategy"; fi
    done
fi

if wanted fast_io_fail; then
    say "fast_io_fail_tmo=5 on both legs, and nobody to watch over it"
    stall_array knob
    for leg in knob1 knob2; do
        echo 5 >"/sys/class/nvme/$(replica_controller "$leg")/fast_io_fail_tmo"
    done
    pulls fast_io_fail "$PULLS" knob
    stall_array_end knob
fi

if wanted heald; then stall_ours heald '"250ms"' "$PULLS"; fi
if wanted heald_at_once; then stall_ours heald_at_once '"0s"' "$PULLS"; fi
claim "side by side: $STRATEGIES"
