"""A cache on a real directory, with a disk as large as a test wants it."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Final

from cache_manager import processes
from cache_manager.cache import Cache
from cache_manager.disk import Room
from cache_manager.entry import CacheEntry
from cache_manager.layout import CacheLayout
from cache_manager.lease import Holder
from cache_manager.outcome import Located
from cache_manager.staging import Staging
from cache_manager.store import Store
from tests.unit.builders import entry, knobs, sif_header

FREE: Final = 10**15
LIMIT_S: Final = 30.0
"""Longer than anything takes: a condition that does not come true by then never does."""


class RoomyStore(Store):
    """A store whose file system has as much room as it is told."""

    free_bytes = FREE
    free_inodes = 10**9

    before_removal: Callable[[], object] = staticmethod(lambda: None)
    """Takes a while, or fails, as a test wants it."""

    def remove(self, trashed: Path) -> None:
        """Remove what was given up."""
        self.before_removal()
        super().remove(trashed)

    def room(self) -> Room:
        """Return what is free."""
        return Room(self.free_bytes, self.free_inodes)


class Bench:
    """A cache to be tested: real files, a clock that stands still, and an event for each change."""

    def __init__(self, root: Path, **settings: str) -> None:
        self.store = RoomyStore(CacheLayout(PurePosixPath(root)))
        self.settings = knobs(**({"MIN_FREE_BYTES": "0 B"} | settings))
        self._changed = asyncio.Event()
        self.now = 10_000.0
        self.suspects: list[str] = []
        self.cache = Cache(
            self.store, lambda: self.settings, self._changed.set, self.suspects.append, clock=lambda: self.now
        )
        self.cache.load()

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait for changes of the cache until a condition holds."""
        async with asyncio.timeout(LIMIT_S):
            while not condition():
                self._changed.clear()
                await self._changed.wait()

    def stage(self, nonce: str, name: str) -> Staging:
        """Open a place for an image, as a fetch does."""
        return self.store.stage(nonce, lambda total: self.cache.reserve(nonce, name, total))

    def put(self, name: str, size: int = 1000, *, now: float = 1000.0, url: str = "") -> CacheEntry:
        """Bring an image in, as a fetch does: reserved, written, committed, added."""
        nonce = f"put-{name}"
        self.cache.reserve(nonce, name, size)
        staging = self.stage(nonce, name)
        header = sif_header(data_bytes=size - 713) if size >= 713 else b""
        staging.write(header + b"\xa5" * (size - len(header)))
        staging.finish()

        def describe(disk_bytes: int, inodes: int) -> CacheEntry:
            return entry(name, size=size, disk=disk_bytes, inodes=inodes, created_at=now)

        committed = self.store.commit(staging, describe)
        self.cache.add(committed, Located(url=url or committed.origin), now)
        self.cache.unreserve(nonce)
        return committed

    async def settle(self) -> None:
        """Wait until everything that was given up is removed."""
        await asyncio.gather(*self.cache.trash.removals)

    def close(self) -> None:
        """End what is still watched."""
        for holder in list(self.cache.leases):
            self.cache.leases.release(holder)


@contextmanager
def child() -> Iterator[tuple[Holder, subprocess.Popen[bytes]]]:
    """Give a process that runs until it is killed, as a starter does."""
    with subprocess.Popen([sys.executable, "-IS", "-c", "input()"], stdin=subprocess.PIPE) as process:
        try:
            holder = processes.holder(process.pid)
            assert holder is not None
            yield holder, process
        finally:
            process.kill()


def run(root: Path, test: Callable[[Bench], object], **settings: str) -> None:
    """Run a test on a cache, within a loop."""

    async def within() -> None:
        bench = Bench(root, **settings)
        try:
            result = test(bench)
            if asyncio.iscoroutine(result):
                await result
            await bench.settle()
        finally:
            bench.close()

    asyncio.run(within())
