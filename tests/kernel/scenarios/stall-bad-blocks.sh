# what: blocks that MD must not read and nobody writes: the leg is replaced, and serves until its successor is complete
# timeout: 240
# needs: deb
. /lab/lib/lab.sh

heald_isolates grace=6s
volume_create vol one two
replica_create spare
inventory_spare spare
heald_manages vol

# region: what stands where the leg will lack something.
region() { dd if="$(array_dev vol)" bs=512 skip=65536 count=32 iflag=direct status=none | sha256sum; }
dd if=/dev/urandom of="$(array_dev vol)" bs=512 seek=65536 count=32 oflag=direct conv=notrunc status=none
written=$(region)
workload_start "$(array_dev vol)" --blocks 64

say "leg two lacks two blocks, and has something else there"
leg=$(leg_dir vol two)
offset=$(cat "$leg/offset")
for block in 65536 65552; do
    echo "$((offset + block)) 8" >"$leg/bad_blocks"
    dd if=/dev/urandom of="$(replica_get two device)" bs=512 seek=$((offset + block)) count=8 oflag=direct \
        conv=notrunc status=none
done
[[ $(region) == "$written" ]] || fail "MD reads from the leg that lacks them"
array_watch vol
# MD tells nobody of a list that changed in this way: the next event shows it.
echo change >"/sys/block/$(array_kernel_name vol)/uevent"
journal_wait 20 --event leg.bad_blocks
wait_until 90 "array_has_leg vol spare && ! array_has_leg vol two"
array_healed vol
workload_progress
workload_stop
journal_order grace.began replacement.requested replacement.connecting replacement.verifying replacement.adding \
    rebuild.began leg.in_sync 'report.delivered spare is available' incident.closed
journal_order leg.in_sync repair.ended 'report.delivered two is no longer used'
one_grant
claim "after its grace a leg that lacks blocks is replaced, in this order, with one request"

journal_lacks --event leg.lost
journal_has --event act.begun --field VERB=replace_leg || fail "it was not moved"
journal_lacks --event act.begun --field VERB=fail_leg
[[ $(array_seen vol broken) == 0 ]] || fail "the array was broken"
! grep '^faulty' "$LAB_STATE/seen-vol" | grep -v "^faulty ${leg##*/dev-}/" || fail "another leg was faulty"
claim "no leg was failed by us: MD drops the old one when its successor is complete"

[[ $(region) == "$written" ]] || fail "other bytes are read now"
[[ -z $(cat "$(leg_dir vol spare)/bad_blocks") ]] || fail "the successor lacks blocks as well"
leg_checksums vol
claim "the successor has what the old leg lacked, and both legs hold the same bytes"
