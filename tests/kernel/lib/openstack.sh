# OpenStack: the real os-brick attaches and detaches, and an emulated KumoScale provisioner makes real
# targets.
#
#   lab-nova.service      nova-compute's stand-in: os-brick, told by a fifo
#   lab-emulator.service  the provisioner; "add replica" enables a namespace behind a target of its own
#   nvme-heald.service    healing, beside os-brick's lock

NOVA=$LAB_STATE/nova
EMULATOR=$LAB_STATE/emulator

# openstack_ready ALIAS REPLICA REPLICA SPARE: targets, provisioner, daemon and stand-in; the volume is not
# attached yet.
openstack_ready() {
    local alias=$1 replica
    shift
    [[ -e /opt/os-brick ]] || tar -xf /lab/files/os-brick.tar -C / --keep-directory-symlink
    mkdir -p "$NOVA"
    for replica; do replica_create "$replica"; done
    replica_unmake "${!#}"
    emulator_start "$alias" "$@"
    heald_install
    heald_config <<RON
(
    mode: Heal,
    provisioner: KumoScale(
        addresses: ["127.0.0.1:8090"],
        access: (ca_file: "$EMULATOR/ca.pem"),
        host_id: "lab-host",
    ),
    provisioner_timeout: "5s",
    os_brick: (lock_paths: ["$NOVA"], put_away_after: "1s"),
    connect: (keep_alive: "3s"),
    timing: (
        gone_confirm: "300ms",
        return_hold_down: "4s",
        refresh_in_repair: "1s",
        refresh_when_whole: "2s",
        namespace_timeout: "8s",
        retry_min: "200ms",
        retry_max: "2s",
    ),
    safety_scan: Off,
)
RON
    heald_start
    nova_start
    os_brick_properties "$alias" "$1" "$2"
}

# replica_make REPLICA UUID: what "add replica" brings about: a namespace that was not there.
replica_make() {
    local namespace
    namespace=$NVMET/subsystems/$(replica_nqn "$1")/namespaces/1
    blkdiscard --zeroout "$(replica_get "$1" device)"
    mkdir "$namespace"
    replica_get "$1" device >"$namespace/device_path"
    echo "$2" >"$namespace/device_uuid"
    echo 1 >"$namespace/enable"
    replica_set "$1" uuid "$2"
}

replica_unmake() {
    local namespace
    namespace=$NVMET/subsystems/$(replica_nqn "$1")/namespaces/1
    echo 0 >"$namespace/enable"
    rmdir "$namespace"
}

# emulator_start ALIAS REPLICA REPLICA SPARE…
emulator_start() {
    local alias=$1 replica places=() uuids=()
    shift
    mkdir -p "$EMULATOR"
    for replica; do
        places+=("{\"id\":\"$replica\",\"nqn\":\"$(replica_nqn "$replica")\",\"address\":\"$(replica_address "$replica")\",\"port\":4420}")
    done
    for replica in "${@:1:2}"; do uuids+=("\"$(replica_uuid "$replica")\""); done
    cat >"$EMULATOR/scene.json" <<JSON
{"uuid": "$(cat /proc/sys/kernel/random/uuid)", "alias": "$alias", "down_time": 1, "host": "lab-host",
 "replicas": [$(IFS=,; echo "${uuids[*]}")], "backends": [$(IFS=,; echo "${places[*]}")]}
JSON
    cat >"$EMULATOR/replicas" <<'SH'
#!/bin/bash
. /lab/lib/lab.sh
case $1 in
    make) replica_make "$3" "$2" ;;
    delete) replica_unmake "$3" ;;
esac
SH
    chmod +x "$EMULATOR/replicas"
    systemd-run --quiet --unit=lab-emulator --property=StandardOutput="append:$EMULATOR/log" \
        "$XTASK" emulator --directory "$EMULATOR" --scene "$EMULATOR/scene.json" \
        --replicas-by "$EMULATOR/replicas" --target-per-backend
    wait_until 30 "[[ -e $EMULATOR/pin ]] && grep -q '^emulated' $EMULATOR/log"
}

# emulator_heard REGEX [AFTER_LINE]: the first request of that form, as it stands in the log.
emulator_heard() { tail -n "+$((${2:-0} + 1))" "$EMULATOR/log" | grep -m1 -E "$1"; }
emulator_lines() { wc -l <"$EMULATOR/log"; }

nova_start() {
    [[ -p $NOVA/commands ]] || mkfifo "$NOVA/commands"
    systemd-run --quiet --unit=lab-nova --setenv=PYTHONPATH=/opt/os-brick \
        --property=StandardOutput="append:$NOVA/log" --property=StandardError="append:$NOVA/log" \
        /usr/bin/python3.11 /lab/lib/openstack.py "$NOVA/commands"
    wait_until 240 "grep -q '^agent' $NOVA/log"
}

nova_kill() {
    systemctl kill --signal=KILL lab-nova.service
    wait_until 10 "! systemctl is-active --quiet lab-nova.service"
    systemctl reset-failed lab-nova.service 2>/dev/null || true
    rm -f "$NOVA/log"
}

# os_brick_properties ALIAS REPLICA REPLICA: as Cinder hands them out.
os_brick_properties() {
    local alias=$1 replica list=()
    shift
    for replica; do
        list+=("{\"vol_uuid\": \"$(replica_uuid "$replica")\", \"target_nqn\": \"$(replica_nqn "$replica")\",
            \"portals\": [[\"$(replica_address "$replica")\", \"4420\", \"tcp\"]]}")
    done
    cat >"$NOVA/$alias" <<JSON
{"vol_uuid": "$(cat /proc/sys/kernel/random/uuid)", "alias": "$alias", "writable": true,
 "replica_count": $#, "volume_replicas": [$(IFS=,; echo "${list[*]}")]}
JSON
}

# os_brick_tell VERB ALIAS, os_brick_wait ALIAS [SECONDS]: without waiting, and the waiting.
os_brick_tell() {
    rm -f "$NOVA/$2.answer"
    echo "$1 $NOVA/$2" >"$NOVA/commands"
}
os_brick_wait() {
    wait_until "${2:-90}" "[[ -e $NOVA/$1.answer ]]"
    jq -e 'has("failed") | not' "$NOVA/$1.answer" >/dev/null || {
        jq -r .failed "$NOVA/$1.answer"
        fail "os-brick failed"
    }
}

os_brick_attach() {
    os_brick_tell attach "$1"
    os_brick_wait "$1"
    array_remember "$1" "$(basename "$(realpath "/dev/md/$1")")"
}
os_brick_detach() {
    os_brick_tell detach "$1"
    os_brick_wait "$1"
}

# nothing_left: no array, and no controller of anybody.
nothing_left() {
    wait_until "${1:-20}" "[[ -z \$(ls -d /sys/block/md* 2>/dev/null) && -z \$(ls -d /sys/class/nvme/nvme* 2>/dev/null) ]]"
}
