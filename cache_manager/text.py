"""Text for people: on one line, of bounded length, with numbers as people read them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")

_LEAST: Final = 16
"""Of a text that is shortened there is at least so much: its two ends, and what says that something is missing."""


def without_secrets(text: str) -> str:
    """Return a reference without what may be secret: the user part and the query of a URL. Others stay as they are."""
    if "://" not in text:
        return text
    prefix, _, rest = text.partition("://")
    rest = re.split("[?#]", rest, maxsplit=1)[0]
    host, slash, path = rest.partition("/")
    return f"{prefix}://{host.rpartition('@')[2]}{slash}{path}"


def printable(text: str, limit: int = 120) -> str:
    """Return `text` on one line, control characters replaced, the middle of long ones left out."""
    clean = _CONTROL.sub("?", text)
    if len(clean) <= limit:
        return clean
    return f"{clean[: limit * 2 // 3]}...{clean[-limit // 4 :]}"


def shorten(text: str, limit_bytes: int) -> str:
    """Return `text` in at most `limit_bytes` of UTF-8: the middle goes, its beginning and end stay."""
    raw = text.encode(errors="replace")
    if len(raw) <= limit_bytes:
        return raw.decode()
    half = (limit_bytes - 5) // 2
    return raw[:half].decode(errors="ignore") + " ... " + raw[-half:].decode(errors="ignore")


def fair(parts: Sequence[str], limit_bytes: int) -> list[str]:
    """Return the texts in at most `limit_bytes` together: short ones whole, the long ones with the same room each."""
    sizes = [len(part.encode(errors="replace")) for part in parts]
    room, each = limit_bytes, limit_bytes
    for done, size in enumerate(sorted(sizes)):
        each = room // (len(sizes) - done)
        if size > each:
            break
        room -= size
        each = limit_bytes
    return [shorten(part, max(each, _LEAST)) for part in parts]


def human_time(seconds: float) -> str:
    """Return a time as people say it: `5 min`."""
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(0.0, seconds):.0f} s"


def human_bytes(size: float) -> str:
    """Return a size as people read it: `3.1 MB`."""
    value = float(size)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:  # noqa: PLR2004 - decimal units
            return f"{value:.0f} B" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"
