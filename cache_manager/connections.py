"""Who is connected: one user's connections, however many and however idle, leave room for everybody else's.

A connection that has not yet said what it wants is worth the least: beyond a user's share the oldest of those is
closed, and a new one is refused only where there is none. Root and the manager's own user, which in a pilot is every
job's, are never refused.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

MOST_PER_USER: Final = 1024
SHARE: Final = 4
"""One user's connections take no more than 1/4 of the descriptors; all together leave 1/4 for everything else."""


@dataclass(eq=False, slots=True)
class Seat:
    """One connection; `close` ends it at once."""

    uid: int
    close: Callable[[], None]


@dataclass
class Connections:
    """The connections of all users. `descriptors` is how many files the manager may have open."""

    descriptors: int
    trusted: frozenset[int]
    _all: Counter[int] = field(default_factory=Counter)
    _unheard: dict[int, dict[Seat, None]] = field(default_factory=dict)
    """By user, the oldest first."""

    @property
    def each(self) -> int:
        """How many one user may have."""
        return max(1, min(MOST_PER_USER, self.descriptors // SHARE))

    @property
    def together(self) -> int:
        """How many all users may have."""
        return max(1, self.descriptors - self.descriptors // SHARE)

    @property
    def count(self) -> int:
        """How many there are."""
        return self._all.total()

    def enter(self, uid: int, close: Callable[[], None]) -> Seat | None:
        """Take a connection in, perhaps in exchange for another; None if there is no room for it."""
        full_of = uid if self._all[uid] >= self.each else None
        if full_of is None and self.count >= self.together:
            full_of = max(self._unheard, key=lambda one: len(self._unheard[one]), default=uid)
        if full_of is not None and not self._close_oldest(full_of) and uid not in self.trusted:
            if not self._all[uid]:
                del self._all[uid]
            return None
        seat = Seat(uid, close)
        self._all[uid] += 1
        self._unheard.setdefault(uid, {})[seat] = None
        return seat

    def heard(self, seat: Seat) -> None:
        """Take note that a connection has said what it wants."""
        unheard = self._unheard.get(seat.uid, {})
        unheard.pop(seat, None)
        if not unheard:
            self._unheard.pop(seat.uid, None)

    def leave(self, seat: Seat) -> None:
        """Take note of the end of a connection."""
        self.heard(seat)
        self._all[seat.uid] -= 1
        if not self._all[seat.uid]:
            del self._all[seat.uid]

    def _close_oldest(self, uid: int) -> bool:
        oldest = next(iter(self._unheard.get(uid, {})), None)
        if oldest is None:
            return False
        self.heard(oldest)
        oldest.close()
        return True
