# An application on the array which checks what it reads; see `xtask guest workload`.

WORKLOAD_STOP=$LAB_STATE/workload.stop
WORKLOAD_RESULT=$LAB_OUT/workload.json

# workload_start DEV [OPTION…]: all that is on the device is lost.
workload_start() {
    local device=$1
    shift
    rm -f "$WORKLOAD_STOP" "$WORKLOAD_RESULT"
    "$XTASK" guest workload "$device" --result "$WORKLOAD_RESULT" --stop "$WORKLOAD_STOP" "$@" &
    WORKLOAD_PID=$!
    wait_until 20 "(( \$(workload_get writes) > 0 ))"
}

# workload_get FIELD: writes, reads, errors, mismatches, longest_write_ms, in_flight_ms; 0 if none yet.
workload_get() { jq -r ".$1 // 0" "$WORKLOAD_RESULT" 2>/dev/null || echo 0; }

# workload_check: no error until now.
workload_check() {
    kill -0 "$WORKLOAD_PID" 2>/dev/null || fail "the workload ended early: $(cat "$WORKLOAD_RESULT")"
    (($(workload_get errors) + $(workload_get mismatches) == 0)) \
        || fail "the workload is not clean: $(cat "$WORKLOAD_RESULT")"
}

# workload_progress [WRITES]: it is not only alive, it moves.
workload_progress() {
    local before
    before=$(workload_get writes)
    wait_until 30 "(( \$(workload_get writes) >= $before + ${1:-20} ))"
}

# workload_stop: reads everything once more; fails the scenario when anything was wrong.
workload_stop() {
    touch "$WORKLOAD_STOP"
    wait "$WORKLOAD_PID" || fail "the workload was not clean: $(cat "$WORKLOAD_RESULT")"
    figure workload_writes "$(workload_get writes)"
    figure workload_errors "$(workload_get errors)"
    figure longest_write "$(workload_get longest_write_ms)" ms
}
