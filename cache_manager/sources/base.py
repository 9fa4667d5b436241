"""What every source has in common."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from cache_manager.outcome import Absent, Answer, Denied, Located, Unwell
from cache_manager.reference import ImageReference
from cache_manager.sources.sums import Sum


@dataclass(frozen=True, slots=True)
class Route:
    """One place from which an object can be had.

    `headers` go to the URL's own server and to no other that it redirects to; they may hold a token. `trailer` says
    that it is a Pelican server, which tells after the last byte whether those were all. `near` is set where another
    server told us the URL: whether that one answers this machine alone.
    """

    url: str
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    trailer: bool = False
    near: bool | None = None


def nothing_promised() -> None:
    """Say that a server said nothing of the whole."""


class Sink(Protocol):
    """Where a transfer puts an image: it reserves room, counts, and computes the digest.

    `end_is_told` is false once a source did not say where the image ends: a cut connection looks like the end then.
    `came_from` are the URLs that gave some of what is here, `wrong_from` those that gave what turned out wrong: others
    are asked before them. `promised` tells what the server says of the whole, to be held against it; it may ask now.
    """

    size_bytes: int
    end_is_told: bool
    came_from: set[str]
    wrong_from: set[str]
    promised: Callable[[], Sum | None]

    def expect(self, size_bytes: int | None) -> None:
        """Take the size before the first byte, if it is known. Raises StatusError when there is no room."""

    def write(self, data: bytes | memoryview) -> None:
        """Take the next bytes, which are only there during the call. Raises StatusError when there is no room."""

    def restart(self) -> None:
        """Forget what came: the next bytes are the first ones."""


class Source(Protocol):
    """A place that may have an image. Both methods may block: they run in a thread."""

    def locate(self, image: ImageReference) -> Answer:
        """Say where the image is; fetches nothing but what tells that."""

    def transfer(self, located: Located, sink: Sink) -> None:
        """Bring the image in. Raises SourceError."""


@runtime_checkable
class Confirms(Protocol):
    """A source of objects that jobs name themselves: not all of their users may have them."""

    def confirm(self, located: Located) -> None:
        """Ask whether this user would get the object now. Raises SourceError."""


class SourceError(Exception):
    """A source that cannot deliver; `answer` is the value that says so."""

    def __init__(self, answer: Absent | Denied | Unwell) -> None:
        super().__init__(answer.why)
        self.answer = answer
