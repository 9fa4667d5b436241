"""Bytes that come in blocks of any size, read by number. Pure."""

from __future__ import annotations

from collections.abc import Iterator


class Blocks:
    """Reads from an iterator of blocks without putting them together where that is not asked for."""

    def __init__(self, blocks: Iterator[bytes]) -> None:
        self._blocks = blocks
        self._block = memoryview(b"")
        self._at = 0
        self.offset = 0
        """How many bytes were read so far."""

    def read(self, size: int) -> bytes:
        """Return `size` bytes, fewer only at the end."""
        at, end = self._at, self._at + size
        if end <= len(self._block):
            self._at = end
            self.offset += size
            return bytes(self._block[at:end])
        return b"".join(self.pieces(size))

    def pieces(self, size: int) -> Iterator[memoryview]:
        """Yield `size` bytes in pieces as they come, fewer only at the end. A piece is valid as long as it is held."""
        while size:
            if self._at == len(self._block) and not self._next():
                return
            piece = self._block[self._at : self._at + size]
            self._at += len(piece)
            self.offset += len(piece)
            size -= len(piece)
            yield piece

    def _next(self) -> bool:
        """Take the next block that is not empty; False at the end."""
        for block in self._blocks:
            if block:
                self._block, self._at = memoryview(block), 0
                return True
        self._block, self._at = memoryview(b""), 0
        return False
