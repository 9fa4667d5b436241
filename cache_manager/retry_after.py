"""The Retry-After of an HTTP answer, in each form in which servers write it."""

from __future__ import annotations

import re
from email.utils import parsedate_to_datetime
from typing import Final

EPOCH_FROM: Final = 10**9
"""From here on a number is a time since 1970, as Docker Hub sends it: nobody asks to wait for thirty years."""

MIN_S: Final = 1.0
"""For servers that ask for no wait at all, or name a moment that is over: clocks differ."""

MAX_S: Final = 10.0**9

_NUMBER = re.compile(r"([0-9]+)(?:\.[0-9]*)?")
_DIGITS: Final = 18


def retry_after_s(text: str, now: float) -> float | None:
    """Return how long a server asks to wait, from `now`, between MIN_S and MAX_S; None if it does not say."""
    seconds = _seconds(text.strip(), now)
    return None if seconds is None else min(MAX_S, max(MIN_S, seconds))


def _seconds(text: str, now: float) -> float | None:
    number = _NUMBER.fullmatch(text) if text.isascii() else None
    if number:
        value = float(int(number[1][:_DIGITS]))
        is_moment = value >= EPOCH_FROM and len(number[1]) < _DIGITS
        return value - now if is_moment else value
    try:
        return parsedate_to_datetime(text).timestamp() - now
    except (ValueError, TypeError, OverflowError, OSError, IndexError):
        return None
