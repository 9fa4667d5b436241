"""Publishes what was converted, in batches: the sandboxes in one transaction, then each SIF, then the catalog.

Whatever fails, fails for its image; a batch for which there is no room is halved until one image is left.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from sync import files, transitions
from sync.catalog import Catalog, Version
from sync.events import Publication
from sync.ledger import Ledger
from sync.manifest import manifest
from sync.targets.base import Needed, NoRoom, SandboxTarget, TargetError, told
from sync.targets.sandboxes import Incomplete
from sync.targets.siftree import SifTree, next_version
from sync.transitions import Form
from sync.values import Converted, Failure

OVERHEAD_BYTES: Final = 4096
"""What each file of a sandbox takes beside its content, at most, on the usual file systems."""


@dataclass(frozen=True, slots=True)
class Item:
    """An image that is to be published, as what."""

    converted: Converted
    forms: frozenset[Form]

    @property
    def name(self) -> str:
        """The published name."""
        return self.converted.name

    def failure(self, why: str, *, transient: bool = True) -> NotPublished:
        """Return that it was not published."""
        one = self.converted
        arch = one.variant.arch
        return NotPublished(arch, Failure(one.name, one.source, f"{arch}: not published: {why}", transient))


@dataclass(frozen=True, slots=True)
class NotPublished:
    """A failure, and the architecture that it is of."""

    arch: str
    failure: Failure

    @property
    def name(self) -> str:
        """The published name."""
        return self.failure.name


Places = dict[tuple[str, str], str]
"""Where the sandbox of a name and an architecture lies."""

Tell = Callable[[str, str], None]
"""Told an image's name, and what is done with it."""


class Publisher:
    """Both targets, as far as there are two."""

    def __init__(self, ledger: Ledger, sandboxes: SandboxTarget | None, tree: SifTree | None, tell: Tell) -> None:
        self._ledger = ledger
        self._sandboxes = sandboxes
        self._tree = tree
        self._tell = tell

    def publish(self, batch: Sequence[Item]) -> list[NotPublished]:
        """Publish a batch; return what of it was not. Raises OSError where nothing can be remembered."""
        failures: list[NotPublished] = []
        places: Places = {}
        with_sandbox = [one for one in batch if Form.SANDBOX in one.forms]
        if with_sandbox and self._sandboxes is not None:
            places, failures = self._publish_sandboxes(self._sandboxes, with_sandbox)
        failed = {(one.name, one.arch) for one in failures}
        published: list[tuple[Item, Version]] = []
        for item in batch:
            key = (item.name, item.converted.variant.arch)
            if key in failed:
                continue
            try:
                version = self._publish_sif(item, places.get(key, ""))
            except TargetError as error:
                failures.append(item.failure(str(error), transient=error.transient))
            else:
                published.append((item, version))
        self._remember(published)
        return failures

    def _publish_sandboxes(self, target: SandboxTarget, batch: Sequence[Item]) -> tuple[Places, list[NotPublished]]:
        """Return the places of the sandboxes, and what failed."""
        needed = Needed(
            sum(one.converted.tree_bytes + OVERHEAD_BYTES * one.converted.tree_inodes for one in batch),
            sum(one.converted.tree_inodes for one in batch),
        )
        places: Places = {}
        failures: list[NotPublished] = []
        try:
            with target.writing(needed) as writing:
                for item in batch:
                    self._begin(item.name, "publishing the sandbox")
                    try:
                        place = writing.add(item.converted)
                        writing.link(item.name, place)
                    except Incomplete as error:
                        failures.append(item.failure(str(error)))
                    except OSError as error:
                        if error.errno in files.FULL:
                            raise
                        failures.append(item.failure(str(told("sandbox", error))))
                    else:
                        places[item.name, item.converted.variant.arch] = place
        except NoRoom as error:
            return self._halved(target, batch, error)
        except TargetError as error:
            return {}, [one.failure(str(error), transient=error.transient) for one in batch]
        return places, failures

    def _halved(self, target: SandboxTarget, batch: Sequence[Item], error: NoRoom) -> tuple[Places, list[NotPublished]]:
        """Publish the halves of a batch for which there was no room at once."""
        if len(batch) == 1:
            return {}, [batch[0].failure(str(error))]
        middle = len(batch) // 2
        places, failures = self._publish_sandboxes(target, batch[:middle])
        more_places, more_failures = self._publish_sandboxes(target, batch[middle:])
        return places | more_places, failures + more_failures

    def _publish_sif(self, item: Item, place: str) -> Version:
        """Publish an image's SIF, and return what was published of it. Raises TargetError, OSError."""
        catalog = self._ledger.catalog
        one = _as_it_lies_there(item.converted, place, catalog)
        has_sif = Form.SIF in item.forms and self._tree is not None
        version = next_version(self._ledger.now, self._known_versions(catalog, one))
        found = Version(
            arch=one.variant.arch,
            version=version,
            index_digest=one.index_digest,
            digest=one.variant.digest,
            created_at=self._ledger.now,
            sha256=one.sha256,
            size_bytes=one.size_bytes,
            has_sif=has_sif,
            sandbox=place,
            tree_digest=one.tree_digest,
            tree_bytes=one.tree_bytes,
            tree_inodes=one.tree_inodes,
        )
        if has_sif and self._tree is not None:
            self._begin(item.name, "publishing the SIF")
            self._ledger.begin(one.name, one.variant.arch, version)
            self._tree.publish(one, version, manifest(one, version, place, found.created_at))
        return found

    def _begin(self, name: str, what: str) -> None:
        self._ledger.doing(name, what)
        self._tell(name, what)

    def _known_versions(self, catalog: Catalog, one: Converted) -> list[str]:
        known = [version.version for version in catalog.get(one.name).versions if version.arch == one.variant.arch]
        there = self._tree.versions(one.variant.arch, one.name) if self._tree else None
        return [*known, *(there or ()), *self._ledger.begun(one.name, one.variant.arch)]

    def _remember(self, published: Sequence[tuple[Item, Version]]) -> None:
        now, catalog, news = self._ledger.now, self._ledger.catalog, []
        for item, version in published:
            catalog = transitions.published(catalog, item.name, version, now)
            news.append(Publication(now, item.name, version.arch, version.digest, version.version))
        if published:
            self._ledger.published(catalog, news)


def _as_it_lies_there(one: Converted, place: str, catalog: Catalog) -> Converted:
    """Return a conversion with what is known of its sandbox: one that an earlier version brought was not replaced.

    Each conversion writes into the tree which name it was made of, so another name's has another digest.
    """
    for _, version in catalog.holders(place) if place else ():
        if version.tree_digest:
            known = version.tree_digest, version.tree_bytes, version.tree_inodes
            return replace(one, tree_digest=known[0], tree_bytes=known[1], tree_inodes=known[2])
    return one
