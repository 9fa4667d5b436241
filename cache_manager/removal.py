"""Removing what images unpacked to: trees of any depth, with paths of any length, that forbid it to their owner.

A directory's own directories are moved up to the top before it goes: nothing recurses, no path grows, and two files are
open at a time however deep somebody nested it. No link is followed.
"""

from __future__ import annotations

import os
import stat
from itertools import count
from pathlib import Path
from typing import Final

_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def remove(path: Path) -> None:
    """Remove a file, or a directory with all that is in it; nothing happens if it is not there. Raises OSError."""
    try:
        is_directory = stat.S_ISDIR(path.lstat().st_mode)
    except FileNotFoundError:
        return
    if not is_directory:
        path.unlink(missing_ok=True)
        return
    top = _opened(str(path))
    try:
        _empty(top)
    finally:
        os.close(top)
    path.rmdir()


def set_aside(path: Path, trash: Path) -> Path | None:
    """Take something out of sight and return its place in the trash; None if it is not there. Raises OSError."""
    target = trash / f"{path.name}-{os.urandom(4).hex()}"
    try:
        path.rename(target)
    except FileNotFoundError:
        return None
    except PermissionError:  # moving a directory writes its `..`
        path.chmod(0o700)
        path.rename(target)
    return target


def _empty(top: int) -> None:
    """Remove all that is in a directory."""
    prefix, number = os.urandom(8).hex(), count()
    waiting = _files_removed(top)
    while waiting:
        name = waiting.pop()
        directory = _opened(name, top)
        try:
            for inside in _files_removed(directory):
                _open_up(inside, directory)  # moving a directory writes its `..`
                moved = f"{prefix}-{next(number)}"
                os.rename(inside, moved, src_dir_fd=directory, dst_dir_fd=top)
                waiting.append(moved)
        finally:
            os.close(directory)
        os.rmdir(name, dir_fd=top)


def _files_removed(directory: int) -> list[str]:
    """Remove all but the directories of a directory, and return the names of those."""
    directories = []
    with os.scandir(directory) as entries:
        for entry in list(entries):
            if entry.is_dir(follow_symlinks=False):
                directories.append(entry.name)
            else:
                os.unlink(entry.name, dir_fd=directory)
    return directories


def _opened(name: str, parent: int | None = None) -> int:
    """Open a directory, and open it up if its owner may not read and write it."""
    _open_up(name, parent)
    return os.open(name, _DIRECTORY, dir_fd=parent)


def _open_up(name: str, parent: int | None) -> None:
    descriptor = os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
    try:
        found = os.fstat(descriptor)
        if stat.S_IMODE(found.st_mode) & stat.S_IRWXU != stat.S_IRWXU and found.st_uid == os.geteuid():
            os.chmod(f"/proc/self/fd/{descriptor}", stat.S_IRWXU)  # noqa: PTH101 - a descriptor
    finally:
        os.close(descriptor)
