"""catalog.json at the top of a publication tree: every image, its versions and states. Pure.

It is what users, caches and the next run are told. A version is one conversion for one architecture: its SIF and its
sandbox come and go by themselves, the version goes with the last of them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields, replace
from enum import StrEnum
from types import MappingProxyType
from typing import Any, Final, TypeVar

from cache_manager.layout import is_version_file
from cache_manager.text import printable

SCHEMA: Final = 1
"""Readers refuse a larger one: what it says may mean something else."""


_TYPES: Final[dict[object, type]] = {"str": str, "int": int, "bool": bool}
UNKNOWN: Final = "unknown"
"""The digest of a version that a killed publisher began: nobody knows how much of it is there."""

_LAST_MOMENT: Final = 1e12
"""Beyond that no clock shows anything; nor is NaN below it."""
_ARCH = re.compile(r"[a-z0-9_]+")


class CatalogError(ValueError):
    """It is no catalog; the text says where."""


class State(StrEnum):
    """How an image is, in one word."""

    PUBLISHED = "published"
    QUEUED = "queued"
    FAILING = "failing"
    RETIRED = "retired"


@dataclass(frozen=True, slots=True)
class Version:
    """One conversion for one architecture.

    `arch` as `uname -m` says it; `version` is the stem of the SIF's name, `YYYYMMDDThhmmssZ`; `index_digest` and
    `digest` are the registry's: of what the tag pointed to, and of the image for this architecture. `sha256` and
    `size_bytes` are the SIF's; `sandbox` is the sandbox's path below the CVMFS repository, `tree_digest`,
    `tree_bytes` and `tree_inodes` are its contents'. `has_sif` and `sandbox` (empty if not) tell what is still there.
    `created_at` is when it was published; `superseded_at` when it was no longer the current one, 0 while it is.
    """

    arch: str
    version: str
    index_digest: str
    digest: str
    created_at: float
    sha256: str = ""
    size_bytes: int = 0
    has_sif: bool = False
    sandbox: str = ""
    tree_digest: str = ""
    tree_bytes: int = 0
    tree_inodes: int = 0
    superseded_at: float = 0.0

    @property
    def is_current(self) -> bool:
        """Whether its name leads to it."""
        return self.superseded_at == 0

    @property
    def is_there(self) -> bool:
        """Whether any of its forms is."""
        return self.has_sif or bool(self.sandbox)


@dataclass(frozen=True, slots=True)
class Image:
    """A published name, and all that is known of it. Moments are seconds since 1970; 0: not so.

    `digest` is what its tag pointed to when it was last resolved, `resolved_at` when it was found to. `queued_at` is
    since when a digest waits for its conversion; `failing_at` since when it fails, `failed_at` when it failed last,
    `failures` how often in a row, with which digest and why. `unlisted_at` is since when no line of the list names it,
    `unlinked_at` since when its name leads nowhere.
    """

    name: str
    source: str
    digest: str = ""
    resolved_at: float = 0.0
    queued_at: float = 0.0
    failing_at: float = 0.0
    failed_at: float = 0.0
    failures: int = 0
    failed_digest: str = ""
    error: str = ""
    is_transient: bool = False
    unlisted_at: float = 0.0
    unlinked_at: float = 0.0
    versions: tuple[Version, ...] = ()

    @property
    def state(self) -> State:
        """How it is, in one word. One that fails may still have a version of before."""
        if self.unlisted_at:
            return State.RETIRED
        if self.failing_at:
            return State.FAILING
        return State.QUEUED if self.queued_at or not self.current else State.PUBLISHED

    @property
    def since(self) -> float:
        """The moment since which its state is what it is."""
        first = min((one.created_at for one in self.current.values()), default=self.resolved_at)
        moments = {
            State.RETIRED: self.unlisted_at,
            State.FAILING: self.failing_at,
            State.QUEUED: self.queued_at or self.resolved_at,
            State.PUBLISHED: first,
        }
        return moments[self.state]

    @property
    def current(self) -> dict[str, Version]:
        """The versions that its name leads to, by architecture."""
        return {one.arch: one for one in self.versions if one.is_current and one.is_there}

    def version(self, arch: str, digest: str) -> Version | None:
        """Return the newest version of an image's digest that is still there in some form."""
        found = [one for one in self.versions if (one.arch, one.digest) == (arch, digest) and one.is_there]
        return max(found, key=lambda one: one.version, default=None)  # whatever the clock said then


_T = TypeVar("_T", Image, Version)


@dataclass(frozen=True)
class Catalog:
    """All images of a tree, by published name.

    `authoritative` are the namespaces of which nobody else publishes images (`*`: all): what is not here does not
    exist. `generated_at` is when it was written.
    """

    images: Mapping[str, Image] = field(default_factory=lambda: MappingProxyType({}))
    authoritative: tuple[str, ...] = ()
    generated_at: float = 0.0

    def covers(self, name: str) -> bool:
        """Whether the tree speaks for the namespace of a published name also where it has no such image."""
        return any(one == "*" or name.startswith(f"{one}/") for one in self.authoritative)

    def holders(self, sandbox: str) -> Iterator[tuple[Image, Version]]:
        """Yield the versions whose sandbox that is: names with one digest share it."""
        for image in self.images.values():
            for version in image.versions:
                if version.sandbox == sandbox:
                    yield image, version

    def with_image(self, image: Image) -> Catalog:
        """Return it with one image put in or changed."""
        return replace(self, images=MappingProxyType({**self.images, image.name: image}))

    def without(self, name: str) -> Catalog:
        """Return it without an image."""
        return replace(self, images=MappingProxyType({key: one for key, one in self.images.items() if key != name}))

    def get(self, name: str, source: str = "") -> Image:
        """Return an image, a new one if it is not known."""
        return self.images.get(name) or Image(name, source)


def render(catalog: Catalog) -> str:
    """Return catalog.json: sorted, one image a line, which can be compared with the one before and searched."""
    head = json.dumps({"schema": SCHEMA, "generated_at": catalog.generated_at, "authoritative": catalog.authoritative})
    lines = []
    for name in sorted(catalog.images):
        image = catalog.images[name]
        record = {key: value for key, value in asdict(image).items() if value not in ("", 0, False, ())}
        record |= {"state": image.state.value, "since": image.since}
        record["versions"] = [_sparse(one) for one in image.versions]
        lines.append(f"{json.dumps(name)}: {json.dumps(record)}")
    body = ",\n".join(lines)
    return f'{head[:-1]}, "images": {{\n{body}\n}}}}\n'


def _sparse(version: Version) -> dict[str, Any]:
    return {key: value for key, value in asdict(version).items() if value not in ("", 0, False)}


def parse(text: str) -> Catalog:
    """Read catalog.json. What it says beyond what is known is left out. Raises CatalogError."""
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise CatalogError(f"no JSON ({str(error)[:80]})") from None
    if not isinstance(document, dict) or type(document.get("schema")) is not int:
        raise CatalogError("no catalog: it names no schema")
    if document["schema"] > SCHEMA:
        raise CatalogError(f"written by a newer version (schema {document['schema']}, this one reads {SCHEMA})")
    images = document.get("images", {})
    spaces = document.get("authoritative", [])
    if not isinstance(images, dict) or not isinstance(spaces, list) or not all(isinstance(one, str) for one in spaces):
        raise CatalogError("images is no mapping, or authoritative no list of names")
    return Catalog(
        images=MappingProxyType({name: _image(name, record) for name, record in images.items()}),
        authoritative=tuple(spaces),
        generated_at=_number(document.get("generated_at", 0.0), "generated_at"),
    )


def _image(name: str, record: object) -> Image:
    if not isinstance(record, dict) or not isinstance(record.get("versions", []), list):
        raise CatalogError(f"{printable(name)}: no record of an image")
    if not _is_relative(name):
        raise CatalogError(f"{printable(name)}: no name under which anything is published")
    versions = tuple(_version(one, name) for one in record.get("versions", []))
    plain = {key: value for key, value in record.items() if key != "versions"}
    return _record(Image, plain | {"name": name, "versions": versions}, name)


def _version(record: object, name: str) -> Version:
    if not isinstance(record, dict):
        raise CatalogError(f"{printable(name)}: no record of a version")
    version = _record(Version, record, name)
    if not is_version_file(f"{version.version}.sif") or not _ARCH.fullmatch(version.arch):
        raise CatalogError(f"{printable(name)}: no version of an architecture: {printable(version.version)!r}")
    if version.sandbox and not _is_relative(version.sandbox):
        raise CatalogError(f"{printable(name)}: a sandbox outside of its repository: {printable(version.sandbox)!r}")
    return version


def _is_relative(path: str) -> bool:
    """Whether a path stays below where it begins: what the catalog names is removed one day."""
    return bool(path) and path.isprintable() and not set(path.split("/")) & {"", ".", ".."}


def _record(kind: type[_T], record: Mapping[str, Any], name: str) -> _T:
    """Build a record of the fields that are known, each of its own type."""
    values = {}
    for one in fields(kind):
        value = record.get(one.name, one.default)
        if value is MISSING:
            raise CatalogError(f"{printable(name)}: {one.name} is missing")
        if one.type == "float":
            value = _number(value, f"{printable(name)}: {one.name}")
        elif one.type in _TYPES and type(value) is not _TYPES[one.type]:
            raise CatalogError(f"{printable(name)}: {one.name} is no {one.type}")
        values[one.name] = value
    return kind(**values)


def _number(value: object, what: str) -> float:
    if isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < _LAST_MOMENT:
        return float(value)
    raise CatalogError(f"{what} is no moment")
