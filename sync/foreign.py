"""What lies in a repository of sandboxes that the catalog does not know: of former publishers, say. Pure.

Names that are listed become this publisher's by the next conversion. Others are unlinked, and images to which no name
leads go after their grace, since the moment that `.missing_links.json` says, which this publisher goes on writing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from cache_manager.layout import with_tag
from sync.catalog import Catalog
from sync.resolution import Resolution
from sync.settings import Settings


@dataclass(frozen=True, slots=True)
class Seen:
    """What a repository holds: where each name leads, the images, and since when no name leads to some of them."""

    links: Mapping[str, str]
    images: frozenset[str]
    missing: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Tidying:
    """What is done: names that go, images that go, and the record of what no name leads to, as it is then."""

    unlink: tuple[str, ...] = ()
    remove: tuple[str, ...] = ()
    missing: Mapping[str, float] = field(default_factory=dict)

    def changes(self, seen: Seen) -> bool:
        """Whether anything is done at all."""
        return bool(self.unlink or self.remove) or dict(self.missing) != dict(seen.missing)


def decide(seen: Seen, catalog: Catalog, now_listed: Resolution | None, settings: Settings, now: float) -> Tidying:
    """Return what to do. Without a list, or with one that is not known in full, no name goes."""
    unlink: list[str] = []
    if now_listed is not None and not now_listed.faults and not now_listed.open_globs:
        listed = {with_tag(name) for name in (*now_listed.resolved, *now_listed.failures, *catalog.images)}
        unlink = sorted(name for name in seen.links if name not in listed)[: settings.max_removals]
    linked = {place for name, place in seen.links.items() if name not in unlink}
    missing = {place: min(seen.missing.get(place, now), now) for place in seen.images - linked}
    ours = {version.sandbox for image in catalog.images.values() for version in image.versions if version.sandbox}
    due = sorted(
        (since, place)
        for place, since in missing.items()
        if place not in ours and now - since >= settings.sandboxes_grace_s
    )
    remove = tuple(place for _, place in due[: settings.max_removals])
    return Tidying(tuple(unlink), remove, {place: since for place, since in missing.items() if place not in remove})
