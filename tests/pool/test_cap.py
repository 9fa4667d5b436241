"""The caps, measured by the kernel: on a file system of its own every block and file counts, at every moment."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contract import storm
from tests.contract.harness import Site
from tests.contract.origin import Origin
from tests.pool.alone import write_runtime
from tests.pool.processes import make_directory


@pytest.fixture
def disk() -> Iterator[Path]:
    """Mount a disk far larger than the cap."""
    place = make_directory(Path("/pool/cap"), None)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256m,mode=755", "cap", place], check=True)
    yield place
    subprocess.run(["umount", "-l", place], check=True)


def test_the_caps_hold_at_every_moment(disk: Path, tmp_path: Path) -> None:
    """No walk through a tree that changes: what the file system has given away."""

    def given_away() -> storm.Taken:
        found = os.statvfs(disk)
        return (found.f_blocks - found.f_bfree) * found.f_frsize, found.f_files - found.f_ffree - 1

    here = {"IMAGE_CACHE_DIR": str(disk / "cache"), "IMAGE_CACHE_RUNTIME": str(write_runtime(tmp_path))}
    with Origin() as origin, Site(tmp_path, storm.knobs(origin) | here) as site:
        site.start()
        ads = storm.publish(origin)
        sampler, jobs = storm.Sampler(), storm.Storm()
        with sampler.running(given_away):
            jobs.blow(site, ads)
        sampler.judge()
        assert {code for codes in jobs.codes.values() for code in codes} <= {0, 420}
