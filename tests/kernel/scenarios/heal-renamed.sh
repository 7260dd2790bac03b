# what: a namespace returns under another name, and its old name goes to a stranger
# timeout: 240
# needs: deb
. /lab/lib/lab.sh

heald_heals grace=120s
volume_create vol one two
heald_manages vol
workload_start "$(array_dev vol)"

controller_delete() { echo 1 >"/sys/class/nvme/$(replica_controller "$1")/delete_controller"; }

say "while the daemon is down the lost leg's name goes to a stranger"
heald_stop
old=$(replica_dev two)
controller_delete two
array_wait_state vol '[U_]'
mdadm --quiet --manage "$(array_dev vol)" --remove detached
replica_create other
before=$(replica_sum other)
replica_connect other
[[ $(replica_dev other) == "$old" ]] || fail "the stranger is $(replica_dev other), not $old"
heald_start
replica_connect two
array_healed vol
array_has_leg vol two || fail "the returned namespace is no leg"
[[ $(replica_sum other) == "$before" ]] || fail "the stranger was written to"
[[ -z $(ls "/sys/block/${old#/dev/}/holders") ]] || fail "the stranger is held"
claim "$old is another namespace now and is left alone; the leg is re-added as $(replica_dev two)"

say "its controller is deleted; MD holds the old device, so it returns under another name"
old=$(replica_dev two)
controller_delete two
wait_until 20 '[[ $(journal_count --event leg.lost) == 2 ]]'
replica_connect two
new=$(replica_dev two)
[[ $old != "$new" ]] || fail "the name did not change"
array_healed vol
array_has_leg vol two || fail "the returned namespace is no leg"
[[ $(replica_sum other) == "$before" ]] || fail "the stranger was written to"
claim "$old came back as $new and was re-added by its id"

workload_progress
workload_stop
journal_lacks --event replacement.requested
leg_checksums vol
claim "the workload saw no error, both legs hold the same bytes, and no replacement was asked for"
