"""What every source has in common."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, runtime_checkable

from cache_manager.outcome import Absent, Answer, Denied, Located, Unwell
from cache_manager.reference import ImageReference
from cache_manager.sources.sums import Sum


@dataclass(frozen=True, slots=True)
class Route:
    """One place from which an object can be had.

    `headers` go to the URL's own server and to no other that it redirects to; they may hold a token. `trailer` says
    that it is a Pelican server, which tells after the last byte whether those were all. `near` is set where another
    server told us the URL: whether that one answers this machine alone. `of_bytes` is set for an object that does not
    change, and whose size was told beforehand: any part of one of that size is a part of it.
    """

    url: str
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    trailer: bool = False
    near: bool | None = None
    of_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of the object of which a part is here: its size, its strong ETag (empty if it has none).

    `as_it_is` is false for bytes that are not the object's own: those of an encoding, or more than it has.
    """

    of_bytes: int | None = None
    etag: str = ""
    as_it_is: bool = True


def nothing_promised() -> None:
    """Say that a server said nothing of the whole."""


class Sink(Protocol):
    """Where a transfer puts an image: it reserves room, counts, and computes the digest.

    `end_is_told` is false once a source did not say where the image ends: a cut connection looks like the end then.
    `came_from` are the URLs that gave some of what is here, `wrong_from` those that gave what turned out wrong: others
    are asked before them. `promised` tells what the server says of the whole, to be held against it; it may ask now.
    """

    size_bytes: int
    known: Known
    end_is_told: bool
    came_from: set[str]
    wrong_from: set[str]
    promised: Callable[[], Sum | None]
    directory: Path
    """Where a program may leave what it brings, for `adopt`."""

    def expect(self, size_bytes: int | None) -> None:
        """Take the size before the first byte, if it is known. Raises StatusError when there is no room."""

    def note(self, known: Known) -> None:
        """Take what is known of the object, before the first bytes of it. It is forgotten by `restart`."""

    def write(self, data: bytes | memoryview) -> None:
        """Take the next bytes, which are only there during the call. Raises StatusError when there is no room."""

    def reserve(self, total_bytes: int) -> None:
        """Have room for so much of what a program brings. Raises StatusError: no room, or not wanted any more."""

    def adopt(self, path: Path) -> None:
        """Take a file in `directory` as all that came. It is ours, has no other name, and there is room for it."""

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
