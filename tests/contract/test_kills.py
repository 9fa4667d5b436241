"""kill -9 of the manager under load: thirty seeds here, a thousand in the benchmarks."""

from __future__ import annotations

import pytest

from tests.contract.conftest import StartSite
from tests.contract.kills import KNOBS, Siege, serve
from tests.contract.origin import Origin


@pytest.mark.parametrize("tens", range(3))
def test_a_manager_killed_under_load_loses_nothing(make_site: StartSite, origin: Origin, tens: int) -> None:
    """Every job gets its image, every listed image is whole, the accounting is the disk's, each lease has its job."""
    serve(origin)
    site = make_site(**KNOBS, IMAGE_CACHE_SIF_SOURCES=f"{origin.url}/v2").start()
    siege = Siege(site, origin)
    for seed in range(tens * 10, tens * 10 + 10):
        siege.round(seed)
    assert siege.kills == 10
    assert siege.answered > 30
