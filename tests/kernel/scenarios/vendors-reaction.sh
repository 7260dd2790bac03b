# what: from a fault to the report, from the return to the re-add: ours beside a model of the polling agent
# timeout: 1200
# timeout-full: 3000
# alone: measured
# needs: deb
# needs: os-brick
. /lab/lib/lab.sh

# Both get the same array, the same faults and the same provisioner, one after the other. A fault is at
# any moment of the polling agent's thirty seconds: they are cut into as many parts as there are rounds,
# and each round has a random moment of the middle half of another part, so that the median of seven is
# within 1.1 s of what it is on paper. The model's own schedule is nearly all it waits for, so its figures
# are the same on every machine; ours are what the processor takes, and an emulated one takes ten to
# twenty times longer.

# Everything is dated by the kernel (lib/dates.sh) and by the provisioner, for both alike: a fault from when
# the host's kernel lets go of the namespace or MD of the leg, whichever comes first, and a return from when
# the kernel has the namespace's disk again. How long the kernel takes until then is nobody's reaction, and
# is told beside it.

# lose NAME: from the fault to the report, which the provisioner dates.
lose() {
    local lines lost heard
    lines=$(emulator_lines)
    dates_forget
    echo 0 >"$ENABLE"
    emulator_wait 60 'PATCH /replica/.*/Missing' "$lines"
    heard=${HEARD%% *}
    lost=$({ dates_of lab_gone; dates_of lab_lost; } | sort -n | head -n 1)
    figure "$1" "$(in_ms $((${heard/./} * 1000 - lost)))" ms
    figure "kernel_$1" "$(in_ms $((lost - DATES_WALL)))" ms
}

# take_back NAME: from the return to the leg in its slot. MD lets go of the slot of a lost leg at once.
take_back() {
    local slot back taken deadline=$((SECONDS + 75))
    slot=$(array_md vol)/rd1
    wait_until 10 "[[ ! -e $slot ]]"
    dates_forget
    echo 1 >"$ENABLE"
    until [[ -e $slot ]]; do
        ((SECONDS < deadline)) || fail "the leg is not taken back: $(ls "$(array_md vol)")"
        nap 0.3
    done
    back=$(dates_of lab_disk | tail -n 1)
    taken=$(dates_of lab_slot | head -n 1)
    figure "$1" "$(in_ms $((taken - back)))" ms
    figure "kernel_$1" "$(in_ms $((back - DATES_WALL)))" ms
    array_wait_state vol '[UU]' 60
}

# in_ms MICROSECONDS
in_ms() {
    (($1 >= 0)) || fail "an answer before its question: $1 us"
    echo "$(($1 / 1000)).$(printf %03d $(($1 % 1000)))"
}

# wait_for_phase ROUND OF: a random moment of a part of the period that no other round has.
wait_for_phase() {
    local part=$(($1 * 4 % $2)) ms
    ms=$(((part * 30000 + 7500 + RANDOM * 15000 / 32768) / $2))
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
times=${LAB_ROUNDS:-$(repeat 7 15)}
dates_ready
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
