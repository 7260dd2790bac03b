# what: purging the package leaves arrays and connections as they are, and takes back what it armed
# timeout: 180
# boot: fresh
# needs: deb
. /lab/lib/lab.sh

heald_heals
volume_create vol one two
volume_create web three four
array_create_local other
heald_manages vol web
# The one array is whole, the other degraded with a leg held out.
nvme-heal hold "$(array_dev web)" --reason "for the picture"
replica_kill four
array_touch web
array_wait_state web '[U_]'
touch /etc/nvme-heal/of-the-operator

armed() { grep -L off /sys/class/nvme/nvme*/fast_io_fail_tmo | wc -l; }

# Everything of arrays and connections but the clocks and counters that run by themselves.
picture() {
    local file controller
    for file in /sys/block/md*; do
        mdadm --detail "/dev/${file##*/}" | grep -vE 'Update Time|Events'
    done
    # How much of a bitmap is in memory is MD's own business.
    sed 's/bitmap: .* pages .*,/bitmap:/' /proc/mdstat
    grep -H . /sys/block/md*/md/{array_state,raid_disks,level,sync_action,degraded,metadata_version} \
        /sys/block/md*/md/dev-*/{state,slot,offset,size}
    for controller in /sys/class/nvme/nvme*; do
        grep -H . "$controller"/{subsysnqn,address,state,transport,cntlid,kato,reconnect_delay,ctrl_loss_tmo} \
            "$controller/queue_count"
    done
    ls -d /sys/block/nvme*
}
wait_until 20 "[[ -z \$(grep -L clean /sys/block/md*/md/array_state) ]]"
wait_until 20 "[[ \$(armed) == 1 ]]"
picture >"$LAB_OUT/before"
pid=$(heald_pid)

DEBIAN_FRONTEND=noninteractive apt-get purge --yes nvme-heal
[[ ! -d /proc/$pid ]] || fail "the daemon still runs"
sleep 2
picture >"$LAB_OUT/after"
diff "$LAB_OUT/before" "$LAB_OUT/after" || fail "something changed"
figure facts_compared "$(wc -l <"$LAB_OUT/before")"
[[ $(armed) == 0 ]] || fail "a leg is armed, and nobody watches whether it is the last one"
claim "apt purge leaves every array and every connection as it was, and no leg armed"

for path in /etc/nvme-heal/nvme-heald.ron /usr/sbin/nvme-heald /usr/bin/nvme-heal \
    /var/lib/nvme-heal /run/nvme-heald /usr/lib/udev/rules.d/65-nvme-heal.rules; do
    [[ ! -e $path ]] || fail "$path is left"
done
[[ -e $HEALD_INVENTORY && -e /etc/nvme-heal/of-the-operator ]] || fail "the operator's files are gone"
[[ -e /etc/nvme/hostnqn && -x /usr/sbin/mdadm || -x /sbin/mdadm ]] || fail "others' files are gone"
dd if=/dev/urandom of="$(array_dev vol)" bs=1M count=4 oflag=direct status=none
wait_until 20 "[[ \$(cat $(array_md vol)/array_state) == clean ]]"
leg_checksums vol
claim "nothing of the package is left, and nothing else is gone"
