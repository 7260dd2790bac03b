# what: the rules start the service for an array with an NVMe-oF leg and guard managed legs only
# timeout: 180
# needs: deb
. /lab/lib/lab.sh

heald_heals grace=120s
systemctl disable --quiet "$HEALD_UNIT"
! systemctl is-active --quiet "$HEALD_UNIT" || fail "it runs before there is an array"
say "an array with NVMe-oF legs is made; nobody starts the service"
volume_create vol one two
wait_until 30 "systemctl is-active --quiet $HEALD_UNIT"
systemctl enable --quiet "$HEALD_UNIT"
claim "an array with an NVMe-oF leg starts the service"

replica_create three
replica_create four
replica_connect three
replica_connect four
array_create unmanaged --assume-clean three four
heald_manages vol
[[ $(array_status unmanaged .health) == observed ]] || fail "the unknown array is not observed"
marked() {
    local replica
    for replica; do cat "/sys/block/$(basename "$(replica_dev "$replica")")/dev"; done | sort \
        | cmp -s - <(ls /run/nvme-heald/legs | sort)
}
marked one two || fail "not the legs' markers: $(ls /run/nvme-heald/legs)"
claim "markers stand for managed legs and for no others"

udevadm control --log-level=debug
ran_stock() {
    journalctl -q -u systemd-udevd --after-cursor "$LAB_CURSOR" \
        | grep "Running command .*mdadm -If ${1#/dev/}" >/dev/null
}
managed=$(replica_dev two)
unmanaged=$(replica_dev four)
replica_kill two
replica_kill four
wait_until 20 "[[ ! -e $managed && ! -e $unmanaged ]]"
udevadm settle
wait_until 20 "ran_stock $unmanaged"
! ran_stock "$managed" || fail "the stock rule ran mdadm -If on a managed leg"
array_wait_state vol '[U_]' 30
claim "mdadm -If runs for a lost leg of an unmanaged array and not for a managed one"
journal_lacks --event act.begun --field ARRAY="$(array_kernel_name unmanaged)"
wait_until 20 "marked one"
claim "the marker of a lost leg goes some seconds after its device"

replica_revive two
array_healed vol
wait_until 60 "marked one two"
claim "a leg that returned is marked again, under its new number"
