# what: an old copy of a leg, superblock and all, comes as a replacement, and then in the leg's own place
# timeout: 300
# needs: deb
. /lab/lib/lab.sh

settled() { wait_until 30 "[[ \$(cat $(array_md vol)/array_state) == clean ]]"; }

heald_heals
volume_create vol one two
replica_create copy
inventory_spare copy
heald_manages vol
fill() { dd if=/dev/urandom of="$(array_dev vol)" bs=1M count=16 oflag=direct status=none; }

say "leg two is copied at its target, and then all of the array is written anew"
fill
settled
replica_copy two copy
fill
settled
[[ $(leg_sum copy) != "$(leg_sum two)" ]] || fail "the copy is not old"
figure copy_events "$(mdadm --examine "$(replica_get copy device)" | awk '$1 == "Events" { print $3 }')"

say "leg two is lost, and the provisioner gives the copy in its place"
replica_kill two
array_touch vol
figure events_cleared "$(mdadm --examine-bitmap "$(replica_dev one)" | awk '$1 == "Events" && $2 == "Cleared" { print $4 }')"
array_healed vol 120
array_has_leg vol copy || fail "the copy is no leg"
say "how it was added: $(journal_find --event act.begun --field VERB=add_leg)"
leg_checksums vol
claim "an old copy of a leg that is granted as a replacement is filled from the beginning to the end"

say "a twin of a leg, with its namespace id, from another target"
fill
settled
replica_create twin --uuid "$(replica_uuid one)"
replica_copy one twin
fill
settled
twin=$(replica_sum twin)
one=$(replica_dev one)
replica_kill one
array_touch vol
wait_until 20 "[[ \$(array_state vol) == *_* && ! -e $one ]]"
nvme connect --transport=tcp --traddr="$(replica_address twin)" --trsvcid=4420 --nqn="$(replica_nqn twin)"
wait_until 20 "replica_live twin"
sleep 5
[[ $(replica_sum twin) == "$twin" ]] || fail "the twin was written to"
[[ $(array_state vol) == *_* ]] || fail "the twin is a leg"
journal_lacks --event act.begun --field VERB=re_add_leg
claim "a namespace with a lost leg's own id and superblock behind another target is not the leg"

say "the twin goes, and the leg is back"
replica_disconnect twin
replica_create spare
inventory_spare spare
replica_revive one
array_healed vol 120
[[ $(replica_sum twin) == "$twin" ]] || fail "the twin was written to"
leg_checksums vol
claim "the twin is left alone to the last byte; the legs are equal"
