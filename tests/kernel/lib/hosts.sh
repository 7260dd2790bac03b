# Hosts: two of them in one kernel, each with a connection of its own to one disk, and who may be asked to
# take it from one of them.
#
#   host a ── hostnqn a ── nvmeX ─┐
#                                 ├─ port ── subsystem (allowed_hosts) ── disk ◄── nvmet-fenced ◄── ask
#   host b ── hostnqn b ── nvmeY ─┘                                       disk ◄── reservation ◄─── ask
#
# The scenario's header says `# needs: fence` to ask, and `# multipath: off`: with it, two connections to
# one subsystem would be two paths of one block device.

declare -A HOST=([a]=nqn.2025-01.io.nvme-heal.lab:host-a [b]=nqn.2025-01.io.nvme-heal.lab:host-b)
declare -A HOST_ID=([a]=11111111-1111-4111-8111-111111111111 [b]=22222222-2222-4222-8222-222222222222)
declare -A WRITER=([a]=1 [b]=2)

# disk_of_hosts NAME SIZE_MB [OPTION…]: a replica that everybody may use. The verbs below are about the
# last one.
disk_of_hosts() {
    replica_create "$@"
    disk=$1
    nqn=$(replica_nqn "$1")
    subsystem=$NVMET/subsystems/$nqn
}

# disk_of_one_host NAME SIZE_MB [OPTION…]: the same, and only host a may.
disk_of_one_host() {
    disk_of_hosts "$@"
    target_unlink "$1"
    echo 0 >"$subsystem/attr_allow_any_host"
    mkdir -p "$NVMET/hosts/${HOST[a]}" "$NVMET/hosts/${HOST[b]}"
    host_list a
    target_link "$1"
}

# host_list HOST and host_unlist HOST: who may connect. No connection ends by it.
host_list() { ln -s "$NVMET/hosts/${HOST[$1]}" "$subsystem/allowed_hosts/${HOST[$1]}"; }
host_unlist() { rm "$subsystem/allowed_hosts/${HOST[$1]}"; }

# host_connect HOST [PATH]: fails soon, so that an application learns of it; before it LOST_AFTER=SECONDS:
# how long it tries to come back, and KEEP_ALIVE=SECONDS: how long the target waits for a sign of life. The
# kernel is asked itself: nvme-cli takes another host's connection to the same address for its own.
host_connect() {
    local fabrics made
    exec {fabrics}<>/dev/nvme-fabrics
    printf %s "transport=tcp,traddr=$(replica_address "$disk" "${2:-1}"),trsvcid=4420,nqn=$nqn,\
hostnqn=${HOST[$1]},hostid=${HOST_ID[$1]},nr_io_queues=2,reconnect_delay=1,\
ctrl_loss_tmo=${LOST_AFTER:-20},keep_alive_tmo=${KEEP_ALIVE:-5}" >&"$fabrics"
    read -r made <&"$fabrics"
    exec {fabrics}>&-
    say "host $1 is connected: $made"
    wait_until 20 "host_dev $1 >/dev/null"
    echo 1 >"/sys/class/nvme/$(host_controller "$1")/fast_io_fail_tmo"
    udevadm settle --timeout=20
}

# host_connect_second HOST OTHER: a target begins to count its controllers anew, and one kernel takes no
# two of one number. With OTHER there for a moment, HOST gets the second, and the first is left for OTHER.
host_connect_second() {
    host_list "$2"
    host_connect "$2"
    host_connect "$1"
    nvme disconnect --device="$(host_controller "$2")"
    host_unlist "$2"
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

# host_live HOST: its connection works.
host_live() {
    local controller
    controller=$(host_controller "$1") || return 1
    [[ $(cat "/sys/class/nvme/$controller/state") == live ]]
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

# fence_ready: the target of that disk has a fence, and there is who may ask it.
fence_ready() {
    address=$(replica_address "$disk")
    certificates=$LAB_STATE/certificates
    mkdir -p "$certificates" "$LAB_STATE/fenced"
    /lab/files/ask_fence certificates "$certificates" "$address"
    cat >"$certificates/config.ron" <<CONFIG
(
    listen: "$address:4421",
    certificate: "$certificates/server.crt",
    key: "$certificates/server.key",
    clients: "$certificates/authority.crt",
    state: "$LAB_STATE/fenced",
)
CONFIG
    asked=("$certificates" "$address")
    fence_start
    ask health
}

# fence_start: a port listens in the network of the task that puts a subsystem on it.
fence_start() {
    systemd-run --quiet --unit=lab-fenced --property=Type=notify \
        nsenter --net="/run/netns/tgt-$disk" \
        /lab/files/nvmet-fenced --config "$certificates/config.ron"
}

# reservation_ready UNTIL_POWER_LOSS ADDRESS…: that disk as a FabricTarget says it, which is reached there
# and fenced by reservations. Its target knows them since Linux 6.13.
reservation_ready() {
    local portals
    portals=$(printf ',{"address":"%s","port":4420}' "${@:2}")
    asked=(target "$LAB_OUT/target-$disk.json")
    cat >"${asked[1]}" <<TARGET
{"cephCluster": {"name": "lab"}, "transport": "tcp", "portals": [${portals#,}],
 "devices": [{"subsystem": "$nqn", "namespace": "uuid.$(replica_uuid "$disk")"}],
 "nodes": [{"name": "a", "hostNqn": "${HOST[a]}", "hostId": "${HOST_ID[a]}"},
           {"name": "b", "hostNqn": "${HOST[b]}", "hostId": "${HOST_ID[b]}"}],
 "fence": {"reservation": {"hostNqn": "nqn.2025-01.io.nvme-heal.lab:recoverer",
           "hostId": "33333333-3333-4333-8333-333333333333", "untilPowerLoss": $1}}}
TARGET
}

# ask VERB…: of the fence that was made ready last, as the recoverer does.
ask() { /lab/files/ask_fence "${asked[@]}" "$@"; }
# ask_begin VERB…: in the background; ASKING is the process itself, which can be killed.
ask_begin() {
    /lab/files/ask_fence "${asked[@]}" "$@" &
    ASKING=$!
}

# turn_begin HOST: it writes to the disk block by block, and notices blocks that are not its own.
declare -A TURN
turn_begin() {
    rm -f "$(turn_result "$1")".*
    "$XTASK" guest turns write "$(host_dev "$1")" --writer "${WRITER[$1]}" \
        --result "$(turn_result "$1").json" --stop "$(turn_result "$1").stop" &
    TURN[$1]=$!
}
turn_end() {
    touch "$(turn_result "$1").stop"
    wait "${TURN[$1]}"
}
turn_result() { echo "$LAB_STATE/turn-$disk-$1"; }
# turn_get HOST FIELD
turn_get() { sed -E "s/.*\"$2\":([0-9]+).*/\1/" "$(turn_result "$1").json" 2>/dev/null || echo 0; }
# holds WHERE HOST: every block there is that host's last.
holds() { "$XTASK" guest turns check "$1" --writer "${WRITER[$2]}" --acked "$(turn_get "$2" acked)"; }

TRACING=/sys/kernel/tracing

# writes_watch: from here on the target notes every command that changes the disk, and whose it is.
writes_watch() {
    local event=$TRACING/events/nvmet/nvmet_req_init
    echo 16384 >"$TRACING/buffer_size_kb"
    echo 'qid > 0 && (opcode == 1 || opcode == 8 || opcode == 9)' >"$event/filter"
    echo >"$TRACING/trace"
    echo 1 >"$event/enable"
}

# writes_of HOST: how many of them came by that host's connection.
writes_of() {
    local number
    number=$(cat "/sys/class/nvme/$(host_controller "$1")/cntlid")
    grep -c "nvmet_req_init: nvmet$number: " "$TRACING/trace" || true
}

# writes_of_all: whoever sent them.
writes_of_all() { grep -c "nvmet_req_init: " "$TRACING/trace" || true; }

writes_end() { echo 0 >"$TRACING/events/nvmet/nvmet_req_init/enable"; }
