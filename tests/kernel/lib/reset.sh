# Returns the guest to a clean state, whatever the scenario before left. Run by the agent before each;
# when it fails the VM is thrown away. Order: let stuck I/O go, then arrays, connections, targets.
set -uo pipefail
export LAB_OUT=/run/lab/out
STATE=/run/lab
NVMET=/sys/kernel/config/nvmet

note() { echo "reset: $*"; }

modprobe -a nvmet nvmet-tcp nvme-tcp loop raid1 raid10 veth dm_mod
mountpoint -q /sys/kernel/config || mount -t configfs configfs /sys/kernel/config

udevadm control --log-level=info --start-exec-queue
mountpoint -q /var/lib/nvme-heal && umount --lazy /var/lib/nvme-heal
systemctl unmask --runtime nvme-heald.service 2>/dev/null
systemctl stop nvme-heald.service 2>/dev/null
systemctl reset-failed nvme-heald.service 2>/dev/null
# An OSD that was stopped would take its time to end.
for unit in lab-osd-a lab-osd-b lab-mon; do
    systemctl kill --signal=KILL "$unit.service" 2>/dev/null
done
for unit in lab-emulator lab-nova lab-polling lab-fenced lab-osd-a lab-osd-b lab-mon; do
    systemctl stop "$unit.service" 2>/dev/null
    systemctl reset-failed "$unit.service" 2>/dev/null
done
mountpoint -q "$STATE/ceph-tree" && umount --recursive "$STATE/ceph-tree"
watched=/sys/kernel/tracing/events/nvmet/nvmet_req_init
[[ -e $watched ]] && { echo 0 >"$watched/enable"; echo 0 >"$watched/filter"; }
# Nobody dates the kernel's moments any more.
tracing=/sys/kernel/tracing/kprobe_events
if [[ -s $tracing ]]; then
    echo 0 >"${tracing%/*}/events/kprobes/enable"
    echo >"$tracing"
fi
rm -f /var/lib/nvme-heal/kumoscale-state.ron
# The udev rule may start it again while arrays are stopped: then it only observes.
[[ -e $STATE/shipped.ron ]] && cp "$STATE/shipped.ron" /etc/nvme-heal/nvme-heald.ron
rm -f /etc/nvme-heal/volumes.ron
sed -i '/^AUTO /d' /etc/mdadm/mdadm.conf
for speed in min:1000 max:200000; do
    echo "${speed#*:}" >"/proc/sys/dev/raid/speed_limit_${speed%:*}"
done

# Every disk thawed, every cable in, every namespace and path there: what waits can end.
for disk in /dev/mapper/lab-*; do [[ -e $disk ]] && dmsetup resume "$disk"; done
for ns in /run/netns/tgt-*; do
    [[ -e $ns ]] || continue
    ns=${ns##*/}
    for end in t{v,w}-"${ns#tgt-}"; do
        ip -n "$ns" link show "$end" >/dev/null 2>&1 || continue
        tc -n "$ns" qdisc del dev "$end" root 2>/dev/null
        ip -n "$ns" link set "$end" up
    done
done
for ana in "$NVMET"/ports/*/ana_groups/1/ana_state; do
    [[ -e $ana ]] && echo optimized >"$ana"
done
for enable in "$NVMET"/subsystems/*/namespaces/*/enable; do
    [[ -e $enable ]] && echo 1 >"$enable" 2>/dev/null
done

stop_arrays() {
    local array try
    for array in /sys/block/md*; do
        [[ -e $array ]] || continue
        echo frozen >"$array/md/sync_action" 2>/dev/null
        for try in 1 2 3 4 5; do
            timeout 15 mdadm --quiet --stop "/dev/${array##*/}" && break
            sleep 1
        done
    done
}
stop_arrays
nvme disconnect-all 2>/dev/null
for controller in /sys/class/nvme/nvme*; do
    [[ -e $controller ]] && timeout 15 sh -c "echo 1 >$controller/delete_controller"
done
# A namespace that came back above may have been taken for half an array by the stock rules.
udevadm settle --timeout=20
stop_arrays

for link in "$NVMET"/ports/*/subsystems/*; do [[ -L $link ]] && rm "$link"; done
for port in "$NVMET"/ports/*; do [[ -d $port ]] && rmdir "$port"; done
for namespace in "$NVMET"/subsystems/*/namespaces/*; do
    [[ -d $namespace ]] || continue
    echo 0 >"$namespace/enable"
    rmdir "$namespace"
done
for link in "$NVMET"/subsystems/*/allowed_hosts/*; do [[ -L $link ]] && rm "$link"; done
for subsystem in "$NVMET"/subsystems/*; do [[ -d $subsystem ]] && rmdir "$subsystem"; done
for host in "$NVMET"/hosts/*; do [[ -d $host ]] && rmdir "$host"; done
for ns in /run/netns/tgt-*; do [[ -e $ns ]] && ip netns del "${ns##*/}"; done
[[ -e /sys/class/infiniband/rxe-lab ]] && rdma link delete rxe-lab
[[ -e /sys/class/net/rdma-lab ]] && ip link del rdma-lab
for link in /sys/class/net/bo-*; do [[ -e $link ]] && ip link del "${link##*/}"; done
for disk in /dev/mapper/lab-*; do [[ -e $disk ]] && dmsetup remove "$disk"; done
losetup --detach-all
for nullb in /sys/kernel/config/nullb/*/; do
    [[ -d $nullb ]] || continue
    echo 0 >"$nullb/power"
    rmdir "$nullb"
done
udevadm settle --timeout=20

systemctl stop nvme-heald.service 2>/dev/null
mountpoint -q "$STATE/backing" && umount "$STATE/backing"
rm -rf "$STATE"/{replicas,arrays,local,inventory,out,kills,killed-in,replicas-made,certificates,fenced,ceph}
rm -f "$STATE"/workload-* "$STATE"/seen-*
rm -rf /var/lib/nvme-heal/* /run/nvme-heald/* /run/nvme-heal/*
mkdir -p "$LAB_OUT"

# Now look: a leftover would be the next scenario's riddle.
leftovers() {
    ls -d /sys/block/md* /sys/class/nvme/nvme* "$NVMET"/ports/* "$NVMET"/subsystems/* \
        /run/netns/tgt-* /sys/class/net/{hv,hw,vl,bo}-* /dev/mapper/lab-* 2>/dev/null
}
for try in 1 2 3 4 5 6 7 8 9 10; do
    [[ $(leftovers) ]] || exit 0
    sleep 0.3
done
note "still there:" $(leftovers)
exit 1
