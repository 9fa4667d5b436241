"""kill -9 of the manager under load: thirty seeds here, a thousand in the benchmarks."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.contract.conftest import StartSite
from tests.contract.kills import KNOBS, SANDBOX_KNOBS, Siege, serve, write_runtime
from tests.contract.origin import Origin


@pytest.mark.parametrize(("tens", "unpacks"), [(0, False), (1, True), (2, False)])
def test_a_manager_killed_under_load_loses_nothing(
    make_site: StartSite, origin: Origin, tmp_path: Path, tens: int, *, unpacks: bool
) -> None:
    """Every job gets its image, every listed image is whole, the accounting is the disk's, each lease has its job.

    On an EP that runs SIFs, and on one that runs directories only; pins that were confirmed stay, with their images.
    """
    serve(origin)
    extra = SANDBOX_KNOBS | {"IMAGE_CACHE_RUNTIME": write_runtime(tmp_path)} if unpacks else {}
    site = make_site(**KNOBS | extra, IMAGE_CACHE_SIF_SOURCES=f"{origin.url}/v2").start()
    siege = Siege(site, origin)
    for seed in range(tens * 10, tens * 10 + 10):
        siege.round(seed)
    assert siege.kills == 10
    assert siege.answered > 30
    assert siege.errands
    assert (siege.directories > 0) is unpacks
