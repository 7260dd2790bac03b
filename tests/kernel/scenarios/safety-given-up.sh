# what: the kernel stops to connect after ctrl_loss_tmo, and the target is back later; or it never stops
# timeout: 300
# needs: deb
. /lab/lib/lab.sh

attribute() { cat "/sys/class/nvme/$(replica_controller "$1")/$2"; }

heald_isolates
for leg in one two; do replica_create "$leg"; done
# One as a vendor's rule sets it, the other one so short that the kernel is seen to give up.
replica_connect one --ctrl-loss -1
replica_connect two --ctrl-loss 6
array_create vol --assume-clean --bitmap-chunk=64K one two
inventory_volume vol one two
heald_manages vol
wait_until 20 "[[ \$(attribute two fast_io_fail_tmo) == 1 ]]"
[[ $(attribute one ctrl_loss_tmo) == off ]] || fail "it is $(attribute one ctrl_loss_tmo)"
workload_start "$(array_dev vol)" --blocks 64

say "target two is gone for longer than the kernel tries"
target_unlink two
journal_wait 60 --event leg.lost
wait_until 60 "! replica_controller two"
workload_progress
target_link two
array_healed vol 120
[[ $(attribute two ctrl_loss_tmo) == 6 ]] || fail "connected with ctrl_loss_tmo $(attribute two ctrl_loss_tmo)"
wait_until 20 "[[ \$(attribute two fast_io_fail_tmo) == 1 ]]"
journal_lacks --event replacement.requested
claim "what the kernel gave up is connected again as it was, armed anew, and taken back"

say "target one, which the kernel never gives up, is gone"
workload_mark forever
network_black_hole one
stall_over vol 90 || fail "the application still waits"
figure stall "$(workload_since longest_write_ms)" ms
network_clear one
array_healed vol 120
[[ $(attribute one ctrl_loss_tmo) == off ]] || fail "the rule was fought: $(attribute one ctrl_loss_tmo)"
workload_progress
workload_stop
zombies=0
for subsystem in /sys/class/nvme-subsystem/*; do
    [[ $(find "$subsystem"/ -maxdepth 1 -regex '.*/nvme[0-9]+') ]] || zombies=$((zombies + 1))
done
[[ $zombies == 0 ]] || fail "$zombies subsystems have no controller"
leg_checksums vol
claim "one that it never gives up: the application is freed, the setting is left alone, no zombie stays"
