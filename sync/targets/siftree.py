"""A tree of SIFs as the caches read it: `<arch>/<name>/latest.txt` names the current version, a manifest its digest.

What is led to is always there first: the SIF, its manifest, the pointer, and at last the catalog.
"""

from __future__ import annotations

import re
import time
from calendar import timegm
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cache_manager.layout import CATALOG, LATEST, is_version_file, manifest_file, tree_name
from sync.targets.base import FileStore
from sync.values import Converted

_FORMAT: Final = "%Y%m%dT%H%M%SZ"
_VERSION = re.compile(r"[0-9]{8}T[0-9]{6}Z")


def next_version(now: float, known: Iterable[str]) -> str:
    """Return a version that is later than all that are known: the time now, or else one second after the last."""
    last = max((time_of(one) for one in known if is_version(one)), default=0.0)
    return time.strftime(_FORMAT, time.gmtime(max(now, last + 1)))


def is_version(text: str) -> bool:
    """Whether a text is a version: a moment that there was or will be."""
    if not _VERSION.fullmatch(text):
        return False
    try:
        time.strptime(text, _FORMAT)
    except ValueError:
        return False
    return True


def time_of(version: str) -> float:
    """Return when a version was published, in epoch seconds."""
    return float(timegm(time.strptime(version, _FORMAT)))


@dataclass(frozen=True, slots=True)
class SifTree:
    """A tree in some store. All methods raise TargetError."""

    store: FileStore

    def publish(self, one: Converted, version: str, manifest: bytes) -> None:
        """Publish an image under a version that was never used, and make it the current one."""
        where = _directory(one.variant.arch, one.name)
        file = f"{version}.sif"
        self.store.add(f"{where}/{file}", Path(one.sif_path), one.sha256)
        self.store.replace(f"{where}/{manifest_file(file)}", manifest)
        self.point(one.variant.arch, one.name, version)

    def point(self, arch: str, name: str, version: str) -> None:
        """Make a version that is there the current one."""
        self.store.replace(f"{_directory(arch, name)}/{LATEST}", f"{version}.sif\n".encode())

    def publish_catalog(self, text: bytes) -> None:
        """Put the tree's table of contents in place."""
        self.store.replace(CATALOG, text)

    def withdraw(self, arch: str, name: str) -> bool:
        """Have an image no current version any more; its SIFs stay. Return whether that could be done."""
        return self.store.remove(f"{_directory(arch, name)}/{LATEST}")

    def remove(self, arch: str, name: str, version: str) -> bool:
        """Remove a version's SIF and manifest. Return whether that could be done."""
        where, file = _directory(arch, name), f"{version}.sif"
        return self.store.remove(f"{where}/{file}") and self.store.remove(f"{where}/{manifest_file(file)}")

    def versions(self, arch: str, name: str) -> set[str] | None:
        """Return the versions of an image that lie there; None where that cannot be told."""
        found = self.store.versions(_directory(arch, name))
        return None if found is None else {one.removesuffix(".sif") for one in found if is_version_file(one)}


def _directory(arch: str, name: str) -> str:
    return f"{arch}/{tree_name(name)}"
