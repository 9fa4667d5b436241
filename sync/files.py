"""Files that are whole or not there, whatever ends the process: made beside their place, synced, and renamed into it.

What a process that was killed leaves begins with TEMPORARY; whoever holds the publisher's lock may remove it.
"""

from __future__ import annotations

import errno
import hashlib
import os
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, Final

from cache_manager import disk, removal

TEMPORARY: Final = ".new-"
FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
"""What a file system says that has no room left."""

_BLOCK: Final = 1 << 20


class Differs(Exception):  # noqa: N818 - a finding
    """What was read is not what it was said to be."""


def temporary(path: Path) -> Path:
    """Return a name beside `path` under which nothing is published."""
    return path.with_name(f"{TEMPORARY}{os.urandom(8).hex()}")


def write_whole(path: Path, content: bytes, mode: int = 0o644) -> None:
    """Put a small file in place of what is there, if anything. Raises OSError."""
    fresh = temporary(path)
    try:
        _write(fresh, content, mode)
        fresh.rename(path)
    except OSError:
        with suppress(OSError):
            fresh.unlink(missing_ok=True)
        raise
    sync_directory(path.parent)


def _write(path: Path, content: bytes, mode: int) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        view = memoryview(content)
        while view:
            view = view[os.write(descriptor, view) :]
        os.fchmod(descriptor, mode)  # whatever the umask
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def copy_whole(source: Path, path: Path, sha256: str, mode: int = 0o644) -> None:
    """Copy a file to where none is yet, and read its digest on the way.

    Raises FileExistsError, Differs if the digest is not `sha256`, and any other OSError.
    """
    if os.path.lexists(path):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))
    fresh = temporary(path)
    try:
        with source.open("rb") as stream:
            _copy(stream, fresh, mode, sha256)
        fresh.rename(path)
    except (OSError, Differs):
        with suppress(OSError):
            fresh.unlink(missing_ok=True)
        raise
    sync_directory(path.parent)


def _copy(stream: BinaryIO, path: Path, mode: int, sha256: str) -> None:
    digest = hashlib.sha256()
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        while block := stream.read(_BLOCK):
            digest.update(block)
            view = memoryview(block)
            while view:
                view = view[os.write(descriptor, view) :]
        os.fchmod(descriptor, mode)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    if digest.hexdigest() != sha256:
        raise Differs(f"{stream.name}: its sha256 is {digest.hexdigest()}, not {sha256}")


def place_link(path: Path, target: str) -> None:
    """Make `path` a symbolic link in place of the one that is there, if any. Raises OSError."""
    fresh = temporary(path)
    fresh.symlink_to(target)
    try:
        fresh.rename(path)
    except OSError:
        with suppress(OSError):
            fresh.unlink(missing_ok=True)
        raise
    sync_directory(path.parent)


def make_directories(path: Path) -> None:
    """Make a directory and those above it, so that a power loss does not take them. Raises OSError."""
    missing = []
    while not path.is_dir():
        missing.append(path)
        path = path.parent
    for one in reversed(missing):
        one.mkdir(exist_ok=True)
        sync_directory(one.parent)


def sync_directory(path: Path) -> None:
    """Have what was renamed into a directory, or removed from it, survive a power loss."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_file_system(path: Path) -> None:
    """Have all that was written to a file system survive a power loss: cheaper than each file of a tree."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        disk.sync_file_system(descriptor)
    finally:
        os.close(descriptor)


def remove_leftovers(directory: Path) -> None:
    """Remove what killed processes left in a directory."""
    with suppress(FileNotFoundError):
        for path in list(directory.iterdir()):
            if path.name.startswith(TEMPORARY):
                removal.remove(path)
