"""What a registry says an image consists of: manifests, and indexes of manifests for several architectures. Pure.

The digest of either is computed of the exact bytes that came, whatever their sender says of them.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import Any, Final

from cache_manager.registry.reference import is_digest
from cache_manager.text import printable

MAX_BYTES: Final = 4 * 2**20
"""Registries take none that is larger."""

MAX_LAYERS: Final = 1000
MAX_SIZE: Final = 2**60
"""A larger size cannot be meant."""

INDEX_TYPES: Final = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
)
MANIFEST_TYPES: Final = (
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)
ACCEPT: Final = ", ".join((*INDEX_TYPES, *MANIFEST_TYPES))
"""A registry that has an image of a type that is not listed says that it has none."""

SIF_LAYER: Final = "application/vnd.sylabs.sif.layer.v1.sif"
"""The type of the one layer of an image that `apptainer push` made."""

_OLD: Final = "application/vnd.docker.distribution.manifest.v1+"
_ARCHITECTURES: Final = {
    "x86_64": ("amd64", ("", "v1", "v2", "v3", "v4")),
    "aarch64": ("arm64", ("", "v8")),
    "armv7l": ("arm", ("v7", "v6", "v5", "")),
    "armv6l": ("arm", ("v6", "v5", "")),
    "i686": ("386", ("",)),
    "ppc64le": ("ppc64le", ("", "power8")),
    "s390x": ("s390x", ("",)),
    "riscv64": ("riscv64", ("",)),
}
"""Of a machine, as `uname -m` says: its name in registries, and the variants that it runs, the best choice first.

What runs everywhere comes before what is faster on some: an image is shared by all machines of an architecture.
"""


class ManifestError(ValueError):
    """What came is no manifest that can be used; the text says why."""


class ArchitectureError(ManifestError):
    """There is an image, for other architectures; the text names them."""


@dataclass(frozen=True, slots=True)
class Platform:
    """For which machines an image is, in the words of registries."""

    os: str = ""
    architecture: str = ""
    variant: str = ""

    def __str__(self) -> str:
        """Return `linux/arm64/v8`."""
        return "/".join(filter(None, (self.os, self.architecture, self.variant)))


@dataclass(frozen=True, slots=True)
class Descriptor:
    """Something in a registry, by its digest (`sha256:…`). `platform` is set in indexes."""

    media_type: str
    digest: str
    size_bytes: int
    platform: Platform = Platform()
    title: str = ""


@dataclass(frozen=True, slots=True)
class Index:
    """The manifests of one image for several architectures."""

    digest: str
    manifests: tuple[Descriptor, ...]


@dataclass(frozen=True, slots=True)
class Manifest:
    """One image: its configuration and its layers, the lowest first; and the manifest itself, as it came."""

    digest: str
    config: Descriptor
    layers: tuple[Descriptor, ...]
    media_type: str = ""
    body: bytes = field(default=b"", repr=False)

    @property
    def size_bytes(self) -> int:
        """The sum of what has to be fetched."""
        return self.config.size_bytes + sum(layer.size_bytes for layer in self.layers)

    @property
    def sif(self) -> Descriptor | None:
        """The layer that is a SIF, if the image is nothing but one."""
        return self.layers[0] if len(self.layers) == 1 and self.layers[0].media_type == SIF_LAYER else None


def digest_of(body: bytes) -> str:
    """Return the digest of bytes as registries write it."""
    return f"sha256:{hashlib.sha256(body).hexdigest()}"


def known_architectures() -> tuple[str, ...]:
    """Return the machines, as `uname -m` says, for which an image can be chosen."""
    return tuple(_ARCHITECTURES)


def parse(body: bytes, content_type: str = "") -> Index | Manifest:
    """Read what a registry delivered. Raises ManifestError.

    The type that the body says itself comes before that of the header, which may be a proxy's, with parameters.
    """
    if len(body) > MAX_BYTES:
        raise ManifestError(f"larger than {MAX_BYTES} bytes, so no manifest")
    try:
        values = json.loads(body)
    except (ValueError, RecursionError):
        raise ManifestError(f"no JSON ({len(body)} bytes)") from None
    if not isinstance(values, dict):
        raise ManifestError("no JSON object")
    kind = _text(values.get("mediaType")) or content_type.partition(";")[0].strip().lower()
    if kind.startswith(_OLD) or values.get("schemaVersion") == 1:
        raise ManifestError("a manifest of schema 1, which is no longer in use: the image has to be pushed again")
    if kind in INDEX_TYPES or (kind not in MANIFEST_TYPES and "manifests" in values):
        listed = _list(values, "manifests")
        return Index(digest_of(body), tuple(_descriptor(one) for one in listed))
    if kind not in MANIFEST_TYPES and "layers" not in values:
        raise ManifestError(f"type {printable(kind, 80)!r} is none of an image")
    layers = tuple(_descriptor(one) for one in _list(values, "layers"))
    media_type = kind if kind in MANIFEST_TYPES else MANIFEST_TYPES[0]
    return Manifest(digest_of(body), _descriptor(values.get("config")), layers, media_type, body)


def choose(index: Index, machine: str) -> Descriptor:
    """Return the manifest for a machine, as `uname -m` says. Raises ArchitectureError.

    Attestations, which say `unknown/unknown`, are no images.
    """
    name, variants = _ARCHITECTURES.get(machine, (machine, ("",)))
    images = [one for one in index.manifests if one.media_type in {"", *MANIFEST_TYPES}]
    usable = [one for one in images if one.platform.os in {"linux", ""} and one.platform.architecture == name]
    for variant in variants:
        for one in usable:
            if one.platform.variant == variant:
                return one
    there = sorted({str(one.platform) for one in images} - {"unknown/unknown", ""})
    raise ArchitectureError(f"not for {machine}; there is: {printable(', '.join(there) or 'nothing', 200)}")


def architecture_of(config: bytes) -> str:
    """Return for which machine an image is, as `uname -m` says, by its configuration; empty if that is not said."""
    try:
        values = json.loads(config)
    except (ValueError, RecursionError):
        return ""
    return machine_of(_text(values.get("architecture"))) if isinstance(values, dict) else ""


def name_of(machine: str) -> str:
    """Return what registries call a machine's architecture, by what `uname -m` says; unknown ones as they are."""
    return _ARCHITECTURES[machine][0] if machine in _ARCHITECTURES else machine


def machine_of(architecture: str) -> str:
    """Return the machine, as `uname -m` says, of an architecture as registries name it; unknown ones as they are."""
    return next((machine for machine, (name, _) in _ARCHITECTURES.items() if name == architecture), architecture)


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _list(values: dict[str, Any], name: str) -> list[object]:
    found = values.get(name)
    if not isinstance(found, list) or len(found) > MAX_LAYERS:
        raise ManifestError(f"`{name}` is no list of at most {MAX_LAYERS}")
    return found


def _descriptor(value: object) -> Descriptor:
    if not isinstance(value, dict):
        raise ManifestError("a descriptor is no JSON object")
    digest, size = _text(value.get("digest")), value.get("size")
    if not is_digest(digest):
        raise ManifestError(f"{printable(digest, 80)!r} is no digest (sha256 is asked for)")
    if type(size) is not int or not 0 <= size < MAX_SIZE:
        raise ManifestError(f"{digest[:19]}... has no size that can be meant")
    said, notes = value.get("platform"), value.get("annotations")
    platform = Platform()
    if isinstance(said, dict):
        platform = Platform(_text(said.get("os")), _text(said.get("architecture")), _text(said.get("variant")))
    title = _text(notes.get("org.opencontainers.image.title")) if isinstance(notes, dict) else ""
    return Descriptor(_text(value.get("mediaType")), digest, size, platform, title)
