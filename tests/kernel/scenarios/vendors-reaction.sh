# what: from a fault to the report, from the return to the re-add: ours beside a model of the polling agent
# timeout: 1200
# timeout-full: 3000
# needs: deb
# needs: os-brick
. /lab/lib/lab.sh

# Both get the same array, the same faults and the same provisioner, one after the other. A fault is at
# any moment of the polling agent's thirty seconds: they are cut into as many parts as there are rounds,
# and each round has a random moment of another part. The model's own schedule is nearly all it waits for,
# so its figures are the same on every machine; ours are what the processor takes, and an emulated one
# takes ten to twenty times longer.

# now_us: without a process, which would be most of what is measured.
now_us() { NOW=${EPOCHREALTIME/[.,]/}; }

# lose NAME: from the fault to the report, which the provisioner dates.
lose() {
    local lines began heard
    lines=$(emulator_lines)
    now_us
    began=$NOW
    echo 0 >"$ENABLE"
    emulator_wait 60 'PATCH /replica/.*/Missing' "$lines"
    heard=${HEARD%% *}
    figure "$1" $((${heard/./} - began / 1000)) ms
}

# take_back NAME: from the return to the leg in its slot. The replica is back once the kernel has its disk
# again; how long that takes is the kernel's, and the same for both. MD lets go of the slot of a lost leg
# at once.
take_back() {
    local slot began uuid deadline=$((SECONDS + 75))
    slot=$(array_md vol)/rd1
    uuid=$(replica_uuid two)
    wait_until 10 "[[ ! -e $slot ]]"
    echo 1 >"$ENABLE"
    until kernel_has "$uuid"; do
        ((SECONDS < deadline)) || fail "the replica does not come back"
        nap 0.01
    done
    now_us
    began=$NOW
    until [[ -e $slot ]]; do
        ((SECONDS < deadline)) || fail "the leg is not taken back: $(ls "$(array_md vol)")"
        nap 0.01
    done
    now_us
    figure "$1" $(((NOW - began) / 1000)) ms
    array_wait_state vol '[UU]' 60
}

# kernel_has UUID: a disk of that id, without a process.
kernel_has() {
    local file uuid
    for file in /sys/block/nvme*n*/uuid; do
        { read -r uuid <"$file"; } 2>/dev/null || continue
        [[ $uuid != "$1" ]] || return 0
    done
    return 1
}

# wait_for_phase ROUND OF: a random moment of a part of the period that no other round has.
wait_for_phase() {
    local part=$(($1 * 4 % $2)) ms
    ms=$(((part * 30000 + RANDOM * 30000 / 32768) / $2))
    say "round $1 of $2: $ms ms after a pass"
    nap "$((ms / 1000)).$(printf %03d $((ms % 1000)))"
}

KEEP_ALIVE=1s
HOLD_DOWN=2s
# As it is without being told: no fault waits behind a question.
REFRESH=300s
openstack_ready vol one two spare
# What replica_kill and replica_revive write to, looked up beforehand.
ENABLE=$NVMET/subsystems/$(replica_nqn two)/namespaces/1/enable
os_brick_attach vol
journal_wait 30 --event array.managed
workload_start "$(array_dev vol)" --writers 1 --pause-ms 20
times=$(repeat 7 15)
say "the daemon: $times rounds"
for ((n = 1; n <= times; n++)); do
    lose "report_$n"
    # Longer than the hold-down, within the grace.
    nap "3.$((RANDOM % 10))"
    take_back "readd_$n"
    wait_until 30 "[[ \$(array_status vol .health) == optimal ]]"
    nap "1.$((RANDOM % 10))"
done
figure decided_median "$(status_json .reaction.median_us)" us
# Stopped is not enough: a returning replica is an array's leg, for which udev starts it again.
heald_absent

say "the model of the polling agent: $times rounds"
for ((n = 1; n <= times; n++)); do
    # Its first pass tells that the replica is available again: nobody has to wait for the next one.
    polling_start
    wait_for_phase "$n" "$times"
    lose "polled_report_$n"
    polling_passed
    wait_for_phase "$n" "$times"
    take_back "polled_readd_$n"
    polling_stop
done
workload_progress
workload_stop
claim "each loss was told to the provisioner, and each leg was taken back, by either"
os_brick_detach vol
