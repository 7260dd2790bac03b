# what: an OSD of a real Ceph moves to another host, its old daemon wakes up there, and the store survives
# timeout: 1800
# needs: fence
# needs: ceph
# multipath: off
. /lab/lib/lab.sh

# How long the old daemon may do what it wants, seconds.
AWAKE=30
# The old host knocks all the time, as long as its kernel lets it: 6.12 takes the first refusal for an
# answer, 6.1 does not. What keeps it out is the target.
LOST_AFTER=3600

# old_host_hangs: host a has the OSD, an application writes to it, and then the daemon stops, with writes
# under way: as on a node that hangs.
old_host_hangs() {
    ceph_begin
    osd_make a
    osd_start a
    pool_make
    wait_until 300 osd_up
    objects_begin
    wait_until 300 '(($(objects_acked) > 400))'
    osd_freeze a
    hung=$(now_ms)
    nap 2
    written=$(objects_acked)
    nap 3
    [[ $(objects_acked) == "$written" ]] || fail "an OSD that is stopped acknowledges writes"
    say "host a hangs, with $UNDER_WAY writes under way; $written objects were acknowledged until then"
}

# new_host_takes_over: as a move goes on once it has the fence's word, or believes so.
new_host_takes_over() {
    osd_down
    host_connect b
    osd_adopt b
    osd_start b
    wait_until 300 osd_up
    wait_until 300 '(($(objects_acked) > written))'
    figure "$1_writes_waited" $(($(now_ms) - hung)) ms
    wait_until 300 '(($(objects_acked) > written + 100))'
    local begun=$((written + UNDER_WAY))
    wait_until 300 "((\$(objects_acked $begun) == $begun))"
    objects_right "$begun" || fail "host b does not read what host a acknowledged"
}

# old_daemon_wakes: and host b goes on meanwhile. Says what of the old one arrived at the target.
old_daemon_wakes() {
    writes_watch
    osd_thaw a
    nap "$AWAKE"
    writes_end
    local own
    own=$(writes_of b)
    late=$(($(writes_of_all) - own))
    say "host a's OSD $(osd_runs a && echo still runs || echo has ended)"
    figure "$1_late_writes" "$late" commands
    figure "$1_own_writes" "$own" commands
    ((own > 0)) || fail "the target tells of no write: none can be missed"
}

# store_survives: looked through as a whole, started once more, and everything read back.
store_survives() {
    osd_check b || { say "fsck finds the store destroyed"; return 1; }
    osd_down
    osd_start b
    local deadline=$((SECONDS + 300))
    until osd_up; do
        ((SECONDS < deadline)) && osd_runs b || { say "the OSD does not start again"; return 1; }
        sleep 1
    done
    objects_right || { say "objects are lost"; return 1; }
}

say "first a fence that is none: off the list, and the next host let in"
disk_of_one_host none 1024
host_connect a
old_host_hangs
host_unlist a
host_list b
new_host_takes_over none
old_daemon_wakes none
((late > 0)) || fail "the old daemon wrote nothing: nothing is shown"
claim "without a fence the old daemon's writes land on the device that another host has by now"
objects_end KILL
osd_stop a KILL
osd_stop b
if store_survives; then lost=0; else lost=1; fi
figure none_store_lost "$lost"
((lost)) || fail "the store survived: the checks see nothing, or nothing was shown"
claim "and the store is lost, as every check here sees"

say "now the fence"
osd_stop b KILL
nvme disconnect --nqn="$nqn" >/dev/null
# Its disk is of the guest's memory.
truncate --size=0 "$(replica_backing none)"
disk_of_one_host real 1024
fence_ready
host_connect_second a b
old_host_hangs
began=$(now_ms)
ask close "$nqn" 7
ask report "$nqn" 7
figure proven_after $(($(now_ms) - began)) ms
ask admit "$nqn" 7 "${HOST[b]}"
new_host_takes_over real
claim "what host a acknowledged is read through host b, and what was under way there is written by it"

old_daemon_wakes real
((late == 0)) || fail "$late writes of the old daemon landed"
osd_runs b || fail "the new host's OSD ended"
more=$(objects_acked)
wait_until 300 '(($(objects_acked) > more + 20))'
! host_live a || fail "the old host is connected"
say "the old host $(host_controller a >/dev/null && echo still tries || echo no longer tries) to connect"
claim "no write of the old daemon lands, and the new one goes on beside it"
objects_end
objects_right || fail "what was acknowledged is not there"
osd_stop a KILL
osd_stop b
store_survives || fail "the store is lost"
figure objects_checked "$(objects_acked)" objects
claim "the store is whole, the OSD starts again, and everything that was ever acknowledged is read back"
