# The daemon, as the package installs it.

HEALD_UNIT=nvme-heald.service
HEALD_CONFIG=/etc/nvme-heal/nvme-heald.ron

# heald_install: from the payload; once a boot, the reset leaves it installed.
heald_install() {
    local debs=(/lab/debs/*.deb)
    [[ -e ${debs[0]} ]] || fail "this VM was booted without a package (lab run --deb PATH)"
    systemctl unmask --quiet --runtime "$HEALD_UNIT"
    [[ -e $LAB_STATE/installed ]] || dpkg -i "${debs[@]}"
    systemctl stop "$HEALD_UNIT"
    [[ -e $LAB_STATE/installed ]] || cp "$HEALD_CONFIG" "$LAB_STATE/shipped.ron" 2>/dev/null || true
    touch "$LAB_STATE/installed"
}

# heald_absent: nothing starts it in this scenario before heald_install, also not a udev rule.
heald_absent() {
    systemctl mask --quiet --runtime "$HEALD_UNIT"
    systemctl stop "$HEALD_UNIT" 2>/dev/null || true
}

# heald_config <<RON: the whole configuration file, from standard input.
heald_config() {
    mkdir -p "${HEALD_CONFIG%/*}"
    cat >"$HEALD_CONFIG"
}

# heald_start: returns when the daemon says it is ready.
heald_start() { systemctl start "$HEALD_UNIT"; }

# heald_stop: the clean way.
heald_stop() { systemctl stop "$HEALD_UNIT"; }

heald_pid() { systemctl show --property=MainPID --value "$HEALD_UNIT"; }

# heald_kill: SIGKILL; the runner takes each for granted, and any other death for a crash.
heald_kill() {
    local pid
    pid=$(heald_pid)
    ((pid > 0)) || fail "heald_kill: it does not run"
    echo "$pid" >>"$LAB_STATE/kills"
    kill -KILL "$pid"
    wait_until 10 "[[ ! -e /proc/$pid ]]"
}

# heald_wait_restarted: after a kill, by systemd.
heald_wait_restarted() { wait_until "${1:-20}" "systemctl is-active --quiet $HEALD_UNIT"; }

# status_json [JQ-FILTER]: what `nvme-heal status` says. Its exit code speaks of the arrays.
status_json() { { nvme-heal status --json || true; } | jq -r "${1:-.}"; }
