"""A cache of ten thousand images, and a hundred thousand leases: what an admin waits for, and what is leaked."""

from __future__ import annotations

import asyncio
import hashlib
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import Final

from rich.table import Table

from cache_manager import client, eviction
from cache_manager.cache import Cache
from cache_manager.entry import CacheEntry
from cache_manager.eviction import Cap, Usage
from cache_manager.layout import CacheLayout
from cache_manager.processes import holder
from cache_manager.settings import Settings
from cache_manager.store import Store
from tests.benchmarks.site import CHECKOUT, Site
from tests.contract.doubles import cvmfs_ad, digest, sif
from tests.pool.processes import poll

ENTRIES: Final = 10_000
LEASES: Final = 100_000
TURNS: Final = 5
IMAGE: Final = sif("scale")


def entries(count: int) -> Iterator[CacheEntry]:
    """Yield records of images, each used a second after the one before."""
    for number in range(count):
        key = hashlib.sha256(b"%d" % number).hexdigest()
        yield CacheEntry(
            f"{key}.sif", f"htc/image:{number}", f"http://origin/{number}.sif", 4096, 16384, 3, 1e9 + number
        )


def fill(root: Path) -> None:
    """Write a cache as an earlier manager left it."""
    (root / "entries").mkdir(parents=True)
    for number, entry in enumerate(entries(ENTRIES)):
        place = root / "entries" / entry.key
        place.mkdir()
        (place / "image").write_bytes(IMAGE)
        (place / "entry.json").write_text(entry.to_json(), encoding="utf-8")
        os.utime(place / "entry.json", (1e9 + number, 1e9 + number))


@contextmanager
def large_site() -> Iterator[tuple[Site, float]]:
    """Run a manager over a large cache; yields it, and the seconds from its start to its first answer to a hook."""
    with TemporaryDirectory(prefix="image-cache-scale-") as name:
        directory = Path(name)
        fill(directory / "image_cache")
        config = directory / "condor_config"
        config.write_text(
            f"LOCAL_DIR = {directory}\nLOG = {directory}\nIMAGE_CACHE_MIN_FREE_BYTES = 1 MB\n"
            f"IMAGE_CACHE_CVMFS_BASE = {directory}/cvmfs\nIMAGE_CACHE_MAX_BYTES = 100 GB\n"
        )
        environment = {**os.environ, "CONDOR_CONFIG": str(config)}
        began = time.perf_counter()
        manager = subprocess.Popen([sys.executable, "-m", "cache_manager", "serve"], cwd=CHECKOUT, env=environment)
        try:
            path = directory / "image_cache" / "socket"
            poll(path.exists, "the manager's socket", interval=0.002)
            ad = cvmfs_ad("htc/none:1").encode()
            poll(lambda: client.ask(str(path), "prepare", ad, job=len(ad), left=20), "an answer", interval=0.002)
            yield Site(directory, str(path), manager), time.perf_counter() - began
        finally:
            manager.terminate()
            manager.wait(30)


def median_ms(do: Callable[[], object], turns: int = TURNS) -> float:
    """Return how long something takes."""
    times = []
    for _ in range(turns):
        began = time.perf_counter()
        do()
        times.append(time.perf_counter() - began)
    return statistics.median(times) * 1000


def bench_scale() -> Table:
    """Measure a large cache."""
    table = Table("what", "measured", "limit", title=f"a cache of {ENTRIES:,} images")
    known = list(entries(ENTRIES))
    usage = Usage(sum(one.disk_bytes for one in known), 3 * ENTRIES)
    cap = Cap(usage.size_bytes, 0, 1 << 50)
    plan_ms = median_ms(lambda: eviction.make_room(known, frozenset(), usage, Usage(1 << 25, 3), cap))
    with large_site() as (site, first_s):
        environment = {**os.environ, "CONDOR_CONFIG": str(site.directory / "condor_config")}
        argv = [sys.executable, "-m", "cache_manager", "list", "--json"]
        list_ms = median_ms(
            lambda: subprocess.run(argv, env=environment, cwd=CHECKOUT, capture_output=True, check=True)
        )
        verb_ms = median_ms(lambda: client.ask(site.socket, "list"))
        memory_mb = site.resident_kb() / 1000
    table.add_row("start to the first answer", f"{first_s:.2f} s", "2 s")
    table.add_row("eviction plan", f"{plan_ms:.1f} ms", "50 ms")
    table.add_row("condor_image_cache list --json", f"{list_ms:.0f} ms", "500 ms")
    table.add_row("of that, the manager", f"{verb_ms:.0f} ms", "")
    table.add_row("memory", f"{memory_mb:.0f} MB", "100 MB")
    return table


def bench_leases() -> Table:
    """Take and drop leases of processes that come and go."""
    table = Table("what", "leases/s", "descriptors before", "after", title=f"{LEASES:,} leases taken and dropped")
    sleep = ["/bin/sleep", "infinity"]
    with TemporaryDirectory(prefix="image-cache-leases-") as name, subprocess.Popen(sleep) as starter:
        try:
            found = asyncio.run(_lease_and_release(Path(name) / "cache", starter.pid))
        finally:
            starter.kill()
        table.add_row("acquire, release", *found)
    return table


async def _lease_and_release(root: Path, starter: int) -> tuple[str, str, str]:
    settings = Settings.from_knobs({"IMAGE_CACHE_DIR": str(root), "LOG": str(root), "LOCAL_DIR": str(root)})
    cache = Cache(Store(CacheLayout(PurePosixPath(root))), lambda: settings, lambda: None)
    key = f"{digest(IMAGE)}.sif"
    place = root / "entries" / key
    place.mkdir(parents=True)
    (place / "image").write_bytes(IMAGE)
    record = CacheEntry(key, "htc/a:1", "http://origin/a.sif", len(IMAGE), 16384, 3, 1e9)
    (place / "entry.json").write_text(record.to_json(), encoding="utf-8")
    cache.load()
    one = holder(starter)
    if one is None:
        raise RuntimeError("no holder")
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - a number, no paths
    began = time.perf_counter()
    for number in range(LEASES):
        cache.acquire(key, one, time.time(), f"{number}.0")
        cache.leases.release(one)
    spent = time.perf_counter() - began
    after = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - the same
    if after > before:
        raise RuntimeError(f"{after - before} descriptors leaked")
    return f"{LEASES / spent:.0f}", str(before), str(after)
