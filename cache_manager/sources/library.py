"""An image in a Singularity library (library://): its tag resolved to a hash, the SIF of that hash fetched.

The protocol is the one of the public client: `v1/images` tells the hash, `v1/containers` for which machines there are
tags, `v1/imagefile` delivers or leads to the SIF. Only what is public is brought: jobs have no credential for it.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote

from cache_manager.library import LibraryReference
from cache_manager.outcome import Absent, Answer, Denied, Located, Unwell
from cache_manager.reference import ImageReference
from cache_manager.registry.manifest import machine_of, name_of
from cache_manager.sources import transport
from cache_manager.sources.base import Route, Sink, SourceError
from cache_manager.sources.sums import Sum
from cache_manager.sources.transport import Patience, shown
from cache_manager.status import HookStatus
from cache_manager.text import printable

MAX_BYTES: Final = 2**63
"""No file is larger."""

_HASH = re.compile(r"[a-z0-9]{1,16}\.[A-Za-z0-9-]{1,128}")
_SHA256 = re.compile(r"sha256\.([0-9a-f]{64})")


class LibraryAnswerError(ValueError):
    """An answer that a library would not give; the text says what is wrong with it."""


@dataclass(frozen=True, slots=True)
class LibraryImage:
    """What a library says of an image: its hash, its size and architecture (None and empty if it does not say)."""

    hash: str
    size_bytes: int | None = None
    architecture: str = ""


def read_image(raw: bytes) -> LibraryImage:
    """Read what a library says of an image. Raises LibraryAnswerError."""
    values = _data(raw)
    found, size, architecture = values.get("hash"), values.get("size"), values.get("arch")
    if not isinstance(found, str) or not _HASH.fullmatch(found):
        raise LibraryAnswerError("names no hash")
    known = size if type(size) is int and 0 < size < MAX_BYTES else None
    return LibraryImage(found, known, architecture if isinstance(architecture, str) else "")


def read_architectures(raw: bytes, tag: str) -> tuple[str, ...]:
    """Return for which architectures a container has a tag, or an image at all. Raises LibraryAnswerError."""
    values = _data(raw).get("archTags")
    if not isinstance(values, dict):
        return ()
    return tuple(sorted(name for name, tags in values.items() if name and isinstance(tags, dict) and tag in tags))


def _data(raw: bytes) -> dict[str, Any]:
    try:
        values = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise LibraryAnswerError(f"no JSON ({printable(str(error), 80)})") from None
    data = values.get("data") if isinstance(values, dict) else None
    if not isinstance(data, dict):
        raise LibraryAnswerError("no answer of a library")
    return data


@dataclass(frozen=True, slots=True)
class Library:
    """The library at a URL, for machines of one architecture (`uname -m`). It is the authority for what it names."""

    base: str
    arch: str
    patience: Patience

    def locate(self, image: ImageReference) -> Answer:
        """Say which image a tag names now.

        The hash is part of the URL and is not handed on as a digest that is known: a library that a job names could
        claim the digest of another's image, and get it out of the cache.
        """
        reference = LibraryReference.parse(image.path)
        url = self._url("images", reference.path, reference.tag)
        try:
            found = read_image(transport.read_small(url, self.patience))
        except SourceError as error:
            if isinstance(error.answer, Absent) and not error.answer.relayed:
                return self._absent(reference, error.answer)
            if isinstance(error.answer, Denied):
                return Denied(f"{error.answer.why}; only public images are brought from libraries")
            return error.answer
        except LibraryAnswerError as error:
            return Unwell(HookStatus.IMAGE_CORRUPT, f"{shown(url)}: {error}")
        machine = machine_of(found.architecture)
        if machine not in {"", self.arch}:
            return self._for_others(machine)
        return Located(
            url=self._url("imagefile", reference.path, found.hash),
            size_bytes=found.size_bytes,
            version=found.hash,
            pointer=found.hash,
        )

    def transfer(self, located: Located, sink: Sink) -> None:
        """Fetch the SIF. Its hash, if that is one of its bytes, is held against what came. Raises SourceError."""
        proof = _SHA256.fullmatch(located.version)
        try:
            transport.transfer([Route(located.url)], sink, self.patience, proof[1] if proof else "")
        except SourceError as error:
            if isinstance(error.answer, Absent) and not error.answer.relayed:  # it has just named it
                what = f"{error.answer.why}, although the library names it"
                raise SourceError(Unwell(HookStatus.SOURCE_UNREACHABLE, what)) from None
            raise
        if proof:
            promised = Sum("sha-256", bytes.fromhex(proof[1]))
            sink.promised = lambda: promised

    def _absent(self, reference: LibraryReference, answer: Absent) -> Answer:
        """Return what it means that there is no such tag: perhaps there is one for other machines."""
        url = f"{self.base.rstrip('/')}/v1/containers/{reference.path}"
        try:
            there = read_architectures(transport.read_small(url, self.patience), reference.tag)
        except (SourceError, LibraryAnswerError):  # it has said what was asked: this tells no more
            there = ()
        if there:
            return self._for_others(", ".join(there))
        return Absent(answer.why, authoritative=True)

    def _for_others(self, there: str) -> Unwell:
        what = f"not for {self.arch}; there is: {printable(there, 200)}"
        return Unwell(HookStatus.ARCHITECTURE_MISMATCH, what)

    def _url(self, kind: str, path: str, tag: str) -> str:
        return f"{self.base.rstrip('/')}/v1/{kind}/{path}:{tag}?arch={quote(name_of(self.arch))}"
