# what: a target takes no writes in one place for a while, as one that is full: bad blocks, a wish, a mend
# timeout: 300
# needs: deb
. /lab/lib/lab.sh

heald_isolates
replica_create one
replica_create two --backing freezable
for leg in one two; do replica_connect "$leg"; done
array_create vol --assume-clean --bitmap-chunk=64K one two
inventory_volume vol one two
replica_create spare
inventory_spare spare
heald_manages vol
workload_start "$(array_dev vol)"
offset=$(cat "$(leg_dir vol two)/offset")

say "one mebibyte of leg two refuses reads and writes"
replica_break two $((offset + 40960)) 2048
wait_until 60 "[[ -s $(leg_dir vol two)/bad_blocks || \$(array_state vol) == '[U_]' ]]"
journal_wait 60 --event leg.bad_blocks
say "leg two: $(tr '\n' ' ' <"$(leg_dir vol two)/state"), $(wc -l <"$(leg_dir vol two)/bad_blocks") bad"
sleep 5
workload_check
claim "a full target costs no write: the blocks are listed as bad, and that is said"

say "the target has room again"
replica_mend two
journal_wait 120 --event leg.bad_blocks_healed
array_healed vol 120
[[ -z $(cat "$(leg_dir vol two)/bad_blocks" "$(leg_dir vol one)/bad_blocks") ]] || fail "bad blocks are left"
workload_progress
workload_stop
journal_lacks --event replacement.requested
leg_checksums vol
claim "they are written again from the other leg; no replacement was asked for, and the legs are equal"
