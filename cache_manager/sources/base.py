"""What every source has in common."""

from __future__ import annotations

from typing import Protocol

from cache_manager.outcome import Absent, Answer, Denied, Located, Unwell
from cache_manager.reference import ImageReference


class Sink(Protocol):
    """Where a transfer puts an image: it reserves room, counts, and computes the digest.

    `end_is_told` is false once a source did not say where the image ends: a cut connection looks like the end then.
    """

    size_bytes: int
    end_is_told: bool

    def expect(self, size_bytes: int | None) -> None:
        """Take the size before the first byte, if it is known. Raises StatusError when there is no room."""

    def write(self, data: bytes) -> None:
        """Take the next bytes. Raises StatusError when there is no room."""


class Source(Protocol):
    """A place that may have an image. Both methods may block: they run in a thread."""

    def locate(self, image: ImageReference) -> Answer:
        """Say where the image is; fetches nothing but what tells that."""

    def transfer(self, located: Located, sink: Sink) -> None:
        """Bring the image in. Raises SourceError."""


class SourceError(Exception):
    """A source that cannot deliver; `answer` is the value that says so."""

    def __init__(self, answer: Absent | Denied | Unwell) -> None:
        super().__init__(answer.why)
        self.answer = answer
