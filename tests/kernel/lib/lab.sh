# The verbs of the lab. A scenario sources this one file; it brings the others.
set -euo pipefail

LAB_STATE=/run/lab
LAB_OUT=${LAB_OUT:-$LAB_STATE/out}
XTASK=/lab/xtask
# Is everything to be repeated as often as a full proof does?
FULL=${LAB_FULL:-0}
mkdir -p "$LAB_STATE" "$LAB_OUT"

# say TEXT: a line for the person who watches.
say() { echo "-- $*"; }

# fail TEXT: the scenario does not hold.
fail() { echo "FAIL $*"; exit 1; }

# claim TEXT: what has just been shown.
claim() { echo "CLAIM $*"; }

# figure NAME VALUE [UNIT]: a number worth keeping.
figure() { echo "FIGURE $1=$2 ${3:-}"; }

# wait_until SECONDS 'COMMAND': until it succeeds; fails the scenario when it never does.
wait_until() {
    local deadline=$((SECONDS + $1))
    until eval "$2"; do
        ((SECONDS < deadline)) || fail "not within $1 s: $2"
        sleep 0.2
    done
}

# nap SECONDS: a sleep that starts no process, for loops beside something that is being measured.
exec {NAP}<> <(:)
nap() { read -rt "$1" -u "$NAP" _ || true; }

# repeat DEFAULT FULL: how often to do something.
repeat() { if ((FULL)); then echo "$2"; else echo "$1"; fi; }

# median_of NUMBER…
median_of() {
    printf '%s\n' "$@" | sort -n |
        awk '{ v[NR] = $1 } END { printf "%d\n", (v[int((NR + 1) / 2)] + v[int(NR / 2) + 1]) / 2 }'
}

# now_ms: a clock for figures.
now_ms() { local up _; read -r up _ </proc/uptime; echo "$((10#${up/./} * 10))"; }

# A command that fails ends the scenario; say which one.
trap 'echo "FAIL line $LINENO of ${BASH_SOURCE[0]##*/}: $BASH_COMMAND"' ERR
set -E

for part in fabric hosts ceph faults array workload dates heald journal heal stall openstack; do
    # shellcheck source=/dev/null
    . "/lab/lib/$part.sh"
done
