"""The cache's state: entries, what is in quarantine, and what was begun. Only the loop's thread calls this.

Leases, room, objects and the trash are things of their own, which this puts together.
"""

from __future__ import annotations

import logging
import os
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from cache_manager import readback, reconcile, scan
from cache_manager.budget import Budget
from cache_manager.disk import BLOCK_BYTES
from cache_manager.entry import CacheEntry
from cache_manager.eviction import Usage
from cache_manager.lease import Holder, Reservation
from cache_manager.leases import Leases, Told
from cache_manager.objects import Objects
from cache_manager.outcome import Located
from cache_manager.partial import Partial
from cache_manager.pins import Pins
from cache_manager.readback import Signature
from cache_manager.reconcile import Quarantined
from cache_manager.room import Room
from cache_manager.settings import Settings
from cache_manager.status import HookStatus, StatusError
from cache_manager.store import Store
from cache_manager.text import human_bytes
from cache_manager.trash import Trash

log = logging.getLogger(__name__)

TOUCH_S: Final = 1.0
"""Uses of an entry closer together than this are one use: thousands of jobs a second start with one image."""

_TICK_S: Final = 1e-5
"""Two times so far apart are two also after they were a file's."""


@dataclass
class Counters:
    """What happened since the start of the manager."""

    hits: int = 0
    misses: int = 0
    evictions: int = 0
    evicted_bytes: int = 0
    fetched_bytes: int = 0
    quarantined: int = 0
    uses: Counter[str] = field(default_factory=Counter)
    """Of each entry that is there."""
    answers: Counter[int] = field(default_factory=Counter)
    """Of each status code."""


class Cache:
    """What is on disk under one root, and who uses it."""

    def __init__(
        self,
        store: Store,
        settings: Callable[[], Settings],
        changed: Callable[[], None],
        suspected: Callable[[str], None] = lambda _: None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Take what is called after every change, and with an entry from which jobs end too soon."""
        self.store = store
        self.trouble = ""
        """Why the root cannot be used; empty if it can."""
        self.trouble_status = HookStatus.CACHE_UNUSABLE
        self.stale = False
        """Whether something failed, so that the index may differ from the disk: to be loaded again."""
        self.read_only = False
        """Whether this is only looked at: nothing is written or given up."""
        self.counters = Counters()
        self.entries: dict[str, CacheEntry] = {}
        self.quarantined: dict[str, Quarantined] = {}
        """What was taken out of use, until room is needed."""
        self.partials: dict[str, Partial] = {}
        """What an earlier manager began to fetch, by the object's name: until somebody wants it, or its room."""
        self.pins = Pins(store, clock)
        self.objects = Objects(store, lambda: self.read_only)
        self.leases = Leases(store, Told(changed, suspected, self.failed), clock)
        self.trash = Trash(store)
        self.budget = Budget(self, store, self.trash, settings)
        self.room = Room(self, self.budget, self.trash, settings)
        self._settings = settings
        self._changed = changed
        self._clock = clock
        self._seen: dict[str, Signature] = {}
        self._loaded_at = 0.0
        self._newest_at = 0.0

    def load(self) -> None:
        """Read the root, which is locked by us, and mend what a crash left. Raises StatusError, OSError.

        May be done again, for a root that comes back: fetches under way go on, and so do the leases of the living.
        """
        self.store.prepare()
        found = scan.everything(self.store.layout)
        found = replace(
            found,
            staging=tuple(name for name in found.staging if name not in self.budget.reservations),
            partials=tuple(one for one in found.partials if one.nonce not in self.budget.reservations),
        )
        alive = frozenset(
            name for name, lease in found.leases.items() if lease is not None and self.leases.is_held(lease)
        )
        repair = reconcile.plan(found, alive, self.leases.boot_id)
        self.store.repair(repair)
        self.entries = {entry.key: entry for entry in repair.entries}
        self.objects.load(repair.objects)
        self.stale = False
        self._newest_at = max((entry.last_used_at for entry in repair.entries), default=0.0)
        for entry in repair.entries:
            if entry.closed:
                self.store.close(entry.key)
        self.pins.load(repair.pins)
        self.quarantined = {one.key: one for one in repair.quarantine}
        for name in repair.dead_pins:
            log.error("pin %s: its file cannot be read: the pin is lost", name)
        kept = {one.entry_key for one in self.quarantined.values()}
        self.leases.load(repair.leases, self.entries.keys() | kept)
        self.budget.load()
        self.trash.load()
        self._loaded_at = self._clock()
        for partial in repair.partials:
            self._take_in(partial)
        log.info(
            "cache %s: %d entries, %d leases; removed %d broken entries, %d dead leases, %d fetches; kept %d",
            self.store.root,
            len(self.entries),
            len(self.leases),
            len(repair.broken_entries),
            len(repair.dead_leases),
            len(repair.leftovers),
            len(self.partials),
        )

    def _take_in(self, partial: Partial) -> None:
        """Keep what an earlier manager began to fetch, if there is room for it."""
        self.partials[partial.name] = partial
        size = -(-partial.size_bytes // BLOCK_BYTES) * BLOCK_BYTES
        self.budget.reservations[partial.nonce] = Reservation(partial.nonce, size, 3)
        try:
            fits = not self.budget.is_short()
        except StatusError:
            fits = False
        if self.usage.size_bytes > self._settings().max_bytes or not fits:
            self.drop_partials()

    def take_partial(self, name: str, owner: str) -> Partial | None:
        """Return what is here of an object, if so: it is the caller's now, with its reservation."""
        partial = self.partials.pop(name, None)
        if partial is not None:
            self.budget.reservations[partial.nonce] = replace(self.budget.reservations[partial.nonce], owner=owner)
        return partial

    def drop_partials(self) -> bool:
        """Give up what earlier managers began to fetch; whether there was anything."""
        dropped, self.partials = list(self.partials.values()), {}
        for partial in dropped:
            trashed = self.store.give_up_staging(partial.nonce)
            self.unreserve(partial.nonce)
            self.trash.remove_later([trashed] if trashed else [])
        return bool(dropped)

    def give_up_spare(self) -> bool:
        """Give up what is good for no job as it is; whether there was anything."""
        return self.drop_partials() | self.empty_quarantine()

    @property
    def usage(self) -> Usage:
        """What counts against the caps now."""
        entries, others, reserved = self.entries.values(), self.quarantined.values(), self.budget.reserved
        return Usage(
            sum(one.disk_bytes for one in entries) + sum(one.size_bytes for one in others) + reserved.size_bytes,
            sum(one.inodes for one in entries) + sum(one.inodes for one in others) + reserved.inodes,
        )

    @property
    def records(self) -> int:
        """How many files lie beside the entries."""
        return len(self.objects) + len(self.leases)

    @property
    def held(self) -> frozenset[str]:
        """The keys that are never evicted: in use, or pinned."""
        return self.leases.in_use | self.pins.keys

    def find(self, located: Located, formats: Iterable[str] = ("sif", "sandbox")) -> CacheEntry | None:
        """Return the entry of what was located, in the first format in which its image is here.

        It is as it was fetched, as far as a glance tells.
        """
        if self.trouble:  # who asks for room hears of it
            return None
        digest = located.digest or str(self.objects.known(located.object_id).get("digest", ""))
        known = (self.entries.get(f"{digest}.{one}") for one in formats)
        return next((entry for entry in known if entry is not None and self.is_good(entry)), None)

    def is_good(self, entry: CacheEntry) -> bool:
        """Whether an entry's image has its size and its header; what differs goes into quarantine."""
        why, seen = readback.look(entry, str(self.store.layout.image(entry.key)), self._seen.get(entry.key))
        if seen is not None:
            self._seen[entry.key] = seen
        elif not self.read_only:
            self.quarantine(entry.key, why)
        return not why

    def acquire(self, key: str, holder: Holder | None, now: float, job_id: str = "", owner: str = "") -> Path:
        """Lease an entry to a holder and return the path of its image. The lease file exists when this returns.

        Without a holder (nobody who could be watched) the use is remembered and nothing is held. An entry that another
        `owner` uses than who brought it in is nobody's from then on. Raises StatusError (CACHE_UNUSABLE) when the root
        cannot be written.
        """
        try:
            self._lease(key, holder, now, job_id)
            if owner and self.entries[key].owner not in {"", owner}:
                self.entries[key] = replace(self.entries[key], owner="")
                self.store.rewrite(self.entries[key])
        except OSError as error:
            raise self.failed(self.entries[key].name, error) from None
        return Path(self.store.layout.image(key))

    def failed(self, name: str, error: OSError) -> StatusError:
        """Take note of an error of the file system, and return what it means for an image."""
        found = self.store.trouble(name, error)
        if found.status is HookStatus.CACHE_UNUSABLE:
            self.stale = True
            try:
                self.store.check()
            except StatusError as why:  # which tells more
                return StatusError(why.status, f"{name}: {why.message}" if name else why.message)
        return found

    def _lease(self, key: str, holder: Holder | None, now: float, job_id: str) -> None:
        self.counters.uses[key] += 1
        at = self._time_of_use(now)
        if at - self.entries[key].last_used_at >= TOUCH_S:
            self._used(self.entries[key], at)
        if holder is not None:
            self.leases.take(key, holder, now, job_id)

    def _used(self, entry: CacheEntry, at: float) -> None:
        self.entries[entry.key] = replace(entry, last_used_at=at)
        self.store.touch(entry, at)

    def _time_of_use(self, now: float) -> float:
        """Return the time to remember for a use: never before that of an earlier one, also when the clock is set back.

        Then what was used in its future is dated back, in its order: else images that nobody uses would outlive those
        that are used, until the clock is where it has been.
        """
        if now >= self._newest_at - TOUCH_S:
            self._newest_at = now if now >= self._newest_at else self._newest_at + _TICK_S
            return self._newest_at
        log.warning("the clock was set back by %.0f s", self._newest_at - now)
        latest = [one for one in self.entries.values() if one.last_used_at > now - 2 * TOUCH_S]
        latest.sort(key=lambda one: (one.last_used_at, one.created_at, one.key), reverse=True)
        for number, entry in enumerate(latest, 1):
            self._used(entry, now - TOUCH_S - number * _TICK_S)
        self._newest_at = now
        return now

    def may_read(self, entry: CacheEntry, uid: int | None) -> bool:
        """Whether a user may run and see an image. None is an admin, who acts as the manager's user."""
        if not entry.closed or uid in {None, 0, os.geteuid()}:
            return True
        try:
            return uid in self.store.readers(entry.key)
        except OSError:
            return False

    def admit(self, key: str, uid: int | None) -> None:
        """Let a user into an entry, who showed just now that its source lets them have it. Raises StatusError."""
        entry = self.entries[key]
        if uid is None or self.may_read(entry, uid):
            return
        try:
            self.store.admit(key, uid)
        except OSError as error:
            what = f"{entry.shown}: cannot be kept for one user alone here: {error.strerror}"
            raise StatusError(HookStatus.IMAGE_NOT_ALLOWED, what) from None
        log.info("admitted uid %d to %s", uid, key)

    def reserve(self, nonce: str, name: str, size_bytes: int, inodes: int = 3, owner: str = "") -> None:
        """Reserve room for an image, or more room for it, for `owner`; evicts what is needed and no more.

        Raises StatusError: IMAGE_TOO_LARGE, CACHE_FULL, DISK_FULL, CACHE_UNUSABLE.
        """
        if self.trouble:
            raise StatusError(self.trouble_status, f"{name}: {self.trouble}")
        self.room.reserve(nonce, name, size_bytes, inodes, owner)

    def unreserve(self, nonce: str) -> None:
        """Give a reservation back."""
        self.budget.reservations.pop(nonce, None)

    def look_again(self) -> None:
        """See whose processes ended."""
        self.leases.poll()

    def holding(self) -> str:
        """Return, in words, what cannot be evicted: in use, pinned (and not in use), being fetched."""
        in_use = self.leases.in_use
        used = sum(self.entries[key].disk_bytes for key in in_use if key in self.entries)
        pinned = sum(self.entries[key].disk_bytes for key in self.pins.keys - in_use if key in self.entries)
        fetched = human_bytes(self.budget.reserved.size_bytes)
        return f"{human_bytes(used)} in use, {human_bytes(pinned)} pinned, {fetched} being fetched"

    def tidy(self, now: float) -> None:
        """Evict in the background, from the high watermark down to the low one."""
        if not 0 <= now - self._loaded_at <= self._settings().hook_deadline_s:  # nobody has come for them
            self.drop_partials()
        self.room.tidy(now)

    def add(self, entry: CacheEntry, located: Located, now: float) -> None:
        """Take up an entry that was committed; its reservation ends by the caller in the same turn.

        One that was there already keeps its record. Raises StatusError (CACHE_FULL) if that was given up meanwhile:
        while the thread that commits leaves it in place, the loop goes on.
        """
        if not self.store.is_whole(entry):
            raise StatusError(HookStatus.CACHE_FULL, f"{entry.name}: was given up while it came in once more")
        kept = self.store.record(entry.key) or entry
        if kept.closed != entry.closed:  # the same bytes, one time without a credential
            kept = replace(kept, public=entry.public or kept.public, closed=False)
            self.store.open(kept)
        self._used(kept, self._time_of_use(now))
        self.pins.follow(entry.name, entry.key)
        self.counters.fetched_bytes += entry.size_bytes
        self.objects.remember(
            located.object_id,
            {"kind": "object", "url": entry.origin, "digest": entry.digest, "fetched_at": now},
        )
        self._changed()

    def quarantine(self, key: str, why: str) -> None:
        """Take a bad entry out of use, for an admin to look at until room is needed; the next job fetches it again."""
        entry = self.entries[key]
        log.error("quarantined %s (%s): %s", entry.name, key, why)
        self.counters.quarantined += 1
        try:
            place = self.store.quarantine(entry, self._name_in_quarantine(key), why, self._clock())
        except FileNotFoundError:
            if self.store.is_there():  # else all may come back, as a file system that is mounted again
                self._forget(key)
        except OSError as error:  # it stays counted, and is looked at again by whoever asks for it
            log.error("cannot quarantine %s: %s", key, error.strerror)  # noqa: TRY400 - it says it all
            self._seen.pop(key, None)
        else:
            self._forget(key)
            self.quarantined[place.key] = place

    def _name_in_quarantine(self, key: str) -> str:
        """Return a key's name there: what a job may still run from is not replaced by what came after it."""
        if key not in self.leases.in_use:
            return key
        names = (key, *(f"{key}.{number}" for number in range(2, len(self.quarantined) + 3)))
        return next(name for name in names if name not in self.quarantined)

    def empty_quarantine(self, keys: Iterable[str] | None = None) -> bool:
        """Give up what is in quarantine, or these of it, but never what a job still runs from; whether anything went.

        Files that were only renamed stay good for those who have them open; a tree that is removed does not.
        """
        in_use, wanted = self.leases.in_use, self.quarantined if keys is None else set(keys)
        gone = [key for key, one in self.quarantined.items() if key in wanted and one.entry_key not in in_use]
        for key in gone:
            trashed = self.store.release_quarantine(key)
            del self.quarantined[key]
            self.trash.remove_later([trashed] if trashed else [])
        return bool(gone)

    def _forget(self, key: str) -> CacheEntry:
        self._seen.pop(key, None)
        self.counters.uses.pop(key, None)
        self._changed()
        return self.entries.pop(key)

    def give_up(self, keys: Iterable[str]) -> None:
        """Take entries out of sight now, and remove them in a thread."""
        for key in keys:
            trashed = self.store.evict(key)
            entry = self._forget(key)
            self.counters.evictions += 1
            self.counters.evicted_bytes += entry.disk_bytes
            log.info("evicted %s (%s, %s)", entry.name, key, human_bytes(entry.disk_bytes))
            self.trash.remove_later([trashed] if trashed else [])
            if all(one.digest != entry.digest for one in self.entries.values()):
                self.objects.forget(entry.digest)
