# Two hosts and one device, in one kernel: booted without multipath, so that each connection has a block
# device of its own. Who wrote what is said by the blocks (`xtask guest turns`).

declare -A HOST=([a]=nqn.2025-01.io.nvme-heal.lab:host-a [b]=nqn.2025-01.io.nvme-heal.lab:host-b)
declare -A HOST_ID=([a]=11111111-1111-4111-8111-111111111111 [b]=22222222-2222-4222-8222-222222222222)
declare -A WRITER=([a]=1 [b]=2)

# hosts_of NAME: the replica that the hosts are about to use.
hosts_of() {
    disk=$1
    nqn=$(replica_nqn "$1")
    subsystem=$NVMET/subsystems/$nqn
}

# host_connect HOST [PATH]: gives up soon, so that an application learns of it. The kernel is asked itself:
# nvme-cli takes another host's connection to the same address for its own.
host_connect() {
    local fabrics made
    exec {fabrics}<>/dev/nvme-fabrics
    printf %s "transport=tcp,traddr=$(replica_address "$disk" "${2:-1}"),trsvcid=4420,nqn=$nqn,\
hostnqn=${HOST[$1]},hostid=${HOST_ID[$1]},nr_io_queues=2,reconnect_delay=1,\
ctrl_loss_tmo=20,keep_alive_tmo=5" >&"$fabrics"
    read -r made <&"$fabrics"
    exec {fabrics}>&-
    say "host $1 is connected: $made"
    wait_until 20 "host_dev $1 >/dev/null"
    echo 1 >"/sys/class/nvme/$(host_controller "$1")/fast_io_fail_tmo"
    udevadm settle --timeout=20
}

host_controller() {
    local controller
    for controller in /sys/class/nvme/nvme*; do
        [[ $(cat "$controller/hostnqn" 2>/dev/null) == "${HOST[$1]}" ]] || continue
        [[ $(cat "$controller/subsysnqn" 2>/dev/null) == "$nqn" ]] || continue
        echo "${controller##*/}"
        return 0
    done
    return 1
}

host_dev() {
    local controller block
    controller=$(host_controller "$1") || return 1
    for block in "/sys/class/nvme/$controller/nvme"*n*; do
        [[ -b /dev/${block##*/} ]] || continue
        echo "/dev/${block##*/}"
        return 0
    done
    return 1
}

result() { echo "$LAB_STATE/workload-$disk-$1"; }
declare -A TURN
turn_begin() {
    rm -f "$(result "$1")".*
    "$XTASK" guest turns write "$(host_dev "$1")" --writer "${WRITER[$1]}" \
        --result "$(result "$1").json" --stop "$(result "$1").stop" &
    TURN[$1]=$!
}
turn_end() {
    touch "$(result "$1").stop"
    wait "${TURN[$1]}"
}
# turn_get HOST FIELD
turn_get() { sed -E "s/.*\"$2\":([0-9]+).*/\1/" "$(result "$1").json" 2>/dev/null || echo 0; }
# holds WHERE HOST: every block there is that host's last.
holds() { "$XTASK" guest turns check "$1" --writer "${WRITER[$2]}" --acked "$(turn_get "$2" acked)"; }
