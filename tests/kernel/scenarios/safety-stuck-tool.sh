# what: mdadm hangs in the middle of an add and is killed by its deadline: other arrays go on, this one heals
# timeout: 300
# boot: fresh
# needs: deb
# expects-error: the host is cut off
. /lab/lib/lab.sh

heald_heals grace=10s
replica_create one --backing freezable
replica_create two
for leg in one two; do replica_connect "$leg"; done
array_create vol --assume-clean --bitmap-chunk=64K one two
inventory_volume vol one two
volume_create web three four
replica_create spare
inventory_spare spare
# The first add waits until the disk of the good leg has been frozen. mdadm then freezes the array, as it
# does for each add, reads the good leg's superblock, and waits.
tool=$(realpath "$(command -v mdadm)")
mv "$tool" "$tool.real"
cat >"$tool" <<SHIM
#!/bin/bash
if [[ \$* == *--add-spare* && ! -e /run/nvme-heald/asked ]]; then
    touch /run/nvme-heald/asked
    until [[ -e /run/nvme-heald/frozen ]]; do sleep 0.2; done
fi
exec $tool.real "\$@"
SHIM
chmod 755 "$tool"
heald_manages vol web
workload_start "$(array_dev vol)" --blocks 64
replica_kill two
array_wait_state vol '[U_]'
workload_stop

say "leg two is replaced, and mdadm hangs"
wait_until 60 "[[ -e /run/nvme-heald/asked ]]"
replica_freeze one
touch /run/nvme-heald/frozen
wait_until 20 "[[ \$(array_sync_action vol) == frozen ]]"

say "meanwhile the other array loses a leg and takes it back"
replica_kill four
array_touch web
journal_wait 30 --event leg.lost --field ARRAY="$(array_kernel_name web)"
replica_revive four
array_healed web 60
claim "while mdadm hangs on one array, another one heals"

journal_wait 60 --event act.ended --field VERB=add_leg --field ARRAY="$(array_kernel_name vol)"
say "$(journal_find --event act.ended --field VERB=add_leg)"
replica_thaw one
array_healed vol 90
[[ $(array_sync_action vol) == idle ]] || fail "it is $(array_sync_action vol)"
leg_checksums vol
leg_checksums web
claim "what a killed mdadm left half done is seen and finished; both arrays hold equal legs"
