# what: links with a VLAN, a bond, several replicas or two paths; frozen disks and ANA
# timeout: 120
. /lab/lib/lab.sh

controller_is() { [[ $(cat "/sys/class/nvme/$(replica_controller "$1")/state") == "$2" ]]; }
carrier_is() { [[ $(cat "/sys/class/net/$1/carrier") == "$2" ]]; }

say "two replicas behind one link"
replica_create one 16
replica_create other 16 --via one
replica_connect one
replica_connect other
cable_pull other
wait_until 10 "carrier_is hv-one 0"
cable_plug other
wait_until 10 "carrier_is hv-one 1"

say "a VLAN on a link"
replica_create tagged 16 --link vlan
replica_connect tagged
cable_pull tagged
wait_until 10 "carrier_is vl-tagged 0"
cable_plug tagged
wait_until 10 "carrier_is vl-tagged 1"

say "a bond of two ports loses one and goes on"
replica_create bonded 16 --link bond
replica_connect bonded
cable_pull bonded 1
wait_until 10 "carrier_is hv-bonded 0"
sleep 1
carrier_is bo-bonded 1 || fail "the bond went with its port"
timeout 20 dd if="$(replica_dev bonded)" of=/dev/null bs=4096 count=1 iflag=direct status=none
cable_plug bonded 1

say "two paths to one replica, and the first is pulled"
replica_create double 16
replica_second_path double
replica_connect double
replica_connect double --path 2
[[ $(replica_controller double 1) != "$(replica_controller double 2)" ]] || fail "one controller"
cable_pull double 1
wait_until 40 "! controller_is double live"
replica_live double 2 || fail "the second path went too"
timeout 20 dd if="$(replica_dev double)" of=/dev/null bs=4096 count=1 iflag=direct status=none
cable_plug double 1

say "a disk that answers nothing while its target does"
replica_create frozen 16 --backing freezable
replica_connect frozen
replica_freeze frozen
# Not under a time-out: what waits for the disk cannot be killed either.
dd if="$(replica_dev frozen)" of=/dev/null bs=4096 count=1 iflag=direct status=none &
reader=$!
sleep 3
kill -0 "$reader" || fail "it answers"
replica_live frozen || fail "the target is gone"
replica_thaw frozen
wait "$reader"

say "a target that says its path is inaccessible, and takes it back"
ana_state() { cat /sys/class/nvme/"$(replica_controller one)"/nvme*c*n*/ana_state; }
[[ $(ana_state) == optimized ]] || fail "the path is $(ana_state)"
replica_ana one inaccessible
wait_until 10 '[[ $(ana_state) == inaccessible ]]'
replica_ana one optimized
wait_until 10 '[[ $(ana_state) == optimized ]]'
claim "every kind of link and target of the library works, fails and comes back"
