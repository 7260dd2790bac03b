# what: from a fault to the report at the provisioner, and from the return to the re-add
# timeout: 1500
# needs: deb
# needs: os-brick
. /lab/lib/lab.sh

now_epoch_ms() { date +%s%3N; }

openstack_ready vol one two spare
os_brick_attach vol
journal_wait 30 --event array.managed
workload_start "$(array_dev vol)"
times=$(repeat 5 15)
for ((n = 1; n <= times; n++)); do
    lines=$(emulator_lines)
    began=$(now_epoch_ms)
    replica_kill two
    wait_until 30 "emulator_heard 'PATCH /replica/.*/Missing' $lines >/dev/null"
    heard=$(emulator_heard 'PATCH /replica/.*/Missing' "$lines")
    heard=${heard%% *}
    figure "report_$n" $((${heard/./} - began)) ms
    # Longer than the hold-down, within the grace.
    sleep 6
    began=$(now_epoch_ms)
    replica_revive two
    until array_has_leg vol two; do nap 0.01; done
    figure "readd_$n" $(($(now_epoch_ms) - began)) ms
    array_wait_state vol '[UU]' 60
    wait_until 30 "[[ \$(array_status vol .health) == optimal ]]"
done
workload_progress
workload_stop
claim "each loss was told to the provisioner, and each leg was taken back"
os_brick_detach vol
nothing_left
