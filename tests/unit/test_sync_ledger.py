"""What is told of a run while many threads tell it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from sync.catalog import Catalog
from sync.ledger import Ledger
from sync.memory import Memory


@pytest.fixture(autouse=True)
def _impatient_threads() -> Iterator[None]:
    """Have threads take turns as often as they can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def test_conversions_tell_what_they_do_from_threads_of_their_own(tmp_path: Path) -> None:
    """None of them disturbs another one, and in the end nothing is under way."""
    memory = Memory(tmp_path)
    memory.begin()
    ledger = Ledger(memory, Catalog(), lambda: 0.0)

    def convert(worker: int) -> None:
        for number in range(100):
            ledger.doing(f"ns/{worker}:{number}", "unpacking")
        for number in range(100):
            ledger.doing(f"ns/{worker}:{number}", "")

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(convert, range(4)))
    assert memory.told() == {}
