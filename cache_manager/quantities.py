"""Sizes and times as admins write them: `20 GB`, `15m`; a plain number is bytes or seconds."""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Final

_QUANTITY = re.compile(r"([0-9]{1,18}(?:\.[0-9]{1,9})?)\s*([A-Za-z]*)")
_SIZES: Final = {"": 1, "b": 1} | {
    f"{letter}{suffix}": base**power
    for power, letter in enumerate("kmgt", 1)
    for suffix, base in (("b", 1000), ("ib", 1024), ("", 1000))
}
_TIMES: Final = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}


def parse_size(text: str) -> int:
    """Read a size in bytes. Raises ValueError."""
    return int(_quantity(text, _SIZES, "a size like 20 GB"))


def parse_time(text: str) -> float:
    """Read a time in seconds. Raises ValueError."""
    return float(_quantity(text, _TIMES, "a time like 15m"))


def _quantity(text: str, units: Mapping[str, int], wanted: str) -> Decimal:
    found = _QUANTITY.fullmatch(text.strip())
    if not found or found.group(2).lower() not in units:
        raise ValueError(f"is no {wanted.removeprefix('a ')}: {text[:40]!r} (units: {' '.join(filter(None, units))})")
    return Decimal(found.group(1)) * units[found.group(2).lower()]
