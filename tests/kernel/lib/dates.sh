# When the kernel did what: dated by itself, at the function that does it. Nobody polls for it, so nothing
# is taken from whoever is measured, and how soon a shell gets the processor is no part of a figure.

TRACING=/sys/kernel/tracing

# The moments of a leg, each at most once between two `dates_forget`:
#   lab_gone   the host lets go of the namespace
#   lab_lost   MD gives the leg up
#   lab_disk   the namespace's disk is there (with multipath twice: the path's, then the namespace's)
#   lab_slot   MD has given the leg its slot
DATES=(
    'p:lab_gone nvme_core:nvme_ns_remove'
    'p:lab_lost md_mod:md_error'
    'p:lab_disk device_add_disk'
    'r:lab_slot raid1:raid1_add_disk'
)

# dates_ready: from now on; dates_end: no more.
dates_ready() {
    local date
    mountpoint -q "$TRACING" || mount -t tracefs tracefs "$TRACING"
    echo nop >"$TRACING/current_tracer"
    echo mono >"$TRACING/trace_clock"
    dates_end
    for date in "${DATES[@]}"; do echo "$date" >>"$TRACING/kprobe_events"; done
    echo 1 >"$TRACING/events/kprobes/enable"
    echo 1 >"$TRACING/tracing_on"
}
dates_end() {
    [[ ! -e $TRACING/events/kprobes/enable ]] || echo 0 >"$TRACING/events/kprobes/enable"
    echo >"$TRACING/kprobe_events"
}

# dates_forget: what was is over. It also notes what the wall clock says now.
dates_forget() {
    echo >"$TRACING/trace"
    DATES_WALL=${EPOCHREALTIME/[.,]/}
    echo noted >"$TRACING/trace_marker"
}

# dates_of NAME: when, since then, in microseconds of the wall clock, one a line.
dates_of() {
    awk -v name="$1" -v wall="$DATES_WALL" '
        match($0, /[0-9]+\.[0-9]+: [a-z_]+:/) {
            split(substr($0, RSTART, RLENGTH), part, /[.: ]+/)
            at = part[1] * 1000000 + part[2]
            if (part[3] == "tracing_mark_write") noted = at
            if (part[3] == name) printf "%.0f\n", wall + at - noted
        }' "$TRACING/trace"
}
