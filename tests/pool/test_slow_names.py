"""Names that no resolver answers: whoever names such servers waits, and nobody else does."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.contract.doubles import cvmfs_ad, image_ad, sif
from tests.contract.harness import Site
from tests.contract.origin import Origin, Reply
from tests.contract.test_starving import attack
from tests.pool.resolver import silent_resolver

SLOW: Final = image_ad("http://slow@N@.example/x.sif").replace('"joe"', '"eve"')
SOON: Final = ("--deadline", "15s")
"""A name takes minutes."""


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """Start a manager where no name is answered."""
    runtime = tmp_path / "apptainer"
    runtime.write_text("#!/bin/sh\n[ $2 != exec ] || exit 37\n")  # runs whatever it is asked to
    runtime.chmod(0o755)
    knobs = {"IMAGE_CACHE_SIF_SOURCES": "http://tree.example/v2", "IMAGE_CACHE_RUNTIME": str(runtime)}
    with silent_resolver(), Site(tmp_path / "site", knobs) as one:
        one.cvmfs.publish("htc/rocky:9")
        yield one.start()


def test_names_that_nobody_resolves_keep_no_other_job_waiting(site: Site) -> None:
    """Two hundred names of one owner; another's images come from CVMFS and from a server that needs no resolver."""
    with Origin() as origin, attack(site, "asking", 200, SLOW, os.geteuid()):
        origin.routes |= {f"/{number}.sif": Reply(sif(f"{number}")) for number in range(3)}
        for number in range(3):
            assert site.run_hook(cvmfs_ad("htc/rocky:9"), *SOON).code == 0
            answer = site.run_hook(image_ad(f"{origin.url}/{number}.sif"), *SOON)
            assert answer.code == 0, answer.message


def test_who_names_such_a_server_goes_back_to_idle(site: Site) -> None:
    """In time, and without a hold."""
    answer = site.run_hook(SLOW.replace("@N@", "0"), "--deadline", "5s")
    assert answer.code == 460, answer.message


def test_a_tree_that_nobody_resolves_keeps_no_image_of_cvmfs_waiting(site: Site) -> None:
    """The site's own source may be the one."""
    with attack(site, "asking", 100, cvmfs_ad("htc/other:@N@"), os.geteuid()):
        assert site.run_hook(cvmfs_ad("htc/rocky:9").replace('"joe"', '"amy"'), *SOON).code == 0
