# what: a replacement with blocks of 4096 bytes for an array of 512 is refused and not written to
# timeout: 180
# needs: deb
. /lab/lib/lab.sh

heald_heals
volume_create vol one two
replica_create bad --backing null_blk
before=$(replica_sum bad)
inventory_spare bad
heald_manages vol
[[ $(cat "/sys/block/$(array_kernel_name vol)/queue/logical_block_size") == 512 ]] || fail "not the array that was meant"

replica_kill two
array_touch vol
replacement_refused vol bad "$before" 'logical blocks of 4096'
workload=$(leg_sum one)
[[ $workload ]] || fail "the good leg cannot be read"
claim "a spare with larger blocks is refused with both sizes, and not a byte of it changes"
