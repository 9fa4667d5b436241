"""What a server says of a part of an object, and of the version that it is a part of."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

_RANGE: Final = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18})", re.IGNORECASE)
_STRONG: Final = re.compile(r'"[\x21\x23-\x7e\x80-\xff]*"')


@dataclass(frozen=True, slots=True)
class Part:
    """The bytes from `first` to `last`, both included, of `of_bytes`."""

    first: int
    last: int
    of_bytes: int


def part_of(headers: Mapping[str, str]) -> Part | None:
    """Return what a Content-Range says; None for one that says nothing, or what cannot be."""
    found = _RANGE.fullmatch(headers.get("Content-Range", "").strip())
    if found is None:
        return None
    part = Part(*map(int, found.groups()))
    return part if part.first <= part.last < part.of_bytes else None


def strong_etag(headers: Mapping[str, str]) -> str:
    """Return an ETag that names bytes; empty for a weak one, which two objects may have that only mean the same."""
    text = headers.get("ETag", "").strip()
    return text if _STRONG.fullmatch(text) else ""
