# What can go wrong with a replica, and its end. A fault of the network takes the cable it is about:
# 1, or 2 for the second path or the second port of a bond.

# replica_kill NAME: the namespace goes, as a lost replica does; the controller stays.
replica_kill() { echo 0 >"$NVMET/subsystems/$(replica_nqn "$1")/namespaces/1/enable"; }

# replica_revive NAME: it comes back with the bytes it had.
replica_revive() { echo 1 >"$NVMET/subsystems/$(replica_nqn "$1")/namespaces/1/enable"; }

# replica_freeze NAME / replica_thaw NAME: its disk (--backing freezable) answers nothing; its target
# does.
replica_freeze() { dmsetup suspend --noflush --nolockfs "lab-$1"; }
replica_thaw() { dmsetup resume "lab-$1"; }

# replica_break NAME FROM COUNT / replica_mend NAME: these sectors of its disk (--backing freezable) take
# no read and no write; the rest does.
replica_break() {
    local size below=$2 above=$(($2 + $3)) device
    device=$(dmsetup table "lab-$1" | awk '{ print $4 }')
    size=$(($(replica_get "$1" size) * 2048))
    replica_table "$1" <<TABLE
0 $below linear $device 0
$below $3 error
$above $((size - above)) linear $device $above
TABLE
}
replica_mend() {
    local device
    device=$(dmsetup table "lab-$1" | awk 'NR == 1 { print $4 }')
    replica_table "$1" <<<"0 $(($(replica_get "$1" size) * 2048)) linear $device 0"
}
replica_table() {
    dmsetup load "lab-$1"
    dmsetup suspend --nolockfs "lab-$1"
    dmsetup resume "lab-$1"
}

# replica_copy FROM TO: what stands on one of them now is on the other, byte by byte.
replica_copy() {
    dd if="$(replica_get "$1" device)" of="$(replica_get "$2" device)" bs=1M iflag=direct oflag=direct \
        status=none
}

# replica_ana NAME optimized|non-optimized|inaccessible|persistent-loss [PATH]: what the target says.
replica_ana() { echo "$2" >"$(replica_port "$1" "${3:-1}")/ana_groups/1/ana_state"; }

# target_unlink NAME [PATH]: the target stops to listen and drops its connections.
target_unlink() { rm "$(replica_port "$@")/subsystems/$(replica_nqn "$1")"; }

# target_link NAME [PATH]: it listens, in the network namespace of the task that makes the link.
target_link() {
    nsenter --net="/run/netns/tgt-$(replica_link "$1")" \
        ln -s "$NVMET/subsystems/$(replica_nqn "$1")" \
        "$(replica_port "$@")/subsystems/$(replica_nqn "$1")"
}

# cable_end LINK [CABLE]: its end at the target.
cable_end() { if ((${2:-1} == 1)); then echo "tv-$1"; else echo "tw-$1"; fi; }

# cable_pull NAME [CABLE]: the host's end loses its carrier.
cable_pull() { cable_set "$1" "${2:-1}" down; }
cable_plug() { cable_set "$1" "${2:-1}" up; }
cable_set() {
    local link
    link=$(replica_link "$1")
    ip -n "tgt-$link" link set "$(cable_end "$link" "$2")" "$3"
}

# network_black_hole NAME [CABLE] / network_clear: packets vanish, the carrier stays.
network_black_hole() {
    local link
    link=$(replica_link "$1")
    tc -n "tgt-$link" qdisc add dev "$(cable_end "$link" "${2:-1}")" root netem loss 100%
}
network_clear() {
    local link
    link=$(replica_link "$1")
    tc -n "tgt-$link" qdisc del dev "$(cable_end "$link" "${2:-1}")" root
}
