"""What goes wrong on the wire, and what becomes of it: an object whole and once, or an answer that says why not."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass

import pytest

from cache_manager.outcome import Unwell
from cache_manager.sources.base import Route, SourceError
from cache_manager.sources.exchange import Patience
from cache_manager.sources.transfer import transfer
from cache_manager.status import HookStatus
from tests.contract.raw_server import End, RawServer, Script, answer
from tests.unit.origin import MemorySink
from tests.unit.wire import (
    DIGEST,
    ETAG,
    GONE,
    HALF,
    HASTY,
    IMAGE,
    OTHER,
    PATIENCE,
    SIZE,
    TOO_SLOW,
    TWO,
    UNREACHABLE,
    UNSATISFIABLE,
    WEAK,
    piece,
    rest,
    squeezed,
    start,
    whole,
)


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
