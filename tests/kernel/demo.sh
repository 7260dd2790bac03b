# what: a mirror over NVMe/TCP loses a replica while an application writes to it
# timeout: 240
# needs: deb
. /lab/lib/lab.sh

# The daemon's audit trail, as it is written.
follow_trail() {
    journalctl --quiet --follow --no-tail --after-cursor "$LAB_CURSOR" --unit "$HEALD_UNIT" \
        --output=json \
        | jq --unbuffered -r 'select(.NVME_HEAL_EVENT) | "AUDIT \(.MESSAGE)"'
}

# The array and the application, whenever there is news: at most twice a second.
follow_array() {
    local before='' now
    while sleep 0.5; do
        now=$(awk -v md="$1" '$1 == md { found = 1 } /^$/ { found = 0 }
            found && match($0, /\[[U_]+\]/) { state = substr($0, RSTART, RLENGTH) }
            found && match($0, /recovery = *[0-9.]+%/) { progress = " " substr($0, RSTART, RLENGTH) }
            END { print state progress }' /proc/mdstat)
        [[ $now != "$before" ]] || continue
        before=$now
        echo "ARRAY $1 $now   application: $(workload_get writes) writes, $(workload_get errors) errors"
    done
}

# The exit code of status and explain speaks of the arrays.
show() { { "$@" || true; } | sed 's/^/SHOW /'; }

say "three storage targets, each in a network namespace of its own: two replicas and a spare"
heald_heals
volume_create vol one two
replica_create spare
inventory_spare spare
# Slow enough to watch.
echo 8000 >/proc/sys/dev/raid/speed_limit_max

say "nvme-heald, installed from its package, in mode Heal; the inventory lists volume and spare"
heald_manages vol
show nvme-heal status
say "an application writes to /dev/md/vol and checks every block it reads back"
workload_start "$(array_dev vol)"
follow_trail &
follow_array "$(array_kernel_name vol)" &
sleep 3

say "replica two is taken away; nobody but nvme-heald will do anything about it"
began=$(now_ms)
replica_kill two
journal_wait 30 --event grace.began
show nvme-heal explain "$(array_dev vol)"
array_healed vol 150
figure whole_after $(($(now_ms) - began)) ms
sleep 1

say "the application reads back everything it wrote, then each leg is read on its own"
workload_stop
show leg_checksums vol
show nvme-heal status
