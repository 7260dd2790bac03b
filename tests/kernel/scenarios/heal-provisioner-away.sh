# what: the provisioner is away for a whole grace period, its file missing and then unreadable
# timeout: 300
# needs: deb
. /lab/lib/lab.sh

heald_heals
volume_create vol one two
volume_create web three four
for spare in five six; do replica_create "$spare"; inventory_spare "$spare"; done
heald_manages vol web
workload_start "$(array_dev vol)"

say "its inventory is gone; two arrays lose a leg"
mv "$HEALD_INVENTORY" "$LAB_STATE/away.ron"
replica_kill two
replica_kill four
array_touch web
md=$(array_kernel_name web)
journal_wait 20 --event leg.lost --field ARRAY="$md"
replica_revive four
array_wait_state web '[UU]' 60
claim "a returned leg is re-added while the provisioner is away"

journal_wait 40 --event replacement.requested --field ARRAY="$(array_kernel_name vol)"
sleep 3
journal_has --event provisioner.faulted || fail "the journal does not say that it is away"
[[ $(array_status vol .provisioner_fault) != null ]] || fail "status does not say that it is away"
[[ $(array_status vol '.owed_reports | length') -gt 0 ]] || fail "nothing is owed any more"
[[ $(array_state vol) == '[U_]' && $(grants_given) == 0 ]] || fail "healed out of nothing"

say "the file is back"
mv "$LAB_STATE/away.ron" "$HEALD_INVENTORY"
array_healed vol
array_healed web
one_grant
for word in two,said:Missing five,said:Available four,said:Missing four,said:Available; do
    notes_said "${word%,*}" "${word##*:}" || fail "never told: $word"
done
claim "missing for a whole grace period: no report lost, healed when it was back"

say "now the file cannot be read"
chmod 000 "$HEALD_INVENTORY"
replica_kill one
md=$(array_kernel_name vol)
wait_until 40 "[[ \$(journal_count --event replacement.requested --field ARRAY=$md) == 2 ]]"
sleep 3
[[ $(array_state vol) == '[_U]' && $(grants_given) == 1 ]] || fail "healed out of nothing"
chmod 644 "$HEALD_INVENTORY"
array_healed vol
[[ $(grants_given) == 2 && $(requests_answered) == 2 ]] || fail "not one more request and grant"
notes_said one Missing && notes_said six Available || fail "a report was lost"
workload_progress
workload_stop
leg_checksums vol
leg_checksums web
no_safety_scan
claim "unreadable for a whole grace period: the same"
