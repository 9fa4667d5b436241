"""What is handed from one step of the publisher to the next: resolved, converted, failed. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Variant:
    """An image for one architecture, named as `uname -m` does.

    `digest` is that of its manifest in the registry (`sha256:…`); `compressed_bytes` the sum of its layers as they are
    fetched, None where only the digest was asked for.
    """

    arch: str
    digest: str
    compressed_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Resolved:
    """A listed name, and what its registry has for it now.

    `name` is the one under which it is published (`htc/rocky:9`), `source` the whole reference in its registry;
    `digest` that of what the tag points to: an index of several architectures, or one image's manifest.
    """

    name: str
    source: str
    digest: str
    variants: tuple[Variant, ...] = ()


@dataclass(frozen=True, slots=True)
class Converted:
    """Both forms of an image, made from one tree, not yet published. Paths are in the run's own work directory.

    `tree_digest` and `sha256` (of the SIF) are hexadecimal; `tools` are the versions of what made them.
    """

    name: str
    source: str
    index_digest: str
    variant: Variant
    tree_path: str
    tree_digest: str
    tree_bytes: int
    tree_inodes: int
    sif_path: str
    sha256: str
    size_bytes: int
    tools: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Failure:
    """An image that is not published in this run: why, as text for its publisher, and whether trying later may help."""

    name: str
    source: str
    why: str
    transient: bool = False
