# what: a replacement smaller than promised is refused and not written to
# timeout: 180
# needs: deb
. /lab/lib/lab.sh

heald_heals
volume_create vol one two
replica_create bad 32
before=$(replica_sum bad)
inventory_spare bad "$(replica_uuid bad)" 64
heald_manages vol

replica_kill two
array_touch vol
replacement_refused vol bad "$before" 'too small'
claim "a spare that is too small is refused with both sizes, and not a byte of it changes"
