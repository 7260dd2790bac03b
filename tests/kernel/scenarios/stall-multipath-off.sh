# what: without native multipath the same: isolated, re-added by bitmap, no error
# timeout: 300
# timeout-full: 420
# alone: measured
# multipath: off
# needs: deb
. /lab/lib/lab.sh

[[ $(cat /sys/module/nvme_core/parameters/multipath) == N ]] || fail "multipath is on"
PULLS=${LAB_PULLS:-$(repeat 2 5)}
stall_ours heald '"250ms"' "$PULLS"
stall_ours heald_at_once '"0s"' "$PULLS"
claim "native multipath off: the same"
