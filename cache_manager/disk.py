"""Bytes and inodes: what a tree takes, and what the file system still has."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

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


def measure(path: str) -> tuple[int, int]:
    """Return the bytes on disk (as `du` counts them) and the number of files of a tree, its top included.

    The tree may change meanwhile: what is gone is not counted, nor what lies in a directory that is not open to us yet.
    """
    top = os.lstat(path)
    total, inodes = top.st_blocks * 512, 1
    if not os.path.isdir(path) or os.path.islink(path):  # noqa: PTH112, PTH114 - many files, few objects
        return total, inodes
    stack = [path]
    while stack:
        for entry in _entries(stack.pop()):
            try:
                found = entry.stat(follow_symlinks=False)
            except FileNotFoundError:
                continue
            total += found.st_blocks * 512
            inodes += 1
            if entry.is_dir(follow_symlinks=False):
                stack.append(entry.path)
    return total, inodes


def _entries(directory: str) -> Iterator[os.DirEntry[str]]:
    try:
        with os.scandir(directory) as entries:
            yield from entries
    except (FileNotFoundError, PermissionError):
        return
