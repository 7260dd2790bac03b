# what: the runner tells a daemon that was killed from one that died; the journal is found by fields
# boot: fresh
# expects-error: asked for
. /lab/lib/lab.sh

# Stands in for the daemon: a VM with the package has a unit of this name already.
systemd-run --quiet --unit="$HEALD_UNIT" --property=Restart=on-failure --property=RestartSec=1 \
    bash -c 'echo "md127: leg lost"; echo "<3>asked for"; sleep 1000'
journal_wait 10 --text 'leg lost' --field PRIORITY=6
journal_wait 10 --text 'asked for' --field PRIORITY=3
journal_lacks --text 'leg lost' --field PRIORITY=3
heald_kill
heald_wait_restarted
wait_until 10 '[[ $(journal_count --text "leg lost") == 2 ]]'
heald_stop
claim "a kill by the scenario is no crash"
