"""A cache that unpacks SIFs with the real tools: `python -m tests.pool.unpacking ROOT CAP FILES SIF...`.

It is run as root and as an ordinary user. Prints, as JSON, what became of each image and the most that the file system
of ROOT had to take meanwhile.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import threading
import time
from pathlib import Path, PurePosixPath
from typing import Any, Final

from cache_manager.abilities import Abilities
from cache_manager.cache import Cache
from cache_manager.fetcher import Fetcher, Wanted
from cache_manager.layout import CacheLayout
from cache_manager.outcome import Located
from cache_manager.runner import Runner
from cache_manager.runtime import Runtime
from cache_manager.settings import Settings
from cache_manager.sources.transport import Patience
from cache_manager.sources.tree import Tree
from cache_manager.status import StatusError
from cache_manager.store import Store
from cache_manager.unpacker import Unpacker

RUNTIME: Final = "/usr/bin/apptainer"


class Gauge:
    """Reads the file system's own count again and again: it misses nothing that lies anywhere in it."""

    def __init__(self, root: str) -> None:
        self._root = root
        self._before = self._used()
        self.most_bytes = 0
        self._ends = threading.Event()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _used(self) -> int:
        found = os.statvfs(self._root)
        return (found.f_blocks - found.f_bfree) * found.f_frsize

    def _read(self) -> None:
        while not self._ends.wait(0.005):
            self.most_bytes = max(self.most_bytes, self._used() - self._before)

    def end(self) -> int:
        """Return the most that was used."""
        self._ends.set()
        self._thread.join()
        return self.most_bytes


async def fetched(fetcher: Fetcher, sif: str) -> dict[str, Any]:
    """Return what became of one image."""
    tree = Tree("file:///nowhere", "x86_64", Patience(10**9, 60.0))
    began = time.monotonic()
    try:
        entry = await fetcher.fetch(
            Wanted(Path(sif).stem, Located(url=f"file://{sif}"), tree, unpack=True), None, "1.0"
        )
    except StatusError as error:
        found: dict[str, Any] = {"status": error.status.code, "message": error.message, "key": ""}
    else:
        found = {"status": 0, "message": "", "key": entry.key, "disk_bytes": entry.disk_bytes, "inodes": entry.inodes}
    return found | {"seconds": time.monotonic() - began}


async def run(root: str, cap: str, files: str, sifs: list[str]) -> dict[str, Any]:
    """Fetch one after the other."""
    knobs = {"IMAGE_CACHE_DIR": root, "IMAGE_CACHE_MAX_BYTES": cap, "IMAGE_CACHE_MAX_INODES": files}
    settings = Settings.from_knobs(knobs | {"IMAGE_CACHE_MIN_FREE_BYTES": "0"})
    layout = CacheLayout(PurePosixPath(root))
    cache = Cache(Store(layout), lambda: settings, lambda: None)
    cache.load()
    unpacker = Unpacker(Runtime(lambda: RUNTIME, "", str(layout.runtime)), lambda: settings)
    able = Abilities(RUNTIME, can_use_sif=False, can_use_sandbox=True)
    fetcher = Fetcher(cache, Runner(lambda: able, lambda _: "", unpacker.unpack))
    gauge = Gauge(root)
    images = [await fetched(fetcher, sif) for sif in sifs]
    most = gauge.end()
    while cache.trash.removals:
        await asyncio.gather(*cache.trash.removals)
    return {
        "images": images,
        "most_bytes": most,
        "staging": os.listdir(layout.staging),  # noqa: PTH208 - names
        "trash": os.listdir(layout.trash),  # noqa: PTH208 - names
        "used_bytes": cache.usage.size_bytes,
    }


if __name__ == "__main__":
    os.umask(0o022)
    print(json.dumps(asyncio.run(run(sys.argv[1], sys.argv[2], sys.argv[3], sys.argv[4:]))))  # noqa: T201 - its answer
