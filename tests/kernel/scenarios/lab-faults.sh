# what: each fault the library can make is a fault, and ends
# timeout: 180
. /lab/lib/lab.sh

uuid=0f7ad5f5-3f0c-4e21-8d1b-3c1f0a2b9e77
replica_create one --uuid "$uuid"
replica_create two 32 --backing null_blk
replica_connect one --queues 1
replica_connect two --queues 1 --fast-io-fail 3
[[ $(cat "/sys/class/nvme/$(replica_controller two)/fast_io_fail_tmo") == 3 ]] || fail "not armed"
[[ $(cat "/sys/block/$(basename "$(replica_dev one)")/uuid") == "$uuid" ]] || fail "not the promised id"

controller_is() { [[ $(cat "/sys/class/nvme/$(replica_controller "$1")/state") == "$2" ]]; }

say "a target that stops to listen"
target_unlink one
wait_until 20 "! controller_is one live"
target_link one
wait_until 30 "controller_is one live"

say "a network that swallows everything, with its carrier"
network_black_hole one
[[ $(cat /sys/class/net/hv-one/carrier) == 1 ]] || fail "the carrier went"
wait_until 40 "! controller_is one live"
network_clear one
wait_until 40 "controller_is one live"

say "a cable"
cable_pull two
wait_until 10 '[[ $(cat /sys/class/net/hv-two/carrier) == 0 ]]'
cable_plug two
wait_until 10 '[[ $(cat /sys/class/net/hv-two/carrier) == 1 ]]'

say "bytes at the target"
before=$(replica_sum two)
[[ $(replica_sum two) == "$before" ]] || fail "a checksum changes by itself"
dd if=/dev/urandom of="$(replica_dev two)" bs=4096 count=1 seek=100 oflag=direct status=none
[[ $(replica_sum two) != "$before" ]] || fail "a write is not seen"
replica_disconnect two
wait_until 10 "! replica_dev two"

say "a local mirror"
array_create_local other
[[ $(array_state other) == '[UU]' ]] || fail "the local mirror is not whole"
claim "every fault of the library shows and can be taken back"
