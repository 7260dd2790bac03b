# what: a congested network, slow and lossy, without a dead path: no leg is failed
# timeout: 240
# needs: deb
. /lab/lib/lab.sh

heald_isolates
volume_create vol one two
heald_manages vol
workload_start "$(array_dev vol)" --blocks 64
array_watch vol

# Both ways, on both legs.
congested() {
    local leg
    for leg in one two; do
        tc qdisc "$1" dev "hv-$leg" root netem ${2:+delay 80ms 40ms loss 3%}
        tc -n "tgt-$leg" qdisc "$1" dev "tv-$leg" root netem ${2:+delay 80ms 40ms loss 3%}
    done
}
workload_mark congested
congested add yes
sleep 45
figure slowest_write "$(workload_since longest_write_ms)" ms
figure writes "$(workload_since writes)"
for leg in one two; do
    tc qdisc del dev "hv-$leg" root
    tc -n "tgt-$leg" qdisc del dev "tv-$leg" root
done
workload_progress
workload_check
[[ $(array_seen vol faulty) == 0 ]] || fail "a leg was failed"
[[ $(isolations_begun) == 0 ]] || fail "a leg was isolated"
journal_lacks --event leg.lost
array_healed vol
workload_stop
leg_checksums vol
claim "forty-five seconds of delay and loss on every path: doubts, and no leg failed"
