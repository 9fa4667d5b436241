"""What every target has in common: what the publisher asks of it, and how it says that it cannot."""

from __future__ import annotations

import errno
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from cache_manager.disk import Room
from cache_manager.text import human_bytes, printable
from sync.files import FULL
from sync.targets.sandboxes import Sandboxes


class TargetError(Exception):
    """Something was not published; readers have what they had. `transient`: trying later may help."""

    def __init__(self, message: str, *, transient: bool = True) -> None:
        super().__init__(message)
        self.transient = transient


class NoRoom(TargetError):  # noqa: N818 - a finding
    """There is too little room for what was to be published at once; for less there may be enough."""


@dataclass(frozen=True, slots=True)
class Needed:
    """What is about to be written."""

    size_bytes: int
    inodes: int


class SandboxTarget(Protocol):
    """Where sandboxes are published."""

    def begin(self) -> str:
        """Clear up what a former run left behind; return what was found, as text for the log. Raises TargetError."""

    def readable(self) -> Sandboxes:
        """Return what readers see now."""

    def writing(self, needed: Needed) -> AbstractContextManager[Sandboxes]:
        """Have changes made. Readers see all of those of a CVMFS transaction at its end, or none.

        Raises TargetError and NoRoom, also at the end; readers have what they had then.
        """


class FileStore(Protocol):
    """Where SIFs are published: files by their path below a base. All raise TargetError."""

    def begin(self) -> None:
        """Clear up what a former run left behind."""

    def add(self, path: str, source: Path, sha256: str) -> None:
        """Put a file where there never was one; refuse to overwrite."""

    def replace(self, path: str, content: bytes) -> None:
        """Put a small file in place of the one that is there, if any: readers see the old or the new one."""

    def remove(self, path: str) -> bool:
        """Remove a file; return whether it is gone. False: this store cannot remove."""

    def versions(self, directory: str) -> set[str] | None:
        """Return the names of the files in a directory, None where that cannot be told."""


def told(what: str, error: OSError) -> TargetError:
    """Return an OSError as what the publisher's admin reads; NoRoom for a file system that is full."""
    name = f"{printable(str(error.filename))}: " if error.filename else ""
    message = f"{what}: {name}{error.strerror or error}"
    if error.errno in FULL:
        return NoRoom(message)
    return TargetError(message, transient=error.errno != errno.EINVAL)


def refuse_too_much(what: str, place: Path, needed: Needed, free: Room) -> None:
    """Raise NoRoom if the file system of `place` has too little for what is to be written."""
    if needed.size_bytes > free.free_bytes:
        raise NoRoom(
            f"{what}: {place} has too little room: {human_bytes(needed.size_bytes)} needed,"
            f" {human_bytes(free.free_bytes)} free"
        )
    if needed.inodes > free.free_inodes:
        raise NoRoom(f"{what}: {place} has too few inodes: {needed.inodes} needed, {free.free_inodes} free")
