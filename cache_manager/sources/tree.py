"""A publication tree of SIFs: <base>/<arch>/<name>/latest.txt names the current version, a manifest its digest.

Works with trees that have no manifests (the v2 layout of today), by size and SIF header alone.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any, Final, Protocol

from cache_manager.layout import LATEST, is_version_file, manifest_file, tree_url, with_tag
from cache_manager.outcome import Absent, Answer, Denied, Located, Unwell
from cache_manager.reference import ImageReference
from cache_manager.sources import transport
from cache_manager.sources.base import Route, Sink, SourceError
from cache_manager.sources.transport import Patience, shown
from cache_manager.status import HookStatus
from cache_manager.text import printable

MAX_BYTES: Final = 2**63
"""No file is larger."""

_SHA256 = re.compile(r"(?:sha256:)?([0-9a-f]{64})")


class Objects(Protocol):
    """How the objects of a tree are read that has no http(s) or file URL. Both raise SourceError."""

    def read(self, url: str, *, fresh: bool = False) -> bytes:
        """Return the body of a small object; a `fresh` one may have changed since others read it."""

    def bring(self, url: str, sink: Sink, digest: str) -> None:
        """Write an object to the sink."""


@dataclass(frozen=True, slots=True)
class _Web:
    patience: Patience

    def read(self, url: str, *, fresh: bool = False) -> bytes:  # noqa: ARG002 - HTTP's caches know what is fresh
        return transport.read_small(url, self.patience)

    def bring(self, url: str, sink: Sink, digest: str) -> None:
        transport.transfer([Route(url)], sink, self.patience, digest)


@dataclass(frozen=True, slots=True)
class Tree:
    """One publication tree, as seen from an EP of architecture `arch` (`uname -m`)."""

    base: str
    arch: str
    patience: Patience
    elsewhere: Objects | None = None

    @property
    def objects(self) -> Objects:
        """What reads this tree."""
        return self.elsewhere or _Web(self.patience)

    def pointer_url(self, image: ImageReference) -> str:
        """Return the URL of the image's latest.txt."""
        return tree_url(self.base, self.arch, image.published_name, LATEST)

    def locate(self, image: ImageReference) -> Answer:
        """Read the pointer, and the manifest of what it points to.

        A missing pointer is no proof that the image is not published: this tree may not be the authority for it.
        """
        url = self.pointer_url(image)
        try:
            body = self.objects.read(url, fresh=True)
        except SourceError as error:
            if isinstance(error.answer, Denied):  # S3 and the like say 403 for what is not there
                return Absent(error.answer.why)
            return error.answer
        version = body.decode("utf-8", "replace").strip()
        if not is_version_file(version):
            what = f"{shown(url)}: names no version: {printable(version[:16])!r} ({len(body)} bytes)"
            return Unwell(HookStatus.SOURCE_UNREACHABLE, what)
        return self._described(image, version)

    def _described(self, image: ImageReference, version: str) -> Answer:
        object_url = tree_url(self.base, self.arch, image.published_name, version)
        url = tree_url(self.base, self.arch, image.published_name, manifest_file(version))
        try:
            raw = self.objects.read(url)
        except SourceError as error:
            if isinstance(error.answer, Unwell):
                return error.answer
            return Located(url=object_url)
        return read_manifest(image, object_url, url, raw)

    def transfer(self, located: Located, sink: Sink) -> None:
        """Fetch the SIF. Raises SourceError."""
        try:
            self.objects.bring(located.url, sink, located.digest)
        except SourceError as error:
            if isinstance(error.answer, (Absent, Denied)):  # latest.txt names it
                raise SourceError(
                    Unwell(HookStatus.SOURCE_UNREACHABLE, f"{error.answer.why}, although latest.txt names it")
                ) from None
            raise


def read_manifest(image: ImageReference, object_url: str, url: str, raw: bytes) -> Answer:
    """Return what a manifest promises of an object, Unwell for one that is none."""
    try:
        manifest = json.loads(raw)
    except (ValueError, RecursionError) as error:
        return Unwell(HookStatus.IMAGE_CORRUPT, f"{shown(url)}: no JSON ({printable(str(error), 80)})")
    if not isinstance(manifest, dict):
        return Unwell(HookStatus.IMAGE_CORRUPT, f"{shown(url)}: no manifest")
    return _promised(image, object_url, url, manifest)


def _promised(image: ImageReference, object_url: str, url: str, manifest: dict[str, Any]) -> Answer:
    """Return what the manifest promises, if its values can be meant."""
    name, digest, size = manifest.get("name"), manifest.get("sha256"), manifest.get("size")
    if name is not None and (not isinstance(name, str) or with_tag(name) != with_tag(image.published_name)):
        # `/` and `:` become `__` in a tree, which is not reversible: two names may meet in one directory
        what = f"{shown(url)}: belongs to another image ({printable(str(name), 80)!r})"
        return Unwell(HookStatus.IMAGE_CORRUPT, what)
    found = _SHA256.fullmatch(digest) if isinstance(digest, str) else None
    if found is None or type(size) is not int or not 0 < size < MAX_BYTES:
        return Unwell(HookStatus.IMAGE_CORRUPT, f"{shown(url)}: sha256 or size is missing or wrong")
    return Located(url=object_url, digest=found.group(1), size_bytes=size)
