"""The root as a whole: taken by one manager, looked at while that runs, and taken again when it comes back."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Final

from filelock import FileLock, Timeout

from cache_manager.status import HookStatus, StatusError
from cache_manager.store import Store

_Identity = tuple[int, int]


class TakenError(Exception):
    """Another manager has the root."""


class Root:
    """One root, and the lock that says whose it is. A running manager never makes a root that vanished anew."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._path: Final = str(store.root)
        self._lock = FileLock(str(store.layout.lock), mode=0o644)
        self._identity: tuple[_Identity | None, _Identity | None] = (None, None)
        self._mount = ""

    @property
    def is_ours(self) -> bool:
        """Whether what lies there is what was taken, by inode."""
        return self._lock.is_locked and self._identity == self._found()

    def take(self) -> None:
        """Make what is missing in it, and lock it. Raises TakenError, StatusError, OSError."""
        self._refuse_vanished()
        self._store.prepare()
        if not self.is_ours:
            self.let_go()
        if not self._lock.is_locked:
            try:
                self._lock.acquire(timeout=0)
            except Timeout:
                raise TakenError(f"cache {self._path}: another manager has it") from None
        self._identity = self._found()
        self._mount = _mount_point(self._path)

    def look(self) -> None:
        """Raise StatusError when it cannot be used, without writing to it."""
        try:
            self._refuse_vanished()
        except StatusError:
            self.let_go()  # an open file would keep a file system that is being unmounted
            raise
        self._store.check()

    def let_go(self) -> None:
        """Unlock it."""
        with suppress(OSError):  # it may be gone
            self._lock.release()

    def _refuse_vanished(self) -> None:
        if not self._mount:  # never taken
            return
        if not os.path.ismount(self._mount):
            why = f"its file system is not mounted ({self._mount})"
        elif not os.path.isdir(self._path):  # noqa: PTH112
            why = "is gone (moved away or removed): make it again, or restart the cache manager"
        else:
            return
        raise StatusError(HookStatus.CACHE_UNUSABLE, f"cache directory {self._path}: {why}")

    def _found(self) -> tuple[_Identity | None, _Identity | None]:
        return _identity(self._path), _identity(self._lock.lock_file)


def _identity(path: str) -> _Identity | None:
    try:
        found = os.lstat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _mount_point(path: str) -> str:
    """Return where the file system of a directory is mounted."""
    here = Path(path)
    while not here.is_mount() and here != here.parent:
        here = here.parent
    return str(here)
