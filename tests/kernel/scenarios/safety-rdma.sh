# what: legs behind RDMA (rxe): one is lost and returns, another one is replaced
# timeout: 300
# needs: deb
. /lab/lib/lab.sh

# One software RDMA device for all: the packets of a connection to oneself never meet a wire, so the
# faults are those of targets and not of cables.
modprobe -a rdma_rxe rdma_cm nvme-rdma nvmet-rdma
ip link add rdma-lab type dummy 2>/dev/null || true
ip address add 10.79.0.1/24 dev rdma-lab 2>/dev/null || true
ip link set rdma-lab up
rdma link add rxe-lab type rxe netdev rdma-lab 2>/dev/null || true
wait_until 10 "rdma link show rxe-lab/1 | grep 'state ACTIVE'"

# rdma_replica NAME: served by RDMA beside its TCP port.
rdma_port() { echo "$NVMET/ports/$((1000 + $(replica_get "$1" index)))"; }
rdma_replica() {
    local port
    replica_create "$1"
    port=$(rdma_port "$1")
    mkdir "$port"
    echo rdma >"$port/addr_trtype"
    echo ipv4 >"$port/addr_adrfam"
    echo 10.79.0.1 >"$port/addr_traddr"
    echo "$((5000 + $(replica_get "$1" index)))" >"$port/addr_trsvcid"
    rdma_serve "$1"
}
rdma_serve() { ln -s "$NVMET/subsystems/$(replica_nqn "$1")" "$(rdma_port "$1")/subsystems/$(replica_nqn "$1")"; }
rdma_stop() { rm "$(rdma_port "$1")/subsystems/$(replica_nqn "$1")"; }
rdma_connect() {
    nvme connect --transport=rdma --traddr=10.79.0.1 --trsvcid="$((5000 + $(replica_get "$1" index)))" \
        --nqn="$(replica_nqn "$1")" --nr-io-queues=1 --reconnect-delay=2 --ctrl-loss-tmo=600
    wait_until 20 "replica_live $1 && replica_dev $1 >/dev/null"
}
inventory_entry() {
    echo "(id: \"$1\", namespace: \"uuid.$(replica_uuid "$1")\", nqn: \"$(replica_nqn "$1")\","
    echo " portals: [\"rdma://10.79.0.1:$((5000 + $(replica_get "$1" index)))\"], size: \"64MiB\"),"
}

heald_isolates grace=20s
for leg in one two spare; do rdma_replica "$leg"; done
for leg in one two; do rdma_connect "$leg"; done
udevadm settle --timeout=20
array_create vol --assume-clean --bitmap-chunk=64K one two
inventory_volume vol one two
inventory_spare spare
heald_manages vol
workload_start "$(array_dev vol)" --blocks 256

say "the target of leg two is gone for a moment"
workload_mark gone
rdma_stop two
journal_wait 60 --event leg.lost
wait_until 60 "workload_moves 20 5"
figure stall "$(workload_since longest_write_ms)" ms
rdma_serve two
array_healed vol 120
journal_has --event act.begun --field VERB=re_add_leg || fail "it was not re-added"
journal_lacks --event replacement.requested
claim "a leg behind RDMA is lost, the application goes on, and it is taken back by its bitmap"

say "and now its namespace is gone for good"
replica_kill two
array_healed vol 150
array_has_leg vol spare || fail "the spare is no leg"
one_grant
workload_progress
workload_stop
leg_checksums vol
claim "it is replaced by another one behind RDMA, and the legs are equal"
