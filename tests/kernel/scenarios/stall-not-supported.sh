# what: a kernel that cannot destroy sockets: said at start and in status, and nothing is isolated
# timeout: 180
# boot: fresh
# needs: deb
. /lab/lib/lab.sh

# As on a kernel without CONFIG_INET_DIAG_DESTROY: nobody answers for TCP sockets.
printf 'install %s /bin/false\n' tcp_diag inet_diag >/etc/modprobe.d/lab-no-diag.conf
heald_isolates
volume_create vol one two
heald_manages vol
wait_until 10 "{ nvme-heal status || true; } | grep -i 'isolation is off' >/dev/null"
workload_start "$(array_dev vol)" --blocks 64

cable_pull two
sleep 5
[[ $(isolations_begun) == 0 ]] || fail "it was tried"
cable_plug two
wait_until 60 "replica_live two"
workload_progress
workload_stop
array_healed vol
leg_checksums vol
rm /etc/modprobe.d/lab-no-diag.conf
claim "without a way to destroy sockets isolation is off, and status says so"
