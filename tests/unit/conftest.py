"""What all unit tests share: how hypothesis searches, and an environment without proxies."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from tests.unit.origin import Origin

settings.register_profile(
    "unit",
    deadline=None,
    max_examples=50,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile("explore", settings.get_profile("unit"), derandomize=False, max_examples=3000)
settings.load_profile("unit")


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take the machine's proxies away: requests to loopback would be sent through them."""
    for name in list(os.environ):
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)


@pytest.fixture
def origin() -> Iterator[Origin]:
    """Give a web server on loopback."""
    one = Origin()
    yield one
    one.close()
