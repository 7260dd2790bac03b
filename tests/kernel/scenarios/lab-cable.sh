# what: a cable is out for a few seconds; the application waits and sees no error
# timeout: 120
. /lab/lib/lab.sh

replica_create one
replica_create two
replica_connect one
replica_connect two
array_create vol --assume-clean one two
workload_start "$(array_dev vol)"

say "the cable of one replica is out for 3 s"
cable_pull two
sleep 3
workload_check
cable_plug two
workload_progress
workload_stop

array_wait_state vol '[UU]'
leg_checksums vol
claim "a short cable pull costs a stall and no error"
