"""Copies an image's tree as it is: hard links, links, modes with their set-uid bits, extended attributes, times."""

from __future__ import annotations

import errno
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_BLOCK: Final = 1 << 26
_UNSUPPORTED: Final = frozenset({errno.ENOTSUP, errno.EPERM, errno.EACCES})
"""What a file system, or root's absence, does not let us set; apptainer's sandboxes lack these attributes as well."""


@dataclass(frozen=True, slots=True)
class Copied:
    """What was copied: bytes of the regular files, each counted once, and files, the top included."""

    size_bytes: int
    inodes: int


def copy_tree(source: Path, target: Path) -> Copied:
    """Copy a tree to where nothing is yet. Owners are kept if this is root. Raises OSError, and leaves what it made."""
    size, inodes = 0, 1
    links: dict[int, str] = {}
    done = [(os.fsencode(source), os.fsencode(target))]
    os.mkdir(target, 0o700)  # noqa: PTH102 - as everywhere here: many files, few objects
    for here, there in done:  # grows as it goes
        with os.scandir(here) as entries:
            for entry in entries:
                found = entry.stat(follow_symlinks=False)
                name = os.path.join(there, entry.name)  # noqa: PTH118
                if found.st_nlink > 1 and not stat.S_ISDIR(found.st_mode):
                    first = links.setdefault(found.st_ino, os.fsdecode(name))
                    if first != os.fsdecode(name):
                        os.link(first, name, follow_symlinks=False)
                        continue
                inodes += 1
                if stat.S_ISDIR(found.st_mode):
                    os.mkdir(name, 0o700)  # noqa: PTH102
                    done.append((entry.path, name))
                else:
                    size += _copy_one(entry.path, name, found)
    for here, there in reversed(done):  # a directory may forbid to be written to: once all is in it
        _copy_metadata(here, there, os.lstat(here))
    return Copied(size, inodes)


def _copy_one(source: bytes, target: bytes, found: os.stat_result) -> int:
    """Copy what is no directory; return its bytes."""
    form = stat.S_IFMT(found.st_mode)
    if form == stat.S_IFREG:
        size = _copy_content(source, target)
    elif form == stat.S_IFLNK:
        os.symlink(os.readlink(source), target)  # noqa: PTH115, PTH211
        size = 0
    elif form == stat.S_IFIFO:
        os.mkfifo(target, 0o600)
        size = 0
    else:
        raise OSError(errno.EINVAL, "is a device or a socket", os.fsdecode(source))
    _copy_metadata(source, target, found)
    return size


def _copy_content(source: bytes, target: bytes) -> int:
    reader = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        writer = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            size = 0
            while sent := os.sendfile(writer, reader, None, _BLOCK):
                size += sent
            return size
        finally:
            os.close(writer)
    finally:
        os.close(reader)


def _copy_metadata(source: bytes, target: bytes, found: os.stat_result) -> None:
    if os.geteuid() == 0:
        os.lchown(target, found.st_uid, found.st_gid)  # before the mode: it takes the set-uid bit away
    is_link = stat.S_ISLNK(found.st_mode)
    if not is_link:
        os.chmod(target, stat.S_IMODE(found.st_mode))  # noqa: PTH101
        _copy_attributes(source, target)
    os.utime(target, ns=(found.st_atime_ns, found.st_mtime_ns), follow_symlinks=False)


def _copy_attributes(source: bytes, target: bytes) -> None:
    try:
        names = os.listxattr(source)
    except OSError as error:
        if error.errno in _UNSUPPORTED:
            return
        raise
    for name in names:
        try:
            os.setxattr(target, name, os.getxattr(source, name))
        except OSError as error:
            if error.errno not in _UNSUPPORTED:
                raise
