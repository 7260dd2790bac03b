# what: so many events that the kernel drops some, and a leg lost among them: seen all the same
# timeout: 240
# boot: fresh
# needs: deb
. /lab/lib/lab.sh

overruns() { status_json .counters.overruns; }

# flood: more uevents than any buffer holds, each as long as it may be, none of them about anybody.
flood() {
    local n word
    printf -v word 'change 0f7ad5f5-3f0c-4e21-8d1b-3c1f0a2b9e77 A=%01400d' 0
    for ((n = 0; n < 20000; n++)); do echo "$word"; done >/sys/class/mem/null/uevent
}

# Asleep for longer than systemd lets it be.
mkdir -p "/run/systemd/system/$HEALD_UNIT.d"
printf '[Service]\nWatchdogSec=0\n' >"/run/systemd/system/$HEALD_UNIT.d/asleep.conf"
trap 'rm -r "/run/systemd/system/$HEALD_UNIT.d"; systemctl daemon-reload' EXIT
systemctl daemon-reload

heald_heals grace=120s
volume_create vol one two
heald_manages vol
workload_start "$(array_dev vol)" --blocks 256
[[ $(overruns) == 0 ]] || fail "it overran before anything was done"

say "the daemon sleeps while a leg is lost among very many events"
udevadm control --stop-exec-queue
pid=$(heald_pid)
kill -STOP "$pid"
replica_kill two
wait_until 20 "[[ \$(array_state vol) == '[U_]' ]]"
began=$(now_ms)
flood
figure flood $(($(now_ms) - began)) ms
kill -CONT "$pid"
journal_wait 20 --event leg.lost
figure overruns "$(overruns)"
(($(overruns) > 0)) || fail "nothing overran: nothing is shown"
[[ $(heald_pid) == "$pid" ]] || fail "it is another daemon"

say "and another time while it returns"
kill -STOP "$pid"
replica_revive two
wait_until 20 "replica_dev two"
flood
kill -CONT "$pid"
udevadm control --start-exec-queue
array_healed vol 120
workload_progress
workload_stop
no_safety_scan
leg_checksums vol
claim "after lost events everything is looked at again: the loss and the return are seen"
