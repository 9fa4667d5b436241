"""What lies on disk after a crash -> what to keep and what to remove. Pure; the store looks and applies."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from cache_manager.entry import CacheEntry
from cache_manager.layout import is_key
from cache_manager.lease import Lease
from cache_manager.partial import Partial
from cache_manager.pin import Pin


@dataclass(frozen=True, slots=True)
class FoundEntry:
    """A directory under `entries`: its record, if it can be read, and the image's size, -1 if there is none.

    An image of another kind than the record says (a file for a sandbox, a directory for a SIF) is none.
    """

    name: str
    entry: CacheEntry | None
    image_bytes: int


@dataclass(frozen=True, slots=True)
class Quarantined:
    """What was taken out of use and is kept to be looked at: what it takes on disk, why and when.

    `key` is its entry's; of a second one, while a job still runs from the first, it is that with a number (`.2`).
    """

    key: str
    name: str
    size_bytes: int
    inodes: int
    why: str
    since: float

    @property
    def entry_key(self) -> str:
        """The key that leases name."""
        return ".".join(self.key.split(".", 2)[:2])


@dataclass(frozen=True, slots=True)
class DiskState:
    """Everything under the root, as found. `leases` and `pins` are by file name, None for what is none."""

    entries: tuple[FoundEntry, ...]
    leases: Mapping[str, Lease | None]
    staging: tuple[str, ...]
    trash: tuple[str, ...]
    objects: Mapping[str, dict[str, str | float] | None]
    pins: Mapping[str, Pin | None] = field(default_factory=dict)
    quarantine: tuple[Quarantined, ...] = ()
    partials: tuple[Partial, ...] = ()


@dataclass(frozen=True, slots=True)
class Repair:
    """What is kept, and which names go from which directory. Each step may be repeated."""

    entries: tuple[CacheEntry, ...]
    leases: tuple[Lease, ...]
    objects: Mapping[str, dict[str, str | float]]
    broken_entries: tuple[str, ...]
    dead_leases: tuple[str, ...]
    dead_objects: tuple[str, ...]
    leftovers: tuple[str, ...]
    pins: tuple[Pin, ...] = ()
    dead_pins: tuple[str, ...] = ()
    quarantine: tuple[Quarantined, ...] = ()
    partials: tuple[Partial, ...] = ()


def plan(found: DiskState, alive: frozenset[str], boot_id: str) -> Repair:
    """Decide. `alive` are the lease files whose holder still runs; a lease of another boot has no holder.

    A pin stays whether its entry is there or not; what is in quarantine stays until room is needed. Of what was being
    fetched, the most of each object stays, if the machine was not started anew: else the file may be longer than what
    was written to it.
    """
    whole = tuple(one.entry for one in found.entries if one.entry is not None and _is_whole(one))
    keys = {entry.key for entry in whole}
    digests = {entry.digest for entry in whole}
    leases = {
        name: lease
        for name, lease in found.leases.items()
        if lease is not None and name in alive and lease.boot_id == boot_id and name == lease.holder.file_name
    }
    objects = {
        name: record
        for name, record in found.objects.items()
        if record is not None and (str(record.get("digest", "")) in digests or record.get("kind") == "pointer")
    }
    pins = {name: pin for name, pin in found.pins.items() if pin is not None and pin.file_name == name}
    partials: dict[str, Partial] = {}
    for one in sorted(found.partials, key=lambda one: one.size_bytes):
        if boot_id and one.boot_id == boot_id:
            partials[one.name] = one
    kept = {one.nonce for one in partials.values()}
    return Repair(
        entries=whole,
        leases=tuple(leases.values()),
        objects=objects,
        broken_entries=tuple(one.name for one in found.entries if one.name not in keys),
        dead_leases=tuple(name for name in found.leases if name not in leases),
        dead_objects=tuple(name for name in found.objects if name not in objects),
        leftovers=tuple(name for name in found.staging if name not in kept),
        pins=tuple(pins.values()),
        dead_pins=tuple(name for name in found.pins if name not in pins),
        quarantine=found.quarantine,
        partials=tuple(partials.values()),
    )


def _is_whole(found: FoundEntry) -> bool:
    entry = found.entry
    return (
        entry is not None
        and is_key(found.name)
        and entry.key == found.name
        and (entry.format != "sif" or found.image_bytes == entry.size_bytes)
        and found.image_bytes >= 0
    )
