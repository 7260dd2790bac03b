# what: a local mirror on loop devices is shown as observed and never touched
# timeout: 180
# needs: deb
. /lab/lib/lab.sh

heald_heals
volume_create vol one two
array_create_local other
heald_manages vol
observed() {
    [[ $(array_status other .health) == observed ]] || fail "it is $(array_status other .health)"
}
observed

say "a person fails, removes and adds a leg of the local mirror"
leg=$(ls -d "$(array_md other)"/dev-* | tail -n 1)
leg=/dev/${leg##*/dev-}
mdadm --quiet --manage "$(array_dev other)" --fail "$leg"
array_wait_state other '[U_]'
observed
sleep 8
[[ $(array_state other) == '[U_]' && -e $(array_md other)/dev-${leg#/dev/} ]] || fail "it was touched"
mdadm --quiet --manage "$(array_dev other)" --remove "$leg"
sleep 2
[[ ! -e $(array_md other)/dev-${leg#/dev/} ]] || fail "the leg was put back"
observed
mdadm --quiet --manage "$(array_dev other)" --add "$leg"
array_wait_state other '[UU]'
observed

journal_lacks --event act.begun
journal_lacks --event leg.lost
journal_lacks --event incident.opened
[[ -z $(ls /run/nvme-heald/legs | grep '^7:') ]] || fail "a loop device is marked as a managed leg"
claim "a local array in every kind of trouble is shown, and nothing is done to it"
