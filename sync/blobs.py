"""The blobs of a run: each is fetched once, whoever needs it, and lies in the work directory by its digest."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from cache_manager.registry.manifest import Descriptor

_PREFIX: Final = "sha256:"

Fetch = Callable[[Descriptor, Callable[[bytes], object]], None]
"""Gives the bytes of a blob to a function, and raises its own error unless digest and size are right."""


class BlobStore:
    """A directory of blobs, shared by any number of conversions, in this process and in others."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        directory.mkdir(parents=True, exist_ok=True)

    def path(self, digest: str) -> Path:
        """Return where a blob lies once it is there."""
        return self.directory / digest.removeprefix(_PREFIX)

    def get(self, blob: Descriptor, fetch: Fetch) -> Path:
        """Return a blob's file, fetched if nobody did so before; who comes meanwhile waits. Raises what `fetch` raises.

        A file is there only if its digest was right.
        """
        path = self.path(blob.digest)
        if path.exists():
            return path
        with self._alone(blob.digest):
            if not path.exists():
                part = path.with_suffix(".part")
                try:
                    with part.open("wb") as file:
                        fetch(blob, file.write)
                    part.rename(path)
                finally:
                    part.unlink(missing_ok=True)
        return path

    def forget(self, digest: str) -> None:
        """Remove a blob that nobody needs any more."""
        self.path(digest).unlink(missing_ok=True)
        self.path(digest).with_suffix(".lock").unlink(missing_ok=True)

    @contextmanager
    def _alone(self, digest: str) -> Iterator[None]:
        """Hold a lock that ends with this process, however that ends."""
        fd = os.open(self.path(digest).with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)
