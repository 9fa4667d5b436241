"""The SIF global header: is this a whole image, and for which architecture.

Source: the SIF format as Apptainer's sif library writes it (`pkg/sif/sif.go`): launch script 32 bytes, magic 10,
version 3, architecture 3, id 16, then eight little-endian 64-bit integers.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

HEADER_BYTES: Final = 128
_HEADER = struct.Struct("<32s10s3s3s16s8q")
_MAGIC: Final = b"SIF_MAGIC\x00"
_MAGIC_AT: Final = 32
_ARCHITECTURES: Final = {
    b"01": "i686",
    b"02": "x86_64",
    b"03": "armv7l",
    b"04": "aarch64",
    b"05": "ppc64",
    b"06": "ppc64le",
    b"07": "mips",
    b"08": "mipsel",
    b"09": "mips64",
    b"10": "mips64el",
    b"11": "s390x",
    b"12": "riscv64",
}


@dataclass(frozen=True, slots=True)
class SifHeader:
    """What the header says: the architecture as `uname -m` names it (empty if unknown) and where the data ends."""

    architecture: str
    end_bytes: int


class SifError(ValueError):
    """The bytes are no SIF; the text says why."""


def parse_header(head: bytes, size_bytes: int) -> SifHeader:
    """Read the first bytes of a file of `size_bytes`. Raises SifError if it is no SIF, or not whole."""
    if size_bytes == 0:
        raise SifError("empty (0 bytes)")
    if head[_MAGIC_AT : _MAGIC_AT + len(_MAGIC)] != _MAGIC:
        raise SifError(f"no SIF: {_what_it_is(head)} ({size_bytes} bytes)")
    if len(head) < HEADER_BYTES:
        raise SifError(f"truncated SIF: shorter than its header ({size_bytes} of {HEADER_BYTES} bytes)")
    _, _, _, arch, _, _, _, _, total, table_at, table_bytes, data_at, data_bytes = _HEADER.unpack_from(head)
    if min(total, table_at, table_bytes, data_at, data_bytes) < 0:
        raise SifError(f"damaged SIF header ({size_bytes} bytes)")
    end = max(data_at + data_bytes, table_at + table_bytes)
    if end > size_bytes:
        raise SifError(f"truncated SIF ({size_bytes} of {end} bytes)")
    return SifHeader(_ARCHITECTURES.get(arch.rstrip(b"\x00"), ""), end)


def _what_it_is(head: bytes) -> str:
    text = head.lstrip().lower()
    if text.startswith((b"<!doctype html", b"<html")):
        return "an HTML page"
    if text.startswith((b"<?xml", b"<error")):
        return "an XML document"
    if text.startswith(b"{"):
        return "a JSON document"
    return "its magic is missing"


_DESCRIPTOR: Final = struct.Struct("<i?IIIqqqqqqq128sii")
_DESCRIPTOR_BYTES: Final = 585
_MOST_DESCRIPTORS: Final = 1000
_PARTITION, _SQUASHFS, _PRIMARY = 0x4004, 1, 2


@dataclass(frozen=True, slots=True)
class Partition:
    """Where a part of a SIF lies in the file."""

    offset: int
    size_bytes: int


def table_of(head: bytes) -> Partition:
    """Return where the descriptors lie of a SIF whose header was read by `parse_header`."""
    _, _, _, _, _, _, _, _, total, table_at, _, _, _ = _HEADER.unpack_from(head)
    return Partition(table_at, min(total, _MOST_DESCRIPTORS) * _DESCRIPTOR_BYTES)


def root_squashfs(table: bytes) -> Partition | None:
    """Return the image's file system if that is one squashfs and nothing lies over it; None for any other SIF."""
    found = []
    for at in range(0, len(table) - _DESCRIPTOR_BYTES + 1, _DESCRIPTOR_BYTES):
        kind, used, _, _, _, offset, size, *_, file_system, use = _DESCRIPTOR.unpack_from(table, at)
        if used and kind == _PARTITION:
            found.append((Partition(offset, size), file_system, use))
    if len(found) == 1 and found[0][1:] == (_SQUASHFS, _PRIMARY) and found[0][0].offset > 0:
        return found[0][0]
    return None


_SUPERBLOCK: Final = struct.Struct("<4sIIIIHHHHHHQQ")
SUPERBLOCK_BYTES: Final = _SUPERBLOCK.size


def squashfs_counts(superblock: bytes) -> tuple[int, int] | None:
    """Return how many files a squashfs has and how many bytes it takes packed; None if it is none."""
    if len(superblock) < _SUPERBLOCK.size:
        return None
    magic, files, *_, packed = _SUPERBLOCK.unpack_from(superblock)
    return (files, packed) if magic == b"hsqs" and packed >= 0 else None
