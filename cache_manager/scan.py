"""What lies under a cache root, as it is found there: values, and nothing is changed. Everything may raise OSError."""

from __future__ import annotations

import os
import stat
from pathlib import Path, PurePosixPath
from typing import Final

from cache_manager import disk
from cache_manager.entry import CacheEntry, read_object
from cache_manager.layout import CacheLayout
from cache_manager.lease import Lease
from cache_manager.partial import Partial
from cache_manager.pin import Pin
from cache_manager.reconcile import DiskState, FoundEntry, Quarantined
from cache_manager.staging import IMAGE, PARTIAL

RECORD: Final = "entry.json"
_RECORD_BYTES: Final = 1 << 20


def everything(layout: CacheLayout) -> DiskState:
    """Return everything that lies under a root."""
    return DiskState(
        entries=tuple(found_entry(str(layout.entries), name) for name in names(layout.entries)),
        leases={name: _read_lease(Path(layout.leases) / name) for name in names(layout.leases)},
        staging=names(layout.staging),
        trash=names(layout.trash),
        objects={name: _read_object(Path(layout.objects) / name) for name in names(layout.objects)},
        pins={name: _read_pin(Path(layout.pins) / name) for name in names(layout.pins)},
        quarantine=tuple(_quarantined(Path(layout.quarantine) / name) for name in names(layout.quarantine)),
        partials=tuple(filter(None, (_read_partial(Path(layout.staging) / name) for name in names(layout.staging)))),
    )


def taken(trashed: Path) -> tuple[int, int]:
    """Return the bytes and inodes that something in the trash takes; an entry's record knows."""
    try:
        entry = CacheEntry.from_json(_read(trashed / RECORD), 0.0)
    except (OSError, ValueError):
        return disk.measure(str(trashed))
    return entry.disk_bytes, entry.inodes


def names(directory: PurePosixPath) -> tuple[str, ...]:
    """Return the names in a directory, sorted; none if it is not there."""
    try:
        return tuple(sorted(os.listdir(directory)))  # noqa: PTH208 - names, of which there may be many
    except FileNotFoundError:
        return ()


def found_entry(entries: str, name: str) -> FoundEntry:
    """Return what lies in an entry's directory. There may be ten thousand: paths are texts here."""
    directory = f"{entries}/{name}"
    try:
        descriptor = os.open(f"{directory}/{RECORD}", os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            text = os.read(descriptor, _RECORD_BYTES).decode()
            used_at = os.fstat(descriptor).st_mtime
        finally:
            os.close(descriptor)
        entry = CacheEntry.from_json(text, used_at)
    except (OSError, ValueError):
        return FoundEntry(name, None, -1)
    return FoundEntry(name, entry, image_bytes(f"{directory}/{IMAGE}", entry.format))


def _read(path: Path) -> str:
    with path.open(encoding="utf-8") as file:
        return file.read(_RECORD_BYTES)


def _read_lease(path: Path) -> Lease | None:
    try:
        return Lease.from_json(_read(path))
    except (OSError, ValueError):
        return None


def _read_pin(path: Path) -> Pin | None:
    try:
        return Pin.from_json(_read(path))
    except (OSError, ValueError):
        return None


def _read_partial(place: Path) -> Partial | None:
    """Return what a fetch left; None if it left more than an image and its record, or less."""
    try:
        if set(os.listdir(place)) != {IMAGE, PARTIAL}:  # noqa: PTH208 - names
            return None
        return Partial.from_json(_read(place / PARTIAL), place.name, image_bytes(str(place / IMAGE), "sif"))
    except (OSError, ValueError):
        return None


def _quarantined(place: Path) -> Quarantined:
    """Return what lies in quarantine; the record knows what it takes, so that a start does not walk through it."""
    try:
        text = _read(place / RECORD)
        entry, values = CacheEntry.from_json(text, 0.0), read_object(text)
        since = values.get("quarantined_at")
        why = str(values.get("why", "")) or "unknown"
        at = float(since) if isinstance(since, (int, float)) else 0.0
        one = Quarantined(place.name, entry.shown, entry.disk_bytes, entry.inodes, why, at)
        if one.entry_key == entry.key:
            return one
    except (OSError, ValueError):
        pass
    try:
        size, inodes = disk.measure(str(place))
    except OSError:
        size, inodes = 0, 1
    return Quarantined(place.name, "?", size, inodes, "its record cannot be read", 0.0)


def _read_object(path: Path) -> dict[str, str | float] | None:
    try:
        record = read_object(_read(path))
    except (OSError, ValueError):
        return None
    return record if isinstance(record.get("url"), str) else None


def image_bytes(image: str, kind: str) -> int:
    """Return the size of an image, -1 if there is none of its kind (a directory for a sandbox, else a file)."""
    try:
        found = os.lstat(image)
    except OSError:
        return -1
    fits = stat.S_ISDIR(found.st_mode) if kind == "sandbox" else stat.S_ISREG(found.st_mode)
    return found.st_size if fits else -1
