"""Reading entries back: at each hit what is cheap, in full for `verify` and the scrub.

An image that was looked at is trusted as long as its time, size and inode stay: a warm hit costs one stat.
"""

from __future__ import annotations

import hashlib
import os
import stat
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from cache_manager import disk, sif
from cache_manager.entry import CacheEntry

CHUNK_BYTES: Final = 1 << 20
SLICES_A_SECOND: Final = 4
"""A slow reading reads so many pieces a second: short bursts, which leave the disk to others in between."""

Signature = tuple[int, int, int]


class Stopped(Exception):  # noqa: N818 - nothing went wrong
    """The reading was told to end."""


def look(entry: CacheEntry, image: str, seen: Signature | None) -> tuple[str, Signature | None]:
    """Return why an image is not what its record says (empty if it is), and what to remember it by."""
    try:
        found = os.lstat(image)
        now = (found.st_mtime_ns, found.st_size, found.st_ino)
        if now == seen:
            return "", seen
        if entry.format == "sandbox":
            return ("", now) if stat.S_ISDIR(found.st_mode) else ("no directory", None)
        if found.st_size != entry.size_bytes or not stat.S_ISREG(found.st_mode):
            return f"{found.st_size} bytes are there, {entry.size_bytes} were fetched", None
        descriptor = os.open(image, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            sif.parse_header(os.pread(descriptor, sif.HEADER_BYTES, 0), found.st_size)
        finally:
            os.close(descriptor)
    except OSError as error:
        return f"cannot be read: {error.strerror}", None
    except sif.SifError as error:
        return str(error), None
    return "", now


@dataclass
class Reading:
    """A full reading of one entry, in a thread.

    `rate` is asked on the way: bytes a second, 0 as fast as it goes, None to stop.

    `drop_pages` keeps what was read out of the page cache, which jobs need for themselves.
    """

    entry: CacheEntry
    directory: str
    rate: Callable[[], int | None] = lambda: 0
    drop_pages: bool = True
    done_bytes: int = 0
    seconds: float = 0.0
    stop: threading.Event = field(default_factory=threading.Event)

    @property
    def of_bytes(self) -> int:
        """How much there is to read; of a sandbox the tree is only counted."""
        return self.entry.size_bytes if self.entry.format == "sif" else 0

    def run(self) -> str:
        """Return why the entry differs from its record, empty if it does not.

        Raises Stopped, and FileNotFoundError when the entry went away meanwhile.
        """
        began = time.monotonic()
        try:
            if self.entry.format == "sandbox":
                return self._count()
            return self._digest()
        except FileNotFoundError:
            raise
        except OSError as error:
            return f"cannot be read: {error.strerror}"
        finally:
            self.seconds = time.monotonic() - began

    def _count(self) -> str:
        """Hold a tree against what was recorded of it: files exactly, bytes as far as file systems are exact.

        Blocks set aside ahead of a file's end are given back later, so a little less is no loss.
        """
        size, inodes = disk.measure(self.directory)
        if inodes != self.entry.inodes:
            return f"{inodes} files are there, {self.entry.inodes} were unpacked"
        if size < self.entry.disk_bytes * 0.99 - disk.BLOCK_BYTES:
            return f"{size} bytes are there, {self.entry.disk_bytes} were unpacked"
        return ""

    def _digest(self) -> str:
        path = os.path.join(self.directory, "image")  # noqa: PTH118 - one name
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            found = self._read(descriptor)
            if found != self.entry.digest and os.fstat(descriptor).st_nlink == 0:
                raise FileNotFoundError(path)  # evicted while it was read
        finally:
            os.close(descriptor)
        if found != self.entry.digest:
            return f"sha256 {found[:16]}... is there, {self.entry.digest[:16]}... was fetched ({self.done_bytes} bytes)"
        return ""

    def _read(self, descriptor: int) -> str:
        digest = hashlib.sha256()
        while not self.stop.is_set():
            began, rate = time.monotonic(), self.rate()
            if rate is None:
                break
            size = min(CHUNK_BYTES, max(4096, rate // SLICES_A_SECOND)) if rate else CHUNK_BYTES
            data = os.pread(descriptor, size, self.done_bytes)
            if not data:
                return digest.hexdigest()
            digest.update(data)
            if self.drop_pages:
                os.posix_fadvise(descriptor, self.done_bytes, len(data), os.POSIX_FADV_DONTNEED)
            self.done_bytes += len(data)
            if rate:
                self.stop.wait(max(0.0, len(data) / rate - (time.monotonic() - began)))
        raise Stopped(self.entry.name)
