"""Values that are trusted for a time. The clock is passed in: the wall's, which may be set back."""

from __future__ import annotations

from math import inf
from typing import Final, Generic, TypeVar

MAX_VALUES: Final = 20_000

SET_BACK_S: Final = 30.0
"""A clock that is so much behind where it has been was set back, and not just read by two threads."""

_Key = TypeVar("_Key")
_Value = TypeVar("_Value")


class Memory(Generic[_Key, _Value]):
    """Values with a time to live; those longest in it go when there are too many.

    When the clock is set back, all is forgotten: a failure would be remembered until the clock is where it has been.
    """

    def __init__(self, max_values: int = MAX_VALUES) -> None:
        self._known: dict[_Key, tuple[_Value, float]] = {}
        self._max = max_values
        self._newest = -inf

    def get(self, key: _Key, now: float) -> _Value | None:
        """Return what is known and still trusted."""
        self._look_at(now)
        found = self._known.get(key)
        return found[0] if found is not None and now < found[1] else None

    def until(self, key: _Key) -> float:
        """Return until when the value is trusted, 0 if there is none."""
        found = self._known.get(key)
        return found[1] if found else 0.0

    def put(self, key: _Key, value: _Value, until: float) -> None:
        """Remember a value until then."""
        self._known.pop(key, None)
        if len(self._known) >= self._max:
            del self._known[next(iter(self._known))]
        self._known[key] = (value, until)

    def current(self, now: float) -> list[tuple[_Key, _Value]]:
        """Return all that is still trusted."""
        self._look_at(now)
        return [(key, value) for key, (value, until) in self._known.items() if now < until]

    def _look_at(self, now: float) -> None:
        if now < self._newest - SET_BACK_S:
            self._known.clear()
            self._newest = now
        self._newest = max(self._newest, now)
