"""Sums of an object that a server knows, as its headers write them, each in more ways than one.

RFC 3230's `Digest: crc32c=0a1b2c3d, md5=...`, and RFC 9530's `Repr-Digest: sha-256=:...:`. What is not well formed says
nothing: servers have sent an MD5 under the name of a CRC, and left leading zeros away.
"""

from __future__ import annotations

import binascii
import hashlib
import re
import zlib
from base64 import b64decode
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

import crc32c

WANTED: Final = "sha-256, crc32c, md5, sha, adler32"
"""For Want-Digest."""

_BYTES: Final = {"sha-256": 32, "crc32c": 4, "md5": 16, "sha": 20, "adler32": 4}
"""What is known, the best first, and how long each is."""

_SHORT: Final = 4
_HEX: Final = re.compile(r"[0-9a-fA-F]+")


@dataclass(frozen=True, slots=True)
class Sum:
    """A sum of an object: the algorithm as in Digest headers, and the value."""

    algorithm: str
    value: bytes

    def __str__(self) -> str:
        """Return it for messages."""
        text = self.value.hex()
        return f"{self.algorithm} {text[:16]}{'...' if len(text) > 16 else ''}"  # noqa: PLR2004 - as of others


def best_sum(headers: Mapping[str, str]) -> Sum | None:
    """Return the best of the sums that headers have; None if there is none that can be meant."""
    found = {one.algorithm: one for one in _sums(headers)}
    return next((found[algorithm] for algorithm in _BYTES if algorithm in found), None)


def sum_of(algorithm: str, pieces: Iterable[bytes]) -> Sum:
    """Compute a sum."""
    if _BYTES[algorithm] == _SHORT:
        step: Callable[[bytes, int], int] = crc32c.crc32c if algorithm == "crc32c" else zlib.adler32
        value = 0 if algorithm == "crc32c" else 1
        for piece in pieces:
            value = step(piece, value)
        return Sum(algorithm, value.to_bytes(_SHORT, "big"))
    name = {"sha": "sha1", "sha-256": "sha256"}.get(algorithm, algorithm)
    digest = hashlib.new(name, usedforsecurity=False)
    for piece in pieces:
        digest.update(piece)
    return Sum(algorithm, digest.digest())


def _sums(headers: Mapping[str, str]) -> Iterable[Sum]:
    for header in ("Digest", "Repr-Digest"):
        for one in headers.get(header, "").split(","):
            name, _, text = one.strip().partition("=")
            algorithm = name.strip().lower()
            value = _value(text.strip(), _BYTES[algorithm]) if algorithm in _BYTES else None
            if value is not None:
                yield Sum(algorithm, value)


def _value(text: str, length: int) -> bytes | None:
    """Return the bytes of a sum in hexadecimal or base64; None if it is neither, or of another length."""
    if text.startswith(":") and text.endswith(":"):
        text = text[1:-1]
    digits = 2 * length
    if _HEX.fullmatch(text) and (len(text) == digits or (length == _SHORT and len(text) < digits)):
        return bytes.fromhex(text.zfill(digits))
    try:
        value = b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError):
        return None
    return value if len(value) == length else None
