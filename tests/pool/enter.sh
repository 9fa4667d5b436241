#!/bin/bash
# Run a command as root inside a tree made by tree.sh, in namespaces of its own:
#
#   enter.sh [--online] [--keep DIR] TREE CHECKOUT COMMAND [ARGUMENT...]
#
# The tree is the read-only layer of an overlay whose upper layer is memory, so entries can run side by side and
# leave no trace in it. /src is a copy of CHECKOUT; /out is the directory $IMAGE_CACHE_OUT of this machine, if set.
# --online     leave the network as it is (else: loopback only) and take this machine's pip configuration along
# --keep DIR   write DIR of the tree itself (for building it)
# The exit status is the command's. However this script ends, every process and mount of the entry ends with it.
set -euo pipefail

online='' keep=''

complain() {
    echo "enter.sh: $1" >&2
    exit 3
}

parse() {
    while [ $# -gt 0 ]; do
        case $1 in
        --online) online=yes ;;
        --keep) keep=$2 && shift ;;
        *) break ;;
        esac
        shift
    done
    [ $# -ge 3 ] || complain 'usage: enter.sh [--online] [--keep DIR] TREE CHECKOUT COMMAND [ARGUMENT...]'
    tree=$(readlink -e "$1") || complain "$1: no such tree"
    checkout=$(readlink -e "$2") || complain "$2: no such checkout"
    shift 2
    command=("$@")
}

# --- outside -----------------------------------------------------------------------------------------------------

outside() {
    [ "$(id -u)" = 0 ] || complain 'has to run as root: it makes mount and pid namespaces'
    local spaces=(--mount --pid --ipc --uts --fork --kill-child)
    [ "$online" ] || spaces+=(--net)
    # Killed in whatever way, this shell takes unshare along (pdeathsig), unshare its child (kill-child), and that
    # child, the first process of the pid namespace, everything else. The namespaces' last process takes the mounts.
    # A shell's background command ignores SIGINT: undone by env, else Ctrl-C would not reach COMMAND.
    env --default-signal=INT,QUIT setpriv --pdeathsig KILL \
        unshare "${spaces[@]}" bash "$0" --inside "$@" <&0 &
    entry=$!
    trap 'interrupted 2' INT
    trap 'interrupted 15' TERM
    trap 'interrupted 1' HUP
    local status=0
    wait "$entry" || status=$?
    return "$status"
}

interrupted() {
    trap '' INT TERM HUP
    if [ "$1" = 2 ]; then # a terminal's Ctrl-C reached COMMAND too: let it say its last words
        for _ in {1..30}; do
            [ -d "/proc/$entry" ] && sleep 0.1
        done
    fi
    kill -KILL "$entry" 2>/dev/null || true
    wait "$entry" 2>/dev/null || true
    exit $((128 + $1))
}

# --- inside ------------------------------------------------------------------------------------------------------

inside() {
    umask 022
    mount --make-rprivate /
    cd "$tree"
    mount -t tmpfs -o mode=755 entry mnt # of this namespace only; the overlay does not see it below itself
    mkdir mnt/upper mnt/work mnt/root
    mount -t overlay -o lowerdir=.,upperdir=mnt/upper,workdir=mnt/work entry mnt/root
    cd mnt/root
    kernel_mounts
    devices
    copy_checkout
    [ -z "$keep" ] || mount --bind "$tree$keep" ".$keep"
    if [ "${IMAGE_CACHE_OUT:-}" ]; then
        mkdir -p "$IMAGE_CACHE_OUT" out
        mount --bind "$IMAGE_CACHE_OUT" out
    fi
    [ -z "$online" ] || host_configuration
    console_scripts
    mkdir .old
    pivot_root . .old
    cd /
    umount -l /.old
    rmdir /.old
    ip link set lo up
    echo pool >/proc/sys/kernel/hostname
    local status=0
    env -i "${environment[@]}" "${command[@]}" || status=$?
    exit "$status" # not exec: the first process has to reap orphans, and may not be killable by its own signals
}

kernel_mounts() {
    mount -t proc -o nosuid,nodev,noexec proc proc
    # A sysfs of our own has no cgroups in it: HTCondor as root would make some on this machine.
    mount -t sysfs -o nosuid,nodev,noexec sysfs sys
    mount -t tmpfs -o mode=1777,nosuid tmp tmp
    mount -t tmpfs -o mode=755,nosuid,nodev run run
    mount -t tmpfs -o mode=755,nosuid,nodev pool pool
    mount -t tmpfs -o mode=755,nosuid,nodev src src
}

devices() {
    local node
    mount -t tmpfs -o mode=755,nosuid dev dev
    for node in null:1:3 zero:1:5 full:1:7 random:1:8 urandom:1:9 tty:5:0 fuse:10:229; do
        IFS=: read -r name major minor <<<"$node"
        mknod -m 666 "dev/$name" c "$major" "$minor"
    done
    mkdir dev/pts dev/shm
    mount -t devpts -o newinstance,nosuid,noexec,mode=620,gid=5,ptmxmode=666 devpts dev/pts
    mount -t tmpfs -o mode=1777,nosuid,nodev shm dev/shm
    ln -s pts/ptmx dev/ptmx
    ln -s /proc/self/fd dev/fd
    for node in stdin:0 stdout:1 stderr:2; do ln -s "/proc/self/fd/${node#*:}" "dev/${node%:*}"; done
}

# Root's, not writable by others, whatever it is in the checkout: HTCondor refuses hooks that others can change.
copy_checkout() {
    tar -C "$checkout" --anchored --exclude=./.git --exclude=./.venv --exclude=./build --exclude=./dist \
        --no-anchored --exclude=__pycache__ --exclude='*.egg-info' --exclude='.*_cache' --exclude=.hypothesis \
        -cf - . | tar -C src --no-same-owner --no-same-permissions -xf -
    chmod 755 src
    [ ! -e src/hooks/prepare-job ] || chmod 755 src/hooks/prepare-job
}

# What `pip install` would make of [project.scripts]; it reads one `name = "module:function"` a line.
console_scripts() {
    [ -d opt/venv/bin ] && [ -e src/pyproject.toml ] || return 0
    local name entry
    sed -n '/^\[project\.scripts\]/,/^\[/s/^\([A-Za-z0-9_.-]*\) *= *"\([^"]*\)".*/\1 \2/p' src/pyproject.toml |
        while read -r name entry; do
            printf '#!/opt/venv/bin/python3\nimport sys\nfrom %s import %s\nsys.exit(%s())\n' \
                "${entry%:*}" "${entry#*:}" "${entry#*:}" >"opt/venv/bin/$name"
            chmod 755 "opt/venv/bin/$name"
        done
}

# Copies, in the memory layer, of what pip needs to reach the index that this machine uses.
host_configuration() {
    local file
    for file in /etc/resolv.conf /etc/pip.conf /etc/ssl/certs/ca-certificates.crt "${PIP_CONFIG_FILE:-}" \
        "${PIP_CERT:-}" "${SSL_CERT_FILE:-}" "${REQUESTS_CA_BUNDLE:-}" "${CURL_CA_BUNDLE:-}"; do
        copy_in "$file" "$file"
    done
    copy_in "${HOME:-/root}/.pip/pip.conf" /root/.config/pip/pip.conf
    copy_in "${XDG_CONFIG_HOME:-${HOME:-/root}/.config}/pip/pip.conf" /root/.config/pip/pip.conf
}

copy_in() {
    [ -f "$1" ] || return 0
    mkdir -p ".$(dirname "$2")"
    rm -f ".$2"
    cp -L "$1" ".$2"
}

collect_environment() {
    local name passed=("${!IMAGE_CACHE_TEST_@}" CI)
    environment=(
        PATH=/opt/venv/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
        HOME=/root USER=root LOGNAME=root SHELL=/bin/bash LANG=C.UTF-8 "TERM=${TERM:-dumb}"
    )
    [ -z "$online" ] || passed+=("${!PIP_@}" "${!SSL_@}" REQUESTS_CA_BUNDLE CURL_CA_BUNDLE
        http_proxy https_proxy no_proxy HTTP_PROXY HTTPS_PROXY NO_PROXY)
    for name in "${passed[@]}"; do
        [ -z "${!name+set}" ] || environment+=("$name=${!name}")
    done
}

if [ "${1:-}" = --inside ]; then
    shift
    parse "$@"
    collect_environment
    inside
fi
# Started by a script's `&`, a shell ignores SIGINT and cannot trap it: begin anew without that.
[ -z "$(trap -p INT)" ] || exec env --default-signal=INT,QUIT "$0" "$@"
parse "$@"
outside "$@"
