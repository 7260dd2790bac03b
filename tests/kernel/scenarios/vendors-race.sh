# what: os-brick attaches and detaches while a leg is lost and taken back, again and again
# timeout: 1500
# timeout-full: 5400
# needs: deb
# needs: os-brick
. /lab/lib/lab.sh

openstack_ready vol one two spare
times=$(repeat 10 50)
for ((n = 1; n <= times; n++)); do
    os_brick_attach vol
    case $((n % 3)) in
        0) replica_kill two; nap "0.$((RANDOM % 9))"; replica_revive two ;;
        1) replica_kill two ;;
        2) ;;
    esac
    nap "$((RANDOM % 5)).$((RANDOM % 9))"
    os_brick_tell detach vol
    ((n % 3 != 1)) || { nap "0.$((RANDOM % 9))"; replica_revive two; }
    os_brick_wait vol
    nothing_left 30
done
figure races "$times"
claim "attach and detach raced with healing: nobody waited for ever, and nothing was left each time"
os_brick_attach vol
wait_until 120 "[[ \$(array_state vol) == '[UU]' ]]"
wait_until 60 "[[ \$(array_sync_action vol) == idle ]]"
leg_checksums vol
os_brick_detach vol
nothing_left
claim "the volume is whole after all of it"
