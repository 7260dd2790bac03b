# what: what a hiccup leaves on a leg: blocks that MD must not read, and a wish to be replaced
# timeout: 180
# needs: deb
. /lab/lib/lab.sh

heald_isolates
volume_create vol one two
heald_manages vol
workload_start "$(array_dev vol)" --blocks 64

say "leg two gets blocks that MD must not read"
leg=$(leg_dir vol two)
offset=$(cat "$leg/offset")
echo "$((offset + 1024)) 8" >"$leg/bad_blocks"
echo "$((offset + 65536)) 16" >"$leg/bad_blocks"
# MD tells nobody of a list that changed in this way: the next event shows it.
journal_follow_up() { echo change >"/sys/block/$(array_kernel_name vol)/uevent"; }
journal_follow_up
journal_wait 20 --event leg.bad_blocks
sleep 10
[[ $(wc -l <"$leg/bad_blocks") == 2 ]] || fail "the list is another one: $(cat "$leg/bad_blocks")"
[[ $(array_sync_action vol) == idle ]] || fail "something was begun: $(array_sync_action vol)"
# MD's repair would fill them with anything (lab-repair). A write of the application is the cure.
for block in 1024 65536; do
    dd if=/dev/zero of="$(array_dev vol)" bs=512 count=16 seek="$block" oflag=direct conv=notrunc status=none
done
journal_follow_up
journal_wait 60 --event leg.bad_blocks_healed
[[ -z $(cat "$leg/bad_blocks") ]] || fail "there are bad blocks still: $(cat "$leg/bad_blocks")"
claim "blocks that MD must not read are said and left alone, and said to be over when they were written"

say "leg one wishes to be replaced, and leg two leaves and returns"
echo want_replacement >"$(leg_dir vol one)/state"
replica_kill two
journal_wait 20 --event leg.lost
replica_revive two
array_healed vol
journal_has --event act.begun --field VERB=clear_want_replacement || fail "the wish was not taken back"
[[ $(cat "$(leg_dir vol one)/state") == in_sync ]] || fail "leg one is $(cat "$(leg_dir vol one)/state")"
workload_progress
workload_stop
journal_lacks --event replacement.requested
leg_checksums vol
claim "a wish to be replaced is taken back before anything is added, and both legs stay"
