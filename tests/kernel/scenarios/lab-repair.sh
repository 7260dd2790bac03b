# what: MD's own repair writes the blocks of a leg that it must not read with what was never read from any leg
. /lab/lib/lab.sh

# legs_differ: in the array's data, byte by byte.
legs_differ() { [[ $(leg_sum one) != "$(leg_sum two)" ]]; }

for leg in one two; do replica_create "$leg"; replica_connect "$leg"; done
array_create vol --assume-clean --bitmap-chunk=64K one two
dd if=/dev/urandom of="$(array_dev vol)" bs=1M count=16 oflag=direct status=none
! legs_differ || fail "they differ from the beginning"
leg=$(leg_dir vol two)
offset=$(<"$leg/offset")
echo "$((offset + 1024)) 8" >"$leg/bad_blocks"
echo "$((offset + 16384)) 16" >"$leg/bad_blocks"
! legs_differ || fail "nothing was written, and they differ"

say "repair, as sysfs offers it"
# Pages that were used before: fresh ones are whatever the host's memory has.
echo 3 >/proc/sys/vm/drop_caches
echo repair >"$(array_md vol)/sync_action"
wait_until 60 "[[ \$(array_sync_action vol) == idle ]]"
say "what is left on the list: $(tr '\n' ';' <"$leg/bad_blocks")"
[[ -z $(<"$leg/bad_blocks") ]] || fail "repair left them alone"
legs_differ || fail "the legs are equal: this kernel's repair copies"
claim "after repair the list is empty, and the leg holds other bytes than the good one there"
