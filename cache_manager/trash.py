"""What was given up and is being removed, in threads: out of sight already, and counted until it is gone."""

from __future__ import annotations

import asyncio
import functools
import logging
import os
from collections.abc import Iterable
from pathlib import Path

from cache_manager import scan
from cache_manager.eviction import Usage, sum_of
from cache_manager.store import Store

log = logging.getLogger(__name__)


class Trash:
    """The trash of one root. Only the loop's thread calls this."""

    def __init__(self, store: Store) -> None:
        self.removals: set[asyncio.Future[None]] = set()
        """Under way."""
        self.stuck: set[Path] = set()
        """What could not be removed: it counts, and is tried again."""
        self._store = store
        self._taken: dict[Path, Usage] = {}

    def load(self) -> None:
        """Find what is there: what nobody removes now is stuck. Raises OSError."""
        self.stuck = {path for path in self._store.trashed() if path not in self._taken or path in self.stuck}
        self._taken = {path: one for path, one in self._taken.items() if os.path.lexists(path)}
        self._taken |= {path: Usage(*scan.taken(path)) for path in self.stuck}

    @property
    def going(self) -> Usage:
        """What is being removed: as good as free."""
        return sum_of(one for path, one in self._taken.items() if path not in self.stuck)

    @property
    def staying(self) -> Usage:
        """What could not be removed."""
        return sum_of(self._taken.get(path, Usage(0, 1)) for path in self.stuck)

    def retry(self) -> None:
        """Try again to remove what could not be removed."""
        self.remove_later(sorted(self.stuck))

    def remove_later(self, trashed: Iterable[Path]) -> None:
        """Remove in a thread what is out of sight already. It counts until it is gone."""
        for path in trashed:
            try:
                self._taken[path] = Usage(*scan.taken(path))
            except OSError:
                self._taken[path] = Usage(0, 1)  # the removal tells what is wrong
            self.stuck.discard(path)
            removal = asyncio.get_running_loop().run_in_executor(None, self._store.remove, path)
            self.removals.add(removal)
            removal.add_done_callback(functools.partial(self._was_removed, path))

    def _was_removed(self, path: Path, removal: asyncio.Future[None]) -> None:
        self.removals.discard(removal)
        error = None if removal.cancelled() else removal.exception()
        if error is None or not os.path.lexists(path):
            self._taken.pop(path, None)
        else:
            log.error("cannot remove %s: %s", path, error)
            self.stuck.add(path)
