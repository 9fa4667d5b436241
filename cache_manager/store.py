"""The disk protocol of the cache root. Files are the truth; whoever calls this keeps an index of them.

Commit: the image and its record are written under `staging`, synced, and renamed into `entries`; the parent is synced.
Evict: renamed into `trash`, then removed. Every step may be repeated. Nothing here knows the policy.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import Final
from weakref import WeakValueDictionary

from cache_manager import acl, disk, removal, scan
from cache_manager.entry import CacheEntry
from cache_manager.layout import CacheLayout
from cache_manager.lease import Lease
from cache_manager.partial import Partial
from cache_manager.pin import Pin
from cache_manager.reconcile import Quarantined, Repair
from cache_manager.scan import RECORD
from cache_manager.staging import IMAGE, PARTIAL, Staging
from cache_manager.status import HookStatus, StatusError
from cache_manager.text import human_bytes

log = logging.getLogger(__name__)

_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})


class Store:
    """The files under one cache root. Everything may raise OSError; `prepare` says what is wrong with the root."""

    def __init__(self, layout: CacheLayout) -> None:
        self.layout = layout
        self.root = Path(layout.root)
        self.can_admit = False
        """Whether the file system can let single users in; known after `prepare`."""
        self._stagings: WeakValueDictionary[str, Staging] = WeakValueDictionary()

    def prepare(self) -> None:
        """Make the directories. Raises StatusError: CACHE_UNUSABLE for a root that others could write to, DISK_FULL."""
        try:
            self.root.mkdir(mode=0o755, parents=True, exist_ok=True)
            self._refuse_foreign(self.root)
            for directory, mode in self.layout.modes.items():
                Path(directory).mkdir(mode=mode, exist_ok=True)
                found = self._refuse_foreign(Path(directory))
                if (
                    found & ~mode and found & stat.S_IRWXU == stat.S_IRWXU
                ):  # what its owner closed stays so, and is told
                    Path(directory).chmod(mode)
            self.check()
            self._try_to_write()
        except OSError as error:
            raise self.trouble("", error) from None

    def check(self) -> None:
        """Raise StatusError when the root cannot be used, as far as can be seen without writing to it."""
        try:
            if os.statvfs(self.root).f_flag & os.ST_RDONLY:
                raise _unusable(self.root, "its file system is read-only")
            for directory in (self.root, *map(Path, self.layout.directories)):
                self._refuse_foreign(directory)
                if not os.access(directory, os.R_OK | os.W_OK | os.X_OK):
                    mode = stat.S_IMODE(directory.lstat().st_mode)
                    raise _unusable(directory, f"the manager may not write to it (mode {mode:04o})")
        except OSError as error:
            raise self.trouble("", error) from None

    def _try_to_write(self) -> None:
        """Write a file, and see what the file system can do; a full disk is no reason not to serve what is there.

        Raises OSError.
        """
        probe = self._staging_dir(f"probe.{os.urandom(4).hex()}")
        try:
            probe.write_bytes(b"probe\n")
            self.can_admit = acl.works_on(probe)
        except OSError as error:
            if error.errno not in _FULL:
                raise
        finally:
            probe.unlink(missing_ok=True)

    def trouble(self, name: str, error: OSError) -> StatusError:
        """Return what an error of the file system means for an image, with what is free and where."""
        where = f"{name}: cache directory {self.root}" if name else f"cache directory {self.root}"
        what = error.strerror or str(error)
        if error.errno not in _FULL:
            return StatusError(HookStatus.CACHE_UNUSABLE, f"{where}: {what}")
        try:
            room = self.room()
            files = "" if room.free_inodes >= disk.UNLIMITED else f", {room.free_inodes} inodes"
            what += f" ({human_bytes(room.free_bytes)}{files} free)"
        except OSError:
            pass
        return StatusError(HookStatus.DISK_FULL, f"{where}: {what}")

    def _refuse_foreign(self, directory: Path) -> int:
        """Return a directory's mode. Raises StatusError."""
        found = directory.lstat()
        if not stat.S_ISDIR(found.st_mode):
            raise _unusable(directory, "is no directory")
        if found.st_uid != os.geteuid():
            raise _unusable(directory, f"belongs to another user (uid {found.st_uid}, manager {os.geteuid()})")
        if found.st_mode & 0o022:
            raise _unusable(directory, f"is writable by others (mode {stat.S_IMODE(found.st_mode):04o})")
        return stat.S_IMODE(found.st_mode)

    def repair(self, repair: Repair) -> None:
        """Apply what reconcile planned, and empty the trash."""
        for name in repair.broken_entries:
            self.discard(Path(self.layout.entries) / name)
        for name in repair.dead_leases:
            self.discard(Path(self.layout.leases) / name)
        for name in repair.dead_objects:
            self.discard(Path(self.layout.objects) / name)
        for name in repair.dead_pins:
            self.discard(Path(self.layout.pins) / name)
        for name in repair.leftovers:
            self.discard(self._staging_dir(name))
        for path in self.trashed():
            try:
                removal.remove(path)
            except OSError as error:  # a thread is at it too; or it is tried again
                log.warning("cannot remove %s: %s", path, error.strerror or error)

    def stage(self, nonce: str, grow: Callable[[int], None]) -> Staging:
        """Open a place for an image that comes in."""
        directory = self._staging_dir(nonce)
        directory.mkdir(mode=0o700)
        acl.remove(directory)  # of the root's parent, perhaps: who is on it would count as admitted
        staging = self._stagings[nonce] = Staging(directory, grow)
        return staging

    def take_up(self, partial: Partial, grow: Callable[[int], None]) -> Staging:
        """Open the place of an image that an earlier process began to bring in."""
        staging = Staging(self._staging_dir(partial.nonce), grow)
        staging.take_up(partial)
        self._stagings[partial.nonce] = staging
        return staging

    def give_up_staging(self, nonce: str) -> Path | None:
        """Take what was being brought in out of sight; its place in the trash is removed by `remove`."""
        return removal.set_aside(self._staging_dir(nonce), Path(self.layout.trash))

    def commit(self, staging: Staging, describe: Callable[[int, int], CacheEntry]) -> CacheEntry:
        """Publish a finished image; `describe` makes its record from the bytes and inodes that it takes.

        An entry of the same key that is there already is the same image: the new one is dropped.
        """
        directory = staging.directory
        (directory / PARTIAL).unlink(missing_ok=True)
        size, inodes = disk.measure(str(directory))
        entry = describe(size + 4096, inodes + 1)
        record = directory / RECORD
        with record.open("x", encoding="utf-8") as file:
            file.write(entry.to_json())
            file.flush()
            os.fsync(file.fileno())
        record.chmod(0o644)
        disk.sync(str(directory), everything=entry.format == "sandbox")
        target = Path(self.layout.entries) / entry.key
        directory.chmod(0o700 if entry.closed else 0o755)
        if self.is_whole(entry):
            self.discard(directory)
            return entry
        self.discard(target)  # something that is not what its name says
        directory.rename(target)
        disk.sync(str(target.parent))
        return entry

    def readers(self, key: str) -> frozenset[int]:
        """Return the uids that were admitted to a closed entry."""
        return acl.readers(Path(self.layout.entries) / key)

    def admit(self, key: str, uid: int) -> None:
        """Let a user into a closed entry. The directory is its only door, and the list on it the only record."""
        place = Path(self.layout.entries) / key
        acl.admit(place, acl.readers(place) | {uid})

    def close(self, key: str) -> None:
        """Let nobody into an entry who was not admitted."""
        place = Path(self.layout.entries) / key
        if not acl.readers(place):  # else the mode's group bits are the list's mask
            place.chmod(0o700)

    def open(self, entry: CacheEntry) -> None:
        """Let everybody into an entry; `entry` is its new record. If that is cut off, a start closes it again."""
        place = Path(self.layout.entries) / entry.key
        acl.remove(place)
        place.chmod(0o755)
        self._replace(place / RECORD, entry.to_json(), sync=True)

    def record(self, key: str) -> CacheEntry | None:
        """Return the record of an entry; None if it cannot be read."""
        return scan.found_entry(str(self.layout.entries), key).entry

    def discard_staging(self, nonce: str) -> None:
        """Give up what was being brought in; nothing happens if it is not there."""
        self.discard(self._staging_dir(nonce))

    def evict(self, key: str) -> Path | None:
        """Take an entry out of sight and return its place in the trash, to be removed by `remove`."""
        return removal.set_aside(Path(self.layout.entries) / key, Path(self.layout.trash))

    def quarantine(self, entry: CacheEntry, key: str, why: str, now: float) -> Quarantined:
        """Take a bad entry out of use and keep it as `key`; its record then says why, and since when."""
        place = Path(self.layout.quarantine) / key
        self.discard(place)
        (Path(self.layout.entries) / entry.key).rename(place)
        record = json.loads(entry.to_json()) | {"quarantined_at": now, "why": why[:1000]}
        with suppress(OSError):  # it is out of use all the same
            self._replace(place / RECORD, json.dumps(record, indent=1, sort_keys=True) + "\n")
        return Quarantined(key, entry.shown, entry.disk_bytes, entry.inodes, why, now)

    def release_quarantine(self, key: str) -> Path | None:
        """Give up what is in quarantine under this key; its place in the trash is removed by `remove`."""
        return removal.set_aside(Path(self.layout.quarantine) / key, Path(self.layout.trash))

    def remove(self, trashed: Path) -> None:
        """Remove what `evict` returned; may take long."""
        removal.remove(trashed)

    def discard(self, path: Path) -> None:
        """Take something out of sight and remove it."""
        trashed = removal.set_aside(path, Path(self.layout.trash))
        if trashed:
            removal.remove(trashed)

    def is_there(self) -> bool:
        """Whether the root is there at all: its file system may not be mounted now."""
        return Path(self.layout.entries).is_dir()

    def image_bytes(self, key: str) -> int:
        """Return the size of an entry's image, -1 if there is none of its format."""
        return scan.image_bytes(str(self.layout.image(key)), key.partition(".")[2])

    def is_whole(self, entry: CacheEntry) -> bool:
        """Whether an entry's record is there, and its image: a file of its size, or a directory."""
        try:
            os.lstat(self.layout.entries / entry.key / RECORD)
        except OSError:
            return False
        found = self.image_bytes(entry.key)
        return found >= 0 if entry.format == "sandbox" else found == entry.size_bytes

    def staged_bytes(self, nonce: str) -> int:
        """Return how much of an image that comes in is on disk."""
        staging = self._stagings.get(nonce)
        try:
            written = os.lstat(self._staging_dir(nonce) / IMAGE).st_blocks * 512
        except OSError:
            written = 0
        return max(written, staging.taken_bytes if staging else 0)

    def touch(self, entry: CacheEntry, now: float) -> None:
        """Remember the last use of an entry. A record that was lost is written again."""
        record = self.layout.entries / entry.key / RECORD
        try:
            os.utime(record, (now, now))
        except FileNotFoundError:
            self._replace(Path(record), entry.to_json())
            os.utime(record, (now, now))

    def rewrite(self, entry: CacheEntry) -> None:
        """Write an entry's record anew, with its last use; it survives power loss."""
        record = Path(self.layout.entries / entry.key / RECORD)
        self._replace(record, entry.to_json(), sync=True)
        os.utime(record, (entry.last_used_at, entry.last_used_at))

    def write_lease(self, lease: Lease) -> None:
        """Write a lease file. No sync: power loss ends the holders too."""
        self._replace(Path(self.layout.leases) / lease.holder.file_name, lease.to_json())

    def remove_lease(self, file_name: str) -> None:
        """Remove a lease file."""
        (Path(self.layout.leases) / file_name).unlink(missing_ok=True)

    def write_pin(self, pin: Pin) -> None:
        """Write a pin's file; it survives power loss."""
        path = Path(self.layout.pins) / pin.file_name
        self._replace(path, pin.to_json(), sync=True)
        disk.sync(str(path.parent))

    def remove_pin(self, pin: Pin) -> None:
        """Remove a pin's file; it does not come back after power loss."""
        path = Path(self.layout.pins) / pin.file_name
        path.unlink(missing_ok=True)
        disk.sync(str(path.parent))

    def write_heartbeat(self, text: str) -> None:
        """Say who has this root. It survives power loss: a cache without it is never known as one that a pilot left."""
        self._replace(Path(self.layout.heartbeat), text, sync=True)

    def beat(self) -> None:
        """Say that the manager still runs."""
        os.utime(self.layout.heartbeat)

    def write_object(self, name: str, record: dict[str, str | float]) -> None:
        """Write what is known of a URL; losing it costs a request, no more."""
        self._replace(Path(self.layout.objects) / name, json.dumps(record, sort_keys=True) + "\n")

    def trashed(self) -> list[Path]:
        """Return what lies in the trash."""
        return [Path(self.layout.trash) / name for name in scan.names(self.layout.trash)]

    def remove_object(self, name: str) -> None:
        """Remove what is known of a URL."""
        (Path(self.layout.objects) / name).unlink(missing_ok=True)

    def overhead(self) -> tuple[int, int]:
        """Return what the root takes but for images and records: directories, the lock, the runtime's own files."""
        one_by_one = {self.layout.entries, self.layout.staging, self.layout.trash, self.layout.quarantine}
        one_by_one |= {self.layout.objects, self.layout.leases}
        found = [(0, 1)]
        for path in self.root.iterdir():
            known = PurePosixPath(path) in one_by_one
            found.append((path.lstat().st_blocks * 512, 1) if known else disk.measure(str(path)))
        inodes = sum(number for _, number in found)
        return max(sum(size for size, _ in found), inodes * disk.BLOCK_BYTES), inodes

    def room(self) -> disk.Room:
        """Return what is free on the root's file system."""
        return disk.room(str(self.root))

    def _staging_dir(self, nonce: str) -> Path:
        return Path(self.layout.staging) / nonce

    def _replace(self, path: Path, text: str, *, sync: bool = False) -> None:
        beside = Path(self.layout.staging) / f"{path.name}.{os.urandom(4).hex()}"
        with beside.open("x", encoding="utf-8") as file:
            file.write(text)
            if sync:
                file.flush()
                os.fsync(file.fileno())
        beside.rename(path)


def _unusable(path: Path, why: str) -> StatusError:
    return StatusError(HookStatus.CACHE_UNUSABLE, f"cache directory {path}: {why}")
