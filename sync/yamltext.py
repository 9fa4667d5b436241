"""YAML of other people's, before a parser sees it: what would keep that busy for minutes is refused. Pure."""

from __future__ import annotations

import re
from itertools import accumulate
from typing import Final

MAX_BYTES: Final = 2**20
"""Ten thousand images with options are half of that, and take some seconds."""

MAX_DEPTH: Final = 50
_BRACKET = re.compile(r"[\[\]{}]")
_NESTED_ITEMS = re.compile(r"(?:[-?:] +){50}")


def refuse_excess(text: str) -> None:
    """Refuse what is too large, or nested more deeply than anything of ours. Raises ValueError."""
    if len(text) > MAX_BYTES:
        raise ValueError(f"too large ({len(text)} characters, at most {MAX_BYTES})")
    steps = (1 if bracket in "[{" else -1 for bracket in _BRACKET.findall(text))
    if max(accumulate(steps), default=0) > MAX_DEPTH or _NESTED_ITEMS.search(text):
        raise ValueError("nested too deeply")
