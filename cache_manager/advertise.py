"""What the slot ad says of the cache. Names are fixed: admins and START expressions use them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from cache_manager import __version__, updatead
from cache_manager.abilities import Abilities
from cache_manager.cache import Counters
from cache_manager.entry import CacheEntry
from cache_manager.updatead import Literal

LIST_BYTES: Final = 4000
"""Longest ImageCacheImages: the collector keeps a copy for each slot."""


def attributes(
    entries: Iterable[CacheEntry], counters: Counters, max_bytes: int, abilities: Abilities
) -> dict[str, Literal]:
    """Return the slot attributes of a healthy cache."""
    known = sorted(entries, key=lambda entry: entry.last_used_at, reverse=True)
    return {
        "ImageCacheHealthy": True,
        "ImageCacheReason": "",
        "ImageCacheImages": _names(known),
        "ImageCacheBytes": sum(entry.disk_bytes for entry in known),
        "ImageCacheMaxBytes": max_bytes,
        "ImageCacheEntries": len(known),
        "ImageCacheHits": counters.hits,
        "ImageCacheMisses": counters.misses,
        "ImageCacheCanUseSIF": abilities.can_use_sif,
        "ImageCacheCanUseSandbox": abilities.can_use_sandbox,
        "ImageCacheVersion": __version__,
    }


def down(reason: str) -> bytes:
    """Return the attributes for a manager that does not answer."""
    return updatead.render({"ImageCacheHealthy": False, "ImageCacheReason": reason, "ImageCacheVersion": __version__})


def _names(entries: Iterable[CacheEntry]) -> str:
    """Return the short names, most recently used first, as many as fit. Entries of one owner's are not named."""
    names: list[str] = []
    left = LIST_BYTES
    for entry in entries:
        size = len(entry.name.encode()) + 1
        if not entry.public or entry.name in names or "," in entry.name:
            continue
        if size > left:
            break
        names.append(entry.name)
        left -= size
    return ",".join(names)
