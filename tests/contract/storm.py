"""Many jobs at once, for images that together are far too large for the cache; and a sampler of what it takes."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tests.contract import holders
from tests.contract.doubles import cvmfs_ad, image_ad, sif, tree
from tests.contract.harness import Site
from tests.contract.origin import Origin, Reply
from tests.contract.processes import PATIENCE_S
from tests.pool.processes import poll

IMAGES: Final = 40
HELD: Final = 3
CAP_BYTES: Final = 8_000_000
CAP_INODES: Final = 60
FULL: Final = 420
ONE_WRITE: Final = 256 * 1024

Taken = tuple[int, int]
"""Bytes on disk, and files."""


def knobs(origin: Origin) -> dict[str, str]:
    """Return the configuration of the site."""
    return {
        "IMAGE_CACHE_MAX_BYTES": str(CAP_BYTES),
        "IMAGE_CACHE_MAX_INODES": str(CAP_INODES),
        "IMAGE_CACHE_MIN_AGE": "0s",
        "IMAGE_CACHE_CVMFS_BASE": "/nonexistent",
        "IMAGE_CACHE_SIF_SOURCES": f"{origin.url}/v2",
    }


def size_of(number: int) -> int:
    """Return the size of an image: from 100 kB to 2 MB."""
    return 100_000 + number * 37 % IMAGES * 47_000


def publish(origin: Origin) -> list[str]:
    """Serve the images, their size told by a manifest, by HEAD, or not at all; return the ads of jobs for them."""
    ads = []
    for number in range(IMAGES):
        body = sif(f"storm {number}", size_of(number))
        if number % 3 == 0:
            origin.serve(tree(f"htc/storm:{number}", body))
            ads.append(cvmfs_ad(f"htc/storm:{number}"))
        else:
            origin.routes[f"/{number}.sif"] = Reply(body, length=-1 if number % 3 == 1 else None)
            ads.append(image_ad(f"{origin.url}/{number}.sif"))
    return ads


@dataclass
class Storm:
    """What became of the jobs: the answers that each got, until it ran."""

    codes: dict[int, list[int]] = field(default_factory=dict)
    held: list[holders.Starter] = field(default_factory=list)

    def blow(self, site: Site, ads: list[str]) -> None:
        """Have all ask at once, and whoever finds no room again when another has ended."""
        under_way = dict(enumerate(holders.start(site, ad) for ad in ads))
        while under_way:
            number, starter = poll(lambda: _answered(under_way), "an answer", PATIENCE_S)
            code = starter.answer().code
            self.codes.setdefault(number, []).append(code)
            if code == 0 and len(self.held) < HELD:
                self.held.append(starter)
            else:
                starter.end()
            del under_way[number]
            if code == FULL:
                under_way[number] = holders.start(site, ads[number])


def _answered(under_way: dict[int, holders.Starter]) -> tuple[int, holders.Starter] | None:
    return next(((number, one) for number, one in under_way.items() if one.output.exists()), None)


def du(root: Path) -> Taken:
    """Return what a tree takes, each file once, though it is renamed meanwhile."""
    found: dict[int, int] = {}
    stack = [root]
    while stack:
        try:
            status = os.lstat(stack[-1])
            path = stack.pop()
            found[status.st_ino] = status.st_blocks * 512
            if path.is_dir():
                stack.extend(path.iterdir())
        except OSError:  # it went meanwhile
            stack = [one for one in stack if one.exists()]
    return sum(found.values()), len(found)


def twice(root: Path) -> Taken:
    """Return what a tree takes at least: a walk sees what goes and what comes at its place, and no moment."""
    one, other = du(root), du(root)
    return min(one[0], other[0]), min(one[1], other[1])


@dataclass
class Sampler:
    """The most that was seen, and how often it was looked."""

    most_bytes: int = 0
    most_inodes: int = 0
    samples: int = 0

    @contextmanager
    def running(self, measure: Callable[[], Taken]) -> Iterator[None]:
        """Look ten times a second."""
        ended = threading.Event()

        def sample() -> None:
            while not ended.wait(0.1):
                size, inodes = measure()
                self.most_bytes, self.most_inodes = max(self.most_bytes, size), max(self.most_inodes, inodes)
                self.samples += 1

        thread = threading.Thread(target=sample)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()

    def judge(self) -> None:
        """Assert that the caps held."""
        assert self.samples > 0
        assert self.most_bytes <= CAP_BYTES + ONE_WRITE, self
        assert self.most_inodes <= CAP_INODES + 1, self  # the socket is removed and made
