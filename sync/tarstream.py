"""A tar archive as it comes: its members one after another, with their bytes. Pure.

Reads what layers are made with: ustar, pax (with its extensions for sparse files and extended attributes) and GNU's
format (long names, sparse files, numbers in base 256). Names and link targets are bytes, whatever is in them.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from sync.blocks import Blocks
from sync.tarheader import (
    BLOCK_BYTES,
    RawHeader,
    TarError,
    natural,
    number,
    parse,
    pax_number,
    pax_records,
    pax_time_ns,
    sparse_entries,
)

MAX_EXTENSION_BYTES: Final = 2**20
"""Of a long name, or an extended header: more is no header that anybody meant."""

MAX_SPARSE_PARTS: Final = 100_000

_ZEROS: Final = bytes(BLOCK_BYTES)
_XATTR: Final = b"SCHILY.xattr."
_SPARSE: Final = b"GNU.sparse."


class Kind(enum.Enum):
    """What a member is."""

    FILE = "file"
    DIRECTORY = "directory"
    SYMLINK = "symbolic link"
    HARDLINK = "hard link"
    SPECIAL = "device or FIFO"


_KINDS: Final = {
    b"0": Kind.FILE,
    b"\0": Kind.FILE,
    b"7": Kind.FILE,  # contiguous
    b"S": Kind.FILE,  # sparse, as GNU had it first
    b"1": Kind.HARDLINK,
    b"2": Kind.SYMLINK,
    b"3": Kind.SPECIAL,
    b"4": Kind.SPECIAL,
    b"5": Kind.DIRECTORY,
    b"6": Kind.SPECIAL,
}


@dataclass(slots=True)
class Member:
    """What an archive says of one name. `size` is that of the file, `parts` where its bytes lie if it is sparse."""

    name: bytes
    mode: int
    kind: Kind = Kind.DIRECTORY
    mtime_ns: int = 0
    size: int = 0
    link: bytes = b""
    xattrs: dict[bytes, bytes] = field(default_factory=dict)
    parts: list[tuple[int, int]] | None = None


class TarStream:
    """An archive. Iterate over it; `content` is of the member that came last, and what is not read of it is skipped.

    Everything raises TarError for what is no archive, or cut; what the blocks' iterator raises goes through.
    """

    def __init__(self, blocks: Iterator[bytes]) -> None:
        self._source = Blocks(blocks)
        self._left = 0
        self._padding = 0
        self._defaults: dict[bytes, bytes] = {}

    def __iter__(self) -> Iterator[Member]:
        """Yield the members up to the archive's end, and read what may follow."""
        while (header := self._header()) is not None:
            member = self._member(header)
            if member is not None:
                yield member
            self._skip()
        for _ in self._source.pieces(2**62):
            pass  # padding, and the check at the end of what it was unpacked from

    def content(self) -> Iterator[memoryview]:
        """Yield what is stored of the file: all of it, or the parts of a sparse one."""
        for piece in self._source.pieces(self._left):
            self._left -= len(piece)
            yield piece
        if self._left:
            raise TarError(f"truncated: {self._left} bytes of a file are missing")

    def _header(self) -> RawHeader | None:
        """Return the next header; None at the end, which is two blocks of zeros, or where nothing more comes."""
        block = self._source.read(BLOCK_BYTES)
        if block == _ZEROS:
            second = self._source.read(BLOCK_BYTES)
            if second not in (_ZEROS, b""):
                raise TarError("no tar header: zeros between two members")
            return None
        if not block:
            return None
        if len(block) < BLOCK_BYTES:
            raise TarError(f"truncated: a header has {len(block)} of {BLOCK_BYTES} bytes")
        header = parse(block)
        self._left, self._padding = header.size, -header.size % BLOCK_BYTES
        return header

    def _skip(self) -> None:
        for _ in self.content():
            pass
        if self._padding and len(self._source.read(self._padding)) < self._padding:
            raise TarError("truncated: the end of the last file's block is missing")
        self._padding = 0

    def _extension(self) -> bytes:
        if self._left > MAX_EXTENSION_BYTES:
            raise TarError(f"no tar header: an extension of {self._left} bytes")
        body = b"".join(self.content())
        self._skip()
        return body

    def _member(self, header: RawHeader | None) -> Member | None:
        """Read the headers that extend the next one, and that one. None if nothing follows them but the end."""
        name, link = b"", b""
        records: list[tuple[bytes, bytes]] = []
        while header is not None and header.kind in {b"x", b"g", b"L", b"K"}:
            body = self._extension()
            if header.kind == b"L":
                name = body.partition(b"\0")[0]
            elif header.kind == b"K":
                link = body.partition(b"\0")[0]
            elif header.kind == b"g":
                self._defaults |= dict(pax_records(body))
                if sum(len(key) + len(value) for key, value in self._defaults.items()) > MAX_EXTENSION_BYTES:
                    raise TarError("no tar header: too much is said of all members that follow")
            else:
                records = pax_records(body)
            header = self._header()
        if header is None:
            if name or link or records:
                raise TarError("truncated: a header that extends the next one is the last")
            return None
        return self._extended(header, name, link, records)

    def _extended(self, header: RawHeader, name: bytes, link: bytes, records: list[tuple[bytes, bytes]]) -> Member:
        kind = _KINDS.get(header.kind)
        if kind is None:
            raise TarError(f"a member of type {header.kind!r}, which is none of a layer's")
        pax = {**self._defaults, **dict(records)}
        member = Member(name or header.name, header.mode, kind, header.mtime_ns, header.size, link or header.link)
        if pax:
            self._apply(member, pax)
        # before there was a type for directories they had a trailing slash: so may what is cut of a longer name
        if header.kind in {b"0", b"\0"} and member.name.endswith(b"/"):
            member.kind = Kind.DIRECTORY
        if member.kind is not Kind.FILE:
            # such a member has no bytes, whatever its header says: that is how all readers of layers take it
            self._left = self._padding = member.size = 0
        elif header.kind == b"S":
            member.parts, member.size = self._old_sparse(header)
        elif any(key.startswith(_SPARSE) for key in pax):
            self._pax_sparse(member, pax, records)
        if member.parts is not None:
            _check_parts(member, self._left)
        if any(b"\0" in name for name in (member.name, member.link, *member.xattrs)):
            raise TarError("no tar header: a name with a zero byte in it")
        return member

    def _apply(self, member: Member, pax: dict[bytes, bytes]) -> None:
        """Let an extended header's records replace what the header says."""
        for key, value in pax.items():
            if key == b"path":
                member.name = value
            elif key == b"linkpath":
                member.link = value
            elif key == b"mtime":
                member.mtime_ns = pax_time_ns(value)
            elif key == b"size":
                member.size = self._left = pax_number(value, "size")
                self._padding = -self._left % BLOCK_BYTES
            elif key.startswith(_XATTR):
                member.xattrs[key.removeprefix(_XATTR)] = value

    def _old_sparse(self, header: RawHeader) -> tuple[list[tuple[int, int]], int]:
        """Read the map in the header, and in the blocks that continue it."""
        parts = sparse_entries(header.block[386:482])
        more = header.block[482]
        while more:
            block = self._source.read(BLOCK_BYTES)
            if len(block) < BLOCK_BYTES or len(parts) > MAX_SPARSE_PARTS:
                raise TarError("truncated: the map of a sparse file is cut, or has no end")
            parts += sparse_entries(block[:504])
            more = block[504]
        return parts, natural(number(header.block[483:495]), "size of a sparse file")

    def _pax_sparse(self, member: Member, pax: dict[bytes, bytes], records: list[tuple[bytes, bytes]]) -> None:
        """Read the map of a sparse file in one of the three ways in which pax headers have it."""
        member.name = pax.get(_SPARSE + b"name", member.name)
        size = pax.get(_SPARSE + b"realsize") or pax.get(_SPARSE + b"size")
        member.size = pax_number(size or b"", "size of a sparse file")
        if pax.get(_SPARSE + b"major") == b"1":
            member.parts = self._map_before_content()
        elif _SPARSE + b"map" in pax:
            member.parts = _pairs([pax_number(one, "place") for one in pax[_SPARSE + b"map"].split(b",") if one])
        else:
            wanted = (_SPARSE + b"offset", _SPARSE + b"numbytes")
            member.parts = _pairs([pax_number(value, "place") for key, value in records if key in wanted])

    def _map_before_content(self) -> list[tuple[int, int]]:
        """Read the lines of numbers that stand before the file's bytes, up to the end of their last block."""
        text, wanted = b"", 1
        numbers: list[int] = []
        while len(numbers) < wanted:
            if self._left < BLOCK_BYTES or len(numbers) > 2 * MAX_SPARSE_PARTS:
                raise TarError("truncated: the map of a sparse file is cut, or has no end")
            block = self._source.read(BLOCK_BYTES)
            if len(block) < BLOCK_BYTES:
                raise TarError("truncated: the map of a sparse file is cut")
            text += block
            self._left -= BLOCK_BYTES
            *lines, text = text.split(b"\n")
            numbers += [pax_number(line, "place") for line in lines[: wanted - len(numbers)]]
            if wanted == 1 and numbers:
                wanted = 1 + 2 * numbers[0]
                numbers += [pax_number(line, "place") for line in lines[1:wanted]]
        return _pairs(numbers[1:])


def _pairs(numbers: list[int]) -> list[tuple[int, int]]:
    if len(numbers) % 2:
        raise TarError("no tar header: the map of a sparse file ends within a pair")
    return list(zip(numbers[::2], numbers[1::2], strict=True))


def _check_parts(member: Member, stored: int) -> None:
    """Refuse a map that does not fit what is stored, or goes back. A part of no bytes may stand at the end."""
    at = 0
    for offset, length in member.parts or ():
        if offset < at or offset + length > member.size:
            raise TarError(f"no tar header: the map of a sparse file leaves it at {offset}")
        at = offset + length
    if sum(length for _, length in member.parts or ()) != stored:
        raise TarError(f"no tar header: the map of a sparse file does not fit its {stored} bytes")
