# what: a good leg wishes to be replaced when the spare for a lost one is added: it must not take the good one's place
# timeout: 240
# needs: deb
. /lab/lib/lab.sh

heald_heals
volume_create vol one two
replica_create spare
inventory_spare spare
heald_manages vol
workload_start "$(array_dev vol)" --blocks 256
array_watch vol
good=$(basename "$(replica_dev one)")

say "leg one wishes to be replaced, and leg two is lost for good"
echo want_replacement >"$(leg_dir vol one)/state"
replica_kill two
array_healed vol 120
array_has_leg vol one || fail "the good leg was dropped"
array_has_leg vol spare || fail "the spare is no leg"
[[ $(cat "$(leg_dir vol one)/slot") == 0 && $(cat "$(leg_dir vol spare)/slot") == 1 ]] || fail "not their slots"
[[ $(array_seen vol "faulty $good") == 0 ]] || fail "the good leg was faulty"
journal_order 'act.begun' replacement.adding leg.in_sync
journal_has --event act.begun --field VERB=clear_want_replacement || fail "the wish was not taken back"
one_grant
workload_progress
workload_stop
leg_checksums vol
claim "the wish is taken back before anything is added; the spare fills the lost slot, and the good leg stays"
