# what: from a fault to the report, from the return to the re-add: ours beside a model of the polling agent
# timeout: 1200
# timeout-full: 3000
# needs: deb
# needs: os-brick
. /lab/lib/lab.sh

# Both get the same array, the same faults and the same provisioner, one after the other. A fault is at
# any moment of the polling agent's thirty seconds: its rounds are spread over them evenly. The model's
# own schedule is nearly all it waits for, so its figures are the same on every machine; ours are what the
# processor takes, and an emulated one takes ten to twenty times longer.

now_epoch_ms() { date +%s%3N; }

# lose NAME: from the fault to the report, which the provisioner dates.
lose() {
    local lines began heard
    lines=$(emulator_lines)
    began=$(now_epoch_ms)
    replica_kill two
    emulator_wait 60 'PATCH /replica/.*/Missing' "$lines"
    heard=${HEARD%% *}
    figure "$1" $((${heard/./} - began)) ms
}

# take_back NAME: from the return to the leg in its slot. MD lets go of the slot of a lost leg at once.
take_back() {
    local slot began deadline=$((SECONDS + 75))
    slot=$(array_md vol)/rd1
    wait_until 10 "[[ ! -e $slot ]]"
    began=$(now_epoch_ms)
    replica_revive two
    until [[ -e $slot ]]; do
        ((SECONDS < deadline)) || fail "the leg is not taken back: $(ls "$(array_md vol)")"
        nap 0.005
    done
    figure "$1" $(($(now_epoch_ms) - began)) ms
    array_wait_state vol '[UU]' 60
}

KEEP_ALIVE=1s
HOLD_DOWN=2s
openstack_ready vol one two spare
os_brick_attach vol
journal_wait 30 --event array.managed
workload_start "$(array_dev vol)" --writers 1 --pause-ms 20
times=$(repeat 7 15)
say "the daemon: $times rounds"
for ((n = 1; n <= times; n++)); do
    lose "report_$n"
    # Longer than the hold-down, within the grace.
    sleep 3
    take_back "readd_$n"
    wait_until 30 "[[ \$(array_status vol .health) == optimal ]]"
done
heald_stop

times=$(repeat 3 9)
say "the model of the polling agent: $times rounds of three passes"
polling_start
for ((n = 1; n <= times; n++)); do
    # Every part of the period once, the early ones and the late ones in turn.
    phase=$((15000 * (2 * (n * 2 % times) + 1) / times))
    nap "$((phase / 1000)).$(printf %03d $((phase % 1000)))"
    lose "polled_report_$n"
    polling_passed
    nap "$((phase / 1000)).$(printf %03d $((phase % 1000)))"
    take_back "polled_readd_$n"
    polling_passed
    # The next one tells that it is available again.
    polling_passed
    say "round $n of $times: $((phase / 1000)) s after a pass"
done
polling_stop
workload_progress
workload_stop
claim "each loss was told to the provisioner, and each leg was taken back, by either"
os_brick_detach vol
