# A Ceph of one mon and one OSD, which may be started on either host; the header says `# needs: ceph`.
#
#   lab-mon.service      the mon, on the loopback
#   lab-osd-a.service    OSD 0 as host a runs it: a folder, a hostname and a device of its own
#   lab-osd-b.service    the same OSD as host b runs it
#   objects.py           an application: writes objects, and remembers what was acknowledged
#
# Ceph comes as a whole tree on a disk of its own (xtask's lab/ceph.rs) and is entered by chroot. It sees
# the guest's /run, so that paths mean the same on both sides.

CEPH=$LAB_STATE/ceph
CEPH_TREE=$LAB_STATE/ceph-tree
CEPH_FSID=c1b2c3d4-0000-4000-8000-00000000c001
CEPH_OSD=c1b2c3d4-0000-4000-8000-00000000d001
CEPH_MON='[v2:127.0.0.1:40100/0]'

in_ceph() { chroot "$CEPH_TREE" "$@"; }
ceph_ask() { in_ceph ceph --conf "$CEPH/conf" "$@"; }

ceph_mount() {
    local part
    mkdir -p "$CEPH_TREE"
    mountpoint -q "$CEPH_TREE" && return
    mount -o ro LABEL=lab-ceph "$CEPH_TREE"
    for part in dev proc run sys; do mount --bind "/$part" "$CEPH_TREE/$part"; done
    mount -t tmpfs ceph-tmp "$CEPH_TREE/tmp"
}

# ceph_begin: a new cluster with a mon and nothing in it; what was there before is forgotten.
ceph_begin() {
    ceph_mount
    if systemctl kill --signal=KILL lab-mon.service 2>/dev/null; then
        wait_until 20 '! systemctl is-active --quiet lab-mon.service'
        systemctl reset-failed lab-mon.service
    fi
    rm -rf "$CEPH"
    mkdir -p "$CEPH/mon"
    cp /lab/lib/objects.py "$CEPH/objects.py"
    ceph_config
    in_ceph monmaptool --create --clobber --fsid "$CEPH_FSID" --addv a "$CEPH_MON" "$CEPH/monmap"
    in_ceph ceph-mon --conf "$CEPH/conf" --mkfs -i a --monmap "$CEPH/monmap"
    systemd-run --quiet --unit=lab-mon chroot "$CEPH_TREE" \
        ceph-mon --conf "$CEPH/conf" --foreground -i a
    # It answers when it has formed a quorum with itself.
    ceph_ask osd set noout
}

# One copy of everything, so that nothing but this one store has it; little memory; nobody to log in.
# An emulated machine is slow, and a daemon that was stopped for minutes must not take itself for one
# that hangs: it would end instead of going on.
ceph_config() {
    cat >"$CEPH/conf" <<CONF
[global]
fsid = $CEPH_FSID
mon_host = $CEPH_MON
ms_bind_msgr1 = false
public_network = 127.0.0.0/8
auth_cluster_required = none
auth_service_required = none
auth_client_required = none
run_dir = $CEPH
admin_socket = $CEPH/\$name.\$pid.asok
log_file =
log_to_stderr = false
err_to_stderr = true
mon_cluster_log_file =
osd_pool_default_size = 1
osd_pool_default_min_size = 1
osd_crush_chooseleaf_type = 0
mon_allow_pool_size_one = true
mon_data_avail_warn = 1
mon_data_avail_crit = 1
osd_crush_update_on_start = false
osd_class_update_on_start = false
[mon.a]
mon_data = $CEPH/mon
[osd]
bluestore_cache_autotune = false
bluestore_cache_size = 33554432
osd_memory_target = 939524096
osd_op_thread_suicide_timeout = 0
osd_heartbeat_grace = 120
CONF
}

# osd_make HOST: the OSD's store, on that host's device, and a place for it.
osd_make() {
    mkdir -p "$CEPH/osd-$1"
    ln -s "$(host_dev "$1")" "$CEPH/osd-$1/block"
    ceph_ask osd new "$CEPH_OSD"
    ceph_ask osd crush add osd.0 1 root=default host=fabric-0
    in_ceph ceph-osd --conf "$CEPH/conf" --mkfs -i 0 --osd-data "$CEPH/osd-$1" \
        --osd-uuid "$CEPH_OSD" 2>&1 | grep -v _read_fsid || true
}

# osd_adopt HOST: that host's folder, made from what the device says of itself, which must be this OSD.
osd_adopt() {
    mkdir -p "$CEPH/osd-$1"
    in_ceph ceph-bluestore-tool prime-osd-dir --dev "$(host_dev "$1")" --path "$CEPH/osd-$1"
    ln -s "$(host_dev "$1")" "$CEPH/osd-$1/block"
    [[ $(cat "$CEPH/osd-$1/fsid") == "$CEPH_OSD" ]] || fail "the device of host $1 is another OSD's"
}

osd_start() {
    systemctl reset-failed "lab-osd-$1.service" 2>/dev/null || true
    systemd-run --quiet --unit="lab-osd-$1" unshare --uts bash -c \
        "hostname node-$1; exec chroot $CEPH_TREE ceph-osd --conf $CEPH/conf --foreground -i 0 \
            --osd-data $CEPH/osd-$1"
}

osd_runs() { systemctl is-active --quiet "lab-osd-$1.service"; }
osd_pid() { systemctl show --property=MainPID --value "lab-osd-$1.service"; }
# What the mon says of it.
osd_up() { [[ $(ceph_ask osd stat) == *' 1 up '* ]]; }
osd_down() { ceph_ask osd down 0; }
osd_freeze() { kill -STOP "$(osd_pid "$1")"; }
osd_thaw() { kill -CONT "$(osd_pid "$1")"; }

# osd_stop HOST [SIGNAL]: it is gone when this returns.
osd_stop() {
    osd_runs "$1" || return 0
    systemctl kill --signal="${2:-TERM}" "lab-osd-$1.service"
    wait_until 300 "! osd_runs $1"
}

# osd_check HOST: its store, looked through as a whole; the OSD is stopped.
osd_check() { in_ceph ceph-bluestore-tool fsck --path "$CEPH/osd-$1"; }

# pool_make: where the objects go.
pool_make() {
    ceph_ask osd pool create lab 8 8
    ceph_ask osd pool set lab size 1 --yes-i-really-mean-it
}

# objects_begin: writes until told to stop, this many at a time.
UNDER_WAY=8
objects_begin() {
    : >"$CEPH/objects"
    chroot "$CEPH_TREE" python3 "$CEPH/objects.py" write "$CEPH/conf" lab "$CEPH/objects" \
        "$CEPH/stop" "$UNDER_WAY" &
    OBJECTS=$!
}
# objects_end [SIGNAL]: with one, also if nobody answers it.
objects_end() {
    touch "$CEPH/stop"
    if (($#)); then kill "-$1" "$OBJECTS"; fi
    wait "$OBJECTS" || (($#))
}
# objects_first NUMBER: what was acknowledged of the first so many that were begun.
objects_first() { awk -v first="$1" '$1 <= first' "$CEPH/objects"; }
# objects_acked [FIRST]: how many were acknowledged so far, of all or of the first so many.
objects_acked() { objects_first "${1:-1000000}" | wc -l; }
# objects_right [NUMBER]: everything that was acknowledged is there and right, or the first so many.
objects_right() {
    objects_first "${1:-1000000}" >"$CEPH/objects-checked"
    timeout 300 chroot "$CEPH_TREE" python3 "$CEPH/objects.py" check "$CEPH/conf" lab \
        "$CEPH/objects-checked"
}
