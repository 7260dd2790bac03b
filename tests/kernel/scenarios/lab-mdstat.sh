# what: while a bitmap page waits for a leg /proc/mdstat can be opened and waited for, not always read
# timeout: 120
. /lab/lib/lab.sh

for leg in one two; do
    replica_create "$leg"
    replica_connect "$leg"
done
array_create vol --assume-clean --bitmap-chunk=64K one two
# MD clears the bit of a written block some seconds later: raid1d writes the bitmap's page to both legs
# and holds the bitmap's mutex until both have it. Reading /proc/mdstat wants that mutex.
array_touch vol
cable_pull two
sleep 20

began=$(now_ms)
exec {mdstat}</proc/mdstat
figure open $(($(now_ms) - began)) ms
cat /proc/mdstat >"$LAB_OUT/mdstat-read" &
reader=$!
sleep 3
blocked=0
if kill -0 "$reader" 2>/dev/null; then blocked=1; fi
figure read_blocks "$blocked"
[[ $(array_state vol) == '[UU]' ]] || fail "the array is $(array_state vol)"
for file in array_state sync_action degraded; do
    began=$(now_ms)
    timeout 3 cat "$(array_md vol)/$file" >/dev/null || fail "$file cannot be read"
done

cable_plug two
wait "$reader"
claim "what the daemon rests on can be read while a leg hangs"
