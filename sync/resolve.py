"""What the registries have for the list now: one HEAD for each tag, and what is not known yet of what it points to.

Whatever goes wrong with an image, or with its registry, is that image's failure.
"""

from __future__ import annotations

import re
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field, replace
from typing import Final, TypeVar

from cache_manager.registry.client import RegistryClient
from cache_manager.registry.exchange import Waits
from cache_manager.registry.failure import Kind, RegistryError
from cache_manager.registry.manifest import (
    ArchitectureError,
    Index,
    Manifest,
    ManifestError,
    architecture_of,
    choose,
    known_architectures,
)
from cache_manager.registry.reference import RegistryReference
from cache_manager.registry.tokens import Credential
from cache_manager.text import human_bytes
from sync.expansion import Expansion, expand
from sync.imageline import Entry
from sync.imagelist import ImageList
from sync.manners import Manners
from sync.resolution import Known, Refusal, Refused, Resolution
from sync.settings import Settings
from sync.values import Failure, Resolved, Variant

_SIGNATURE = re.compile(r"sha256-[0-9a-f]{64}(?:\..*)?")
"""Tags that cosign and the like put beside an image: no images."""

_PASSING: Final = frozenset({Kind.THROTTLED, Kind.UNREACHABLE})
_MEANS: Final = {Kind.GONE: "no such image in its registry", Kind.PRIVATE: "private, or no such image"}
_LASTING: Final = frozenset({Kind.GONE, Kind.WRONG})
"""What a registry says of a digest that is no passing state of it, and no question of who asks."""

REFUSED_FOR_S: Final = 6 * 3600.0
"""So long a manifest that was refused is not asked for: what it lacks may be pushed after it."""

_T = TypeVar("_T")


WAITS: Final = Waits(connect_s=10.0, stall_s=20.0)
"""For answers of a few kB."""


class UnfitError(Exception):
    """An image that there is, and that is not published: the text says why."""


def connect(settings: Settings) -> RegistryClient:
    """Return a client for the registries of the list."""
    return RegistryClient(WAITS, [host for host, one in settings.registries.items() if one.insecure])


@dataclass
class Resolver:
    """Asks registries, as many questions at a time as each of them may get.

    `known` and `refused` are what earlier runs found out; `credentials` are by registry, and none where an
    image has to be public. `progress` is told how many of how many are looked at.
    """

    client: RegistryClient
    settings: Settings
    known: Known = field(default_factory=dict)
    credentials: Mapping[str, Credential] = field(default_factory=dict)
    progress: Callable[[int, int], None] = lambda _done, _all: None
    refused: Refused = field(default_factory=dict)
    now: float = field(default_factory=time.time)

    def __post_init__(self) -> None:
        self._manners: dict[tuple[str, bool], Manners] = {}
        self._found: dict[str, tuple[Variant, ...]] = {}
        self._refused: dict[str, Refusal] = {}

    def resolve(self, images: ImageList) -> Resolution:
        """Return what is listed, and what the registries have for it."""
        expansion = self.expand(images.entries)
        resolved: dict[str, Resolved] = {}
        failures = dict(expansion.failures)
        for entry, outcome in self.each(expansion.entries, self.outcome):
            if isinstance(outcome, Failure):
                failures[entry.name] = outcome
            else:
                resolved[entry.name] = outcome
        is_whole = not any(one.transient for one in failures.values())
        known = self._found if is_whole else {**self.known, **self._found}
        refused = self._refused if is_whole else {**self.refused, **self._refused}
        return Resolution(resolved, failures, expansion.open_globs, images.faults, known, refused)

    def expand(self, entries: Iterable[Entry]) -> Expansion:
        """Return the entries with each pattern replaced by the tags that it stands for."""
        entries = tuple(entries)
        self._prepare(entries)
        globs = [one for one in entries if one.is_glob]
        return expand(entries, dict(self.each(globs, self._tags)), self.settings.max_tags)

    def look(self, entry: Entry) -> Resolved:
        """Return what an image is now. Raises RegistryError, ManifestError, UnfitError."""
        reference = entry.reference
        digest = self._ask(reference, lambda: self.client.head(reference, self._credential(reference))).digest
        variants = self.known.get(digest)
        if variants is None:
            variants = self._unless_refused(reference.at(digest), self._variants)
        self._found[digest] = variants  # also if the size of one cannot be found out
        wanted = entry.architectures or self.settings.architectures
        variants = tuple(self._sized(reference, one) if one.arch in wanted else one for one in variants)
        self._found[digest] = variants
        by_arch = {one.arch: one for one in variants}
        chosen = tuple(by_arch[arch] for arch in wanted if arch in by_arch)
        if not chosen:
            there = ", ".join(by_arch) or "nothing that can be used"
            raise UnfitError(f"not for {' or '.join(wanted)}; there is: {there}")
        limit = entry.size_limit_bytes or self.settings.size_limit_bytes
        for one in chosen:
            if one.compressed_bytes is not None and one.compressed_bytes > limit:
                size = human_bytes(one.compressed_bytes)
                raise UnfitError(f"too large for {one.arch} ({size} compressed, the limit is {human_bytes(limit)})")
        return Resolved(entry.name, entry.source, digest, chosen)

    def outcome(self, entry: Entry) -> Resolved | Failure:
        """Return what an image is now, or why it cannot be published."""
        try:
            return self.look(entry)
        except (RegistryError, UnfitError, ManifestError) as error:
            return failure_of(entry, error)

    def _tags(self, entry: Entry) -> tuple[str, ...] | Failure:
        """Return the tags that a pattern stands for."""
        reference = entry.reference
        try:
            tags = self._ask(reference, lambda: self.client.tags(reference, self._credential(reference)))
        except RegistryError as error:
            return failure_of(entry, error)
        wants_signatures = reference.tag.startswith("sha256-")
        return tuple(one for one in tags if entry.fits(one) and (wants_signatures or not _SIGNATURE.fullmatch(one)))

    def _variants(self, reference: RegistryReference) -> tuple[Variant, ...]:
        """Return the images that an unknown digest stands for, as far as one answer tells."""
        found = self._manifest(reference)
        if isinstance(found, Index):
            return tuple(_children(found))
        config = self._ask(
            reference, lambda: self.client.small_blob(reference, found.config, self._credential(reference))
        )
        arch = architecture_of(config) or "an architecture that it does not name"
        return (Variant(arch, found.digest, _size(found)),)

    def _sized(self, reference: RegistryReference, variant: Variant) -> Variant:
        if variant.compressed_bytes is not None:
            return variant
        child = reference.at(variant.digest)
        try:
            size = self._unless_refused(child, self._size_of)
        except RegistryError as error:
            why = f"its image for {variant.arch}: {error.message.removeprefix(f'{child}: ')}"
            raise RegistryError(error.kind, why) from None
        except UnfitError as error:
            raise UnfitError(f"its image for {variant.arch} {error}") from None
        return replace(variant, compressed_bytes=size)

    def _size_of(self, reference: RegistryReference) -> int:
        found = self._manifest(reference)
        if isinstance(found, Index):
            raise UnfitError("is an index of its own")
        return _size(found)

    def _unless_refused(self, reference: RegistryReference, work: Callable[[RegistryReference], _T]) -> _T:
        """Return what is found out of a manifest. What was refused not long ago is so again, without a question."""
        name = str(reference)
        refusal = self.refused.get(name)
        if refusal is None or not 0 <= self.now - refusal.found_at < REFUSED_FOR_S:
            try:
                return work(reference)
            except UnfitError as error:
                refusal = Refusal(str(error), self.now)
            except RegistryError as error:
                if error.kind not in _LASTING:
                    raise
                refusal = Refusal(error.message, self.now, error.kind.name)
        self._refused[name] = refusal
        raise RegistryError(Kind[refusal.kind], refusal.why) if refusal.kind else UnfitError(refusal.why)

    def _manifest(self, reference: RegistryReference) -> Index | Manifest:
        return self._ask(
            reference, lambda: self.client.manifest(reference, self._credential(reference)), is_counted=True
        )

    def _credential(self, reference: RegistryReference) -> Credential | None:
        return self.credentials.get(reference.registry)

    def _ask(self, reference: RegistryReference, question: Callable[[], _T], *, is_counted: bool = False) -> _T:
        manners = self._manners[reference.registry, is_counted]
        if is_counted:
            return manners.ask(question, lambda: self.client.limit(reference.registry))
        return manners.ask(question)

    def _prepare(self, entries: Iterable[Entry]) -> None:
        for registry in {one.reference.registry for one in entries}:
            for is_counted in (True, False):
                key = (registry, is_counted)
                self._manners.setdefault(key, Manners(registry, self.settings.registry_patience_s))

    def each(self, entries: Iterable[Entry], work: Callable[[Entry], _T]) -> list[tuple[Entry, _T]]:
        """Do something for each entry, with a few threads for each registry: a slow one keeps no other waiting."""
        by_registry: dict[str, list[Entry]] = defaultdict(list)
        for entry in entries:
            by_registry[entry.reference.registry].append(entry)
        pools: list[ThreadPoolExecutor] = []
        futures: dict[Future[_T], Entry] = {}
        for registry, mine in by_registry.items():
            threads = min(self.settings.registry(registry).connections, len(mine))
            pool = ThreadPoolExecutor(threads, thread_name_prefix=registry)
            pools.append(pool)
            futures |= {pool.submit(work, entry): entry for entry in mine}
        try:
            for done, _ in enumerate(as_completed(futures), 1):
                self.progress(done, len(futures))
        except BaseException:  # also Ctrl-C: nobody may go on waiting for a registry then
            for one in self._manners.values():
                one.give_up()
            raise
        finally:
            for pool in pools:
                pool.shutdown(cancel_futures=True)
        return [(entry, future.result()) for future, entry in futures.items()]


def failure_of(entry: Entry, error: RegistryError | UnfitError | ManifestError) -> Failure:
    """Return why an image is not resolved, without its name: that is said beside it."""
    kind = error.kind if isinstance(error, RegistryError) else None
    named = re.match(rf"{re.escape(entry.source)}(?:@sha256:[0-9a-f]{{64}})?: ", str(error))
    why = str(error)[named.end() if named else 0 :]
    if kind in _MEANS:
        why = f"{_MEANS[kind]} ({why})"
    return Failure(entry.name, entry.source, why, kind in _PASSING)


def _children(index: Index) -> Iterable[Variant]:
    for arch in known_architectures():
        try:
            yield Variant(arch, choose(index, arch).digest)
        except ArchitectureError:
            continue


def _size(manifest: Manifest) -> int:
    if manifest.sif:
        raise UnfitError("is a SIF, and no image with layers: it can be published as a file alone")
    return sum(layer.size_bytes for layer in manifest.layers)
