"""Unpacking: a fetched SIF becomes a directory, where this EP runs directories only. One at a time, within limits.

What holds: each process may have IMAGE_CACHE_CONVERT_MEMORY of memory that it writes to (RLIMIT_DATA), all together run
on IMAGE_CACHE_CONVERT_CPUS processors at the lowest priority, within a time that grows with the image; bytes and files
are counted while they are written, and room for them is reserved: who outgrows it is ended, with all that it started.

Where squashfs-tools are new enough the file system is unpacked by unsquashfs itself, because it can be told how much
memory to take: the runtime starts it with its own 512 MiB of buffers, which fails large images. Else by the runtime.
"""

from __future__ import annotations

import errno
import logging
import os
import re
import shutil
import stat
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from cache_manager import limited, removal, sif
from cache_manager.growth import Grow, Growth
from cache_manager.limited import Limits
from cache_manager.runtime import Runtime
from cache_manager.settings import Settings
from cache_manager.staging import IMAGE, Staging
from cache_manager.status import HookStatus, StatusError
from cache_manager.text import human_bytes

log = logging.getLogger(__name__)

START_S: Final = 120.0
RATE_BYTES: Final = 2_000_000
"""Unpacking may take START_S, and a second for each RATE_BYTES of the SIF."""

OWN_FILES: Final = 20
"""What lies beside the image while it is unpacked."""

_MEBIBYTE: Final = 2**20
_UNSQUASHFS_BYTES: Final = 128 * _MEBIBYTE
"""What unsquashfs takes beside its two buffers: threads, and the tables of a large image."""
_BUFFER_MEBIBYTES: Final = (16, 256)
_VERSION = re.compile(r"version (\d+)\.(\d+)")
_TRUSTED: Final = (4, 5)
"""Older ones could be made to write outside of their target (CVE-2021-41072), and know not all options."""

CAPABILITY: Final = "security.capability"

_WORK, _UNPACKED = "work", "unpacked"


class Unpacker:
    """Unpacks images with one runtime. Methods block; only one image is unpacked at a time by whoever calls this."""

    def __init__(self, runtime: Runtime, settings: Callable[[], Settings]) -> None:
        self._runtime = runtime
        self._settings = settings

    def unpack(self, staging: Staging, name: str, grow: Grow) -> None:
        """Put the directory in the place of the finished SIF in staging; the SIF is dropped: it cannot be run here.

        Raises StatusError (IMAGE_UNPACK_FAILED, and those of `grow`), OSError.
        """
        began = time.monotonic()
        settings, directory = self._settings(), staging.directory
        work, unpacked = directory / _WORK, directory / _UNPACKED
        work.mkdir(mode=0o700)
        image = directory / IMAGE
        partition, files, packed = _look_into(image, staging.head)
        room = Growth(staging, grow, packed)
        room.need(staging.size_bytes + packed, files + OWN_FILES)
        limits = Limits(settings.convert_memory_bytes, settings.convert_cpus, START_S + staging.size_bytes / RATE_BYTES)
        command = self._command(image, unpacked, partition, limits)
        ran = limited.run(command, limits, self._runtime.environment(str(work)), str(work), room.look)
        if ran.status != 0 or not unpacked.is_dir() or unpacked.is_symlink():
            room.look()  # it may have been the disk
            raise _failed(name, command[0], ran.status, ran.said, limits.seconds)
        tidy(unpacked)
        room.look()
        removal.remove(work)
        image.unlink()
        unpacked.rename(image)
        log.info("unpacked %s: %s in %.1f s", name, human_bytes(staging.taken_bytes), time.monotonic() - began)

    def _command(self, image: Path, target: Path, partition: sif.Partition | None, limits: Limits) -> list[str]:
        program = shutil.which("unsquashfs", path=self._runtime.search_path())
        if program is None or partition is None or _version(program) < _TRUSTED:
            return self._runtime.unpack_command(str(image), str(target))
        least, most = _BUFFER_MEBIBYTES
        buffer = min(most, max(least, (limits.memory_bytes - _UNSQUASHFS_BYTES) // 2 // _MEBIBYTE))
        quiet = ["-no-progress", "-no-xattrs", "-no-exit-code"]  # devices that only root can make are no failure
        sizes = ["-da", str(buffer), "-fr", str(buffer), "-p", str(limits.cpus)]
        return [program, *quiet, *sizes, "-o", str(partition.offset), "-d", str(target), str(image)]


def _look_into(image: Path, head: bytes) -> tuple[sif.Partition | None, int, int]:
    """Return the file system's place in a SIF, its files and its bytes; None, 0, 0 where that is not told."""
    place = sif.table_of(head)
    with image.open("rb") as file:
        file.seek(place.offset)
        partition = sif.root_squashfs(file.read(place.size_bytes))
        if partition is None:
            return None, 0, 0
        file.seek(partition.offset)
        counts = sif.squashfs_counts(file.read(sif.SUPERBLOCK_BYTES))
    return (partition, *counts) if counts else (None, 0, 0)


def _version(program: str) -> tuple[int, int]:
    """Return the version of unsquashfs; (0, 0) where it does not say."""
    try:
        done = subprocess.run([program, "-version"], capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return 0, 0
    found = _VERSION.search(done.stdout)
    return (int(found[1]), int(found[2])) if found else (0, 0)


def _failed(name: str, program: str, status: int | None, said: str, seconds: float) -> StatusError:
    words = " ".join(said.split())[-300:]
    why = words or f"exit status {status}"
    if status is None:
        why = f"not done within {seconds:.0f} s"
    return StatusError(
        HookStatus.IMAGE_UNPACK_FAILED, f"{name}: could not be unpacked here: {Path(program).name}: {why}"
    )


def tidy(top: Path) -> None:
    """Make a tree ours alone to change and everybody's to read, without set-uid bits and devices. Follows no link.

    Directories become 755, files 755 or 644: what others may write would be written by jobs, in every other's image. No
    extended attribute stays: a capability is as good as a set-uid bit, an access control list lets others write.
    """
    owner = os.geteuid(), os.getegid()
    _tidy_one(str(top), os.lstat(top), owner)
    waiting = [str(top)]
    while waiting:
        with os.scandir(waiting.pop()) as entries:
            for entry in entries:
                found = entry.stat(follow_symlinks=False)
                _tidy_one(entry.path, found, owner)
                if stat.S_ISDIR(found.st_mode):
                    waiting.append(entry.path)


def _tidy_one(path: str, found: os.stat_result, owner: tuple[int, int]) -> None:
    mode = found.st_mode
    if stat.S_ISCHR(mode) or stat.S_ISBLK(mode):
        os.unlink(path)  # noqa: PTH108 - many files, few objects
        return
    if found.st_uid != owner[0]:
        os.chown(path, *owner, follow_symlinks=False)
    if stat.S_ISLNK(mode):
        return  # no user may attach anything to a link
    wanted = 0o755 if stat.S_ISDIR(mode) or mode & 0o111 else 0o644
    if stat.S_IMODE(mode) != wanted:
        os.chmod(path, wanted)  # noqa: PTH101 - many files, few objects
    _drop_attributes(path)  # which only who may write to it can do


def _drop_attributes(path: str) -> None:
    """Remove what is attached to a file. Raises OSError, but for what the kernel's own modules keep there."""
    try:
        names = os.listxattr(path, follow_symlinks=False)
    except OSError as error:
        if error.errno == errno.ENOTSUP:
            return
        raise
    for name in names:
        try:
            os.removexattr(path, name, follow_symlinks=False)
        except OSError:
            if not name.startswith("security.") or name == CAPABILITY:
                raise
