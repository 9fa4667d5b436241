"""The cache's state: entries, leases, reservations, and what is known of objects. Only the loop's thread calls this.

Accounting is reservations + entries <= cap, always: room is reserved before the first byte is written.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from cache_manager import eviction, processes, readback, reconcile, scan
from cache_manager.disk import BLOCK_BYTES
from cache_manager.entry import CacheEntry
from cache_manager.eviction import Cap, EvictionPlan, Shares, Usage
from cache_manager.layout import record_name
from cache_manager.lease import Holder, Lease, Reservation
from cache_manager.outcome import Located
from cache_manager.partial import Partial
from cache_manager.pins import Pins
from cache_manager.readback import Signature
from cache_manager.reconcile import Quarantined
from cache_manager.settings import Settings
from cache_manager.status import HookStatus, StatusError
from cache_manager.store import Store
from cache_manager.text import human_bytes

log = logging.getLogger(__name__)

POLL_S: Final = 2.0
"""How often a holder is asked for that no pidfd watches."""

QUICK_S: Final = 60.0
QUICK_ENDS: Final = 3
"""So many jobs in a row that end sooner than QUICK_S make their image be tested again."""

TOUCH_S: Final = 1.0
"""Uses of an entry closer together than this are one use: thousands of jobs a second start with one image."""

SPARE_INODES: Final = 8
"""Left free on the file system whatever is fetched: leases and records need them."""

RECORDS_AHEAD: Final = 4
"""What a fetch writes beside the entry: its object, its pointer, a lease, and the file that becomes one of them."""

_TICK_S: Final = 1e-5
"""Two times so far apart are two also after they were a file's."""

OVERHEAD_BYTES: Final = 2 * BLOCK_BYTES
"""What an entry takes beside its image: its record and its directory."""


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
        self._suspected = suspected
        self._clock = clock
        self._quick_ends: Counter[str] = Counter()
        self.quarantined: dict[str, Quarantined] = {}
        """What was taken out of use, until room is needed."""
        self.pins = Pins(store, clock)
        self._seen: dict[str, Signature] = {}
        self.trouble = ""
        """Why the root cannot be used; empty if it can."""
        self.trouble_status = HookStatus.CACHE_UNUSABLE
        self.stale = False
        """Whether something failed, so that the index may differ from the disk: to be loaded again."""
        self._trash: dict[Path, Usage] = {}
        self._stuck: set[Path] = set()
        """What could not be removed from the trash: it counts, and is tried again."""
        self._overhead = Usage(0, 0)
        self.read_only = False
        """Whether this is only looked at: nothing is written or given up."""
        self.counters = Counters()
        self.entries: dict[str, CacheEntry] = {}
        self.objects: dict[str, dict[str, str | float]] = {}
        self.leases: dict[Holder, Lease] = {}
        self.reservations: dict[str, Reservation] = {}
        self.partials: dict[str, Partial] = {}
        """What an earlier manager began to fetch, by the object's name: until somebody wants it, or its room."""
        self._loaded_at = 0.0
        self._settings = settings
        self._changed = changed
        self._descriptors: dict[Holder, int | None] = {}
        self._boot_id = processes.boot_id()
        self._host = os.uname().nodename
        self._removals: set[asyncio.Future[None]] = set()
        self._newest_at = 0.0

    def load(self) -> None:
        """Read the root, which is locked by us, and mend what a crash left. Raises StatusError, OSError.

        May be done again, for a root that comes back: fetches under way go on, and so do the leases of the living.
        """
        self.store.prepare()
        found = scan.everything(self.store.layout)
        found = replace(
            found,
            staging=tuple(name for name in found.staging if name not in self.reservations),
            partials=tuple(one for one in found.partials if one.nonce not in self.reservations),
        )
        alive = frozenset(name for name, lease in found.leases.items() if lease is not None and self._is_held(lease))
        repair = reconcile.plan(found, alive, self._boot_id)
        self.store.repair(repair)
        self.entries = {entry.key: entry for entry in repair.entries}
        self.objects = dict(repair.objects)
        self.stale = False
        self._newest_at = max((entry.last_used_at for entry in repair.entries), default=0.0)
        for entry in repair.entries:
            if entry.closed:
                self.store.close(entry.key)
        self.pins.load(repair.pins)
        self.quarantined = {one.key: one for one in repair.quarantine}
        for name in repair.dead_pins:
            log.error("pin %s: its file cannot be read: the pin is lost", name)
        for lease in self._leases_now(repair.leases):
            self._watch(lease)
        self._overhead = Usage(*self.store.overhead())
        self._stuck = {path for path in self.store.trashed() if path not in self._trash or path in self._stuck}
        self._trash = {path: one for path, one in self._trash.items() if os.path.lexists(path)}
        self._trash |= {path: Usage(*scan.taken(path)) for path in self._stuck}
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
        self.reservations[partial.nonce] = Reservation(partial.nonce, size, 3)
        try:
            fits = not self._is_short(self._cap("", 0, self._settings()))
        except StatusError:
            fits = False
        if self.usage.size_bytes > self._settings().max_bytes or not fits:
            self.drop_partials()

    def take_partial(self, name: str, owner: str) -> Partial | None:
        """Return what is here of an object, if so: it is the caller's now, with its reservation."""
        partial = self.partials.pop(name, None)
        if partial is not None:
            self.reservations[partial.nonce] = replace(self.reservations[partial.nonce], owner=owner)
        return partial

    def drop_partials(self) -> bool:
        """Give up what earlier managers began to fetch; whether there was anything."""
        dropped, self.partials = list(self.partials.values()), {}
        for partial in dropped:
            trashed = self.store.give_up_staging(partial.nonce)
            self.unreserve(partial.nonce)
            self._remove_later([trashed] if trashed else [])
        return bool(dropped)

    def _give_up_spare(self) -> bool:
        """Give up what is good for no job as it is; whether there was anything."""
        return self.drop_partials() | self.empty_quarantine()

    def _leases_now(self, found: Iterable[Lease]) -> list[Lease]:
        """Return the leases on disk, and write those that are held and are not there. Raises OSError."""
        on_disk = {lease.holder: lease for lease in found}
        for holder, lease in list(self.leases.items()):
            there = on_disk[holder].keys if holder in on_disk else frozenset()
            kept = {one.entry_key for one in self.quarantined.values()}
            keys = (lease.keys | there) & (self.entries.keys() | kept)
            if not keys:
                self.release(holder)
                on_disk.pop(holder, None)
            elif keys != there:
                on_disk[holder] = replace(lease, keys=keys)
                self.store.write_lease(on_disk[holder])
        return list(on_disk.values())

    def _is_held(self, lease: Lease) -> bool:
        """Whether a lease found on disk still has its holder. Without a boot id, the host tells whose pids they are."""
        here = bool(self._boot_id) or lease.host == self._host
        return here and processes.is_alive(lease.holder) and not lease.is_over(self._clock())

    @property
    def usage(self) -> Usage:
        """What counts against the caps now."""
        others: list[Quarantined | Reservation] = [*self.quarantined.values(), *self.reservations.values()]
        return Usage(
            sum(one.disk_bytes for one in self.entries.values()) + sum(one.size_bytes for one in others),
            sum(one.inodes for one in self.entries.values()) + sum(one.inodes for one in others),
        )

    @property
    def in_use(self) -> frozenset[str]:
        """The keys that some process runs from."""
        return frozenset(key for lease in self.leases.values() for key in lease.keys)

    @property
    def held(self) -> frozenset[str]:
        """The keys that are never evicted: in use, or pinned."""
        return self.in_use | self.pins.keys

    def find(self, located: Located, formats: Iterable[str] = ("sif", "sandbox")) -> CacheEntry | None:
        """Return the entry of what was located, in the first format in which its image is here.

        It is as it was fetched, as far as a glance tells.
        """
        if self.trouble:  # who asks for room hears of it
            return None
        digest = located.digest or str(self.known(located.object_id).get("digest", ""))
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

    def is_leased(self, key: str, holder: Holder | None) -> bool:
        """Whether a holder has a lease of an entry already."""
        lease = self.leases.get(holder) if holder else None
        return lease is not None and key in lease.keys

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
            before = self.leases.get(holder)
            if before is None or key not in before.keys:
                keys = (before.keys if before else frozenset()) | {key}
                lease = Lease(holder, keys, self._boot_id, self._host, now, job_id)
                self.store.write_lease(lease)
                self._watch(lease)
                self._changed()

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

    def release(self, holder: Holder) -> None:
        """End a holder's lease. Three in a row that end at once make an entry suspect: perhaps it does not start."""
        lease = self.leases.pop(holder, None)
        for key in lease.keys if lease else ():
            if lease and self._clock() - lease.taken_at >= QUICK_S:
                del self._quick_ends[key]
                continue
            self._quick_ends[key] += 1
            if self._quick_ends[key] == QUICK_ENDS:
                self._suspected(key)
        descriptor = self._descriptors.pop(holder, None)
        if descriptor is not None:
            asyncio.get_running_loop().remove_reader(descriptor)
            os.close(descriptor)
        try:
            self.store.remove_lease(holder.file_name)
        except OSError as error:
            self.failed("", error)
        self._changed()

    def poll_holders(self) -> None:
        """Release the leases of holders that ended: those that no pidfd watches, or whose event is yet to come."""
        for holder in list(self._descriptors):
            if not processes.is_alive(holder) or self.leases[holder].is_over(self._clock()):
                self.release(holder)

    def _watch(self, lease: Lease) -> None:
        holder = lease.holder
        self.leases[holder] = lease
        if holder in self._descriptors:
            return
        loop = asyncio.get_running_loop()

        def add_reader(descriptor: int, ended: Callable[[], None]) -> None:
            loop.add_reader(descriptor, ended)

        self._descriptors[holder] = processes.watch(holder, lambda: self.release(holder), add_reader)
        if not processes.is_alive(holder):  # it ended before it was watched
            loop.call_soon(self.release, holder)

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
        settings = self._settings()
        if self.trouble:
            raise StatusError(self.trouble_status, f"{name}: {self.trouble}")
        if (
            self._overhead.size_bytes + _extra(size_bytes) + size_bytes > settings.max_bytes
            or 0 < settings.max_inodes < inodes
        ):
            raise StatusError(
                HookStatus.IMAGE_TOO_LARGE,
                f"{name}: larger than this cache may hold ({human_bytes(size_bytes)},"
                f" IMAGE_CACHE_MAX_BYTES = {human_bytes(settings.max_bytes)})",
            )
        before = self.reservations.get(nonce, Reservation(nonce, 0, 0, owner))
        more = Usage(max(0, size_bytes - before.size_bytes), max(0, inodes - before.inodes))
        shares = self._shares({before.owner: more.size_bytes}, settings)
        plan, cap = self._plan(nonce, size_bytes, more, shares)
        if not plan.enough:
            self.poll_holders()  # whoever ended a moment ago
            plan, cap = self._plan(nonce, size_bytes, more, shares)
        if not plan.enough:
            raise self._no_inodes(name, more, cap) or self._no_room(name, more, cap, plan)
        self.give_up(plan.keys)
        self.reservations[nonce] = replace(
            before, size_bytes=max(size_bytes, before.size_bytes), inodes=max(inodes, before.inodes)
        )

    def _shares(self, wanted: Mapping[str, int], settings: Settings) -> Shares:
        """Return what each owner has or wants beside entries, and how much one may have before others go."""
        others = Counter(wanted)
        for one in self.reservations.values():
            others[one.owner] += one.size_bytes
        return Shares(settings.owner_bytes, others)

    def _plan(self, nonce: str, size_bytes: int, more: Usage, shares: Shares) -> tuple[EvictionPlan, Cap]:
        """Plan room for a reservation. What is in quarantine goes before any image that is good."""
        settings = self._settings()
        cap = self._cap(nonce, size_bytes, settings)
        plan = eviction.make_room(self.entries.values(), self.held, self.usage, more, cap, shares)
        if (plan.keys or not plan.enough) and self._give_up_spare():
            cap = self._cap(nonce, size_bytes, settings)  # what went is as good as free
            plan = eviction.make_room(self.entries.values(), self.held, self.usage, more, cap, shares)
        return plan, cap

    def _cap(self, nonce: str, size_bytes: int, settings: Settings) -> Cap:
        """Return the limits for what is reserved: the entries will take a little more than their images.

        What is reserved and not yet written is still free for the file system, and not for us. Raises StatusError.
        """
        others = [one for one in self.reservations.values() if one.nonce != nonce]
        records = len(self.objects) + len(self.leases) + RECORDS_AHEAD * (len(others) + 1)
        extra = _extra(size_bytes) + sum(_extra(one.size_bytes) for one in others)
        stuck = _sum(self._trash.get(path, Usage(0, 1)) for path in self._stuck)
        extra += self._overhead.size_bytes + stuck.size_bytes + records * BLOCK_BYTES
        try:
            pending = sum(
                max(0, one.size_bytes - self.store.staged_bytes(one.nonce)) for one in self.reservations.values()
            )
            room = self.store.room()
        except OSError as error:
            raise self.failed("", error) from None
        trash = self._trash_usage
        inodes = (
            max(1, settings.max_inodes - self._overhead.inodes - stuck.inodes - records) if settings.max_inodes else 0
        )
        free_inodes = room.free_inodes - sum(one.inodes for one in others) + trash.inodes - SPARE_INODES
        free = room.free_bytes - pending + trash.size_bytes - settings.min_free_bytes
        return Cap(settings.max_bytes - extra, inodes, free, free_inodes)

    @property
    def _trash_usage(self) -> Usage:
        """What was given up and is being removed."""
        return _sum(one for path, one in self._trash.items() if path not in self._stuck)

    async def removed(self, nonce: str) -> bool:
        """Wait until what had to be given up for a reservation is gone from the disk, as far as that matters.

        Returns whether something could not be removed: then it takes the room that was reserved.
        """
        stuck = len(self._stuck)
        while self._removals and nonce in self.reservations and self._waits_for_trash(self.reservations[nonce]):
            await asyncio.wait(self._removals, return_when=asyncio.FIRST_COMPLETED)
            await asyncio.sleep(0)
        return len(self._stuck) > stuck

    def _waits_for_trash(self, one: Reservation) -> bool:
        cap, usage, trash = self._cap(one.nonce, one.size_bytes, self._settings()), self.usage, self._trash_usage
        return (
            usage.size_bytes + trash.size_bytes > cap.size_bytes
            or 0 < cap.inodes < usage.inodes + trash.inodes
            or cap.free_bytes < trash.size_bytes
            or cap.free_inodes < trash.inodes
        )

    def _no_inodes(self, name: str, need: Usage, cap: Cap) -> StatusError | None:
        if need.inodes <= cap.free_inodes:
            return None
        what = f"wanted {need.inodes}, {max(0, cap.free_inodes + SPARE_INODES)} free"
        place = f"the file system of {self.store.root}"
        return StatusError(HookStatus.DISK_FULL, f"{name}: {place} has no inodes left ({what})")

    def _no_room(self, name: str, need: Usage, cap: Cap, plan: EvictionPlan) -> StatusError:
        disk_is_full = need.size_bytes - cap.free_bytes > self.usage.size_bytes + need.size_bytes - cap.size_bytes
        numbers = (
            f"wanted {human_bytes(need.size_bytes)}, freed 0 B: {human_bytes(plan.freed_bytes)} would not be enough;"
            f" {self.holding()}"
        )
        if disk_is_full:
            return StatusError(
                HookStatus.DISK_FULL,
                f"{name}: the file system of the cache is full ({numbers}; {human_bytes(max(0, cap.free_bytes))} free"
                f" above IMAGE_CACHE_MIN_FREE_BYTES in {self.store.root})",
            )
        files = f", {cap.inodes} files" if cap.inodes else ""
        return StatusError(
            HookStatus.CACHE_FULL,
            f"{name}: no room in the cache ({numbers}; cap {human_bytes(cap.size_bytes)}{files})",
        )

    def holding(self) -> str:
        """Return, in words, what cannot be evicted: in use, pinned (and not in use), being fetched."""
        in_use = self.in_use
        used = sum(self.entries[key].disk_bytes for key in in_use if key in self.entries)
        pinned = sum(self.entries[key].disk_bytes for key in self.pins.keys - in_use if key in self.entries)
        fetched = sum(one.size_bytes for one in self.reservations.values())
        return f"{human_bytes(used)} in use, {human_bytes(pinned)} pinned, {human_bytes(fetched)} being fetched"

    def unreserve(self, nonce: str) -> None:
        """Give a reservation back."""
        self.reservations.pop(nonce, None)

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
        self.remember(
            located.object_id,
            {"kind": "object", "url": entry.origin, "digest": entry.digest, "fetched_at": now},
        )
        self._changed()

    def known(self, object_id: str) -> dict[str, str | float]:
        """Return what is remembered of an object or a pointer; nothing if it is not known."""
        return self.objects.get(record_name(object_id), {})

    def remember(self, object_id: str, record: dict[str, str | float]) -> None:
        """Remember what was learned of an object or a pointer, also over a restart.

        Records are named by a digest of the id, because a URL may hold a signature.
        """
        name = record_name(object_id)
        self.objects[name] = record
        if self.read_only:
            return
        try:
            self.store.write_object(name, record)
        except OSError as error:
            log.warning("cannot remember %s: %s", record.get("url"), error)

    def _forget_objects(self, digest: str) -> None:
        """Forget which objects had a digest whose entries are gone, as a start does: a record takes room as well."""
        if any(entry.digest == digest for entry in self.entries.values()):
            return
        for name in [name for name, record in self.objects.items() if record.get("digest") == digest]:
            if self.objects[name].get("kind") != "pointer":
                del self.objects[name]
                with suppress(OSError):
                    self.store.remove_object(name)

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
        if key not in self.in_use:
            return key
        names = (key, *(f"{key}.{number}" for number in range(2, len(self.quarantined) + 3)))
        return next(name for name in names if name not in self.quarantined)

    def empty_quarantine(self, keys: Iterable[str] | None = None) -> bool:
        """Give up what is in quarantine, or these of it, but never what a job still runs from; whether anything went.

        Files that were only renamed stay good for those who have them open; a tree that is removed does not.
        """
        in_use, wanted = self.in_use, self.quarantined if keys is None else set(keys)
        gone = [key for key, one in self.quarantined.items() if key in wanted and one.entry_key not in in_use]
        for key in gone:
            trashed = self.store.release_quarantine(key)
            del self.quarantined[key]
            self._remove_later([trashed] if trashed else [])
        return bool(gone)

    def _forget(self, key: str) -> CacheEntry:
        self._seen.pop(key, None)
        self.counters.uses.pop(key, None)
        self._changed()
        return self.entries.pop(key)

    def _remove_later(self, trashed: Iterable[Path]) -> None:
        """Remove in a thread what is out of sight already. It counts until it is gone."""
        for path in trashed:
            try:
                self._trash[path] = Usage(*scan.taken(path))
            except OSError:
                self._trash[path] = Usage(0, 1)  # the removal tells what is wrong
            self._stuck.discard(path)
            removal = asyncio.get_running_loop().run_in_executor(None, self.store.remove, path)
            self._removals.add(removal)
            removal.add_done_callback(functools.partial(self._was_removed, path))

    def _was_removed(self, path: Path, removal: asyncio.Future[None]) -> None:
        self._removals.discard(removal)
        error = None if removal.cancelled() else removal.exception()
        if error is None or not os.path.lexists(path):
            self._trash.pop(path, None)
        else:
            log.error("cannot remove %s: %s", path, error)
            self._stuck.add(path)

    def is_short_of_disk(self) -> bool:
        """Whether others leave us less on the disk than has to stay free."""
        try:
            return self._is_short(self._cap("", 0, self._settings()))
        except StatusError:
            return False  # the root is gone, which is told elsewhere

    def keep_free(self, now: float) -> None:
        """Give up entries in the background while others leave less than IMAGE_CACHE_MIN_FREE_BYTES on the disk."""
        self._remove_later(sorted(self._stuck))
        with suppress(OSError):  # it is told elsewhere
            self._overhead = Usage(*self.store.overhead())  # the runtime keeps more and less
        settings = self._settings()
        cap = self._cap("", 0, settings)
        if self._is_short(cap) and self._give_up_spare():
            cap = self._cap("", 0, settings)
        if not self._is_short(cap):
            return
        usage = self.usage
        target = Usage(usage.size_bytes + min(0, cap.free_bytes), max(1, usage.inodes + min(0, cap.free_inodes)))
        plan = eviction.down_to(self.entries.values(), self.held, usage, target, now - settings.min_age_s)
        if plan.keys:
            short = f"{human_bytes(max(0, -cap.free_bytes))} and {max(0, -cap.free_inodes)} inodes"
            log.info("the disk is short of %s: %s can go", short, human_bytes(plan.freed_bytes))
        self.give_up(plan.keys)

    @staticmethod
    def _is_short(cap: Cap) -> bool:
        return cap.free_bytes < 0 or cap.free_inodes < 0

    def tidy(self, now: float) -> None:
        """Evict in the background, from the high watermark down to the low one."""
        settings = self._settings()
        if not 0 <= now - self._loaded_at <= settings.hook_deadline_s:  # nobody has come for them
            self.drop_partials()
        cap, high, low = (
            Cap(settings.max_bytes, settings.max_inodes, 0),
            settings.high_watermark,
            settings.low_watermark,
        )
        target = eviction.watermarks(self.usage, cap, high, low)
        if target is not None and self._give_up_spare():
            target = eviction.watermarks(self.usage, cap, high, low)
        if target is None:
            return
        plan = eviction.down_to(
            self.entries.values(),
            self.held,
            self.usage,
            target,
            now - settings.min_age_s,
            self._shares({}, settings),
        )
        self.give_up(plan.keys)
        if not plan.enough:
            log.warning(
                "background eviction: wanted %s, freed %s; %s, the rest is younger than IMAGE_CACHE_MIN_AGE",
                human_bytes(plan.freed_bytes + plan.short_bytes),
                human_bytes(plan.freed_bytes),
                self.holding(),
            )

    def give_up(self, keys: Iterable[str]) -> None:
        """Take entries out of sight now, and remove them in a thread."""
        for key in keys:
            trashed = self.store.evict(key)
            entry = self._forget(key)
            self.counters.evictions += 1
            self.counters.evicted_bytes += entry.disk_bytes
            log.info("evicted %s (%s, %s)", entry.name, key, human_bytes(entry.disk_bytes))
            self._remove_later([trashed] if trashed else [])
            self._forget_objects(entry.digest)


def _sum(usages: Iterable[Usage]) -> Usage:
    found = list(usages)
    return Usage(sum(one.size_bytes for one in found), sum(one.inodes for one in found))


def _extra(size_bytes: int) -> int:
    """Return what an entry takes on disk beyond its image's bytes."""
    return -size_bytes % BLOCK_BYTES + OVERHEAD_BYTES
