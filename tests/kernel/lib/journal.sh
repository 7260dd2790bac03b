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
