"""Reading whole entries back: for `verify`, and slowly in the background. What differs goes into quarantine.

When an entry was last read is kept in memory: after a start all are read again, oldest first. An entry that was just
fetched counts as not read, because what reached the disk has not been seen yet.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import time
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import PurePosixPath
from typing import Any, Final

from cache_manager.cache import Cache
from cache_manager.entry import CacheEntry
from cache_manager.questions import Question
from cache_manager.readback import Reading, Stopped
from cache_manager.selection import select
from cache_manager.settings import Settings
from cache_manager.text import human_bytes

log = logging.getLogger(__name__)

AGAIN_S: Final = 86400.0
"""An entry is read in the background at most once in this time."""

NEVER: Final = float("-inf")
STEP_S: Final = 0.5
NICEST: Final = 19


def oldest_verified(entries: Iterable[CacheEntry], verified: Mapping[str, float], now: float) -> CacheEntry | None:
    """Return the entry that was not read for longest; None if all were read in the last AGAIN_S."""
    due = [one for one in entries if now - verified.get(one.key, NEVER) >= AGAIN_S]
    return min(due, key=lambda one: (verified.get(one.key, NEVER), one.created_at, one.key), default=None)


class Scrubber:
    """Reads entries back, one at a time. Lives on the loop; the reading is done by a thread of the lowest priority."""

    def __init__(self, cache: Cache, settings: Callable[[], Settings], clock: Callable[[], float] = time.time) -> None:
        self.verified_at: dict[str, float] = {}
        """When each entry was last found to be whole."""
        self.reading: Reading | None = None
        """What the scrub reads now."""
        self.findings = 0
        self.read_bytes = 0
        self._cache = cache
        self._settings = settings
        self._clock = clock
        self._thread = ThreadPoolExecutor(1, "scrub", initializer=_be_nice)

    async def run(self) -> None:
        """Read what is due, until nothing is, or until IMAGE_CACHE_SCRUB_RATE is 0."""
        while self._settings().scrub_rate_bytes:
            cache = self._cache
            self.verified_at = {key: at for key, at in self.verified_at.items() if key in cache.entries}
            entry = oldest_verified(cache.entries.values(), self.verified_at, self._clock())
            if entry is None:
                return
            # pages of an image that jobs run from now are wanted where they are
            drop = entry.key not in cache.leases.in_use
            self.reading = self._reading(entry, lambda: self._settings().scrub_rate_bytes or None, drop_pages=drop)
            try:
                why = await self.read(self.reading, self._thread)
            except Stopped:
                return
            finally:
                self.reading = None
            if entry.key in cache.entries:  # also a bad one that could not be moved: another look tomorrow
                self.verified_at[entry.key] = self._clock()
            else:
                self.findings += bool(why)

    async def read(self, reading: Reading, thread: Executor | None = None) -> str:
        """Read an entry in a thread; why it differs, empty if it does not. What differs goes into quarantine.

        Raises Stopped. When this is cancelled, the reading ends.
        """
        key = reading.entry.key
        try:
            why = await asyncio.get_running_loop().run_in_executor(thread, reading.run)
        except FileNotFoundError:
            if key in self._cache.entries and self._cache.store.image_bytes(key) < 0:
                self._cache.quarantine(key, "its image is gone")
                return "its image is gone"
            return ""  # evicted meanwhile
        finally:
            reading.stop.set()
            self.read_bytes += reading.done_bytes
        if not why:
            self.verified_at[key] = self._clock()
        elif self._cache.entries.get(key) == reading.entry:
            self._cache.quarantine(key, why)
        return why

    def close(self) -> None:
        """End the reading."""
        if self.reading is not None:
            self.reading.stop.set()

    async def verify(self, question: Question) -> AsyncGenerator[dict[str, Any]]:
        """Answer the verb: read the entries that are named, or all; progress, then the results."""
        cache = self._cache
        refs = question.words("refs")
        chosen = [one for ref in refs for one in select(ref, cache.entries.values(), cache.pins.all())]
        entries = list({one.key: one for one in (chosen if refs else cache.entries.values())}.values())
        results: list[dict[str, Any]] = []
        of_bytes = sum(one.size_bytes for one in entries if one.format == "sif")
        done_bytes, began = 0, time.monotonic()
        for entry in entries:
            if entry.key not in cache.entries:
                continue
            reading = self._reading(entry, lambda: 0, drop_pages=entry.key not in cache.leases.in_use)
            task = asyncio.ensure_future(self.read(reading))
            try:
                while not (await asyncio.wait({task}, timeout=STEP_S))[0]:
                    yield {
                        "name": entry.shown,
                        "bytes": done_bytes + reading.done_bytes,
                        "of_bytes": of_bytes,
                        "seconds": time.monotonic() - began,
                    }
                why = task.result()
            finally:  # who asked may be gone
                reading.stop.set()
                task.cancel()
            done_bytes += reading.done_bytes
            log.info("verified %s: %s (%s)", entry.key, why or "whole", human_bytes(reading.done_bytes))
            results.append(_result(entry, reading, why))
        yield {"done": True, "results": results, "bytes": done_bytes, "seconds": time.monotonic() - began}

    def _reading(self, entry: CacheEntry, rate: Callable[[], int | None], *, drop_pages: bool) -> Reading:
        directory = PurePosixPath(self._cache.store.layout.image(entry.key)).parent
        return Reading(entry, str(directory), rate, drop_pages=drop_pages)


def _result(entry: CacheEntry, reading: Reading, why: str) -> dict[str, Any]:
    return {
        "key": entry.key,
        "name": entry.shown,
        "format": entry.format,
        "whole": not why,
        "why": why,
        "bytes": reading.done_bytes,
        "seconds": round(reading.seconds, 3),
    }


def _be_nice() -> None:
    """Give this thread the lowest priority, which the disk's scheduler follows too."""
    os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICEST)
