# what: another host writes to a lost leg that MD still has open: what it wrote is seen, and kept
# timeout: 240
# needs: deb
. /lab/lib/lab.sh

heald_isolates grace=30s
volume_create vol one two
replica_create spare
inventory_spare spare
heald_manages vol
workload_start "$(array_dev vol)" --blocks 64
leg=$(replica_dev two)
disk=$(replica_get two device)

# first_byte DEVICE [DD-OPTION]: what it says its first byte is; MD keeps nothing there.
first_byte() { dd if="$1" bs=4096 count=1 status=none "${@:2}" | head --bytes=1; }

say "the kernel keeps what was read of a device, for as long as somebody has it open"
[[ $(first_byte "$leg" | od -An -tx1) == ' 00' ]] || fail "something is there already"
printf X | dd of="$disk" bs=4096 count=1 conv=sync,notrunc,nocreat iflag=fullblock status=none \
    oflag=direct
[[ $(first_byte "$leg" iflag=direct) == X ]] || fail "the target does not show what is on its disk"
[[ $(first_byte "$leg" | od -An -tx1) == ' 00' ]] || fail "the kernel has read it afresh"
claim "what another host writes is not seen by who reads the device as everybody does"

say "the cable of replica two is pulled, and another host makes a file system on it"
cable_pull two
stall_over vol 30 || fail "the application still waits after 30 s"
journal_wait 10 --event leg.lost
truncate --size=16M "$LAB_STATE/other.img"
mkfs.ext4 -q "$LAB_STATE/other.img"
dd if="$LAB_STATE/other.img" of="$disk" bs=1024 skip=1 seek=1 count=1 conv=notrunc,nocreat \
    oflag=direct status=none
rm "$LAB_STATE/other.img"
before=$(replica_sum two)

say "the cable is back, the device is the same, MD still has it"
[[ -e /sys/block/${leg#/dev/}/holders/$(array_kernel_name vol) ]] || fail "MD let go of it"
cable_plug two
journal_wait 20 --event leg.returned
array_healed vol 120
array_has_leg vol spare || fail "the spare is no leg"
[[ $(replica_sum two) == "$before" ]] || fail "the other host's file system was written to"
journal_has --text ext4 || fail "nobody says why"
one_grant
workload_progress
workload_stop
leg_checksums vol
claim "it is not taken back, not a byte of it changes, and the array heals with a spare"
