"""What the admin's cleanup frees: what was found and what is wished -> a plan. Pure; a printed plan is the dry run.

Freed are partial fetches, orphans, what is in quarantine, and images: those beyond the policy (above the high
watermark, down to the low one), those not used for a time, and down to a size. In use and pinned ones never.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from cache_manager.entry import CacheEntry
from cache_manager.eviction import Cap, Shares, Usage, down_to, watermarks
from cache_manager.reconcile import Quarantined
from cache_manager.settings import Settings
from cache_manager.text import human_bytes, human_time


class Kind(StrEnum):
    """What an item of the plan is."""

    PARTIAL = "partial fetch"
    ORPHAN = "orphan"
    QUARANTINE = "quarantine"
    IMAGE = "image"
    PILOT = "dead pilot's cache"


@dataclass(frozen=True, slots=True)
class Item:
    """Something to free. `paths` are below the cache root, for an image and for quarantine the key."""

    kind: Kind
    paths: tuple[str, ...]
    what: str
    size_bytes: int
    inodes: int
    why: str

    def to_json(self) -> dict[str, Any]:
        """Return it for programs."""
        return {
            "kind": self.kind.value,
            "paths": list(self.paths),
            "what": self.what,
            "bytes": self.size_bytes,
            "inodes": self.inodes,
            "why": self.why,
        }


@dataclass(frozen=True, slots=True)
class Found:
    """What lies under the root. `held` are the keys in use or pinned, `in_use` those that a job runs from."""

    entries: tuple[CacheEntry, ...]
    held: frozenset[str]
    in_use: frozenset[str]
    usage: Usage
    leftovers: tuple[Item, ...] = ()
    quarantine: tuple[Quarantined, ...] = ()


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the admin wants beside the policy; None: nothing."""

    older_than_s: float | None = None
    to_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class CleanupPlan:
    """The items, in order. `short_bytes` is by how much the wished size cannot be reached."""

    items: tuple[Item, ...]
    short_bytes: int

    @property
    def freed_bytes(self) -> int:
        """What all items take on disk."""
        return sum(one.size_bytes for one in self.items)


def plan(found: Found, wishes: Wishes, settings: Settings, now: float) -> CleanupPlan:
    """Decide."""
    items = list(found.leftovers)
    items += [
        Item(Kind.QUARANTINE, (one.key,), one.name, one.size_bytes, one.inodes, one.why)
        for one in sorted(found.quarantine, key=lambda one: one.key)
        if one.entry_key not in found.in_use
    ]
    # what lies in staging and elsewhere is counted by nobody: only quarantine and images lower the use
    usage = _less(found.usage, [one for one in items if one.kind is Kind.QUARANTINE])
    left = sorted(found.entries, key=lambda one: (one.last_used_at, one.created_at, one.key))

    def take(chosen: Iterable[str], why: str) -> None:
        nonlocal usage, left
        keys = set(chosen)
        taken = [_image(one, why, now) for one in left if one.key in keys]
        items.extend(taken)
        usage, left = _less(usage, taken), [one for one in left if one.key not in keys]

    if wishes.older_than_s is not None:
        oldest = now - wishes.older_than_s
        take((one.key for one in left if one.last_used_at <= oldest and one.key not in found.held), "")
    cap = Cap(settings.max_bytes, settings.max_inodes, 0)
    target = watermarks(usage, cap, settings.high_watermark, settings.low_watermark)
    if target is not None:
        shares = Shares(settings.owner_bytes)
        beyond = down_to(left, found.held, usage, target, now - settings.min_age_s, shares)
        take(beyond.keys, f"beyond IMAGE_CACHE_HIGH_WATERMARK ({settings.high_watermark} %)")
    short_bytes = 0
    if wishes.to_bytes is not None:
        wished = down_to(left, found.held, usage, Usage(wishes.to_bytes, 0), now)
        take(wished.keys, f"down to {human_bytes(wishes.to_bytes)}")
        short_bytes = wished.short_bytes
    return CleanupPlan(tuple(items), short_bytes)


def _less(usage: Usage, items: Iterable[Item]) -> Usage:
    taken = list(items)
    return Usage(
        usage.size_bytes - sum(one.size_bytes for one in taken), usage.inodes - sum(one.inodes for one in taken)
    )


def _image(entry: CacheEntry, why: str, now: float) -> Item:
    unused = f"not used for {human_time(now - entry.last_used_at)}"
    what = f"{entry.shown} ({entry.key[:12]})"
    return Item(Kind.IMAGE, (entry.key,), what, entry.disk_bytes, entry.inodes, f"{why}; {unused}" if why else unused)
