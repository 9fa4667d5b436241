"""A layer's bytes, uncompressed, while another thread uncompresses what comes next.

What a layer is compressed with is told by its first bytes: some registries' manifests name another method than is used.
"""

from __future__ import annotations

import gzip
import queue
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Final, Protocol, cast

import zstandard
from isal import igzip, isal_zlib

LAYER_TYPES: Final = frozenset(
    {
        "application/vnd.oci.image.layer.v1.tar",
        "application/vnd.oci.image.layer.v1.tar+gzip",
        "application/vnd.oci.image.layer.v1.tar+zstd",
        "application/vnd.docker.image.rootfs.diff.tar",
        "application/vnd.docker.image.rootfs.diff.tar.gzip",
        "application/vnd.docker.image.rootfs.diff.tar.zstd",
    }
)
"""Others lie elsewhere ("foreign", "nondistributable"), are encrypted, or are no layers of an image."""

_BLOCK_BYTES: Final = 2**20
_AHEAD: Final = 4
"""Blocks that wait."""
_GZIP: Final = b"\x1f\x8b"
_ZSTD: Final = b"\x28\xb5\x2f\xfd"
_MAX_WINDOW_BYTES: Final = 2**27
"""What a zstd frame may ask for to be unpacked: as much as the zstd command allows."""

_ISAL = cast("type[Exception]", isal_zlib.error)  # its stubs name an instance
_DAMAGED: Final = (EOFError, gzip.BadGzipFile, _ISAL, zstandard.ZstdError)


class LayerError(ValueError):
    """The bytes cannot be uncompressed; the text says why."""


@contextmanager
def uncompressed(path: Path) -> Iterator[Iterator[bytes]]:
    """Give a layer's bytes in blocks. The blocks raise LayerError for what is damaged or cut, and OSError."""
    with path.open("rb") as raw:
        pump = _Pump(raw)
        try:
            yield pump.blocks()
        finally:
            pump.stop()


class _Pump:
    """A thread that reads ahead, a few blocks at most."""

    def __init__(self, raw: IO[bytes]) -> None:
        self._raw = raw
        self._queue: queue.Queue[bytes | Exception] = queue.Queue(_AHEAD)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="uncompress")
        self._thread.start()

    def blocks(self) -> Iterator[bytes]:
        """Yield the blocks; an empty one is the end."""
        while True:
            block = self._queue.get()
            if isinstance(block, Exception):
                raise block
            if not block:
                return
            yield block

    def stop(self) -> None:
        """End the thread, whatever it waits for."""
        self._stopped.set()
        while self._thread.is_alive():
            try:
                self._queue.get(timeout=0.01)
            except queue.Empty:
                continue

    def _run(self) -> None:
        try:
            stream = _stream(self._raw)
            while not self._stopped.is_set():
                block = stream.read(_BLOCK_BYTES)
                self._queue.put(block)
                if not block:
                    return
        except _DAMAGED as error:
            self._queue.put(LayerError(f"damaged or cut: {error}"))
        except OSError as error:
            self._queue.put(error)


class _Stream(Protocol):
    def read(self, size: int, /) -> bytes: ...


def _stream(raw: IO[bytes]) -> _Stream:
    first = raw.read(4)
    raw.seek(0)
    if first.startswith(_GZIP):
        stream: _Stream = igzip.IGzipFile(fileobj=raw)  # type: ignore[no-untyped-call]
        return stream
    if first == _ZSTD:
        reader = zstandard.ZstdDecompressor(max_window_size=_MAX_WINDOW_BYTES)
        return reader.stream_reader(raw, read_across_frames=True)
    return raw
