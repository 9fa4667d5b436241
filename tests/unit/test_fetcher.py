"""Single flight: however many wait, one fetch, and a lease for each who still waits."""

from __future__ import annotations

import asyncio
import hashlib
import threading
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from cache_manager.entry import CacheEntry
from cache_manager.fetcher import Fetcher, Flight, Wanted
from cache_manager.outcome import FAILURE_MAX_S, FAILURE_TTL_S, Absent, Answer, Denied, FetchError, Located, Unwell
from cache_manager.reference import ImageReference
from cache_manager.runner import Runner
from cache_manager.sources.base import Sink, SourceError
from cache_manager.sources.sums import sum_of
from cache_manager.status import HookStatus, StatusError
from tests.unit.benches import LIMIT_S, Bench, child, run
from tests.unit.builders import sif_file

IMAGE = sif_file()
URL = "https://o.example/x.sif"
OVER = Unwell(HookStatus.SOURCE_UNREACHABLE, "expired", of_credential=True)


class Source:
    """Brings what it was told to bring, one part after the other, and waits between them if it was told so."""

    def __init__(self, *images: bytes, fails: Absent | Denied | Unwell | None = None) -> None:
        self.images = list(images or [IMAGE])
        self.fails = fails
        self.transfers = 0
        self.says: int | None = None
        self.has_begun = threading.Event()
        self.may_end = threading.Event()
        self.may_end.set()

    def locate(self, image: ImageReference) -> Answer:
        """Nobody asks."""
        raise AssertionError(image)

    def transfer(self, located: Located, sink: Sink) -> None:
        """Bring the next image; the last is brought again and again."""
        self.transfers += 1
        if self.fails is not None:
            raise SourceError(self.fails)
        data = self.images.pop(0) if len(self.images) > 1 else self.images[0]
        sink.expect(self.says or located.size_bytes)
        sink.write(data[:200])
        self.has_begun.set()
        assert self.may_end.wait(LIMIT_S)
        sink.write(data[200:])


class Endless(Source):
    """Does not say where its images end."""

    def transfer(self, located: Located, sink: Sink) -> None:
        """Bring it."""
        sink.end_is_told = False
        super().transfer(located, sink)


def wanted(source: Source, located: Located | None = None, *, own_url: bool = False) -> Wanted:
    """Return a wish for an image."""
    return Wanted("htc/rocky:9", located or Located(url=URL), source, own_url=own_url)


def fly(tmp_path: Path, test: Callable[[Bench, Fetcher], Coroutine[Any, Any, None]], why_not: str = "") -> None:
    """Run a test with a fetcher."""

    async def within(bench: Bench) -> None:
        fetcher = Fetcher(bench.cache, Runner(why_not=lambda _: why_not), lambda: bench.now)
        await test(bench, fetcher)
        assert bench.cache.budget.reservations == {}
        assert not any((bench.store.root / "staging").iterdir())

    run(tmp_path / "cache", within)


async def begun(source: Source, fetcher: Fetcher) -> Flight:
    """Wait until a transfer is in its middle."""
    assert await asyncio.to_thread(source.has_begun.wait, LIMIT_S)
    (flight,) = fetcher.flights.values()
    return flight


async def leave(waiting: asyncio.Task[CacheEntry]) -> None:
    """Have a job give up, and what follows from that."""
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    for _ in range(3):
        await asyncio.sleep(0)


async def failure(fetcher: Fetcher, one: Wanted) -> StatusError:
    """Return how a fetch fails."""
    with pytest.raises(StatusError) as caught:
        await fetcher.fetch(one, None, "1.0")
    return caught.value


def test_all_who_wait_get_one_fetch_and_a_lease_each(tmp_path: Path) -> None:
    """Sixteen jobs start on a slot with the same image."""

    async def test(bench: Bench, fetcher: Fetcher) -> None:
        source = Source()
        with child() as (one, _), child() as (other, _):
            entries: list[CacheEntry] = await asyncio.gather(
                *(fetcher.fetch(wanted(source), holder, "1.0") for holder in (one, other, one, None))
            )
            assert source.transfers == 1
            assert {found.digest for found in entries} == {hashlib.sha256(IMAGE).hexdigest()}
            assert set(bench.cache.leases) == {one, other}
            assert bench.cache.find(Located(url=URL)) == entries[0]
            for holder in (one, other):
                bench.cache.leases.release(holder)

    fly(tmp_path, test)


@pytest.mark.parametrize("fails", [Denied("403"), OVER], ids=["refused", "expired"])
@pytest.mark.parametrize(("first", "second"), [(True, True), (True, False), (False, True)])
def test_what_another_was_refused_is_asked_for_by_ones_own_right(
    tmp_path: Path, fails: Denied | Unwell, *, first: bool, second: bool
) -> None:
    """Both wait for one fetch: the first one's credential, or that it had none, is not the other's refusal."""

    async def test(bench: Bench, fetcher: Fetcher) -> None:
        del bench
        refused, accepted = Source(fails=fails), Source()
        one = asyncio.create_task(failure(fetcher, wanted(refused, Located(url=URL, private=first), own_url=True)))
        await asyncio.sleep(0)
        entry = await fetcher.fetch(wanted(accepted, Located(url=URL, private=second), own_url=True), None, "2.0")
        assert (await one).status is not HookStatus.OK
        assert (refused.transfers, accepted.transfers) == (1, 1)
        assert entry.closed is second

    fly(tmp_path, test)


def test_a_job_that_gives_up_leaves_the_fetch_to_the_next(tmp_path: Path) -> None:
    """Its interest ends, and it gets no lease; the image comes."""

    async def test(bench: Bench, fetcher: Fetcher) -> None:
        source = Source()
        source.may_end.clear()
        with child() as (leaving, _), child() as (staying, _):
            first = asyncio.create_task(fetcher.fetch(wanted(source), leaving, "1.0"))
            second = asyncio.create_task(fetcher.fetch(wanted(source), staying, "2.0"))
            await asyncio.sleep(0)
            (state,) = fetcher.under_way()
            assert (state["name"], state["waiting"]) == ("htc/rocky:9", 2)
            first.cancel()
            with pytest.raises(asyncio.CancelledError):
                await first
            source.may_end.set()
            await second
            assert set(bench.cache.leases) == {staying}
            bench.cache.leases.release(staying)

    fly(tmp_path, test)


@pytest.mark.parametrize(("size", "dropped"), [(400, False), (401, True), (None, True)])
def test_a_fetch_for_which_nobody_comes_is_finished_or_dropped_by_how_much_is_here(
    tmp_path: Path, size: int | None, *, dropped: bool
) -> None:
    """Dropped, it leaves nothing, is not remembered as a failure, and the next job has it fetched anew."""

    async def test(bench: Bench, _: Fetcher) -> None:
        source = Source()
        source.says = size
        source.may_end.clear()
        fetcher = Fetcher(bench.cache, clock=lambda: bench.now, patience_s=lambda: 0.0)
        first = asyncio.create_task(fetcher.fetch(wanted(source), None, "1.0"))
        flight = await begun(source, fetcher)
        await leave(first)
        assert flight.dropped == dropped
        second = asyncio.create_task(fetcher.fetch(wanted(source), None, "2.0"))
        source.may_end.set()
        await second
        assert source.transfers == 1 + dropped
        assert fetcher.failed() == []

    fly(tmp_path, test)


def test_a_fetch_for_which_somebody_comes_again_goes_on(tmp_path: Path) -> None:
    """However little of it is here: a slow network brings it in the end, job after job."""

    async def test(bench: Bench, _: Fetcher) -> None:
        source = Source()
        source.may_end.clear()
        fetcher = Fetcher(bench.cache, clock=lambda: bench.now, patience_s=lambda: 0.0)
        first = asyncio.create_task(fetcher.fetch(wanted(source), None, "1.0"))
        flight = await begun(source, fetcher)
        second = asyncio.create_task(fetcher.fetch(wanted(source), None, "2.0"))
        await leave(first)
        assert not flight.dropped
        source.may_end.set()
        await second
        assert source.transfers == 1

    fly(tmp_path, test)


class Promising(Source):
    """Says what the sum of its image is."""

    def __init__(self, *images: bytes, of: bytes) -> None:
        super().__init__(*images)
        self.sum = sum_of("crc32c", [of])

    def transfer(self, located: Located, sink: Sink) -> None:
        """Bring it."""
        sink.came_from.add(located.url)
        super().transfer(located, sink)
        sink.promised = lambda: self.sum


FLIPPED = IMAGE[:-1] + bytes([IMAGE[-1] ^ 1])
"""A SIF by its structure, and not the one that was published."""


@pytest.mark.parametrize(
    ("images", "transfers"),
    [([IMAGE], 1), ([FLIPPED, IMAGE], 2), ([FLIPPED], 2), ([b"<html>" + b" " * 500], 2)],
    ids=["good", "good at last", "bad", "a proxy's page"],
)
def test_what_differs_from_the_servers_sum_is_fetched_once_more(
    tmp_path: Path, images: list[bytes], transfers: int
) -> None:
    """Where no manifest promises a digest, it is the server's that counts: also its own URL holds no job for that."""

    async def test(_: Bench, fetcher: Fetcher) -> None:
        source = Promising(*images, of=IMAGE)
        if images[-1] == IMAGE:
            entry = await fetcher.fetch(wanted(source), None, "1.0")
            assert entry.digest == hashlib.sha256(IMAGE).hexdigest()
        else:
            error = await failure(fetcher, wanted(source, own_url=True))
            assert error.status is HookStatus.IMAGE_CORRUPT
            assert f"{URL}: {sum_of('crc32c', images[-1:])} came, the server promised" in error.message
        assert source.transfers == transfers

    fly(tmp_path, test)


@pytest.mark.parametrize(
    ("located", "bad", "own"),
    [
        (Located(url=URL), b"<html>" + b" " * 500, HookStatus.IMAGE_FILE_INVALID),
        (Located(url=URL), IMAGE[:-1], HookStatus.IMAGE_FILE_INVALID),
        (Located(url=URL, digest="ab" * 32), IMAGE, HookStatus.IMAGE_CORRUPT),
        (Located(url=URL, size_bytes=len(IMAGE) + 1), IMAGE, HookStatus.IMAGE_CORRUPT),
    ],
    ids=["a web page", "truncated", "another digest", "another size"],
)
@pytest.mark.parametrize("own_url", [True, False])
def test_a_wrong_image_is_tried_twice_and_blamed_on_who_named_it(
    tmp_path: Path, located: Located, bad: bytes, own: HookStatus, *, own_url: bool
) -> None:
    """A user's own URL that names no image holds the job; what is not as promised is corrupt: it goes back to idle."""

    async def test(bench: Bench, fetcher: Fetcher) -> None:
        source = Source(bad)
        error = await failure(fetcher, wanted(source, located, own_url=own_url))
        assert error.status is (own if own_url else HookStatus.IMAGE_CORRUPT)
        assert error.message.startswith(f"{URL}: ")
        assert source.transfers == 2
        assert bench.cache.entries == {}

    fly(tmp_path, test)


def test_the_second_attempt_may_bring_the_right_image(tmp_path: Path) -> None:
    """A transfer may be damaged once."""

    async def test(bench: Bench, fetcher: Fetcher) -> None:
        found = await fetcher.fetch(wanted(Source(b"damaged" * 100, IMAGE)), None, "1.0")
        assert bench.cache.store.is_whole(found)

    fly(tmp_path, test)


@pytest.mark.parametrize(
    ("answer", "own_url", "status"),
    [
        (Denied("d"), True, HookStatus.IMAGE_ACCESS_DENIED),
        (Denied("d"), False, HookStatus.SOURCE_UNREACHABLE),
        (Absent("a", authoritative=True), True, HookStatus.IMAGE_NOT_PUBLISHED),
        (Absent("a"), False, HookStatus.SOURCE_UNREACHABLE),
        (Unwell(HookStatus.SOURCE_THROTTLED, "u"), True, HookStatus.SOURCE_THROTTLED),
        (Unwell(HookStatus.SOURCE_TOO_SLOW, "u"), False, HookStatus.SOURCE_TOO_SLOW),
    ],
)
def test_a_failed_object_is_not_asked_for_again_at_once(
    tmp_path: Path, answer: Absent | Denied | Unwell, status: HookStatus, *, own_url: bool
) -> None:
    """Its origin sees one request a minute, however many jobs try; then it is asked again."""

    async def test(bench: Bench, fetcher: Fetcher) -> None:
        source = Source(fails=answer)
        for _ in range(3):
            assert (await failure(fetcher, wanted(source, own_url=own_url))).status is status
        assert source.transfers == 1
        assert len(fetcher.failed()) == 1
        bench.now += FAILURE_TTL_S + 1
        source.fails = None
        await fetcher.fetch(wanted(source, own_url=own_url), None, "1.0")
        assert fetcher.failed() == []

    fly(tmp_path, test)


@pytest.mark.parametrize(
    ("said_s", "remembered_s"), [(5.0, 5.0), (600.0, 600.0), (1e9, FAILURE_MAX_S), (None, FAILURE_TTL_S)]
)
def test_a_source_that_says_when_it_is_asked_again_then(
    tmp_path: Path, said_s: float | None, remembered_s: float
) -> None:
    """Not before, but for a wait that nobody can mean; who asks meanwhile learns how long it is."""

    async def test(bench: Bench, fetcher: Fetcher) -> None:
        source = Source(fails=Unwell(HookStatus.SOURCE_THROTTLED, "429", retry_after_s=said_s))
        await failure(fetcher, wanted(source))
        bench.now += remembered_s - 2
        error = await failure(fetcher, wanted(source))
        assert isinstance(error, FetchError)
        assert error.retry_after_s == (None if said_s is None else 2)
        assert "asked again in 2 s" in error.message
        assert source.transfers == 1
        bench.now += 2
        await failure(fetcher, wanted(source))
        assert source.transfers == 2

    fly(tmp_path, test)


@pytest.mark.parametrize("own_url", [True, False])
@pytest.mark.parametrize(("bad", "is_cut"), [(IMAGE[:-1], True), (IMAGE[:700], True), (b"<html>" * 99, False)])
def test_an_end_that_nobody_told_may_be_a_cut_connection(
    tmp_path: Path, bad: bytes, *, is_cut: bool, own_url: bool
) -> None:
    """It holds no job: another EP may get the rest. A web page is one, wherever it ends."""

    async def test(bench: Bench, fetcher: Fetcher) -> None:
        error = await failure(fetcher, wanted(Endless(bad), own_url=own_url))
        blamed = HookStatus.IMAGE_FILE_INVALID if own_url else HookStatus.IMAGE_CORRUPT
        assert error.status is (HookStatus.SOURCE_UNREACHABLE if is_cut else blamed)
        assert bench.cache.entries == {}

    fly(tmp_path, test)


@pytest.mark.parametrize("architecture", ["aarch64", "x86_64"])
def test_an_image_for_another_architecture_is_told(tmp_path: Path, architecture: str) -> None:
    """On this machine exactly one of the two runs."""

    async def test(bench: Bench, fetcher: Fetcher) -> None:
        source = Source(sif_file(architecture=architecture))
        if sif_file(architecture=architecture) == IMAGE:
            await fetcher.fetch(wanted(source), None, "1.0")
        else:
            error = await failure(fetcher, wanted(source))
            assert error.status is HookStatus.ARCHITECTURE_MISMATCH
            assert architecture in error.message
            assert bench.cache.entries == {}

    fly(tmp_path, test)


def test_an_image_that_does_not_start_is_never_served(tmp_path: Path) -> None:
    """It is whole, and the runtime cannot run it here."""

    async def test(bench: Bench, fetcher: Fetcher) -> None:
        error = await failure(fetcher, wanted(Source()))
        assert error.status is HookStatus.IMAGE_UNPACK_FAILED
        assert "bad superblock" in error.message
        assert bench.cache.entries == {}

    fly(tmp_path, test, why_not="bad superblock")


def test_a_full_disk_is_not_remembered_against_the_image(tmp_path: Path) -> None:
    """It may end at any moment, and is no fault of the object's."""

    async def test(bench: Bench, fetcher: Fetcher) -> None:
        source = Source()
        bench.store.free_bytes = 0
        assert (await failure(fetcher, wanted(source))).status is HookStatus.DISK_FULL
        bench.store.free_bytes = 10**9
        await fetcher.fetch(wanted(source), None, "1.0")

    fly(tmp_path, test)


@pytest.mark.parametrize("url", [f"{URL}?sig=s3cr3t", "https://user:s3cr3t@o.example/x.sif"])
def test_an_image_got_with_a_credential_is_advertised_to_nobody(tmp_path: Path, url: str) -> None:
    """A signature or a password in the URL is one: the name stays out of the slot ad, the secret out of the record."""

    async def test(bench: Bench, fetcher: Fetcher) -> None:
        found = await fetcher.fetch(wanted(Source(), Located(url=url), own_url=True), None, "1.0")
        assert not found.public
        record = bench.store.root / "entries" / found.key / "entry.json"
        assert "s3cr3t" not in record.read_text()

    fly(tmp_path, test)
