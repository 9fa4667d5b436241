"""Which entries to give up: least recently used first, never one in use. Pure: a plan, which the cache applies."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from cache_manager.entry import CacheEntry


@dataclass(frozen=True, slots=True)
class Usage:
    """What counts against a cap: entries and reservations."""

    size_bytes: int
    inodes: int


@dataclass(frozen=True, slots=True)
class Cap:
    """The limits; `inodes` 0 means none. `free_bytes` is what may still be written to the file system."""

    size_bytes: int
    inodes: int
    free_bytes: int


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


def make_room(
    entries: Iterable[CacheEntry],
    in_use: Collection[str],
    usage: Usage,
    need: Usage,
    cap: Cap,
) -> EvictionPlan:
    """Plan room for `need` under the cap. A job waits, so age does not protect: only use does.

    Frees just enough; a plan that is not enough frees nothing.
    """
    short_bytes = max(usage.size_bytes + need.size_bytes - cap.size_bytes, need.size_bytes - cap.free_bytes)
    short_inodes = usage.inodes + need.inodes - cap.inodes if cap.inodes else 0
    plan = _least_recently_used(entries, in_use, short_bytes, short_inodes)
    if plan.enough:
        return plan
    return EvictionPlan((), plan.freed_bytes, plan.freed_inodes, plan.short_bytes, plan.short_inodes)


def down_to(
    entries: Iterable[CacheEntry],
    in_use: Collection[str],
    usage: Usage,
    target_bytes: int,
    youngest_at: float,
) -> EvictionPlan:
    """Plan the background eviction down to `target_bytes`; entries created after `youngest_at` stay."""
    old = [entry for entry in entries if entry.created_at <= youngest_at]
    return _least_recently_used(old, in_use, usage.size_bytes - target_bytes, 0)


def _least_recently_used(
    entries: Iterable[CacheEntry], in_use: Collection[str], short_bytes: int, short_inodes: int
) -> EvictionPlan:
    keys = []
    freed_bytes = freed_inodes = 0
    # ties by age, then by key, so that a plan is the same whatever the order on disk
    for entry in sorted(entries, key=lambda one: (one.last_used_at, one.created_at, one.key)):
        if freed_bytes >= short_bytes and freed_inodes >= short_inodes:
            break
        if entry.key in in_use:
            continue
        keys.append(entry.key)
        freed_bytes += entry.disk_bytes
        freed_inodes += entry.inodes
    return EvictionPlan(
        tuple(keys),
        freed_bytes,
        freed_inodes,
        max(0, short_bytes - freed_bytes),
        max(0, short_inodes - freed_inodes),
    )
