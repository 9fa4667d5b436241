"""Caches that dead pilots of the same user left below a directory: found by their marker, claimed by rename, removed.

Nothing here follows a symbolic link, crosses to another owner or file system, or touches a root whose lock is held.
"""

from __future__ import annotations

import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Final

from cache_manager.heartbeat import Heartbeat, Place, why_alive
from cache_manager.processes import is_alive

MARKER: Final = "manager.json"
CLAIMED: Final = ".stale-"
DEPTH: Final = 8
"""How far below the directory a cache may lie: `<pilot>/<execute>/<local>/image_cache` and some more."""

_MARKER_BYTES: Final = 65536
_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class PilotCache:
    """A cache root that a pilot left; `why_not` says why it stays, empty if it goes."""

    path: str
    size_bytes: int
    inodes: int
    host: str
    beaten_at: float
    why_not: str


class Foreign(OSError):  # noqa: N818 - a finding
    """Something below is another user's, or on another file system; the text says what."""


def find(top: str, own_root: str, here: Place, now: float) -> list[PilotCache]:
    """Return the cache roots of this user below a directory, dead or not. Raises OSError if it cannot be read."""
    with suppress(OSError):
        own_root = os.path.realpath(own_root)
    with _opened(top) as descriptor:
        return list(_search(descriptor, os.path.abspath(top), _identity_at(own_root), (here, now), DEPTH))  # noqa: PTH100


def remove(cache: PilotCache, here: Place, now: float) -> str:
    """Claim a dead pilot's cache by renaming it, and remove it. Returns why it was not removed; empty if it was.

    Everything is looked at again: the pilot's next manager, or another cleanup, may have been faster.
    """
    parent, name = os.path.split(cache.path)
    try:
        with _opened(parent) as above, _opened(name, above) as root, _locked(root):
            why = _why_alive(root, here, now)
            if why:
                return why
            _measure(root, os.fstat(root), force=True)
            claimed = f"{name.partition(CLAIMED)[0]}{CLAIMED}{os.urandom(4).hex()}"
            os.rename(name, claimed, src_dir_fd=above, dst_dir_fd=above)
            now_there = os.stat(claimed, dir_fd=above, follow_symlinks=False)
            if (now_there.st_dev, now_there.st_ino) != _identity(root):
                os.rename(claimed, name, src_dir_fd=above, dst_dir_fd=above)
                return "was replaced while it was looked at"
            _empty(root, last=MARKER)  # what remains of a removal that is cut off can still be recognised
            os.rmdir(claimed, dir_fd=above)
    except FileNotFoundError:
        return "is gone already"
    except OSError as error:
        return str(error) if isinstance(error, Foreign) else f"{error.strerror}"
    return ""


def _search(
    directory: int, path: str, own: tuple[int, int] | None, when: tuple[Place, float], depth: int
) -> Iterator[PilotCache]:
    """Yield the roots below an open directory; into a root, another's directory or a mount nothing looks."""
    try:
        with os.scandir(directory) as found:
            names = sorted(entry.name for entry in found if entry.is_dir(follow_symlinks=False))
    except OSError:
        return
    for name in names:
        with suppress(OSError), _opened(name, directory) as inner:
            state = os.fstat(inner)
            if state.st_uid != os.geteuid() or state.st_dev != os.fstat(directory).st_dev:
                continue
            below = f"{path}/{name}"
            if _identity(inner) == own:
                continue
            beat = _marker(inner)
            if beat is not None:
                yield _judge(inner, below, beat, own, when)
            elif depth > 1:
                yield from _search(inner, below, own, when, depth - 1)


def _judge(root: int, path: str, beat: Heartbeat, own: tuple[int, int] | None, when: tuple[Place, float]) -> PilotCache:
    beaten_at = os.stat(MARKER, dir_fd=root, follow_symlinks=False).st_mtime
    size, inodes = 0, 0
    why = _why_alive(root, *when)
    if not why:
        try:
            size, inodes = _measure(root, os.fstat(root), own)
            with _locked(root):
                pass
        except OSError as error:
            why = str(error) if isinstance(error, Foreign) else f"{error.strerror}"
    return PilotCache(path, size, inodes, beat.place.host, beaten_at, why)


def _why_alive(root: int, here: Place, now: float) -> str:
    beat = _marker(root)
    if beat is None:
        return "has no marker of ours any more"
    beaten_at = os.stat(MARKER, dir_fd=root, follow_symlinks=False).st_mtime
    return why_alive(beat, beaten_at, here, runs=is_alive(beat.manager), now=now)


def _marker(root: int) -> Heartbeat | None:
    """Return the marker of a cache root: a plain file of this user's, beside the directory of the images."""
    try:
        descriptor = os.open(MARKER, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=root)
    except OSError:
        return None
    try:
        state = os.fstat(descriptor)
        if not stat.S_ISREG(state.st_mode) or state.st_uid != os.geteuid():
            return None
        return Heartbeat.from_json(os.read(descriptor, _MARKER_BYTES).decode())
    except (OSError, ValueError):
        return None
    finally:
        os.close(descriptor)


@contextmanager
def _opened(name: str, above: int | None = None) -> Iterator[int]:
    """Open a directory that is none by a link. Raises OSError."""
    descriptor = os.open(name, _DIRECTORY, dir_fd=above)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def _locked(root: int) -> Iterator[None]:
    """Hold a root's lock, as its manager would. Raises OSError if somebody has it."""
    try:
        descriptor = os.open("lock", os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=root)
    except FileNotFoundError:  # a removal that was cut off took it already
        yield
        return
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Foreign("its lock is held by a manager") from None
        yield
    finally:
        os.close(descriptor)


def _identity(descriptor: int) -> tuple[int, int]:
    state = os.fstat(descriptor)
    return state.st_dev, state.st_ino


def _identity_at(path: str) -> tuple[int, int] | None:
    try:
        state = os.stat(path)  # noqa: PTH116 - of a text
    except OSError:
        return None
    return state.st_dev, state.st_ino


def _measure(
    root: int, top: os.stat_result, own: tuple[int, int] | None = None, *, force: bool = False
) -> tuple[int, int]:
    """Return the bytes on disk and the files of a tree. Raises Foreign for what is not this user's or on a mount.

    Directories that forbid it to their owner are opened by `force`; else they make the answer a little too small.
    """
    total, inodes = top.st_blocks * 512, 1
    with os.scandir(root) as found:
        names = [entry.name for entry in found]
    for name in names:
        state = os.stat(name, dir_fd=root, follow_symlinks=False)
        if state.st_uid != top.st_uid:
            raise Foreign(f"holds a file of another user ({name}, uid {state.st_uid})")
        if state.st_dev != top.st_dev:
            raise Foreign(f"holds a mounted file system ({name})")
        if (state.st_dev, state.st_ino) == own:
            raise Foreign(f"holds the cache of this EP ({name})")
        if stat.S_ISDIR(state.st_mode):
            total, inodes = total + state.st_blocks * 512, inodes + 1
            with suppress(PermissionError), (_opened_for_owner if force else _opened)(name, root) as inner:
                size, files = _measure(inner, state, own, force=force)
                total, inodes = total + size - state.st_blocks * 512, inodes + files - 1
        else:
            total, inodes = total + state.st_blocks * 512, inodes + 1
    return total, inodes


@contextmanager
def _opened_for_owner(name: str, above: int) -> Iterator[int]:
    """Open a directory, also one that forbids it to its owner: unpacked images have those."""
    try:
        descriptor = os.open(name, _DIRECTORY, dir_fd=above)
    except PermissionError:
        handle = os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=above)
        try:
            os.chmod(f"/proc/self/fd/{handle}", 0o700)  # noqa: PTH101 - by the handle, not by a name that may change
        finally:
            os.close(handle)
        descriptor = os.open(name, _DIRECTORY, dir_fd=above)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _empty(directory: int, last: str = "") -> None:
    """Remove all that is in an open directory, `last` at last."""
    with suppress(PermissionError):
        os.fchmod(directory, 0o700)
    with os.scandir(directory) as found:
        entries = sorted(found, key=lambda entry: entry.name == last)
        listed = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
    for name, is_directory in listed:
        if is_directory:
            with _opened_for_owner(name, directory) as inner:
                _empty(inner)
            os.rmdir(name, dir_fd=directory)
        else:
            os.unlink(name, dir_fd=directory)
