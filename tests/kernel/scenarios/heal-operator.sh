# what: a hold stops everything during a fault; resume goes on; only root may do either
# timeout: 180
# needs: deb
. /lab/lib/lab.sh

heald_heals
volume_create vol one two
replica_create spare
inventory_spare spare
heald_manages vol
array=$(array_dev vol)

nvme-heal hold "$array" --reason "the switch is being changed"
journal_has --event hold.placed --text "the switch is being changed" || fail "not in the journal"
[[ $(array_status vol .summary) == *"the switch is being changed"* ]] || fail "not in status"
replica_kill two
array_touch vol
array_wait_state vol '[U_]'
sleep 10
journal_lacks --event act.begun
[[ $(grants_given) == 0 && $(array_state vol) == '[U_]' ]] || fail "something was done"
[[ $(array_status vol .health) == held ]] || fail "not held but $(array_status vol .health)"
claim "while a person holds the array nothing is done to it, and the reason is shown"

for word in resume "hold --reason because"; do
    # shellcheck disable=SC2086
    if setpriv --reuid=65534 --regid=65534 --clear-groups nvme-heal ${word%% *} "$array" \
        ${word#"${word%% *}"}; then
        fail "nobody may $word"
    fi
done
[[ $(array_status vol .health) == held ]] || fail "nobody ended the hold"
claim "who is not root can neither hold nor resume"

nvme-heal resume "$array"
journal_wait 10 --event hold.lifted
array_healed vol
one_grant
leg_checksums vol
claim "after resume it heals"
