# what: os-brick attaches and detaches while a leg is lost and taken back, again and again
# timeout: 600
# timeout-full: 3600
# needs: deb
# needs: os-brick
. /lab/lib/lab.sh

# A leg that is back is taken back within two seconds: os-brick detaches before, meanwhile and after.
KEEP_ALIVE=1s
HOLD_DOWN=1100ms
openstack_ready vol one two spare
times=$(repeat 6 50)
attach=()
detach=()
healed=0
for ((n = 1; n <= times; n++)); do
    os_brick_attach vol
    attach+=("$OS_BRICK_MS")
    # Nothing is changed on an array that nobody has written to since it was assembled.
    array_touch vol
    case $((n % 3)) in
        0) replica_kill two; nap "0.$((RANDOM % 9))"; replica_revive two ;;
        1) replica_kill two ;;
        2) ;;
    esac
    nap "$((RANDOM % 3)).$((RANDOM % 9))"
    [[ $(array_state vol) == '[UU]' ]] && healed=$((healed + 1))
    os_brick_tell detach vol
    ((n % 3 != 1)) || { nap "0.$((RANDOM % 9))"; replica_revive two; }
    os_brick_wait vol
    detach+=("$OS_BRICK_MS")
    nothing_left 30
    say "$n of $times: attached in ${attach[-1]} ms, detached in ${detach[-1]} ms"
done
figure races "$times"
figure races_whole_at_detach "$healed"
figure attach_median "$(median_of "${attach[@]}")" ms
figure detach_median "$(median_of "${detach[@]}")" ms
claim "attach and detach raced with healing: nobody waited for ever, and nothing was left each time"
os_brick_attach vol
array_touch vol
wait_until 120 "[[ \$(array_state vol) == '[UU]' ]]"
wait_until 60 "[[ \$(array_sync_action vol) == idle ]]"
leg_checksums vol
os_brick_detach vol
nothing_left
claim "the volume is whole after all of it"
