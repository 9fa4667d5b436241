"""The digest of a file that is being written, by a thread that follows: on the way of the bytes it would slow them.

What was written is read back from the page cache: nothing waits in memory, and what was begun earlier is as good.
"""

from __future__ import annotations

import hashlib
import os
import threading
from typing import Final

PIECE_BYTES: Final = 256 * 1024
STEP_BYTES: Final = 4 << 20
"""It is woken when so much is new, and not for less: a piece at a time the two would wait for each other."""

INLINE_BYTES: Final = 1 << 20
"""Up to here a thread costs more than it saves."""

BEHIND_BYTES: Final = 128 << 20
"""It may be so far behind the writing, which then waits: what the page cache has dropped would be read twice."""


class Follower:
    """The sha256 of a file that grows. All but what it runs itself is for the thread that writes the file.

    It reads by the writer's own descriptor: the file's directory may be away for a moment.
    """

    def __init__(self) -> None:
        self._descriptor = -1
        self._digest = hashlib.sha256()
        self._written = 0
        self._done = 0
        self._behind = BEHIND_BYTES
        self._wakes_at = INLINE_BYTES
        self._over = False
        self._error: OSError | None = None
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None

    def follow(self, descriptor: int) -> None:
        """Say what file it is, before its first byte; it stays open until `close` or `hexdigest`."""
        self._descriptor = descriptor

    def begin(self, total: int) -> None:
        """Say how long the file is that was begun earlier; waits for nothing."""
        self._behind += total
        self.wrote(total)

    def wrote(self, total: int) -> None:
        """Say how long the file is by now; waits where that is far ahead."""
        self._written = total
        if total < self._wakes_at:
            return
        self._wakes_at = total + STEP_BYTES
        with self._changed:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="digest", daemon=True)
                self._thread.start()
            self._changed.notify_all()
            while total - self._done > self._behind and self._error is None:
                self._changed.wait()

    def hexdigest(self) -> str:
        """Return the digest of all that was written. Raises OSError. No more can be written then."""
        if self._thread is None:
            self._run_to(self._written)
        self._end(now=False)
        if self._error is not None:
            raise self._error
        return self._digest.hexdigest()

    def close(self) -> None:
        """End the thread, wherever it is."""
        self._end(now=True)

    def _end(self, *, now: bool) -> None:
        if self._thread is not None:
            with self._changed:
                self._over = True
                if now:
                    self._written = min(self._written, self._done)
                self._changed.notify_all()
            self._thread.join()

    def _run(self) -> None:
        try:
            while end := self._wait():
                self._run_to(end)
        except OSError as error:
            with self._changed:
                self._error = error
                self._changed.notify_all()

    def _wait(self) -> int:
        """Wait for more to do, and say how far to go; 0 when all is done."""
        with self._changed:
            self._changed.notify_all()
            while self._done >= self._written and not self._over:
                self._changed.wait()
            return min(self._written, self._done + STEP_BYTES) if self._done < self._written else 0

    def _run_to(self, end: int) -> None:
        if self._done >= end:
            return
        view = memoryview(bytearray(PIECE_BYTES))
        while (left := min(end, self._written) - self._done) > 0:
            count = os.preadv(self._descriptor, [view[:left]], self._done)
            if not count:
                raise OSError("the image has become shorter")
            self._digest.update(view[:count])
            self._done += count
