"""The fields of a tar header, and the records that extend it. Pure.

Source: POSIX.1-2017 (ustar and pax interchange formats), and the GNU tar manual's appendix on its own format.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

BLOCK_BYTES: Final = 512
MAX_NUMBER: Final = 2**63 - 1

_SPARSE_ENTRY_BYTES: Final = 24
_PAX_RECORD = re.compile(rb"([0-9]{1,20}) ([^=]+)=")
_TIME = re.compile(rb"(-?)([0-9]{1,19})(?:\.([0-9]*))?")
_OCTAL = re.compile(rb"[ \0]*([0-7]*)[ \0].*|[ \0]*([0-7]*)", re.DOTALL)


class TarError(ValueError):
    """The bytes are no tar archive that can be read; the text says why."""


@dataclass(frozen=True, slots=True)
class RawHeader:
    """A header block as it stands. `kind` is one byte; `magic` tells GNU's (`ustar  `) from POSIX's."""

    name: bytes
    mode: int
    size: int
    mtime_ns: int
    kind: bytes
    link: bytes
    is_gnu: bool
    block: bytes


def parse(block: bytes) -> RawHeader:
    """Read a header. Raises TarError for a wrong checksum, and for numbers that are none."""
    _check(block)
    is_gnu = block[257:265] == b"ustar  \0"
    name = block[:100].partition(b"\0")[0]
    if not is_gnu and block[257:262] == b"ustar":
        prefix = block[345:500].partition(b"\0")[0]
        if prefix:
            name = prefix + b"/" + name
    return RawHeader(
        name=name,
        mode=number(block[100:108]) & 0o7777,
        size=natural(number(block[124:136]), "size"),
        mtime_ns=_seconds(number(block[136:148])) * 10**9,
        kind=block[156:157],
        link=block[157:257].partition(b"\0")[0],
        is_gnu=is_gnu,
        block=block,
    )


def _check(block: bytes) -> None:
    """Compare the checksum; some old tars summed up signed bytes."""
    said = number(block[148:156])
    found = sum(block) - sum(block[148:156]) + 8 * 32
    if said != found and said != found - 256 * sum(byte > 127 for byte in block[:148] + block[156:]):  # noqa: PLR2004 - the sign
        raise TarError(f"no tar header: its checksum is {said}, that of its bytes {found}")


def number(field: bytes) -> int:
    """Read a number in octal, or in GNU's base 256. Raises TarError."""
    if field[0] & 0x80:
        value = int.from_bytes(field, "big", signed=False) - (0x80 << 8 * (len(field) - 1))
        if field[0] & 0x40:  # negative, in two's complement of what is left without the first bit
            value -= 1 << (8 * len(field) - 1)
        return value
    found = _OCTAL.fullmatch(field)
    if found is None:
        raise TarError(f"no tar header: {field!r} is no number")
    return int(found[1] or found[2] or b"0", 8)


def natural(value: int, what: str) -> int:
    """Return a number that can be a size or a place. Raises TarError for any other."""
    if not 0 <= value <= MAX_NUMBER:
        raise TarError(f"no tar header: a {what} of {value}")
    return value


def _seconds(value: int) -> int:
    """Return a time that a file can have: what cannot be is no reason to refuse an image."""
    return value if 0 <= value < 2**33 else 0


def sparse_entries(raw: bytes) -> list[tuple[int, int]]:
    """Read offset and length of a sparse file's parts, as GNU's old format has them in headers. Raises TarError."""
    found = []
    for at in range(0, len(raw) - _SPARSE_ENTRY_BYTES + 1, _SPARSE_ENTRY_BYTES):
        if not raw[at]:
            break
        offset, length = number(raw[at : at + 12]), number(raw[at + 12 : at + 24])
        found.append((natural(offset, "sparse offset"), natural(length, "sparse length")))
    return found


def pax_records(body: bytes) -> list[tuple[bytes, bytes]]:
    """Return names and values of an extended header, in their order: sparse maps repeat names. Raises TarError."""
    at, found = 0, []
    while at < len(body):
        record = _PAX_RECORD.match(body, at)
        end = at + int(record[1]) if record else 0
        if record is None or not record.end() < end <= len(body) or body[end - 1 : end] != b"\n":
            raise TarError(f"no tar header: a pax record at {at} of {len(body)} bytes cannot be read")
        found.append((record[2], body[record.end() : end - 1]))
        at = end
    return found


def pax_number(value: bytes, what: str) -> int:
    """Read a size or an offset. Raises TarError."""
    if not value.isdigit() or len(value) > 19:  # noqa: PLR2004 - 2**63 has as many
        raise TarError(f"no tar header: a {what} of {value[:30]!r}")
    return natural(int(value), what)


def pax_time_ns(value: bytes) -> int:
    """Read a time with its fraction; 0 for what a file cannot have. Raises TarError for what is no time."""
    found = _TIME.fullmatch(value)
    if found is None:
        raise TarError(f"no tar header: a time of {value[:30]!r}")
    seconds = _seconds(int(found[2]) if not found[1] else -1)
    return seconds * 10**9 + (int((found[3] or b"")[:9].ljust(9, b"0")) if seconds else 0)
