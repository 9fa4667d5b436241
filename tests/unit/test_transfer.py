"""What goes wrong on the wire, and what becomes of it: an object whole and once, or an answer that says why not."""

from __future__ import annotations

import gzip
import socket
from contextlib import ExitStack
from dataclasses import dataclass

import pytest

from cache_manager.outcome import Absent, Denied, Unwell
from cache_manager.sources.base import Route, SourceError
from cache_manager.sources.exchange import Patience
from cache_manager.sources.sums import Sum, sum_of
from cache_manager.sources.transfer import transfer
from cache_manager.status import HookStatus
from tests.contract.raw_server import Drip, End, RawServer, Script, answer
from tests.unit.origin import MemorySink, Origin, Reply

PATIENCE = Patience(min_rate_bytes=10**6, stall_s=20.0)
HASTY = Patience(min_rate_bytes=10**3, stall_s=0.3)
IMAGE = bytes(range(256)) * 16
OTHER = IMAGE[::-1]
SIZE, HALF = len(IMAGE), len(IMAGE) // 2
ETAG = {"ETag": '"one"'}
DIGEST = "ab" * 32
"""Whoever reads the sink holds it against what came; here it says that somebody will."""

UNREACHABLE, TOO_SLOW = HookStatus.SOURCE_UNREACHABLE, HookStatus.SOURCE_TOO_SLOW


def start(upto: int = HALF, body: bytes = IMAGE, headers: dict[str, str] | None = None, end: End = End.RESET) -> Script:
    """Return an answer that is cut."""
    return answer(body=body[:upto], headers=ETAG if headers is None else headers, length=str(len(body))), end


def rest(
    first: int = HALF, body: bytes = IMAGE, said: str = "", headers: dict[str, str] | None = None, sent: int = SIZE
) -> bytes:
    """Return an answer with the rest of an object, what is said of it (`said`), and so many bytes of it."""
    part = {"Content-Range": said or f"bytes {first}-{SIZE - 1}/{SIZE}"}
    found = (ETAG if headers is None else headers) | part
    return answer("206 Partial Content", body[first:][:sent], found, str(SIZE - first))


def piece(first: int, last: int) -> bytes:
    """Return an answer with less than all of the rest."""
    part = {"Content-Range": f"bytes {first}-{last}/{SIZE}"}
    return answer("206 Partial Content", IMAGE[first : last + 1], ETAG | part)


def whole(body: bytes = IMAGE, headers: dict[str, str] | None = None) -> Script:
    """Return an answer with all of an object."""
    return (answer(body=body, headers=ETAG if headers is None else headers),)


def chunked(*pieces: bytes, trailer: str | None = None) -> bytes:
    """Return a body in chunks, with what a Pelican server says after the last."""
    body = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n"
    said = b"" if trailer is None else f"X-Transfer-Status: {trailer}\r\n".encode()
    head = answer(headers={"Transfer-Encoding": "chunked", "Trailer": "X-Transfer-Status"} | ETAG, length="")
    return head + body + said + b"\r\n"


def squeezed(status: str = "200 OK") -> tuple[bytes]:
    """Return an answer that is compressed although nobody asked for that."""
    part = {"Content-Range": f"bytes {HALF}-{SIZE - 1}/{SIZE}"} if status.startswith("206") else {}
    return (answer(status, gzip.compress(IMAGE), ETAG | part | {"Content-Encoding": "gzip"}),)


UNSATISFIABLE = answer("416 Range Not Satisfiable", headers={"Content-Range": f"bytes */{HALF}"})
GONE = answer("404 Not Found")
WEAK = {"ETag": 'W/"one"'}
TWO = {"ETag": '"two"'}


@dataclass(frozen=True)
class Row:
    """What each of the places says to one request after another; how much of it is asked for; how it ends.

    `ranges` are the first bytes that were asked for, of each request to each place. `fails` is how the transfer fails,
    and what is said.
    """

    name: str
    places: tuple[list[Script], ...]
    ranges: tuple[list[int], ...]
    fails: tuple[HookStatus, str] | None = None
    digest: str = ""
    came: bytes = IMAGE
    patience: Patience = PATIENCE


ROWS = (
    Row("a reset", ([start(), (rest(),)],), ([0, HALF],)),
    Row("an early end", ([(start()[0],), (rest(),)],), ([0, HALF],)),
    Row("a stall", ([start(end=End.STALL), (rest(),)],), ([0, HALF],), patience=HASTY),
    Row(
        "several cuts",
        ([start(100), (rest(100, sent=100),), (rest(200, sent=1),), (rest(201),)],),
        ([0, 100, 200, 201],),
    ),
    Row(
        "a part of what was asked for",
        ([start(), (piece(HALF, HALF + 9),), (rest(HALF + 10),)],),
        ([0, HALF, HALF + 10],),
    ),
    Row("a server without ranges", ([start(), whole()],), ([0, HALF],)),
    Row("a server without an ETag", ([start(headers={}), whole(headers={})],), ([0, 0],)),
    Row("a weak ETag", ([start(headers=WEAK), whole(headers=WEAK)],), ([0, 0],)),
    Row("no ETag, but a digest", ([start(headers={}), (rest(headers={}),)],), ([0, HALF],), digest=DIGEST),
    Row("another object in between", ([start(), whole(OTHER, TWO)],), ([0, HALF],), came=OTHER),
    Row(
        "a part of another object",
        ([start(), (rest(body=OTHER, headers=TWO),), whole(OTHER, TWO)],),
        ([0, HALF, 0],),
        came=OTHER,
    ),
    Row("a part without an ETag", ([start(), (rest(headers={}),), whole()],), ([0, HALF, 0],)),
    Row("a part from elsewhere", ([start(), (rest(said=f"bytes 7-{SIZE - 1}/{SIZE}"),), whole()],), ([0, HALF, 0],)),
    Row(
        "a part of another size",
        ([start(), (rest(said=f"bytes {HALF}-{SIZE}/{SIZE + 1}"),), whole()],),
        ([0, HALF, 0],),
    ),
    Row(
        "a part of another length",
        ([start(), (rest(said=f"bytes {HALF}-{SIZE - 9}/{SIZE}"),), whole()],),
        ([0, HALF, 0],),
    ),
    Row("a part of nothing", ([start(), (rest(said="bytes"),), whole()],), ([0, HALF, 0],)),
    Row("a range that cannot be", ([start(), (UNSATISFIABLE,), whole()],), ([0, HALF, 0],)),
    Row("a server that is restarting", ([start(), (End.RESET,), (rest(),)],), ([0, HALF, HALF],)),
    Row(
        "a server that is gone",
        ([start(), (End.RESET,)],),
        ([0, HALF, HALF, HALF],),
        fails=(UNREACHABLE, "reset by peer"),
    ),
    Row(
        "always the same cut",
        ([start(headers={})],),
        ([0, 0],),
        fails=(UNREACHABLE, f"reset by peer ({HALF} of {SIZE} bytes)"),
    ),
    Row(
        "a wrong length",
        ([start(SIZE, IMAGE + b"x")],),
        ([0, SIZE],),
        fails=(UNREACHABLE, f"({SIZE} of {SIZE + 1} bytes"),
    ),
    Row("404 at first", ([(GONE,)], [whole()]), ([0], [0])),
    Row("503 at first", ([(answer("503 No"),)], [whole()]), ([0], [0])),
    Row("cut, and goes on elsewhere", ([start(), (End.RESET,)], [(rest(),)]), ([0, HALF], [HALF])),
    Row(
        "cut, and another object elsewhere",
        ([start(), (End.RESET,)], [whole(OTHER, TWO)]),
        ([0, HALF], [HALF]),
        came=OTHER,
    ),
    Row(
        "cut, and goes on elsewhere by its digest",
        ([start(headers={}), (End.RESET,)], [(rest(headers={}),)]),
        ([0, HALF], [HALF]),
        digest=DIGEST,
    ),
    Row("cut, without what proves it", ([start(headers={}), (End.RESET,)], [whole(headers={})]), ([0, 0], [0])),
    Row("a stall, and another", ([start(end=End.STALL)], [(rest(),)]), ([0], [HALF]), patience=HASTY),
    Row(
        "a stall of the last",
        ([start(end=End.STALL)],),
        ([0],),
        fails=(TOO_SLOW, f"no byte for 0.3 s after {HALF} of {SIZE} bytes"),
        patience=Patience(10**6, 0.3),
    ),
    Row(
        "a slow start",
        ([(answer(length=str(SIZE), headers=ETAG), End.STALL)],),
        ([0],),
        fails=(TOO_SLOW, f"slow start: answered, and no byte for 0.3 s after 0 of {SIZE} bytes"),
        patience=HASTY,
    ),
    Row("no answer", ([(End.STALL,)],), ([0],), fails=(UNREACHABLE, "no answer in 0.3 s"), patience=HASTY),
    Row("compressed, unasked for", ([squeezed()],), ([0],)),
    Row("compressed and cut", ([(squeezed()[0][:-20],), whole()],), ([0, 0],)),
    Row("a part that is compressed", ([start(), (squeezed("206 Partial Content")[0],), whole()],), ([0, HALF, 0],)),
)


class Places:
    """Servers that say what a row tells them to."""

    def __init__(self, row: Row) -> None:
        self.row = row
        self.servers = [RawServer() for _ in row.places]
        for server, scripts in zip(self.servers, row.places, strict=True):
            server.routes["/x"] = list(scripts)

    @property
    def routes(self) -> list[Route]:
        """The routes to them."""
        return [Route(f"{server.url}/x") for server in self.servers]

    def ranges(self) -> tuple[list[int], ...]:
        """Return the first bytes that were asked for."""
        return tuple([_first_byte(head) for head in server.requests("/x")] for server in self.servers)


def _first_byte(head: str) -> int:
    lines = dict(line.split(": ", 1) for line in head.split("\r\n") if ": " in line)
    return int(lines.get("Range", "bytes=0-").removeprefix("bytes=").removesuffix("-"))


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_what_goes_wrong_on_the_wire_costs_no_byte_too_many_and_mixes_no_objects(row: Row) -> None:
    """What was cut goes on where it ended, where it is the same object; else it begins anew, here or elsewhere."""
    places, sink = Places(row), MemorySink()
    with ExitStack() as stack:
        for server in places.servers:
            stack.enter_context(server)
        if row.fails is None:
            transfer(places.routes, sink, row.patience, row.digest)
            assert sink.data == row.came
        else:
            with pytest.raises(SourceError) as caught:
                transfer(places.routes, sink, row.patience, row.digest)
            assert isinstance(caught.value.answer, Unwell)
            assert caught.value.answer.status is row.fails[0]
            assert row.fails[1] in caught.value.answer.why
        assert places.ranges() == row.ranges


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
