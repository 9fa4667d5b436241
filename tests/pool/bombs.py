"""Squashfs images that take much more than they have, put together byte by byte: tools would take hours. Pure.

Every one of them is what the format allows: inodes that share their blocks, a hole of a terabyte, directories that
share their listing.
"""

from __future__ import annotations

import struct
import zlib
from array import array
from dataclasses import dataclass, field
from typing import Final

_SUPERBLOCK: Final = struct.Struct("<4sIIIIHHHHHHQQQQQQQQ")
_NOTHING: Final = 2**64 - 1
_NO_FRAGMENT: Final = 2**32 - 1
_METADATA_BYTES: Final = 8192
_GZIP: Final = 1
_FLAGS: Final = 0x0010 | 0x0200
"""No fragments, no extended attributes."""
_DIRECTORY, _FILE, _LONG_DIRECTORY, _LONG_FILE = 1, 2, 8, 9
_INODE: Final = struct.Struct("<HHHHII")
_EMPTY_FILE: Final = struct.Struct("<IIII")
_INODE_WORDS: Final = (_INODE.size + _EMPTY_FILE.size) // 4
_RUN: Final = _METADATA_BYTES // (4 * _INODE_WORDS)
"""So many inodes of empty files fill a block, and as many entries may share a header."""

BLOCK_LOG: Final = 20
BLOCK_BYTES: Final = 1 << BLOCK_LOG
TERABYTE: Final = 1 << 40


@dataclass
class _Table:
    """Metadata, compressed in blocks: a place in it is a block's beginning and an offset."""

    packed: bytearray = field(default_factory=bytearray)
    _pending: bytearray = field(default_factory=bytearray)

    @property
    def place(self) -> tuple[int, int]:
        """Where the next byte will lie."""
        return len(self.packed), len(self._pending)

    def add(self, data: bytes) -> tuple[int, int]:
        """Append, and return where that lies."""
        place = self.place
        self._pending += data
        while len(self._pending) >= _METADATA_BYTES:
            self._pack(self._pending[:_METADATA_BYTES])
            del self._pending[:_METADATA_BYTES]
        return place

    def done(self) -> bytes:
        """Return all of it."""
        if self._pending:
            self._pack(self._pending)
            self._pending.clear()
        return bytes(self.packed)

    def _pack(self, data: bytes | bytearray) -> None:
        packed = zlib.compress(data, 6)
        self.packed += struct.pack("<H", len(packed)) + packed


@dataclass
class _Image:
    """A file system: data, inodes and listings; `finish` adds what comes around them."""

    data: bytes = b""
    inodes: _Table = field(default_factory=_Table)
    listings: _Table = field(default_factory=_Table)
    count: int = 0

    def file(self, size: int, blocks: bytes, saved: int = 0) -> tuple[int, int, int]:
        """Add a file whose data begin with the image's, `saved` bytes of it in holes; return its number and place."""
        self.count += 1
        body = struct.pack("<QQQIIII", _SUPERBLOCK.size, size, saved, 1, _NO_FRAGMENT, 0, _NO_FRAGMENT)
        return self.count, *self.inodes.add(_inode(_LONG_FILE, self.count, 0o644) + body + blocks)

    def empty_files(self, count: int) -> list[tuple[int, int]]:
        """Add runs of _RUN empty files; return each run's first number and its block."""
        # whole blocks from here on: then all runs look alike but for their numbers
        self.inodes.add(bytes(-self.inodes.place[1] % _METADATA_BYTES))
        one = _inode(_FILE, 0, 0o644) + _EMPTY_FILE.pack(0, _NO_FRAGMENT, 0, 0)
        words, runs = array("I", one * _RUN), []
        for _ in range(-(-count // _RUN)):
            words[3::_INODE_WORDS] = array("I", range(self.count + 1, self.count + 1 + _RUN))
            runs.append((self.count + 1, self.inodes.add(words.tobytes())[0]))
            self.count += _RUN
        return runs

    def directory(self, listing: tuple[int, int], size: int, parent: int) -> tuple[int, int, int]:
        """Add a directory whose listing of `size` bytes lies there; return its number and place."""
        self.count += 1
        body = struct.pack("<IIIIHHI", 2, size + 3, listing[0], parent, 0, listing[1], _NO_FRAGMENT)
        return self.count, *self.inodes.add(_inode(_LONG_DIRECTORY, self.count, 0o755) + body)

    def finish(self, inodes: list[tuple[int, int, int]], kind: int) -> bytes:
        """Return the image; its root holds these inodes."""
        entries = b"".join(
            struct.pack("<III", 0, block, number) + _entry(offset, 0, kind, b"%07d" % at)
            for at, (number, block, offset) in enumerate(inodes)
        )
        root = self.directory(self.listings.add(entries), len(entries), self.count + 2)
        inode_table, listings = self.inodes.done(), self.listings.done()
        ids = struct.pack("<H", 4 | 0x8000) + bytes(4)
        inodes_at = _SUPERBLOCK.size + len(self.data)
        listings_at = inodes_at + len(inode_table)
        ids_at = listings_at + len(listings)
        index_at = ids_at + len(ids)
        front = _SUPERBLOCK.pack(
            *(b"hsqs", self.count, 0, BLOCK_BYTES, 0, _GZIP, BLOCK_LOG, _FLAGS, 1, 4, 0),
            *(root[1] << 16 | root[2], index_at + 8, index_at, _NOTHING, inodes_at, listings_at, _NOTHING, _NOTHING),
        )
        whole = front + self.data + inode_table + listings + ids + struct.pack("<Q", ids_at)
        return whole + bytes(-len(whole) % 4096)


def _inode(kind: int, number: int, mode: int) -> bytes:
    return _INODE.pack(kind, mode, 0, 0, 0, number)


def _entry(offset: int, delta: int, kind: int, name: bytes) -> bytes:
    return struct.pack("<HhHH", offset, delta, kind, len(name) - 1) + name


def shared_blocks(size: int = TERABYTE) -> bytes:
    """Return files that take `size` in all, and whose blocks are the same ones."""
    block = zlib.compress(bytes(BLOCK_BYTES), 9)
    each = 512  # blocks of a file, which lie one after the other
    image = _Image(block * each)
    blocks = struct.pack("<I", len(block)) * each
    files = [image.file(each * BLOCK_BYTES, blocks) for _ in range(size // (each * BLOCK_BYTES))]
    return image.finish(files, _FILE)


def hole(size: int = TERABYTE) -> bytes:
    """Return one file of `size` bytes that are not there, and stay so."""
    image = _Image()
    return image.finish([image.file(size, bytes(4 * (size // BLOCK_BYTES)), size)], _FILE)


def zeros(size: int = TERABYTE) -> bytes:
    """Return one file of `size` bytes that are not there, and that it says are to be written."""
    image = _Image()
    return image.finish([image.file(size, bytes(4 * (size // BLOCK_BYTES)))], _FILE)


def shared_listing(directories: int = 10_000, names: int = 1024) -> bytes:
    """Return directories that hold the same files under the same names: one listing serves them all."""
    image = _Image()
    runs = image.empty_files(names)
    listing = b"".join(_listed(number, block, _names(run)) for run, (number, block) in enumerate(runs))
    place = image.listings.add(listing)
    return image.finish([image.directory(place, len(listing), 1) for _ in range(directories)], _DIRECTORY)


def nested_listings(width: int = 216, depth: int = 3) -> bytes:
    """Return directories whose entries are all the same directory, and so on down to a file: `width ** depth` names."""
    image = _Image()
    kind, inode = _FILE, image.file(0, b"")
    for level in range(1, depth):
        number, block, offset = inode
        entries = b"".join(_entry(offset, 0, kind, b"%03d" % name) for name in range(width))
        listing = struct.pack("<III", width - 1, block, number) + entries
        kind, inode = _DIRECTORY, image.directory(image.listings.add(listing), len(listing), depth - level + 1)
    return image.finish([inode] * width, _DIRECTORY)


def files(count: int = 10_000_000) -> bytes:
    """Return so many empty files, each with an inode of its own."""
    image = _Image()
    runs = image.empty_files(count)
    each = 40  # runs of a directory
    names = [_names(run) for run in range(each)]
    listings = []
    for first in range(0, len(runs), each):
        listing = b"".join(
            _listed(number, block, one) for (number, block), one in zip(runs[first : first + each], names, strict=False)
        )
        listings.append((image.listings.add(listing), len(listing)))
    return image.finish([image.directory(place, size, 1) for place, size in listings], _DIRECTORY)


def _names(run: int) -> bytes:
    """Return the entries of a run of files: what differs from run to run is in the header."""
    each = 4 * _INODE_WORDS
    return b"".join(_entry(at * each, at, _FILE, b"%02d%03d" % (run, at)) for at in range(_RUN))


def _listed(number: int, block: int, entries: bytes) -> bytes:
    return struct.pack("<III", _RUN - 1, block, number) + entries
