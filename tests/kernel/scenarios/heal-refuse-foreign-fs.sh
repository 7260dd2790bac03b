# what: a replacement with a file system on it is refused and not written to; a clean one heals
# timeout: 180
# needs: deb
. /lab/lib/lab.sh

heald_heals
volume_create vol one two
replica_create bad
mkfs.ext4 -q "$(replica_get bad device)"
sync
before=$(replica_sum bad)
inventory_spare bad
heald_manages vol

replica_kill two
array_touch vol
replacement_refused vol bad "$before" ext4
claim "a spare with ext4 on it is refused with the reason, and not a byte of it changes"

say "a person adds a clean spare and resumes"
replica_create good
inventory_spare good
nvme-heal resume "$(array_dev vol)"
array_healed vol
array_has_leg vol good || fail "the clean spare is no leg"
[[ $(replica_sum bad) == "$before" ]] || fail "the refused spare was written to"
notes_said bad Unusable || fail "the provisioner was not told"
leg_checksums vol
claim "after resume another spare is asked for, and heals"
