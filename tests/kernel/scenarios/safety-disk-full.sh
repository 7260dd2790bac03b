# what: the disk of the ledger is full, then read-only: nothing is done that could not be remembered
# timeout: 300
# needs: deb
# expects-error: the ledger cannot be written
. /lab/lib/lab.sh

heald_heals
volume_create vol one two
for spare in five six; do replica_create "$spare"; inventory_spare "$spare"; done
heald_absent
heald_install
home=/var/lib/nvme-heal
mount -t tmpfs -o size=256k,mode=0700 lab-ledger "$home"
ended() { heald_stop; umount "$home"; }
trap ended EXIT
heald_manages vol
workload_start "$(array_dev vol)" --blocks 256

full() { dd if=/dev/zero of="$home/filler" bs=4k status=none 2>/dev/null || true; }

say "there is no room for a note, and a leg is lost"
full
replica_kill two
journal_wait 30 --event ledger.failed
sleep 12
[[ $(array_state vol) == '[U_]' ]] || fail "it is $(array_state vol)"
[[ $(grants_given) == 0 ]] || fail "a replacement was asked for that nobody would remember"
journal_lacks --event act.begun --field VERB=add_leg
workload_progress
claim "with a full disk nothing is added and nothing is asked for; the application goes on"
rm "$home/filler"
array_healed vol 120
one_grant
workload_progress
claim "with room again it heals, with one request"

say "now it is read-only"
mount -o remount,ro "$home"
replica_kill one
wait_until 30 "[[ \$(array_state vol) == '[_U]' ]]"
sleep 12
[[ $(grants_given) == 1 ]] || fail "a replacement was asked for that nobody would remember"
mount -o remount,rw "$home"
array_healed vol 120
[[ $(grants_given) == 2 && $(requests_answered) == 2 ]] || fail "not one more request and grant"
workload_progress
workload_stop
leg_checksums vol
claim "read-only: the same, and the legs are equal"
