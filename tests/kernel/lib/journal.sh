# What the daemon wrote in its journal since the scenario began. Options are those of
# `xtask guest journal`: --event X, --field ARRAY=md127, --text 'part of the message'.

journal_find() { "$XTASK" guest journal "$@"; }
journal_has() { journal_find "$@" >/dev/null; }
journal_count() { journal_find --count "$@"; }

# journal_wait SECONDS OPTION…
journal_wait() {
    local seconds=$1
    shift
    wait_until "$seconds" "journal_has $(printf '%q ' "$@")"
}

# journal_lacks OPTION…: fails the scenario when there is one.
journal_lacks() {
    if journal_find "$@"; then fail "the journal has: $*"; fi
}

# journal_trail: the audit trail, "event<TAB>message" a line.
journal_trail() {
    journalctl -q -o json -u "$HEALD_UNIT" --after-cursor "$LAB_CURSOR" \
        | jq -r 'select(.NVME_HEAL_EVENT) | "\(.NVME_HEAL_EVENT)\t\(.MESSAGE)"'
}

# journal_order 'EVENT[ TEXT]'…: these entries stand in this order; others may stand between them.
journal_order() {
    local trail line wanted at=0
    trail=$(journal_trail)
    while IFS= read -r line; do
        ((at < $#)) || break
        wanted=${*:at+1:1}
        if [[ ${line%%$'\t'*} == "${wanted%% *}" \
            && ($wanted != *' '* || $line == *"${wanted#* }"*) ]]; then
            at=$((at + 1))
        fi
    done <<<"$trail"
    ((at == $#)) && return
    echo "$trail"
    fail "the trail has no '${*:at+1:1}' after what must come before it"
}
