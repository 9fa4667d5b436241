"""The admin's cleanup, in a running manager and without one: looks, has `cleanup` plan, and applies."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Callable, Collection
from pathlib import Path, PurePosixPath
from typing import Any, Final

from filelock import FileLock

from cache_manager import cleanup, disk, processes, reconcile, scan
from cache_manager.cache import Cache
from cache_manager.cleanup import CleanupPlan, Found, Item, Kind, Wishes
from cache_manager.eviction import Usage
from cache_manager.layout import CacheLayout
from cache_manager.questions import Question
from cache_manager.selection import NotDone
from cache_manager.settings import Settings
from cache_manager.store import Store
from cache_manager.text import human_bytes

log = logging.getLogger(__name__)

SETTLED_S: Final = 60.0
"""What is younger under `staging` may be a file that is just being replaced."""

STEP_S: Final = 1.0

COMMITTED_S: Final = 600.0
"""What is younger under `entries` may just have been committed."""


class Upkeep:
    """Does the verb `cleanup` of a running manager."""

    def __init__(self, cache: Cache, settings: Callable[[], Settings], clock: Callable[[], float] = time.time) -> None:
        self._cache = cache
        self._settings = settings
        self._clock = clock

    async def cleanup(self, question: Question) -> AsyncGenerator[dict[str, Any]]:
        """Plan, and unless it is a dry run apply in the same turn of the loop."""
        cache, now = self._cache, self._clock()
        wishes = wishes_of(question.wishes)
        look = asyncio.ensure_future(
            asyncio.to_thread(_left_behind, cache.store, set(cache.entries), set(cache.budget.reservations), now)
        )
        while not (await asyncio.wait({look}, timeout=STEP_S))[0]:
            yield {"progress": []}
        now = self._clock()
        found = Found(
            tuple(cache.entries.values()),
            cache.held,
            cache.leases.in_use,
            cache.usage,
            look.result(),
            tuple(cache.quarantined.values()),
        )
        plan = cleanup.plan(found, wishes, self._settings(), now)
        if question.wishes.get("dry_run") is not True:
            for item in plan.items:
                self._apply(item)
        yield {"done": True} | report(plan, cache.holding())

    def _apply(self, item: Item) -> None:
        log.info("cleanup: %s %s: %s", item.kind.value, item.what, item.why)
        if item.kind is Kind.IMAGE:
            self._cache.give_up(item.paths)
        elif item.kind is Kind.QUARANTINE:
            self._cache.empty_quarantine(item.paths)
        else:
            for path in item.paths:
                self._cache.store.discard(self._cache.store.root / path)


def wishes_of(values: dict[str, Any]) -> Wishes:
    """Read the wishes of a request. Raises NotDone."""
    older, size = values.get("older_than_s"), values.get("to_bytes")
    if not isinstance(older, (int, float, type(None))) or not isinstance(size, (int, type(None))):
        raise NotDone("cleanup: older_than_s and to_bytes have to be numbers")
    return Wishes(older, size)


def report(plan: CleanupPlan, holding: str) -> dict[str, Any]:
    """Return a plan for programs."""
    return {
        "items": [item.to_json() for item in plan.items],
        "freed_bytes": plan.freed_bytes,
        "freed_inodes": sum(item.inodes for item in plan.items),
        "short_bytes": plan.short_bytes,
        "holding": holding,
    }


def without_manager(settings: Settings, wishes: Wishes, now: float, *, dry_run: bool) -> dict[str, Any]:
    """Do the cleanup on the files alone, under the root's lock; a root that does not exist has nothing to free.

    Raises filelock.Timeout when somebody has the lock, OSError, and StatusError for a root that is not to be trusted.
    """
    layout = CacheLayout(PurePosixPath(settings.root))
    store = Store(layout)
    if not store.root.is_dir():
        return report(CleanupPlan((), 0), "")
    with FileLock(str(layout.lock), timeout=0, mode=0o644):
        store.prepare()
        found = _observe(store)
        plan = cleanup.plan(found, wishes, settings, now)
        if not dry_run:
            for item in plan.items:
                _apply_to_files(store, item)
            for item in _observe(store).leftovers:  # what was known of the images that went
                _apply_to_files(store, item)
        used = sum(one.disk_bytes for one in found.entries if one.key in found.in_use)
        pinned = sum(one.disk_bytes for one in found.entries if one.key in found.held - found.in_use)
        return report(plan, f"{human_bytes(used)} in use, {human_bytes(pinned)} pinned")


def _observe(store: Store) -> Found:
    """Look at a root as a start does."""
    state = scan.everything(store.layout)
    alive = frozenset(
        name for name, lease in state.leases.items() if lease is not None and processes.is_alive(lease.holder)
    )
    repair = reconcile.plan(state, alive, processes.boot_id())
    in_use = frozenset(key for lease in repair.leases for key in lease.keys)
    usage = Usage(
        sum(one.disk_bytes for one in repair.entries) + sum(one.size_bytes for one in repair.quarantine),
        sum(one.inodes for one in repair.entries) + sum(one.inodes for one in repair.quarantine),
    )
    runtime = tuple(path.name for path in Path(store.layout.runtime).iterdir())
    leftovers = (
        *(
            _item(store, Kind.PARTIAL, f"staging/{name}", "nobody fetches it any more")
            for name in (*repair.leftovers, *(one.nonce for one in repair.partials))
        ),
        *(_item(store, Kind.PARTIAL, f"runtime/{name}", "left by the container runtime") for name in runtime),
        *(_item(store, Kind.ORPHAN, f"entries/{name}", "no whole image") for name in repair.broken_entries),
        *(_item(store, Kind.ORPHAN, f"trash/{name}", "a removal that was cut off") for name in state.trash),
        *_many(store, "leases", repair.dead_leases, "leases of processes that ended"),
        *_many(store, "objects", repair.dead_objects, "records of images that are gone"),
        *_many(store, "pins", repair.dead_pins, "pins that cannot be read"),
    )
    held = in_use | {pin.key for pin in repair.pins}
    return Found(repair.entries, held, in_use, usage, leftovers, repair.quarantine)


def _left_behind(store: Store, known: Collection[str], live: Collection[str], now: float) -> tuple[Item, ...]:
    """Return what lies about beside what the manager knows of."""
    found = []
    for directory, kind, mine, quiet_s, why in (
        ("staging", Kind.PARTIAL, live, SETTLED_S, "nobody fetches it any more"),
        ("entries", Kind.ORPHAN, known, COMMITTED_S, "no image that the manager knows"),
    ):
        for path in sorted((store.root / directory).iterdir()):
            if path.name in mine:
                continue
            try:
                if now - path.lstat().st_mtime >= quiet_s:
                    found.append(_item(store, kind, f"{directory}/{path.name}", why))
            except FileNotFoundError:
                continue
    return tuple(found)


def _item(store: Store, kind: Kind, path: str, why: str) -> Item:
    size, inodes = _measured(store.root / path)
    return Item(kind, (path,), path, size, inodes, why)


def _many(store: Store, directory: str, names: Collection[str], why: str) -> list[Item]:
    """Put many small files into one line."""
    if not names:
        return []
    sizes = [_measured(store.root / directory / name) for name in names]
    paths = tuple(f"{directory}/{name}" for name in names)
    size, inodes = (sum(column) for column in zip(*sizes, strict=True))
    return [Item(Kind.ORPHAN, paths, f"{directory}/ ({len(names)} files)", size, inodes, why)]


def _measured(path: Path) -> tuple[int, int]:
    try:
        return disk.measure(str(path))
    except OSError:  # it forbids a look, or is just going
        return 0, 1


def _apply_to_files(store: Store, item: Item) -> None:
    directory = {Kind.IMAGE: "entries", Kind.QUARANTINE: "quarantine"}.get(item.kind, "")
    for path in item.paths:
        store.discard(store.root / directory / path)
