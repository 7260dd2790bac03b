# what: a replica of a written mirror is lost, returns, and is re-added by hand
# timeout: 120
. /lab/lib/lab.sh

replica_create one
replica_create two
replica_connect one
replica_connect two
array_create vol --assume-clean one two
[[ $(array_state vol) == '[UU]' ]] || fail "not whole at the start"

workload_start "$(array_dev vol)"
say "one replica of two is taken away"
replica_kill two
wait_until 30 "[[ \$(array_state vol) == '[U_]' ]]"
workload_progress
workload_check

say "it comes back and is re-added"
replica_revive two
wait_until 20 "replica_dev two >/dev/null"
udevadm settle
array_readd vol two
array_wait_state vol '[UU]'
workload_progress
workload_stop

leg_checksums vol
claim "both legs hold the same bytes after a loss and a re-add under a workload"
