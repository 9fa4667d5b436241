"""Who runs from which entries: leases that end with their holders, as the kernel tells."""

from __future__ import annotations

import asyncio
import os
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Final

from cache_manager import processes
from cache_manager.lease import Holder, Lease
from cache_manager.store import Store

POLL_S: Final = 2.0
"""How often a holder is asked for that no pidfd watches."""

QUICK_S: Final = 60.0
QUICK_ENDS: Final = 3
"""So many jobs in a row that end sooner than QUICK_S make their image be tested again."""


@dataclass(frozen=True, slots=True)
class Told:
    """Who is told what."""

    changed: Callable[[], None]
    """After each change."""
    suspected: Callable[[str], None]
    """An entry's key from which jobs end too soon."""
    failed: Callable[[str, OSError], object]
    """What the file system refused."""


class Leases(Mapping[Holder, Lease]):
    """The leases of one root, by their holders. Only the loop's thread calls this."""

    def __init__(self, store: Store, told: Told, clock: Callable[[], float] = time.time) -> None:
        self._store = store
        self._told = told
        self._clock = clock
        self._leases: dict[Holder, Lease] = {}
        self._descriptors: dict[Holder, int | None] = {}
        self._quick_ends: Counter[str] = Counter()
        self._boot_id = processes.boot_id()
        self._host = os.uname().nodename

    def __getitem__(self, holder: Holder) -> Lease:
        return self._leases[holder]

    def __iter__(self) -> Iterator[Holder]:
        return iter(self._leases)

    def __len__(self) -> int:
        return len(self._leases)

    @property
    def boot_id(self) -> str:
        """The boot of this machine whose leases may have holders."""
        return self._boot_id

    @property
    def in_use(self) -> frozenset[str]:
        """The keys that some process runs from."""
        return frozenset(key for lease in self._leases.values() for key in lease.keys)

    def is_held(self, lease: Lease) -> bool:
        """Whether a lease found on disk still has its holder. Without a boot id, the host tells whose pids they are."""
        here = bool(self._boot_id) or lease.host == self._host
        return here and processes.is_alive(lease.holder) and not lease.is_over(self._clock())

    def load(self, found: Iterable[Lease], there: Collection[str]) -> None:
        """Watch the holders of leases on disk, and write those that are held and are not there. Raises OSError.

        `there` are the keys of what can be run from.
        """
        on_disk = {lease.holder: lease for lease in found}
        for holder, lease in list(self._leases.items()):
            written = on_disk[holder].keys if holder in on_disk else frozenset()
            keys = (lease.keys | written) & frozenset(there)
            if not keys:
                self.release(holder)
                on_disk.pop(holder, None)
            elif keys != written:
                on_disk[holder] = replace(lease, keys=keys)
                self._store.write_lease(on_disk[holder])
        for lease in on_disk.values():
            self._watch(lease)

    def has(self, key: str, holder: Holder | None) -> bool:
        """Whether a holder has a lease of an entry already."""
        return holder in self._leases and key in self._leases[holder].keys

    def take(self, key: str, holder: Holder, now: float, job_id: str) -> None:
        """Lease an entry to a holder. The file exists when this returns. Raises OSError."""
        if self.has(key, holder):
            return
        before = self._leases.get(holder)
        keys = (before.keys if before else frozenset()) | {key}
        lease = Lease(holder, keys, self._boot_id, self._host, now, job_id)
        self._store.write_lease(lease)
        self._watch(lease)
        self._told.changed()

    def release(self, holder: Holder) -> None:
        """End a holder's lease. Three in a row that end at once make an entry suspect: perhaps it does not start."""
        lease = self._leases.pop(holder, None)
        for key in lease.keys if lease else ():
            if lease and self._clock() - lease.taken_at >= QUICK_S:
                del self._quick_ends[key]
                continue
            self._quick_ends[key] += 1
            if self._quick_ends[key] == QUICK_ENDS:
                self._told.suspected(key)
        descriptor = self._descriptors.pop(holder, None)
        if descriptor is not None:
            asyncio.get_running_loop().remove_reader(descriptor)
            os.close(descriptor)
        try:
            self._store.remove_lease(holder.file_name)
        except OSError as error:
            self._told.failed("", error)
        self._told.changed()

    def poll(self) -> None:
        """Release the leases of holders that ended: those that no pidfd watches, or whose event is yet to come."""
        for holder in list(self._descriptors):
            if not processes.is_alive(holder) or self._leases[holder].is_over(self._clock()):
                self.release(holder)

    def _watch(self, lease: Lease) -> None:
        holder = lease.holder
        self._leases[holder] = lease
        if holder in self._descriptors:
            return
        loop = asyncio.get_running_loop()

        def add_reader(descriptor: int, ended: Callable[[], None]) -> None:
            loop.add_reader(descriptor, ended)

        self._descriptors[holder] = processes.watch(holder, lambda: self.release(holder), add_reader)
        if not processes.is_alive(holder):  # it ended before it was watched
            loop.call_soon(self.release, holder)
