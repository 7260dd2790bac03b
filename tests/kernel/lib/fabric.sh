# Replicas: each an nvmet subsystem with one namespace, listening in a network namespace of its own.
#
#   host (init netns)              tgt-NAME
#   hv-NAME 10.77.N.1 ──── veth ── tv-NAME 10.77.N.2:4420 ── port N ── subsystem ── loop/null_blk
#
# What a replica is made of is remembered in /run/lab/replicas/NAME/.

NVMET=/sys/kernel/config/nvmet

replica_state() { echo "$LAB_STATE/replicas/$1"; }
replica_get() { cat "$LAB_STATE/replicas/$1/$2"; }
replica_nqn() { echo "nqn.2025-01.io.nvme-heal.lab:$1"; }
replica_uuid() { replica_get "$1" uuid; }
replica_address() { echo "10.77.$(replica_get "$1" index).2"; }

# replica_backing NAME: the file (loop) or device (null_blk) that holds its bytes.
replica_backing() { replica_get "$1" backing; }

# replica_sum NAME: checksum of all its bytes at the target: was anything written to it?
replica_sum() {
    local backing
    backing=$(replica_backing "$1")
    if [[ -b $backing ]]; then
        dd if="$backing" iflag=direct bs=1M status=none | sha256sum | cut -d' ' -f1
    else
        sha256sum <"$backing" | cut -d' ' -f1
    fi
}

# replica_written NAME: sectors written to it at the target since it was made.
replica_written() {
    local device
    device=$(replica_get "$1" device)
    awk '{ print $7 }' "/sys/block/${device#/dev/}/stat"
}

# replica_create NAME [SIZE_MB] [--uuid U] [--backing loop|null_blk]
replica_create() {
    local name=$1 size=64 uuid='' backing=loop index
    shift
    if [[ ${1:-} =~ ^[0-9]+$ ]]; then size=$1; shift; fi
    while (($#)); do
        case $1 in
            --uuid) uuid=$2 ;;
            --backing) backing=$2 ;;
            *) fail "replica_create: unknown option $1" ;;
        esac
        shift 2
    done
    ((${#name} <= 12)) || fail "replica_create: '$name' is too long for a network interface"
    uuid=${uuid:-$(cat /proc/sys/kernel/random/uuid)}
    index=$(($(cat "$LAB_STATE/replicas-made" 2>/dev/null || echo 0) + 1))
    echo "$index" >"$LAB_STATE/replicas-made"
    mkdir -p "$(replica_state "$name")"
    echo "$index" >"$(replica_state "$name")/index"
    echo "$uuid" >"$(replica_state "$name")/uuid"
    echo "$size" >"$(replica_state "$name")/size"

    local device
    backing_create "$name" "$size" "$backing"
    device=$(replica_get "$name" device)

    ip netns add "tgt-$name"
    ip link add "hv-$name" type veth peer name "tv-$name" netns "tgt-$name"
    ip address add "10.77.$index.1/24" dev "hv-$name"
    ip link set "hv-$name" up
    ip -n "tgt-$name" address add "10.77.$index.2/24" dev "tv-$name"
    ip -n "tgt-$name" link set lo up
    ip -n "tgt-$name" link set "tv-$name" up

    local subsystem port
    subsystem=$NVMET/subsystems/$(replica_nqn "$name")
    port=$NVMET/ports/$index
    mkdir "$subsystem" "$subsystem/namespaces/1" "$port"
    echo 1 >"$subsystem/attr_allow_any_host"
    echo "lab-$name" >"$subsystem/attr_serial"
    echo "$device" >"$subsystem/namespaces/1/device_path"
    echo "$uuid" >"$subsystem/namespaces/1/device_uuid"
    echo 1 >"$subsystem/namespaces/1/enable"
    echo tcp >"$port/addr_trtype"
    echo ipv4 >"$port/addr_adrfam"
    echo "10.77.$index.2" >"$port/addr_traddr"
    echo 4420 >"$port/addr_trsvcid"
    target_link "$name"
}

# Zeroes on a tmpfs behind a loop device, or the memory of a null_blk.
backing_create() {
    local name=$1 size=$2 kind=$3 file device
    case $kind in
        loop)
            file=$LAB_STATE/backing/$name.img
            mkdir -p "$LAB_STATE/backing"
            mountpoint -q "$LAB_STATE/backing" \
                || mount -t tmpfs -o size=75% lab-backing "$LAB_STATE/backing"
            truncate -s "${size}M" "$file"
            device=$(losetup --find --show "$file")
            ;;
        null_blk)
            [[ -d /sys/kernel/config/nullb ]] || modprobe null_blk nr_devices=0
            local made=/sys/kernel/config/nullb/$name
            mkdir "$made"
            echo "$size" >"$made/size"
            echo 4096 >"$made/blocksize"
            echo 1 >"$made/memory_backed"
            echo 1 >"$made/power"
            # Newer kernels name the device after the directory.
            device=/dev/$name
            [[ -b $device ]] || device=/dev/nullb$(cat "$made/index")
            file=$device
            ;;
        *) fail "no backing '$kind'" ;;
    esac
    echo "$file" >"$(replica_state "$name")/backing"
    echo "$device" >"$(replica_state "$name")/device"
}

# replica_connect NAME [--queues N] [--reconnect-delay S] [--ctrl-loss S] [--fast-io-fail S]
# nvme-cli 2.3 has no --fast_io_fail_tmo: it is written to sysfs afterwards.
replica_connect() {
    local name=$1 queues=2 delay=2 loss=600 fail_after=''
    shift
    while (($#)); do
        case $1 in
            --queues) queues=$2 ;;
            --reconnect-delay) delay=$2 ;;
            --ctrl-loss) loss=$2 ;;
            --fast-io-fail) fail_after=$2 ;;
            *) fail "replica_connect: unknown option $1" ;;
        esac
        shift 2
    done
    nvme connect --transport=tcp --traddr="$(replica_address "$name")" --trsvcid=4420 \
        --nqn="$(replica_nqn "$name")" --nr-io-queues="$queues" --reconnect-delay="$delay" \
        --ctrl-loss-tmo="$loss"
    wait_until 20 "replica_dev $name >/dev/null"
    if [[ $fail_after ]]; then
        echo "$fail_after" >"/sys/class/nvme/$(replica_controller "$name")/fast_io_fail_tmo"
    fi
    udevadm settle --timeout=20
}

replica_disconnect() { nvme disconnect --nqn="$(replica_nqn "$1")"; }

# replica_dev NAME: its block device now. Names change, so it is found by its id.
replica_dev() {
    local uuid block
    uuid=$(replica_uuid "$1")
    for block in /sys/block/nvme*n*; do
        [[ ${block##*/} != nvme*c*n* && -b /dev/${block##*/} ]] || continue
        if [[ $(cat "$block/uuid" 2>/dev/null) == "$uuid" ]]; then
            echo "/dev/${block##*/}"
            return 0
        fi
    done
    return 1
}

# replica_controller NAME: nvmeN.
replica_controller() {
    local nqn controller
    nqn=$(replica_nqn "$1")
    for controller in /sys/class/nvme/nvme*; do
        if [[ $(cat "$controller/subsysnqn" 2>/dev/null) == "$nqn" ]]; then
            echo "${controller##*/}"
            return 0
        fi
    done
    return 1
}

# replica_kill NAME: the namespace goes, as a lost replica does; the controller stays.
replica_kill() { echo 0 >"$NVMET/subsystems/$(replica_nqn "$1")/namespaces/1/enable"; }

# replica_revive NAME: it comes back with the bytes it had.
replica_revive() { echo 1 >"$NVMET/subsystems/$(replica_nqn "$1")/namespaces/1/enable"; }

# target_unlink NAME: the target stops to listen and drops its connections.
target_unlink() {
    rm "$NVMET/ports/$(replica_get "$1" index)/subsystems/$(replica_nqn "$1")"
}

# target_link NAME: it listens, in the network namespace of the task that makes the link.
target_link() {
    nsenter --net="/run/netns/tgt-$1" ln -s "$NVMET/subsystems/$(replica_nqn "$1")" \
        "$NVMET/ports/$(replica_get "$1" index)/subsystems/$(replica_nqn "$1")"
}

# cable_pull NAME: the host's end loses its carrier.
cable_pull() { ip -n "tgt-$1" link set "tv-$1" down; }
cable_plug() { ip -n "tgt-$1" link set "tv-$1" up; }

# network_black_hole NAME / network_clear NAME: packets vanish, the carrier stays.
network_black_hole() { tc -n "tgt-$1" qdisc add dev "tv-$1" root netem loss 100%; }
network_clear() { tc -n "tgt-$1" qdisc del dev "tv-$1" root; }
