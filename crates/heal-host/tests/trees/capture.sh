#!/bin/sh
# Writes what nvme-heald reads of this machine to standard output, in the form of captured/mod.rs.
# Opens no block device, and no controller's `address` unless the controller is live.
set -eu

file() {
    content=$(sed -e 's/\\/\\\\/g' -e 's/$/\\n/' "$1" 2>/dev/null | tr -d '\n') || return 0
    printf 'f %s %s\n' "${1#/}" "$content"
}

link() { printf 'l %s %s\n' "${1#/}" "$(readlink "$1")"; }

# One directory: its links, the attributes named, and itself if it is empty.
directory() {
    dir=$1
    shift
    [ -n "$(ls -A "$dir")" ] || printf 'd %s\n' "${dir#/}"
    for attribute in "$@"; do
        if [ -f "$dir/$attribute" ]; then file "$dir/$attribute"; fi
    done
}

links_in() {
    for entry in "$1"/*; do
        if [ -L "$entry" ]; then link "$entry"; fi
    done
}

controller() {
    attributes="transport subsysnqn state cntlid hostnqn hostid queue_count kato reconnect_delay"
    attributes="$attributes ctrl_loss_tmo fast_io_fail_tmo tls_key"
    if [ "$(cat "$1/state")" = live ]; then attributes="$attributes address"; fi
    # shellcheck disable=SC2086
    directory "$1" $attributes
    # The kernel shows the secret itself here.
    for secret in dhchap_secret dhchap_ctrl_secret; do
        [ -f "$1/$secret" ] || continue
        if [ "$(cat "$1/$secret")" = none ]; then file "$1/$secret"; else
            printf 'f %s secret\\n\n' "${1#/}/$secret"
        fi
    done
}

disk() {
    directory "$1" dev diskseq size ro hidden wwid uuid nguid eui nsid ana_state partition inflight
    if [ -d "$1/queue" ]; then directory "$1/queue" logical_block_size; fi
    for list in holders slaves; do
        if [ -d "$1/$list" ]; then directory "$1/$list"; links_in "$1/$list"; fi
    done
    if [ -d "$1/md" ]; then array "$1/md"; fi
}

array() {
    directory "$1" uuid array_state level layout raid_disks degraded sync_action sync_completed \
        reshape_position metadata_version component_size consistency_policy
    if [ -d "$1/bitmap" ]; then directory "$1/bitmap" location metadata; fi
    for member in "$1"/dev-*; do
        [ -d "$member" ] || continue
        directory "$member" state slot bad_blocks offset size errors
        links_in "$member"
    done
}

echo "# $(uname -srv)"
for class in nvme nvme-subsystem; do
    [ -d "/sys/class/$class" ] || continue
    links_in "/sys/class/$class"
done
for entry in /sys/class/nvme/*; do
    if [ -L "$entry" ]; then controller "$(readlink -f "$entry")"; fi
done
for entry in /sys/class/nvme-subsystem/*; do
    [ -L "$entry" ] || continue
    subsystem=$(readlink -f "$entry")
    directory "$subsystem" subsysnqn iopolicy
    for member in "$subsystem"/nvme*; do
        if [ -L "$member" ]; then link "$member"; fi
    done
done
for entry in /sys/block/*; do
    case ${entry##*/} in ram*) continue ;; esac
    link "$entry"
    device=$(readlink -f "$entry")
    disk "$device"
    for part in "$device/${device##*/}"*; do
        if [ -f "$part/partition" ]; then disk "$part"; fi
    done
done
for entry in /run/udev/data/b*; do
    if [ -f "$entry" ]; then file "$entry"; fi
done
for table in /proc/mdstat /proc/self/mountinfo /proc/swaps /proc/sys/kernel/random/boot_id; do
    if [ -f "$table" ]; then file "$table"; fi
done
