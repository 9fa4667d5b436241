"""Room in the cache: reserved before it is used, and made from what nobody uses."""

from __future__ import annotations

import asyncio
import functools
import tempfile
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cache_manager.staging import Staging
from cache_manager.status import HookStatus, StatusError
from tests.unit.benches import LIMIT_S, Bench, child, run
from tests.unit.builders import key_of

UNIT = 100_000
"""Large beside what an entry takes for its record and its directory."""

CAP = 100 * UNIT
CAPPED = {"MAX_BYTES": "10 MB"}


def send(staging: Staging, units: int) -> None:
    """Send an image, a unit at a time."""
    for _ in range(units):
        staging.write(b"x" * UNIT)


def used(bench: Bench) -> int:
    """Return the whole units that count as used."""
    return bench.cache.usage.size_bytes // UNIT


def names(bench: Bench) -> str:
    """Return the names of the entries: `abc`."""
    return "".join(sorted(one.name for one in bench.cache.entries.values()))


def refused(bench: Bench, nonce: str, units: int, *, keeps: bool = False) -> StatusError:
    """Return why a reservation is refused, a first one or more room for one that it keeps."""
    with pytest.raises(StatusError) as caught:
        bench.cache.reserve(nonce, "htc/rocky:9", units * UNIT)
    assert (nonce in bench.cache.budget.reservations) is keeps
    return caught.value


def test_reservations_count_as_used_until_they_are_given_back(tmp_path: Path) -> None:
    """Two fetches at a time must not fill the same room; and a reservation never shrinks."""

    def test(bench: Bench) -> None:
        for units in (60, 70, 10):
            bench.cache.reserve("1", "a", units * UNIT)
        assert used(bench) == 70
        assert refused(bench, "2", 31).status is HookStatus.CACHE_FULL
        bench.cache.reserve("2", "b", 29 * UNIT)
        bench.cache.unreserve("1")
        bench.cache.unreserve("1")
        assert used(bench) == 29
        bench.cache.reserve("3", "c", 70 * UNIT)

    run(tmp_path / "cache", test, **CAPPED)


def test_what_was_not_used_longest_gives_way_and_no_more_than_that(tmp_path: Path) -> None:
    """A job waits for the room."""

    def test(bench: Bench) -> None:
        for number, name in enumerate("abc"):
            bench.put(name, 20 * UNIT, now=1000.0 + number)
        bench.cache.acquire(key_of("a"), None, 2000.0)
        bench.cache.reserve("1", "d", 50 * UNIT)
        assert names(bench) == "ac"
        assert not (bench.store.root / "entries" / key_of("b")).exists()
        assert (bench.cache.counters.evictions, bench.cache.counters.evicted_bytes // UNIT) == (1, 20)

    run(tmp_path / "cache", test, **CAPPED)


def test_an_image_in_use_is_never_evicted(tmp_path: Path) -> None:
    """The job that runs from it would die; the job that waits goes to another EP."""

    def test(bench: Bench) -> None:
        for number, name in enumerate("abc"):
            bench.put(name, 20 * UNIT, now=1000.0 + number)
        with child() as (holder, _):
            for name in "ab":
                bench.cache.acquire(key_of(name), holder, 1000.0)
            error = refused(bench, "1", 80)
            assert error.status is HookStatus.CACHE_FULL
            assert error.message.startswith(
                "htc/rocky:9: no room in the cache (wanted 8.0 MB, freed 0 B: 2.0 MB would not be enough; 4.0 MB in"
            )
            assert names(bench) == "abc"
            bench.cache.reserve("1", "d", 55 * UNIT)
            assert names(bench) == "ab"
            bench.settings = bench.settings.from_knobs({"IMAGE_CACHE_MAX_BYTES": "1 KB"})
            bench.cache.tidy(10**9)
            assert names(bench) == "ab"
            bench.cache.leases.release(holder)

    run(tmp_path / "cache", test, **CAPPED)


@pytest.mark.parametrize(("knob", "units"), [(CAPPED, 101), ({"MAX_BYTES": "10 MB", "MAX_INODES": "2"}, 1)])
def test_what_can_never_fit_evicts_nothing(tmp_path: Path, knob: dict[str, str], units: int) -> None:
    """It is said before a byte is fetched."""

    def test(bench: Bench) -> None:
        bench.settings = bench.settings.from_knobs({"IMAGE_CACHE_MAX_BYTES": "10 MB"})
        bench.put("a", 20 * UNIT)
        bench.settings = bench.settings.from_knobs({f"IMAGE_CACHE_{name}": value for name, value in knob.items()})
        error = refused(bench, "1", units)
        assert error.status is HookStatus.IMAGE_TOO_LARGE
        assert error.message.startswith("htc/rocky:9: larger than this cache may hold")
        assert names(bench) == "a"

    run(tmp_path / "cache", test, **knob)


@pytest.mark.parametrize(("free", "status"), [(51, None), (49, HookStatus.DISK_FULL), (0, HookStatus.DISK_FULL)])
def test_a_full_disk_is_told_from_a_full_cache(tmp_path: Path, free: int, status: HookStatus | None) -> None:
    """IMAGE_CACHE_MIN_FREE_BYTES stays free, whatever the cap says; an admin looks elsewhere for each."""

    def test(bench: Bench) -> None:
        bench.store.free_bytes = free * UNIT
        if status is None:
            bench.cache.reserve("1", "a", 40 * UNIT)
        else:
            error = refused(bench, "1", 40)
            assert error.status is status
            assert "the file system of the cache is full" in error.message

    run(tmp_path / "cache", test, MAX_BYTES="1 GB", MIN_FREE_BYTES="1 MB")


def test_two_fetches_do_not_count_on_the_same_free_disk(tmp_path: Path) -> None:
    """What is reserved and not yet written still looks empty; what is written is not counted twice."""

    def test(bench: Bench) -> None:
        bench.store.free_bytes = 100 * UNIT
        bench.cache.reserve("1", "a", 60 * UNIT)
        assert refused(bench, "2", 60).status is HookStatus.DISK_FULL
        staging = bench.stage("1", "a")
        staging.expect(60 * UNIT)
        send(staging, 60)
        staging.finish()
        bench.store.free_bytes = 40 * UNIT
        bench.cache.reserve("2", "b", 29 * UNIT)

    run(tmp_path / "cache", test, MAX_BYTES="1 GB", MIN_FREE_BYTES="1 MB")


@pytest.mark.parametrize("units", [40, 60, 98])
def test_an_image_of_unknown_size_may_fill_what_the_cap_leaves(tmp_path: Path, units: int) -> None:
    """Servers without a Content-Length exist: an image that fits is not refused as too large."""

    def test(bench: Bench) -> None:
        staging = bench.stage("1", "a")
        staging.expect(None)
        send(staging, units)
        staging.close()
        assert staging.size_bytes == units * UNIT
        assert bench.cache.usage.size_bytes <= CAP

    run(tmp_path / "cache", test, **CAPPED)


def test_an_image_of_unknown_size_evicts_no_more_than_it_needs(tmp_path: Path) -> None:
    """Room that is reserved ahead must not cost another image."""

    def test(bench: Bench) -> None:
        bench.put("a", 20 * UNIT)
        staging = bench.stage("1", "b")
        staging.expect(None)
        send(staging, 70)
        staging.close()
        assert names(bench) == "a"

    run(tmp_path / "cache", test, **CAPPED)


def test_an_image_of_unknown_size_ends_at_the_cap(tmp_path: Path) -> None:
    """A server that never ends must not fill the disk."""

    def test(bench: Bench) -> None:
        staging = bench.stage("1", "a")
        staging.expect(None)
        with pytest.raises(StatusError) as caught:
            send(staging, 101)
        staging.close()
        assert caught.value.status in {HookStatus.IMAGE_TOO_LARGE, HookStatus.CACHE_FULL}
        assert staging.size_bytes <= bench.cache.usage.size_bytes <= CAP

    run(tmp_path / "cache", test, **CAPPED)


@pytest.mark.parametrize("size", [CAP, CAP - 5000, CAP - 20_000])
def test_an_image_that_just_fits_does_not_burst_the_cap(tmp_path: Path, size: int) -> None:
    """Its record and its directories take room as well."""

    def test(bench: Bench) -> None:
        try:
            bench.put("a", size)
        except StatusError as error:
            if error.status is not HookStatus.IMAGE_TOO_LARGE:
                raise
        assert bench.cache.usage.size_bytes <= CAP

    run(tmp_path / "cache", test, **CAPPED)


STEP = st.tuples(
    st.sampled_from(["reserve", "unreserve", "put", "lease", "release", "tidy", "quarantine"]),
    st.integers(0, 4),
    st.integers(1, 60),
)


def do_step(bench: Bench, what: str, name: str, size: int, now: float) -> None:
    """Do what a manager does; a refusal for want of room is an answer as well."""
    known = key_of(name) in bench.cache.entries
    try:
        if what == "reserve":
            bench.cache.reserve(name, name, size)
        elif what == "put" and not known:
            bench.put(name, size, now=now)
    except StatusError as error:
        if error.status not in {HookStatus.CACHE_FULL, HookStatus.IMAGE_TOO_LARGE}:
            raise
        bench.cache.unreserve(f"put-{name}")
    if what == "unreserve":
        bench.cache.unreserve(name)
    elif what == "quarantine" and known and key_of(name) not in bench.cache.leases.in_use:
        bench.cache.quarantine(key_of(name), "does not start")
    elif what == "tidy":
        bench.cache.tidy(now + 1000)


@given(st.lists(STEP, max_size=14))
@settings(max_examples=25)
def test_whatever_happens_the_cap_holds_and_leased_images_stay(steps: list[tuple[str, int, int]]) -> None:
    """Reservations, entries and quarantine together are never more than the cap, and the disk has what is counted."""

    def test(bench: Bench) -> None:
        with child() as (holder, _):
            for number, (what, which, size) in enumerate(steps):
                do_step(bench, what, f"image{which}", size * 20_000, 1000.0 + number)
                if what == "lease" and key_of(f"image{which}") in bench.cache.entries:
                    bench.cache.acquire(key_of(f"image{which}"), holder, 1000.0 + number)
                elif what == "release":
                    bench.cache.leases.release(holder)
                assert bench.cache.usage.size_bytes <= 3_000_000
                assert bench.cache.leases.in_use <= set(bench.cache.entries)
                on_disk = {path.name for path in (bench.store.root / "entries").iterdir()}
                assert on_disk == set(bench.cache.entries)

    with tempfile.TemporaryDirectory() as root:
        run(Path(root) / "cache", test, MAX_BYTES="3 MB")


def test_what_is_in_quarantine_counts_and_goes_before_any_good_image(tmp_path: Path) -> None:
    """It is kept for an admin to look at, as long as there is room."""

    def test(bench: Bench) -> None:
        bench.put("good", 30 * UNIT, now=1000.0)
        bench.put("bad", 30 * UNIT, now=2000.0)
        bench.cache.quarantine(key_of("bad"), "does not start")
        assert (used(bench), names(bench)) == (60, "good")
        assert (bench.store.root / "quarantine" / key_of("bad") / "image").exists()
        bench.cache.reserve("1", "c", 60 * UNIT)
        assert (used(bench), names(bench)) == (90, "good")
        assert not any((bench.store.root / "quarantine").iterdir())

    run(tmp_path / "cache", test, **CAPPED)


def test_a_second_quarantine_takes_nothing_from_the_jobs_of_the_first(tmp_path: Path) -> None:
    """A directory that is removed breaks the job that runs in it; both count, and outlive a restart."""

    def test(bench: Bench) -> None:
        places = [bench.store.root / "quarantine" / f"{key_of('bad')}{end}" for end in ("", ".2", ".3")]
        with child() as (holder, _):
            for place in places:
                bench.put("bad", 20 * UNIT)
                bench.cache.acquire(key_of("bad"), holder, 1000.0)
                bench.cache.quarantine(key_of("bad"), "does not start")
                assert (place / "image").exists()
            assert used(bench) == 60
            bench.cache.load()
            assert (used(bench), len(bench.cache.quarantined)) == (60, 3)
            assert not bench.cache.empty_quarantine()
            bench.cache.leases.release(holder)
        assert bench.cache.empty_quarantine([places[1].name])
        assert [place.exists() for place in places] == [True, False, True]
        bench.put("bad", 20 * UNIT)
        bench.cache.quarantine(key_of("bad"), "does not start")  # in place of the first
        assert used(bench) == 40
        assert bench.cache.empty_quarantine()
        assert not any(place.exists() for place in places)

    run(tmp_path / "cache", test, **CAPPED)


@pytest.mark.parametrize(
    ("put", "now", "left"),
    [("abc", 5000.0, "abc"), ("abcd", 5000.0, "bcd"), ("abcd", 1100.0, "abcd"), ("abcd", 1121.0, "bcd")],
    ids=["below", "above", "young", "the first is old enough"],
)
def test_background_eviction_goes_from_the_high_watermark_to_the_low_one(
    tmp_path: Path, put: str, now: float, left: str
) -> None:
    """Four of 20 are above 75, three below 65; what is younger than IMAGE_CACHE_MIN_AGE stays."""

    def test(bench: Bench) -> None:
        for number, name in enumerate(put):
            bench.put(name, 20 * UNIT, now=1000.0 + number)
        bench.cache.tidy(now)
        assert names(bench) == left

    run(tmp_path / "cache", test, **CAPPED, HIGH_WATERMARK="75", LOW_WATERMARK="65", MIN_AGE="2m")


def test_what_is_given_up_counts_until_it_is_gone(tmp_path: Path) -> None:
    """A large image takes its time to be removed: what needs its room waits for that, and evicts no more meanwhile."""

    async def test(bench: Bench) -> None:
        for number, name in enumerate("ab"):
            bench.put(name, 40 * UNIT, now=1000.0 + number)
        may_go = threading.Event()
        bench.store.before_removal = functools.partial(may_go.wait, LIMIT_S)
        bench.cache.reserve("1", "c", 50 * UNIT)
        waiting = asyncio.ensure_future(bench.cache.room.removed("1"))
        bench.cache.reserve("2", "d", 5 * UNIT)
        await asyncio.wait([waiting], timeout=0.1)
        assert not waiting.done()
        assert names(bench) == "b"
        may_go.set()
        await asyncio.wait_for(waiting, LIMIT_S)
        assert not any((bench.store.root / "trash").iterdir())
        await bench.cache.room.removed("2")

    run(tmp_path / "cache", test, **CAPPED)


def test_what_cannot_be_removed_is_tried_again(tmp_path: Path) -> None:
    """It counts as long as it is there."""

    async def test(bench: Bench) -> None:
        bench.put("a", 60 * UNIT)
        fails = True

        def fail() -> None:
            if fails:
                raise OSError(5, "Input/output error")

        bench.store.before_removal = fail
        bench.cache.reserve("1", "b", 60 * UNIT)
        assert await bench.cache.room.removed("1")
        assert refused(bench, "1", 61, keeps=True).status is HookStatus.CACHE_FULL
        bench.cache.unreserve("1")
        fails = False
        bench.cache.room.keep_free(2000.0)
        bench.cache.reserve("2", "c", 60 * UNIT)
        assert not await bench.cache.room.removed("2")
        assert not any((bench.store.root / "trash").iterdir())

    run(tmp_path / "cache", test, **CAPPED)


@pytest.mark.parametrize(("inodes", "status"), [(11, None), (10, HookStatus.DISK_FULL)])
def test_a_file_system_without_inodes_is_full(tmp_path: Path, inodes: int, status: HookStatus | None) -> None:
    """Leases and records need some as well."""

    def test(bench: Bench) -> None:
        bench.store.free_inodes = inodes
        if status is None:
            bench.cache.reserve("1", "a", UNIT)
            return
        error = refused(bench, "1", 1)
        assert error.status is status
        assert f"the file system of {bench.store.root} has no inodes left (wanted 3, 10 free)" in error.message

    run(tmp_path / "cache", test)


def test_others_who_fill_the_disk_get_room_from_what_nobody_uses(tmp_path: Path) -> None:
    """In the background; what is younger than IMAGE_CACHE_MIN_AGE stays, and so does what is enough."""

    def test(bench: Bench) -> None:
        for number, name in enumerate("abcd"):
            bench.put(name, 10 * UNIT, now=1000.0 + number)
        with child() as (holder, _):
            bench.cache.acquire(key_of("a"), holder, 1000.0)
            bench.store.free_bytes = 95 * UNIT
            bench.cache.room.keep_free(1001.5 + 120)
            assert names(bench) == "acd"
            bench.store.free_bytes = 0
            bench.cache.room.keep_free(10_000.0)
            assert names(bench) == "a"
            bench.cache.leases.release(holder)

    run(tmp_path / "cache", test, MAX_BYTES="1 GB", MIN_FREE_BYTES="10 MB", MIN_AGE="2m")


def test_an_evicted_images_records_go_with_it(tmp_path: Path) -> None:
    """They take room as well; what a pointer pointed to stays known."""

    async def test(bench: Bench) -> None:
        one = bench.put("a", 10 * UNIT)
        bench.cache.objects.remember("pointer x", {"kind": "pointer", "url": "x", "digest": one.digest})
        assert len(bench.cache.objects) == 2
        bench.cache.reserve("1", "b", 95 * UNIT)
        assert [record["kind"] for record in bench.cache.objects.by_name.values()] == ["pointer"]
        assert len(list((bench.store.root / "objects").iterdir())) == 1

    run(tmp_path / "cache", test, **CAPPED)
