"""Room for what grows in staging while a program of others writes it: counted, and reserved ahead of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from cache_manager import disk
from cache_manager.staging import Staging
from cache_manager.status import StatusError

Grow = Callable[[int, int], None]
"""Reserve so many bytes and files in all; raises StatusError when there is no room."""

AHEAD_BYTES: Final = (4 * 2**20, 64 * 2**20)
"""Room is reserved ahead of what was counted, by the size of the packed file system, within these bounds."""

AHEAD_FILES: Final = 200


class Growth:
    """What is in staging, and the reservation that goes ahead of it. `packed_bytes` is what is made larger there."""

    def __init__(self, staging: Staging, grow: Grow, packed_bytes: int) -> None:
        self._staging = staging
        self._grow = grow
        self._ahead = min(AHEAD_BYTES[1], max(AHEAD_BYTES[0], packed_bytes))
        self._bytes = 0
        self._files = 0

    def need(self, size_bytes: int, files: int) -> None:
        """Have at least so much reserved."""
        self._grow(size_bytes, files)
        self._bytes, self._files = size_bytes, files

    def look(self) -> None:
        """Count what is there, and reserve ahead of it. Raises StatusError when it outgrows what there is."""
        size, files = disk.measure(str(self._staging.directory), opening=True)
        self._staging.taken_bytes = size
        more_bytes = size + self._ahead // 2 > self._bytes
        more_files = files > self._files
        if not (more_bytes or more_files):
            return
        try:
            self.need(
                size + self._ahead if more_bytes else self._bytes,
                files + max(AHEAD_FILES, files // 4) if more_files else self._files,
            )
        except StatusError:
            if size > self._bytes or files > self._files:
                self.need(max(self._bytes, size), max(self._files, files))
