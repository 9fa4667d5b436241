"""Bytes and inodes: what a tree takes, what the file system still has, and that it keeps what was written."""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

_UNSEEN: Final = frozenset({errno.ENOENT, errno.ENOTDIR, errno.EACCES, errno.EPERM, errno.ENAMETOOLONG})
"""What was removed meanwhile, is closed, or lies deeper than a path can say."""

BLOCK_BYTES: Final = 4096
"""What the smallest file takes on the usual file systems."""

UNLIMITED: Final = 1 << 62
"""Free inodes of a file system that makes them as it needs them."""


@dataclass(frozen=True, slots=True)
class Room:
    """What an unprivileged process can still write."""

    free_bytes: int
    free_inodes: int


def room(path: str) -> Room:
    """Return what is free on the file system of `path`. Raises OSError."""
    found = os.statvfs(path)
    return Room(found.f_bavail * found.f_frsize, found.f_favail if found.f_files else UNLIMITED)


def measure(path: str, *, opening: bool = False) -> tuple[int, int]:
    """Return the bytes on disk (as `du` counts them) and the number of files of a tree, its top included.

    The tree may change meanwhile: what is gone is not counted, nor what lies in a directory of ours that is closed to
    us, unless it is opened for that: much could be hidden there.
    """
    top = os.lstat(path)
    total, inodes = top.st_blocks * 512, 1
    if not os.path.isdir(path) or os.path.islink(path):  # noqa: PTH112, PTH114 - many files, few objects
        return total, inodes
    stack = [path]
    while stack:
        for entry in _entries(stack.pop(), opening=opening):
            try:
                found = entry.stat(follow_symlinks=False)
            except OSError as error:
                if error.errno in _UNSEEN:
                    continue
                raise
            total += found.st_blocks * 512
            inodes += 1
            if entry.is_dir(follow_symlinks=False):
                stack.append(entry.path)
    return total, inodes


def _entries(directory: str, *, opening: bool) -> Iterator[os.DirEntry[str]]:
    try:
        if opening and not os.access(directory, os.R_OK | os.X_OK):
            _open_up(directory)
        with os.scandir(directory) as entries:
            yield from entries
    except OSError as error:
        if error.errno not in _UNSEEN:
            raise


def _open_up(directory: str) -> None:
    """Open a directory to its owner; a link in its place is not followed."""
    descriptor = os.open(directory, os.O_PATH | os.O_NOFOLLOW | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.chmod(f"/proc/self/fd/{descriptor}", 0o700)  # noqa: PTH101 - a descriptor
    finally:
        os.close(descriptor)


def sync(directory: str, *, everything: bool = False) -> None:
    """Sync a directory, or everything on its file system: thousands of files one by one would take minutes."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        if everything:
            sync_file_system(descriptor)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_file_system(descriptor: int) -> None:
    """Sync all of the file system that a descriptor is on. Raises OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.syncfs(descriptor) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
