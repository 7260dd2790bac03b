# what: a replacement with another array's MD superblock is refused and not written to
# timeout: 240
# needs: deb
. /lab/lib/lab.sh

heald_heals
volume_create vol one two
# Another host's array, made in a file, out of sight of this one's udev, and copied at the targets.
image=$LAB_STATE/backing/foreign.img
truncate -s 64M "$image"
loop=$(losetup --find --show "$image")
mdadm --create /dev/md/foreign --quiet --run --level=1 --raid-devices=2 --metadata=1.2 \
    --homehost=elsewhere "$loop" missing
foreign=$(basename /sys/block/"${loop#/dev/}"/holders/md*)
udevadm settle
mdadm --quiet --stop "/dev/$foreign"
losetup --detach "$loop"
for spare in taken asleep; do
    replica_create "$spare"
    dd if="$image" of="$(replica_backing "$spare")" bs=1M conv=notrunc status=none
done
before=$(replica_sum taken)
inventory_spare taken
heald_manages vol

say "the stock rules assemble the other array as soon as the spare is connected"
replica_kill two
array_touch vol
journal_wait 60 --event replica.rejected
# The superblock may be read before udev has given the spare to the other array: either is reason enough.
why='held by md'
journal_has --event replica.rejected --text "$why" || why='MD array'
replacement_refused vol taken "$before" "$why"
claim "a spare that another MD array has taken is refused, and not a byte of it changes"

say "the same on a host that assembles nothing by itself: only the superblock tells"
echo 'AUTO -all' >>/etc/mdadm/mdadm.conf
inventory_spare asleep
nvme-heal resume "$(array_dev vol)"
replacement_refused vol asleep "$before" 'MD array'
claim "a spare with another array's MD superblock is refused, and not a byte of it changes"
