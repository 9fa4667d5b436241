#!/bin/bash
# Make the test images in /srv/images of the tree; tree.sh runs this inside it as the ordinary user joe.
#
#   sif/<name>.sif   sandbox/<name>/   exit_37.sif
#
# Every image is a busybox whose file /IMAGE_ID names it, so a job that prints this file says which image it ran in.
set -euo pipefail
cd "${1:-/srv/images}"
umask 022
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

declare -A sif_ids=(
    [rocky9]='htc/rocky:9 SIF' [rocky9-new]='htc/rocky:9 SIF, newer' [alma9]='htc/almalinux:9 SIF'
    [cold]='htc/cold:1 SIF' [shipped]='shipped SIF' [web]='web SIF' [default]='default SIF'
)
declare -A sandbox_ids=(
    [rocky9]='htc/rocky:9 sandbox' [rocky9-new]='htc/rocky:9 sandbox, newer' [alma9]='htc/almalinux:9 sandbox'
    [default]='default sandbox'
)

make_rootfs() {
    local root=$1 applet
    mkdir -p "$root"/{bin,sbin,usr/bin,etc,dev,proc,sys,tmp,var/tmp,run,home,root,srv,cvmfs,mnt,opt,lib64}
    chmod 1777 "$root/tmp" "$root/var/tmp"
    cp /usr/bin/busybox "$root/bin/busybox"
    for applet in $(/usr/bin/busybox --list); do
        [ "$applet" = busybox ] || ln -s busybox "$root/bin/$applet"
    done
    touch "$root"/etc/{passwd,group,hosts,resolv.conf,localtime}
}

make_sif() { # name
    local root=$work/sif-$1
    cp -a "$work/rootfs" "$root"
    echo "${sif_ids[$1]}" >"$root/IMAGE_ID"
    head -c 4M /dev/urandom >"$root/opt/padding" # so that transfers take time and digests differ
    apptainer -q build -F --mksquashfs-args '-comp gzip -Xcompression-level 1' "sif/$1.sif" "$root"
    rm -rf "$root"
}

make_sandbox() { # name
    [ -d sandbox/rocky9 ] || apptainer -q build -F --sandbox sandbox/rocky9 "$work/rootfs"
    [ -d "sandbox/$1" ] || cp -a sandbox/rocky9 "sandbox/$1"
    echo "${sandbox_ids[$1]}" >"sandbox/$1/IMAGE_ID"
}

mkdir -p sif sandbox
make_rootfs "$work/rootfs"
for name in rocky9 "${!sandbox_ids[@]}"; do make_sandbox "$name"; done
for name in "${!sif_ids[@]}"; do make_sif "$name"; done
apptainer -q build -F exit_37.sif /usr/libexec/condor/singularity_test_sandbox
