# what: a target takes no writes in one place for a while, as one that is full: bad blocks, said and left alone
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
sleep 15
# MD's repair would fill them with anything (lab-repair), and MD's own writes leave them out for as long as
# it remembers that one failed.
[[ -s $(leg_dir vol two)/bad_blocks ]] || fail "somebody emptied the list"
[[ $(array_sync_action vol) == idle ]] || fail "something was begun: $(array_sync_action vol)"
workload_progress
workload_stop
# MD calls a leg faulty while its superblock does not list what is bad yet.
journal_lacks --event leg.lost
! notes_said two Missing || fail "it was called missing"
journal_lacks --event replacement.requested
claim "the leg is neither lost nor replaced, what it lacks stays listed, and no byte that was read was wrong"
