# OpenStack: the real os-brick attaches and detaches, and an emulated KumoScale provisioner makes real
# targets.
#
#   lab-nova.service      nova-compute's stand-in: os-brick, told by a fifo
#   lab-emulator.service  the provisioner; "add replica" enables a namespace behind a target of its own
#   nvme-heald.service    healing, beside os-brick's lock

NOVA=$LAB_STATE/nova
EMULATOR=$LAB_STATE/emulator

# openstack_ready ALIAS REPLICA REPLICA SPARE: targets, provisioner, daemon and stand-in; the volume is not
# attached yet. KEEP_ALIVE=TIME and HOLD_DOWN=TIME before it: how long a lost leg stays out at the least;
# REFRESH=TIME: how often a whole volume is asked for.
openstack_ready() {
    local alias=$1 replica
    shift
    trap '(($? == 0)) || openstack_seen' EXIT
    if [[ ! -e /opt/os-brick ]]; then
        say "unpacking os-brick"
        tar -xf /lab/files/os-brick.tar -C / --keep-directory-symlink
    fi
    rm -rf "$NOVA" "$EMULATOR"
    mkdir -p "$NOVA"
    # As the guide says: a leg that comes back while os-brick detaches would be put together again by
    # udev's rules, and stay behind as half an array.
    echo 'AUTO -all' >>/etc/mdadm/mdadm.conf
    # It imports while everything else is made.
    nova_begin
    say "making $# targets and the provisioner"
    for replica; do replica_create "$replica"; done
    replica_unmake "${!#}"
    emulator_start "$alias" "$@"
    say "starting the daemon"
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
    connect: (keep_alive: "${KEEP_ALIVE:-3s}"),
    // Losses in a row are what is shown here, not a leg that flaps.
    flapping: (limit: 1000),
    timing: (
        gone_confirm: "300ms",
        return_hold_down: "${HOLD_DOWN:-4s}",
        refresh_in_repair: "1s",
        refresh_when_whole: "${REFRESH:-2s}",
        namespace_timeout: "8s",
        retry_min: "200ms",
        retry_max: "2s",
    ),
    safety_scan: Off,
)
RON
    heald_start
    nova_ready
    os_brick_properties "$alias" "$1" "$2"
}

# openstack_seen: for whoever reads why it did not hold.
openstack_seen() {
    local file
    trap - ERR
    set +e
    echo "== what was there"
    timeout 5 cat /proc/mdstat
    ls -l /dev/md
    for file in /sys/class/nvme/nvme*/{state,subsysnqn,address} /sys/block/nvme*/uuid; do
        echo "$file: $(timeout 5 cat "$file" 2>/dev/null)"
    done
    timeout 10 nvme-heal status
    for file in "$NOVA/log" "$EMULATOR/log" "$EMULATOR/polling"; do
        [[ -e $file ]] || continue
        echo "== the end of $file"
        tail -n 30 "$file" | cut -c 1-400
    done
    for file in "$NOVA"/*.answer; do echo "$file: $(cat "$file" 2>/dev/null)"; done
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
# What it says of a failure is part of the provisioner's answer.
exec >&2
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
    wait_until 60 "[[ -e $EMULATOR/pin ]] && grep -q '^emulated' $EMULATOR/log"
}

# emulator_heard REGEX [AFTER_LINE]: the first request of that form, as it stands in the log.
emulator_heard() {
    awk -v after="${2:-0}" -v wanted="$1" \
        'NR > after && $0 ~ wanted { print; found = 1; exit } END { exit !found }' "$EMULATOR/log"
}
emulator_lines() { wc -l <"$EMULATOR/log"; }

# emulator_wait SECONDS REGEX AFTER_LINE: until there is one; HEARD is it.
emulator_wait() {
    wait_until "$1" "emulator_heard '$2' $3 >/dev/null"
    HEARD=$(emulator_heard "$2" "$3")
}

# nova_begin, nova_ready: it starts, and it has imported everything.
nova_begin() {
    say "nova-compute's stand-in imports os-brick"
    [[ -p $NOVA/commands ]] || mkfifo "$NOVA/commands"
    systemd-run --quiet --unit=lab-nova --setenv=PYTHONPATH=/opt/os-brick \
        --property=StandardOutput="append:$NOVA/log" --property=StandardError="append:$NOVA/log" \
        /usr/bin/python3.11 -W ignore /lab/lib/openstack.py "$NOVA/commands"
}
nova_ready() {
    wait_until 240 "grep -q '^agent' $NOVA/log 2>/dev/null"
    say "$(grep '^agent' "$NOVA/log")"
}
nova_start() { nova_begin; nova_ready; }

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
    wait_until "${2:-120}" "[[ -e $NOVA/$1.answer ]]"
    OS_BRICK_MS=$(jq .ms "$NOVA/$1.answer")
    jq -e 'has("failed") | not' "$NOVA/$1.answer" >/dev/null || {
        jq -r .failed "$NOVA/$1.answer"
        fail "os-brick failed after $OS_BRICK_MS ms"
    }
}

# os_brick_attach ALIAS [SECONDS], os_brick_detach ALIAS: OS_BRICK_MS is how long it took.
os_brick_attach() {
    os_brick_tell attach "$1"
    os_brick_wait "$1" "${2:-120}"
    array_remember "$1" "$(basename "$(realpath "/dev/md/$1")")"
}
os_brick_detach() {
    os_brick_tell detach "$1"
    os_brick_wait "$1"
}

# polling_start: a model of the vendor's polling agent (polling.py), with this provisioner; the daemon has
# to be stopped. polling_passed [SECONDS]: it has ended one more pass.
polling_start() {
    systemd-run --quiet --unit=lab-polling --property=StandardOutput="append:$EMULATOR/polling" \
        --property=StandardError="append:$EMULATOR/polling" \
        /usr/bin/python3.11 /lab/lib/polling.py 127.0.0.1:8090 lab-host
    polling_passed
}
polling_passed() {
    local before
    before=$(polling_passes)
    wait_until "${1:-75}" "(( \$(polling_passes) > $before ))"
}
polling_passes() { grep -c ' ended ' "$EMULATOR/polling" 2>/dev/null || true; }
polling_stop() { systemctl stop lab-polling.service; }

# nothing_left [SECONDS]: no array, and no controller of anybody. A device in the state `clear` is no array:
# the kernel makes one for whoever opens the node of an array that has just been stopped, as mdadm's
# monitor does, and keeps it.
nothing_left() {
    local deadline=$((SECONDS + ${1:-20}))
    while [[ $(left_behind) ]]; do
        ((SECONDS < deadline)) || fail "left behind: $(left_behind)"
        sleep 0.2
    done
}
left_behind() {
    local path
    for path in /sys/block/md* /sys/class/nvme/nvme*; do
        [[ $(cat "$path/md/array_state" 2>/dev/null) != clear ]] || continue
        # shellcheck disable=SC2046 # its words on one line
        [[ ! -e $path ]] \
            || echo -n "${path##*/}" $(cat "$path"/{md/array_state,subsysnqn,state} 2>/dev/null || true) ''
    done
}
