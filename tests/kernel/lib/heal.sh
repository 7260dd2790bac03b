# The daemon healing with the `fixed` provisioner: its configuration, its inventory, and what its
# journal, its status and the provisioner's notes must show.

HEALD_INVENTORY=/etc/nvme-heal/volumes.ron
HEALD_NOTES=/var/lib/nvme-heal/fixed-state.ron

# heald_heals [NAME=VALUE…]: installed, stopped, and configured to heal with short clocks. No safety
# scan: events must suffice.
heald_heals() {
    local grace=6s keep_alive=3s hold_down=4s namespace_timeout=8s storm_arrays=100
    local isolation='' flapping=''
    (($# == 0)) || local "$@"
    heald_install
    heald_config <<RON
(
    mode: Heal,
    provisioner: Fixed(inventory: "$HEALD_INVENTORY", state: "$HEALD_NOTES"),
    provisioner_timeout: "5s",
    grace: "$grace",
    limits: (storm_arrays: $storm_arrays),
    ${isolation:+isolation: ($isolation),}
    ${flapping:+flapping: ($flapping),}
    connect: (keep_alive: "$keep_alive"),
    timing: (
        gone_confirm: "300ms",
        return_hold_down: "$hold_down",
        refresh_in_repair: "1s",
        refresh_when_whole: "2s",
        namespace_timeout: "$namespace_timeout",
        retry_min: "200ms",
        retry_max: "2s",
    ),
    safety_scan: Off,
)
RON
    inventory_write
}

# volume_create NAME REPLICA REPLICA: replicas, connected and mirrored, and the volume in the
# inventory. The bitmap is fine enough for a small device to be recovered in part.
volume_create() {
    local name=$1 replica
    shift
    for replica; do
        replica_create "$replica"
        replica_connect "$replica"
    done
    array_create "$name" --assume-clean --bitmap-chunk=64K "$@"
    inventory_volume "$name" "$@"
}

# inventory_volume ARRAY REPLICA…: the volume of that name is that array.
inventory_volume() {
    local name=$1 replica
    shift
    mkdir -p "$LAB_STATE/inventory"
    {
        echo "(id: \"$name\", array: \"$(array_uuid "$name")\", copies: $#, replicas: ["
        for replica; do inventory_entry "$replica"; done
        echo "]),"
    } >>"$LAB_STATE/inventory/volumes"
    inventory_write
}

# inventory_spare REPLICA [UUID] [SIZE_MB]: what is promised may differ from what is there.
inventory_spare() {
    mkdir -p "$LAB_STATE/inventory"
    inventory_entry "$@" >>"$LAB_STATE/inventory/spares"
    inventory_write
}

inventory_entry() {
    echo "(id: \"$1\", namespace: \"uuid.${2:-$(replica_uuid "$1")}\", nqn: \"$(replica_nqn "$1")\","
    echo " portals: [\"tcp://$(replica_address "$1"):4420\"], size: \"${3:-$(replica_get "$1" size)}MiB\"),"
}

# In one step, as an editor does: the daemon never sees half a file.
inventory_write() {
    mkdir -p "${HEALD_INVENTORY%/*}"
    {
        echo "(volumes: ["
        cat "$LAB_STATE/inventory/volumes" 2>/dev/null || true
        echo "], spares: ["
        cat "$LAB_STATE/inventory/spares" 2>/dev/null || true
        echo "])"
    } >"$HEALD_INVENTORY.new"
    mv "$HEALD_INVENTORY.new" "$HEALD_INVENTORY"
}

# notes_have TEXT: the provisioner's own notes, without their layout, hold it.
notes_have() { tr -d ' \n' <"$HEALD_NOTES" | grep -F -- "$1" >/dev/null; }

# notes_said REPLICA WORD: the provisioner was told that of the replica.
notes_said() { notes_have "replica:\"$1\",said:$2"; }

# grants_given: how many replicas were granted; requests_answered: under how many keys.
grants_given() { notes_part | grep -o 'stage:' | wc -l; }
requests_answered() { notes_part | grep -oE 'keys:\[[^]]*\]' | grep -oE '"[^"]+"' | wc -l; }
notes_part() {
    [[ -e $HEALD_NOTES ]] || return 0
    tr -d ' \n' <"$HEALD_NOTES" | sed 's/.*grants:\[//; s/answered:\[.*//'
}

# one_grant: exactly one request was answered, with one replica.
one_grant() {
    [[ $(grants_given) == 1 && $(requests_answered) == 1 ]] && return
    cat "$HEALD_NOTES"
    fail "not one request and one grant: $(requests_answered) and $(grants_given)"
}

# array_status ARRAY [JQ-FILTER]: what `nvme-heal status` shows of one array.
array_status() {
    status_json ".arrays[] | select(.device == \"$(array_kernel_name "$1")\") | ${2:-.}"
}

# heald_manages ARRAY…: started, and it knows these arrays as whole volumes.
heald_manages() {
    local name
    heald_start
    for name; do
        wait_until 30 "[[ \$(array_status $name .health) == optimal ]]"
    done
}

# array_healed ARRAY [SECONDS]: whole, and nothing is left to do or to say.
array_healed() {
    local seconds=${2:-90}
    wait_until "$seconds" "[[ \$(array_state $1) == '[UU]' ]]"
    wait_until "$seconds" "[[ \$(array_status $1 .health) == optimal ]]"
    array_wait_state "$1" '[UU]' 10
}

# no_safety_scan: what was seen was seen by events.
no_safety_scan() {
    [[ $(status_json .counters.safety_scans) == 0 ]] || fail "a safety scan was made"
}

# replacement_refused ARRAY SPARE SUM TEXT: the reason stands in the journal, in status and in
# explain, and the spare's bytes are what they were.
replacement_refused() {
    local name=$1 spare=$2 before=$3 text=$4 shown
    journal_wait 60 --event replica.rejected --text "$text"
    shown=$(array_status "$name" '.repairs[].rule')
    [[ $shown == *"$text"* ]] || fail "status --json does not say why: $shown"
    shown=$(nvme-heal status || true)
    [[ $shown == *"$text"* ]] || fail "status does not say why: $shown"
    shown=$(nvme-heal explain "$(array_dev "$name")" || true)
    [[ $shown == *"$text"* ]] || fail "explain does not say why: $shown"
    [[ $(replica_sum "$spare") == "$before" ]] || fail "the refused spare was written to"
    ! array_has_leg "$name" "$spare" || fail "the refused spare is a leg"
    [[ $(array_state "$name") == '[U_]' ]] || fail "the array is $(array_state "$name")"
}

# heald_kill_in PHASE…: in the background, SIGKILL at the entry that enters each phase, in this
# order. A phase entered in the same breath as the one before is resumed by the next life: that one
# is killed as soon as it is up. $LAB_STATE/killed-in holds the phases done.
heald_kill_in() {
    : >"$LAB_STATE/killed-in"
    journalctl --follow --no-tail --after-cursor "$LAB_CURSOR" --unit "$HEALD_UNIT" \
        --output=json --output-fields=NVME_HEAL_STATE_AFTER,_PID | kill_in_turn "$@" &
}

kill_in_turn() {
    local line pid phase
    for phase; do
        while IFS= read -r line; do
            [[ $line == *"\"NVME_HEAL_STATE_AFTER\":\"$phase\""* ]] && break
        done
        pid=${line##*'"_PID":"'}
        pid=${pid%%'"'*}
        if [[ ! -d /proc/$pid ]]; then
            wait_until 30 "systemctl is-active --quiet $HEALD_UNIT"
            pid=$(heald_pid)
        fi
        echo "$pid" >>"$LAB_STATE/kills"
        kill -KILL "$pid"
        say "killed in $phase"
        while [[ -d /proc/$pid ]]; do sleep 0.05; done
        echo "$phase" >>"$LAB_STATE/killed-in"
    done
}
