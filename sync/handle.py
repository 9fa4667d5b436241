"""A directory that is open, and what is made in it by name: no path is ever looked up, and no link followed."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping
from typing import Final

from sync.model import Node

_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW_FILE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_ZEROS: Final = memoryview(bytes(2**20))
_KEPT_XATTRS: Final = (b"user.", b"security.capability")
"""Others are of a host (SELinux), or of the file system that the image was made on."""


class Directory:
    """A directory of the tree: its node, and a descriptor that is closed with the last reference to this."""

    __slots__ = ("fd", "node")

    def __init__(self, node: Node, fd: int) -> None:
        self.node = node
        self.fd = fd

    def __del__(self) -> None:
        os.close(self.fd)

    def open(self, name: bytes) -> Directory:
        """Open a directory in it."""
        return Directory(self.node.children[name], os.open(name, _DIRECTORY, dir_fd=self.fd))

    def create(self, name: bytes) -> int:
        """Return the descriptor of a new file."""
        return os.open(name, _NEW_FILE, 0o600, dir_fd=self.fd)


def open_top(path: bytes, node: Node) -> Directory:
    """Open the top of a tree."""
    return Directory(node, os.open(path, _DIRECTORY))


def write(fd: int, content: Iterator[memoryview]) -> bytes:
    """Write a file, and return the binary sha256 of its bytes."""
    summed = hashlib.sha256()
    for piece in content:
        summed.update(piece)
        _write_all(fd, piece)
    return summed.digest()


def write_sparse(
    fd: int, size: int, parts: list[tuple[int, int]], content: Iterator[memoryview], check: Callable[[], None]
) -> bytes:
    """Write the parts of a file where they belong, and return the sha256 of all of it: holes count as zeros."""
    summed, at, piece = hashlib.sha256(), 0, memoryview(b"")
    for offset, length in [*parts, (size, 0)]:
        for hole in range(at, offset, len(_ZEROS)):
            check()
            summed.update(_ZEROS[: min(offset - hole, len(_ZEROS))])
        os.lseek(fd, offset, os.SEEK_SET)
        at = offset
        while at < offset + length:
            piece = piece or next(content)
            one, piece = piece[: offset + length - at], piece[offset + length - at :]
            summed.update(one)
            _write_all(fd, one)
            at += len(one)
    os.ftruncate(fd, size)
    return summed.digest()


def set_xattrs(fd: int, xattrs: Mapping[bytes, bytes]) -> int:
    """Set what is of use to who runs the image, as far as this user may; return how many could not be set."""
    refused = 0
    for key, value in xattrs.items():
        if key.startswith(_KEPT_XATTRS):
            try:
                os.setxattr(fd, key, value)
            except OSError:  # not this user's to set, or not on this file system
                refused += 1
    return refused


def _write_all(fd: int, piece: memoryview) -> None:
    while piece:
        piece = piece[os.write(fd, piece) :]
