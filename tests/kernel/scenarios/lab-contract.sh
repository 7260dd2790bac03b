# what: a real kernel keeps every promise of the host's contract, as the one in memory does
# timeout: 900
# needs: contract
. /lab/lib/lab.sh

# target NAME: as the contract's program wants it.
target() { echo "$(replica_nqn "$1"),uuid.$(replica_uuid "$1"),$(replica_address "$1")"; }

# set_stage NUMBER: two legs, a spare, an array, all of them new.
set_stage() {
    local replica
    (($1 == 0)) || bash /lab/lib/reset.sh || fail "the stage before cannot be cleared"
    for replica in one two spare; do replica_create $replica; done
    replica_connect one
    replica_connect two
    array_create "stage$1" --assume-clean one two
    # udev's watch of a node is off while it answers an earlier event: it may miss that the array's
    # maker closed a leg, and would know no member there until the next event.
    udevadm trigger --action=change --settle "$(replica_dev one)" "$(replica_dev two)"
    array="$(array_uuid "stage$1") $(array_kernel_name "stage$1")"
}

mapfile -t cases < <(/lab/files/contract)
broken=0
array=
for case in "${!cases[@]}"; do
    name=${cases[case]#* }
    [[ $array ]] || set_stage "$case"
    # shellcheck disable=SC2086  # an array's UUID and its name are two words
    if why=$(/lab/files/contract "$case" $array \
        "$(target one)" "$(target two)" "$(target spare)" 2>&1); then
        claim "on a real kernel: $name"
        [[ ${cases[case]} == still* ]] || array=
    else
        say "BROKEN: $name: $why"
        broken=$((broken + 1))
        array=
    fi
done
((broken == 0)) || fail "$broken of ${#cases[@]} promises are broken"
figure promises "${#cases[@]}" cases
