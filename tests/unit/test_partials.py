"""What an earlier manager began to fetch: it counts, makes room for whatever is needed, and does not stay for ever."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from cache_manager import processes, reconcile
from cache_manager.partial import Partial
from cache_manager.reconcile import DiskState
from cache_manager.sources.base import Known
from cache_manager.staging import KEPT_BYTES
from tests.unit.benches import Bench, run
from tests.unit.builders import BOOT

SIZE = 4 * KEPT_BYTES
HERE = KEPT_BYTES + 5
ROOM = {"MAX_BYTES": "8 MiB"}


def begin(bench: Bench, name: str = "object", here: int = HERE) -> None:
    """Have a manager begin a fetch, and end."""
    staging = bench.store.stage(f"1-{name}", lambda _: None)
    staging.keep(name, processes.boot_id(), is_proven=False)
    staging.note(Known(SIZE, '"one"'))
    staging.write(b"\xa5" * here)
    staging.close()
    bench.cache.load()


def staged(bench: Bench) -> list[str]:
    """Return what is in staging."""
    return sorted(path.name for path in (bench.store.root / "staging").iterdir())


def test_what_is_here_counts_until_it_is_gone_on_with(tmp_path: Path) -> None:
    """As the reservation of whoever takes it up, with its bytes, its digest and what is known of it."""

    def test(bench: Bench) -> None:
        begin(bench)
        assert HERE <= bench.cache.usage.size_bytes < HERE + 4096
        partial = bench.cache.take_partial("object", "joe")
        assert partial is not None
        assert bench.cache.take_partial("object", "joe") is None
        assert bench.cache.budget.reservations["1-object"].owner == "joe"
        bench.cache.load()  # as for a root that comes back: it is not taken for what somebody left
        assert bench.cache.partials == {}
        staging = bench.store.take_up(partial, lambda _: None)
        assert (staging.size_bytes, staging.known) == (HERE, Known(SIZE, '"one"'))
        staging.write(b"\xa5" * (SIZE - HERE))
        other = bench.store.stage("2-2", lambda _: None)
        other.write(b"\xa5" * SIZE)
        assert staging.finish() == other.finish()
        bench.cache.unreserve("1-object")

    run(tmp_path / "cache", test)


def test_of_an_image_that_is_all_here_the_end_is_asked_for_again(tmp_path: Path) -> None:
    """That shows that it is still the same."""

    def test(bench: Bench) -> None:
        begin(bench, here=SIZE)
        partial = bench.cache.take_partial("object", "")
        assert partial is not None
        assert bench.store.take_up(partial, lambda _: None).size_bytes == SIZE - 1

    run(tmp_path / "cache", test)


@pytest.mark.parametrize(("size", "stays"), [(4 << 20, True), (7 << 20, False)])
def test_it_goes_before_anything_else_does(tmp_path: Path, size: int, *, stays: bool) -> None:
    """No image that is good is given up for it."""

    async def test(bench: Bench) -> None:
        kept = bench.put("rocky", 4096)
        begin(bench)
        bench.cache.reserve("2-2", "htc/new:1", size)
        assert (staged(bench) == ["1-object"]) == stays
        assert (set(bench.cache.partials) == {"object"}) == stays
        assert set(bench.cache.entries) == {kept.key}
        await bench.settle()

    run(tmp_path / "cache", test, **ROOM)


@pytest.mark.parametrize("room", ["cap", "disk"])
def test_it_is_not_kept_where_there_is_no_room_for_it(tmp_path: Path, room: str) -> None:
    """The cap may be smaller now, or the disk fuller."""

    async def test(bench: Bench) -> None:
        if room == "disk":
            bench.store.free_bytes = -1
        begin(bench, here=3 * KEPT_BYTES)
        assert bench.cache.partials == {}
        assert bench.cache.usage.size_bytes == 0
        assert staged(bench) == []
        await bench.settle()

    run(tmp_path / "cache", test, **({"MAX_BYTES": "1 MiB"} if room == "cap" else {}))


def test_it_is_given_up_when_nobody_comes_for_it(tmp_path: Path) -> None:
    """In the time that a hook has."""

    async def test(bench: Bench) -> None:
        begin(bench)
        bench.cache.tidy(bench.now + 60)
        assert staged(bench) == ["1-object"]
        bench.cache.tidy(bench.now + 61)
        assert staged(bench) == []
        assert bench.cache.usage.size_bytes == 0
        await bench.settle()

    run(tmp_path / "cache", test, HOOK_DEADLINE="60 s")


PARTIAL = Partial("1-1", "a", 100, '"one"', BOOT, 10)


@pytest.mark.parametrize(
    ("found", "kept"),
    [
        ([PARTIAL], {"1-1"}),
        ([PARTIAL, replace(PARTIAL, nonce="1-2", size_bytes=20)], {"1-2"}),
        ([PARTIAL, replace(PARTIAL, nonce="1-2", name="b")], {"1-1", "1-2"}),
        ([replace(PARTIAL, boot_id="another")], set()),
        ([replace(PARTIAL, boot_id="")], set()),
    ],
    ids=["one", "two of the same", "two", "of another boot", "of no boot"],
)
def test_a_start_keeps_the_most_of_each_object(found: list[Partial], kept: set[str]) -> None:
    """And empties staging of all else."""
    state = DiskState((), {}, ("1-1", "1-2", "9-9"), (), {}, partials=tuple(found))
    repair = reconcile.plan(state, frozenset(), BOOT)
    assert {one.nonce for one in repair.partials} == kept
    assert set(repair.leftovers) == {"1-1", "1-2", "9-9"} - kept


@pytest.mark.parametrize(
    ("known", "is_proven", "kept"),
    [
        (Known(SIZE, '"one"'), False, True),
        (Known(SIZE), True, True),
        (Known(SIZE), False, False),
        (Known(None, '"one"'), False, False),
        (Known(SIZE, '"one"', as_it_is=False), False, False),
        (Known(KEPT_BYTES - 1, '"one"'), False, False),
    ],
    ids=["an ETag", "a digest", "neither", "no size", "from an encoding", "small"],
)
def test_only_what_can_be_gone_on_with_outlives_its_manager(
    tmp_path: Path, known: Known, *, is_proven: bool, kept: bool
) -> None:
    """The rest would be fetched again anyway."""

    def test(bench: Bench) -> None:
        staging = bench.store.stage("1-1", lambda _: None)
        staging.keep("object", "boot", is_proven=is_proven)
        staging.note(known)
        assert not staging.is_kept
        staging.write(b"x")
        assert staging.is_kept == kept
        staging.restart()
        assert not staging.is_kept
        assert list(staging.directory.iterdir()) == []

    run(tmp_path / "cache", test)
