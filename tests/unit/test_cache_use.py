"""The order of use, whatever the clock says; and images that come in once more."""

from __future__ import annotations

from pathlib import Path

import pytest

from cache_manager.outcome import Located
from cache_manager.status import HookStatus, StatusError
from tests.unit.benches import Bench, run
from tests.unit.builders import entry, key_of


def test_a_clock_that_is_set_back_makes_nothing_old_that_is_used(tmp_path: Path) -> None:
    """Images that nobody uses go first, whatever the clock said when they were used; also after a restart."""

    def test(bench: Bench) -> None:
        for number, name in enumerate("abc"):
            bench.put(name, 300_000, now=100_000.0 + 100 * number)
        bench.cache.acquire(key_of("a"), None, 50_000.0)
        bench.cache.acquire(key_of("b"), None, 50_010.0)
        for again in (False, True):
            if again:
                bench.cache.load()
            order = sorted(bench.cache.entries.values(), key=lambda one: one.last_used_at)
            assert [one.name for one in order] == ["c", "a", "b"]
            assert [round(one.last_used_at) for one in order] == [49_999, 50_000, 50_010]

    run(tmp_path / "cache", test)


@pytest.mark.parametrize("goes", ["evicted", "quarantined"])
def test_an_image_that_goes_while_it_comes_in_once_more_is_not_listed(tmp_path: Path, goes: str) -> None:
    """Else jobs would get a path where nothing is, and its room would never be free again."""

    def test(bench: Bench) -> None:
        bench.put("a")
        staging = bench.stage("1-2", "a")
        staging.write(b"x" * 1000)
        staging.finish()
        committed = bench.store.commit(staging, lambda disk, inodes: entry("a", disk=disk, inodes=inodes))
        if goes == "evicted":
            bench.cache.give_up([committed.key])
        else:
            bench.cache.quarantine(committed.key, "does not start")
        with pytest.raises(StatusError, match="a: was given up while it came in once more") as caught:
            bench.cache.add(committed, Located(url="x"), 1000.0)
        assert caught.value.status is HookStatus.CACHE_FULL
        assert not bench.cache.entries

    run(tmp_path / "cache", test)
