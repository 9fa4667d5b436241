"""Making room: for what comes in now, and in the background. Nothing that is in use or pinned ever goes."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import replace
from typing import Protocol

from cache_manager import eviction
from cache_manager.budget import Budget, Holdings
from cache_manager.entry import CacheEntry
from cache_manager.eviction import Cap, EvictionPlan, Shares, Usage
from cache_manager.lease import Reservation
from cache_manager.settings import Settings
from cache_manager.status import StatusError
from cache_manager.text import human_bytes
from cache_manager.trash import Trash

log = logging.getLogger(__name__)


class Giver(Holdings, Protocol):
    """What the cache has, and what it can give up."""

    entries: dict[str, CacheEntry]

    @property
    def held(self) -> frozenset[str]:
        """The keys that are never given up."""

    def look_again(self) -> None:
        """See who holds something no more."""

    def give_up_spare(self) -> bool:
        """Give up what is good for no job as it is; whether there was anything."""

    def give_up(self, keys: Iterable[str]) -> None:
        """Give up entries."""


class Room:
    """Room on one root. Only the loop's thread calls this."""

    def __init__(self, cache: Giver, budget: Budget, trash: Trash, settings: Callable[[], Settings]) -> None:
        self.budget = budget
        self._cache = cache
        self._trash = trash
        self._settings = settings

    def reserve(self, nonce: str, name: str, size_bytes: int, inodes: int = 3, owner: str = "") -> None:
        """Reserve room for an image, or more room for it, for `owner`; evicts what is needed and no more.

        Raises StatusError: IMAGE_TOO_LARGE, CACHE_FULL, DISK_FULL, CACHE_UNUSABLE.
        """
        self.budget.refuse_too_large(name, size_bytes, inodes)
        before = self.budget.reservations.get(nonce, Reservation(nonce, 0, 0, owner))
        after = replace(before, size_bytes=max(size_bytes, before.size_bytes), inodes=max(inodes, before.inodes))
        more = Usage(after.size_bytes - before.size_bytes, after.inodes - before.inodes)
        shares = self.budget.shares({before.owner: more.size_bytes})
        plan, cap = self._plan(nonce, size_bytes, more, shares)
        if not plan.enough:
            self._cache.look_again()  # whoever ended a moment ago
            plan, cap = self._plan(nonce, size_bytes, more, shares)
        if not plan.enough:
            raise self.budget.refusal(name, more, cap, plan)
        self._cache.give_up(plan.keys)
        self.budget.reservations[nonce] = after

    def _plan(self, nonce: str, size_bytes: int, more: Usage, shares: Shares) -> tuple[EvictionPlan, Cap]:
        """Plan room for a reservation. What is in quarantine goes before any image that is good."""

        def plan() -> tuple[EvictionPlan, Cap]:
            cap, cache = self.budget.cap(nonce, size_bytes), self._cache
            return eviction.make_room(cache.entries.values(), cache.held, cache.usage, more, cap, shares), cap

        first, cap = plan()
        if (first.keys or not first.enough) and self._cache.give_up_spare():
            return plan()  # what went is as good as free
        return first, cap

    async def removed(self, nonce: str) -> bool:
        """Wait until what had to be given up for a reservation is gone from the disk, as far as that matters.

        Returns whether something could not be removed: then it takes the room that was reserved.
        """
        stuck = len(self._trash.stuck)
        while self._trash.removals and self._waits(nonce):
            await asyncio.wait(self._trash.removals, return_when=asyncio.FIRST_COMPLETED)
            await asyncio.sleep(0)
        return len(self._trash.stuck) > stuck

    def _waits(self, nonce: str) -> bool:
        one = self.budget.reservations.get(nonce)
        return one is not None and self.budget.waits_for_trash(one)

    def is_short_of_disk(self) -> bool:
        """Whether others leave us less on the disk than has to stay free."""
        try:
            return self.budget.is_short()
        except StatusError:
            return False  # the root is gone, which is told elsewhere

    def keep_free(self, now: float) -> None:
        """Give up entries in the background while others leave less than IMAGE_CACHE_MIN_FREE_BYTES on the disk."""
        self._trash.retry()
        with suppress(OSError):  # it is told elsewhere
            self.budget.load()  # the runtime keeps more and less
        if not self.budget.is_short() or (self._cache.give_up_spare() and not self.budget.is_short()):
            return
        cap, usage, min_age_s = self.budget.cap(), self._cache.usage, self._settings().min_age_s
        target = Usage(usage.size_bytes + min(0, cap.free_bytes), max(1, usage.inodes + min(0, cap.free_inodes)))
        plan = eviction.down_to(self._cache.entries.values(), self._cache.held, usage, target, now - min_age_s)
        if plan.keys:
            short = f"{human_bytes(max(0, -cap.free_bytes))} and {max(0, -cap.free_inodes)} inodes"
            log.info("the disk is short of %s: %s can go", short, human_bytes(plan.freed_bytes))
        self._cache.give_up(plan.keys)

    def tidy(self, now: float) -> None:
        """Evict in the background, from the high watermark down to the low one."""
        settings = self._settings()
        cap, high, low = (
            Cap(settings.max_bytes, settings.max_inodes, 0),
            settings.high_watermark,
            settings.low_watermark,
        )
        target = eviction.watermarks(self._cache.usage, cap, high, low)
        if target is not None and self._cache.give_up_spare():
            target = eviction.watermarks(self._cache.usage, cap, high, low)
        if target is None:
            return
        plan = eviction.down_to(
            self._cache.entries.values(),
            self._cache.held,
            self._cache.usage,
            target,
            now - settings.min_age_s,
            self.budget.shares({}),
        )
        self._cache.give_up(plan.keys)
        if not plan.enough:
            log.warning(
                "background eviction: wanted %s, freed %s; %s, the rest is younger than IMAGE_CACHE_MIN_AGE",
                human_bytes(plan.freed_bytes + plan.short_bytes),
                human_bytes(plan.freed_bytes),
                self._cache.holding(),
            )
