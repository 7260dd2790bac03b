# Replicas: each an nvmet subsystem with one namespace, behind a link into a network namespace.
#
#   host (init netns)              tgt-LINK
#   hv-LINK 10.77.N.1 ──── veth ── tv-LINK 10.77.N.2:4420 ── port N ── subsystem ── loop/null_blk
#   hw-LINK 10.78.N.1 ──── veth ── tw-LINK 10.78.N.2:4420 ── port 500+N ┘            (second path)
#
# A link bears the name of the replica it was made for; others may come in by it (--via). The cable is
# the veth pair; on top of it there may be a VLAN (vl-LINK), or a bond of both pairs (bo-LINK).
# What a replica is made of is remembered in /run/lab/replicas/NAME/.

NVMET=/sys/kernel/config/nvmet

replica_state() { echo "$LAB_STATE/replicas/$1"; }
replica_get() { cat "$LAB_STATE/replicas/$1/$2"; }
replica_nqn() { echo "nqn.2025-01.io.nvme-heal.lab:$1"; }
replica_uuid() { replica_get "$1" uuid; }
replica_link() { replica_get "$1" link; }

# replica_address NAME [PATH]
replica_address() { echo "10.$((76 + ${2:-1})).$(replica_get "$1" index).2"; }

# replica_port NAME [PATH]: the directory of its nvmet port.
replica_port() { echo "$NVMET/ports/$(($(replica_get "$1" index) + 500 * (${2:-1} - 1)))"; }

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
    device=$(realpath "$(replica_get "$1" device)")
    awk '{ print $7 }' "/sys/block/${device#/dev/}/stat"
}

# replica_create NAME [SIZE_MB] [--uuid U] [--backing loop|null_blk|freezable] [--via REPLICA]
#     [--link plain|vlan|bond]
replica_create() {
    local name=$1 size=64 uuid='' backing=loop via='' kind=plain index
    shift
    if [[ ${1:-} =~ ^[0-9]+$ ]]; then size=$1; shift; fi
    while (($#)); do
        case $1 in
            --uuid) uuid=$2 ;;
            --backing) backing=$2 ;;
            --via) via=$2 ;;
            --link) kind=$2 ;;
            *) fail "replica_create: unknown option $1" ;;
        esac
        shift 2
    done
    ((${#name} <= 12)) || fail "replica_create: '$name' is too long for a network interface"
    index=$(($(cat "$LAB_STATE/replicas-made" 2>/dev/null || echo 0) + 1))
    echo "$index" >"$LAB_STATE/replicas-made"
    mkdir -p "$(replica_state "$name")"
    replica_set "$name" index "$index"
    replica_set "$name" uuid "${uuid:-$(cat /proc/sys/kernel/random/uuid)}"
    replica_set "$name" size "$size"
    replica_set "$name" link "${via:+$(replica_link "$via")}"
    if [[ -z $via ]]; then
        replica_set "$name" link "$name"
        link_create "$name" "$kind"
    fi
    backing_create "$name" "$size" "$backing"
    subsystem_create "$name"
    path_create "$name" 1
}

replica_set() { echo "$3" >"$LAB_STATE/replicas/$1/$2"; }

# replica_second_path NAME: another cable to the same target, for a second controller.
replica_second_path() {
    cable_create "$(replica_link "$1")" w
    path_create "$1" 2
}

# link_create LINK plain|vlan|bond: the target's network namespace, and what leads into it.
link_create() {
    local link=$1 ns=tgt-$1
    ip netns add "$ns"
    ip -n "$ns" link set lo up
    cable_create "$link" v
    case $2 in
        plain) ;;
        vlan)
            ip link add link "hv-$link" name "vl-$link" type vlan id 5
            ip -n "$ns" link add link "tv-$link" name "vl-$link" type vlan id 5
            ;;
        bond)
            modprobe bonding max_bonds=0
            cable_create "$link" w
            ip link add "bo-$link" type bond mode active-backup miimon 100
            ip -n "$ns" link add "bo-$link" type bridge
            local end
            for end in v w; do
                ip link set "h$end-$link" down
                ip link set "h$end-$link" master "bo-$link"
                ip link set "h$end-$link" up
                ip -n "$ns" link set "t$end-$link" master "bo-$link"
            done
            ;;
        *) fail "no link '$2'" ;;
    esac
}

# cable_create LINK v|w
cable_create() {
    ip link add "h$2-$1" type veth peer name "t$2-$1" netns "tgt-$1"
    ip link set "h$2-$1" up
    ip -n "tgt-$1" link set "t$2-$1" up
}

# link_ends LINK PATH: the interfaces, here and there, that bear the addresses of that path.
link_ends() {
    local kind
    for kind in vl bo; do
        [[ -e /sys/class/net/$kind-$1 ]] && { echo "$kind-$1 $kind-$1"; return; }
    done
    if (($2 == 1)); then echo "hv-$1 tv-$1"; else echo "hw-$1 tw-$1"; fi
}

subsystem_create() {
    local subsystem
    subsystem=$NVMET/subsystems/$(replica_nqn "$1")
    mkdir "$subsystem" "$subsystem/namespaces/1"
    echo 1 >"$subsystem/attr_allow_any_host"
    echo "lab-$1" >"$subsystem/attr_serial"
    replica_get "$1" device >"$subsystem/namespaces/1/device_path"
    replica_uuid "$1" >"$subsystem/namespaces/1/device_uuid"
    echo 1 >"$subsystem/namespaces/1/enable"
}

# path_create NAME PATH: addresses on its link, and a port that listens there.
path_create() {
    local name=$1 path=$2 link here there address port
    link=$(replica_link "$name")
    read -r here there <<<"$(link_ends "$link" "$path")"
    address=$(replica_address "$name" "$path")
    ip address add "${address%.2}.1/24" dev "$here"
    ip link set "$here" up
    ip -n "tgt-$link" address add "$address/24" dev "$there"
    ip -n "tgt-$link" link set "$there" up
    port=$(replica_port "$name" "$path")
    mkdir "$port"
    echo tcp >"$port/addr_trtype"
    echo ipv4 >"$port/addr_adrfam"
    echo "$address" >"$port/addr_traddr"
    echo 4420 >"$port/addr_trsvcid"
    target_link "$name" "$path"
}

# Zeroes on a tmpfs behind a loop device, the memory of a null_blk, or a device that can be frozen.
backing_create() {
    local name=$1 size=$2 kind=$3 file device
    case $kind in
        loop | freezable)
            file=$LAB_STATE/backing/$name.img
            mkdir -p "$LAB_STATE/backing"
            mountpoint -q "$LAB_STATE/backing" \
                || mount -t tmpfs -o size=75% lab-backing "$LAB_STATE/backing"
            truncate -s "${size}M" "$file"
            device=$(losetup --find --show "$file")
            if [[ $kind == freezable ]]; then
                dmsetup create "lab-$name" --table "0 $((size * 2048)) linear $device 0"
                device=/dev/mapper/lab-$name
            fi
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
    replica_set "$name" backing "$file"
    replica_set "$name" device "$device"
}

# replica_connect NAME [--path N] [--queues N] [--reconnect-delay S] [--ctrl-loss S]
#     [--fast-io-fail S] [--keep-alive S]
# nvme-cli 2.3 has no --fast_io_fail_tmo: it is written to sysfs afterwards.
replica_connect() {
    local name=$1 path=1 queues=2 delay=2 loss=600 fail_after='' keep_alive=5
    shift
    while (($#)); do
        case $1 in
            --path) path=$2 ;;
            --queues) queues=$2 ;;
            --reconnect-delay) delay=$2 ;;
            --ctrl-loss) loss=$2 ;;
            --fast-io-fail) fail_after=$2 ;;
            --keep-alive) keep_alive=$2 ;;
            *) fail "replica_connect: unknown option $1" ;;
        esac
        shift 2
    done
    nvme connect --transport=tcp --traddr="$(replica_address "$name" "$path")" --trsvcid=4420 \
        --nqn="$(replica_nqn "$name")" --nr-io-queues="$queues" --reconnect-delay="$delay" \
        --ctrl-loss-tmo="$loss" --keep-alive-tmo="$keep_alive"
    wait_until 20 "replica_live $name $path && replica_dev $name >/dev/null"
    if [[ $fail_after ]]; then
        echo "$fail_after" >"/sys/class/nvme/$(replica_controller "$name" "$path")/fast_io_fail_tmo"
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

# replica_controller NAME [PATH]: nvmeN; the first there is, unless a path is named.
replica_controller() {
    local nqn controller
    nqn=$(replica_nqn "$1")
    for controller in /sys/class/nvme/nvme*; do
        [[ $(cat "$controller/subsysnqn" 2>/dev/null) == "$nqn" ]] || continue
        if [[ -z ${2:-} || $(cat "$controller/address")/ == *"=$(replica_address "$1" "$2")"[,/]* ]]; then
            echo "${controller##*/}"
            return 0
        fi
    done
    return 1
}

# replica_live NAME [PATH]: its controller is connected.
replica_live() {
    local controller
    controller=$(replica_controller "$@") || return 1
    [[ $(cat "/sys/class/nvme/$controller/state" 2>/dev/null) == live ]]
}
