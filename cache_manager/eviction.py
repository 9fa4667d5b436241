"""Which entries to give up: least recently used first, never one that is held. Pure: a plan, which the cache applies.

Held are entries in use and pinned ones. Of entries used at the same time the older goes first, then by key. Owners
above their share give up theirs first, down to that share; what nobody owns counts against no share.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from cache_manager.entry import CacheEntry


@dataclass(frozen=True, slots=True)
class Usage:
    """What counts against a cap: entries and reservations."""

    size_bytes: int
    inodes: int


def sum_of(usages: Iterable[Usage]) -> Usage:
    """Return what several take together."""
    found = list(usages)
    return Usage(sum(one.size_bytes for one in found), sum(one.inodes for one in found))


@dataclass(frozen=True, slots=True)
class Cap:
    """The limits; `inodes` 0 means none. `free_bytes` and `free_inodes` are what the file system still takes."""

    size_bytes: int
    inodes: int
    free_bytes: int
    free_inodes: int = 1 << 62


@dataclass(frozen=True, slots=True)
class Shares:
    """What owners have, beside their entries: reservations, and what is wanted now. `limit_bytes` 0: no share."""

    limit_bytes: int = 0
    others: Mapping[str, int] = field(default_factory=dict)

    def of(self, entries: Iterable[CacheEntry]) -> Counter[str]:
        """Return the bytes of each owner."""
        found = Counter(self.others)
        for entry in entries:
            found[entry.owner] += entry.disk_bytes
        del found[""]
        return found


NO_SHARES: Final = Shares()


@dataclass(frozen=True, slots=True)
class EvictionPlan:
    """The entries to give up, in order, and what that frees. `short_bytes` is what is still missing: 0 if enough."""

    keys: tuple[str, ...]
    freed_bytes: int
    freed_inodes: int
    short_bytes: int
    short_inodes: int

    @property
    def enough(self) -> bool:
        """Whether what was wanted becomes free."""
        return self.short_bytes <= 0 and self.short_inodes <= 0


def make_room(  # noqa: PLR0913, PLR0917 - what is there, what is wanted, and the rules
    entries: Iterable[CacheEntry],
    held: Collection[str],
    usage: Usage,
    need: Usage,
    cap: Cap,
    shares: Shares = NO_SHARES,
) -> EvictionPlan:
    """Plan room for `need` under the cap. A job waits, so age does not protect: only leases and pins do.

    Frees just enough; a plan that is not enough frees nothing.
    """
    short_bytes = max(usage.size_bytes + need.size_bytes - cap.size_bytes, need.size_bytes - cap.free_bytes)
    short_inodes = max(usage.inodes + need.inodes - cap.inodes if cap.inodes else 0, need.inodes - cap.free_inodes)
    plan = _least_recently_used(entries, held, Usage(short_bytes, short_inodes), shares)
    if plan.enough:
        return plan
    return EvictionPlan((), plan.freed_bytes, plan.freed_inodes, plan.short_bytes, plan.short_inodes)


def down_to(  # noqa: PLR0913, PLR0917 - what is there, what is wanted, and the rules
    entries: Iterable[CacheEntry],
    held: Collection[str],
    usage: Usage,
    target: Usage,
    youngest_at: float,
    shares: Shares = NO_SHARES,
) -> EvictionPlan:
    """Plan an eviction down to `target` (its inodes 0: they do not matter), as far as that is possible.

    Entries created after `youngest_at` stay.
    """
    old = [entry for entry in entries if entry.created_at <= youngest_at]
    short_inodes = usage.inodes - target.inodes if target.inodes else 0
    return _least_recently_used(old, held, Usage(usage.size_bytes - target.size_bytes, short_inodes), shares)


def watermarks(usage: Usage, cap: Cap, high: int, low: int) -> Usage | None:
    """Return what the background eviction goes down to; None while the use is below the high watermark (percent)."""
    full = usage.size_bytes > cap.size_bytes * high / 100 or 0 < cap.inodes * high / 100 < usage.inodes
    return Usage(cap.size_bytes * low // 100, cap.inodes * low // 100) if full else None


def _least_recently_used(
    entries: Iterable[CacheEntry], held: Collection[str], short: Usage, shares: Shares
) -> EvictionPlan:
    # ties by age, then by key, so that a plan is the same whatever the order on disk
    oldest_first = sorted(entries, key=lambda one: (one.last_used_at, one.created_at, one.key))
    free = [entry for entry in oldest_first if entry.key not in held]
    taken: dict[str, CacheEntry] = {}
    freed_bytes = freed_inodes = 0
    for entry in (*_beyond_shares(free, shares.of(oldest_first), shares.limit_bytes), *free):
        if freed_bytes >= short.size_bytes and freed_inodes >= short.inodes:
            break
        if entry.key not in taken:
            taken[entry.key] = entry
            freed_bytes += entry.disk_bytes
            freed_inodes += entry.inodes
    return EvictionPlan(
        tuple(taken),
        freed_bytes,
        freed_inodes,
        max(0, short.size_bytes - freed_bytes),
        max(0, short.inodes - freed_inodes),
    )


def _beyond_shares(oldest_first: Iterable[CacheEntry], owned: Counter[str], limit_bytes: int) -> Iterator[CacheEntry]:
    """Yield what owners above their share would give up to come down to it."""
    if not limit_bytes:
        return
    for entry in oldest_first:
        if owned[entry.owner] > limit_bytes:
            owned[entry.owner] -= entry.disk_bytes
            yield entry
