"""What may still come in: the caps, less what is reserved and what of the root is no image.

Accounting is reservations + entries <= cap, always: room is reserved before the first byte is written.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Final, Protocol

from cache_manager.disk import BLOCK_BYTES
from cache_manager.eviction import Cap, EvictionPlan, Shares, Usage, sum_of
from cache_manager.lease import Reservation
from cache_manager.settings import Settings
from cache_manager.status import HookStatus, StatusError
from cache_manager.store import Store
from cache_manager.text import human_bytes
from cache_manager.trash import Trash

SPARE_INODES: Final = 8
"""Left free on the file system whatever is fetched: leases and records need them."""

RECORDS_AHEAD: Final = 4
"""What a fetch writes beside the entry: its object, its pointer, a lease, and the file that becomes one of them."""

OVERHEAD_BYTES: Final = 2 * BLOCK_BYTES
"""What an entry takes beside its image: its record and its directory."""


class Holdings(Protocol):
    """What the cache has."""

    @property
    def usage(self) -> Usage:
        """What counts against the caps now, reservations included."""

    @property
    def records(self) -> int:
        """How many files lie beside the entries."""

    def holding(self) -> str:
        """Return, in words, what cannot be evicted."""

    def failed(self, name: str, error: OSError) -> StatusError:
        """Take note of an error of the file system, and return what it means."""


class Budget:
    """The reservations, and the limits that they leave."""

    def __init__(self, holdings: Holdings, store: Store, trash: Trash, settings: Callable[[], Settings]) -> None:
        self.reservations: dict[str, Reservation] = {}
        self.overhead = Usage(0, 0)
        """What the root takes but for images and records."""
        self._holdings = holdings
        self._store = store
        self._trash = trash
        self._settings = settings

    @property
    def reserved(self) -> Usage:
        """What is reserved in all."""
        return sum_of(Usage(one.size_bytes, one.inodes) for one in self.reservations.values())

    def load(self) -> None:
        """Look at what the root takes but for images and records. Raises OSError."""
        self.overhead = Usage(*self._store.overhead())

    def cap(self, nonce: str = "", size_bytes: int = 0) -> Cap:
        """Return the limits for what is reserved: the entries will take a little more than their images.

        What is reserved and not yet written is still free for the file system, and not for us. Raises StatusError.
        """
        settings, stuck, trash = self._settings(), self._trash.staying, self._trash.going
        others = [one for one in self.reservations.values() if one.nonce != nonce]
        records = self._holdings.records + RECORDS_AHEAD * (len(others) + 1)
        extra = _extra(size_bytes) + sum(_extra(one.size_bytes) for one in others)
        extra += self.overhead.size_bytes + stuck.size_bytes + records * BLOCK_BYTES
        try:
            pending = sum(
                max(0, one.size_bytes - self._store.staged_bytes(one.nonce)) for one in self.reservations.values()
            )
            room = self._store.room()
        except OSError as error:
            raise self._holdings.failed("", error) from None
        inodes = (
            max(1, settings.max_inodes - self.overhead.inodes - stuck.inodes - records) if settings.max_inodes else 0
        )
        free_inodes = room.free_inodes - sum(one.inodes for one in others) + trash.inodes - SPARE_INODES
        free = room.free_bytes - pending + trash.size_bytes - settings.min_free_bytes
        return Cap(settings.max_bytes - extra, inodes, free, free_inodes)

    def shares(self, wanted: Mapping[str, int]) -> Shares:
        """Return what each owner has or wants beside entries, and how much one may have before others go."""
        others = Counter(wanted)
        for one in self.reservations.values():
            others[one.owner] += one.size_bytes
        return Shares(self._settings().owner_bytes, others)

    def is_short(self) -> bool:
        """Whether others leave us less on the disk than has to stay free. Raises StatusError."""
        cap = self.cap()
        return cap.free_bytes < 0 or cap.free_inodes < 0

    def waits_for_trash(self, one: Reservation) -> bool:
        """Whether what is being removed has to be gone before a reservation can be used. Raises StatusError."""
        cap, usage, trash = self.cap(one.nonce, one.size_bytes), self._holdings.usage, self._trash.going
        return (
            usage.size_bytes + trash.size_bytes > cap.size_bytes
            or 0 < cap.inodes < usage.inodes + trash.inodes
            or cap.free_bytes < trash.size_bytes
            or cap.free_inodes < trash.inodes
        )

    def refuse_too_large(self, name: str, size_bytes: int, inodes: int) -> None:
        """Raise StatusError (IMAGE_TOO_LARGE) for what an empty cache has no room for."""
        settings = self._settings()
        whole = self.overhead.size_bytes + _extra(size_bytes) + size_bytes
        if whole > settings.max_bytes or 0 < settings.max_inodes < inodes:
            raise StatusError(
                HookStatus.IMAGE_TOO_LARGE,
                f"{name}: larger than this cache may hold ({human_bytes(size_bytes)},"
                f" IMAGE_CACHE_MAX_BYTES = {human_bytes(settings.max_bytes)})",
            )

    def refusal(self, name: str, need: Usage, cap: Cap, plan: EvictionPlan) -> StatusError:
        """Return what an image is told that there is no room for, although all goes that may go."""
        if need.inodes > cap.free_inodes:
            what = f"wanted {need.inodes}, {max(0, cap.free_inodes + SPARE_INODES)} free"
            place = f"the file system of {self._store.root}"
            return StatusError(HookStatus.DISK_FULL, f"{name}: {place} has no inodes left ({what})")
        used = self._holdings.usage.size_bytes
        numbers = (
            f"wanted {human_bytes(need.size_bytes)}, freed 0 B: {human_bytes(plan.freed_bytes)} would not be enough;"
            f" {self._holdings.holding()}"
        )
        if need.size_bytes - cap.free_bytes > used + need.size_bytes - cap.size_bytes:
            return StatusError(
                HookStatus.DISK_FULL,
                f"{name}: the file system of the cache is full ({numbers}; {human_bytes(max(0, cap.free_bytes))} free"
                f" above IMAGE_CACHE_MIN_FREE_BYTES in {self._store.root})",
            )
        files = f", {cap.inodes} files" if cap.inodes else ""
        return StatusError(
            HookStatus.CACHE_FULL,
            f"{name}: no room in the cache ({numbers}; cap {human_bytes(cap.size_bytes)}{files})",
        )


def _extra(size_bytes: int) -> int:
    """Return what an entry takes on disk beyond its image's bytes."""
    return -size_bytes % BLOCK_BYTES + OVERHEAD_BYTES
