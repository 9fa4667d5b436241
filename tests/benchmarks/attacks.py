"""One user attacks, another one's job asks for its image: how long that takes."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from rich.table import Table

from cache_manager import client
from tests.benchmarks.site import CHECKOUT, Site, job_ad
from tests.contract.test_starving import GROWS, LARGE, LASTS, OTHER

PROGRAM: Final = CHECKOUT / "tests" / "contract" / "attack.py"
JOBS: Final = 100

PILOT: Final = os.geteuid()
"""The victim's own uid, as in a pilot: another user's ads are refused before anything is evaluated."""

ATTACKS: Final[tuple[tuple[str, str, int, bytes, int], ...]] = (
    ("1,000 idle connections", "idle", 1000, b"", OTHER),
    ("1,000 that send a byte now and then", "slow", 1000, b"", OTHER),
    ("1,000 with half a body", "half a body", 1000, b"", OTHER),
    ("200 half-closed, again and again", "half-closed", 200, b"", OTHER),
    ("1,000 that never read", "deaf", 1000, b"", OTHER),
    ("500 that ask for an image, again and again", "asking", 500, job_ad(), OTHER),
    ("the same with the same uid", "asking", 500, job_ad(), PILOT),
    ("500 that ask what would be done", "explaining", 500, job_ad(), OTHER),
    ("200 ads of 1 MB, same uid", "asking", 200, LARGE.encode(), PILOT),
    ("200 expressions that take minutes, same uid", "asking", 200, LASTS.encode(), PILOT),
    ("200 expressions that take all memory, same uid", "asking", 200, GROWS.encode(), PILOT),
)


@contextmanager
def attacked(here: Site, kind: str, count: int, ad: bytes, uid: int) -> Iterator[None]:
    """Have a user attack within this block."""
    argv = [sys.executable, "-IS", str(PROGRAM), str(uid), here.socket, kind, str(count)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            if process.stdin is None or process.stdout is None:
                raise RuntimeError("no pipes")
            process.stdin.write(ad)
            process.stdin.close()
            process.stdout.readline()
            yield
        finally:
            process.kill()


def victim_ms(here: Site) -> list[float]:
    """Return how long each of some jobs takes to get its image."""
    times = []
    ad = job_ad()
    for _ in range(JOBS):
        began = time.perf_counter()
        block = client.ask(here.socket, "prepare", ad, job=len(ad), left=60)
        times.append((time.perf_counter() - began) * 1000)
        if b"HookStatusCode = 0\n" not in block:
            raise RuntimeError(f"answer: {block!r}")
        time.sleep(0.01)
    return times


def bench_attacks(here: Site) -> Table:
    """Ask while another user attacks; the attacker's own processor time is on the same machine."""
    table = Table("attack", "victim's median ms", "worst ms", title=f"{JOBS} jobs of one user while another attacks")
    for name, kind, count, ad, uid in (("none", "idle", 0, b"", OTHER), *ATTACKS):
        with attacked(here, kind, count, ad, uid):
            times = victim_ms(here)
        table.add_row(name, f"{statistics.median(times):.1f}", f"{max(times):.1f}")
    return table
