# An application on an array which checks what it reads; see `xtask guest workload`. With several of
# them, WORKLOAD says which is meant: `WORKLOAD=other workload_get writes`.

WORKLOAD=main
declare -A WORKLOAD_PIDS=()

workload_result() { echo "$LAB_OUT/workload-$WORKLOAD.json"; }
workload_stop_file() { echo "$LAB_STATE/workload-$WORKLOAD.stop"; }
workload_marks() { echo "$LAB_STATE/workload-$WORKLOAD.marks"; }

# workload_start DEV [OPTION…]: all that is on the device is lost.
workload_start() {
    local device=$1
    shift
    rm -f "$(workload_stop_file)" "$(workload_result)" "$(workload_marks)"
    mkfifo "$(workload_marks)"
    "$XTASK" guest workload "$device" --result "$(workload_result)" --stop "$(workload_stop_file)" \
        --marks "$(workload_marks)" "$@" &
    WORKLOAD_PIDS[$WORKLOAD]=$!
    wait_until 20 "(( \$(workload_get writes) > 0 ))"
}

# workload_get FIELD: writes, reads, errors, mismatches, longest_write_ms, in_flight_ms; 0 if none yet.
workload_get() { jq -r ".$1 // 0" "$(workload_result)" 2>/dev/null || echo 0; }

# workload_mark NAME: what workload_since counts begins here.
workload_mark() {
    WORKLOAD_MARK=$1
    timeout 10 bash -c 'echo "$1" >"$2"' - "$1" "$(workload_marks)"
}

# workload_since FIELD: since the mark: writes, errors, longest_write_ms, in_flight_ms.
workload_since() {
    jq -r --arg mark "$WORKLOAD_MARK" ".window | select(.name == \$mark) | .$1" "$(workload_result)"
}

# workload_check: no error until now.
workload_check() {
    kill -0 "${WORKLOAD_PIDS[$WORKLOAD]}" 2>/dev/null \
        || fail "the workload ended early: $(cat "$(workload_result)")"
    (($(workload_get errors) + $(workload_get mismatches) == 0)) \
        || fail "the workload is not clean: $(cat "$(workload_result)")"
}

# workload_moves [WRITES] [SECONDS]: does it, in that time?
workload_moves() {
    local before deadline=$((SECONDS + ${2:-5}))
    before=$(workload_get writes)
    until (($(workload_get writes) >= before + ${1:-20})); do
        ((SECONDS < deadline)) || return 1
        nap 0.3
    done
}

# workload_progress [WRITES]: it is not only alive, it moves.
workload_progress() { workload_moves "${1:-20}" 30 || fail "the workload does not move"; }

# workload_stop: reads everything once more; fails the scenario when anything was wrong.
workload_stop() {
    touch "$(workload_stop_file)"
    wait "${WORKLOAD_PIDS[$WORKLOAD]}" \
        || fail "the workload was not clean: $(cat "$(workload_result)")"
    figure workload_writes "$(workload_get writes)"
    figure workload_errors "$(workload_get errors)"
    figure longest_write "$(workload_get longest_write_ms)" ms
}
