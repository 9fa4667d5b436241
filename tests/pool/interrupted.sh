#!/bin/bash
# A demo that is interrupted leaves no process and no mount: by Ctrl-C, by TERM, by KILL.
set -euo pipefail
cd "$(dirname "$0")/../.."

family() { # all processes below one
    local child
    for child in $(cat /proc/"$1"/task/*/children 2>/dev/null); do
        echo "$child"
        family "$child"
    done
}

until_true() { # seconds, what, command...
    local ends=$((SECONDS + $1)) what=$2
    shift 2
    until "$@"; do
        [ "$SECONDS" -lt "$ends" ] || { echo "interrupted.sh: not in time: $what" >&2; return 1; }
        read -rt 0.1 <> <(:) || true
    done
}

pool_runs() {
    local one
    for one in $(family "$demo"); do
        grep -qsx condor_startd "/proc/$one/comm" && return
    done
    return 1
}
all_gone() {
    local one
    for one in $members; do
        [ ! -e "/proc/$one" ] || [ "$(awk '{print $3}' "/proc/$one/stat" 2>/dev/null)" = Z ] || return 1
    done
}

for signal in INT TERM KILL; do
    mounts=$(sort /proc/mounts)
    setsid tests/run demo >/dev/null 2>&1 &
    demo=$!
    until_true 120 'a pool runs' pool_runs
    members=$(family "$demo")
    kill -s "$signal" -- "-$demo"
    until_true 30 "no process after $signal" all_gone
    wait "$demo" 2>/dev/null || true
    [ "$(sort /proc/mounts)" = "$mounts" ] || { echo "interrupted.sh: $signal left a mount" >&2; exit 1; }
    echo "interrupted by $signal: $(wc -w <<<"$members") processes ended, no mount is left"
done
