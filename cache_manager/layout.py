"""Where things lie: the cache root, publication trees of SIFs, and CVMFS paths. Names only; nothing is opened."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Final
from urllib.parse import quote

_VERSION_FILE = re.compile(r"[0-9]{8}T[0-9]{6}Z\.sif")
_KEY = re.compile(r"[0-9a-f]{64}\.(?:sif|sandbox)")

LATEST: Final = "latest.txt"
CATALOG: Final = "catalog.json"
IMAGES: Final = ".images"
"""The directory of a CVMFS repository in which images lie by digest."""


@dataclass(frozen=True, slots=True)
class CacheLayout:
    """The directories under the cache root; they are on one file system, so a rename publishes or removes."""

    root: PurePosixPath

    @property
    def lock(self) -> PurePosixPath:
        """Held by the one manager of this root."""
        return self.root / "lock"

    @property
    def entries(self) -> PurePosixPath:
        """Published images: <key>/image and <key>/entry.json."""
        return self.root / "entries"

    @property
    def objects(self) -> PurePosixPath:
        """What a pointer pointed to, and which digest an object's URL had."""
        return self.root / "objects"

    @property
    def leases(self) -> PurePosixPath:
        """One file for each holder."""
        return self.root / "leases"

    @property
    def pins(self) -> PurePosixPath:
        """What admins keep: one file for each reference."""
        return self.root / "pins"

    @property
    def heartbeat(self) -> PurePosixPath:
        """Which manager has this root: written at its start, touched while it runs. Marks a directory as ours."""
        return self.root / "manager.json"

    @property
    def staging(self) -> PurePosixPath:
        """Images that are being brought in."""
        return self.root / "staging"

    @property
    def trash(self) -> PurePosixPath:
        """Images that are being removed."""
        return self.root / "trash"

    @property
    def quarantine(self) -> PurePosixPath:
        """Images that differ from their digest."""
        return self.root / "quarantine"

    @property
    def runtime(self) -> PurePosixPath:
        """What the container runtime keeps for itself while it tests or unpacks."""
        return self.root / "runtime"

    @property
    def directories(self) -> tuple[PurePosixPath, ...]:
        """Return every directory that has to exist."""
        return (
            self.entries,
            self.objects,
            self.leases,
            self.pins,
            self.staging,
            self.trash,
            self.quarantine,
            self.runtime,
        )

    @property
    def modes(self) -> dict[PurePosixPath, int]:
        """Return the mode of each: jobs go through `entries` to an image that they were told, and see no others."""
        return {one: 0o711 if one == self.entries else 0o700 for one in self.directories}

    def image(self, key: str) -> PurePosixPath:
        """Return the path of an entry's image: what a job runs."""
        return self.entries / key / "image"


def is_key(name: str) -> bool:
    """Whether a directory's name is that of an entry: `<sha256>.<format>`."""
    return _KEY.fullmatch(name) is not None


def record_name(url: str) -> str:
    """Return the file name under `objects` for what is known of `url`."""
    return hashlib.sha256(url.encode()).hexdigest() + ".json"


def tree_name(name: str) -> str:
    """Return the directory of a published name in a SIF tree: `/` and `:` become `__` (not reversible).

    A name without a tag means `latest`, as at every registry.
    """
    return with_tag(name).replace("/", "__").replace(":", "__")


def with_tag(name: str) -> str:
    """Return a published name with its tag, `latest` if it has none."""
    return name if ":" in name.rpartition("/")[2] else f"{name}:latest"


def tree_url(base: str, arch: str, name: str, file: str) -> str:
    """Return the URL of `file` of the image `name` in the publication tree at `base`."""
    return f"{base.rstrip('/')}/{arch}/{quote(tree_name(name), safe='')}/{file}"


def is_version_file(text: str) -> bool:
    """Whether `text` may stand in latest.txt: `<YYYYMMDDThhmmssZ>.sif`. Proxies put HTML there."""
    return _VERSION_FILE.fullmatch(text) is not None


def manifest_file(version_file: str) -> str:
    """Return the name of the manifest beside a version's SIF."""
    return version_file.removesuffix(".sif") + ".json"
