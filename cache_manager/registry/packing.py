"""An image of a registry as one file: the OCI archive of its manifest, its configuration and its layers. Pure.

The same image gives the same bytes: nothing in it depends on who packs it, or when.
"""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from cache_manager.registry.manifest import Descriptor, Manifest

_BLOCK: Final = 512
_END: Final = bytes(2 * _BLOCK)
_DIRECTORIES: Final = ("blobs", "blobs/sha256")
"""Apptainer makes no directory that the archive does not have."""


@dataclass(frozen=True, slots=True)
class Part:
    """What comes next in an archive: bytes, then a blob of the registry (None for no blob), then bytes."""

    before: bytes
    blob: Descriptor | None = None
    after: bytes = b""

    @property
    def size_bytes(self) -> int:
        """How much of the archive it is."""
        return len(self.before) + (self.blob.size_bytes if self.blob else 0) + len(self.after)


def parts_of(manifest: Manifest) -> tuple[Part, ...]:
    """Return the archive of an image, in its order. Its size is the sum of its parts'."""
    return tuple(_parts(manifest))


def _parts(manifest: Manifest) -> Iterator[Part]:
    entry = {"mediaType": manifest.media_type, "digest": manifest.digest, "size": len(manifest.body)}
    index = json.dumps({"schemaVersion": 2, "manifests": [entry]}).encode()
    for name in _DIRECTORIES:
        yield Part(_head(name, 0, directory=True))
    yield _file("oci-layout", b'{"imageLayoutVersion": "1.0.0"}')
    yield _file("index.json", index)
    yield _file(_place(manifest.digest), manifest.body)
    seen: set[str] = set()
    for blob in (manifest.config, *manifest.layers):
        if blob.digest not in seen:  # the empty layer comes often
            seen.add(blob.digest)
            yield Part(_head(_place(blob.digest), blob.size_bytes), blob, _padding(blob.size_bytes))
    yield Part(_END)


def _place(digest: str) -> str:
    return f"blobs/{digest.replace(':', '/')}"


def _file(name: str, content: bytes) -> Part:
    return Part(_head(name, len(content)) + content + _padding(len(content)))


def _padding(size_bytes: int) -> bytes:
    return bytes(-size_bytes % _BLOCK)


def _head(name: str, size_bytes: int, *, directory: bool = False) -> bytes:
    info = tarfile.TarInfo(name)
    info.size = size_bytes
    if directory:
        info.type, info.mode = tarfile.DIRTYPE, 0o755
    return info.tobuf(tarfile.GNU_FORMAT)
