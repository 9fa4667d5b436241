"""Several places of one object, one after the other: which is asked, what is sent along, what is said when all fail."""

from __future__ import annotations

import socket
from contextlib import ExitStack

import pytest

from cache_manager.outcome import Absent, Denied, Unwell
from cache_manager.sources.base import Route, SourceError
from cache_manager.sources.exchange import Patience
from cache_manager.sources.sums import Sum, sum_of
from cache_manager.sources.transfer import transfer
from cache_manager.status import HookStatus
from tests.contract.raw_server import Drip, End, RawServer, Script, answer
from tests.unit.origin import MemorySink, Origin, Reply
from tests.unit.wire import (
    ETAG,
    GONE,
    HALF,
    HASTY,
    IMAGE,
    PATIENCE,
    SIZE,
    TWO,
    UNREACHABLE,
    chunked,
    rest,
    start,
    whole,
)


def test_what_is_behind_its_time_is_left_for_another_place() -> None:
    """Each byte comes in time: a last place has all of the budget for that, one before it has not."""
    with RawServer() as slow, RawServer() as other:
        slow.routes["/x"] = (answer(length=str(SIZE), headers=ETAG), Drip(IMAGE, 0.01))
        other.routes["/x"] = whole()
        sink = MemorySink()
        transfer([Route(f"{slow.url}/x"), Route(f"{other.url}/x")], sink, HASTY)
        assert sink.data == IMAGE
        with pytest.raises(SourceError, match=r"too slow \(.* in \d s, .* B/s; its time was \d s\)"):
            transfer([Route(f"{slow.url}/x")], MemorySink(), Patience(10**5, 0.3))


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ((chunked(IMAGE, trailer="200: OK"),), ""),
        (
            (chunked(IMAGE[:HALF], trailer="500: the origin is gone"),),
            "HTTP 200, sent 2048 bytes, and said then: 500: the",
        ),
        ((chunked(IMAGE),), "did not say that these were all"),
        ((chunked(IMAGE, trailer="2000"),), "said then: 2000"),
        ((chunked(IMAGE)[:-9], End.RESET), "reset by peer"),
        (whole(), ""),
    ],
    ids=["all", "an error", "no word", "nonsense", "a reset", "with its length"],
)
def test_a_pelican_server_tells_after_the_last_byte_whether_those_were_all(script: Script, said: str) -> None:
    """HTTP 200 came before it knew."""
    with RawServer() as server:
        server.routes["/x"] = script
        sink = MemorySink()
        if said:
            with pytest.raises(SourceError) as caught:
                transfer([Route(f"{server.url}/x", trailer=True)], sink, PATIENCE)
            assert said in caught.value.answer.why
        else:
            transfer([Route(f"{server.url}/x", trailer=True)], sink, PATIENCE)
            assert sink.data == IMAGE
        head = server.requests("/x")[0]
        assert "\r\nX-Transfer-Status: true\r\n" in head
        assert "\r\nTE: trailers\r\n" in head


def test_what_a_pelican_server_could_not_finish_goes_on_elsewhere() -> None:
    """The bytes before its word are good."""
    with RawServer() as one, RawServer() as other:
        one.routes["/x"] = [(chunked(IMAGE[:HALF], trailer="500: gone"),), (End.RESET,)]
        other.routes["/x"] = (rest(),)
        sink = MemorySink()
        transfer([Route(f"{server.url}/x", trailer=True) for server in (one, other)], sink, PATIENCE)
        assert sink.data == IMAGE


ABSENT, DENIED, UNWELL = GONE, answer("403 Forbidden"), answer("500 Oops")
THROTTLED = answer("429 Too Many Requests", headers={"Retry-After": "7"})


@pytest.mark.parametrize(
    ("says", "means"),
    [
        ((ABSENT, ABSENT), Absent),
        ((ABSENT, DENIED), Denied),
        ((DENIED, UNWELL), UNREACHABLE),
        ((THROTTLED, UNWELL), UNREACHABLE),
        ((THROTTLED, ABSENT), HookStatus.SOURCE_THROTTLED),
    ],
)
def test_when_all_places_fail_each_says_why(says: tuple[bytes, ...], means: object) -> None:
    """What may be over soon counts more than what is final."""
    with ExitStack() as stack:
        servers = [stack.enter_context(RawServer()) for _ in says]
        for server, script in zip(servers, says, strict=True):
            server.routes["/x"] = (script,)
        with pytest.raises(SourceError) as caught:
            transfer([Route(f"{server.url}/x") for server in servers], MemorySink(), PATIENCE)
        found = caught.value.answer
        assert means == (found.status if isinstance(found, Unwell) else type(found))
        assert all(f"{server.url}/x: HTTP " in found.why for server in servers)
        assert isinstance(found, (Absent, Denied)) or found.retry_after_s == (7.0 if THROTTLED in says else None)


def test_a_throttled_server_is_waited_for_when_something_is_here() -> None:
    """What came would be lost."""
    with RawServer() as server:
        server.routes["/x"] = [start(), (answer("503 Wait", headers={"Retry-After": "1"}),), (rest(),)]
        sink = MemorySink()
        transfer([Route(f"{server.url}/x")], sink, PATIENCE)
        assert sink.data == IMAGE


def test_a_name_that_is_gone_is_one_place_of_several() -> None:
    """Half of the caches may be dead: no DNS, no listener."""
    with socket.create_server(("127.0.0.1", 0)) as gone:
        port = gone.getsockname()[1]
    with RawServer() as server:
        server.routes["/x"] = whole()
        urls = ["http://gone.invalid/x", f"http://127.0.0.1:{port}/x", f"{server.url}/x"]
        sink = MemorySink()
        transfer([Route(url) for url in urls], sink, PATIENCE)
        assert (sink.data, sink.came_from) == (IMAGE, {urls[-1]})


def test_what_gave_wrong_bytes_is_asked_after_all_others() -> None:
    """And past what a proxy has kept of it."""
    with RawServer() as wrong, RawServer() as other:
        wrong.routes["/x"] = other.routes["/x"] = whole()
        sink = MemorySink()
        sink.wrong_from = {f"{wrong.url}/x"}
        transfer([Route(f"{server.url}/x") for server in (wrong, other)], sink, PATIENCE)
        assert (len(wrong.heard), len(other.heard)) == (0, 1)
        transfer([Route(f"{wrong.url}/x")], MemorySink(), PATIENCE)
        transfer([Route(f"{wrong.url}/x")], sink, PATIENCE)
        assert ["Cache-Control: no-cache" in head for _, _, head in wrong.heard] == [False, True]


def test_a_token_stays_with_the_server_that_it_is_for() -> None:
    """A redirect to another one does not take it along, and nothing shows it."""
    with RawServer() as one, RawServer() as other:
        away = answer("302 Found", headers={"Location": f"{other.url}/x"})
        here = answer("302 Found", headers={"Location": "/y"})
        one.routes |= {"/x": (away,), "/same": (here,), "/y": whole()}
        other.routes["/x"] = whole()
        routes = [Route(f"{one.url}/{name}", {"Authorization": "Bearer s3cr3t"}) for name in ("x", "same")]
        for route in routes:
            transfer([route], MemorySink(), PATIENCE)
        assert ["s3cr3t" in head for _, _, head in one.heard] == [True, True, True]
        assert ["s3cr3t" in head for _, _, head in other.heard] == [False]
        assert "s3cr3t" not in repr(routes)


CRC = sum_of("crc32c", [IMAGE])
SAID = {"Digest": f"crc32c={CRC.value.hex()}"}


@pytest.mark.parametrize(
    ("get", "head", "promised"),
    [
        (SAID, None, CRC),
        ({}, Reply(IMAGE, headers=SAID), CRC),
        (ETAG, Reply(IMAGE, headers=SAID | ETAG), CRC),
        (ETAG, Reply(IMAGE, headers=SAID | TWO), None),
        ({}, Reply(IMAGE[1:], headers=SAID), None),
        ({}, Reply(IMAGE), None),
        ({}, Reply(status=403), None),
    ],
    ids=["with it", "afterwards", "of the same", "of another", "of another size", "not at all", "not for everybody"],
)
def test_the_sum_that_a_server_knows_is_asked_for_when_all_is_here(
    origin: Origin, get: dict[str, str], head: Reply | None, promised: Sum | None
) -> None:
    """Servers compute it when they are asked: nobody waits for that before the first byte."""
    origin.replies["GET /x"] = Reply(IMAGE, headers=get)
    origin.replies["HEAD /x"] = head or Reply(status=500)
    sink = MemorySink()
    transfer([Route(f"{origin.base}/x")], sink, PATIENCE)
    assert origin.asked == ["GET /x"]
    assert sink.promised() == promised
    assert origin.asked == (["GET /x"] if head is None else ["GET /x", "HEAD /x"])
