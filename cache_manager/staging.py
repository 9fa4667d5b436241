"""An image that is being brought in: counted, kept to its reservation, its digest computed on the way."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

from cache_manager.hashing import Follower
from cache_manager.partial import Partial
from cache_manager.sif import HEADER_BYTES
from cache_manager.sources.base import Known, nothing_promised
from cache_manager.sources.sums import Sum, sum_of
from cache_manager.status import StatusError

IMAGE: Final = "image"
"""The image's name in its directory: in staging, and then in its entry's."""


PARTIAL: Final = "partial.json"
"""What is known of an image that is not whole, beside it."""

KEPT_BYTES: Final = 1 << 20
"""Smaller ones are fetched again as soon."""

AHEAD_BYTES: Final = 1 << 20
"""Of an image of unknown size so much more is reserved, at most, or an eighth of what is here: others need room too."""


class Staging:
    """An image that is being brought in: a sink that counts, computes the digest and keeps to its reservation.

    `grow` is called with the total that is about to be needed before it is written; it raises StatusError when there
    is no room. Used by one thread.
    """

    def __init__(self, directory: Path, grow: Callable[[int], None]) -> None:
        self.directory = directory
        self.size_bytes = 0
        self.of_bytes: int | None = None
        """How large it will be, as far as that is known."""
        self.taken_bytes = 0
        """What all of it takes on disk, as last counted by who unpacks it; 0 if nobody does."""
        self.known = Known()
        self.end_is_told = True
        self.came_from: set[str] = set()
        self.wrong_from: set[str] = set()
        self.promised: Callable[[], Sum | None] = nothing_promised
        self.head = b""
        self.stopped: StatusError | None = None
        """Why no more is to be written; may be set from another thread."""
        self._kept_as: Callable[[Known], Partial | None] = lambda _: None
        self._grow = grow
        self._granted = 0
        self._digest = Follower()
        self._descriptor = -1

    def keep(self, name: str, boot_id: str, *, is_proven: bool) -> None:
        """Have what is written outlive this process, as the begin of the object of this name, where it can go on.

        `is_proven` says that a digest is known that will prove it; else it takes an ETag.
        """

        def kept_as(known: Known) -> Partial | None:
            may = known.as_it_is and (known.etag or is_proven) and (known.of_bytes or 0) >= KEPT_BYTES
            return Partial(self.directory.name, name, known.of_bytes or 0, known.etag, boot_id) if may else None

        self._kept_as = kept_as

    def take_up(self, partial: Partial) -> None:
        """Go on with what an earlier process has written here. Raises OSError."""
        size = partial.size_bytes - (partial.size_bytes == partial.of_bytes)  # the end shows that it is still the same
        path = self.directory / IMAGE
        path.chmod(0o644)
        self._open(path, os.O_RDWR | os.O_APPEND)
        path.chmod(0o444)
        os.ftruncate(self._descriptor, size)
        self.size_bytes = size
        self.head = self.read(0, HEADER_BYTES)
        self.known = Known(partial.of_bytes, partial.etag)
        self.of_bytes = partial.of_bytes
        self._digest.begin(size)

    def note(self, known: Known) -> None:
        """Take what is known of the object that the bytes are of, and write it down for the next process."""
        self.known = known
        kept = self._kept_as(known)
        record = self.directory / PARTIAL
        if kept is None:
            record.unlink(missing_ok=True)
            return
        beside = record.with_suffix(".new")
        beside.write_text(kept.to_json(), encoding="utf-8")
        beside.rename(record)

    @property
    def is_kept(self) -> bool:
        """Whether the next process can go on with it."""
        return self.size_bytes > 0 and (self.directory / PARTIAL).exists()

    def expect(self, size_bytes: int | None) -> None:
        """Say how large the image will be, if that is known, before its first byte: room is reserved."""
        self.of_bytes = size_bytes
        if size_bytes is not None:
            self._reserve(size_bytes)

    def reserve(self, total_bytes: int) -> None:
        """Have room for so much in all, of what may become more."""
        if self.stopped is not None:
            raise self.stopped
        if total_bytes > self._granted:
            self._reserve(total_bytes)

    def write(self, data: bytes | memoryview) -> None:
        """Take the next bytes."""
        if self.stopped is not None:
            raise self.stopped
        if self.size_bytes + len(data) > self._granted:
            self._reserve_more(self.size_bytes + len(data))
        if self._descriptor < 0:
            self._open(self.directory / IMAGE, os.O_RDWR | os.O_CREAT | os.O_EXCL)
        view = memoryview(data)
        while view:
            view = view[os.write(self._descriptor, view) :]
        self.size_bytes += len(data)
        self._digest.wrote(self.size_bytes)
        if len(self.head) < HEADER_BYTES:
            self.head += data[: HEADER_BYTES - len(self.head)]

    def adopt(self, path: Path) -> None:
        """Take a file that a program made in our directory, in the place of all that would be written."""
        self.restart()
        path.chmod(0o444)
        path.rename(self.directory / IMAGE)
        self._open(self.directory / IMAGE, os.O_RDONLY)
        self.size_bytes = self.of_bytes = os.fstat(self._descriptor).st_size
        self._digest.wrote(self.size_bytes)
        self.head = os.pread(self._descriptor, HEADER_BYTES, 0)

    def read(self, at: int, length: int) -> bytes:
        """Return what was written there; less at the end."""
        with (self.directory / IMAGE).open("rb") as image:
            return os.pread(image.fileno(), length, at)

    def restart(self) -> None:
        """Forget what was written: the next attempt begins from nothing."""
        self.close()
        (self.directory / IMAGE).unlink(missing_ok=True)
        self.size_bytes, self.head, self._digest = 0, b"", Follower()
        self.end_is_told, self.promised = True, nothing_promised
        self.came_from.clear()
        self.known = Known()
        (self.directory / PARTIAL).unlink(missing_ok=True)

    def distrust(self) -> None:
        """Forget what was written, and take it first from elsewhere: it is not what it should be."""
        self.wrong_from |= self.came_from
        self.restart()

    def finish(self) -> str:
        """Sync the image and return its digest."""
        if self._descriptor >= 0:
            os.fsync(self._descriptor)
        digest = self._digest.hexdigest()
        self.of_bytes = self.size_bytes
        self.close()
        return digest

    def differs(self) -> str:
        """Return in words how what was written differs from what the server promises; empty if it does not."""
        promised = self.promised()
        if promised is None:
            return ""
        with (self.directory / IMAGE).open("rb") as image:
            found = sum_of(promised.algorithm, iter(lambda: image.read(1 << 20), b""))
        return "" if found == promised else f"{found} came, the server promised {promised.value.hex()[:16]}"

    def close(self) -> None:
        """Close the file; it stays."""
        self._digest.close()
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _open(self, path: Path, flags: int) -> None:
        self._descriptor = os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o444)
        self._digest.follow(self._descriptor)

    def _reserve_more(self, total: int) -> None:
        """Reserve for an image of unknown size: ahead of it, or else what it needs now."""
        try:
            ahead = min(self._granted, max(AHEAD_BYTES, self._granted // 8))
            self._reserve(max(total, self._granted + ahead))
        except StatusError:
            self._reserve(total)

    def _reserve(self, total: int) -> None:
        self._grow(total)
        self._granted = total
