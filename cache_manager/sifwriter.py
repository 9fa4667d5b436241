"""The SIF format, written: what stands before the objects of an image file. Pure; `sif` reads it, and says what it is.

Whoever writes an image knows where its objects lie before they are there, so a file system can be packed straight into
the file behind them.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from cache_manager.sif import ARCHITECTURES

TABLE_AT: Final = 4096
ROWS: Final = 48
"""As Apptainer makes them: the rows that are not used are there for signatures."""

_HEADER: Final = struct.Struct("<32s10s3s3s16s8q")
_ROW: Final = struct.Struct("<i?IIIqqqqqqq128s384s")
_GROUP: Final = 0xF0000001
_CODES: Final = {name: code for code, name in ARCHITECTURES.items()}
_SQUASHFS, _PRIMARY = 1, 2

DATA_AT: Final = TABLE_AT + ROWS * _ROW.size
"""Where the first object may lie."""


class Kind(IntEnum):
    """What an object is."""

    DEFINITION = 0x4001
    FILE_SYSTEM = 0x4004
    JSON = 0x4006


@dataclass(frozen=True, slots=True)
class Part:
    """An object of the file and where it lies. A file system is the image's own, and a squashfs."""

    kind: Kind
    name: str
    at: int
    size_bytes: int


def is_known(architecture: str) -> bool:
    """Whether the format has a number for an architecture, named as `uname -m` does."""
    return architecture in _CODES


def front(parts: Sequence[Part], architecture: str, identity: bytes, created_at: int = 0) -> bytes:
    """Return the first DATA_AT bytes of the file; `identity` has 16 bytes. Raises KeyError."""
    code = _CODES[architecture] + b"\0"
    end = max(part.at + part.size_bytes for part in parts)
    header = _HEADER.pack(
        *(b"#!/usr/bin/env run-singularity\n", b"SIF_MAGIC", b"01", code, identity, created_at, created_at),
        *(ROWS - len(parts), ROWS, TABLE_AT, ROWS * _ROW.size, DATA_AT, end - DATA_AT),
    )
    rows = b"".join(_row(number, part, code, created_at) for number, part in enumerate(parts, 1))
    return (header.ljust(TABLE_AT, b"\0") + rows).ljust(DATA_AT, b"\0")


def _row(number: int, part: Part, code: bytes, created_at: int) -> bytes:
    extra = struct.pack("<ii3s", _SQUASHFS, _PRIMARY, code) if part.kind is Kind.FILE_SYSTEM else b""
    return _ROW.pack(
        *(part.kind, True, number, _GROUP, 0, part.at, part.size_bytes, part.size_bytes),
        *(created_at, created_at, 0, 0, part.name.encode(), extra),
    )
