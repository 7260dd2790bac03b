# what: a target that offers another namespace than the promised one is refused
# timeout: 180
# needs: deb
. /lab/lib/lab.sh

heald_heals
volume_create vol one two
replica_create bad
before=$(replica_sum bad)
inventory_spare bad 0f7ad5f5-3f0c-4e21-8d1b-3c1f0a2b9e77
heald_manages vol

replica_kill two
array_touch vol
replacement_refused vol bad "$before" 0f7ad5f5
journal_has --event replica.rejected --text "$(replica_uuid bad)" \
    || fail "the journal does not say what the target shows instead"
claim "a namespace with another id is refused with both ids, and not a byte of it changes"
