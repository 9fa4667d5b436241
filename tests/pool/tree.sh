#!/bin/bash
# Build, once, the tree in which the test pool runs: Debian sid with HTCondor, Apptainer, nginx, Python, this project's
# dependencies in /opt/venv and test images in /srv/images. Prints the tree's path; progress goes to stderr.
#
# Needs root on a Debian system, its package mirror and PyPI. Packages are resolved with a private apt state and
# unpacked without their maintainer scripts: nothing on this machine changes but $IMAGE_CACHE_TREE_DIR. To start over,
# remove that directory.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
checkout=$(cd "$here/../.." && pwd)
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
base=${IMAGE_CACHE_TREE_DIR:-/var/cache/htcondor-image-cache}
packages=(
    # what a Debian system has anyway
    base-files base-passwd libc-bin dash bash coreutils diffutils findutils grep sed gawk gzip tar hostname
    mount util-linux procps iproute2 attr less ca-certificates curl
    # the pool: squashfuse mounts SIFs, sshd is for condor_ssh_to_job
    condor apptainer squashfuse squashfs-tools openssh-server openssh-client
    # the tests; tmux is the terminal in which the admin commands are looked at
    python3 python3-venv python3-pip nginx busybox-static tmux ncurses-base
    # servers of images: an origin and a cache of the federation, a registry
    xrootd-server xrootd-server-plugins xrootd-client-plugins docker-registry
    # the browser in which the publisher's page is looked at
    chromium-headless-shell fonts-dejavu-core
)

say() { echo "tree.sh: $*" >&2; }

phase() { # name: says how long the phase before took
    local now
    now=$(date +%s%N)
    [ -z "${started:-}" ] || say "$(printf '%-24s %5.1f s' "$doing" "$(((now - started) / 100000000))e-1")"
    doing=$1 started=$now
}

require() {
    local missing=()
    [ "$(id -u)" = 0 ] || missing+=('root (packages are unpacked with their modes, and namespaces made)')
    command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null || missing+=("Debian's apt-get and dpkg-deb")
    [ -e "$keyring" ] || missing+=("Debian's signing keys ($keyring, package debian-archive-keyring)")
    unshare --mount --pid --fork true 2>/dev/null || missing+=('mount and pid namespaces (CAP_SYS_ADMIN)')
    unshare --user true 2>/dev/null || missing+=('user namespaces (Apptainer runs containers with them)')
    [ "${#missing[@]}" -gt 0 ] || return 0
    say "cannot make the test pool's tree; missing here:"
    printf '  %s\n' "${missing[@]}" >&2
    exit 3
}

# Of pyproject.toml only the dependencies count: other changes do not make another tree.
key() {
    {
        cat "$here/tree.sh" "$here/images.sh"
        sed -n '/^dependencies *=/,/^\]/p; /^\[project\.optional-dependencies\]/,/^\[/p' "$checkout/pyproject.toml"
    } | sha256sum | cut -c1-12
}

# The Debian mirror that this machine's apt already uses.
mirror() {
    local found
    found=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Origin: Debian' 'Label: Debian')
    [ "$found" ] || # apt has fetched no lists yet, so it does not know the origins
        found=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' | grep '/debian/*$' || true)
    [ "$found" ] || {
        say "cannot make the test pool's tree; missing here: a Debian mirror in apt's configuration"
        exit 3
    }
    echo "${found%%$'\n'*}"
}

download() {
    local apt=$work/apt from
    from=$(mirror)
    mkdir -p "$apt"/{lists/partial,cache/archives/partial,etc/apt.conf.d,etc/preferences.d}
    : >"$apt/status"
    echo "deb [signed-by=$keyring] $from sid main" >"$apt/etc/sources.list"
    apt_get() {
        apt-get -qq -y -o Dir::State="$apt" -o Dir::State::lists="$apt/lists" -o Dir::State::status="$apt/status" \
            -o Dir::Cache="$apt/cache" -o Dir::Etc="$apt/etc" -o Dir::Etc::sourcelist="$apt/etc/sources.list" \
            -o Dir::Etc::sourceparts=/dev/null -o Acquire::Languages=none -o APT::Install-Recommends=false \
            -o APT::Sandbox::User=root -o APT::Get::AllowUnauthenticated=false \
            -o APT::Update::Error-Mode=any "$@" >/dev/null
    }
    apt_get update && apt_get install --download-only "${packages[@]}" || {
        say "cannot get the packages from $from"
        exit 1
    }
    mv "$apt/cache/archives" "$work/archives"
}

unpack_one() { # package tree
    dpkg-deb --fsys-tarfile "$1" | tar -x -C "$2" --keep-directory-symlink --no-same-owner -p \
        --exclude='./usr/share/doc/*' --exclude='./usr/share/man/*' --exclude='./usr/share/locale/*' \
        --exclude='./usr/share/info/*'
}

unpack() {
    dpkg-deb -x "$work"/archives/base-files_*.deb "$tree"
    for link in bin sbin lib lib64; do
        [ -e "$tree/$link" ] && continue
        mkdir -p "$tree/usr/$link"
        ln -s "usr/$link" "$tree/$link"
    done
    export -f unpack_one
    export tree
    printf '%s\0' "$work"/archives/*.deb | xargs -0 -n 8 -P 2 bash -euo pipefail -c \
        'for package; do unpack_one "$package" "$tree"; done' unpack
    rm -rf "$work/archives"
}

# What the maintainer scripts would have done, as far as anybody here needs it.
configure() {
    local etc=$tree/etc
    cp "$tree/usr/share/base-passwd/passwd.master" "$etc/passwd"
    cp "$tree/usr/share/base-passwd/group.master" "$etc/group"
    add_user condor 64 /var/lib/condor /usr/sbin/nologin
    add_user imagecache 990 /nonexistent /usr/sbin/nologin
    add_user sshd 991 /run/sshd /usr/sbin/nologin
    add_user joe 1000 /home/joe /bin/bash
    add_user amy 1001 /home/amy /bin/bash
    printf '127.0.0.1 localhost pool\n' >"$etc/hosts"
    echo pool >"$etc/hostname"
    cp "$tree/usr/share/libc-bin/nsswitch.conf" "$etc/nsswitch.conf"
    : >"$etc/localtime"
    : >"$etc/resolv.conf"
    cat "$tree"/usr/share/ca-certificates/mozilla/*.crt >"$etc/ssl/certs/ca-certificates.crt"
    [ -e "$tree/usr/bin/sh" ] || ln -s dash "$tree/usr/bin/sh"
    [ -e "$tree/usr/bin/awk" ] || ln -s gawk "$tree/usr/bin/awk"
    mkdir -p "$tree"/{proc,sys,dev,tmp,run,root,mnt,pool,src,out,cvmfs,opt/venv,srv/images}
    chmod 1777 "$tree/tmp" "$tree/var/tmp"
    chown 1000:1000 "$tree/srv/images"
    echo 'the execution point itself' >"$tree/IMAGE_ID"
    chroot "$tree" /sbin/ldconfig
}

add_user() { # name uid home shell
    echo "$1:x:$2:$2::$3:$4" >>"$tree/etc/passwd"
    echo "$1:x:$2:" >>"$tree/etc/group"
    case $3 in /home/*) install -d -m 755 -o "$2" -g "$2" "$tree$3" ;; esac
}

# Without the maintainer scripts nothing is byte-compiled, and only root could do so later.
compile_python() {
    "$here/enter.sh" --keep /usr/lib "$tree" "$checkout" sh -c \
        '/usr/bin/python3 -m compileall -q -j 2 -x "/(test|idlelib|lib2to3|ensurepip)/" /usr/lib/python3*' || true
}

make_venv() {
    "$here/enter.sh" --online --keep /opt/venv "$tree" "$checkout" /usr/bin/python3 -c '
import pathlib, subprocess, sys, sysconfig, tomllib, venv
project = tomllib.loads(pathlib.Path("/src/pyproject.toml").read_text())["project"]
wanted = project["dependencies"] + project["optional-dependencies"]["test"]
venv.create("/opt/venv", with_pip=False, symlinks=True)
pip = [sys.executable, "-m", "pip", "--python", "/opt/venv/bin/python3", "install", "-qq", "--no-cache-dir",
       "--disable-pip-version-check", "--root-user-action=ignore"]
done = subprocess.run([*pip, *wanted], stdout=sys.stderr)
pathlib.Path(sysconfig.get_path("purelib", "venv", {"base": "/opt/venv"}), "checkout.pth").write_text("/src\n")
sys.exit(done.returncode)
' || {
        say "cannot install the project's dependencies from the package index that pip is configured for"
        exit 1
    }
}

make_images() {
    "$here/enter.sh" --keep /srv/images "$tree" "$checkout" setpriv --reuid=1000 --regid=1000 --clear-groups \
        env HOME=/home/joe USER=joe bash /src/tests/pool/images.sh >&2
    chown -R 0:0 "$tree/srv/images" # published images are not the job owners'
}

build() {
    rm -rf "$base"/*.building.* # of builders that were killed: this one holds the lock
    work=$base/$name.building.$$ tree=$base/$name.building.$$/tree
    trap 'rm -rf "$work"' EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM HUP
    say "building $base/$name"
    mkdir -p "$tree"
    phase 'download packages'
    download
    phase 'unpack packages'
    unpack
    configure
    phase 'compile Python'
    compile_python
    phase 'install dependencies'
    make_venv
    phase 'make images'
    make_images
    phase ''
    mv "$tree" "$base/$name"
}

require
name=sid-$(key)
find "$base" -maxdepth 1 -name 'sid-*' ! -name "$name" -mtime +7 -exec rm -rf {} + 2>/dev/null || true # of old recipes
if [ ! -d "$base/$name" ]; then
    mkdir -p "$base"
    exec 9>"$base/lock"
    flock -n 9 || { say "waiting for another builder" && flock 9; }
    [ -d "$base/$name" ] || build
fi
touch "$base/$name"
echo "$base/$name"
