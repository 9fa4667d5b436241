"""What `status` shows of each image: its state in one word, since when, why, and where its versions are. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

from cache_manager.layout import tree_name, tree_url, with_tag
from sync.catalog import Catalog, Image, Version
from sync.events import Doing, Publication

CONVERTING: Final = "converting"
STATES: Final = ("published", "queued", CONVERTING, "failing", "retired")


@dataclass(frozen=True, slots=True)
class Places:
    """Where readers find what is published: the top of the sandboxes and the base of the SIF tree; empty: nowhere."""

    sandboxes: str = ""
    sifs: str = ""


@dataclass(frozen=True, slots=True)
class Shown:
    """One architecture's version as it is shown. Digests as the registry writes them; locations may be empty."""

    arch: str
    version: str
    digest: str
    index_digest: str
    sif_sha256: str
    sif_bytes: int
    tree_digest: str
    tree_bytes: int
    sandbox: str
    sif: str
    published_at: float


@dataclass(frozen=True, slots=True)
class Row:
    """One image. `why` is the last error, or what is done with it now. `name` is with its tag."""

    name: str
    source: str
    state: str
    since: float
    why: str
    failures: int
    tried_at: float
    last_success: float
    digest: str
    link: str
    versions: tuple[Shown, ...]
    history: tuple[Publication, ...]

    def to_json(self) -> dict[str, Any]:
        """Return it for programs."""
        return asdict(self)


def rows(
    catalog: Catalog, doing: Mapping[str, Doing], history: Mapping[str, Sequence[Publication]], places: Places
) -> list[Row]:
    """Return all images: what fails first, then what is under way, then by name."""
    order = {"failing": 0, CONVERTING: 1, "queued": 2, "published": 3, "retired": 4}
    found = [_row(one, doing.get(one.name), history.get(one.name, ()), places) for one in catalog.images.values()]
    return sorted(found, key=lambda one: (order[one.state], one.name))


def _row(image: Image, doing: Doing | None, history: Sequence[Publication], places: Places) -> Row:
    state, since, why = image.state.value, image.since, image.error
    if doing is not None and not image.unlisted_at:
        state, since, why = CONVERTING, doing.since, f"{doing.what}{f'; before: {image.error}' if image.error else ''}"
    current = image.current
    has_link = any(one.sandbox for one in current.values())
    return Row(
        name=with_tag(image.name),
        source=image.source,
        state=state,
        since=since,
        why=why,
        failures=image.failures,
        tried_at=image.failed_at,
        last_success=max((one.created_at for one in current.values()), default=0.0),
        digest=image.digest,
        link=f"{places.sandboxes}/{with_tag(image.name)}" if places.sandboxes and has_link else "",
        versions=tuple(_shown(image.name, current[arch], places) for arch in sorted(current)),
        history=tuple(reversed(history)),
    )


def _shown(name: str, one: Version, places: Places) -> Shown:
    has_sif = one.has_sif and places.sifs
    return Shown(
        arch=one.arch,
        version=one.version,
        digest=one.digest,
        index_digest=one.index_digest,
        sif_sha256=one.sha256 if one.has_sif else "",
        sif_bytes=one.size_bytes if one.has_sif else 0,
        tree_digest=one.tree_digest if one.sandbox else "",
        tree_bytes=one.tree_bytes if one.sandbox else 0,
        sandbox=f"{places.sandboxes}/{one.sandbox}" if one.sandbox and places.sandboxes else "",
        sif=tree_url(places.sifs, one.arch, name, f"{one.version}.sif") if has_sif else "",
        published_at=one.created_at,
    )


def chosen(found: Sequence[Row], wanted: str) -> list[Row]:
    """Return the images that somebody means: by published name, `latest` or not, by source, or a tree's name."""
    names = {wanted, with_tag(wanted)}
    return [one for one in found if one.name in names or one.source in names or tree_name(one.name) == wanted]


def without_history(row: Row) -> Row:
    """Return it for lists, which need no history."""
    return replace(row, history=())


def counts(found: Sequence[Row]) -> dict[str, int]:
    """Return how many images are in each state."""
    return {state: sum(one.state == state for one in found) for state in STATES}
