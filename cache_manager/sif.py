"""The SIF format: is this a whole image, and for which architecture.

Source: the format as the sif library of Apptainer and SingularityCE writes it. The global header takes 128 bytes:
launch script 32 bytes, magic 10, version 3, architecture 3, id 16, then eight little-endian 64-bit integers. A table
of descriptors (585 bytes each, commonly 48 of them at 4096) says where each object lies.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

HEADER_BYTES: Final = 128
_HEADER = struct.Struct("<32s10s3s3s16s8q")
_MAGIC: Final = b"SIF_MAGIC\x00"
_MAGIC_AT: Final = 32
ARCHITECTURES: Final = {
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

DESCRIPTOR_BYTES: Final = 585
_DESCRIPTOR = struct.Struct("<i?IIIqqqqqqq128sii")
"""Type, used, id, group, link, offset, size; size with padding, times, owners, name; file system and its use."""
_SQUASHFS: Final = 1
_PRIMARY: Final = 2
SQUASHFS_MAGIC: Final = b"hsqs"
_SQUASHFS_VERSION: Final = 4
_SUPERBLOCK: Final = struct.Struct("<4sIIIIHHHHHHQQ")
SUPERBLOCK_BYTES: Final = _SUPERBLOCK.size
"""Magic, files, time, block, fragments, compression, log, flags, ids, version (2), root, bytes that it takes packed."""

MAX_DESCRIPTORS: Final = 1000
"""More is no image: each takes a read, and nobody builds one with a hundred objects."""

_PARTITION: Final = 0x4004
_OCI_INDEX: Final = 0x400A
_IMAGES: Final = frozenset({_PARTITION, _OCI_INDEX})
"""What a runtime can start: a file system, or (SingularityCE 4) an OCI image."""

_TYPES: Final = {
    0x4001: "definition file",
    0x4002: "environment",
    0x4003: "labels",
    _PARTITION: "file system",
    0x4005: "signature",
    0x4006: "JSON",
    0x4007: "data",
    0x4008: "encryption key",
    0x4009: "SBOM",
    _OCI_INDEX: "OCI index",
    0x400B: "OCI blob",
}

Read = Callable[[int, int], bytes]
"""Takes an offset and a length, and returns what the file has there: less at its end."""


@dataclass(frozen=True, slots=True)
class SifHeader:
    """What the header says: the architecture as `uname -m` names it (empty if unknown) and where the data ends."""

    architecture: str
    end_bytes: int


@dataclass(frozen=True, slots=True)
class _Table:
    """Where the descriptors lie."""

    count: int
    at: int
    size_bytes: int

    @property
    def end(self) -> int:
        return self.at + self.size_bytes


@dataclass(frozen=True, slots=True)
class _Object:
    """What a descriptor describes; `name` is for messages."""

    name: str
    kind: int
    at: int
    size_bytes: int
    is_squashfs: bool


class SifError(ValueError):
    """The bytes are no SIF; the text says why."""


class TruncatedError(SifError):
    """The end of the file is missing: what is there may well be the beginning of a SIF."""


def parse(read: Read, size_bytes: int) -> SifHeader:
    """Read header, descriptors and the file system's magic of a file. Raises SifError if it is no SIF, or not whole.

    Every object in use has to lie within the file, and one has to be an image. What `read` raises goes through.
    """
    return _parse(read, size_bytes, size_bytes)


def parse_header(head: bytes, size_bytes: int) -> SifHeader:
    """Read the first bytes of a file of `size_bytes`. Raises SifError if it is no SIF, or not whole.

    Descriptors are looked at as far as they are among these bytes.
    """
    return _parse(lambda at, length: head[at : at + length], len(head), size_bytes)


def _parse(read: Read, known_bytes: int, size_bytes: int) -> SifHeader:
    """Read what lies within the first `known_bytes`."""
    if size_bytes == 0:
        raise SifError("empty (0 bytes)")
    found, table = _header(read(0, HEADER_BYTES), size_bytes)
    if table.end > size_bytes:
        raise TruncatedError(f"truncated SIF: its descriptors end at {table.end}, the file at {size_bytes}")
    known = min(table.count, max(0, known_bytes - table.at) // DESCRIPTOR_BYTES)
    images = 0
    for number in range(known):
        raw = read(table.at + number * DESCRIPTOR_BYTES, DESCRIPTOR_BYTES)
        if len(raw) < DESCRIPTOR_BYTES:
            raise TruncatedError(f"truncated SIF: its descriptors end at {table.end}, the file before")
        one = _object(raw, table, size_bytes)
        if one is None:
            continue
        images += one.kind in _IMAGES
        if one.is_squashfs and one.at + SUPERBLOCK_BYTES <= known_bytes:
            _check_squashfs(one, read(one.at, min(one.size_bytes, SUPERBLOCK_BYTES)))
    # after the objects: which of them is cut tells more
    if found.end_bytes > size_bytes:
        raise TruncatedError(f"truncated SIF ({size_bytes} of {found.end_bytes} bytes)")
    if known == table.count and not images:
        raise SifError(f"no image: a SIF without a file system ({size_bytes} bytes)")
    return found


def _header(head: bytes, size_bytes: int) -> tuple[SifHeader, _Table]:
    if head[_MAGIC_AT : _MAGIC_AT + len(_MAGIC)] != _MAGIC:
        raise SifError(f"no SIF: {_what_it_is(head)} ({size_bytes} bytes)")
    if len(head) < HEADER_BYTES:
        raise TruncatedError(f"truncated SIF: shorter than its header ({size_bytes} of {HEADER_BYTES} bytes)")
    _, _, _, arch, _, _, _, _, total, table_at, table_bytes, data_at, data_bytes = _HEADER.unpack_from(head)
    if min(total, table_at, table_bytes, data_at, data_bytes) < 0:
        raise SifError(f"damaged SIF header: a negative number ({size_bytes} bytes)")
    if total > MAX_DESCRIPTORS:
        raise SifError(f"damaged SIF header: {total} descriptors ({size_bytes} bytes)")
    if total * DESCRIPTOR_BYTES > table_bytes:
        raise SifError(f"damaged SIF header: {total} descriptors in {table_bytes} bytes ({size_bytes} bytes)")
    if total and table_at < HEADER_BYTES:
        raise SifError(f"damaged SIF header: descriptors at {table_at}, within the header ({size_bytes} bytes)")
    table = _Table(total, table_at, table_bytes)
    end = max(data_at + data_bytes, table.end)
    return SifHeader(ARCHITECTURES.get(arch.rstrip(b"\x00"), ""), end), table


def _object(raw: bytes, table: _Table, size_bytes: int) -> _Object | None:
    """Return what a descriptor describes, None for one that is not in use. Raises SifError."""
    kind, used, number, _, _, at, length, *_, form, _ = _DESCRIPTOR.unpack_from(raw)
    if not used:
        return None
    name = f"object {number} ({_TYPES.get(kind, f'type {kind}')})"
    if at < HEADER_BYTES or length < 0:
        raise SifError(f"damaged SIF: {name} at {at}, {length} bytes long")
    if at + length > size_bytes:
        raise TruncatedError(f"truncated SIF: {name} ends at {at + length}, the file at {size_bytes}")
    if length and at < table.end and at + length > table.at:
        raise SifError(f"damaged SIF: {name} at {at} lies over the descriptors ({table.at} to {table.end})")
    return _Object(name, kind, at, length, is_squashfs=kind == _PARTITION and form == _SQUASHFS)


def _check_squashfs(one: _Object, superblock: bytes) -> None:
    if len(superblock) < SUPERBLOCK_BYTES or not superblock.startswith(SQUASHFS_MAGIC):
        raise SifError(f"damaged SIF: {one.name} at {one.at} is no squashfs ({one.size_bytes} bytes)")
    *_, version, _, _, packed = _SUPERBLOCK.unpack_from(superblock)
    if version == _SQUASHFS_VERSION and packed > one.size_bytes:  # cut before it came into the SIF
        raise SifError(f"damaged SIF: {one.name} has {one.size_bytes} of the {packed} bytes of its squashfs")


def _what_it_is(head: bytes) -> str:
    text = head.lstrip().lower()
    if text.startswith((b"<!doctype html", b"<html")):
        return "an HTML page"
    if text.startswith((b"<?xml", b"<error")):
        return "an XML document"
    if text.startswith(b"{"):
        return "a JSON document"
    for magic, what in _OTHERS.items():
        if head.startswith(magic):
            return what
    if not head.strip(b"\x00"):
        return "zeros"
    return "its magic is missing"


_OTHERS: Final = {
    b"\x1f\x8b": "gzip data",
    b"\x7fELF": "a program (ELF)",
    SQUASHFS_MAGIC: "a squashfs without a SIF header",
    b"BZh": "bzip2 data",
    b"\xfd7zXZ": "xz data",
    b"\x28\xb5\x2f\xfd": "zstd data",
    b"PK\x03\x04": "a ZIP archive",
    b"version https://git-lfs": "a Git LFS pointer",
}


@dataclass(frozen=True, slots=True)
class Partition:
    """Where a part of a SIF lies in the file."""

    offset: int
    size_bytes: int


def table_of(head: bytes) -> Partition:
    """Return where the descriptors lie of a SIF whose header was read by `parse_header`."""
    _, _, _, _, _, _, _, _, total, table_at, _, _, _ = _HEADER.unpack_from(head)
    return Partition(table_at, min(total, MAX_DESCRIPTORS) * DESCRIPTOR_BYTES)


def root_squashfs(table: bytes) -> Partition | None:
    """Return the image's file system if that is one squashfs and nothing lies over it; None for any other SIF."""
    found = []
    for at in range(0, len(table) - DESCRIPTOR_BYTES + 1, DESCRIPTOR_BYTES):
        kind, used, _, _, _, offset, size, *_, file_system, use = _DESCRIPTOR.unpack_from(table, at)
        if used and kind == _PARTITION:
            found.append((Partition(offset, size), file_system, use))
    if len(found) == 1 and found[0][1:] == (_SQUASHFS, _PRIMARY) and found[0][0].offset > 0:
        return found[0][0]
    return None


def squashfs_counts(superblock: bytes) -> tuple[int, int] | None:
    """Return how many files a squashfs has and how many bytes it takes packed; None if it is none."""
    if len(superblock) < _SUPERBLOCK.size:
        return None
    magic, files, *_, packed = _SUPERBLOCK.unpack_from(superblock)
    return (files, packed) if magic == SQUASHFS_MAGIC and packed >= 0 else None
