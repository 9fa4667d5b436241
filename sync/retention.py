"""Which sandboxes and SIFs go: what nothing leads to for longer than its grace, so many in a run. Pure.

Of a name neither the current versions nor, where a listed name has none, the last good ones ever go; and no sandbox
goes that a name leads to, or is about to.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from cache_manager.text import human_time
from sync.catalog import UNKNOWN, Catalog, Image, Version
from sync.settings import Settings
from sync.step import Action, Verb
from sync.transitions import Form


@dataclass(frozen=True)
class Needed:
    """What the rest of a plan needs: the names that are listed, the versions that they lead to, and their digests."""

    names: frozenset[str] = frozenset()
    versions: frozenset[Version] = frozenset()
    digests: frozenset[str] = frozenset()


def removals(catalog: Catalog, needed: Needed, settings: Settings, now: float) -> Iterator[Action]:
    """Yield what is old enough to go, the oldest first; beyond what one run may remove it is kept, and told."""
    due = sorted(_due(catalog, needed, settings, now), key=lambda one: (one[0], one[1].name, one[1].arch))
    for number, (_, action) in enumerate(due):
        if number < settings.max_removals:
            yield action
        else:
            why = f"{action.reason}; stays for now: a run removes {settings.max_removals}"
            yield replace(action, verb=Verb.KEEP, reason=why)


def _due(catalog: Catalog, needed: Needed, settings: Settings, now: float) -> Iterator[tuple[float, Action]]:
    """Yield each form of a version whose grace is over, with the moment since when nothing leads to it."""
    graces = {Form.SIF: settings.sifs_grace_s, Form.SANDBOX: settings.sandboxes_grace_s}
    free_since = _free_sandboxes(catalog, needed)
    for image in catalog.images.values():
        for version in image.versions:
            since = {Form.SANDBOX: free_since.get(version.sandbox, 0.0) if version.sandbox else 0.0}
            if version.has_sif and version not in _held(image, needed):
                since[Form.SIF] = version.superseded_at
            for form, moment in since.items():
                age_s = now - moment
                if moment and age_s >= graces[form]:
                    why = f"nothing leads to it for {human_time(age_s)} (grace {human_time(graces[form])})"
                    yield moment, Action(Verb.REMOVE, image.name, why, image.source, version=version, form=form)


def _held(image: Image, needed: Needed) -> frozenset[Version]:
    """Return the versions of a name that do not go now."""
    held = {version.arch: version for version in image.versions if version.is_current}
    if image.name in needed.names:
        whole = (one for one in image.versions if one.digest != UNKNOWN)
        for version in sorted(whole, key=lambda one: one.version, reverse=True):
            held.setdefault(version.arch, version)
    return frozenset(held.values()) | needed.versions


def _free_sandboxes(catalog: Catalog, needed: Needed) -> Mapping[str, float]:
    """Return since when no name leads to a sandbox, for those to which none does: names of one digest share it."""
    free: dict[str, float] = {}
    held: set[str] = set()
    for image in catalog.images.values():
        held |= {version.sandbox for version in _held(image, needed)}
        for version in image.versions:
            if version.digest in needed.digests:
                held.add(version.sandbox)
            if version.sandbox:
                free[version.sandbox] = max(free.get(version.sandbox, 0.0), version.superseded_at)
    return {sandbox: since for sandbox, since in free.items() if sandbox not in held}
