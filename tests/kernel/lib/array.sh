# Arrays: RAID1 over replicas, and what can be seen of them.

# array_create NAME [--level=10] [--MDADM-OPTION…] REPLICA…: with a bitmap, as provisioners make them.
array_create() {
    local name=$1 level=--level=1 options=() legs=() replica
    shift
    while [[ $1 == --* ]]; do
        if [[ $1 == --level=* ]]; then level=$1; else options+=("$1"); fi
        shift
    done
    for replica; do legs+=("$(replica_dev "$replica")"); done
    mdadm --create "/dev/md/$name" --quiet --run "$level" --raid-devices="${#legs[@]}" \
        --metadata=1.2 --bitmap=internal --homehost=any "${options[@]}" "${legs[@]}"
    array_remember "$name" "$(basename /sys/block/"${legs[0]#/dev/}"/holders/md*)"
    udevadm settle --timeout=20
}

# array_create_local NAME [SIZE_MB]: a mirror of two loop devices, which is nobody's business.
array_create_local() {
    local name=$1 size=${2:-16} legs=() leg
    mkdir -p "$LAB_STATE/local"
    for leg in 1 2; do
        truncate -s "${size}M" "$LAB_STATE/local/$name-$leg.img"
        legs+=("$(losetup --find --show "$LAB_STATE/local/$name-$leg.img")")
    done
    mdadm --create "/dev/md/$name" --quiet --run --level=1 --raid-devices=2 --metadata=1.2 \
        --homehost=any --assume-clean "${legs[@]}"
    array_remember "$name" "$(basename /sys/block/"${legs[0]#/dev/}"/holders/md*)"
    udevadm settle --timeout=20
}

# array_stop NAME: as at the end of a boot.
array_stop() {
    wait_until 30 "[[ \$(cat $(array_md "$1")/array_state) != write-pending ]]"
    udevadm settle --timeout=20
    mdadm --quiet --stop "$(array_dev "$1")"
}

# array_start NAME REPLICA…: from these legs, which the stock rules may have put together already;
# what is missing is not waited for, as mdadm-last-resort does after half a minute.
array_start() {
    local name=$1 holder replica
    shift
    for replica; do udevadm settle --timeout=20; replica_dev "$replica" >/dev/null; done
    holder=$(holder_of "$1")
    if [[ -z $holder ]]; then
        for replica; do mdadm --quiet --incremental "$(replica_dev "$replica")" || true; done
        holder=$(holder_of "$1")
    fi
    array_remember "$name" "$holder"
    if [[ $(cat "$(array_md "$name")/array_state") == inactive ]]; then
        mdadm --quiet --run "/dev/$holder"
    fi
    udevadm settle --timeout=20
}

# holder_of REPLICA: the array that has it, if one has.
holder_of() {
    local device
    device=$(replica_dev "$1")
    ls "/sys/block/${device#/dev/}/holders" | head -n 1
}

array_remember() {
    mkdir -p "$LAB_STATE/arrays"
    echo "$2" >"$LAB_STATE/arrays/$1"
}

# array_kernel_name NAME: md127; the link below /dev/md may lag behind udev.
array_kernel_name() { cat "$LAB_STATE/arrays/$1"; }
array_dev() { echo "/dev/$(array_kernel_name "$1")"; }
array_md() { echo "/sys/block/$(array_kernel_name "$1")/md"; }

# array_uuid NAME: as mdadm prints it.
array_uuid() { mdadm --detail --export "$(array_dev "$1")" | sed -n 's/^MD_UUID=//p'; }

# array_state NAME: [UU], [U_] … as /proc/mdstat would say. That file cannot be read while a bitmap
# page waits for a leg (md_seq_show wants the bitmap's mutex), so the legs' own files are.
array_state() { local LETTERS; letters "$(array_kernel_name "$1")"; echo "[$LETTERS]"; }

# letters MD: into LETTERS, without a process. By the legs' own slots: a leg that was a replacement has no
# rdN link (`sysfs_link_rdev` makes none for it, and nobody does when its original is gone).
letters() {
    local md=/sys/block/$1/md slots slot state leg good=' '
    LETTERS=''
    read -r slots <"$md/raid_disks"
    slots=${slots%% *}
    for leg in "$md"/dev-*; do
        state='' slot=''
        { read -r state <"$leg/state" && read -r slot <"$leg/slot"; } 2>/dev/null || true
        [[ $state != *in_sync* ]] || good+="$slot "
    done
    for ((slot = 0; slot < slots; slot++)); do
        if [[ $good == *" $slot "* ]]; then LETTERS+=U; else LETTERS+=_; fi
    done
}

array_sync_action() { cat "$(array_md "$1")/sync_action"; }

# array_wait_state NAME '[UU]' [SECONDS]: that, and nothing being rebuilt.
array_wait_state() {
    local seconds=${3:-60}
    wait_until "$seconds" "[[ \$(array_state $1) == '$2' && \$(array_sync_action $1) == idle ]]"
}

# array_has_leg NAME REPLICA: is the replica's device a member now?
array_has_leg() {
    local device
    device=$(replica_dev "$2") || return 1
    [[ -e $(array_md "$1")/dev-${device#/dev/} ]]
}

# array_touch NAME: one block is written, so that MD meets a leg that is gone.
array_touch() {
    dd if=/dev/urandom of="$(array_dev "$1")" bs=4096 count=1 oflag=direct conv=notrunc status=none
}

# array_rewrite NAME: a write that changes nothing. Until the first one MD leaves an array that was just
# assembled in read-auto, and fills no leg.
array_rewrite() {
    local block
    block=$(mktemp)
    dd if="$(array_dev "$1")" of="$block" bs=4096 count=1 iflag=direct status=none
    dd if="$block" of="$(array_dev "$1")" bs=4096 count=1 oflag=direct conv=notrunc status=none
}

# array_readd NAME REPLICA: by hand, as an operator would.
array_readd() { mdadm --quiet --manage "$(array_dev "$1")" --re-add "$(replica_dev "$2")"; }

# leg_checksums NAME: reads each leg's data area one by one; fails when they differ. Stop I/O first.
leg_checksums() {
    local leg sum first=''
    wait_until 30 "[[ \$(cat $(array_md "$1")/array_state) != write-pending ]]"
    for leg in "$(array_md "$1")"/dev-*; do
        leg=/dev/${leg##*/dev-}
        sum=$("$XTASK" guest leg-sum "$leg")
        echo "$leg $sum"
        first=${first:-$sum}
        [[ $sum == "$first" ]] || fail "the legs of $1 differ"
    done
}

# leg_sum REPLICA: checksum of its data area, read at the target: whoever has it, and if nobody has.
leg_sum() { "$XTASK" guest leg-sum "$(replica_get "$1" device)"; }

# leg_dir ARRAY REPLICA: what MD shows of the leg.
leg_dir() {
    local device
    device=$(replica_dev "$2")
    echo "$(array_md "$1")/dev-${device#/dev/}"
}
