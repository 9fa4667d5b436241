"""How much a registry lets us ask, as it says in its headers. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from cache_manager.retry_after import EPOCH_FROM, retry_after_s

_COUNT = re.compile(r"\s*([0-9]{1,15})\s*(?:;(.*))?", re.DOTALL)
_WINDOW = re.compile(r"(?:^|;)\s*w\s*=\s*([0-9]{1,9})")
_PREFIXES: Final = ("ratelimit-", "x-ratelimit-")


@dataclass(frozen=True, slots=True)
class RateLimit:
    """What is left of what may be asked: `remaining` of `limit` requests in `window_s`, which ends in `reset_s`.

    None for what was not said.
    """

    limit: int | None = None
    remaining: int | None = None
    window_s: float | None = None
    reset_s: float | None = None

    @property
    def spent(self) -> bool:
        """Whether the next request would be refused."""
        return self.remaining == 0

    @property
    def wait_s(self) -> float | None:
        """How long to leave the registry alone; None if it does not ask for that."""
        if not self.spent:
            return None
        return self.reset_s if self.reset_s is not None else self.window_s


def read(headers: Mapping[str, str], now: float) -> RateLimit | None:
    """Return what an answer's headers say of the limit, `now` being seconds since 1970; None if nothing.

    `headers` have names in lower case, or take any case. Docker Hub says `100;w=21600`, others a number alone.
    """
    for prefix in _PREFIXES:
        limit, limit_window = _count(headers.get(f"{prefix}limit"))
        remaining, window = _count(headers.get(f"{prefix}remaining"))
        reset, _ = _count(headers.get(f"{prefix}reset"))
        if limit is not None or remaining is not None:
            reset_s = None if reset is None else max(0.0, float(reset - now if reset >= EPOCH_FROM else reset))
            seconds = window if window is not None else limit_window
            return RateLimit(limit, remaining, seconds, reset_s)
    return None


def wait_s(headers: Mapping[str, str], now: float) -> float | None:
    """Return how long an answer that refuses asks to wait: its Retry-After, else until the limit ends."""
    said = retry_after_s(headers.get("retry-after", ""), now)
    if said is not None:
        return said
    limit = read(headers, now)
    return limit.wait_s if limit else None


def _count(text: str | None) -> tuple[int | None, float | None]:
    found = _COUNT.fullmatch(text) if text is not None and text.isascii() else None
    if found is None:
        return None, None
    window = _WINDOW.search(found[2] or "")
    return int(found[1]), float(window[1]) if window else None
