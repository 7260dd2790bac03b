# what: writes that the host has given up reach the target after the path is back: not after the re-add
# timeout: 240
# needs: deb
. /lab/lib/lab.sh

# ghosts REPLICA SECONDS: what its connections of this moment send arrives that much later; what a new
# one sends does not. It waits inside the target's network, so no pulled cable takes it away.
ghosts() {
    local ns=tgt-$1 port
    modprobe ifb numifbs=0
    ip -n "$ns" link add late type ifb
    ip -n "$ns" link set late up
    tc -n "$ns" qdisc add dev late root netem delay "${2}s" limit 100000
    tc -n "$ns" qdisc add dev "tv-$1" ingress
    for port in $(ss -Htn dst "$(replica_address "$1"):4420" | awk '{ sub(/.*:/, "", $4); print $4 }'); do
        tc -n "$ns" filter add dev "tv-$1" parent ffff: protocol ip u32 \
            match ip sport "$port" 0xffff action mirred egress redirect dev late
    done
}

heald_isolates
for leg in one two; do replica_create "$leg"; done
replica_connect one
# The target believes in a connection for that long: ghosts may come until then.
replica_connect two --keep-alive 20
array_create vol --assume-clean --bitmap-chunk=64K one two
inventory_volume vol one two
heald_manages vol
# Few blocks, so that each is written anew before its ghost arrives.
workload_start "$(array_dev vol)" --blocks 32 --writers 8 --pause-ms 1

say "what is on its way to leg two now arrives twelve seconds late"
ghosts two 12
nap 0.5
began=$(now_ms)
cable_pull two
nap 1.5
cable_plug two
stall_over vol 20 || fail "the application still waits"
journal_wait 10 --event leg.lost
figure out_after $(($(now_ms) - began)) ms
before=$(replica_written two)
workload_progress 200
nap 12
ghosts=$(($(replica_written two) - before))
[[ $(array_state vol) == '[U_]' ]] || fail "taken back while ghosts could still arrive"
figure ghost_sectors "$ghosts"
((ghosts > 0)) || fail "no ghost was written: nothing is shown"
claim "the target carries out writes of the old connection while the leg is out"

array_healed vol
waited=$(($(now_ms) - began))
figure taken_back_after "$waited" ms
((waited >= 40000)) || fail "taken back before the target forgets the old connection"
journal_has --event act.begun --field VERB=re_add_leg || fail "it was not re-added"
workload_progress
workload_stop
leg_checksums vol
claim "it is taken back after them, and what they wrote is written over: the legs are equal"
