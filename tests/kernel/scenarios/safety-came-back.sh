# what: a lost target comes back with another namespace, and then with the right one, but empty
# timeout: 300
# needs: deb
. /lab/lib/lab.sh

heald_heals grace=40s
volume_create vol one two
replica_create spare
inventory_spare spare
heald_manages vol
workload_start "$(array_dev vol)" --blocks 256

# namespace_change REPLICA UUID: behind the same target there is another namespace now.
namespace_change() {
    echo "$2" >"$NVMET/subsystems/$(replica_nqn "$1")/namespaces/1/device_uuid"
    replica_set "$1" uuid "$2"
}
empty() { dd if=/dev/zero of="$(replica_get "$1" device)" bs=1M oflag=direct status=none 2>/dev/null || true; }

say "target two comes back with a namespace that nobody knows"
own=$(replica_uuid two)
replica_kill two
journal_wait 20 --event leg.lost
namespace_change two 6b7d52a4-6a30-4a51-9d0e-0c2f3f1d7e11
replica_revive two
wait_until 20 "replica_dev two"
before=$(replica_sum two)
sleep 6
[[ $(replica_sum two) == "$before" ]] || fail "the stranger was written to"
! array_has_leg vol two || fail "the stranger is a leg"
claim "another namespace behind the leg's own target is not the leg"

say "and then with the right one, but nothing on it"
replica_kill two
namespace_change two "$own"
empty two
before=$(replica_sum two)
replica_revive two
journal_wait 20 --event leg.returned
array_healed vol 120
array_has_leg vol spare || fail "the spare is no leg"
[[ $(replica_sum two) == "$before" ]] || fail "the empty namespace was written to"
one_grant
workload_progress
workload_stop
leg_checksums vol
claim "a leg that returns empty is not re-added and not filled by surprise: it is replaced"
